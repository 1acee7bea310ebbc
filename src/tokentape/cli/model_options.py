"""Which model a tape is replayed on: the one it names, unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tokentape.cli.sections import in_section

__all__ = ["MODEL_NAMES", "model_options"]

_model = partial(in_section, "Model")

MODEL_NAMES = ("dtype", "device", "revision", "attn_implementation", "trust_remote_code", "random_weights")
"""Options that go to the loading of the model."""

_OPTIONS = [
    _model("--model", metavar="NAME", help="A hub id, a folder, `demo`; unless given, the one that the tape names."),
    _model("--dtype", metavar="TYPE", help="auto, float32, bfloat16, float16; unless given, as recorded."),
    _model("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps."),
    _model("--revision", metavar="REV", help="Branch, tag or commit on the hub."),
    _model("--attn-implementation", metavar="NAME", help="eager, sdpa, ...; default: transformers' own choice."),
    _model("--trust-remote-code", is_flag=True, help="Let the model run code of its own."),
    _model("--random-weights", type=int, metavar="SEED", help="Weights of a bare config.json, as record drew them."),
]


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """All of them, on one command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
