"""What a running app refuses to those who write to its API themselves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from app_server import Served
from PIL import Image

from zoo.app.photos import examples
from zoo.app.server import LOCAL, listen

ANSWER = 90.0  # seconds: a busy machine is no bug
DINO = "dino_vitt16_imagenette"


@pytest.fixture
def address(served: Served) -> str:
    return f"{served.url}/gradio_api"


def asked(address: str, path: str) -> str:
    """The end of a call for the heads of a photo at `path`: `event: complete` or `event: error`, with its data."""
    photo = {"path": path, "meta": {"_type": "gradio.FileData"}}
    data: list[Any] = [photo, DINO, 11, 8, 60, "the class token", -1, -1]
    call = httpx.post(f"{address}/call/attend", json={"data": data}, timeout=ANSWER)
    assert call.status_code == 200, call.text
    told = httpx.get(f"{address}/call/attend/{call.json()['event_id']}", timeout=ANSWER).text
    return told[told.rindex("event: ") :]


def uploaded(address: str, photo: Path) -> str:
    """Where an uploaded photo lies on the server."""
    with photo.open("rb") as file:
        answer = httpx.post(f"{address}/upload", files={"files": file}, timeout=ANSWER)
    return str(answer.json()[0])


@pytest.mark.timeout(300)
def test_only_uploaded_files_are_read(address: str, tmp_path: Path) -> None:
    photo = tmp_path / "private.png"
    Image.open(next(iter(examples().values()))).save(photo)
    assert asked(address, uploaded(address, photo)).startswith("event: complete")
    for path in (photo, next(iter(examples().values()))):
        assert asked(address, str(path)).startswith("event: error")


@pytest.mark.timeout(300)
def test_the_server_is_not_sent_to_fetch(address: str) -> None:
    began = time.monotonic()
    with listen(LOCAL, 0) as elsewhere:
        elsewhere.settimeout(0.5)
        for host in (f"{LOCAL}:{elsewhere.getsockname()[1]}", "photos.example"):
            assert asked(address, f"http://{host}/photo.png").startswith("event: error")
        with pytest.raises(TimeoutError):
            elsewhere.accept()
    assert time.monotonic() - began < ANSWER


@pytest.mark.timeout(300)
def test_nobody_passes_the_queue(address: str) -> None:
    assert httpx.post(f"{address}/run/attend", json={"data": []}, timeout=ANSWER).status_code == 404
