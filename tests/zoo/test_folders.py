"""A model folder loads in timm, in transformers and here, with exactly the same weights and features."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from zoo import registry
from zoo.cards import DecoderSpec, ModelCard, TransformSpec, read_card
from zoo.errors import CardError, WeightsError
from zoo.files import sha256
from zoo.folders import architecture_config, config_matches, write_folder
from zoo.weights import load_into, load_tensors

ARGUMENTS = {"img_size": 128, "dynamic_img_size": True, "depth": 2}
SPEC = TransformSpec(128, 0.9, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
DECODER = DecoderSpec(
    kind="mae", width=8, depth=1, heads=1, patch=16, mask_patch=16, normalised_targets=False, ratio=0.75
)


def tiny(**arguments: Any) -> nn.Module:
    """A random ViT whose weights are spread enough for float16 to cost something."""
    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0, **{**ARGUMENTS, **arguments}).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)
    return module


def card_of(module: nn.Module, **changes: Any) -> ModelCard:
    return ModelCard(
        **{
            "name": "tiny", "licence": "apache-2.0", "method": "dino", "kind": "discriminative", "family": "vit",
            "architecture": "vit_tiny_patch16_224", "arguments": ARGUMENTS, "transform": SPEC, "pooling": "token",
            "parameters": sum(parameter.numel() for parameter in module.parameters()), **changes,
        }
    )  # fmt: skip


def stored(module: nn.Module) -> dict[str, Tensor]:
    """The weights after a trip through float16."""
    return {name: tensor.half().float() for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module", params=["token", "avg"])
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, nn.Module]:
    """A folder and the encoder as it is in the file, for both poolings."""
    module = tiny(global_pool=request.param)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_folder(folder, card_of(module, pooling=request.param), module, None, "# Tiny\n")
    module.load_state_dict(stored(module))
    return folder, module


def test_timm_loads_the_folder(written: tuple[Path, nn.Module]) -> None:
    folder, module = written
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    weights = loaded.state_dict()
    assert all(weights[name].dtype == torch.float32 for name in weights)
    assert all(torch.equal(weights[name], tensor) for name, tensor in module.state_dict().items())
    with torch.no_grad():
        for size in ((128, 128), (96, 160)):
            pixels = torch.randn(2, 3, *size)
            assert torch.allclose(loaded(pixels), module(pixels), atol=1e-5)
    config = timm.data.resolve_model_data_config(loaded)
    assert config == {
        "input_size": [3, 128, 128], "interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "center",
        "mean": list(SPEC.mean), "std": list(SPEC.std),
    }  # fmt: skip
    assert timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=10)(pixels).shape == (2, 10)


@pytest.mark.slow  # importing transformers is
def test_transformers_loads_the_folder(written: tuple[Path, nn.Module]) -> None:
    from transformers import AutoImageProcessor, AutoModel
    from transformers.utils.logging import disable_progress_bar

    folder, module = written
    disable_progress_bar()
    loaded = AutoModel.from_pretrained(folder).eval()
    weights = loaded.timm_model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in module.state_dict().items())
    assert next(loaded.parameters()).dtype == torch.float32
    pixels = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        output = loaded(pixels)
        assert torch.allclose(output.pooler_output, module(pixels), atol=1e-5)
        assert torch.allclose(output.last_hidden_state, module.forward_features(pixels), atol=1e-5)
    processor = AutoImageProcessor.from_pretrained(folder)
    assert tuple(processor.data_config["mean"]) == SPEC.mean
    assert tuple(processor.data_config["input_size"]) == (3, 128, 128)


def test_our_own_loader_gives_exactly_the_stored_weights(written: tuple[Path, nn.Module]) -> None:
    folder, module = written
    card = read_card(folder)
    with torch.device("meta"):
        blank = timm.create_model(card.architecture, num_classes=0, **card.model_arguments).eval()
    load_into(blank, load_tensors(folder / "model.safetensors"), where=str(folder))
    pixels = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(blank(pixels), module(pixels))


def test_the_card_says_what_lies_beside_it(written: tuple[Path, nn.Module]) -> None:
    folder, _ = written
    card = read_card(folder)
    assert card.sha256 == {"model.safetensors": sha256(folder / "model.safetensors")}
    assert (card.title, card.name) == ("Tiny", "tiny")
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert config_matches(folder)
    assert (folder / "model.safetensors").stat().st_size < 2.1 * card.parameters


def test_a_config_that_says_something_else_does_not_match(tmp_path: Path) -> None:
    module = tiny()
    write_folder(tmp_path, card_of(module), module, None, "")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == json.loads(json.dumps(architecture_config(read_card(tmp_path))))
    assert "num_classes" not in config["model_args"] and config["dtype"] == "float32"
    config["pretrained_cfg"]["mean"][0] += 0.001
    for changed in (json.dumps(config), "{"):
        (tmp_path / "config.json").write_text(changed)
        assert not config_matches(tmp_path)
    (tmp_path / "config.json").unlink()
    assert not config_matches(tmp_path)


def test_a_size_is_fixed_unless_the_card_says_otherwise() -> None:
    module = tiny()
    assert architecture_config(card_of(module))["pretrained_cfg"]["fixed_input_size"] is False
    fixed = card_of(module, arguments={"img_size": 128, "depth": 2})
    assert architecture_config(fixed)["pretrained_cfg"]["fixed_input_size"] is True


def test_the_configs_of_all_bundled_folders_match_their_cards() -> None:
    folders = [path.parent for path in registry.MODEL_CARDS.glob("*/README.md")]
    assert [folder.name for folder in folders if not config_matches(folder)] == []


def test_a_decoder_is_written_beside_its_encoder_and_goes_with_it(tmp_path: Path) -> None:
    module, decoder = tiny(), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    card = card_of(module, method="mae", kind="generative", decoder=DECODER)
    said = write_folder(tmp_path / "m", card, module, decoder, "# One", dtype=torch.float32)
    assert said == read_card(tmp_path / "m") and said.sha256.keys() == {
        "model.safetensors",
        "decoder.safetensors",
    }
    loaded = load_tensors(tmp_path / "m" / "decoder.safetensors")
    assert loaded["0.weight"].dtype == torch.float32 and loaded["1.num_batches_tracked"].dtype == torch.int64
    assert all(torch.equal(loaded[name], tensor) for name, tensor in decoder.state_dict().items())
    again = write_folder(tmp_path / "m", card_of(module), module, None, "# Two")
    assert again.sha256.keys() == {"model.safetensors"} and again.title == "Two"
    assert not (tmp_path / "m" / "decoder.safetensors").exists()


def test_card_and_modules_must_agree(tmp_path: Path) -> None:
    module, decoder = tiny(), nn.Linear(4, 4)
    card = card_of(module)
    for bad, given, says in (
        (card, decoder, "a decoder was given and its card describes none"),
        (dataclasses.replace(card, decoder=DECODER), None, "no decoder was given and its card describes one"),
        (
            dataclasses.replace(card, parameters=7),
            None,
            f"has {card.parameters} parameters and its card says 7",
        ),
        (
            dataclasses.replace(card, arguments={**ARGUMENTS, "depth": 3}),
            None,
            "12 missing\n  blocks.2.norm1.weight",
        ),
        (
            dataclasses.replace(card, arguments={"imgsize": 1}),
            None,
            "timm cannot build vit_tiny_patch16_224 with",
        ),
        (
            dataclasses.replace(card, architecture="vit_tny_patch16_224"),
            None,
            "did you mean 'vit_tiny_patch16_224'?",
        ),
    ):
        with pytest.raises(CardError) as error:
            write_folder(tmp_path / "m", bad, module, given, "")
        assert says in str(error.value)
    assert not (tmp_path / "m").exists()


def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    module = tiny()
    with torch.no_grad():
        module.blocks[1].mlp.fc1.weight[0, 0] = 70000.0
    with pytest.raises(
        WeightsError, match=r"blocks.1.mlp.fc1.weight is too large for torch.float16; pass torch.float32"
    ):
        write_folder(tmp_path / "m", card_of(module), module, None, "")
    assert not (tmp_path / "m").exists()
    write_folder(tmp_path / "m", card_of(module), module, None, "", dtype=torch.float32)
    with torch.no_grad():
        module.blocks[1].mlp.fc1.weight[0, 0] = torch.nan
    with pytest.raises(WeightsError, match=r"blocks.1.mlp.fc1.weight is not finite"):
        write_folder(tmp_path / "m", card_of(module), module, None, "", dtype=torch.float32)


def test_a_crash_while_writing_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tiny()
    write_folder(tmp_path, card_of(module), module, None, "# Old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.folders.sha256", crash)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path, card_of(module), module, None, "# New")
    assert not (tmp_path / "README.md").exists()
