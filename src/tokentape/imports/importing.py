"""Results of other benchmark tools as tapes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokentape.data.files import destination
from tokentape.errors import TapeExists, UsageError
from tokentape.imports import aiperf, guidellm, inference_perf, llama_bench, vllm
from tokentape.imports.reading import documents
from tokentape.imports.results import Results, write

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["TOOLS", "import_results"]


@dataclass(frozen=True, slots=True)
class Tool:
    """How to know results of a tool, what parts they have, how to read one, and whether one tape can hold all of them."""

    is_ours: Callable[[Sequence[Any]], bool]
    parts: Callable[[Sequence[Any]], list[str]]
    read: Callable[[Sequence[Any], str, int | None], Results]
    is_one: Callable[[Sequence[Any]], bool] = lambda _: False


TOOLS: dict[str, Tool] = {
    "vllm": Tool(vllm.is_ours, vllm.parts, vllm.read),
    "aiperf": Tool(aiperf.is_ours, aiperf.parts, aiperf.read),
    "guidellm": Tool(guidellm.is_ours, guidellm.parts, guidellm.read),
    "inference-perf": Tool(inference_perf.is_ours, inference_perf.parts, inference_perf.read),
    "llama-bench": Tool(llama_bench.is_ours, llama_bench.parts, llama_bench.read, llama_bench.is_one),
}
"""The tools whose results can be read, by name."""


def import_results(
    file: str | Path,
    path: str | Path | None = None,
    *,
    tool: str | None = None,
    part: int | None = None,
    overwrite: bool = False,
) -> Tape:
    """Results of a benchmark tool as a tape at ``path``, in memory where that is None; what the file lacks is null.

    ``tool`` is one of ``TOOLS``, known from the content where it is not given. A file of several benchmarks makes a tape of
    its ``part``, counted from 0. Raises UsageError, before anything is written, for what cannot be read.
    """
    source = Path(file)
    place = None if path is None else destination(path)
    if place is not None and place.exists() and not overwrite:
        raise TapeExists(
            f"{place} already exists", why="nothing is overwritten unasked", fix="another path, or --overwrite"
        )
    found = documents(source)
    name = _tool(found, source, tool)
    known = TOOLS[name]
    if not known.is_ours(found):
        told = next((other for other, one in TOOLS.items() if one.is_ours(found)), None)
        why = "they look like none that is known" if told is None else f"they look like those of {told}"
        raise UsageError(f"{source} has no results of {name}", why=why, fix="leave --from out" if told else _expected())
    _check_part(known.parts(found), part, source, together=known.is_one(found))
    results = known.read(found, str(source), part)
    if not results.asked:
        raise UsageError(f"{source} has no request", why="nothing was measured", fix="give another file")
    return write(results, source, place, overwrite=overwrite)


def _tool(found: Sequence[Any], source: Path, asked: str | None) -> str:
    if asked is not None:
        if asked not in TOOLS:
            near = difflib.get_close_matches(asked.lower(), TOOLS, n=1)
            fix = f"did you mean {near[0]}?" if near else "leave it out: the tool is known from the content"
            raise UsageError(f"no tool {asked!r}", why=f"there are {', '.join(TOOLS)}", fix=fix)
        return asked
    told = next((name for name, one in TOOLS.items() if one.is_ours(found)), None)
    if told is None:
        why = f"they look like those of none of {', '.join(TOOLS)}"
        raise UsageError(f"{source} has results of no tool that is known", why=why, fix=_expected())
    return told


def _check_part(names: Sequence[str], part: int | None, source: Path, *, together: bool) -> None:
    listed = "; ".join(f"{i} {name}" for i, name in enumerate(names[:20]))
    if part is None and len(names) > 1 and not together:
        why = f"a tape holds one: {listed}"
        raise UsageError(f"{source} has {len(names)} benchmarks", why=why, fix="--part 0")
    if part is not None and not 0 <= part < len(names):
        raise UsageError(f"{source} has no part {part}", why=f"there are {listed}", fix="--part 0")


def _expected() -> str:
    return "give what `vllm bench serve --save-result --save-detailed` or another of them wrote"
