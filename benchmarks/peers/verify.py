"""What a peer gives, against twins in plain torch: to be run before its figures are believed.

    PEER_PYTHON benchmarks/peers/verify.py PEER MODEL [LAYER]       (inseq or captum; LAYER as in `layer` of its runner)

One line a check: the largest difference, beside the largest value of the twin; what the README of this folder says of the
peers is read off here. The item is 16 ids of the model's own vocabulary; its targets are what the model says next, so they
are likely ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from exchange import Item, Passes, Task, load, module_at, value_of

N = 16
BASELINE = 5


class Twin:
    """The model by itself."""

    def __init__(self, path: str, layer: str | None) -> None:
        self.model = load(path, attention="eager")
        self.layer = module_at(self.model, layer, self.model.get_input_embeddings())
        random = torch.Generator().manual_seed(7)
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        self.ids = torch.randint(6, vocabulary, (1, N), generator=random)
        said = self.ids
        with torch.no_grad():
            for _ in range(3):
                said = torch.cat([said, self.model(said, use_cache=False).logits[:, -1:].argmax(-1)], 1)
        self.targets = said[0, N:]
        self.item = Item([int(i) for i in self.ids[0]], int(self.targets[0]), 4)

    def value(self, ids: torch.Tensor, value: str = "logit") -> float:
        with torch.no_grad():
            logits = self.model(ids, use_cache=False).logits[:, -1]
        return float(value_of(logits, value, self.item.target, self.item.foil))

    def replaced(self, k: int) -> torch.Tensor:
        ids = self.ids.clone()
        ids[0, k] = BASELINE
        return ids

    def ablation(self, value: str = "logit") -> list[float]:
        whole = self.value(self.ids, value)
        return [whole - self.value(self.replaced(k), value) for k in range(N)]

    def ablation_of_answer(self) -> list[float]:
        """Of the log-probability of three tokens together."""

        def answer(ids: torch.Tensor) -> float:
            with torch.no_grad():
                logits = self.model(torch.cat([ids, self.targets[None]], 1), use_cache=False).logits[0]
            rows = logits[N - 1 : N + 2].log_softmax(-1)
            return float(rows.gather(1, self.targets[:, None]).sum())

        whole = answer(self.ids)
        return [whole - answer(self.replaced(k)) for k in range(N)]

    def input_x_gradient(self) -> list[float]:
        kept: list[torch.Tensor] = []

        def leaf(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[-1]

        handle = self.layer.register_forward_hook(leaf)
        logits = self.model(self.ids, use_cache=False).logits[:, -1]
        handle.remove()
        (gradient,) = torch.autograd.grad(value_of(logits, "logit", self.item.target, None).sum(), kept[0])
        return [float(score) for score in (kept[0] * gradient).detach().sum(-1)[0]]

    def difference(self) -> list[float]:
        """What completeness asks for: the value here less the value with the baseline everywhere."""
        return [self.value(self.ids) - self.value(torch.full_like(self.ids, BASELINE))]

    def difference_from_zero(self) -> list[float]:
        """The same with embeddings of zero."""
        zero = torch.zeros_like(self.model.get_input_embeddings()(self.ids))
        with torch.no_grad():
            logits = self.model(inputs_embeds=zero, use_cache=False).logits[:, -1]
        return [self.value(self.ids) - float(value_of(logits, "logit", self.item.target, None))]

    def attention(self) -> list[float]:
        with torch.no_grad():
            weights = self.model(self.ids, use_cache=False, output_attentions=True).attentions
        return [float(weight) for weight in torch.stack(weights)[:, 0, :, -1].mean((0, 1))]


def check(name: str, given: Callable[[], list[float]], wanted: list[float]) -> None:
    """One line; a peer's failure is one too."""
    try:
        found = given()
        off = max(abs(a - b) for a, b in zip(found, wanted, strict=True))
        print(f"{name:60} off by {off:.2g} of {max(map(abs, wanted)):.3g}")
    except Exception as failed:
        print(f"{name:60} {type(failed).__name__}: {str(failed).splitlines()[0][:150] if str(failed) else ''}")


def asker(runner: Any, path: str, twin: Twin) -> Callable[..., Callable[[], list[float]]]:
    """`ask(method, option=...)` gives a call that runs the peer's method on the twin's item."""

    def ask(method: str, value: str = "logit", **options: Any) -> Callable[[], list[float]]:
        def call() -> list[float]:
            task = Task(path, method, value, options, [twin.item], [], None, False, 1)
            answered: list[float] = runner(task, Passes()).attribute(twin.item)
            return answered

        return call

    return ask


