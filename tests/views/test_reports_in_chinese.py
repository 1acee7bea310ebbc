"""What the reports say in Chinese: the same numbers as in English, and the words that are meant."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tokentape
from tokentape import Line
from tokentape.cli.checkup import ClockJitter, examine
from tokentape.cli.compare import _moment_text
from tokentape.cli.live import LiveLine
from tokentape.cli.status import StatusLine
from tokentape.data.explanation import Explanation, ReplayCheck, Source
from tokentape.errors import TooFewPoints
from tokentape.explain.lrp import NOTICE
from tokentape.explain.methods import METHODS
from tokentape.recorder.tick import Said
from tokentape.study.compare import compare
from tokentape.study.cost.architecture import architecture_of
from tokentape.study.cost.configuration import read_config
from tokentape.study.cost.counting import workload
from tokentape.study.cost.prediction import predict
from tokentape.study.law.gathering import Subject, check_enough
from tokentape.study.law.laws import fit_points
from tokentape.study.law.points import Point
from tokentape.study.law.terms import Loads, forms_of
from tokentape.study.side_by_side import CoefficientPair
from tokentape.study.verdict import FASTER, SAME, SLOWER, UNCLEAR, Question, Verdict
from tokentape.views.comparison import comparison_markdown, comparison_text
from tokentape.views.cost_text import by_machine, by_value, prediction_text
from tokentape.views.explanation_text import check_sentence, explanation_text
from tokentape.views.law_text import law_text, meaning_text, missing_text, predictions_text, term_text
from tokentape.views.listing import Check, TapeLine, doctor_report, schema_table, tape_list, verify_report
from tokentape.views.screen import Screen
from tokentape.words.catalogue import phrase
from tokentape.words.retold import retold

MS = 1_000_000
NUMBERS = re.compile(r"(?<![A-Za-z\d.,])\d(?:[\d,.]*\d)?")
"""Digits that are part of a name, such as p90, are none."""

FAILED = ReplayCheck(2.0, 0.1, 9, 1e-3, False, "the log-probability of the token at position 7 differs by 2 nats")
NOTHING = ReplayCheck(None, None, 0, 1e-3, False, "the tape has no log-probabilities to compare with")


def explanation(**more):
    known = {
        "trace": 0,
        "method": "attn_lrp",
        "options": {},
        "kind": "logit",
        "together": False,
        "targets": np.array([3]),
        "target_ids": np.array([8]),
        "foil_ids": None,
        "sources": tuple(Source(i, i + 1, text, "token") for i, text in enumerate(("The", " cat", " sat"))),
        "relevance": np.ma.MaskedArray([[1.5, -0.25, 0.5]], False),
        "value": np.array([2.25]),
        "ledger": {name: np.array([x]) for name, x in (("tokens", 1.75), ("biases", 0.5), ("residual", 1e-7))},
        "check": ReplayCheck(2e-6, 1e-6, 4, 1e-3, True),
        "passes": {"forward": 7, "backward": 1},
        "cpu_ns": 1_500_000,
        "made": {},
        "notes": {"notice": NOTICE},
    }
    return Explanation(**{**known, **more})


def explained(screen, **more):
    found = explanation(**more)
    return explanation_text(found, screen, lambda i: f"'{i}'", METHODS[found.method].meaning, top=2)


SEVERAL = {
    "targets": np.array([3, 4]),
    "target_ids": np.array([8, 9]),
    "relevance": np.ma.MaskedArray([[1.5, -0.25, 0.5], [0.5, 0.25, -1]], False),
    "value": np.array([2.25, 3.5]),
    "ledger": {},
}


def points(kind="decode", contexts=(64, 128, 256, 512, 1024), batches=(1, 2, 4)):
    times = [(c, b, (2e6 + 1e5 * b + 40.0 * b * c) * (1 + 0.01 * (c % 7))) for c in contexts for b in batches]
    return [Point(kind, c, b, ns, n=16) for c, b, ns in times for _ in range(2)]


@pytest.fixture(scope="module")
def law():
    causes = zip(points()[:3], ("gc", "switches", "warm-up"), strict=True)
    slow = [replace(point, ns=9 * point.ns, cause=cause) for point, cause in causes]
    return fit_points([*points(), *slow, *points("prefill", (64,))], (Subject("a model", "f"),))


def taped(text, ms=2.0, **facts):
    times = [5.0, *(ms for _ in text[1:])]
    steps = [
        Line(round(t * MS), [Said(0, i, c.encode(), -1.0 - ms / 100, 1.0, 1)], context=5 + i)
        for i, (t, c) in enumerate(zip(times, text, strict=True))
    ]
    known = {"model": "paper", "weights": "full:1", "dtype": "float32", "processor": "one", "tokenizer": "x"}
    return tokentape.record(tokentape.ScriptedSource(steps, facts={**known, **facts}), "The cat")


@pytest.fixture(scope="module")
def found():
    a, b = taped("abcdefghijklmnopqrst"), taped("abcdefghijklmnopqrSt", 3.0, dtype="bfloat16")
    return compare(a, b, across="dtype")


VERDICTS = {
    SLOWER: Verdict(SLOWER, 0.03, 0.99, 0.1, 0.05, 0.15, 6),
    FASTER: Verdict(FASTER, 0.03, 0.99, -0.1, -0.15, -0.05, 1, False),
    SAME: Verdict(SAME, 0.03, 0.99, 0.0001, -0.01, 0.01, 10, True, "the 10 pairs are used up"),
    UNCLEAR: Verdict(UNCLEAR, 0.03, 0.99, None, None, None, 3, True, "3 of the 5 pairs that the first look needs"),
}
WORDS = {SLOWER: "更慢", FASTER: "更快", SAME: "相同", UNCLEAR: "不明确"}

PAIRS = (
    CoefficientPair("decode", "key-value beyond 49.5", "position of a sequence",
                    "reading the key-value cache: batch x context, beyond 49.5 positions of all sequences",
                    (1e3, 900.0, 1100.0), (2e3, 1900.0, 2100.0)),
    CoefficientPair("prefill", "constant", "", "", (1e6, 9e5, 1.1e6), None),
)  # fmt: skip

CHECKS = [
    Check("programs", "tokentape", "0.1.0, tape schema 5"),
    Check("programs", "sacrebleu", "not installed: translations have no chrF and BLEU", "missing", "pip install it"),
    Check("machine", "load", "2.48 over the last minute", "note", "export TOKENTAPE_DIR=a folder of your own"),
    Check("measured", "a decode step", "bloom at 1,024 tokens in float32: 802 us at least (bandwidth), so 1,247 tokens/s at most"),
]  # fmt: skip

LINES = [
    TapeLine(Path("a.tape"), "complete", "demo", "The cat", 1234, 1, 33.75, "2026-01-02 03:04"),
    TapeLine(Path("b.tape"), "unreadable", problem="b.tape is no tape"),
]

PROBLEMS = ["run 0: it has 3 traces, 4 were begun", "trace 1: the token at position 5 has a rank below 1"]


def several(screen):
    return by_machine([predict("demo", context=1024, hardware=name) for name in ("h100", "a100")], screen)


def varied(screen):
    return by_value([(n, predict("demo", context=n, hardware="h100")) for n in (512, 1024)], "context", screen)


def a_moment(screen):
    made = SimpleNamespace(n_pairs=2, n_units=30, elapsed_ns=5 * MS, verdict=VERDICTS[SLOWER])
    return screen.safe(_moment_text(made, Question(), screen))  # as StatusLine does


VIEWS = {
    "explanation": (explained, "依据"),
    "explanation of nothing": (lambda s: explained(s, relevance=np.ma.MaskedArray([[0.0] * 3], False)), "没有任何来源"),
    "explanation against": (lambda s: explained(s, relevance=np.ma.MaskedArray([[-1.0] * 3], False)), "反对它的是"),
    "explanation with a foil": (lambda s: explained(s, kind="foil", foil_ids=np.array([5])), "相对"),
    "explanation together": (lambda s: explained(s, **{**SEVERAL, "value": np.array([5.75]), "together": True,
        "relevance": np.ma.MaskedArray([[1.5, -0.25, 0.5]], False)}), "该回答"),
    "explanations": (lambda s: explained(s, **SEVERAL, kind="logprob"), "主要依据"),
    "failed check": (lambda s: s.safe(check_sentence(FAILED, s)), "不一致"),
    "no check": (lambda s: s.safe(check_sentence(NOTHING, s)), "未经核对"),
    "prediction": (lambda s: prediction_text(predict("demo", context=1024), s), "参数量"),
    "prediction on a machine": (lambda s: prediction_text(predict("demo", context=9000, batch=4, new_tokens=16,
        hardware="h100", tensor_parallel=2), s), "放得下"),
    "prediction on a processor": (lambda s: prediction_text(predict("demo", context=64, hardware="graviton4"), s), "功率未知"),
    "machines": (several, "峰值内存"),
    "values": (varied, "上下文长度"),
    "tapes": (lambda s: tape_list(LINES, s), "无法读取"),
    "verify": (lambda s: verify_report([(Path("a.tape"), []), (Path("b.tape"), PROBLEMS)], s), "排名小于 1"),
    "doctor": (lambda s: doctor_report(CHECKS, s), "受限于带宽"),
    "schema": (schema_table, "记录格式"),
    "moment": (a_moment, "至多"),
}  # fmt: skip


def alike(shown, word):
    english, chinese = shown(Screen(400)), shown(Screen(400, lang="zh"))
    assert sorted(NUMBERS.findall(chinese)) == sorted(NUMBERS.findall(english))
    assert word in chinese
    assert word not in english
    shown(Screen(400, encoding="ascii", lang="zh")).encode("ascii")


@pytest.mark.parametrize("view", VIEWS)
def test_the_chinese_form_has_the_same_numbers(view):
    alike(*VIEWS[view])


def test_a_law_in_chinese_has_the_same_numbers(law):
    assert law.missing
    alike(lambda screen: law_text(law, screen), "延迟定律")
    asked = [law.predict(context=c, batch=b) for c in (10, 100, 3000) for b in (1, 4)]
    alike(lambda screen: predictions_text(asked, screen), "超出测量范围")


@pytest.mark.parametrize("word", VERDICTS)
def test_a_comparison_in_chinese_has_the_same_numbers(found, word):
    one = replace(found, verdict=VERDICTS[word], laws=PAIRS, notes=("A is partial: what it lacks is not compared",))
    alike(lambda screen: comparison_text(one, screen), WORDS[word])
    painted = comparison_text(one, Screen(400, color=True, lang="zh"))
    assert f"m{WORDS[word]}\x1b[0m（以 3 % 为界）" in painted


def test_a_comparison_says_its_caveat_in_chinese_and_its_markdown_stays_english(found):
    chinese = comparison_text(found, Screen(400, lang="zh"))
    assert "并非交替录制" in chinese or "并非交替进行" in chinese
    assert "没有" in comparison_text(replace(found, same=True, verdict=None, caveat=None), Screen(lang="zh"))
    assert comparison_markdown(found).isascii()


@pytest.mark.parametrize(
    "reason",
    [
        "8 steps at equal context and 1 runs a side; it takes 16 steps at equal context, or 3 runs a side",
        "0 steps at equal context and 1 runs a side; it takes 3 runs a side",
        "the budget was spent after 4 of at most 10 pairs; at this noise, at most 3 min would do",
        "the budget was spent after 4 of the 5 pairs that it takes",
        "interrupted after 4 of at most 10 pairs",
        "one measurement a side has no spread",
    ],
)
def test_every_reason_of_a_verdict_has_its_chinese_form(found, reason):
    one = replace(found, verdict=replace(VERDICTS[UNCLEAR], reason=reason), caveat=None)
    first = comparison_text(one, Screen(400, lang="zh")).split("\n")[0]
    assert not re.search(r"[a-z]{4}", first)
    assert sorted(NUMBERS.findall(first)) == sorted([*NUMBERS.findall(reason), "3"])


def test_methods_are_told_alike_in_the_catalogue():
    assert {name: phrase(f"explanation.meaning.{name}") for name in METHODS} == {
        name: method.meaning for name, method in METHODS.items()
    }
    assert phrase("explanation.notice.patent") == NOTICE


def test_every_term_of_a_law_has_its_chinese_form():
    work = workload(architecture_of(read_config("demo")), "float32", 2)
    screen = Screen(lang="zh")
    for kind in ("decode", "prefill"):
        places = ([64, 128, 256, 512, 1024] * 4, [1, 2, 4, 8, 16] * 4)
        for loads in (Loads.of(kind, *places), Loads.of(kind, *places, [work] * 20)):
            for term in {term for form in forms_of(loads) for term in form.terms}:
                assert not re.search(r"[a-z]{4}", meaning_text(term.meaning, screen)), term.meaning
                assert not re.search(r"[a-z]{4}", term_text(term.name, screen)), term.name
                assert not re.search(r"[a-z]{4}", retold(term.per, "zh", "page_law.per")), term.per


@pytest.mark.parametrize("some", [[], points(contexts=(64,)), points(contexts=(64, 70, 74, 80))])
def test_why_there_is_no_law_has_its_chinese_form(some):
    with pytest.raises(TooFewPoints) as refused:
        check_enough(some, "decode")
    one = f"{refused.value.what}: {refused.value.why}"
    assert not re.search(r"[a-z]{4}", missing_text(one, Screen(lang="zh")))
    both = missing_text(f"B: no law can be fitted to this: {one}; {one}", Screen(lang="zh"))
    assert both.startswith("B：")
    assert not re.search(r"[a-z]{4}", both)
    assert sorted(NUMBERS.findall(both)) == sorted(2 * NUMBERS.findall(one))


LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 32, "tie_word_embeddings": False,
}  # fmt: skip
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
GPTQ = {**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 16}}
MAMBA = {"model_type": "mamba", "hidden_size": 64, "state_size": 16, "num_hidden_layers": 2, "vocab_size": 100,
         "intermediate_size": 128, "conv_kernel": 4, "time_step_rank": 4, "expand": 2}  # fmt: skip


@pytest.mark.parametrize("config", [LLAMA, MIXTRAL, GPTQ, MAMBA], ids=lambda config: config["model_type"])
@pytest.mark.parametrize("more", [{}, {"hardware": "h100", "dtype": "float8"}, {"hardware": "epyc-9654", "batch": 3}])
def test_what_a_prediction_assumes_has_its_chinese_form(config, more):
    told = predict(config, context=64, **more)
    for note in told.notes:
        chinese = retold(note, "zh", "cost.note")
        assert chinese != note
        assert sorted(NUMBERS.findall(chinese)) == sorted(NUMBERS.findall(note))
    alike(lambda screen: prediction_text(told, screen), "参数量")
    left = prediction_text(told, Screen(400, lang="zh"))
    assert not re.search(r"\b(of|the|in|with)\b", left), left


def test_the_doctor_says_little_in_english():
    report = doctor_report(list(examine(ClockJitter("clock", 1, 1000, 100, 5 * MS, 6 * MS))), Screen(400, lang="zh"))
    assert not re.search(r"\b(of|the|with|not)\b", report), report


def test_what_takes_its_time_is_told_in_chinese(monkeypatch, capsys):
    monkeypatch.setenv("TOKENTAPE_LANG", "zh")
    monkeypatch.setattr("tokentape.cli.status.PLAIN_SECONDS", 0.0)
    with StatusLine("loading demo\x1b[2J", quiet=False) as line:
        line.say("replaying: 1,234 of 5,000 tokens, 3.00 s left")
    assert capsys.readouterr().err.splitlines() == [
        r"正在加载 demo\x1b[2J",
        "正在重放：1,234 / 5,000 个词元，还需 3.00 s",
    ]
    live = LiveLine("loading demo", quiet=True)
    assert live._lines()[0].startswith("正在加载 demo ")
    live.observe(SimpleNamespace(text="Once", n_tokens=3, elapsed_ns=30 * MS, gaps_ns=[9 * MS, 2 * MS], surprise=[0.5]))
    assert live._lines()[-1].startswith("3 个词元  每步 2.00 ms  100 tokens/s  惊异度 ")
