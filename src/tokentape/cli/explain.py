"""``tokentape explain``: why these tokens?"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from tokentape.cli.completion import complete_tapes
from tokentape.cli.explain_many import explain_many, means_many, set_threads
from tokentape.cli.explain_more import evaluate, reading, report_reading
from tokentape.cli.output import document, json_option, print_document, print_lines
from tokentape.cli.ray_options import RAY_OPTIONS
from tokentape.cli.replaying import checked_replay, loaded_model, model_options, progress_line, uncollected
from tokentape.cli.sections import SectionedCommand, in_section, with_all
from tokentape.cli.sequences import chosen_sequences
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.data.explanation import Explanation
    from tokentape.data.reading import Reading, ReadingKind
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace
    from tokentape.explain.explaining import Asked
    from tokentape.explain.replay import Replay
    from tokentape.models.causal import CausalModel

__all__ = ["command"]

EPILOG = """\b
Examples:
  tokentape explain cat.tape                             # the first token that was generated
  tokentape explain cat.tape --step 3 --top 20
  tokentape explain cat.tape --against floor             # why mat and not floor?
  tokentape explain cat.tape --span 0..4 --by word       # some steps as one answer, its sources words
  tokentape explain cat.tape --all --method attn_lrp
  tokentape explain corpus.tape --ray --ray-workers 8    # every sequence, shared among workers
  tokentape explain cat.tape --attention --all           # where it looked before each token
  tokentape explain cat.tape --lens                      # what each layer would have said
  tokentape explain cat.tape --evaluate                  # which method tells the truth about this tape?
