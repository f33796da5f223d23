"""Locks and lost races in a batch: the first job may wait, later ones are put off, and nobody is charged for waiting."""

from stage.batches import count_runs_of, enqueue, runs_of, states
from harness.gate import Gate

# Longer than a later job of a batch may wait: who waits so long is the first.
WAITS_PATIENTLY = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND waitstart < clock_timestamp() - interval '300 ms')"


def rows(db, count: int) -> None:
    db.sql("CREATE TABLE counter (id int PRIMARY KEY, hits int NOT NULL)")
    db.sql("INSERT INTO counter SELECT n, 0 FROM generate_series(1, %s) n", count)


def test_a_job_that_meets_a_lock_is_put_off_uncharged_and_waits_as_the_first_of_a_batch(db):
    locked = (60, 120, 180)
    rows(db, 200)
    count_runs_of(db, *locked)
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM public.ran((args->>'n')::int);
            UPDATE public.counter SET hits = hits + 1 WHERE id = (args->>'n')::int;
        END $$;
        SELECT pushy.queue_register('q', 'work(jsonb)', concurrency => 1, max_attempts => 1)""")
    holders = {}
    for n in locked:
        holders[n] = db.connect(autocommit=False)
        holders[n].execute("UPDATE counter SET hits = 0 WHERE id = %s", (n,))
    enqueue(db, 200)
    for n in locked:
        db.wait_until(WAITS_PATIENTLY)
        assert db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'") == n - 1, "order was lost"
        holders[n].commit()
        db.wait_until("SELECT hits FROM counter WHERE id = %s", 1, params=(n,))
    db.jobs_wait("q")
    assert db.value("SELECT count(*) FROM counter WHERE hits = 1") == 200
    assert db.rows("SELECT * FROM pushy.failures") == []
    assert sum(runs_of(db, n) for n in locked) > 3, "nobody was put off: each was the first of its batch"


def test_jobs_behind_one_that_waits_for_a_lock_are_done_by_other_executors(db):
    rows(db, 200)
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS
            $$UPDATE public.counter SET hits = hits + 1 WHERE id = (args->>'n')::int$$;
        SELECT pushy.queue_register('q', 'work(jsonb)', max_attempts => 1)""")
    with db.connect(autocommit=False) as session:
        session.execute("UPDATE counter SET hits = 0 WHERE id = 60")
        enqueue(db, 200)
        db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'", 199)
        session.commit()
    db.jobs_wait("q")
    assert states(db) == {"completed": 200}
    assert db.value("SELECT count(*) FROM counter WHERE hits = 1") == 200
    assert db.rows("SELECT * FROM pushy.failures") == []


def test_jobs_of_two_executors_that_write_the_same_rows_charge_nobody(db):
    """Alone, a job writes one row and cannot deadlock; in batches it could."""
    rows(db, 5)
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS
            $$UPDATE public.counter SET hits = hits + 1 WHERE id = 1 + (args->>'n')::int * 7919 % 5$$;
        SELECT pushy.queue_register('q', 'work(jsonb)', max_attempts => 1)""")
    enqueue(db, 400)
    db.jobs_wait("q", deadline=60)
    assert states(db) == {"completed": 400}, db.rows("SELECT DISTINCT sqlstate, message FROM pushy.failures")
    assert db.value("SELECT sum(hits) FROM counter") == 400


def test_the_victim_of_a_deadlock_is_charged_and_done_at_its_next_attempt(db):
    rows(db, 2)
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE public.counter SET hits = hits + 1 WHERE id = (args->>'first')::int;
            PERFORM {gate.stop};
            UPDATE public.counter SET hits = hits + 1 WHERE id = 3 - (args->>'first')::int;
        END $$;
        SELECT pushy.queue_register('q', 'work(jsonb)', retry_delay => '10 ms')""")
    db.sql("SELECT pushy.enqueue('q', '{\"first\": 1}'), pushy.enqueue('q', '{\"first\": 2}')")
    gate.wait_for_arrival(2)
    gate.open()
    db.jobs_wait("q")
    assert db.rows("SELECT sqlstate, attempt FROM pushy.failures") == [("40P01", 1)]
    assert db.rows("SELECT hits FROM counter") == [(2,), (2,)]


def test_a_serialization_failure_is_charged_and_tried_again_alone(db):
    db.sql("""
        CREATE TABLE effects (job bigint);
        CREATE FUNCTION work(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.effects VALUES (job.id);
            IF (job.args->>'n')::int % 40 = 0 AND job.attempt = 1 THEN
                RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001';
            END IF;
        END $$;
        SELECT pushy.queue_register('q', 'work(pushy.job)', retry_delay => '10 ms', concurrency => 1)""")
    jobs = enqueue(db, 200)
    db.jobs_wait("q")
    assert db.rows("SELECT job_id, attempt, sqlstate FROM pushy.failures ORDER BY job_id") == \
        [(job, 1, "40001") for job in jobs[39::40]]
    assert db.rows("SELECT job FROM effects ORDER BY job") == [(job,) for job in jobs]


def test_a_lock_that_a_handler_will_not_wait_for_is_charged_to_it(db):
    db.sql("""
        CREATE TABLE busy (n int);
        CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$BEGIN LOCK TABLE public.busy NOWAIT; END$$;
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1, concurrency => 1)""")
    with db.connect(autocommit=False) as session:
        session.execute("LOCK TABLE busy")
        enqueue(db, 20)
        db.jobs_wait("q")
    assert states(db) == {"discarded": 20}
    assert db.rows("SELECT DISTINCT sqlstate, attempt FROM pushy.failures") == [("55P03", 1)]


def test_one_job_at_a_time_means_in_strict_order(db):
    """Four executors are at hand, kept by another queue; the jobs of this one still come one after another."""
    gate = Gate(db)
    db.sql(f"""
        CREATE TABLE effects (place bigserial, job bigint);
        CREATE FUNCTION work(job pushy.job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.effects (job) VALUES (job.id)';
        CREATE FUNCTION crowd() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;
        SELECT pushy.queue_register('crowd', 'crowd()', batch => false),
               pushy.queue_register('q', 'work(pushy.job)', concurrency => 1), pushy.queue_pause('q')""")
    db.sql("SELECT pushy.enqueue_many('crowd', array_fill('1'::jsonb, ARRAY[4]))")
    gate.wait_for_arrival(4)
    jobs = enqueue(db, 400)
    db.sql("SELECT pushy.queue_resume('q')")
    gate.open()
    db.jobs_wait("q")
    assert db.rows("SELECT job FROM effects ORDER BY place") == [(job,) for job in jobs]
