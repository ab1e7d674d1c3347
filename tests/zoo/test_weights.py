"""Weights on disk and in modules: exact round trips, and one report of whatever does not fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn

from zoo.errors import WeightsError
from zoo.files import sha256
from zoo.weights import fit_report, load_into, load_tensors, save_tensors, verify, without_storage

dtypes = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.bool])
shapes = st.lists(st.integers(0, 4), max_size=3)


def small(dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
    """A module with parameters, float buffers and an integer buffer."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).to(dtype)


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.tuples(shapes, dtypes))
)
def test_saved_tensors_are_loaded_the_same(
    tmp_path_factory: pytest.TempPathFactory, kinds: dict[str, tuple]
) -> None:
    if "__metadata__" in kinds:
        return  # the one name the format keeps for itself
    path = tmp_path_factory.mktemp("weights") / "x.safetensors"
    tensors = {name: (torch.randn(shape) * 9).to(dtype) for name, (shape, dtype) in kinds.items()}
    save_tensors(path, tensors)
    loaded = load_tensors(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)


def test_views_and_shared_memory_are_saved_as_their_values(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    save_tensors(tmp_path / "x.safetensors", {"a": base.T, "b": base, "c": base[:, 1]})
    loaded = load_tensors(tmp_path / "x.safetensors")
    assert torch.equal(loaded["a"], base.T) and torch.equal(loaded["c"], base[:, 1])
    assert loaded["a"].is_contiguous()


def test_the_same_tensors_are_the_same_bytes_and_metadata_is_kept(tmp_path: Path) -> None:
    one, two = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    tensors = small().state_dict()
    save_tensors(one, tensors)
    save_tensors(two, dict(reversed(tensors.items())))
    assert one.read_bytes() == two.read_bytes()
    save_tensors(two, tensors, {"step": "3"})
    with safe_open(two, "pt") as file:
        assert file.metadata() == {"format": "pt", "step": "3"}


def test_changing_loaded_weights_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.zeros(1000)})
    before = sha256(path)
    load_tensors(path)["a"].add_(1)
    assert sha256(path) == before and load_tensors(path)["a"].sum() == 0


@pytest.mark.parametrize("keep", [0, 4, 60, 400, -1])
def test_a_file_cut_short_is_an_error(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, small().state_dict())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        WeightsError, match=r"x\.safetensors \(\d+ bytes\) cannot be read: it is damaged or cut short"
    ):
        load_tensors(path)


def test_what_is_no_safetensors_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(WeightsError, match="does not exist"):
        load_tensors(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(WeightsError, match=r"Git LFS pointer.*git lfs pull"):
        load_tensors(path)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="pickled PyTorch checkpoint, which is never executed"):
        load_tensors(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsError, match="pickled"):
        load_tensors(path)


def test_a_file_is_verified_by_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2's example
    verify(path, digest)
    path.write_bytes(b"abd")
    with pytest.raises(WeightsError, match=r"sha256 a52d159f262b…, expected ba7816bf8f01…"):
        verify(path, digest)
    path.unlink()
    with pytest.raises(WeightsError, match="does not exist"):
        verify(path, digest)


# Into a module


@pytest.mark.parametrize("stored", [torch.float16, torch.float32])
@pytest.mark.parametrize("on", ["cpu", "meta"])
def test_a_module_is_filled_in_its_own_dtype(tmp_path: Path, stored: torch.dtype, on: str) -> None:
    source = {k: t.to(stored) if t.is_floating_point() else t for k, t in small(seed=1).state_dict().items()}
    save_tensors(tmp_path / "x.safetensors", source)
    with torch.device(on):
        module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        module[2].weight.requires_grad_(False)
    load_into(module, load_tensors(tmp_path / "x.safetensors"), where="x")
    for name, tensor in module.state_dict().items():
        assert tensor.device.type == "cpu"
        assert tensor.dtype == (torch.float32 if source[name].is_floating_point() else torch.int64)
        assert torch.equal(tensor, source[name].to(tensor.dtype))
    assert [p.requires_grad for p in module.parameters()] == [True, True, True, True, False, True]
    assert isinstance(module[2].weight, nn.Parameter)


def test_half_precision_modules_stay_half_precision() -> None:
    module = small(torch.bfloat16)
    load_into(module, small(seed=1).state_dict(), where="x")
    assert module[0].weight.dtype == torch.bfloat16
    assert torch.equal(module[0].weight, small(seed=1)[0].weight.bfloat16())


def test_a_swin_from_meta_computes_the_tables_no_file_holds() -> None:
    arguments = {
        "num_classes": 0,
        "img_size": 64,
        "window_size": 2,
        "embed_dim": 16,
        "depths": (2, 2),
        "num_heads": (1, 2),
    }
    swin = timm.create_model("swin_tiny_patch4_window7_224", **arguments).eval()
    with torch.device("meta"):
        blank = timm.create_model("swin_tiny_patch4_window7_224", **arguments).eval()
    load_into(blank, swin.state_dict(), where="x")
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(blank(pixels), swin(pixels))


def test_a_buffer_without_a_rule_is_an_error() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.register_buffer("table", torch.ones(2), persistent=False)

    with torch.device("meta"):
        module = Table()
    with pytest.raises(
        WeightsError, match="Table has no rule for its buffers table; build the module on the CPU"
    ):
        load_into(module, {"weight": torch.ones(1)}, where="x")


def test_all_that_does_not_fit_is_told_at_once_and_nothing_is_loaded() -> None:
    module = small()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    tensors: dict[str, Tensor] = small(seed=1).state_dict()
    tensors["0.wieght"] = tensors.pop("0.weight")
    tensors["2.bias"] = torch.zeros(5)
    tensors["1.num_batches_tracked"] = torch.tensor(0.5)
    with pytest.raises(WeightsError) as error:
        load_into(module, tensors, where="runs/x/model.safetensors")
    assert str(error.value).splitlines() == [
        "runs/x/model.safetensors does not fit Sequential:",
        "1 missing",
        "  0.weight (3, 4), like 0.wieght",
        "1 unexpected",
        "  0.wieght (3, 4), like 0.weight",
        "2 misshapen",
        "  1.num_batches_tracked (), expected () int64",
        "  2.bias (5), expected (2)",
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_long_report_is_cut_and_counted() -> None:
    module = nn.Sequential(*(nn.Linear(1, 1) for _ in range(20)))
    prefixed = {f"encoder.{name}": tensor for name, tensor in module.state_dict().items()}
    report = fit_report(module, prefixed)
    assert report.startswith("40 missing\n  0.weight (1, 1), like encoder.0.weight\n")
    assert report.count("… and 30 more") == 2 and len(report.splitlines()) == 24
    assert fit_report(module, module.state_dict()) == ""


def test_what_is_built_without_storage_is_built_in_full() -> None:
    """The same names, shapes and dtypes as under torch's own meta device, and other tensors are left alone."""
    with torch.device("meta"):
        slow = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1)
    with without_storage():
        fast = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1)
        real = torch.ones(2, device="cpu").mul_(3)
        nn.init.constant_(other := torch.empty(2, device="cpu"), 4.0)
    assert real.tolist() == [3, 3] and other.tolist() == [4, 4]
    told = [
        {name: (tensor.shape, tensor.dtype, tensor.device) for name, tensor in module.state_dict().items()}
        for module in (slow, fast)
    ]
    assert told[0] == told[1] and all(device.type == "meta" for _, _, device in told[1].values())
