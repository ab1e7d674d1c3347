"""Where an exported graph leaves the encoder: the first layer whose output is another."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from zoo.encoder import Encoder
from zoo.export.gate import Exported
from zoo.export.pictures import gate_pictures

# What a layer may differ by, as a share of its values' root mean square.
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.2}
PICTURES = 3


def first_drift(file: Path, encoder: Encoder, precision: str) -> str:
    """A sentence that names the first layer of the graph to drift, for a features graph that has failed."""
    exported = Exported(_with_outputs(file))
    sides = exported.sides or (encoder.size, encoder.size)
    pictures = list(gate_pictures()[:: len(gate_pictures()) // PICTURES][:PICTURES])
    pixels = torch.stack([encoder.transform.pixels(each, encoder.stride, size=sides) for each in pictures])
    found = exported.of_pictures(pictures, encoder.stride, sides)
    seen = found.get("pixels")
    if seen is None:
        seen = torch.stack(
            [exported.transform.pixels(each, encoder.stride, size=sides) for each in pictures]
        ).numpy()
    tolerance, before = TOLERANCE[precision], 0.0
    if (apart := _apart(seen, pixels.numpy())) > max(tolerance, 0.02):
        return f"the pixels already differ, by {apart:.2g}: the file's transform is not the encoder's"
    for name, expected in _outputs(encoder, pixels):
        got = found.get(exported.layers.get(name, ""))
        if got is None or got.shape != expected.shape:
            continue
        apart = _apart(got, expected)
        if apart > tolerance:
            return f"the first layer to drift is {name}: by {apart:.2g} of its size, {before:.2g} before it"
        before = apart
    return f"no single layer drifts by more than {tolerance:g} of its size; the last by {before:.2g}"


def _apart(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    size = float(np.sqrt(np.square(expected).mean()))
    return float(np.sqrt(np.square(found - expected).mean())) / max(size, 1e-12)


def _outputs(encoder: Encoder, pixels: Tensor) -> list[tuple[str, NDArray[np.float32]]]:
    """(module, what it gives), in the order in which they end."""
    module, seen = copy.deepcopy(encoder.module), list[tuple[str, NDArray[np.float32]]]()

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.append((name, output.detach().float().numpy().copy()))

        return hook

    for name, each in module.named_modules():
        if name and not isinstance(each, nn.Identity | nn.Dropout):
            each.register_forward_hook(keep(name))
    with torch.no_grad():
        encoder.family.features(module, pixels)
    return seen


def _with_outputs(file: Path) -> bytes:
    """The model with the tensor of every layer among its outputs."""
    model = onnx.load(file)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    made = {output for node in model.graph.node for output in node.output}
    given = {output.name for output in model.graph.output}
    wanted = {*json.loads(facts["layers"]).values(), "pixels"} & made - given
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in sorted(wanted))
    return bytes(model.SerializeToString())
