"""Token text, drawn safely: it comes from a model, so it may hold anything.

Control characters, escape sequences, direction marks and other invisible characters are shown as escapes. Bytes that
make no character are shown as ⟨E4 BD⟩. A character that spans tokens is drawn once, on the token that completes it;
the tokens before show their bytes.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterable

__all__ = ["drawn_text", "drawn_tokens", "quoted"]

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
_UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
_COMBINING = {"Mn", "Me"}
_JOINERS = "\u200c\u200d"
"""Needed inside emoji and in Persian and Indic words, so left alone in running text."""


def drawn_tokens(data: Iterable[bytes | None]) -> list[str | None]:
    """What to draw for each token of a sequence, given its bytes; None where they are not known."""
    spelling = _Spelling()
    return [None if token is None else spelling.feed(token) for token in data]


def quoted(drawn: str) -> str:
    """A drawn token between quotes, so that its spaces can be seen; double ones where it holds a single one."""
    return f'"{drawn}"' if "'" in drawn and '"' not in drawn else f"'{drawn}'"


def drawn_text(text: str, *, keep: str = "") -> str:
    """Running text, escaped where it could act on a terminal or hide; ``keep`` may spare line ends and tabs."""
    kept = _JOINERS + "\\" + keep
    return "".join(c if c in kept else _seen(c) for c in text)


def _seen(character: str) -> str:
    """The character itself, or its escape if it would not be seen or would do something."""
    if character in _SHORT:
        return _SHORT[character]
    category = unicodedata.category(character)
    if category not in _UNSEEN and (category != "Zs" or character == " "):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _bytes(data: bytes) -> str:
    return f"⟨{data.hex(' ').upper()}⟩" if data else ""


class _Spelling:
    """Decodes token after token, byte by byte, and knows which bytes belong to which token."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._waiting = False  # bytes of an unfinished character came before

    def feed(self, data: bytes) -> str:
        drawn: list[str] = []
        own = b""  # bytes of this token that have made no character yet
        for value in data:
            byte = bytes([value])
            try:
                character = self._decoder.decode(byte)
            except UnicodeDecodeError:
                self._decoder.reset()
                if own or self._waiting:  # what came before is no character; this byte may begin one
                    drawn.append(_bytes(own))
                    own, self._waiting = b"", False
                    try:
                        character = self._decoder.decode(byte)
                    except UnicodeDecodeError:
                        self._decoder.reset()
                        drawn.append(_bytes(byte))
                        continue
                else:
                    drawn.append(_bytes(byte))
                    continue
            if character:
                alone = not drawn and unicodedata.category(character) in _COMBINING
                drawn.append(("◌" if alone else "") + _seen(character))
                own, self._waiting = b"", False
            else:
                own += byte
        drawn.append(_bytes(own))
        self._waiting = self._waiting or bool(own)
        return "".join(drawn).replace("⟩⟨", " ")
