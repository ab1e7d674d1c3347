"""The app in a real Chromium: the command itself serves it, and nothing is replaced."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from app_server import Served
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from zoo.app.masks import read_mask
from zoo.app.photos import examples
from zoo.app.server import POLICY

ROOT = Path(__file__).resolve().parent.parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WAIT = 60_000  # ms: a busy machine is no bug
CALM: dict[str, Any] = {"verbose": False, "httpx_kwargs": {"timeout": 60}}
MAE, UMMAE = "mae_vitt16_imagenette", "tiny_ummae"

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser; type: apt-get install chromium"),
]

Pixels = npt.NDArray[np.int_]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def hosts() -> set[str]:
    """Of all requests of a test's pages, where they went."""
    return set()


@pytest.fixture
def open_page(browser: Browser, served: Served, hosts: set[str]) -> Iterator[Callable[[str], Page]]:
    """Opens an address of the app in a browser that has seen nothing yet; no page may ask another host."""
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    context.on("request", lambda request: hosts.add(request.url.split("/")[2] if "//" in request.url else ""))

    def open_it(path: str) -> Page:
        page = context.new_page()
        page.goto(served.url + path)
        return page

    yield open_it
    context.close()
    assert {host.split(":")[0] for host in hosts} <= {"127.0.0.1", ""}, hosts


def pictures(page: Page, gallery: str, count: int) -> list[Pixels]:
    """The pictures of a gallery, once there are so many."""
    images = page.locator(f"{gallery} img")
    expect(images).to_have_count(count, timeout=WAIT)
    return [pixels(page, image) for image in images.all()]


def pixels(page: Page, image: Locator) -> Pixels:
    """What an <img> shows, (H, W, 3)."""
    answer = page.request.get(str(image.get_attribute("src")))
    assert answer.ok
    return np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB"), dtype=int)


def hidden(masked: Pixels, side: int = 8) -> npt.NDArray[np.bool_]:
    """Which patches of a masked picture are grey, (side, side)."""
    step = len(masked) // side
    inner = slice(step // 4, -step // 4)
    cut = masked.reshape(side, step, side, step, 3)[:, inner, :, inner]
    return (np.abs(cut - 127.5) <= 1).all(axis=(1, 3, 4))


def told(page: Page, text: str | re.Pattern[str]) -> None:
    """Wait until the table of errors says it."""
    expect(page.locator("#errors")).to_contain_text(text, timeout=WAIT)


def test_the_pages_and_their_endpoints(served: Served) -> None:
    with urlopen(f"{served.url}/gradio_api/info", timeout=30) as answer:
        described = json.load(answer)
        headers = answer.headers
    names = {"attend", "similarity", "reconstruct", "compare", "models", "card"}
    assert set(described["named_endpoints"]) == {f"/{name}" for name in names}
    assert headers["Content-Security-Policy"] == POLICY
    # Gradio writes a .pyi file beside the module of every component class of one's own.
    assert list((ROOT / "app").rglob("*.py")) and not list((ROOT / "app").rglob("*.pyi"))


def test_upload_shows_heads_that_differ(
    open_page: Callable[[str], Page], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    began = time.perf_counter()
    page = open_page("/")
    expect(page.locator("#heads img")).to_have_count(6, timeout=WAIT)
    seconds = time.perf_counter() - began
    record_property("first attention map, s", round(seconds, 1))
    assert seconds < 60  # 5 on a machine that does nothing else
    first = pictures(page, "#heads", 6)
    noise = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "mine.png")
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "mine.png")
    expect(page.locator("#told")).to_contain_text("42×28 patches", timeout=WAIT)
    heads = pictures(page, "#heads", 6)
    assert heads[0].shape[0] > heads[0].shape[1] and first[0].shape[0] < first[0].shape[1]
    for i in range(1, 5):
        for j in range(i):
            assert np.abs(heads[i] - heads[j]).mean() > 1, (i, j)
    # A photo of one's own is in no link.
    page.wait_for_function("!new URLSearchParams(location.search).has('photo')")


