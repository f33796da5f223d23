"""What everybody knows of jobs means the same of those that workers outside do: waits, views, counts, history, explanations."""

import json
import threading

import psycopg
import pytest

from harness.waiting import wait_for
from stage.leases import claim, enqueue, state


@pytest.fixture
def mails(db):
    db.sql("SELECT pushy.queue_register('mails', retry_delay => '0', max_attempts => 2)")
    return db


def test_job_wait_and_jobs_wait_are_told_of_a_completion(mails):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails)
    seen = {}

    def wait(name: str, statement: str, *params) -> threading.Thread:
        def run() -> None:
            with mails.connect() as session:
                seen[name] = session.execute(statement, params).fetchone()[0]
        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [wait("job", "SELECT state FROM pushy.job_wait(%s, '60 s')", job), wait("jobs", "CALL pushy.jobs_wait('mails', '60 s')")]
    mails.wait_until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%_wait(%%' AND wait_event = 'Extension'", 2)
    assert mails.row("SELECT state, attempt FROM pushy.job_wait(%s, '0')", job)["state"] == "running"
    mails.sql("SELECT pushy.job_complete(%s, %s)", job, token)
    for thread in threads:
        thread.join(60)
    assert seen == {"job": "completed", "jobs": True}


def test_jobs_wait_waits_for_what_is_leased_and_for_a_claim_that_is_open(mails):
    [job] = enqueue(mails)
    with mails.connect(autocommit=False) as session:
        [(_, token)] = session.execute("SELECT job_id, token FROM pushy.job_claim('mails')").fetchall()
        # Neither ready nor leased, as others see it.
        assert mails.value("CALL pushy.jobs_wait('mails', '0')") is False
        session.commit()
    assert mails.value("CALL pushy.jobs_wait('mails', '0')") is False
    mails.sql("SELECT pushy.job_complete(%s, %s)", job, token)
    assert mails.value("CALL pushy.jobs_wait('mails', '10 s')") is True


def test_views_show_an_attempt_outside_as_one_inside(mails):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails, worker="w1")
    mails.sql("SELECT pushy.job_extend(%s, %s, fraction => 0.25, message => %s)", job, token, "x" * 500)
    row = mails.job(job)
    assert (row["state"], row["attempt"], row["progress"], row["progress_message"]) == ("running", 1, 0.25, "x" * 128)
    assert row["started_at"] is not None
    assert mails.row("SELECT queue, worker, claimed_by, over, progress FROM pushy.leases") == {
        "queue": "mails", "worker": "w1", "claimed_by": "postgres", "over": False, "progress": 0.25}
    assert mails.value("SELECT running FROM pushy.queues WHERE queue = 'mails'") == 1
    mails.sql("SELECT pushy.job_fail(%s, %s, 'no')", job, token)
    [(_, token)] = claim(mails)
    assert mails.value("SELECT last_error FROM pushy.jobs WHERE id = %s", job) == "no"
    mails.sql("SELECT pushy.job_fail(%s, %s, 'no again')", job, token)
    assert mails.row("SELECT state, attempt, last_error, started_at <= finished_at AS ended, progress FROM pushy.jobs WHERE id = %s", job) == {
        "state": "discarded", "attempt": 2, "last_error": "no again", "ended": True, "progress": None}
    assert [row[0] for row in mails.rows("SELECT attempt FROM pushy.failures WHERE job_id = %s ORDER BY 1", job)] == [1, 2]


def test_counts_are_those_of_jobs_inside(mails):
    mails.sql("SELECT pushy.queue_alter('mails', max_attempts => 3)")
    jobs = enqueue(mails, 6)
    held = dict(claim(mails, 6))
    done, failed, discarded, released, cancelled, _ = jobs
    mails.sql("SELECT pushy.job_complete(%s, %s)", done, held[done])
    mails.sql("SELECT pushy.job_fail(%s, %s)", failed, held[failed])
    mails.sql("SELECT pushy.job_fail(%s, %s, discard => true)", discarded, held[discarded])
    mails.sql("SELECT pushy.job_release(%s, %s)", released, held[released])
    mails.sql("SELECT pushy.job_cancel(%s)", cancelled)
    assert mails.row("SELECT running, enqueued, completed, failed, retried, discarded, cancelled, given_back, run_mean IS NOT NULL AS ran, wait_p50 IS NOT NULL AS waited"
                     " FROM pushy.stats WHERE queue = 'mails'") == {
        "running": 1, "enqueued": 6, "completed": 1, "failed": 2, "retried": 1, "discarded": 1, "cancelled": 1, "given_back": 1, "ran": True, "waited": True}


