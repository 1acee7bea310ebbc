"""Whether two tapes may be compared: what differs in their Settings and in what was asked, and which of it follows from what.

A difference in time has one meaning only where one thing differs. So all that differs is refused, but for what is named as the
question, and for what cannot be otherwise then: another model has other weights.
"""

from __future__ import annotations

import difflib
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokentape.errors import NotComparable, UsageError

if TYPE_CHECKING:
    from tokentape.data.control import RuleHead
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = [
    "FOLLOWS",
    "GROUPS",
    "Difference",
    "check_comparable",
    "differences",
    "load_differences",
    "paired_traces",
    "told_loads",
    "told_plan",
]

_MACHINE = (
    "processor",
    "logical_cpus",
    "torch_threads",
    "torch_interop_threads",
    "os",
    "device",
    "gpu",
    "cuda",
    "driver",
)
_SOFTWARE = ("python", "torch", "transformers", "tokenizers", "tokentape", "cuda", "driver", "os")
_ENDS = ("eos_token_id", "pad_token_id", "bos_token_id", "forced_bos_token_id", "forced_eos_token_id")

GROUPS: Mapping[str, tuple[str, ...]] = {
    "machine": _MACHINE,
    "software": _SOFTWARE,
    "threads": ("torch_threads", "torch_interop_threads"),
    "options": (),
}
"""Names for several facts at once; ``options`` stands for every option of the generation and its seed, ``any`` for everything."""

FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "model": (
        "weights",
        "architecture",
        "parameters",
        "tokenizer",
        "revision",
        "random_weights",
        "quantization",
        "attn_implementation",
        *_ENDS,
    ),
    "architecture": ("weights", "parameters", "attn_implementation"),
    "revision": ("weights", "tokenizer", "architecture", "parameters"),
    "random_weights": ("weights",),
    "weights": ("random_weights", "revision"),
    "parameters": ("weights",),
    "tokenizer": _ENDS,
    "dtype": ("weights",),
    "quantization": ("weights", "dtype", "parameters"),
    "device": ("gpu", "cuda", "driver", "torch"),
    "gpu": ("driver", "cuda", "device"),
    "cuda": ("torch", "driver"),
    "torch": ("cuda",),
    "transformers": ("tokenizers",),
    "engine": (
        "torch",
        "transformers",
        "tokenizers",
        "python",
        "attn_implementation",
        "architecture",
        "parameters",
        "weights",
        "tokenizer",
        "dtype",
        "quantization",
        "random_weights",
        "float32_matmul_precision",
        "torch_threads",
        "torch_interop_threads",
        "clock",
    ),
    "processor": ("logical_cpus", "os"),
    "do_sample": ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed"),
    "max_new_tokens": ("max_length",),
    "max_length": ("max_new_tokens",),
}
"""What comes with a difference that is the question: the hash of the weights covers their dtype, a GPU brings its driver."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between A and B. ``kind`` is ``"setting"``, ``"option"``, ``"prompt"`` or ``"load"``.

    ``because`` is None for a difference that is refused, ``"asked"`` for the question itself, else the name of what it follows
    from.
    """

    name: str
    kind: str
    a: Any
    b: Any
    because: str | None = None


def differences(a: Tape, b: Tape, across: Iterable[str] = ()) -> list[Difference]:
    """All that differs, and what of it the question ``across`` covers. Raises UsageError for a name that neither tape has."""
    found = [Difference(name, "setting", *pair) for name, pair in a.setting.differences(b.setting).items()]
    found += _options(a, b)
    found += _rules(a, b)
    found += _prompts(a, b)
    allowed = _allowed([name.strip() for name in across if name.strip()], a, b, found)
    return [Difference(d.name, d.kind, d.a, d.b, allowed.get(d.name, allowed.get("any"))) for d in found]


_FOUND_OUT = (
    "calibrated",
    "tokens_a_word",
    "overhead_tokens",
    "arrivals",
    "exact_lengths",
    "server_metrics",
    "prompts",
)
"""What a load found out of a server, and was not told; and the arrivals that were asked for, of which ``kind`` says what came."""

_OFFERED = ("loop", "kind", "rate", "concurrency")


def load_differences(a: Tape, b: Tape) -> list[Difference]:
    """What two loads were told to do differently, such as their rates; of one load alone, what the other tape has nothing of.

    It is refused nowhere, since a server may be asked just how it bears another load; but times under different loads
    are none of different servers.
    """
    first, second = told_plan(a), told_plan(b)
    chosen = [name for name in {**first, **second} if (first and second) or name in _OFFERED]
    return [
        Difference(name, "load", first.get(name), second.get(name), "asked")
        for name in chosen
        if first.get(name) != second.get(name)
    ]


def told_plan(tape: Tape) -> dict[str, Any]:
    """What a load was told to do, without what it found out of the server; empty for a tape of none."""
    plan = tape.notes.get("load")
    return {n: value for n, value in plan.items() if n not in _FOUND_OUT} if isinstance(plan, Mapping) else {}


def told_loads(found: Sequence[Difference]) -> str:
    """Those differences in a line: ``rate 4 | 2; duration 60 s | 30 s``."""
    return "; ".join(
        f"{d.name.removesuffix('_ns')} {_load_value(d.name, d.a)} | {_load_value(d.name, d.b)}" for d in found
    )


