"""What a load shows: the live table, the end card, the table of a sweep; in both languages."""

from __future__ import annotations

import pytest

from served_tapes import loaded_tape, served_tape
from tokentape.data.tape import open_tape
from tokentape.load.account import account_of
from tokentape.load.knee import Step, Swept
from tokentape.load.lateness import Lateness, verdict
from tokentape.load.standing import Standing
from tokentape.study.metrics import metrics
from tokentape.study.slo import Slo
from tokentape.views.load_table import client_lines, live_line, live_lines, load_card, sweep_table
from tokentape.views.screen import Screen

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
        own = metrics(tape, slo=Slo(ttft_ns=40 * MS))
        for key, name in (("ttft", "ttft"), ("token_gap", "token_gap"), ("chunk_gap", "chunk_gap"), ("e2e", "e2e")):
            spread = getattr(own, name)
            told = account[key]
            assert (told["n"], told["mean"], told["max"]) == (spread.n, spread.mean, spread.max), key
            assert [told[f"p{one.q:g}"] for one in spread.percentiles] == [one.value for one in spread.percentiles], key
        assert account["goodput"]["n_good"] == own.goodput.n_good
        assert (account["n_failed"], account["n_tokens"]) == (own.n_failed, own.n_tokens)
        text = load_card(account, "a.tape", EN, "ttft=40ms")
        assert "300 requests: 297 ended, 3 failed, 0 cut short" in text
        assert "3 http_error" in text and "297 exact" in text
        assert "met ttft=40ms" in text and "kept up: sent" in text
        chinese = load_card(account, "a.tape", ZH, "ttft=40ms")
        assert "300 个请求" in chinese and "跟得上" in chinese


def test_every_kind_of_request_can_be_told(tmp_path):
    served_tape(tmp_path / "b.tape")
    with open_tape(tmp_path / "b.tape") as tape:
        for screen in (EN, ZH, Screen(width=40, encoding="ascii")):
            assert load_card(account_of(tape), None, screen)


def test_a_client_that_was_late_is_told_so_with_what_would_help():
    found = verdict([late(dispatch=50 * MS, read=9 * MS)], ttft_ns=100 * MS, gap_ns=20 * MS, processes=2)
    assert found["bottleneck"] and len(found["reasons"]) == 2
    told = client_lines(found, EN)
    assert "requests were sent 50.9 ms late at p99 (limit 10.0 ms)" in told[0] or "late at p99" in told[0]
    assert told[-1] == "more client processes may help: --processes 4"
    assert "瓶颈是客户端而非服务器" in client_lines(found, ZH)[0]


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
    assert found["late"] is bool(keys) and found["bottleneck"] is (bool(keys) and ttft_ns is not None)


def test_a_process_that_died_is_told():
    found = verdict([], ttft_ns=None, gap_ns=None, processes=1, died=["client process 0 ended with -9"])
    assert found["late"] and not found["bottleneck"] and found["busy_share"] is None  # nothing was answered at all
    assert "client process 0 ended with -9" in client_lines(found, EN)[0]


def test_the_live_table():
    standing = Standing(0, 60, 3_000 * MS)
    now = standing.as_dict(1_000 * MS)
    assert live_line(now, EN).startswith(
        "0 done, 0 failed, 0 under way, 0 waiting; 0 requests/s, 0 tokens/s; TTFT p50 n/a"
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
        text = load_card(account, None, EN)
        assert (
            "fell behind: 5.00 requests/s ended of 9.00 requests/s due; 5 in the system half-way, 14 at the end" in text
        )
        assert "7 requests were due, waited for room" in text
        assert "跟不上" in load_card(account, None, ZH)


def test_shared_reads_of_a_client_that_looked_are_not_its_fault():
    one = Lateness(wall_ns=1000 * MS, kernel_stamps=100, gaps=90, shared_gaps=30)
    told = client_lines(verdict([one], ttft_ns=100 * MS, gap_ns=20 * MS, processes=1), EN)
    assert told[0].startswith("kept up") and told[1].endswith("30 of 90 gaps are not measured")
