"""queue_run: a session runs a queue's due jobs itself, in its own transaction, as its own role and no other."""

import json

import psycopg
import pytest

from harness.gate import Gate
from harness.refusal import refused


@pytest.fixture
def paused(db):
    """A queue whose jobs nobody but queue_run touches; its handler writes down what it did."""
    db.sql("""
        CREATE TABLE done (args jsonb, pid int DEFAULT pg_backend_pid());
        CREATE FUNCTION work(args jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.done VALUES (args);
            IF args ? 'fail' THEN RAISE EXCEPTION 'no: %', args->>'fail'; END IF;
            RETURN args;
        END$$;
        SELECT pushy.queue_register('q', 'work(jsonb)', retry_delay => '1 hour'), pushy.queue_pause('q')""")
    return db


def states(db):
    return [state for state, in db.rows("SELECT state FROM pushy.jobs WHERE queue = 'q' ORDER BY id")]


# -- what it runs ------------------------------------------------------------------------------------------------

def test_jobs_run_in_this_transaction_and_are_gone_with_it(paused):
    with paused.connect(autocommit=False) as session:
        session.execute("SELECT pushy.enqueue('q', '{\"n\": 1}'), pushy.enqueue('q', '{\"n\": 2}')")
        assert session.execute("SELECT pushy.queue_run('q')").fetchone() == (2,)
        assert session.execute("SELECT args->'n', pid = pg_backend_pid() FROM done ORDER BY 1").fetchall() == [(1, True), (2, True)]
        assert session.execute("SELECT state, result->'n' FROM pushy.jobs ORDER BY id").fetchall() == [("completed", 1), ("completed", 2)]
        session.rollback()
    assert paused.value("SELECT count(*) FROM done") == 0
    assert states(paused) == []


def test_committed_they_are_done_and_nobody_runs_them_again(paused):
    paused.sql("SELECT pushy.enqueue('q')")
    assert paused.value("SELECT pushy.queue_run('q')") == 1
    paused.sql("SELECT pushy.queue_resume('q')")
    second = paused.value("SELECT pushy.enqueue('q', '{\"n\": 2}')")
    paused.job_wait(second)
    assert paused.value("SELECT count(*) FROM done") == 2


def test_a_rollback_leaves_the_jobs_to_the_executors(paused):
    job = paused.value("SELECT pushy.enqueue('q')")
    with paused.connect(autocommit=False) as session:
        session.execute("SELECT pushy.queue_run('q')")
        paused.sql("SELECT pushy.queue_resume('q')")
        assert paused.value("SELECT state FROM pushy.jobs WHERE id = %s", job) == "available"
        session.rollback()
        assert paused.job_wait(job)["state"] == "completed"
        assert paused.value("SELECT count(*) FROM done WHERE pid <> %s", session.info.backend_pid) == 1


def test_a_rolled_back_savepoint_makes_them_due_again(paused):
    paused.sql("SELECT pushy.enqueue('q')")
    with paused.connect(autocommit=False) as session:
        session.execute("SAVEPOINT s; SELECT pushy.queue_run('q')")
        session.execute("ROLLBACK TO SAVEPOINT s")
        assert session.execute("SELECT pushy.queue_run('q')").fetchone() == (1,)


def test_the_most_important_go_first_and_no_more_than_was_said(paused):
    paused.sql("SELECT pushy.enqueue('q', '\"later\"', priority => 7), pushy.enqueue('q', '\"first\"', priority => 0), pushy.enqueue('q', '\"next\"')")
    assert paused.value("SELECT pushy.queue_run('q', 0)") == 0
    assert paused.value("SELECT pushy.queue_run('q', max_jobs => 2)") == 2
    assert [args for args, in paused.rows("SELECT args FROM done")] == ["first", "next"]
    assert paused.value("SELECT pushy.queue_run('q')") == 1
    assert paused.value("SELECT pushy.queue_run('q')") == 0


def test_what_has_become_due_runs_and_what_has_not_waits(paused):
    paused.sql("SELECT pushy.enqueue('q', '1', run_at => clock_timestamp() + '1 ms'), pushy.enqueue('q', '2', delay => '1 hour')")
    paused.wait_until("SELECT clock_timestamp() > min(run_at) FROM pushy.jobs")
    assert paused.value("SELECT pushy.queue_run('q')") == 1
    assert states(paused) == ["completed", "scheduled"]


