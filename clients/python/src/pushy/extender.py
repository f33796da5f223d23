"""Extends the leases of jobs whose handlers run, and reports their progress: many in one statement."""

import asyncio
import logging
import math
import time

import psycopg

from . import statements
from .backoff import Backoff
from .job import Job
from .link import Link, Unreachable
from .report import Report

REPORT_EVERY_S = 1.0
WHAT = "extending leases"


class Extender:
    def __init__(self, link: Link, report: Report) -> None:
        self._link = link
        self._report = report
        self._held: dict[int, Job] = {}
        self._wake = asyncio.Event()
        self._wakes_at = math.inf

    def hold(self, job: Job) -> None:
        before = self._held.get(job.id)
        if before is not None:
            self._lose(before, "its lease was over, and it was claimed again")
        self._held[job.id] = job
        self._not_later_than(job.extend_at)

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
            now = time.monotonic()
            # Those that are almost due come along.
            along = [job for job in self._extended() if job.extend_at - job.lease / 12 <= now]
            pause = 0.0
            if any(job.extend_at <= now for job in along):
                if await self._extend(along):
                    backoff.reset()
                    self._report.well(WHAT)
                else:
                    pause = backoff.next()
                    self._report.count("backoff", "", pause)
            self._end_those_that_are_over()
            now = time.monotonic()
            next_at = min((job.extend_at for job in self._extended()), default=math.inf)
            over_at = min((job.ends_at for job in self._extended()), default=math.inf)
            self._wakes_at = min(max(next_at, now + pause), over_at)
            self._wake.clear()
            try:
                async with asyncio.timeout(None if self._wakes_at == math.inf else max(0.0, self._wakes_at - now)):
                    await self._wake.wait()
                    if pause:
                        await asyncio.sleep(pause)
            except TimeoutError:
                pass

    async def _extend(self, jobs: list[Job]) -> bool:
        """Whether the server answered."""
        sent_at = time.monotonic()
        said = [(job, job.progressed) for job in jobs]
        shares = [share or (None, None) for _, share in said]
        parameters = (
            [job.id for job in jobs],
            [job.token for job in jobs],
            [job.extend_by for job in jobs],
            [fraction for fraction, _ in shares],
            [message for _, message in shares],
        )
        # No later than when the first of them is over, because then its handler is to be told.
        patience = max(1.0, min(job.ends_at for job in jobs) - sent_at)
        try:
            rows = await self._link.fetch(statements.EXTEND, parameters, patience)
        except Unreachable as error:
            self._report.trouble(WHAT, error)
            return False
        except psycopg.Error as error:
            if len(jobs) > 1:
                # Each alone, because one whose row somebody has locked must not hold up the others.
                return all([await self._extend([job]) for job in jobs if not job.completing])
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

    def _end_those_that_are_over(self) -> None:
        now = time.monotonic()
        for job in [job for job in self._extended() if job.ends_at <= now]:
            self._lose(job, "its lease is over, and the server did not extend it")

    def _lose(self, job: Job, why: str) -> None:
        self.let_go(job)
        if job.is_over or job.completing:
            return
        fields = {"event": "lost", "queue": job.queue, "job_id": job.id, "attempt": job.attempt}
        self._report.log(logging.WARNING, f"job {job.id} is no longer this worker's: {why}", **fields)
        job.cancel("lost")
