"""``tokentape record --endpoint``: record a model that somebody else serves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.generation import options_given
from tokentape.cli.load_options import LOAD_FLAGS
from tokentape.cli.preparation import refuse_taken, tape_place
from tokentape.cli.prompts import Asked, read_prompt
from tokentape.cli.record_options import GENERATION_FLAGS
from tokentape.cli.report import refuse_report
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.sources.endpoint.source import EndpointSource

__all__ = ["endpoint_of", "endpoint_recording", "options_of"]

_LOCAL = {
    "dtype": "--dtype",
    "device": "--device",
    "revision": "--revision",
    "attn_implementation": "--attn-implementation",
    "trust_remote_code": "--trust-remote-code",
    "random_weights": "--random-weights",
    "threads": "--threads",
    "bos": "--bos",
    "bad_words": "--bad-words",
    "window": "--window",
    "sinks": "--sinks",
}
"""Options of a model in this process, beside those of rules."""

_RULES = ("Grammar", "Guidance", "Guard")
"""Sections of the help page."""

Recording = Callable[[Callable[[Any], None]], "Tape"]


def endpoint_recording(ctx: click.Context, given: dict[str, Any]) -> tuple[Path, str, Recording | None]:
    """Where the tape goes, what is done first, and what records it; None where a load was asked for, which is then over.

    Raises UsageError for everything that can be seen without the server.
    """
    _refuse_local(ctx)
    words = (given["model"], *given["prompt"]) if given["model"] is not None else ()
    given = {**given, "model": None, "prompt": words}
    if _is_load(given):
        from tokentape.cli.record_load import run

        run(given)
        return Path(), "", None
    source = endpoint_of(given)
    options = options_of(given)
    prompt = _prompt(given, words)
    path = tape_place(given["output"], given["served_model"] or source.address.host)
    refuse_taken(path, overwrite=given["overwrite"])
    refuse_report(given)
    keep = {name: given[name] for name in ("probe", "candidates", "overwrite", "text")}

    def record(observer: Callable[[Any], None]) -> Tape:
        import tokentape
        from tokentape.data.request import Request
        from tokentape.sources.retrying import record_again

        if given["retries"]:
            request = Request((prompt if isinstance(prompt, str) else tuple(prompt),), options, given["seed"])
            return record_again(source, request, given["retries"], path=path, observer=observer, **keep)
        return tokentape.record(source, prompt, path=path, observer=observer, seed=given["seed"], **keep, **options)

    return path, f"asking {source.address.netloc}", record


def endpoint_of(given: Mapping[str, Any]) -> EndpointSource:
    """The server that the options describe. Raises UsageError."""
    from tokentape.experiment.amounts import seconds
    from tokentape.sources.endpoint.address import KEY_ENV
    from tokentape.sources.endpoint.source import EndpointSource

    chat = given.get("chat") or given.get("system") is not None
    if chat and given["api"] == "completions":
        raise UsageError("--chat with --api completions", why="completions have no messages", fix="leave one out")
    return EndpointSource(
        given["endpoint"],
        given["served_model"],
        api="chat" if chat else given["api"],
        system=given.get("system"),
        key_env=given["api_key_env"] or KEY_ENV,
        header_envs=[_header(pair) for pair in given["header_envs"]],
        ca_file=None if given["ca_file"] is None else str(given["ca_file"]),
        insecure=given["insecure"],
        extra_body=_extra(given["extra_body"]),
        candidates=given["candidates"],
        timeout=None if given["timeout"] is None else seconds(given["timeout"], "--timeout"),
        probe=not given["no_probe"],
    )


def options_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``generate()`` that were given. Raises UsageError."""
    options = options_given(given, GENERATION_FLAGS)
    return options | ({"ignore_eos": True} if given["ignore_eos"] else {})


def _prompt(given: Mapping[str, Any], words: tuple[str, ...]) -> Any:
    asked = Asked(words=words, file=given["file"], ids=given["prompt_ids"], seed=given["seed"], server=True)
    if not words and asked.file is None and asked.ids is None:
        raise UsageError(
            "no prompt was given",
            why="the model needs something to continue",
            fix='tokentape record --endpoint URL "a prompt"; or -f FILE, - (stdin), --prompts FILE',
        )
    return read_prompt(asked)


def _is_load(given: Mapping[str, Any]) -> bool:
    """Whether many requests are asked for."""
    many = given["prompts"] is not None or given["prompt_tokens"] is not None
    return many or any(given.get(name) is not None for name in LOAD_FLAGS)


def _refuse_local(ctx: click.Context) -> None:
    """Options that mean nothing to a server are no silent wish."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if source is None or source.name in ("DEFAULT", "DEFAULT_MAP"):
            continue
        if name in _LOCAL or getattr(parameter, "section", "") in _RULES:
            flag = parameter.opts[0]
            raise UsageError(
                f"{flag} with --endpoint",
                why="it is an option of a model in this process",
                fix=f"leave {flag} out, or set it where the server is started",
            )


def _header(pair: str) -> tuple[str, str]:
    header, equals, variable = pair.partition("=")
    if not equals or not header.strip() or not variable.strip():
        raise UsageError(
            f"--header-env {pair}: not HEADER=NAME",
            why="the value stands in an environment variable, and is never kept",
            fix="--header-env X-Team=TEAM_TOKEN",
        )
    return header.strip(), variable.strip()


def _extra(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(
            "--extra-body is no JSON", why=str(error), fix="--extra-body '{\"top_k\": 20}', in quotes"
        ) from error
    if not isinstance(found, dict):
        raise UsageError("--extra-body is no object", why="fields have names", fix="--extra-body '{\"top_k\": 20}'")
    return found
