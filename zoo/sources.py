"""Where images come from: a folder, a parquet in Hugging Face `Image` format, one image, or a data set on the Hub."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from zoo.errors import DataError, ImageError, did_you_mean
from zoo.found import Found, look
from zoo.parquet import RowGroups, labels_of, read_table
from zoo.remote import HubRepo
from zoo.words import counted

_OPENED_AT_ONCE = 8  # parquet files whose labels are read: on the Hub, most of the time is waiting


# The split of test images that were held out of undivided data; how many follows.
HELD_OUT = "held-out"


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

    root: Path | HubRepo

    def read(self, i: int) -> bytes:
        path = self.root / self.ids[i]
        try:
            return path.read_bytes()
        except OSError as error:
            raise ImageError(f"cannot read image {str(path)!r}: {error.strerror}") from error

    def stamp(self, indices: Sequence[int]) -> str | list[tuple[int, int] | None]:
        """The files' sizes and times of change, None where one is gone; on the Hub, the commit.

        Sizes alone are the same for all bitmaps of one height and width. Moving a folder keeps the times.
        """
        if isinstance(self.root, HubRepo):
            return self.root.commit
        return [_size_and_time(self.root / self.ids[i]) for i in indices]


def _size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


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
    spec: a path, or hf:owner/name[/folder][@revision][:split], which is read in place.
    Raises DataError (nothing there, no images, no such split), HubError or Unreachable (`hf:`).

    >>> open_source("../shared/data/imagenette160", "val")
    ParquetSource('imagenette160, validation', 3925 images, 10 classes)
    """
    return _opened(look(spec), split)


def held_or_all(spec: str | Path) -> Source:
    """The images that `spec` holds back to validate or test on, or all of them where it is not divided."""
    found = look(spec)
    return _opened(found, found.held)


def splits(spec: str | Path) -> list[str]:
    """Which of train, validation and test `spec` is divided into; an empty list where it is not divided."""
    return look(spec).present


def train_and_test(
    data: str | Path, test: str | Path | None = None, *, share: float = 0.2
) -> tuple[Source, Source, str]:
    """Training images, test images, and one sentence that says where the test images come from.

    `test` where given, else the validation or test split of `data`, else a `share` of it held out: of the same
    images always the same ones, whatever a run's seed, so that none measures on what another trained on.
    Labels count into the classes of the training images, by name; numbers without names are names themselves.
    Raises DataError as `open_source` does, where the test images have classes that no training image has or are among
    the training images, and where there are two splits and both are to test on.
    """
    found = look(data)
    train = _named(_opened(found, "train" if "train" in found.present else None))
    if test is not None:
        asked = look(test)
        _check_apart(found, asked)
        tested = _relabelled(_named(_opened(asked, asked.held)), train)
        return train, tested, f"Tested on the {len(tested)} images of {tested.title}, as asked."
    if "train" in found.present and found.held:
        tested = _relabelled(_named(_opened(found, found.held)), train)
        return train, tested, f"Tested on the {len(tested)} images of {train.name}'s own {found.held} split."
    if len(found.present) > 1:
        raise DataError(
            f"{found.spec!r} has the splits {' and '.join(found.present)} and none to train on; pass the images to "
            "train on, and these as the test set"
        )
    return _held_out(train, share, lacking="training" if found.held else "test")


def _check_apart(data: Found, test: Found) -> None:
    """DataError where images to test on are among those to train on."""
    trained, _ = data.of_split("train" if "train" in data.present else None)
    tested, _ = test.of_split(test.held)
    same = {str(data.root / file) for file in trained} & {str(test.root / file) for file in tested}
    if same:
        raise DataError(
            f"{counted(len(same), 'file')} of the test set {test.spec!r} are among the training ones, such as "
            f"{min(same)}: leave the test set out to have a part of {data.spec!r} held out, or pass other images"
        )


def _opened(found: Found, split: str | None) -> Source:
    """The source of one split, or of everything. Raises DataError where there is no such split."""
    chosen, its_split = found.of_split(split)
    if found.kind == "parquet":
        return _parquet_source(found.root, chosen, found.name, its_split)
    labels, classes = _folder_labels(found, chosen)
    return FolderSource(found.name, its_split, chosen, labels, classes, found.root)


