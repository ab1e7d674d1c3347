"""Every method's smoke recipe for 200 steps, and again at a thousand times its learning rate, on real photos.

The sentry must leave the first run alone and stop the second, whose diagnosis is printed. BYOL and VICReg, whose batch
norms and loss do not let features collapse, and masked-image models, whose loss has nothing to do with how alike
features are, may survive a rate that ruins them: for these the line only says what happened. One thread.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from measure import DATA, claim

import zoo.training
from zoo.training.methods import method_names, recipe
from zoo.training.recipe import Recipe
from zoo.training.sentry import Collapsed, Diverged

STEPS, TIMES = 200, 1000
PROMISED = ("dino", "mae", "simclr", "supervised")


def run(data: str) -> bool:
    if not data:
        raise SystemExit(DATA)
    with tempfile.TemporaryDirectory() as scratch:
        held = [_judged(name, data, Path(scratch)) for name in method_names()]
    return all(held)


def _judged(name: str, data: str, scratch: Path) -> bool:
    calm = _stopped(_turned(name, 1), data, scratch / f"{name}-1")
    wild = _stopped(_turned(name, TIMES), data, scratch / f"{name}-{TIMES}")
    left = claim(f"{name}: {STEPS} steps at its own rate are left alone{calm and f', but: {calm}'}", not calm)
    told = f"{name}, rate × {TIMES}: {wild or 'not stopped'}"
    if name in PROMISED:
        right = ("the encoder has collapsed" in wild or "rests at chance" in wild) and "--optim.lr" in wild
        return claim(told, right) and left
    print(f"      {told}")
    return left


def _turned(name: str, times: float) -> Recipe:
    """The smoke recipe for so many steps at so many times its rate."""
    given = recipe(f"{name}/smoke")
    return dataclasses.replace(
        given,
        optim=dataclasses.replace(given.optim, lr=times * given.optim.lr),
        schedule=dataclasses.replace(given.schedule, steps=STEPS),
        run=dataclasses.replace(given.run, threads=1),
    )


def _stopped(given: Recipe, data: str, out: Path) -> str:
    """What the sentry said; nothing where it let the run finish."""
    try:
        zoo.training.run(given, data, out, scores=False)
    except (Collapsed, Diverged) as error:
        return str(error)
    return ""
