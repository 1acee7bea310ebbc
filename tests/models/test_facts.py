"""The Setting of a model: the same for the same, in any process, and another for anything that matters."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import byte_level, llama_config
from transformers import LlamaForCausalLM

from tokentape.data.setting import NOTED
from tokentape.models import facts
from tokentape.models.causal import load
from tokentape.models.facts import setting_of, tokenizer_hash, weights_hash

COMPARED = {
    "model", "revision", "architecture", "parameters", "weights", "random_weights", "dtype", "quantization", "device",
    "attn_implementation", "tokenizer", "engine", "python", "torch", "transformers", "tokenizers", "tokentape",
    "processor", "logical_cpus", "torch_threads", "torch_interop_threads", "float32_matmul_precision", "os", "gpu",
    "cuda", "driver", "clock",
}  # fmt: skip


def small(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(3)
    return LlamaForCausalLM(llama_config(**changes)).eval()


def test_facts_are_there_and_json(whole: Path) -> None:
    setting = setting_of(load(whole, device="cpu"))
    assert set(setting.facts) - NOTED == COMPARED
    assert json.loads(json.dumps(dict(setting.facts))) == dict(setting.facts)
    found = {name: setting.facts[name] for name in ("model", "model_path", "architecture", "dtype", "device", "engine")}
    assert found == {
        "model": whole.name, "model_path": str(whole), "architecture": "LlamaForCausalLM", "dtype": "float32",
        "device": "cpu", "engine": "transformers",
    }  # fmt: skip
    assert setting.facts["parameters"] == sum(p.numel() for p in small().parameters())
    assert setting.facts["torch"] == torch.__version__
    assert setting.facts["clock"] == "perf_counter_ns"


def test_further_facts_go_first(whole: Path) -> None:
    setting = setting_of(load(whole), clock="cuda_event", batch_rule="none")
    assert (setting.facts["clock"], setting.facts["batch_rule"]) == ("cuda_event", "none")


def test_loaded_and_attached_are_the_same_setting(whole: Path) -> None:
    loaded = load(whole, device="cpu")
    model = LlamaForCausalLM.from_pretrained(whole)
    assert setting_of(loaded).differences(setting_of(model, loaded.tokenizer)) == {}


def test_fingerprint_is_the_same_in_another_process(whole: Path) -> None:
    program = (
        "import sys; from tokentape.models.causal import load; from tokentape.models.facts import setting_of;"
        "print(setting_of(load(sys.argv[1], device='cpu')).fingerprint)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(whole)], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [setting_of(load(whole, device="cpu")).fingerprint], done.stderr


def test_place_of_the_folder_does_not_matter(whole: Path, tmp_path: Path) -> None:
    link = tmp_path / whole.name
    link.symlink_to(whole, target_is_directory=True)
    assert setting_of(load(whole)).fingerprint == setting_of(load(link)).fingerprint


@pytest.mark.parametrize("full_bytes", [facts.FULL_BYTES, 0])
def test_one_weight_changed_is_another_model(full_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "FULL_BYTES", full_bytes)
    model = small()
    before = weights_hash(model)
    assert before == weights_hash(small()), "and the same weights are the same model"
    assert before is not None and before.startswith("full:" if full_bytes else "sampled:")
    model.model.layers[1].mlp.up_proj.weight.data[2, 3] += 1e-3
    assert weights_hash(model) != before


def test_large_tensors_are_sampled_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "FULL_BYTES", 0)
    layer = torch.nn.Linear(1000, 1000, bias=False)
    hashes = [weights_hash(layer)]
    for part in (layer.weight.data[:100], layer.weight.data[450:550], layer.weight.data[-100:]):
        part.add_(1)
        hashes.append(weights_hash(layer))
    assert len(set(hashes)) == 4


def test_hash_tells_dtype_shape_and_name_apart() -> None:
    plain = small()
    variants = [plain, small().to(torch.bfloat16), small(hidden_size=24), small(tie_word_embeddings=True)]
    assert len({weights_hash(model) for model in variants}) == len(variants)


def test_weights_that_are_nowhere_have_shapes_only() -> None:
    with torch.device("meta"):
        hollow = LlamaForCausalLM(llama_config())
    found = weights_hash(hollow)
    assert found is not None and found.startswith("shapes:")


def test_mixed_dtypes_are_all_named() -> None:
    model = small().to(torch.bfloat16)
    model.model.norm.float()
    assert setting_of(model).facts["dtype"] == "bfloat16+float32"


def test_compiled_model_is_the_model() -> None:
    model = small()
    wrapped = torch.nn.Module()
    wrapped._orig_mod = model
    assert setting_of(wrapped).fingerprint == setting_of(model).fingerprint


def test_tokenizer_hash_follows_the_vocabulary_not_the_calls() -> None:
    tokenizer = byte_level(["the cat sat on the mat"] * 4, 270)
    before = tokenizer_hash(tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer(["a", "the cat sat on the mat"], padding=True, truncation=True, max_length=4)
    assert tokenizer_hash(tokenizer) == before
    tokenizer.add_tokens(["<new>"])
    assert tokenizer_hash(tokenizer) != before
    assert tokenizer_hash(byte_level(["another text"] * 4, 270)) != before
    assert tokenizer_hash(None) is None


def test_arguments_of_the_program_are_not_kept(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tokentape", "record", "a secret prompt"])
    assert "secret" not in json.dumps(dict(setting_of(load(whole)).facts))
