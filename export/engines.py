"""What is known of a built engine: ENGINE.json beside it, and whether the engine belongs where it is to run.

An engine serves one TensorRT version on one kind of GPU. One that does not belong is refused before TensorRT sees it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zoo
from zoo.errors import ZooError
from zoo.files import sha256, write_json

if TYPE_CHECKING:
    from zoo.export.profiles import Shapes


class EngineError(ZooError):
    """An engine that cannot be built, or one that does not belong to this graph, TensorRT or GPU."""


@dataclass(frozen=True)
class Place:
    """Where an engine is built or run."""

    tensorrt: str  # its version
    gpu: str
    compute: str  # the GPU's compute capability: 8.9


@dataclass(frozen=True)
class EngineFacts:
    """What ENGINE.json says."""

    onnx: str  # name of the graph's file
    onnx_sha256: str
    engine_sha256: str
    place: Place
    profiles: Shapes
    zoo: str = zoo.__version__
    state: str = "built, not run"  # nobody has compared its output with PyTorch's


def facts_file(engine: Path) -> Path:
    """ENGINE.json beside an engine."""
    return engine.with_name(f"{engine.name}.json")


def write_facts(engine: Path, facts: EngineFacts) -> None:
    """Put ENGINE.json beside an engine."""
    write_json(facts_file(engine), asdict(facts))


def read_facts(engine: Path) -> EngineFacts:
    """What ENGINE.json says. Raises EngineError where it is missing or is none."""
    path = facts_file(engine)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        place = Place(**said.pop("place"))
        shapes = {
            name: tuple(tuple(int(side) for side in shape) for shape in three)
            for name, three in said.pop("profiles").items()
        }
        return EngineFacts(**said, place=place, profiles=shapes)  # type: ignore[arg-type]  # three of them
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EngineError(
            f"{engine} has no readable {path.name} ({error}), so nobody knows what it was built of; build it again"
        ) from error


def check_belongs(engine: Path, facts: EngineFacts, here: Place) -> None:
    """Raise EngineError for an engine of another file, TensorRT or GPU, or of a graph that has changed since.

    An engine that was carried away without its graph is held against the rest.
    """
    if not engine.is_file():
        raise EngineError(f"there is no engine {engine}; build it: zoo.export.tensorrt.build_engine")
    graph, wrong = engine.with_name(facts.onnx), []
    if sha256(engine) != facts.engine_sha256:
        wrong.append(f"it is not the file that {facts_file(engine).name} describes")
    if graph.is_file() and sha256(graph) != facts.onnx_sha256:
        wrong.append(f"{graph.name} has changed since")
    if facts.place.tensorrt != here.tensorrt:
        wrong.append(f"it is of TensorRT {facts.place.tensorrt}, and here is {here.tensorrt}")
    if facts.place.compute != here.compute:
        built, now = (f"compute {place.compute} ({place.gpu})" for place in (facts.place, here))
        wrong.append(f"it is for {built}, and here is {now}")
    if wrong:
        raise EngineError(
            f"{engine} does not belong here: {'; '.join(wrong)}. Build it again from {facts.onnx}"
        )
