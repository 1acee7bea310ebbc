"""The source: what it asks a server for, what goes on the tape, and what a server that fails is told as."""

from __future__ import annotations

import json
import socket
import threading

import pytest

import tokentape as tt
from raw_servers import Saying, http
from tokentape.data.request import Request
from tokentape.errors import ModelError, PromptError, Unreachable, UsageError
from tokentape.mock.faults import parse_fault
from tokentape.mock.scenarios import scenarios
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer
from tokentape.recorder.tick import Source
from tokentape.sources.endpoint.failures import wait_s
from tokentape.sources.endpoint.source import EndpointSource
from tokentape.sources.retrying import record_again
from tokentape.study.answers import answers
from tokentape.study.served import flights
from tokentape.views.screen import Screen
from tokentape.views.text import show

FAST = Script.steady(12, ttft_us=500, gap_us=500)
DIALECTS = ("vllm", "sglang", "llama.cpp", "transformers")


def failing(*faults):
    """Scripts of a server whose probe goes well, and which then fails so."""
    return [FAST, *(Script.steady(12, ttft_us=500, gap_us=500, faults=(parse_fault(fault),)) for fault in faults)]


def test_it_is_a_source():
    assert isinstance(tt.endpoint("http://127.0.0.1:1"), Source)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_recording_of_every_dialect(dialect, api, tmp_path):
    with MockServer(Script.steady(12, ttft_us=500, gap_us=500, plain=True), dialect=dialect) as server:
        tape = tt.record(tt.endpoint(server.url, api=api), "The cat sat", max_new_tokens=8, path=tmp_path / "a.tape")
    (trace,) = tape.traces
    exchange = trace.exchange
    facts = tape.setting.facts
    assert (facts["engine"], facts["api"], facts["model"]) == (dialect, api, "mock")
    assert exchange.fault is None and exchange.status == 200 and exchange.stamps in ("kernel", "read")
    assert trace.finish_reason == "length" and tape.state == "complete"
    assert exchange.n_completion == 8 == trace.tokens.n_rows or exchange.label == "coarse"
    if dialect != "transformers":
        assert exchange.label == facts["label"] == "exact"
        assert not trace.tokens["id"].mask.any() and not trace.tokens["logprob"].mask.any()
        assert trace.candidates.ids.shape == (8, 5)
        assert [one.source for one in tape.scrapes] == ["server", "server"]
        first, last = tape.scrapes
        assert first.began_ns < 0 < trace.steps["end_ns"][-1] <= last.ended_ns
    steps = trace.steps
    assert (steps["kind"] == 2).all()
    assert (steps["start_ns"][1:] == steps["end_ns"][:-1]).all()
    assert (steps["end_ns"] <= steps["read_ns"]).all() and (steps["read_ns"] <= steps["parsed_ns"]).all()
    assert tt.verify(tmp_path / "a.tape") == []


def test_a_token_that_llama_cpp_never_sent_is_counted():
    """The limit falls into a character of several tokens: what was begun of it is in no message."""
    with MockServer(FAST, dialect="llama.cpp") as server:
        tape = tt.record(tt.endpoint(server.url, api="chat"), "The cat sat", max_new_tokens=8)
    exchange = tape.traces[0].exchange
    assert (exchange.label, exchange.n_completion, tape.traces[0].tokens.n_rows) == ("counted", 8, 7)
    assert exchange.server["label_reason"] == "the server counts 8 tokens, the last 1 of them in no message"


