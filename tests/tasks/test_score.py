"""`score`: equal to the plain forward, to what was recorded while generating, and to what lm-evaluation-harness found."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import score_cases
import torch

import every_family
import families
import tokentape as tt
from tokentape.data.tape import Tape
from tokentape.errors import PromptError, TapeExists, UsageError
from tokentape.models.anatomy import inputs_of
from tokentape.models.head import head_of
from tokentape.sources.local import LocalSource
from tokentape.study.scores import DocumentScore, scores, total
from tokentape.tasks.score import Progress, score
from tokentape.tasks.score_documents import Document

STORY = "The cat sat on the mat and looked at the dog. The dog wanted the bone."
QUESTION = "Story: Tom went to the park. Anna has a kite.\nQuestion: Where is Tom?\nAnswer:"


@pytest.fixture(scope="module")
def demo() -> LocalSource:
    return tt.local("demo")


def only(tape: Tape) -> DocumentScore:
    (found,) = scores(tape)
    return found


@torch.no_grad()
def plain(source: LocalSource, ids: list[int]) -> np.ndarray:
    """Log-probability of every token but the first, by the model's own logits, whole."""
    model = source.causal.model
    logits = model(**inputs_of(model, torch.tensor([ids])), use_cache=False).logits[0, :-1].double()
    return logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()


# against the plain forward


@pytest.mark.parametrize("family", families.CONFIGS)
def test_equals_the_plain_forward(family: str) -> None:
    source = LocalSource(families.causal(family))
    found = score(source, [STORY, "The", STORY[:20], "A story."])
    for one, text in zip(scores(found), (STORY, "The", STORY[:20], "A story."), strict=True):
        trace = found.traces[one.trace]
        ids = [*trace.prompt_ids.tolist(), *trace.token_ids.tolist()]
        assert ids == [source.causal.bos_id, *source.encode(text, bos=False)]
        assert np.abs(trace.tokens["logprob"] - plain(source, ids)).max() < 1e-5
        assert trace.text == text and trace.finish_reason == "given"
    assert found.verify() == [] and found.state == "complete"


# position ids of a reformer and padding of its own do not go together
@pytest.mark.slow
@pytest.mark.parametrize("family", [f for f in every_family.FAMILIES if f != "reformer"])
@torch.inference_mode()
def test_every_family_gives_its_own_logits(family: str) -> None:
    causal = every_family.tiny(family)
    head = head_of(causal.model)
    ids = torch.randint(0, 256, (3, 20), generator=torch.Generator().manual_seed(3))
    rows = torch.arange(19)
    for one in ids[:, None] if not head.pads else ids[None]:
        flat = torch.cat([rows + 20 * i for i in range(len(one))])
        targets = one[:, 1:].flatten()
        found = head.logprobs(one, flat, targets)
        for i, row in enumerate(one):
            own = causal.model(**inputs_of(causal.model, row[None]), use_cache=False).logits[0, :-1].double()
            want = own.log_softmax(-1).gather(1, row[1:, None])[:, 0]
            torch.testing.assert_close(found[19 * i : 19 * (i + 1)], want, atol=1e-5, rtol=0)


def test_families_that_do_more_than_multiply_have_their_own_head() -> None:
    ways = {
        family: head_of(every_family.tiny(family).model).way for family in ("gemma2", "cohere", "bert", "llama", "opt")
    }
    assert ways == {"gemma2": "own", "cohere": "own", "bert": "own", "llama": "linear", "opt": "linear"}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_add_up_to_the_vocabulary(bias: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    import tokentape.models.head as module

    monkeypatch.setattr(module, "LEAST_TILE", 7)
    monkeypatch.setattr(module, "TILE", 1)
    torch.manual_seed(0)
    weight, states = torch.randn(100, 8).to(dtype), (5 * torch.randn(13, 8)).to(dtype)
    offset = torch.randn(100).to(dtype) if bias else None
    targets = torch.arange(13) * 8
    want = torch.nn.functional.linear(states, weight, offset).double().log_softmax(1).gather(1, targets[:, None])[:, 0]
    found = module._tiled(states, targets, weight, offset)
    assert (found - want).abs().max() < (1e-5 if dtype == torch.float32 else 0.3)


# against generation


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 5, "temperature": 1.5}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("distribution", [False, True])
def test_equals_what_was_recorded(demo: LocalSource, options: dict[str, Any], distribution: bool) -> None:
    recorded = tt.record(demo, QUESTION, max_new_tokens=40, **options).traces[0]
    tape = score(demo, recorded.token_ids, context=recorded.prompt_ids, distribution=distribution, candidates=3)
    found = tape.traces[0]
    assert found.prompt_ids.tolist() == recorded.prompt_ids.tolist()
    assert np.abs(found.tokens["logprob"] - recorded.tokens["logprob"]).max() < 2e-5
    if distribution:
        assert np.abs(found.tokens["entropy"] - recorded.tokens["entropy"]).max() < 2e-5
        assert (found.tokens["rank"] == recorded.tokens["rank"]).all()
        assert found.candidates.ids.shape[1] == 3
        assert only(tape).greedy == (recorded.tokens["rank"] == 1).all()
    else:
        assert found.tokens["rank"].mask.all() and only(tape).greedy is None


