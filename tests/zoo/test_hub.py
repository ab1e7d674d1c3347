"""The client against a live Hub: files, data sets, the cache, and what is said when something is not there."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sys
import time
from pathlib import Path

import hf_xet
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Hub

from zoo import hub as client
from zoo.endpoint import without_secrets
from zoo.errors import HubError, Unreachable

WEIGHTS = b"weights " * 1000


def parquet(rows: int) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"label": list(range(rows)), "text": ["x" * 100] * rows}), sink, row_group_size=50
    )
    return sink.getvalue()


# Files of models


def test_a_file_comes_once_and_then_from_the_cache(hub: Hub) -> None:
    commit = hub.put("authors/model", {"model.safetensors": WEIGHTS, "config.json": b"{}"})
    first = client.fetch("authors/model", "model.safetensors")
    assert first.path.read_bytes() == WEIGHTS
    assert (first.commit, first.sha256) == (commit, hashlib.sha256(WEIGHTS).hexdigest())
    assert (
        client.fetch("authors/model", "config.json").sha256 is None
    )  # the Hub keeps no sha256 of small files
    asked = len(hub.log)
    assert client.fetch("authors/model", "model.safetensors", commit) == first
    assert len(hub.log) == asked, "what lies in the cache at a pinned commit asks nobody"
    client.fetch("authors/model", "model.safetensors")
    assert len(hub.requests("/lfs/", "GET")) == 1


def test_a_server_that_is_down_is_made_up_for_by_the_cache_at_once(hub: Hub) -> None:
    commit = hub.put("authors/model", {"model.safetensors": WEIGHTS})
    client.fetch("authors/model", "model.safetensors")
    hub.stop()
    for revision in (None, "main", commit):
        times = []
        for _ in range(3):  # the machine may be busy with something else
            began = time.perf_counter()
            assert client.fetch("authors/model", "model.safetensors", revision).path.read_bytes() == WEIGHTS
            times.append(time.perf_counter() - began)
        assert min(times) < 1
    began = time.perf_counter()
    with pytest.raises(Unreachable, match=rf"^{hub.url} cannot be reached \(.*refused"):
        client.fetch("authors/model", "config.json")
    assert time.perf_counter() - began < 3


def test_offline_asks_nobody(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("authors/model", {"model.safetensors": WEIGHTS, "other.safetensors": WEIGHTS + b"!"})
    client.fetch("authors/model", "model.safetensors")
    asked = len(hub.log)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert client.fetch("authors/model", "model.safetensors").path.read_bytes() == WEIGHTS
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        client.fetch("authors/model", "other.safetensors")
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        client.repo_files("authors/model")
    assert len(hub.log) == asked


def test_what_is_missing_is_named(hub: Hub) -> None:
    hub.put("authors/model", {"config.json": b"{}"})
    hub.put("authors/gated", {"config.json": b"{}"}, gated=True)
    for repo, file, revision, says in (
        ("authors/nothing", "a.bin", None, f"{hub.url}/authors/nothing does not exist, or is private; .*HF_TOKEN"),
        ("authors/model", "a.bin", None, f"{hub.url}/authors/model has no a.bin"),
        ("authors/model", "a.bin", "v9", f"{hub.url}/authors/model has no revision 'v9'"),
        ("authors/gated", "config.json", None, f"accept its licence at {hub.url}/authors/gated, then .*HF_TOKEN"),
        ("no/such/repo", "a.bin", None, "no/such/repo"),
    ):  # fmt: skip
        with pytest.raises(HubError, match=says) as error:
            client.fetch(repo, file, revision)
        assert not isinstance(error.value, Unreachable)
    for revision in (None, "0" * 40):
        with pytest.raises(HubError, match=r"Cannot have -- or \.\. in repo_id"):
            client.fetch("authors/no..repo", "a.bin", revision)


def test_a_token_opens_what_is_private_and_is_never_told(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.put("authors/secret", {"model.safetensors": WEIGHTS}, private=True)
    hub.token = "hf_" + "q" * 20
    monkeypatch.setenv("HF_TOKEN", hub.token)
    client.fetch("authors/secret", "model.safetensors")
    assert hub.requests("/resolve/")[0].authorization == f"Bearer {hub.token}"
    assert hub.requests("/lfs/", "GET")[0].authorization is None, "the storage never sees it"
    assert "/authors/secret/" in caplog.text and hub.token not in caplog.text
    hub.put("authors/accepted", {"model.safetensors": WEIGHTS}, gated=True)
    assert client.fetch("authors/accepted", "model.safetensors").path.read_bytes() == WEIGHTS
    told = without_secrets(
        f"Bearer {hub.token} at https://me:word@host/x?sig=abc, then hf_{'z' * 20} and other"
    )
    assert told == "Bearer … at https://host/x?… then hf_… and other"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("chunked", [False, True])
def test_a_bar_is_drawn_on_a_terminal_whichever_way_the_bytes_come(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    data = os.urandom(2 << 20)
    commit = hub.put("authors/model", {"model.safetensors": data})
    if chunked:  # as the Hub stores large files, and sends them to this client
        hub.chunks = f"local://{tmp_path / 'chunks'}"
        (tmp_path / "chunks").mkdir()
        storage = {"endpoint": hub.chunks, "token": "chunks", "token_expiry_unix_secs": 4_000_000_000}
        with hf_xet.XetSession().new_upload_commit(**storage) as upload:
            stored = upload.start_upload_bytes(data, hf_xet.COMPUTE_SHA256)
        hub.chunked = {hashlib.sha256(data).hexdigest(): stored.result().xet_info.hash}
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    fetched = client.fetch("authors/model", "model.safetensors")
    assert fetched.path.read_bytes() == data
    assert (fetched.commit, fetched.sha256) == (commit, hashlib.sha256(data).hexdigest())
    assert len(hub.requests("/lfs/", "GET")) == (0 if chunked else 1)
    assert "authors/model model.safetensors" in terminal.getvalue() and "2.1/2.1 MB" in terminal.getvalue()


# Data sets


def test_a_data_set_is_listed_and_read_in_parts(hub: Hub) -> None:
    data = parquet(400)
    commit = hub.put(
        "authors/photos", {"README.md": b"# Photos", "data/train-00000-of-00001.parquet": data}, kind="datasets"
    )  # fmt: skip
    found = client.dataset_files("authors/photos")
    assert found.commit == commit
    assert list(found.files) == ["README.md", "data/train-00000-of-00001.parquet"]
    with client.open_dataset_file(
        "authors/photos", "data/train-00000-of-00001.parquet", commit, block=2048
    ) as file:
        table = pq.ParquetFile(file).read_row_group(3, columns=["label"])
    assert table.column(0).to_pylist() == list(range(150, 200))
    moved = [request for request in hub.requests("/resolve/") if request.range]
    assert moved, "only the parts that were asked for are moved"


def test_a_data_set_that_is_not_there_or_goes_away(hub: Hub) -> None:
    commit = hub.put("authors/photos", {"a.parquet": parquet(50)}, kind="datasets")
    with pytest.raises(HubError, match=f"{hub.url}/datasets/authors/fotos does not exist"):
        client.dataset_files("authors/fotos")
    with pytest.raises(HubError, match=r"datasets/authors/photos has no b\.parquet"):
        client.open_dataset_file("authors/photos", "b.parquet", commit)
    hub.stop()
    began = time.perf_counter()
    with pytest.raises(Unreachable, match="cannot be reached"):
        client.dataset_files("authors/photos")
    assert time.perf_counter() - began < 3
