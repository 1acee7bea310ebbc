"""What a server can tell: found at first contact by asking for everything, and dropping what it refuses, field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokentape.data.request import TraceHead
from tokentape.recorder.tick import Tick
from tokentape.sources.endpoint.call import ENDLESS_MORE, Call, Limits
from tokentape.sources.endpoint.engines import UNKNOWN, engine_of, says_done
from tokentape.sources.endpoint.failures import error_of, of_model, unknown_model
from tokentape.sources.endpoint.fields import RICH, rich_fields
from tokentape.sources.endpoint.fitting import name_of
from tokentape.sources.endpoint.flight import Flight
from tokentape.sources.endpoint.getting import get, speaks_tls, wait_for
from tokentape.sources.endpoint.messages import Message
from tokentape.sources.endpoint.wire import Host

__all__ = ["Capability", "Contact", "flown", "unprobed"]

N_TOKENS = 3
"""Tokens that the first request asks for: of one alone it cannot be told what comes with every message, and what at the end."""

_MODELS_WITHIN_NS = 10_000_000_000
_REFUSED = (400, 422)
_WITHOUT_TLS = ("cut_short", "reset", "malformed")
"""How servers that speak TLS end a request without it, beside a status of 400."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What a server serves and what it tells.

    ``fields`` are the names of those of :data:`~tokentape.sources.endpoint.fields.RICH` that it honours; ``refused`` those that it
    refuses, ``ignored`` those that it takes and does nothing with. ``n_top`` candidates may be asked for. ``label`` is what to
    expect of its traces; None where it was not tried.
    """

    model: str | None
    api: str
    engine: str = UNKNOWN
    models: tuple[str, ...] = ()
    fields: frozenset[str] = frozenset()
    refused: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    n_top: int = 0
    label: str | None = None

    @property
    def says_done(self) -> bool | None:
        return None if self.engine == UNKNOWN else says_done(self.engine)


def unprobed(model: str | None, api: str, n_top: int, *, logprobs: bool) -> Capability:
    """What is asked of a server that is not to be tried: its usage, and log-probabilities where they are wanted."""
    names = {"include_usage"} | ({"logprobs"} if logprobs else set())
    return Capability(model, "completions" if api == "auto" else api, fields=frozenset(names), n_top=n_top)


def flown(flight: Flight) -> list[Tick]:
    """Move a flight on until it is done; its ticks. Whatever interrupts that aborts it."""
    ticks: list[Tick] = []
    try:
        while not flight.done:
            ticks += flight.advance()
            if not flight.done:
                wait_for(flight, flight.deadline_ns)
    except BaseException:
        flight.abort()
        raise
    return ticks


@dataclass(slots=True)
class Contact:
    """The first contact with a server: which models there are, and what it tells when it is asked for everything.

    ``api`` is ``"auto"`` to take completions, and chat where a server has no completions. ``n_top`` candidates are wanted, and
    log-probabilities at all where ``logprobs``. ``extra`` are fields that every request is to have.
    """

    host: Host
    model: str | None = None
    api: str = "auto"
    n_top: int = 0
    logprobs: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    _models: tuple[str, ...] = ()
    _owner: str = ""
    _heard: list[Message] = field(default_factory=list)

    def capability(self) -> Capability:
        """Ask. Raises what :mod:`~tokentape.sources.endpoint.failures` has for a server that cannot be recorded."""
        self._ask_for_models()
        model = self._chosen_model()
        api = "completions" if self.api == "auto" else self.api
        names = [one.name for one in RICH if one.name != "logprobs" or self.logprobs]
        refused: list[str] = []
        n_top = self.n_top
        while True:
            flight = self._tried(model, api, frozenset(names), n_top)
            if flight.whole:
                break
            if flight.fault != "http_error" or flight.status not in _REFUSED or not names:
                if flight.status == 404 and api == "completions" and self.api == "auto" and not of_model(flight.error):
                    api = "chat"
                    continue
                raise self._error(flight, model)
            named = _named(flight.error or "", names)
            if named == "logprobs" and n_top > 1:
                n_top = 5 if n_top > 5 else 1  # servers have a largest number: 5 of old, 20
                continue
            if named is None and of_model(flight.error) and not refused:
                raise self._error(flight, model)
            refused.append(named or names[0])
            names.remove(refused[-1])
        self._refuse_other(model, flight)
        return self._found(model, api, flight, names, refused, n_top)

    # -- models --------------------------------------------------------------------------------------------------------

    def _ask_for_models(self) -> None:
        got = get(self.host, self.host.address.target("/models"), within_ns=_MODELS_WITHIN_NS)
        if got.fault in ("refused", "tls", "timeout"):
            raise error_of(_Seen(got.fault, got.error, None, {}), self.host.address, self.model)
        if not self.host.address.tls and (got.fault in _WITHOUT_TLS or got.status == 400) and speaks_tls(self.host):
            told = "the server speaks TLS, and was asked without"
            raise error_of(_Seen("tls", told, None, {}), self.host.address, self.model)
        if got.status in (401, 403):
            text = self.host.unsecret(got.body.decode("utf-8", errors="replace"))
            raise error_of(_Seen("http_error", text, got.status, dict(got.headers)), self.host.address, self.model)
        found: Any = None
        if got.status == 200:
            try:
                found = json.loads(got.body)
            except (ValueError, RecursionError):
                found = None
        entries = found.get("data") if isinstance(found, dict) else None
        entries = [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
        names = (name_of(one["id"], self.host.unsecret) for one in entries if isinstance(one.get("id"), str))
        self._models = tuple(name for name in names if name is not None)
        self._owner = next((str(one["owned_by"]) for one in entries if one.get("owned_by")), "")

    def _chosen_model(self) -> str | None:
        """The model to ask for; None to leave that to the server, where it lists none."""
        if self.model is not None or not self._models:
            return self.model
        if len(self._models) > 1:
            raise unknown_model(None, self._models, self.host.address)
        return self._models[0]

    def _refuse_other(self, model: str | None, flight: Flight) -> None:
        """Some servers answer with the model that they have, whatever was asked for, and repeat that name."""
        if model is None or not self._models or model in self._models:
            return
        if flight.engine != "transformers":  # that lists what it could load, and not what it was started with
            raise unknown_model(model, self._models, self.host.address)

    # -- the richest request -------------------------------------------------------------------------------------------

    def _tried(self, model: str | None, api: str, names: frozenset[str], n_top: int) -> Flight:
        asked: dict[str, Any] = (
            {"messages": [{"role": "user", "content": "Hello"}]} if api == "chat" else {"prompt": "Hello"}
        )
        body: dict[str, Any] = {"model": model} if model is not None else {}
        body |= {**asked, "max_tokens": N_TOKENS, "stream": True, **rich_fields(api, names, n_top), **self.extra}
        target = self.host.address.target("/chat/completions" if api == "chat" else "/completions")
        limits = replace(self.limits, most_tokens=N_TOKENS + ENDLESS_MORE)
        call = Call(target, json.dumps(body).encode(), (TraceHead(0, None, None, None),), n_top=n_top, limits=limits)
        flight = Flight(call, self.host)
        self._heard = []
        flight.hear = self._heard.append
        flown(flight)
        if flight.connection is not None:
            flight.connection.close()
        return flight

    def _error(self, flight: Flight, model: str | None) -> Exception:
        if model is not None and flight.status in (400, 404) and of_model(flight.error) and model not in self._models:
            return unknown_model(model, self._models, self.host.address, flight.error)
        return error_of(flight, self.host.address, model, self._models)

    def _found(
        self, model: str | None, api: str, flight: Flight, names: Sequence[str], refused: Sequence[str], n_top: int
    ) -> Capability:
        effects = _effects(self._heard)
        judged = flight.chunks.n_tokens > 0  # where no token came nothing can be said
        honoured = frozenset(names) & effects if judged else frozenset(names)
        first = flight.first or Message()
        label = None
        if judged:
            told = effects & {"return_token_ids", "logprobs"}
            counts = effects & {"continuous_usage_stats", "timings_per_token"}
            label = "exact" if told else "counted" if counts else "coarse"
        return Capability(
            model=model,
            api=api,
            engine=engine_of(first.raw, flight.headers.get("server", ""), self._owner),
            models=self._models,
            fields=honoured,
            refused=tuple(sorted(refused)),
            ignored=tuple(sorted(set(names) - honoured)),
            n_top=n_top if "logprobs" in honoured else 0,
            label=label,
        )


@dataclass(frozen=True, slots=True)
class _Seen:
    """A fault that no flight met."""

    fault: str | None
    error: str | None
    status: int | None
    headers: dict[str, str]


def _named(text: str, names: Sequence[str]) -> str | None:
    """Which of the fields an error names."""
    for name in sorted(names, key=len, reverse=True):
        if re.search(rf"\b{name}\b", text):
            return name
    if "logprobs" in names and re.search(r"\b(top_)?logprobs?\b", text):
        return "logprobs"
    if "stream_options" in text:
        return next((name for name in ("continuous_usage_stats", "include_usage") if name in names), None)
    return None


def _effects(messages: Sequence[Message]) -> frozenset[str]:
    """Which of the rich fields had an effect."""
    found = set()
    for message in messages:
        going_on = any(choice.finish is None for choice in message.choices)
        if message.usage is not None:
            found.add("include_usage")
            if going_on:
                found.add("continuous_usage_stats")
        if message.timings is not None and going_on:
            found.add("timings_per_token")
        for choice in message.choices:
            if choice.ids:
                found.add("return_token_ids")
            if choice.entries:
                found.add("logprobs")
                if any(entry.token is None and entry.id is not None for entry in choice.entries):
                    found.add("return_tokens_as_token_ids")
    return frozenset(found)
