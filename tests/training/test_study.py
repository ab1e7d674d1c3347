"""Studies: a table and a chart that grow with their cells, go on after a kill, and name what lacks."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from zoo.charts import Bar, interval_chart, stacked
from zoo.cli import main
from zoo.cli.training import STUDIES as IN_HELP
from zoo.errors import DataError, RecipeError
from zoo.training import study
from zoo.training.cells import Asked, Cell, Found, over_seeds, told_lines
from zoo.training.claims import check_claim, claim_of, noted, write_claim
from zoo.training.commands import studies_table
from zoo.training.fixed import refuse_knobs
from zoo.training.methods import method_names
from zoo.training.recipe import Recipe
from zoo.training.saved import step_bytes
from zoo.training.sentry import Collapsed
from zoo.training.studies import study_file, study_names
from zoo.training.studies.methods import TOKENIZERS
from zoo.training.study import run_study


class Small:
    """A cell of each method on a 64-wide ViT: a study of the tests' own."""

    def __init__(self, tiny: Callable[..., Recipe], methods: Sequence[str], protocols: Sequence[str]) -> None:
        self.tiny, self.methods, self.protocols = tiny, methods, tuple(protocols)
        self.__doc__ = "Two methods.\n\nTwo is few."

    COLUMNS = (("cell", lambda found: found.cell.name), ("linear", lambda found: found.score("linear")))

    def cells(self, asked: Asked) -> list[Cell]:
        run, schedule = {"seed": asked.seed, "minutes": asked.minutes}, {"steps": 2}
        return [
            Cell(
                f"{name}-{asked.seed}",
                f"{name}/smoke",
                self.tiny(f"{name}/smoke", run=run, schedule=schedule),
                self.protocols,
            )
            for name in self.methods
        ]

    def picture(self, found: Sequence[Found]) -> Image.Image:
        return Image.new("RGB", (8 * len(found), 8))


@pytest.fixture
def two(tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "study_file", lambda name: Small(tiny, ("mae", "byol"), ("knn", "linear")))


@pytest.fixture
def one(tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "study_file", lambda name: Small(tiny, ("mae",), ("knn",)))


def states(table: Path) -> dict[str, str]:
    lines = [line.strip("| ").split(" | ") for line in table.read_text().splitlines() if line.startswith("|")]
    return {line[0]: line[-1] for line in lines[2:]}


def side(picture: Path) -> int:
    with Image.open(picture) as image:
        return image.width


