"""The studies whose records lie in docs/: each table is what the records say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from zoo.training import study

DOCS = Path(__file__).resolve().parent.parent / "docs"
RECORDED = sorted(path.parent.name for path in (DOCS / "studies").glob("*/table.md"))


@pytest.mark.parametrize("name", RECORDED)
def test_the_table_is_what_the_records_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told anew from each cell's scores and log; no cell is made here."""
    table = (DOCS / "studies" / name / "table.md").read_text(encoding="utf-8")
    command = re.search(rf"Made by `(zoo study {name} [^`]+)`", table)
    assert command is not None
    given = dict(re.findall(r"--([\w.-]+) (\S+)", command[1]))
    shutil.copytree(DOCS / "studies" / name, tmp_path / name)
    monkeypatch.setattr(study, "images_of", lambda data, test: {})
    monkeypatch.setattr(study, "write_claim", lambda folder, claim, machine: None)
    monkeypatch.setattr(study, "_make", lambda cell, out, data, test: None)
    told = study.run_study(
        name,
        command[1].split()[3],
        tmp_path / name,
        minutes=float(given["minutes"]) if "minutes" in given else None,
        tune_epochs=int(given.get("tune-epochs", 10)),
        knobs=[word for knob, value in given.items() if "." in knob for word in (f"--{knob}", value)],
        command=command[1],
    )
    assert told.read_text(encoding="utf-8") == table
    done = sum(line.endswith(" done |") for line in table.splitlines())
    assert done == len(list((DOCS / "studies" / name).glob("*/scores.json"))) > 0


@pytest.mark.parametrize("name", RECORDED)
def test_the_page_shows_it(name: str) -> None:
    page = (DOCS / "studies.md").read_text(encoding="utf-8")
    assert f"](studies/{name}/table.md)" in page
    assert f"](studies/{name}/chart.png)" in page and (DOCS / "studies" / name / "chart.png").is_file()
