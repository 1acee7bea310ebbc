"""What can be asked for, what is refused and how it is said, and the judges of a text."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import regex
import torch

from tokentape.control.grammar import grammar as grammars
from tokentape.control.grammar import vocabulary as vocabularies
from tokentape.control.grammar.grammar import Grammar
from tokentape.control.grammar.json_schema import for_the_engine
from tokentape.control.grammar.validation import judged
from tokentape.control.grammar.vocabulary import vocabulary_of
from tokentape.control.rule import Control
from tokentape.errors import UsageError
from tokentape.models.causal import CausalModel, load


@pytest.fixture(scope="module")
def demo() -> CausalModel:
    return load("demo")


def takes(grammar: Grammar, causal: CausalModel, text: str) -> bool:
    """Whether the engine takes a whole text, however it is cut."""
    matcher, ids = vocabulary_of(causal).matcher(grammar), causal.tokenizer(text)["input_ids"]
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


def test_a_grammar_is_a_value() -> None:
    one, other = Grammar.json_schema({"type": "integer"}), Grammar.json_schema('{"type":  "integer"}')
    assert one == other and hash(one) == hash(other)
    assert Grammar.json_schema(True).source == "true"
    assert Grammar.choices(["no", "yes", "no"]) == Grammar.choices(("no", "yes"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.kind = "regex"  # type: ignore[misc]
    assert isinstance(one, Control)
    described = Grammar.json_schema({"const": "é"}, compact=True).describe()
    assert json.loads(json.dumps(described)) == described
    assert (
        described["kind"] == "json_schema" and described["source"] == '{"const": "é"}' and described["compact"] is True
    )
    assert described["engine"].startswith("llguidance ")


RECURSIVE = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ('{"type": ', "line 1, column 10"),
        ("{'a': 1}", "line 1, column 2"),
        ('{"const": NaN}', "NaN is no JSON number"),
        ({"const": float("inf")}, "no JSON"),
        ({"const": {1, 2}}, "no JSON"),
        ({"const": "\ud83d"}, "no JSON"),
        ([1], "an object or a boolean, not [1]"),
        ("3", "an object or a boolean, not 3"),
        ({"type": "strin"}, "#/type"),
        ({"properties": {"a": {"maxLength": -1}}}, "#/properties/a/maxLength"),
        ({"$schema": "http://example.org/mine"}, "$schema names a dialect that is not known: http://example.org/mine"),
        (False, "false"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum (3) is greater than maximum (2)"),
        ({"allOf": [{"type": "integer"}, {"type": "string"}]}, "no JSON text satisfies"),
        ({"enum": []}, "enum"),
        ({"type": "string", "pattern": "^a$", "minLength": 3}, "no JSON text satisfies"),
        (RECURSIVE, "calls for itself without end"),
        ({"$ref": "#"}, "calls for itself without end"),
        (
            {"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/n"}}}},
            "without end",
        ),
    ],
    ids=str,
)
def test_a_schema_that_is_none_or_holds_nothing_is_refused(schema: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Grammar.json_schema(schema)
    assert said in str(caught.value)
    assert all((caught.value.what, caught.value.why, caught.value.fix))


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, "uniqueItems"),
        ({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 3}]}, "oneOf"),
        ({"minProperties": 1, "properties": {"a": {}, "b": {}}}, "minProperties"),
        ({"maxProperties": 1, "properties": {"a": {}, "b": {}}}, "maxProperties"),
        ({"minProperties": 2}, "minProperties"),
        ({"$ref": "http://example.org/other.json"}, "$ref"),
        ({"$ref": "#/$defs/absent"}, "$ref"),
        ({"pattern": "(?=a)b"}, "pattern"),
        ({"patternProperties": {"(?=a)b": {}}}, "patternProperties"),
        ({"patternProperties": {"^a": {}, "a$": {}}}, "patternProperties"),
        ({"type": "number", "multipleOf": 1e-300}, "multipleOf"),
        ({"type": "string", "format": "iri"}, "format"),
        ({"type": "string", "format": "unknown"}, "format"),
        ({"prefixItems": [{"type": "integer"}], "additionalItems": False}, "additionalItems"),
        ({"const": 2**53 + 1}, "const"),
        ({"properties": {"a": {"enum": [[{"b": -(2**60)}]]}}}, "enum"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "x-guidance"),
        ({"properties": {"a\x00": {}}}, "properties"),
        ({"const": "a\x01", "properties": {"b": {"type": "integer"}}}, "properties"),
        ({"allOf": [{"$schema": "http://json-schema.org/draft-04/schema"}]}, "$schema"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_exactly_is_refused_by_its_keyword(schema: Any, keyword: str) -> None:
    with pytest.raises(UsageError) as caught:
        Grammar.json_schema(schema)
    assert keyword in caught.value.what and caught.value.why and caught.value.fix


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Grammar.regex("a{3"), "unclosed counted repetition"),
        (lambda: Grammar.regex(r"\bword\b"), "lookaround"),
        (lambda: Grammar.regex(r"(a)\1"), "backreferences"),
        (lambda: Grammar.regex(r"a[^\s\S]"), "holds no text at all"),
        (lambda: Grammar.regex("(?x) a # one\n b"), "verbose mode"),
        (lambda: Grammar.regex(3), "3 is no pattern"),
        (lambda: Grammar.choices([]), "nothing to choose"),
        (lambda: Grammar.choices("yes"), "'yes' is no list of texts"),
        (lambda: Grammar.choices(["a", 1]), "is no list of texts"),
        (lambda: Grammar.choices(["\ud83d"]), "the choices cannot be used"),
        (lambda: Grammar.lark('start: "a" | b'), 'unknown name: "b"'),
        (lambda: Grammar.lark('begin: "a"'), "no start rule"),
        (lambda: Grammar.lark('start: x\nx: x "a"'), "holds no text at all"),
        (lambda: Grammar.lark('{"grammars": [{"json_schema": {}}]}'), "expecting rule"),
        (lambda: Grammar.lark('start: %json {"not": {}}'), "not"),
        (lambda: Grammar.lark('start: %json {"not": {}, "x-guidance": {"lenient": true}}'), "only in part"),
        (lambda: Grammar.lark(None), "None is no grammar"),
    ],
)
def test_other_languages_are_refused_with_their_place(make: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        # the engine's own defaults take these: a name may be spelt by escapes, and is then another one to it
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1, "b": "x"}', '{"\\u0061": "x"}'),
        ({"type": "object", "properties": {"\n": {"type": "integer"}}}, '{"\\n": 1}', '{"\\u000a": "x"}'),
        ({"patternProperties": {"^a": {"type": "integer"}}}, '{"a": 1, "b": "x"}', '{"\\u0061": "x"}'),
        ({"const": "a\x00b"}, '"a\\u0000b"', '"ab"'),
        ({"enum": [["a\x00"], "c"]}, '["a\\u0000"]', '["a"]'),
        ({"pattern": "^a\\x00b$"}, '"a\\u0000b"', '"ab"'),
        ({"type": "string", "format": "date"}, '"2024-02-29"', '"2023-02-29"'),
        ({"type": "string", "format": "date"}, '"2000-02-29"', '"1900-02-29"'),
        ({"type": "string", "format": "date"}, '"0001-01-31"', '"0000-01-31"'),
        ({"type": "string", "format": "date-time"}, '"2024-02-29T23:59:59Z"', '"2023-02-29T00:00:00Z"'),
        ({"type": "string", "format": "date-time"}, '"1999-12-31t00:00:00.25-08:00"', '"1999-12-31T08:15:60Z"'),
        ({"type": "string", "format": "time"}, '"08:15:59+01:00"', '"08:15:60+01:00"'),
        ({"maxLength": 2.0}, '"ab"', '"abc"'),
        ({"type": "number", "multipleOf": 0.01}, "4.35", "4.351"),
    ],
    ids=str,
)
def test_what_the_engine_alone_would_take_too_loosely(demo: CausalModel, schema: Any, good: str, bad: str) -> None:
    grammar = Grammar.json_schema(schema)
    assert takes(grammar, demo, good) and judged(grammar, good.encode()) == (True, None)
    assert not takes(grammar, demo, bad)
    valid, why = judged(grammar, bad.encode())
    assert valid is False and why


def test_the_date_that_stands_beside_a_format_is_the_calendar_s() -> None:
    import datetime

    schema, _ = for_the_engine({"type": "string", "format": "date"})
    patterns = [regex.compile(part["pattern"]) for part in schema["allOf"]]
    for year in [1, 4, 100, 400, 1600, 1900, 1999, 2000, 2023, 2024, 2100, 2400, 9999, *range(1896, 1912)]:
        leap = datetime.date(year, 12, 31).timetuple().tm_yday == 366
        for day in ("01-31", "02-28", "03-01", "12-31"):
            assert all(pattern.search(f"{year:04}-{day}") for pattern in patterns)
        assert all(pattern.search(f"{year:04}-02-29") for pattern in patterns) == leap


def test_whitespace_is_free_or_none(demo: CausalModel) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    free, compact = Grammar.json_schema(schema), Grammar.json_schema(schema, compact=True)
    assert takes(free, demo, '{ "a" :\n1}') and takes(free, demo, '{"a":1}')
    assert takes(compact, demo, '{"a":1}') and not takes(compact, demo, '{"a": 1}')


def test_dialects_of_before(demo: CausalModel) -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"type": "integer"}]}
    grammar = Grammar.json_schema({**schema, "additionalItems": False})
    assert takes(grammar, demo, "[1]") and not takes(grammar, demo, "[1, 2]") and not takes(grammar, demo, '["a"]')
    assert judged(grammar, b"[1]") == (True, None) and judged(grammar, b"[1, 2]")[0] is False


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (Grammar.choices(["yes", "é"]), ["yes", "é"], ["", "ye", "yess"]),
        (Grammar.regex("[0-9]+"), ["1", "12"], ["", "a", "1\n"]),
        (Grammar.regex(r"[\w&&[^b]]+"), ["ac", "é", "a\u0301"], ["b", "ab"]),
        (Grammar.regex("[[:alpha:]]+[+*]+"), ["ab+", "a*+"], ["1+", "a"]),
        (Grammar.json_schema({"pattern": r"^\W$"}), ['"é"', "1"], ['"a"']),
        (Grammar.json_schema({"pattern": r"^\d\s$"}), ['"1\u00a0"'], ['"٣ "', '"1a"']),
        (Grammar.json_schema({"type": "integer"}), ["1", "1.0", "-3"], ["1.5", "true", "01", "1 2"]),
        (Grammar.json_schema({"multipleOf": 0.1}), ["0.3", "7", "9" * 60], ["0.35"]),
        (Grammar.json_schema({"format": "uri"}), ['"a:b"', '"http://x.y/z?q=%20"', "1"], ['"x"', '"a: b"', '"a:%2"']),
        (Grammar.json_schema({"format": "hostname"}), ['"a-b.c"'], ['"-a"', f'"{"a." * 130}b"']),
        (
            Grammar.json_schema({"format": "duration"}),
            ['"P1Y2M"', '"PT1H"', '"P3W"'],
            ['"P"', '"PT"', '"P1D1Y"', '"P1Y1D"'],
        ),
        (Grammar.json_schema({"format": "ipv4"}), ['"1.2.3.4"'], ['"1.2.3"', '"1.2.3.256"']),
        (
            Grammar.json_schema({"patternProperties": {r"^\d": {"type": "null"}}, "additionalProperties": False}),
            ['{"1": null}', "{}"],
            ['{"a": null}', '{"1": 1}', '{"٣": null}'],
        ),
    ],
    ids=lambda value: value.source if isinstance(value, Grammar) else "",
)
def test_the_judge_is_not_the_engine(grammar: Grammar, good: list[str], bad: list[str]) -> None:
    assert [judged(grammar, text.encode()) for text in good] == [(True, None)] * len(good)
    for text in bad:
        valid, why = judged(grammar, text.encode())
        assert valid is False and why, text


def test_where_nobody_else_can_judge() -> None:
    for grammar, word in [
        (Grammar.lark('start: "a"'), "engine"),
        (Grammar.regex("a++"), "possessive"),
        (Grammar.json_schema({"pattern": "a*+"}), "possessive"),
    ]:
        valid, why = judged(grammar, b'"a"')
        assert valid is None and why is not None and word in why
    assert judged(Grammar.choices(["é"]), "é".encode()[:1])[0] is False
    slow = judged(Grammar.regex("(?:a|aa|a?a)*(?:a|aa)*c"), b"a" * 60)
    assert slow[0] in (False, None)


def test_a_vocabulary_and_what_was_compiled_for_it_are_made_once(
    demo: CausalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = vocabulary_of(demo)
    assert vocabulary_of(dataclasses.replace(demo)) is vocabulary
    grammar = Grammar.regex("[a-c]{3}once")
    first = vocabulary.matcher(grammar)
    monkeypatch.setattr(vocabularies, "started", None)
    second = vocabulary.matcher(grammar)
    assert first.consume_tokens(demo.tokenizer("abc")["input_ids"]) and not second.is_accepting()
    monkeypatch.undo()
    monkeypatch.setattr(vocabularies, "KEPT_GRAMMARS", 3)
    for i in range(8):
        vocabulary.matcher(Grammar.choices([str(i)]))
        vocabulary.matcher(grammar)
    assert len(vocabulary._compiled) <= 8 and grammar in vocabulary._compiled


def test_models_that_cannot_be_held_are_refused(demo: CausalModel) -> None:
    with pytest.raises(UsageError, match="has no tokenizer"):
        Grammar.choices(["a"]).bound(dataclasses.replace(demo, tokenizer=None))

    class Slow:
        """A tokenizer that is written in Python."""

        def __len__(self) -> int:
            return 3

    with pytest.raises(UsageError, match="written in Python"):
        Grammar.choices(["a"]).bound(dataclasses.replace(demo, tokenizer=Slow()))


def word_pieces() -> Any:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def test_word_pieces_are_refused_by_the_tokenizer_s_name(demo: CausalModel) -> None:
    with pytest.raises(UsageError) as caught:
        Grammar.choices(["ab"]).bound(dataclasses.replace(demo, tokenizer=word_pieces()))
    assert type(word_pieces()).__name__ in caught.value.what


@pytest.mark.material
def test_a_vocabulary_that_cannot_spell_the_language_is_told_before_the_run(material: Path) -> None:
    causal = load(material / "models" / "TinyStories-656K")
    with pytest.raises(UsageError, match="cannot spell the schema"):
        Grammar.json_schema({"type": "object"}).bound(causal)
    rule = Grammar.json_schema({"anyOf": [{"type": "object"}, {"enum": ["yes"]}]}).bound(causal)
    scores = rule(torch.tensor([[1]]), torch.zeros(1, causal.vocab_size))
    # the object cannot be begun, since no token has a brace in it
    assert [causal.pieces.piece(i).bytes for i in torch.nonzero(scores[0] > -torch.inf).flatten().tolist()] == [b'"']
    assert rule.forced(torch.tensor([[1]])) == []


def test_a_model_without_an_end_of_text_gives_the_engine_one(demo: CausalModel) -> None:
    # neither an end nor any special token: the engine gets one more that no text holds
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.enable_truncation(2)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))
    causal = CausalModel(model, tokenizer, "bytes", None, None, None, len(alphabet))
    assert vocabulary_of(causal).end == 256
    rule = Grammar.choices(["hello", "help"]).bound(causal)
    prompt = ids = torch.tensor([[0]])
    assert b"".join(causal.pieces.piece(i).bytes for i in rule.forced(ids)) == b"hel"
    draw = random.Random(0)
    while not rule.ended(ids)[0]:
        scores = rule(ids, torch.zeros(1, causal.vocab_size))
        chosen = draw.choice(torch.nonzero(scores[0] > -torch.inf).flatten().tolist())
        ids = torch.cat([ids, torch.tensor([[chosen]])], dim=1)
    assert rule.outcomes(ids)[0].name == "complete" and rule.outcomes(ids)[0].valid is True
    assert ids.shape[1] - prompt.shape[1] in (4, 5)


def test_the_alphabet_of_bytes_is_one() -> None:
    assert grammars._bytes() is grammars._bytes()
