"""What rules do to a run, and what the tape says of it, held against brute force over the vocabulary."""

import itertools
import math

import numpy as np
import pytest
import torch
from rules_on_paper import Add, AllowAll, Doubled, Forbid, Named, Only, Spell

import tokentape as tt
from tokentape.errors import RuleError, UsageError

PROMPT = "The cat sat on the"
SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 0}
HOW = {
    "greedy": {},
    "sampled": SAMPLED,
    "filtered": {"do_sample": True, "temperature": 0.7, "top_k": 40, "top_p": 0.9},
    "penalised": {"repetition_penalty": 1.3},
}
LOGITS = {"logprob", "entropy", "rank"}


@pytest.fixture(scope="module")
def source():
    return tt.local("demo")


def recorded(source, prompt=PROMPT, seed=3, n=12, **options):
    return tt.record(source, prompt, max_new_tokens=n, seed=seed, **options)


def same(a, b, names):
    return all(np.array_equal(a[name].filled(), b[name].filled(), equal_nan=True) for name in names)


@pytest.mark.parametrize("how", HOW)
def test_a_rule_that_allows_everything_changes_no_bit(source, how) -> None:
    """Ids and log-probabilities, before and after the rules, of one sequence and of a batch."""
    for prompt in (PROMPT, [PROMPT, "The dog", "One day the fox"]):
        with (
            recorded(source, prompt, **HOW[how]) as plain,
            recorded(source, prompt, rules=[AllowAll()], **HOW[how]) as ruled,
        ):
            for a, b in zip(plain.traces, ruled.traces, strict=True):
                assert a.token_ids.tolist() == b.token_ids.tolist() and a.finish_reason == b.finish_reason
                assert same(a.tokens, b.tokens, LOGITS)
                assert same(a.candidates.__class__ and {"l": a.candidates.logprob}, {"l": b.candidates.logprob}, "l")
                if how in ("filtered", "penalised"):  # without any rule there is nothing after the rules
                    assert same(a.tokens, b.tokens, ["rules_logprob"])
                first = [row for row in range(b.effects.n_rows) if b.effects["rule"][row] == _number(b, "on paper")]
                assert (b.effects["allowed"][first] == 1581).all() and len(first) == len(b.token_ids)
                assert (b.effects["removed"][first] == 0).all() and (b.effects["divergence"][first] == 0).all()
                assert b.tokens["wanted"].tolist() == b.token_ids.tolist()


def _number(trace, name):
    return next(rule.number for rule in trace.run.rules if rule.name == name)


def test_where_the_token_drawn_without_the_rule_is_legal_it_is_drawn_with_it(source) -> None:
    """Under one seed, step by step from the same text; ``wanted`` is that token, whether legal or not."""
    rng = np.random.default_rng(0)
    legal = illegal = 0
    for seed in range(60):
        allowed = sorted(rng.choice(1581, 900, replace=False).tolist())
        with recorded(source, seed=seed, n=1, **SAMPLED) as plain:
            (drawn,) = plain.traces[0].token_ids.tolist()
        with recorded(source, seed=seed, n=1, rules=[Only(lambda row, i, ids=allowed: ids)], **SAMPLED) as ruled:
            trace = ruled.traces[0]
            assert trace.tokens["wanted"].tolist() == [drawn]
            if drawn in allowed:
                legal += 1
                assert trace.token_ids.tolist() == [drawn]
            else:
                illegal += 1
                assert trace.token_ids.tolist() != [drawn]
    assert legal > 10 and illegal > 10


def test_what_was_wanted_has_a_name(source) -> None:
    """Also where it is neither said nor among the candidates."""
    options = {**SAMPLED, "temperature": 5.0, "candidates": 1}
    with recorded(source, n=20, rules=[Only(lambda row, i: [61, 62])], **options) as tape:
        wanted = set(tape.traces[0].tokens["wanted"].tolist())
        assert len(wanted) > 10 and wanted <= tape.pieces.keys()


def logits_of(source, trace):
    """``[T, V]`` logits before each token of a trace, by one plain forward pass, in float64."""
    ids = torch.tensor([[*trace.prompt_ids.tolist(), *trace.token_ids.tolist()]])
    with torch.no_grad():
        return source.causal.model(ids).logits[0, trace.n_prompt - 1 : -1].double()


