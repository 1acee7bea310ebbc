"""What machines can do at most: a catalogue from vendors' data sheets, and the file in which a measured one is kept."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tokentape.errors import StudyError, UsageError

__all__ = ["CATALOGUE", "Hardware", "find_hardware", "in_catalogue", "machine_file"]


@dataclass(frozen=True, slots=True)
class Hardware:
    """The peaks of one device.

    ``tflops`` are 10^12 operations a second by dtype, dense: never the figures for structured sparsity. ``memory_gb`` is in
    10^9 bytes, ``bandwidth_gb_s`` and ``link_gb_s`` in 10^9 bytes a second; the link's is what one device sends, in one direction.
    ``tdp_w`` is the power that the maker designs for. None where the maker does not say. ``source`` names the
    document. ``layer_floor_ns`` is the time that a block of a model takes however small it is, ``one_row_gb_s`` by dtype how
    fast weights are read in products with one row, where that is known. ``measured`` says when a machine was measured,
    None for a data sheet.
    """

    name: str
    tflops: Mapping[str, float]
    memory_gb: float | None
    bandwidth_gb_s: float
    link_gb_s: float | None
    tdp_w: float | None
    source: str
    aliases: tuple[str, ...] = ()
    layer_floor_ns: float = 0.0
    one_row_gb_s: Mapping[str, float] = field(default_factory=dict)
    measured: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def peak(self, dtype: str) -> tuple[float, str]:
        """Operations a second in ``dtype`` or the nearest wider one that is known, and the dtype that it is of."""
        order = {"float4": ("float4", "float8", "bfloat16"), "int4": ("int4", "bfloat16"), "int8": ("int8", "bfloat16"),
                 "float8": ("float8", "bfloat16"), "bfloat16": ("bfloat16",), "float16": ("float16", "bfloat16"),
                 "float32": ("float32",)}  # fmt: skip
        for name in (*order.get(dtype, (dtype,)), "float16" if dtype != "bfloat16" else "", "float32"):
            if name in self.tflops:
                return self.tflops[name] * 1e12, name
        raise UsageError(
            f"{self.name} has no rate for {dtype}",
            why=f"it has {', '.join(self.tflops) or 'none at all'}",
            fix="give another --dtype, or a JSON file with the rate in it",
        )

    def as_dict(self) -> dict[str, Any]:
        """Its fields as plain values: the JSON file that ``--on`` reads."""
        return {**asdict(self), "aliases": list(self.aliases)}


def _row(
    name: str, tflops: str, memory_gb: float | None, bandwidth_gb_s: float, link_gb_s: float | None, tdp_w: float | None,
    source: str, aliases: str = "",
) -> Hardware:  # fmt: skip
    names = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "f8": "float8", "f4": "float4", "i8": "int8"}
    rates: dict[str, float] = {}
    for pair in tflops.split():
        kinds, _, rate = pair.partition("=")
        rates |= {names[kind]: float(rate) for kind in kinds.split("/")}
    return Hardware(name, rates, memory_gb, bandwidth_gb_s, link_gb_s, tdp_w, source, tuple(aliases.split()))


_A100 = "NVIDIA A100 Tensor Core GPU data sheet, 2021"
_H100 = "NVIDIA H100 Tensor Core GPU data sheet, 2023"
_B200 = "NVIDIA Blackwell architecture and DGX B200 data sheets, 2024"
_ADA = "NVIDIA Ada GPU architecture white paper, 2023"
_MI200 = "AMD Instinct MI250X data sheet, 2022"
_MI325 = "AMD Instinct MI325X data sheet, 2024"
_MI300 = "AMD Instinct MI300X data sheet, 2023"
_APPLE = "Apple technical specifications; float32 from GPU cores x 128 lanes x 2 x clock, computed"
_TPU = "Google Cloud TPU system architecture pages, 2024"
_CPU = "computed from the maker's data sheet: cores x operations a cycle x base clock; memory channels x transfers"

CATALOGUE: tuple[Hardware, ...] = (
    _row("A100-40GB-PCIe", "f32=19.5 bf16/f16=312 i8=624", 40, 1555, 300, 250, _A100, "a100-pcie-40gb"),
    _row("A100-40GB-SXM", "f32=19.5 bf16/f16=312 i8=624", 40, 1555, 300, 400, _A100, "a100-sxm4-40gb"),
    _row("A100-80GB-PCIe", "f32=19.5 bf16/f16=312 i8=624", 80, 1935, 300, 300, _A100),
    _row("A100-80GB-SXM", "f32=19.5 bf16/f16=312 i8=624", 80, 2039, 300, 400, _A100, "a100 a100-sxm4-80gb"),
    _row("H100-SXM", "f32=67 bf16/f16=989.4 f8/i8=1978.9", 80, 3350, 450, 700, _H100, "h100 h100-80gb h100-80gb-hbm3"),
    _row("H100-PCIe", "f32=51 bf16/f16=756 f8/i8=1513", 80, 2000, 300, 350, _H100),
    _row("H100-NVL", "f32=60 bf16/f16=835.5 f8/i8=1671", 94, 3900, 300, 400, "NVIDIA H100 data sheet, 2024 (one GPU of NVL)"),
    _row("H200", "f32=67 bf16/f16=989.4 f8/i8=1978.9", 141, 4800, 450, 700, "NVIDIA H200 data sheet, 2024", "h200-sxm"),
    _row("B200", "f32=75 bf16/f16=2250 f8/i8=4500 f4=9000", 180, 8000, 900, 1000, _B200),
    _row("GB200", "f32=80 bf16/f16=2500 f8/i8=5000 f4=10000", 186, 8000, 900, 1200, "NVIDIA GB200 NVL72 data sheet, 2024 (a GPU)"),
    _row("L4", "f32=30.3 bf16/f16=121 f8/i8=242.5", 24, 300, 32, 72, "NVIDIA L4 data sheet, 2023"),
    _row("L40S", "f32=91.6 bf16/f16=362 f8/i8=733", 48, 864, 32, 350, "NVIDIA L40S data sheet, 2023"),
    _row("A10", "f32=31.2 bf16/f16=125 i8=250", 24, 600, 32, 150, "NVIDIA A10 data sheet, 2021"),
    _row("T4", "f32=8.1 f16=65 i8=130", 16, 320, 16, 70, "NVIDIA T4 data sheet, 2019", "tesla-t4"),
    _row("V100-SXM2-32GB", "f32=15.7 f16=125", 32, 900, 150, 300, "NVIDIA V100 data sheet, 2020", "v100 tesla-v100-sxm2-32gb"),
    _row("RTX-4090", "f32=82.6 bf16/f16=165.2 f8=330.3 i8=660.6", 24, 1008, 32, 450, _ADA, "4090"),
    _row("RTX-3090", "f32=35.6 bf16/f16=71 i8=284", 24, 936, 56, 350, "NVIDIA GA102 architecture white paper, 2021", "3090"),
    _row("MI250X", "f32=47.9 bf16/f16=383 i8=383", 128, 3277, 400, 560, _MI200, "instinct-mi250x"),
    _row("MI300X", "f32=163.4 bf16/f16=1307.4 f8/i8=2614.9", 192, 5325, 448, 750, _MI300, "instinct-mi300x"),
    _row("MI325X", "f32=163.4 bf16/f16=1307.4 f8/i8=2614.9", 256, 6000, 448, 1000, _MI325, "instinct-mi325x"),
    _row("TPU-v5e", "bf16=197 i8=393", 16, 819, 200, None, _TPU, "v5e"),
    _row("TPU-v5p", "bf16=459 i8=918", 95, 2765, 600, None, _TPU, "v5p"),
    _row("TPU-v6e", "bf16=918 i8=1836", 32, 1640, 448, None, _TPU, "v6e trillium"),
    _row("Gaudi-3", "bf16=1835 f8=1835", 128, 3700, 600, 900, "Intel Gaudi 3 white paper, 2024", "gaudi3"),
    _row("Apple-M1", "f32=2.6", 16, 68, None, None, _APPLE, "m1"),
    _row("Apple-M1-Max", "f32=10.4", 64, 400, None, None, _APPLE),
    _row("Apple-M1-Ultra", "f32=21", 128, 800, None, None, _APPLE),
    _row("Apple-M2", "f32=3.6", 24, 100, None, None, _APPLE, "m2"),
    _row("Apple-M2-Max", "f32=13.6", 96, 400, None, None, _APPLE),
    _row("Apple-M2-Ultra", "f32=27.2", 192, 800, None, None, _APPLE),
    _row("Apple-M3", "f32=4.1", 24, 100, None, None, _APPLE, "m3"),
    _row("Apple-M3-Max", "f32=16.4", 128, 400, None, None, _APPLE),
    _row("Apple-M4", "f32=4.3", 32, 120, None, None, _APPLE, "m4"),
    _row("Apple-M4-Max", "f32=18.4", 128, 546, None, None, _APPLE),
    _row("EPYC-9654", "f32=7.37 bf16=14.7", None, 461, None, 360, f"AMD EPYC 9004 data sheet, 2022; {_CPU}"),
    _row("Xeon-8480+", "f32=7.17 bf16=114.7 i8=229.4", None, 307, None, 350, f"Intel Xeon 4th generation brief, 2023; {_CPU}"),
    _row("Ryzen-7950X", "f32=2.3 bf16=4.6", None, 83, None, 170, f"AMD Ryzen 7950X specifications, 2022; {_CPU}"),
    _row("Graviton3", "f32=5.3 bf16=21.3", None, 307, None, None, f"AWS re:Invent 2021, Neoverse V1 optimization guide; {_CPU}"),
    _row("Graviton4", "f32=8.6 bf16=34.4", None, 537, None, None, f"AWS re:Invent 2023, Neoverse V2 optimization guide; {_CPU}"),
)  # fmt: skip
"""Memory of a CPU is what is plugged in: None. Among the aliases are the names that drivers give."""

SHOWN = ("A100-80GB-SXM", "H100-SXM", "H200", "B200", "MI300X", "L4", "RTX-4090", "Apple-M4-Max", "EPYC-9654")
"""What is compared where no machine is named."""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower().replace("nvidia", "").replace("amd ", "").replace("geforce", ""))


def in_catalogue(name: str, *, exactly: bool = False) -> list[Hardware]:
    """The devices that a name can mean: the one that it names exactly, else all whose name it is a part of; no file is read."""
    plain = _plain(name)
    exact = [h for h in CATALOGUE if plain in {_plain(n) for n in (h.name, *h.aliases)}]
    return exact or [h for h in CATALOGUE if plain and not exactly and plain in _plain(h.name)]


def machine_file() -> Path:
    """Where the measurement of this machine is kept: in the user's cache folder (XDG_CACHE_HOME)."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "tokentape" / "machine.json"


