"""A training step of MAE, DINO, SimCLR and BYOL beside the same step from lightly's and timm's parts: time and memory.

Whole steps (loss, gradients, clipping, optimiser, moving averages) of the papers' own recipes, or of those asked for by
--recipe, in float32 on all processors, neither side compiled, on views that lie in memory. Ours is the engine's step,
the rival `lightly_steps.py`'s: the same network, batch, optimiser and schedule. Our ResNets hold their channels side by
side (`channels_last`), our AdamW is torch's fused one, and our loop keeps freed memory for its next step
(`training/allocator.py`), none of which lightly's guides ask for: a third row shows the rival with all three, and so
how much of the gain is theirs. Each trains in a process of its own, as it would, and they take their steps in turn; the
first ones, in which memory finds its places, are not counted. Peak memory is counted, not sampled, in one more process:
bytes that torch holds at most from building a method to the end of its second step. It does not see what keeping freed
memory costs.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from lightly_steps import PlainLoop
from measure import Target, claim, in_turn, report, seconds
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from zoo.training.allocator import freed_memory_kept
from zoo.training.data import Batch
from zoo.training.engine import set_rates, train_step
from zoo.training.methods import Step, recipe
from zoo.training.optimisers import build_optimizer
from zoo.training.precision import start_accelerator
from zoo.training.recipe import Recipe

# Images a step, of the recipes that are made for GPUs: what two processors do in seconds.
BATCH = {"mae": 8, "dino": 4, "simclr": 8, "byol": 8}
MIDDLE = Step(50, 100, 10)  # past the warm-up and whatever is frozen at first
EACH, MEDIAN = 1.0, 1.2
KEPT = ("ours", "lightly_tuned")  # whose freed memory is kept for the next step, as our loop does
SIDES = ("ours", "lightly", "lightly_tuned")
SETTLING, ROUNDS = 4, 9  # steps; rounds are a multiple of three, so that each side is first as often


@dataclass(frozen=True)
class Row:
    """What is compared: a method's recipe and the views of a batch."""

    method: str
    recipe: Recipe
    views: list[Tensor]

    @classmethod
    def of(cls, method: str, name: str) -> Row:
        given = recipe(f"{method}/{name}")
        if name == "imagenet":
            given = replace(given, optim=replace(given.optim, batch=BATCH[method]))
        given = replace(given, run=replace(given.run, precision="no"))
        return cls(method, given, noise(method, given))

    def title(self) -> str:
        sides = sorted({view.shape[-1] for view in self.views}, reverse=True)
        pixels = " and ".join(f"{sum(v.shape[-1] == s for v in self.views)}×{s}" for s in sides)
        threads = torch.get_num_threads()
        sizes = f"{pixels} px, batches of {len(self.views[0])}"
        return f"{self.method}, {self.recipe.arch.name}, {sizes}, {threads} threads"

    def ours(self) -> Callable[[], object]:
        """The engine's step."""
        torch.manual_seed(0)
        accelerator = start_accelerator("no", cpu=True)
        bare = self.recipe.method.build(self.recipe)
        optimizer = build_optimizer(bare.param_groups(self.recipe.optim), self.recipe.optim)
        method, optimizer = accelerator.prepare(bare, optimizer)
        method.train()
        batch = Batch(self.views, torch.arange(len(self.views[0])), [])

        def step() -> None:
            set_rates(optimizer, self.recipe, MIDDLE)
            train_step(accelerator, method, bare, optimizer, batch, MIDDLE, 0)[0].item()

        return step

    def lightly(self) -> Callable[[], object]:
        """The plain loop's."""
        return self._plain(tuned=False)

    def lightly_tuned(self) -> Callable[[], object]:
        """The plain loop's, with our layout and our AdamW."""
        return self._plain(tuned=True)

    def _plain(self, tuned: bool) -> Callable[[], object]:
        torch.manual_seed(0)
        loop = PlainLoop.of(self.method, self.recipe, tuned=tuned)

        def step() -> None:
            loop.follow(self.recipe, MIDDLE)
            loop.step(self.views)

        return step


def noise(method: str, given: Recipe) -> list[Tensor]:
    """Views of random pixels, as many and as large as the method's own."""
    config: Any = given.method
    sides = [given.data.size] * (1 if method == "mae" else 2)
    if method == "dino":
        sides += [config.local_size] * config.local_crops
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(given.optim.batch, 3, side, side, generator=draw) for side in sides]


def peak(method: str, name: str, side: str) -> float:
    """MiB that torch's allocator has given out at most, from nothing to the end of the second step."""
    build = getattr(Row.of(method, name), side)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = build()
        step()
        step()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return (
        max(event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]") / 2**20
    )


def new_process() -> ProcessPoolExecutor:
    """A process that has computed nothing: what an earlier measurement left alive would be counted with the next."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


@cache
def training(method: str, name: str, side: str) -> tuple[Callable[[], object], ExitStack]:
    """One side's step in this process, which from now on manages memory as that side's loop does."""
    kept = ExitStack()
    if side in KEPT:
        kept.enter_context(freed_memory_kept(torch.device("cpu")))
    return getattr(Row.of(method, name), side)(), kept


def timed(method: str, name: str, side: str, steps: int) -> float:
    """Seconds of the last of some steps of the training that goes on in this process."""
    step, _ = training(method, name, side)
    return [seconds(step) for _ in range(steps)][-1]


def in_processes(method: str, name: str) -> dict[str, list[float]]:
    """Seconds a step of each side in each round."""
    with ExitStack() as living:
        pools = {side: living.enter_context(new_process()) for side in SIDES}

        def turn(side: str, number: int) -> float:
            steps = SETTLING if number < 0 else 1
            return pools[side].submit(timed, method, name, side, steps).result()

        return in_turn({side: partial(turn, side) for side in SIDES}, ROUNDS)


def counted(method: str, name: str, side: str) -> float:
    """`peak` in a new process."""
    with new_process() as pool:
        return pool.submit(peak, method, name, side).result()


def compared(method: str, name: str) -> tuple[bool, float]:
    """Print one method's time and memory; whether both are no worse, and how many times faster ours is."""
    memory = {side: counted(method, name, side) for side in SIDES}
    found = in_processes(method, name)
    target = Target("lightly", "ours", EACH, at_least=True)
    good = report(Row.of(method, name).title(), "s a step", found, [target])
    held = memory["lightly"] / memory["ours"]
    told = ", ".join(f"{side} {each:.0f} MiB" for side, each in memory.items())
    times = statistics.median(
        theirs / ours for ours, theirs in zip(found["ours"], found["lightly"], strict=True)
    )
    return claim(
        f"{method}, peak memory: {told}: lightly / ours {held:.3f} ≥ {EACH:g}", held >= EACH
    ) and good, times


def run(data: str, recipe: str = "imagenet") -> bool:
    del data  # noise does
    found = [compared(method, recipe) for method in ("mae", "dino", "simclr", "byol")]
    median = statistics.median([times for _, times in found])
    told = ", ".join(f"{times:.2f}" for _, times in found)
    good = claim(
        f"times faster than lightly's parts: {told}; median {median:.3f} ≥ {MEDIAN:g}", median >= MEDIAN
    )
    return good and all(each for each, _ in found)
