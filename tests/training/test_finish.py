"""What a card says of how its model was trained is a call that trains it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.cards import read_card
from zoo.cli.showing import summary
from zoo.training import recipe as room
from zoo.training.engine import run
from zoo.training.finish import call_of, spelled
from zoo.training.methods import method_file, method_names, recipe, recipes
from zoo.training.recipe import Recipe


def read_back(words: str) -> Any:
    names: dict[str, Any] = {}
    for file in (room, *map(method_file, method_names())):
        names |= {name: each for name, each in vars(file).items() if dataclasses.is_dataclass(each)}
    return eval(words, names)


@pytest.mark.parametrize("name", method_names())
def test_a_recipe_is_spelled_as_what_makes_it(name: str) -> None:
    for recipe_of in recipes(method_file(name)).values():
        assert read_back(spelled(recipe_of())) == recipe_of()


def test_only_turned_knobs_and_given_options_are_told() -> None:
    chosen = Recipe(recipe("mae/smoke").method, optim=room.Optim(lr=0.1))
    call = call_of(chosen, Path("photos"), Path("out"), test=Path("others"), init=None, scores=True)
    assert call.startswith("zoo.training.run(Recipe(method=MAEConfig(")
    assert call.endswith("optim=Optim(lr=0.1)), 'photos', 'out', test='others')")


def test_the_card_holds_a_call_that_makes_the_same_run(
    tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    turned = tiny("mae/smoke", optim={"lr": 0.00123})
    card = read_card(run(turned, photos, tmp_path / "run", scores=False))
    assert card.training is not None and f"Trained by `{card.training.command}`." in card.body
    assert (
        ", under a minute on" in card.body and dict(summary(card))["trained"].count("under a minute on") == 1
    )
    called: list[Any] = []
    call = card.training.command.removeprefix("zoo.training.run")
    assert call != card.training.command and "lr=0.00123" in call
    read_back(f"lambda run: run{call}")(lambda *given, **options: called.append((given, options)))
    assert called == [((turned, str(photos), str(tmp_path / "run")), {"scores": False})]


def test_a_first_run_is_told_by_the_command_of_the_whole(
    tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    """Nobody called for BEiT's tokenizer: what trained it is BEiT's command."""
    folder = run(tiny("beit/smoke"), photos, tmp_path / "run", command="zoo train beit/smoke", scores=False)
    for each in (folder, folder / "tokenizer"):
        assert "Trained by `zoo train beit/smoke`." in read_card(each).body
