"""jobs_wait: until nothing is left to do, whoever holds it, and without a walk over all that is done."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

NOTE = """
    CREATE TABLE done (n int);
    CREATE FUNCTION note(args jsonb) RETURNS void LANGUAGE sql AS $$INSERT INTO public.done VALUES ((args->>'n')::int)$$;
    SELECT pushy.queue_register('q', 'note(jsonb)')"""
UNFINISHED = "SELECT count(*) FROM pushy_internal.live_job WHERE state <> 's'"


def enqueue(db, n: int) -> int:
    return db.value("SELECT pushy.enqueue('q', jsonb_build_object('n', %s::int))", n)


def passed_over(db) -> None:
    """An executor has taken a job behind those there are, and with it has passed over what is locked of them."""
    db.job_wait(enqueue(db, 0))


def still_waits(db) -> None:
    assert db.value("CALL pushy.jobs_wait('q', '50 ms')") is False


def scans(db) -> int:
    """Walks over the whole table so far. Sessions tell what they did at their end."""
    db.close()
    db.wait_until("SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'")
    return db.value("SELECT seq_scan FROM pg_stat_all_tables WHERE relid = 'pushy_internal.live_job'::regclass")


def test_a_queue_at_rest_is_not_looked_for_among_the_jobs_that_are_done(db):
    db.sql(NOTE)
    with db.connect(autocommit=False) as old:  # no row that it may see is cleaned away
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()")
        db.sql("SELECT count(pushy.enqueue('q', jsonb_build_object('n', n))) FROM generate_series(1, 1000) n")
        db.jobs_wait("q")
        before = scans(db)
        for _ in range(20):
            db.jobs_wait("q")
        # A sweep, once a minute, is a reason to look.
        assert scans(db) <= before + 2
    assert db.value(UNFINISHED) == 0


def locked_and_passed_over(db, holder, lock: str) -> int:
    db.sql(NOTE)
    db.sql("SELECT pushy.queue_pause('q')")
    job = enqueue(db, 1)
    holder.execute(lock, (job,))
    db.sql("SELECT pushy.queue_resume('q')")
    passed_over(db)
    return job


def test_a_job_that_executors_passed_over_is_waited_for_until_its_cancel_is_rolled_back_and_it_has_run(db):
    with db.connect(autocommit=False) as holder:
        locked_and_passed_over(db, holder, "SELECT pushy.job_cancel(%s)")
        still_waits(db)
        holder.rollback()
    db.jobs_wait("q")
    assert db.value("SELECT array_agg(n ORDER BY n) FROM done") == [0, 1]


def test_a_job_that_somebody_locks_by_hand_is_waited_for(db):
    with db.connect(autocommit=False) as holder:
        job = locked_and_passed_over(db, holder, "SELECT FROM pushy_internal.live_job WHERE id = %s FOR UPDATE")
        still_waits(db)
        holder.rollback()
    assert db.value("SELECT pushy.job_cancel(%s)", job) or db.job(job)["state"] == "completed"  # a sweep may have come first
    db.jobs_wait("q")
    assert db.value(UNFINISHED) == 0


def test_what_waits_for_its_next_attempt_is_waited_for_and_what_is_scheduled_is_not(db):
    db.sql("""
        CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$;
        SELECT pushy.queue_register('tries', 'fails()', max_attempts => 2, retry_delay => '1 hour')""")
    later = db.value("SELECT pushy.enqueue('tries', run_at => now() + interval '1 day')")
    db.jobs_wait("tries")
    job = db.value("SELECT pushy.enqueue('tries')")
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "retryable", params=(job,))
    assert db.value("CALL pushy.jobs_wait('tries', '50 ms')") is False
    db.sql("SELECT pushy.job_retry(%s)", job)
    db.jobs_wait("tries")
    assert [db.job(number)["state"] for number in (later, job)] == ["scheduled", "discarded"]


def test_nothing_is_left_when_it_returns_whatever_others_do_with_the_jobs(db):
    """Jobs that fail and come again, cancels and retries that are rolled back or not, while the queue runs dry."""
    db.sql("""
        CREATE FUNCTION work(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            IF job.attempt < 1 + job.id % 3 THEN RAISE EXCEPTION 'again'; END IF;
        END$$;
        SELECT pushy.queue_register('q', 'work(pushy.job)', max_attempts => 5, retry_delay => '1 ms')""")
    ended = threading.Event()

    def meddle(statement: str, commit: bool) -> None:
        with db.connect(autocommit=False) as session:
            while not ended.is_set():
                session.execute(statement)
                session.commit() if commit else session.rollback()

    cancel = "SELECT pushy.job_cancel(id) FROM (SELECT id FROM pushy_internal.live_job ORDER BY random() LIMIT 1) any_job"
    # Locked first: a job that is finished meanwhile would run again, and be left over with good reason.
    retry = "SELECT pushy.job_retry(id) FROM (SELECT id FROM pushy_internal.live_job WHERE state = 'r' LIMIT 1 FOR UPDATE SKIP LOCKED) waiting"
    with ThreadPoolExecutor() as threads:
        others = [threads.submit(meddle, *args) for args in [(cancel, False), (retry, True)]]
        try:
            for _ in range(40):
                db.sql("SELECT count(pushy.enqueue('q')) FROM generate_series(1, 25)")
                db.jobs_wait("q")
                assert db.value(UNFINISHED) == 0
        finally:
            ended.set()
    for other in others:
        other.result()  # neither has failed, and so left the queue alone


@pytest.mark.parametrize("prepared", [False, True])
def test_a_job_whose_time_has_come_is_waited_for_and_whoever_holds_its_row_is_named(db, prepared):
    """The scheduler has passed over it, so that it is still `scheduled`."""
    db.sql(NOTE)
    job = db.value("SELECT pushy.enqueue('q', '{\"n\": 1}', delay => '500 ms', unique_key => 'k')")
    db.jobs_wait("q")  # it is for later
    with db.connect(autocommit=False) as session:
        assert session.execute("SELECT pushy.enqueue('q', unique_key => 'k')").fetchone() == (job,)
        holder = f"process {session.info.backend_pid}"
        if prepared:
            holder = f"prepared transaction 'holds {db.name}'"
            session.execute(f"PREPARE TRANSACTION 'holds {db.name}'")
        db.wait_until("SELECT run_at < clock_timestamp() - interval '0.5 s' FROM pushy.jobs")
        assert db.value("SELECT state FROM pushy.jobs") == "scheduled"
        still_waits(db)
        db.wait_until_told("q", f"1 due job is locked by {'the transaction of ' if not prepared else ''}{holder}")
        assert "about to" not in db.why("q")
        if prepared:
            db.sql(f"COMMIT PREPARED 'holds {db.name}'")
        else:
            session.commit()
    db.jobs_wait("q")
    assert db.value("SELECT state FROM pushy.jobs") == "completed"


def test_a_job_whose_time_has_come_is_waited_for_though_nothing_runs(make_cluster):
    db = make_cluster({"pushy.enabled": "off"}).database()
    db.sql(NOTE)
    db.sql("SELECT pushy.enqueue('q', '{\"n\": 1}', delay => '1 hour')")
    db.jobs_wait("q")
    db.sql("SELECT pushy.enqueue('q', '{\"n\": 1}', delay => '100 ms')")
    db.wait_until("SELECT min(run_at) < clock_timestamp() FROM pushy.jobs")
    still_waits(db)
    db.cluster.configure(pushy__enabled="on").reload()
    db.jobs_wait("q")
    assert db.rows("SELECT state FROM pushy.jobs ORDER BY run_at") == [("completed",), ("scheduled",)]


def test_whoever_has_waited_for_all_jobs_can_drop_the_queue(make_cluster):
    """Also where a transaction that enqueues has begun to commit and nobody sees its job yet, or no more."""
    db = make_cluster({"synchronous_commit": "local", "synchronous_standby_names": "nobody"}).database()
    db.sql(NOTE)
    with db.connect(autocommit=False) as late, db.connect() as waiter, ThreadPoolExecutor(2) as threads:
        late.execute("SET LOCAL synchronous_commit = on; SELECT pushy.enqueue('q', '{\"n\": 1}')")
        commit = threads.submit(late.commit)
        try:
            db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", 1)
            still_waits(db)
            with pytest.raises(psycopg.errors.ObjectInUse, match="being committed at this moment"):
                db.sql("SELECT pushy.queue_drop('q')")
            waited = threads.submit(lambda: waiter.execute("CALL pushy.jobs_wait('q')").fetchone())
            db.wait_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s" % waiter.info.backend_pid, "Extension")
        finally:
            db.cluster.configure(synchronous_standby_names="").reload()
        commit.result()
        assert waited.result() == (True,)
    db.sql("SELECT pushy.queue_drop('q')")
    assert db.value("SELECT count(*) FROM done") == 1


def test_a_job_is_waited_for_where_no_launcher_has_been_since_the_server_started(make_cluster):
    db = make_cluster().database()
    db.sql(NOTE)
    db.sql("SELECT pushy.queue_pause('q')")
    job = enqueue(db, 1)
    db.cluster.configure(pushy__enabled=False).restart()
    before = time.monotonic()
    assert db.value("SELECT state FROM pushy.job_wait(%s, '500 ms')", job) == "available"
    assert time.monotonic() - before >= 0.5
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(db.connect().execute, "SELECT state FROM pushy.job_wait(%s, '60 s')", (job,))
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%60 s%' AND wait_event_type = 'Extension'", 1)
        db.cluster.configure(pushy__enabled=True).reload()
        db.sql("SELECT pushy.queue_resume('q')")
        assert waiting.result().fetchone() == ("completed",)
