"""Load any Hugging Face causal language model and its tokenizer, and know what it can read."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import tokentape.models.loading as loading
from tokentape.errors import ModelError, PromptError, UsageError
from tokentape.models.architecture import check_causal, positions_of, positions_reason
from tokentape.models.failures import Attempt, out_of_memory, translated
from tokentape.models.loading import Place
from tokentape.models.parallel import sharded, sharded_options
from tokentape.models.pieces import Pieces, pieces_of
from tokentape.models.runtime import (
    memory_bytes,
    parse_device,
    parse_dtype,
    quiet,
    require_torch,
    require_transformers,
)

__all__ = ["CausalModel", "load"]

BIG_BYTES = 2_000_000_000
"""Weights from this size on show their progress, on stderr and only where that is a terminal."""


@dataclass(frozen=True)
class CausalModel:
    """A causal language model ready to be run: evaluation mode, no gradients of its parameters.

    ``name`` is as it was asked for; ``revision`` the commit of a model of the hub; ``path`` the folder of its files;
    ``positions`` the most positions it can read, None where nothing bounds them (ALiBi, recurrent states);
    ``vocab_size`` the rows of its embedding, which may be more than its tokenizer has entries; ``random_weights`` the
    seed of weights that were drawn instead of read.
    """

    model: Any
    tokenizer: Any | None
    name: str
    revision: str | None
    path: str | None
    positions: int | None
    vocab_size: int
    random_weights: int | None = None
    weight_files: tuple[str, ...] = field(default=(), repr=False)

    @property
    def config(self) -> Any:
        """The configuration that transformers runs the model with."""
        return self.model.config

    @property
    def device(self) -> Any:
        """The ``torch.device`` of the input embedding, where the token ids have to be."""
        embedding = self.model.get_input_embeddings()
        return next(embedding.parameters()).device if embedding is not None else self.model.device

    @property
    def dtype(self) -> Any:
        """The ``torch.dtype`` of the parameters."""
        return self.model.dtype

    @property
    def bos_id(self) -> int | None:
        """Id of the token that opens a sequence; null where the model has none."""
        bos = getattr(self.tokenizer, "bos_token_id", None)
        found = self.config.get_text_config(decoder=True).bos_token_id if bos is None else bos
        return None if found is None else int(found)

    @cached_property
    def pieces(self) -> Pieces:
        """Bytes of the vocabulary's tokens; without a tokenizer every token is nameless."""
        return pieces_of(self.tokenizer)

    def encode(self, prompt: str | Sequence[int], *, bos: bool | None = None) -> list[int]:
        """Token ids of a prompt.

        A text gives what ``tokenizer(prompt)`` gives, special tokens that the tokenizer adds itself included; ids are
        checked and returned. ``bos=True`` puts the token that opens a sequence in front where it is not there already,
        ``bos=False`` leaves away the one that the tokenizer adds. Raises ModelError for a text without a tokenizer, and
        PromptError for an empty prompt or an id outside of the vocabulary.
        """
        ids = self._tokenized(prompt, bos) if isinstance(prompt, str) else self._checked(prompt)
        if bos:
            if self.bos_id is None:
                raise PromptError(
                    f"{self.name} has no token that opens a sequence",
                    why="neither its tokenizer nor its config.json names a BOS token",
                    fix="leave --bos out",
                )
            if not ids or ids[0] != self.bos_id:
                ids = [self.bos_id, *ids]
        if not ids:
            raise PromptError(
                "the prompt is empty",
                why="a causal model continues a sequence and needs at least one token to start from",
                fix="give some text"
                + ("" if self.bos_id is None else ", or --bos to start from the token that opens a sequence"),
            )
        self._check_range(ids)
        return ids

    def _tokenized(self, prompt: str, bos: bool | None) -> list[int]:
        if self.tokenizer is None:
            raise ModelError(
                f"{self.name} has no tokenizer",
                why=f"{self.path or 'its folder'} holds no vocabulary, so a text cannot become token ids",
                fix="give token ids instead of text, or put the model's tokenizer.json into its folder",
            )
        try:
            with (
                quiet()
            ):  # a tokenizer warns of texts that are longer than the model reads, which is refused where it matters
                ids = list(self.tokenizer(prompt)["input_ids"])
                if bos is False and ids and ids[0] == self.bos_id:
                    plain = list(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])
                    # one that the text itself spells stays
                    ids = ids if plain and plain[0] == self.bos_id else ids[1:]
        except (TypeError, UnicodeError) as error:
            raise PromptError(
                "the prompt is no Unicode text",
                why=f"the tokenizer of {self.name} refuses it: {error}",
                fix="decode it as UTF-8 with errors='replace' first",
            ) from error
        return ids

    def _checked(self, prompt: Sequence[int]) -> list[int]:
        try:
            return [operator.index(token) for token in prompt]
        except TypeError as error:
            raise PromptError(
                "the prompt is neither text nor token ids",
                why=f"token ids are whole numbers: {error}",
                fix="give a str, or a flat list of ids such as [1, 42, 7]",
            ) from error

    def _check_range(self, ids: list[int]) -> None:
        if min(ids) >= 0 and max(ids) < self.vocab_size:
            return
        where, token = next((i, t) for i, t in enumerate(ids) if not 0 <= t < self.vocab_size)
        raise PromptError(
            f"token id {token} at position {where} is outside of the vocabulary",
            why=f"{self.name} has {self.vocab_size} entries, 0 to {self.vocab_size - 1}",
            fix="use the ids of this model's own tokenizer",
        )

    def check_length(self, n_prompt: int, n_new: int, *, instead: str = "") -> None:
        """Raise PromptError where ``n_prompt`` tokens and ``n_new`` more do not fit into the model's positions.

        ``instead`` is another way out that the caller has, for the error to name.
        """
        if self.positions is None or n_prompt + n_new <= self.positions:
            return
        reason = positions_reason(self.config, self.positions)
        if n_prompt > self.positions:
            raise PromptError(
                f"the prompt has {n_prompt} tokens, and {self.name} reads {self.positions}",
                why=reason,
                fix=f"shorten the prompt by {n_prompt - self.positions} tokens, or take a model with more positions{instead}",
            )
        room = self.positions - n_prompt
        fix = f"--max-new-tokens {room}" if room else "shorten the prompt: it leaves room for no new token"
        raise PromptError(
            f"{n_prompt} prompt tokens and {n_new} new ones are more than the {self.positions} that {self.name} reads",
            why=reason,
            fix=f"{fix}; or a model with more positions{instead}",
        )


