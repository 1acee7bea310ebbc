"""Named series: what changes along a trace, one value for each of its tokens, steps or messages.

Each is a function of a few lines, entered into ``SERIES`` by its decorator; None where a value is unavailable. ``tokentape
show FILE --series gap,entropy`` prints them.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokentape.errors import UsageError
from tokentape.study.answers import answer
from tokentape.study.control import log_weights, overruled
from tokentape.study.served import flight_of
from tokentape.study.surprise import perplexity, surprises_nats
from tokentape.study.times import (
    e2e_ns,
    mean_gap_ns,
    normalised_latency_ns,
    plain_values,
    token_gaps_ns,
    token_steps,
    token_times_ns,
    ttft_ns,
)

if TYPE_CHECKING:
    from tokentape.data.trace import Trace

__all__ = ["AXES", "SERIES", "Series", "series_named"]

AXES = ("token", "step", "chunk", "trace")
"""What a series has one value for: a token of a trace, a step of its run, a message that a client saw, or the trace."""

Values = list[Any]


@dataclass(frozen=True, slots=True)
class Series:
    """A series: ``of`` makes its values from a trace, one for each member of ``axis`` in their order, None where unavailable."""

    name: str
    axis: str
    unit: str
    meaning: str
    of: Callable[[Trace], Values]

    @property
    def column(self) -> str:
        """The name with its unit, as a column is headed."""
        return f"{self.name}_{self.unit}" if self.unit else self.name


SERIES: dict[str, Series] = {}
"""The series by name."""


def _series(name: str, axis: str, unit: str, meaning: str) -> Callable[[Callable[[Trace], Values]], Any]:
    def enter(of: Callable[[Trace], Values]) -> Callable[[Trace], Values]:
        SERIES[name] = Series(name, axis, unit, meaning, of)
        return of

    return enter


def _column(name: str, axis: str, unit: str, meaning: str, column: str) -> None:
    """A series that is a column as it was recorded."""
    recorded = "tokens" if axis == "token" else "steps"
    _series(name, axis, unit, meaning)(lambda trace: plain_values(getattr(trace, recorded)[column]))


def series_named(names: Sequence[str]) -> list[Series]:
    """Series by their names, in that order, each once; ``"all"`` is all of them. Raises UsageError."""
    by_name = {**{one.column: one for one in SERIES.values()}, **SERIES}
    found: dict[str, Series] = {}
    for name in names:
        if name == "all":
            found |= SERIES
        elif name in by_name:
            found[by_name[name].name] = by_name[name]
        else:
            near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.5)
            fix = f"did you mean {near[0]}?" if near else "--series list says what each means"
            raise UsageError(f"no series {name!r}", why=f"there are {', '.join(SERIES)}", fix=fix)
    return list(found.values())


# of tokens


@_series("time", "token", "ns", "when the token was known, since the start of the run")
def _time(trace: Trace) -> Values:
    start = trace.run.start_ns
    return [None if start is None else at - start for at in token_times_ns(trace)]


@_series("gap", "token", "ns", "time since the token before; 0 within a step, null for the first")
def _gap(trace: Trace) -> Values:
    return [None, *token_gaps_ns(trace)][: len(trace.tokens["step"])]


_column("logprob", "token", "nats", "log-probability under the model's own distribution", "logprob")


@_series("probability", "token", "", "probability under the model's own distribution")
def _probability(trace: Trace) -> Values:
    return [None if value is None else math.exp(value) for value in plain_values(trace.tokens["logprob"])]


@_series("surprise", "token", "nats", "minus the log-probability")
def _surprise(trace: Trace) -> Values:
    return list(surprises_nats(trace))


@_series("perplexity", "token", "", "exp of the mean surprise of the tokens so far that have one")
def _perplexity(trace: Trace) -> Values:
    known: list[float] = []
    values: Values = []
    for surprise in surprises_nats(trace):
        known += [] if surprise is None else [(known[-1] if known else 0.0) + surprise]
        values.append(perplexity(known[-1] / len(known)) if known else None)
    return values


_column("entropy", "token", "nats", "entropy of the model's own distribution", "entropy")
_column("rank", "token", "", "rank in the model's own distribution, 1 = most likely", "rank")
_column("rules_logprob", "token", "nats", "log-probability after the rules; null without rules", "rules_logprob")
_column(
    "allowed", "token", "tokens", "tokens that the rules left to choose from; null without rules of ours", "allowed"
)
_column("removed", "token", "nats", "minus the logarithm of the probability that the rules left", "removed")
_series(
    "log_weight", "token", "nats", "log importance weight of the text so far: the sum of what was removed, negative"
)(log_weights)


@_series("overruled", "token", "", "1 where the same draw would have chosen another token without our rules")
def _overruled(trace: Trace) -> Values:
    return [None if parted is None else int(parted) for parted in overruled(trace)]


# of steps


@_series("step_time", "step", "ns", "end minus start of the step")
def _step_time(trace: Trace) -> Values:
    starts, ends = plain_values(trace.steps["start_ns"]), plain_values(trace.steps["end_ns"])
    return [end - start for start, end in zip(starts, ends, strict=True)]


@_series("pause", "step", "ns", "time from the end of the step before, or the start of the run, to its start")
def _pause(trace: Trace) -> Values:
    starts, ends = plain_values(trace.steps["start_ns"]), plain_values(trace.steps["end_ns"])
    return [
        None if end is None else start - end for start, end in zip(starts, [trace.run.start_ns, *ends], strict=False)
    ]


_column("forward_time", "step", "ns", "host time of the forward call alone; on a GPU only its launch", "forward_ns")
_column("rules_time", "step", "ns", "host time of the rules, beside the forward call", "rules_ns")
_column("dropped", "step", "", "positions that the cache no longer holds; null without a window", "dropped")
_column("device_time", "step", "ns", "device time of the step; null without a device clock", "device_ns")


@_series(
    "cpu_share",
    "step",
    "",
    "CPU time of the loop's thread over the time since the reading before; null between readings",
)
def _cpu_share(trace: Trace) -> Values:
    before, values = trace.run.start_ns, []
    for cpu, end in zip(plain_values(trace.steps["cpu_ns"]), plain_values(trace.steps["end_ns"]), strict=True):
        known = cpu is not None and before is not None and end > before
        values.append(cpu / (end - before) if known else None)
        before = before if cpu is None else end
    return values


_column(
    "switches", "step", "", "involuntary context switches since the reading before; null between readings", "switches"
)
_column("gc_time", "step", "ns", "time in Python's garbage collections since the step before", "gc_ns")
_column("context", "step", "", "positions of the sequences after the step", "context")
_column("tokens", "step", "", "tokens that the step gave, all sequences together", "n_out")
_column("cache", "step", "bytes", "key-value cache and recurrent state; null between readings", "cache_bytes")
_column("rss", "step", "bytes", "resident memory of the process; null between readings", "rss_bytes")
_column("device", "step", "bytes", "memory allocated on the device; null between readings", "device_bytes")


@_series("read_lag", "step", "ns", "from the arrival of a message's bytes to the return of the read that brought them")
def _read_lag(trace: Trace) -> Values:
    return _differences(trace.steps["end_ns"], trace.steps["read_ns"])


@_series("parse_lag", "step", "ns", "from the return of that read until the message was understood")
def _parse_lag(trace: Trace) -> Values:
    return _differences(trace.steps["read_ns"], trace.steps["parsed_ns"])


def _differences(before: Any, after: Any) -> Values:
    pairs = zip(plain_values(before), plain_values(after), strict=True)
    return [None if first is None or second is None else second - first for first, second in pairs]


# of messages, as a client sees them


@_series("chunk_gap", "chunk", "ns", "time since the message before; null for the first")
def _chunk_gap(trace: Trace) -> Values:
    moments = [chunk.at_ns for chunk in answer(trace).messages]
    return [None if i == 0 else at - moments[i - 1] for i, at in enumerate(moments)]


@_series("chunk_tokens", "chunk", "", "tokens in the message; 0 in an empty one")
def _chunk_tokens(trace: Trace) -> Values:
    return [chunk.n_tokens for chunk in answer(trace).messages]


# of a trace


@_series("ttft", "trace", "ns", "time to first token, from the start of the run")
def _ttft(trace: Trace) -> Values:
    return [ttft_ns(trace)]


@_series("mean_gap", "trace", "ns", "(last - first) / (n - 1)")
def _mean_gap(trace: Trace) -> Values:
    return [mean_gap_ns(trace)]


@_series("e2e", "trace", "ns", "from the start of the run to the last token")
def _e2e(trace: Trace) -> Values:
    return [e2e_ns(trace)]


@_series("normalised_latency", "trace", "ns", "e2e over the number of tokens")
def _normalised_latency(trace: Trace) -> Values:
    return [normalised_latency_ns(trace)]


@_series("n_tokens", "trace", "", "tokens of the sequence")
def _n_tokens(trace: Trace) -> Values:
    return [len(token_steps(trace))]


# of a request to a server


_OF_REQUESTS = (
    ("schedule_delay", "how late the request was sent; null where no time was set for it"),
    ("connecting", "time to connect, TLS included; null on a connection that was open already"),
    ("ttfb", "from sending the request to the first byte of the answer"),
    ("ttft_scheduled", "time to first token, from when the request was due"),
    ("answer_time_scheduled", "from when the request was due to the end of the answer"),
    ("answer_time", "from sending the request to the end of the answer"),
)


def _of_request(name: str) -> Callable[[Trace], Values]:
    field = f"{name}_ns"
    return lambda trace: [getattr(flight_of([trace]), field)]


for _name, _meaning in _OF_REQUESTS:
    _series(_name, "trace", "ns", _meaning)(_of_request(_name))
