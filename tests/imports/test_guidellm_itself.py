"""GuideLLM in its own environment against the mock server: ``benchmarks/guidellm.py``, where it can run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from study.tools.environments import python_with

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "guidellm.py"


@pytest.mark.tools
@pytest.mark.slow
def test_its_report_agrees_with_our_dialect_to_its_clock() -> None:
    environment = {**os.environ, "TOKENTAPE_GUIDELLM_PYTHON": python_with("guidellm")}
    command = [sys.executable, str(SCRIPT), "--json", "--requests", "31"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["n_requests"] == 31 and found["same_tokens"]
    for name, ours in found["imported"].items():
        theirs = found["printed"][name]
        if name.endswith("per_second"):  # it makes them of time between events, joined where less than 0.1 ms apart
            assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-3)
            continue
        assert ours.pop("n") == theirs["n"]
        for key, value in ours.items():
            if key != "mean" and (Fraction(key[1:]) / 100 * theirs["n"]).denominator == 1:
                continue  # a share that lies on a value's edge, where its sum of doubles decides
            # the difference of two moments, each a double of seconds since 1970
            assert value == pytest.approx(theirs[key], abs=2 * found["clock_s"]), (name, key)
    # nobody reads before it was sent, or is answered before asking: but for how far two clocks of one machine may run apart
    assert all(one["min"] > -1e-3 for one in found["late"].values())
