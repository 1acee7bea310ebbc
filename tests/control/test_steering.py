"""Activation steering: the direction and its file, where and when it is added, what it leaves alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from families import CONFIGS
from families import causal as family
from tokentape.control.guidance.direction import Direction, steering_direction
from tokentape.control.guidance.guidance import Guidance
from tokentape.control.guidance.steering import Steered, Steering
from tokentape.control.rule import Control, Rule, Steers
from tokentape.errors import ModelError, UnsupportedDecoding, UsageError
from tokentape.models.anatomy import anatomy_of, first_of, inputs_of
from tokentape.models.causal import CausalModel, load
from tokentape.models.padding import left_padded, pad_id_of

POSITIVE = ["Review: The soup was great", "Review: The film was lovely", "Review: The bed was perfect"]
NEGATIVE = ["Review: The soup was awful", "Review: The film was boring", "Review: The bed was horrible"]
PROMPT = "Review: The bread was"


@pytest.fixture(scope="module")
def demo() -> CausalModel:
    return load("demo", device="cpu")


@pytest.fixture(scope="module")
def direction(demo: CausalModel) -> Direction:
    return steering_direction(demo, POSITIVE, NEGATIVE, layer=[2, 3])


def drawn(causal: CausalModel, layer: int = 1, size: float = 3.0) -> Direction:
    """A direction of any model, drawn."""
    generator = torch.Generator().manual_seed(4)
    made = steering_direction(causal, [[5, 6]], [[7, 8]], layer)
    vector = size * torch.randn(made.hidden_size, generator=generator)
    return dataclasses.replace(made, vectors={layer: vector})


def steered_by_hand(
    causal: CausalModel, direction: Direction, strength: float, ids: Sequence[int], n_prompt: int
) -> torch.Tensor:
    """Logits ``[V]`` behind the ids by one pass without a cache, steered from the prompt's last position on."""
    handles = []
    for layer, vector in direction.vectors.items():

        def hook(module: Any, given: Any, output: Any, vector: torch.Tensor = vector) -> Any:
            state = first_of(output).clone()
            for position in range(n_prompt - 1, state.shape[1]):
                state[0, position] += strength * vector
            return state if isinstance(output, torch.Tensor) else (state, *output[1:])

        handles.append(anatomy_of(causal.model).blocks[layer - 1].register_forward_hook(hook))
    try:
        with torch.no_grad():
            inputs = inputs_of(causal.model, torch.tensor([ids]))
            return causal.model(**inputs, use_cache=False).logits[0, -1].float()
    finally:
        for handle in handles:
            handle.remove()


def said_under(rule: Steered, causal: CausalModel, ids: torch.Tensor, *others: Any, **options: Any) -> Any:
    with rule.attached(causal.model):
        return causal.model.generate(
            ids,
            max_new_tokens=10,
            do_sample=False,
            pad_token_id=pad_id_of(causal),
            return_dict_in_generate=True,
            output_logits=True,
            logits_processor=[*others, rule],
            **options,
        )


# -- the direction -----------------------------------------------------------------------------------------------------


def test_the_direction_is_the_difference_of_mean_states(demo: CausalModel, direction: Direction) -> None:
    def mean(prompts: list[str], layer: int) -> torch.Tensor:
        states = []
        for prompt in prompts:
            ids = torch.tensor([demo.encode(prompt)])
            states.append(demo.model(ids, output_hidden_states=True).hidden_states[layer][0, -1])
        return torch.stack(states).mean(0)

    assert direction.layers == (2, 3) and direction.hidden_size == 128
    for layer in direction.layers:
        expected = mean(POSITIVE, layer) - mean(NEGATIVE, layer)
        torch.testing.assert_close(direction.vectors[layer], expected, rtol=1e-4, atol=1e-4)
    assert (direction.model, direction.n_layers, direction.n_positive, direction.n_negative) == ("demo", 4, 3, 3)


def test_the_middle_layer_unless_one_is_asked_for(demo: CausalModel) -> None:
    assert steering_direction(demo, POSITIVE, NEGATIVE).layers == (2,)


