"""Options of ``generate()`` from the command line: read, joined, and refused where they contradict each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokentape.errors import UnsupportedDecoding, UsageError
from tokentape.sources.option_checks import check_options

__all__ = ["flag_of", "generation_options", "options_given", "parse_pairs"]

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
"""Options that only mean something when tokens are drawn; giving one asks for sampling."""

_WORDS = {"True": True, "False": False, "None": None}
"""Python's spellings, which people write too."""


def generation_options(flags: Mapping[str, Any], pairs: Sequence[str], *, ignore_eos: bool = False) -> dict[str, Any]:
    """The options for ``record``: ``flags`` that were given (None: not given) and ``-g`` pairs, as one.

    Raises UsageError for contradictions and values out of range, before any model is loaded.
    """
    options = {name: value for name, value in flags.items() if value is not None and value != ()}
    for name, value in parse_pairs(pairs).items():
        if name in options:
            raise UsageError(
                f"{name} is given twice: {flag_of(name)} and -g {name}=", why="they may differ", fix="leave one out"
            )
        options[name] = value
    _refuse_objects(options)
    _refuse_other_methods(options)
    _settle_sampling(options)
    if ignore_eos:
        _check_limit(options)
    check_options(options)
    return options


def options_given(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The options among what a command was given: flags of these ``names``, ``--stop``, ``--greedy``, ``-g``. Raises UsageError."""
    flags = {name: given[name] for name in names}
    flags["stop_strings"] = list(given["stop"]) or None
    if given["greedy"]:
        if flags["do_sample"]:
            raise UsageError("--greedy together with --do-sample", why="one or the other", fix="leave one out")
        flags["do_sample"] = False
    return generation_options(flags, given["pairs"], ignore_eos=given["ignore_eos"])


def parse_pairs(
    pairs: Sequence[str],
    flag: str = "-g",
    form: str = "key=value",
    example: str = "exponential_decay_length_penalty='[50, 1.1]'",
) -> dict[str, Any]:
    """Pairs of that form, given by that flag; a value is JSON where it can be read as such, else a text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise UsageError(
                f"{flag} {pair}: not {form}",
                why="the name of an option and its value belong together",
                fix=f"{flag} {example}",
            )
        if name in found:
            raise UsageError(f"{flag} {name} is given twice", why="they may differ", fix="leave one out")
        try:
            found[name] = _WORDS[text] if text in _WORDS else json.loads(text)
        except ValueError:
            if text[:1] in '[{"':
                raise UsageError(
                    f"{flag} {pair}: the value is no JSON",
                    why="what starts as a list, an object or a text must be a whole one",
                    fix=f"{flag} '{name}=[1, 2]', in quotes",
                ) from None
            found[name] = text
    return found


def flag_of(name: str) -> str:
    """The flag of an option: ``--top-p`` of ``top_p``."""
    return "--" + name.replace("_", "-")


OBJECTS = ("streamer", "prefix_allowed_tokens_fn", "logits_processor", "stopping_criteria", "rules")
"""Options whose values are objects of a program."""


def _refuse_objects(options: Mapping[str, Any]) -> None:
    for name in OBJECTS:
        if options.get(name) is not None:
            raise UsageError(
                f"-g {name}= on the command line",
                why="its value is an object, which a program has to make",
                fix=f"tt.record(source, prompt, {name}=...) in Python",
            )


def _refuse_other_methods(options: Mapping[str, Any]) -> None:
    refused: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "num_beams": ("beam search", lambda value: value != 1),
        "num_beam_groups": ("group beam search", lambda value: value != 1),
        "penalty_alpha": ("contrastive search", bool),
        "prompt_lookup_num_tokens": ("prompt lookup decoding", bool),
        "assistant_model": ("assisted decoding", bool),
        "dola_layers": ("DoLa decoding", bool),
    }
    for name, (method, asks) in refused.items():
        value = options.get(name)
        if value is not None and asks(value):
            raise UnsupportedDecoding(
                f"{flag_of(name)} {value}: {method} is not recorded",
                why="a step of it does not yield tokens that stay; greedy search and sampling do",
                fix=f"leave out {flag_of(name)}",
            )


def _settle_sampling(options: dict[str, Any]) -> None:
    """``--temperature 0.8`` asks for sampling, ``--temperature 0`` for greedy search."""
    given = [name for name in SAMPLING if options.get(name) is not None]
    if options.get("temperature") == 0 and not isinstance(options["temperature"], bool):
        others = [name for name in given if name != "temperature"]
        if options.get("do_sample") or others:
            asked = "--do-sample" if options.get("do_sample") else flag_of(others[0])
            raise UsageError(
                f"--temperature 0 together with {asked}",
                why="at temperature 0 there is nothing to draw: it means greedy search",
                fix=f"--greedy alone, or {asked} with a temperature above 0",
            )
        del options["temperature"]
        options["do_sample"] = False
        return
    if not given:
        return
    if options.get("do_sample") is False:
        raise UsageError(
            f"--greedy together with {flag_of(given[0])}",
            why=f"greedy search takes the most likely token; {flag_of(given[0])} would be ignored",
            fix=f"leave out --greedy, or {flag_of(given[0])}",
        )
    options["do_sample"] = True


def _check_limit(options: Mapping[str, Any]) -> None:
    """Without an end of text there has to be another one."""
    if options.get("eos_token_id") is not None:
        raise UsageError(
            "--ignore-eos together with -g eos_token_id=", why="one says never to stop at it", fix="leave one out"
        )
    if options.get("max_new_tokens") is None and options.get("max_length") is None:
        raise UsageError("--ignore-eos without a limit", why="nothing would end the text", fix="--max-new-tokens 100")
