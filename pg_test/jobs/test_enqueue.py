"""Enqueue: what is committed runs, in the order that was asked for; what is not committed never was."""

import datetime

import psycopg
import pytest

from stage.watching import paused_queue

LEDGER = """
    CREATE TABLE ledger (n int, seq bigserial, xid xid8 DEFAULT pg_current_xact_id());
    CREATE FUNCTION note(args jsonb) RETURNS void LANGUAGE plpgsql AS
        $$BEGIN INSERT INTO public.ledger (n) VALUES ((args->>'n')::int); END$$;
"""


@pytest.fixture
def ledger(db):
    """A database whose queue `ledger` notes the argument n of each job it runs."""
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('ledger', 'note(jsonb)', concurrency => 1)")
    return db


def noted(db) -> list[int]:
    return [n for n, in db.rows("SELECT n FROM ledger ORDER BY seq")]


def test_a_job_runs_once_its_transaction_commits(ledger):
    with ledger.connect(autocommit=False) as session:
        job = session.execute("SELECT pushy.enqueue('ledger', '{\"n\": 1}')").fetchone()[0]
        assert ledger.rows("SELECT FROM pushy.jobs") == [], "seen before its commit"
        session.commit()
    assert ledger.job_wait(job)["state"] == "completed"
    assert noted(ledger) == [1]


def test_a_rolled_back_enqueue_leaves_nothing(ledger):
    with ledger.connect(autocommit=False) as session:
        session.execute("SELECT pushy.enqueue('ledger', '{\"n\": 1}')")
        session.rollback()
    assert ledger.rows("SELECT FROM pushy.jobs") == []


def test_a_rolled_back_savepoint_undoes_only_its_own_jobs(ledger):
    ledger.sql("""
        BEGIN;
        SELECT pushy.enqueue('ledger', '{"n": 1}');
        SAVEPOINT s;
        SELECT pushy.enqueue('ledger', '{"n": 2}');
        ROLLBACK TO s;
        SELECT pushy.enqueue('ledger', '{"n": 3}');
        COMMIT""")
    ledger.jobs_wait("ledger")
    assert noted(ledger) == [1, 3]


def test_an_exception_block_undoes_the_jobs_inside_it(ledger):
    ledger.sql("""
        DO $$
        BEGIN
            PERFORM pushy.enqueue('ledger', '{"n": 1}');
            BEGIN
                PERFORM pushy.enqueue('ledger', '{"n": 2}');
                RAISE EXCEPTION 'undone';
            EXCEPTION WHEN raise_exception THEN
                PERFORM pushy.enqueue('ledger', '{"n": 3}');
            END;
        END $$""")
    ledger.jobs_wait("ledger")
    assert noted(ledger) == [1, 3]


def test_the_args_default_to_an_empty_object_and_arrive_as_given(db):
    db.sql("""
        CREATE FUNCTION echo(args jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT args';
        SELECT pushy.queue_register('echo', 'echo(jsonb)')""")
    sent = '{"deep": [1, null, {"é": "\\u2603"}], "n": 12345678901234567890.5}'
    assert db.job_wait(db.value("SELECT pushy.enqueue('echo')"))["result"] == {}
    job = db.value("SELECT pushy.enqueue('echo', %s)", sent)
    db.job_wait(job)
    assert db.value("SELECT result = %s::jsonb AND args = %s::jsonb FROM pushy.jobs WHERE id = %s", sent, sent, job)


def test_jobs_of_one_priority_run_in_the_order_they_were_enqueued(ledger):
    ledger.sql("SELECT pushy.queue_pause('ledger')")
    ledger.sql("SELECT pushy.enqueue('ledger', jsonb_build_object('n', n)) FROM generate_series(1, 500) n")
    ledger.sql("SELECT pushy.queue_resume('ledger')")
    ledger.jobs_wait("ledger")
    assert noted(ledger) == list(range(1, 501))


def test_a_lower_priority_number_goes_first(ledger):
    ledger.sql("SELECT pushy.queue_pause('ledger')")
    for priority in (9, 5, 0, 5, 1):
        ledger.sql("SELECT pushy.enqueue('ledger', jsonb_build_object('n', %s::int), priority => %s)", priority, priority)
    ledger.sql("SELECT pushy.queue_resume('ledger')")
    ledger.jobs_wait("ledger")
    assert noted(ledger) == [0, 1, 5, 5, 9]


def test_the_queue_has_a_default_priority(ledger):
    ledger.sql("SELECT pushy.queue_pause('ledger'), pushy.queue_alter('ledger', priority => 3)")
    for n, priority in ((4, 4), (3, None), (2, 2)):
        ledger.sql("SELECT pushy.enqueue('ledger', jsonb_build_object('n', %s::int), priority => %s::int)", n, priority)
    ledger.sql("SELECT pushy.queue_resume('ledger')")
    ledger.jobs_wait("ledger")
    assert noted(ledger) == [2, 3, 4]


