"""Two processes that talk over gloo compute what one computes on the whole batch."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

import zoo
from zoo.errors import RecipeError
from zoo.training.batchnorm import GlobalBatchNorm1d, GlobalBatchNorm2d
from zoo.training.engine import run
from zoo.training.processes import gather_over_processes
from zoo.training.recipe import Recipe

WORLD = 2


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zoo.training.engine", "zoo.training.methods.dino"])
    return context


def together(context: ForkServerContext, target: Callable[..., None], *arguments: Any) -> None:
    """Run `target(rank, *arguments)` in two processes that form a group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=in_group, args=(rank, port, target, *arguments)) for rank in range(WORLD)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0]


def in_group(rank: int, port: int, target: Callable[..., None], *arguments: Any) -> None:
    """What `torchrun` sets, then the work."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    try:
        target(rank, *arguments)
    finally:
        dist.destroy_process_group()


# Batch norm


def batch(rows: int) -> Tensor:
    return 3 + 2 * torch.randn(rows, 5, generator=Generator().manual_seed(1))


def norm() -> GlobalBatchNorm1d:
    layer = GlobalBatchNorm1d(5)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2, 5))
        layer.bias.copy_(torch.linspace(-1, 1, 5))
    return layer


def weighed(out: Tensor, rows: slice) -> Tensor:
    """A loss whose gradient differs from row to row."""
    return (out * torch.arange(70.0).view(14, 5)[rows].sin()).sum()


def normalise_share(rank: int, out: Path) -> None:
    rows = (slice(0, 4), slice(4, 14))[rank]  # unequal shares
    layer, x = norm(), batch(14)[rows].requires_grad_()
    y = layer(x)
    weighed(y, rows).backward()
    torch.save(
        {"y": y.detach(), "x": x.grad, "gain": layer.weight.grad, **layer.state_dict()}, out / f"{rank}"
    )


@pytest.mark.timeout(300)
def test_batch_norm_uses_the_global_batch(server: ForkServerContext, tmp_path: Path) -> None:
    together(server, normalise_share, tmp_path)
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(WORLD))
    whole = nn.BatchNorm1d(5)
    whole.load_state_dict(norm().state_dict())
    x = batch(14).requires_grad_()
    y = whole(x)
    weighed(y, slice(0, 14)).backward()
    assert x.grad is not None and whole.weight.grad is not None
    torch.testing.assert_close(torch.cat([first["y"], second["y"]]), y.detach())
    torch.testing.assert_close(torch.cat([first["x"], second["x"]]), x.grad)
    torch.testing.assert_close(first["gain"] + second["gain"], whole.weight.grad)
    for ours in (first, second):
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(ours[name], whole.state_dict()[name])


def normalise_images(rank: int, out: Path) -> None:
    rows = (slice(0, 4), slice(4, 14))[rank]
    layer, x = GlobalBatchNorm2d(5), pictures()[rows].requires_grad_()
    y = layer(x)
    (y * y.detach().sin()).sum().backward()
    torch.save({"y": y.detach(), "x": x.grad, **layer.state_dict()}, out / f"{rank}")


def pictures() -> Tensor:
    return 3 + 2 * torch.randn(14, 5, 2, 3, generator=Generator().manual_seed(1))


@pytest.mark.timeout(300)
def test_batch_norm_of_images_uses_the_global_batch(server: ForkServerContext, tmp_path: Path) -> None:
    together(server, normalise_images, tmp_path)
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(WORLD))
    whole, x = nn.BatchNorm2d(5), pictures().requires_grad_()
    y = whole(x)
    (y * y.detach().sin()).sum().backward()
    assert x.grad is not None and float(x.grad.abs().max()) > 0.01
    torch.testing.assert_close(torch.cat([first["y"], second["y"]]), y.detach())
    torch.testing.assert_close(torch.cat([first["x"], second["x"]]), x.grad)
    torch.testing.assert_close(second["running_var"], whole.running_var)


def gather_share(rank: int, out: Path) -> None:
    x = batch(8)[4 * rank : 4 * rank + 4].requires_grad_()
    everyone = gather_over_processes(x)
    (everyone.square() * (1 + rank)).sum().backward()
    torch.save({"all": everyone.detach(), "x": x.grad}, out / f"{rank}")


@pytest.mark.timeout(300)
def test_what_is_gathered_sends_its_gradient_back(server: ForkServerContext, tmp_path: Path) -> None:
    together(server, gather_share, tmp_path)
    for rank in range(WORLD):
        found = torch.load(tmp_path / str(rank), weights_only=True)
        assert torch.equal(found["all"], batch(8))
        # Both losses see every row: 1 * 2x and 2 * 2x.
        torch.testing.assert_close(found["x"], 6 * batch(8)[4 * rank : 4 * rank + 4])


def test_alone_it_is_torchs_own() -> None:
    ours, theirs = norm(), nn.BatchNorm1d(5)
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(batch(9)), theirs(batch(9)))
    assert torch.equal(ours.eval()(batch(3)), theirs.eval()(batch(3)))


# A run


def train_share(rank: int, recipe: Recipe, photos: Path, out: Path) -> None:
    del rank
    run(recipe, photos, out)


def curve(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


# Of SGD, such that six steps change the loss well above rounding, and rounding does not grow.
RATES = {"vicreg": 0.001, "mae": 4.0}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "parts"),
    [("simclr", 1), ("dino", 1), ("dino", 2), ("mae", 1), ("byol", 1), ("vicreg", 1), ("beit", 1)],
)
def test_two_processes_have_the_loss_curve_of_one(
    name: str,
    parts: int,
    server: ForkServerContext,
    tiny: Callable[..., Recipe],
    photos: Path,
    tmp_path: Path,
) -> None:
    """Negatives, batch norms and centre are of the global batch, also where each process cuts its share in parts."""
    lr = RATES.get(name, 0.1)
    recipe = tiny(f"{name}/smoke", schedule={"epochs": 2}, optim={"lr": lr, "kind": "sgd"})
    one, two = run(recipe, photos, tmp_path / "one"), tmp_path / "two"
    shared = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, accumulate=parts))
    together(server, train_share, shared, photos, two)
    assert len(curve(one)) == 6
    assert curve(two) == pytest.approx(curve(one), abs=1e-4, rel=1e-5)
    slower = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, lr=lr / 2))
    other = curve(run(slower, photos, tmp_path / "slower"))
    # A gradient of half the size would show, as it does here.
    assert max(abs(a - b) / abs(a) for a, b in zip(curve(one), other, strict=True)) > 1e-3


@pytest.mark.timeout(300)
def test_a_batch_that_processes_cannot_share_is_refused(
    server: ForkServerContext, tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    together(server, refuse_share, tiny("mae/smoke", optim={"batch": 5}), photos, tmp_path / "run")


def refuse_share(rank: int, recipe: Recipe, photos: Path, out: Path) -> None:
    del rank
    with pytest.raises(
        RecipeError, match=r"--optim\.batch is 5, which 2 processes cannot share equally; give 4"
    ):
        run(recipe, photos, out)


@pytest.mark.timeout(300)
def test_two_processes_train_to_the_weights_of_one(
    server: ForkServerContext, tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> None:
    # A teacher that follows at once, so that its weights tell what was learnt.
    follows = {"head_norm": True, "momentum": 0.5}
    recipe = tiny("dino/smoke", method=follows, schedule={"epochs": 2}, optim={"batch": 4, "lr": 0.1})
    one, two = run(recipe, photos, tmp_path / "one"), tmp_path / "two"
    together(server, train_share, recipe, photos, two)
    torch.manual_seed(recipe.run.seed)
    begun = recipe.method.build(recipe).encoder().state_dict()
    ours, theirs = (zoo.load(folder, device="cpu") for folder in (two, one))
    mine, other, start = (
        torch.cat([weights[name].flatten() for name in sorted(weights)])
        for weights in (ours.module.state_dict(), theirs.module.state_dict(), begun)
    )
    moved = (other - start).norm()
    assert moved > 0.1
    # Not to the last bit: Adam turns rounding into steps where a gradient is next to nothing.
    assert (mine - other).norm() < 0.05 * moved
    assert len(ours.card.results) == len(theirs.card.results) > 0  # measured by one process, once


NOTING = """
import os
from pathlib import Path
from zoo.training.methods.mae import MAE, MAEConfig
from zoo.training.methods.mae import smoke as its_smoke
import dataclasses
from zoo.training.recipe import Recipe

