"""Names of models to places: a folder of the user's, the local zoo in $ZOO_HOME, and the cards bundled with the zoo."""

from __future__ import annotations

import filecmp
import logging
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from zoo.cards import README, ModelCard, read_card
from zoo.errors import CardError, UnknownModel, Unsupported, WeightsError, did_you_mean
from zoo.files import locked

log = logging.getLogger(__name__)

# Beside zoo/ in a checkout, inside it in the wheel.
_INSIDE = Path(__file__).resolve().parent / "model_cards"
MODEL_CARDS = _INSIDE if _INSIDE.is_dir() else _INSIDE.parent.parent / "model_cards"

# What makes a folder a model. A finished run holds more beside it, checkpoints above all: the local zoo does not.
WEIGHTS = ("model.safetensors", "decoder.safetensors")
PARTS = (README, "config.json", *WEIGHTS, "onnx", "LICENSE*", "*.png", "*.jpg", "*.webp")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def home() -> Path:
    """The local zoo's models: $ZOO_HOME/models, by default ~/.cache/ssl-zoo/models."""
    return Path(os.environ.get("ZOO_HOME") or "~/.cache/ssl-zoo").expanduser() / "models"


def places() -> tuple[Path, ...]:
    """Folders that hold models, in the order they are searched."""
    return (home(), MODEL_CARDS)


def find(name: str | Path) -> Path:
    """The model folder, or NAME.md card, of an existing path, a name or an alias. Raises UnknownModel.

    >>> find("dino_vitt16_imagenette").name
    'dino_vitt16_imagenette'
    """
    path = Path(name).expanduser()
    if (path / README).is_file() or (path.suffix == ".md" and path.is_file()):
        return path
    if (found := _named(str(name))) is not None:
        return found
    if path.is_dir():
        raise UnknownModel(
            f"folder {str(path)!r} is no model: it holds no {README}; `zoo train` writes such folders"
        )
    if path.is_file():
        raise UnknownModel(
            f"{str(path)!r} is a file, no model; a checkpoint goes into the architecture of a model: "
            f"zoo.load(NAME, weights={str(path)!r})"
        )
    options = [option for each in _cards() for option in (each.name, *each.aliases)]
    what = "folder or model" if path.parent != Path() else "model"
    if path.parent != Path() and path.parent.is_dir():
        options += [str(other) for other in path.parent.iterdir() if (other / README).is_file()]
    hint = did_you_mean(str(name), options)
    raise UnknownModel(f"no {what} {str(name)!r}{hint}; zoo.list_models() shows all {len(_entries())}")


def card(name: str | Path) -> ModelCard:
    """The card of a model. Raises UnknownModel or CardError."""
    return read_card(find(name))


def list_models(
    pattern: str = "*", *, method: str | None = None, kind: str | None = None, commercial: bool | None = None
) -> list[str]:
    """Sorted names of models; None asks for no filter. A card that cannot be read is skipped with a warning.

    >>> list_models("dino_vit?16", commercial=True)
    ['dino_vitb16', 'dino_vits16']
    """
    return [each.name for each in list_cards(pattern, method=method, kind=kind, commercial=commercial)]


def list_cards(
    pattern: str = "*", *, method: str | None = None, kind: str | None = None, commercial: bool | None = None
) -> list[ModelCard]:
    """The cards behind `list_models`, in its order."""
    return matching(_cards(pattern), method=method, kind=kind, commercial=commercial)


def matching(
    cards: Iterable[ModelCard],
    *,
    method: str | None = None,
    kind: str | None = None,
    commercial: bool | None = None,
) -> list[ModelCard]:
    """The cards that are of a method and kind, and whose licence allows or forbids; None asks for no filter."""
    return [
        each
        for each in cards
        if method in (None, each.method)
        and kind in (None, each.kind)
        and commercial in (None, each.commercial)
    ]


def most_alike(card: ModelCard, among: Iterable[ModelCard]) -> ModelCard | None:
    """The other model nearest to a card: same method first, then same family, approach, kind, and about its size."""

    def distance(other: ModelCard) -> tuple[object, ...]:
        apart = [
            getattr(other, each) != getattr(card, each) for each in ("method", "family", "approach", "kind")
        ]
        return *apart, abs(math.log(other.parameters / card.parameters)), other.name

    return min((other for other in among if other.name != card.name), key=distance, default=None)


def has_weights(place: Path) -> bool:
    """Whether a place that `find` gave is a folder with its encoder's weights."""
    return (place / WEIGHTS[0]).is_file()


