"""BEiT's relative positions, on and off the native grid, against timm's module set to that size and scipy's splines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import RectBivariateSpline
from timm.models.beit import Beit
from torch import Tensor

from zoo.cards import DecoderSpec, ModelCard
from zoo.errors import CardError, SizeError, Unsupported
from zoo.families import beit, family
from zoo.loading import build
from zoo.published import read_published
from zoo.weights import load_into

Draw = Callable[..., None]
SMALL = {"img_size": 64, "depth": 3, "embed_dim": 48, "num_heads": 3}
SHARED = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
KINDS: dict[str, dict[str, Any]] = {
    "shared": {**SHARED, "global_pool": "token"},
    "shared, mean of patches": {**SHARED, "global_pool": "avg"},
    "shared, normed patches": {**SHARED, "global_pool": "avg", "use_fc_norm": False},
    "each its own": {"global_pool": "avg"},
    "both, absolute too": {"use_shared_rel_pos_bias": True, "use_abs_pos_emb": True, "global_pool": "token"},
}
SIZES = [(64, 64), (48, 96)]

# timm's interpolation indexes by a list, which torch announces to end.
pytestmark = pytest.mark.filterwarnings("ignore:.*(non-tuple sequence|non-contiguous):UserWarning")


def pixels(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def small(kind: str, randomise: Draw, interpolation: str = "timm") -> Beit:
    module = beit.build("beit_base_patch16_224", {**SMALL, **KINDS[kind]}, interpolation).eval()
    randomise(module)
    for block in module.blocks:
        block.attn.k_bias.zero_()  # never learned
    return module


def resized_by_timm(module: Beit, size: tuple[int, int]) -> Beit:
    twin = copy.deepcopy(module)
    twin.set_input_size(size)
    return twin


def unfused_attention(module: Beit, x: Tensor) -> list[Tensor]:
    """What each block's softmax hands to its dropout: (B, heads, L, L)."""
    seen: list[Tensor] = []
    for block in module.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module.forward_features(x)
    return seen


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_size_equals_timm_set_to_it(kind: str, size: tuple[int, int], randomise: Draw) -> None:
    module, x = small(kind, randomise), pixels(*size)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    twin = resized_by_timm(module, size)
    tokens, found = twin.forward_features(x), beit.features(module, x)
    assert found.cls is not None and found.grid == (size[0] // 16, size[1] // 16)
    torch.testing.assert_close(
        torch.cat([found.cls[:, None], found.patches], 1), tokens, atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(found.pooled, twin(x), atol=1e-5, rtol=1e-5)
    after = twin.forward_intermediates(x, norm=True, output_fmt="NLC", intermediates_only=True)
    for layer, each in zip([2, 0], beit.intermediates(module, x, [2, 0]), strict=True):
        torch.testing.assert_close(each.patches, after[layer], atol=1e-5, rtol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())

    everywhere = unfused_attention(twin, x)
    assert everywhere[0].std() > 0.02  # far from uniform, or this would show little
    for block, expected in enumerate(everywhere):
        cls = beit.attention_rows(module, x, block, None).flatten(2)
        torch.testing.assert_close(cls, expected[:, :, 0, 1:], atol=1e-5, rtol=0)
        patch = beit.attention_rows(module, x, block, (2, 1)).flatten(2)
        torch.testing.assert_close(patch, expected[:, :, 1 + 2 * found.grid[1] + 1, 1:], atol=1e-5, rtol=0)


def progression(count: int, reach: int) -> np.ndarray[Any, Any]:
    """Distances 0, 1, 1 + q, 1 + q + q², …, with q so that the last is `reach`, and their negatives."""
    q = 1.01
    while sum(q**i for i in range(count)) < reach:
        q += 1e-5
    sums = [sum(q**i for i in range(n)) for n in range(1, count + 1)]
    return np.array([-d for d in reversed(sums)] + [0.0] + sums)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["shared", "each its own"])
def test_the_authors_rule_is_a_spline_over_stretched_distances(kind: str, randomise: Draw) -> None:
    """Twin: scipy's spline through the table, whose distances 0, 1, 1 + q, … end where the new ones do."""
    module, size, x = small(kind, randomise, "beit"), (80, 48), pixels(80, 48)
    twin = resized_by_timm(module, size)
    wanted = np.arange(-4.0, 5.0), np.arange(-2.0, 3.0)
    stretched = progression(3, 4), progression(3, 2)
    for name, table in module.named_parameters():
        if name.endswith("relative_position_bias_table"):
            columns = []
            for head in range(3):
                spline = RectBivariateSpline(*stretched, table[:-3, head].reshape(7, 7).double().numpy(), s=0)
                asked = [np.clip(w, s[0], s[-1]) for w, s in zip(wanted, stretched, strict=True)]
                columns.append(torch.from_numpy(spline(*asked)).float().flatten())
            new = torch.cat([torch.stack(columns, dim=1), table[-3:]])
            twin.get_parameter(name).copy_(new)
    expected = twin(x)
    torch.testing.assert_close(beit.features(module, x).pooled, expected, atol=2e-4, rtol=0)
    others = beit.features(small(kind, randomise), x).pooled
    assert (others - expected).abs().max() > 2e-3  # timm's own rule


@torch.no_grad()
@pytest.mark.parametrize("kind", ["shared", "each its own"])
def test_a_file_of_another_size_is_resized_as_at_run_time(
    kind: str, tmp_path: Path, randomise: Draw, card_of: Callable[..., ModelCard]
) -> None:
    module, x = small(kind, randomise, "beit"), pixels(96, 96)
    torch.save({"model": module.state_dict()}, tmp_path / "beit.pth")
    said = {**SMALL, **KINDS[kind], "img_size": 96}
    pooling = said.pop("global_pool")
    card = card_of("beit", "beit_base_patch16_224", arguments=said, pooling=pooling, interpolation="beit")
    published = read_published(tmp_path / "beit.pth", card)
    assert "resized: " in published.report and "(52, 3) → (124, 3)" in published.report
    larger, _ = build(card)
    load_into(larger.eval(), published.encoder, where="file")
    expected = beit.features(module, x).pooled
    torch.testing.assert_close(family("beit").features(larger, x).pooled, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_encode_takes_what_embed_gives(randomise: Draw) -> None:
    module, x = small("shared", randomise), pixels(64, 64)
    embedded = beit.embed(module, x)
    assert torch.equal(beit.encode(module, embedded, (4, 4)), module.forward_features(x))
    holes = embedded.clone()
    holes[:, 3] = 0
    assert not torch.allclose(beit.encode(module, holes, (4, 4)), module.forward_features(x), atol=1e-3)


def test_building_and_sizes() -> None:
    with torch.device("meta"):
        module = beit.build("beit_large_patch16_224", {"depth": 5})
        assert (beit.stride(module), beit.depth(module)) == (16, 5)
        with pytest.raises(SizeError, match="nearest size that is: 64×96"):
            beit.features(module, torch.empty(1, 3, 64, 100))
        with pytest.raises(SizeError, match="outside the grid of 4×6"):
            beit.attention_rows(module, torch.empty(1, 3, 64, 96), 0, (0, 6))
        with pytest.raises(Unsupported, match="VisionTransformer, not a BEiT; choose another family"):
            beit.build("vit_tiny_patch16_224", {})


def test_simmims_decoder_asks_for_the_final_norm(card_of: Callable[..., ModelCard]) -> None:
    """Its authors' network has it (USE_MEAN_POOLING: False), and the mean of patches drops it by default."""
    spec = DecoderSpec(
        kind="simmim", patch=16, mask_patch=32, normalised_targets=False, ratio=0.6, strategy="random"
    )
    arguments = {**SMALL, **SHARED}
    said: dict[str, Any] = {"pooling": "avg", "kind": "generative", "decoder": spec}
    with torch.device("meta"):
        with pytest.raises(CardError, match=r"final norm.*write arguments: {use_fc_norm: false}"):
            build(card_of("beit", "beit_base_patch16_224", arguments=arguments, **said))
        with pytest.raises(CardError, match=r"final norm.*write arguments: {fc_norm: false}"):
            build(card_of(**said))
        kept = {**arguments, "use_fc_norm": False}
        module, decoder = build(card_of("beit", "beit_base_patch16_224", arguments=kept, **said))
    assert decoder is not None and isinstance(module.norm, torch.nn.LayerNorm)
