"""The contract of a method, and how methods and their recipes are found.

A method is one file in this folder (or a file of the user's own): a config, its heads, views and loss, and its recipes,
which are the public functions of the file annotated to return a `Recipe`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Generator, Tensor, nn

from zoo.cards import DecoderSpec
from zoo.errors import RecipeError, did_you_mean
from zoo.training.recipe import Optim, Recipe

Views = Callable[[Tensor, Generator], list[Tensor]]


@dataclass(frozen=True)
class Step:
    """Where a run is: step `index` of `total`, with `per_epoch` steps in an epoch."""

    index: int
    total: int
    per_epoch: int

    @property
    def epoch(self) -> float:
        """Epochs done, as a fraction."""
        return self.index / self.per_epoch

    @property
    def epochs(self) -> float:
        """Epochs of the whole run."""
        return self.total / self.per_epoch


class Method(nn.Module):
    """One method. The loop calls `method(views, step, noise)` and nothing else for the loss, once per turn.

    What it logs may hold, besides numbers for the log, what the sentry reads:
    `features`, (B, D), pooled and detached, of one view of each image in the order of the batch; `chance`, the loss of
    a network that cannot tell images apart; `teacher_entropy`, in nats; `target_std`, how
    a teacher without prototypes spreads its targets; and `prototypes`, (K,), the mean probability
    of each. All of it is computed anyway; a method that has none of it is still watched for its loss.
    """

    classes: int | None = None
    """How many classes a supervised method tells apart: its `forward` also gets `labels`, (B,) int64. No other does."""

    @abstractmethod
    def views(self) -> Views:
        """A function of one decoded image, uint8 (C, H, W), and a generator, to its normalised views (C, h, w)."""

    @abstractmethod
    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The loss and what to log. views: (B, C, h, w) each. noise: (B,) int64, one seed per image.

        Called once per step and turn, for each part of the batch where it has several (`Optim.accumulate`).
        """

    def turns(self, views: list[Tensor]) -> list[list[Tensor]]:
        """The views of each call of `forward`, in order: one call with all of them, by default.

        A method whose loss is a sum of terms that share no activation names them here, and its `forward` gives one
        term: gradients of one are taken before the next is computed, so that only one's activations are held. The
        step's loss is their sum, and it logs what the first logs. The last must reach every parameter that another
        reaches, for with it processes share their gradients.
        """
        return [views]

    def param_groups(self, optim: Optim) -> list[dict[str, Any]]:
        """Trainable parameters in two groups: matrices, which decay, and those that never do.

        Biases and other 1-D ones never decay, nor do those that are called as `undecayed` says.
        """
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        decay = {n for n, p in trained.items() if p.ndim > 1 and n.rpartition(".")[2] not in self.undecayed()}
        return [
            {"params": [p for name, p in trained.items() if name in decay], "decays": True},
            {"params": [p for name, p in trained.items() if name not in decay], "decays": False},
        ]

    def undecayed(self) -> tuple[str, ...]:
        """Last parts of the names of parameters that do not decay though they have more than one dimension."""
        return ()

    def before_step(self, step: Step) -> None:
        """Called after backward and before the optimiser: freezes and clipping."""

    def after_step(self, step: Step) -> None:
        """Called after the optimiser: moving averages and centres."""

    @abstractmethod
    def encoder(self) -> nn.Module:
        """The module the zoo keeps."""

    def decoder(self) -> nn.Module | None:
        """The decoder of a masked-image method."""
        return None

    def start_from(self, encoder: dict[str, Tensor], decoder: dict[str, Tensor] | None) -> None:
        """Begin with the weights of another model: its encoder, and its decoder where both have one that fits."""
        self.encoder().load_state_dict(encoder)
        own = self.decoder()
        if own is not None and decoder is not None and _same_shapes(own.state_dict(), decoder):
            own.load_state_dict(decoder)

    def first(self) -> tuple[str, Recipe] | None:
        """A run on the same images that must come before this one, with a name for its folder inside this one's."""
        return None

    def follow(self, folder: Path) -> None:
        """Take over what that run made; called before the first step."""

    def card(self) -> dict[str, Any]:
        """Fields of the model card that only the method knows: kind, approach, decoder."""
        return {"kind": "discriminative"}

    def compiled(self) -> list[nn.Module]:
        """Modules worth compiling; none by default."""
        return []


def light_decoder(kind: Any, config: Any, patch: int, **own: Any) -> DecoderSpec:
    """The small transformer that a method's `decoder_…` knobs describe. patch: in pixels. own: its kind's alone."""
    return DecoderSpec(
        kind=kind,
        width=config.decoder_width,
        depth=config.decoder_depth,
        heads=config.decoder_heads,
        patch=patch,
        mask_patch=patch,
        normalised_targets=config.normalised_targets,
        ratio=config.ratio,
        **own,
    )


def masked_card(decoder: DecoderSpec | None) -> dict[str, Any]:
    """What the card of a masked-image model says of its method; without a decoder where nothing can be shown."""
    said = {"kind": "generative", "approach": "masked image modelling"}
    return said if decoder is None else {**said, "decoder": dataclasses.asdict(decoder)}


def _same_shapes(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> bool:
    return {k: v.shape for k, v in wanted.items()} == {k: v.shape for k, v in given.items()}


def method_names() -> list[str]:
    """Stems of the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def method_file(name: str) -> ModuleType:
    """The module of a method, by its name or by the path of a user's own .py file."""
    if name.endswith(".py"):
        return _user_file(Path(name))
    if name not in method_names():
        known = method_names()
        raise RecipeError(
            f"no method {name!r}{did_you_mean(name, known)}; `zoo methods` lists {', '.join(known)}; "
            "a method of your own is given as ./file.py:recipe"
        )
    return importlib.import_module(f"{__name__}.{name}")


def _user_file(path: Path) -> ModuleType:
    """Import a user's own method from the path he typed."""
    if not path.is_file():
        raise RecipeError(f"{path} does not exist; a method of your own is given as ./file.py:recipe")
    name = f"zoo_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


def recipes(module: ModuleType) -> dict[str, Callable[[], Recipe]]:
    """The recipes of a method's file, by name."""
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and function.__annotations__.get("return") in (Recipe, "Recipe")
    }


def recipe(name: str) -> Recipe:
    """`"dino/imagenette"` or `"./mymethod.py:small"` -> the recipe. RecipeError names what there is."""
    return recipe_function(name)()


def recipe_function(name: str) -> Callable[[], Recipe]:
    """The function that returns a recipe; its docstring is the recipe's text."""
    mark = ":" if ".py:" in name else "/"
    method, _, wanted = name.rpartition(mark) if mark == ":" else name.partition(mark)
    found = recipes(method_file(method))
    if wanted not in found:
        hint = did_you_mean(wanted, found) if wanted else ""
        there = ", ".join(f"{method}{mark}{r}" for r in found)
        raise RecipeError(f"{name!r} names no recipe of {method}{hint}; there are {there}")
    return found[wanted]


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, parameters only (buffers are each network's own)."""
    mine: list[Tensor] = list(teacher.parameters())
    torch._foreach_lerp_(mine, [p.detach() for p in student.parameters()], 1 - momentum)
