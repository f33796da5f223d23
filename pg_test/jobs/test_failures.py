"""Failing jobs: charged, tried again when it is time, discarded after the last attempt, with every error kept."""

import datetime
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.gate import Gate
from harness.refusal import refused


def failing(db, options: str = "") -> None:
    """Registers queue `q`, whose handler fails as long as it is attempted fewer times than its argument says."""
    db.sql(f"""
        CREATE TABLE effects (n int);
        CREATE FUNCTION work(job pushy.job) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.effects VALUES (job.attempt);
            IF job.attempt < (job.args->>'succeeds_at')::int THEN
                RAISE EXCEPTION 'attempt % failed', job.attempt USING ERRCODE = 'AB123', DETAIL = 'a detail', HINT = 'a hint';
            END IF;
            RETURN 'at last';
        END $$;
        SELECT pushy.queue_register('q', 'work(pushy.job)', retry_delay => '10 ms' {options})""")


def test_a_job_that_fails_twice_succeeds_at_its_third_attempt(db):
    failing(db)
    job = db.value("SELECT pushy.enqueue('q', '{\"succeeds_at\": 3}')")
    done = db.job_wait(job)
    assert (done["state"], done["attempt"], done["result"]) == ("completed", 3, "at last"), done
    assert db.rows("SELECT n FROM effects") == [(3,)], "effects of a failed attempt were kept"


def test_every_failed_attempt_is_kept_with_its_error(db):
    failing(db, ", max_attempts => 2")
    job = db.value("SELECT pushy.enqueue('q', '{\"succeeds_at\": 9}')")
    done = db.job_wait(job)
    assert (done["state"], done["attempt"], done["max_attempts"]) == ("discarded", 2, 2)
    assert "attempt 2 failed" in done["last_error"]
    failures = db.rows("SELECT attempt, sqlstate, message, detail, hint, context LIKE %s FROM pushy.failures WHERE job_id = %s "
                       "ORDER BY attempt", "%work%", job)
    assert failures == [(n, "AB123", f"attempt {n} failed", "a detail", "a hint", True) for n in (1, 2)]


def test_a_job_may_have_fewer_attempts_than_its_queue(db):
    failing(db, ", max_attempts => 10")
    done = db.job_wait(db.value("SELECT pushy.enqueue('q', '{\"succeeds_at\": 9}', max_attempts => 1)"))
    assert (done["state"], done["attempt"], done["max_attempts"]) == ("discarded", 1, 1)


def test_between_two_attempts_a_job_is_retryable_and_due_later(db):
    failing(db, ", backoff => 'fixed'")
    db.sql("SELECT pushy.queue_alter('q', retry_delay => '1 hour')")
    job = db.value("SELECT pushy.enqueue('q', '{\"succeeds_at\": 2}')")
    db.wait_until("SELECT state::text FROM pushy.jobs WHERE id = %s", "retryable", params=(job,))
    seen = db.job(job)
    wait = db.value("SELECT j.run_at - f.failed_at FROM pushy.jobs j JOIN pushy.failures f ON f.job_id = j.id WHERE j.id = %s", job)
    assert datetime.timedelta(minutes=53) < wait < datetime.timedelta(minutes=67), "1 hour ± 10 %"
    assert seen["attempt"] == 1 and "attempt 1 failed" in seen["last_error"]


@pytest.mark.parametrize("backoff, factors", [("fixed", [1, 1, 1, 1]), ("linear", [1, 2, 3, 4]), ("exponential", [1, 2, 4, 8])])
def test_the_delay_between_attempts_follows_the_backoff(db, backoff, factors):
    failing(db, f", backoff => '{backoff}', max_attempts => 5")
    db.sql("SELECT pushy.queue_alter('q', retry_delay => '1 hour')")
    job = db.value("SELECT pushy.enqueue('q', '{\"succeeds_at\": 9}')")
    for attempt, factor in enumerate(factors, start=1):
        db.wait_until("SELECT state = 'retryable' AND attempt = %s FROM pushy.jobs WHERE id = %s", params=(attempt, job))
        hours = db.value("SELECT extract(epoch FROM j.run_at - f.failed_at) / 3600 FROM pushy.jobs j "
                         "JOIN pushy.failures f ON f.job_id = j.id WHERE j.id = %s AND f.attempt = %s", job, attempt)
        assert 0.89 * factor <= hours <= 1.11 * factor, f"after attempt {attempt}: {hours} hours"
        assert db.value("SELECT pushy.job_retry(%s)", job)
    assert db.job_wait(job)["state"] == "discarded"


