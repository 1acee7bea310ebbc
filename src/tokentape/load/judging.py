"""Who was at fault, if anybody: the verdicts on client and server, which never contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokentape.load.backlog import Passed, backlog_of
from tokentape.load.lateness import Lateness, verdict

__all__ = ["verdicts"]

OWN_SHARE = 0.5
"""Where the client itself was late by so much of what the waits grew, nothing can be said of the server."""
OWN_LEAST_NS = 2_000_000


def verdicts(
    measured: Sequence[Lateness],
    passed: Sequence[Passed],
    *,
    ttft_ns: float | None,
    gap_ns: float | None,
    processes: int = 1,
    n_unsent: int = 0,
    died: Sequence[str] = (),
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What is noted of the client, and of the server, None where of that nothing can be told.

    See :func:`~tokentape.load.lateness.verdict` and :func:`~tokentape.load.backlog.backlog_of`. A server fell behind where the
    client does not explain it; and where the server did, the client was not the bottleneck, however late it was.
    """
    found = backlog_of(passed, n_unsent)
    if found is not None:
        grew_ns = (found["growth"] or 0.0) * found["span_ns"]
        own_ns = max((one.dispatch.most or 0 for one in measured), default=0)
        found["behind"] = found["behind"] and own_ns <= max(OWN_SHARE * grew_ns, OWN_LEAST_NS)
    behind = found is not None and bool(found["behind"])
    client = verdict(measured, ttft_ns=ttft_ns, gap_ns=gap_ns, processes=processes, died=died, behind=behind)
    return client, found