def test_what_a_job_enqueues_runs_in_the_same_call(paused):
    paused.sql("""
        CREATE FUNCTION chain(args jsonb) RETURNS void LANGUAGE sql AS
            $$SELECT pushy.enqueue('q', to_jsonb(args::int - 1)) WHERE args::int > 0$$;
        SELECT pushy.queue_register('q', 'chain(jsonb)'), pushy.enqueue('q', '3')""")
    assert paused.value("SELECT pushy.queue_run('q')") == 4
    assert paused.value("SELECT max(depth) FROM pushy.jobs") == 3


def test_a_failing_job_is_charged_and_its_effects_are_undone(paused):
    paused.sql("SELECT pushy.enqueue('q', '{\"fail\": \"x\"}'), pushy.enqueue('q', '{\"fail\": \"y\"}', max_attempts => 1), pushy.enqueue('q')")
    assert paused.value("SELECT pushy.queue_run('q')") == 3
    assert states(paused) == ["retryable", "discarded", "completed"]
    assert paused.rows("SELECT attempt, message, started_at IS NOT NULL FROM pushy.failures ORDER BY job_id") == [
        (1, "no: x", True), (1, "no: y", True)]
    assert paused.value("SELECT count(*) FROM done") == 1
    paused.sql("SELECT pushy.job_retry(id) FROM pushy.jobs WHERE state = 'retryable'")
    assert paused.value("SELECT pushy.queue_run('q')") == 1
    assert paused.value("SELECT max(attempt) FROM pushy.failures") == 2


def test_the_handler_knows_its_job_and_the_session_has_none_afterwards(paused):
    paused.sql("""
        CREATE FUNCTION about(job pushy.job) RETURNS jsonb LANGUAGE sql AS
            $$SELECT jsonb_build_array(job.args, (pushy.current_job()).id = job.id)$$;
        SELECT pushy.queue_register('q', 'about(pushy.job)'), pushy.enqueue('q', '7')""")
    paused.sql("SELECT pushy.queue_run('q')")
    assert paused.value("SELECT result FROM pushy.jobs") == [7, True]
    assert paused.value("SELECT pushy.current_job() IS NULL")


def test_what_a_handler_sets_ends_with_its_job(paused):
    paused.sql("""
        CREATE FUNCTION sets() RETURNS text LANGUAGE plpgsql AS $$
        BEGIN PERFORM set_config('work_mem', '7MB', false); RETURN current_setting('work_mem'); END$$;
        SELECT pushy.queue_register('q', 'sets()'), pushy.enqueue('q')""")
    paused.sql("SELECT pushy.queue_run('q')")
    assert paused.value("SELECT result FROM pushy.jobs") == "7MB"
    assert paused.value("SHOW work_mem") != "7MB"


def test_the_sessions_own_cursors_prepared_statements_and_locks_are_left_alone(paused):
    paused.sql("SELECT pushy.enqueue('q')")
    with paused.connect(autocommit=False) as session:
        session.execute("SELECT pg_advisory_lock(5); PREPARE mine AS SELECT 1; DECLARE c CURSOR FOR SELECT 2")
        session.execute("SELECT pushy.queue_run('q')")
        assert session.execute("FETCH c").fetchone() == (2,)
        assert session.execute("EXECUTE mine").fetchone() == (1,)
        assert session.execute("SELECT pg_advisory_unlock(5)").fetchone() == (True,)


def test_a_waiting_session_hears_of_a_job_done_this_way(paused):
    job = paused.value("SELECT pushy.enqueue('q')")
    with paused.connect(autocommit=False) as session:
        session.execute("SELECT pushy.queue_run('q')")
        waiting = paused.connect()
        waiting.pgconn.send_query(f"SELECT (pushy.job_wait({job}, '30 s')).state".encode())
        paused.wait_until("SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Extension'",
                          1, params=(waiting.info.backend_pid,))
        session.commit()
    assert waiting.pgconn.get_result().get_value(0, 0) == b"completed"


def test_the_statistics_count_what_was_committed(paused):
    paused.sql("SELECT pushy.enqueue_many('q', '{1,2}'); SELECT pushy.enqueue('q', '{\"fail\": 1}', max_attempts => 1)")
    paused.sql("BEGIN; SELECT pushy.queue_run('q'); ROLLBACK; SELECT pushy.queue_run('q')")
    assert paused.row("SELECT completed, failed, discarded FROM pushy.stats WHERE queue = 'q'") == {
        "completed": 2, "failed": 1, "discarded": 1}


