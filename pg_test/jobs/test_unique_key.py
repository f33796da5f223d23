"""Unique keys: of the jobs of a queue and key one waits, whoever asks, however many at once; and none that asks is swallowed."""

import random
import threading

import psycopg
import pytest

from harness.gate import Gate
from harness.waiting import wait_for
from stage.batches import run_while_executors_are


@pytest.fixture
def paused(db):
    """A database with a queue that runs nothing until it is resumed."""
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT args';
        SELECT pushy.queue_register('q', 'work(jsonb)'), pushy.queue_pause('q')""")
    return db


def test_a_second_enqueue_returns_the_job_that_is_already_there(paused):
    first = paused.value("SELECT pushy.enqueue('q', '1', unique_key => 'k')")
    assert paused.value("SELECT pushy.enqueue('q', '2', unique_key => 'k')") == first
    assert paused.rows("SELECT id, args FROM pushy.jobs") == [(first, 1)]


def test_a_job_that_waits_for_its_database_is_not_taken_for_one_that_its_callers_keep_waiting(make_cluster):
    """Else one more came beside it, as where callers one after another hold its row."""
    db = make_cluster().database()
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'work()')")
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    db.sql("ALTER SYSTEM SET pushy.enabled = off")
    db.sql("SELECT pg_reload_conf()")
    db.wait_until("SELECT count(*) FROM pushy.workers WHERE kind <> 'launcher'", 0)
    first = db.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    db.wait_until("SELECT run_at < clock_timestamp() - interval '1.2 s' FROM pushy.jobs WHERE id = %s", True, params=(first,))
    assert db.value("SELECT pushy.enqueue('q', unique_key => 'k')") == first
    db.sql("ALTER SYSTEM RESET pushy.enabled")
    db.sql("SELECT pg_reload_conf()")
    assert db.job_wait(first)["state"] == "completed"


def test_a_key_is_free_again_when_its_job_is_finished(paused):
    paused.sql("SELECT pushy.queue_resume('q')")
    first = paused.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    paused.job_wait(first)
    second = paused.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    assert second != first and paused.job_wait(second)["state"] == "completed"


def test_a_key_is_free_again_when_its_job_is_cancelled(paused):
    first = paused.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    paused.sql("SELECT pushy.job_cancel(%s)", first)
    assert paused.value("SELECT pushy.enqueue('q', unique_key => 'k')") != first


def test_another_queue_has_keys_of_its_own(paused):
    paused.sql("SELECT pushy.queue_register('other', 'work(jsonb)'), pushy.queue_pause('other')")
    assert paused.value("SELECT pushy.enqueue('q', unique_key => 'k')") \
        != paused.value("SELECT pushy.enqueue('other', unique_key => 'k')")


def test_beside_a_job_that_runs_one_more_of_its_key_waits(db):
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;
        SELECT pushy.queue_register('q', 'work(jsonb)', concurrency => 1)""")
    running = db.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    gate.wait_for_arrival()
    waiting = db.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    assert waiting != running
    assert db.value("SELECT pushy.enqueue('q', unique_key => 'k')") == waiting
    gate.open()
    db.jobs_wait("q")
    assert db.rows("SELECT id, state::text FROM pushy.jobs ORDER BY id") == [(running, "completed"), (waiting, "completed")]


