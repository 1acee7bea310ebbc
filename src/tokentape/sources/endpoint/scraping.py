"""``/metrics`` of a server: gauges and counters in the text format of Prometheus, read on the clock of everything else."""

from __future__ import annotations

import math
import re

from tokentape.data.exchange import Scrape
from tokentape.sources.endpoint.getting import get
from tokentape.sources.endpoint.wire import Host

__all__ = ["METRICS", "NotMetrics", "metrics_of", "scrape"]

METRICS = "//metrics"
"""Beside the version in a server's paths, not below it."""

MOST_VALUES = 5_000
LONGEST_NAME = 500

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*(?:,|(?=\}))')
_VALUE = re.compile(r"\s+(\S+)(?:\s+-?\d+)?\s*\Z")


class NotMetrics(ValueError):
    """A text is not in the format; the text of the error says in which line."""


def metrics_of(text: str) -> dict[str, float]:
    """Values by name and labels, as they came: ``{'vllm:num_requests_running{model_name="m"}': 2.0}``.

    Values that are not finite are left out, as are the buckets of histograms (their sum and count are kept) and the quantiles of
    summaries. Raises :class:`NotMetrics` for what is no such text, or has more than :data:`MOST_VALUES` values.
    """
    found: dict[str, float] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, value = _sample(line, number)
        if name is None or not math.isfinite(value):
            continue
        if len(found) >= MOST_VALUES:
            raise NotMetrics(f"more than {MOST_VALUES:,} values")
        found[name] = value
    return found


def _sample(line: str, number: int) -> tuple[str | None, float]:
    matched = _NAME.match(line)
    if matched is None:
        raise NotMetrics(f"line {number} begins with no name: {line[:60]!r}")
    name, at = matched.group(), matched.end()
    labels = []
    if line[at : at + 1] == "{":
        at += 1
        while (label := _LABEL.match(line, at)) is not None:
            labels.append((label.group(1), label.group(2)))
            at = label.end()
        while line[at : at + 1].isspace():
            at += 1
        if line[at : at + 1] != "}":
            raise NotMetrics(f"line {number} has labels that do not end: {line[:60]!r}")
        at += 1
    rest = _VALUE.match(line, at)
    if rest is None:
        raise NotMetrics(f"line {number} has no value: {line[:60]!r}")
    try:
        value = float(rest.group(1))
    except ValueError:
        raise NotMetrics(f"line {number} has a value that is no number: {rest.group(1)[:40]!r}") from None
    if "_" in rest.group(1):
        raise NotMetrics(f"line {number} has a value that is no number: {rest.group(1)[:40]!r}")
    if (name.endswith("_bucket") and any(key == "le" for key, _ in labels)) or any(
        key == "quantile" for key, _ in labels
    ):
        return None, value
    inside = ",".join(f'{key}="{text}"' for key, text in labels)
    whole = f"{name}{{{inside}}}" if labels else name
    return (whole if len(whole) <= LONGEST_NAME else None), value


def scrape(host: Host, *, within_ns: int = 2_000_000_000) -> Scrape | None:
    """One reading of the server's metrics; None where it has none that can be read. Times are marks of the host clock."""
    got = get(host, host.address.target(METRICS), within_ns=within_ns)
    if got.status != 200 or got.fault is not None:
        return None
    try:
        values = metrics_of(got.body.decode("utf-8"))
    except (NotMetrics, UnicodeDecodeError):
        return None
    return Scrape("server", got.began_ns, got.ended_ns, values) if values else None
