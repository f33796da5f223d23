"""Workers outside that die, sleep, come all at once, and servers that go away under them: every job ends, its effects are done once."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from harness.waiting import wait_for
from stage import bouncer, worker_outside
from stage.leases import claim, enqueue, state
from stage.machine import Machine
from stage.waiting_call import WaitingCall

QUEUE = "SELECT pushy.queue_register('mails', retry_delay => '0')"


@pytest.fixture
def mails(db):
    db.sql(QUEUE)
    db.sql("CREATE TABLE ledger (job bigint, token uuid)")
    return db


def worker(db, **said) -> subprocess.Popen:
    environment = {**os.environ, **{name.upper(): str(value) for name, value in said.items()}}
    return subprocess.Popen([sys.executable, Path(worker_outside.__file__), db.dsn()], env=environment, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def assert_done_once(db, jobs: list[int]) -> None:
    assert db.rows("SELECT state, count(*) FROM pushy.jobs GROUP BY state") == [("completed", len(jobs))]
    assert [job for job, in db.rows("SELECT job FROM ledger ORDER BY job")] == jobs
    assert db.value("SELECT count(*) FROM pushy_internal.lease") == 0


@pytest.mark.parametrize("point", worker_outside.POINTS)
def test_workers_that_are_killed_lose_nothing_and_do_nothing_twice(mails, point):
    jobs = enqueue(mails, 8)
    for after in (0, 2):
        killed = worker(mails, dies_at=point, dies_after=after, lease="0.5 s")
        assert killed.wait(60) == -signal.SIGKILL
    # What they held comes back when its lease is over.
    def drain() -> int:
        assert worker(mails, lease="1 min").wait(60) == 0
        return mails.value("SELECT count(*) FROM pushy.jobs WHERE state <> 'completed'")
    wait_for("all jobs to be completed", drain, lambda left: left == 0)
    assert_done_once(mails, jobs)


def test_who_sleeps_through_his_lease_is_refused(mails):
    [job] = enqueue(mails)
    sleeper = worker(mails, lease="0.5 s", stops="1")
    assert sleeper.stdout.readline().split() == ["claimed", str(job)]
    sleeper.send_signal(signal.SIGSTOP)
    mails.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(job,))
    [(again, token)] = claim(mails)
    sleeper.send_signal(signal.SIGCONT)
    sleeper.stdin.write("go on\n")
    sleeper.stdin.flush()
    assert sleeper.stdout.readline().strip() == "refused" and sleeper.wait(30) == 0
    assert mails.value("SELECT count(*) FROM ledger") == 0
    assert mails.value("SELECT pushy.job_complete(%s, %s)", again, token) is True
    assert mails.value("SELECT attempt FROM pushy.jobs WHERE id = %s", job) == 2


def test_two_hundred_who_claim_at_once_get_a_job_each(make_cluster):
    db = make_cluster({"max_connections": 250}).database()
    db.sql(QUEUE)
    jobs = [job for job, in db.rows("SELECT pushy.enqueue_many('mails', array_fill('{}'::jsonb, ARRAY[200]))")]
    gate, found = threading.Barrier(200), []

    def take(session) -> None:
        gate.wait()
        rows = session.execute("SELECT job_id, token FROM pushy.job_claim('mails')").fetchall()
        found.extend(rows)

    threads = [threading.Thread(target=take, args=(db.connect(),)) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job for job, _ in found) == jobs
    assert len({token for _, token in found}) == 200


@pytest.mark.parametrize("limit", [None, 10_000])
def test_a_claim_or_a_wait_beside_others_finds_nothing_only_where_nothing_is_ready(mails, limit):
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => %s)", limit) if limit else None
    count = 600
    mails.sql("SELECT count(*) FROM pushy.enqueue_many('mails', array_fill('{}'::jsonb, ARRAY[%s]))", count)
    gate, calls = threading.Barrier(12), []

    def ask(session, statement: str) -> None:
        gate.wait()
        found = True
        while found:
            began = time.monotonic()
            found = session.execute(statement).fetchone()[0]
            calls.append((began, time.monotonic(), statement, found))

    claims, waits = "SELECT count(*) FROM pushy.job_claim('mails')", "CALL pushy.job_claim_wait('mails', '0')"
    threads = [threading.Thread(target=ask, args=(mails.connect(), statement)) for statement in 9 * [claims] + 3 * [waits]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [began for began, _, statement, found in calls if statement == claims and found]
    assert len(found) == count
    # Who was told that there is nothing was told so after the last of those had come who got something.
    assert [call for call in calls if not call[3] and call[1] < max(found)] == []


@pytest.mark.parametrize("limit", [1, 3])
def test_those_who_claim_at_once_never_hold_more_than_the_limit(mails, limit):
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => %s)", limit)
    jobs = enqueue(mails, 60)
    most, wrong = [], []

    def work() -> None:
        with mails.connect() as session:
            while len(most) < 10_000:
                held = session.execute("SELECT job_id, token FROM pushy.job_claim('mails', 2)").fetchall()
                count = session.execute("SELECT count(*) FROM pushy.leases").fetchone()[0]
                most.append(count)
                if count > limit:
                    wrong.append(count)
                for job, token in held:
                    if session.execute("SELECT pushy.job_complete(%s, %s)", (job, token)).fetchone() != (True,):
                        wrong.append(job)
                if not held and session.execute("SELECT count(*) FROM pushy.jobs WHERE state <> 'completed'").fetchone() == (0,):
                    return

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert mails.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'") == len(jobs)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_workers_of_higher_isolation_levels_do_all_jobs_once(mails, level):
    mails.sql(f"ALTER DATABASE {mails.name} SET default_transaction_isolation = '{level}'")
    jobs, left = [], threading.Event()

    def again(session, work):
        while True:
            try:
                with session.transaction():
                    return work(session)
            except psycopg.errors.SerializationFailure:
                pass

    def enqueuer() -> None:
        with mails.connect() as session:
            for _ in range(40):
                jobs.append(again(session, lambda s: s.execute("SELECT pushy.enqueue('mails')").fetchone()[0]))
        left.set()

    def work() -> None:
        with mails.connect() as session:
            while True:
                is_last = left.is_set()
                held = again(session, lambda s: s.execute("SELECT job_id, token FROM pushy.job_claim('mails', 3)").fetchall())
                for job, token in held:
                    def complete(s):
                        s.execute("INSERT INTO ledger VALUES (%s, %s)", (job, token))
                        assert s.execute("SELECT pushy.job_complete(%s, %s)", (job, token)).fetchone() == (True,)
                    again(session, complete)
                if is_last and not held:
                    return

    threads = [threading.Thread(target=target) for target in (enqueuer, work, work, work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while held := claim(mails):
        for job, token in held:
            mails.sql("INSERT INTO ledger VALUES (%s, %s)", job, token)
            mails.sql("SELECT pushy.job_complete(%s, %s)", job, token)
    assert_done_once(mails, sorted(jobs))


def test_a_snapshot_from_before_a_claim_does_not_make_its_completion_late(mails):
    with mails.connect() as session:
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT count(*) FROM pushy.jobs")
        [job] = enqueue(mails)
        [(_, token)] = claim(mails)
        assert session.execute("SELECT pushy.job_extend(%s, %s)", (job, token)).fetchone() == (True,)
        assert session.execute("SELECT pushy.job_complete(%s, %s)", (job, token)).fetchone() == (True,)
        session.execute("COMMIT")
    assert state(mails, job) == "completed"


@pytest.mark.parametrize("ahead", [-86_400, 86_400])
def test_a_clock_that_is_set_cuts_no_lease_by_more_than_it_was_set_and_keeps_none_for_hours(scratch, monkeypatch, make_cluster, ahead):
    machine = Machine(scratch / f"leases{ahead}", monkeypatch)
    db = make_cluster().database()
    db.sql(QUEUE)
    long, short = enqueue(db, 2)
    [(_, token)] = claim(db, lease="2 days")
    [(_, late)] = claim(db, lease="3 s")
    machine.set_clock_ahead(ahead)
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", 90, params=(short,))
    assert db.value("SELECT pushy.job_complete(%s, %s)", short, late) is False
    assert db.value("SELECT pushy.job_complete(%s, %s)", long, token) is True


@pytest.mark.parametrize("back", [3_600, 86_400])
def test_a_lease_that_was_extended_holds_as_long_as_it_was_said_to_from_a_clock_that_is_set_back(scratch, monkeypatch, make_cluster, back):
    machine = Machine(scratch / f"extended{back}", monkeypatch)
    db = make_cluster().database()
    db.sql(QUEUE)
    [job] = enqueue(db)
    [(_, token)] = claim(db, lease="1 day")
    machine.set_clock_ahead(10_000)
    # The launcher has started an executor, and so has seen what time it is.
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('inside', 'f(jsonb)')")
    assert db.job_wait(db.value("SELECT pushy.enqueue('inside')"))["state"] == "completed"
    assert db.value("SELECT pushy.job_extend(%s, %s, '3 s')", job, token) is True
    machine.set_clock_ahead(10_000 - back)
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", 90, params=(job,))
    assert db.value("SELECT pushy.job_complete(%s, %s)", job, token) is False


def test_a_standby_that_takes_over_knows_the_leases_and_frees_those_of_sessions(make_cluster):
    primary = make_cluster({"wal_level": "replica", "hot_standby": "on"})
    db = primary.database()
    db.sql(QUEUE)
    timed, bound, over = enqueue(db, 3)
    [(_, token)] = claim(db, lease="1 hour")
    session = db.connect()
    [(_, lost)] = session.execute("SELECT job_id, token FROM pushy.job_claim('mails', 1, '0')").fetchall()
    [(_, late)] = claim(db, lease="4 s")
    standby = primary.standby()
    there = db.of(standby)
    target = db.value("SELECT pg_current_wal_flush_lsn()")
    there.wait_until("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", True, params=(target,))
    primary.stop("immediate")
    standby.promote()
    there.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(bound,))
    there.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(over,))
    assert there.rows("SELECT job_id FROM pushy.failures") == [(over,)]
    assert there.value("SELECT pushy.job_complete(%s, %s)", bound, lost) is False
    assert there.value("SELECT pushy.job_complete(%s, %s)", over, late) is False
    assert there.value("SELECT pushy.job_complete(%s, %s)", timed, token) is True


def test_each_call_may_come_by_another_session(mails):
    def once(query: str, *params):
        with mails.connect() as session:
            return session.execute(query, params).fetchall()

    [job] = enqueue(mails)
    [(_, token)] = once("SELECT job_id, token FROM pushy.job_claim('mails', worker => 'w')")
    assert once("SELECT pushy.job_extend(%s, %s, '10 s')", job, token) == [(True,)]
    [(_, token)] = once("SELECT job_id, token FROM pushy.job_claim('mails', worker => 'w')")
    assert once("SELECT pushy.job_complete(%s, %s)", job, token) == [(True,)]


@bouncer.needed
def test_workers_through_pgbouncer_in_transaction_mode(mails):
    jobs = enqueue(mails, 30)

    def work(dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as session:
            while True:
                held = session.execute("SELECT job_id, token FROM pushy.job_claim('mails', 2)").fetchall()
                for job, token in held:
                    with session.transaction():
                        session.execute("INSERT INTO ledger VALUES (%s, %s)", (job, token))
                        assert session.execute("SELECT pushy.job_complete(%s, %s)", (job, token)).fetchone() == (True,)
                if not held and session.execute("CALL pushy.job_claim_wait('mails', '0')").fetchone() == (False,):
                    return

    with bouncer.in_transaction_mode(mails, sessions=2) as dsn:
        threads = [threading.Thread(target=work, args=(dsn,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert_done_once(mails, jobs)


# The job is ready, and its lease still there.
LEFT = "UPDATE pushy_internal.live_job SET state = 'a', position = l.position, leased = NULL FROM pushy_internal.lease l WHERE l.job_id = id"


@pytest.mark.parametrize("worker", ["gone", "another", None])
def test_a_lease_that_is_left_of_a_ready_job_stops_no_claim(mails, worker):
    [job] = enqueue(mails)
    [(_, old)] = claim(mails, lease="1 hour", worker="gone")
    mails.sql(LEFT)
    with mails.connect(autocommit=False) as session:
        # Its rollback announces the job.
        session.execute("SELECT pushy.job_cancel(%s)", (job,))
        session.rollback()
    [(_, token)] = claim(mails, worker=worker)
    assert mails.rows("SELECT job_id, worker FROM pushy.leases") == [(job, worker)]
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, old) is False
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is True
    assert mails.value("SELECT count(*) FROM pushy_internal.lease") == 0


def test_a_lease_that_is_left_of_a_ready_job_charges_nobody_at_its_end(mails):
    [job] = enqueue(mails)
    assert claim(mails, lease="2 s") != []
    mails.sql(LEFT)
    mails.wait_until("SELECT count(*) FROM pushy_internal.lease", 0)
    assert mails.row("SELECT state, attempt FROM pushy.jobs WHERE id = %s", job) == {"state": "available", "attempt": 0}
    assert mails.value("SELECT count(*) FROM pushy.failures") == 0


def test_a_completion_that_is_rolled_back_is_not_measured(mails):
    enqueue(mails)
    [(job, token)] = claim(mails)
    measured = "SELECT wait_p50 IS NOT NULL, run_p50 IS NOT NULL FROM pushy.stats WHERE queue = 'mails'"
    with mails.connect(autocommit=False) as session:
        assert session.execute("SELECT pushy.job_complete(%s, %s)", (job, token)).fetchone() == (True,)
        session.rollback()
        session.execute("SAVEPOINT s")
        assert session.execute("SELECT pushy.job_complete(%s, %s)", (job, token)).fetchone() == (True,)
        session.execute("ROLLBACK TO s")
        session.commit()
    assert mails.rows(measured) == [(False, False)]
    with mails.connect(autocommit=False) as session:
        session.execute("SAVEPOINT s")
        assert session.execute("SELECT pushy.job_complete(%s, %s)", (job, token)).fetchone() == (True,)
        session.execute("RELEASE s")
        session.commit()
    assert mails.rows(measured) == [(True, True)]


def test_a_table_that_is_rewritten_while_a_settlement_waits_takes_no_other_lease(db):
    """VACUUM FULL gets its turn where a lock is given back: what was found before lies elsewhere then."""
    db.sql("SELECT pushy.queue_register('mails'), pushy.queue_register('others')")
    enqueue(db, 30)
    claimed = db.rows("SELECT job_id, token FROM pushy.job_claim('mails', 30, '1 hour') ORDER BY job_id")
    db.sql("SELECT pushy.enqueue('others') FROM generate_series(1, 30)")
    db.sql("SELECT count(*) FROM pushy.job_claim('others', 30, '1 hour')")
    for job, token in claimed[:20]:
        db.sql("SELECT pushy.job_complete(%s, %s)", job, token)
    left = claimed[20:22]
    outcomes = json.dumps([{"job_id": job, "token": str(token), "outcome": "complete"} for job, token in left])
    with db.connect(autocommit=False) as holder:
        holder.execute("SELECT FROM pushy_internal.live_job WHERE id = %s FOR UPDATE", [left[1][0]])
        settling = WaitingCall(db, "SELECT pushy.jobs_settle(%s)", outcomes)
        rewriting = WaitingCall(db, "VACUUM FULL pushy_internal.lease")
        holder.rollback()
    assert settling.ended() == [(2,)]
    rewriting.ended()
    assert db.value("SELECT count(*) FROM pushy_internal.lease WHERE job_id = ANY (%s)", [job for job, _ in left]) == 0
    assert db.rows("SELECT j.id FROM pushy_internal.live_job j WHERE j.state = 'x' AND NOT EXISTS"
                   " (SELECT FROM pushy_internal.lease l WHERE l.job_id = j.id)") == []
    assert db.value("SELECT count(*) FROM pushy.leases WHERE queue = 'others'") == 30


def test_who_asks_again_and_who_settles_lock_in_one_order(db):
    """Places in the queue are in another order than numbers, where a job had a delay."""
    db.sql("SELECT pushy.queue_register('mails')")
    late = db.value("SELECT pushy.enqueue('mails', delay => '1 ms')")
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "available", params=(late,))
    [early] = enqueue(db)
    db.sql("UPDATE pushy_internal.live_job SET position = position + 1000000 WHERE id = %s", late)
    tokens = dict(db.rows("SELECT job_id, token FROM pushy.job_claim('mails', 2, '1 hour', 'w')"))
    assert late < early and list(tokens) == [early, late]
    with db.connect(autocommit=False) as settling:
        settling.execute("SELECT pushy.job_complete(%s, %s)", [late, tokens[late]])
        again = WaitingCall(db, "SELECT job_id FROM pushy.job_claim('mails', 2, '1 hour', 'w')")
        assert settling.execute("SELECT pushy.job_complete(%s, %s)", [early, tokens[early]]).fetchone() == (True,)
        settling.commit()
    assert again.ended() == []


def test_completions_of_many_large_jobs_take_memory_for_some_of_them(db):
    db.sql("SELECT pushy.queue_register('mails')")
    db.sql("SELECT pushy.enqueue('mails', to_jsonb(repeat(md5(n::text), 32768))) FROM generate_series(1, 150) n")
    with db.connect() as session:
        leased = []
        while len(leased) < 150:
            leased += session.execute("SELECT job_id, token FROM pushy.job_claim('mails', 10, '1 hour')").fetchall()
    with db.connect() as session:
        status = Path(f"/proc/{session.info.backend_pid}/status")
        highest = lambda: int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) // 1024  # noqa: E731
        session.execute("SELECT pushy.jobs_settle('[]')")
        before = highest()
        outcomes = json.dumps([{"job_id": job, "token": str(token), "outcome": "complete"} for job, token in leased])
        assert session.execute("SELECT pushy.jobs_settle(%s)", [outcomes]).fetchone() == (150,)
        assert highest() - before < 100, "MB, of 150"
        kept = session.execute("SELECT total_bytes FROM pg_backend_memory_contexts WHERE name = 'pushy jobs done'").fetchone()[0]
        assert kept < 100_000
