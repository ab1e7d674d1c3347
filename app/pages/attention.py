"""The page of attention: heads, similarity to one patch, and the patch tokens as colours."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import gradio as gr

from zoo.app.attention import Attended, Query, attend_to, depth, seen
from zoo.app.limits import Deadline, read_photo
from zoo.app.links import Setting, read_link, writer
from zoo.app.pages.parts import (
    BUTTONS,
    QUICK,
    SILENT,
    Chosen,
    own,
    photo_chooser,
    picked,
    visible,
    warn_of,
)
from zoo.app.photos import FIRST, examples
from zoo.app.shelf import Shelf
from zoo.app.similarity import marked, patch_at, similarity_picture
from zoo.colours import colour_picture
from zoo.encoder import Encoder
from zoo.pictures import FINE_GRID, resized, tile_size, to_picture

CLASS_TOKEN, MARKED = "the class token", "the marked patch"
TILE = 640

ABOUT = """\
# What it attends to
Each picture is one head of the chosen block: bright patches are the ones it looks at. The photo is enlarged until its
short side has the chosen number of patches."""


class Page:
    """The functions behind the page."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def settings(self) -> dict[str, Setting]:
        """What the link holds."""
        models = self.shelf.names()
        return {
            "photo": Setting(FIRST, [*examples()]),
            "model": Setting(models[0], models),
            "block": Setting(-1, (-1, 999)),
            "patches": Setting(FINE_GRID, (8, 56)),
            "share": Setting(60, (5, 95)),
            "whose": Setting(CLASS_TOKEN, [CLASS_TOKEN, MARKED]),
            "row": Setting(-1, (-1, 999)),
            "column": Setting(-1, (-1, 999)),
        }

    def opened(self, request: gr.Request) -> tuple[Any, ...]:
        """The page as its link says."""
        values, wrong = read_link(request.query_params, self.settings())
        warn_of(wrong)
        blocks = depth(self._encoder(values["model"]))
        block = values["block"] if 0 <= values["block"] < blocks else blocks - 1
        return (
            str(examples()[values["photo"]]),
            values["photo"],
            gr.Dropdown(choices=self.shelf.names(), value=values["model"]),
            gr.Slider(maximum=blocks - 1, value=block),
            *(values[name] for name in ("patches", "share", "whose", "row", "column")),
        )

    def blocks(self, model: str) -> Any:
        """The blocks that a newly chosen model has; its last one is looked at."""
        last = depth(self._encoder(model)) - 1
        return gr.Slider(maximum=last, value=last)

    def attend(
        self,
        photo: str,
        model: str,
        block: int,
        patches: int,
        share: float,
        whose: str,
        row: int,
        column: int,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # how Gradio finds it
    ) -> tuple[Any, str]:
        """Every head of the block, their mean, and the patches that hold `share` per cent of its mass."""
        encoder, seen_photo, features = self._tokens(photo, model, block, patches, progress)
        query: Query = _patch(row, column, features.grid) if whose == MARKED else "cls"
        with Deadline():
            attended = attend_to(encoder, seen_photo, features, int(block), query)
        pictures = [(own(picture), name) for picture, name in attended.pictures(share / 100)]
        return pictures, _told(attended, encoder, int(block))

    def similarity(
        self,
        photo: str,
        model: str,
        block: int,
        patches: int,
        row: int,
        column: int,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, Any, Any, int, int]:
        """The photo with the patch framed, its similarity to all others, and the patches' main directions as colours.

        A row or column of -1 stands for the middle.
        """
        _, seen_photo, features = self._tokens(photo, model, block, patches, progress)
        patch = _patch(row, column, features.grid)
        picture = resized(to_picture(seen_photo), tile_size(seen_photo, TILE))
        return (
            own(marked(picture, features.grid, patch)),
            own(similarity_picture(seen_photo, features, patch, TILE)),
            own(colour_picture(seen_photo, features, TILE)),
            *patch,
        )

    def clicked(
        self, photo: str, model: str, block: int, patches: int, event: gr.SelectData
    ) -> tuple[int, int]:
        """The patch under a click on the photo."""
        _, seen_photo, features = self._tokens(photo, model, block, patches)
        x, y = event.index
        return patch_at(x, y, tile_size(seen_photo, TILE), features.grid)

    def attend_where_marked(self, *inputs: Any) -> tuple[Any, Any]:
        """The heads again, where it is the marked patch's attention that is shown."""
        return self.attend(*inputs) if inputs[5] == MARKED else (gr.skip(), gr.skip())

    def _tokens(
        self, photo: str, model: str, block: int, patches: int, progress: gr.Progress | None = None
    ) -> tuple[Any, Any, Any]:
        """The encoder, the photo as it sees it, and the tokens of a block."""
        image, encoder = read_photo(photo), self._encoder(model, progress)
        with Deadline():
            seen_photo = seen(encoder, image, int(patches))
            return encoder, seen_photo, self.shelf.tokens(encoder, seen_photo, int(block))

    def _encoder(self, model: str, progress: gr.Progress | None = None) -> Encoder:
        return self.shelf.encoder(model, lambda text: progress(0.1, desc=text) if progress else None)


