"""Messages become chunks: a tick of k >= 0 tokens each, and at the end what may be said of them.

How many tokens a message holds is known where the server tells each of them (by id or log-probability), or counts them (usage or
timings with every message). Else a message with text is one row, whatever it holds. Tokens of one message came at one moment: they
are not spread over the time before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokentape.data.schema import CHANNELS
from tokentape.recorder.tick import Said, Tick
from tokentape.sources.endpoint.agreement import MOST_HELD_TOKENS, Agreement, may_be_one_token
from tokentape.sources.endpoint.entries import Entry
from tokentape.sources.endpoint.messages import Choice, Message, whole
from tokentape.sources.endpoint.stamps import Stamp

__all__ = ["Chunks", "Vocabulary"]

_TEXT, _REASONING, _TOOL = range(len(CHANNELS))
_LONGEST_HELD_BYTES = 3
"""What may be held back of a character: its last byte is missing."""
MOST_UNASKED = 20
"""Candidates that are kept where none were asked for."""
LONGEST_PIECE, MOST_PIECES = 1024, 1 << 20
"""Characters of an entry of a vocabulary, and entries: what is beyond them is not learned."""


class Vocabulary:
    """Entries of a vocabulary that a server has told, with both id and text."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, bytes, bool]] = {}

    def learn(self, token_id: int, text: str, data: bytes | None) -> None:
        if token_id not in self._known and len(text) <= LONGEST_PIECE and len(self._known) < MOST_PIECES:
            known = text.encode() if data is None else data[:LONGEST_PIECE]
            self._known[token_id] = (text, known, not known)

    def feed(self, token_id: int) -> bytes:
        """Nothing: what a token adds to the text came with it."""
        return b""

    def piece(self, token_id: int) -> tuple[str, bytes, bool] | None:
        """The entry of an id; None where the server has not told it."""
        return self._known.get(token_id)


@dataclass(slots=True)
class _Row:
    """One choice: what has come of it."""

    n_tokens: int = 0
    n_counted: int = 0
    counts: bool | None = None
    held: bytes = b""
    finish: str | None = None
    stop: str | None = None
    usage: Mapping[str, Any] | None = None
    spoke: bool = False
    agreement: Agreement = field(default_factory=Agreement)

    def counted(self, count: int | None, *, begins: bool) -> int | None:
        """Tokens since the message before, by a server that has counted them from the first on; ``begins`` where there is one.

        A count that comes at the end alone is no count of a message.
        """
        if self.counts is None and begins:
            self.counts = count is not None
        if not self.counts:
            return None
        if count is None:
            self.counts = not begins
            return None
        since, self.n_counted = count - self.n_counted, count
        return since