def test_a_cancelled_statement_charges_nobody(paused):
    gate = Gate(paused)
    paused.sql(f"""
        CREATE FUNCTION stops() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;
        SELECT pushy.queue_register('q', 'stops()')""")
    job = paused.value("SELECT pushy.enqueue('q')")
    session = paused.connect()
    session.pgconn.send_query(b"SELECT pushy.queue_run('q')")
    gate.wait_for_arrival()
    session.cancel()
    assert session.pgconn.get_result().error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"
    gate.open()
    assert paused.job(job)["attempt"] == 0
    assert paused.value("SELECT pushy.queue_run('q')") == 1


def test_a_handler_that_cancels_its_own_job_completes_it(paused):
    paused.sql("""
        CREATE FUNCTION cancels(job pushy.job) RETURNS boolean LANGUAGE sql AS 'SELECT pushy.job_cancel(job.id)';
        SELECT pushy.queue_register('q', 'cancels(pushy.job)'), pushy.enqueue('q')""")
    assert paused.value("SELECT pushy.queue_run('q')") == 1
    assert states(paused) == ["completed"]


# -- beside the executors ----------------------------------------------------------------------------------------

def test_a_job_that_an_executor_runs_is_not_run_twice(db):
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION stops() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;
        SELECT pushy.queue_register('q', 'stops()'), pushy.enqueue('q')""")
    gate.wait_for_arrival()
    assert db.value("SELECT pushy.queue_run('q')") == 0
    gate.open()
    db.jobs_wait("q")


def test_the_queues_concurrency_holds_for_it_too_until_the_transaction_ends(db):
    db.sql("CREATE FUNCTION work() RETURNS int LANGUAGE sql AS 'SELECT pg_backend_pid()';"
           "SELECT pushy.queue_register('q', 'work()', concurrency => 1)")
    # An executor looks into a new queue, and has its permit meanwhile.
    db.jobs_wait("q")
    with db.connect(autocommit=False) as session:
        assert session.execute("SELECT pushy.queue_run('q')").fetchone() == (0,)
        assert session.execute("SELECT pushy.queue_run('q')").fetchone() == (0,), "it has the permit already"
        refused(db.main, "SELECT pushy.queue_run('q')", "55P03", "concurrency", "queue_pause")
        job = db.value("SELECT pushy.enqueue('q')")
        assert db.value("SELECT state FROM pushy.jobs WHERE id = %s", job) == "available"
        session.commit()
        assert db.job_wait(job)["result"] != session.info.backend_pid


# -- who may, and where ------------------------------------------------------------------------------------------

def test_a_queue_of_another_role_is_refused_to_everybody_else(db, role):
    """Its handler would run with the session's rights, or could RESET ROLE to them."""
    tenant, stranger = role(), role()
    member = role(f"IN ROLE {tenant}")
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT'")
    with db.connect(user=tenant) as session:
        session.execute("SELECT pushy.queue_register('q', 'work()'), pushy.enqueue('q')")
    refused(db.main, "SELECT pushy.queue_run('q')", "42501", tenant, "postgres")
    db.sql(f"SET ROLE {tenant}")
    refused(db.main, "SELECT pushy.queue_run('q')", "42501", "postgres")
    db.sql("RESET ROLE")
    with db.connect(user=member) as session:
        refused(session, "SELECT pushy.queue_run('q')", "42501", tenant, member)
        session.execute(f"SET ROLE {tenant}")
        refused(session, "SELECT pushy.queue_run('q')", "42501", tenant, member)
    with db.connect(user=stranger) as session:
        refused(session, "SELECT pushy.queue_run('q')", "42501", "owner")


