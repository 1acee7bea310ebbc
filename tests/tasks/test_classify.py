"""Classifying: the shipped model's held-out reviews, labels that do not fit, what a source has to be able to do."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from label_runs import continuations

import tokentape as tt
from families import causal
from tokentape import Line, ScriptedSource
from tokentape.errors import PromptError, TapeExists, UsageError
from tokentape.models.causal import CausalModel
from tokentape.sources.local import LocalSource
from tokentape.tasks.classify import classify, label_prompts
from tokentape.tasks.labels import NORMALIZATIONS
from tokentape.tasks.templates import load_template
from tokentape.world import sample

N = 40


@pytest.fixture(scope="module")
def demo() -> LocalSource:
    return tt.local("demo")


def held_out(asked: str) -> tuple[list[str], list[str]]:
    """Reviews, and their Sentiment or Topic."""
    rng = Random(9)
    documents = (sample("review", rng, "held_out") for _ in range(10_000))
    pairs = ((re.fullmatch(r"Review: (.*)\n(\w+):", one.prompt), one.answer.strip()) for one in documents)
    chosen = list(islice(((found[1], answer) for found, answer in pairs if found[2] == asked), N))
    return [text for text, _ in chosen], [answer for _, answer in chosen]


@pytest.mark.parametrize(("asked", "template"), [("Sentiment", None), ("Topic", "topic")])
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_held_out_reviews_are_put_under_their_label(
    demo: LocalSource, asked: str, template: str | None, normalize: str
) -> None:
    texts, right = held_out(asked)
    found = classify(demo, texts, template=template, references=right, normalize=normalize)
    accuracy = found.figures[0]
    assert (accuracy.name, accuracy.n) == ("accuracy", N) and accuracy.value >= 0.9
    assert accuracy.value == sum(one == other for one, other in zip(found.predicted, right, strict=True)) / N


def test_only_labels_come_out(demo: LocalSource) -> None:
    """Whatever the labels: words that the model would never say there are chosen among all the same."""
    found = classify(demo, ["The soup was good.", "Tom!"], labels=["quantum", "zebra crossing"])
    assert set(found.predicted) <= {"quantum", "zebra crossing"}
    for item in found.items:
        assert sum(item.probabilities) == pytest.approx(1)
        assert 0 <= item.margin <= 1


def test_the_probabilities_are_those_of_the_model_among_the_labels(demo: LocalSource) -> None:
    """The recorded log-probabilities of the next token say the same."""
    found = classify(demo, "The soup was very nice.")
    tape = tt.record(demo, found.prompts[0], max_new_tokens=1, candidates=1000)
    ids = [demo.encode(f" {label}")[0] for label in found.labels]
    best = dict(
        zip(tape.traces[0].candidates.ids[0].tolist(), tape.traces[0].candidates.logprob[0].tolist(), strict=True)
    )
    for each, token_id in zip(found.items[0].continuations, ids, strict=True):
        if token_id in best:
            assert each.logprob == pytest.approx(best[token_id], abs=1e-3)
    assert found.predicted == ("positive",)


def test_the_baseline_of_pmi_is_the_domain(demo: LocalSource) -> None:
    found = classify(demo, "The soup was nice.", normalize="pmi")
    plain = classify(demo, "The soup was nice.")
    assert found.baseline is not None and plain.baseline is None
    for score, each, held in zip(found.items[0].scores, plain.items[0].continuations, found.baseline, strict=True):
        assert score == pytest.approx(each.logprob - held)


def test_pmi_without_a_domain_takes_the_beginning_of_text(
    demo: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bare.toml"
    path.write_text('job = "classify"\nprompt = "Review: {text}\\nSentiment:"\nlabels = ["positive", "negative"]')
    found = classify(demo, "The soup was nice.", template=path, normalize="pmi")
    (row,) = continuations(demo, [None], [" positive", " negative"])
    assert found.baseline == pytest.approx([each.logprob for each in row])
    monkeypatch.setattr(CausalModel, "bos_id", None)
    with pytest.raises(UsageError, match="bare has no domain"):
        classify(demo, "a", template=path, normalize="pmi")


def test_what_is_left_is_a_recording(demo: LocalSource, tmp_path: Path) -> None:
    """A trace for each label behind each prompt, those of the baseline first; a pass is a step."""
    path, told = tmp_path / "c.tape", []
    texts = ["The soup was nice.", "The song was very dull."]
    found = classify(demo, texts, normalize="pmi", batch_size=1, path=path, progress=lambda *n: told.append(n))
    numbers = [label["trace"] for item in found.as_dict()["items"] for label in item["labels"]]
    assert numbers == [2, 3, 4, 5]
    found.tape.close()
    with tt.open(path) as tape:
        assert (tape.state, tape.notes["job"], tape.notes["normalization"]) == ("complete", "classify", "pmi")
        assert [run.options["classify"] for run in tape.runs] == ["baseline", "texts"]
        assert [trace.prompt_text for trace in tape.traces] == ["Sentiment:"] * 2 + [
            p for p in found.prompts for _ in "ab"
        ]
        assert [trace.text for trace in tape.traces] == [" positive", " negative"] * 3
        assert {trace.finish_reason for trace in tape.traces} == {"given"}
        logprobs = [float(trace.tokens["logprob"].sum()) for trace in tape.traces]
        assert tape.traces[2].steps.n_rows == 2, "labels of one prompt share its pass"
    told_of = [each.logprob for item in found.items for each in item.continuations]
    assert logprobs == pytest.approx([*found.baseline, *told_of], rel=1e-6, abs=1e-6)
    assert told == [(1, 2), (2, 2)]
    with pytest.raises(TapeExists):
        classify(demo, "a", path=path)


def test_what_is_recorded_is_what_a_replay_computes(demo: LocalSource, tmp_path: Path) -> None:
    found = classify(demo, "The soup was nice.", labels=["positive", "negative film"], path=tmp_path / "c.tape")
    checks = tt.replay(found.tape, demo)
    assert [check.n for check in checks] == [1, 2] and all(check.passed for check in checks)


def test_labels_are_named_in_the_prompt_where_it_asks_for_them() -> None:
    template = load_template("choice", "classify")
    (prompt,) = label_prompts(template, ["Hello"], ["greeting", "order"])
    assert prompt == "Text: Hello\nQuestion: Which of these is it: greeting, order?\nAnswer:"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"labels": ["good", "good"]}, "'good' is given twice"),
        ({"labels": ["good"]}, "1 labels"),
        ({"labels": "good,bad"}, "labels='good,bad'"),
        ({"template": "choice"}, "no labels were given"),
        ({"template": "sentiment-examples", "labels": ["good", "bad"]}, "example 1 has the label 'positive'"),
        ({"normalize": "bits"}, "no normalisation 'bits'"),
        ({"references": ["positive"]}, "1 references for 2 inputs"),
        ({"references": ["positive", "neutral"]}, "reference 1 is 'neutral'"),
        ({"references": ["positive", ["negative", "positive"]]}, "reference 1 has 2 labels"),
        ({"template": "pair"}, "is for translate, not for classify"),
    ],
)
def test_what_contradicts_itself(demo: LocalSource, given: dict[str, object], what: str) -> None:
    with pytest.raises(UsageError, match=what) as raised:
        classify(demo, ["a", "b"], **given)  # type: ignore[arg-type]
    assert raised.value.why and raised.value.fix


def test_a_source_has_to_score() -> None:
    with pytest.raises(UsageError, match="ScriptedSource cannot score labels"):
        classify(ScriptedSource([Line(1, "x")]), "a")  # type: ignore[arg-type]


def test_a_text_that_does_not_fit() -> None:
    with pytest.raises(PromptError, match="128"):
        classify(LocalSource(causal("gpt2")), "a" * 200)


def test_as_plain_values(demo: LocalSource) -> None:
    found = classify(demo, "The soup was nice.", references=["positive"]).as_dict()
    (item,) = found["items"]
    assert (item["label"], item["reference"], item["merged"]) == ("positive", "positive", False)
    assert [one["label"] for one in item["labels"]] == found["labels"] == ["positive", "negative"]
    assert sum(one["probability"] for one in item["labels"]) == pytest.approx(1)


@pytest.mark.material
def test_a_tokenizer_whose_tokens_end_in_the_space_merges(material: Path) -> None:
    """The colon and the space are one token there: the labels are scored from the colon on, and it is told."""
    source = tt.local(str(material / "models" / "TinyStories-656K"))
    (item,) = classify(source, "It was a good day.").items
    assert all(each.merged for each in item.continuations)
    assert len({each.context for each in item.continuations}) == 1
