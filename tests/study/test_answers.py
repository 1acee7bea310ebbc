"""What a client saw of answers that a server gave: N, messages, chunks, outcome and end, from rows and exchange together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tokentape.data import Run, Setting, TraceHead
from tokentape.data.exchange import Exchange
from tokentape.data.tape import Tape
from tokentape.recorder.many import ManyRuns
from tokentape.recorder.tick import LiveRun, Said, Tick
from tokentape.study.answers import Answer, Chunk, answers, duration_ns, total_tokens, window_ns
from tokentape.study.metrics import Slo, metrics

MS = 1_000_000
Message = tuple[float, int] | tuple[float, int, dict[str, Any]]


def served(
    messages: Sequence[Message],
    *,
    reasons: tuple[str | None, ...] = ("stop",),
    options: dict[str, Any] | None = None,
    notes: dict[str, Any] | None = None,
    **passed: Any,
) -> Tape:
    """One request sent at 0: messages at so many milliseconds with so many rows; what else is told of them."""
    heads = tuple(TraceHead(row, None, None, None) for row in range(len(reasons)))
    many = ManyRuns(None, Setting({"model": "m"}), 0, notes=notes)
    many.begin(0, LiveRun(Run(heads, options or {}), 0, iter(()), lambda: reasons))  # type: ignore[arg-type]
    before = 0
    for at, n, *more in messages:
        told: dict[str, Any] = more[0] if more else {}
        data = told.get("data", b"x")
        said = tuple(Said(told.get("row", 0), None, data, channel=told.get("channel")) for _ in range(n))
        many.add(0, [Tick("chunk", told.get("choices", len(reasons)), before, round(at * MS), said=said)])
        before = round(at * MS)
    moments = {name: round(at * MS) for name, at in passed.items() if name.endswith("_ns")}
    many.end(0, reasons, Exchange(**{**passed, **moments}))
    return many.close()


def seen(one: Answer) -> list[tuple[float, int | None]]:
    return [(message.at_ns / MS, message.n_tokens) for message in one.messages]


def test_rows_of_a_counted_answer_are_its_tokens() -> None:
    (one,) = answers(served([(5, 0), (9, 2), (12, 1)], label="counted", n_completion=3, ended_ns=13))
    assert seen(one) == [(5, 0), (9, 2), (12, 1)]
    assert (one.n_tokens, one.sizes, one.ended_ns) == (3, [2, 1], 13 * MS)


def test_rows_of_a_coarse_answer_are_some_tokens() -> None:
    tape = served([(5, 1), (9, 1)], label="coarse", n_completion=7, ended_ns=10)
    (one,) = answers(tape)
    assert seen(one) == [(5, None), (9, None)] and one.sizes is None
    assert one.n_tokens == 7 and len(one.chunks) == 2
    found = metrics(tape, dialect="vllm")
    assert found.figure("tpot").mean == pytest.approx(4 * MS / 6), "N is the server's"  # type: ignore[union-attr]
    assert metrics(tape).mean_gap.mean == pytest.approx(4 * MS / 6) and metrics(tape).token_gap.n == 0


def test_nobody_counted() -> None:
    tape = served([(5, 1), (9, 1)], label="coarse", ended_ns=10)
    (one,) = answers(tape)
    assert one.n_tokens is None and total_tokens([one]) is None
    own = metrics(tape, slo=Slo(ttft_ns=6 * MS, gap_ns=MS))
    assert own.n_tokens is None and own.tokens_per_s is None and own.mean_gap.mean is None
    assert own.goodput is not None and own.goodput.n_unknown == 1
    for name, kind in [("vllm", "tpot"), ("sglang", "itl"), ("inference-perf", "itl"), ("mlperf", "tpot")]:
        assert metrics(tape, dialect=name).figure(kind).mean is None, name  # type: ignore[union-attr]
    for name in ("vllm", "aiperf", "inference-perf"):
        assert metrics(tape, dialect=name).figure("tokens/s").mean is None, name  # type: ignore[union-attr]
        assert metrics(tape, dialect=name, slo=Slo(gap_ns=MS)).goodput is None, name
        assert metrics(tape, dialect=name, slo=Slo(ttft_ns=6 * MS)).goodput["n_good"] == 1  # type: ignore[index]
    # GuideLLM itself counts the messages then
    assert metrics(tape, dialect="guidellm").figure("tpot").mean == 9 * MS / 2  # type: ignore[union-attr]
    assert metrics(tape, dialect="guidellm").figure("tokens/s").mean == pytest.approx(2 / 10e-3)  # type: ignore[union-attr]


def test_count_of_several_choices_together_is_of_none_of_them() -> None:
    messages: list[Message] = [(5, 1, {"row": 0}), (6, 1, {"row": 1}), (7, 1, {"row": 1})]
    coarse = answers(served(messages, reasons=("stop", "stop"), label="coarse", n_completion=9))
    assert [one.n_tokens for one in coarse] == [None, None]
    exact = answers(served(messages, reasons=("stop", "stop"), label="exact", n_completion=3))
    assert [one.n_tokens for one in exact] == [1, 2]


def test_a_message_about_no_choice_is_none_of_the_answer() -> None:
    tape = served([(5, 1), (9, 1), (20, 0, {"choices": 0})], label="exact", n_completion=2, ended_ns=21)
    (one,) = answers(tape)
    assert seen(one) == [(5, 1), (9, 1)]
    vllm, guidellm = metrics(tape, dialect="vllm"), metrics(tape, dialect="guidellm")
    assert vllm.figure("e2e").mean == 9 * MS, "the usage at its end is not in vLLM's time"  # type: ignore[union-attr]
    assert guidellm.figure("e2e").mean == 21 * MS, "but in GuideLLM's"  # type: ignore[union-attr]


def test_what_only_opens_a_chat_is_no_message() -> None:
    messages: list[Message] = [(3, 0), (5, 1), (7, 0), (9, 1)]
    chat = answers(served(messages, options={"messages": []}, label="exact", n_completion=2))[0]
    plain = answers(served(messages, options={"prompt": "x"}, label="exact", n_completion=2))[0]
    assert seen(chat) == [(5, 1), (7, 0), (9, 1)] and seen(plain) == [(3, 0), *seen(chat)]


def test_first_output_comes_after_the_reasoning() -> None:
    thought, text = {"channel": 1}, {"channel": 0}
    (one,) = answers(served([(4, 1, thought), (6, 2, thought), (9, 1, text)], label="exact"))
    assert one.output_ns == 9 * MS
    (one,) = answers(served([(4, 1, thought)], label="exact"))
    assert one.output_ns is None
    tape = served([(4, 1, thought), (9, 1, text)], label="exact")
    assert metrics(tape, dialect="aiperf").figure("ttfo").mean == 9 * MS  # type: ignore[union-attr]
    assert metrics(tape, dialect="aiperf").figure("ttft").mean == 4 * MS  # type: ignore[union-attr]


def test_tokens_without_text_are_no_content() -> None:
    blank = {"data": b""}
    messages: list[Message] = [(4, 1, blank), (6, 1), (9, 2, blank), (11, 1), (12, 1, blank)]
    tape = served(messages, label="exact", n_completion=6, ended_ns=13)
    (one,) = answers(tape)
    assert [chunk.at_ns // MS for chunk in one.shown] == [6, 11] and one.n_tokens == 6
    assert one.sizes == [1, 1, 2, 1, 1] and one.shown_sizes == [2, 3]
    aiperf, vllm = metrics(tape, dialect="aiperf"), metrics(tape, dialect="vllm")
    assert aiperf.figure("ttft").mean == 6 * MS and aiperf.figure("itl").mean == MS  # type: ignore[union-attr]
    assert vllm.figure("ttft").mean == 4 * MS, "vLLM takes every message for one"  # type: ignore[union-attr]
    assert metrics(tape, dialect="sglang").figure("itl").mean == pytest.approx(5 * MS / 3)  # type: ignore[union-attr]
    assert metrics(tape).ttft.mean == 4 * MS, "for us a token is one, whatever it looks like"


def test_answers_without_a_message() -> None:
    failed = answers(served([], reasons=("error",), fault="http_error", status=503, ended_ns=4))[0]
    assert (failed.outcome, failed.n_tokens, failed.ended_ns) == ("failed", 0, 4 * MS)
    whole = answers(served([], reasons=("length",), n_completion=12, ended_ns=40))[0]
    assert (whole.outcome, whole.n_tokens, whole.chunks) == ("ended", 12, []), "it came in one piece, not as a stream"


def test_of_the_ends_nothing_between_is_known() -> None:
    tape = served([(5, 1), (25, 1)], label="ends", n_completion=11, ended_ns=26)
    (one,) = answers(tape)
    assert not one.whole and one.sizes is None and one.n_tokens == 11
    assert metrics(tape).chunk_gap.n == metrics(tape).step_time.n == 0 and metrics(tape).ttft.mean == 5 * MS
    assert metrics(tape, dialect="vllm").figure("itl").mean is None  # type: ignore[union-attr]
    assert metrics(tape, dialect="aiperf").figure("itl").mean == 2 * MS  # type: ignore[union-attr]
    uncounted = served([(5, 1), (25, 1)], label="ends", ended_ns=26)
    assert metrics(uncounted, dialect="guidellm").figure("tpot").mean is None  # type: ignore[union-attr]


def test_times_with_no_common_axis_have_no_window() -> None:
    noted = {"imported": {"tool": "vllm", "lacks": ["starts"], "duration_ns": 50 * MS}}
    tape = served([(5, 1)], label="exact", n_completion=1, notes=noted)
    assert (
        window_ns(answers(tape)) is None
        and duration_ns(tape, "vllm") == 50 * MS
        and duration_ns(tape, "aiperf") is None
    )
    assert metrics(tape).requests_per_s is None
    assert metrics(tape, dialect="vllm").figure("requests/s").mean == 20  # type: ignore[union-attr]
    assert metrics(tape, dialect="sglang").figure("requests/s").mean is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "noted",
    [
        None,
        "vllm",
        {"tool": "vllm", "lacks": [], "duration_ns": None},
        {"tool": "vllm", "duration_ns": "x"},
        {"tool": "vllm", "duration_ns": 0},
    ],
)
def test_a_note_that_says_nothing(noted: Any) -> None:
    tape = served([(5, 1)], label="exact", notes={"imported": noted})
    assert duration_ns(tape, "vllm") is None and answers(tape)[0].placed


def test_window_ends_with_the_last_answer() -> None:
    one = Answer(0, 0, 0, (Chunk(5, 1),), "ended", closed_ns=9)
    assert window_ns([one]) == 9 and window_ns([one], content=True) == 5
    assert (
        window_ns([Answer(0, 0, 2, (), "failed", closed_ns=3)]) == 1
        and window_ns([Answer(0, 0, 2, (), "failed")]) is None
    )