def test_a_session_that_is_the_roles_by_set_session_authorization_is_refused(db, role):
    """Its handler could RESET SESSION AUTHORIZATION and be who has logged in."""
    name = role()
    db.sql(f"GRANT CREATE ON SCHEMA public TO {name}")
    with db.connect(user=name) as session:
        session.execute("""
            CREATE FUNCTION escape() RETURNS text LANGUAGE plpgsql AS
              'BEGIN RESET SESSION AUTHORIZATION; RETURN current_user || current_setting(''is_superuser''); END';
            SELECT pushy.queue_register('escape', 'escape()'); SELECT pushy.queue_pause('escape'); SELECT pushy.enqueue('escape')""")
    with db.connect() as admin:
        admin.execute(f"SET SESSION AUTHORIZATION {name}")
        refused(admin, "SELECT pushy.queue_run('escape')", "42501", "role that has logged in", "Role postgres has logged in", f"Connect as {name}")
        admin.execute("RESET SESSION AUTHORIZATION")
    assert db.rows("SELECT state, result FROM pushy.jobs WHERE queue = 'escape'") == [("available", None)]
    with db.connect(user=name) as session:
        assert session.execute("SELECT pushy.queue_run('escape')").fetchone() == (1,)
    assert db.value("SELECT result #>> '{}' FROM pushy.jobs WHERE queue = 'escape'") == f"{name}off"


def test_privilege_work_is_not_enough(db, role):
    worker = role()
    db.sql(f"CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT';"
           f"SELECT pushy.queue_register('q', 'work()', run_as => '{worker}'), pushy.queue_grant('q', '{worker}', 'work')")
    with db.connect(user=worker) as session:
        refused(session, "SELECT pushy.queue_run('q')", "42501", "owner")


def test_a_superusers_session_does_not_run_what_somebody_else_can_replace(paused, role):
    paused.sql(f"ALTER FUNCTION work(jsonb) OWNER TO {role()}")
    refused(paused.main, "SELECT pushy.queue_run('q')", "42501", "superuser")


def test_a_security_definer_function_does_not_lend_its_owner(paused, role):
    """A caller of somebody's function gets neither the function owner's queue run as the caller nor the reverse."""
    caller = role()
    paused.sql("CREATE FUNCTION lend() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$SELECT pushy.queue_run('q')$$;"
               "SELECT pushy.enqueue('q')")
    with paused.connect(user=caller) as session:
        refused(session, "SELECT lend()", "42501", caller)


def test_a_handler_may_not_call_it(db):
    db.sql("CREATE FUNCTION nested() RETURNS bigint LANGUAGE sql AS $$SELECT pushy.queue_run('q')$$;"
           "SELECT pushy.queue_register('q', 'nested()', max_attempts => 1)")
    job = db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    assert (job["state"], "handler" in job["last_error"]) == ("discarded", True), job


def test_a_parked_queue_says_why(paused):
    paused.sql("DROP FUNCTION work(jsonb)")
    refused(paused.main, "SELECT pushy.queue_run('q')", "42883", "work(jsonb)", "queue_resume")


def test_a_negative_number_of_jobs_is_refused(paused):
    refused(paused.main, "SELECT pushy.queue_run('q', -1)", "22023", "-1", "max_jobs")


def test_a_read_only_transaction_is_refused(paused):
    paused.sql("SELECT pushy.enqueue('q')")
    with paused.connect() as session:
        refused(session, "BEGIN READ ONLY; SELECT pushy.queue_run('q')", "25006")


def test_it_works_without_the_preload(make_cluster):
    db = make_cluster({"shared_preload_libraries": ""}).database()
    db.sql("CREATE FUNCTION work(args jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT args';"
           "SELECT pushy.queue_register('q', 'work(jsonb)', concurrency => 1)")
    job = db.value("SELECT pushy.enqueue('q', '1')")
    assert db.value("SELECT pushy.queue_run('q')") == 1
    assert db.job(job)["result"] == 1


# -- what watches owe --------------------------------------------------------------------------------------------

@pytest.fixture
def watched(paused):
    paused.sql("CREATE TABLE t (id int PRIMARY KEY, v int); SELECT pushy.watch('t', queue => 'q')")
    return paused