class Chunks:
    """Makes ticks of the messages of one request with ``n`` choices; ``n_top`` candidates were asked for.

    ``most_tokens`` are those that all choices together can have: a count of more is none.
    """

    def __init__(self, n: int, n_top: int = 0, most_tokens: int | None = None) -> None:
        self.rows = [_Row() for _ in range(n)]
        self.vocabulary = Vocabulary()
        self.usage: Mapping[str, Any] | None = None
        self.timings: Mapping[str, Any] | None = None
        self.n_tokens = 0
        self._n_top = n_top
        self._most_tokens = most_tokens
        self._told = {"exact": 0, "counted": 0, "coarse": 0}
        self._n_left_out = 0
        self._has_ids = False
        self._n_empty = 0
        self._n_longer = 0
        self._doubt: str | None = None

    def tick(self, message: Message, stamp: Stamp, start: int) -> Tick | None:
        """The chunk that a message is; None for one without a choice. A choice that was not asked for is a problem of it."""
        if message.usage is not None:
            if len(message.choices) == 1 and 1 < len(self.rows) > message.choices[0].index:
                self.rows[message.choices[0].index].usage = message.usage
            else:
                self.usage = message.usage
        if message.timings is not None:
            self.timings = message.timings
        if not message.choices:
            return None
        said: list[Said] = []
        for choice in message.choices:
            if choice.index >= len(self.rows):
                message.problems.append(f"choice {str(choice.index)[:20]} came, and {len(self.rows)} were asked for")
                continue
            said += self._said(choice, self.rows[choice.index], _count(message))
        return Tick(
            "chunk", len(self.rows), start, stamp.ns, said=tuple(said), read=stamp.read_ns, last=self.all_finished
        )

    @property
    def all_finished(self) -> bool:
        """Whether every choice has said why it ended."""
        return all(row.finish is not None for row in self.rows)

    @property
    def some_finished(self) -> bool:
        """Whether every choice that came at all has said so, and there is one."""
        spoke = [row for row in self.rows if row.spoke]
        return bool(spoke) and all(row.finish is not None for row in spoke)

    # -- the tokens of a message ---------------------------------------------------------------------------------------

    def _said(self, choice: Choice, row: _Row, count: int | None) -> list[Said]:
        row.spoke = True
        if choice.finish is not None:
            row.finish, row.stop = choice.finish, choice.stop
        found = self._tokens(choice, row, count)
        row.n_tokens += len(found)
        self.n_tokens += len(found)
        return found

    def _doubts(self, why: str) -> None:
        """The first doubt is the one to tell."""
        if self._doubt is None:
            self._doubt = why

    def _counted(self, choice: Choice, row: _Row, count: int | None, data: bytes, *, begins: bool) -> int | None:
        """Tokens of a message by a count, where it can be believed: no text has more tokens than bytes."""
        found = row.counted(count, begins=begins)
        if found is None:
            return None
        most = len(data) + MOST_HELD_TOKENS
        if 0 <= found <= most:
            return found
        row.counts = False
        self._doubts(
            f"the server's count goes back by {-found} tokens"
            if found < 0
            else f"the server counts {found} tokens in a message of {len(data)} bytes"
        )
        return None

    def _tokens(self, choice: Choice, row: _Row, count: int | None) -> list[Said]:
        text, channel = _spoken(choice)
        data = text.encode()
        ids, entries = choice.ids or (), choice.entries or ()
        if entries and ids and len(entries) != len(ids):
            self._doubts(f"{len(ids)} ids and {len(entries)} log-probabilities in one message")
            entries = ()
        n_told = len(entries) or len(ids)
        n_counted = self._counted(choice, row, count, data, begins=bool(n_told or data))
        if channel == _TOOL:
            row.agreement.stop_comparing()
        if n_told:
            row.agreement.see(b"" if channel == _TOOL else data, ids, entries)
            n_left_out = self._left_out(n_told, n_counted, data)
            row.agreement.know_of(n_left_out)
            self._told["counted" if n_left_out else "exact"] += 1
            before = [Said(choice.index, None, b"", channel=channel)] * n_left_out
            return before + self._exact(choice.index, data, channel, ids, entries, row)
        if n_counted is not None and n_counted >= (1 if data else 0):
            self._told["counted"] += bool(n_counted)
            parts = [data] + [b""] * (n_counted - 1)
            return [Said(choice.index, None, part, channel=channel) for part in parts[:n_counted]]
        if not data:
            self._n_empty += choice.finish is None and not choice.has_role
            return []
        self._told["coarse"] += 1
        self._n_longer += not may_be_one_token(data)
        return [Said(choice.index, None, data, channel=channel)]

    def _left_out(self, n_told: int, n_counted: int | None, data: bytes) -> int:
        """Tokens before those of a message that the server counted and did not tell.

        llama.cpp sends nothing for a token that leaves a character unfinished, and its timings count it. Who counts in usage tells
        all tokens: a difference there is a contradiction.
        """
        if self.timings is None or n_counted is None or not n_told < n_counted <= len(data):
            return 0
        self._n_left_out += n_counted - n_told
        return n_counted - n_told

    def _exact(
        self, index: int, data: bytes, channel: int | None, ids: Sequence[int], entries: Sequence[Entry], row: _Row
    ) -> list[Said]:
        """A row a token; each with its own bytes, where those of all are known and make up the text."""
        n = len(entries) or len(ids)
        parts = _shared(data, entries, row) if entries else [data] + [b""] * (n - 1)
        found = []
        for i in range(n):
            entry = entries[i] if entries else None
            token_id = ids[i] if ids else entry.id if entry is not None else None
            self._has_ids = self._has_ids or token_id is not None
            if entry is None:
                found.append(Said(index, token_id, parts[i], channel=channel))
                continue
            self._learn(token_id, entry)
            found.append(
                Said(
                    index,
                    token_id,
                    parts[i],
                    entry.logprob,
                    rank=_rank(entry, self._n_top),
                    candidates=_candidates(entry, self._n_top),
                    channel=channel,
                )
            )
        return found

    def _learn(self, token_id: int | None, entry: Entry) -> None:
        if token_id is not None and entry.token is not None:
            self.vocabulary.learn(token_id, entry.token, entry.data)
        for text, other, _, data in entry.top:
            if other is not None and text is not None:
                self.vocabulary.learn(other, text, data)

    # -- what may be said of them --------------------------------------------------------------------------------------

    @property
    def n_completion(self) -> int | None:
        """Tokens of the answer, as the server counts them, of all choices together; None where it does not, or cannot mean it."""
        if self.usage is not None:
            found = whole(self.usage.get("completion_tokens"))
        else:
            counts = [whole(row.usage.get("completion_tokens")) for row in self.rows if row.usage is not None]
            known = [count for count in counts if count is not None]
            found = sum(known) if known and len(known) == len(self.rows) else None
        return None if found is not None and self._most_tokens is not None and found > self._most_tokens else found

    def label(self, *, whole_answer: bool) -> tuple[str | None, str | None]:
        """How much is told of the tokens, and why it is not more.

        Of an answer that is not whole the server's count is not known, or is one of what did not come.
        """
        told = [name for name, n in self._told.items() if n]
        if not told:
            return None, None
        doubts = (self._doubt, *(row.agreement.conclusion() for row in self.rows))
        doubt = next((one for one in doubts if one is not None), None)
        if doubt is not None:
            return "coarse", doubt
        n, counted = self.n_tokens, self.n_completion if whole_answer else None
        if told[-1] == "coarse":
            return self._label_of_messages(counted, told)
        if counted is not None and counted != n:
            running = all(row.counts for row in self.rows) and sum(row.n_counted for row in self.rows) == n
            if running and self.timings is not None and 0 < counted - n <= MOST_HELD_TOKENS:
                return "counted", f"the server counts {counted} tokens, the last {counted - n} of them in no message"
            if told == ["exact"]:  # what came was seen, be the count what it may
                return "counted", f"usage says {counted}, {n} {'ids' if self._has_ids else 'tokens'} came"
            return "coarse", f"the server counts {counted} tokens, and {n} came"
        return self._label_of_tokens(told)

    def _label_of_tokens(self, told: Sequence[str]) -> tuple[str, str | None]:
        """The label where every token has a row, and nothing speaks against their number."""
        if self._n_left_out:
            return "counted", f"{self._n_left_out} tokens inside characters are counted, and not told"
        if told[-1] == "counted":
            return "counted", "the tokens of a message are counted, not told"
        disputed = (row.agreement.disputed for row in self.rows)
        return "exact", next((one for one in disputed if one is not None), None)

    def _label_of_messages(self, counted: int | None, told: Sequence[str]) -> tuple[str, str]:
        """The label where a row is a message with text."""
        if len(told) > 1:
            return "coarse", "the tokens of some messages are neither told nor counted"
        if counted != self.n_tokens or self._n_empty:
            return "coarse", "the tokens of a message are neither told nor counted"
        if self._n_longer:
            return (
                "coarse",
                f"{self._n_longer} of the messages are more than a token, although there are as many as tokens",
            )
        return "counted", "as many messages with text came as tokens, and each of them may be one"


