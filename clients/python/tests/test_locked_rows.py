"""Rows of jobs that a stranger has locked, to cancel them for example: the worker's other jobs do not feel it."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from programs import PATIENCE
from server import Database, Server, eventually

import pushy
from pushy.backoff import Backoff
from pushy.stride import Stride


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pause is long, as after many attempts."""
    monkeypatch.setattr(Backoff, "next", lambda self: 60.0)


@contextmanager
def locked(db: Database, condition: str) -> Iterator[None]:
    with psycopg.connect(db.conninfo) as stranger:
        stranger.execute(f"SELECT id FROM pushy_internal.live_job WHERE {condition} FOR UPDATE".encode())
        yield
        stranger.rollback()


@pytest.mark.parametrize("says", ["nothing", "a line"])
def test_outcomes_of_others_are_told_meanwhile(db: Database, start, patient, says: str) -> None:
    db.queue(lease="4 s", max_attempts=3, retry_delay="0 s")
    worker = pushy.Worker(db.conninfo)
    go = threading.Event()

    @worker.handler("q", concurrency=200)
    async def handle(job: pushy.Job) -> None:
        if job.args == 1:
            await asyncio.to_thread(go.wait)
        if says == "a line":
            job.log("done")

    db.enqueue_many(1)
    start(worker)
    eventually(lambda: db.count("running") == 1, "it is claimed")
    with locked(db, "args = '1'"):
        go.set()
        until = time.monotonic() + 8 * PATIENCE
        jobs = 1
        while time.monotonic() < until:
            db.rows("SELECT pushy.enqueue('q', '2')")
            jobs += 1
            time.sleep(0.1)
        eventually(lambda: db.count("completed") == jobs - 1, "the others end")
    assert db.value("SELECT max(attempt) FROM pushy.jobs WHERE args = '2'") == 1
    if says == "a line":
        assert db.value("SELECT count(*) FROM pushy.job_logs l JOIN pushy.jobs j ON j.id = l.job_id WHERE j.args = '2'") == jobs - 1


def test_a_lease_is_extended_until_its_outcome_is_answered(db: Database, start, monkeypatch: pytest.MonkeyPatch) -> None:
    db.queue(lease="2 s", max_attempts=1)
    worker = pushy.Worker(db.conninfo)
    from pushy.settler import Settler

    real, held = Settler._send, threading.Event()

    async def send(self: Settler, *arguments) -> None:
        while not held.is_set():
            await asyncio.sleep(0.01)
        await real(self, *arguments)

    monkeypatch.setattr(Settler, "_send", send)

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        pass

    start(worker)
    job = db.enqueue()
    db.reaches(job, "running")
    time.sleep(5)
    assert db.state(job) == "running"
    held.set()
    assert db.reaches(job, "completed")["attempt"] == 1


def test_what_ends_with_the_worker_is_told(db: Database, start, patient) -> None:
    db.queue(lease="1 hour")
    told: list[str] = []
    worker = pushy.Worker(db.conninfo, metrics=lambda event, queue, seconds: told.append(event))
    ending: set[int] = set()

    @worker.handler("q", concurrency=20)
    async def handle(job: pushy.Job) -> None:
        while job.args not in ending:
            await asyncio.sleep(0.01)

    db.enqueue_many(20)
    thread = start(worker)
    eventually(lambda: db.count("running") == 20, "all are claimed")
    with locked(db, "args = '1'"):
        ending.add(1)
        eventually(lambda: "backoff" in told, "it is busy, and waits")
        ending.update(range(2, 21))
        began = time.monotonic()
        worker.stop()
        thread.join(20)
        assert not thread.is_alive() and time.monotonic() - began < 6 * PATIENCE
        assert db.count("completed") == 19


def test_leases_of_others_are_extended_meanwhile(db: Database, start) -> None:
    db.queue(lease="10 s", max_attempts=1)
    worker = pushy.Worker(db.conninfo)
    go = threading.Event()

    @worker.handler("q", concurrency=100)
    async def handle(job: pushy.Job) -> None:
        while not go.is_set():
            await asyncio.sleep(0.05)

    db.enqueue_many(100)
    start(worker)
    eventually(lambda: db.count("running") == 100, "all are claimed")
    with locked(db, "args <= '40'"):
        time.sleep(15)
        assert db.value("SELECT count(*) FROM pushy.jobs WHERE args > '40' AND state = 'running'") == 60
        go.set()
        eventually(lambda: db.count("completed") == 60, "the others end")


def test_one_among_many_that_are_locked_keeps_its_lease(db: Database, start) -> None:
    """It is the last one that is looked at, and its lease is shorter than twenty milliseconds for each of the others, where the machine is not slow."""
    db.queue(lease=f"{4 * PATIENCE} s", max_attempts=3, retry_delay="0 s")
    worker = pushy.Worker(db.conninfo)
    go = threading.Event()

    @worker.handler("q", concurrency=201)
    async def handle(job: pushy.Job) -> None:
        while not go.is_set():
            await asyncio.sleep(0.05)

    db.enqueue_many(201)
    start(worker)
    eventually(lambda: db.count("running") == 201, "all are claimed")
    with locked(db, "args <> '201'"):
        time.sleep(9 * PATIENCE)
        assert db.rows("SELECT attempt, state FROM pushy.jobs WHERE args = '201'") == [(1, "running")]
        go.set()
        began = time.monotonic()
        eventually(lambda: db.count("completed") == 1, "it ends")
        assert time.monotonic() - began < 3 * PATIENCE


@pytest.mark.parametrize("refused", [set(), {0}, {999}, set(range(0, 1000, 100)), set(range(999)), set(range(1000))])
def test_a_stride_finds_what_is_refused_in_few_statements(refused: set[int]) -> None:
    stride, left, found, statements = Stride(), list(range(1000)), set(), 0
    while left:
        some = left[: stride.of(len(left))]
        statements += 1
        if refused.isdisjoint(some):
            stride.taken(len(some), len(left))
        else:
            stride.refused(len(some))
            if len(some) > 1:
                continue
            found.add(some[0])
        del left[: len(some)]
    assert found == refused
    assert statements <= len(refused) * (1 if len(refused) > 900 else 20) + 25


def test_progress_that_cannot_be_stored_costs_no_lease(server: Server, start) -> None:
    with server.database("TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'") as db:
        db.queue(lease="2 s", max_attempts=3, retry_delay="0 s")
        worker = pushy.Worker(db.conninfo)

        @worker.handler("q", concurrency=10)
        async def handle(job: pushy.Job) -> None:
            if job.args == 1:
                job.progress(0.5, "\u6f22")
            await asyncio.sleep(5)

        db.enqueue_many(5)
        start(worker)
        eventually(lambda: db.count("completed") == 5, "all end")
        assert db.value("SELECT max(attempt) FROM pushy.jobs") == 1
        worker.stop()
