"""What was exported shows on the model's card and in `zoo show`."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.cards import read_card, write_card
from zoo.cli import main
from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.export import parity
from zoo.export.engines import EngineFacts, Place, write_facts
from zoo.export.folder import check_owner
from zoo.export.onnx import write_beside
from zoo.export.shown import HEADING, lines
from zoo.folders import write_folder


@pytest.fixture
def model(torchs: Encoder, plain: Path, tmp_path: Path) -> Path:
    """A model folder with its export in onnx/."""
    folder = tmp_path / "tiny"
    write_folder(folder, torchs.card, torchs.module, None, "# tiny\n\nIts own words.", torch.float32)
    shutil.copytree(plain, folder / "onnx")
    return folder


def test_the_models_card_shows_the_tables_once_however_often_it_is_exported(model: Path) -> None:
    for _ in range(2):
        write_beside(model / "onnx", Encoder(read_card(model), torch.nn.Module(), through=_Nothing()))
    for place in (model, model / "onnx"):
        body = read_card(place).body
        assert body.startswith("# tiny\n\nIts own words.\n\n## Exported graphs")
        assert body.count(HEADING) == 1 and "tiny, model.onnx, fp32: passed" in body


class _Nothing:
    """Stands for a family: nothing is computed here."""

    def stride(self, module: torch.nn.Module) -> int:
        return 16


def test_zoo_show_tells_of_every_graph(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for named in (model, model / "onnx"):
        assert main(["show", str(named)]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "exported model.onnx, fp32: passed; max-abs " in told
        assert "(≤ 1.0e-04, n 48), cosine 1.00000 (≥ 0.99999, n 48)" in told
    shutil.rmtree(model / "onnx")
    assert main(["show", str(model)]) == 0
    assert "exported" not in capsys.readouterr().out


def test_a_brief_tells_the_worst_of_each_measure(plain: Path) -> None:
    (report,) = parity.read(plain)
    check = dataclasses.replace(report.checks[0], what="max-abs", value=0.5, limit=1e-4, pictures=3)
    cosine = dataclasses.replace(check, what="cosine", value=0.25, limit=0.99)
    worse = dataclasses.replace(report, checks=(*report.checks, check, cosine))
    assert worse.brief() == (
        "model.onnx, fp32: FAILED; max-abs 0.50000 (≤ 1.0e-04, n 3), cosine 0.25000 (≥ 0.99000, n 3)"
    )


def test_engines_are_built_and_not_run(plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "onnx"))
    (report,) = parity.read(folder)
    parity.write(folder, dataclasses.replace(report, file="tensorrt_fp16.onnx", precision="fp16"))

    def told() -> str:
        first, second = lines(folder)
        assert "engine" not in first
        return second.partition("; ")[2].partition("; ")[2]

    assert told() == "no engine built"
    engine = folder / "tensorrt_fp16.engine"
    engine.write_bytes(b"plan")
    assert told() == "its engine has no sidecar, so nobody knows what it was built of"
    facts = EngineFacts(
        "tensorrt_fp16.onnx", report.sha256, "0" * 64, Place("11.4.0", "NVIDIA L4", "8.9"), {}
    )
    write_facts(engine, facts)
    assert told() == "its engine: built, not run (TensorRT 11.4.0, NVIDIA L4)"
    write_facts(engine, dataclasses.replace(facts, onnx_sha256="1" * 64))
    assert told() == "its engine is of an earlier graph"


def test_an_export_goes_into_the_models_own_onnx_and_into_no_others(
    model: Path, torchs: Encoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []

    def noted(encoder: Encoder, out: Path, precision: Any, **_: Any) -> None:
        asked.append(out)

    monkeypatch.setattr("zoo.export.commands.export_command", noted)
    assert main(["export", str(model)]) == 0
    assert asked == [model / "onnx"]
    assert main(["export", str(model), "--weights", "random"]) == 2
    assert "give --out FOLDER" in capsys.readouterr().err
    check_owner(model / "onnx", read_card(model))
    write_card(dataclasses.replace(torchs.card, pooling="avg"), model)
    with pytest.raises(Unsupported, match=r"belongs to the model in .* its pooling"):
        check_owner(model / "onnx", torchs.card)
