"""A language that a model is held to: a JSON schema, a regular expression, choices, a grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import tokentape.control.grammar.json_schema as json_schema
from tokentape.control.grammar.refusals import check_exact, refusal
from tokentape.errors import MissingExtra, RuleError, UsageError

if TYPE_CHECKING:
    from tokentape.control.grammar.rule import GrammarRule
    from tokentape.models.causal import CausalModel

__all__ = ["KINDS", "Grammar", "check_going", "require_llguidance", "started"]

KINDS = ("json_schema", "regex", "choices", "lark")


def require_llguidance() -> Any:
    """The module llguidance. Raises MissingExtra where it is not installed."""
    try:
        import llguidance
    except ImportError as error:
        raise MissingExtra(
            "llguidance is not installed",
            why="it compiles grammars and tells which tokens may follow",
            fix="pip install 'tokentape[local]'",
        ) from error
    return llguidance


@dataclass(frozen=True, slots=True)
class Grammar:
    """A language, before a model is known: every text that is generated under it is of that language, or ends named as not whole.

    ``kind`` is one of :data:`KINDS`, ``source`` its text: JSON of a schema or of a list of choices, a pattern, a grammar.
    ``compact`` allows no whitespace between the tokens of JSON. Made by :meth:`json_schema`, :meth:`regex`, :meth:`choices`
    and :meth:`lark`, which refuse (UsageError) what is malformed, what holds no text at all, and what cannot be enforced exactly.
    """

    kind: str
    source: str
    compact: bool = False

    @classmethod
    def json_schema(cls, schema: str | Mapping[str, Any] | bool, *, compact: bool = False) -> Grammar:
        """JSON texts that satisfy a schema: JSON text or plain values, draft 2020-12 where ``$schema`` says nothing else.

        Properties come in the order in which the schema first names them, other names after them. Whitespace may stand
        where JSON allows it, unless ``compact``: then names and punctuation follow by themselves, as forced tokens.
        Strings write control characters by their short escapes, and no character as ``\\uXXXX``.
        """
        value = json_schema.parsed(schema)
        check_exact(value)
        return cls("json_schema", json.dumps(value, ensure_ascii=False), compact).checked()

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Texts that match a pattern from end to end, in the syntax of Rust's regex crate; without lookaround or word borders."""
        if not isinstance(pattern, str):
            raise UsageError(f"{pattern!r} is no pattern", why="a pattern is a str", fix="Grammar.regex('[0-9]+')")
        if "\n" in pattern and re.search(r"\(\?[a-zA-Z]*x", pattern):
            raise UsageError(
                "a pattern in verbose mode (?x) cannot have lines",
                why="the engine reads it as one line, of which a comment would take the rest",
                fix="write the pattern without comments and line breaks",
            )
        return cls("regex", pattern).checked()

    @classmethod
    def choices(cls, texts: Iterable[str]) -> Grammar:
        """One of some texts, as it is written. Where one opens another, both can be chosen."""
        listed = [texts] if isinstance(texts, str) else list(texts)
        if isinstance(texts, str) or not listed or not all(isinstance(text, str) for text in listed):
            raise UsageError(
                f"{texts!r} is no list of texts" if listed else "there is nothing to choose",
                why="choices are a list of one str or more",
                fix='Grammar.choices(["yes", "no"])',
            )
        source = json.dumps(list(dict.fromkeys(listed)))
        return cls("choices", source).checked()

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """Texts of a context-free grammar in llguidance's variety of Lark, with a rule ``start``."""
        if not isinstance(text, str):
            raise UsageError(f"{text!r} is no grammar", why="a grammar is a str", fix="""Grammar.lark('start: "a"')""")
        return cls("lark", text).checked()

    def bound(self, causal: CausalModel) -> GrammarRule:
        """A fresh rule for one run of a model.

        Raises UsageError where the engine cannot read the model's tokenizer, or its vocabulary cannot spell the language.
        """
        from tokentape.control.grammar.rule import GrammarRule
        from tokentape.control.grammar.vocabulary import vocabulary_of

        return GrammarRule(self, vocabulary_of(causal))

    def describe(self) -> dict[str, Any]:
        """Kind and source, and the engine with its version."""
        described = {
            "kind": self.kind,
            "source": self.source,
            "engine": f"llguidance {require_llguidance().__version__}",
        }
        return {**described, "compact": True} if self.compact else described

    def checked(self) -> Grammar:
        """Itself, once the engine has read it over an alphabet of bytes, where every language can be spelt."""
        try:
            started(self, _bytes(), forcing=True)
        except UsageError as error:
            # which special tokens there are is the model's matter
            if self.kind != "lark" or "special token" not in error.why:
                raise
        return self


