"""What the request of a tape would take on every machine of the catalogue, at least: the roofline of each, without running it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from tokentape.errors import UsageError
from tokentape.study.cost.hardware import CATALOGUE, Hardware
from tokentape.study.cost.memory import largest, memory_needed
from tokentape.study.cost.roofline import roof
from tokentape.study.cost.timing import over_steps
from tokentape.study.times import runs_of
from tokentape.views.page.roofs import roof_line
from tokentape.views.page.rounding import rounded

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.study.cost.counting import ModelWork
    from tokentape.study.cost.work import Work

__all__ = ["Asked", "accelerators", "longest_request"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: so many tokens of prompt for each of ``batch`` sequences, and so many new ones. ``run`` is where it was made.

    ``window`` are the positions that its cache kept, None for all of them; what is asked of other machines is without it.
    """

    run: int
    context: int
    batch: int
    new_tokens: int
    window: int | None = None


def longest_request(tape: Tape) -> Asked | None:
    """What the run with the longest sequences was asked; None where no prompt's length is known, or nothing was generated."""
    found: list[Asked] = []
    for group in runs_of(tape):
        if group[0].finish_reason == "given":
            continue
        prompts = [trace.n_prompt for trace in group if trace.n_prompt]
        said = max(len(trace.tokens["step"]) for trace in group)
        if prompts and said:
            window = group[0].run.options.get("window")
            found.append(Asked(group[0].run.number, max(prompts), len(group), said, window))
    return max(found, key=lambda one: (one.context + one.new_tokens, one.batch), default=None)


def accelerators(work: ModelWork, asked: Asked, span: tuple[float, float]) -> dict[str, Any]:
    """A column for each figure, a row for each machine of the catalogue, in its order; None where one cannot be told.

    They are those of :func:`tokentape.predict`: least times, whether weights, cache and activations fit. ``roof`` is drawn over
    ``span`` (operations a byte), as in :func:`~tokentape.views.page.roofs.roof_line`.
    """
    seen = replace(work, pairs="seen")
    context, batch, n = asked.context, asked.batch, work.tensor_parallel
    read, step = seen.prefill(context, batch), seen.decode(context + 1, batch)
    decode = cache(lambda at: seen.decode(at, batch))
    needed = cache(lambda at, many: memory_needed(work, at, many, asked.new_tokens).peak_bytes)
    rows = []
    for machine in CATALOGUE:
        least = _least(machine, work)
        first, one = least(read, context * batch), least(step, batch)
        row: dict[str, Any] = {"name": machine.name, "source": machine.source}
        row |= _memory(machine, needed, asked)
        if first is None or one is None:
            names = ("dtype", "prefill_ns", "prefill_bound", "decode_ns", "decode_bound", "tokens_per_s", "request_ns")
            rows.append({**row, **dict.fromkeys(names), "roof": None})
            continue
        rest = over_steps(lambda at, least=least: _ns(least(decode(at), batch)), context, asked.new_tokens)  # type: ignore[misc]
        row |= {
            "dtype": machine.peak(work.compute_dtype)[1],
            "prefill_ns": rounded(first.ns, 4),
            "prefill_bound": first.bound,
            "decode_ns": rounded(one.ns, 4),
            "decode_bound": one.bound,
            "tokens_per_s": rounded(batch / one.ns * 1e9, 4),
            "request_ns": rounded(first.ns + rest, 4),
            "roof": roof_line(machine, work.compute_dtype, n, span),
        }
        rows.append(row)
    return {
        "context": context,
        "batch": batch,
        "new_tokens": asked.new_tokens,
        "peak_bytes": round(needed(context, batch)),
        **{name: [row[name] for row in rows] for name in rows[0]},
    }


def _least(machine: Hardware, work: ModelWork) -> Callable[[Work, float], Any]:
    """The roofline of some work on a machine; None where it has no rate for the dtype."""

    def least(done: Work, rows: float) -> Any:
        try:
            return roof(done, machine, work.compute_dtype, work.tensor_parallel, rows)
        except UsageError:
            return None

    return least


def _ns(found: Any) -> float:
    return float(found.ns)


def _memory(machine: Hardware, needed: Callable[[float, float], float], asked: Asked) -> dict[str, Any]:
    """Memory of a device in bytes, whether the request fits, the largest batch and prompt that would; None where unknown."""
    if machine.memory_gb is None:
        return dict.fromkeys(("memory_bytes", "fits", "largest_batch", "largest_context"))
    room = machine.memory_gb * 1e9
    return {
        "memory_bytes": round(room),
        "fits": int(needed(asked.context, asked.batch) <= room),
        "largest_batch": largest(lambda n: n == 0 or needed(asked.context, n) <= room),
        "largest_context": largest(lambda n: n == 0 or needed(n, asked.batch) <= room),
    }
