"""The life of a job with a worker outside: what its handler says, and what the server then knows."""

import asyncio
import contextlib
import datetime
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest
from server import Database, eventually

import pushy
from pushy.link import Link


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_job_is_run_and_its_result_kept(db: Database, start, kind: str) -> None:
    db.queue()
    worker = pushy.Worker(db.conninfo)
    if kind == "async":

        @worker.handler("q")
        async def handle(job: pushy.Job) -> dict[str, int]:
            assert isinstance(job.enqueued_at, datetime.datetime) and job.attempt == 1 and job.queue == "q"
            return {"doubled": job.args["n"] * 2}

    else:

        @worker.handler("q")
        def handle_sync(job: pushy.Job) -> dict[str, int]:
            return {"doubled": job.args["n"] * 2}

    start(worker)
    assert db.reaches(db.enqueue({"n": 21}), "completed")["result"] == {"doubled": 42}


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_words_end_the_attempt_however_deep_they_are_said(db: Database, start, kind: str) -> None:
    db.queue(max_attempts=1)
    worker = pushy.Worker(db.conninfo)
    snoozed_once: set[int] = set()

    def deep(job: pushy.Job) -> None:
        try:
            match job.args["word"]:
                case "snooze":
                    if job.id not in snoozed_once:
                        snoozed_once.add(job.id)
                        job.snooze(0.2, "later")
                case "discard":
                    job.discard("no use")
                case "retry_in":
                    job.retry_in(datetime.timedelta(seconds=100), "not now")
                case "swallowed":
                    with contextlib.suppress(BaseException):
                        job.discard("no use")
        except Exception as error:
            raise AssertionError("a word is no Exception") from error

    if kind == "async":

        @worker.handler("q")
        async def handle(job: pushy.Job) -> None:
            await asyncio.sleep(0)
            deep(job)

    else:
        worker.handler("q")(deep)

    start(worker)
    snoozed = db.reaches(db.enqueue({"word": "snooze"}), "completed")
    assert snoozed["attempt"] == 1 and len(snoozed_once) == 1
    assert db.reaches(db.enqueue({"word": "discard"}), "discarded")["last_error"] == "no use"
    assert db.reaches(db.enqueue({"word": "swallowed"}), "discarded")["last_error"] == "no use"
    db.queue(max_attempts=2)
    later = db.enqueue({"word": "retry_in"})
    assert db.reaches(later, "retryable")["last_error"] == "not now"
    assert 95 < db.value("SELECT extract(epoch FROM run_at - now())::float8 FROM pushy.jobs WHERE id = %s", later) <= 100


def test_what_a_handler_raises_is_kept_and_retried(db: Database, start) -> None:
    db.queue(max_attempts=2, retry_delay="0 s")
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q")
    async def handle(job: pushy.Job) -> object:
        match job.args["how"]:
            case "sql":
                async with await psycopg.AsyncConnection.connect(db.conninfo) as connection:
                    await connection.execute("SELECT 1 / 0")
            case "text":
                raise ValueError("bad \0 text \ud800" + "x" * 5000)
            case "exit":
                raise SystemExit(3)
        return None

    start(worker)
    sql, text, leaves = (db.enqueue({"how": how}) for how in ("sql", "text", "exit"))
    failed = db.reaches(sql, "discarded")
    assert failed["attempt"] == 2 and failed["last_sqlstate"] == "22012" and "division by zero" in failed["last_error"]
    assert "SELECT 1 / 0" in failed["last_detail"] and len(failed["last_detail"]) <= 8000
    failed = db.reaches(text, "discarded")
    assert failed["last_error"].startswith("ValueError: bad \\0 text ?") and len(failed["last_error"]) == 1000
    assert "SystemExit" in db.reaches(leaves, "discarded")["last_error"]


class Unsaid:
    def __repr__(self) -> str:
        raise RuntimeError("no")


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)

