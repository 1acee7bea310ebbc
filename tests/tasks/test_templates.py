"""Prompt templates: what the shipped ones say, how slots are filled, what a file of one's own is told about its mistakes."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.errors import UsageError
from tokentape.tasks.templates import DEFAULTS, FOLDER, JOBS, Template, load_template, shipped
from tokentape.world import sample


def written(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_shipped_template_says_what_it_is() -> None:
    found = shipped()
    assert {template.name for template in found} == {path.stem for path in FOLDER.glob("*.toml")} - {"languages"}
    assert all(template.about.endswith(".") for template in found)
    assert {job: shipped(job)[0].name for job in JOBS} == DEFAULTS


@pytest.mark.parametrize("n", range(20))
def test_defaults_write_the_prompts_of_the_shipped_model(n: int) -> None:
    """The world's own documents, taken apart and put together again by the templates."""
    document = sample("translation", Random(n), "held_out")
    source, text, target = re.fullmatch(r"(\w+): (.*)\n(\w+):", document.prompt).groups()
    pair = load_template(None, "translate")
    assert pair.fill(**{"from": source, "to": target, "text": text}) == document.prompt
    assert {pair.language("en"), pair.language("zh")} == {source, target}
    assert pair.follow(pair.read(document.answer)) == document.answer

    document = sample("review", Random(n), "held_out")
    text, asked = re.fullmatch(r"Review: (.*)\n(\w+):", document.prompt).groups()
    review = load_template(None if asked == "Sentiment" else "topic", "classify")
    assert review.fill(text=text) == document.prompt
    assert document.answer in map(review.follow, review.labels)

    document = sample("question", Random(n), "held_out")
    context, question = re.fullmatch(r"Story: (.*)\nQuestion: (.*)\nAnswer:", document.prompt).groups()
    assert load_template(None, "answer").fill(context=context, question=question) == document.prompt


