"""Pauses between attempts to reach or to persuade the server."""

import random

FIRST_S = 0.1
MOST_S = 30.0


class Backoff:
    """Each pause is up to twice the one before, and random, because a thousand workers must not come back at one moment."""

    def __init__(self, first: float = FIRST_S, most: float = MOST_S) -> None:
        self._first = first
        self._most = most
        self._pause = first

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        pause = self._pause
        self._pause = min(self._most, pause * 2)
        return random.uniform(0.5, 1.0) * pause

    def reset(self) -> None:
        self._pause = self._first
