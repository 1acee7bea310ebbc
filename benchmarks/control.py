"""What control costs: its columns, compiling a grammar, and what forced tokens save.

``python benchmarks/control.py [--json] [--only columns|compile|forced]``

* *columns*: processor time of what is kept of the rules at each step (allowed tokens, mass removed, divergence, the token that was
  wanted), at a vocabulary of 250,880. A step with the columns and one without follow one another on the same logits, and the
  figure is their difference. Without them the rules run too, and the distribution before and after them is reduced: that is what
  the distribution tier costs in any case. The time of a grammar's mask at that width stands beside it.
* *compile*: from a schema to the first mask over GPT-2's vocabulary, of those of JSON-Schema-Test-Suite that the engine takes.
* *forced*: a JSON object with fixed keys on the shipped model, and the same number of tokens unconstrained, one after another.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tokentape as tt
from tokentape.clock import HostClock
from tokentape.control.grammar.grammar import Grammar
from tokentape.errors import TokentapeError
from tokentape.models.distribution import Reducer, rows
from tokentape.sources.choosing import Chooser

V = 250_880
MATERIAL = Path(os.environ.get("TOKENTAPE_MATERIAL", Path(__file__).resolve().parents[2] / "shared" / "material"))
OBJECT = {
    "type": "object",
    "properties": {
        "name_of_the_animal": {"enum": ["cat", "dog", "fox"]},
        "where_it_lives_now": {"enum": ["park", "house"]},
        "is_it_a_friend_of": {"enum": ["Tom", "Anna"]},
    },
    "required": ["name_of_the_animal", "where_it_lives_now", "is_it_a_friend_of"],
    "additionalProperties": False,
}


class Half:
    """Masks every other token, as a grammar masks: by a select."""

    name, believes, masks = "half", False, True

    def __init__(self) -> None:
        self._mask = torch.arange(V)[None] % 2 == 0

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.where(self._mask, scores, -torch.inf)

    def describe(self) -> dict[str, Any]:
        return {}


class Nudge(Half):
    """Adds to every logit, as guidance does."""

    name, believes, masks = "nudge", True, False

    def __init__(self) -> None:
        self._amounts = torch.randn(1, V) * 0.1

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores + self._amounts


def step(rules: Sequence[Any], *, do_sample: bool, measured: bool) -> Callable[[torch.Tensor], Any]:
    """One choice and its reduction to the values that become rows."""
    chooser = Chooser(rules, do_sample=do_sample, clock=HostClock(), measured=measured)
    reduce = Reducer(5)
    ids, live = torch.zeros((1, 4), dtype=torch.long), torch.ones(1, dtype=torch.long)

    def run(logits: torch.Tensor) -> Any:
        choice = chooser(ids, logits, live)
        return rows([reduce(choice.logits, choice.ids, choice.scores, choice.stages, choice.wanted)])

    return run


def interval(values: Sequence[float], rng: np.random.Generator) -> tuple[float, float, float]:
    """The median and its bootstrap interval at 95 %."""
    found = np.asarray(values)
    drawn = np.median(rng.choice(found, (2000, len(found))), axis=1)
    return float(np.median(found)), *map(float, np.percentile(drawn, [2.5, 97.5]))


def columns(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    cases = {"mask": [Half()], "guidance and mask": [Nudge(), Half()]}
    for name, rules in cases.items():
        for do_sample in (False, True):
            kinds = {on: step(rules, do_sample=do_sample, measured=on) for on in (True, False)}
            spent: dict[bool, list[float]] = {True: [], False: []}
            for turn in range(2 * n + 4):
                logits = torch.randn(1, V) * 3
                for on in (True, False) if turn % 2 else (False, True):
                    began = time.process_time_ns()
                    kinds[on](logits)
                    spent[on].append((time.process_time_ns() - began) / 1e6)
            difference = np.subtract(spent[True][4:], spent[False][4:])
            middle, low, high = interval(difference.tolist(), rng)
            found.append({
                "rules": name, "choice": "sampled" if do_sample else "greedy", "vocabulary": V, "n": len(difference),
                "columns_ms": middle, "columns_ms_lower": low, "columns_ms_upper": high,
                "without_ms": statistics.median(spent[False][4:]),
            })  # fmt: skip
    return found


def mask_time(n: int, rng: np.random.Generator) -> dict[str, Any]:
    """A grammar's mask, made and applied, where the model has that many logits."""
    source = tt.local("demo")
    rule = Grammar.json_schema(OBJECT).bound(source.causal)
    ids, logits = torch.tensor([source.encode("A cat")]), torch.randn(1, V)
    spent = []
    for _ in range(n):
        began = time.process_time_ns()
        rule(ids, logits)
        spent.append((time.process_time_ns() - began) / 1e6)
    middle, low, high = interval(spent[2:], rng)
    return {"mask_ms": middle, "mask_ms_lower": low, "mask_ms_upper": high, "vocabulary": V, "n": len(spent) - 2}


