"""ONNX Runtime Web is the pinned one, however it comes, and weights in 16 bits are the same weights."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hub_server import Hub, running
from onnx import TensorProto, helper, numpy_helper

from zoo.errors import HubError, Unreachable, WeightsError
from zoo.export import browser
from zoo.export.halves import with_halves
from zoo.registry import home

SMALL = {"ort.wasm.bundle.min.mjs": b"script", "ort-wasm-simd-threaded.wasm": b"program"}


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bytes:
    """A package of the real one's shape whose hashes are pinned instead, and no npm; an empty $ZOO_HOME."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as opened:
        for name, data in {**SMALL, "../outside": b"no"}.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(data)
            opened.addfile(entry, io.BytesIO(data))
    digest = hashlib.sha512(packed.getvalue()).digest()
    monkeypatch.setattr(browser, "INTEGRITY", base64.b64encode(digest).decode())
    monkeypatch.setattr(browser, "FILES", {k: hashlib.sha256(v).hexdigest() for k, v in SMALL.items()})
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return packed.getvalue()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as hub:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"{hub.url}/authors/")
        yield hub


TARBALL = f"onnxruntime-web/-/onnxruntime-web-{browser.VERSION}.tgz"


def test_it_comes_by_https_once_and_is_kept(archive: bytes, registry: Hub) -> None:
    registry.authors[TARBALL] = archive
    for _ in range(2):
        files = browser.runtime_files()
        assert {path.name: path.read_bytes() for path in files} == SMALL
    assert len(registry.log) == 1
    assert [path for path in (home().parent / "downloads").iterdir() if path.suffix == ".tgz"] == []
    files[0].write_bytes(b"damaged")
    assert browser.runtime_files()[0].read_bytes() == b"script"


def test_another_package_is_refused_and_not_kept(archive: bytes, registry: Hub) -> None:
    registry.authors[TARBALL] = archive + b"\0"
    with pytest.raises(HubError, match=r"another hash than npm's; .*--runtime FOLDER"):
        browser.runtime_files()
    registry.authors[TARBALL] = archive
    assert len(browser.runtime_files()) == 2


def test_without_network_the_way_out_is_named(
    archive: bytes, registry: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.downloads.PAUSES", (0.0,))
    registry.stop()
    with pytest.raises(Unreachable, match=r"npm pack onnxruntime-web@\S+ fetches it; .* --runtime FOLDER"):
        browser.runtime_files()


def test_without_npm_the_way_out_is_named(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(HubError, match=r"by npm, which is not installed; .* --runtime FOLDER"):
        browser.runtime_files()


@pytest.mark.parametrize("works", [True, False])
def test_npm_is_asked_where_there_is_one(works: bool, archive: bytes, tmp_path: Path) -> None:
    """By a stand-in of npm's, which writes down what it is asked: the real one would need its network."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "there.tgz").write_bytes(archive)
    npm = tmp_path / "bin" / "npm"
    copy = f'/bin/cp "{tmp_path}/there.tgz" "$5/"' if works else "echo 'npm error network' >&2; exit 1"
    npm.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\n{copy}\n')
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    if works:
        assert [path.read_bytes() for path in browser.runtime_files()] == [*SMALL.values()]
    else:
        with pytest.raises(HubError, match="npm error network"):
            browser.runtime_files()
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:4] == ["pack", f"onnxruntime-web@{browser.VERSION}", "--silent", "--pack-destination"]


def test_a_folder_must_hold_the_pinned_files(archive: bytes, tmp_path: Path) -> None:
    given = tmp_path / "given"
    with pytest.raises(WeightsError, match="holds no ort"):
        browser.runtime_files(given)
    (given / "package" / "dist").mkdir(parents=True)
    for name, data in SMALL.items():
        (given / "package" / "dist" / name).write_bytes(data)
    assert browser.runtime_files(given)[0] == given / "package" / "dist" / next(iter(SMALL))
    (given / "package" / "dist" / next(iter(SMALL))).write_bytes(b"newer")
    with pytest.raises(WeightsError, match="is not that of onnxruntime-web"):
        browser.runtime_files(given)


def product(weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> onnx.ModelProto:
    """x -> x @ weight."""
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    graph = helper.make_graph(
        [node], "product", shapes[:1], shapes[1:], [numpy_helper.from_array(weight, "weight")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: bytes = session.run(None, {"x": x})[0].tobytes()
    return found


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", ["halves", "singles", "too large"])
def test_only_weights_that_16_bits_hold_are_stored_in_16(kind: str, exact: bool) -> None:
    noise = np.random.default_rng(0)
    weight = (
        noise.normal(size=(64, 64)).astype(np.float16 if kind == "halves" else np.float32).astype(np.float32)
    )
    if kind == "too large":
        weight[0, 0] = 70000
    stored = with_halves(product(weight), exact=exact)
    x = noise.normal(size=(5, 64)).astype(np.float32)
    smaller = kind == "halves" or (kind == "singles" and not exact)
    assert (stored.graph.initializer[0].data_type == TensorProto.FLOAT16) == smaller
    assert (run(stored, x) == run(product(weight), x)) == (kind != "singles" or exact)
    assert (stored.ByteSize() < 0.6 * product(weight).ByteSize()) == smaller
