"""The encoder on ONNX Runtime: what zoo.load gives, or an error that says which flag of the export is missing."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from zoo.cards import TransformSpec, write_card
from zoo.cli import main
from zoo.demo import bundled_photos
from zoo.encoder import Encoder
from zoo.errors import SizeError, UnknownModel, Unsupported, WeightsError
from zoo.evaluate.comparison import compare
from zoo.export import infer
from zoo.export.onnx import to_onnx
from zoo.export.runtime import OnnxEncoder
from zoo.extraction import extract, weights_hash

PHOTOS = [str(path) for path in bundled_photos()]


@pytest.fixture(scope="module")
def full(torchs: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export for any size, with attention and pyramid."""
    folder = tmp_path_factory.mktemp("full")
    to_onnx(torchs, folder, dynamic=True, attention=True, pyramid=True)
    return folder


@pytest.fixture
def copied(plain: Path, tmp_path: Path) -> Path:
    """An export to be spoilt."""
    return Path(shutil.copytree(plain, tmp_path / "copied"))


# The same face, the same numbers


def test_it_gives_what_pytorch_gives(torchs: Encoder, plain: Path) -> None:
    onnxs = OnnxEncoder(plain)
    assert isinstance(onnxs, Encoder)
    assert (onnxs.dim, onnxs.stride, onnxs.size, onnxs.dtype) == (48, 16, 64, torch.float32)
    assert onnxs.transform == torchs.transform
    assert onnxs.card == dataclasses.replace(torchs.card, path=onnxs.card.path)
    for images in (PHOTOS[0], PHOTOS, torch.rand(3, 3, 64, 64)):
        same(onnxs(images), torchs(images))


def same(found: Any, expected: Any) -> None:
    """Two Features, or lists of them, agree."""
    assert type(found) is type(expected)
    for mine, theirs in zip(
        *(each if isinstance(each, list) else [each] for each in (found, expected)), strict=True
    ):
        assert mine.grid == theirs.grid
        for output in ("pooled", "cls", "patches"):
            torch.testing.assert_close(getattr(mine, output), getattr(theirs, output), atol=2e-5, rtol=1e-4)


def test_a_graph_of_any_size_takes_whole_photos(torchs: Encoder, full: Path) -> None:
    onnxs = OnnxEncoder(full)
    found = onnxs(PHOTOS[:3], fit="whole", size=48)
    assert isinstance(found, list) and len({each.grid for each in found}) > 1
    same(found, torchs(PHOTOS[:3], fit="whole", size=48))


def test_attention_and_pyramid_come_from_the_graph(torchs: Encoder, full: Path) -> None:
    onnxs = OnnxEncoder(full)
    asked: list[Callable[[Encoder], Any]] = [
        lambda encoder: encoder.attention(PHOTOS[:2]),
        lambda encoder: encoder.attention(PHOTOS[0], block=1, fit="whole", size=(64, 96)),
        lambda encoder: encoder.pyramid(PHOTOS[:2]),
    ]
    for ask in asked:
        torch.testing.assert_close(ask(onnxs), ask(torchs), atol=2e-5, rtol=1e-4)


def test_threads_share_it(plain: Path) -> None:
    onnxs = OnnxEncoder(plain)
    alone = [onnxs.transform(photo)[None] for photo in PHOTOS]
    expected = [onnxs.forward_features(pixels).pooled for pixels in alone]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pixels: onnxs.forward_features(pixels).pooled, alone * 8))
    assert all(torch.equal(mine, expected[i % len(PHOTOS)]) for i, mine in enumerate(found))


def test_another_evaluation_size(torchs: Encoder, full: Path) -> None:
    onnxs = OnnxEncoder(full, size=96)
    assert onnxs.size == onnxs.card.transform.size == 96
    same(onnxs(PHOTOS[0]), torchs(PHOTOS[0], size=96))