def test_what_is_done_is_kept_and_removed_as_its_queue_says(mails):
    mails.sql("SELECT pushy.queue_alter('mails', keep_completed => '0', keep_discarded => '0.5 s')")
    done, gone = enqueue(mails, 2)
    held = dict(claim(mails, 2))
    mails.sql("SELECT pushy.job_complete(%s, %s)", done, held[done])
    assert mails.rows("SELECT * FROM pushy.jobs WHERE id = %s", done) == []
    mails.sql("SELECT pushy.job_fail(%s, %s, discard => true)", gone, held[gone])
    # Single rows leave a minute after their time, many at once.
    mails.wait_until("SELECT count(*) FROM pushy.jobs", 0, deadline=90)
    mails.wait_until("SELECT count(*) FROM pushy_internal.failure", 0)


def test_what_a_completion_enqueues_is_its_own_business_and_job_trace_shows_the_leased(mails):
    [job] = enqueue(mails)
    claim(mails)
    assert [(row[1], row[5]) for row in mails.rows("SELECT * FROM pushy.job_trace(%s)", job)] == [(job, "running")]


def test_a_retry_of_what_is_leased_changes_nothing(mails):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails)
    assert mails.value("SELECT pushy.job_retry(%s)", job) is False
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is True
    assert mails.value("SELECT pushy.job_retry(%s)", job) is True
    assert [found for found, _ in claim(mails)] == [job]


def test_control_says_what_becomes_of_jobs_outside(mails):
    listener = mails.listen("pushy_control")
    discarded, cancelled = enqueue(mails, 2)
    held = dict(claim(mails, 2))
    mails.sql("SELECT pushy.job_fail(%s, %s, discard => true)", discarded, held[discarded])
    assert listener.wait_for_json(event="discard")["job_id"] == discarded
    mails.sql("SELECT pushy.job_cancel(%s)", cancelled)
    assert listener.wait_for_json(event="cancel")["job_id"] == cancelled


def test_a_dropped_queue_takes_its_leases_with_it(mails):
    [job] = enqueue(mails)
    [(_, token)] = claim(mails)
    with pytest.raises(psycopg.Error, match="unfinished"):
        mails.sql("SELECT pushy.queue_drop('mails')")
    mails.sql("SELECT pushy.queue_drop('mails', force => true)")
    assert mails.value("SELECT count(*) FROM pushy_internal.lease") == 0
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is False


# -- what a queue waits for --------------------------------------------------------------------------------------

def test_a_queue_says_what_it_waits_for(mails):
    def said() -> list[tuple]:
        return mails.rows("SELECT reason, fix FROM pushy.queue_explain('mails')")

    assert said()[0][0].startswith("no unfinished job is in the queue")
    first, second = enqueue(mails, 2)
    assert said() == [("no worker outside has asked for jobs since the server started", None)]
    [(_, token)] = claim(mails)
    [(reason, _)] = said()
    assert reason.endswith(("has asked for jobs in the last second", " s"))
    claim(mails, lease="0")
    [(reason, _)] = said()
    assert reason.startswith("2 jobs are leased to workers outside, the first until 20")
    mails.sql("SELECT pushy.job_complete(%s, %s)", first, token)
    assert said() == [("1 job is leased to workers outside until its session ends", None)]
    third = enqueue(mails)
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => 1)")
    assert said() == [("jobs of the queue are leased one after the other, as its concurrency of 1 says: one is leased until its session ends", None)]
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => 2)")
    claim(mails, lease="1 hour")
    enqueue(mails)
    [(reason, fix)] = said()
    assert reason.startswith("as many jobs are leased to workers outside as the queue's concurrency of 2 allows, the first until 20")
    mails.sql(fix)
    assert len(claim(mails)) == 1 and third


