"""A published checkpoint as the tensors of our modules, with one report of all that was done to them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
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
from zoo.resizing import resized_tensors
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
    encoder, other = _split(tensors, chosen, module.state_dict().keys(), notes)
    if left := sum(map(len, branches.values())) - len(tensors):
        notes.said.append(f"{left} tensors elsewhere in the file were left there")
    if chosen.convert:
        encoder = chosen.convert(encoder, module)
    if chosen.check and (reason := chosen.check(module)):
        raise WeightsError(f"{path}, {chosen.name}: {reason}")
    encoder = _filled(encoder, module, chosen, notes)
    moved = resized_tensors(encoder, module, card.interpolation)
    notes.resized += [
        f"{name} {tuple(encoder[name].shape)} → {tuple(now.shape)}" for name, now in moved.items()
    ]
    encoder |= moved
    found = _decoder(other, decoder, chosen, notes, path)
    where = " ".join(part for part in place if part)
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
    native = layouts.NATIVE
    beside = [each for each in top if each not in wanted and not any(re.match(d, each) for d in native.drops)]
    if not beside and all(each in top for each in wanted):
        return native, ("", ""), top
    if told := layouts.detect(branches):
        return told
    if sum(each in top for each in wanted) * 2 > len(wanted):  # ours, but for some: their report says more
        return native, ("", ""), top
    raise WeightsError(f"{path} is in no layout known here\n{layouts.seen(branches, path)}")


def _split(
    tensors: Tensors, layout: Layout, wanted: Collection[str], notes: _Notes
) -> tuple[Tensors, Tensors]:
    """Encoder and decoder under our names, without what the layout drops and the module does not want."""
    encoder: Tensors = {}
    decoder: Tensors = {}
    for name, tensor in tensors.items():
        of_decoder = layout.decoder is not None and re.match(layout.decoder, name) is not None
        ours = renamed(name, layout.decoder_renames if of_decoder else layout.renames)
        if not of_decoder and ours not in wanted and any(re.match(drop, name) for drop in layout.drops):
            notes.dropped.append(name)
            continue
        if ours != name:
            notes.renamed.append(f"{name} → {ours}")
        part = decoder if of_decoder else encoder
        if ours in part:
            raise WeightsError(f"layout {layout.name}: two tensors would be {ours}, {name} and another")
        part[ours] = tensor
    return joined(encoder), joined(decoder)


def _filled(tensors: Tensors, module: nn.Module, layout: Layout, notes: _Notes) -> Tensors:
    """The tensors with those that the file need not have.

    No feature depends on BatchNorm's counter of batches, which files of before 2018 and converted ones lack. Where the
    mean of patches goes through a norm of its own, BEiT's authors leave out the final norm and begin with a plain one.
    """
    wanted = module.state_dict()
    out = dict(tensors)
    for name in wanted:
        if name.endswith("num_batches_tracked") and name not in tensors:
            out[name] = torch.zeros((), dtype=torch.int64)
        elif layout.plain_fc_norm and name.startswith("fc_norm.") and name not in tensors:
            out[name] = (torch.ones if name.endswith("weight") else torch.zeros)(wanted[name].shape)
            notes.dropped += [
                norm for norm in ("norm.weight", "norm.bias") if out.pop(norm, None) is not None
            ]
    notes.filled += [name for name in out if name not in tensors]
    return out


def _decoder(
    tensors: Tensors, decoder: nn.Module | None, layout: Layout, notes: _Notes, path: Path
) -> Tensors | None:
    """The decoder's tensors where both file and card have one; stored positions must be those it computes."""
    if decoder is None or not any(
        name.startswith("head.") for name in tensors
    ):  # a mask token is not a decoder
        notes.dropped += [f"decoder: {name}" for name in tensors]
        return None
    positions = tensors.pop("pos_embed", None)
    if positions is not None:
        width = decoder.get_parameter("mask_token").shape[-1]
        if problem := mae_decoder_positions(positions, width):
            raise WeightsError(f"{path}: {problem}; a decoder with other positions would draw other pictures")
        notes.said.append("the decoder's stored positions equal the ones computed here")
    return layout.decoder_convert(tensors, decoder) if layout.decoder_convert else tensors


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f", … and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
