"""A tape with exactly known times, for tests of what reads tapes."""

import tokentape as tt

script = [tt.Line(5_000_000, " mat"), tt.Line(1_000_000), tt.Line(2_000_000, [" and", " looked"])]
tape = tt.record(tt.ScriptedSource(script), "The cat sat on the", probe="timing")
trace = tape.traces[0]
times = trace.steps["end_ns"][trace.tokens["step"]]
assert trace.text == " mat and looked"
assert times.tolist() == [5_000_000, 8_000_000, 8_000_000]
print([f"{token.decode()!r} after {ns / 1e6:g} ms" for token, ns in zip(trace.token_bytes, times, strict=True)])
