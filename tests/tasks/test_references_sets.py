"""The held-out sets as files: read again and put into the templates, they are the world's own documents."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tokentape.tasks.records import read_records
from tokentape.tasks.templates import load_template

pytest.importorskip("torch")
TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.parametrize(
    ("name", "job", "template", "shared"),
    [
        ("english-chinese.jsonl", "translate", "pair", {"from": "English", "to": "Chinese"}),
        ("chinese-english.jsonl", "translate", "pair", {"from": "Chinese", "to": "English"}),
        ("sentiment.jsonl", "classify", "sentiment", {}),
        ("topic.jsonl", "classify", "topic", {}),
        ("questions.jsonl", "answer", "story", {}),
    ],
)
def test_files_hold_the_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, job: str, template: str, shared: dict[str, str]
) -> None:
    monkeypatch.setattr(sys, "path", [str(TOOLS), *sys.path])
    from demo_report import TASK_SEED
    from demo_scores import held_out_tasks
    from demo_sets import FILES, QUESTIONS, sets

    path = tmp_path / name
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in sets(3)[name]), encoding="utf-8")
    records = read_records(path, job)
    chosen = load_template(template, job)
    whole = [
        chosen.fill(**shared, **record) + chosen.follow(right[0])
        for record, right in zip(records.inputs, records.references, strict=True)
    ]
    tasks = held_out_tasks(3, TASK_SEED)
    assert whole == [one.text for task, found in tasks.items() if FILES.get(task, QUESTIONS) == name for one in found]
