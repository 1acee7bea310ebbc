"""The mock server's tests ask it over a socket of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mock_client import Seen, asked


@pytest.fixture
def ask() -> Callable[..., Seen]:
    """``ask(server, body, path)``: every byte that the server sends."""
    return asked
