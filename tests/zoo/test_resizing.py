"""Positions off the native grid: torch's bicubic from its formula, DINO's and DINOv2's rules, and how far timm's is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from zoo.families import vit
from zoo.resizing import IN_GRAPHS, resize_distances, resize_positions, resized_positions

Draw = Callable[..., None]


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, torch's and OpenCV's."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def line(old: int, new: int, factor: float) -> Tensor:
    """Weights (new, old) along one side: the centre of output o lies at (o + ½) / factor - ½; ends are repeated."""
    weights = torch.zeros(new, old)
    for o in range(new):
        centre = (o + 0.5) / factor - 0.5
        for i in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[o, min(max(i, 0), old - 1)] += cubic(centre - i)
    return weights


def twin(grid: Tensor, new: tuple[int, int], offset: float) -> Tensor:
    """(h, w, D) -> (h', w', D), by the factors (h' + offset) / h and (w' + offset) / w."""
    down, across = (
        line(old, side, (side + offset) / old) for old, side in zip(grid.shape[:2], new, strict=True)
    )
    return torch.einsum("yh,hwd,xw->yxd", down, grid, across)


@pytest.mark.parametrize(
    ("rule", "offset"), [("dino", 0.1), ("dinov2", 0.1), ("bicubic", 0.0), ("beit", 0.0)]
)
@pytest.mark.parametrize(
    ("old", "new"), [((14, 14), (30, 20)), ((6, 4), (3, 9)), ((37, 37), (16, 16)), ((4, 4), (4, 5))]
)
def test_rules_equal_their_formula(
    rule: str, offset: float, old: tuple[int, int], new: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    grid, prefix = torch.randn(*old, 3, generator=generator), torch.randn(1, 2, 3, generator=generator)
    found = resize_positions(torch.cat([prefix, grid.flatten(0, 1)[None]], 1), old, new, rule)
    torch.testing.assert_close(found[:, :2], prefix, atol=0, rtol=0)
    torch.testing.assert_close(found[0, 2:].unflatten(0, new), twin(grid, new, offset), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("old", "new"),
    [((8, 8), (14, 14)), ((14, 14), (8, 8)), ((14, 14), (10, 20)), ((6, 4), (3, 9)), ((8, 8), (1, 30))],
)
def test_products_are_timms_antialiased_resizing(old: tuple[int, int], new: tuple[int, int]) -> None:
    stored = torch.randn(1, 2 + old[0] * old[1], 5, generator=torch.Generator().manual_seed(0))
    found, expected = (resize_positions(stored, old, new, rule) for rule in ("products", "timm"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(resize_positions(stored, old, new, "bicubic"), expected, atol=0.1)


@pytest.mark.parametrize("new", [(8, 8), (14, 14), (8, 9), (10, 20), (3, 1)])
def test_other_products_are_the_authors_resizing(new: tuple[int, int]) -> None:
    """At the native grid too, where nothing is resized and a graph of any size has no branch."""
    stored = torch.randn(1, 1 + 64, 5, generator=torch.Generator().manual_seed(0))
    for rule in ("dino", "dinov2"):
        found, expected = (resize_positions(stored, (8, 8), new, each) for each in (IN_GRAPHS[rule], rule))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_nothing_is_done_at_the_native_grid() -> None:
    positions, table = torch.randn(1, 17, 3), torch.randn(7 * 7 + 3, 3)
    for rule in ("timm", "dino", "dinov2", "bicubic", "beit"):
        assert resize_positions(positions, (4, 4), (4, 4), rule) is positions
        assert resize_distances(table, (4, 4), (4, 4), rule) is table


def test_halves_stay_halves() -> None:
    assert resize_positions(torch.ones(1, 17, 3).half(), (4, 4), (3, 5), "dino").dtype == torch.float16
    assert resize_distances(torch.ones(52, 3).half(), (4, 4), (3, 5), "beit").dtype == torch.float16


def small(rule: str, randomise: Draw, **arguments: Any) -> VisionTransformer:
    said = {"img_size": 224, "depth": 2, "embed_dim": 48, "num_heads": 3, **arguments}
    module = vit.build("vit_tiny_patch16_224", said, rule).eval()
    randomise(module)
    return module


@torch.no_grad()
@pytest.mark.parametrize(
    ("arguments", "prefix"),
    [
        ({}, 1),
        ({"reg_tokens": 4, "no_embed_class": True}, 0),
        ({"reg_tokens": 2}, 3),
        ({"class_token": False, "global_pool": "avg", "fc_norm": False}, 0),
    ],
)
def test_480_by_320_follows_the_authors(arguments: dict[str, Any], prefix: int, randomise: Draw) -> None:
    """Twin: timm's own module, built for 480×320, with the positions of the formula."""
    x = torch.randn(1, 3, 480, 320, generator=torch.Generator().manual_seed(0))
    module = small("dino", randomise, **arguments)
    stored = module.pos_embed
    assert stored is not None
    grid = stored[0, prefix:].unflatten(0, (14, 14))
    native = vit.build("vit_tiny_patch16_224", {**said(arguments), "img_size": (480, 320)}).eval()
    tensors = module.state_dict()
    tensors["pos_embed"] = torch.cat([stored[:, :prefix], twin(grid, (30, 20), 0.1).flatten(0, 1)[None]], 1)
    native.load_state_dict(tensors)
    found, expected = vit.features(module, x), vit.features(native, x)
    assert found.grid == (30, 20)
    torch.testing.assert_close(found.patches, expected.patches, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-4, rtol=0)

    timms = small("timm", randomise, **arguments)
    assert float((vit.features(timms, x).patches - expected.patches).abs().max()) > 1e-3
    at_home = x[..., :224, :224]
    assert torch.equal(vit.features(module, at_home).patches, vit.features(timms, at_home).patches)


