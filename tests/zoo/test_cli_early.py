"""What is missing is told at once: before torch, timm and torchvision are imported, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MODEL = "dino_vitt16_imagenette"
HEAVY = ("torch", "torchvision", "timm", "pyarrow", "onnx", "gradio")

LINES = {
    "attend MODEL NO.jpg --out h.png": "NO.jpg: no such file in",
    "attend MODEL PHOTO --out ./PHOTO": "is the photo itself; give another name",
    "attend MODEL PHOTO --out h.pgn": "did you mean '.png'?",
    "attend dino_vitt61_imagenette PHOTO --out h.png": "no model 'dino_vitt61_imagenette'; did you mean",
    "attend runs/mine/last PHOTO --out h.png": "no folder or model 'runs/mine/last'",
    "reconstruct MODEL TEXT --out h.png": "the bytes are of no image format",
    "reconstruct mae_vitt61_imagenette PHOTO --out h.png": "did you mean 'mae_vitt16_imagenette'?",
    "embed MODEL NO --out f": "no file or folder",
    "embed dino_vitt61_imagenette PHOTO --out f": "did you mean",
    "embed dino_vitt61_imagenette NO --out f": "no model 'dino_vitt61_imagenette'",  # before all images are listed
    "embed MODEL PHOTO --out f --backend onnx": "holds no exported graph",
    "show dino_vitt61_imagenette": "did you mean",
    "evaluate MODEL NO": "no file or folder",
    "evaluate MODEL NO --protocol lineer": "did you mean 'linear'?",
    "evaluate MODEL NO --protocol nkk": "linear_sgd, lowshot, finetune, foreground",
    "evaluate MODEL UNLABELLED": "is unlabelled, so no accuracy can be measured on it",
    "evaluate MODEL NO --protocol foreground": "no file or folder",
    "evaluate dino_vitt61_imagenette FOLDER": "did you mean",
    "compare NO --models MODEL": "no file or folder",
    "compare FOLDER --models MODEL dino_vitt61_imagenette": "did you mean",
    "train mae/smok FOLDER --out runs/a": "no recipe 'mae/smok'; did you mean 'mae/smoke'?",
    "train mae/smok --knobs": "did you mean 'mae/smoke'?",
    "train mae/smoke NO --out runs/a": "no file or folder",
    "train mae/smoke FOLDER --init mae_vitt61_imagenette --out runs/a": "did you mean",
    "study methods NO --out studies/a": "no file or folder",
    "export dino_vitt61_imagenette --to onnx": "did you mean",
    "export dino_vitt61_imagenette --to web --out site": "did you mean",
    "bench dino_vitt61_imagenette": "did you mean",
    "app --model dino_vitt61_imagenette": "did you mean",
}

RUN = f"""
import contextlib, io, json, sys
from zoo.cli import main
for words in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(words)
    print(json.dumps([code, said.getvalue(), [each for each in {HEAVY} if each in sys.modules]]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """Exit code, message and heavy imports so far of every line, all in one fresh process."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("early")
    for label in ("a", "b"):
        for i in range(3):
            (folder / "data" / label).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (50 * i,) * 3).save(folder / "data" / label / f"{i}.png")
    (folder / "text.jpg").write_text("no picture")
    places = {
        "MODEL": MODEL,
        "PHOTO": "data/a/0.png",
        "./PHOTO": "./data/a/../a/0.png",
        "TEXT": "text.jpg",
        "FOLDER": "data",
        "UNLABELLED": "data/a",
    }
    words = [[places.get(word, word) for word in line.split()] for line in LINES]
    process = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(words),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(LINES, map(json.loads, process.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("command", ["recipes", "methods"])
def test_what_can_be_trained_is_listed_without_importing_it(command: str) -> None:
    code = f"import sys; from zoo.cli import main; main([{command!r}]); sys.exit('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "mae" in said and len(said.splitlines()) > 5


@pytest.mark.parametrize("line", LINES)
def test_it_is_one_line_without_a_heavy_import(
    answers: dict[str, tuple[int, str, list[str]]], line: str
) -> None:
    code, said, imported = answers[line]
    assert code == 2 and LINES[line] in said and said.count("\n") == 1
    assert imported == []
