"""A model in this process as a source: the host that runs ahead, options, prompts, what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

import tokentape as tt
from families import causal, model, tokenizer
from tokentape.errors import PromptError, RuleError, TapeExists, UnsupportedDecoding, UsageError
from tokentape.sources.local import LocalSource

PROMPT = "The cat sat on the"
BATCH = ["The cat", "A dog and a cat sat on a mat", "猫"]
SAMPLED = {"do_sample": True}
MANY_ENDS = list(range(0, 256, 9))
STRINGS = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
TOKEN_COLUMNS = ("position", "step", "id", "logprob", "entropy", "rank", "rules_logprob", "forced", "overshoot")


def ids_of(text: str) -> list[int]:
    return tokenizer()(text)["input_ids"]


def plain(family: str, text: str = PROMPT, *, seed: int = 7, **options: Any) -> list[int]:
    """What ``generate()`` itself adds to a prompt."""
    ids = torch.tensor([ids_of(text)])
    torch.manual_seed(seed)
    out = model(family).generate(ids, attention_mask=torch.ones_like(ids), **options)
    return out[0, ids.shape[1] :].tolist()


# running ahead

ENDINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "length": (PROMPT, {}),
    "one token": (PROMPT, {"max_new_tokens": 1}),
    "two tokens": (PROMPT, {**SAMPLED, "max_new_tokens": 2, "eos_token_id": list(range(250))}),
    "end of text": (PROMPT, {**SAMPLED, "eos_token_id": MANY_ENDS}),
    "end of text at once": (PROMPT, {**SAMPLED, "eos_token_id": list(range(264))}),
    "stop string": (PROMPT, {**SAMPLED, "stop_strings": STRINGS}),
    "batch": (BATCH, {**SAMPLED, "eos_token_id": MANY_ENDS}),
    "batch, greedy": (BATCH, {"eos_token_id": MANY_ENDS}),
    "rules": (PROMPT, {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "eos_token_id": MANY_ENDS}),
    "forced end": (PROMPT, {**SAMPLED, "forced_eos_token_id": 258}),
}


def recorded(family: str, lookahead: int, prompt: Any, options: dict[str, Any]) -> tuple[tt.Tape, torch.Tensor]:
    tape = tt.record(
        LocalSource(causal(family), lookahead=lookahead), prompt, seed=5, **{"max_new_tokens": 20, **options}
    )
    return tape, torch.get_rng_state()


def check_running_ahead(family: str, prompt: Any, options: dict[str, Any]) -> tt.Tape:
    wanted, state = recorded(family, 0, prompt, options)
    n_steps = wanted.traces[0].steps["index"].size
    for lookahead in (1, 2, 3, 4):
        tape, state_then = recorded(family, lookahead, prompt, options)
        assert torch.equal(state_then, state), "the steps past the end have drawn random numbers"
        for mine, theirs in zip(tape.traces, wanted.traces, strict=True):
            assert mine.finish_reason == theirs.finish_reason
            assert mine.bytes == theirs.bytes
            for name in TOKEN_COLUMNS:
                assert np.ma.allequal(mine.tokens[name], theirs.tokens[name], fill_value=True), name
                assert np.ma.allequal(mine.overshoot[name], theirs.overshoot[name], fill_value=True), name
        n_out = tape.traces[0].steps["n_out"].tolist()
        assert n_out[:n_steps] == wanted.traces[0].steps["n_out"].tolist()
        assert n_out[n_steps:] == [0] * (len(n_out) - n_steps), "a step past the end has no token"
        longest = options.get("max_new_tokens", 20)
        assert len(n_out) == min(n_steps + lookahead, longest), (
            "the host ran ahead by as much as it may, and no further"
        )
        assert not tape.verify()
    return wanted


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("family", ["bloom", "llama", "mamba"])
def test_running_ahead_changes_nothing(family: str, ending: str) -> None:
    check_running_ahead(family, *ENDINGS[ending])


@pytest.mark.parametrize("prompt", [PROMPT, BATCH], ids=["one", "batch"])
def test_running_ahead_without_an_end_of_text(prompt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no end of text is known, rows that have ended go on with real tokens; those of a step past the end are nobody's."""
    monkeypatch.setattr(model("llama").generation_config, "eos_token_id", None)
    wanted = check_running_ahead("llama", prompt, {**SAMPLED, "stop_strings": STRINGS, "max_new_tokens": 60})
    assert {trace.finish_reason for trace in wanted.traces} == {"stop_string"}
    assert (sum(trace.overshoot["id"].size for trace in wanted.traces) > 0) == (prompt is BATCH)


