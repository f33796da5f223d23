"""Workers that die, sleep, or lose their connection; and a server that goes away."""

import asyncio
import logging
import random
import re
import signal
import threading
import time

import psycopg
import pytest
from programs import PATIENCE
from server import Database, Server, eventually

import pushy
from pushy.link import Link, Unreachable


def lose_one_answer(monkeypatch: pytest.MonkeyPatch, call: str) -> list:
    """The first answer with something in it to a statement with this call does not arrive: its parameters are then in the list."""
    real, lost = Link.fetch, []

    async def fetch(self: Link, statement: str, parameters, *rest):
        rows = await real(self, statement, parameters, *rest)
        if call in statement and rows and not lost:
            lost.append(parameters)
            await self.close()
            raise Unreachable("the answer was lost")
        return rows

    monkeypatch.setattr(Link, "fetch", fetch)
    return lost


def test_a_lost_answer_to_a_claim_leaves_no_job_to_nobody(db: Database, start, monkeypatch: pytest.MonkeyPatch) -> None:
    db.queue(lease="1 hour")
    worker = pushy.Worker(db.conninfo)
    lost = lose_one_answer(monkeypatch, "job_claim(")

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        pass

    db.enqueue_many(5)
    start(worker)
    eventually(lambda: db.count("completed") == 5, "5 jobs")
    assert db.rows("SELECT DISTINCT attempt FROM pushy.jobs") == [(1,)]
    assert lost and db.value("SELECT given_back FROM pushy.stats WHERE queue = 'q'") == 5


def test_each_claim_has_a_name_of_its_own(db: Database, start, claims) -> None:
    db.queue()
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q", concurrency=2)
    async def handle(job: pushy.Job) -> None:
        pass

    db.enqueue_many(20)
    start(worker)
    eventually(lambda: db.count("completed") == 20, "20 jobs")
    assert max(map(len, claims.values())) == 2 and sum(map(len, claims.values())) == 20


