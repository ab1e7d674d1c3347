"""The page of models: every card, searched, with licence and numbers first."""

from __future__ import annotations

from typing import Any

import gradio as gr

from zoo.app.catalogue import COLUMNS, found, row, told
from zoo.app.pages.parts import SILENT, visible
from zoo.registry import card, list_models

ABOUT = """\
# Models
Numbers are top-1 in % on ImageNet-1k as published; of models trained here, on the data their cards name. Click a row,
or type a name below, for all of a card."""


def search(query: str, commercial: bool, local: bool) -> tuple[list[list[str]], Any]:
    """The models that fit: a table, and a choice of one of them."""
    cards = found(query, commercial=commercial, local=local)
    names = [each.name for each in cards]
    return [row(each) for each in cards], gr.Dropdown(choices=names, value=names[0] if names else None)


def tell(model: str | None) -> str:
    """The card of a model as Markdown."""
    return told(card(model)) if model else "No model fits. Search for less."


def chosen(event: gr.SelectData) -> str:
    """The model whose row was clicked."""
    return str(event.row_value[0])


def models_page(app: gr.Blocks) -> None:
    """Lay the page out and wire it."""
    gr.Markdown(ABOUT)
    with gr.Row():
        query = gr.Textbox(
            label="Search (name, method, family, licence)", placeholder="dino vit", scale=3, elem_id="query"
        )
        with gr.Column(scale=1, min_width=220):
            commercial = gr.Checkbox(label="Commercial use allowed")
            local = gr.Checkbox(label="On this machine")
    listed = gr.Dataframe(
        headers=[*COLUMNS], interactive=False, max_height=420, label="Models", elem_id="listed", buttons=[],
    )  # fmt: skip
    name = gr.Dropdown(list_models(), label="Model", elem_id="name")
    text = gr.Markdown(elem_id="card")
    inputs, outputs = [query, commercial, local], [listed, name]
    how: dict[str, Any] = {"queue": False, "trigger_mode": "always_last"}
    app.load(visible(search), inputs, outputs, **how, **SILENT).then(tell, name, text, **how, **SILENT)
    shown = gr.on(
        [query.change, commercial.input, local.input],
        visible(search),
        inputs,
        outputs,
        api_name="models",
        **how,
    )
    shown.then(visible(tell), name, text, **how, **SILENT)
    listed.select(chosen, None, name, **how, **SILENT).then(visible(tell), name, text, **how, **SILENT)
    name.input(visible(tell), name, text, api_name="card", **how)
