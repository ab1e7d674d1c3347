"""The picture of a run: loss and online k-NN over its steps."""

from __future__ import annotations

from pathlib import Path

from zoo.files import atomic_write
from zoo.training.logs import read_log


def draw_curve(log: Path) -> Path | None:
    """Draw `log.jsonl` as `curve.png` beside it; None where it holds no step yet."""
    if not (rows := read_log(log)):
        return None
    from matplotlib.figure import Figure  # half a second, at the end of a run only

    figure = Figure(figsize=(7, 4), layout="constrained")
    loss = figure.subplots()
    steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
    dot = "." if len(rows) < 3 else ""  # one step alone makes no line
    loss.plot(steps, losses, color="tab:blue", label="loss", marker=dot)
    loss.set(xlabel="step", ylabel="loss", title=log.resolve().parent.name)
    lines = loss.get_lines()
    scored = [(row["step"], row["knn_online"]) for row in rows if "knn_online" in row]
    if scored:
        knn = loss.twinx()
        knn.plot(*zip(*scored, strict=True), color="tab:orange", label="online k-NN, %")
        knn.set(ylabel="online k-NN, % (augmented training images)", ylim=(0, 100))
        lines = [*lines, *knn.get_lines()]
    loss.legend(handles=lines, loc="upper right")
    path = log.with_name("curve.png")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path
