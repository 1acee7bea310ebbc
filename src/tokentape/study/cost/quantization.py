"""What a value of a quantised weight takes, its scales included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokentape.errors import UsageError
from tokentape.study.cost.configuration import Config

__all__ = ["quantization_of"]

BLOCK_ROLES = frozenset({"attention", "mlp", "expert", "shared", "mixer"})
"""Products that a method converts unless it says otherwise: those of the blocks but routers, neither embedding nor head."""

Bits = Callable[[Mapping[str, Any]], float]


def _mxfp4(told: Mapping[str, Any]) -> float:
    """4-bit floats in blocks of 32 that share a scale of 8 bits. Source: OCP Microscaling Formats 1.0, 2023."""
    return 4 + 8 / 32


def _fp8(told: Mapping[str, Any]) -> float:
    """8-bit floats; a float32 scale for each block of weights where there are blocks."""
    block = told.get("weight_block_size") or None
    return 8 + (32 / (block[0] * block[1]) if block else 0)


def _grouped(told: Mapping[str, Any]) -> float:
    """Integers in groups that share a float16 scale and a zero point as wide as a value: GPTQ, AWQ."""
    bits, group = (
        float(told.get("bits", told.get("w_bit", 4))),
        float(told.get("group_size", told.get("q_group_size", 128))),
    )
    return bits + ((16 + bits) / group if group > 0 else 0)


def _bitsandbytes(told: Mapping[str, Any]) -> float:
    """8-bit rows, or 4-bit blocks of 64 with a float32 scale, itself of 8 bits where quantised twice (Dettmers, QLoRA, 2023)."""
    if not told.get("load_in_4bit") and not told.get("_load_in_4bit"):
        return 8
    return 4 + (8 / 64 + 32 / (64 * 256) if told.get("bnb_4bit_use_double_quant") else 32 / 64)


METHODS: dict[str, tuple[Bits, frozenset[str]]] = {
    "mxfp4": (_mxfp4, frozenset({"expert"})),
    "fp8": (_fp8, BLOCK_ROLES),
    "gptq": (_grouped, BLOCK_ROLES),
    "awq": (_grouped, BLOCK_ROLES),
    "bitsandbytes": (_bitsandbytes, BLOCK_ROLES),
}
"""By ``quant_method``: what a value takes, and the roles of the products whose weights are quantised."""


def quantization_of(config: Config) -> tuple[str | None, float | None, frozenset[str]]:
    """Method, bits a value, and roles of the quantised products; raises UsageError for a method that is not known."""
    told = config.get("quantization_config")
    if not isinstance(told, Mapping):
        return None, None, frozenset()
    method = str(told.get("quant_method", "bitsandbytes" if "load_in_4bit" in told else None))
    if method not in METHODS:
        raise UsageError(
            f"the weights are quantised by {method!r}, whose bytes are not known",
            why=f"known are {', '.join(METHODS)}",
            fix="take quantization_config out of a copy of the configuration, and give the dtype of the weights with --dtype",
        )
    bits, roles = METHODS[method]
    return method, bits(told), roles
