"""The discrete VAE against loops over §2.1 and Appendix A of 2102.12092, and the folder it ends in."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

import zoo
from zoo.errors import CardError, MaskError, RecipeError, Unsupported, WeightsError
from zoo.loading import build
from zoo.training import run
from zoo.training.methods import Step, recipe
from zoo.training.methods.dvae import DVAE, DVAEConfig, divergence_from_uniform, gumbel
from zoo.training.recipe import Recipe
from zoo.training.tokenizer import read_tokenizer

NOISE = torch.tensor([5, 2**62])
Tiny = Callable[..., Recipe]


@pytest.fixture
def small(tiny: Tiny) -> Callable[..., DVAE]:
    def build(**knobs: Any) -> DVAE:
        torch.manual_seed(0)
        turned = tiny("dvae/smoke", method=knobs)
        method = turned.method.build(turned)
        assert isinstance(method, DVAE)
        return method

    return build


def pictures(count: int = 2, side: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, side, side, generator=Generator().manual_seed(seed))


def slow_divergence(logits: Tensor) -> float:
    """Mean over positions of sum_k q_k (ln q_k - ln 1/V)."""
    rows = []
    for image in logits.tolist():
        for y in range(len(image[0])):
            for x in range(len(image[0][0])):
                powers = [math.exp(word[y][x]) for word in image]
                shares = [power / sum(powers) for power in powers]
                rows.append(sum(q * (math.log(q) + math.log(len(powers))) for q in shares))
    return sum(rows) / len(rows)


def test_the_divergence_equals_the_loop() -> None:
    logits = 3 * torch.randn(2, 5, 2, 3, generator=Generator().manual_seed(0))
    assert divergence_from_uniform(logits).item() == pytest.approx(slow_divergence(logits), rel=1e-5)
    assert divergence_from_uniform(torch.zeros(1, 7, 1, 1)).item() == pytest.approx(0, abs=1e-6)
    sure = torch.zeros(1, 7, 1, 1)
    sure[0, 3] = 100
    assert divergence_from_uniform(sure).item() == pytest.approx(math.log(7))


def test_gumbel_noise_follows_its_law_and_its_seed() -> None:
    noise = gumbel(torch.zeros(2, 64, 32, 32), NOISE)
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)  # Euler's constant
    assert noise.std().item() == pytest.approx(math.pi / math.sqrt(6), abs=0.02)
    alone = gumbel(torch.zeros(1, 64, 32, 32), NOISE[1:])
    assert torch.equal(alone[0], noise[1]) and not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize(("index", "total"), [(0, 100), (25, 100), (50, 100), (3, 10)])
def test_loss_equals_the_formula(index: int, total: int, small: Callable[..., DVAE]) -> None:
    """Word by word, in the order of the paper: logits, noise, temperature, painting, squared error, divergence."""
    method, step, pixels = small(kl=20.0, kl_steps=5000), Step(index, total, 10), pictures()
    loss, logs = method([pixels], step, NOISE)
    share = min(index / (total / 2), 1)
    temperature = 1 / 16 + (1 - 1 / 16) * (1 + math.cos(math.pi * share)) / 2
    weight = 20 * (1 - math.cos(math.pi * share)) / 2
    with torch.no_grad():
        logits = method.backbone.logits(pixels)
        noisy = torch.stack([gumbel(logits[i : i + 1], NOISE[i : i + 1])[0] for i in range(2)]) + logits
        powers = (noisy / temperature - (noisy / temperature).amax(1, keepdim=True)).exp()
        painted = method.painter(powers / powers.sum(1, keepdim=True))
    squares = [
        (a - b) ** 2 for a, b in zip(painted.flatten().tolist(), pixels.flatten().tolist(), strict=True)
    ]
    expected = sum(squares) / len(squares) + weight / (8 * 8 * 3) * slow_divergence(logits)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert logs["temperature"] == pytest.approx(temperature)


@pytest.mark.parametrize(
    ("index", "temperature", "weight"),
    [
        (0, 1.0, 0.0),
        (2_500, None, 3.3),
        (75_000, (1 + 1 / 16) / 2, 6.6),
        (150_000, 1 / 16, 6.6),
        (3_000_000, 1 / 16, 6.6),
    ],
)
def test_the_papers_schedules(
    index: int, temperature: float | None, weight: float, small: Callable[..., DVAE]
) -> None:
    """A.2: 1 to 1/16 in 150,000 steps, 0 to 6.6 in 5,000."""
    defaults = DVAEConfig()
    method = small(kl=defaults.kl, kl_steps=defaults.kl_steps)
    step = Step(index, 3_000_000, 1000)
    assert method.kl(step) == pytest.approx(weight)
    if temperature is not None:
        assert method.temperature(step) == pytest.approx(temperature)


def test_short_runs_hurry(small: Callable[..., DVAE]) -> None:
    method = small(kl=4.0, kl_steps=5000)
    assert [method.kl(Step(i, 40, 10)) for i in (0, 10, 20, 40)] == pytest.approx([0, 2, 4, 4])
    assert [method.temperature(Step(i, 40, 10)) for i in (0, 20, 40)] == pytest.approx([1, 1 / 16, 1 / 16])


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"temperature": 0.0}, "--method.temperature is 0.0"),
        ({"kl": -1.0}, "--method.kl is -1.0"),
        ({"decoder_blocks": 0}, "--method.decoder_blocks is 0"),
        ({"min_scale": 0.0}, "--method.min_scale is 0.0"),
    ],
)
def test_impossible_knobs_are_named(knobs: dict[str, Any], says: str, small: Callable[..., DVAE]) -> None:
    with pytest.raises(RecipeError, match=says):
        small(**knobs)


def test_only_a_dvae_is_trained(tiny: Tiny) -> None:
    turned = tiny("dvae/smoke", arch={"name": "test_vit", "family": "vit"})
    with pytest.raises(RecipeError, match=r"--arch\.family is 'vit', and dvae trains dvae"):
        turned.method.build(turned)


# The folder


@pytest.fixture(scope="module")
def trained(tiny: Tiny, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(
        tiny("dvae/smoke", schedule={"epochs": 8}, optim={"lr": 0.3}),
        photos,
        tmp_path_factory.mktemp("dvae") / "words",
    )


def test_a_run_ends_in_a_folder_that_all_read(trained: Path, photos: Path) -> None:
    encoder = zoo.load(trained, device="cpu")
    photo = photos / "val" / "cat" / "00.jpg"
    features = encoder(photo)
    assert features.patches.shape == (1, 16, 512) and features.cls is None
    theirs = timm.create_model(f"local-dir:{trained}", pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(encoder.transform(photo)[None]), features.pooled)
    tokenizer, painter = read_tokenizer(trained)
    words = tokenizer(encoder.transform(photo)[None])
    assert words.shape == (1, 4, 4) and words.dtype == torch.int64
    assert painter is not None and not any(p.requires_grad for p in tokenizer.parameters())


def test_reconstruct_shows_what_the_words_keep(trained: Path, photos: Path) -> None:
    encoder = zoo.load(trained, device="cpu")
    photo = photos / "val" / "cat" / "00.jpg"
    shown = encoder.reconstruct(photo)
    assert shown.predicted.shape == (1, 3, 32, 32) and not shown.mask.any()
    assert torch.equal(shown.composite, shown.image) and shown.error.item() == 0
    tokenizer, painter = read_tokenizer(trained)
    pixels = encoder.transform(photo)[None]
    assert painter is not None
    with torch.no_grad():
        painted = painter(F.one_hot(tokenizer(pixels), 512).permute(0, 3, 1, 2).float())
    torch.testing.assert_close(shown.predicted, encoder.transform.denormalise(painted).clamp(0, 1))
    assert shown.loss.item() == pytest.approx((painted - pixels).square().mean().item(), rel=1e-5)
    with pytest.raises(MaskError, match="a tokenizer sees the whole picture"):
        encoder.reconstruct(photo, ratio=0.5)
    with pytest.raises(Unsupported, match="no secondary masking"):
        encoder.reconstruct(photo, secondary=0.25)


def test_it_learns(trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["reconstruction"] < 0.9 * rows[0]["reconstruction"]
    assert {"divergence", "temperature", "dead_prototypes"} <= set(rows[0])


def test_a_decoder_of_other_words_is_refused(trained: Path) -> None:
    card = zoo.load(trained, device="cpu").card
    assert card.decoder is not None
    for wrong, says in (
        ({"vocabulary": 9}, "are not those of its DVAEEncoder: 512 and 8"),
        ({"word": 12}, "not those"),
    ):
        with pytest.raises(CardError, match=says):
            build(dataclasses.replace(card, decoder=dataclasses.replace(card.decoder, **wrong)))


# DALL·E's encoder, by its own names


def slow_logits(tensors: dict[str, Tensor], image: Tensor) -> Tensor:
    """A.1, layer by layer, of pixels in [0, 1], (B, 3, H, W)."""

    def convolve(name: str, x: Tensor) -> Tensor:
        weight = tensors[f"blocks.{name}.w"]
        return F.conv2d(x, weight, tensors[f"blocks.{name}.b"], padding=(weight.shape[-1] - 1) // 2)

    x = convolve("input", 0.8 * image + 0.1)
    for group in range(1, 5):
        for block in (1, 2):
            name = f"group_{group}.block_{block}"
            kept = convolve(f"{name}.id_path", x) if f"blocks.{name}.id_path.w" in tensors else x
            for layer in range(1, 5):
                x = convolve(f"{name}.res_path.conv_{layer}", x.clamp(min=0))
            x = kept + x / 64  # 1 / (4 groups * 2 blocks)^2
        if group < 4:
            x = F.max_pool2d(x, 2)
    return convolve("output.conv", x.clamp(min=0))


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_dalles_tensors_give_dalles_words(prefix: str, dalle: dict[str, Tensor], tmp_path: Path) -> None:
    image = torch.rand(2, 3, 32, 48, generator=Generator().manual_seed(1))
    # Biases at which no word is likelier than another on the whole, so that images tell them apart.
    dalle = {**dalle, "blocks.output.conv.b": -slow_logits(dalle, image).mean(dim=(0, 2, 3))}
    file = tmp_path / "encoder.pth"
    torch.save({f"{prefix}{name}": tensor for name, tensor in dalle.items()}, file)
    tokenizer, painter = read_tokenizer(file)
    assert painter is None
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    words = tokenizer((image - mean[:, None, None]) / std[:, None, None])
    assert words.shape == (2, 4, 6) and len(words.unique()) > 2
    assert torch.equal(words, slow_logits(dalle, image).argmax(dim=1))


def test_dalles_own_file_is_not_executed(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "encoder.pkl")
    with pytest.raises(WeightsError, match="pickled objects are never executed"):
        read_tokenizer(tmp_path / "encoder.pkl")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"does not hold the tensors of DALL·E's encoder \(blocks.input.w"):
        read_tokenizer(tmp_path / "other.pth")


def test_the_official_size_is_dalles() -> None:
    full = recipe("dvae/imagenet")
    with torch.device("meta"):
        method = full.method.build(full)
        assert isinstance(method, DVAE)
    shapes = {name: tuple(tensor.shape) for name, tensor in method.encoder().named_parameters()}
    assert shapes["stem.weight"] == (256, 3, 7, 7) and shapes["words.weight"] == (8192, 2048, 1, 1)
    assert shapes["groups.3.0.path.1.weight"] == (512, 1024, 3, 3)
