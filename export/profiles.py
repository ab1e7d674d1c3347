"""The shapes an engine is built for: of each input with free axes, the least, the likeliest and the greatest."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import onnx

from zoo.errors import Unsupported, did_you_mean

Shape = tuple[int, ...]
Shapes = dict[str, tuple[Shape, Shape, Shape]]  # input -> least, likeliest, greatest
Range = tuple[int, int, int]
Axes = dict[str, tuple[int | str, ...]]  # input -> its lengths, where one is free what it is called

BATCH: Range = (1, 8, 32)


def shapes_for(file: Path, ranges: Mapping[str, Range] | None = None) -> Shapes:
    """The shapes of a graph's inputs with free axes; none where every length is fixed.

    ranges: of a free axis by its name, least, likeliest and greatest. By default 1, 8 and 32 of `batch`; of `rows` and
    `columns`, which count strides, half, once and twice the card's size; of `visible`, up to all patches.
    Raises Unsupported for an axis without a range and for a range of no axis.
    """
    axes, asked = axes_of(onnx.load(file, load_external_data=False)), ranges or {}
    return spanned(axes, defaults(metadata_of(file)) | dict(asked), asked)


def metadata_of(file: Path) -> dict[str, str]:
    """What a graph says of itself (zoo/export/onnx.py)."""
    model = onnx.load(file, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def axes_of(model: onnx.ModelProto) -> Axes:
    """Lengths of the inputs' axes; a free one by its name."""
    weights = {each.name for each in model.graph.initializer}
    return {
        each.name: tuple(side.dim_param or side.dim_value for side in each.type.tensor_type.shape.dim)
        for each in model.graph.input
        if each.name not in weights
    }


def defaults(facts: Mapping[str, str]) -> dict[str, Range]:
    """Ranges that the graph's own metadata suggest."""
    ranges = {"batch": BATCH}
    if "transform" in facts and "stride" in facts:
        sides = max(2, json.loads(facts["transform"])["size"] // int(facts["stride"]))
        ranges |= dict.fromkeys(("rows", "columns"), (sides // 2, sides, 2 * sides))
        ranges["visible"] = (1, max(1, sides**2 // 4), sides**2)  # MAE hides three quarters
    return ranges


def spanned(axes: Axes, ranges: Mapping[str, Range], asked: Mapping[str, Range]) -> Shapes:
    """Three shapes of every input that has a free axis. asked: those ranges that must be of some axis."""
    free = {_split(side)[1] for sides in axes.values() for side in sides if isinstance(side, str)}
    if unknown := [name for name in asked if name not in free]:
        named = ", ".join(sorted(free)) or "none: every length is fixed"
        hint = did_you_mean(unknown[0], free)
        raise Unsupported(f"the graph has no free axis {unknown[0]!r}{hint}; there are {named}")
    for name in sorted(free):
        if name not in ranges:
            example = f"profiles={{{name!r}: (least, likeliest, greatest)}}"
            raise Unsupported(f"how long the axis {name!r} gets, nobody said; pass {example}")
        if not 1 <= ranges[name][0] <= ranges[name][1] <= ranges[name][2]:
            raise Unsupported(
                f"{name} from {ranges[name]} is no range; write three numbers in order, from 1 on"
            )
    return {
        name: _three(sides, ranges)
        for name, sides in axes.items()
        if any(isinstance(side, str) for side in sides)
    }


def _three(sides: tuple[int | str, ...], ranges: Mapping[str, Range]) -> tuple[Shape, Shape, Shape]:
    least, likeliest, greatest = (
        tuple(side if isinstance(side, int) else _length(side, ranges, which) for side in sides)
        for which in range(3)
    )
    return least, likeliest, greatest


def _length(side: str, ranges: Mapping[str, Range], which: int) -> int:
    factor, name = _split(side)
    return factor * ranges[name][which]


def _split(side: str) -> tuple[int, str]:
    """`16*rows` -> 16 and its name."""
    found = re.fullmatch(r"(?:(\d+)\*)?([A-Za-z_]\w*)", side.replace(" ", ""))
    if found is None:
        raise Unsupported(
            f"an axis of length {side!r} is no multiple of one name; export the graph with the zoo"
        )
    return int(found[1] or 1), found[2]
