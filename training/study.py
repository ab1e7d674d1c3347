"""Runs a study: a folder for each cell, finished ones skipped, killed ones continued, a table that says what lacks."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zoo.errors import DataError, RecipeError
from zoo.evaluate import measure
from zoo.files import atomic_write, write_json
from zoo.hardware import hardware
from zoo.loading import load, untrained
from zoo.protocols import TRAINING
from zoo.saving import save_picture
from zoo.sources import Source
from zoo.tables import markdown_table
from zoo.training.cells import SAVED, Asked, Cell, Found
from zoo.training.claims import check_claim, claim_of, images_of, noted, write_claim
from zoo.training.engine import run, split
from zoo.training.fixed import refuse_knobs
from zoo.training.knobs import with_knobs
from zoo.training.precision import start_accelerator
from zoo.training.progress import duration
from zoo.training.saved import step_bytes
from zoo.training.scores import tuned_scores
from zoo.training.sentry import Collapsed, Diverged
from zoo.training.studies import Study, study_file

log = logging.getLogger(__name__)

# Protocols of a cell whose training broke off, each with why, in the cell's folder.
UNTUNED = "untuned.json"


def run_study(
    name: str,
    data: str | Path,
    out: str | Path,
    *,
    test: str | Path | None = None,
    seeds: Sequence[int] = (0,),
    minutes: float | None = None,
    tune_epochs: int = 10,
    knobs: Sequence[str] = (),
    command: str = "",
) -> Path:
    """Every cell of the study in a folder of `out`, then `table.md` and `chart.png`; returns the table's path.

    minutes: of training for each cell, None for the study's own budget. tune_epochs: where a study fine-tunes. knobs:
    of every cell's recipe, as `zoo train` takes them, but none that the study sets. Table and chart are written after
    each cell. The same call again skips what is finished and goes on; a finished cell needs but cell.json, scores.json
    and the logs, and a finished study no images. Raises RecipeError for a folder of another call,
    and what runs raise.
    """
    if not seeds:
        raise RecipeError("a study needs a seed; give --seeds 0")
    study, out = study_file(name), Path(out)
    cells = [cell for seed in seeds for cell in study.cells(Asked(seed, minutes, tune_epochs))]
    refuse_knobs(name, cells, knobs)
    cells = [dataclasses.replace(cell, recipe=with_knobs(cell.recipe, list(knobs))) for cell in cells]
    images = _images(cells, out, data, test)
    claims = {cell.name: claim_of(cell, data, test, images) for cell in cells}
    for cell in cells:  # before hours of the others
        cell.recipe.check()
        check_claim(out / cell.name, claims[cell.name])
    about = f"`{command or f'zoo.training.study.run_study({name!r}, {str(data)!r}, {str(out)!r})'}`"
    began, made = time.monotonic(), 0
    table = _report(study, [_found(cell, out) for cell in cells], out, about)
    for number, cell in enumerate(cells):
        if _over(_found(cell, out)):
            log.info("%s is there already", cell.name)
            continue
        left = f"; {_left(began, made, len(cells) - number)} left" if made else ""
        log.warning("cell %d of %d, %s%s", number + 1, len(cells), cell.name, left)
        write_claim(out / cell.name, claims[cell.name], *_machine(cell))
        _make(cell, out, data, test)
        made += 1
        table = _report(study, [_found(each, out) for each in cells], out, about)
    return table


def _images(cells: Sequence[Cell], out: Path, data: str | Path, test: str | Path | None) -> dict[str, str]:
    """Which images the cells are made of; nothing where those are gone, and every cell is there without them."""
    try:
        return images_of(data, test)
    except DataError:
        if all(_over(_found(cell, out)) for cell in cells):
            return {}
        raise


def _left(began: float, made: int, cells: int) -> str:
    return duration((time.monotonic() - began) / made * cells)


def _machine(cell: Cell) -> tuple[str, str]:
    """What this process computes the cell on, in words, and in which precision."""
    if threads := cell.recipe.run.threads:
        torch.set_num_threads(threads)  # as the run will have them
    return hardware(), start_accelerator(cell.recipe.run.precision).mixed_precision


def _make(cell: Cell, out: Path, data: str | Path, test: str | Path | None) -> None:
    """Train a cell and measure it, or note why the sentry stopped it."""
    folder = out / cell.name
    try:
        run(cell.recipe, data, folder, test=test, name=cell.recipe_name, scores=False)
    except (Collapsed, Diverged) as error:
        write_json(folder / "stopped.json", {"why": str(error)})
        return
    if cell.activations and not (folder / SAVED).is_file():
        write_json(folder / SAVED, step_bytes(cell.recipe))
    train, held_out, _ = split(data, test, cell.recipe.data.limit)
    rows = list(_found(cell, out).rows)
    if cell.protocols and held_out is None:
        raise RecipeError(
            f"{data} has no labels, and {cell.name} is to be measured by {', '.join(cell.protocols)}"
        )
    for protocol in cell.protocols:
        if held_out is None or any(row["protocol"] == protocol for row in rows):
            continue
        if protocol in TRAINING:
            rows += _tuned(cell, folder, protocol, (train, held_out))
        else:
            seed = cell.recipe.run.seed
            rows += measure(load(folder), train, held_out, [protocol], baselines=cell.baselines, seed=seed)
        write_json(folder / "scores.json", rows)
    write_json(folder / "scores.json", rows)


def _tuned(cell: Cell, folder: Path, protocol: str, data: tuple[Source, Source]) -> list[dict[str, Any]]:
    """The scores of a protocol that trains; where it breaks off, why is noted as what came of it."""
    encoder, seed, rows = load(folder), cell.recipe.run.seed, list[dict[str, Any]]()
    knobs, work, broken = [*_shared(cell), *cell.tuning], folder / "tuning", _untuned(folder)
    for scratch in (False, True) if cell.baselines else (False,):
        begun, which = (
            (untrained(encoder, seed), f"{protocol} from scratch") if scratch else (encoder, protocol)
        )
        if which in broken:
            continue
        try:
            rows += tuned_scores(begun, *data, [protocol], scratch=scratch, seed=seed, knobs=knobs, work=work)
        except (Collapsed, Diverged) as error:
            log.warning("%s of %s broke off: %s", which, cell.name, error)
            broken |= {which: str(error)}
            write_json(folder / UNTUNED, broken)
    return rows


def _untuned(folder: Path) -> dict[str, str]:
    """Protocols of a cell whose training broke off, each with why."""
    path = folder / UNTUNED
    broken: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    return broken


def _shared(cell: Cell) -> list[str]:
    """Knobs of a cell's run that hold for its tuning too: they say how the machine is used."""
    run, data = cell.recipe.run, cell.recipe.data
    return [
        *("--run.threads", str(run.threads), "--run.precision", run.precision),
        *("--data.workers", str(data.workers)),
    ]


