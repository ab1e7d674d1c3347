"""A session where an encoder has its torch module, and a graph's outputs where it has its family's functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from torch import Tensor, nn

from zoo.card_specs import DecoderSpec
from zoo.decoders import Masks
from zoo.errors import Unsupported, WeightsError
from zoo.export.masked import mask_inputs
from zoo.export.opened import OpenedGraph
from zoo.features import Features
from zoo.patches import grid_of


class GraphModule(OpenedGraph):
    """pixels (B, C, H, W) -> pooled (B, D), and the graph's other outputs by name.

    Raises WeightsError for a graph that `zoo export` did not write.
    """

    def __init__(self, file: Path, providers: Sequence[str] | None = None) -> None:
        super().__init__(file, providers)
        if "pooled" not in self.widths:
            raise WeightsError(f"{file} gives no pooled features; `zoo export` writes graphs that do")
        self.outputs = tuple(self.widths)
        self.num_features = int(self.widths["pooled"])

    def forward(self, pixels: Tensor) -> Tensor:
        return self.run(pixels, ["pooled"])[0]


class MaskedModule(OpenedGraph):
    """pixels and a mask -> the decoder's patches: a graph of zoo/export/masked.py."""

    otherwise = "its decoder is of one size; zoo.load reconstructs at others"

    def __init__(self, file: Path, providers: Sequence[str] | None = None) -> None:
        super().__init__(file, providers)
        if "kept" in self.inputs:
            self.compact = True  # by which zoo/decoders/ummae.py tells a pyramid

    def predict(self, spec: DecoderSpec, pixels: Tensor, masks: Masks) -> Tensor:
        """(B, N, P*P*C). All images hide equally many patches."""
        return self.run(pixels, ["predicted"], mask_inputs(spec, self, masks))[0]


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
