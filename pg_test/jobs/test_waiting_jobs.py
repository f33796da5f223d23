"""Jobs that wait for their time: found when it has come, and without a walk over all that have waited before."""

from datetime import timedelta

import pytest

from harness.waiting import PATIENCE

NOTHING = "CREATE FUNCTION nothing(args jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'nothing(jsonb)')"
# More than a scheduler makes ready at a time.
MANY = 2500


@pytest.fixture
def db(db):
    db.sql(NOTHING)
    return db


def enqueue(session, delay: str) -> int:
    return session.execute("SELECT pushy.enqueue('q', delay => %s::interval)", (delay,)).fetchone()[0]


def enqueue_many(db, run_at: str) -> None:
    db.value(f"SELECT count(*) FROM pushy.enqueue_many('q', array_fill('{{}}'::jsonb, ARRAY[{MANY}]), run_at => {run_at})")


def scans_and_reads(db) -> tuple[int, int]:
    return tuple(db.row("SELECT idx_scan, idx_tup_read FROM pg_stat_all_indexes WHERE indexrelid = 'pushy_internal.live_job_due'::regclass").values())


def test_a_job_whose_time_comes_is_not_looked_for_among_those_that_waited_before(db):
    with db.connect(autocommit=False) as old:  # no row that it may see is cleaned away
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()")
        enqueue_many(db, "now() + '0.1 s'")
        # Not asked of live_job: this session would walk over the same index, and be counted.
        db.wait_until("SELECT count(*) FROM pushy_internal.finished_job", MANY)
        db.wait_until("SELECT idx_tup_read >= %s FROM pg_stat_all_indexes WHERE indexrelid = 'pushy_internal.live_job_due'::regclass",
                      params=(MANY,))
        scans, reads = scans_and_reads(db)
        jobs = 5
        for _ in range(jobs):
            db.job_wait(enqueue(db.main, "0.1 s"))
        db.wait_until("SELECT idx_scan >= %s FROM pg_stat_all_indexes WHERE indexrelid = 'pushy_internal.live_job_due'::regclass",
                      params=(scans + 2 * jobs,))
        # From the beginning each job makes two walks. Told with a delay: one of those before may still be among them,
        # and the sweep of the minute makes two.
        assert scans_and_reads(db)[1] - reads < jobs * MANY


def test_many_jobs_that_wait_for_the_same_time_are_made_ready_in_several_transactions(db):
    enqueue_many(db, "date_trunc('second', now() + '2 s')")
    db.jobs_wait("q")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'", MANY)


def test_a_job_that_somebody_holds_when_its_time_comes_runs_when_it_is_free(db):
    with db.connect(autocommit=False) as holder:
        # The shortest in which a busy machine comes to lock it.
        for delay in ("0.1 s", "1 s", "10 s"):
            held = enqueue(db.main, delay)
            holder.execute("SELECT 1 FROM pushy_internal.live_job WHERE id = %s FOR UPDATE", (held,))
            if db.job(held)["state"] == "scheduled":
                break
        db.wait_until("SELECT run_at < clock_timestamp() FROM pushy.jobs WHERE id = %s", params=(held,))
        for _ in range(3):
            assert db.job_wait(enqueue(db.main, "0.2 s"))["state"] == "completed"
        assert db.job(held)["state"] == "scheduled"
    assert db.job_wait(held)["state"] == "completed"


@pytest.mark.parametrize("end", ["COMMIT", "PREPARE TRANSACTION 'late'"])
def test_a_job_that_is_committed_after_its_time_has_come_runs(db, end):
    with db.connect(autocommit=True) as late:
        late.execute("BEGIN")
        job = enqueue(late, "0.1 s")
        # Later times have come and gone.
        for _ in range(3):
            assert db.job_wait(enqueue(db.main, "0.2 s"))["state"] == "completed"
        late.execute(end)
    if end != "COMMIT":
        assert db.job_wait(enqueue(db.main, "0.1 s"))["state"] == "completed"
        db.sql("COMMIT PREPARED 'late'")
    assert db.job_wait(job)["state"] == "completed"


