"""What handlers and workers outside say of their jobs: job_log and the view job_logs."""

import uuid

import psycopg
import pytest

from stage.windows import wake_scheduler


def declare(db, body: str, kind: str = "FUNCTION", options: str = "max_attempts => 1") -> None:
    returns = "RETURNS void" if kind == "FUNCTION" else ""
    db.sql(f"""
        CREATE {kind} work(job pushy.job) {returns} LANGUAGE plpgsql AS $$BEGIN {body} END $$;
        SELECT pushy.queue_register('q', 'work(pushy.job)', {options})""")


def enqueue(db, args: str = "{}") -> int:
    return db.value("SELECT pushy.enqueue('q', %s::jsonb)", args)


def lines(db, job: int) -> list[tuple]:
    return db.rows("SELECT attempt, line, level, message FROM pushy.job_logs WHERE job_id = %s ORDER BY line", job)


KINDS = ["FUNCTION", "PROCEDURE"]


@pytest.mark.parametrize("kind", KINDS)
def test_lines_of_a_job_are_kept_in_order_with_level_and_time(db, kind):
    declare(db, "PERFORM pushy.job_log('one'), pushy.job_log('two', 'warning'), pushy.job_log('three', level => 'debug');", kind)
    job = enqueue(db)
    assert db.job_wait(job)["state"] == "completed"
    assert lines(db, job) == [(1, 1, "info", "one"), (1, 2, "warning", "two"), (1, 3, "debug", "three")]
    assert db.value("SELECT bool_and(said_at BETWEEN j.started_at AND j.finished_at) FROM pushy.job_logs l JOIN pushy.jobs j ON j.id = l.job_id")
    assert db.value("SELECT queue FROM pushy.job_logs LIMIT 1") == "q"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_failed_attempt_has_said_is_kept(db, kind):
    """Also where it was said in a part that was undone: who looks for the reason wants it most."""
    declare(db, "PERFORM pushy.job_log('attempt ' || job.attempt); IF job.attempt = 1 THEN RAISE 'no'; END IF;", kind,
            "max_attempts => 2, retry_delay => '0'")
    job = enqueue(db)
    assert db.job_wait(job)["state"] == "completed"
    assert lines(db, job) == [(1, 1, "info", "attempt 1"), (2, 2, "info", "attempt 2")]


def test_lines_are_bounded_in_length_and_number(db):
    declare(db, "PERFORM pushy.job_log(repeat('ä', 3000)); FOR n IN 2 .. 300 LOOP PERFORM pushy.job_log('line ' || n, 'error'); END LOOP;")
    job = enqueue(db)
    db.job_wait(job)
    kept = lines(db, job)
    assert len(kept) == 100 and kept[0][3] == "ä" * 1000 and kept[98][3] == "line 99"
    assert kept[99][2:] == ("warning", "an attempt says 100 lines at most: what follows is not kept")


def test_the_newest_thousand_lines_of_a_job_are_kept(db):
    declare(db, """
        FOR n IN 1 .. 90 LOOP PERFORM pushy.job_log('line ' || n); END LOOP;
        PERFORM pushy.job_checkpoint(to_jsonb(coalesce(job.checkpoint::int, 0) + 1));
        IF coalesce(job.checkpoint::int, 0) < 12 THEN PERFORM pushy.job_snooze('0'); END IF;""")
    job = enqueue(db)
    assert db.job_wait(job)["state"] == "completed"
    assert db.row("SELECT count(*) AS lines, max(line) - min(line) AS span, max(line) AS last FROM pushy.job_logs WHERE job_id = %s", job) == {
        "lines": 1000, "span": 999, "last": 13 * 90}


def test_lines_of_a_batch_go_to_their_own_jobs(db):
    declare(db, "PERFORM pushy.job_log(job.id::text);", options="concurrency => 1")
    db.sql("SELECT pushy.enqueue_many('q', ARRAY(SELECT jsonb_build_object('n', n) FROM generate_series(1, 100) n))")
    db.jobs_wait("q")
    assert db.value("SELECT count(*) FROM pushy.job_logs WHERE message = job_id::text") == 100
    assert db.value("SELECT count(*) FROM pushy.job_logs") == 100


def test_lines_of_attempts_that_are_made_again_are_not_kept_twice(db):
    """A batch that cannot commit is run again one by one."""
    db.sql("""
        CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)""")
    declare(db, "PERFORM pushy.job_log('said'); IF job.args->>'n' = '7' THEN INSERT INTO public.child VALUES (1); END IF;",
            options="concurrency => 1, max_attempts => 1")
    db.sql("SELECT pushy.queue_pause('q')")
    db.sql("SELECT pushy.enqueue_many('q', ARRAY(SELECT jsonb_build_object('n', n) FROM generate_series(1, 20) n))")
    db.sql("SELECT pushy.queue_resume('q')")
    db.jobs_wait("q")
    assert db.value("SELECT array_agg(DISTINCT n) FROM (SELECT count(*) n FROM pushy.job_logs GROUP BY job_id) _") == [1]
    assert db.value("SELECT count(*) FROM pushy.jobs j WHERE state = 'completed' AND NOT EXISTS (SELECT FROM pushy.job_logs l WHERE l.job_id = j.id)") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_lines_go_with_their_job(db, kind):
    declare(db, "PERFORM pushy.job_log('said'); IF job.args ? 'fails' THEN RAISE 'no'; END IF;", kind,
            "max_attempts => 1")
    jobs = [enqueue(db), enqueue(db, '{"fails": true}')]
    db.jobs_wait("q")
    for job in jobs:
        assert lines(db, job) == [(1, 1, "info", "said")]
    db.sql("UPDATE pushy_internal.finished_job SET expires_at = now() - interval '1 hour'")
    db.sql("SELECT pushy.queue_alter('q', keep_completed => '2 hours')")
    with db.connect() as session:
        pid = session.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pushy scheduler' AND datname = current_database()").fetchone()
        if pid:
            session.execute("SELECT pg_terminate_backend(%s)", pid)
    db.wait_until("SELECT count(*) FROM pushy_internal.finished_job", 0)
    assert db.value("SELECT count(*) FROM pushy_internal.job_log") == 0


