"""The report of the gate: how far an exported graph is from PyTorch, on which pictures, and what was allowed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import WeightsError
from zoo.files import write_json
from zoo.tables import table

FILE = "parity.json"


@dataclass(frozen=True)
class Check:
    """One number and its limit."""

    output: str  # of the graph: pooled, patches, …
    what: str  # max-abs, cosine, overlap, neighbour
    on: str  # the pictures: batch 17 of 128×128
    pictures: int
    value: float
    limit: float | None  # None: told, not judged

    @property
    def passed(self) -> bool:
        """max-abs may not be above its limit, the others not below."""
        if self.limit is None:
            return True
        return self.value <= self.limit if self.what == "max-abs" else self.value >= self.limit

    @property
    def bound(self) -> str:
        """Its limit as in `≤ 1.0e-04`; nothing where it is not judged."""
        return "" if self.limit is None else ("≤ " if self.what == "max-abs" else "≥ ") + _number(self.limit)


@dataclass(frozen=True)
class Parity:
    """What the gate found of one exported file.

    >>> print(zoo.export.to_onnx(encoder, "exported/"))
    dino_vitt16_imagenette, model.onnx, fp32: passed …
    """

    model: str
    file: str
    precision: str
    sha256: str  # of the file
    checks: tuple[Check, ...]
    kept: tuple[str, ...] = ()  # operators left in float32, where another precision did not pass
    versions: dict[str, str] = field(default_factory=dict)  # of torch, onnx, onnxruntime

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    def __str__(self) -> str:
        verdict = "passed" if self.passed else f"FAILED, {len(self.failures)} of {len(self.checks)} checks"
        kept = f" ({', '.join(self.kept)} in float32)" if self.kept else ""
        return f"{self.model}, {self.file}, {self.precision}{kept}: {verdict}\n\n{self.table()}"

    def brief(self) -> str:
        """One line: the worst value of each measure, its limit and its pictures."""
        worst: dict[str, Check] = {}
        for check in self.checks:
            old, sign = worst.get(check.what), -1 if check.what == "max-abs" else 1
            if old is None or sign * check.value < sign * old.value:
                worst[check.what] = check
        told = [
            f"{check.what} {_number(check.value)} ({f'{bound}, ' if (bound := check.bound) else ''}n {check.pictures})"
            for check in worst.values()
        ]
        return f"{self.file}, {self.precision}: {'passed' if self.passed else 'FAILED'}; {', '.join(told)}"

    def table(self) -> str:
        """One line a check."""
        rows = [
            (
                check.output,
                check.what,
                _number(check.value),
                check.bound,
                "" if check.passed else "FAILED",
                str(check.pictures),
                check.on,
            )
            for check in self.checks
        ]
        header = ["output", "measure", "value", "limit", "", "n", "on"]
        return table(header, rows, right=["value", "n"])


def _number(value: float) -> str:
    return f"{value:.1e}" if abs(value) < 0.01 else f"{value:.5f}"


def write(folder: Path, parity: Parity) -> Path:
    """Put a report into FOLDER/parity.json, beside those of the folder's other files."""
    reports = {each.file: each for each in (*read(folder), parity)}
    write_json(folder / FILE, {file: asdict(each) for file, each in sorted(reports.items())})
    return folder / FILE


def read(folder: Path) -> tuple[Parity, ...]:
    """The reports in FOLDER/parity.json, one a file; none where there is no such file. Raises WeightsError."""
    path = folder / FILE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_parity(each) for each in said.values())
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path} is no report of `zoo export` ({error}); export again") from error


def _parity(said: dict[str, Any]) -> Parity:
    checks = tuple(Check(**each) for each in said.pop("checks"))
    return Parity(**said | {"checks": checks, "kept": tuple(said["kept"])})


def forget(folder: Path, file: str) -> None:
    """Take a file and its report out of the folder, so that none is left of an export that fails."""
    (folder / file).unlink(missing_ok=True)
    rest = {each.file: each for each in read(folder) if each.file != file}
    if rest:
        (folder / FILE).unlink()
        for each in rest.values():
            write(folder, each)
    else:
        (folder / FILE).unlink(missing_ok=True)
