"""The loop: real runs on real files, stopped, continued, refused; and one step of it looked at closely."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import multiprocessing
import os
import re
import shlex
import shutil
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from runs import assert_same_weights, kill_after, rows, saved, tensors
from torch import Tensor, nn

import zoo
from zoo.cards import read_card, write_card
from zoo.cli import main
from zoo.errors import DataError, RecipeError, WeightsError
from zoo.positions import sincos_positions
from zoo.sources import open_source
from zoo.training import precision as precision_here
from zoo.training.data import Batch, CutViews
from zoo.training.engine import State, loop, run, set_rates, train_step
from zoo.training.methods import Method, Step, Views
from zoo.training.progress import duration
from zoo.training.recipe import Optim, Recipe
from zoo.training.sentry import Diverged

Tiny = Callable[..., Recipe]
EPOCHS, TOTAL = 8, 24  # 12 photos in batches of 4
METHODS = ("mae", "dino")


def small(tiny: Tiny, file: str, **knobs: dict[str, Any]) -> Recipe:
    """A run of 24 steps that saves after each, with drop path, whose randomness a resumed run must repeat."""
    knobs = {"schedule": {"epochs": EPOCHS}, "arch": {"drop_path": 0.2}, **knobs}
    return tiny(f"{file}/smoke", **knobs | {"run": {"checkpoint_minutes": 0.0, **knobs.get("run", {})}})


def unfinished(folder: Path) -> Path:
    """The folder as a kill before the last moment leaves it."""
    claim = json.loads((folder / "recipe.json").read_text())
    assert claim.pop("finished") is True
    (folder / "recipe.json").write_text(json.dumps(claim))
    return folder


@pytest.fixture(scope="module")
def finished(tiny: Tiny, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an uninterrupted run of a method, made once. Not to be written to."""
    done: dict[str, Path] = {}

    def folder(method: str) -> Path:
        if method not in done:
            out = tmp_path_factory.mktemp("finished") / method
            done[method] = run(small(tiny, method), photos, out)
        return done[method]

    return folder


# A run and its folder


@pytest.mark.parametrize("method", METHODS)
def test_a_run_ends_in_a_folder_the_zoo_loads(
    method: str, finished: Callable[[str], Path], photos: Path
) -> None:
    folder = finished(method)
    encoder = zoo.load(folder, device="cpu")
    features = encoder(photos / "val" / "cat" / "00.jpg")
    assert features.pooled.shape == (1, 64)
    assert features.grid == (2, 2)
    prefix = {"mae": "backbone.", "dino": "teacher."}[method]
    trained = {k.removeprefix(prefix): t for k, t in saved(folder)["method"].items() if k.startswith(prefix)}
    stored = encoder.module.state_dict()
    assert stored.keys() == trained.keys()
    assert all(torch.equal(stored[name], trained[name].half().float()) for name in stored)
    if method == "mae":
        picture = encoder.reconstruct(photos / "val" / "dog" / "00.jpg")
        assert picture.predicted.shape == (1, 3, 32, 32)


def test_the_log_tells_every_step(finished: Callable[[str], Path], tiny: Tiny) -> None:
    log = rows(finished("dino"))
    assert [row["step"] for row in log] == list(range(1, TOTAL + 1))
    assert {"loss", "lr", "images_per_second", "seconds", "teacher_entropy", "teacher_temperature"} <= set(
        log[0]
    )
    assert all(math.isfinite(row["loss"]) for row in log)
    assert [row["seconds"] for row in log] == sorted(row["seconds"] for row in log)
    peak = small(tiny, "dino").optim.lr * 4 / 256
    assert log[0]["lr"] == 0
    assert max(row["lr"] for row in log) == pytest.approx(peak, rel=0.02)
    assert log[-1]["lr"] < 0.05 * peak


def test_mae_keeps_its_fixed_positions(finished: Callable[[str], Path]) -> None:
    positions = saved(finished("mae"))["method"]["backbone.pos_embed"]
    assert torch.equal(positions[0, 1:], sincos_positions((2, 2), 64))


