"""What a tape cannot hold: where a step looked, and on which tokens it rested, found by playing the tape back."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """The package answers as the verb of its name does: once somebody imports a module of it, it takes the verb's place in
    ``tokentape``, and ``tt.explain(...)`` has to work all the same.
    """

    def __call__(self, *args: Any, **options: Any) -> Any:
        from tokentape.explain.explaining import explain

        return explain(*args, **options)


sys.modules[__name__].__class__ = _Verb
