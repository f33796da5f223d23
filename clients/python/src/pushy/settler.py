"""Tells the server how attempts ended, and what they logged: many in one statement."""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass

import psycopg

from . import outcome, statements
from .backoff import Backoff
from .job import Job
from .link import Link, Unreachable, may_pass
from .outcome import Outcome
from .report import Report

PACE_S = 0.003  # between two statements while handlers are busy
MOST_OUTCOMES = 1_000
MOST_CHARACTERS = 4_000_000
MOST_LINES = 10_000  # kept while the server cannot be reached, the newest

WHAT = "settling jobs"


@dataclass(slots=True)
class Settlement:
    job: Job
    encoded: str
    is_repeated: bool = False  # it may have been heard already, so that being too late is no news


class Settler:
    def __init__(self, link: Link, report: Report) -> None:
        self._link = link
        self._report = report
        self._pending: deque[Settlement] = deque()
        self._lines: list[tuple[str, str, int, str]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.hurry = False

    def settle(self, job: Job, said: Outcome) -> None:
        try:
            encoded = said.encode(job.id, job.token)
        except (TypeError, ValueError, RecursionError) as error:
            encoded = outcome.failed(error).encode(job.id, job.token)
        self._pending.append(Settlement(job, encoded))
        self._work()

    def log(self, job: Job, message: str, level: str) -> None:
        if len(self._lines) >= MOST_LINES:
            del self._lines[0]
        self._lines.append((outcome.storable(message, outcome.MOST_ERROR), outcome.storable(level, 20), job.id, job.token))
        self._work()

    async def drained(self) -> None:
        self.hurry = True
        await self._idle.wait()

    def _work(self) -> None:
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        backoff = Backoff()
        last = 0.0
        while True:
            await self._wake.wait()
            pause = last + PACE_S - time.monotonic()
            if pause > 0 and not self.hurry:
                await asyncio.sleep(pause)
            self._wake.clear()
            last = time.monotonic()
            batch = self._batch()
            left = await self._tell(batch)
            if left:
                self._pending.extendleft(reversed(left))
                pause = backoff.next()
                self._report.count("backoff", "", pause)
                await asyncio.sleep(pause)
            else:
                backoff.reset()
                self._report.well(WHAT)
            if self._pending or self._lines:
                self._wake.set()
            else:
                self._idle.set()

    def _batch(self) -> list[Settlement]:
        """The first ones; those that are told again by themselves."""
        batch: list[Settlement] = []
        room = MOST_CHARACTERS
        while self._pending and len(batch) < MOST_OUTCOMES and room > 0:
            if self._pending[0].is_repeated != (batch or self._pending)[0].is_repeated:
                break
            batch.append(self._pending.popleft())
            room -= len(batch[-1].encoded)
        return batch

    async def _tell(self, batch: list[Settlement]) -> list[Settlement]:
        """Answers what is to be told again."""
        try:
            await self._log()
            if batch:
                await self._send(batch)
            return []
        except Unreachable as error:
            self._report.trouble(WHAT, error)
            for each in batch:
                each.is_repeated = True
            return batch
        except psycopg.Error as error:
            if len(batch) > 1:
                # Each alone, because one that the server refuses must not hold up the others.
                return await self._tell_each(batch)
            if may_pass(error):
                self._report.trouble(WHAT, error)
                return batch
            return self._refused(batch[0], error)

    async def _tell_each(self, batch: list[Settlement]) -> list[Settlement]:
        left: list[Settlement] = []
        for n, each in enumerate(batch):
            again = await self._tell([each])
            left += again
            if again and not self._link.is_open:
                return left + batch[n + 1 :]
        return left

    async def _log(self) -> None:
        lines = self._lines
        if not lines:
            return
        self._lines = []
        try:
            await self._link.fetch(statements.LOG, tuple(map(list, zip(*lines, strict=True))))
        except psycopg.Error as error:
            self._report.trouble("keeping log lines", error)
        except Unreachable:
            self._lines = [*lines, *self._lines][-MOST_LINES:]
            raise

    async def _send(self, batch: list[Settlement]) -> None:
        began = time.monotonic()
        outcomes = "[" + ",".join(each.encoded for each in batch) + "]"
        rows = await self._link.fetch(statements.SETTLE, (outcomes,))
        took = time.monotonic() - began
        queues = {each.job.queue for each in batch}
        self._report.count("settled", queues.pop() if len(queues) == 1 else "", took)
        late = len(batch) - rows[0][0]
        if late > 0 and not batch[0].is_repeated:
            for _ in range(late):
                self._report.count("refused", "", took)
            self._report.log(
                logging.WARNING,
                f"{late} of {len(batch)} outcomes came too late, and changed nothing: other attempts have begun, or the jobs were cancelled",
                event="refused",
                job_ids=[each.job.id for each in batch],
            )

    def _refused(self, told: Settlement, error: psycopg.Error) -> list[Settlement]:
        job = told.job
        fields = {"event": "trouble", "queue": job.queue, "job_id": job.id, "sqlstate": error.sqlstate}
        if '"outcome": "complete"' in told.encoded and (error.sqlstate or "").startswith("22"):
            self._report.log(logging.ERROR, f"the result of job {job.id} cannot be stored: {error}", **fields)
            return [Settlement(job, outcome.failed(error).encode(job.id, job.token))]
        self._report.log(logging.ERROR, f"the outcome of job {job.id} was refused, and its lease will run out: {error}", **fields)
        return []