def test_layers_may_be_named_twice_and_in_any_order(demo: CausalModel, direction: Direction) -> None:
    found = steering_direction(demo, POSITIVE, NEGATIVE, layer=[2, 2, 3, 1])
    assert found.layers == (1, 2, 3)
    assert all(torch.equal(found.vectors[layer], direction.vectors[layer]) for layer in direction.layers)


def test_the_file_gives_back_what_was_saved(demo: CausalModel, direction: Direction, tmp_path: Path) -> None:
    path = direction.save(tmp_path / "kind.safetensors")
    again = Direction.load(path)
    assert again.describe() == direction.describe()
    assert all(torch.equal(again.vectors[layer], direction.vectors[layer]) for layer in direction.layers)
    ids = torch.tensor([demo.encode(PROMPT)])
    one, other = (said_under(Steering(given, 2.0).bound(demo), demo, ids).logits for given in (direction, str(path)))
    assert all(map(torch.equal, one, other))
    assert not any(prompt.encode() in path.read_bytes() for prompt in POSITIVE)


def test_nothing_is_overwritten_unasked(direction: Direction, tmp_path: Path) -> None:
    path = direction.save(tmp_path / "kind.safetensors")
    with pytest.raises(UsageError, match="already exists"):
        direction.save(path)
    assert direction.save(path, overwrite=True) == path
    with pytest.raises(UsageError, match="cannot be written"):
        direction.save(tmp_path / "nowhere" / "kind.safetensors")


def test_what_is_no_direction_is_refused(direction: Direction, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    whole = direction.save(tmp_path / "whole.safetensors")
    files = {
        name: tmp_path / f"{name}.safetensors" for name in ("absent", "text", "cut", "weights", "layer", "numbers")
    }
    files["text"].write_text("hello")
    files["cut"].write_bytes(whole.read_bytes()[:-40])
    save_file({"layer.2": torch.zeros(3)}, files["weights"])
    metadata = {"format": "tokentape.direction/1", "model": "demo", "dtype": "float32"}
    metadata |= {"n_layers": "4", "n_positive": "1", "n_negative": "1"}
    save_file({"layer.9": torch.ones(3)}, files["layer"], metadata=metadata)
    save_file({"layer.2": torch.full((3,), torch.nan)}, files["numbers"], metadata=metadata)
    for path in files.values():
        with pytest.raises(UsageError, match="holds no steering direction"):
            Direction.load(path)


def test_a_direction_of_another_model_is_refused(demo: CausalModel, direction: Direction) -> None:
    with pytest.raises(UsageError, match="not one of llama: it was computed with demo") as caught:
        Steering(direction).bound(family("llama"))
    assert "4 layers of width 128" in caught.value.why and "steering_direction" in caught.value.fix


def test_a_model_with_other_weights_is_another_model(demo: CausalModel, direction: Direction) -> None:
    weight = demo.model.transformer.h[0].mlp.dense_h_to_4h.weight
    before = weight.data[0, 0].item()
    try:
        weight.data[0, 0] += 1e-3
        with pytest.raises(UsageError, match="not one of demo") as caught:
            Steering(direction).bound(demo)
        assert "weights" in caught.value.why
    finally:
        weight.data[0, 0] = before
    Steering(direction).bound(demo)


def test_the_same_model_in_another_dtype_is_known_by_its_name(direction: Direction) -> None:
    half = load("demo", device="cpu", dtype="bfloat16")
    Steering(direction).bound(half)
    with pytest.raises(UsageError, match="not one of"):
        Steering(dataclasses.replace(direction, model="other")).bound(half)


@pytest.mark.parametrize("layer", [0, 5, -1, True, []])
def test_a_layer_that_is_not_there_is_refused(demo: CausalModel, layer: Any) -> None:
    with pytest.raises(UsageError, match="layer"):
        steering_direction(demo, POSITIVE, NEGATIVE, layer)


def test_prompts_that_do_not_differ_give_no_direction(demo: CausalModel) -> None:
    with pytest.raises(UsageError, match="no direction"):
        steering_direction(demo, POSITIVE, POSITIVE)
    for positive, negative in (([], NEGATIVE), (POSITIVE, []), ("a text", NEGATIVE)):
        with pytest.raises(UsageError, match="prompts"):
            steering_direction(demo, positive, negative)


def test_a_model_without_a_list_of_blocks_cannot_be_steered() -> None:
    shallow = load("demo", device="cpu")
    shallow.model.transformer.h = torch.nn.ModuleList([*shallow.model.transformer.h, *shallow.model.transformer.h])
    with pytest.raises(ModelError, match="cannot be steered"):
        steering_direction(shallow, POSITIVE, NEGATIVE, 1)


# -- what is steered ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [-2.0, 0.5, 3.0])
def test_the_run_is_that_of_the_pass_by_hand(demo: CausalModel, direction: Direction, strength: float) -> None:
    ids = torch.tensor([demo.encode(PROMPT)])
    found = said_under(Steering(direction, strength).bound(demo), demo, ids)
    sequence = found.sequences[0].tolist()
    for step, logits in enumerate(found.logits):
        so_far = sequence[: ids.shape[1] + step]
        expected = steered_by_hand(demo, direction, strength, so_far, ids.shape[1])
        torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-3)
        assert not torch.allclose(logits[0], steered_by_hand(demo, direction, 0.0, so_far, ids.shape[1]), atol=0.05)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "rwkv"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_families_with_and_without_a_cache(name: str, use_cache: bool) -> None:
    causal = family(name)
    found_direction = drawn(causal)
    ids = torch.tensor([[5, 60, 70, 80, 90]])
    found = said_under(Steering(found_direction, 1.0).bound(causal), causal, ids, use_cache=use_cache)
    sequence = found.sequences[0].tolist()
    for step, logits in enumerate(found.logits):
        expected = steered_by_hand(causal, found_direction, 1.0, sequence[: 5 + step], 5)
        torch.testing.assert_close(logits[0].float(), expected, rtol=1e-3, atol=1e-3)


