"""Many requests to an endpoint: when they are sent, what they ask, and whether the client kept up."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """The package answers as the verb of its name does: once somebody imports a module of it, it takes the verb's place in
    ``tokentape``, and ``tt.load(...)`` has to work all the same.
    """

    def __call__(self, *args: Any, **options: Any) -> Any:
        from tokentape.load.loading import load

        return load(*args, **options)


sys.modules[__name__].__class__ = _Verb