def keys(session) -> list[int]:
    return [id for id, in session.execute("SELECT (args->'key'->>'id')::int FROM done ORDER BY 1").fetchall()]


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_the_jobs_that_watches_owe_for_this_transaction_run(watched, level):
    """As a test of Django's runs: within a transaction, and a savepoint for each test."""
    with watched.connect(autocommit=False) as session:
        session.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        session.execute("INSERT INTO t VALUES (1)")
        session.execute("SAVEPOINT one; INSERT INTO t VALUES (2)")
        assert session.execute("SELECT pushy.queue_run('q')").fetchone() == (2,)
        assert keys(session) == [1, 2]
        assert session.execute("SELECT pushy.queue_run('q')").fetchone() == (0,)
        session.execute("INSERT INTO t VALUES (3)")
        session.execute("ROLLBACK TO one")
        session.execute("SAVEPOINT two; INSERT INTO t VALUES (4); SAVEPOINT three; INSERT INTO t VALUES (5)")
        assert session.execute("SELECT pushy.queue_run('q')").fetchone() == (3,)
        assert keys(session) == [1, 4, 5]
        session.execute("RELEASE three; RELEASE two; INSERT INTO t VALUES (6)")
        assert session.execute("SELECT pushy.queue_run('q', 1)").fetchone() == (1,)
        session.execute("INSERT INTO t VALUES (7)")
        session.commit()
    assert watched.value("SELECT pushy.queue_run('q')") == 1
    assert keys(watched.main) == [1, 4, 5, 6, 7]


def test_what_a_handler_changes_in_a_watched_table_runs_in_the_same_call(watched):
    watched.sql("""
        CREATE FUNCTION down(args jsonb) RETURNS void LANGUAGE sql AS
            $$INSERT INTO t SELECT (args->'key'->>'id')::int - 1 WHERE (args->'key'->>'id')::int > 1$$;
        SELECT pushy.queue_register('q', 'down(jsonb)')""")
    with watched.connect(autocommit=False) as session:
        session.execute("INSERT INTO t VALUES (4)")
        assert session.execute("SELECT pushy.queue_run('q')").fetchone() == (4,)
        assert session.execute("SELECT array_agg(depth ORDER BY id) FROM pushy.jobs").fetchone() == ([0, 1, 2, 3],)
        session.rollback()
    assert states(watched) == []


def test_statements_on_partitions_are_seen_too(watched):
    watched.sql("""CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9);
                   SELECT pushy.watch('p', queue => 'q', level => 'statement')""")
    with watched.connect(autocommit=False) as session:
        session.execute("INSERT INTO p1 VALUES (1), (2)")
        assert session.execute("SELECT pushy.queue_run('q')").fetchone() == (1,)
        assert session.execute("SELECT args->'count' FROM done").fetchone() == (2,)
        session.commit()
    assert states(watched) == ["completed"]


def test_notices_wait_for_the_commit_all_the_same(watched):
    watched.sql("SELECT pushy.watch('t', channel => 'heard')")
    listener = watched.listen("heard")
    with watched.connect(autocommit=False) as session:
        for id in range(1, 6):
            session.execute(f"INSERT INTO t VALUES ({id}); SELECT pushy.queue_run('q')")
        session.execute("SAVEPOINT a; INSERT INTO t VALUES (6); SELECT pushy.queue_run('q'); ROLLBACK TO a; INSERT INTO t VALUES (7)")
        session.commit()
    heard = [json.loads(listener.wait_for().payload)["key"]["id"] for _ in range(6)]
    assert heard == [1, 2, 3, 4, 5, 7]


# -- what a job leaves -------------------------------------------------------------------------------------------

LEAVES = {
    "a temporary table": "CREATE TEMP TABLE left_over (i int)",
    "one that goes with the commit": "CREATE TEMP TABLE left_over ON COMMIT DROP AS SELECT 1 AS i",
    "one with a view, a sequence and a function": "CREATE TEMP TABLE left_over (i serial PRIMARY KEY); CREATE TEMP VIEW left_view AS SELECT * FROM left_over; "
                                                 "CREATE FUNCTION pg_temp.left_function() RETURNS left_over LANGUAGE sql AS 'SELECT * FROM left_over'",
    "a temporary type": "CREATE TYPE pg_temp.left_over AS ENUM ('a')",
    "a prepared statement": "EXECUTE 'PREPARE left_over AS SELECT 1'",
    "a cursor": "EXECUTE 'DECLARE left_over CURSOR FOR SELECT 1'",
    "a cursor that is held": "EXECUTE 'DECLARE left_over CURSOR WITH HOLD FOR SELECT 1'",
}


