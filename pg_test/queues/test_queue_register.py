"""Queues: declared, altered, paused, dropped; each change told at commit on the control channel."""

import json

import psycopg
import pytest

from harness.gate import Gate
from harness.waiting import wait_for


@pytest.fixture
def fine(db):
    db.sql("CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'")
    return db


def test_registering_again_changes_nothing_but_what_was_said(fine):
    register = "SELECT pushy.queue_register('q', 'fine(jsonb)', max_attempts => 7, timeout => '5 s')"
    definition = "SELECT to_jsonb(queues) - 'running' FROM pushy.queues"  # an executor may be looking whether there is something to do
    fine.sql(register)
    before = fine.value(definition)
    fine.sql(register)
    assert fine.value(definition) == before


def test_an_omitted_argument_is_its_default_again(fine):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)', max_attempts => 7, priority => 2, concurrency => 3, batch => false)")
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)')")
    seen = fine.row("SELECT max_attempts, priority, concurrency, batch FROM pushy.queues")
    assert seen == {"max_attempts": 25, "priority": 5, "concurrency": None, "batch": True}


def test_registering_again_leaves_the_pause_and_the_jobs_alone(fine):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)'), pushy.queue_pause('q')")
    job = fine.value("SELECT pushy.enqueue('q')")
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)', priority => 1)")
    assert fine.value("SELECT paused FROM pushy.queues")
    assert fine.job(job)["state"] == "available"


def test_a_bare_name_that_resolves_to_one_function_is_a_handler(fine):
    fine.sql("SELECT pushy.queue_register('q', 'fine')")
    assert fine.job_wait(fine.value("SELECT pushy.enqueue('q')"))["state"] == "completed"


def test_a_bare_name_that_could_be_two_functions_is_refused(fine):
    fine.sql("CREATE FUNCTION fine() RETURNS void LANGUAGE sql AS 'SELECT'")
    with pytest.raises(psycopg.errors.AmbiguousFunction, match="fine"):
        fine.sql("SELECT pushy.queue_register('q', 'fine')")


def test_the_handler_is_found_by_the_callers_search_path_and_kept(fine):
    fine.sql("""
        CREATE SCHEMA app;
        CREATE FUNCTION app.which() RETURNS text LANGUAGE sql AS $$SELECT 'app'$$;
        CREATE FUNCTION public.which() RETURNS text LANGUAGE sql AS $$SELECT 'public'$$;
        SET search_path = app, public;
        SELECT pushy.queue_register('q', 'which()');
        RESET search_path""")
    assert fine.job_wait(fine.value("SELECT pushy.enqueue('q')"))["result"] == "app"


def test_alter_changes_only_what_is_said(fine):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)', max_attempts => 7, priority => 2)")
    fine.sql("SELECT pushy.queue_alter('q', priority => 4)")
    assert fine.row("SELECT max_attempts, priority FROM pushy.queues") == {"max_attempts": 7, "priority": 4}


def test_a_rolled_back_register_leaves_no_queue(fine):
    with fine.connect(autocommit=False) as session:
        session.execute("SELECT pushy.queue_register('q', 'fine(jsonb)')")
        session.rollback()
    assert fine.rows("SELECT FROM pushy.queues") == []


def test_pause_and_resume_can_be_said_twice(fine):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)')")
    for call, paused in (("pause", True), ("pause", True), ("resume", False), ("resume", False)):
        fine.sql(f"SELECT pushy.queue_{call}('q')")
        assert fine.value("SELECT paused FROM pushy.queues") is paused


def test_dropping_a_queue_with_unfinished_jobs_wants_force(fine):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)'), pushy.queue_pause('q')")
    fine.sql("SELECT pushy.enqueue('q')")
    with pytest.raises(psycopg.errors.ObjectInUse, match='"q"') as refused:
        fine.sql("SELECT pushy.queue_drop('q')")
    assert "force" in refused.value.diag.message_hint
    fine.sql("SELECT pushy.queue_drop('q', force => true)")
    assert fine.rows("SELECT FROM pushy.queues") == []
    assert fine.rows("SELECT FROM pushy.jobs") == []


