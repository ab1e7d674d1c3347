"""Peak memory of `zoo embed` on 500 and on 4,000 photos: it must not grow with their number.

A ViT-Tiny at 64 px and one thread, so that 4,000 photos take seconds; what could pile up (photos, paths, features) is
the same for any model. One process, whose threads decode: its high-water mark is the whole tree's, and no child may
hide a part of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from measure import ONE_THREAD, Target, claim, in_turn, photos, report
from models import write_tiny

FEW, MANY, ROUNDS = 500, 4000, 3
LOOK = 0.05  # seconds between two looks for children
TARGETS = [Target(f"{MANY} photos", f"{FEW} photos", 1.05, at_least=False)]


def run(data: str) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        model = write_tiny(Path(scratch), 64)
        folders = {count: photos(data, Path(scratch) / str(count), count) for count in (FEW, MANY)}
        seen: Counter[int] = Counter()

        def peak(count: int) -> float:
            """MiB of resident memory at most, of one command line from its start to its end."""
            command = [sys.executable, "-m", "zoo", "embed", str(model), str(folders[count]), "--anew"]
            command += ["--out", str(Path(scratch) / f"features{count}"), "--device", "cpu"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ONE_THREAD)
            while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                seen.update(_children(process.pid))
                time.sleep(LOOK)
            process.returncode = os.waitstatus_to_exitcode(ended[1])
            if process.returncode:
                raise SystemExit(f"zoo embed ended with {process.returncode}")
            return ended[2].ru_maxrss / 1024

        found = in_turn(
            {f"{count} photos": lambda _, count=count: peak(count) for count in (FEW, MANY)}, ROUNDS
        )
        good = report("zoo embed, ViT-Tiny at 64 px, whole process", "MiB at most", found, TARGETS)
        # Libraries ask the system a question or two through a child while they are imported.
        workers = [child for child, looks in seen.items() if looks * LOOK > 2]
        return claim(f"no child lives for 2 seconds: {workers or 'none'}", not workers) and good


def _children(process: int) -> list[int]:
    """Children of any of a process's threads, where the system tells."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(each) for file in lists for each in _text(file).split()]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""  # ended meanwhile
