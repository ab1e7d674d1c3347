"""Rules every test lives by: one thread for each worker, repeatable examples, no silent skip in CI."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    from hub_server import Hub
    from torch import nn

# Before anything imports torch: two workers with two threads each would fight for two cores, and sums taken by one
# thread come out the same on every machine.
for _threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_threads] = "1"
# Uploads go over plain HTTP, which tests/hub_server.py speaks, and nothing is told to anybody.
os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

import hypothesis  # noqa: E402
import pytest  # noqa: E402

CI = os.environ.get("CI", "").lower() in {"1", "true"}

# A slow machine is no bug, so no deadline; in CI the same examples every time, so that red means the change is red.
hypothesis.settings.register_profile("zoo", deadline=None, max_examples=30, derandomize=CI, print_blob=not CI)
hypothesis.settings.load_profile("zoo")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.fixture(scope="session", autouse=True)
def _own_zoo_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A local zoo of the run's own: tests neither see nor touch the one in the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(tmp_path_factory.mktemp("zoo_home")))
        yield


@pytest.fixture(scope="session")
def randomise() -> Callable[..., None]:
    """Draws every parameter and statistic of a module anew, large enough that a misplaced tensor shows."""

    import torch

    def draw(module: nn.Module, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                fixed = ("decoder_pos_embed", "inv_freq", "rope.", "k_bias")
                if not tensor.is_floating_point() or any(word in name for word in fixed):
                    continue
                noise = torch.randn(tensor.shape, generator=generator)
                if "running_var" in name:
                    tensor.copy_(0.5 + noise.abs())
                elif tensor.ndim > 1 and not any(word in name for word in ("token", "pos", "table")):
                    tensor.copy_(noise * tensor.flatten(1).shape[1] ** -0.5)
                else:
                    scale = tensor.ndim == 1 and not name.endswith("bias") and "running" not in name
                    tensor.copy_((1.0 if scale else 0.0) + 0.3 * noise)

    return draw


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A live Hub that HF_ENDPOINT names, an empty cache of the client's, an empty local zoo, and nobody logged in."""
    from hub_server import running

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "zoo_home"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return report if item.get_closest_marker("gpu") else _no_skip_in_ci(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_skip_in_ci((yield))


def _no_skip_in_ci(report: Report) -> Report:
    """Under CI=true a skip becomes a failure: a dependency that went missing must not turn tests off in silence."""
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {reason}. Under CI=true only tests marked `gpu` may be skipped."
    return report
