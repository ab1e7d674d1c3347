"""The sentry stops what has collapsed or diverged, says by which number, and leaves alone what is healthy."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Generator, Tensor

from zoo.training.data import Batch, Sample, collate
from zoo.training.engine import run, set_rates, train_step
from zoo.training.methods import Method, Step, recipe
from zoo.training.optimisers import build_optimizer
from zoo.training.recipe import Recipe
from zoo.training.sentry import (
    CHANCE_STEPS,
    MOST,
    Collapsed,
    Diverged,
    Sentry,
    effective_rank,
    feature_std,
    thinned,
)

TOTAL, IMAGES, SIZE, D = 200, 64, 16, 32
START = Step(0, TOTAL, 10)
METHODS = ("mae", "dino", "simclr", "byol", "vicreg", "supervised")


# Real steps of real methods


def batches(method: Method, side: int) -> Iterator[Batch]:
    """Batches of 16 of 64 pictures, cut once: coarse noise, as different from each other as photos are."""
    cut, coarse = method.views(), torch.rand(IMAGES, 3, 4, 4, generator=Generator().manual_seed(0))
    larger = torch.nn.functional.interpolate(coarse, size=side + 8, mode="bicubic").clamp(0, 1)
    samples = [
        Sample(cut(picture, Generator().manual_seed(i)), i, i % 4, [])
        for i, picture in enumerate((255 * larger).to(torch.uint8))
    ]
    generator = np.random.default_rng(0)
    while True:
        yield collate([samples[i] for i in generator.choice(IMAGES, SIZE, replace=False)])


def watched(turned: Recipe, steps: int) -> Sentry:
    """The steps of a run of 200, or fewer where the sentry stops it."""
    torch.manual_seed(turned.run.seed)
    method, accelerator = turned.method.build(turned), Accelerator(cpu=True)
    optimizer = build_optimizer(method.param_groups(turned.optim), turned.optim)
    sentry = Sentry(turned, START)
    for index, batch in zip(range(steps), batches(method, turned.data.size), strict=False):
        step = dataclasses.replace(START, index=index)
        set_rates(optimizer, turned, step)
        sentry.look(index + 1, *train_step(accelerator, method, method, optimizer, batch, step, 0))
    return sentry


def at_rate(tiny: Callable[..., Recipe], name: str, factor: float) -> Recipe:
    """A smoke recipe at a batch of 16, its learning rate times `factor`."""
    lr = factor * recipe(f"{name}/smoke").optim.lr
    return tiny(f"{name}/smoke", optim={"batch": SIZE, "lr": lr}, run={"log_every": 10})


@pytest.mark.parametrize("name", METHODS)
def test_a_healthy_run_is_left_alone(name: str, tiny: Callable[..., Recipe]) -> None:
    sentry = watched(at_rate(tiny, name, 1), 100)
    assert sentry.verdict().startswith("healthy: the loss went from ")
    assert min(row["feature_std"] for row in sentry.rows) > 0.2


SAME = "every image gets nearly the same features: "


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mae", f"{SAME}the encoder has collapsed. The features' std is 0.0"),
        (
            "dino",
            f"({SAME}the encoder has collapsed|the loss rests at chance).*The loss is 3.1\\d+, and ln 24 = 3.178 .* "
            "teacher's entropy is 3.1",
        ),
        # At such rates rounding decides how a run goes wrong, and processors round differently.
        ("simclr", f"({SAME}|the loss rests at chance).*, and ln 31 = 3.434 is that of a network"),
        ("byol", f"{SAME}.* their effective rank [12].\\d of at most 16"),
        ("beit", "the loss rests at chance. The loss is 1.\\d+, and 1.\\d+ is that of a network"),
        ("supervised", "the loss rests at chance. The loss is 2.\\d+, and [12]\\.\\d+ is that of a network"),
    ],
)
def test_a_thousand_times_the_learning_rate_is_stopped(
    name: str, says: str, tiny: Callable[..., Recipe]
) -> None:
    with pytest.raises(Collapsed, match=says) as caught:
        watched(at_rate(tiny, name, 1000), TOTAL)
    assert "Lower the learning rate: --optim.lr 0.2 (it is 2, so 0.125 at its peak for a batch of 16)" in str(
        caught.value
    )


def test_a_loss_that_learns_nothing_is_stopped(tiny: Callable[..., Recipe]) -> None:
    """VICReg does not collapse at a thousand times its learning rate: it rests above where it began."""
    with pytest.raises(Diverged, match=r"was never below the 39\.\d+ it began with, and images look more"):
        watched(at_rate(tiny, "vicreg", 1000), TOTAL)


def test_a_whole_run_is_stopped_and_leaves_its_curve(
    tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    turned = tiny("mae/smoke", optim={"lr": 20.0}, schedule={"epochs": 60})
    with pytest.raises(Collapsed, match=r"stopped at step \d+ of 180"):
        run(turned, photos, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert (tmp_path / "run" / "curve.png").read_bytes().startswith(b"\x89PNG")


# Single numbers


def spread(generator: Generator) -> Tensor:
    return torch.randn(SIZE, D, generator=generator)


def look_at(
    turned: Recipe, loss: Callable[[int], float], scale: float = 1.0, steps: int = TOTAL, **logs: Any
) -> Sentry:
    """A run whose loss is a function of the step; `scale`: how far features lie around their common mean."""
    sentry, generator = Sentry(turned, START), Generator().manual_seed(0)
    for step in range(1, steps + 1):
        features = 1 + (scale if step > 10 else 1.0) * spread(generator)
        sentry.look(step, torch.tensor(loss(step)), {"features": features, **logs})
    return sentry


@pytest.fixture
def plain(tiny: Callable[..., Recipe]) -> Recipe:
    return tiny("dino/smoke", run={"log_every": 10})


def test_a_flat_loss_of_lively_features_is_healthy(plain: Recipe) -> None:
    verdict = look_at(plain, lambda step: 0.8).verdict()
    assert verdict.startswith("healthy: the loss went from 0.8 to 0.8 and is flat, which is no fault.")
    assert "effective rank 1" in verdict and "of at most 16" in verdict


def test_a_long_run_is_judged_without_all_it_was() -> None:
    rows = [{"step": float(step), "loss": 1.0} for step in range(1, MOST + 2)]
    kept = thinned(rows)
    assert kept[0] == rows[0] and kept[-CHANCE_STEPS - 1 :] == rows[-CHANCE_STEPS - 1 :]
    assert len(kept) == CHANCE_STEPS + 1 + (MOST - CHANCE_STEPS) // 2


@pytest.mark.parametrize(("slope", "course"), [(-0.002, "falling"), (0.002, "rising")])
def test_a_loss_that_moves_says_where(slope: float, course: str, plain: Recipe) -> None:
    assert f"is {course} still" in look_at(plain, lambda step: 1 + slope * step).verdict()


def test_a_short_run_is_not_judged(plain: Recipe) -> None:
    assert look_at(plain, lambda step: 9.0, scale=0, steps=30).verdict().startswith("too short to be judged")


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_never_let_pass(loss: float, tiny: Callable[..., Recipe]) -> None:
    off = tiny("dino/smoke", run={"log_every": 10, "sentry": False})
    with pytest.raises(Diverged, match=f"stopped at step 1 of 200: the loss is {loss}, no number"):
        look_at(off, lambda step: loss)


def test_a_risen_loss_has_diverged(plain: Recipe) -> None:
    with pytest.raises(Diverged, match="more than 3 times the 2 it began with: the run has diverged"):
        look_at(plain, lambda step: 2.0 if step <= 20 else 7.0)
    look_at(plain, lambda step: 2.0 if step % 40 else 9.0)  # single steps are no divergence
    # A teacher that began with few prototypes.
    look_at(plain, lambda step: 2.0 if step <= 20 else 7.0, chance=7.0, teacher_entropy=6.0)


def test_features_that_are_all_alike_have_collapsed(plain: Recipe) -> None:
    with pytest.raises(Collapsed, match=r"std is 0 of 1/√32 .* effective rank 1.0 of at most 16"):
        look_at(plain, lambda step: 0.5, scale=0)
    with pytest.raises(Collapsed):
        look_at(plain, lambda step: 0.5, scale=0.03)
    look_at(plain, lambda step: 0.5, scale=0.3)


def test_a_loss_that_falls_far_may_take_the_spread_with_it_but_not_all(plain: Recipe) -> None:
    """As BYOL's does, which is lowest where every image has the same features."""
    look_at(plain, lambda step: 0.5 if step <= 10 else 0.3, scale=0.03)
    with pytest.raises(Collapsed):
        look_at(plain, lambda step: 0.5 if step <= 10 else 0.01, scale=0.001)


