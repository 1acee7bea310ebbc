"""lm-evaluation-harness's Hugging Face path (`HFLM`), asked for log-probabilities; nothing here imports tokentape.

    PEER_PYTHON benchmarks/peers/run_lm_eval.py JOB ANSWER        ("-": standard input, standard output)

The job, one JSON object: `model` (a folder), or `config` (a config.json, its weights drawn from `seed`) with `tokenizer` (a
folder); `threads` (1), `batch_size` (1, as is HFLM's default); `tasks`, each with `kind`:

* `loglikelihood`: `pairs` of context and continuation. `rolling`: `texts`. `add_bos_token` (null: as the tokenizer does) and
  `max_length` (null: the model's) are those of HFLM.
* `tokens`: `pairs` of ids, given to what both others end in, `HFLM._loglikelihood_tokens`.

The answer: `versions`, and for each task `values` (nats), `seconds`, `cpu_seconds` of all threads, and `peak_bytes`, the most
resident memory while it ran, with `loaded_bytes`, what was resident just before.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


def resident(name: str) -> int:
    """`VmRSS` or `VmHWM` of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def forget_peak() -> None:
    """Let `VmHWM` begin anew at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def model_of(job: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if "model" in job:
        return AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    torch.manual_seed(job["seed"])
    config = AutoConfig.from_pretrained(job["config"])
    with torch.device("cpu"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def answered(task: dict[str, Any], model: Any, tokenizer: Any, batch_size: int) -> dict[str, Any]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        add_bos_token=task.get("add_bos_token"),
        max_length=task.get("max_length"),
    )
    kind = task["kind"]
    listed = task["texts"] if kind == "rolling" else task["pairs"]
    requests: list[Any] = [
        Instance(kind, {}, (one,) if kind == "rolling" else tuple(one), i) for i, one in enumerate(listed)
    ]
    if kind == "tokens":
        requests = [(("", ""), context, continuation) for context, continuation in listed]
    forget_peak()
    loaded, start, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
    if kind == "loglikelihood":
        values = [float(value) for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    elif kind == "rolling":
        values = [float(value) for value in lm.loglikelihood_rolling(requests, disable_tqdm=True)]
    else:
        values = [float(value) for value, _ in lm._loglikelihood_tokens(requests, disable_tqdm=True)]
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    spent = {"seconds": seconds, "cpu_seconds": cpu_seconds}
    return {"values": values, **spent, "peak_bytes": resident("VmHWM"), "loaded_bytes": loaded}


def main() -> None:
    given, place = sys.argv[1:]
    job = json.loads(sys.stdin.read() if given == "-" else Path(given).read_text())
    os.environ["OMP_NUM_THREADS"] = str(job.get("threads", 1))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(job.get("threads", 1))
    model = model_of(job)
    tokenizer = AutoTokenizer.from_pretrained(job.get("tokenizer") or job["model"])
    answer = {
        "versions": {name: version(name) for name in ("lm_eval", "transformers", "torch")},
        "tasks": [answered(task, model, tokenizer, job.get("batch_size", 1)) for task in job["tasks"]],
    }
    text = json.dumps(answer)
    sys.stdout.write(text) if place == "-" else Path(place).write_text(text)


if __name__ == "__main__":
    main()
