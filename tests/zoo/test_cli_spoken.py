"""What errors advise: Python in the library, options and commands on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo
from zoo.cli import main
from zoo.cli.spoken import as_typed
from zoo.errors import ZooError

DINO = "dino_vitt16_imagenette"
OPTIONS = (
    "--weights",
    "--size",
    "--query",
    "--strategy",
    "--fit",
    "--dtype",
    "--batch-size",
    "--anew",
    "--device",
)


@pytest.mark.parametrize(
    ("python", "typed"),
    [
        ("no model 'x'; zoo.list_models() shows all 9", "no model 'x'; `zoo list` shows all 9"),
        ("zoo.list_models(kind='generative') names them", "`zoo list --kind generative` names them"),
        ("it goes into a model: zoo.load(NAME, weights='a b.pth')", "it goes into a model: NAME --weights 'a b.pth'"),
        ("take zoo.load('dino_vits16'), which is here", "take dino_vits16, which is here"),
        ('take weights="random", the untrained one', "take --weights random, the untrained one"),
        ("pass weights=FILE", "pass --weights FILE"),
        ("size=100 is no multiple of 16; the nearest is 96", "--size 100 is no multiple of 16; the nearest is 96"),
        ("ask for a patch: query=(row, column)", "ask for a patch: --query ROW COLUMN"),
        ("blocks are 24 to 25, with query='cls'", "blocks are 24 to 25, with no --query"),
        ("call it per image, or use fit='crop'", "call it per image, or use --fit crop"),
        ("dtype='float61': parts hold float32", "--dtype float61: parts hold float32"),
        ("give another folder, or resume=False to write it anew", "give another folder, or --anew to write it anew"),
        ("batch_size=0 is too few", "--batch-size 0 is too few"),
        ("providers=('cpu',) works", "--device cpu works"),
        # No option of this command, and names of somebody's files, stay as they are.
        ("policy='commercial' refuses", "policy='commercial' refuses"),
        ("size=3.jpg: no such file", "size=3.jpg: no such file"),
        ("no file or folder 'runs/size=3'", "no file or folder 'runs/size=3'"),
        ("runs/size=3/a.png: no such file", "runs/size=3/a.png: no such file"),
        ("size=3/a.png: no such file", "size=3/a.png: no such file"),
    ],
)  # fmt: skip
def test_advice_is_reworded_for_what_the_command_takes(python: str, typed: str) -> None:
    assert as_typed(python, OPTIONS) == typed
    assert as_typed(as_typed(python, OPTIONS), OPTIONS) == typed


def test_the_library_speaks_python_and_the_command_line_its_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.pth").touch()
    for name, python, typed in (
        ("nothing_like_this", "zoo.list_models() shows all", "`zoo list` shows all"),
        (str(tmp_path / "mine.pth"), f"zoo.load(NAME, weights='{tmp_path}/mine.pth')", "NAME --weights /"),
    ):
        with pytest.raises(ZooError) as raised:
            zoo.load(name)
        assert python in str(raised.value)
        assert main(["show", name]) == 2
        said = capsys.readouterr().err
        assert typed in said and "zoo." not in said


def test_a_model_without_a_decoder_is_told_how_to_list_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    photo = "model_cards/photos/coffee.jpg"
    photo = str(Path(zoo.__file__).parent.parent / photo)
    assert main(["reconstruct", DINO, photo, "--out", str(tmp_path / "a.png")]) == 2
    assert "`zoo list --kind generative` names models that can" in capsys.readouterr().err