def test_examples_stand_before_the_prompt(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        job = "classify"
        prompt = "{labels}? {text} ->"
        answer = " <{answer}>"
        separator = "--"
        examples = [{text = "up", label = "yes"}, {text = "{down}", label = "no"}]
        """,
    )
    template = load_template(path, "classify")
    assert template.name == "own"
    assert (
        template.fill(text="left {right}", labels="yes/no")
        == "yes/no? up -> <yes>--yes/no? {down} -> <no>--yes/no? left {right} ->"
    )


def test_braces_of_the_text_are_written_twice(tmp_path: Path) -> None:
    template = load_template(written(tmp_path, 'job = "classify"\nprompt = "{{{text}}}"'), "classify")
    assert template.fill(text="a") == "{a}"


@pytest.mark.parametrize(
    ("said", "stops", "last_word", "read"),
    [
        (" mat.\nThe", ("\n",), False, "mat."),
        (" a END b\n", ("\n", "END"), False, "a"),
        (" no stop ", (), False, "no stop"),
        ("\n", ("\n",), False, ""),
        ("  don't know", (), True, "don't"),
        (' "Well-being," she', (), True, "Well-being"),
        ("...", (), True, ""),
    ],
)
def test_an_answer_ends_at_a_stop(said: str, stops: tuple[str, ...], last_word: bool, read: str) -> None:
    assert Template("t", "answer", "t.toml", "{question}", stop=stops, last_word=last_word).read(said) == read


@given(st.text(), st.lists(st.text(min_size=1), max_size=3))
def test_no_answer_holds_a_stop_or_space_around_it(said: str, stops: list[str]) -> None:
    read = Template("t", "answer", "t.toml", "{question}", stop=tuple(stops)).read(said)
    assert read == read.strip() and read in said
    assert not any(stop in read for stop in stops)


MISTAKES = {
    "no TOML": ('job = "translate"\nprompt = oops', "not TOML", "line 2"),
    "no job": ('prompt = "{text}"', "job = None", "translate, classify, answer"),
    "no prompt": ('job = "translate"', "no prompt in it", ""),
    "a missing slot": ('job = "translate"\nprompt = "{from} {to}"', "the prompt has no slot {text}", "reach the model"),
    "one of two": ('job = "answer"\nprompt = "Hello"', "the prompt has no slot {question} or {context}", ""),
    "an unknown slot": ('job = "translate"\nprompt = "{text} {txet}"', "unknown slot {txet}", "{text}, {from}, {to}"),
    "a slot of another job": ('job = "answer"\nprompt = "{question} {text}"', "unknown slot {text}", "{question}"),
    "a nameless slot": ('job = "translate"\nprompt = "{text} {}"', "unknown slot {}", ""),
    "an attribute": ('job = "translate"\nprompt = "{text} {text.__class__}"', "unknown slot {text.__class__}", ""),
    "a conversion": ('job = "translate"\nprompt = "{text} {text!r}"', "unknown slot {text!r}", ""),
    "a lone brace": ('job = "translate"\nprompt = "{text} }"', "prompt: ", "braces hold slots"),
    "an answer without slot": ('job = "answer"\nprompt = "{question}"\nanswer = " x"', "no slot {answer}", ""),
    "an unknown key": ('job = "answer"\nprompt = "{question}"\nlabels = ["a"]', "unknown key 'labels'", "last_word"),
    "a wrong type": ('job = "answer"\nprompt = "{question}"\nstop = "x"', "stop = 'x'", "a list of texts"),
    "a wrong number": ('job = "answer"\nprompt = "{question}"\nmax_new_tokens = 0', "max_new_tokens = 0", "from 1 on"),
    "true as number": ('job = "answer"\nprompt = "{question}"\nmax_new_tokens = true', "max_new_tokens = True", ""),
    "a text in a domain": (
        'job = "classify"\nprompt = "{text}"\ndomain = "{text}"',
        "domain has an unknown slot {text}",
        "",
    ),
    "a poor example": (
        'job = "classify"\nprompt = "{text}"\nexamples = [{text = "a", label = "b"}, {text = "a"}]',
        "example 2 has no label",
        "",
    ),
    "a number in an example": (
        'job = "classify"\nprompt = "{text}"\nexamples = [{text = 1, label = "b"}]',
        "example 1: text = 1",
        "",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_a_file_are_named(tmp_path: Path, mistake: str) -> None:
    text, what, why = MISTAKES[mistake]
    path = written(tmp_path, text)
    job = next((job for job in JOBS if f'"{job}' in text), "translate")
    with pytest.raises(UsageError) as raised:
        load_template(path, job)
    assert str(path) in raised.value.what and what in raised.value.what
    assert why in raised.value.why and raised.value.fix


def test_files_and_names_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml cannot be read"):
        load_template(tmp_path / "nowhere.toml", "answer")
    with pytest.raises(UsageError, match="no template 'nothing'"):
        load_template("nothing", "answer")
    with pytest.raises(UsageError, match="no template 'languages'"):
        load_template("languages", "translate")
    with pytest.raises(UsageError, match="is for translate, not for answer"):
        load_template("pair", "answer")
    (tmp_path / "latin.toml").write_bytes(b'prompt = "caf\xe9"')
    with pytest.raises(UsageError, match="not TOML"):
        load_template(tmp_path / "latin.toml", "answer")


def test_languages_are_those_of_the_file_and_the_shipped_ones(tmp_path: Path) -> None:
    text = 'job = "translate"\nprompt = "{text} {to}:"\n[languages]\ntlh = "Klingon"\nen = "Anglic"'
    template = load_template(written(tmp_path, text), "translate")
    assert (template.language("tlh"), template.language("en"), template.language("fr")) == (
        "Klingon",
        "Anglic",
        "French",
    )
    with pytest.raises(UsageError, match="unknown language code 'xx'") as raised:
        load_template("pair", "translate").language("xx")
    assert "zh" in raised.value.why and "[languages]" in raised.value.fix


def test_what_is_given_and_what_the_prompt_asks_for_have_to_agree() -> None:
    template = load_template("question", "answer")
    template.check_given({"question": "?"})
    with pytest.raises(UsageError, match="no question was given"):
        template.check_given({})
    with pytest.raises(UsageError, match=r"has no slot \{context\}"):
        template.check_given({"question": "?", "context": "c"})
