"""A batch of prompts as one table: every token of the tape, as numpy columns."""

import tokentape as tt

prompts = ["The cat sat on the", "The dog", "Question: Where is Tom?"]
tape = tt.record(tt.local("demo"), prompts, max_new_tokens=12)
tokens = tape.columns("token")
for trace in tape.traces:
    mine = tokens["trace"] == trace.number
    print(f"{trace.prompt_text!r}: {mine.sum()} tokens, mean log-probability {tokens['logprob'][mine].mean():.3f}")
