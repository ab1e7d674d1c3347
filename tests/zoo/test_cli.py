"""The command line: what it prints, how it fails, and how soon it answers."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from zoo.cli import main
from zoo.cli.arguments import split_knobs
from zoo.cli.measuring import PHRASES, _told
from zoo.protocols import PROTOCOLS, TRAINING
from zoo.tables import pairs, table

COMMANDS = [
    "list",
    "show",
    "register",
    "remove",
    "pull",
    "verify",
    "push",
    "attend",
    "reconstruct",
    "gallery",
    "demo",
]
COMMANDS += ["embed", "evaluate", "compare", "train", "study", "methods", "recipes", "export", "bench", "app"]
DINO, MAE = "dino_vitt16_imagenette", "mae_vitt16_imagenette"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.radial_gradient("L").resize((60, 40)).convert("RGB").save(path)
    return path


def two_shades(folder: Path) -> Path:
    """Labelled data: three dark and three bright images to train on, and as many to test on."""
    shades = {"dark": 0, "bright": 200}
    for split, label, i in itertools.product(("train", "val"), shades, range(3)):
        (folder / split / label).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (shades[label] + 5 * i,) * 3).save(folder / split / label / f"{i}.png")
    return folder


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command line."""
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line a mistake is answered with."""
    code, out, err = answer(capsys, *words)
    assert (code, out) == (2, "")
    lines = [
        line for line in err.splitlines() if ": weights under " not in line
    ]  # the note on a licence, once
    assert len(lines) == 1 and lines[0].startswith("zoo: "), err
    return lines[0].removeprefix("zoo: ")


def in_a_process(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **settings}
    command = [sys.executable, "-m", "zoo", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["lst"], "no command 'lst'; did you mean 'list'? `zoo --help` shows them all"),
        (["attend"], "the following arguments are required: MODEL, IMAGE, --out; `zoo attend --help`"),
        (["attend", DINO, "a.jpg", "--out", "b.png", "--sise", "480"], "no option --sise; did you mean '--size'?"),
        (["attend", DINO, "a.jpg", "--out", "b.png", "--fit", "whol"], "did you mean 'whole'?"),
        (["attend", DINO, "a.jpg", "--out", "b.png", "--size", "big"], "invalid int value: 'big'"),
        (["attend", DINO, "a.jpg", "b.jpg", "--out", "c.png"], "no place for 'b.jpg'"),
        (["attend", DINO, "a.jpg", "--out", "heads.pgn"], "did you mean '.png'?"),
        (["--verbos"], "`zoo` has no option --verbos"),
        (["train", "mae/smoke", "data", "--out", "runs/a", "--lr", "1"], "--section.knob VALUE, as in --optim.lr 1e-3"),
        (["train", "mae/smoke", "data", "--ot", "runs/a"], "did you mean '--out'?"),
        (["evaluate", MAE, "data", "--write-card", "--weights", "random"], "leave out --weights"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_that_names_the_right_one(
    capsys: pytest.CaptureFixture[str], words: list[str], wanted: str
) -> None:
    assert wanted in refusal(capsys, *words)


def test_options_are_never_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no option --jso" in refusal(capsys, "list", "--jso")


def test_a_misspelt_model_names_the_nearest(capsys: pytest.CaptureFixture[str], photo: Path) -> None:
    said = refusal(capsys, "attend", "dino_vitt61_imagenette", str(photo), "--out", "heads.png")
    assert "no model 'dino_vitt61_imagenette'" in said and f"did you mean {DINO!r}?" in said
    assert f"did you mean {DINO!r}?" in refusal(capsys, "show", "dino_vitt61_imagenette")
    assert f"did you mean {DINO!r}?" in refusal(capsys, "show", "dino_vitt")  # more letters are dino_vits8's


def test_a_missing_image_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Path) -> None:
    wrong = tmp_path / "phto.png"
    said = refusal(capsys, "attend", DINO, str(wrong), "--out", str(tmp_path / "heads.png"))
    assert str(wrong) in said
    assert not (tmp_path / "heads.png").exists()


def test_a_missing_data_folder_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert nowhere in refusal(capsys, "evaluate", DINO, nowhere)
    assert nowhere in refusal(capsys, "embed", DINO, nowhere, "--out", str(tmp_path / "features"))


def test_zoo_alone_shows_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys)
    assert code == 0 and not err
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ") and line[2] not in "- "]
    assert sorted(listed) == sorted(["COMMAND", *COMMANDS])


def test_every_protocol_has_a_phrase(capsys: pytest.CaptureFixture[str]) -> None:
    assert [*PHRASES] == [*PROTOCOLS, *TRAINING, "foreground"]
    assert main(["evaluate", "--help"]) == 0
    assert f"lowshot         {PHRASES['lowshot']}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], ["attend", "--help"], ["train", "-h"], ["evaluate", "--help"]])
def test_help_is_no_mistake(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    code, out, err = answer(capsys, *words)
    assert code == 0 and out.startswith("usage: zoo") and not err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import zoo

    assert answer(capsys, "--version") == (0, f"ssl-zoo {zoo.__version__}\n", "")


def test_list_is_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # of 80, the longest names leave none for the family
    code, out, _ = answer(capsys, "list")
    header, *rows = out.splitlines()
    assert code == 0 and header.split()[:3] == ["name", "family", "params"]
    assert any(row.startswith(DINO) and "bundled" in row for row in rows)


def test_list_takes_patterns_and_filters(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = answer(capsys, "list", "dino_*", "--json")
    assert {row["name"].split("_")[0] for row in json.loads(out)} == {"dino"}
    for part in ("dino_vits1", "VITS1"):  # as people type: any part of a name, in any case
        _, out, _ = answer(capsys, "list", part, "--json")
        assert "dino_vits16" in {row["name"] for row in json.loads(out)} and MAE not in out
    _, out, _ = answer(capsys, "list", "--kind", "generative", "--json")
    assert MAE in {row["name"] for row in json.loads(out)} and DINO not in out


def test_list_is_markdown_for_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = answer(capsys, "list", "--markdown", "methods")
    assert out.startswith("| method |") and "[DINO](https://" in out
    _, out, _ = answer(capsys, "list", "--markdown", "trained")
    assert out.startswith("| model | method |") and f"[`{MAE}`](model_cards/" in out
    assert "did you mean 'models'?" in refusal(capsys, "list", "--markdown", "model")


def test_list_says_what_it_looked_for_where_there_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys, "list", "nothing_like_this*")
    assert (code, out) == (0, "") and "nothing_like_this*" in err


def test_show_puts_numbers_and_licence_first(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "show", DINO)
    assert code == 0 and DINO in out
    assert 0 < out.index("licence") < out.index("k-NN") < out.index("network")


def test_show_as_json_is_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = answer(capsys, "show", DINO, "--json")
    assert json.loads(out)["name"] == DINO


def test_attend_draws_and_says_where(capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Path) -> None:
    out = tmp_path / "heads.png"
    code, said, _ = answer(
        capsys, "attend", DINO, str(photo), "--out", str(out), "--size", "64", "--device", "cpu"
    )
    assert code == 0 and "3 heads of the last block on 4×6 patches" in said and str(out) in said
    with Image.open(out) as picture:
        assert f"({picture.width}×{picture.height})" in said


def test_reconstruct_draws_and_gives_the_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Path
) -> None:
    said = []
    for name in ("a.png", "b.png"):
        words = [
            "reconstruct",
            MAE,
            str(photo),
            "--out",
            str(tmp_path / name),
            "--ratio",
            "0.5",
            "--seed",
            "3",
        ]
        code, out, _ = answer(capsys, *words)
        assert code == 0 and "random, seed 3, 50 % hidden · error 0." in out
        said.append(out.partition(":")[0])
    assert said[0] == said[1]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_embed_then_evaluate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data, features, scores = (
        str(two_shades(tmp_path / "data")),
        tmp_path / "features",
        tmp_path / "scores.json",
    )
    code, out, _ = answer(
        capsys, "embed", DINO, data, "--out", str(features), "--outputs", "pooled", "patches"
    )
    assert code == 0 and list(features.glob("part-*.parquet"))
    assert f"embedded 12 images, none skipped; their features are in {features}\n" in out
    code, out, err = answer(
        capsys, "evaluate", DINO, data, "--protocol", "knn", "--weights", "random", "--json", str(scores)
    )
    assert code == 0 and out.splitlines()[1].startswith("knn") and "Tested on the 6 images" in err
    assert "6 test images: too few" in err
    assert json.loads(scores.read_text())[0]["n_train"] == 6


@pytest.mark.parametrize(("images", "learnt"), [(12, True), (9, False)])
def test_evaluate_and_compare_say_when_test_images_were_trained_on(
    images: int, learnt: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Training with --test takes all of undivided data, of which evaluating without it holds a share out."""
    from zoo.cards import write_card
    from zoo.registry import card, find

    data, model = tmp_path / "shades", tmp_path / "mine"
    for split in ("train", "val"):
        for image in two_shades(tmp_path / "divided").glob(f"{split}/*/*.png"):
            to = data / image.parent.name / f"{split}_{image.name}"
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, to)
    shutil.copytree(find(DINO), model)
    training = card(model).training
    assert training is not None
    own = dataclasses.replace(training, data="shades", images=images)
    write_card(dataclasses.replace(card(model), training=own), model / "README.md")
    for words in (
        ["evaluate", str(model), str(data), "--size", "32"],
        ["compare", str(data), "--models", str(model)],
    ):
        code, _, err = answer(capsys, *words)
        assert code == 0 and ("was trained on all of shades" in err) == learnt


