"""Who may declare, change and see a queue, and as whom its jobs may run."""

import re
import threading

import psycopg
import pytest

from harness.refusal import refused
from harness.versions import skip_unless_workers_must_log_in

HANDLER = "CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'"


@pytest.fixture
def work(db):
    db.sql(HANDLER)
    return db


# -- as whom jobs run --------------------------------------------------------------------------------------------

def test_a_queue_runs_as_who_registers_it(work, role):
    name = role()
    work.connect(name).execute("SELECT pushy.queue_register('q', 'work')")
    assert work.row("SELECT owner, run_as FROM pushy.queues") == {"owner": name, "run_as": name}


def test_a_role_whose_name_wants_quotes_registers_queues_too(work):
    work.sql('CREATE ROLE "Bob O\'Hara" LOGIN')
    try:
        work.sql("""SET SESSION AUTHORIZATION "Bob O'Hara"; SELECT pushy.queue_register('q', 'work'); RESET SESSION AUTHORIZATION""")
        assert work.value("SELECT run_as FROM pushy.queues") == "Bob O'Hara"
        work.sql("SELECT pushy.queue_drop('q')")
    finally:
        work.sql('DROP ROLE "Bob O\'Hara"')


def test_a_role_that_the_caller_may_not_become_is_refused(work, role):
    alice, bob = role(), role()
    refused(work.connect(alice), f"SELECT pushy.queue_register('q', 'work', run_as => '{bob}')", "42501", alice, bob)
    refused(work.connect(alice), "SELECT pushy.queue_register('q', 'work', run_as => 'postgres')", "42501", "postgres")


def test_a_role_that_the_caller_may_become_is_taken(work, role):
    group = role()
    member = role(f"NOINHERIT IN ROLE {group}")
    work.connect(member).execute(f"SELECT pushy.queue_register('q', 'work', run_as => '{group}')")
    assert work.row("SELECT owner, run_as FROM pushy.queues") == {"owner": member, "run_as": group}


def test_a_number_that_is_no_role_is_refused(work):
    refused(work.main, "SELECT pushy.queue_register('q', 'work', run_as => 999999)", "42704", "999999")


def test_a_role_that_cannot_log_in_is_refused_with_the_statement_that_helps(work, role):
    skip_unless_workers_must_log_in(work)
    name = role()
    work.sql(f"ALTER ROLE {name} NOLOGIN")
    refused(work.main, f"SELECT pushy.queue_register('q', 'work', run_as => '{name}')", "42501", f"ALTER ROLE {name} LOGIN")


def test_a_handler_that_the_role_may_not_execute_is_refused(work, role):
    name = role()
    work.sql("REVOKE EXECUTE ON FUNCTION work(jsonb) FROM PUBLIC")
    refused(work.connect(name), "SELECT pushy.queue_register('q', 'work')", "42501",
            f"GRANT EXECUTE ON FUNCTION public.work(jsonb) TO {name}")


def test_a_handler_in_a_schema_that_the_role_may_not_use_is_refused(db, role):
    name = role()
    db.sql("CREATE SCHEMA app; CREATE FUNCTION app.work() RETURNS void LANGUAGE sql AS 'SELECT'")
    refused(db.main, f"SELECT pushy.queue_register('q', 'app.work()', run_as => '{name}')", "42501",
            f"GRANT USAGE ON SCHEMA app TO {name}")


def test_a_superusers_queue_does_not_run_what_somebody_else_can_replace(work, role):
    name = role()
    work.sql(f"ALTER FUNCTION work(jsonb) OWNER TO {name}")
    refused(work.main, "SELECT pushy.queue_register('q', 'work')", "42501", name, "read public.work(jsonb) first")


# -- handlers that are none --------------------------------------------------------------------------------------

