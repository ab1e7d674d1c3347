"""The pages: wiring only. What they show is computed by the pure functions beside this folder."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import gradio as gr
from gradio.components import Navbar

from zoo.app.pages.attention import attention_page
from zoo.app.pages.compare import compare_page
from zoo.app.pages.models import models_page
from zoo.app.pages.reconstruction import reconstruction_page
from zoo.app.shelf import Shelf

HOME = "Attention"
NO_SERVER = """\
# Without a server
This page was written by `zoo export --to web`: the model runs in your browser, and your photo never leaves it."""
WAITING = 64  # visitors' requests at most in the queue
KEPT = (300, 3600)  # seconds: pictures are looked for every five minutes, and deleted after an hour


def build(
    models: Sequence[str | Path] = (), *, shelf: Shelf | None = None, site: str | None = None
) -> gr.Blocks:
    """All pages. models: names or folders shown first, besides all whose weights are on this machine. site: the address
    of a page that `zoo export --to web` wrote, shown in one of its own.

    Nothing is loaded, fetched or told to anybody before a visitor comes. `zoo.app.serve` runs it with its theme and
    limits; raises UnknownModel or CardError for `models`.

    >>> zoo.app.build().title
    'ssl-zoo'
    """
    shelf = Shelf(models) if shelf is None else shelf
    app: gr.Blocks
    with gr.Blocks(title="ssl-zoo", analytics_enabled=False, delete_cache=KEPT) as app:
        Navbar(main_page_name=HOME)
        attention_page(app, shelf)
    with app.route("Reconstruction", "/reconstruction"):
        Navbar(main_page_name=HOME)
        reconstruction_page(app, shelf)
    with app.route("Compare", "/compare"):
        Navbar(main_page_name=HOME)
        compare_page(app, shelf)
    with app.route("Models", "/models"):
        Navbar(main_page_name=HOME)
        models_page(app)
    if site is not None:
        with app.route("No server", "/no-server"):
            Navbar(main_page_name=HOME)
            gr.Markdown(NO_SERVER)
            gr.HTML(f'<iframe src="{escape(site)}" title="The exported page" class="zoo-site"></iframe>')
    app.queue(max_size=WAITING, default_concurrency_limit=2, api_open=False)  # nobody passes the queue
    return app
