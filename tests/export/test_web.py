"""The static site in a real Chromium: what it computes is what Python computes, and it asks nobody else for a thing."""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from masked_models import UMMAE
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from smallest import VIT

import zoo
from zoo.cards import DecoderSpec
from zoo.cells import one_per_cell
from zoo.cli import main
from zoo.demo import bundled_photos
from zoo.encoder import Encoder
from zoo.errors import HubError, Unsupported
from zoo.export import to_web
from zoo.export.browser import runtime_files
from zoo.export.web import _attention_graph
from zoo.files import locked
from zoo.masking import draw_mask, draw_secondary, splitmix64
from zoo.pictures import as_seen
from zoo.transforms import Transform

# Four models are traced before the first test, on machines that may be busy.
pytestmark = pytest.mark.timeout(300)

BUNDLED = "mae_vitt16_imagenette"
SEEDS = (0, 1, 7, 123456789, 2**53 - 1)
PHOTOS = {photo.stem: photo for photo in bundled_photos()}
DONE = " ms"  # what the page says last


@pytest.fixture(scope="module")
def runtime() -> Path:
    """onnxruntime-web, fetched once for this environment and kept in it, as every other package of the tests is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(Path(sys.prefix) / "share" / "ssl-zoo"))
        try:
            return runtime_files()[0].parent
        except HubError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def encoders(small: Callable[..., Encoder], torchs: Encoder) -> dict[str, Encoder]:
    """One of each kind of graph: visible patches, cells with a secondary mask, mask tokens, attention."""
    cells = dataclasses.replace(UMMAE, width=32, heads=4)
    tokens = DecoderSpec(kind="simmim", patch=16, mask_patch=32, normalised_targets=False, ratio=0.5)
    made = [
        zoo.load(BUNDLED),
        small("pvt", cells, architecture="ssl_zoo_ummae_pvt_micro", pooling="avg"),
        small("vit", tokens, arguments=VIT | {"depth": 1, "fc_norm": False}, pooling="avg"),
        torchs,
    ]
    return {encoder.card.name: encoder for encoder in made}


@pytest.fixture(scope="module")
def site(encoders: dict[str, Encoder], runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site that all of them were added to, one after the other."""
    folder = tmp_path_factory.mktemp("site")
    if "PYTEST_XDIST_WORKER" in os.environ:  # one for all workers of this run: tracing takes long
        folder = tmp_path_factory.getbasetemp().parent / "site"
    with locked(folder):
        for encoder in encoders.values():
            if not (folder / "models" / encoder.card.name).is_dir():
                assert to_web(encoder, folder, runtime=runtime).passed
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where `python -m http.server` would serve it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A fresh page; at the end it must have asked nobody but the site, and thrown nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    asked: list[str] = []
    thrown: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: thrown.append(str(error)))
    yield page
    context.close()
    assert asked and [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []
    assert thrown == []


def opened(page: Page, address: str, state: str = "", name: str = "reconstruct") -> None:
    page.goto(f"{address}/{name}.html{state}")
    settled(page)
    expect(page.locator("#status")).to_contain_text(DONE)


def settled(page: Page) -> None:
    """Wait until the pictures are those of what was asked last."""
    expect(page.locator("#pictures")).to_have_attribute("aria-busy", "false")


def result(page: Page, address: str) -> dict[str, Any]:
    """What the page holds of the last reconstruction: its pictures as (H, W, 3), masks as lists, its error."""
    found = page.evaluate(
        """async (address) => {
            const { shown } = await import(`${address}/js/reconstruct.js`);
            return JSON.stringify({...shown.result, painted: null,
                predicted: [...shown.result.predicted], composite: [...shown.result.composite],
                image: [...shown.result.image], masked: [...shown.result.masked],
                hidden: [...shown.result.hidden], secondary: shown.result.secondary && [...shown.result.secondary]});
        }""",
        address,
    )
    said: dict[str, Any] = json.loads(found)
    sides = (said["size"], said["size"], 3)
    for picture in ("image", "masked", "predicted", "composite"):
        said[picture] = np.array(said[picture], np.float32).reshape(sides)
    return said


def assert_same(found: dict[str, Any], expected: zoo.Reconstruction) -> None:
    """The page's pictures, masks and error are Python's."""
    assert found["hidden"] == expected.mask[0].flatten().int().tolist()
    second = None if expected.secondary is None else expected.secondary[0].flatten().int().tolist()
    assert found["secondary"] == second
    for picture in ("image", "masked", "predicted", "composite"):
        wanted = getattr(expected, picture)[0].permute(1, 2, 0).numpy()
        assert np.abs(found[picture] - wanted).max() < 1e-3, picture
    assert abs(found["error"] - float(expected.error[0])) < 1e-4


# Masks and pixels


def test_the_browser_draws_pythons_masks(page: Page, address: str) -> None:
    grids, shares = ((4, 4), (8, 8), (6, 10), (14, 14)), (0.25, 0.5, 0.75, 0.9)
    asked = [
        (strategy, grid, seed, ratio)
        for strategy in ("random", "uniform", "grid", "blockwise")
        for grid in grids
        for seed in SEEDS
        for ratio in (shares if strategy in ("random", "blockwise") else (0.75,))
    ]
    page.goto(f"{address}/index.html")
    found = page.evaluate(
        """async ([address, asked]) => {
            const masks = await import(`${address}/js/masks.js`);
            return asked.map(([strategy, grid, seed, ratio]) => {
                const hidden = masks.drawMask(strategy, grid, seed, ratio);
                const cells = masks.onePerCell(hidden, grid, seed);
                const second = masks.drawSecondary(hidden, seed, 0.25);
                return [hidden, second, cells.hidden, cells.blind].map((each) => [...each]);
            });
        }""",
        [address, asked],
    )
    for (strategy, grid, seed, ratio), given in zip(asked, found, strict=True):
        hidden = draw_mask(strategy, grid, [seed], ratio)
        expected = [hidden, draw_secondary(hidden, [seed], 0.25), *one_per_cell(hidden, [seed])]
        assert given == [each.flatten().int().tolist() for each in expected], (strategy, grid, seed, ratio)


def test_splitmix64_gives_the_documented_vector(page: Page, address: str) -> None:
    page.goto(f"{address}/index.html")
    drawn = page.evaluate(
        """async (address) => {
            const { splitmix64 } = await import(`${address}/js/masks.js`);
            return [0n, 1n, 2n].map((index) => String(splitmix64(1234567n, index)));
        }""",
        address,
    )
    assert drawn == ["6457827717110365317", "3203168211198807973", "9817491932198370423"]
    assert [int(each) for each in drawn] == splitmix64([1234567], np.arange(3, dtype=np.uint64))[0].tolist()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
def test_the_browser_resizes_as_pillow_does(interpolation: str, page: Page, address: str) -> None:
    transform = Transform(size=64, crop_pct=0.875, interpolation=interpolation)
    noise = np.random.default_rng(0)
    page.goto(f"{address}/index.html")
    for height, width in ((97, 131), (300, 150), (64, 64), (40, 33), (73, 401)):
        picture = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
        cut, whole, pixels = page.evaluate(
            """async ([address, height, width, bytes, transform]) => {
                const { cropped, normalised, whole } = await import(`${address}/js/transform.js`);
                const picture = { height, width, data: Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0)) };
                const cut = cropped(picture, transform), all = whole(picture, 32, 16, transform);
                return [[...cut.data], [[all.height, all.width, 3], [...all.data]], [...normalised(cut, transform)]];
            }""",
            [address, height, width, base64.b64encode(picture.tobytes()).decode(), vars(transform)],
        )
        assert cut == transform.levels(picture).ravel().tolist()
        assert np.array_equal(np.array(pixels, np.float32), transform(picture).numpy().ravel())
        expected = transform.pixels(picture, 16, "whole", 32)
        levels = np.array(whole[1], np.uint8).reshape(whole[0])
        assert torch.equal(transform.of_levels(levels), expected)


# What models imagine


def test_predictions_are_pythons(page: Page, address: str, encoders: dict[str, Encoder]) -> None:
    opened(page, address, f"#model={BUNDLED}&photo=astronaut&strategy=random&ratio=0.6&seed=0")
    for seed, photo in enumerate(PHOTOS):
        page.get_by_role("button", name=photo.replace("_", " ")).click()
        page.get_by_label("Seed").fill(str(seed))
        settled(page)
        expected = encoders[BUNDLED].reconstruct(PHOTOS[photo], strategy="random", ratio=0.6, seed=seed)
        found = result(page, address)
        assert found["photo"] == photo
        assert_same(found, expected)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("small_pvt", {"strategy": "uniform", "secondary": 0.25}),
        ("small_pvt", {"strategy": "grid"}),
        ("small_vit", {"strategy": "blockwise", "ratio": 0.5}),
        (BUNDLED, {"strategy": "uniform"}),
    ],
)
def test_other_models_and_masks(
    name: str, asked: dict[str, Any], page: Page, address: str, encoders: dict[str, Encoder]
) -> None:
    said = "&".join(f"{key}={value}" for key, value in ({"secondary": 0} | asked).items())
    opened(page, address, f"#model={name}&photo=coffee&seed=3&{said}")
    assert_same(result(page, address), encoders[name].reconstruct(PHOTOS["coffee"], seed=3, **asked))


