"""The pages and their server: what is offered, where it listens, what its headers forbid."""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

import pytest

from zoo.app.server import LOCAL, POLICY, listen, serve
from zoo.cli import main
from zoo.cli.arguments import Parser
from zoo.cli.serving import COMMANDS
from zoo.errors import Unsupported


def test_this_machine_alone_unless_told() -> None:
    (command,) = COMMANDS
    parser = Parser()
    command.arguments(parser)
    assert parser.parse_args([]) == argparse.Namespace(model=[], port=7860, host=LOCAL, site=None)


def test_without_gradio_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # an import of it fails, as where it is not installed
    monkeypatch.delitem(sys.modules, "zoo.app.commands", raising=False)
    assert main(["app"]) == 2
    assert (
        "needs 'gradio', which is not installed; type: pip install 'ssl-zoo[app]'" in capsys.readouterr().err
    )


def test_a_port_that_is_taken_is_told_with_a_free_one() -> None:
    with listen(LOCAL, 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unsupported, match=rf"{LOCAL}:{port}: .*; try --port (\d+)"):
            listen(LOCAL, port)


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_cannot_be_is_told(port: int) -> None:
    with pytest.raises(Unsupported, match="cannot serve at"):
        listen(LOCAL, port)


def test_a_host_that_is_not_ours_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unsupported, match="not known; try --"):
        listen("no.such.host", 0)


def test_a_folder_that_is_no_site_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"holds no index.html; `zoo export MODEL --to web"):
        serve(site=tmp_path)


def test_the_policy_names_no_other_host() -> None:
    sources = {source for part in POLICY.split("; ") for source in part.split()[1:]}
    assert sources == {"'self'", "'unsafe-inline'", "'unsafe-eval'", "data:", "blob:"}
