"""What a folder of exports tells of itself: a line a file for `zoo show`, and the section of a card."""

from __future__ import annotations

import re
from pathlib import Path

from zoo.export import parity
from zoo.export.engines import EngineError, read_facts
from zoo.export.parity import Parity

HEADING = "## Exported graphs"
_SECTION = re.compile(rf"^{HEADING}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def lines(folder: Path) -> list[str]:
    """Each judged graph of an export folder in one line, with what is known of its engine where it is TensorRT's."""
    return [f"{report.brief()}{_engine(folder, report)}" for report in parity.read(folder)]


def with_section(body: str, folder: Path) -> str:
    """A card's Markdown with the reports of an export folder as its last section, in place of earlier ones."""
    reports = parity.read(folder)
    tables = "\n\n".join(map(str, reports))
    engines = "".join(f"\n- `{report.file}`{said}" for report in reports if (said := _engine(folder, report)))
    rest = _SECTION.sub("", body).strip("\n")
    section = f"{HEADING}\n\nAgainst PyTorch, on cuts of six photos:\n\n```\n{tables}\n```\n{engines}"
    return f"{rest}\n\n{section}".rstrip("\n") if reports else rest


def _engine(folder: Path, report: Parity) -> str:
    """`; its engine …` of a graph that TensorRT takes; nothing of another."""
    if not report.file.startswith("tensorrt"):
        return ""
    engine = (folder / report.file).with_suffix(".engine")
    if not engine.is_file():
        return "; no engine built"
    try:
        facts = read_facts(engine)
    except EngineError:
        return "; its engine has no sidecar, so nobody knows what it was built of"
    if facts.onnx_sha256 != report.sha256:
        return "; its engine is of an earlier graph"
    return f"; its engine: {facts.state} (TensorRT {facts.place.tensorrt}, {facts.place.gpu})"
