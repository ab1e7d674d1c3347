"""ONNX Runtime Web, which the exported page runs in: one pinned version, fetched once and held against its hashes.

Of npm's package two files are needed, the smallest build: WebAssembly with SIMD. npm fetches it where npm is
installed, and so from wherever npm is told to; elsewhere the same file comes by https from $npm_config_registry.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo.downloads import download
from zoo.endpoint import without_secrets
from zoo.errors import HubError, Unsupported, WeightsError
from zoo.files import atomic_write, locked, sha256
from zoo.registry import home

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# As npm states it: https://docs.npmjs.com/cli/configuring-npm/package-lock-json, "integrity".
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}


def runtime_files(folder: str | Path | None = None) -> tuple[Path, ...]:
    """The files of FILES: those of an unpacked package, or, once fetched, those that $ZOO_HOME keeps.

    Raises WeightsError where a file in `folder` is not the pinned one, HubError where the package cannot be had.
    """
    if folder is not None:
        return _checked(_inside(Path(folder).expanduser()))
    kept = home().parent / "browser" / f"{PACKAGE}-{VERSION}"
    with locked(kept):
        if not all((kept / name).is_file() and sha256(kept / name) == known for name, known in FILES.items()):
            with _package() as archive:
                _unpack(archive, kept)
    return tuple(kept / name for name in FILES)


def _inside(folder: Path) -> Path:
    """Where the files lie: in the folder itself, or in the dist/ of a package in it."""
    places = [folder / each for each in ("", "dist", "package/dist", f"node_modules/{PACKAGE}/dist")]
    return next((each for each in places if all((each / name).is_file() for name in FILES)), folder)


def _checked(folder: Path) -> tuple[Path, ...]:
    for name, known in FILES.items():
        if not (file := folder / name).is_file():
            raise WeightsError(f"{folder} holds no {name}; give --runtime the unpacked {PACKAGE} {VERSION}")
        if sha256(file) != known:
            raise WeightsError(
                f"{file} is not that of {PACKAGE} {VERSION}, the only one this page is tested with; "
                f"`npm pack {PACKAGE}@{VERSION}` fetches it"
            )
    return tuple(folder / name for name in FILES)


@contextmanager
def _package() -> Iterator[Path]:
    """The package's archive, whole and as pinned. Raises HubError."""
    with TemporaryDirectory() as folder:
        archive = _by_npm(Path(folder)) if shutil.which("npm") else _by_https()
        digest = hashlib.sha512(archive.read_bytes()).digest()
        if base64.b64encode(digest).decode() != INTEGRITY:
            archive.unlink()
            raise HubError(f"what came as {PACKAGE} {VERSION} has another hash than npm's; {_otherwise()}")
        yield archive
        archive.unlink()  # 33 MB, of which the page needs 14


def _by_npm(folder: Path) -> Path:
    command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder)]
    # A program named npm.cmd, on Windows, is only found by its whole path.
    command[0] = str(shutil.which("npm"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    found = list(folder.glob("*.tgz"))
    if done.returncode != 0 or not found:
        said = without_secrets(
            done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no file came"
        )
        raise HubError(f"npm cannot fetch {PACKAGE} {VERSION} ({said}); {_otherwise()}")
    return found[0]


def _by_https() -> Path:
    said = [value for name, value in os.environ.items() if name.lower() == "npm_config_registry" and value]
    if not said:
        raise HubError(f"{PACKAGE} {VERSION} is fetched by npm, which is not installed; {_otherwise()}")
    try:
        return download(f"{said[0].rstrip('/')}/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz")
    except HubError as error:
        raise type(error)(f"{without_secrets(str(error))}; {_otherwise()}") from error


def _otherwise() -> str:
    return (
        f"where the network can be reached, `npm pack {PACKAGE}@{VERSION}` fetches it; unpack it here and give "
        "its folder: --runtime FOLDER"
    )


def _unpack(archive: Path, folder: Path) -> None:
    """Put the pinned files of the archive into the folder."""
    with tarfile.open(archive) as opened:
        for name, known in FILES.items():
            member = opened.extractfile(f"package/dist/{name}")
            if member is None:
                raise Unsupported(f"{PACKAGE} {VERSION} holds no {name}; please report it")
            with atomic_write(folder / name) as temporary:
                temporary.write_bytes(member.read())
                assert sha256(temporary) == known  # the archive's own hash held
