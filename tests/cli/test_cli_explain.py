"""``tokentape explain`` and ``tokentape replay`` as they are used, and misused."""

from __future__ import annotations

import gc
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape
from tokentape.cli.replaying import uncollected
from tokentape.models.causal import load

Invoke = Callable[..., Any]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tapes") / "cat.tape"
    tokentape.record(tokentape.local("demo"), "The cat sat on the", max_new_tokens=8, path=path).close()
    return path


@pytest.fixture
def cat(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(recorded, tmp_path / "cat.tape"))


def test_the_first_token_in_plain_words(tape: Invoke, cat: Path) -> None:
    done = tape("explain", cat)
    assert done.code == 0 and done.err == ""
    assert done.out.startswith("' mat', position 5: 16.90 logits above the mean\n\n' mat' rests on ")
    assert "replay agrees with the tape" in done.out
    assert "%" not in done.out  # what one replacement changes adds up to nothing
    assert tape("verify", cat).code == 0


def test_the_answer_is_kept_once(tape: Invoke, cat: Path) -> None:
    for _ in range(2):
        assert tape("explain", cat, "--step", 1).code == 0
    assert tape("explain", cat, "--step", 2, "--no-save").code == 0
    with tokentape.open(cat) as opened:
        assert [found.targets.tolist() for found in opened.explanations] == [[6]]
        assert opened.explanations[0].passes["forward"] > 1


def test_a_ledger_may_speak_of_percentages(tape: Invoke, cat: Path) -> None:
    done = tape("explain", cat, "--method", "cp_lrp", "--against", "floor")
    assert "' mat' rather than ' floor'" in done.out and " cat' 79 %" in done.out
    assert "The books: 2.376 = tokens" in done.out and "patented" in done.out


def test_json_has_everything(tape: Invoke, cat: Path) -> None:
    told = json.loads(tape("explain", cat, "--method", "attn-lrp", "--all", "--json").out)["explanation"]
    assert told["method"] == "attn_lrp" and len(told["targets"]) == 8 and told["targets"][0]["token"] == "' mat'"
    assert told["relevance"][0][5:] == [None] * 7 and told["replay_check"]["passed"] is True
    parts = sum(told["ledger"][name][0] for name in told["ledger"])
    assert parts == pytest.approx(told["value"][0], abs=1e-5)
    assert told["number"] == 0


def test_every_token_has_a_line(tape: Invoke, cat: Path) -> None:
    lines = tape("explain", cat, "--all", "--method", "cp_lrp").out.splitlines()
    assert lines[0].split() == ["pos", "token", "logit", "rests", "most", "on"]
    assert [line.split()[0] for line in lines[1:9]] == [str(p) for p in range(5, 13)]


def test_a_span_is_one_answer(tape: Invoke, cat: Path) -> None:
    done = tape("explain", cat, "--span", "0..2", "--method", "cp_lrp", "--by", "word")
    assert done.out.startswith("' mat and looked', positions 5 to 7:")
    assert "The answer rests on" in done.out


def test_the_same_token_by_step_and_by_position(tape: Invoke, cat: Path) -> None:
    by_step, by_position = (
        tape("explain", cat, f"--{way}", n, "--method", "cp_lrp").out for way, n in (("step", 2), ("position", 7))
    )
    assert by_step.split("backward")[0] == by_position.split("backward")[0] and "' looked', position 7" in by_step


def test_the_methods_are_listed(tape: Invoke, cat: Path) -> None:
    done = tape("explain", cat, "--method", "list")
    assert "(default)" in done.out and "attn_lrp" in done.out and done.code == 0
    told = json.loads(tape("explain", cat, "--method", "list", "--json").out)
    assert sum(method["default"] for method in told["methods"]) == 1


def test_the_layers(tape: Invoke, cat: Path) -> None:
    done = tape("explain", cat, "--lens", "--step", 0)
    assert "' mat'" in done.out and "entry" in done.out and done.code == 0
    assert len(json.loads(tape("explain", cat, "--lens", "--json").out)["lens"]["positions"]) == 8


def test_methods_are_held_against_the_tape(tape: Invoke, cat: Path) -> None:
    done = tape("explain", cat, "--evaluate", "--method", "cp_lrp")
    assert done.code == 0 and "cp_lrp" in done.out and "random" in done.out and "n = 8" in done.out
    told = json.loads(tape("explain", cat, "--evaluate", "--method", "cp_lrp", "--step", 0, "--json").out)
    assert told["evaluation"]["n"] == 1


def test_a_replay_alone(tape: Invoke, cat: Path) -> None:
    done = tape("replay", cat)
    assert done.code == 0 and done.out.startswith("replay agrees with the tape") and "(n = 8)" in done.out
    told = json.loads(tape("replay", cat, "--json").out)
    assert told["passed"] is True and told["checks"][0]["largest"] < 1e-4


