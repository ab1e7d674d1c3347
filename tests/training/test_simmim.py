"""SimMIM's training against loops written from §3 of 2111.09886.

`tests/zoo/test_parity.py` holds encoder, head and loss against transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from slow_pixels import slow_loss
from torch import Generator, Tensor, nn

import zoo
from zoo.errors import RecipeError
from zoo.masking import draw_mask
from zoo.training import run
from zoo.training.methods import Step, recipe
from zoo.training.methods.simmim import SimMIM, SimMIMConfig
from zoo.training.recipe import Optim, Recipe

STEP = Step(0, 10, 5)
SEEDS = [11, 22]
NOISE = torch.tensor(SEEDS)
UNIT, SIDE = 32, 128
OWN = {
    "embed_dim": None,
    "depths": None,
    "window_size": None,
}  # what the architecture has, and not the recipe's
ARCHS: dict[str, dict[str, Any]] = {
    "vit": {**OWN, "name": "test_vit", "family": "vit", "size": SIDE},
    "swin": {"name": "swin_tiny_patch4_window7_224", "family": "swin", "size": SIDE},
    "ummae_swin": {**OWN, "name": "ssl_zoo_ummae_swin_micro", "family": "swin", "size": SIDE},
    "beit": {
        "name": "beit_base_patch16_224",
        "family": "beit",
        "size": SIDE,
        "embed_dim": 48,
        "depths": None,
        "window_size": None,
        "depth": 2,
        "num_heads": 3,
    },
    "pvt": {**OWN, "name": "ssl_zoo_pvt_tiny", "family": "pvt", "size": SIDE},
}
Make = Callable[..., SimMIM]


@pytest.fixture
def small(tiny: Callable[..., Recipe]) -> Make:
    """`small("swin")`: a SimMIM of that architecture at 128 px, a grid of 4×4 squares of 32 pixels."""

    def build(arch: str, **knobs: Any) -> SimMIM:
        torch.manual_seed(0)
        turned = tiny("simmim/smoke", method=knobs, arch=ARCHS[arch], data={"size": SIDE})
        built = turned.method.build(turned)
        assert isinstance(built, SimMIM)
        return built

    return build


def pictures(seed: int = 0) -> Tensor:
    return 2 * torch.randn(2, 3, SIDE, SIDE, generator=Generator().manual_seed(seed)) + 0.5


def squares(side: int = UNIT) -> Tensor:
    """Hidden squares (B, h, w) of the two seeds."""
    return draw_mask("random", (SIDE // side, SIDE // side), SEEDS, 0.6)


def watched(method: SimMIM, pixels: Tensor, noise: Tensor = NOISE) -> tuple[Tensor, Tensor]:
    """The loss and the predicted image (B, 3, H, W) of one forward pass."""
    seen: list[Tensor] = []
    handle = method.pixels.register_forward_hook(lambda module, given, out: seen.append(out))
    loss, _ = method([pixels], STEP, noise)
    handle.remove()
    return loss, seen[0]


def cut(image: Tensor, side: int) -> list[Tensor]:
    """(3, H, W) -> its squares, row-major, flattened as (row, column, channel)."""
    places = [(r, c) for r in range(0, SIDE, side) for c in range(0, SIDE, side)]
    return [image[:, r : r + side, c : c + side].permute(1, 2, 0).flatten() for r, c in places]


@pytest.mark.parametrize(
    ("arch", "unit"), [("vit", 32), ("beit", 32), ("swin", 32), ("ummae_swin", 16), ("pvt", 32)]
)
@torch.no_grad()
def test_loss_equals_the_loops(small: Make, arch: str, unit: int) -> None:
    loss, image = watched(small(arch, unit=unit), pictures())
    hidden = [covered.flatten().nonzero()[:, 0].tolist() for covered in squares(unit)]
    # Of 16 and of 64 squares, rounded up (Figure 1 and §4.1; the authors' own code).
    assert [len(each) for each in hidden] == ([10, 10] if unit == 32 else [39, 39])
    expected = slow_loss(pictures(), [cut(each, unit) for each in image], hidden, unit, power=1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_hidden_pixels_change_the_loss_and_nothing_else(small: Make, arch: str) -> None:
    method = small(arch)
    loss, image = watched(method, pictures())
    holes = squares().repeat_interleave(UNIT, 1).repeat_interleave(UNIT, 2)[:, None]
    changed, same = watched(method, torch.where(holes, pictures(seed=1), pictures()))
    assert torch.equal(same, image) and changed != loss
    assert not torch.allclose(watched(method, torch.where(holes, pictures(), pictures(seed=1)))[1], image)


@pytest.mark.parametrize("arch", ARCHS)
def test_gradients_reach_everything(small: Make, arch: str) -> None:
    method = small(arch)
    watched(method, pictures())[0].backward()
    assert not [name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@torch.no_grad()
def test_an_image_is_masked_by_its_own_seed_wherever_it_stands(small: Make) -> None:
    method = small("swin")
    loss, together = watched(method, pictures())
    assert torch.equal(watched(method, pictures())[0], loss)
    for i in range(2):
        alone = watched(method, pictures()[i : i + 1], NOISE[i : i + 1])[1][0]
        torch.testing.assert_close(alone, together[i], atol=1e-5, rtol=0)
    assert not torch.equal(watched(method, pictures(), NOISE + 1)[0], loss)


@pytest.mark.parametrize("clip", [0.5, None])
def test_gradients_are_clipped_by_their_common_norm(small: Make, clip: float | None) -> None:
    method = small("vit", clip=clip)
    (100 * watched(method, pictures())[0]).backward()
    before = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    norm = sum(float(grad.square().sum()) for grad in before.values()) ** 0.5
    method.before_step(STEP)
    scale = 1.0 if clip is None else clip / norm
    assert norm > 1
    for name, p in method.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(p.grad, scale * before[name], rtol=1e-4, atol=1e-8)


def test_swins_do_not_drop_paths_unasked(small: Make, tiny: Callable[..., Recipe]) -> None:
    """timm's Swins would, a tenth."""
    method = small("swin").train()
    assert torch.equal(watched(method, pictures())[0], watched(method, pictures())[0])
    turned = tiny("simmim/smoke", arch={**ARCHS["swin"], "drop_path": 0.5}, data={"size": SIDE})
    dropping: Any = turned.method.build(turned).train()
    assert watched(dropping, pictures())[0] != watched(dropping, pictures())[0]


