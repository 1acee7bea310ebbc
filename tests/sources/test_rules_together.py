"""Rules side by side, at the edges of a run, and with what else a run may have."""

import json
import math

import numpy as np
import pytest
import torch
from rules_on_paper import Add, AllowAll, Only

import tokentape as tt
from tokentape.cli.program import run
from tokentape.control.guidance.direction import steering_direction
from tokentape.errors import NotComparable, RuleError, UsageError

PROMPT = "The cat sat on the"
SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 0}
FIXED = tt.Grammar.regex(r" mat and the (cat|dog) sat on the (floor|mat)\.")


@pytest.fixture(scope="module")
def source():
    return tt.local("demo")


@pytest.fixture(scope="module")
def direction(source):
    good = ["Review: The soup was great.", "Review: The bed was lovely."]
    return steering_direction(source.causal, good, [text.replace("great", "awful") for text in good[:1]])


def plain_logprobs(source, trace):
    ids = torch.tensor([[*trace.prompt_ids.tolist(), *trace.token_ids.tolist()]])
    with torch.no_grad():
        logits = source.causal.model(ids).logits[0, trace.n_prompt - 1 : -1].double()
    return torch.log_softmax(logits, -1).gather(1, ids[0, trace.n_prompt :, None])[:, 0].tolist()


def believing(source, direction):
    return {
        "steering": tt.Steering(direction, 4.0),
        "guidance": tt.Guidance(2.0, negative="The dog"),
        "contrast": tt.Contrast(amateur=source.causal, strength=0.5),
    }


@pytest.mark.parametrize("name", ["steering", "guidance", "contrast"])
def test_a_grammar_beside_what_changes_beliefs(source, direction, name) -> None:
    """Every token has the model's own log-probability and the effects of both rules, alone as in a batch."""
    rules = lambda: [believing(source, direction)[name], FIXED]  # noqa: E731
    with tt.record(source, PROMPT, max_new_tokens=20, rules=rules()) as tape:
        trace = tape.traces[0]
        assert trace.tokens["logprob"].tolist() == pytest.approx(plain_logprobs(source, trace), abs=1e-4)
        assert trace.effects.n_rows == 2 * len(trace.token_ids) and tape.verify() == []
        difference = trace.tokens["rules_logprob"] - trace.tokens["logprob"]
        if name == "guidance":  # which moves no mass away: what is removed is the grammar's alone
            assert (trace.effects["removed"][trace.effects["rule"] == 0] == 0).all()
        assert difference.mask.sum() == 0
    with tt.record(source, [PROMPT, PROMPT], max_new_tokens=20, rules=rules()) as batch:
        for each in batch.traces:
            assert each.token_ids.tolist() == trace.token_ids.tolist()
            assert each.tokens["removed"].tolist() == pytest.approx(trace.tokens["removed"].tolist(), abs=1e-4)


@pytest.mark.parametrize(
    "actions", [("redact", "resample"), ("resample", "redact"), ("stop", "resample"), ("resample", "resample")]
)
def test_two_guards_hide_what_each_of_them_hides(source, actions) -> None:
    words = ("dog", "looked at")
    guards = [tt.Guard(phrases=[word], action=action) for word, action in zip(words, actions, strict=True)]
    with tt.record(source, PROMPT, max_new_tokens=25, rules=guards) as tape:
        shown = tape.traces[0].shown
        assert not any(word in shown for word in words) and tape.verify() == []
        assert not math.isnan(float(tape.traces[0].tokens["removed"].sum()))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_the_first_pass_is_the_one_told(source, tmp_path, monkeypatch, error) -> None:
    """With a guard and a grammar that have seen nothing yet; and the place is free again."""
    path = tmp_path / "a.tape"

    def fail(*args, **kwargs):
        raise error("in the first pass")

    with monkeypatch.context() as patch:
        patch.setattr(source.causal.model, "_prefill", fail)
        with pytest.raises(error, match="in the first pass"):
            tt.record(source, PROMPT, path=path, rules=[tt.Guard(phrases=["cat"]), FIXED])
    with tt.open(path) as tape:
        assert tape.state == "partial" and tape.traces[0].decisions == ()
    tt.record(source, PROMPT, path=path, overwrite=True, max_new_tokens=2).close()


