"""What ends an attempt from within a handler, however deep in its calls.

All are a BaseException, as asyncio.CancelledError is, because an `except Exception` on the way must not swallow them.
"""


class AttemptEnded(BaseException):
    """The handler's attempt is over, by a word of its own or because the job is no longer the worker's."""


class Snoozed(AttemptEnded):
    """job.snooze: the job comes back later, uncharged."""


class Discarded(AttemptEnded):
    """job.discard: the job is given up."""


class RetriedLater(AttemptEnded):
    """job.retry_in: the attempt failed, and the next one has its time."""


class Cancelled(AttemptEnded):
    """job.raise_if_cancelled: the worker stops, or the job is no longer its own."""


class LeaseLost(Cancelled):
    """job.complete was refused: the lease was over, or somebody cancelled the job. Let the transaction roll back."""
