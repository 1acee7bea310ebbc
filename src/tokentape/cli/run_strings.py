"""What ``tokentape compare --run`` is given: the words of ``tokentape record``, made into sides that take turns."""

from __future__ import annotations

import functools
import os
import shlex
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.preparation import refuse_taken
from tokentape.cli.record import Plan, command, make_plan, request_of, source_of
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.experiment.sides import TapedSide

__all__ = ["Run", "open_sides", "parsed_run", "places"]

DEFAULT_PROMPT = ("--prompt-tokens", "32", "--ignore-eos")
DEFAULT_LENGTH = ("--max-new-tokens", "64")
"""A run that names no prompt is a measurement: random ids, and a text that goes on to its limit."""

OWN = {"output": "-o", "overwrite": "--overwrite", "as_json": "--json", "report": "--report"}


@dataclass(frozen=True, slots=True)
class Run:
    """One ``--run``: its words, completed, and what they ask for."""

    words: tuple[str, ...]
    plan: Plan


def parsed_run(text: str) -> Run:
    """Read ``MODEL [PROMPT] [options]`` as ``tokentape record`` would. Raises UsageError as it does."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--run {text}: {error}", why="it is read as a shell would", fix="close the quote") from error
    if words[:1] == ["tokentape"]:
        words = words[1:]
    if words[:1] == ["record"]:
        words = words[1:]
    given = _given(words, text)
    named = [flag for name, flag in OWN.items() if given[name]]
    if named:
        raise UsageError(
            f"--run {text}: {named[0]} inside of a run",
            why="the tapes are those of the comparison",
            fix="leave it out; tokentape view A B --html OUT.html writes the page of two tapes"
            if named == ["--report"]
            else f"give {named[0]} to tokentape compare",
        )
    sources = ("prompt", "file", "prompts", "prompt_ids", "prompt_tokens", "bos")
    if not any(given[name] for name in sources):
        words += [*DEFAULT_PROMPT, *(() if given["max_new_tokens"] else DEFAULT_LENGTH)]
        given = _given(words, text)
    if given["file"] == Path("-") or given["prompts"] == Path("-") or given["prompt"] == ("-",):
        raise UsageError("--run reads stdin", why="it can be read only once", fix="put the prompt into a file: -f FILE")
    return Run(tuple(words), make_plan(given))


def _given(words: list[str], text: str) -> dict[str, Any]:
    try:
        return command.make_context("tokentape record", list(words), resilient_parsing=False).params
    except click.exceptions.Exit:
        raise UsageError(
            f"--run {text}: --help", why="a run is something to do", fix="tokentape record --help"
        ) from None
    except click.ClickException as error:
        raise UsageError(
            f"--run {text}: {error.format_message().rstrip('.')}",
            why="a run is given as to tokentape record: MODEL [PROMPT] [options]",
            fix='--run "demo --threads 1" --run "demo --threads 2"',
        ) from error


def places(folder: Path | None, stem: str, *, overwrite: bool) -> tuple[Path, Path]:
    """Where the two tapes go. Raises UsageError and TapeExists, before anything is loaded."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        found = (folder / "A.tape", folder / "B.tape")
    else:
        home = Path(os.environ.get("TOKENTAPE_DIR") or ".")
        found = (home / f"{stem}-A.tape", home / f"{stem}-B.tape")
    for path in found:
        refuse_taken(path, overwrite=overwrite, other="another -o DIR")
    return found


def open_sides(
    runs: tuple[Run, Run], paths: tuple[Path, Path], of: str, seed: int, *, isolated: bool, overwrite: bool
) -> tuple[list[TapedSide], str]:
    """Two sides, loaded, and how they take turns: ``"steps"`` or ``"runs"``."""
    from tokentape.experiment.sides import IsolatedSide

    if isolated:
        made = [
            IsolatedSide(functools.partial(alone, run.words, path, of, seed, overwrite))
            for run, path in zip(runs, paths, strict=True)
        ]
        for side in made:
            side.ready()
        return list(made), "runs"
    return _together(runs, paths, of, seed, overwrite)


def alone(words: tuple[str, ...], path: Path, of: str, seed: int, overwrite: bool) -> TapedSide:
    """A side in the process that calls this, and in nothing but it."""
    from tokentape.experiment.sides import RecordedSide

    plan = make_plan(_given(list(words), shlex.join(words)))
    source = source_of(plan)
    return RecordedSide(source, _recording(plan, source, path, of, seed, overwrite))


def _together(
    runs: tuple[Run, Run], paths: tuple[Path, Path], of: str, seed: int, overwrite: bool
) -> tuple[list[TapedSide], str]:
    """Both sides in this process; where they are of one model, they share its weights, and where those lie in memory."""
    from tokentape.experiment.sides import RecordedSide, TorchTurn
    from tokentape.models.runtime import require_torch

    threads = require_torch().get_num_threads()
    sources: dict[Any, Any] = {}
    pair: list[Any] = []
    for run in runs:
        plan = run.plan
        key = (plan.model, plan.ignore_eos, *sorted(plan.load.items(), key=lambda item: item[0]))
        pair.append(_another(sources[key]) if key in sources else source_of(plan))
        sources[key] = pair[-1]
    by_steps = of == "decode" and all(_is_on_cpu(source) for source in pair)
    sides: list[TapedSide] = []
    with ExitStack() as stack:
        for run, source, path in zip(runs, pair, paths, strict=True):
            what = _recording(run.plan, source, path, of, seed, overwrite)
            turn = TorchTurn(run.plan.threads or threads, random=by_steps)
            side = RecordedSide(source, what, by_steps=by_steps, turn=turn)
            stack.callback(side.close)
            sides.append(side)
        stack.pop_all()
    return sides, "steps" if by_steps else "runs"


def _another(source: Any) -> Any:
    """A source of the same weights in memory, with a Setting of its own: the threads may be others."""
    from tokentape.sources.local import LocalSource

    return LocalSource(source.causal, bos=source.bos) if isinstance(source, LocalSource) else source


def _is_on_cpu(source: Any) -> bool:
    device = getattr(source.causal, "device", None)
    return getattr(device, "type", "cpu") == "cpu"


def _recording(plan: Plan, source: Any, path: Path, of: str, seed: int, overwrite: bool) -> Any:
    from tokentape.data.request import Request
    from tokentape.experiment.sides import Recording

    if plan.keep["seed"] is None:
        plan.keep["seed"] = seed  # the same for both, so that they draw alike
    prompt, keep, options = request_of(plan, source)
    if isinstance(prompt, str) or all(isinstance(entry, int) for entry in prompt):
        prompt = [prompt]
    prompts = tuple(entry if isinstance(entry, str) else tuple(entry) for entry in prompt)
    kept = {name: keep[name] for name in ("probe", "candidates", "text")}
    return Recording(Request(prompts, options, keep["seed"]), path, of, overwrite=overwrite, **kept)
