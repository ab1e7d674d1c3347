"""MAE against loops written from §3 of 2111.06377: what the encoder sees, what is predicted, what is counted."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from slow_pixels import slow_loss
from torch import Generator, Tensor, nn

from zoo.training.methods import Step
from zoo.training.methods.mae import MAE, MAEConfig
from zoo.training.recipe import Recipe

STEP = Step(0, 10, 5)
NOISE = torch.tensor([11, 22, 33])
P = 16


@pytest.fixture
def small(tiny: Callable[..., Recipe]) -> Callable[..., MAE]:
    """`small(normalised_targets=True)`: an MAE at 64 px, a grid of 4×4 patches."""

    def build(drop_path: float = 0.0, **knobs: object) -> MAE:
        torch.manual_seed(0)
        knobs = {"normalised_targets": False, **knobs}
        recipe = tiny("mae/smoke", method=knobs, arch={"drop_path": drop_path, "size": 64}, data={"size": 64})
        method = recipe.method.build(recipe)
        assert isinstance(method, MAE)
        return method

    return build


def pictures(count: int = 3, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, height, width, generator=Generator().manual_seed(seed))


def watched(method: MAE, pixels: Tensor, noise: Tensor = NOISE) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, the encoder's tokens, visible indices and predicted pixels of the hidden patches of one forward pass."""
    seen: list[Tensor] = []

    def note(module: nn.Module, given: tuple[Tensor, Tensor, object, Tensor], predicted: Tensor) -> None:
        seen.extend([given[0], given[1], predicted])
        every = torch.cat([given[1], given[3]], dim=1).sort(dim=1).values  # each patch is seen or asked for
        assert torch.equal(every, torch.arange(every.shape[1]).expand_as(every))

    handle = method.pixels.register_forward_hook(note)
    loss, _ = method([pixels], STEP, noise)
    handle.remove()
    tokens, visible, predicted = seen
    return loss, tokens, visible, predicted


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 48)])
def test_loss_equals_the_loops(small: Callable[..., MAE], normalised: bool, height: int, width: int) -> None:
    pixels = 3 * pictures(height=height, width=width) + 1
    loss, _, visible, predicted = watched(small(normalised_targets=normalised), pixels)
    count = height // P * (width // P)
    hidden = [sorted({*range(count)} - {*seen.tolist()}) for seen in visible]
    guesses = [dict(zip(patches, rows, strict=True)) for patches, rows in zip(hidden, predicted, strict=True)]
    expected = slow_loss(pixels, guesses, hidden, P, power=2, normalised=normalised)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_flat_patch_has_a_finite_normalised_target(small: Callable[..., MAE]) -> None:
    loss, _, visible, predicted = watched(small(normalised_targets=True), torch.full((3, 3, 64, 64), 0.3))
    # (x - mean) / sqrt(0 + 1e-6) is 0, so that the error is the prediction's own square.
    assert loss.item() == pytest.approx(predicted.square().mean().item(), rel=1e-4)
    assert predicted.shape[1] == 16 - visible.shape[1]


@pytest.mark.parametrize(("ratio", "visible"), [(0.75, 4), (0.5, 8), (0.9, 1)])
def test_hides_the_asked_share(small: Callable[..., MAE], ratio: float, visible: int) -> None:
    assert watched(small(ratio=ratio), pictures())[2].shape == (3, visible)


def slow_tokens(backbone: nn.Module, image: Tensor, visible: list[int]) -> Tensor:
    """The tokens of one image whose hidden patches were never there: (1 + V, D)."""
    position, columns = backbone.pos_embed[0], image.shape[2] // P
    sequence = [backbone.cls_token[0, 0] + position[0]]
    for patch in visible:
        top, left = patch // columns * P, patch % columns * P
        cut = image[:, top : top + P, left : left + P]
        embedded = (backbone.patch_embed.proj.weight * cut).sum(
            dim=(1, 2, 3)
        ) + backbone.patch_embed.proj.bias
        sequence.append(embedded + position[1 + patch])
    x = torch.stack(sequence)[None]
    for block in backbone.blocks:
        x = block(x)
    tokens: Tensor = backbone.norm(x)[0]
    return tokens


def test_the_encoder_gets_the_visible_patches_alone(small: Callable[..., MAE]) -> None:
    method, pixels = small(), pictures()
    _, tokens, visible, _ = watched(method, pixels)
    for image, found, seen in zip(pixels, tokens, visible.tolist(), strict=True):
        assert seen == sorted(seen)
        assert torch.allclose(found, slow_tokens(method.backbone, image, seen), atol=1e-5)


