"""Two roles that must not reach each other, and what each single privilege opens."""

import re

import psycopg
import pytest

from stage.life import LEDGER

CALLS = {  # who may: the owner, and whoever has the privilege
    "enqueue": ["SELECT pushy.enqueue('q', '1')", "SELECT pushy.enqueue_many('q', '{1}')"],
    "work": ["SELECT pushy.job_cancel({job})", "SELECT pushy.job_retry({job})"],
    "claim": ["SELECT pushy.job_claim('q')", "SELECT pushy.queue_channel('q')", "CALL pushy.job_claim_wait('q', '0')"],
    "monitor": ["SELECT pushy.job_wait({job}, '0')", "SELECT * FROM pushy.queue_explain('q')", "CALL pushy.jobs_wait('q', '1 ms')"],
    None: ["SELECT pushy.queue_pause('q')", "SELECT pushy.queue_resume('q')", "SELECT pushy.queue_alter('q', priority => 0)",
           "SELECT pushy.queue_drop('q', force => true)", "SELECT pushy.queue_grant('q', 'public', 'work')",
           "SELECT pushy.queue_revoke('q', 'public', 'work')", "SELECT pushy.queue_run('q')",
           "SELECT pushy.queue_register('q', 'note(jsonb)')"],
}


@pytest.fixture
def two(db, role):
    """`mine` owns a paused queue with a job; `other` has nothing to do with it."""
    db.sql(LEDGER)
    mine, other = role(), role()
    # As members of pg_read_all_data have it.
    db.sql(f"GRANT USAGE ON SCHEMA pushy_internal TO {mine}, {other}")
    with db.connect(user=mine) as session:
        session.execute("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.queue_pause('q')")
        db.waiting = session.execute("SELECT pushy.enqueue('q', '{\"secret\": 1}')").fetchone()[0]
        session.execute("SELECT pushy.enqueue('q', '2')")
    db.mine, db.other = mine, other
    return db


@pytest.mark.parametrize("granted", ["enqueue", "work", "monitor", "claim", None])
def test_a_privilege_opens_its_own_calls_and_no_others(two, granted):
    if granted:
        with two.connect(user=two.mine) as session:
            session.execute("SELECT pushy.queue_grant('q', %s, %s)", (two.other, granted))
    with two.connect(user=two.other) as session:
        for privilege, calls in CALLS.items():
            for call in calls:
                try:
                    session.execute(call.replace("{job}", str(two.waiting)))
                    sqlstate = None
                except psycopg.Error as error:
                    sqlstate = error.sqlstate
                may = granted is not None and privilege == granted
                # Who has no privilege at all is not told that there is such a job.
                refusal = "42704" if granted is None and "{job}" in call else "42501"
                assert (sqlstate != refusal) == may, (granted, call, sqlstate)


def test_nothing_of_a_foreign_queue_is_shown(two):
    with two.connect(user=two.other) as session:
        for view in ("queues", "jobs", "failures", "stats", "leases"):
            assert session.execute(f"SELECT * FROM pushy.{view} WHERE queue IS NOT NULL").fetchall() == [], view
        shown = str(session.execute("SELECT * FROM pushy.workers").fetchall())
        assert "secret" not in shown and two.mine not in shown
        assert session.execute("SELECT has_any_column_privilege('pushy_internal.live_job', 'SELECT')").fetchone() == (False,)


def test_errors_do_not_tell_whether_a_foreign_job_has_what_arguments(two):
    with two.connect(user=two.other) as session:
        for call in ("SELECT pushy.job_wait(%s, '0')", "SELECT pushy.job_cancel(%s)", "SELECT pushy.job_retry(%s)"):
            with pytest.raises(psycopg.errors.UndefinedObject) as error:
                session.execute(call, (two.waiting,))
            diag = error.value.diag
            assert "secret" not in f"{diag.message_primary} {diag.message_detail} {diag.message_hint} {diag.context}"


