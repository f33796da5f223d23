"""Jobs that cannot be read, handlers whose errors cannot be told, roles that have set what they like: one job fails, the worker goes on."""

import asyncio
import logging
import time

import pytest
from programs import PATIENCE
from server import Database, Server, eventually

import pushy

# What jsonb may hold: each text is as the server takes it.
STRANGE = {
    "an integer of 5,001 digits": "1e5000",
    "a negative one": '{"n": -1e5000}',
    "the largest": "9.5e131071",
    "the smallest": "1e-16000",
    "the most digits": "1." + "3" * 16000,
    "4,300 digits": "1e4299",
    "nested arrays": "[" * 3000 + "]" * 3000,
    "nested objects": '{"a":' * 2000 + "1" + "}" * 2000,
    "a surrogate pair": '"\\ud83d\\ude00"',
    "controls": '"\\u0001\\u007f\\u2028"',
    "an empty key": '{"": {"": []}}',
    "a key of JavaScript": '{"__proto__": 1, "constructor": 2}',
    "nothing": "null",
    "a long string": '"' + "x" * 1_000_000 + '"',
}


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_job_that_cannot_be_read_fails_and_nothing_else(db: Database, start, kind: str) -> None:
    db.queue(max_attempts=1, lease="1 hour")
    worker = pushy.Worker(db.conninfo)
    seen: dict[int, object] = {}

    def handle_sync(job: pushy.Job) -> None:
        seen[job.id] = job.args

    async def handle(job: pushy.Job) -> None:
        seen[job.id] = job.args

    worker.handler("q", concurrency=50)(handle if kind == "async" else handle_sync)
    jobs = {}
    for name, text in STRANGE.items():
        jobs[name] = int(db.value("SELECT pushy.enqueue('q', %s::text::jsonb)", text))
        db.enqueue({"innocent": name})
    thread = start(worker)
    eventually(lambda: db.count("completed") + db.count("discarded") == 2 * len(STRANGE), "all end")
    assert thread.is_alive()
    states = dict(db.rows("SELECT id, state FROM pushy.jobs"))
    for name, job in jobs.items():
        if job in seen:
            assert states[job] == "completed", name
        else:
            assert states[job] == "discarded" and "cannot be read" in db.job(job)["last_error"], name
    assert {name for name, job in jobs.items() if job not in seen} >= {"an integer of 5,001 digits", "a negative one", "nested arrays"}
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed' AND args ? 'innocent'") == len(STRANGE)


def test_bytes_that_are_no_utf8_reach_the_handler(server: Server, start) -> None:
    with server.database("TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'") as db:
        db.queue(max_attempts=1)
        worker = pushy.Worker(db.conninfo)
        seen: list[bytes] = []

        @worker.handler("q")
        async def handle(job: pushy.Job) -> None:
            seen.append(job.args.encode("utf-8", "surrogateescape"))

        db.value("SELECT pushy.enqueue('q', ('\"caf' || chr(233) || '\"')::jsonb)")
        thread = start(worker)
        eventually(lambda: seen, "it is run")
        assert seen == [b"caf\xe9"]
        eventually(lambda: db.value("SELECT count(*) FROM pushy.jobs WHERE state::bytea = 'completed'"), "it is completed")
        worker.stop()
        thread.join(15)


@pytest.mark.parametrize(
    "setting", ["DateStyle = 'German'", "DateStyle = 'SQL, DMY'", "extra_float_digits = -15", "TimeZone = '<x>+25:30'", "IntervalStyle = 'sql_standard'"]
)
def test_what_a_role_has_set_is_no_obstacle(db: Database, start, setting: str) -> None:
    db.queue(lease="20 s", max_attempts=1)
    db.rows(f"ALTER DATABASE {db.name} SET {setting}")
    worker = pushy.Worker(db.conninfo)
    seen: list[pushy.Job] = []

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        seen.append(job)

    job = db.enqueue()
    start(worker)
    db.reaches(job, "completed")
    assert 15 < seen[0].lease <= 20
    assert abs(seen[0].enqueued_at.timestamp() - time.time()) < 60 * PATIENCE


