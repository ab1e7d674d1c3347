"""Fixed positions against their formula, and MAE's decoder against its parts and its contract."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import ViTMAEConfig
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEDecoder

from zoo.decoders.mae import MAEDecoder
from zoo.masking import draw_mask, visible_indices
from zoo.patches import take
from zoo.positions import sincos_positions


@given(h=st.integers(1, 7), w=st.integers(1, 7), quarter=st.integers(1, 6))
def test_positions_follow_their_formula(h: int, w: int, quarter: int) -> None:
    """Column first: MAE's released weights hold [sin(column) | cos(column) | sin(row) | cos(row)]."""
    positions = sincos_positions((h, w), 4 * quarter)
    assert positions.shape == (h * w, 4 * quarter) and positions.dtype == torch.float32
    for row in range(h):
        for column in range(w):
            expected = [
                turn(place / 10000 ** (i / quarter))
                for place in (column, row)
                for turn in (math.sin, math.cos)
                for i in range(quarter)
            ]
            assert positions[row * w + column].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("side", "width"), [(4, 48), (14, 64)])
def test_positions_equal_those_of_transformers(side: int, width: int) -> None:
    config = ViTMAEConfig(
        decoder_hidden_size=width,
        decoder_num_hidden_layers=0,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=8,
    )
    theirs = ViTMAEDecoder(config, num_patches=side**2).decoder_pos_embed[0]
    assert not theirs[0].any()  # the class token's
    torch.testing.assert_close(sincos_positions((side, side), width), theirs[1:], atol=1e-6, rtol=0)


def test_positions_of_a_wide_grid_contain_those_of_a_narrow_one() -> None:
    """A fixed function of row and column: another grid needs no interpolation."""
    wide, narrow = (
        sincos_positions((3, 7), 16).reshape(3, 7, 16),
        sincos_positions((2, 5), 16).reshape(2, 5, 16),
    )
    assert torch.equal(wide[:2, :5], narrow)


# The decoder


def decoder(depth: int = 1) -> MAEDecoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MAEDecoder(encoder_width=24, width=32, depth=depth, heads=4, patch=4).eval()


def inputs(grid: tuple[int, int], ratio: float = 0.75) -> tuple[Tensor, Tensor]:
    """Tokens (2, 1 + V, 24) and visible patches (2, V)."""
    visible = visible_indices(draw_mask("random", grid, [0, 1], ratio))
    tokens = torch.randn(2, 1 + visible.shape[1], 24, generator=torch.Generator().manual_seed(1))
    return tokens, visible


@pytest.mark.parametrize(("grid", "ratio"), [((4, 4), 0.75), ((2, 5), 0.5), ((3, 3), 0.0)])
def test_pixels_of_every_patch(grid: tuple[int, int], ratio: float) -> None:
    tokens, visible = inputs(grid, ratio)
    assert decoder()(tokens, visible, grid).shape == (2, grid[0] * grid[1], 4 * 4 * 3)


@torch.no_grad()
def test_without_blocks_every_token_stays_in_its_place() -> None:
    """Depth 0 is a map per patch: its own embedding or the mask token, plus its own position, normed and projected."""
    plain, grid = decoder(depth=0), (2, 5)
    tokens, visible = inputs(grid, 0.5)
    pixels, positions = plain(tokens, visible, grid), sincos_positions(grid, 32)
    for image in range(2):
        for patch in range(10):
            token = plain.mask_token[0, 0]
            if patch in visible[image].tolist():
                place = visible[image].tolist().index(patch)
                token = plain.embed(tokens[image, 1 + place])
            expected = plain.head(plain.norm(token + positions[patch]))
            torch.testing.assert_close(pixels[image, patch], expected)


@torch.no_grad()
def test_the_order_of_visible_patches_is_free() -> None:
    """Tokens know their patch by `visible` alone."""
    tokens, visible = inputs((4, 4))
    order = torch.tensor([2, 0, 3, 1])
    shuffled = torch.cat([tokens[:, :1], tokens[:, 1:][:, order]], dim=1)
    model = decoder()
    torch.testing.assert_close(
        model(shuffled, visible[:, order], (4, 4)), model(tokens, visible, (4, 4)), atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_an_image_alone_and_in_a_batch() -> None:
    tokens, visible = inputs((4, 4))
    model = decoder()
    together = model(tokens, visible, (4, 4))
    for i in range(2):
        alone = model(tokens[i : i + 1], visible[i : i + 1], (4, 4))
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)


def test_norms_use_the_authors_epsilon() -> None:
    epsilons = {module.eps for module in decoder().modules() if isinstance(module, torch.nn.LayerNorm)}
    assert epsilons == {1e-6}


def test_weights_begin_as_the_authors_do() -> None:
    model = MAEDecoder(encoder_width=64, width=512, depth=1, heads=16, patch=16)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            limit = math.sqrt(6 / (module.in_features + module.out_features))  # Xavier-uniform
            assert 0.95 * limit < module.weight.abs().max() <= limit
            assert module.bias is not None and not module.bias.any()
    assert model.mask_token.std().item() == pytest.approx(0.02, rel=0.2)


def test_gradients_reach_tokens_and_the_mask_token() -> None:
    model, (tokens, visible) = decoder(), inputs((4, 4))
    model(tokens.requires_grad_(), visible, (4, 4)).square().sum().backward()
    assert tokens.grad is not None and bool(tokens.grad.any())
    assert model.mask_token.grad is not None and bool(model.mask_token.grad.any())


def test_under_autocast_blocks_add_to_float32() -> None:
    module, (tokens, visible), seen = decoder(3), inputs((6, 4)), []
    for block in module.blocks:
        block.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(tokens, visible, (6, 4))
    assert seen == 3 * [torch.float32]


def test_half_precision_keeps_its_dtype() -> None:
    tokens, visible = inputs((4, 4))
    assert decoder().bfloat16()(tokens.bfloat16(), visible, (4, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("ratio", [0.75, 0.0])
def test_some_patches_are_those_of_all(depth: int, ratio: float) -> None:
    """What is computed once for all images, or left out, changes neither pixels nor gradients."""
    model, (tokens, visible) = decoder(depth), inputs((4, 4), ratio)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    seen = torch.zeros(2, 16, dtype=torch.bool).scatter(1, visible, True)
    asked = visible_indices(seen)  # what `visible` leaves
    found = []
    for few in (True, False):
        model.zero_grad()
        given = tokens.clone().requires_grad_()
        pixels = model(given, visible, (4, 4), asked if few else None)
        pixels = pixels if few else take(pixels, asked)
        assert pixels.shape == (2, asked.shape[1], 4 * 4 * 3)
        pixels.sin().sum().backward()
        found.append([pixels, given.grad, *(parameter.grad for parameter in model.parameters())])
    for quick, plain in zip(*found, strict=True):
        assert (quick is None) == (plain is None)
        torch.testing.assert_close(quick, plain, atol=1e-4, rtol=1e-4)
