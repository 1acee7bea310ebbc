"""``tokentape record``: let a model generate, and keep every step."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.control_options import biases_of, rules_of, window_of
from tokentape.cli.endpoint_options import refuse_endpoint
from tokentape.cli.failure import INTERRUPTED
from tokentape.cli.generation import options_given
from tokentape.cli.live_page import live_page
from tokentape.cli.load_options import refuse_load
from tokentape.cli.output import document, print_document, print_lines
from tokentape.cli.preparation import inode, loaded, refuse_taken, tape_place
from tokentape.cli.prompts import Asked, read_prompt
from tokentape.cli.record_options import EPILOG, GENERATION_FLAGS, LOAD_NAMES, with_options
from tokentape.cli.report import refuse_report, reported
from tokentape.cli.sections import SectionedCommand
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

Recording = Callable[[Callable[[Any], None]], "Tape"]
"""Records a tape, and tells an observer how far it has come."""

__all__ = ["Plan", "Recording", "command", "make_plan", "request_of", "source_of"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that was asked for, checked, before a model is touched."""

    model: str
    load: dict[str, Any]
    asked: Asked
    prompt: Any
    options: dict[str, Any]
    bad_words: tuple[str, ...]
    biases: dict[str, float]
    chat: bool
    system: str | None
    ignore_eos: bool
    path: Path
    keep: dict[str, Any]
    threads: int | None


