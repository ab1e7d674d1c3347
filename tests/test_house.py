"""The house itself: what `import zoo` loads, what the wheel holds, which way the arrows point."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = [room for room in ("training", "export", "app") if (ROOT / room / "__init__.py").is_file()]
SOURCES = [path for room in ("zoo", *ROOMS) for path in sorted((ROOT / room).rglob("*.py"))]


def run(*command: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with `environ` added to the environment, and keep what it printed."""
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )


def python(code: str, cwd: Path, **environ: str) -> str:
    """What a fresh interpreter prints for `code`; `cwd` comes first on its path."""
    done = run(sys.executable, "-c", code, cwd=cwd, **environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# What `import zoo` gives


def test_public_surface_is_frozen() -> None:
    import zoo

    assert sorted(zoo.__all__) == [
        "Encoder",
        "Features",
        "ModelCard",
        "Reconstruction",
        "ZooError",
        "__version__",
        "card",
        "compare",
        "extract",
        "list_models",
        "load",
        "pull",
        "push",
        "read_features",
        "register",
        "verify",
    ]
    assert all(getattr(zoo, name) is not None for name in zoo.__all__)


def test_no_public_name_is_hidden_by_a_module(tmp_path: Path) -> None:
    """Importing `zoo.x` binds the name x in `zoo`: a verb of that name would become a module at its second use."""
    code = "import zoo; print(*{type(getattr(zoo, name)).__name__ for name in zoo.__all__ for _ in range(2)})"
    assert "module" not in python(code, cwd=tmp_path, PYTHONPATH=str(ROOT)).split()


def test_import_zoo_loads_nothing_heavy(tmp_path: Path) -> None:
    heavy = {"torch", "torchvision", "timm", "numpy", "PIL", "pyarrow", "huggingface_hub", "rich", "tyro"}
    loaded = python("import sys, zoo; print(*sys.modules)", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert not heavy & set(loaded.split())


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_found_in_the_checkout_and_only_there(room: str, tmp_path: Path) -> None:
    # No PYTHONPATH: this is the editable install, which must not hold a copy of the room.
    code = f"import importlib.util; print(importlib.util.find_spec('zoo.{room}').origin)"
    assert Path(python(code, cwd=tmp_path)) == ROOT / room / "__init__.py"


def test_one_thread_for_each_worker() -> None:
    import torch

    assert torch.get_num_threads() == 1


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    from hatchling.builders.wheel import WheelBuilder

    (path,) = WheelBuilder(str(ROOT)).build(
        directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"]
    )
    return zipfile.ZipFile(path)


def test_wheel_has_one_top_level_name(wheel: zipfile.ZipFile) -> None:
    import zoo

    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"zoo", f"ssl_zoo-{zoo.__version__}.dist-info"}


def contents(room: str) -> set[str]:
    """Paths of a room's files, relative to the room."""
    files = [path for path in (ROOT / room).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert files
    return {path.relative_to(ROOT / room).as_posix() for path in files}


LEFT_OUT = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]


@pytest.mark.parametrize("room", ["zoo", *ROOMS, "model_cards"])
def test_wheel_holds_every_file_of_the_room(wheel: zipfile.ZipFile, room: str) -> None:
    prefix = "zoo" if room == "zoo" else f"zoo/{room}"
    inside = {name for name in contents(room) if f"{room}/{name.split('/')[0]}" not in LEFT_OUT}
    assert {f"{prefix}/{name}" for name in inside} <= set(wheel.namelist())


def test_wheel_is_small_and_leaves_only_weights_out(wheel: zipfile.ZipFile) -> None:
    assert Path(str(wheel.filename)).stat().st_size < 45e6
    assert all((ROOT / folder / "model.safetensors").is_file() for folder in LEFT_OUT)
    assert not any(Path(folder).name in name for folder in LEFT_OUT for name in wheel.namelist())


def test_source_archive_holds_the_rooms_where_they_lie(tmp_path: Path) -> None:
    from hatchling.builders.sdist import SdistBuilder

    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    for room in ("zoo", *ROOMS, "model_cards", "tests"):
        assert {f"{room}/{name}" for name in contents(room)} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "constraints.txt", ".ci/run"} <= names


def test_wheel_works_without_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        "import zoo, importlib.util as u; print(zoo.__file__, *(u.find_spec(f'zoo.{r}').origin for r in %r))"
    )
    found = python(code % ROOMS, cwd=tmp_path).split()
    assert found == [str(tmp_path / "zoo" / room / "__init__.py") for room in ("", *ROOMS)]
    names = "import zoo; print(*zoo.list_models())"
    inside, here = (set(python(names, cwd=folder).split()) for folder in (tmp_path, ROOT))
    assert here - inside == {Path(folder).name for folder in LEFT_OUT} and "dino_vits16" in inside


# The arrows: import-linter reads the same contracts in `make check`


