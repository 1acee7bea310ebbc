"""Texts from files."""

from __future__ import annotations

from pathlib import Path

from tokentape.errors import PromptError, UsageError

__all__ = ["read_text"]


def read_text(path: Path) -> str:
    """The text of a file. Raises UsageError for one that cannot be read, PromptError for what is not UTF-8."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read", why=error.strerror or str(error), fix="give the path of a text file"
        ) from error
    except UnicodeDecodeError as error:
        if b"\0" in error.object:
            why = "it has zero bytes, and is no UTF-8"
            raise PromptError(f"{path} holds no text", why=why, fix="give the path of a text file") from error
        raise PromptError(
            f"{path} is not UTF-8", why=str(error), fix=f"iconv -f LATIN1 -t UTF-8 {path}, if it is Latin-1"
        ) from error
