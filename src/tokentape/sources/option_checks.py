"""Options of ``generate()``: what is out of range, contradictory, or not recorded at all; known without a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokentape.errors import UnsupportedDecoding, UsageError

__all__ = ["check_options", "refuse_unsupported"]

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
            fix="--do-sample, or leave it out; in Python do_sample=True",
        )
    n_returned, n_beams = options.get("num_return_sequences") or 1, options.get("num_beams") or 1
    if n_returned > 1 and n_beams == 1:
        raise UsageError(
            f"num_return_sequences={n_returned} without sampling",
            why="greedy search gives the same sequence every time",
            fix="--do-sample instead of --greedy; in Python do_sample=True",
        )