class Noting(MAE):
    def after_step(self, step):
        rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        with (Path(__file__).parent / f"rank{rank}").open("a") as file:
            file.write(f"{step.index} {world}\\n")

@dataclasses.dataclass(frozen=True)
class Config(MAEConfig):
    def build(self, recipe):
        return Noting(self, recipe)

def noting() -> Recipe:
    usual = its_smoke()
    return dataclasses.replace(usual, method=Config(0.75, 16, 1, 2))
"""


# What torchrun and `accelerate launch` run, and in how many processes: on CPUs the latter needs MPI for two.
LAUNCHERS = {
    "torchrun": (2, ["torch.distributed.run", "--nproc_per_node", "2", "--master_port"]),
    "accelerate": (
        1,
        [
            *("accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"),
            *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port"),
        ],
    ),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("by", LAUNCHERS)
def test_launchers_start_the_same_command(by: str, photos: Path, tmp_path: Path) -> None:
    """`torchrun --nproc_per_node 2 -m zoo train …`: all processes take every step and write one model."""
    world, launcher = LAUNCHERS[by]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (tmp_path / "noting.py").write_text(NOTING)
    small = ["--arch.name", "test_vit", "--arch.size", "32", "--data.size", "32", "--optim.batch", "4"]
    command = ["train", f"{tmp_path}/noting.py:noting", str(photos), *small, "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, port, "-m", "zoo", *command],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    steps = [(tmp_path / f"rank{rank}").read_text().splitlines() for rank in range(world)]
    assert steps == [[f"{step} {world}" for step in range(3)]] * world
    card = zoo.load(tmp_path / "run", device="cpu").card
    assert card.training is not None and card.training.steps == 3