@pytest.mark.parametrize("how", ["greedy", "sampled"])
def test_what_was_removed_is_the_difference_of_the_two_log_probabilities(source, how) -> None:
    """Exactly, token by token and in sum; and the mass is what brute force finds over the vocabulary."""
    rng = np.random.default_rng(1)
    sets = [sorted(rng.choice(1581, int(n), replace=False).tolist()) for n in rng.integers(2, 1000, 12)]
    with recorded(source, rules=[Only(lambda row, i: sets[i])], **HOW[how]) as tape:
        trace = tape.traces[0]
        tokens = {name: trace.tokens[name].filled() for name in ("logprob", "rules_logprob", "removed", "allowed")}
        difference = tokens["rules_logprob"] - tokens["logprob"]
        assert np.abs(tokens["removed"] - difference).max() < 1e-12
        assert abs(math.fsum(tokens["removed"]) - math.fsum(difference)) < 1e-12
        assert tokens["allowed"].tolist() == [len(ids) for ids in sets]
        logprobs = torch.log_softmax(logits_of(source, trace), -1)
        for step, ids in enumerate(sets):
            z = logprobs[step, ids].exp().sum()
            assert tokens["removed"][step] == pytest.approx(-float(z.log()), abs=2e-5)
        assert trace.effects["divergence"].tolist() == trace.effects["removed"].tolist()


def test_the_divergence_of_each_rule_in_order(source) -> None:
    """Guidance, a repetition penalty, a mask, temperature and a filter, each against the definition on its own logits."""
    torch.manual_seed(0)
    amounts = torch.randn(1581)
    amounts[5] = -torch.inf  # guidance may also forbid
    seen = []

    class Spied(Only):
        def __call__(self, ids, scores):
            seen.append(scores.clone())
            return super().__call__(ids, scores)

    options = {"repetition_penalty": 1.5, "do_sample": True, "temperature": 0.5, "top_k": 3}
    rules = [Spied(lambda row, i: list(range(10 + i, 400))), Add(amounts)]
    with recorded(source, rules=rules, n=6, **options) as tape:
        trace = tape.traces[0]
        names = [rule.name for rule in trace.run.rules]
        assert names[0] == "on paper" and names[-2:] == ["TemperatureLogitsWarper", "TopKLogitsWarper"]
        assert "RepetitionPenaltyLogitsProcessor" in names
        assert trace.run.rules[-2].description == {"temperature": 0.5}
        logits = logits_of(source, trace)
        effects = {name: trace.effects[name].reshape(6, len(names)) for name in trace.effects}
        for step in range(6):
            after_penalty = seen[step][0].double()
            guided = logits[step] + amounts
            masked = torch.full_like(guided, -torch.inf)
            masked[10 + step : 400] = after_penalty[10 + step : 400]
            cooled = masked / 0.5
            top = cooled.masked_fill(cooled < cooled.topk(3).values[-1], -torch.inf)
            chain = [logits[step], guided, after_penalty, masked, cooled, top]
            for rule, (before, after) in enumerate(itertools.pairwise(chain)):
                p = torch.softmax(before, -1)
                q = torch.softmax(after, -1)
                left = after > -torch.inf
                kl = float((q[left] * (q[left].log() - p[left].log())).sum())
                assert effects["divergence"][step, rule] == pytest.approx(kl, abs=3e-5), names[rule]
                assert effects["removed"][step, rule] == pytest.approx(-math.log(float(p[left].sum())), abs=3e-5)
                assert effects["allowed"][step, rule] == int(left.sum())
        total = effects["removed"].sum(1)
        assert trace.tokens["removed"].tolist() == pytest.approx(total.tolist(), abs=1e-12)


def test_rules_take_their_time_beside_the_forward_call(source) -> None:
    with recorded(source, rules=[AllowAll()], probe="timing") as timed, recorded(source, probe="timing") as plain:
        assert (timed.traces[0].steps["rules_ns"] > 0).all() and plain.traces[0].steps["rules_ns"].mask.all()
        assert timed.traces[0].effects.n_rows == 0  # the timing tier keeps no distribution
    with recorded(source, rules=[AllowAll()]) as tape:
        assert (tape.traces[0].effects["rule_ns"] > 0).all()


