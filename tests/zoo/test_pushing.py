"""Models onto the Hub and back: what is uploaded, who else reads it, and processes that pull at the same time."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hf_xet
import pytest
import torch
from hub_server import Hub
from huggingface_hub import ModelCard
from safetensors import safe_open
from torch import Tensor

import zoo
from zoo import hub as client
from zoo.cards import Result, Source, parse_card, read_card, write_card
from zoo.encoder import Encoder
from zoo.errors import CardError, HubError, WeightsError
from zoo.features import Features
from zoo.files import sha256
from zoo.folders import write_folder
from zoo.registry import WEIGHTS, home
from zoo.repos import list_repos
from zoo.weights import load_tensors, save_tensors

# The client hands its uploads to httpx in a way that httpx would rather see no more.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_" + "secret" * 4


@pytest.fixture
def folder(tiny: Encoder, tmp_path: Path) -> Path:
    """A model of the user's, with a number on its card."""
    knn = Result(
        "knn", 43.5, "imagenette", "top-1", unit="%", split="validation", command="zoo evaluate mine"
    )
    card = dataclasses.replace(tiny.card, name="mine", results=(knn,), tags=("cells",))
    write_folder(tmp_path / "mine", card, tiny.module, tiny.decoder, "# Mine", dtype=torch.float32)
    (tmp_path / "mine" / "checkpoint").mkdir()
    (tmp_path / "mine" / "checkpoint" / "state.pth").write_bytes(b"a run's own")
    return tmp_path / "mine"


@pytest.fixture
def logged_in(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub.token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def python(code: str, hub: Hub, place: Path, **environ: str) -> subprocess.Popen[str]:
    """A fresh interpreter with an empty cache and an empty local zoo in `place`."""
    settings = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(place / "hf"), "ZOO_HOME": str(place / "zoo"),
        "PYTHONPATH": str(ROOT), **environ,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **settings}, text=True, stdout=-1, stderr=-1
    )


def pixels() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def pooled(encoder: Encoder) -> Tensor:
    found = encoder(pixels())
    assert isinstance(found, Features)
    return found.pooled


# What is uploaded


def test_a_push_is_one_commit_of_what_makes_a_model(logged_in: Hub, folder: Path) -> None:
    assert zoo.push(folder, "me/dino") == f"{logged_in.url}/me/dino"
    repo = logged_in.repos["models/me/dino"]
    assert repo.private
    assert len(logged_in.requests("/commit/main", "POST")) == 1
    files = repo.commits[repo.head]
    assert files.keys() == {
        ".gitattributes", "README.md", "config.json", "model.safetensors", "decoder.safetensors"
    }  # fmt: skip
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    card = parse_card(files["README.md"].decode(), "dino")
    assert card.tags == ("ssl-zoo", "self-supervised", "timm", "mae", "cells")
    assert "library_name: timm\npipeline_tag: image-feature-extraction\n" in files["README.md"].decode()
    assert "model-index:\n- name: dino\n" in files["README.md"].decode()
    (score,) = ModelCard(files["README.md"].decode()).data.eval_results
    assert (score.metric_value, score.metric_type, score.dataset_name) == (43.5, "top-1", "imagenette")
    assert (card.sha256, card.title) == (read_card(folder).sha256, "Mine")
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_a_second_push_takes_away_what_is_gone_and_a_repo_keeps_what_is_its_own(
    logged_in: Hub, folder: Path, tiny: Encoder
) -> None:
    zoo.push(folder, "me/dino", private=False)
    repo = logged_in.repos["models/me/dino"]
    assert not repo.private
    repo.commit({**repo.commits[repo.head], "notes.txt": b"mine"})
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"graph")
    card = dataclasses.replace(read_card(folder), decoder=None)
    write_folder(folder, card, tiny.module, None, "# Less", dtype=torch.float32)
    zoo.push(folder, "me/dino")
    assert repo.commits[repo.head].keys() == {
        ".gitattributes", "README.md", "config.json", "model.safetensors", "notes.txt",
        "onnx/model.onnx",
    }  # fmt: skip
    assert parse_card(repo.commits[repo.head]["README.md"].decode(), "dino").tags[4] == "onnx"
    (folder / "onnx" / "model.onnx").unlink()
    (folder / "onnx" / "int8.onnx").write_bytes(b"another graph")
    zoo.push(folder, "me/dino")
    assert {each for each in repo.commits[repo.head] if each.startswith("onnx")} == {"onnx/int8.onnx"}