def test_a_queue_names_who_claims_in_a_transaction_that_stays_open(mails):
    first, _ = enqueue(mails, 2)
    with mails.connect(autocommit=False) as worker:
        worker.execute("SELECT * FROM pushy.job_claim('mails')")
        held = (f"1 ready job is locked by the open transaction, of a claim for example, of process {worker.info.backend_pid}, and can be claimed when it has ended", None)
        said = mails.rows("SELECT reason, fix FROM pushy.queue_explain('mails')")
        assert said[0] == held and len(said) == 2 and "asked for jobs" in said[1][0]
        worker.execute("SELECT * FROM pushy.job_claim('mails')")
        [(reason, _)] = mails.rows("SELECT reason, fix FROM pushy.queue_explain('mails')")
        assert reason.startswith("2 ready jobs are locked by the open transaction")
        worker.rollback()
        with mails.connect(autocommit=False) as boss:
            boss.execute("SELECT pushy.job_cancel(%s)", (first,))
            assert f"process {boss.info.backend_pid}" in mails.rows("SELECT reason FROM pushy.queue_explain('mails')")[0][0]


def test_no_setting_of_executors_concerns_a_queue_outside(make_cluster):
    db = make_cluster({"pushy.max_executors": 0}).database()
    db.sql("SELECT pushy.queue_register('mails')")
    [job] = enqueue(db)
    assert db.rows("SELECT reason FROM pushy.queue_explain('mails')") == [("no worker outside has asked for jobs since the server started",)]
    [(_, token)] = claim(db, lease="0.2 s")
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "retryable", params=(job,))


# -- a handler, or workers outside -------------------------------------------------------------------------------

def test_a_queue_changes_hands_when_nothing_of_it_is_leased(mails):
    mails.sql("CREATE FUNCTION send(jsonb) RETURNS void LANGUAGE sql AS ''")
    first, second = enqueue(mails, 2)
    [(_, token)] = claim(mails)
    for give in ("SELECT pushy.queue_alter('mails', handler => 'send(jsonb)')", "SELECT pushy.queue_register('mails', 'send(jsonb)')"):
        with pytest.raises(psycopg.errors.ObjectInUse, match="1 job of it is leased") as refused:
            mails.sql(give)
        assert "Pause it with pushy.queue_pause" in refused.value.diag.message_hint
    assert mails.value("SELECT pushy.job_complete(%s, %s)", first, token) is True
    mails.sql("SELECT pushy.queue_alter('mails', handler => 'send(jsonb)')")
    assert mails.job_wait(second)["state"] == "completed"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match='queue "mails" has a handler'):
        claim(mails)
    assert mails.value("SELECT pushy.queue_register('mails')") is None
    [third] = enqueue(mails)
    assert [job for job, _ in claim(mails)] == [third]


def test_an_outside_queue_is_altered_in_everything_else(mails, role):
    owner = role()
    mails.sql(f"SELECT pushy.queue_alter('mails', owner => '{owner}', run_as => '{owner}', lease => '5 min', priority => 1, timeout => '0')")
    assert mails.row("SELECT owner, run_as, handler, lease::text FROM pushy.queues") == {"owner": owner, "run_as": owner, "handler": None, "lease": "00:05:00"}
    mails.sql("SELECT pushy.queue_pause('mails'), pushy.queue_resume('mails')")
    enqueue(mails)
    assert mails.value("SELECT lease_until > now() + interval '4 minutes' FROM pushy.job_claim('mails')") is True


# -- who waits for whom ------------------------------------------------------------------------------------------

def test_two_calls_under_one_name_come_one_after_the_other(mails):
    first, second = enqueue(mails, 2)
    answers = []
    with mails.connect(autocommit=False) as slow:
        [(job, lost)] = slow.execute("SELECT job_id, token FROM pushy.job_claim('mails', worker => 'w')").fetchall()
        again = mails.connect()
        thread = threading.Thread(target=lambda: answers.extend(again.execute("SELECT job_id, token FROM pushy.job_claim('mails', worker => 'w')").fetchall()))
        thread.start()
        mails.wait_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", "Lock", params=(again.info.backend_pid,))
        # Another name does not wait.
        assert [found for found, _ in claim(mails, worker="v")] == [second]
        slow.commit()
        thread.join(30)
    [(found, token)] = answers
    assert found == job == first and token != lost
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, lost) is False
    assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is True


def test_who_asks_again_of_a_paused_queue_gets_what_he_holds(mails):
    first, _ = enqueue(mails, 2)
    claim(mails, worker="w", lease="1 hour")
    mails.sql("SELECT pushy.queue_pause('mails')")
    [(job, token)] = claim(mails, 5, worker="w")
    assert job == first and mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is True