@pytest.mark.parametrize("by", [7, -3])
def test_where_usage_is_wrong_the_figures_are_those_of_the_ids_that_came(by):
    script = Script.steady(12, ttft_us=5_000, gap_us=3_000)
    with MockServer(script, dialect="vllm", faults=[f"wrong_usage:by={by}"]) as server:
        tape = tt.record(tt.endpoint(server.url), "It is", max_new_tokens=12)
    exchange, (one,) = tape.traces[0].exchange, flights(tape)
    assert (exchange.label, exchange.n_completion, one.n_tokens) == ("counted", 12 + by, 12)
    found = tt.metrics(tape)
    assert found.n_tokens == 12 and 0 < found.token_gap.n <= 11  # messages of one read have no gap
    # another tool counts as its own definition has it
    assert answers(tape)[0].n_told == 12 + by
    assert f"usage says {12 + by}, 12 ids came" in show(tape, Screen(width=200))
    assert f"usage 称 {12 + by} 个词元，到达 12 个编号" in show(tape, Screen(width=200, lang="zh"))


def test_the_rows_of_tokens_inside_characters_are_there_and_bare():
    """llama.cpp sends no message for a token that leaves a character unfinished; its running counts tell of them."""
    with MockServer(Script.steady(40, ttft_us=0, gap_us=1_000, seed=3), dialect="llama.cpp") as server:
        tape = tt.record(tt.endpoint(server.url), "The cat sat", max_new_tokens=40)
    trace = tape.traces[0]
    ids = trace.tokens["id"]
    assert trace.exchange.label == "counted" and trace.tokens.n_rows == trace.exchange.n_completion == 40
    n_bare = int(ids.mask.sum())
    assert n_bare > 0 and trace.exchange.server["label_reason"].startswith(f"{n_bare} tokens inside characters")
    assert tt.metrics(tape).token_gap.n > 0
    assert (~trace.tokens["logprob"].mask == ~ids.mask).all()


def test_the_text_is_that_of_the_server(tmp_path):
    with MockServer(FAST) as server:
        wanted = server_text(server)
        tape = tt.record(tt.endpoint(server.url), "It is", path=tmp_path / "a.tape")
    assert tape.traces[0].text == wanted


