"""The options of ``tokentape record --endpoint``: which server is asked, and how."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from tokentape.cli.sections import in_section
from tokentape.errors import UsageError

__all__ = ["ENDPOINT_NAMES", "ENDPOINT_OPTIONS", "refuse_endpoint"]

_endpoint = partial(in_section, "Endpoint")

ENDPOINT_OPTIONS = [
    _endpoint("--endpoint", metavar="URL", help="Record a model that others serve: an OpenAI-compatible server."),
    _endpoint("--served-model", metavar="NAME", help="Its name there; default: the only one that the server lists."),
    _endpoint(
        "--api",
        type=click.Choice(["auto", "completions", "chat"]),
        default="auto",
        show_default=True,
        help="auto: completions, or chat with --chat, --system, or where there is nothing else.",
    ),
    _endpoint(
        "--api-key-env",
        metavar="NAME",
        help="The environment variable that holds the key; default: OPENAI_API_KEY. It is never kept.",
    ),
    _endpoint(
        "--header-env",
        "header_envs",
        multiple=True,
        metavar="HEADER=NAME",
        help="Another header, its value in the environment variable NAME (repeatable).",
    ),
    _endpoint("--extra-body", metavar="JSON", help="Further fields of the request, as an object."),
    _endpoint(
        "--timeout", metavar="TIME", help="Wait so long for the first byte, and for each next one: 500ms, 30s, 2m."
    ),
    _endpoint(
        "--retries",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Send it again up to N times; each is a run.",
    ),
    _endpoint("--ca-file", type=click.Path(path_type=Path), metavar="FILE", help="Certificates to trust, in PEM form."),
    _endpoint("--insecure", is_flag=True, help="Do not check the certificate: trust whoever answers."),
    _endpoint("--no-probe", is_flag=True, help="Send the request without trying first what the server can tell."),
]

ENDPOINT_NAMES = {
    "endpoint": "--endpoint",
    "served_model": "--served-model",
    "api_key_env": "--api-key-env",
    "header_envs": "--header-env",
    "extra_body": "--extra-body",
    "timeout": "--timeout",
    "retries": "--retries",
    "ca_file": "--ca-file",
    "insecure": "--insecure",
    "no_probe": "--no-probe",
}
"""The options by the names of their values; ``api`` has a default."""


def refuse_endpoint(given: Mapping[str, Any]) -> None:
    """Raise UsageError for options of an endpoint where a model in this process is asked for."""
    found = [flag for name, flag in ENDPOINT_NAMES.items() if given.get(name)]
    found += ["--api"] if given.get("api", "auto") != "auto" else []
    if "--endpoint" in found:
        raise UsageError(
            "--endpoint where a model in this process is needed",
            why="weights have to be here to be compared side by side",
            fix="record each on its own: tokentape record --endpoint URL",
        )
    if found:
        raise UsageError(
            f"{found[0]} without --endpoint",
            why="it is an option of a server",
            fix="add --endpoint URL, or leave it out",
        )
