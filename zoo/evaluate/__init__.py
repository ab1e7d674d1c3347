"""What a frozen model is worth: k-NN and linear accuracy of its features, and the error of its reconstructions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.evaluate.baselines import raw_pixels
from zoo.evaluate.filling import filling_scores
from zoo.evaluate.intervals import resampled
from zoo.evaluate.knn import knn_accuracy, knn_predict
from zoo.evaluate.linear import linear_accuracy, linear_probe
from zoo.extraction import extract
from zoo.protocols import FROZEN, PIXELS, PROTOCOLS, TRAINED, UNTRAINED, check_protocols
from zoo.sources import Source, classes_of

if TYPE_CHECKING:
    from zoo.encoder import Encoder

__all__ = [
    "evaluate_frozen",
    "filling_scores",
    "frozen_scores",
    "knn_accuracy",
    "knn_predict",
    "linear_accuracy",
    "linear_probe",
    "measure",
    "pixel_scores",
]


def measure(
    encoder: Encoder,
    train: Source,
    test: Source,
    protocols: Sequence[str] = ("knn",),
    *,
    baselines: bool = False,
    seed: int = 0,
    **settings: Any,
) -> list[dict[str, Any]]:
    """A JSON-able row for each protocol; with `baselines` also for the architecture untrained and for raw pixels.

    settings: those of `frozen_scores`. Raises Unsupported (no such protocol, no decoder), DataError.
    """
    check_protocols(protocols, PROTOCOLS)
    frozen = [protocol for protocol in protocols if protocol in FROZEN]
    rows = []
    if frozen:
        rows += frozen_scores(encoder, train, test, frozen, seed=seed, **settings)
    if frozen and baselines:
        from zoo.loading import untrained

        again = frozen_scores(untrained(encoder, seed), train, test, frozen, seed=seed, **settings)
        rows += [{**row, "features": UNTRAINED} for row in again]
        votes = {name: settings[name] for name in ("k", "temperature") if name in settings}
        rows += pixel_scores(encoder, train, test, frozen, seed=seed, **votes)
    if "reconstruction" in protocols:
        rows.append(filling_scores(encoder, test, seed=seed))
    return rows


def pixel_scores(
    encoder: Encoder,
    train: Source,
    test: Source,
    protocols: Sequence[str] = ("knn",),
    **settings: Any,
) -> list[dict[str, Any]]:
    """The rows of `frozen_scores` for images as 16×16 pixels in [0, 1], cropped as the encoder crops them.

    settings: k, temperature and seed, as there.
    """
    bank, queries = (raw_pixels(source, encoder.transform) for source in (train, test))
    facts = {"features": PIXELS, **facts_of(encoder, train, test, len(bank[0]), len(queries[0]))}
    return [_row(protocol, bank, queries, facts, **settings) for protocol in protocols]


def evaluate_frozen(
    encoder: Encoder, train: Source, test: Source, protocol: str = "knn", **settings: Any
) -> dict[str, Any]:
    """One protocol's row of `frozen_scores`.

    >>> train, test, _ = train_and_test("imagenette160/")
    >>> evaluate_frozen(encoder, train, test, "knn")["top1"]
    """
    return frozen_scores(encoder, train, test, (protocol,), **settings)[0]


def frozen_scores(
    encoder: Encoder,
    train: Source,
    test: Source,
    protocols: Sequence[str] = FROZEN,
    *,
    k: int = 20,
    temperature: float = 0.07,
    seed: int = 0,
    batch_size: int | None = None,
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """Top-1 accuracy in percent on `test` by each protocol, with its 95 % interval; features are extracted once.

    A JSON-able dict each. k, temperature: of k-NN. seed: of the images the linear probe is tuned on, and of intervals.
    Raises Unsupported (no such protocol), DataError (unlabelled images, a single class).
    """
    check_protocols(protocols, FROZEN)
    classes_of(train, test)  # before the long part
    bank = _features(encoder, train, batch_size, workers)
    queries = _features(encoder, test, batch_size, workers)
    facts = {"features": TRAINED, **facts_of(encoder, train, test, len(bank[0]), len(queries[0]))}
    return [
        _row(protocol, bank, queries, facts, seed=seed, k=k, temperature=temperature)
        for protocol in protocols
    ]


def facts_of(encoder: Encoder, train: Source, test: Source, n_train: int, n_test: int) -> dict[str, Any]:
    """What the rows of one measurement share."""
    return {
        "model": encoder.card.name,
        "train": train.title,
        "test": test.title,
        "n_train": n_train,
        "n_test": n_test,
        "classes": classes_of(train, test),
        "skipped": len(train) + len(test) - n_train - n_test,
        "settings": _seen(encoder),
    }


def _row(
    protocol: str,
    bank: tuple[Tensor, Tensor],
    queries: tuple[Tensor, Tensor],
    facts: dict[str, Any],
    *,
    seed: int = 0,
    k: int = 20,
    temperature: float = 0.07,
) -> dict[str, Any]:
    """One row of scores. bank, queries: features (N, D) and labels (N,)."""
    if protocol == "knn":
        classes = facts["classes"]
        predicted = knn_predict(*bank, queries[0], k=k, temperature=temperature, classes=classes)
        used: dict[str, Any] = {"k": min(k, len(bank[0])), "temperature": temperature}
    else:
        probe = linear_probe(*bank, seed=seed)
        predicted = probe.predict(queries[0])
        used = {"l2": probe.l2, "seed": seed}
    score = resampled((predicted.cpu() == queries[1].cpu()).numpy(), seed)
    return {
        "protocol": protocol,
        **dataclasses.asdict(score),
        **facts,
        "settings": {**used, **facts["settings"]},
    }


def _features(
    encoder: Encoder, source: Source, batch_size: int | None, workers: int | None
) -> tuple[Tensor, Tensor]:
    """Pooled features and labels on the encoder's device; (N, D), (N,)."""
    _, labels, arrays = extract(encoder, source, batch_size=batch_size, workers=workers)
    pooled, label = torch.from_numpy(arrays["pooled"]), torch.as_tensor(labels)
    return pooled.to(encoder.device), label.to(encoder.device)


def _seen(encoder: Encoder) -> dict[str, Any]:
    """How the encoder saw the images."""
    transform = encoder.transform
    return {"size": transform.size, "crop_pct": transform.crop_pct, "interpolation": transform.interpolation}