def test_dropping_a_queue_with_force_ends_its_running_job(fine):
    gate = Gate(fine)
    fine.sql(f"""
        CREATE FUNCTION gated() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;
        SELECT pushy.queue_register('q', 'gated()')""")
    fine.sql("SELECT pushy.enqueue('q')")
    gate.wait_for_arrival()
    fine.sql("SET statement_timeout = '30s'; SELECT pushy.queue_drop('q', force => true)")
    fine.wait_until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", 0)
    assert fine.rows("SELECT FROM pushy.queues") == []


@pytest.mark.parametrize("call, event", [
    ("SELECT pushy.queue_pause('q')", "pause"),
    ("SELECT pushy.queue_resume('q')", "resume"),
    ("SELECT pushy.queue_alter('q', priority => 1)", "alter"),
    ("SELECT pushy.queue_drop('q')", "drop"),
])
def test_a_change_of_a_queue_is_told_on_the_control_channel(fine, call, event):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)')")
    if event == "resume":
        fine.sql("SELECT pushy.queue_pause('q')")
    listener = fine.listen("pushy_control")
    fine.sql(call)
    assert listener.wait_for_json(event=event)["queue"] == "q"


def test_a_parked_queue_is_told_on_the_control_channel(fine):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)')")
    listener = fine.listen("pushy_control")
    fine.sql("DROP FUNCTION fine(jsonb)")
    fine.sql("SELECT pushy.enqueue('q')")
    told = listener.wait_for_json(event="park")
    assert (told["v"], told["queue"], told["by"]) == (1, "q", "postgres")


def test_a_discarded_job_is_told_on_the_control_channel(fine):
    fine.sql("CREATE FUNCTION fail() RETURNS void LANGUAGE sql AS 'SELECT 1 / 0'; "
             "SELECT pushy.queue_register('q', 'fail()', max_attempts => 2, retry_delay => '0')")
    listener = fine.listen("pushy_control")
    job = fine.value("SELECT pushy.enqueue('q')")
    assert listener.wait_for_json(event="discard")["job_id"] == job
    assert fine.job_wait(job)["state"] == "discarded"


def test_a_flood_of_discards_is_told_by_a_few_that_say_how_many(fine):
    fine.sql("CREATE FUNCTION fail() RETURNS void LANGUAGE sql AS 'SELECT 1 / 0'; "
             "SELECT pushy.queue_register('q', 'fail()', max_attempts => 1, concurrency => 1)")
    listener = fine.listen("pushy_control", "fence")
    fine.sql("SELECT pushy.enqueue_many('q', array_agg(to_jsonb(i))) FROM generate_series(1, 2000) i")
    fine.jobs_wait("q")
    fine.sql("SELECT pushy.notify('fence', '', 'relay')")
    listener.wait_for(lambda notice: notice.channel == "fence")
    events = [json.loads(notice.payload) for notice in listener.heard if notice.channel == "pushy_control"]
    told = [event for event in events if event["event"] == "discard"]
    counted = len(told) + sum(event.get("left_out", 0) for event in told)
    # What one executor has left out since it last told one is said with its next.
    assert 10 <= len(told) < 1000 and counted <= 2000


def test_a_cancel_is_told_on_the_control_channel(fine):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)')")
    job = fine.value("SELECT pushy.enqueue('q', delay => '1 hour')")
    listener = fine.listen("pushy_control")
    fine.sql("SELECT pushy.job_cancel(%s)", job)
    assert listener.wait_for_json(event="cancel")["job_id"] == job


