"""From a torch module to an ONNX model: one graph, named as the field names things, without traces of this machine."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnxscript
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import zoo
from zoo.errors import Unsupported
from zoo.export.graph import Graph

OPSET = 20  # what torch's exporter writes without converting; the least that is promised is 18

# What a protocol buffer holds, and so one file.
MOST_BYTES = 2**31 - 2**24

_SCOPES = "pkg.torch.onnx.name_scopes"


def traced(graph: Graph) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The graph as an ONNX model, and the tensor that each module of the encoder ends in, by the module's name.

    Raises Unsupported where it cannot be traced, or would not fit one file.
    """
    size = sum(each.numel() * each.element_size() for each in graph.module.state_dict().values())
    if size > MOST_BYTES:
        raise Unsupported(
            f"the weights are {size / 2**30:.1f} GiB, and an ONNX file holds 2; export a smaller model"
        )
    # The fused kernels leave other strides than the plain formula, which torch's decomposition then trips over.
    with _quiet(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        try:
            program = torch.onnx.export(
                graph.module,
                tuple(graph.inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=tuple(graph.free[name] for name in graph.inputs),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise Unsupported(_reason(error, graph)) from error
    assert program is not None
    with _quiet():
        # Its own limit leaves the transposition of every weight for run time, and no weight for quantisation to find.
        onnxscript.optimizer.fold_constants(
            program.model, input_size_limit=MOST_BYTES, output_size_limit=MOST_BYTES
        )
        onnxscript.optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    _check_free(model, graph)
    layers = _layers(model)
    _clean(model)
    return model, layers


def _reason(error: Exception, graph: Graph) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    free = any(len(axes) > 1 for axes in graph.free.values())
    hint = "export it at one size: leave --dynamic out" if free else "please report it with this message"
    return f"torch cannot trace this graph ({str(cause).strip().splitlines()[0]}); {hint}"


def _check_free(model: onnx.ModelProto, graph: Graph) -> None:
    """Raises Unsupported where tracing has made a constant of an axis that should be free."""
    for entry in model.graph.input:
        for axis in graph.free.get(entry.name, ()):
            if not (dimension := entry.type.tensor_type.shape.dim[axis]).dim_param:
                raise Unsupported(
                    f"torch has traced axis {axis} of {entry.name!r} as the constant {dimension.dim_value}: a function "
                    "of the family takes its length for a number; please report it with the model's name"
                )


def _layers(model: onnx.ModelProto) -> dict[str, str]:
    """module name -> the last tensor that a node inside the module makes; a decoder's as decoder.NAME."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        for entry in node.metadata_props:
            if entry.key == _SCOPES:
                for scope in ast.literal_eval(entry.value)[:-1]:
                    if scope.startswith(("module.", "decoder.")):
                        found[scope.removeprefix("module.")] = node.output[0]
    return found


def _clean(model: onnx.ModelProto) -> None:
    """Leave out stack traces and the names of files, which say more of this machine than of the model."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]:
        del value.metadata_props[:]
        value.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.producer_name, model.producer_version = "ssl-zoo", zoo.__version__


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress, and warns of what torch itself does inside it."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
