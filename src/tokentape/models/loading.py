"""From a name to files on this machine: the demo, a folder, a bare config.json, or a repository of the hub."""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokentape.errors import ModelError, Unreachable, UsageError
from tokentape.models.failures import Attempt, not_cached, translated
from tokentape.models.runtime import require_transformers

__all__ = ["DEMO", "Place", "find", "with_weights"]

DEMO = Path(__file__).with_name("demo")
"""The folder of the model that ships with the package."""

# Top-level files only: repositories keep other formats (ONNX, original checkpoints) in folders.
_SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja", "*.py", "*.tiktoken", "*.bpe")
# Weights that transformers reads, in its own order of preference; the rest of a repository is not downloaded.
_WEIGHTS = (
    ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"),
)
_VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt",
    "tekken.json", "*.tiktoken", "*.bpe", "bpe.codes",
)  # fmt: skip
_FOREIGN = {
    ".gguf": "weights of llama.cpp: serve them with llama-server and record the endpoint",
    ".safetensors": "weights alone: give the folder that holds them together with config.json",
    ".bin": "weights alone: give the folder that holds them together with config.json",
    ".pt": "weights alone: give the folder of a Hugging Face model",
    ".pth": "weights alone: give the folder of a Hugging Face model",
    ".onnx": "an ONNX graph: give the Hugging Face model that it was exported from",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is: ``folder`` holds its files, ``config_file`` its configuration.

    ``repo`` is None for what is local; ``revision`` is the commit of a model of the hub, where the cache tells it.
    """

    name: str
    folder: Path
    config_file: Path
    repo: str | None = None
    revision: str | None = None
    asked_revision: str | None = None

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """Files of weights that would be read, in name order; empty for an architecture alone."""
        for patterns in _WEIGHTS:
            found = [p for p in _matching(self.folder, patterns) if p.suffix != ".json"]
            if found or _matching(self.folder, patterns):
                return tuple(found)
        return ()

    @property
    def has_weights(self) -> bool:
        """True where the folder holds weights, or an index that promises them."""
        return any(_matching(self.folder, patterns) for patterns in _WEIGHTS)

    @property
    def vocabulary_files(self) -> tuple[Path, ...]:
        """Files from which a tokenizer can be made."""
        return tuple(_matching(self.folder, _VOCABULARIES))


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    # a cache holds links, and a dangling one is a file that was deleted: it is not there
    return sorted(p for p in folder.iterdir() if p.is_file() and any(fnmatch.fnmatch(p.name, x) for x in patterns))


def find(name: str, revision: str | None = None, *, trust_remote_code: bool = False) -> Place:
    """The place of a model by its name; configuration and vocabulary are on this machine afterwards, weights not yet.

    ``name`` is ``demo``, a folder, a config.json, or a hub id with an optional ``@revision``.
    Raises UsageError, ModelError, Unreachable.
    """
    if name == "demo":
        if not (DEMO / "config.json").is_file():
            raise ModelError(
                "the demo model is missing from this installation",
                why=f"{DEMO} holds no config.json",
                fix="pip install --force-reinstall tokentape",
            )
        return _local(name, DEMO, revision)
    path = Path(name).expanduser()
    if path.exists():
        return _local(name, path, revision)
    bare, at, inline = name.rpartition("@")
    if at:
        if revision is not None and revision != inline:
            raise UsageError(
                f"{name!r} names revision {inline!r}, and revision {revision!r} is asked for too",
                why="there can be only one",
                fix=f"drop one of the two: {name}, or {bare} --revision {revision}",
            )
        name, revision = bare, inline
    if _looks_like_path(name):
        raise UsageError(
            f"there is no {name!r} here",
            why=f"the current folder is {Path.cwd()}",
            fix="give an existing folder, a hub id such as bigscience/bloom-560m, or 'demo'",
        )
    return _from_hub(name, revision, trust_remote_code)


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).suffix in {".json", *_FOREIGN}


def _local(name: str, path: Path, revision: str | None) -> Place:
    if revision is not None:
        raise UsageError(
            f"{name} is a folder on this machine and has no revision {revision!r}",
            why="revisions belong to repositories of the hub",
            fix="leave the revision out",
        )
    if path.is_file():
        if path.suffix != ".json":
            reason = _FOREIGN.get(path.suffix, "no config.json and no folder")
            raise UsageError(f"{name} is no model", why=f"it is {reason.split(':')[0]}", fix=_advice(reason))
        return Place(name, path.parent, path)
    if not (path / "config.json").is_file():
        raise _no_config(name, path)
    return Place(name, path, path / "config.json")


def _advice(reason: str) -> str:
    return (
        reason.partition(": ")[2] or "give a folder with config.json, or config.json itself with --random-weights SEED"
    )


def _no_config(name: str, folder: Path) -> ModelError:
    held = sorted(p.name for p in folder.iterdir())
    if (folder / "adapter_config.json").is_file():
        return ModelError(
            f"{name} is an adapter, no model",
            why="it holds adapter_config.json and no config.json: weights to be added to a base model's",
            fix="merge it into its base model (peft: merge_and_unload, then save_pretrained) and give that folder",
        )
    for suffix, reason in _FOREIGN.items():
        if any(entry.endswith(suffix) for entry in held):
            return ModelError(
                f"{name} holds no config.json", why=f"it holds {reason.split(':')[0]}", fix=_advice(reason)
            )
    shown = ", ".join(held[:8]) + (", ..." if len(held) > 8 else "") if held else "nothing"
    return ModelError(
        f"{name} holds no config.json",
        why=f"it holds {shown}",
        fix="give the folder of a Hugging Face model: config.json, its weights and its tokenizer",
    )


def _from_hub(name: str, revision: str | None, trust_remote_code: bool) -> Place:
    require_transformers()
    import huggingface_hub

    small = [pattern for pattern in _SMALL_FILES if trust_remote_code or pattern != "*.py"]
    with translated(Attempt(name, "looking it up", revision)):
        folder = Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=small, ignore_patterns=["*/*"], tqdm_class=_silent_bar()
            )
        )
    if not (folder / "config.json").is_file():
        if huggingface_hub.constants.is_offline_mode():
            raise not_cached(Attempt(name, "looking it up", revision))
        raise _no_config(name, folder)
    commit = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else None
    return Place(name, folder, folder / "config.json", repo=name, revision=commit, asked_revision=revision)


def _silent_bar() -> Any:
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):  # type: ignore[type-arg,unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

    return Silent


def with_weights(place: Place) -> Place:
    """The same place with its weights on this machine, downloaded where the hub has them and the cache has not.

    Raises Unreachable where they are not cached and the hub is out of reach.
    """
    if place.repo is None:
        return place
    import huggingface_hub

    revision = place.revision or place.asked_revision
    attempt = Attempt(place.name, "downloading its weights", place.asked_revision)
    kinds: tuple[tuple[str, ...], ...] = _WEIGHTS
    if not huggingface_hub.constants.is_offline_mode():
        with translated(attempt):
            try:
                files = huggingface_hub.HfApi().list_repo_files(place.repo, revision=revision)
            except Exception:
                if not _complete(place):
                    raise
                return place
        kinds = tuple(patterns for patterns in _WEIGHTS if any(fnmatch.fnmatch(f, p) for f in files for p in patterns))
        if kinds:
            with translated(attempt):
                huggingface_hub.snapshot_download(
                    place.repo, revision=revision, allow_patterns=list(kinds[0]), ignore_patterns=["*/*"]
                )
    if kinds and not _complete(place):
        raise _weights_not_cached(attempt)
    return place


def _weights_not_cached(attempt: Attempt) -> Unreachable:
    error = not_cached(attempt)
    error.what = f"the weights of {attempt.name} are not in the cache, and the hub is out of reach"
    error.args = (error.what,)
    return error


def _complete(place: Place) -> bool:
    """True where every file that the index names is there, or a single file of weights."""
    for patterns in _WEIGHTS:
        index = place.folder / patterns[2]
        if index.is_file():
            try:
                wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (ValueError, KeyError, AttributeError):
                return True  # reading it again while loading tells what is wrong with it
            return all((place.folder / file).is_file() for file in wanted)
        if (place.folder / patterns[0]).is_file():
            return True
    return False
