"""The gate: an exported file against PyTorch, run as it will be run, on the shipped photos and on the user's own.

The file is opened as anybody would open it, and its pictures are prepared by what its own metadata says: a graph with
another transform fails like one with another weight. Axes: B images, N patches, D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zoo.decoders import kind
from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.export.graph import FeaturesGraph
from zoo.export.limits import Limits
from zoo.export.masked import drawn_masks, mask_inputs
from zoo.export.parity import Check
from zoo.export.pictures import pictures_for
from zoo.images import read_image
from zoo.progress import track
from zoo.sources import open_source
from zoo.transforms import Transform

BATCHES = (1, 3, 17)
OTHER_SIZES = ((224, 224), (160, 320))  # where height and width are free
MOST_PHOTOS = 1000

Named = dict[str, NDArray[np.float32]]


class Exported:
    """A file as onnxruntime opens it, with its transform.

    Q/DQ pairs, which are TensorRT's, round and do no more: a processor without VNNI that took the products between them
    in int8 would let their sums overflow, as no GPU does.
    """

    def __init__(self, file: Path | bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            file if isinstance(file, bytes) else str(file), options, providers=["CPUExecutionProvider"]
        )
        facts: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.transform = Transform(**json.loads(facts["transform"]))
        self.layers: dict[str, str] = json.loads(facts["layers"])
        self.outputs = [each.name for each in self.session.get_outputs()]
        entry = self.session.get_inputs()[0]
        self.entry, self.shape = entry.name, list(entry.shape)

    @property
    def prepares(self) -> bool:
        """Whether it takes pictures as they are."""
        return bool(self.entry == "image")

    @property
    def sides(self) -> tuple[int, int] | None:
        """(H, W) it was made for; None where it takes any, or any picture."""
        fixed = self.shape[2:]
        return None if self.prepares or not all(isinstance(s, int) for s in fixed) else (fixed[0], fixed[1])

    def run(self, **inputs: NDArray[Any]) -> Named:
        found = self.session.run(None, inputs)
        return {
            name: np.asarray(each, dtype=np.float32) for name, each in zip(self.outputs, found, strict=True)
        }

    def of_pictures(self, pictures: list[Image.Image], stride: int, sides: tuple[int, int] | None) -> Named:
        """Outputs of the pictures, (B, …) each, in batches of 1, 3 and 17 by turns."""
        if self.prepares:
            return _joined([self.run(image=_levels(picture)) for picture in pictures])
        pixels = [self.transform.pixels(picture, stride, size=sides) for picture in pictures]
        return _joined([self.run(pixels=torch.stack(part).numpy()) for part in in_batches(pixels)])


def gate(file: Path, encoder: Encoder, limits: Limits, photos: str | Path | None = None) -> list[Check]:
    """All checks of a features graph against its encoder, which is on the CPU and in float32."""
    exported, pictures = Exported(file), pictures_for(encoder)
    own = exported.sides or (exported.transform.size,) * 2
    checks = [*_compared(exported, encoder, pictures, own, limits)]
    if exported.sides is None and not exported.prepares:
        for sides in dict.fromkeys(_nearest(each, encoder.stride) for each in OTHER_SIZES):
            checks += _compared(exported, encoder, pictures[::2], sides, limits)
    if photos is not None:
        checks.append(_neighbours(exported, encoder, own, photos, limits))
    return checks


def _compared(
    exported: Exported, encoder: Encoder, pictures: list[Image.Image], sides: tuple[int, int], limits: Limits
) -> Iterator[Check]:
    pixels = torch.stack([encoder.transform.pixels(each, encoder.stride, size=sides) for each in pictures])
    expected = reference(encoder, exported.outputs, pixels)
    found = exported.of_pictures(pictures, encoder.stride, sides)
    batches = "one by one" if exported.prepares else f"batches of {', '.join(map(str, BATCHES))}"
    on = f"{sides[0]}×{sides[1]}, {batches}"
    for name in exported.outputs:
        yield from compare(name, found[name], expected[name], on, limits)


def compare(
    name: str, found: NDArray[np.float32], expected: NDArray[np.float32], on: str, limits: Limits
) -> Iterator[Check]:
    """max-abs in units of what is expected where that is larger than 1, and the least cosine of an image.

    Attention has its overlap: the share of a head's mass that lies where it should.
    """
    n = len(expected)
    if found.shape != expected.shape:
        yield Check(
            name, "cosine", f"{on}: shape {found.shape}, not {expected.shape}", n, -1.0, limits.cosine
        )
        return
    scale = max(1.0, float(np.sqrt(np.square(expected).mean())))
    worst = float(np.abs(found - expected).max()) / scale
    yield Check(name, "max-abs", on, n, _finite(worst, np.inf), limits.max_abs)
    if name == "attention":
        a, b = found.reshape(n, found.shape[1], -1), expected.reshape(n, expected.shape[1], -1)
        overlap = np.minimum(a, b).sum(axis=2) / np.maximum(b.sum(axis=2), 1e-12)
        yield Check(name, "overlap", on, n, _finite(float(overlap.mean()), 0.0), limits.overlap)
    else:
        yield Check(
            name, "cosine", on, n, _finite(float(cosines(found, expected).min()), -1.0), limits.cosine
        )


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each image's values, (B, …) -> (B,)."""
    a64, b64 = (each.reshape(len(each), -1).astype(np.float64) for each in (a, b))
    lengths = np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1)
    each: NDArray[np.float64] = (a64 * b64).sum(axis=1) / np.maximum(lengths, 1e-12)
    return each


