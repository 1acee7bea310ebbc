"""A tape as plain values, for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.data.control_rows import effect_columns
from tokentape.data.schema import KINDS
from tokentape.study.control import control_summary
from tokentape.study.metrics import summary
from tokentape.study.served import is_served
from tokentape.study.served_summary import served_summary
from tokentape.study.times import runs_of
from tokentape.views.shape import plain_columns

if TYPE_CHECKING:
    from tokentape.data.exchange import Exchange, Scrape
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["tape_document", "trace_heads"]

DEEPEST = 64
"""Values that a server nested deeper are not told: no writer of JSON is sure to bear them."""

LEFT_OUT = "..."

FEW = 4
"""Of more traces the tokens are read in one go."""


def tape_document(tape: Tape, *, traces: Sequence[int] | None = None) -> dict[str, Any]:
    """Everything on a tape: setting, notes, figures, and each trace with its columns; null where unavailable."""
    groups = runs_of(tape)
    chosen = [trace for group in groups for trace in group if traces is None or trace.number in traces]
    steps = _Laid.of(tape, "step")
    tokens = _Laid.of(tape, "token") if len(chosen) > FEW else None
    return {
        "tape": None if tape.path is None else str(tape.path),
        "state": tape.state,
        "notes": _shallow(tape.notes, DEEPEST),
        "setting": _shallow(tape.setting.facts, DEEPEST),
        "fingerprint": tape.setting.fingerprint,
        "summary": summary(tape, groups).as_dict(),
        "control": None if (control := control_summary(tape)) is None else control.as_dict(),
        "runs": [
            {
                "number": run.number,
                "start_ns": run.start_ns,
                "options": _shallow(run.options, DEEPEST),
                "seed": run.seed,
                "rules": [asdict(rule) for rule in run.rules],
                "steps": _steps(steps.of_owner(run.number)),
            }
            for run in (group[0].run for group in groups)
        ],
        **_served(tape),
        "traces": [{**_head(trace), **_body(trace, tokens)} for trace in chosen],
    }


@dataclass(frozen=True, slots=True)
class _Laid:
    """The columns of a series of a whole tape as lists, from which those of a run or a trace are cut: of thousands of short ones
    numpy takes longer for each than for its values.
    """

    columns: Mapping[str, list[Any]]
    places: Mapping[int, slice]

    @classmethod
    def of(cls, tape: Tape, series: str) -> _Laid:
        whole = tape.columns(series)
        owner = next(iter(whole))
        numbers = np.asarray(whole[owner])
        known, first = np.unique(numbers, return_index=True)
        ends = [*first[1:].tolist(), len(numbers)]
        places = {n: slice(a, b) for n, a, b in zip(known.tolist(), first.tolist(), ends, strict=True)}
        return cls(plain_columns({name: whole[name] for name in whole if name != owner}), places)

    def of_owner(self, number: int) -> dict[str, list[Any]]:
        place = self.places.get(number, slice(0, 0))
        return {name: values[place] for name, values in self.columns.items()}


def trace_heads(tape: Tape) -> list[dict[str, Any]]:
    """What each trace was asked and what it said; where a guard watched, only what may be shown of it."""
    unsaid = {"text": None, "token_ids": None}
    return [{**_head(trace), **(unsaid if trace.guarded else {})} for trace in tape.traces]


def _served(tape: Tape) -> dict[str, Any]:
    """What passed with a server, and what was read of it; nothing where none was asked."""
    if not is_served(tape):
        return {}
    return {
        "served": served_summary(tape).as_dict(),
        "exchanges": [_fields(one) for one in tape.exchanges.values()],
        "scrapes": [_fields(one) for one in tape.scrapes],
    }


def _fields(one: Exchange | Scrape) -> dict[str, Any]:
    """The fields as plain values; what a server nested deeper than :data:`DEEPEST` is left out, and said to be."""
    return {field.name: _shallow(getattr(one, field.name), DEEPEST) for field in fields(one)}


def _shallow(value: Any, left: int) -> Any:
    if not isinstance(value, Mapping | list | tuple):
        return value
    if not left:
        return LEFT_OUT
    if isinstance(value, Mapping):
        return {str(name): _shallow(inner, left - 1) for name, inner in value.items()}
    return [_shallow(inner, left - 1) for inner in value]


def _steps(plain: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The columns of the steps, with the names of their kinds."""
    return {**plain, "kind_name": [KINDS[kind] if 0 <= kind < len(KINDS) else None for kind in plain["kind"]]}


def _head(trace: Trace) -> dict[str, Any]:
    return {
        "number": trace.number,
        "run": trace.run.number,
        "row": trace.row,
        "prompt_text": trace.prompt_text,
        "prompt_ids": None if trace.prompt_ids is None else trace.prompt_ids.tolist(),
        "text": trace.text,
        "token_ids": trace.tokens["id"].tolist(),
        "finish_reason": trace.finish_reason,
        **_control(trace),
    }


def _control(trace: Trace) -> dict[str, Any]:
    """How the constraints ended and what guards decided; nothing where no rule was measured."""
    if not trace.run.rules:
        return {}
    return {
        "shown": trace.shown,
        "outcomes": [asdict(one) for one in trace.outcomes],
        "decisions": [asdict(one) for one in trace.decisions],
    }


def _body(trace: Trace, laid: _Laid | None) -> dict[str, Any]:
    """``laid`` are the tokens of the whole tape, where many of its traces are told."""
    if laid is None:
        tokens, overshoot = plain_columns(trace.tokens), plain_columns(trace.overshoot)
    else:
        tokens, overshoot = _parted(laid.of_owner(trace.number))
    return {
        "tokens": tokens,
        "token_bytes_hex": [None if data is None else data.hex() for data in trace.token_bytes],
        "candidates": _candidates(trace),
        "overshoot": overshoot,
        "effects": plain_columns(trace.effects) if trace.run.rules else {name: [] for name in _no_effects()},
    }


@cache
def _no_effects() -> tuple[str, ...]:
    """The names of what a rule did, where none did anything."""
    return tuple(effect_columns(()))


def _candidates(trace: Trace) -> list[list[list[Any]]]:
    """The best tokens at each position, with their log-probabilities."""
    found = trace.candidates
    if not found.ids.shape[1]:
        return [[] for _ in range(len(found.ids))]
    pairs = zip(found.ids.tolist(), found.logprob.tolist(), strict=True)
    return [[[i, p] for i, p in zip(ids, ps, strict=True) if i is not None] for ids, ps in pairs]


def _parted(columns: dict[str, list[Any]]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Tokens of a trace, and those past its end."""
    past = columns["overshoot"]
    if not any(past):
        return columns, {name: [] for name in columns}
    kept = {name: list(compress(values, [not one for one in past])) for name, values in columns.items()}
    return kept, {name: list(compress(values, past)) for name, values in columns.items()}
