"""job_cancel's answer is true: the job ends as cancelled. Or false: it ends otherwise."""

import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from stage.batches import enqueue, run_while_executors_are, states
from harness.gate import Gate
from harness.waiting import wait_for

JOBS = 3000


@pytest.fixture
def flowing(db):
    """Queues whose jobs run for a moment each: some fail for the last time, some are tried again."""
    db.sql("""
        CREATE TABLE effects (job bigint);
        CREATE FUNCTION work(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.effects VALUES (job.id);
            PERFORM pg_sleep(0.002 * random());
            IF random() < 0.1 THEN RAISE EXCEPTION 'no'; END IF;
        END $$;
        SELECT pushy.queue_register('q', 'work(pushy.job)', max_attempts => 2, retry_delay => '5 ms')""")
    return db


def cancel_at_random(db, seed: int, told: list[tuple[int, bool]]) -> None:
    """Cancels jobs where the executors are, some in savepoints and some in transactions that are rolled back."""
    choose = random.Random(seed)
    with db.cluster.connect(db.name, autocommit=False) as session:
        while True:
            near = session.execute("SELECT id FROM pushy_internal.live_job ORDER BY position LIMIT 1 OFFSET %s", (choose.randrange(20),)).fetchone()
            if near is None:
                return
            job = near[0]
            ending = choose.choice(["COMMIT"] * 6 + ["ROLLBACK", "ROLLBACK TO s; COMMIT", "RELEASE s; COMMIT"])
            session.execute("SAVEPOINT s")
            answer = session.execute("SELECT pushy.job_cancel(%s)", (job,)).fetchone()[0]
            if choose.random() < 0.2:
                session.execute("SELECT pg_sleep(%s)", (choose.random() * 0.02,))
            session.execute(ending)
            if not ending.startswith("ROLLBACK"):
                told.append((job, answer))


@pytest.mark.parametrize("struck", [False, True], ids=["in peace", "executors are struck"])
def test_whoever_is_told_true_has_a_cancelled_job(flowing, struck):
    db = flowing
    enqueue(db, JOBS)
    told: list[tuple[int, bool]] = []
    threads = [threading.Thread(target=cancel_at_random, args=(db, seed, told)) for seed in range(4)]
    run_while_executors_are(struck, db, threads)
    db.jobs_wait("q")
    ended = dict(db.rows("SELECT id, state::text FROM pushy.jobs"))
    assert len(ended) == JOBS
    assert [(job, ended[job]) for job, answer in told if answer and ended[job] != "cancelled"] == []
    assert [(job, ended[job]) for job, answer in told if not answer and ended[job] == "cancelled"
            and (job, True) not in told] == []
    # Both answers came, and what was cancelled left nothing behind.
    assert {answer for _, answer in told} == {True, False}
    assert db.rows("SELECT job FROM effects JOIN pushy.jobs j ON j.id = job WHERE j.state <> 'completed'") == []


