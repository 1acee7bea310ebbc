"""Where the numbers come from: the Setting, how it was recorded, what was asked, and how to run it again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.study.times import peak
from tokentape.views.drawing import drawn_text
from tokentape.views.page.again import record_command
from tokentape.views.page.parts import Part
from tokentape.views.page.withheld import LetThrough
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import RecordedRun

__all__ = ["provenance_part"]

_GROUPS: Mapping[str, tuple[str, ...]] = {
    "model": (
        "model", "revision", "architecture", "parameters", "weights", "random_weights", "dtype", "quantization",
        "attn_implementation", "tokenizer",
    ),
    "engine": ("engine", "tokentape", "torch", "transformers", "tokenizers", "cuda", "driver", "python"),
    "machine": (
        "device", "gpu", "processor", "logical_cpus", "torch_threads", "torch_interop_threads", "float32_matmul_precision",
        "os", "hostname", "load_average",
    ),
}  # fmt: skip
"""Facts of a Setting by what they are about, in the order in which they are shown."""

_ELSEWHERE = frozenset({"clock", "config", "pid", "command", "python_executable", "model_path"})
"""Facts that are shown in another group, or say nothing to whoever reads on another machine."""

_NOTES = ("created_utc", "finished_utc", "clock", "probes", "text")

_VALUE = 600
"""Characters of one value."""

_RUNS = 20
"""Runs whose options are listed."""


def provenance_part(tape: Tape) -> Part:
    """``Provenance`` of the page's document; facts that could not be had are left out."""
    groups = [_setting(tape, name) for name in _GROUPS]
    groups += [_rest(tape), _recording(tape), *_requests(tape)]
    return {
        "groups": [group for group in groups if group["rows"]],
        "notes": [note.as_dict() for note in _notes(tape)],
        "again": record_command(tape, exact=True),
    }


def _say(key: str, **args: Any) -> Message:
    return Message(f"page_provenance.{key}", args)


def _group(title: Message, values: Iterable[tuple[str, Any]]) -> Part:
    rows = [{"name": name, "value": _text(value)} for name, value in values if value is not None and value != ""]
    return {"title": title.as_dict(), "rows": rows}


def _text(value: Any) -> str:
    """A value as it is written: texts drawn safely, numbers with separators, everything else as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    drawn = drawn_text(text)
    return drawn if len(drawn) <= _VALUE else f"{drawn[:_VALUE]}… ({len(text):,})"


def _setting(tape: Tape, name: str) -> Part:
    facts = tape.setting.facts
    return _group(_say(name), ((fact, facts.get(fact)) for fact in _GROUPS[name]))


def _rest(tape: Tape) -> Part:
    """Facts that other sources have."""
    known = _ELSEWHERE.union(*_GROUPS.values())
    facts = tape.setting.facts
    return _group(_say("other"), ((name, facts[name]) for name in sorted(facts) if name not in known))


def _recording(tape: Tape) -> Part:
    values = [
        ("fingerprint", tape.setting.fingerprint),
        *((name, tape.notes.get(name)) for name in _NOTES),
        *((name, tape.notes[name]) for name in sorted(tape.notes) if name not in (*_NOTES, "pid", "origin_unix_ns")),
        ("state", tape.state),
        ("runs", len(tape.runs)),
        ("sequences", len(tape.traces)),
        ("steps", tape.columns("step").n_rows),
    ]
    return _group(_say("recording"), values)


def _requests(tape: Tape) -> list[Part]:
    """What was asked of each run; runs that were asked alike are told together."""
    alike: dict[str, list[RecordedRun]] = {}
    for run in tape.runs:
        asked = json.dumps([dict(run.options), run.seed, [[rule.name, dict(rule.description)] for rule in run.rules]])
        alike.setdefault(asked, []).append(run)
    hidden = any(isinstance(trace, LetThrough) for trace in tape.traces)
    return [_request(runs, hidden) for runs in list(alike.values())[:_RUNS]]


def _request(runs: Sequence[RecordedRun], hidden: bool) -> Part:
    run = runs[0]
    title = _say("run", n=run.number) if len(runs) == 1 else _say("runs", n=len(runs), first=run.number)
    rules = [
        (f"{rule.number + 1}. {rule.name}", rule.handed_on if hidden else dict(rule.description)) for rule in run.rules
    ]
    return _group(title, [("seed", run.seed), *sorted(run.options.items()), *rules])


def _notes(tape: Tape) -> list[Message]:
    """What a reader has to know of what the tape does not hold."""
    notes = [_say("host_clock", clock=str(tape.notes["clock"]))] if tape.notes.get("clock") else []
    if not tape.notes.get("text", True):
        notes.append(_say("no_text"))
    timed = "distribution" not in (tape.notes.get("probes") or ["distribution"])
    if timed and not any(np.ma.count(trace.tokens["logprob"]) for trace in tape.traces):
        notes.append(_say("timing_only"))
    if tape.state != "complete":
        notes.append(_say("partial" if tape.state == "partial" else "growing"))
    if any(isinstance(trace, LetThrough) for trace in tape.traces):
        notes.append(_say("withheld"))
    if n := int(np.sum(np.asarray(tape.columns("token")["overshoot"]), dtype=np.int64)):
        notes.append(_say("overshoot", n=n))
    if lost := peak([tape.columns("step")["dropped"]]):
        notes.append(_say("window", n=lost))
    distinct = len({json.dumps([dict(run.options), run.seed, [rule.name for rule in run.rules]]) for run in tape.runs})
    if distinct > _RUNS:
        notes.append(_say("more_runs", n=distinct - _RUNS))
    return notes
