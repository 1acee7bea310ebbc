"""The slowest steps of a run, and what else the machine was doing in them."""

import numpy as np

import tokentape as tt

tape = tt.record(tt.local("demo"), "Once upon a time", max_new_tokens=60, min_new_tokens=60, probe="timing")
steps = tape.traces[0].steps
took = steps["end_ns"] - steps["start_ns"]
for i in np.argsort(-took)[:3]:
    print(
        f"step {i}: {took[i] / 1e6:.2f} ms at context {steps['context'][i]}, {steps['cpu_ns'][i] / 1e6:.2f} ms of CPU, "
        f"{steps['switches'][i]} involuntary switches, {steps['gc_count'][i]} collections"
    )