def share_of_each_class(source: Source, share: float, seed: int) -> set[int]:
    """Indices of that share of every class, or of all where there are no labels, drawn by `seed` from the ids.

    One image of a class at least, and none of a class with a single one. More images move hardly any other.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for i in range(len(source)):
        members[source.labels[i] if source.labels else 0].append(i)
    drawn: set[int] = set()
    for indices in members.values():
        indices.sort(key=lambda i: rank(seed, source.ids[i]))
        count = min(max(1, round(share * len(indices))), len(indices) - 1)
        drawn.update(indices[:count])
    return drawn


def _held_out(whole: Source, share: float, lacking: str) -> tuple[Source, Source, str]:
    """Hold a share of every class out: the same for every seed of a run or a protocol."""
    if not 0 < share < 1:
        raise DataError(f"the share held out must lie between 0 and 1, not {share}")
    held = share_of_each_class(whole, share, seed=0)
    if not held:
        raise DataError(
            f"{whole.title!r} has too few images to hold a test split out of ({len(whole)}): pass a test set"
        )
    train = whole.subset([i for i in range(len(whole)) if i not in held])
    tested = dataclasses.replace(whole.subset(sorted(held)), split=f"{HELD_OUT} {share:.0%}")
    of_what = "every class" if whole.labels else "the images"
    held_out = f"{share:.0%} of {of_what} held out, the same for every seed ({len(tested)} images)"
    return train, tested, f"No {lacking} split in {whole.title}: {held_out}."


def rank(seed: int, name: str) -> bytes:
    """A place in an order drawn by `seed`, which other images do not change."""
    return hashlib.sha256(os.fsencode(f"{seed}:{name}")).digest()


def classes_of(train: Source, test: Source) -> int:
    """How many classes there are. Raises DataError where labels are missing or there is nothing to tell apart."""
    if train.labels is None or test.labels is None:
        bare = train if train.labels is None else test
        raise DataError(
            f"{bare.title!r} is unlabelled, so no accuracy can be measured on it; {_what_labels_it(train, test)}"
        )
    if len(set(train.labels)) < 2:
        called = f", {train.classes[train.labels[0]]!r}" if train.classes else ""
        raise DataError(f"{train.title!r} has a single class{called}: there is nothing to tell apart")
    return len(train.classes) if train.classes else max(train.labels) + 1


def _what_labels_it(*sources: Source) -> str:
    """What to do about images without labels: of a folder that has class folders, which images lie beside them."""
    bare = [each for each in sources if each.labels is None and isinstance(each, FolderSource)]
    # Of one that was divided, both parts: a single stray lies in one of them.
    names = sorted({name for each in bare if each.root == bare[0].root for name in each.ids})
    depths = [name.count("/") for name in names]
    if names and min(depths) < max(depths):
        strays = [name for name, depth in zip(names, depths, strict=True) if depth == min(depths)]
        more = f" and {len(strays) - 3:,} more" if len(strays) > 3 else ""
        return f"move into a class sub-folder what lies beside them: {', '.join(strays[:3])}{more}"
    return (
        "every image must lie in a class sub-folder, or every row of the parquet have a `label`: a word, or a number "
        "from 0 up"
    )


def _named(source: Source) -> Source:
    """The source with names for its classes: numbers without names are their own, and count from 0 as others do."""
    if source.labels is None or source.classes is not None:
        return source
    numbers = sorted(set(source.labels))
    place = {number: i for i, number in enumerate(numbers)}
    return dataclasses.replace(
        source, labels=[place[label] for label in source.labels], classes=[str(number) for number in numbers]
    )


def _relabelled(test: Source, train: Source) -> Source:
    """`test` with labels that count into the classes of `train`, matched by name."""
    if test.classes is None or train.classes is None or test.labels is None or train.labels is None:
        return test
    place = {name: i for i, name in enumerate(train.classes)}
    taught = {train.classes[label] for label in set(train.labels)}
    used = {test.classes[label] for label in set(test.labels)}
    if strangers := sorted(used - taught):
        raise DataError(
            f"{test.title!r} has classes that {train.title!r} lacks: {', '.join(strangers[:5])}"
            f"{did_you_mean(strangers[0], taught)}; classes are matched by name"
        )
    labels = [place[test.classes[label]] for label in test.labels]
    return dataclasses.replace(test, labels=labels, classes=train.classes)


def _folder_labels(found: Found, chosen: list[str]) -> tuple[list[int] | None, list[str] | None]:
    """Labels by class folder; classes are those of all splits, so that every split counts alike."""
    depth = 1 if found.present else 0

    def class_of(name: str) -> str | None:
        parts = name.split("/")
        return parts[depth] if len(parts) > depth + 1 else None

    classes = sorted({name for file in found.files if (name := class_of(file)) is not None})
    place = {name: i for i, name in enumerate(classes)}
    labels = [place[name] for file in chosen if (name := class_of(file)) is not None]
    return (labels, classes) if len(labels) == len(chosen) else (None, None)


def _parquet_source(root: Path | HubRepo, files: list[str], name: str, split: str | None) -> ParquetSource:
    """Index the files: ids, labels and row groups, no image bytes."""
    with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
        tables = list(pool.map(lambda file: read_table(root / file), files))
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
