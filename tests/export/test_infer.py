"""infer.py: the zoo's features of a photo with numpy, pillow and onnxruntime alone."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import zoo
from zoo.demo import bundled_photos
from zoo.encoder import Encoder
from zoo.export import infer
from zoo.export.onnx import to_onnx
from zoo.transforms import Transform

PHOTOS = [str(path) for path in bundled_photos()]
SCRIPT = Path(infer.__file__)


def rotated(picture: Image.Image) -> Image.Image:
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.info["exif"] = exif.tobytes()
    return picture


def transparent(picture: Image.Image) -> Image.Image:
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


def deep(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257 + 13)


ODD: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "turned by EXIF": ("jpg", rotated),
    "grey": ("png", lambda picture: picture.convert("L")),
    "grey of 16 bits": ("png", deep),
    "with alpha": ("png", transparent),
    "grey with alpha": ("png", lambda picture: transparent(picture).convert("LA")),
    "palette": ("png", lambda picture: picture.convert("P")),
    "CMYK": ("jpg", lambda picture: picture.convert("CMYK")),
}


@pytest.mark.parametrize("kind", ODD)
def test_pixels_are_the_transforms(kind: str, tmp_path: Path) -> None:
    suffix, make = ODD[kind]
    made = make(Image.open(PHOTOS[1]).convert("RGB").resize((150, 101)))
    file = tmp_path / f"odd.{suffix}"
    made.save(file, exif=made.info.get("exif", b""))
    transform = Transform(size=64, crop_pct=0.875)
    found = infer.pixels_of(str(file), **asdict(transform))
    assert np.array_equal(found, transform(file).numpy())


@given(
    width=st.integers(20, 130),
    height=st.integers(20, 130),
    crop_pct=st.sampled_from([0.875, 0.9, 0.95, 1.0]),
    interpolation=st.sampled_from(["bicubic", "bilinear", "lanczos"]),
    channels=st.sampled_from([1, 3]),
)
def test_pixels_of_any_shape_are_the_transforms(
    width: int,
    height: int,
    crop_pct: float,
    interpolation: str,
    channels: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.getbasetemp() / "shape.png"
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(file)
    transform = Transform(48, crop_pct, interpolation, (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.4)[:channels])
    found = infer.pixels_of(str(file), **asdict(transform))
    assert np.array_equal(found, transform(file).numpy())


def run(python: str | Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, folder / "infer.py", *words], capture_output=True, text=True, check=False, cwd=folder, env={}
    )


def least_cosine(found: NDArray[np.float32], encoder: Encoder) -> float:
    """Of features (B, D) of the photos with the encoder's own."""
    expected = encoder(PHOTOS)
    assert not isinstance(expected, list)
    return float(torch.cosine_similarity(torch.from_numpy(found), expected.pooled).min())


def test_it_writes_and_prints_the_zoos_features(torchs: Encoder, plain: Path, tmp_path: Path) -> None:
    assert (plain / "infer.py").read_bytes() == SCRIPT.read_bytes()
    done = run(sys.executable, plain, *PHOTOS, "--out", str(tmp_path / "features.npy"))
    assert done.returncode == 0, done.stderr
    saved = np.load(tmp_path / "features.npy")
    assert least_cosine(saved, torchs) > 0.9999
    lines = [json.loads(line) for line in run(sys.executable, plain, *PHOTOS[:2]).stdout.splitlines()]
    assert [line["photo"] for line in lines] == PHOTOS[:2]
    assert np.allclose([line["features"] for line in lines], saved[:2], atol=1e-5)


def test_mistakes_are_one_line(plain: Path, tmp_path: Path) -> None:
    for words, says in (
        (["nowhere.jpg"], "nowhere.jpg"),
        ([str(SCRIPT)], "cannot identify"),
        ([PHOTOS[0], "--graph", "other.onnx"], "no file other.onnx; name the exported graph with --graph"),
    ):
        done = run(sys.executable, plain, *words)
        assert done.returncode == 1
        assert says in done.stderr and len(done.stderr.splitlines()) == 1
    shutil.copy(SCRIPT, tmp_path)
    assert "name the exported graph" in run(sys.executable, tmp_path, PHOTOS[0]).stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fresh_environment_of_three_packages_is_enough(tmp_path: Path) -> None:
    encoder, folder = zoo.load("dino_vitt16_imagenette", device="cpu"), tmp_path / "exported"
    to_onnx(encoder, folder)
    uv, python = Path(sys.executable).with_name("uv"), tmp_path / "fresh" / "bin" / "python"
    for words in (
        ["venv", "--quiet", "--python", sys.executable, str(tmp_path / "fresh")],
        ["pip", "install", "--quiet", "--python", str(python), "numpy", "pillow", "onnxruntime"],
    ):
        subprocess.run([uv, *words], check=True, capture_output=True, text=True)
    for absent in ("torch", "onnx", "zoo"):
        done = subprocess.run([python, "-I", "-c", f"import {absent}"], capture_output=True, check=False)
        assert done.returncode == 1, absent
    assert run(python, folder, *PHOTOS).returncode == 0  # compiles bytecode
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(python, folder, *PHOTOS, "--out", str(tmp_path / "features.npy"))
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert least_cosine(np.load(tmp_path / "features.npy"), encoder) > 0.9999
    wall = float(done.stdout.split(" in ")[1].removesuffix(" s\n"))
    computed = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    print(
        f"infer.py, six photos, with its imports: {wall:.2f} s, of which the processor worked {computed:.2f} s"
    )
    assert computed < 2 and wall < 15  # a second of both on a machine that does nothing else