@pytest.mark.parametrize("what", LEAVES)
def test_a_job_leaves_nothing_to_the_next(paused, what):
    """As between two jobs of an executor; what the session had before stays."""
    paused.sql(f"CREATE FUNCTION leaves() RETURNS void LANGUAGE plpgsql AS $$BEGIN {LEAVES[what]}; END$$; SELECT pushy.queue_register('q', 'leaves()', max_attempts => 1)")
    with paused.connect(autocommit=False) as session:
        session.execute("CREATE TEMP TABLE mine AS SELECT 7 AS i; PREPARE my_statement AS SELECT 8; DECLARE my_cursor CURSOR FOR SELECT 9 FROM mine")
        session.execute("SELECT pushy.enqueue('q'), pushy.enqueue('q'), pushy.enqueue('q')")
        assert session.execute("SELECT pushy.queue_run('q')").fetchone() == (3,)
        assert session.execute("SELECT state, last_error FROM pushy.jobs").fetchall() == [("completed", None)] * 3
        assert session.execute("SELECT i FROM mine").fetchone() == (7,)
        assert session.execute("EXECUTE my_statement").fetchone() == (8,)
        assert session.execute("FETCH my_cursor").fetchone() == (9,)
        assert session.execute("SELECT name FROM pg_prepared_statements WHERE name LIKE 'left%' UNION ALL SELECT name FROM pg_cursors WHERE name LIKE 'left%' "
                               "UNION ALL SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relname LIKE 'left%'").fetchall() == []
        session.commit()
        assert session.execute("SELECT i FROM mine").fetchone() == (7,)


# What a session has of its own, and how it is seen to be there still.
OWN = {
    "a table": ("CREATE TEMP TABLE own AS SELECT 7 AS i", "SELECT i = 7 FROM own"),
    "a table with a serial key": ("CREATE TEMP TABLE own (i serial PRIMARY KEY); INSERT INTO own DEFAULT VALUES", "SELECT i = 1 FROM own"),
    "a table with an identity": ("CREATE TEMP TABLE own (i int GENERATED ALWAYS AS IDENTITY); INSERT INTO own DEFAULT VALUES", "SELECT i = 1 FROM own"),
    "a view": ("CREATE TEMP VIEW own AS SELECT true AS i", "SELECT i FROM own"),
    "a sequence": ("CREATE TEMP SEQUENCE own", "SELECT nextval('pg_temp.own') > 0"),
    "a function": ("CREATE FUNCTION pg_temp.own() RETURNS boolean LANGUAGE sql AS 'SELECT true'", "SELECT pg_temp.own()"),
    "an aggregate": ("CREATE AGGREGATE pg_temp.own(boolean) (sfunc = booland_statefunc, stype = boolean)", "SELECT pg_temp.own(true)"),
    "an operator": ("CREATE OPERATOR pg_temp.=== (leftarg = int, rightarg = int, function = int4eq)", "SELECT 1 OPERATOR(pg_temp.===) 1"),
    "an enum": ("CREATE TYPE pg_temp.own AS ENUM ('a')", "SELECT 'a'::pg_temp.own IS NOT NULL"),
    "a range": ("CREATE TYPE pg_temp.own AS RANGE (subtype = int)", "SELECT '[1,2)'::pg_temp.own IS NOT NULL"),
    "a domain": ("CREATE DOMAIN pg_temp.own AS int", "SELECT 1::pg_temp.own = 1"),
    "a collation": ("CREATE COLLATION pg_temp.own FROM \"C\"", "SELECT 'a' < 'b' COLLATE pg_temp.own"),
    "statistics": ("CREATE STATISTICS pg_temp.own ON i, j FROM base", "SELECT count(*) = 1 FROM pg_statistic_ext WHERE stxname = 'own'"),
    "a prepared statement": ("PREPARE own AS SELECT true", "EXECUTE own"),
    "a cursor that is held": ("DECLARE own CURSOR WITH HOLD FOR SELECT true FROM generate_series(1, 9)", "FETCH own"),
    "a setting": ("SET my.own = 'x'", "SELECT current_setting('my.own') = 'x'"),
    "an advisory lock": ("SELECT pg_advisory_lock(4711)",
                         "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND pid = pg_backend_pid()"),
    "a LISTEN": ("LISTEN own", "SELECT 'own' IN (SELECT pg_listening_channels())"),
}
HANDLERS = {
    "does nothing": "NULL",
    "reads a temporary table": "PERFORM FROM pg_temp.base",
    "makes one": "CREATE TEMP TABLE left_over (i serial)",
    "makes one that has an identity": "CREATE TEMP TABLE left_over (i int GENERATED ALWAYS AS IDENTITY)",
    "gives the session's own an identity": "ALTER TABLE pg_temp.base ALTER i ADD GENERATED ALWAYS AS IDENTITY",
    "fails": "CREATE TEMP TABLE left_over (i int); RAISE EXCEPTION 'no'",
}