def _finite(value: float, otherwise: float) -> float:
    return value if np.isfinite(value) else otherwise


@torch.no_grad()
def reference(encoder: Encoder, outputs: list[str], pixels: Tensor) -> Named:
    """The same outputs from the encoder itself."""
    graph = FeaturesGraph(
        encoder, encoder.module, attention="attention" in outputs, pyramid="pyramid_0" in outputs
    )
    parts = [{k: v.numpy() for k, v in graph.named(chunk).items()} for chunk in pixels.split(16)]
    return _joined(parts)


def gate_masked(file: Path, encoder: Encoder, limits: Limits) -> list[Check]:
    """All checks of a reconstruction graph: predictions under the card's own masks, drawn by seed."""
    spec, decoder = encoder.card.decoder, encoder.decoder
    assert spec is not None and decoder is not None
    exported, how, sides = Exported(file), kind(spec.kind), (encoder.size, encoder.size)
    pixels, given = (
        torch.stack([each.pixels(picture, encoder.stride, size=sides) for picture in pictures_for(encoder)])
        for each in (encoder.transform, exported.transform)
    )
    checks: list[Check] = []
    for ratio in (spec.ratio, 0.5) if spec.strategy == "random" else (spec.ratio,):
        masks, found, expected = drawn_masks(encoder, len(pixels), ratio), [], []
        for each in in_batches(list(torch.arange(len(pixels)))):
            rows = torch.stack(each)
            part = masks.rows(rows)
            named = mask_inputs(spec, encoder.module, part)
            inputs = {name: mask.numpy() for name, mask in named.items()}
            found.append(exported.run(pixels=given[rows].numpy(), **inputs)["predicted"])
            with torch.no_grad():
                expected.append(
                    how.predict(encoder.family, encoder.module, decoder, pixels[rows], part).numpy()
                )
        on = f"{sides[0]}×{sides[1]}, {spec.strategy} masks of {ratio:g}"
        checks += compare("predicted", np.concatenate(found), np.concatenate(expected), on, limits)
    return checks


def _neighbours(
    exported: Exported, encoder: Encoder, sides: tuple[int, int], photos: str | Path, limits: Limits
) -> Check:
    """The share of photos whose nearest other photo, by the cosine of pooled features, is the same."""
    source = open_source(photos).spread(MOST_PHOTOS)
    if len(source) < 3:
        raise DataError(f"{source.title} holds {len(source)} photos; neighbours need 3, and a judgement 500")
    found, expected = [], []
    for start in track(range(0, len(source), 16), "photos"):
        some, channels = range(start, min(start + 16, len(source))), encoder.transform.channels
        pictures = [read_image(source.read(i), channels=channels) for i in some]
        pixels = torch.stack(
            [encoder.transform.pixels(each, encoder.stride, size=sides) for each in pictures]
        )
        expected.append(reference(encoder, ["pooled"], pixels)["pooled"])
        found.append(exported.of_pictures(pictures, encoder.stride, sides)["pooled"])
    same = nearest(np.concatenate(found)) == nearest(np.concatenate(expected))
    on = f"{source.title}, {sides[0]}×{sides[1]}"
    return Check("pooled", "neighbour", on, len(source), float(same.mean()), limits.neighbour)


def nearest(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """(B, D) -> (B,): the index of the other row of the largest cosine."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    return np.asarray(alike.argmax(axis=1))


def in_batches(items: list[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of 1, 3 and 17 by turns."""
    start = 0
    for size in cycle(BATCHES):
        if start >= len(items):
            return
        yield items[start : start + size]
        start += size


def _levels(picture: Image.Image) -> NDArray[np.uint8]:
    """(H, W, C)."""
    array = np.array(picture)
    return array if array.ndim == 3 else array[:, :, None]


def _joined(parts: list[Named]) -> Named:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _nearest(sides: tuple[int, int], stride: int) -> tuple[int, int]:
    height, width = (max(1, round(side / stride)) * stride for side in sides)
    return height, width


Gate = Callable[[Path], list[Check]]