def own_cards() -> list[ModelCard]:
    """The cards that come with the zoo, whatever the local zoo holds under the same names."""
    return list(_cards(among=(MODEL_CARDS,)))


def register(folder: str | Path, name: str) -> Path:
    """Copy a model folder into the local zoo under `name`, at once or not at all; the copy.

    Raises UnknownModel for a folder without card, CardError for a bad card or name, WeightsError for missing or damaged
    files, Unsupported where another model has that name.
    """
    source, target = Path(folder).expanduser(), home() / name
    if not _NAME.fullmatch(name):
        raise CardError(
            f"{name!r} is no name for a model: letters, digits, '.', '_' and '-', a letter or digit first"
        )
    _check_model(source)
    with locked(target):
        taken = _named(name) or (target if target.exists() else None)
        if taken is None:
            return _copied(source, target)
    if taken.is_dir() and _same(source, taken):
        return taken
    raise Unsupported(f"the name {name!r} is taken by {taken}; choose another, or `zoo remove` what is there")


def _copied(source: Path, target: Path) -> Path:
    """The model files of a folder as another one, which appears when it is whole."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        for file, path in model_files(source).items():
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / file)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def remove(name: str) -> Path:
    """Delete a model of the local zoo; where it lay. Raises UnknownModel, or Unsupported where it lies elsewhere."""
    target = home() / name
    if not (_NAME.fullmatch(name) and target.is_dir()):
        found = find(name)
        where = "bundled with the zoo" if found.parent == MODEL_CARDS else str(found)
        raise Unsupported(f"{name!r} is {where}; only models of the local zoo, {home()}, can be removed")
    if target.is_symlink():
        target.unlink()
        return target
    doomed = target.with_name(f".{name}.{os.getpid()}.removed")
    target.rename(doomed)  # gone at once: no half of it is ever listed
    shutil.rmtree(doomed)
    return target


def _named(name: str) -> Path | None:
    """The place of a name, or else of an alias."""
    if _NAME.fullmatch(name):
        for place in places():
            if (place / name / README).is_file():
                return place / name
            if name != Path(README).stem and (place / f"{name}.md").is_file():
                return place / f"{name}.md"
    return next((_entries()[each.name] for each in _cards() if name in each.aliases), None)


def _entries(among: Iterable[Path] | None = None) -> dict[str, Path]:
    """Model folders and cards of all places, by name; the first place that has a name wins."""
    entries: dict[str, Path] = {}
    for place in places() if among is None else among:
        for path in place.iterdir() if place.is_dir() else ():
            if path.name.startswith(".") or path.name == README:
                continue
            if (path / README).is_file():
                entries.setdefault(path.name, path)
            elif path.suffix == ".md" and path.is_file():
                entries.setdefault(path.stem, path)
    return entries


def _cards(pattern: str = "*", among: Iterable[Path] | None = None) -> Iterator[ModelCard]:
    """The readable cards whose name fits, sorted by name; a warning for each of the others."""
    for name, path in sorted(_entries(among).items()):
        if fnmatchcase(name, pattern):
            try:
                yield read_card(path)
            except (CardError, OSError) as error:
                log.warning("skipped: %s", error)


def _check_model(folder: Path) -> None:
    """Whether a folder holds a readable card and every file it takes, undamaged."""
    if not (folder / README).is_file():
        raise UnknownModel(
            f"{str(folder)!r} is no model folder: it holds no {README}; `zoo train` writes such folders"
        )
    described = read_card(folder)
    needed = {"config.json", *WEIGHTS[: 2 if described.decoder else 1], *described.sha256}
    if missing := sorted(file for file in needed if not (folder / file).is_file()):
        raise WeightsError(f"{folder} holds no {', '.join(missing)}; a model folder needs them")
    from zoo.weights import verify  # torch: only here, as names must be found without it

    for file, digest in described.sha256.items():
        verify(folder / file, digest)


def model_files(folder: Path) -> dict[str, Path]:
    """The files that make a folder a model, by their path inside it."""
    parts = [part for pattern in PARTS for part in folder.glob(pattern)]
    files = [
        file for part in parts for file in (part.rglob("*") if part.is_dir() else (part,)) if file.is_file()
    ]
    return {file.relative_to(folder).as_posix(): file for file in files}


def _same(one: Path, other: Path) -> bool:
    """Whether two model folders hold the same bytes."""
    mine, theirs = model_files(one), model_files(other)
    return mine.keys() == theirs.keys() and all(filecmp.cmp(mine[f], theirs[f], shallow=False) for f in mine)
