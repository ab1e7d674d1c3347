"""Side by side with the best known ways to do the same: `make bench DATA=FOLDER`, one by `make bench ARGS=load`.

Each file here with a `run(data)` is a benchmark; it prints a table of ratios, PASS or FAIL for each target, and runs in
a process of its own.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
KNOWN = sorted(
    path.stem for path in HERE.glob("*.py") if "\ndef run(data" in path.read_text(encoding="utf-8")
)
KNOBS = ("minutes", "recipe")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*KNOWN, []], help=f"some of {', '.join(KNOWN)} (default: all)"
    )
    parser.add_argument("--data", default="", help="Imagenette, as parquet or class folders")
    parser.add_argument("--minutes", type=float, help="simclr, dino: of training, each (default: 2 and 5)")
    parser.add_argument("--recipe", help="training: of each method, such as smoke (default: imagenet)")
    arguments = parser.parse_args()
    names = arguments.names or KNOWN
    knobs = {name: value for name in KNOBS if (value := getattr(arguments, name)) is not None}
    if len(names) == 1:
        run = benchmark(names[0])
        taken = inspect.signature(run).parameters
        return 0 if run(arguments.data, **{k: v for k, v in knobs.items() if k in taken}) else 1
    words = [word for name, value in knobs.items() for word in (f"--{name}", str(value))]
    began, failed = time.monotonic(), []
    for name in names:
        print(f"\n== {name}: {first_line(name)}", flush=True)
        command = [sys.executable, str(HERE), name, "--data", arguments.data, *words]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    minutes = (time.monotonic() - began) / 60
    passed = f"{len(names) - len(failed)} of {len(names)} pass"
    print(f"\n{passed}, {minutes:.1f} minutes; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def benchmark(name: str) -> Callable[..., bool]:
    """Its `run`; the end, in one line, where what it compares with is missing."""
    try:
        run: Callable[..., bool] = importlib.import_module(name).run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "zoo"):
            raise
        raise SystemExit(f"{name} needs {missing}, which is not installed: type make setup") from None
    return run


def first_line(name: str) -> str:
    """What a benchmark says it is, read without importing it: what it needs may be missing."""
    said = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8")))
    return (said or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
