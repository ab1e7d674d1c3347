"""Files at their authors' addresses: continued where they were cut, and refused where they cannot be had."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hub_server import Hub

from zoo.downloads import download
from zoo.errors import HubError, Unreachable
from zoo.registry import home


def test_a_cut_download_goes_on_where_it_was_cut(hub: Hub) -> None:
    hub.authors["big.pth"] = data = os.urandom(3 << 20)
    hub.cuts = [2_000_000]
    assert download(f"{hub.url}/authors/big.pth").read_bytes() == data
    first, second = hub.requests("/authors/big.pth")
    assert first.range is None and second.range is not None
    assert 0 < int(second.range.removeprefix("bytes=").rstrip("-")) <= 2_000_000
    download(f"{hub.url}/authors/big.pth")
    assert len(hub.log) == 2


def test_what_an_earlier_process_left_is_continued_unless_the_file_is_another_by_now(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.downloads.PAUSES", (0.0,))
    url = f"{hub.url}/authors/big.pth"
    for changed in (False, True):
        hub.authors["big.pth"] = data = os.urandom(3 << 20)
        hub.cuts = [2_000_000, 0]
        with pytest.raises(Unreachable, match="cannot be reached"):
            download(url)
        if changed:
            hub.authors["big.pth"] = data = os.urandom(3 << 20)
        path = download(url)
        assert path.read_bytes() == data
        assert hub.log[-1].range == f"bytes={1 << 20}-"
        assert [each.name for each in path.parent.iterdir() if each.suffix != ".lock"] == [path.name]
        path.unlink()


@pytest.mark.parametrize("moved", [1, -1])
def test_another_part_than_was_asked_for_is_not_appended(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    monkeypatch.setattr("zoo.downloads.PAUSES", (0.0, 0.0))
    hub.authors["big.pth"] = data = os.urandom(3 << 20)
    hub.cuts = [2_000_000]
    hub.shift = moved
    assert download(f"{hub.url}/authors/big.pth").read_bytes() == data
    assert [each.range is None for each in hub.requests("/authors/")] == [True, False, True]


def test_two_at_once_fetch_a_file_once(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zoo")
    hub.authors["big.pth"] = data = os.urandom(3 << 20)
    hub.delay = 0.3
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(download, [f"{hub.url}/authors/big.pth"] * 2)
    assert one == other and one.read_bytes() == data
    assert len(hub.log) == 1
    assert f"waiting for another process that is busy with {one}" in caplog.text


def test_a_file_that_cannot_be_had_says_why(hub: Hub) -> None:
    hub.authors["sign-in.html"] = b"<html>"
    hub.statuses = {"gone.pth": 410, "expired.pth": 403, "busy.pth": 503}
    for name, kind, says in (
        ("nothing.pth", HubError, "answers 404: the link is dead, or has expired"),
        ("gone.pth", HubError, "answers 410: the link is dead, or has expired"),
        ("expired.pth", HubError, "answers 403: the link is dead, or has expired"),
        ("sign-in.html", HubError, "answers with a web page instead of the file"),
        ("busy.pth", Unreachable, "answers 503; try again later"),
    ):
        with pytest.raises(kind, match=says):
            download(f"{hub.url}/authors/{name}")
    with pytest.raises(HubError, match="only https is fetched, not http"):
        download("http://example.com/a.pth")
    assert not [each for each in (home().parent / "downloads").iterdir() if each.suffix != ".lock"]
