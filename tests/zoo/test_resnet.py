"""ResNets against torchvision's with the same weights, and TensorFlow's padding against a twin from its formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.models.resnet import ResNet
from torch import Tensor

from zoo.architectures.resnet import VARIANTS
from zoo.cards import ModelCard
from zoo.errors import CardError, SizeError, Unsupported
from zoo.families import family, resnet
from zoo.loading import build
from zoo.published import read_published
from zoo.weights import load_into

Draw = Callable[..., None]
Note = Callable[[str, str, float], None]
SHORT = {"layers": [1, 2, 1, 1]}
SIZES = [(64, 64), (64, 96)]


def pixels(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def short(architecture: str, randomise: Draw) -> ResNet:
    """A random one of five blocks."""
    module = resnet.build(architecture, dict(SHORT)).eval()
    randomise(module)
    return module


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_all_outputs_equal_those_of_torchvision(size: tuple[int, int], randomise: Draw) -> None:
    module, x = short("resnet50", randomise), pixels(*size)
    theirs = torchvision.models.resnet.ResNet(torchvision.models.resnet.Bottleneck, SHORT["layers"]).eval()
    assert not theirs.load_state_dict(module.state_dict(), strict=False).unexpected_keys
    after: list[Tensor] = []
    for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
        for block in stage:
            block.register_forward_hook(lambda _, inputs, output: after.append(output))
    theirs.fc = torch.nn.Identity()
    pooled = theirs(x)

    found = resnet.features(module, x)
    torch.testing.assert_close(found.pooled, pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.as_map(), after[-1], atol=1e-5, rtol=1e-5)
    assert found.cls is None and found.grid == (size[0] // 32, size[1] // 32)
    assert torch.equal(found.pooled, module(x))
    for layer, each in zip([4, 0, 2], resnet.intermediates(module, x, [4, 0, 2]), strict=True):
        torch.testing.assert_close(each.as_map(), after[layer], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(each.pooled, after[layer].mean(dim=(2, 3)), atol=1e-5, rtol=1e-5)
    levels = resnet.pyramid(module, x)
    assert [level.shape[1] for level in levels] == [256, 512, 1024, 2048]
    for level, expected in zip(levels, [after[0], after[2], after[3], after[4]], strict=True):
        torch.testing.assert_close(level, expected, atol=1e-5, rtol=1e-5)


# Parameters of the convolutions and norms as the papers describe them, added up layer by layer.
def parameters(depths: tuple[int, ...], width: int) -> int:
    def layer(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel * kernel + 2 * outputs

    total, inputs = layer(3, 64 * width, 7), 64 * width
    for depth, inner in zip(depths, (64, 128, 256, 512), strict=True):
        inner *= width
        for block in range(depth):
            total += layer(inputs, inner, 1) + layer(inner, inner, 3) + layer(inner, 4 * inner, 1)
            total += layer(inputs, 4 * inner, 1) if block == 0 else 0
            inputs = 4 * inner
    return total


@pytest.mark.parametrize("name", VARIANTS)
def test_every_width_is_multiplied(name: str) -> None:
    depth, width, _ = VARIANTS[name]
    with torch.device("meta"):
        module = timm.create_model(name, num_classes=0)
        plain = timm.create_model({50: "resnet50", 200: "resnet200"}[depth], num_classes=0)
    ours = {key: tensor.shape for key, tensor in module.state_dict().items()}
    theirs = {key: tensor.shape for key, tensor in plain.state_dict().items()}
    for key, shape in ours.items():
        sides = theirs[key]
        image = key == "conv1.weight"  # whose second side is the colours
        assert shape == tuple(n * width if i < 2 - image else n for i, n in enumerate(sides)), key
    assert module.num_features == 2048 * width
    layers = (3, 4, 6, 3) if depth == 50 else (3, 24, 36, 3)
    assert sum(each.numel() for each in module.parameters()) == parameters(layers, width)


def same(x: Tensor, kernel: int, stride: int, empty: float = 0.0) -> Tensor:
    """Padded as TensorFlow's SAME: ceil(n / stride) outputs, the odd pixel of padding last."""
    sides: list[int] = []
    for n in (x.shape[3], x.shape[2]):  # F.pad begins at the last axis
        total = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides, value=empty)


