"""The job that a peer's runner reads and the answer that it writes; nothing here imports tokentape, nor any peer.

    PEER_PYTHON benchmarks/peers/run_PEER.py JOB ANSWER        ("-": standard input, standard output)

The job, one JSON object:

* `model`: folder of a Hugging Face causal model. `threads` (1): torch's.
* `method`: one of the runner's `METHODS`. `options`: what the method takes, each with a default (the runner's docstring).
* `value`: what is explained, from the logits of the row before the target. `logit` (minus the mean over the vocabulary),
  `foil` (minus the foil's), `logprob`, `raw` (the bare logit), `probability`. A runner refuses what its peer cannot ask.
* `items`: each `ids` (at least `position` of them), `position` >= 1 (the sources are the positions before it), `target`
  (default `ids[position]`) and `foil` (for `value` "foil").
* or, instead of `items`, `all_steps`: `ids` and `first`. Every position from `first` to the end is a target, all in the one
  call that the peer has for this.
* `warm_up` (true): the first item (of `all_steps`: its first 9 ids) is run once before the clock starts.

The answer:

* `peer`, `versions`, `method`, `value`, `options` (all that held), `threads`, `note` (what the figures are, where the name
  does not say it).
* `signed`: false where the peer gives magnitudes, so that a foil cannot flip anything.
* `cpu_seconds`: of all items together, by `process_time` (all threads). `loading_cpu_seconds`: model, wrappers, warm-up.
* `items`: each `relevance` (one number a source position), `cpu_seconds`, `forward` and `backward` (sequences that went
  through the model), or `error`. With `all_steps` each has its `position`, and seconds and passes are counted once, at the
  top.

Exit status: 0, or 2 with the reason on standard error if the job cannot be done at all.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

VALUES = ("logit", "foil", "logprob", "raw", "probability")


class Refused(Exception):
    """The job cannot be done, and why."""


@dataclass(frozen=True)
class Item:
    ids: list[int]  # the sources alone
    target: int
    foil: int | None

    @property
    def position(self) -> int:
        return len(self.ids)


@dataclass
class Passes:
    """Sequences that went through the model, forward and backward."""

    forward: int = 0
    backward: int = 0

    def watch(self, model: Any) -> None:
        """Counts at `model.forward` itself: a peer that calls it by name passes by the hooks of a module."""
        original = model.forward

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            n = int(output.logits.shape[0])
            self.forward += n
            if output.logits.requires_grad:
                output.logits.register_hook(functools.partial(self._back, n))
            return output

        model.forward = forward

    def _back(self, n: int, _gradient: Any) -> None:
        self.backward += n


@dataclass
class Task:
    """A job, read and checked; `options` are the method's own, with defaults filled in."""

    model_path: str
    method: str
    value: str
    options: dict[str, Any]
    items: list[Item]
    ids: list[int]  # all_steps: the sequence
    first: int | None  # all_steps: the first target; None otherwise
    warm_up: bool
    threads: int


def value_of(logits: Any, value: str, target: Any, foil: int | None) -> Any:
    """[B, V] -> [B]: what is explained. `target` is an id, or a tensor of ids [B]."""
    import torch

    ids = torch.as_tensor(target, device=logits.device).reshape(-1, 1).expand(logits.shape[0], 1)
    chosen = logits.gather(1, ids)[:, 0]
    if value == "logit":
        return chosen - logits.mean(-1)
    if value == "foil":
        return chosen - logits[:, foil]
    if value == "logprob":
        return chosen - logits.logsumexp(-1)
    return logits.softmax(-1).gather(1, ids)[:, 0] if value == "probability" else chosen


def read(job: dict[str, Any], methods: dict[str, dict[str, Any]]) -> Task:
    """Checks a job; `methods` names each method's options with their defaults."""
    method, value = job.get("method", ""), job.get("value", "logit")
    if method not in methods:
        raise Refused(f"no method {method!r}; there are: {', '.join(methods)}")
    if value not in VALUES:
        raise Refused(f"no value {value!r}; there are: {', '.join(VALUES)}")
    strange = set(job.get("options", {})) - set(methods[method])
    if strange:
        raise Refused(
            f"{method} takes no {', '.join(sorted(strange))}; it takes: {', '.join(methods[method]) or 'nothing'}"
        )
    steps = job.get("all_steps")
    items = [_item(item, value) for item in ([] if steps else job["items"])]
    if steps and value == "foil":
        raise Refused("all_steps takes no foils")
    return Task(
        model_path=job["model"],
        method=method,
        value=value,
        options={**methods[method], **job.get("options", {})},
        items=items,
        ids=list(steps["ids"]) if steps else [],
        first=int(steps["first"]) if steps else None,
        warm_up=bool(job.get("warm_up", True)),
        threads=int(job.get("threads", 1)),
    )


