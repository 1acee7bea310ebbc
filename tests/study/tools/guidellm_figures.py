"""Run by a Python that has GuideLLM: its own compilation of metrics over the events on stdin, to stdout, in seconds."""

import json
import sys
from types import SimpleNamespace

given = json.load(sys.stdin)
from guidellm.benchmark.schemas import metrics as compiled  # noqa: E402
from guidellm.benchmark.schemas.accumulator import GenerativeRequestsAccumulator  # noqa: E402
from guidellm.schemas import GenerativeRequestStats, RequestInfo, RequestTimings, UsageMetrics  # noqa: E402
from guidellm.schemas.benchmark.goodput import GoodputSLO  # noqa: E402

BASE = 1000.0
"""Its functions take a moment of 0 for none."""


def stats(one):
    chunks = [BASE + at for at in one["chunks"]]
    moments = RequestTimings(
        request_start=BASE + one["start"],
        resolve_start=BASE + one["start"],
        first_token_iteration=chunks[0] if chunks else None,
        first_output_token_iteration=BASE + one["output"] if one["output"] is not None else None,
        last_token_iteration=chunks[-1] if chunks else None,
        token_iterations=len(chunks),
        request_end=BASE + one["end"],
        resolve_end=BASE + one["end"],
    )
    status = {"ended": "completed", "failed": "errored", "cut short": "cancelled"}[one["outcome"]]
    return GenerativeRequestStats(
        request_id="r",
        info=RequestInfo(request_id="r", status=status, timings=moments),
        input_metrics=UsageMetrics(text_tokens=one["n_prompt"]),
        output_metrics=UsageMetrics(text_tokens=one["n"]),
    )


groups = {"ended": [], "failed": [], "cut short": []}
for one in given["requests"]:
    groups[one["outcome"]].append(stats(one))
kept = {name: GenerativeRequestsAccumulator(requests_stats=some) for name, some in groups.items()}
slo = GoodputSLO(
    ttft_ms=given["slo"]["ttft"] * 1e3, tpot_ms=given["slo"]["gap"] * 1e3, e2el_ms=given["slo"]["e2e"] * 1e3
)
first = min(one["start"] for one in given["requests"])
accumulator = SimpleNamespace(
    timings=SimpleNamespace(
        finalized_measure_start=BASE + first, finalized_measure_end=BASE + first + given["duration"]
    ),
    completed=kept["ended"],
    errored=kept["failed"],
    incomplete=kept["cut short"],
    config=SimpleNamespace(confidence=None, slo=slo, strategy=SimpleNamespace(defines_arrival_schedule=False)),
)
found = compiled.GenerativeMetrics.compile(accumulator)
figures = {}
for name in (
    "time_to_first_token_ms",
    "time_to_first_output_token_ms",
    "time_per_output_token_ms",
    "inter_token_latency_ms",
    "request_latency",
    "output_tokens_per_second",
    "requests_per_second",
):
    one = getattr(found, name).successful
    unit = 1e3 if name.endswith("_ms") else 1.0
    shares = {key: value / unit for key, value in one.percentiles.model_dump().items()}
    figures[name] = {"n": one.count, "mean": one.mean / unit, "std": one.std_dev / unit, **shares}
good = found.request_goodput
json.dump(
    {
        "figures": figures,
        "n_counted": found.request_totals.successful,
        "good_per_s": None if good is None else good.successful.mean,
    },
    sys.stdout,
)
