"""``explain``: play a trace back, check the replay, and share targets out among their sources."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

import numpy as np

from tokentape._version import __version__
from tokentape.data.explanation import Explanation, Kind, ReplayCheck, Source, Unit
from tokentape.data.setting import Setting
from tokentape.data.tape import Tape, open_tape
from tokentape.data.trace import Trace
from tokentape.errors import UsageError
from tokentape.explain.checking import check, refuse_failed
from tokentape.explain.methods import method_named
from tokentape.explain.options import checked_options, progress_option
from tokentape.explain.question import Attribution, Question
from tokentape.explain.replay import Progress, Replay
from tokentape.explain.retokenised import played
from tokentape.explain.units import sources_of
from tokentape.models.causal import CausalModel, load
from tokentape.models.facts import weights_hash

__all__ = [
    "DEFAULT_METHOD",
    "Asked",
    "answered",
    "checked",
    "explain",
    "made_with",
    "model_of",
    "positions_of",
    "question_of",
    "replay",
]

DEFAULT_METHOD = "input_marginalization"
"""The best of those without a patent on planted evidence: docs/decisions/0006."""


@dataclass(frozen=True)
class Asked:
    """What is to be explained of a trace, and how.

    ``targets`` are positions of generated tokens; ``against`` the foil, an id or a text of one token, the same for all
    targets; ``kind`` logit or logprob, foil where a foil is given; ``by`` the unit of the sources; ``together`` the
    targets as one answer; ``options`` go to the method.
    """

    targets: tuple[int, ...]
    method: str = DEFAULT_METHOD
    kind: Kind = "logit"
    against: int | str | None = None
    by: Unit = "token"
    together: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def explain(
    tape: Tape | Trace | str | os.PathLike[str],
    source: Any = None,
    *,
    trace: int = 0,
    step: int | Sequence[int] | None = None,
    method: str = DEFAULT_METHOD,
    against: int | str | None = None,
    target: Kind = "logit",
    by: Unit = "token",
    together: bool = False,
    unchecked: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Explanation:
    """Why these tokens? Replay a trace, check the replay against the tape, and find what each target rests on.

    ``tape`` is a tape, its path, or one of its traces; ``source`` the model it was recorded with: what
    :func:`tokentape.local` gives, a :class:`CausalModel`, its name, or None to load what the tape names. ``step`` is the
    step of the target (or several); None means every generated token. ``against`` asks why the target and not that
    token. ``by`` shares the answer out among tokens, words, sentences or parts of the prompt. ``unchecked`` explains a
    replay that does not agree with the tape; the explanation says so. ``options`` are the method's.

    Raises UsageError for what does not exist, ReplayError where the replay computes something else than was recorded,
    ExplainError where the model does not have what the method reads, OutOfMemory.
    """
    opened = None
    if not isinstance(tape, Tape | Trace):
        opened = tape = open_tape(tape)
    try:
        chosen = tape if isinstance(tape, Trace) else _trace(tape, trace)
        setting = tape.setting if isinstance(tape, Tape) else None
        causal = _causal(source, tape)
        asked = Asked(
            positions_of(chosen, step),
            method=method,
            kind=target,
            against=against,
            by=by,
            together=together,
            options=options,
        )
        return answered(chosen, checked(chosen, causal, setting, unchecked=unchecked), asked, progress=progress)
    finally:
        if opened is not None:
            opened.close()


def replay(
    tape: Tape | str | os.PathLike[str],
    source: Any = None,
    *,
    tolerance: float | None = None,
    progress: Progress | None = None,
) -> list[ReplayCheck]:
    """Play every trace of a tape through its model again, and compare log-probabilities with the recorded ones.

    ``source`` as for :func:`explain`. The tape of a server is replayed on a local copy of its model: a check that does not
    pass says that the server computed something else. Raises ReplayError for a trace without ids, OutOfMemory.
    """
    opened = None
    if not isinstance(tape, Tape):
        opened = tape = open_tape(tape)
    try:
        causal = _causal(source, tape)
        return check(list(tape.traces), causal, tape.setting, tolerance=tolerance, progress=progress)
    finally:
        if opened is not None:
            opened.close()


def checked(
    trace: Trace,
    causal: CausalModel,
    setting: Setting | None,
    *,
    unchecked: bool = False,
    progress: Progress | None = None,
) -> Replay:
    """The replay of a trace with its check. Raises ReplayError where that does not pass, unless ``unchecked``."""
    (found,) = check([trace], causal, setting, progress=progress)
    if not unchecked:
        refuse_failed(found, trace.number)
    one = played(trace, causal)
    if one.how == "prompt" and one.n_prompt == trace.n_prompt:  # then positions are those of the tape
        return Replay(causal, one.ids, one.n_prompt, check=found)
    return replace(Replay.of(trace, causal), check=found)


def answered(trace: Trace, replay: Replay, asked: Asked, *, progress: Progress | None = None) -> Explanation:
    """The answer to what was asked, from the checked replay of a trace."""
    method = method_named(asked.method)
    question, sources = question_of(replay, asked)
    options = {**checked_options(method, asked.options), **progress_option(method, progress)}
    began = time.process_time_ns()
    attribution = method(replay, question, **options)
    cpu_ns = time.process_time_ns() - began
    return _as_explanation(trace, replay, asked, question, sources, attribution, cpu_ns)


def positions_of(trace: Trace, step: int | Sequence[int] | None) -> tuple[int, ...]:
    """Positions of the tokens that the steps gave; of all generated tokens for None. Raises UsageError."""
    steps, positions = trace.tokens["step"].data, trace.tokens["position"].data
    if not len(positions):
        raise UsageError(
            f"sequence {trace.number} has no token", why="nothing was generated", fix="record at least one new token"
        )
    if step is None:
        return tuple(int(p) for p in positions if p >= 1)
    wanted = [step] if isinstance(step, int | np.integer) else list(step)
    for number in wanted:
        if number not in steps:
            raise UsageError(
                f"no step {number} gave a token",
                why=f"the tokens of sequence {trace.number} come from steps {int(steps.min())} to {int(steps.max())}",
                fix=f"--step {int(np.clip(number, steps.min(), steps.max()))}",
            )
    return tuple(sorted({int(p) for s, p in zip(steps, positions, strict=True) if s in wanted}))


def model_of(tape: Tape, name: str | None = None, **options: Any) -> CausalModel:
    """The model that a tape was recorded with, loaded again; ``name`` and ``options`` of :func:`load` go before its facts."""
    facts = tape.setting.facts
    path = facts.get("model_path")
    here = path if path is not None and os.path.exists(path) else None
    known = name or (facts.get("model") if facts.get("model") == "demo" else None) or here or facts.get("model")
    if known is None:
        raise UsageError(
            "the tape does not say which model it was recorded with",
            why="its Setting names none",
            fix="--model NAME, a hub id or a folder",
        )
    if name is None:
        options.setdefault("random_weights", facts.get("random_weights"))
        if here is None:
            options.setdefault("revision", facts.get("revision"))
        dtype = facts.get("dtype")
        options.setdefault("dtype", dtype if dtype in ("float32", "bfloat16", "float16") else "auto")
    return load(known, **options)


def _trace(tape: Tape, number: int) -> Trace:
    if not 0 <= number < len(tape.traces):
        raise UsageError(
            f"no sequence {number}", why=f"the tape has {len(tape.traces)}, counted from 0", fix="--trace 0"
        )
    return tape.traces[number]


def _causal(source: Any, tape: Tape | Trace) -> CausalModel:
    if isinstance(source, CausalModel):
        return source
    if hasattr(source, "causal"):
        causal: CausalModel = source.causal
        return causal
    if isinstance(source, str | os.PathLike):
        return load(str(source))
    if source is None and isinstance(tape, Tape):
        return model_of(tape)
    raise UsageError(
        f"{type(source).__name__} is no model",
        why="a replay needs the model that the trace was recorded with",
        fix="explain(trace, tokentape.local('demo'))",
    )


def question_of(replay: Replay, asked: Asked) -> tuple[Question, tuple[Source, ...]]:
    """The question, and its sources with their labels. Raises UsageError for a target or foil that does not exist."""
    found = sources_of(replay.causal, replay.ids, replay.n_prompt, asked.by)
    sources = tuple(source for source in found if source.start < asked.targets[-1])
    foils: tuple[int, ...] = ()
    if asked.against is not None:
        foils = (_foil(asked.against, replay.causal),) * len(asked.targets)
    question = Question(
        targets=asked.targets,
        kind="foil" if foils else asked.kind,
        foils=foils,
        segments=tuple((source.start, source.stop) for source in sources),
        together=asked.together,
    )
    replay.target_ids(question)
    return question, sources


def _foil(against: int | str, causal: CausalModel) -> int:
    """The id of a foil. A text is tried with the space before it too, as a word has it inside a text."""
    if isinstance(against, int):
        if not 0 <= against < causal.vocab_size:
            raise UsageError(
                f"no token {against}",
                why=f"the vocabulary of {causal.name} has {causal.vocab_size} entries",
                fix="--against with a text, or an id of the vocabulary",
            )
        return against
    spellings = [causal.encode(text, bos=False) for text in (against, f" {against}") if text.strip()]
    # the model writes words with the space before them, so that spelling goes first where it is one token
    single = [ids[0] for ids in reversed(spellings) if len(ids) == 1]
    if single and not (against[:1].isspace() and len(spellings[0]) == 1):
        return single[0]
    if spellings and len(spellings[0]) == 1:
        return spellings[0][0]
    pieces = " ".join(repr(causal.pieces.piece(i).token) for i in spellings[0]) if spellings else "none"
    raise UsageError(
        f"{against!r} is not one token of {causal.name}",
        why=f"a foil stands in the place of one token, and this is spelled with {len(spellings[0]) if spellings else 0}: {pieces}",
        fix="--against with one of those tokens, or with an id",
    )


def _as_explanation(
    trace: Trace,
    replay: Replay,
    asked: Asked,
    question: Question,
    sources: tuple[Source, ...],
    found: Attribution,
    cpu_ns: int,
) -> Explanation:
    assert replay.check is not None
    return Explanation(
        trace=trace.number,
        method=method_named(asked.method).name,
        options={**asked.options, "by": asked.by},
        kind=question.kind,
        together=question.together,
        targets=np.array(question.targets),
        target_ids=np.array([replay.ids[p] for p in question.targets]),
        foil_ids=np.array(question.foils) if question.foils else None,
        sources=sources,
        relevance=np.ma.MaskedArray(found.relevance, np.isnan(found.relevance)),
        value=found.value,
        ledger=found.ledger,
        check=replay.check,
        passes={"forward": replay.passes.forward, "backward": replay.passes.backward},
        cpu_ns=cpu_ns,
        made=made_with(replay.causal),
        notes=found.notes,
        withheld=trace.has_withheld,
    )


def made_with(causal: CausalModel) -> dict[str, Any]:
    """With what a replay was made: versions, model, hash of its weights, dtype, device."""
    versions = {name: metadata.version(name) for name in ("torch", "transformers")}
    return {
        "tokentape": __version__,
        **versions,
        "model": causal.name,
        "weights": weights_hash(causal.model),
        "dtype": str(causal.dtype).removeprefix("torch."),
        "device": str(causal.device),
    }
