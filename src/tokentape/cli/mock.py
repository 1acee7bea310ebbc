"""``tokentape mock``: a server on paper, for tests of what talks to servers."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from tokentape.cli.output import document, json_option, print_document
from tokentape.cli.sections import SectionedCommand, in_section, with_all
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.mock.log import Log
    from tokentape.mock.script import Script
    from tokentape.mock.settings import Settings
    from tokentape.views.screen import Screen

__all__ = ["command", "microseconds"]

_script = partial(in_section, "What it says")
_faults = partial(in_section, "What goes wrong")
_server = partial(in_section, "Server")
_COUNT = click.IntRange(min=0)
_DIALECTS = click.Choice(["vllm", "sglang", "llama.cpp", "transformers"])

_OPTIONS = [
    _script("--ttft", default="50ms", show_default=True, metavar="TIME", help="To the first tokens: 800us, 50ms, 2s."),
    _script("--gap", default="20ms", show_default=True, metavar="TIME", help="From one chunk to the next."),
    _script("--jitter", metavar="KIND:TIME", help="Random part of a gap: uniform:5ms, normal:5ms or exponential:5ms."),
    _script("--tokens", type=_COUNT, default=64, show_default=True, metavar="N", help="Tokens of an answer."),
    _script(
        "--chunk", type=click.IntRange(min=1), default=1, show_default=True, metavar="K", help="Tokens of a chunk."
    ),
    _script(
        "--reasoning", type=_COUNT, default=0, metavar="N", help="So many of the tokens, at the start, are reasoning."
    ),
    _script(
        "--tool-call",
        type=_COUNT,
        default=0,
        metavar="N",
        help="So many, at the end, are the arguments of a tool call.",
    ),
    _script(
        "--seed", type=int, default=0, show_default=True, metavar="N", help="Decides what is said, and the jitter."
    ),
    _script("--plain", is_flag=True, help="Only words of one byte a character."),
    _script(
        "--script",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Scripts as JSON in place of these numbers; request n gets the n-th.",
    ),
    _faults(
        "--fault", "given_faults", multiple=True, metavar="NAME[:k=v,...]", help="Repeatable; --faults lists them."
    ),
    _faults("--faults", "list_faults", is_flag=True, help="List the faults with their parameters, and exit."),
    _server("--dialect", type=_DIALECTS, default="vllm", show_default=True, help="Whose form the answers have."),
    _server("--model", default="mock", show_default=True, metavar="NAME", help="Name of the model."),
    _server(
        "--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Listen on this address of the machine."
    ),
    _server("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Default: one that is free."),
    _server(
        "--slots", type=click.IntRange(min=1), metavar="N", help="Answer so many requests at a time; the others wait."
    ),
    _server("--batch-cost", default="0us", metavar="TIME", help="A chunk comes so much later for each other request."),
    _server("--api-key-env", metavar="NAME", help="Ask for the key in this environment variable."),
    _server("--tls-cert", type=click.Path(path_type=Path), metavar="PEM", help="Speak TLS with this certificate,"),
    _server("--tls-key", type=click.Path(path_type=Path), metavar="PEM", help="and its key."),
    _server(
        "--log",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write what was sent when to FILE, as JSON lines.",
    ),
    json_option,
]

EPILOG = """\b
Examples:
  tokentape mock
  tokentape mock --dialect llama.cpp --ttft 200ms --gap 5ms --tokens 256 --slots 4
  tokentape mock --fault split:where=utf8 --fault stall:at=10,us=500000
  tokentape mock --script answers.json --log sent.jsonl

A request may bring its own script: as the field "mock" of its JSON, or in the header X-Mock-Script.
"""


@click.command("mock", cls=SectionedCommand, epilog=EPILOG)
@with_all(*_OPTIONS)
def command(as_json: bool, **given: Any) -> None:
    """Serve an OpenAI-compatible endpoint that says what a script says, when it says it.

    No model runs: chunks come on a schedule exact to microseconds, in the form of vLLM, SGLang, llama.cpp or transformers, with
    faults where they are asked for. The address goes to stdout. Ctrl-C ends it, and tells how late its own sends were.
    """
    from tokentape.views.screen import Screen

    if given["list_faults"]:
        _list_faults(as_json=as_json)
        return
    settings = _settings(given)
    screen = Screen.of(sys.stderr)
    if given["log"] is None:
        log = _serve(settings, screen, as_json=as_json)
    else:
        with _opened(given["log"]) as out:
            log = _serve(settings, screen, as_json=as_json)
            out.writelines(f"{line}\n" for line in log.lines())
    _tell(log, screen)


def microseconds(text: str, option: str) -> float:
    """A time of the command line in microseconds: ``800us``, ``50ms``, ``2s``; raises UsageError for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(us|ms|s)", text.strip())
    if found is None:
        raise UsageError(
            f"{option} {text} is no time", why="it takes a number with us, ms or s", fix="write 800us, 50ms or 2s"
        )
    return float(found[1]) * {"us": 1.0, "ms": 1e3, "s": 1e6}[found[2]]


