"""When each token came, and what follows from it: gaps, spans, rates. All on the host clock, exact nanoseconds.

* **TTFT**, time to first token: end of the step that gave the first token (the prefill) minus the start of the run;
* **token gap**: time between consecutive tokens of one trace. Tokens of one step came at one time: their gap is 0,
  and counts;
* **chunk gap**: time between consecutive steps that gave a token;
* **mean gap**: ``(last - first) / (n - 1)`` of one trace;
* **step time**: end minus start of one step;
* **E2E**: end of the last token minus the start of the run; **normalised latency**: E2E over the number of tokens;
* **decode tokens/s**: ``(n - 1) / (last - first)``, the inverse of the mean gap; a batch adds up its sequences.

What cannot be told is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.data.schema import KINDS

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = [
    "chunk_gaps_ns",
    "decode_times_ns",
    "decode_tokens_per_s",
    "e2e_ns",
    "mean_gap_ns",
    "normalised_latency_ns",
    "peak",
    "plain_values",
    "run_chunk_gaps_ns",
    "run_gaps_ns",
    "run_steps",
    "runs_of",
    "runs_tokens_per_s",
    "step_times_ns",
    "tape_tokens_per_s",
    "token_gaps_ns",
    "token_steps",
    "token_times_ns",
    "ttft_ns",
]

Columns = Mapping[str, Any]


# of one trace


def _is_timed(trace: Trace) -> bool:
    """Whether tokens were seen as they came."""
    return trace.exchange is None or trace.exchange.streamed


def token_steps(trace: Trace) -> list[int]:
    """For each token the row, in ``trace.steps``, of the step that gave it."""
    return list(np.searchsorted(np.asarray(trace.steps["index"]), np.asarray(trace.tokens["step"])).tolist())


def token_times_ns(trace: Trace) -> list[int]:
    """For each token the moment at which it was known, since the tape's origin."""
    return list(np.asarray(trace.steps["end_ns"])[token_steps(trace)].tolist()) if len(trace.tokens["step"]) else []


def token_gaps_ns(trace: Trace) -> list[int]:
    """The ``n - 1`` times between consecutive tokens; 0 between tokens of one step."""
    times = token_times_ns(trace)
    return [after - before for before, after in pairwise(times)]


def chunk_gaps_ns(trace: Trace) -> list[int]:
    """The times between consecutive steps that gave the trace a token, however many each gave."""
    ends = np.asarray(trace.steps["end_ns"])[sorted(set(token_steps(trace)))]
    return list(np.diff(ends).tolist())


def mean_gap_ns(trace: Trace) -> float | None:
    """``(last - first) / (n - 1)``; None with fewer than two tokens, and where no moment of one was seen."""
    times = token_times_ns(trace) if _is_timed(trace) else []
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None


def ttft_ns(trace: Trace) -> int | None:
    """Time to first token: from the start of the run to the end of the step that gave the trace's first token.

    None of an answer that a server gave in one piece.
    """
    times = token_times_ns(trace) if _is_timed(trace) else []
    return times[0] - trace.run.start_ns if times and trace.run.start_ns is not None else None


def e2e_ns(trace: Trace) -> int | None:
    """From the start of the run to the trace's last token."""
    times = token_times_ns(trace)
    return times[-1] - trace.run.start_ns if times and trace.run.start_ns is not None else None


def normalised_latency_ns(trace: Trace) -> float | None:
    """E2E over the number of tokens.

    Source: G.-I. Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022.
    """
    whole = e2e_ns(trace)
    return None if whole is None else whole / len(trace.tokens["step"])


def step_times_ns(steps: Columns, kind: int | None = None) -> list[int]:
    """End minus start of each step, or of those of one ``kind`` (an index into ``schema.KINDS``)."""
    times = np.asarray(steps["end_ns"]) - np.asarray(steps["start_ns"])
    return list((times if kind is None else times[np.asarray(steps["kind"]) == kind]).tolist())


def decode_times_ns(steps: Columns) -> list[int]:
    """End minus start of each step but those that read the prompt: forward passes after it, messages of a served stream."""
    times = np.asarray(steps["end_ns"]) - np.asarray(steps["start_ns"])
    return list(times[np.asarray(steps["kind"]) != KINDS.index("prefill")].tolist())


def decode_tokens_per_s(traces: Iterable[Trace]) -> float | None:
    """``sum(n - 1) / (last - first)`` over the sequences of one run; None with fewer than two moments."""
    times = [token_times_ns(trace) for trace in traces]
    times = [t for t in times if t]
    if not times:
        return None
    span = max(t[-1] for t in times) - min(t[0] for t in times)
    return sum(len(t) - 1 for t in times) / span * 1e9 if span > 0 else None


# of a run and of a tape


def run_gaps_ns(traces: Iterable[Trace]) -> list[int]:
    """The token gaps of a run, each counted once, in the order of time.

    The sequences of a batch share their steps, so what is one measurement of time is a gap of each of them: counted once a
    sequence, it would feign a larger sample than there is.
    """
    found: dict[tuple[int, int, int], int] = {}
    for trace in traces:
        seen: Counter[tuple[int, int]] = Counter()
        for (before, after), ns in zip(pairwise(token_steps(trace)), token_gaps_ns(trace), strict=True):
            found[after, before, seen[before, after]] = ns
            seen[before, after] += 1
    return [found[key] for key in sorted(found)]


def run_chunk_gaps_ns(traces: Iterable[Trace]) -> list[int]:
    """The chunk gaps of a run, each counted once, in the order of time."""
    found: dict[tuple[int, int], int] = {}
    for trace in traces:
        for steps, ns in zip(pairwise(sorted(set(token_steps(trace)))), chunk_gaps_ns(trace), strict=True):
            found[steps[1], steps[0]] = ns
    return [found[key] for key in sorted(found)]


def runs_of(tape: Tape) -> list[list[Trace]]:
    """The traces of the tape, those of one run together."""
    groups: list[list[Trace]] = []
    for trace in tape.traces:
        if groups and groups[-1][0].run.number == trace.run.number:
            groups[-1].append(trace)
        else:
            groups.append([trace])
    return groups


def run_steps(tape: Tape) -> list[Columns]:
    """The step columns of each run that has a trace."""
    return [group[0].steps for group in runs_of(tape)]


def tape_tokens_per_s(tape: Tape) -> float | None:
    """Decode tokens/s over all runs: their tokens over the sum of their spans."""
    return runs_tokens_per_s(runs_of(tape))


def runs_tokens_per_s(groups: Iterable[Sequence[Trace]]) -> float | None:
    """The same of traces that :func:`runs_of` has put together."""
    tokens, span = 0, 0
    for group in groups:
        times = [t for trace in group if (t := token_times_ns(trace))]
        if times:
            tokens += sum(len(t) - 1 for t in times)
            span += max(t[-1] for t in times) - min(t[0] for t in times)
    return tokens / span * 1e9 if span > 0 else None


# of a column


def peak(columns: Iterable[Any]) -> int | None:
    """The largest value in masked arrays, None where all of them are null."""
    known = [int(value) for column in columns for value in plain_values(column) if value is not None]
    return max(known, default=None)


def plain_values(column: Any) -> list[Any]:
    """A masked array as plain Python values, None where masked."""
    masked = column if isinstance(column, np.ma.MaskedArray) else np.ma.asarray(column)  # it makes a new one of each
    return list(masked.tolist() if np.any(masked.mask) else masked.data.tolist())
