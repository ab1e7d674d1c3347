"""Small masked-image models in folders of their own, and the bundled encoder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from app_server import ROOT, Served
from masked_models import masked_model

import zoo
from zoo.encoder import Encoder
from zoo.folders import write_folder

# Name of the folder -> what tests/masked_models.py calls it.
SMALL = {"tiny_ummae": "ummae swin", "tiny_simmim": "simmim ummae swin", "tiny_simmim32": "simmim swin"}


@pytest.fixture(scope="session")
def dino() -> Encoder:
    return zoo.load("dino_vitt16_imagenette", device="cpu")


@pytest.fixture(scope="session")
def mae() -> Encoder:
    return zoo.load("mae_vitt16_imagenette", device="cpu")


@pytest.fixture(scope="session")
def small(randomise: Callable[..., None]) -> dict[str, Encoder]:
    """UM-MAE on a Swin, and SimMIM with masks of 16 and of 32 pixels, by name."""
    return {name: masked_model(kind, randomise, name) for name, kind in SMALL.items()}


@pytest.fixture(scope="session")
def small_zoo(small: dict[str, Encoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A $ZOO_HOME that holds them."""
    home = tmp_path_factory.mktemp("app_zoo")
    for name, encoder in small.items():
        folder = home / "models" / name
        write_folder(folder, encoder.card, encoder.module, encoder.decoder, f"# {name}", torch.float32)
    return home


@pytest.fixture(scope="session")
def served(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`zoo app` on a port of its own, in a folder of no project, with the bundled models and the small ones."""
    cache = str(tmp_path_factory.mktemp("gradio"))
    environ = {**os.environ, "ZOO_HOME": str(small_zoo), "GRADIO_TEMP_DIR": cache, "PYTHONPATH": str(ROOT)}
    site = tmp_path_factory.mktemp("site")
    (site / "index.html").write_text("<p id=own>a page of its own</p><script src=own.js></script>")
    (site / "own.js").write_text("document.getElementById('own').textContent += ' that runs'")
    log = (tmp_path_factory.mktemp("log") / "stderr.txt").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", "app", "--port", "0", "--site", str(site)],
        cwd=tmp_path_factory.mktemp("elsewhere"), env=environ, stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = ""
        while found := process.stdout.readline():
            said += found
            if at := re.search(r"http://127\.0\.0\.1:\d+", found):
                yield Served(process, at[0])
                break
        else:
            log.seek(0)
            pytest.fail(f"zoo app ended:\n{said}{log.read()}")
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
        log.close()
