"""Which encoder is best for one's own images: frozen features of several, scored alike, with intervals."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.evaluate.intervals import Score, resampled
from zoo.evaluate.knn import knn_predict
from zoo.evaluate.linear import linear_probe
from zoo.evaluate.seen import told_seen
from zoo.extraction import default_batch, extract, images_hash, read_features, weights_hash
from zoo.files import write_json
from zoo.protocols import TRAINED, UNTRAINED
from zoo.registry import find, home
from zoo.shards import parts
from zoo.sources import Source, classes_of, train_and_test

if TYPE_CHECKING:
    from zoo.encoder import Encoder

_log = logging.getLogger(__name__)

TIMED = 256  # fewer images say little of a speed
_SPEED = "_speed.json"  # hidden from readers that take a folder for one table, as the skipped images are


@dataclass(frozen=True)
class Compared:
    """One encoder on the images of a comparison. images_per_second: with decoding, where they were embedded."""

    model: str
    features: str  # trained, or untrained: the same architecture with random weights
    knn: Score
    linear: Score
    images_per_second: float | None  # None where all features were there and nothing says how long they took
    parameters: int
    licence: str
    n_train: int
    n_test: int

    @property
    def name(self) -> str:
        """The model, and whether it is the untrained one."""
        return self.model if self.features == TRAINED else f"{self.model}, {self.features}"


def compare(
    data: str | Path,
    models: Sequence[str | Path | Encoder],
    *,
    test: str | Path | None = None,
    baselines: bool = False,
    limit: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    cache: str | Path | None = None,
) -> list[Compared]:
    """k-NN and linear accuracy of each model's frozen features on one's own labelled images, in the order of `models`.

    data, test: as `zoo evaluate` takes them; the log says where the test images come from. baselines: a row for each
    architecture untrained, too. limit: at most so many images of either split. seed: of the linear probe and the
    resampling. cache: features are kept here, by default in $ZOO_HOME, and a stopped comparison goes on.
    Raises DataError (unlabelled images, no models), and what `zoo.load` raises.

    >>> for row in zoo.compare("photos/", ["dino_vits16", "mae_vitb16"]):
    ...     print(row.model, row.knn, row.linear)
    """
    if not models or isinstance(models, str):
        raise DataError(f"models={models!r}: give a list of names, folders or encoders, at least one")
    for model in models:
        if isinstance(model, str | Path):
            find(model)  # a misspelt name must not end an hour of the others
    whole, whole_test, origin = train_and_test(data, test)
    train, tested = whole, whole_test
    if limit is not None:
        train, tested = train.spread(limit), tested.spread(limit)
    classes_of(train, tested)
    taken = "" if limit is None else f" Taken: {len(train)} and {len(tested)} of them, evenly spread."
    _log.info("%s%s", origin, taken)
    place = Path(cache).expanduser() if cache else home().parent / "features"
    rows = []
    for model in models:
        from zoo.loading import load, untrained

        encoder = load(str(model), device=device) if isinstance(model, str | Path) else model
        if seen := told_seen(encoder.card, whole, whole_test):
            _log.warning("%s", seen)
        rows.append(_compared(encoder, TRAINED, train, tested, seed, place))
        if baselines:
            rows.append(_compared(untrained(encoder), UNTRAINED, train, tested, seed, place))
    return rows


def _compared(
    encoder: Encoder, features: str, train: Source, test: Source, seed: int, place: Path
) -> Compared:
    """One row: features from the cache or embedded now, and both protocols on them."""
    (bank, labels), train_speed = _features(encoder, features, train, place)
    (queries, truth), test_speed = _features(encoder, features, test, place)
    predicted = {
        "knn": knn_predict(bank, labels, queries, classes=classes_of(train, test)),
        "linear": linear_probe(bank, labels, seed=seed).predict(queries),
    }
    scores = {
        name: resampled((found.cpu() == truth.cpu()).numpy(), seed) for name, found in predicted.items()
    }
    card = encoder.card
    return Compared(
        model=card.name,
        features=features,
        **scores,
        images_per_second=train_speed or test_speed,
        parameters=card.parameters,
        licence=card.licence_name,
        n_train=len(bank),
        n_test=len(queries),
    )


def _features(
    encoder: Encoder, features: str, source: Source, place: Path
) -> tuple[tuple[Tensor, Tensor], float | None]:
    """Pooled features (N, D) and labels (N,) on the encoder's device, and the images/s at which they were made."""
    told = (weights_hash(encoder), repr(encoder.transform), images_hash(source, range(len(source))))
    key = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    folder = place / f"{encoder.card.name}-{features}-{key}".replace("/", "--")
    before = len(parts(folder))
    if not before:
        _warm_up(encoder)
    began = time.perf_counter()
    extract(encoder, source, folder)
    seconds = time.perf_counter() - began
    _, labels, arrays = read_features(folder)
    if before == 0 and len(source) >= TIMED:
        write_json(folder / _SPEED, {"images_per_second": len(source) / seconds})
    speed = folder / _SPEED
    found = json.loads(speed.read_text())["images_per_second"] if speed.is_file() else None
    device = encoder.device
    return (torch.from_numpy(arrays["pooled"]).to(device), torch.as_tensor(labels).to(device)), found


def _warm_up(encoder: Encoder) -> None:
    """One batch of black images: first calls are slow, and no measure of speed."""
    black = np.zeros((64, 64, encoder.transform.channels), np.uint8)
    features = encoder([black] * default_batch(encoder))
    assert not isinstance(features, list)  # all of one size
    features.pooled.cpu()  # and a GPU is done with them


def verdict(rows: Sequence[Compared]) -> list[str]:
    """One sentence a protocol: which trained encoder is ahead, or which ones cannot be told apart by so few images."""
    rows = [row for row in rows if row.features == TRAINED]
    if len(rows) < 2:
        return []
    told = []
    for name, protocol in (("k-NN", "knn"), ("a linear probe", "linear")):
        ranked = sorted(rows, key=lambda row: -getattr(row, protocol).top1)
        first, *others = ranked
        best: Score = getattr(first, protocol)
        level = [row.name for row in others if getattr(row, protocol).high >= best.low]
        if level:
            told.append(
                f"By {name} there is no clear winner: the intervals of {first.name} and {', '.join(level)} overlap "
                f"on {first.n_test} test images; more of them would tell."
            )
        else:
            after: Score = getattr(others[0], protocol)
            told.append(
                f"By {name} {first.name} is best for these images: {best.top1:.1f} %, then {others[0].name} with "
                f"{after.top1:.1f} %; their intervals do not meet."
            )
    return told
