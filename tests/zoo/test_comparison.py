"""Comparing encoders: rows, intervals, the honest sentence, the cache and the chart."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zoo.evaluate.comparison as room
from zoo.charts import Bar, interval_chart
from zoo.cli import main
from zoo.encoder import Encoder
from zoo.errors import DataError, UnknownModel
from zoo.evaluate import frozen_scores
from zoo.evaluate.comparison import Compared, compare, verdict
from zoo.evaluate.intervals import Score, resampled
from zoo.extraction import CPU_BATCH
from zoo.sources import train_and_test

DINO = "dino_vitt16_imagenette"


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    """Twelve pictures each of horizontal and vertical stripes, noisy, to train on, and as many to test on."""
    random = np.random.default_rng(0)
    for split, name, i in itertools.product(("train", "val"), ("flat", "tall"), range(12)):
        waves = np.sin(np.arange(64) / random.uniform(1, 4))[:, None] * np.ones(64)
        pixels = np.clip(128 + 90 * waves + random.normal(0, 30, (64, 64)), 0, 255).astype(np.uint8)
        path = tmp_path / "stripes" / split / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels if name == "flat" else pixels.T).convert("RGB").save(path)
    return tmp_path / "stripes"


def test_rows_are_what_evaluate_measures(
    tiny: Encoder, stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (few,) = compare(stripes, [tiny], cache=tmp_path / "few")
    assert few.images_per_second is None  # of 24 images it would be noise
    monkeypatch.setattr(room, "TIMED", 24)
    (row,) = compare(stripes, [tiny], cache=tmp_path / "cache")
    train, test, _ = train_and_test(stripes)
    for score in frozen_scores(tiny, train, test):
        assert getattr(row, score["protocol"]).top1 == score["top1"]
    assert (row.model, row.features, row.n_train, row.n_test) == ("tiny_mae", "trained", 24, 24)
    assert (row.parameters, row.licence) == (tiny.card.parameters, "apache-2.0")
    assert row.images_per_second is not None and row.images_per_second > 0


def test_features_are_made_once(tiny: Encoder, stripes: Path, tmp_path: Path) -> None:
    seen = []

    class Counted(Encoder):
        def forward_features(self, pixels: Any) -> Any:
            seen.append(len(pixels))
            return super().forward_features(pixels)

    counted = Counted(tiny.card, tiny.module, tiny.decoder)
    first = compare(stripes, [counted], cache=tmp_path / "cache")
    # Every picture; for either split a batch of black ones that warms up, and one whose shapes are taken.
    assert sum(seen) == 48 + 2 * (CPU_BATCH + 1)
    seen.clear()
    assert compare(stripes, [counted], cache=tmp_path / "cache") == first and sum(seen) == 2
    (stripes / "val" / "flat" / "0.png").write_bytes((stripes / "val" / "tall" / "0.png").read_bytes())
    seen.clear()
    compare(stripes, [counted], cache=tmp_path / "cache")
    assert sum(seen) == 24 + CPU_BATCH + 2  # another picture of that name is another set to test on


@pytest.mark.parametrize(("right", "count"), [(50, 100), (3, 20), (3900, 4000)])
def test_an_interval_is_that_of_plain_resampling(right: int, count: int) -> None:
    correct = np.arange(count) < right
    random = np.random.default_rng(1)
    shares = [100 * random.choice(correct, count).mean() for _ in range(4000)]
    score = resampled(correct, seed=0)
    assert score.top1 == pytest.approx(100 * right / count) and score == resampled(correct, seed=0)
    step = 100 / count  # a share moves by whole images
    assert score.low == pytest.approx(np.quantile(shares, 0.025), abs=step + 0.1)
    assert score.high == pytest.approx(np.quantile(shares, 0.975), abs=step + 0.1)


@pytest.mark.parametrize(("right", "count"), [(0, 7), (7, 7), (1, 1), (4000, 4000)])
def test_all_right_or_none_is_no_certainty(right: int, count: int) -> None:
    """Wilson's interval holds every true share that the score on so many images would not be surprising for."""
    z = NormalDist().inv_cdf(0.975)
    shares = np.linspace(0, 1, 100_001)
    likely = shares[abs(right / count - shares) <= z * np.sqrt(shares * (1 - shares) / count) + 1e-12]
    score = resampled(np.full(count, right > 0), seed=0)
    assert (score.low, score.high) == pytest.approx((100 * likely.min(), 100 * likely.max()), abs=0.01)
    assert score.top1 == 100 * right / count and score.high - score.low > 0.09


