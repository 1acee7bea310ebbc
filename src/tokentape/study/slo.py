"""How often what was promised was kept: goodput, and the fluidity index.

An :class:`Slo` has up to three objectives: time to first token, gap, and the whole answer, each in nanoseconds.

**Goodput** is the requests per second that meet all of them, the gap being the request's mean gap. A request of one token
has none, and is asked for the others alone. What failed or did not finish is a miss, and so is one whose times are unknown: one of
several tokens that all came in one read, say, has no gap that is known. A request that was due and never sent is a miss too.

**Fluidity index**: every token has a deadline, the first one ``ttft`` after the request, each other one ``gap`` after the
deadline before it, so that a token which comes early leaves its slack to the next. A stall misses one deadline for each
``gap`` that it lasts beyond them; after it deadlines are set anew from the late token. The index is the share of deadlines met.

Sources: Y. Zhong et al., "DistServe: Disaggregating Prefill and Decoding for Goodput-optimized Large Language Model Serving",
OSDI 2024; A. Agrawal et al., "Etalon: Holistic Performance Evaluation Framework for LLM Inference Systems" (first named
Metron), 2024, section 4; project-etalon/etalon, ``etalon/metrics/metric_utils.py``, ``get_request_level_deadline_miss_rate``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tokentape.errors import UsageError
from tokentape.study.answers import Answer

__all__ = ["Fluidity", "Goodput", "Slo", "came_apart", "fluidity", "goodput", "parse_slo"]

NAMES = {"ttft": "ttft_ns", "gap": "gap_ns", "tpot": "gap_ns", "e2e": "e2e_ns"}
UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
EXAMPLE = "--slo ttft=500ms,gap=50ms,e2e=10s"


@dataclass(frozen=True, slots=True)
class Slo:
    """Service-level objectives in nanoseconds: time to first token, (mean) gap, whole answer. None asks nothing."""

    ttft_ns: int | None = None
    gap_ns: int | None = None
    e2e_ns: int | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("ttft_ns", "gap_ns", "e2e_ns")}
        if all(value is None for value in given.values()):
            raise UsageError("an objective without any limit", why="it would be met by everything", fix=EXAMPLE)
        for name, value in given.items():
            if value is not None and value <= 0:
                raise UsageError(f"{name} = {value}", why="a limit is a time above 0", fix=EXAMPLE)


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests that met every objective: ``n_good`` of ``n_requests``, ``share`` of them, ``requests_per_s`` over the window; both
    None where of none of them it is known.

    The misses by cause: ``n_failed`` ended in an error, ``n_cut_short`` did not end, ``n_unknown`` lack a time that is asked for,
    ``n_late`` came too late, ``n_unsent`` were due and never sent. ``n_without_gap`` of the good ones had one token, so that no gap
    could be asked for.
    """

    n_requests: int
    n_good: int
    n_late: int
    n_failed: int
    n_cut_short: int
    n_unknown: int
    n_without_gap: int
    share: float | None
    requests_per_s: float | None
    n_unsent: int = 0


@dataclass(frozen=True, slots=True)
class Fluidity:
    """The share of deadlines met, over all requests that ended and in each (``by_trace``, None for one that did not end)."""

    index: float | None
    n_deadlines: int
    n_missed: int
    by_trace: tuple[float | None, ...]


def goodput(found: Sequence[Answer], slo: Slo, window_ns: int | None, n_unsent: int = 0) -> Goodput:
    """The requests that met ``slo``, over ``window_ns``; ``n_unsent`` more were due and never sent."""
    verdicts = [_verdict(one, slo) for one in found]
    n, n_good = len(found) + n_unsent, verdicts.count("good")
    told = n > verdicts.count("unknown")  # else nothing is known of any
    lone = sum(v == "good" and slo.gap_ns is not None and a.n_tokens == 1 for a, v in zip(found, verdicts, strict=True))
    return Goodput(
        n_requests=n,
        n_good=n_good,
        n_late=verdicts.count("late"),
        n_failed=verdicts.count("failed"),
        n_cut_short=verdicts.count("cut short"),
        n_unknown=verdicts.count("unknown"),
        n_without_gap=lone,
        share=n_good / n if told else None,
        requests_per_s=n_good * 1e9 / window_ns if window_ns and (told or not n) else None,
        n_unsent=n_unsent,
    )