def test_rows_of_a_batch_are_steered_as_if_alone(demo: CausalModel, direction: Direction) -> None:
    prompts = [demo.encode(prompt) for prompt in (PROMPT, "The cat", "Review: We came on Monday. The soup was")]
    ids, mask = left_padded(prompts, pad_id_of(demo))
    batch = said_under(Steering(direction, 2.0).bound(demo), demo, ids, attention_mask=mask, eos_token_id=None)
    for row, prompt in enumerate(prompts):
        alone = said_under(Steering(direction, 2.0).bound(demo), demo, torch.tensor([prompt]), eos_token_id=None)
        assert torch.equal(batch.sequences[row, ids.shape[1] :], alone.sequences[0, len(prompt) :])
        for mine, their in zip(batch.logits, alone.logits, strict=True):
            torch.testing.assert_close(mine[row], their[0], rtol=1e-4, atol=1e-3)


def test_what_was_forced_is_said_and_not_read(demo: CausalModel, direction: Direction) -> None:
    """Forced ids go into the first pass with the prompt, and into a later one with a choice."""
    prompt, forced, later = demo.encode(PROMPT), demo.encode(" very"), demo.encode(" good. It")
    rule = Steering(direction, 2.0).bound(demo)
    ids = torch.tensor([[*prompt, *forced]])
    rule.begin(torch.tensor([prompt]))
    with rule.attached(demo.model), torch.no_grad():
        first = demo.model(ids, use_cache=True)
        rule(ids, first.logits[:, -1])
        second = demo.model(torch.tensor([later]), past_key_values=first.past_key_values)
    said = ids[0].tolist()
    for out, so_far in ((first, said), (second, [*said, *later])):
        expected = steered_by_hand(demo, direction, 2.0, so_far, len(prompt))
        torch.testing.assert_close(out.logits[0, -1], expected, rtol=1e-4, atol=1e-3)


