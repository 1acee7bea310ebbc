"""What goes wrong on the way to a model, told as what, why and fix: one table from foreign exceptions to our own."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tokentape.errors import MissingExtra, ModelError, OutOfMemory, TokentapeError, Unreachable, UsageError

__all__ = ["Attempt", "is_out_of_memory", "out_of_memory", "translated"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was being tried when it failed.

    ``name`` is the model as the caller wrote it; ``doing`` completes "... while ..."; ``needed_bytes`` is the memory
    that the weights take, where it is known.
    """

    name: str
    doing: str = "loading"
    revision: str | None = None
    device: Any = None
    needed_bytes: int | None = None
    attn_implementation: str | None = None

    @property
    def page(self) -> str:
        """Address of the model's page on the hub in use."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{self.name.partition('@')[0]}"


def _first_line(error: BaseException, limit: int = 300) -> str:
    text = " ".join(line.strip() for line in str(error).strip().splitlines() if line.strip()) or type(error).__name__
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it came from, outermost first."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return chain


def _gb(n_bytes: int | None) -> str:
    return "an unknown amount" if n_bytes is None else f"{n_bytes / 1e9:,.2f} GB"


def out_of_memory(attempt: Attempt, error: BaseException | None = None) -> OutOfMemory:
    """OutOfMemory with the bytes needed, available and there in all, as far as each is known."""
    from tokentape.models.runtime import memory_bytes

    available, total = (None, None) if attempt.device is None else memory_bytes(attempt.device)
    said = f"; the allocator said: {_first_line(error)}" if error is not None and str(error) else ""
    return OutOfMemory(
        f"{attempt.name} does not fit into the memory of {attempt.device or 'this machine'}",
        why=f"the weights take {_gb(attempt.needed_bytes)}; {_gb(available)} of {_gb(total)} are free{said}",
        fix="--dtype bfloat16 halves float32; a smaller model; --device cpu; or serve it and record the endpoint",
    )


def _gated(attempt: Attempt, error: BaseException) -> TokentapeError:
    has = "the token in use has no access" if os.environ.get("HF_TOKEN") else "no HF_TOKEN is set"
    return Unreachable(
        f"{attempt.name} is gated",
        why=f"its owner lets in those who accept the terms at {attempt.page}; {has}",
        fix=f"accept the terms at {attempt.page}, then HF_TOKEN=hf_... with a token of that account",
    )


def _disabled(attempt: Attempt, error: BaseException) -> TokentapeError:
    return Unreachable(
        f"{attempt.name} was disabled on the hub", why=_first_line(error), fix=f"see {attempt.page}; take another model"
    )


def _no_revision(attempt: Attempt, error: BaseException) -> TokentapeError:
    return UsageError(
        f"{attempt.name} has no revision {attempt.revision!r}",
        why="a revision is a branch, a tag or a commit of the repository",
        fix=f"look at {attempt.page}/tree/main, or leave the revision out",
    )


def _no_repository(attempt: Attempt, error: BaseException) -> TokentapeError:
    return UsageError(
        f"there is no model {attempt.name!r} on the hub",
        why=f"{attempt.page} does not exist, or is private and the token in use has no access",
        fix="check the spelling; for a private one HF_TOKEN=hf_...; a local folder is written ./folder",
    )


def _no_such_name(attempt: Attempt, error: BaseException) -> TokentapeError:
    return UsageError(
        f"{attempt.name!r} is no model",
        why="it is no folder here, and no hub id either: those are written 'name' or 'owner/name'",
        fix="give an existing folder, a hub id such as bigscience/bloom-560m, or 'demo'",
    )


def not_cached(attempt: Attempt, error: BaseException | None = None) -> Unreachable:
    """Unreachable: neither the cache nor the hub has it; names the cache, the endpoint and how to get the files."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        why, fix = "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE once with a network"
    else:
        why, fix = f"{constants.ENDPOINT} could not be reached", "check the network, or set HF_ENDPOINT to a mirror"
    revision = "" if attempt.revision is None else f" at revision {attempt.revision!r}"
    return Unreachable(
        f"{attempt.name}{revision} is not in the cache, and the hub is out of reach",
        why=f"{why} (HF_ENDPOINT is {constants.ENDPOINT}); the cache is {constants.HF_HUB_CACHE}",
        fix=f"{fix}; point HF_HOME to a cache that has it; or give a local folder, or 'demo', which needs no network",
    )


def _hub_status(attempt: Attempt, error: BaseException) -> TokentapeError:
    return Unreachable(
        f"the hub refused {attempt.name}", why=_first_line(error), fix=f"try again later, or see {attempt.page}"
    )


def _missing_entry(attempt: Attempt, error: BaseException) -> TokentapeError:
    return ModelError(
        f"{attempt.name} lacks a file that is needed while {attempt.doing}",
        why=_first_line(error),
        fix="copy the whole model folder again, or take the model from the hub",
    )