@pytest.mark.material
def test_equals_what_a_real_model_recorded(material: Path) -> None:
    source = tt.local(str(material / "models" / "TinyStories-656K"))
    for options in ({}, {"do_sample": True, "seed": 1}):
        recorded = tt.record(source, "Once upon a time", max_new_tokens=60, **options).traces[0]
        found = score(source, recorded.token_ids, context=recorded.prompt_ids).traces[0]
        assert np.abs(found.tokens["logprob"] - recorded.tokens["logprob"]).max() < 1e-4


# against lm-evaluation-harness


CASES = [
    pytest.param(case, id=case["name"], marks=pytest.mark.material if score_cases.needs_material(case) else ())
    for case in score_cases.cases()
]


@pytest.mark.parametrize("case", CASES)
def test_equals_the_harness(case: dict[str, Any], request: pytest.FixtureRequest) -> None:
    material = request.getfixturevalue("material") if score_cases.needs_material(case) else None
    given = score_cases.given_of(case, material)
    rolling = case["kind"] == "rolling"
    documents = [Document(one) if rolling else Document(one[1], one[0]) for one in given]
    source = tt.local(str(score_cases.folder_of(case, material)), bos=case["add_bos_token"])
    found = [one.total.logprob for one in scores(score(source, documents, window=case["max_length"]))]
    assert len(found) == len(case["values"])
    for mine, theirs in zip(found, case["values"], strict=True):
        # the harness adds up in float32, whose steps at thousands of nats are wider than the 1e-4 held to
        assert mine is not None and abs(mine - theirs) < max(1e-4, 2 * float(np.spacing(np.float32(abs(theirs)))))


# windows


def strides_of_the_guide(source: LocalSource, ids: list[int], max_length: int, stride: int) -> np.ndarray:
    """Hugging Face's guide to perplexity of fixed-length models, token by token; NaN for the first."""
    found = np.full(len(ids), np.nan)
    before = 0
    for begin in range(0, len(ids), stride):
        end = min(begin + max_length, len(ids))
        n = end - before
        values = plain(source, ids[begin:end])
        found[max(end - n, begin + 1) : end] = values[-n:]
        before = end
        if end == len(ids):
            break
    return found


def test_overlapping_windows_are_those_of_the_guide(demo: LocalSource) -> None:
    ids = [demo.causal.bos_id, *demo.encode(STORY * 3)]
    ids = ids[: 17 + 5 * 6]  # so that the last window is a whole one
    found = score(demo, ids, window=16, stride=5).traces[0]
    want = strides_of_the_guide(demo, ids, max_length=17, stride=5)
    assert np.abs(found.tokens["logprob"] - want[1:]).max() < 1e-5


def test_windows_read_apart_and_together_give_the_same(demo: LocalSource) -> None:
    whole = score(demo, STORY * 4)
    assert only(whole).n_windows == 1
    found = []
    for batch_tokens in (1, 40, 1000):
        cut = score(demo, STORY * 4, window=20, batch_tokens=batch_tokens)
        assert only(cut).n_windows == math.ceil(only(whole).total.n_tokens / 20)
        assert cut.traces[0].text == STORY * 4 and cut.verify() == []
        assert len(cut.traces[0].steps["index"]) == (2 if batch_tokens == 40 else 4 if batch_tokens == 1 else 1)
        found.append(cut.traces[0].tokens["logprob"])
    assert np.abs(found[0] - found[1]).max() < 1e-5 and np.abs(found[0] - found[2]).max() < 1e-5
    apart = np.abs(found[0] - whole.traces[0].tokens["logprob"])
    assert apart[:20].max() < 1e-5 < apart[20:].max(), "behind the first window less is read"


# what comes first, and the boundary


def test_first_token(demo: LocalSource) -> None:
    by = {first: score(demo, STORY, first=first) for first in ("bos", "eos", "skip")}
    n = len(demo.encode(STORY))
    assert [tape.traces[0].prompt_ids.tolist() for tape in by.values()] == [[1], [2], demo.encode("The")]
    assert [len(tape.traces[0].token_ids) for tape in by.values()] == [n, n, n - 1]
    assert by["skip"].traces[0].text == STORY[3:] and only(by["skip"]).total.n_bytes == len(STORY) - 3
    assert only(score(demo, STORY)).as_dict() == only(by["bos"]).as_dict()
    ids = [1, *demo.encode(STORY)]
    assert score(demo, ids).traces[0].prompt_ids.tolist() == [1], "what opens a sequence is not put before itself"


def test_space_before_the_boundary_belongs_to_the_continuation(demo: LocalSource) -> None:
    one = only(score(demo, "the park", context=QUESTION + " "))
    other = only(score(demo, " the park", context=QUESTION))
    assert one.total == other.total and not one.merged and one.total.n_bytes == len(" the park")
    assert one.total.perplexity is not None and one.total.perplexity < 1.1