def test_a_job_that_was_done_before_the_others_of_its_batch_cannot_be_cancelled_any_more(db):
    """Its work would have to be taken back with theirs: whoever asks waits for the batch, and is told false."""
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            WHILE args->>'n' = '200' AND NOT pg_try_advisory_xact_lock_shared(1) LOOP PERFORM pg_sleep(0.001); END LOOP;
        END $$;
        SELECT pushy.queue_register('q', 'work(jsonb)', concurrency => 1), pushy.queue_pause('q')""")
    jobs = enqueue(db, 200)
    db.sql("SELECT pushy.queue_resume('q')")
    last = db.wait_until("SELECT max(job_id) FROM pushy.workers WHERE since < clock_timestamp() - interval '50 ms'", jobs[-1])
    free = [job for job, in db.rows("SELECT id FROM pushy_internal.live_job")]
    beside = [job for job in free if job != last]
    assert beside, "a batch of one"
    with db.connect() as session, ThreadPoolExecutor() as other:
        answer = other.submit(session.execute, "SELECT pushy.job_cancel(%s)", (beside[-1],))
        db.wait_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", "Lock", params=(session.info.backend_pid,))
        gate.open()
        assert answer.result().fetchone() == (False,)
    db.jobs_wait("q")
    assert states(db) == {"completed": 200}


def test_a_handler_cancels_a_job_of_its_own_batch_but_not_itself(db):
    db.sql("""
        CREATE FUNCTION work(job pushy.job) RETURNS jsonb LANGUAGE sql AS $$
            SELECT jsonb_build_array(pushy.job_cancel(job.id), pushy.job_cancel(job.id - 1), pushy.job_cancel(job.id + 1))
             WHERE job.args->>'n' = '199'
        $$;
        SELECT pushy.queue_register('q', 'work(pushy.job)', concurrency => 1), pushy.queue_pause('q')""")
    jobs = enqueue(db, 200)
    db.sql("SELECT pushy.queue_resume('q')")
    db.jobs_wait("q")
    assert db.rows("SELECT id, state::text, result FROM pushy.jobs ORDER BY id DESC LIMIT 3") == [
        (jobs[199], "cancelled", None), (jobs[198], "completed", [False, False, True]), (jobs[197], "completed", None)]


@pytest.mark.parametrize("batch", [True, False])
def test_a_cancelled_job_says_when_it_began_if_it_did(db, batch):
    gate = Gate(db)
    db.sql(f"CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;"
           f"SELECT pushy.queue_register('q', 'work()', batch => {batch})")
    running, waiting = db.value("SELECT pushy.enqueue('q')"), db.value("SELECT pushy.enqueue('q', delay => '1 hour')")
    gate.wait_for_arrival()
    db.sql("SELECT pushy.job_cancel(%s), pushy.job_cancel(%s)", running, waiting)
    assert db.job_wait(running)["state"] == "cancelled"
    assert dict(db.rows("SELECT id, started_at BETWEEN enqueued_at AND finished_at FROM pushy.jobs")) == {running: True, waiting: None}
    db.wait_until("SELECT cancelled FROM pushy.stats WHERE queue = 'q'", 2)


def test_an_executor_on_its_way_out_decides_nothing_of_jobs_that_another_has_by_now(make_cluster):
    """It has rolled back, and is there still: the server removes temporary tables at the end of a session, which waits here. The
    other accepts the first job of its batch when the second begins."""
    db = make_cluster({"pushy.max_executors": 1}).database()
    first, second = Gate(db, 1), Gate(db, 2)
    db.sql("""
        CREATE TABLE effects (xid xid8 DEFAULT pg_current_xact_id());
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE n int = args->>'n';
        BEGIN
            IF n = 1 THEN CREATE TEMP TABLE t (); END IF;
            WHILE n = 100 AND NOT pg_try_advisory_xact_lock_shared(1) LOOP PERFORM pg_sleep(0.001); END LOOP;
            WHILE n > 100 AND EXISTS (SELECT FROM public.effects WHERE xid = pg_current_xact_id())
                AND NOT pg_try_advisory_xact_lock_shared(2) LOOP PERFORM pg_sleep(0.001); END LOOP;
            IF n > 100 THEN INSERT INTO public.effects DEFAULT VALUES; END IF;
        END $$;
        SELECT pushy.queue_register('q', 'work(jsonb)'), pushy.queue_pause('q')""")
    held = enqueue(db, 200)[99]
    db.sql("SELECT pushy.queue_resume('q')")
    leaves = db.wait_until("SELECT min(pid) FROM pushy.workers WHERE job_id = %s", lambda pid: pid is not None, params=(held,))
    at_second = f"SELECT min(job_id) FROM pushy.workers WHERE pid <> {leaves} AND job_id > {held + 1} AND since < clock_timestamp() - interval '50 ms'"
    with db.connect(autocommit=False) as catalog, db.connect(autocommit=False) as keeper, db.connect() as session, ThreadPoolExecutor() as others:
        catalog.execute("LOCK TABLE pg_catalog.pg_depend IN ACCESS EXCLUSIVE MODE")
        db.cluster.configure(pushy__max_executors=2).reload()
        # Whoever claims the job that ran when its executor ended waits until that is judged: it is passed over.
        keeps = others.submit(keeper.execute, "SELECT FROM pushy_internal.live_job WHERE id = %s FOR UPDATE", (held,))
        db.wait_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", "Lock", params=(keeper.info.backend_pid,))
        db.sql("SELECT pg_terminate_backend(%s)", leaves)
        keeps.result()
        running = db.wait_until(at_second, lambda job: job is not None)
        before = f"FROM pushy_internal.live_job WHERE id > {held} AND id < {running}"
        free = db.rows(f"SELECT id {before} FOR UPDATE SKIP LOCKED")
        [accepted] = set(db.rows(f"SELECT id {before}")) - set(free)
        assert db.value("SELECT count(*) FROM pushy.workers WHERE pid = %s", leaves) == 1
        answer = others.submit(session.execute, "SELECT pushy.job_cancel(%s)", accepted)
        db.wait_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", "Lock", params=(session.info.backend_pid,))
        second.open()
        assert answer.result().fetchone() == (False,)
        catalog.rollback()
        keeper.rollback()
    first.open()
    db.jobs_wait("q")
    assert states(db) == {"completed": 200}


@pytest.fixture
def held(cluster):
    """A job that runs in an executor which does nothing any more, not even what it is told."""
    db = cluster.database()
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1)""")
    db.held = db.value("SELECT pushy.enqueue('q')")
    [db.executor] = gate.wait_for_arrival()
    cluster.kill(db.executor, signal.SIGSTOP)
    return db


