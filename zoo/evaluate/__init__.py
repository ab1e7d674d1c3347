"""What frozen features are worth: k-NN and linear accuracy on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import DataError, Unsupported, did_you_mean
from zoo.evaluate.knn import knn_accuracy, knn_predict
from zoo.evaluate.linear import linear_accuracy, linear_probe
from zoo.extract import extract
from zoo.sources import Source

if TYPE_CHECKING:
    from zoo.encoder import Encoder

__all__ = [
    "PROTOCOLS",
    "evaluate_frozen",
    "frozen_scores",
    "knn_accuracy",
    "knn_predict",
    "linear_accuracy",
    "linear_probe",
]

PROTOCOLS = ("knn", "linear")


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
    protocols: Sequence[str] = PROTOCOLS,
    *,
    k: int = 20,
    temperature: float = 0.07,
    seed: int = 0,
    batch_size: int | None = None,
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """Top-1 accuracy in percent on `test` by each protocol, features extracted once; a JSON-able dict each.

    k, temperature: of k-NN; seed: of the images the linear probe is tuned on.
    Raises Unsupported (no such protocol), DataError (unlabelled images, a single class).
    """
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise Unsupported(
                f"no protocol {protocol!r}{did_you_mean(protocol, PROTOCOLS)}; there are {', '.join(PROTOCOLS)}"
            )
    classes = _classes(train, test)
    bank, bank_labels = _features(encoder, train, batch_size, workers)
    queries, query_labels = _features(encoder, test, batch_size, workers)
    facts = {
        "model": encoder.card.name,
        "train": train.title,
        "test": test.title,
        "n_train": len(bank),
        "n_test": len(queries),
        "classes": classes,
        "skipped": len(train) + len(test) - len(bank) - len(queries),
    }
    rows = []
    for protocol in protocols:
        if protocol == "knn":
            top1 = knn_accuracy(
                bank, bank_labels, queries, query_labels, k=k, temperature=temperature, classes=classes
            )
            used: dict[str, Any] = {"k": min(k, len(bank)), "temperature": temperature}
        else:
            probe = linear_probe(bank, bank_labels, seed=seed)
            top1 = probe.accuracy(queries, query_labels)
            used = {"l2": probe.l2, "seed": seed}
        rows.append({"protocol": protocol, "top1": top1, **facts, "settings": {**used, **_seen(encoder)}})
    return rows


def _classes(train: Source, test: Source) -> int:
    """How many classes there are. Raises DataError where labels are missing or there is nothing to tell apart."""
    if train.labels is None or test.labels is None:
        bare = train if train.labels is None else test
        raise DataError(
            f"{bare.title!r} is unlabelled, so no accuracy can be measured on it; every image must lie in a class "
            "sub-folder, or every row of the parquet have an integer `label`"
        )
    if len(set(train.labels)) < 2:
        raise DataError(f"{train.title!r} has a single class: there is nothing to tell apart")
    return len(train.classes) if train.classes else max(train.labels) + 1


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
