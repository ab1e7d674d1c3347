"""The page of reconstruction: hide patches, by drawing or by hand, and see what each model imagines there."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from zoo.app.figures import data_uri, paragraph, table
from zoo.app.limits import Deadline, read_photo
from zoo.app.links import Setting, read_link, writer
from zoo.app.masks import PAINTED, Asked, write_mask
from zoo.app.pages.painter import painter
from zoo.app.pages.parts import BUTTONS, QUICK, SILENT, own, photo_chooser, picked, visible, warn_of
from zoo.app.photos import FIRST, examples
from zoo.app.reconstruction import Imagined, Scene, imagine
from zoo.app.shelf import Shelf
from zoo.pictures import RECONSTRUCTED, reconstruction_tiles, to_picture

STRATEGIES = {
    "random": "random",
    "uniform": "uniform (one visible in every 2×2)",
    "grid": "grid (the same one in every 2×2)",
    "blockwise": "block-wise",
    PAINTED: "painted by hand",
}
WITH_RATIO = ("random", "blockwise")
LARGEST_SEED = 2**53 - 1  # the largest whole number that a browser keeps exact

ABOUT = """\
# What it imagines
Hide patches of a photo and each model predicts them from the rest, all under the same mask. The error is the mean
squared error on the hidden pixels, in [0, 1]: the smaller, the closer."""


class Page:
    """The functions behind the page."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def settings(self) -> dict[str, Setting]:
        """What the link holds."""
        models = self.shelf.names(masked=True)
        return {
            "photo": Setting(FIRST, [*examples()]),
            "models": Setting(models[:1], models),
            "strategy": Setting("random", [*STRATEGIES]),
            "ratio": Setting(0.75, (0, 0.95)),
            "secondary": Setting(0.0, (0, 0.9)),
            "seed": Setting(0, (0, LARGEST_SEED)),
            "mask": Setting(""),
        }

    def opened(self, request: gr.Request) -> tuple[Any, ...]:
        """The page as its link says."""
        values, wrong = read_link(request.query_params, self.settings())
        warn_of(wrong)
        return (
            str(examples()[values["photo"]]),
            values["photo"],
            gr.CheckboxGroup(choices=self.shelf.names(masked=True), value=values["models"]),
            values["strategy"],
            gr.Slider(value=values["ratio"], interactive=values["strategy"] in WITH_RATIO),
            values["secondary"],
            values["seed"],
            values["mask"] or gr.skip(),
        )

    def reconstruct(
        self,
        photo: str,
        models: list[str],
        strategy: str,
        ratio: float,
        secondary: float,
        seed: int,
        mask: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # how Gradio finds it
    ) -> tuple[Any, Any, str]:
        """The mask that was asked for, four pictures of each model, and a table of their errors.

        mask: rows of 0 and 1, 1 = hidden, of strategy "painted". ratio: of "random" and "blockwise".
        """
        asked = Asked(strategy, float(ratio), float(secondary), int(seed or 0), mask)
        image = read_photo(photo)
        encoders = [self.shelf.encoder(name, lambda text: progress(0.1, desc=text)) for name in models]
        with Deadline():
            scene = imagine(encoders, image, asked)
        crop = data_uri(to_picture(scene.photo[0].float() / 255))
        drawn = [(own(picture), name) for picture, name in pictures(scene)]
        return gr.HTML(value=write_mask(scene.mask), photo=crop), drawn, told(scene)


def pictures(scene: Scene) -> list[tuple[Any, str]]:
    """Four pictures of each model, as `zoo reconstruct` draws them."""
    return [
        (tile, f"{label} · {each.name}")
        for each in scene.imagined
        for tile, label in zip(reconstruction_tiles(each.rec, 0), RECONSTRUCTED, strict=True)
    ]


def told(scene: Scene) -> str:
    """The errors as a table, and below it what has to be known about each model's pictures."""
    rows = [
        [
            each.name,
            hidden(each),
            f"{float(each.rec.error[0]):.4f}",
            "projected" if each.projected else "as asked",
        ]
        for each in scene.imagined
    ]
    header = ["model", "hidden patches", "error on hidden pixels", "mask"]
    notes = [paragraph(f"{each.name}: {note}") for each in scene.imagined for note in each.notes]
    return table(header, rows) + "".join(notes)


def hidden(each: Imagined) -> str:
    """`48 of 64 (75 %)`."""
    count, patches = int(each.rec.mask.sum()), each.rec.mask.numel()
    return f"{count} of {patches} ({100 * count / patches:.3g} %)"


def ratio_of(strategy: str) -> Any:
    """The slider works where the strategy has a choice."""
    return gr.Slider(interactive=strategy in WITH_RATIO)


def reconstruction_page(app: gr.Blocks, shelf: Shelf) -> None:
    """Lay the page out and wire it."""
    page = Page(shelf)
    gr.Markdown(ABOUT)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            chosen = photo_chooser()
            models = gr.CheckboxGroup(shelf.names(masked=True), label="Models", elem_id="models")
            strategy = gr.Radio(
                [(text, name) for name, text in STRATEGIES.items()], value="random", label="Which patches"
            )
            ratio = gr.Slider(0, 0.95, 0.75, step=0.05, label="Share to hide", elem_id="ratio")
            seed = gr.Number(
                0,
                precision=0,
                minimum=0,
                maximum=LARGEST_SEED,
                label="Seed: the same seed hides the same patches",
            )
            secondary = gr.Slider(0, 0.9, 0, step=0.05, label="Of the visible, share hidden too (UM-MAE)")
        with gr.Column(scale=2, min_width=320):
            mask = painter()
            results = gr.Gallery(
                label="What each model made of it", columns=4, height="auto", object_fit="contain", format="png",
                interactive=False, buttons=BUTTONS, elem_id="results",
            )  # fmt: skip
            errors = gr.HTML(elem_id="errors")
    inputs = [chosen.photo, models, strategy, ratio, secondary, seed, mask]
    linked = [chosen.example, models, strategy, ratio, secondary, seed, mask]
    outputs = [mask, results, errors]

    def show(event: Any, **how: Any) -> None:
        """After an event: the pictures, then the link."""
        shown = event(visible(page.reconstruct), inputs, outputs, **QUICK, **how)
        shown.then(fn=None, inputs=linked, js=writer([*page.settings()]), **SILENT)

    opened = app.load(visible(page.opened), None, [chosen.photo, chosen.example, *inputs[1:]], **SILENT)
    show(opened.then, **SILENT)
    show(chosen.gallery.select(picked, None, [chosen.photo, chosen.example], **SILENT).then, **SILENT)
    changed = [chosen.photo.upload, models.input, strategy.input, ratio.input, secondary.input, seed.input]
    show(partial(gr.on, changed), api_name="reconstruct")
    strategy.change(ratio_of, strategy, ratio, queue=False, **SILENT)
    show(mask.input(lambda: PAINTED, None, strategy, queue=False, **SILENT).then, **SILENT)