def test_a_merge_across_the_boundary_is_told(demo: LocalSource) -> None:
    assert only(score(demo, "at.", context="The cat sat on the m")).merged
    assert not only(score(demo, " mat.", context="The cat sat on the")).merged


def test_a_long_context_loses_its_begin(demo: LocalSource) -> None:
    one = only(score(demo, " the park", context=QUESTION, window=10))
    assert one.n_cut == len(demo.encode(QUESTION + " the park")) - 11 and one.n_windows == 1


# many documents


def test_order_and_batches_change_nothing(demo: LocalSource) -> None:
    texts = [STORY[:n] for n in (70, 3, 40, 41, 12, 70, 8)]
    apart = [only(score(demo, text)).total.logprob for text in texts]
    for batch_tokens in (1, 30, 4000):
        tape = score(demo, texts, batch_tokens=batch_tokens)
        found = scores(tape)
        assert [one.index for one in found] == list(range(7))
        assert [one.total.logprob for one in found] == pytest.approx(apart, abs=1e-4)
        assert (len(tape.runs) == 7) == (batch_tokens == 1)
    assert total(found).logprob == pytest.approx(sum(apart), abs=1e-4)
    assert total(found).n_bytes == sum(map(len, texts))


class Stopped(Exception):
    pass


def stop_after(n: int) -> Any:
    def observe(progress: Progress) -> None:
        if progress.n_done >= n:
            raise Stopped

    return observe


def test_a_run_that_was_broken_off_goes_on(demo: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [STORY[: 20 + 5 * i] for i in range(8)]
    path = tmp_path / "scores.tape"
    options: dict[str, Any] = {"path": path, "batch_tokens": 1}
    with pytest.raises(Stopped):
        score(demo, texts, observer=stop_after(3), **options)
    with tt.open(path) as tape:
        assert 3 <= len(scores(tape)) < 8
        done = len(scores(tape))
    with pytest.raises(TapeExists, match="other scores"):
        score(demo, texts[:4], **options)
    told: list[Progress] = []
    tape = score(demo, texts, observer=told.append, **options)
    assert told[0].n_done == done + 1 and told[-1].n_done == told[-1].n_all == 8
    whole = score(demo, texts)
    assert [one.total.logprob for one in scores(tape)] == pytest.approx(
        [one.total.logprob for one in scores(whole)], abs=1e-5
    )
    assert tape.state == "complete" and tape.verify() == []
    with pytest.raises(TapeExists, match="complete"):
        score(demo, texts, **options)
    assert len(scores(score(demo, texts, resume=True, **options))) == 8


def test_a_forward_that_fails_is_dropped_and_made_again(
    demo: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokentape.tasks.scoring import Scorer

    calls: Iterator[int] = iter(range(100))
    read = Scorer._read

    def failing(self: Scorer, *given: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return read(self, *given)

    options: dict[str, Any] = {"path": tmp_path / "scores.tape", "window": 8, "batch_tokens": 1}
    with monkeypatch.context() as patched:
        patched.setattr(Scorer, "_read", failing)
        with pytest.raises(KeyboardInterrupt):
            score(demo, [STORY, STORY[:30]], **options)
    tape = score(demo, [STORY, STORY[:30]], **options)
    assert [one.total for one in scores(tape)] == [
        one.total for one in scores(score(demo, [STORY, STORY[:30]], window=8))
    ]
    assert len(tape.traces) == 2 and tape.verify() == []


# what is refused


@pytest.mark.parametrize(
    ("texts", "options", "error", "what"),
    [
        ("", {}, PromptError, "empty"),
        ([], {}, PromptError, "no text"),
        (["a", ""], {}, PromptError, "document 1 is empty"),
        ("a", {"first": "skip"}, PromptError, "single token"),
        ("a", {"first": "pad"}, UsageError, "no such first token"),
        ("a", {"window": 4, "stride": 5}, UsageError, "stride of 5"),
        ("a", {"window": 0}, UsageError, "window of 0"),
        ("a", {"stride": 5000}, UsageError, "stride of 5000"),
        ("a", {"candidates": -1}, UsageError, "negative"),
        ([99999], {}, PromptError, "outside of the vocabulary"),
        (b"a", {}, PromptError, "bytes"),
        ("a", {"context": [1, 2]}, PromptError, "text on one side"),
        ("a", {"resume": True}, UsageError, "no tape to resume"),
    ],
)
def test_refusals(demo: LocalSource, texts: Any, options: dict[str, Any], error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what) as told:
        score(demo, texts, **options)
    assert getattr(told.value, "why", "") and getattr(told.value, "fix", "")


def test_a_window_beyond_the_positions_is_refused() -> None:
    with pytest.raises(PromptError, match="129 tokens, and llama reads 128"):
        score(LocalSource(families.causal("llama")), "a text", window=129)


def test_text_can_be_left_out(demo: LocalSource) -> None:
    tape = score(demo, STORY, text=False)
    assert tape.traces[0].text is None and tape.traces[0].prompt_ids is None
    assert only(tape).total.bits_per_byte == pytest.approx(only(score(demo, STORY)).total.bits_per_byte)