@click.command("record", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model", required=False)
@click.argument("prompt", nargs=-1)
@with_options
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Let MODEL continue PROMPT, and record every step and token.

    MODEL is a hub id (also id@revision), a local folder, or demo. PROMPT - reads stdin. With --endpoint the model is one that
    somebody else serves, and there is no MODEL: tokentape record --endpoint URL PROMPT.

    The continuation goes to stdout, exactly as generated, and one line end; figures and progress go to stderr. Several
    sequences are headed ==> 0 <==, ==> 1 <==, ... Ctrl-C keeps what was recorded; a second one quits at once.
    """
    if given["endpoint"] is not None:
        from tokentape.cli.record_endpoint import endpoint_recording

        path, doing, record = endpoint_recording(ctx, given)
    elif given["tp_plan"] is not None:
        from tokentape.cli.record_parallel import parallel_recording

        path, doing, record = parallel_recording(ctx, given)
    else:
        path, doing, record = _local_recording(given)
    if record is None:
        return
    with live_page(path, given) as page:
        tape, interrupted = _recorded(path, doing, record, quiet=given["quiet"] or given["as_json"])
        if tape is None:
            click.echo("interrupted; nothing was recorded", err=True)
            if given["as_json"]:
                print_document(document("record", tape=None, state=None, interrupted=True))
            ctx.exit(INTERRUPTED)
        with tape:
            _report(tape, given, interrupted)
        if interrupted:
            ctx.exit(INTERRUPTED)
        if page is not None:
            page.stay()


def _local_recording(given: dict[str, Any]) -> tuple[Path, str, Recording]:
    """Where the tape goes, what is done first, and what records it, with a model in this process."""
    plan = make_plan(given)
    return plan.path, f"loading {plan.model}", lambda observer: _record(plan, observer)


def make_plan(given: dict[str, Any]) -> Plan:
    """Check what was given. Raises UsageError for everything that can be seen without the model."""
    refuse_endpoint(given)
    refuse_load(given)
    if given["model"] is None:
        raise UsageError(
            "no model was given", why="something has to continue the prompt", fix='tokentape record demo "The fox"'
        )
    asked = Asked(
        words=given["prompt"],
        file=given["file"],
        prompts=given["prompts"],
        ids=given["prompt_ids"],
        n_random=given["prompt_tokens"],
        bos=bool(given["bos"]),
        seed=given["seed"],
    )
    options = options_given(given, GENERATION_FLAGS)
    options |= window_of(given)
    if rules := rules_of(given):
        options["rules"] = rules
    path = tape_place(given["output"], given["model"])
    refuse_taken(path, overwrite=given["overwrite"])
    refuse_report(given)
    return Plan(
        model=given["model"],
        load={name: given[name] for name in (*LOAD_NAMES, "bos")},
        asked=asked,
        prompt=read_prompt(asked),
        options=options,
        bad_words=given["bad_words"],
        biases=biases_of(given),
        chat=given["chat"] or given["system"] is not None,
        system=given["system"],
        ignore_eos=given["ignore_eos"],
        path=path,
        keep={
            "probe": given["probe"],
            "candidates": given["candidates"],
            "text": given["text"],
            "seed": given["seed"],
            "overwrite": given["overwrite"],
        },
        threads=given["threads"],
    )


def _recorded(path: Path, doing: str, record: Recording, *, quiet: bool) -> tuple[Tape | None, bool]:
    """The tape, and whether Ctrl-C ended it; no tape where that came before the first step."""
    from tokentape.cli.live import LiveLine
    from tokentape.data.tape import open_tape

    before = inode(path)  # of a tape that is to be overwritten, and stays until there is a new one
    with LiveLine(doing, quiet=quiet) as live, second_interrupt_quits():
        try:
            return record(live.observe), False
        except KeyboardInterrupt:
            return (open_tape(path) if inode(path) not in (None, before) else None), True
        except Exception:
            if inode(path) not in (None, before):
                click.echo(f"what was recorded is in {path} (partial)", err=True)
            raise


def _record(plan: Plan, observer: Callable[[Any], None]) -> Tape:
    import tokentape

    source = source_of(plan)
    prompt, keep, options = request_of(plan, source)
    return tokentape.record(source, prompt, path=plan.path, observer=observer, **keep, **options)


def source_of(plan: Plan) -> Any:
    """The model, loaded and set as the plan has it."""
    source = loaded(plan.model, plan.load, plan.threads)
    if plan.ignore_eos:
        # asked for as an option, None would mean the model's own
        source.causal.model.generation_config.eos_token_id = None
    return source


def request_of(plan: Plan, source: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The prompt, what to keep, and the options of ``generate()``, once the model is there to spell them."""
    options = dict(plan.options)
    if plan.bad_words:
        # a word inside a text carries the space before it
        spelled = [source.encode(space + word, bos=False) for word in plan.bad_words for space in ("", " ")]
        options["bad_words_ids"] = [ids for i, ids in enumerate(spelled) if ids and ids not in spelled[:i]]
    if plan.biases:
        from tokentape.control.guidance.bias import spelled_bias

        options["sequence_bias"] = spelled_bias(source.causal, plan.biases)
    prompt = plan.asked.for_source(plan.prompt, source.vocab_size)
    if plan.chat:
        prompt = _as_chat(prompt, plan.system, source.causal)
    keep = dict(plan.keep)
    sampled = options.get("do_sample", getattr(source, "samples_by_default", False))
    if sampled and keep["seed"] is None:
        keep["seed"] = secrets.randbits(31)  # written down, so that the run can be had again
    return prompt, keep, options


def _as_chat(prompt: Any, system: str | None, causal: Any) -> Any:
    """A text, or each of several, as a message; ids are what they are."""
    from tokentape.models.chat import chat_prompt

    texts = [prompt] if isinstance(prompt, str) else prompt
    if not all(isinstance(text, str) for text in texts):
        raise UsageError("--chat with token ids", why="a template is filled with text", fix="give the prompt as text")
    written = [chat_prompt(causal, text, system) for text in texts]
    return written[0] if isinstance(prompt, str) else written


@contextmanager
def second_interrupt_quits() -> Iterator[None]:
    """The first Ctrl-C is a KeyboardInterrupt, which saves the tape; a second one ends the process there and then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, second)
        raise KeyboardInterrupt

    def second(number: int, frame: object) -> None:
        if os.isatty(2):
            os.write(2, b"\x1b[?25h\n")  # the live line had hidden the cursor
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is first:  # after a Ctrl-C it stays: the next one may come during the report
            signal.signal(signal.SIGINT, before)


def _report(tape: Tape, given: dict[str, Any], interrupted: bool) -> None:
    from tokentape.study.metrics import summary
    from tokentape.views.card import card
    from tokentape.views.document import trace_heads
    from tokentape.views.screen import Screen

    if given["as_json"]:
        facts = {"tape": tape.path, "state": tape.state, "interrupted": interrupted, "setting": tape.setting.facts}
        facts["report"] = reported(tape.path, given)
        print_document(document("record", **facts, summary=summary(tape).as_dict(), traces=trace_heads(tape)))
        return
    try:
        _print_texts(tape)
    except BrokenPipeError:  # the reader has seen enough; the tape and its card are another matter
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not given["quiet"]:
        print_lines(card(tape, Screen.of(sys.stderr)), err=True)
    reported(tape.path, given)


def _print_texts(tape: Tape) -> None:
    """The continuations: exact bytes into a pipe or a file, drawn safely on a terminal."""
    from tokentape.views.drawing import drawn_text
    from tokentape.views.screen import Screen, is_terminal
    from tokentape.views.shape import plain_columns

    screen = Screen.of(sys.stdout)
    terminal = is_terminal(sys.stdout)
    out = sys.stdout.buffer
    for trace in tape.traces:
        text = trace.shown
        if len(tape.traces) > 1:
            out.write(f"==> {trace.number} <==\n".encode())
        if text is None:  # a model without a tokenizer gives ids; after --no-text there are none
            text = " ".join(str(i) for i in plain_columns(trace.tokens)["id"] if i is not None)
            if not text:
                continue
        if terminal:
            text = screen.safe(drawn_text(text, keep="\n\t"))
        out.write(f"{text}\n".encode(screen.encoding if terminal else "utf-8"))
    out.flush()
