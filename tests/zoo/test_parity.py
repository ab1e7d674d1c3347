"""Every published layout against an independent implementation, on random weights; a table at the end of the run.

Models of transformers and torchvision are written to a file, read back through `read_published`, and compared with
ours on the same pixels. LayerNorm's epsilon is the authors' 1e-6, where transformers' configurations say 1e-12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo.cards import DecoderSpec, ModelCard
from zoo.decoders import Masks, kind
from zoo.encoder import Encoder
from zoo.errors import WeightsError
from zoo.families import family
from zoo.families import names as families
from zoo.features import Features
from zoo.loading import build
from zoo.patches import patchify, unpatchify
from zoo.published import read_published
from zoo.weights import load_into

LIMIT = 1e-4
Draw = Callable[..., None]
Cards = Callable[..., ModelCard]
Note = Callable[[str, str, float], None]

TINY: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 192,
    "image_size": 32,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
}
MAE = DecoderSpec(
    kind="mae", width=32, depth=2, heads=4, patch=16, mask_patch=16, normalised_targets=False, ratio=0.75
)


def model_of(model_class: Any, configuration: Any, randomise: Draw, **keywords: Any) -> Any:
    """A model with every tensor random, at rest."""
    model = model_class(configuration, **keywords).eval()
    randomise(model)
    return model


def pixels(side: int = 32) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(5))


def saved(model: Any, folder: Path, names: str) -> Path:
    """The file of a model: with the Hub's names, as transformers saves it, with those in its memory, or as MoCo's."""
    file = folder / "model.safetensors"
    if names == "hub":
        model.save_pretrained(folder)
        as_saved = load_file(file)
        # Version 5 saves ViTMAE's decoder under a name of its own; on the Hub it is the one of version 4.
        tensors = {
            name.replace("decoder_encoder.layer.", "decoder_layers."): t for name, t in as_saved.items()
        }
        save_file(tensors, file)
    elif names == "saved":
        model.save_pretrained(folder)
    elif names == "MoCo v2":
        wrapped = {f"module.encoder_q.{name}": tensor for name, tensor in model.state_dict().items()}
        torch.save({"state_dict": wrapped}, file)
    else:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)
    return file


def ours(file: Path, card: ModelCard, layout: str | None = None) -> tuple[nn.Module, nn.Module | None, str]:
    """The card's modules with the file's tensors, and the name of the layout."""
    published = read_published(file, card, layout)
    module, decoder = build(card)
    load_into(module.eval(), published.encoder, where="file")
    if decoder is not None and published.decoder is not None:
        load_into(decoder.eval(), published.decoder, where="file")
    return module, decoder, published.layout


def features(card: ModelCard, module: nn.Module, x: Tensor) -> Features:
    with torch.no_grad():
        return family(card.family).features(module, x)


def tokens(card: ModelCard, module: nn.Module, x: Tensor) -> Tensor:
    """Class token, where there is one, and patches."""
    found = features(card, module, x)
    return found.patches if found.cls is None else torch.cat([found.cls[:, None], found.patches], 1)


def apart(mine: Tensor, theirs: Tensor) -> float:
    """The largest difference, of outputs of order 1."""
    assert mine.shape == theirs.shape
    assert 0.1 < float(theirs.abs().mean()) < 10
    return float((mine - theirs).abs().max())


@dataclass(frozen=True)
class Case:
    """An independent model, our card's fields, the names it is saved under, and the outputs to compare."""

    layout: str
    model: Callable[[Draw], Any]
    said: dict[str, Any] = field(default_factory=dict)
    side: int = 32
    names: tuple[str, ...] = ("hub", "memory")
    theirs: Callable[[Any, Tensor], Tensor] = lambda model, x: model(x).last_hidden_state
    mine: Callable[[Features], Tensor] = lambda found: (
        found.patches if found.cls is None else torch.cat([found.cls[:, None], found.patches], 1)
    )


def of(model: str, settings: dict[str, Any] | None = None, configuration: str | None = None) -> Any:
    """Makes a transformers model of that name, by default of its like-named configuration."""
    config_class = getattr(transformers, configuration or model.replace("Model", "Config"))
    config = config_class(**{**TINY, **(settings or {})})
    return lambda randomise: model_of(getattr(transformers, model), config, randomise)


def resnet(randomise: Draw) -> Any:
    """torchvision's ResNet-50 with fewer blocks and without its classifier."""
    blocks = torchvision.models.resnet.Bottleneck
    model = model_of(torchvision.models.resnet.ResNet, blocks, randomise, layers=[1, 2, 1, 1])
    model.fc = nn.Identity()
    return model


