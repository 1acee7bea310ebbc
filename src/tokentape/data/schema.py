"""Every column of a tape: name, dtype, unit, meaning. One list, from which tables, arrays and the reference page are made.

A tape has two series: *steps* (the time axis, one row per forward pass or network chunk) and *tokens* (the symbol axis, one
row per token, pointing at its step). A column that a source cannot fill is null, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "APPLICATION_ID",
    "CANDIDATE_COLUMNS",
    "CHANNELS",
    "CONTROLLED_SINCE",
    "EFFECT_COLUMNS",
    "EXCHANGE_COLUMNS",
    "EXPLAINED_SINCE",
    "GROWN_SINCE",
    "KINDS",
    "LAID_OUT_SINCE",
    "READ_SINCE",
    "SCHEMA_VERSION",
    "SERIES",
    "SERVED_SINCE",
    "STEP_COLUMNS",
    "TOKEN_COLUMNS",
    "Column",
]

APPLICATION_ID = 0x746F6B74
"""``tokt`` in the SQLite header, so that ``file`` and ``verify`` know a tape from any other database."""

SCHEMA_VERSION = 6
"""``PRAGMA user_version`` of the tapes that this version writes."""

LAID_OUT_SINCE = 6
"""The schema version since which steps and tokens have the columns, packs and blocks that they have now: to be raised with the
schema version when a column of theirs is added, at their end, and only then. In an older tape they lack the later columns."""

GROWN_SINCE = 2
"""The schema version since which a tape grows by blocks."""

EXPLAINED_SINCE = 3
"""The schema version since which a tape can hold explanations."""

CONTROLLED_SINCE = 4
"""The schema version since which a tape can say what rules did."""

READ_SINCE = 5
"""The schema version since which a tape can hold readings: attention, lens, direct attribution."""

SERVED_SINCE = 6
"""The schema version since which a tape can say what passed between a client and a server."""

CHANNELS = ("text", "reasoning", "tool")
"""What a token is part of: the answer, the reasoning before it, a call of a tool."""

KINDS = ("prefill", "decode", "chunk")
"""Kinds of step: reading the prompt, one forward pass after it, one message of a served stream."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a series.

    ``dtype`` is a numpy dtype string, or ``text``, ``json``, ``blob``; ``nullable`` columns may be unavailable in a row. ``choices`` makes an enumeration: the
    file and the array hold the index, the file's ``<name>_name`` column and :meth:`label` the word. ``since`` is the first schema version that
    has the column.
    """

    name: str
    dtype: str
    unit: str
    meaning: str
    nullable: bool = True
    choices: tuple[str, ...] = ()
    since: int = 1

    @property
    def sql_type(self) -> str:
        """The SQLite storage class of the column."""
        if self.dtype in ("text", "json"):
            return "TEXT"
        if self.dtype == "blob":
            return "BLOB"
        return "REAL" if self.dtype.startswith("f") else "INTEGER"

    def label(self, value: int) -> str:
        """The word for a value of an enumeration: ``label(1)`` of the kinds of step is ``"decode"``."""
        return self.choices[value]


STEP_COLUMNS: tuple[Column, ...] = (
    Column("index", "i8", "", "position of the step in its run, from 0", nullable=False),
    Column("kind", "u1", "", "what the step did", nullable=False, choices=KINDS),
    Column("batch", "i4", "sequences", "sequences in the forward pass, finished ones included", nullable=False),
    Column("context", "i8", "positions", "length of the sequences after the step has read its input, padding included"),
    Column("n_in", "i8", "tokens", "tokens given to the forward pass, all sequences together, padding included"),
    Column("n_out", "i4", "tokens", "tokens that the step added to the tape, all sequences together", nullable=False),
    Column("start_ns", "i8", "ns", "host clock at the start of the step, since the tape's origin", nullable=False),
    Column(
        "end_ns",
        "i8",
        "ns",
        "host clock when the step's tokens were known, since the tape's origin; of a chunk, when its last byte had come",
        nullable=False,
    ),
    Column("forward_ns", "i8", "ns", "host time of the forward call alone; on a GPU only its launch"),
    Column(
        "device_ns", "i8", "ns", "device time of the step between two events in its stream; null without a device clock"
    ),
    Column(
        "cpu_ns",
        "i8",
        "ns",
        "CPU time of the loop's thread since the reading before (at first: since the run began); short steps share one",
    ),
    Column("switches", "i4", "", "involuntary context switches of that thread in the same time; null between readings"),
    Column("gc_count", "i4", "", "Python garbage collections that ended since the step before"),
    Column("gc_ns", "i8", "ns", "time in those collections"),
    Column("cache_bytes", "i8", "bytes", "key-value cache and recurrent state after the step; null between readings"),
    Column("rss_bytes", "i8", "bytes", "resident memory of the process after the step; null between readings"),
    Column("device_bytes", "i8", "bytes", "memory allocated on the device after the step; null between readings"),
    Column("rules_ns", "i8", "ns", "host time of the rules, beside the forward call; null where no rule ran", since=4),
    Column(
        "dropped",
        "i8",
        "positions",
        "positions that the cache no longer holds after the step; null without a window",
        since=4,
    ),
    Column(
        "read_ns",
        "i8",
        "ns",
        "host clock when the read of the socket returned that completed the message, since the tape's origin; null in this process",
        since=6,
    ),
    Column("parsed_ns", "i8", "ns", "host clock when the message had been understood; null likewise", since=6),
)

TOKEN_COLUMNS: tuple[Column, ...] = (
    Column("position", "i8", "positions", "index in the sequence, prompt included and padding not", nullable=False),
    Column("step", "i8", "", "index of the step that gave the token", nullable=False),
    Column("id", "i8", "", "vocabulary id; null where a source gives text alone"),
    Column("logprob", "f8", "nats", "log-probability under the model's own distribution, before any rule"),
    Column("entropy", "f8", "nats", "entropy of the model's own distribution"),
    Column("rank", "i4", "", "rank in the model's own distribution, 1 = most likely; ties share the best rank"),
    Column("rules_logprob", "f8", "nats", "log-probability after the rules (temperature, filters, penalties, grammar); null without rules"),
    Column("forced", "u1", "bool", "1 if a rule gave the token rather than a choice from the distribution", nullable=False),
    Column("overshoot", "u1", "bool", "1 if computed after the end of the sequence had been reached, hence not part of its text", nullable=False),
    Column("wanted", "i8", "", "id that the same draw would have chosen without grammar, guidance and guard; null where none of them ran, or where it is not known", since=4),
    Column("allowed", "i4", "tokens", "tokens that the rules left, of the vocabulary; null where none of them was measured", since=4),
    Column("removed", "f8", "nats", "-ln of the probability that each rule in turn left to the tokens it allowed, summed over the rules; null likewise", since=4),
    Column("channel", "u1", "", "what the token is part of; null where there is the text alone", choices=CHANNELS, since=6),
)  # fmt: skip

CANDIDATE_COLUMNS: tuple[Column, ...] = (
    Column("id", "i4", "", "vocabulary id of a candidate", nullable=False),
    Column("logprob", "f4", "nats", "its log-probability under the model's own distribution", nullable=False),
)

EFFECT_COLUMNS: tuple[Column, ...] = (
    Column("position", "i8", "positions", "position of the token that was being chosen", nullable=False),
    Column("rule", "i4", "", "number of the rule in its run", nullable=False),
    Column("allowed", "i4", "tokens", "tokens that are possible after the rule"),
    Column("removed", "f8", "nats", "-ln Z: Z is the probability, just before the rule, of the tokens that it left possible"),
    Column("divergence", "f8", "nats", "Kullback-Leibler divergence of the distribution after the rule from the one before it"),
    Column("rule_ns", "i8", "ns", "host time of the rule, all sequences together; null where it was not called for this token"),
)  # fmt: skip
"""What one rule did to the choice of one token."""

EXCHANGE_COLUMNS: tuple[Column, ...] = (
    Column("run", "i8", "", "number of the run", nullable=False),
    Column("scheduled_ns", "i8", "ns", "when the request was due, since the tape's origin, and for one that is sent again when the first attempt was; null where it was sent as soon as it could be"),
    Column("connect_ns", "i8", "ns", "when connecting began; null on a connection that was open already"),
    Column("connected_ns", "i8", "ns", "when the connection could be written to, TLS included; null likewise"),
    Column("sent_ns", "i8", "ns", "just before the call that handed the last byte of the request to the socket; null where it was never all taken"),
    Column("first_byte_ns", "i8", "ns", "when the first byte of the answer had come, of its headers"),
    Column("ended_ns", "i8", "ns", "when the answer was over: its last byte, or what cut it off"),
    Column("status", "i8", "", "HTTP status; null where there was no answer"),
    Column("attempt", "i8", "", "1, or more for a request that was sent again", nullable=False),
    Column("retry_of", "i8", "", "number of the run whose request this one repeats"),
    Column("label", "text", "", "`exact` (each token is told), `counted` (the tokens of each chunk are counted), `coarse` (they are not), `ends` (of the chunks only the first and the last are known); null where no chunk came"),
    Column("fault", "text", "", "what went wrong, by its name; null where nothing did"),
    Column("error", "text", "", "the same in the words of the server or the system"),
    Column("stamps", "text", "", "who stamped the bytes: `kernel`, or `read`, the process that read them; null where none came"),
    Column("finish", "text", "", "`finish_reason` as the server gave it"),
    Column("model", "text", "", "the model that the server says answered"),
    Column("request_id", "text", "", "the server's name for the request"),
    Column("n_prompt", "i8", "tokens", "tokens of the prompt, as the server counts them"),
    Column("n_completion", "i8", "tokens", "tokens of the answer, as the server counts them, of all its choices together"),
    Column("n_reasoning", "i8", "tokens", "those of them that were reasoning, likewise"),
    Column("n_cached", "i8", "tokens", "tokens of the prompt that the server had in its cache, likewise"),
    Column("usage", "json", "", "what the server says of its tokens, as it came"),
    Column("server", "json", "", "what the server says of its own time and state, as it came"),
    Column("process", "i8", "", "number of the client's process"),
    Column("conversation", "text", "", "name of the conversation that the request is part of"),
    Column("turn", "i8", "", "number of its turn in it, from 0"),
)  # fmt: skip
"""What passed between a client and a server: one row a run."""

SERIES: dict[str, tuple[Column, ...]] = {"step": STEP_COLUMNS, "token": TOKEN_COLUMNS}
"""The two series by the name of their table."""
