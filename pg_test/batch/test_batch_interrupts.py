"""Timeouts, cancels and terminations: they strike the job they are meant for, and charge only who is to blame."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from stage.batches import count_runs_of, enqueue, runs_of, states
from harness.gate import Gate

GATED = "'{\"n\": 0, \"gate\": true}'"


@pytest.fixture
def gated(db):
    """Queue `q`: its handler counts each run and leaves an effect, then stops at the gate if told so."""
    db.gate = Gate(db)
    count_runs_of(db, 0)
    db.sql(f"""
        CREATE TABLE effects (n int);
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM public.ran((args->>'n')::int);
            INSERT INTO public.effects VALUES ((args->>'n')::int);
            IF args ? 'gate' THEN PERFORM {db.gate.stop}; END IF;
        END $$;
        SELECT pushy.queue_register('q', 'work(jsonb)', retry_delay => '10 ms', concurrency => 1)""")
    return db


def attempts(db, job: int) -> tuple:
    return db.job(job)["attempt"], db.value("SELECT count(*) FROM pushy.failures WHERE job_id = %s", job)


# -- timeouts ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("of", ["queue", "job"])
def test_each_run_over_its_timeout_is_charged(gated, of):
    queues, jobs = ("200 ms", None) if of == "queue" else ("1 hour", "200 ms")
    gated.sql("SELECT pushy.queue_alter('q', timeout => %s::interval)", queues)
    job = gated.value(f"SELECT pushy.enqueue('q', {GATED}, max_attempts => 2, timeout => %s::interval)", jobs)
    done = gated.job_wait(job)
    assert (done["state"], done["attempt"]) == ("discarded", 2)
    assert gated.rows("SELECT sqlstate, message LIKE %s FROM pushy.failures", "%its timeout is 00:00:00.2%") == [("57014", True)] * 2
    assert runs_of(gated, 0) == 2, "a run over its timeout was not charged"
    assert gated.rows("SELECT * FROM effects") == []


def test_a_timeout_of_zero_is_none(gated):
    gated.sql("SELECT pushy.queue_alter('q', timeout => '50 ms')")
    job = gated.value(f"SELECT pushy.enqueue('q', {GATED}, timeout => '0')")
    gated.gate.wait_for_arrival()
    gated.wait_until("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND waitstart < clock_timestamp() - interval '150 ms')")
    gated.gate.open()
    assert gated.job_wait(job)["state"] == "completed"


def test_a_timeout_strikes_one_job_of_a_batch_and_not_its_neighbours(gated):
    gated.sql("SELECT pushy.queue_alter('q', timeout => '200 ms', max_attempts => 1)")
    jobs = enqueue(gated, 40)
    slow = gated.value(f"SELECT pushy.enqueue('q', {GATED})")
    jobs += enqueue(gated, 40)
    gated.jobs_wait("q")
    assert states(gated) == {"completed": 80, "discarded": 1}
    assert gated.rows("SELECT job_id, sqlstate FROM pushy.failures") == [(slow, "57014")]
    assert gated.value("SELECT count(*) FROM effects") == 80


# -- pg_cancel_backend and pg_terminate_backend ------------------------------------------------------------------

@pytest.mark.parametrize("call, sqlstate", [("pg_cancel_backend", "57014"), ("pg_terminate_backend", "57P01")])
def test_an_executor_struck_from_outside_charges_its_job_only_after_three_strikes(gated, call, sqlstate):
    job = gated.value(f"SELECT pushy.enqueue('q', {GATED})")
    (pid,) = gated.gate.wait_for_arrival()
    for strike in (1, 2, 3):
        gated.sql(f"SELECT {call}(%s)", pid)
        gated.wait_until("SELECT last_value FROM runs_0", strike + 1)
        (pid,) = gated.gate.wait_for_arrival()
        assert attempts(gated, job) == (1, 0), f"charged at strike {strike}"
    gated.sql(f"SELECT {call}(%s)", pid)
    gated.wait_until("SELECT last_value FROM runs_0", 5)
    gated.gate.wait_for_arrival()
    assert attempts(gated, job) == (2, 1)
    assert gated.rows("SELECT sqlstate, attempt, started_at < failed_at FROM pushy.failures") == [(sqlstate, 1, True)]
    assert gated.rows("SELECT given_back, failed FROM pushy.stats WHERE queue = 'q'") == [(3, 1)]
    gated.gate.open()
    assert gated.job_wait(job)["state"] == "completed"
    assert gated.value("SELECT count(*) FROM effects") == 1


@pytest.mark.parametrize("call", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_handler_that_strikes_its_own_session_is_discarded_in_the_end(db, call):
    count_runs_of(db, 0)
    db.sql(f"""
        CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM public.ran(0);
            PERFORM {call}(pg_backend_pid());
            LOOP PERFORM 1; END LOOP;
        END $$;
        SELECT pushy.queue_register('q', 'work()', retry_delay => '10 ms', max_attempts => 2)""")
    done = db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    assert (done["state"], done["attempt"]) == ("discarded", 2)
    if call == "pg_terminate_backend":
        assert db.rows("SELECT sqlstate, message FROM pushy.failures") == [("57P01", "the handler ended its own session")] * 2
        assert runs_of(db, 0) == 2
    else:
        # Nobody can tell it from a cancel from outside: each attempt has its strikes.
        assert db.rows("SELECT sqlstate FROM pushy.failures") == [("57014",)] * 2
        assert runs_of(db, 0) <= 2 * 4


def test_a_job_whose_row_a_session_holds_is_charged_for_its_end_before_it_runs_again(gated):
    """The verdict waits for the row, and nobody else waits for the verdict."""
    db = gated
    db.sql("""
        CREATE FUNCTION strike(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN PERFORM public.work(args); PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM 1; END $$;
        CREATE FUNCTION quick() RETURNS void LANGUAGE sql AS '';
        SELECT pushy.queue_register('q', 'strike(jsonb)', retry_delay => '10 ms', max_attempts => 20),
               pushy.queue_register('quick', 'quick()')""")
    job = db.value(f"SELECT pushy.enqueue('q', {GATED})")
    with db.connect(autocommit=False) as session, ThreadPoolExecutor() as other:
        # Once the executor has let go of the row, the session or the verdict has it next. Where it is the verdict, once more.
        for _ in range(19):
            db.gate.wait_for_arrival()
            failed = attempts(db, job)[1]
            held = other.submit(session.execute, "SELECT FROM pushy_internal.live_job WHERE id = %s FOR UPDATE", (job,))
            db.wait_until("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'", 1)
            db.gate.open()
            held.result()
            db.gate.close()
            if attempts(db, job) == (failed, failed):
                break
            session.rollback()
        assert db.job_wait(db.value("SELECT pushy.enqueue('quick')"))["state"] == "completed"
        assert attempts(db, job) == (failed, failed)
        session.rollback()
    db.gate.wait_for_arrival()
    # It runs again, and was charged before.
    assert attempts(db, job)[1] == failed + 1
    assert db.value("SELECT pushy.job_cancel(%s)", job)


def test_a_handler_that_ends_its_session_does_not_stop_the_others(db):
    db.sql("""
        CREATE TABLE effects (job bigint);
        CREATE FUNCTION work(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.effects VALUES (job.id);
            IF (job.args->>'n')::int = 60 THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM 1; END IF;
        END $$;
        SELECT pushy.queue_register('q', 'work(pushy.job)', retry_delay => '10 ms', max_attempts => 2)""")
    jobs = enqueue(db, 120)
    db.jobs_wait("q")
    assert states(db) == {"completed": 119, "discarded": 1}
    assert db.rows("SELECT job_id, attempt FROM pushy.failures ORDER BY attempt") == [(jobs[59], 1), (jobs[59], 2)]
    assert db.rows("SELECT job FROM effects ORDER BY job") == [(job,) for job in jobs if job != jobs[59]]


def test_a_job_taken_over_after_a_termination_does_not_hold_up_those_that_are_due(gated):
    """Another executor has the job of the terminated one at once; the scheduler keeps its times meanwhile."""
    db = gated
    other = Gate(db, key=2)
    db.sql(f"""
        CREATE FUNCTION crowd() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {other.stop}; END$$;
        CREATE FUNCTION quick() RETURNS void LANGUAGE sql AS '';
        SELECT pushy.queue_register('crowd', 'crowd()', batch => false), pushy.queue_register('quick', 'quick()')""")
    db.sql("SELECT pushy.enqueue_many('crowd', array_fill('1'::jsonb, ARRAY[3]))")
    other.wait_for_arrival(3)
    other.open()
    db.jobs_wait("crowd")
    job = db.value(f"SELECT pushy.enqueue('q', {GATED}, timeout => '0')")
    (pid,) = db.gate.wait_for_arrival()
    db.sql("SELECT pg_terminate_backend(%s)", pid)
    db.wait_until("SELECT last_value FROM runs_0", 2)
    db.gate.wait_for_arrival()
    due = db.value("SELECT pushy.enqueue('quick', delay => '300 ms')")
    assert db.job_wait(due)["state"] == "completed"
    db.gate.open()
    assert db.job_wait(job)["state"] == "completed"


# -- job_cancel --------------------------------------------------------------------------------------------------

def test_jobs_claimed_behind_a_running_one_are_cancelled_and_never_run(gated):
    enqueue(gated, 100)
    running = gated.value(f"SELECT pushy.enqueue('q', {GATED})")
    behind = enqueue(gated, 100)
    gated.gate.wait_for_arrival()
    cancelled = behind[::2]
    assert gated.rows("SELECT DISTINCT pushy.job_cancel(id) FROM unnest(%s::bigint[]) id", cancelled) == [(True,)]
    gated.gate.open()
    gated.jobs_wait("q")
    assert states(gated) == {"completed": 151, "cancelled": 50}
    assert gated.rows("SELECT id FROM pushy.jobs WHERE state = 'cancelled' ORDER BY id") == [(job,) for job in cancelled]
    assert gated.value("SELECT count(*) FROM effects") == 151
    assert gated.job(running)["state"] == "completed"


def test_a_cancelled_job_that_was_given_back_runs_nowhere_though_the_scheduler_has_not_come_to_it(make_cluster):
    """Promised while its batch holds it, committed when nobody does, and claimed again before the scheduler looks."""
    db = make_cluster({"pushy.max_executors": 1}).database()
    gate = Gate(db)
    # At the gate without a lock to wait for: a batch puts such a job off.
    db.sql("""
        CREATE TABLE effects (n int);
        CREATE FUNCTION patient(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.effects VALUES ((args->>'n')::int);
            WHILE args ? 'gate' AND NOT pg_try_advisory_xact_lock_shared(1) LOOP PERFORM pg_sleep(0.001); END LOOP;
        END $$;
        SELECT pushy.queue_register('patient', 'patient(jsonb)')""")
    enqueue(db, 300, "patient")
    db.jobs_wait("patient")
    with db.connect(autocommit=False) as enqueuing:
        running = enqueuing.execute(f"SELECT pushy.enqueue('patient', {GATED})").fetchone()[0]
        behind = [job for job, in enqueuing.execute("SELECT pushy.enqueue('patient', '{\"n\": -1}') FROM generate_series(1, 9)")]
        enqueuing.commit()
    # So long that its batch ends with it.
    db.wait_until("SELECT max(job_id) FROM pushy.workers WHERE since < clock_timestamp() - interval '50 ms'", running)
    free = db.rows("SELECT id FROM pushy_internal.live_job WHERE id = ANY (%s) FOR UPDATE SKIP LOCKED", behind)
    cancelled = [job for job in behind if (job,) not in free]
    assert cancelled, "a batch of one"
    with db.connect(autocommit=False) as cancelling, db.connect(autocommit=False) as blocking:
        assert cancelling.execute("SELECT DISTINCT pushy.job_cancel(id) FROM unnest(%s::bigint[]) id", (cancelled,)).fetchall() == [(True,)]
        db.sql("SELECT pushy.queue_pause('patient')")
        gate.open()
        assert db.job_wait(running)["state"] == "completed"
        assert db.value("SELECT count(*) FROM pushy_internal.live_job WHERE id = ANY (%s)", cancelled) == len(cancelled)
        # Whenever the scheduler looks at its times it reads this table: here it stands.
        blocking.execute("LOCK TABLE pushy_internal.oversize_notice")
        db.sql("SELECT pushy.enqueue('patient', '{\"n\": 0}', delay => '1 ms')")
        db.wait_until("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pushy_internal.oversize_notice'::regclass", 1)
        cancelling.commit()
        db.sql("SELECT pushy.queue_resume('patient')")
        db.jobs_wait("patient")
        assert db.rows("SELECT id FROM pushy.jobs WHERE state = 'cancelled' ORDER BY id") == [(job,) for job in cancelled]
        assert db.value("SELECT count(*) FROM effects WHERE n = -1") == len(behind) - len(cancelled)


def test_a_running_job_is_cancelled_and_its_batch_goes_on(gated):
    enqueue(gated, 100)
    running = gated.value(f"SELECT pushy.enqueue('q', {GATED})")
    enqueue(gated, 100)
    gated.gate.wait_for_arrival()
    assert gated.value("SELECT pushy.job_cancel(%s)", running)
    gated.jobs_wait("q")
    assert states(gated) == {"completed": 200, "cancelled": 1}
    assert gated.value("SELECT count(*) FROM effects") == 200
    assert gated.rows("SELECT * FROM pushy.failures") == []


def test_a_cancel_outlives_the_failing_commit_of_its_batch(gated):
    """The batch that was to cancel is rolled back for another's sake; the cancel is not."""
    gated.sql("""
        ALTER TABLE effects ADD CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED;
        SELECT pushy.queue_alter('q', max_attempts => 1)""")
    enqueue(gated, 100)
    running = gated.value(f"SELECT pushy.enqueue('q', {GATED})")
    # Violates the deferred constraint, if it comes into the same batch or alone.
    twice = gated.value("SELECT pushy.enqueue('q', '{\"n\": 1}')")
    cancelled = [gated.value("SELECT pushy.enqueue('q', '{\"n\": %s}'::jsonb)" % n) for n in range(1000, 1020)]
    # It waits a moment in the batch of those before it, and then as the first of its own, with those behind it held.
    gated.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'", 100)
    gated.gate.wait_for_arrival()
    assert gated.rows("SELECT DISTINCT pushy.job_cancel(id) FROM unnest(%s::bigint[]) id", cancelled + [running]) == [(True,)]
    gated.jobs_wait("q")
    assert states(gated) == {"completed": 100, "cancelled": 21, "discarded": 1}
    assert gated.job(twice)["state"] == "discarded"


@pytest.mark.parametrize("when", ["before", "after"])
def test_no_cancel_is_lost_with_its_executor_however_many_there_are(gated, when):
    """Committed before the executor that was to carry them out is terminated, or after it, when nobody holds the jobs."""
    gated.sql("SELECT pushy.queue_pause('q')")  # Enqueued before the first is run: batches grow, and one has them all.
    enqueue(gated, 600)
    running = gated.value(f"SELECT pushy.enqueue('q', {GATED})")
    behind = enqueue(gated, 200)
    gated.sql("SELECT pushy.queue_resume('q')")
    # It waits a moment in the batch of those before it, and then as the first of its own.
    gated.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'", 600)
    (pid,) = gated.gate.wait_for_arrival()
    with gated.connect(autocommit=False) as session:
        session.execute("SELECT pushy.job_cancel(id) FROM unnest(%s::bigint[]) id", (behind,))
        if when == "before":
            session.commit()
        gated.sql("SELECT pushy.queue_pause('q')")
        gated.sql("SELECT pg_terminate_backend(%s, 10000)", pid)
        if when == "after":
            assert states(gated) == {"completed": 600, "available": 201}
            session.commit()
    gated.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'cancelled'", 200)
    gated.gate.open()
    gated.sql("SELECT pushy.queue_resume('q')")
    assert gated.job_wait(running)["state"] == "completed"
    assert states(gated) == {"completed": 601, "cancelled": 200}
    assert gated.value("SELECT count(*) FROM effects") == 601


@pytest.mark.parametrize("undo", ["ROLLBACK", "ROLLBACK TO SAVEPOINT s"])
def test_a_cancel_that_is_rolled_back_cancels_nothing(gated, undo):
    job = gated.value(f"SELECT pushy.enqueue('q', {GATED})")
    waiting = gated.value("SELECT pushy.enqueue('q', '{\"n\": 1}', delay => '1 hour')")
    gated.gate.wait_for_arrival()
    with gated.connect(autocommit=False) as session:
        session.execute("SAVEPOINT s")
        assert session.execute("SELECT pushy.job_cancel(%s), pushy.job_cancel(%s)", (job, waiting)).fetchone() == (True, True)
        session.execute(undo)
        session.commit()
    gated.gate.open()
    assert gated.job_wait(job)["state"] == "completed"
    assert runs_of(gated, 0) == 1
    assert gated.job(waiting)["state"] == "scheduled"


def test_a_cancel_kept_by_a_savepoint_strikes_at_commit(gated):
    job = gated.value(f"SELECT pushy.enqueue('q', {GATED})")
    gated.gate.wait_for_arrival()
    with gated.connect(autocommit=False) as session:
        session.execute("SAVEPOINT s")
        session.execute("SELECT pushy.job_cancel(%s)", (job,))
        session.execute("RELEASE s")
        assert gated.job(job)["state"] == "running"
        session.commit()
    assert gated.job_wait(job)["state"] == "cancelled"
    assert gated.rows("SELECT * FROM effects") == []


def test_a_job_that_has_failed_is_cancelled_while_it_waits(gated):
    gated.sql("SELECT pushy.queue_alter('q', retry_delay => '1 hour', timeout => '50 ms')")
    job = gated.value(f"SELECT pushy.enqueue('q', {GATED})")
    gated.wait_until("SELECT state::text FROM pushy.jobs WHERE id = %s", "retryable", params=(job,))
    assert gated.value("SELECT pushy.job_cancel(%s)", job)
    assert (gated.job(job)["state"], gated.job(job)["attempt"]) == ("cancelled", 1)


# -- progress ----------------------------------------------------------------------------------------------------

def test_the_progress_of_a_running_job_is_seen_at_once_and_gone_with_it(db):
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pushy.job_progress(0.25, 'a quarter, ¼');
            PERFORM {gate.stop};
        END $$;
        SELECT pushy.queue_register('q', 'work()')""")
    job = db.value("SELECT pushy.enqueue('q')")
    (pid,) = gate.wait_for_arrival()
    seen = db.row("SELECT job_id, queue, progress, progress_message FROM pushy.workers WHERE pid = %s", pid)
    assert seen == {"job_id": job, "queue": "q", "progress": 0.25, "progress_message": "a quarter, ¼"}
    gate.open()
    assert db.job_wait(job)["state"] == "completed"
    assert db.row("SELECT job_id, progress, progress_message FROM pushy.workers WHERE pid = %s", pid) == \
        {"job_id": None, "progress": None, "progress_message": None}


def test_a_timeout_of_months_is_not_cut_to_what_a_timer_holds(db):
    """2³¹ ms and 25 days: as a number of 32 bits the one is negative, and the other an instant."""
    db.sql("CREATE FUNCTION work() RETURNS text LANGUAGE sql AS $$ SELECT pg_sleep(0.05)::text || 'done' $$")
    for timeout in ("2147483648 ms", "4294967297 ms", "25 days", "300 days", "100 years"):
        db.sql(f"SELECT pushy.queue_register('q', 'work()', timeout => '{timeout}', max_attempts => 1)")
        assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"] == "done", timeout


def test_a_wait_of_months_ends_when_its_job_does(db):
    db.sql("CREATE FUNCTION work() RETURNS text LANGUAGE sql AS $$ SELECT 'done' $$; SELECT pushy.queue_register('q', 'work()')")
    db.sql("SELECT pushy.enqueue('q')")
    assert db.value("CALL pushy.jobs_wait('q', '300 days')") is True
    assert db.value("SELECT state FROM pushy.jobs") == "completed"
