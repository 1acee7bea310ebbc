"""Which tokens surprised the model most, and what it would rather have said."""

import tokentape as tt

source = tt.local("demo")
tape = tt.record(source, "The cat sat on the", max_new_tokens=40, do_sample=True, seed=3)
trace = tape.traces[0]
print(trace.prompt_text + trace.text)
for i in sorted(range(len(trace.token_ids)), key=lambda i: trace.tokens["logprob"][i])[:3]:
    said = trace.token_bytes[i].decode(errors="replace")
    best = tape.pieces[int(trace.candidates.ids[i, 0])].bytes.decode(errors="replace")
    print(
        f"{said!r} at {-trace.tokens['logprob'][i]:.2f} nats, rank {trace.tokens['rank'][i]}; most likely was {best!r}"
    )
