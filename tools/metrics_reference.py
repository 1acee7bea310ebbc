"""Writes ``docs/reference/metrics.md`` from the code: definitions, series, and one tape through every dialect.

python tools/metrics_reference.py            write it
python tools/metrics_reference.py --check    exit 1 if the committed page is not what this makes
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokentape.clock import FakeClock
from tokentape.data.request import Request
from tokentape.data.tape import Tape
from tokentape.recorder.probes import tier
from tokentape.recorder.recorder import Recorder
from tokentape.sources.scripted import Line, ScriptedSource
from tokentape.study.dialects import DIALECTS
from tokentape.study.percentiles import samples_needed
from tokentape.study.readings import METHODS, Dialect
from tokentape.study.series import SERIES
from tokentape.study.slo import Slo
from tokentape.views.metrics_text import comparison

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "metrics.md"
MS = 1_000_000
SLO = Slo(ttft_ns=10 * MS, gap_ns=4 * MS, e2e_ns=25 * MS)

INTRODUCTION = """\
# Metrics

<!-- Made by tools/metrics_reference.py from src/tokentape/study. Do not edit: `make docs-reference` writes it again. -->

A tape holds moments and counts; everything here is computed from them when asked. All times are on the host clock and exact to
the nanosecond. What cannot be told is null (`n/a`), never zero.

```console
$ tokentape show cat.tape --slo ttft=500ms,gap=50ms       # our own metrics, goodput, fluidity
$ tokentape show load.tape --slo ttft=500ms               # of an open loop counted from when requests were due
$ tokentape show load.tape --slo ttft=500ms --from start  # the same, counted from when they were sent
$ tokentape show cat.tape --dialect vllm                  # what `vllm bench serve` would print
$ tokentape show cat.tape --dialect all                   # side by side
$ tokentape show cat.tape --series gap,entropy            # columns, for a plot or a spreadsheet
```

In Python: `tokentape.study.metrics.metrics(tape, dialect=None, slo=None, since=None)`.

## Our own definitions

`start` is when the request was handed over, with `--from due` (`since="due"`), and wherever objectives are asked of an open
loop, when it was due; `t1..tn` when each of its n tokens was known: the end of the step that gave it. Tokens of one step have
one moment.
"""

DEFINITIONS = (
    ("TTFT, time to first token", "t1 - start", "MLPerf Inference, `TTFT`"),
    (
        "token gap",
        "t[i] - t[i-1], every token; 0 within a step; from a server, of tokens that came alone",
        "the recorder's own; a chunk is not a token",
    ),
    ("chunk gap", "the same between steps that gave a token", "wire time between messages"),
    ("step time", "end - start of one step that is no prefill", "one forward pass, or one message"),
    ("mean gap", "(tn - t1) / (n - 1), n > 1", "often called TPOT"),
    ("E2E", "tn - start, requests that ended", "request latency"),
    ("normalised latency", "E2E / n", "Yu et al., Orca, OSDI 2022"),
    (
        "tokens/s, requests/s",
        "all tokens, requests that ended / (last moment - first start)",
        "see below for an open loop",
    ),
    ("decode tokens/s", "sum (n - 1) / (last - first token), runs added up", ""),
    ("surprise", "-logprob, nats", "the model's own distribution, before any rule"),
    ("perplexity", "exp(mean surprise)", "Jelinek et al., 1977"),
    ("bits per byte", "sum of surprise / ln 2 / bytes of the text", "Gao et al., The Pile, 2020, section 3.1"),
    ("goodput", "requests/s that meet every objective", "Zhong et al., DistServe, OSDI 2024"),
    ("fluidity index", "share of token deadlines met, slack carried over", "Agrawal et al., Etalon (Metron), 2024"),
)

PROMISES = """\
**Goodput.** Objectives are a TTFT, a mean gap (`gap`, also called `tpot`) and an E2E; each is met at equality. A request that
failed or did not finish is a miss; so is one whose times are not known. A request of one token has no gap and is asked for the
rest; how many there are is said. Where requests were due, they count from there: one that was never sent is a miss, and one
that was sent again is one request.

**Gaps from a server.** What one read of the socket brings has one stamp. So a token gap is measured where the token came alone:
without another of its answer, a message behind it that has none, or the end of the answer. How many others there are is said
(`n_untold`); they are in no percentile, and in the mean: the time from first to last token over their number. A chunk gap is
one between two reads.

**Rates of an open loop.** Due is over the length of the schedule. Ended is over the same, longer by what answers took longer at
the end than at the beginning: as much as was due where a server kept up, what it can do where it did not, and never more than
was due.

**Fluidity index.** The first token is due `ttft` after the request, every other one `gap` after the deadline before it: a token
that comes early leaves its slack to the next. A late one misses its deadline and each further one that `gap` would have set until
it came, and deadlines start anew from it. The index is one minus missed over all, of the requests that ended
(`etalon/metrics/metric_utils.py`, `get_request_level_deadline_miss_rate`).

**Batches.** The sequences of a batch share their steps. A gap or a step that several of them have is one measurement and counts
once; figures of one value a request are worth no more independent samples than there are runs.
"""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> Iterator[str]:
    """A table in Markdown; with ``numbers`` all columns but the first are right-aligned."""
    yield "| " + " | ".join(header) + " |"
    yield "|" + "|".join(["---"] + [("---:" if numbers else "---")] * (len(header) - 1)) + "|"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def percentiles() -> Iterator[str]:
    needed = ", ".join(f"p{q:g} {samples_needed(q):,}" for q in (50, 90, 95, 99, 99.9))
    yield "## Percentiles"
    yield ""
    yield f"At 99 % confidence a percentile takes so many independent samples: {needed}."
    yield SAMPLES


SAMPLES = """\
Ours is one of the values measured (nearest rank), and null below that count; beside it stands the value that the true percentile
does not exceed with that confidence (mlcommons/endpoints, `docs/early_stopping.md`; Reddi et al., ISCA 2020).