@pytest.mark.parametrize("of_one_run", [False, True])
def test_running_ahead_into_a_cache_that_was_passed(of_one_run: bool) -> None:
    """Where it outlives the call, steps past the end would be in it; one that dies with the run says so."""
    cache = DynamicCache()
    if of_one_run:
        cache.of_one_run = True
    options = {**SAMPLED, "eos_token_id": MANY_ENDS, "past_key_values": cache}
    tape, _ = recorded("llama", 3, PROMPT, options)
    n_tokens = len(tape.traces[0].token_ids)
    assert n_tokens < 20
    assert tape.traces[0].steps["index"].size == n_tokens + 3 * of_one_run


def test_nothing_runs_ahead_of_foreign_code() -> None:
    """A grammar's processor, or a criterion of the user's, would be asked about steps that are no part of the sequence."""
    seen: list[int] = []

    class Counting(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            seen.append(input_ids.shape[1])
            return scores

    class Watching(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            seen.append(input_ids.shape[1])
            return torch.zeros(input_ids.shape[0], dtype=torch.bool)

    def allowed(row: int, ids: torch.Tensor) -> list[int]:
        seen.append(len(ids))
        return list(range(264))

    ends = {**SAMPLED, "eos_token_id": MANY_ENDS, "max_new_tokens": 40}
    foreign: list[dict[str, Any]] = [
        {"logits_processor": LogitsProcessorList([Counting()])},
        {"stopping_criteria": StoppingCriteriaList([Watching()])},
        {"prefix_allowed_tokens_fn": allowed},
    ]
    for options in foreign:
        seen.clear()
        tape = tt.record(LocalSource(causal("llama"), lookahead=3), PROMPT, seed=5, **ends, **options)
        n_tokens = len(tape.traces[0].token_ids)
        assert n_tokens < 40 and len(seen) == n_tokens == tape.traces[0].steps["index"].size


# against generate(): what the other options do


class Halting(StoppingCriteria):
    """Stops where the last id is divisible by seven."""

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return input_ids[:, -1] % 7 == 0


OPTIONS: dict[str, dict[str, Any]] = {
    "model's own length": {"max_length": 25},
    "suppressed": {"suppress_tokens": list(range(0, 264, 2))},
    "suppressed at the beginning": {"begin_suppress_tokens": list(range(200))},
    "bias": {"sequence_bias": {(101,): 10.0, (50, 51): 5.0}},
    "renormalized": {**SAMPLED, "renormalize_logits": True, "top_p": 0.8},
    "guidance": {"guidance_scale": 1.5},
    "typical": {**SAMPLED, "typical_p": 0.8},
    "eta and epsilon": {**SAMPLED, "epsilon_cutoff": 1e-3, "eta_cutoff": 1e-3},
    "decay": {"exponential_decay_length_penalty": (3, 1.5), "eos_token_id": [5, 6, 7]},
    "encoder repetition": {"encoder_repetition_penalty": 1.4},
    "generation config": {
        "generation_config": GenerationConfig(do_sample=True, top_p=0.7, max_new_tokens=9, pad_token_id=259)
    },
    "stop strings in the config": {"generation_config": GenerationConfig(stop_strings=STRINGS, max_new_tokens=19)},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "prefill in chunks": {"prefill_chunk_size": 5},
    "much time": {"max_time": 3600.0},
    "criterion": {"stopping_criteria": StoppingCriteriaList([Halting()])},
    "no padding id": {"pad_token_id": None, "eos_token_id": MANY_ENDS},
    "one end": {"eos_token_id": 100},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_do_what_they_do_in_generate(name: str) -> None:
    options = {
        **({} if {"generation_config", "max_length"} & OPTIONS[name].keys() else {"max_new_tokens": 16}),
        **OPTIONS[name],
    }
    needs_tokenizer = {"tokenizer": tokenizer()} if "stop strings" in name else {}
    wanted = plain("llama", **options, **needs_tokenizer)
    tape = tt.record(LocalSource(causal("llama")), PROMPT, seed=7, **options)
    assert tape.traces[0].token_ids.tolist() == wanted
    assert not tape.verify()


def test_without_a_cache_every_step_reads_everything() -> None:
    tape = tt.record(LocalSource(causal("llama")), PROMPT, max_new_tokens=4, use_cache=False)
    steps = tape.traces[0].steps
    n = len(ids_of(PROMPT))
    assert steps["n_in"].tolist() == steps["context"].tolist() == [n, n + 1, n + 2, n + 3]
    assert steps["cache_bytes"].mask.all()


def test_with_a_cache_a_step_reads_one_token_a_sequence() -> None:
    tape = tt.record(LocalSource(causal("llama")), BATCH, max_new_tokens=4)
    n = max(len(ids_of(text)) for text in BATCH)
    steps = tape.traces[0].steps
    assert steps["n_in"].tolist() == [3 * n, 3, 3, 3]
    assert steps["context"].tolist() == [n, n + 1, n + 2, n + 3]
    # two tensors a layer, two heads of eight float32 values: what was read, padding included
    assert steps["cache_bytes"].tolist() == [2 * 2 * 3 * 2 * 8 * 4 * length for length in (n, n + 1, n + 2, n + 3)]


def test_time_runs_out() -> None:
    tape = tt.record(LocalSource(causal("llama")), PROMPT, max_new_tokens=100, max_time=1e-9)
    assert len(tape.traces[0].token_ids) == 1
    assert tape.traces[0].finish_reason == "criteria"


REASONS: dict[str, dict[str, Any]] = {
    "stop": {"eos_token_id": list(range(264))},
    "length": {"max_new_tokens": 3},
    "stop_string": {"stop_strings": [chr(c) for c in range(32, 127)]},
    "criteria": {
        "stopping_criteria": StoppingCriteriaList([lambda ids, scores: torch.ones(len(ids), dtype=torch.bool)])
    },
}


@pytest.mark.parametrize("reason", REASONS)
def test_finish_reason(reason: str) -> None:
    tape = tt.record(LocalSource(causal("llama")), PROMPT, **{"max_new_tokens": 60, **REASONS[reason]})
    assert tape.traces[0].finish_reason == reason


def test_a_stop_string_that_did_not_come_is_not_the_reason() -> None:
    tape = tt.record(
        LocalSource(causal("llama")), PROMPT, max_new_tokens=60, stop_strings=["never said"], **REASONS["criteria"]
    )
    assert tape.traces[0].finish_reason == "criteria"


def test_streamer_gets_what_generate_gives_it() -> None:
    def streamed(run: Any) -> list[Any]:
        got: list[Any] = []

        class Streamer:
            def put(self, value: torch.Tensor) -> None:
                got.append(value.tolist())

            def end(self) -> None:
                got.append("end")

        run(Streamer())
        return got

    options = {"max_new_tokens": 6}
    wanted = streamed(lambda streamer: plain("llama", streamer=streamer, **options))
    assert len(wanted) == 8
    assert streamed(lambda s: tt.record(LocalSource(causal("llama")), PROMPT, streamer=s, **options)) == wanted


# rules


class InPlace(LogitsProcessor):
    """Writes into what it is given."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, ::2] = -torch.inf
        return scores


def test_the_distribution_before_the_rules_is_the_model_s_own() -> None:
    options = {"max_new_tokens": 8, "logits_processor": LogitsProcessorList([InPlace()])}
    wanted = plain("llama", **options)
    trace = tt.record(LocalSource(causal("llama")), PROMPT, **options).traces[0]
    assert trace.token_ids.tolist() == wanted
    assert all(token % 2 for token in wanted)
    whole = torch.tensor([ids_of(PROMPT) + wanted])
    logits = model("llama")(whole).logits[0, -len(wanted) - 1 : -1].double().log_softmax(-1)
    own = logits.gather(1, torch.tensor(wanted)[:, None])[:, 0]
    np.testing.assert_allclose(np.asarray(trace.tokens["logprob"]), own.detach().numpy(), atol=1e-4)
    banned = logits.clone()
    banned[:, ::2] = -torch.inf
    after = (banned - banned.logsumexp(1, keepdim=True)).gather(1, torch.tensor(wanted)[:, None])[:, 0]
    np.testing.assert_allclose(np.asarray(trace.tokens["rules_logprob"]), after.detach().numpy(), atol=1e-4)


def test_what_a_rule_gave_is_told_from_what_was_chosen() -> None:
    script = [65, 66, 67]

    def allowed(row: int, ids: torch.Tensor) -> list[int]:
        done = len(ids) - len(ids_of(PROMPT))
        return [script[done]] if done < len(script) else [70, 71, 72]

    options: dict[str, Any] = {"prefix_allowed_tokens_fn": allowed, "max_new_tokens": 6}
    trace = tt.record(LocalSource(causal("llama")), PROMPT, **options).traces[0]
    assert trace.token_ids.tolist() == plain("llama", **options)
    assert trace.token_ids.tolist()[:3] == script
    assert trace.tokens["forced"].tolist() == [1, 1, 1, 0, 0, 0]
    assert trace.tokens["rules_logprob"].tolist()[:3] == [0.0, 0.0, 0.0]
    assert max(trace.tokens["logprob"].tolist()[:3]) < 0


def test_a_forced_end_is_forced() -> None:
    # top_k=1 leaves one token at every step, which is a choice; only the last one is given
    options: dict[str, Any] = {**SAMPLED, "top_k": 1, "forced_eos_token_id": 258, "max_new_tokens": 5}
    trace = tt.record(LocalSource(causal("llama")), PROMPT, **options).traces[0]
    assert trace.token_ids.tolist() == plain("llama", **options)
    assert trace.token_ids.tolist()[-1] == 258
    assert trace.tokens["forced"].tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("sampled", [False, True])
def test_everything_masked_is_an_error(sampled: bool, tmp_path: Path) -> None:
    def masked(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -torch.inf) if ids.shape[1] > len(ids_of(PROMPT)) + 1 else scores

    path = tmp_path / "masked.tape"
    with pytest.raises(RuleError, match="left no token") as caught:
        tt.record(LocalSource(causal("llama")), PROMPT, path=path, do_sample=sampled, logits_processor=[masked])
    assert caught.value.why and caught.value.fix
    with tt.open(path) as tape:
        assert tape.state == "partial"
        assert tape.traces[0].finish_reason == "error"
        assert len(tape.traces[0].token_ids) == 2
        assert not tape.verify()


def test_logits_that_are_no_numbers_are_null() -> None:
    from families import causal as make

    broken = make.__wrapped__("llama")  # one of its own, so that the others stay whole
    head = type(broken.model)(broken.model.config)
    head.load_state_dict(broken.model.state_dict())
    with torch.no_grad():
        head.lm_head.weight[5] = torch.nan
    broken = type(broken)(head.eval(), tokenizer(), "broken", None, None, 128, 264)
    trace = tt.record(LocalSource(broken), PROMPT, max_new_tokens=3).traces[0]
    for name in ("logprob", "entropy", "rank"):
        assert trace.tokens[name].mask.all(), name
    assert len(trace.token_ids) == 3


# refused by name

REFUSED: dict[str, dict[str, Any]] = {
    "beam search": {"num_beams": 2},
    "beam": {"generation_config": GenerationConfig(num_beams=3, pad_token_id=259)},
    "assisted decoding": {"assistant_model": object()},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "contrastive search": {"penalty_alpha": 0.6, "top_k": 4},
    "DoLa": {"dola_layers": "low"},
    "custom decoding": {"custom_generate": "someone/else"},
    "synced_gpus": {"synced_gpus": True},
    "continuous batching": {"cache_implementation": "paged"},
}


@pytest.mark.parametrize("method", REFUSED)
def test_other_decoding_is_refused_by_name(method: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedDecoding, match=method) as caught:
        tt.record(LocalSource(causal("llama")), PROMPT, path=tmp_path / "a.tape", **REFUSED[method])
    assert caught.value.why and caught.value.fix
    assert list(tmp_path.iterdir()) == []


MISTAKES: dict[str, dict[str, Any]] = {
    "temperature=0 ": {"do_sample": True, "temperature": 0},
    "temperature": {"temperature": 0.5},
    "top_p=1.5": {"do_sample": True, "top_p": 1.5},
    "max_new_tokens=0": {"max_new_tokens": 0},
    "max_new_tokens=True": {"max_new_tokens": True},
    "min_new_tokens=9": {"min_new_tokens": 9, "max_new_tokens": 3},
    "num_return_sequences=2": {"num_return_sequences": 2},
    "refuses": {"no_such_option": 1},
    "more than": {"max_new_tokens": 4000},
}


@pytest.mark.parametrize("said", MISTAKES)
def test_mistakes_are_told_before_anything_is_written(said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        tt.record(LocalSource(causal("llama")), PROMPT, path=tmp_path / "a.tape", **MISTAKES[said])
    assert caught.value.why
    assert list(tmp_path.iterdir()) == []


# prompts

BAD_PROMPTS: dict[str, tuple[Any, str]] = {
    "nothing": ([], "no prompt"),
    "no text": ("", "empty"),
    "no ids": ([[]], "empty"),
    "one of them empty": (["The cat", ""], "empty"),
    "too long": ("x" * 200, "200 tokens"),
    "beyond the vocabulary": ([1, 2, 264], "264"),
    "below it": ([1, -1], "-1"),
    "floats": ([1.0, 2.0], "float"),
    "floats in a batch": ([[1.0, 2.0]], "float"),
    "a flag": ([True, False], "bool"),
    "flags in a batch": ([[True, False]], "bool"),
    "bytes": (b"The cat", "bytes"),
    "none": (None, "NoneType"),
    "a number": (7, "int"),
    "a mapping": ({"input_ids": [1, 2]}, "dict"),
}


@pytest.mark.parametrize("kind", BAD_PROMPTS)
def test_a_prompt_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    prompt, said = BAD_PROMPTS[kind]
    with pytest.raises(PromptError, match=said) as caught:
        tt.record(LocalSource(causal("llama")), prompt, path=tmp_path / "a.tape", max_new_tokens=2)
    assert caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_every_form_of_a_prompt_says_the_same() -> None:
    source, ids = LocalSource(causal("llama")), ids_of(PROMPT)
    forms: list[Any] = [PROMPT, ids, tuple(ids), [PROMPT], [ids], np.array(ids), torch.tensor(ids), torch.tensor([ids])]
    wanted = plain("llama", max_new_tokens=5)
    for form in forms:
        (trace,) = tt.record(source, form, max_new_tokens=5).traces
        assert trace.token_ids.tolist() == wanted
        assert trace.prompt_ids.tolist() == ids
        assert trace.prompt_text == PROMPT
        assert trace.n_prompt == len(ids)
    mixed = tt.record(source, [PROMPT, ids], max_new_tokens=5)
    assert [trace.token_ids.tolist() for trace in mixed.traces] == [wanted, wanted]


def test_a_batch_is_its_prompts_one_by_one() -> None:
    source = LocalSource(causal("llama"))
    batch = tt.record(source, BATCH, max_new_tokens=6)
    for text, trace in zip(BATCH, batch.traces, strict=True):
        (alone,) = tt.record(source, text, max_new_tokens=6).traces
        assert trace.token_ids.tolist() == alone.token_ids.tolist()
        assert trace.prompt_ids.tolist() == ids_of(text)
        assert trace.tokens["position"].tolist()[0] == len(ids_of(text))
        np.testing.assert_allclose(np.asarray(trace.tokens["logprob"]), np.asarray(alone.tokens["logprob"]), atol=1e-5)


# text, seed, path


def test_without_text_neither_words_nor_ids_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "quiet.tape"
    options: dict[str, Any] = {**SAMPLED, "max_new_tokens": 30}
    loud = tt.record(LocalSource(causal("llama")), PROMPT, seed=3, **options).traces[0]
    tape = tt.record(LocalSource(causal("llama")), PROMPT, seed=3, path=path, text=False, **options)
    (trace,) = tape.traces
    assert trace.prompt_text is None and trace.prompt_ids is None and trace.text is None
    assert trace.tokens["id"].mask.all()
    assert trace.candidates.ids.shape[1] == 0
    assert not tape.pieces
    np.testing.assert_array_equal(np.asarray(trace.tokens["logprob"]), np.asarray(loud.tokens["logprob"]))
    tape.close()
    kept = path.read_bytes()
    assert PROMPT.encode() not in kept and loud.bytes not in kept
    assert json.dumps(ids_of(PROMPT), separators=(",", ":")).encode() not in kept


def test_without_text_the_options_hold_no_words_either(tmp_path: Path) -> None:
    path = tmp_path / "quiet.tape"
    spoken: dict[str, Any] = {
        "stop_strings": ["SECRET"],
        "bad_words_ids": [[201, 202]],
        "sequence_bias": {(203, 204): 2.0},
    }
    tape = tt.record(LocalSource(causal("llama")), PROMPT, path=path, text=False, max_new_tokens=3, **spoken)
    held = tape.runs[0].options
    tape.close()
    assert b"SECRET" not in path.read_bytes()
    assert not re.search(r"20[1-4]", json.dumps(dict(held)))
    assert spoken.keys() <= held.keys(), "that there were some is worth knowing: how many, not which"


def test_the_same_seed_gives_the_same_run() -> None:
    source = LocalSource(causal("llama"))
    options: dict[str, Any] = {**SAMPLED, "max_new_tokens": 30}
    one, same, other = (tt.record(source, PROMPT, seed=seed, **options) for seed in (3, 3, 4))
    assert one.traces[0].token_ids.tolist() == same.traces[0].token_ids.tolist() == plain("llama", seed=3, **options)
    assert one.traces[0].token_ids.tolist() != other.traces[0].token_ids.tolist()
    assert [tape.runs[0].seed for tape in (one, same, other)] == [3, 3, 4]
    assert tt.record(source, PROMPT, **options).runs[0].seed is None


def test_a_tape_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    tt.record(LocalSource(causal("llama")), PROMPT, path=path, max_new_tokens=2).close()
    before = path.read_bytes()
    with pytest.raises(TapeExists):
        tt.record(LocalSource(causal("llama")), PROMPT, path=path, max_new_tokens=2)
    assert path.read_bytes() == before


def test_the_options_that_held_are_on_the_tape() -> None:
    options: dict[str, Any] = {**SAMPLED, "max_new_tokens": 4, "top_p": 0.9, "stop_strings": "zzz"}
    held = tt.record(LocalSource(causal("llama")), PROMPT, seed=1, **options).runs[0].options
    assert held["top_p"] == 0.9 and held["top_k"] == 50, "generate() itself fills in top_k=50"
    assert held["do_sample"] is True and held["stop_strings"] == ["zzz"]
    bias = tt.record(LocalSource(causal("llama")), PROMPT, max_new_tokens=2, sequence_bias={(5,): float("inf")})
    assert "sequence_bias" in bias.runs[0].options