def test_lines_of_jobs_that_are_not_kept_are_not_kept(db):
    declare(db, "PERFORM pushy.job_log('said'); IF job.attempt = 1 THEN RAISE 'no'; END IF;",
            options="keep_completed => '0', retry_delay => '0', max_attempts => 2")
    enqueue(db)
    db.jobs_wait("q")
    assert db.value("SELECT count(*) FROM pushy_internal.job_log") == 0


def test_lines_and_checkpoints_go_with_their_queue(db):
    declare(db, "PERFORM pushy.job_log('said'), pushy.job_checkpoint('1'); COMMIT; RAISE 'no';", "PROCEDURE")
    db.job_wait(enqueue(db))
    assert db.value("SELECT count(*) FROM pushy_internal.checkpoint") == 1
    db.sql("SELECT pushy.queue_drop('q')")
    assert db.value("SELECT count(*) FROM pushy.job_logs") == 0
    # The time comes when what dropped queues have left is removed.
    db.sql("""UPDATE pushy_internal.dropped_queue SET dropped_at = dropped_at - interval '10 minutes';
              UPDATE pushy_internal.job_log SET said_at = said_at - interval '10 minutes';
              CREATE FUNCTION note(jsonb) RETURNS void LANGUAGE sql AS 'SELECT'""")
    wake_scheduler(db)
    db.wait_until("SELECT count(*) FROM pushy_internal.dropped_queue", 0)
    assert db.value("SELECT (SELECT count(*) FROM pushy_internal.job_log) + (SELECT count(*) FROM pushy_internal.checkpoint)") == 0


# -- outside -----------------------------------------------------------------------------------------------------

@pytest.fixture
def mails(db):
    """Queue `mails`, whose jobs workers outside do; a job of it, and its token."""
    db.sql("SELECT pushy.queue_register('mails')")
    db.mail = db.value("SELECT pushy.enqueue('mails')")
    db.token = db.value("SELECT token FROM pushy.job_claim('mails')")
    return db


def test_a_worker_outside_says_something_of_what_it_has_claimed(mails):
    assert mails.value("SELECT pushy.job_log('half way', 'warning', %s, %s)", mails.mail, mails.token) is True
    assert mails.rows("SELECT pushy.job_log(l.m, l.l, %s, %s) FROM unnest(ARRAY['a', 'b'], ARRAY['info', 'debug']) l (m, l)",
                      mails.mail, mails.token) == [(True,), (True,)]
    assert lines(mails, mails.mail) == [(1, 1, "warning", "half way"), (1, 2, "info", "a"), (1, 3, "debug", "b")]
    assert mails.value("SELECT pushy.job_complete(%s, %s)", mails.mail, mails.token) is True
    assert len(lines(mails, mails.mail)) == 3


def test_who_does_not_know_the_token_says_nothing(mails):
    assert mails.value("SELECT pushy.job_log('x', 'info', %s, %s)", mails.mail, uuid.uuid4()) is False
    assert mails.value("SELECT pushy.job_log('x', 'info', %s, %s)", mails.mail + 1, mails.token) is False
    mails.sql("SELECT pushy.job_complete(%s, %s)", mails.mail, mails.token)
    assert mails.value("SELECT pushy.job_log('x', 'info', %s, %s)", mails.mail, mails.token) is False
    assert lines(mails, mails.mail) == []


def test_lines_of_a_released_job_go_with_it_all_the_same(mails):
    """Its completion as a first attempt is a row that stands alone, not one of a table that is emptied as a whole."""
    mails.sql("SELECT pushy.job_log('x', 'info', %s, %s)", mails.mail, mails.token)
    mails.sql("SELECT pushy.job_release(%s, %s)", mails.mail, mails.token)
    token = mails.value("SELECT token FROM pushy.job_claim('mails')")
    mails.sql("SELECT pushy.job_complete(%s, %s)", mails.mail, token)
    assert mails.value("SELECT count(*) FROM ONLY pushy_internal.finished_job") == 1


def test_a_role_sees_lines_of_queues_that_it_may_monitor_only(mails, role):
    mails.sql("SELECT pushy.job_log('secret', 'info', %s, %s)", mails.mail, mails.token)
    stranger = role()
    mails.sql(f"GRANT USAGE ON SCHEMA pushy TO {stranger}")
    with mails.connect(user=stranger) as session:
        assert session.execute("SELECT count(*) FROM pushy.job_logs").fetchone() == (0,)
        # As if there were no such job, but for who knows its token.
        assert session.execute("SELECT pushy.job_log('x', 'info', %s, gen_random_uuid())", (mails.mail,)).fetchone() == (False,)
        mails.sql(f"SELECT pushy.queue_grant('mails', '{stranger}', 'monitor')")
        assert session.execute("SELECT message FROM pushy.job_logs").fetchall() == [("secret",)]
        with pytest.raises(psycopg.Error, match="permission denied for queue"):
            session.execute("SELECT pushy.job_log('x', 'info', %s, %s)", (mails.mail, mails.token))
