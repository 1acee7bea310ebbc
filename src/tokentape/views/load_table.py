"""What a load shows: a live table while it runs, a card at its end, the table of a sweep over rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.cells import cell_len

from tokentape.study.served_reads import leaves_out_many
from tokentape.views.screen import Screen, columns, pad
from tokentape.views.units import duration, rate

__all__ = ["client_lines", "live_line", "live_lines", "load_card", "sweep_step", "sweep_table", "sweep_verdicts"]

_GUTTER = 2
_TELLING = 0.01
"""The part of a median below which nobody needs to be told that it is off."""
_BUSY = 0.5
_PERCENTILES = ("p50", "p90", "p99")
_LATENESS = (("delay", "dispatch_delay"), ("read", "read_lag"))
Lines = list[tuple[str, str]]


def live_lines(now: Mapping[str, Any], screen: Screen) -> list[str]:
    """How a load stands, one line a subject; ``now`` as :class:`~tokentape.load.standing.Standing` gives it."""
    say = screen.say
    counts = say("load.counts", **_counts(now))
    if now["n_all"] is not None:
        counts = say("load.of_all", counts=counts, all=now["n_all"])
    elapsed = duration(now["elapsed_ns"])
    if now["duration_ns"] is not None:
        elapsed = say("load.elapsed_of", elapsed=elapsed, all=duration(now["duration_ns"]))
    lines = [("time", elapsed), ("requests", counts), ("rates", say("load.achieved", **_rates(now)))]
    for name, key in (("ttft", "ttft_ns"), ("chunk_gap", "gap_ns")):
        told = {one: duration(now[key][one]) for one in ("p50", "p99", "max")}
        lines.append((name, say("load.percentiles_now", **told)))
    if now["busy_share"] is not None:
        told = {"delay": duration(now["dispatch_delay_ns"]), "read": duration(now["read_lag_ns"])}
        lines.append(("client", say("load.lag_now", **told, busy=_share(now["busy_share"]))))
    if now["faults"]:
        lines.append(("faults", _faults(now["faults"], screen)))
    if now.get("writing"):
        lines.append(("tape", say("load.writing")))
    return _laid_out(lines, screen)


def live_line(now: Mapping[str, Any], screen: Screen) -> str:
    """The same as one line."""
    say = screen.say
    ttft, gap = now["ttft_ns"], now["gap_ns"]
    parts = [
        say("load.progress", **_counts(now), **_rates(now)),
        say(
            "load.latency",
            ttft50=duration(ttft["p50"]),
            ttft99=duration(ttft["p99"]),
            gap50=duration(gap["p50"]),
            gap99=duration(gap["p99"]),
        ),
    ]
    if now["busy_share"] is not None:
        parts.append(say("load.client_now", delay=duration(now["dispatch_delay_ns"]), busy=_share(now["busy_share"])))
    if now.get("writing"):
        parts.append(say("load.writing"))
    return screen.safe("; ".join(parts))


def load_card(account: Mapping[str, Any], path: str | None, screen: Screen, slo: str | None = None) -> str:
    """The end card of a load; ``account`` as :func:`~tokentape.load.account.account_of` gives it."""
    say = screen.say
    ended = say(
        "load.ended",
        n=account["n_requests"],
        done=account["n_ended"],
        failed=account["n_failed"],
        cut=account["n_cut_short"],
    )
    if account["n_retries"]:
        asked, lost = account["n_requests"] - account["n_retries"], account["n_failed_for_good"]
        ended = say("load.retried", text=ended, n=account["n_retries"], asked=asked, lost=lost)
    lines: Lines = [("requests", ended)]
    if account["n_unsent"]:
        lines.append(("unsent", say("load.never_sent", n=account["n_unsent"])))
    if account["faults"]:
        lines.append(("faults", _faults(account["faults"], screen)))
    if account["labels"]:
        lines.append(
            ("labels", _list((say("load.label", n=n, name=name) for name, n in account["labels"].items()), screen))
        )
    lines.append(("rates", _achieved(account, screen)))
    for name, key in (("ttft", "ttft"), ("ttft_due", "ttft_from_due")):
        if account[key]["n"]:
            lines.append((name, _percentiles(account[key], screen)))
    lines += _gap_lines(account["token_gap"], account["chunk_gap"], screen)
    if account["e2e"]["n"]:
        lines.append(("e2e", _percentiles(account["e2e"], screen)))
    lines += _more(account, screen, slo)
    if account["server_behind"]:
        lines.append(("server", _behind(account, screen)))
    if account["client"] is not None:
        lines += [("client", line) for line in client_lines(account["client"], screen)]
    text = _laid_out(lines, screen)
    if path is not None:
        text.append(screen.paint(screen.safe(say("load.next", path=path)), "dim"))
    return "\n".join(text)


def client_lines(client: Mapping[str, Any], screen: Screen) -> list[str]:
    """Whether the client kept up, by how much figures may be off where it did not, and what would help; ``client`` is the tape's
    note of that name.
    """
    say = screen.say
    said = list(client.get("said", ()))
    lines = [_reason(one, screen) for one in said if one["key"] == "load.late_died"]
    reasons = [_reason(one, screen) for one in said if one["key"] != "load.late_died"]
    reasons = reasons if said else list(client.get("reasons", ()))
    if client["bottleneck"]:
        lines.append(say("load.client_bottleneck", reasons=_list(reasons, screen)))
        lines += [_off(client, screen)] if client.get("off") else []
        return [*lines, *_advice(client, screen)]
    if reasons:
        key = "load.client_was_late" if client.get("answered", False) else "load.client_late"
        return [*lines, say(key, reasons=_list(reasons, screen), off=_off(client, screen))]
    if lines and client.get("busy_share") is None:  # who had measured it was the one that died
        return lines
    told = {name: _worst(client[f"{key}_ns"], screen) for name, key in _LATENESS}
    gaps = client.get("gaps") or {"n": 0, "shared": 0}
    together = [say("load.sent_together", n=gaps["shared"], of=gaps["n"])] if gaps["shared"] else []
    return [*lines, say("load.client_kept_up", **told, busy=_share(client.get("busy_share"))), *together]


def _off(client: Mapping[str, Any], screen: Screen) -> str:
    """By how much figures may be off since the client was late."""
    told = [
        screen.say(
            "load.off_by",
            figure=screen.say(f"load.off_{one['figure']}"),
            ns=duration(one["ns"]),
            share=f"{one['share'] * 100:,.0f} %" if one["share"] >= 1 else _share(one["share"]),
        )
        for one in client.get("off", ())
        if one["share"] >= _TELLING
    ]
    return screen.say("load.off", figures=_list(told, screen)) if told else screen.say("load.off_none")


def _advice(client: Mapping[str, Any], screen: Screen) -> list[str]:
    """What would help a client that was the bottleneck: more processes, unless it had been waiting most of the time."""
    keys = {one["key"] for one in client.get("said", ())}
    if not keys:
        return []
    if "load.late_starved" in keys or (client.get("busy_share") or 0.0) < _BUSY:
        return [screen.say("load.other_machine")]
    return [screen.say("load.more_processes", n=2 * client.get("processes", 1))]


def _worst(found: Mapping[str, Any], screen: Screen) -> str:
    """The 99th percentile, or the largest where there are too few for one."""
    if found["p99"] is not None:
        return screen.say("load.at_p99", value=duration(found["p99"]))
    return screen.say("load.at_most", value=duration(found["max"]))


def _behind(account: Mapping[str, Any], screen: Screen) -> str:
    """What came of a server that fell behind; its rates are those of the card, over one window."""
    backlog = account["backlog"]
    rates = account["rates"] or backlog
    told = {name: rate(rates[f"{name}_per_s"], "requests/s") for name in ("due", "ended")}
    early, late = (duration(one) for one in backlog["ttft_from_due_ns"])
    _, middle, _, end = backlog["in_system"]
    return screen.say("load.server_behind", **told, early=early, late=late, middle=middle, end=end)


class StepRow(Protocol):
    """A rate of a sweep, as a load gives it."""

    @property
    def rate(self) -> float: ...
    @property
    def n_requests(self) -> int: ...
    @property
    def n_ended(self) -> int: ...
    @property
    def ttft_ns(self) -> float | None: ...
    @property
    def gap_ns(self) -> float | None: ...


def sweep_step(step: StepRow, screen: Screen, by: str = "rate") -> str:
    """The line of progress after one step of a sweep."""
    told = {"ttft": duration(step.ttft_ns), "gap": duration(step.gap_ns)}
    line = screen.say("load.step", rate=_asked(step.rate, by, screen), n=step.n_requests, ended=step.n_ended, **told)
    return screen.safe(line)


def sweep_table(found: Mapping[str, Any], screen: Screen) -> str:
    """The table of a sweep, the knee, and the largest rate that met the objectives; ``found`` as ``Swept.as_dict``;
    ``whole`` in it is what shows the table again.
    """
    say, by = screen.say, found["by"]
    names = [by, "due", "ended", "tokens", "ttft", "ttft_worst", "gap", "share", "client", "server", "tape"]
    rows = []
    for step in found["steps"]:
        worst, most = step["ttft_p99_ns"], step["ttft_max_ns"]
        rows.append(
            [
                f"{step['rate']:.4g}",
                _number(step["due_per_s"]),
                _number(step["requests_per_s"]),
                _number(step["tokens_per_s"]),
                duration(step["ttft_ns"]),
                duration(worst) if worst is not None or most is None else say("load.max", value=duration(most)),
                duration(step["gap_ns"]),
                _share(step["share"]),
                say("load.late" if step["client_late"] else "load.ok"),
                say("load.behind" if step["server_behind"] else "load.ok"),
                step["path"] or duration(None),
            ]
        )
    lines = columns(screen, [say(f"load.col_{name}") for name in names], rows, ">>>>>>>><<<")
    if any(step["due_per_s"] is not None for step in found["steps"]):
        lines.append(say("load.sweep_from_due"))
    lines += sweep_verdicts(found, screen)
    if path := found["steps"][-1]["path"]:
        whole = found.get("whole")
        lines.append(screen.paint(say("load.next_sweep" if whole else "load.next", path=path, whole=whole), "dim"))
    return "\n".join(screen.safe(line) for line in lines)


def sweep_verdicts(found: Mapping[str, Any], screen: Screen) -> list[str]:
    """What stands under the table of a sweep: the knee, the largest rate, and where client or server make the figures theirs."""
    by = found["by"]
    lines = [_knee_line(found["knee"], found["steps"], screen, by)]
    if (largest := found["largest"]) is not None:
        lines.append(_largest_line(largest, found["slo"], screen, by))
    for name in ("client_late", "server_behind"):
        if those := [_asked(step["rate"], by, screen) for step in found["steps"] if step[name]]:
            lines.append(screen.paint(screen.say(f"load.sweep_{name}", rates=_list(those, screen)), "yellow"))
    return lines


def _asked(value: float, by: str, screen: Screen) -> str:
    """What a step of a sweep asked for: a rate, or so many at a time."""
    return rate(value, "requests/s") if by == "rate" else screen.say("load.at_a_time", n=f"{value:.0f}")


def _knee_line(knee: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], screen: Screen, by: str) -> str:
    ends = {"low": _asked(steps[0]["rate"], by, screen), "high": _asked(steps[-1]["rate"], by, screen)}
    if knee["verdict"] == "found":
        low, high = (f"{one:.4g}" for one in knee["between"])
        told = {"rate": _asked(knee["rate"], by, screen), "tokens": rate(knee["tokens_per_s"], "tokens/s")}
        return screen.say("load.knee_at", **told, low=low, high=high)
    if knee["verdict"] == "few":
        return screen.say("load.knee_few", n=len(steps))
    return screen.say(f"load.knee_{knee['verdict']}", **ends)


def _largest_line(largest: Mapping[str, Any], slo: str, screen: Screen, by: str) -> str:
    good, bad = largest["good"], largest["bad"]
    told = {
        "slo": slo,
        "good": None if good is None else _asked(good, by, screen),
        "bad": None if bad is None else _asked(bad, by, screen),
        "good_share": _share(largest["good_share"]),
        "bad_share": _share(largest["bad_share"]),
    }
    key = "largest" if good is not None and bad is not None else "largest_none" if good is None else "largest_all"
    text = screen.say(f"load.{key}", **told)
    if largest["sure"]:
        return text
    ranges = {name: _range(found) for name in ("good", "bad") if (found := largest[f"{name}_interval"]) is not None}
    if len(ranges) == 1:
        return screen.say("load.unsure_one", text=text, range=next(iter(ranges.values())))
    return screen.say("load.unsure", text=text, **ranges)


def _range(found: Sequence[float]) -> str:
    return f"{found[0] * 100:.0f}-{found[1] * 100:.0f} %"


def _more(account: Mapping[str, Any], screen: Screen, slo: str | None) -> Lines:
    lines: Lines = []
    say = screen.say
    if (asked := account["prompt_tokens"]) is not None:
        told = {name: _share(asked[f"{name}_error"]) for name in ("median", "max")}
        lines.append(("prompts", say("load.asked", asked=asked["asked"], counted=asked["counted"], **told)))
    if account["n_in_one_piece"]:
        lines.append(("piece", say("served.piece_line", n=account["n_in_one_piece"])))
    if (good := account["goodput"]) is not None:
        lines.append(("goodput", _good(good, account["goodput_from_start"], account["since"], slo or "SLO", screen)))
    room = (account["client"] or {}).get("waited_for_room_ns") or {}
    if room.get("n"):
        told = {name: duration(room[name]) for name in ("p50", "max")}
        lines.append(("room", say("load.waited", n=room["n"], **told)))
    return lines


def _achieved(account: Mapping[str, Any], screen: Screen) -> str:
    rates, tokens = account["rates"], rate(account["tokens_per_s"], "tokens/s")
    if rates is None:
        return screen.say("load.achieved", requests=rate(account["requests_per_s"], "requests/s"), tokens=tokens)
    told = {name: rate(rates[f"{name}_per_s"], "requests/s") for name in ("due", "ended")}
    spans = {name: duration(rates[f"{name}_ns"]) for name in ("schedule", "window")}
    key = "load.offered" if spans["schedule"] == spans["window"] else "load.offered_longer"
    text = screen.say(key, **told, **spans, tokens=tokens)
    if rates["asked_per_s"] is None:
        return text
    return screen.say("load.offered_asked", asked=rate(rates["asked_per_s"], "requests/s"), text=text)


def _good(good: Mapping[str, Any], sent: Mapping[str, Any], since: str, slo: str, screen: Screen) -> str:
    """How often objectives were met; of what was sent alone, where that is another figure."""
    if good["share"] is None:
        return screen.say("load.good_unknown", n=good["n_unknown"], slo=slo)
    told = {"rate": rate(good["requests_per_s"], "requests/s"), "share": _share(good["share"]), "slo": slo}
    if since == "start":
        return screen.say("load.good", **told)
    text = screen.say("load.good_due", n=good["n_requests"], **told)
    if (sent["n_good"], sent["n_requests"]) == (good["n_good"], good["n_requests"]):
        return text
    return screen.say("load.good_from_sent", text=text, n=sent["n_requests"], share=_share(sent["share"]))


def _gap_lines(tokens: Mapping[str, Any], chunks: Mapping[str, Any], screen: Screen) -> Lines:
    """The token gaps with how many are not measured; and where some are not, those between arrivals, all of which are."""
    lines: Lines = []
    more = {"n": tokens["n_untold"], "mean": duration(tokens["mean"])}
    if tokens["n"]:
        text = _percentiles(tokens, screen)
        lines.append(("gap", screen.say("load.untold", text=text, **more) if more["n"] else text))
    elif more["n"]:
        lines.append(("gap", screen.say("load.all_untold", **more)))
    if chunks["n"] and (not tokens["n"] or leaves_out_many(tokens["n"], more["n"])):
        lines.append(("chunk_gap", _percentiles(chunks, screen)))
    return lines


def _percentiles(found: Mapping[str, Any], screen: Screen) -> str:
    """Percentiles as far as there are enough values, and how many more the first of the others needs."""
    told = [f"{name} {duration(found[name])}" for name in _PERCENTILES if found[name] is not None]
    lacking = [name for name in _PERCENTILES if found[name] is None]
    told += [screen.say("load.mean", value=duration(found["mean"]))] if not told else []
    told += [screen.say("card.needs_more", name=name, n=found["needs"][name]) for name in lacking[:1]]
    told.append(screen.say("load.max", value=duration(found["max"])))
    return screen.say("load.percentiles", told="  ".join(told), n=found["n"])


def _reason(one: Mapping[str, Any], screen: Screen) -> str:
    told: dict[str, Any] = {name: one.get(name, "") for name in ("what", "n", "of")}
    for name in ("p99_ns", "max_ns", "limit_ns"):
        if name in one:
            told[name.removesuffix("_ns")] = duration(one[name])
    for name in ("share", "limit"):
        if name in one:
            told[name] = _share(one[name])
    return screen.say(one["key"], **told)


def _counts(now: Mapping[str, Any]) -> dict[str, int]:
    return {name: now[name] for name in ("done", "failed", "under_way", "waiting")}


def _rates(now: Mapping[str, Any]) -> dict[str, str]:
    return {
        "requests": rate(now["requests_per_s"], "requests/s"),
        "tokens": rate(now["tokens_per_s"], "tokens/s"),
    }


def _faults(faults: Mapping[str, int], screen: Screen) -> str:
    return _list((screen.say("load.fault", n=n, name=name) for name, n in faults.items()), screen)


def _list(parts: Any, screen: Screen) -> str:
    return screen.say("card.list").join(parts)


def _share(share: float | None) -> str:
    return duration(None) if share is None else f"{share * 100:.3g} %"


def _number(value: float | None) -> str:
    return duration(None) if value is None else f"{value:.4g}"


def _laid_out(lines: Sequence[tuple[str, str]], screen: Screen) -> list[str]:
    """Labels on the left, as wide as the widest, a label that repeats left out."""
    said = [screen.say(f"load.{name}") for name, _ in lines]
    width = max(map(cell_len, said)) + _GUTTER
    found = []
    for place, (label, (_, text)) in enumerate(zip(said, lines, strict=True)):
        shown = "" if place and said[place - 1] == label else label
        found.append(screen.paint(pad(screen.safe(shown), width), "dim") + screen.safe(text))
    return found
