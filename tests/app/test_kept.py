"""What is kept in memory, and what has to go."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from zoo.app.kept import Kept
from zoo.app.shelf import Shelf, encoder_bytes, half_of_memory
from zoo.errors import UnknownModel


def test_the_least_recently_used_goes() -> None:
    kept: Kept[int] = Kept(10, lambda value: value)
    for key in "ab":
        assert kept.get(key, lambda: 4) == 4
    kept.get("a", lambda: pytest.fail("made twice"))
    kept.get("c", lambda: 5)
    assert [key in kept for key in "abc"] == [True, False, True] and kept.bytes == 9
    kept.get("large", lambda: 50)
    assert len(kept) == 1 and "large" in kept


def test_whoever_asks_at_once_waits_for_one() -> None:
    kept: Kept[object] = Kept(100, lambda value: 1)
    made, gate = [], threading.Barrier(8)

    def make() -> object:
        made.append(object())
        return made[-1]

    def ask(_: int) -> object:
        gate.wait()
        return kept.get("key", make)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert len(made) == 1 and all(each is made[0] for each in found)


def test_what_fails_is_not_kept() -> None:
    kept: Kept[int] = Kept(10, lambda value: value)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: 1 // 0)
    assert not kept._making  # or every wrong question would cost memory for good
    assert "a" not in kept and kept.get("a", lambda: 3) == 3


@pytest.mark.parametrize(("limit", "wanted"), [("1000000\n", 500_000), ("max\n", None)])
def test_a_containers_limit_is_the_memory_there_is(limit: str, wanted: int | None, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(limit)
    machine = half_of_memory([tmp_path / "none"])
    assert machine > 2**20
    assert half_of_memory([tmp_path / "memory.max"]) == (machine if wanted is None else wanted)


def test_a_shelf_holds_what_is_here(small_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", str(small_zoo))
    shelf = Shelf()
    assert {"dino_vitt16_imagenette", "mae_vitt16_imagenette", "tiny_ummae"} <= set(shelf.names())
    masked = shelf.names(masked=True)
    assert {"mae_vitt16_imagenette", "tiny_ummae", "tiny_simmim"} <= set(masked)
    assert "dino_vitt16_imagenette" not in masked and "dino_vits16" not in shelf.names()
    with pytest.raises(UnknownModel, match="did you mean 'tiny_ummae'"):
        shelf.encoder("tiny_umae")


def test_models_are_loaded_once_and_evicted(small_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", str(small_zoo))
    said: list[str] = []
    shelf = Shelf([small_zoo / "models" / "tiny_ummae"], budget=1)
    assert shelf.names()[0] == "tiny_ummae"
    first = shelf.encoder("tiny_ummae", said.append)
    assert shelf.encoder("tiny_ummae", said.append) is first
    shelf.encoder("tiny_simmim", said.append)
    assert shelf.encoder("tiny_ummae", said.append) is not first  # there was room for one alone
    assert said == ["loading tiny_ummae", "loading tiny_simmim", "loading tiny_ummae"]
    parts = (first.module, first.decoder)
    state = sum(each.numel() * 4 for part in parts if part for each in part.parameters())
    assert encoder_bytes(first) >= state > 0


def test_tokens_of_a_photo_are_computed_once(small: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, encoder = Shelf(), small["tiny_simmim"]
    photo = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    first = shelf.tokens(encoder, photo, -1)
    assert shelf.tokens(encoder, photo.clone(), -1) is first
    assert shelf.tokens(encoder, photo.flip(2), -1) is not first
    torch.testing.assert_close(first.patches, encoder(photo[None]).patches)
