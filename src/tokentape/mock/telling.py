"""A script and a request make the chunks of an answer, still in no dialect: what is said, in what pieces, and when."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from tokentape.mock.asked import Asked
from tokentape.mock.script import Beat, Script
from tokentape.mock.vocabulary import Speech, Token, id_of

__all__ = ["Chunk", "chunks_of", "finish_of", "n_tokens_of"]


@dataclass(slots=True)
class Chunk:
    """What one choice has at one beat.

    ``text`` is what can be read of it: the bytes of a character that is not whole yet wait for the chunk that
    completes it. ``n_before`` counts the tokens of the choice before this chunk, ``n_characters`` those of its text.
    ``last`` is that of its choice.
    """

    after_us: float
    choice: int
    tokens: tuple[Token, ...]
    texts: tuple[str, ...]
    channel: str
    n_before: int
    n_characters: int
    first: bool
    first_of_channel: bool
    last: bool

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def n_after(self) -> int:
        """Tokens of the choice up to here."""
        return self.n_before + len(self.tokens)


def n_tokens_of(script: Script, asked: Asked) -> int:
    """How many tokens each choice gets: the script's, more where the end of the text is to be passed, fewer at the limit."""
    n = max(script.n_tokens, asked.min_tokens)
    if asked.ignore_eos and asked.max_tokens is not None:
        n = max(n, asked.max_tokens)
    return n if asked.max_tokens is None else min(n, asked.max_tokens)


def finish_of(script: Script, asked: Asked) -> str | None:
    """The finish reason: ``length`` where the request's limit was reached, else the script's."""
    return (
        "length" if asked.max_tokens is not None and n_tokens_of(script, asked) >= asked.max_tokens else script.finish
    )


class _Voice:
    """One choice: what it has said so far."""

    def __init__(self, script: Script, choice: int) -> None:
        self.speech = Speech(script.seed, choice, plain=script.plain)
        self.n_spoken = 0
        self.n_tokens = 0
        self.n_characters = 0
        self.channel: str | None = None
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def says(self, beat: Beat, n: int) -> tuple[Token, ...]:
        if beat.says is not None:
            pieces = (part.encode() if isinstance(part, str) else part for part in beat.says[:n])
            return tuple(Token(id_of(data), data) for data in pieces)
        self.n_spoken += n
        return tuple(self.speech[index] for index in range(self.n_spoken - n, self.n_spoken))


def chunks_of(script: Script, asked: Asked, *, endless: bool = False) -> Iterator[Chunk]:
    """The chunks, one a beat and choice, choices of one beat after one another.

    A script that must go on past its end repeats its last beat that has tokens. With ``endless`` nothing limits it.
    """
    wanted = n_tokens_of(script, asked)
    voices = [_Voice(script, choice) for choice in range(asked.n)]
    # beats without tokens at the end of a script come too, unless something else ended it
    end = len(script.beats) - 1 if wanted == script.n_tokens else 0
    for number, beat in enumerate(_beats(script)):
        missing = wanted - voices[0].n_tokens
        n = beat.n_tokens if endless else min(beat.n_tokens, missing)
        last = not endless and n >= missing and number >= end
        for choice, voice in enumerate(voices):
            yield _chunk(beat, beat.after_us if choice == 0 else 0.0, choice, voice, n, last=last)
        if last:
            return


def _beats(script: Script) -> Iterator[Beat]:
    yield from script.beats
    again = next((beat for beat in reversed(script.beats) if beat.n_tokens), None)
    if again is None:
        again = Beat(script.beats[-1].after_us, 1)
    yield from repeat(Beat(again.after_us, again.n_tokens, again.channel))


def _chunk(beat: Beat, after_us: float, choice: int, voice: _Voice, n: int, *, last: bool) -> Chunk:
    tokens = voice.says(beat, n)
    texts = tuple(voice.decoder.decode(token.data) for token in tokens)
    chunk = Chunk(
        after_us,
        choice,
        tokens,
        texts,
        beat.channel,
        voice.n_tokens,
        voice.n_characters,
        first=voice.channel is None,
        first_of_channel=beat.channel != voice.channel,
        last=last,
    )
    voice.channel = beat.channel
    voice.n_tokens += len(tokens)
    voice.n_characters += sum(map(len, texts))
    return chunk
