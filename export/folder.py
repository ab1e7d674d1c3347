"""The folder an export lies in: its graphs by precision, and the script that runs them without us."""

from __future__ import annotations

from pathlib import Path

from zoo.cards import README, ModelCard, read_card
from zoo.errors import Unsupported, did_you_mean
from zoo.files import atomic_write
from zoo.registry import find

# The graphs of an export folder by precision, the most exact first.
GRAPHS = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_int8.onnx"}

SCRIPT = "infer.py"

# What a card says of the features: two cards that agree on these describe the same encoder.
_OF_FEATURES = ("family", "architecture", "arguments", "interpolation", "pooling", "transform", "sha256")


def export_folder(place: str | Path) -> Path:
    """The folder of graphs: the given one, or the onnx/ of a model. Raises Unsupported or UnknownModel."""
    folder = Path(place).expanduser()
    model = folder if folder.is_dir() else find(place)
    for each in (model, model / "onnx"):
        if any((each / file).is_file() for file in GRAPHS.values()):
            return each
    raise Unsupported(
        f"{str(place)!r} holds no exported graph; `zoo export {place} --to onnx --out FOLDER` writes one into FOLDER, "
        "which is then what to name"
    )


def model_of(folder: Path) -> Path | None:
    """The model folder whose onnx/ this is; None for a folder of graphs alone."""
    return folder.parent if folder.name == "onnx" and (folder.parent / README).is_file() else None


def check_owner(folder: Path, card: ModelCard) -> None:
    """Raises Unsupported where a folder is the onnx/ of a model that is not the card's."""
    model = model_of(folder.absolute())
    if model is not None and (unlike := unlike_features(card, read_card(model))):
        raise Unsupported(
            f"{folder} belongs to the model in {model}, which is not {card.name}: its {', '.join(unlike)} differ; "
            "export into another folder"
        )


def unlike_features(one: ModelCard, other: ModelCard) -> list[str]:
    """What two cards say otherwise of their features."""
    return [name for name in _OF_FEATURES if getattr(one, name) != getattr(other, name)]


def graph_file(folder: Path, precision: str | None = None) -> Path:
    """The graph of that precision in an export folder; the most exact where None is asked for.

    Raises Unsupported, naming what there is and what makes the other.
    """
    if precision is not None and precision not in GRAPHS:
        hint = did_you_mean(precision, GRAPHS)
        raise Unsupported(f"precision={precision!r} does not exist{hint}; there are {', '.join(GRAPHS)}")
    there = {each: folder / file for each, file in GRAPHS.items() if (folder / file).is_file()}
    if not there or (precision is not None and precision not in there):
        held = f"only {', '.join(there)}" if there else "and no other graph"
        raise Unsupported(
            f"{folder} holds no {GRAPHS[precision or 'fp32']}, {held}; "
            f"`zoo export MODEL --to onnx --precision {precision or 'fp32'} --out {folder}` writes it"
        )
    return there[precision] if precision else next(iter(there.values()))


def write_script(folder: Path) -> Path:
    """Put infer.py into an export folder: features of photos by numpy, pillow and onnxruntime alone."""
    with atomic_write(folder / SCRIPT) as temporary:
        temporary.write_bytes(Path(__file__).with_name(SCRIPT).read_bytes())
    return folder / SCRIPT