def test_a_delayed_job_is_scheduled_and_runs_when_it_is_due(ledger):
    job = ledger.value("SELECT pushy.enqueue('ledger', '{\"n\": 1}', delay => '700 ms')")
    assert ledger.job(job)["state"] == "scheduled"
    done = ledger.job_wait(job)
    assert done["state"] == "completed"
    assert datetime.timedelta() <= done["started_at"] - done["run_at"] < datetime.timedelta(seconds=5)
    assert done["run_at"] - done["enqueued_at"] == pytest.approx(datetime.timedelta(seconds=0.7), abs=datetime.timedelta(seconds=0.1))


def test_a_job_due_at_a_time_keeps_that_time(ledger):
    at = "2100-01-01 00:00:00+00"
    job = ledger.value("SELECT pushy.enqueue('ledger', run_at => %s)", at)
    assert ledger.value("SELECT state = 'scheduled' AND run_at = %s FROM pushy.jobs WHERE id = %s", at, job)


def test_a_job_due_in_the_past_runs_now(ledger):
    job = ledger.value("SELECT pushy.enqueue('ledger', '{\"n\": 1}', run_at => now() - interval '1 day')")
    assert ledger.job_wait(job)["state"] == "completed"


def test_an_earlier_due_job_does_not_wait_for_a_later_one(ledger):
    later = ledger.value("SELECT pushy.enqueue('ledger', '{\"n\": 2}', delay => '1 hour')")
    sooner = ledger.value("SELECT pushy.enqueue('ledger', '{\"n\": 1}', delay => '300 ms')")
    assert ledger.job_wait(sooner)["state"] == "completed"
    assert ledger.job(later)["state"] == "scheduled"


def test_enqueue_many_returns_an_id_for_each_job_in_order(ledger):
    ids = [job for job, in ledger.rows(
        "SELECT pushy.enqueue_many('ledger', (SELECT array_agg(jsonb_build_object('n', n)) FROM generate_series(1, 1000) n))")]
    assert len(ids) == 1000 and ids == sorted(set(ids))
    ledger.jobs_wait("ledger")
    assert noted(ledger) == list(range(1, 1001))


def test_enqueue_many_of_an_empty_array_is_no_job(ledger):
    assert ledger.rows("SELECT pushy.enqueue_many('ledger', '{}')") == []


def test_a_job_enqueued_while_the_queue_is_paused_waits(ledger):
    ledger.sql("SELECT pushy.queue_pause('ledger')")
    job = ledger.value("SELECT pushy.enqueue('ledger', '{\"n\": 1}')")
    assert ledger.job(job)["state"] == "available"
    ledger.sql("SELECT pushy.queue_resume('ledger')")
    assert ledger.job_wait(job)["state"] == "completed"


def test_a_handler_enqueues_the_next_step(db):
    db.sql("""
        CREATE FUNCTION step(args jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
        BEGIN
            IF (args->>'n')::int < 5 THEN
                RETURN pushy.enqueue('steps', jsonb_build_object('n', (args->>'n')::int + 1));
            END IF;
            RETURN NULL;
        END $$;
        SELECT pushy.queue_register('steps', 'step(jsonb)')""")
    job, chain = db.value("SELECT pushy.enqueue('steps', '{\"n\": 1}')"), []
    while job is not None:
        done = db.job_wait(job)
        assert done["state"] == "completed"
        chain.append(job)
        job = done["result"]
    assert len(chain) == 5
    assert db.rows("SELECT caused_by, depth FROM pushy.jobs ORDER BY id") \
        == list(zip([None, *chain[:-1]], range(5), strict=True))


def test_a_chain_of_jobs_that_never_ends_is_cut_at_max_depth(db):
    db.sql("""
        CREATE FUNCTION again(args jsonb) RETURNS void LANGUAGE plpgsql AS
            $$BEGIN PERFORM pushy.enqueue('loop'); END$$;
        SELECT pushy.queue_register('loop', 'again(jsonb)')""")
    db.sql("SELECT pushy.enqueue('loop')")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'discarded'", 1)
    limit = db.value("SHOW pushy.max_depth")
    assert db.value("SELECT max(depth)::text FROM pushy.jobs WHERE state = 'completed'") == limit
    assert db.value("SELECT sqlstate FROM pushy.failures") == "54001"
    db.jobs_wait("loop")


@pytest.mark.parametrize("function", ["enqueue('q', '1'", "enqueue_many('q', '{1}'"])
@pytest.mark.parametrize("delay", ["1 month", "1 year", "1 month 3 days 2 hours", "12 days", "1 month -3 days"])
def test_a_delay_is_added_as_sql_adds_it(db, function, delay):
    paused_queue(db)
    # In this zone a day in March and one in November are not of 24 hours.
    db.sql("SET timezone = 'America/New_York'")
    before, job, after = db.rows(f"SELECT clock_timestamp(), pushy.{function}, delay => '{delay}'), clock_timestamp()")[0]
    added = "SELECT %s + %s::interval <= run_at AND run_at <= %s + %s::interval FROM pushy.jobs WHERE id = %s"
    assert db.value(added, before, delay, after, delay, job)


@pytest.mark.parametrize("delay", ["-1 second", "1 day -25 hours", "-1 month"])
def test_a_delay_into_the_past_is_refused(db, delay):
    paused_queue(db)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="delay"):
        db.sql(f"SELECT pushy.enqueue('q', delay => '{delay}')")