@pytest.mark.parametrize("how", ["greedy", "sampled"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_an_error(source, how, value) -> None:
    amounts = torch.zeros(1581)
    amounts[7] = value
    rules, options = [Add(amounts)], SAMPLED if how == "sampled" else {}
    if how == "greedy" and value == math.inf:
        with tt.record(source, PROMPT, max_new_tokens=2, rules=rules) as tape:  # the largest there is, as in generate()
            assert tape.traces[0].token_ids.tolist() == [7, 7]
        return
    with pytest.raises(RuleError, match="no numbers"):
        tt.record(source, PROMPT, max_new_tokens=2, rules=rules, **options)


def test_forced_tokens_in_a_window(source) -> None:
    """Read one by one, since a window makes room for what is read together: the same as where each has a step."""
    grammar = tt.Grammar.regex(r"((cat|dog) and then the other )+")
    options = {"max_new_tokens": 60, "window": 12, "sinks": 2, "rules": [grammar]}
    with tt.record(source, PROMPT, **options) as tape, tt.record(source, PROMPT, min_new_tokens=1, **options) as slow:
        a, b = tape.traces[0], slow.traces[0]
        assert a.token_ids.tolist() == b.token_ids.tolist() and a.steps["dropped"].max() > 20
        assert np.array_equal(a.tokens["logprob"].filled(), b.tokens["logprob"].filled())
        assert (a.tokens["forced"] == b.tokens["forced"]).all()


def test_a_window_refuses_what_reads_the_text_again(source) -> None:
    with pytest.raises(UsageError, match="window"):
        tt.record(source, PROMPT, window=16, rules=[tt.Guidance(2.0)])


def test_a_divergence_is_never_below_0(source) -> None:
    with tt.record(source, PROMPT, max_new_tokens=80, rules=[tt.Guidance(1.5)], eos_token_id=None) as tape:
        assert (tape.traces[0].effects["divergence"] >= 0).all() and tape.verify() == []


def test_a_rule_that_takes_one_of_one_forces_nothing(source) -> None:
    alone = Only(lambda row, i: [61])
    alone.believes = True
    with tt.record(source, PROMPT, max_new_tokens=3, rules=[alone, tt.Grammar.regex("(?s).*")]) as tape:
        assert tape.traces[0].tokens["forced"].tolist() == [0, 0, 0]


def test_what_a_foreign_processor_writes_is_its_own_effect(source) -> None:
    class InPlace:
        def __call__(self, ids, scores):
            scores[:, 100:] = -torch.inf
            return scores

    inputs = source.causal.tokenizer(PROMPT, return_tensors="pt")
    with tt.recording(source.causal.model, tokenizer=source.causal.tokenizer) as tape:
        source.causal.model.generate(**inputs, max_new_tokens=3, logits_processor=[AllowAll(), InPlace()])
    trace = tape.traces[0]
    assert trace.effects["allowed"].tolist() == [1581, 100] * len(trace.token_ids)
    assert (trace.effects["removed"][0::2] == 0).all() and (trace.effects["removed"][1::2] > 0).all()


def test_a_bound_guard_begins_anew_with_each_run(source) -> None:
    guard = tt.Guard(phrases=["dog"], action="redact").bound(source.causal)
    texts = []
    for _ in range(2):
        with tt.record(source, PROMPT, max_new_tokens=10, rules=[guard]) as tape:
            texts.append(tape.traces[0].shown)
    assert texts[0] == texts[1] and "[...]" in texts[0]


def test_without_text_outcomes_quote_nothing(source) -> None:
    with tt.record(source, PROMPT, max_new_tokens=2, rules=[FIXED], text=False) as tape:
        (outcome,) = tape.traces[0].outcomes
        assert (outcome.name, outcome.why) == ("unfinished", None)


def test_a_streamer_beside_a_guard_is_refused(source) -> None:
    from transformers import TextStreamer

    with pytest.raises(UsageError, match="streamer"):
        tt.record(source, PROMPT, rules=[tt.Guard(phrases=["dog"])], streamer=TextStreamer(source.causal.tokenizer))


def test_tapes_made_under_other_rules_are_not_compared_unasked(source) -> None:
    tapes = [tt.record(source, PROMPT, max_new_tokens=4, **more) for more in ({}, {"rules": [tt.Guidance(2.0)]})]
    with pytest.raises(NotComparable, match="rules"):
        tt.compare(*tapes)
    tt.compare(*tapes, across=["rules"])
    again = tt.record(source, PROMPT, max_new_tokens=4, rules=[tt.Guidance(2.0)])
    tt.compare(tapes[1], again)


def test_what_record_prints_names_nothing_that_a_guard_withheld(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["record", "demo", PROMPT, "-n", "20", "--block", "theatre", "--on-block", "redact"]
    assert run([*command, "-o", "a.tape"]) == 0
    out, err = capfd.readouterr()
    assert "[...]" in out and "theatre" not in out + err.replace("--block theatre", "")
    assert run([*command, "-o", "b.tape", "--json"]) == 0
    out, _ = capfd.readouterr()
    (trace,) = json.loads(out)["traces"]
    assert "theatre" not in out and "[...]" in trace["shown"] and trace["text"] is None
    with tt.open("a.tape") as tape:
        assert "theatre" in tape.traces[0].text  # the recorder keeps what was said


@pytest.mark.parametrize("name", ["streamer", "prefix_allowed_tokens_fn", "logits_processor", "rules"])
def test_objects_are_no_options_of_a_command_line(tmp_path, monkeypatch, capfd, name) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["record", "demo", PROMPT, "-g", f"{name}=1", "-o", "a.tape"]) == 2
    assert "is an object" in capfd.readouterr().err