FORCED = {0: [61, 62, 63], 5: [64, 65], 8: [66]}


def one_by_one(source, rule, **options):
    """The same rule without the ability to force: a step for each token."""
    return recorded(source, rules=[Only(rule.allowed)], **options)


@pytest.mark.parametrize("how", ["greedy", "sampled"])
@pytest.mark.parametrize("model", ["demo", "config"])
def test_forced_tokens_are_read_by_one_pass(source, how, model, small_llama) -> None:
    """The same text and figures as a step for each; fewer steps, which read more."""
    source = source if model == "demo" else small_llama
    prompt = PROMPT if model == "demo" else [1, 2, 3, 4]
    options = {**HOW[how], "prompt": prompt, "n": 12, "eos_token_id": None}
    with recorded(source, rules=[Spell(forced_ids=FORCED)], **options) as tape:
        trace = tape.traces[0]
        assert trace.tokens["forced"].tolist() == [1, 1, 1, 0, 0, 1, 1, 0, 1, 0, 0, 0]
        assert trace.tokens["step"].tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 3, 3, 4, 5]
        assert trace.steps["n_in"].tolist() == [trace.n_prompt + 3, 1, 3, 2, 1, 1]
        assert trace.steps["n_out"].tolist() == [4, 1, 3, 2, 1, 1]
        assert tape.verify() == [] and trace.finish_reason == "length"
        if how == "greedy":
            with one_by_one(source, Spell(forced_ids=FORCED), **options) as slow:
                other = slow.traces[0]
                assert other.token_ids.tolist() == trace.token_ids.tolist()
                for name in ("logprob", "entropy", "rules_logprob", "removed"):
                    assert trace.tokens[name].tolist() == pytest.approx(other.tokens[name].tolist(), abs=1e-4), name
                assert other.tokens["rank"].tolist() == trace.tokens["rank"].tolist()
        forced = trace.tokens["forced"] == 1
        assert (trace.tokens["allowed"][forced] == 1).all() and (trace.tokens["rules_logprob"][forced] == 0).all()
        assert np.array_equal(trace.tokens["removed"][forced], -trace.tokens["logprob"][forced])
        assert trace.outcomes[0].why == "12 tokens"


