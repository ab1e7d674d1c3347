"""What is attended to, on grids of any shape, by models of any kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from zoo.app.attention import attend, depth, seen
from zoo.app.comparison import look
from zoo.app.limits import PATCHES
from zoo.app.photos import examples
from zoo.encoder import Encoder
from zoo.errors import SizeError, Unsupported
from zoo.images import read_image
from zoo.loading import build


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return read_image(examples()["cat_chelsea"])


def test_the_default_grid_is_fine(dino: Encoder, photo: Image.Image) -> None:
    found = attend(dino, photo)
    assert found.query == "cls" and found.heads is not None
    assert found.heads.shape == (3, 28, 42) and found.features.grid == (28, 42)
    assert found.photo.shape == (3, 448, 672)
    torch.testing.assert_close(found.heads, dino.attention(found.photo[None])[0], atol=1e-6, rtol=0)
    names = [name for _, name in found.pictures(share=0.5)]
    assert names == ["photo", "head 0", "head 1", "head 2", "mean of heads", "top 50 % of the mean"]


def test_of_a_block_and_a_patch(dino: Encoder, photo: Image.Image) -> None:
    found = attend(dino, photo, block=3, patches=10, query=(4, 5))
    assert found.heads is not None and found.heads.shape[1:] == found.features.grid == (10, 15)
    torch.testing.assert_close(found.heads, dino.attention(found.photo[None], 3, (4, 5))[0])
    with pytest.raises(SizeError, match="outside the grid"):
        attend(dino, photo, patches=10, query=(10, 0))
    with pytest.raises(Unsupported, match="blocks 0 to 11"):
        attend(dino, photo, block=depth(dino), patches=10)


@pytest.mark.parametrize("size", [(4000, 100), (100, 900), (64, 64)])
def test_long_photos_are_seen_on_coarser_grids(dino: Encoder, size: tuple[int, int]) -> None:
    found = seen(dino, Image.new("RGB", size, "red"), 56)
    h, w = found.shape[1] // 16, found.shape[2] // 16
    assert 2 <= min(h, w) <= 56 and h * w <= PATCHES * 1.1
    assert (h < w) == (size[1] < size[0])


def test_without_a_class_token_the_middle_is_asked(small: dict[str, Encoder], photo: Image.Image) -> None:
    found = attend(small["tiny_simmim"], photo, block=0, patches=8)
    h, w = found.features.grid
    assert found.query == (h // 2, w // 2) and "There is no class token" in found.note
    assert found.heads is not None and found.heads.shape[1:] == (h, w)


def test_without_attention_there_is_a_reason(dino: Encoder, photo: Image.Image) -> None:
    card = replace(
        dino.card, family="resnet", architecture="resnet18", arguments={}, pooling="avg", name="resnet"
    )
    encoder = Encoder(card, build(card)[0])
    found = attend(encoder, photo, patches=8)
    assert found.heads is None and found.pictures() == [] and "attention" in found.note
    looked = look(encoder, [photo, photo], patches=4)
    assert looked.attention == (None, None) and len(looked.colours) == 2