def load(
    name: str | Path,
    *,
    dtype: Any = "auto",
    device: Any = "auto",
    revision: str | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    random_weights: int | None = None,
    tp_plan: str | None = None,
) -> CausalModel:
    """Load a causal language model.

    ``name`` is ``"demo"`` (the model that ships with the package), a hub id, ``id@revision``, a folder, or a
    config.json; a configuration without weights needs ``random_weights``, the seed from which they are drawn. ``dtype``
    is ``auto`` (as saved), float32, bfloat16 or float16; ``device`` is ``auto`` (CUDA, MPS, CPU), cpu, cuda, cuda:1,
    mps. ``tp_plan`` ``"auto"`` loads this rank's part of the model, in a process that ``torchrun`` started.

    Raises UsageError for what contradicts itself or does not exist, ModelError for a model that cannot be recorded,
    OutOfMemory, Unreachable for what is neither cached nor reachable, MissingExtra for a package or device that is
    absent.
    """
    transformers = require_transformers()
    torch_dtype, torch_device = parse_dtype(dtype), parse_device(device)
    place = loading.find(str(name), revision, trust_remote_code=trust_remote_code)
    attempt = Attempt(place.name, "reading its config.json", place.asked_revision, torch_device)
    attempt = replace(attempt, attn_implementation=attn_implementation)
    _check_seed(place, random_weights)
    config = _read_config(place, attempt, trust_remote_code)
    check_causal(config, place.name, trusted=trust_remote_code)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if tp_plan is not None:
        options |= sharded_options(config, place.name, tp_plan, torch_device)
    auto = transformers.AutoModelForCausalLM
    tokenizer = _read_tokenizer(place, attempt, trust_remote_code)
    if random_weights is None:
        place = loading.with_weights(place)
        model = _read_weights(auto, config, place, attempt, torch_dtype, options)
    else:
        model = _draw_weights(auto, config, random_weights, attempt, torch_dtype, options)
    model.eval()
    model.requires_grad_(False)
    embedding = model.get_input_embeddings()
    rows = getattr(embedding, "num_embeddings", None) or embedding.weight.shape[0]
    return CausalModel(
        model=model,
        tokenizer=tokenizer,
        name=place.name,
        revision=place.revision,
        path=str(place.folder),
        positions=positions_of(config),
        vocab_size=int(rows),
        random_weights=random_weights,
        weight_files=() if random_weights is not None else tuple(str(p) for p in place.weight_files),
    )


def _check_seed(place: Place, seed: int | None) -> None:
    if seed is not None and (place.repo is not None or place.has_weights):
        held = "a repository of the hub" if place.repo else f"{place.folder} holds weights"
        raise UsageError(
            f"{place.name} has weights of its own, and random weights are asked for",
            why=f"{held}; random weights are for an architecture alone",
            fix="leave --random-weights out, or give a config.json that lies in a folder without weights",
        )
    if seed is not None and not 0 <= seed < 2**63:
        raise UsageError(f"{seed} is no seed", why="a seed lies in 0 .. 2**63 - 1", fix="--random-weights 0")
    if seed is None and place.repo is None and not place.has_weights:
        raise UsageError(
            f"{place.name} is an architecture without weights",
            why=f"{place.folder} holds neither model.safetensors nor pytorch_model.bin",
            fix="--random-weights SEED draws them (for timing, not for text); or give the whole model folder",
        )


