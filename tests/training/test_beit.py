"""BEiT against loops over Equation 2 of 2106.08254: what is hidden, which words are asked, and where they come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from torch import Generator, Tensor, nn
from torchvision.transforms.v2 import functional as tv

import zoo
from zoo.errors import RecipeError, Unsupported
from zoo.families import beit
from zoo.masking import draw_mask
from zoo.training import augment, run
from zoo.training.chance import chance_level
from zoo.training.methods import Step, recipe
from zoo.training.methods.beit import BEiT, BEiTConfig
from zoo.training.recipe import Recipe

NOISE = torch.tensor([5, 2**62, 7])
STEP = Step(0, 20, 10)
Tiny = Callable[..., Recipe]


@pytest.fixture
def small(tiny: Tiny) -> Callable[..., BEiT]:
    """`small(ratio=0.5)`: a BEiT at 64 px, a grid of 4×4 patches."""

    def build(**knobs: Any) -> BEiT:
        torch.manual_seed(0)
        turned = tiny("beit/smoke", method=knobs, arch={"size": 64}, data={"size": 64})
        method = turned.method.build(turned)
        assert isinstance(method, BEiT)
        return method

    return build


def pictures(seed: int = 0) -> list[Tensor]:
    """The two views of three images: 64 and 32 px, both 4×4 patches."""
    generator = Generator().manual_seed(seed)
    return [torch.randn(3, 3, 64, 64, generator=generator), torch.randn(3, 3, 32, 32, generator=generator)]


def slow_loss(method: BEiT, views: list[Tensor], ratio: float) -> float:
    """-log p(word) at each hidden patch, one image at a time, averaged over all."""
    losses = []
    for image, small_image, seed in zip(*views, NOISE.tolist(), strict=True):
        hidden = draw_mask("blockwise", (4, 4), [seed], ratio)[0].flatten().tolist()
        words = method.tokenizer.encoder.logits(small_image[None])[0].argmax(0).flatten().tolist()
        embedded = method.backbone.patch_embed(image[None])[0]
        rows = [
            method.words.mask_token[0, 0] if gone else row for gone, row in zip(hidden, embedded, strict=True)
        ]
        x = torch.stack([method.backbone.cls_token[0, 0], *rows])[None]
        for block in method.backbone.blocks:
            x = block(x, shared_rel_pos_bias=method.backbone.rel_pos_bias())
        logits = method.words.head(method.backbone.norm(x))[0, 1:]
        for patch, word in enumerate(words):
            if hidden[patch]:
                scores = logits[patch].tolist()
                losses.append(math.log(sum(math.exp(score) for score in scores)) - scores[word])
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("ratio", "count"), [(75 / 196, 6), (0.5, 8)])
@torch.no_grad()
def test_loss_equals_the_loops(ratio: float, count: int, small: Callable[..., BEiT]) -> None:
    method, views = small(ratio=ratio).eval(), pictures()
    hidden = draw_mask("blockwise", (4, 4), NOISE.tolist(), ratio)
    assert hidden.sum() == 3 * count
    loss, logs = method(views, STEP, NOISE)
    assert loss.item() == pytest.approx(slow_loss(method, views, ratio), rel=1e-5)
    asked = torch.cat([words[gone] for words, gone in zip(method.tokenizer(views[1]), hidden, strict=True)])
    assert float(logs["chance"]) == pytest.approx(float(chance_level(asked, 512)))
    commonest = max(asked.tolist().count(word) for word in set(asked.tolist()))
    assert float(logs["commonest"]) == pytest.approx(commonest / len(asked))


def test_class_token_biases_and_norms_do_not_decay(small: Callable[..., BEiT]) -> None:
    """What the authors' optimiser exempts; their tables of relative positions and mask token decay."""
    method = small()
    names = {id(p): name for name, p in method.named_parameters()}
    groups = method.param_groups(recipe("beit/smoke").optim)
    still = [p for group in groups if not group["decays"] for p in group["params"]]
    assert {names[id(p)] for p in still if p.ndim > 1} == {"backbone.cls_token"}


def test_seventy_five_of_196_are_hidden() -> None:
    full = recipe("beit/imagenet")
    assert full.method == BEiTConfig()
    hidden = draw_mask("blockwise", (14, 14), range(20), full.method.ratio)
    assert hidden.flatten(1).sum(dim=1).tolist() == [75] * 20


def test_hidden_pixels_do_not_reach_the_transformer(small: Callable[..., BEiT]) -> None:
    method, views = small().eval(), pictures()
    hidden = draw_mask("blockwise", (4, 4), NOISE.tolist())
    loss, _ = method(views, STEP, NOISE)
    holes = hidden.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    same, _ = method([torch.where(holes, 9.0, views[0]), views[1]], STEP, NOISE)
    assert torch.equal(same, loss)
    other, _ = method([torch.where(holes, views[0], 9.0), views[1]], STEP, NOISE)
    assert not torch.equal(other, loss)


