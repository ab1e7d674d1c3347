"""What a layout is: where a file keeps its tensors, how to know them, and what each is called here.

A layout says these things and no more; `zoo/published.py` applies it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import WeightsError

Tensors = dict[str, Tensor]
Renames = tuple[tuple[str, str], ...]  # (regular expression, replacement), all applied in order
Convert = Callable[[Tensors, nn.Module], Tensors]

# (dotted keys of the dictionary in the file, regular expression of the prefix that the names begin with)
Place = tuple[str, str]

PARALLEL = r"(module\.|_orig_mod\.)*"  # of DistributedDataParallel and torch.compile

# SimMIM keeps its encoder as `encoder` and its decoder, a convolution and a PixelShuffle, beside it.
SIMMIM_PLACES: tuple[Place, ...] = tuple(
    (where, r"((module\.)?encoder\.|(?=(module\.)?decoder\.0\.))") for where in ("model", "")
)
SIMMIM_DECODER = r"mask_token|(module\.)?decoder\.0\."
SIMMIM_RENAMES: Renames = ((r"^(module\.)?decoder\.0\.", "head."),)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How somebody's checkpoints name their tensors. Regular expressions match from the start of a name."""

    name: str
    writer: str  # whose files these are, for people
    places: tuple[Place, ...]  # tried in this order
    marks: tuple[str, ...]  # each matches some name, once the prefix is gone
    tells: tuple[str, ...] = ()  # likewise, where the layout is told from the names
    never: tuple[str, ...] = ()  # none of which matches any
    drops: tuple[str, ...] = ()  # heads, mask tokens and tables that the encoder has no use for
    renames: Renames = ()
    decoder: str | None = None  # names of the decoder's tensors
    decoder_renames: Renames = ()
    convert: Convert | None = None  # what renaming cannot do; gets the renamed tensors and our module on meta
    decoder_convert: Convert | None = None  # likewise, with our decoder
    plain_fc_norm: bool = False  # the norm after pooling begins as a plain one, where the file has none
    check: Callable[[nn.Module], str] | None = None  # why a module of fitting shapes is still the wrong one


def at(
    branches: Mapping[str, Tensors], layout: Layout, *, told: bool = False
) -> tuple[Place, Tensors] | None:
    """The first of the layout's places that bears its marks, with the prefix as it is, and the tensors without it.

    told: whether the names alone speak for the layout, so that they must bear more of its marks.
    """
    for place in layout.places:
        where, prefix = place
        if where in branches and bears(layout, found := stripped(branches[where], prefix), told):
            taken = [match[0] for name in branches[where] if (match := re.match(prefix, name))]
            if len(found) < len(taken):
                raise WeightsError(
                    f"{len(taken) - len(found)} tensors in {where or 'the file'} have the name of another, "
                    f"once {' or '.join(sorted(set(taken)))} is gone from theirs"
                )
            return (where, taken[0]), found
    return None


def stripped(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    """The tensors whose names begin with `prefix`, without it."""
    matches = {name: re.match(prefix, name) for name in tensors}
    return {name[match.end() :]: tensors[name] for name, match in matches.items() if match}


def bears(layout: Layout, names: Mapping[str, object], told: bool) -> bool:
    def found(pattern: str) -> bool:
        return any(re.match(pattern, name) for name in names)

    marks = layout.marks + (layout.tells if told else ())
    return all(found(mark) for mark in marks) and not any(found(mark) for mark in layout.never)


def renamed(name: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def joined(tensors: Tensors) -> Tensors:
    """query, key and value of each attention, in this order, as timm's one qkv.

    Where the keys have no bias, those of queries and values become BEiT's q_bias and v_bias.
    """
    out: Tensors = {}
    for name, tensor in tensors.items():
        start, query, end = name.rpartition("attn.query.")
        if query:
            key, value = (tensors.get(f"{start}attn.{part}.{end}") for part in ("key", "value"))
            if key is not None and value is not None:
                out[f"{start}attn.qkv.{end}"] = torch.cat([tensor, key, value])
            elif end == "bias" and value is not None:
                out[f"{start}attn.q_bias"], out[f"{start}attn.v_bias"] = tensor, value
            else:
                out[name] = tensor  # reported as unexpected
        elif not any(f"attn.{part}." in name for part in ("key", "value")):
            out[name] = tensor
    return out