def test_agreement_with_a_teacher_is_no_merit(plain: Recipe) -> None:
    with pytest.raises(Collapsed, match=r"the encoder has collapsed.* the teacher's entropy is 3"):
        look_at(plain, lambda step: 3.1, scale=0.03, chance=5.545, teacher_entropy=3.0)


def test_images_that_were_alike_from_the_start_are_no_collapse(plain: Recipe) -> None:
    sentry, generator = Sentry(plain, START), Generator().manual_seed(0)
    for step in range(1, TOTAL + 1):
        sentry.look(step, torch.tensor(0.5), {"features": 1 + 0.03 * spread(generator)})
    assert sentry.rows[-1]["feature_std"] < 0.06


def test_dino_may_start_at_chance_but_not_rest_there(plain: Recipe) -> None:
    chance = math.log(65536)
    start = look_at(plain, lambda step: chance if step < 40 else 10.0, teacher_entropy=chance, chance=chance)
    assert start.verdict().startswith("healthy")
    says = r"since step \d+ the loss rests at chance. The loss is 11.09, and ln 65536 = 11.09 .* Sharpen the teacher"
    with pytest.raises(Collapsed, match=says):
        look_at(plain, lambda step: chance, teacher_entropy=chance, chance=chance)
    # A teacher that says something: the loss is high for another reason.
    look_at(plain, lambda step: chance, teacher_entropy=0.9 * chance, chance=chance)


