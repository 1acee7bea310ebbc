"""The symbols of a trace, prompt and continuation, one a place: what is drawn of each, and which of them make one character."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from tokentape.study.times import plain_values
from tokentape.views.drawing import drawn_text, drawn_tokens
from tokentape.views.page.parts import Part
from tokentape.views.page.withheld import LetThrough
from tokentape.views.units import bytes_text

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Piece, Trace

__all__ = ["drawn_alone", "n_prompt_places", "names", "open_tokens", "symbols_part"]

TOKEN_BYTES = 512
"""Bytes of a token that are drawn: no vocabulary has a longer entry that anyone would read."""

TEXT_BYTES = 65_536
"""The same of a prompt whose tokens are not known, which stands in one place."""

HEX_BYTES = 48

WITHHELD = "\N{MEDIUM SHADE}"
"""Drawn where a guard withheld a token and nothing stands in its place."""


@dataclass(frozen=True, slots=True)
class _Symbol:
    """A token, or a prompt's whole text; ``own`` is its name where it has one of its own, and no text. ``shared`` is True where the
    text stands with a later one.
    """

    id: int | None
    position: int
    data: bytes | None
    own: str | None = None
    special: bool = False
    limit: int = TOKEN_BYTES
    shared: bool = False


def symbols_part(trace: Trace, tape: Tape) -> Part:
    """The columns ``Symbols`` of the page's document, one entry a place.

    A character whose bytes several tokens hold is drawn once, on the one that completes it; the others are ``open``, and draw what
    they have beside it. Bytes that never make a character stay where they are, as ⟨E4 BD⟩. Of a token that is very large the
    head is drawn, and its size. A prompt of which ids are known, and text only as a whole, is drawn as one, on its last token.
    """
    symbols = [*_prompt(trace, tape), *_continuation(trace, tape.pieces)]
    data = [None if symbol.own is not None else symbol.data for symbol in symbols]
    is_open = open_tokens(data)
    return {
        "ids": [symbol.id for symbol in symbols],
        "position": [symbol.position for symbol in symbols],
        "text": _texts(symbols, _shifted(data, is_open)),
        "open": [int(flag or symbol.shared) for symbol, flag in zip(symbols, is_open, strict=True)],
        "hex": [None if symbol.shared else _hex(symbol.data) for symbol in symbols],
        "special": [int(symbol.special) for symbol in symbols],
    }


def n_prompt_places(trace: Trace) -> int:
    """Places that the prompt has: its tokens; one where only its text is known; none where nothing of it was kept."""
    if trace.prompt_ids is not None:
        return len(trace.prompt_ids)
    return 1 if trace.prompt_text else 0


def names(part: Part, place: int) -> str:
    """How the symbol of a place is called in a sentence: its drawn text, of open ones with what completes them."""
    first = place
    while first > 0 and part["open"][first - 1]:
        first -= 1
    last = place
    while last + 1 < len(part["text"]) and part["open"][last]:
        last += 1
    return "".join(part["text"][first : last + 1])


def drawn_alone(pieces: Mapping[int, Piece], ids: Sequence[int]) -> dict[str, str]:
    """How vocabulary entries are drawn that stand by themselves, by id; those that the tape does not know are left out."""
    found = {}
    for token_id in sorted(set(ids)):
        piece = pieces.get(token_id)
        if piece is None:
            continue
        own = _own_name(piece)
        found[str(token_id)] = own if own is not None else _drawn(piece.bytes)
    return found


def open_tokens(data: Sequence[bytes | None]) -> list[bool]:
    """For each token whether it ends inside of a character that the tokens after it complete.

    UTF-8 tells where a character begins whatever stood before, so only the few bytes around each seam are looked at.
    """
    found = [False] * len(data)
    first = 0
    while first < len(data):
        last = first
        while last < len(data) and data[last] is not None:
            last += 1
        _mark(data[first:last], found, first)
        first = last + 1
    return found


def _mark(data: Sequence[bytes | None], found: list[bool], offset: int) -> None:
    """The same of consecutive tokens whose bytes are known."""
    tokens = [one or b"" for one in data]
    raw = b"".join(tokens)
    for i, seam in enumerate(accumulate(len(one) for one in tokens)):
        found[offset + i] = _inside(raw, seam)


def _inside(raw: bytes, seam: int) -> bool:
    """Whether a whole character has bytes on both sides of a place."""
    if seam in (0, len(raw)) or raw[seam] & 0xC0 != 0x80:
        return False
    lead = seam - 1
    while lead > 0 and seam - lead < 3 and raw[lead] & 0xC0 == 0x80:
        lead -= 1
    size = 2 if raw[lead] < 0xE0 else 3 if raw[lead] < 0xF0 else 4
    if raw[lead] < 0xC2 or lead + size <= seam:
        return False
    try:
        raw[lead : lead + size].decode()
    except UnicodeDecodeError:
        return False
    return lead + size <= len(raw)


def _shifted(data: Sequence[bytes | None], is_open: Sequence[bool]) -> list[bytes | None]:
    """The bytes of each token, those of a character that it does not complete moved to the token that does."""
    found: list[bytes | None] = []
    carried = b""
    for own, still_open in zip(data, is_open, strict=True):
        if own is None:
            found.append(None)
            continue
        whole = carried + own
        at = _last_lead(whole) if still_open else len(whole)
        found.append(whole[:at])
        carried = whole[at:]
    return found


def _last_lead(data: bytes) -> int:
    """Where the last character of bytes begins that end inside of one."""
    at = len(data) - 1
    while data[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _texts(symbols: Sequence[_Symbol], data: Sequence[bytes | None]) -> list[str]:
    drawn: dict[bytes, str] = {}  # most tokens come more than once
    found = []
    for symbol, whole in zip(symbols, data, strict=True):
        if symbol.own is not None:
            found.append(symbol.own)
        elif whole is None:
            found.append("" if symbol.id is None else f"#{symbol.id}")
        else:
            if whole not in drawn:
                drawn[whole] = _drawn(whole, symbol.limit)
            found.append(drawn[whole])
    return found


def _drawn(data: bytes, limit: int = TOKEN_BYTES) -> str:
    """One token's bytes, drawn by themselves; of many the head and how many they are."""
    end = len(data)
    if end > limit:
        end = next(at for at in range(limit, limit - 4, -1) if data[at] & 0xC0 != 0x80 or at == limit - 3)
    (drawn,) = drawn_tokens([data[:end]])
    return str(drawn) if end == len(data) else f"{drawn}⟨… {bytes_text(len(data))}⟩"


