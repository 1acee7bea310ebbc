"""Times and shares as people write them."""

from __future__ import annotations

import pytest

from tokentape.errors import UsageError
from tokentape.experiment.amounts import seconds, share


@pytest.mark.parametrize(
    ("text", "s"),
    [
        ("250ms", 0.25),
        ("90s", 90),
        ("90", 90),
        (1.5, 1.5),
        (" 2 m", 120),
        ("3min", 180),
        ("1.5H", 5400),
        ("1d", 86_400),
    ],
)
def test_times(text: str | float, s: float) -> None:
    assert seconds(text, "--duration") == s


@pytest.mark.parametrize("text", ["soon", "-1s", "0", "0ms", "", "5 weeks", "nan", "inf", "9" * 400])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        seconds(text, "--duration")
    assert raised.value.what == f"--duration {text} is no time"
    assert raised.value.why == "it is a number of ms, s, m, h or d, above 0"


def test_nothing_is_a_time_where_it_may_be() -> None:
    assert seconds("0s", "--cool", above_zero=False) == 0


@pytest.mark.parametrize(("text", "value"), [("3%", 0.03), ("0.03", 0.03), (1, 1.0), ("100 %", 1.0)])
def test_shares(text: str | float, value: float) -> None:
    assert share(text, "--effect") == value


@pytest.mark.parametrize("text", ["0", "101%", "-3%", "much"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(UsageError, match="--effect"):
        share(text, "--effect")