def test_embed_names_its_own_remedies(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data, features = str(two_shades(tmp_path / "data")), str(tmp_path / "features")
    words = ["embed", DINO, data, "--out", features, "--device", "cpu"]
    assert answer(capsys, *words, "--batch-size", "4", "--workers", "0")[0] == 0
    assert "or --anew to write this one anew" in refusal(capsys, *words, "--dtype", "float16")
    (tmp_path / "data" / "train" / "dark" / "0.png").write_text("no picture")
    _, said, _ = answer(capsys, *words, "--dtype", "float16", "--anew")
    assert f"embedded 11 images, 1 skipped as unreadable ({features}/_skipped.jsonl says why); their" in said
    assert "did you mean 'ray'?" in refusal(capsys, *words, "--engine", "rai")
    assert "did you mean 'patches'?" in refusal(capsys, *words, "--outputs", "patch")


def test_scores_go_onto_the_model_s_own_card(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from zoo.registry import card, find

    model, data = tmp_path / "my_model", two_shades(tmp_path / "data")
    shutil.copytree(find(DINO), model)
    before = len(card(model).results)
    for _ in range(2):  # the second writes in place of the first
        code, _, err = answer(capsys, "evaluate", str(model), str(data), "--size", "64", "--write-card")
        assert code == 0 and str(model / "README.md") in err
    *_, result = card(model).results
    assert len(card(model).results) == before + 1 and card(model).transform == card(DINO).transform
    assert (result.task, result.dataset, result.split, result.settings["size"]) == (
        "knn",
        "data",
        "validation",
        64,
    )
    assert result.command == f"zoo evaluate {model} {data} --size 64 --protocol knn"
    words = ("--size", "64", "--limit", "6", "--write-card")
    assert answer(capsys, "evaluate", str(model), str(data), *words)[0] == 0
    *_, whole, few = card(model).results  # though six images were all there were
    assert whole == result and few.settings == {**result.settings, "limit": 6} and "--limit 6" in few.command


def test_an_unknown_protocol_names_those_there_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    assert "there are knn, linear" in refusal(
        capsys, "evaluate", DINO, str(tmp_path), "--test", str(tmp_path), "--protocol", "lineer"
    )


@pytest.mark.parametrize(
    ("command", "row"), [("methods", "mae"), ("methods", "dino"), ("recipes", "mae/smoke")]
)
def test_methods_and_recipes_are_listed_with_what_they_do(
    capsys: pytest.CaptureFixture[str], command: str, row: str
) -> None:
    code, out, _ = answer(capsys, command)
    assert code == 0
    assert any(line.split()[0] == row and len(line.split()) > 3 for line in out.splitlines())


def test_training_names_the_extra_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "zoo.training.engine", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)  # as where it is not installed
    said = refusal(capsys, "train", "mae/smoke", str(tmp_path), "--out", str(tmp_path / "run"))
    assert "training needs 'accelerate', which is not installed; type: pip install 'ssl-zoo[train]'" in said


def test_a_misspelt_knob_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    said = refusal(capsys, "train", "mae/smoke", str(tmp_path), "--optim.lrr", "1e-3", "--out", str(out))
    assert "--optim.lrr" in said and "did you mean 'optim.lr'?" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "rest", "knobs"),
    [
        ("train a d --optim.lr 1e-3 --out r", "train a d --out r", "--optim.lr 1e-3"),
        ("train a d --out r --optim.betas 0.9 0.95", "train a d --out r", "--optim.betas 0.9 0.95"),
        ("train a d --optim.lr=-1e-3 --out r", "train a d --out r", "--optim.lr=-1e-3"),
        ("train a d --optim.lr -.5 --out r", "train a d --out r", "--optim.lr -.5"),
        ("train a ./d.v2 --out runs/x.y", "train a ./d.v2 --out runs/x.y", ""),
        ("train a d --run.compile True -h", "train a d -h", "--run.compile True"),
    ],
)
def test_knobs_are_told_from_options(words: str, rest: str, knobs: str) -> None:
    assert split_knobs(words.split()) == (rest.split(), knobs.split())


