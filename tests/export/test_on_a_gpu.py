"""Exported graphs run on a GPU: by ONNX Runtime's CUDA provider, and as TensorRT engines by both doors.

Without a device all of these are skipped, and without the tensorrt package those of engines: no machine of ours has run
them. They are what to run first where there is one.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.demo import bundled_photos
from zoo.encoder import Encoder
from zoo.errors import Unsupported
from zoo.export import to_tensorrt
from zoo.export.engines import EngineError
from zoo.export.runtime import OnnxEncoder
from zoo.export.tensorrt import PROVIDER, Engine, session
from zoo.features import Features

pytestmark = pytest.mark.gpu
PHOTOS = [str(path) for path in bundled_photos()]


def one(found: Features | list[Features]) -> Features:
    assert isinstance(found, Features)
    return found


def pixels_of(encoder: Encoder) -> torch.Tensor:
    return torch.stack([encoder.transform(photo) for photo in PHOTOS])


def test_the_cuda_provider_gives_pytorchs_features(torchs: Encoder, plain: Path) -> None:
    onnxs = OnnxEncoder(plain, providers=("cuda",))
    assert onnxs.module.provider == "CUDAExecutionProvider"
    found, expected = one(onnxs(PHOTOS)), one(torchs(PHOTOS))
    for output in ("pooled", "patches"):  # tensor cores round to TF32
        torch.testing.assert_close(getattr(found, output), getattr(expected, output), atol=0.02, rtol=0.02)
    assert OnnxEncoder(plain).module.provider == "CUDAExecutionProvider"  # nothing asked: the device


@pytest.fixture(scope="module")
def engine(torchs: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 engine, built on this GPU."""
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("needs the tensorrt package: pip install tensorrt")
    folder = tmp_path_factory.mktemp("tensorrt")
    assert to_tensorrt(torchs, folder).passed
    return folder / "tensorrt.engine"


def test_an_engine_gives_pytorchs_features(torchs: Encoder, engine: Path) -> None:
    running, pixels = Engine(engine), pixels_of(torchs)
    for count in (1, len(pixels)):
        found = running(pixels=pixels[:count].numpy())
        expected = torchs.forward_features(pixels[:count])
        for output in ("pooled", "patches"):
            alike = torch.cosine_similarity(
                torch.from_numpy(found[output]).flatten(1), getattr(expected, output).detach().flatten(1)
            )
            assert alike.min() > 0.9999, output


def test_an_engine_takes_no_shape_outside_its_profile_and_none_from_elsewhere(
    torchs: Encoder, engine: Path
) -> None:
    with pytest.raises(EngineError, match="outside the engine's"):
        Engine(engine)(pixels=np.zeros((33, 3, torchs.size, torchs.size), np.float32))
    sidecar = engine.with_name(f"{engine.name}.json")
    said = json.loads(sidecar.read_text())
    try:
        sidecar.write_text(json.dumps(said | {"place": said["place"] | {"compute": "0.0"}}))
        with pytest.raises(EngineError, match="does not belong here: it is for compute"):
            Engine(engine)
    finally:
        sidecar.write_text(json.dumps(said))


def test_the_second_door_gives_pytorchs_features(torchs: Encoder, plain: Path, tmp_path: Path) -> None:
    try:
        running = session(plain / "model.onnx", tmp_path)
    except Unsupported as error:
        pytest.skip(f"needs what onnxruntime's provider is linked with: {error}")
    assert running.get_providers()[0] == PROVIDER
    pixels = pixels_of(torchs)
    (pooled,) = running.run(["pooled"], {"pixels": pixels.numpy()})
    expected = torchs.forward_features(pixels).pooled.detach()
    assert torch.cosine_similarity(torch.from_numpy(pooled), expected).min() > 0.9999
    assert list(tmp_path.glob("*.engine"))