def test_a_job_that_is_tried_again_counts_as_waiting(db):
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$;
        SELECT pushy.queue_register('q', 'work(jsonb)', retry_delay => '1 hour')""")
    job = db.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    db.wait_until("SELECT state::text FROM pushy.jobs WHERE id = %s", "retryable", params=(job,))
    assert db.value("SELECT pushy.enqueue('q', unique_key => 'k')") == job


def test_a_handler_may_enqueue_its_own_key_again(db):
    """Its own job has started: one more comes beside it, and sees what it has done."""
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS bigint LANGUAGE sql AS
            $$SELECT pushy.enqueue('q', '"again"', unique_key => 'k') WHERE args = '"first"'$$;
        SELECT pushy.queue_register('q', 'work(jsonb)')""")
    job = db.value("SELECT pushy.enqueue('q', '\"first\"', unique_key => 'k')")
    done = db.job_wait(job)
    assert done["state"] == "completed" and done["result"] > job
    assert db.job_wait(done["result"])["state"] == "completed"


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK", "ROLLBACK TO s", "PREPARE TRANSACTION 'p'"])
@pytest.mark.parametrize("delay", [None, "100 ms"])
def test_a_job_that_was_the_answer_starts_when_the_transaction_has_ended(paused, ending, delay):
    job = paused.value("SELECT pushy.enqueue('q', delay => %s::interval, unique_key => 'k')", delay)
    with paused.connect(autocommit=False) as session:
        session.execute("SAVEPOINT s")
        assert session.execute("SELECT pushy.enqueue('q', unique_key => 'k')").fetchone() == (job,)
        paused.sql("SELECT pushy.queue_resume('q')")
        # Others pass it by.
        assert paused.job_wait(paused.value("SELECT pushy.enqueue('q', delay => '200 ms')"))["state"] == "completed"
        assert paused.job(job)["state"] in ("available", "scheduled")
        session.execute(ending)
        if ending.startswith("PREPARE"):
            assert paused.job_wait(paused.value("SELECT pushy.enqueue('q')"))["state"] == "completed"
            assert paused.job(job)["state"] in ("available", "scheduled")
            paused.sql("COMMIT PREPARED 'p'")
        assert paused.job_wait(job)["state"] == "completed"


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_old_snapshot_neither_fails_nor_misses_a_job(paused, isolation):
    """The job is newer than the snapshot, was changed since, or is gone."""
    kept, changed, gone = (paused.value("SELECT pushy.enqueue('q', delay => '1 hour', unique_key => %s)", key)
                           for key in ("kept", "changed", "gone"))
    with paused.connect(autocommit=False) as session, paused.connect(autocommit=False) as other:
        for transaction in (session, other):
            transaction.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
            transaction.execute("SELECT count(*) FROM pushy.queues")
        paused.sql("SELECT pushy.job_retry(%s), pushy.job_cancel(%s)", changed, gone)
        new = paused.value("SELECT pushy.enqueue('q', unique_key => 'new')")
        enqueue = "SELECT pushy.enqueue('q', unique_key => %s)"
        for transaction in (session, other):
            assert [transaction.execute(enqueue, (key,)).fetchone()[0] for key in ("kept", "changed", "new")] == [kept, changed, new]
        again = session.execute(enqueue, ("gone",)).fetchone()[0]
        assert again not in (kept, changed, gone, new)
        assert session.execute(enqueue, ("gone",)).fetchone() == (again,)
        session.commit()
        assert other.execute(enqueue, ("gone",)).fetchone() == (again,)
        other.commit()


def test_many_keys_in_any_order_do_not_deadlock(paused):
    keys = [f"k{n}" for n in range(50)]
    jobs = {key: paused.value("SELECT pushy.enqueue('q', unique_key => %s)", key) for key in keys}
    with paused.connect(autocommit=False) as one, paused.connect(autocommit=False) as other:
        for first, second in zip(keys, reversed(keys), strict=True):
            assert one.execute("SELECT pushy.enqueue('q', unique_key => %s)", (first,)).fetchone() == (jobs[first],)
            assert other.execute("SELECT pushy.enqueue('q', unique_key => %s)", (second,)).fetchone() == (jobs[second],)


