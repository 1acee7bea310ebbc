"""inseq, asked by ids. Its public `attribute(text)` tokenises the text again; here a batch is made of the ids and given to the
method's own loop over steps, the very loop that `attribute` calls after encoding, so nothing is lost but that encoding.

    INSEQ_PYTHON benchmarks/peers/run_inseq.py JOB ANSWER          (exchange.py describes both)

Methods are inseq's, by its names. It gives one score a dimension of the embedding; here they are summed, which keeps the sign,
and under a name that ends in `_norm` their L2 norm is taken, which is what inseq shows by default. saliency and lime are always
norms: the one has no sign, the other gives coefficients, not shares.

Options:

* `baseline`: the id whose embedding stands for nothing; null is inseq's own choice, `unk_token_id`.
* `steps`: of a path, inseq's default 50. `samples`: of lime (50) or of gradient_shap (5). `seed`: set before each item.
* `layer`: where layer_gradient_x_activation looks; null is the input embedding.

inseq gives occlusion as a magnitude, so it is unsigned. attention is the mean over layers and heads of the last row,
value_zeroing the mean over layers: both depend neither on the target nor on `value`, and the model is loaded with eager
attention for them, since sdpa gives no weights.
"""

from __future__ import annotations

import logging
from typing import Any

from exchange import Item, Passes, Refused, Task, load, module_at, serve, value_of

_PATH = {"baseline": None, "steps": 50}
METHODS: dict[str, dict[str, Any]] = {
    "input_x_gradient": {},
    "input_x_gradient_norm": {},
    "saliency": {},
    "layer_gradient_x_activation": {"layer": None},
    "layer_gradient_x_activation_norm": {"layer": None},
    "integrated_gradients": _PATH,
    "integrated_gradients_norm": _PATH,
    "sequential_integrated_gradients": _PATH,
    "gradient_shap": {"baseline": None, "samples": 5, "seed": 0},
    "lime": {"samples": 50, "seed": 0},
    "occlusion": {"baseline": None},
    "attention": {},
    "value_zeroing": {},
}
INSIDE = ("attention", "value_zeroing")
NORMS = ("saliency", "lime")


class Inseq:
    def __init__(self, task: Task, passes: Passes) -> None:
        import inseq
        import torch
        from transformers import AutoTokenizer

        logging.getLogger("inseq").setLevel(logging.ERROR)
        self.torch, self.task = torch, task
        self.method = task.method.removesuffix("_norm")
        self.norm = self.method in NORMS or self.method != task.method
        bare = load(task.model_path, attention="eager" if self.method in INSIDE else None)
        passes.watch(bare)
        self.tokenizer = AutoTokenizer.from_pretrained(task.model_path)
        extra = {}
        if self.method.startswith("layer_"):
            extra["target_layer"] = module_at(bare, task.options["layer"], bare.get_input_embeddings())
        self.model = inseq.load_model(bare, self.method, tokenizer=self.tokenizer, device="cpu", **extra)
        self.given = self._arguments()
        self.signed = not self.norm and self.method not in ("occlusion", *INSIDE)
        self.note = "L2 norm over the embedding" if self.norm else ""

    def _arguments(self) -> dict[str, Any]:
        """What the method itself is told. Made anew for each call: inseq's occlusion writes into the dictionary it is given."""
        options = self.task.options
        if "steps" in options:
            return {"n_steps": options["steps"]}
        if "samples" in options:
            return {"n_samples": options["samples"]}
        return {}

    def _batch(self, ids: list[int]) -> Any:
        from inseq.data import Batch, BatchEmbedding, BatchEncoding, DecoderOnlyBatch

        torch = self.torch
        sequence = torch.tensor([ids])
        baseline = self.task.options.get("baseline")
        if baseline is None:
            baseline = self.tokenizer.unk_token_id
        if baseline is None:
            raise Refused("this tokenizer has no unknown token: the job has to give a baseline")
        base = torch.where(sequence == self.model.eos_token_id, sequence, baseline)  # as inseq does
        encoding = BatchEncoding(
            input_ids=sequence,
            attention_mask=torch.ones_like(sequence),
            input_tokens=[self.tokenizer.convert_ids_to_tokens(ids)],
            baseline_ids=base,
        )
        embedding = BatchEmbedding(input_embeds=self.model.embed(sequence), baseline_embeds=self.model.embed(base))
        return DecoderOnlyBatch.from_batch(Batch(encoding, embedding))

    def _scores(self, ids: list[int], first: int, foil: int | None) -> Any:
        """[T, n targets]: sources down, targets across, NaN where a target cannot see."""
        value = self.task.value

        def explained(args: Any) -> Any:
            logits = args.attribution_model.output2logits(args.forward_output)
            return value_of(logits, value, args.target_ids, foil)

        if "seed" in self.task.options:
            self.torch.manual_seed(self.task.options["seed"])
        out = self.model.attribution_method.attribute(
            self._batch(ids),
            attributed_fn=explained,
            attr_pos_start=first,
            attr_pos_end=len(ids),
            show_progress=False,
            pretty_progress=False,
            attribution_args=dict(self.given),
        )
        scores = out.sequence_attributions[0].target_attributions.double()
        if scores.ndim == 2:
            return scores
        if self.method in INSIDE:
            return scores.flatten(2).mean(2)
        return scores.norm(dim=2) if self.norm else scores.sum(2)

    def attribute(self, item: Item) -> list[float]:
        scores = self._scores([*item.ids, item.target], item.position, item.foil)
        return [float(score) for score in scores[: item.position, 0]]

    def all_steps(self, ids: list[int], first: int) -> list[list[float]]:
        scores = self._scores(ids, first, None)
        return [[float(score) for score in scores[:position, position - first]] for position in range(first, len(ids))]


if __name__ == "__main__":
    serve("inseq", METHODS, Inseq, ["inseq", "captum"])
