"""The one place that waits: for something to become true, with a deadline, telling what it last saw."""

import os
import time
from typing import Callable, TypeVar

T = TypeVar("T")

# Deadlines are meant for a busy two-core machine; a slower one says PUSHY_TEST_PATIENCE=3.
PATIENCE = float(os.environ.get("PUSHY_TEST_PATIENCE", "1"))
DEADLINE = 30.0


def wait_for(what: str, look: Callable[[], T], accept: Callable[[T], bool], deadline: float = DEADLINE,
             evidence: Callable[[], str] = lambda: "") -> T:
    """Looks until `accept` likes what it sees and returns that; fails after `deadline` seconds, showing the last look."""
    end = time.monotonic() + deadline * PATIENCE
    pause = 0.002
    while True:
        seen = look()
        if accept(seen):
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline * PATIENCE:g} s for {what}\nlast seen: {seen!r}\n{evidence()}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
