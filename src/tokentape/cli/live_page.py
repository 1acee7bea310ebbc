"""``record --live``: the page of the tape while it grows, served by another process so that the loop shares nothing with it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from tokentape.cli.sections import in_section
from tokentape.errors import UsageError

__all__ = ["LivePage", "live_options", "live_page"]

_live = partial(in_section, "Live page")

live_options = [
    _live("--live", is_flag=True, help="Serve the page of the tape while it grows, and after that until Ctrl-C."),
    _live("--port", type=click.IntRange(1, 65535), metavar="N", help="Its port; default: 8765, else a free one."),
    _live("--no-browser", is_flag=True, help="Print its address, and open no browser."),
]
"""Options of commands that record."""

LAST_SECONDS = 5


@dataclass(frozen=True)
class LivePage:
    """A page that is being served at ``url`` by ``server``."""

    url: str
    server: subprocess.Popen[bytes]

    def stay(self) -> None:
        """Wait until Ctrl-C, saying so."""
        click.echo(f"the page stays at {self.url}\nuntil Ctrl-C; afterwards: tokentape view", err=True)
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            self.server.wait()


@contextlib.contextmanager
def live_page(path: Path, given: Mapping[str, Any]) -> Iterator[LivePage | None]:
    """The page of the tape that is about to be made at ``path``, while the body runs; None where none was asked for.

    It is there before the model is loaded, so that its start is in nobody's measurement; its process has the lowest
    claim to the processor, is not in reach of this terminal's Ctrl-C, and ends with this one, however that ends.
    """
    if not given["live"]:
        for option, there in (("--port", given["port"] is not None), ("--no-browser", given["no_browser"])):
            if there:
                raise UsageError(f"{option} without --live", why="it is an option of the live page", fix="add --live")
        yield None
        return
    port = [] if given["port"] is None else ["--port", str(given["port"])]
    server = subprocess.Popen(
        [sys.executable, "-m", "tokentape", "view", "--child", *port, "--", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        said = server.stdout.readline()
        if not said:  # it has told on stderr what is wrong
            raise click.exceptions.Exit(server.wait() or 1)
        told = json.loads(said)
        click.echo(f"live: {told['url']}", err=True)
        if not given["no_browser"]:
            from tokentape.cli.serving import open_browser

            open_browser(told["ticket_url"])
        yield LivePage(told["url"], server)
    finally:
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    for pipe in (server.stdin, server.stdout):
        if pipe is not None:
            pipe.close()
    try:
        server.wait(LAST_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