def test_nobody_looks_again_and_again_at_a_queue_whose_leases_are_at_their_limit(mails):
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => 1)")
    enqueue(mails, 3)
    [(job, token)] = claim(mails, lease="1 hour")
    session, seen = mails.connect(), []
    waiter = threading.Thread(target=lambda: seen.append(session.execute("CALL pushy.job_claim_wait('mails', '60 s')").fetchone()[0]))
    waiter.start()
    mails.wait_until("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", "Extension", params=(session.info.backend_pid,))
    enqueue(mails)
    # It leaves where nothing is due within five seconds.
    mails.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy scheduler' AND datname = current_database()", 0)
    mails.sql("SELECT pushy.job_complete(%s, %s)", job, token)
    waiter.join(60)
    assert seen == [True]


def test_an_outcome_waits_for_who_has_the_row_or_says_so_and_is_never_passed_over(mails):
    first, second = enqueue(mails, 2)
    held = dict(claim(mails, 2))
    said = json.dumps([{"job_id": job, "token": str(held[job]), "outcome": "complete"} for job in (second, first)])
    with mails.connect(autocommit=False) as other:
        other.execute("SELECT pushy.job_cancel(%s)", [first])
        with mails.connect(autocommit=False) as session:
            session.execute("SET LOCAL lock_timeout = '200 ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                session.execute("SELECT pushy.jobs_settle(%s)", [said])
            session.rollback()
            assert state(mails, second) == "running"
            session.execute("SELECT 1")
            done = threading.Thread(target=lambda: session.execute("SELECT pushy.jobs_settle(%s)", [said]))
            done.start()
            mails.wait_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", "Lock", params=(session.info.backend_pid,))
            other.rollback()
            done.join(30)
            session.commit()
    assert [state(mails, job) for job in (first, second)] == ["completed", "completed"]


def test_who_waits_can_be_cancelled_and_terminated(mails):
    for how, error in (("pg_cancel_backend", psycopg.errors.QueryCanceled), ("pg_terminate_backend", psycopg.OperationalError)):
        session, seen = mails.connect(), []

        def wait() -> None:
            try:
                session.execute("CALL pushy.job_claim_wait('mails', '60 s')")
            except psycopg.Error as caught:
                seen.append(caught)

        thread = threading.Thread(target=wait)
        thread.start()
        mails.wait_until("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", "Extension", params=(session.info.backend_pid,))
        mails.sql(f"SELECT {how}(%s)", session.info.backend_pid)
        thread.join(30)
        assert len(seen) == 1 and isinstance(seen[0], error)
    # Neither has taken a wake-up with it.
    waiting = threading.Thread(target=lambda: seen.append(mails.connect().execute("CALL pushy.job_claim_wait('mails', '30 s')").fetchone()[0]))
    waiting.start()
    wait_for("it to wait", lambda: mails.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'Extension' AND query LIKE 'CALL%%'"), lambda n: n == 1)
    enqueue(mails)
    waiting.join(30)
    assert seen[-1] is True


def test_outcomes_of_every_kind(mails):
    jobs = enqueue(mails, 6)
    held = dict(claim(mails, 6))
    kinds = [{"outcome": "complete", "result": [1]}, {"outcome": "fail", "error": "e", "retry_in": 3600}, {"outcome": "discard", "error": "never", "sqlstate": "22000"},
             {"outcome": "release"}, {"outcome": "snooze", "delay": 3600.5}, {"outcome": "extend", "lease": 3600}]
    said = [{"job_id": job, "token": str(held[job]), **kind} for job, kind in zip(jobs, kinds)]
    assert mails.value("SELECT pushy.jobs_settle(%s)", json.dumps(said)) == 6
    assert [state(mails, job) for job in jobs] == ["completed", "retryable", "discarded", "available", "scheduled", "running"]
    assert mails.value("SELECT pushy.jobs_settle(%s)", json.dumps(said[:5])) == 0
    assert mails.row("SELECT attempt, sqlstate, message FROM pushy.failures WHERE job_id = %s", jobs[2]) == {"attempt": 1, "sqlstate": "22000", "message": "never"}
    assert [mails.value("SELECT attempt FROM pushy.jobs WHERE id = %s", job) for job in (jobs[3], jobs[4])] == [0, 0]
