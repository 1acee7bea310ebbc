"""Write the demo model as a GGUF file, for llama.cpp: `python tools/gguf_of_demo.py OUT.gguf [--folder FOLDER]`.

Needs the packages `gguf`, `numpy` and `safetensors` and nothing of tokentape, so it runs in the environment of the
servers (`make llama-env`). Every number stays the float32 that it was.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

FOLDER = Path(__file__).resolve().parents[1] / "src" / "tokentape" / "models" / "demo"

Weights = npt.NDArray[np.float32]


def query_key_value(fused: Weights, n_heads: int) -> Weights:
    """BLOOM's fused projection with its rows in the order that llama.cpp splits.

    A checkpoint keeps q, k and v of head 0, then those of head 1, and so on; llama.cpp reads all q, all k, all v.
    `fused` is `[3 W, W]`, or `[3 W]` for the bias, of width W; so is the answer.
    """
    by_head = fused.reshape(n_heads, 3, -1, *fused.shape[1:])
    return np.ascontiguousarray(np.swapaxes(by_head, 0, 1)).reshape(fused.shape)


def tensors(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, Weights]]:
    """Each tensor of the checkpoint under llama.cpp's name. Raises KeyError for a name that BLOOM does not have."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BLOOM, config["n_layer"])
    for name, weights in load_file(folder / "model.safetensors").items():
        if weights.dtype != np.float32:
            raise ValueError(f"{name} is {weights.dtype}; this tool keeps float32 and converts nothing")
        known = names.get_name(name.removeprefix("transformer."), try_suffixes=(".weight", ".bias"))
        if known is None:
            raise KeyError(f"{name} is no tensor of BLOOM")
        fused = re.search(r"query_key_value\.(weight|bias)$", name)
        yield known, query_key_value(weights, config["n_head"]) if fused else weights


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    """The vocabulary by id, the merges, and which ids are no text.

    The pre-tokenizer `bloom` splits as the demo's regular expression does. Nothing is put before or after a prompt:
    the model was trained on bare documents.
    """
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids: dict[str, int] = described["model"]["vocab"]
    special = {added["id"] for added in described["added_tokens"] if added["special"]}
    if sorted(ids.values()) != list(range(config["vocab_size"])):
        raise ValueError("the vocabulary has holes; llama.cpp wants a token for each id")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("bloom")
    writer.add_token_list(sorted(ids, key=ids.__getitem__))
    writer.add_token_types(
        [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(config["vocab_size"])]
    )
    writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def write(folder: Path, out: Path) -> None:
    """Convert the BLOOM of `folder` into the file `out`. Raises ValueError or KeyError where it is none."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "bloom":
        raise ValueError(f"{folder} holds a {config['model_type']}, and this tool converts a bloom")
    width = config["hidden_size"]
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.BLOOM])
    writer.add_name("tokentape demo")
    writer.add_context_length(config["seq_length"])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(4 * width)
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_head_count_kv(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    add_tokenizer(writer, folder, config)
    for name, weights in tensors(folder, config):
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="a BLOOM in float32 (default: the demo)")
    options = parser.parse_args()
    write(options.folder, options.out)


if __name__ == "__main__":
    main()
