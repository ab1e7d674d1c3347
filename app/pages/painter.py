"""The photo under its mask, patch by patch: a click, a stroke or a key hides a patch or shows it again.

Its value is the mask as `zoo.app.masks.write_mask` spells it; what is drawn and what is painted look the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from zoo.app.figures import data_uri

_HERE = Path(__file__).parent
BLANK = data_uri(Image.new("RGB", (8, 8), (127, 127, 127)))


def painter() -> Any:
    """The component. It triggers `input` when its visitor has changed the mask."""
    return gr.HTML(
        "0" * 8 + ("/" + "0" * 8) * 7,
        html_template=(_HERE / "painter.html").read_text(encoding="utf-8"),
        css_template=(_HERE / "painter.css").read_text(encoding="utf-8"),
        js_on_load=(_HERE / "painter.js").read_text(encoding="utf-8"),
        photo=BLANK,
        label="What is hidden",
        show_label=True,
        container=True,
        padding=True,
        elem_id="painter",
    )
