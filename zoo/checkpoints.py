"""The tensors in a published checkpoint, whatever wrote it; nothing in the file is ever executed.

A pickle is read by torch's restricted unpickler. The settings that trainers leave in theirs (argparse's Namespace,
yacs' CfgNode, numpy's scalars, …) are read as inert stand-ins; any other object is refused by its name.
"""

from __future__ import annotations

import pickle
import shutil
import tarfile
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.weights import load_tensors

Branches = dict[str, dict[str, Tensor]]


class _Inert:
    """Stands in for a class or function: takes whatever the pickle gives it, does nothing and keeps nothing."""

    def __init__(self, *arguments: object) -> None: ...

    def __new__(cls, *arguments: object) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None: ...


# What checkpoints hold besides tensors. The names are matched as text: none of these modules is imported.
_SETTINGS = (
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",  # MoCo's and SwAV's best accuracy
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
    "_codecs.encode",  # how protocol 2 spells the bytes of a numpy number
    "pathlib.PosixPath",
    "pathlib.Path",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
)
# Those that are dictionaries: the restricted unpickler fills only plain ones.
_DICTIONARIES = (
    "yacs.config.CfgNode",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "addict.addict.Dict",
    "easydict.EasyDict",
)
_STAND_INS: list[Any] = [
    *((_Inert, name) for name in _SETTINGS),
    *((OrderedDict, name) for name in _DICTIONARIES),
]

_lock = threading.Lock()  # torch's list of allowed names belongs to the whole process


def read_checkpoint(path: str | Path) -> Branches:
    """Every dictionary of tensors in a checkpoint, by the dotted keys that lead to it; "" is the file's own top.

    Takes .safetensors, whatever torch.save wrote (.pth, .pt, .bin, .torch, .pth.tar) and a .zip archive around one such
    file. Raises WeightsError for a missing, damaged or empty file, and for one that holds objects.

    >>> read_checkpoint("dino_deitsmall16_pretrain_full_checkpoint.pth").keys()
    dict_keys(['student', 'teacher', 'dino_loss'])
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is no file; it should be a checkpoint")
    if not _is_pickled(path):
        return {"": load_tensors(path)}
    content = _load_archive(path) if _is_archive(path) else _load_pickle(path, path)
    branches: Branches = {}
    _gather(content, "", branches)
    if not branches:
        raise WeightsError(
            f"{path} holds a {type(content).__name__} without any named tensors; a checkpoint is a dictionary of them"
        )
    return branches


def _is_pickled(path: Path) -> bool:
    """Whether the first bytes are those of torch.save, of a zip or of a tar archive; names of files are often wrong."""
    with path.open("rb") as file:
        start = file.read(4)
    return start.startswith((b"PK\x03\x04", b"\x80")) or tarfile.is_tarfile(path)


def _is_archive(path: Path) -> bool:
    """Whether this is a .zip around checkpoints rather than torch's own format, which is a zip file as well."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return not any(name.endswith(("/data.pkl", "/constants.pkl")) for name in archive.namelist())


def _load_archive(path: Path) -> Any:
    """The one checkpoint in a .zip, as OBoW publishes its."""
    with zipfile.ZipFile(path) as archive:
        files = [info.filename for info in archive.infolist() if not info.is_dir()]
        inside = [
            name for name in files if ".pth" in name or name.endswith((".pt", ".bin", ".torch", ".tar"))
        ]
        if len(inside) != 1:
            shown = ", ".join(files[:8]) or "nothing"
            raise WeightsError(
                f"{path} is an archive with {len(inside)} checkpoints in it ({shown}); "
                "unpack it and pass the file you mean"
            )
        with archive.open(inside[0]) as packed, tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(packed, unpacked)
            unpacked.seek(0)
            return _load_pickle(unpacked, path)


def _load_pickle(source: Path | IO[bytes], path: Path) -> Any:
    """What torch.save wrote, memory-mapped where it can be."""
    mapped = isinstance(source, Path) and zipfile.is_zipfile(source)
    if isinstance(source, Path) and not mapped and tarfile.is_tarfile(source):
        raise WeightsError(
            f"{path} is in PyTorch's tar format of before 2017, which cannot be read without executing it; "
            "where you trust its author, load it in a sandbox and save it again with torch.save"
        )
    if path.suffix == ".safetensors" and source is path:  # torch.load would go by the name
        with path.open("rb") as file:
            return _load_pickle(file, path)
    try:
        with _lock, torch.serialization.safe_globals(_STAND_INS):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise WeightsError(_refusal(path, str(error))) from None
    except Exception as error:  # bytes that are no checkpoint make the unpickler raise anything at all
        raise WeightsError(_damaged(path, error)) from None


def _refusal(path: Path, says: str) -> str:
    """What the restricted unpickler stumbled over, and the way out."""
    name = says.partition("GLOBAL ")[2].partition(" ")[0]
    if not name:
        return _damaged(path, pickle.UnpicklingError(says.partition("\n")[0]))
    convert = (
        "import torch; c = torch.load('FILE', weights_only=False); torch.save(c['state_dict'], 'TENSORS.pth')"
    )
    return (
        f"{path} holds an object of {name} beside its tensors, and pickled objects are never executed; "
        f'where you trust its author, run in a sandbox: python -c "{convert}" and pass TENSORS.pth'
    )


def _damaged(path: Path, error: Exception) -> str:
    says = (str(error) or type(error).__name__).partition("\n")[0]
    size = path.stat().st_size
    return f"{path} ({size:,} bytes) cannot be read: it is no checkpoint, damaged or cut short ({says}); fetch it again"


def _gather(value: object, where: str, branches: Branches) -> None:
    """Collect the tensors directly inside each dictionary with names for keys, however deep."""
    if not isinstance(value, Mapping):
        return
    named = {key: each for key, each in value.items() if isinstance(key, str)}
    if tensors := {key: each.detach() for key, each in named.items() if isinstance(each, Tensor)}:
        branches[where] = tensors
    for key, each in named.items():
        _gather(each, f"{where}.{key}" if where else key, branches)
