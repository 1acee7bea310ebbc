"""Write the held-out sets of the demo model's card as files for `tokentape translate`, `classify` and `answer`.

`python tools/demo_sets.py FOLDER [--n 500]` writes english-chinese.jsonl, chinese-english.jsonl, sentiment.jsonl, topic.jsonl and
questions.jsonl (one to four facts, n of each).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from demo_report import N_PER_TASK, TASK_SEED
from demo_scores import held_out_tasks
from tokentape.world import Document

FILES = {
    "translation, English to Chinese": "english-chinese.jsonl",
    "translation, Chinese to English": "chinese-english.jsonl",
    "review, sentiment": "sentiment.jsonl",
    "review, topic": "topic.jsonl",
}
QUESTIONS = "questions.jsonl"
FORMS = {
    "translation": (re.compile(r"\w+: (?P<source>.*)\n\w+:"), "target"),
    "review": (re.compile(r"Review: (?P<text>.*)\n\w+:"), "label"),
    "question": (re.compile(r"Story: (?P<context>.*)\nQuestion: (?P<question>.*)\nAnswer:"), "answer"),
}
"""What of a prompt goes into which field, and the field of its answer."""


def record(document: Document) -> dict[str, str]:
    """A document as the fields that the commands read."""
    form, answer = FORMS[document.kind]
    found = form.fullmatch(document.prompt)
    if found is None:
        raise ValueError(f"the prompt {document.prompt!r} has another form")
    return {**found.groupdict(), answer: document.answer.strip()}


def sets(n: int) -> Mapping[str, list[dict[str, str]]]:
    """The records of each file."""
    found: dict[str, list[dict[str, str]]] = {}
    for task, documents in held_out_tasks(n, TASK_SEED).items():
        found.setdefault(FILES.get(task, QUESTIONS), []).extend(record(document) for document in documents)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=N_PER_TASK, help="held-out documents a task")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, records in sets(options.n).items():
        lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in records]
        (options.folder / name).write_text("".join(lines), encoding="utf-8")
        print(f"{len(records):5} records in {options.folder / name}")


if __name__ == "__main__":
    main()
