"""`zoo bench`: every way on the same pixels, in turn, and held against eager within each round."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

from zoo.cards import read_card
from zoo.cli import main
from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.export import bench, quantize, ways
from zoo.export.memory import peak_mebibytes
from zoo.export.ways import Way
from zoo.registry import find


def test_ratios_are_of_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that gets slower and slower: medians over the run would be of different moments."""
    now, calls = [0.0], list[str]()
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])

    def way(name: str, seconds: float) -> Way:
        def call(pixels: Tensor) -> Tensor:
            calls.append(name)
            now[0] += seconds * 1.05 ** len(calls)
            return pixels.flatten(1)

        return Way(name, call, None)

    slow, fast = bench.timed(
        [way("slow", 0.06), way("fast", 0.02)], torch.rand(2, 3, 4, 4), {"slow": 9.0, "fast": None}
    )
    assert slow.against_eager == 1
    assert fast.against_eager == pytest.approx(3, rel=0.06)  # one step of the slowing
    assert slow.low < slow.milliseconds < slow.high
    assert slow.images_per_second == pytest.approx(2000 / slow.milliseconds)
    assert (slow.batch, slow.rounds, slow.peak_mebibytes, fast.cosine) == (
        2,
        bench.ROUNDS,
        9.0,
        pytest.approx(1),
    )
    assert calls[2 * bench.WARM_UPS :][:4] == ["slow", "fast", "fast", "slow"]  # the order rotates


def test_a_wrong_answer_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 2)
    right, wrong = (
        Way(name, lambda pixels, s=sign: s * pixels, None) for name, sign in (("a", 1), ("b", -1))
    )
    timings = bench.timed([right, wrong], torch.rand(3, 8), {"a": None, "b": None})
    assert [each.cosine for each in timings] == [pytest.approx(1), pytest.approx(-1)]


@pytest.mark.timeout(400)  # it traces, and starts three processes
def test_the_command_times_what_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], torchs: Encoder
) -> None:
    monkeypatch.setattr("zoo.cli.benching.load_model", lambda arguments, size: torchs)
    monkeypatch.setattr(bench, "ROUNDS", 3)
    monkeypatch.setenv("PATH", str(tmp_path))  # no compiler in it
    monkeypatch.setattr("os.getloadavg", lambda: (7.5, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("CXX", raising=False)
    words = ["bench", "tiny", "--batch", "1", "2", "--threads", "1", "--json", str(tmp_path / "bench.json")]
    assert main(words) == 0
    told, warned = capsys.readouterr()
    assert "other work runs on this machine (load 7.5, 8 processors)" in warned
    assert "torch.compile: left out, no C++ compiler" in told
    found = json.loads((tmp_path / "bench.json").read_text())
    rows = {(each["way"], each["batch"]): each for each in found["timings"]}
    for way, least in ((ways.EAGER, 0.999999), (ways.FP32, 0.99999), (ways.INT8, 0.97)):
        for batch in (1, 2):
            assert rows[way, batch]["cosine"] > least
            assert rows[way, batch]["images_per_second"] > 0
            assert f"{rows[way, batch]['milliseconds']:.1f}" in told
    peaks = {way: rows[way, 1]["peak_mebibytes"] for way in (ways.EAGER, ways.FP32)}
    assert 20 < peaks[ways.FP32] < peaks[ways.EAGER] < 5000  # a graph's process holds no torch


def test_the_int8_that_is_timed_is_the_one_that_passes(
    torchs: Encoder, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(plain / "model.onnx")
    good = quantize.ways("int8", model)[0]

    def spoilt(given: onnx.ModelProto) -> onnx.ModelProto:
        lowered = good.lower(given)
        norm = next(node for node in lowered.graph.node if node.op_type == "LayerNormalization")
        norm.op_type = "Identity"
        del norm.input[1:], norm.attribute[:]
        return lowered

    bad = quantize.Way((), spoilt)
    monkeypatch.setattr(ways, "traced", lambda graph: (model, {}))
    monkeypatch.setattr(quantize, "ways", lambda precision, given: [bad, good])
    ways.graphs(torchs, tmp_path)
    ways.opened(ways.INT8, torchs, tmp_path, 1)
    kept, whole = (
        sum(node.op_type == "LayerNormalization" for node in onnx.load(file).graph.node)
        for file in (tmp_path / "model_int8.onnx", plain / "model.onnx")
    )
    assert kept == whole
    monkeypatch.setattr(quantize, "ways", lambda precision, given: [bad])
    ways.graphs(torchs, tmp_path)
    with pytest.raises(Unsupported, match="none passes the gate"):
        ways.opened(ways.INT8, torchs, tmp_path, 1)


def test_a_process_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"onnxruntime on none\.onnx failed: .*none\.onnx"):
        peak_mebibytes("onnxruntime", tmp_path / "none.onnx", (1, 3, 8, 8), 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--batch", "0"], "--batch is 0; give 1 or more"),
        (["--threads", "0"], "--threads is 0; give 1 or more"),
        (["--device", "cuda"], "leave out --device"),
    ],
)
def test_words_it_cannot_use(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "dino_vitt16_imagenette", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_model_is_timed_beside_resnet50(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ratio is of the same rounds, and goes on the model's own card, once, with its command."""
    monkeypatch.setattr(bench, "ROUNDS", 3)
    monkeypatch.setattr("os.getloadavg", lambda: (0.5, 9.0, 9.0))
    folder = tmp_path / "mine"
    shutil.copytree(find("dino_vitt16_imagenette"), folder)
    before = len(read_card(folder).results)
    words = ["bench", str(folder), "--resnet50", "--batch", "2", "--threads", "1", "--write-card"]
    for _ in range(2):
        assert main(words) == 0
        said, warned = capsys.readouterr()
        assert "other work" not in warned
    results = read_card(folder).results
    assert len(results) == before + 1
    (result,) = [each for each in results if each.task == "speed" and "--batch" in each.command]
    assert f"{result.value:.2f} times as many" in said
    assert result.command == f"zoo bench {folder} --resnet50 --threads 1 --batch 2"
    settings = result.settings
    assert settings["quartiles"][0] <= result.value <= settings["quartiles"][1]
    assert settings["images/s"] > settings["ResNet-50's images/s"] > 0  # a twentieth of its work


def test_a_card_states_no_other_speed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "dino_vitt16_imagenette", "--write-card"]) == 2
    assert "add --resnet50" in capsys.readouterr().err
