"""Pictures as figures of a page: each with its caption, and with words for those who cannot see it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image


def data_uri(picture: Image.Image) -> str:
    """A picture as an address of its own."""
    encoded = io.BytesIO()
    picture.save(encoded, format="WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def figure(picture: Image.Image, caption: str, words: str = "") -> str:
    """One picture with its caption; words: what it shows, where the caption does not say it."""
    size = f'width="{picture.width}" height="{picture.height}"'
    image = f'<img src="{data_uri(picture)}" alt="{escape(words or caption)}" {size}>'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def strip(figures: Iterable[str], heading: str = "") -> str:
    """Figures side by side, as many in a row as there is room."""
    title = f"<h4>{escape(heading)}</h4>" if heading else ""
    return f'<div class="zoo-strip-part">{title}<div class="zoo-strip">{"".join(figures)}</div></div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in a table that scrolls by itself where it is too wide."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f'<div class="zoo-table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"
