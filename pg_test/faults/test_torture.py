"""The short form of `make torture`: clients with all their habits, every fault, a standby that is promoted now and then."""

import os
import random

from torture.run import torture

SECONDS = float(os.environ.get("PUSHY_TEST_TORTURE_SECONDS", "25"))


def test_all_ledgers_balance_after_every_fault_at_once(make_cluster, record_property):
    seed = int(os.environ.get("PUSHY_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"PUSHY_TEST_SEED={seed}")
    said = []
    assert torture(make_cluster, seed, SECONDS, lambda line: (print(line), said.append(line))) == []
    record_property("counted", said[-1].split(";")[0])
