"""Scenarios of what may go wrong, each with what an honest recorder must conclude from it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokentape.data.exchange import FAULTS
from tokentape.mock.arriving import arrived
from tokentape.mock.asked import CHAT, COMPLETIONS, NATIVE, Asked, asked_of
from tokentape.mock.dialects.choosing import dialect_of
from tokentape.mock.dialects.dialect import Reply
from tokentape.mock.disturbing import messages_of
from tokentape.mock.faults import Fault, parse_fault
from tokentape.mock.script import Script

if TYPE_CHECKING:
    from tokentape.mock.serving import MockServer

__all__ = ["FAULT_CODES", "Expectation", "Scenario", "scenarios"]

FAULT_CODES = tuple(fault for fault in FAULTS if fault != "too_long")  # that depends on how much the recorder takes
"""What a recorder calls what went wrong; None for what ended well."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What there is to know of a request.

    ``fault`` is one of :data:`FAULT_CODES`, or None. ``texts`` has for each choice the text of each channel that
    came; None where that depends on when the recorder gave up. ``ids`` has the ids of each choice, None where not
    every token has one. ``n_completion`` is what usage said at the end, None where it did not come.
    """

    label: str | None
    fault: str | None
    texts: tuple[Mapping[str, str], ...] | None = ()
    ids: tuple[tuple[int, ...], ...] | None = None
    finish: tuple[str | None, ...] = ()
    n_completion: int | None = None
    status: int | None = 200


@dataclass(frozen=True, slots=True)
class Scenario:
    """A request, the answer it gets, and what may be concluded: one of ``expected``, nearly always the only one.

    ``patience_s`` is how long a recorder may wait, for the first byte, between bytes and for the whole, where the
    answer never ends.
    """

    name: str
    dialect: str
    route: str
    body: Mapping[str, Any]
    script: Script
    expected: tuple[Expectation, ...] = field(repr=False)
    patience_s: float | None = None

    def server(self, **more: Any) -> MockServer:
        """A server that answers so."""
        from tokentape.mock.serving import MockServer

        return MockServer(self.script, dialect=self.dialect, **more)


@dataclass(frozen=True, slots=True)
class _Base:
    """A kind of request, before anything goes wrong."""

    name: str
    dialect: str
    route: str
    fields: Mapping[str, Any]
    script: Mapping[str, Any] = field(default_factory=dict)


_USAGE = {"stream_options": {"include_usage": True}}
_RUNNING = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
_PLAIN = {"plain": True}

_BASES = (
    _Base("vllm-ids", "vllm", COMPLETIONS, {**_USAGE, "return_token_ids": True}),
    _Base("vllm-ids-running", "vllm", COMPLETIONS, {**_RUNNING, "return_token_ids": True}),
    _Base("vllm-logprobs", "vllm", COMPLETIONS, {**_USAGE, "logprobs": 2}),
    _Base("vllm-running", "vllm", COMPLETIONS, _RUNNING, {"chunk": 3}),
    _Base("vllm-usage", "vllm", COMPLETIONS, _USAGE, _PLAIN),
    _Base("vllm-usage-chunks", "vllm", COMPLETIONS, _USAGE, {"chunk": 3, **_PLAIN}),
    _Base("vllm-bare", "vllm", COMPLETIONS, {}),
    _Base("vllm-three", "vllm", COMPLETIONS, {**_USAGE, "return_token_ids": True, "n": 3}),
    _Base("vllm-chat-ids", "vllm", CHAT, {**_USAGE, "return_token_ids": True}),
    _Base("vllm-chat-logprobs", "vllm", CHAT, {**_USAGE, "logprobs": True, "top_logprobs": 2}),
    _Base("vllm-chat-tools", "vllm", CHAT, {**_USAGE, "return_token_ids": True}, {"n_reasoning": 4, "n_tool": 4}),
    _Base("sglang-ids", "sglang", COMPLETIONS, {**_USAGE, "return_token_ids": True}),
    _Base("sglang-logprobs", "sglang", COMPLETIONS, {**_USAGE, "logprobs": 1}),
    _Base("sglang-chat-logprobs", "sglang", CHAT, {**_USAGE, "logprobs": True}, {"n_reasoning": 3}),
    _Base("sglang-chat-running", "sglang", CHAT, _RUNNING, {"chunk": 2}),
    _Base("llamacpp-logprobs", "llama.cpp", COMPLETIONS, {"logprobs": 1}, _PLAIN),
    _Base("llamacpp-split", "llama.cpp", COMPLETIONS, {"logprobs": 1}),
    _Base("llamacpp-chat-timings", "llama.cpp", CHAT, {**_USAGE, "timings_per_token": True}),
    _Base("llamacpp-native", "llama.cpp", NATIVE, {}, _PLAIN),
    _Base("transformers-plain", "transformers", COMPLETIONS, {}, {"chunk": 2, **_PLAIN}),
    _Base("transformers-chat", "transformers", CHAT, {}),
    _Base("transformers-chat-tools", "transformers", CHAT, {}, {"n_reasoning": 3, "n_tool": 4, **_PLAIN}),
)

_HARMLESS = """crlf cr bom no_space comments comments:every=3 fields multi_line escaped split:where=utf8 split:where=field
split:where=newline split:where=middle split:where=1 split:where=7 split_frame coalesce:n=3 coalesce:n=100 bytewise length http10
no_keep slow_head:us=20000 trickle:us=50 late:us=30000 stall:at=2,us=30000 twice_usage huge:at=2,bytes=300000 after_done
empty_choices:at=2 finish:reason=content_filter""".split()
"""Faults after which everything there was to know is known."""

_HARMFUL = """error_event:at=2 error_event:at=3,form=openai error_event:at=0,form=vllm error_event:at=2,form=string,then=cut
no_done no_finish stop:at=3 stop:at=0 cut:at=3 cut:at=3,bytes=20 cut:at=0 reset:at=3 reset:at=2,bytes=25 reset:at=0 bad_json:at=2
wrong_types:at=2 stall:at=2,forever=1""".split()
"""Faults that break a stream."""

_HALF = (
    """no_usage duplicate:at=2 empty:at=2 empty:at=1,n=3 role_again:at=2 wrong_usage:by=2 wrong_usage:by=-2""".split()
)
"""Faults after which less is known."""

_NO_STREAM = """status:code=400 status:code=401 status:code=404 status:code=422 status:code=429,retry_after=1 status:code=500
status:code=503 status:code=502,body=html status:code=500,body=empty status:code=503,body=text html redirect silence
hang_up hang_up:when=accept refuse:fields=stream_options+prompt+messages,code=422 refuse:fields=prompt+messages,code=400""".split()
"""Faults in place of a stream."""

_OF_SOME = (
    ("vllm-ids", "no_ids:at=2"),
    ("vllm-ids-running", "no_ids:at=2"),
    ("vllm-ids-running", "missing_id:at=2"),
    ("vllm-ids", "missing_id:at=2"),
    ("vllm-ids", "no_text:at=1,n=2"),
    ("vllm-chat-ids", "no_text:at=1,n=1"),
    ("vllm-logprobs", "no_logprobs:at=2"),
    ("sglang-chat-logprobs", "no_logprobs:at=1"),
    ("vllm-three", "shuffle"),
    ("vllm-three", "shuffle split:where=utf8 coalesce:n=2"),
    ("vllm-ids", "crlf split:where=newline comments"),
    ("vllm-chat-ids", "bom cr fields bytewise"),
    ("sglang-ids", "multi_line crlf coalesce:n=2"),
    ("transformers-chat", "http10 split:where=utf8"),
    ("llamacpp-native", "fields split:where=field"),
    ("vllm-ids", "gzip"),
    ("vllm-ids", "content_type:type=text/plain"),
    ("vllm-ids", "endless"),
    ("transformers-plain", "endless"),
)
"""Faults that have a meaning for some requests only, and some put together."""

_N_TOKENS = 12
_GAP_US = 2_000.0
_PATIENCE_S = 0.4


def scenarios(n: int = 200, seed: int = 0) -> list[Scenario]:
    """``n`` scenarios, each with another name; every fault is among the first 200.

    The seed decides what is said, and which kinds of requests meet which faults beyond those that are always there.
    """
    draw = random.Random(f"scenarios/{seed}")
    always = [*_pairs(draw)]
    known = {(base.name, faults) for base, faults in always}
    rest = [
        (base, faults)
        for base in _BASES
        for faults in [*_HARMLESS, *_HARMFUL, *_HALF]
        if (base.name, faults) not in known
    ]
    draw.shuffle(rest)
    chosen = [*always, *(pair for pair in rest if _has_meaning(*pair))]
    found: list[Scenario] = []
    for number in range(n):
        base, faults = chosen[number % len(chosen)]
        again = number // len(chosen)
        found.append(_scenario(base, faults, seed=seed * 1000 + number, suffix=f"-{again}" if again else ""))
    return found


def _pairs(draw: random.Random) -> Iterator[tuple[_Base, str]]:
    """Those that are always there: every kind of request undisturbed, and every fault at least once."""
    by_name = {base.name: base for base in _BASES}
    yield from ((base, "") for base in _BASES)
    yield from ((by_name[name], faults) for name, faults in _OF_SOME)
    for faults in [*_HARMLESS, *_HARMFUL, *_HALF]:
        yield draw.choice([base for base in _BASES if _has_meaning(base, faults)]), faults
    for faults in _NO_STREAM:
        yield draw.choice(_BASES), faults


def _has_meaning(base: _Base, faults: str) -> bool:
    """Whether a fault changes what a kind of request gets, in a way that leaves one conclusion."""
    name = faults.partition(":")[0]
    if name in ("no_done", "after_done"):
        return base.dialect != "transformers" and base.route != NATIVE
    if name in ("twice_usage", "no_usage", "wrong_usage"):
        has_usage = base.fields.get("stream_options") == _USAGE["stream_options"] or base.dialect == "transformers"
        return has_usage and "running" not in base.name and "timings" not in base.name
    if faults.startswith("split:where=utf8"):
        return not base.script.get("plain")
    if name in ("no_finish", "finish"):
        return base.route != NATIVE
    if name in ("duplicate", "empty", "role_again", "bad_json", "wrong_types"):
        return (
            "running" not in base.name
            and base.route != NATIVE
            and base.dialect != "llama.cpp"
            and "tools" not in base.name
        )
    if name in ("stop", "cut", "reset", "stall", "error_event"):
        return base.name not in ("transformers-chat-tools", "vllm-running")
    return True


def _scenario(base: _Base, faults: str, *, seed: int, suffix: str = "") -> Scenario:
    given = tuple(parse_fault(fault) for fault in faults.split())
    script = Script.steady(
        _N_TOKENS, ttft_us=4_000.0, gap_us=_GAP_US, seed=seed, faults=given, **{"plain": False, **base.script}
    )
    prompt: dict[str, Any] = (
        {"messages": [{"role": "user", "content": "What is it?"}]} if base.route == CHAT else {"prompt": "It is"}
    )
    limit = {} if base.route == NATIVE else {"model": "mock", "max_tokens": 64}
    body = {**limit, **prompt, "stream": True, **base.fields}
    expectation = _expected(base, script, body, given)
    names = {fault.name for fault in given}
    endless = {"silence", "endless"} & names or any(f.name == "stall" and f.number("forever") for f in given)
    label = "-".join(fault.replace(":", "-").replace(",", "-").replace("=", "") for fault in faults.split()) or "whole"
    return Scenario(
        f"{base.name}-{label}{suffix}",
        base.dialect,
        base.route,
        body,
        script,
        expectation,
        _PATIENCE_S if endless else None,
    )


def _expected(base: _Base, script: Script, body: Mapping[str, Any], faults: Sequence[Fault]) -> tuple[Expectation, ...]:
    names = {fault.name: fault for fault in faults}
    without = _without_stream(names)
    if without:
        return without
    dialect = dialect_of(base.dialect)
    asked: Asked = dialect.taken(asked_of(base.route, body, "mock"))
    if "endless" in names:
        named = asked.ids or asked.n_top is not None
        return (Expectation("exact" if named else "coarse", "timeout", None, finish=(None,) * asked.n),)
    found = arrived(messages_of(dialect, Reply(asked, script, "mock", "0", 0), faults))
    choices = [found.choices.get(number) for number in range(asked.n)]
    finish = tuple(None if choice is None else choice.finish for choice in choices)
    has_ids = all(choice is not None and choice.ids and not choice.without_id for choice in choices)
    whole = Expectation(
        found.label,
        _fault_of(base, names, finish),
        tuple({} if choice is None else dict(choice.texts) for choice in choices),
        tuple(tuple(choice.ids) for choice in choices if choice is not None) if has_ids else None,
        finish,
        found.n_usage,
    )
    if {"gzip", "content_type"} & set(names):  # who does not read it says so
        return whole, Expectation(None, "malformed"), Expectation(None, "not_json")
    return (whole,)


def _without_stream(names: Mapping[str, Fault]) -> tuple[Expectation, ...]:
    if (fault := names.get("status") or names.get("refuse")) is not None:
        return (Expectation(None, "http_error", status=fault.number("code")),)
    if "html" in names:
        return (Expectation(None, "not_json"),)
    if "redirect" in names:
        return (Expectation(None, "redirect", status=307),)
    if "silence" in names:
        return (Expectation(None, "timeout", status=None),)
    if (fault := names.get("hang_up")) is not None:
        ended = Expectation(None, "cut_short", status=None)
        # closed on accept, what the client sends finds nobody: an end or a reset, as it happens
        return (ended, Expectation(None, "reset", status=None)) if fault["when"] == "accept" else (ended,)
    return ()


def _fault_of(base: _Base, names: Mapping[str, Fault], finish: Sequence[str | None]) -> str | None:
    if "error_event" in names:
        return "error_event"
    if "reset" in names:
        return "reset"
    if "stall" in names and names["stall"].number("forever"):
        return "timeout"
    if {"bad_json", "wrong_types"} & set(names):
        return "malformed"
    if {"cut", "stop"} & set(names) or (None in finish and base.dialect == "transformers"):
        return "cut_short"
    # without a reason, and with its last word: the answer is whole
    return "no_done" if "no_done" in names or None in finish else None
