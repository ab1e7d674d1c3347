"""Data sets on the Hub, read where they lie: `hf:owner/name[/folder][@revision][:split]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO

from zoo.errors import DataError

# Bytes fetched beyond those asked for. A column of images is asked for at once; the labels beside it are a few bytes,
# and must not bring half of the images along.
_BLOCK = 1 << 16

_SPEC = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<folder>[^@:]+?))?/?(?:@(?P<revision>[^:]+))?(?::(?P<split>\w+))?"
)


@dataclass(frozen=True)
class HubFile:
    """A file of a data set at one commit; opened like a path."""

    repo: str
    commit: str
    file: str

    def __str__(self) -> str:
        return f"hf:{self.repo}/{self.file}"

    def open(self) -> IO[bytes]:
        """To read and seek in. Raises HubError or Unreachable."""
        from zoo.hub import open_dataset_file

        return open_dataset_file(self.repo, self.file, self.commit, _BLOCK)

    def read_bytes(self) -> bytes:
        with self.open() as file:
            return file.read()


@dataclass(frozen=True)
class HubRepo:
    """A data set at one commit; `repo / file` is a file of it, as with a folder."""

    repo: str
    commit: str

    def __str__(self) -> str:
        return f"hf:{self.repo}"

    def __truediv__(self, file: str) -> HubFile:
        return HubFile(self.repo, self.commit, file)


@dataclass(frozen=True)
class HubSpec:
    """What a spec asks for."""

    repo: str
    folder: str | None
    revision: str | None
    split: str | None

    @property
    def name(self) -> str:
        return self.repo if self.folder is None else f"{self.repo}/{self.folder}"

    def files(self) -> tuple[HubRepo, list[str]]:
        """The repo at the commit of its revision, and its files, sorted, none hidden. Raises HubError, Unreachable."""
        from zoo.hub import dataset_files

        found = dataset_files(self.repo, self.revision)
        inside = "" if self.folder is None else f"{self.folder}/"
        names = [name for name in sorted(found.files) if name.startswith(inside)]
        return HubRepo(self.repo, found.commit), [name for name in names if not _is_hidden(name)]


def read_spec(spec: str) -> HubSpec:
    """The parts of `hf:owner/name[/folder][@revision][:split]`. Raises DataError.

    >>> read_spec("hf:uoft-cs/cifar10@main:test").split
    'test'
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise DataError(
            f"{spec!r} names no data set; write hf:owner/name[/folder][@revision][:split], such as "
            "hf:uoft-cs/cifar10:test"
        )
    return HubSpec(**match.groupdict())


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