def test_a_click_asks_for_the_patch_below_it(open_page: Callable[[str], Page]) -> None:
    page = open_page("/?photo=flower&patches=8")
    row, column = page.get_by_label("Row of the patch"), page.get_by_label("Column of the patch")
    expect(row).to_have_value("4", timeout=WAIT)  # of 8×12
    before = pixels(page, page.locator("#similar img"))
    page.locator("#seen img").click(position={"x": 6, "y": 6})
    expect(row).to_have_value("0", timeout=WAIT)
    expect(column).to_have_value("0")
    page.wait_for_function("location.search.includes('row=0')")
    assert np.abs(pixels(page, page.locator("#similar img")) - before).max() > 50


def test_the_slider_hides_that_share(
    open_page: Callable[[str], Page], record_property: Callable[[str, object], None]
) -> None:
    page = open_page(f"/reconstruction?photo=coffee&seed=3&models={MAE}")
    told(page, "48 of 64 (75 %)")
    began = time.perf_counter()
    page.locator("#ratio input[type=range]").fill("0.5")
    told(page, "32 of 64 (50 %)")
    seconds = time.perf_counter() - began
    record_property("reconstruction after the slider, s", round(seconds, 2))
    assert seconds < 30  # 1 on a machine that does nothing else
    masked = pictures(page, "#results", 4)[1]
    assert hidden(masked).mean() == 0.5
    # The link: the same holes for whoever opens it.
    page.wait_for_function("location.search.includes('ratio=0.5')")
    again = open_page(page.url[page.url.index("/reconstruction") :])
    told(again, "32 of 64 (50 %)")
    for one, other in zip(pictures(page, "#results", 4), pictures(again, "#results", 4), strict=True):
        assert np.array_equal(one, other)


def test_painted_patches_are_the_hidden_ones(open_page: Callable[[str], Page]) -> None:
    empty = "/".join(["00000000"] * 8)
    page = open_page(f"/reconstruction?strategy=painted&mask={empty}&models={MAE},{UMMAE}&seed=4")
    told(page, "0 of 64 (0 %)")

    def patch(row: int, column: int) -> Locator:
        return page.locator(f'#painter button[data-row="{row}"][data-column="{column}"]')

    patch(1, 1).click()
    told(page, "1 of 64")
    patch(4, 2).hover()
    page.mouse.down()
    for column in (3, 4, 5, 6):
        patch(4, column).hover()
    page.mouse.up()
    told(page, "6 of 64")
    page.keyboard.press("ArrowDown")  # from the first patch of the stroke
    page.keyboard.press("Space")
    told(page, "7 of 64")
    expect(patch(5, 2)).to_have_attribute("aria-pressed", "true")
    expect(patch(5, 2)).to_be_focused()
    wanted = np.zeros((8, 8), dtype=bool)
    for row, column in [(1, 1), (4, 2), (4, 3), (4, 4), (4, 5), (4, 6), (5, 2)]:
        wanted[row, column] = True
    shown = pictures(page, "#results", 8)
    assert np.array_equal(hidden(shown[1]), wanted)
    page.wait_for_function("location.search.includes('00100000')")
    link = re.search(r"mask=([^&]*)", page.url)
    assert link and np.array_equal(read_mask(link[1].replace("%2F", "/")).numpy(), wanted)
    # UM-MAE sees one patch of every 2×2: what it really hid is shown, and why.
    projected = hidden(shown[5])
    assert projected.sum() == 48 and (projected | ~wanted).all()
    told(page, "projected")
    told(page, f"it hid {int((projected & ~wanted).sum())} of 64 patches more than you did")


def test_a_wrong_file_is_told_and_the_app_goes_on(open_page: Callable[[str], Page], tmp_path: Path) -> None:
    page = open_page("/?patches=8")
    expect(page.locator("#told")).to_contain_text("8×12 patches", timeout=WAIT)
    (tmp_path / "holiday.jpg").write_text("this is no photo")
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "holiday.jpg")
    message = page.get_by_text("no image format that Pillow knows")
    expect(message).to_be_visible(timeout=WAIT)
    assert str(tmp_path) not in page.content() and "/gradio" not in message.inner_text()
    page.locator("#examples button").nth(1).click()
    expect(page.locator("#told")).to_contain_text("8×8 patches", timeout=WAIT)


