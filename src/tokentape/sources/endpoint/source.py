"""A model that somebody else serves, as a source: OpenAI-compatible completions and chats, streamed."""

from __future__ import annotations

import json
import socket
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tokentape.clock import Clock, HostClock
from tokentape.data.exchange import Scrape
from tokentape.data.request import Request, TraceHead
from tokentape.data.setting import Setting
from tokentape.errors import PromptError, UsageError
from tokentape.recorder.tick import LiveRun, Tick
from tokentape.sources.endpoint.address import KEY_ENV, address_of
from tokentape.sources.endpoint.call import ENDLESS_MORE, Call, Limits
from tokentape.sources.endpoint.capability import Capability, Contact, unprobed
from tokentape.sources.endpoint.entries import LARGEST_ID
from tokentape.sources.endpoint.failures import error_of
from tokentape.sources.endpoint.fields import APIS, body_of, rich_fields
from tokentape.sources.endpoint.fitting import without_secrets
from tokentape.sources.endpoint.flight import Flight
from tokentape.sources.endpoint.reading import Reader
from tokentape.sources.endpoint.scraping import scrape
from tokentape.sources.endpoint.wire import Host

__all__ = ["EndpointSource", "endpoint"]

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""A text, ids, or the messages of a chat."""

_OURS = ("prompt", "messages", "stream", "model", "stream_options")
"""Fields that are not for ``extra_body``."""

_ENDLESS = 4
"""A server that sends more rows than so many times the tokens asked for, and some more, does not end."""

MOST_CHOICES = 1 << 14
"""Of one request; each is a trace."""


def endpoint(url: str, model: str | None = None, **how: Any) -> EndpointSource:
    """A source that asks the OpenAI-compatible server at ``url``; ``how`` as for :class:`EndpointSource`.

    Raises UsageError for a URL that is none. The server is first asked when something is recorded.
    """
    return EndpointSource(url, model, **how)


class EndpointSource:
    """A server by its URL, and what is asked of it.

    ``model`` is the name under which it is served, the only one that the server lists unless given. ``api`` is ``"completions"``,
    ``"chat"``, or ``"auto"``: completions, unless there is a ``system`` text, or the server has chats alone. The key comes from the
    environment variable ``key_env``, further headers from those of ``header_envs`` (``(header, variable)``), and neither is kept,
    nor where it stands in the URL or in ``extra_body``.
    ``extra_body`` are fields for every request. ``candidates`` likeliest tokens are asked for where log-probabilities are recorded.
    ``timeout`` (seconds) is how long the first byte, and each next one, is waited for; ten times as long for bytes that say
    something. ``probe`` False sends the request without
    having tried what the server can tell.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        api: str = "auto",
        system: str | None = None,
        key_env: str = KEY_ENV,
        header_envs: Sequence[tuple[str, str]] = (),
        ca_file: str | None = None,
        insecure: bool = False,
        extra_body: Mapping[str, Any] | None = None,
        candidates: int = 5,
        timeout: float | None = None,
        probe: bool = True,
        metrics: bool = True,
    ) -> None:
        self.address, route = address_of(
            url, key_env=key_env, header_envs=tuple(header_envs), ca_file=ca_file, insecure=insecure
        )
        if api not in ("auto", *APIS):
            raise UsageError(f"api={api!r}", why=f"there are auto, {', '.join(APIS)}", fix="api='chat'")
        if api == "auto" and (system is not None or route == "/chat/completions"):
            api = "chat"
        if api == "completions" and system is not None:
            raise UsageError(
                "a system text for completions", why="completions have no messages", fix="api='chat', or no system text"
            )
        self.clock: Clock = HostClock()
        self.system = system
        self.limits = _limits(timeout)
        self.extra_body = _extra(extra_body or {})
        self.candidates = candidates
        self._model = model
        self._api = api
        self._probe = probe
        self._metrics = metrics
        self._host: Host | None = None
        self._known: dict[bool, Capability] = {}

    # -- the server ----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The model, or the server where that is not known yet."""
        known = next(iter(self._known.values()), None)
        return (known.model if known is not None else self._model) or self.address.netloc

    @property
    def host(self) -> Host:
        """The server, looked up. Raises Unreachable, UsageError."""
        if self._host is None:
            self._host = Host(self.address)
        return self._host

    def capability(self, *, logprobs: bool = True) -> Capability:
        """What the server tells, found by asking it, once. Raises Unreachable, UsageError, ModelError."""
        if logprobs not in self._known:
            if self._probe:
                found = Contact(
                    self.host,
                    self._model,
                    self._api,
                    self.candidates,
                    logprobs=logprobs,
                    extra=self.extra_body,
                    limits=self.limits,
                ).capability()
            else:
                found = unprobed(self._model, self._api, self.candidates, logprobs=logprobs)
            self._known[logprobs] = found
        return self._known[logprobs]

    def setting(self) -> Setting:
        """The server, its model and what it tells; asks it, unless that has been done."""
        known = next(iter(self._known.values()), None) or self.capability()
        facts: dict[str, Any] = {
            "model": known.model,
            "source": "endpoint",
            "engine": known.engine,
            "url": self.address.url,
            "api": known.api,
            "fields": sorted(known.fields),
            "refused": list(known.refused),
            "ignored": list(known.ignored),
            "label": known.label,
            "tls": ("unverified" if self.address.insecure else "verified") if self.address.tls else None,
            "hostname": socket.gethostname(),
        }
        return Setting(facts)

    # -- requests ------------------------------------------------------------------------------------------------------

    def call(
        self, prompt: Prompt, options: Mapping[str, Any], seed: int | None = None, *, logprobs: bool = True
    ) -> Call:
        """The request for a prompt, ready to be sent from any process; ``options`` are those of ``generate()``.

        Raises UsageError for what the server cannot be asked for.
        """
        _refuse_unsendable(prompt, seed)
        known = self.capability(logprobs=logprobs)
        fields = body_of(options, known.engine, seed)
        asked, text, ids = self._asked(prompt, known)
        body = {"model": known.model} if known.model is not None else {}
        kept = {**fields, **rich_fields(known.api, known.fields, known.n_top), "stream": True, **self.extra_body}
        n = kept.get("n", 1)
        if type(n) is not int or not 1 <= n <= MOST_CHOICES:
            raise UsageError(
                f"n={n!r}", why=f"it is the number of choices, {MOST_CHOICES} at the most", fix="leave it out"
            )
        most = kept.get("max_tokens", kept.get("max_completion_tokens"))
        limits = self.limits
        if type(most) is int:
            limits = replace(limits, most_tokens=_ENDLESS * most * n + ENDLESS_MORE)
        head = TraceHead(0, None if ids is None else len(ids), ids, text)
        target = self.address.target("/chat/completions" if known.api == "chat" else "/completions")
        shown = {name: value for name, value in asked.items() if name == "messages"}
        return Call(
            target,
            _encoded({**body, **asked, **kept}),
            tuple(replace(head, row=row) for row in range(n)),
            {**shown, **_unsecret(kept, self.address.secrets())},
            seed,
            known.n_top,
            limits,
            known.says_done,
        )

    def _asked(self, prompt: Prompt, known: Capability) -> tuple[dict[str, Any], str | None, tuple[int, ...] | None]:
        """The prompt as a request has it, its text, and its ids where it is ids."""
        if isinstance(prompt, str):
            if known.api == "completions":
                return {"prompt": prompt}, prompt, None
            system = [] if self.system is None else [{"role": "system", "content": self.system}]
            return {"messages": [*system, {"role": "user", "content": prompt}]}, prompt, None
        if all(isinstance(one, Mapping) for one in prompt):
            if known.api != "chat":
                raise UsageError(
                    "messages for completions", why="they are for chats", fix="--api chat; in Python api='chat'"
                )
            messages = [dict(one) for one in prompt if isinstance(one, Mapping)]
            last = messages[-1].get("content")
            return {"messages": messages}, last if isinstance(last, str) else None, None
        ids = tuple(one for one in prompt if isinstance(one, int))
        if known.api == "chat" or known.engine == "transformers":
            raise PromptError(
                "token ids for a server that takes text alone", why="a chat is made of messages" if known.api == "chat"
                else "transformers serve takes no ids", fix="give the prompt as text",
            )  # fmt: skip
        return {"prompt": list(ids)}, None, ids

    def start(self, request: Request, needs: frozenset[str]) -> LiveRun:
        """Send the request, and wait for the first message of the answer.

        A server that refuses it raises the error here, before there is a tape; what goes wrong later is raised when the
        last tick has been taken. ``needs`` without ``"logits"`` asks for no log-probabilities.
        """
        live, flight = self.launched(request, needs)
        if flight.done and flight.first is None and flight.fault is not None:
            live.ticks.close()
            known = self.capability(logprobs="logits" in needs)
            raise error_of(flight, self.address, known.model, known.models)
        return live

    def launched(self, request: Request, needs: frozenset[str]) -> tuple[LiveRun, Flight]:
        """The request on its way, at the first message of its answer, or at what went wrong before that."""
        if len(request.prompts) != 1:
            raise UsageError(
                f"{len(request.prompts)} prompts for one request",
                why="a server answers each prompt by itself, on a clock of its own",
                fix="one prompt; tt.load(...) or tokentape record --endpoint --prompts sends many",
            )
        call = self.call(request.prompts[0], request.options, request.seed, logprobs="logits" in needs)
        before = scrape(self.host) if self._metrics else None
        flight = Flight(call, self.host)
        reader = Reader(flight)
        reader.wait_until_ready()
        ticks = self._ticks(reader)
        next(ticks)  # from here on to close it, or to let go of it, ends the reading
        live = flight.live(ticks)
        assert live is not None
        if before is not None:
            live.scrapes = lambda origin: self._scrapes(before, origin)
        return live, flight

    def _ticks(self, reader: Reader) -> Generator[Tick]:
        try:
            yield Tick("chunk", 0, 0, 0)  # of no run: see launched()
            yield from reader.ticks()
        finally:
            reader.stop()
        if not reader.flight.whole:
            raise error_of(reader.flight, self.address, self.name)

    def _scrapes(self, before: Scrape, origin: int) -> list[Scrape]:
        """What the server said of itself before the request, and what it says now."""
        return [
            replace(one, began_ns=one.began_ns - origin, ended_ns=one.ended_ns - origin)
            for one in (before, scrape(self.host))
            if one is not None
        ]


