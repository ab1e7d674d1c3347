"""Fine-tuning: each layer's learning rate by hand, mixing against loops, and runs that end better than chance."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

import zoo
from zoo.cli import main
from zoo.encoder import Encoder
from zoo.errors import DataError, RecipeError, Unsupported
from zoo.loading import untrained
from zoo.sources import open_source, train_and_test
from zoo.training import engine
from zoo.training.methods import Step
from zoo.training.recipe import Optim, Recipe
from zoo.training.scores import tuned_scores
from zoo.training.tuning.finetune import (
    FinetuneConfig,
    FineTuning,
    finetune_recipe,
    finetune_rows,
    trainable,
)
from zoo.training.tuning.trained import Task, fit

STEP = Step(0, 100, 10)
PLAIN = {"mixup": 0.0, "cutmix": 0.0, "randaugment": 0, "erase": 0.0}
QUICK = ["--data.workers", "0", "--run.threads", "1", "--optim.batch", "12"]


@pytest.fixture
def task(paints: Path, encoder_of: Callable[[str], Encoder]) -> Callable[..., Task]:
    """`task("swin", "--optim.lr", "1e-3")`: that encoder on the paints."""
    train, test, _ = train_and_test(paints)

    def make(family: str = "vit", *knobs: str, **other: Any) -> Task:
        return Task(encoder_of(family), train, test, 3, knobs=[*QUICK, *knobs], **other)

    return make


def tuning(task: Task, **knobs: Any) -> FineTuning:
    """Without drop path and, where no knob is given, without any mixing or augmentation."""
    recipe = finetune_recipe(dataclasses.replace(task, knobs=[*task.knobs, "--arch.drop_path", "0"]))
    return FineTuning(FinetuneConfig(**{**PLAIN, **knobs}), recipe, task.encoder, task.classes)


def rates(method: FineTuning) -> dict[str, float]:
    names = {id(p): name for name, p in method.backbone.named_parameters()}
    groups = method.param_groups(OPTIM)
    return {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}


OPTIM = Optim()
FAMILY_NAMES = ["vit", "vit, the mean", "beit", "eva", "xcit", "swin", "swin, UM-MAE's", "pvt", "resnet"]

# Layers from the image up, with the head as the last, counted by hand from each paper's or timm's description.
BY_HAND = {
    "vit": (
        8,  # patches, six blocks with the final norm in the last, head
        {
            "cls_token": 0,
            "pos_embed": 0,
            "patch_embed.proj.weight": 0,
            "norm.weight": 6,
            "classifier.weight": 7,
        }
        | {f"blocks.{i}.mlp.fc1.weight": i + 1 for i in range(6)},
    ),
    "swin": (
        8,  # patches, 2 + 1 + 1 + 2 blocks, head; merging belongs to the first block after it
        {
            "patch_embed.proj.weight": 0,
            "layers.0.blocks.0.attn.qkv.weight": 1,
            "layers.0.blocks.1.attn.qkv.weight": 2,
            "layers.1.downsample.reduction.weight": 3,
            "layers.1.blocks.0.attn.qkv.weight": 3,
            "layers.2.blocks.0.mlp.fc2.weight": 4,
            "layers.3.blocks.0.attn.relative_position_bias_table": 5,
            "layers.3.blocks.1.attn.proj.bias": 6,
            "norm.weight": 6,
            "classifier.bias": 7,
        },
    ),
    "pvt": (
        6,  # patches, one block in each of four stages, head; what enters a stage belongs to its first block
        {
            "patch_embed.proj.weight": 0,
            "stages.0.pos_embed": 1,
            "stages.1.downsample.proj.weight": 2,
            "stages.1.blocks.0.mlp.fc1.weight": 2,
            "stages.2.pos_embed": 3,
            "stages.3.downsample.norm.bias": 4,
            "cls_token": 4,
            "cls_position": 4,
            "norm.weight": 4,
            "classifier.weight": 5,
        },
    ),
    "resnet": (
        6,  # stem, one block in each of four stages, head
        {
            "conv1.0.weight": 0,
            "bn1.weight": 0,
            "layer1.0.conv1.weight": 1,
            "layer2.0.conv2.weight": 2,
            "layer3.0.bn1.weight": 3,
            "layer4.0.conv1.weight": 4,
            "classifier.weight": 5,
        },
    ),
}


@pytest.mark.parametrize("family", BY_HAND)
def test_each_layer_learns_at_its_rate_by_hand(family: str, task: Callable[..., Task]) -> None:
    method = tuning(task(family), layer_decay=0.5)
    layers, expected = BY_HAND[family]
    found = rates(method)
    assert found.keys() == dict(method.backbone.named_parameters()).keys()
    for name, layer in expected.items():
        assert found[name] == 0.5 ** (layers - 1 - layer), name
    assert set(found.values()) == {0.5**i for i in range(layers)}
    assert set(rates(tuning(task(family), layer_decay=1.0)).values()) == {1.0}


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_only_the_head_and_a_norm_after_the_pooling_learn_at_full_rate(
    family: str, task: Callable[..., Task]
) -> None:
    """A parameter whose layer nobody named would."""
    found = rates(tuning(task(family), layer_decay=0.5))
    full = {name.split(".")[0] for name, rate in found.items() if rate == 1}
    assert "classifier" in full and full <= {"classifier", "fc_norm"} and min(found.values()) < 0.5


@pytest.mark.parametrize("family", ["vit", "pvt"])
def test_positions_tokens_biases_and_norms_do_not_decay(family: str, task: Callable[..., Task]) -> None:
    method = tuning(task(family))
    names = {id(p): name for name, p in method.backbone.named_parameters()}
    decays = {
        names[id(p)] for group in method.param_groups(OPTIM) if group["decays"] for p in group["params"]
    }
    assert decays == {
        name
        for name, p in method.backbone.named_parameters()
        if p.ndim > 1 and name.rpartition(".")[2] not in ("cls_token", "cls_position", "pos_embed")
    }


def soft(label: int, classes: int, smoothing: float) -> list[float]:
    return [smoothing / classes + (1 - smoothing) * (c == label) for c in range(classes)]


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0), (0.0, 0.0)])
def test_the_loss_is_that_of_mixed_images_and_labels(
    mixup: float, cutmix: float, task: Callable[..., Task], randomise: Callable[..., None]
) -> None:
    """A mixture is found from the pixels alone: each image with its mirror in the batch, one share for the batch."""
    method = tuning(task(), mixup=mixup, cutmix=cutmix)
    randomise(method)
    method.train()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    pixels = torch.arange(1.0, 7)[:, None, None, None].expand(6, 3, 32, 32)  # image i is all i + 1
    seen: list[Tensor] = []
    features = method.family.features
    for seed in range(5):
        noise = torch.full((6,), seed)
        method.family = type("Spy", (), {"features": lambda _, m, x: (seen.append(x), features(m, x))[1]})()
        loss, _ = method([pixels.clone()], STEP, noise, labels=labels)
        mixed = seen[-1]
        # Of image 0 and its partner 5: share lam of 1 and the rest of 6, so that the mean tells lam.
        lam = (6 - mixed[0].mean().item()) / 5
        for i in range(6):
            assert mixed[i].mean().item() == pytest.approx(lam * (i + 1) + (1 - lam) * (6 - i), rel=1e-4)
        if not mixup and not cutmix:
            assert lam == pytest.approx(1)
        values = set(mixed[0].flatten().tolist())
        assert len(values) == 1 or (cutmix and values <= {1.0, 6.0})
        logits = method.head(features(method.backbone, mixed).pooled).tolist()
        slow = 0.0
        for i, row in enumerate(logits):
            total = math.log(sum(math.exp(x) for x in row))
            own, other = soft(int(labels[i]), 3, 0.1), soft(int(labels[5 - i]), 3, 0.1)
            target = [lam * a + (1 - lam) * b for a, b in zip(own, other, strict=True)]
            slow -= sum(t * (x - total) for t, x in zip(target, row, strict=True)) / 6
        assert loss.item() == pytest.approx(slow, rel=1e-3)


def test_nothing_is_mixed_or_drawn_outside_training(task: Callable[..., Task]) -> None:
    method = tuning(task(), mixup=0.8).eval()
    pixels = torch.randn(4, 3, 32, 32, generator=Generator().manual_seed(0))
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    losses = {
        method([pixels], STEP, torch.full((4,), seed), labels=torch.tensor([0, 1, 2, 0]))[0].item()
        for seed in (0, 1)
    }
    method.views()(torch.zeros(3, 40, 40, dtype=torch.uint8), Generator().manual_seed(0))
    assert len(losses) == 1
    assert before[0] == random.getstate() and before[1] == np.random.get_state()[1].tolist()
    assert torch.equal(before[2], torch.get_rng_state())


def test_a_view_repeats_and_each_augmentation_shows(task: Callable[..., Task]) -> None:
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8, generator=Generator().manual_seed(0))
    views = {}
    for name, knobs in {"plain": {}, "randaugment": {"randaugment": 9}, "erase": {"erase": 0.99}}.items():
        cut = tuning(task(), **knobs).views()
        [first], [again] = (cut(image, Generator().manual_seed(7)) for _ in range(2))
        assert torch.equal(first, again) and first.shape == (3, 32, 32)
        assert not torch.equal(first, cut(image, Generator().manual_seed(8))[0])
        views[name] = first
    assert not torch.equal(views["plain"], views["randaugment"])
    same = (views["plain"] == views["erase"]).all(0).float().mean()
    assert 0.5 < same < 0.99  # a box of 2 % to a third is filled


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_family_begins_as_it_was_and_learns_throughout(family: str, task: Callable[..., Task]) -> None:
    chosen = task(family)
    method = tuning(chosen)
    size = chosen.encoder.size
    pixels = torch.randn(4, 3, size, size, generator=Generator().manual_seed(0))
    with torch.no_grad():
        pooled = method.family.features(method.backbone.eval(), pixels).pooled
        torch.testing.assert_close(pooled, chosen.encoder.forward_features(pixels).pooled)
    method.train()
    torch.nn.init.normal_(method.head.weight)
    loss, _ = method([pixels], STEP, torch.zeros(4, dtype=torch.int64), labels=torch.tensor([0, 1, 2, 0]))
    loss.backward()  # type: ignore[no-untyped-call]
    without = {name for name, p in method.backbone.named_parameters() if p.grad is None}
    assert not without, without
    own = {id(p) for p in chosen.encoder.module.parameters()}
    assert not own & {
        id(p) for p in method.backbone.parameters()
    }  # the model that is evaluated stays as it is


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_paths_are_dropped_as_asked(family: str, task: Callable[..., Task]) -> None:
    """By none of the rates that timm's networks have of their own."""
    chosen = task(family)
    for rate in (0.0, 0.3):
        module = trainable(chosen.encoder, rate)
        rates = [float(getattr(part, "drop_prob", 0.0) or 0.0) for part in module.modules()]
        assert max(rates) == pytest.approx(rate)