"""

OTHER_ANSWERS: dict[ReadingKind | Literal["evaluate"], tuple[str, ...]] = {
    "attention": ("against", "kind", "method", "pairs", "by"),
    "lens": ("against", "kind", "method", "pairs", "by", "top"),
    "direct": ("method", "pairs", "by", "top"),
    "evaluate": ("pairs", "top"),
}
"""Flags that ask for another answer than what a target rests on, and the options that say nothing there."""

TOLD_NS = 5_000_000_000
"""From which expected time on a command says beforehand what it will take."""

QUICK = "saliency"
"""The method without a patent that finds most for few passes."""

_target = partial(in_section, "Target")
_answer = partial(in_section, "Answer")


@click.command("explain", cls=SectionedCommand, epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path), shell_complete=complete_tapes)
@_target("--trace", type=int, default=0, show_default=True, metavar="N", help="The sequence.")
@_target("--every-trace", is_flag=True, help="Every sequence, each by itself.")
@_target("--step", type=int, metavar="N", help="The step whose token is asked about; the first unless given.")
@_target("--position", type=int, metavar="P", help="The same by the token's position, as `show` lists it.")
@_target("--span", metavar="A..B", help="Tokens of these steps, as one answer.")
@_target("--all", "every", is_flag=True, help="Every generated token.")
@_target("--against", metavar="TOKEN", help="Why not this token instead? A text of one token.")
@_target(
    "--target", "kind", type=click.Choice(["logit", "logprob"]), default="logit", show_default=True,
    help="Its logit above the mean of the vocabulary, or its log-probability.",
)  # fmt: skip
@_answer("--method", metavar="NAME", help="How; `--method list` says which there are.")
@_answer(
    "--by", type=click.Choice(["token", "word", "sentence", "part"]), default="token", show_default=True,
    help="What the answer is shared out among.",
)  # fmt: skip
@_answer("--top", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="Sources shown.")
@_answer("--option", "pairs", multiple=True, metavar="NAME=VALUE", help="An option of the method (repeatable).")
@_answer("--unchecked", is_flag=True, help="Explain a replay that does not agree with the tape; the answer says so.")
@_answer("--no-save", is_flag=True, help="Do not keep the answer in FILE.")
@_answer("--evaluate", is_flag=True, help="Hold the methods against this tape: does what they name matter?")
@_answer("--attention", is_flag=True, help="Where the model looked, by layer.")
@_answer("--lens", is_flag=True, help="What each layer would have said: the logit lens.")
@_answer("--direct", is_flag=True, help="What each block's attention, heads and perceptron added to the value.")
@model_options
@in_section("Model", "--threads", type=click.IntRange(min=1), metavar="N", help="Threads of torch on the CPU.")
@with_all(*RAY_OPTIONS)
@json_option
def command(file: Path, as_json: bool, **given: Any) -> None:
    """Say why the tokens of FILE were chosen: what each rests on.

    FILE is a tape. Its ids are played through the model once more, and the replay is checked against the recorded
    log-probabilities; one that disagrees is not explained unless you insist. The answer is kept in FILE (what --evaluate
    measures is not).

    Every method answers another question; what each can and cannot prove is in docs/explanation/relevance.md.
    """
    if given["method"] == "list":
        _list_methods(as_json)
        return
    from tokentape.data.explanation import Explanation
    from tokentape.data.tape import open_tape

    set_threads(given)
    if means_many(given):
        explain_many(file, lambda trace: _asked(trace, given), given, as_json=as_json)
        return
    other = next((name for name in OTHER_ANSWERS if given[name]), None)
    if other is not None:
        _refuse_idle_options(other)
    with open_tape(file) as tape:
        (trace,) = chosen_sequences(tape, file, (given["trace"],))
        with uncollected():
            asked = _asked(trace, given)  # what cannot be answered is refused before a model is loaded
            causal = loaded_model(tape, given, quiet=as_json)
        found: Explanation | Reading
        if other == "evaluate":
            evaluate(tape, trace, causal, asked, given, as_json=as_json)
            return
        if other is not None:
            found = reading(other, tape, trace, causal, asked, given, quiet=as_json)
        else:
            found = _explained(tape, trace, causal, asked, given, quiet=as_json)
    kept = None if given["no_save"] else _kept(file, found)
    if isinstance(found, Explanation):
        _report(file, found, kept, causal, given, as_json=as_json)
    else:
        report_reading(file, found, kept, given, as_json=as_json)


def _refuse_idle_options(other: ReadingKind | Literal["evaluate"]) -> None:
    """Refuse what was given on the command line and would change nothing."""
    context = click.get_current_context()
    flags = {option.name: option.opts[0] for option in context.command.params}
    for name in OTHER_ANSWERS[other]:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{flags[name]} together with --{other}",
                why=f"--{other} is another answer, which it would not change",
                fix=f"leave {flags[name]} out, or --{other}",
            )


def _asked(trace: Trace, given: dict[str, Any]) -> Asked:
    from tokentape.cli.generation import parse_pairs
    from tokentape.explain.explaining import DEFAULT_METHOD, Asked
    from tokentape.explain.methods import method_named

    method = method_named(given["method"] or DEFAULT_METHOD)
    return Asked(
        targets=_targets(trace, given),
        method=method.name,
        kind=given["kind"],
        against=given["against"],
        by=given["by"],
        together=given["span"] is not None,
        options=parse_pairs(given["pairs"], "--option", "NAME=VALUE", "steps=64"),
    )


def _targets(trace: Trace, given: dict[str, Any]) -> tuple[int, ...]:
    from tokentape.explain.explaining import positions_of

    several = [f"--{name}" for name in OTHER_ANSWERS if given[name]]
    if len(several) > 1:
        raise UsageError(f"{' together with '.join(several)}", why="each is an answer of its own", fix="ask for one")
    ways = [name for name in ("step", "position", "span") if given[name] is not None] + ["all"] * given["every"]
    if len(ways) > 1:
        raise UsageError(
            f"--{ways[0]} together with --{ways[1]}", why="each says which tokens are meant", fix="leave one out"
        )
    every = positions_of(trace, None)
    if given["step"] is not None:
        return positions_of(trace, given["step"])
    if given["position"] is not None:
        if given["position"] not in every:
            raise UsageError(
                f"no token was generated at position {given['position']}",
                why=f"those of sequence {trace.number} are at positions {every[0]} to {every[-1]}",
                fix=f"--position {min(max(given['position'], every[0]), every[-1])}",
            )
        return (given["position"],)
    if given["span"] is not None:
        return positions_of(trace, _span(given["span"], trace))
    return every if given["every"] or given["evaluate"] or given["lens"] else every[:1]


def _span(text: str, trace: Trace) -> list[int]:
    first, dots, last = text.partition("..")
    steps = sorted(set(trace.tokens["step"].data.tolist()))
    try:
        start, stop = int(first or steps[0]), int(last or steps[-1])
    except ValueError:
        start, stop = 1, 0
    if not dots or stop < start:
        raise UsageError(
            f"--span {text}: no range of steps", why="a span is its first and its last step", fix="--span 0..4"
        )
    for end in (start, stop):
        if end not in steps:
            raise UsageError(
                f"--span {text}: no step {end} gave a token",
                why=f"the tokens of sequence {trace.number} come from steps {steps[0]} to {steps[-1]}",
                fix=f"--span {max(start, steps[0])}..{min(stop, steps[-1])}",
            )
    return [step for step in steps if start <= step <= stop]


def _explained(
    tape: Tape, trace: Trace, causal: CausalModel, asked: Asked, given: dict[str, Any], *, quiet: bool
) -> Explanation:
    from tokentape.explain.explaining import answered

    began = time.monotonic_ns()
    replay = checked_replay(tape, trace, causal, unchecked=given["unchecked"], quiet=quiet)
    if not quiet:
        _tell_cost(asked, replay, time.monotonic_ns() - began)
    with progress_line(f"explaining by {asked.method}", "passes", quiet=quiet) as progress:
        return answered(trace, replay, asked, progress=progress)


def _tell_cost(asked: Asked, replay: Replay, check_ns: int) -> None:
    """Say on stderr what the answer will take at most, before it is spent.

    ``check_ns`` is what the check took just now: as long as a pass, or longer where it was the first. Where that would make
    the answer long, a pass is timed by itself.
    """
    from tokentape.explain.methods import METHODS
    from tokentape.views.screen import Screen
    from tokentape.views.units import duration

    rows, tokens = 1 if asked.together else len(asked.targets), asked.targets[-1]
    forward, backward = METHODS[asked.method].passes(rows, tokens, tokens)
    n_passes = forward + 2 * backward  # a pass backward costs about as much as two forward
    if check_ns * n_passes < TOLD_NS:
        return
    expected_ns = min(check_ns, _pass_ns(replay, asked.targets[-1])) * n_passes
    if expected_ns >= TOLD_NS:
        screen = Screen.of(sys.stderr)
        told = {"method": asked.method, "forward": forward, "backward": backward, "time": duration(expected_ns)}
        cost = screen.say("live.cost", **told)
        quick = sum(METHODS[QUICK].passes(rows, tokens, tokens))
        if n_passes > 10 * quick:
            cost = screen.say("live.cost_instead", cost=cost, method=QUICK, n=quick)
        click.echo(screen.safe(cost), err=True)


def _pass_ns(replay: Replay, position: int) -> int:
    """What a pass takes: the shortest of three, or of as many as a second holds, since other work on the machine only adds."""
    import torch

    from tokentape.explain.replay import Passes

    uncounted = replace(replay, passes=Passes())
    took: list[int] = []
    while len(took) < 3 and sum(took) < 1e9:
        began = time.monotonic_ns()
        with torch.no_grad():
            uncounted.logits([position])
        took.append(time.monotonic_ns() - began)
    return min(took)


def _kept(file: Path, found: Explanation | Reading) -> int | None:
    """Its number in the tape; None, said on stderr, where the tape cannot be written to: the answer is not lost for that."""
    from tokentape.data.annex import add_explanations, add_readings
    from tokentape.data.explanation import Explanation
    from tokentape.errors import TokentapeError
    from tokentape.views.screen import Screen
    from tokentape.words.refusals import refusal

    try:
        if isinstance(found, Explanation):
            return add_explanations(file, [found])[0]
        return add_readings(file, [found])[0]
    except TokentapeError as error:
        screen = Screen.of(sys.stderr)
        what, why = (refusal(text, screen.lang) for text in (error.what, error.why))
        click.echo(screen.safe(screen.say("live.not_kept", file=str(file), what=what, why=why)), err=True)
        return None


def _report(
    file: Path, found: Explanation, kept: int | None, causal: CausalModel, given: dict[str, Any], *, as_json: bool
) -> None:
    from tokentape.explain.methods import METHODS
    from tokentape.views.explanation_text import explanation_document, explanation_text
    from tokentape.views.screen import Screen

    name_of = namer(causal)
    if as_json:
        told = {**explanation_document(found, name_of), "number": kept}
        print_document(document("explain", tape=str(file), explanation=told))
        return
    screen = Screen.of(sys.stdout)
    print_lines(explanation_text(found, screen, name_of, METHODS[found.method].meaning, top=given["top"]))
    if sys.stdout.isatty():
        screen = Screen.of(sys.stderr)
        click.echo(screen.safe(screen.say("live.next_explain", file=str(file))), err=True)


def namer(causal: CausalModel) -> Any:
    """Drawn names of vocabulary ids, by the model's own pieces."""
    from tokentape.views.drawing import drawn_text, drawn_tokens, quoted

    def name_of(token_id: int) -> str:
        piece = causal.pieces.piece(token_id)
        if piece.special or not piece.bytes:
            return drawn_text(piece.token)
        return quoted(drawn_tokens([piece.bytes])[0] or "")

    return name_of


def _list_methods(as_json: bool) -> None:
    from tokentape.explain.explaining import DEFAULT_METHOD
    from tokentape.explain.methods import METHODS
    from tokentape.views.screen import Screen, columns
    from tokentape.words.retold import retold

    if as_json:
        methods = [
            {"name": m.name, "meaning": m.meaning, "additive": m.additive, "default": m.name == DEFAULT_METHOD}
            for m in METHODS.values()
        ]
        print_document(document("explain", methods=methods))
        return
    screen = Screen.of(sys.stdout)
    rows = [
        [
            screen.say("explanation.default", method=m.name) if m.name == DEFAULT_METHOD else m.name,
            retold(m.meaning, screen.lang, "explanation.meaning"),
        ]
        for m in METHODS.values()
    ]
    header = [screen.say(f"explanation.{name}") for name in ("method", "how")]
    print_lines("\n".join(screen.safe(line) for line in columns(screen, header, rows, "<<")))