def test_the_tokenizer_learns_nothing(small: Callable[..., BEiT]) -> None:
    method = small()
    method.train()
    loss, _ = method(pictures(), STEP, NOISE)
    loss.backward()
    for name, p in method.named_parameters():
        frozen = name.startswith(("tokenizer.", "words.painter."))
        assert p.requires_grad != frozen and (p.grad is None) == frozen, name
    trained = {id(p) for group in method.param_groups(recipe("beit/smoke").optim) for p in group["params"]}
    assert not trained & {id(p) for p in method.tokenizer.parameters()}


@pytest.mark.parametrize(("clip", "norm"), [(0.5, 0.5), (1e6, None)])
def test_the_whole_gradient_is_clipped(clip: float, norm: float | None, small: Callable[..., BEiT]) -> None:
    method = small(clip=clip)
    (1000 * method(pictures(), STEP, NOISE)[0]).backward()
    before = [p.grad.clone() for p in method.parameters() if p.grad is not None]
    length = torch.cat([g.flatten() for g in before]).norm()
    method.before_step(STEP)
    after = [p.grad for p in method.parameters() if p.grad is not None]
    assert length > 0.5
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, b * ((norm or length) / length))


def test_both_views_are_one_crop(small: Callable[..., BEiT]) -> None:
    """A ramp in two sizes is the same ramp: the corners of the crop agree, though the resampling differs."""
    ramp = torch.arange(96, dtype=torch.uint8) * 2
    image = torch.stack([ramp.expand(96, 96), ramp[:, None].expand(96, 96), ramp.expand(96, 96)])
    cut = small().views()
    for seed in range(6):
        large, little = cut(image, Generator().manual_seed(seed))
        assert large.shape == (3, 64, 64) and little.shape == (3, 32, 32)
        torch.testing.assert_close(tv.resize(large, [8, 8]), tv.resize(little, [8, 8]), atol=0.05, rtol=0)


def test_the_tokenizers_view_is_resized_by_lanczos() -> None:
    image = torch.randint(256, (3, 40, 56), generator=Generator().manual_seed(0)).to(torch.uint8)
    theirs = tv.to_pil_image(image).resize((16, 16), Image.Resampling.LANCZOS)
    ours = augment.resize(16, "lanczos")(image)
    assert (ours.int() - tv.pil_to_tensor(theirs).int()).abs().max() <= 2


def test_colours_change_and_the_crop_keeps_its_pixels() -> None:
    image = torch.randint(256, (3, 40, 56), generator=Generator().manual_seed(0)).to(torch.uint8)
    plain = augment.coloured_crop((0.0, 0.0, 0.0), (0.2, 0.6))
    for seed in range(8):
        part = augment.seeded(plain, image, Generator().manual_seed(seed))
        area = part.shape[1] * part.shape[2] / (40 * 56)
        assert 0.15 < area < 0.65
        windows = [
            whole.unfold(1, part.shape[1], 1).unfold(2, part.shape[2], 1) for whole in (image, image.flip(-1))
        ]
        found = [(w == part[:, None, None]).flatten(3).all(3).all(0).any() for w in windows]
        assert any(found)
    strong = augment.coloured_crop((0.4, 0.4, 0.4), (1.0, 1.0))
    assert not torch.equal(augment.seeded(strong, image, Generator().manual_seed(0)), image)


# The network is the authors'


def test_the_base_size_is_the_authors() -> None:
    """As the card of their own weights describes it, but for the norm that pre-training has before the pooling."""
    arch, card = recipe("beit/imagenet").arch, zoo.card("beit_vitb16")
    assert (arch.name, arch.family, arch.size) == (card.architecture, card.family, card.transform.size)
    assert arch.arguments() == {"img_size": 224, **card.arguments, "use_fc_norm": False, "global_pool": "avg"}
    with torch.device("meta"):
        theirs = beit.build(arch.name, arch.arguments())
    assert sum(p.numel() for p in theirs.parameters()) == card.parameters
    assert theirs.pos_embed is None and theirs.rel_pos_bias is not None


def test_it_begins_as_the_authors_do(tiny: Tiny) -> None:
    turned = tiny("beit/smoke", arch={"embed_dim": 192, "num_heads": 3, "depth": 3})
    torch.manual_seed(0)
    backbone: Any = turned.method.build(turned).encoder()
    for number, block in enumerate(backbone.blocks, 1):
        assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        for layer in (block.attn.proj, block.mlp.fc2):
            assert layer.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * number), rel=0.05)
        assert block.gamma_1.tolist() == pytest.approx([0.1] * 192)
    assert backbone.cls_token.std().item() == pytest.approx(0.02, rel=0.3)


# The run


