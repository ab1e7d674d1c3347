"""Where the class token's attention falls: on the object or beside it.

Each head's attention in the last block is thresholded to the patches that hold 60 % of its mass (Figure 4 of
2104.14294) and compared with the object's true mask. The head is chosen on the first images, and scored on the others.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.attention_maps import iou, top_mass
from zoo.errors import DataError
from zoo.images import read_image
from zoo.progress import track
from zoo.protocols import TRAINED, UNTRAINED

if TYPE_CHECKING:
    from zoo.encoder import Encoder

OBJECT, BORDER = 1, 3  # values of a trimap of the Oxford pets; 2 is background
BOXES = tuple(
    side / 20 for side in range(8, 21)
)  # sides of centred boxes, as shares of the image's; 1 is all of it


def foreground_scores(
    encoder: Encoder, data: str | Path, *, patches: int = 28, share: float = 0.6, choosing: int = 100
) -> dict[str, Any]:
    """Mean IoU with the object: of the best head, of the best centred box, and of the whole image.

    data: parquet with an `image` and a `trimap` column, or a folder of such files, read in the order of their names.
    patches: along the short side of the enlarged image. Head and box are the best of the first `choosing` images; the
    scores are those of the rest. Border pixels do not count.
    Raises DataError, and Unsupported where the model has no class token.
    """
    rows = [
        _scores(encoder, image, trimap, patches, share) for image, trimap in track(_pairs(data), "looking")
    ]
    if len(rows) <= choosing:
        raise DataError(f"{data} has {len(rows)} images; the head is chosen on {choosing}, so give more")
    heads, boxes = (
        torch.stack(column) for column in zip(*rows, strict=True)
    )  # (images, heads), (images, boxes)
    head, box = (int(column[:choosing].mean(0).argmax()) for column in (heads, boxes))
    return {
        "protocol": "foreground",
        "model": encoder.card.name,
        "features": TRAINED,
        "test": Path(data).stem,
        "n_test": len(rows) - choosing,
        "iou": float(heads[choosing:, head].mean()),
        "centre_box": float(boxes[choosing:, box].mean()),
        "whole_image": float(boxes[choosing:, -1].mean()),
        "settings": {
            "head": head,
            "box_side": BOXES[box],
            "patches": patches,
            "share": share,
            "chosen_on": choosing,
        },
    }


def beside_untrained(encoder: Encoder, data: str | Path, **settings: Any) -> list[dict[str, Any]]:
    """`foreground_scores` of an encoder and of its architecture with random weights, whose head is chosen anew."""
    from zoo.loading import untrained

    scores = [foreground_scores(each, data, **settings) for each in (encoder, untrained(encoder))]
    return [scores[0], {**scores[1], "features": UNTRAINED}]


def _scores(
    encoder: Encoder, image: Image.Image, trimap: Tensor, patches: int, share: float
) -> tuple[Tensor, Tensor]:
    """IoU of each head and of each centred box with the object, at the trimap's pixels (H, W)."""
    counted, truth = trimap != BORDER, trimap == OBJECT
    heads = encoder.attention(image, fit="whole", size=patches * encoder.stride)[0]  # (heads, h, w)
    masks = _enlarge(top_mass(heads.cpu(), share), trimap.shape) & counted
    boxes = torch.stack([_centre_box(trimap.shape, side) for side in BOXES]) & counted
    return iou(masks, truth), iou(boxes, truth)


def _enlarge(masks: Tensor, size: torch.Size) -> Tensor:
    """(K, h, w) bool -> (K, H, W) bool by the nearest patch."""
    larger = torch.nn.functional.interpolate(masks[None].float(), size=tuple(size), mode="nearest-exact")
    return larger[0] > 0.5


def _centre_box(size: torch.Size, side: float) -> Tensor:
    """(H, W) bool: a centred box whose sides are that share of the image's."""
    inside = []
    for length in size:
        from_centre = (torch.arange(length) + 0.5 - length / 2).abs()
        inside.append(from_centre <= side * length / 2)
    return inside[0][:, None] & inside[1][None]


def _pairs(data: str | Path) -> Iterator[tuple[Image.Image, Tensor]]:
    """Images with their trimaps (H, W), row by row."""
    import pyarrow.parquet as pq

    for path in _files(Path(data)):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=16, columns=["image", "trimap"]):
                for row in batch.to_pylist():
                    trimap = np.array(Image.open(io.BytesIO(row["trimap"]["bytes"])))
                    yield read_image(row["image"]["bytes"]), torch.from_numpy(trimap)


def _files(data: Path) -> list[Path]:
    """The parquet file, or those of a folder by name. DataError where there is none, or one lacks a column."""
    import pyarrow.parquet as pq

    files = sorted(data.glob("*.parquet")) if data.is_dir() else [data]
    if not files or not all(path.is_file() for path in files):
        raise DataError(
            f"no parquet file {str(data)!r}; foreground needs one, or a folder of some, with an `image` and a "
            "`trimap` column: masks of the object"
        )
    for path in files:
        names = pq.read_schema(path).names
        if not {"image", "trimap"} <= set(names):
            raise DataError(
                f"{path} has the columns {', '.join(names)}; foreground needs `image` and `trimap`"
            )
    return files