def test_a_statement_timeout_that_is_shorter_than_a_wait_is_no_trouble(db: Database, start, caplog) -> None:
    db.queue()
    db.rows(f"ALTER DATABASE {db.name} SET statement_timeout = '400ms'")
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        pass

    start(worker)
    for _ in range(3):
        time.sleep(0.8)
        db.reaches(db.enqueue(), "completed")
    assert not [record for record in caplog.records if getattr(record, "event", "") == "trouble" and "claiming" in record.message]


def test_leases_that_end_with_the_session_are_given_back_uncharged(db: Database, start, caplog) -> None:
    db.queue(lease="0 s", max_attempts=1)
    told: list[str] = []
    worker = pushy.Worker(db.conninfo, metrics=lambda event, queue, seconds: told.append(event))

    @worker.handler("q", concurrency=5)
    async def handle(job: pushy.Job) -> None:
        raise AssertionError("it is not this worker's to run")

    db.enqueue_many(5)
    thread = start(worker)
    eventually(lambda: told.count("backoff") >= 3, "it asks again")
    worker.stop()
    thread.join(15)
    assert not thread.is_alive()
    assert db.rows("SELECT state, attempt, count(*) FROM pushy.jobs GROUP BY 1, 2") == [("available", 0, 5)]
    assert db.value("SELECT count(*) FROM pushy.failures") == 0
    said = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len([message for message in said if "end with the connection" in message]) == 1


class Nameless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no name")


def test_an_error_that_cannot_be_told_fails_its_job_and_no_other(db: Database, start) -> None:
    db.queue(max_attempts=1)
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q", concurrency=1, prefetch=10)
    async def handle(job: pushy.Job) -> object:
        await asyncio.sleep(0)
        match job.args:
            case 1:
                raise Nameless
            case 2:
                raise ExceptionGroup("many", [Nameless(), ValueError("x")])
            case 3:

                class Odd(dict):  # type: ignore[type-arg]
                    def items(self) -> object:  # type: ignore[override]
                        raise RuntimeError("no items")

                return Odd(a=1)
            case 4:
                return 10**5000
        return None

    db.enqueue_many(8)
    start(worker)
    eventually(lambda: db.count("completed") + db.count("discarded") == 8, "all end")
    failed = db.rows("SELECT args, last_error FROM pushy.jobs WHERE state = 'discarded' ORDER BY id")
    assert [args for args, _ in failed] == [1, 2]
    assert failed[0][1] == "Nameless, which raises RuntimeError when it is asked what it is"


def test_a_logger_that_raises_loses_no_job(db: Database, start) -> None:
    class Broken(logging.Logger):
        def isEnabledFor(self, level: int) -> bool:
            raise RuntimeError("the disk of the logs is full")

    db.queue(max_attempts=1)
    worker = pushy.Worker(db.conninfo, logger=Broken("broken"))

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        if job.args == 1:
            raise ValueError("one")

    db.enqueue_many(3)
    start(worker)
    eventually(lambda: db.count("completed") == 2 and db.count("discarded") == 1, "all end")


def test_a_line_of_no_level_is_refused_where_it_is_said(db: Database, start) -> None:
    db.queue(max_attempts=1)
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        job.log("kept", "warning")
        job.log("none", "loud")

    start(worker)
    job = db.reaches(db.enqueue(), "discarded")
    assert "'loud'" in job["last_error"]
    assert db.value("SELECT count(*) FROM pushy.job_logs") == 1


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_an_error_that_the_database_cannot_store_fails_its_job(server: Server, start, encoding: str) -> None:
    with server.database(f"TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'") as db:
        db.queue(max_attempts=1)
        worker = pushy.Worker(db.conninfo)

        @worker.handler("q")
        async def handle(job: pushy.Job) -> object:
            if job.args == 1:
                raise ValueError("caf\u00e9 \u6f22")
            return "\u6f22"

        db.enqueue_many(2)
        start(worker)
        ended = "SELECT count(*) FROM pushy.jobs WHERE state::bytea IN ('discarded', 'completed')"
        eventually(lambda: db.value(ended) == 2, "both end")
        assert b"ValueError: caf" in bytes(db.value("SELECT convert_to(last_error, 'SQL_ASCII') FROM pushy.jobs WHERE args = '1'"))
        worker.stop()