def test_a_killed_study_goes_on_and_says_what_lacks(
    two: None, paints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trained: list[str] = []
    run = study.run

    def dies(recipe: Recipe, data: Any, folder: Path, **other: Any) -> Path:
        trained.append(folder.name)
        if trained == ["mae-0", "byol-0"]:
            raise KeyboardInterrupt
        return run(recipe, data, folder, **other)

    monkeypatch.setattr(study, "run", dies)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_study("two", paints, out, command="zoo study two")
    assert states(out / "table.md") == {"mae-0": "done", "byol-0": "missing"}
    text = (out / "table.md").read_text()
    assert "Runs compute in float32." in text and text.endswith("|\n\nTwo is few.\n")
    assert "`zoo study two`" in text and "1 of 2 cells are there. Missing: byol-0." in text
    assert side(out / "chart.png") == 8
    before = (out / "mae-0" / "scores.json").read_bytes()
    with caplog.at_level(logging.WARNING):
        table = run_study("two", paints, out, command="zoo study two")
    assert trained == ["mae-0", "byol-0", "byol-0"]
    assert states(table) == {"mae-0": "done", "byol-0": "done"} and "Missing" not in table.read_text()
    assert side(out / "chart.png") == 16
    assert before == (out / "mae-0" / "scores.json").read_bytes()
    rows = json.loads((out / "byol-0" / "scores.json").read_text())
    assert [row["protocol"] for row in rows] == ["knn", "linear"] and all(
        row["low"] <= row["top1"] <= row["high"] for row in rows
    )
    assert f"{rows[1]['top1']:.1f} ({rows[1]['low']:.1f}–{rows[1]['high']:.1f})" in table.read_text()
    assert "cell 2 of 2, byol-0" in caplog.text


def test_a_finished_study_is_told_anew_from_its_records(one: None, paints: Path, tmp_path: Path) -> None:
    """Neither images nor weights: what a cell measured, of what, and its log. An unfinished one needs the images."""
    table = run_study("one", paints, tmp_path / "out", command="zoo study one")
    kept = tmp_path / "kept" / "mae-0"
    kept.mkdir(parents=True)
    for name in ("cell.json", "scores.json", "log.jsonl"):
        shutil.copy(tmp_path / "out" / "mae-0" / name, kept)
    gone = paints.rename(tmp_path / "gone")
    try:
        again = run_study("one", paints, tmp_path / "kept", command="zoo study one")
        assert again.read_text() == table.read_text()
        (kept / "scores.json").unlink()
        with pytest.raises(DataError, match="no file or folder"):
            run_study("one", paints, tmp_path / "kept")
    finally:
        gone.rename(paints)


def test_what_the_sentry_stopped_is_told_and_not_run_again(
    two: None, paints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, trained = study.run, []

    def stops(recipe: Recipe, data: Any, folder: Path, **other: Any) -> Path:
        trained.append(folder.name)
        if folder.name.startswith("byol"):
            raise Collapsed("stopped at step 3 of 9: every image gets the same features")
        return run(recipe, data, folder, **other)

    monkeypatch.setattr(study, "run", stops)
    for _ in range(2):
        table = run_study("two", paints, tmp_path / "out")
        assert (
            states(table)["byol-0"] == "stopped: stopped at step 3 of 9: every image gets the same features; "
            "to try again, remove byol-0/ in the folder of this table"
        )
    assert trained == ["mae-0", "byol-0"]


def test_a_tuning_that_breaks_off_is_told_and_the_study_goes_on(
    tiny: Callable[..., Recipe], paints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a learning rate of 1e30 the weights are no numbers after two steps; nothing is pretended."""
    chosen = Small(tiny, ("mae", "byol"), ("finetune", "knn"))
    plain, quick = (
        chosen.cells,
        ("--schedule.epochs", "1", "--schedule.warmup_epochs", "0", "--optim.batch", "24"),
    )

    def cells(asked: Asked) -> list[Cell]:
        first, second = (dataclasses.replace(cell, tuning=quick, baselines=True) for cell in plain(asked))
        return [dataclasses.replace(first, tuning=(*quick, "--optim.lr", "1e30")), second]

    monkeypatch.setattr(chosen, "cells", cells)
    monkeypatch.setattr(study, "study_file", lambda name: chosen)
    for _ in range(2):  # a second call has nothing to do
        table, out = run_study("two", paints, tmp_path / "out"), tmp_path / "out"
        state = states(table)
        assert state["byol-0"] == "done" and "finetune from scratch broke off" in state["mae-0"]
        assert re.match(
            r"done; finetune broke off: stopped at step \d of 3: .* no number\. Lower", state["mae-0"]
        )
        assert {row["protocol"] for row in json.loads((out / "mae-0" / "scores.json").read_text())} == {"knn"}
    tuned = json.loads((out / "byol-0" / "scores.json").read_text())
    assert [row["features"] for row in tuned if row["protocol"] == "finetune"] == ["trained", "from scratch"]


def test_half_a_line_of_a_log_stops_no_study(one: None, paints: Path, tmp_path: Path) -> None:
    table = run_study("one", paints, tmp_path / "out")
    before = table.read_text()
    with (tmp_path / "out" / "mae-0" / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # what a full disk leaves
    table.unlink()
    assert run_study("one", paints, tmp_path / "out").read_text() == before


def test_seeds_and_knobs_reach_every_cell(one: None, paints: Path, tmp_path: Path) -> None:
    table = run_study("one", paints, tmp_path / "out", seeds=[0, 3], knobs=["--data.limit", "30"])
    assert [*states(table)] == ["mae-0", "mae-3"]
    for name, state in states(table).items():
        claim = json.loads((tmp_path / "out" / name / "recipe.json").read_text())
        assert state == "done" and claim["run"]["seed"] == int(name[-1]) and claim["data"]["limit"] == 30
        assert json.loads((tmp_path / "out" / name / "scores.json").read_text())[0]["n_train"] == 30


def test_old_scores_are_not_told_of_another_call(
    one: None, tiny: Callable[..., Recipe], paints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(study, "hardware", lambda: "an abacus")
    run_study("one", paints, out)
    monkeypatch.setattr(study, "hardware", lambda: "a slide rule")
    scores, asked = out / "mae-0" / "scores.json", "Give another --out, or remove .*mae-0 to make it anew"
    before = scores.read_bytes()

    def refused(differs: str, data: Path = paints, **other: Any) -> None:
        with pytest.raises(RecipeError, match=f"another call \\({differs}.*{asked}"):
            run_study("one", data, out, **other)

    refused("data.limit was 512, now 30", knobs=["--data.limit", "30"])
    refused("test was None, now .*val", test=paints / "val")
    refused("images was .*, now .*train", data=paints / "train")
    table = run_study("one", paints, out, knobs=["--data.workers", "1"])  # changes no score
    assert scores.read_bytes() == before
    assert "on an abacus. 1 of 1" in table.read_text() and "slide rule" not in table.read_text()
    with monkeypatch.context() as patched:
        patched.setattr(study, "study_file", lambda name: Small(tiny, ("mae",), ("knn", "linear")))
        refused("protocols was .'knn'., now .'knn', 'linear'.")
    claim = json.loads((out / "mae-0" / "cell.json").read_text())
    (out / "mae-0" / "cell.json").unlink()
    refused("it has no cell.json")
    assert claim["trained_on"].startswith("72 images") and claim["tested_on"].startswith("30 images")
    for key, less in (("trained_on", "71 images"), ("tested_on", "29 images")):
        (out / "mae-0" / "cell.json").write_text(json.dumps(claim | {key: less}))
        refused(f"{key} was {less}, now {claim[key][:9]}")
    older = {key: value for key, value in claim.items() if key not in ("trained_on", "tested_on")}
    (out / "mae-0" / "cell.json").write_text(json.dumps(older))
    assert states(run_study("one", paints, out)) == {"mae-0": "done"}


def test_a_table_tells_what_its_cells_were_computed_in(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    """As it was noted; a cell of before there were notes by its recipe."""
    cells = [Cell(name, "mae/smoke", tiny("mae/smoke", run={"precision": "bf16"})) for name in "abcd"]
    found = [Found(cell, tmp_path / cell.name) for cell in cells]
    assert study._precision(found) == "Runs compute in bf16."
    for name, computed in (("b", ["no"]), ("c", ["bf16"]), ("d", ["bf16", "no"])):
        for precision in computed:
            write_claim(tmp_path / name, {}, "an abacus", precision)
            (tmp_path / name / "checkpoint.pt").touch()
    assert study._precision(found) == "Runs compute in bf16, b in float32, d in bf16 and float32."
    assert study._precision(found[1:2]) == "Runs compute in float32."


@pytest.mark.parametrize("protocols", [("knn",), ()])
def test_a_cell_tells_every_machine_it_was_made_on(
    protocols: tuple[str, ...], tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    cell = Cell("a", "mae/smoke", tiny("mae/smoke"), protocols)
    assert noted(tmp_path, "hardware") == noted(tmp_path, "computed") == []
    for machine, precision in (("an abacus", "no"), ("a slide rule", "bf16"), ("an abacus", "no")):
        write_claim(tmp_path, claim_of(cell, "photos/", None, {}), machine, precision)
        (tmp_path / "checkpoint.pt").touch()
        check_claim(tmp_path, claim_of(cell, "photos/", None, {}))
    assert noted(tmp_path, "hardware") == ["an abacus", "a slide rule"]
    assert noted(tmp_path, "computed") == ["no", "bf16"]


@pytest.mark.parametrize(
    ("name", "knob", "advice"),
    [
        ("batch_size", "optim.accumulate", "leave it out"),
        ("batch_size", "optim.batch", "leave it out"),
        ("augmentations", "method.removed", "leave it out"),
        ("augmentations", "schedule.epochs", "leave it out"),
        ("ummae_masks", "method.strategy", "leave it out"),
        ("ummae_masks", "schedule.steps", "leave it out"),
        ("methods", "arch.name", "leave it out"),
        ("methods", "optim.lr", "leave it out"),
        ("methods", "run.precision", "leave it out"),
        ("methods", "run.minutes", "give --minutes"),
        ("batch_size", "run.seed", "give --seeds"),
    ],
)
def test_what_a_study_sets_is_no_knob(name: str, knob: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf"--{knob} is for `zoo study {name}` itself to set.*; {advice}"):
        run_study(name, tmp_path, tmp_path / "out", knobs=["--run.threads", "1", f"--{knob}=3"])
    refuse_knobs(name, study_file(name).cells(Asked()), ["--run.threads", "1", "--data.limit", "9"])


@pytest.mark.parametrize(
    ("name", "equal"), [("ummae_masks", "steps"), ("batch_size", "epochs"), ("efficiency", "epochs")]
)
def test_minutes_are_refused_where_something_else_is_equal(name: str, equal: str, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=f"`zoo study {name}` compares runs of equal {equal}; leave out --minutes"
    ):
        run_study(name, tmp_path, tmp_path / "out", minutes=2.0)


STUDIES = study_names()


@pytest.mark.parametrize(
    ("name", "minutes"),
    [*((name, None) for name in STUDIES), ("methods", 2.0), ("augmentations", 2.0)],
)
def test_the_cells_of_a_study_can_be_trained(name: str, minutes: float | None) -> None:
    cells = study_file(name).cells(Asked(seed=4, minutes=minutes))
    assert len({cell.name for cell in cells}) == len(cells) > 3
    assert len({cell.recipe.run.precision for cell in cells}) == 1
    for cell in cells:
        cell.recipe.check()
        assert cell.recipe.run.seed == 4 and "/" not in cell.name
        assert cell.recipe.run.minutes == (minutes or (15 if name == "methods" else None))
        with torch.device("meta"):  # shapes without storage
            method = cell.recipe.method.build(cell.recipe)
        assert sum(p.numel() for p in method.encoder().parameters()) > 1e5


@pytest.mark.parametrize("name", STUDIES)
def test_table_and_picture_of_every_study(name: str, tmp_path: Path) -> None:
    """Of made-up scores, with one cell without any: what is there is drawn."""
    chosen = study_file(name)
    cells = [cell for seed in (0, 1) for cell in chosen.cells(Asked(seed))]
    found = []
    for i, cell in enumerate(cells[:-1]):
        (tmp_path / cell.name).mkdir()
        lines = [{"step": s, "loss": 2 - s / 50 + i / 10, "seconds": 6.0 * s} for s in range(1, 21)]
        (tmp_path / cell.name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rows = [
            {
                "protocol": protocol,
                "features": features,
                "top1": 40.0 + i,
                "low": 39.0,
                "high": 45.0 + i,
                "minutes": 3.0,
            }
            for protocol in cell.protocols
            for features in ("trained", "from scratch" if protocol == "finetune" else "untrained")
        ]
        found.append(Found(cell, tmp_path / cell.name, rows, done=True))
    told = {title: tell(found[0]) for title, tell in chosen.COLUMNS}
    assert (
        told["seed"] == "0"
        and told["minutes"] == ("2.0 of 15" if name == "methods" else "2.0")
        and told["steps"] == "20"
    )
    assert all(isinstance(tell(each), str) for each in found for _, tell in chosen.COLUMNS)
    blank = Found(cells[-1], tmp_path / "nowhere")
    assert {
        tell(blank) for title, tell in chosen.COLUMNS if title in ("minutes", "steps", "loss", "linear")
    } == {""}
    picture, fewer = chosen.picture(found), chosen.picture(found[:1])
    assert picture.size >= fewer.size and len(picture.getcolors(1 << 24) or []) > 10


def test_losses_are_of_the_last_tenth(tmp_path: Path) -> None:
    lines = [{"step": s, "loss": float(s), "seconds": 60.0} for s in range(1, 41)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cell: Any = None
    assert Found(cell, tmp_path).loss() == pytest.approx((37 + 38 + 39 + 40) / 4)
    assert Found(cell, tmp_path).minutes() == 1.0


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), "GS < US < UM 15 % < RS < UM 25 % < UM 35 %; as in the paper."),
        (
            (0.2, 0.1, 0.3, 0.4, 0.5, 0.6),
            "US < GS < UM 15 % < RS < UM 25 % < UM 35 %; in the paper GS < US < UM 15 %",
        ),
    ],
)
def test_the_order_of_the_masks_is_told(losses: Sequence[float], says: str, tmp_path: Path) -> None:
    """The mean of the last tenth of the log decides; masks that lack are left out of the paper's order too."""
    masks: Any = study_file("ummae_masks")
    found = []
    for cell, loss in zip(masks.cells(Asked()), losses, strict=True):
        folder = tmp_path / cell.name
        folder.mkdir()
        (folder / "log.jsonl").write_text(json.dumps({"step": 1, "loss": loss, "seconds": 1.0}) + "\n")
        found.append(Found(cell, folder, done=True))
    first = "Losses are means over the last tenth of the steps. By loss, seed 0:"
    assert masks.remarks(found).startswith(f"{first} {says}")
    assert masks.remarks(found[2:4]) == f"{first} UM 15 % < RS; as in the paper."


def test_who_is_above_the_baseline_is_told(tmp_path: Path) -> None:
    methods: Any = study_file("methods")
    cells = {cell.name: cell for cell in methods.cells(Asked())}

    def found(name: str, protocol: str, baseline: str, mine: float, theirs: float) -> Found:
        rows = [
            {"protocol": protocol, "features": features, "top1": top1, "low": top1 - 1, "high": top1 + 1}
            for features, top1 in (("trained", mine), (baseline, theirs))
        ]
        return Found(cells[name], tmp_path, rows, done=True)

    told = methods.remarks(
        [
            found("simclr-0", "knn", "untrained", 40, 30),
            found("byol-0", "knn", "untrained", 31.9, 30),
            found("dino-0", "knn", "untrained", 27.5, 30),
            found("mae-0", "finetune", "from scratch", 40, 30),
        ]
    )
    assert told == (
        "- k-NN against the same network untrained: higher, intervals apart: SimCLR (+10.0); lower, intervals apart: "
        "DINO (-2.5); within the intervals: BYOL (+1.9).\n"
        "- fine-tuned against from scratch: higher, intervals apart: MAE (+10.0)."
    )


def test_what_a_pyramid_costs_and_gains_is_told(tmp_path: Path) -> None:
    """UM-MAE's minutes and bytes by SimMIM's, and both over the one run from scratch."""
    efficiency: Any = study_file("efficiency")
    found = []
    for cell, (minutes, mib, tuned) in zip(
        efficiency.cells(Asked())[:3], [(4, 100, 52), (2, 40, 55.5), (3, 90, 50)], strict=True
    ):
        folder = tmp_path / cell.name
        folder.mkdir()
        (folder / "log.jsonl").write_text(
            json.dumps({"step": 1, "loss": 1.0, "seconds": 60 * minutes}) + "\n"
        )
        (folder / "saved.json").write_text(json.dumps({"bytes": mib * 2**20, "batch": 64}))
        rows = [
            {"protocol": "finetune", "features": features, "top1": top1, "low": top1 - 1, "high": top1 + 1}
            for features, top1 in (("trained", tuned), ("from scratch", 50.0))
            if features == "trained" or cell.baselines
        ]
        found.append(Found(cell, folder, rows, done=True))
    assert efficiency.remarks(found) == (
        "- Swin, seed 0: UM-MAE took 0.50 of SimMIM's minutes; kept 0.40 of its bytes; "
        "SimMIM +2.0, UM-MAE +5.5 points over from scratch."
    )
    alone = dataclasses.replace(found[1], rows=[row for row in found[1].rows if row["features"] != "trained"])
    assert efficiency.remarks([alone]) == ""  # whose tuning broke off
    told = dict(efficiency.COLUMNS)
    assert told["saved for backward, MiB"](found[1]) == "40" and told["encoder"](found[2]) == "PVT"


def test_what_a_step_keeps_is_counted(
    tiny: Callable[..., Recipe], paints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, where the cell asks for it; not again by the call that finds it there."""
    small = Small(tiny, ("mae",), ("knn",))
    cells = [dataclasses.replace(cell, activations=True) for cell in small.cells(Asked())]
    monkeypatch.setattr(small, "cells", lambda asked: cells)
    monkeypatch.setattr(study, "study_file", lambda name: small)
    run_study("one", paints, tmp_path)
    kept = json.loads((tmp_path / "mae-0" / "saved.json").read_text())
    assert kept == step_bytes(cells[0].recipe) and kept["batch"] == cells[0].recipe.optim.batch
    assert Found(cells[0], tmp_path / "mae-0").saved() == kept["bytes"] / 2**20 > 0.01
    assert Found(cells[0], tmp_path / "nowhere").saved() is None
    (tmp_path / "mae-0" / "scores.json").unlink()  # as if the call had been killed before
    (tmp_path / "mae-0" / "saved.json").write_text(json.dumps({"bytes": 1, "batch": 1}))
    run_study("one", paints, tmp_path)
    assert json.loads((tmp_path / "mae-0" / "saved.json").read_text()) == {"bytes": 1, "batch": 1}


def test_every_method_is_in_the_table_of_methods() -> None:
    cells = study_file("methods").cells(Asked())
    assert [cell.name for cell in cells] == [f"{name}-0" for name in method_names() if name not in TOKENIZERS]
    assert {"BEiT", "SimCLR", "UM-MAE"} < {cell.facts["method"] for cell in cells}
    masked = {cell.facts["method"] for cell in cells if "finetune" in cell.protocols}
    assert masked == {"BEiT", "MAE", "SimMIM", "UM-MAE"}
    assert all({"knn", "linear"} <= {*cell.protocols} and cell.baselines for cell in cells)


def test_only_what_is_removed_differs_between_the_cells() -> None:
    by_name = {cell.name: cell.recipe for cell in study_file("augmentations").cells(Asked())}
    whole = by_name["byol-all-0"]
    for name, recipe in by_name.items():
        if name.startswith("byol"):
            method: Any = recipe.method
            assert dataclasses.replace(recipe, method=dataclasses.replace(method, removed=())) == whole
    assert len({recipe.method for name, recipe in by_name.items() if name.startswith("byol")}) == 5


def test_batches_differ_in_what_a_loss_sees_and_in_no_update() -> None:
    """BYOL's Figure 3a averages gradients over N batches a N-th as large, and lets all else be."""
    cells = study_file("batch_size").cells(Asked())
    for name in ("byol", "simclr"):
        mine = [cell.recipe for cell in cells if cell.facts["method"] == name]
        sizes = [recipe.optim.batch // recipe.optim.accumulate for recipe in mine]
        assert sizes == [128, 64, 32, 16, 8]
        alike = [dataclasses.replace(r, optim=dataclasses.replace(r.optim, accumulate=1)) for r in mine]
        assert all(recipe == alike[0] for recipe in alike) and alike[0].optim.batch == 128


def test_seeds_together() -> None:
    assert over_seeds([(40, 38, 42), None, (44, 41, 47)]) == (42, 38, 47)
    assert over_seeds([None]) is None


def test_what_the_lines_of_a_chart_are() -> None:
    one, other = (Found(study_file("batch_size").cells(Asked(seed))[0], Path()) for seed in (0, 3))
    assert "seed 0; lines are 95 % intervals" in told_lines([one, one])
    assert "seeds 0, 3; lines go from the lowest to the highest end of each seed's 95 %" in told_lines(
        [other, one]
    )


def test_charts_one_below_the_other() -> None:
    red, blue = Image.new("RGB", (30, 10), "red"), Image.new("RGB", (20, 40), "blue")
    both = stacked([red, blue])
    assert both.size == (30, 50)
    assert (both.getpixel((29, 9)), both.getpixel((19, 49))) == ((255, 0, 0), (0, 0, 255))


def test_a_series_may_lack_a_point() -> None:
    bars = [Bar("a", "", [(1, 0, 2), None]), Bar("b", "", [None, (3, 2, 4)])]
    both = interval_chart(bars, ["x", "y"], title="t")
    first = interval_chart([bars[0], Bar("b", "", [None, None])], ["x", "y"], title="t")
    assert both.height == first.height and both.tobytes() != first.tobytes()


def test_the_command(
    one: None,
    paints: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [
        "study",
        "one",
        str(paints),
        "--seeds",
        "1",
        "--data.limit",
        "20",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "| mae-1 |" in out
    assert f"`zoo study one {paints} --seeds 1 --tune-epochs 10 --data.limit 20 --out" in out
    monkeypatch.undo()
    assert main(["study", "method", str(paints), "--out", str(tmp_path / "other")]) == 2
    assert "no study 'method'; did you mean 'methods'?" in capsys.readouterr().err
    assert main(["study", "methods", str(paints)]) == 2
    assert "`zoo study` needs --out FOLDER" in capsys.readouterr().err


def test_the_studies_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By themselves, and in the help, which is written without this room."""
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["study"]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert [*listed] == [*STUDIES] == [*IN_HELP]
    for name, runs, budget, what in studies_table():
        assert what in listed[name] and budget in listed[name]
        assert IN_HELP[name].startswith(f"{runs} runs of {budget}: ")
