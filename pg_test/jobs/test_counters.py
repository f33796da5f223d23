"""The counters of pushy.stats: each way in which a job is discarded is counted, each park is; and they outlive a clean stop."""

import shutil

import pytest

from harness import account
from harness.waiting import wait_for
from stage.watching import watch

FAILS = "CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$BEGIN {body}; END$$;" \
        "SELECT pushy.queue_register('q', 'work()', max_attempts => 1)"
DEFERRED = """CREATE TABLE deferred (n int);
              CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;
              CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()"""
COUNTS = "SELECT enqueued, completed, failed, retried, discarded FROM pushy.stats WHERE queue = 'q'"


def counts(db) -> tuple:
    return db.rows(COUNTS)[0]


def wait_discarded(db) -> int:
    wait_for("a job to be discarded, and counted", lambda: counts(db)[-1], lambda seen: seen == 1, evidence=db.cluster.log.tail)
    return db.value("SELECT id FROM pushy.jobs WHERE state = 'discarded'")


def failing(db, body) -> None:
    db.sql(FAILS.format(body=body))


def by_its_error(db):
    failing(db, "RAISE 'no'")
    db.sql("SELECT pushy.enqueue('q')")
    return (1, 0, 1, 0, 1)


def by_its_last_error(db):
    failing(db, "RAISE 'no'")
    db.sql("SELECT pushy.queue_alter('q', max_attempts => 3, retry_delay => '0'); SELECT pushy.enqueue('q')")
    return (1, 0, 3, 2, 1)


def by_what_it_deferred(db):
    db.sql(DEFERRED)
    failing(db, "INSERT INTO public.deferred VALUES (1)")
    db.sql("SELECT pushy.enqueue('q')")
    return (1, 0, 1, 0, 1)


def by_its_timeout(db):
    failing(db, "PERFORM pg_sleep(100)")
    db.sql("SELECT pushy.enqueue('q', timeout => '50 ms')")
    return (1, 0, 1, 0, 1)


def with_its_executor(db):
    failing(db, "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(100)")
    db.sql("SELECT pushy.enqueue('q')")
    return (1, 0, 1, 0, 1)


def as_one_that_does_not_stop(db):
    failing(db, "LOOP BEGIN PERFORM pg_sleep(100); EXCEPTION WHEN query_canceled THEN END; END LOOP")
    db.sql("SELECT pushy.enqueue('q', timeout => '50 ms')")
    return (1, 0, 1, 0, 1)


def in_a_session(db):
    failing(db, "RAISE 'no'")
    db.sql("SELECT pushy.queue_pause('q'); SELECT pushy.enqueue('q'); SELECT pushy.queue_run('q')")
    return (1, 0, 1, 0, 1)


def as_too_deep(db):
    failing(db, "SET pushy.max_depth = 1; PERFORM pushy.enqueue('q')")
    db.sql("SELECT pushy.enqueue('q')")
    return (3, 2, 0, 0, 1)


def as_too_deep_of_a_watch(db):
    db.sql("CREATE TABLE t (n int)")
    failing(db, "INSERT INTO public.t VALUES (1)")
    watch(db, "t", channel=None, queue="q")
    db.sql("INSERT INTO t VALUES (1)")
    runs = int(db.value("SHOW pushy.max_depth")) + 1
    return (runs + 1, runs, 0, 0, 1)


@pytest.mark.parametrize("discard", [by_its_error, by_its_last_error, by_what_it_deferred, by_its_timeout, with_its_executor,
                                     as_one_that_does_not_stop, in_a_session, as_too_deep, as_too_deep_of_a_watch])
def test_each_way_in_which_a_job_is_discarded_is_counted_and_told(db, discard):
    listener = db.listen("pushy_control")
    expected = discard(db)
    job = wait_discarded(db)
    assert listener.wait_for_json(event="discard", job_id=job)["queue"] == "q"
    wait_for("the others to be counted", lambda: counts(db), lambda seen: seen == expected)


def test_a_job_that_crashes_the_server_is_counted(cluster):
    db = cluster.database()
    db.sql("CREATE EXTENSION IF NOT EXISTS plpython3u")
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE plpython3u AS 'import os; os.kill(os.getpid(), 9)';"
           "SELECT pushy.queue_register('q', 'work()', max_attempts => 1)")
    before = cluster.log.position()
    db.sql("SELECT pushy.enqueue('q')")
    cluster.wait_recovered(before)
    wait_discarded(db)
    # That it was enqueued was counted before the crash.
    assert counts(db) == (0, 0, 1, 0, 1)


