"""The guard at work on a model: what it stops, replaces and refuses, and what it says of it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest
import torch

from tokentape.control.guard.guard import Guard
from tokentape.control.guard.sentences import text_classifier
from tokentape.control.rule import Control, Rule, Vetoes
from tokentape.data.shown import shown
from tokentape.errors import RuleError, UsageError
from tokentape.models.causal import load

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def demo():
    return load("demo", device="cpu")


@pytest.fixture(scope="module")
def story(demo):
    """What the model says of itself, greedily."""
    ids = torch.tensor([demo.encode(PROMPT)])
    out = demo.model.generate(ids, max_new_tokens=40, do_sample=False)
    return demo.pieces.spelling(ids[0].tolist()), out[0, ids.shape[1] :].tolist()


def text_of(demo, ids) -> bytes:
    return b"".join(demo.pieces.spell(ids, demo.encode(PROMPT)))


def drive(causal, rule, prompts, n_new=40, close=True):
    """A loop as plain as can be: greedy, with vetoes. Ids, decisions and what could be shown after each step, by row."""
    rows = [causal.encode(prompt) for prompt in prompts]
    assert len({len(row) for row in rows}) == 1
    ids = torch.tensor(rows)
    live, decided, steps = [True] * len(rows), [[] for _ in rows], [[] for _ in rows]
    said = [[] for _ in rows]
    for _ in range(n_new):
        with torch.no_grad():
            logits = causal.model(ids).logits[:, -1].float()
        scores = rule(ids, logits)
        assert torch.equal(scores, logits)
        chosen = scores.argmax(-1)
        for row in range(len(rows)):
            if not live[row]:
                continue
            scores = scores.clone()
            while rule.veto(row, int(chosen[row])):
                scores[row, chosen[row]] = -torch.inf
                chosen[row] = scores[row].argmax()
            said[row].append(int(chosen[row]))
            live[row] = not rule.accept(row, int(chosen[row])) and int(chosen[row]) != causal.tokenizer.eos_token_id
            decided[row] += rule.decisions(row)
            steps[row].append(rule.shown(row))
        ids = torch.cat([ids, chosen[:, None]], dim=1)
        if not any(live):
            break
    for row in range(len(rows) if close else 0):
        rule.close(row)
        decided[row] += rule.decisions(row)
        steps[row].append(rule.shown(row))
    return said, decided, steps


def test_it_is_what_the_contract_asks_for(demo):
    guard = Guard(phrases=["cat"])
    rule = guard.bound(demo)
    assert isinstance(guard, Control)
    assert isinstance(rule, Rule) and isinstance(rule, Vetoes)
    assert (rule.name, rule.believes) == ("guard", False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        guard.action = "redact"


def phrase_within(text: str) -> str:
    """Some words from the middle of what the model says, across tokens."""
    words = text.split()
    return " ".join(words[4:6]).strip(".,!")


def test_a_stop_ends_before_the_phrase(demo, story):
    text = text_of(demo, story[1]).decode()
    phrase = phrase_within(text)
    rule = Guard(phrases=["never said", phrase.upper()]).bound(demo)
    (said,), (decided,), (steps,) = drive(demo, rule, [PROMPT])
    assert len(said) < len(story[1]) and said == story[1][: len(said)]
    assert steps[-1] == text[: text.index(phrase)]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(steps))
    assert [(one.action, one.reason, one.shown) for one in decided] == [("stop", "phrase 2", "")]
    raw = text_of(demo, said)
    assert raw[decided[0].start : decided[0].stop].decode() == phrase
    assert decided[0].position == len(demo.encode(PROMPT)) + len(said) - 1
    assert shown(raw, decided) == steps[-1]


def test_redacting_goes_on_and_changes_no_token(demo, story):
    text = text_of(demo, story[1]).decode()
    phrase = phrase_within(text)
    rule = Guard(phrases=[phrase], action="redact", placeholder="***").bound(demo)
    (said,), (decided,), (steps,) = drive(demo, rule, [PROMPT])
    assert said == story[1]
    assert steps[-1] == text.replace(phrase, "***") == shown(text.encode(), decided)
    assert {one.action for one in decided} == {"redact"} and {one.shown for one in decided} == {"***"}


def test_choosing_again_never_says_it(demo, story):
    text = text_of(demo, story[1]).decode()
    phrase = phrase_within(text)
    rule = Guard(phrases=[phrase], action="resample").bound(demo)
    (said,), (decided,), (steps,) = drive(demo, rule, [PROMPT])
    other = text_of(demo, said).decode()
    assert said != story[1] and phrase.casefold() not in other.casefold()
    assert steps[-1] == other == shown(other, decided)
    assert decided[0].action == "resample" and decided[0].start == decided[0].stop
    # the place is right before the token that would have completed the phrase
    place = decided[0].position - len(demo.encode(PROMPT))
    assert decided[0].start == len(text_of(demo, said[:place]))
    assert said[:place] == story[1][:place] and said[place] != story[1][place]


def test_tries_are_counted_anew_for_each_token(demo):
    rule = Guard(phrases=["very terrible", "music"], action="resample", tries=1).bound(demo)
    (_,), (decided,), _ = drive(demo, rule, [PROMPT])
    assert [one.action for one in decided] == ["resample"] * 2
    assert len({one.position for one in decided}) == 2


def test_choosing_again_has_an_end(demo):
    rule = Guard(patterns=["."], action="resample", tries=3).bound(demo)
    (said,), (decided,), (steps,) = drive(demo, rule, [PROMPT])
    assert len(said) == 1 and steps[-1] == ""
    assert [one.action for one in decided] == ["resample"] * 3 + ["stop"] * (len(decided) - 3)
    assert decided[3].reason == "pattern 1, also after 3 other tokens"
    assert len({one.position for one in decided}) == 1


def test_rows_are_guarded_each_by_itself(demo):
    prompts = ["The cat", "The dog"]
    if len({len(demo.encode(prompt)) for prompt in prompts}) != 1:
        pytest.fail("prompts of equal length are needed here")
    alone = [drive(demo, Guard(phrases=["the"]).bound(demo), [prompt]) for prompt in prompts]
    said, decided, steps = drive(demo, Guard(phrases=["the"]).bound(demo), prompts)
    for row in (0, 1):
        assert said[row] == alone[row][0][0]
        assert decided[row] == alone[row][1][0]
        assert steps[row] == alone[row][2][0]


def test_what_is_held_back_at_the_end_is_judged(demo, story):
    text = text_of(demo, story[1][:6]).decode()
    phrase = text.split()[-1].strip(".,")
    assert text.endswith(phrase), "the six tokens end with a word"
    guard = Guard(phrases=[phrase], action="redact")
    (_,), (decided,), (steps,) = drive(demo, guard.bound(demo), [PROMPT], n_new=6, close=False)
    assert not decided and steps[-1] == text.removesuffix(phrase)
    (_,), (decided,), (steps,) = drive(demo, guard.bound(demo), [PROMPT], n_new=6)
    assert steps[-1] == text.removesuffix(phrase) + "[...]" == shown(text, decided)
    assert decided[0].position == len(demo.encode(PROMPT)) + 5


def test_only_closing_ends_a_text(demo):
    rule = Guard(phrases=["."], action="redact", placeholder="*").bound(demo)
    ids = torch.tensor([demo.encode(PROMPT)])
    rule(ids, torch.zeros(1, demo.vocab_size))
    (dot,) = demo.tokenizer(".", add_special_tokens=False).input_ids
    assert not rule.accept(0, dot)
    assert (rule.shown(0), rule.decisions(0)) == ("", [])
    assert not rule.accept(0, demo.tokenizer.eos_token_id)  # which may be ignored
    assert (rule.shown(0), rule.decisions(0)) == ("", [])
    rule.close(0)
    assert rule.shown(0) == "*" and len(rule.decisions(0)) == 1
    rule.close(0)
    assert rule.accept(0, dot)
    assert (rule.shown(0), rule.decisions(0)) == ("*", [])


# -- the floor ---------------------------------------------------------------------------------------------------------


def logprobs_of(demo, ids):
    prompt = demo.encode(PROMPT)
    with torch.no_grad():
        logits = demo.model(torch.tensor([prompt + ids])).logits[0].float()
    rows = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return rows.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()


@pytest.mark.parametrize(("window", "share"), [(1, 0.3), (3, 0.3), (2, 0.9)])
def test_the_floor_is_the_mean_over_a_window(demo, story, window, share):
    ids = [i for i in story[1] if i != demo.tokenizer.eos_token_id]
    logprobs = logprobs_of(demo, ids)
    means = [math.fsum(logprobs[i : i + window]) / window for i in range(len(ids) - window + 1)]
    floor = sorted(means)[int(share * len(means))]
    # windows that are found do not overlap
    found, i = [], 0
    while i < len(means):
        if means[i] < floor - 1e-4:
            found.append(i)
            i += window
        else:
            i += 1
    assert found
    rule = Guard(min_logprob=floor - 1e-4, window=window, action="redact", placeholder="~").bound(demo)
    (_,), (decided,), (steps,) = drive(demo, rule, [PROMPT], n_new=len(ids))
    spelt = demo.pieces.spell(ids, demo.encode(PROMPT))
    ends = [len(b"".join(spelt[:n])) for n in range(len(ids) + 1)]
    assert [(one.start, one.stop) for one in decided] == [(ends[i], ends[i + window]) for i in found]
    assert {one.reason for one in decided} == {"log-probability"}
    assert steps[-1] == shown(b"".join(spelt), decided)
    # the last window - 1 tokens wait for what comes, and nothing else does
    before = found[0]
    for n in range(1, before + window):
        assert steps[n - 1] == b"".join(spelt[: max(0, n - window + 1)]).decode()


# -- the classifier ----------------------------------------------------------------------------------------------------


def test_the_models_own_judgement_as_a_classifier(demo, story):
    """Any function of a sentence will do: here the sentiment that the model itself finds in it."""
    words = [demo.tokenizer(word, add_special_tokens=False).input_ids for word in (" positive", " negative")]
    assert all(len(ids) == 1 for ids in words)
    asked = []

    def is_negative(sentence: str) -> float:
        asked.append(sentence)
        if not sentence.startswith("The "):
            return 0.0  # no sentence of a review, and the model was taught nothing else
        review = demo.encode(f"Review: {sentence}\nSentiment:")
        with torch.no_grad():
            logits = demo.model(torch.tensor([review])).logits[0, -1]
        return float(logits[[ids[0] for ids in words]].softmax(0)[1])

    assert text_of(demo, story[1]) == b". The singer was very terrible.\nTopic: music"
    rule = Guard(phrases=["topic"], classifier=is_negative, threshold=0.9, action="redact").bound(demo)
    (said,), (decided,), (steps,) = drive(demo, rule, [PROMPT])
    assert said == story[1]
    assert steps[-1] == ". [...]\n[...]: music" == shown(text_of(demo, said), decided)
    assert [one.reason for one in decided] == ["classifier", "phrase 1"]
    # nothing of a sentence before it is over, but for what is known of it; the last is over with the text
    assert steps == ["", ". ", ". ", ". ", ". ", ". ", ". [...]\n", *[". [...]\n[...]"] * 3, steps[-1]]
    assert asked == [".", "The singer was very terrible.", "Topic: music"], "each sentence is asked for once"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two!  Three?\nFour", ["One.", "Two!", "Three?", "Four"]),
        ('It is 3.14 now. He said: "No." So?!', ["It is 3.14 now.", 'He said: "No."', "So?!"]),
        ("今日は。「いいね！」と", ["今日は。", "「いいね！」", "と"]),
        ("no end\n\n\nhere ", ["no end", "here"]),
        (" \n ", []),
    ],
)
def test_sentences_are_asked_for_as_they_end(text, sentences):
    asked: list[str] = []
    for pieces in ([text], list(text)):
        asked.clear()
        stream = Guard(classifier=lambda s: asked.append(s) or False, action="redact").stream()
        assert "".join([*map(stream.feed, pieces), stream.close()]) == text
        assert asked == sentences


def test_choosing_again_may_let_a_sentence_go_on(demo):
    rule = Guard(classifier=lambda s: s.endswith("."), action="resample").bound(demo)
    (said,), (decided,), _ = drive(demo, rule, [PROMPT], n_new=30)
    assert b"." not in text_of(demo, said)
    assert "resample" in {one.action for one in decided}


def test_a_text_classification_pipeline_as_a_classifier():
    def pipeline(text, *, top_k, truncation):
        assert top_k is None and truncation
        toxic = 0.9 if "hate" in text else 0.2
        return [{"label": "toxic", "score": toxic}, {"label": "fine", "score": 1 - toxic}]

    guard = Guard(classifier=text_classifier(pipeline, label="toxic"), action="redact")
    stream = guard.stream()
    assert stream.feed("I hate it. I like it.") + stream.close() == "[...] I like it."
    assert guard.describe()["classifier"].endswith("text_classification")
    with pytest.raises(UsageError, match="no label 'bad'"):
        Guard(classifier=text_classifier(pipeline, label="bad")).stream().feed("Is it? No")


@pytest.mark.parametrize("score", [1.5, -0.1, math.nan])
def test_what_is_no_probability_is_refused(score):
    with pytest.raises(RuleError, match="the classifier says"):
        Guard(classifier=lambda s: score).stream().feed("Is it? No")


# -- in transformers' own loop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["stop", "redact"])
def test_plain_generate_is_guarded_too(demo, story, action):
    text = text_of(demo, story[1]).decode()
    phrase = phrase_within(text)
    rule = Guard(phrases=[phrase], action=action).bound(demo)
    ids = torch.tensor([demo.encode(PROMPT)])
    out = demo.model.generate(ids, max_new_tokens=40, do_sample=False, logits_processor=[rule])
    said = out[0, ids.shape[1] :].tolist()
    if action == "stop":
        assert said[-1] == demo.tokenizer.eos_token_id and said[:-1] == story[1][: len(said) - 1]
        assert rule.shown(0) == text[: text.index(phrase)]
    else:
        assert said == story[1]
        rule.close(0)  # the last token is not read before
        assert text.replace(phrase, "[...]").startswith(rule.shown(0))
        assert "[...]" in rule.shown(0)


def test_plain_generate_cannot_choose_again(demo):
    rule = Guard(phrases=["cat"], action="resample").bound(demo)
    with pytest.raises(RuleError, match="cannot choose again"):
        demo.model.generate(torch.tensor([demo.encode(PROMPT)]), max_new_tokens=4, logits_processor=[rule])


# -- bad input, and what the tape keeps --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "the guard looks for nothing"),
        ({"phrases": "cat"}, "phrases='cat' is one text"),
        ({"patterns": "cat"}, "patterns='cat' is one text"),
        ({"phrases": ["cat", ""]}, "phrase 2 is empty"),
        ({"phrases": ["\u200b\ufeff"]}, "phrase 1 shows nothing"),
        ({"phrases": [" cat"]}, "phrase 1 begins or ends with white space"),
        ({"phrases": ["cat\n"]}, "phrase 1 begins or ends with white space"),
        ({"phrases": ["cat"], "action": "mask"}, "'mask' is no action"),
        ({"min_logprob": 0.5}, "a floor of 0.5 nats"),
        ({"min_logprob": math.nan}, "a floor of nan nats"),
        ({"min_logprob": -1.0, "window": 0}, "window=0"),
        ({"phrases": ["cat"], "tries": 0}, "tries=0"),
        ({"phrases": ["cat"], "threshold": 0}, "a threshold of 0"),
        ({"phrases": ["cat"], "action": "redact", "placeholder": ""}, "the placeholder is empty"),
        ({"phrases": ["cat"], "action": "redact", "placeholder": "<CAT>"}, "the placeholder contains phrase 1"),
    ],
)
def test_guards_that_make_no_sense_are_refused(options, what):
    with pytest.raises(UsageError) as caught:
        Guard(**options)
    assert caught.value.what.startswith(what)
    assert caught.value.why and caught.value.fix


def test_a_model_without_a_tokenizer_is_refused(demo):
    with pytest.raises(UsageError, match="no tokenizer"):
        Guard(phrases=["cat"]).bound(dataclasses.replace(demo, tokenizer=None))


def test_the_tape_knows_the_list_and_not_its_words(demo):
    guard = Guard(phrases=["Rumpelstilzchen"], patterns=["xyzzy+"])
    told = json.dumps(guard.bound(demo).describe())
    assert "umpel" not in told and "xyzzy" not in told
    assert guard.describe() == Guard(phrases=("Rumpelstilzchen",), patterns=["xyzzy+"]).describe()
    assert guard.describe()["sha256"] != Guard(phrases=["rumpelstilzchen"], patterns=["xyzzy+"]).describe()["sha256"]
