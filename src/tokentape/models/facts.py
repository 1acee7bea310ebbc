"""The Setting of a model in this process: what must be equal for two runs to be comparable."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from tokentape.clock import HostClock
from tokentape.data.setting import Setting
from tokentape.models.causal import CausalModel
from tokentape.models.parallel import here, whole
from tokentape.models.runtime import require_torch

__all__ = ["setting_of", "tokenizer_hash", "weights_hash"]

FULL_BYTES = 64_000_000
"""Weights up to this size are hashed whole; of larger ones a fixed sample of each tensor is."""

SAMPLE = 4096
"""Values taken of each tensor of a larger model, evenly spaced from its first to near its last."""

_PACKAGES = ("torch", "transformers", "tokenizers", "tokentape")


def setting_of(model: Any, tokenizer: Any | None = None, **more: Any) -> Setting:
    """The Setting of a :class:`CausalModel`, or of any transformers module and its tokenizer.

    ``more`` are further facts, and go before those found. Sizes are counts, hashes say what they cover (``full:``,
    ``sampled:``, ``shapes:``). Raises MissingExtra without torch.
    """
    require_torch()
    loaded = model if isinstance(model, CausalModel) else None
    module = model if loaded is None else loaded.model
    module = getattr(module, "_orig_mod", module)  # torch.compile wraps; what it wraps is the model
    tokenizer = tokenizer if loaded is None or tokenizer is not None else loaded.tokenizer
    facts: dict[str, Any] = {
        **_model_facts(module, loaded),
        "tokenizer": tokenizer_hash(tokenizer),
        "engine": "transformers",
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        **_machine_facts(),
        **_device_facts(module),
        "clock": HostClock.name,
        **_noted(),
    }
    return Setting({**facts, **more})


def _model_facts(module: Any, loaded: CausalModel | None) -> dict[str, Any]:
    config = getattr(module, "config", None)
    name = (loaded.name if loaded is not None else getattr(config, "_name_or_path", "")) or None
    # a folder is known by its name: where it lies is noted, and what it holds is hashed
    local = name is not None and Path(name).expanduser().exists()
    path = loaded.path if loaded is not None else name if local else None
    quantization = getattr(config, "quantization_config", None)
    method = (
        quantization.get("quant_method")
        if isinstance(quantization, dict)
        else getattr(quantization, "quant_method", None)
    )
    return {
        "model": Path(name).expanduser().resolve().name if local and name is not None else name,
        "model_path": path,
        "revision": loaded.revision if loaded is not None else None,
        "architecture": type(module).__name__,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "weights": weights_hash(module),
        "random_weights": loaded.random_weights if loaded is not None else None,
        "dtype": _dtypes(module),
        "quantization": None if method is None else str(getattr(method, "value", method)),
        "attn_implementation": getattr(config, "_attn_implementation", None),
        "config": _configuration(config),
        **_parts_facts(module),
    }


def _parts_facts(module: Any) -> dict[str, Any]:
    """Among how many ranks the model is shared out, where it is: its figures and its times are of that many."""
    n_ranks = getattr(module, "_tp_size", None)
    return {} if n_ranks in (None, 1) else {"tensor_parallel": n_ranks}


def _configuration(config: Any) -> dict[str, Any] | None:
    """What its config.json would say about a model's architecture, as plain values; None where it cannot be told."""
    try:
        told = json.loads(config.to_json_string(use_diff=True), parse_constant=str)
    except (AttributeError, TypeError, ValueError):
        return None
    for name in ("_name_or_path", "transformers_version"):
        told.pop(name, None)
    return {**told, "model_type": config.model_type}


