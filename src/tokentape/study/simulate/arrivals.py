"""Streams of requests: when each comes, how long its prompt is, how many tokens it asks for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tokentape.errors import StudyError, UsageError
from tokentape.study.answers import answers
from tokentape.study.traffic.schedule import LAST_NS, Schedule, expected, scaled

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["Arrivals", "Lengths", "constant", "gamma", "of_schedule", "of_tape", "poisson"]

Ints = npt.NDArray[np.int64]
Lengths = int | Sequence[int] | Callable[[np.random.Generator, int], Ints] | str
"""How long prompts or answers are: always the same, drawn from a list, from a function, or as text (``"512"``,
``"lognormal:512,0.8"``: median and deviation of the logarithm)."""

DAY_NS = 24 * 3600 * 1_000_000_000
YEAR_NS = 365.25 * DAY_NS
MOST_REQUESTS = 100_000_000


@dataclass(frozen=True)
class Arrivals:
    """Requests in the order of time, ``[n]`` each: ``at_ns`` since the stream's beginning, tokens of prompt and answer.

    Raises UsageError for lengths below 1, and for times that go back.
    """

    at_ns: Ints
    n_prompt: Ints
    n_output: Ints
    origin: str = "given"

    def __post_init__(self) -> None:
        for name in ("at_ns", "n_prompt", "n_output"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.int64))
        n = len(self.at_ns)
        if n == 0 or len(self.n_prompt) != n or len(self.n_output) != n:
            raise UsageError(
                f"{n} times, {len(self.n_prompt)} prompts, {len(self.n_output)} answers",
                why="a stream of requests has as many of each, and at least one",
                fix="give three lists of one length",
            )
        if (np.diff(self.at_ns) < 0).any() or self.at_ns[0] < 0:
            raise UsageError("the times of the requests go back", why="a stream is in the order of time", fix="sort it")
        for name, values in (("prompt", self.n_prompt), ("answer", self.n_output)):
            if values.min() < 1:
                raise UsageError(
                    f"a request whose {name} has {int(values.min())} tokens",
                    why="prompt and answer have 1 token or more",
                    fix="leave such requests out",
                )

    def __len__(self) -> int:
        return len(self.at_ns)

    @property
    def span_ns(self) -> int:
        """From the first request to the last."""
        return int(self.at_ns[-1] - self.at_ns[0])

    @property
    def rate(self) -> float | None:
        """Requests a second, None where all come at once."""
        return (len(self) - 1) * 1e9 / self.span_ns if self.span_ns > 0 else None

    def at_rate(self, rate: float, *, duration_ns: int | None = None, n: int | None = None) -> Arrivals:
        """The same requests with all times between them stretched or shrunk to ``rate`` requests a second.

        Of a duration or a number, as in a load: the part of them that it takes, laid over its time exactly.
        """
        times = scaled(self.at_ns.tolist(), rate=rate, duration_ns=duration_ns, requests=n)
        found = np.fromiter(Schedule("trace", times_ns=times, duration_ns=duration_ns, requests=n), np.int64)
        return replace(self.first(len(found)), at_ns=found)

    def repeated(self, span_ns: int = DAY_NS, seed: int = 0, jitter_ns: int = 1_000_000_000) -> Arrivals:
        """The stream over and over until ``span_ns`` is full, each time shifted by up to ``jitter_ns`` so that none is a copy."""
        rng = np.random.default_rng(seed)
        mean = self.span_ns / max(1, len(self) - 1)
        period = max(1, round(self.span_ns + mean))
        rounds = math.ceil(span_ns / period)
        start = self.at_ns - self.at_ns[0]
        times = np.concatenate([start + i * period for i in range(rounds)])
        times = times + rng.integers(0, jitter_ns + 1, len(times)) * (np.arange(len(times)) >= len(self))
        order = np.argsort(times, kind="stable")
        order = order[times[order] < span_ns]
        return Arrivals(
            times[order], np.tile(self.n_prompt, rounds)[order], np.tile(self.n_output, rounds)[order], self.origin
        )

    def first(self, n: int) -> Arrivals:
        """The first ``n`` of them."""
        return replace(self, at_ns=self.at_ns[:n], n_prompt=self.n_prompt[:n], n_output=self.n_output[:n])


def poisson(
    rate: float, *, n: int, n_prompt: Lengths = 512, n_output: Lengths = 128, seed: int = 0, origin: str = "poisson"
) -> Arrivals:
    """``n`` requests that come independently of one another, ``rate`` a second."""
    return of_schedule(Schedule("poisson", rate, seed=seed, requests=n), n_prompt, n_output, origin)


def gamma(
    rate: float,
    *,
    burstiness: float,
    n: int,
    n_prompt: Lengths = 512,
    n_output: Lengths = 128,
    seed: int = 0,
    origin: str = "gamma",
) -> Arrivals:
    """``n`` requests whose gaps are gamma distributed with shape ``burstiness``: below 1 in bursts, 1 is Poisson, above even."""
    return of_schedule(Schedule("gamma", rate, burstiness, seed=seed, requests=n), n_prompt, n_output, origin)


def constant(
    rate: float, *, n: int, n_prompt: Lengths = 512, n_output: Lengths = 128, seed: int = 0, origin: str = "constant"
) -> Arrivals:
    """``n`` requests, one every ``1 / rate`` seconds."""
    return of_schedule(Schedule("constant", rate, seed=seed, requests=n), n_prompt, n_output, origin)


def of_schedule(
    schedule: Schedule, n_prompt: Lengths = 512, n_output: Lengths = 128, origin: str | None = None
) -> Arrivals:
    """The requests that a load of this schedule would send, with lengths drawn by its seed.

    Raises UsageError where none is due before its end, where it has no end or very many, and where times are beyond 64 bits.
    """
    about = expected(schedule)
    if about is None or about > MOST_REQUESTS:
        raise UsageError(
            f"a stream of more than {MOST_REQUESTS:,} requests",
            why="all of them are held in memory",
            fix="fewer --requests, or a shorter --duration",
        )
    at_ns = np.fromiter(schedule, np.int64)
    n, rng = len(at_ns), np.random.default_rng(schedule.seed)
    if n == 0:
        raise UsageError(
            "no request within the duration",
            why="the first is due after it",
            fix="a longer --duration, or a higher --rate",
        )
    if at_ns[-1] >= LAST_NS:
        raise UsageError(
            f"{n} requests over more than {LAST_NS / YEAR_NS:.0f} years",
            why="times are nanoseconds in 64 bits",
            fix="a higher --rate or fewer --requests",
        )
    return Arrivals(at_ns, drawn(n_prompt, rng, n), drawn(n_output, rng, n), origin or schedule.kind)


def of_tape(tape: Tape) -> Arrivals:
    """The requests of a tape as they were sent: a run that failed before its first token is left out, its length is not known.

    Raises StudyError where no run has its start, its prompt's length and tokens.
    """
    rows = []
    for trace, one in zip(tape.traces, answers(tape), strict=True):
        passed = trace.exchange
        n_prompt = trace.n_prompt or (None if passed is None else passed.n_prompt)
        if one.start_ns is not None and n_prompt and one.n_tokens:
            rows.append((one.start_ns, n_prompt, one.n_tokens))
    if not rows:
        raise StudyError(
            "no request of this tape can be sent again",
            why="a start, the length of the prompt and tokens are needed, and no run has all of them",
            fix="record with the timing probe, or give --arrivals poisson",
        )
    rows.sort()
    at, prompts, outputs = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return Arrivals(at - at[0], prompts, outputs, "tape")


def drawn(lengths: Lengths, rng: np.random.Generator, n: int) -> Ints:
    """``n`` lengths. Raises UsageError for a text that names none."""
    if isinstance(lengths, str):
        return _drawn_text(lengths, rng, n)
    if callable(lengths):
        return np.asarray(lengths(rng, n), np.int64)
    if isinstance(lengths, int):
        return np.full(n, lengths, np.int64)
    return rng.choice(np.asarray(lengths, np.int64), n)


def _drawn_text(text: str, rng: np.random.Generator, n: int) -> Ints:
    if re.fullmatch(r"\d+", text):
        return np.full(n, int(text), np.int64)
    found = re.fullmatch(r"lognormal:(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)", text)
    if found:
        median, sigma = float(found[1]), float(found[2])
        return np.maximum(1, np.rint(rng.lognormal(math.log(max(median, 1.0)), sigma, n))).astype(np.int64)
    found = re.fullmatch(r"uniform:(\d+),(\d+)", text)
    if found and int(found[1]) <= int(found[2]):
        return rng.integers(int(found[1]), int(found[2]) + 1, n)
    raise UsageError(
        f"no lengths {text!r}",
        why="a length is a number, uniform:LOW,HIGH or lognormal:MEDIAN,SIGMA",
        fix="512, or lognormal:512,0.8",
    )
