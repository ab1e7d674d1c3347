"""`zoo embed` on 4,000 photos, killed at half by SIGKILL and started again: every photo once, byte for byte the same.

A ViT-Tiny at 64 px, one thread. The seconds of both runs beside those of an uninterrupted one say what a kill costs.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import ONE_THREAD, claim, photos
from models import write_tiny

import zoo

PHOTOS, PARTS = 4000, 16


def run(data: str) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        model, folder = write_tiny(Path(scratch), 64), photos(data, Path(scratch) / "photos", PHOTOS)
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        command = [sys.executable, "-m", "zoo", "embed", str(model), str(folder), "--device", "cpu", "--out"]

        began = time.perf_counter()
        subprocess.run([*command, str(whole)], check=True, stdout=subprocess.DEVNULL, env=ONE_THREAD)
        uninterrupted = time.perf_counter() - began

        began = time.perf_counter()
        process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL, env=ONE_THREAD)
        while not (killed / f"part-{PARTS // 2 - 1:05d}.parquet").exists() and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        ended, finished = (
            process.wait(),
            {path.name: path.stat().st_mtime_ns for path in killed.glob("part-*")},
        )
        subprocess.run([*command, str(killed)], check=True, stdout=subprocess.DEVNULL, env=ONE_THREAD)
        both = time.perf_counter() - began

        names = sorted(path.name for path in whole.iterdir())
        paths, _, arrays = zoo.read_features(killed)
        print(f"\n{PHOTOS} photos: {uninterrupted:.1f} s at once, {both:.1f} s with a kill at half")
        claims = [
            ("SIGKILL found the command at work", ended == -signal.SIGKILL),
            (f"{len(finished)} of {PARTS} parts were finished", PARTS // 2 <= len(finished) < PARTS),
            (
                "the finished parts were kept as they were",
                all((killed / name).stat().st_mtime_ns == at for name, at in finished.items()),
            ),
            ("every photo exactly once", paths == sorted(path.name for path in folder.iterdir())),
            ("a row of features for each", len(arrays["pooled"]) == PHOTOS),
            ("the same files, nothing left over", names == sorted(path.name for path in killed.iterdir())),
            (
                "byte for byte those of an uninterrupted run",
                all((whole / name).read_bytes() == (killed / name).read_bytes() for name in names),
            ),
        ]
        return [claim(what, holds) for what, holds in claims].count(False) == 0
