"""Views of a photo, ours and lightly's, on one core: what a worker cuts for MAE, DINO, SimCLR and BYOL.

Sizes, crops, colours and blur are those of the papers' recipes, at 224 px; both begin with a decoded photo, ours with
pixels in a tensor, lightly's with a Pillow image, as their data loaders do. Photos are reduced to the recipe's
`data.side` before.
"""

from __future__ import annotations

from typing import Any

import torch
from lightly_views import VIEWS
from measure import DATA, Target, in_turn, report, seconds
from torchvision.transforms.v2.functional import to_pil_image

from zoo.sources import open_source
from zoo.training.data import decode
from zoo.training.methods import recipe

PHOTOS, AT_LEAST = 20, 1.0


def run(data: str) -> bool:
    if not data:
        raise SystemExit(DATA)
    torch.set_num_threads(1)  # a worker's
    source = open_source(data).spread(PHOTOS)
    return [compared(method, [source.read(i) for i in range(len(source))]) for method in VIEWS].count(
        False
    ) == 0


def compared(method: str, encoded: list[bytes]) -> bool:
    """Seconds for the views of all photos."""
    given = recipe(f"{method}/imagenet")
    config: Any = given.method
    ours, theirs = config.build(given).views(), VIEWS[method](given)
    tensors = [decode(each, given.data.side) for each in encoded]
    pictures = [to_pil_image(each) for each in tensors]
    draw = torch.Generator().manual_seed(0)
    found = in_turn(
        {
            "ours": lambda _: seconds(lambda: [ours(each, draw) for each in tensors]),
            "lightly": lambda _: seconds(lambda: [theirs(each) for each in pictures]),
        }
    )
    count = len(ours(tensors[0], draw))
    title = f"{method}, {count} view{'s' if count > 1 else ''} of each of {len(tensors)} photos, one core"
    return report(title, "s", found, [Target("lightly", "ours", AT_LEAST, at_least=True)])
