"""What a procedure leaves in its session, committed as it may be, does not reach the next job."""

import psycopg
import pytest

# What a job does before a COMMIT; what the next must find as it was.
LEFTOVERS = {
    "a plain SET": ("SET search_path = pg_catalog, elsewhere", "SELECT current_setting('search_path')"),
    "a SET of a setting of its own": ("SELECT set_config('my.secret', 'x', false)", "SELECT coalesce(current_setting('my.secret', true), '')"),
    "a SET of a deadline": ("SET lock_timeout = '3s'", "SELECT current_setting('lock_timeout')"),
    "a SET of statement_timeout": ("SET statement_timeout = '3s'", "SELECT current_setting('statement_timeout')"),
    "a SET of the default isolation": ("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                                       "SELECT current_setting('transaction_isolation')"),
    "read-only transactions": ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SELECT current_setting('transaction_read_only')"),
    "asynchronous commits": ("SET synchronous_commit = local", "SELECT current_setting('synchronous_commit')"),
    "an encoding": ("SET client_encoding = 'LATIN1'", "SELECT current_setting('client_encoding')"),
    "a role": ("SET ROLE pg_monitor", "SELECT current_user::text || current_setting('role')"),
    "another session user": ("SET SESSION AUTHORIZATION {role}", "SELECT session_user::text || current_user::text"),
    "a prepared statement": ("PREPARE left_over AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements"),
    "a cursor WITH HOLD": ("DECLARE left_over CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors WHERE name = 'left_over'"),
    "a session advisory lock": ("SELECT pg_advisory_lock(4711)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"),
    "a temporary table": ("CREATE TEMP TABLE left_over (n int)", "SELECT to_regclass('pg_temp.left_over') IS NOT NULL"),
    "a temporary table that shadows": ("CREATE TEMP TABLE effects (n int)", "SELECT 'effects'::regclass = 'public.effects'::regclass"),
    "a temporary function": ("CREATE FUNCTION pg_temp.left_over() RETURNS int LANGUAGE sql RETURN 1",
                             "SELECT to_regprocedure('pg_temp.left_over()') IS NOT NULL"),
}


def leave(db, act: str, look: str, end: str) -> set[tuple]:
    """What ten jobs have seen, every second of which leaves something."""
    db.sql(f"""
        CREATE TABLE effects (n int, seen text);
        CREATE PROCEDURE work(args jsonb) LANGUAGE plpgsql AS $$
        DECLARE seen text;
        BEGIN
            EXECUTE '{look.replace("'", "''")}' INTO seen;
            INSERT INTO public.effects VALUES ((args->>'n')::int, seen);
            COMMIT;
            IF (args->>'n')::int % 2 = 1 THEN
                EXECUTE '{act.replace("'", "''")}';
                COMMIT;
                {end}
            END IF;
        END $$;
        SELECT pushy.queue_register('q', 'work', concurrency => 1, max_attempts => 1)""")
    db.sql("SELECT pushy.enqueue_many('q', ARRAY(SELECT jsonb_build_object('n', n) FROM generate_series(1, 10) n))")
    db.jobs_wait("q")
    assert db.value("SELECT count(*) FROM effects") == 10, db.rows("SELECT DISTINCT message FROM pushy.failures")
    return set(db.rows("SELECT DISTINCT seen FROM effects"))


@pytest.mark.parametrize("end", ["", "RAISE 'after the act';", "PERFORM pushy.job_snooze('1 hour');"], ids=["ends", "fails", "snoozes"])
@pytest.mark.parametrize("kind", LEFTOVERS)
def test_what_a_procedure_leaves_does_not_reach_the_next(db, role, kind, end):
    act, look = LEFTOVERS[kind]
    seen = leave(db, act.replace("{role}", role()), look, end)
    assert len(seen) == 1, seen


def test_currval_is_not_known_before_nextval_of_the_same_job(db):
    db.sql("CREATE SEQUENCE counter CACHE 10")
    look = "SELECT count(*) FROM pushy.current_job() WHERE false"
    leave(db, "SELECT nextval('counter')", look, "BEGIN PERFORM lastval(); END;")
    db.sql("CREATE OR REPLACE PROCEDURE work(args jsonb) LANGUAGE plpgsql AS 'BEGIN PERFORM lastval(); END'")
    job = db.value("SELECT pushy.enqueue('q')")
    assert db.job_wait(job)["last_error"] == "lastval is not yet defined in this session"


def test_listen_is_refused_in_a_procedure(db):
    db.sql("""
        CREATE PROCEDURE work() LANGUAGE plpgsql AS $$BEGIN COMMIT; LISTEN news; COMMIT; END$$;
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1)""")
    assert "LISTEN" in db.job_wait(db.value("SELECT pushy.enqueue('q')"))["last_error"]


def test_a_function_of_the_same_role_finds_the_session_clean_after_a_procedure(make_cluster):
    """They share the executor, because there is one."""
    db = make_cluster({"pushy.max_executors": 1}).database()
    db.sql("""
        CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
        DECLARE r record;
        BEGIN
            SET search_path = elsewhere;
            CREATE TEMP TABLE left_over (n int);
            EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT 1';
            COMMIT;
            -- The loop's portal is held over the commit, and pinned when the error comes.
            FOR r IN SELECT generate_series(1, 3) LOOP COMMIT; PERFORM 1 / 0; END LOOP;
        END $$;
        CREATE FUNCTION look() RETURNS jsonb LANGUAGE sql AS $$
            SELECT jsonb_build_object('path', current_setting('search_path'), 'temp', to_regclass('pg_temp.left_over'),
                                      'cursors', (SELECT count(*) FROM pg_cursors WHERE name <> ''), 'pid', pg_backend_pid()) $$;
        SELECT pushy.queue_register('q', 'work()', concurrency => 1, max_attempts => 1);
        SELECT pushy.queue_register('f', 'look()', concurrency => 1)""")
    first = db.job_wait(db.value("SELECT pushy.enqueue('f')"))["result"]
    assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["last_error"] == "division by zero"
    assert db.job_wait(db.value("SELECT pushy.enqueue('f')"))["result"] == first


def test_a_hold_cursor_and_a_deferred_trigger_of_a_procedure_run_with_its_rights(db, role):
    """What is user's code at a commit runs before any bookkeeping."""
    tenant = role()
    db.sql(f"""
        CREATE TABLE who (kind text, name text);
        GRANT INSERT ON who TO {tenant};
        GRANT CREATE ON SCHEMA public TO {tenant};""")
    with db.connect(user=tenant) as session:
        session.execute("""
            CREATE FUNCTION note(kind text) RETURNS int LANGUAGE plpgsql AS
                $$BEGIN INSERT INTO public.who VALUES (kind, current_user || '/' || session_user); RETURN 1; END$$""")
        session.execute("CREATE TABLE late (n int)")
        session.execute("CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS "
                        "$$BEGIN PERFORM public.note('deferred'); RETURN NULL; END$$")
        session.execute("CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED"
                        " FOR EACH ROW EXECUTE FUNCTION late()")
        session.execute("""
            CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
            BEGIN
                EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT public.note(''cursor'')';
                INSERT INTO public.late VALUES (1);
            END $$""")
    db.sql(f"SELECT pushy.queue_register('q', 'public.work()', run_as => '{tenant}', max_attempts => 1)")
    done = db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    assert done["state"] == "completed", done["last_error"]
    assert set(db.rows("SELECT * FROM who")) == {("cursor", f"{tenant}/{tenant}"), ("deferred", f"{tenant}/{tenant}")}


def test_a_superusers_procedure_cannot_commit_in_a_function_that_calls_it(db):
    with pytest.raises(psycopg.Error, match="invalid transaction termination"):
        db.sql("""
            CREATE PROCEDURE work() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
            DO $$BEGIN PERFORM 1; BEGIN CALL work(); EXCEPTION WHEN division_by_zero THEN END; END$$""")
