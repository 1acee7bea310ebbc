"""LXT's efficient rules, asked by ids: relevance at the input embeddings, summed over their dimensions.

    LXT_PYTHON benchmarks/peers/run_lxt.py JOB ANSWER              (exchange.py describes both)

Methods: attn_lrp (LXT's default map), cp_lrp (its other map; where an MLP is gated it detaches the gate as well) and
cp_attention (the first map with the attention of the second). No options. LXT patches the classes of the model's module and
transformers' registry of attention functions, for the rest of the process and for every family in it: so a process serves one
job, and the model is built after the patch.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from exchange import Item, Passes, Refused, Task, load, serve, value_of

METHODS: dict[str, dict[str, Any]] = {"attn_lrp": {}, "cp_lrp": {}, "cp_attention": {}}


class Lxt:
    signed = True
    note = ""

    def __init__(self, task: Task, passes: Passes) -> None:
        import torch
        from transformers import AutoConfig

        warnings.simplefilter("ignore")
        self.torch, self.task = torch, task
        family = AutoConfig.from_pretrained(task.model_path).model_type
        patch = importlib.import_module("lxt.efficient").monkey_patch
        try:
            rules = importlib.import_module(f"lxt.efficient.models.{family}")
        except ModuleNotFoundError:
            raise Refused(f"LXT has no rules for {family}") from None
        module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
        both = {**rules.attnLRP, module: rules.cp_LRP[module]}
        patch(module, {"attn_lrp": rules.attnLRP, "cp_lrp": rules.cp_LRP, "cp_attention": both}[task.method])
        self.model = load(task.model_path)
        passes.watch(self.model)

    def attribute(self, item: Item) -> list[float]:
        torch = self.torch
        embedded = self.model.get_input_embeddings()(torch.tensor([item.ids])).detach().requires_grad_()
        logits = self.model(inputs_embeds=embedded, use_cache=False).logits[:, -1]
        explained = value_of(logits, self.task.value, item.target, item.foil)
        (gradient,) = torch.autograd.grad(explained.sum(), embedded)
        return [float(score) for score in (embedded * gradient).detach().double().sum(-1)[0]]


if __name__ == "__main__":
    serve("lxt", METHODS, Lxt, ["lxt"])