def test_hidden_pixels_change_the_loss_and_nothing_else(small: Callable[..., MAE]) -> None:
    method, pixels = small(), pictures()
    loss, tokens, visible, predicted = watched(method, pixels)
    other = pictures(seed=1)
    for image, seen in enumerate(visible.tolist()):
        for patch in seen:
            rows = slice(patch // 4 * P, patch // 4 * P + P)
            columns = slice(patch % 4 * P, patch % 4 * P + P)
            other[image, :, rows, columns] = pixels[image, :, rows, columns]
    assert not torch.equal(other, pixels)
    changed, same_tokens, same_visible, same_predicted = watched(method, other)
    assert torch.equal(same_visible, visible)
    assert torch.equal(same_tokens, tokens)
    assert torch.equal(same_predicted, predicted)
    assert changed.item() != pytest.approx(loss.item(), rel=1e-4)


def test_the_same_seeds_hide_the_same_patches(small: Callable[..., MAE]) -> None:
    method, pixels = small(), pictures()
    first = watched(method, pixels)
    torch.manual_seed(99)  # no other randomness plays a part
    again = watched(method, pixels)
    assert torch.equal(first[2], again[2])
    assert torch.equal(first[0], again[0])
    other = watched(method, pixels, NOISE + 1)
    assert not torch.equal(first[2], other[2])


def test_an_image_is_masked_by_its_own_seed_wherever_it_stands(small: Callable[..., MAE]) -> None:
    method, pixels = small(), pictures()
    together = watched(method, pixels)[2]
    for i in range(3):
        assert torch.equal(watched(method, pixels[i : i + 1], NOISE[i : i + 1])[2][0], together[i])


def test_gradients_reach_everything_but_the_fixed_positions(small: Callable[..., MAE]) -> None:
    method = small()
    loss, _ = method([pictures()], STEP, NOISE)
    loss.backward()
    without = {name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert without == {"backbone.pos_embed"}
    assert not method.backbone.pos_embed.requires_grad


def test_positions_are_sine_cosine_with_the_column_first(small: Callable[..., MAE]) -> None:
    positions = small().backbone.pos_embed[0]
    width = positions.shape[1]
    assert positions[0].abs().max() == 0  # the class token's
    quarter = width // 4
    frequencies = [1 / 10000 ** (i / quarter) for i in range(quarter)]
    for patch in range(16):
        row, column = divmod(patch, 4)
        expected = [
            turn(axis * f) for axis in (column, row) for turn in (math.sin, math.cos) for f in frequencies
        ]
        assert positions[1 + patch].tolist() == pytest.approx(expected, abs=1e-6)


def test_initialises_as_the_authors_do(small: Callable[..., MAE]) -> None:
    method = small()
    linears = {name: module for name, module in method.named_modules() if isinstance(module, nn.Linear)}
    weights = {name: module.weight for name, module in linears.items()}
    projection = method.backbone.patch_embed.proj.weight
    weights["patch_embed"] = projection.reshape(len(projection), -1)
    assert len(weights) == 4 * (6 + 1) + 2 + 1  # four a block, the decoder's first and last, the patches
    for name, weight in weights.items():
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.9 * bound < weight.abs().max() <= bound, name
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), name
    assert all(module.bias.abs().max() == 0 for module in linears.values())
    for token in (method.backbone.cls_token, method.pixels.mask_token):
        assert 0 < token.std().item() < 0.04


def test_drop_path_is_for_training_only(small: Callable[..., MAE]) -> None:
    method, pixels = small(drop_path=0.9), pictures()
    draws = {method([pixels], STEP, NOISE)[0].item() for _ in range(3)}
    assert len(draws) == 3
    method.eval()
    assert len({method([pixels], STEP, NOISE)[0].item() for _ in range(3)}) == 1


def test_one_view_a_crop_of_at_least_a_fifth(small: Callable[..., MAE]) -> None:
    # Every column has a colour of its own, so that a crop's width shows in its colours.
    ramp = torch.linspace(0, 255, 100).to(torch.uint8).expand(3, 100, -1).contiguous()
    widths = []
    cut = small().views()
    for seed in range(60):
        (view,) = cut(ramp, Generator().manual_seed(seed))
        assert view.shape == (3, 64, 64)
        values = view[0] * 0.229 + 0.485
        assert torch.allclose(values, values[:1].expand_as(values), atol=1e-5)  # no colour changes
        widths.append(float(values.max() - values.min()) * 64 / 63)
    assert min(widths) > math.sqrt(0.2 * 3 / 4) - 0.03
    assert max(widths) > 0.9


def test_decoder_and_card_agree(small: Callable[..., MAE]) -> None:
    method = small(ratio=0.6, normalised_targets=True)
    card = method.card()["decoder"]
    assert card["width"] == method.pixels.embed.out_features
    assert card["depth"] == len(method.pixels.blocks)
    assert (card["ratio"], card["normalised_targets"], card["patch"]) == (0.6, True, P)
    assert method.decoder() is method.pixels
    assert method.encoder() is method.backbone


def test_defaults_are_the_papers() -> None:
    config = MAEConfig()
    assert (config.ratio, config.min_scale, config.normalised_targets) == (0.75, 0.2, True)
    assert (config.decoder_width, config.decoder_depth, config.decoder_heads) == (512, 8, 16)


def test_it_learns_one_picture(small: Callable[..., MAE]) -> None:
    method = small(ratio=0.5)
    pixels = torch.linspace(-1, 1, 64).expand(2, 3, 64, -1)  # a ramp: every row of patches is alike
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for step in range(40):
        loss, _ = method([pixels], STEP, torch.tensor([step, step + 1000]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