def changed_model(tmp_path: Path) -> Path:
    causal = load("demo")
    causal.model.transformer.ln_f.bias.data[3] += 0.5
    causal.model.save_pretrained(tmp_path / "changed")
    causal.tokenizer.save_pretrained(tmp_path / "changed")
    return tmp_path / "changed"


def test_another_model_is_caught(tape: Invoke, cat: Path, tmp_path: Path) -> None:
    other = changed_model(tmp_path)
    done = tape("replay", cat, "--model", other)
    assert done.code == 3 and "DISAGREES" in done.out and "weights" in done.out
    refused = tape("explain", cat, "--model", other)
    assert refused.code == 1 and refused.out == ""
    assert "error: the replay of sequence 0 does not agree" in refused.err and "--unchecked" in refused.err
    done = tape("explain", cat, "--model", other, "--unchecked", "--method", "cp_lrp")
    assert done.code == 0 and "REPLAY DISAGREES" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--step", "99"], "come from steps 0 to 7"),
        (["--position", "2"], "positions 5 to 12"),
        (["--span", "3"], "no range of steps"),
        (["--span", "5..99"], "no step 99"),
        (["--step", "1", "--all"], "--step together with --all"),
        (["--trace", "4"], "no sequence 4"),
        (["--method", "magic"], "no method 'magic'"),
        (["--against", "incomprehensibility"], "is not one token of demo"),
        (["--against", ""], "is not one token"),
        (["--option", "nothing=1"], "has no option 'nothing'"),
        (["--option", "nothing"], "not NAME=VALUE"),
        (["--model", "./nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_told(tape: Invoke, cat: Path, words: list[str], said: str) -> None:
    before = cat.read_bytes()
    done = tape("explain", cat, *words)
    assert done.code in (1, 2, 5) and done.out == ""
    assert said in done.err and "why:" in done.err and "fix:" in done.err and "Traceback" not in done.err
    assert cat.read_bytes() == before


def test_a_tape_that_cannot_be_written_to_is_explained_all_the_same(
    tape: Invoke, cat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tokentape.data.annex as annex
    from tokentape.errors import RecordingError

    def refuse(*_: Any) -> list[int]:
        raise RecordingError("cat.tape cannot be written to", why="permission denied", fix="chmod u+w cat.tape")

    monkeypatch.setattr(annex, "add_explanations", refuse)
    done = tape("explain", cat, "--method", "cp_lrp")
    assert done.code == 0 and "' mat' rests on" in done.out
    assert "not kept" in done.err and "permission denied" in done.err


def test_what_each_block_added(tape: Invoke, cat: Path) -> None:
    done = tape("explain", cat, "--direct", "--step", 0)
    assert done.code == 0 and "strongest head" in done.out and "16.902 logits above the mean" in done.out
    told = json.loads(tape("explain", cat, "--direct", "--all", "--json").out)
    assert len(told["direct"]["targets"]) == 8
    both = tape("explain", cat, "--direct", "--lens")
    assert both.code == 2 and "--lens together with --direct" in both.err


def test_where_the_model_looked(tape: Invoke, cat: Path) -> None:
    done = tape("explain", cat, "--attention", "--step", 0, "--top", 2)
    assert done.code == 0 and "Before ' mat' at position 5 the model looked at" in done.out
    assert "sharpest head" in done.out and "replay agrees" in done.out
    told = json.loads(tape("explain", cat, "--attention", "--all", "--json").out)["attention"]
    assert len(told["positions"]) == 8 == len(told["overall"]["sources"])
    assert all(source < told["positions"][0] for source in told["overall"]["sources"][0] if source is not None)


@pytest.mark.parametrize("kind", ["attention", "lens", "direct"])
def test_what_was_read_is_kept(tape: Invoke, cat: Path, kind: str) -> None:
    done = tape("explain", cat, f"--{kind}", "--step", 0)
    assert done.code == 0 and done.err == ""
    told = json.loads(tape("explain", cat, f"--{kind}", "--step", 2, "--no-save", "--json").out)[kind]
    assert told["number"] is None
    told = json.loads(tape("explain", cat, f"--{kind}", "--all", "--json").out)[kind]
    assert told.pop("number") == 0  # in the place of the first token's, which it says again
    assert tape("verify", cat).code == 0
    with tokentape.open(cat) as opened:
        (kept,) = opened.readings
        assert (kept.kind, kept.trace, kept.question["positions"]) == (kind, 0, list(range(5, 13)))
        assert json.loads(json.dumps(kept.found.to_dict())) == told
        assert kept.made["model"] == "demo" and kept.made["weights"] and kept.found.check.passed
        assert len(opened.explanations) == 0


def test_single_heads_are_kept_as_long_as_they_are_few(
    tape: Invoke, cat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tape("explain", cat, "--attention", "--all").err == ""
    monkeypatch.setattr("tokentape.explain.reading.MOST_HEAD_SOURCES", 100)
    done = tape("explain", cat, "--attention", "--all", "--top", 11)
    assert done.code == 0 and "of single heads no sources are kept for as many as 8 tokens" in done.err
    with tokentape.open(cat) as opened:
        first, second = opened.readings
        assert first.found.head_positions.tolist() == list(range(5, 13)) == second.found.positions.tolist()
        assert second.found.head_positions.tolist() == [] and second.found.top_k == 11


def test_a_tape_that_cannot_be_written_to_is_read_all_the_same(
    tape: Invoke, cat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokentape.data.reading_rows.LONGEST_VALUE", 100)
    done = tape("explain", cat, "--lens", "--json")
    assert done.code == 0 and json.loads(done.out)["lens"]["number"] is None
    assert "not kept in" in done.err and "too much for a tape" in done.err


@pytest.mark.parametrize(
    ("flags", "idle"),
    [
        (["--attention", "--against", "floor"], "--against"),
        (["--attention", "--method", "rollout"], "--method"),
        (["--lens", "--by", "word"], "--by"),
        (["--direct", "--option", "steps=3"], "--option"),
        (["--evaluate", "--top", "3"], "--top"),
    ],
)
def test_options_that_would_change_nothing_are_refused(tape: Invoke, cat: Path, flags: list[str], idle: str) -> None:
    done = tape("explain", cat, *flags)
    assert done.code == 2 and f"{idle} together with {flags[0]}" in done.err


@pytest.mark.parametrize(
    ("method", "option", "why"),
    [
        ("input_marginalization", "candidates=x", "candidates is a whole number"),
        ("input_marginalization", "candidates=2.5", "candidates is a whole number"),
        ("input_marginalization", "candidates=true", "candidates is a whole number"),
        ("input_marginalization", "unexpected=x", "unexpected is a number"),
        ("input_marginalization", "least=2", "lies in 0 .. 1"),
        ("input_marginalization", "seed=-1", "not negative"),
        ("leave_one_out", "draws=x", "draws is a whole number"),
        ("integrated_gradients", "steps=x", "steps is a whole number or left out"),
        ("integrated_gradients", "baseline=1.5", "baseline is a word or a whole number"),
    ],
)
def test_options_of_another_type_are_refused(tape: Invoke, cat: Path, method: str, option: str, why: str) -> None:
    done = tape("explain", cat, "--method", method, "--option", option)
    assert done.code == 2 and why in " ".join(done.err.split())


def test_what_is_never_drawn_is_no_answer(tape: Invoke, cat: Path) -> None:
    done = tape("explain", cat, "--method", "leave_one_out", "--option", "replacement=random", "--option", "draws=0")
    assert done.code == 2 and "drawn at least once" in done.err


def test_what_it_will_cost_is_told_before_it_is_spent(tape: Invoke, cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tokentape.cli.explain as command

    monkeypatch.setattr(command, "TOLD_NS", 0)
    done = tape("explain", cat, "--all", "--method", "leave_one_out")
    assert done.err.startswith("leave_one_out: up to 13 forward and 0 backward passes, some ")
    assert tape("explain", cat, "--all", "--method", "leave_one_out", "--json").err == ""
    assert "at most; --method saliency takes 3\n" in tape("explain", cat).err


def test_a_first_pass_that_took_long_alarms_nobody(tape: Invoke, cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tokentape.cli.explain as command

    monkeypatch.setattr(command, "TOLD_NS", 1)
    told = tape("explain", cat, "--method", "leave_one_out", "--no-save")
    assert "some " in told.err
    monkeypatch.setattr(command, "_pass_ns", lambda replay, position: 0)
    done = tape("explain", cat, "--method", "leave_one_out", "--no-save")
    assert done.err == ""
    # the pass that was timed is no part of what the answer took
    assert re.findall(r"\((\d+) forward", told.out) == re.findall(r"\((\d+) forward", done.out) != []


def test_the_collector_rests_while_transformers_is_imported_and_then_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with uncollected():
        assert gc.isenabled()  # it has been imported
    monkeypatch.delitem(sys.modules, "transformers.modeling_utils")
    frozen = gc.get_freeze_count()
    try:
        with pytest.raises(KeyError), uncollected():
            assert not gc.isenabled()
            with uncollected():
                assert not gc.isenabled()
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() and gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
