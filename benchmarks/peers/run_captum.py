"""captum, asked by ids: its core methods on a forward function of ours, and its classes for language models.

    CAPTUM_PYTHON benchmarks/peers/run_captum.py JOB ANSWER        (exchange.py describes both)

Core methods (any `value`), on the embeddings given as `inputs_embeds`, or at a layer:

* input_x_gradient, integrated_gradients (`steps`, captum's default 50; `baseline`: an id, null for captum's own, the zero
  vector).
* layer_gradient_x_activation, layer_integrated_gradients (`layer`: null is the input embedding; `baseline`: an id, 0 unless
  told).
* feature_ablation, shapley_value_sampling (`samples`, captum's default 25; `seed`): a feature is a token, replaced by the id
  `baseline`.

Language-model classes (`value` "logprob", and "foil" as the difference of two runs, since captum's targets are
log-probabilities only):

* llm_feature_ablation, llm_shapley_value_sampling (`samples`, captum's default 25), llm_kernel_shap and llm_lime (`samples`,
  50), all through LLMAttribution: a feature is a token, replaced by the id `baseline` (captum's default 0). `cached` is
  captum's `use_cached_outputs`, here false: its default, true, is wrong (README.md).
* llm_layer_integrated_gradients, llm_layer_gradient_x_activation, through LLMGradientAttribution.

captum's TextTokenInput takes a text and encodes it. It is handed a stand-in for the tokenizer, in which a text is one
character an id, so the ids go through unchanged and nothing is lost. Scores of the core gradient methods are summed over the
embedding, as LLMGradientAttribution does.
"""

from __future__ import annotations

import warnings
from typing import Any

from exchange import Item, Passes, Refused, Task, load, module_at, serve, value_of

_ABLATION = {"baseline": 0, "cached": False}
METHODS: dict[str, dict[str, Any]] = {
    "input_x_gradient": {},
    "integrated_gradients": {"steps": 50, "baseline": None},
    "layer_gradient_x_activation": {"layer": None},
    "layer_integrated_gradients": {"layer": None, "steps": 50, "baseline": 0},
    "feature_ablation": {"baseline": 0},
    "shapley_value_sampling": {"baseline": 0, "samples": 25, "seed": 0},
    "llm_feature_ablation": _ABLATION,
    "llm_shapley_value_sampling": {**_ABLATION, "samples": 25, "seed": 0},
    "llm_kernel_shap": {**_ABLATION, "samples": 50, "seed": 0},
    "llm_lime": {**_ABLATION, "samples": 50, "seed": 0},
    "llm_layer_gradient_x_activation": {"layer": None},
    "llm_layer_integrated_gradients": {"layer": None, "steps": 50, "baseline": 0},
}
_FIRST = 0xE000  # one private character an id


class Ids:
    """A tokenizer whose texts are ids: as much of one as captum asks for."""

    def encode(self, text: str, return_tensors: str | None = None, add_special_tokens: bool = True) -> Any:
        import torch

        ids = [ord(character) - _FIRST for character in text]
        return torch.tensor([ids]) if return_tensors else ids

    def decode(self, ids: Any) -> str:
        return "".join(chr(_FIRST + int(i)) for i in (ids.reshape(-1) if hasattr(ids, "reshape") else ids))

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.decode([i]) for i in ids]

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        return {"input_ids": self.encode(text), "offset_mapping": [(i, i + 1) for i in range(len(text))]}