def without_registers(model: Any, x: Tensor) -> Tensor:
    """Class token and patches; transformers keeps the four registers between them."""
    states = model(x).last_hidden_state
    return torch.cat([states[:, :1], states[:, 5:]], 1)


def pvt(randomise: Draw) -> Any:
    """transformers' PVT; its authors keep torch's epsilon in the norms of patches and of reduced keys."""
    shape = {"hidden_sizes": [8, 16, 32, 64], "num_attention_heads": [1, 2, 2, 4], "mlp_ratios": [2, 2, 2, 2]}
    config = transformers.PvtConfig(image_size=64, depths=[2, 1, 1, 2], **shape)
    model = model_of(transformers.PvtModel, config, randomise)
    for name, module in model.named_modules():
        if name.endswith("layer_norm") and ("patch_embeddings" in name or "attention" in name):
            module.eps = 1e-5
    return model


SIZES: dict[str, Any] = {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3}
BEIT: dict[str, Any] = {"family": "beit", "architecture": "beit_base_patch16_224"}
SHARED: dict[str, Any] = {**SIZES, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
PVT: dict[str, Any] = {
    "img_size": 64,
    "depths": [2, 1, 1, 2],
    "embed_dims": [8, 16, 32, 64],
    "num_heads": [1, 2, 2, 4],
    "mlp_ratios": [2, 2, 2, 2],
}
SWIN: dict[str, Any] = {"depths": [2, 2], "embed_dim": 12, "num_heads": [1, 2], "window_size": 4}
CASES = {
    "transformers.ViTModel": Case("hf_vit_to_timm", of("ViTModel")),
    "transformers.ViTMSNModel": Case("hf_vit_to_timm", of("ViTMSNModel")),
    "transformers.IJepaModel": Case(
        "hf_vit_to_timm",
        of("IJepaModel"),
        {"architecture": "vit_huge_patch14_gap_224", "arguments": {"patch_size": 16}, "pooling": "avg"},
    ),
    "transformers.Dinov2Model": Case(
        "hf_dinov2_to_timm",
        of("Dinov2Model", {"mlp_ratio": 4}),
        {"architecture": "vit_small_patch14_dinov2", "arguments": {"patch_size": 16}},
    ),
    "transformers.Dinov2WithRegistersModel": Case(
        "hf_dinov2_to_timm",
        of("Dinov2WithRegistersModel", {"mlp_ratio": 4, "num_register_tokens": 4}),
        {"architecture": "vit_small_patch14_reg4_dinov2", "arguments": {"patch_size": 16}},
        theirs=without_registers,
    ),
    "transformers.DINOv3ViTModel": Case(
        "hf_dinov3_to_timm",
        of("DINOv3ViTModel", {"num_register_tokens": 4, "layer_norm_eps": 1e-5}),  # its authors' epsilon
        {"family": "eva", "architecture": "vit_small_patch16_dinov3_qkvb", "arguments": SIZES},
        theirs=without_registers,
    ),
    "transformers.BeitForMaskedImageModeling": Case(
        "hf_beit_to_timm_shared_rpb",
        of(
            "BeitForMaskedImageModeling",
            {"use_shared_relative_position_bias": True, "use_mask_token": True},
            "BeitConfig",
        ),
        {**BEIT, "arguments": SHARED},
        theirs=lambda model, x: model.layernorm(model.beit(x).last_hidden_state),  # the norm lies beside it
    ),
    "transformers.BeitModel, tables per layer, pooled": Case(
        "hf_beit_to_timm_shared_rpb",
        of("BeitModel", {"use_relative_position_bias": True}),
        {**BEIT, "arguments": SIZES, "pooling": "avg"},
        theirs=lambda model, x: model(x).pooler_output,
        mine=lambda found: found.pooled,
    ),
    "transformers.Data2VecVisionModel": Case(  # no final norm, so a plain one after pooling
        "data2vec_hf_to_timm",
        of("Data2VecVisionModel", {"use_shared_relative_position_bias": True}),
        {**BEIT, "arguments": SHARED, "pooling": "avg"},
        theirs=lambda model, x: model(x).last_hidden_state[:, 1:],
        mine=lambda found: found.patches,
    ),
    "transformers.SwinForMaskedImageModeling": Case(
        "hf_swin_simmim",
        lambda randomise: model_of(
            transformers.SwinForMaskedImageModeling,
            transformers.SwinConfig(image_size=64, patch_size=4, encoder_stride=8, **SWIN),
            randomise,
        ),
        {
            "family": "swin",
            "architecture": "swin_tiny_patch4_window7_224",
            "arguments": {"img_size": 64, **SWIN},
            "pooling": "avg",
        },
        side=64,
        theirs=lambda model, x: model.swin(x).last_hidden_state,
        mine=lambda found: found.patches,
    ),
    "transformers.PvtModel": Case(
        "hf_pvt",
        pvt,
        {"family": "pvt", "architecture": "ssl_zoo_pvt_small", "arguments": PVT},
        side=64,
    ),
    "torchvision's ResNet": Case(
        "resnet50_prefixed",
        resnet,
        {
            "family": "resnet",
            "architecture": "resnet50",
            "arguments": {"layers": [1, 2, 1, 1]},
            "pooling": "avg",
        },
        side=64,
        names=("MoCo v2",),
        theirs=lambda model, x: model(x),
        mine=lambda found: found.pooled,
    ),
}
# Those of the families that are here.
HERE = [
    (name, names)
    for name, case in CASES.items()
    for names in case.names
    if case.said.get("family", "vit") in families()
]


@pytest.mark.parametrize(("name", "names"), HERE)
def test_an_independent_implementation(
    name: str, names: str, tmp_path: Path, randomise: Draw, card_of: Cards, parity: Note
) -> None:
    case = CASES[name]
    model, card, x = case.model(randomise), card_of(**case.said), pixels(case.side)
    module, _, found = ours(saved(model, tmp_path, names), card)
    with torch.no_grad():
        theirs = case.theirs(model, x)
    difference = apart(case.mine(features(card, module, x)), theirs)
    parity(found, f"{name} ({names})", difference)
    assert found == case.layout and difference <= LIMIT


@pytest.mark.parametrize("names", ["hub", "saved", "memory"])
def test_mae_and_its_decoder(
    names: str, tmp_path: Path, randomise: Draw, card_of: Cards, parity: Note
) -> None:
    settings = {
        **TINY,
        "image_size": 64,
        "decoder_hidden_size": 32,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 128,
    }
    model = model_of(transformers.ViTMAEForPreTraining, transformers.ViTMAEConfig(**settings), randomise)
    model.decoder.initialize_weights(num_patches=16)  # a fresh model of version 5 has positions of zero
    card = card_of(decoder=MAE, kind="generative", arguments={"img_size": 64})
    module, decoder, found = ours(saved(model, tmp_path, names), card)
    assert found == "hf_vitmae_to_mae" and decoder is not None
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = model(pixels(64), noise=noise)
        visible = noise.argsort(dim=1)[:, :4]
        seen: Any = family("vit")
        predicted = decoder(seen.visible_tokens(module, pixels(64), visible), visible, (4, 4))
    assert torch.equal(torch.ones(3, 16).scatter(1, visible, 0.0), theirs.mask)
    difference = apart(predicted, theirs.logits)
    parity(found, f"transformers.ViTMAEForPreTraining ({names})", difference)
    assert difference <= LIMIT


def shown(masked: Tensor, times: int) -> Tensor:
    """A mask (B, h, w) as transformers wants it, one flag for every token: (B, N)."""
    return masked.repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(1)


@pytest.mark.parametrize("names", ["hub", "memory"])
def test_simmim_on_swin_and_its_decoder(
    names: str, tmp_path: Path, randomise: Draw, card_of: Cards, parity: Note
) -> None:
    """Prediction and loss with the same weights and the same mask of 16-pixel patches."""
    config = transformers.SwinConfig(image_size=64, patch_size=4, encoder_stride=8, **SWIN)
    model = model_of(transformers.SwinForMaskedImageModeling, config, randomise)
    card = card_of(
        family="swin",
        architecture="swin_tiny_patch4_window7_224",
        arguments={"img_size": 64, **SWIN},
        pooling="avg",
        kind="generative",
        decoder=DecoderSpec(kind="simmim", patch=8, mask_patch=16, normalised_targets=False, ratio=0.6),
    )
    module, decoder, found = ours(saved(model, tmp_path, names), card)
    masked = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.6
    encoder = Encoder(card, module, decoder)
    with torch.no_grad():
        theirs = model(pixels(64), bool_masked_pos=shown(masked, 4))
        assert encoder.decoder is not None
        mine = kind("simmim").predict(encoder.family, module, encoder.decoder, pixels(64), Masks(masked))
        loss = kind("simmim").error(mine, patchify(pixels(64), 16), masked.flatten(1))
    difference = apart(unpatchify(mine, 16, (4, 4)), theirs.reconstruction)
    parity(found, f"transformers.SwinForMaskedImageModeling, prediction ({names})", difference)
    assert found == "hf_swin_simmim" and difference <= LIMIT
    shares = masked.flatten(1).float().mean(dim=1)  # theirs is the mean over all hidden pixels of the batch
    together = float((loss * shares).sum() / shares.sum())
    assert abs(together - float(theirs.loss)) < 1e-5


def test_simmim_on_a_plain_vit(randomise: Draw, card_of: Cards, tmp_path: Path, parity: Note) -> None:
    config = transformers.ViTConfig(**{**TINY, "image_size": 64}, encoder_stride=16)
    model = model_of(transformers.ViTForMaskedImageModeling, config, randomise)
    card = card_of(
        arguments={"img_size": 64},
        kind="generative",
        decoder=DecoderSpec(kind="simmim", patch=16, mask_patch=32, normalised_targets=False, ratio=0.6),
    )
    module, decoder = build(card)
    assert decoder is not None
    model.vit.save_pretrained(tmp_path)
    load_into(module.eval(), read_published(tmp_path / "model.safetensors", card).encoder, where="file")
    head = model.decoder[0]
    tensors = {
        "head.weight": head.weight,
        "head.bias": head.bias,
        "mask_token": model.vit.embeddings.mask_token,
    }
    load_into(decoder.eval(), {name: tensor.detach() for name, tensor in tensors.items()}, where="test")
    masked = torch.tensor([[[1, 0], [0, 1]], [[0, 0], [1, 0]], [[1, 1], [1, 0]]]).bool()
    with torch.no_grad():
        theirs = model(pixels(64), bool_masked_pos=shown(masked, 2)).reconstruction
        mine = kind("simmim").predict(family("vit"), module, decoder, pixels(64), Masks(masked))
    difference = apart(unpatchify(mine, 32, (2, 2)), theirs)
    parity("hf_vit_to_timm", "transformers.ViTForMaskedImageModeling, prediction", difference)
    assert difference <= LIMIT


def test_wrong_order_of_query_key_and_value_shows(tmp_path: Path, randomise: Draw, card_of: Cards) -> None:
    model = model_of(
        transformers.ViTModel, transformers.ViTConfig(**TINY), randomise, add_pooling_layer=False
    )
    published = read_published(saved(model, tmp_path, "hub"), card_of())
    with torch.no_grad():
        theirs = model(pixels()).last_hidden_state
    for order in ([0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0]):
        module, _ = build(card_of())
        tensors = {
            name: torch.cat([tensor.chunk(3)[part] for part in order]) if ".qkv." in name else tensor
            for name, tensor in published.encoder.items()
        }
        load_into(module.eval(), tensors, where="file")
        difference = apart(tokens(card_of(), module, pixels()), theirs)
        assert (difference <= LIMIT) == (order == [0, 1, 2]), order


def test_half_the_heads_of_moco_v3_show(
    tmp_path: Path, randomise: Draw, card_of: Cards, parity: Note
) -> None:
    """ViT-S with 12 heads of 32 channels; timm's own has 6 of 64, whose tensors have the same shapes."""
    settings = {**TINY, "hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12}
    model = model_of(
        transformers.ViTModel, transformers.ViTConfig(**settings), randomise, add_pooling_layer=False
    )
    like = card_of(arguments={"embed_dim": 384, "num_heads": 12})
    # Our names in MoCo v3's wrapping, as its authors save them.
    encoder = read_published(saved(model, tmp_path, "hub"), like).encoder
    wrapped = {f"module.base_encoder.{name}": tensor for name, tensor in encoder.items()}
    file = tmp_path / "vit-s-300ep.pth.tar"
    torch.save({"epoch": 300, "arch": "vit_small", "state_dict": wrapped}, file)
    module, _, found = ours(file, like)
    with torch.no_grad():
        theirs = model(pixels()).last_hidden_state
    difference = apart(tokens(like, module, pixels()), theirs)
    parity(found, "transformers.ViTModel, 12 heads", difference)
    assert found == "mocov3_vit" and difference <= LIMIT

    six = card_of(arguments={"embed_dim": 384, "num_heads": 6})
    with pytest.raises(WeightsError, match="12 heads and this card's 6"):
        read_published(file, six)
    wrong, _ = build(six)
    load_into(wrong.eval(), encoder, where="file")  # nothing else would notice
    assert apart(tokens(six, wrong, pixels()), theirs) > 100 * LIMIT
