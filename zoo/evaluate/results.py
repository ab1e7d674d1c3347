"""Scores as the results of a model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from zoo.cards import ModelCard, Result
from zoo.protocols import SPEED, TRAINED, share_of_labels
from zoo.sources import Source

# Found by the evaluation itself: another run of the same protocol may find another.
_OUTCOMES = {"l2", "chosen lr", "interval", "minutes", "draws", "head", "box_side"}
_OUTCOMES |= {"images/s", "ResNet-50's images/s", "quartiles", "hardware"}


# Numbers of a reconstruction that belong on a card, and what they are called there.
_RECONSTRUCTION = {
    "error": "error on hidden pixels",
    "mean_fill": "error of the mean colour",
    "smooth_fill": "error of a smooth fill",
    "ratio": "error over the mean colour's",
}


def results_of(row: dict[str, Any], test: Source, command: str) -> list[Result]:
    """A row of `measure` on `test` as a card states it; `command` measures it again."""
    if row["protocol"] == "reconstruction":
        settings = {"images": row["n_test"], **row["settings"]}
        values = [(metric, round(row[key], 4), "") for key, metric in _RECONSTRUCTION.items()]
    else:
        settings = {"images": row["n_test"], "trained on": row["train"], **row["settings"]}
        if "low" in row:
            settings["interval"] = [round(row["low"], 2), round(row["high"], 2)]
        values = [(f"top-{k}", round(row[f"top{k}"], 2), "%") for k in (1, 5) if f"top{k}" in row]
    task = row["protocol"]
    if "share" in row:
        task = f"{task}, {share_of_labels(row['share'])}"
    if row.get("features", TRAINED) != TRAINED:
        task = f"{task}, {row['features']}"
    return [
        Result(
            task=task,
            value=value,
            dataset=test.name,
            metric=metric,
            unit=unit,
            split=test.split or "",
            settings=settings,
            command=command,
        )
        for metric, value, unit in values
    ]


def foreground_results(row: dict[str, Any], command: str) -> list[Result]:
    """A row of `foreground_scores` as a card states it: the model's beside a centred box and the whole image."""
    trained = row["features"] == TRAINED
    values = {"foreground" if trained else f"foreground, {row['features']}": ("iou", "head")}
    if trained:
        values |= {
            "foreground, centred box": ("centre_box", "box_side"),
            "foreground, whole image": ("whole_image", ""),
        }
    shared = {key: each for key, each in row["settings"].items() if key not in ("head", "box_side")}
    found = []
    for task, (key, chosen) in values.items():
        settings = {"images": row["n_test"], **shared}
        if chosen:
            settings[chosen] = row["settings"][chosen]
        found.append(Result(task, round(row[key], 3), row["test"], "IoU", settings=settings, command=command))
    return found


def speed_result(speed: dict[str, Any], command: str) -> Result:
    """What `zoo bench` found beside ResNet-50, the fields of its `Speed`, as a card states it."""
    settings = {
        "size": speed["size"],
        "batch": speed["batch"],
        "threads": speed["threads"],
        "images/s": round(speed["images_per_second"], 1),
        "ResNet-50's images/s": round(speed["resnet50_per_second"], 1),
        "hardware": speed["hardware"],
        "quartiles": [round(speed["low"], 2), round(speed["high"], 2)],
    }
    return Result(
        "speed", round(speed["ratio"], 2), "random pixels", SPEED, settings=settings, command=command
    )


def with_results(card: ModelCard, results: Sequence[Result]) -> ModelCard:
    """The card with these results in place of earlier ones of the same measurement; the others stay, in their order."""
    new = {_measurement(result): result for result in results}
    kept = [new.pop(_measurement(old), old) for old in card.results]
    return dataclasses.replace(card, results=(*kept, *new.values()))


def _measurement(result: Result) -> tuple[str, ...]:
    """What was measured on what, and how."""
    settings = sorted((key, str(value)) for key, value in result.settings.items() if key not in _OUTCOMES)
    return (result.task, result.metric, result.dataset, result.split, repr(settings))
