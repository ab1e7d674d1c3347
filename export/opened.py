"""An exported file as ONNX Runtime opens it, in the shape of a torch module that has no weights of torch's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from zoo.errors import SizeError, WeightsError
from zoo.export.preprocess import split
from zoo.export.session import open_session
from zoo.files import sha256


class OpenedGraph(nn.Module):
    """A file of `zoo export`, opened; `facts` is its metadata (zoo/export/onnx.py).

    Of a graph that prepares pictures itself this is the part after that, which takes `pixels`; `prepares` is the other.
    The one buffer is the file's sha256, which tells the features of different graphs apart.
    Raises WeightsError for a graph that `zoo export` did not write.
    """

    sha256: Tensor
    otherwise = "`zoo export --dynamic` makes a graph of any size"  # what to do where a size does not fit

    def __init__(self, file: Path, providers: Sequence[str] | None = None) -> None:
        super().__init__()
        self.file, self.providers = file, providers
        self.session = open_session(file, providers)
        self.facts: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        if "card" not in self.facts:
            raise WeightsError(f"{file} was not written by `zoo export`, or by an older one; export it again")
        self.prepares: bytes | None = None
        if self.session.get_inputs()[0].name == "image":
            before, after = split(onnx.load(file), json.loads(self.facts["transform"])["size"])
            self.prepares = before.SerializeToString()
            self.session = open_session(file, providers, content=after.SerializeToString())
        entry = self.session.get_inputs()[0]
        self.inputs = tuple(each.name for each in self.session.get_inputs())
        self.widths = {output.name: output.shape[-1] for output in self.session.get_outputs()}
        self.sides = entry.shape[-2:]  # an int where the graph takes nothing else
        self.dtype = torch.float16 if entry.type == "tensor(float16)" else torch.float32
        self.register_buffer("sha256", torch.tensor(list(bytes.fromhex(sha256(file))), dtype=torch.uint8))

    @property
    def provider(self) -> str:
        """What really computes, as in CPUExecutionProvider."""
        return str(self.session.get_providers()[0])

    def __reduce__(self) -> tuple[Any, ...]:
        """Opened anew where it is unpacked: a session cannot travel, and its file is where the images are."""
        return type(self), (self.file, self.providers)

    def run(
        self, pixels: Tensor, names: Sequence[str], others: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """The named outputs, float32. others: further inputs. Raises SizeError for a size the graph cannot take."""
        self.check_size(pixels.shape[-2:])
        fed = {"pixels": pixels.detach().to("cpu", self.dtype).contiguous().numpy()}
        fed |= {name: each.cpu().contiguous().numpy() for name, each in (others or {}).items()}
        return [torch.from_numpy(array) for array in self.session.run(list(names), fed)]

    def check_size(self, sides: Sequence[int]) -> None:
        """Raises SizeError, naming what it takes, where the graph cannot take images of (H, W) pixels."""
        if any(isinstance(own, int) and own != side for own, side in zip(self.sides, sides, strict=True)):
            given, own = ("×".join(map(str, pair)) for pair in (sides, self.sides))
            raise SizeError(
                f"{given} pixels, where {self.file.name} takes {own} and nothing else; {self.otherwise}"
            )
