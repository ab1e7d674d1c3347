"""The supervised baseline: its loss, and labels that reach it and no other method."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator

import zoo
from zoo.errors import DataError, RecipeError
from zoo.sources import open_source
from zoo.training.data import CutViews, Order, loader
from zoo.training.engine import run
from zoo.training.methods import Step, method_names, recipe
from zoo.training.methods.supervised import Supervised
from zoo.training.recipe import Recipe

STEP, NOISE = Step(0, 100, 10), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_the_loops(smoothing: float, tiny: Callable[..., Recipe]) -> None:
    turned = tiny("supervised/smoke", method={"classes": 4, "smoothing": smoothing})
    method = turned.method.build(turned)
    pixels = torch.randn(3, 3, 32, 32, generator=Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 3])
    loss, logs = method([pixels], STEP, NOISE, labels=labels)
    assert isinstance(method, Supervised)
    logits = method.head(method.backbone(pixels)).tolist()
    slow, right = 0.0, 0
    for row, label in zip(logits, labels.tolist(), strict=True):
        total = math.log(sum(math.exp(x) for x in row))
        target = [smoothing / 4 + (1 - smoothing) * (c == label) for c in range(4)]
        slow -= sum(t * (x - total) for t, x in zip(target, row, strict=True)) / 3
        right += row.index(max(row)) == label
    assert loss.item() == pytest.approx(slow, rel=1e-5)
    assert float(logs["accuracy"]) == pytest.approx(right / 3)
    assert float(logs["chance"]) == pytest.approx(
        math.log(4)
    )  # three images of two classes: too few to count


@pytest.mark.parametrize(("cache", "workers"), [(True, 0), (False, 0), (False, 1)])
def test_a_label_stays_with_its_image(cache: bool, workers: int, photos: Path, tmp_path: Path) -> None:
    data = shutil.copytree(photos / "train", tmp_path / "train")
    broken = data / "cat" / "05.jpg"  # the last of its class: a dog stands in for it, or nothing
    broken.write_bytes(broken.read_bytes()[:300])
    source = open_source(data)
    assert source.labels is not None
    whole = {
        tuple(
            CutViews(source, lambda image, _: [image], 0, 40, True)[(0, i)].views[0].flatten()[:50].tolist()
        )
        for i in range(5)
    }
    dataset = CutViews(source, lambda image, _: [image], 0, 40, cache)
    for batch in loader(dataset, Order(len(dataset), 1, 0, 0, len(dataset)), workers):
        assert batch.labels is not None
        is_cat = tuple(batch.views[0][0].flatten()[:50].tolist()) in whole
        assert batch.labels.tolist() == [0 if is_cat else 1]


def test_it_trains_to_a_folder_that_says_what_it_is(
    tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    turned = tiny("supervised/smoke", schedule={"epochs": 2})
    encoder = zoo.load(run(turned, photos, tmp_path / "run"), device="cpu")
    card = encoder.card
    assert (card.kind, card.method, card.approach, card.tags) == (
        *("supervised", "supervised", "supervised"),
        ("supervised", "timm"),
    )
    assert encoder(photos / "val/cat/00.jpg").pooled.shape == (1, 64)


def test_images_without_labels_are_refused(tiny: Callable[..., Recipe], photos: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(photos / "train" / "cat", flat)
    with pytest.raises(
        DataError, match="flat has no labels to learn: lay its images in one sub-folder per class"
    ):
        run(tiny("supervised/smoke"), flat, tmp_path / "run")


def test_more_classes_than_the_head_tells_apart_are_refused(
    tiny: Callable[..., Recipe], tmp_path: Path, photos: Path
) -> None:
    data = shutil.copytree(photos / "train", tmp_path / "train")
    shutil.copytree(photos / "train" / "cat", data / "zebra")
    with pytest.raises(RecipeError, match=r"--method\.classes is 2, and .*, train has 3; give as many"):
        run(tiny("supervised/smoke", method={"classes": 2}), data, tmp_path / "run", test=photos / "val")


@pytest.mark.parametrize("name", [name for name in method_names() if name != "supervised"])
def test_no_other_method_can_be_told_a_label(name: str) -> None:
    smoke = recipe(f"{name}/smoke")
    method = smoke.method.build(smoke)
    assert method.classes is None
    with pytest.raises(TypeError, match="unexpected keyword argument 'labels'"):
        method([], STEP, NOISE, labels=torch.tensor([0, 1]))