def test_the_delay_is_never_longer_than_max_retry_delay(db):
    failing(db, ", backoff => 'exponential'")
    db.sql("SELECT pushy.queue_alter('q', retry_delay => '1 hour', max_retry_delay => '90 minutes')")
    job = db.value("SELECT pushy.enqueue('q', '{\"succeeds_at\": 9}')")
    for attempt in (1, 2, 3):
        db.wait_until("SELECT state = 'retryable' AND attempt = %s FROM pushy.jobs WHERE id = %s", params=(attempt, job))
        assert db.value("SELECT run_at < now() + interval '100 minutes' FROM pushy.jobs WHERE id = %s", job)
        db.sql("SELECT pushy.job_retry(%s)", job)


def test_a_job_over_its_timeout_is_stopped_and_charged(db):
    db.sql("""
        CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(60)';
        SELECT pushy.queue_register('q', 'work()', timeout => '200 ms', max_attempts => 1)""")
    done = db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    assert (done["state"], done["attempt"]) == ("discarded", 1)
    assert db.value("SELECT sqlstate FROM pushy.failures") == "57014"
    assert "timeout" in done["last_error"], done["last_error"]


def test_a_job_may_have_a_timeout_of_its_own(db):
    db.sql("""
        CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(60)';
        SELECT pushy.queue_register('q', 'work()', timeout => '1 hour', max_attempts => 1)""")
    done = db.job_wait(db.value("SELECT pushy.enqueue('q', timeout => '200 ms')"))
    assert done["state"] == "discarded" and "timeout" in done["last_error"], done


def test_a_failing_job_does_not_hold_up_the_others(db):
    failing(db, ", concurrency => 1")
    db.sql("SELECT pushy.queue_alter('q', retry_delay => '1 hour')")
    bad = db.value("SELECT pushy.enqueue('q', '{\"succeeds_at\": 9}')")
    good = db.value("SELECT pushy.enqueue('q', '{\"succeeds_at\": 1}')")
    assert db.job_wait(good)["state"] == "completed"
    db.wait_until("SELECT state::text FROM pushy.jobs WHERE id = %s", "retryable", params=(bad,))


@pytest.mark.parametrize("body, sqlstate, hint", [
    ("PERFORM 1 FROM notes", "42P01", "with that role's search_path, not with yours"),
    ("PERFORM noted()", "42883", "with that role's search_path, not with yours"),
    ("PERFORM nowhere.noted()", "3F000", "write names with their schema"),
    ("PERFORM pushy.current_job()", "42501", "GRANT USAGE ON SCHEMA pushy TO {role}"),
    ("RAISE 'mine' USING ERRCODE = '42P01', HINT = 'my own'", "42P01", "my own"),
])
def test_what_a_handler_does_not_find_or_may_not_use_says_what_its_session_is(db, role, body, sqlstate, hint):
    name = role()
    db.sql(f"CREATE SCHEMA app; CREATE TABLE app.notes (n int); CREATE FUNCTION app.noted() RETURNS void LANGUAGE sql AS ''; GRANT USAGE ON SCHEMA app TO {name};"
           f"CREATE FUNCTION app.work() RETURNS void LANGUAGE plpgsql AS $$BEGIN {body}; END$$; REVOKE USAGE ON SCHEMA pushy FROM {name}, PUBLIC;"
           f"SELECT pushy.queue_register('q', 'app.work()', run_as => '{name}', max_attempts => 1)")
    assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["state"] == "discarded"
    [(state, said)] = db.rows("SELECT sqlstate, hint FROM pushy.failures")
    assert state == sqlstate and hint.format(role=name) in said, said
    if hint == "my own":
        assert said == hint


def test_job_wait_answers_the_attempt_that_runs_as_the_view_does(db):
    gate = Gate(db)
    db.sql(f"CREATE FUNCTION gated() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$; SELECT pushy.queue_register('q', 'gated()', batch => false)")
    job = db.value("SELECT pushy.enqueue('q')")
    gate.wait_for_arrival()
    running = "SELECT state, attempt, started_at FROM "
    assert db.row(f"{running} pushy.job_wait(%s, '0')", job) == db.row(f"{running} pushy.jobs WHERE id = %s", job) | {"state": "running", "attempt": 1}
    gate.open()
    assert db.job_wait(job)["attempt"] == 1


def test_a_job_that_completes_while_it_is_waited_for_is_answered_also_where_its_queue_keeps_none(db):
    gate = Gate(db)
    db.sql(f"CREATE FUNCTION gated() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$; SELECT pushy.queue_register('q', 'gated()', batch => false, keep_completed => '0')")
    job = db.value("SELECT pushy.enqueue('q', '{\"n\": 7}')")
    gate.wait_for_arrival()
    with db.connect() as waiter, ThreadPoolExecutor(1) as threads:
        waited = threads.submit(lambda: waiter.execute("SELECT state, args, attempt FROM pushy.job_wait(%s, '1 minute')", (job,)).fetchone())
        db.wait_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s" % waiter.info.backend_pid, "Extension")
        gate.open()
        assert waited.result() == ("completed", {"n": 7}, 1)
    refused(db.main, f"SELECT pushy.job_wait({job})", "42704", str(job))