def came_apart(one: Answer) -> bool:
    """Whether it is known how long passed from the first token to the last: not where all messages came in one read or piece."""
    chunks = one.chunks
    return one.streamed and (len(chunks) < 2 or chunks[-1].at_ns > chunks[0].at_ns)


def _verdict(one: Answer, slo: Slo) -> str:
    if one.outcome != "ended":
        return one.outcome
    chunks = one.chunks
    if not chunks or (one.start_ns is None and (slo.ttft_ns, slo.e2e_ns) != (None, None)):
        return "unknown"
    if not one.streamed and (slo.ttft_ns, slo.gap_ns) != (None, None):
        return "unknown"
    if slo.gap_ns is not None and (one.n_tokens is None or (one.n_tokens > 1 and not came_apart(one))):
        return "unknown"
    first, last = chunks[0].at_ns, chunks[-1].at_ns
    asked = [(one.since_start(first), slo.ttft_ns, 1), (one.since_start(last), slo.e2e_ns, 1)]
    asked.append((last - first, slo.gap_ns, (one.n_tokens or 1) - 1))
    late = any(took is not None and limit is not None and took > limit * times for took, limit, times in asked)
    return "late" if late else "good"


def fluidity(found: Sequence[Answer], slo: Slo) -> Fluidity | None:
    """The fluidity index; None unless the objectives have both a time to first token and a gap."""
    if slo.ttft_ns is None or slo.gap_ns is None:
        return None
    counts = [_deadlines(one, slo.ttft_ns, slo.gap_ns) for one in found]
    missed, total = sum(m for m, _ in counts), sum(n for _, n in counts)
    return Fluidity(
        index=1 - missed / total if total else None,
        n_deadlines=total,
        n_missed=missed,
        by_trace=tuple(1 - m / n if n else None for m, n in counts),
    )


def _deadlines(one: Answer, ttft_ns: int, gap_ns: int) -> tuple[int, int]:
    """Deadlines missed, and deadlines there were."""
    moments = [chunk.at_ns for chunk, size in zip(one.chunks, one.sizes or (), strict=False) for _ in range(size)]
    if one.outcome != "ended" or one.start_ns is None or not moments or not one.streamed:
        return 0, 0
    missed = total = slack = 0
    took = [(moments[0] - one.start_ns, ttft_ns)] + [(after - before, gap_ns) for before, after in pairwise(moments)]
    for place, (ns, limit) in enumerate(took):
        if ns <= limit + slack:
            slack += limit - ns
            total += 1
            continue
        # the first token's own deadline comes before the gaps that are counted from there
        gone = 1 + (ns - limit) // gap_ns if place == 0 else (ns - slack) // gap_ns
        missed += gone
        total += gone
        slack = 0
    return missed, total


def parse_slo(text: str) -> Slo:
    """``"ttft=500ms,gap=50ms,e2e=10s"`` as objectives; ``tpot`` is another name of ``gap``. Raises UsageError."""
    limits: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ns|us|ms|s)", value)
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            fix = f"{near[0]}={value if found else '50ms'}" if near else EXAMPLE
            raise UsageError(f"no objective {name!r}", why=f"there are {', '.join(NAMES)}", fix=fix)
        if found is None:
            why = "a limit is a number with its unit: ns, us, ms or s"
            raise UsageError(f"{name} = {value!r}", why=why, fix=f"{name}=50ms")
        if NAMES[name] in limits:
            raise UsageError(f"{name} is given twice", why="each objective has one limit", fix=EXAMPLE)
        limits[NAMES[name]] = round(float(found[1]) * UNITS_NS[found[2]])
    return Slo(**limits)