Neighbours in time resemble each other: n of them are worth `n (1 - r) / (1 + r)` independent ones (Bayley and Hammersley, 1946), r
being their autocorrelation at lag 1. Pairs are taken within a run, the mean over all runs, and only a positive r counts.
`n_effective` is shown beside n, and it is what has to suffice. Over a sweep of contexts, or on a machine that drifts, r is near 1:
such values have no one population, and their percentiles are null.
"""


SCHEDULE = """\
## One tape in every dialect

Five requests, one after another, times in milliseconds; in brackets the tokens of each message:

| | sent | messages | end |
|---|---|---|---|
| A | 0 | 10 (0), 20 (1), 26 (3), 30 (0), 35 (2) | end of text |
| B | 40 | 48 (1) | length |
| C | 50 | 54 (1), 60 (1) | error |
| D | 60 | 65 (1) | interrupted |
| E, served | 70 | 80 (2), 90 (2), 92 (0) | end of text |

"Good" is a TTFT of at most 10 ms, a gap (TPOT, ITL) of 4 ms, an E2E of 25 ms. p50 is by each tool's own method; ours is null, since
it takes 11 samples.
"""


def one_tape() -> Tape:
    """The five requests."""
    takes = (
        (0, "stop", None, ((10, 0), (10, 1), (6, 3), (4, 0), (5, 2))),
        (5, "length", None, ((8, 1),)),
        (2, "error", None, ((4, 1), (6, 1))),
        (0, "interrupted", None, ((5, 1),)),
        (5, "stop", "chunk", ((10, 2), (10, 2), (2, 0))),
    )
    clock = FakeClock()
    recorder: Recorder | None = None
    for after, reason, kind, steps in takes:
        source = ScriptedSource([Line(ms * MS, ["x"] * k, kind=kind) for ms, k in steps], clock)
        if recorder is None:
            recorder = Recorder(None, source.setting(), tier("timing", 0), clock, origin=clock.mark())
        clock.advance(after * MS)
        live = source.start(Request(("x",)), frozenset())
        recorder.begin(live)
        for tick in live.ticks:
            recorder.add(tick)
        recorder.end([reason])
    assert recorder is not None
    recorder.close()
    return recorder.tape


def dialect_section(one: Dialect) -> Iterator[str]:
    yield f"### `{one.name}`"
    yield ""
    yield f"{one.project}. Requests: {one.counted}."
    yield ""
    rows = [[f"`{f.name}`", f"`{f.formula}`"] for f in one.formulas]
    yield from table(["figure", "formula"], rows + [[f"`{t.name}`", f"`{t.formula}`"] for t in one.totals])
    yield ""
    grid = ", ".join(f"p{q:g}" for q in one.percentiles)
    spread = "n - 1" if one.ddof else "n"
    yield f"Percentiles: {one.method}; {grid}. Standard deviation over {spread}. Goodput: {_goodput(one)}."
    yield ""
    yield f"Read from {', '.join(f'`{source}`' for source in one.sources)}."
    yield ""


def _goodput(one: Dialect) -> str:
    if one.objectives is None:
        return "none"
    without = {
        "met": "a request without a figure counts as 0",
        "missed": "a request without a figure is a miss",
        "zipped": "figures are paired in order, though a request without one shifts the rest",
    }[one.objectives.missing]
    return f"{', '.join(f'`{name}`' for name in one.objectives.names.values())}; {without}"


DIALECT_NOTES = """\
Symbols: t0 request sent, m1..mM messages, c1..cm those with text, k1..km the tokens in them, N their sum, te the end of the answer.

A step of a model in this process is a message of as many tokens as it gave; one that gave none is an empty message; after the last
token nothing is sent. Three things are not imitated: tokens are those of the tape, where AIPerf, genai-perf, inference-perf and
MLPerf tokenise the text anew; rounding errors of floats; and the zeros that vLLM and SGLang print where there is no value at all.

- GuideLLM spreads tokens evenly from the first to the last before it makes rates of them, which leaves the mean rate as it is.
- AIPerf divides by N less the tokens of the first chunk where a server reports them (`--per-chunk-usage`); here it is N - 1.
- MLPerf's requests/s under Poisson arrivals is by default another, that of LoadGen; here it is requests over the whole window.
"""


def page() -> str:
    """The whole page."""
    lines = [INTRODUCTION, *table(["metric", "formula", "source"], DEFINITIONS), "", PROMISES, *percentiles()]
    lines += [
        "## Series",
        "",
        "`--series NAME,NAME` prints them, one row for each member of the axis; null where unavailable.",
        "",
    ]
    lines += table(
        ["series", "one a", "unit", "meaning"], [[f"`{s.name}`", s.axis, s.unit, s.meaning] for s in SERIES.values()]
    )
    header, rows = comparison(one_tape(), SLO)
    lines += ["", SCHEDULE, *table(header, rows, numbers=True), "", "## Dialects", "", DIALECT_NOTES]
    lines += [
        f"Percentile methods: {', '.join(f'`{name}`' for name in METHODS)}; `cumulative` is the least value at or below which"
    ]
    lines += ["lies that share of all weight, the others are those of `numpy.percentile`.", ""]
    for one in DIALECTS.values():
        lines += dialect_section(one)
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    made = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made:
        print(
            f"{PAGE} is not what tools/metrics_reference.py makes; fix: python tools/metrics_reference.py",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
