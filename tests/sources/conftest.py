"""Fixtures of the tests of sources."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def every_step_has_its_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models here are so small that most steps would share one."""
    monkeypatch.setattr("tokentape.recorder.recorder.READING_NS", 0)
