"""Reproduce the figures of the demo model's card: `python tools/evaluate_demo.py [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from demo_folder import FOLDER
from demo_report import N_PER_TASK, N_STORIES, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--n", type=int, default=N_PER_TASK, help="held-out documents a task")
    parser.add_argument("--stories", type=int, default=N_STORIES, help="held-out stories")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    report = measure(options.folder, n_per_task=options.n, n_stories=options.stories)
    print(json.dumps(report.as_dict(), indent=2) if options.json else report.as_table())


if __name__ == "__main__":
    main()
