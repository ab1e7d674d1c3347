"""Low-shot: balanced, seeded, nested subsets, and the mean of their draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.encoder import Encoder
from zoo.errors import DataError, RecipeError
from zoo.sources import open_source, train_and_test
from zoo.training.tuning import lowshot
from zoo.training.tuning.lowshot import balanced, draw_seed, lowshot_recipe, lowshot_rows
from zoo.training.tuning.trained import FEW_CLASSES, Task, forget, told_right

QUICK = ["--data.workers", "0", "--run.threads", "1", "--schedule.epochs", "2"]


@pytest.mark.parametrize(("share", "each"), [(0.01, 1), (0.1, 2), (0.25, 6), (0.5, 12), (1.0, 24)])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_class_gives_as_many(share: float, each: int, seed: int, paints: Path) -> None:
    whole = open_source(paints, "train")
    few = balanced(whole, share, seed)
    assert few.labels is not None and Counter(few.labels) == {0: each, 1: each, 2: each}
    assert set(few.ids) <= set(whole.ids) and len(set(few.ids)) == 3 * each
    labels = dict(zip(whole.ids, whole.labels or [], strict=True))
    assert [labels[name] for name in few.ids] == few.labels
    assert few.ids == balanced(whole, share, seed).ids


def test_smaller_shares_lie_in_larger_ones_and_seeds_differ(paints: Path) -> None:
    whole = open_source(paints, "train")
    drawn = {
        (share, seed): set(balanced(whole, share, seed).ids) for share in (0.01, 0.1, 0.5) for seed in (0, 1)
    }
    for seed in (0, 1):
        assert drawn[0.01, seed] < drawn[0.1, seed] < drawn[0.5, seed]
    assert drawn[0.5, 0] != drawn[0.5, 1]


def test_a_rare_class_gives_all_it_has(paints: Path) -> None:
    whole = open_source(paints, "train")
    rare = whole.subset([*range(3), *range(24, 72)])  # three, 24 and 24
    assert Counter(balanced(rare, 0.5, 0).labels or []) == {0: 3, 1: 8, 2: 8}


def test_the_papers_shares() -> None:
    """Five draws of 1 %, one of 10 %, for SimCLR's epochs (2002.05709, B.5)."""
    assert lowshot.SHARES == {0.01: 5, 0.1: 1}
    assert lowshot.EPOCHS == {0.01: 60, 0.1: 30}


def test_both_shares_and_the_mean_of_draws(
    paints: Path, encoder_of: Callable[[str], Encoder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lowshot, "SHARES", {0.1: 2, 0.5: 1})
    train, test, _ = train_and_test(paints)
    task = Task(encoder_of("vit"), train, test, 3, seed=5, knobs=QUICK, work=tmp_path)
    few, more = lowshot_rows(task)
    assert (few["share"], few["settings"]["labels"], few["n_train"]) == (0.1, 6, 6)
    assert (more["share"], more["settings"]["labels"]) == (0.5, 36)
    assert few["top1"] == pytest.approx(np.mean(few["settings"]["draws"]), abs=0.01)
    assert len(few["settings"]["draws"]) == 2 and "draws" not in more["settings"]
    assert len([*tmp_path.iterdir()]) == 3
    forget(task)  # the fits of every draw
    assert not [*tmp_path.iterdir()]
    alone = [
        lowshot_rows(
            Task(encoder_of("vit"), train, test, 3, seed=seed, knobs=QUICK, work=tmp_path), share=0.3
        )
        for seed in (5, 6)
    ]
    assert alone[0][0]["settings"]["labels"] == alone[1][0]["settings"]["labels"] == 21


def test_a_share_that_cannot_be_so_small_is_told(
    paints: Path, encoder_of: Callable[[str], Encoder], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    train, test, _ = train_and_test(paints)
    task = Task(encoder_of("vit"), train, test, 3, knobs=[*QUICK, "--schedule.epochs", "1"], work=tmp_path)
    lowshot_rows(task, share=0.005)
    assert "too small for 0.5% of the labels" in caplog.text and "makes 4.17% of the labels" in caplog.text


def test_no_two_evaluations_share_a_draw() -> None:
    drawn = [draw_seed(seed, draw) for seed in range(100) for draw in range(5)]
    assert len(set(drawn)) == len(drawn) and all(0 <= each < 2**63 for each in drawn)
    assert [draw_seed(seed, 0) for seed in (0, 7)] == [0, 7]  # the 1 % of a seed lie in its 10 %
    assert draw_seed(3, 2) == draw_seed(3, 2)


def test_few_labels_are_enough_for_an_easy_task(paints: Path, encoder_of: Callable[[str], Encoder]) -> None:
    knobs = [*QUICK[:4], "--schedule.epochs", "20", "--optim.lr", "2e-2"]
    row = zoo.training.evaluate(encoder_of("vit"), paints, protocol="lowshot", share=0.25, knobs=knobs)
    assert row["settings"]["labels"] == 18 and row["low"] > 40  # chance: 33


def test_small_data_gets_its_steps(paints: Path, encoder_of: Callable[[str], Encoder]) -> None:
    train, test, _ = train_and_test(paints)
    task = Task(encoder_of("vit"), train, test, 3)
    for images in (6, 60, 900, 90_000):
        recipe = lowshot_recipe(task, 0.1, images)
        steps = recipe.schedule.epochs * (images // recipe.optim.batch)
        assert steps >= 500 and recipe.optim.batch <= images
        assert recipe.schedule.epochs == 30 or steps < 560
    assert lowshot_recipe(task, 0.01, 90_000).schedule.epochs == 60


def test_what_cannot_be_drawn_is_told(paints: Path, encoder_of: Callable[[str], Encoder]) -> None:
    with pytest.raises(RecipeError, match=r"share is 2; give a share of the labels in \(0, 1\]"):
        zoo.training.evaluate(encoder_of("vit"), paints, protocol="lowshot", share=2)
    train, test, _ = train_and_test(paints)
    with pytest.raises(DataError, match="has 1 image"):
        lowshot_rows(Task(encoder_of("vit"), train.subset([0]), test, 3, knobs=QUICK), share=0.5)


def test_top5_where_there_are_many_classes(paints: Path, encoder_of: Callable[[str], Encoder]) -> None:
    import torch

    train, test, _ = train_and_test(paints)
    tiny = encoder_of("vit")
    count = FEW_CLASSES + 2
    logits = torch.zeros(count)
    logits[[7, 3, 2, 9]] = torch.tensor([5.0, 4.0, 3.0, 2.0])
    logits[0] = 1.0
    told = told_right(Task(tiny, train, test, count), tiny.module, lambda x: logits.expand(len(x), -1))
    labels = np.array(test.labels)
    assert told[1].tolist() == (labels == 7).tolist()
    assert told[5].tolist() == np.isin(labels, [7, 3, 2, 9, 0]).tolist()
    assert set(
        told_right(Task(tiny, train, test, 3), tiny.module, lambda x: logits[:3].expand(len(x), -1))
    ) == {1}
