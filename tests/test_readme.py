"""The README: its blocks run, and its tables say what the cards do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zoo.cards import ModelCard, read_card
from zoo.cli.markdown import methods_table, models_page
from zoo.registry import MODEL_CARDS, own_cards

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BUNDLED = sorted(path.parent for path in MODEL_CARDS.glob("*/README.md"))


@pytest.mark.parametrize("folder", BUNDLED, ids=lambda folder: folder.name)
def test_the_table_of_bundled_models_says_what_the_card_does(folder: Path) -> None:
    assert table_row(read_card(folder)) in README.splitlines()


def table_row(card: ModelCard) -> str:
    """The line of the README's table for a card."""
    scores = {result.task: f"{result.value:.1f} %" for result in card.results if result.metric == "top-1"}
    training = card.training
    assert training is not None
    columns = [
        f"[`{card.name}`](model_cards/{card.name}/README.md)",
        card.method.upper(),
        *(scores[task] for task in ("knn", "knn, untrained", "knn, raw 16×16 pixels")),
        f"{training.epochs} epochs, {training.minutes:.0f} min",
    ]
    return f"| {' | '.join(columns)} |"


def test_the_table_of_methods_is_the_one_the_cards_make() -> None:
    assert methods_table(own_cards()) in README, "zoo list --markdown methods"


def test_the_page_of_models_is_the_one_the_cards_make() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert page == models_page(own_cards()), "zoo list --markdown models > docs/models.md"


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
