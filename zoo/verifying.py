"""Whether a model folder is what its card says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zoo.errors import CardError, WeightsError
from zoo.files import sha256
from zoo.folders import config_matches
from zoo.loading import build
from zoo.pulling import find
from zoo.registry import WEIGHTS, has_weights
from zoo.weights import fit_report, load_tensors, without_storage
from zoo.weights import verify as verify_file


@dataclass(frozen=True)
class Verification:
    """What was found right: the sha256 of every weight file, and the encoder's parameters."""

    name: str
    folder: Path
    sha256: dict[str, str]
    unstated: tuple[str, ...]  # files whose hash the card does not state: nothing to hold them against
    parameters: int


def verify(name: str | Path) -> Verification:
    """Hash a model's files anew, and hold its config.json, its tensors and its parameter count against its card.

    Raises WeightsError or CardError for the first thing that is not as the card says, or where the weights are not on
    this machine.

    >>> zoo.verify("dino_vitt16_imagenette").parameters
    5499072
    """
    found = find(name)
    if found.repo is not None:
        found = found.fetched()
    card, folder = found.card, found.place
    if not has_weights(folder):
        raise WeightsError(
            f"{card.name}'s weights are not on this machine; `zoo pull {card.name}` fetches them"
        )
    for file, digest in card.sha256.items():
        verify_file(folder / file, digest)
    if not config_matches(folder):
        raise CardError(f"{folder / 'config.json'} does not say what the card does; write the folder anew")
    with without_storage():
        encoder, decoder = build(card)
    for part, file in zip((encoder, decoder), WEIGHTS, strict=True):
        if part is not None and (report := fit_report(part, load_tensors(folder / file))):
            raise WeightsError(f"{folder / file} does not fit {type(part).__name__}:\n{report}")
    count = sum(parameter.numel() for parameter in encoder.parameters())
    if count != card.parameters:
        raise CardError(f"{card.name} has {count} parameters, and its card says {card.parameters}")
    unstated = tuple(file for file in WEIGHTS if (folder / file).is_file() and file not in card.sha256)
    digests = {**card.sha256, **{file: sha256(folder / file) for file in unstated}}
    return Verification(card.name, folder, digests, unstated, count)
