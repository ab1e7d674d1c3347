"""Serving the pages: on this machine alone unless told, with limits, and nothing fetched from anywhere else."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.app.limits import UPLOAD
from zoo.app.shelf import Shelf
from zoo.errors import Unsupported

if TYPE_CHECKING:
    import gradio as gr
    from fastapi import FastAPI

LOCAL = "127.0.0.1"
SITE = "/site"
SYSTEM_FONTS = ["system-ui", "sans-serif"]
MONO = ["ui-monospace", "monospace"]

# The browser itself refuses what a card, a photo or a library would fetch from elsewhere. Gradio runs inline scripts
# and compiles templates; a page on one's own server may frame this one.
POLICY = "; ".join([
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "media-src 'self' data: blob:",
    "font-src 'self' data:",
    "connect-src 'self' data: blob:",
    "worker-src 'self' blob:",
    "form-action 'self'",
    "base-uri 'self'",
])  # fmt: skip


HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Headers:
    """Adds HEADERS to every answer, and touches nothing else of it: files and events are streamed as before."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._app(scope, receive, with_headers)


def serve(
    models: Sequence[str | Path] = (),
    *,
    host: str = LOCAL,
    port: int = 7860,
    site: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Run the app until it is stopped. models: names or folders shown first; port=0 takes any free one.

    site: a folder that `zoo export --to web` wrote, to be a page too. Raises UnknownModel or CardError for `models`,
    Unsupported for a host or port that cannot be had, or a folder that is no site.
    """
    import uvicorn

    if site is not None and not (Path(site) / "index.html").is_file():
        raise Unsupported(
            f"{str(site)!r} holds no index.html; `zoo export MODEL --to web --out FOLDER` writes one"
        )
    listening = listen(host, port)
    shelf = Shelf(models)
    first = shelf.names()[0]
    say(f"loading {first}")
    shelf.encoder(first)
    app = web_app(shelf, site)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3))
    shown = f"[{host}]" if ":" in host else host
    say(f"ssl-zoo is at http://{shown}:{listening.getsockname()[1]} (Ctrl-C stops it)")
    server.run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at the address. Raises Unsupported, naming a port that is free."""
    try:
        if not 0 <= port <= 65535:  # getaddrinfo would take the remainder
            raise OSError("a port is a number from 0 to 65535")
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _listening(family, address)
    except OSError as error:
        free = _free(host)
        advice = f"try --port {free}" if free else f"try --host {LOCAL}"
        raise Unsupported(f"cannot serve at {host}:{port}: {error.strerror or error}; {advice}") from None


def _listening(family: int, address: tuple[Any, ...]) -> socket.socket:
    """A socket that is closed again where it cannot be had. Who connects before the server runs waits for it."""
    with ExitStack() as undone:
        bound = undone.enter_context(socket.socket(family, socket.SOCK_STREAM))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
        undone.pop_all()
        return bound


def web_app(shelf: Shelf, site: str | Path | None = None) -> FastAPI:
    """The pages with their theme, limits and headers, and a static site beside them."""
    from fastapi import FastAPI
    from starlette.staticfiles import StaticFiles

    from zoo.app.pages import build

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    app.add_middleware(Headers)
    if site is not None:
        app.mount(
            SITE, StaticFiles(directory=site, html=True)
        )  # before the pages, whose path is all the rest
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SSR mode")  # which is not asked for
        return _mounted(app, build(shelf=shelf, site=None if site is None else f"{SITE}/"))


def _mounted(app: FastAPI, pages: gr.Blocks) -> FastAPI:
    """The pages at the root of `app`, which take no file but what was uploaded."""
    import gradio as gr

    from zoo.app.photos import examples

    # `launch` would set it, mounting does not: without it any path on this machine is taken as a photo.
    pages.has_launched = True
    # Gradio fetches the address of a photo before anybody here sees it, and a server must not be sent to fetch.
    setattr(gr.processing_utils, "async_ssrf_protected_download", _not_fetched)  # noqa: B010

    mounted: FastAPI = gr.mount_gradio_app(
        app,
        pages,
        path="/",
        server_name=LOCAL,
        footer_links=["api", "settings"],
        run_history=False,
        show_error=False,  # of errors that are not ours, a visitor learns no more than that there was one
        max_file_size=UPLOAD,
        allowed_paths=sorted({str(photo.parent) for photo in examples().values()}),
        ssr_mode=False,
        theme=gr.themes.Default(primary_hue="orange", neutral_hue="slate", font=SYSTEM_FONTS, font_mono=MONO),
        css_paths=[Path(__file__).parent / "pages" / "style.css"],
    )
    return mounted


async def _not_fetched(url: str, cache_dir: str) -> str:
    """In place of Gradio's own download."""
    import gradio as gr

    raise gr.Error("photos are not fetched from addresses; upload the photo itself", print_exception=False)


def _free(host: str) -> int | None:
    """A port that is free now, or None where the host is none of ours."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])
    except OSError:
        return None
