"""Cases that lm-evaluation-harness has scored: `fixtures/lm_eval.json` says which, and what it found.

Texts that are not ours are named by file and line number of the material. `benchmarks/score.py parity` asks the harness again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIXTURE = Path(__file__).parent / "fixtures" / "lm_eval.json"
ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"demo": ROOT / "src" / "tokentape" / "models" / "demo"}


def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(FIXTURE.read_text(encoding="utf-8"))["cases"]
    return found


def needs_material(case: dict[str, Any]) -> bool:
    return case["model"] not in FOLDERS or "lines" in case


def folder_of(case: dict[str, Any], material: Path | None) -> Path:
    return FOLDERS.get(case["model"]) or (material or Path()) / "models" / case["model"]


def given_of(case: dict[str, Any], material: Path | None) -> list[Any]:
    """The texts of a rolling case; pairs of context and continuation of any other."""
    if "given" in case:
        return list(case["given"])
    assert material is not None
    numbers = case["lines"]["numbers"]
    lines = (material / "text" / case["lines"]["file"]).read_text(encoding="utf-8").split("\n")
    picked = [lines[number] for number in numbers]
    if case["lines"]["file"].endswith(".jsonl"):
        texts = [json.loads(line)["text"] for line in picked]
        return [[text.rpartition(" ")[0], " " + text.rpartition(" ")[2]] for text in texts]
    return ["\n".join(picked)] if case["lines"]["joined"] else picked


def job_of(case: dict[str, Any], material: Path | None) -> dict[str, Any]:
    """What the harness is asked: see `benchmarks/peers/run_lm_eval.py`."""
    task = {name: case[name] for name in ("kind", "add_bos_token", "max_length")}
    task["texts" if case["kind"] == "rolling" else "pairs"] = given_of(case, material)
    return {"model": str(folder_of(case, material)), "tasks": [task]}
