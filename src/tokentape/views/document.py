"""A tape as plain values, for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from tokentape.data.schema import KINDS
from tokentape.study.control import control_summary
from tokentape.study.metrics import summary
from tokentape.study.served import is_served
from tokentape.study.served_summary import served_summary
from tokentape.views.shape import plain_columns

if TYPE_CHECKING:
    from tokentape.data.exchange import Exchange, Scrape
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["tape_document", "trace_heads"]

DEEPEST = 64
"""Values that a server nested deeper are not told: no writer of JSON is sure to bear them."""

LEFT_OUT = "..."


def tape_document(tape: Tape, *, traces: Sequence[int] | None = None) -> dict[str, Any]:
    """Everything on a tape: setting, notes, figures, and each trace with its columns; null where unavailable."""
    chosen = [trace for trace in tape.traces if traces is None or trace.number in traces]
    return {
        "tape": None if tape.path is None else str(tape.path),
        "state": tape.state,
        "notes": _shallow(tape.notes, DEEPEST),
        "setting": _shallow(tape.setting.facts, DEEPEST),
        "fingerprint": tape.setting.fingerprint,
        "summary": summary(tape).as_dict(),
        "control": None if (control := control_summary(tape)) is None else control.as_dict(),
        "runs": [
            {
                "number": run.number,
                "start_ns": run.start_ns,
                "options": _shallow(run.options, DEEPEST),
                "seed": run.seed,
                "rules": [asdict(rule) for rule in run.rules],
                "steps": _steps(tape_steps),
            }
            for run, tape_steps in _runs(tape)
        ],
        **_served(tape),
        "traces": [{**_head(trace), **_body(trace)} for trace in chosen],
    }


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


def _steps(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the steps, with the names of their kinds."""
    plain = plain_columns(columns)
    return {**plain, "kind_name": [KINDS[kind] if 0 <= kind < len(KINDS) else None for kind in plain["kind"]]}


def _runs(tape: Tape) -> list[tuple[Any, Any]]:
    steps = {trace.run.number: trace.steps for trace in tape.traces}
    return [(run, steps[run.number]) for run in tape.runs if run.number in steps]


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


def _body(trace: Trace) -> dict[str, Any]:
    found = trace.candidates
    pairs = zip(found.ids.tolist(), found.logprob.tolist(), strict=True)
    return {
        "tokens": plain_columns(trace.tokens),
        "token_bytes_hex": [None if data is None else data.hex() for data in trace.token_bytes],
        "candidates": [[[i, p] for i, p in zip(ids, ps, strict=True) if i is not None] for ids, ps in pairs],
        "overshoot": plain_columns(trace.overshoot),
        "effects": plain_columns(trace.effects),
    }
