"""Where the parts of a model are: embedding, blocks, last norm, head. Found by what modules do, not by what they are called."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tokentape.errors import ModelError

__all__ = [
    "Anatomy",
    "anatomy_of",
    "first_of",
    "following",
    "frozen_parameters",
    "inputs_of",
    "keeps_rows",
    "replaced",
    "state_in",
]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Modules of a causal language model.

    ``embedding`` gives token ids their vectors; ``entry`` is the module at whose *output* tokens are attributed: the
    embedding, or a norm that stands between it and the first block; ``blocks`` are the decoder's blocks in order, empty
    where the model has no plain sequence of them; ``final_norm`` is the norm between the last block and ``head``, which
    makes logits; either is None where the model has none.

    A norm right behind the embedding makes the model blind to the scale of an embedding, so that input x gradient there
    is zero by Euler's theorem (FIELD: BLOOM): tokens are attributed behind it.
    """

    embedding: nn.Module
    entry: nn.Module
    blocks: tuple[nn.Module, ...]
    final_norm: nn.Module | None
    head: nn.Module | None


@dataclass(frozen=True, slots=True)
class _Call:
    """A module as it was called during the probe, with the norms outside of the blocks told from the rest."""

    module: nn.Module
    inside: bool
    is_norm: bool
    on_path: bool


_known: weakref.WeakKeyDictionary[Any, Anatomy] = weakref.WeakKeyDictionary()


def anatomy_of(model: Any) -> Anatomy:
    """The anatomy of a transformers model, found by one forward pass over two tokens and kept while the model lives.

    Raises ModelError where the model has no input embedding.
    """
    found = _known.get(model)
    if found is None:
        found = _known[model] = _examine(model)
    return found