def test_workers_change_nothing(
    finished: Callable[[str], Path], tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    folder = run(small(tiny, "mae", data={"workers": 2, "cache": False}), photos, tmp_path / "run")
    assert_same_weights(folder, finished("mae"))


def test_seeds_change_everything(
    finished: Callable[[str], Path], tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    folder = run(small(tiny, "mae", run={"seed": 1}), photos, tmp_path / "run")
    ours, theirs = saved(folder)["method"], saved(finished("mae"))["method"]
    assert not torch.equal(ours["pixels.embed.weight"], theirs["pixels.embed.weight"])


def test_one_program_may_run_in_several_precisions(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(precision_here, "has_bf16", lambda: True)  # be it imitated
    for precision in ("no", "bf16", "no"):
        recipe = tiny("mae/smoke", run={"precision": precision})
        folder = run(recipe, photos, tmp_path / precision)
        assert all(tensor.dtype == torch.float32 for _, tensor in tensors(saved(folder)["method"]))
    losses = [rows(tmp_path / precision)[0]["loss"] for precision in ("no", "bf16")]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


# Stopped and continued


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """Processes of their own that need not import everything anew."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["zoo.training.engine", "zoo.training.methods.dino", "zoo.training.methods.mae"]
    )
    return context


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_continues_to_the_same_weights(
    method: str, finished: Callable[[str], Path], server: ForkServerContext, tiny: Tiny, photos: Path,
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    recipe, out = small(tiny, method), tmp_path / "run"
    step = kill_after(server, recipe, photos, out, 7)
    assert 6 <= step < TOTAL
    assert not (out / "model.safetensors").exists()
    with (out / "log.jsonl").open("a") as file:
        file.write(f'{{"step": {step + 1}, "lo')  # killed in the middle of a line
    with caplog.at_level(logging.WARNING):
        assert run(recipe, photos, out) == out
    assert f"continuing {out} from step {step} of {TOTAL}" in caplog.text
    assert_same_weights(out, finished(method))
    ours, theirs = rows(out), rows(finished(method))
    assert [(row["step"], row["loss"]) for row in ours] == [(row["step"], row["loss"]) for row in theirs]
    assert ours[-1]["seconds"] > ours[step - 1]["seconds"] > 0  # time adds up over both starts
    mine, other = saved(out)["sentry"], saved(finished(method))["sentry"]
    assert mine["rows"] == other["rows"] and len(other["rows"]) == TOTAL  # judged by all that it was, too


def test_a_checkpoint_of_before_the_sentry_was_kept_still_continues(
    finished: Callable[[str], Path], tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    folder = unfinished(shutil.copytree(finished("mae"), tmp_path / "run"))
    content = saved(folder)
    del content["sentry"]
    torch.save(content, folder / "checkpoint.pt")
    run(small(tiny, "mae"), photos, folder)
    assert (folder / "model.safetensors").read_bytes() == (finished("mae") / "model.safetensors").read_bytes()


def test_a_finished_run_has_nothing_left_to_do(
    finished: Callable[[str], Path], tiny: Tiny, photos: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder = shutil.copytree(finished("mae"), tmp_path / "run")
    card = (folder / "README.md").read_text() + "\nOur own words.\n"
    (folder / "README.md").write_text(card)
    with caplog.at_level(logging.WARNING):
        run(small(tiny, "mae"), photos, folder)
    assert f"{folder} is finished already" in caplog.text and "continuing" not in caplog.text
    assert_same_weights(folder, finished("mae"))
    assert rows(folder) == rows(finished("mae"))
    assert (folder / "README.md").read_text() == card


def test_a_run_stopped_before_it_was_measured_is_measured_yet(
    finished: Callable[[str], Path], tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    folder = unfinished(shutil.copytree(finished("mae"), tmp_path / "run"))
    write_card(dataclasses.replace(read_card(folder), results=()), folder)
    run(small(tiny, "mae"), photos, folder)
    ours, theirs = (
        [(result.task, result.metric, result.value) for result in read_card(each).results]
        for each in (folder, finished("mae"))
    )
    assert ours == theirs != []
    assert_same_weights(folder, finished("mae"))


def test_the_cards_command_measures_the_same_again(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    recipe = tiny("mae/smoke", run={"seed": 3}, data={"limit": 10})
    folder = run(recipe, photos / "train", tmp_path / "my run", test=photos / "val")
    results = read_card(folder).results
    keys = {
        "top-1": "top1",
        "error on hidden pixels": "error",
        "error of the mean colour": "mean_fill",
        "error of a smooth fill": "smooth_fill",
        "error over the mean colour's": "ratio",
    }
    assert {result.metric for result in results} == set(keys)
    for result in results:
        words = shlex.split(result.command)
        assert words[:4] == ["zoo", "evaluate", str(folder), str(photos / "train")]
        scores = tmp_path / "scores.json"
        assert main([*words[1:], "--json", str(scores), "--device", "cpu"]) == 0
        (score,) = json.loads(scores.read_text())
        rounded = 2 if result.metric == "top-1" else 4
        assert result.value == pytest.approx(score[keys[result.metric]], abs=0.6 * 10**-rounded)


def test_knobs_that_compute_the_same_may_change(
    finished: Callable[[str], Path], tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished("mae"), tmp_path / "run")
    free = {"log_every": 5, "checkpoint_minutes": 9.0, "threads": 0, "licence": "mit"}
    assert run(small(tiny, "mae", run=free, data={"workers": 1}), photos, folder) == folder


@pytest.mark.parametrize(
    ("method", "knobs", "says"),
    [
        ("mae", {"optim": {"lr": 0.5}}, r"optim\.lr was 0\.002, now 0\.5"),
        ("mae", {"schedule": {"epochs": 9}}, r"schedule\.epochs was 8, now 9"),
        ("mae", {"method": {"ratio": 0.5}}, r"method\.ratio was 0\.75, now 0\.5"),
        ("mae", {"run": {"seed": 3}}, r"run\.seed was 0, now 3"),
        ("dino", {}, r"method_file was mae, now dino"),
    ],
)
def test_a_folder_keeps_its_recipe(
    method: str, knobs: dict[str, Any], says: str, finished: Callable[[str], Path], tiny: Tiny, photos: Path
) -> None:
    folder = finished("mae")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(RecipeError, match=says) as caught:
        run(small(tiny, method, **knobs), photos, folder)
    assert "Give another --out" in str(caught.value)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_folder_keeps_its_images_and_its_beginning(
    finished: Callable[[str], Path], tiny: Tiny, photos: Path
) -> None:
    folder, recipe = finished("mae"), small(tiny, "mae")
    with pytest.raises(RecipeError, match=f"images was {photos}, now {photos / 'val'}"):
        run(recipe, photos / "val", folder)
    with pytest.raises(RecipeError, match="init was None, now dino_vits16"):
        run(recipe, photos, folder, init="dino_vits16")


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "test", "none"])
def test_a_run_goes_on_with_its_own_images_alone(
    change: str, finished: Callable[[str], Path], tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """Order, split and the length of an epoch follow from which images there are."""
    data = shutil.copytree(photos, tmp_path / "photos")
    folder = unfinished(shutil.copytree(finished("mae"), tmp_path / "run"))
    claim = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps(claim | {"images": str(data)}))
    one, test = data / "train" / "cat" / "03.jpg", None
    if change == "added":
        shutil.copy(one, one.with_stem("extra"))
    elif change == "removed":
        one.unlink()
    elif change == "renamed":
        one.rename(one.with_stem("zz"))
    elif change == "test":
        test = photos / "val"
    says = {
        "added": r"trained_on was 12 images \(of ids \w+\), now 13 images",
        "removed": r"trained_on was 12 images \(of ids \w+\), now 11 images",
        "renamed": r"trained_on was 12 images \(of ids \w+\), now 12 images",
        "test": f"test was None, now {photos / 'val'}",
    }
    if change == "none":
        assert run(small(tiny, "mae"), data, folder) == folder
        return
    with pytest.raises(RecipeError, match=f"other images \\({says[change]}"):
        run(small(tiny, "mae"), data, folder, test=test)


def test_a_knob_that_came_after_the_run_does_not_stop_it(
    finished: Callable[[str], Path], tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished("mae"), tmp_path / "run")
    recipe = json.loads((folder / "recipe.json").read_text())
    del recipe["optim"]["weight_decay_end"], recipe["images"], recipe["trained_on"], recipe["test"]
    (folder / "recipe.json").write_text(json.dumps(recipe))
    assert run(small(tiny, "mae"), photos, folder) == folder


class Code:
    """Unpickled by a careless reader, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "code", "other", "tensor"])
def test_a_damaged_checkpoint_is_refused(
    damage: str, finished: Callable[[str], Path], tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    folder = unfinished(shutil.copytree(finished("mae"), tmp_path / "run"))
    path, trap = folder / "checkpoint.pt", tmp_path / "executed"
    content = saved(folder)
    if damage in ("cut", "empty", "text"):
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"<html>\n"}[damage])
    else:
        content["method"].pop("pixels.embed.weight")
        torch.save({"code": Code(trap), "other": content, "tensor": torch.zeros(3)}[damage], path)
    with pytest.raises(WeightsError, match="Remove it to start from the beginning") as caught:
        run(small(tiny, "mae"), photos, folder)
    assert str(path) in str(caught.value)
    assert not trap.exists()


