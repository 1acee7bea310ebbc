"""How a tokenizer's decoder turns token strings into text, compiled to bytes of single tokens.

A decoder of the tokenizers library is a chain of steps. Nearly all chains in use treat each token alone, except at the
start of the text; for those this module gives two functions, and bytes that are exact even where a character spans
tokens. Any other chain gives None, and :mod:`tokentape.models.pieces` takes differences of ``decode`` instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

__all__ = ["BytePlan", "byte_level_alphabet", "compile_decoder"]

TextStep = Callable[[str], str]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")


def byte_level_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2's ``bytes_to_unicode``)."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + i): byte for i, byte in enumerate(others)}


_ALPHABET = byte_level_alphabet()


def _plain_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _fallback_bytes(text: str) -> bytes:
    found = _BYTE_TOKEN.match(text)
    return bytes([int(found.group(1), 16)]) if found else _plain_bytes(text)


def _byte_level_bytes(text: str) -> bytes:
    try:
        return bytes([_ALPHABET[char] for char in text])
    except KeyError:
        return _plain_bytes(text)  # an added token is written as it is


@dataclass(slots=True)
class BytePlan:
    """Bytes of a token from its string.

    ``first(token)`` where it opens the text, ``rest(token)`` anywhere else; of the text's start, up to ``strip_count``
    times ``strip`` is cut off.
    """

    first_steps: list[TextStep] = field(default_factory=list)
    rest_steps: list[TextStep] = field(default_factory=list)
    to_bytes: Callable[[str], bytes] = _plain_bytes
    strip: bytes = b""
    strip_count: int = 0
    phase: str = "tokens"

    def first(self, token: str) -> bytes:
        return self.to_bytes(reduce(lambda text, step: step(text), self.first_steps, token))

    def rest(self, token: str) -> bytes:
        return self.to_bytes(reduce(lambda text, step: step(text), self.rest_steps, token))

    def each(self, first: TextStep, rest: TextStep | None = None) -> bool:
        """Add a step on single tokens; False once tokens were joined or became bytes."""
        if self.phase != "tokens":
            return False
        self.first_steps.append(first)
        self.rest_steps.append(rest or first)
        return True


def _replace(plan: BytePlan, spec: Mapping[str, Any]) -> bool:
    pattern, content = spec["pattern"].get("String"), spec["content"]
    # a regular expression of another library is not re-read here
    return bool(pattern) and plan.each(lambda text: text.replace(pattern, content))


def _strip(plan: BytePlan, spec: Mapping[str, Any]) -> bool:
    content, start, stop = spec["content"], spec["start"], spec["stop"]

    def cut(text: str) -> str:
        left = next((i for i, char in enumerate(text[:start]) if char != content), min(start, len(text)))
        right = next((i for i, char in enumerate(text[::-1][:stop]) if char != content), min(stop, len(text)))
        return text[left : max(left, len(text) - right)]

    if plan.phase == "tokens":
        return plan.each(cut)
    # of the joined text only the start can be cut while it still grows
    if plan.phase != "text" or stop or plan.strip_count or not content.isascii():
        return False
    plan.strip, plan.strip_count = content.encode(), start
    return True


def _metaspace(plan: BytePlan, spec: Mapping[str, Any]) -> bool:
    mark = spec["replacement"]
    opening = " " if spec.get("prepend_scheme", "always") == "never" else ""
    return plan.each(lambda text: text.replace(mark, opening), lambda text: text.replace(mark, " "))


_CLEANUP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


def _wordpiece(plan: BytePlan, spec: Mapping[str, Any]) -> bool:
    prefix, cleanup = spec["prefix"], spec["cleanup"]

    def tidy(text: str) -> str:
        return reduce(lambda tidied, pair: tidied.replace(*pair), _CLEANUP, text) if cleanup else text

    def joined(text: str) -> str:
        return tidy(text.replace(prefix, "", 1) if text.startswith(prefix) else f" {text}")

    return plan.each(tidy, joined)


def _bytes_step(to_bytes: Callable[[str], bytes]) -> Callable[[BytePlan, Mapping[str, Any]], bool]:
    def step(plan: BytePlan, spec: Mapping[str, Any]) -> bool:
        if plan.phase != "tokens":
            return False
        plan.to_bytes, plan.phase = to_bytes, "bytes"
        return True

    return step


def _fuse(plan: BytePlan, spec: Mapping[str, Any]) -> bool:
    plan.phase = "text"
    return True


_STEPS: dict[str, Callable[[BytePlan, Mapping[str, Any]], bool]] = {
    "Replace": _replace,
    "Strip": _strip,
    "Metaspace": _metaspace,
    "WordPiece": _wordpiece,
    "ByteFallback": _bytes_step(_fallback_bytes),
    "ByteLevel": _bytes_step(_byte_level_bytes),
    "Fuse": _fuse,
}
"""Steps that leave tokens independent of each other. BPEDecoder and CTC do not: what a token gives depends on its
neighbours."""


def _flat(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if spec["type"] != "Sequence":
        return [spec]
    return [step for inner in spec["decoders"] for step in _flat(inner)]


def compile_decoder(spec: Mapping[str, Any] | None) -> BytePlan | None:
    """The plan of a decoder from its JSON; None for one that does not treat each token alone.

    ``spec`` None is the library's own default: tokens joined by spaces.
    """
    plan = BytePlan()
    if spec is None:
        plan.each(lambda text: text, lambda text: f" {text}")
        return plan
    for step in _flat(spec):
        compiled = _STEPS.get(step["type"])
        if compiled is None or not compiled(plan, step):
            return None
    return plan