def _spoken(choice: Choice) -> tuple[str, int | None]:
    """The text that a choice adds, and what it is part of."""
    if choice.tool:
        return choice.reasoning + choice.text + choice.tool, _TOOL
    if choice.reasoning:
        return choice.reasoning + choice.text, _TEXT if choice.text else _REASONING
    return choice.text, None


def _count(message: Message) -> int | None:
    """Tokens of the choice so far, by a message that counts."""
    if message.usage is not None and len(message.choices) == 1:
        return whole(message.usage.get("completion_tokens"))
    return whole(message.timings.get("predicted_n")) if message.timings is not None else None


def _shared(data: bytes, entries: Sequence[Entry], row: _Row) -> list[bytes]:
    """The bytes of each token of a message.

    Those that the entries give, where they make up the text; a character whose bytes are spread over messages comes in the text of
    the last of them, which is then shared out too. Else the text stands with the first token.
    """
    own = [entry.data for entry in entries]
    if None not in own:
        joined = row.held + b"".join(part for part in own if part is not None)
        rest = joined[len(data) :]
        if joined.startswith(data) and _is_begun_character(rest):
            row.held = rest
            return [part or b"" for part in own]
    row.held = b""
    return [data] + [b""] * (len(entries) - 1)


def _is_begun_character(data: bytes) -> bool:
    """Whether these bytes are nothing, or the beginning of a character in UTF-8."""
    if not data:
        return True
    if len(data) > _LONGEST_HELD_BYTES:
        return False
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start == 0 and error.reason == "unexpected end of data"
    return False


def _rank(entry: Entry, n_top: int) -> int | None:
    """The rank of the token: known where fewer candidates are likelier than were asked for."""
    if entry.logprob is None or not entry.top:
        return None
    n_above = sum(logprob > entry.logprob for _, _, logprob, _ in entry.top)
    return n_above + 1 if n_above < min(n_top, len(entry.top)) else None


def _candidates(entry: Entry, n_top: int) -> tuple[tuple[int, float], ...] | None:
    """The likeliest tokens, where all of them have ids, each another one, best first."""
    found = {token_id: logprob for _, token_id, logprob, _ in entry.top if token_id is not None}
    if not found or len(found) != len(entry.top):
        return None
    return tuple(sorted(found.items(), key=lambda pair: -pair[1])[: n_top or MOST_UNASKED])