def test_it_ends_better_than_chance_and_says_how(paints: Path, encoder_of: Callable[[str], Encoder]) -> None:
    turned = "--schedule.epochs 8 --optim.lr 2e-2 --method.mixup 0 --method.randaugment 0"
    knobs = [*QUICK, *turned.split()]
    row = zoo.training.evaluate(encoder_of("vit"), paints, protocol="finetune", knobs=knobs, seed=3)
    assert json.loads(json.dumps(row)) == row
    assert 60 < row["low"] <= row["top1"] <= row["high"]  # chance: 33
    assert (row["protocol"], row["features"], row["n_train"], row["n_test"]) == (
        "finetune",
        "trained",
        72,
        30,
    )
    told = {
        key: row["settings"][key]
        for key in ("labels", "epochs", "batch", "lr", "seed", "size", "mixup", "cutmix")
    }
    asked = {
        "labels": 72,
        "epochs": 8,
        "batch": 12,
        "lr": 2e-2,
        "seed": 3,
        "size": 32,
        "mixup": 0.0,
        "cutmix": 1.0,
    }
    assert told == asked
    assert row["minutes"] > 0 and "top5" not in row


def test_from_scratch_stands_beside_it_without_layer_decay(task: Callable[..., Task]) -> None:
    asked = task("resnet", "--schedule.epochs", "1")
    rows = tuned_scores(
        asked.encoder, asked.train, asked.test, ["finetune"], baselines=True, knobs=asked.knobs
    )
    assert [(row["features"], row["settings"]["layer_decay"]) for row in rows] == [
        ("trained", 0.85),
        ("from scratch", 1.0),
    ]
    assert rows[0]["settings"]["epochs"] == rows[1]["settings"]["epochs"] == 1


