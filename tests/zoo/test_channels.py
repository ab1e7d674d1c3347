"""Encoders of RGB images for grey and many-channelled ones, in every family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

import zoo
from zoo.cards import ModelCard, TransformSpec
from zoo.encoder import Encoder
from zoo.errors import ImageError, Unsupported
from zoo.folders import write_folder
from zoo.loading import build, untrained

Draw = Callable[..., None]
Cards = Callable[..., ModelCard]

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
MODELS: dict[str, dict[str, Any]] = {
    "vit": {},
    "beit": {"architecture": "beit_base_patch16_224", "arguments": {**SMALL, "img_size": 32}},
    "eva": {"architecture": "vit_small_patch16_dinov3_qkvb", "arguments": SMALL},
    "xcit": {"architecture": "xcit_nano_12_p16_224", "arguments": SMALL},
    "resnet": {
        "architecture": "ssl_zoo_resnet50_same",
        "arguments": {"layers": [1, 1, 1, 1]},
        "pooling": "avg",
    },
    "swin": {
        "architecture": "swin_tiny_patch4_window7_224",
        "arguments": {
            "img_size": 64,
            "window_size": 4,
            "depths": [2, 2, 1, 1],
            "embed_dim": 8,
            "num_heads": [1, 2, 2, 4],
        },
        "pooling": "avg",
    },
    "pvt": {
        "architecture": "ssl_zoo_pvt_small",
        "arguments": {
            "img_size": 96,
            "embed_dims": [8, 16, 32, 64],
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 2, 4],
            "mlp_ratios": [2, 2, 2, 2],
        },
    },
}
HALF = ((0.5,) * 3, (0.5,) * 3)
IMAGENET = (TransformSpec(1).mean, TransformSpec(1).std)


def encoder_of(family: str, statistics: tuple[Any, Any], card_of: Cards, randomise: Draw) -> Encoder:
    card = card_of(family=family, **MODELS[family])
    spec = dataclasses.replace(card.transform, size=64, mean=statistics[0], std=statistics[1])
    module, _ = build(card)
    randomise(module)
    for name, tensor in module.named_buffers():
        if "k_bias" in name:
            tensor.zero_()
    count = sum(parameter.numel() for parameter in module.parameters())
    return Encoder(dataclasses.replace(card, transform=spec, parameters=count), module)


def written(encoder: Encoder, folder: Path) -> Path:
    write_folder(folder, encoder.card, encoder.module, None, "", dtype=torch.float32)
    return folder


def images(channels: int) -> Tensor:
    return torch.rand(2, channels, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", MODELS)
def test_the_same_in_every_channel_means_the_same(
    family: str, tmp_path: Path, card_of: Cards, randomise: Draw
) -> None:
    folder = written(encoder_of(family, HALF, card_of, randomise), tmp_path / "model")
    rgb, grey, six = (zoo.load(folder, device="cpu", in_chans=channels) for channels in (3, 1, 6))
    expected = rgb(images(1).expand(-1, 3, -1, -1))
    found = grey(images(1))
    torch.testing.assert_close(found.patches, expected.patches, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        six(images(3).repeat(1, 2, 1, 1)).pooled, rgb(images(3)).pooled, atol=1e-4, rtol=1e-4
    )
    assert (grey.transform.channels, six.transform.channels) == (1, 6)
    with_grey = sum(parameter.numel() for parameter in grey.module.parameters())
    assert grey.card.parameters == with_grey < rgb.card.parameters < six.card.parameters


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_a_grey_photo_means_nearly_the_same_where_channels_differ(
    family: str, tmp_path: Path, card_of: Cards, randomise: Draw
) -> None:
    """ImageNet's means and stds: one channel has the mean of each, and three apart have not."""
    folder = written(encoder_of(family, IMAGENET, card_of, randomise), tmp_path / "model")
    rgb, grey, five = (zoo.load(folder, device="cpu", in_chans=channels) for channels in (3, 1, 5))
    photo = Path(zoo.registry.MODEL_CARDS) / "photos" / "coffee.jpg"
    levels = np.asarray(zoo.images.read_image(photo, channels=1))
    expected, found = rgb(np.repeat(levels[:, :, None], 3, axis=2)).pooled, grey(levels).pooled
    torch.testing.assert_close(grey(photo).pooled, found)
    assert torch.cosine_similarity(found, expected).item() > 0.98
    mean, std = IMAGENET
    assert grey.transform.mean == (sum(mean) / 3,) and grey.transform.std == (sum(std) / 3,)
    assert five.transform.mean == (*mean, *mean[:2]) and five.transform.std == (*std, *std[:2])


