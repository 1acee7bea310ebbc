"""Ten thousand streams with phrases planted in them, in all forms and cut in all ways."""

from __future__ import annotations

import random
import unicodedata

import pytest
from guard_twin import clusters, letters, replaced

from tokentape.control.guard.guard import Guard
from tokentape.data.control import Decision
from tokentape.data.shown import shown

PHRASES = [
    "bad word",
    "straße",
    "café",
    "office",
    "the cat sat",
    "at sat",
    "naïve",
    "日本",
    "Ελλάς",
    "c3po",
    "가나",
    "os",
    "İzmir",
]
CLEAN = "The cat sits in a cafe. Stra sse! Of fice 日 本, 각 os2 naive bad wor d … ½ ﬁ".split()
CLEAN += ["e\u0301", "ß\u0301", "\U0001f468\u200d\U0001f469"]
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0f"
SPACES = [" ", "  ", "\u00a0", "\n", "\u3000 ", " \u200b "]


def disguised(draw: random.Random, text: str) -> str:
    """The same letters, written otherwise."""
    text = draw.choice([str, str.upper, str.lower, str.title, str.swapcase])(text)
    text = "".join(c if c != " " else draw.choice(SPACES) for c in text)
    if draw.random() < 0.3:  # full-width
        text = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    if draw.random() < 0.3:
        text = text.replace("fi", "ﬁ").replace("ff", "ﬀ").replace("ss", draw.choice(["ß", "ſs", "ẞ"]))
    text = unicodedata.normalize(draw.choice(["NFC", "NFD", "NFKC", "NFKD"]), text)
    if draw.random() < 0.3:
        text = "".join(c + draw.choice(INVISIBLE) * (draw.random() < 0.3) for c in text)
    return text


def planted(draw: random.Random) -> str:
    """Clean words, parts of phrases and whole ones; some run into each other."""
    pieces = []
    for _ in range(draw.randint(1, 12)):
        phrase = draw.choice(PHRASES)
        kind = draw.random()
        part = phrase if kind < 0.3 else phrase[: draw.randint(1, len(phrase))] if kind < 0.5 else draw.choice(CLEAN)
        pieces += [disguised(draw, part), draw.choice(["", *SPACES, "\u0301", ". "])]
    return "".join(pieces)


def tokenised(draw: random.Random, text: str) -> list[bytes]:
    """Cut anywhere, also within characters."""
    raw, pieces = text.encode(), []
    while raw:
        n = draw.choice([1, 1, 2, 3, 5, 8, 13])
        pieces.append(raw[:n])
        raw = raw[n:]
    return pieces


class Naive:
    """All letters of a text, and every phrase tried at each of them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.letters: list[tuple[str, int, int]] = []
        self.open = 0
        """Where the letters of the last characters begin, which a mark may still change."""
        for start, stop in clusters(text):
            self.open = len(self.letters)
            for letter in letters(text[start:stop]):
                if letter == " " and self.letters and self.letters[-1][0] == " ":
                    self.letters[-1] = (" ", self.letters[-1][1], stop)
                    self.open = min(self.open, len(self.letters) - 1)
                else:
                    self.letters.append((letter, start, stop))

    def found(self, *, ended: bool) -> list[tuple[int, int]]:
        n = len(self.letters) if ended else self.open
        return [
            (self.letters[i][1], self.letters[i + len(wanted) - 1][2])
            for wanted in map(letters, PHRASES)
            for i in range(n - len(wanted) + 1)
            if tuple(one[0] for one in self.letters[i : i + len(wanted)]) == wanted
        ]

    def held(self) -> int:
        """Where the first letter is from which all that follows may be the beginning of a phrase, or a phrase that just ended."""
        for i in range(len(self.letters)):
            for wanted in map(letters, PHRASES):
                rest = [one[0] for one in self.letters[i:]]
                n = min(len(rest), len(wanted))
                # a phrase that ended before the open letters is known, and no longer a matter of holding back
                if len(rest) > len(wanted) and i + len(wanted) <= self.open:
                    continue
                if all(
                    have == want if i + k < self.open else may_become(have, want)
                    for k, (have, want) in enumerate(zip(rest[:n], wanted[:n], strict=True))
                ):
                    return self.letters[i][1]
        return len(self.text)


def may_become(letter: str, wanted: str) -> bool:
    """By marks that follow; the phrases have one mark a letter at most, and Hangul of two parts."""
    return letter == wanted or (len(letter) == 1 and wanted[0] == letter)


def check(seed: int) -> tuple[int, int]:
    """One stream; how much was found and shown."""
    draw = random.Random(seed)
    text = planted(draw)
    guard = GUARD.stream()
    so_far, live = b"", ""
    for piece in tokenised(draw, text):
        so_far += piece
        live += guard.feed(piece)
        now = Naive(so_far.decode("utf-8", "ignore"))
        assert live == replaced(now.text, now.found(ended=False), now.held()), (seed, now.text)
    live += guard.close()
    found = Naive(text).found(ended=True)
    assert live == replaced(text, found), (seed, text)
    decided = [Decision(0, 0, "redact", one.start, one.stop, one.reason, "[...]") for one in guard.take()]
    assert shown(text, decided) == live, (seed, text)
    return len(found), len(live)


GUARD = Guard(phrases=PHRASES, action="redact")


def test_a_hundred_streams():
    found = [check(seed)[0] for seed in range(100)]
    assert sum(found) > 100


@pytest.mark.slow
def test_ten_thousand_streams():
    found = [check(seed)[0] for seed in range(10_000)]
    assert sum(found) > 10_000 and found.count(0) > 100
