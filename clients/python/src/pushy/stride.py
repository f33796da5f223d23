"""How many of a row of things are tried in one statement, where one that is refused refuses them all."""

import math


class Stride:
    """Half as many after a refusal, down to one, which is then known; twice as many after each that was taken.

    So one among a thousand is found in some twenty statements, and where all are refused there is hardly more than one for each.
    """

    def __init__(self) -> None:
        self._most = math.inf

    @property
    def is_free(self) -> bool:
        """Nothing was refused lately: all are tried."""
        return self._most == math.inf

    def of(self, things: int) -> int:
        return int(min(self._most, things))

    def refused(self, tried: int) -> None:
        self._most = max(1, tried // 2)

    def taken(self, tried: int, left: int) -> None:
        """`left` were there, of which so many were tried."""
        self._most = math.inf if tried == left else max(self._most, tried) * 2
