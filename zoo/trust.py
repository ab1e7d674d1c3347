"""Whether a file is the one it should be: published hashes, the pin of a first use, and what was hashed already.

The client checks no content, so everything fetched is hashed here. Where its authors publish no full hash, the one
found first is pinned in $ZOO_HOME/pins.json and holds from then on.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from zoo.cards import Source
from zoo.errors import WeightsError
from zoo.files import atomic_write, locked, sha256
from zoo.registry import home
from zoo.weights import verify

log = logging.getLogger(__name__)


def check_published(path: Path, source: Source, stated: str | None = None) -> str:
    """The sha256 of a fetched file, after every hash known of it: the card's, `stated` by the Hub, and the pin.

    Raises WeightsError where one differs.
    """
    digest = sha256(path)
    known = (
        (source.sha256, digest, "sha256, which the card states"),
        (stated, digest, "sha256, which the Hub states"),
        (source.sha256_prefix, digest, "sha256, as its authors publish its beginning"),
        (source.md5_prefix, _md5(path) if source.md5_prefix else "", "md5, as its authors publish its beginning"),
    )  # fmt: skip
    for expected, found, what in known:
        if expected and not found.startswith(expected):
            raise WeightsError(
                f"damaged on the way, or another file: {found[:12]}… instead of {expected[:12]}… ({what})"
            )
    pin = {} if source.sha256 else _read(_pins()).get(_key(source), {})
    if pin and pin["sha256"] != digest:
        raise WeightsError(
            f"not the file that came on {pin['date']}: sha256 {digest[:12]}… instead of {pin['sha256'][:12]}…; "
            f"where you trust the new one, delete the entry {_key(source)!r} of {_pins()}"
        )
    return digest


def pin(source: Source, digest: str) -> None:
    """Hold a source without a full hash to the file that came first."""
    if source.sha256:
        return
    entry = {"sha256": digest, "date": date.today().isoformat()}
    if _update(_pins(), lambda pins: {_key(source): entry, **pins}):
        log.info("%s: no sha256 is published; %s… is pinned in %s", _key(source), digest[:12], _pins())


def verify_once(path: Path, digest: str) -> None:
    """Raises WeightsError where a file's sha256 is not `digest`; each version of the file is hashed only once.

    A version is its size and times, as the file system tells them.
    """
    store, key = home().parent / "verified.json", str(path.resolve())
    version = [*_version(path), digest]
    try:
        if _read(store).get(key) == version:
            return
    except OSError as error:
        log.debug("cannot tell what was verified: %s", error)
    except WeightsError:
        with suppress(OSError):
            store.unlink()  # damaged, which costs as little: all is hashed once more
    verify(path, digest)
    try:
        _update(
            store, lambda seen: {**{each: seen[each] for each in seen if Path(each).exists()}, key: version}
        )
    except (OSError, WeightsError) as error:  # a home that cannot be written to costs time, and nothing else
        log.debug("cannot remember what was verified: %s", error)


def _version(path: Path) -> list[int]:
    if not path.is_file():
        return []
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _key(source: Source) -> str:
    """A source as pins.json names it."""
    return source.url or f"{source.repo}@{source.revision or 'main'}/{source.file}"


def _pins() -> Path:
    return home().parent / "pins.json"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (TypeError, ValueError):
        raise WeightsError(f"{path} is damaged: mend or delete it; what it held is trusted anew") from None


def _update(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
    """Change a JSON file that other processes change too; whether it is another one now."""
    with locked(path):
        before = _read(path)
        after = change(before)
        if after == before:
            return False
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(after, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return True