def find_hardware(name: Any) -> Hardware:
    """A device by its name in the catalogue (case and punctuation do not matter), a JSON file, or ``"this"``.

    Raises UsageError for a name that fits none or several, StudyError where this machine was never measured.
    """
    if isinstance(name, Hardware):
        return name
    text = str(name)
    if text.lower() == "this":
        return _measured_here()
    if text.endswith(".json") or Path(text).is_file():
        return _from_file(Path(text).expanduser())
    found = in_catalogue(text)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{text!r} names {len(found)} machines",
            why=", ".join(h.name for h in found),
            fix=f"--on {found[0].name}",
        )
    import difflib

    near = difflib.get_close_matches(_plain(text), {_plain(h.name): h.name for h in CATALOGUE}, n=3, cutoff=0.5)
    names = {_plain(h.name): h.name for h in CATALOGUE}
    why = f"near it there is {', '.join(names[n] for n in near)}" if near else f"there are {', '.join(names.values())}"
    raise UsageError(
        f"no machine {text!r} in the catalogue",
        why=why,
        fix="--on H100-SXM, --on this, or --on FILE.json with its peaks",
    )


def _measured_here() -> Hardware:
    path = machine_file()
    if not path.is_file():
        raise StudyError(
            "this machine was not measured yet", why=f"{path} is not there", fix="tokentape doctor --measure"
        )
    return _from_file(path)


def _from_file(path: Path) -> Hardware:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        rates = {str(k): float(v) for k, v in told["tflops"].items()}
        made = Hardware(
            name=str(told.get("name") or path.stem),
            tflops=rates,
            memory_gb=_number(told.get("memory_gb")),
            bandwidth_gb_s=float(told["bandwidth_gb_s"]),
            link_gb_s=_number(told.get("link_gb_s")),
            tdp_w=_number(told.get("tdp_w")),
            source=str(told.get("source") or path.name),
            layer_floor_ns=float(told.get("layer_floor_ns") or 0.0),
            one_row_gb_s={str(k): float(v) for k, v in (told.get("one_row_gb_s") or {}).items()},
            measured=told.get("measured"),
            details=told.get("details") or {},
        )
        if made.bandwidth_gb_s <= 0 or not rates or min(rates.values()) <= 0:
            raise ValueError("a peak is a positive number")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        missing = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{path} describes no machine",
            why=missing,
            fix='give {"name": ..., "tflops": {"bfloat16": 989}, "memory_gb": 80, "bandwidth_gb_s": 3350}',
        ) from error
    return made


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