def _damaged(attempt: Attempt, error: BaseException) -> TokentapeError:
    return ModelError(
        f"the weights of {attempt.name} are damaged",
        why=f"a file of weights cannot be read: {_first_line(error)}",
        fix="download or copy them again; of a cached model, delete its folder in the cache first",
    )


def _out_of_memory(attempt: Attempt, error: BaseException) -> TokentapeError:
    return out_of_memory(attempt, error)


def _remote_code(attempt: Attempt, error: BaseException) -> TokentapeError:
    return ModelError(
        f"{attempt.name} needs code that comes with it",
        why="its architecture is not part of transformers, and code from a repository is never run unasked",
        fix=f"read the code at {attempt.page}, then --trust-remote-code",
    )


def _unknown_architecture(attempt: Attempt, error: BaseException) -> TokentapeError:
    from tokentape.models.runtime import require_transformers

    found = re.search(r"model type `([^`]*)`", str(error))
    version = require_transformers().__version__
    return ModelError(
        f"{attempt.name} has an architecture that transformers does not know",
        why=f"transformers {version} does not know {found.group(1)!r}"
        if found
        else "its config.json has no model_type",
        fix=f"pip install --upgrade transformers (this is {version}); or a model of a known architecture",
    )


def _no_attention(attempt: Attempt, error: BaseException) -> TokentapeError:
    return UsageError(
        f"{attempt.name} cannot run with attention implementation {attempt.attn_implementation!r}",
        why=_first_line(error),
        fix="--attn-implementation eager works with every model; sdpa and flash_attention_2 with some",
    )


def _missing_package(attempt: Attempt, error: BaseException) -> TokentapeError:
    return MissingExtra(
        f"{attempt.name} needs a package that is not installed",
        why=_first_line(error),
        fix="install the package named above with pip",
    )


def _unexplained(attempt: Attempt, error: BaseException) -> TokentapeError:
    return ModelError(
        f"{attempt.name} failed while {attempt.doing}",
        why=f"{type(error).__name__}: {_first_line(error)}",
        fix="check that the folder is a whole Hugging Face model of a causal language model",
    )


Builder = Callable[[Attempt, BaseException], TokentapeError]

# By the name of a class anywhere in the chain of causes; first match wins, so the specific come first.
_BY_CLASS: tuple[tuple[str, Builder], ...] = (
    ("GatedRepoError", _gated),
    ("DisabledRepoError", _disabled),
    ("RevisionNotFoundError", _no_revision),
    ("RepositoryNotFoundError", _no_repository),
    ("HFValidationError", _no_such_name),
    ("RemoteEntryNotFoundError", _missing_entry),
    ("HfHubHTTPError", _hub_status),
    ("OfflineModeIsEnabled", not_cached),
    ("LocalEntryNotFoundError", not_cached),
    ("ConnectError", not_cached),
    ("TimeoutException", not_cached),
    ("ConnectionError", not_cached),
    ("OutOfMemoryError", _out_of_memory),
    ("MemoryError", _out_of_memory),
    ("SafetensorError", _damaged),
    ("UnpicklingError", _damaged),
    ("EOFError", _damaged),
    ("ImportError", _missing_package),
)

_NO_MEMORY = r"can't allocate memory|not enough memory|Cannot allocate memory|out of memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator failed; that of torch on the CPU has no exception of its own."""
    return isinstance(error, MemoryError) or re.search(_NO_MEMORY, str(error)) is not None


# By what the message says, where the class is only ValueError, OSError or RuntimeError.
_BY_TEXT: tuple[tuple[str, Builder], ...] = (
    (_NO_MEMORY, _out_of_memory),
    (r"trust_remote_code", _remote_code),
    (r"PytorchStreamReader|weights_only|[Ii]nvalid magic number|corrupt", _damaged),
    (r"does not recognize this architecture|Unrecognized model in", _unknown_architecture),
    (r"does not support an attention implementation|attn_implementation|scaled_dot_product_attention", _no_attention),
    (r"No such file or directory|no file named", _missing_entry),
)


def named(attempt: Attempt, error: BaseException) -> TokentapeError:
    """The error of ours that tells what ``error`` means for this attempt."""
    chain = _chain(error)
    classes = {base.__name__ for link in chain for base in type(link).__mro__}
    for name, build in _BY_CLASS:
        if name in classes:
            return build(attempt, next(e for e in chain if name in {base.__name__ for base in type(e).__mro__}))
    for pattern, build in _BY_TEXT:
        for link in chain:
            if re.search(pattern, str(link)):
                return build(attempt, link)
    return _unexplained(attempt, error)


@contextlib.contextmanager
def translated(attempt: Attempt) -> Iterator[None]:
    """Turn every exception of the block into one that says what, why and how to mend it; ours pass as they are."""
    try:
        yield
    except TokentapeError:
        raise
    except Exception as error:
        raise named(attempt, error) from error


@contextlib.contextmanager
def memory_told(attempt: Attempt) -> Iterator[None]:
    """Turn what the block raises for lack of memory into OutOfMemory, with the numbers; all else passes as it is."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's own are of the second kind
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(attempt, error) from error
