"""Everything that is decided of a mock server before it serves, as a value that can be written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokentape.errors import UsageError
from tokentape.mock.dialects.choosing import dialect_of
from tokentape.mock.faults import Fault
from tokentape.mock.script import Script
from tokentape.mock.script_file import as_json, fault_of, script_of

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is served, where, and how.

    The request n gets ``scripts[n % len(scripts)]``, unless it brings one of its own. ``faults`` are added to every
    script. At most ``slots`` requests are answered at a time, the others wait in the order in which they came; with
    ``batch_cost_us`` every beat comes that much later for each other request that is being answered. ``spin_us``
    before something is due the server stops sleeping.
    """

    scripts: tuple[Script, ...] = field(default_factory=lambda: (Script.steady(),))
    dialect: str = "vllm"
    faults: tuple[Fault, ...] = ()
    model: str = "mock"
    host: str = "127.0.0.1"
    port: int = 0
    slots: int | None = None
    batch_cost_us: float = 0.0
    api_key: str | None = field(default=None, repr=False)
    tls: tuple[str, str] | None = None
    keep_bytes: bool = True
    spin_us: float = 60.0

    def __post_init__(self) -> None:
        dialect_of(self.dialect)
        if not self.scripts:
            raise UsageError("no script was given", why="a request needs one", fix="give one, or leave it out")
        if self.slots is not None and self.slots < 1:
            raise UsageError(f"{self.slots} slots", why="nothing would ever be answered", fix="--slots 1")
        if not 0 <= self.port <= 65535:
            raise UsageError(
                f"there is no port {self.port}", why="ports go from 1 to 65535", fix="--port 0 for a free one"
            )

    def as_json(self) -> dict[str, Any]:
        """Plain values, for another process."""
        return {
            "scripts": [as_json(script) for script in self.scripts],
            "dialect": self.dialect,
            "faults": [{"name": fault.name, **dict(fault.given)} for fault in self.faults],
            "model": self.model,
            "host": self.host,
            "port": self.port,
            "slots": self.slots,
            "batch_cost_us": self.batch_cost_us,
            "api_key": self.api_key,
            "tls": self.tls,
            "keep_bytes": self.keep_bytes,
            "spin_us": self.spin_us,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Settings:
        """What :meth:`as_json` wrote."""
        given = dict(values)
        given["scripts"] = tuple(script_of(script) for script in given["scripts"])
        given["faults"] = tuple(fault_of(fault) for fault in given["faults"])
        given["tls"] = None if given["tls"] is None else tuple(given["tls"])
        return cls(**given)