@pytest.mark.parametrize("create, handler, sqlstate, says", [
    ("CREATE PROCEDURE p(args jsonb, OUT n int) LANGUAGE sql AS 'SELECT 1'", "p(jsonb)", "42P13", "answers nothing"),
    ("CREATE PROCEDURE p(args jsonb) LANGUAGE sql SET work_mem = 64 AS 'SELECT'", "p(jsonb)", "42P13", "SET clauses"),
    ("CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", "t()", "42P13", "trigger"),
    ("CREATE FUNCTION pg_temp.t() RETURNS void LANGUAGE sql AS 'SELECT'", "pg_temp.t()", "42P13", "temporary"),
    ("CREATE FUNCTION m(jsonb, int DEFAULT 1) RETURNS void LANGUAGE sql AS 'SELECT'", "m", "42P13", "jsonb"),
    ("CREATE FUNCTION v(VARIADIC jsonb[]) RETURNS void LANGUAGE sql AS 'SELECT'", "v", "42P13", "jsonb"),
    ("CREATE AGGREGATE a(jsonb) (sfunc = jsonb_concat, stype = jsonb)", "a(jsonb)", "42P13", "aggregate"),
    ("CREATE FUNCTION s() RETURNS TABLE (n int) LANGUAGE sql AS 'SELECT 1'", "s()", "42P13", "set"),
    ("SELECT", "work(nothing_like_this)", "42", "nothing_like_this"),
    ("SELECT", "a b", "42602", "a b"),
    ("SELECT", "public.work.work", "0A000", "public.work.work"),
])
def test_what_is_no_handler_is_refused(work, create, handler, sqlstate, says):
    work.sql(create)
    with pytest.raises(psycopg.Error) as error:
        work.sql("SELECT pushy.queue_register('q', %s)", handler)
    diag = error.value.diag
    assert diag.sqlstate.startswith(sqlstate), f"{diag.sqlstate} {diag.message_primary}"
    assert says in f"{diag.message_primary} {diag.message_hint}"


@pytest.mark.parametrize("create, handler, signature", [
    ("CREATE FUNCTION \"My Work(s)\"() RETURNS int LANGUAGE sql AS 'SELECT 1'", '"My Work(s)"', 'public."My Work(s)"()'),
    ("CREATE FUNCTION j(pushy.job) RETURNS text LANGUAGE sql AS 'SELECT $1.queue'", "j", "public.j(pushy.job)"),
    ("CREATE FUNCTION o(jsonb, OUT a int, OUT b int) LANGUAGE sql AS 'SELECT 1, 2'", " o ( jsonb ) ", "public.o(jsonb)"),
    ("SET quote_all_identifiers = on", "work", "public.work(jsonb)"),
])
def test_a_handler_is_kept_by_one_signature(work, create, handler, signature):
    work.sql(create)
    assert work.value("SELECT pushy.queue_register('q', %s)", handler) == signature
    work.sql("RESET quote_all_identifiers; SELECT pushy.queue_resume('q')")


# -- whose queue it is -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("statement", [
    "SELECT pushy.queue_register('q', 'work')",
    "SELECT pushy.queue_alter('q', priority => 1)",
    "SELECT pushy.queue_pause('q')",
    "SELECT pushy.queue_resume('q')",
    "SELECT pushy.queue_drop('q', force => true)",
    "SELECT pushy.queue_grant('q', 'public', 'monitor')",
    "SELECT pushy.queue_revoke('q', 'public', 'monitor')",
])
def test_a_stranger_cannot_touch_a_queue(work, role, statement):
    work.sql("SELECT pushy.queue_register('q', 'work')")
    refused(work.connect(role()), statement, "42501", "must be owner", '"q"')


def test_a_stranger_cannot_resume_after_a_restore(work, role):
    """Each role resumes what is its own; of the rest it is told nothing."""
    work.sql("SELECT pushy.queue_register('q', 'work'); UPDATE pushy_internal.queue SET home_database = 1")
    stranger = work.connect(role())
    assert stranger.execute("SELECT name, resumed, reason FROM pushy.resume_after_restore()").fetchall() == []
    refused(stranger, "SELECT pushy.queue_resume('q')", "42501", "must be owner of queue")
    assert work.value("SELECT home_database FROM pushy_internal.queue") == 1