def _found(cell: Cell, out: Path) -> Found:
    """What came of a cell so far."""
    folder = out / cell.name
    scores, stopped = folder / "scores.json", folder / "stopped.json"
    rows: list[dict[str, Any]] = json.loads(scores.read_text()) if scores.is_file() else []
    why = json.loads(stopped.read_text())["why"] if stopped.is_file() else ""
    untuned = _untuned(folder)
    over = {row["protocol"] for row in rows} | set(untuned)
    return Found(cell, folder, rows, why, scores.is_file() and over >= set(cell.protocols), untuned)


def _over(found: Found) -> bool:
    return found.done or bool(found.stopped)


def _machines(found: Sequence[Found]) -> str:
    """` on` the hardware each cell was made on, as it was kept."""
    on: dict[str, list[str]] = {}
    for each in found:
        if machines := " and ".join(noted(each.folder, "hardware")):
            on.setdefault(machines, []).append(each.cell.name)
    if len(on) == 1:
        return f" on {next(iter(on))}"
    told = "; ".join(f"{machines} ({', '.join(names)})" for machines, names in on.items())
    return f" on {told}" if told else ""


def _measured(found: Sequence[Found]) -> str:
    """A sentence of the accuracies, where cells have any."""
    if not any(each.cell.protocols for each in found):
        return ""
    return " Accuracies are top-1 in %, of the last step, with 95 % intervals over resampled test images."


def _precision(found: Sequence[Found]) -> str:
    """A sentence of the arithmetic, which is part of how far a run gets in its minutes."""
    words, told = {"no": "float32"}, dict[str, list[str]]()
    for each in found:
        computed = noted(each.folder, "computed") or [each.cell.recipe.run.precision]
        told.setdefault(" and ".join(words.get(one, one) for one in computed), []).append(each.cell.name)
    most = max(told, key=lambda one: len(told[one]))
    others = "".join(f", {' and '.join(names)} in {one}" for one, names in told.items() if one != most)
    return f"Runs compute in {most}{others}."


def _nothing(found: Sequence[Found]) -> str:
    """The remarks of a study that has none."""
    return ""


def _report(study: Study, found: Sequence[Found], out: Path, about: str) -> Path:
    """Write the table and, where there is something to draw, the chart."""
    header = [*(title for title, _ in study.COLUMNS), "state"]
    rows = [[*(tell(each) for _, tell in study.COLUMNS), each.state()] for each in found]
    missing = [each.cell.name for each in found if not _over(each)]
    lacks = f" Missing: {', '.join(missing)}." if missing else ""
    title, _, notes = (study.__doc__ or "").strip().partition("\n\n")
    if done := [each for each in found if each.done]:
        notes = "\n\n".join(filter(None, [getattr(study, "remarks", _nothing)(done), notes]))
    notes = f"\n{notes}\n" if notes else ""
    text = (
        f"# {title}\n\nMade by {about}{_machines(found)}. {len(found) - len(missing)} of {len(found)} cells are there."
        f"{lacks} {_precision(found)}{_measured(found)}\n\n{markdown_table(header, rows)}\n{notes}"
    )
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    if done:
        save_picture(study.picture(done), out / "chart.png")
    return out / "table.md"