def compiling(rng: np.random.Generator) -> dict[str, Any] | None:
    """Milliseconds of processor time from a schema to a rule and its first mask."""
    folder = MATERIAL / "schemas" / "draft2020-12"
    if not folder.is_dir():
        return None
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    causal = tt.local("demo").causal
    place = MATERIAL / "tokenizers" / "gpt-2" / "tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(place)), eos_token="<|endoftext|>")
    from dataclasses import replace

    gpt2 = replace(causal, tokenizer=tokenizer, vocab_size=len(tokenizer))
    Grammar.regex("a").bound(gpt2)  # the tokenizer is read once
    ids, logits = torch.zeros((1, 1), dtype=torch.long), torch.zeros(1, len(tokenizer))
    spent, refused = [], 0
    for file in sorted(folder.glob("*.json")):
        for group in json.loads(file.read_text()):
            began = time.process_time_ns()
            try:
                Grammar.json_schema(group["schema"]).bound(gpt2)(ids, logits)
            except TokentapeError:
                refused += 1
                continue
            spent.append((time.process_time_ns() - began) / 1e6)
    middle, low, high = interval(spent, rng)
    p99 = float(np.percentile(spent, 99))
    return {"compile_p50_ms": middle, "p50_ms_lower": low, "p50_ms_upper": high, "compile_p99_ms": p99,
            "n": len(spent), "refused": refused}  # fmt: skip


def forced(n: int, rng: np.random.Generator) -> dict[str, Any]:
    """Wall time of the constrained object over that of as many tokens unconstrained."""
    source = tt.local("demo")
    grammar = Grammar.json_schema(OBJECT, compact=True)

    def object_() -> tuple[float, int, int]:
        began = time.perf_counter()
        tape = tt.record(source, "The cat and the dog as JSON:", max_new_tokens=120, rules=[grammar], probe="timing")
        took = time.perf_counter() - began
        trace = tape.traces[0]
        assert trace.outcomes[0].valid, trace.outcomes
        return took, len(trace.token_ids), int(trace.tokens["forced"].sum())

    def free(n_tokens: int) -> float:
        began = time.perf_counter()
        tt.record(
            source, "The cat and the dog as JSON:", max_new_tokens=n_tokens, min_new_tokens=n_tokens, probe="timing"
        )
        return time.perf_counter() - began

    _, n_tokens, n_forced = object_()
    free(n_tokens)
    ratios = []
    for turn in range(n):
        if turn % 2:
            constrained, unconstrained = object_()[0], free(n_tokens)
        else:
            unconstrained, constrained = free(n_tokens), object_()[0]
        ratios.append(constrained / unconstrained)
    middle, low, high = interval(ratios, rng)
    return {"time_ratio": middle, "time_ratio_lower": low, "time_ratio_upper": high, "n": n, "n_tokens": n_tokens,
            "n_forced": n_forced}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["columns", "compile", "forced"])
    parser.add_argument("-n", type=int, default=100, help="pairs of steps, and of runs")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": 1,
        },
        "torch": torch.__version__,
    }
    if asked.only in (None, "columns"):
        found["columns"], found["mask"] = columns(asked.n, rng), mask_time(asked.n, rng)
    if asked.only in (None, "compile"):
        found["compile"] = compiling(rng)
    if asked.only in (None, "forced"):
        found["forced"] = forced(asked.n // 2, rng)
    if asked.json:
        json.dump(found, sys.stdout, indent=1)
        print()
        return
    for name, value in found.items():
        for one in value if isinstance(value, list) else [value]:
            shown = (
                {k: round(v, 3) if isinstance(v, float) else v for k, v in one.items()}
                if isinstance(one, dict)
                else one
            )
            print(f"{name}: {shown}", flush=True)


if __name__ == "__main__":
    main()