def _read_config(place: Place, attempt: Attempt, trust_remote_code: bool) -> Any:
    transformers = require_transformers()
    try:
        raw = json.loads(place.config_file.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the config.json of {place.name} cannot be read",
            why=f"{place.config_file}: {error}",
            fix="copy or download it again",
        ) from error
    known = raw.get("model_type") in transformers.CONFIG_MAPPING
    if not trust_remote_code and not known and "auto_map" in raw:
        raise ModelError(
            f"{place.name} needs code that comes with it",
            why=f"transformers has no architecture {raw.get('model_type')!r}, and foreign code is never run unasked",
            fix="read the *.py files of the repository, then --trust-remote-code",
        )
    with translated(attempt), quiet():
        source = place.folder if place.config_file.name == "config.json" else place.config_file
        return transformers.AutoConfig.from_pretrained(str(source), trust_remote_code=trust_remote_code)


def _read_tokenizer(place: Place, attempt: Attempt, trust_remote_code: bool) -> Any | None:
    """The tokenizer, or None where the folder holds no vocabulary; a broken one is an error."""
    transformers = require_transformers()
    vocabularies = place.vocabulary_files
    if not vocabularies and not (place.folder / "tokenizer_config.json").is_file():
        return None
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(place.folder), trust_remote_code=trust_remote_code
            )
    except Exception as error:
        if not vocabularies:
            return None  # options of a tokenizer whose vocabulary is not here
        with translated(attempt):  # a missing package, or code that is not trusted, says so itself
            if isinstance(error, ImportError) or "trust_remote_code" in str(error):
                raise
        raise ModelError(
            f"the tokenizer of {place.name} is broken",
            why=f"{', '.join(p.name for p in vocabularies)} cannot be read: {type(error).__name__}: {str(error)[:200]}",
            fix="copy or download the tokenizer files again; without any, token ids can be given as prompt",
        ) from error
    # a byte-level tokenizer needs no file; an empty vocabulary is one whose file is missing
    return tokenizer if vocabularies or len(tokenizer) > 200 else None


def _read_weights(auto: Any, config: Any, place: Place, attempt: Attempt, dtype: Any, options: dict[str, Any]) -> Any:
    torch = require_torch()
    device, size = attempt.device, sum(p.stat().st_size for p in place.weight_files)
    attempt = replace(attempt, doing="reading its weights", needed_bytes=size or None)
    parts = _parts(options)
    if device.type != "cpu" and _direct_to_device() and not parts:
        options = {**options, "device_map": {"": device}}
    with translated(attempt), quiet(progress=size >= BIG_BYTES), torch.no_grad():
        model, report = auto.from_pretrained(
            str(place.folder),
            config=config,
            dtype=dtype,
            output_loading_info=True,
            # shapes that differ come back in the report, which says more than the exception
            ignore_mismatched_sizes=True,
            local_files_only=True,
            **options,
        )
        _check_report(place.name, report, type(model).__name__)
        if getattr(model, "hf_quantizer", None) is None and not parts:
            model.to(device)
    return model


def _parts(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that ask for a part of the model."""
    return {name: options[name] for name in ("distributed_config", "tp_plan") if name in options}


def _direct_to_device() -> bool:
    from transformers.utils import is_accelerate_available

    return bool(is_accelerate_available())


def _check_report(name: str, report: dict[str, Any], architecture: str) -> None:
    """Refuse a model of which a part was drawn at random because its weights were absent or of another shape."""
    mismatched = sorted(report.get("mismatched_keys") or ())
    missing = sorted(set(report.get("missing_keys") or ()) - {key for key, *_ in mismatched})
    if mismatched:
        key, saved, wanted = mismatched[0]
        why = (
            f"{len(mismatched)} of another shape: {key} is {list(saved)} in the file, {list(wanted)} in {architecture}"
        )
    elif missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        why = f"{len(missing)} missing: {shown}; transformers would draw them at random and say no more"
    elif report.get("error_msgs"):
        why = "; ".join(report["error_msgs"])[:300]
    else:
        return
    raise ModelError(
        f"the weights of {name} do not make a whole {architecture}",
        why=why,
        fix="download or copy the weights again, or correct config.json to the model that they belong to",
    )


def _draw_weights(auto: Any, config: Any, seed: int, attempt: Attempt, dtype: Any, options: dict[str, Any]) -> Any:
    torch = require_torch()
    parts = _parts(options)
    options = {name: value for name, value in options.items() if name not in parts}
    device = attempt.device if not parts else torch.device("cpu")  # the whole may be too large for a device
    if dtype == "auto":
        dtype = config.dtype or config.get_text_config(decoder=True).dtype or torch.float32
    attempt = replace(attempt, doing="drawing random weights")
    with translated(attempt), quiet():
        with torch.device("meta"):
            hollow = auto.from_config(config, dtype=dtype, **options)
        needed = sum(p.numel() * p.element_size() for p in hollow.parameters())
        del hollow
        attempt = replace(attempt, needed_bytes=needed)
    _, total = memory_bytes(device)
    if total is not None and needed > total:
        # an allocation that the system grants and cannot keep ends in a killed process, which says nothing
        raise out_of_memory(attempt)
    cuda = [device.index or 0] if device.type == "cuda" else []
    with translated(attempt), quiet(), torch.no_grad(), torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        with torch.device(device):
            model = auto.from_config(config, dtype=dtype, **options)
        return sharded(model, config, dtype, parts) if parts else model
