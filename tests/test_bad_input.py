"""Bad input, one row a mistake: each is told as error, why and fix on stderr, with the right exit code, and no traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from families import tokenizer
from tokentape.cli.program import run

Make = Callable[[Path], list[str]]


@pytest.fixture(scope="session")
def good(tmp_path_factory) -> Path:
    """A small GPT-2 with 32 positions and the byte tokenizer, as a plain folder."""
    folder = tmp_path_factory.mktemp("models") / "good"
    config = GPT2Config(
        vocab_size=264,
        n_positions=32,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=257,
        eos_token_id=258,
        pad_token_id=259,
    )
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder beside a good model and a good tape, with an empty cache and no hub."""
    shutil.copytree(good, tmp_path / "good")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert run(["record", "good", "Hello", "--max-new-tokens", "5", "-o", "good.tape", "--quiet"]) == 0
    return tmp_path


def _edited(place: Path, name: str, file: str, edit: Callable[[bytes], bytes]) -> str:
    shutil.copytree(place / "good", place / name)
    path = place / name / file
    path.write_bytes(edit(path.read_bytes()))
    return name


def _config(**changes: object) -> Callable[[bytes], bytes]:
    return lambda text: json.dumps({**json.loads(text), **changes}).encode()


def _saved(place: Path, name: str, model: object) -> str:
    model.save_pretrained(place / name)
    return name


def _without_tokenizer(place: Path) -> list[str]:
    shutil.copytree(place / "good", place / "bare", ignore=shutil.ignore_patterns("tokenizer*", "special*", "vocab*"))
    return ["record", "bare", "Hello"]


def _bert(place: Path) -> list[str]:
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=264
    )
    return ["record", _saved(place, "bert", BertForMaskedLM(config)), "Hello"]


