"""Jobs whose answer is generated: prompts in batches, recorded into one tape, and read as the template says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokentape.data.request import Request
from tokentape.data.tape import Tape
from tokentape.errors import PromptError, UsageError
from tokentape.recorder.probes import tier
from tokentape.recorder.recorder import Recorder
from tokentape.recorder.run import drive
from tokentape.recorder.tick import Source
from tokentape.tasks.references import Figure
from tokentape.tasks.templates import Template

if TYPE_CHECKING:
    from tokentape.control.rule import Control

__all__ = ["Answers", "Keep", "answers_of", "generated", "options_of"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Keep:
    """Where a job's tape goes and what is kept on it; ``path`` None keeps it in memory."""

    path: str | Path | None = None
    overwrite: bool = False
    probe: str = "distribution"
    candidates: int = 5
    notes: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Answers:
    """What a model answered to each prompt, in order, and the tape of it.

    ``said`` is what was generated and may be shown, ``texts`` what the template reads in it. ``references`` are what would be
    right, of each one text or several, and ``figures`` what they say; empty without any.
    """

    job: str
    template: str
    prompts: tuple[str, ...]
    said: tuple[str, ...]
    texts: tuple[str, ...]
    tape: Tape
    references: tuple[tuple[str, ...], ...] = ()
    figures: tuple[Figure, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As plain values, with an entry for each prompt."""
        items = []
        for trace, prompt, said, text in zip(self.tape.traces, self.prompts, self.said, self.texts, strict=True):
            item: dict[str, Any] = {"trace": trace.number, "prompt": prompt, "said": said, "text": text}
            item["finish_reason"] = trace.finish_reason
            if self.references:
                item["references"] = list(self.references[trace.number])
            items.append(item)
        return {
            "job": self.job,
            "template": self.template,
            "items": items,
            "figures": [figure.as_dict() for figure in self.figures],
        }


def answers_of(
    job: str,
    template: Template,
    prompts: Sequence[str],
    tape: Tape,
    references: tuple[tuple[str, ...], ...],
    figures: Callable[[Sequence[str]], Iterable[Figure]],
) -> Answers:
    """What the tape answers to the prompts, as far as a guard let it be seen; ``figures`` is asked where there are references."""
    said = tuple(trace.shown or "" for trace in tape.traces)
    texts = tuple(map(template.read, said))
    known = tuple(figures(texts)) if references else ()
    return Answers(job, template.name, tuple(prompts), said, texts, tape, references, known)


def options_of(template: Template, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``generate()``: the template's limit and stops and greedy search, where nothing else is asked for."""
    found: dict[str, Any] = {"do_sample": False, **options}
    if not {"max_new_tokens", "max_length"} & {*options}:
        found["max_new_tokens"] = template.max_new_tokens
    if template.stop and "stop_strings" not in options:
        found["stop_strings"] = list(template.stop)
    return found


def generated(
    source: Source,
    prompts: Sequence[str],
    options: Mapping[str, Any],
    *,
    keep: Keep,
    batch_size: int,
    seed: int | None = None,
    rules: Callable[[int], Sequence[Control]] | None = None,
    progress: Progress | None = None,
) -> Tape:
    """The tape of the prompts, one trace each in their order, ``batch_size`` of them a run.

    ``rules`` gives those of the prompt at a place; then each prompt is a run of its own. All prompts are held against the model's
    positions before the first is read: raises PromptError.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size}", why="a batch has one prompt or more", fix="batch_size=1")
    _check_lengths(source, prompts, options)
    probes = tier(keep.probe, keep.candidates)
    needs: frozenset[str] = frozenset().union(*(probe.needs for probe in probes))
    requests = list(_requests(prompts, options, batch_size, seed, rules))
    live = source.start(requests[0], needs)  # refuses what it cannot do before a file is made
    recorder = Recorder(
        keep.path,
        source.setting(),
        probes,
        source.clock,
        origin=live.start,
        notes=keep.notes,
        overwrite=keep.overwrite,
    )
    with recorder:
        n_done = 0
        for number, request in enumerate(requests):
            live = source.start(request, needs) if number else live
            drive(recorder, live)
            n_done += len(request.prompts)
            if progress is not None:
                progress(n_done, len(prompts))
    return recorder.tape


def _requests(
    prompts: Sequence[str],
    options: Mapping[str, Any],
    batch_size: int,
    seed: int | None,
    rules: Callable[[int], Sequence[Control]] | None,
) -> Iterator[Request]:
    if rules is not None:
        batch_size = 1
    for start in range(0, len(prompts), batch_size):
        asked = dict(options)
        if rules is not None:
            asked["rules"] = [*(asked.get("rules") or ()), *rules(start)]
        # another seed for each batch, or all would draw alike
        yield Request(tuple(prompts[start : start + batch_size]), asked, None if seed is None else seed + start)


def _check_lengths(source: Source, prompts: Sequence[str], options: Mapping[str, Any]) -> None:
    """Refuse what does not fit before the first batch, rather than in the middle of the tape."""
    causal = getattr(source, "causal", None)
    if causal is None or not hasattr(causal, "check_length"):
        return
    for number, prompt in enumerate(prompts):
        try:
            causal.check_length(len(source.encode(prompt)), options.get("max_new_tokens") or 1)  # type: ignore[attr-defined]
        except PromptError as error:
            where = f"input {number}: " if len(prompts) > 1 else ""
            raise PromptError(where + error.what, why=error.why, fix=error.fix) from None
