"""What the command line asks of this room."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from zoo.encoder import Encoder
from zoo.export.for_tensorrt import reconstruction_to_tensorrt, to_tensorrt
from zoo.export.masked import hides
from zoo.export.onnx import reconstruction_to_onnx, to_onnx
from zoo.export.parity import Parity
from zoo.export.web import to_web
from zoo.progress import track


def export_command(encoder: Encoder, out: Path, precision: Any, **asked: Any) -> None:
    """`zoo export MODEL --to onnx --out OUT`: the features, and a masked-image model's reconstruction beside them."""
    steps: list[Callable[[], Parity]] = [partial(to_onnx, encoder, out, precision=precision, **asked)]
    if hides(encoder):
        steps.append(partial(reconstruction_to_onnx, encoder, out, precision=precision))
    for step in track(steps, "tracing and comparing"):
        print(f"{step()}\n")
    print(f"wrote {out}; zoo.export.OnnxEncoder({str(out)!r}) opens it, and its README.md says what it gives")


def tensorrt_command(encoder: Encoder, out: Path, precision: Any, *, engine: bool, **asked: Any) -> None:
    """`zoo export MODEL --to tensorrt --out OUT`: likewise, and the engines unless `engine` is False."""
    both: dict[str, Any] = {"precision": precision, "engine": engine}
    steps: list[Callable[[], Parity]] = [partial(to_tensorrt, encoder, out, **both, **asked)]
    if hides(encoder):
        steps.append(partial(reconstruction_to_tensorrt, encoder, out, **both))
    for step in track(steps, "tracing and comparing"):
        print(f"{step()}\n")
    print(f"wrote {out}; engines: {'built, not run' if engine else 'none built'}")


def web_command(encoder: Encoder, out: Path, precision: Any, *, runtime: str | None) -> None:
    """`zoo export MODEL --to web --out OUT`: begin a static site, or add the model to one."""
    for step in track(
        [partial(to_web, encoder, out, precision=precision, runtime=runtime)], "tracing and comparing"
    ):
        print(f"{step()}\n")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(f"wrote {out}, {size:.1f} MB with all its models; look at it: python -m http.server -d {out}")
