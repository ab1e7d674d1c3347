"""Every published layout: our tensors written in its authors' names, told from those names, and read back unchanged."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.cards import DecoderSpec, ModelCard, write_card
from zoo.errors import WeightsError
from zoo.families import names
from zoo.layouts import LAYOUTS
from zoo.loading import build, load
from zoo.positions import sincos_positions
from zoo.published import read_published
from zoo.weights import save_tensors

Tensors = dict[str, Tensor]
Draw = Callable[..., None]
Cards = Callable[..., ModelCard]

MAE = DecoderSpec(
    kind="mae", width=32, depth=1, heads=4, patch=16, mask_patch=16, normalised_targets=True, ratio=0.75
)
SHARED = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
TINY = {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3}
SWIN = {"img_size": 64, "window_size": 4, "depths": [2, 2], "embed_dim": 12, "num_heads": [1, 2]}
MODELS: dict[str, dict[str, Any]] = {
    "vit": {},
    "mae": {"decoder": MAE, "kind": "generative"},
    "gap": {"architecture": "vit_huge_patch14_gap_224", "arguments": {"patch_size": 16}, "pooling": "avg"},
    "dinov2": {"architecture": "vit_small_patch14_dinov2", "arguments": {"patch_size": 16}},
    "registers": {"architecture": "vit_small_patch14_reg4_dinov2", "arguments": {"patch_size": 16}},
    "beit": {"family": "beit", "architecture": "beit_base_patch16_224", "arguments": {**TINY, **SHARED}},
    "beit_each": {"family": "beit", "architecture": "beit_base_patch16_224", "arguments": TINY},
    "dinov3": {"family": "eva", "architecture": "vit_small_patch16_dinov3_qkvb", "arguments": TINY},
    "swin": {
        "family": "swin",
        "architecture": "swin_tiny_patch4_window7_224",
        "arguments": SWIN,
        "pooling": "avg",
    },
    "xcit": {
        "family": "xcit",
        "architecture": "xcit_small_12_p16_224",
        "arguments": {"depth": 1, "embed_dim": 48, "num_heads": 3},
    },
    "resnet": {
        "family": "resnet",
        "architecture": "resnet50",
        "arguments": {"layers": [1, 1, 1, 1]},
        "pooling": "avg",
    },
}


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def substituted(tensors: Tensors, *pairs: tuple[str, str]) -> Tensors:
    out = {}
    for name, tensor in tensors.items():
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    return out


def other() -> Tensor:
    """A tensor that has no business in the encoder."""
    return torch.ones(3, 5)


def mae(encoder: Tensors, decoder: Tensors) -> Any:
    names = {
        "embed": "decoder_embed",
        "norm": "decoder_norm",
        "head": "decoder_pred",
        "blocks": "decoder_blocks",
    }
    theirs = {
        ".".join([names.get(name.split(".")[0], name.split(".")[0]), *name.split(".")[1:]]): tensor
        for name, tensor in decoder.items()
    }
    positions = torch.cat([torch.zeros(1, 32), sincos_positions((2, 2), 32)])[None]
    return {"model": {**encoder, **theirs, "decoder_pos_embed": positions}, "epoch": 799}


def registers(encoder: Tensors, decoder: Tensors) -> Any:
    """The class token's position apart, which timm has added in."""
    rest = dict(encoder)
    position = torch.full((1, 1, 48), 0.25)
    rest["cls_token"] = rest["cls_token"] - position
    rest["pos_embed"] = torch.cat([position, rest["pos_embed"]], 1)
    rest["register_tokens"] = rest.pop("reg_token")
    return {**rest, "mask_token": other()}


def dinov3(encoder: Tensors, decoder: Tensors) -> Any:
    theirs = substituted(encoder, (r"gamma_([12])$", r"ls\1.gamma"), ("^reg_token", "storage_tokens"))
    for block in range(2):
        q, v = (theirs.pop(f"blocks.{block}.attn.{part}_bias") for part in "qv")
        theirs[f"blocks.{block}.attn.qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
        theirs[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(3 * len(q))
    return {**theirs, "rope_embed.periods": other(), "mask_token": other()}


def swin(encoder: Tensors) -> Tensors:
    """Downsampling at the end of the stage before, and tables of indices stored."""
    theirs = {
        re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name): tensor
        for name, tensor in encoder.items()
    }
    return {
        **theirs,
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64),
        "layers.0.blocks.1.attn_mask": other(),
    }