class Captum:
    def __init__(self, task: Task, passes: Passes) -> None:
        import torch
        from captum import attr

        warnings.filterwarnings("ignore", message=".*did not already require gradients.*")
        self.torch, self.attr, self.task = torch, attr, task
        self.whole = task.method.startswith("llm_")
        if self.whole and task.value not in ("logprob", "foil"):
            raise Refused(f"{task.method} explains log-probabilities: value 'logprob', or 'foil' by subtraction")
        self.model = load(task.model_path)
        passes.watch(self.model)
        self.layer = module_at(self.model, task.options.get("layer"), self.model.get_input_embeddings())
        self.signed = True
        self.note = "two runs, subtracted" if self.whole and task.value == "foil" else ""

    def _from_ids(self, item: Item) -> Any:
        def explained(ids: Any) -> Any:
            logits = self.model(input_ids=ids, use_cache=False).logits[:, -1]
            return value_of(logits, self.task.value, item.target, item.foil)

        return explained

    def _from_embedded(self, item: Item) -> Any:
        def explained(embedded: Any) -> Any:
            logits = self.model(inputs_embeds=embedded, use_cache=False).logits[:, -1]
            return value_of(logits, self.task.value, item.target, item.foil)

        return explained

    def _core(self, item: Item) -> Any:
        """[1, p, D]."""
        options, torch = self.task.options, self.torch
        ids = torch.tensor([item.ids])
        if self.task.method.startswith("layer_"):
            if self.task.method == "layer_gradient_x_activation":
                return self.attr.LayerGradientXActivation(self._from_ids(item), self.layer).attribute(ids)
            method = self.attr.LayerIntegratedGradients(self._from_ids(item), self.layer)
            return method.attribute(ids, torch.full_like(ids, options["baseline"]), n_steps=options["steps"])
        embed = self.model.get_input_embeddings()
        embedded = embed(ids).detach().requires_grad_()
        if self.task.method == "input_x_gradient":
            return self.attr.InputXGradient(self._from_embedded(item)).attribute(embedded)
        base = options["baseline"]
        start = None if base is None else embed(torch.full_like(ids, base)).detach()
        method = self.attr.IntegratedGradients(self._from_embedded(item))
        return method.attribute(embedded, start, n_steps=options["steps"])

    def _perturbed(self, item: Item) -> Any:
        """[p]: what is present is a row of ones, what is absent becomes the baseline."""
        options, torch = self.task.options, self.torch
        ids, explained = torch.tensor([item.ids]), self._from_ids(item)

        def present(kept: Any) -> Any:
            return explained(torch.where(kept == 1, ids, options["baseline"]))

        ones = torch.ones(1, item.position)
        if self.task.method == "feature_ablation":
            return self.attr.FeatureAblation(present).attribute(ones)[0]
        torch.manual_seed(options["seed"])
        return self.attr.ShapleyValueSampling(present).attribute(ones, n_samples=options["samples"])[0]

    def _language(self, item: Item, target: int) -> Any:
        """[p]: the log-probability of one target, by captum's classes for language models."""
        options, name, attr = self.task.options, self.task.method.removeprefix("llm_"), self.attr
        tokenizer: Any = Ids()
        given = attr.TextTokenInput(tokenizer.decode(item.ids), tokenizer, baselines=options.get("baseline", 0))
        wanted = self.torch.tensor([target])
        if "seed" in options:
            self.torch.manual_seed(options["seed"])
        if name.startswith("layer_"):
            kind = attr.LayerIntegratedGradients if "integrated" in name else attr.LayerGradientXActivation
            extra = {}
            if "steps" in options:
                base = self.torch.full((1, len(item.ids)), options["baseline"])
                extra = {"n_steps": options["steps"], "baselines": base}
            return (
                attr.LLMGradientAttribution(kind(self.model, self.layer), tokenizer)
                .attribute(given, wanted, **extra)
                .token_attr[0]
            )
        kinds = {
            "feature_ablation": attr.FeatureAblation,
            "shapley_value_sampling": attr.ShapleyValueSampling,
            "kernel_shap": attr.KernelShap,
            "lime": attr.Lime,
        }
        extra = {"n_samples": options["samples"]} if "samples" in options else {}
        method = attr.LLMAttribution(kinds[name](self.model), tokenizer)
        return method.attribute(given, wanted, use_cached_outputs=options["cached"], **extra).seq_attr

    def attribute(self, item: Item) -> list[float]:
        if self.task.method in ("feature_ablation", "shapley_value_sampling"):
            return [float(score) for score in self._perturbed(item)]
        if not self.whole:
            return [float(score) for score in self._core(item).detach().double().sum(-1)[0]]
        scores = self._language(item, item.target).detach().double()
        if self.task.value == "foil":
            assert item.foil is not None
            scores = scores - self._language(item, item.foil).detach().double()
        return [float(score) for score in scores]


if __name__ == "__main__":
    serve("captum", METHODS, Captum, ["captum"])