def said(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"depth": 2, "embed_dim": 48, "num_heads": 3, **arguments}


@torch.no_grad()
def test_attention_and_masked_encoding_follow_it_too(randomise: Draw) -> None:
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    module, timms = (small(rule, randomise, img_size=64) for rule in ("bicubic", "timm"))
    tokens = vit.visible_tokens(module, x, torch.arange(24).expand(2, -1))
    found = vit.features(module, x)
    assert found.cls is not None
    torch.testing.assert_close(tokens[:, 1:], found.patches, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens[:, 0], found.cls, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vit.intermediates(module, x, [1])[0].patches, found.patches)
    rows, others = (vit.attention_rows(each, x, 1, None) for each in (module, timms))
    assert rows.shape == (2, 3, 4, 6) and (rows - others).abs().max() > 1e-4


def test_patch_14_at_another_size_than_the_published(randomise: Draw) -> None:
    """DINOv2: published at 518 px, evaluated at 224."""
    arguments = {"depth": 1, "embed_dim": 48, "num_heads": 3}
    with torch.no_grad():
        module = vit.build("vit_small_patch14_dinov2", arguments, "dinov2").eval()
        randomise(module)
        assert module.patch_embed.grid_size == (37, 37) and module.pos_embed is not None
        found = vit.features(module, torch.randn(1, 3, 224, 224))
        _, positions = vit.positions_for(module, (224, 224))
    assert found.grid == (16, 16)
    grid = module.pos_embed[0, 1:].detach().unflatten(0, (37, 37))
    torch.testing.assert_close(
        positions[0].unflatten(0, (16, 16)), twin(grid, (16, 16), 0.1), atol=1e-4, rtol=0
    )


def test_positions_of_no_square_are_left_to_be_reported() -> None:
    with torch.device("meta"):
        module = vit.build("vit_tiny_patch16_224", {"depth": 1})
    assert resized_positions(torch.zeros(1, 24, 192), module, "dino").shape == (1, 24, 192)
