"""Scores of an encoder on labelled data, by protocol: of frozen features, or of what training makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import RecipeError
from zoo.evaluate import measure
from zoo.protocols import PROTOCOLS, TRAINING, check_protocols
from zoo.sources import Source, classes_of, train_and_test

if TYPE_CHECKING:
    from zoo.encoder import Encoder
    from zoo.training.tuning.trained import Task


def evaluate(
    encoder: Encoder,
    train: str | Path,
    test: str | Path | None = None,
    protocol: str = "knn",
    **settings: Any,
) -> dict[str, Any]:
    """A score and the settings it was measured with.

    protocol: "knn", "linear", "linear_sgd", "lowshot", "finetune" (top-1 in percent, of the last epoch) or
    "reconstruction". test=None: the data's own test split, or a share held out. settings: seed; of k-NN, k and
    temperature; of those that train, `knobs`, a list of words as `zoo evaluate` takes them, and of "lowshot" the
    `share` of labels (0.01). They go on where a call that was killed stopped.

    >>> zoo.training.evaluate(encoder, "imagenette160/", protocol="finetune", knobs=["--schedule.epochs", "10"])["top1"]
    """
    check_protocols([protocol], (*PROTOCOLS, *TRAINING))
    bank, queries, _ = train_and_test(train, test)
    if protocol == "lowshot":
        settings = {"share": 0.01, **settings}
    if protocol in TRAINING:
        return tuned_scores(encoder, bank, queries, [protocol], **settings)[0]
    return measure(encoder, bank, queries, [protocol], **settings)[0]


def tuned_scores(
    encoder: Encoder,
    train: Source,
    test: Source,
    protocols: Sequence[str],
    *,
    baselines: bool = False,
    scratch: bool = False,
    seed: int = 0,
    knobs: Sequence[str] = (),
    work: Path | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """A JSON-able row for each of `TRAINING`'s protocols; with `baselines` also for the architecture from scratch.

    scratch: the encoder's weights are random. knobs: words of a command line, such as --schedule.epochs 10. work: where
    checkpoints lie until all scores are there. settings: of low-shot, its `share` of the labels.
    Raises Unsupported, RecipeError, DataError.
    """
    from zoo.loading import untrained
    from zoo.training.tuning.finetune import finetune_rows
    from zoo.training.tuning.lowshot import lowshot_rows
    from zoo.training.tuning.probe import probe_rows
    from zoo.training.tuning.trained import forget

    asked: dict[str, Any] = {"seed": seed, "knobs": knobs, "work": work, **settings}
    tasks = [tuning_task(encoder, train, test, protocols, scratch=scratch, **asked)]
    if baselines:
        again = untrained(encoder, seed)
        tasks.append(tuning_task(again, train, test, protocols, scratch=True, **asked))
    rows: list[dict[str, Any]] = []
    for protocol in protocols:
        by = {"linear_sgd": probe_rows, "lowshot": lowshot_rows, "finetune": finetune_rows}[protocol]
        for task in tasks:
            rows += by(task, **settings)
    for task in tasks:
        forget(task)
    return rows


def tuning_task(
    encoder: Encoder,
    train: Source,
    test: Source,
    protocols: Sequence[str],
    *,
    scratch: bool = False,
    seed: int = 0,
    knobs: Sequence[str] = (),
    work: Path | None = None,
    **settings: Any,
) -> Task:
    """What those protocols work on, where each of them can begin: told before the hours of another one."""
    from zoo.training.tuning.finetune import finetune_recipe
    from zoo.training.tuning.lowshot import lowshot_recipes
    from zoo.training.tuning.probe import probe_recipe
    from zoo.training.tuning.trained import Task, check_few, check_trainable

    check_protocols(protocols, TRAINING)
    check_trainable(encoder)
    check_few(train)
    task = Task(encoder, train, test, classes_of(train, test), seed, knobs, scratch, work)
    recipes: dict[str, Callable[..., object]] = {
        "linear_sgd": probe_recipe,
        "lowshot": lowshot_recipes,
        "finetune": finetune_recipe,
    }
    for protocol in protocols:
        try:
            recipes[protocol](task, **settings)
        except RecipeError as error:
            if len(protocols) > 1:  # one set of knobs is for all of them: say whose it is not
                error.args = (f"{protocol}: {error}",)
            raise
    return task