@pytest.mark.parametrize("what", OWN)
def test_what_the_session_has_is_never_taken_for_a_jobs(paused, what):
    """Made in an earlier transaction, which this one may not have touched, or in this one."""
    make, look = OWN[what]
    for number, (handler, does) in enumerate(HANDLERS.items()):
        paused.sql(f"CREATE FUNCTION h{number}() RETURNS void LANGUAGE plpgsql AS $$BEGIN {does}; END$$; "
                   f"SELECT pushy.queue_register('q{number}', 'h{number}()', max_attempts => 1), pushy.queue_pause('q{number}')")
        for when in ("earlier", "now"):
            with paused.connect(autocommit=False) as session:
                session.execute("CREATE TEMP TABLE base (i int NOT NULL, j int)")
                if when == "earlier":
                    session.execute(make)
                session.commit()
                if when == "now":
                    session.execute(make)
                session.execute(f"SELECT pushy.enqueue('q{number}')")
                assert session.execute(f"SELECT pushy.queue_run('q{number}')").fetchone() == (1,)
                if what != "a LISTEN" or when == "earlier":
                    assert session.execute(look).fetchone() == (True,), (handler, when)
                session.commit()
                assert session.execute(look).fetchone() == (True,), (handler, when)
                assert session.execute("SELECT count(i) FROM base").fetchone() == (0,), (handler, when)
                assert session.execute("SELECT to_regclass('pg_temp.left_over')").fetchone() == (None,), (handler, when)
                session.rollback()
                session.execute("SELECT pg_advisory_unlock_all()")
                session.commit()


def test_what_has_run_jobs_cannot_be_prepared_because_nobody_could_give_its_permit_back(paused):
    paused.sql("SELECT pushy.queue_alter('q', concurrency => 1)")
    paused.sql("SELECT pushy.enqueue('q', '{\"n\": 1}'), pushy.enqueue('q', '{\"n\": 2}')")
    with paused.connect(autocommit=False) as session:
        assert session.execute("SELECT pushy.queue_run('q', 1)").fetchone() == (1,)
        refused(session, "PREPARE TRANSACTION 'has run'", "0A000", "queue_run", "\"q\"")
    assert states(paused) == ["available", "available"]
    assert paused.value("SELECT pushy.queue_run('q')") == 2


def test_until_runs_what_comes_due_by_then_retries_included(db):
    db.sql("""
        CREATE TABLE ran (at timestamptz DEFAULT clock_timestamp(), what jsonb);
        CREATE FUNCTION work(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$BEGIN
            IF job.args ? 'fail' AND job.attempt < 3 THEN RAISE EXCEPTION 'not yet'; END IF;
            INSERT INTO ran (what) VALUES (job.args);
        END$$;
        SELECT pushy.queue_register('q', 'work', retry_delay => '1 hour', backoff => 'fixed'), pushy.queue_pause('q');
        SELECT pushy.enqueue('q', '{"fail": 1}'), pushy.enqueue('q', '"in an hour"', delay => '1 hour'), pushy.enqueue('q', '"tomorrow"', delay => '1 day')""")
    assert db.value("SELECT pushy.queue_run('q')") == 1  # its first failure
    assert db.value("SELECT pushy.queue_run('q', until => now() + interval '50 minutes')") == 0
    # The second failure puts its third attempt off by an hour again, counted from now.
    assert db.value("SELECT pushy.queue_run('q', until => now() + interval '90 minutes')") == 3
    assert len(db.rows("SELECT what FROM ran")) == 2
    assert db.value("SELECT pushy.queue_run('q', max_jobs => 0, until => now() + interval '2 days')") == 0
    assert db.value("SELECT pushy.queue_run('q', until => now() + interval '2 days')") == 1
    assert sorted(str(what) for what, in db.rows("SELECT what FROM ran")) == ["in an hour", "tomorrow", "{'fail': 1}"]
