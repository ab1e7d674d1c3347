"""ONNX -> TensorRT, by two doors: an engine built here and kept, or ONNX Runtime's TensorRT provider.

Written to NVIDIA's API of TensorRT 10.12 to 11.4. No machine of ours can run an engine: what the tests prove is that
TensorRT-RTX's parser and builder take the graphs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.errors import Unsupported, WeightsError
from zoo.export.engines import EngineError, EngineFacts, Place, check_belongs, read_facts, write_facts
from zoo.export.profiles import Range, Shapes, metadata_of, shapes_for
from zoo.files import atomic_write, sha256

PROVIDER = "TensorrtExecutionProvider"
OTHERWISE = ("CUDAExecutionProvider", "CPUExecutionProvider")  # for what TensorRT leaves out
NO_PROVIDER = (
    "onnxruntime's TensorRT provider does not run here: it needs a GPU and the libnvinfer.so it is linked with "
    "(`ldd` on libonnxruntime_providers_tensorrt.so names what is missing)"
)


def build_engine(
    onnx: str | Path,
    out: str | Path,
    *,
    profiles: Mapping[str, Range] | None = None,
    workspace: int | None = None,
    timing_cache: str | Path | None = None,
) -> EngineFacts:
    """Build a strongly typed engine of a graph into OUT, with OUT.json beside it.

    profiles: least, likeliest and greatest length of each free axis (zoo/export/profiles.py). workspace: bytes of GPU
    memory for scratch, by default all of it. timing_cache: a file of measured kernels to start from and to add to.
    Raises Unsupported without the tensorrt package or a GPU, EngineError with TensorRT's own words.

    >>> build_engine("exported/model.onnx", "exported/model.engine", profiles={"batch": (1, 16, 64)})
    """
    trt, onnx, out = _tensorrt(), Path(onnx), Path(out)
    shapes, place = shapes_for(onnx, profiles), _here(trt)
    builder, config, network = _prepared(trt, onnx, shapes)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if timing_cache is not None:
        _start_from(config, Path(timing_cache))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT {place.tensorrt} built no engine of {onnx}; its messages are above")
    with atomic_write(out) as temporary:
        temporary.write_bytes(plan)
    if timing_cache is not None:
        with atomic_write(timing_cache) as temporary:
            temporary.write_bytes(config.get_timing_cache().serialize())
    facts = EngineFacts(onnx.name, sha256(onnx), sha256(out), place, shapes)
    write_facts(out, facts)
    return facts


def _prepared(trt: Any, onnx: Path, shapes: Shapes) -> tuple[Any, Any, Any]:
    """Builder, configuration with one optimisation profile, and the parsed network."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # TensorRT 11 knows nothing else, and accepts the flag.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        said = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise EngineError(f"TensorRT does not take {onnx}: {said}")
    config = builder.create_builder_config()
    if shapes:
        profile = builder.create_optimization_profile()
        for name, three in shapes.items():
            profile.set_shape(name, *three)
        config.add_optimization_profile(profile)
    return builder, config, network


def _start_from(config: Any, file: Path) -> None:
    """Give the builder a timing cache; one of another version or GPU counts as none."""
    stored = file.read_bytes() if file.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(stored), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


class Engine:
    """An engine that belongs here, loaded. Raises EngineError where it does not.

    >>> Engine("exported/model.engine")(pixels=pixels)["pooled"]
    """

    def __init__(self, path: str | Path) -> None:
        trt, path = _tensorrt(), Path(path)
        self.facts = read_facts(path)
        check_belongs(path, self.facts, _here(trt))
        self._modes, self._logger = trt.TensorIOMode, trt.Logger(trt.Logger.WARNING)
        self._engine = trt.Runtime(self._logger).deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineError(f"TensorRT could not load {path}; its messages are above")
        self._context = self._engine.create_execution_context()

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Outputs by name. Raises EngineError for a shape outside the profile."""
        stream = torch.cuda.current_stream()
        given = {name: torch.from_numpy(np.ascontiguousarray(each)).cuda() for name, each in inputs.items()}
        for name, tensor in given.items():
            if not self._context.set_input_shape(name, tuple(tensor.shape)):
                built = self.facts.profiles.get(name)
                raise EngineError(f"{name} of shape {tuple(tensor.shape)} is outside the engine's {built}")
            self._context.set_tensor_address(name, tensor.data_ptr())
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        outputs = [name for name in names if self._engine.get_tensor_mode(name) == self._modes.OUTPUT]
        made = {name: torch.empty(tuple(self._context.get_tensor_shape(name))).cuda() for name in outputs}
        for name, tensor in made.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise EngineError("TensorRT did not run the engine; its messages are above")
        stream.synchronize()
        return {name: tensor.cpu().numpy() for name, tensor in made.items()}


def require_tensorrt() -> Place:
    """What an engine would be built with here. Raises Unsupported without the tensorrt package or a GPU."""
    return _here(_tensorrt())


def _tensorrt() -> Any:
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        raise Unsupported(
            "engines are built by NVIDIA's tensorrt package, which is not installed (--no-engine stops at the graph); "
            "type: pip install tensorrt"
        ) from error


def _here(trt: Any) -> Place:
    if not torch.cuda.is_available():
        raise Unsupported("TensorRT measures kernels on the GPU that will run them, and there is none here")
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Place(str(trt.__version__), properties.name, f"{properties.major}.{properties.minor}")


def provider_options(shapes: Shapes, cache: Path, precision: str) -> dict[str, str]:
    """Options of ONNX Runtime's TensorRT provider: engines and timings are kept in `cache`, shapes are as given.

    precision: the graph's. The provider's network is weakly typed, so it must be allowed what the graph asks for, and a
    float32 graph nothing else.
    """
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        "trt_fp16_enable": str(int(precision == "fp16")),
        "trt_int8_enable": str(int(precision == "int8")),
    }
    for which, key in enumerate(("min", "opt", "max")):
        spelt = [f"{name}:{'x'.join(map(str, three[which]))}" for name, three in shapes.items()]
        if spelt:
            options[f"trt_profile_{key}_shapes"] = ",".join(spelt)
    return options


def session(onnx: str | Path, cache: str | Path, *, profiles: Mapping[str, Range] | None = None) -> Any:
    """An onnxruntime session on its TensorRT provider, the second door. Engines are kept in `cache`.

    Raises Unsupported where another provider would run the graph: onnxruntime says so only in its log.
    """
    import onnxruntime

    onnx, cache = Path(onnx), Path(cache)
    if not onnx.is_file():
        raise WeightsError(
            f"there is no graph {onnx}; `zoo export MODEL --to onnx --out {onnx.parent}` makes one"
        )
    if PROVIDER not in onnxruntime.get_available_providers():
        raise Unsupported("this onnxruntime has no TensorRT provider; type: pip install onnxruntime-gpu")
    cache.mkdir(parents=True, exist_ok=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would say in many lines is said below in one
    precision = metadata_of(onnx).get("precision", "fp32")
    provider = (PROVIDER, provider_options(shapes_for(onnx, profiles), cache, precision))
    try:
        made = onnxruntime.InferenceSession(
            str(onnx), options, providers=[provider, *OTHERWISE], enable_fallback=0
        )
    except RuntimeError as error:
        raise Unsupported(f"{NO_PROVIDER}, and says: {str(error).splitlines()[0]}") from error
    if (runs := made.get_providers())[0] != PROVIDER:
        raise Unsupported(f"{NO_PROVIDER}, so {runs[0]} would run this")
    return made
