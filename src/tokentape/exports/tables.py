"""A tape as tables: runs, traces, steps, tokens, relevance, exchanges, scrapes. What the column formats are made from.

The columns of steps and tokens are the tape's own (:mod:`tokentape.data.schema`), under the same names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tokentape.data.schema import EXCHANGE_COLUMNS, STEP_COLUMNS, TOKEN_COLUMNS, Column
from tokentape.errors import UsageError
from tokentape.recorder.wordless import exchange_without_text, words_left_out

if TYPE_CHECKING:
    from tokentape.data.control import RuleHead
    from tokentape.data.exchange import Exchange, Scrape
    from tokentape.data.explanation import Explanation
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Candidates, Columns, RecordedRun, Trace

__all__ = ["Field", "Lists", "Table", "chosen_traces", "tables"]

Kind: TypeAlias = Literal["int64", "int32", "float64", "bool", "string", "text", "binary", "json", "ids", "candidates"]

_KINDS: dict[str, Kind] = {"i8": "int64", "i4": "int32", "f8": "float64"}


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table. ``text`` came from a model or a user and may hold anything; ``string`` is one of few
    words.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Lists:
    """A list for each row: ``counts`` ``[n]``, and the elements of all of them in a row, a column for each of their
    parts.
    """

    counts: npt.NDArray[np.int64]
    parts: tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """``columns`` has for each field a masked array, a list with None for null, or :class:`Lists` (no element: null).

    A ``text`` may be given as its bytes, which need not be UTF-8.
    """

    name: str
    n: int
    fields: tuple[Field, ...]
    columns: tuple[Any, ...]


def chosen_traces(tape: Tape, numbers: Sequence[int] | None) -> list[Trace]:
    """The traces asked for, all of them where ``numbers`` is None. Raises UsageError for one that is not there."""
    there = len(tape.traces)
    for number in numbers or ():
        if number not in range(there):
            fix = f"a number from 0 to {there - 1}" if there else "give another tape"
            raise UsageError(f"no sequence {number}", why=f"the tape has {there}, counted from 0", fix=fix)
    return list(tape.traces) if numbers is None else [tape.traces[number] for number in sorted(set(numbers))]


def tables(tape: Tape, traces: Sequence[Trace], *, text: bool, withheld: bool = False) -> list[Callable[[], Table]]:
    """What makes each table, one after another, so that only one need be held at a time.

    Without ``text``: no prompts, no text of tokens, no ids of either, no options or labels that hold words. Nor, unless
    ``withheld``, are there tokens of a sequence of which a guard withheld something; what it let be seen is in
    ``shown``.
    """
    silent = {trace.number for trace in traces if not text or (trace.has_withheld and not withheld)}
    heads = {trace.run.number: trace for trace in traces}
    numbers = {trace.number for trace in traces}
    makers: list[Callable[[], Table]] = [
        lambda: _runs([trace.run for trace in heads.values()], text, withheld=withheld),
        lambda: _traces(traces, text, silent),
        lambda: _steps(list(heads.values())),
        lambda: _tokens(traces, silent),
    ]
    if len(tape.explanations):
        makers.append(lambda: _relevance([one for one in tape.explanations if one.trace in numbers], silent))
    if tape.exchanges:
        makers.append(lambda: _exchanges([one for run, one in tape.exchanges.items() if run in heads], text))
    if tape.scrapes:
        makers.append(lambda: _scrapes(tape.scrapes))
    return makers


_WORDS = frozenset({"label", "fault", "stamps", "finish"})
"""Columns of exchanges that hold one of few words."""


def _exchanges(exchanges: Sequence[Exchange], text: bool) -> Table:
    """What passed with a server, a row a run."""
    told = exchanges if text else [without for one in exchanges if (without := exchange_without_text(one)) is not None]
    kinds: dict[str, Kind] = {"json": "json", "text": "text", **_KINDS}
    fields = tuple(
        Field(one.name, "string" if one.name in _WORDS else kinds[one.dtype], one.unit, one.meaning)
        for one in EXCHANGE_COLUMNS
    )
    columns: list[list[Any]] = []
    for one in EXCHANGE_COLUMNS:
        values = [getattr(passed, one.name) for passed in told]
        columns.append([None if v is None else _json(dict(v)) for v in values] if one.dtype == "json" else values)
    return Table("exchanges", len(told), fields, tuple(columns))


def _scrapes(scrapes: Sequence[Scrape]) -> Table:
    """What was read of a server and of its client, a row a value."""
    fields = (
        Field("scrape", "int64", "", "number of the reading, in the order in which they were taken"),
        Field("source", "text", "", "`server`, or `client` with the number of its process"),
        Field("began_ns", "int64", "ns", "host clock when it was asked for, since the tape's origin"),
        Field("ended_ns", "int64", "ns", "host clock when the answer was there"),
        Field("metric", "text", "", "name of what was read, with its labels"),
        Field("value", "float64", "", "what it was"),
    )
    rows = [
        (number, one.source, one.began_ns, one.ended_ns, name, _double(value))
        for number, one in enumerate(scrapes)
        for name, value in one.values.items()
    ]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in fields]
    return Table("scrapes", len(rows), fields, tuple(columns))


def _double(value: float) -> float | None:
    """A number as a double; None where none can hold it."""
    try:
        return float(value)
    except OverflowError:
        return None


def _runs(runs: Sequence[RecordedRun], text: bool, *, withheld: bool) -> Table:
    fields = (
        Field("run", "int64", "", "number of the run"),
        Field("start_ns", "int64", "ns", "host clock when the request was handed over, since the tape's origin"),
        Field("seed", "int64", "", "seed of the random generators; null where none was asked for"),
        Field("n_traces", "int64", "sequences", "sequences in the batch"),
        Field("finished", "bool", "", "whether the run has ended"),
        Field("options", "json", "", "generation options that held"),
        Field("rules", "json", "", "what stood between the model's logits and the choice, in order"),
    )
    options = [dict(run.options) if text else words_left_out(run.options) for run in runs]
    rules = [[{**asdict(rule), "description": _described(rule, text, withheld)} for rule in run.rules] for run in runs]
    columns = (
        [run.number for run in runs],
        [run.start_ns for run in runs],
        [run.seed for run in runs],
        [run.n_traces for run in runs],
        [run.finished for run in runs],
        [_json(one) for one in options],
        [_json(one) for one in rules],
    )
    return Table("runs", len(runs), fields, columns)


def _described(rule: RuleHead, text: bool, withheld: bool) -> dict[str, Any]:
    return {} if not text else dict(rule.description) if withheld else rule.handed_on


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _traces(traces: Sequence[Trace], text: bool, silent: Set[int]) -> Table:
    fields = (
        Field("trace", "int64", "", "number of the trace"),
        Field("run", "int64", "", "number of its run"),
        Field("row", "int64", "", "its row in the run's batch"),
        Field("n_prompt", "int64", "tokens", "tokens of the prompt, padding excluded"),
        Field("n_tokens", "int64", "tokens", "tokens that followed, overshoot excluded"),
        Field("finish_reason", "string", "", "why it ended; null where recording stopped before"),
        Field("prompt_text", "text", "", "the prompt"),
        Field("prompt_ids", "ids", "", "vocabulary ids of the prompt, without padding"),
        Field("text", "text", "", "what followed, with U+FFFD for bytes that are no UTF-8"),
        Field("shown", "text", "", "the same as a guard let it be seen"),
    )
    ids = [trace.prompt_ids if text else None for trace in traces]
    columns = (
        [trace.number for trace in traces],
        [trace.run.number for trace in traces],
        [trace.row for trace in traces],
        [trace.n_prompt for trace in traces],
        [trace.tokens.n_rows for trace in traces],
        [trace.finish_reason for trace in traces],
        [trace.prompt_text if text else None for trace in traces],
        [None if one is None else one.tolist() for one in ids],
        [None if trace.number in silent else trace.text for trace in traces],
        [trace.shown if text else None for trace in traces],
    )
    return Table("traces", len(traces), fields, columns)


def _field(column: Column) -> Field:
    kind: Kind = "string" if column.choices else "bool" if column.unit == "bool" else _KINDS[column.dtype]
    return Field(column.name, kind, "" if kind == "bool" else column.unit, column.meaning)


def _owned(series: Sequence[Column], owners: Sequence[int], parts: Sequence[Columns]) -> tuple[int, list[Any]]:
    """Rows of several owners as one: how many, the number of the owner of each, and every column."""
    lengths = [part.n_rows for part in parts]
    columns: list[Any] = [np.ma.asarray(np.repeat(np.array(owners, np.int64), lengths))]
    for column in series:
        joined = np.ma.concatenate([np.ma.empty(0, column.dtype), *(part[column.name] for part in parts)])
        if column.choices:
            columns.append([None if value is None else column.label(value) for value in joined.tolist()])
        else:
            columns.append(joined.astype(np.bool_) if column.unit == "bool" else joined)
    return sum(lengths), columns


def _steps(heads: Sequence[Trace]) -> Table:
    """The steps of the runs of ``heads``, one trace for each run."""
    n, columns = _owned(STEP_COLUMNS, [head.run.number for head in heads], [head.steps for head in heads])
    fields = (Field("run", "int64", "", "number of the run"), *map(_field, STEP_COLUMNS))
    return Table("steps", n, fields, tuple(columns))


def _tokens(traces: Sequence[Trace], silent: Set[int]) -> Table:
    parts = [(trace.number, part) for trace in traces for part in trace.loader.symbols(trace.number)]
    owners = [number for number, _ in parts]
    n, columns = _owned(TOKEN_COLUMNS, owners, [part.columns for _, part in parts])
    raw = [None if number in silent else data for number, part in parts for data in part.bytes]
    found = _candidates([(part.candidates, number in silent) for number, part in parts])
    hidden = np.isin(columns[0].data, list(silent))
    for place, column in enumerate(TOKEN_COLUMNS, 1):
        if column.name in ("id", "wanted"):
            values = columns[place]
            columns[place] = np.ma.MaskedArray(values.data, np.ma.getmaskarray(values) | hidden)
    fields = (
        Field("trace", "int64", "", "number of the trace"),
        *map(_field, TOKEN_COLUMNS),
        Field("text", "text", "", "the token's text; null where no text was kept"),
        Field("bytes", "binary", "", "the token's bytes; null where no text was kept"),
        Field("candidates", "candidates", "nats", "the best tokens of the model's own distribution, best first"),
    )
    return Table("tokens", n, fields, (*columns, raw, raw, found))


def _candidates(parts: Sequence[tuple[Candidates, bool]]) -> Lists:
    """The candidates of several traces; none of those that are to be silent."""
    there = [~np.ma.getmaskarray(part.ids) & (not silent) for part, silent in parts]
    counts = [some.sum(1, dtype=np.int64) for some in there]
    ids = [part.ids.data[some] for (part, _), some in zip(parts, there, strict=True)]
    logprob = [part.logprob.data[some] for (part, _), some in zip(parts, there, strict=True)]
    none = np.empty(0, np.int64)
    return Lists(
        np.concatenate([none, *counts]),
        (np.concatenate([none.astype(np.int32), *ids]), np.concatenate([none.astype(np.float32), *logprob])),
    )


def _relevance(explanations: Sequence[Explanation], silent: Set[int]) -> Table:
    """A row for each source of each row of each explanation."""
    fields = (
        Field("explanation", "int64", "", "number of the explanation"),
        Field("trace", "int64", "", "number of the trace"),
        Field("method", "string", "", "name of the method"),
        Field("quantity", "string", "", "what is explained: logit (less the vocabulary's mean), foil (less the foil's), logprob"),
        Field("target", "int64", "positions", "position of the target; null where targets are explained together"),
        Field("value", "float64", "", "what is explained, as the replay computed it: logits, or nats for logprob"),
        Field("source_start", "int64", "positions", "first position of the source"),
        Field("source_stop", "int64", "positions", "first position after it"),
        Field("source_kind", "string", "", "token, word, sentence or part"),
        Field("label", "text", "", "text of the source"),
        Field("relevance", "float64", "", "its part in the value, in the same unit; null where the target cannot see it"),
        Field("replay_check_passed", "bool", "", "whether the replay computed what was recorded"),
    )  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for one in explanations:
        targets = [None] if one.together else one.targets.tolist()
        for target, value, parts in zip(targets, one.value.tolist(), one.relevance.tolist(), strict=True):
            head = (one.number, one.trace, one.method, one.kind, target, value)
            rows += [
                (*head, s.start, s.stop, s.kind, None if one.trace in silent else s.label, part, one.check.passed)
                for s, part in zip(one.sources, parts, strict=True)
            ]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in fields]
    return Table("relevance", len(rows), fields, tuple(columns))
