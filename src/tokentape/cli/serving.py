"""What ``view`` does without ``--html``: serve the page on this machine until Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.sections import in_section

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.models.causal import CausalModel
    from tokentape.server.documents import Asked
    from tokentape.server.listening import Listening

__all__ = ["open_browser", "serve", "serve_options"]

_server = partial(in_section, "Server")

serve_options = [
    _server("--port", type=click.IntRange(1, 65535), metavar="N", help="Default: as the last time, else 8765, else a free one."),
    _server("--host", default="127.0.0.1", metavar="HOST", show_default=True, help="Listen on this address of the machine."),
    _server("--allow-remote", is_flag=True, help="Let --host be an address that other machines can reach."),
    _server("--no-browser", is_flag=True, help="Print the address, and open no browser."),
    _server("--model", metavar="NAME", help="Explain by this model; else by the tape's, if it is demo or a folder here."),
    _server("--no-explain", is_flag=True, help="Load no model, whatever is asked."),
    _server("--child", is_flag=True, hidden=True, help="Wait for FILE, print the address as JSON, end with stdin."),
]  # fmt: skip
"""Where and how it is served, to be put on a command."""


def serve(paths: list[Path], given: Mapping[str, Any]) -> None:
    """Serve the page of a tape, of a folder, or of two tapes that are compared; returns after Ctrl-C.

    Raises UsageError for what is not there, a port that is taken, and an address that others could reach unasked.
    """
    from tokentape.server.listening import listen
    from tokentape.server.serving import Server, shelf_of

    child = given["child"]
    shelf, served = shelf_of(paths, waiting=child)
    asked = _asked(paths, given)
    listening = listen(served, host=given["host"], port=given["port"], allow_remote=given["allow_remote"])
    explainer = None if given["no_explain"] else OnDemand(given["model"])
    server = Server(shelf, listening, asked=asked, explainer=explainer, waiting=child)
    if child:
        import json

        if hasattr(os, "nice"):
            os.nice(10)  # the recording comes first
        click.echo(json.dumps({"url": listening.url, "ticket_url": listening.ticket_url()}))
        sys.stdout.flush()
        server.stop_with_stdin()
    else:
        _tell(listening, shelf.title)
        if not given["no_browser"]:
            open_browser(listening.ticket_url())
    # what is computed of the whole tape must not keep waiting who reads what is new: he lets go of the interpreter at each row
    sys.setswitchinterval(0.0005)
    server.run()
    if not child:
        click.echo("stopped", err=True)


def _asked(paths: list[Path], given: Mapping[str, Any]) -> Asked:
    """How the pages are to be; raises UsageError for a sequence that the tape does not have."""
    from tokentape.server.documents import Asked
    from tokentape.words.language import language_named

    numbers = given.get("numbers") or ()
    if numbers:
        from tokentape.cli.sequences import check_sequences
        from tokentape.data.tape import open_tape
        from tokentape.errors import UsageError

        if len(paths) != 1 or paths[0].is_dir():
            raise UsageError(
                "--trace with more than one tape", why="its number is that of a sequence of one", fix="leave it out"
            )
        with open_tape(paths[0]) as tape:
            check_sequences(tape, paths[0], numbers)
    return Asked(
        lang=language_named(given.get("lang")),
        traces=list(dict.fromkeys(numbers)) or None,
        across=[name for name in (given.get("across") or "").split(",") if name],
        withheld=bool(given.get("withheld")),
    )


def _tell(listening: Listening, what: str) -> None:
    """The address, on stderr; and what Ctrl-C does."""
    from tokentape.views.drawing import drawn_text

    click.echo(f"{drawn_text(what)} is served at\n  {listening.url}\nCtrl-C ends it.", err=True)


def open_browser(url: str) -> None:
    """Open an address in the browser of the desktop; where there is none, the printed address is to be opened by hand."""
    import webbrowser

    names = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    if sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in names):
        webbrowser.open(url)  # elsewhere a browser in the terminal would take it over


class OnDemand:
    """Explains single tokens for a page that asks: by the model given, else by the tape's own where it needs no download."""

    def __init__(self, model: str | None) -> None:
        self._model = model
        self._loaded: tuple[Any, CausalModel] | None = None

    def offers(self, tape: Tape) -> bool:
        """Whether the model is at hand, and what runs it installed."""
        from importlib.util import find_spec

        if find_spec("torch") is None or find_spec("transformers") is None:
            return False
        facts = tape.setting.facts
        path = facts.get("model_path")
        here = isinstance(path, str) and Path(path).exists()
        return self._model is not None or facts.get("model") == "demo" or here

    def explain(self, path: Path, trace: int, position: int) -> None:
        """Explain the token at a position by the default method, after a replay that agrees, and keep it in the tape."""
        from tokentape.data.annex import add_explanations
        from tokentape.data.tape import open_tape
        from tokentape.explain.explaining import Asked, answered, checked

        with open_tape(path) as tape:
            chosen = tape.traces[trace]
            replay = checked(chosen, self._causal(tape), tape.setting)
            found = answered(chosen, replay, Asked((position,)))
        add_explanations(path, [found])

    def _causal(self, tape: Tape) -> CausalModel:
        """The model, kept for the next question about a tape of the same."""
        from tokentape.cli.replaying import loaded_model

        facts = tape.setting.facts
        of = self._model or tuple(facts.get(name) for name in ("model", "model_path", "dtype", "random_weights"))
        if self._loaded is None or self._loaded[0] != of:
            self._loaded = None  # two would not fit where one does
            self._loaded = (of, loaded_model(tape, {"model": self._model, "device": "auto"}, quiet=True))
        return self._loaded[1]
