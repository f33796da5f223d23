"""A worker: handlers of queues, and the life of the process that runs them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .extender import Extender
from .job import Job
from .link import Link
from .metrics import Metrics
from .outcome import Seconds, seconds
from .puller import Puller
from .report import Report
from .settler import Settler

CANCEL_GRACE_S = 1.0
SETTLE_S = 3.0
CLOSE_S = 1.0
GRACE_S = 24.0  # with the three above less than 30, after which Kubernetes kills

F = TypeVar("F", bound=Callable[[Job], Any])


@dataclass(slots=True, frozen=True)
class Handler:
    queue: str
    function: Callable[[Job], Any]
    is_async: bool
    concurrency: int
    prefetch: int
    lease: float | None


def _takes_a_job(function: object) -> bool:
    """As far as it can be seen: a builtin does not say what it takes."""
    if not callable(function):
        return False
    try:
        signature = inspect.signature(function)
    except ValueError:
        return True
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True


def _is(kind: Callable[[object], bool], function: Callable[[Job], Any]) -> bool:
    """Of a function, or of an object that is called like one."""
    return kind(function) or kind(getattr(function, "__call__", None))


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Worker:
    """Runs handlers for the jobs of one database.

    conninfo    as libpq takes it; what it leaves out comes from the environment
    grace       seconds that handlers have to end after SIGTERM or stop(); then they are cancelled and their jobs released
    metrics     called with what happened: see pushy.Metrics
    logger      the logger "pushy" if left out

    It opens two connections, and one for each queue.
    """

    def __init__(
        self,
        conninfo: str = "",
        *,
        grace: Seconds = GRACE_S,
        metrics: Metrics | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self.conninfo = conninfo
        self.report = Report(logger or logging.getLogger("pushy"), metrics)
        self._grace = seconds(grace)
        self._handlers: dict[str, Handler] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stops = 0
        self._stopping: asyncio.Event
        self._hurrying: asyncio.Event
        self.settler: Settler
        self.extender: Extender

    def handler(self, queue: str, *, concurrency: int = 10, prefetch: int = 0, lease: Seconds | None = None) -> Callable[[F], F]:
        """Registers a function for a queue: `async def`, which runs in the worker's event loop, or `def`, which runs in a thread.

        What can be awaited of what it returns is awaited, in the loop: an `async def` behind a decorator is run, too.

        concurrency how many run at a time in this process
        prefetch    how many more are claimed and wait here, for queues of very short jobs
        lease       how long a job is the worker's if it dies, extended while the handler runs; as the queue says if left out
        """
        if not isinstance(queue, str) or not queue:
            raise TypeError(f"a handler has the name of a queue, @worker.handler('mails') for instance, not {queue!r}")
        if not all(isinstance(number, int) for number in (concurrency, prefetch)):
            raise TypeError(f"concurrency and prefetch are whole numbers, not {concurrency!r} and {prefetch!r}")
        if concurrency < 1 or prefetch < 0:
            raise ValueError(f"concurrency is at least 1 and prefetch at least 0, not {concurrency} and {prefetch}")
        lease_s = None if lease is None else seconds(lease)
        if lease_s == 0:
            raise ValueError("a lease of 0 ends with the connection that claimed it, which a worker shares: leave it out or make it longer")
        if queue in self._handlers:
            raise ValueError(f'queue "{queue}" has a handler already, {self._handlers[queue].function!r}')

        def register(function: F) -> F:
            if not _takes_a_job(function):
                raise TypeError(f"a handler is a function that is called with the job, def handle(job: pushy.Job) for instance, not {function!r}")
            if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
                raise TypeError(f"a handler returns, and does not yield, because nobody would run the body of its generator: {function!r}")
            is_async = _is(inspect.iscoroutinefunction, function)
            self._handlers[queue] = Handler(queue, function, is_async, concurrency, prefetch, lease_s)
            return function

        return register

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT; a second one gives the handlers no more time."""
        if _is_in_a_loop():
            raise RuntimeError("an event loop is running here: await worker.run_async() instead of worker.run()")
        # Not asyncio.run, because that would wait for handlers that do not heed their cancellation.
        loop = asyncio.SelectorEventLoop() if sys.platform == "win32" else asyncio.new_event_loop()
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                try:
                    loop.add_signal_handler(number, self.stop)
                except NotImplementedError:
                    signal.signal(number, lambda *_: self.stop())
            loop.run_until_complete(self.run_async())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def stop(self) -> None:
        """Lets the worker end: no more claims, and the handlers have their grace. Of any thread; called again, they have none."""
        self._stops += 1
        self.call(self._stop)

    def _stop(self) -> None:
        if self._stops > 0:
            self._stopping.set()
        if self._stops > 1:
            self._hurrying.set()

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Of any thread: calls a function in the worker's loop, which may be closed already."""
        if self._loop is None:
            return  # a thread that was abandoned
        try:
            inside = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            inside = False
        if inside:
            function(*arguments)
            return
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # closed meanwhile

    def written(self, job: Job) -> concurrent.futures.Future[None]:
        """Of any thread: done when no line of the job is under way."""
        loop = self._loop
        if loop is None:
            raise RuntimeError("the worker has ended")
        waiting = self.settler.written(job)
        try:
            return asyncio.run_coroutine_threadsafe(waiting, loop)
        except RuntimeError:
            waiting.close()
            raise

    async def run_async(self) -> None:
        """As run, within a program's own event loop and without handling signals: call stop() instead."""
        if not self._handlers:
            raise RuntimeError("a worker has at least one handler: register it with @worker.handler(queue)")
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        links = [Link(self.conninfo), Link(self.conninfo)]
        self.extender = Extender(links[1], self.report)
        self.settler = Settler(links[0], self.report, self.extender.let_go)
        pullers = [Puller(self, handler) for handler in self._handlers.values()]
        self._loop = asyncio.get_running_loop()
        self._stop()
        services: list[asyncio.Task[Any]] = [asyncio.create_task(self.settler.run()), asyncio.create_task(self.extender.run())]
        pulling: list[asyncio.Task[Any]] = [puller.start() for puller in pullers]
        self.report.log(logging.INFO, f"working for {', '.join(self._handlers)}", event="working")
        stopping: asyncio.Task[Any] = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopping, *services, *pulling], return_when=asyncio.FIRST_COMPLETED)
            await self._end(pullers)
        finally:
            self.extender.end()
            # First, because a task that is cancelled in the midst of a statement waits for the server.
            ends = [*(puller.end() for puller in pullers), *(link.end() for link in links)]
            await asyncio.wait([asyncio.create_task(end) for end in ends], timeout=CLOSE_S / 2)
            for task in (stopping, *services, *pulling):
                task.cancel()
            await asyncio.wait([stopping, *services, *pulling], timeout=CLOSE_S / 2)
            self._loop = None
            self._stops = 0
        for task in (*services, *pulling):
            # None ends by itself, but by a fault of this library.
            if task.done() and not task.cancelled():
                task.result()

    async def _end(self, pullers: list[Puller]) -> None:
        self.report.log(logging.INFO, "stopping", event="stopping")
        for puller in pullers:
            puller.stop()
        drained: asyncio.Task[Any] = asyncio.create_task(self._drained(pullers))
        hurrying: asyncio.Task[Any] = asyncio.create_task(self._hurrying.wait())
        await asyncio.wait([drained, hurrying], timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not drained.done():
            for puller in pullers:
                for job in list(puller.running):
                    job.cancel("stopping")
            await asyncio.wait([drained], timeout=CANCEL_GRACE_S)
            for puller in pullers:
                puller.abandon()
            drained.cancel()
        try:
            async with asyncio.timeout(SETTLE_S):
                await self.settler.drained()
        except TimeoutError:
            left = self.settler.left()
            why = f"all outcomes were settled; the leases of {left} will run out" if left else "all log lines were kept"
            self.report.log(logging.ERROR, f"stopped before {why}", event="stopped")
        else:
            self.report.log(logging.INFO, "stopped", event="stopped")

    async def _drained(self, pullers: list[Puller]) -> None:
        for puller in pullers:
            await puller.drained()
