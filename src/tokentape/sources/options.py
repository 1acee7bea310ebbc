"""Options of ``generate()``: what has to be prepared, what is written down."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from typing import Any

from tokentape.errors import UsageError

__all__ = ["for_the_record", "prepare_stop_strings"]


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
