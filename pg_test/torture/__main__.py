"""`python -m torture SEED MINUTES`, from pg_test, with the fresh build in target/package-dev-MAJOR."""

import itertools
import random
import sys

from harness.cluster import Cluster
from harness.installation import Installation
from harness.scratch import Scratch

from .run import complain, torture


def main() -> int:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] else random.SystemRandom().randrange(10**6)
    minutes = float(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2] else 10
    print(f"torture: SEED={seed} MINUTES={minutes:g}", flush=True)
    scratch = Scratch.create()
    try:
        installation = Installation.of_build(scratch.path / "pg", "dev")
        numbers = itertools.count(1)

        def make(settings: dict) -> Cluster:
            return Cluster(scratch.path / f"c{next(numbers)}", installation, settings).create().start()

        wrong = torture(make, seed, 60 * minutes, show)
    finally:
        scratch.remove()
    complain(wrong, seed)
    print(f"torture: {'FAILED' if wrong else 'all ledgers balance'} (seed {seed})")
    return 1 if wrong else 0


def show(line: str) -> None:
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="" if " s left" in line else "\n", flush=True)
    elif " s left" not in line:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