NO_RESULT: dict[str, tuple[object, str]] = {
    "an object": (object(), "not JSON serializable"),
    "one that raises": (Unsaid(), "not JSON serializable"),
    "a date": (datetime.datetime.now(), "not JSON serializable"),
    "a function": (print, "not JSON serializable"),
    "no number": (float("nan"), "Out of range float"),
    "infinity within": ({"n": [float("inf")]}, "Out of range float"),
    "a circle": (CIRCLE, "Circular reference"),
    "U+0000": ("\0", "cannot be stored"),
    "half of a pair": ("\ud800", "surrogates not allowed"),
}


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_result_that_is_no_json_is_not_kept_and_its_job_not_run_again(db: Database, start, caplog, kind: str) -> None:
    db.queue(max_attempts=3, retry_delay="0 s")
    worker = pushy.Worker(db.conninfo)
    ran: list[str] = []

    def handle_sync(job: pushy.Job) -> object:
        ran.append(job.args)
        return NO_RESULT[job.args][0]

    async def handle(job: pushy.Job) -> object:
        return handle_sync(job)

    worker.handler("q")(handle if kind == "async" else handle_sync)
    jobs = {name: db.enqueue(name) for name in NO_RESULT}
    start(worker)
    for name, job in jobs.items():
        ended = db.reaches(job, "completed")
        assert (ended["attempt"], ended["result"]) == (1, None), name
    assert sorted(ran) == sorted(NO_RESULT)
    for name, (_, why) in NO_RESULT.items():
        said = [record.getMessage() for record in caplog.records if getattr(record, "job_id", None) == jobs[name]]
        said = [line for line in said if "is not kept" in line]
        assert len(said) == 1 and why in said[0], (name, said)


async def work(job: pushy.Job, *rest: object) -> str:
    await asyncio.sleep(0)
    return f"done {job.id}"


async def generate(job: pushy.Job) -> AsyncIterator[int]:
    yield 1


async def forgets_to_await(job: pushy.Job) -> object:
    return work(job)


async def loop_future(job: pushy.Job) -> object:
    return asyncio.ensure_future(work(job))


def traced(function: Callable[[pushy.Job], object]) -> Callable[[pushy.Job], object]:
    @functools.wraps(function)
    def inner(job: pushy.Job) -> object:
        return function(job)

    return inner


class Works:
    work = staticmethod(work)

    async def __call__(self, job: pushy.Job) -> object:
        return await work(job)


@pytest.mark.parametrize(
    "handler",
    [
        traced(work), traced(traced(work)), lambda job: work(job), functools.partial(work), functools.partial(traced(work)),
        Works(), traced(Works()), Works().work, forgets_to_await, traced(forgets_to_await), loop_future,
    ],
)  # fmt: skip
def test_what_a_handler_returns_is_awaited(db: Database, start, handler) -> None:
    db.queue(max_attempts=1)
    worker = pushy.Worker(db.conninfo)
    worker.handler("q")(handler)
    job = db.enqueue()
    start(worker)
    assert db.reaches(job, "completed")["result"] == f"done {job}"


@pytest.mark.parametrize("handler", [traced(generate), lambda job: (n for n in [1]), traced(traced(generate))])
def test_a_generator_behind_a_decorator_fails_its_job(db: Database, start, handler) -> None:
    db.queue(max_attempts=1)
    worker = pushy.Worker(db.conninfo)
    worker.handler("q")(handler)
    job = db.enqueue()
    start(worker)
    assert "whose body nobody runs" in db.reaches(job, "discarded")["last_error"]


def test_a_cancel_reaches_an_async_handler_behind_a_decorator(db: Database, start) -> None:
    db.queue(lease="1 s", max_attempts=1)
    worker = pushy.Worker(db.conninfo)
    heard: list[str | None] = []

    async def handle(job: pushy.Job) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard.append(job.cancel_reason)
            raise

    worker.handler("q")(traced(handle))
    job = db.enqueue()
    start(worker)
    db.reaches(job, "running")
    db.rows("SELECT pushy.job_cancel(%s)", job)
    eventually(lambda: heard, "it is told")
    assert heard == ["lost"]


def test_logs_and_progress_are_kept_with_the_job(db: Database, start) -> None:
    db.queue()
    worker = pushy.Worker(db.conninfo)
    go = threading.Event()

    @worker.handler("q")
    def handle(job: pushy.Job) -> None:
        job.log("begun")
        job.progress(0.5, "half")
        go.wait(10)
        job.log("ending", "warning")

    start(worker)
    job = db.enqueue()
    eventually(lambda: db.job(job)["fraction"], "progress")
    assert (db.job(job)["fraction"], db.job(job)["message"]) == (0.5, "half")
    go.set()
    db.reaches(job, "completed")
    assert db.logged(job) == [("info", "begun"), ("warning", "ending")]


