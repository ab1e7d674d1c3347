"""The README: its blocks run, and its tables say what the cards do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from zoo.cli.galleries import MOST, PICTURES
from zoo.cli.markdown import methods_table, models_page
from zoo.cli.trained import trained_table
from zoo.registry import MODEL_CARDS, own_cards

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_what_was_trained_here_is_the_one_the_cards_make() -> None:
    table = trained_table(own_cards())
    assert f"\n\n{table}\n\n" in README, "zoo list --markdown trained"
    for name, knn in bundled_scores().items():
        assert re.search(rf"\[`{name}`\].* \| {knn:.1f}[ |]", table)


def bundled_scores() -> dict[str, float]:
    """k-NN of every model whose weights are bundled, read from the cards without the zoo."""
    found = {}
    for path in sorted(MODEL_CARDS.glob("*/README.md")):
        front = yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])
        scores = [each["value"] for each in front["zoo"]["results"] if each["task"] == "knn"]
        found[path.parent.name] = scores[-1]
    assert len(found) >= 3
    return found


def test_the_table_of_methods_is_the_one_the_cards_make() -> None:
    assert methods_table(own_cards()) in README, "zoo list --markdown methods"


def test_the_page_of_models_is_the_one_the_cards_make() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert page == models_page(own_cards()), "zoo list --markdown models > docs/models.md"


def test_the_gallery_is_of_models_that_exist_and_opens_quickly() -> None:
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    command = re.search(r"zoo gallery [^`]*", page)
    assert command is not None
    words = command[0].replace("\\", "").split()[3:]
    named = {word for word in words if not word.startswith("-")} - {"docs/gallery"}
    assert len(named) >= 3 and named <= {card.name for card in own_cards()}
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page)
    assert {Path(picture).name for picture in pictures} == set(PICTURES)
    assert all(0 < (ROOT / "docs" / picture).stat().st_size <= MOST for picture in pictures)


def test_the_links_of_the_tables_lead_somewhere() -> None:
    for folder, text in ((ROOT, README), (ROOT / "docs", models_page(own_cards()))):
        links = re.findall(r"\]\((?!https?://)([^)#]+)\)", text)
        assert len(links) > 20
        assert not [link for link in links if not (folder / link).exists()]


def test_its_blocks_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    promised = [line.partition("# ")[2] for line in "".join(blocks).splitlines() if line.startswith("print(")]
    for comment in promised[:2]:
        assert comment.partition(": one")[0] in printed
