"""Recorded traffic of production services, read into arrivals: the formats of Azure and Mooncake.

Sources: Azure/AzurePublicDataset, ``AzureLLMInferenceDataset2023.md`` (a CSV with ``TIMESTAMP, ContextTokens,
GeneratedTokens``); R. Qin et al., "Mooncake: A KVCache-centric Disaggregated Architecture for LLM Serving", FAST 2025,
kvcache-ai/Mooncake (a JSON line a request with ``timestamp`` in milliseconds, ``input_length``, ``output_length``,
``hash_ids``).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tokentape.errors import UsageError
from tokentape.study.simulate.arrivals import Arrivals

__all__ = ["READERS", "read_azure", "read_mooncake"]

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MOONCAKE = ("timestamp", "input_length", "output_length")

Row = tuple[int, int, int]


def read_azure(path: str | os.PathLike[str]) -> Arrivals:
    """The Azure format: times to the tenth of a microsecond. Requests without a generated token are left out.

    Raises UsageError for a file that is no such table, with the line.
    """
    return _arrivals(Path(path), _azure_rows(Path(path)), "azure")


def read_mooncake(path: str | os.PathLike[str]) -> Arrivals:
    """The Mooncake format. What prompts have in common (``hash_ids``) is not used: each is read as a whole.

    Raises UsageError for a file that is no such list, with the line.
    """
    return _arrivals(Path(path), _mooncake_rows(Path(path)), "mooncake")


READERS = {"azure": read_azure, "mooncake": read_mooncake}
"""Formats by their names."""


def _arrivals(path: Path, rows: Iterator[Row], origin: str) -> Arrivals:
    try:
        found = sorted(row for row in rows if row[1] > 0 and row[2] > 0)
    except (OSError, UnicodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read", why=str(error), fix="give a file of requests") from error
    if not found:
        raise UsageError(
            f"no request in {path}", why="it has no row with a prompt and an answer", fix="give another file"
        )
    at, prompts, outputs = (np.array(column, np.int64) for column in zip(*found, strict=True))
    return Arrivals(at - at[0], prompts, outputs, origin)


def _azure_rows(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        missing = [name for name in AZURE if name not in names]
        if missing:
            raise UsageError(
                f"{path} lacks {', '.join(missing)}",
                why=f"the Azure format has {', '.join(AZURE)}; this file has {', '.join(names) or 'nothing'}",
                fix="give a file of the Azure LLM inference dataset, or a .jsonl of Mooncake's format",
            )
        for number, row in enumerate(reader, 2):
            try:
                yield _moment_ns(row["TIMESTAMP"]), int(row["ContextTokens"]), int(row["GeneratedTokens"])
            except (TypeError, ValueError) as error:
                raise _bad_line(path, number, error) from None


def _moment_ns(text: str) -> int:
    """Seven decimals of a second, which ``datetime`` does not hold."""
    whole, _, rest = text.strip().partition(".")
    digits = rest.partition("+")[0].rstrip("Z")
    if digits and not digits.isdigit():
        raise ValueError(f"{text!r} is no moment")
    moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000_000 + int((digits + "000000000")[:9])


def _mooncake_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                at_ms, n_prompt, n_output = (row[name] for name in MOONCAKE)
                yield round(float(at_ms) * 1e6), int(n_prompt), int(n_output)
            except KeyError as error:
                raise _bad_line(path, number, f"it has no {error.args[0]}") from None
            except (TypeError, ValueError, OverflowError) as error:
                raise _bad_line(path, number, error) from None


def _bad_line(path: Path, number: int, why: object) -> UsageError:
    return UsageError(f"{path}, line {number} is no request", why=str(why), fix="mend or drop the line")
