"""The options of ``tokentape record``, in the sections of its help page."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.control_options import CONTROL_OPTIONS
from tokentape.cli.endpoint_options import ENDPOINT_OPTIONS
from tokentape.cli.live_page import live_options
from tokentape.cli.load_options import TRAFFIC_OPTIONS
from tokentape.cli.output import json_option
from tokentape.cli.report import report_option
from tokentape.cli.sections import in_section, with_all

__all__ = ["EPILOG", "GENERATION_FLAGS", "LOAD_NAMES", "LOAD_OPTIONS", "MODEL_OPTIONS", "with_options"]

_FILE = click.Path(path_type=Path)
_prompt = partial(in_section, "Prompt")
_model = partial(in_section, "Model")
_generation = partial(in_section, "Generation")
_recording = partial(in_section, "Recording")

GENERATION_FLAGS = (
    "max_new_tokens",
    "min_new_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "num_return_sequences",
    "num_beams",
)
"""Flags that carry the name of an option of generate()."""

EPILOG = """\b
Examples:
  tokentape record demo "The fox" --max-new-tokens 60
  tokentape record ./my-model -f prompt.txt --temperature 0.8 --seed 1 > continuation.txt
  tokentape record ./my-model "A cat, as JSON:" --json-schema cat.json --compact
  tokentape record ./my-model --prompts questions.jsonl --max-new-tokens 200 -o batch.tape
  tokentape record config.json --random-weights 0 --prompt-tokens 512 --ignore-eos --max-new-tokens 64
  tokentape record --endpoint http://127.0.0.1:8000/v1 "The fox" --max-new-tokens 60
"""


_PROMPT = [
    _prompt("-f", "--file", type=_FILE, metavar="FILE", help="Read one prompt from FILE, without its last line end."),
    _prompt("--prompts", type=_FILE, metavar="FILE", help='A batch: one prompt a line; in .jsonl {"prompt": ...}.'),
    _prompt("--prompt-ids", metavar="1,2,3", help="Token ids instead of text."),
    _prompt(
        "--prompt-tokens",
        type=click.IntRange(min=1),
        metavar="N",
        help="N random ids, to time an architecture; --seed chooses them.",
    ),
    _prompt(
        "--bos/--no-bos", default=None, help="Begin with the beginning-of-text token; alone: start from nothing else."
    ),
]

LOAD_NAMES = ("dtype", "device", "revision", "attn_implementation", "trust_remote_code", "random_weights")
"""Options that go to the loading of a model."""

LOAD_OPTIONS = [
    _model("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps."),
    _model("--revision", metavar="REV", help="Branch, tag or commit on the hub."),
    _model("--attn-implementation", metavar="NAME", help="eager, sdpa, ...; default: transformers' own choice."),
    _model("--trust-remote-code", is_flag=True, help="Let the model run code of its own. Off, and never asked for."),
    _model(
        "--random-weights",
        type=int,
        metavar="SEED",
        help="Random weights: MODEL is a config.json or a folder with one.",
    ),
]
"""All of them but ``--dtype``, which is told in other words where a tape says what it was."""

MODEL_OPTIONS = [
    _model("--dtype", default="auto", show_default=True, metavar="TYPE", help="auto, float32, bfloat16, float16."),
    *LOAD_OPTIONS,
    _model("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of torch on the CPU."),
]

_PARALLEL = [
    _model("--tp-plan", metavar="auto", help="Under torchrun: each rank holds a part of every layer; rank 0 records."),
]

_GENERATION = [
    _generation("--max-new-tokens", "-n", type=int, metavar="N", help="Default: the model's own limit, else 20."),
    _generation("--min-new-tokens", type=int, metavar="N", help="No end of text before N tokens."),
    _generation("--ignore-eos", is_flag=True, help="Go on to the limit whatever the model says."),
    _generation("--do-sample/--no-do-sample", default=None, help="Draw tokens from the distribution."),
    _generation("--greedy", is_flag=True, help="Take the likeliest token; the same as --no-do-sample."),
    _generation("--temperature", "-t", type=float, metavar="X", help="Asks for sampling; 0 asks for greedy search."),
    _generation(
        "--top-k", type=int, metavar="K", help="Draw from the K likeliest. This and the next three ask for sampling."
    ),
    _generation("--top-p", type=float, metavar="P", help="Nucleus sampling, in (0, 1]."),
    _generation("--min-p", type=float, metavar="P", help="At least P times the likeliest, in [0, 1]."),
    _generation("--typical-p", type=float, metavar="P", help="Locally typical sampling, in (0, 1]."),
    _generation("--repetition-penalty", type=float, metavar="X", help="Above 1 discourages repetition."),
    _generation("--no-repeat-ngram-size", type=int, metavar="N", help="No N tokens in a row twice."),
    _generation("--bad-words", multiple=True, metavar="TEXT", help="Never say TEXT (repeatable)."),
    _generation("--stop", multiple=True, metavar="TEXT", help="Stop after TEXT (repeatable)."),
    _generation("--num-return-sequences", type=int, metavar="N", help="N sequences for each prompt."),
    _generation("--num-beams", type=int, metavar="N", help="Only 1: beam search is not recorded."),
    _generation(
        "--seed",
        type=int,
        metavar="N",
        help="Seed of the random generators; without it one is drawn, and kept on the tape.",
    ),
    _generation(
        "-g", "pairs", multiple=True, metavar="KEY=VALUE", help="Any other option of generate(); VALUE is JSON."
    ),
]

_RECORDING = [
    _recording(
        "-o",
        "--output",
        type=_FILE,
        metavar="PATH",
        shell_complete=complete_tapes,
        help="The tape. Default: MODEL-DATE-TIME.tape in $TOKENTAPE_DIR, else here.",
    ),
    _recording("--overwrite", is_flag=True, help="Replace a tape that is already there."),
    _recording(
        "--probe",
        type=click.Choice(["timing", "distribution"]),
        default="distribution",
        show_default=True,
        help="timing leaves out what the model believed.",
    ),
    _recording(
        "--candidates",
        type=click.IntRange(min=0),
        default=5,
        show_default=True,
        metavar="K",
        help="Keep the K likeliest tokens of each step.",
    ),
    report_option,
    *live_options,
    _recording("--text/--no-text", default=True, help="--no-text leaves prompt and output out of the tape."),
    _recording("--quiet", "-q", is_flag=True, help="No progress and no figures on stderr."),
    json_option,
]

with_options = with_all(
    *_PROMPT,
    *MODEL_OPTIONS,
    *_PARALLEL,
    *ENDPOINT_OPTIONS,
    *TRAFFIC_OPTIONS,
    *_GENERATION,
    *CONTROL_OPTIONS,
    *_RECORDING,
)
"""All options of the command."""
