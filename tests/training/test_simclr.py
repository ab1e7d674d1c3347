"""SimCLR against loops over Equation 1, and its bound against the mutual information of Gaussians."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from zoo.training.heads import mlp
from zoo.training.methods import Step, recipe
from zoo.training.methods.simclr import SimCLR, SimCLRConfig, nt_xent
from zoo.training.recipe import Recipe

STEP, NOISE = Step(0, 100, 10), torch.zeros(3, dtype=torch.int64)


@pytest.fixture
def small(tiny: Callable[..., Recipe]) -> Callable[..., SimCLR]:
    def build(**knobs: object) -> SimCLR:
        torch.manual_seed(0)
        turned = tiny("simclr/smoke", method=knobs)
        method = turned.method.build(turned)
        assert isinstance(method, SimCLR)
        return method

    return build


# The loss


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def slow_nt_xent(first: Tensor, second: Tensor, temperature: float) -> float:
    """Equation 1 for every ordered pair of views of one image; rows 2k - 1 and 2k are image k's, as in the paper."""
    z = [row for pair in zip(first.tolist(), second.tolist(), strict=True) for row in pair]
    losses = []
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        others = sum(math.exp(cosine(z[i], z[k]) / temperature) for k in range(len(z)) if k != i)
        losses.append(-math.log(math.exp(cosine(z[i], z[j]) / temperature) / others))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize(("images", "width"), [(1, 4), (2, 3), (7, 16)])
def test_nt_xent_equals_the_loops(images: int, width: int, temperature: float) -> None:
    first, second = torch.randn(2, images, width, generator=Generator().manual_seed(images))
    expected = slow_nt_xent(first, second, temperature)
    assert float(nt_xent(first, second, temperature)) == pytest.approx(expected, abs=1e-5)


def test_the_loss_and_the_bound_of_a_batch(small: Callable[..., SimCLR]) -> None:
    method = small(temperature=0.2)
    views = list(torch.randn(2, 3, 3, 32, 32, generator=Generator().manual_seed(0)))
    loss, logs = method(views, STEP, NOISE)
    with torch.no_grad():
        first, second = method.projector(method.backbone(torch.cat(views))).chunk(2)
    slow = slow_nt_xent(first, second, 0.2)
    assert loss.item() == pytest.approx(slow, abs=1e-4)
    assert float(logs["mutual_information"]) == pytest.approx(
        math.log(5) - slow, abs=1e-4
    )  # 1 positive, 4 negatives
    assert logs["chance"] == pytest.approx(math.log(5))


def test_views_that_are_all_alike_are_at_chance() -> None:
    same = torch.ones(8, 4)
    assert float(nt_xent(same, same, 0.1)) == pytest.approx(math.log(15))


def test_half_precision_does_not_round_similarities() -> None:
    first, second = torch.randn(2, 6, 32, generator=Generator().manual_seed(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(first, second, 0.05)
    assert float(loss) == pytest.approx(slow_nt_xent(first, second, 0.05), rel=1e-5)


# The bound


def gaussians(count: int, width: int, correlation: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """x and y of (count, width), each standard normal, correlated dimension by dimension."""
    x, noise = torch.randn(2, count, width, generator=generator)
    return x, correlation * x + math.sqrt(1 - correlation**2) * noise


@pytest.mark.parametrize(("width", "correlation"), [(2, 0.5), (4, 0.6), (4, 0.9)])
def test_the_bound_stays_below_the_information_there_is(width: int, correlation: float) -> None:
    """I(x; y) = -d/2 log(1 - rho²); a critic trained by NT-Xent finds a good part of it and never more."""
    torch.manual_seed(0)
    truth, generator = -width / 2 * math.log(1 - correlation**2), Generator().manual_seed(1)
    critic = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.AdamW(critic.parameters(), lr=5e-3)
    for _ in range(200):
        x, y = gaussians(128, width, correlation, generator)
        optimizer.zero_grad()
        nt_xent(critic(x), critic(y), 0.2).backward()
        optimizer.step()
    with torch.no_grad():
        losses = [
            nt_xent(*map(critic, gaussians(128, width, correlation, generator)), 0.2) for _ in range(50)
        ]
    bound = math.log(2 * 128 - 1) - float(torch.stack(losses).mean())
    assert 0.4 * truth < bound < truth


# The rest


def test_the_head_is_linear_norm_relu_and_ends_in_a_gain() -> None:
    head = mlp(8, 6, 4, last="scaled").eval()
    names = [type(layer).__name__ for layer in head]
    assert names == ["Linear", "GlobalBatchNorm1d", "ReLU", "Linear", "GlobalBatchNorm1d"]
    assert {name for name, _ in head.named_parameters()} == {
        *("0.weight", "1.weight", "1.bias", "3.weight", "4.weight")
    }
    assert head.train()(torch.randn(9, 8)).shape == (9, 4)
    assert [type(layer).__name__ for layer in mlp(8, 4)] == ["Linear"]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_head_is_as_deep_as_asked(layers: int, small: Callable[..., SimCLR]) -> None:
    linear = [m for m in small(layers=layers, hidden=32, out=16).projector if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [32] * (layers - 1) + [16]


def test_both_views_come_from_one_distribution(tiny: Callable[..., Recipe]) -> None:
    """Without colours and blur, a view is grey one time in five, either as often and each by its own draw."""
    turned = tiny("simclr/smoke", method={"min_scale": 1.0, "strength": 0.0, "blur": 0.0})
    cut, image = turned.method.build(turned).views(), torch.zeros(3, 40, 40, dtype=torch.uint8)
    image[0] = 200  # red
    pairs = [cut(image, Generator().manual_seed(seed)) for seed in range(200)]
    grey = [[bool(view[0].mean() < 1) for view in pair] for pair in pairs]
    for column in zip(*grey, strict=True):
        assert sum(column) / len(column) == pytest.approx(0.2, abs=0.08)
    assert any(a != b for a, b in grey)


def test_defaults_are_the_papers() -> None:
    config, optim = SimCLRConfig(), recipe("simclr/imagenet").optim
    assert (config.temperature, config.hidden, config.out, config.layers) == (0.1, 2048, 128, 2)
    assert (config.strength, config.blur, config.min_scale) == (1.0, 0.5, 0.08)
    assert optim.kind == "lars" and optim.lr * optim.batch / 256 == pytest.approx(4.8)
