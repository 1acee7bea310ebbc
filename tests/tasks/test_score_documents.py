"""Documents from files, windows by property, and the figures of tapes without a model."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.data.request import Request
from tokentape.errors import NotComparable, PromptError, StudyError, UsageError
from tokentape.recorder.probes import tier
from tokentape.recorder.recorder import Recorder
from tokentape.recorder.run import record
from tokentape.recorder.tick import Said
from tokentape.sources.scripted import Line, ScriptedSource
from tokentape.study.paired_scores import compare_scores
from tokentape.study.scores import NOTE, scores
from tokentape.tasks.score_documents import Document, digest, documents_of, read_documents
from tokentape.tasks.score_windows import windows

# windows


def of_the_harness(tokens: list[int], window: int, context: int) -> list[tuple[list[int], list[int]]]:
    """What is read and what is scored by rolling windows as lm-evaluation-harness describes them: -1 is the prefix."""
    found, done, size = [], 0, window - context + 1
    while done < len(tokens):
        n = min(len(tokens) - done, size if done else window)
        end = done + n
        found.append(([-1, *tokens][max(0, end - window) : end], tokens[done:end]))
        done = end
    return found


@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_windows_are_those_of_the_harness(n: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    sequence = [-1, *range(n)]
    found = [(sequence[w.start : w.stop - 1], sequence[w.first : w.stop]) for w in windows(n + 1, 1, window, stride)]
    assert found == of_the_harness(list(range(n)), window, window - stride + 1)


@given(st.integers(2, 80), st.integers(1, 40), st.integers(1, 30), st.data())
def test_each_token_is_scored_once(n: int, first: int, window: int, data: st.DataObject) -> None:
    first = min(first, n - 1)
    stride = data.draw(st.integers(1, window))
    found = windows(n, first, window, stride)
    assert [p for w in found for p in range(w.first, w.stop)] == list(range(first, n))
    for w in found:
        assert 0 < w.n_read <= window and w.start < w.first, "what is scored is predicted from what is read"
        assert w.start == 0 or w.n_read == window, "it reaches back as far as it may"


# files


def test_a_text_file_is_one_document_and_jsonl_has_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes("two\nlines \u2028 and\n\n".encode())
    (tmp_path / "a.jsonl").write_text(
        '{"text": "one\u2028"}\n\n{"context": "Q:", "continuation": " A"}\n', encoding="utf-8"
    )
    (tmp_path / "c.bin").write_bytes(b"\xff")
    found = read_documents([tmp_path])
    assert [(one.text, one.context) for one in found] == [
        ("one\u2028", None),
        (" A", "Q:"),
        ("two\nlines \u2028 and\n\n", None),
    ]
    assert found[1].name.endswith("a.jsonl:3")
    assert read_documents([tmp_path / "b.txt"]) == found[2:]


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"prompt": "b"}\n', "a.jsonl:2 has no text"),
        ("a.jsonl", b'{"text": "a", "continuation": "b"}\n', "a.jsonl:1 has no text"),
        ("a.jsonl", b'{"text": 5}\n', "a.jsonl:1 has no text"),
        ("a.jsonl", b'{"continuation": "a", "context": 5}\n', "a.jsonl:1 has no text"),
        ("a.jsonl", b"[1, 2]\n", "a.jsonl:1 has no text"),
        ("a.jsonl", b"{\n", "a.jsonl:1 is not JSON"),
        ("a.jsonl", b"\n \n", "has no documents"),
        ("a.txt", b"caf\xe9", "is not UTF-8"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PromptError, match=what):
        read_documents([tmp_path / name])


def test_missing_files_and_empty_folders(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "none.txt", "cannot be read"), (tmp_path, "no text in it")):
        with pytest.raises(UsageError, match=what):
            read_documents([path])


def test_what_can_be_given() -> None:
    assert [one.text for one in documents_of(["a", (1, 2), Document("b")])] == ["a", (1, 2), "b"]
    assert [one.text for one in documents_of([1, 2, 3])] == [(1, 2, 3)]
    assert [one.context for one in documents_of(["a", Document("b", "own")], "shared")] == ["shared", "own"]
    assert digest(documents_of("a")) != digest(documents_of("a", "b")) != digest(documents_of("b", "a"))
    with pytest.raises(PromptError):
        documents_of([1, "a"])


# figures without a model


def said(*tokens: tuple[str, float | None]) -> list[Said]:
    return [Said(0, None, text.encode(), logprob) for text, logprob in tokens]


def scored(documents: list[list[tuple[str, float | None]]], *, skipped: int = 0, model: str = "paper") -> Any:
    """A tape of scores, one document a run, that no model made."""
    sources = [
        ScriptedSource([Line(1000, said(*tokens))], facts={"model": model}, finish_reason="given")
        for tokens in documents
    ]
    recorder = Recorder(None, sources[0].setting(), tier("timing"), sources[0].clock)
    with recorder:
        for index, (source, tokens) in enumerate(zip(sources, documents, strict=True)):
            live = source.start(Request(("x",)), frozenset())
            n_bytes = sum(len(text.encode()) for text, _ in tokens)
            facts = {"index": index, "name": f"d{index}", "n_bytes": n_bytes, "n_chars": n_bytes, "n_skipped": skipped}
            facts |= {"merged": False, "n_windows": 1, "n_cut": 0}
            live.run = replace(live.run, options={NOTE: {"first": "bos", "documents": [facts]}})
            recorder.begin(live)
            for tick in live.ticks:
                recorder.add(tick)
            recorder.end(live.finish_reasons())
    return recorder.tape


def test_figures_of_a_document() -> None:
    (one,) = scores(scored([[("ab", -1.0), ("cde", -2.0), ("f", -3.0)]]))
    assert one.total.logprob == -6.0 and one.total.n_tokens == 3 and one.total.n_bytes == 6
    assert one.total.perplexity == pytest.approx(math.exp(2.0))
    assert one.total.bits_per_byte == pytest.approx(1 / math.log(2)) == one.total.bits_per_char
    assert one.spelled is True


def test_a_token_without_a_figure_leaves_the_sum_unknown() -> None:
    (one,) = scores(scored([[("ab", -1.0), ("c", None)]]))
    assert (one.total.logprob, one.total.perplexity, one.total.bits_per_byte) == (None, None, None)


def test_a_tape_of_something_else_has_no_scores() -> None:
    tape = record(ScriptedSource([Line(1000, "a")]), "x", probe="timing")
    with pytest.raises(StudyError, match="no scores"):
        scores(tape)


def test_two_tokenizers_side_by_side() -> None:
    a = scored([[("The", -1.0), (" ca", -2.0), ("t", -0.5), (" sat", -3.0)]], model="a")
    b = scored([[("Th", -1.5), ("e", -0.1), (" cat", -1.0), (" s", -1.0), ("at", -1.0)]], model="b")
    found = compare_scores(a, b)
    assert [span.data for span in found.spans] == [b"The", b" cat", b" sat"]
    assert [span.a for span in found.spans] == pytest.approx([-1.0, -2.5, -3.0])
    assert [span.b for span in found.spans] == pytest.approx([-1.6, -1.0, -2.0])
    assert found.a == pytest.approx(6.5 / math.log(2) / 11) and found.difference == pytest.approx(
        -1.9 / math.log(2) / 11
    )
    assert [span.data for span in found.largest(2)] == [b" cat", b" sat"]
    assert found.low is None and found.models == ("a", "b") and found.n_tokens == (4, 5)


def test_what_one_side_did_not_score_is_left_out() -> None:
    whole = [("The", -1.0), (" cat", -2.0), (" sat", -3.0)]
    found = compare_scores(scored([whole]), scored([whole[1:]], skipped=3))
    assert [span.data for span in found.spans] == [b" cat", b" sat"] and found.spans[0].start == 3
    assert found.difference == 0


def test_other_texts_are_not_compared() -> None:
    with pytest.raises(NotComparable):
        compare_scores(scored([[("The", -1.0)]]), scored([[("A c", -1.0)]]))
    found = compare_scores(scored([[("The", -1.0)], [("a", -1.0)]]), scored([[("The", -2.0)]]))
    assert found.left_out == (("d1", "B has not scored it"),)


def test_interval_over_documents_and_over_blocks() -> None:
    texts = [[("ab", -1.0 - 0.01 * (i % 5)), ("c", -0.5)] for i in range(40)]
    better = [[(text, logprob + 0.3 + 0.05 * (i % 3)) for text, logprob in tokens] for i, tokens in enumerate(texts)]
    found = compare_scores(scored(texts), scored(better))
    assert (found.units, found.n_units) == ("documents", 40)
    assert found.low is not None and found.high is not None and found.low < found.difference < found.high < 0
    bits = [
        -sum(y - x for (_, x), (_, y) in zip(a, b, strict=True)) / math.log(2) / 3
        for a, b in zip(texts, better, strict=True)
    ]
    mean = sum(bits) / 40
    error = math.sqrt(sum((x - mean) ** 2 for x in bits) / 39 / 40)  # documents of one length: the plain mean
    assert found.high - found.low == pytest.approx(2 * 2.0227 * error, rel=1e-4)
    one = compare_scores(*(scored([list(chain.from_iterable(side * 3))]) for side in (texts, better)))
    assert (one.units, one.n_units) == ("blocks", 20) and one.high is not None and one.high < 0
