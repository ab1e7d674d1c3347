"""`zoo pull`, `verify`, `push`, `list --hub` and `show user/repo`, against a live Hub."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from hub_server import Hub

from zoo.cards import Source, read_card, write_card
from zoo.cli import main
from zoo.encoder import Encoder
from zoo.folders import write_folder
from zoo.registry import home

# The client hands its uploads to httpx in a way that httpx would rather see no more.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "hf_" + "secret" * 4


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line; the token is in neither."""
    code = main(words)
    out, err = capsys.readouterr()
    assert TOKEN not in out + err
    return code, out, err


def row(out: str, name: str) -> list[str]:
    """The cells of a model in what `zoo list` printed."""
    (cells,) = (line.split() for line in out.splitlines() if line.startswith(f"{name} "))
    return cells


@pytest.fixture
def folder(tiny: Encoder, tmp_path: Path) -> Path:
    write_folder(
        tmp_path / "mine", dataclasses.replace(tiny.card, name="mine"), tiny.module, tiny.decoder, "# Mine"
    )
    return tmp_path / "mine"


def test_push_list_show_pull_and_verify(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = answer(capsys, "push", str(folder), "me/dino")
    assert code == 2 and "answers 401" in err and err.startswith("zoo: ")
    hub.token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, out, _ = answer(capsys, "push", str(folder), "me/dino", "--public")
    assert (code, out) == (0, f"pushed {folder} to {hub.url}/me/dino; load it with zoo.load('me/dino')\n")
    assert not hub.repos["models/me/dino"].private
    code, out, _ = answer(capsys, "list", "--hub", "me")
    assert code == 0 and row(out, "me/dino")[-1] == "hub"
    code, out, _ = answer(capsys, "list", "d*", "--hub", "me", "--json")
    assert [each["name"] for each in json.loads(out)] == ["me/dino"]
    for words in (
        ("list", "m*", "--hub", "me"),
        ("list", "--hub", "you"),
        ("list", "--hub", "me", "--kind", "supervised"),
    ):
        code, out, err = answer(capsys, *words)
        assert (code, out) == (0, "") and "has no such model on the Hub" in err
    code, out, _ = answer(capsys, "show", "me/dino")
    assert code == 0 and out.startswith("me/dino: Mine\n\nlicence ")
    code, out, _ = answer(capsys, "pull", "me/dino")
    assert code == 0 and out.startswith("me/dino is in ") and "; load it with zoo.load('me/dino')\n" in out
    code, out, _ = answer(capsys, "verify", "me/dino")
    assert code == 0 and out.startswith("me/dino is sound\n\nfolder ")
    for file, digest in read_card(folder).sha256.items():
        assert f"{file:19}  sha256 {digest}, as on the card\n" in out


def test_a_strangers_card_cannot_write_over_the_terminal(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (folder / "README.md").read_text().replace("method: mae", r'method: "mae\e[2J"')
    hub.put("someone/mine", {"README.md": (readme + "\nall\x1b]0;mine\x07 \x9b2J yours\n").encode()})
    for words in (("list", "--hub", "someone"), ("show", "someone/mine")):
        code, out, _ = answer(capsys, *words)
        assert code == 0 and not set(out) & {"\x1b", "\x07", "\x9b"}
    assert "mae[2J" in out and "all]0;mine 2J yours" in out


def test_a_pulled_model_is_listed_as_local_and_can_be_removed(
    hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (folder / "model.safetensors").read_bytes()
    hub.authors["far.safetensors"] = data
    source = Source(url=f"{hub.url}/authors/far.safetensors")
    card = write_card(
        dataclasses.replace(read_card(folder), decoder=None, sources=(source,), sha256={}),
        tmp_path / "far.md",
    )
    code, out, err = answer(capsys, "pull", str(card))
    assert (code, out) == (0, f"{card} is in {home() / 'far'}; load it with zoo.load('far')\n")
    assert f"no sha256 is published; {hashlib.sha256(data).hexdigest()[:12]}… is pinned in" in err
    code, out, _ = answer(capsys, "list", "far")
    assert row(out, "far")[-1] == "local"
    code, out, _ = answer(capsys, "verify", "far")
    assert code == 0 and "config.json        as on the card\n" in out
    (home() / "far" / "model.safetensors").write_bytes(data[:-1] + b"?")
    code, _, err = answer(capsys, "verify", "far")
    assert code == 2 and "is not the file its card describes" in err
    code, out, _ = answer(capsys, "remove", "far")
    assert out == f"removed {home() / 'far'}\n"
