"""How published checkpoints name their tensors: one file per group, and the order in which layouts are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zoo.errors import WeightsError, did_you_mean
from zoo.layouts import beit, libraries, pvt, resnet, swin, transformers, ummae, vit, xcit
from zoo.layouts.rules import Layout, Place, Tensors, at

# Names that equal ours already, at the top of the file: timm's repos and the zoo's own folders.
NATIVE = Layout(
    name="timm_native",
    writer="timm and the zoo",
    places=(("", ""),),
    marks=(),
    drops=(r"head\.", r"fc\.", r"head_dist\.", r".*relative_position_index", r".*attn_mask"),
)

# Told apart in this order: the more particular names first, since many layouts differ in their wrapping alone.
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for group in (transformers, ummae, pvt, swin, beit, xcit, vit, resnet, libraries)
    for layout in group.LAYOUTS
}
_OTHER_NAMES = {"mmselfsup": "mmpretrain", "mae": "mae_pth", "dino": "identity", "solo": "solo_learn"}


def named(name: str) -> Layout:
    """The layout of that name; WeightsError with the known ones."""
    plain = name.replace("-", "_")
    known = {NATIVE.name: NATIVE, **LAYOUTS}
    if (found := known.get(_OTHER_NAMES.get(plain, plain))) is None:
        raise WeightsError(f"no layout {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return found


def detect(branches: Mapping[str, Tensors]) -> tuple[Layout, Place, Tensors] | None:
    """The first layout whose place and marks the names bear."""
    for layout in LAYOUTS.values():
        if found := at(branches, layout, told=True):
            return layout, *found
    return None


def seen(branches: Mapping[str, Tensors], path: Path) -> str:
    """What a file holds and which layouts there are, for errors."""
    lines = [
        f"  {where or 'top'}: {len(tensors)} tensors, {', '.join(list(tensors)[:4])}, …"
        for where, tensors in list(branches.items())[:6]
    ]
    known = [f"  {layout.name}: {layout.writer}" for layout in (NATIVE, *LAYOUTS.values())]
    return "\n".join([f"{path} holds", *lines, "layouts known here", *known])
