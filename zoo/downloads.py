"""Files at their authors' own addresses: fetched into $ZOO_HOME/downloads, and continued where they were cut short."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from zoo import hub
from zoo.errors import HubError, Unreachable
from zoo.files import locked
from zoo.progress import transfer
from zoo.registry import home

log = logging.getLogger(__name__)

BLOCK = 1 << 20
# Attempts that may bring nothing after one that brought something, and the seconds before each.
PAUSES = (0.0, 1.0, 4.0)


def download(url: str) -> Path:
    """The file at an https address, once; a part that an earlier attempt left is continued.

    Raises HubError where there is no such file, Unreachable where nobody answers.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
        raise HubError(f"only https is fetched, not {parts.scheme or 'a'} address without it")
    name = PurePosixPath(unquote(parts.path)).name or "file"
    target = home().parent / "downloads" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    with locked(target):
        if not target.is_file():
            part = target.with_name(f"{target.name}.part")
            _fetch(url, part, name)
            os.replace(part, target)
            part.with_name(f"{part.name}.etag").unlink(missing_ok=True)
    return target


def _fetch(url: str, part: Path, name: str) -> None:
    """Bring the file into `part`, again and again once something has come; a server that is down is told at once."""
    failed = len(PAUSES)
    while True:
        before = _size(part)
        try:
            return _continue(url, part, name)
        except Unreachable as error:
            failed = 0 if _size(part) > before else failed + 1
            if failed >= len(PAUSES):
                raise
            log.info("%s: cut short after %s bytes (%s); going on", name, f"{_size(part):,}", error)
            time.sleep(PAUSES[failed])


def _continue(url: str, part: Path, name: str) -> None:
    """One request for what `part` still lacks."""
    mark = part.with_name(f"{part.name}.etag")
    version = mark.read_text(encoding="utf-8") if mark.is_file() else ""
    start = _size(part) if version else 0  # without a version, the rest might be of another file
    headers = {"Range": f"bytes={start}-", "If-Range": version} if start else {}
    with hub.answer(url, headers) as response:
        if response.status_code == 416:  # nothing is lacking, or it is another file by now
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return
            part.unlink()
            raise Unreachable(f"{url} changed while it was fetched")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise HubError("answers with a web page instead of the file; the link may ask for a click")
        if response.status_code != 206:
            start = 0
            part.unlink(missing_ok=True)  # first, or a crash would leave it with another version's mark
            mark.write_text(_version(response), encoding="utf-8")
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise Unreachable(f"{url} answers with another part than was asked for")
        length = response.headers.get("Content-Length")
        total = None if length is None else int(length) + start
        with part.open("r+b" if start else "wb") as file, transfer(name, total, start) as advance:
            file.seek(start)
            file.truncate()
            for block in response.iter_bytes(BLOCK):
                file.write(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and _size(part) != total:
        raise Unreachable(f"{name} ended after {_size(part):,} of {total:,} bytes")


def _version(response: Any) -> str:
    """What the server calls this version of the file; empty where it could not be asked for by that."""
    etag = str(response.headers.get("ETag") or "")
    return str(response.headers.get("Last-Modified") or "") if etag.startswith("W/") or not etag else etag


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
