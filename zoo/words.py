"""Numbers as they stand in a sentence."""

from __future__ import annotations


def counted(number: float, thing: str) -> str:
    """`1 epoch`, `2 epochs`, `0.5 minutes`.

    >>> counted(1000, "epoch")
    '1,000 epochs'
    """
    told = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{told} {thing}{'' if number == 1 else 's'}"


def lasted(minutes: float) -> str:
    """`under a minute`, `1 minute`, `1.5 minutes`, `95 minutes`: of a time that was measured."""
    return "under a minute" if minutes < 1 else counted(minutes, "minute")