@pytest.mark.parametrize("how", ["crash", "stop"])
def test_what_was_promised_outlives_a_crash(held, how):
    """The handler, run again, would find the gate open, and complete."""
    assert held.value("SELECT pushy.job_cancel(%s)", held.held) is True
    held.close()
    if how == "crash":
        held.cluster.crash(held.executor)
    else:
        # It stays stopped, and is killed by the postmaster after 5 s: awake, it may be quick enough to end the job itself.
        held.cluster.restart("immediate")
    assert held.job_wait(held.value("SELECT pushy.enqueue('q')"))["state"] == "completed"
    ended = held.job_wait(held.held)
    assert (ended["state"], ended["attempt"], ended["started_at"]) == ("cancelled", 0, None)
    assert held.rows("SELECT * FROM pushy.failures") == []
    held.wait_until("SELECT count(*) FROM pushy_internal.promised_cancel", 0)
    # And it is forgotten: whoever makes it run again gets that, in the server's next life too.
    held.sql("SELECT pushy.queue_pause('q'), pushy.job_retry(%s)", held.held)
    held.cluster.crash()
    held.sql("SELECT pushy.queue_resume('q')")
    assert held.job_wait(held.held)["state"] == "completed"


@pytest.mark.parametrize("ending", ["ROLLBACK", "ROLLBACK TO s; COMMIT"])
def test_what_was_promised_and_rolled_back_is_forgotten_by_a_crash(held, ending):
    with held.connect(autocommit=False) as session:
        session.execute("SAVEPOINT s")
        assert session.execute("SELECT pushy.job_cancel(%s)", (held.held,)).fetchone() == (True,)
        session.execute(ending)
    held.sql("SELECT pushy.queue_alter('q', max_attempts => 2)")
    held.close()
    held.cluster.crash(held.executor)
    assert held.job_wait(held.held)["state"] == "completed"


def test_a_session_that_runs_a_queue_after_a_crash_keeps_the_promise_too(held):
    assert held.value("SELECT pushy.job_cancel(%s)", held.held) is True
    held.close()
    held.cluster.configure(pushy__enabled="off").reload()
    held.cluster.crash(held.executor)
    assert held.workers("scheduler") == held.workers() == []
    other = held.value("SELECT pushy.enqueue('q')")
    assert held.value("SELECT pushy.queue_run('q')") == 1
    assert dict(held.rows("SELECT id, state FROM pushy.jobs")) == {held.held: "cancelled", other: "completed"}
    assert held.value("SELECT count(*) FROM pushy_internal.promised_cancel") == 0


