"""The linear probe of the papers: SGD on augmented views of a frozen encoder, its learning rate from a sweep.

A head for every learning rate learns at once, from the same views. Each is trained twice: on nine tenths of the
images, to be judged on the others, and on all of them. The rate that wins names the head that the test images see.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.encoder import Encoder
from zoo.errors import RecipeError
from zoo.sources import Source, share_of_each_class
from zoo.training import augment
from zoo.training.knobs import named
from zoo.training.methods import Method, Step, Views
from zoo.training.recipe import Optim, Recipe, Schedule
from zoo.training.tuning.trained import Task, fit, recipe_for, row_of, scored, told_right

_log = logging.getLogger(__name__)

HELD = 0.1  # of every class, to choose the rate by


@dataclass(frozen=True)
class SweepConfig:
    """Knobs of the sweep."""

    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Learning rates for a batch of 256, low to high: of equally good ones the lower is taken."""
    min_scale: float = 0.08
    """Smallest share of the image a crop covers."""

    def build(self, recipe: Recipe) -> Method:
        """Never: a probe is one of an encoder (`Sweep`). Raises RecipeError."""
        raise RecipeError("a linear probe is one of a model: zoo evaluate MODEL DATA --protocol linear_sgd")

    def check(self) -> None:
        """RecipeError for a knob whose value cannot work."""
        if not self.rates or min(self.rates) <= 0 or list(self.rates) != sorted(self.rates):
            raise RecipeError(f"--method.rates is {self.rates}; give numbers above 0, low to high")


class Sweep(Method):
    """A frozen encoder, a batch norm without gain (MAE, §A.1), and two heads for every learning rate.

    Labels above `classes` mark images that are held out: label + classes.
    """

    def __init__(self, config: SweepConfig, recipe: Recipe, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.config, self.size, self.classes = config, recipe.data.size, classes
        self.transform, self.family = encoder.transform, encoder.family
        self.backbone = copy.deepcopy(encoder.module).float().requires_grad_(False)
        self.norm = nn.BatchNorm1d(encoder.dim, eps=1e-6, affine=False)
        self.judged, self.whole = (
            nn.ModuleList(zero_head(encoder.dim, classes) for _ in config.rates) for _ in range(2)
        )

    def train(self, mode: bool = True) -> Sweep:
        """The encoder stays as it is evaluated."""
        super().train(mode)
        self.backbone.eval()
        return self

    def views(self) -> Views:
        """One view: random resized crop and flip."""
        return augment.one_view(self.size, self.config.min_scale, self.transform.mean, self.transform.std)

    def forward(
        self, views: list[Tensor], step: Step, noise: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The sum of all heads' cross-entropies, which share no weight. views: one (B, C, H, W)."""
        assert labels is not None and self.classes is not None
        with torch.no_grad():
            pooled = self.family.features(self.backbone, views[0]).pooled.float()
        features, inner, labels = self.norm(pooled), labels < self.classes, labels % self.classes
        loss = torch.stack([F.cross_entropy(head(features), labels) for head in self.whole]).sum()
        if inner.any():
            losses = [F.cross_entropy(head(features[inner]), labels[inner]) for head in self.judged]
            loss = loss + torch.stack(losses).sum()
        return loss, {}

    def param_groups(self, optim: Optim) -> list[dict[str, Any]]:
        """A group for each learning rate, as a multiple of the recipe's."""
        heads = zip(self.config.rates, self.judged, self.whole, strict=True)
        return [
            {
                "params": [*first.parameters(), *second.parameters()],
                "decays": optim.weight_decay > 0,
                "lr_scale": rate / optim.lr,
            }
            for rate, first, second in heads
        ]

    def encoder(self) -> nn.Module:
        return self.backbone


def zero_head(width: int, classes: int) -> nn.Linear:
    """A head that finds every class equally likely."""
    head = nn.Linear(width, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def probe_recipe(task: Task) -> Recipe:
    """SGD with momentum 0.9, a cosine, 100 epochs of crops and flips, no weight decay, as DINO's.

    Of the pooled features of every model alike: DINO's own probe of small ViTs reads the class tokens of four blocks,
    and MAE's trains by LARS in batches of 16,384.
    """
    if "optim.lr" in named(list(task.knobs)):
        raise RecipeError("linear_sgd sweeps its learning rates: give --method.rates, for a batch of 256")
    recipe = recipe_for(
        task,
        SweepConfig(),
        Optim(batch=256, lr=0.1, kind="sgd", weight_decay=0.0),
        Schedule(epochs=100, warmup_epochs=0),
        images=len(task.train),
    )
    cast(SweepConfig, recipe.method).check()
    return recipe


def probe_rows(task: Task) -> list[dict[str, Any]]:
    """One row: top-1 of the head whose learning rate does best on training images that it did not see.

    Where no class has two images, none can be held out: the middle rate is taken, and log and row say so.
    """
    recipe, held = probe_recipe(task), share_of_each_class(task.train, HELD, task.seed)
    config, labels = cast(SweepConfig, recipe.method), task.train.labels
    assert labels is not None  # classes_of said so
    method = Sweep(config, recipe, task.encoder, task.classes)
    marked = [label + task.classes * (i in held) for i, label in enumerate(labels)]
    state = fit(task, method, recipe, dataclasses.replace(task.train, labels=marked))
    method.eval()
    swept: dict[str, Any] = {"lr": list(config.rates)}
    if held:
        best = _best(task, method, task.train.subset(sorted(held)))
    else:
        best, swept["untuned"] = (len(config.rates) - 1) // 2, "no class has two images"
        _log.warning(
            "%s has no class of two images, so none can be held out to choose the learning rate by: "
            "linear_sgd takes %g, the middle of its sweep",
            *(task.train.title, config.rates[best]),
        )
    told = told_right(task, method.backbone, nn.Sequential(method.norm, method.whole[best]))
    swept["chosen lr"] = config.rates[best]
    return [row_of("linear_sgd", task, task.train, [told], recipe, state.seconds / 60, **swept)]


def _best(task: Task, method: Sweep, judges: Source) -> int:
    """Which rate's judged head tells most of the images of `judges` right; the lowest of equally good ones."""
    rates = len(method.judged)

    def by_all(pooled: Tensor) -> Tensor:  # (B, D) -> (B, rates * classes)
        return torch.cat([head(method.norm(pooled)) for head in method.judged], dim=1)

    logits, truth = scored(task, method.backbone, by_all, judges)
    guesses = logits.unflatten(1, (rates, task.classes)).argmax(2)  # (M, rates)
    accuracies = (guesses == truth[:, None]).float().mean(0).tolist()
    return max(range(rates), key=accuracies.__getitem__)