def test_a_painted_mask_is_projected_as_python_does(
    page: Page, address: str, encoders: dict[str, Encoder]
) -> None:
    painted = np.zeros((4, 4), bool)
    painted[:2, :2] = painted[3, 3] = (
        True  # a cell that hides all, a cell with three visible, cells with four
    )
    opened(page, address, "#model=small_pvt&photo=rocket&seed=5&secondary=0&mask=cc01")
    expected = encoders["small_pvt"].reconstruct(PHOTOS["rocket"], mask=painted, seed=5)
    assert_same(result(page, address), expected)
    expect(page.locator("#projected")).to_contain_text("exactly one patch of every 2×2 cell")


def test_the_slider_hides_the_share_it_says(page: Page, address: str) -> None:
    opened(page, address, f"#model={BUNDLED}")
    for share in (0.0, 0.25, 0.9):
        page.locator("#ratio").fill(str(share))
        expect(page.locator("#status")).to_contain_text(
            f"({64 - int(64 * (1 - share) + 1e-9)} of 64 patches)"
        )
        grey = page.evaluate(
            """() => {
                const canvas = document.querySelector("#masked");
                const { data } = canvas.getContext("2d").getImageData(0, 0, 128, 128);
                const centre = (i) => (((i >> 3) * 16 + 8) * 128 + (i % 8) * 16 + 8) * 4;
                return [...Array(64).keys()].filter((i) => [0, 1, 2].every((c) => data[centre(i) + c] === 128)).length;
            }"""
        )
        assert grey == 64 - int(64 * (1 - share) + 1e-9)


