"""The evaluation transform of a graph that prepares pictures itself: its own nodes, and no other resizing."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import onnxruntime
from PIL import Image

from zoo.errors import SizeError, Unsupported
from zoo.transforms import Transform


class GraphTransform(Transform):
    """A transform whose resizing and cropping are the graph's. Only the crop at its own size exists.

    The division by 255, mean and std are done here: numbers that the gate has held against the graph's.
    """

    def __init__(self, like: Transform, graph: bytes) -> None:
        """graph: `image` (height, width, C) uint8 -> `levels` (1, C, size, size), of `zoo.export.preprocess.split`."""
        super().__init__(like.size, like.crop_pct, like.interpolation, like.mean, like.std)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # whoever decodes has threads of their own
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for name, value in (("_graph", graph), ("_session", session)):
            object.__setattr__(self, name, value)  # the class it extends is frozen

    def __reduce__(self) -> tuple[Any, ...]:
        """Opened anew where it is unpacked: a session cannot travel."""
        plain = Transform(self.size, self.crop_pct, self.interpolation, self.mean, self.std)
        return GraphTransform, (plain, self.__dict__["_graph"])

    def _crop(self, picture: Image.Image, height: int, width: int) -> Image.Image:
        if (height, width) != (self.size, self.size):
            raise SizeError(
                f"{height}×{width} pixels, where this graph cuts pictures to {self.size}×{self.size} itself; "
                "export it without --preprocess, and with --dynamic"
            )
        levels = np.asarray(picture)
        image = levels if levels.ndim == 3 else levels[:, :, None]
        (cut,) = self.__dict__["_session"].run(["levels"], {"image": image})
        made = cut[0].astype(np.uint8).transpose(1, 2, 0)
        return Image.fromarray(made[:, :, 0] if made.shape[2] == 1 else made)

    def _resize(self, picture: Image.Image, height: int, width: int) -> NoReturn:
        raise Unsupported(
            "this graph resizes and crops pictures itself, so that none goes through it whole; "
            "export it without --preprocess, and with --dynamic"
        )
