"""Weights stored in 16 bits and computed in 32: half the bytes to load, not one number changed.

Files of the zoo hold float16; a graph traced in float32 only repeats them with zeros behind. Here a weight is kept as
float16 behind a Cast, which every runtime folds away when it opens the file.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEAST = 1024  # values of a weight worth a node of its own


def with_halves(model: onnx.ModelProto, *, exact: bool = True) -> onnx.ModelProto:
    """The graph with its large float32 weights as float16 and a Cast each; it computes in float32 as before.

    exact: only those that float16 holds without loss; else all that stay finite.
    """
    graph, casts, kept = model.graph, [], []
    for weight in graph.initializer:
        half = _half(weight, exact=exact)
        if half is None:
            kept.append(weight)
            continue
        stored = f"{weight.name}_half"
        kept.append(numpy_helper.from_array(half, stored))
        casts.append(
            helper.make_node("Cast", [stored], [weight.name], f"{stored}_cast", to=TensorProto.FLOAT)
        )
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def _half(
    weight: onnx.TensorProto, *, exact: bool
) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]] | None:
    """The weight in float16; None where it is none, too small to gain, or would lose."""
    if weight.data_type != TensorProto.FLOAT or int(np.prod(weight.dims)) < LEAST:
        return None
    whole = numpy_helper.to_array(weight)
    with np.errstate(over="ignore"):
        half = whole.astype(np.float16)
    holds = np.array_equal(half.astype(np.float32), whole) if exact else bool(np.isfinite(half).all())
    return half if holds else None
