"""How much memory one way of running a model takes, measured in a process that does nothing else.

`python -m zoo.export.memory ENGINE PLACE SHAPE THREADS` is that process: it imports what a deployment would (no torch
where a graph runs), loads, runs twice and prints its peak resident memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import Unsupported


def peak_mebibytes(engine: str, place: Path, shape: tuple[int, ...], threads: int) -> float:
    """Peak resident memory of a process that runs pixels of `shape` through `place` by `engine` alone.

    engine: torch (place is a folder with a card; its weights are drawn), onnxruntime or openvino (a graph).
    Raises Unsupported where that process fails.
    """
    words = [engine, str(place), json.dumps(shape), str(threads)]
    done = subprocess.run(
        [sys.executable, "-m", __name__, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unsupported(f"{engine} on {place.name} failed: {(done.stderr.splitlines() or ['killed'])[-1]}")
    return float(done.stdout)


def _torch(place: Path, threads: int) -> Callable[[NDArray[np.float32]], object]:
    import torch

    from zoo.cards import read_card
    from zoo.encoder import Encoder
    from zoo.loading import build

    torch.set_num_threads(threads)
    card = read_card(place)
    encoder = Encoder(card, build(card)[0])

    def run(pixels: NDArray[np.float32]) -> object:
        with torch.inference_mode():
            return encoder.forward_features(torch.from_numpy(pixels))

    return run


def _onnxruntime(place: Path, threads: int) -> Callable[[NDArray[np.float32]], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})


def _openvino(place: Path, threads: int) -> Callable[[NDArray[np.float32]], object]:
    import openvino  # type: ignore[import-not-found]

    model: Any = openvino.Core().compile_model(str(place), "CPU", {"INFERENCE_NUM_THREADS": threads})
    return lambda pixels: model([pixels])


_ENGINES = {"torch": _torch, "onnxruntime": _onnxruntime, "openvino": _openvino}


def _measure(engine: str, place: str, shape: str, threads: str) -> None:
    run, pixels = _ENGINES[engine](Path(place), int(threads)), np.zeros(json.loads(shape), np.float32)
    for _ in range(2):
        run(pixels)
    print(_peak())


def _peak() -> float:
    """Peak resident memory of this process in MiB. Linux counts the parent's into what getrusage says of a child."""
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    _measure(*sys.argv[1:])
