"""Side by side with the best known ways to do the same: `make bench DATA=FOLDER`, one by `make bench ARGS=load`.

Each file here with a `run(data)` is a benchmark; it prints a table of ratios, PASS or FAIL for each target, and runs in
a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
KNOWN = sorted(
    path.stem for path in HERE.glob("*.py") if "\ndef run(data" in path.read_text(encoding="utf-8")
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*KNOWN, []], help=f"some of {', '.join(KNOWN)} (default: all)"
    )
    parser.add_argument("--data", default="", help="Imagenette, as parquet or class folders")
    arguments = parser.parse_args()
    names = arguments.names or KNOWN
    if len(names) == 1:
        return 0 if importlib.import_module(names[0]).run(arguments.data) else 1
    began, failed = time.monotonic(), []
    for name in names:
        print(f"\n== {name}: {importlib.import_module(name).__doc__.strip().splitlines()[0]}", flush=True)
        if subprocess.run(
            [sys.executable, str(HERE), name, "--data", arguments.data], check=False
        ).returncode:
            failed.append(name)
    minutes = (time.monotonic() - began) / 60
    passed = f"{len(names) - len(failed)} of {len(names)} pass"
    print(f"\n{passed}, {minutes:.1f} minutes; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