@pytest.fixture(scope="module")
def small_llama():
    """A Llama of random weights, for a family whose cache keys are rotated."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tokentape.models.causal import CausalModel
    from tokentape.sources.local import LocalSource

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return LocalSource(CausalModel(model, None, "llama", None, None, config.max_position_embeddings, 97))


def test_a_forced_end_needs_no_pass(source) -> None:
    """What closes a text is taken without asking the model, and its log-probability is not known."""
    eos = source.causal.model.generation_config.eos_token_id
    with recorded(source, rules=[Spell(forced_ids={2: [61, 62, eos, 63]})]) as tape:
        trace = tape.traces[0]
        assert trace.token_ids.tolist()[2:] == [61, 62, eos] and trace.finish_reason == "stop"
        assert trace.tokens["step"].tolist() == [0, 1, 1, 1, 1] and trace.steps.n_rows == 2
        assert trace.tokens["logprob"].mask.tolist() == [False, False, True, True, True]
        assert trace.tokens["forced"].tolist() == [0, 0, 1, 1, 1]
        assert tape.verify() == []


def test_a_text_that_is_forced_whole_still_asks_the_model_once(source) -> None:
    with recorded(source, rules=[Spell(forced_ids={0: [61, 62, 63]})], n=3) as tape:
        trace = tape.traces[0]
        assert trace.token_ids.tolist() == [61, 62, 63] and trace.steps.n_rows == 1
        assert trace.tokens["forced"].tolist() == [1, 1, 1] and trace.finish_reason == "length"
        assert not trace.tokens["logprob"].mask.any()


@pytest.mark.parametrize(
    "options",
    [{"min_new_tokens": 5}, {"repetition_penalty": 1.2}, {"num_return_sequences": 2, **SAMPLED}, {"rules": [Forbid()]}],
    ids=lambda options: next(iter(options)),
)
def test_where_another_rule_might_say_otherwise_each_token_has_a_step(source, options) -> None:
    rules = [Spell(forced_ids={0: [61, 62, 63]}), *options.pop("rules", [])]
    with recorded(source, rules=rules, **options) as tape:
        trace = tape.traces[0]
        assert trace.token_ids.tolist()[:3] == [61, 62, 63]
        assert trace.tokens["step"].tolist()[:3] == [0, 1, 2] and trace.tokens["forced"].tolist()[:3] == [1, 1, 1]


def test_a_guard_has_another_token_chosen(source) -> None:
    """The next best in greedy search; and its mass is that of what it forbade."""
    with recorded(source, n=1) as plain:
        best, second = plain.traces[0].candidates.ids[0, :2].tolist()
        logprob = plain.traces[0].candidates.logprob[0].tolist()
    with recorded(source, n=1, rules=[Forbid(frozenset({best}))]) as tape:
        trace = tape.traces[0]
        assert trace.token_ids.tolist() == [second] and trace.tokens["wanted"].tolist() == [best]
        assert trace.tokens["removed"][0] == pytest.approx(-math.log1p(-math.exp(logprob[0])), abs=1e-5)
        assert trace.tokens["allowed"].tolist() == [1580]
        decision, closing = trace.decisions
        assert (decision.position, decision.rule, decision.action) == (trace.n_prompt, 0, "resample")
        assert closing.reason == "the end"


def test_a_guard_ends_one_sequence_of_a_batch(source) -> None:
    prompts = ["English: The cat sat on the mat.\nChinese:", PROMPT]
    with recorded(source, prompts) as plain:
        last = plain.traces[1].token_ids.tolist()[3]
        assert plain.traces[1].token_ids.tolist().index(last) == 3 and last not in plain.traces[0].token_ids
    with recorded(source, prompts, rules=[Forbid(last=frozenset({last}))]) as tape:
        assert [trace.finish_reason for trace in tape.traces] == [plain.traces[0].finish_reason, "guard"]
        assert tape.traces[1].token_ids.tolist() == plain.traces[1].token_ids.tolist()[:4]
        assert tape.traces[0].token_ids.tolist() == plain.traces[0].token_ids.tolist()
        assert tape.verify() == []


@pytest.mark.parametrize("rows", [1, 3])
def test_a_row_with_no_token_left_ends_there(source, rows) -> None:
    """By a name of its own, with what it had said; the others go on."""
    prompts = [PROMPT, "The dog", "One day"][:rows]
    with recorded(source, prompts, rules=[Only(lambda row, i: [] if row == 0 and i == 4 else None)], n=8) as tape:
        first, *others = tape.traces
        assert first.finish_reason == "cornered" and len(first.token_ids) == 4
        assert [len(trace.token_ids) for trace in others] == [8] * (rows - 1)
        assert tape.verify() == []


def test_processors_that_leave_nothing_are_an_error_still(source) -> None:
    with pytest.raises(RuleError, match="no token"):
        recorded(source, suppress_tokens=list(range(1581)))


def test_a_rule_may_change_the_forward_pass(source) -> None:
    """The tape holds what the model would have believed without it, and how far it was moved."""
    rule = Doubled(source.causal.model)
    with recorded(source, rules=[rule], n=6) as tape, recorded(source, n=6) as plain:
        trace, other = tape.traces[0], plain.traces[0]
        assert not rule.inside and trace.token_ids.tolist() == other.token_ids.tolist()
        for name in ("logprob", "entropy"):
            assert trace.tokens[name].tolist() == pytest.approx(other.tokens[name].tolist(), abs=1e-5)
        logits = logits_of(source, trace)
        p, q = torch.log_softmax(logits, -1), torch.log_softmax(2 * logits, -1)
        assert trace.effects["divergence"].tolist() == pytest.approx((q.exp() * (q - p)).sum(-1).tolist(), abs=1e-5)
        chosen = torch.tensor(trace.token_ids.tolist())[:, None]
        assert trace.tokens["rules_logprob"].tolist() == pytest.approx(q.gather(1, chosen)[:, 0].tolist(), abs=1e-5)


def test_someone_elses_generate_is_ruled_and_recorded(source) -> None:
    model, tokenizer = source.causal.model, source.causal.tokenizer
    inputs = tokenizer(PROMPT, return_tensors="pt")
    with tt.recording(model, tokenizer=tokenizer) as tape:
        model.generate(**inputs, max_new_tokens=5, logits_processor=[Only(lambda row, i: [60 + i])])
    trace = tape.traces[0]
    assert trace.token_ids.tolist() == [60, 61, 62, 63, 64] and trace.tokens["allowed"].tolist() == [1] * 5
    assert [rule.name for rule in trace.run.rules] == ["on paper"]


def test_words_of_rules_stay_out_where_no_text_is_kept(source) -> None:
    with recorded(source, rules=[AllowAll()], text=False) as tape:
        assert tape.runs[0].rules[0].description == {} and tape.traces[0].tokens["wanted"].mask.all()
        assert not tape.traces[0].tokens["removed"].mask.any()


@pytest.mark.parametrize("given", ["grammar", [Named], 3], ids=repr)
def test_what_is_no_rule_is_refused(source, given) -> None:
    with pytest.raises(UsageError) as caught:
        recorded(source, rules=given)
    assert "no rule" in caught.value.what


def test_the_ends_of_text_of_the_run_are_those_of_its_grammar(source) -> None:
    """An end that the options name closes a text; the model's own then closes none, and without any the grammar ends it."""
    grammar = tt.Grammar.regex("[a-z ]{4}")
    named = source.encode(".", bos=False)[-1]
    with recorded(source, rules=[grammar], eos_token_id=named) as tape:
        trace = tape.traces[0]
        assert trace.token_ids.tolist()[-1] == named and trace.finish_reason == "stop"
        assert (trace.outcomes[0].name, trace.outcomes[0].valid) == ("complete", True)
    model = source.causal.model.generation_config
    before, model.eos_token_id = model.eos_token_id, None
    try:
        with recorded(source, rules=[grammar]) as tape:
            trace = tape.traces[0]
            assert trace.finish_reason == "grammar" and len(trace.text) == 4 and trace.outcomes[0].valid
    finally:
        model.eos_token_id = before


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_a_guard_held_back_is_judged_when_a_run_is_cut_off(source, tmp_path, error) -> None:
    """And how its grammar stood is told."""
    path = tmp_path / "a.tape"

    class Breaks(AllowAll):
        def __call__(self, ids, scores):
            if ids.shape[1] > 8:
                raise error
            return super().__call__(ids, scores)

    rules = [tt.Grammar.regex("[a-z ]+[.]"), Forbid(), Breaks()]
    with pytest.raises(error):
        recorded(source, rules=rules, path=path)
    with tt.open(path) as tape:
        trace = tape.traces[0]
        assert [one.reason for one in trace.decisions] == ["the end"] and trace.outcomes[0].name == "unfinished"
        assert trace.finish_reason == ("interrupted" if error is KeyboardInterrupt else "error")
        assert tape.verify() == []


def test_a_phrase_at_the_very_end_is_found(source) -> None:
    prompt = "Review: The song was great.\nTopic:"
    with recorded(source, prompt, rules=[tt.Guard(phrases=["music"], action="redact")]) as tape:
        trace = tape.traces[0]
        assert trace.text.startswith(" music") and trace.finish_reason == "stop"
        assert trace.shown.startswith(" [...]") and "music" not in trace.shown


@pytest.mark.parametrize("grammar", [tt.Grammar.choices([" mat"]), tt.Grammar.choices([" mat and looked at the dog"])])
def test_one_text_and_a_model_without_an_end_of_text(source, grammar) -> None:
    """Forced from its first token to its last, and over by the grammar's word alone."""
    config = source.causal.model.generation_config
    before, config.eos_token_id = config.eos_token_id, None
    try:
        with recorded(source, rules=[grammar]) as tape:
            trace = tape.traces[0]
            assert grammar.source == f'["{trace.text}"]' and trace.finish_reason == "grammar"
            assert (trace.tokens["forced"] == 1).all() and trace.outcomes[0].valid and tape.verify() == []
    finally:
        config.eos_token_id = before
