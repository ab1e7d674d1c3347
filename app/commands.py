"""What `zoo app` does, for the command line that finds this room by name."""

from __future__ import annotations

from collections.abc import Sequence

import gradio  # noqa: F401  # here, so that `zoo app` says which extra brings it before anything is fetched

from zoo.app.server import serve
from zoo.pulling import pull


def app_command(models: Sequence[str], host: str, port: int, site: str | None = None) -> None:
    """Fetch the models where they are not here yet, and serve the pages. Raises what `zoo.pull` and `serve` raise."""
    places = [pull(name) for name in models]
    serve(places, host=host, port=port, site=site, say=lambda text: print(text, flush=True))
