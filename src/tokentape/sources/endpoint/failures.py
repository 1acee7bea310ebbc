"""What goes wrong with a server, as errors: what it is, why, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from tokentape.errors import ModelError, TokentapeError, Unreachable, UsageError
from tokentape.sources.endpoint.address import Address

__all__ = ["Failed", "error_of", "may_go_better", "of_model", "told", "unknown_model", "wait_s"]

MOST_SHOWN = 300
MOST_MODELS = 12
LONGEST_WAIT_DIGITS = 6

_PINNED = re.compile(r"pinned to '(?P<name>[^']+)'")
"""What transformers serve answers to another model than the one that it was started with."""


class Failed(Protocol):
    """A request that came to nothing, or not to its end."""

    @property
    def fault(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def status(self) -> int | None: ...
    @property
    def headers(self) -> dict[str, str]: ...


def told(text: str | None, most: int = MOST_SHOWN) -> str:
    """What a server said, in one line that is safe to show."""
    words = "".join(char if char.isprintable() else " " for char in text or "").split()
    line = " ".join(words)
    return line if len(line) <= most else line[: most - 1] + "…"


_AGAIN = frozenset({"refused", "reset", "timeout", "cut_short", "error_event", "malformed"})
_STATUSES_AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)})


def may_go_better(fault: str | None, status: int | None) -> bool:
    """Whether the same request may be answered the next time, by what became of it."""
    return status in _STATUSES_AGAIN if fault == "http_error" else fault in _AGAIN


def wait_s(headers: Mapping[str, str]) -> int | None:
    """Seconds after which a server wants to be asked again; None where it says nothing of the kind."""
    text = headers.get("retry-after", "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_WAIT_DIGITS else None


def error_of(failed: Failed, address: Address, model: str | None, models: Sequence[str] = ()) -> TokentapeError:
    """The error that a fault is. ``models`` are those that the server lists."""
    fault, why = failed.fault, told(failed.error) or "it does not say why"
    url = address.url
    if fault == "refused":
        return Unreachable(f"no server answers at {url}", why=why, fix="start it, or check host and port of the URL")
    if fault == "tls":
        return _no_tls(address, why)
    if fault == "timeout":
        return Unreachable(
            f"{url} did not answer in time", why=why, fix="try again later, or wait longer: --timeout 600"
        )
    if fault == "http_error":
        return _refused(failed, address, why, model, models)
    if fault == "redirect":
        return UsageError(
            f"{url} is elsewhere",
            why=f"the server answers with {why}, and a key is not carried to another address",
            fix="give the URL that it names",
        )
    if fault == "not_json":
        return UsageError(
            f"{url} does not answer as a model server",
            why=f"this came instead of events: {told(failed.error, 100)}",
            fix="check the path: the base is what stands before /completions, for example http://127.0.0.1:8000/v1",
        )
    if fault == "error_event":
        return ModelError(
            "the server reported an error in the middle of its answer", why=why, fix="see the log of the server"
        )
    if fault == "too_long":
        return ModelError(
            "the answer does not end",
            why=why,
            fix="ask for fewer tokens: --max-new-tokens; or see what the server does",
        )
    if fault == "malformed":
        return ModelError(
            f"{url} sends what cannot be read", why=why, fix="check that the URL is that of an OpenAI-compatible server"
        )
    return ModelError("the answer broke off", why=why, fix="see the log of the server; then record again")


def of_model(text: str | None) -> bool:
    """Whether an error is about the model that was asked for."""
    return re.search(r"\bmodel\b", text or "", re.IGNORECASE) is not None or _PINNED.search(text or "") is not None


def unknown_model(model: str | None, models: Sequence[str], address: Address, said: str | None = None) -> UsageError:
    """The model that was asked for is not among those that the server lists, or it is, and the server ``said`` that it is not."""
    why = None if said is None else told(said)
    if (pinned := _PINNED.search(said or "")) is not None:  # of transformers serve, whose list is of other models
        return UsageError(
            f"{address.url} has no model {told(model, 100)}",
            why=str(why),
            fix=f"--served-model {told(pinned['name'], 100)}",
        )
    if model is None and not models:
        return UsageError(
            f"{address.url} does not know which model is meant",
            why=why or "it lists none, and none was given",
            fix="give the name that the server was started with: --served-model NAME",
        )
    if said is not None and model in models:
        return UsageError(
            f"{address.url} lists the model {told(model, 100)}, and refuses it",
            why=str(why),
            fix="see the log of the server",
        )
    listed = ", ".join(models[:MOST_MODELS]) + (", ..." if len(models) > MOST_MODELS else "")
    if model is None:
        return UsageError(
            f"{address.url} serves {len(models)} models",
            why=f"one has to be chosen: {told(listed)}",
            fix=f"--served-model {told(models[0], 100)}",
        )
    if not models:
        return UsageError(
            f"{address.url} has no model {told(model, 100)}",
            why=why or "the server says so, and lists none",
            fix="give the name that the server was started with: --served-model NAME",
        )
    return UsageError(
        f"{address.url} has no model {told(model, 100)}",
        why=f"it has {told(listed)}",
        fix=f"--served-model {told(models[0], 100)}",
    )


def _no_tls(address: Address, why: str) -> Unreachable:
    what = f"no TLS with {address.netloc}"
    if why.startswith("certificate"):
        return Unreachable(
            what, why=why, fix="--ca-file FILE with the certificate of its authority; --insecure trusts whoever answers"
        )
    if address.tls:
        return Unreachable(
            what, why=why, fix=f"if it speaks plain HTTP: http://{address.netloc}{address.root}{address.version}"
        )
    return Unreachable(what, why=why, fix=f"https://{address.netloc}{address.root}{address.version}")


def _refused(failed: Failed, address: Address, why: str, model: str | None, models: Sequence[str]) -> TokentapeError:
    """What an HTTP status says."""
    status = failed.status
    if status in (401, 403):
        return UsageError(
            f"the server refuses the key ({status})",
            why=why,
            fix=f"export {address.key_env}=...; --api-key-env NAME takes it from another variable",
        )
    if (status == 404 and of_model(why)) or (status == 400 and _PINNED.search(why)):
        return unknown_model(model, models, address, failed.error)
    if status == 404:
        return UsageError(
            f"{address.url} has no such path (404)",
            why=why,
            fix="check the base of the URL; and --api chat or --api completions, where it has only one of them",
        )
    if status == 405:
        return UsageError(f"{address.url} takes no requests there (405)", why=why, fix="check the base of the URL")
    if status in (429, 503):
        after = wait_s(failed.headers)
        wait = "wait" if after is None else f"wait {after} s"
        return Unreachable(f"the server has no room for the request ({status})", why=why, fix=f"{wait}, then try again")
    if status is not None and status >= 500:
        return ModelError(f"the server failed ({status})", why=why, fix="see the log of the server")
    return UsageError(
        f"the server refuses the request ({status})",
        why=why,
        fix="change what it names; --extra-body adds fields, and --api chooses between chat and completions",
    )
