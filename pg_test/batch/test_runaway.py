"""Jobs that do not stop when told: interrupted again, ended in the end, and nobody else feels it."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stage.batches import enqueue, states
from harness.gate import Gate
from harness.waiting import wait_for

# Catches every cancel and goes on for ever.
SWALLOWS = """LOOP BEGIN {body}; EXCEPTION WHEN query_canceled THEN END; END LOOP"""


@pytest.fixture
def stubborn(db):
    """Queue `q`: a job with the argument `gate` stops at the gate for ever, whatever it is told; each leaves an effect."""
    db.gate = Gate(db)
    db.sql(f"""
        CREATE TABLE effects (job bigint);
        CREATE FUNCTION work(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.effects VALUES (job.id);
            IF job.args ? 'gate' THEN {SWALLOWS.format(body=f"PERFORM {db.gate.stop}")}; END IF;
        END $$;
        SELECT pushy.queue_register('q', 'work(pushy.job)', retry_delay => '10 ms', max_attempts => 1)""")
    db.started = db.value("SELECT pg_postmaster_start_time()")
    db.since = db.cluster.log.position()
    yield db
    assert "terminated by signal" not in db.cluster.log.since(db.since), "the server crashed"


def log_says_that_it_was_ended(db, job) -> int:
    """Answers the executor's pid: not who comes to the gate first, because a job that is not the first of its batch and has to wait is
    put off, and another may take it."""
    said = db.cluster.log.wait_for(rf"\[(\d+)\] pushy executor LOG:  job {job} did not stop when told: its executor is ended", since=db.since)
    return int(said[1])


def test_a_job_that_swallows_its_timeout_is_ended_with_its_executor_and_charged(stubborn):
    """Those that share its batch are not."""
    db = stubborn
    before = enqueue(db, 30)
    job = db.value("SELECT pushy.enqueue('q', '{\"gate\": true}', timeout => '200 ms')")
    after = enqueue(db, 30)
    db.gate.wait_for_arrival()
    done = db.job_wait(job)
    assert (done["state"], done["attempt"]) == ("discarded", 1)
    assert db.rows("SELECT job_id, attempt, sqlstate, message FROM pushy.failures") == [
        (job, 1, "57014", "the job did not stop when told, and its executor was ended")]
    db.jobs_wait("q")
    assert states(db) == {"completed": 60, "discarded": 1}
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed' AND attempt <> 1") == 0
    assert db.rows("SELECT job FROM effects ORDER BY job") == [(n,) for n in before + after]
    # It hands over what is known of the job before the server takes it off its list.
    pid = log_says_that_it_was_ended(db, job)
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", 0, params=(pid,))


def test_each_attempt_that_swallows_its_timeout_is_charged_until_none_is_left(stubborn):
    job = stubborn.value("SELECT pushy.enqueue('q', '{\"gate\": true}', timeout => '100 ms', max_attempts => 2)")
    done = stubborn.job_wait(job)
    assert (done["state"], done["attempt"]) == ("discarded", 2)
    assert stubborn.value("SELECT count(*) FROM pushy.failures WHERE message LIKE 'the job did not stop when told%'") == 2


@pytest.mark.parametrize("batch", [True, False])
def test_a_job_that_swallows_its_cancel_is_cancelled(stubborn, batch):
    db = stubborn
    db.sql("SELECT pushy.queue_alter('q', batch => %s)", batch)
    job = db.value("SELECT pushy.enqueue('q', '{\"gate\": true}', timeout => '0')")
    db.gate.wait_for_arrival()
    assert db.value("SELECT pushy.job_cancel(%s)", job)
    done = db.job_wait(job)
    assert (done["state"], done["attempt"]) == ("cancelled", 0)
    assert db.rows("SELECT * FROM effects") == []
    log_says_that_it_was_ended(db, job)


def test_a_queue_is_dropped_by_force_under_a_job_that_swallows_its_cancel(stubborn):
    db = stubborn
    job = db.value("SELECT pushy.enqueue('q', '{\"gate\": true}', timeout => '0')")
    db.gate.wait_for_arrival()
    db.sql("SELECT pushy.queue_drop('q', force => true)")
    log_says_that_it_was_ended(db, job)
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0)
    assert db.rows("SELECT * FROM effects") == []


def test_a_shutdown_does_not_wait_for_a_job_that_swallows_its_interrupts(make_cluster):
    cluster = make_cluster()
    db = cluster.database()
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$BEGIN {SWALLOWS.format(body=f"PERFORM {gate.stop}")}; END $$;
        SELECT pushy.queue_register('q', 'work()', timeout => '0'), pushy.enqueue('q')""")
    gate.wait_for_arrival()
    cluster.stop("fast", timeout=20)


# -- a handler that goes on, and ends ----------------------------------------------------------------------------

PYTHON = """
    CREATE EXTENSION plpython3u;
    CREATE TABLE effects (n int);
    CREATE FUNCTION work() RETURNS text LANGUAGE plpython3u AS $$
    for i in range(4):
        try:
            plpy.execute("SELECT pg_sleep(60)")
        except Exception as error:
            plpy.execute("INSERT INTO public.effects VALUES (1)")
    return 'done'
    $$;"""
PLPGSQL = """
    CREATE TABLE effects (n int);
    CREATE FUNCTION work() RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        FOR i IN 1..4 LOOP
            BEGIN
                PERFORM pg_sleep(60);
            EXCEPTION WHEN query_canceled THEN INSERT INTO public.effects VALUES (1);
            END;
        END LOOP;
        RETURN 'done';
    END $$;"""


