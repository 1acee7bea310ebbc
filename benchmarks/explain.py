"""Which method finds what must matter, which names what the model rests on, and what each costs.

    python benchmarks/explain.py                        everything
    python benchmarks/explain.py --only evidence        planted evidence: hit@1, mass, deletion, ERASER
    python benchmarks/explain.py --only sanity          shuffled parameters, exchanged foils
    python benchmarks/explain.py --only cost            R[t, s] for 128 generated tokens, beside inseq where it is given
    python benchmarks/explain.py --only memory          peak memory of the attention of 2,048 tokens in 24 layers
    python benchmarks/explain.py --peer inseq=/path/python --peer captum=/path/python

*Planted evidence*: four tasks of the shipped model (a BLOOM), whose grammar says which word decides the word asked about, and four
tasks of the marker model of the tests (a Llama). An item counts where the model answers it right; how many did not is told. The
question is put twice: for the logit of the answer's first own token above that of the foil, which would be right if the decisive
word were another, and above the mean of the vocabulary. Sources are tokens. A *hit*: the most relevant token is one of the
decisive word's (nearly all of these are one token); ties are broken by chance. *Mass* is the share of positive relevance on the
decisive word, *related* that on it and on words that point at it. *ABPC*, comprehensiveness and sufficiency, by a neutral token
and by random ones, are those of `tokentape.explain.judging.faithfulness`, the latter two as means over 10, 20 and 50 % of the
sources.
*loo* is the rank correlation with leave-one-out, *first* the share of position 0. CPU seconds are those of the method, on one
thread. Intervals are of 95 %, by Wilson for hits, by bootstrap over items otherwise.

*The default* is chosen among the methods without a patent by this rule, from the questions with a foil: the highest hit@1 in the
mean over the models; those not clearly worse, by the paired bootstrap over the items of all models, are told apart by ABPC with
random tokens. Truth goes first and deletion second: what deletes well may still name another word than the one that decides, and a
method that replaces tokens has an advantage where tokens are replaced. A foil, since above the mean of the vocabulary stands every
word of the answer's kind: the words that say which kind is asked for decide as much as the one that says which word.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial, reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _explain_tables import (
    by_task,
    mean,
    print_choice,
    print_cost,
    print_memory,
    print_peers,
    print_sanity,
    table,
)

from tokentape.errors import ExplainError, UsageError
from tokentape.explain.judging.evaluation import Evaluation
from tokentape.explain.judging.faithfulness import Explainer, evaluate, explainers, random_order
from tokentape.explain.judging.sanity import foil_swap, parameter_randomisation
from tokentape.explain.methods import METHODS
from tokentape.explain.question import Attribution, Kind, Question
from tokentape.explain.replay import Passes, Replay
from tokentape.models.anatomy import anatomy_of
from tokentape.models.causal import CausalModel, load
from tokentape.world.evidence import TASKS as DEMO_TASKS
from tokentape.world.evidence import Item, covering
from tokentape.world.evidence import items as demo_items

HERE = Path(__file__).resolve().parent
MARKERS = HERE.parent / "tests" / "explain"
sys.path.insert(0, str(MARKERS))
from marker_tasks import TASKS as MARKER_TASKS  # noqa: E402
from marker_tasks import marker_items  # noqa: E402

KINDS: tuple[Kind, ...] = ("foil", "logit")
ENOUGH = 0.95
OPERATORS = ("neutral", "random")
COMPARED = ("hit", "mass", "abpc_neutral", "abpc_random")
SANITY_ITEMS = 10
"""Items a task whose maps are compared under shuffled parameters."""


@dataclass(frozen=True)
class Asked:
    """An item as it is put to the model: the sequence up to the token asked about, and what must matter there."""

    task: str
    replay: Replay
    target: int
    foil: int
    decisive: frozenset[int]
    related: frozenset[int]

    def question(self, kind: Kind) -> Question:
        return Question((self.target,), kind, (self.foil,) if kind == "foil" else ())


@dataclass(frozen=True)
class World:
    """A model with its tasks."""

    name: str
    causal: CausalModel
    tasks: Sequence[str]
    make: Callable[[str, int, int], list[Item]]


def worlds(names: Sequence[str]) -> list[World]:
    made = {
        "demo": lambda: World("demo", load("demo"), DEMO_TASKS, demo_items),
        "markers": lambda: World("markers", load(MARKERS / "markers"), tuple(MARKER_TASKS), marker_items),
    }
    return [made[name]() for name in names]


def asked(world: World, task: str, n: int, seed: int) -> tuple[list[Asked], int]:
    """The first ``n`` items of a task that the model answers right, and how many it answered wrong among them."""
    wanted, right, wrong = n, [], 0
    while len(right) < n:
        try:
            drawn = world.make(task, wanted, seed)
        except UsageError as error:
            print(f"{world.name} {task}: {error.why}", file=sys.stderr)
            break
        right, wrong = [], 0
        for item in drawn:
            one = _asked(world.causal, item)
            if len(right) == n:
                break
            if one is None:
                wrong += 1
            else:
                right.append(one)
        wanted += max(n - len(right), 0) + 10
    return right, wrong


def _asked(causal: CausalModel, item: Item) -> Asked | None:
    """None where the model does not answer with the item's word."""
    before = item.prompt + item.prefix
    ids, other = causal.encode(before + item.word), causal.encode(before + item.foil_word)
    # the first token at which the two answers part
    target = next(i for i, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b)
    replay = Replay(causal, tuple(ids[: target + 1]), len(causal.encode(item.prompt)))
    with torch.no_grad():
        if int(replay.logits([target])[0, 0].argmax()) != ids[target]:
            return None
    spans = causal.tokenizer(before + item.word, return_offsets_mapping=True)["offset_mapping"][:target]
    decisive, related = (frozenset(covering(found, spans)) for found in (item.decisive, item.related))
    return Asked(item.task, replay, target, other[target], decisive, related)