@pytest.mark.parametrize("kind", ["async", "async cursor", "sync", "in a thread"])
def test_what_is_logged_before_complete_is_kept(db: Database, start, caplog, kind: str) -> None:
    db.queue(lease="1 hour")
    worker = pushy.Worker(db.conninfo)

    def say(job: pushy.Job) -> None:
        job.log("ready, \u00e9")
        job.log("last", "warning")

    def handle_sync(job: pushy.Job) -> None:
        job.log("begun")
        with psycopg.connect(db.conninfo) as connection:
            say(job)
            job.complete(connection, 1)

    async def handle(job: pushy.Job) -> None:
        if kind == "sync":
            return handle_sync(job)
        job.log("begun")
        async with await psycopg.AsyncConnection.connect(db.conninfo) as connection:
            say(job)
            done = job.complete(connection if kind == "async" else connection.cursor(), 1)
            assert done is not None
            await done

    worker.handler("q", concurrency=4)(handle_sync if kind == "in a thread" else handle)
    jobs = [db.enqueue() for _ in range(40)]
    start(worker)
    for job in jobs:
        assert (db.reaches(job, "completed")["result"]) == 1
        assert db.logged(job) == [("info", "begun"), ("info", "ready, \u00e9"), ("warning", "last")]
    assert not [record for record in caplog.records if getattr(record, "event", "") == "refused"]


