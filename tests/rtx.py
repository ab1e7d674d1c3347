"""Which graphs TensorRT takes, asked of NVIDIA's own parser and builder, on a machine without a GPU.

The wheel onnxruntime-ep-nv-tensorrt-rtx-cu13 carries TensorRT-RTX, whose builder needs no driver. Its libraries speak
C++: every object starts with the address of a table of its virtual methods, in the order of the headers. The slots
below are those of version 1.7.1, and no other version is touched.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VERSION = 10701  # 1.7.1
Address = ctypes.c_void_p
Text = ctypes.c_char_p
Int = ctypes.c_int32

BUILDER = {"config": 5, "network": 6, "profile": 7, "build": 11}
NETWORK = {"layers": 12, "inputs": 14, "input": 15}
PARSER = {"parse": 1, "errors": 3, "error": 4}
ERROR = {"text": 1, "operator": 7}
TENSOR_NAME, SET_DIMENSIONS, ADD_PROFILE, MEMORY_DATA, MEMORY_SIZE = 3, 2, 23, 2, 3
LOG_SLOTS = 5  # of ILogger: language, interface, two destructors, log
WARNING = 2  # severities: internal error, error, warning, …

Shapes = Mapping[str, tuple[tuple[int, ...], ...]]  # of each input: the least, the likeliest, the greatest


class Refused(Exception):
    """What TensorRT's parser or builder said when it did not take a graph."""


@dataclass(frozen=True)
class Built:
    """An engine and the network it was built from."""

    engine: bytes
    layers: int
    inputs: tuple[str, ...]


class _Dims(ctypes.Structure):
    _fields_ = [("count", Int), ("sides", ctypes.c_int64 * 8)]


class RtxBuilder:
    """TensorRT-RTX's ahead-of-time builder. Skips the test where the wheel is not installed."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
        if spec is None or spec.origin is None:
            pytest.skip("needs the wheel onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0 (Linux on x86-64)")
        folder = Path(spec.origin).parent
        self._runtime = ctypes.CDLL(str(folder / "libtensorrt_rtx.so.1.7.1"), mode=ctypes.RTLD_GLOBAL)
        self._parsers = ctypes.CDLL(str(folder / "libtensorrt_onnxparser_rtx.so.1.7.1"))
        found = self._runtime.getInferLibVersion()
        assert found == VERSION, f"the slots are those of {VERSION}, and the library is {found}"
        self._messages: list[str] = []
        self._logger = self._make_logger()

    def build(self, onnx: Path, shapes: Shapes) -> Built:
        """Parse and build, strongly typed as TensorRT 11 is. shapes: of the inputs with dynamic dimensions."""
        self._messages.clear()
        builder = self._made("createInferBuilder_INTERNAL", self._runtime, self._log, VERSION)
        network = _call(_inner(builder), BUILDER["network"], Address, ctypes.c_uint32(0))
        self._parse(onnx, network)
        inputs = self._inputs(network)
        config = _call(_inner(builder), BUILDER["config"], Address)
        _call(_inner(config), ADD_PROFILE, Int, Address(self._profile(builder, shapes)))
        memory = _call(_inner(builder), BUILDER["build"], Address, Address(network), Address(config))
        if not memory:
            raise Refused("\n".join(self._messages))
        size = _call(_inner(memory), MEMORY_SIZE, ctypes.c_size_t)
        engine = ctypes.string_at(_call(_inner(memory), MEMORY_DATA, Address), size)
        return Built(engine, _call(_inner(network), NETWORK["layers"], Int), inputs)

    def _parse(self, onnx: Path, network: int) -> None:
        version = self._parsers.getNvOnnxParserVersion()
        parser = self._made(
            "createNvOnnxParser_INTERNAL", self._parsers, Address(network), self._log, version
        )
        if _call(parser, PARSER["parse"], ctypes.c_bool, Text(str(onnx).encode()), Int(WARNING)):
            return
        errors = (
            _call(parser, PARSER["error"], Address, Int(index))
            for index in range(_call(parser, PARSER["errors"], Int))
        )
        said = [
            [_call(error, ERROR[what], Text).decode() for what in ("operator", "text")] for error in errors
        ]
        raise Refused("\n".join(f"{operator}: {text}" for operator, text in said))

    def _inputs(self, network: int) -> tuple[str, ...]:
        inner = _inner(network)
        tensors = (
            _call(inner, NETWORK["input"], Address, Int(index))
            for index in range(_call(inner, NETWORK["inputs"], Int))
        )
        return tuple(_call(_inner(tensor), TENSOR_NAME, Text).decode() for tensor in tensors)

    def _profile(self, builder: int, shapes: Shapes) -> int:
        profile: int = _call(_inner(builder), BUILDER["profile"], Address)
        for name, triple in shapes.items():
            for which, shape in enumerate(triple):
                dims = _Dims(len(shape), (ctypes.c_int64 * 8)(*shape))
                arguments = (Text(name.encode()), Int(which), ctypes.pointer(dims))
                assert _call(_inner(profile), SET_DIMENSIONS, ctypes.c_bool, *arguments)
        return profile

    def _made(self, function: str, library: ctypes.CDLL, *arguments: Any) -> int:
        """What one of the libraries' C functions creates."""
        creates = getattr(library, function)
        creates.restype = Address
        made: int = creates(*arguments)
        assert made, function
        return made

    @property
    def _log(self) -> Address:
        return Address(ctypes.addressof(self._logger))

    def _make_logger(self) -> ctypes.Array[Address]:
        """An ILogger of our own: an object, its table and its functions, which live as long as this builder."""
        nothing = ctypes.CFUNCTYPE(None, Address)(lambda this: None)
        language = ctypes.CFUNCTYPE(Int, Address)(lambda this: 0)
        name = Text(b"ILogger")
        interface = ctypes.CFUNCTYPE(Address, Address)(lambda this: ctypes.cast(name, Address).value)

        def keep(this: int, severity: int, message: bytes) -> None:
            if severity <= WARNING:
                self._messages.append(message.decode(errors="replace"))

        log = ctypes.CFUNCTYPE(None, Address, Int, Text)(keep)
        functions = (language, interface, nothing, nothing, log)
        table = (Address * LOG_SLOTS)(*(ctypes.cast(function, Address) for function in functions))
        self._kept = (functions, name, table)
        return (Address * 2)(ctypes.addressof(table), None)


def _inner(public: int) -> int:
    """The implementation behind an object of NvInfer.h: its second word."""
    inner = ctypes.cast(public, ctypes.POINTER(Address))[1]
    assert inner is not None
    return inner


def _call(this: int, slot: int, result: Any, *arguments: Any) -> Any:
    """Call the virtual method in a slot of an object's table."""
    table = ctypes.cast(this, ctypes.POINTER(Address))[0]
    assert table is not None
    method = ctypes.cast(table, ctypes.POINTER(Address))[slot]
    assert method is not None
    types = [type(argument) for argument in arguments]
    return ctypes.CFUNCTYPE(result, Address, *types)(method)(this, *arguments)