@pytest.mark.parametrize(
    ("path", "ready"),
    [("/", "#colours img"), ("/reconstruction", "#results img"), ("/compare", "#compared figure"),
     ("/models", "#card h2")],
)  # fmt: skip
def test_pages_have_words_for_everybody(open_page: Callable[[str], Page], path: str, ready: str) -> None:
    page = open_page(f"{path}?__theme=dark")
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator(ready).first).to_be_visible(timeout=WAIT)
    unnamed = page.evaluate("""() =>
        [...document.querySelectorAll('main input, main select, main textarea, main button')]
        .filter(e => e.checkVisibility() && e.type !== 'file')
        .filter(e => !(e.labels?.length || e.ariaLabel || e.title || e.innerText?.trim() || e.closest('label, fieldset')
            || e.getAttribute('aria-labelledby') || e.querySelector('img[alt]')))
        .map(e => e.outerHTML.slice(0, 200))""")
    assert unnamed == []
    assert page.evaluate("[...document.querySelectorAll('main img')].filter(e => e.alt === null).length") == 0
    assert (
        page.evaluate("document.documentElement.scrollWidth") <= 390
    )  # nothing to scroll sideways on a phone
    assert errors == []


def test_an_exported_page_is_a_page_too(open_page: Callable[[str], Page]) -> None:
    page = open_page("/no-server")
    shown = page.frame_locator("iframe.zoo-site").locator("#own")
    expect(shown).to_have_text("a page of its own that runs", timeout=WAIT)


@pytest.mark.parametrize(("mebibytes", "status"), [(19, 200), (21, 413)])
def test_uploads_end_at_the_limit(served: Served, mebibytes: int, status: int) -> None:
    files = {"files": ("large.jpg", bytes(mebibytes * 2**20))}
    assert httpx.post(f"{served.url}/gradio_api/upload", files=files, timeout=60).status_code == status


def test_ten_visitors_at_once(served: Served) -> None:
    from gradio_client import Client, handle_file

    photo = handle_file(str(examples()["rocket"]))
    clients = [Client(served.url, **CALM) for _ in range(10)]

    def visit(number: int) -> tuple[int, str, int]:
        client = clients[number]
        heads, words = client.predict(
            photo, "dino_vitt16_imagenette", 11, 12, 60, "the class token", -1, -1, api_name="/attend"
        )
        mask, results, _ = client.predict(photo, [MAE], "random", 0.5, 0, number, "", api_name="/reconstruct")
        assert read_mask(mask["value"] if isinstance(mask, dict) else mask).sum() == 32
        return len(heads), words, len(results)

    def all_at_once() -> float:
        with ThreadPoolExecutor(10) as pool:
            assert {(heads, results) for heads, _, results in pool.map(visit, range(10))} == {(6, 4)}
        return served.mebibytes

    all_at_once()
    before = all_at_once()
    after = all_at_once()
    assert after < before + 48
    for client in clients:
        client.close()


def test_programs_get_the_pictures_of_zoo_reconstruct(served: Served, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    from zoo.app.masks import Asked
    from zoo.app.pages.reconstruction import pictures as drawn
    from zoo.app.reconstruction import imagine
    from zoo.images import read_image
    from zoo.loading import load

    client, path = Client(served.url, download_files=str(tmp_path), **CALM), examples()["temple_china"]
    arguments: list[Any] = [handle_file(str(path)), [MAE], "random", 0.6, 0, 9, ""]
    _, results, text = client.predict(*arguments, api_name="/reconstruct")
    # tests/app/test_reconstruction.py holds these against the file that `zoo reconstruct` writes.
    expected = drawn(imagine([load(MAE, device="cpu")], read_image(path), Asked("random", 0.6, seed=9)))
    assert len(results) == len(expected) == 4
    for found, (picture, label) in zip(results, expected, strict=True):
        assert found["caption"] == label
        assert np.array_equal(np.asarray(Image.open(found["image"]).convert("RGB")), np.asarray(picture))
    assert "39 of 64" in text
    (tmp_path / "wrong.jpg").write_bytes(b"no photo")
    with pytest.raises(AppError, match="no image format"):
        client.predict(handle_file(str(tmp_path / "wrong.jpg")), *arguments[1:], api_name="/reconstruct")
    client.close()