# Every function of Pushy's with an argument that is a number of something, and how it is called; but watch_elsewhere,
# which tells what pg_trigger and pg_class do.
TOKEN = "'00000000-0000-0000-0000-000000000000'"
BY_NUMBER = {**{name: f"SELECT pushy.{name}({{}}, {TOKEN})" for name in ("job_complete", "job_fail", "job_extend", "job_release")}, "job_log": f"SELECT pushy.job_log('x', 'info', {{}}, {TOKEN})", "job_wait": "SELECT pushy.job_wait({}, '0')", "job_cancel": "SELECT pushy.job_cancel({})", "job_retry": "SELECT pushy.job_retry({})",
             "job_trace": "SELECT * FROM pushy.job_trace({})", "notice": "SELECT pushy.notice({})", "watch_counts": "SELECT * FROM pushy_internal.watch_counts({})",
             "queue_statistics": "SELECT * FROM pushy_internal.queue_statistics({})",
             "queue_histograms": "SELECT * FROM pushy_internal.queue_histograms({})",
             "queue_oldest_ready": "SELECT pushy_internal.queue_oldest_ready({})",
             "watch_visible": "SELECT pushy_internal.watch_visible({}, 1, 1, 1, 1, 1)", "job_last_error": "SELECT pushy_internal.job_last_error({0}, {0})",
             "job_checkpoint_of": "SELECT pushy_internal.job_checkpoint_of({0}, {0})",
             **{name: f"SELECT pushy_internal.{name}({{}})"
                for name in ("queue_visible", "queue_monitored", "queue_owned", "queue_running", "queue_obstacle")}}


def test_a_number_of_something_foreign_is_answered_as_one_that_nothing_has(two, role):
    """Who counted up learned the names of all queues from the refusals."""
    two.sql("CREATE TABLE watched (id int PRIMARY KEY); SELECT pushy.watch('watched'), pushy.queue_register('done', 'note(jsonb)')")
    job = two.job_wait(two.value("SELECT pushy.enqueue('done', '1')"))["id"]
    assert {name for name, in two.rows("""
        SELECT DISTINCT p.proname FROM pg_proc p CROSS JOIN LATERAL unnest(p.proargnames[:p.pronargs]) AS a (name)
         WHERE p.pronamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND a.name ~ '(^|_)id$'""")} == {*BY_NUMBER, "watch_elsewhere"}

    def answers(session, number):
        said = []
        for call in BY_NUMBER.values():
            try:
                said.append(str(session.execute(call.format(number)).fetchall()))
            except psycopg.Error as error:
                diag = error.diag
                words = f"{diag.message_primary} {diag.message_detail} {diag.message_hint} {diag.context}"
                said.append((diag.sqlstate, re.sub(rf"\b{number}\b", "N", words)))
        return said

    with two.connect(user=two.other) as session:
        nothing = answers(session, 999_999)
        for number in {two.waiting, job, 1}:
            assert answers(session, number) == nothing, number
    # Who has some other privilege is told which one is missing.
    two.sql("SELECT pushy.queue_grant('q', %s, 'enqueue')", two.other)
    with two.connect(user=two.other) as session:
        for call, missing in (("job_wait", "monitor"), ("job_cancel", "work"), ("job_retry", "work")):
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
                session.execute(BY_NUMBER[call].format(two.waiting))
            assert f'"{missing}"' in error.value.diag.message_detail


def test_a_role_dropped_and_made_again_inherits_no_grant(two, shared_cluster):
    with shared_cluster.connect() as admin:
        admin.execute(f"CREATE ROLE {two.other}_gone LOGIN")
        two.sql(f"SELECT pushy.queue_grant('q', '{two.other}_gone', 'monitor')")
        admin.execute(f"DROP ROLE {two.other}_gone")
        admin.execute(f"CREATE ROLE {two.other}_gone LOGIN")
        with two.connect(user=f"{two.other}_gone") as session:
            assert session.execute("SELECT * FROM pushy.jobs").fetchall() == []
        admin.execute(f"DROP ROLE {two.other}_gone")


def test_the_identity_is_the_functions_owner_inside_security_definer_and_the_callers_outside(two):
    """As with tables: who wraps a call in SECURITY DEFINER lends that one call."""
    with two.connect(user=two.mine) as session:
        two.sql(f"CREATE SCHEMA lent AUTHORIZATION {two.mine}; GRANT USAGE ON SCHEMA lent TO PUBLIC")
        session.execute("CREATE FUNCTION lent.add() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$SELECT pushy.enqueue('q', '3')$$")
    with two.connect(user=two.other) as session:
        job = session.execute("SELECT lent.add()").fetchone()[0]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT pushy.enqueue('q', '4')")
    assert two.value("SELECT enqueued_by FROM pushy.jobs WHERE id = %s", job) == two.mine
