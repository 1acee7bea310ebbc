"""Errands become flights: the words of a turn become a request, on a connection that is open already where there is one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tokentape.errors import UsageError
from tokentape.load.errands import Errand
from tokentape.load.prompts import PromptMaker
from tokentape.load.workloads import Turn
from tokentape.sources.endpoint.address import Address
from tokentape.sources.endpoint.call import Call
from tokentape.sources.endpoint.fields import body_of
from tokentape.sources.endpoint.flight import Flight
from tokentape.sources.endpoint.source import EndpointSource
from tokentape.sources.endpoint.wire import Connection, Host

__all__ = ["MADE", "Caller", "EndpointLauncher", "Making", "SourceCaller", "asked_of", "exact_options"]

Message = Mapping[str, Any]
Asked = str | tuple[int, ...] | tuple[Message, ...]

MADE = "prompt_made"
"""Option of a run whose prompt was made here: the number that it was made of."""


class Caller(Protocol):
    """Makes the request of a prompt; can be sent to another process.

    ``chat`` is whether prompts are messages. ``exact`` asks for ``n_new`` tokens whatever the model says, where the server can do
    that; ``options`` are the turn's own.
    """

    @property
    def chat(self) -> bool: ...
    def call(self, asked: Asked, *, n_new: int | None, exact: bool, options: Mapping[str, Any]) -> Call: ...


class SourceCaller:
    """Makes requests as a source does, with the ``options`` of ``generate()`` that all of them share.

    The source has to have asked the server what it can do: it is not asked again.
    """

    def __init__(
        self, source: EndpointSource, options: Mapping[str, Any], *, seed: int | None = None, logprobs: bool = False
    ) -> None:
        self._known = source.capability(logprobs=logprobs)
        self._source = copy.copy(source)
        self._source._host = None  # sockets and contexts of TLS stay here
        self._options = dict(options)
        self._exact = exact_options(self._known.engine)
        self._seed = seed
        self._logprobs = logprobs

    @property
    def chat(self) -> bool:
        return self._known.api == "chat"

    def call(self, asked: Asked, *, n_new: int | None, exact: bool, options: Mapping[str, Any]) -> Call:
        """See :class:`Caller`. Raises UsageError for what the server cannot be asked for."""
        whole: dict[str, Any] = {**self._options, **options}
        asked = self._introduced(asked)
        if n_new is not None:
            whole["max_new_tokens"] = n_new
            if exact:
                whole |= {name: n_new if value is None else value for name, value in self._exact.items()}
        return self._source.call(asked, whole, self._seed, logprobs=self._logprobs)

    def _introduced(self, asked: Asked) -> Asked:
        """Messages after the system's text; a source adds it to plain texts alone."""
        system = self._source.system
        messages = [one for one in asked if isinstance(one, Mapping)]
        if system is None or not messages or messages[0].get("role") == "system":
            return asked
        return ({"role": "system", "content": system}, *messages)


def exact_options(engine: str) -> dict[str, Any]:
    """The options that make an answer as long as asked, whatever the model says; None stands for the number. Empty: it has none."""
    found = {}
    for name, value in (("ignore_eos", True), ("min_new_tokens", None)):
        try:
            body_of({name: 1 if value is None else value}, engine)
        except UsageError:
            continue
        found[name] = value
    return found if "ignore_eos" in found else {}


@dataclass(frozen=True)
class Making:
    """How a client process makes its flights; called there, it gives the launcher."""

    address: Address
    caller: Caller
    maker: PromptMaker = field(default_factory=PromptMaker)

    def __call__(self) -> EndpointLauncher:
        return EndpointLauncher(Host(self.address), self.caller, self.maker)


class EndpointLauncher:
    """Launches flights to one server; connections are used again as long as the server keeps them."""

    def __init__(self, host: Host, caller: Caller, maker: PromptMaker) -> None:
        self._host = host
        self._caller = caller
        self._maker = maker
        self._idle: list[Connection] = []
        self._ready: dict[tuple[int, int], Call] = {}

    def prepare(self, errand: Errand) -> None:
        """Make the request of an errand that is to come."""
        self._ready[errand.conversation.number, errand.turn] = self._call(errand)

    def launch(self, errand: Errand) -> Flight:
        """See :class:`~tokentape.load.engine.Launcher`."""
        call = self._ready.pop((errand.conversation.number, errand.turn), None) or self._call(errand)
        return Flight(call, self._host, self._connection())

    def landed(self, flight: Any) -> None:
        if flight.connection is not None:
            self._idle.append(flight.connection)

    def close(self) -> None:
        """Close the connections that wait to be used again."""
        while self._idle:
            self._idle.pop().close()

    def _connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_gone():
                return connection
            connection.close()
        return None

    def _call(self, errand: Errand) -> Call:
        turn = errand.conversation.turns[errand.turn]
        asked = asked_of(errand, self._maker, chat=self._caller.chat)
        call = self._caller.call(asked, n_new=turn.n_new, exact=turn.exact, options=turn.options)
        if turn.n_prompt is None or turn.prompt is not None or turn.messages is not None:
            return call
        # a prompt that was made can be made again: the tape says of what, and how long it was to be, and not the words
        made = {
            "prompt_tokens_asked": turn.n_prompt,
            MADE: errand.conversation.number,
            "prompt_blocks": list(turn.blocks),
        }
        options = {name: value for name, value in call.options.items() if name != "messages"}
        return replace(call, options={**options, **made}, heads=tuple(replace(h, prompt_text=None) for h in call.heads))


def asked_of(errand: Errand, maker: PromptMaker, *, chat: bool) -> Asked:
    """What a turn asks, with all that was said before it: messages for a ``chat``, else one text, or ids."""
    conversation = errand.conversation
    said = [
        _words(turn, maker, conversation.number + (place << 24))
        for place, turn in enumerate(conversation.turns[: errand.turn + 1])
    ]
    first = said[0]
    if len(said) == 1 and not isinstance(first, list) and (not chat or isinstance(first, str)):
        return first
    messages: list[Message] = []
    for place, words in enumerate(said):
        messages += words if isinstance(words, list) else [{"role": "user", "content": words}]
        if place < errand.turn:
            messages.append({"role": "assistant", "content": errand.answers[place]})
    return tuple(messages) if chat else "\n\n".join(str(message.get("content", "")) for message in messages)


def _words(turn: Turn, maker: PromptMaker, number: int) -> str | tuple[int, ...] | list[Message]:
    if turn.messages is not None:
        return list(turn.messages)
    if turn.prompt is not None:
        return turn.prompt
    return maker.prompt(turn.n_prompt or 1, number, turn.blocks)
