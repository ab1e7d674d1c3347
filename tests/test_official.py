"""Every official card, a NAME.md without weights beside it: it builds, and what it says can be true."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import zoo
from zoo import card_hub, families, layouts
from zoo.card_specs import Source
from zoo.cards import ModelCard, parse_card, read_card, render_card
from zoo.loading import build_decoder
from zoo.registry import MODEL_CARDS, find

PHOTO = MODEL_CARDS / "photos" / "coffee.jpg"
FILES = sorted(MODEL_CARDS.glob("*.md"))
CARDS = [read_card(file) for file in FILES]
# Hugging Face's identifiers for what forbids commercial use, is a licence of its own, or is not said.
OTHER_LICENCES = {"cc-by-nc-4.0", "cc-by-nc-sa-4.0", "other", "unknown"}
KINDS = {
    "masked image modelling": {"generative"},
    "contrastive": {"discriminative"},
    "distillation": {"discriminative"},
    "clustering": {"discriminative"},
    "redundancy reduction": {"discriminative"},
    "pretext": {"discriminative", "generative"},
    "supervised": {"supervised"},
}

each_card = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)


def test_the_papers_models_are_there() -> None:
    names = {card.name for card in CARDS}
    methods = {card.method for card in CARDS}
    assert {
        "dino",
        "mae",
        "beit",
        "simmim",
        "ummae",
        "simclr",
        "byol",
        "moco_v1",
        "moco_v2",
        "moco_v3",
        "swav",
    } <= methods
    assert {
        "deepclusterv2",
        "selav2",
        "barlowtwins",
        "vicreg",
        "simsiam",
        "instdisc",
        "pirl",
        "obow",
        "infomin",
    } <= methods
    assert {"ibot", "msn", "ijepa", "data2vec", "dinov2", "dinov3", "supervised", "cpcv2"} <= methods
    assert {
        "dino_vits16",
        "mae_vith14_visualize",
        "simclr_resnet50x4",
        "byol_resnet200x2",
        "swav_vits16",
    } <= names


@functools.cache
def _encoder(family: str, architecture: str, arguments: str) -> nn.Module:
    """What many cards share is built once, without storage."""
    with torch.device("meta"):
        return families.family(family).build(architecture, json.loads(arguments))


@each_card
def test_it_builds_with_its_stated_parameter_count(card: ModelCard) -> None:
    module = _encoder(card.family, card.architecture, json.dumps(card.model_arguments))
    assert sum(parameter.numel() for parameter in module.parameters()) == card.parameters
    assert card.transform.size % families.family(card.family).stride(module) == 0
    if card.decoder is not None:
        with torch.device("meta"):
            decoder = build_decoder(card.decoder, module)
        assert sum(parameter.numel() for parameter in decoder.parameters()) > 3 * card.decoder.patch**2
        assert card.transform.size % card.decoder.mask_patch == 0


SMALL = {
    (card.architecture, str(card.arguments), card.decoder): card for card in CARDS if card.parameters < 30e6
}


@pytest.mark.parametrize("card", SMALL.values(), ids=lambda card: card.name)
def test_it_encodes_and_reconstructs_a_photo_untrained(card: ModelCard) -> None:
    encoder = zoo.load(card.name, weights="random", device="cpu")
    features = encoder(PHOTO)
    assert features.pooled.shape == (1, encoder.dim) and features.pooled.isfinite().all()
    assert (features.cls is not None) or card.pooling == "avg"
    if card.decoder is not None:
        made = encoder.reconstruct(PHOTO)
        assert made.predicted.shape == (1, 3, card.transform.size, card.transform.size)
        assert abs(float(made.mask.float().mean()) - card.decoder.ratio) < 0.02


@each_card
def test_its_sources_fit_its_architecture(card: ModelCard) -> None:
    """A layout that knows of another architecture with tensors of the same shapes has nothing to say of this one."""
    module = _encoder(card.family, card.architecture, json.dumps(card.model_arguments))
    for source in card.sources:
        check = layouts.named(source.layout or "").check
        assert check is None or check(module) == ""


@each_card
def test_it_says_what_it_is(card: ModelCard) -> None:
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", card.name)
    assert card.name.startswith(f"{card.method}_")
    assert card.approach is not None and card.kind in KINDS[card.approach]
    assert card.family in families.names()
    assert card.paper.startswith("https://")
    assert ("timm" in card.tags) != card.architecture.startswith("ssl_zoo_")
    assert card.datasets and set(card.datasets) <= card_hub.DATA_TERMS.keys()
    assert card.tags[0] == ("supervised" if card.kind == "supervised" else "self-supervised")
    assert card.body.startswith("# ") and f'zoo.load("{card.name}"' in card.body
    for code in re.findall(r"```python\n(.*?)```", card.body, re.DOTALL):
        compile(code, card.name, "exec")
    sentences = re.findall(r"[.:!?](?=\s)", card.body.partition("```")[0])
    assert 2 <= len(sentences) <= 16


@each_card
def test_its_licence_is_known(card: ModelCard) -> None:
    assert card.licence in card_hub.COMMERCIAL | OTHER_LICENCES
    if card.licence == "other":
        assert {"license_name", "license_link"} <= card.hub.keys()
    assert card.commercial_use is None  # the licence alone decides


@each_card
def test_its_transform_is_sane(card: ModelCard) -> None:
    spec = card.transform
    assert len(spec.mean) == len(spec.std) == 3
    assert all(0 <= mean <= 0.6 for mean in spec.mean) and all(0.2 < std <= 1 for std in spec.std)
    assert 0.85 <= spec.crop_pct <= 1 and 192 <= spec.size <= 518


@each_card
def test_its_weights_can_be_had_or_it_says_why_not(card: ModelCard) -> None:
    assert card.sources or "weights=" in card.unavailable
    assert len({(source.repo, source.file, source.url) for source in card.sources}) == len(card.sources)
    for source in card.sources:
        assert source.layout is not None and layouts.named(source.layout).name == source.layout
        assert (source.repo is None) != (source.url is None)
        assert _link(source).startswith("https://"), source
        assert not re.search(r"drive\.google|dropbox", _link(source)), "no file can be fetched there"


def _link(source: Source) -> str:
    return source.url or f"https://huggingface.co/{source.repo}/{source.file}"


@each_card
def test_every_number_says_whose_it_is(card: ModelCard) -> None:
    for result in card.results:
        assert result.source.startswith("https://") and not result.command, result
        assert 40 <= result.value < 100 and result.unit == "%"
    told = Counter((each.task, each.dataset, each.source, str(each.settings)) for each in card.results)
    assert not [row for row, times in told.items() if times > 1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_fact_is_there_twice(file: Path) -> None:
    """A card spells out no default, no rendering of its own results, and nothing that a rendering would change."""
    text = file.read_text(encoding="utf-8")
    card = parse_card(text, file.stem)
    written, rendered = (yaml.safe_load(each.split("---\n")[1]) for each in (text, render_card(card)))
    assert written["zoo"] == rendered["zoo"]
    assert "model-index" not in written
    assert all(written.get(key) != default for key, default in card_hub.DEFAULTS.items())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("facebook/dino-vits16", "dino_vits16"),
        ("vit_small_patch16_224.dino", "dino_vits16"),
        ("timm/vit_small_patch16_224.dino", "dino_vits16"),
        ("dino_deitsmall16", "dino_vits16"),
        ("facebook/vit-mae-base", "mae_vitb16_visualize"),
        ("timm/vit_base_patch16_224.mae", "mae_vitb16"),
        ("facebook/dinov2-small", "dinov2_vits14"),
        ("microsoft/beit-base-patch16-224-pt22k", "beit_vitb16"),
        ("microsoft/beit-base-patch16-224-pt22k-ft22k", "beit_vitb16_ft22k"),
        ("lightly-ai/simclrv1-imagenet1k-resnet50-1x", "simclr_resnet50"),
    ],
)
def test_what_people_type_is_found(typed: str, meant: str) -> None:
    assert find(typed).stem == meant


def test_no_name_means_two_models() -> None:
    known = [name for path in MODEL_CARDS.iterdir() for name in _names(path)]
    assert not [name for name, times in Counter(known).items() if times > 1]


def _names(path: Path) -> list[str]:
    if path.suffix != ".md" and not (path / "README.md").is_file():
        return []
    card = read_card(path)
    return [card.name, *card.aliases]
