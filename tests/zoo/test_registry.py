"""Names to places: folders, the local zoo, bundled cards; and models into and out of the local zoo."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo import registry
from zoo.cards import ModelCard, TransformSpec, read_card, write_card
from zoo.errors import CardError, UnknownModel, Unsupported, WeightsError
from zoo.files import sha256

CARD = ModelCard(
    name="any", licence="mit", method="dino", kind="discriminative", family="vit", parameters=1, pooling="token",
    architecture="vit_tiny_patch16_224", transform=TransformSpec(128), body="# A model",
)  # fmt: skip


def lay_model(folder: Path, weights: bytes = b"weights", **changes: Any) -> Path:
    """A model folder as far as names care: its weights are never read here."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps({"architecture": CARD.architecture}))
    digests = {"model.safetensors": sha256(folder / "model.safetensors")}
    write_card(dataclasses.replace(CARD, sha256=digests, **changes), folder)
    return folder


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundled cards of a small world: a model folder, a card alone, photos; the local zoo is empty."""
    place = tmp_path / "model_cards"
    lay_model(place / "mae_tiny", method="mae", kind="generative", licence="cc-by-nc-4.0")
    write_card(
        dataclasses.replace(CARD, aliases=("timm/vits16.dino", "dino_small")), place / "dino_vits16.md"
    )
    (place / "photos").mkdir()
    (place / "photos" / "ATTRIBUTION.json").write_text("{}")
    (place / "README.md").write_text("about this folder")
    monkeypatch.setattr(registry, "MODEL_CARDS", place)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return place


# Finding


def test_a_name_an_alias_or_a_path_finds_its_place(bundled: Path) -> None:
    assert registry.find("mae_tiny") == bundled / "mae_tiny"
    for name in ("dino_vits16", "dino_small", "timm/vits16.dino", bundled / "dino_vits16.md"):
        assert registry.find(name) == bundled / "dino_vits16.md"
        assert registry.card(name).name == "dino_vits16"
    assert (
        registry.find(bundled / "mae_tiny")
        == registry.find(str(bundled / "mae_tiny"))
        == bundled / "mae_tiny"
    )
    assert registry.find("model_cards/mae_tiny") == Path("model_cards/mae_tiny")


def test_a_folder_comes_first_then_the_local_zoo_then_what_is_bundled(bundled: Path, tmp_path: Path) -> None:
    local = lay_model(registry.home() / "mae_tiny")
    assert registry.find("mae_tiny") == local
    lay_model(tmp_path / "mae_tiny")
    assert registry.find("mae_tiny") == Path("mae_tiny")


def test_a_folder_that_is_no_model_hides_no_name(bundled: Path, tmp_path: Path) -> None:
    (tmp_path / "mae_tiny").mkdir()
    assert registry.find("mae_tiny") == bundled / "mae_tiny"


def test_a_name_is_preferred_to_an_alias(bundled: Path) -> None:
    write_card(dataclasses.replace(CARD, aliases=("mae_tiny",)), bundled / "aaa.md")
    assert registry.find("mae_tiny") == bundled / "mae_tiny"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "dino_vits61",
            r"^no model 'dino_vits61'; did you mean 'dino_vits16'\? zoo.list_models\(\) shows all 2$",
        ),
        ("dino_smal", r"did you mean 'dino_small'\?"),
        ("qqq", r"^no model 'qqq'; zoo.list_models\(\) shows all 2$"),
        ("runs/qqq", r"^no folder or model 'runs/qqq'; zoo.list_models"),
        ("model_cards/photos", r"^folder 'model_cards/photos' is no model: it holds no README.md"),
        ("../model_cards/mae_tiny/model.safetensors", "^no folder or model"),
        ("README", "^no model 'README'"),
    ],
)
def test_an_unknown_name_says_what_to_type(bundled: Path, name: str, says: str) -> None:
    with pytest.raises(UnknownModel, match=says):
        registry.find(name)


def test_a_folder_mistyped_is_told_the_one_beside_it(tmp_path: Path) -> None:
    lay_model(tmp_path / "runs" / "first")
    (tmp_path / "runs" / "frist").mkdir()  # no model
    with pytest.raises(UnknownModel, match=r"no folder or model '.*frst'; did you mean '.*first'\?"):
        registry.find(tmp_path / "runs" / "frst")


# Listing


def test_models_are_listed_by_name_and_by_what_their_cards_say(bundled: Path) -> None:
    lay_model(registry.home() / "byol_mine", method="byol")
    lay_model(registry.home() / "mae_tiny", licence="mit")  # hides the bundled one
    lay_model(registry.home() / ".byol.123.tmp")
    assert registry.list_models() == ["byol_mine", "dino_vits16", "mae_tiny"]
    assert registry.list_models("*vits*") == ["dino_vits16"]
    assert registry.list_models(method="byol") == ["byol_mine"]
    assert registry.list_models(kind="generative") == []
    assert registry.list_models(commercial=True) == ["byol_mine", "dino_vits16", "mae_tiny"]
    assert registry.list_models("nothing") == registry.list_models(commercial=False) == []


def test_a_broken_card_is_skipped_with_a_warning(bundled: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = lay_model(registry.home() / "broken") / "README.md"
    broken.write_text("no card")
    with caplog.at_level(logging.WARNING):
        assert registry.list_models() == ["dino_vits16", "mae_tiny"]
    assert str(broken) in caplog.text
    with pytest.raises(CardError, match="no front matter"):
        registry.card("broken")


def test_every_bundled_card_can_be_read() -> None:
    entries = [
        path
        for path in registry.MODEL_CARDS.iterdir()
        if path.suffix == ".md" or (path / "README.md").is_file()
    ]
    for path in entries:
        assert read_card(path).parameters > 0
    assert {path.stem for path in entries} <= set(zoo.list_models())


def test_names_are_listed_in_well_under_half_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MODEL_CARDS", tmp_path)
    for number in range(60):
        write_card(
            dataclasses.replace(CARD, tags=("x",) * 20, arguments={"a": [1, 2, 3]}),
            tmp_path / f"m{number}.md",
        )
    start = time.process_time()
    assert len(registry.list_models()) == 60
    assert time.process_time() - start < 0.5


def test_the_home_is_in_the_cache_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", "~/elsewhere")
    assert registry.home() == Path.home() / "elsewhere" / "models"
    for unset in (lambda: monkeypatch.setenv("ZOO_HOME", ""), lambda: monkeypatch.delenv("ZOO_HOME")):
        unset()
        assert registry.home() == Path.home() / ".cache" / "ssl-zoo" / "models"


# Into the local zoo and out of it


def kept() -> list[str]:
    """What lies in the local zoo, without the locks of those that wrote there."""
    return [path.name for path in registry.home().iterdir() if path.suffix != ".lock"]


def test_eight_at_once_register_one_model(bundled: Path, tmp_path: Path) -> None:
    run = lay_model(tmp_path / "runs" / "mine")
    with ThreadPoolExecutor(8) as pool:
        copies = set(pool.map(lambda _: registry.register(run, "mine"), range(8)))
    assert copies == {registry.home() / "mine"} and kept() == ["mine"]


def test_a_registered_model_is_found_until_it_is_removed(bundled: Path, tmp_path: Path) -> None:
    run = lay_model(tmp_path / "runs" / "mine")
    (run / "checkpoint.safetensors").write_bytes(b"large")
    (run / "onnx").mkdir()
    (run / "onnx" / "model.onnx").write_bytes(b"graph")
    copy = registry.register(run, "mine_v1")
    assert copy == registry.home() / "mine_v1" == registry.find("mine_v1")
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert files == {"README.md", "config.json", "model.safetensors", "onnx/model.onnx"}
    assert registry.card("mine_v1") == dataclasses.replace(read_card(run), name="mine_v1")
    assert kept() == ["mine_v1"]
    assert registry.remove("mine_v1") == copy
    assert kept() == []
    with pytest.raises(UnknownModel):
        registry.find("mine_v1")


def test_registering_twice_is_fine_and_another_model_is_refused(bundled: Path, tmp_path: Path) -> None:
    run, other = lay_model(tmp_path / "runs" / "one"), lay_model(tmp_path / "runs" / "two", weights=b"others")
    copy = registry.register(run, "mine")
    assert registry.register(run, "mine") == registry.register(copy, "mine") == copy
    for taken in ("mine", "mae_tiny", "dino_vits16", "dino_small"):
        with pytest.raises(Unsupported, match=f"the name '{taken}' is taken by"):
            registry.register(other, taken)
    assert (copy / "model.safetensors").read_bytes() == b"weights"
    (registry.home() / "leftover").mkdir()
    with pytest.raises(Unsupported, match="taken"):
        registry.register(other, "leftover")


def test_links_are_registered_as_what_they_point_to(bundled: Path, tmp_path: Path) -> None:
    run = lay_model(tmp_path / "runs" / "mine")
    (run / "model.safetensors").rename(tmp_path / "blob")
    (run / "model.safetensors").symlink_to(tmp_path / "blob")
    copy = registry.register(run, "mine")
    assert not (copy / "model.safetensors").is_symlink()
    assert (copy / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "a b", "-x", "größe"])
def test_a_name_is_a_plain_file_name(bundled: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(CardError, match="is no name for a model"):
        registry.register(bundled / "mae_tiny", name)
    with pytest.raises((UnknownModel, Unsupported)):
        registry.remove(name)
    assert not registry.home().exists()


def test_a_folder_that_is_no_whole_model_is_not_registered(bundled: Path, tmp_path: Path) -> None:
    run = lay_model(tmp_path / "runs" / "mine")
    with pytest.raises(UnknownModel, match=r"holds no README\.md"):
        registry.register(bundled / "photos", "mine")
    (run / "model.safetensors").write_bytes(b"other")
    with pytest.raises(WeightsError, match="is not the file its card describes"):
        registry.register(run, "mine")
    (run / "model.safetensors").unlink()
    (run / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"holds no config.json, model.safetensors"):
        registry.register(run, "mine")
    (run / "README.md").write_text("---\nlicense: mit\n---\n")
    with pytest.raises(CardError, match="no `zoo:` block"):
        registry.register(run, "mine")
    assert not registry.home().exists()


def test_a_failing_copy_leaves_nothing_behind(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("shutil.copyfile", full_disk)
    with pytest.raises(OSError, match="disk full"):
        registry.register(bundled / "mae_tiny", "mine")
    assert kept() == []


def test_only_the_local_zoo_is_ever_removed_from(bundled: Path, tmp_path: Path) -> None:
    run = lay_model(tmp_path / "runs" / "mine")
    for name, where in (("mae_tiny", "bundled with the zoo"), ("runs/mine", "runs/mine")):
        with pytest.raises(Unsupported, match=f"is {where}; only models of the local zoo"):
            registry.remove(name)
    registry.home().mkdir(parents=True)
    (registry.home() / "linked").symlink_to(run)
    registry.remove("linked")
    assert list(registry.home().iterdir()) == []
    assert (run / "model.safetensors").is_file() and (bundled / "mae_tiny" / "README.md").is_file()
    with pytest.raises(UnknownModel):
        registry.remove("qqq")


def test_the_public_names_are_the_registrys_and_bring_no_torch() -> None:
    assert (zoo.list_models, zoo.card, zoo.register) == (
        registry.list_models,
        registry.card,
        registry.register,
    )
    code = "import sys, zoo; zoo.list_models(); assert 'torch' not in sys.modules; print('ok')"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "ok\n"
    )


def test_the_nearest_model_is_of_the_same_method_then_family_approach_kind_and_size() -> None:
    def other(name: str, **changes: Any) -> ModelCard:
        return dataclasses.replace(CARD, name=name, parameters=100, **changes)

    card = dataclasses.replace(CARD, parameters=100)
    models = [
        other("far", method="mae", family="resnet", kind="generative"),
        other("sized", method="mae", kind="generative"),
        other("approach", method="mae", approach="contrastive"),
        other("kind", method="mae"),
        other("method", family="swin", kind="generative"),
        dataclasses.replace(other("size", method="mae"), parameters=400),
    ]
    assert registry.most_alike(card, models).name == "method"  # type: ignore[union-attr]
    order = []
    while models:
        found = registry.most_alike(card, models)
        assert found is not None
        models.remove(found)
        order.append(found.name)
    assert order == ["method", "kind", "size", "sized", "approach", "far"]
    assert registry.most_alike(card, [card]) is None