def test_pushes_that_are_refused(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.token = TOKEN
    with pytest.raises(HubError, match="'dino' is no name of a repo; write user/mine, say"):
        zoo.push(folder, "dino")
    with pytest.raises(HubError, match=r"me/dino answers 401: .*`hf auth login`, or set HF_TOKEN"):
        zoo.push(folder, "me/dino")
    monkeypatch.setenv("HF_TOKEN", wrong := "hf_" + "wrong" * 4)
    with pytest.raises(HubError) as error:
        zoo.push(folder, "me/dino")
    assert "answers 401" in str(error.value)
    assert wrong not in str(error.value) + caplog.text
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(WeightsError, match="is not the file its card describes"):
        zoo.push(folder, "me/dino")
    hub.stop()
    (folder / "model.safetensors").write_bytes(data)
    began = time.perf_counter()
    with pytest.raises(HubError, match="cannot be reached"):
        zoo.push(folder, "me/dino")
    assert time.perf_counter() - began < 3
    assert not hub.repos


# Who reads it

ELSEWHERE = """
import json, timm, torch, zoo
from transformers import AutoModel
pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
encoder = zoo.load("me/dino", device="cpu")
ready = encoder.transform.normalise(pixels)
with torch.no_grad():
    timms = timm.create_model("hf-hub:me/dino", pretrained=True).eval()(ready)
    transformers = AutoModel.from_pretrained("me/dino").eval()(ready).pooler_output
drawn = encoder.reconstruct(pixels, seed=2).composite
report = zoo.verify("me/dino")
print(json.dumps([each.tolist() for each in (encoder(pixels).pooled, timms, transformers, drawn)]))
print(report.parameters)
"""


@pytest.mark.timeout(300)  # it waits for an interpreter to start
def test_push_list_and_load_in_another_process_with_an_empty_cache(
    logged_in: Hub, folder: Path, tiny: Encoder, tmp_path: Path
) -> None:
    zoo.push(folder, "me/dino")
    logged_in.put("me/other", {"README.md": b"---\ntags: [ssl-zoo]\n---\n# no card of the zoo's"})
    logged_in.put(
        "you/dino", logged_in.repos["models/me/dino"].commits[logged_in.repos["models/me/dino"].head]
    )
    (found,) = list_repos("me")
    assert (found.name, found.method, found.parameters) == ("me/dino", "mae", tiny.card.parameters)
    assert found.results == read_card(folder).results
    child = python(ELSEWHERE, logged_in, tmp_path / "elsewhere", HF_TOKEN=TOKEN)
    out, err = child.communicate()
    assert child.returncode == 0, err
    assert TOKEN not in out + err
    features, report = out.splitlines()[-2:]
    zoos, timms, transformers, drawn = (torch.tensor(each) for each in json.loads(features))
    assert torch.equal(zoos, pooled(tiny))
    torch.testing.assert_close(timms, zoos, atol=1e-5, rtol=0)
    torch.testing.assert_close(transformers, zoos, atol=1e-5, rtol=0)
    assert torch.equal(drawn, tiny.reconstruct(pixels(), seed=2).composite)
    assert int(report) == tiny.card.parameters


def test_push_and_load_through_chunked_storage(
    logged_in: Hub, folder: Path, tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way the Hub's own large files go; its storage is a folder here, which the client writes and reads itself."""
    logged_in.chunks = f"local://{tmp_path / 'chunks'}"
    (tmp_path / "chunks").mkdir()
    weights = [folder / file for file in WEIGHTS]
    logged_in.storage = {
        sha256(path): path.read_bytes() for path in weights
    }  # the Hub asks its storage for them
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    zoo.push(folder, "me/dino")
    hashes = hf_xet.hash_files([str(path) for path in weights])
    logged_in.chunked = {sha256(path): each.hash for path, each in zip(weights, hashes, strict=True)}
    assert torch.equal(pooled(zoo.load("me/dino", device="cpu")), pooled(tiny))
    assert not logged_in.requests("/lfs/"), "no bytes went by the other way"


def test_a_cut_download_of_the_clients_goes_on(hub: Hub) -> None:
    data = os.urandom(25 << 20)
    hub.put("authors/big", {"model.safetensors": data})
    hub.cuts = [23 << 20]
    fetched = client.fetch("authors/big", "model.safetensors")
    assert fetched.path.read_bytes() == data
    assert [each.range for each in hub.requests("/lfs/", "GET")] == [None, f"bytes={20 << 20}-"]


# Processes that pull


@pytest.mark.timeout(300)  # it waits for three interpreters to start
def test_a_killed_pull_leaves_nothing_and_two_at_once_make_one_model(
    hub: Hub, tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"model": tiny.module.state_dict(), "more": torch.rand(1 << 20)}, tmp_path / "far.pth")
    hub.authors["far.pth"] = (tmp_path / "far.pth").read_bytes()
    source = Source(url=f"{hub.url}/authors/far.pth")
    card = write_card(dataclasses.replace(tiny.card, decoder=None, sources=(source,)), tmp_path / "far.md")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "zoo"))
    hub.stall_at = 3 << 20
    child = python(f"from zoo.downloads import download; download({source.url!r})", hub, tmp_path)
    part = home().parent / "downloads"
    while not (parts := [each for each in part.glob("*.part") if each.stat().st_size]):
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert "far" not in zoo.list_models()
    have = parts[0].stat().st_size
    (home() / ".far.unfinished").mkdir(parents=True)
    (home() / ".far.unfinished" / "model.safetensors").write_bytes(b"half")
    for child in [python(f"import zoo; print(zoo.pull({str(card)!r}))", hub, tmp_path) for _ in range(2)]:
        out, err = child.communicate()
        assert out.strip() == str(home() / "far"), err
    assert hub.requests("/authors/")[-1].range == f"bytes={have}-"
    assert len(hub.requests("/authors/")) == 2
    assert sorted(each.name for each in home().iterdir() if each.suffix != ".lock") == ["far"]
    assert torch.equal(pooled(zoo.load("far", device="cpu")), pooled(tiny))


