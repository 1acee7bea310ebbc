"""The page says numbers as the terminal does: what Python says of some is in ``web/test/units.json``, which its tests read.

``python -m tests.views.page.test_units_vectors`` writes the file anew.
"""

import json
import math
from pathlib import Path

from tokentape.views.units import _three, bytes_text, duration

FILE = Path(__file__).parents[3] / "web" / "test" / "units.json"

# ties (112.5, 2.125), edges between units, rounding that carries over, values below the last decimal
TIMES = [
    0, 1, 7.5, 999, 999.4, 999.5, 999.6, 1000, 1125, 1135, 1145, 10_450, 112_500, 113_500, 999_499, 999_500, 999_600,
    1_234_567, 2_125_000, 2_135_000, 12_345_678, 99_950_000, 123_456_789, 999_499_999, 999_500_000, 1_000_000_000,
    99_949_999_999, 99_950_000_000, 61_000_000_000, 125_000_000_000, 3_725_900_000_000, -5, -2_500_000, -1_500_000_000,
]  # fmt: skip
SIZES = [0, 1, 1023, 1024, 1500, 1_048_051, 1_048_052, 1_048_576, 123_456_789, 2**30, 2**40, 2**50 + 2**49, 7 * 2**20]
NUMBERS = [
    0.0, 1e-9, 0.0004, 0.0005, 0.0015, 0.00123456, 0.0125, 0.1235, 0.9994, 0.9995, 0.99949, 0.9996, 1.0, 1.005, 1.115,
    2.125, 2.135, 9.995, 9.994, 12.25, 12.35, 99.95, 99.94, 112.5, 113.5, 999.4, 999.5, 1000.5, 1001.5, 12_345.5,
    12_346.5, 1_234_567.0, -0.25, -112.5, -1234.5, math.pi * 1e5,
]  # fmt: skip


def vectors() -> dict[str, list[list[object]]]:
    """Pairs of a number and what is said."""
    return {
        "duration": [[ns, duration(ns)] for ns in TIMES],
        "bytes": [[size, bytes_text(size)] for size in SIZES],
        "three": [[value, _three(value)] for value in NUMBERS],
    }


def test_the_vectors_for_the_page_are_what_python_says():
    assert json.loads(FILE.read_text("utf-8")) == vectors(), f"python -m {__name__} writes them anew"


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), ensure_ascii=False, indent=1) + "\n", "utf-8")
