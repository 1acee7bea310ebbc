"""Files of a job: JSON lines, columns, lines; and what they are told about their mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.errors import PromptError, UsageError
from tokentape.tasks.inputs import references_of, texts_of
from tokentape.tasks.records import FIELDS, read_records


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_json_lines(tmp_path: Path) -> None:
    text = '{"question": "Q\\n?", "context": "c", "answers": ["a", "b"]}\n\n{"context": "d", "question": "R", "answer": ""}\n'
    found = read_records(put(tmp_path, "q.jsonl", text), "answer")
    assert found.inputs == ({"question": "Q\n?", "context": "c"}, {"question": "R", "context": "d"})
    assert found.references == (("a", "b"), ("",))


def test_columns_with_and_without_names(tmp_path: Path) -> None:
    plain = read_records(put(tmp_path, "a.tsv", "The cat.\t猫。\r\nThe dog.\t狗。\r\n"), "translate")
    named = read_records(put(tmp_path, "b.tsv", "target\tsource\n猫。\tThe cat.\n狗。\tThe dog.\n"), "translate")
    assert plain == named
    assert plain.inputs[0] == {"text": "The cat."} and plain.references == (("猫。",), ("狗。",))
    assert read_records(put(tmp_path, "c.tsv", "one\ntwo\n"), "classify").references is None


def test_lines(tmp_path: Path) -> None:
    """Only a line end ends a line: other separators of Unicode are text."""
    found = read_records(put(tmp_path, "a.txt", "one\u2028and\x85more\n\ntwo"), "classify")
    assert [record["text"] for record in found.inputs] == ["one\u2028and\x85more", "two"]


def test_of_a_cloze_the_last_word_is_the_answer(tmp_path: Path) -> None:
    path = put(tmp_path, "l.jsonl", '{"text": "He sat, on  the mat "}\n{"context": "A", "answer": "b"}\n')
    found = read_records(path, "answer", last_word=True)
    assert found.inputs == ({"context": "He sat, on  the"}, {"context": "A"})
    assert found.references == (("mat",), ("b",))
    lines = read_records(put(tmp_path, "l.txt", "He sat on the mat\n"), "answer", last_word=True)
    assert (lines.inputs, lines.references) == (({"context": "He sat on the"},), (("mat",),))


@given(st.lists(st.fixed_dictionaries({"text": st.text(min_size=1).filter(str.strip), "label": st.text()}), min_size=1))
def test_what_json_holds_comes_back(records: list[dict[str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.jsonl"
        path.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in records), encoding="utf-8")
        found = read_records(path, "classify")
    assert [one["text"] for one in found.inputs] == [one["text"] for one in records]
    assert found.references == tuple((one["label"],) for one in records)


@pytest.mark.parametrize(
    ("name", "text", "job", "what"),
    [
        ("a.jsonl", "", "classify", "is empty"),
        ("a.txt", "\n \n", "classify", "is empty"),
        ("a.tsv", "text\tlabel\n", "classify", "is empty"),
        ("a.jsonl", '{"text": ', "classify", "line 1: not JSON"),
        ("a.jsonl", '{"text": "a"}\n["b"]', "classify", "line 2: no object"),
        ("a.jsonl", '{"review": "a"}', "classify", "line 1: no text in it"),
        ("a.jsonl", '{"text": 3}', "classify", "line 1: no text in it"),
        ("a.jsonl", '{"text": ""}', "classify", "line 1: no text in it"),
        ("a.jsonl", '{"question": null}', "answer", "line 1: no question or context in it"),
        ("a.jsonl", '{"text": "a", "label": 3}', "classify", "line 1: 3 is no label"),
        ("a.jsonl", '{"question": "a", "answers": []}', "answer", r"line 1: \[\] is no answer"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b"}', "classify", "1 of 2 records have a label"),
        ("a.tsv", "a\tb\tc\n", "classify", "line 1: 3 columns"),
    ],
)
def test_mistakes_of_a_file_are_named(tmp_path: Path, name: str, text: str, job: str, what: str) -> None:
    path = put(tmp_path, name, text)
    with pytest.raises(UsageError, match=what) as raised:
        read_records(path, job)
    assert str(path) in raised.value.what and raised.value.why and raised.value.fix


def test_a_text_of_one_word_has_no_last_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 1: a text of one word"):
        read_records(put(tmp_path, "l.txt", "mat\n"), "answer", last_word=True)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_records(tmp_path / "absent.jsonl", "answer")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_records(tmp_path / "latin.txt", "answer")


def test_columns_are_named_in_the_order_of_the_commands() -> None:
    assert [FIELDS[job].columns for job in ("translate", "classify", "answer")] == [
        ["source", "target"],
        ["text", "label"],
        ["question", "context", "answer"],
    ]


def test_texts_and_references_that_are_none() -> None:
    assert texts_of("a") == ("a",) and references_of(None, 3) == ()
    assert references_of(["a", ["b", "c"]], 2) == (("a",), ("b", "c"))
    with pytest.raises(PromptError, match="the text is empty"):
        texts_of(" ")
    with pytest.raises(PromptError, match="the question is empty"):
        texts_of([], "question")
    with pytest.raises(PromptError, match="text 1 is empty"):
        texts_of(["a", ""])
    with pytest.raises(UsageError, match="text 1 is a int"):
        texts_of(["a", 3])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="1 references for 2 inputs"):
        references_of(["a"], 2)
    with pytest.raises(UsageError, match="reference 0 is empty"):
        references_of([[]], 1)
