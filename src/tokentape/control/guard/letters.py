"""Letters: what a guard compares, so that one phrase is found however it is written.

Two texts have the same letters where they are a compatibility caseless match (The Unicode Standard, section 3.13, D146) once the
characters that show nothing are left out: in any casing, composed or decomposed, with full-width or ligature forms, with or
without zero-width spaces and joiners, soft hyphens, variation selectors. A run of white space is one space. A letter is a character
with all the marks that follow it: ``e`` is not the beginning of ``é``, whichever way that is written.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

__all__ = ["folded", "in_letters", "is_word", "joins"]

# Default_Ignorable_Code_Point of the Unicode Character Database, which unicodedata does not have
_INVISIBLE = (
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F),
    (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip


def _fold(text: str) -> str:
    text = unicodedata.normalize("NFD", text)
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text.casefold())
    return text


@lru_cache(maxsize=4096)
def folded(char: str) -> str:
    """What one character is compared as, decomposed: ``ß`` as ``ss``, ``é`` as ``e`` and a mark; empty where it shows nothing."""
    return "" if any(first <= ord(char) <= last for first, last in _INVISIBLE) else _fold(char)


def joins(last: str, char: str) -> bool:
    """Whether a character goes with the one before it: a mark, or the vowel or final consonant of a Hangul syllable.

    ``last`` is the last of what is before it, ``char`` the first of what follows, both folded, or itself where it is a mark.
    """
    if unicodedata.category(char).startswith("M"):
        return True
    vowel, final = "\u1161" <= char <= "\u1175", "\u11a8" <= char <= "\u11c2"
    return (vowel and "\u1100" <= last <= "\u1112") or (final and "\u1161" <= last <= "\u1175")


def in_letters(cluster: str) -> list[str]:
    """The letters of characters that show something, each a folded character and its marks in canonical order.

    White space without marks is ``" "``. One character may be several letters: ``ß`` and the ligature ``ﬁ`` are two.
    """
    letters: list[str] = []
    for char in _fold(cluster):
        if letters and joins(letters[-1][-1], char):
            letters[-1] += char
        else:
            letters.append(char)
    return [" " if letter.isspace() else letter for letter in letters]


def is_word(letter: str) -> bool:
    """Whether words are made of it: letters, digits, the underscore."""
    return letter[0].isalnum() or letter[0] == "_"
