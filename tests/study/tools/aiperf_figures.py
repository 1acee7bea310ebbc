"""Run by a Python that has AIPerf: its own metrics over the events on stdin, its figures to stdout, in nanoseconds."""

import json
import sys
from types import SimpleNamespace

given = json.load(sys.stdin)
import numpy as np  # noqa: E402
from aiperf.common.exceptions import NoMetricValue  # noqa: E402
from aiperf.common.models.record_models import ReasoningResponseData, TextResponseData, TokenCounts  # noqa: E402
from aiperf.metrics.metric_dicts import MetricRecordDict, MetricResultsDict, metric_result_from_array  # noqa: E402
from aiperf.metrics.types.benchmark_duration_metric import BenchmarkDurationMetric  # noqa: E402
from aiperf.metrics.types.good_request_count_metric import GoodRequestCountMetric  # noqa: E402
from aiperf.metrics.types.inter_chunk_latency_metric import InterChunkLatencyMetric  # noqa: E402
from aiperf.metrics.types.inter_token_latency_metric import InterTokenLatencyMetric  # noqa: E402
from aiperf.metrics.types.max_response_metric import MaxResponseTimestampMetric  # noqa: E402
from aiperf.metrics.types.min_request_metric import MinRequestTimestampMetric  # noqa: E402
from aiperf.metrics.types.output_sequence_length_metric import (  # noqa: E402
    OutputSequenceLengthMetric,
    TotalOutputSequenceLengthMetric,
)
from aiperf.metrics.types.output_token_throughput_metrics import OutputTokenThroughputMetric  # noqa: E402
from aiperf.metrics.types.request_count_metric import RequestCountMetric  # noqa: E402
from aiperf.metrics.types.request_latency_metric import RequestLatencyMetric  # noqa: E402
from aiperf.metrics.types.request_throughput_metric import RequestThroughputMetric  # noqa: E402
from aiperf.metrics.types.time_to_first_output_token_metric import TimeToFirstOutputTokenMetric  # noqa: E402
from aiperf.metrics.types.ttft_metric import TTFTMetric  # noqa: E402
from aiperf.metrics.types.ttst_metric import TTSTMetric  # noqa: E402

ORDER = (
    TTFTMetric,
    TTSTMetric,
    TimeToFirstOutputTokenMetric,
    RequestLatencyMetric,
    OutputSequenceLengthMetric,
    InterTokenLatencyMetric,
    InterChunkLatencyMetric,
)
GoodRequestCountMetric.set_slos(
    {
        "time_to_first_token": given["slo"]["ttft"] * 1e3,
        "inter_token_latency": given["slo"]["gap"] * 1e3,
        "request_latency": given["slo"]["e2e"] * 1e3,
    }
)
samples = {metric.tag: [] for metric in ORDER}
begins, ends, good, counted = [], [], 0, 0
for one in given["requests"]:
    if one["outcome"] != "ended" or not one["chunks_ns"]:  # its records of errors are counted, and measured by nothing
        continue
    counted += 1
    said = [
        SimpleNamespace(
            perf_ns=at,
            data=ReasoningResponseData(reasoning="x")
            if one["output_ns"] is None or at < one["output_ns"]
            else TextResponseData(text="x"),
        )
        for at in one["chunks_ns"]
    ]
    record = SimpleNamespace(
        content_responses=said,
        start_perf_ns=one["start_ns"],
        timestamp_ns=one["start_ns"],
        request=SimpleNamespace(start_perf_ns=one["start_ns"]),
        token_counts=TokenCounts(input=one["n_prompt"], output=one["n"], reasoning=None),
    )
    values = MetricRecordDict()
    for metric in ORDER:
        try:
            values[metric.tag] = metric()._parse_record(record, values)
        except NoMetricValue:
            continue
        found = values[metric.tag]
        samples[metric.tag] += found if isinstance(found, list) else [found]
    begins.append(MinRequestTimestampMetric()._parse_record(record, values))
    ends.append(MaxResponseTimestampMetric()._parse_record(record, values))
    good += GoodRequestCountMetric()._parse_record(record, values)
figures = {}
for tag, some in samples.items():
    if some and tag != OutputSequenceLengthMetric.tag:
        one = metric_result_from_array(tag, tag, "ns", np.array(some, dtype=float), float(np.sum(some)))
        shares = {str(q): getattr(one, f"p{q}") for q in (1, 5, 10, 25, 50, 75, 90, 95, 99)}
        figures[tag] = {"n": one.count, "mean": one.avg, "std": one.std, **shares}
results = MetricResultsDict()
results[MinRequestTimestampMetric.tag], results[MaxResponseTimestampMetric.tag] = min(begins), max(ends)
results[BenchmarkDurationMetric.tag] = BenchmarkDurationMetric()._derive_value(results)
results[RequestCountMetric.tag] = counted
results[TotalOutputSequenceLengthMetric.tag] = sum(samples[OutputSequenceLengthMetric.tag])
for metric in (RequestThroughputMetric, OutputTokenThroughputMetric):
    figures[metric.tag] = {"mean": metric()._derive_value(results)}
seconds = results[BenchmarkDurationMetric.tag] / 1e9
json.dump({"figures": figures, "n_counted": counted, "good_per_s": good / seconds}, sys.stdout)
