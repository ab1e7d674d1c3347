"""A published checkpoint as the tensors of our modules, with one report of all that was done to them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo import layouts
from zoo.cards import ModelCard
from zoo.checkpoints import Branches, read_checkpoint
from zoo.errors import WeightsError
from zoo.layouts.rules import Layout, Place, Tensors, at, joined, renamed
from zoo.layouts.vit import mae_decoder_positions
from zoo.loading import build
from zoo.resizing import resized
from zoo.weights import fit_report

SHOWN = 6  # names of each kind in the report


@dataclass(frozen=True)
class Published:
    """The tensors of `zoo.loading.build(card)`'s encoder and decoder, by their names there."""

    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor] | None  # None where the file, or the card, has none
    layout: str
    report: str  # what was renamed, dropped, filled in and resized, in lines


@dataclass
class _Notes:
    """What happened, in the order of the report."""

    renamed: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def text(self, head: str) -> str:
        kinds = (
            ("renamed", self.renamed),
            ("dropped", self.dropped),
            ("filled in", self.filled),
            ("resized", self.resized),
        )
        lines = [f"{len(names)} {title}: {_some(names)}" for title, names in kinds if names]
        return "\n".join([head, *lines, *self.said])


def read_published(path: str | Path, card: ModelCard, layout: str | None = None) -> Published:
    """The tensors of a published checkpoint under our names, fitted to the card's architecture.

    layout: a name of `zoo.layouts`; None: told from the names in the file. Raises WeightsError for a file that cannot
    be read without executing it, for names of no known layout, and for tensors that do not fit, with all that do not.

    >>> read_published("dino_deitsmall16_pretrain.pth", zoo.card("dino_vits16")).layout
    'timm_native'
    """
    path = Path(path)
    branches = read_checkpoint(path)
    with torch.device("meta"):
        module, decoder = build(card)
    chosen, place, tensors = _choose(branches, layout, module, path)
    notes = _Notes()
    encoder, other = _split(tensors, chosen, notes)
    if chosen.convert:
        encoder = chosen.convert(encoder, module)
    if chosen.check and (reason := chosen.check(module)):
        raise WeightsError(f"{path}, {chosen.name}: {reason}")
    encoder = _fill_counters(resized(encoder, module, card.interpolation, notes.resized), module, notes)
    found = _decoder(other, decoder, notes, path)
    where = ".".join(part for part in (place[0], place[1].replace("\\", "")) if part)
    report = notes.text(f"layout {chosen.name} ({chosen.writer}){f', at {where}' if where else ''}")
    for part, given in ((module, encoder), (decoder, found)):
        if part is not None and given is not None and (problems := fit_report(part, given)):
            raise WeightsError(
                f"{path} does not fit {type(part).__name__} of {card.name}:\n{problems}\n{report}"
            )
    return Published(encoder, found, chosen.name, report)


def _choose(
    branches: Branches, name: str | None, module: nn.Module, path: Path
) -> tuple[Layout, Place, Tensors]:
    """The layout asked for, or the one that the names tell, and the tensors where it says."""
    top = branches.get("", {})
    if name is not None:
        layout = layouts.named(name)
        if found := at(branches, layout):
            return layout, *found
        told = layouts.detect(branches)
        hint = f"; its names look like {told[0].name}" if told else ""
        raise WeightsError(
            f"{path} is not in the layout {layout.name} ({layout.writer}){hint}\n{layouts.seen(branches, path)}"
        )
    wanted = module.state_dict()
    if all(each in top for each in wanted):
        return layouts.NATIVE, ("", ""), top
    if told := layouts.detect(branches):
        return told
    if sum(each in top for each in wanted) * 2 > len(wanted):  # ours, but for some: their report says more
        return layouts.NATIVE, ("", ""), top
    raise WeightsError(f"{path} is in no layout known here\n{layouts.seen(branches, path)}")


def _split(tensors: Tensors, layout: Layout, notes: _Notes) -> tuple[Tensors, Tensors]:
    """Encoder and decoder under our names, without what the layout drops."""
    encoder: Tensors = {}
    decoder: Tensors = {}
    for name, tensor in tensors.items():
        of_decoder = layout.decoder is not None and re.match(layout.decoder, name) is not None
        if not of_decoder and any(re.match(drop, name) for drop in layout.drops):
            notes.dropped.append(name)
            continue
        ours = renamed(name, layout.decoder_renames if of_decoder else layout.renames)
        if ours != name:
            notes.renamed.append(f"{name} → {ours}")
        (decoder if of_decoder else encoder)[ours] = tensor
    return joined(encoder), joined(decoder)


def _fill_counters(tensors: Tensors, module: nn.Module, notes: _Notes) -> Tensors:
    """BatchNorm's counter of batches, which files of before 2018 and converted ones lack and no feature depends on."""
    absent = [
        name for name in module.state_dict() if name.endswith("num_batches_tracked") and name not in tensors
    ]
    notes.filled += absent
    return tensors | {name: torch.zeros((), dtype=torch.int64) for name in absent}


def _decoder(tensors: Tensors, decoder: nn.Module | None, notes: _Notes, path: Path) -> Tensors | None:
    """The decoder's tensors where both file and card have one; stored positions must be those it computes."""
    if not tensors:
        return None
    if decoder is None:
        notes.dropped += [f"decoder: {name}" for name in tensors]
        return None
    positions = tensors.pop("pos_embed", None)
    if positions is not None:
        if problem := mae_decoder_positions(positions, int(decoder.embed.out_features)):  # type: ignore[union-attr,arg-type]
            raise WeightsError(f"{path}: {problem}; a decoder with other positions would draw other pictures")
        notes.said.append("the decoder's stored positions equal the ones computed here")
    return tensors


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f", … and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
