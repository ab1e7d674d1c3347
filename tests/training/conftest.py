"""Real photographs in folders, and recipes small enough to train in a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

from zoo.cards import ModelCard, TransformSpec
from zoo.encoder import Encoder
from zoo.loading import build
from zoo.training.methods import recipe
from zoo.training.recipe import Recipe


def write_photo(path: Path, seed: int, size: tuple[int, int] = (64, 48)) -> None:
    """A JPEG of coloured noise, coarse enough to survive compression. size: (width, height) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path, quality=95)


def write_photos(root: Path, per_class: int, seed: int = 0) -> Path:
    """Photos of two classes, `cat` and `dog`, in a folder each."""
    for c, name in enumerate(("cat", "dog")):
        for i in range(per_class):
            write_photo(root / name / f"{i:02d}.jpg", seed + 100 * c + i)
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 photos in train/ and 8 in val/, 64×48 pixels each. Not to be written to."""
    root = tmp_path_factory.mktemp("photos")
    write_photos(root / "train", 6)
    write_photos(root / "val", 4, seed=1000)
    return root


SMALL: dict[str, dict[str, Any]] = {
    "arch": {"name": "test_vit", "size": 32},  # timm's own: 6 blocks of width 64, 16-px patches
    "data": {"size": 32, "side": 40, "workers": 0},
    "optim": {"batch": 4},
    "run": {"log_every": 1, "threads": 1},
}
SMALL_ARCH: dict[str, dict[str, Any]] = {
    "beit": {"name": "beit_base_patch16_224", "embed_dim": 64, "depth": 2, "num_heads": 2},
    "dvae": {"name": "ssl_zoo_dvae_small"},
}
SMALL_METHOD: dict[str, dict[str, Any]] = {
    "mae": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
    "simclr": {"hidden": 32, "out": 16},
    "byol": {"hidden": 32, "out": 16, "momentum": 0.9},
    "beit": {"tokenizer_recipe": "dvae/smoke"},
    "dvae": {"decoder_width": 8},
    "dino": {"prototypes": 24, "hidden": 32, "bottleneck": 16, "local_size": 16},
}


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    """`tiny("dino/smoke", optim={"batch": 8})`: the recipe on a 64-wide ViT at 32 px, with these knobs turned."""

    def shrink(name: str, **knobs: dict[str, Any]) -> Recipe:
        small, method = recipe(name), name.split("/")[0]
        for section in {*SMALL, *knobs, "method"}:
            turned = SMALL.get(section, {}) | knobs.get(section, {})
            if section == "arch":
                turned = SMALL["arch"] | SMALL_ARCH.get(method, {}) | knobs.get("arch", {})
            if section == "method":
                turned = SMALL_METHOD.get(method, {}) | knobs.get(section, {})
            config: Any = getattr(small, section)
            small = dataclasses.replace(small, **{section: dataclasses.replace(config, **turned)})
        data = small.data  # images are no smaller than the views that are cut from them
        return dataclasses.replace(small, data=dataclasses.replace(data, side=max(data.side, data.size)))

    return shrink


@pytest.fixture(scope="session")
def paints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Easy: reddish, greenish and bluish noise, 24 pictures each in train/ and 10 in val/. Not to be written to."""
    root, random = tmp_path_factory.mktemp("paints"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 10)):
        for place, name in enumerate(("red", "green", "blue")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 180, (32, 32, 3), dtype=np.uint8)
                pixels[:, :, place] |= 128
                Image.fromarray(pixels).save(root / split / name / f"{i:02d}.png")
    return root


# A small encoder of every family, and what its card says of it.
FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {
        "architecture": "test_vit",
        "arguments": {"img_size": 32, "dynamic_img_size": True},
        "pooling": "token",
    },
    "vit, the mean": {"architecture": "test_vit", "arguments": {"img_size": 32, "fc_norm": False}},
    "beit": {
        "architecture": "beit_base_patch16_224",
        "arguments": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3},
    },
    "eva": {
        "architecture": "vit_small_patch16_dinov3_qkvb",
        "arguments": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3},
        "pooling": "token",
    },
    "xcit": {
        "architecture": "xcit_nano_12_p16_224",
        "arguments": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3},
        "pooling": "token",
    },
    "swin": {
        "architecture": "swin_tiny_patch4_window7_224",
        "arguments": {
            "img_size": 32,
            "depths": [2, 1, 1, 2],
            "embed_dim": 8,
            "num_heads": [1, 2, 2, 4],
            "window_size": 4,
        },
    },
    "swin, UM-MAE's": {
        "architecture": "ssl_zoo_ummae_swin_tiny",
        "arguments": {"img_size": 64, "embed_dim": 8, "num_heads": [1, 2, 2, 4], "window_size": 4},
    },
    "pvt": {
        "architecture": "ssl_zoo_pvt_small",
        "arguments": {
            "img_size": 32,
            "embed_dims": [8, 16, 32, 64],
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 2, 4],
        },
    },
    "resnet": {"architecture": "test_resnet", "arguments": {}},
    "dvae": {"architecture": "ssl_zoo_dvae_small", "arguments": {}},
}


@pytest.fixture(scope="session")
def encoder_of() -> Callable[[str], Encoder]:
    """`encoder_of("swin")`: an encoder of FAMILIES at 32 px with seeded random weights."""

    def make(name: str) -> Encoder:
        said = {"pooling": "avg", **FAMILIES[name]}
        size = said["arguments"].get("img_size", 32)
        card = ModelCard(
            name=f"tiny_{name.partition(',')[0]}",
            licence="apache-2.0",
            method="test",
            kind="discriminative",
            family=name.partition(",")[0],
            parameters=1,
            transform=TransformSpec(size=size),
            **said,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module, _ = build(card)
        count = sum(parameter.numel() for parameter in module.parameters())
        return Encoder(dataclasses.replace(card, parameters=count), module)

    return make


@pytest.fixture(scope="session")
def dalle() -> dict[str, Tensor]:
    """Tensors as the state_dict of openai/DALL-E's Encoder names them, at random."""
    hidden, vocabulary, groups, blocks = 8, 11, 4, 2
    generator, tensors = Generator().manual_seed(0), dict[str, Tensor]()

    def convolution(name: str, into: int, out: int, side: int) -> None:
        tensors[f"blocks.{name}.w"] = (
            torch.randn(out, into, side, side, generator=generator) / (into * side**2) ** 0.5
        )
        tensors[f"blocks.{name}.b"] = 0.1 * torch.randn(out, generator=generator)

    convolution("input", 3, hidden, 7)
    before = hidden
    for group in range(groups):
        width = hidden * 2**group
        for block in range(blocks):
            name = f"group_{group + 1}.block_{block + 1}"
            if before != width:
                convolution(f"{name}.id_path", before, width, 1)
            widths = (before, *[width // 4] * 3, width)
            for layer, side in enumerate((3, 3, 3, 1)):
                convolution(f"{name}.res_path.conv_{layer + 1}", widths[layer], widths[layer + 1], side)
            before = width
    convolution("output.conv", before, vocabulary, 1)
    return tensors
