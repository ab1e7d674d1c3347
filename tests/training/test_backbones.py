"""Any family of the zoo as what a method trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Generator, nn

import zoo
from zoo.errors import RecipeError
from zoo.families import family
from zoo.training import backbones
from zoo.training.backbones import backbone, blocks, check_sides, width
from zoo.training.batchnorm import GlobalBatchNorm2d
from zoo.training.engine import run
from zoo.training.methods import Step, recipe
from zoo.training.recipe import Arch, Recipe

RESNET = {
    "name": "test_resnet",
    "family": "resnet",
    "pooling": "avg",
    "size": 32,
}  # timm's own: 0.5 M parameters
ARCHS = [Arch("test_vit", size=32), Arch("test_vit", size=32, pooling="avg"), Arch(**RESNET)]  # type: ignore[arg-type]


@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: f"{arch.family}-{arch.pooling}")
def test_its_call_is_the_pooled_features(arch: Arch) -> None:
    module = backbone(arch).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        pooled = family(arch.family).features(module, pixels).pooled
        assert torch.equal(module(pixels), pooled)
        torch.testing.assert_close(backbones.pooled(module, pixels), pooled)
    assert pooled.shape == (2, width(module))


def test_batch_norms_are_global_and_keep_their_names() -> None:
    ours = backbone(ARCHS[2])
    theirs = timm.create_model("test_resnet", num_classes=0).to(memory_format=torch.channels_last)
    assert {type(layer) for layer in ours.modules() if isinstance(layer, nn.BatchNorm2d)} == {
        GlobalBatchNorm2d
    }
    theirs.load_state_dict(ours.state_dict())
    pixels = torch.randn(4, 3, 32, 32)
    assert torch.equal(ours(pixels), theirs(pixels))


def test_drop_path_is_asked_for() -> None:
    arch = Arch("test_vit", size=32, drop_path=0.5)
    rates = [
        [float(getattr(m, "drop_prob", 0.0) or 0.0) for m in net.modules()]
        for net in (backbone(arch), backbone(arch, drop_path=0.5))
    ]
    assert (max(rates[0]), max(rates[1])) == (0, 0.5)


def test_what_is_worth_compiling() -> None:
    vit, resnet = backbone(ARCHS[0]), backbone(ARCHS[2])
    assert len(blocks(vit)) == family("vit").depth(vit)
    assert blocks(resnet) == [resnet]


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        (
            {"pooling": "token"},
            "'token', and test_resnet of the family 'resnet' has no class token; give --arch.pooling avg",
        ),
        ({"family": "vit"}, "--arch.name is test_resnet and --arch.family vit; families are "),
        ({"family": "resnt"}, "no family 'resnt'; did you mean 'resnet'"),
        ({"size": 48}, "--arch.size is 48, not a multiple of the 32-pixel stride of test_resnet; give 64"),
    ],
)
def test_an_encoder_that_cannot_be_is_one_message(
    arch: dict[str, object], says: str, tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:  # fmt: skip
    turned = tiny("dino/smoke", arch={**RESNET, **arch}, method={"local_size": 32})
    with pytest.raises(zoo.ZooError, match=says):
        run(turned, photos, tmp_path / "run")


def test_a_network_without_a_class_token_cannot_pool_one() -> None:
    arch = Arch("ssl_zoo_ummae_pvt_micro", family="pvt", size=64)
    with pytest.raises(RecipeError, match=r"has no class token; give --arch\.pooling avg"):
        backbone(arch)


def test_masked_methods_name_the_families_they_train(tiny: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match=r"--arch\.family is 'resnet', and mae trains vit"):
        turned = tiny("mae/smoke", arch=RESNET)
        turned.method.build(turned)


def test_sides_are_multiples_of_the_stride() -> None:
    dino = recipe("dino/smoke")
    check_sides(dino, backbone(dino.arch), local_size=32)
    with pytest.raises(
        RecipeError, match=r"--method\.local_size is 30, not a multiple of the 16-pixel patch"
    ):
        check_sides(dino, backbone(dino.arch), local_size=30)


def test_a_resnet_trains_to_a_folder_zoo_and_timm_load(
    tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    knobs = {"lr": 0.05, "kind": "sgd", "momentum": 0.9}
    turned = tiny("dino/smoke", arch=RESNET, method={"local_size": 32}, optim=knobs)
    folder = run(turned, photos, tmp_path / "run")
    encoder = zoo.load(folder, device="cpu")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(theirs(pixels), encoder.forward_features(pixels).pooled, atol=1e-5)
    assert encoder.card.family == "resnet" and encoder.card.arguments == {}
    assert (
        encoder.module.state_dict()["bn1.running_mean"].abs().max() > 0
    )  # the teacher's own, of what it saw
    assert [result.task for result in encoder.card.results] == ["knn"]
    assert run(
        tiny("dino/smoke", arch=RESNET, method={"local_size": 32}), photos, tmp_path / "next", init=folder
    )


SWIN = {
    "name": "swin_tiny_patch4_window7_224", "family": "swin", "pooling": "avg", "size": 64, "embed_dim": 24,
    "depths": (1, 1, 1, 1), "window_size": 2,
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {"resnet": RESNET, "swin": SWIN}


@pytest.mark.parametrize("family", NETWORKS)
@pytest.mark.parametrize("name", ["simclr", "byol", "dino", "vicreg"])
def test_joint_embedding_trains_networks_without_a_class_token(
    name: str, family: str, tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    """Gradients reach every weight, and a run ends in a folder that the zoo and timm read alike."""
    local = {"local_size": 32} if name == "dino" else {}
    knobs = {"method": local, "schedule": {"steps": 2}, "data": {"size": 64}}
    turned = tiny(f"{name}/smoke", arch={**NETWORKS[family], "size": 64}, **knobs)
    method, cut = turned.method.build(turned).train(), turned.method.build(turned).views()
    for weight in (p for p in method.parameters() if p.requires_grad and p.ndim == 1):
        torch.nn.init.uniform_(weight, 0.5, 1.0)  # timm's residual branches begin at 0
    photo = torch.randint(0, 256, (4, 3, 80, 80), dtype=torch.uint8, generator=Generator().manual_seed(0))
    each = [cut(image, Generator().manual_seed(i)) for i, image in enumerate(photo)]
    views = [torch.stack(column) for column in zip(*each, strict=True)]
    method(views, Step(0, 10, 5), torch.arange(4))[0].backward()
    learnt = {n: p.grad for n, p in method.named_parameters() if p.requires_grad and p.ndim > 1}
    assert len(learnt) > 12
    assert [
        n for n, grad in learnt.items() if grad is None or not grad.isfinite().all() or not grad.any()
    ] == []
    folder = run(turned, photos, tmp_path / "run", scores=False)
    encoder = zoo.load(folder, device="cpu")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(theirs(pixels), encoder.forward_features(pixels).pooled, atol=1e-5)
