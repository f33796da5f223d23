"""Concurrency is exact, claims never meet, and one queue's slow jobs leave room for another's."""

import pytest

from stage.batches import enqueue
from harness.gate import Gate


@pytest.fixture
def gated(db):
    """A database with a function gated(jsonb) that stops at `gate`."""
    db.gate = Gate(db)
    db.sql(f"CREATE FUNCTION gated(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {db.gate.stop}; END$$")
    return db


@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_as_many_jobs_run_as_the_queue_allows_and_no_more(gated, concurrency):
    gated.sql("SELECT pushy.queue_register('q', 'gated(jsonb)', concurrency => %s, batch => false)", concurrency)
    gated.sql("SELECT pushy.enqueue_many('q', array_fill('1'::jsonb, ARRAY[10]))")
    gated.gate.wait_for_arrival(concurrency)
    assert gated.value("SELECT count(*) FROM pushy.jobs WHERE state = 'running'") == concurrency
    gated.gate.open()
    gated.jobs_wait("q")
    assert gated.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'") == 10


@pytest.mark.parametrize("batch", [True, False])
def test_the_limit_holds_at_every_moment_of_a_flood(db, batch):
    """Each job notes how many run beside it, by try-locks that only running jobs hold."""
    db.sql("""
        CREATE TABLE seen (n int);
        CREATE FUNCTION crowd(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock_shared(77);
            INSERT INTO public.seen SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
        END $$;""")
    db.sql("SELECT pushy.queue_register('q', 'crowd(jsonb)', concurrency => 2, batch => %s)", batch)
    db.sql("SELECT pushy.enqueue_many('q', array_fill('1'::jsonb, ARRAY[400]))")
    db.jobs_wait("q")
    assert db.row("SELECT count(*), max(n) <= 2 AS within FROM seen") == {"count": 400, "within": True}


def test_no_limit_means_as_many_as_there_are_executors(gated):
    gated.sql("SELECT pushy.queue_register('q', 'gated(jsonb)', batch => false)")
    gated.sql("SELECT pushy.enqueue_many('q', array_fill('1'::jsonb, ARRAY[10]))")
    executors = int(gated.value("SHOW pushy.max_executors"))
    gated.gate.wait_for_arrival(executors)
    gated.gate.open()
    gated.jobs_wait("q")


def test_there_are_as_many_executors_as_the_server_has_slots_for(make_cluster):
    db = make_cluster({"max_worker_processes": 84, "pushy.max_executors": 72}).database()
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION gated(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;
        SELECT pushy.queue_register('q', 'gated(jsonb)', batch => false);
        SELECT pushy.enqueue_many('q', array_fill('1'::jsonb, ARRAY[100]))""")
    gate.wait_for_arrival(72)
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'running'") == 72
    # One of those beyond the 64th is struck, and its job comes back.
    job, pid = db.rows("SELECT job_id, pid FROM pushy.workers WHERE job_id IS NOT NULL ORDER BY since DESC LIMIT 1")[0]
    db.sql("SELECT pg_terminate_backend(%s)", pid)
    db.wait_until("SELECT count(*) FROM pushy.workers WHERE pid = %s", 0, params=(pid,))
    gate.open()
    db.jobs_wait("q", 60)
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'") == 100
    assert db.rows("SELECT * FROM pushy.failures") == [] and db.job(job)["state"] == "completed"


def test_a_slow_job_among_quick_ones_leaves_the_rest_to_another_executor(make_cluster):
    """One that is known for quick jobs calls nobody for each that it leaves: it must when one of them is slow."""
    db = make_cluster({"pushy.max_executors": 2}).database()
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION work(args jsonb) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN
            IF args->>'n' = '5' THEN PERFORM {gate.stop}; END IF;
            RETURN pg_backend_pid();
        END $$;
        SELECT pushy.queue_register('q', 'work(jsonb)', batch => false)""")
    gate.open()
    enqueue(db, 200)
    db.jobs_wait("q")
    gate.close()
    db.wait_until("SELECT count(*) FROM pushy.workers WHERE kind = 'executor' AND state = 'idle'", 2)
    slow = enqueue(db, 10)[4]
    gate.wait_for_arrival(1)
    db.wait_until("SELECT array_agg(id) FROM pushy.jobs WHERE state <> 'completed'", [slow])
    gate.open()
    db.jobs_wait("q")