# Refused or given up


@pytest.mark.parametrize("method", ["mae", "beit"])  # BEiT's tokenizer is refused first
def test_a_refused_run_removes_nothing_but_its_own(
    tiny: Tiny, photos: Path, tmp_path: Path, method: str
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for folder, left in ((tmp_path, ["empty", "notes.txt"]), (tmp_path / "empty", [])):
        with pytest.raises(DataError, match="fewer than a batch"):
            run(tiny(f"{method}/smoke", optim={"batch": 16}), photos, folder)
        assert sorted(each.name for each in folder.iterdir()) == left


def test_too_few_images_say_which_batch_fits(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"12 usable images, fewer than a batch of 16: type --optim\.batch 6"):
        run(tiny("mae/smoke", optim={"batch": 16}), photos, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # What it asks to type works, into the same folder.
    assert run(tiny("mae/smoke", optim={"batch": 6}), photos, tmp_path / "run") == tmp_path / "run"


def test_missing_images_leave_the_folder_free(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or folder"):
        run(tiny("mae/smoke"), tmp_path / "nowhere", tmp_path / "run")
    assert run(tiny("mae/smoke"), photos, tmp_path / "run") == tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "knobs", "says"),
    [
        ("mae/smoke", {"arch": {"size": 40}}, "--arch.size is 40, not a multiple of the 16-pixel patch"),
        ("mae/smoke", {"data": {"size": 40}}, "--data.size is 40, .*; give 32"),
        ("dino/smoke", {"data": {"size": 36}}, "--data.size is 36, .*; give 32"),
        ("dino/smoke", {"method": {"local_size": 4}}, "--method.local_size is 4, .*; give 16"),
        ("mae/smoke", {"method": {"decoder_heads": 5}}, "--method.decoder_heads 5; give 20"),
        ("mae/smoke", {"method": {"ratio": 1.5}}, "--method.ratio is 1.5; give a share"),
        ("mae/smoke", {"arch": {"name": "vit_tny_patch16_224"}}, "did you mean 'vit_tiny_patch16_224'"),
        ("mae/smoke", {"optim": {"batch": 0}}, "--optim.batch is 0"),
        ("mae/smoke", {"optim": {"betas": (0.9, 1.0)}}, r"--optim.betas \(2\) is 1.0"),
        ("mae/smoke", {"arch": {"drop_path": 1.5}}, "--arch.drop_path is 1.5"),
        ("mae/smoke", {"arch": {"crop_pct": 0.0}}, "--arch.crop_pct is 0.0"),
        ("mae/smoke", {"method": {"decoder_heads": 0}}, "--method.decoder_heads is 0; give 1 or more"),
        ("mae/smoke", {"method": {"min_scale": 0.0}}, "--method.min_scale is 0.0"),
        ("dino/smoke", {"method": {"local_scale": (0.4, 0.1)}}, "--method.local_scale is 0.4 0.1"),
        ("mae/smoke", {"method": {"ratio": 0.0}}, "--method.ratio is 0.0; give a share"),
        (
            "mae/smoke",
            {"method": {"ratio": 0.99}},
            "no visible patch.*--data.size is 32, --method.ratio 0.99",
        ),
        ("mae/smoke", {"optim": {"weight_decay": -1.0}}, "--optim.weight_decay is -1.0; give 0 or more"),
        ("mae/smoke", {"optim": {"weight_decay_end": -1.0}}, "--optim.weight_decay_end is -1.0"),
        ("mae/smoke", {"schedule": {"final_lr": -1.0}}, "--schedule.final_lr is -1.0"),
        ("mae/smoke", {"run": {"checkpoint_minutes": -1.0}}, "--run.checkpoint_minutes is -1.0"),
        ("dino/smoke", {"method": {"teacher_temperature": 0.0}}, "--method.teacher_temperature is 0.0"),
        ("dino/smoke", {"method": {"clip": 0.0}}, "--method.clip is 0.0; give a number above 0, or None"),
        ("dino/smoke", {"method": {"momentum": 1.5}}, "--method.momentum is 1.5; give a number in"),
        ("dino/smoke", {"method": {"prototypes": 1}}, "--method.prototypes is 1; give 2 or more"),
        ("dino/smoke", {"method": {"local_crops": -1}}, "--method.local_crops is -1; give 0 or more"),
    ],
)
def test_a_knob_that_cannot_work_is_one_message(
    name: str, knobs: dict[str, Any], says: str, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(zoo.ZooError, match=says):
        run(tiny(name, **knobs), photos, tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    recipe = tiny(
        "mae/smoke", optim={"lr": 1e30}, schedule={"epochs": 3, "warmup_epochs": 0.0}, run={"log_every": 2}
    )
    with pytest.raises(
        Diverged, match=r"at step \d of 9: the loss is (nan|inf), no number. .* --optim\.lr"
    ) as caught:
        run(recipe, photos, tmp_path / "run")
    assert "new --out folder" in str(caught.value)
    assert not (tmp_path / "run" / "model.safetensors").exists()


class Poisoned(Method):
    """Its loss stays a number, and the gradient of one step is none."""

    def __init__(self, bad: int) -> None:
        super().__init__()
        self.weight, self.bad = nn.Parameter(torch.ones(3)), bad
        self.register_buffer("running_mean", torch.tensor(math.inf))  # which no step reads

    def views(self) -> Views:
        return lambda image, generator: [image.float()[:, :8, :8] / 255]

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        return (self.weight * views[0].mean((2, 3))).square().mean(), {}

    def before_step(self, step: Step) -> None:
        assert self.weight.grad is not None
        if step.index >= self.bad:
            self.weight.grad += math.nan

    def encoder(self) -> nn.Module:
        return self


@pytest.mark.parametrize(("bad", "saves"), [(6, "weight holds NaN or infinity"), (4, "the loss is nan")])
def test_weights_that_are_no_numbers_never_replace_the_checkpoint(
    bad: int, saves: str, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    """The loss of the step that spoils them is from before: the last step's tells nothing."""
    recipe = tiny("mae/smoke", schedule={"steps": 7}, run={"checkpoint_minutes": 0.0, "log_every": 1})
    method = Poisoned(bad)
    dataset = CutViews(open_source(photos, "train"), method.views(), 0, recipe.data.side, True)
    (tmp_path / "run").mkdir()
    with pytest.raises(Diverged, match=f"at step {min(bad + 2, 7)} of 7: {saves}, no number"):
        loop(Accelerator(cpu=True), method, dataset, recipe, tmp_path / "run", State())
    assert saved(tmp_path / "run")["step"] == bad
    assert saved(tmp_path / "run")["method"]["weight"].isfinite().all()


@pytest.mark.parametrize(("cache", "workers"), [(True, 0), (False, 0), (False, 1)])
def test_a_damaged_photo_is_skipped_and_counted(
    cache: bool, workers: int, tiny: Tiny, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = shutil.copytree(photos, tmp_path / "photos")
    broken = data / "train" / "dog" / "03.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    recipe = tiny("mae/smoke", data={"cache": cache, "workers": workers}, schedule={"epochs": 2})
    method = recipe.method.build(recipe)
    (tmp_path / "run").mkdir()
    with caplog.at_level(logging.WARNING):
        dataset = CutViews(open_source(data, "train"), method.views(), 0, recipe.data.side, cache)
        state = State(skipped=sorted(dataset.skipped))
        loop(Accelerator(cpu=True), method, dataset, recipe, tmp_path / "run", state)
    assert state.skipped == ["train/dog/03.jpg"]
    assert state.step == 2 * (12 // 4)
    assert workers or "train/dog/03.jpg" in caplog.text


@pytest.mark.parametrize("cache", [True, False])
def test_what_was_skipped_is_told_in_the_end_and_on_the_card(
    cache: bool, tiny: Tiny, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = shutil.copytree(photos, tmp_path / "photos")
    for name in ("cat/05.jpg", "dog/03.jpg"):
        (data / "train" / name).write_bytes(b"no photo")
    recipe = tiny("mae/smoke", data={"cache": cache}, schedule={"epochs": 2})
    with caplog.at_level(logging.WARNING):
        folder = run(recipe, data, tmp_path / "run", scores=False)
    says = r"2 images could not be read and were skipped, the first train/(cat/05|dog/03)\.jpg\."
    assert re.search(says, read_card(folder).body) and re.search(f"WARNING.*{says}", caplog.text)
    assert sorted(saved(folder)["skipped"]) == ["train/cat/05.jpg", "train/dog/03.jpg"]
    # A later start that meets none of them still knows.
    for part in ("model.safetensors", "README.md"):
        (folder / part).unlink()
    run(recipe, data, unfinished(folder), scores=False)
    assert re.search(says, read_card(folder).body)


def test_begins_with_a_model_of_the_zoo(
    finished: Callable[[str], Path], tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    still = {"lr": 1e-12, "weight_decay": 0.0, "weight_decay_end": None}
    folder = run(tiny("dino/smoke", optim=still), photos, tmp_path / "run", init=finished("mae"))
    encoder = zoo.load(folder, device="cpu").module
    beginning = zoo.load(finished("mae"), device="cpu").module.state_dict()
    for name, tensor in encoder.state_dict().items():
        assert torch.allclose(tensor, beginning[name], atol=1e-6), name


# One step


class Toy(Method):
    """Scales a picture to be 1 everywhere, and notes what the loop calls."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([[2.0]]))
        self.calls: list[str] = []

    def views(self) -> Views:
        return lambda image, generator: [image]

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        self.calls.append(f"forward {step.index} {noise.tolist()}")
        return (self.scale * views[0] - 1).square().mean(), {"draw": float(torch.rand(()))}

    def before_step(self, step: Step) -> None:
        assert self.scale.grad is not None
        self.calls.append(f"before {step.index} {self.scale.grad.item():g} {self.scale.item():g}")

    def after_step(self, step: Step) -> None:
        assert self.scale.grad is None
        self.calls.append(f"after {step.index} {self.scale.item():g}")

    def encoder(self) -> nn.Module:
        return self


def test_a_step_is_forward_backward_hook_update_hook() -> None:
    toy = Toy()
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.25)
    batch = Batch([torch.ones(2, 3, 4, 4)], torch.tensor([8, 9]), [])
    loss, _ = train_step(Accelerator(cpu=True), toy, toy, optimizer, batch, Step(5, 10, 2), seed=0)
    # Loss (2 - 1)^2, gradient 2 * (2 - 1), update 2 - 0.25 * 2.
    assert toy.calls == ["forward 5 [8, 9]", "before 5 2 2", "after 5 1.5"]
    assert float(loss) == 1
    assert not loss.requires_grad


def test_a_step_draws_by_its_seed_and_index_alone() -> None:
    toy, batch = Toy(), Batch([torch.ones(1, 3, 2, 2)], torch.tensor([1]), [])

    def draw(seed: int, index: int) -> float | Tensor:
        optimizer = torch.optim.SGD(toy.parameters(), lr=0.0)
        return train_step(Accelerator(cpu=True), toy, toy, optimizer, batch, Step(index, 9, 3), seed)[1][
            "draw"
        ]

    first = draw(0, 4)
    torch.rand(7)
    assert draw(0, 4) == first
    assert len({first, draw(0, 5), draw(1, 4)}) == 3


def optimizer_of(*groups: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))], **group} for group in groups])


@pytest.mark.parametrize(
    ("index", "rate", "decay"),
    [
        (0, 0.0, 0.04),
        (5, 0.25, 0.04 + 0.36 * (1 - math.cos(0.05 * math.pi)) / 2),
        (10, 0.5, 0.04 + 0.36 * (1 - math.cos(0.1 * math.pi)) / 2),
        (55, 0.3, 0.04 + 0.36 * (1 - math.cos(0.55 * math.pi)) / 2),
        (50, 0.1 + 0.4 * (1 + math.cos(math.pi * 40 / 90)) / 2, 0.22),
        (100, 0.1, 0.4),
    ],
)
def test_rates_by_hand(index: int, rate: float, decay: float, tiny: Tiny) -> None:
    recipe = tiny(
        "mae/smoke",
        optim={"lr": 1.0, "batch": 128, "weight_decay": 0.04, "weight_decay_end": 0.4},
        schedule={"warmup_epochs": 1.0, "final_lr": 0.1},
    )
    optimizer = optimizer_of({"decays": True}, {"decays": False}, {"decays": True, "lr_scale": 0.5})
    told = set_rates(optimizer, recipe, Step(index, 100, 10))
    assert told == pytest.approx(rate)  # the peak is 1.0 * 128 / 256
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate, rate, rate / 2])
    assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx([decay, 0, decay])


def test_weight_decay_stays_without_an_end(tiny: Tiny) -> None:
    optimizer = optimizer_of({"decays": True})
    recipe = dataclasses.replace(tiny("mae/smoke"), optim=Optim(weight_decay=0.05))
    for index in (0, 30, 100):
        set_rates(optimizer, recipe, Step(index, 100, 10))
        assert optimizer.param_groups[0]["weight_decay"] == 0.05


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (40, "40 s"),
        (100, "2 min"),
        (3570, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (36000, "10 h 00 min"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