def _item(given: dict[str, Any], value: str) -> Item:
    position = int(given["position"])
    if not 1 <= position <= len(given["ids"]):
        raise Refused(f"position {position} with {len(given['ids'])} ids")
    if value == "foil" and given.get("foil") is None:
        raise Refused("value 'foil' without a foil")
    target = given.get("target")
    if target is None and position == len(given["ids"]):
        raise Refused(f"no target, and no id at position {position}")
    return Item(
        ids=[int(i) for i in given["ids"][:position]],
        target=int(given["ids"][position] if target is None else target),
        foil=None if given.get("foil") is None else int(given["foil"]),
    )


def load(path: str, attention: str | None = None) -> Any:
    """The model in float32, no gradients of its parameters; attention as transformers chooses it, unless told."""
    import torch
    from transformers import AutoModelForCausalLM

    told = {} if attention is None else {"attn_implementation": attention}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **told).eval()
    return model.requires_grad_(False)


def module_at(model: Any, path: str | None, otherwise: Any) -> Any:
    """The module that an option names, or `otherwise`."""
    return model.get_submodule(path) if path else otherwise


@contextmanager
def _quiet() -> Iterator[None]:
    """What a peer prints goes to standard error: standard output may be the answer."""
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = out


def serve(
    peer: str, methods: dict[str, dict[str, Any]], start: Callable[[Task, Passes], Any], packages: list[str]
) -> None:
    """Reads the job, runs it, writes the answer.

    `start(task, passes)` loads the model and returns an object with `attribute(item)`, `signed`, `note`, and, if the peer can,
    `all_steps(ids, first)`.
    """
    source, sink = sys.argv[1:]
    text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        with _quiet():
            answer = _run(peer, read(json.loads(text), methods), start, packages)
    except Refused as refused:
        print(f"{peer}: {refused}", file=sys.stderr)
        raise SystemExit(2) from None
    written = json.dumps(answer) + "\n"
    if sink == "-":
        sys.stdout.write(written)
    else:
        Path(sink).write_text(written, encoding="utf-8")


def _run(peer: str, task: Task, start: Callable[[Task, Passes], Any], packages: list[str]) -> dict[str, Any]:
    import torch

    begun = time.process_time()
    torch.set_num_threads(task.threads)
    passes = Passes()
    runner = start(task, passes)
    if task.first is not None and not hasattr(runner, "all_steps"):
        raise Refused("this peer has no call for all steps")
    if task.warm_up:
        _warm(runner, task)
    loading = time.process_time() - begun
    done = _items(runner, task, passes) if task.first is None else _steps(runner, task, passes)
    return {
        "peer": peer,
        "versions": {name: version(name) for name in ["torch", "transformers", *packages]},
        "method": task.method,
        "value": task.value,
        "options": task.options,
        "threads": task.threads,
        "signed": runner.signed,
        "note": runner.note,
        "loading_cpu_seconds": loading,
        **done,
    }


def _warm(runner: Any, task: Task) -> None:
    if task.first is not None:
        few = task.ids[:9]
        runner.all_steps(few, len(few) - 1)
    elif task.items:
        _attempt(runner, task.items[0], Passes())


def _attempt(runner: Any, item: Item, passes: Passes) -> dict[str, Any]:
    """One item. A peer's own failure is an answer about it, so it is kept, by name; what we refuse ends the job."""
    forward, backward, begun = passes.forward, passes.backward, time.process_time()
    try:
        answer: dict[str, Any] = {"relevance": runner.attribute(item)}
    except Refused:
        raise
    except Exception as failed:
        answer = {"error": f"{type(failed).__name__}: {failed}"[:500]}
    return {
        **answer,
        "cpu_seconds": time.process_time() - begun,
        "forward": passes.forward - forward,
        "backward": passes.backward - backward,
    }


def _items(runner: Any, task: Task, passes: Passes) -> dict[str, Any]:
    answers = [_attempt(runner, item, passes) for item in task.items]
    return {
        "cpu_seconds": sum(answer["cpu_seconds"] for answer in answers),
        "forward": sum(answer["forward"] for answer in answers),
        "backward": sum(answer["backward"] for answer in answers),
        "items": answers,
    }


def _steps(runner: Any, task: Task, passes: Passes) -> dict[str, Any]:
    assert task.first is not None
    forward, backward, begun = passes.forward, passes.backward, time.process_time()
    rows = runner.all_steps(task.ids, task.first)
    seconds = time.process_time() - begun
    return {
        "cpu_seconds": seconds,
        "forward": passes.forward - forward,
        "backward": passes.backward - backward,
        "items": [{"position": task.first + i, "relevance": row} for i, row in enumerate(rows)],
    }
