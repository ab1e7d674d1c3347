"""The sentry: looks at a run every few steps, and stops one that has collapsed or diverged, saying by which number.

It reads what a step computes anyway (`Method`: what is logged), so that a look costs the spectrum of a
small matrix. Signals: std of L2-normalised features (Chen & He, 2011.10566, §4.1), RankMe (Garrido et al., 2210.02885),
a teacher's entropy against ln K and prototypes nothing is assigned to (Caron et al., 2104.14294, §5.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.training.processes import gather_over_processes, sum_over_processes, world
from zoo.training.schedules import warmup_steps

if TYPE_CHECKING:
    from zoo.training.methods import Step
    from zoo.training.recipe import Recipe

Row = dict[str, float]

EVERY = 10  # steps between looks
SEEN = 256  # images whose features are looked at
PATIENCE, LONG = 50, 100  # steps that a number must stay bad for, after the warm-up
# A loss may rest at chance for a fifth of the run, where that is more, and for so many steps at most.
CHANCE_SHARE, CHANCE_STEPS = 0.2, 2000
MOST = 4000  # looks that are remembered; of older ones than any window, then every second
# Limits, by experiment on healthy runs and on runs with 1,000 times the learning rate: tests/training/test_sentry.py.
RISE = 3.0  # the loss over the one of the run's first look
# Of 1/√D, the std of features that fill the sphere, and an effective rank: below both every image looks alike. Only
# where the std began FALL times as high (images may be alike) and the loss is not below LEARNT of where it began: the
# bundled encoders, trained well, have 0.09 and 0.11 at ranks of 3.7 and 4.7, and long runs may go lower.
STD, RANK, FALL, LEARNT = 0.06, 2.0, 3.0, 0.8
STD_ALWAYS, RANK_ALWAYS = 0.005, 1.05  # collapsed, whatever the loss says: BYOL's is lowest there
STD_TAUGHT, RANK_TAUGHT = (
    0.1,
    2.5,
)  # where targets are a teacher's features, whose loss is low when both say nothing
STILL = 0.97  # of the loss half a window ago: it rests and does not fall
NARROWED = 0.5  # of the std and of the rank at the first look, beside a loss that never came below its first
NEAR, NEAR_ENTROPY = 0.005, 0.02  # of ln K: how near a loss and a teacher's entropy count as resting there


class Diverged(ZooError):
    """The loss is no longer a number, or far above where it began."""


class Collapsed(ZooError):
    """The features no longer tell images apart."""


class Sentry:
    """`look` at every step; it looks when it is due, and raises Diverged or Collapsed.

    >>> sentry = Sentry(recipe, Step(0, 1000, 100))
    """

    def __init__(self, recipe: Recipe, steps: Step) -> None:
        self.recipe, self.total = recipe, steps.total
        self.warm = warmup_steps(recipe.schedule.warmup_epochs, steps.per_epoch, steps.total)
        self.rows: list[Row] = []
        self.usage: Tensor | None = None  # (K,), running mean of the prototypes' probabilities

    def state_dict(self) -> dict[str, Any]:
        """What it has seen, for a checkpoint: a run that goes on is judged as one that was never stopped."""
        return {"rows": self.rows, "usage": self.usage}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.rows, self.usage = list(state["rows"]), state["usage"]

    def due(self, step: int) -> bool:
        """At the first step, every few, whenever the log is due, and at the last; alike on every process."""
        return step == 1 or step % EVERY == 0 or step % self.recipe.run.log_every == 0 or step == self.total

    @torch.no_grad()
    def look(self, step: int, loss: Tensor, logs: Mapping[str, float | Tensor]) -> Row | None:
        """The numbers of this step over all processes, for the log; None where no look is due.

        Raises Diverged or Collapsed, on every process alike, with a diagnosis in one paragraph.
        """
        if not self.due(step):
            return None
        row: Row = {"step": step, "loss": _mean(loss)}
        row |= {k: _mean(v) for k, v in logs.items() if not isinstance(v, Tensor) or v.ndim == 0}
        features, prototypes = logs.get("features"), logs.get("prototypes")
        if isinstance(features, Tensor):
            everyone = gather_over_processes(features[: SEEN // world()].float()).cpu().double()
            row |= {"feature_std": feature_std(everyone), "effective_rank": effective_rank(everyone)}
            row["width"], row["images"] = everyone.shape[1], everyone.shape[0]
        if isinstance(prototypes, Tensor):
            shares = sum_over_processes(prototypes.float()) / world()  # (K,), of all images
            row["dead_prototypes"] = self._dead(shares)
            row["prototype_entropy"] = torch.special.entr(shares).sum().item()
        self.rows.append(row)
        if len(self.rows) > MOST:
            self.rows = thinned(self.rows)
        self._judge()
        return {key: value for key, value in row.items() if key not in ("chance", "width", "images")}

    def _dead(self, probabilities: Tensor) -> float:
        """Share of the prototypes that lately got less than a tenth of an even share."""
        before = probabilities if self.usage is None else self.usage.to(probabilities)
        self.usage = before.lerp(probabilities, 0.1)
        return (self.usage < 0.1 / len(self.usage)).float().mean().item()

    def _judge(self) -> None:
        now = self.rows[-1]
        if not math.isfinite(now["loss"]):
            raise self.no_number(now["step"], f"the loss is {now['loss']}")
        if not self.recipe.run.sentry:
            return
        if recent := self._recent(PATIENCE):
            self._risen(recent)
            self._collapsed(recent)
            self._one_for_all(recent)
        if long := self._recent(LONG):
            self._never_fallen(long)
        if resting := self._recent(max(PATIENCE, min(CHANCE_SHARE * self.total, CHANCE_STEPS))):
            self._at_chance(resting)

    def no_number(self, step: float, what: str) -> Diverged:
        """The error of a run in which something is no number any more."""
        return Diverged(f"stopped at step {step:g} of {self.total}: {what}, no number. {self._lower()}")

    def _recent(self, steps: float) -> list[Row]:
        """The looks of the last `steps` steps, where so many have passed since the warm-up; otherwise none."""
        last = self.rows[-1]["step"]
        since = last - steps
        seen = [row for row in self.rows if row["step"] >= since]
        return seen if since >= max(self.warm, self.rows[0]["step"]) and len(seen) > 2 else []

    def _begun(self) -> float:
        """The loss the run began with; a teacher that begins with few prototypes makes a small one for no merit."""
        return max(self.rows[0]["loss"], self.rows[0].get("chance", 0.0))

    def _risen(self, recent: list[Row]) -> None:
        usual, least = self._begun(), min(row["loss"] for row in recent)
        if least > RISE * usual > 0:
            raise Diverged(
                f"{self._since(recent)} the loss, {recent[-1]['loss']:.4g}, is more than {RISE:g} times the "
                f"{usual:.4g} it began with: the run has diverged. "
                f"{self._features(recent[-1])} {self._lower()}"
            )

    def _collapsed(self, recent: list[Row]) -> None:
        if "feature_std" not in recent[-1]:
            return
        std, rank = (max(row[key] for row in recent) for key in ("feature_std", "effective_rank"))
        low, narrow = (STD_TAUGHT, RANK_TAUGHT) if "target_std" in recent[-1] else (STD, RANK)
        fallen = std < low and rank < narrow and FALL * std < self.rows[0]["feature_std"]
        # Agreement with a teacher is no merit where both say the same of every image.
        alone = not {"teacher_entropy", "target_std"} & recent[-1].keys()
        learnt = alone and min(row["loss"] for row in recent) < LEARNT * self._begun()
        if not ((fallen and not learnt) or std < STD_ALWAYS or rank < RANK_ALWAYS):
            return
        raise Collapsed(
            f"{self._since(recent)} every image gets nearly the same features: the encoder has collapsed. "
            f"{self._features(recent[-1])} {self._loss(recent[-1])} {self._lower()}"
        )

    def _one_for_all(self, recent: list[Row]) -> None:
        """A teacher that names the same prototype whatever it sees: the loss goes to 0, and no feature need move."""
        if not {"prototype_entropy", "teacher_entropy", "chance"} <= recent[-1].keys():
            return
        # Of each image's answers, and of all images' together: a sharp teacher of many answers has but the first low.
        keys = ("teacher_entropy", "prototype_entropy")
        if all(row.get(key, math.inf) < NEAR_ENTROPY * row["chance"] for row in recent for key in keys):
            raise Collapsed(
                f"{self._since(recent)} the teacher names the same prototype for every image: its centre does not keep "
                f"one from outweighing all. {self._loss(recent[-1])} {self._features(recent[-1])} {self._softer()}"
            )

    def _never_fallen(self, recent: list[Row]) -> None:
        """A loss that stays above where it began, while images grow more alike: neither is a fault alone."""
        first, now = self.rows[0], recent[-1]
        if "feature_std" not in now or {"teacher_entropy", "target_std"} & now.keys():
            return  # a teacher's targets sharpen, and the loss may rise for that
        above = min(row["loss"] for row in recent) > first["loss"] > 0
        keys = ("feature_std", "effective_rank")
        if above and all(max(row[key] for row in recent) < NARROWED * first[key] for key in keys):
            raise Diverged(
                f"{self._since(recent)} the loss, {now['loss']:.4g}, was never below the {first['loss']:.4g} it began "
                f"with, and images look more and more alike: nothing is learnt. {self._features(now)} At the start: "
                f"{first['feature_std']:.2g} and {first['effective_rank']:.1f}. {self._lower()}"
            )

    def _at_chance(self, recent: list[Row]) -> None:
        """A loss at what a network has that knows nothing, for long; a teacher must be as flat as that."""
        now = recent[-1]
        if "chance" not in now:
            return
        chance = now["chance"]
        teacher = "teacher_entropy" in now
        if teacher:
            near = all(
                abs(row["loss"] / chance - 1) < NEAR and row["teacher_entropy"] > (1 - NEAR_ENTROPY) * chance
                for row in recent
            )
        else:
            losses, half = [row["loss"] for row in recent], len(recent) // 2
            near = all(row["loss"] > (1 - NEAR) * row["chance"] for row in recent)
            near &= mean(losses[half:]) > STILL * mean(losses[:half])  # and not on its way down to it
        if near:
            raise Collapsed(
                f"{self._since(recent)} the loss rests at chance. {self._loss(now)} {self._features(now)} "
                f"{self._sharper() if teacher else self._lower()}"
            )

    def _since(self, recent: list[Row]) -> str:
        return f"stopped at step {recent[-1]['step']:g} of {self.total}: since step {recent[0]['step']:g}"

    def _loss(self, row: Row) -> str:
        """The loss, beside chance and a teacher's entropy where there are any."""
        said = f"The loss is {row['loss']:.4g}"
        if "chance" in row:
            count = round(math.exp(row["chance"]))
            level = f"{row['chance']:.4g}"
            if abs(math.log(count) - row["chance"]) < 1e-4:
                level = f"ln {count} = {level}"
            said += f", and {level} is that of a network that cannot tell images apart"
        if "teacher_entropy" in row:
            said += f"; the teacher's entropy is {row['teacher_entropy']:.4g}"
        if "dead_prototypes" in row:
            said += f", {row['dead_prototypes']:.0%} of its prototypes are dead"
        return said + "."

    def _features(self, row: Row) -> str:
        if "feature_std" not in row:
            return "The method logs no features to look at."
        return (
            f"The features' std is {row['feature_std']:.2g} of 1/√{row['width']:g} "
            "(0: all alike, 1: all over the sphere), "
            f"their effective rank {row['effective_rank']:.1f} of at most {min(row['width'], row['images']):g}."
        )

    def _lower(self) -> str:
        optim = self.recipe.optim
        peak = optim.lr * optim.batch / 256
        return (
            f"Lower the learning rate: --optim.lr {optim.lr / 10:.3g} (it is {optim.lr:g}, so {peak:g} at its peak for "
            f"a batch of {optim.batch}), and start in a new --out folder."
        )

    def _sharper(self) -> str:
        """What helps where the teacher is flat."""
        temperature = getattr(self.recipe.method, "teacher_temperature", None)
        knob = (
            ""
            if temperature is None
            else f" Sharpen the teacher: a --method.teacher_temperature below {temperature:g}."
        )
        return f"The student learns from a teacher that says nothing.{knob} {self._lower()}"

    def _softer(self) -> str:
        """What helps where the teacher knows one answer."""
        config = self.recipe.method
        knobs = [
            f"a --method.{name} {which} {value:g}"
            for name, which in (("centre_momentum", "below"), ("teacher_temperature", "above"))
            if (value := getattr(config, name, None)) is not None
        ]
        helped = (
            [f"Let the centre follow sooner, or soften the teacher: {' or '.join(knobs)}."] if knobs else []
        )
        return " ".join([*helped, self._lower()])

    def verdict(self) -> str:
        """What a run that was not stopped looks like, in a sentence with its numbers: healthy, flat or not."""
        last = self.rows[-1]
        went = f"the loss went from {self.rows[0]['loss']:.4g} to {last['loss']:.4g}"
        if not self.recipe.run.sentry:
            return f"not judged: {went}. {self._features(last)}"
        if not self._recent(PATIENCE):
            return f"too short to be judged: {went}. {self._features(last)}"
        # Of the second half of the run, its second half against its first.
        third, fourth = (
            [row["loss"] for row in self.rows if first < row["step"] / last["step"] <= first + 0.25]
            for first in (0.5, 0.75)
        )
        early, late = mean(third), mean(fourth)
        if abs(late - early) < 0.01 * abs(early):
            course = "flat, which is no fault"
        else:
            course = "rising still" if late > early else "falling still"
        return f"healthy: {went} and is {course}. {self._features(last)}"


