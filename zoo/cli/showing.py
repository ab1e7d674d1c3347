"""A card told to people: the licence first, then the numbers, how to load it, what it is, and the card's own notes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from zoo import card_hub, registry
from zoo.cards import DecoderSpec, ModelCard, Result, TransformSpec
from zoo.cli.listing import weights
from zoo.tables import pairs
from zoo.words import counted, lasted

_PERMISSIONS = {
    "yes": "commercial use allowed",
    "no": "no commercial use",
    "unclear": "commercial use not known to be allowed",
}
_TASKS = {"knn": "k-NN", "finetune": "fine-tuned", "image-classification": "accuracy"}
_LISTS = ("weights", "also called")  # one a line
_KEPT = re.compile(r"[#>| ]|[-*+] |\d+\. ")  # lines of Markdown that are no prose to be filled


def show(card: ModelCard, width: int, exported: Sequence[str] = ()) -> str:
    """All of a card, filled to `width` characters. exported: a line for each graph beside it."""
    facts = [(label, value) for label, value in summary(card, exported) if value]
    room = max(40, width - 2 - max(len(label) for label, _ in facts))
    filled = pairs([(label, value if label in _LISTS else _lines(value, room)) for label, value in facts])
    notes = "\n".join(_paragraphs(re.sub(r"\A# .*\n", "", card.body).strip(), width)).rstrip()
    head = card.name if card.title == card.name else f"{card.name}: {card.title}"
    return "\n\n".join(part for part in (head, filled, notes) if part)


def summary(card: ModelCard, exported: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Rows of (label, value); a value may have several lines, or none."""
    training = card.training
    arguments = ", ".join(f"{key}={value}" for key, value in card.arguments.items())
    network = f"{card.architecture}({arguments})" if arguments else card.architecture
    rows = [
        ("licence", f"{card.licence_name}: {_PERMISSIONS[card.permission]}"),
        *_numbers(card.results),
        ("load", _load(card)),
        ("weights", "\n".join(_places(card))),
        ("no weights", card.unavailable),
        ("network", f"{network}, {card.parameters:,} parameters"),
        ("image", _image(card.transform)),
        ("pooled", {"token": "the class token", "avg": "the mean of the patches"}[card.pooling]),
        ("decoder", _decoder(card.decoder) if card.decoder else ""),
        (
            "method",
            ", ".join(filter(None, dict.fromkeys([card.method, card.approach or card.kind, card.paper]))),
        ),
        ("data", "\n".join(map(_data, card.datasets))),
        ("also called", "\n".join(card.aliases)),
    ]
    if training:
        epochs, images = counted(training.epochs, "epoch"), counted(training.images, "image")
        made = (
            f"{epochs} of {images}, seed {training.seed}; {lasted(training.minutes)} on {training.hardware}"
        )
        rows += [
            ("trained", f"{training.recipe}, {made}"),
            ("command", training.command),
        ]
    return [*rows, ("exported", "\n".join(exported)), ("card", str(card.path or ""))]


def _numbers(results: tuple[Result, ...]) -> Iterator[tuple[str, str]]:
    """Each task with a line for each of its metrics, and below those that share them the data, settings and source."""
    for about, members in groupby(results, _about):
        for task, metrics in groupby(members, _task):
            lines = [f"{each.value:g} {each.unit}".strip() + f" {each.metric}" for each in metrics]
            yield task, "\n".join(lines)
        yield "", about


def _task(result: Result) -> str:
    """Its protocol as people write it: `knn, untrained` is `k-NN, untrained`."""
    protocol, comma, rest = result.task.partition(",")
    return _TASKS.get(protocol, protocol) + comma + rest


def _about(result: Result) -> str:
    """`on Imagenette validation (k 20, T 0.07); zoo evaluate …`."""
    settings = ", ".join(f"{key} {each}" for key, each in result.settings.items())
    data = f"on {result.dataset} {result.split}".strip() + (f" ({settings})" if settings else "")
    whose = f"as published, {result.source}" if result.source else result.command
    return f"{data}; {whose}" if whose else data


def _load(card: ModelCard) -> str:
    """What loads it: by name, or by its folder where that lies outside the zoo."""
    if weights(card) == "file":
        return f'zoo.load("{card.name}", weights=FILE)'
    place = None if card.path is None else card.path.parent
    outside = place is not None and weights(card) == "local" and registry.home() not in place.parents
    return f'zoo.load("{place}")' if outside else f'zoo.load("{card.name}")'


def _data(name: str) -> str:
    """A data set, with its owner's terms where they are known."""
    terms = card_hub.DATA_TERMS.get(name)
    return f"{name}: {terms}" if terms else name


def _places(card: ModelCard) -> Iterator[str]:
    """Where its weights are here, and where they come from, with what is published of their hash."""
    if weights(card) in ("bundled", "local"):
        yield weights(card)
    for source in card.sources:
        yield f"hub: {source.repo} {source.file}" if source.repo else f"url: {source.url}"
        sha256 = source.sha256 or source.sha256_prefix
        for kind, known in (("commit", source.revision), ("sha256", sha256), ("md5", source.md5_prefix)):
            if known:
                yield f"     {kind} {known[:12]}{'…' * (len(known) > 12)}"


def _image(spec: TransformSpec) -> str:
    """`224 px, crop 0.875, bicubic`, with mean and std where they are not ImageNet's."""
    plain = TransformSpec(spec.size)
    told = f"{spec.size} px, crop {spec.crop_pct:g}, {spec.interpolation}"
    if (spec.mean, spec.std) == (plain.mean, plain.std):
        return told
    mean, std = (" ".join(f"{each:g}" for each in values) for values in (spec.mean, spec.std))
    return f"{told}, mean {mean}, std {std}"


def _decoder(spec: DecoderSpec) -> str:
    targets = "normalised pixels" if spec.normalised_targets else "raw pixels"
    hidden = f"{spec.ratio:g}" + (f" and {spec.secondary:g} of the rest" if spec.secondary else "")
    size = f"{spec.depth} blocks of width {spec.width}" if spec.depth else "one layer"
    return f"{spec.kind}, {size}, predicts {targets}; {spec.strategy} masks hide {hidden}"


def _paragraphs(text: str, width: int) -> Iterator[str]:
    """Markdown with its prose filled; code, lists and tables as they are."""
    code, prose = False, list[str]()
    for line in [*text.splitlines(), ""]:
        fence = line.startswith("```")
        if not (code or fence or not line or _KEPT.match(line)):
            prose.append(line)
            continue
        if prose:
            yield _fill(" ".join(prose), width)
            prose = []
        code ^= fence
        yield line


def _lines(text: str, width: int) -> str:
    """Each line filled by itself."""
    return "\n".join(_fill(line, width) for line in text.splitlines())


def _fill(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
