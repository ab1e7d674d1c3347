"""UM-MAE's training against a slow transcription of 2205.10063: which masks, what is seen, what is counted.

`tests/zoo/test_ummae.py` holds the encoders and decoders themselves against it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from slow_pixels import slow_loss
from slow_ummae import SLOW, cells, slow_decoder, theirs
from torch import Generator, Tensor, nn

import zoo
from zoo.decoders import Masks, ummae
from zoo.errors import RecipeError
from zoo.masking import draw_mask, draw_secondary
from zoo.training import run
from zoo.training.methods import Step, recipe
from zoo.training.methods.ummae import UMMAE, UMMAEConfig
from zoo.training.recipe import Recipe

STEP = Step(0, 10, 5)
SEEDS = [11, 22]
NOISE = torch.tensor(SEEDS)
P, SIDE = 16, 128
DECODER = {"decoder_width": 32, "decoder_depth": 2, "decoder_heads": 4}  # the slow twin's
ARCHS: dict[str, dict[str, Any]] = {
    "vit": {"name": "test_vit", "family": "vit", "size": SIDE},
    "swin": {"name": "ssl_zoo_ummae_swin_micro", "family": "swin", "size": SIDE},
    "pvt": {"name": "ssl_zoo_ummae_pvt_micro", "family": "pvt", "size": SIDE},
}
SAID = {
    "swin": {"window_size": 8, "num_heads": [3, 6, 12, 24]},
    "pvt": {"sr_ratios": [4, 2, 1, 1], "num_heads": [1, 2, 5, 8]},
}
Make = Callable[..., UMMAE]


@pytest.fixture
def small(tiny: Callable[..., Recipe]) -> Make:
    """`small("swin", secondary=0)`: a UM-MAE of that family at 128 px, a grid of 8×8 patches."""

    def build(family: str, **knobs: Any) -> UMMAE:
        torch.manual_seed(0)
        method = {**DECODER, **knobs}
        turned = tiny("ummae/smoke", method=method, arch=ARCHS[family], data={"size": SIDE})
        built = turned.method.build(turned)
        assert isinstance(built, UMMAE)
        return built

    return build


def pictures(seed: int = 0) -> Tensor:
    return 2 * torch.randn(2, 3, SIDE, SIDE, generator=Generator().manual_seed(seed)) + 0.5


def drawn(secondary: float | None = 0.25) -> Masks:
    hidden = draw_mask("uniform", (SIDE // P, SIDE // P), SEEDS)
    return Masks(hidden, draw_secondary(hidden, SEEDS, secondary) if secondary else None)


def hidden_of(masks: Masks) -> list[list[int]]:
    return [covered.flatten().nonzero()[:, 0].tolist() for covered in masks.hidden]


def at(patches: list[list[int]], rows: Iterable[Tensor]) -> list[dict[int, Tensor]]:
    """Of each image, its rows by patch."""
    return [dict(zip(each, found, strict=True)) for each, found in zip(patches, rows, strict=True)]


def watched(method: UMMAE, pixels: Tensor, noise: Tensor = NOISE) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, the decoder's pixels of the hidden patches (B, K, P*P*3) and the pooled features of one forward pass."""
    seen: list[Tensor] = []
    handle = method.pixels.head.register_forward_hook(lambda module, given, out: seen.append(out))
    loss, logs = method([pixels], STEP, noise)
    handle.remove()
    features = logs["features"]
    assert isinstance(features, Tensor)
    return loss, seen[0], features


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("family", ARCHS)
def test_loss_equals_the_loops(small: Make, family: str, normalised: bool) -> None:
    loss, predicted, _ = watched(small(family, normalised_targets=normalised), pictures())
    hidden = hidden_of(drawn())
    assert [len(patches) for patches in hidden] == [48, 48]  # the secondary mask's are not among them
    expected = slow_loss(pictures(), at(hidden, predicted), hidden, P, power=2, normalised=normalised)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("secondary", [0.25, 0.0])
