"""Token bytes as printable text that can be turned back: for formats and readers that take no control characters.

A backslash is doubled; line ends and tabs are ``\\n``, ``\\r``, ``\\t``; a byte that is no UTF-8 is ``\\xE4``; a
character that does not print (controls, direction marks, zero-width ones, line separators, private use, unassigned) is
``\\u202e`` or ``\\U000e0001``. What is left prints, is one line, and does nothing.
"""

from __future__ import annotations

import re

__all__ = ["escaped", "unescaped"]

_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONG = {escape: character for character, escape in _SHORT.items()}
_ESCAPE = re.compile(r"\\(?:[\\nrt]|x[0-9A-F]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def escaped(data: bytes | str) -> str:
    """The escaped form of bytes, or of a text."""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    text = data.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_one(character) for character in text)


def _one(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02X}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unescaped(text: str) -> bytes:
    """The bytes that :func:`escaped` was given."""
    return b"".join(_bytes(part) for part in re.split(f"({_ESCAPE.pattern})", text))


def _bytes(part: str) -> bytes:
    if not _ESCAPE.fullmatch(part):
        return part.encode()
    if part in _LONG:
        return _LONG[part].encode()
    code = int(part[2:], 16)
    return bytes([code]) if part[1] == "x" else chr(code).encode()
