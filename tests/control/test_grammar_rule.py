"""The rule over the rows of a batch: in plain ``generate()``, and as a loop of one's own calls it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from random_schemas import random_schema
from transformers import LogitsProcessor

from tokentape.control.grammar.grammar import Grammar, check_going
from tokentape.control.rule import Begins, Concludes, Ends, Forces, Rule
from tokentape.errors import RuleError, UsageError
from tokentape.models.causal import CausalModel, load

PROMPTS = ["the cat", "the red dog sat on the", "once"]

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def demo() -> CausalModel:
    return load("demo")


@pytest.fixture(scope="module")
def stories(material: Path) -> CausalModel:
    return load(material / "models" / "TinyStories-656K")


@dataclass
class Run:
    """What came of ``generate()``: all ids, and the new ones of each row."""

    ids: torch.Tensor
    new: list[list[int]]


def generated(causal: CausalModel, rules: Any, prompts: list[str], seed: int | None = None, **options: Any) -> Run:
    """Plain ``generate()``, prompts padded on the left."""
    encoded = [causal.encode(prompt) for prompt in prompts]
    longest, pad = max(map(len, encoded)), 0
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in encoded])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in encoded])
    if seed is not None:
        torch.manual_seed(seed)
        options |= {"do_sample": True, "top_k": 0}
    rules = rules if isinstance(rules, list) else [rules]
    options = {"max_new_tokens": 48, "pad_token_id": pad, **options}
    out = causal.model.generate(ids, attention_mask=mask, logits_processor=rules, **options)
    return Run(out, [row[longest:] for row in out.tolist()])


def text_of(causal: CausalModel, ids: list[int]) -> str:
    """Bytes of the ids up to the end of text, by the table of pieces."""
    eos = causal.model.generation_config.eos_token_id
    end = ids.index(eos) if eos in ids else len(ids)
    return b"".join(causal.pieces.piece(i).bytes for i in ids[:end]).decode()


def test_what_the_rule_is(demo: CausalModel) -> None:
    rule = Grammar.choices(["yes"]).bound(demo)
    for protocol in (Rule, Begins, Forces, Ends, Concludes):
        assert isinstance(rule, protocol)
    assert rule.name == "grammar" and rule.believes is False and rule.masks is True
    assert rule.describe() == Grammar.choices(["yes"]).describe()
    assert rule.eos == {2}


def test_scores_are_never_written_into(demo: CausalModel) -> None:
    rule = Grammar.regex("[a-z]+").bound(demo)
    scores = torch.randn(2, demo.vocab_size)
    before = scores.clone()
    ruled = rule(torch.tensor([[5, 6], [0, 7]]), scores)
    assert torch.equal(scores, before)
    assert ruled.dtype == scores.dtype
    banned = ruled == -torch.inf
    assert torch.equal(ruled[~banned], scores[~banned]) and 0 < int((~banned).sum()) < banned.numel()


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_every_row_of_a_batch_is_valid(demo: CausalModel, seed: int | None) -> None:
    # compact, as a greedy small model puts in white space without end
    rule = Grammar.json_schema(PERSON, compact=True).bound(demo)
    run = generated(demo, rule, PROMPTS, seed)
    for row, outcome in zip(run.new, rule.outcomes(run.ids), strict=True):
        person = json.loads(text_of(demo, row))
        assert list(person) == ["name", "age"] and len(person["name"]) <= 6 and 0 <= person["age"] <= 99
        assert (outcome.name, outcome.valid, outcome.why) == ("complete", True, None)
    assert rule.ended(run.ids) == [True] * 3


def test_a_row_of_a_batch_is_what_it_is_alone(demo: CausalModel) -> None:
    grammar = Grammar.regex("(?:the|a) [a-z]{3,7}(?: [a-z]{2,6}){0,3}\\.")
    together = generated(demo, grammar.bound(demo), PROMPTS).new
    for prompt, row in zip(PROMPTS, together, strict=True):
        (alone,) = generated(demo, grammar.bound(demo), [prompt]).new
        assert row[: len(alone)] == alone
        assert set(row[len(alone) :]) <= {0}


@pytest.mark.material
@pytest.mark.parametrize("seed", [None, 3, 4])
def test_a_vocabulary_with_a_beginning_and_few_letters(stories: CausalModel, seed: int | None) -> None:
    grammar = Grammar.json_schema(
        {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "integer", "maximum": 999, "minimum": 9}]}
    )
    rule = grammar.bound(stories)
    run = generated(stories, rule, ["Once upon a time", "A", "She was"], seed)
    for row, outcome in zip(run.new, rule.outcomes(run.ids), strict=True):
        value = json.loads(text_of(stories, row))
        assert len(value) <= 5 if isinstance(value, str) else 9 <= value <= 999
        assert (outcome.name, outcome.valid) == ("complete", True)


def test_a_rule_that_is_left_alone_changes_nothing(demo: CausalModel) -> None:
    rule = Grammar.regex("(?s:.*)").bound(demo)
    assert (
        generated(demo, rule, PROMPTS[:1], max_new_tokens=12).new
        == generated(demo, [], PROMPTS[:1], max_new_tokens=12).new
    )


def test_cut_off_within_a_text_and_at_the_end_of_one(demo: CausalModel) -> None:
    rule = Grammar.json_schema(PERSON, compact=True).bound(demo)
    run = generated(demo, rule, PROMPTS[:1], max_new_tokens=4)
    (outcome,) = rule.outcomes(run.ids)
    assert outcome.name == "unfinished" and outcome.valid is None and outcome.why is not None
    assert outcome.why == f"cut off after {len(text_of(demo, run.new[0]))} bytes" and rule.ended(run.ids) == [False]
    rule = Grammar.regex("[a-z ]+").bound(demo)
    run = generated(demo, rule, PROMPTS[:1], max_new_tokens=4)
    (outcome,) = rule.outcomes(run.ids)
    assert (outcome.name, outcome.valid, rule.ended(run.ids)) == ("complete", True, [False])
    # what is filled in behind a row that something else has ended is none of its text
    padded = torch.cat([run.ids, torch.full((1, 3), 3)], dim=1)
    assert rule.outcomes(padded)[0].name == "complete"


class Ban(LogitsProcessor):
    """Bans ids, or all but some from a step on."""

    def __init__(self, ids: list[int], after: int = 0) -> None:
        self.ids, self.after, self.calls = ids, after, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls <= self.after:
            return scores
        only = torch.full_like(scores, -torch.inf)
        only[:, self.ids] = 1.0
        return only


def test_a_token_that_something_else_chose(demo: CausalModel) -> None:
    stray = demo.tokenizer("Z")["input_ids"][:1]
    rule = Grammar.regex("[a-z ]+").bound(demo)
    run = generated(demo, [rule, Ban(stray, after=2)], PROMPTS[:1], max_new_tokens=5)
    (outcome,) = rule.outcomes(run.ids)
    assert outcome.name == "unfinished" and outcome.valid is None
    assert outcome.why is not None and outcome.why.startswith("after ") and "not of the language" in outcome.why
    assert rule.forced(run.ids) == [] and rule.ended(run.ids) == [False]
    # an end of text before there is one
    rule = Grammar.choices(["the cat sat on the mat"]).bound(demo)
    run = generated(demo, [rule, Ban([2], after=1)], PROMPTS[:1], max_new_tokens=5)
    assert rule.outcomes(run.ids)[0].name == "unfinished" and rule.ended(run.ids) == [False]


@pytest.mark.material
def test_a_dead_end_masks_all_and_is_named(stories: CausalModel) -> None:
    # no token of this vocabulary has a brace in it
    rule = Grammar.regex("ab\\{").bound(stories)
    scores, shown = torch.zeros(1, stories.vocab_size), [1]
    for letter in (b"a", b"b"):
        token = next(i for i in range(stories.vocab_size) if stories.pieces.piece(i).bytes == letter)
        assert rule(torch.tensor([shown]), scores)[0, token] == 0
        shown.append(token)
    assert bool((rule(torch.tensor([shown]), scores) == -torch.inf).all())
    assert rule.ended(torch.tensor([shown])) == [False] and rule.forced(torch.tensor([shown])) == []
    (outcome,) = rule.outcomes(torch.tensor([[*shown, 0]]))
    assert (
        outcome.name == "cornered"
        and outcome.valid is None
        and outcome.why is not None
        and "after 2 bytes" in outcome.why
    )
    # it stays so
    assert bool((rule(torch.tensor([[*shown, 0]]), scores) == -torch.inf).all())


def test_a_forced_run_is_what_must_follow(demo: CausalModel) -> None:
    rule = Grammar.json_schema(PERSON, compact=True).bound(demo)
    run = rule.forced(torch.tensor([[9]]))
    said = b"".join(demo.pieces.piece(i).bytes for i in run).decode()
    assert len(run) > 1 and '{"name":"'.startswith(said)
    # cut as the tokenizer cuts it; its last token may be left open to grow
    assert demo.tokenizer('{"name":"')["input_ids"][: len(run)] == list(run)
    scores = torch.zeros(1, demo.vocab_size)
    first = rule(torch.tensor([[9]]), scores)
    assert torch.nonzero(first[0] > -torch.inf).flatten().tolist() == [run[0]]
    # told at once, the next is free
    ruled = rule(torch.tensor([[9, *run]]), scores)
    assert int((ruled > -torch.inf).sum()) > 1 and rule.forced(torch.tensor([[9, *run]])) == []


def test_what_is_forced_is_what_a_loop_would_have_chosen(demo: CausalModel) -> None:
    """Runs of forced ids taken at once give the text that single steps give."""
    grammar = Grammar.json_schema(PERSON, compact=True)
    (plain,) = generated(demo, grammar.bound(demo), PROMPTS[:1]).new
    rule, prompt = grammar.bound(demo), demo.encode(PROMPTS[0])
    rule.begin(torch.tensor([prompt]))
    ids, n_calls = list[int](), 0
    while not rule.ended(shown := torch.tensor([[*prompt, *ids]]))[0]:
        if run := rule.forced(shown):
            ids += run
            continue
        n_calls += 1
        with torch.no_grad():
            ids.append(int(rule(shown, demo.model(shown).logits[:, -1]).argmax()))
    assert ids == plain
    assert ids[-1] == 2 and n_calls < len(ids)
    assert rule.outcomes(shown)[0].valid is True


def test_an_end_of_text_is_forced_where_nothing_else_is_left(demo: CausalModel) -> None:
    rule = Grammar.choices(["the cat"]).bound(demo)
    ids = demo.tokenizer("the cat")["input_ids"]
    assert rule.forced(torch.tensor([[9]])) == [*ids, 2]
    shown, scores = torch.tensor([[9, *ids]]), torch.zeros(1, demo.vocab_size)
    assert rule.forced(shown) == [2]
    assert torch.nonzero(rule(shown, scores)[0] > -torch.inf).flatten().tolist() == [2]
    # two ends are a choice, and neither is forced
    rule = Grammar.choices(["the cat"]).bound(demo)
    rule.eos = frozenset({2, 3})
    assert rule.forced(torch.tensor([[9]])) == ids and rule.forced(shown) == []
    assert torch.nonzero(rule(shown, scores)[0] > -torch.inf).flatten().tolist() == [2, 3]
    done = torch.tensor([[9, *ids, 3, 0, 0]])
    assert rule.ended(done) == [True] and rule.outcomes(done)[0].valid is True


def test_ids_that_were_taken_back_are_forgotten(demo: CausalModel) -> None:
    rule, scores = Grammar.choices(["the cat", "the dog"]).bound(demo), torch.zeros(1, demo.vocab_size)
    the, cat, dog = ([*demo.tokenizer(text)["input_ids"]] for text in ("the", " cat", " dog"))
    rule.begin(torch.tensor([[9, 9]]))
    assert rule.ended(torch.tensor([[9, 9, *the, *cat, 2]])) == [True]
    assert rule.ended(torch.tensor([[9, 9, *the, *cat]])) == [False]
    ruled = rule(torch.tensor([[9, 9, *the]]), scores)
    assert bool((ruled[0, [cat[0], dog[0]]] == 0).all())
    assert rule.outcomes(torch.tensor([[9, 9, *the, *dog, 2]]))[0].valid is True


def test_any_end_of_a_model_with_several(demo: CausalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.model.generation_config, "eos_token_id", [2, 3, demo.vocab_size + 90])
    rule = Grammar.regex("a+").bound(demo)
    a = demo.tokenizer("a")["input_ids"]
    ruled = rule(torch.tensor([[9]]), torch.zeros(1, demo.vocab_size))
    assert bool((ruled[0, [2, 3]] == -torch.inf).all())
    ruled = rule(torch.tensor([[9, *a]]), torch.zeros(1, demo.vocab_size))
    assert bool((ruled[0, [2, 3]] == 0).all())


def test_a_model_without_an_end_is_told_when_the_text_is_whole(
    demo: CausalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.model.generation_config, "eos_token_id", None)
    grammar = Grammar.choices(["the cat", "the dog"])
    rule = grammar.bound(demo)
    run = generated(demo, rule, PROMPTS[:1], max_new_tokens=12)
    assert rule.ended(run.ids) == [True] and rule.outcomes(run.ids)[0].valid is True
    said = b"".join(demo.pieces.piece(i).bytes for i in run.new[0])
    assert len(run.new[0]) == 12 and said.startswith((b"the cat", b"the dog"))
    # what comes after is the model's own
    assert bool((rule(run.ids, torch.zeros(1, demo.vocab_size)) == 0).all())
    # the end that the engine was given is no token of the language
    rule = grammar.bound(demo)
    ruled = rule(torch.tensor([[9]]), torch.zeros(1, demo.vocab_size))
    assert bool((ruled[0, [0, 1, 2, 3]] == -torch.inf).all())
    rule, a = Grammar.regex("a+").bound(demo), demo.tokenizer("a")["input_ids"]
    ruled = rule(torch.tensor([[9, *a]]), rule(torch.tensor([[9]]), torch.zeros(1, demo.vocab_size)))
    assert bool((ruled[0, [0, 1, 2, 3]] == -torch.inf).all()) and ruled[0, a[0]] == 0
    # nothing at all is a text as well
    rule = Grammar.choices([""]).bound(demo)
    assert rule.ended(torch.tensor([[9]])) == [True] and rule.outcomes(torch.tensor([[9]]))[0].valid is True


@pytest.mark.parametrize("width", [-40, 0, 67])
def test_logits_of_another_width_than_the_vocabulary(demo: CausalModel, width: int) -> None:
    rule = Grammar.regex("[^a]+").bound(demo)
    ruled = rule(torch.tensor([[9]]), torch.zeros(1, demo.vocab_size + width))
    assert ruled.shape == (1, demo.vocab_size + width)
    assert bool((ruled[0, demo.vocab_size :] == -torch.inf).all())
    assert int((ruled > -torch.inf).sum()) > 100


def test_other_rows_are_refused(demo: CausalModel) -> None:
    scores, (a, b) = torch.zeros(2, demo.vocab_size), (demo.tokenizer(letter)["input_ids"][0] for letter in "ab")
    rule = Grammar.regex("[a-z]+").bound(demo)
    rule(torch.tensor([[9, 9], [9, 9]]), scores)
    with pytest.raises(RuleError, match="rows of one run"):
        rule(torch.tensor([[9, 9]]), scores[:1])
    with pytest.raises(RuleError, match="rows of one run"):
        rule(torch.tensor([[9], [9]]), scores)
    rule(torch.tensor([[9, 9, a], [9, 9, b]]), scores)
    # rows that have changed their places, as beams do
    with pytest.raises(RuleError) as caught:
        rule(torch.tensor([[9, 9, b, a], [9, 9, a, a]]), scores)
    assert "num_beams" in caught.value.fix
    # the same ids again are no news
    rule(torch.tensor([[9, 9, a], [9, 9, b]]), scores)


def test_an_engine_that_gives_up_is_an_error_and_no_end() -> None:
    class GaveUp:
        def __init__(self, complaint: str) -> None:
            self.complaint = complaint

        def get_error(self) -> str:
            return self.complaint

    check_going(GaveUp(""))
    check_going(GaveUp("NoExtensionBias\n<non-verbose/>"))
    with pytest.raises(RuleError) as caught:
        check_going(GaveUp("lexer error: too many states\n<non-verbose/>"))
    assert caught.value.why == "lexer error: too many states"


@pytest.mark.slow
@pytest.mark.material
@pytest.mark.parametrize("name", ["demo", "stories"])
def test_two_hundred_schemas_end_valid_or_named(name: str, request: pytest.FixtureRequest) -> None:
    causal: CausalModel = request.getfixturevalue(name)
    n_complete = n_unfinished = n_refused = n_cornered = 0
    for seed in range(200):
        draw = random.Random(seed)
        schema = random_schema(draw, scalar=name == "stories")
        try:
            rule = Grammar.json_schema(schema, compact=draw.random() < 0.7).bound(causal)
        except UsageError as error:
            # the generator draws nothing that cannot be enforced; a vocabulary may be too small
            assert "vocabulary cannot spell" in error.what and name == "stories"
            n_refused += 1
            continue
        options = {"max_new_tokens": 70, "temperature": draw.choice([0.7, 1.0, 1.5])}
        try:
            run = generated(causal, rule, ["the cat", "once upon a time there"], seed, **options)
        except RuntimeError as error:
            assert "probability tensor" in str(error)  # plain sampling cannot draw where all is banned
            n_cornered += 1
            continue
        for outcome in rule.outcomes(run.ids):
            if outcome.name == "complete":
                assert outcome.valid is True, (schema, outcome)
                n_complete += 1
            else:
                assert outcome.name == "unfinished" and outcome.valid is None and outcome.why, (schema, outcome)
                n_unfinished += 1
    assert n_complete > 200 and n_refused + n_cornered < 40, (n_complete, n_unfinished, n_refused, n_cornered)