def test_a_member_registers_again_and_the_owner_stays(work, role):
    owner = role()
    member = role(f"IN ROLE {owner}")
    work.connect(owner).execute("SELECT pushy.queue_register('q', 'work')")
    work.connect(member).execute(f"SELECT pushy.queue_register('q', 'work', run_as => '{owner}', priority => 1)")
    assert work.row("SELECT owner, run_as, priority FROM pushy.queues") == {"owner": owner, "run_as": owner, "priority": 1}
    # The owner may not become the member, whoever asks.
    refused(work.connect(member), "SELECT pushy.queue_register('q', 'work')", "42501", owner, member)


def test_two_who_register_one_name_at_the_same_time_both_succeed(work):
    first = work.connect(autocommit=False)
    first.execute("SELECT pushy.queue_register('q', 'work', priority => 1)")
    second = work.connect()
    failures = []

    def register():
        try:
            second.execute("SELECT pushy.queue_register('q', 'work', priority => 2)")
        except psycopg.Error as error:
            failures.append(error)
    thread = threading.Thread(target=register)
    thread.start()
    work.wait_until("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", params=(second.info.backend_pid,))
    first.commit()
    thread.join()
    assert failures == []
    assert work.rows("SELECT queue, priority FROM pushy.queues") == [("q", 2)]


# -- privileges --------------------------------------------------------------------------------------------------

def test_privileges_are_given_shown_and_taken_one_by_one(work, role):
    name = role()
    session = work.connect(name)
    work.sql("SELECT pushy.queue_register('q', 'work'), pushy.queue_pause('q')")
    held = lambda: [privilege for privilege in ("enqueue", "work", "monitor")  # noqa: E731
                    if session.execute("SELECT pushy.has_queue_privilege('q', %s)", (privilege,)).fetchone()[0]]
    assert held() == []
    refused(session, "SELECT pushy.enqueue('q')", "42501", "enqueue", "queue_grant")
    for privilege in ("enqueue", "work", "monitor"):
        work.sql("SELECT pushy.queue_grant('q', %s, %s)", name, privilege)
        assert work.value("SELECT pushy.has_queue_privilege('q', %s, %s)", name, privilege)
    assert held() == ["enqueue", "work", "monitor"]
    job = session.execute("SELECT pushy.enqueue('q')").fetchone()[0]
    assert session.execute("SELECT id FROM pushy.jobs").fetchall() == [(job,)]
    for privilege in ("enqueue", "work", "monitor"):
        work.sql("SELECT pushy.queue_revoke('q', %s, %s)", name, privilege)
    assert held() == []
    refused(session, "SELECT pushy.enqueue('q')", "42501")


