"""tokentape: the flight recorder of language-model inference.

It records what a model does while it generates, one row per step and one row per token, and lets you read the tape back.
Every name below is imported on first use, so that opening a tape never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tokentape._version import __version__
from tokentape.display import Bundle, displayed_by

if TYPE_CHECKING:
    from tokentape.clock import FakeClock
    from tokentape.control.grammar.grammar import Grammar
    from tokentape.control.guard.guard import Guard
    from tokentape.control.guidance.contrast import Contrast
    from tokentape.control.guidance.direction import Direction, steering_direction
    from tokentape.control.guidance.guidance import Guidance
    from tokentape.control.guidance.steering import Steering
    from tokentape.data.explanation import Explanation
    from tokentape.data.request import Request
    from tokentape.data.setting import Setting
    from tokentape.data.tape import Tape, open_tape, verify
    from tokentape.data.trace import Trace
    from tokentape.errors import TokentapeError
    from tokentape.experiment.sweep import sweep
    from tokentape.explain.explaining import explain, replay
    from tokentape.exports.exporting import export
    from tokentape.imports.importing import import_results
    from tokentape.load.loading import load
    from tokentape.recorder.run import record
    from tokentape.sources.attach import recording
    from tokentape.sources.endpoint.source import EndpointSource, endpoint
    from tokentape.sources.local import LocalSource, local
    from tokentape.sources.scripted import Line, ScriptedSource
    from tokentape.study.compare import compare
    from tokentape.study.cost.prediction import predict
    from tokentape.study.law.laws import Law, fit
    from tokentape.study.metrics import metrics, summary
    from tokentape.study.simulate.simulation import simulate
    from tokentape.study.slo import Slo
    from tokentape.tasks.answer import answer
    from tokentape.tasks.classify import classify
    from tokentape.tasks.score import score
    from tokentape.tasks.translate import translate
    from tokentape.views.notebook import notebook

    open = open_tape

_HOMES = {
    "Contrast": "tokentape.control.guidance.contrast",
    "Direction": "tokentape.control.guidance.direction",
    "EndpointSource": "tokentape.sources.endpoint.source",
    "Explanation": "tokentape.data.explanation",
    "FakeClock": "tokentape.clock",
    "Grammar": "tokentape.control.grammar.grammar",
    "Guard": "tokentape.control.guard.guard",
    "Guidance": "tokentape.control.guidance.guidance",
    "Law": "tokentape.study.law.laws",
    "Line": "tokentape.sources.scripted",
    "LocalSource": "tokentape.sources.local",
    "Request": "tokentape.data.request",
    "ScriptedSource": "tokentape.sources.scripted",
    "Setting": "tokentape.data.setting",
    "Slo": "tokentape.study.slo",
    "Steering": "tokentape.control.guidance.steering",
    "Tape": "tokentape.data.tape",
    "TokentapeError": "tokentape.errors",
    "Trace": "tokentape.data.trace",
    "answer": "tokentape.tasks.answer:answer",
    "classify": "tokentape.tasks.classify:classify",
    "compare": "tokentape.study.compare",
    "endpoint": "tokentape.sources.endpoint.source:endpoint",
    "explain": "tokentape.explain.explaining:explain",
    "export": "tokentape.exports.exporting",
    "fit": "tokentape.study.law.laws",
    "import_results": "tokentape.imports.importing",
    "load": "tokentape.load.loading:load",
    "local": "tokentape.sources.local",
    "metrics": "tokentape.study.metrics",
    "notebook": "tokentape.views.notebook",
    "open": "tokentape.data.tape:open_tape",
    "predict": "tokentape.study.cost.prediction",
    "record": "tokentape.recorder.run",
    "replay": "tokentape.explain.explaining:replay",
    "recording": "tokentape.sources.attach",
    "steering_direction": "tokentape.control.guidance.direction",
    "score": "tokentape.tasks.score:score",
    "simulate": "tokentape.study.simulate.simulation:simulate",
    "summary": "tokentape.study.metrics",
    "sweep": "tokentape.experiment.sweep",
    "translate": "tokentape.tasks.translate:translate",
    "verify": "tokentape.data.tape",
}

__all__ = [
    "Contrast",
    "Direction",
    "EndpointSource",
    "Explanation",
    "FakeClock",
    "Grammar",
    "Guard",
    "Guidance",
    "Law",
    "Line",
    "LocalSource",
    "Request",
    "ScriptedSource",
    "Setting",
    "Slo",
    "Steering",
    "Tape",
    "TokentapeError",
    "Trace",
    "__version__",
    "answer",
    "classify",
    "compare",
    "endpoint",
    "explain",
    "export",
    "fit",
    "import_results",
    "load",
    "local",
    "metrics",
    "notebook",
    "open",
    "predict",
    "record",
    "recording",
    "replay",
    "score",
    "simulate",
    "steering_direction",
    "summary",
    "sweep",
    "translate",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"tokentape has no {name!r}; it has {', '.join(__all__)}")
    module, _, attribute = home.partition(":")
    value = getattr(_imported(module, name), attribute or name)
    globals()[name] = value
    return value


def _imported(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub"):
            raise
        from tokentape.errors import MissingExtra

        raise MissingExtra(
            f"tokentape.{name} needs {missing}, which is not installed",
            why="models in this process need the extra [local]; opening and studying tapes does not",
            fix="pip install 'tokentape[local]'",
        ) from error


def _shown(value: Any) -> Bundle:
    from tokentape.views.notebook import mimebundle

    return mimebundle(value)


displayed_by(_shown)


def __dir__() -> list[str]:
    return sorted(__all__)
