"""Extraction as it runs for real: killed at half and continued, and on a Ray cluster."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.cards import ModelCard
from zoo.encoder import Encoder
from zoo.extraction import extract, read_features
from zoo.files import atomic_write, sweep
from zoo.folders import write_folder
from zoo.loading import build, load
from zoo.sources import FolderSource, open_source

BAD = (7, 391)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hundred photos in four classes, two of them damaged."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(400):
        path = folder / f"class{i // 100}" / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 72)).save(path)
        if i in BAD:
            path.write_bytes(path.read_bytes()[:100])
    return folder


@pytest.fixture(scope="module")
def vit_tiny(tmp_path_factory: pytest.TempPathFactory, card_of: Callable[..., ModelCard]) -> Path:
    """A model folder with a whole ViT-Tiny, 12 blocks of width 192, on images of 64 px."""
    card = card_of(arguments={"img_size": 64, "depth": 12, "embed_dim": 192, "num_heads": 3})
    module, _ = build(card)
    card = dataclasses.replace(card, parameters=sum(each.numel() for each in module.parameters()))
    folder = tmp_path_factory.mktemp("models") / "vit_tiny"
    write_folder(folder, card, module, None, "# Untrained")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_at_half_the_same_command_finishes_it(photos: Path, vit_tiny: Path, tmp_path: Path) -> None:
    whole = extract(load(vit_tiny, device="cpu"), photos, tmp_path / "whole")
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "zoo", "embed", str(vit_tiny), str(photos), "--out", str(out)]
    process = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.DEVNULL)
    while not (out / "part-00003.parquet").exists() and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert 4 <= len(finished) < 7
    (out / ".part-00006.999999999.tmp.parquet").write_bytes(b"half a part of a process long gone")
    subprocess.run([*command, "--device", "cpu"], check=True, stdout=subprocess.DEVNULL)

    assert names(out) == names(whole) == ["_skipped.jsonl", *(f"part-{i:05d}.parquet" for i in range(7))]
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in names(out))
    assert all((out / name).stat().st_mtime_ns == written for name, written in finished.items())
    paths, labels, arrays = read_features(out)
    assert paths == [f"class{i // 100}/{i:03d}.png" for i in range(400) if i not in BAD]
    assert labels is not None and labels.tolist() == [i // 100 for i in range(400) if i not in BAD]
    assert np.unique(arrays["pooled"], axis=0).shape == (398, 192)


def test_what_a_living_process_writes_is_not_swept(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with atomic_write(tmp_path / "part-00001.parquet") as mine:
        mine.write_bytes(b"whole")
        theirs = tmp_path / f".part-00000.{other.pid}.tmp.parquet"
        theirs.write_bytes(b"half")
        sweep(tmp_path)
        assert mine.exists() and theirs.exists()
        other.communicate()
        sweep(tmp_path)
        assert mine.exists() and not theirs.exists()
    assert names(tmp_path) == ["part-00001.parquet"]


class Signed(FolderSource):
    """A folder whose readers leave the number of their process in `signatures` beside it."""

    def read(self, i: int) -> bytes:
        with (self.root.parent / "signatures").open("a") as file:
            file.write(f"{os.getpid()}\n")
        return super().read(i)


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ray cluster of two processors on this machine."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # no token in the user's home
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray.data

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    context = ray.data.DataContext.get_current()
    context.wait_for_min_actors_s = 200  # or one worker might do it all while the other starts
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_ray_cluster_gives_the_same_rows(
    tiny: Encoder, photos: Path, tmp_path: Path, two_workers: None
) -> None:
    found = open_source(photos)
    (tmp_path / "photos").symlink_to(photos)
    source = Signed(found.name, None, found.ids, found.labels, found.classes, tmp_path / "photos")
    outputs = ("pooled", "cls", "patches")
    there = extract(tiny, source, tmp_path / "ray", outputs=outputs, engine="ray")
    signed = (tmp_path / "signatures").read_text().split()
    assert len(signed) == 400 and len(set(signed)) == 2 and str(os.getpid()) not in signed

    here = extract(tiny, photos, tmp_path / "local", outputs=outputs)
    assert names(there) == names(here)
    (paths, labels, arrays), (others, other_labels, expected) = read_features(there), read_features(here)
    assert paths == others and labels is not None and other_labels is not None
    assert labels.tolist() == other_labels.tolist()
    for name in outputs:
        np.testing.assert_allclose(arrays[name], expected[name], atol=1e-5)