@pytest.mark.parametrize("language", [PYTHON, PLPGSQL], ids=["plpython", "plpgsql"])
def test_a_handler_that_returns_after_its_timeout_has_struck_is_timed_out_and_not_completed(db, language):
    """It is interrupted again each time that it goes on."""
    db.sql(language)
    db.sql("SELECT pushy.queue_register('q', 'work()', max_attempts => 1, timeout => '200 ms')")
    done = db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    assert (done["state"], done["attempt"]) == ("discarded", 1)
    assert "its timeout is 00:00:00.2" in done["last_error"]
    assert db.rows("SELECT * FROM effects") == []


@pytest.mark.parametrize("ends", ["RETURN", "RAISE EXCEPTION 'something else'"])
def test_a_handler_that_catches_its_cancel_and_ends_is_cancelled_whatever_it_makes_of_it(db, ends):
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM {gate.stop};
        EXCEPTION WHEN query_canceled THEN {ends};
        END $$;
        SELECT pushy.queue_register('q', 'work()', timeout => '0')""")
    job = db.value("SELECT pushy.enqueue('q')")
    gate.wait_for_arrival()
    assert db.value("SELECT pushy.job_cancel(%s)", job)
    assert db.job_wait(job)["state"] == "cancelled"
    assert db.rows("SELECT * FROM pushy.failures") == []


def test_a_cancel_of_its_statement_by_somebody_else_is_a_handlers_to_catch(db):
    """pg_cancel_backend is sent once and no more."""
    gate, second = Gate(db), Gate(db, key=2)
    db.sql(f"""
        CREATE FUNCTION work() RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            BEGIN
                PERFORM {gate.stop};
            EXCEPTION WHEN query_canceled THEN NULL;
            END;
            PERFORM {second.stop};
            RETURN 'went on';
        END $$;
        SELECT pushy.queue_register('q', 'work()', timeout => '1 hour')""")
    job = db.value("SELECT pushy.enqueue('q')")
    (pid,) = gate.wait_for_arrival()
    db.sql("SELECT pg_cancel_backend(%s)", pid)
    second.wait_for_arrival()
    db.wait_until("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND objid = 2 AND waitstart < clock_timestamp() - interval '600 ms')")
    second.open()
    done = db.job_wait(job)
    assert (done["state"], done["attempt"], done["result"]) == ("completed", 1, "went on")


def test_the_job_after_one_that_was_told_again_and_again_is_not_meant(db):
    """Nothing strikes any more once it has ended."""
    db.sql(PLPGSQL)
    db.sql("""
        CREATE FUNCTION quiet() RETURNS text LANGUAGE sql AS $$ SELECT pg_sleep(0.3)::text $$;
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1, timeout => '100 ms', concurrency => 1),
               pushy.queue_register('quiet', 'quiet()', timeout => '1 hour', concurrency => 1)""")
    for _ in range(3):
        db.sql("SELECT pushy.enqueue('q'), pushy.enqueue('quiet'), pushy.enqueue('quiet')")
    db.jobs_wait("q")
    db.jobs_wait("quiet")
    assert (states(db), states(db, "quiet")) == ({"discarded": 3}, {"completed": 6})


# -- what is deferred to the end of a batch ----------------------------------------------------------------------

@pytest.mark.parametrize("goes_on", ["for ever", "to its end"])
def test_a_deferred_trigger_that_swallows_its_timeout_is_its_jobs_failure(db, goes_on):
    gate = Gate(db)
    once = f"BEGIN PERFORM {gate.stop}; EXCEPTION WHEN query_canceled THEN END"
    body = SWALLOWS.format(body=f"PERFORM {gate.stop}") if goes_on == "for ever" else once
    db.sql(f"""
        CREATE TABLE written (n int);
        CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.n = 5 THEN {body}; END IF; RETURN NULL; END$$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION at_commit();
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.written VALUES ((args->>''n'')::int)';
        SELECT pushy.queue_register('q', 'work(jsonb)', max_attempts => 1, timeout => '200 ms', concurrency => 1)""")
    jobs = enqueue(db, 10)
    db.jobs_wait("q", 60)
    assert states(db) == {"completed": 9, "discarded": 1}
    assert db.rows("SELECT job_id, sqlstate FROM pushy.failures") == [(jobs[4], "57014")]
    assert db.rows("SELECT n FROM written ORDER BY n") == [(n,) for n in range(1, 11) if n != 5]


def test_a_job_that_a_worker_outside_has_claimed_since_is_not_charged(stubborn):
    """The executor was ended, somebody holds the row so that nobody can be charged, and the queue has no handler any more."""
    db = stubborn
    job = db.value("SELECT pushy.enqueue('q', '{\"gate\": true}', timeout => '200 ms', max_attempts => 5)")
    db.gate.wait_for_arrival()
    with db.connect(autocommit=False) as holder, ThreadPoolExecutor(1) as pool:
        locks = pool.submit(holder.execute, "SELECT id FROM pushy_internal.live_job WHERE id = %s FOR UPDATE", (job,))
        log_says_that_it_was_ended(db, job)
        locks.result(30)
        db.sql("SELECT pushy.queue_register('q')")
        holder.rollback()
    claimed = wait_for("a claim", lambda: db.rows("SELECT token FROM pushy.job_claim('q', lease => '1 hour')"), lambda rows: rows != [])
    # As long as it takes the scheduler to come back to a job that was held.
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert db.value("SELECT state FROM pushy.jobs WHERE id = %s", job) == "running"
    assert db.value("SELECT pushy.job_complete(%s, %s)", job, claimed[0][0]) is True
    assert db.value("SELECT count(*) FROM pushy_internal.lease") == 0