def xcit(encoder: Tensors) -> Tensors:
    theirs = substituted(encoder, (r"^pos_embed\.", "pos_embeder."))
    for block in range(2):
        for kind in ("weight", "bias"):
            parts = [theirs.pop(f"cls_attn_blocks.{block}.attn.{part}.{kind}") for part in "qkv"]
            theirs[f"cls_attn_blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    return theirs


def openmmlab(encoder: Tensors) -> Tensors:
    return substituted(
        encoder,
        (r"^norm\.", "ln1."),
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
        (r"^blocks\.", "layers."),
        (r"mlp\.fc1\.", "ffn.layers.0.0."),
        (r"mlp\.fc2\.", "ffn.layers.1."),
        (r"(layers\.\d+)\.norm([12])\.", r"\1.ln\2."),
    )


def openmmlab_mae(encoder: Tensors, decoder: Tensors) -> Any:
    neck = substituted(
        decoder,
        (r"^blocks\.", "decoder_blocks."),
        (r"^norm\.", "ln1."),
        (r"^embed\.", "decoder_embed."),
        (r"^head\.", "decoder_pred."),
        (r"mlp\.fc1\.", "ffn.layers.0.0."),
        (r"mlp\.fc2\.", "ffn.layers.1."),
        (r"(blocks\.\d+)\.norm([12])\.", r"\1.ln\2."),
    )
    return {"meta": {}, "state_dict": {**under("backbone.", openmmlab(encoder)), **under("neck.", neck)}}


def sequential(encoder: Tensors) -> Tensors:
    """torchvision's children in a Sequential."""
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    return {
        ".".join([places[name.split(".")[0]], *name.split(".")[1:]]): tensor
        for name, tensor in encoder.items()
    }


Write = Callable[[Tensors, Tensors], Any]

# What the authors' file is: the layout it must be told to be, our model, and how they write its tensors.
WRITERS: dict[str, tuple[str, str, Write]] = {
    "timm": ("timm_native", "vit", lambda e, d: {**e, "head.weight": other()}),
    "DINO, backbone": ("timm_native", "vit", lambda e, d: e),
    "DINO, full": (
        "identity",
        "vit",
        lambda e, d: {
            "student": under("module.backbone.", {name: -tensor for name, tensor in e.items()}),
            "teacher": {**under("backbone.", e), "head.mlp.0.weight": other()},
            "epoch": 300,
        },
    ),
    "DINO, full, distributed": (
        "identity",
        "vit",
        lambda e, d: {"teacher": {**under("module.backbone.", e), "module.head.mlp.0.weight": other()}},
    ),
    "iBOT": ("identity", "vit", lambda e, d: {"state_dict": e}),
    "DeiT": ("identity", "vit", lambda e, d: {"model": {**e, "head.weight": other()}}),
    "MAE, encoder": ("identity", "vit", lambda e, d: {"model": e}),
    "MAE": ("mae_pth", "mae", mae),
    "MoCo v3": (
        "mocov3_vit",
        "vit",
        lambda e, d: {
            "state_dict": {
                **under("module.base_encoder.", {**e, "head.0.weight": other()}),
                **under("module.momentum_encoder.", {name: -tensor for name, tensor in e.items()}),
            }
        },
    ),
    "I-JEPA": (
        "ijepa_pth",
        "gap",
        lambda e, d: {
            "encoder": under("module.", {name: -tensor for name, tensor in e.items()}),
            "target_encoder": under("module.", e),
            "predictor": {"module.mask_token": other()},
        },
    ),
    "MSN": (
        "msn_pth",
        "vit",
        lambda e, d: {
            "target_encoder": under("module.", {**e, "fc.fc1.weight": other()}),
            "prototypes": other(),
        },
    ),
    "DINOv2": ("dinov2_pth", "dinov2", lambda e, d: {**e, "mask_token": other()}),
    "DINOv2, registers": ("dinov2_pth", "registers", registers),
    "DINOv3": ("dinov3_pth", "dinov3", dinov3),
    "BEiT": (
        "beit_pth_shared_rpb",
        "beit",
        lambda e, d: {
            "model": {
                **e,
                "mask_token": other(),
                "lm_head.weight": other(),
                "rel_pos_bias.relative_position_index": torch.zeros(5, 5, dtype=torch.int64),
            }
        },
    ),
    "BEiT, per layer": (
        "beit_pth_shared_rpb",
        "beit_each",
        lambda e, d: {
            "model": {**e, "blocks.0.attn.relative_position_index": torch.zeros(5, 5, dtype=torch.int64)}
        },
    ),
    "SimMIM, ViT": (
        "simmim_vit",
        "beit",
        lambda e, d: {
            "model": {**under("encoder.", {**e, "mask_token": other()}), "decoder.0.weight": other()},
            "config": {},
        },
    ),
    "SimMIM, Swin": (
        "simmim_swin",
        "swin",
        lambda e, d: {
            "model": {**under("encoder.", {**swin(e), "mask_token": other()}), "decoder.0.weight": other()}
        },
    ),
    "iBOT, Swin": ("simmim_swin", "swin", lambda e, d: {"state_dict": swin(e)}),
    "Swin": ("simmim_swin", "swin", lambda e, d: {"model": {**swin(e), "head.weight": other()}}),
    "XCiT, DINO": ("xcit", "xcit", lambda e, d: xcit(e)),
    "XCiT, DINO, full": (
        "xcit",
        "xcit",
        lambda e, d: {"teacher": {**under("backbone.", xcit(e)), "head.mlp.0.weight": other()}},
    ),
    "torchvision": ("timm_native", "resnet", lambda e, d: {**e, "fc.weight": other(), "fc.bias": other()}),
    "DINO, ResNet, full": (
        "resnet50_prefixed",
        "resnet",
        lambda e, d: {"teacher": {**under("module.backbone.", e), "module.head.mlp.0.weight": other()}},
    ),
    "MoCo v1 and v2": (
        "resnet50_prefixed",
        "resnet",
        lambda e, d: {
            "state_dict": {
                **under("module.encoder_q.", {**e, "fc.0.weight": other()}),
                **under("module.encoder_k.", {name: -tensor for name, tensor in e.items()}),
                "module.queue": other(),
            }
        },
    ),
    "MoCo v3, ResNet": (
        "resnet50_prefixed",
        "resnet",
        lambda e, d: {"state_dict": under("module.base_encoder.", {**e, "fc.0.weight": other()})},
    ),
    "SimSiam": (
        "resnet50_prefixed",
        "resnet",
        lambda e, d: {
            "state_dict": {
                **under("module.encoder.", {**e, "fc.0.weight": other()}),
                "module.predictor.0.weight": other(),
            }
        },
    ),
    "SwAV, DeepCluster, SeLa": (
        "resnet50_prefixed",
        "resnet",
        lambda e, d: under(
            "module.", {**e, "projection_head.0.weight": other(), "prototypes.weight": other()}
        ),
    ),
    "Barlow Twins, full": (
        "resnet50_prefixed",
        "resnet",
        lambda e, d: {"model": {**under("module.backbone.", e), "module.projector.0.weight": other()}},
    ),
    "VISSL": (
        "resnet50_prefixed",
        "resnet",
        lambda e, d: {
            "classy_state_dict": {
                "base_model": {
                    "model": {"trunk": under("_feature_blocks.", e), "heads": {"0.clf.weight": other()}}
                }
            }
        },
    ),
    "InstDisc": (
        "resnet50_prefixed",
        "resnet",
        lambda e, d: {"state_dict": under("module.", {**e, "fc.weight": other()})},
    ),
    "PyContrast": (
        "resnet50_prefixed",
        "resnet",
        lambda e, d: {"model": {**under("module.encoder.", e), "module.head.0.weight": other()}},
    ),
    "OBoW": ("resnet50_prefixed", "resnet", lambda e, d: {"network": {**e, "fc.weight": other()}}),
    "SimCLR and BYOL, converted": (
        "resnet50_prefixed",
        "resnet",
        lambda e, d: {"state_dict": {**e, "fc.weight": other(), "fc.weight.bias": other()}},
    ),
    "lightly": (
        "lightly",
        "resnet",
        lambda e, d: {
            "state_dict": {**under("backbone.", sequential(e)), "projection_head.layers.0.weight": other()}
        },
    ),
    "lightly, DINO": (
        "lightly",
        "vit",
        lambda e, d: {
            "state_dict": {
                **under("student_backbone.vit.", {name: -tensor for name, tensor in e.items()}),
                **under("teacher_backbone.vit.", e),
            }
        },
    ),
    "solo-learn, ResNet": (
        "solo_learn",
        "resnet",
        lambda e, d: {"state_dict": {**under("backbone.", e), "classifier.weight": other()}},
    ),
    "solo-learn, ViT": (
        "solo_learn",
        "vit",
        lambda e, d: {"state_dict": {**under("backbone.", e), **under("momentum_backbone.", e)}},
    ),
    "mmpretrain, ViT": ("mmpretrain", "vit", lambda e, d: {"state_dict": under("backbone.", openmmlab(e))}),
    "mmpretrain, MAE": ("mmpretrain", "mae", openmmlab_mae),
    "mmselfsup, ResNet": (
        "solo_learn",
        "resnet",
        lambda e, d: {"state_dict": {**under("backbone.", e), "neck.fc0.weight": other()}},
    ),
}


def written(
    name: str, folder: Path, randomise: Draw, card_of: Cards
) -> tuple[Path, ModelCard, Tensors, Tensors]:
    """A file of that writer, the card, and the tensors that must come back."""
    _, model, write = WRITERS[name]
    card = card_of(**MODELS[model])
    module, decoder = build(card)
    randomise(module)
    if decoder is not None:
        randomise(decoder, seed=1)
    parts = module.state_dict(), decoder.state_dict() if decoder is not None else {}
    file = folder / "checkpoint.pth"
    torch.save(write(*parts), file)
    return file, card, *parts


# Families that are here: every one of them, once all are.
HERE = [name for name, (_, model, _) in WRITERS.items() if MODELS[model].get("family", "vit") in names()]


@pytest.mark.parametrize("name", HERE)
def test_a_layout_is_told_and_read_back(name: str, tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    file, card, encoder, decoder = written(name, tmp_path, randomise, card_of)
    published = read_published(file, card)
    assert published.layout == WRITERS[name][0], published.report
    assert published.encoder.keys() == encoder.keys()
    for key, tensor in encoder.items():
        torch.testing.assert_close(published.encoder[key], tensor, atol=1e-6, rtol=0, msg=key)
    assert (published.decoder is not None) == bool(decoder)
    for key, tensor in decoder.items():
        assert published.decoder is not None and torch.equal(published.decoder[key], tensor), key
    if published.layout != "timm_native":  # the card's own word gives the same
        again = read_published(file, card, published.layout)
        assert all(torch.equal(again.encoder[key], published.encoder[key]) for key in encoder)


# What a file does not have, has besides, or has otherwise


def test_the_report_says_what_was_done(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    file, card, _, _ = written("MAE", tmp_path, randomise, card_of)
    report = read_published(file, card).report
    assert "layout mae_pth" in report and "decoder_embed.weight → embed.weight" in report
    assert "the decoder's stored positions equal the ones computed here" in report
    alone = read_published(file, card_of())
    assert alone.decoder is None and "dropped: decoder: mask_token" in alone.report
    file, card, encoder, _ = written("MoCo v3", tmp_path, randomise, card_of)
    report = read_published(file, card).report
    assert "at state_dict module.base_encoder." in report and "1 dropped: head.0.weight" in report
    assert f"{len(encoder)} tensors elsewhere in the file were left there" in report


def test_maes_encoder_alone_under_maes_name(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    """The layout of a card holds for the file with the decoder and for the one without."""
    file, card, encoder, _ = written("MAE, encoder", tmp_path, randomise, card_of)
    published = read_published(file, card, "mae_pth")
    assert published.decoder is None
    assert all(torch.equal(published.encoder[key], encoder[key]) for key in encoder)


def test_two_tensors_of_one_name_are_refused(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    file, card, _, _ = written("DINO, full", tmp_path, randomise, card_of)
    content = torch.load(file, weights_only=True)
    content["teacher"]["module.backbone.cls_token"] = torch.zeros(1, 1, 48)
    torch.save(content, file)
    with pytest.raises(WeightsError, match=r"1 tensors in teacher have the name of another"):
        read_published(file, card)


def test_a_decoder_with_other_positions_is_refused(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    file, card, _, _ = written("MAE", tmp_path, randomise, card_of)
    content = torch.load(file, weights_only=True)
    content["model"]["decoder_pos_embed"][0, 2] += 0.1
    torch.save(content, file)
    with pytest.raises(WeightsError, match=r"positions differ by 0\.1 .*other pictures"):
        read_published(file, card)


def test_missing_and_misshapen_tensors_are_one_report(
    tmp_path: Path, randomise: Draw, card_of: Cards
) -> None:
    file, card, _, _ = written("DINO, full", tmp_path, randomise, card_of)
    content = torch.load(file, weights_only=True)
    teacher = content["teacher"]
    del teacher["backbone.norm.weight"]
    teacher["backbone.cls_token"] = torch.zeros(1, 1, 50)
    teacher["backbone.extra"] = torch.zeros(1)
    torch.save(content, file)
    with pytest.raises(WeightsError) as caught:
        read_published(file, card)
    says = str(caught.value)
    for part in (
        "1 missing",
        "norm.weight",
        "1 unexpected",
        "extra",
        "cls_token (1, 1, 50), expected (1, 1, 48)",
    ):
        assert part in says
    assert "layout identity" in says


def test_a_wrong_or_unknown_layout(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    file, card, _, _ = written("MoCo v3", tmp_path, randomise, card_of)
    with pytest.raises(
        WeightsError, match=r"not in the layout msn_pth.*look like mocov3_vit(.|\n)*layouts known here"
    ):
        read_published(file, card, "msn_pth")
    with pytest.raises(WeightsError, match=r"no layout 'mocov3'; did you mean 'mocov3_vit'\?"):
        read_published(file, card, "mocov3")
    torch.save({"model": {"weird.weight": other(), "weird.bias": other()}}, file)
    with pytest.raises(WeightsError) as caught:
        read_published(file, card)
    says = str(caught.value)
    assert "no layout known here" in says and "model: 2 tensors, weird.weight, weird.bias" in says
    assert all(f"  {name}: " in says for name in LAYOUTS)


def test_every_layout_has_a_writer_here() -> None:
    """A layout nobody writes in these tests or in those of parity would be a claim without a proof."""
    told = {layout for layout, _, _ in WRITERS.values()}
    elsewhere = {
        name for name in LAYOUTS if name.startswith(("hf_", "data2vec_hf", "ummae_", "pvt_"))
    }  # test_parity.py, test_ummae.py
    by_name = {
        "resnet50_torchvision",
        "simclr_tf",
        "byol_jax",
        "mmpretrain",
    }  # below, for they look like others
    assert LAYOUTS.keys() - told - elsewhere - by_name == set()


# Another grid


@pytest.mark.parametrize("interpolation", ["timm", "bicubic", "dino", "dinov2"])
def test_positions_are_resized_by_the_cards_rule(
    interpolation: Any, tmp_path: Path, randomise: Draw, card_of: Cards
) -> None:
    small, _ = build(card_of(arguments={"img_size": 64}))
    randomise(small)
    save_tensors(tmp_path / "m.safetensors", small.state_dict())
    card = card_of(arguments={"img_size": 96}, interpolation=interpolation)
    published = read_published(tmp_path / "m.safetensors", card)
    assert "1 resized: pos_embed (1, 17, 48) → (1, 37, 48)" in published.report
    stored: Tensor = small.pos_embed.detach()  # type: ignore[operator]
    grid = stored[:, 1:].reshape(1, 4, 4, 48).permute(0, 3, 1, 2)
    rule: dict[str, dict[str, Any]] = {
        "timm": {"size": (6, 6), "antialias": True},
        "bicubic": {"size": (6, 6)},
        "dino": {"scale_factor": 6.1 / 4},
        "dinov2": {"scale_factor": 6.1 / 4},
    }
    expected = torch.nn.functional.interpolate(grid, mode="bicubic", **rule[interpolation])
    found = published.encoder["pos_embed"]
    torch.testing.assert_close(found[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, 36, 48))
    assert torch.equal(found[:, :1], stored[:, :1])


# In zoo.load


def test_load_takes_a_published_file_and_its_decoder(
    tmp_path: Path, randomise: Draw, card_of: Cards, caplog: pytest.LogCaptureFixture
) -> None:
    file, card, encoder, _ = written("MAE", tmp_path, randomise, card_of)
    write_card(card, tmp_path / "tiny.md")
    (tmp_path / "model").mkdir()
    write_card(card, tmp_path / "model")
    found = load(tmp_path / "model", weights=file, device="cpu")
    assert torch.equal(
        found.module.state_dict()["blocks.1.mlp.fc1.weight"], encoder["blocks.1.mlp.fc1.weight"]
    )
    assert found.reconstruct(torch.rand(1, 3, 32, 32)).predicted.shape == (1, 3, 32, 32)
    assert caplog.text.count("not hash-checked") == 1 and "mae_pth" in caplog.text


# Particular to one family


def biases_that_dinov3_lacks(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    file, card, _, _ = written("DINOv3", tmp_path, randomise, card_of)
    plain = card_of(**{**MODELS["dinov3"], "architecture": "vit_small_patch16_dinov3"})
    with pytest.raises(WeightsError, match="…_qkvb has them"):
        read_published(file, plain)
    content = torch.load(file, weights_only=True)
    zeroed = {
        key: torch.zeros_like(each) if key.endswith("qkv.bias") else each for key, each in content.items()
    }
    torch.save(zeroed, file)
    assert not any("q_bias" in key for key in read_published(file, plain).encoder)
    assert not read_published(file, card).encoder["blocks.0.attn.q_bias"].any()


def a_plain_norm_after_pooling(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    file, _, _, _ = written("BEiT", tmp_path, randomise, card_of)
    published = read_published(file, card_of(**{**MODELS["beit"], "pooling": "avg"}))
    assert torch.equal(published.encoder["fc_norm.weight"], torch.ones(48))
    assert not published.encoder["fc_norm.bias"].any() and "norm.weight" not in published.encoder
    assert "2 filled in: fc_norm.weight, fc_norm.bias" in published.report and "norm.bias" in published.report


def converted_by_name(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    file, card, encoder, _ = written("SimCLR and BYOL, converted", tmp_path, randomise, card_of)
    for layout in ("resnet50_torchvision", "simclr_tf", "resnet50_prefixed"):
        published = read_published(file, card, layout)
        assert published.layout == layout
        assert all(torch.equal(published.encoder[key], encoder[key]) for key in encoder)


def byol_on_torchs_padding(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    file, card, _, _ = written("SimCLR and BYOL, converted", tmp_path, randomise, card_of)
    with pytest.raises(WeightsError, match=r"pads as TensorFlow does.*ssl_zoo_resnet50_same"):
        read_published(file, card, "byol_jax")


def counters_of_batches(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    """InstDisc's file is older than they are."""
    file, card, encoder, _ = written("InstDisc", tmp_path, randomise, card_of)
    content = torch.load(file, weights_only=True)
    old = {
        key: each for key, each in content["state_dict"].items() if not key.endswith("num_batches_tracked")
    }
    torch.save({"state_dict": old}, file)
    published = read_published(file, card)
    assert (
        published.encoder.keys() == encoder.keys()
        and "filled in: bn1.num_batches_tracked" in published.report
    )


def mmpretrain_by_name(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    """OpenMMLab's ResNets look like solo-learn's, and a card may say whose they are."""
    file, card, encoder, _ = written("mmselfsup, ResNet", tmp_path, randomise, card_of)
    for name in ("mmpretrain", "mmselfsup", "solo-learn", "solo_learn"):
        assert torch.equal(read_published(file, card, name).encoder["conv1.weight"], encoder["conv1.weight"])


def solo_learn_by_name(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    """Names may be written as the libraries write theirs."""
    file, card, encoder, _ = written("solo-learn, ViT", tmp_path, randomise, card_of)
    for name in ("solo-learn", "solo_learn"):
        assert torch.equal(read_published(file, card, name).encoder["cls_token"], encoder["cls_token"])


# What is particular to one family, and which.
PARTICULAR: dict[str, tuple[str, Callable[[Path, Draw, Cards], None]]] = {
    "DINOv3's biases where the architecture has none": ("eva", biases_that_dinov3_lacks),
    "BEiT, pooled by the mean": ("beit", a_plain_norm_after_pooling),
    "converted ResNets by name": ("resnet", converted_by_name),
    "BYOL on torch's padding": ("resnet", byol_on_torchs_padding),
    "files without counters": ("resnet", counters_of_batches),
    "mmpretrain by name": ("resnet", mmpretrain_by_name),
    "solo-learn by name": ("vit", solo_learn_by_name),
}


@pytest.mark.parametrize("about", [about for about, (needs, _) in PARTICULAR.items() if needs in names()])
def test_what_is_particular_to_one_family(
    about: str, tmp_path: Path, randomise: Draw, card_of: Cards
) -> None:
    PARTICULAR[about][1](tmp_path, randomise, card_of)
