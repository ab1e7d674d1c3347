"""Reading strangers' checkpoints: every format, settings of trainers, and pickles that would do harm."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import sys
import tarfile
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.checkpoints import read_checkpoint
from zoo.errors import WeightsError
from zoo.weights import save_tensors

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("name", ["m.pth", "m.pth.tar", "m.bin", "m.torch", "m.safetensors"])
@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_saves(tmp_path: Path, name: str, legacy: bool) -> None:
    """Under any name: a suffix says little about a file."""
    torch.save(TENSORS, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    branches = read_checkpoint(tmp_path / name)
    assert branches.keys() == {""} and same(branches[""])


@pytest.mark.parametrize("name", ["m.safetensors", "m.bin"])
def test_safetensors(tmp_path: Path, name: str) -> None:
    save_tensors(tmp_path / name, TENSORS)
    assert same(read_checkpoint(tmp_path / name)[""])


def test_nested_dictionaries_are_found_by_their_keys(tmp_path: Path) -> None:
    nested = {
        "classy_state_dict": {"base_model": {"model": {"trunk": TENSORS}}},
        "epoch": 3,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
        "list": [torch.ones(2)],
    }
    torch.save(nested, tmp_path / "m.pth")
    branches = read_checkpoint(tmp_path / "m.pth")
    assert list(branches) == ["classy_state_dict.base_model.model.trunk"]
    assert same(branches["classy_state_dict.base_model.model.trunk"])


def test_a_zip_around_one_checkpoint(tmp_path: Path) -> None:
    torch.save({"network": TENSORS}, tmp_path / "m.pth")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.write(tmp_path / "m.pth", "obow/m.pth.tar")
        archive.writestr("obow/README", "x")
    assert same(read_checkpoint(tmp_path / "m.zip")["network"])
    with zipfile.ZipFile(tmp_path / "m.zip", "a") as archive:
        archive.write(tmp_path / "m.pth", "obow/n.pth.tar")
    with pytest.raises(WeightsError, match="2 checkpoints in it"):
        read_checkpoint(tmp_path / "m.zip")


class _Loud(dict[str, Any]):
    """A class that must never be made from a file."""

    def __init__(self, *arguments: object) -> None:
        super().__init__()
        raise AssertionError("real code ran")

    def __setstate__(self, state: object) -> None:
        raise AssertionError("real code ran")


@pytest.mark.parametrize("legacy", [False, True])
def test_settings_of_trainers_are_read_as_stand_ins(
    tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    module: Any = types.ModuleType("yacs.config")
    module.CfgNode = node
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    config = node({"MODEL": node({"TYPE": "swin"})})
    config.__dict__["__immutable__"] = True
    content = {
        "model": TENSORS,
        "args": argparse.Namespace(lr=0.1, output=Path("x")),
        "config": config,
        "best_acc1": np.float64(71.1),
        "history": np.arange(3),
    }
    torch.save(content, tmp_path / "m.pth", _use_new_zipfile_serialization=not legacy)
    module.CfgNode = _Loud  # from here on the real class would be noticed
    monkeypatch.setattr(argparse, "Namespace", _Loud)
    branches = read_checkpoint(tmp_path / "m.pth")
    assert same(branches["model"]) and list(branches) == ["model"]


class _Harm:
    def __init__(self, call: Any, *arguments: object) -> None:
        self.reduced = (call, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("call", ["system", "mkdir", "eval", "exec", "getattr"])
def test_a_malicious_pickle_does_nothing(tmp_path: Path, legacy: bool, call: str) -> None:
    mark = tmp_path / "harm"
    harm = {
        "system": _Harm(os.system, f"touch {mark}"),
        "mkdir": _Harm(os.mkdir, str(mark)),
        "eval": _Harm(eval, f"open({str(mark)!r}, 'w')"),
        "exec": _Harm(exec, f"open({str(mark)!r}, 'w')"),
        "getattr": _Harm(getattr, "x", "upper"),
    }[call]
    torch.save(
        {"model": TENSORS, "args": harm}, tmp_path / "m.pth", _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(WeightsError, match=r"m\.pth.*never executed.*sandbox"):
        read_checkpoint(tmp_path / "m.pth")
    assert not mark.exists()


def test_an_object_of_a_stranger_is_refused_by_its_name(tmp_path: Path) -> None:
    torch.save({"model": TENSORS, "loss": torch.nn.MSELoss()}, tmp_path / "m.pth")
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.loss\.MSELoss"):
        read_checkpoint(tmp_path / "m.pth")


def test_plain_pickles_are_damaged_files(tmp_path: Path) -> None:
    mark = tmp_path / "harm"
    for protocol in (0, 2, 4):
        file = tmp_path / f"{protocol}.pth"
        file.write_bytes(pickle.dumps(_Harm(os.mkdir, str(mark)), protocol=protocol))
        with pytest.raises(WeightsError, match="pth"):
            read_checkpoint(file)
    assert not mark.exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kept", [0, 1, 40, 0.5, -5])
def test_a_truncated_file(tmp_path: Path, legacy: bool, kept: float) -> None:
    file = tmp_path / "m.pth"
    torch.save({"model": TENSORS}, file, _use_new_zipfile_serialization=not legacy)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else int(kept)])
    with pytest.raises(WeightsError, match=r"m\.pth.*(damaged|pickled)"):
        read_checkpoint(file)


def test_the_tar_format_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "m.pth", "w") as archive:
        for name in ("pickle", "storages", "tensors"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    with pytest.raises(WeightsError, match="tar format of before 2017"):
        read_checkpoint(tmp_path / "m.pth")


def test_no_file_and_no_tensors(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pth")
    for content in ([torch.ones(2)], {"epoch": 3}, {"state": {0: torch.ones(2)}}):
        torch.save(content, tmp_path / "m.pth")
        with pytest.raises(WeightsError, match="without any named tensors"):
            read_checkpoint(tmp_path / "m.pth")


def test_the_list_of_allowed_names_is_left_as_it_was(tmp_path: Path) -> None:
    before = {str(each) for each in torch.serialization.get_safe_globals()}
    torch.save({"model": TENSORS}, tmp_path / "m.pth")
    read_checkpoint(tmp_path / "m.pth")
    assert {str(each) for each in torch.serialization.get_safe_globals()} == before