@pytest.fixture(scope="module")
def trained(tiny: Tiny, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a tokenizer, of 12 photos: three steps of one, then three of BEiT."""
    return run(tiny("beit/smoke"), photos, tmp_path_factory.mktemp("beit") / "run")


def test_a_run_ends_in_a_folder_that_all_read(trained: Path, photos: Path) -> None:
    encoder, photo = zoo.load(trained, device="cpu"), photos / "val" / "cat" / "00.jpg"
    features = encoder(photo)
    theirs = timm.create_model(f"local-dir:{trained}", pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(encoder.transform(photo)[None]), features.pooled, atol=1e-5, rtol=1e-5
        )
    picture = encoder.reconstruct(photo, ratio=0.5)
    assert picture.mask.sum() == 2 and picture.predicted.shape == (1, 3, 32, 32)
    assert {result.task for result in encoder.card.results} == {"knn", "reconstruction"}
    with pytest.raises(Unsupported, match="no secondary masking"):
        encoder.reconstruct(photo, secondary=0.25)


@torch.no_grad()
def test_it_paints_with_its_tokenizers_decoder(trained: Path, photos: Path) -> None:
    words = zoo.load(trained / "tokenizer", device="cpu")
    encoder = zoo.load(trained, device="cpu")
    own: Any = encoder.decoder
    assert words.decoder is not None
    painter = own.painter.state_dict()
    assert all(torch.equal(painter[name], tensor) for name, tensor in words.decoder.state_dict().items())
    # By hand: mask token, words, their probabilities, painted at 16 px, enlarged to 32.
    hidden = torch.tensor([[True, False], [False, False]])
    pixels = encoder.transform(photos / "val" / "cat" / "00.jpg")[None]
    module: Any = encoder.module
    patches = beit.with_mask_token(module, pixels, hidden[None], own.mask_token).patches
    shares = (patches @ own.head.weight.T + own.head.bias).softmax(-1)
    painted = words.decoder(shares.transpose(1, 2).unflatten(2, (2, 2)))
    enlarged = nn.functional.interpolate(painted, size=(32, 32), mode="bilinear")
    shown = encoder.reconstruct(photos / "val" / "cat" / "00.jpg", hidden)
    torch.testing.assert_close(shown.predicted, encoder.transform.denormalise(enlarged).clamp(0, 1))


def test_a_tokenizer_serves_again(trained: Path, tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """The same words by the folder's name: the run is the same but for the tokenizer's, which it does not repeat."""
    given = tiny("beit/smoke", method={"tokenizer": str(trained / "tokenizer")})
    folder = run(given, photos, tmp_path / "run")
    assert not (folder / "tokenizer").exists()
    for file in ("model.safetensors", "decoder.safetensors"):
        assert (folder / file).read_bytes() == (trained / file).read_bytes()


def test_it_goes_on_from_another_beit(trained: Path, tiny: Tiny) -> None:
    """The encoder and the head; what paints belongs to the tokenizer that was given."""
    given = tiny("beit/smoke", method={"tokenizer": str(trained / "tokenizer")})
    method = given.method.build(given)
    encoder, decoder = (
        part.state_dict() for part in (method.encoder(), method.decoder()) if part is not None
    )
    moved = {name: tensor + 1 for name, tensor in decoder.items()}
    painter = {n: t.clone() for n, t in decoder.items() if n.startswith("painter.")}
    method.start_from(encoder, moved)
    after = method.decoder()
    assert after is not None
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, painter.get(name, moved[name])), name


def test_dalles_words_have_no_decoder(
    tiny: Tiny, photos: Path, dalle: dict[str, Tensor], tmp_path: Path
) -> None:
    """The folder has none then, and says so."""
    torch.save(dalle, tmp_path / "encoder.pth")
    folder = run(
        tiny("beit/smoke", method={"tokenizer": str(tmp_path / "encoder.pth")}), photos, tmp_path / "run"
    )
    encoder = zoo.load(folder, device="cpu")
    assert encoder.card.decoder is None and not (folder / "decoder.safetensors").exists()
    with pytest.raises(Unsupported, match="has no decoder"):
        encoder.reconstruct(photos / "val" / "cat" / "00.jpg")


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        (
            {"tokenizer_recipe": "mae/smoke"},
            "--method.tokenizer_recipe is mae/smoke, which trains no tokenizer",
        ),
        (
            {"tokenizer": "dino_vitt16_imagenette"},
            "--method.tokenizer is dino_vitt16_imagenette, a VisionTransf",
        ),
        ({"ratio": 1.0}, "--method.ratio is 1.0"),
        (
            {"ratio": 0.02},
            "a ratio of 0.02 hides none of 4×4 patches; raise it. --data.size is 64, --method.ratio",
        ),
        ({"ratio": 0.99}, "no visible patch.*--data.size is 64"),
        ({"clip": 0.0}, "--method.clip is 0.0"),
    ],
)
def test_impossible_knobs_are_named(knobs: dict[str, Any], says: str, small: Callable[..., BEiT]) -> None:
    with pytest.raises(RecipeError, match=says):
        small(**knobs)