# peers


@dataclass(frozen=True)
class Peer:
    """A runner of `benchmarks/peers/`, and the Python that has what it needs."""

    name: str
    python: str

    @property
    def runner(self) -> Path:
        return HERE / "peers" / f"run_{self.name}.py"

    def methods(self) -> dict[str, dict[str, Any]]:
        """The runner's methods with their options."""
        sys.path.insert(0, str(self.runner.parent))
        try:
            found: dict[str, dict[str, Any]] = runpy.run_path(str(self.runner))["METHODS"]
        finally:
            sys.path.pop(0)
        return found

    def answer(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """What the runner says to a job; UsageError where it refuses."""
        done = subprocess.run(
            [self.python, str(self.runner), "-", "-"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UsageError(
                f"{self.name} does not run", why=reason, fix=f"try {self.python} {self.runner.name} by itself"
            )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


@dataclass
class PeerMethod:
    """A peer's answers to items, kept, and given again when they are asked for."""

    name: str
    answers: dict[tuple[Any, ...], dict[str, Any]]

    def answer(self, replay: Replay, question: Question) -> dict[str, Any]:
        return self.answers[(replay.ids, question.foils)]

    def __call__(self, replay: Replay, question: Question) -> Attribution:
        answer = self.answer(replay, question)
        if "error" in answer:
            raise ExplainError(self.name, why=answer["error"], fix="see benchmarks/peers")
        replay.passes.forward += answer["forward"]
        replay.passes.backward += answer["backward"]
        return Attribution(question.by_segment(np.array([answer["relevance"]])), np.full(1, np.nan))


def entry_of(causal: CausalModel) -> str:
    """Where the tokens of a model are attributed, as its own name for the module."""
    entry = anatomy_of(causal.model).entry
    return next(name for name, module in causal.model.named_modules() if module is entry)


def peer_methods(world: World, items: Sequence[Asked], kind: Kind, given: argparse.Namespace) -> dict[str, PeerMethod]:
    """Every method of every peer on the items.

    One that looks at a layer looks where ours do: behind a norm of the embedding, where there is one.
    """
    made = {}
    put = [{"ids": one.replay.ids, "position": one.target, "foil": one.foil} for one in items]
    keys = [(one.replay.ids, one.question(kind).foils) for one in items]
    for peer in given.peer:
        for method, defaults in peer.methods().items():
            if method in given.without:
                continue
            print(f"{world.name} {kind}: {peer.name} {method}", file=sys.stderr)
            options = {"layer": entry_of(world.causal)} if "layer" in defaults else {}
            job = {"model": world.causal.path, "method": method, "value": kind, "options": options, "items": put}
            name = f"{peer.name}:{method}"
            try:
                answers = peer.answer(job)["items"]
            except UsageError as error:
                answers = [{"error": error.why}] * len(items)
            made[name] = PeerMethod(name, dict(zip(keys, answers, strict=True)))
    return made


# planted evidence


def evidence(world: World, given: argparse.Namespace) -> tuple[dict[str, Any], dict[Kind, Evaluation]]:
    """Each method on each item of each task: notes for the record, and by kind of question all tasks as one sample."""
    notes: dict[str, Any] = {"left_out": {}, "tasks": {kind: {} for kind in given.kind}}
    found: dict[Kind, Evaluation] = {}
    items: dict[str, list[Asked]] = {}
    for task in world.tasks:
        items[task], notes["left_out"][task] = asked(world, task, given.n, given.seed)
        told = f"{len(items[task])} items, {notes['left_out'][task]} answered wrong and left out"
        print(f"{world.name} {task}: {told}", file=sys.stderr)
    for kind in given.kind:
        peers = peer_methods(world, [one for task in world.tasks for one in items[task]], kind, given)
        for task in world.tasks:
            one = evaluate(
                [(item.replay, item.question(kind)) for item in items[task]],
                {**chosen_methods(given.method), **peers},
                [item.decisive for item in items[task]],
                OPERATORS,
                related=[item.related for item in items[task]],
                seed=given.seed,
                progress=ticking(f"{world.name} {task} {kind}"),
            )
            for name in [name for name in peers if name in one.methods]:
                # what it took there, not what it takes to look it up
                answers = [peers[name].answer(item.replay, item.question(kind)) for item in items[task]]
                one.values(name, "cpu_seconds")[:] = [answer["cpu_seconds"] for answer in answers]
            notes["tasks"][kind][task] = one
            found[kind] = found[kind].joined(one) if kind in found else one
    return notes, found


def chosen_methods(names: Sequence[str] | None) -> dict[str, Explainer]:
    """Methods of the table by name, and the floor."""
    return {**explainers(names or list(METHODS)), "random": random_order}


def ticking(what: str) -> Callable[[int, int], None]:
    """Progress on stderr: one line that is written over, or where that is no terminal its end."""

    def tick(done: int, total: int) -> None:
        if sys.stderr.isatty() or done == total:
            print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return tick


def patented(name: str) -> bool:
    return name in METHODS and METHODS[name].home.startswith("tokentape.explain.lrp:")


def choice(found: Sequence[Evaluation]) -> dict[str, Any]:
    """The default by the rule at the top, from one evaluation a model."""
    whole = reduce(Evaluation.joined, found)
    rows: list[dict[str, Any]] = [
        {
            "method": name,
            "hits": [mean(one, name, "hit") for one in found],
            "hit": float(np.mean([mean(one, name, "hit") for one in found])),
            "abpc_random": mean(whole, name, "abpc_random"),
            "passes": mean(whole, name, "forward") + mean(whole, name, "backward"),
        }
        for name in METHODS
        if name in whole.methods and not patented(name)
    ]
    best = max(rows, key=lambda row: row["hit"], default=None)
    for row in rows:
        against = whole.paired(best["method"], row["method"], "hit") if best else None
        row["behind"] = asdict(against) if against else None
        row["with_the_best"] = row is best or (against is not None and against.low is not None and against.low <= 0)
    rows.sort(key=lambda row: (not row["with_the_best"], -row["abpc_random" if row["with_the_best"] else "hit"]))
    return {"default": rows[0]["method"] if rows else None, "candidates": rows}


def against_peers(default: str, found: Evaluation, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """The default beside the best of each peer, figure by figure, on the same items."""
    rows = []
    for peer in peers:
        theirs = [name for name in found.methods if name.startswith(f"{peer.name}:")]
        for figure in COMPARED:
            if theirs:
                best = max(theirs, key=lambda name: mean(found, name, figure))
                rows.append({"peer": best, "figure": figure, **asdict(found.paired(default, best, figure))})
    return rows


# sanity


def sanity(world: World, given: argparse.Namespace) -> list[dict[str, Any]]:
    """What Adebayo et al. ask of maps, and whether exchanging target and foil turns the sign."""
    items = [one for task in world.tasks for one in asked(world, task, min(given.n, SANITY_ITEMS), given.seed)[0]]
    pairs = [(one.replay, one.question("foil")) for one in items]
    methods = explainers(given.method or list(METHODS))
    shuffled, swapped = [], []
    for name, method in methods.items():
        print(f"{world.name} sanity: {name}", file=sys.stderr)
        try:
            one, other = parameter_randomisation(pairs, {name: method}), foil_swap(pairs, {name: method})
        except ExplainError as error:
            print(f"{name}: {error.what}", file=sys.stderr)
            continue
        shuffled, swapped = shuffled + one, swapped + other
    rows = []
    for one, other in zip(shuffled, swapped, strict=True):
        entry = METHODS[one.method]
        rows.append(
            {
                "method": one.method,
                "n": one.rho.n,
                "rho": one.rho._asdict(),
                "rho_rest": one.rho_rest._asdict(),
                "size": one.size.mean,
                "size_rest": one.size_rest.mean,
                "chance": one.chance,
                "changed": one.changed,
                "claims_parameters": entry.parameters,
                "foil_n": other.n,
                "foil_largest": other.largest,
                "foil_exact": other.exact,
                "flipped": other.flipped,
                "claims_contrastive": entry.contrastive,
            }
        )
    return rows


# cost

N_GENERATED = 128
N_SEGMENTS = 8


def cost(given: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of R[t, s], all generated tokens on all before them, side by side, one after another, and again.

    ``exact`` has each token as a source, ``segments`` eight stretches of the sequence; inseq's own call for all steps is
    asked for input x gradient, where `--peer inseq=...` is given.
    """
    causal = load("demo")
    prompt = causal.encode("The cat sat on the")
    with torch.no_grad():
        # greedy, the end of text left out: what is written does not matter, its length does
        ids = causal.model.generate(
            torch.tensor([prompt]), max_new_tokens=N_GENERATED, min_new_tokens=N_GENERATED, do_sample=False
        )[0].tolist()
    replay = Replay(causal, tuple(ids), len(prompt))
    targets = tuple(range(len(prompt), len(ids)))
    edges = np.linspace(0, len(ids) - 1, N_SEGMENTS + 1).round().astype(int).tolist()
    exact = Question(targets, "logit")
    rough = Question(targets, "logit", segments=tuple(pairwise(edges)))
    runs: dict[str, Callable[[], tuple[float, int, int]]] = {
        f"{name}, {how}": partial(timed, name, replay, question)
        for name in ("input_x_gradient", "leave_one_out", "cp_lrp")
        for how, question in (("exact", exact), ("segments", rough))
    }
    for peer in given.peer:
        if peer.name == "inseq":
            job = {
                "model": causal.path, "method": "input_x_gradient", "value": "logit",
                "all_steps": {"ids": ids, "first": len(prompt)},
            }  # fmt: skip
            runs["inseq input_x_gradient"] = partial(timed_there, peer, job)
    found: dict[str, list[tuple[float, int, int]]] = {name: [] for name in runs}
    for name in ("input_x_gradient", "leave_one_out", "cp_lrp"):
        timed(name, replay, Question(targets[:2], "logit"))  # what is set up at the first call is no part of it
    for repeat in range(given.repeats):
        for name, run in runs.items():
            found[name].append(run())
            print(f"cost {repeat + 1} of {given.repeats}: {name} {found[name][-1][0]:.2f} s", file=sys.stderr)
    theirs = [seconds for seconds, _, _ in found.get("inseq input_x_gradient", [])]
    return {
        "targets": len(targets),
        "tokens": len(ids),
        "repeats": given.repeats,
        "rows": [_cost_row(name, rounds, theirs) for name, rounds in found.items()],
    }


def timed(name: str, replay: Replay, question: Question) -> tuple[float, int, int]:
    own = replace(replay, passes=Passes())
    start = time.process_time()
    METHODS[name](own, question)
    return time.process_time() - start, own.passes.forward, own.passes.backward


def timed_there(peer: Peer, job: Mapping[str, Any]) -> tuple[float, int, int]:
    answer = peer.answer(job)
    return answer["cpu_seconds"], answer["forward"], answer["backward"]


def _cost_row(name: str, rounds: Sequence[tuple[float, int, int]], theirs: Sequence[float]) -> dict[str, Any]:
    seconds = [second for second, _, _ in rounds]
    # of the same round: what else the machine does slows both
    ratios = [b / a for a, b in zip(seconds, theirs, strict=False)]
    return {
        "what": name,
        "cpu_seconds": float(np.median(seconds)),
        "least": min(seconds),
        "most": max(seconds),
        "forward": rounds[0][1],
        "backward": rounds[0][2],
        "times_faster": float(np.median(ratios)) if ratios else None,
    }


# memory

MEMORY = """
import json, resource, sys
import torch
from tokentape.explain.attention.summary import attend
from tokentape.explain.replay import Replay
from tokentape.models.causal import load

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

folder, n = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
causal = load(folder, random_weights=0, dtype=sys.argv[3])
ids = torch.randint(causal.vocab_size, (n,), generator=torch.Generator().manual_seed(0)).tolist()
loaded = peak()
found = attend(Replay(causal, tuple(ids), n - 1))
print(json.dumps({
    "weights_bytes": sum(p.numel() * p.element_size() for p in causal.model.parameters()),
    "loaded_bytes": loaded,
    "peak_bytes": peak(),
    "layers": len(found.n_heads),
    "heads": max(found.n_heads),
    "tokens": n,
}))
"""

NARROW = {
    "architectures": ["BloomForCausalLM"], "model_type": "bloom", "hidden_size": 256, "n_layer": 24, "n_head": 16,
    "vocab_size": 2048, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
"""24 layers of 16 heads as BLOOM-560m has them, which is what attention's memory goes by, and a quarter of its width."""


def memory(given: argparse.Namespace) -> dict[str, Any]:
    """Peak resident memory of a process that reads the attention of one long sequence, weights and torch included."""
    with tempfile.TemporaryDirectory() as passing:
        folder = given.memory_model or Path(passing)
        if given.memory_model is None:
            (folder / "config.json").write_text(json.dumps(NARROW))
        command = [sys.executable, "-c", MEMORY, str(folder), "2048", given.memory_dtype]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, Any] = json.loads(done.stdout)
    # all weights of all layers at once, in float32
    row["all_at_once_bytes"] = 4 * row["layers"] * row["heads"] * row["tokens"] ** 2
    return row


# all of it


def kept(found: Evaluation) -> dict[str, Any]:
    """An evaluation for the record; of single items the figures that are compared."""
    record = found.as_dict()
    for entry in record["methods"].values():
        entry["items"] = {name: entry["items"][name] for name in COMPARED}
    return record


def run_evidence(given: argparse.Namespace, made: Sequence[World]) -> dict[str, Any]:
    record: dict[str, Any] = {"models": {}, "choice": {}, "against_peers": {}}
    found: dict[str, dict[Kind, Evaluation]] = {}
    for world in made:
        notes, found[world.name] = evidence(world, given)
        for kind, tasks in notes["tasks"].items():
            table(f"{world.name}, {kind}", found[world.name][kind])
            by_task(f"{world.name}, {kind}: hit@1 by task", tasks)
            notes["tasks"][kind] = {task: kept(one) for task, one in tasks.items()}
            notes[kind] = {row.method: {} for row in found[world.name][kind].rows()}
            for row in found[world.name][kind].rows():
                notes[kind][row.method][row.figure] = row._asdict()
        told = ", ".join(f"{n} of {task}" for task, n in notes["left_out"].items())
        print(f"\n{world.name}: answered wrong and left out: {told}")
        record["models"][world.name] = notes
    for kind in given.kind:
        chosen = choice([found[world.name][kind] for world in made])
        for world in made:
            short = [
                name
                for name in METHODS
                if name in found[world.name][kind].methods and mean(found[world.name][kind], name, "hit") < ENOUGH
            ]
            print(f"{world.name}, {kind}: hit@1 below {ENOUGH}: {', '.join(short) or 'none'}")
        print_choice(kind, [world.name for world in made], chosen)
        record["choice"][kind] = chosen
        for world in made:
            default = given.default or chosen["default"]
            if default is not None and default in found[world.name][kind].methods:
                rows = against_peers(default, found[world.name][kind], given.peer)
                print_peers(f"{world.name}, {kind}: {default} beside the best of each peer", rows)
                record["against_peers"][f"{world.name} {kind}"] = rows
    return record


def peer(text: str) -> Peer:
    name, _, python = text.partition("=")
    made = Peer(name, python)
    if not python or not made.runner.is_file():
        raise argparse.ArgumentTypeError(f"{text!r}: NAME=PYTHON, with a runner benchmarks/peers/run_NAME.py")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["evidence", "sanity", "cost", "memory"])
    parser.add_argument("--n", type=int, default=200, help="items a task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kind", choices=["foil", "logit", "logprob"], action="append", help="of question; both of the first two"
    )
    parser.add_argument("--model", choices=["demo", "markers"], action="append", help="this one only")
    parser.add_argument("--method", choices=list(METHODS), action="append", help="this one only")
    parser.add_argument(
        "--default", choices=list(METHODS), help="held against the peers, instead of what the rule chooses"
    )
    parser.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--without", action="append", default=[], metavar="METHOD", help="a peer's method to leave out")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of the cost")
    parser.add_argument("--memory-model", type=Path, help="folder of a config.json, instead of 24 narrow layers")
    parser.add_argument("--memory-dtype", default="float32")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, and what is compared item by item")
    given = parser.parse_args()
    given.kind = given.kind or list(KINDS)
    torch.set_num_threads(1)
    start = time.process_time()
    processor = platform.processor() or platform.machine()
    machine = (
        f"{processor}, {os.cpu_count()} cores, 1 thread, torch {torch.__version__}, "
        f"load {os.getloadavg()[0]:.1f}; n = {given.n} a task, seed {given.seed}"
    )
    print(machine, flush=True)
    record: dict[str, Any] = {"machine": machine, "n": given.n, "seed": given.seed}
    made = worlds(given.model or ["demo", "markers"])
    if given.only in (None, "evidence"):
        record["evidence"] = run_evidence(given, made)
    if given.only in (None, "sanity"):
        record["sanity"] = {}
        for world in made:
            record["sanity"][world.name] = sanity(world, given)
            print_sanity(world.name, record["sanity"][world.name])
    if given.only in (None, "cost"):
        record["cost"] = cost(given)
        print_cost(record["cost"])
    if given.only in (None, "memory"):
        record["memory"] = memory(given)
        print_memory(record["memory"])
    print(f"\n{time.process_time() - start:.0f} CPU seconds here")
    if given.json:
        given.json.write_text(json.dumps(record, allow_nan=False))


if __name__ == "__main__":
    main()
