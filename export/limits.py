"""How far an exported graph may be from PyTorch, by precision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """max_abs: at most, in units of the expected values' root mean square where that is above 1; None: not judged.

    The others: at least. cosine: of the worst picture. overlap: of attention, the mean. neighbour: share of photos.
    """

    max_abs: float | None
    cosine: float
    overlap: float
    neighbour: float


LIMITS = {
    "fp32": Limits(1e-4, 0.99999, 0.999, 0.995),
    "fp16": Limits(None, 0.9995, 0.99, 0.98),
    "int8": Limits(None, 0.99, 0.90, 0.97),
}
# A graph that resizes pictures itself rounds some of their 256 levels otherwise than Pillow.
PREPARED = {
    "fp32": Limits(None, 0.9999, 0.99, 0.98),
    "fp16": Limits(None, 0.9995, 0.98, 0.97),
    "int8": Limits(None, 0.99, 0.90, 0.97),
}
