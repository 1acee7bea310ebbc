"""Each tool's own numbers from the same tape: what vLLM, AIPerf, GuideLLM and the others would have printed.

They use the same names for different things (docs/reference/metrics.md puts one tape through all of them). A dialect is a
table of formulas over one :class:`~tokentape.study.answers.Answer` a request; the symbols are explained at
:class:`~tokentape.study.readings.Formula`. Tokens are counted as the tape has them, where a tool may count its own by
tokenising the text anew. What a tool was read from stands in ``sources``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from tokentape.errors import UsageError
from tokentape.study.answers import Answer, window_ns
from tokentape.study.readings import Dialect, Exact, Formula, Objectives, Total, Window

__all__ = ["DIALECTS", "dialect"]

Times = list[Exact]

GRID = (1, 5, 10, 25, 50, 75, 90, 95, 99)
WIDE = (0.1, *GRID, 99.9)


# of one request


def _divided(ns: int | None, n: int) -> Times:
    return [] if ns is None or n < 1 else [Fraction(ns, n)]


def _known(ns: int | None) -> Times:
    return [] if ns is None else [ns]


def _first_message(one: Answer) -> Times:
    return _known(one.since_start(one.messages[0].at_ns)) if one.messages else []


def _first_chunk(one: Answer) -> Times:
    return _known(one.since_start(one.chunks[0].at_ns)) if one.n_tokens else []


def _first_chunk_or_0(one: Answer) -> Times:
    return _first_chunk(one) if one.n_tokens else [0]


def _first_chunk_of_many(one: Answer) -> Times:
    return _first_chunk(one) if one.n_tokens > 1 else []


def _second_chunk(one: Answer) -> Times:
    return _chunk_gaps(one)[:1]


def _whole(one: Answer) -> Times:
    return _known(one.since_start(one.messages[-1].at_ns)) if one.messages else []


def _whole_content(one: Answer) -> Times:
    return _known(one.since_start(one.chunks[-1].at_ns)) if one.n_tokens else []


def _message_gaps(one: Answer) -> Times:
    return [after.at_ns - before.at_ns for before, after in pairwise(one.messages)]


def _chunk_gaps(one: Answer) -> Times:
    return [after.at_ns - before.at_ns for before, after in pairwise(one.chunks)]


def _shared_gaps(one: Answer) -> Times:
    """The gap before a chunk of k tokens as k gaps of a k-th of it."""
    gaps = zip(_chunk_gaps(one), one.chunks[1:], strict=True)
    return [Fraction(ns, chunk.n_tokens) for ns, chunk in gaps for _ in range(chunk.n_tokens)]


def _token_gaps(one: Answer) -> Times:
    """Every token at the moment of its chunk: 0 inside one."""
    moments = [chunk.at_ns for chunk in one.chunks for _ in range(chunk.n_tokens)]
    return [after - before for before, after in pairwise(moments)]


def _after_first_message(one: Answer) -> Times:
    return _divided(one.messages[-1].at_ns - one.messages[0].at_ns, one.n_tokens - 1) if one.messages else []


def _after_first_chunk(one: Answer) -> Times:
    return _divided(one.messages[-1].at_ns - one.chunks[0].at_ns, one.n_tokens - 1) if one.n_tokens else []


def _between_chunks(one: Answer) -> Times:
    return _divided(one.chunks[-1].at_ns - one.chunks[0].at_ns, one.n_tokens - 1) if one.n_tokens else []


def _between_chunks_rounded(one: Answer) -> Times:
    return [round(value) for value in _between_chunks(one)] if len(one.chunks) > 1 else []


def _per_token(one: Answer) -> Times:
    return _divided(one.since_start(one.chunks[-1].at_ns), one.n_tokens) if one.n_tokens else []


def _whole_per_token(one: Answer) -> Times:
    return [Fraction(value) / one.n_tokens if one.n_tokens else 0 for value in _whole(one)]


def _after_first_chunk_by_its_rest(one: Answer) -> Times:
    if one.outcome != "ended" or not one.n_tokens:
        return []
    first = one.chunks[0]
    return _divided(one.messages[-1].at_ns - first.at_ns, one.n_tokens - first.n_tokens)


# of a run


def _rate(n: int, ns: int | None) -> Fraction | None:
    return Fraction(n * 10**9, ns) if ns else None


def _tokens(found: Sequence[Answer]) -> int:
    return sum(one.n_tokens for one in found)


def _token_span_ns(found: Sequence[Answer]) -> int | None:
    moments = [chunk.at_ns for one in found for chunk in one.chunks]
    return max(moments) - min(moments) if moments else None


def _of_all(_: Sequence[Answer], found: Sequence[Answer]) -> int | None:
    return window_ns(found)


def _of_counted(counted: Sequence[Answer], _: Sequence[Answer]) -> int | None:
    return window_ns(counted)


def _of_content(counted: Sequence[Answer], _: Sequence[Answer]) -> int | None:
    return window_ns(counted, content=True)


_SPANS = {
    _of_all: "last te - first t0, all requests",
    _of_counted: "last te - first t0, counted requests",
    _of_content: "last cm - first t0, counted requests",
}


def _tokens_per_s(name: str, over: Window = _of_all) -> Total:
    formula = f"sum N / ({_SPANS[over]})"
    return Total(name, "tokens/s", "tokens/s", formula, lambda c, f: _rate(_tokens(c), over(c, f)))


def _requests_per_s(name: str, over: Window = _of_all) -> Total:
    formula = f"requests / ({_SPANS[over]})"
    return Total(name, "requests/s", "requests/s", formula, lambda c, f: _rate(len(c), over(c, f)))


def _ended(one: Answer) -> bool:
    return one.outcome == "ended"


_VLLM = Dialect(
    name="vllm",
    project="vllm-project/vllm, `vllm bench serve`",
    sources=("vllm/benchmarks/serve.py: calculate_metrics", "vllm/benchmarks/lib/endpoint_request_func.py"),
    counts=lambda one: _ended(one) and len(one.messages) > 0,
    counted="ended, with at least one message; the rest are `failed`, dropped, but in the duration",
    formulas=(
        Formula("ttft", "ttft", "m1 - t0", _first_message),
        Formula("tpot", "tpot", "(te - m1) / (N - 1), N > 1", _after_first_message),
        Formula("itl", "itl", "m[i] - m[i-1], pooled, tokens not counted", _message_gaps),
        Formula("e2el", "e2e", "te - t0", _whole),
    ),
    totals=(_tokens_per_s("output_throughput"), _requests_per_s("request_throughput")),
    method="linear",
    percentiles=(50, 99),
    objectives=Objectives({"ttft_ns": "ttft", "gap_ns": "tpot", "e2e_ns": "e2el"}, "met", _of_all),
)

_SGLANG = Dialect(
    name="sglang",
    project="sgl-project/sglang, `sglang.bench_serving`, native backend",
    sources=("python/sglang/bench_serving.py: async_request_sglang_generate, calculate_metrics",),
    counts=_ended,
    counted="ended; the rest are dropped, but in the duration",
    formulas=(
        Formula("ttft", "ttft", "c1 - t0; 0 without a token", _first_chunk_or_0),
        Formula("tpot", "tpot", "(te - c1) / (N - 1), N > 1", _after_first_chunk),
        Formula("itl", "itl", "(c[i] - c[i-1]) / k[i], k[i] times, pooled", _shared_gaps),
        Formula("e2e_latency", "e2e", "te - t0", _whole),
    ),
    totals=(_tokens_per_s("output_throughput"), _requests_per_s("request_throughput")),
    method="linear",
    percentiles=(50, 90, 95, 99),
)

_AIPERF = Dialect(
    name="aiperf",
    project="ai-dynamo/aiperf",
    sources=(
        "metrics/types/ttft_metric.py, ttst_metric.py, inter_token_latency_metric.py, inter_chunk_latency_metric.py",
        "metrics/types/request_latency_metric.py, benchmark_duration_metric.py, good_request_count_metric.py",
        "metrics/metric_dicts.py: MetricArray",
    ),
    counts=lambda one: _ended(one) and one.n_tokens > 0,
    counted="ended, with a token; the rest are `error_request_count`, in no other figure",
    formulas=(
        Formula("time_to_first_token", "ttft", "c1 - t0", _first_chunk),
        Formula("time_to_second_token", "ttst", "c2 - c1", _second_chunk),
        Formula("inter_token_latency", "itl", "(cm - c1) / (N - 1), one a request, N > 1", _between_chunks),
        Formula("inter_chunk_latency", "icl", "c[i] - c[i-1], pooled", _chunk_gaps),
        Formula("request_latency", "e2e", "cm - t0", _whole_content),
    ),
    totals=(_tokens_per_s("output_token_throughput", _of_content), _requests_per_s("request_throughput", _of_content)),
    method="linear",
    percentiles=GRID,
    objectives=Objectives(
        {"ttft_ns": "time_to_first_token", "gap_ns": "inter_token_latency", "e2e_ns": "request_latency"},
        "missed",
        _of_content,
    ),
)

_GENAI_PERF = Dialect(
    name="genai-perf",
    project="triton-inference-server/perf_analyzer, genai-perf",
    sources=(
        "genai-perf/genai_perf/profile_data_parser/llm_profile_data_parser.py: _parse_requests",
        "genai-perf/genai_perf/metrics/statistics.py",
        "genai-perf/genai_perf/goodput_calculator/llm_goodput_calculator.py",
    ),
    counts=lambda one: one.n_tokens > 0,
    counted="with a token, whether they ended or not; requests/s counts the rest too",
    formulas=(
        Formula("time_to_first_token", "ttft", "c1 - t0", _first_chunk),
        Formula("time_to_second_token", "ttst", "c2 - c1", _second_chunk),
        Formula(
            "inter_token_latency",
            "itl",
            "(cm - c1) / (N - 1) to the nanosecond, one a request, N > 1 and m > 1",
            _between_chunks_rounded,
        ),
        Formula("request_latency", "e2e", "cm - t0", _whole_content),
    ),
    totals=(
        _tokens_per_s("output_token_throughput", _of_content),
        Total(
            "request_throughput",
            "requests/s",
            "requests/s",
            "all requests / (last cm - first t0, counted requests)",
            lambda counted, found: _rate(len(found), _of_content(counted, found)),
        ),
    ),
    method="linear",
    percentiles=GRID,
    objectives=Objectives(
        {"ttft_ns": "time_to_first_token", "gap_ns": "inter_token_latency", "e2e_ns": "request_latency"},
        "zipped",
        _of_content,
    ),
)

_GUIDELLM = Dialect(
    name="guidellm",
    project="vllm-project/guidellm",
    sources=(
        "src/guidellm/schemas/request_stats.py: GenerativeRequestStats",
        "src/guidellm/schemas/statistics.py: DistributionSummary",
        "src/guidellm/benchmark/schemas/metrics.py: GenerativeMetrics.compile",
    ),
    counts=_ended,
    counted="`successful`: ended; `errored` and `incomplete` (cut short) have figures of their own",
    formulas=(
        Formula("time_to_first_token_ms", "ttft", "c1 - t0; 0 without a token", _first_chunk_or_0),
        Formula("time_per_output_token_ms", "tpot", "(cm - t0) / N, weight N", _per_token, lambda one: one.n_tokens),
        Formula(
            "inter_token_latency_ms",
            "itl",
            "(cm - c1) / (N - 1), N > 1, weight N - 1",
            _between_chunks,
            lambda one: one.n_tokens - 1,
        ),
        Formula("request_latency", "e2e", "te - t0", _whole),
    ),
    totals=(
        Total(
            "output_tokens_per_second",
            "tokens/s",
            "tokens/s",
            "sum N / (last cm - first c1), the mean of its rates",
            lambda counted, found: _rate(_tokens(counted), _token_span_ns(counted)),
        ),
        _requests_per_s("requests_per_second"),
    ),
    method="cumulative",
    percentiles=WIDE,
)

_INFERENCE_PERF = Dialect(
    name="inference-perf",
    project="kubernetes-sigs/inference-perf",
    sources=("inference_perf/reportgen/base.py: summarize, summarize_requests, calculate_goodput_metrics",),
    counts=_ended,
    counted="ended; the rest are `failures`, but in the duration",
    formulas=(
        Formula("time_to_first_token", "ttft", "c1 - t0, N > 1", _first_chunk_of_many),
        Formula("time_per_output_token", "tpot", "(cm - c1) / (N - 1), N > 1", _between_chunks),
        Formula("inter_token_latency", "itl", "c[i] - c[i-1] and k[i] - 1 zeros, pooled", _token_gaps),
        Formula("normalized_time_per_output_token", "normalised", "(te - t0) / N; 0 without a token", _whole_per_token),
        Formula("request_latency", "e2e", "te - t0", _whole),
    ),
    totals=(_tokens_per_s("output_tokens_per_sec"), _requests_per_s("requests_per_sec")),
    method="linear",
    percentiles=WIDE,
    objectives=Objectives(
        {"ttft_ns": "time_to_first_token", "gap_ns": "time_per_output_token", "e2e_ns": "request_latency"},
        "missed",
        _of_counted,
    ),
)

_MLPERF = Dialect(
    name="mlperf",
    project="mlcommons/endpoints",
    sources=(
        "src/inference_endpoint/async_utils/services/metrics_aggregator/metrics_table.py",
        "src/inference_endpoint/async_utils/services/metrics_aggregator/registry.py: SeriesSampler",
        "src/inference_endpoint/metrics/report.py",
    ),
    counts=lambda one: one.outcome != "cut short",
    counted="completed: ended, and failed ones too, which have no output and so no TPOT",
    formulas=(
        Formula("ttft_ns", "ttft", "c1 - t0", _first_chunk),
        Formula("tpot_ns", "tpot", "(te - c1) / (N - k1), N > k1", _after_first_chunk_by_its_rest),
        Formula("sample_latency_ns", "e2e", "te - t0", _whole),
    ),
    totals=(
        Total(
            "tps",
            "tokens/s",
            "tokens/s",
            "sum N, ended / (last te - first t0, counted requests)",
            lambda counted, found: _rate(_tokens([a for a in counted if _ended(a)]), window_ns(counted)),
        ),
        _requests_per_s("qps", _of_counted),
    ),
    method="lower",
    percentiles=(1, 5, 10, 25, 50, 75, 80, 90, 95, 97, 99, 99.9),
    ddof=1,
)

DIALECTS: dict[str, Dialect] = {
    one.name: one for one in (_VLLM, _SGLANG, _AIPERF, _GENAI_PERF, _GUIDELLM, _INFERENCE_PERF, _MLPERF)
}
"""The dialects by name."""


def dialect(name: str) -> Dialect:
    """A dialect by its name; raises UsageError that says which there are."""
    if name not in DIALECTS:
        near = difflib.get_close_matches(name.lower(), DIALECTS, n=1, cutoff=0.4)
        fix = f"did you mean {near[0]}?" if near else "leave it out for tokentape's own metrics"
        raise UsageError(f"no dialect {name!r}", why=f"there are {', '.join(DIALECTS)}", fix=fix)
    return DIALECTS[name]