def test_executors_share_a_queue_of_short_jobs_that_does_not_batch(make_cluster):
    db = make_cluster({"pushy.max_executors": 2}).database()
    db.sql("""
        CREATE FUNCTION work() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN pg_backend_pid(); END';
        SELECT pushy.queue_register('q', 'work()', batch => false), pushy.queue_pause('q')""")
    enqueue(db, 20_000)
    db.sql("SELECT pushy.queue_resume('q')")
    db.jobs_wait("q")
    shares = [jobs for jobs, in db.rows("SELECT count(*) FROM pushy.jobs GROUP BY result ORDER BY 1")]
    assert len(shares) == 2 and shares[0] > 2_000, shares


def test_a_raised_limit_is_felt_at_once(gated):
    gated.sql("SELECT pushy.queue_register('q', 'gated(jsonb)', concurrency => 1, batch => false)")
    gated.sql("SELECT pushy.enqueue_many('q', array_fill('1'::jsonb, ARRAY[4]))")
    gated.gate.wait_for_arrival(1)
    gated.sql("SELECT pushy.queue_alter('q', concurrency => 3)")
    gated.gate.wait_for_arrival(3)
    gated.gate.open()
    gated.jobs_wait("q")


def test_a_queue_of_slow_jobs_leaves_room_for_another_queue(gated):
    gated.sql("SELECT pushy.queue_register('slow', 'gated(jsonb)', concurrency => 2, batch => false)")
    gated.sql("""
        CREATE FUNCTION quick() RETURNS void LANGUAGE sql AS 'SELECT';
        SELECT pushy.queue_register('quick', 'quick()')""")
    gated.sql("SELECT pushy.enqueue_many('slow', array_fill('1'::jsonb, ARRAY[10]))")
    gated.gate.wait_for_arrival(2)
    assert gated.job_wait(gated.value("SELECT pushy.enqueue('quick')"))["state"] == "completed"
    gated.gate.open()
    gated.jobs_wait("slow")


def test_a_job_locked_by_somebody_else_does_not_stop_the_others(db):
    """A claim skips what it cannot lock, and finds it again when the lock is gone, also by rollback."""
    db.sql("""
        CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT';
        SELECT pushy.queue_register('q', 'work()'), pushy.queue_pause('q')""")
    held, other = (db.value("SELECT pushy.enqueue('q')") for _ in range(2))
    with db.connect(autocommit=False) as session:
        session.execute("SELECT pushy.job_cancel(%s)", (held,))
        db.sql("SELECT pushy.queue_resume('q')")
        assert db.job_wait(other)["state"] == "completed"
        session.rollback()
    assert db.job_wait(held)["state"] == "completed"


@pytest.mark.parametrize("call", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_queue_of_concurrency_one_keeps_its_order_however_often_its_executor_is_struck(db, call):
    """A job that is given back keeps its place, and nothing behind it starts before it."""
    jobs = 2000
    db.sql("""
        CREATE TABLE ledger (at bigint GENERATED ALWAYS AS IDENTITY, n int);
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_sleep(0.001 * random());
            INSERT INTO public.ledger (n) VALUES ((args->>'n')::int);
        END $$;
        SELECT pushy.queue_register('q', 'work(jsonb)', concurrency => 1)""")
    db.value("SELECT count(*) FROM pushy.enqueue_many('q', (SELECT array_agg(jsonb_build_object('n', n) ORDER BY n) FROM generate_series(1, %s) n))", jobs)
    strikes = 0
    while db.value("SELECT count(*) FROM pushy_internal.live_job"):
        strikes += db.value(f"SELECT count({call}(pid)) FROM pushy.workers WHERE kind = 'executor' AND job_id IS NOT NULL")
        db.sql("SELECT pg_sleep(0.04 + 0.08 * random())")
    assert strikes > 10
    # One that was struck four times in a row is charged, and comes back behind the others.
    assert db.rows("SELECT (args->>'n')::int FROM pushy.jobs WHERE state <> 'completed'") == []
    failed = "SELECT (j.args->>'n')::int FROM pushy.failures f JOIN pushy.jobs j ON j.id = f.job_id"
    order = [n for n, in db.rows(f"SELECT n FROM ledger WHERE n NOT IN ({failed}) ORDER BY at")]
    assert order == sorted(order) and len(set(order)) == len(order) >= jobs - 5
