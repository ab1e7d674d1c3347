"""Where an exported graph leaves the encoder: the first layer whose output is another."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from PIL import Image
from torch import Tensor, nn

from zoo.decoders import kind
from zoo.encoder import Encoder
from zoo.export.gate import Exported, Named
from zoo.export.masked import drawn_masks, mask_inputs
from zoo.export.pictures import pictures_for

Outputs = list[tuple[str, NDArray[np.float32]]]

# What a layer may differ by, as a share of its values' root mean square.
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.2}
PICTURES = 3


def first_drift(file: Path, encoder: Encoder, precision: str) -> str:
    """A sentence that names the first layer of the graph to drift, for a features graph that has failed."""
    exported = Exported(_with_outputs(file))
    sides = exported.sides or (exported.transform.size,) * 2
    pictures, pixels = _pictures(encoder, sides)
    found = exported.of_pictures(pictures, encoder.stride, sides)
    seen = found.get("pixels")
    if seen is None:
        seen = torch.stack(
            [exported.transform.pixels(each, encoder.stride, size=sides) for each in pictures]
        ).numpy()
    if said := _of_pixels(seen, pixels, precision):
        return said
    module = copy.deepcopy(encoder.module)
    expected = _outputs({"": module}, lambda: encoder.family.features(module, pixels))
    return _first(found, exported.layers, expected, TOLERANCE[precision])


def first_masked_drift(file: Path, encoder: Encoder, precision: str) -> str:
    """Likewise for a reconstruction graph; the decoder's layers come after the encoder's, as decoder.blocks.0."""
    spec = encoder.card.decoder
    assert spec is not None
    exported, sides = Exported(_with_outputs(file)), (encoder.size, encoder.size)
    pictures, pixels = _pictures(encoder, sides)
    seen = torch.stack(
        [exported.transform.pixels(each, encoder.stride, size=sides) for each in pictures]
    ).numpy()
    if said := _of_pixels(seen, pixels, precision):
        return said
    masks = drawn_masks(encoder, len(pixels))
    inputs = {name: each.numpy() for name, each in mask_inputs(spec, encoder.module, masks).items()}
    found = exported.run(pixels=seen, **inputs)
    module, decoder = copy.deepcopy(encoder.module), copy.deepcopy(encoder.decoder)
    assert decoder is not None
    expected = _outputs(
        {"": module, "decoder.": decoder},
        lambda: kind(spec.kind).predict(encoder.family, module, decoder, pixels, masks),
    )
    return _first(found, exported.layers, expected, TOLERANCE[precision])


def _pictures(encoder: Encoder, sides: tuple[int, int]) -> tuple[list[Image.Image], Tensor]:
    """A few of the gate's pictures, and their pixels."""
    pictures = pictures_for(encoder)
    pictures = pictures[:: len(pictures) // PICTURES][:PICTURES]
    pixels = [encoder.transform.pixels(each, encoder.stride, size=sides) for each in pictures]
    return pictures, torch.stack(pixels)


def _of_pixels(seen: NDArray[np.float32], pixels: Tensor, precision: str) -> str:
    """A sentence where the graph is given other pixels than the encoder; nothing where it is not."""
    if (apart := _apart(seen, pixels.numpy())) <= max(TOLERANCE[precision], 0.02):
        return ""
    return f"the pixels already differ, by {apart:.2g}: the file's transform is not the encoder's"


def _first(found: Named, layers: dict[str, str], expected: Outputs, tolerance: float) -> str:
    """The first layer whose output in the graph is not what it gives in torch."""
    before = 0.0
    for name, output in expected:
        got = found.get(layers.get(name, ""))
        if got is None or got.shape != output.shape:
            continue
        apart = _apart(got, output)
        if not apart <= tolerance:  # NaN is no number to be small
            return f"the first layer to drift is {name}: by {apart:.2g} of its size, {before:.2g} before it"
        before = apart
    return f"no single layer drifts by more than {tolerance:g} of its size; the last by {before:.2g}"


def _apart(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    size = float(np.sqrt(np.square(expected).mean()))
    return float(np.sqrt(np.square(found - expected).mean())) / max(size, 1e-12)


def _outputs(modules: dict[str, nn.Module], call: Callable[[], Any]) -> Outputs:
    """(layer, what it gives), in the order in which they end. modules: by what their layers' names begin with."""
    seen: Outputs = []

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.append((name, output.detach().float().numpy().copy()))

        return hook

    for prefix, module in modules.items():
        for name, each in module.named_modules():
            if name and not isinstance(each, nn.Identity | nn.Dropout):
                each.register_forward_hook(keep(prefix + name))
    with torch.no_grad():
        call()
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
