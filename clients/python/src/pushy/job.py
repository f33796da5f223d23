"""One job, as its handler sees it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import json
import math
import time
from collections.abc import Awaitable, Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from . import lines, outcome, statements
from .lines import Line
from .outcome import Outcome, Seconds
from .words import Cancelled, Discarded, LeaseLost, RetriedLater, Snoozed

if TYPE_CHECKING:
    from .puller import Puller

CancelReason = Literal["lost", "stopping"]

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
LINES_S = 30.0  # as long as the settler waits for an answer
LEVELS = ("debug", "info", "warning", "error")


class Job:
    """A claimed job. Its words (snooze, discard, retry_in) end the attempt from wherever they are called; the first one counts."""

    __slots__ = (
        "id", "queue", "args", "attempt", "max_attempts", "enqueued_at", "unique_key", "last_error",
        "lines", "token", "lease", "extend_by", "claimed_at", "sent_at", "extend_at", "reported_at", "progressed", "started_at",
        "word", "completing", "unawaited", "cancel_reason", "task", "is_over", "is_busy", "unreadable", "_puller",
    )  # fmt: skip

    id: int
    queue: str
    args: Any
    attempt: int  # of this attempt, from 1
    max_attempts: int | None
    enqueued_at: datetime
    unique_key: str | None
    last_error: str | None  # of the attempt before

    def __init__(self, puller: Puller, sent_at: float, row: tuple[Any, ...]) -> None:
        self.id, self.token, args, self.attempt, self.max_attempts, enqueued_us, self.unique_key, self.last_error, lease_us = row
        self.queue = puller.queue
        self.enqueued_at = EPOCH + timedelta(microseconds=enqueued_us)
        self.lease = math.inf if lease_us is None else lease_us / 1e6
        # Raised in its attempt, because what one job has in it is nothing to others.
        self.unreadable: ValueError | None = None
        self.lines: list[Line] = []
        try:
            self.args = json.loads(args)
        except Exception as error:  # an integer of more than 4,300 digits, a thousand arrays in each other
            self.args = None
            self.unreadable = ValueError(f"the arguments cannot be read: {type(error).__name__}: {error}")
        # What each extension asks for: nothing, where the queue says how long.
        self.extend_by = puller.lease
        # By the monotonic clock, and from before the claim was sent: so it ends here no later than in the server.
        self.claimed_at: float = sent_at
        self.sent_at: float = sent_at
        self.extend_at: float = sent_at + self.lease / 3
        self.reported_at: float = sent_at
        self.started_at: float = sent_at
        self.progressed: tuple[float, str | None] | None = None
        self.word: Outcome | None = None
        self.completing = False
        self.unawaited = False  # complete() was called with an async connection, and its answer not awaited
        self.cancel_reason: CancelReason | None = None
        self.task: asyncio.Task[Any] | None = None
        self.is_over = False  # its handler has ended, or was given up
        self.is_busy = False  # somebody has locked its row: it is extended alone
        self._puller = puller

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.queue}, attempt {self.attempt}>"

    @property
    def cancelled(self) -> bool:
        """The worker stops, or the job is no longer its own: end soon. An async handler gets asyncio.CancelledError instead."""
        return self.cancel_reason is not None

    def raise_if_cancelled(self) -> None:
        """For sync handlers, between two steps."""
        if self.cancel_reason is not None:
            raise Cancelled(self.cancel_reason)

    def snooze(self, delay: Seconds, reason: str | None = None) -> NoReturn:
        """Ends the attempt, uncharged; the next one is due after delay."""
        self._say(outcome.snoozed(delay, reason))
        raise Snoozed(reason)

    def discard(self, reason: str) -> NoReturn:
        """Ends the job as discarded, because no attempt will do."""
        self._say(outcome.discarded(reason))
        raise Discarded(reason)

    def retry_in(self, delay: Seconds, reason: str) -> NoReturn:
        """Ends the attempt as failed, charged; the next one is due after delay, whatever the queue's backoff."""
        self._say(outcome.retried(delay, reason))
        raise RetriedLater(reason)

    def log(self, message: str, level: str = "info") -> None:
        """Keeps a line with the job; it is sent before the job's outcome, or with it. Of any thread. The levels: debug, info, warning, error."""
        if level not in LEVELS:
            raise ValueError(f"a level is {', '.join(LEVELS)}, not {level!r}")
        line = lines.say(self, outcome.storable(str(message), outcome.MOST_ERROR), level)
        self._puller.worker.call(self._puller.worker.settler.log, line)

    def progress(self, fraction: float, message: str | None = None) -> None:
        """How far the job is, from 0 to 1, and a word about it; sent once a second at most. Of any thread."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"a fraction is from 0 to 1, not {fraction!r}")
        self.progressed = (float(fraction), None if message is None else outcome.storable(message, outcome.MOST_ERROR))
        self._puller.worker.call(self._puller.worker.extender.report_soon, self)

    def complete(self, cursor: Any, result: Any = None) -> Awaitable[None] | None:
        """Completes the job in the transaction of this cursor or connection: its effects happen exactly once.

        Its last statement before COMMIT: the lease is no longer extended. What was logged before goes with it. Raises LeaseLost
        where the job is no longer the worker's; let it through, so that the transaction rolls back. To be awaited with an async
        connection.
        """
        encoded = None if result is None else json.dumps(result, allow_nan=False)
        self.completing = True
        lines.entrust(self, outcome.MOST_LINES)  # at once, so that no more of them get under way
        if inspect.iscoroutinefunction(cursor.execute):
            self.unawaited = True
            return self._complete(cursor, encoded)
        try:
            self._await_lines()
            answer = cursor.execute(*self._completion(encoded))
        except BaseException:
            self._go_on()
            raise
        if inspect.isawaitable(answer):
            self.unawaited = True
            return self._completed(cursor, answer)
        self._check((answer if hasattr(answer, "fetchone") else cursor).fetchone())
        return None

    async def _complete(self, cursor: Any, encoded: str | None) -> None:
        self.unawaited = False
        try:
            if lines.is_sending(self):
                await asyncio.wrap_future(self._puller.worker.written(self))
            executing = cursor.execute(*self._completion(encoded))
        except BaseException:
            self._go_on()
            raise
        await self._completed(cursor, executing)

    def _await_lines(self) -> None:
        """Lines that are under way in another transaction would come too late behind the completion."""
        if not lines.is_sending(self):
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            try:
                self._puller.worker.written(self).result(LINES_S)
            except (TimeoutError, concurrent.futures.CancelledError, RuntimeError):
                pass  # the worker has ended, or its server does not answer: then the lines may be lost, not the job
        # In a loop nothing may be waited for: the settler says so if they were late.

    def _completion(self, encoded: str | None) -> tuple[str, tuple[Any, ...]]:
        said = lines.entrust(self, outcome.MOST_LINES)
        if not said:
            return statements.COMPLETE, (self.id, self.token, encoded)
        logged = json.dumps([(self._puller.text(line.message), line.level) for line in said])
        return statements.LOG_AND_COMPLETE, (self.id, self.token, encoded, logged)

    async def _completed(self, cursor: Any, executing: Awaitable[Any]) -> None:
        self.unawaited = False
        try:
            answer = await executing
        except BaseException:
            self._go_on()
            raise
        row = (answer if hasattr(answer, "fetchone") else cursor).fetchone()
        self._check(await row if inspect.isawaitable(row) else row)

    def _go_on(self) -> None:
        """It is not completed: what went with it is the settler's again."""
        self.completing = False
        self._puller.worker.call(self._puller.worker.settler.take_back, self)

    def _check(self, row: Any) -> None:
        value = next(iter(row.values())) if isinstance(row, Mapping) else row[0]
        if value is not True:
            self.cancel_reason = "lost"
            raise LeaseLost(f"job {self.id} of queue {self.queue} is no longer this worker's")

    def _say(self, word: Outcome) -> None:
        if self.word is None:
            self.word = word

    # What follows is the worker's.

    @property
    def ends_at(self) -> float:
        """When the lease is over for certain, where no extension was answered."""
        return float(self.sent_at + self.lease)

    def cancel(self, reason: CancelReason) -> None:
        if self.cancel_reason is None:
            self.cancel_reason = reason
            if self.task is not None:
                self.task.cancel()

    def outcome(self, error: BaseException | None, result: Any) -> Outcome | None:
        """What the server is told at the handler's end; None where there is nothing to tell."""
        if self.cancel_reason == "lost":
            return None
        if self.word is not None:
            return self.word
        if error is not None:
            return outcome.RELEASED if self.cancel_reason == "stopping" else outcome.failed(error)
        if self.unawaited:
            return outcome.failed(RuntimeError("job.complete was not awaited, so the job is not completed"))
        return None if self.completing else outcome.completed(result)

    def ran(self) -> float:
        return time.monotonic() - self.started_at
