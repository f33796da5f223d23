"""Extends the leases of jobs until their outcomes are answered, and reports their progress: many in one statement."""

import asyncio
import logging
import math
import time

import psycopg

from . import statements
from .backoff import Backoff
from .job import Job
from .link import Link, Unreachable, is_of_one, may_pass
from .report import Report
from .stride import Stride

REPORT_EVERY_S = 1.0
PATIENCE_MS = 500  # with rows that are locked, where none was lately
BUSY_S = 1.0  # until one is tried again whose row somebody has locked
BUSY_EACH_S = 0.004  # so that many of them leave time for the others
LAP_S = 0.5  # then those that have become due meanwhile come along
WHAT = "extending leases"
WHAT_WAITS = "extending leases of jobs whose rows are locked"


class Extender:
    def __init__(self, link: Link, report: Report) -> None:
        self._link = link
        self._report = report
        self._held: dict[int, Job] = {}
        self._stride = Stride()
        self._wake = asyncio.Event()
        self._wakes_at = math.inf
        self._over: asyncio.TimerHandle | None = None
        self._over_at = math.inf

    def hold(self, job: Job) -> None:
        before = self._held.get(job.id)
        if before is not None:
            self._lose(before, "its lease was over, and it was claimed again")
        self._held[job.id] = job
        self._not_later_than(job.extend_at)
        self._end_not_later_than(job.ends_at)

    def let_go(self, job: Job) -> None:
        if self._held.get(job.id) is job:
            del self._held[job.id]

    def report_soon(self, job: Job) -> None:
        if job.id in self._held:
            job.extend_at = min(job.extend_at, max(time.monotonic(), job.reported_at + REPORT_EVERY_S))
            self._not_later_than(job.extend_at)

    def _extended(self) -> list[Job]:
        """Not those whose rows their handlers' own transactions have locked, because an extension would wait for them."""
        return [job for job in self._held.values() if not job.completing]

    def _not_later_than(self, time_: float) -> None:
        if time_ < self._wakes_at:
            self._wakes_at = time_
            self._wake.set()

    async def run(self) -> None:
        backoff = Backoff(most=2.0)
        while True:
            pause = 0.0
            if await self._extend_due():
                backoff.reset()
                self._report.well(WHAT)
            else:
                pause = backoff.next()
                self._report.count("backoff", "", pause)
            now = time.monotonic()
            # A completion may fail, and its job is extended again.
            next_at = min((max(job.extend_at, now + BUSY_S) if job.completing else job.extend_at for job in self._held.values()), default=math.inf)
            self._wakes_at = max(next_at, now + pause)
            self._wake.clear()
            try:
                async with asyncio.timeout(None if self._wakes_at == math.inf else max(0.0, self._wakes_at - now)):
                    await self._wake.wait()
                    if pause:
                        await asyncio.sleep(pause)
            except TimeoutError:
                pass

    async def _extend_due(self) -> bool:
        """Whether the server answered. Those that are almost due come along; one of those whose rows somebody has locked comes after."""
        now = time.monotonic()
        along = [job for job in self._extended() if not job.is_busy and job.extend_at - job.lease / 12 <= now]
        if any(job.extend_at <= now for job in along) and not await self._extend_together(along):
            return False
        busy = min((job for job in self._extended() if job.is_busy), key=lambda job: job.extend_at, default=None)
        return busy is None or busy.extend_at > now or await self._extend_alone(busy)

    async def _extend_together(self, jobs: list[Job]) -> bool:
        """In the order in which their leases end; those whose rows somebody has locked are found, because they must not hold up the others."""
        left = sorted(jobs, key=lambda job: job.ends_at)
        until = time.monotonic() + LAP_S
        while left := [job for job in left if not job.completing and self._held.get(job.id) is job]:
            # Then with those that have become due meanwhile.
            if time.monotonic() > until:
                return True
            some = left[: self._stride.of(len(left))]
            try:
                answered = await self._extend(some, patience(some) if self._stride.is_free else statements.GLANCE)
            except psycopg.Error as error:
                if may_pass(error) and not is_of_one(error):
                    self._report.trouble(WHAT, error)
                    return False
                if len(some) == 1:
                    self._pass_over(some[0], error)
                    del left[0]
                self._stride.refused(len(some))
            else:
                if not answered:
                    return False
                self._stride.taken(len(some), len(left))
                del left[: len(some)]
        return True

    def _pass_over(self, job: Job, error: psycopg.Error) -> None:
        """Somebody has locked its row, or what it has said of its progress cannot be stored: then it is left unsaid."""
        self._report.trouble(WHAT_WAITS if is_of_one(error) else WHAT, error)
        if not may_pass(error):
            job.progressed = None
        job.is_busy = True
        busy = sum(other.is_busy for other in self._held.values())
        job.reported_at = time.monotonic()
        job.extend_at = job.reported_at + max(min(BUSY_S, job.lease / 6), BUSY_EACH_S * busy)

    async def _extend_alone(self, job: Job) -> bool:
        try:
            answered = await self._extend([job], statements.GLANCE)
        except psycopg.Error as error:
            if may_pass(error) and not is_of_one(error):
                self._report.trouble(WHAT, error)
                return False
            self._pass_over(job, error)
            return True
        if answered:
            job.is_busy = False
            if not any(other.is_busy for other in self._held.values()):
                self._report.well(WHAT_WAITS)
        return answered

    async def _extend(self, jobs: list[Job], lock_timeout: str) -> bool:
        """Whether the server was reached."""
        sent_at = time.monotonic()
        said = [(job, job.progressed) for job in jobs]
        shares = [share or (None, None) for _, share in said]
        parameters = (
            [job.id for job in jobs],
            [job.token for job in jobs],
            [job.extend_by for job in jobs],
            [fraction for fraction, _ in shares],
            [message for _, message in shares],
            lock_timeout,
        )
        timeout = max(1.0, min(job.ends_at for job in jobs) - sent_at)
        try:
            rows = await self._link.fetch(statements.EXTEND, parameters, timeout)
        except Unreachable as error:
            self._report.trouble(WHAT, error)
            return False
        self._report.count("extended", "", time.monotonic() - sent_at)
        answers = dict(rows)
        for job, share in said:
            answer = answers.get(job.id)
            if answer is False:
                self._lose(job, "somebody cancelled it, or its lease was over")
            elif answer is True:
                job.sent_at = job.reported_at = sent_at
                job.extend_at = sent_at + job.lease / 3
                if job.progressed is share:
                    job.progressed = None
                else:
                    self.report_soon(job)
        return all(answers.get(job.id) is not None for job in jobs)

    def _end_not_later_than(self, time_: float) -> None:
        if time_ >= self._over_at:
            return
        self.end()
        # A timer, because whoever extends the leases may be waiting for a server that says nothing.
        self._over = asyncio.get_running_loop().call_later(time_ - time.monotonic(), self._end_those_that_are_over)
        self._over_at = time_

    def end(self) -> None:
        """Nobody is told any more."""
        if self._over is not None:
            self._over.cancel()
        self._over_at = math.inf

    def _end_those_that_are_over(self) -> None:
        self._over_at = math.inf
        now = time.monotonic()
        for job in [job for job in self._extended() if job.ends_at <= now]:
            self._lose(job, "its lease is over, and the server did not extend it")
        self._end_not_later_than(min((max(job.ends_at, now + BUSY_S) if job.completing else job.ends_at for job in self._held.values()), default=math.inf))

    def _lose(self, job: Job, why: str) -> None:
        self.let_go(job)
        if job.is_over or job.completing or job.cancel_reason == "lost":
            return
        fields = {"event": "lost", "queue": job.queue, "job_id": job.id, "attempt": job.attempt}
        self._report.log(logging.WARNING, f"job {job.id} is no longer this worker's: {why}", **fields)
        job.cancel("lost")


def patience(jobs: list[Job]) -> str:
    """As lock_timeout takes it, and no large part of their leases."""
    return f"{max(1, min(PATIENCE_MS, int(min(job.lease for job in jobs) * 1_000 / 6)))}ms"
