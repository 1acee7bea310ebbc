"""What ``/metrics`` says, in the names of each server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Counts", "metrics_text"]

_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(slots=True)
class Histogram:
    """Counts of values in seconds, by upper bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        place = next((place for place, bound in enumerate(_BUCKETS) if seconds <= bound), len(_BUCKETS))
        self.counts[place] += 1
        self.total += seconds


@dataclass(slots=True)
class Counts:
    """What the server counts of itself."""

    running: int = 0
    waiting: int = 0
    n_finished: int = 0
    n_prompt: int = 0
    n_generated: int = 0
    prompt_seconds: float = 0.0
    generation_seconds: float = 0.0
    ttft: Histogram = field(default_factory=Histogram)
    gap: Histogram = field(default_factory=Histogram)
    latency: Histogram = field(default_factory=Histogram)


def metrics_text(dialect: str, model: str, counts: Counts) -> str | None:
    """The text of ``/metrics``; None where the server has none."""
    if dialect == "vllm":
        return _lines(_vllm(counts), f'model_name="{model}"', 'engine="0"')
    if dialect == "sglang":
        return _lines(_sglang(counts), f'model_name="{model}"')
    if dialect == "llama.cpp":
        return _lines(_llamacpp(counts))
    return None


Row = tuple[str, str, str, float | Histogram]


def _vllm(counts: Counts) -> list[Row]:
    return [
        ("vllm:num_requests_running", "gauge", "Number of requests in model execution batches.", counts.running),
        ("vllm:num_requests_waiting", "gauge", "Number of requests waiting to be processed.", counts.waiting),
        (
            "vllm:kv_cache_usage_perc",
            "gauge",
            "KV-cache usage. 1 means 100 percent usage.",
            min(counts.running / 256, 1.0),
        ),
        ("vllm:prompt_tokens_total", "counter", "Number of prefill tokens processed.", counts.n_prompt),
        ("vllm:generation_tokens_total", "counter", "Number of generation tokens processed.", counts.n_generated),
        ("vllm:request_success_total", "counter", "Count of successfully processed requests.", counts.n_finished),
        ("vllm:time_to_first_token_seconds", "histogram", "Histogram of time to first token in seconds.", counts.ttft),
        ("vllm:inter_token_latency_seconds", "histogram", "Histogram of inter-token latency in seconds.", counts.gap),
        (
            "vllm:e2e_request_latency_seconds",
            "histogram",
            "Histogram of e2e request latency in seconds.",
            counts.latency,
        ),
    ]


def _sglang(counts: Counts) -> list[Row]:
    throughput = counts.n_generated / counts.generation_seconds if counts.generation_seconds else 0.0
    return [
        ("sglang:prompt_tokens_total", "counter", "Number of prefill tokens processed.", counts.n_prompt),
        ("sglang:generation_tokens_total", "counter", "Number of generation tokens processed.", counts.n_generated),
        ("sglang:num_requests_total", "counter", "Number of requests processed.", counts.n_finished),
        ("sglang:num_running_reqs", "gauge", "The number of running requests.", counts.running),
        ("sglang:num_queue_reqs", "gauge", "The number of requests in the waiting queue.", counts.waiting),
        ("sglang:token_usage", "gauge", "The token usage.", min(counts.running / 256, 1.0)),
        ("sglang:gen_throughput", "gauge", "The generation throughput (token/s).", throughput),
        (
            "sglang:time_to_first_token_seconds",
            "histogram",
            "Histogram of time to first token in seconds.",
            counts.ttft,
        ),
        ("sglang:inter_token_latency_seconds", "histogram", "Histogram of inter-token latency in seconds.", counts.gap),
        (
            "sglang:e2e_request_latency_seconds",
            "histogram",
            "Histogram of End-to-end request latency in seconds.",
            counts.latency,
        ),
    ]


def _llamacpp(counts: Counts) -> list[Row]:
    read = counts.n_prompt / counts.prompt_seconds if counts.prompt_seconds else 0.0
    said = counts.n_generated / counts.generation_seconds if counts.generation_seconds else 0.0
    return [
        ("llamacpp:prompt_tokens_total", "counter", "Number of prompt tokens processed.", counts.n_prompt),
        ("llamacpp:prompt_seconds_total", "counter", "Prompt process time", counts.prompt_seconds),
        ("llamacpp:tokens_predicted_total", "counter", "Number of generation tokens processed.", counts.n_generated),
        ("llamacpp:tokens_predicted_seconds_total", "counter", "Predict process time", counts.generation_seconds),
        ("llamacpp:n_decode_total", "counter", "Total number of llama_decode() calls", counts.n_generated),
        ("llamacpp:prompt_tokens_seconds", "gauge", "Average prompt throughput in tokens/s.", read),
        ("llamacpp:predicted_tokens_seconds", "gauge", "Average generation throughput in tokens/s.", said),
        ("llamacpp:requests_processing", "gauge", "Number of requests processing.", counts.running),
        ("llamacpp:requests_deferred", "gauge", "Number of requests deferred.", counts.waiting),
    ]


def _lines(rows: Iterable[Row], *labels: str) -> str:
    lines: list[str] = []
    for name, kind, sentence, value in rows:
        lines += [f"# HELP {name} {sentence}", f"# TYPE {name} {kind}"]
        if isinstance(value, Histogram):
            lines += _histogram(name, value, labels)
        else:
            lines.append(f"{name}{_braced(labels)} {value!r}")
    return "\n".join([*lines, ""])


def _histogram(name: str, found: Histogram, labels: tuple[str, ...]) -> list[str]:
    lines, n = [], 0
    for bound, count in zip((*map(str, _BUCKETS), "+Inf"), found.counts, strict=True):
        n += count
        place = f'le="{bound}"'
        lines.append(f"{name}_bucket{_braced((place, *labels))} {n}")
    return [*lines, f"{name}_count{_braced(labels)} {n}", f"{name}_sum{_braced(labels)} {found.total!r}"]


def _braced(labels: tuple[str, ...]) -> str:
    return f"{{{','.join(labels)}}}" if labels else ""
