"""Tensors on disk as safetensors, and into a module with one report of everything that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.errors import WeightsError, nearest
from zoo.files import atomic_write, sha256

SHOWN = 10  # names of each kind in a report

# Tensor methods that a module's own initialisation is made of, beside the functions of torch.nn.init.
_FILLS = {"normal_", "uniform_", "erfinv_", "mul_", "add_", "clamp_", "zero_", "fill_"}

# First bytes of files that are often mistaken for safetensors.
_OTHERS = {
    b"version https://git-lfs": "it is a Git LFS pointer, not the file itself; type `git lfs pull`",
    b"PK\x03\x04": "it is a pickled PyTorch checkpoint, which is never executed; save its tensors as safetensors",
    b"\x80": "it is a pickled PyTorch checkpoint, which is never executed; save its tensors as safetensors",
}


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors, contiguous and none sharing memory, at once or not at all. Symmetric with `load_tensors`.

    safetensors writes several metadata entries in a random order, so only a file with none of its own has always the
    same bytes.
    """
    plain = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with atomic_write(path) as temporary:
        save_file(plain, temporary, metadata={"format": "pt", **(metadata or {})})


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file by name, memory-mapped. Raises WeightsError for a missing or damaged file."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is no file; it should hold safetensors")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        with path.open("rb") as file:
            start = file.read(32)
        reason = next((why for first, why in _OTHERS.items() if start.startswith(first)), None)
        cut = f"it is damaged or cut short ({error}); fetch or train it again"
        raise WeightsError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read: {reason or cut}"
        ) from None


def verify(path: str | Path, digest: str) -> None:
    """Raises WeightsError where the file's sha256 is not `digest`, or there is no such file."""
    if not Path(path).is_file():
        raise WeightsError(
            f"{path} does not exist, though its card has a sha256 for it; fetch or train it again"
        )
    if (found := sha256(path)) != digest:
        raise WeightsError(
            f"{path} is not the file its card describes: sha256 {found[:12]}…, expected {digest[:12]}…; "
            "fetch or train it again"
        )


@contextmanager
def without_storage() -> Iterator[None]:
    """Build modules in here as under `torch.device("meta")`, in a sixth of the time; `load_into` fills them.

    Initialising weights that have no storage does nothing, and yet takes longer than all the rest of a build.
    """
    with torch.device("meta"), _Uninitialised():
        yield


class _Uninitialised(TorchFunctionMode):
    """Leaves out whatever would only fill a tensor without storage."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        fills = getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in _FILLS
        if fills and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Give a module its weights, which keep the module's dtype: float16 files fill float32 modules exactly.

    A module built under `torch.device("meta")` is filled without being initialised first; where the file has the
    module's dtype its weights stay memory-mapped. where: what to call the tensors in the report.
    Raises WeightsError with every missing, unexpected and misshapen tensor.
    """
    if report := fit_report(module, tensors):
        raise WeightsError(f"{where} does not fit {type(module).__name__}:\n{report}")
    wanted = module.state_dict()
    on_meta = any(tensor.is_meta for tensor in wanted.values())
    given = {name: tensors[name].to(wanted[name].dtype) for name in wanted} if on_meta else dict(tensors)
    module.load_state_dict(given, assign=on_meta)
    if on_meta:
        _fill_buffers(module)


def fit_report(module: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """What keeps `tensors` from being the module's weights, in lines; empty where they fit."""
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    misshapen = [name for name in wanted if name in tensors and not _alike(wanted[name], tensors[name])]
    sections = (
        _section("missing", missing, lambda n: f"{_shape(wanted[n])}{_near(n, unexpected)}"),
        _section("unexpected", unexpected, lambda n: f"{_shape(tensors[n])}{_near(n, missing)}"),
        _section("misshapen", misshapen, lambda n: f"{_shape(tensors[n])}, expected {_shape(wanted[n])}"),
    )
    return "\n".join(section for section in sections if section)


def _alike(wanted: Tensor, given: Tensor) -> bool:
    """Same shape, and both numbers of the same sort: a float weight is never cut to integers."""
    return wanted.shape == given.shape and wanted.is_floating_point() == given.is_floating_point()


def _shape(tensor: Tensor) -> str:
    dtype = "" if tensor.is_floating_point() else f" {tensor.dtype}".replace("torch.", "")
    return f"({', '.join(map(str, tensor.shape))}){dtype}"


def _near(name: str, others: list[str]) -> str:
    found = nearest(name, others)
    return f", like {found}" if found else ""


def _section(title: str, names: list[str], told: Callable[[str], str]) -> str:
    """The first names of a kind with what is told of each, and how many more there are; empty where there are none."""
    if not names:
        return ""
    more = [f"… and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return "\n  ".join([f"{len(names)} {title}", *(f"{name} {told(name)}" for name in names[:SHOWN]), *more])


def _fill_buffers(module: nn.Module) -> None:
    """Compute the buffers still without storage: those no file holds, such as timm's tables of relative positions."""
    for part in module.modules():
        empty = [name for name, buffer in part.named_buffers(recurse=False) if buffer.is_meta]
        for name in empty:
            setattr(part, name, torch.empty_like(getattr(part, name), device="cpu"))
        fill = getattr(part, "init_non_persistent_buffers", None)
        if empty and not callable(fill):
            raise WeightsError(
                f"{type(part).__name__} has no rule for its buffers {', '.join(empty)}; build the module on the CPU"
            )
        if empty and callable(fill):
            fill()