def _refuse_unsendable(prompt: Prompt, seed: int | None) -> None:
    """Raise for what no server can be sent, or no tape can hold, before there is anything."""
    if seed is not None and not -(1 << 63) <= seed < 1 << 63:
        raise UsageError(f"seed={seed}", why="a tape keeps integers of 64 bits", fix="give a smaller number")
    if not prompt:
        raise PromptError("the prompt is empty", why="a server needs something to continue", fix="give a text")
    for one in () if isinstance(prompt, str) else prompt:
        if isinstance(one, int) and not 0 <= one <= LARGEST_ID:
            raise PromptError(
                f"{one} among the ids of the prompt", why=f"ids are 0 to {LARGEST_ID}", fix="check the ids"
            )


def _unsecret(value: Any, secrets: tuple[str, ...]) -> Any:
    """A value of JSON as the tape keeps it: people put a key into the body too."""
    if isinstance(value, str):
        return without_secrets(value, secrets)
    if isinstance(value, Mapping):
        return {without_secrets(str(name), secrets): _unsecret(one, secrets) for name, one in value.items()}
    return [_unsecret(one, secrets) for one in value] if isinstance(value, list | tuple) else value


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            "the request holds text that is no Unicode",
            why=f"{error.object[error.start]!a} stands for no character",
            fix="check the prompt and the system text",
        ) from error


def _limits(timeout: float | None) -> Limits:
    if timeout is None:
        return Limits()
    if not 0 < timeout < 1e9:
        raise UsageError(f"timeout={timeout}", why="it is a number of seconds, more than 0", fix="timeout=600")
    ns = int(timeout * 1e9)
    return Limits(connect_ns=min(ns, Limits().connect_ns or ns), first_ns=ns, between_ns=ns)


def _extra(given: Mapping[str, Any]) -> dict[str, Any]:
    for name in _OURS:
        if name in given:
            raise UsageError(
                f"{name} in the extra body",
                why="it is what the recording itself asks for",
                fix=f"leave {name} out of it",
            )
    try:
        json.dumps(dict(given), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            "the extra body is no JSON", why=str(error), fix="give numbers, texts, lists and objects"
        ) from error
    return dict(given)