def twin(tensors: dict[str, Tensor], x: Tensor, everywhere: bool) -> Tensor:
    """The network of SHORT from its tensors: SAME at the pool, and everywhere or as torchvision elsewhere."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = tensors[f"{conv}.weight"]
        kernel = weight.shape[-1]
        padded = same(x, kernel, stride) if everywhere else F.pad(x, [kernel // 2] * 4)
        mean, variance, scale, shift = (
            tensors[f"{norm}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (F.conv2d(padded, weight, stride=stride) - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = layer(x, "conv1", "bn1", 2).relu()
    x = F.max_pool2d(same(x, 3, 2, -math.inf), 3, 2)
    for stage, depth in enumerate(SHORT["layers"], 1):
        for block in range(depth):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = layer(x, f"{at}.conv1", f"{at}.bn1").relu()
            y = layer(y, f"{at}.conv2", f"{at}.bn2", stride).relu()
            y = layer(y, f"{at}.conv3", f"{at}.bn3")
            if block == 0:
                x = layer(x, f"{at}.downsample.0", f"{at}.downsample.1", stride)
            x = (x + y).relu()
    return x


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("architecture", "everywhere"), [("ssl_zoo_resnet50_same", True), ("ssl_zoo_resnet50_samepool", False)]
)
def test_same_padding_equals_its_twin(
    architecture: str,
    everywhere: bool,
    size: tuple[int, int],
    tmp_path: Path,
    randomise: Draw,
    card_of: Callable[..., ModelCard],
    parity: Note,
) -> None:
    """As chigur/byol-convert and tonylins/simclr-converter write them, and read back."""
    module, x = short(architecture, randomise), pixels(*size)
    expected = twin(module.state_dict(), x, everywhere)
    layout = "byol_jax" if everywhere else "simclr_tf"
    torch.save({"state_dict": module.state_dict()}, tmp_path / "converted.pth")
    card = card_of("resnet", architecture, arguments=SHORT, pooling="avg")
    published = read_published(tmp_path / "converted.pth", card, layout)
    again, _ = build(card)
    load_into(again.eval(), published.encoder, where="file")
    found = family("resnet").features(again, x).as_map()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    parity(
        layout, f"the formula with SAME padding, {size[0]}×{size[1]}", float((found - expected).abs().max())
    )
    plain = short("resnet50", randomise)
    plain.load_state_dict(module.state_dict())
    apart = (resnet.features(plain, x).as_map() - expected).abs().max()
    assert apart > 0.01 * expected.abs().max()  # so that nobody mistakes one for the other


def test_a_wider_one_runs_and_takes_other_channels(randomise: Draw) -> None:
    module = resnet.build("ssl_zoo_resnet50x2_same", {**SHORT, "in_chans": 5}).eval()
    found = resnet.features(module, torch.rand(1, 5, 64, 32))
    assert found.pooled.shape == (1, 4096) and found.patches.shape == (1, 2, 4096)
    assert len(resnet.pyramid(module, torch.rand(1, 5, 64, 32))) == 4


def test_stride_and_depth() -> None:
    with torch.device("meta"):
        assert [resnet.stride(resnet.build("resnet18", said)) for said in ({}, {"output_stride": 16})] == [
            32,
            16,
        ]
        assert resnet.depth(resnet.build("resnet18", {})) == 8


def test_what_is_not_there_says_what_is(randomise: Draw) -> None:
    with torch.device("meta"):
        module = resnet.build("resnet18", {})
        with pytest.raises(Unsupported, match="no attention; ask a vision transformer, such as dino_vits16"):
            resnet.attention_rows(module, pixels(64, 64), 0, (0, 0))
        with pytest.raises(SizeError, match="nearest size that is: 64×96"):
            resnet.features(module, torch.empty(1, 3, 64, 100))
        with pytest.raises(Unsupported, match="ConvNeXt, not a ResNet; choose another family"):
            resnet.build("convnext_nano", {})


@pytest.mark.parametrize(
    ("architecture", "said", "says"),
    [
        ("ssl_zoo_resnet50x3", {}, "did you mean 'ssl_zoo_resnet50x"),
        ("resnet50", {"widths": 2}, "cannot build resnet50 .*widths"),
    ],
)
def test_what_cannot_be_built_is_the_cards_fault(architecture: str, said: dict[str, Any], says: str) -> None:
    with torch.device("meta"), pytest.raises(CardError, match=says):
        resnet.build(architecture, said)
