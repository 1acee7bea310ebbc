"""Each tool's own numbers from the same tape: what vLLM, AIPerf, GuideLLM and the others would have printed.

They use the same names for different things (docs/reference/metrics.md puts one tape through all of them). A dialect is a
table of formulas over one :class:`~tokentape.study.answers.Answer` a request; the symbols are explained at
:class:`~tokentape.study.readings.Formula`. Tokens are counted as the tape has them, where a tool may count its own by
tokenising the text anew. What a tool was read from stands in ``sources``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from fractions import Fraction

from tokentape.errors import UsageError
from tokentape.study.answers import Answer, total_tokens, window_ns
from tokentape.study.formulas import (
    after_first_chunk,
    after_first_chunk_by_its_rest,
    after_first_message,
    between_chunks,
    between_chunks_rounded,
    between_iterations,
    chunk_gaps,
    first_chunk,
    first_chunk_of_many,
    first_chunk_or_0,
    first_message,
    first_output,
    iterations,
    message_gaps,
    per_iteration,
    second_chunk,
    shared_gaps,
    token_gaps,
    whole,
    whole_content,
    whole_messages,
    whole_per_token,
)
from tokentape.study.readings import Course, Dialect, Formula, Objectives, Total, Window

__all__ = ["DIALECTS", "OF_SERVERS", "dialect"]

GRID = (1, 5, 10, 25, 50, 75, 90, 95, 99)
WIDE = (0.1, *GRID, 99.9)


# of a run


def _rate(n: int | None, ns: int | None) -> Fraction | None:
    return Fraction(n * 10**9, ns) if ns and n is not None else None


def _of_all(_: Sequence[Answer], course: Course) -> int | None:
    return window_ns(course.found)


def _of_counted(counted: Sequence[Answer], _: Course) -> int | None:
    return window_ns(counted)


def _of_content(counted: Sequence[Answer], _: Course) -> int | None:
    return window_ns(counted, content=True)


def _told_or_all(_: Sequence[Answer], course: Course) -> int | None:
    return window_ns(course.found) if course.duration_ns is None else course.duration_ns


def _told_or_content(counted: Sequence[Answer], course: Course) -> int | None:
    return window_ns(counted, content=True) if course.duration_ns is None else course.duration_ns


_SPANS = {
    _of_all: "last te - first t0, all requests",
    _of_counted: "last te - first t0, counted requests",
    _of_content: "last cm - first t0, counted requests",
    _told_or_all: "last te - first t0, all requests, or as told",
    _told_or_content: "last cm - first t0, counted requests, or as told",
}


def _tokens_per_s(name: str, over: Window = _of_all) -> Total:
    formula = f"sum N / ({_SPANS[over]})"
    return Total(name, "tokens/s", "tokens/s", formula, lambda c, f: _rate(total_tokens(c), over(c, f)))


def _requests_per_s(name: str, over: Window = _of_all) -> Total:
    formula = f"requests / ({_SPANS[over]})"
    return Total(name, "requests/s", "requests/s", formula, lambda c, f: _rate(len(c), over(c, f)))


def _ended(one: Answer) -> bool:
    return one.outcome == "ended"


def _iterations(found: Sequence[Answer]) -> int | None:
    known = [n for one in found if (n := iterations(one)) is not None]
    return sum(known) if len(known) == len(found) else None


def _speeds(found: Sequence[Answer]) -> list[Fraction] | None:
    """The tokens per second of each request, those of its prompt counted too."""
    speeds = []
    for one in found:
        took = whole(one)
        if not took or one.n_tokens is None or one.n_prompt is None:
            return None
        speeds.append(Fraction(one.n_tokens + one.n_prompt) * 10**9 / took[0])
    return speeds


def _mean(values: Sequence[Fraction] | None) -> Fraction | None:
    return sum(values, Fraction()) / len(values) if values else None


def _deviation(values: Sequence[Fraction] | None) -> Fraction | None:
    mean = _mean(values)
    if values is None or mean is None:
        return None
    squares = sum(((value - mean) ** 2 for value in values), Fraction())
    return Fraction(math.sqrt(squares / (len(values) - 1))) if len(values) > 1 else Fraction()


_VLLM = Dialect(
    name="vllm",
    project="vllm-project/vllm, `vllm bench serve` (0.33)",
    sources=("vllm/benchmarks/serve.py: calculate_metrics", "vllm/benchmarks/lib/endpoint_request_func.py"),
    counts=lambda one: _ended(one) and len(one.messages) > 0,
    counted="ended, with at least one message; the rest are `failed`, dropped, but in the duration",
    formulas=(
        Formula("ttft", "ttft", "m1 - t0", first_message),
        Formula("tpot", "tpot", "(mM - m1) / (N - 1), N > 1", after_first_message),
        Formula("itl", "itl", "m[i] - m[i-1], pooled, tokens not counted", message_gaps),
        Formula("e2el", "e2e", "mM - t0", whole_messages),
    ),
    totals=(
        _tokens_per_s("output_throughput", _told_or_all),
        _requests_per_s("request_throughput", _told_or_all),
    ),
    method="linear",
    percentiles=(50, 99),
    objectives=Objectives({"ttft_ns": "ttft", "gap_ns": "tpot", "e2e_ns": "e2el"}, "met", _told_or_all),
)

_SGLANG = Dialect(
    name="sglang",
    project="sgl-project/sglang, `sglang.bench_serving`, native backend",
    sources=("python/sglang/bench_serving.py: async_request_sglang_generate, calculate_metrics",),
    counts=_ended,
    counted="ended; the rest are dropped, but in the duration",
    formulas=(
        Formula("ttft", "ttft", "c1 - t0; 0 without a token", first_chunk_or_0),
        Formula("tpot", "tpot", "(te - c1) / (N - 1), N > 1", after_first_chunk),
        Formula("itl", "itl", "(c[i] - c[i-1]) / k[i], k[i] times, pooled", shared_gaps),
        Formula("e2e_latency", "e2e", "te - t0", whole),
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
    counts=lambda one: _ended(one) and len(one.shown) > 0,
    counted="ended, with a token; the rest are `error_request_count`, in no other figure",
    formulas=(
        Formula("time_to_first_token", "ttft", "c1 - t0", first_chunk),
        Formula("time_to_second_token", "ttst", "c2 - c1", second_chunk),
        Formula("time_to_first_output_token", "ttfo", "c1 - t0, reasoning apart", first_output),
        Formula(
            "inter_token_latency",
            "itl",
            "(cm - c1) / (N - 1), one a request, N > 1; with --per-chunk-usage / (N - k1)",
            between_chunks,
        ),
        Formula("inter_chunk_latency", "icl", "c[i] - c[i-1], pooled", chunk_gaps),
        Formula("request_latency", "e2e", "cm - t0", whole_content),
    ),
    totals=(
        _tokens_per_s("output_token_throughput", _told_or_content),
        _requests_per_s("request_throughput", _told_or_content),
    ),
    method="linear",
    percentiles=GRID,
    objectives=Objectives(
        {"ttft_ns": "time_to_first_token", "gap_ns": "inter_token_latency", "e2e_ns": "request_latency"},
        "missed",
        _told_or_content,
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
    counts=lambda one: len(one.shown) > 0,
    counted="with a token, whether they ended or not; requests/s counts the rest too",
    formulas=(
        Formula("time_to_first_token", "ttft", "c1 - t0", first_chunk),
        Formula("time_to_second_token", "ttst", "c2 - c1", second_chunk),
        Formula(
            "inter_token_latency",
            "itl",
            "(cm - c1) / (N - 1) to the nanosecond, one a request, N > 1 and m > 1",
            between_chunks_rounded,
        ),
        Formula("request_latency", "e2e", "cm - t0", whole_content),
    ),
    totals=(
        _tokens_per_s("output_token_throughput", _of_content),
        Total(
            "request_throughput",
            "requests/s",
            "requests/s",
            "all requests / (last cm - first t0, counted requests)",
            lambda counted, course: _rate(len(course.found), _of_content(counted, course)),
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
        "src/guidellm/schemas/base/request_stats.py: GenerativeRequestStats",
        "src/guidellm/schemas/base/statistics.py: DistributionSummary",
        "src/guidellm/benchmark/schemas/metrics.py: GenerativeMetrics.compile",
        "src/guidellm/schemas/benchmark/goodput.py: GoodputSLO",
    ),
    counts=_ended,
    counted="`successful`: ended; `errored` and `incomplete` (not finished) have figures of their own",
    formulas=(
        Formula("time_to_first_token_ms", "ttft", "c1 - t0", first_chunk),
        Formula("time_to_first_output_token_ms", "ttfo", "c1 - t0, reasoning apart", first_output),
        Formula(
            "time_per_output_token_ms",
            "tpot",
            "(cm - t0) / N, weight N; N is m if untold",
            per_iteration,
            lambda one: iterations(one) or 0,
        ),
        Formula(
            "inter_token_latency_ms",
            "itl",
            "(cm - c1) / (N - 1), N > 1, weight N - 1",
            between_iterations,
            lambda one: (iterations(one) or 1) - 1,
        ),
        Formula("request_latency", "e2e", "te - t0", whole),
    ),
    totals=(
        Total(
            "output_tokens_per_second",
            "tokens/s",
            "tokens/s",
            f"sum N / ({_SPANS[_told_or_all]}), the mean of its rates",
            lambda counted, course: _rate(_iterations(counted), _told_or_all(counted, course)),
        ),
        _requests_per_s("requests_per_second", _told_or_all),
    ),
    method="cumulative",
    percentiles=WIDE,
    objectives=Objectives(
        {"ttft_ns": "time_to_first_token_ms", "gap_ns": "inter_token_latency_ms", "e2e_ns": "request_latency"},
        "missed",
        _told_or_all,
    ),
)

_INFERENCE_PERF = Dialect(
    name="inference-perf",
    project="kubernetes-sigs/inference-perf",
    sources=("inference_perf/reportgen/base.py: summarize, summarize_requests, calculate_goodput_metrics",),
    counts=_ended,
    counted="ended; the rest are `failures`, but in the duration",
    formulas=(
        Formula("time_to_first_token", "ttft", "c1 - t0, N > 1", first_chunk_of_many),
        Formula("time_per_output_token", "tpot", "(cm - c1) / (N - 1), N > 1", between_chunks),
        Formula("inter_token_latency", "itl", "c[i] - c[i-1] and k[i] - 1 zeros, pooled", token_gaps),
        Formula("normalized_time_per_output_token", "normalised", "(te - t0) / N; 0 without a token", whole_per_token),
        Formula("request_latency", "e2e", "te - t0", whole),
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
        Formula("ttft_ns", "ttft", "c1 - t0", first_chunk),
        Formula("tpot_ns", "tpot", "(te - c1) / (N - k1), N > k1", after_first_chunk_by_its_rest),
        Formula("sample_latency_ns", "e2e", "te - t0", whole),
    ),
    totals=(
        Total(
            "tps",
            "tokens/s",
            "tokens/s",
            "sum N, ended / (last te - first t0, counted requests)",
            lambda counted, _: _rate(total_tokens([a for a in counted if _ended(a)]), window_ns(counted)),
        ),
        _requests_per_s("qps", _of_counted),
    ),
    method="lower",
    percentiles=(1, 5, 10, 25, 50, 75, 80, 90, 95, 97, 99, 99.9),
    ddof=1,
)

_LLAMA_BENCH = Dialect(
    name="llama-bench",
    project="ggml-org/llama.cpp, llama-bench",
    sources=("tools/llama-bench/llama-bench.cpp: test::get_ts, avg, stdev",),
    counts=_ended,
    counted="all repetitions; those of several tests together, so import one (--part) to see its figures",
    formulas=(Formula("avg_ns", "e2e", "te - t0", whole),),
    totals=(
        Total(
            "avg_ts",
            "tokens/s",
            "tokens/s",
            "mean of (P + N) / (te - t0), P the prompt",
            lambda c, _: _mean(_speeds(c)),
        ),
        Total("stddev_ts", "tokens/s of", "tokens/s", "their standard deviation", lambda c, _: _deviation(_speeds(c))),
    ),
    method="linear",
    percentiles=(),
    ddof=1,
)

DIALECTS: dict[str, Dialect] = {
    one.name: one for one in (_VLLM, _SGLANG, _AIPERF, _GENAI_PERF, _GUIDELLM, _INFERENCE_PERF, _MLPERF, _LLAMA_BENCH)
}
"""The dialects by name."""

OF_SERVERS = tuple(name for name in DIALECTS if name != _LLAMA_BENCH.name)
"""The names of those that look at a server's answers, so that one table can compare them."""


def dialect(name: str) -> Dialect:
    """A dialect by its name; raises UsageError that says which there are."""
    if name not in DIALECTS:
        near = difflib.get_close_matches(name.lower(), DIALECTS, n=1, cutoff=0.4)
        fix = f"did you mean {near[0]}?" if near else "leave it out for tokentape's own metrics"
        raise UsageError(f"no dialect {name!r}", why=f"there are {', '.join(DIALECTS)}", fix=fix)
    return DIALECTS[name]
