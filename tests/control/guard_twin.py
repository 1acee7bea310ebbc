"""What a guard has to do, once more and slowly: by trying all stretches of a text, and all ways in which it may go on."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

import regex

Spans = set[tuple[int, int]]

_LETTER = regex.compile(r"[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?\p{M}*|(?s:.)\p{M}*")


@lru_cache(maxsize=100_000)
def canonical(text: str) -> str:
    """Unicode's compatibility caseless form of a whole text, by the definition, without what is ignorable by default."""
    text = unicodedata.normalize("NFD", regex.sub(r"\p{Default_Ignorable_Code_Point}", "", text))
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text.casefold())
    return regex.sub(r"(?:[\s\x1c-\x1f](?!\p{M}))+", " ", text)


@lru_cache(maxsize=100_000)
def letters(text: str) -> tuple[str, ...]:
    return tuple(_LETTER.findall(canonical(text)))


def clusters(text: str) -> list[tuple[int, int]]:
    """Where the visible characters with their marks lie."""
    found: list[tuple[int, int]] = []
    for i, char in enumerate(text):
        form = canonical(char)
        if not form:
            continue
        if found and (
            regex.match(r"\p{M}", char) or regex.match(r"\p{M}", form) or _composes(text[found[-1][1] - 1], char)
        ):
            found[-1] = (found[-1][0], i + 1)
        else:
            found.append((i, i + 1))
    return found


def _composes(before: str, char: str) -> bool:
    apart = len(unicodedata.normalize("NFKC", before)) + len(unicodedata.normalize("NFKC", char))
    return len(unicodedata.normalize("NFKC", before + char)) < apart


def _word(letter: str) -> bool:
    return bool(regex.match(r"[\p{L}\p{N}_]", letter))


def occurrences(text: str, phrases: Iterable[str], whole_words: bool = False) -> Spans:
    """Every stretch of a whole text in which a phrase stands, begins with its first character and ends with its last."""
    found: Spans = set()
    places = clusters(text)
    for phrase in phrases:
        wanted = letters(phrase)
        for a in range(len(places)):
            for b in range(a, len(places)):
                start, stop = places[a][0], places[b][1]
                read = letters(text[start:stop])
                if len(read) >= len(wanted) + 8:
                    break
                first, last = letters(text[slice(*places[a])]), letters(text[slice(*places[b])])
                for i in range(min(len(first), len(read) - len(wanted) + 1)):
                    if i + len(wanted) <= len(read) - len(last) or read[i : i + len(wanted)] != wanted:
                        continue
                    before = read[i - 1] if i else letters(text[:start])[-1:]
                    rest = read[i + len(wanted) :] or letters(text[stop:])[:1]
                    if whole_words and before and _word(before[-1] if i == 0 else before) and _word(wanted[0]):
                        continue
                    if whole_words and rest and _word(rest[0]) and _word(wanted[-1]):
                        continue
                    found.add((start, stop))
    return found


def futures(phrases: Sequence[str], marks: str) -> list[str]:
    """Ways in which a text may go on that matter to these phrases: marks, the rest of a phrase, something after it."""
    some = {"", *marks}
    for letter in {letter for phrase in phrases for letter in letters(phrase)}:
        some |= {"".join(m) for n in range(1, len(letter)) for m in itertools.permutations(letter[1:], n)}
    ends = {"".join(letters(phrase)[k:]) for phrase in phrases for k in range(1, len(letters(phrase)) + 1)}
    return [mark + end + after for mark in some for end in {"", *ends} for after in ("", "x", "!")]


def settled_and_held(text: str, ways: Sequence[Spans]) -> tuple[Spans, int]:
    """The occurrences that every future has, and where the first begins that only some have. ``ways`` are those of each future."""
    sure = set.intersection(*ways)
    maybe = {span for way in ways for span in way if span not in sure and span[0] < len(text)}
    return {span for span in sure if span[1] <= len(text)}, min((start for start, _ in maybe), default=len(text))


def united(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    whole: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if whole and start < whole[-1][1]:
            whole[-1] = (whole[-1][0], max(stop, whole[-1][1]))
        else:
            whole.append((start, stop))
    return whole


def replaced(text: str, spans: Iterable[tuple[int, int]], hold: int | None = None, placeholder: str = "[...]") -> str:
    """The text up to ``hold``, a placeholder for each stretch; one that begins at ``hold`` is known already."""
    hold = len(text) if hold is None else hold
    out, at = "", 0
    for start, stop in united(spans):
        if start > hold:
            break
        out += text[at:start] + placeholder
        at = stop
    return out + text[at:hold]
