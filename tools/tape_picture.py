"""Draws the picture in the README: a real tape of the model that ships, as one SVG file without any dependency.

``python tools/tape_picture.py`` writes docs/tape.svg.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

import tokentape as tt

PLACE = Path(__file__).resolve().parents[1] / "docs" / "tape.svg"
PROMPT = "The cat sat on the"
N_TOKENS = 12
LEFT, STEP, HEIGHT = 118, 62, 250
STYLE = """
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #24292f }
.quiet { fill: #57606a; font-size: 11px } .prompt rect { fill: #eaeef2 } .said rect { fill: #ddf4ff }
.ms { fill: #0969da } .nats { fill: #bc4c00 } .back { fill: #ffffff } line { stroke: #d0d7de }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #8d96a0 } .prompt rect { fill: #21262d } .said rect { fill: #0c2d6b }
  .ms { fill: #58a6ff } .nats { fill: #f0883e } .back { fill: #0d1117 } line { stroke: #30363d }
}"""


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}" xml:space="preserve">{escape(words)}</text>'


def bars(values: list[float], base: float, height: float, kind: str, form: str) -> list[str]:
    """One bar a token, the figure above it."""
    largest = max(values)
    drawn = []
    for i, value in enumerate(values):
        tall = max(1.0, height * value / largest)
        x = LEFT + i * STEP
        drawn.append(
            f'<rect x="{x + 16}" y="{base - tall:.1f}" width="{STEP - 34}" height="{tall:.1f}" rx="2" class="{kind}"/>'
        )
        drawn.append(text(x + STEP / 2 - 1, base - tall - 4, form.format(value), "quiet"))
    return drawn


def picture(tape: tt.Tape) -> str:
    """The tokens of the first trace, under each the time of its step, its surprise and what else was likely."""
    trace = tape.traces[0]
    steps, tokens = trace.steps, trace.tokens
    took = ((steps["end_ns"] - steps["start_ns"]) / 1e6)[tokens["step"]].tolist()
    surprise = (-tokens["logprob"]).tolist()
    n = len(surprise)
    width = LEFT + n * STEP + 12
    parts = [f'<rect width="{width}" height="{HEIGHT}" rx="8" class="back"/>']
    parts += [text(14, 30, trace.prompt_text or "", "quiet", "start")]
    labels = ((64, "token"), (118, "step, ms"), (178, "surprise, nats"), (216, "also likely"))
    parts += [text(LEFT - 14, y, words, "quiet", "end") for y, words in labels]
    for i, data in enumerate(trace.token_bytes):
        x = LEFT + i * STEP
        parts.append(f'<g class="said"><rect x="{x}" y="46" width="{STEP - 4}" height="26" rx="4"/></g>')
        parts.append(text(x + STEP / 2 - 2, 64, (data or b"").decode(errors="replace").strip() or "end"))
        for row, candidate in enumerate(_others(tape, i)):
            parts.append(text(x + STEP / 2 - 2, 216 + 16 * row, candidate, "quiet"))
    parts += bars(took, 128, 34, "ms", "{:.1f}")
    parts += bars(surprise, 188, 34, "nats", "{:.2f}")
    parts += [f'<line x1="{LEFT}" x2="{width - 14}" y1="{y}" y2="{y}"/>' for y in (128.5, 188.5)]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" '
        f'role="img" aria-label="A tape: tokens, step times, surprise, candidates"><style>{STYLE}</style>\n{body}\n</svg>\n'
    )


def _others(tape: tt.Tape, i: int) -> list[str]:
    """The two likeliest tokens that were not chosen, where they had at least one percent."""
    trace = tape.traces[0]
    found = []
    for token_id, logprob in zip(trace.candidates.ids[i].tolist(), trace.candidates.logprob[i].tolist(), strict=True):
        if token_id != trace.token_ids[i] and logprob > -4.6:
            piece = tape.pieces[token_id]
            found.append((piece.bytes.decode(errors="replace") or piece.token).strip()[:8])
    return found[:2]


def main() -> None:
    source = tt.local("demo")
    tt.record(source, PROMPT, max_new_tokens=N_TOKENS)  # so that first-use costs are not in the picture
    tape = tt.record(source, PROMPT, max_new_tokens=N_TOKENS)
    PLACE.write_text(picture(tape), encoding="utf-8")
    print(PLACE)


if __name__ == "__main__":
    main()