def test_a_lost_answer_to_a_settlement_changes_nothing(db: Database, start, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    db.queue()
    worker = pushy.Worker(db.conninfo)
    lost = lose_one_answer(monkeypatch, "jobs_settle(")

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        pass

    start(worker)
    first = db.enqueue()
    assert db.reaches(first, "completed")["attempt"] == 1
    assert db.reaches(db.enqueue(), "completed")["attempt"] == 1
    # Told again, it came too late, and that is no news.
    assert not [record for record in caplog.records if getattr(record, "event", "") == "refused"]


def test_a_worker_stopped_for_longer_than_its_lease_changes_nothing(db: Database, program) -> None:
    db.queue(lease="1 s", retry_delay="0 s")
    db.rows("CREATE TABLE effects (job_id bigint)")
    sleepy = program("effect", db.conninfo)
    job = db.enqueue({"slow": True})
    assert sleepy.line() == f"started {job} 1"
    # It has stopped itself; when its lease is over, another takes the job.
    other = program("effect", db.conninfo)
    assert other.line() == f"started {job} 2"
    assert db.reaches(job, "completed")["result"] == {"attempt": 2}
    sleepy.signal(signal.SIGCONT)
    # It is alive, and works on: its first job was refused and its effect rolled back.
    other.signal(signal.SIGTERM)
    assert other.ended(10) == 0
    second = db.enqueue()
    assert sleepy.line() == f"started {second} 1"
    db.reaches(second, "completed")
    assert db.rows("SELECT job_id FROM effects ORDER BY 1") == [(job,), (second,)]


def test_killed_workers_lose_and_double_nothing(db: Database, program) -> None:
    db.queue(lease="1 s", retry_delay="0 s")
    db.rows("CREATE TABLE effects (job_id bigint)")
    db.enqueue_many(150)
    victims = [program("effect", db.conninfo, "3") for _ in range(2)]
    for victim in victims:
        for _ in range(20):
            victim.line()
        victim.kill()
    program("effect", db.conninfo, "3")
    eventually(lambda: db.count("completed") == 150, "150 jobs")
    assert db.rows("SELECT count(*), count(DISTINCT job_id) FROM effects") == [(150, 150)]


def test_sigterm_lets_handlers_finish(db: Database, program) -> None:
    db.queue()
    worker = program("sleeper", db.conninfo, "1")
    job = db.enqueue()
    assert worker.line() == f"started {job}"
    worker.signal(signal.SIGTERM)
    assert worker.ended(5) == 0
    assert db.state(job) == "completed"


@pytest.mark.parametrize("kind", ["sleeper", "stubborn"])
def test_sigterm_releases_what_does_not_finish_in_time(db: Database, program, kind: str) -> None:
    db.queue(lease="1 hour")
    worker = program(kind, db.conninfo, *(["60"] if kind == "sleeper" else []), "0.3")
    jobs = [db.enqueue() for _ in range(5)]
    for _ in jobs:
        assert worker.line().startswith("started")
    waiting = db.enqueue()
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.ended(10) == 0
    assert time.monotonic() - began < 6 * PATIENCE
    for job in jobs:
        said = db.job(job)
        assert (said["state"], said["attempt"]) == ("available", 0)
    assert db.job(waiting)["worker"] is None
    if kind == "sleeper":
        assert sorted(worker.line() for _ in jobs) == [f"cancelled {job} stopping" for job in jobs]


def test_a_second_signal_gives_no_more_time(db: Database, program) -> None:
    db.queue()
    worker = program("sleeper", db.conninfo, "60", "60")
    job = db.enqueue()
    worker.line()
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    assert worker.ended(10) == 0
    assert db.job(job)["state"] == "available"


def test_what_was_prefetched_is_released_at_once(db: Database, program) -> None:
    db.queue(lease="1 hour")
    this = pushy.Worker(db.conninfo, grace=0.1)

    @this.handler("q", concurrency=1, prefetch=10)
    async def handle(job: pushy.Job) -> None:
        await asyncio.sleep(30)

    db.enqueue_many(8)
    thread = threading.Thread(target=lambda: asyncio.run(this.run_async()))
    thread.start()
    eventually(lambda: db.count("running") == 8, "8 claimed")
    this.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert db.rows("SELECT state, attempt, count(*) FROM pushy.jobs GROUP BY 1, 2") == [("available", 0, 8)]


def test_a_restart_of_the_server_is_survived(db: Database, server: Server, start, caplog) -> None:
    caplog.set_level(logging.INFO, "pushy")
    db.queue(lease="1 hour")
    worker = pushy.Worker(db.conninfo)
    go = threading.Event()
    runs: list[int] = []

    @worker.handler("q")
    def handle(job: pushy.Job) -> None:
        runs.append(job.id)
        go.wait(20)

    start(worker)
    before = db.enqueue()
    eventually(lambda: runs, "a start")
    server.stop()
    go.set()
    eventually(lambda: any("settling jobs" in record.message for record in caplog.records), "the settlement fails")
    server.start()
    assert db.reaches(before, "completed")["attempt"] == 1
    after = db.enqueue()
    db.reaches(after, "completed")
    assert runs == [before, after]
    assert any(record.message.endswith("works again") for record in caplog.records)


def test_handlers_end_when_the_server_cannot_extend_their_leases(db: Database, server: Server, start) -> None:
    db.queue(lease="1500 ms", max_attempts=5)
    worker = pushy.Worker(db.conninfo)
    heard: list[tuple[str | None, float]] = []

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        began = time.monotonic()
        try:
            await asyncio.sleep(30 if job.attempt == 1 else 0)
        except asyncio.CancelledError:
            heard.append((job.cancel_reason, time.monotonic() - began))
            raise

    start(worker)
    job = db.enqueue()
    db.reaches(job, "running")
    server.stop()
    try:
        eventually(lambda: heard, "the handler is cancelled")
        assert heard[0][0] == "lost" and heard[0][1] < 5
    finally:
        server.start()
    assert db.reaches(job, "completed")["attempt"] == 2


def test_what_cannot_be_claimed_is_said_once_and_not_asked_for_in_a_loop(db: Database, start, caplog) -> None:
    claims = []
    worker = pushy.Worker(db.conninfo, metrics=lambda event, queue, seconds: claims.append((event, queue)))

    @worker.handler("absent")
    async def handle(job: pushy.Job) -> None:
        pass

    db.rows("CREATE ROLE stranger LOGIN")
    try:
        db.queue("closed")
        stranger = pushy.Worker(f"{db.conninfo} user=stranger")
        stranger.handler("closed")(handle)
        start(worker)
        start(stranger)
        time.sleep(1.5)
        said = [record for record in caplog.records if record.name == "pushy" and record.levelno == logging.ERROR]
        assert sorted((record.queue, record.sqlstate) for record in said) == [("absent", "42704"), ("closed", "42501")]
        assert 2 <= claims.count(("backoff", "absent")) <= 6
        db.queue("absent")
        job = db.enqueue(queue="absent")
        db.reaches(job, "completed")
    finally:
        db.rows("DROP OWNED BY stranger")
        db.rows("DROP ROLE stranger")


@pytest.mark.parametrize("lacks", ["the extension", "the schema"])
def test_a_worker_without_the_extension_or_its_schema_is_told_what_it_lacks(db: Database, start, caplog, lacks) -> None:
    db.queue()
    db.rows("CREATE ROLE outsider LOGIN")
    try:
        conninfo = {"the extension": re.sub(r"dbname=\S+", "dbname=postgres", db.conninfo), "the schema": f"{db.conninfo} user=outsider"}[lacks]
        db.rows("REVOKE USAGE ON SCHEMA pushy FROM PUBLIC")
        worker = pushy.Worker(conninfo)

        @worker.handler("q")
        async def handle(job: pushy.Job) -> None:
            pass

        start(worker)
        words = {"the extension": "CREATE EXTENSION pushy", "the schema": "GRANT USAGE ON SCHEMA pushy"}[lacks]
        eventually(lambda: any(words in record.getMessage() for record in caplog.records), words)
    finally:
        db.rows("GRANT USAGE ON SCHEMA pushy TO PUBLIC")
        db.rows("DROP ROLE outsider")


def test_a_wait_that_is_refused_while_claims_are_answered_is_said_once_too(db: Database, start, caplog) -> None:
    caplog.set_level(logging.INFO)
    backoffs = []
    db.queue()
    db.rows("CREATE ROLE half LOGIN")
    db.rows("SELECT pushy.queue_grant('q', 'half', 'claim')")
    db.rows("REVOKE EXECUTE ON PROCEDURE pushy.job_claim_wait FROM PUBLIC")
    try:
        worker = pushy.Worker(f"{db.conninfo} user=half", metrics=lambda event, queue, seconds: backoffs.append(event))

        @worker.handler("q")
        async def handle(job: pushy.Job) -> None:
            pass

        start(worker)
        time.sleep(1.5)
        said = [record.getMessage() for record in caplog.records if record.name == "pushy" and record.levelno >= logging.INFO]
        assert sum("permission denied" in line for line in said) == 1 and not any("works again" in line for line in said), said
        assert 2 <= backoffs.count("backoff") <= 6
        db.rows("GRANT EXECUTE ON PROCEDURE pushy.job_claim_wait TO PUBLIC")
        db.reaches(db.enqueue(), "completed")
        db.reaches(db.enqueue(), "completed")
        eventually(lambda: any("works again" in record.getMessage() for record in caplog.records), "it works again")
    finally:
        db.rows("GRANT EXECUTE ON PROCEDURE pushy.job_claim_wait TO PUBLIC")
        db.rows("DROP OWNED BY half")
        db.rows("DROP ROLE half")


def test_one_outcome_that_is_refused_does_not_hold_up_the_others(db: Database, start) -> None:
    db.queue(max_attempts=1)
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q", concurrency=20)
    async def handle(job: pushy.Job) -> str:
        await asyncio.sleep(0.2)
        return "\0" if job.args == 7 else "fine"

    db.enqueue_many(20)
    start(worker)
    eventually(lambda: db.count("completed") == 20, "all completed")
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE result IS NULL") == 1


def test_a_job_whose_row_a_stranger_has_locked_does_not_hold_up_the_others(db: Database, start) -> None:
    db.queue(lease="3 s", max_attempts=1)
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q", concurrency=40)
    async def handle(job: pushy.Job) -> None:
        await asyncio.sleep(5 if job.args % 2 == 0 else 0.5)

    db.enqueue_many(20)
    start(worker)
    eventually(lambda: db.count("running") == 20, "20 claimed")
    with psycopg.connect(db.conninfo) as stranger:
        # One that is to be settled, and one that is to be extended.
        stranger.execute("SELECT id FROM pushy_internal.live_job WHERE args IN ('7', '8') FOR UPDATE")
        eventually(lambda: db.count("completed") == 18, "18 jobs")
    eventually(lambda: db.count("running") == 0, "both end")


def test_a_claim_that_is_answered_while_the_worker_stops_is_given_back(db: Database, start, monkeypatch: pytest.MonkeyPatch) -> None:
    db.queue(lease="1 hour")
    worker = pushy.Worker(db.conninfo)
    real = Link.fetch

    async def fetch(self: Link, statement: str, parameters, *rest):
        rows = await real(self, statement, parameters, *rest)
        if "job_claim(" in statement and rows:
            worker.stop()
            await asyncio.sleep(0.2)
        return rows

    monkeypatch.setattr(Link, "fetch", fetch)
    started: list[int] = []

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        started.append(job.id)

    db.enqueue_many(3)
    thread = start(worker)
    thread.join(10)
    assert not thread.is_alive() and not started
    assert db.rows("SELECT state, attempt FROM pushy.jobs") == [("available", 0)] * 3
    assert db.value("SELECT given_back FROM pushy.stats WHERE queue = 'q'") == 3


def test_workers_killed_at_any_time_lose_and_double_nothing(db: Database, program) -> None:
    db.queue(lease="1 s", retry_delay="0 s")
    db.rows("CREATE TABLE effects (job_id bigint)")
    db.enqueue_many(200)
    chance = random.Random(17)
    for _ in range(8):
        victim = program("effect", db.conninfo, "4")
        victim.line()
        time.sleep(chance.uniform(0, 0.2))
        victim.kill()
    program("effect", db.conninfo, "4")
    eventually(lambda: db.count("completed") == 200, "200 jobs")
    assert db.rows("SELECT count(*), count(DISTINCT job_id) FROM effects") == [(200, 200)]


def test_serializable_by_default_is_no_obstacle(db: Database, start) -> None:
    db.queue()
    db.rows(f"ALTER DATABASE {db.name} SET default_transaction_isolation = 'serializable'")
    workers = [pushy.Worker(db.conninfo) for _ in range(3)]

    async def handle(job: pushy.Job) -> None:
        pass

    db.enqueue_many(100)
    for worker in workers:
        worker.handler("q", concurrency=5)(handle)
        start(worker)
    eventually(lambda: db.count("completed") == 100, "100 jobs")


def test_a_terminated_connection_is_opened_again(db: Database, start) -> None:
    db.queue()
    worker = pushy.Worker(db.conninfo)

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        pass

    start(worker)
    for _ in range(5):
        db.reaches(db.enqueue(), "completed")
        db.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pushy worker' AND datname = current_database()"
        )
    assert db.value("SELECT max(attempt) FROM pushy.jobs") == 1


def test_a_conninfo_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(psycopg.ProgrammingError):
        Link("no=such option")