def test_register_then_remove(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from zoo.registry import find

    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    code, out, _ = answer(capsys, "register", str(find(DINO)), "my_dino")
    assert code == 0 and "my_dino" in out
    _, out, _ = answer(capsys, "list", "my_*", "--json")
    assert [(row["name"], row["weights"]) for row in json.loads(out)] == [("my_dino", "local")]
    code, out, _ = answer(capsys, "remove", "my_dino")
    assert code == 0 and "my_dino" in out
    assert "my_dino" in refusal(capsys, "remove", "my_dino")


def test_a_bundled_model_cannot_be_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "bundled" in refusal(capsys, "remove", DINO)


def test_traceback_only_on_request() -> None:
    plain = in_a_process("show", "nosuch")
    asked = in_a_process("show", "nosuch", "--traceback")
    by_environment = in_a_process("show", "nosuch", ZOO_TRACEBACK="1")
    assert [process.returncode for process in (plain, asked, by_environment)] == [2, 2, 2]
    assert "Traceback" not in plain.stderr
    assert "Traceback" in asked.stderr and "Traceback" in by_environment.stderr


def test_interrupted_is_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def press_control_c(words: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.cli._run", press_control_c)
    assert answer(capsys, "list") == (130, "", "zoo: interrupted\n")


def test_a_closed_pipe_is_no_noise() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "zoo", "list", "--json"], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert process.returncode == 141 and process.stderr == b""


def test_list_answers_in_half_a_second_without_torch() -> None:
    """Or, on a processor that is slow or busy, in thrice the time of a loop that takes others a sixth of a second."""
    code = (
        "import sys, zoo.cli; zoo.cli.main(['list']);"
        "assert not {'torch', 'rich', 'tyro', 'timm', 'numpy', 'pyarrow', 'PIL'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, stdout=subprocess.DEVNULL).returncode == 0
    loop = "sum(i % 7 for i in range(2_000_000))"
    seconds, beside = zip(
        *((_seconds("-m", "zoo", "list"), _seconds("-c", loop)) for _ in range(3)), strict=True
    )
    assert min(seconds) < max(0.5, 3 * min(beside))


def _seconds(*words: str) -> float:
    """Seconds of CPU time: what Python takes for it on an idle machine, however busy this one is."""
    before = os.times()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, timeout=60, check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])  # of child processes, in user and in system mode


def test_a_table_lines_up() -> None:
    text = table(["name", "k-NN"], [["a", "9.5 %"], ["longer", "74.5 %"]], right=["k-NN"])
    assert text.splitlines() == ["name      k-NN", "a        9.5 %", "longer  74.5 %"]


def test_pairs_indent_further_lines() -> None:
    assert pairs([("k-NN", "61 %"), ("licence", "Apache-2.0\nweights: none")]).splitlines() == [
        "k-NN     61 %",
        "licence  Apache-2.0",
        "         weights: none",
    ]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "61.00 % (58.0–64.0)"),
        ({"top5": 87.5}, "61.00 % (58.0–64.0), top-5 87.50 %"),
        ({"top5": 87.5, "minutes": 3.04}, "61.00 % (58.0–64.0), top-5 87.50 %, 3.0 min"),
    ],
)
def test_a_score_is_told_with_what_it_has(more: dict[str, float], told: str) -> None:
    row = {"protocol": "lowshot", "features": "tuned", "share": 0.01, "top1": 61.0, "low": 58.0, "high": 64.0}
    assert _told({**row, **more}) == ("lowshot, 1% of the labels", "tuned", told)
