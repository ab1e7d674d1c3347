"""float32 graphs in float16 and in int8, each in several ways: the first that passes the gate is taken.

fp16: what overflows or loses too much, LayerNorm and softmax first of all, stays in float32 where it must. int8:
weights per output channel, activations by their range in each call, for the CPU; convolutions (a ViT's patch embedding)
stay as they are, unless the graph is made of nothing else. Of a weight's 8 bits 7 are used: without VNNI a processor
adds pairs of products in 16 bits, and one file has to be right on all. Inputs and outputs are float32 in both.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import onnx

from zoo.errors import Unsupported


@dataclass(frozen=True)
class Way:
    """One way to lower a graph's precision."""

    kept: tuple[str, ...]  # what stays in float32, in words for the report
    lower: Callable[[onnx.ModelProto], onnx.ModelProto]


NORMS = ("LayerNormalization", "Softmax")
# What a norm or a GELU is made of, where it is spelt out.
PARTS = (*NORMS, "ReduceMean", "Pow", "Sqrt", "Reciprocal", "Erf", "Gelu", "InstanceNormalization")


def ways(precision: str, model: onnx.ModelProto) -> list[Way]:
    """How to make that precision, the fastest way first. Raises Unsupported where there is nothing to quantise."""
    if precision == "fp32":
        return [Way((), lambda given: given)]
    if precision == "fp16":
        return [Way(kept, _fp16(kept)) for kept in ((), NORMS, PARTS)]
    products = products_with_weights(model)
    if not products:
        if not any(node.op_type == "Conv" for node in model.graph.node):
            raise Unsupported("there is no product with weights in this graph to be made int8; export fp16")
        return [Way((), _int8(["Conv", "Gemm", "MatMul"], []))]
    after_gelu = _after(model, products, {"Gelu", "Erf", "Relu"})
    ends = [*products[:4], *products[-4:]]
    return [
        Way((), _int8(["MatMul", "Gemm"], [])),
        Way(("each MLP's second layer",), _int8(["MatMul", "Gemm"], after_gelu)),
        Way(
            ("each MLP's second layer", "the first and last block"),
            _int8(["MatMul", "Gemm"], [*after_gelu, *ends]),
        ),
    ]


def _fp16(kept: tuple[str, ...]) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    def lower(model: onnx.ModelProto) -> onnx.ModelProto:
        from onnxruntime.transformers import float16

        blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *kept]
        with quiet():
            lowered: onnx.ModelProto = float16.convert_float_to_float16(
                copy.deepcopy(model), keep_io_types=True, op_block_list=blocked
            )
        return lowered

    return lower


def _int8(operators: list[str], without: list[str]) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    def lower(model: onnx.ModelProto) -> onnx.ModelProto:
        from tempfile import TemporaryDirectory

        from onnxruntime.quantization import QuantType, quantize_dynamic

        with TemporaryDirectory() as folder, quiet():
            quantize_dynamic(
                copy.deepcopy(model),
                f"{folder}/int8.onnx",
                op_types_to_quantize=operators,
                nodes_to_exclude=without,
                per_channel=True,
                weight_type=QuantType.QInt8,
                reduce_range=True,
            )
            return onnx.load(f"{folder}/int8.onnx")

    return lower


def products_with_weights(model: onnx.ModelProto) -> list[str]:
    """Names of the products with weights, in order."""
    weights = {each.name for each in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights
    ]


def _after(model: onnx.ModelProto, products: list[str], operators: set[str]) -> list[str]:
    """Those whose input such an operator made, through at most a product and a sum."""
    maker = {output: node for node in model.graph.node for output in node.output}
    found = []
    for node in model.graph.node:
        if node.name in products:
            before = maker.get(node.input[0])
            for _ in range(3):
                if before is None or before.op_type in operators:
                    break
                before = maker.get(before.input[0]) if before.op_type in ("Mul", "Add") else None
            if before is not None:
                found.append(node.name)
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Both tools tell of what they would like to have had, and of numbers too small for float16.

    Python's logging.warning() also gives the root logger a handler, for good: everything would be told twice.
    """
    before, handlers = logging.root.manager.disable, list(logging.root.handlers)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        logging.root.handlers[:] = handlers
