"""Classifier-free guidance: transformers' own numbers, batches, forced runs, and a scale of 1 that changes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import causal as family
from tokentape.control.guidance.guidance import Guidance
from tokentape.control.guidance.reading import Reading
from tokentape.control.rule import Control, Rule
from tokentape.errors import PromptError, UsageError
from tokentape.models.anatomy import inputs_of
from tokentape.models.causal import CausalModel, load
from tokentape.models.padding import left_padded, pad_id_of, unpadded

PROMPT = "The cat sat on the"
PAD = 3


@pytest.fixture(scope="module")
def demo() -> CausalModel:
    return load("demo", device="cpu")


def generated(causal: CausalModel, ids: torch.Tensor, **options: Any) -> Any:
    torch.manual_seed(5)
    return causal.model.generate(
        ids, max_new_tokens=24, pad_token_id=PAD, return_dict_in_generate=True, output_scores=True, **options
    )


def plain_logits(causal: CausalModel, ids: Sequence[int]) -> torch.Tensor:
    """Of the token behind the ids, by one pass over all of them without a cache."""
    with torch.no_grad():
        return causal.model(**inputs_of(causal.model, torch.tensor([ids])), use_cache=False).logits[0, -1].float()


# -- the numbers of transformers ---------------------------------------------------------------------------------------


def check_against_transformers(causal: CausalModel, negative: str | None, scale: float, sampled: bool) -> None:
    ids = torch.tensor([causal.encode(PROMPT)])
    theirs = {} if negative is None else {"negative_prompt_ids": torch.tensor([causal.encode(negative)])}
    reference = generated(causal, ids, do_sample=sampled, guidance_scale=scale, **theirs)
    rule = Guidance(scale, negative).bound(causal)
    own = generated(causal, ids, do_sample=sampled, logits_processor=[rule])
    assert torch.equal(own.sequences, reference.sequences)
    assert len(own.scores) == len(reference.scores) > 4
    for mine, their in zip(own.scores, reference.scores, strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 4.0])
@pytest.mark.parametrize("negative", [None, "The dog", "Review: The soup was great."])
def test_the_demo_is_guided_as_transformers_guides_it(
    demo: CausalModel, negative: str | None, scale: float, sampled: bool
) -> None:
    check_against_transformers(demo, negative, scale, sampled)


@pytest.mark.material
@pytest.mark.parametrize("scale", [0.5, 1.5, 4.0])
@pytest.mark.parametrize("negative", [None, "Lily was sad."])
def test_a_llama_is_guided_as_transformers_guides_it(material: Path, negative: str | None, scale: float) -> None:
    check_against_transformers(load(material / "models" / "TinyStories-656K", device="cpu"), negative, scale, False)


def test_guidance_changes_what_is_said(demo: CausalModel) -> None:
    ids = torch.tensor([demo.encode("Review: The soup was")])
    plain = generated(demo, ids, do_sample=False)
    against = Guidance(3.0, plain.sequences[0].tolist()[:6]).bound(demo)
    assert not torch.equal(generated(demo, ids, do_sample=False, logits_processor=[against]).sequences, plain.sequences)


# -- nothing is changed that was not asked for -------------------------------------------------------------------------


def test_scale_one_is_the_identity_and_costs_no_pass(demo: CausalModel) -> None:
    passes: list[int] = []
    handle = demo.model.register_forward_hook(lambda *_: passes.append(1))
    try:
        scores = torch.randn(1, demo.vocab_size)
        assert Guidance(1.0).bound(demo)(torch.tensor([demo.encode(PROMPT)]), scores) is scores
    finally:
        handle.remove()
    assert passes == []


def test_scores_are_not_written_into(demo: CausalModel) -> None:
    scores = torch.randn(1, demo.vocab_size)
    before = scores.clone()
    guided = Guidance(2.0).bound(demo)(torch.tensor([demo.encode(PROMPT)]), scores)
    assert torch.equal(scores, before) and not torch.equal(guided, scores)


@pytest.mark.parametrize("scale", [0.0, 2.0])
@pytest.mark.parametrize("everywhere", [False, True])
def test_what_the_model_rules_out_stays_out(demo: CausalModel, scale: float, everywhere: bool) -> None:
    """In these scores alone, or in all that the model says."""
    ids = torch.tensor([demo.encode(PROMPT)])
    mask = torch.arange(demo.vocab_size) < 100
    scores = plain_logits(demo, ids[0].tolist())[None].masked_fill(mask, -torch.inf)
    handle = demo.model.lm_head.register_forward_hook(lambda *call: call[-1].masked_fill(mask & everywhere, -torch.inf))
    try:
        guided = Guidance(scale).bound(demo)(ids, scores)
    finally:
        handle.remove()
    assert (guided[0, mask] == -torch.inf).all() and guided[0, ~mask].isfinite().all()


def test_it_is_a_control_whose_rule_tells_what_it_is(demo: CausalModel) -> None:
    control = Guidance(1.5, ["The dog", None, [5, 6]])
    rule = control.bound(demo)
    assert isinstance(control, Control) and isinstance(rule, Rule)
    assert (rule.name, rule.believes, rule.masks) == ("guidance", True, False)
    told = rule.describe()
    assert json.loads(json.dumps(told)) == told
    assert told["strength"] == 1.5
    assert told["negative"][0] == {"ids": demo.encode("The dog"), "text": "The dog"}
    assert told["negative"][1] is None and told["negative"][2]["ids"] == [5, 6]


# -- what stands in the place of the prompt ----------------------------------------------------------------------------


def guided_by_hand(causal: CausalModel, opening: Sequence[int], ids: Sequence[int], scale: float) -> torch.Tensor:
    one = plain_logits(causal, ids).log_softmax(-1)
    other = plain_logits(causal, opening).log_softmax(-1)
    return other + scale * (one - other)


def test_an_empty_negative_prompt_of_a_model_without_bos_is_none(demo: CausalModel) -> None:
    assert Guidance(1.5, "").bound(demo).describe() == Guidance(1.5).bound(demo).describe()


@pytest.mark.material
def test_an_empty_negative_prompt_is_what_the_tokenizer_makes_of_it(material: Path) -> None:
    causal = load(material / "models" / "TinyStories-656K", device="cpu")
    ids = causal.encode("Once upon a time")
    found = Guidance(2.0, "").bound(causal)(torch.tensor([ids]), plain_logits(causal, ids)[None])
    assert causal.bos_id is not None
    torch.testing.assert_close(found[0], guided_by_hand(causal, [causal.bos_id], ids, 2.0), rtol=1e-4, atol=1e-4)


def rows_of(causal: CausalModel, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    return left_padded([causal.encode(prompt) for prompt in prompts], PAD)


def test_rows_of_a_batch_are_guided_as_if_alone(demo: CausalModel) -> None:
    """Prompts and negative prompts of unequal length, one without any; the rows end at different steps."""
    prompts = ["Review: The soup was", "The cat", "English: The cat sat on the mat.\nChinese:"]
    negatives = ["Review: The soup was very good. It was", None, "The"]
    ids, mask = rows_of(demo, prompts)
    batch = generated(
        demo,
        ids,
        attention_mask=mask,
        do_sample=False,
        eos_token_id=2,
        logits_processor=[Guidance(2.0, negatives).bound(demo)],
    )
    lengths = []
    for row, (prompt, negative) in enumerate(zip(prompts, negatives, strict=True)):
        alone_ids = torch.tensor([demo.encode(prompt)])
        rule = Guidance(2.0, negative).bound(demo)
        alone = generated(demo, alone_ids, do_sample=False, eos_token_id=2, logits_processor=[rule])
        said = alone.sequences[0, alone_ids.shape[1] :]
        lengths.append(len(said))
        assert torch.equal(batch.sequences[row, ids.shape[1] :][: len(said)], said)
        for mine, their in zip(batch.scores, alone.scores, strict=False):
            torch.testing.assert_close(mine[row], their[0], rtol=1e-4, atol=1e-3)
    assert len(set(lengths)) > 1, "the rows were to end at different steps"


def test_sequences_of_one_prompt_share_its_negative_prompt(demo: CausalModel) -> None:
    rule = Guidance(2.0, ["The dog", "A"]).bound(demo)
    rows = [demo.encode("The cat")] * 2 + [demo.encode("Tom went")] * 2
    ids = torch.tensor(rows)
    scores = torch.stack([plain_logits(demo, row) for row in rows])
    found = rule(ids, scores)
    for row, opening in zip(range(4), ["The dog", "The dog", "A", "A"], strict=True):
        expected = guided_by_hand(demo, demo.encode(opening), rows[row], 2.0)
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


def test_as_many_negative_prompts_as_prompts(demo: CausalModel) -> None:
    rule = Guidance(2.0, ["The dog", "A"]).bound(demo)
    with pytest.raises(UsageError, match="2 negative prompts for 3 sequences"):
        rule(torch.ones(3, 4, dtype=torch.long), torch.zeros(3, demo.vocab_size))


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1, "2", True, None])
def test_a_scale_is_a_finite_number_from_zero_on(scale: Any) -> None:
    with pytest.raises(UsageError, match="scale"):
        Guidance(scale)


@pytest.mark.parametrize("negative", [[], 5, ["a", ["b", "c"]], {"a": 1}])
def test_a_negative_prompt_is_text_or_ids_or_a_list_of_these(negative: Any) -> None:
    with pytest.raises(UsageError):
        Guidance(1.5, negative)


def test_a_negative_prompt_outside_of_the_vocabulary_is_refused(demo: CausalModel) -> None:
    with pytest.raises(PromptError, match="vocabulary"):
        Guidance(1.5, [99999]).bound(demo)


# -- the second reading ------------------------------------------------------------------------------------------------

FAMILIES = ["bloom", "gpt2", "llama", "mistral", "gpt_neox", "mamba", "rwkv"]


@pytest.mark.parametrize("name", FAMILIES)
def test_several_new_ids_at_once_are_read_as_one_by_one(name: str) -> None:
    causal = family(name)
    ids = torch.randint(3, 250, (1, 24), generator=torch.Generator().manual_seed(1))
    reading = Reading(causal)
    for length in (6, 7, 12, 13, 24):
        found = reading.logits(ids[:, :length])
        torch.testing.assert_close(
            found[0], plain_logits(causal, ids[0, :length].tolist()), rtol=1e-4, atol=1e-4, msg=f"{name} {length}"
        )


@pytest.mark.parametrize("name", ["bloom", "gpt2", "llama", "mistral", "gpt_neox"])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_padded_rows_are_read_as_if_alone(name: str, data: st.DataObject) -> None:
    causal = family(name)
    token = st.integers(3, 250)
    rows = data.draw(st.lists(st.lists(token, min_size=1, max_size=9), min_size=1, max_size=3))
    steps = data.draw(st.lists(st.integers(1, 4), min_size=0, max_size=3))
    ids, _ = left_padded(rows, pad_id_of(causal))
    reading = Reading(causal)
    for n_new in (0, *steps):
        more = torch.tensor([[data.draw(token) for _ in range(n_new)] for _ in rows], dtype=torch.long)
        ids = torch.cat([ids, more.reshape(len(rows), n_new)], dim=1)
        rows = [[*row, *said] for row, said in zip(rows, more.tolist(), strict=True)]
        found = reading.logits(ids)
        for row, alone in zip(found, rows, strict=True):
            torch.testing.assert_close(row, plain_logits(causal, alone), rtol=1e-3, atol=1e-3)


def test_a_family_that_reads_padding_as_text_refuses_it() -> None:
    ids, _ = left_padded([[5, 6, 7], [8]], pad_id_of(family("rwkv")))
    with pytest.raises(UsageError, match="unequal length"):
        Reading(family("rwkv")).logits(ids)


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(lambda row: row[0] != 3), min_size=1))
def test_padding_is_told_from_text(rows: list[list[int]]) -> None:
    ids, _ = left_padded(rows, 3)
    assert unpadded(ids, 3) == rows
    opened = [[3, *row] for row in rows]  # an id that pads and opens a text
    assert unpadded(left_padded(opened, 3)[0], 3) == opened


@pytest.mark.parametrize("rows", [[[PAD, PAD, 40, 41], [50]], [[PAD, 40], [50, 41]]])
def test_a_mask_tells_padding_better_than_its_id(demo: CausalModel, rows: list[list[int]]) -> None:
    ids, mask = left_padded(rows, PAD)
    reading = Reading(demo)
    reading.begin(ids, None if mask.all() else mask)
    found = reading.logits(ids)
    for row, alone in zip(found, rows, strict=True):
        torch.testing.assert_close(row, plain_logits(demo, alone), rtol=1e-4, atol=1e-4)


def test_what_was_forced_before_the_first_choice_is_read_behind_the_negative_prompt(demo: CausalModel) -> None:
    prompt, forced = demo.encode(PROMPT), demo.encode(" mat and")
    rule = Guidance(2.0, "The dog").bound(demo)
    rule.begin(torch.tensor([prompt]))
    ids = [*prompt, *forced]
    found = rule(torch.tensor([ids]), plain_logits(demo, ids)[None])
    expected = guided_by_hand(demo, [*demo.encode("The dog"), *forced], ids, 2.0)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 5), (1, 4), (2, 6)])
def test_a_rule_follows_one_run(demo: CausalModel, shape: tuple[int, int]) -> None:
    rule = Guidance(2.0).bound(demo)
    rule(torch.ones(1, 5, dtype=torch.long), torch.zeros(1, demo.vocab_size))
    with pytest.raises(UsageError, match="do not go on"):
        rule(torch.ones(shape, dtype=torch.long), torch.zeros(shape[0], demo.vocab_size))


def test_a_negative_prompt_that_outgrows_the_positions_is_refused() -> None:
    causal = family("gpt2")
    with pytest.raises(PromptError, match="128"):
        Guidance(2.0, list(range(1, 129))).bound(causal)
    rule = Guidance(2.0, list(range(1, 127))).bound(causal)
    scores = torch.zeros(1, causal.vocab_size)
    rule(torch.tensor([[5]]), scores)
    rule(torch.tensor([[5, 6]]), scores)
    with pytest.raises(PromptError, match="128"):
        rule(torch.tensor([[5, 6, 7, 8]]), scores)