def _patch(row: int | None, column: int | None, grid: tuple[int, int]) -> tuple[int, int]:
    """A patch of the grid: the nearest to the one asked for, the middle for -1 and for an emptied field."""
    asked = (int(row), int(column)) if row is not None and column is not None else (-1, -1)
    asked = asked if min(asked) >= 0 else (grid[0] // 2, grid[1] // 2)
    return min(asked[0], grid[0] - 1), min(asked[1], grid[1] - 1)


def _told(attended: Attended, encoder: Encoder, block: int) -> str:
    """What the pictures show, in words."""
    if attended.heads is None:
        return attended.note
    heads, h, w = attended.heads.shape
    whose = "the class token" if attended.query == "cls" else f"patch {attended.query}"
    what = f"{heads} heads of block {block} of {encoder.card.name}, {h}×{w} patches, attention of {whose}."
    return f"{what} {attended.note}".strip()


class Parts(NamedTuple):
    """The components of the page."""

    chosen: Chosen
    asked: list[Any]  # model, block, patches, share, whose
    patch: list[Any]  # row, column
    heads: list[Any]  # the gallery, and what it shows in words
    pictures: list[Any]  # the photo, similarity, colours


def attention_page(app: gr.Blocks, shelf: Shelf) -> None:
    """Lay the page out and wire it."""
    page, parts = Page(shelf), lay_out(shelf)
    chosen, photo = parts.chosen, parts.pictures[0]
    model, block, patches, share, whose = parts.asked
    inputs = [chosen.photo, *parts.asked, *parts.patch]
    pointed = [chosen.photo, model, block, patches, *parts.patch]
    linked = [chosen.example, *inputs[1:]]
    link = {"fn": None, "inputs": linked, "js": writer([*page.settings()]), **SILENT}

    def heads_of(event: Any, **how: Any) -> Any:
        """After an event: the heads."""
        return event(visible(page.attend), inputs, parts.heads, **QUICK, **how)

    def patches_of(event: Any, **how: Any) -> Any:
        """After an event: similarity and colours."""
        return event(visible(page.similarity), pointed, [*parts.pictures, *parts.patch], **QUICK, **how)

    def both(event: Any, **how: Any) -> None:
        """After an event: the heads, then the patches, then the link."""
        patches_of(heads_of(event, **how).then, **SILENT).then(**link)

    def pointed_at(event: Any, **how: Any) -> None:
        """After another patch was chosen: the patches, the heads where they are its own, then the link."""
        shown = patches_of(event, **how)
        shown.then(visible(page.attend_where_marked), inputs, parts.heads, **QUICK, **SILENT).then(**link)

    both(app.load(visible(page.opened), None, [chosen.photo, *linked], **SILENT).then, **SILENT)
    both(chosen.gallery.select(picked, None, [chosen.photo, chosen.example], **SILENT).then, **SILENT)
    both(model.input(visible(page.blocks), model, block, **SILENT).then, **SILENT)
    both(partial(gr.on, [chosen.photo.upload, block.input, patches.input]), api_name="attend")
    heads_of(partial(gr.on, [share.input, whose.input]), **SILENT).then(**link)
    clicked = photo.select(visible(page.clicked), inputs[:4], parts.patch, **QUICK, **SILENT)
    pointed_at(clicked.then, **SILENT)
    pointed_at(partial(gr.on, [each.submit for each in parts.patch]), api_name="similarity")


def lay_out(shelf: Shelf) -> Parts:
    """Everything on the page, from top to bottom."""
    gr.Markdown(ABOUT)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            chosen = photo_chooser()
            model = gr.Dropdown(shelf.names(), label="Model", elem_id="model")
            block = gr.Slider(0, 11, 11, step=1, label="Block")
            with gr.Accordion("More", open=False):
                patches = gr.Slider(8, 56, FINE_GRID, step=2, label="Patches along the short side")
                share = gr.Slider(5, 95, 60, step=5, label="Share of the mass in the mask, in % (paper: 60)")
                whose = gr.Radio([CLASS_TOKEN, MARKED], value=CLASS_TOKEN, label="Whose attention")
        with gr.Column(scale=3, min_width=320):
            heads = gr.Gallery(
                label="Heads", columns=3, height="auto", object_fit="contain", format="png", interactive=False,
                buttons=BUTTONS, elem_id="heads",
            )  # fmt: skip
            told = gr.Markdown(elem_id="told")
    gr.Markdown("## Patch by patch\nClick the photo, or type a patch: how alike are all others to it?")
    still: dict[str, Any] = {"interactive": False, "format": "png", "buttons": BUTTONS, "min_width": 240}
    with gr.Row():
        photo = gr.Image(label="Photo, the patch framed", elem_id="seen", **still)
        similar = gr.Image(label="Similarity to that patch", elem_id="similar", **still)
        colours = gr.Image(label="Main directions (PCA)", elem_id="colours", **still)
    with gr.Row():
        row = gr.Number(-1, precision=0, label="Row of the patch, from 0", min_width=120)
        column = gr.Number(-1, precision=0, label="Column of the patch, from 0", min_width=120)
    asked = [model, block, patches, share, whose]
    return Parts(chosen, asked, [row, column], [heads, told], [photo, similar, colours])