# Verifying


def test_a_sound_folder_is_reported(folder: Path, tiny: Encoder) -> None:
    report = zoo.verify(folder)
    assert report.sha256 == read_card(folder).sha256
    assert (report.name, report.folder, report.parameters) == ("mine", folder, tiny.card.parameters)
    assert report.unstated == ()
    write_card(dataclasses.replace(read_card(folder), sha256={}), folder)
    assert zoo.verify(folder).unstated == ("model.safetensors", "decoder.safetensors")


def test_what_is_not_as_the_card_says_is_found(folder: Path, tmp_path: Path) -> None:
    whole = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    card = read_card(folder)

    def refused(says: str, kind: type[zoo.ZooError]) -> None:
        with pytest.raises(kind, match=says):
            zoo.verify(folder)
        for name, data in whole.items():
            (folder / name).write_bytes(data)

    (folder / "decoder.safetensors").write_bytes(whole["decoder.safetensors"][:-1] + b"!")
    refused("decoder.safetensors is not the file its card describes", WeightsError)
    config = json.loads(whole["config.json"])
    (folder / "config.json").write_text(json.dumps({**config, "global_pool": "token"}))
    refused("config.json does not say what the card does", CardError)
    write_card(dataclasses.replace(card, parameters=7), folder)
    refused(f"has {card.parameters} parameters, and its card says 7", CardError)
    tensors = load_tensors(folder / "model.safetensors")
    save_tensors(
        folder / "model.safetensors", {name: tensor for name, tensor in tensors.items() if "cls" not in name}
    )
    write_card(dataclasses.replace(card, sha256={}), folder)
    refused(r"1 missing\n  cls_token", WeightsError)
    write_card(dataclasses.replace(card, sources=(Source(url="https://a/b"),)), tmp_path / "far.md")
    with pytest.raises(
        WeightsError, match="far's weights are not on this machine; `zoo pull far` fetches them"
    ):
        zoo.verify(tmp_path / "far.md")