def _t5(place: Path) -> list[str]:
    config = T5Config(vocab_size=264, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    return ["record", _saved(place, "t5", T5ForConditionalGeneration(config)), "Hello"]


def _remote(place: Path) -> list[str]:
    auto = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    name = _edited(place, "remote", "config.json", _config(model_type="somethingelse", auto_map=auto))
    (place / name / "code.py").write_text("raise SystemExit('this code must not run')\n")
    return ["record", name, "Hello"]


def _bare_config(place: Path) -> list[str]:
    (place / "only").mkdir()
    shutil.copy(place / "good" / "config.json", place / "only" / "config.json")
    return ["record", "only", "--prompt-tokens", "4"]


def _tape(place: Path, edit: Callable[[bytearray], bytes]) -> str:
    (place / "bad.tape").write_bytes(edit(bytearray((place / "good.tape").read_bytes())))
    return "bad.tape"


def _flipped(place: Path) -> list[str]:
    """A bit of a recorded number: SQLite finds nothing wrong, our own sums do."""
    data = (place / "good.tape").read_bytes()
    with sqlite3.connect(place / "good.tape") as connection:
        (prompt,) = connection.execute("select prompt_text from trace").fetchone()
    where = data.index(prompt.encode())
    return ["verify", _tape(place, lambda b: bytes(b[:where]) + bytes([b[where] ^ 1]) + bytes(b[where + 1 :]))]


def _newer(place: Path) -> list[str]:
    return ["show", _tape(place, lambda b: bytes(b[:60]) + (99).to_bytes(4, "big") + bytes(b[64:]))]


def _other_database(place: Path) -> list[str]:
    with sqlite3.connect(place / "other.tape") as connection:
        connection.execute("create table t(a)")
    return ["show", "other.tape"]


def _written(name: str, data: bytes) -> Callable[[Path], list[str]]:
    def make(place: Path) -> list[str]:
        (place / name).write_bytes(data)
        return ["show", name]

    return make


def _record(*arguments: str) -> Make:
    return lambda place: ["record", "good", *arguments]


# what goes wrong: how it is made, exit code, what the error must say (regular expressions, each must be found)
TABLE: dict[str, tuple[Make, int, list[str]]] = {
    "unknown model while offline": (
        lambda place: ["record", "nobody/nothing", "Hello"],
        5,
        ["nobody/nothing", "offline|HF_HUB_OFFLINE", "cache", "HF_ENDPOINT"],
    ),
    "a folder without a model": (lambda place: [(place / "empty").mkdir(), "record", "./empty", "x"][1:], 1, ["config.json"]),
    "a folder that is not there": (lambda place: ["record", "./nowhere", "x"], 2, ["nowhere"]),
    "remote code": (_remote, 1, ["code", "--trust-remote-code"]),
    "a masked language model": (_bert, 1, ["not a causal", "BertForMaskedLM"]),
    "an encoder-decoder": (_t5, 1, ["not a causal", "encoder-decoder"]),
    "an unknown architecture": (
        lambda place: ["record", _edited(place, "new", "config.json", _config(model_type="gpt99", architectures=["X"])), "x"],
        1,
        ["gpt99"],
    ),
    "config.json is no JSON": (
        lambda place: ["record", _edited(place, "broken", "config.json", lambda text: text[:-20]), "x"],
        1,
        ["config.json"],
    ),
    "weights cut short": (
        lambda place: ["record", _edited(place, "short", "model.safetensors", lambda data: data[:-1000]), "x"],
        1,
        ["weights|safetensors"],
    ),
    "weights of another shape": (
        lambda place: ["record", _edited(place, "wide", "config.json", _config(n_embd=32)), "x"],
        1,
        ["wide", "shape|size|match"],
    ),
    "weights that lack a layer": (
        lambda place: ["record", _edited(place, "deep", "config.json", _config(n_layer=2)), "x"],
        1,
        ["deep", "h\\.1|missing|lack"],
    ),
    "tokenizer.json is broken": (
        lambda place: ["record", _edited(place, "tok", "tokenizer.json", lambda text: text[:-50]), "x"],
        1,
        ["tokenizer"],
    ),
    "no tokenizer": (_without_tokenizer, 1, ["tokenizer", "ids"]),
    "no weights and no seed": (_bare_config, 2, ["--random-weights"]),
    "a seed for weights that are there": (_record("Hello", "--random-weights", "0"), 2, ["random"]),
    "no prompt": (_record(), 2, ["prompt"]),
    "empty prompt": (_record(""), 2, ["empty", "--bos"]),
    "prompt longer than the positions": (_record("x" * 40), 2, ["40", "32", "positions"]),
    "prompt and answer longer than the positions": (
        _record("x" * 20, "--max-new-tokens", "20"),
        2,
        ["32", "max.new.tokens", "12"],
    ),
    "ids out of range": (_record("--prompt-ids", "1,2,99999"), 2, ["99999", "264"]),
    "negative ids": (_record("--prompt-ids", "1,-2"), 2, ["-2"]),
    "ids that are no numbers": (_record("--prompt-ids", "1,two"), 2, ["two"]),
    "prompt file that is not there": (_record("-f", "nothing.txt"), 2, ["nothing.txt"]),
    "zero new tokens": (_record("Hello", "--max-new-tokens", "0"), 2, ["max.new.tokens", "1"]),
    "negative new tokens": (_record("Hello", "--max-new-tokens", "-5"), 2, ["max.new.tokens"]),
    "minimum over maximum": (
        _record("Hello", "--min-new-tokens", "9", "--max-new-tokens", "3"),
        2,
        ["min.new.tokens", "max.new.tokens"],
    ),
    "temperature zero": (_record("Hello", "--do-sample", "--temperature", "0"), 2, ["temperature", "greedy"]),
    "top-p over one": (_record("Hello", "--do-sample", "--top-p", "1.5"), 2, ["top.p"]),
    "greedy with a temperature": (_record("Hello", "--greedy", "--temperature", "0.7"), 2, ["greedy", "temperature"]),
    "several sequences without sampling": (_record("Hello", "--num-return-sequences", "3"), 2, ["sampl"]),
    "negative candidates": (_record("Hello", "--candidates", "-1"), 2, ["candidates"]),
    "beam search": (_record("Hello", "--num-beams", "4"), 2, ["beam"]),
    "assisted decoding": (_record("Hello", "-g", "prompt_lookup_num_tokens=3"), 2, ["assisted|lookup"]),
    "an option that generate() does not have": (_record("Hello", "-g", "temprature=0.7"), 2, ["temprature"]),
    "an option without a value": (_record("Hello", "-g", "top_k"), 2, ["top_k"]),
    "unknown probe": (_record("Hello", "--probe", "everything"), 2, ["everything", "timing", "distribution"]),
    "unknown dtype": (_record("Hello", "--dtype", "int3"), 2, ["int3", "float32"]),
    "unknown device": (_record("Hello", "--device", "abacus"), 2, ["abacus", "cpu"]),
    "unknown flag": (_record("Hello", "--tokens", "3"), 2, ["--tokens"]),
    "unknown command": (lambda place: ["recrod", "good", "x"], 2, ["recrod", "record"]),
    "tape exists": (_record("Hello", "-o", "good.tape"), 2, ["good.tape", "exists", "--overwrite"]),
    "no such folder for the tape": (_record("Hello", "-o", "no/where.tape"), 2, ["folder", "mkdir"]),
    "a tape that is not there": (lambda place: ["show", "god.tape"], 2, ["god.tape", "good.tape"]),
    "a truncated tape": (lambda place: ["show", _tape(place, lambda b: bytes(b[: len(b) // 2]))], 6, ["damaged|not a tape"]),
    "a bit-flipped tape": (_flipped, 6, ["bad.tape"]),
    "a tape from a newer version": (_newer, 6, ["later", "99", "pip install"]),
    "another SQLite file": (_other_database, 6, ["not a tape"]),
    "a picture": (_written("cat.tape", b"\x89PNG\r\n\x1a\n" + bytes(2000)), 6, ["not a tape"]),
    "an empty file": (_written("cat.tape", b""), 6, ["not a tape", "empty"]),
    "a text": (_written("cat.tape", b"The cat sat on the mat.\n" * 100), 6, ["not a tape"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", TABLE)
def test_every_mistake_is_told(mistake: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, exit_code, expected = TABLE[mistake]
    arguments = make(place)
    before = sorted(path.name for path in place.iterdir())
    capsys.readouterr()
    code = run(arguments)
    out, err = capsys.readouterr()
    assert code == exit_code, err
    said = err if arguments[0] != "verify" else out + err
    for pattern in expected:
        assert re.search(pattern, said, re.IGNORECASE), f"{pattern!r} is not in:\n{said}"
    if arguments[0] != "verify":  # a report, not an error
        assert [line.split(":")[0] for line in err.splitlines() if re.match(r"(error|why|fix): ", line)] == [
            "error",
            "why",
            "fix",
        ]
    assert "Traceback" not in err
    assert sorted(path.name for path in place.iterdir()) == before, "a refused request leaves nothing behind"


def test_out_of_memory_is_told_with_numbers(place, capsys, monkeypatch) -> None:
    def starve(*_: object, **__: object) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        )

    monkeypatch.setattr(GPT2LMHeadModel, "forward", starve)
    assert run(["record", "good", "Hello", "-o", "a.tape"]) == 1
    err = capsys.readouterr().err
    assert "memory" in err and "GB" in err and "fix:" in err


def test_errors_are_one_document_with_json(place, capsys) -> None:
    capsys.readouterr()
    assert run(["record", "good", "", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"]
    assert document["error"]["exit_code"] == 2
    assert document["error"]["what"] and document["error"]["why"] and document["error"]["fix"]


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_without_torch_recording_says_what_to_install(missing: str, place: Path) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from tokentape.cli import main; main()"
    environment = {**os.environ, "NO_COLOR": "1"}
    for arguments, exit_code in ((["record", "good", "x"], 4), (["show", "good.tape"], 0)):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
        assert done.returncode == exit_code, done.stderr
        assert "Traceback" not in done.stderr
        if exit_code:
            assert missing in done.stderr and "pip install 'tokentape[local]'" in done.stderr