def test_the_hint_of_a_denial_is_the_statement_that_helps(work, role):
    session = work.connect(role())
    work.sql("SELECT pushy.queue_register('it''s', 'work'), pushy.queue_pause('it''s')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as denied:
        session.execute("SELECT pushy.enqueue('it''s')")
    work.sql(denied.value.diag.message_hint.partition(": ")[2].removesuffix("."))
    session.execute("SELECT pushy.enqueue('it''s')")


def test_a_grant_to_a_group_or_to_the_public_reaches_its_members(work, role):
    group = role()
    member = work.connect(role(f"IN ROLE {group}"))
    stranger = work.connect(role())
    work.sql("SELECT pushy.queue_register('q', 'work'), pushy.queue_grant('q', %s, 'enqueue')", group)
    member.execute("SELECT pushy.enqueue('q')")
    refused(stranger, "SELECT pushy.enqueue('q')", "42501")
    work.sql("SELECT pushy.queue_grant('q', 'public', 'enqueue')")
    stranger.execute("SELECT pushy.enqueue('q')")


def test_a_grant_of_a_dropped_role_can_be_taken_back_by_name(work):
    work.sql("CREATE ROLE gone; SELECT pushy.queue_register('q', 'work'), pushy.queue_grant('q', 'gone', 'monitor'); DROP ROLE gone")
    work.sql("SELECT pushy.queue_revoke('q', 'gone', 'monitor')")
    refused(work.main, "SELECT pushy.queue_revoke('q', 'gone', 'monitor')", "42704", "gone")


def test_views_show_a_role_its_own_and_no_more(work, role):
    alice, bob = role(), role()
    for name in (alice, bob):
        session = work.connect(name)
        session.execute(f"SELECT pushy.queue_register('of {name}', 'work'), pushy.queue_pause('of {name}')")
        session.execute(f"SELECT pushy.enqueue('of {name}', '\"secret\"')")
    session = work.connect(alice)
    for view in ("queues", "jobs", "stats"):
        assert session.execute(f"SELECT DISTINCT queue FROM pushy.{view} WHERE queue IS NOT NULL").fetchall() == [(f"of {alice}",)], view
    # To add jobs is not to read them; the queue itself is no secret then.
    work.connect(bob).execute(f"SELECT pushy.queue_grant('of {bob}', '{alice}', 'enqueue')")
    assert session.execute("SELECT count(*) FROM pushy.queues").fetchone() == (2,)
    assert session.execute("SELECT count(*) FROM pushy.jobs").fetchone() == (1,)
    work.sql(f"GRANT USAGE ON SCHEMA pushy_internal TO {alice}")
    for queue, rows, running in ((alice, 1, 0), (bob, 0, None)):
        number = work.value("SELECT queue_id FROM pushy_internal.queue WHERE queue = %s", f"of {queue}")
        assert len(session.execute("SELECT * FROM pushy_internal.queue_statistics(%s)", (number,)).fetchall()) == rows
        assert session.execute("SELECT pushy_internal.queue_running(%s)", (number,)).fetchone() == (running,)
    refused(session, f"SELECT * FROM pushy.queue_explain('of {bob}')", "42501", "monitor")


def test_a_condition_of_the_asker_never_sees_rows_that_are_hidden(work, role):
    alice = role()
    session = work.connect(alice)
    work.sql("SELECT pushy.queue_register('q', 'work'), pushy.queue_pause('q'), pushy.enqueue('q', '\"secret\"'), "
             "pushy.queue_grant('q', %s, 'enqueue')", alice)
    said: list[str] = []
    session.add_notice_handler(lambda diag: said.append(diag.message_primary))
    session.execute("CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 "
                    "AS $$BEGIN RAISE NOTICE '%', $1; RETURN true; END$$")
    assert session.execute("SELECT * FROM pushy.jobs WHERE pg_temp.leak(args::text)").fetchall() == []
    assert session.execute("SELECT * FROM pushy.stats WHERE queue IS NOT NULL AND pg_temp.leak(queue)").fetchall() == []
    assert said == []


def test_nobody_reads_or_writes_a_table(work, role):
    session = work.connect(role())
    for table in ("queue", "queue_acl", "live_job", "finished_job", "failure"):
        refused(session, f"SELECT FROM pushy_internal.{table}", "42501")
        refused(session, f"DELETE FROM pushy_internal.{table}", "42501")


# -- what changes under a queue ----------------------------------------------------------------------------------

def test_resume_says_why_a_queue_cannot_run(work, role):
    name = role()
    work.sql(f"SELECT pushy.queue_register('q', 'work', run_as => '{name}'), pushy.queue_pause('q')")
    work.sql("REVOKE EXECUTE ON FUNCTION work(jsonb) FROM PUBLIC")
    refused(work.main, "SELECT pushy.queue_resume('q')", "42501", name, "GRANT EXECUTE")
    work.sql(f"GRANT EXECUTE ON FUNCTION work(jsonb) TO {name}; SELECT pushy.queue_resume('q')")


def test_resume_takes_a_handler_that_was_renamed_or_created_again(work):
    work.sql("SELECT pushy.queue_register('q', 'work')")
    work.sql("ALTER FUNCTION work(jsonb) RENAME TO work2")
    assert "work2" in str(work.rows("SELECT * FROM pushy.queue_explain('q')"))
    work.sql("SELECT pushy.queue_resume('q')")
    assert work.value("SELECT handler FROM pushy.queues") == "public.work2(jsonb)"
    work.sql("DROP FUNCTION work2(jsonb)")
    refused(work.main, "SELECT pushy.queue_resume('q')", "42883", "public.work2(jsonb)")
    work.sql("CREATE FUNCTION work2(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_resume('q')")
    assert work.rows("SELECT fix FROM pushy.queue_explain('q') WHERE fix IS NOT NULL") == []


def test_resume_takes_a_role_that_was_renamed(work):
    work.sql("CREATE ROLE before LOGIN")
    try:
        work.sql("SELECT pushy.queue_register('q', 'work', run_as => 'before')")
        work.sql("ALTER ROLE before RENAME TO afterwards")
        assert "afterwards" in str(work.rows("SELECT * FROM pushy.queue_explain('q')"))
        work.sql("SELECT pushy.queue_resume('q')")
        assert work.value("SELECT run_as FROM pushy.queues") == "afterwards"
        work.sql("SELECT pushy.queue_drop('q', force => true)")
    finally:
        work.sql("DROP ROLE IF EXISTS before; DROP ROLE IF EXISTS afterwards")


def test_alter_lifts_the_limit_of_concurrency_with_0(work):
    work.sql("SELECT pushy.queue_register('q', 'work', concurrency => 1)")
    work.sql("SELECT pushy.queue_alter('q', timeout => '0')")
    assert work.row("SELECT concurrency, timeout::text FROM pushy.queues") == {"concurrency": 1, "timeout": "00:00:00"}
    work.sql("SELECT pushy.queue_alter('q', concurrency => 0)")
    assert work.value("SELECT concurrency FROM pushy.queues") is None


def test_alter_changes_handler_and_role_with_the_checks_of_register(work, role):
    name = role()
    work.sql("CREATE FUNCTION other() RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'work')")
    work.sql("SELECT pushy.queue_alter('q', handler => 'other', run_as => %s)", name)
    assert work.row("SELECT handler, run_as FROM pushy.queues") == {"handler": "public.other()", "run_as": name}
    refused(work.main, "SELECT pushy.queue_alter('q', handler => 'nothing()')", "42883")


def test_a_registration_that_changes_nothing_is_not_told(work):
    work.sql("SELECT pushy.queue_register('q', 'work')")
    listener = work.listen("pushy_control")
    work.sql("SELECT pushy.queue_register('q', 'work'), pushy.queue_alter('q'), pushy.queue_pause('q')")
    assert listener.wait_for_json()["event"] == "pause"


def test_a_rolled_back_register_gives_its_place_back(make_cluster):
    """Shared memory has room for 64 queues here."""
    cluster = make_cluster({"pushy.max_queues": 64})
    db = cluster.database()
    db.sql(HANDLER)
    with db.connect(autocommit=False) as session:
        for turn in range(3):
            for queue in range(40):
                session.execute("SELECT pushy.queue_register(%s, 'work')", (f"q{turn}.{queue}",))
            session.rollback()
        for turn in range(3):
            session.execute("SAVEPOINT s")
            for queue in range(40):
                session.execute("SELECT pushy.queue_register(%s, 'work')", (f"s{turn}.{queue}",))
            session.execute("ROLLBACK TO s")
    for queue in range(64):
        db.sql("SELECT pushy.queue_register(%s, 'work')", f"k{queue}")
    refused(db.main, "SELECT pushy.queue_register('one more', 'work')", "53400", "64", "pushy.max_queues")
    db.sql("SELECT pushy.queue_drop('k0')")
    db.sql("SELECT pushy.queue_register('one more', 'work')")


def test_what_is_said_of_functions_names_every_privilege(db):
    words = set(re.findall(r"'(\w+)'::text", db.value("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'queue_acl_privilege_check'")))
    said = db.rows("""SELECT oid::regprocedure::text, obj_description(oid) FROM pg_proc
                       WHERE pronamespace = 'pushy'::regnamespace AND proname ~ 'queue' AND 'privilege' = ANY (proargnames)""")
    for function, comment in said:
        named = words & set(re.findall(r"\w+", comment))
        assert named in (set(), words), function
    assert words == {"enqueue", "work", "monitor", "claim"} and len(said) == 4
