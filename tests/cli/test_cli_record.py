"""`tokentape record`: what reaches the model, what comes out where, what is refused before a model is loaded."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape
from tokentape import Line
from tokentape.recorder.tick import Said

Done = Any  # code, out, err
Tape = Callable[..., Done]
MS = 1_000_000
Asked = dict[str, Any]


def own_options(asked: Asked) -> dict[str, Any]:
    """The options of generate() that reached `record`."""
    rest = {"path", "probe", "candidates", "seed", "overwrite", "text", "observer"}
    return {name: value for name, value in asked["options"].items() if name not in rest}


def test_stdout_is_the_text_and_stderr_the_rest(tape: Tape, asked: Asked) -> None:
    done = tape("record", "demo", "The cat", "-o", "cat.tape")
    assert (done.code, done.out) == (0, " mat.\n\n")
    assert "TTFT" in done.err and "tokentape show cat.tape" in done.err
    assert "\x1b" not in done.err, "stderr is no terminal here"
    with tokentape.open("cat.tape") as found:
        assert found.traces[0].text == " mat.\n"


def test_quiet_prints_the_text_alone(tape: Tape, asked: Asked) -> None:
    done = tape("record", "demo", "The cat", "--quiet")
    assert (done.out, done.err) == (" mat.\n\n", "")


def test_json_is_one_document(tape: Tape, asked: Asked) -> None:
    done = tape("record", "demo", "The cat", "--json", "-o", "cat.tape")
    found = json.loads(done.out)
    assert (found["schema_version"], found["command"], found["state"]) == (1, "record", "complete")
    assert found["traces"][0]["text"] == " mat.\n"
    assert found["summary"]["ttft_ns"] == [5 * MS]
    assert found["summary"]["gaps"][0]["value"] is None and found["summary"]["gaps"][0]["n_missing"] == 10


def test_default_name_is_model_and_moment_and_never_taken(tape: Tape, asked: Asked, tmp_path: Path) -> None:
    for _ in range(3):
        assert tape("record", "bigscience/bloom-560m@main", "x", "-q").code == 0
    names = sorted(path.name for path in tmp_path.glob("*.tape"))
    assert len(names) == 3 and all(name.startswith("bloom-560m-2") for name in names)


def test_tapes_go_where_the_environment_says(
    tape: Tape, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tapes").mkdir()
    monkeypatch.setenv("TOKENTAPE_DIR", str(tmp_path / "tapes"))
    assert tape("record", "demo", "x", "-q").code == 0
    assert len(list((tmp_path / "tapes").glob("demo-*.tape"))) == 1
    (tmp_path / "other").mkdir()
    assert tape("record", "demo", "x", "-q", "-o", "other").code == 0
    assert len(list((tmp_path / "other").glob("demo-*.tape"))) == 1


def test_prompt_from_a_file_loses_one_line_end(tape: Tape, asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("two\nlines\n\n", encoding="utf-8")
    assert tape("record", "demo", "-f", "p.txt").code == 0
    assert asked["prompt"] == "two\nlines\n"


def test_prompt_from_stdin(tape: Tape, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("你好\n".encode())))
    assert tape("record", "demo", "-").code == 0
    assert asked["prompt"] == "你好"


def test_batch_from_lines_and_from_jsonl(tape: Tape, asked: Asked, tmp_path: Path) -> None:
    asked["script"] = [Line(MS, [Said(0, None, b"a"), Said(1, None, b"b\n")])]
    (tmp_path / "p.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    done = tape("record", "demo", "--prompts", "p.txt")
    assert asked["prompt"] == ["one", "two"]
    assert done.out == "==> 0 <==\na\n==> 1 <==\nb\n\n"
    (tmp_path / "p.jsonl").write_text('{"prompt": "one"}\n"two"\n', encoding="utf-8")
    assert tape("record", "demo", "--prompts", "p.jsonl").code == 0
    assert asked["prompt"] == ["one", "two"]


def test_ids_and_random_ids(tape: Tape, asked: Asked) -> None:
    assert tape("record", "demo", "--prompt-ids", "1, 2,3").code == 0
    assert asked["prompt"] == [1, 2, 3]
    drawn = []
    for _ in range(2):
        assert tape("record", "demo", "--prompt-tokens", "50", "--seed", "4").code == 0
        drawn.append(asked["prompt"])
    assert drawn[0] == drawn[1] and len(drawn[0]) == 50
    assert all(0 <= i < 100 for i in drawn[0])


def test_bos_alone_starts_from_nothing(tape: Tape, asked: Asked) -> None:
    assert tape("record", "demo", "--bos").code == 0
    assert (asked["prompt"], asked["load"]["bos"]) == ("", True)


def test_model_flags_reach_the_model(tape: Tape, asked: Asked) -> None:
    flags = ["--dtype", "bfloat16", "--device", "cpu", "--revision", "v1", "--attn-implementation", "eager"]
    assert tape("record", "demo", "x", *flags, "--trust-remote-code", "--random-weights", "7").code == 0
    assert asked["load"] == {
        "dtype": "bfloat16",
        "device": "cpu",
        "revision": "v1",
        "attn_implementation": "eager",
        "trust_remote_code": True,
        "random_weights": 7,
        "bos": None,
    }


def test_only_options_that_were_given_reach_the_model(tape: Tape, asked: Asked) -> None:
    assert tape("record", "demo", "x").code == 0
    assert own_options(asked) == {}


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["-n", "5", "--min-new-tokens", "2"], {"max_new_tokens": 5, "min_new_tokens": 2}),
        (["--temperature", "0.8"], {"temperature": 0.8, "do_sample": True}),
        (["--top-p", "0.9", "--top-k", "3"], {"top_p": 0.9, "top_k": 3, "do_sample": True}),
        (["--temperature", "0"], {"do_sample": False}),
        (["--greedy"], {"do_sample": False}),
        (["--no-do-sample"], {"do_sample": False}),
        (["--do-sample"], {"do_sample": True}),
        (["--stop", "\n", "--stop", "END"], {"stop_strings": ["\n", "END"]}),
        (["-g", "length_penalty=1.5"], {"length_penalty": 1.5}),
        (["-g", "suppress-tokens=[1, 2]", "-g", "use_cache=True"], {"suppress_tokens": [1, 2], "use_cache": True}),
        (["-g", "cache_implementation=static"], {"cache_implementation": "static"}),
        (["--num-beams", "1"], {"num_beams": 1}),
    ],
)
def test_generation_flags(tape: Tape, asked: Asked, flags: list[str], options: dict[str, Any]) -> None:
    assert tape("record", "demo", "x", *flags).code == 0
    assert own_options(asked) == options


def test_ignore_eos_makes_the_model_forget_it(tape: Tape, asked: Asked) -> None:
    assert tape("record", "demo", "x", "-n", "5").code == 0
    assert asked["eos"] == 2
    assert tape("record", "demo", "x", "-n", "5", "--ignore-eos").code == 0
    assert asked["eos"] is None and own_options(asked) == {"max_new_tokens": 5}


def test_bad_words_are_banned_with_and_without_the_space_before(tape: Tape, asked: Asked) -> None:
    assert tape("record", "demo", "x", "--bad-words", "no").code == 0
    assert own_options(asked) == {"bad_words_ids": [list(b"no"), list(b" no")]}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--greedy", "--temperature", "0.5"], "--greedy together with --temperature"),
        (["--no-do-sample", "--top-p", "0.5"], "--greedy together with --top-p"),
        (["--greedy", "--do-sample"], "--greedy together with --do-sample"),
        (["--temperature", "0", "--do-sample"], "nothing to draw"),
        (["--temperature", "0", "--top-k", "5"], "--temperature 0 together with --top-k"),
        (["--temperature", "-1"], "temperature"),
        (["--top-p", "0"], "top_p"),
        (["--top-p", "1.5"], "top_p"),
        (["--max-new-tokens", "0"], "max_new_tokens"),
        (["--max-new-tokens", "-3"], "max_new_tokens"),
        (["--max-new-tokens", "many"], "not a valid integer"),
        (["--min-new-tokens", "9", "--max-new-tokens", "3"], "min_new_tokens=9"),
        (["--num-beams", "4"], "beam search is not recorded"),
        (["-g", "num_beams=4"], "beam search is not recorded"),
        (["-g", "penalty_alpha=0.6"], "contrastive search is not recorded"),
        (["-g", "temperature=1", "--temperature", "2"], "given twice"),
        (["-g", "top_k=1", "-g", "top_k=2"], "given twice"),
        (["-g", "nonsense"], "not key=value"),
        (["-g", "bad=[1,"], "no JSON"),
        (["--num-return-sequences", "3"], "num_return_sequences=3"),
        (["--ignore-eos"], "without a limit"),
        (["-f", "p.txt"], "PROMPT and -f together"),
        (["-f", "p.txt", "--prompt-ids", "1"], "together"),
        (["-o", "nowhere/x.tape"], "does not exist"),
        (["--probe", "all"], "distribution"),
        (["--candidates", "-1"], "candidates"),
        (["--temperatur", "1"], "no such option: --temperatur"),
    ],
)
def test_contradictions_are_refused_before_a_model_is_loaded(
    tape: Tape, asked: Asked, tmp_path: Path, flags: list[str], words: str
) -> None:
    done = tape("record", "demo", "x", *flags)
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("error: ") and "\nfix: " in done.err
    assert words in done.err
    assert "model" not in asked and not list(tmp_path.glob("*.tape"))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([], "no prompt was given"),
        ([""], "the prompt is empty"),
        (["The", "cat"], "fix: put the prompt in quotes: tokentape record MODEL 'The cat'"),
        (["-f", "absent.txt"], "absent.txt cannot be read"),
        (["-f", "empty.txt"], "empty.txt is empty"),
        (["-f", "latin.txt"], "latin.txt is not UTF-8"),
        (["--prompts", "empty.txt"], "has no prompts"),
        (["--prompts", "bad.jsonl"], "bad.jsonl, line 2: not JSON"),
        (["--prompts", "none.jsonl"], "none.jsonl, line 1: no prompt in it"),
        (["--prompts", "mixed.jsonl"], "texts and ids"),
        (["--prompt-ids", "1,a"], "not all are numbers"),
        (["--prompt-tokens", "0"], "0 is not in the range"),
    ],
)
def test_prompts_that_cannot_be_read(tape: Tape, asked: Asked, tmp_path: Path, prompt: list[str], words: str) -> None:
    (tmp_path / "empty.txt").write_bytes(b"\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "bad.jsonl").write_text('"a"\n{"prompt": \n', encoding="utf-8")
    (tmp_path / "none.jsonl").write_text('{"question": "a"}\n', encoding="utf-8")
    (tmp_path / "mixed.jsonl").write_text('"a"\n[1, 2]\n', encoding="utf-8")
    done = tape("record", "demo", *prompt)
    assert done.code == 2 and words in done.err
    assert "model" not in asked


def test_tape_that_is_there_is_kept_unless_told(tape: Tape, asked: Asked) -> None:
    assert tape("record", "demo", "x", "-o", "a.tape").code == 0
    asked.pop("model")
    done = tape("record", "demo", "x", "-o", "a.tape")
    assert done.code == 2 and "--overwrite" in done.err and "model" not in asked
    assert tape("record", "demo", "x", "-o", "a.tape", "--overwrite").code == 0


def test_interrupt_keeps_the_tape_and_leaves_with_130(tape: Tape, asked: Asked) -> None:
    asked["script"] = [*asked["script"], Line(MS, error=KeyboardInterrupt())]
    done = tape("record", "demo", "The cat", "-o", "cat.tape")
    assert (done.code, done.out) == (130, " mat.\n\n")
    assert "cat.tape (partial)" in done.err and "interrupted" in done.err
    with tokentape.open("cat.tape") as found:
        assert (found.state, found.traces[0].finish_reason) == ("partial", "interrupted")


def test_interrupt_as_json_says_so(tape: Tape, asked: Asked) -> None:
    asked["script"] = [*asked["script"], Line(MS, error=KeyboardInterrupt())]
    done = tape("record", "demo", "The cat", "-o", "cat.tape", "--json")
    found = json.loads(done.out)
    assert done.code == 130
    assert (found["interrupted"], found["state"]) == (True, "partial")


def test_interrupt_before_the_first_step_leaves_the_old_tape_alone(
    tape: Tape, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tape("record", "demo", "x", "-o", "a.tape").code == 0
    before = Path("a.tape").read_bytes()

    def interrupted(name: str, **load: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tokentape, "local", interrupted)
    done = tape("record", "demo", "x", "-o", "a.tape", "--overwrite")
    assert (done.code, done.out) == (130, "")
    assert "nothing was recorded" in done.err
    found = json.loads(tape("record", "demo", "x", "--json").out)
    assert found["interrupted"] is True and found["tape"] is None
    assert Path("a.tape").read_bytes() == before


def test_no_text_leaves_nothing_to_print(tape: Tape, asked: Asked) -> None:
    done = tape("record", "demo", "hush", "--no-text", "-o", "a.tape")
    assert (done.code, done.out) == (0, "")
    assert " mat" not in done.err and b"hush" not in Path("a.tape").read_bytes()


def test_unexpected_error_is_short_and_says_how_to_see_more(
    tape: Tape, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, **load: Any) -> None:
        raise RuntimeError("the tensor\nis gone")

    monkeypatch.setattr(tokentape, "local", broken)
    done = tape("record", "demo", "x")
    assert done.code == 1
    assert done.err.startswith("error: RuntimeError: the tensor is gone\n")
    assert "TOKENTAPE_DEBUG=1" in done.err and "Traceback" not in done.err
    monkeypatch.setenv("TOKENTAPE_DEBUG", "1")
    assert "Traceback" in tape("record", "demo", "x").err


@pytest.mark.material
def test_trained_model_says_exactly_what_is_known(tape: Tape, material: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = material / "models" / "stories260K"
    expected = (model / "expected_greedy_200.txt").read_text(encoding="utf-8")
    done = tape("record", model, "--bos", "--max-new-tokens", 200, "-o", tmp_path / "s.tape", "--threads", 1)
    assert (done.code, done.out) == (0, expected + "\n"), done.err
