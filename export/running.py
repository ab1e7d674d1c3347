"""A session where an encoder has its torch module, and a graph's outputs where it has its family's functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from zoo.errors import SizeError, Unsupported, WeightsError
from zoo.export.session import open_session
from zoo.features import Features
from zoo.files import sha256
from zoo.patches import grid_of


class GraphModule(nn.Module):
    """pixels (B, C, H, W) -> pooled (B, D), and the graph's other outputs by name; its weights are not torch's.

    `facts` is the file's metadata (zoo/export/onnx.py). The one buffer is the file's sha256, which tells the features
    of different graphs apart. Raises WeightsError for a graph that `zoo export` did not write, Unsupported for one
    that takes whole pictures.
    """

    sha256: Tensor

    def __init__(self, file: Path, providers: Sequence[str] | None = None) -> None:
        super().__init__()
        self.file, self.providers = file, providers
        self.session = open_session(file, providers)
        self.facts: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        widths = {output.name: output.shape[-1] for output in self.session.get_outputs()}
        entry = self.session.get_inputs()[0]
        if entry.name == "image":
            raise Unsupported(
                f"{file} resizes pictures itself, one at a time (exported with --preprocess), and an encoder needs a "
                "graph of pixels; infer.py beside it runs it, or export without --preprocess"
            )
        if "card" not in self.facts or "pooled" not in widths:
            raise WeightsError(f"{file} was not written by `zoo export`, or by an older one; export it again")
        self.outputs = tuple(widths)
        self.num_features = int(widths["pooled"])
        self.sides = entry.shape[-2:]  # an int where the graph takes nothing else
        self.dtype = torch.float16 if entry.type == "tensor(float16)" else torch.float32
        self.register_buffer("sha256", torch.tensor(list(bytes.fromhex(sha256(file))), dtype=torch.uint8))

    @property
    def provider(self) -> str:
        """What really computes, as in CPUExecutionProvider."""
        return str(self.session.get_providers()[0])

    def __reduce__(self) -> tuple[Any, ...]:
        """Opened anew where it is unpacked: a session cannot travel, and its file is where the images are."""
        return GraphModule, (self.file, self.providers)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.run(pixels, ["pooled"])[0]

    def run(self, pixels: Tensor, names: Sequence[str]) -> list[Tensor]:
        """The named outputs, float32. Raises SizeError for a size the graph cannot take."""
        self.check_size(pixels.shape[-2:])
        fed = pixels.detach().to("cpu", self.dtype).contiguous().numpy()
        return [torch.from_numpy(array) for array in self.session.run(list(names), {"pixels": fed})]

    def check_size(self, sides: Sequence[int]) -> None:
        """Raises SizeError, naming what it takes, where the graph cannot take images of (H, W) pixels."""
        if any(isinstance(own, int) and own != side for own, side in zip(self.sides, sides, strict=True)):
            given, own = ("×".join(map(str, pair)) for pair in (sides, self.sides))
            raise SizeError(
                f"{given} pixels, where {self.file.name} takes {own} and nothing else; "
                "`zoo export --dynamic` makes a graph of any size"
            )


class GraphFamily:
    """What `zoo.families.Family` asks of a module, answered by a graph's outputs."""

    def __init__(self, name: str, stride: int) -> None:
        self.name, self._stride = name, stride

    def build(self, architecture: str, arguments: dict[str, Any], interpolation: str = "timm") -> nn.Module:
        raise Unsupported(
            f"a graph is finished and cannot be built anew; zoo.load({self.name!r}) builds the module"
        )

    def stride(self, module: nn.Module) -> int:
        return self._stride

    def depth(self, module: nn.Module) -> int:
        return int(_graph(module).facts["depth"])

    def features(self, module: nn.Module, pixels: Tensor) -> Features:
        graph = _graph(module)
        names = [name for name in ("pooled", "patches", "cls") if name in graph.outputs]
        found = dict(zip(names, graph.run(pixels, names), strict=True))
        grid = grid_of(pixels.shape[-2], pixels.shape[-1], self._stride)
        return Features(found["pooled"], found.get("cls"), found["patches"], grid)

    def intermediates(self, module: nn.Module, pixels: Tensor, layers: Sequence[int]) -> list[Features]:
        self._lacks(module, "the features of single blocks", f"zoo.load({self.name!r}) has them")

    def attention_rows(
        self, module: nn.Module, pixels: Tensor, block: int, query: tuple[int, int] | None
    ) -> Tensor:
        if query is not None or block != self.depth(module) - 1:
            only = "attention but of the class token in the last block"
            self._lacks(module, only, f"zoo.load({self.name!r}) has it")
        if "attention" not in _graph(module).outputs:
            self._lacks(module, "attention", "`zoo export --attention` adds it")
        return _graph(module).run(pixels, ["attention"])[0]

    def pyramid(self, module: nn.Module, pixels: Tensor) -> list[Tensor]:
        levels = [name for name in _graph(module).outputs if name.startswith("pyramid_")]
        if not levels:
            self._lacks(module, "a pyramid", "`zoo export --pyramid` adds it")
        return _graph(module).run(pixels, levels)

    def _lacks(self, module: nn.Module, what: str, way: str) -> NoReturn:
        raise Unsupported(f"{_graph(module).file.name} of {self.name} was exported without {what}; {way}")


def _graph(module: nn.Module) -> GraphModule:
    return cast(GraphModule, module)
