"""Running the command line in this process, and a model on paper behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tokentape
from tokentape import Line, ScriptedSource
from tokentape.cli.program import run
from tokentape.recorder.tick import Said

MS = 1_000_000


@dataclass
class Done:
    code: int
    out: str
    err: str


class PaperModel(ScriptedSource):
    """A scripted source with the few things that the command line asks of a model."""

    vocab_size = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.causal = SimpleNamespace(model=SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=2)))

    def encode(self, text: str, *, bos: bool | None = None) -> list[int]:
        return list(text.encode())


@pytest.fixture
def tape(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """``tape("show", path)``: the exit code and what was printed."""

    def invoke(*arguments: Any) -> Done:
        capfdbinary.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return Done(code, out.decode(), err.decode())

    return invoke


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A paper model in place of every model, in an empty folder; gives what was asked of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOKENTAPE_DIR", raising=False)
    noted: dict[str, Any] = {}
    record = tokentape.record
    script = [
        Line(5 * MS, [Said(0, None, b" mat", -0.5, 1.0, 1)]),
        Line(2 * MS, [Said(0, None, b".\n", -1.5, 1.0, 2)]),
    ]
    noted["script"] = script

    def local(name: str, **load: Any) -> PaperModel:
        noted.update(model=name, load=load)
        return PaperModel(noted["script"], facts={"model": name})

    def recorded(source: Any, prompt: Any, **options: Any) -> Any:
        noted.update(prompt=prompt, options=options, eos=source.causal.model.generation_config.eos_token_id)
        own = ("path", "probe", "candidates", "seed", "overwrite", "text", "observer")
        return record(source, prompt, **{name: options[name] for name in own})

    monkeypatch.setattr(tokentape, "local", local)
    monkeypatch.setattr(tokentape, "record", recorded)
    return noted
