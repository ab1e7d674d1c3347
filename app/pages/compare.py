"""The page of comparison: two encoders on the visitor's own photos, which stay on the machine that runs the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from zoo.app.comparison import Looked, look
from zoo.app.figures import figure, paragraph, strip
from zoo.app.limits import PHOTOS, UPLOAD, Deadline, read_photos
from zoo.app.neighbours import agreement
from zoo.app.pages.parts import LONG, SILENT, visible
from zoo.app.photos import examples
from zoo.app.shelf import Shelf

THUMB = 160

ABOUT = """\
# Two models on your photos
For each photo: where the class token of each model's last block looks (mean of its heads), the main directions of its
patch tokens as colours, and which of your *other* photos it takes for the most alike, by the cosine (cos) of pooled
features after taking out their mean, which all your photos share: 1 alike, 0 unrelated, -1 opposite. Of two photos
nothing but opposites would be left, so theirs is the plain cosine."""


class Page:
    """The functions behind the page."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def opened(self, request: gr.Request) -> tuple[Any, Any]:
        """The models there are: two of them chosen, of different methods where there are."""
        names = self.shelf.names()
        other = names[1] if len(names) > 1 else names[0]
        return gr.Dropdown(choices=names, value=names[0]), gr.Dropdown(choices=names, value=other)

    def compare(
        self,
        photos: list[str] | None,
        first: str,
        second: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # how Gradio finds it
    ) -> tuple[str, dict[str, Any]]:
        """Two models on the same photos: pictures, and the neighbours of each photo by name.

        Without photos of one's own, the bundled ones are taken.
        """
        paths = photos or [str(path) for path in examples().values()]
        names = [path.replace("\\", "/").rpartition("/")[2] for path in paths]
        images, looked = read_photos(paths), []
        with Deadline():
            for number, name in enumerate(dict.fromkeys((first, second))):
                encoder = self.shelf.encoder(name, lambda text: progress(0.1, desc=text))
                progress(0.2 + 0.4 * number, desc=f"looking with {name}")
                looked.append(look(encoder, images))
        return shown(images, names, looked), found(names, looked)


def shown(images: Sequence[Image.Image], names: Sequence[str], looked: Sequence[Looked]) -> str:
    """One row a photo, in it one part a model."""
    thumbs = [thumb(image) for image in images]
    rows = []
    for i, name in enumerate(names):
        parts = [strip([figure(thumbs[i], name)], "photo")]
        parts += [strip(_figures(each, i, name, thumbs, names), each.name) for each in looked]
        rows.append(f'<section class="zoo-row" aria-label="{escape(name)}">{"".join(parts)}</section>')
    return _agreement(looked) + "".join(rows)


def thumb(image: Image.Image) -> Image.Image:
    """A small copy."""
    small = image.copy()
    small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    return small


def found(names: Sequence[str], looked: Sequence[Looked]) -> dict[str, Any]:
    """For programs: of each model, the neighbours of each photo as [name, cosine]."""
    return {
        each.name: {
            name: [
                [names[int(index)], round(float(cosine), 4)]
                for index, cosine in zip(each.near.index[i], each.near.cosine[i], strict=True)
            ]
            for i, name in enumerate(names)
        }
        for each in looked
        if each.near is not None
    }


def _figures(
    each: Looked, i: int, name: str, thumbs: Sequence[Image.Image], names: Sequence[str]
) -> list[str]:
    """One model on one photo."""
    attention, figures = each.attention[i], []
    if attention is not None:
        figures.append(figure(attention, "attention", f"mean attention of {each.name} on {name}"))
    figures.append(figure(each.colours[i], "colours", f"patch tokens of {each.name} on {name} as colours"))
    if each.near is not None:
        for index, cosine in zip(each.near.index[i], each.near.cosine[i], strict=True):
            words = f"{names[int(index)]}, alike to {name}, cosine {float(cosine):.3f}"
            figures.append(figure(thumbs[int(index)], f"cos {float(cosine):.3f}", words))
    return figures


def _agreement(looked: Sequence[Looked]) -> str:
    """How far two models agree, in a sentence."""
    if len(looked) < 2:
        return ""
    one, other = looked[0].near, looked[1].near
    if one is None or other is None:
        return paragraph("With two photos or more, their nearest neighbours are shown too.")
    share = 100 * agreement(one, other)
    return paragraph(
        f"{looked[0].name} and {looked[1].name} have {share:.0f} % of their neighbours in common."
    )


def compare_page(app: gr.Blocks, shelf: Shelf) -> None:
    """Lay the page out and wire it."""
    page = Page(shelf)
    gr.Markdown(ABOUT)
    with gr.Row():
        photos = gr.File(
            label=f"Your photos (2 to {PHOTOS}, each up to {UPLOAD.upper()}); none: the bundled ones",
            file_count="multiple",
            height=150,
            elem_id="photos",
        )
        with gr.Column(min_width=260):
            first = gr.Dropdown(shelf.names(), label="One model", elem_id="first")
            second = gr.Dropdown(shelf.names(), label="Another", elem_id="second")
            start = gr.Button("Compare", variant="primary")
    pictures = gr.HTML(elem_id="compared")
    with gr.Accordion("Neighbours as JSON", open=False):
        facts = gr.JSON(show_label=False)
    outputs = [pictures, facts]
    opened = app.load(visible(page.opened), None, [first, second], **SILENT)
    opened.then(visible(page.compare), [photos, first, second], outputs, **LONG, **SILENT)
    start.click(visible(page.compare), [photos, first, second], outputs, api_name="compare", **LONG)