def _load_value(name: str, value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value / 1e9:g} s" if name.endswith("_ns") else f"{value:g}"
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_comparable(a: Tape, b: Tape, found: Sequence[Difference]) -> None:
    """Raise NotComparable where something differs that is no part of the question."""
    refused = [d for d in found if d.because is None]
    if not refused:
        return
    named = _least([d.name for d in found if d.because is None])
    asked = [d.name for d in found if d.because == "asked"]
    paths = [str(tape.path) if tape.path else name for tape, name in ((a, "A"), (b, "B"))]
    raise NotComparable(
        f"A and B differ in {'; '.join(_told(d) for d in refused)}",
        why="a difference in time or text between them could come from any of these",
        fix=f"record both alike; or, if that is the question: tokentape compare {' '.join(paths)} "
        f"--across {','.join([*asked, *named])}",
    )


def _told(d: Difference) -> str:
    def short(value: Any) -> str:
        text = "none" if value is None else str(value)
        return text if len(text) <= 60 else f"{text[:57]}..."

    return f"{d.name} ({short(d.a)} | {short(d.b)})"


def _least(names: Sequence[str]) -> list[str]:
    """The fewest of the names from which the others follow, as nearly as can be told."""
    return [
        name
        for i, name in enumerate(names)
        if not any(
            name in FOLLOWS.get(other, ()) and (other not in FOLLOWS.get(name, ()) or j < i)
            for j, other in enumerate(names)
            if other != name
        )
    ]


def _allowed(across: Sequence[str], a: Tape, b: Tape, found: Sequence[Difference]) -> dict[str, str]:
    allowed: dict[str, str] = {}
    for asked in across:
        name = asked.replace("-", "_")
        if name == "any":
            return {**allowed, "any": "asked"}
        members = (
            [d.name for d in found if d.kind == "option"] if name == "options" else list(GROUPS.get(name, (name,)))
        )
        if name not in GROUPS:
            _check_known(name, a, b, found)
        for member in members:
            allowed[member] = "asked"
            for follower in FOLLOWS.get(member, ()):
                allowed.setdefault(follower, member)
    return allowed


def _check_known(name: str, a: Tape, b: Tape, found: Sequence[Difference]) -> None:
    options = {option for tape in (a, b) for run in tape.runs[:1] for option in run.options}
    there = {*a.setting.compared, *b.setting.compared, *options, *(d.name for d in found), "prompt", "seed"}
    if name in there:
        return
    near = difflib.get_close_matches(name, [*there, *GROUPS, "any"], n=3)
    differ = ", ".join(d.name for d in found) or "nothing"
    raise UsageError(
        f"--across {name}: no such fact or option on these tapes",
        why=f"they differ in {differ}",
        fix=f"did you mean {' or '.join(near)}" if near else f"one of what differs, {', '.join(GROUPS)}, or any",
    )


def _options(a: Tape, b: Tape) -> list[Difference]:
    """Generation options and seeds, of the first runs with the same prompt that differ in one."""
    found: dict[str, Difference] = {}
    seen: set[tuple[int, int]] = set()
    for mine, theirs in paired_traces(a, b):
        if (mine.run.number, theirs.run.number) in seen:
            continue
        seen.add((mine.run.number, theirs.run.number))
        options = [{**trace.run.options, "seed": trace.run.seed} for trace in (mine, theirs)]
        for name in sorted(options[0].keys() | options[1].keys()):
            pair = (options[0].get(name), options[1].get(name))
            if pair[0] != pair[1]:
                found.setdefault(name, Difference(name, "option", *pair))
    return list(found.values())


def _rules(a: Tape, b: Tape) -> list[Difference]:
    """What stood between the logits and the choice, as one difference."""
    mine, theirs = ([[_ruled(rule) for rule in run.rules] for run in tape.runs] for tape in (a, b))
    if all(one in theirs for one in mine) and all(one in mine for one in theirs):
        return []
    return [Difference("rules", "option", *(_named(tape) for tape in (a, b)))]


def _ruled(rule: RuleHead) -> tuple[str, str]:
    return rule.name, json.dumps(rule.description, sort_keys=True, default=str)


def _named(tape: Tape) -> str | None:
    return ", ".join(dict.fromkeys(rule.name for run in tape.runs for rule in run.rules)) or None


def _prompts(a: Tape, b: Tape) -> list[Difference]:
    """The first prompts that one has and the other has not."""
    key = _key_of_prompts(a, b)
    keys = [[(key(trace), trace) for trace in tape.traces] for tape in (a, b)]
    known = [{one for one, _ in side} for side in keys]
    only = [
        next((trace for one, trace in side if one not in other), None)
        for side, other in zip(keys, reversed(known), strict=True)
    ]
    if only == [None, None]:
        return []
    return [Difference("prompt", "prompt", *(None if trace is None else _shown(trace) for trace in only))]


def _key_of_prompts(a: Tape, b: Tape) -> Callable[[Trace], object]:
    """What prompts are known by on both tapes: text, ids (which another tokenizer gives otherwise), or only how long they are."""
    traces = [*a.traces, *b.traces]
    if all(trace.prompt_text is not None for trace in traces):
        return lambda trace: trace.prompt_text
    if all(trace.prompt_ids is not None for trace in traces):
        return lambda trace: () if trace.prompt_ids is None else tuple(trace.prompt_ids.tolist())
    return lambda trace: trace.n_prompt


def _shown(trace: Trace) -> str:
    return f"{trace.n_prompt} tokens" if trace.prompt_text is None else repr(trace.prompt_text)


def paired_traces(a: Tape, b: Tape) -> list[tuple[Trace, Trace]]:
    """Traces with the same prompt, in their order; where no prompt is the same, simply in their order."""
    key = _key_of_prompts(a, b)
    waiting: dict[object, deque[Trace]] = {}
    for trace in b.traces:
        waiting.setdefault(key(trace), deque()).append(trace)
    found = [(trace, same.popleft()) for trace in a.traces if (same := waiting.get(key(trace)))]
    return found or list(zip(a.traces, b.traces, strict=False))
