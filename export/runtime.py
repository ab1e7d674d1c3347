"""An exported graph as an encoder: the same face as `zoo.Encoder`, computed by ONNX Runtime.

The graph stands where the torch module stands, and `GraphFamily` where the family's file does, so that everything
on images (transform, batches, grids, chunks) is the Encoder's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from zoo.cards import README, DecoderSpec, ModelCard, parse_card, read_card
from zoo.decoders import Masks
from zoo.encoder import Encoder
from zoo.errors import Unsupported, WeightsError
from zoo.export import parity
from zoo.export.folder import export_folder, graph_file, unlike_features
from zoo.export.opened import OpenedGraph
from zoo.export.prepared import GraphTransform
from zoo.export.running import GraphFamily, GraphModule, MaskedModule


class OnnxEncoder(Encoder):
    """The encoder in an export folder, or in the onnx/ of a model. Threads may share one; it has no gradients.

    providers: what computes, in order of preference, as in ("cuda", "cpu"); None: cuda where there is one, else cpu.
    precision: fp32, fp16 or int8; None: the most exact that is there. size: pixels of the evaluation crop; None: the
    graph's own, or the card's where it takes any. A graph that prepares pictures resizes and crops them here too, and
    reconstruct.onnx beside it reconstructs.
    What the graph lacks raises Unsupported, naming the flag of `zoo export` that adds it.
    Raises Unsupported (no graph, no such provider), WeightsError (a graph that is not its card's), SizeError.

    >>> encoder = zoo.export.OnnxEncoder("exported/")
    >>> encoder(["cat.jpg", "dog.jpg"])
    Features(pooled 2×192, patches 2×64×192, grid 8×8)
    """

    module: GraphModule

    def __init__(
        self,
        folder: str | Path,
        *,
        providers: Sequence[str] | None = None,
        precision: str | None = None,
        size: int | None = None,
    ) -> None:
        graph = GraphModule(graph_file(export_folder(folder), precision), providers)
        card = _checked_card(graph)
        if size is None and len(fixed := {side for side in graph.sides if isinstance(side, int)}) == 1:
            (size,) = fixed
        if size is not None:
            graph.check_size((size, size))
            card = dataclasses.replace(card, transform=dataclasses.replace(card.transform, size=size))
        super().__init__(card, graph, through=GraphFamily(card.name, int(graph.facts["stride"])))
        if graph.prepares is not None:
            self.transform = GraphTransform(self.transform, graph.prepares)

    def __repr__(self) -> str:
        graph = self.module
        return f"OnnxEncoder({self.card.name}, {graph.file.name}, {self.size} px, D={self.dim}, {graph.provider})"

    @property
    def device(self) -> torch.device:
        """Where its features lie; `.module.provider` says what computes them."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return self.module.dtype

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> OnnxEncoder:
        """This encoder where that changes nothing. Raises Unsupported, naming what chooses device and precision."""
        if torch.device(device or self.device) == self.device and (dtype or self.dtype) == self.dtype:
            return self
        raise Unsupported(
            "a graph stays where it was opened and as precise as it was exported; "
            "OnnxEncoder(folder, providers=('cuda',), precision='fp16') opens another"
        )

    @cached_property
    def _reconstructs(self) -> MaskedModule:
        """The graph of encoder and decoder, opened when it is first asked for. Raises Unsupported, WeightsError."""
        file = self.module.file.with_name(self.module.file.name.replace("model", "reconstruct", 1))
        if not file.is_file():
            precision = self.module.facts["precision"]
            raise Unsupported(
                f"{file.parent} holds no {file.name}, so it cannot reconstruct; "
                f"`zoo export {self.card.name} --to onnx --precision {precision} --out {file.parent}` writes it"
            )
        graph = MaskedModule(file, self.module.providers)
        _checked_card(graph)
        if graph.facts["weights_sha256"] != self.module.facts["weights_sha256"]:
            raise WeightsError(f"{file} is of other weights than {self.module.file.name}; export both again")
        return graph

    def _masked(self) -> MaskedModule:
        return self._reconstructs

    def _predicted(self, pixels: Tensor, masks: Masks) -> Tensor:
        return self._reconstructs.predict(self._spec(), pixels, masks)

    def _spec(self) -> DecoderSpec:
        return super()._spec() if self.card.decoder is None else self.card.decoder


def _checked_card(graph: OpenedGraph) -> ModelCard:
    """The card in the graph's metadata. Raises WeightsError where folder and graph are not of one export."""
    text, folder = graph.facts["card"], graph.file.parent
    if sha256(text.encode()).hexdigest() != graph.facts["card_sha256"]:
        raise WeightsError(f"{graph.file} carries another card than it was exported with; export it again")
    card = parse_card(text, graph.facts["name"], graph.file)
    for place in (folder, folder.parent if folder.name == "onnx" else folder):
        if (place / README).is_file() and (unlike := unlike_features(card, read_card(place))):
            raise WeightsError(
                f"{graph.file} is not of the model whose card lies in {place}: its {', '.join(unlike)} differ; "
                "export that model again"
            )
    mine = graph.sha256.numpy().tobytes().hex()
    for report in parity.read(folder):
        if report.file == graph.file.name and report.sha256 != mine:
            raise WeightsError(
                f"{graph.file} is not the file that passed the gate (sha256 {mine[:12]}…, in {parity.FILE} "
                f"{report.sha256[:12]}…); export it again"
            )
    return card
