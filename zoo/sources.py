"""Where images come from: a folder, a parquet in Hugging Face `Image` format, or one image file."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from zoo.errors import DataError, ImageError, Unsupported, did_you_mean
from zoo.parquet import RowGroups, has_images, labels_of, read_table

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif"
)  # fmt: skip
_ACCEPTED = (
    f"an image folder ({' '.join(IMAGE_SUFFIXES)}; class sub-folders give labels), one image file, "
    "or a parquet file or folder with a Hugging Face `Image` column"
)
_SPLITS = {name: name for name in ("train", "validation", "test")} | dict.fromkeys(
    ("val", "valid"), "validation"
)
_SPLIT_IN_NAME = re.compile(r"(?:^|[^a-z])(train|validation|valid|val|test)(?:[^a-z]|$)")


@dataclass(frozen=True, eq=False, repr=False)
class Source(ABC):
    """Images in a fixed order, as encoded bytes; `labels[i]` counts into `classes`. Can be pickled."""

    name: str
    split: str | None
    ids: list[str]  # unique: relative paths of a folder's images, `path` or row number in a parquet
    labels: list[int] | None
    classes: list[str] | None

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"{type(self).__name__}({self.title!r}, {len(self)} images{classes})"

    @property
    def title(self) -> str:
        """`"imagenette160, validation"`: the name with its split, for cards and messages."""
        return f"{self.name}, {self.split}" if self.split else self.name

    @abstractmethod
    def read(self, i: int) -> bytes:
        """Encoded bytes of image i. Raises ImageError where they are gone or missing."""

    @abstractmethod
    def stamp(self, indices: Sequence[int]) -> object:
        """What tells the contents of these images from others of the same ids, without reading them all."""

    def subset(self, indices: Sequence[int]) -> Self:
        """The images at `indices`, in that order."""
        labels = None if self.labels is None else [self.labels[i] for i in indices]
        return dataclasses.replace(self, ids=[self.ids[i] for i in indices], labels=labels)

    def spread(self, limit: int) -> Self:
        """At most `limit` images, evenly spread and so over classes that lie one after the other."""
        count = min(limit, len(self))
        return self.subset([i * len(self) // count for i in range(count)])


@dataclass(frozen=True, eq=False, repr=False)
class FolderSource(Source):
    """Image files under `root`; ids are their paths relative to it, sorted."""

    root: Path

    def read(self, i: int) -> bytes:
        path = self.root / self.ids[i]
        try:
            return path.read_bytes()
        except OSError as error:
            raise ImageError(f"cannot read image {str(path)!r}: {error.strerror}") from error

    def stamp(self, indices: Sequence[int]) -> list[int | None]:
        """The files' sizes; None where one is gone."""
        paths = [self.root / self.ids[i] for i in indices]
        return [path.stat().st_size if path.exists() else None for path in paths]


@dataclass(frozen=True, eq=False, repr=False)
class ParquetSource(Source):
    """Rows of parquet files. Fast to read in order; at random, every image decodes a whole row group."""

    groups: RowGroups
    rows: list[int]

    def read(self, i: int) -> bytes:
        return self.groups.read(self.rows[i])

    def stamp(self, indices: Sequence[int]) -> tuple[list[str], list[int]]:
        """The files, by their first and last bytes, and the rows in them."""
        return self.groups.stamps(), [self.rows[i] for i in indices]

    def subset(self, indices: Sequence[int]) -> Self:
        return dataclasses.replace(super().subset(indices), rows=[self.rows[i] for i in indices])


def open_source(spec: str | Path, split: str | None = None) -> Source:
    """The images of `spec`; `split=None` is all of them, whatever splits there are.

    A source without splits is all "train", as in Hugging Face datasets.
    Raises DataError (nothing there, no images, no such split), Unsupported (`hf:`).

    >>> open_source("../shared/data/imagenette160", "val")
    ParquetSource('imagenette160, validation', 3925 images, 10 classes)
    """
    return _opened(_look(spec), split)


def splits(spec: str | Path) -> list[str]:
    """Which of train, validation and test `spec` is divided into; an empty list where it is not divided."""
    return _look(spec).present


def train_and_test(
    data: str | Path, test: str | Path | None = None, *, seed: int = 0, share: float = 0.2
) -> tuple[Source, Source, str]:
    """Training images, test images, and one sentence that says where the test images come from.

    `test` where given, else the validation or test split of `data`, else a `share` of it held out by `seed`.
    Raises DataError as `open_source` does, and where the test images have classes the training images lack.
    """
    found = _look(data)
    train = _opened(found, "train" if "train" in found.present else None)
    if test is not None:
        asked = _look(test)
        tested = _relabelled(_opened(asked, asked.held), train)
        return train, tested, f"Tested on the {len(tested)} images of {tested.title}, as asked."
    if "train" in found.present and found.held:
        tested = _relabelled(_opened(found, found.held), train)
        return train, tested, f"Tested on the {len(tested)} images of {train.name}'s own {found.held} split."
    return _held_out(train, seed, share)


def _opened(found: _Found, split: str | None) -> Source:
    """The source of one split, or of everything. Raises DataError where there is no such split."""
    wanted = _SPLITS.get(split.lower(), split) if split else None
    if wanted is None or (wanted == "train" and not found.present):
        chosen = found.files
    elif wanted in found.present:
        chosen = [file for file, its in zip(found.files, found.splits, strict=True) if its == wanted]
    else:
        there = f"its splits are {', '.join(found.present)}" if found.present else "it has no splits"
        raise DataError(f"no split {wanted!r} in {str(found.path)!r}: {there}")
    name, own_split = _title(found.path)
    if found.present:
        own_split = wanted
    if found.kind == "parquet":
        return _parquet_source(found.root, chosen, name, own_split)
    labels, classes = _folder_labels(found, chosen)
    return FolderSource(name, own_split, chosen, labels, classes, found.root)