def lay_out(folder: Path, files: dict[str, str]) -> None:
    """Write a small `zoo` with a room inside, as the wheel lays it, and `files` on top."""
    for name in ("zoo/__init__.py", "zoo/hub.py", "zoo/card.py", "zoo/training/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    return run(command, "--config", ROOT / "pyproject.toml", "--no-cache", "--no-logo", cwd=folder)


def test_contracts_hold_where_arrows_point_down(tmp_path: Path) -> None:
    files = {"zoo/training/engine.py": "from zoo import card\n", "zoo/hub.py": "import huggingface_hub\n"}
    lay_out(tmp_path, {room_file(room): "" for room in ROOMS} | files)
    done = lint_imports(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


def room_file(room: str) -> str:
    return f"zoo/{room}/__init__.py"


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        ("zoo/cli.py", "from zoo.training import run", "zoo.cli -> zoo.training"),
        ("zoo/cli.py", "def main():\n    import zoo.training", "zoo.cli -> zoo.training"),
        ("zoo/side/__init__.py", "import zoo.training", "zoo.side -> zoo.training"),
        ("zoo/card.py", "from huggingface_hub import HfApi", "zoo.card -> huggingface_hub"),
        ("zoo/training/push.py", "import huggingface_hub.utils", "zoo.training.push -> huggingface_hub"),
    ],
)
def test_contracts_break_where_an_arrow_is_wrong(file: str, line: str, says: str, tmp_path: Path) -> None:
    lay_out(tmp_path, {room_file(room): "" for room in ROOMS} | {file: line + "\n"})
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert says in done.stdout


def test_every_room_is_under_contract() -> None:
    rooms = next(c for c in PYPROJECT["tool"]["importlinter"]["contracts"] if c["id"] == "rooms")
    assert rooms["protected_modules"] == [f"zoo.{room}" for room in ROOMS]


@pytest.mark.parametrize("room", ["training", "export", "app"])
def test_ruff_bans_a_room_under_its_second_name(room: str, tmp_path: Path) -> None:
    (tmp_path / "once.py").write_text(f"import zoo.{room}\n\nprint(zoo.{room})\n")
    (tmp_path / "twice.py").write_text(f"import {room}\n\nprint({room})\n")
    ruff = Path(sys.executable).with_name("ruff")
    done = run(
        ruff, "check", "--no-cache", "--select", "TID", "--config", ROOT / "pyproject.toml", ".", cwd=tmp_path
    )
    assert "twice.py" in done.stdout and "TID251" in done.stdout
    assert "once.py" not in done.stdout


def test_citation_names_this_version() -> None:
    import yaml

    import zoo

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == zoo.__version__


# Small rooms


def test_no_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert SOURCES
    assert not [relative(path) for path in SOURCES if path.stem in drawers or path.parent.name in drawers]


def test_a_function_fits_on_a_screen() -> None:
    long = [
        f"{relative(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert long == []


# What the project's files may say


def project_texts() -> Iterator[tuple[str, str]]:
    """Every text file of the project, found by walking its rooms: a source archive has no list of tracked files."""
    folders = [ROOT / name for name in ("zoo", "training", "export", "app", "model_cards", "tests", ".ci")]
    # A linked worktree has a file .git, which names its place.
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    files += [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    for path in files:
        if "__pycache__" in path.parts:
            continue
        try:
            yield relative(path), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a photo or weights


def test_no_file_names_a_package_host_or_a_machine() -> None:
    # Written in halves, so that this file passes its own test.
    hosts = ["pypi" + ".org", "python" + "hosted", "npm" + "js.org", "index" + "-url", "find" + "-links"]
    machines = ["/ro" + "ot/", "/wo" + "rk/", "/ho" + "me/", "/Us" + "ers/"]
    told = [
        f"{name}: {word}" for name, text in project_texts() for word in (*hosts, *machines) if word in text
    ]
    assert told == []


# Skipped tests in continuous integration

SKIPS = """
import pytest

@pytest.mark.gpu
@pytest.mark.skip(reason="no device")
def test_gpu(): pass

@pytest.mark.skip(reason="tired")
def test_marked(): pass

def test_inside(): pytest.skip("later")

def test_missing(): pytest.importorskip("no_such_module")

@pytest.mark.xfail(reason="known")
def test_known(): assert False

def test_fine(): pass
"""
SKIPPED_FILE = """
import pytest

pytest.importorskip("no_such_module")
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_skip_fails_in_ci_unless_it_waits_for_a_gpu(workers: str, tmp_path: Path) -> None:
    done = run_tests(tmp_path, SKIPS, CI="true", workers=workers)
    # What a mark skips never gets as far as the test, so pytest counts it as an error.
    assert "2 failed, 1 passed, 1 skipped, 1 xfailed, 1 error in" in done.stdout
    assert "tired. Under CI=true only tests marked `gpu` may be skipped" in done.stdout


def test_a_skip_is_only_a_skip_elsewhere(tmp_path: Path) -> None:
    done = run_tests(tmp_path, SKIPS, CI="", workers="0")
    assert "1 passed, 4 skipped, 1 xfailed in" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("ci", "code"), [("true", pytest.ExitCode.INTERRUPTED), ("", pytest.ExitCode.NO_TESTS_COLLECTED)]
)
def test_a_skipped_file_fails_in_ci(ci: str, code: pytest.ExitCode, tmp_path: Path) -> None:
    done = run_tests(tmp_path, SKIPPED_FILE, CI=ci, workers="0")
    assert done.returncode == code
    assert ("Under CI=true only tests marked `gpu` may be skipped" in done.stdout) == bool(ci)


def run_tests(folder: Path, tests: str, *, CI: str, workers: str) -> subprocess.CompletedProcess[str]:
    """Run `tests` in a folder of their own under the project's conftest and settings."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "test_skips.py").write_text(tests)
    return run(sys.executable, "-m", "pytest", "-n", workers, "test_skips.py", cwd=folder, CI=CI)
