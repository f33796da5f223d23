"""The views: what they count, and that looking is cheap."""

import threading

import pytest

from harness.gate import Gate


@pytest.fixture
def fine(db):
    db.sql("CREATE FUNCTION fine(args jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT args'; SELECT pushy.queue_register('q', 'fine')")
    return db


def plan(db, query):
    return "\n".join(line for line, in db.rows("EXPLAIN (COSTS off) " + query))


@pytest.mark.parametrize("query, indexes", [
    ("SELECT * FROM pushy.jobs WHERE id = 7", ["live_job_pkey", "finished_job_pkey"]),
    ("SELECT * FROM pushy.failures WHERE job_id = 7", ["failure_pkey"]),
    ("SELECT * FROM pushy.queues WHERE queue = 'q'", ["queue_queue_key"]),
    ("SELECT * FROM pushy.stats WHERE queue = 'q'", ["queue_queue_key"]),
])
def test_who_asks_for_one_pays_for_one(fine, query, indexes):
    fine.sql("SET enable_seqscan = off")
    seen = plan(fine, query)
    for index in indexes:
        assert index in seen, seen


def test_the_privilege_is_asked_once_per_queue_not_per_job(fine):
    fine.sql("SELECT pushy.queue_pause('q'), count(pushy.enqueue('q')) FROM generate_series(1, 2000)")
    fine.sql("SET track_functions = 'all'")
    fine.sql("ANALYZE pushy_internal.live_job, pushy_internal.queue, pushy_internal.finished_job")
    seen = plan(fine, "SELECT state, count(*) FROM pushy.jobs GROUP BY state")
    scan = next(line for line in seen.splitlines() if "queue_monitored" in line)
    assert "Hash" in seen and "queue_monitored(queue_id)" in scan.replace("q.queue_id", "queue_id"), seen


def test_stats_count_what_became_of_jobs(fine):
    fine.sql("CREATE FUNCTION bad() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
             "SELECT pushy.queue_register('bad', 'bad()', max_attempts => 2, retry_delay => '0', backoff => 'fixed')")
    fine.sql("SELECT count(pushy.enqueue('q')) FROM generate_series(1, 20)")
    fine.sql("SELECT pushy.enqueue('bad')")
    fine.jobs_wait("q")
    fine.jobs_wait("bad")
    fine.sql("SELECT pushy.job_cancel(pushy.enqueue('q', delay => '1 hour'))")
    seen = fine.row("SELECT * FROM pushy.stats WHERE queue = 'q'")
    assert (seen["enqueued"], seen["completed"], seen["failed"], seen["cancelled"]) == (21, 20, 0, 1), seen
    assert seen["wait_p50"] <= seen["wait_p95"] <= seen["wait_p99"] and seen["run_p50"] <= seen["run_p99"], seen
    assert 1 <= seen["batches"] <= 20, seen
    seen = fine.row("SELECT * FROM pushy.stats WHERE queue = 'bad'")
    assert (seen["enqueued"], seen["completed"], seen["failed"], seen["retried"], seen["discarded"]) == (1, 0, 2, 1, 1), seen


def test_stats_have_a_row_for_the_event_log(fine, role):
    """Its size and how far back it reaches, for everybody, as pushy.log has them."""
    log = "SELECT log_bytes, log_oldest FROM pushy.stats WHERE queue IS NULL"
    empty, oldest = fine.rows(log)[0]
    assert (empty < 1 << 20, oldest) == (True, None)
    fine.sql("SELECT pushy.subscription_create('s')")
    fine.sql("SELECT pushy.notify('c', repeat('x', 7000) || n, delivery => 'relay') FROM generate_series(1, 200) n")
    fine.sql("CALL pushy.subscription_wait('s', '20 s')")
    with fine.connect(user=role()) as session:
        [(size, oldest)] = session.execute(log).fetchall()
    assert (size, oldest) == fine.rows("SELECT bytes, oldest FROM pushy.log")[0]
    assert size - empty > 200 * 7000
    fine.job_wait(fine.value("SELECT pushy.enqueue('q')"))
    assert fine.rows("SELECT queue, log_bytes, log_oldest FROM pushy.stats ORDER BY queue") == [("q", None, None), (None, size, oldest)]


def test_stats_of_one_queue_do_not_look_at_the_log(fine):
    seen = plan(fine, "SELECT * FROM pushy.stats WHERE queue = 'q'")
    assert "log_bounds" not in seen, seen