def test_an_orphan_is_told_and_counted_for_no_other_queue(db):
    """Its queue's counters are gone; the next queue, which has the place of the one before most likely, starts at zero."""
    failing(db, "RAISE 'no'")
    listener = db.listen("pushy_control")
    db.sql("BEGIN")
    job = db.value("SELECT pushy.enqueue('q')")
    db.sql("PREPARE TRANSACTION 'late'")
    db.sql("SELECT pushy.queue_drop('q'); SELECT pushy.queue_register('q', 'work()')")
    db.sql("COMMIT PREPARED 'late'")
    told = listener.wait_for_json(event="discard")
    assert (told["queue"], told["job_id"]) == (None, job)
    assert counts(db) == (0, 0, 0, 0, 0)
    # No attempt was made, and the time for which its queue kept it is gone with the queue.
    assert db.rows("SELECT f.attempt, j.attempt, expires_at - finished_at = '30 days', j.started_at "
                   "FROM pushy_internal.finished_job j JOIN pushy_internal.failure f ON f.job_id = j.id") == [(0, 0, True, None)]


BOOKS = """SELECT (enqueued + run_again - completed - discarded - cancelled - (SELECT count(*) FROM pushy_internal.live_job), run_again)::text
             FROM pushy.stats WHERE queue = 'q'"""


def test_the_books_balance_whatever_becomes_of_jobs(db):
    """Each job that was enqueued, or made to run again, is finished in one way that is counted, or is not finished."""
    db.sql("CREATE FUNCTION work(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$BEGIN IF job.args ? 'fail' THEN RAISE 'no'; END IF; END$$;"
           "SELECT pushy.queue_register('q', 'work(pushy.job)', max_attempts => 2, retry_delay => '0')")
    fine, bad = db.value("SELECT pushy.enqueue('q')"), db.value("SELECT pushy.enqueue('q', '{\"fail\": 1}')")
    later = db.value("SELECT pushy.enqueue('q', delay => '1 hour')")
    other = db.value("SELECT pushy.enqueue('q', delay => '1 hour')")
    db.job_wait(fine)
    db.job_wait(bad)
    db.wait_until(BOOKS, "(0,0)")
    db.sql("SELECT pushy.job_cancel(%s)", later)
    # Waiting, completed, discarded and cancelled; three of them had finished.
    db.sql("SELECT pushy.job_retry(x) FROM unnest(%s::bigint[]) x", [other, fine, bad, later])
    db.jobs_wait("q")
    db.sql(f"BEGIN; SELECT pushy.job_retry({fine}); ROLLBACK")
    db.sql("SELECT pushy.queue_pause('q'); SELECT pushy.enqueue('q'), pushy.enqueue('q'); SELECT pushy.queue_run('q', 1)")
    db.wait_until(BOOKS, "(0,3)")
    assert db.rows("SELECT enqueued, completed, failed, retried, discarded, cancelled FROM pushy.stats WHERE queue = 'q'") == [
        (6, 5, 3, 1, 2, 1)]


def test_each_time_that_a_queue_is_parked_is_counted(db):
    failing(db, "NULL")
    for times in (1, 2):
        db.sql("DROP FUNCTION work(); SELECT pushy.enqueue('q')")
        db.wait_until("SELECT parked FROM pushy.stats WHERE queue = 'q'", times)
        assert db.value("SELECT parked IS NOT NULL FROM pushy.queues WHERE queue = 'q'")
        db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_resume('q')")
        db.jobs_wait("q")
    assert db.value("SELECT parked FROM pushy.stats WHERE queue = 'q'") == 2


# -- restarts ----------------------------------------------------------------------------------------------------

KEPT = """SELECT queue, enqueued, completed, failed, retried, discarded, cancelled, parked, batches, wait_p50, wait_p95, wait_p99,
                 run_mean, run_p50, run_p95, run_p99 FROM pushy.stats WHERE queue IS NOT NULL ORDER BY queue"""
ZERO = [("parks", *[0] * 8, *[None] * 7), ("q", *[0] * 8, *[None] * 7), ("unused", *[0] * 8, *[None] * 7)]


def stats(db) -> list[tuple]:
    return db.rows(KEPT)


@pytest.fixture
def busy(cluster):
    """A server whose queues have counted something of everything."""
    db = cluster.database()
    db.sql("CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN"
           "  PERFORM pg_sleep((args->>'s')::float); IF args ? 'fail' THEN RAISE 'no'; END IF; END$$;"
           "CREATE FUNCTION gone(args jsonb) RETURNS void LANGUAGE sql AS '';"
           "SELECT pushy.queue_register('q', 'work', max_attempts => 2, retry_delay => '0'), pushy.queue_register('parks', 'gone'),"
           "       pushy.queue_register('unused', 'work')")
    db.sql("SELECT pushy.enqueue('q', jsonb_build_object('s', n * 0.001)) FROM generate_series(1, 50) n")
    db.sql("SELECT pushy.enqueue('q', '{\"fail\": 1}'), pushy.job_cancel(pushy.enqueue('q', delay => '1 hour'))")
    db.sql("DROP FUNCTION gone(jsonb); SELECT pushy.enqueue('parks')")
    db.wait_until("SELECT parked FROM pushy.stats WHERE queue = 'parks'", 1)
    db.jobs_wait("q")
    wait_for("all to be counted", lambda: db.rows(COUNTS), lambda seen: seen == [(52, 50, 2, 1, 1)])
    db.before = stats(db)
    assert db.before[0][1] == 1 and db.before[1][6] == 1 and db.before[2] == ZERO[2]
    return db


