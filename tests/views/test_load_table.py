"""What a load shows: the live table, the end card, the table of a sweep; in both languages."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from served_tapes import Served, loaded_tape, passed, served_tape, usage, words
from tokentape.data.exchange import IN_ONE_PIECE
from tokentape.data.tape import open_tape
from tokentape.load.account import account_of
from tokentape.load.knee import Step, Swept, step_of
from tokentape.load.lateness import Lateness, verdict
from tokentape.load.standing import Standing
from tokentape.study.metrics import metrics
from tokentape.study.served_summary import served_summary
from tokentape.study.slo import Slo
from tokentape.views.load_table import client_lines, live_line, live_lines, load_card, sweep_table
from tokentape.views.screen import Screen
from tokentape.words.catalogue import phrases

MS = 1_000_000
EN, ZH = Screen(), Screen(lang="zh")


def late(**ns):
    one = Lateness(wall_ns=1000 * MS, busy_ns=100 * MS, cpu_ns=100 * MS)
    for name, value in ns.items():
        for _ in range(700):  # for a 99th percentile
            getattr(one, name).add(value)
    return one


def test_the_card_has_the_figures_of_the_tape(tmp_path):
    loaded_tape(tmp_path / "a.tape", n=300)
    with open_tape(tmp_path / "a.tape") as tape:
        account = account_of(tape, Slo(ttft_ns=40 * MS))
        own = metrics(tape, slo=Slo(ttft_ns=40 * MS), since="start")
        due = metrics(tape, slo=Slo(ttft_ns=40 * MS))
        for key, name in (("ttft", "ttft"), ("token_gap", "token_gap"), ("chunk_gap", "chunk_gap"), ("e2e", "e2e")):
            spread = getattr(own, name)
            told = account[key]
            assert (told["n"], told["mean"], told["max"]) == (spread.n, spread.mean, spread.max), key
            assert [told[f"p{one.q:g}"] for one in spread.percentiles] == [one.value for one in spread.percentiles], key
        assert account["goodput_from_start"]["n_good"] == own.goodput.n_good
        assert account["goodput"]["n_good"] == due.goodput.n_good
        assert account["goodput"]["requests_per_s"] == due.goodput.requests_per_s
        assert account["requests_per_s"] == due.requests_per_s <= account["rates"]["due_per_s"]
        assert (account["n_failed"], account["n_tokens"]) == (own.n_failed, own.n_tokens)
        text = load_card(account, "a.tape", EN, "ttft=40ms")
        assert "300 requests: 297 answered, 3 failed, 0 not finished" in text
        assert "3 http_error" in text and "297 exact" in text
        assert "met ttft=40ms" in text and "kept up: sent" in text
        chinese = load_card(account, "a.tape", ZH, "ttft=40ms")
        assert "300 个请求" in chinese and "跟得上" in chinese


def test_what_is_told_of_a_load_is_what_is_told_of_its_tape(tmp_path):
    """Messages of one read have no gap; a count that cannot be true, with 16 tokens asked for, is none: here as there."""
    together = (
        (20 * MS, words(" a")),
        (6 * MS, words(" b")),
        (0, words(" c")),
        (4 * MS, words(" d", " e")),
        (5 * MS, words("f")),
    )
    known = passed(0, 9 * MS, 36 * MS, label="exact", finish="stop", **usage(5, 6))
    honest = Served("together", together, known)
    lying = replace(honest, exchange=replace(known, label="coarse", n_completion=10**15))
    for kinds in ([honest] * 12, [honest, lying] * 6):
        with open_tape(served_tape(tmp_path / f"{kinds.count(lying)}.tape", kinds=kinds, scrapes=())) as tape:
            account, own, card = account_of(tape), metrics(tape), served_summary(tape)
        assert account["token_gap"]["n"] == own.token_gap.n == card.gaps[0].n == kinds.count(honest)
        assert (
            account["token_gap"]["n_untold"] == own.token_gap.n_untold == card.n_gaps_untold == 4 * kinds.count(honest)
        )
        assert account["token_gap"]["p50"] == own.token_gap.percentiles[0].value == card.gaps[0].value
        assert account["token_gap"]["mean"] == own.token_gap.mean == 3 * MS  # five in 15 ms
        assert account["chunk_gap"]["n"] == own.chunk_gap.n == 36
        assert account["n_tokens"] == own.n_tokens == card.n_tokens == (72 if lying not in kinds else None)
        assert account["tokens_per_s"] == own.tokens_per_s
        assert (account["tokens_per_s"] is None) == (lying in kinds)


def test_goodput_is_told_from_when_requests_were_due_where_that_is_another(tmp_path):
    late = [
        Served("late", ((20 * MS, words(" a")),), passed(0, MS, 25 * MS, label="exact", scheduled_ns=-by * 10 * MS))
        for by in range(10)
    ]
    with open_tape(served_tape(tmp_path / "a.tape", kinds=late, scrapes=())) as tape:
        slo = Slo(ttft_ns=50 * MS)
        account, due = account_of(tape, slo), metrics(tape, slo=slo, since="due")
        assert account["goodput"]["n_good"] == due.goodput.n_good == 4 and account["goodput_from_start"]["n_good"] == 10
        text = load_card(account, None, EN, "ttft=50ms")
        assert "(40 % of the 10 that were due) met ttft=50ms, counted from when they were due" in text
        assert "; of the 10 that were sent, counted from sending, 100 %" in text
        assert "自应发时刻起算" in load_card(account, None, ZH, "ttft=50ms")
        fair = account_of(tape, Slo(ttft_ns=500 * MS))
        assert "counted from sending" not in load_card(fair, None, EN, "ttft=500ms")
        assert step_of(4, account).n_good == 4 and step_of(4, {**account, "n_unsent": 30}).share == 0.1


def test_answers_in_one_piece_are_named_and_no_promise_is_called_broken(tmp_path):
    whole = [
        Served("one", ((20 * MS, words(" a")),), passed(0, MS, 25 * MS, label="counted", server=dict(IN_ONE_PIECE)))
        for _ in range(3)
    ]
    with open_tape(served_tape(tmp_path / "a.tape", kinds=whole, scrapes=())) as tape:
        text = load_card(account_of(tape, Slo(ttft_ns=50 * MS)), None, EN, "ttft=50ms")
        assert "in one piece" in text and "3 answers came as a whole" in text
        assert "n/a: of none of the 3 can it be told whether it met ttft=50ms" in text
        chinese = load_card(account_of(tape, Slo(ttft_ns=50 * MS)), None, ZH, "ttft=50ms")
        assert "3 个请求都无法判断" in chinese
        assert "100 %" in load_card(account_of(tape, Slo(e2e_ns=50 * MS)), None, EN, "e2e=50ms")


def test_percentiles_of_too_few_say_how_many_more_they_need(tmp_path):
    loaded_tape(tmp_path / "few.tape", n=16, every_fault=99)
    with open_tape(tmp_path / "few.tape") as tape:
        account = account_of(tape)
    lacking = account["ttft"]["needs"]
    name = next(one for one in ("p50", "p90") if one in lacking)
    told = next(line for line in load_card(account, None, EN).splitlines() if line.startswith("TTFT  "))
    assert f"{name} needs {lacking[name]} more  max " in told and "n/a" not in told and "p99" not in told


def test_gaps_that_are_not_measured_are_counted_beside_those_between_arrivals(tmp_path):
    chunked = tuple((40 * MS, words(" a", " b", " c", " d")) for _ in range(10))
    served = Served("chunked", chunked, passed(0, 9 * MS, 500 * MS, label="exact", **usage(5, 40)))
    with open_tape(served_tape(tmp_path / "a.tape", kinds=[served] * 3, scrapes=())) as tape:
        text = load_card(account_of(tape), None, EN)
    assert re.search("gap +117 are not measured, since their tokens came together with others; mean 9.23 ms", text)
    assert re.search("chunk gap +p50 40.0 ms", text)


def test_every_kind_of_request_can_be_told(tmp_path):
    served_tape(tmp_path / "b.tape")
    with open_tape(tmp_path / "b.tape") as tape:
        for screen in (EN, ZH, Screen(width=40, encoding="ascii")):
            assert load_card(account_of(tape), None, screen)


def test_a_client_that_was_late_is_told_so_with_what_would_help():
    one = late(dispatch=50 * MS, read=9 * MS)
    one.read_stamps, one.busy_ns = 700, 700 * MS
    found = verdict([one], ttft_ns=100 * MS, gap_ns=20 * MS, processes=2)
    assert found["bottleneck"] and len(found["reasons"]) == 2
    told = client_lines(found, EN)
    off = r"TTFT since due by 49.8 ms \(49.8 % of its median\), gaps by 9.00 ms \(45 % of its median\), TTFT by 9.00 ms \(9 % of"
    assert re.match(f"so these figures may be off: {off}", told[1]), told
    assert "requests were sent 50.9 ms late at p99 (limit 10.0 ms)" in told[0] or "late at p99" in told[0]
    assert told[-1] == "more client processes may help: --processes 4"
    assert "瓶颈是客户端而非服务器" in client_lines(found, ZH)[0]
    one.busy_ns = 50 * MS  # it was held up, and had nothing to do: another process would have been, too
    idle = verdict([one], ttft_ns=100 * MS, gap_ns=20 * MS, processes=2)
    assert client_lines(idle, EN)[-1] == "send from a machine with nothing else to do"


def test_what_was_late_and_no_bottleneck_is_told_with_what_may_be_off():
    one = late(dispatch=11 * MS, read=12 * MS)
    one.kernel_stamps = 700
    one.dispatch = late(dispatch=0).dispatch
    for _ in range(30):
        one.dispatch.add(11 * MS)
    told = client_lines(verdict([one], ttft_ns=100 * MS, gap_ns=20 * MS, processes=1), EN)
    assert len(told) == 1 and told[0].startswith("was late: requests were sent 10.9 ms")
    assert "answers were read" in told[0]
    assert told[0].endswith("so these figures may be off: TTFT since due by 10.9 ms (10.9 % of its median)")
    behind = client_lines(
        verdict([late(dispatch=50 * MS)], ttft_ns=100 * MS, gap_ns=None, processes=1, behind=True), EN
    )
    assert behind[0].startswith("was late: ") and len(behind) == 1
    reads = late(read=12 * MS)
    reads.kernel_stamps = 700
    assert client_lines(verdict([reads], ttft_ns=100 * MS, gap_ns=20 * MS, processes=1), EN)[0].endswith(
        "no figure of the server is off by it"
    )


def test_a_client_without_a_processor_is_not_told_to_take_more_processes():
    one = late(dispatch=50 * MS)
    one.starved_ns = 300 * MS
    found = verdict([one], ttft_ns=100 * MS, gap_ns=None, processes=1)
    assert client_lines(found, EN)[-1] == "send from a machine with nothing else to do"


@pytest.mark.parametrize(
    ("measured", "ttft_ns", "gap_ns", "keys"),
    [
        (late(dispatch=1 * MS, read=MS // 2), 100 * MS, 20 * MS, set()),
        (late(dispatch=11 * MS), 100 * MS, 20 * MS, {"load.late_sent"}),
        (late(dispatch=11 * MS), 1000 * MS, 20 * MS, set()),  # a tenth of a longer time to first token
        (late(read=3 * MS), 100 * MS, 20 * MS, {"load.late_read"}),
        (late(read=3 * MS), 100 * MS, 50 * MS, set()),
        (late(dispatch=MS), 1, None, set()),  # below what a machine does anyway
        (Lateness(wall_ns=10, busy_ns=9), None, None, {"load.late_busy"}),
        (Lateness(wall_ns=10, busy_ns=7), None, None, set()),
        (Lateness(wall_ns=10, busy_ns=1, starved_ns=9), None, None, set()),  # it waited, and nothing came of it
    ],
)
def test_the_verdict_by_its_rules(measured, ttft_ns, gap_ns, keys):
    found = verdict([Lateness(wall_ns=10), measured], ttft_ns=ttft_ns, gap_ns=gap_ns, processes=2)
    assert {one["key"] for one in found["said"]} == keys
    held_up = bool(keys & {"load.late_sent", "load.late_busy"})
    assert found["late"] is bool(keys) and found["bottleneck"] is (held_up and ttft_ns is not None)


def test_a_process_that_died_is_told():
    found = verdict([], ttft_ns=None, gap_ns=None, processes=1, died=["client process 0 ended with -9"])
    assert not found["late"] and not found["bottleneck"] and found["busy_share"] is None  # nobody had measured it
    assert client_lines(found, EN) == ["a client process died: client process 0 ended with -9"]
    other = verdict([late(read=1)], ttft_ns=MS, gap_ns=MS, processes=2, died=["client process 0 ended with -9"])
    assert not other["bottleneck"] and client_lines(other, EN)[1].startswith("kept up: ")


def test_the_live_table():
    standing = Standing(0, 60, 3_000 * MS)
    now = standing.as_dict(1_000 * MS)
    assert live_line(now, EN).startswith(
        "0 done, 0 failed, 0 under way, 0 waiting; 0 requests/s, 0 tokens/s; raw so far: TTFT p50 n/a"
    )
    standing.begun(0, 10)
    standing.client[0] = {"waiting": 2, "busy_share": 0.5, "dispatch_delay_p99_ns": MS, "read_lag_p99_ns": MS}
    lines = live_lines(standing.as_dict(1_000 * MS), EN)
    assert lines[1].split(maxsplit=1)[1] == "0 done, 0 failed, 1 under way, 2 waiting, of 60"
    assert any("busy 50 %" in line for line in lines)
    assert all(live_lines(standing.as_dict(1_000 * MS), ZH))


def step(rate, per_s, e2e_ms, n_good=100, *, client_late=False):
    return Step(rate, 100, 100, per_s, per_s * 10, e2e_ms * MS / 5, MS, e2e_ms * MS, n_good, client_late)


def test_the_table_of_a_sweep():
    steps = (step(1, 1, 100), step(2, 2, 120), step(4, 4, 400, 60), step(8, 4.1, 2000, 0, client_late=True))
    found = Swept(steps, "ttft=30ms").as_dict()
    text = sweep_table(found, EN)
    assert "knee near 2.00 requests/s (between 1 and 4)" in text
    assert "ttft=30ms is met up to 2.00 requests/s (measured; 100 % of the requests) and not at 4.00" in text
    assert "the client was late at 8.00 requests/s" in text
    assert "拐点约在" in sweep_table(found, ZH)
    unsure = Swept((step(1, 1, 100, 95), step(2, 2, 120, 85)), "ttft=30ms").as_dict()
    assert "that is not certain: the 95 % intervals are 89-98 % and 77-91 %" in sweep_table(unsure, EN)
    assert "at least 3 are needed" in sweep_table(unsure, EN)
    alone = sweep_table(Swept((step(1, 1, 100, 95),), "ttft=30ms").as_dict(), EN)
    assert "that is not certain: the 95 % interval is 89-98 %" in alone and "n/a" not in alone.splitlines()[-1]


def test_a_largest_of_few_is_told_as_such():
    one = Lateness(wall_ns=1000 * MS)
    one.dispatch.add(50 * MS)
    found = verdict([one], ttft_ns=100 * MS, gap_ns=None, processes=1)
    assert "requests were sent at most 50.0 ms late (limit 10.0 ms)" in client_lines(found, EN)[0]
    fine = verdict([one], ttft_ns=900 * MS, gap_ns=None, processes=1)
    assert client_lines(fine, EN)[0].startswith("kept up: sent late at most 50.0 ms, read late at most ")
    assert client_lines(verdict([one], ttft_ns=None, gap_ns=None, processes=1), EN)[0].startswith(
        "nothing was answered"
    )


def test_a_server_that_fell_behind_is_told_on_the_card(tmp_path):
    loaded_tape(tmp_path / "c.tape", n=30)
    with open_tape(tmp_path / "c.tape") as tape:
        backlog = {
            "in_system": [2, 5, 9, 14],
            "ttft_from_due_ns": [50 * MS, 400 * MS],
            "due_per_s": 9,
            "ended_per_s": 5,
        }
        account = {**account_of(tape), "server_behind": True, "backlog": backlog, "n_unsent": 7}
        rates = account["rates"] | {"asked_per_s": 10.0, "due_per_s": 9.5, "ended_per_s": 5.5}
        text = load_card({**account, "rates": rates}, None, EN)
        assert (  # one rate of each kind on a card
            "fell behind: 5.50 requests/s ended of 9.50 requests/s due; 5 in the system half-way, 14 at the end" in text
        )
        assert "10.0 requests/s asked: 9.50 requests/s due" in text and "5.00 requests/s" not in text
        account |= {"rates": None}
        assert "fell behind: 5.00 requests/s ended of 9.00 requests/s due" in load_card(account, None, EN)
        assert "7 requests were due, waited for room" in text
        assert "跟不上" in load_card(account, None, ZH)


def test_shared_reads_of_a_client_that_looked_are_not_its_fault():
    one = Lateness(wall_ns=1000 * MS, kernel_stamps=100, gaps=90, shared_gaps=30)
    told = client_lines(verdict([one], ttft_ns=100 * MS, gap_ns=20 * MS, processes=1), EN)
    assert told[0].startswith("kept up") and told[1].endswith("30 of 90 gaps are not measured")


def test_what_did_not_finish_has_the_word_of_the_glossary():
    """``cut_short`` is a fault, of a stream that ended in the middle, and no word for a request that was interrupted."""
    assert not [key for key, text in phrases("en").items() if "cut short" in text]
    for key in ("load.ended", "metrics.requests_line", "metrics.missed.cut_short", "served.requests_line"):
        told = [phrases(lang)[key] for lang in ("en", "zh")]
        assert "not finished" in told[0] and "未完成" in told[1]