def _settings(given: Mapping[str, Any]) -> Settings:
    from tokentape.mock.faults import parse_fault
    from tokentape.mock.serving import EXACT_SPIN_US
    from tokentape.mock.settings import Settings

    if (given["tls_cert"] is None) != (given["tls_key"] is None):
        raise UsageError("one half of --tls-cert and --tls-key", why="TLS needs both", fix="give both, or neither")
    return Settings(
        scripts=_scripts(given),
        dialect=given["dialect"],
        faults=tuple(parse_fault(fault) for fault in given["given_faults"]),
        model=given["model"],
        host=given["host"],
        port=given["port"],
        slots=given["slots"],
        batch_cost_us=microseconds(given["batch_cost"], "--batch-cost"),
        api_key=_key(given["api_key_env"]),
        tls=None if given["tls_cert"] is None else (str(given["tls_cert"]), str(given["tls_key"])),
        keep_bytes=False,
        spin_us=EXACT_SPIN_US,
    )


def _scripts(given: Mapping[str, Any]) -> tuple[Script, ...]:
    from tokentape.mock.script import Script
    from tokentape.mock.script_file import read_scripts

    if given["file"] is not None:
        return read_scripts(given["file"])
    kind, _, spread = (given["jitter"] or "none:0us").partition(":")
    script = Script.steady(
        given["tokens"],
        ttft_us=microseconds(given["ttft"], "--ttft"),
        gap_us=microseconds(given["gap"], "--gap"),
        chunk=given["chunk"],
        jitter=kind,
        jitter_us=microseconds(spread, "--jitter"),
        n_reasoning=given["reasoning"],
        n_tool=given["tool_call"],
        seed=given["seed"],
        plain=given["plain"],
    )
    return (script,)


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    if not os.environ.get(name):
        raise UsageError(
            f"{name} is not set", why="the key is taken from this environment variable", fix=f"export {name}=..."
        )
    return os.environ[name]


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write {path}", why=error.strerror or str(error), fix="--log FILE in a folder that exists"
        ) from error


def _serve(settings: Settings, screen: Screen, *, as_json: bool) -> Log:
    """Serve until Ctrl-C or SIGTERM; gives the log."""
    import gc

    from tokentape.mock.serving import loop_of

    loop, url = loop_of(settings)
    before = {number: signal.signal(number, lambda *_: loop.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _announce(settings, url, screen, as_json=as_json)
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection is a pause of its own in somebody's schedule
        loop.run()
    finally:
        gc.enable()
        gc.unfreeze()
        for number, handler in before.items():
            signal.signal(number, handler)
    return loop.log


def _announce(settings: Settings, url: str, screen: Screen, *, as_json: bool) -> None:
    if as_json:
        print_document(document("mock", url=url, dialect=settings.dialect, model=settings.model, pid=os.getpid()))
    else:
        click.echo(url)
    sys.stdout.flush()
    body = f'{{"model": "{settings.model}", "prompt": "Hello", "stream": true}}'
    key = "" if settings.api_key is None else '-H "Authorization: Bearer $KEY" '
    curl = f"curl -N {key}-H 'Content-Type: application/json' -d '{body}' {url}/v1/completions"
    record = f'tokentape record --endpoint {url} "Hello"'
    for line in (
        screen.say("mock.serving", dialect=settings.dialect, url=url),
        f"  {curl}",
        f"  {record}",
        screen.say("mock.ending"),
    ):
        click.echo(screen.safe(line), err=True)


def _tell(log: Log, screen: Screen) -> None:
    from tokentape.mock.log import lateness

    late = lateness(sent for sent in log.sent if sent.n_late_bytes == 0)
    n = len(log.served)
    lines = [screen.say("mock.served", n=n, n_done=sum(one.how in ("done", "closed", "reset") for one in log.served))]
    if late["n"]:
        figures = {name: f"{late[f'{name}_us']:.0f}" for name in ("p50", "p99", "max")}
        lines.append(screen.say("mock.lateness", n=late["n"], **figures))
    for line in lines:
        click.echo(screen.safe(line), err=True)


def _list_faults(*, as_json: bool) -> None:
    from tokentape.mock.faults import FAULTS

    if as_json:
        listed = [
            {"name": name, "sentence": kind.sentence, "parameters": dict(kind.parameters)}
            for name, kind in FAULTS.items()
        ]
        print_document(document("mock", faults=listed))
        return
    for name, kind in FAULTS.items():
        parameters = ",".join(f"{key}={value}" for key, value in kind.parameters.items())
        click.echo(f"{name + (':' + parameters if parameters else ''):<44} {kind.sentence}")
