"""What every method owes the loop and the zoo; a new file in `training/methods/` is checked at once."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Generator, Tensor

from zoo.families import family
from zoo.training.methods import Method, Step, method_names, recipe
from zoo.training.recipe import Optim, Recipe
from zoo.transforms import Transform

STEP = Step(0, 20, 10)
NOISE = torch.tensor([5, 2**62])
LABELS = torch.tensor([1, 0])


def built(name: str) -> tuple[Recipe, Method]:
    torch.manual_seed(0)
    smoke = recipe(f"{name}/smoke")
    return smoke, smoke.method.build(smoke)


def photo(seed: int) -> Tensor:
    return torch.randint(256, (3, 70, 90), generator=Generator().manual_seed(seed)).to(torch.uint8)


def batch(method: Method) -> list[Tensor]:
    """Views of two images, a batch for each kind."""
    cut = method.views()
    pairs = zip(*(cut(photo(seed), Generator().manual_seed(seed)) for seed in range(2)), strict=True)
    return [torch.stack(pair) for pair in pairs]


def loss_of(method: Method, views: list[Tensor]) -> tuple[Tensor, dict[str, float | Tensor]]:
    """What the loop calls: labels reach a supervised method and no other."""
    taught = {} if method.classes is None else {"labels": LABELS}
    found: tuple[Tensor, dict[str, float | Tensor]] = method(views, STEP, NOISE, **taught)
    return found


@pytest.mark.parametrize("name", method_names())
def test_a_step_of_it(name: str) -> None:
    """Views, a finite loss, gradients for all that is trained, and a state that fits a fresh copy."""
    _, method = built(name)
    views = batch(method)
    loss, logs = loss_of(method, views)
    assert loss.shape == () and loss.isfinite()
    assert all(isinstance(value, float) or not value.requires_grad for value in logs.values())
    features = logs["features"]  # what the sentry watches
    assert isinstance(features, Tensor) and features.shape == (2, method.encoder().num_features)
    repeated, _ = loss_of(method, views)
    assert torch.equal(loss, repeated)  # all randomness is in `noise`

    loss.backward()
    for key, p in method.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, key
        else:
            assert p.grad is None, key
    method.before_step(STEP)
    torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-3).step()
    method.after_step(STEP)
    assert all(tensor.isfinite().all() for tensor in method.state_dict().values())

    _, fresh = built(name)
    fresh.load_state_dict(method.state_dict())
    assert torch.equal(loss_of(fresh, views)[0], loss_of(method, views)[0])


@pytest.mark.parametrize("name", method_names())
def test_views_depend_on_the_generator_alone(name: str) -> None:
    smoke, method = built(name)
    cut, image = method.views(), photo(0)
    state, before = torch.get_rng_state(), image.clone()
    views = cut(image, Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(image, before)
    assert all(map(torch.equal, views, cut(image, Generator().manual_seed(3))))
    assert not torch.equal(views[0], cut(image, Generator().manual_seed(4))[0])
    assert views[0].shape == (3, smoke.data.size, smoke.data.size)
    assert all(view.dtype == torch.float32 for view in views)


@pytest.mark.parametrize("name", method_names())
def test_views_are_normalised_as_the_recipe_says(name: str) -> None:
    smoke = recipe(f"{name}/smoke")
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 1.0)
    other = dataclasses.replace(smoke, data=dataclasses.replace(smoke.data, mean=mean, std=std))
    for usual, view in zip(
        *(made.method.build(made).views()(photo(0), Generator().manual_seed(3)) for made in (smoke, other)),
        strict=True,
    ):
        unit = Transform(64).denormalise(usual)
        assert torch.allclose(Transform(64, mean=mean, std=std).denormalise(view), unit, atol=1e-6)
        assert unit.min() >= -1e-6 and unit.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", method_names())
def test_its_encoder_is_one_the_zoo_builds(name: str) -> None:
    smoke, method = built(name)
    encoder = family(smoke.arch.family).build(smoke.arch.name, smoke.arch.arguments())
    encoder.load_state_dict(method.encoder().state_dict())
    pixels = torch.randn(1, 3, smoke.arch.size, smoke.arch.size, generator=Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(encoder.eval()(pixels), method.encoder().eval()(pixels), atol=1e-6)
    assert method.card()["kind"] in ("discriminative", "generative", "supervised")
    assert (method.card()["kind"] == "supervised") == (method.classes is not None)
    assert ("decoder" in method.card()) == (method.decoder() is not None)


@pytest.mark.parametrize("name", method_names())
def test_it_starts_from_another_model(name: str) -> None:
    _, method = built(name)
    parts = [part for part in (method.encoder(), method.decoder()) if part is not None]
    moved = [{key: tensor + 1 for key, tensor in part.state_dict().items()} for part in parts]
    method.start_from(moved[0], moved[1] if len(moved) > 1 else None)
    for part, weights in zip(parts, moved, strict=True):
        assert all(torch.equal(part.state_dict()[key], tensor) for key, tensor in weights.items())


def test_a_decoder_of_another_shape_is_left_out() -> None:
    _, method = built("mae")
    decoder = method.decoder()
    assert decoder is not None
    before = {key: tensor.clone() for key, tensor in decoder.state_dict().items()}
    method.start_from(method.encoder().state_dict(), {"norm.weight": torch.ones(3)})
    assert all(torch.equal(decoder.state_dict()[key], tensor) for key, tensor in before.items())


@pytest.mark.parametrize("name", method_names())
def test_matrices_decay_and_vectors_and_what_the_method_names_do_not(name: str) -> None:
    _, method = built(name)
    groups = method.param_groups(Optim())
    assert [group["decays"] for group in groups] == [True, False]
    where = {id(p): group["decays"] for group in groups for p in group["params"]}
    trained = {key: p for key, p in method.named_parameters() if p.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(where) == len(trained)
    for key, p in trained.items():
        assert where[id(p)] == (p.ndim > 1 and not key.endswith(method.undecayed())), key
        if key.endswith("bias") or "norm" in key:
            assert not where[id(p)], key
