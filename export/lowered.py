"""float32 graphs in the precisions that TensorRT takes: what a node computes in stands in the graph itself.

Since TensorRT 11 every network is strongly typed, and nothing is made faster behind the graph's back. fp16 is NVIDIA's
AutoCast, which keeps in float32 what overflows on the samples; int8 is explicit Q/DQ around the products with weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from zoo.errors import Unsupported
from zoo.export.quantize import products_with_weights, quiet

Samples = Mapping[str, NDArray[Any]]  # inputs by name, (B, …) each

MODELOPT = "nvidia-modelopt nvidia-ml-py cppimport lief onnx-graphsurgeon onnxslim polygraphy"


def to_fp16(model: onnx.ModelProto, samples: Samples) -> onnx.ModelProto:
    """The graph in float16 with float32 inputs and outputs, by ModelOpt's AutoCast.

    Nodes whose values leave float16's range on the samples stay in float32. Raises Unsupported without ModelOpt.
    """

    def cast(given: Path, made: Path) -> None:
        np.savez(given.with_suffix(".npz"), **samples)  # type: ignore[arg-type]  # numpy's hint takes one array
        lowered = _autocast().convert_to_mixed_precision(
            str(given),
            low_precision_type="fp16",
            keep_io_types=True,
            calibration_data=str(given.with_suffix(".npz")),
        )
        onnx.save(lowered, made)

    return _through_files(model, cast)


def _autocast() -> ModuleType:
    try:
        autocast = importlib.import_module("modelopt.onnx.autocast")
    except ImportError as error:
        # Its extra [onnx] would take onnx and onnxruntime years back.
        raise Unsupported(
            f"fp16 for TensorRT is made by ModelOpt, which is not installed whole ({str(error).splitlines()[0]}); "
            f"type: pip install {MODELOPT}"
        ) from error
    return autocast


def to_int8(model: onnx.ModelProto, samples: Samples) -> onnx.ModelProto:
    """The graph with Q/DQ pairs around its products with weights: symmetric int8, one scale per column of a weight.

    TensorRT knows neither zero points nor int32 biases, so there are none. Scales come from the samples' extremes.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    def quantize(given: Path, made: Path) -> None:
        quantize_static(
            str(given),
            str(made),
            _reader(samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=products_with_weights(model),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )

    return _through_files(model, quantize)


def _reader(samples: Samples) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
        """The samples once, one by one: the calibrator keeps every tensor of the graph for each call."""

        def __init__(self) -> None:
            count = len(next(iter(samples.values())))
            self._rows = iter(
                [{name: each[i : i + 1] for name, each in samples.items()} for i in range(count)]
            )

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._rows, None)

    return Reader()


def _through_files(model: onnx.ModelProto, convert: Callable[[Path, Path], None]) -> onnx.ModelProto:
    """A converter from file to file as one from model to model. Metadata are kept."""
    with TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        onnx.save(model, given)
        with quiet():
            convert(given, made)
        lowered = onnx.load(made)
    del lowered.graph.value_info[:]  # AutoCast leaves shapes of the sample's batch there
    del lowered.metadata_props[:]
    lowered.metadata_props.extend(model.metadata_props)
    return lowered
