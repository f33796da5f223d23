"""Pushy against its peers and its limits, on a temporary server, in one run. `python -m bench --help`."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BENCH = REPOSITORY / "bench"
BUILT = REPOSITORY / "target" / "bench"

sys.path.insert(0, str(REPOSITORY / "pg_test"))  # for the harness