def test_lines_under_way_are_waited_for(db: Database, start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statement with them is held until the completion waits for it: one that overtook it would lose them."""
    db.queue(lease="1 hour")
    worker = pushy.Worker(db.conninfo)
    real, written = Link.fetch, pushy.Worker.written
    under_way, waited_for = threading.Event(), threading.Event()

    def wait(self: pushy.Worker, job: pushy.Job) -> object:
        waited_for.set()
        return written(self, job)

    async def fetch(self: Link, statement: str, parameters: tuple, *rest) -> list:
        if "FROM unnest(%s::text[]" in statement and not waited_for.is_set():
            under_way.set()
            await asyncio.to_thread(waited_for.wait, 5)
        return await real(self, statement, parameters, *rest)

    monkeypatch.setattr(Link, "fetch", fetch)
    monkeypatch.setattr(pushy.Worker, "written", wait)

    @worker.handler("q")
    def handle(job: pushy.Job) -> None:
        job.log("under way")
        assert under_way.wait(10)
        with psycopg.connect(db.conninfo) as connection:
            job.log("with it")
            job.complete(connection)

    job = db.enqueue()
    start(worker)
    db.reaches(job, "completed")
    assert sorted(db.logged(job)) == [("info", "under way"), ("info", "with it")]


def test_lines_of_a_completion_that_is_rolled_back_are_kept(db: Database, start) -> None:
    db.queue(max_attempts=3, retry_delay="0 s", lease="1 hour")
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q")
    def handle(job: pushy.Job) -> None:
        with psycopg.connect(db.conninfo) as connection:
            job.log(f"attempt {job.attempt}")
            job.complete(connection)
            if job.attempt == 1:
                raise RuntimeError("before COMMIT")
        if job.attempt == 2:
            raise RuntimeError("after COMMIT")

    job = db.enqueue()
    thread = start(worker)
    db.reaches(job, "completed")
    worker.stop()
    thread.join(15)
    assert db.logged(job) == [("info", "attempt 1"), ("info", "attempt 2")]


@pytest.mark.parametrize("kind", ["rolled back", "refused"])
def test_lines_are_kept_in_the_order_in_which_they_were_said(db: Database, start, kind: str) -> None:
    db.queue(max_attempts=1, lease="1 hour")
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q")
    def handle(job: pushy.Job) -> None:
        with psycopg.connect(db.conninfo) as connection:
            if kind == "refused":
                with contextlib.suppress(psycopg.Error):
                    connection.execute("SELECT 1 / 0")
            job.log("first")
            with contextlib.suppress(psycopg.errors.InFailedSqlTransaction):
                job.complete(connection)
            job.log("second")
            time.sleep(0.5)  # the settler would have told it
            job.log("third")
            raise RuntimeError("before COMMIT")

    job = db.enqueue()
    thread = start(worker)
    db.reaches(job, "discarded")
    worker.stop()
    thread.join(15)
    assert db.logged(job) == [("info", "first"), ("info", "second"), ("info", "third")]


def test_a_line_after_the_completion_is_said_to_be_too_late(db: Database, start, caplog) -> None:
    db.queue()
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q")
    def handle(job: pushy.Job) -> None:
        with psycopg.connect(db.conninfo) as connection:
            job.complete(connection)
        job.log("too late")

    job = db.enqueue()
    start(worker)
    db.reaches(job, "completed")
    eventually(lambda: [record for record in caplog.records if "log lines came too late" in record.getMessage()], "it is said")
    assert db.logged(job) == []


@pytest.mark.parametrize("kind", ["async", "sync", "dict rows"])
def test_complete_commits_with_the_handlers_own_effects(db: Database, start, kind: str) -> None:
    db.queue(max_attempts=3, retry_delay="0 s")
    db.rows("CREATE TABLE effects (job_id bigint)")
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        if kind == "async":
            async with await psycopg.AsyncConnection.connect(db.conninfo) as connection:
                await connection.execute("INSERT INTO effects VALUES (%s)", (job.id,))
                done = job.complete(connection, {"n": 1})
                assert done is not None
                await done
                if job.attempt == 1:
                    raise RuntimeError("after complete, before COMMIT")
        else:
            rows = psycopg.rows.dict_row if kind == "dict rows" else psycopg.rows.tuple_row
            with psycopg.connect(db.conninfo, row_factory=rows) as plain, plain.cursor() as cursor:
                cursor.execute("INSERT INTO effects VALUES (%s)", (job.id,))
                job.complete(cursor, {"n": 1})
                if job.attempt == 1:
                    raise RuntimeError("after complete, before COMMIT")

    start(worker)
    job = db.reaches(db.enqueue(), "completed")
    assert (job["attempt"], job["result"]) == (2, {"n": 1})
    assert db.value("SELECT count(*) FROM effects") == 1


def test_a_cancel_reaches_the_handler(db: Database, start) -> None:
    db.queue(lease="1 s")
    worker = pushy.Worker(db.conninfo)
    heard: list[str] = []

    @worker.handler("q", concurrency=2)
    async def handle(job: pushy.Job) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            heard.append(f"async {job.cancel_reason}")
            raise

    db.queue("sync", lease="1 s")

    @worker.handler("sync", concurrency=2)
    def handle_sync(job: pushy.Job) -> None:
        while not job.cancelled:
            time.sleep(0.01)
        try:
            job.raise_if_cancelled()
        except pushy.Cancelled:
            heard.append(f"sync {job.cancel_reason}")
            raise

    start(worker)
    jobs = [db.enqueue(), db.enqueue(queue="sync")]
    for job in jobs:
        db.reaches(job, "running")
        assert db.value("SELECT pushy.job_cancel(%s)", job)
    eventually(lambda: len(heard) == 2, f"both hear, {heard}")
    assert sorted(heard) == ["async lost", "sync lost"]
    assert [db.state(job) for job in jobs] == ["cancelled", "cancelled"]


def test_leases_are_extended_while_handlers_run(db: Database, start) -> None:
    db.queue(lease="1 s", max_attempts=1)
    db.queue("own", lease="1 hour", max_attempts=1)
    worker = pushy.Worker(db.conninfo)

    async def handle(job: pushy.Job) -> None:
        await asyncio.sleep(2.5)

    worker.handler("q", concurrency=50)(handle)
    worker.handler("own", concurrency=50, lease=1)(handle)
    start(worker)
    db.enqueue_many(50)
    db.enqueue_many(50, "own")
    eventually(lambda: db.count("completed") == 100, "100 jobs")
    assert db.value("SELECT max(attempt) FROM pushy.jobs") == 1


def test_concurrency_is_filled_and_never_exceeded(db: Database, start, claims) -> None:
    db.queue()
    worker = pushy.Worker(db.conninfo)
    running, most = 0, 0

    @worker.handler("q", concurrency=7, prefetch=5)
    async def handle(job: pushy.Job) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    db.enqueue_many(60)
    start(worker)
    eventually(lambda: db.count("completed") == 60, "60 jobs")
    assert most == 7
    # A claim fills what is free: not one statement for each job.
    assert max(map(len, claims.values())) == 12


def test_a_queue_that_is_idle_is_waited_for_and_its_job_starts_at_once(db: Database, start) -> None:
    db.queue()
    worker = pushy.Worker(db.conninfo)
    started = threading.Event()

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        started.set()

    start(worker)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL pushy.job_claim_wait%%' AND datname = current_database()"
    eventually(lambda: db.value(waiting) == 1, "a waiting connection")
    began = time.monotonic()
    db.enqueue()
    assert started.wait(5)
    assert time.monotonic() - began < 2