def test_a_contrastive_loss_at_chance_has_learnt_nothing(plain: Recipe) -> None:
    with pytest.raises(Collapsed, match=r"ln 31 = 3.434 is that of a network that cannot tell images apart"):
        look_at(plain, lambda step: 3.44, chance=math.log(31))
    look_at(plain, lambda step: 3.3, chance=math.log(31))


def test_a_loss_on_its_way_down_to_chance_may_go_on(plain: Recipe) -> None:
    """A head of a thousand answers, of which the data has four, begins far above what it must get below."""
    look_at(plain, lambda step: 7 * 0.99**step, steps=130, chance=math.log(4))
    with pytest.raises(Collapsed, match=r"ln 4 = 1.386 is that of a network that cannot tell images apart"):
        look_at(plain, lambda step: max(7 * 0.9**step, 1.4), chance=math.log(4))


def test_chance_that_is_no_logarithm_is_told_as_it_is(plain: Recipe) -> None:
    with pytest.raises(Collapsed, match=r"The loss is 2.3, and 2.25 is that of a network"):
        look_at(plain, lambda step: 2.3, chance=torch.tensor(2.25))


def test_the_sentry_can_be_sent_away(tiny: Callable[..., Recipe]) -> None:
    off = tiny("dino/smoke", run={"log_every": 10, "sentry": False})
    assert look_at(off, lambda step: 0.5, scale=0).verdict().startswith("not judged")


def test_a_teachers_agreement_is_no_merit(plain: Recipe) -> None:
    """BYOL's loss is lowest where both networks say the same of every image."""
    fallen: dict[str, Any] = {"loss": lambda step: 4 / step, "scale": 0.03}
    look_at(plain, **fallen)  # alone, a loss that fell so far has learnt
    with pytest.raises(Collapsed, match="every image gets nearly the same features"):
        look_at(plain, **fallen, target_std=torch.tensor(0.9))


def test_a_loss_never_below_its_first_is_no_fault_of_lively_features(plain: Recipe) -> None:
    assert look_at(plain, lambda step: 1 + 0.2 * (step > 1)).verdict().startswith("healthy")
    with pytest.raises(Diverged, match="was never below the 1 it began with, and images look more and more"):
        look_at(plain, lambda step: 1 + 0.2 * (step > 1), scale=0.12)
    look_at(plain, lambda step: 1 + 0.2 * (step % 50 > 1), scale=0.12)  # below it now and then


def test_one_prototype_for_all_has_collapsed(plain: Recipe) -> None:
    """The other of DINO's collapses (§5.3): no loss and no gradient, so that lively features stay as they are."""
    one, chance = torch.eye(1000)[7], math.log(1000)
    told: dict[str, Any] = {"chance": chance, "prototypes": one}
    says = "names the same prototype for every image.* --method.centre_momentum below 0.9 or a --method.teacher_t"
    with pytest.raises(Collapsed, match=says):
        look_at(plain, lambda step: 7 * 0.9**step, **told, teacher_entropy=0.0)
    # A teacher that is torn between two answers, or that has two for different images: little, and no collapse.
    look_at(plain, lambda step: 0.7, **told, teacher_entropy=0.7)
    for count in (2, 1000):
        two = torch.zeros(count).index_fill(0, torch.arange(2), 0.5)
        look_at(plain, lambda step: 0.1, chance=math.log(count), prototypes=two, teacher_entropy=0.0)


