"""Recipes: every one of them builds and says what it costs; names are found, or the nearest is named."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.errors import RecipeError
from zoo.training.listing import method_lines, recipe_lines
from zoo.training.methods import method_file, method_names, recipe, recipes
from zoo.training.methods.mae import MAEConfig
from zoo.training.recipe import Arch, Data, Optim, Recipe, Run, Schedule

RECIPES = [f"{method}/{name}" for method in method_names() for name in recipes(method_file(method))]


def test_what_is_listed_is_what_there_is() -> None:
    """The lists are read from the sources, without importing them."""
    imported = {f"{m}/{name}": each for m in method_names() for name, each in recipes(method_file(m)).items()}
    assert [*recipe_lines().items()] == [(name, _title(each)) for name, each in imported.items()]
    assert [*method_lines().items()] == [(name, _title(method_file(name))) for name in method_names()]


def _title(documented: object) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def test_the_methods_there_are() -> None:
    promised = {"beit", "byol", "dino", "mae", "simclr", "simmim", "ummae"}
    assert promised | {"dvae", "supervised", "vicreg"} <= set(method_names())
    for method in promised:
        assert {"imagenet", "imagenette", "smoke"} <= set(recipes(method_file(method)))


@pytest.mark.parametrize("method", method_names())
def test_a_method_has_a_smoke_recipe_and_a_title(method: str) -> None:
    module = method_file(method)
    assert "smoke" in recipes(module)
    assert module.__doc__ and "(" in module.__doc__.splitlines()[0]  # what it is, and the paper


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_and_tells_its_command(name: str) -> None:
    method, short = name.split("/")
    built = recipe(name)
    assert isinstance(built, Recipe)
    built.check()
    doc = inspect.getdoc(recipes(method_file(method))[short]) or ""
    assert re.search(rf"^zoo train {name} DATA (--init \w+ )?--out runs/\w+$", doc, re.MULTILINE)
    assert len(doc.splitlines()[0]) > 30  # the line of `zoo recipes`


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_same_each_time_and_plain_json(name: str) -> None:
    assert recipe(name) == recipe(name)
    described = recipe(name).describe()
    assert described["method_file"] == name.split("/")[0]
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize("name", RECIPES)
def test_its_method_can_be_built(name: str) -> None:
    built = recipe(name)
    with torch.device("meta"):  # shapes without storage: full size in no time
        method = built.method.build(built)
    groups = method.param_groups(built.optim)
    assert all(group["params"] for group in groups)
    assert sum(p.numel() for p in method.encoder().parameters()) > 1e6


@pytest.mark.parametrize(
    "config", [Recipe, Arch, Data, Optim, Schedule, Run, *(type(recipe(name).method) for name in RECIPES)]
)
def test_knobs_are_frozen_and_documented(config: type[Any]) -> None:
    parameters: Any = config.__dataclass_params__  # type: ignore[attr-defined]
    assert parameters.frozen
    assert config.__doc__ and not config.__doc__.startswith(
        f"{config.__name__}("
    )  # the one dataclasses make up


def test_a_knob_cannot_be_turned_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe("mae/smoke").optim.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dino/imagnette", ["did you mean 'imagenette'", "dino/smoke"]),
        ("mae/smok", ["did you mean 'smoke'", "mae/imagenette"]),
        ("mae/zzz", ["'mae/zzz' names no recipe of mae; there are mae/"]),
        ("mae", ["'mae' names no recipe of mae; there are mae/"]),
        ("mae/", ["names no recipe of mae; there are mae/"]),
        ("dinno/smoke", ["no method 'dinno'", "did you mean 'dino'", "zoo methods"]),
        ("zzz/smoke", ["no method 'zzz'; `zoo methods` lists", "./file.py:recipe"]),
        ("", ["no method ''", "./file.py:recipe"]),
        ("./gone.py:small", ["gone.py does not exist", "./file.py:recipe"]),
        ("./gone.py", ["./file.py:recipe"]),
        ("mae/Recipe", ["names no recipe of mae"]),  # a class the file imports
        ("mae/draw_mask", ["names no recipe of mae"]),  # a function that gives something else
        ("mae/__init__", ["names no recipe of mae"]),
    ],
)
def test_a_wrong_name_is_told_what_there_is(name: str, says: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(name)
    for words in says:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("section", "knob", "value"),
    [
        ("optim", "batch", 0),
        ("optim", "batch", -4),
        ("optim", "lr", 0.0),
        ("optim", "lr", float("nan")),
        ("schedule", "epochs", 0),
        ("schedule", "warmup_epochs", -1),
        ("data", "size", 0),
        ("data", "side", 0),
        ("data", "workers", -1),
        ("arch", "size", -16),
        ("run", "log_every", 0),
        ("run", "threads", -1),
    ],
)
def test_an_impossible_value_names_its_knob(section: str, knob: str, value: float) -> None:
    built = recipe("mae/smoke")
    turned = dataclasses.replace(getattr(built, section), **{knob: value})
    with pytest.raises(RecipeError, match=rf"--{section}\.{knob} is {value}; give"):
        dataclasses.replace(built, **{section: turned}).check()


def test_views_larger_than_the_images_they_are_cut_from_are_refused() -> None:
    given = recipe("dino/imagenette")
    larger = dataclasses.replace(given, data=dataclasses.replace(given.data, size=224))
    with pytest.raises(
        RecipeError, match=r"--data\.size is 224, .* side of 160 .*: give --data\.side 224 or more"
    ):
        larger.check()
    dataclasses.replace(larger, data=dataclasses.replace(larger.data, side=224)).check()


def test_knobs_that_would_do_nothing_are_refused() -> None:
    from zoo.training.knobs import with_knobs

    with pytest.raises(RecipeError, match="removed"):
        with_knobs(recipe("simclr/smoke"), ["--method.removed", "solarise"])
    dvae = with_knobs(recipe("dvae/smoke"), ["--arch.drop_path", "0.3"])
    with pytest.raises(RecipeError, match="no paths to drop; give 0"):
        dvae.method.build(dvae)


# A method of the user's own

OWN = '''
"""Predicting the mean colour of an image."""

from dataclasses import dataclass

import torch

from zoo.families import vit
from zoo.training import augment
from zoo.training.methods import Method
from zoo.training.recipe import Arch, Data, Optim, Recipe, Schedule


@dataclass(frozen=True)
class MeanColourConfig:
    """Knobs."""

    scale: float = 1.0

    def build(self, recipe: Recipe) -> "MeanColour":
        return MeanColour(self, recipe)


class MeanColour(Method):
    def __init__(self, config, recipe):
        super().__init__()
        self.config, self.size = config, recipe.data.size
        self.backbone = vit.build(recipe.arch.name, recipe.arch.arguments())
        self.head = torch.nn.Linear(self.backbone.num_features, 3)

    def views(self):
        crop = augment.normalised(augment.crop_and_flip(self.size, (0.5, 1.0)))
        return lambda image, generator: [augment.seeded(crop, image, generator)]

    def forward(self, views, step, noise):
        target = self.config.scale * views[0].mean(dim=(2, 3))
        return (self.head(self.backbone(views[0])) - target).square().mean(), {}

    def encoder(self):
        return self.backbone


def small() -> Recipe:
    """A second on a CPU."""
    return Recipe(
        method=MeanColourConfig(),
        arch=Arch("test_vit", size=32),
        data=Data(size=32, side=40, workers=0),
        optim=Optim(batch=4),
        schedule=Schedule(epochs=2),
    )


def _hidden() -> Recipe:
    return small()


def helper() -> int:
    return 3
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mymethod.py"
    path.write_text(OWN)
    return path


def test_a_recipe_of_the_users_own(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own.parent)
    for name in ("./mymethod.py:small", "mymethod.py:small", f"{own}:small"):
        built = recipe(name)
        assert built.arch.name == "test_vit"
        assert built.describe()["method"] == {"scale": 1.0}
        assert sum(p.numel() for p in built.method.build(built).encoder().parameters()) > 1000


def test_a_method_of_the_users_own_trains_to_a_folder(own: Path, photos: Path) -> None:
    import zoo
    from zoo.training import run

    folder = run(recipe(f"{own}:small"), photos, own.parent / "run")
    assert zoo.load(folder, device="cpu")(photos / "val/cat/00.jpg").pooled.shape == (1, 64)
    lines = (folder / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 6


@pytest.mark.parametrize("wanted", ["smal", "_hidden", "helper", ""])
def test_a_wrong_recipe_of_the_users_own_is_told_how_to_type_it(own: Path, wanted: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(f"{own}:{wanted}")
    assert f"there are {own}:small" in str(caught.value)


def test_the_paper_is_the_default() -> None:
    assert recipe("mae/imagenet").method == MAEConfig()
    assert recipe("mae/imagenet").optim == Optim(
        batch=4096, lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05, weight_decay_end=None
    )
