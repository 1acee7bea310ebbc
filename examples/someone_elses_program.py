"""Record a program that knows nothing of tokentape."""

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import tokentape as tt

folder = Path(tt.__file__).parent / "models" / "demo"
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)

with tt.recording(model, tokenizer=tokenizer) as tape:
    inputs = tokenizer("The cat sat on the", return_tensors="pt")
    model.generate(**inputs, max_new_tokens=8)
    pipeline("text-generation", model=model, tokenizer=tokenizer)("The dog", max_new_tokens=8)

for trace in tape.traces:
    print(f"run {trace.run.number}: {trace.prompt_text!r} -> {trace.text!r}")