def test_the_model_chosen_last_answers(page: Page, address: str, encoders: dict[str, Encoder]) -> None:
    held: list[Route] = []
    page.route("**/models/small_pvt/*", lambda route: held.append(route))
    opened(page, address, f"#model={BUNDLED}&photo=rocket&secondary=0")
    page.locator("#model").select_option("small_pvt")
    page.locator("#model").select_option(BUNDLED)
    settled(page)
    with page.expect_response("**/models/small_pvt/*"):
        held[0].continue_()
    page.locator("#seed").fill("7")
    expect(page.locator("#status")).to_contain_text(DONE)
    settled(page)
    assert_same(result(page, address), encoders[BUNDLED].reconstruct(PHOTOS["rocket"], ratio=0.75, seed=7))


def test_painting_hides_those_patches_and_the_link_shows_them_again(page: Page, address: str) -> None:
    opened(page, address, f"#model={BUNDLED}&photo=flower")
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#status")).to_contain_text("(0 of 64 patches)")
    box = page.locator("#editor").bounding_box()
    assert box is not None
    at = [(box["x"] + box["width"] * (c + 0.5) / 8, box["y"] + box["height"] * 2.5 / 8) for c in range(8)]
    page.mouse.move(*at[1])
    page.mouse.down()
    page.mouse.move(*at[4], steps=12)
    page.mouse.up()
    expect(page.locator("#status")).to_contain_text("(4 of 64 patches)")
    page.locator("#editor").focus()
    for key in ("ArrowDown", "ArrowRight", " "):  # from row 3, column 5
        page.keyboard.press(key)
    expect(page.locator("#patch")).to_have_text("row 4, column 6: hidden")
    expect(page.locator("#status")).to_contain_text("(5 of 64 patches)")
    before = result(page, address)
    assert [i for i, each in enumerate(before["hidden"]) if each] == [17, 18, 19, 20, 29]
    link = page.url
    page.goto("about:blank")
    opened(page, link.partition("/reconstruct")[0], "#" + link.partition("#")[2])
    after = result(page, address)
    assert after["hidden"] == before["hidden"] and np.array_equal(after["predicted"], before["predicted"])