def test_one_prototype_for_all_may_be_another_later(plain: Recipe) -> None:
    """The centre catches up with it, and the next one takes all; none is dead by then."""
    sentry, features = Sentry(plain, START), spread(Generator().manual_seed(0))
    told: dict[str, Any] = {"features": features, "chance": math.log(8), "teacher_entropy": 0.0}
    with pytest.raises(Collapsed, match="names the same prototype for every image"):
        for step in range(1, TOTAL + 1):
            sentry.look(step, torch.tensor(0.1), {**told, "prototypes": torch.eye(8)[step // 10 % 8]})


def test_dead_prototypes_are_counted(plain: Recipe) -> None:
    used = torch.tensor([0.5, 0.5, 0.0, 0.0])
    sentry = look_at(plain, lambda step: 0.5, prototypes=used)
    assert sentry.rows[-1]["dead_prototypes"] == 0.5
    late = torch.tensor([0.0, 0.0, 0.5, 0.5])
    row = sentry.look(TOTAL, torch.tensor(0.5), {"prototypes": late})
    assert row is not None and row["dead_prototypes"] == 0.0  # the others are not forgotten at once


def test_what_goes_to_the_log_are_numbers_for_people(plain: Recipe) -> None:
    sentry, features = Sentry(plain, START), torch.randn(SIZE, D)
    assert sentry.look(7, torch.tensor(1.0), {"features": features}) is None
    row = sentry.look(10, torch.tensor(1.0), {"features": features, "chance": 3.0, "x": torch.tensor(2.0)})
    assert row is not None and set(row) == {"step", "loss", "x", "feature_std", "effective_rank"}


# Stopped and continued


def judged(
    turned: Recipe, losses: Callable[[int], float], stop: int | None, folder: Path, **logs: Any
) -> str:
    """What is said of a run in the end; its sentry is kept on disk after step `stop`, and another goes on."""
    sentry, generator = Sentry(turned, START), Generator().manual_seed(0)
    try:
        for step in range(1, TOTAL + 1):
            scale = logs.get("scale", 1.0) if step > 10 else 1.0
            prototypes = torch.rand(6, generator=generator) * torch.arange(6)
            sentry.look(
                step,
                torch.tensor(losses(step)),
                {"features": 1 + scale * spread(generator), "prototypes": prototypes},
            )
            if step == stop:
                torch.save(sentry.state_dict(), folder / "sentry.pt")
                sentry = Sentry(turned, START)
                sentry.load_state_dict(torch.load(folder / "sentry.pt", weights_only=True))
    except (Collapsed, Diverged) as error:
        return f"{type(error).__name__}: {error}"
    return f"{sentry.verdict()} {sentry.rows[-1]['dead_prototypes']}"


@pytest.mark.parametrize("stop", [1, 45, 115, 197])
@pytest.mark.parametrize(
    ("losses", "logs", "says"),
    [
        (lambda step: 4.0 if step < 20 else 1 + step / 200, {}, "healthy: the loss went from 4 to 2 and is rising"),
        (lambda step: 4.0 if step < 20 else 16 - step / 100, {}, "Diverged: .*more than 3 times the 4 it began with"),
        (lambda step: 0.5 if step < 60 else 1.6, {}, "Diverged: .*more than 3 times the 0.5 it began with"),
        (lambda step: 0.5, {"scale": 0.03}, "Collapsed: .*every image gets nearly the same features"),
        (lambda step: 1 + 0.2 * (step > 1), {"scale": 0.12}, "Diverged: .*was never below the 1 it began with"),
    ],
)  # fmt: skip
def test_a_run_that_goes_on_is_judged_as_a_whole_one(
    losses: Callable[[int], float], logs: dict[str, Any], says: str, stop: int, plain: Recipe, tmp_path: Path
) -> None:
    whole = judged(plain, losses, None, tmp_path, **logs)
    assert re.match(says, whole)
    assert judged(plain, losses, stop, tmp_path, **logs) == whole


# The measures


def slow_rank(features: Tensor) -> float:
    values = torch.linalg.svd(features).S.tolist()
    shares = [value / sum(values) for value in values]
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))


@pytest.mark.parametrize(("rows", "width"), [(6, 9), (9, 6), (5, 5)])
def test_rank_and_std_equal_their_formulas(rows: int, width: int) -> None:
    features = torch.randn(rows, width, generator=Generator().manual_seed(rows)).double() + 0.5
    assert effective_rank(features) == pytest.approx(slow_rank(features), rel=1e-6)
    normed = [[x / math.hypot(*row) for x in row] for row in features.tolist()]
    stds = [float(np.std(column)) for column in zip(*normed, strict=True)]
    assert feature_std(features) == pytest.approx(math.sqrt(width) * sum(stds) / width)


def test_known_ranks() -> None:
    assert effective_rank(torch.eye(7).double()) == pytest.approx(7)
    assert effective_rank(torch.ones(5, 3).double()) == pytest.approx(1, abs=1e-5)
    assert feature_std(torch.ones(5, 3)) == pytest.approx(0, abs=1e-6)
    assert feature_std(torch.randn(4000, 64, generator=Generator().manual_seed(0))) == pytest.approx(
        1, abs=0.02
    )
    assert math.isnan(effective_rank(torch.full((3, 3), math.nan)))