def server_text(server):
    """The text of a whole answer, asked for without a stream."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]))
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "It is"}), {"Content-Type": "application/json"})
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found["choices"][0]["text"]


@pytest.mark.parametrize(
    ("refused", "label"),
    [
        ("return_token_ids", "exact"),
        ("return_token_ids+return_tokens_as_token_ids", "exact"),
        ("logprobs", "exact"),
        ("logprobs+return_token_ids", "counted"),
        ("timings_per_token+logprobs+return_token_ids+return_tokens_as_token_ids", "counted"),
        ("logprobs+return_token_ids+stream_options", "counted"),
    ],
)
@pytest.mark.parametrize("code", [400, 422])
def test_what_is_refused_is_dropped_and_noted(refused, label, code):
    with MockServer(FAST, faults=[f"refuse:fields={refused},code={code}"]) as server:
        source = tt.endpoint(server.url)
        known = source.capability()
        tape = tt.record(source, "It is", max_new_tokens=6)
    names = set(refused.split("+"))
    if "stream_options" in names:
        names = names - {"stream_options"} | {"include_usage", "continuous_usage_stats"}
        label = "coarse"
    assert names <= set(known.refused)
    assert not names & known.fields
    assert tape.setting.facts["refused"] == list(known.refused)
    assert known.label == label
    assert tape.traces[0].exchange.fault is None


def test_what_is_taken_and_ignored_is_noted():
    with MockServer(FAST, dialect="transformers") as server:
        known = tt.endpoint(server.url).capability()
    assert "logprobs" in known.ignored and known.label == "coarse"
    assert "return_token_ids" in known.refused


def test_the_timing_probe_asks_for_no_log_probabilities():
    with MockServer(FAST) as server:
        tape = tt.record(tt.endpoint(server.url), "It is", probe="timing", max_new_tokens=6)
    assert tape.traces[0].tokens["logprob"].mask.all()
    assert tape.traces[0].exchange.label == "exact"


def test_without_the_probe_one_request_is_sent():
    with MockServer(FAST) as server:
        source = tt.endpoint(server.url, "mock", probe=False, metrics=False)
        tape = tt.record(source, "It is", max_new_tokens=6)
        n_requests = server.log.n_requests if hasattr(server.log, "n_requests") else None
    assert tape.setting.facts["engine"] == "openai-compatible" and tape.setting.facts["label"] is None
    assert tape.traces[0].exchange.n_completion == 6
    assert n_requests in (None, 1)


def test_options_in_the_words_of_the_server():
    with MockServer(FAST) as server:
        source = tt.endpoint(server.url, extra_body={"priority": 3})
        call = source.call(
            "It is",
            {
                "max_new_tokens": 9,
                "min_new_tokens": 2,
                "do_sample": True,
                "temperature": 0.5,
                "top_k": 7,
                "top_p": 0.9,
                "repetition_penalty": 1.1,
                "stop_strings": ["."],
                "num_return_sequences": 2,
                "ignore_eos": True,
            },
            seed=11,
        )
    body = json.loads(call.body)
    wanted = {
        "model": "mock",
        "prompt": "It is",
        "max_tokens": 9,
        "min_tokens": 2,
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "stop": ["."],
        "n": 2,
        "seed": 11,
        "ignore_eos": True,
        "priority": 3,
        "stream": True,
    }
    assert {name: body[name] for name in wanted} == wanted
    assert call.n == 2 and [head.row for head in call.heads] == [0, 1]
    assert "model" not in call.options and "prompt" not in call.options and call.options["max_tokens"] == 9


def test_greedy_search_is_temperature_0():
    with MockServer(FAST) as server:
        source = tt.endpoint(server.url)
        assert json.loads(source.call("It is", {"do_sample": False}).body)["temperature"] == 0
        assert "temperature" not in json.loads(source.call("It is", {}).body)


def test_transformers_takes_a_generation_config_of_its_own():
    with MockServer(FAST, dialect="transformers") as server:
        source = tt.endpoint(server.url)
        body = json.loads(source.call("It is", {"top_k": 3, "do_sample": True, "max_new_tokens": 5}).body)
    assert json.loads(body["generation_config"]) == {"top_k": 3, "do_sample": True, "max_new_tokens": 5}
    assert "top_k" not in body and body["max_tokens"] == 5


@pytest.mark.parametrize(
    ("dialect", "options", "name"),
    [
        ("transformers", {"ignore_eos": True}, "ignore_eos"),
        ("transformers", {"num_return_sequences": 2, "do_sample": True}, "num_return_sequences"),
        ("llama.cpp", {"min_new_tokens": 3}, "min_new_tokens"),
        ("vllm", {"typical_p": 0.5, "do_sample": True}, "typical_p"),
        ("vllm", {"rules": [object()]}, "rules"),
    ],
)
def test_what_a_server_cannot_be_asked_for_is_refused_before_it_is_asked(dialect, options, name):
    with MockServer(FAST, dialect=dialect) as server, pytest.raises(UsageError, match=name):
        tt.record(tt.endpoint(server.url), "It is", **options)


def test_several_choices_are_sequences_of_one_run():
    with MockServer(FAST) as server:
        tape = tt.record(tt.endpoint(server.url), "It is", max_new_tokens=5, num_return_sequences=3, do_sample=True)
    assert [trace.row for trace in tape.traces] == [0, 1, 2]
    assert len(tape.exchanges) == 1 and {trace.run.number for trace in tape.traces} == {0}
    assert all(trace.tokens.n_rows == 5 for trace in tape.traces)


def test_ids_are_sent_as_ids_where_a_server_takes_them():
    with MockServer(FAST) as server:
        tape = tt.record(tt.endpoint(server.url), [3, 1, 4], max_new_tokens=3)
        assert tape.traces[0].prompt_ids.tolist() == [3, 1, 4] and tape.traces[0].n_prompt == 3
        with pytest.raises(PromptError, match="ids"):
            tt.record(tt.endpoint(server.url, api="chat"), [3, 1, 4])
    with MockServer(FAST, dialect="transformers") as server, pytest.raises(PromptError, match="ids"):
        tt.record(tt.endpoint(server.url), [3, 1, 4])


def test_a_chat_keeps_its_messages():
    with MockServer(FAST) as server:
        tape = tt.record(tt.endpoint(server.url, system="Be brief."), "It is?", max_new_tokens=3)
    wanted = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "It is?"}]
    assert tape.traces[0].run.options["messages"] == wanted
    assert tape.traces[0].prompt_text == "It is?" and tape.setting.facts["api"] == "chat"


def test_no_text_leaves_the_words_out(tmp_path):
    with MockServer(FAST) as server:
        source = tt.endpoint(server.url, system="A secret word.")
        tt.record(source, "another secret", max_new_tokens=3, text=False, path=tmp_path / "a.tape").close()
    assert b"secret" not in (tmp_path / "a.tape").read_bytes()


def test_a_key_is_on_no_tape_and_in_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", "sk-123456")
    monkeypatch.setenv("OTHER", "my-other-secret")
    how = {"key_env": "MY_KEY", "header_envs": [("X-Other", "OTHER")]}
    with MockServer(FAST, api_key="sk-123456") as server:
        tt.record(tt.endpoint(server.url, **how), "It is", max_new_tokens=3, path=tmp_path / "a.tape").close()
    data = (tmp_path / "a.tape").read_bytes()
    assert b"sk-123456" not in data and b"my-other-secret" not in data
    ended = http(events(text("a"), text("", "stop")))
    with Saying(ended) as url:
        body = {"auth": {"key": "sk-123456", "as": ["x my-other-secret"]}}
        source = tt.endpoint(f"{url}/key/sk-123456/v1", "m", extra_body=body, **how)
        tape = tt.record(source, "It is", path=tmp_path / "b.tape")
    assert tape.runs[0].options["auth"] == {"key": "***", "as": ["x ***"]}
    assert tape.setting.facts["url"] == f"{url}/key/***/v1"
    tape.close()
    data = (tmp_path / "b.tape").read_bytes()
    assert b"sk-123456" not in data and b"my-other-secret" not in data
    said = {"error": {"message": "Incorrect API key provided: sk-123456 and my-other-secret"}}
    refusal = http(json.dumps(said).encode(), "application/json", "401 Unauthorized")
    with Saying(refusal) as url, pytest.raises(UsageError) as failure:
        tt.record(tt.endpoint(url, **how), "It is")
    assert "sk-123456" not in str(failure.value) and "my-other-secret" not in str(failure.value)
    assert "MY_KEY" in str(failure.value)


@pytest.mark.parametrize(
    ("faults", "kind", "what", "fix"),
    [
        (["status:code=401"], UsageError, "refuses the key", "OPENAI_API_KEY"),
        (["status:code=404"], UsageError, "no such path", "--api"),
        (["status:code=422"], UsageError, "refuses the request", "--extra-body"),
        (["status:code=429,retry_after=7"], Unreachable, "no room", "wait 7 s"),
        (["status:code=500"], ModelError, "failed", "log"),
        (["status:code=503"], Unreachable, "no room", "wait"),
        (["html"], UsageError, "does not answer as a model server", "/v1"),
        (["redirect"], UsageError, "is elsewhere", "URL"),
        (["endless"], ModelError, "does not end", "--max-new-tokens"),
        (["hang_up"], ModelError, "broke off", "log"),
    ],
)
def test_a_server_that_refuses_is_an_error_and_no_tape(faults, kind, what, fix, tmp_path):
    path = tmp_path / "a.tape"
    with MockServer(FAST, faults=faults) as server, pytest.raises(kind, match=what) as failure:
        tt.record(tt.endpoint(server.url), "It is", max_new_tokens=4, path=path)
    assert fix in failure.value.fix and failure.value.why
    assert not path.exists()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_model_that_is_not_there_is_named_with_those_that_are(dialect):
    with MockServer(FAST, dialect=dialect) as server, pytest.raises(UsageError, match="no model other") as failure:
        tt.record(tt.endpoint(server.url, "other"), "It is")
    assert "mock" in failure.value.why and failure.value.fix == "--served-model mock"


@pytest.mark.parametrize(
    ("status", "said", "asked", "what", "why", "fix"),
    [
        (
            "400 No",
            "Server is pinned to './demo'; requested 'x'.",
            "x",
            "has no model x",
            None,
            "--served-model ./demo",
        ),
        (
            "400 No",
            "Server is pinned to './demo'; requested 'm'.",
            "m",
            "has no model m",
            None,
            "--served-model ./demo",
        ),
        (
            "404 No",
            "The model `m` is asleep",
            "m",
            "lists the model m, and refuses it",
            None,
            "see the log of the server",
        ),
        ("404 No", "The model `x` is not there", "x", "has no model x", "it has m", "--served-model m"),
        ("400 No", "no model x here", "x", "has no model x", "it has m", "--served-model m"),
    ],
)
def test_what_a_server_says_of_a_model_is_told_as_it_says_it(status, said, asked, what, why, fix):
    answer = http(json.dumps({"detail": said}).encode(), "application/json", status)
    with Saying(answer) as url, pytest.raises(UsageError, match=what) as failure:
        tt.endpoint(url, asked).capability()
    assert (failure.value.why, failure.value.fix) == (why or said, fix)


@pytest.mark.parametrize("asked", ["x", None])
def test_a_server_that_lists_no_model_is_told_in_its_own_words(asked):
    answer = http(b'{"error": {"message": "which model?"}}', "application/json", "404 No")
    with Saying(answer, model=None) as url, pytest.raises(UsageError) as failure:
        tt.endpoint(url, asked).capability()
    assert failure.value.why == "which model?" and "--served-model NAME" in failure.value.fix
    assert ("has no model x" if asked else "does not know which model is meant") in failure.value.what


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unreachable, match="no server answers") as failure:
        tt.record(tt.endpoint(f"http://127.0.0.1:{port}"), "It is")
    assert failure.value.exit_code == 5


@pytest.mark.parametrize(
    ("fault", "code", "kind"),
    [
        ("cut:at=3", "cut_short", ModelError),
        ("stop:at=3", "cut_short", ModelError),
        ("reset:at=3", "reset", ModelError),
        ("error_event:at=3", "error_event", ModelError),
        ("bad_json:at=3", "malformed", ModelError),
        ("stall:at=3,forever=1", "timeout", Unreachable),
        ("endless", "too_long", ModelError),
    ],
)
def test_what_came_before_a_fault_is_kept(fault, code, kind, tmp_path):
    path = tmp_path / "a.tape"
    with MockServer(failing(fault)) as server, pytest.raises(kind):
        source = tt.endpoint(server.url, timeout=0.3, metrics=False)
        tt.record(source, "It is", max_new_tokens=12, path=path)
    with tt.open(path) as tape:
        (trace,) = tape.traces
        assert trace.exchange.fault == code and trace.exchange.error
        assert trace.tokens.n_rows >= 3 and tape.state == "partial"
    assert tt.verify(path) == []


def test_an_answer_without_its_last_word_is_whole(tmp_path):
    with MockServer(failing("no_done")) as server:
        tape = tt.record(tt.endpoint(server.url), "It is", max_new_tokens=4)
    assert tape.traces[0].exchange.fault == "no_done" and tape.traces[0].finish_reason == "length"
    assert tape.state == "complete"


def test_a_reading_that_is_closed_is_interrupted():
    with MockServer(failing("stall:at=4,forever=1")) as server:
        source = tt.endpoint(server.url)
        live = source.start(Request(("It is",), {"max_new_tokens": 12}), frozenset({"logits"}))
        ticks = [next(live.ticks) for _ in range(4)]
        live.ticks.close()
    assert len(ticks) == 4
    assert live.finish_reasons() == ["interrupted"]
    assert live.exchange(live.start).ended_ns > 0


def test_a_retried_request_is_two_runs(tmp_path):
    pauses = []
    with MockServer([*failing("status:code=429,retry_after=2", "cut:at=2"), FAST]) as server:
        source = tt.endpoint(server.url)
        request = Request(("It is",), {"max_new_tokens": 6})
        tape = record_again(source, request, 3, path=tmp_path / "a.tape", pause=pauses.append)
    found = [tape.exchanges[number] for number in range(3)]
    assert [one.attempt for one in found] == [1, 2, 3]
    assert [one.retry_of for one in found] == [None, 0, 1]
    assert [one.fault for one in found] == ["http_error", "cut_short", None]
    assert [one.status for one in found] == [429, 200, 200]
    assert [trace.finish_reason for trace in tape.traces] == ["error", "error", "length"]
    assert pauses == [2.0, 0.5]
    assert tape.state == "complete"
    # as without retries, the server is read before and after each attempt, on the clock of the tape
    assert [one.source for one in tape.scrapes] == ["server"] * 6
    for exchange, before, after in zip(found, tape.scrapes[::2], tape.scrapes[1::2], strict=True):
        assert before.began_ns < before.ended_ns <= exchange.sent_ns < exchange.ended_ns <= after.began_ns


def test_what_a_server_said_of_itself_is_kept_where_its_answer_breaks_off(tmp_path):
    with MockServer(failing("cut:at=4")) as server, pytest.raises(ModelError, match="broke off"):
        tt.record(tt.endpoint(server.url), "It is", max_new_tokens=12, path=tmp_path / "a.tape")
    with tt.open(tmp_path / "a.tape") as tape:
        before, after = tape.scrapes
        assert before.began_ns < 0 < tape.exchanges[0].ended_ns <= after.began_ns


def test_a_request_that_cannot_go_better_is_not_sent_again(tmp_path):
    with MockServer(failing("status:code=422")) as server, pytest.raises(UsageError, match="422"):
        source = tt.endpoint(server.url)
        record_again(source, Request(("It is",), {"max_new_tokens": 6}), 3, path=tmp_path / "a.tape", pause=pytest.fail)
    with tt.open(tmp_path / "a.tape") as tape:
        assert len(tape.exchanges) == 1


def test_the_last_error_of_many_attempts_is_raised(tmp_path):
    with MockServer(failing("status:code=500", "status:code=503")) as server, pytest.raises(Unreachable):
        source = tt.endpoint(server.url)
        record_again(source, Request(("It is",), {}), 1, path=tmp_path / "a.tape", pause=lambda seconds: None)
    with tt.open(tmp_path / "a.tape") as tape:
        assert [one.status for one in tape.exchanges.values()] == [500, 503]
        assert tape.state == "partial"


@pytest.mark.parametrize(
    "how",
    [
        {"api": "assistants"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"extra_body": {"stream": False}},
        {"extra_body": {"x": object()}},
        {"extra_body": {"x": "\ud800"}},
        {"ca_file": "cert.pem"},
        {"header_envs": [("Host", "HOME")]},
        {"header_envs": [("content-length", "HOME")]},
        {"header_envs": [("Transfer-Encoding", "HOME")]},
        {"api": "completions", "system": "x"},
    ],
)
def test_what_a_source_refuses(how):
    with pytest.raises(UsageError):
        EndpointSource("http://127.0.0.1:1", **how)


def test_several_prompts_are_a_load():
    with pytest.raises(UsageError, match="2 prompts"):
        tt.record(tt.endpoint("http://127.0.0.1:1"), ["a", "b"])


def test_a_whole_scenario_makes_a_tape_that_verifies(tmp_path):
    for number, scenario in enumerate(
        one for one in scenarios(200) if one.patience_s is None and number_of(one) % 9 == 0
    ):
        path = tmp_path / f"{number}.tape"
        with scenario.server() as server:
            source = tt.endpoint(
                server.url,
                "mock",
                probe=False,
                metrics=False,
                api="chat" if "chat" in scenario.route else "completions",
            )
            try:
                tt.record(source, "It is", path=path, max_new_tokens=20).close()
            except tt.TokentapeError:
                continue
        assert tt.verify(path) == []


def number_of(scenario):
    return sum(map(ord, scenario.name))


KEY = "sk-SECRETKEY1234567890"


def events(*values):
    parts = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    return b"".join(b"data: " + part + b"\n\n" for part in [*parts, b"[DONE]"])


def text(words, finish=None, **more):
    return {"id": "r", "model": "m", "choices": [{"index": 0, "text": words, "finish_reason": finish}], **more}


ESCAPED = "".join(f"\\u{ord(char):04x}" for char in KEY)
ECHOES = {
    "error": http(events(text("a"), {"error": {"message": f"key {KEY}"}})),
    "escaped": http(events(text("a"), b'{"error": {"message": "' + ESCAPED.encode() + b'"}}')),
    "malformed": http(events(b"x" * 64 + KEY.encode(), text("a"), text("", "stop"))),
    "malformed_escaped": http(events(b"x" + ESCAPED.encode(), text("a"), text("", "stop"))),
    "names": http(events(text("a", None, id=KEY, model=KEY), text("", KEY))),
    "usage": http(events(text("a"), text("", "stop", usage={KEY: [KEY]}, timings={"k": {"k": KEY}}))),
    "cut": http(b"<html>" + b"x" * 1985 + KEY.encode(), "text/html", "500 No"),
    "location": b"HTTP/1.1 302 F\r\nLocation: http://x/?k=" + KEY.encode() + b"\r\nContent-Length: 0\r\n\r\n",
    "no_http": b"HTTP/1.1 2x0 " + KEY.encode() + b"\r\n\r\n",
}


@pytest.mark.parametrize("answer", ECHOES)
def test_a_key_that_a_server_repeats_is_nowhere(answer, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    told = ""
    with Saying(ECHOES[answer], model=KEY) as url:
        source = tt.endpoint(url, "m", probe=False, metrics=False)
        request = Request(("hi",), {"max_new_tokens": 8})
        try:
            record_again(source, request, 0, path=tmp_path / "a.tape").close()
        except tt.TokentapeError as error:
            told = f"{error.what} {error.why} {error.fix}"
        with pytest.raises(tt.TokentapeError) as failure:
            tt.endpoint(url, "other").capability()
        told += str(failure.value) + failure.value.why
    data = (tmp_path / "a.tape").read_bytes()
    for part in (KEY, KEY[:8]):
        assert part.encode() not in data and part not in told
    assert tt.verify(tmp_path / "a.tape") == []


@pytest.mark.parametrize(
    "values",
    [
        [text("a", usage={"prompt_tokens": 1 << 61, "completion_tokens": 1}), text("", "stop")],
        [text("a"), text("", "stop", usage={"completion_tokens": 1 << 70, "prompt_tokens": -1, "x": 1 << 70})],
        [
            text("a"),
            b'{"choices": [{"index": 0, "text": "", "finish_reason": "stop"}], "usage": {"x": NaN, "y": [-Infinity]}}',
        ],
        [text("a", id="x\ud800", model="m\udfff"), text("", "st\ud800p", usage={"k\ud800": "v\udfff"})],
        [text("a\0b", id="x\0", model="\x1b[31m"), text("", "\x1b[2J")],
        [text("a"), text("", "F" * 5000, id="I" * 5000, usage={"x": ["y" * 5000] * 500})],
        [
            text("a"),
            b'{"choices": [], "usage": {"completion_tokens": 1, "x": ' + b"[" * 900 + b"]" * 900 + b"}}",
            text("", "stop"),
        ],
        [
            text("a", usage={"completion_tokens": 1}),
            text("b", usage={"completion_tokens": 3_000_000_000}),
            text("", "stop"),
        ],
    ],
)
def test_whatever_a_server_says_fits_the_tape(values, tmp_path):
    path = tmp_path / "a.tape"
    with Saying(http(events(*values))) as url:
        tt.record(tt.endpoint(url, "m", probe=False, metrics=False), "hi", path=path).close()
    assert tt.verify(path) == []
    with tt.open(path) as tape:
        (trace,) = tape.traces
        assert trace.text.startswith("a") and trace.tokens.n_rows <= 2
        assert (trace.exchange.n_prompt or 0) < 1 << 31 and (trace.exchange.n_completion or 0) < 1 << 31
        assert path.stat().st_size < 1_000_000 and len(trace.exchange.finish) <= 60


def test_a_stream_that_says_it_is_done_without_a_reason_is_whole(tmp_path):
    with Saying(http(events(text("a"), text("b")))) as url:
        tape = tt.record(tt.endpoint(url, "m", probe=False, metrics=False), "hi", path=tmp_path / "a.tape")
    exchange = tape.traces[0].exchange
    assert (exchange.fault, exchange.error) == ("no_done", "the stream ended without a finish reason")
    assert tape.state == "complete" and tape.traces[0].finish_reason == "unsaid"


@pytest.mark.parametrize(
    ("prompt", "seed", "kind", "what"),
    [
        ([1, -2], None, PromptError, "-2 among the ids"),
        ([1, 1 << 31], None, PromptError, "among the ids"),
        ("hi", 1 << 63, UsageError, "seed="),
        ([], None, PromptError, "the prompt is empty"),
    ],
)
def test_what_cannot_be_sent_or_kept_is_refused_before_anything_is_sent(prompt, seed, kind, what, tmp_path):
    source = tt.endpoint("http://127.0.0.1:1", "m", metrics=False)
    with pytest.raises(kind, match=what):
        source.call(prompt, {}, seed)
    assert not list(tmp_path.iterdir())


def test_a_prompt_that_is_no_unicode_is_refused():
    source = tt.endpoint("http://127.0.0.1:1", "m", probe=False, metrics=False)
    with pytest.raises(UsageError, match="no Unicode"):
        source.call("a\ud800", {})
    with pytest.raises(UsageError, match="number of choices"):
        tt.endpoint("http://127.0.0.1:1", "m", probe=False, extra_body={"n": 10**9}).call("a", {})


@pytest.mark.parametrize(
    ("text_of_it", "seconds"), [("7", 7), ("²", None), ("1.5", None), ("", None), ("9" * 500, None)]
)
def test_how_long_a_server_wants_to_be_left_alone(text_of_it, seconds):
    assert wait_s({"retry-after": text_of_it}) == seconds


def test_a_recording_that_is_never_driven_leaves_nothing_open():
    with MockServer(FAST) as server:
        source = tt.endpoint(server.url, "mock", probe=False, metrics=False)
        live, flight = source.launched(Request(("It is",), {"max_new_tokens": 4}), frozenset())
        reader = next(thread for thread in threading.enumerate() if thread.name == "tokentape-reader")
        reader.join(5)
        assert flight.done and flight.connection is None
    live.ticks.close()


def test_a_handshake_that_the_server_breaks_off_is_a_matter_of_tls():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            found, _ = listening.accept()
            found.recv(100)
            found.close()

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(Unreachable, match="no TLS") as failure:
            tt.record(tt.endpoint(url, "m", probe=False, metrics=False), "hi")
        thread.join()
    assert failure.value.exit_code == 5