def summed(call: Callable[[], list[float]]) -> Callable[[], list[float]]:
    return lambda: [sum(call())]


def captum(path: str, layer: str | None, twin: Twin) -> None:
    from captum import attr
    from run_captum import Captum, Ids

    ask = asker(Captum, path, twin)
    tokenizer: Any = Ids()

    def answer(cached: bool, in_tokens: bool) -> list[float]:
        given = attr.TextTokenInput(tokenizer.decode(twin.item.ids), tokenizer, baselines=BASELINE)
        method = attr.LLMAttribution(attr.FeatureAblation(twin.model), tokenizer)
        done = method.attribute(given, twin.targets, use_cached_outputs=cached, forward_in_tokens=in_tokens)
        return [float(score) for score in done.seq_attr]

    single, whole = {"baseline": BASELINE, "cached": False}, twin.ablation_of_answer()
    path_options = {"layer": layer, "steps": 50, "baseline": BASELINE}
    check("layer_gradient_x_activation", ask("layer_gradient_x_activation", layer=layer), twin.input_x_gradient())
    check("input_x_gradient (at the embedding)", ask("input_x_gradient"), twin.input_x_gradient())
    check("feature_ablation", ask("feature_ablation", baseline=BASELINE), twin.ablation())
    check("llm_feature_ablation", ask("llm_feature_ablation", "logprob", **single), twin.ablation("logprob"))
    check(
        "llm_feature_ablation, foil by subtraction",
        ask("llm_feature_ablation", "foil", **single),
        twin.ablation("foil"),
    )
    check("LLMAttribution, 3 tokens, use_cached_outputs=True (default)", lambda: answer(True, True), whole)
    check("LLMAttribution, 3 tokens, use_cached_outputs=False", lambda: answer(False, True), whole)
    check("LLMAttribution, 3 tokens, forward_in_tokens=False", lambda: answer(False, False), whole)
    shapley = ask("shapley_value_sampling", baseline=BASELINE, samples=3, seed=0)
    check("shapley_value_sampling: the sum", summed(shapley), twin.difference())
    for steps in (50, 400):
        ig = ask("layer_integrated_gradients", **{**path_options, "steps": steps})
        check(f"layer_integrated_gradients, {steps} steps: the sum", summed(ig), twin.difference())
        ig = ask("integrated_gradients", steps=steps, baseline=BASELINE)
        check(f"integrated_gradients, {steps} steps: the sum", summed(ig), twin.difference())
        ig = ask("integrated_gradients", steps=steps, baseline=None)
        check(f"integrated_gradients, {steps} steps, zero baseline: the sum", summed(ig), twin.difference_from_zero())


def inseq(path: str, layer: str | None, twin: Twin) -> None:
    from run_inseq import METHODS, Inseq

    METHODS["layer_integrated_gradients"] = {}
    ask = asker(Inseq, path, twin)
    ablated = twin.ablation()
    options = {"baseline": BASELINE, "steps": 50}
    check(
        "layer_gradient_x_activation",
        ask("layer_gradient_x_activation", layer=layer),
        twin.input_x_gradient(),
    )
    check("input_x_gradient (at the embedding)", ask("input_x_gradient"), twin.input_x_gradient())
    check("occlusion", ask("occlusion", baseline=BASELINE), ablated)
    check("occlusion, against magnitudes", ask("occlusion", baseline=BASELINE), [abs(score) for score in ablated])
    check("attention", ask("attention"), twin.attention())
    check("value_zeroing (no twin: does it run)", ask("value_zeroing"), [0.0] * N)
    for steps in (50, 400):
        ig = ask("integrated_gradients", **{**options, "steps": steps})
        check(f"integrated_gradients, {steps} steps: the sum", summed(ig), twin.difference())
    ig = ask("layer_integrated_gradients", layer=layer, **options)
    check("layer_integrated_gradients: the sum", summed(ig), twin.difference())
    sequential = ask("sequential_integrated_gradients", **options)
    check("sequential_integrated_gradients, against ablation", sequential, ablated)


if __name__ == "__main__":
    peer, model, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    {"inseq": inseq, "captum": captum}[peer](model, rest[0] if rest else None, Twin(model, rest[0] if rest else None))