def thinned(rows: list[Row]) -> list[Row]:
    """The first look, every second of those that no window reaches any more, and all later ones."""
    since = rows[-1]["step"] - CHANCE_STEPS
    old = [row for row in rows if row["step"] < since]
    return [*old[::2], *rows[len(old) :]]


def feature_std(features: Tensor) -> float:
    """Std of L2-normalised features (B, D) over images, the mean over dimensions, times √D.

    0: every image has the same; 1: they fill the sphere evenly.
    """
    normed = torch.nn.functional.normalize(features, dim=1)
    return float(normed.std(dim=0, unbiased=False).mean()) * math.sqrt(features.shape[1])


def effective_rank(features: Tensor) -> float:
    """RankMe (2210.02885, Equation 1): exp of the entropy of the singular values of (B, D). 1 to min(B, D)."""
    if not features.isfinite().all():
        return math.nan
    gram = features @ features.T if len(features) < features.shape[1] else features.T @ features
    values = (
        torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    )  # far cheaper than a decomposition of the features
    shares = values / values.sum().clamp(min=1e-12)
    return math.exp(-(shares * shares.clamp(min=1e-12).log()).sum().item())


def _mean(value: float | Tensor) -> float:
    """Over all processes."""
    if isinstance(value, Tensor):
        return (sum_over_processes(value.detach().float()) / world()).item()
    return float(value)
