"""Reading configurations: where they come from, what is refused and how, and sizes changed on paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tokentape as tt
from tokentape.errors import StudyError, UsageError
from tokentape.study.cost.architecture import architecture_of, kinds_text
from tokentape.study.cost.counting import workload
from tokentape.study.cost.whatif import altered, read_values, sizes

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 1000,
}  # fmt: skip


def test_from_a_file_a_folder_a_mapping_and_the_demo(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    expected = architecture_of(LLAMA)
    assert architecture_of(tmp_path) == architecture_of(str(tmp_path / "config.json")) == expected
    assert architecture_of(expected) is expected
    assert architecture_of("demo").parameters == 995_968


def test_from_a_tape_and_its_path(tmp_path: Path) -> None:
    tape = tt.record(tt.local("demo", dtype="bfloat16"), "The fox", max_new_tokens=2, path=tmp_path / "a.tape")
    assert architecture_of(tape).parameters == tape.setting.facts["parameters"]
    assert architecture_of(tmp_path / "a.tape").dtype == "bfloat16", "as it was run, not as the file has it"
    json.dumps(tape.setting.facts["config"], allow_nan=False)


def test_a_tape_that_does_not_know_its_model(tmp_path: Path) -> None:
    tape = tt.record(tt.ScriptedSource([tt.Line(10, "one")]), "x", path=tmp_path / "s.tape")
    with pytest.raises(StudyError, match="does not say how its model is built") as caught:
        architecture_of(tape)
    assert "config.json" in caught.value.fix


def test_the_configuration_is_noted_and_not_compared() -> None:
    one, other = (
        tt.Setting({"model": "a", "config": {"n_layer": 2}}),
        tt.Setting({"model": "a", "config": {"n_layer": 3}}),
    )
    assert one.fingerprint == other.fingerprint and one.differences(other) == {}


def test_the_text_part_of_a_model_that_sees() -> None:
    inner = {**LLAMA, "model_type": "gemma3_text", "head_dim": 8}
    both = architecture_of(
        {"model_type": "gemma3", "dtype": "bfloat16", "text_config": inner, "vision_config": {"hidden_size": 9}}
    )
    assert both.model_type == "gemma3_text" and both.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("config", "what", "says"),
    [
        ({}, "names no model_type", "llama"),
        ({"model_type": "lama"}, "'lama' is not known", "llama"),
        ({"model_type": "xlstm"}, "'xlstm' is not known", "record it"),
        ({k: v for k, v in LLAMA.items() if k != "num_hidden_layers"}, "has no num_hidden_layers", "num_hidden_layers"),
        ({**LLAMA, "hidden_size": 0}, "hidden_size is 0", "whole number"),
        ({**LLAMA, "hidden_size": "64"}, "hidden_size is '64'", "whole number"),
        ({**LLAMA, "hidden_size": 65}, "65 cannot be cut into 8 heads", "divides 65: 1, 5, 13, 65"),
        ({**LLAMA, "num_key_value_heads": 3}, "8 heads do not share 3 key-value heads", "1, 2, 4, 8"),
        ({**LLAMA, "model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3}, "uses 3 of 2 experts", "at most 2"),
        ({**LLAMA, "model_type": "mistral", "sliding_window": -4}, "is -4", "whole number"),
        ({**LLAMA, "model_type": "qwen2", "layer_types": ["spiral_attention"]}, "of the kind 'spiral_attention'", "record"),
        ({**LLAMA, "quantization_config": {"quant_method": "aqlm"}}, "quantised by 'aqlm'", "--dtype"),
        ({**LLAMA, "model_type": "mamba2", "layer_types": None, "state_size": 0}, "state_size is 0", "whole number"),
    ],
)  # fmt: skip
def test_refused_by_name(config: dict[str, Any], what: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        architecture_of(config)
    assert what in caught.value.what
    assert says in f"{caught.value.why} {caught.value.fix}"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bigscience/bloom-560m", "download its config.json"),
        ("nowhere.json", "a folder with one"),
        (".", "holds no config.json"),
    ],
)
def test_what_is_not_there(name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        architecture_of(name)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00\x01"])
def test_a_file_that_is_no_configuration(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match="is no configuration"):
        architecture_of(tmp_path)


@pytest.mark.parametrize(
    ("told", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4 + 20 / 128),
        ({"quant_method": "awq", "bits": 4, "group_size": -1}, 4),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8 + 32 / 128**2),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 4 + 8 / 64 + 32 / (64 * 256)),
    ],
)
def test_bits_of_quantised_weights(told: dict[str, Any], bits: float) -> None:
    work = workload({**LLAMA, "dtype": "bfloat16", "quantization_config": told})
    plain = workload({**LLAMA, "dtype": "bfloat16"})
    inside = 3 * (64 * 64 * 2 + 64 * 16 * 2 + 3 * 64 * 160)
    assert plain.weight_bytes - work.weight_bytes == pytest.approx(inside * (2 - bits / 8))
    assert workload({**LLAMA, "quantization_config": told}, "bfloat16").weight_bytes == plain.weight_bytes


def test_what_if() -> None:
    a = architecture_of(altered(LLAMA, layers=6, hidden=128, heads=16, kv_heads=4, intermediate=320, vocab=50))
    assert sizes(a) == {"layers": 6, "hidden": 128, "vocab": 50, "heads": 16, "kv_heads": 4, "intermediate": 320}
    assert altered(LLAMA) == LLAMA


def test_the_width_of_a_head_follows_unless_it_was_set_apart() -> None:
    explicit = {**LLAMA, "head_dim": 8}
    assert architecture_of(altered(explicit, heads=4, kv_heads=2)).blocks[0].attention.key_dim == 16
    apart = {**LLAMA, "head_dim": 32}
    assert architecture_of(altered(apart, heads=4)).blocks[0].attention.key_dim == 32


def test_key_value_heads_follow_where_there_were_as_many() -> None:
    alike = {**LLAMA, "num_key_value_heads": 8}
    assert architecture_of(altered(alike, heads=16)).kv_heads == 16
    assert architecture_of(altered(LLAMA, heads=16)).kv_heads == 2


def test_more_layers_of_a_pattern() -> None:
    types = ["sliding_attention", "full_attention"]
    config = {
        **LLAMA,
        "model_type": "gemma2",
        "head_dim": 8,
        "sliding_window": 4,
        "num_hidden_layers": 2,
        "layer_types": types,
    }
    assert kinds_text(architecture_of(altered(config, layers=6))) == "3 sliding (4) + 3 attention"


@pytest.mark.parametrize(
    ("config", "change", "says"),
    [
        (LLAMA, {"heads": 7}, "cannot be cut into 7 heads"),
        (LLAMA, {"kv_heads": 5}, "8 heads do not share 5"),
        (LLAMA, {"layers": 0}, "layers is 0"),
        (LLAMA, {"vocab": -1}, "vocab is -1"),
        ({"model_type": "bloom", "hidden_size": 8, "n_layer": 1, "n_head": 2, "vocab_size": 9}, {"intermediate": 9}, "multiple of"),
        ({"model_type": "bloom", "hidden_size": 8, "n_layer": 1, "n_head": 2, "vocab_size": 9}, {"kv_heads": 1}, "follows from"),
        ({"model_type": "mamba", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 9}, {"heads": 2}, "no attention heads"),
    ],
)  # fmt: skip
def test_impossible_what_ifs(config: dict[str, Any], change: dict[str, int], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        architecture_of(altered(config, **change))
    assert says in str(caught.value) and caught.value.fix


def test_values_to_vary() -> None:
    assert read_values("layers=12,24,48") == ("layers", (12, 24, 48))
    assert read_values("context=1k..6k") == ("context", (1024, 2048, 4096, 6144))
    assert read_values("kv-heads=1, 1,2") == ("kv_heads", (1, 2))
    for wrong in ("layers", "depth=3", "layers=", "layers=a", "context=8..4", "context=0..4", "context=-1"):
        with pytest.raises(UsageError):
            read_values(wrong)