def test_a_change_that_is_rolled_back_is_not_told(fine):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)'), pushy.queue_register('r', 'fine(jsonb)')")
    listener = fine.listen("pushy_control")
    with fine.connect(autocommit=False) as session:
        session.execute("SELECT pushy.queue_pause('q')")
        session.rollback()
    fine.sql("SELECT pushy.queue_pause('r')")
    assert listener.wait_for_json()["queue"] == "r"
    assert len(listener.heard) == 1


@pytest.mark.parametrize("why, arrange, reason, fix", [
    ("a paused queue", "SELECT pushy.queue_pause('q')", "paused", "queue_resume"),
    ("a dropped handler", "DROP FUNCTION fine(jsonb)", "handler", "queue_register"),
])
def test_queue_explain_says_why_nothing_runs_and_what_to_do(fine, why, arrange, reason, fix):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)')")
    fine.sql(arrange)
    fine.sql("SELECT pushy.enqueue('q')")
    _, said = fine.wait_until_told("q", reason)
    assert said and fix in said, said


def test_queue_explain_of_a_healthy_idle_queue_says_so(fine):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)')")
    found = fine.rows("SELECT reason, fix FROM pushy.queue_explain('q')")
    assert found and {fix for _, fix in found} == {None}


def test_queue_run_runs_what_is_due_in_this_session(fine):
    fine.sql("""
        CREATE FUNCTION who(args jsonb) RETURNS int LANGUAGE sql AS 'SELECT pg_backend_pid()';
        SELECT pushy.queue_register('q', 'who(jsonb)'), pushy.queue_pause('q')""")
    jobs = [job for job, in fine.rows("SELECT pushy.enqueue_many('q', '{1,2,3}')")]
    later = fine.value("SELECT pushy.enqueue('q', delay => '1 hour')")
    fine.sql("SELECT * FROM pushy.queue_run('q')")
    mine = fine.value("SELECT pg_backend_pid()")
    assert [(fine.job(job)["state"], fine.job(job)["result"]) for job in jobs] == [("completed", mine)] * 3
    assert fine.job(later)["state"] == "scheduled"


# What jobs are left, and what the hint of queue_drop says beside force.
LEFT = {
    "ready, and the queue paused": ("SELECT pushy.queue_pause('q'); SELECT pushy.enqueue('q')", "It does not run: the queue is paused. Delete it: "),
    "scheduled": ("SET timezone = 'UTC'; SELECT pushy.enqueue('q', run_at => '2100-01-02 03:04:05+00')", "It is due at 2100-01-02 03:04:05+00. Delete it: "),
}


@pytest.mark.parametrize("what", LEFT)
def test_queue_drop_says_to_wait_only_where_that_helps(fine, what):
    arrange, hint = LEFT[what]
    fine.sql(f"SELECT pushy.queue_register('q', 'fine(jsonb)'); {arrange}")
    with pytest.raises(psycopg.errors.ObjectInUse) as refused:
        fine.sql("SELECT pushy.queue_drop('q')")
    assert refused.value.diag.message_hint == f"{hint}SELECT pushy.queue_drop('q', force => true)."


def test_a_name_that_another_role_has_is_refused_with_its_owner(fine, role):
    mine, other = role(), role()
    with fine.connect(user=mine) as session:
        session.execute("SELECT pushy.queue_register('q', 'fine(jsonb)')")
    with fine.connect(user=other) as session, pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
        session.execute("SELECT pushy.queue_register('q', 'fine(jsonb)')")
    said = refused.value.diag
    assert (said.message_primary, said.message_detail) == ('must be owner of queue "q"', f'It is registered, and belongs to role "{mine}".')
    assert "give yours another name" in said.message_hint


