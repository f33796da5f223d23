"""Tells the server how attempts ended, and what they logged: many in one statement."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from . import lines as logged
from . import outcome, statements
from .backoff import Backoff
from .job import Job
from .lines import Line
from .link import ANSWER_S, Link, Unreachable, is_of_one, may_pass
from .outcome import Outcome
from .report import Report
from .stride import Stride

PACE_S = 0.003  # between two statements while handlers are busy
HURRY_S = 0.1  # between two attempts when the worker stops
MOST_OUTCOMES = 1_000
MOST_CHARACTERS = 4_000_000
LONG = 1_000_000  # characters of an outcome that may be too long for the network
MOST_LOSSES = 3  # of one that is so long, alone
MOST_LINES = 10_000  # kept while the server cannot be reached, the newest

WHAT = "settling jobs"
WHAT_WAITS = "settling jobs whose rows are locked"
WHAT_LINES = "keeping log lines"


@dataclass(slots=True)
class Settlement:
    job: Job
    kind: str
    encoded: str
    is_repeated: bool = False  # it may have been heard already, so that being too late is no news
    losses: int = 0


@dataclass(slots=True)
class Waiting:
    """What is to be said of a job whose row somebody has locked: the lines, then the outcome, alone and at a time of their own."""

    job: Job
    lines: list[Line] = field(default_factory=list)
    settlement: Settlement | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(most=5.0))
    due: float = 0.0


class Settler:
    """settled is called when the server has answered a job's outcome: until then somebody has to extend its lease."""

    def __init__(self, link: Link, report: Report, settled: Callable[[Job], None]) -> None:
        self._link = link
        self._report = report
        self._settled = settled
        self._pending: deque[Settlement] = deque()
        self._under_way: list[Settlement] = []
        self._most = MOST_OUTCOMES
        self._lines: list[Line] = []
        self._waiting: dict[Job, Waiting] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()
        self._written = asyncio.Event()  # set for a moment, when lines are no longer under way

    def settle(self, job: Job, said: Outcome) -> None:
        self.take_back(job)
        try:
            encoded = said.encode(job.id, job.token)
        except Exception as error:  # of a result's own methods, too
            self._pending.append(self._without_result(job, f"is no JSON: {type(error).__name__}: {error}"))
        else:
            self._pending.append(Settlement(job, said.kind, encoded))
        self._work()

    def say_late(self, job: Job) -> None:
        """What was said behind a completion: the server keeps it if that was rolled back, or the log says that it came too late."""
        if any(not line.is_repeated for line in job.lines):
            self.take_back(job)

    def take_back(self, job: Job) -> None:
        """The lines that went with a completion come before those that were said since."""
        if lines := logged.take_back(job):
            self._lines = [line for line in self._lines if line.job is not job]
            for line in lines:
                self.log(line)

    def _without_result(self, job: Job, why: str) -> Settlement:
        """Its handler has done its work, and must not do it again for what it answered."""
        self._report.log(
            logging.WARNING,
            f"the result of job {job.id} of queue {job.queue} is not kept, because it {why}",
            event="trouble",
            queue=job.queue,
            job_id=job.id,
        )
        said = outcome.completed(None)
        return Settlement(job, said.kind, said.encode(job.id, job.token))

    def log(self, line: Line) -> None:
        if len(self._lines) >= MOST_LINES:
            logged.end([self._lines.pop(0)], "over")
        self._lines.append(line)
        self._work()

    async def written(self, job: Job) -> None:
        """Until no line of the job is under way."""
        while logged.is_sending(job):
            await self._written.wait()

    async def drained(self) -> None:
        """Until all is told. From now on no pause is longer than HURRY_S, because the worker stops."""
        self._hurry.set()
        for waiting in self._waiting.values():
            waiting.due = 0.0
        self._wake.set()
        await self._idle.wait()

    def left(self) -> int:
        """How many outcomes are not told yet."""
        jobs = {told.job for told in (*self._pending, *self._under_way)}
        return len(jobs.union(job for job, waiting in self._waiting.items() if waiting.settlement is not None))

    def _work(self) -> None:
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        backoff = Backoff()
        last = 0.0
        while True:
            await self._work_to_do()
            pause = last + PACE_S - time.monotonic()
            if pause > 0 and not self._hurry.is_set():
                await asyncio.sleep(pause)
            last = time.monotonic()
            try:
                await self._tell()
            except (Unreachable, psycopg.Error) as error:
                # The server takes nothing at all.
                self._report.trouble(WHAT, error)
                await self._rest(backoff.next())
            else:
                backoff.reset()
                self._report.well(WHAT)
            if not (self._pending or self._lines or self._waiting):
                self._report.well(WHAT_WAITS)
                self._idle.set()

    async def _work_to_do(self) -> None:
        if not (self._pending or self._lines):
            due = min((waiting.due for waiting in self._waiting.values()), default=None)
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - time.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                pass
        self._wake.clear()

    async def _rest(self, pause: float) -> None:
        self._report.count("backoff", "", pause)
        try:
            async with asyncio.timeout(pause):
                await self._hurry.wait()
                await asyncio.sleep(HURRY_S)
        except TimeoutError:
            pass

    async def _tell(self) -> None:
        """One batch of what is new, and one of those that wait: so neither holds up the other."""
        lines, self._lines = self._lines, []
        new: list[Line] = []
        for line in lines:
            waiting = self._waiting.get(line.job)
            (new if waiting is None else waiting.lines).append(line)
        # At once, because the lines of a job come before its outcome.
        self._under_way = batch = self._batch()
        try:
            if new:
                try:
                    await self._log(new)
                except BaseException:
                    self._pending.extendleft(reversed(batch))
                    raise
                batch = [each for each in batch if not self._waits(each)]
            if batch:
                await self._settle(batch)
        finally:
            self._under_way = []
        waiting = min(self._waiting.values(), key=lambda waiting: waiting.due, default=None)
        if waiting is not None and waiting.due <= time.monotonic():
            await self._tell_alone(waiting)

    def _batch(self) -> list[Settlement]:
        """The first ones; those that are told again by themselves."""
        batch: list[Settlement] = []
        room = MOST_CHARACTERS
        while self._pending and len(batch) < self._most and room > 0:
            if self._pending[0].is_repeated != (batch or self._pending)[0].is_repeated:
                break
            first = self._pending.popleft()
            if not self._waits(first):
                batch.append(first)
                room -= len(first.encoded)
        return batch

    def _waits(self, told: Settlement) -> bool:
        """Behind the lines of its job, if those wait."""
        waiting = self._waiting.get(told.job)
        if waiting is None:
            return False
        waiting.settlement = told
        return True

    async def _log(self, lines: list[Line]) -> None:
        try:
            with self._lines_kept(lines):
                await self._write(lines, statements.PATIENCE)
        except psycopg.Error:
            # Those of a job that the server refuses must not hold up, or lose, those of the others.
            of_jobs: dict[Job, list[Line]] = {}
            for line in lines:
                of_jobs.setdefault(line.job, []).append(line)
            await self._log_by_strides(list(of_jobs.values()))

    async def _log_by_strides(self, left: list[list[Line]]) -> None:
        stride = Stride()
        stride.refused(len(left))
        while left:
            some = left[: stride.of(len(left))]
            with self._lines_kept([line for of_job in left for line in of_job]):
                try:
                    await self._write([line for of_job in some for line in of_job], statements.GLANCE)
                except psycopg.Error as error:
                    stride.refused(len(some))
                    if len(some) > 1:
                        continue
                    if may_pass(error):
                        self._wait(some[0][0].job, error).lines += some[0]
                    else:
                        self._refuse_lines(some[0], error)
                else:
                    stride.taken(len(some), len(left))
            del left[: len(some)]

    @contextmanager
    def _lines_kept(self, lines: list[Line]) -> Iterator[None]:
        """Where the server cannot be reached."""
        try:
            yield
        except Unreachable:
            self._lines = [*lines, *self._lines][-MOST_LINES:]
            raise

    async def _settle(self, batch: list[Settlement]) -> None:
        asked = self._link.asked
        try:
            await self._send(batch, statements.PATIENCE)
        except Unreachable as error:
            for each in batch:
                each.is_repeated = True
            self._pending.extendleft(reversed(batch if self._link.asked == asked else self._after_loss(batch, error)))
            raise
        except psycopg.Error:
            # One that the server refuses must not hold up the others.
            await self._settle_by_strides(batch)

    def _after_loss(self, batch: list[Settlement], error: Unreachable) -> list[Settlement]:
        """What is told next: what was too long for the network, or for the server's memory, would be so again."""
        self._most = max(1, len(batch) // 2)
        first = batch[0]
        if len(batch) > 1 or len(first.encoded) < LONG:
            return batch
        first.losses += 1
        if first.losses < MOST_LOSSES or first.kind != "complete":
            return batch
        instead = self._without_result(first.job, f"does not reach the server: {error}")
        instead.is_repeated = True
        return [instead]

    async def _settle_by_strides(self, left: list[Settlement]) -> None:
        stride = Stride()
        stride.refused(len(left))
        while left:
            some = left[: stride.of(len(left))]
            try:
                await self._send(some, statements.GLANCE)
            except Unreachable:
                for each in some:
                    each.is_repeated = True
                self._pending.extendleft(reversed(left))
                raise
            except psycopg.Error as error:
                stride.refused(len(some))
                if len(some) > 1:
                    continue
                if not may_pass(error):
                    refused = self._refused(some[0], error)
                    if refused is not None:
                        self._pending.append(refused)
                else:
                    self._wait(some[0].job, error).settlement = some[0]
                    if not is_of_one(error):
                        self._pending.extendleft(reversed(left[1:]))
                        raise
            else:
                stride.taken(len(some), len(left))
            left = left[len(some) :]

    def _wait(self, job: Job, error: psycopg.Error) -> Waiting:
        waiting = self._waiting.setdefault(job, Waiting(job))
        self._report.trouble(WHAT_WAITS if is_of_one(error) else WHAT, error)
        pause = waiting.backoff.next()
        self._report.count("backoff", job.queue, pause)
        waiting.due = time.monotonic() + (min(pause, HURRY_S) if self._hurry.is_set() else pause)
        return waiting

    async def _tell_alone(self, waiting: Waiting) -> None:
        lines, waiting.lines = waiting.lines[-outcome.MOST_LINES :], []
        asked = self._link.asked
        try:
            if lines:
                await self._write(lines, statements.HASTE)
                lines = []
            if waiting.settlement is not None:
                await self._send([waiting.settlement], statements.HASTE)
        except Unreachable as error:
            if waiting.settlement is not None and not lines:
                waiting.settlement.is_repeated = True
                if self._link.asked > asked:
                    (waiting.settlement,) = self._after_loss([waiting.settlement], error)
            waiting.lines = lines + waiting.lines
            raise
        except psycopg.Error as error:
            if may_pass(error):
                waiting.lines = lines + waiting.lines
                self._wait(waiting.job, error)
                if not is_of_one(error):
                    raise
                return
            if lines:
                self._refuse_lines(lines, error)
                return  # its outcome is told in the next round
            if waiting.settlement is not None:
                waiting.settlement = self._refused(waiting.settlement, error)
                if waiting.settlement is not None:
                    return
        if not waiting.lines:
            del self._waiting[waiting.job]

    def _refuse_lines(self, lines: list[Line], error: psycopg.Error) -> None:
        logged.end([line for line in lines if line.state == "waiting"], "over")
        self._report.trouble(WHAT_LINES, error)

    async def _write(self, lines: list[Line], lock_timeout: str) -> None:
        lines = logged.begin(lines)
        if not lines:
            return
        columns = (
            [line.message for line in lines],
            [line.level for line in lines],
            [line.job.id for line in lines],
            [line.job.token for line in lines],
        )
        try:
            rows = await self._link.fetch(statements.LOG, (*columns, lock_timeout))
        except BaseException as error:
            for line in lines:
                line.is_repeated |= isinstance(error, Unreachable)
            logged.end(lines, "waiting")
            raise
        else:
            logged.end(lines, "over")
        finally:
            self._written.set()
            self._written.clear()
        late = [line.job.id for line, (kept,) in zip(lines, rows, strict=True) if not kept and not line.is_repeated]
        if late:
            self._report.log(
                logging.WARNING,
                f"{len(late)} of {len(lines)} log lines came too late, and are not kept: their jobs were completed, or other attempts have begun",
                event="refused",
                job_ids=sorted(set(late)),
            )

    async def _send(self, batch: list[Settlement], lock_timeout: str) -> None:
        began = time.monotonic()
        outcomes = "[" + ",".join(each.encoded for each in batch) + "]"
        rows = await self._link.fetch(statements.SETTLE, (outcomes, lock_timeout), ANSWER_S)
        took = time.monotonic() - began
        if len(batch) >= self._most and took < ANSWER_S / 4:
            self._most = min(MOST_OUTCOMES, self._most * 2)
        for each in batch:
            self._settled(each.job)
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

    def _refused(self, told: Settlement, error: psycopg.Error) -> Settlement | None:
        """What is to be told instead, if anything."""
        job = told.job
        fields = {"event": "trouble", "queue": job.queue, "job_id": job.id, "sqlstate": error.sqlstate}
        is_of_text = (error.sqlstate or "").startswith(("22", "0A"))
        is_too_much = (error.sqlstate or "").startswith("54")
        if (is_of_text or is_too_much) and told.kind == "complete" and '"result"' in told.encoded:
            return self._without_result(job, f"cannot be stored: {error}")
        if is_of_text and (plain := outcome.plain(told.encoded)) != told.encoded:
            # The encoding of the database has not what the error says.
            return Settlement(job, told.kind, plain)
        self._report.log(logging.ERROR, f"the outcome of job {job.id} was refused, and its lease will run out: {error}", **fields)
        self._settled(job)
        return None