def test_a_job_made_to_wait_again_before_all_others_runs_before_them(db):
    """A retry that is rolled back leaves it where it was."""
    early, later = enqueue(db.main, "1 s"), enqueue(db.main, "1 day")
    with db.connect(autocommit=False) as session:
        assert session.execute("SELECT pushy.job_retry(%s)", (early,)).fetchone()[0]
        session.rollback()
    assert db.job_wait(early)["state"] == "completed"
    assert db.job(later)["state"] == "scheduled"


def test_jobs_that_become_due_one_after_another_are_not_taken_for_locked(db):
    """A hundred a second: some become due while the scheduler is looking."""
    db.sql("""
        CREATE FUNCTION work() RETURNS void LANGUAGE sql AS '';
        SELECT pushy.queue_register('q', 'work()')""")
    db.sql("SELECT count(pushy.enqueue('q', run_at => now() + interval '1 s' + n * interval '4 ms')) FROM generate_series(1, 500) n")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'", 500)
    late = db.value("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY started_at - run_at) FROM pushy.jobs")
    assert late < timedelta(milliseconds=100 * PATIENCE), late


def test_a_round_of_the_scheduler_that_fails_forgets_no_time(db):
    """Jobs that are not kept need no history; the scheduler looks into it after it has made the first one ready."""
    db.sql("SELECT pushy.queue_register('q', 'nothing(jsonb)', keep_completed => '0')")
    # While something is due within seconds the scheduler stays, its first look being done.
    enqueue(db.main, "4 s")
    enqueue(db.main, "0.1 s")
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 1)
    since = db.cluster.log.position()
    # In the catalog, because ALTER TABLE is refused.
    rename = "UPDATE pg_attribute SET attname = %s WHERE attrelid = 'pushy_internal.finished_job'::regclass AND attname = %s"
    db.sql(rename, "hidden", "expires_at")
    enqueue(db.main, "0.1 s")
    db.cluster.log.wait_for("the scheduler waits", since)
    db.sql(rename, "expires_at", "hidden")
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0)


def test_the_first_failure_of_a_new_queue_is_tried_again_at_its_time(db):
    """Its queue is registered in the midst of a round of the scheduler, which is busy with another queue's times."""
    queues = 150
    with db.connect() as other:
        db.sql("CREATE FUNCTION fails(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$")
        for number in range(queues):
            enqueue(other, "1 ms")
            db.sql("""SELECT pushy.queue_register(name, 'fails(jsonb)', max_attempts => 2, retry_delay => '1 ms', concurrency => 1),
                             pushy.enqueue(name) FROM (VALUES (%s)) new (name)""", f"new {number}")
            enqueue(other, "2 ms")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'discarded' AND attempt = 2", queues)
    # Forgotten ones wait for the sweep of the minute.
    assert db.rows("SELECT queue, finished_at - enqueued_at FROM pushy.jobs WHERE finished_at - enqueued_at > '10 s'") == []


def test_jobs_that_cannot_be_made_ready_keep_no_others_and_no_removal_waiting(db):
    db.sql("SELECT pushy.queue_register('bad', 'nothing(jsonb)'); SELECT pushy.queue_register('brief', 'nothing(jsonb)', keep_completed => '50 ms')")
    bad_queue = db.value("SELECT queue_id FROM pushy_internal.queue WHERE queue = 'bad'")
    db.sql(f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN IF OLD.queue_id = {bad_queue} THEN RAISE 'refused'; END IF; RETURN NEW; END$$;
               CREATE TRIGGER refuse BEFORE UPDATE ON pushy_internal.live_job FOR EACH ROW EXECUTE FUNCTION refuse()""")
    start = db.cluster.log.position()
    bad = db.value("SELECT pushy.enqueue('bad', delay => '10 ms')")
    db.cluster.log.wait_for("the scheduler waits: refused", since=start)
    for delay in ("10 ms", "100 ms"):
        assert db.job_wait(enqueue(db.main, delay))["state"] == "completed"
    brief = db.value("SELECT pushy.enqueue('brief', delay => '10 ms')")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE id = %s", 0, params=(brief,))
    assert db.job(bad)["state"] == "scheduled"
    db.sql("DROP TRIGGER refuse ON pushy_internal.live_job")
    assert db.job_wait(bad)["state"] == "completed"
