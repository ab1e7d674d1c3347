"""`zoo app` in a headless Chromium: seconds from opening to the first attention map, and from slider to pictures.

A page is opened in a browser that has seen nothing, the model in memory; the second number is a ViT-Tiny's
reconstruction. What both wait for is that the pictures are decoded, not only addressed.
"""

from __future__ import annotations

import math
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from measure import ONE_THREAD, ROUNDS, claim
from playwright.sync_api import Browser, Page, sync_playwright

OPENED, MOVED = 5.0, 1.0  # seconds at most
DRAWN = """(count) => { const images = [...document.querySelectorAll('%s img')];
    return images.length === count && images.every(each => each.complete && each.naturalWidth > 0); }"""


def run(data: str) -> bool:
    del data  # the bundled photos will do
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with served() as url, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        opened = [first_map(chromium, url) for _ in range(ROUNDS + 1)][1:]
        moved = slider(chromium, url)[1:]
        chromium.close()
    first, then = statistics.median(opened), statistics.median(moved)
    found = [
        claim(f"first attention map after {first:.2f} s ≤ {OPENED:g} s ({told(opened)})", first <= OPENED),
        claim(f"pictures {then:.2f} s after the slider ≤ {MOVED:g} s ({told(moved)})", then <= MOVED),
    ]
    return all(found)


@contextmanager
def served() -> Iterator[str]:
    """The address of a running `zoo app`."""
    command = [sys.executable, "-m", "zoo", "app", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ONE_THREAD)
    try:
        assert process.stdout is not None
        at = next(found for line in process.stdout if (found := re.search(r"http://[\d.:]+", line)))
        yield at[0]
    finally:
        process.terminate()
        process.wait()


def first_map(chromium: Browser, url: str) -> float:
    """Seconds from asking for the page to the last head's picture."""
    context = chromium.new_context()
    page = context.new_page()
    began = time.perf_counter()
    page.goto(url)
    page.wait_for_function(DRAWN % "#heads", arg=6, timeout=120_000)
    seconds = time.perf_counter() - began
    context.close()
    return seconds


def slider(chromium: Browser, url: str) -> list[float]:
    """Seconds from moving the slider to other pictures, a position at a time; the first is the page itself."""
    page = chromium.new_page()
    page.goto(f"{url}/reconstruction?models=mae_vitt16_imagenette&ratio=0.25")
    waited = [position(page, step / 20) for step in range(5, 5 + ROUNDS + 2)]
    page.close()
    return waited[1:]


def position(page: Page, ratio: float) -> float:
    """Seconds until so many of the 64 patches are hidden and drawn."""
    hidden = 64 - math.floor(64 * (1 - ratio) + 1e-9)
    began = time.perf_counter()
    if ratio > 0.25:
        page.locator("#ratio input[type=range]").fill(f"{ratio:.2f}")
    said = "text => document.querySelector('#errors')?.innerText.includes(text)"
    page.wait_for_function(said, arg=f"{hidden} of 64", timeout=120_000)
    page.wait_for_function(DRAWN % "#results", arg=4, timeout=120_000)
    return time.perf_counter() - began


def told(seconds: list[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in seconds)