def test_all_queues_are_seen_by_one_who_looks_for_the_first_time(fine, role):
    """Also those that a view does not read one by one."""
    reader = role()
    fine.sql("SELECT pushy.queue_register('q' || n, 'fine') FROM generate_series(1, 60) n")
    fine.sql("SELECT pushy.queue_grant('q' || n, %s, 'monitor') FROM generate_series(1, 60, 2) n", reader)
    session = fine.connect(reader)
    seen = {queue for queue, in session.execute("SELECT queue FROM pushy.stats WHERE queue IS NOT NULL").fetchall()}
    assert seen == {f"q{n}" for n in range(1, 61, 2)}
    many = fine.connect()
    many.execute("BEGIN")
    assert many.execute("SELECT count(*) FROM pushy.stats WHERE queue IS NOT NULL").fetchone() == (61,)
    # One by one at first, then all at once, and no more.
    [(scans,)] = many.execute("SELECT pg_stat_get_xact_numscans('pushy_internal.queue'::regclass)").fetchall()
    assert scans < 30, scans
    many.execute("ROLLBACK")
    fine.sql("SELECT pushy.queue_revoke('q1', %s, 'monitor')", reader)
    assert session.execute("SELECT count(*), count(*) FILTER (WHERE queue = 'q1') FROM pushy.stats WHERE queue IS NOT NULL").fetchone() == (29, 0)
    fine.main.execute("BEGIN; SELECT pushy.queue_register('new', 'fine')")
    assert fine.value("SELECT count(*) FROM pushy.queues") == 62
    fine.main.execute("ROLLBACK")
    assert fine.value("SELECT count(*) FROM pushy.queues") == 61


def test_a_running_job_is_shown_with_its_progress(db):
    gate = Gate(db)
    db.sql(f"CREATE FUNCTION slow() RETURNS void LANGUAGE plpgsql AS $$BEGIN "
           f"PERFORM pushy.job_progress(0.25, 'warm'); PERFORM {gate.stop}; END$$;"
           "SELECT pushy.queue_register('q', 'slow()')")
    job = db.value("SELECT pushy.enqueue('q')")
    [pid] = gate.wait_for_arrival()
    seen = db.job(job)
    assert (seen["state"], seen["attempt"], seen["progress"], seen["progress_message"]) == ("running", 1, 0.25, "warm"), seen
    assert seen["started_at"] is not None
    worker = db.row("SELECT * FROM pushy.workers WHERE job_id = %s", job)
    assert (worker["kind"], worker["pid"], worker["queue"], worker["state"], worker["progress"]) == ("executor", pid, "q", "busy", 0.25), worker
    assert db.value("SELECT running FROM pushy.queues") == 1
    gate.open()
    db.jobs_wait("q")
    assert db.row("SELECT state, progress FROM pushy.jobs WHERE id = %s", job) == {"state": "completed", "progress": None}


def test_an_executor_that_looks_for_a_job_is_not_shown_as_running_one(db):
    db.sql("CREATE FUNCTION fine() RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'fine()')")
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    with db.connect(autocommit=False) as enqueuer, db.connect(autocommit=False) as locker:
        job = enqueuer.execute("SELECT pushy.enqueue('q')").fetchone()[0]
        # It has the lock before any executor, because it has asked first.
        locking = threading.Thread(target=locker.execute, args=("LOCK TABLE pushy_internal.live_job IN EXCLUSIVE MODE",))
        locking.start()
        waits = "SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND l.relation = 'pushy_internal.live_job'::regclass"
        db.wait_until(f"SELECT count(*) FROM ({waits}) w", 1)
        enqueuer.commit()
        locking.join()
        looking = f"SELECT running FROM pushy.queues WHERE EXISTS ({waits} AND a.backend_type = 'pushy executor')"
        assert db.wait_until(looking, lambda running: running is not None) == 0
        locker.commit()
    db.job_wait(job)


def test_workers_are_shown_to_their_role_and_to_monitors(db, role):
    worker, stranger, monitor = role(), role(), role("IN ROLE pg_monitor")
    db.sql("CREATE FUNCTION fine() RETURNS void LANGUAGE sql AS 'SELECT'")
    db.sql("SELECT pushy.queue_register('q', 'fine()', run_as => %s)", worker)
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    mine = "SELECT DISTINCT kind, role FROM pushy.workers WHERE role = %s OR kind = 'launcher' ORDER BY kind"
    assert db.connect(worker).execute(mine, (worker,)).fetchall() == [("executor", worker)]
    assert db.connect(stranger).execute(mine, (worker,)).fetchall() == []
    assert db.connect(monitor).execute(mine, (worker,)).fetchall() == [("executor", worker), ("launcher", None)]


def test_a_scheduler_that_waits_for_a_time_is_shown_as_idle(fine):
    """It is there for some seconds before a job is due."""
    fine.sql("SELECT pushy.enqueue('q', delay => '4 s')")
    state = "SELECT state FROM pushy.workers WHERE kind = 'scheduler' AND database = current_database()"
    assert fine.wait_until(state, lambda state: state is not None) in ("busy", "idle")
    fine.wait_until(state, "idle")


def test_a_role_with_a_connection_limit_of_0_still_runs_jobs(fine, role):
    """Workers do not count against it."""
    name = role("CONNECTION LIMIT 0")
    fine.sql("SELECT pushy.queue_register('q', 'fine', run_as => %s)", name)
    assert fine.job_wait(fine.value("SELECT pushy.enqueue('q')"))["state"] == "completed"
