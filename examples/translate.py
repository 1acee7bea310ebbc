"""A translation, and which of its words the model was least sure of."""

import tokentape as tt

found = tt.translate(tt.local("demo"), ["The cat sat on the mat.", "The dog ate the train."], from_="en", to="zh")
for text, trace in zip(found.texts, found.tape.traces, strict=True):
    least = int(trace.tokens["logprob"].argmin())
    said = trace.token_bytes[least].decode(errors="replace")
    print(f"{text}  least sure of {said!r}, at {-trace.tokens['logprob'][least]:.2f} nats of surprise")
