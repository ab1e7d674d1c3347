"""What the pages share: a photo to choose or upload, errors that a visitor sees, and who may compute when."""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable
from html import escape
from typing import Any, NamedTuple, TypeVar

import gradio as gr
from PIL import Image

from zoo.app.limits import UPLOAD
from zoo.app.photos import FIRST, examples, title
from zoo.errors import ZooError

Result = TypeVar("Result")

# Without "share", which would send the picture to somebody's server.
BUTTONS: Any = ["download", "fullscreen"]

# Short work never waits for long work, and a visitor's slider for at most what is running: a browser sends its next
# position only when the last one is answered.
QUICK: dict[str, Any] = {"concurrency_id": "quick", "concurrency_limit": 2, "trigger_mode": "always_last"}
LONG: dict[str, Any] = {"concurrency_id": "long", "concurrency_limit": 1, "trigger_mode": "always_last"}
SILENT: dict[str, Any] = {
    "api_visibility": "private",
    "api_name": "internal",
}  # or it would take a public name


class Chosen(NamedTuple):
    """A photo's components: the photo, and the name of the example it is, empty where it was uploaded."""

    photo: gr.Image
    example: gr.Textbox
    gallery: gr.Gallery


def photo_chooser() -> Chosen:
    """A photo to upload, and the bundled ones to click."""
    photo = gr.Image(
        label=f"Your photo, up to {UPLOAD.upper()}",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=260,
        buttons=["fullscreen"],
        elem_id="photo",
    )
    # The uploaded file as it is, so that what is no photo is told by the zoo, in its own words. Not by a subclass:
    # Gradio writes a .pyi file beside the module of each.
    setattr(photo, "preprocess", lambda payload: None if payload is None else payload.path)  # noqa: B010
    gallery = gr.Gallery(
        [(str(path), title(name)) for name, path in examples().items()],
        label="Or one of these",
        columns=6,
        height="auto",
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        elem_id="examples",
        buttons=[],
    )
    example = gr.Textbox(FIRST, visible="hidden", label="example")
    photo.upload(lambda: "", None, example, queue=False, **SILENT)
    photo.clear(lambda: "", None, example, queue=False, **SILENT)
    return Chosen(photo, example, gallery)


def picked(event: gr.SelectData) -> tuple[str, str]:
    """The example that was clicked: its file, and its name."""
    name = list(examples())[event.index]
    return str(examples()[name]), name


def own(picture: Image.Image) -> Image.Image:
    """The same picture, marked so that no other visitor's PNG has the same bytes.

    Gradio names files by their content and writes them anew each time: a visitor would lose what another just gets.
    """
    picture.info["visit"] = uuid.uuid4().hex
    return picture


def visible(function: Callable[..., Result]) -> Callable[..., Result]:
    """The zoo's errors as messages on the page, and as errors of the API; all others stay in the server's log."""

    @functools.wraps(function)
    def shown(*args: Any, **kwargs: Any) -> Result:
        try:
            return function(*args, **kwargs)
        except ZooError as error:
            # A toast is HTML, and a message may quote what a link or a file's name says.
            said = escape(str(error), quote=False)
            raise gr.Error(said, duration=None, title="Not possible", print_exception=False) from error

    shown.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # Gradio reads it
    return shown


def warn_of(wrong: list[str]) -> None:
    """What in a link could not be followed."""
    if wrong:
        gr.Warning(f"This link asks for an impossible {', '.join(wrong)}; the usual value is shown instead.")
