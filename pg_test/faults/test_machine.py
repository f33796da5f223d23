"""The machine under the server: a disk that is full, a clock that is set."""

import psycopg
import pytest

from harness.waiting import wait_for
from stage.ledger import Ledger
from stage.life import settled, wakeups
from stage.machine import Machine


@pytest.fixture
def machine(scratch, monkeypatch, request):
    return Machine(scratch / f"machine-{request.node.name.replace('[', '-').rstrip(']').replace(' ', '')}", monkeypatch)


# -- the disk ----------------------------------------------------------------------------------------------------

def test_a_disk_that_is_full_holds_jobs_up_charges_nobody_and_fills_no_log(machine, make_cluster, record_property):
    db = make_cluster({"shared_buffers": "16MB"}).database()
    db.sql("""
        CREATE FUNCTION nothing(args jsonb) RETURNS void LANGUAGE sql AS '';
        SELECT pushy.queue_register('q', 'nothing(jsonb)'), pushy.queue_pause('q')""")
    jobs = [job for job, in db.rows("SELECT pushy.enqueue_many('q', array_fill('{}'::jsonb, ARRAY[5000]))")]
    since = db.cluster.log.position()
    machine.fill_disk("/base/")
    with pytest.raises(psycopg.errors.DiskFull):
        db.sql("CREATE TABLE big AS SELECT repeat('x', 900) FROM generate_series(1, 10000)")
    db.sql("SELECT pushy.queue_resume('q')")
    # The wait doubles with each look, so by then there were several.
    db.wait_until_told("q", r"tried again in ([3-9]|\d\d)\.\d s")
    said = [line for line in db.cluster.log.since(since).splitlines() if "pushy" in line and "LOG" in line or "No space" in line]
    machine.empty_disk()
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0, 90)
    assert db.rows("SELECT state, attempt, count(*) FROM pushy.jobs GROUP BY 1, 2") == [("completed", 1, len(jobs))]
    assert db.rows("SELECT * FROM pushy.failures") == []
    assert 0 < len(said) < 20, said
    record_property("counted", f"{len(jobs):,} jobs, {len(said)} lines of log while the disk was full")


def test_a_log_of_the_server_that_finds_no_room_stops_it_and_loses_nothing(machine, make_cluster):
    """PostgreSQL itself panics then, and does not come up until there is room."""
    cluster = make_cluster()
    db = cluster.database()
    ledger = Ledger(db)
    db.sql("SELECT pushy.queue_pause('q')")
    ledger.enqueue_many(20_000)
    machine.fill_disk("/pg_wal/")
    since = cluster.log.position()
    db.sql("SELECT pushy.queue_resume('q')")
    try:
        db.sql("CREATE TABLE filler AS SELECT repeat('x', 500) FROM generate_series(1, 200000)")
    except psycopg.OperationalError:
        pass
    cluster.log.wait_for("No space left on device", since)
    machine.empty_disk()
    cluster.stop("immediate")
    cluster.start()
    ledger.assert_balanced()
    assert ledger.charges() == []


# -- the clock ---------------------------------------------------------------------------------------------------

HOUR, DAY = 3600, 86400
LATE = 90


@pytest.mark.parametrize("ahead", [DAY, 40 * DAY, -HOUR, -DAY, -40 * DAY])
def test_a_clock_that_is_set_loses_no_job_repeats_none_and_keeps_nobody_busy(machine, make_cluster, ahead):
    # What is kept for an hour is gone after a day, by whatever clock.
    db = make_cluster({"pushy.log_keep": "60 d"}).database()
    ledger = Ledger(db, before="IF job.args ? 'fail' AND job.attempt < 3 THEN RAISE 'not yet'; END IF;", options=", keep_completed => '90 days', max_attempts => 9")
    ledger.enqueue_many(200)
    soon = ledger.enqueue(delay="5 s")
    later = ledger.enqueue(delay="20 hours")
    failing = ledger.enqueue('{"fail": 1}')
    db.sql("SELECT pushy.subscription_create('s', '{news}'), pushy.notify('news', 'before', delivery => 'relay')")
    assert db.value("CALL pushy.subscription_wait('s', '20 s')") is True

    machine.set_clock_ahead(ahead)
    ledger.enqueue_many(200)
    ledger.enqueue('{"fail": 1}')
    last = ledger.enqueue(delay="200 ms")
    db.sql("SELECT pushy.notify('news', 'after', delivery => 'relay')")
    assert db.job_wait(last)["state"] == "completed"
    wait_for("the notices", lambda: [payload for payload, in db.rows("SELECT payload FROM pushy.subscription_read('s')")],
             lambda read: read == ["before", "after"])
    if ahead > 0:
        # Due by the new clock, which the launcher looks at once a minute.
        db.wait_until("SELECT count(*) FROM pushy.jobs WHERE id = ANY (%s) AND state = 'completed'", 2, LATE, params=([soon, later],))
    # Times that were said before the clock was set back are far away now; all others have come.
    wait_for("what is due to be done", lambda: db.rows("SELECT id FROM pushy.jobs WHERE finished_at IS NULL"),
             lambda left: {job for job, in left} <= ({soon, later, failing} if ahead < 0 else set()), LATE)
    workers = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pushy%'"
    wait_for("the workers to sleep", lambda: {pid: wakeups(pid) for pid, in db.rows(workers)}, settled())

    machine.set_clock_ahead(0)
    for job in (soon, later, failing):
        if db.value("SELECT finished_at IS NULL FROM pushy.jobs WHERE id = %s", job):
            db.sql("SELECT pushy.job_retry(%s)", job)
    ledger.enqueue_many(10)
    ledger.assert_balanced(deadline=LATE)
    # The server's timers count by the clock: what runs when it is set ahead may be timed out, as a statement of a client may.
    timed_out = [charge for charge in ledger.charges() if charge[2] == "57014"]
    assert len(ledger.charges()) - len(timed_out) == 4
    assert len(timed_out) <= (int(db.value("SHOW pushy.max_executors")) if ahead > 0 else 0), timed_out


def test_what_waits_for_a_moment_does_not_wait_for_hours_when_the_clock_is_set_back(machine, make_cluster):
    """A queue whose batch could not be recorded is held for some seconds, by whatever clock."""
    db = make_cluster().database()
    db.sql("""CREATE FUNCTION fail() RETURNS void LANGUAGE sql AS 'SELECT 1 / 0';
              SELECT pushy.queue_register('q', 'fail()', max_attempts => 1)""")
    rename = "UPDATE pg_attribute SET attname = %s WHERE attrelid = 'pushy_internal.failure'::regclass AND attname = %s"
    db.sql(rename, "elsewhere", "context")
    job = db.value("SELECT pushy.enqueue('q')")
    db.wait_until_told("q", r"tried again in ([3-9]|\d\d)\.\d s")
    machine.set_clock_ahead(-DAY)
    db.sql(rename, "context", "elsewhere")
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "discarded", LATE, params=(job,))
