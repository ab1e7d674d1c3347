"""From a name to an encoder: folders, the local zoo, aliases, files of weights, and the untrained baseline."""

from __future__ import annotations

import dataclasses
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import zoo
from zoo.cards import ModelCard, read_card, write_card
from zoo.encoder import Encoder
from zoo.errors import CardError, SizeError, UnknownModel, Unsupported, WeightsError
from zoo.features import Features
from zoo.folders import write_folder
from zoo.loading import best_device, build, build_decoder, load
from zoo.registry import register
from zoo.weights import load_tensors, save_tensors


@pytest.fixture(scope="module")
def folder(tiny: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model on disk, in float32."""
    place = tmp_path_factory.mktemp("models") / "tiny_mae"
    card = dataclasses.replace(tiny.card, aliases=("tiny/mae-vit",))
    write_folder(place, card, tiny.module, tiny.decoder, "# Tiny", dtype=torch.float32)
    return place


def pixels(side: int = 64) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def pooled(encoder: Encoder) -> Tensor:
    found = encoder(pixels())
    assert isinstance(found, Features)
    return found.pooled


# A folder, a name, an alias


def test_a_folder_gives_back_what_was_written(folder: Path, tiny: Encoder) -> None:
    for name in (folder, str(folder)):
        found = load(name, device="cpu")
        assert repr(found) == repr(tiny)
        assert torch.equal(pooled(found), pooled(tiny))
        mine, theirs = (each.reconstruct(pixels(), seed=2) for each in (tiny, found))
        assert torch.equal(mine.composite, theirs.composite)


def test_weights_are_ready_to_use_and_at_rest(folder: Path) -> None:
    found = load(folder, device="cpu")
    assert found.decoder is not None
    for part in (found.module, found.decoder):
        assert not part.training
        assert not any(tensor.is_meta for tensor in [*part.parameters(), *part.buffers()])


def test_half_a_files_size_is_still_float32_in_memory(tiny: Encoder, tmp_path: Path) -> None:
    write_folder(tmp_path / "half", tiny.card, tiny.module, tiny.decoder, "# Half", dtype=torch.float16)
    found = load(tmp_path / "half", device="cpu")
    assert found.dtype == torch.float32
    torch.testing.assert_close(pooled(found), pooled(tiny), atol=0.02, rtol=0.02)
    assert load(tmp_path / "half", device="cpu", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_timm_loads_the_same_features(folder: Path) -> None:
    encoder = load(folder, device="cpu")
    module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(module(encoder.transform.normalise(pixels())), pooled(encoder))


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_the_cards_pooling_is_what_pooled_is(tiny: Encoder, tmp_path: Path, pooling: Any) -> None:
    card = dataclasses.replace(tiny.card, pooling=pooling)
    write_folder(tmp_path / "tiny", card, tiny.module, tiny.decoder, "", dtype=torch.float32)
    found = load(tmp_path / "tiny", device="cpu")(pixels())
    assert isinstance(found, Features) and found.cls is not None
    torch.testing.assert_close(found.pooled, found.patches.mean(dim=1) if pooling == "avg" else found.cls)


def test_a_registered_model_is_found_by_name_and_alias(
    folder: Path, tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    register(folder, "my_mae")
    for name in ("my_mae", "tiny/mae-vit"):
        found = zoo.load(name, device="cpu")
        assert found.card.name == "my_mae"
        assert torch.equal(pooled(found), pooled(tiny))


def test_every_bundled_model_loads() -> None:
    bundled = [name for name in zoo.list_models() if (zoo.card(name).path or Path()).name == "README.md"]
    for name in bundled:
        encoder = load(name, device="cpu")
        side = encoder.size
        found = encoder(torch.rand(1, 3, side, side))
        assert isinstance(found, Features)
        assert found.pooled.shape == (1, encoder.dim) and bool(found.pooled.isfinite().all())
        assert (encoder.decoder is None) == (encoder.card.decoder is None)


def test_a_misspelt_name_is_put_right(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    register(folder, "my_mae")
    with pytest.raises(
        UnknownModel, match=r"no model 'my_mea'; did you mean 'my_mae'\?.*zoo\.list_models\(\)"
    ):
        load("my_mea")


# Weights of one's own


def test_a_file_of_weights(
    folder: Path, tiny: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mine.safetensors"
    save_tensors(file, {name: -tensor for name, tensor in tiny.module.state_dict().items()})
    with caplog.at_level(logging.WARNING, logger="zoo"):
        found = load(folder, weights=file, device="cpu")
    assert f"weights from {file} (timm_native), not hash-checked" in caplog.text
    for name, tensor in tiny.module.state_dict().items():
        assert torch.equal(found.module.state_dict()[name], -tensor)
    with pytest.raises(Unsupported, match="no decoder"):  # a file holds the encoder alone
        found.reconstruct(pixels())


def test_a_file_that_does_not_fit_or_exist(folder: Path, tiny: Encoder, tmp_path: Path) -> None:
    tensors = dict(tiny.module.state_dict())
    tensors["norm.wieght"] = tensors.pop("norm.weight")
    save_tensors(tmp_path / "bad.safetensors", tensors)
    with pytest.raises(WeightsError, match=r"(?s)bad\.safetensors.*norm\.weight.*norm\.wieght"):
        load(folder, weights=tmp_path / "bad.safetensors", device="cpu")
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        load(folder, weights=tmp_path / "none.safetensors", device="cpu")


def test_the_untrained_baseline_is_the_same_everywhere(folder: Path, tiny: Encoder) -> None:
    random = torch.get_rng_state()
    once = load(folder, weights="random", device="cpu")
    assert torch.equal(torch.get_rng_state(), random)
    torch.rand(3)
    again = load(folder, weights="random", device="cpu")
    assert torch.equal(pooled(once), pooled(again))
    assert torch.equal(once.reconstruct(pixels()).predicted, again.reconstruct(pixels()).predicted)
    assert not torch.allclose(pooled(once), pooled(tiny), atol=0.1)


def test_the_untrained_baseline_is_the_same_in_eight_threads() -> None:
    def drawn(_: int) -> Tensor:
        module = load("dino_vitt16_imagenette", weights="random", device="cpu").module
        return torch.cat([each.flatten() for each in module.parameters()])

    alone = drawn(0)
    with ThreadPoolExecutor(8) as pool:
        assert all(torch.equal(alone, each) for each in pool.map(drawn, range(8)))


def test_a_card_without_weights(tiny_card: ModelCard, tmp_path: Path) -> None:
    """NAME.md: the weights lie elsewhere, but the architecture can be had."""
    card = write_card(dataclasses.replace(tiny_card, name="far"), tmp_path / "far.md")
    with pytest.raises(WeightsError, match=r'(?s)far\'s weights are not on this machine.*weights="random"'):
        load(card)
    assert pooled(load(card, weights="random", device="cpu")).shape == (2, 48)


@pytest.mark.parametrize("file", ["model.safetensors", "decoder.safetensors"])
def test_a_folder_that_lost_or_broke_a_file(tiny: Encoder, tmp_path: Path, file: str) -> None:
    place = tmp_path / "tiny"
    write_folder(place, tiny.card, tiny.module, tiny.decoder, "")
    whole = (place / file).read_bytes()
    (place / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=file):
        load(place, device="cpu")
    (place / file).unlink()
    with pytest.raises(WeightsError, match="not on this machine" if file[0] == "m" else file):
        load(place, device="cpu")


def test_weights_of_another_architecture(folder: Path, tiny: Encoder, tmp_path: Path) -> None:
    place = tmp_path / "tiny"
    write_folder(place, tiny.card, tiny.module, tiny.decoder, "")
    tensors = load_tensors(place / "model.safetensors")
    tensors["cls_token"] = torch.zeros(1, 1, 50)
    save_tensors(place / "model.safetensors", tensors)
    write_card(dataclasses.replace(read_card(place), sha256={}), place)
    with pytest.raises(
        WeightsError, match=r"(?s)tiny.model\.safetensors.*cls_token \(1, 1, 50\), expected \(1, 1, 48\)"
    ):
        load(place, device="cpu")


# Settings


def test_size_is_that_of_the_evaluation_crop(folder: Path) -> None:
    found = load(folder, device="cpu", size=96)
    assert found.size == 96 and found.transform.size == 96
    assert found.transform(torch.zeros(120, 90, 3, dtype=torch.uint8).numpy()).shape == (3, 96, 96)
    assert read_card(folder).transform.size == 64


@pytest.mark.parametrize(("size", "nearest"), [(100, 96), (8, 16), (0, 16), (-16, 16), (105, 112)])
def test_a_size_off_the_stride(folder: Path, size: int, nearest: int) -> None:
    with pytest.raises(
        SizeError, match=rf"size={size} is not a multiple of tiny_mae's stride 16; the nearest is {nearest}$"
    ):
        load(folder, size=size)


def test_the_device_is_the_best_there_is(folder: Path) -> None:
    assert load(folder).device.type == best_device().type
    assert load(folder, device="cpu").device == torch.device("cpu")
    assert best_device().type == ("cuda" if torch.cuda.is_available() else best_device().type)


def test_commercial_use_is_refused_where_the_licence_forbids_it(tiny: Encoder, tmp_path: Path) -> None:
    card = dataclasses.replace(tiny.card, licence="cc-by-nc-4.0")
    write_folder(tmp_path / "tiny", card, tiny.module, tiny.decoder, "")
    assert load(tmp_path / "tiny", device="cpu").card.licence == "cc-by-nc-4.0"
    with pytest.raises(Unsupported, match=r"under cc-by-nc-4\.0, which forbids commercial use"):
        load(tmp_path / "tiny", policy="commercial")


def test_settings_that_do_not_exist(folder: Path) -> None:
    assert load(folder, policy="commercial", device="cpu").card.commercial
    with pytest.raises(Unsupported, match="policy='free' does not exist; there are 'any' and 'commercial'"):
        load(folder, policy="free")  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="in_chans=0"):
        load(folder, in_chans=0)


# Building


def test_a_card_is_built_without_storage(tiny_card: ModelCard) -> None:
    with torch.device("meta"):
        module, decoder = build(tiny_card)
    assert decoder is not None
    assert all(parameter.is_meta for part in (module, decoder) for parameter in part.parameters())
    assert sum(parameter.numel() for parameter in module.parameters()) == tiny_card.parameters
    alone, none = build(dataclasses.replace(tiny_card, decoder=None))
    assert none is None and not next(alone.parameters()).is_meta


def test_a_card_of_no_known_family_or_decoder(tiny_card: ModelCard) -> None:
    with pytest.raises(CardError, match=r"no family 'vti'; did you mean 'vit'\?"):
        build(dataclasses.replace(tiny_card, family="vti"))
    assert tiny_card.decoder is not None
    strange: Any = dataclasses.replace(tiny_card.decoder, kind="gan")  # type: ignore[arg-type]
    with pytest.raises(CardError, match="no decoder kind 'gan'"):
        build_decoder(strange, nn.Identity())


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_here_is_told(device: str, folder: Path) -> None:
    with pytest.raises(Unsupported, match=rf"device '{device}' cannot be used here \(.+\); 'auto' takes "):
        load(folder, device=device)


def test_a_dtype_in_words_is_told(folder: Path) -> None:
    wrong: Any = "float16"
    with pytest.raises(Unsupported, match=r"dtype='float16' is no torch.dtype; pass torch.float16"):
        load(folder, dtype=wrong)


def test_a_checkpoint_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"weights")
    with pytest.raises(UnknownModel, match=r"is a file, no model; .* zoo.load\(NAME, weights='.*mine.pth'\)"):
        load(tmp_path / "mine.pth")


def test_a_licence_nobody_read_forbids_nothing() -> None:
    with pytest.raises(
        Unsupported, match=r"under dinov3-license, which is not known to allow commercial use"
    ):
        load("dinov3_vits16", policy="commercial")
