"""Options that steer what a model says: grammars, guidance, guards, chat, windows; and the rules that they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from tokentape.cli.generation import flag_of
from tokentape.cli.prompts import read_text
from tokentape.cli.sections import in_section
from tokentape.errors import UsageError

__all__ = ["CONTROL_OPTIONS", "biases_of", "listed", "rules_of", "window_of"]

_FILE = click.Path(path_type=Path)
_prompt = partial(in_section, "Prompt")
_generation = partial(in_section, "Generation")
_grammar = partial(in_section, "Grammar")
_guidance = partial(in_section, "Guidance")
_guard = partial(in_section, "Guard")

CONTROL_OPTIONS = [
    _grammar("--json-schema", type=_FILE, metavar="FILE", help="Say JSON that satisfies the schema in FILE."),
    _grammar("--compact", is_flag=True, help="JSON without whitespace: names and punctuation need no forward pass."),
    _grammar("--regex", metavar="PATTERN", help="Say a text that matches PATTERN from end to end."),
    _grammar("--choices", metavar="A,B,...", help="Say one of these, as written; in JSON where one holds a comma."),
    _grammar(
        "--grammar", type=_FILE, metavar="FILE", help="Say a text of the Lark grammar in FILE, with a rule start."
    ),
    _guidance("--guidance", type=float, metavar="SCALE", help="Classifier-free guidance; 1 changes nothing."),
    _guidance(
        "--negative", metavar="TEXT", help="The prompt to be guided away from; default: the prompt's last token."
    ),
    _guidance("--expert", metavar="MODEL", help="Add what a second model of the same vocabulary believes."),
    _guidance("--amateur", metavar="MODEL", help="Take away what a weaker model believes (contrastive decoding)."),
    _guidance("--contrast", type=float, metavar="X", help="Strength of expert and amateur; default 1, 0 for none."),
    _guidance("--steer", type=_FILE, metavar="FILE", help="Steer by a direction that `tokentape direction` made."),
    _guidance("--strength", type=float, metavar="X", help="How far to steer; default 1, negative the other way."),
    _guidance("--bias", multiple=True, metavar="TEXT=X", help="Add X to the logits of TEXT (repeatable)."),
    _prompt("--chat", is_flag=True, help="Write the prompt as a message, by the model's chat template."),
    _prompt("--system", metavar="TEXT", help="The system message before it; asks for --chat."),
    _generation(
        "--window", type=int, metavar="N", help="Keep the last N positions only, so that a text may go on for ever."
    ),
    _generation("--sinks", type=int, metavar="K", help="And the first K; default 4."),
    _guard(
        "--block", multiple=True, metavar="PHRASE", help="Never show PHRASE, in any casing or spelling (repeatable)."
    ),
    _guard("--block-file", type=_FILE, metavar="FILE", help="Phrases, one a line."),
    _guard("--block-pattern", multiple=True, metavar="REGEX", help="Never show what matches (repeatable)."),
    _guard("--whole-words", is_flag=True, help="Block phrases only where no letter or digit adjoins."),
    _guard("--min-logprob", type=float, metavar="X", help="End where a token is less likely than exp(X)."),
    _guard("--on-block", type=click.Choice(["stop", "redact", "resample"]), help="What to do; default stop."),
]
"""In the order of the help page."""


def rules_of(given: Mapping[str, Any]) -> list[Any]:
    """The rules that were asked for, in order. Raises UsageError for all that can be seen without the model."""
    rules = [_guidance_of(given), _contrast_of(given), _steering_of(given), _grammar_of(given), _guard_of(given)]
    return [rule for rule in rules if rule is not None]


def _guidance_of(given: Mapping[str, Any]) -> Any | None:
    if given["guidance"] is None:
        _refuse_alone(given, "negative", "--guidance 1.5")
        return None
    from tokentape.control.guidance.guidance import Guidance

    return Guidance(scale=given["guidance"], negative=given["negative"])


def _contrast_of(given: Mapping[str, Any]) -> Any | None:
    if given["expert"] is None and given["amateur"] is None:
        _refuse_alone(given, "contrast", "--amateur MODEL")
        return None
    from tokentape.control.guidance.contrast import Contrast

    strength = 1.0 if given["contrast"] is None else given["contrast"]
    return Contrast(expert=given["expert"], amateur=given["amateur"], strength=strength)


def _steering_of(given: Mapping[str, Any]) -> Any | None:
    if given["steer"] is None:
        _refuse_alone(given, "strength", "--steer FILE")
        return None
    from tokentape.control.guidance.direction import Direction
    from tokentape.control.guidance.steering import Steering

    return Steering(Direction.load(given["steer"]), strength=1.0 if given["strength"] is None else given["strength"])


def _grammar_of(given: Mapping[str, Any]) -> Any | None:
    asked = [name for name in ("json_schema", "regex", "choices", "grammar") if given[name] is not None]
    if len(asked) > 1:
        raise UsageError(
            f"{' and '.join(map(flag_of, asked))} together",
            why="a text is of one language",
            fix="leave one of them out",
        )
    if given["compact"] and asked != ["json_schema"]:
        raise UsageError("--compact without --json-schema", why="it is about JSON", fix="--json-schema FILE --compact")
    if not asked:
        return None
    from tokentape.control.grammar.grammar import Grammar

    if asked == ["json_schema"]:
        return Grammar.json_schema(read_text(given["json_schema"]), compact=given["compact"])
    if asked == ["regex"]:
        return Grammar.regex(given["regex"])
    if asked == ["grammar"]:
        return Grammar.lark(read_text(given["grammar"]))
    choices = listed(given["choices"], "--choices")
    if not choices:
        raise UsageError("there is nothing to choose", why="--choices names none", fix="--choices yes,no")
    return Grammar.choices(choices)


def listed(text: str, flag: str) -> list[str]:
    """What stands between commas, or in a JSON list, for entries that hold commas themselves."""
    import json

    if not text.lstrip().startswith("["):
        return [part for part in text.split(",") if part]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"{flag} {text[:60]}: no JSON", why=str(error), fix=f'{flag} a,b,c; or {flag} \'["a, b", "c"]\''
        ) from error
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise UsageError(
            f"{flag} {text[:60]}: no list of texts", why="each entry is a text", fix=f'{flag} \'["a", "b"]\''
        )
    return found


def _guard_of(given: Mapping[str, Any]) -> Any | None:
    phrases = list(given["block"])
    if given["block_file"] is not None:
        phrases += [line for line in read_text(given["block_file"]).splitlines() if line.strip()]
        if not phrases:
            raise UsageError(
                f"{given['block_file']} has no phrases", why="every line is empty", fix="one phrase a line"
            )
    if not phrases and not given["block_pattern"] and given["min_logprob"] is None:
        _refuse_alone(given, "on_block", "--block PHRASE")
        _refuse_alone(given, "whole_words", "--block PHRASE")
        return None
    from tokentape.control.guard.guard import Guard

    return Guard(
        phrases=phrases,
        patterns=given["block_pattern"],
        min_logprob=given["min_logprob"],
        action=given["on_block"] or "stop",
        whole_words=given["whole_words"],
    )


def biases_of(given: Mapping[str, Any]) -> dict[str, float]:
    """``--bias TEXT=X`` as numbers by text; the last ``=`` divides them."""
    found: dict[str, float] = {}
    for pair in given["bias"]:
        text, equals, number = pair.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            equals = ""
            value = 0.0
        if not equals or not text:
            raise UsageError(f"--bias {pair}: not TEXT=X", why="X is what is added to a logit", fix="--bias cat=+2.0")
        if text in found:
            raise UsageError(f"--bias {text} is given twice", why="they may differ", fix="leave one out")
        found[text] = value
    return found


def window_of(given: Mapping[str, Any]) -> dict[str, int]:
    """The options of the window that were given."""
    return {name: given[name] for name in ("window", "sinks") if given[name] is not None}


def _refuse_alone(given: Mapping[str, Any], name: str, needed: str) -> None:
    """Raise for an option that says how to do what was not asked for."""
    if given[name] is not None and given[name] is not False:
        raise UsageError(
            f"{flag_of(name)} without {needed.split()[0]}", why="there is nothing for it to change", fix=needed
        )