def test_a_flood_of_discards_is_told_to_its_end(db):
    """Nothing comes after it that would tell how many were left out."""
    listener = db.listen("pushy_control")
    db.sql("CREATE FUNCTION bad() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
           "SELECT pushy.queue_register('q', 'bad()', max_attempts => 1, concurrency => 1)")
    db.sql("SELECT pushy.enqueue('q') FROM generate_series(1, 200)")
    jobs = {job for job, in db.rows("SELECT id FROM pushy.jobs")}
    counted, told = 0, set()
    while counted < 200:
        notice = listener.wait_for_json(event="discard")
        counted += 1 + notice.get("left_out", 0)
        told.add(notice["job_id"])
    assert counted == 200 and told <= jobs
    assert len(told) < 200, "some were left out"


@pytest.mark.parametrize("event", ["cancel", "retry"])
def test_a_flood_of_what_is_done_to_jobs_is_told_by_a_few_that_say_how_many(fine, role, event):
    """Any role with a job may do it any number of times, and each notice has a place in the log that another's would have."""
    name = role()
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)'), pushy.queue_pause('q'), pushy.subscription_create('s', '{pushy_control}')")
    fine.sql("SELECT pushy.queue_grant('q', %s, 'enqueue'), pushy.queue_grant('q', %s, 'work')", name, name)
    told_of = "FROM pushy.subscription_read('s', 10000) WHERE payload::jsonb ->> 'event' = '{}'".format(event)
    with fine.connect(user=name) as session:
        def one() -> int:
            job = session.execute("SELECT pushy.enqueue('q', delay => '1 hour')").fetchone()[0]
            assert session.execute(f"SELECT pushy.job_{event}(%s)", (job,)).fetchone() == (True,)
            return job
        begun = fine.value("SELECT clock_timestamp()")
        for _ in range(300):
            one()
        # In the next second there is room again.
        ended = fine.value("SELECT clock_timestamp()")
        fine.wait_until("SELECT date_trunc('second', clock_timestamp()) > %s", True, params=(ended,))
        last = one()
    told = all_told(fine, told_of, 301)
    assert last in [event["job_id"] for event in told]
    seconds = int((ended - begun).total_seconds()) + 2
    # Ten of the session, and one of a scheduler that tells of the others.
    assert len(told) <= 11 * seconds, "a few"
    assert {event["by"] for event in told} == {name}


@pytest.mark.parametrize("ending", ["COMMIT", "PREPARE TRANSACTION 'cancels'; COMMIT PREPARED 'cancels'"])
def test_what_is_left_out_is_told_when_nothing_follows_and_without_what_was_rolled_back(fine, ending):
    fine.sql("SELECT pushy.queue_register('q', 'fine(jsonb)'), pushy.queue_pause('q'), pushy.subscription_create('s', '{pushy_control}')")
    jobs = [job for job, in fine.rows("SELECT pushy.enqueue('q', delay => '1 hour') FROM generate_series(1, 60)")]
    with fine.connect() as session:
        for whole in ("ROLLBACK", ending):
            session.execute("BEGIN")
            for n, job in enumerate(jobs):
                session.execute("SAVEPOINT s")
                assert session.execute("SELECT pushy.job_cancel(%s)", (job,)).fetchone() == (True,)
                session.execute("ROLLBACK TO s" if n % 2 else "RELEASE s")
            for statement in whole.split("; "):
                session.execute(statement)
        told = all_told(fine, "FROM pushy.subscription_read('s', 10000) WHERE payload::jsonb ->> 'event' = 'cancel'", 30)
    cancelled = jobs[::2]
    assert {event["job_id"] for event in told} <= set(cancelled)
    assert told[-1]["job_id"] == cancelled[-1] and {event["queue"] for event in told} == {"q"}


def all_told(db, of: str, count: int) -> list[dict]:
    """What is told by the time that it says as many as there are; no more come after the last."""
    def events() -> list[dict]:
        return [json.loads(payload) for payload, in db.rows(f"SELECT payload {of}")]

    def says(told: list[dict]) -> int:
        return len(told) + sum(event.get("left_out", 0) for event in told)
    told = wait_for(f"{count} told", events, lambda told: says(told) >= count)
    assert says(told) == count
    return told