def test_defaults_are_the_papers() -> None:
    config = SimMIMConfig()
    assert (config.ratio, config.unit, config.min_scale, config.clip) == (0.6, 32, 0.67, 5.0)
    large = recipe("simmim/imagenet")
    with torch.device("meta"):
        backbone: Any = large.method.build(large).encoder()
    assert [stage.blocks[0].window_size for stage in backbone.layers] == [(6, 6)] * 4


@pytest.mark.parametrize(
    ("method", "arch", "size", "says"),
    [
        ({"unit": 30}, "swin", 128, r"--method\.unit is 30, not a multiple of the 4-pixel patch.*give 32"),
        ({"unit": 24}, "vit", 128, r"--method\.unit is 24, not a multiple of the 16-pixel patch.*give 32"),
        ({}, "vit", 80, r"--data\.size is 80, not a multiple of --method\.unit 32; give 64"),
        ({"ratio": 0.99}, "vit", 128, r"leaves no visible patch.*--data\.size is 128, .*--method\.unit 32"),
        ({"ratio": 1.5}, "vit", 128, r"--method\.ratio is 1\.5; give a share in \(0, 1\)"),
        ({"min_scale": 0.0}, "vit", 128, r"--method\.min_scale is 0\.0; give a share"),
        ({"clip": 0.0}, "vit", 128, r"--method\.clip is 0\.0; give a number above 0, or None"),
    ],
)
def test_what_cannot_be_masked_is_told(
    tiny: Callable[..., Recipe], method: dict[str, Any], arch: str, size: int, says: str
) -> None:
    turned = tiny("simmim/smoke", method=method, arch=ARCHS[arch], data={"size": size})
    with pytest.raises(RecipeError, match=says):
        turned.method.build(turned)


def test_the_encoder_to_be_bundled_is_small() -> None:
    small = recipe("simmim/imagenette")
    with torch.device("meta"):
        encoder = small.method.build(small).encoder()
    assert sum(2 * p.numel() for p in encoder.parameters()) < 24e6  # bytes, as fp16


def test_a_run_ends_in_a_folder_that_reconstructs(
    tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    """timm has the architecture: it reads the folder by itself."""
    turned = tiny("simmim/smoke", arch=ARCHS["swin"], data={"size": SIDE})
    folder = run(turned, photos, tmp_path / "run")
    encoder = zoo.load(folder, device="cpu")
    picture = torch.rand(1, 3, SIDE, SIDE, generator=Generator().manual_seed(0))
    found = encoder.reconstruct(picture, seed=7)
    assert torch.equal(found.mask, draw_mask("random", (4, 4), [7], 0.6))
    method = turned.method.build(turned).eval()
    method.start_from(encoder.module.state_dict(), encoder.decoder.state_dict())  # type: ignore[union-attr]
    with torch.no_grad():
        loss, _ = method([encoder.transform.normalise(picture)], STEP, torch.tensor([7]))
        again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(picture)
        torch.testing.assert_close(again, encoder.forward_features(picture).pooled, atol=1e-5, rtol=1e-5)
    assert loss.item() == pytest.approx(found.loss.item(), rel=1e-4)  # trained and shown alike
    assert encoder.card.arguments["embed_dim"] == 48 and isinstance(encoder.module, nn.Module)
    assert {result.task for result in encoder.card.results} == {"knn", "reconstruction"}


@pytest.mark.parametrize(
    ("arch", "exempt"),
    [
        ("swin", {"relative_position_bias_table", "mask_token"}),
        ("vit", {"cls_token", "pos_embed", "mask_token"}),
        ("pvt", {"cls_token", "cls_position", "pos_embed", "mask_token"}),
    ],
)
def test_positions_tokens_biases_and_norms_do_not_decay(arch: str, exempt: set[str], small: Make) -> None:
    method = small(arch)
    decays = {id(p) for group in method.param_groups(Optim()) if group["decays"] for p in group["params"]}
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    last = {name: name.rpartition(".")[2] for name in trained}
    assert exempt <= set(last.values())
    for name, p in trained.items():
        assert (id(p) in decays) == (p.ndim > 1 and last[name] not in exempt), name
