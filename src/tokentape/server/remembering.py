"""Port and token of what was served before, so that a page left open finds its server again when that is started anew.

One small file for each served path, readable by its owner alone, in ``$XDG_STATE_HOME/tokentape/served`` (by default under
``~/.local/state``). A file that somebody else could have written or read is not believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Remembered", "fresh_token", "recall", "remember"]

_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}")


@dataclass(frozen=True, slots=True)
class Remembered:
    """Where something was served, and with which token."""

    port: int
    token: str = field(repr=False)


def fresh_token() -> str:
    """256 random bits as 43 letters that an address can hold."""
    return secrets.token_urlsafe(32)


def recall(served: Path) -> Remembered | None:
    """What is known of the path from before; None where nothing is, or nothing that can be trusted."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        descriptor = os.open(_place(served), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with open(descriptor, encoding="utf-8") as file:
            if not _is_private(os.fstat(file.fileno())):
                return None
            found = json.load(file)
        port, token = found["port"], found["token"]
        if isinstance(port, int) and 0 < port < 65536 and isinstance(token, str) and _TOKEN.fullmatch(token):
            return Remembered(port, token)
    return None


def remember(served: Path, known: Remembered) -> None:
    """Keep it for the next time; where nothing can be written (a read-only home), the next time begins anew."""
    with contextlib.suppress(OSError):
        place = _place(served)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump({"served": str(served), "port": known.port, "token": known.token}, file)
            os.replace(draft, place)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _place(served: Path) -> Path:
    """Where it is kept. Raises FileNotFoundError for a user who has no home, as in a container."""
    home = os.environ.get("XDG_STATE_HOME") or ""
    try:
        base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from error
    digest = hashlib.sha256(os.fsencode(served)).hexdigest()[:24]
    return base / "tokentape" / "served" / f"{digest}.json"


def _is_private(status: os.stat_result) -> bool:
    if sys.platform == "win32":
        return True
    return status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077