@cache
def _bytes() -> Any:
    return require_llguidance().LLTokenizer("byte")


def started(grammar: Grammar, tokenizer: Any, *, forcing: bool) -> Any:
    """An ``LLMatcher`` at the start of a grammar; with ``forcing``, bytes that must follow are cut as the tokenizer cuts them.

    Raises UsageError where the engine refuses the grammar, would keep only a part of it, or no token of the tokenizer
    starts a text of it.
    """
    llguidance = require_llguidance()
    words = json.dumps({"grammars": [_in_words_of_the_engine(grammar, forcing)]})
    matcher = llguidance.LLMatcher(
        tokenizer, words, log_level=0, limits=llguidance.LLParserLimits(verbose_errors=False)
    )
    if matcher.is_error():
        _refuse(grammar, matcher.get_error())
    if warnings := matcher.get_grammar_warnings():
        raise UsageError(
            f"the {_named(grammar)} would be kept only in part",
            why="; ".join(warnings)[:300],
            fix="leave out what the warning names",
        )
    matcher.consume_tokens([])  # it sees that nothing can follow only when it is moved on
    trial = matcher.deep_copy()
    trial.compute_bitmask()
    if trial.is_error():
        check_going(trial)
        raise _nothing_to_say(grammar, tokenizer)
    return matcher


def check_going(matcher: Any) -> None:
    """Raise RuleError where the engine gave up on a matcher; that no token can follow is an answer, and none."""
    complaint = matcher.get_error()
    if complaint and not complaint.startswith("NoExtension"):
        raise RuleError(
            "the grammar engine gave up",
            why=complaint.split("<non-verbose/>")[0].strip()[:300],
            fix="simplify the grammar: bound what repeats, and give alternatives that differ early",
        )


def _in_words_of_the_engine(grammar: Grammar, forcing: bool) -> dict[str, Any]:
    """The grammar as the engine reads it; that nothing is forced only its Lark can say."""
    if grammar.kind == "json_schema":
        schema, options = json_schema.for_the_engine(json.loads(grammar.source))
        schema["x-guidance"] = {**options, "whitespace_flexible": not grammar.compact}
        if forcing:
            return {"json_schema": schema}
        lark = f"start: %json {json.dumps(schema)}"
    elif grammar.kind == "regex":
        lark = f"start: /{require_llguidance().regex_to_lark(grammar.source, '')}/"
    elif grammar.kind == "choices":
        lark = "start: " + " | ".join(map(json.dumps, json.loads(grammar.source)))
    else:
        lark = grammar.source
    return {"lark_grammar": lark if forcing else f'%llguidance {{"no_forcing": true}}\n{lark}'}


def _named(grammar: Grammar) -> str:
    return {"json_schema": "schema", "regex": "pattern", "lark": "grammar"}.get(grammar.kind, grammar.kind)


def _refuse(grammar: Grammar, complaint: str) -> NoReturn:
    """Raise the error for what the engine does not take, in the words of the kind."""
    if grammar.kind == "json_schema":
        raise refusal(json.loads(grammar.source), complaint)
    said = complaint.split("<non-verbose/>")[0].strip()
    if grammar.kind == "regex":
        # "at 1(8): invalid regex "a{3" (in regex): regex parse error: ..." and the engine's own line around it
        said = said.split("(in regex):", 1)[-1].split("\n   1 |")[0].strip()
        raise UsageError(
            f"the pattern {grammar.source!r} cannot be used",
            why=said,
            fix="write it in the syntax of Rust's regex crate, without lookaround, word borders or backreferences",
        )
    raise UsageError(
        f"the {_named(grammar)} cannot be used",
        why=said[:400],
        fix="see llguidance's own description of its syntax, docs/syntax.md",
    )


def _nothing_to_say(grammar: Grammar, tokenizer: Any) -> UsageError:
    if tokenizer is _bytes():
        return UsageError(
            f"the {_named(grammar)} holds no text at all",
            why=f"nothing matches {grammar.source[:200]}",
            fix="loosen what contradicts itself",
        )
    return UsageError(
        f"the vocabulary cannot spell the {_named(grammar)}",
        why="none of its tokens starts a text of that language",
        fix="take characters that the model's tokenizer knows",
    )