class Killed(Exception):
    """The machine died."""


def test_a_killed_one_goes_on_to_the_same_score(
    task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = ("--schedule.epochs", "2", "--optim.lr", "1e-2", "--run.checkpoint_minutes", "0")
    whole = finetune_rows(task("vit", *knobs, work=tmp_path / "whole"))
    step, steps = engine.train_step, []

    def dies(*words: Any) -> Any:
        steps.append(1)
        if len(steps) == 8:
            raise Killed
        return step(*words)

    monkeypatch.setattr(engine, "train_step", dies)
    with pytest.raises(Killed):
        finetune_rows(task("vit", *knobs, work=tmp_path / "cut"))
    assert len([*(tmp_path / "cut").glob("*/checkpoint.pt")]) == 1
    [again] = finetune_rows(task("vit", *knobs, work=tmp_path / "cut"))
    assert len(steps) == 8 + 12 - 7  # the seven that were done are not done again
    assert again["top1"] == whole[0]["top1"]


def test_what_is_done_is_not_done_again_until_all_scores_are_there(
    task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its last step, from scratch, it has two finished fits: that step and the scores are left to do."""
    chosen = task("vit", "--schedule.epochs", "1", "--run.checkpoint_minutes", "0", "--method.mixup", "0")
    step, steps = engine.train_step, []

    def dies(*words: Any) -> Any:
        steps.append(1)
        if len(steps) == 3 * 6:
            raise Killed
        return step(*words)

    def scores() -> list[dict[str, Any]]:
        given = (chosen.encoder, chosen.train, chosen.test, ["finetune"])
        return tuned_scores(*given, baselines=True, knobs=chosen.knobs, work=tmp_path)

    monkeypatch.setattr(engine, "train_step", dies)
    whole = scores()
    assert len(steps) == 2 * 6 and not [*tmp_path.iterdir()]
    steps[:] = [1] * 6
    with pytest.raises(Killed):
        scores()
    assert len([*tmp_path.glob("*/checkpoint.pt")]) == 2
    steps.clear()
    assert [each["top1"] for each in scores()] == [each["top1"] for each in whole]
    assert len(steps) == 1 and not [*tmp_path.iterdir()]


def test_from_scratch_begins_by_the_seed(task: Callable[..., Task]) -> None:
    encoder = task("vit").encoder
    first, again, other = (untrained(encoder, seed).module.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


def test_the_seed_decides_and_other_settings_get_another_folder(
    task: Callable[..., Task], tmp_path: Path
) -> None:
    def once(*knobs: str) -> tuple[Path, Tensor]:
        chosen = task("vit", "--schedule.epochs", "1", *knobs, work=tmp_path)
        recipe = finetune_recipe(chosen)
        method = FineTuning(FinetuneConfig(), recipe, chosen.encoder, 3)
        fit(chosen, method, recipe, chosen.train)
        return chosen.fits[0], method.head.weight.detach()

    first, second = once(), once("--optim.lr", "1e-2")
    assert first[0] != second[0] and not torch.equal(first[1], second[1])


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        (["--method.mixup", "-1"], "alphas"),
        (["--optim.batch", "9"], r"--optim\.batch is 9, and mixing takes pairs; give 10"),
        (["--method.layer_decay", "0"], r"--method\.layer_decay is 0\.0; give a share in \(0, 1\]"),
        (["--method.randaugment", "11"], "magnitude from 0 to 10"),
        (["--method.smoothing", "1"], "give a share in"),
        (["--arch.name", "resnet18"], r"of --arch\.… only --arch\.drop_path can be turned"),
        (["--run.seed", "4"], "given as --seed"),
        (["--method.mixupp", "1"], "did you mean 'method.mixup'"),
        (["--data.limit", "5"], r"--data\.limit does nothing in an evaluation: --limit takes fewer images"),
        (["--run.minutes", "5"], r"--run\.minutes does nothing .*--schedule\.steps"),
    ],
)
def test_knobs_that_cannot_work_are_told(knobs: list[str], says: str, task: Callable[..., Task]) -> None:
    with pytest.raises(RecipeError, match=says):
        finetune_rows(task("vit", *knobs))


def test_a_knob_that_is_not_of_every_protocol_names_the_one(task: Callable[..., Task]) -> None:
    chosen = task("vit", "--optim.betas", "0.9", "0.95")
    given = (chosen.encoder, chosen.train, chosen.test)
    with pytest.raises(RecipeError, match=r"^linear_sgd: .*--optim\.betas"):
        tuned_scores(*given, ["finetune", "linear_sgd"], knobs=chosen.knobs)
    with pytest.raises(RecipeError, match=r"^--optim\.betas"):
        tuned_scores(*given, ["linear_sgd"], knobs=chosen.knobs)


def test_a_row_tells_steps_where_steps_were_asked(task: Callable[..., Task]) -> None:
    (row,) = finetune_rows(task("vit", "--schedule.steps", "2"))
    assert row["settings"]["steps"] == 2 and "epochs" not in row["settings"]


def test_what_cannot_be_tuned_is_told(paints: Path, task: Callable[..., Task]) -> None:
    chosen = task()
    graph: Any = type("Graph", (), {"card": chosen.encoder.card})()
    bare: Any = type("Graph", (), {"card": chosen.encoder.card, "module": torch.nn.Identity()})()
    for each in (graph, bare):
        with pytest.raises(RecipeError, match="leave out --backend onnx"):
            tuned_scores(each, chosen.train, chosen.test, ["finetune"])
    with pytest.raises(DataError, match="unlabelled"):
        tuned_scores(chosen.encoder, open_source(paints / "train" / "red"), chosen.test, ["finetune"])
    with pytest.raises(Unsupported, match=r"did you mean 'finetune'.*lowshot"):
        zoo.training.evaluate(chosen.encoder, paints, protocol="finetun")
    recipe: Recipe = finetune_recipe(chosen)
    with pytest.raises(RecipeError, match="zoo evaluate MODEL DATA --protocol finetune"):
        recipe.method.build(recipe)


def test_the_command_writes_the_card(
    paints: Path, tmp_path: Path, encoder_of: Callable[[str], Encoder], capsys: pytest.CaptureFixture[str]
) -> None:
    from zoo.folders import write_folder

    tiny = encoder_of("vit")
    write_folder(tmp_path / "model", tiny.card, tiny.module, None, "# tiny\n")
    words = [
        *(
            "evaluate",
            str(tmp_path / "model"),
            str(paints),
            "--device",
            "cpu",
            "--protocol",
            "finetune",
            "knn",
        ),
        *("--schedule.epochs", "1", *QUICK, "--write-card", "--baselines"),
    ]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "finetune  trained" in out and "finetune  from scratch" in out and " min" in out
    results = {result.task: result for result in zoo.load(tmp_path / "model", device="cpu").card.results}
    assert {"knn", "knn, untrained", "finetune", "finetune, from scratch"} <= results.keys()
    tuned = results["finetune"]
    assert (
        tuned.settings["labels"] == 72
        and tuned.settings["epochs"] == 1
        and len(tuned.settings["interval"]) == 2
    )
    assert tuned.command.endswith("--protocol finetune --baselines --schedule.epochs 1 " + " ".join(QUICK))
    assert main([*words[:-2], "--write-card"]) == 0  # measured again: replaced, though it took other minutes
    again = zoo.load(tmp_path / "model", device="cpu").card.results
    assert [result.task for result in again].count("finetune") == 1
    assert main(["evaluate", str(tmp_path / "model"), str(paints), "--optim.lr", "1e-3"]) == 2
    assert "is a knob of the protocols that train: linear_sgd, lowshot, finetune" in capsys.readouterr().err
