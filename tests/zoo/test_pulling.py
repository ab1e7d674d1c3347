"""Weights that lie elsewhere: sources in turn, hashes, pins, a cut line, and what is said where nothing comes."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Hub
from torch import Tensor

import zoo
from zoo import trust
from zoo.cards import ModelCard, Source, TrainingFacts, parse_card, render_card, write_card
from zoo.encoder import Encoder
from zoo.errors import UnknownModel, Unsupported, WeightsError
from zoo.features import Features
from zoo.folders import write_folder
from zoo.registry import home, register, remove

FILE = "mae_pretrain_vit_tiny_full.pth"


def as_authors_write(tiny: Encoder) -> bytes:
    """A MAE checkpoint with its decoder, under the names of its authors."""
    assert tiny.decoder is not None
    names = {
        "embed": "decoder_embed",
        "norm": "decoder_norm",
        "head": "decoder_pred",
        "blocks": "decoder_blocks",
    }
    theirs = dict(tiny.module.state_dict())
    for name, tensor in tiny.decoder.state_dict().items():
        first, dot, rest = name.partition(".")
        theirs[names.get(first, first) + dot + rest] = tensor
    sink = io.BytesIO()
    torch.save({"model": theirs, "epoch": 799}, sink)
    return sink.getvalue()


@pytest.fixture(scope="module")
def published(tiny: Encoder) -> bytes:
    return as_authors_write(tiny)


def quickest(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and the least of three times in seconds: the machine may be busy with something else."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - began)
    return found, min(times)


def pixels() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def pooled(encoder: Encoder) -> Tensor:
    found = encoder(pixels())
    assert isinstance(found, Features)
    return found.pooled


def lay_card(folder: Path, card: ModelCard, *sources: Source, **changes: Any) -> Path:
    """A NAME.md whose weights lie at `sources`."""
    return write_card(dataclasses.replace(card, name="far", sources=sources, **changes), folder / "far.md")


def at_hub(**other: Any) -> Source:
    return Source(repo="authors/mae", file=FILE, **other)


def at_authors(hub: Hub, **other: Any) -> Source:
    return Source(url=f"{hub.url}/authors/{FILE}", **other)


# What comes


def test_the_teacher_of_a_full_dino_checkpoint(hub: Hub, tiny: Encoder, tmp_path: Path) -> None:
    ours = tiny.module.state_dict()
    sink = io.BytesIO()
    heads = {"module.head.mlp.0.weight": torch.ones(3, 5)}
    student = {f"module.backbone.{name}": -tensor for name, tensor in ours.items()}
    teacher = {f"backbone.{name}": tensor for name, tensor in ours.items()}
    args = argparse.Namespace(arch="vit_tiny", out_dim=65536)
    torch.save({"student": student | heads, "teacher": teacher, "epoch": 800, "args": args}, sink)
    hub.authors["dino_full_checkpoint.pth"] = sink.getvalue()
    source = Source(url=f"{hub.url}/authors/dino_full_checkpoint.pth")
    found = zoo.load(lay_card(tmp_path, tiny.card, source, decoder=None), device="cpu")
    assert torch.equal(pooled(found), pooled(tiny))


@pytest.mark.parametrize("where", ["hub", "authors"])
def test_an_official_file_gives_the_module_it_was_made_from(
    hub: Hub, tiny: Encoder, published: bytes, tmp_path: Path, where: str
) -> None:
    hub.put("authors/mae", {FILE: published})
    hub.authors[FILE] = published
    source = at_hub(layout="mae_pth") if where == "hub" else at_authors(hub)
    card = lay_card(tmp_path, tiny.card, source)
    found = zoo.load(card, device="cpu")
    assert torch.equal(pooled(found), pooled(tiny))
    mine, theirs = (each.reconstruct(pixels(), seed=2) for each in (tiny, found))
    assert torch.equal(mine.composite, theirs.composite)
    folder = home() / "far"
    assert {"README.md", "config.json", "model.safetensors", "decoder.safetensors"} == {
        each.name for each in folder.iterdir()
    }
    local = zoo.card("far")
    assert local.path == folder / "README.md"
    assert local.sources[0].sha256 == hashlib.sha256(published).hexdigest()
    hub.stop()
    again, seconds = quickest(lambda: zoo.load("far", device="cpu"))
    assert seconds < 1
    assert torch.equal(pooled(again), pooled(tiny))
    assert zoo.pull(card) == zoo.pull("far") == folder


def test_numbers_stay_as_wide_as_they_were_published(hub: Hub, tiny: Encoder, tmp_path: Path) -> None:
    from zoo.weights import load_tensors

    for dtype in (torch.float16, torch.float32):
        sink = io.BytesIO()
        torch.save({name: tensor.to(dtype) for name, tensor in tiny.module.state_dict().items()}, sink)
        hub.authors[f"{dtype}.pth"] = sink.getvalue()
        name = str(dtype).removeprefix("torch.")
        card = dataclasses.replace(
            tiny.card, name=name, decoder=None, sources=(Source(url=f"{hub.url}/authors/{dtype}.pth"),)
        )
        folder = zoo.pull(write_card(card, tmp_path / f"{name}.md"))
        assert {tensor.dtype for tensor in load_tensors(folder / "model.safetensors").values()} == {dtype}


def test_a_source_without_the_decoder_still_encodes(
    hub: Hub, tiny: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = io.BytesIO()
    torch.save({"model": tiny.module.state_dict()}, sink)
    hub.authors[FILE] = sink.getvalue()
    found = zoo.load(lay_card(tmp_path, tiny.card, at_authors(hub)), device="cpu")
    assert torch.equal(pooled(found), pooled(tiny)) and found.decoder is None
    assert "holds no decoder, so it cannot reconstruct" in caplog.text


def test_what_is_bundled_or_a_folder_is_pulled_at_once(hub: Hub, tiny: Encoder, tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", tiny.card, tiny.module, tiny.decoder, "")
    assert zoo.pull(tmp_path / "mine") == tmp_path / "mine"
    assert zoo.pull("dino_vitt16_imagenette") == zoo.card("dino_vitt16_imagenette").path.parent  # type: ignore[union-attr]
    assert hub.log == []


# What is refused


def test_a_dead_source_is_told_and_the_next_one_taken(
    hub: Hub, tiny: Encoder, published: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.authors |= {"expired.pth": b"", FILE: published}
    hub.statuses["expired.pth"] = 403
    hub.put("authors/gated", {FILE: published}, gated=True)
    dead = [
        Source(repo="authors/gone", file=FILE),
        Source(repo="authors/gated", file=FILE),
        Source(url=f"{hub.url}/authors/expired.pth"),
    ]
    found = zoo.load(lay_card(tmp_path, tiny.card, *dead, at_authors(hub)), device="cpu")
    assert torch.equal(pooled(found), pooled(tiny))
    for says in (
        f"far: {hub.url}/authors/gone/resolve/main/{FILE}: {hub.url}/authors/gone does not exist, or is private",
        f"authors/gated is gated: accept its licence at {hub.url}/authors/gated",
        f"{hub.url}/authors/expired.pth: answers 403: the link is dead, or has expired; the next source was taken",
    ):
        assert says in caplog.text


@pytest.mark.parametrize("where", ["hub", "authors"])
def test_a_flipped_byte_is_refused_and_fetched_anew(
    hub: Hub, tiny: Encoder, published: bytes, tmp_path: Path, where: str
) -> None:
    digest = hashlib.sha256(published).hexdigest()
    hub.put("authors/mae", {FILE: published})
    hub.authors[FILE] = published
    hub.tampered = {digest, FILE}
    # The Hub states the hash itself; an author's address needs the card's.
    source = at_hub() if where == "hub" else at_authors(hub, sha256=digest)
    card = lay_card(tmp_path, tiny.card, source)
    with pytest.raises(WeightsError, match="damaged on the way, or another file"):
        zoo.pull(card)
    assert not (home() / "far").exists()
    hub.tampered.clear()
    assert torch.equal(pooled(zoo.load(card, device="cpu")), pooled(tiny))


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"sha256_prefix": "012345678"}, {"md5_prefix": "0123456"}]
)
def test_every_published_hash_is_held_against_the_file(
    hub: Hub, tiny: Encoder, published: bytes, tmp_path: Path, wrong: dict[str, str]
) -> None:
    hub.authors[FILE] = published
    with pytest.raises(
        WeightsError, match=rf"instead of {next(iter(wrong.values()))[:12]}… \({next(iter(wrong))[:3]}"
    ):
        zoo.pull(lay_card(tmp_path, tiny.card, at_authors(hub, **wrong)))
    right = {
        "sha256_prefix": hashlib.sha256(published).hexdigest()[:8],
        "md5_prefix": hashlib.md5(published).hexdigest()[:8],
    }
    assert zoo.pull(lay_card(tmp_path, tiny.card, at_authors(hub, **right))) == home() / "far"


def test_without_a_published_hash_the_first_file_is_pinned(
    hub: Hub, tiny: Encoder, published: bytes, tmp_path: Path
) -> None:
    hub.authors[FILE] = published
    card = lay_card(tmp_path, tiny.card, at_authors(hub))
    zoo.pull(card)
    pins = json.loads((home().parent / "pins.json").read_text())
    assert pins[f"{hub.url}/authors/{FILE}"]["sha256"] == hashlib.sha256(published).hexdigest()
    remove("far")
    hub.authors[FILE] = published + b"\0"
    with pytest.raises(
        WeightsError, match=rf"not the file that came on 20.*delete the entry '{hub.url}.*pins\.json"
    ):
        zoo.pull(card)
    (home().parent / "pins.json").unlink()
    assert zoo.pull(card) == home() / "far"


def test_a_file_of_another_model_is_refused_and_leaves_no_pin(
    hub: Hub, tiny: Encoder, tmp_path: Path
) -> None:
    hub.authors[FILE] = b"<html>sign in</html>"
    with pytest.raises(WeightsError, match="cannot be read"):
        zoo.pull(lay_card(tmp_path, tiny.card, at_authors(hub)))
    assert not (home().parent / "pins.json").exists() and not (home() / "far").exists()


def test_a_model_changed_after_it_was_pulled_is_refused(
    hub: Hub, tiny: Encoder, published: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.authors[FILE] = published
    folder = zoo.pull(lay_card(tmp_path, tiny.card, at_authors(hub)))
    zoo.load("far", device="cpu")
    hashed: list[Path] = []
    monkeypatch.setattr(trust, "verify", lambda path, digest: hashed.append(path))
    zoo.load("far", device="cpu")
    assert hashed == [], "one version of a file is hashed once"
    for damaged in ("{", "[1]"):
        (home().parent / "verified.json").write_text(damaged)
        zoo.load("far", device="cpu")
        zoo.load("far", device="cpu")
    assert [each.name for each in hashed] == ["model.safetensors", "decoder.safetensors"] * 2
    monkeypatch.undo()
    file = folder / "model.safetensors"
    before, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size and time of change
    with pytest.raises(WeightsError, match="is not the file its card describes"):
        zoo.load(folder, device="cpu")


# What is said


def test_without_a_hub_one_error_names_every_source_and_the_ways_out(
    hub: Hub, tiny: Encoder, tmp_path: Path
) -> None:
    dead = Source(url="http://127.0.0.1:9/far.pth")
    card = lay_card(tmp_path, tiny.card, at_hub(), Source(repo="other/mae", file="a.pth"), dead)
    hub.stop()
    began = time.perf_counter()
    with pytest.raises(WeightsError) as error:
        zoo.load(card)
    assert time.perf_counter() - began < 3
    lines = str(error.value).splitlines()
    first = f"{hub.url}/authors/mae/resolve/main/{FILE}"
    assert lines[0] == "far's weights are not on this machine, and no source gives them:"
    assert re.fullmatch(rf"  {first}: {hub.url} cannot be reached \(.*refused\)", lines[1])
    assert lines[2] == f"  {hub.url}/other/mae/resolve/main/a.pth: likewise"
    assert re.fullmatch(
        r"  http://127.0.0.1:9/far.pth: 127.0.0.1:9 cannot be reached \(.*refused\)", lines[3]
    )
    assert lines[4:] == [
        "ways out:",
        f"  fetch {first} where you can, and pass weights=FILE",
        "  take zoo.load('mae_vitt16_imagenette'), which is on this machine (the same method: mae)",
        f"  set HF_ENDPOINT to a Hub that this machine reaches (now {hub.url})",
        '  take weights="random", the untrained architecture',
    ]


def test_offline_is_a_way_in_as_well(
    hub: Hub, tiny: Encoder, published: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put("authors/mae", {FILE: published})
    card = lay_card(tmp_path, tiny.card, at_hub(), at_authors(hub))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        WeightsError, match=r"(?s): HF_HUB_OFFLINE is set\n.*: HF_HUB_OFFLINE is set\n.*  unset HF_HUB"
    ):
        zoo.load(card)
    assert hub.log == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    zoo.pull(card)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert torch.equal(pooled(zoo.load("far", device="cpu")), pooled(tiny))


def test_a_home_that_cannot_be_written_to_costs_no_more_than_time(
    tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "mine", tiny.card, tiny.module, tiny.decoder, "", dtype=torch.float32)
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "file" / "home"))
    assert torch.equal(pooled(zoo.load(tmp_path / "mine", device="cpu")), pooled(tiny))


def test_a_model_that_cannot_be_had_says_why(hub: Hub, tiny: Encoder, tmp_path: Path) -> None:
    why = "its authors publish a pickle of JAX objects; convert it and pass weights=byol.pth"
    with pytest.raises(
        WeightsError, match=rf"(?s)^far's weights are not on this machine: {why}\nways out:\n  take"
    ):
        zoo.load(lay_card(tmp_path, tiny.card, unavailable=why))


def test_a_taken_name_is_not_overwritten(hub: Hub, tiny: Encoder, published: bytes, tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", tiny.card, tiny.module, tiny.decoder, "")
    register(tmp_path / "mine", "far")
    with pytest.raises(Unsupported, match=r"another 'far'.*`zoo remove far`"):
        zoo.pull(lay_card(tmp_path, tiny.card, at_authors(hub)))


def test_a_card_corrected_since_is_told_once(
    hub: Hub,
    tiny: Encoder,
    published: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub.authors[FILE] = published
    monkeypatch.setattr("zoo.registry.MODEL_CARDS", tmp_path)
    lay_card(tmp_path, tiny.card, at_authors(hub))
    zoo.pull("far")
    assert not re.search("has changed", caplog.text + str(zoo.pull("far")))
    corrected = dataclasses.replace(tiny.card.transform, crop_pct=0.9)
    lay_card(tmp_path, tiny.card, at_authors(hub), transform=corrected)
    for _ in range(2):
        assert zoo.card("far").transform == tiny.card.transform and zoo.load("far", device="cpu")
    assert caplog.text.count("has changed since it was pulled (transform); `zoo remove far`") == 1


@pytest.mark.parametrize("licence", ["apache-2.0", "cc-by-nc-4.0"])
def test_the_licence_is_noted_once(
    tiny: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture, licence: str
) -> None:
    caplog.set_level(logging.INFO, "zoo")
    place = tmp_path / f"licensed_{licence}"
    write_folder(place, dataclasses.replace(tiny.card, licence=licence), tiny.module, tiny.decoder, "")
    for _ in range(2):
        zoo.load(place, device="cpu")
    notes = [record for record in caplog.records if f"weights under {licence}" in record.message]
    assert [note.levelname for note in notes] == ["INFO" if licence == "apache-2.0" else "WARNING"]
    assert ("which forbids commercial use" in notes[0].message) == (licence != "apache-2.0")


def test_an_unknown_licence_is_told_with_what_to_do_where_the_model_is_ones_own(
    tiny: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = TrainingFacts("mae/smoke", "zoo train", "photos", 1, 1, 1, 0, "a CPU", 0.0)
    for name, training in (("unknown_mine", mine), ("unknown_theirs", None)):
        card = dataclasses.replace(tiny.card, licence="unknown", training=training)
        write_folder(tmp_path / name, card, tiny.module, tiny.decoder, "")
        zoo.load(tmp_path / name, device="cpu")
        (note,) = (each.message for each in caplog.records if each.message.startswith(f"{name}: "))
        assert (
            f"{name}: licence of the weights: unknown, so commercial use is not known to be allowed" in note
        )
        assert ("--run.licence" in note) == (training is not None)


def test_commercial_use_is_refused_with_the_nearest_that_is_permitted(tiny: Encoder, tmp_path: Path) -> None:
    card = lay_card(tmp_path, tiny.card, licence="cc-by-nc-4.0")
    with pytest.raises(
        Unsupported, match=r"the same method that may be: 'mae_vitt16_imagenette' \(apache-2\.0\)"
    ):
        zoo.load(card, policy="commercial")


# Repos of other people


@pytest.fixture
def stranger(hub: Hub, tiny: Encoder, tmp_path: Path) -> dict[str, bytes]:
    """The files of a model folder, in a repo."""
    card = dataclasses.replace(tiny.card, method="mine")
    write_folder(tmp_path / "theirs", card, tiny.module, tiny.decoder, "# Mine", dtype=torch.float32)
    files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    hub.put("someone/mine", files)
    return files


def test_a_strangers_folder_is_read_and_kept(hub: Hub, tiny: Encoder, stranger: dict[str, bytes]) -> None:
    found = zoo.load("someone/mine", device="cpu")
    assert found.card.name == "someone/mine"
    assert torch.equal(pooled(found), pooled(tiny)) and found.decoder is not None
    old = hub.repos["models/someone/mine"].head
    hub.put("someone/mine", {"README.md": b"# gone"})
    assert torch.equal(pooled(zoo.load(f"someone/mine@{old}", device="cpu")), pooled(tiny))
    hub.put("someone/mine", stranger)
    zoo.load("someone/mine", device="cpu")
    hub.stop()
    kept, seconds = quickest(lambda: zoo.load("someone/mine", device="cpu"))
    assert torch.equal(pooled(kept), pooled(tiny)) and seconds < 1
    began = time.perf_counter()
    with pytest.raises(
        UnknownModel, match=rf"no folder or model 'someone/other'.*as a repo: {hub.url} cannot"
    ):
        zoo.load("someone/other")
    assert time.perf_counter() - began < 3


def test_a_flipped_byte_in_a_strangers_folder_is_refused(
    hub: Hub, tiny: Encoder, stranger: dict[str, bytes]
) -> None:
    hub.tampered.add(hashlib.sha256(stranger["model.safetensors"]).hexdigest())
    with pytest.raises(WeightsError, match=r"model\.safetensors is not the file its card describes"):
        zoo.load("someone/mine")
    hub.tampered.clear()
    assert torch.equal(pooled(zoo.load("someone/mine", device="cpu")), pooled(tiny))


def test_nothing_but_a_models_files_is_ever_fetched(hub: Hub, stranger: dict[str, bytes]) -> None:
    more = dict.fromkeys(("modeling.py", "setup.py", "onnx/a.onnx", "pytorch_model.bin", "weights.pkl"), b"!")
    hub.put("someone/mine", {**stranger, **more})
    zoo.load("someone/mine", weights="random", device="cpu")
    assert {each.path.rpartition("/")[2] for each in hub.requests("/resolve/")} == {"README.md"}
    zoo.load("someone/mine", device="cpu")
    fetched = {each.path.rpartition("/")[2] for each in hub.requests("/resolve/")}
    assert fetched == {"README.md", "config.json", "model.safetensors", "decoder.safetensors"}


def test_a_pickle_in_a_strangers_folder_is_not_opened(hub: Hub, stranger: dict[str, bytes]) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os._exit, (3,))

    card = parse_card(stranger["README.md"].decode(), "evil")
    unhashed = render_card(dataclasses.replace(card, sha256={})).encode()
    sink = io.BytesIO()
    torch.save(Evil(), sink)
    hub.put("someone/evil", {**stranger, "README.md": unhashed, "model.safetensors": sink.getvalue()})
    with pytest.raises(WeightsError, match="pickled PyTorch checkpoint, which is never executed"):
        zoo.load("someone/evil")


def test_repos_that_are_no_folder_of_the_zoos(hub: Hub, stranger: dict[str, bytes]) -> None:
    card = stranger["README.md"].decode()
    hub.put("someone/timm", {"README.md": b"---\nlicense: mit\n---\n# timm", "model.safetensors": b"x"})
    hub.put("someone/half", {**stranger, "decoder.safetensors": b"pickle"})
    hub.put(
        "someone/code", {**stranger, "README.md": card.replace("family: vit", "family: os.path").encode()}
    )
    hub.put("someone/less", {"README.md": stranger["README.md"]})
    hub.put("someone/long", {**stranger, "README.md": stranger["README.md"] + b"more " * (1 << 20)})
    for repo, says in (
        ("timm", r"someone/timm is no folder of the zoo's: README\.md: .*no `zoo:` block"),
        ("half", r"decoder\.safetensors is not the file its card describes"),
        ("code", r"family 'os\.path' is not the stem of a file in zoo/families"),
        ("less", r"someone/less cannot be fetched whole: .* has no config\.json"),
        ("long", r"someone/long's README\.md has 5,\d+,\d+ bytes, and no more than 4,194,304 are read"),
        ("none", r"as a repo: .*/someone/none does not exist, or is private"),
    ):
        with pytest.raises(zoo.ZooError, match=f"(?s){says}"):
            zoo.load(f"someone/{repo}")
    assert not [each for each in hub.requests("/someone/long/") if each.method == "GET"]