def test_a_job_that_somebody_always_asks_for_runs_all_the_same(db):
    """Transactions overlap, so that at every moment one keeps the job from starting."""
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS '';
        SELECT pushy.queue_register('q', 'work(jsonb)')""")
    # Where the job has run meanwhile the second waits for the first, which this one thread would never end.
    sessions = [db.connect(autocommit=False, options="-c lock_timeout=100ms") for _ in range(2)]
    db.sql("SELECT pushy.enqueue('q', unique_key => 'k')")

    def ask(session) -> None:
        try:
            session.execute("SELECT pushy.enqueue('q', unique_key => 'k'), pg_sleep(0.002)")
        except psycopg.errors.LockNotAvailable:
            session.rollback()

    def overlap() -> int:
        for session in sessions:
            session.commit()
            ask(session)
        return db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'")
    for session in sessions:
        ask(session)
    wait_for("two runs", overlap, lambda runs: runs >= 2, 20)
    for session in sessions:
        session.close()
    db.jobs_wait("q")
    assert db.value("SELECT count(*) FROM pushy.jobs") < 30


WRITERS = 6
CHANGES = 150


def change_at_random(db, seed: int) -> None:
    """Changes rows and enqueues their keys, each time in one transaction, of any isolation, with savepoints, some rolled back."""
    choose = random.Random(seed)
    with db.cluster.connect(db.name, autocommit=False) as session:
        for _ in range(CHANGES):
            row = choose.randrange(5)
            isolation = choose.choice(["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
            try:
                session.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
                session.execute("SAVEPOINT s")
                steps = ["UPDATE source SET v = v + 1 WHERE id = %s", "SELECT pushy.enqueue('copies', to_jsonb(%s), unique_key => 'row ' || %s)"]
                if choose.random() < 0.5:
                    steps.reverse()
                for step in steps:
                    session.execute(step, (row,) * step.count("%s"))
                    if choose.random() < 0.3:
                        session.execute("SELECT pg_sleep(%s)", (choose.random() * 0.005,))
                session.execute(choose.choice(["RELEASE s"] * 4 + ["ROLLBACK TO s"]))
                if choose.random() < 0.1:
                    session.rollback()
                else:
                    session.commit()
            except psycopg.errors.SerializationFailure as failure:
                # Of the user's own rows only.
                assert "source" in str(failure) or "could not serialize" in str(failure)
                session.rollback()
            except psycopg.errors.DeadlockDetected:
                session.rollback()


@pytest.mark.parametrize("struck", [False, True], ids=["in peace", "executors are struck"])
def test_no_change_is_swallowed(db, struck):
    db.sql("""
        CREATE TABLE source (id int PRIMARY KEY, v int NOT NULL);
        CREATE TABLE copy (id int PRIMARY KEY, v int NOT NULL);
        INSERT INTO source SELECT n, 0 FROM generate_series(0, 4) n;
        INSERT INTO copy TABLE source;
        CREATE FUNCTION copies(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            seen int;
        BEGIN
            -- Two runs of a key may overlap: what is written is locked first, and then is read.
            PERFORM FROM public.copy WHERE id = args::int FOR UPDATE;
            SELECT v INTO seen FROM public.source WHERE id = args::int;
            PERFORM pg_sleep(0.004 * random());
            IF random() < 0.05 THEN RAISE EXCEPTION 'no'; END IF;
            UPDATE public.copy SET v = seen WHERE id = args::int;
        END $$;
        SELECT pushy.queue_register('copies', 'copies(jsonb)', max_attempts => 1000, retry_delay => '3 ms')""")
    threads = [threading.Thread(target=change_at_random, args=(db, seed)) for seed in range(WRITERS)]
    run_while_executors_are(struck, db, threads)
    db.jobs_wait("copies")
    assert db.rows("SELECT id, s.v, c.v FROM source s JOIN copy c USING (id) WHERE s.v <> c.v") == []
    assert db.value("SELECT min(v) FROM source") > 20
    assert db.rows("SELECT state::text FROM pushy.jobs WHERE state <> 'completed'") == []


def test_a_second_enqueue_waits_for_the_first_transaction_and_follows_its_outcome(paused):
    for outcome in ("commit", "rollback"):
        with paused.connect(autocommit=False) as first, paused.connect() as second:
            job = first.execute("SELECT pushy.enqueue('q', unique_key => %s)", (outcome,)).fetchone()[0]
            got: list[int] = []
            thread = threading.Thread(target=lambda: got.append(
                second.execute("SELECT pushy.enqueue('q', unique_key => %s)", (outcome,)).fetchone()[0]))
            thread.start()
            paused.wait_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", "Lock",
                              params=(second.info.backend_pid,))
            getattr(first, outcome)()
            thread.join(30)
            assert got, "still waiting after the first transaction ended"
            assert (got == [job]) is (outcome == "commit")
    assert paused.value("SELECT count(*) FROM pushy.jobs") == 2


def test_many_sessions_at_once_make_one_job_per_key(paused):
    ids: list[tuple[int, int]] = []

    def enqueue_all() -> None:
        with paused.cluster.connect(paused.name) as session:
            for key in range(50):
                ids.append((key, session.execute("SELECT pushy.enqueue('q', unique_key => %s)", (f"k{key}",)).fetchone()[0]))
    threads = [threading.Thread(target=enqueue_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 400 and len(set(ids)) == 50
    assert paused.value("SELECT count(*) FROM pushy.jobs") == 50
