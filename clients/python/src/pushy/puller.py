"""One queue of a worker: claims as many jobs as there is room for, starts them, and sleeps in the server while there are none."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
import os
import socket
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from . import outcome, statements
from .backoff import Backoff
from .job import Job
from .link import ANSWER_S, Link, Unreachable
from .threads import Threads

if TYPE_CHECKING:
    from .worker import Handler, Worker

MOST_JOBS = 1_000  # of one claim, as the server allows
MOST_PATIENCE = 20  # times as long as an answer usually may take: for one job that needs longer than that
WAIT_S = 60.0  # then it asks again, so that a connection that died unseen is noticed


@dataclass(slots=True)
class Request:
    """A claim that was not answered yet. Repeated under the same name, it answers what the server has given to that name."""

    name: str
    max_jobs: int
    since: int  # how many statements its connection had sent before


class Puller:
    def __init__(self, worker: Worker, handler: Handler) -> None:
        self.worker = worker
        self.queue = handler.queue
        self.lease = handler.lease
        self.running: set[Job] = set()
        self._handler = handler
        self._link = Link(worker.conninfo)
        self._threads = None if handler.is_async else Threads(f"pushy-{handler.queue}", handler.concurrency)
        self._ready: deque[Job] = deque()
        self._changed = asyncio.Event()
        self._request: Request | None = None
        self._requests = 0
        self._most = MOST_JOBS
        self._patience = 1  # how many times as long as usual the next answer may take
        self._who = f"{socket.gethostname()[:64]}:{os.getpid()}:{uuid.uuid4()}"
        self._what = f"claiming jobs of queue {self.queue}"
        self._is_bound = False  # the leases of the queue end with the connection
        self._is_wait_refused = False  # the last wait has not answered: that a claim does is not enough to be well
        self._stopping = False
        self._pulling: asyncio.Task[None] | None = None

    def text(self, message: str) -> str:
        """As any connection to the database can store it."""
        return message if self._link.is_utf8 else message.encode("ascii", "replace").decode()

    def start(self) -> asyncio.Task[None]:
        self._pulling = asyncio.create_task(self._pull(), name=f"pushy {self.queue}")
        return self._pulling

    def stop(self) -> None:
        """No more claims. One whose answer is on its way is waited for, because its jobs would be leased to nobody."""
        self._stopping = True
        while self._ready:
            waited = self._ready.popleft()
            if waited.cancelled:
                self._drop(waited)
            else:
                self._give_back(waited)
        if self._pulling is not None and not self._owed():
            if self._link.is_asking:
                self._link.give_up()  # it sleeps in the server
            else:
                self._pulling.cancel()
        self._changed.set()

    def _owed(self) -> bool:
        """Whether the server may have given jobs to the name of a request."""
        return self._request is not None and self._link.asked > self._request.since

    async def drained(self) -> None:
        """Nothing is asked for, and no handler runs."""
        if self._pulling is not None:
            await asyncio.wait([self._pulling])
        while self.running:
            self._changed.clear()
            await self._changed.wait()

    async def end(self) -> None:
        if self._threads is not None:
            self._threads.close()
        await self._link.end()

    async def _pull(self) -> None:
        backoff = Backoff()
        vain = Backoff(first=0.005, most=0.2)
        was_told = False
        while not self._stopping or self._owed():
            try:
                if self._request is None:
                    room = await self._room()
                    self._requests += 1
                    # To find that nothing has changed, one job is enough.
                    self._request = Request(f"{self._who}:{self._requests}", 1 if self._is_bound else room, self._link.asked)
                asked = self._request.max_jobs
                jobs = await self._claim(self._request)
                self._request = None
                if self._stopping:
                    for job in jobs:
                        self._give_back(job)
                    return
                if not self._is_wait_refused:
                    self.worker.report.well(self._what)
                    backoff.reset()
                for job in jobs:
                    self._admit(job)
                if jobs:
                    vain.reset()
                elif was_told:
                    # Others were faster. If that goes on, the wait is of no use.
                    await asyncio.sleep(vain.next())
                was_told = len(jobs) < asked and await self._wait()
            except Unreachable as error:
                self._is_wait_refused = False
                if self._request is not None and error.is_late:
                    self._ask_less(self._request)
                await self._rest(backoff, error)
            except psycopg.Error as error:
                # The server said no, so this name holds nothing.
                self._request = None
                await self._rest(backoff, error)
            except Exception as error:
                # A fault of this library, or of what a role has set: no reason to leave the other queues. The name is kept, because
                # it may hold jobs.
                await self._link.close()
                await self._rest(backoff, error)

    def _ask_less(self, request: Request) -> None:
        """An answer that is too long for the network would be too long again; that of one job is given more time instead."""
        if request.max_jobs > 1:
            self._most = request.max_jobs = request.max_jobs // 2
            return
        self._patience = min(MOST_PATIENCE, self._patience * 2)
        self.worker.report.log(
            logging.WARNING,
            f"one job of queue {self.queue} was not answered in time: its arguments may be too long for this network; "
            f"the next answer may take {self._patience * ANSWER_S:.0f} s",
            event="slow",
            queue=self.queue,
        )

    async def _rest(self, backoff: Backoff, error: Exception) -> None:
        if self._stopping and not self._owed():
            return
        pause = backoff.next()
        self.worker.report.trouble(self._what, error, queue=self.queue)
        self.worker.report.count("backoff", self.queue, pause)
        await asyncio.sleep(pause)

    async def _room(self) -> int:
        while (room := self._handler.concurrency + self._handler.prefetch - len(self.running) - len(self._ready)) <= 0:
            self._changed.clear()
            await self._changed.wait()
        return min(room, self._most)

    async def _claim(self, request: Request) -> list[Job]:
        sent_at = time.monotonic()
        rows = await self._link.fetch(statements.CLAIM, (self.queue, request.max_jobs, self._handler.lease, request.name), self._patience * ANSWER_S)
        if time.monotonic() - sent_at < ANSWER_S:
            self._patience = 1
        if len(rows) >= self._most and time.monotonic() - sent_at < ANSWER_S / 4:
            self._most = min(MOST_JOBS, self._most * 2)
        if rows:
            self.worker.report.count("claimed", self.queue, time.monotonic() - sent_at)
        jobs = [Job(self, sent_at, row) for row in rows]
        self._is_bound = any(math.isinf(job.lease) for job in jobs)
        if self._is_bound:
            # By their tokens, and with the connection left open, because a lease that ends with its session is charged.
            for job in jobs:
                self._give_back(job)
            raise psycopg.NotSupportedError(
                f'the leases of queue "{self.queue}" end with the connection, which a worker shares: give its handler a lease'
            )
        return jobs

    async def _wait(self) -> bool:
        self._is_wait_refused = True
        try:
            rows = await self._link.fetch(statements.WAIT, (self.queue, WAIT_S), WAIT_S + ANSWER_S)
            is_ready = rows[0][0] is True
        except psycopg.errors.QueryCanceled:
            # A statement_timeout that is shorter, or somebody has cancelled it: a wait that is over.
            is_ready = False
        self._is_wait_refused = False
        return is_ready

    def _admit(self, job: Job) -> None:
        self.worker.extender.hold(job)
        if len(self.running) < self._handler.concurrency:
            self._start(job)
        else:
            self._ready.append(job)

    def _start(self, job: Job) -> None:
        self.running.add(job)
        job.started_at = time.monotonic()
        self.worker.report.count("started", self.queue, job.started_at - job.claimed_at)
        if self._threads is None:
            job.task = asyncio.create_task(self._attempt(job))
            job.task.add_done_callback(functools.partial(self._attempted, job))
        else:
            self._threads.submit(functools.partial(self._attempt_in_thread, job))

    def _begin(self, job: Job) -> Any:
        if job.unreadable is not None:
            raise job.unreadable
        return self._handler.function(job)

    async def _attempt(self, job: Job) -> Any:
        return await self._finish(self._begin(job))

    async def _finish(self, result: Any) -> Any:
        """What a handler has returned may be what is still to be done: an `async def` behind a decorator, or without its await."""
        try:
            while inspect.isawaitable(result):
                result = await result
            if inspect.isgenerator(result) or inspect.isasyncgen(result):
                raise TypeError(f"the handler returned a generator, whose body nobody runs: {result!r}")
            return result
        except (SystemExit, KeyboardInterrupt) as error:
            # Of the handler, not of the program.
            raise RuntimeError(f"the handler raised {type(error).__name__}") from error

    def _attempted(self, job: Job, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._ended(job, asyncio.CancelledError(), None)
        elif (error := task.exception()) is not None:
            self._ended(job, error, None)
        else:
            self._ended(job, None, task.result())

    def _attempt_in_thread(self, job: Job) -> None:
        error: BaseException | None = None
        result = None
        try:
            result = self._begin(job)
        except BaseException as raised:
            error = raised
        if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
            self.worker.call(self._finish_in_loop, job, result)
        else:
            self.worker.call(self._ended, job, error, result)

    def _finish_in_loop(self, job: Job, result: Any) -> None:
        if job.cancelled:
            if inspect.iscoroutine(result):
                result.close()
            self._ended(job, asyncio.CancelledError(), None)
            return
        job.task = asyncio.create_task(self._finish(result))
        job.task.add_done_callback(functools.partial(self._attempted, job))

    def _ended(self, job: Job, error: BaseException | None, result: Any) -> None:
        self.running.remove(job)
        self._changed.set()
        if not job.is_over:
            job.is_over = True
            said = job.outcome(error, result)
            self._settle(job, said)
            self._tell(job, said, error)
        while self._ready and len(self.running) < self._handler.concurrency:
            waited = self._ready.popleft()
            if waited.cancelled:
                self._drop(waited)
            else:
                self._start(waited)

    def _settle(self, job: Job, said: outcome.Outcome | None) -> None:
        # Its lease is extended until the outcome is answered, which may take longer: the handler's own transaction is over.
        job.completing = False
        if said is None:
            self.worker.extender.let_go(job)
            self.worker.settler.say_late(job)
        else:
            self.worker.settler.settle(job, said)

    def _tell(self, job: Job, said: outcome.Outcome | None, error: BaseException | None) -> None:
        event = said.event if said is not None else "lost" if job.cancel_reason == "lost" else "completed"
        ran = job.ran()
        self.worker.report.count(event, self.queue, ran)
        level = {"completed": logging.DEBUG, "failed": logging.WARNING}.get(event, logging.INFO)
        fields = {"event": event, "queue": self.queue, "job_id": job.id, "attempt": job.attempt, "seconds": ran}
        why = f": {said.fields['error']}" if said is not None and "error" in said.fields else ""
        self.worker.report.log(level, f"job {job.id} of queue {self.queue} {event}{why}", **fields)

    def _give_back(self, job: Job) -> None:
        """Unstarted, or still running when the worker ends."""
        job.is_over = True
        self._settle(job, outcome.RELEASED)
        self._tell(job, outcome.RELEASED, None)

    def _drop(self, job: Job) -> None:
        """Its lease ended while it waited here."""
        job.is_over = True
        self._tell(job, None, None)

    def abandon(self) -> None:
        """Releases what still runs: the handlers had their time."""
        for job in list(self.running):
            if not job.is_over and job.cancel_reason != "lost":
                self._give_back(job)