def _dtypes(module: Any) -> str | None:
    """Floating dtypes of the parameters, the one with most values first: ``bfloat16``, or ``bfloat16+float32``."""
    counts: Counter[str] = Counter()
    for parameter in module.parameters():
        if parameter.is_floating_point():
            counts[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    return "+".join(name for name, _ in counts.most_common()) or None


def weights_hash(module: Any) -> str | None:
    """SHA-256 of a live module's weights with names, dtypes and shapes, 32 hexadecimal digits.

    ``full:`` covers every value, up to 64 MB; ``sampled:`` at least 4,096 evenly spaced values of each larger tensor;
    ``shapes:`` none, for weights on the meta device. The weights in memory are read, not the files: so a change made
    after loading shows, and a model hashes alike however it was loaded. None where the values cannot be read.
    """
    tensors = list(_tensors(module))
    n_bytes = sum(tensor.numel() * tensor.element_size() for _, tensor in tensors)
    kind = "shapes" if any(tensor.is_meta for _, tensor in tensors) else "full" if n_bytes <= FULL_BYTES else "sampled"
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if kind != "shapes":
            try:
                digest.update(_values(tensor, sampled=kind == "sampled"))
            except (NotImplementedError, RuntimeError, TypeError):
                return None  # a wrapped tensor (quantized) that does not show its bytes
    return f"{kind}:{digest.hexdigest()[:32]}"


def _tensors(module: Any) -> Iterator[tuple[str, Any]]:
    """Saved tensors by name, each storage once: tied weights have two names."""
    seen = set()
    for name, tensor in module.state_dict().items():
        if not hasattr(tensor, "data_ptr"):
            continue
        key = (here(tensor).data_ptr(), tensor.shape) if not tensor.is_meta else (name,)
        if key not in seen:
            seen.add(key)
            yield name, tensor.detach()


def _values(tensor: Any, sampled: bool) -> Any:
    torch = require_torch()
    flat = whole(tensor).reshape(-1)
    if sampled and flat.numel() > SAMPLE:
        flat = flat[:: flat.numel() // SAMPLE]
    return memoryview(flat.contiguous().cpu().view(torch.uint8).numpy())


def tokenizer_hash(tokenizer: Any | None) -> str | None:
    """SHA-256 of everything that decides how a tokenizer cuts text, 32 hexadecimal digits; None for None.

    What a call changes (padding, truncation) is left out.
    """
    if tokenizer is None:
        return None
    digest = hashlib.sha256()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        parts: list[Any] = [
            type(tokenizer).__name__,
            sorted(tokenizer.get_vocab().items(), key=lambda item: item[::-1]),
        ]
        parts.append(sorted(tokenizer.special_tokens_map.items()))
        digest.update(repr(parts).encode("utf-8", "surrogatepass"))
    else:
        for part in (backend.model, backend.normalizer, backend.pre_tokenizer, backend.post_processor, backend.decoder):
            digest.update(b"null" if part is None else part.__getstate__())
        added = sorted(backend.get_added_tokens_decoder().items())
        digest.update(repr([(i, t.content, t.special, t.lstrip, t.rstrip, t.normalized) for i, t in added]).encode())
    return f"full:{digest.hexdigest()[:32]}"


@functools.cache
def _version(package: str) -> str | None:
    if package == "tokentape":
        from tokentape._version import __version__

        return str(__version__)
    module = sys.modules.get(package)
    found = getattr(module, "__version__", None)
    try:
        return str(found) if found else metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine_facts() -> dict[str, Any]:
    torch = require_torch()
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "logical_cpus": available,
        "torch_threads": torch.get_num_threads(),
        "torch_interop_threads": torch.get_num_interop_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "os": f"{platform.system()} {platform.release()}",
    }


@functools.cache
def _processor() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or None


def _device_facts(module: Any) -> dict[str, Any]:
    torch = require_torch()
    devices = sorted({str(parameter.device) for parameter in module.parameters()}) or ["cpu"]
    cuda = [device for device in devices if device.startswith("cuda")]
    return {
        "device": "+".join(devices),
        "gpu": "+".join(torch.cuda.get_device_name(device) for device in cuda) or None,
        "cuda": torch.version.cuda if cuda else None,
        "driver": _driver() if cuda else None,
    }


@functools.cache
def _driver() -> str | None:
    try:
        words = Path("/proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return None
    return next((word for word in words if word[0].isdigit() and word.count(".") >= 1), None)


def _noted() -> dict[str, Any]:
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "hostname": socket.gethostname(),
        "pid": os.getpid(),
        # the program alone: its arguments may hold a prompt or a key, which are not for a Setting to keep
        "command": Path(sys.argv[0]).name if sys.argv and sys.argv[0] else None,
        "load_average": None if load is None else [round(value, 2) for value in load],
        "python_executable": sys.executable,
    }