def keeps_rows(model: Any) -> bool:
    """Whether ``forward`` takes ``logits_to_keep``, so that the head need not run over all rows."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def inputs_of(model: Any, ids: torch.Tensor, past: int = 0) -> dict[str, torch.Tensor]:
    """What ``generate()`` would hand to ``forward`` for unpadded ids ``[B, T]`` behind ``past`` others.

    Positions are given where the model takes them: some families (RoBERTa's) count from another number when left alone.
    """
    inputs = {"input_ids": ids}
    if "position_ids" in inspect.signature(model.forward).parameters:
        inputs["position_ids"] = torch.arange(past, past + ids.shape[1], device=ids.device)[None].expand_as(ids)
    return inputs


def replaced(module: nn.Module, value: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A handle with ``remove()``: until then what ``module`` gives is ``value(what it gave)``."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (value(output[0]), *output[1:])
        return value(output)

    return module.register_forward_hook(hook)


@contextmanager
def following(
    blocks: Sequence[nn.Module],
    enter: Callable[[int, tuple[Any, ...], dict[str, Any]], Any],
    leave: Callable[[int, Any], Any],
) -> Iterator[None]:
    """Within it, ``enter(index, args, kwargs)`` is called before each block runs and ``leave(index, output)`` behind it.

    What ``enter`` gives, if anything, is ``(args, kwargs)`` to run with instead. A block that stands in the list twice is
    one module, and has the first of its places for index.
    """

    def entering(index: int) -> Callable[..., Any]:
        return lambda module, args, kwargs: enter(index, args, kwargs)

    def leaving(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            leave(index, output)

        return hook

    with ExitStack() as stack:
        for index, block in enumerate(dict.fromkeys(blocks)):
            stack.callback(block.register_forward_pre_hook(entering(index), with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(leaving(index)).remove)
        yield


def state_in(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What a block reads: the first of its inputs that is a tensor of numbers; None without any."""
    tensors = [given for given in (*args, *kwargs.values()) if isinstance(given, torch.Tensor)]
    return next((given for given in tensors if given.is_floating_point()), None)


def first_of(output: Any) -> Any:
    """What a block hands on: its output, or the first of several."""
    return output[0] if isinstance(output, tuple | list) else output


@contextmanager
def frozen_parameters(model: Any) -> Iterator[None]:
    """Within it, no parameter asks for gradients: what has some depends on what is asked about."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def _examine(model: Any) -> Anatomy:
    embedding = model.get_input_embeddings()
    if embedding is None:
        raise ModelError(
            f"{type(model).__name__} has no input embedding",
            why="tokens are attributed at their embeddings, and get_input_embeddings() gives none",
            fix="explain a model that reads token ids",
        )
    blocks = _blocks(model)
    calls = _probe(model, embedding, blocks)
    first = next((i for i, call in enumerate(calls) if call.inside), len(calls))
    last = max((i for i, call in enumerate(calls) if call.inside), default=-1)
    # a norm on the path, not one of something that goes beside it to every block
    before = [call.module for call in calls[:first] if call.is_norm and call.on_path] if blocks else []
    after = [call.module for call in calls[last + 1 :] if call.is_norm] if blocks else []
    return Anatomy(
        embedding=embedding,
        entry=before[-1] if before else embedding,
        blocks=blocks,
        final_norm=after[-1] if after else None,
        head=model.get_output_embeddings(),
    )


def _blocks(model: Any) -> tuple[nn.Module, ...]:
    """The one list of modules that is as long as the model is deep and holds the most parameters; () where two compete."""
    config = model.config.get_text_config(decoder=True)
    depth = getattr(config, "num_hidden_layers", None)
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    outer = [(name, found) for name, found in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    # a block is run as a whole: lists of parts (all attentions, all perceptrons) are none
    whole = [found for _, found in outer if _has_own_forward(found[0])]
    parents = {name.rpartition(".")[0] for name, _ in outer}
    if len(outer) > 1 and len(parents) < len(outer):
        return ()
    largest = sorted(whole, key=lambda found: -sum(p.numel() for p in found.parameters()))
    return tuple(largest[0]) if largest else ()


def _has_own_forward(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and type(module).forward is not nn.Module.forward


def _leaves(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if next(module.children(), None) is None:
            yield module


def _probe(model: Any, embedding: nn.Module, blocks: tuple[nn.Module, ...]) -> list[_Call]:
    """Leaf modules in the order of their calls, behind the embedding, in a forward pass over two tokens."""
    calls: list[_Call] = []
    given: list[torch.Tensor] = []
    outputs: list[tuple[int, torch.Tensor]] = []
    depth = 0
    begun: torch.Tensor | None = None

    def enter(module: nn.Module, inputs: Any, options: Any) -> None:
        nonlocal depth
        depth += 1
        if not given:
            given.extend(part for part in (*inputs, *options.values()) if isinstance(part, torch.Tensor))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal depth
        depth -= 1

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal begun
        if module is embedding:
            begun = output
        elif begun is not None:
            is_norm = depth == 0 and _is_norm(module, inputs, output)
            if is_norm:
                outputs.append((len(calls), output))
            calls.append(_Call(module, depth > 0, is_norm, is_norm and _same(inputs[0], begun)))

    with ExitStack() as stack:
        for block in blocks:
            stack.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(leave).remove)
        # the embedding may be a module with parts of its own
        for leaf in {*_leaves(model), embedding}:
            stack.callback(leaf.register_forward_hook(note).remove)
        device = next(embedding.parameters()).device
        with torch.no_grad():
            model(input_ids=torch.zeros((1, 2), dtype=torch.long, device=device), use_cache=False)
    for place, output in outputs:
        if any(_same(output, part) for part in given):
            calls[place] = replace(calls[place], on_path=True)
    return calls


def _same(one: torch.Tensor, other: Any) -> bool:
    return isinstance(other, torch.Tensor) and one.shape == other.shape and torch.equal(one, other)


def _is_norm(module: nn.Module, inputs: Any, output: Any) -> bool:
    """Whether a module gives the same for twice its input: that, and not its name, makes it a norm."""
    if len(inputs) != 1 or not isinstance(output, torch.Tensor) or not isinstance(inputs[0], torch.Tensor):
        return False
    given = inputs[0]
    if given.shape != output.shape or given.dim() < 2 or not given.is_floating_point():
        return False
    # a drawn input, not the one at hand: constant rows would leave a norm nothing to divide by
    drawn = torch.linspace(-3, 3, given.shape[-1], device=given.device).roll(1).to(given.dtype).expand_as(given)
    with torch.no_grad():
        once, twice = module.forward(drawn), module.forward(drawn * 2)
    return bool(torch.allclose(once, twice, rtol=1e-2, atol=1e-3) and not torch.allclose(once, drawn, rtol=1e-2))