def row(model: str, knn: Score, features: str = "trained") -> Compared:
    return Compared(model, features, knn, Score(90, 89, 91), 10.0, 1_000_000, "mit", 100, 50)


def test_a_winner_is_named_only_where_intervals_do_not_meet() -> None:
    clear = [
        row("a", Score(60, 55, 65)),
        row("b", Score(80, 75, 85)),
        row("c", Score(99, 99, 99), "untrained"),
    ]
    told, linear = verdict(clear)
    assert told.startswith("By k-NN b is best for these images: 80.0 %, then a with 60.0 %")
    assert linear.startswith(
        "By a linear probe there is no clear winner: the intervals of a and b overlap on 50 test"
    )
    unclear = [*clear[:2], row("d", Score(78, 74, 82)), row("e", Score(70, 64, 75))]
    assert "no clear winner: the intervals of b and d, e overlap" in verdict(unclear)[0]
    assert verdict(clear[:1]) == [] and str(clear[0].knn) == "60.0 % (55.0–65.0)"


def test_what_cannot_be_compared_is_said_before_any_work(
    stripes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_compared", lambda *_: pytest.fail("work began"))
    with pytest.raises(UnknownModel, match=f"did you mean '{DINO}'"):
        compare(stripes, [DINO, "dino_vitt61_imagenette"])
    with pytest.raises(DataError, match="give a list of names"):
        compare(stripes, DINO)
    with pytest.raises(DataError, match="is unlabelled"):
        compare(stripes / "val" / "flat", [DINO])


def test_the_command_prints_a_table_and_draws_a_chart(
    stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chart, rows = tmp_path / "chart.png", tmp_path / "rows.json"
    words = ["compare", str(stripes), "--models", DINO, "mae_vitt16_imagenette", "--baselines"]
    words += ["--cache", str(tmp_path / "cache"), "--device", "cpu"]
    assert main([*words, "--out", str(chart), "--json", str(rows)]) == 0
    out, err = capsys.readouterr()
    header, *lines = out.splitlines()
    assert header.split()[:2] == ["model", "k-NN"] and "stripes's own validation split" in err
    names = [DINO, f"{DINO}, untrained", "mae_vitt16_imagenette", "mae_vitt16_imagenette, untrained"]
    assert all(line.startswith(f"{name}  ") for line, name in zip(lines, names, strict=False))
    assert "By k-NN " in out and "By a linear probe " in out and f"wrote {chart}" in out
    assert [each["features"] for each in json.loads(rows.read_text())] == ["trained", "untrained"] * 2
    with Image.open(chart) as picture:
        assert picture.width > 600 and len(picture.getcolors(1 << 20) or ()) > 50
    began = time.process_time()
    assert main([*words, "--out", str(tmp_path / "chart.pgn")]) == 2
    assert "did you mean '.png'?" in capsys.readouterr().err and time.process_time() - began < 0.5


def test_a_chart_puts_larger_values_further_right() -> None:
    def reach(value: float) -> int:
        """The column of the first series' dot, the only thing of its colour but for the legend above it."""
        bars = [Bar("a", "", [(value, value, value)]), Bar("b", "", [(0, 0, 100)])]
        picture = np.asarray(interval_chart(bars, ["k-NN"], title="t"))
        blue = (np.abs(picture.astype(int) - (31, 95, 174)).sum(axis=2) < 10)[85:140]
        return int(np.flatnonzero(blue.sum(axis=0) >= 8).mean())

    columns = [reach(value) for value in (0, 25, 50, 100)]
    steps = np.diff(columns)
    assert steps[1] == pytest.approx(steps[0], abs=3) and steps[2] == pytest.approx(2 * steps[0], abs=4)
