"""torch and transformers, asked for late: what is missing becomes an error that says how to get it."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from tokentape.errors import MissingExtra, UsageError

__all__ = ["DTYPES", "memory_bytes", "parse_device", "parse_dtype", "quiet", "require_torch", "require_transformers"]

DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
}
"""Accepted names of a dtype, and what torch calls it. ``auto`` is the dtype that the checkpoint was saved in."""

DEVICE_KINDS = ("cpu", "cuda", "mps")


def _required(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name not in {module, None}:
            raise  # the package is there and broken: its own message says more than ours would
        raise MissingExtra(
            f"{module} is not installed",
            why="a model in this process runs on torch and transformers; the base install reads and views tapes",
            fix="pip install 'tokentape[local]'",
        ) from error


def require_torch() -> Any:
    """The module torch. Raises MissingExtra where it is not installed."""
    return _required("torch")


def require_transformers() -> Any:
    """The module transformers. Raises MissingExtra where it or torch is not installed."""
    require_torch()
    return _required("transformers")


def parse_dtype(name: Any) -> Any:
    """A ``torch.dtype``, or ``"auto"``, from a name in :data:`DTYPES` or a ``torch.dtype``.

    Raises UsageError for any other name.
    """
    torch = require_torch()
    if name is None or name == "auto":
        return "auto"
    known = {getattr(torch, torch_name) for torch_name in DTYPES.values()}
    if isinstance(name, torch.dtype) and name in known:
        return name
    torch_name = DTYPES.get(str(name).removeprefix("torch.").lower())
    if torch_name is None:
        raise UsageError(
            f"unknown dtype {str(name)!r}",
            why=f"the dtypes are auto, {', '.join(DTYPES)}",
            fix="--dtype auto keeps the one that the checkpoint was saved in",
        )
    return getattr(torch, torch_name)


def devices_here() -> list[str]:
    """Names of the devices that torch can use on this machine, best first."""
    torch = require_torch()
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def parse_device(name: Any) -> Any:
    """A ``torch.device`` that exists here; ``auto`` takes CUDA, else MPS, else the CPU.

    Raises UsageError for an unknown kind of device, MissingExtra for a known one that this machine lacks.
    """
    torch = require_torch()
    here = devices_here()
    text = "auto" if name is None else str(name).lower()
    if text == "auto":
        return torch.device(here[0])
    if not re.fullmatch(rf"({'|'.join(DEVICE_KINDS)})(:\d+)?", text):
        raise UsageError(
            f"unknown device {str(name)!r}",
            why=f"the devices are auto, {', '.join(DEVICE_KINDS)}, cuda:0, ...; this machine has {', '.join(here)}",
            fix=f"--device {here[0]}",
        )
    device = torch.device(text)
    # an index that is not written is the first device of its kind
    wanted = f"{device.type}:{device.index or 0}"
    if wanted not in here and wanted.removesuffix(":0") not in here:
        build = "" if torch.version.cuda or device.type != "cuda" else " is a CPU build and"
        raise MissingExtra(
            f"device {text!r} is not here",
            why=f"torch {torch.__version__}{build} sees {', '.join(here)}",
            fix=f"--device {here[0]}, or a machine and a torch build with {device.type.upper()}",
        )
    return device


def memory_bytes(device: Any) -> tuple[int | None, int | None]:
    """(bytes available, bytes in all) on a ``torch.device``; None where the system does not tell.

    On the CPU the smaller of the machine's memory and this process's cgroup counts, swap left out.
    """
    torch = require_torch()
    if device.type == "cuda":
        available, total = torch.cuda.mem_get_info(device)
        return int(available), int(total)
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = {key: int(rest.split()[0]) * 1024 for key, rest in (line.split(":", 1) for line in file)}
    except (OSError, ValueError, IndexError):
        return None, None
    total, available = fields["MemTotal"], fields.get("MemAvailable", fields["MemFree"])
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = int(file.read())
        total, available = min(total, limit), min(available, limit)
    return available, total


@contextlib.contextmanager
def quiet(progress: bool = False) -> Iterator[None]:
    """Silence the log of transformers and, unless ``progress``, its bars; both are as before on leaving.

    What a load has to say is said by errors. ``progress`` shows bars only where stderr is a terminal.
    """
    logging = require_transformers().utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not _hub_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    if not (progress and sys.stderr.isatty()):
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        _set_hub_bars(hub_bars)


def _hub_bars_disabled() -> bool:
    from huggingface_hub.utils import are_progress_bars_disabled

    return bool(are_progress_bars_disabled())


def _set_hub_bars(enabled: bool) -> None:
    from huggingface_hub import utils

    # with the variable set the library warns at each attempt to change what it decides
    if os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS") is None:
        (utils.enable_progress_bars if enabled else utils.disable_progress_bars)()