@pytest.mark.parametrize("family", SAID)
@torch.no_grad()
def test_a_step_equals_the_dense_masked_computation(
    small: Make, family: str, secondary: float, randomise: Callable[..., None]
) -> None:
    """From pixels to the loss, as the authors compute it: all patches embedded, hidden ones zeroed, cells summed."""
    method, masks = small(family, secondary=secondary), drawn(secondary)
    for part in (method.backbone, method.pixels):
        randomise(part)
    tensors = theirs(method.backbone, method.pixels)
    tokens = SLOW[family](tensors, SAID[family], pictures(), masks)
    of_hidden, hidden = slow_decoder(tensors, tokens, masks.hidden, "own"), hidden_of(masks)
    loss, _, features = watched(method, pictures())
    expected = slow_loss(pictures(), at(hidden, of_hidden), hidden, P, power=2)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(features, tokens.mean(dim=(1, 2)), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_plain_vit_gets_the_visible_patches_and_tokens_alone(small: Make) -> None:
    method, masks = small("vit"), drawn()
    backbone, projection = method.backbone, method.backbone.patch_embed.proj
    seen: list[Any] = []
    handle = method.pixels.register_forward_hook(lambda module, given, out: seen.extend(given))
    method([pictures()], STEP, NOISE)
    handle.remove()
    assert masks.secondary is not None and method.pixels.secondary_token is not None
    for image, found, covered, blind in zip(pictures(), seen[0], masks.hidden, masks.secondary, strict=True):
        sequence = [backbone.cls_token[0, 0]]
        for patch in (~covered).flatten().nonzero()[:, 0].tolist():
            row, column = divmod(patch, SIDE // P)
            cut = image[:, row * P : row * P + P, column * P : column * P + P]
            embedded = (projection.weight * cut).sum(dim=(1, 2, 3)) + projection.bias
            token = method.pixels.secondary_token[0, 0] if blind[row, column] else embedded
            sequence.append(token + backbone.pos_embed[0, 1 + patch])
        x = torch.stack(sequence)[None]
        for block in backbone.blocks:
            x = block(x)
        torch.testing.assert_close(found, backbone.norm(x)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ARCHS)
@torch.no_grad()
def test_what_is_covered_is_not_seen(small: Make, family: str) -> None:
    method, masks = small(family), drawn()
    assert masks.secondary is not None
    loss, predicted, _ = watched(method, pictures())
    for covered in (masks.hidden, masks.secondary):
        holes = covered.repeat_interleave(P, 1).repeat_interleave(P, 2)[:, None]
        changed, same, _ = watched(method, torch.where(holes, pictures(seed=1), pictures()))
        assert torch.equal(same, predicted)
        # Hidden patches are what is predicted; those of the secondary mask are neither seen nor predicted.
        assert torch.equal(changed, loss) == (covered is masks.secondary)


@pytest.mark.parametrize("family", ARCHS)
def test_gradients_reach_everything_but_the_fixed_positions(small: Make, family: str) -> None:
    method = small(family)
    watched(method, pictures())[0].backward()
    without = {name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert without == ({"backbone.pos_embed"} if family == "vit" else set())
    assert method.pixels.secondary_token is not None and method.pixels.secondary_token.grad is not None


@pytest.mark.parametrize("family", ARCHS)
@torch.no_grad()
def test_an_image_is_masked_by_its_own_seed_wherever_it_stands(small: Make, family: str) -> None:
    method = small(family)
    loss, together, _ = watched(method, pictures())
    assert torch.equal(watched(method, pictures())[0], loss)
    for i in range(2):
        alone = watched(method, pictures()[i : i + 1], NOISE[i : i + 1])[1][0]
        torch.testing.assert_close(alone, together[i], atol=1e-5, rtol=0)
    assert not torch.equal(watched(method, pictures(), NOISE + 1)[0], loss)


# The masks of the paper's ablation: GS, US, RS, and UM = US and a secondary mask


@pytest.mark.parametrize(
    ("strategy", "secondary", "family"),
    [("grid", 0.0, "swin"), ("grid", 0.0, "vit"), ("uniform", 0.0, "pvt"), ("random", 0.0, "vit")]
    + [("uniform", share, "swin") for share in (0.15, 0.25, 0.35)],
)
def test_the_masks_of_the_ablation(
    small: Make, strategy: str, secondary: float, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = small(family, strategy=strategy, secondary=secondary)
    given: list[Masks] = []
    encode = ummae.encode

    def noted(*arguments: Any) -> tuple[Tensor, Tensor]:
        given.append(arguments[-1])
        return encode(*arguments)

    monkeypatch.setattr(ummae, "encode", noted)
    loss, _ = method([pictures()], STEP, NOISE)
    (masks,) = given
    assert loss.isfinite() and torch.equal(masks.hidden, draw_mask(strategy, (8, 8), SEEDS))
    members = torch.tensor(cells(8, 8))
    visible = [~covered.flatten()[members] for covered in masks.hidden]  # (16, 4) of each image
    assert (strategy == "random") == any((each.sum(dim=1) != 1).any() for each in visible)
    assert (strategy == "grid") == all(len(each.int().argmax(dim=1).unique()) == 1 for each in visible)
    assert (method.pixels.secondary_token is None) == (secondary == 0)
    counted = 0 if masks.secondary is None else masks.secondary.sum().item() / 2
    assert counted == 16 - int(16 * (1 - secondary))


def test_defaults_are_the_papers() -> None:
    config = UMMAEConfig()
    assert (config.ratio, config.strategy, config.secondary, config.min_scale) == (0.75, "uniform", 0.25, 0.2)
    assert (config.decoder_width, config.decoder_depth, config.decoder_heads) == (512, 2, 16)
    assert config.normalised_targets


@pytest.mark.parametrize(
    ("family", "knobs", "size", "says"),
    [
        ("swin", {"strategy": "random"}, 128, r"needs exactly one; use strategy='uniform'.*--method\.strategy random"),
        ("pvt", {}, 96, r"96×96 does not halve so; the nearest size that does is 128×128.*--data\.size is 96"),
        ("vit", {}, 112, r"needs an even grid.*7×7.*--data\.size is 112"),
        ("vit", {"ratio": 0.5}, 128, r"keeps one patch of every 2×2 cell.*--method\.ratio 0\.5"),
        ("swin", {"secondary": 1.0}, 128, r"--method\.secondary is 1\.0; give a share in \[0, 1\)"),
        ("swin", {"decoder_width": 30}, 128, r"--method\.decoder_width is 30, not a multiple of 4"),
    ],
)  # fmt: skip
def test_what_cannot_be_masked_is_told(
    tiny: Callable[..., Recipe], family: str, knobs: dict[str, Any], size: int, says: str
) -> None:
    turned = tiny("ummae/smoke", method={**DECODER, **knobs}, arch=ARCHS[family], data={"size": size})
    with pytest.raises(RecipeError, match=says):
        turned.method.build(turned)


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        ({"name": "swin_tiny_patch4_window7_224", "family": "swin"}, "cannot mask a SwinTransformer.*--arch.name is"),
        ({"name": "test_resnet", "family": "resnet"}, "'resnet', and ummae trains vit or swin or pvt"),
    ],
)  # fmt: skip
def test_an_encoder_it_cannot_train_is_told(
    tiny: Callable[..., Recipe], arch: dict[str, Any], says: str
) -> None:
    turned = tiny("ummae/smoke", arch={"size": SIDE, **arch}, data={"size": SIDE})
    with pytest.raises(RecipeError, match=says):
        turned.method.build(turned)


@pytest.mark.parametrize("name", ["imagenette", "imagenette_pvt"])
def test_encoders_to_be_bundled_are_small(name: str) -> None:
    small = recipe(f"ummae/{name}")
    with torch.device("meta"):
        method = small.method.build(small)
    assert sum(2 * p.numel() for p in method.encoder().parameters()) < 24e6  # bytes, as fp16
    assert not method.card()["decoder"]["normalised_targets"]


@pytest.mark.parametrize("family", ["swin", "pvt"])
def test_a_run_ends_in_a_folder_that_reconstructs(
    tiny: Callable[..., Recipe], family: str, photos: Path, tmp_path: Path
) -> None:
    turned = tiny("ummae/smoke", arch=ARCHS[family], data={"size": SIDE})
    folder = run(turned, photos, tmp_path / "run")
    encoder = zoo.load(folder, device="cpu")
    picture = torch.rand(1, 3, SIDE, SIDE, generator=Generator().manual_seed(0))
    plain, found = (encoder.reconstruct(picture, secondary=share, seed=7) for share in (None, 0.25))
    hidden = draw_mask("uniform", (8, 8), [7])
    assert torch.equal(found.mask, hidden) and found.secondary is not None
    assert torch.equal(found.secondary, draw_secondary(hidden, [7], 0.25))
    assert found.loss.isfinite().all() and not torch.equal(found.predicted, plain.predicted)
    method = turned.method.build(turned).eval()
    method.start_from(encoder.module.state_dict(), encoder.decoder.state_dict())  # type: ignore[union-attr]
    with torch.no_grad():
        loss, _ = method([encoder.transform.normalise(picture)], STEP, torch.tensor([7]))
        pooled = encoder.forward_features(picture).pooled
        again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(picture)
    assert loss.item() == pytest.approx(found.loss.item(), rel=1e-4)  # trained and shown alike
    torch.testing.assert_close(again, pooled, atol=1e-5, rtol=1e-5)
    spec = encoder.card.decoder
    assert spec is not None and dataclasses.asdict(spec) == method.card()["decoder"]
    assert (spec.strategy, spec.secondary, spec.visible_pos) == ("uniform", 0.25, "own")
    assert {result.task for result in encoder.card.results} == {"knn", "reconstruction"}
    assert isinstance(encoder.module, nn.Module) and encoder.card.family == family
