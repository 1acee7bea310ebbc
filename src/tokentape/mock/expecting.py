"""What a request's answer will be, computed beforehand: tokens, texts, and the moment of every send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tokentape.mock.answering import Received, answer_of
from tokentape.mock.asked import COMPLETIONS, asked_of
from tokentape.mock.dialects.choosing import dialect_of
from tokentape.mock.faults import Fault
from tokentape.mock.script import Script
from tokentape.mock.telling import chunks_of, finish_of
from tokentape.mock.vocabulary import Token

__all__ = ["Expected", "Moment", "expected"]

_MOST_ACTS = 100_000


@dataclass(frozen=True, slots=True)
class Moment:
    """A send: ``due_us`` after the last byte of the request was read, or after the request got its slot."""

    due_us: float
    kind: str
    choice: int | None
    n_tokens: int
    n_messages: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Expected:
    """An answer: by choice the tokens, their channels and the text of each channel; and the sends.

    ``texts`` lacks what of a character is not complete at the end: no server sends that.
    """

    prompt_ids: tuple[int, ...]
    tokens: tuple[tuple[Token, ...], ...]
    channels: tuple[tuple[str, ...], ...]
    texts: tuple[Mapping[str, str], ...]
    finish: str | None
    moments: tuple[Moment, ...]

    @property
    def n_completion(self) -> int:
        """Tokens of all choices together, as usage tells them."""
        return sum(map(len, self.tokens))


def expected(
    script: Script,
    body: Mapping[str, Any],
    *,
    route: str = COMPLETIONS,
    dialect: str = "vllm",
    model: str = "mock",
    faults: Sequence[Fault] = (),
) -> Expected:
    """What a server with this script, dialect and model answers to the JSON ``body`` of a request.

    The moments hold as long as nobody else is served where ``batch_cost_us`` is not 0. Of an endless answer the first
    100,000 sends are given. Raises :class:`~tokentape.mock.asked.Refused` for what the server refuses.
    """
    form = dialect_of(dialect)
    received = Received("POST", route)
    given = {name: value for name, value in body.items() if name != "mock"}
    answer = answer_of(received, given, script, form, model=model, number=0, extra=faults)
    asked = form.taken(asked_of(route, given, model))
    tokens: list[list[Token]] = [[] for _ in range(asked.n)]
    channels: list[list[str]] = [[] for _ in range(asked.n)]
    texts: list[dict[str, str]] = [{} for _ in range(asked.n)]
    for chunk in chunks_of(script, asked):
        tokens[chunk.choice] += chunk.tokens
        channels[chunk.choice] += [chunk.channel] * len(chunk.tokens)
        if chunk.text:
            texts[chunk.choice][chunk.channel] = texts[chunk.choice].get(chunk.channel, "") + chunk.text
    due_us, moments = 0.0, []
    for act in islice(answer.acts, _MOST_ACTS):
        due_us += act.after_us
        if act.data:
            moments.append(Moment(due_us, act.kind, act.choice, act.n_tokens, act.n_messages, act.data))
    return Expected(
        asked.prompt,
        tuple(map(tuple, tokens)),
        tuple(map(tuple, channels)),
        tuple(texts),
        finish_of(script, asked),
        tuple(moments),
    )
