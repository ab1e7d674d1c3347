"""Model cards: what is written is read back, and every mistake on a card is told with its key and its cure."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from zoo.cards import (
    DecoderSpec,
    ModelCard,
    Result,
    Source,
    TrainingFacts,
    TransformSpec,
    parse_card,
    read_card,
    render_card,
    write_card,
)
from zoo.errors import CardError

ZOO = """\
  method: dino
  kind: discriminative
  family: vit
  architecture: vit_tiny_patch16_224
  parameters: 5524416
  pooling: token
  transform:
    size: 128
"""
MINIMAL = f"---\nlicense: mit\nzoo:\n{ZOO}---\n# A model\n"

DECODER = DecoderSpec(
    kind="mae", width=96, depth=2, heads=3, patch=16, mask_patch=16, normalised_targets=False, ratio=0.75
)
TRAINING = TrainingFacts(
    recipe="mae/imagenette", command="zoo train mae/imagenette DATA --out runs/mae", data="Imagenette train",
    images=9469, epochs=100, steps=3600, seed=0, hardware="2 CPU cores", minutes=110.5, versions={"torch": "2.11"},
)  # fmt: skip
KNN = Result(
    task="knn", value=55.1, unit="%", dataset="Imagenette", split="validation", metric="accuracy",
    settings={"k": 20, "T": 0.07}, command="zoo evaluate x DATA", source="https://example.org/paper",
)  # fmt: skip


def with_line(line: str, at: str = "zoo") -> str:
    """The minimal card with one more line: in the `zoo` block, in its transform, or at the top."""
    indent, place = {"zoo": ("  ", "zoo:\n"), "transform": ("    ", "transform:\n"), "top": ("", "---\n")}[at]
    return MINIMAL.replace(place, f"{place}{indent}{line}\n", 1)


def instead(old: str, new: str) -> str:
    assert old in MINIMAL
    return MINIMAL.replace(old, new)


def full_card(**changes: Any) -> ModelCard:
    return dataclasses.replace(parse_card(MINIMAL, "x"), **changes)


# Round trips

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(1, 10**9)
shares = st.floats(0, 0.99)
numbers = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
settings = st.dictionaries(text, plain, max_size=3)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.sampled_from(["model.safetensors", "decoder.safetensors", "onnx/model.onnx"])


@st.composite
def transforms(draw: st.DrawFn) -> TransformSpec:
    channels = draw(st.integers(1, 4))
    sides = [tuple(draw(st.lists(st.floats(0.01, 9), min_size=channels, max_size=channels))) for _ in "ms"]
    kind = draw(st.sampled_from(["bicubic", "bilinear", "lanczos"]))
    return TransformSpec(draw(counts), draw(st.floats(0.1, 1)), kind, *sides)


decoders = st.builds(
    DecoderSpec, kind=st.just("mae"), width=counts, depth=counts, heads=counts, patch=counts, mask_patch=counts,
    normalised_targets=st.booleans(), ratio=shares, secondary=st.none() | shares,
    strategy=st.sampled_from(["random", "grid", "uniform", "blockwise"]),
)  # fmt: skip
sources = st.builds(
    Source, repo=text.filter(bool), revision=st.none() | text, file=names, url=st.none() | text,
    layout=st.none() | text, sha256=st.none() | digests, md5_prefix=st.none() | digests,
)  # fmt: skip
results = st.builds(
    Result, task=text, value=numbers, dataset=text, metric=text, settings=settings, source=text
)
trainings = st.builds(
    TrainingFacts, recipe=text, command=text, data=text, images=counts, epochs=counts, steps=counts, seed=st.integers(),
    hardware=text, minutes=numbers, date=st.none() | text | st.dates().map(str), versions=st.dictionaries(text, text),
)  # fmt: skip
cards = st.builds(
    ModelCard, name=text, licence=text, method=text, family=st.sampled_from(["vit", "pvt"]), parameters=counts,
    kind=st.sampled_from(["discriminative", "generative", "supervised"]), pooling=st.sampled_from(["token", "avg"]),
    architecture=st.just("vit_tiny_patch16_224"), transform=transforms(), arguments=settings,
    decoder=st.none() | decoders, aliases=st.lists(text).map(tuple), commercial_use=st.none() | st.booleans(),
    results=st.lists(results, max_size=2).map(tuple), training=st.none() | trainings,
    sources=st.lists(sources, max_size=2).map(tuple), sha256=st.dictionaries(names, digests),
    tags=st.lists(text).map(tuple), datasets=st.lists(text).map(tuple),
    hub=st.dictionaries(st.sampled_from(["language", "base_model", "license_name", "widget"]), plain), body=text,
)  # fmt: skip


@given(cards)
@example(
    full_card(
        decoder=DECODER, training=TRAINING, results=(KNN,), arguments={"note": "1e-6", "t": "2026-01-31"}
    )
)
def test_a_rendered_card_reads_back_the_same(card: ModelCard) -> None:
    assert parse_card(render_card(card), card.name) == card


def test_a_written_card_reads_back_the_same(tmp_path: Path) -> None:
    card = full_card(name="m", decoder=DECODER, training=TRAINING, results=(KNN,), body="# Größe\n\n---\nend")
    path = write_card(card, tmp_path / "m")
    assert path == tmp_path / "m" / "README.md"
    read = read_card(tmp_path / "m")
    assert read == card and read == read_card(path)
    assert read.path == path
    other = read_card(write_card(card, tmp_path / "n.md", body="# Other"))
    assert (other.name, other.title) == ("n", "Other")


def test_a_card_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    for broken in (full_card(commercial_use=3), full_card(arguments={"norm": object()})):
        with pytest.raises(CardError):
            write_card(broken, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    card = full_card(results=(dataclasses.replace(KNN, value=np.float64(0.5)),))
    assert parse_card(render_card(card), "x").results[0].value == 0.5


@pytest.mark.parametrize("change", ["crlf", "bom", "no end of line"])
def test_how_an_editor_saves_a_card_does_not_matter(tmp_path: Path, change: str) -> None:
    data = MINIMAL.encode()
    data = {"crlf": data.replace(b"\n", b"\r\n"), "bom": b"\xef\xbb\xbf" + data, "no end of line": data[:-1]}[
        change
    ]
    (tmp_path / "m.md").write_bytes(data)
    assert read_card(tmp_path / "m.md") == parse_card(MINIMAL, "m")


def test_the_name_is_the_folders_even_through_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(full_card(), tmp_path / "blobs")
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "README.md").symlink_to(tmp_path / "blobs" / "README.md")
    assert read_card(tmp_path / "named").name == "named"
    monkeypatch.chdir(tmp_path / "named")
    assert read_card(".").name == read_card("README.md").name == "named"


# What the Hub sees


def test_the_hub_reads_the_same_results() -> None:
    others = [
        dataclasses.replace(KNN, task=task, source="", split="")
        for task in ("knn, untrained", "reconstruction")
    ]
    card = full_card(name="m", results=(KNN, *others))
    data = huggingface_hub.ModelCard(render_card(card)).data
    assert (data.license, data.library_name, data.model_name) == ("mit", "timm", "m")
    knn, untrained, reconstruction = data.eval_results
    assert (knn.task_type, knn.metric_value, knn.metric_args) == (
        "image-classification",
        55.1,
        {"k": 20, "T": 0.07},
    )
    assert (knn.dataset_name, knn.dataset_type, knn.dataset_split) == (
        "Imagenette",
        "imagenette",
        "validation",
    )
    assert knn.source_url == KNN.source
    assert (untrained.task_type, untrained.metric_name) == ("image-classification", "knn, untrained accuracy")
    assert (reconstruction.task_type, reconstruction.source_url) == ("image-feature-extraction", None)


def test_front_matter_of_the_hub_is_kept() -> None:
    text = with_line(
        "language: [en, fr]\nbase_model: a/b\nlibrary_name: ssl-zoo\ntags: one\nwidget: [{src: x}]", "top"
    )
    card = parse_card(text, "x")
    assert card.tags == ("one",)
    front = yaml.safe_load(render_card(card).split("---")[1])
    kept = {
        "language": ["en", "fr"],
        "base_model": "a/b",
        "library_name": "ssl-zoo",
        "widget": [{"src": "x"}],
    }
    assert kept.items() <= front.items()


def test_a_foreign_index_of_results_is_kept_until_the_zoo_has_its_own() -> None:
    card = parse_card(with_line("model-index: [{name: theirs, results: []}]", "top"), "x")
    assert "theirs" in render_card(card)
    assert "theirs" not in render_card(dataclasses.replace(card, results=(KNN,)))


# Mistakes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (with_line("famly: vit"), "zoo.famly: unknown key; did you mean 'family'?"),
        (with_line("sise: 3", "transform"), "zoo.transform.sise: unknown key; did you mean 'size'?"),
        (with_line("licence: mit", "top"), "licence: unknown key; did you mean 'license'?"),
        (with_line("results: [{task: knn}]"), "missing: zoo.results[0].value, zoo.results[0].dataset"),
        (with_line("results: [{vallue: 1}]"), "zoo.results[0].vallue: unknown key; did you mean 'value'?"),
        (instead("kind: discriminative", "kind: discriminativ"), "'supervised'; did you mean 'discriminative'?"),
        (instead("5524416", "true"), "zoo.parameters: found true, expected a whole number"),
        (instead("5524416", "5,524,416"), "found the text '5,524,416', expected a whole number; write 5524416"),
        (instead("5524416", "5524416.0"), "found 5524416.0, expected a whole number; write 5524416"),
        (instead("5524416", "5.5"), "found 5.5, expected a whole number"),
        (instead("method: dino", "method: 1.10"), "zoo.method: found 1.1, expected text; put it in quotes"),
        (instead("method: dino", "method: no"), "zoo.method: found false, expected text; put it in quotes"),
        (instead("method: dino", "method:"), "zoo.method: found nothing, expected text"),
        (with_line("crop_pct: 9e-1", "transform"), "9e-1, which YAML takes for text, expected a number; write 9.0e-1"),
        (with_line("crop_pct: 1.0e0", "transform"), "which YAML takes for text, expected a number; write 1.0e+0"),
        (with_line("crop_pct: '0.9'", "transform"), "the text '0.9', expected a number; write 0.9 without quotes"),
        (with_line("crop_pct: .inf", "transform"), "found inf, expected a number"),
        (with_line("crop_pct: true", "transform"), "zoo.transform.crop_pct: found true, expected a number"),
        (with_line("crop_pct: 87.5", "transform"), "zoo.transform: crop_pct 87.5 is not in (0, 1]; write 1.0"),
        (with_line("mean: [0.5]", "transform"), "one number per channel"),
        (with_line("std: 0.5", "transform"), "zoo.transform.std: found 0.5, expected a list; write [0.5]"),
        (with_line("arguments: {eps: 1e-6}"), "zoo.arguments.eps: found 1e-6, which YAML takes for text; write 1.0e-6"),
        (with_line("arguments: {on: 1}"), "found the key true, expected text; put it in quotes"),
        (with_line("arguments: [1]"), "zoo.arguments: found a list, expected a mapping"),
        (with_line("arguments: {a: {b: .nan}}"), "zoo.arguments.a.b: found nan, expected a number"),
        (with_line("commercial: 1"), "zoo.commercial: found 1, expected true or false"),
        (with_line("sha256: {model.safetensors: 1234}"), "zoo.sha256.model.safetensors: found 1234, expected text"),
        (with_line("sha256: {model.safetensors: abc}"), "sha256 'abc' is not 64 of 0-9 and a-f"),
        (with_line(f"sha256: {{../../x: {'a' * 64}}}"), "file '../../x' is not a path inside its folder"),
        (with_line("sources: [{file: x}]"), "zoo.sources[0]: neither repo nor url"),
        (with_line("sources: [{url: x, file: /etc/passwd}]"), "'/etc/passwd' is not a path inside"),
        (with_line("decoder: mae"), "zoo.decoder: found the text 'mae', expected a mapping of kind, patch"),
        (with_line("method: mae"), "line 5: 'method' is given twice"),
        (instead("zoo:\n" + ZOO, ""), "no `zoo:` block"),
        (instead("  size: 128", "  size: [128"), "line 12: "),
        ("# A model\n", "no front matter; a card begins like\n---\nlicense: apache-2.0\n"),
        ("---\nlicense: mit\n", "no front matter"),
        ("---\n- a\n---\n", "not lines of `key: value`"),
        ("---\n---\n", "not lines of `key: value`"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_key_and_its_cure(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(CardError) as error:
        read_card(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'README.md'}: ")
    assert says in str(error.value)


def test_all_mistakes_are_told_at_once() -> None:
    text = "---\nlicense: mit\nzoo:\n  method: 1\n  kindd: x\n  transform: {size: big}\n---\n"
    with pytest.raises(CardError) as error:
        parse_card(text, "x")
    lines = str(error.value).splitlines()
    assert lines[0] == "4 problems"
    assert "missing: zoo.kind, zoo.family, zoo.architecture, zoo.parameters, zoo.pooling" in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (instead("family: vit", "family: os.path"), "family 'os.path' is not the stem of a file"),
        (instead("family: vit", "family: ../evil"), "family '../evil'"),
        (instead("vit_tiny_patch16_224", "hf-hub:evil/model"), "architecture 'hf-hub:evil/model'"),
        (instead("vit_tiny_patch16_224", "local-dir:/tmp/x"), "architecture 'local-dir:/tmp/x'"),
        (with_line("arguments: {checkpoint_path: x.pth}"), "arguments may not hold checkpoint_path"),
        (with_line("arguments: {pretrained_cfg: {url: x}}"), "arguments may not hold pretrained_cfg"),
        (with_line("arguments: {global_pool: avg}"), "arguments may not hold global_pool; pooling says"),
        (with_line("arguments: &a {b: *a}"), "the anchor or alias 'a'; write the value out"),
        (with_line("arguments: !!python/object:os.system {}"), "the tag"),
        (with_line(f"arguments: {'[' * 50_000}"), "nested too deeply"),
        (with_line(f"arguments: {'[' * 50_000}{']' * 50_000}"), "nested too deeply"),
        (with_line(f"method: {'x' * 300_000}"), "characters of front matter"),
        (instead("5524416", "9" * 5000), "no YAML"),
    ],
)
def test_a_strangers_card_can_do_no_harm(text: str, says: str) -> None:
    with pytest.raises(CardError) as error:
        parse_card(text, "x")
    assert says in str(error.value)


@given(st.text(st.sampled_from("-: \n\t{}[]'\"&*!|>%@#,?x1.e+~=<_0b") | st.characters(), max_size=60))
@example("= : =")
@example("a: 0b_")
@example("? [a]\n: b")
@example("? {}\n: b")
@example("<<: 1")
def test_any_front_matter_is_a_card_or_a_card_error(front: str) -> None:
    for text in (f"---\n{front}\n---\n", with_line(f"arguments: {front}")):
        try:
            card = parse_card(text, "x")
        except CardError:
            continue
        assert parse_card(render_card(card), "x") == card


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"README\.md does not exist"):
        read_card(tmp_path)
    (tmp_path / "m.md").write_bytes(MINIMAL.encode() + b"\xff")
    with pytest.raises(CardError, match=r"byte \d+ is not UTF-8"):
        read_card(tmp_path / "m.md")


# What a card says


@pytest.mark.parametrize(
    ("licence", "line", "commercial"),
    [
        ("apache-2.0", "", True), ("MIT", "", True), ("cc-by-4.0", "", True), ("cc-by-nc-4.0", "", False),
        ("cc-by-nc-sa-4.0", "", False), ("other", "", False), ("dinov3-license", "", False),
        ("other", "commercial: true", True), ("mit", "commercial: false", False),
    ],
)  # fmt: skip
def test_commercial_use_follows_the_licence_unless_the_card_says_more(
    licence: str, line: str, commercial: bool
) -> None:
    card = parse_card(with_line(line).replace("license: mit", f"license: {licence}"), "x")
    assert card.commercial is commercial


def test_title_and_arguments() -> None:
    assert full_card().title == "A model"
    assert full_card(body="no heading").title == "x"
    card = full_card(pooling="avg", arguments={"img_size": 128})
    assert card.model_arguments == {"img_size": 128, "global_pool": "avg"}


def test_values_are_checked_where_cards_are_made_too() -> None:
    for change in ({"ratio": 1.0}, {"secondary": -0.1}, {"width": 0}):
        with pytest.raises(CardError):
            dataclasses.replace(DECODER, **change)
    assert not math.isnan(dataclasses.replace(DECODER, secondary=0.25).ratio)


def test_cards_are_read_without_torch() -> None:
    code = "import sys, zoo.cards, zoo.registry; zoo.registry.list_models(); print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ("# A model #", "A model"),
        ("## Not this\n# Two # words ##", "Two # words"),
        ("# ##", "x"),
        ("Text", "x"),
    ],
)
def test_the_title_is_the_first_heading(body: str, title: str) -> None:
    assert dataclasses.replace(parse_card(MINIMAL, "x"), body=body).title == title


@pytest.mark.timeout(10)
@pytest.mark.parametrize("line", ["# a" + "# " * 200_000 + "x", "#" + " " * 400_000])
def test_a_strangers_long_heading_costs_no_time(line: str) -> None:
    assert dataclasses.replace(parse_card(MINIMAL, "x"), body=line).title
