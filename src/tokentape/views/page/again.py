"""The command that records the same again, put together from what a tape says of its request."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokentape.views.drawing import drawn_text

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import RecordedRun, Trace

__all__ = ["record_command"]

_TEXT = 400
"""Characters of a prompt up to which it stands in the command itself."""

_IDS = 200
"""The same for ids, where there is no text."""

_FLAGS = {
    "min_new_tokens": "--min-new-tokens",
    "repetition_penalty": "--repetition-penalty",
    "no_repeat_ngram_size": "--no-repeat-ngram-size",
    "num_return_sequences": "--num-return-sequences",
    "window": "--window",
    "sinks": "--sinks",
}

_SAMPLING = {
    "temperature": "-t",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "min_p": "--min-p",
    "typical_p": "--typical-p",
}

_DEFAULTS: Mapping[str, Any] = {
    "max_length": None,  # follows from max_new_tokens and the prompt
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "decoder_start_token_id": None,
    "min_length": 0,
    "use_cache": True,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "num_return_sequences": 1,
    "num_beams": 1,
}
"""Options of ``generate()`` that need no word where they have these values; None: whatever they are."""

_OBJECTS = ("stopping_criteria", "logits_processor", "prefix_allowed_tokens_fn", "sequence_bias", "streamer", "rules")
"""Options whose values a program made; of them a tape has the names."""

_OWN = frozenset({"grammar", "guidance", "contrast", "steering", "guard"})
"""Rules that were made of something that a tape does not keep: files, phrases, other models."""

_OTHER = frozenset({"score", "classify", "sweep"})
"""What other commands note of a run among its options: ``record`` would not do the same."""


def record_command(tape: Tape, *, exact: bool = False) -> str | None:
    """``tokentape record MODEL PROMPT ...``, quoted for a shell; with ``exact`` also type, device and threads as they were.

    None where no such command says it all: another engine than transformers, several runs, text that was given and not generated,
    a program's own prompts, rules that are made of more than a tape keeps, a tape without its words. A
    prompt that is long stands in a file that the reader names.
    """
    facts = tape.setting.facts
    if facts.get("engine") != "transformers" or len(tape.runs) != 1 or not tape.notes.get("text", True):
        return None
    run = tape.runs[0]
    if any(rule.name in _OWN for rule in run.rules) or _OTHER & run.options.keys():
        return None
    model, load = _model(facts)
    prompt = _prompt([trace for trace in tape.traces if trace.run.number == run.number], run)
    options = _options(run)
    if model is None or prompt is None or options is None:
        return None
    where = [*load, *(_machine(facts) if exact else [])]
    words = ["tokentape", "record", model, *where, *options, *prompt]
    if model.startswith("-") or any(drawn_text(word, keep="\n\t") != word for word in words):
        return None  # it is to be copied into a terminal, which a control character in it would steer
    return " ".join(shlex.quote(word) for word in words)


def _model(facts: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    name, path = facts.get("model"), facts.get("model_path")
    named = name == "demo" or path is None or "/" in str(name)
    model = name if named else path
    if facts.get("random_weights") is not None:
        return None if model is None else str(model), ["--random-weights", str(facts["random_weights"])]
    revision = facts.get("revision")
    return None if model is None else str(model), ["--revision", str(revision)] if revision else []


def _machine(facts: Mapping[str, Any]) -> list[str]:
    words = []
    for flag, name in (("--dtype", "dtype"), ("--device", "device"), ("--attn-implementation", "attn_implementation")):
        value = facts.get(name)
        if isinstance(value, str) and "+" not in value:
            words += [flag, value]
    if facts.get("device") == "cpu" and facts.get("torch_threads"):
        words += ["--threads", str(facts["torch_threads"])]
    return words


def _options(run: RecordedRun) -> list[str] | None:
    """The flags for the options of the run; None where one of them was left out of the tape."""
    options, words = dict(run.options), []
    if (limit := options.pop("max_new_tokens", None)) is not None:
        words += ["-n", str(limit)]
    if "eos_token_id" not in options:
        words.append("--ignore-eos")
    if options.pop("do_sample", False):
        words.append("--do-sample")
        for name, flag in _SAMPLING.items():
            if name in options and options[name] not in (None, _DEFAULTS[name]):
                words += [flag, str(options[name])]
        if run.seed is not None:
            words += ["--seed", str(run.seed)]
    else:
        words.append("--greedy")
    for name in _SAMPLING:
        options.pop(name, None)
    stops = options.pop("stop_strings", None) or []
    for text in [stops] if isinstance(stops, str) else stops:
        words += ["--stop", text]
    objects = {name: options.pop(name, None) for name in _OBJECTS}
    if [value for value in objects.values() if value not in (None, [], ["StopStringCriteria"] if stops else [])]:
        return None
    for name, value in options.items():
        default = name in _DEFAULTS and _DEFAULTS[name] in (None, value)
        if value is None or default:
            continue
        if isinstance(value, str) and value.endswith("left out"):
            return None
        words += [_FLAGS[name], str(value)] if name in _FLAGS else ["-g", f"{name}={json.dumps(value)}"]
    return words


def _prompt(traces: list[Trace], run: RecordedRun) -> list[str] | None:
    """The prompt as arguments, at the end of the command."""
    each = int(run.options.get("num_return_sequences") or 1)
    if not traces:
        return None
    if len(traces) > each:
        return ["--prompts", "PROMPTS.jsonl"]
    text, ids = traces[0].prompt_text, traces[0].prompt_ids
    if text == "":
        return ["--bos"] if ids is not None and len(ids) else None
    if text is not None and len(text) <= _TEXT and text != "-" and drawn_text(text, keep="\n\t") == text:
        return ["--", text] if text.startswith("-") else [text]
    if text is not None and len(text) > _TEXT:
        return ["-f", "PROMPT.txt"]
    if ids is not None and 0 < len(ids) <= _IDS:
        return ["--prompt-ids", ",".join(str(token_id) for token_id in ids.tolist())]
    return None
