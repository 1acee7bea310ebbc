"""Run by a Python that has vLLM's benchmark: its own function over the events on stdin, its figures to stdout, in seconds.

Where only the files of the benchmark are there (`unpack_vllm_bench.py`), what they import of the rest of vLLM is named and
never asked: the function that makes the figures uses none of it, and would fail if it did.
"""

import json
import sys
import warnings
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType, SimpleNamespace

given = json.load(sys.stdin)


class Absent(ModuleType):
    """A module that is not there: each of its names is a class that can be called and does nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None})


class Rest:
    """The last finder: it is asked for what no other has found, and has it of vLLM alone."""

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name.startswith("vllm.") else None

    def create_module(self, spec):
        return Absent(spec.name)

    def exec_module(self, module):
        pass


found = find_spec("vllm")
if found is not None and found.origin is None:  # a folder without vLLM's own beginning
    sys.meta_path.append(Rest())
from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput  # noqa: E402
from vllm.benchmarks.serve import calculate_metrics  # noqa: E402

warnings.simplefilter("ignore")


def no_tokens(text, add_special_tokens):
    """Its tokenizer, which it asks where a server counted no token: of an answer without a word there are none."""
    return SimpleNamespace(input_ids=[])


outputs = []
for one in given["requests"]:
    moments, start = one["messages"], one["start"]
    outputs.append(
        RequestFuncOutput(
            success=one["ended"] and bool(moments),
            latency=moments[-1] - start if moments else 0.0,
            output_tokens=one["n"],
            ttft=moments[0] - start if moments else 0.0,
            itl=[after - before for before, after in pairwise(moments)],
            prompt_len=one["n_prompt"],
            start_time=start,
        )
    )
slo = {name: given["slo"][key] * 1e3 for name, key in (("ttft", "ttft"), ("tpot", "gap"), ("e2el", "e2e"))}
sys.stdout, out = sys.stderr, sys.stdout
found, _ = calculate_metrics([], outputs, given["duration"], no_tokens, [50, 99], slo)
figures = {}
for name in ("ttft", "tpot", "itl", "e2el"):
    shares = dict(getattr(found, f"percentiles_{name}_ms"))
    values = {"mean": getattr(found, f"mean_{name}_ms"), "std": getattr(found, f"std_{name}_ms")}
    figures[name] = {**{k: v / 1e3 for k, v in values.items()}, **{f"{q:g}": v / 1e3 for q, v in shares.items()}}
figures["request_throughput"] = {"mean": found.request_throughput}
figures["output_throughput"] = {"mean": found.output_throughput}
json.dump({"figures": figures, "n_counted": found.completed, "good_per_s": found.request_goodput}, out, default=float)
