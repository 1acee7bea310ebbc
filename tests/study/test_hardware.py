"""The catalogue is sane, and machines are found by what people call them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tokentape.errors import StudyError, UsageError
from tokentape.study.cost.hardware import CATALOGUE, SHOWN, Hardware, find_hardware, machine_file

# What the makers print in large letters: with structured sparsity, in TFLOP/s. Ours are dense, half of it.
SPARSE = {
    "A100-80GB-SXM": {"bfloat16": 624, "float16": 624, "int8": 1248},
    "H100-SXM": {"bfloat16": 1979, "float16": 1979, "float8": 3958},
    "H100-PCIe": {"bfloat16": 1513, "float8": 3026},
    "H100-NVL": {"bfloat16": 1671, "float8": 3341},
    "H200": {"bfloat16": 1979, "float8": 3958},
    "B200": {"bfloat16": 4500, "float8": 9000, "float4": 18000},
    "GB200": {"bfloat16": 5000, "float8": 10000, "float4": 20000},
    "L4": {"bfloat16": 242, "float8": 485},
    "L40S": {"bfloat16": 733, "float8": 1466},
    "A10": {"bfloat16": 250, "int8": 500},
    "RTX-4090": {"bfloat16": 330.3, "float8": 660.6},
    "RTX-3090": {"bfloat16": 142, "int8": 568},
    "MI300X": {"bfloat16": 2614.9, "float8": 5229.8},
}


def test_dense_is_half_of_what_is_advertised() -> None:
    by_name = {h.name: h for h in CATALOGUE}
    for name, marketed in SPARSE.items():
        for dtype, rate in marketed.items():
            assert by_name[name].tflops[dtype] == pytest.approx(rate / 2, rel=0.02), (name, dtype)


@pytest.mark.parametrize("machine", CATALOGUE, ids=lambda h: h.name)
def test_every_row_is_sane(machine: Hardware) -> None:
    order = [machine.tflops[d] for d in ("float32", "bfloat16", "float8", "float4") if d in machine.tflops]
    assert order == sorted(order) and order[0] > 0
    assert "computed" in machine.source or any(str(year) in machine.source for year in range(2016, 2027))
    assert 50 < machine.bandwidth_gb_s < 20_000
    assert machine.memory_gb is None or 8 <= machine.memory_gb <= 512
    assert machine.tdp_w is None or 50 <= machine.tdp_w <= 2000
    # operations a byte at which memory stops to be the bound: far from 1 and from 10,000 on anything that exists
    assert 10 < max(order) * 1e3 / machine.bandwidth_gb_s < 2000
    assert machine.measured is None


def test_names_are_unique_and_what_is_shown_exists() -> None:
    names = [name.lower() for h in CATALOGUE for name in (h.name, *h.aliases)]
    assert len(names) == len(set(names))
    assert set(SHOWN) <= {h.name for h in CATALOGUE}


@pytest.mark.parametrize(
    ("asked", "name"),
    [("h200", "H200"), ("H100", "H100-SXM"), ("nvidia a100", "A100-80GB-SXM"), ("A100 80GB PCIe", "A100-80GB-PCIe"),
     ("geforce rtx 4090", "RTX-4090"), ("mi300", "MI300X"), ("amd MI325X", "MI325X"), ("v5e", "TPU-v5e"),
     ("m4 max", "Apple-M4-Max"), ("epyc", "EPYC-9654"), ("xeon-8480+", "Xeon-8480+"), ("8480", "Xeon-8480+")],
)  # fmt: skip
def test_found_by_what_people_say(asked: str, name: str) -> None:
    assert find_hardware(asked).name == name


@pytest.mark.parametrize(
    ("asked", "says"),
    [("a100-40", "A100-40GB-PCIe, A100-40GB-SXM"), ("h300", "H200"), ("toaster", "A100"), ("", "A100")],
)
def test_not_found(asked: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_hardware(asked)
    assert says in caught.value.why and caught.value.fix


def test_peak_falls_back_to_a_wider_dtype_and_says_which() -> None:
    assert find_hardware("h100").peak("float8") == (1978.9e12, "float8")
    assert find_hardware("a100").peak("float8") == (312e12, "bfloat16")
    assert find_hardware("v100").peak("bfloat16") == (15.7e12, "float32")
    with pytest.raises(UsageError, match="no rate for float32"):
        find_hardware("v5e").peak("float32")


def test_this_machine_before_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(StudyError) as caught:
        find_hardware("this")
    assert caught.value.fix == "tokentape doctor --measure"
    assert machine_file().is_relative_to(tmp_path)


def test_a_file_describes_a_machine(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"tflops": {"bfloat16": 10}, "bandwidth_gb_s": 100, "memory_gb": 8}))
    found = find_hardware(str(path))
    assert (found.name, found.peak("bfloat16")[0], found.memory_gb) == ("mine", 1e13, 8)
    path.write_text(json.dumps(find_hardware("h200").as_dict()))
    assert dataclasses.replace(find_hardware(path), aliases=("h200-sxm",)) == find_hardware("h200")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"tflops": {}, "bandwidth_gb_s": 1}', '{"tflops": {"float32": 1}, "bandwidth_gb_s": 0}']
)
def test_a_file_that_describes_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="describes no machine"):
        find_hardware(path)