def test_guidance_beside_it_reads_a_steered_model(demo: CausalModel, direction: Direction) -> None:
    prompt, negative = demo.encode(PROMPT), demo.encode("Review: The film was bad. The bread was")
    rule = Steering(direction, 1.5).bound(demo)
    guidance = Guidance(2.0, negative).bound(demo)
    seen: list[torch.Tensor] = []

    def watching(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append(scores)
        return scores

    found = said_under(rule, demo, torch.tensor([prompt]), guidance, watching)
    said = found.sequences[0].tolist()[len(prompt) :]
    for step, scores in enumerate(seen):
        one = steered_by_hand(demo, direction, 1.5, [*prompt, *said[:step]], len(prompt)).log_softmax(-1)
        other = steered_by_hand(demo, direction, 1.5, [*negative, *said[:step]], len(negative)).log_softmax(-1)
        torch.testing.assert_close(scores[0], other + 2.0 * (one - other), rtol=1e-4, atol=3e-3)


def test_the_baseline_is_the_model_without_the_rule(demo: CausalModel, direction: Direction) -> None:
    ids = torch.tensor([demo.encode(PROMPT)])
    rule = Steering(direction, 2.0).bound(demo)
    baselines: list[torch.Tensor] = []

    def asking(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        baselines.append(rule.baseline(input_ids))
        return scores

    found = said_under(rule, demo, ids, asking)
    plain = said_under(Steering(direction, 2.0).bound(demo), demo, ids)
    assert torch.equal(found.sequences, plain.sequences), "asking changes nothing"
    sequence = found.sequences[0].tolist()
    for step, logits in enumerate(baselines):
        expected = steered_by_hand(demo, direction, 0.0, sequence[: ids.shape[1] + step], ids.shape[1])
        torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-3)


# -- what is left alone ------------------------------------------------------------------------------------------------


def n_hooks(model: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_strength_zero_is_the_identity(demo: CausalModel, direction: Direction) -> None:
    ids = torch.tensor([demo.encode(PROMPT)])
    rule = Steering(direction, 0.0).bound(demo)
    before = n_hooks(demo.model)
    with rule.attached(demo.model):
        assert n_hooks(demo.model) == before
    found = said_under(rule, demo, ids).logits
    plain = demo.model.generate(
        ids, max_new_tokens=10, do_sample=False, return_dict_in_generate=True, output_logits=True
    ).logits
    assert len(found) == len(plain) and all(map(torch.equal, found, plain))


def test_the_model_is_as_before_even_after_an_error(demo: CausalModel, direction: Direction) -> None:
    before = n_hooks(demo.model)
    rule = Steering(direction, 2.0).bound(demo)
    with pytest.raises(RuntimeError, match="stop"), rule.attached(demo.model):
        assert n_hooks(demo.model) == before + 3  # two layers, and the pass as a whole
        raise RuntimeError("stop")
    assert n_hooks(demo.model) == before


def test_scores_are_given_back_as_they_are(demo: CausalModel, direction: Direction) -> None:
    scores = torch.randn(1, demo.vocab_size)
    assert Steering(direction, 2.0).bound(demo)(torch.tensor([[5, 6]]), scores) is scores


def test_a_prompt_read_in_parts_is_refused(demo: CausalModel, direction: Direction) -> None:
    rule = Steering(direction, 2.0).bound(demo)
    with pytest.raises(UnsupportedDecoding, match="several passes"):
        said_under(rule, demo, torch.tensor([demo.encode(PROMPT)]), prefill_chunk_size=2)
    rule = Steering(direction, 2.0).bound(demo)
    with rule.attached(demo.model), pytest.raises(UnsupportedDecoding, match="not called"):
        demo.model.generate(torch.tensor([demo.encode(PROMPT)]), max_new_tokens=3)


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), "2", None, True])
def test_a_strength_is_a_finite_number(direction: Direction, strength: Any) -> None:
    with pytest.raises(UsageError, match="strength"):
        Steering(direction, strength)


def test_it_is_a_control_whose_rule_tells_what_it_is(demo: CausalModel, direction: Direction) -> None:
    control = Steering(direction, -1.5)
    rule = control.bound(demo)
    assert isinstance(control, Control) and isinstance(rule, Rule) and isinstance(rule, Steers)
    assert (rule.name, rule.believes, rule.masks) == ("steering", True, False)
    told = rule.describe()
    assert json.loads(json.dumps(told)) == told
    assert told["strength"] == -1.5 and set(told["direction"]["norms"]) == {"2", "3"}
