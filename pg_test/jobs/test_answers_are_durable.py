"""What a caller is answered of a job that an executor has ended stays true when the server crashes a moment later, although
executors do not wait for the disk."""

import signal

import pytest


@pytest.fixture
def lazy(make_cluster):
    """A server in which nothing reaches the disk but what somebody flushes; its handler leaves who has run it."""
    cluster = make_cluster({"autovacuum": "off", "pushy.max_executors": 2, "pushy.synchronous_commit": "off"})
    db = cluster.database()
    db.sql("""
        CREATE TABLE ran (job bigint, pid int);
        CREATE FUNCTION work(job pushy.job) RETURNS int LANGUAGE sql AS
          'INSERT INTO ran VALUES (job.id, pg_backend_pid()) RETURNING pid';
        CREATE FUNCTION fail() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
        SELECT pushy.queue_register('q', 'work(pushy.job)'), pushy.queue_register('failing', 'fail()', max_attempts => 1),
               pushy.queue_register('forgotten', 'work(pushy.job)', keep_completed => '0')""")
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    for kind in ("walwriter", "checkpointer"):
        cluster.kill(db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = %s", kind), signal.SIGSTOP)
    return db


def test_a_job_that_job_wait_has_answered_is_completed_after_a_crash(lazy):
    seen = lazy.job_wait(lazy.value("SELECT pushy.enqueue('q')"))
    lazy.cluster.crash()
    assert lazy.rows("SELECT pid FROM ran WHERE job = %s", seen["id"]) == [(seen["result"],)]
    assert lazy.job(seen["id"])["finished_at"] == seen["finished_at"]


def test_a_job_that_job_wait_has_answered_is_discarded_after_a_crash(lazy):
    seen = lazy.job_wait(lazy.value("SELECT pushy.enqueue('failing')"))
    lazy.cluster.crash()
    assert lazy.job(seen["id"])["finished_at"] == seen["finished_at"] and seen["state"] == "discarded"


def test_a_queue_that_jobs_wait_has_found_at_rest_is_so_after_a_crash(lazy):
    jobs = lazy.rows("SELECT pushy.enqueue_many('q', array_agg(to_jsonb(i))) FROM generate_series(1, 50) i")
    lazy.jobs_wait("q")
    who = lazy.rows("SELECT job, pid FROM ran ORDER BY job")
    assert len(who) == len(jobs) + 1
    lazy.cluster.crash()
    assert lazy.rows("SELECT job, pid FROM ran ORDER BY job") == who


def test_a_job_that_job_cancel_has_called_finished_is_so_after_a_crash(lazy):
    job = lazy.value("SELECT pushy.enqueue('q')")
    lazy.wait_until(f"SELECT state FROM pushy.jobs WHERE id = {job}", "completed")
    finished = lazy.job(job)["finished_at"]
    assert lazy.value("SELECT pushy.job_cancel(%s)", job) is False
    lazy.cluster.crash()
    assert lazy.job(job)["finished_at"] == finished