def test_a_graph_of_another_size_evaluates_at_its_own(torchs: Encoder, tmp_path: Path) -> None:
    to_onnx(torchs, tmp_path, size=32)
    onnxs = OnnxEncoder(tmp_path)
    assert onnxs.size == 32
    same(onnxs(PHOTOS), torchs(PHOTOS, size=32))
    found = infer.features(PHOTOS, tmp_path / "model.onnx")
    torch.testing.assert_close(torch.from_numpy(found), onnxs(PHOTOS).pooled, atol=2e-5, rtol=1e-4)


# A graph that prepares pictures itself


@pytest.fixture(scope="module")
def preparing(torchs: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export for pictures as they are, cut to another size than the card's, with attention."""
    folder = tmp_path_factory.mktemp("preparing")
    to_onnx(torchs, folder, preprocess=True, size=48, attention=True)
    return folder


def test_a_graph_that_prepares_pictures_is_an_encoder_too(torchs: Encoder, preparing: Path) -> None:
    onnxs = OnnxEncoder(preparing)
    assert onnxs.size == onnxs.transform.size == 48
    found, expected = onnxs(PHOTOS), torchs(PHOTOS, size=48)
    assert found.grid == expected.grid == (3, 3)
    for output in ("pooled", "cls", "patches"):
        alike = torch.cosine_similarity(getattr(found, output), getattr(expected, output), dim=-1)
        assert alike.min() > 0.999, output
    torch.testing.assert_close(onnxs.attention(PHOTOS), torchs.attention(PHOTOS, size=48), atol=0.01, rtol=0)
    pixels = torch.rand(3, 3, 48, 48)  # tensors are only normalised, as everywhere
    same(onnxs(pixels), torchs(pixels))
    there = pickle.loads(pickle.dumps(onnxs))
    assert torch.equal(there(PHOTOS[0]).pooled, found.pooled[:1])


def test_its_own_nodes_resize_and_crop(preparing: Path) -> None:
    """Not Pillow: what the whole graph gives for a picture is what the encoder gives, to rounding."""
    onnxs = OnnxEncoder(preparing)
    session = onnxruntime.InferenceSession(str(preparing / "model.onnx"), providers=["CPUExecutionProvider"])
    for photo in PHOTOS[:3]:
        (whole,) = session.run(["pooled"], {"image": np.asarray(Image.open(photo).convert("RGB"))})
        np.testing.assert_allclose(onnxs(photo).pooled, whole, atol=2e-5, rtol=1e-4)


def test_infer_py_runs_a_graph_that_prepares_pictures(preparing: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.npy"
    done = subprocess.run(
        [sys.executable, preparing / "infer.py", *PHOTOS, "--out", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(out), OnnxEncoder(preparing)(PHOTOS).pooled, atol=2e-5, rtol=1e-4)


def test_its_size_is_its_only_one(preparing: Path, labelled: Path) -> None:
    onnxs = OnnxEncoder(preparing)
    with pytest.raises(SizeError, match="cuts pictures to 48×48 itself; export it without --preprocess"):
        onnxs(PHOTOS[0], size=64)
    with pytest.raises(Unsupported, match="none goes through it whole"):
        onnxs(PHOTOS[0], fit="whole")
    paths, _, arrays = extract(onnxs, labelled)
    np.testing.assert_allclose(
        arrays["pooled"], onnxs([str(labelled / path) for path in paths]).pooled, atol=2e-5
    )


# What the graph lacks


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda encoder: encoder.attention(PHOTOS[0]), "--attention"),
        (lambda encoder: encoder.attention(PHOTOS[0], block=0), "zoo.load('tiny')"),
        (lambda encoder: encoder.attention(PHOTOS[0], query=(0, 0)), "zoo.load('tiny')"),
        (lambda encoder: encoder.pyramid(PHOTOS[0]), "--pyramid"),
        (lambda encoder: encoder.intermediates(PHOTOS[0], [0]), "zoo.load('tiny')"),
        (lambda encoder: encoder.reconstruct(PHOTOS[0]), "cannot reconstruct"),
        (lambda encoder: encoder.to(dtype=torch.float16), "precision='fp16'"),
        (lambda encoder: encoder.family.build("vit", {}), "zoo.load('tiny')"),
    ],
)
def test_what_the_graph_lacks_is_said_with_the_way_to_it(
    ask: Callable[[OnnxEncoder], Any], says: str, plain: Path
) -> None:
    with pytest.raises(Unsupported) as error:
        ask(OnnxEncoder(plain))
    assert says in str(error.value)


