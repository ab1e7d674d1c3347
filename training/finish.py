"""The end of a run: its encoder as a model folder, with a card written from the recipe."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch

import zoo
from zoo.cards import DecoderSpec, ModelCard, TrainingFacts, TransformSpec, write_card
from zoo.evaluate import measure
from zoo.evaluate.results import results_of, with_results
from zoo.folders import write_folder
from zoo.images import MODES
from zoo.loading import load
from zoo.sources import Source
from zoo.training.methods import Method
from zoo.training.progress import State
from zoo.training.recipe import Recipe
from zoo.words import counted, lasted


@dataclass(frozen=True)
class RunFacts:
    """What a card says of a run that neither its recipe nor its method knows."""

    recipe: str
    command: str
    data: str
    test: str | None
    init: str
    images: int
    note: str
    hardware: str


def write_model(
    out: Path,
    recipe: Recipe,
    method: Method,
    train: Source,
    state: State,
    facts: RunFacts,
) -> ModelCard:
    """Write encoder, decoder and card, without scores yet, into the run's folder."""
    card = card_of(out.resolve().name, recipe, method, train, state, facts)
    return write_folder(
        out, card, method.encoder(), method.decoder(), body_of(card, out, facts.note + state.told_skipped())
    )


def measure_model(
    out: Path, card: ModelCard, recipe: Recipe, data: tuple[Source, Source], facts: RunFacts
) -> None:
    """Measure the model in the run's folder and put the numbers on its card.

    data: the images trained on and those held out.
    """
    train, test = data
    hides = card.decoder is not None and card.decoder.ratio > 0  # a tokenizer hides nothing
    protocols = [*(["knn"] if _labelled(train, test) else []), *(["reconstruction"] if hides else [])]
    encoder = load(out)
    for protocol in protocols:
        command = _evaluation(out, recipe, facts, protocol)
        for row in measure(encoder, train, test, [protocol], seed=recipe.run.seed):
            card = with_results(card, results_of(row, test, command))
    write_card(card, out)


def call_of(recipe: Recipe, data: str | Path, out: Path, **options: Any) -> str:
    """The Python call that trains the same, with every knob that is not its class's default.

    options: further arguments of `zoo.training.run`; those left as they are by default are not told.
    """
    told = {name: value for name, value in options.items() if value is not None and value is not True}
    given = [spelled(recipe), repr(str(data)), repr(str(out))]
    given += [f"{name}={str(value) if isinstance(value, Path) else value!r}" for name, value in told.items()]
    return f"zoo.training.run({', '.join(given)})"


def spelled(value: Any) -> str:
    """A dataclass as the shortest expression that makes an equal one; anything else as its repr."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    usual = {field.name: field.default for field in dataclasses.fields(value)}
    words = [f"{name}={spelled(own)}" for name, own in fields.items() if own != usual[name]]
    return f"{type(value).__name__}({', '.join(words)})"


def _evaluation(out: Path, recipe: Recipe, facts: RunFacts, protocol: str) -> str:
    """The command that measures the same again."""
    words = ["zoo", "evaluate", str(out), facts.data]
    options = {"--test": facts.test, "--limit": recipe.data.limit, "--seed": recipe.run.seed or None}
    for option, value in options.items():
        if value is not None:
            words += [option, str(value)]
    return shlex.join([*words, "--protocol", protocol])


def card_of(
    name: str, recipe: Recipe, method: Method, train: Source, state: State, facts: RunFacts
) -> ModelCard:
    """The card of a finished run, without its scores."""
    own = method.card()
    encoder, arguments = method.encoder(), recipe.arch.arguments()
    arguments.pop("global_pool", None)  # `pooling` says it
    return ModelCard(
        name=name,
        licence=recipe.run.licence,
        method=type(recipe.method).__module__.rpartition(".")[-1],
        kind=own["kind"],
        approach=own.get("approach"),
        family=recipe.arch.family,
        architecture=recipe.arch.name,
        arguments=arguments,
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        pooling=recipe.arch.pooling,
        transform=TransformSpec(recipe.arch.size, recipe.arch.crop_pct, "bicubic", *recipe.statistics),
        decoder=DecoderSpec(**own["decoder"]) if "decoder" in own else None,
        tags=("self-supervised" if method.classes is None else "supervised", "timm"),
        datasets=(train.name,),
        training=TrainingFacts(
            recipe=facts.recipe,
            command=facts.command,
            data=train.title,
            images=facts.images,
            epochs=max(1, round(state.step / (facts.images // recipe.optim.batch))),
            steps=state.step,
            seed=recipe.run.seed,
            hardware=facts.hardware,
            minutes=round(state.seconds / 60, 1),
            init=facts.init,
            versions={"ssl-zoo": zoo.__version__, "torch": torch.__version__, "timm": timm.__version__},
        ),
    )


def _taught(card: ModelCard) -> str:
    """How it learned, in words."""
    return "trained with labels" if card.kind == "supervised" else f"pre-trained with {card.method.upper()}"


def body_of(card: ModelCard, out: Path, note: str) -> str:
    """The card's text for people."""
    training = card.training
    assert training is not None  # card_of wrote it
    photo = "photo.jpg" if len(card.transform.mean) in MODES else "array.npy"
    decoder = (
        f"\nIts decoder comes along: `zoo reconstruct {out} {photo} --out out.png`.\n" if card.decoder else ""
    )
    return f"""\
# {card.name}

{card.architecture} {_taught(card)} on {training.data}: {counted(training.epochs, "epoch")} of
{counted(training.images, "image")}, {lasted(training.minutes)} on {training.hardware}. {note}

```python
import zoo

encoder = zoo.load("{out}")  # or "{card.name}", after `zoo register {out} {card.name}`
features = encoder("{photo}")
```
{decoder}
Trained by `{training.command}`.
"""


def _labelled(*sources: Source) -> bool:
    return all(source.labels is not None and len(set(source.labels)) > 1 for source in sources)