def test_a_photo_of_ones_own_is_turned_upright_and_laid_on_white(
    page: Page, address: str, encoders: dict[str, Encoder]
) -> None:
    opened(page, address, f"#model={BUNDLED}&seed=2")
    cat = Image.open(PHOTOS["cat_chelsea"])
    clear = cat.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size).point(lambda level: 255 * (level > 90)))
    turned = Image.Exif()
    turned[0x0112] = 6
    for picture, kind, options in ((cat, "jpeg", {"exif": turned, "quality": 95}), (clear, "png", {})):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        payload = {"name": f"mine.{kind}", "mimeType": f"image/{kind}", "buffer": file.getvalue()}
        page.locator("input[type=file]").set_input_files(payload)  # type: ignore[arg-type]
        settled(page)
        assert_same(result(page, address), encoders[BUNDLED].reconstruct(file.getvalue(), seed=2))
        assert "photo=" not in page.url


def test_what_is_no_photo_is_told_and_the_page_works_on(page: Page, address: str) -> None:
    opened(page, address, f"#model={BUNDLED}")
    payload = {"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": b"no photo"}
    page.locator("input[type=file]").set_input_files(payload)  # type: ignore[arg-type]
    expect(page.locator("#status.error")).to_contain_text("no picture that your browser can read")
    page.get_by_role("button", name="coffee").click()
    settled(page)
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("button", name="Invert").click()
    expect(page.locator("#status.error")).to_contain_text("show at least one")
    assert result(page, address)["photo"] == "coffee"


# Where models look


def maps(page: Page, address: str) -> NDArray[np.float64]:
    """What the page holds of every head."""
    said = "async (a) => (await import(`${a}/js/attention.js`)).shown.maps.map((each) => [...each])"
    return np.array(page.evaluate(said, address))


def test_attention_is_pythons_and_the_heads_differ(page: Page, address: str, torchs: Encoder) -> None:
    opened(page, address, "#photo=cat_chelsea&short=20", "attention")
    expect(page.locator("#status")).to_contain_text("3 heads on 20×30 patches")
    seen = as_seen(torchs, PHOTOS["cat_chelsea"], size=20 * torchs.stride)
    expected = torchs.attention(seen[None])[0]
    assert np.abs(maps(page, address).reshape(expected.shape) - expected.numpy()).max() < 1e-4
    pictures = page.evaluate(
        "() => [...document.querySelectorAll('#heads canvas')].map((c) => c.toDataURL())"
    )
    assert len(pictures) == 3 == len(set(pictures))


def test_a_graph_of_one_size_gets_the_models_own_crop(page: Page, address: str, torchs: Encoder) -> None:
    def of_one_size(route: Route) -> None:
        listed = route.fetch().json()
        route.fulfill(json=[each | {"fine": None} for each in listed])

    page.route("**/models.json", of_one_size)
    opened(page, address, "#photo=coffee", "attention")
    expect(page.locator("#status")).to_contain_text("3 heads on 4×4 patches")
    expected = torchs.attention(PHOTOS["coffee"])[0]
    assert np.abs(maps(page, address).reshape(expected.shape) - expected.numpy()).max() < 1e-4
    expect(page.get_by_label("Patches on the short side")).to_be_hidden()


