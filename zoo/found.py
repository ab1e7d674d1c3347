"""What lies at a path or in a data set's repo on the Hub: files of one kind, each with the split it belongs to."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.arrays import SUFFIX as ARRAY_SUFFIX
from zoo.errors import DataError, did_you_mean
from zoo.parquet import has_images
from zoo.remote import HubRepo, read_spec
from zoo.words import counted

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif"
)  # fmt: skip
_ACCEPTED = (
    f"an image folder ({' '.join(IMAGE_SUFFIXES)}, or {ARRAY_SUFFIX} alone; class sub-folders give labels), "
    "one image file, "
    "a parquet file or folder with a Hugging Face `Image` column, or hf:owner/name"
)
_SPLITS = {name: name for name in ("train", "validation", "test")} | dict.fromkeys(
    ("val", "valid"), "validation"
)
_SPLIT_IN_NAME = re.compile(r"(?:^|[^a-z])(train|validation|valid|val|test)(?:[^a-z]|$)")


@dataclass(frozen=True)
class Found:
    """Files of one kind relative to `root`, each with its split, and what to call them all."""

    spec: str  # as it was given
    root: Path | HubRepo
    kind: str  # "image" or "parquet"
    files: list[str]
    splits: list[str | None]
    name: str
    split: str | None  # that the spec itself names, as `imagenette160/train.parquet` does

    @property
    def present(self) -> list[str]:
        return [split for split in ("train", "validation", "test") if split in self.splits]

    @property
    def held(self) -> str | None:
        """The split to test on: validation where there is one, as the labels of test are often withheld."""
        return next((split for split in ("validation", "test") if split in self.splits), None)

    def of_split(self, split: str | None) -> tuple[list[str], str | None]:
        """The files of one split, or all, and the split's name. Raises DataError where there is no such split."""
        wanted = canonical(split)
        if wanted is None or (wanted == "train" and not self.present):
            return self.files, wanted or self.split
        if wanted in self.present:
            return [file for file, its in zip(self.files, self.splits, strict=True) if its == wanted], wanted
        there = f"its splits are {', '.join(self.present)}" if self.present else "it has no splits"
        raise DataError(f"no split {wanted!r} in {self.spec!r}: {there}")


def look(spec: str | Path) -> Found:
    """Find the image or parquet files of `spec`. Raises DataError; HubError and Unreachable for the Hub's."""
    return _in_repo(str(spec)) if str(spec).startswith("hf:") else _on_disk(spec)


def check_exists(spec: str | Path) -> None:
    """Raises DataError, naming what is alike beside it, where `spec` is a path of nothing. The Hub is not asked."""
    path = _path(spec)
    if not str(spec).startswith("hf:") and not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"no file or folder {str(spec)!r}{did_you_mean(path.name, beside)}; pass {_ACCEPTED}")


def canonical(split: str | None) -> str | None:
    """`validation` for val and valid."""
    return _SPLITS.get(split.lower(), split) if split else None


def _on_disk(spec: str | Path) -> Found:
    check_exists(spec)
    path = _path(spec)
    root, names = (path.parent, [path.name]) if path.is_file() else (path, sorted(_walk(path)))
    kind, files = _of_one_kind(str(spec), root, names)
    splits, (name, split) = _splits_of(kind, files, root == path), _title(path)
    return Found(str(spec), root, kind, files, splits, name, None if any(splits) else split)


def _path(spec: str | Path) -> Path:
    return Path(os.path.abspath(Path(spec).expanduser()))


def _in_repo(spec: str) -> Found:
    """The files of a data set's repo at the commit that its revision is now; of a split where the spec names one."""
    asked = read_spec(spec)
    root, names = asked.files()
    kind, files = _of_one_kind(spec, root, names)
    found = Found(spec, root, kind, files, _splits_of(kind, files, True), asked.name, None)
    if asked.split is None:
        return found
    chosen, split = found.of_split(asked.split)
    return Found(
        spec, root, kind, chosen, [split if found.present else None] * len(chosen), asked.name, split
    )


def _of_one_kind(spec: str, root: Path | HubRepo, names: Sequence[str]) -> tuple[str, list[str]]:
    """ "parquet" or "image", and the files of that kind. Raises DataError where there are none of either."""
    images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    parquets = [name for name in names if name.lower().endswith(".parquet")]
    arrays = [name for name in names if name.lower().endswith(ARRAY_SUFFIX)]
    if not images and not parquets:  # beside pictures they are features, or masks
        images = arrays
    elif len(arrays) > len(images) and not parquets:
        log.warning(
            "%r holds %d %s files beside %s, which alone are taken: move those away if the arrays are the images",
            *(spec, len(arrays), ARRAY_SUFFIX, counted(len(images), "picture")),
        )
    # A dataset's clone may hold a picture for its README; a folder of images may hold a parquet of features.
    if parquets and (not images or has_images(root / parquets[0])):
        return "parquet", parquets
    if images:
        return "image", images
    suffixes = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
    there = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5)) or "nothing"
    raise DataError(f"no images in {spec!r}: found {there}; pass {_ACCEPTED}")


def _splits_of(kind: str, files: list[str], is_whole: bool) -> list[str | None]:
    if kind == "image":
        return _folder_splits(files)
    return [_split_of(file) if is_whole else None for file in files]


def _walk(root: Path) -> Iterator[str]:
    """Relative paths of the files under `root`, none hidden. Links to folders are followed, each once."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(folder, name).relative_to(root).as_posix() for name in files if not name.startswith(".")
        )


def _folder_splits(images: list[str]) -> list[str | None]:
    """The split of each image by its top folder, if train and a test folder exist, or nothing but splits.

    A folder of classes may have a class called "train"; then it has other classes beside it.
    """
    tops = [_SPLITS.get(name.split("/")[0].lower()) if "/" in name else None for name in images]
    named = set(tops) - {None}
    divided = ("train" in named and len(named) > 1) or (bool(named) and None not in tops)
    return tops if divided else [None] * len(images)


def _split_of(parquet: str) -> str | None:
    """The split a file's name or a folder above it states: train-00000-of-00002.parquet, test/0.parquet."""
    for part in reversed(parquet.lower().removesuffix(".parquet").split("/")):
        if match := _SPLIT_IN_NAME.search(part):
            return _SPLITS[match[1]]
    return None


def _title(path: Path) -> tuple[str, str | None]:
    """Name and split of a source: `imagenette160/train.parquet` is the train split of imagenette160."""
    own = path.stem if path.is_file() else path.name
    split = _SPLITS.get(own.lower())
    return (path.parent.name, split) if split and path.parent.name else (own, None)