def file_of(db):
    return db.cluster.data / "pg_stat" / "pushy.counters"


def stop(db, mode="fast") -> None:
    db.close()
    db.cluster.stop(mode)


@pytest.mark.parametrize("mode", ["fast", "smart"])
def test_counters_and_percentiles_outlive_a_clean_restart(busy, mode):
    for _ in range(2):
        stop(busy, mode)
        assert file_of(busy).stat().st_size < 5000
        busy.cluster.start()
        assert stats(busy) == busy.before
        assert not file_of(busy).exists()
    busy.job_wait(busy.value("SELECT pushy.enqueue('q', '{\"s\": 0}')"))
    busy.wait_until("SELECT (enqueued, completed) = (53, 51) FROM pushy.stats WHERE queue = 'q'")


def test_counters_of_queues_that_nobody_has_looked_at_outlive_the_next_restart_too(busy):
    busy.cluster.configure(pushy__enabled="off")
    for _ in range(3):
        stop(busy)
        busy.cluster.start()
    assert stats(busy) == busy.before


@pytest.mark.parametrize("after_restart", [False, True])
@pytest.mark.parametrize("how", ["immediate", "crash", "killed"])
def test_after_a_crash_or_an_immediate_stop_they_begin_at_zero(busy, how, after_restart):
    if after_restart:
        stop(busy)
        busy.cluster.start()
        assert stats(busy) == busy.before
    since = busy.cluster.log.position()
    if how == "crash":
        busy.cluster.crash()
    elif how == "immediate":
        stop(busy, "immediate")
        busy.cluster.start()
    else:
        busy.cluster.kill_server()
        busy.cluster.start()
    assert stats(busy) == ZERO
    assert "pushy.counters" not in busy.cluster.log.since(since)


def cut(content: bytes) -> bytes:
    return content[:-100]


def flip(content: bytes) -> bytes:
    return content[:200] + bytes([content[200] ^ 4]) + content[201:]


def of_another_version(content: bytes) -> bytes:
    return content[:7] + b"\x63" + content[8:]


@pytest.mark.parametrize("damage, reason", [(cut, "is damaged"), (flip, "is damaged"), (lambda content: b"", "is damaged"),
                                            (of_another_version, "is of another version")])
def test_a_file_that_cannot_be_used_is_ignored_and_said_once(busy, damage, reason):
    stop(busy)
    file = file_of(busy)
    file.write_bytes(damage(file.read_bytes()))
    since = busy.cluster.log.position()
    busy.cluster.start()
    assert stats(busy) == ZERO
    assert busy.cluster.log.since(since).count("pushy.counters") == 1
    assert f'"pg_stat/pushy.counters" {reason}' in busy.cluster.log.since(since)
    assert not file.exists()


def test_a_file_of_an_earlier_stop_is_not_taken(busy):
    """As it would stand there when the server had run without the library since, and crashed."""
    stop(busy)
    shutil.copy2(file_of(busy), busy.cluster.folder / "old")
    busy.cluster.start()
    stop(busy, "immediate")
    shutil.copy2(busy.cluster.folder / "old", file_of(busy))
    account.give(file_of(busy))
    since = busy.cluster.log.position()
    busy.cluster.start()
    assert stats(busy) == ZERO
    assert "pushy.counters" not in busy.cluster.log.since(since)


def test_a_file_that_cannot_be_written_is_said_and_keeps_no_server_from_stopping(busy):
    (busy.cluster.data / "pg_stat" / "pushy.counters.tmp").mkdir()
    stop(busy)
    assert "could not write \"pg_stat/pushy.counters\"" in busy.cluster.log.since()
    busy.cluster.start()
    assert stats(busy) == ZERO


@pytest.mark.parametrize("again", [
    "SELECT pushy.queue_drop('q'); SELECT pushy.queue_register('q', 'work')",
    "DROP EXTENSION pushy; CREATE EXTENSION pushy; SELECT pushy.queue_register('q', 'work')"])
def test_a_queue_made_anew_after_the_restart_begins_at_zero(busy, again):
    # So that nobody has looked at the queue before.
    busy.cluster.configure(pushy__enabled="off")
    stop(busy)
    busy.cluster.start()
    busy.sql(again)
    assert counts(busy) == (0, 0, 0, 0, 0)
    stop(busy)
    busy.cluster.start()
    assert counts(busy) == (0, 0, 0, 0, 0)