def test_a_size_it_cannot_take_is_told_with_the_one_it_can(plain: Path) -> None:
    for size in (96, (64, 96)):
        with pytest.raises(SizeError, match=r"takes 64×64 and nothing else; .*--dynamic"):
            OnnxEncoder(plain)(PHOTOS[0], size=size)
    with pytest.raises(SizeError, match=r"96×96 pixels, where model\.onnx takes 64×64"):
        OnnxEncoder(plain, size=96)


def test_a_precision_that_is_not_there_is_told_with_its_command(plain: Path) -> None:
    with pytest.raises(Unsupported, match=r"holds no model_int8.onnx, only fp32; .*--precision int8"):
        OnnxEncoder(plain, precision="int8")
    with pytest.raises(Unsupported, match="did you mean 'int8'"):
        OnnxEncoder(plain, precision="int4")


# Who computes


def test_it_says_what_computes(plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "zoo.export"):
        assert OnnxEncoder(plain, providers=("cpu",)).module.provider == "CPUExecutionProvider"
        assert "CPUExecutionProvider)" in repr(OnnxEncoder(plain, providers=("CPUExecutionProvider",)))
    assert "model.onnx runs on CPUExecutionProvider" in caplog.messages


def test_a_provider_that_does_not_run_is_no_silent_processor(
    plain: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = "cuda" if not torch.cuda.is_available() else "openvino"  # ONNX Runtime itself would say nothing
    with pytest.raises(Unsupported, match=r"would run on CPUExecutionProvider.*providers=\('cpu',\)"):
        OnnxEncoder(plain, providers=(missing,))
    assert OnnxEncoder(plain, providers=(missing, "cpu")).module.provider == "CPUExecutionProvider"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with pytest.raises(Unsupported, match="did you mean 'cuda'"):
        OnnxEncoder(plain, providers=("cudo",))


# Whose graph it is


def test_a_graph_beside_another_models_card_is_refused(torchs: Encoder, copied: Path) -> None:
    other = dataclasses.replace(torchs.card, transform=TransformSpec(size=64, crop_pct=1.0))
    write_card(other, copied, "# tiny")
    with pytest.raises(WeightsError, match="its transform differ; export that model again"):
        OnnxEncoder(copied)


def test_what_does_not_touch_the_features_may_change_on_the_card(torchs: Encoder, copied: Path) -> None:
    write_card(dataclasses.replace(torchs.card, licence="mit"), copied, "# tiny\n\nnew words")
    assert OnnxEncoder(copied).dim == 48


def test_a_graph_that_did_not_pass_the_gate_is_refused(copied: Path) -> None:
    model = onnx.load(copied / "model.onnx")
    model.doc_string = "touched"
    onnx.save(model, copied / "model.onnx")
    with pytest.raises(WeightsError, match="not the file that passed the gate"):
        OnnxEncoder(copied)


def test_a_card_changed_inside_the_graph_is_refused(copied: Path) -> None:
    model = onnx.load(copied / "model.onnx")
    card = next(each for each in model.metadata_props if each.key == "card")
    card.value = card.value.replace("apache-2.0", "mit")
    onnx.save(model, copied / "model.onnx")
    with pytest.raises(WeightsError, match="another card than it was exported with"):
        OnnxEncoder(copied)


def test_files_that_are_no_export_are_refused(copied: Path, tmp_path: Path) -> None:
    model = onnx.load(copied / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, copied / "model.onnx")
    with pytest.raises(WeightsError, match="not written by `zoo export`"):
        OnnxEncoder(copied)
    (copied / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(WeightsError, match="no graph that ONNX Runtime opens"):
        OnnxEncoder(copied)
    with pytest.raises(Unsupported, match="holds no exported graph; `zoo export"):
        OnnxEncoder(tmp_path)
    with pytest.raises(UnknownModel, match="did you mean"):
        OnnxEncoder("dino_vitt16_imagenete")
    with pytest.raises(Unsupported, match="zoo export dino_vitt16_imagenette --to onnx"):
        OnnxEncoder("dino_vitt16_imagenette")


def test_a_model_folder_with_onnx_is_named_by_itself(torchs: Encoder, plain: Path, tmp_path: Path) -> None:
    model = tmp_path / "tiny"
    shutil.copytree(plain, model / "onnx")
    write_card(torchs.card, model, "# tiny")
    assert OnnxEncoder(model).module.file == model / "onnx" / "model.onnx"
    write_card(dataclasses.replace(torchs.card, pooling="avg"), model, "# tiny")
    with pytest.raises(WeightsError, match="its pooling differ"):
        OnnxEncoder(model)


# Unchanged around it


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six cuts of photos each, for training and for testing."""
    root = tmp_path_factory.mktemp("labelled")
    for label, photo in enumerate(PHOTOS[:2]):
        picture = Image.open(photo).convert("RGB")
        for number in range(12):
            place = root / ("val" if number % 2 else "train") / f"class{label}"
            place.mkdir(parents=True, exist_ok=True)
            picture.crop((4 * number, 3 * number, 4 * number + 150, 3 * number + 120)).save(
                place / f"{number}.png"
            )
    return root


def test_extraction_and_comparison_take_it(
    torchs: Encoder, plain: Path, full: Path, labelled: Path, tmp_path: Path
) -> None:
    onnxs, other = OnnxEncoder(plain), OnnxEncoder(full)
    paths, labels, found = extract(onnxs, labelled, outputs=("pooled", "cls", "patches"))
    again, _, expected = extract(torchs, labelled, outputs=("pooled", "cls", "patches"))
    assert paths == again and labels is not None
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], atol=2e-5, rtol=1e-4)
    assert len({weights_hash(each) for each in (torchs, onnxs, other)}) == 3  # no cache takes one for another
    mine, theirs = compare(labelled, [onnxs, torchs], cache=tmp_path)
    assert (mine.knn, mine.linear) == (theirs.knn, theirs.linear)


def test_it_travels_by_its_file(plain: Path) -> None:
    onnxs = OnnxEncoder(plain)
    there = pickle.loads(pickle.dumps(onnxs))
    assert torch.equal(there(PHOTOS[0]).pooled, onnxs(PHOTOS[0]).pooled)


def test_the_command_line_takes_it(
    plain: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(plain), str(labelled), "--backend", "onnx"]
    assert main(["embed", *words, "--out", str(tmp_path / "features")]) == 0
    assert main(["evaluate", *words, "--json", str(tmp_path / "scores.json")]) == 0
    assert "model.onnx runs on CPUExecutionProvider" in capsys.readouterr().err
    (score,) = json.loads((tmp_path / "scores.json").read_text())
    assert score["model"] == "tiny" and score["n_test"] == 12


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--backend", "onyx"], "did you mean 'onnx'"),
        (["--precision", "int8"], "add --backend onnx"),
        (["--backend", "onnx", "--weights", "random"], "holds its own"),
        (["--backend", "onnx", "--write-card"], "--json FILE"),
    ],
)
def test_words_that_do_not_go_together(
    words: list[str], says: str, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "dino_vitt16_imagenette", str(labelled), *words]) == 2
    assert says in capsys.readouterr().err