def _hex(data: bytes | None) -> str | None:
    if data is None:
        return None
    return data.hex() if len(data) <= HEX_BYTES else f"{data[:HEX_BYTES].hex()}… ({bytes_text(len(data))})"


def _own_name(piece: Piece | None) -> str | None:
    return drawn_text(piece.token) if piece is not None and piece.special and piece.token else None


def _prompt(trace: Trace, tape: Tape) -> list[_Symbol]:
    ids, text = trace.prompt_ids, trace.prompt_text
    whole = (text or "").encode("utf-8", "surrogatepass")
    if ids is None:
        return [_Symbol(None, 0, whole, limit=TEXT_BYTES)] if text else []
    pieces, known = tape.pieces, ids.tolist()
    if text and any(token_id not in pieces for token_id in known) and not getattr(tape, "explanations", ()):
        last = len(known) - 1  # as one character would be, but it has no bytes of its own: the page draws no seams
        shared = [_Symbol(token_id, i, b"", shared=True) for i, token_id in enumerate(known[:-1])]
        return [*shared, _Symbol(known[-1], last, whole, limit=TEXT_BYTES)]
    found = []
    for position, token_id in enumerate(known):
        piece = pieces.get(token_id)
        own = _own_name(piece)
        data = None if piece is None else b"" if own is not None else piece.bytes
        found.append(_Symbol(token_id, position, data, own, own is not None))
    return found


def _continuation(trace: Trace, pieces: Mapping[int, Piece]) -> list[_Symbol]:
    ids, positions = plain_values(trace.tokens["id"]), plain_values(trace.tokens["position"])
    withheld = trace.withheld if isinstance(trace, LetThrough) else (None,) * len(ids)
    found = []
    for token_id, position, data, instead in zip(ids, positions, trace.token_bytes, withheld, strict=True):
        own = None if token_id is None else _own_name(pieces.get(token_id))
        special = own is not None
        if instead is not None:
            own = drawn_text(instead) or WITHHELD
        found.append(_Symbol(token_id, position, data, own, special))
    return found
