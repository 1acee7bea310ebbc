"""Tapes whose tokens try everything."""

from __future__ import annotations

from hypothesis import strategies as st

from study.paper import Take, paper
from tokentape.data.tape import Tape
from tokentape.recorder.tick import Said
from tokentape.sources.scripted import Line

HOSTILE = [
    b"</script><script>alert(1)</script>",
    b'"><img src=x onerror=alert(1)>',
    b"=1+1",
    b"+1",
    b"-1",
    b"@SUM(A1)",
    "＝cmd".encode(),
    b"'quoted",
    b'"',
    b'""',
    b",;\t|",
    b"\n",
    b"\r\n",
    b"\x00",
    b"a\x00b",
    b"\\n",
    b"\\",
    b"\x1b[31m",
    "\u202e".encode(),
    "\u2028\u2029\x85".encode(),
    b"\xed\xa0\x80",  # a lone surrogate, as no UTF-8 has it
    b"\xf0\x9f",
    b"\x90\x88",
    "🐈".encode(),
    b"",
    b" ",
    b"null",
    b"NaN",
    b"x" * 1000,
]

some_bytes = st.one_of(
    st.sampled_from(HOSTILE), st.binary(max_size=8), st.text(max_size=8).map(lambda s: s.encode("utf-8", "replace"))
)


def hostile_tape(tokens: list[bytes]) -> Tape:
    """One sequence of these tokens, a step of 1,234,567 ns each, some of their figures unknown, one infinite."""
    script = [
        Line(
            1_234_567,
            [
                Said(
                    0,
                    i,
                    data,
                    None if i % 3 == 0 else -0.1 * i,
                    float("inf") if i == 5 else 1.5,
                    None if i % 4 == 0 else i + 1,
                    candidates=((i, -0.5), (7, float("-inf"))) if i % 2 else None,
                )
            ],
        )
        for i, data in enumerate(tokens)
    ]
    return paper(Take(script))
