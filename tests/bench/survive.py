"""`zoo train` killed five times by SIGKILL at random steps, then finished: to the last bit the model of a calm run.

For every method's smoke recipe, four epochs of 256 photos on one thread; then once on a disk of a few MB, which fills
up, where this user may mount one.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import ONE_THREAD, claim, photos

from zoo.training.methods import method_names

PHOTOS, KILLS = 256, 5
KNOBS = [
    *("--schedule.epochs", "4", "--run.checkpoint_minutes", "0.005"),
    *("--run.threads", "1", "--run.log_every", "1"),
]


def run(data: str) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        folder = photos(data, Path(scratch) / "photos", PHOTOS)
        taught = [name for name in method_names() if name != "supervised"]  # the photos have no labels
        held = [_survives(name, folder, Path(scratch) / name) for name in taught]
        return all([*held, _full_disk(folder, Path(scratch))])


def _command(recipe: str, folder: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "zoo", "train", recipe, str(folder), *KNOBS, "--out", str(out)]


def _survives(name: str, folder: Path, scratch: Path) -> bool:
    """One method: a calm run, then one that is killed once it has logged so many steps, drawn at random."""
    calm, killed = scratch / "calm", scratch / "killed"
    _finish(name, folder, calm)
    fates = sorted(random.Random(name).sample(range(1, _logged(calm)), KILLS))
    deaths = sum(_dies(name, folder, killed, step) for step in fates)
    _finish(name, folder, killed)
    files = sorted(path.relative_to(calm) for path in calm.rglob("*.safetensors"))
    same = all((calm / file).read_bytes() == (killed / file).read_bytes() for file in files)
    left = list(killed.rglob(".*.tmp*"))
    held = deaths == KILLS and bool(files) and same and not left
    told = f"{deaths} kills, at steps {', '.join(map(str, fates))} of {_logged(calm)}"
    return claim(f"{name}: {told}; the same {len(files)} weight files, nothing left over", held)


def _finish(name: str, folder: Path, out: Path) -> None:
    subprocess.run(_command(f"{name}/smoke", folder, out), check=True, env=ONE_THREAD, capture_output=True)


def _dies(name: str, folder: Path, out: Path, step: int) -> bool:
    """Whether SIGKILL found the run at work, once it had logged `step` steps."""
    with subprocess.Popen(
        _command(f"{name}/smoke", folder, out),
        env=ONE_THREAD,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and _logged(out) < step:
            time.sleep(0.005)
        process.kill()
    return process.returncode == -signal.SIGKILL


def _logged(out: Path) -> int:
    """Steps in the logs of a run and of one that had to come first."""
    return sum(len(path.read_text().splitlines()) for path in out.rglob("log.jsonl"))


def _full_disk(folder: Path, scratch: Path) -> bool:
    """MAE on a disk with room for one checkpoint and not for two."""
    disk, out = scratch / "disk", scratch / "disk" / "run"
    disk.mkdir()
    size = int(1.5 * (scratch / "mae" / "calm" / "checkpoint.pt").stat().st_size)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        print(
            "      no disk may be mounted here: tests/training/test_survival.py limits the size of files instead"
        )
        return True
    try:
        command = _command("mae/smoke", folder, out)
        first = subprocess.run(command, check=False, env=ONE_THREAD, capture_output=True, text=True)
        told = "No space left on device" in first.stderr and "is intact; make room" in first.stderr
        before = (out / "checkpoint.pt").read_bytes()
        subprocess.run(["mount", "-o", f"remount,size={4 * size}", str(disk)], check=True)
        subprocess.run(command, check=True, env=ONE_THREAD, capture_output=True)
        same = (out / "model.safetensors").read_bytes() == (
            scratch / "mae" / "calm" / "model.safetensors"
        ).read_bytes()
        print(f"      {first.stderr.strip().splitlines()[-1]}")
        return claim(
            "a full disk is told, leaves a checkpoint, and the run continues", told and bool(before) and same
        )
    finally:
        subprocess.run(["umount", str(disk)], check=False)