def test_two_who_cancel_the_same_job_do_not_wait_for_each_other(held):
    with held.connect(autocommit=False) as one, held.connect(autocommit=False) as other:
        other.execute("SET lock_timeout = '5s'")
        for session in (one, other):
            assert session.execute("SELECT pushy.job_cancel(%s)", (held.held,)).fetchone() == (True,)
        one.rollback()
        other.commit()
    held.cluster.kill(held.executor, signal.SIGCONT)
    assert held.job_wait(held.held)["state"] == "cancelled"
    held.wait_until("SELECT count(*) FROM pushy_internal.promised_cancel", 0)


def test_a_running_job_that_a_transaction_cancels_is_not_made_to_run_again_by_it(db):
    """job_retry would answer that it runs anyway, and the commit would cancel it."""
    gate = Gate(db)
    db.sql(f"CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS $$ SELECT {gate.stop} $$; SELECT pushy.queue_register('q', 'work')")
    job = db.value("SELECT pushy.enqueue('q')")
    gate.wait_for_arrival()
    with db.connect(autocommit=False) as session:
        assert session.execute("SELECT pushy.job_cancel(%s)", (job,)).fetchone() == (True,)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="this transaction cancels it"), session.transaction():
            session.execute("SELECT pushy.job_retry(%s)", (job,))
        session.commit()
    assert db.job_wait(job)["state"] == "cancelled"
    gate.open()
    assert db.value("SELECT pushy.job_retry(%s)", job) is True
    assert db.job_wait(job)["state"] == "completed"


def test_a_cancel_that_is_asked_for_behind_the_schedulers_way_through_many_others_is_not_lost(db):
    """The scheduler goes through what was promised by the jobs' numbers, 500 in a round; one comes whose number it has passed."""
    many = 8_000
    gate = Gate(db)
    db.sql(f"CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;"
           "SELECT pushy.queue_register('held', 'work()'), pushy.queue_register('q', 'work()'), pushy.queue_pause('q')")
    first = db.value("SELECT pushy.enqueue('held')")
    gate.wait_for_arrival()
    with db.connect(autocommit=False) as session:
        assert session.execute("SELECT pushy.job_cancel(%s)", (first,)).fetchone() == (True,)
        # Nobody holds the job any more, or comes for it: the scheduler is to carry its cancel out.
        db.sql("SELECT pushy.queue_pause('held')")
        db.sql("SELECT pg_terminate_backend(pid) FROM pushy.workers WHERE job_id = %s", first)
        db.wait_until("SELECT count(*) FROM pushy.workers WHERE job_id IS NOT NULL", 0)
        gate.open()
        db.sql("SELECT count(*) FROM pushy.enqueue_many('q', array_fill('{}'::jsonb, ARRAY[%s]))", many)
        # As after a crash: the promises are in the table, and a sweep finds them. What is inserted by SQL is taken for rows of a dump, which have other numbers.
        db.sql("INSERT INTO pushy_internal.promised_cancel (job_id, queue_id) SELECT id, queue_id FROM pushy_internal.live_job WHERE id <> %s", first)
        db.sql("""UPDATE pushy_internal.promised_cancel p SET job_id = job.id, queue_id = job.queue_id
                    FROM (SELECT c.ctid AS place, row_number() OVER () AS n FROM pushy_internal.promised_cancel c WHERE c.job_id < 0) loaded
                    JOIN (SELECT id, queue_id, row_number() OVER () AS n FROM pushy_internal.live_job WHERE id <> %s) job USING (n)
                   WHERE p.ctid = loaded.place""", first)
        db.sql("SELECT * FROM pushy.resume_after_restore()")
        left = "SELECT count(*) FROM pushy_internal.promised_cancel"
        db.wait_until(left, lambda seen: seen < many)
        scheduler = db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pushy scheduler' AND datname = current_database()")
        session.commit()
    assert db.value(left) > 1, "the scheduler was through before the other was promised"
    # That scheduler does it: the next one would find it, when there is one.
    state = f"SELECT state FROM pushy.jobs WHERE id = {first}"
    there = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {scheduler}"
    wait_for("the cancel, or the scheduler's end", lambda: (db.value(there), db.value(state)), lambda seen: seen != (1, "available"))
    assert db.value(state) == "cancelled"
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'cancelled'", many + 1)
