"""job_retry of all that a query finds: no job among them fails the others."""

import pytest

from harness.refusal import refused


@pytest.fixture
def failed(db):
    """Discarded jobs: two of one unique key, one of another, one without; their handler is mended."""
    db.sql("CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$; SELECT pushy.queue_register('q', 'work(jsonb)', max_attempts => 1)")
    for key in ("a", "a", "b", None):
        db.job_wait(db.value("SELECT pushy.enqueue('q', unique_key => %s)", key))
    db.sql("CREATE OR REPLACE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS ''")
    return db


def states(db) -> dict:
    return dict(db.rows("SELECT state::text, count(*) FROM pushy.jobs GROUP BY 1"))


def test_one_job_of_a_key_runs_for_all_of_it(failed):
    fix, = [fix for fix, in failed.rows("SELECT fix FROM pushy.queue_explain('q')") if "pushy.job_retry" in (fix or "")]
    answers = [is_retried for is_retried, in failed.rows("SELECT" + fix.rpartition("SELECT")[2])]
    assert sorted(answers) == [False, True, True, True]
    failed.jobs_wait("q")
    assert states(failed) == {"completed": 3, "discarded": 1}
    # The key is free again.
    assert failed.rows("SELECT pushy.job_retry(id) FROM pushy.jobs WHERE state = 'discarded'") == [(True,)]


def test_a_job_whose_key_another_has_is_not_retried_before_that_one_has_started(failed):
    failed.sql("SELECT pushy.queue_pause('q')")
    waiting = failed.value("SELECT pushy.enqueue('q', unique_key => 'b', delay => '1 day')")
    assert failed.rows("SELECT pushy.job_retry(id) FROM pushy.jobs WHERE unique_key = 'b' AND state = 'discarded'") == [(False,)]
    assert failed.job(waiting)["state"] == "scheduled"


@pytest.mark.parametrize("call", ["job_retry", "job_cancel"])
def test_a_job_that_is_gone_since_the_statement_began_is_no_error(db, role, call):
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'work()', keep_completed => '0'), pushy.queue_pause('q')")
    job = db.value("SELECT pushy.enqueue('q')")
    with db.connect(autocommit=False) as session, db.connect(role(), autocommit=False) as stranger:
        for each in (session, stranger):
            each.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        db.sql("SELECT pushy.queue_resume('q')")
        db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0)
        assert session.execute(f"SELECT pushy.{call}(id) FROM pushy.jobs").fetchall() == [(False,)]
        refused(stranger, f"SELECT pushy.{call}({job})", "42704", f"job {job} does not exist")
    refused(db.main, f"SELECT pushy.{call}({job})", "42704", f"job {job} does not exist")


def test_job_wait_says_why_a_job_of_a_queue_that_keeps_none_may_be_gone(db):
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'work()', keep_completed => '0')")
    job = db.value("SELECT pushy.enqueue('q')")
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0)
    refused(db.main, f"SELECT pushy.job_wait({job})", "42704", "keep_completed", "at once where that is 0")
