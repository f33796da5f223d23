"""What a program may count and time."""

from collections.abc import Callable
from typing import Literal, TypeAlias

Event: TypeAlias = Literal[
    "claimed",  # once for each claim that got jobs: seconds of the statement
    "started",  # a handler begins: seconds since the claim was sent
    "completed",  # these six, a handler has ended: seconds that it ran
    "failed",
    "snoozed",
    "discarded",
    "released",
    "lost",  # the lease ended before the handler did, so that what it did may be done again
    "refused",  # an outcome came too late, and changed nothing: seconds of the statement
    "settled",  # once for each statement that told outcomes: seconds of the statement
    "extended",  # once for each statement that extended leases: seconds of the statement
    "backoff",  # the server was not reached, or refused: seconds until the next attempt
]

Metrics: TypeAlias = Callable[[Event, str, float], None]
"""Called with the event, the queue ('' where a statement was for several) and seconds. It must not block."""
