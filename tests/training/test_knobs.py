"""Knobs of the command line turn a recipe's fields, and wrong ones say what to type."""

from __future__ import annotations

import re

import pytest

from zoo.cli import main
from zoo.errors import RecipeError
from zoo.training.knobs import knob_types, with_knobs
from zoo.training.methods import recipe


def test_no_knobs_leave_the_recipe() -> None:
    assert with_knobs(recipe("mae/smoke"), []) == recipe("mae/smoke")


def test_knobs_of_every_section() -> None:
    words = (
        "--optim.lr 1e-3 --method.local-crops=3 --method.clip None --run.compile True --optim.betas 0.9 0.99"
    )
    turned = with_knobs(recipe("dino/smoke"), [*words.split(), "--arch.size", "96"])
    assert turned.optim.lr == 1e-3 and turned.optim.betas == (0.9, 0.99)
    assert turned.method.local_crops == 3 and turned.method.clip is None  # type: ignore[attr-defined]
    assert turned.run.compile is True and turned.arch.size == 96
    assert turned.schedule == recipe("dino/smoke").schedule


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--optim.rl", "1"], r"no knob --optim.rl; did you mean 'optim.lr'\? there are --optim.batch"),
        (["--optim.lr", "much"], r"--optim.lr cannot be 'much'; its type is float, and it is 0.002 now"),
        (["--optim.batch"], r"--optim.batch cannot be 'nothing'"),
        (["--run.precision", "fp17"], r"--run.precision cannot be 'fp17'.*'fp16'"),
        (["--nothing.here", "1"], r"no knob --nothing.here.*--method.…"),
    ],
)
def test_a_wrong_knob_says_what_to_type(words: list[str], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        with_knobs(recipe("dino/smoke"), words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "--optim.momentum 0.8",
            r"^--optim.momentum does nothing here: AdamW's are --optim.betas; leave it out$",
        ),
        (
            "--optim.kind sgd --optim.betas 0.9 0.99",
            r"--optim.betas does nothing here: --optim.kind sgd has no betas",
        ),
        ("--optim.betas 0.9 0.99 --optim.kind lars", r"--optim.kind lars has no betas"),
        (
            "--schedule.steps 9 --schedule.least_steps 5",
            r"least_steps does nothing here: --schedule.steps gives",
        ),
        (
            "--schedule.epochs 9 --schedule.steps 5",
            r"--schedule.epochs does nothing here: --schedule.steps gives",
        ),
        (
            "--run.minutes 9 --schedule.epochs 5",
            r"--schedule.epochs does nothing here: --run.minutes chooses",
        ),
    ],
)
def test_a_knob_that_does_nothing_is_refused(words: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        with_knobs(recipe("dino/smoke"), words.split())


def test_a_knob_is_read_where_another_makes_it_so() -> None:
    words = ["--optim.momentum", "0.8", "--optim.kind", "sgd", "--schedule.steps", "9"]
    words += ["--schedule.least_steps", "None"]  # asks for nothing
    turned = with_knobs(recipe("dino/smoke"), words)
    assert (turned.optim.momentum, turned.schedule.steps) == (0.8, 9)


def test_every_field_is_a_knob() -> None:
    known = knob_types(recipe("mae/smoke"))
    assert {"method.ratio", "arch.name", "data.size", "optim.lr", "schedule.epochs", "run.seed"} <= set(known)


def test_a_recipes_knobs_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "dino/smoke", "--knobs"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("ViT-Tiny/16, 2×64 and 2×32 px")
    for knob in knob_types(recipe("dino/smoke")):
        assert f"--{knob} " in told
    assert re.search(r"--optim\.lr +0\.002 +float", told)


def test_training_asks_for_images_and_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "dino/smoke"]) == 2
    assert "needs DATA" in capsys.readouterr().err
    assert main(["train", "dino/smoke", "photos"]) == 2
    assert "needs --out FOLDER" in capsys.readouterr().err
