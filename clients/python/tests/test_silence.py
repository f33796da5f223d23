"""A network or a server that says nothing, and a server that is not there: handlers are told in time, and a worker stops in time."""

import asyncio
import os
import signal
import threading
import time


import psycopg
import pytest
from programs import PATIENCE
from proxy import network
from server import Database, Server, eventually

import pushy
from pushy import puller
from pushy.link import Link, Unreachable

BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pushy worker' AND datname = current_database()"
# psycopg waits five seconds for a server that does not answer its cancel, and then five more for the answer.
SOON = min(PATIENCE, 4.0)


def thread_of(worker: pushy.Worker) -> threading.Thread:
    thread = threading.Thread(target=lambda: asyncio.run(worker.run_async()), daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("what", ["the network", "the backends"])
def test_a_handler_is_told_when_its_lease_is_over(db: Database, server: Server, what: str, kind: str) -> None:
    db.queue(lease="2 s", max_attempts=5)
    told: list[float] = []
    begun = threading.Event()

    async def handle(job: pushy.Job) -> None:
        job.progress(0.5)
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            told.append(time.monotonic())

    def handle_sync(job: pushy.Job) -> None:
        job.progress(0.5)
        begun.set()
        while not job.cancelled:
            time.sleep(0.01)
        told.append(time.monotonic())

    with network(server.folder) as between:
        worker = pushy.Worker(f"host=127.0.0.1 port={between.port} user=postgres dbname={db.name}", grace=0)
        worker.handler("q")(handle if kind == "async" else handle_sync)
        job = db.enqueue()
        thread = thread_of(worker)
        assert begun.wait(15 * PATIENCE)
        eventually(lambda: db.job(job)["fraction"], "whoever extends its lease is connected")
        stopped = []
        try:
            if what == "the network":
                between.silent = True
            else:
                stopped = [pid for (pid,) in db.rows(BACKENDS)]
                for pid in stopped:
                    os.kill(pid, signal.SIGSTOP)
            silent_at = time.monotonic()
            eventually(lambda: told, "it is told")
            assert told[0] - silent_at < 2 + SOON
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        between.silent = False
        worker.stop()
        thread.join(15 * PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("at_work", [False, True])
def test_a_worker_stops_in_time_under_a_silent_network(db: Database, server: Server, caplog, at_work: bool) -> None:
    db.queue(lease="30 s")
    begun = threading.Event()
    with network(server.folder) as between:
        worker = pushy.Worker(f"host=127.0.0.1 port={between.port} user=postgres dbname={db.name}", grace=1 if at_work else 60)

        @worker.handler("q")
        async def handle(job: pushy.Job) -> None:
            begun.set()
            await asyncio.sleep(60)

        if at_work:
            db.enqueue()
        thread = thread_of(worker)
        if at_work:
            assert begun.wait(15 * PATIENCE)
        eventually(lambda: db.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL pushy.job_claim_wait%%'"), "it waits")
        between.silent = True
        began = time.monotonic()
        worker.stop()
        thread.join(60)
        took = time.monotonic() - began
        assert took < (6 if at_work else 2) + SOON / 2
        if at_work:
            assert "the leases of 1 will run out" in caplog.text


@pytest.mark.parametrize("conninfo", ["host=127.0.0.1 port=1", "host={folder} user=postgres dbname=absent"])
def test_a_worker_without_a_server_stops_at_once(server: Server, caplog, conninfo: str) -> None:
    worker = pushy.Worker(conninfo.format(folder=server.folder))

    @worker.handler("q")
    async def handle(job: pushy.Job) -> None:
        pass

    thread = thread_of(worker)
    eventually(lambda: "claiming jobs" in caplog.text, "it has tried")
    began = time.monotonic()
    worker.stop()
    thread.join(60)
    assert time.monotonic() - began < SOON


def test_a_worker_that_is_not_answered_while_it_connects_stops_at_once(db: Database, server: Server) -> None:
    with network(server.folder) as between:
        between.silent = True
        worker = pushy.Worker(f"host=127.0.0.1 port={between.port} user=postgres dbname={db.name}")
        worker.handler("q")(lambda job: None)
        thread = thread_of(worker)
        time.sleep(0.5)
        began = time.monotonic()
        worker.stop()
        thread.join(60)
        assert time.monotonic() - began < SOON


def test_a_worker_that_has_ended_may_be_stopped(db: Database) -> None:
    worker = pushy.Worker("no=such option")
    worker.handler("q")(lambda job: None)
    with pytest.raises(psycopg.ProgrammingError, match="no"):
        worker.run()
    worker.stop()


def test_a_claim_that_is_too_long_for_the_network_asks_for_fewer(db: Database, server: Server, start, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job comes in half a second, ten in five; an answer may take two."""
    monkeypatch.setattr(puller, "ANSWER_S", 2.0)
    db.queue(lease="1 hour", max_attempts=1)
    db.rows("SELECT pushy.enqueue('q', pg_catalog.to_jsonb(pg_catalog.repeat('x', 400000))) FROM generate_series(1, 10)")
    with network(server.folder) as between:
        between.pause = 0.01
        worker = pushy.Worker(f"host=127.0.0.1 port={between.port} user=postgres dbname={db.name}")
        worker.handler("q")(lambda job: None)
        thread = start(worker)
        eventually(lambda: db.count("completed") == 10, "all are done")
        assert "no answer in 2 s" in caplog.text
        between.pause = 0
        worker.stop()
        thread.join(15 * PATIENCE)


def test_one_job_that_is_too_long_for_the_network_is_given_more_time(db: Database, server: Server, start, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in five seconds; an answer may take two."""
    monkeypatch.setattr(puller, "ANSWER_S", 2.0)
    db.queue(lease="1 hour", max_attempts=1)
    db.rows("SELECT pushy.enqueue('q', pg_catalog.to_jsonb(pg_catalog.repeat('x', 4000000)))")
    with network(server.folder) as between:
        between.pause = 0.01
        worker = pushy.Worker(f"host=127.0.0.1 port={between.port} user=postgres dbname={db.name}")
        worker.handler("q", concurrency=1)(lambda job: None)
        thread = start(worker)
        eventually(lambda: db.count("completed") == 1, "it is done")
        assert "one job of queue q was not answered in time" in caplog.text
        between.pause = 0
        worker.stop()
        thread.join(15 * PATIENCE)


@pytest.mark.parametrize("how", ["is too long for the network", "breaks the connection", "is refused for its size"])
def test_a_result_that_never_arrives_is_left_out(db: Database, start, caplog, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    real = Link.fetch

    async def fetch(self: Link, statement: str, parameters, *rest):
        if "jobs_settle(" in statement and "x" * 1_000_000 in parameters[0]:
            self.asked += 1
            if how == "is refused for its size":
                raise psycopg.errors.ProgramLimitExceeded("string too long to represent as jsonb string")
            raise Unreachable("no answer", is_late=how == "is too long for the network")
        return await real(self, statement, parameters, *rest)

    monkeypatch.setattr(Link, "fetch", fetch)
    db.queue(lease="1 hour", max_attempts=1)
    worker = pushy.Worker(db.conninfo)
    worker.handler("q", concurrency=5)(lambda job: "x" * 1_000_000 if job.args == 2 else "short")
    db.enqueue_many(5)
    start(worker)
    eventually(lambda: db.count("completed") == 5, "all are done")
    assert db.rows("SELECT args, attempt FROM pushy.jobs WHERE result IS NULL") == [(2, 1)]
    assert len([record for record in caplog.records if "the result of job" in record.message]) == 1