def test_a_graph_has_one_size_only_where_its_positions_forbid_others(small: Callable[..., Encoder]) -> None:
    free = {family: len(_attention_graph(small(family)).free["pixels"]) > 1 for family in ("vit", "beit")}
    assert free == {"vit": True, "beit": False}


# The site


def test_the_pages_may_not_ask_anybody_else(page: Page, address: str) -> None:
    page.goto(f"{address}/index.html")
    expect(page.locator("#models li")).to_have_count(4)
    elsewhere = (
        "http://127.0.0.1:9/"  # the discard port: the page's own policy stops the request before it is made
    )
    refused = page.evaluate("(url) => fetch(url).then(() => 'sent', (error) => String(error))", elsewhere)
    assert refused != "sent"
    violated = page.evaluate(
        """(url) => new Promise((tell) => {
            addEventListener("securitypolicyviolation", (event) => tell(event.effectiveDirective));
            fetch(url).catch(() => {});
        })""",
        elsewhere,
    )
    assert violated == "connect-src"


@pytest.mark.parametrize("name", ["index", "reconstruct", "attention"])
def test_every_page_fits_a_phone_and_names_its_controls(name: str, browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(f"{address}/{name}.html")
    expect(page.locator("#status")).to_contain_text("" if name == "index" else DONE, timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert "stays on this machine" in page.locator(".private").inner_text()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, select, canvas, img, button")].filter((each) => !(
            each.labels?.[0]?.textContent.trim() || each.getAttribute("aria-label") || each.alt
            || each.textContent.trim() || each.querySelector("img")?.alt)).map((each) => each.outerHTML)"""
    )
    assert unnamed == []
    context.close()


def test_the_site_is_small_and_names_no_other_host(site: Path) -> None:
    files = [
        path
        for path in site.rglob("*")
        if path.is_file()
        and not path.name.startswith(".")
        and "small" not in str(path.parent)
        and "tiny" not in str(path.parent)
    ]
    assert sum(path.stat().st_size for path in files) < 32e6
    assert sum(len(gzip.compress(path.read_bytes(), 6)) for path in files) < 19e6
    for path in files:
        if path.suffix in (".html", ".js", ".css") and path.parent.name != "ort":
            assert "//" not in path.read_text().replace("// ", "").replace("http://www.w3.org", ""), path


def test_models_are_added_one_by_one_and_replaced_by_name(site: Path, encoders: dict[str, Encoder]) -> None:
    listed = json.loads((site / "models.json").read_text())
    assert [each["name"] for each in listed] == sorted(encoders)
    assert {each["page"] for each in listed} == {"reconstruct", "attention"}
    for each in listed:
        assert (site / each["file"]).stat().st_size == each["bytes"]
        assert 0 < each["largest_difference"] < 1e-4
        assert "passed" in (site / "models" / each["name"] / "README.md").read_text()


def test_what_has_no_page_is_refused(
    small: Callable[..., Encoder], torchs: Encoder, tmp_path: Path, runtime: Path
) -> None:
    with pytest.raises(Unsupported, match="give precision fp32 or fp16"):
        to_web(torchs, tmp_path, precision="int8", runtime=runtime)
    with pytest.raises(Unsupported, match="ResNet has no attention"):
        to_web(small("resnet"), tmp_path, runtime=runtime)
    (tmp_path / "models.json").write_text("{}")
    with pytest.raises(Unsupported, match="was not written by"):
        to_web(torchs, tmp_path, runtime=runtime)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["models.json"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--to", "web"], "--out site/"),
        (["--to", "web", "--out", "site", "--size", "64"], "--size is not of --to web"),
        (["--to", "onnx", "--out", "site", "--runtime", "folder"], "--runtime is of --to web"),
        (["--to", "web", "--out", "site", "--runtime", "folder"], "holds no ort.wasm"),
    ],
)
def test_the_command_line_says_what_to_type(
    flags: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", BUNDLED, *flags]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "site").exists()
