"""A run that is killed again and again, or meets a full disk, ends in the weights of one that was left alone."""

from __future__ import annotations

import dataclasses
import multiprocessing
import random
import resource
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from runs import assert_same_weights, kill_after, rows, saved

from zoo.training.checkpoint import Checkpoint
from zoo.training.disk import DiskFull, told_when_full
from zoo.training.engine import run
from zoo.training.progress import State
from zoo.training.recipe import Recipe

STEPS, KILLS = 30, 5


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zoo.training.engine", "zoo.training.methods.dino"])
    return context


@pytest.fixture(scope="module")
def recipe(tiny: Callable[..., Recipe]) -> Recipe:
    """30 steps with a teacher, a centre and drop path. Not every step is saved, so that some are made anew."""
    return tiny(
        "dino/smoke", schedule={"epochs": 10}, arch={"drop_path": 0.2}, run={"checkpoint_minutes": 0.05 / 60}
    )


@pytest.fixture(scope="module")
def whole(recipe: Recipe, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody disturbed. Not to be written to."""
    return run(recipe, photos, tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.timeout(300)
def test_killed_five_times_it_ends_in_the_same_weights(
    recipe: Recipe, whole: Path, server: ForkServerContext, photos: Path, tmp_path: Path
) -> None:
    out, draw, step = tmp_path / "run", random.Random(0), 0
    for kills_left in range(KILLS, 0, -1):
        step = kill_after(server, recipe, photos, out, draw.randint(step + 1, STEPS - 4 * kills_left))
    run(recipe, photos, out)
    assert_same_weights(out, whole)
    assert [(row["step"], row["loss"]) for row in rows(out)] == [
        (row["step"], row["loss"]) for row in rows(whole)
    ]
    assert not list(out.glob(".*"))  # nothing half written is left


def starved(recipe: Recipe, photos: Path, out: Path, checkpoints: int) -> None:
    """A run that may write no large file any more once it has some checkpoints; what it says goes to a file."""

    def save(checkpoint: Checkpoint, state: State) -> None:
        if state.step > checkpoints:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        plain(checkpoint, state)

    plain, Checkpoint.save = Checkpoint.save, save  # type: ignore[method-assign]
    with pytest.raises(DiskFull) as caught:
        run(recipe, photos, out)
    (out / "said").write_text(str(caught.value))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checkpoints", [0, 2])
def test_a_full_disk_leaves_the_checkpoint(
    checkpoints: int, recipe: Recipe, server: ForkServerContext, photos: Path, tmp_path: Path
) -> None:
    """The system refuses to write a file as large as the next checkpoint: no pretence, and no need to be root."""
    out = tmp_path / "run"
    always = dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, checkpoint_minutes=0.0))
    process = server.Process(target=starved, args=(always, photos, out, checkpoints))
    process.start()
    process.join(200)
    assert process.exitcode == 0
    assert not list(out.glob(".*")) and not (out / "model.safetensors").exists()
    says = (out / "said").read_text()
    assert f"{out} cannot be written to (File too large; " in says and " MB are free" in says
    if checkpoints:
        assert saved(out)["step"] == checkpoints
        assert f"The checkpoint of step {checkpoints} is intact; make room, and the same command" in says
    else:
        assert "There is no checkpoint yet; make room and start the same command again" in says


def test_other_errors_pass(tmp_path: Path) -> None:
    for error in (OSError(13, "no"), RuntimeError("no"), KeyError("no")):
        with pytest.raises(type(error)), told_when_full(tmp_path):
            raise error
    with pytest.raises(DiskFull, match="No space left on device"), told_when_full(tmp_path):
        try:
            raise OSError(28, "no")
        finally:
            raise RuntimeError("a library that tells nothing")


def test_a_folder_that_could_not_be_made_is_told(tmp_path: Path) -> None:
    told = r"runs/new cannot be written to \(Disk quota exceeded; [\d.]+ MB are free\)"
    with pytest.raises(DiskFull, match=told), told_when_full(tmp_path / "runs" / "new"):
        raise OSError(122, "no")


def test_the_checkpoint_holds_all_it_takes(whole: Path) -> None:
    assert set(saved(whole)) == {
        "method",
        "optimizer",
        "scaler",
        "sentry",
        "precision",
        "step",
        "seconds",
        "skipped",
    }
