"""Options of ``generate()``: what is contradictory, what has to be prepared, what is written down."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from typing import Any

from tokentape.errors import UnsupportedDecoding, UsageError

__all__ = ["check_options", "for_the_record", "prepare_stop_strings", "refuse_unsupported"]

_UNSUPPORTED = {
    "assistant_model": "assisted decoding",
    "prompt_lookup_num_tokens": "assisted decoding by prompt lookup",
    "penalty_alpha": "contrastive search",
    "dola_layers": "DoLa decoding",
    "custom_generate": "a custom decoding method",
    "synced_gpus": "decoding in step with other processes (synced_gpus)",
}
"""Options that choose another way of decoding. What a generation configuration chooses is refused by the loop."""

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")

_RANGES: dict[str, tuple[str, Any]] = {
    "max_new_tokens": ("at least 1", lambda value: value >= 1),
    "max_length": ("at least 1", lambda value: value >= 1),
    "min_new_tokens": ("at least 0", lambda value: value >= 0),
    "min_length": ("at least 0", lambda value: value >= 0),
    "temperature": ("more than 0", lambda value: value > 0),
    "top_k": ("at least 0", lambda value: value >= 0),
    "top_p": ("in (0, 1]", lambda value: 0 < value <= 1),
    "min_p": ("in [0, 1]", lambda value: 0 <= value <= 1),
    "typical_p": ("in (0, 1]", lambda value: 0 < value <= 1),
    "repetition_penalty": ("more than 0", lambda value: value > 0),
    "no_repeat_ngram_size": ("at least 0", lambda value: value >= 0),
    "num_return_sequences": ("at least 1", lambda value: value >= 1),
    "max_time": ("more than 0", lambda value: value > 0),
}


def refuse_unsupported(options: Mapping[str, Any], instead: str = "") -> None:
    """Raise UnsupportedDecoding for an option whose steps do not yield tokens that stay; ``instead`` ends the advice."""
    found = {name: method for name, method in _UNSUPPORTED.items() if options.get(name)}
    if (options.get("num_beams") or 1) != 1:
        found["num_beams"] = "beam search"
    if options.get("cache_implementation") == "paged":
        found["cache_implementation"] = "continuous batching (the paged cache)"
    for name, method in found.items():
        raise UnsupportedDecoding(
            f"{method} is not recorded",
            why="a step of it does not yield tokens that stay; only greedy search and sampling do so far",
            fix=f"leave out {name}{instead}",
        )


def check_options(options: Mapping[str, Any], default: Any = None) -> None:
    """Refuse what is out of range or contradicts itself, with what to write instead.

    transformers lets most of these pass with a warning, or ignores them. ``default`` is the model's own generation
    configuration, which holds where the options say nothing.
    """
    for name, (allowed, holds) in _RANGES.items():
        value = options.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(
                f"{name}={value!r} is no number", why=f"{name} must be {allowed}", fix=f"give a number {allowed}"
            )
        if not holds(value):
            fix = "for greedy search leave it out" if name == "temperature" else f"give a value {allowed}"
            raise UsageError(f"{name}={value} is out of range", why=f"{name} must be {allowed}", fix=fix)
    least, most = options.get("min_new_tokens"), options.get("max_new_tokens")
    if least is not None and most is not None and least > most:
        raise UsageError(
            f"min_new_tokens={least} is more than max_new_tokens={most}",
            why="no length satisfies both",
            fix="lower one",
        )
    _check_sampling(options, default)


def _check_sampling(options: Mapping[str, Any], default: Any) -> None:
    config = options.get("generation_config") or default
    sampled = options.get("do_sample")
    if sampled is None:
        sampled = getattr(config, "do_sample", None)
    if sampled:
        return
    given = [name for name in _SAMPLING if options.get(name) is not None]
    if given:
        raise UsageError(
            f"{', '.join(given)} without sampling",
            why="greedy search takes the most likely token, so this would be ignored",
            fix="do_sample=True, or leave it out",
        )
    n_returned, n_beams = options.get("num_return_sequences") or 1, options.get("num_beams") or 1
    if n_returned > 1 and n_beams == 1:
        raise UsageError(
            f"num_return_sequences={n_returned} without sampling",
            why="greedy search gives the same sequence every time",
            fix="do_sample=True",
        )


def prepare_stop_strings(
    options: Mapping[str, Any], tokenizer: Any, default: Any
) -> tuple[dict[str, Any], list[str] | None]:
    """The options with stop strings turned into a stopping criterion, and the stop strings that hold.

    ``generate()`` builds that criterion from ``tokenizer=``, which it does not pass on when it is given a
    ``custom_generate`` callable (transformers 5.17 to 5.23), and then refuses. ``default`` is the model's own generation
    configuration, whose stop strings hold when the call gives none.
    """
    prepared = dict(options)
    tokenizer = prepared.pop("tokenizer", None) or tokenizer
    wanted = prepared.pop("stop_strings", None)
    for config in (prepared.get("generation_config"), default):
        wanted = wanted if wanted is not None else getattr(config, "stop_strings", None)
    if not wanted:
        return prepared, None
    if tokenizer is None:
        raise UsageError("stop strings need a tokenizer", why="none came with this model", fix="pass tokenizer=...")
    from transformers import StoppingCriteriaList, StopStringCriteria

    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    criteria = StoppingCriteriaList(prepared.get("stopping_criteria") or [])
    criteria.append(StopStringCriteria(tokenizer=tokenizer, stop_strings=wanted))
    prepared["stopping_criteria"] = criteria
    config = prepared.get("generation_config")
    if config is not None:
        prepared["generation_config"] = copy.deepcopy(config)
        prepared["generation_config"].stop_strings = None
    if default is not None and default.stop_strings:
        prepared["stop_strings"] = None  # overrides the model's own, which the criterion now stands for
    return prepared, wanted


_IRRELEVANT = (
    "_", "transformers_version", "early_stopping", "length_penalty", "diversity_penalty", "num_beam", "num_assistant",
    "assistant_", "target_lookbehind", "output_", "return_dict", "encoder_", "is_assistant",
)  # fmt: skip
"""What the configuration says of other decoding methods, and of what the caller wants back."""


_OBJECTS = ("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "negative_prompt_ids")
"""Options that are objects: that they were given is written down, by their names."""


def for_the_record(config: Any, stop_strings: list[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The generation configuration that held, as JSON-able values: what was asked for and what was filled in.

    Of rules and criteria that were ``given`` as objects the names are kept.
    """
    # not to_diff_dict(): that copies deeply and compares, a millisecond in which the model could have worked
    kept = {
        name: _plain(value)
        for name, value in vars(config).items()
        if value is not None and not name.startswith(_IRRELEVANT)
    }
    if stop_strings:
        kept["stop_strings"] = stop_strings
    for name in _OBJECTS:
        value = given.get(name)
        if value is not None:
            objects = value if isinstance(value, list) else [value]
            kept[name] = [_name_of(found) for found in objects]
    return kept


def _name_of(found: Any) -> str:
    """The name that a rule has, or a function, or else a class."""
    return str(getattr(found, "name", getattr(found, "__name__", type(found).__name__)))


def _plain(value: Any) -> Any:
    """The value where JSON can hold it, else what it looks like."""
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
    return value
