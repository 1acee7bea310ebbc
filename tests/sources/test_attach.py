"""``with recording(model)``: the program goes on as if nothing were there, and the tape has all of it."""

from __future__ import annotations

import copy
import gc
import inspect
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
    pipeline,
)

import tokentape as tt
from families import model, tokenizer
from tokentape.errors import RecordingError, RuleError, UnsupportedDecoding, UsageError

PROMPT = "The cat sat on the"
MANY_ENDS = list(range(0, 256, 9))


def inputs(text: str = PROMPT) -> dict[str, torch.Tensor]:
    ids = torch.tensor([tokenizer()(text)["input_ids"]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture
def llama() -> Iterator[Any]:
    """The model, which each test has to leave as it was: its attributes, its hooks, its configurations."""
    made = model("llama")
    made._previous_max_cache_length = 0  # what generate() itself leaves where a static cache is asked for
    before = picture(made)
    yield made
    left = picture(made)
    assert {name: value for name, value in left.items() if value != before[name]} == {}


def picture(module: Any) -> dict[str, Any]:
    """What a recording could leave behind in a model and in the process around it."""
    gc.collect()  # a tape that nobody holds closes its file
    hooks = {
        f"{name}.{kind}": len(vars(part)[kind])
        for name, part in module.named_modules()
        for kind in vars(part)
        if kind.endswith("hooks")
    }
    return {
        "attributes": sorted(vars(module)),
        "generate": module.generate.__func__,
        "hooks": hooks,
        "config": module.config.to_dict(),
        "generation config": module.generation_config.to_dict(),
        "training": module.training,
        "callbacks": list(gc.callbacks),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "descriptors": sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else [],
    }


# what comes back is what generate() gives

CALLS: dict[str, dict[str, Any]] = {
    "ids alone": {"max_new_tokens": 6},
    "sampled": {"do_sample": True, "max_new_tokens": 12},
    "ends": {"do_sample": True, "max_new_tokens": 40, "eos_token_id": MANY_ENDS},
    "several": {"do_sample": True, "max_new_tokens": 6, "num_return_sequences": 3},
    "no cache": {"max_new_tokens": 6, "use_cache": False},
    "static cache": {"max_new_tokens": 6, "cache_implementation": "static"},
    "prefill in chunks": {"max_new_tokens": 6, "prefill_chunk_size": 4},
    "guidance": {"max_new_tokens": 6, "guidance_scale": 1.7},
    "bias": {"max_new_tokens": 6, "sequence_bias": {(101,): 8.0}},
    "nothing named": {"custom_generate": None, "assistant_model": None, "max_new_tokens": 4},
    "no length": {},
}


def generated(module: Any, **options: Any) -> Any:
    torch.manual_seed(3)
    return module.generate(**{**inputs(), **options})


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default")
@pytest.mark.parametrize("call", CALLS)
def test_returns_what_generate_returns(llama: Any, call: str) -> None:
    wanted = generated(llama, **CALLS[call])
    state = torch.get_rng_state()
    with tt.recording(llama, tokenizer=tokenizer()) as tape:
        got = generated(llama, **CALLS[call])
    assert torch.equal(got, wanted)
    assert torch.equal(torch.get_rng_state(), state)
    n = inputs()["input_ids"].shape[1]
    for row, trace in enumerate(tape.traces):
        ids = trace.token_ids.tolist()
        assert ids == wanted[row, n:].tolist()[: len(ids)]
        assert trace.prompt_text == PROMPT
        assert trace.text == tokenizer().decode(ids, skip_special_tokens=True)
    assert not tape.verify()


def test_the_output_object_is_the_same() -> None:
    eager = copy.deepcopy(model("llama"))
    eager.set_attn_implementation("eager")
    options = {
        "max_new_tokens": 5,
        "do_sample": True,
        "top_p": 0.9,
        "return_dict_in_generate": True,
        "output_scores": True,
        "output_logits": True,
        "output_attentions": True,
        "output_hidden_states": True,
    }
    wanted = generated(eager, **options)
    with tt.recording(eager) as tape:
        got = generated(eager, **options)
    assert type(got) is type(wanted) and got.keys() == wanted.keys()
    assert torch.equal(got.sequences, wanted.sequences)
    for name in ("scores", "logits"):
        assert all(torch.equal(a, b) for a, b in zip(got[name], wanted[name], strict=True))
    for name in ("attentions", "hidden_states"):
        for mine, theirs in zip(got[name], wanted[name], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert got.past_key_values.get_seq_length() == wanted.past_key_values.get_seq_length()
    assert len(tape.traces[0].token_ids) == 5


def test_logits_that_a_processor_spoils_come_back_spoilt_and_are_recorded_whole(llama: Any) -> None:
    def spoil(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, 100:] = -torch.inf
        return scores

    options = {"max_new_tokens": 4, "logits_processor": [spoil], "return_dict_in_generate": True, "output_logits": True}
    wanted = generated(llama, **options)
    with tt.recording(llama) as tape:
        got = generated(llama, **options)
    assert torch.isinf(wanted.logits[0]).any(), "generate() itself hands out what the processor wrote into"
    assert all(torch.equal(a, b) for a, b in zip(got.logits, wanted.logits, strict=True))
    trace = tape.traces[0]
    clean = llama(trace_ids(trace)).logits[0, trace.n_prompt - 1 : -1].double().log_softmax(-1)
    own = clean.gather(1, torch.tensor(trace.token_ids)[:, None])[:, 0].detach().numpy()
    np.testing.assert_allclose(np.asarray(trace.tokens["logprob"]), own, atol=1e-4)


def trace_ids(trace: tt.Trace) -> torch.Tensor:
    return torch.tensor([[*trace.prompt_ids.tolist(), *trace.token_ids.tolist()]])


def test_arguments_may_be_given_by_position(llama: Any) -> None:
    ids = inputs()["input_ids"]
    config = GenerationConfig(max_new_tokens=30, stop_strings=["a", "e", "1"], do_sample=True, pad_token_id=259)
    criteria = StoppingCriteriaList([MaxLengthCriteria(40)])
    torch.manual_seed(1)
    wanted = llama.generate(ids, config, LogitsProcessorList(), criteria, tokenizer=tokenizer())
    torch.manual_seed(1)
    with tt.recording(llama) as tape:
        got = llama.generate(ids, config, LogitsProcessorList(), criteria, tokenizer=tokenizer())
        with pytest.raises(UnsupportedDecoding, match="assisted"):
            llama.generate(ids, None, None, None, None, None, llama)
        with pytest.raises(TypeError):
            llama.generate(ids, inputs=ids)
    assert torch.equal(got, wanted)
    assert tape.runs[0].options["stop_strings"] == ["a", "e", "1"]
    assert config.stop_strings == ["a", "e", "1"], "the caller's configuration is not ours to change"


def test_goes_on_from_a_cache(llama: Any) -> None:
    first = inputs("The cat ")["input_ids"]
    whole = inputs("The cat sat on")["input_ids"]

    def filled() -> DynamicCache:
        cache = DynamicCache(config=llama.config)
        with torch.no_grad():
            llama(first, past_key_values=cache)
        return cache

    n_first, n_whole = first.shape[1], whole.shape[1]
    wanted = generated(llama, input_ids=whole, attention_mask=torch.ones_like(whole), max_new_tokens=5)
    with tt.recording(llama, tokenizer=tokenizer()) as tape:
        got = generated(
            llama, input_ids=whole, attention_mask=torch.ones_like(whole), past_key_values=filled(), max_new_tokens=5
        )
        # only what is new, and a mask that covers all
        short = generated(
            llama,
            input_ids=whole[:, n_first:],
            attention_mask=torch.ones_like(whole),
            past_key_values=filled(),
            max_new_tokens=5,
        )
    assert torch.equal(got, wanted) and torch.equal(short, wanted[:, n_first:])
    for trace in tape.traces:
        assert trace.n_prompt == trace.tokens["position"].tolist()[0] == n_whole
        assert trace.steps["n_in"].tolist() == [n_whole - n_first, 1, 1, 1, 1]
        assert trace.steps["context"].tolist() == list(range(n_whole, n_whole + 5))
    assert [trace.prompt_text for trace in tape.traces] == ["The cat sat on", None], "what was read before is not known"
    assert tape.traces[1].prompt_ids is None
    assert not tape.verify()


@pytest.mark.parametrize("with_ids", [False, True])
def test_starts_from_embeddings(llama: Any, with_ids: bool) -> None:
    ids = inputs()["input_ids"]
    given: dict[str, Any] = {"inputs_embeds": llama.get_input_embeddings()(ids).detach(), "max_new_tokens": 5}
    if with_ids:  # for the processors, which look at what has been said
        given |= {"input_ids": ids, "repetition_penalty": 1.2}
    torch.manual_seed(3)
    wanted = llama.generate(**given)
    with tt.recording(llama, tokenizer=tokenizer()) as tape:
        torch.manual_seed(3)
        got = llama.generate(**given)
    assert torch.equal(got, wanted)
    trace, n = tape.traces[0], ids.shape[1]
    assert (trace.n_prompt, trace.prompt_ids, trace.prompt_text) == (n, None, None)
    assert trace.tokens["position"].tolist() == list(range(n, n + 5))
    assert trace.token_ids.tolist() == wanted[0, -5:].tolist()
    assert trace.steps["n_in"].tolist() == [n, 1, 1, 1, 1]
    assert trace.steps["context"].tolist() == list(range(n, n + 5))


def test_a_padded_batch_loses_its_padding(llama: Any) -> None:
    rows = [tokenizer()(text)["input_ids"] for text in ("The cat", "A dog and a cat")]
    width = max(map(len, rows))
    ids = torch.tensor([[259] * (width - len(row)) + row for row in rows])
    with tt.recording(llama, tokenizer=tokenizer()) as tape:
        llama.generate(ids, attention_mask=(ids != 259).long(), max_new_tokens=3)
    assert [trace.prompt_ids.tolist() for trace in tape.traces] == rows
    assert [trace.prompt_text for trace in tape.traces] == ["The cat", "A dog and a cat"]
    assert [trace.tokens["position"].tolist()[0] for trace in tape.traces] == list(map(len, rows))


def test_several_calls_are_several_runs(llama: Any, tmp_path: Path) -> None:
    with tt.recording(llama, tmp_path / "a.tape", tokenizer=tokenizer()) as tape:
        for n in (2, 3, 4):
            generated(llama, max_new_tokens=n)
        with pytest.raises(RecordingError, match="still being recorded"):
            _ = tape.traces
        assert "under way" in repr(tape)
    assert [len(trace.token_ids) for trace in tape.traces] == [2, 3, 4]
    assert len(tape) == 3 and [trace.number for trace in tape] == [0, 1, 2]
    starts = [run.start_ns for run in tape.runs]
    assert starts == sorted(starts) and starts[0] > 0
    for run, trace in zip(tape.runs, tape.traces, strict=True):
        assert trace.steps["start_ns"][0] >= run.start_ns
    assert tape.state == "complete" and not tape.verify()


def test_every_argument_arrives_as_it_was_given(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    own = type(llama)._validate_model_kwargs
    monkeypatch.setattr(
        type(llama), "_validate_model_kwargs", lambda self, given: (seen.append(given), own(self, given))
    )
    plainly = generated(llama, max_new_tokens=2)
    with tt.recording(llama):
        recorded = generated(llama, max_new_tokens=2)
    assert torch.equal(plainly, recorded)
    assert seen[0].keys() == seen[1].keys() == {"input_ids", "attention_mask"}


def test_a_compiled_model_is_recorded() -> None:
    own = copy.deepcopy(model("llama"))
    compiled = torch.compile(own, backend="eager")
    wanted = generated(own, max_new_tokens=3)
    with tt.recording(compiled) as tape:
        got = generated(compiled, max_new_tokens=3)
    assert torch.equal(got, wanted)
    assert [len(trace.token_ids) for trace in tape.traces] == [3]
    assert "generate" not in vars(own) and "generate" not in vars(compiled)


def test_the_stand_in_looks_like_generate(llama: Any) -> None:
    wanted = inspect.signature(llama.generate)
    with tt.recording(llama):
        assert inspect.signature(llama.generate) == wanted
        assert llama.generate.__name__ == "generate" and llama.generate.__doc__


# pipelines and threads


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("given", ["pipeline", "its model"])
def test_a_pipeline_is_recorded(llama: Any, given: str) -> None:
    pipe = pipeline("text-generation", model=llama, tokenizer=tokenizer(), device="cpu")
    options = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
    wanted = pipe(PROMPT, **options)[0]["generated_text"]
    named = {} if given == "pipeline" else {"tokenizer": tokenizer()}
    with tt.recording(pipe if given == "pipeline" else llama, **named) as tape:
        got = pipe(PROMPT, **options)[0]["generated_text"]
    assert got == wanted
    assert tape.traces[0].text == tokenizer().decode(tape.traces[0].token_ids, skip_special_tokens=True) == wanted
    assert tape.traces[0].prompt_text == PROMPT


def test_tokenizer_is_found_beside_the_model(tmp_path: Path) -> None:
    model("llama").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with tt.recording(loaded) as tape:
        loaded.generate(**inputs(), max_new_tokens=4)
    assert tape.traces[0].prompt_text == PROMPT
    assert tape.traces[0].text is not None


def test_without_a_tokenizer_the_tape_has_ids_alone(llama: Any) -> None:
    with tt.recording(llama) as tape:
        generated(llama, max_new_tokens=4)
    trace = tape.traces[0]
    assert (trace.prompt_text, trace.text) == (None, None)
    assert len(trace.token_ids) == 4 and trace.prompt_ids.tolist() == inputs()["input_ids"][0].tolist()


def streamed(module: Any, wait: bool) -> list[str]:
    streamer = TextIteratorStreamer(tokenizer(), skip_prompt=True, timeout=60)
    thread = threading.Thread(target=module.generate, kwargs={**inputs(), "streamer": streamer, "max_new_tokens": 20})
    thread.start()
    said = list(streamer)
    if wait:
        thread.join()
    return said


@pytest.mark.parametrize("wait", [True, False], ids=["joined", "not joined"])
def test_a_streamer_in_another_thread(llama: Any, wait: bool) -> None:
    wanted = streamed(llama, wait=True)
    with tt.recording(llama, tokenizer=tokenizer()) as tape:
        got = streamed(llama, wait)
    assert got == wanted
    # the streamer is told of the end before generate() has returned: the recording waits for the call
    assert len(tape.traces[0].token_ids) == 20
    assert tape.traces[0].finish_reason == "length"
    assert tape.state == "complete" and not tape.verify()


def test_two_threads_take_turns(llama: Any) -> None:
    wanted = llama.generate(**inputs(), max_new_tokens=8)
    got: list[torch.Tensor] = []
    with tt.recording(llama) as tape:
        threads = [
            threading.Thread(target=lambda: got.append(llama.generate(**inputs(), max_new_tokens=8))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(one, wanted) for one in got)
    assert [len(trace.token_ids) for trace in tape.traces] == [8, 8, 8]
    assert not tape.verify()


class Pausing(LogitsProcessor):
    """Waits at its third step until it is told to go on."""

    def __init__(self) -> None:
        self.reached, self.go_on, self.steps = threading.Event(), threading.Event(), 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.steps == 3:
            self.reached.set()
            assert self.go_on.wait(60)
        return scores


def test_a_call_outlives_a_block_that_failed(llama: Any, tmp_path: Path) -> None:
    wanted = llama.generate(**inputs(), max_new_tokens=8)
    pausing, got = Pausing(), []

    def run() -> None:
        got.append(llama.generate(**inputs(), max_new_tokens=8, logits_processor=[pausing]))

    thread = threading.Thread(target=run)
    with pytest.raises(ZeroDivisionError), tt.recording(llama, tmp_path / "a.tape"):
        thread.start()
        assert pausing.reached.wait(60)
        raise ZeroDivisionError
    pausing.go_on.set()  # only now: leaving must not wait for a step that may wait for whoever is leaving
    thread.join()
    assert torch.equal(got[0], wanted)
    with tt.open(tmp_path / "a.tape") as tape:
        assert tape.state == "partial"
        assert tape.traces[0].finish_reason == "interrupted"
        assert tape.traces[0].token_ids.tolist() == wanted[0, -8:].tolist()[: len(tape.traces[0].token_ids)]
        assert len(tape.traces[0].token_ids) == 2
        assert not tape.verify()


# what goes wrong


class Failing(LogitsProcessor):
    """Raises at its third step."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.steps = error, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.steps == 3:
            raise self.error
        return scores


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ZeroDivisionError("x"), "error"), (KeyboardInterrupt(), "interrupted"), (SystemExit(), "error")],
)
def test_an_error_inside_generate_is_kept_and_passed_on(
    llama: Any, error: BaseException, reason: str, tmp_path: Path
) -> None:
    with tt.recording(llama, tmp_path / "a.tape", tokenizer=tokenizer()) as tape:
        with pytest.raises(type(error)):
            generated(llama, max_new_tokens=9, logits_processor=[Failing(error)])
        again = generated(llama, max_new_tokens=4)
    assert torch.equal(again, generated(llama, max_new_tokens=4))
    assert [trace.finish_reason for trace in tape.traces] == [reason, "length"]
    assert [len(trace.token_ids) for trace in tape.traces] == [2, 4]
    assert tape.state == "partial" and not tape.verify()
    tape.close()


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), KeyboardInterrupt()])
def test_an_error_in_the_block_leaves_a_tape(llama: Any, error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)), tt.recording(llama, tmp_path / "a.tape") as tape:
        generated(llama, max_new_tokens=4)
        raise error
    assert len(tape.traces[0].token_ids) == 4, "also a tape in memory must not be lost with the block"
    tape.close()
    with tt.open(tmp_path / "a.tape") as kept:
        assert kept.traces[0].finish_reason == "length"
        assert not kept.verify()


def test_everything_masked(llama: Any) -> None:
    with tt.recording(llama) as tape, pytest.raises(RuleError, match="left no token"):
        generated(llama, max_new_tokens=4, suppress_tokens=list(range(264)))
    assert tape.traces[0].finish_reason == "error"
    assert len(tape.traces[0].token_ids) == 0


def test_logits_that_are_no_numbers(tmp_path: Path) -> None:
    broken = copy.deepcopy(model("llama"))
    with torch.no_grad():
        broken.lm_head.weight[7] = torch.nan
    wanted = generated(broken, max_new_tokens=3)
    with tt.recording(broken, tmp_path / "a.tape") as tape:
        got = generated(broken, max_new_tokens=3)
    assert torch.equal(got, wanted)
    assert tape.traces[0].tokens["logprob"].mask.all() and tape.traces[0].tokens["rank"].mask.all()
    assert not tape.verify()


def test_generate_inside_of_generate_belongs_to_the_outer_call(llama: Any) -> None:
    inner: list[torch.Tensor] = []

    def asking(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        inner.append(llama.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2))
        return scores

    wanted = generated(llama, max_new_tokens=5, logits_processor=[asking])
    with tt.recording(llama) as tape:
        got = generated(llama, max_new_tokens=5, logits_processor=[asking])
    assert torch.equal(got, wanted)
    assert len(tape.traces) == 1 and len(tape.traces[0].token_ids) == 5
    assert all(torch.equal(a, b) for a, b in zip(inner[:5], inner[5:], strict=True))


# refused


def test_recording_the_same_model_twice_is_refused(llama: Any, tmp_path: Path) -> None:
    with tt.recording(llama) as outer:
        with pytest.raises(UsageError, match="replaced already") as caught, tt.recording(llama, tmp_path / "b.tape"):
            pass
        generated(llama, max_new_tokens=2)
    assert caught.value.why and caught.value.fix
    assert list(tmp_path.iterdir()) == []
    assert len(outer.traces) == 1


def test_two_models_are_recorded_side_by_side() -> None:
    bloom, llama = model("bloom"), model("llama")
    with tt.recording(bloom) as one, tt.recording(llama) as other:
        generated(bloom, max_new_tokens=2)
        generated(llama, max_new_tokens=3)
    assert [len(tape.traces[0].token_ids) for tape in (one, other)] == [2, 3]


REFUSED: dict[str, dict[str, Any]] = {
    "beam search": {"num_beams": 2},
    "beam": {"generation_config": GenerationConfig(num_beams=3)},
    "assisted decoding": {"assistant_model": object()},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "assisted": {"generation_config": GenerationConfig(prompt_lookup_num_tokens=3)},
    "contrastive search": {"penalty_alpha": 0.6, "top_k": 4},
    "DoLa": {"dola_layers": "low"},
    "custom decoding": {"custom_generate": "someone/else"},
    "synced_gpus": {"synced_gpus": True},
    "continuous batching": {"cache_implementation": "paged"},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", REFUSED)
def test_other_decoding_is_refused_by_name(llama: Any, method: str) -> None:
    with tt.recording(llama) as tape:
        with pytest.raises(UnsupportedDecoding, match=method) as caught:
            generated(llama, max_new_tokens=4, **REFUSED[method])
        generated(llama, max_new_tokens=2)
    assert caught.value.why and "outside the recording" in caught.value.fix
    assert len(tape.traces) == 1 and tape.state == "complete"


def test_models_that_cannot_be_recorded_are_refused(tmp_path: Path) -> None:
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    small |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 264}
    bart = BartForConditionalGeneration(BartConfig(**small))
    for what, said in ((bart, "encoder-decoder"), (torch.nn.Linear(2, 2), "no model that generates"), ("gpt2", "str")):
        with pytest.raises(UsageError, match=said) as caught, tt.recording(what, tmp_path / "a.tape"):
            pass
        assert caught.value.why
    assert list(tmp_path.iterdir()) == []


def test_without_text_neither_words_nor_ids_are_kept(llama: Any, tmp_path: Path) -> None:
    path = tmp_path / "quiet.tape"
    with tt.recording(llama, path, tokenizer=tokenizer(), text=False) as tape:
        out = generated(llama, max_new_tokens=30)
    tape.close()
    kept = path.read_bytes()
    said = tokenizer().decode(out[0, -30:])
    assert PROMPT.encode() not in kept and said.encode() not in kept
    with tt.open(path) as tape:
        assert tape.traces[0].tokens["id"].mask.all()
        assert not tape.traces[0].tokens["logprob"].mask.any()
        assert tape.traces[0].prompt_ids is None
