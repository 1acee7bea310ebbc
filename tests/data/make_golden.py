"""Writes the golden tape of the present schema version. Run once for each version, by hand; the file then never changes.

python tests/data/make_golden.py
"""

from pathlib import Path

from tapes import added, explained, explained_together, lensed, looked, write_tape

from tokentape.data import SCHEMA_VERSION
from tokentape.data.annex import add_explanations, add_readings

GOLDEN = Path(__file__).parent / "golden"

if __name__ == "__main__":
    path = GOLDEN / f"v{SCHEMA_VERSION}.tape"
    if path.exists():
        raise SystemExit(f"{path} exists: a golden tape is never made again")
    add_explanations(write_tape(path, n_runs=1, ruled=True, served=True), [explained(), explained_together()])
    add_readings(path, [looked(), lensed(), added()])
    print(path, path.stat().st_size, "bytes")