def test_many_channels_are_weighed_by_the_rule(tmp_path: Path, card_of: Cards, randomise: Draw) -> None:
    """Twin: the first convolution of five channels, and of one, weight by weight."""
    rgb = encoder_of("vit", IMAGENET, card_of, randomise)
    folder = written(rgb, tmp_path / "model")
    three = rgb.module.get_parameter("patch_embed.proj.weight")
    five = zoo.load(folder, device="cpu", in_chans=5).module.get_parameter("patch_embed.proj.weight")
    one = zoo.load(folder, device="cpu", in_chans=1).module.get_parameter("patch_embed.proj.weight")
    assert five.shape == (48, 5, 16, 16) and one.shape == (48, 1, 16, 16)
    for channel in range(5):
        torch.testing.assert_close(five[:, channel], three[:, channel % 3] * 3 / 5)
    torch.testing.assert_close(one[:, 0], three[:, 0] + three[:, 1] + three[:, 2])


def test_arrays_of_many_channels_are_pictures(tmp_path: Path, card_of: Cards, randomise: Draw) -> None:
    folder = written(encoder_of("vit", IMAGENET, card_of, randomise), tmp_path / "model")
    five = zoo.load(folder, device="cpu", in_chans=5)
    array = np.random.default_rng(0).integers(0, 256, (80, 120, 5), np.uint8)
    whole = five(array, fit="whole", size=64)
    assert whole.grid == (4, 6)
    # Channel by channel, a picture of three is what Pillow makes of RGB.
    rgb = zoo.load(folder, device="cpu")
    pixels = five.transform.pixels(array, 16)
    assert torch.equal(pixels[:3], rgb.transform.pixels(array[:, :, :3], 16))
    exact = np.ascontiguousarray(array[:64, :64])
    tensor = torch.from_numpy(exact).permute(2, 0, 1)
    full = dataclasses.replace(five.transform, crop_pct=1.0)
    torch.testing.assert_close(full.pixels(exact, 16), five.transform.normalise(tensor / 255))
    with pytest.raises(ImageError, match=r"5 channels takes \(H, W, 5\) uint8, not \(80, 120, 4\)"):
        five(array[:, :, :4])
    with pytest.raises(ImageError, match="an encoder of in_chans=5"):
        rgb(array)
    with pytest.raises(ImageError, match=r"or load the encoder with in_chans=1"):
        rgb(images(1))


def test_weights_from_a_file_and_random_ones(tmp_path: Path, card_of: Cards, randomise: Draw) -> None:
    rgb = encoder_of("vit", HALF, card_of, randomise)
    folder = written(rgb, tmp_path / "model")
    file = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in rgb.module.state_dict().items()}, file)
    from_file = zoo.load(folder, weights=file, device="cpu", in_chans=1)
    assert torch.equal(
        from_file(images(1)).pooled, zoo.load(folder, device="cpu", in_chans=1)(images(1)).pooled
    )
    random = zoo.load(folder, weights="random", device="cpu", in_chans=2)
    assert torch.equal(random(images(2)).pooled, untrained(random)(images(2)).pooled)
    assert random.module.get_parameter("patch_embed.proj.weight").shape[1] == 2


def test_it_is_written_and_read_like_any_other(tmp_path: Path, card_of: Cards, randomise: Draw) -> None:
    folder = written(encoder_of("vit", IMAGENET, card_of, randomise), tmp_path / "model")
    two = zoo.load(folder, device="cpu", in_chans=2)
    again = zoo.load(written(two, tmp_path / "two"), device="cpu")
    expected = two(images(2)).pooled
    torch.testing.assert_close(again(images(2)).pooled, expected)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'two'}", pretrained=True, dynamic_img_size=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(two.transform.normalise(images(2))), expected, atol=1e-5, rtol=0)
    assert zoo.load(tmp_path / "two", device="cpu", in_chans=2).transform.channels == 2
    with pytest.raises(Unsupported, match="in_chans=4: two takes 2 channels"):
        zoo.load(tmp_path / "two", in_chans=4)


def test_reconstruction_is_of_rgb(tiny: Encoder, tmp_path: Path) -> None:
    write_folder(tmp_path / "tiny", tiny.card, tiny.module, tiny.decoder, "")
    grey = zoo.load(tmp_path / "tiny", device="cpu", in_chans=1)
    assert grey.decoder is None and grey.card.decoder is None
    with pytest.raises(Unsupported, match="if it was loaded with in_chans, its decoder stayed behind"):
        grey.reconstruct(images(1))
    with pytest.raises(Unsupported, match="in_chans=-1: tiny takes 3 channels"):
        zoo.load(tmp_path / "tiny", in_chans=-1)