def _held_out(whole: Source, seed: int, share: float) -> tuple[Source, Source, str]:
    """Hold a share of every class out, ranked by a hash of seed and id: more images move hardly any other."""
    if not 0 < share < 1:
        raise DataError(f"the share held out must lie between 0 and 1, not {share}")
    members: dict[int, list[int]] = defaultdict(list)
    for i in range(len(whole)):
        members[whole.labels[i] if whole.labels else 0].append(i)
    held: set[int] = set()
    for indices in members.values():
        indices.sort(key=lambda i: hashlib.sha256(f"{seed}:{whole.ids[i]}".encode()).digest())
        count = min(max(1, round(share * len(indices))), len(indices) - 1)
        held.update(indices[:count])
    if not held:
        raise DataError(
            f"{whole.title!r} has too few images to hold a test split out of ({len(whole)}): pass a test set"
        )
    train = whole.subset([i for i in range(len(whole)) if i not in held])
    tested = dataclasses.replace(whole.subset(sorted(held)), split=f"held-out {share:.0%}")
    of_what = "every class" if whole.labels else "the images"
    held_out = f"{share:.0%} of {of_what} held out with seed {seed} ({len(tested)} images)"
    return train, tested, f"No test split in {whole.title}: {held_out}."


def _relabelled(test: Source, train: Source) -> Source:
    """`test` with labels that count into the classes of `train`, matched by name."""
    if test.classes is None or train.classes is None or test.labels is None or test.classes == train.classes:
        return test
    place = {name: i for i, name in enumerate(train.classes)}
    used = {test.classes[label] for label in test.labels}
    if strangers := sorted(used - place.keys()):
        raise DataError(
            f"{test.title!r} has classes that {train.title!r} lacks: {', '.join(strangers[:5])}"
            f"{did_you_mean(strangers[0], place)}; classes are matched by name"
        )
    labels = [place[test.classes[label]] for label in test.labels]
    return dataclasses.replace(test, labels=labels, classes=train.classes)


@dataclass(frozen=True)
class _Found:
    """What lies at a path: files of one kind relative to `root`, each with its split."""

    path: Path
    root: Path
    kind: str  # "image" or "parquet"
    files: list[str]
    splits: list[str | None]

    @property
    def present(self) -> list[str]:
        return [split for split in ("train", "validation", "test") if split in self.splits]

    @property
    def held(self) -> str | None:
        """The split to test on: validation where there is one, as the labels of test are often withheld."""
        return next((split for split in ("validation", "test") if split in self.splits), None)


def _look(spec: str | Path) -> _Found:
    """Find the image or parquet files of `spec`. Raises DataError, Unsupported."""
    if str(spec).startswith("hf:"):
        raise Unsupported(
            f"{str(spec)!r}: streaming from the Hub is not built yet; download it and pass {_ACCEPTED}"
        )
    path = Path(os.path.abspath(Path(spec).expanduser()))
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"no file or folder {str(spec)!r}{did_you_mean(path.name, beside)}; pass {_ACCEPTED}")
    root, names = (path.parent, [path.name]) if path.is_file() else (path, sorted(_walk(path)))
    images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    parquets = [name for name in names if name.lower().endswith(".parquet")]
    # A dataset's clone may hold a picture for its README; a folder of images may hold a parquet of features.
    if parquets and (not images or has_images(root / parquets[0])):
        return _Found(
            path, root, "parquet", parquets, [_split_of(n) if root == path else None for n in parquets]
        )
    if images:
        return _Found(path, root, "image", images, _folder_splits(images))
    suffixes = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
    there = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5)) or "nothing"
    raise DataError(f"no images in {str(spec)!r}: found {there}; pass {_ACCEPTED}")


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


def _folder_labels(found: _Found, chosen: list[str]) -> tuple[list[int] | None, list[str] | None]:
    """Labels by class folder; classes are those of all splits, so that every split counts alike."""
    depth = 1 if found.present else 0

    def class_of(name: str) -> str | None:
        parts = name.split("/")
        return parts[depth] if len(parts) > depth + 1 else None

    classes = sorted({name for file in found.files if (name := class_of(file)) is not None})
    place = {name: i for i, name in enumerate(classes)}
    labels = [place[name] for file in chosen if (name := class_of(file)) is not None]
    return (labels, classes) if len(labels) == len(chosen) else (None, None)


def _parquet_source(root: Path, files: list[str], name: str, split: str | None) -> ParquetSource:
    """Index the files: ids, labels and row groups, no image bytes."""
    tables = [read_table(root / file) for file in files]
    paths = [path for table in tables for path in table.paths]
    if not paths:
        raise DataError(f"no rows in {', '.join(files[:3])} of {str(root)!r}")
    times = Counter(paths)
    ids = [path or "" for path in paths]
    for row, path in enumerate(paths):
        if not path or times[path] > 1:
            ids[row] = f"{path}#{row}" if path else str(row)
    labels, classes = labels_of(tables)
    return ParquetSource(name, split, ids, labels, classes, RowGroups(tables), list(range(len(ids))))
