"""What one job leaves in its session does not reach the next, though they share a process and often a transaction."""

import pytest

from stage.batches import enqueue

# What a job does; what the next must find as it was.
LEFTOVERS = {
    "a plain SET": ("SET search_path = pg_catalog, elsewhere", "SELECT current_setting('search_path')"),
    "a SET of a setting of its own": ("SELECT set_config('my.secret', 'x', false)", "SELECT coalesce(current_setting('my.secret', true), '')"),
    "a SET LOCAL": ("SET LOCAL work_mem = '70MB'", "SELECT current_setting('work_mem')"),
    "a SET of lock_timeout": ("SET lock_timeout = '3s'", "SELECT current_setting('lock_timeout') = '3s'"),
    "a SET of the default isolation": ("SET default_transaction_isolation = serializable", "SELECT current_setting('default_transaction_isolation')"),
    "a read-only transaction": ("SET TRANSACTION READ ONLY", "SELECT current_setting('transaction_read_only')"),
    "a role": ("SET ROLE pg_monitor", "SELECT current_user::text || current_setting('role')"),
    "another session user": ("SET SESSION AUTHORIZATION {role}", "SELECT session_user::text || current_user::text"),
    "a prepared statement": ("PREPARE left_over AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements"),
    "a cursor": ("DECLARE left_over CURSOR FOR SELECT 1", "SELECT count(*) FROM pg_cursors WHERE name = 'left_over'"),
    "a cursor WITH HOLD": ("DECLARE left_over CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors WHERE name = 'left_over'"),
    "a session advisory lock": ("SELECT pg_advisory_lock(4711)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"),
    "a sequence's current value": ("SELECT nextval('counter')", "SELECT pg_sequence_last_value('counter') IS NULL AND false"),
    "constraints set immediate": ("SET CONSTRAINTS ALL IMMEDIATE", "SELECT is_deferred()"),
}


def leftovers(db, kind: str, act: str, role: str, fails: bool = False) -> str:
    """Queue `q`: odd jobs look and then act, even ones look; answers the query that looks."""
    _, look = LEFTOVERS[kind]
    act = act.replace("{role}", role).replace("'", "''")
    db.sql("""
        CREATE SEQUENCE counter;
        CREATE TABLE circle (a int PRIMARY KEY, b int REFERENCES circle DEFERRABLE INITIALLY DEFERRED);
        CREATE FUNCTION is_deferred() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.circle VALUES (-1, -2);
            DELETE FROM public.circle;
            RETURN true;
        EXCEPTION WHEN foreign_key_violation THEN
            RETURN false;
        END $$;""")
    db.sql(f"""
        CREATE FUNCTION work(args jsonb) RETURNS text LANGUAGE plpgsql AS $$
        DECLARE seen text;
        BEGIN
            EXECUTE '{look.replace("'", "''")}' INTO seen;
            IF (args->>'n')::int % 2 = 1 THEN
                EXECUTE '{act}';
                {"RAISE EXCEPTION 'after the act';" if fails else ""}
            END IF;
            RETURN seen;
        END $$;
        SELECT pushy.queue_register('q', 'work(jsonb)', concurrency => 1, max_attempts => 1)""")
    return look


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_what_a_job_leaves_does_not_reach_the_next(db, role, kind):
    leftovers(db, kind, LEFTOVERS[kind][0], role())
    enqueue(db, 60)
    db.jobs_wait("q")
    seen = db.rows("SELECT state, result::text, count(*) FROM pushy.jobs GROUP BY 1, 2")
    assert len(seen) == 1 and seen[0][0] == "completed" and seen[0][2] == 60, seen


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_what_a_failed_job_leaves_does_not_reach_the_next(db, role, kind):
    leftovers(db, kind, LEFTOVERS[kind][0], role(), fails=True)
    enqueue(db, 60)
    db.jobs_wait("q")
    assert db.rows("SELECT DISTINCT message FROM pushy.failures") == [("after the act",)]
    seen = db.rows("SELECT result::text, count(*) FROM pushy.jobs WHERE state = 'completed' GROUP BY 1")
    assert len(seen) == 1 and seen[0][1] == 30, seen


# What deferred triggers do at COMMIT: no subtransaction of a job undoes it.
AT_COMMIT = [kind for kind in LEFTOVERS if "transaction" not in kind and "constraints" not in kind and kind != "a cursor"]


@pytest.mark.parametrize("kind", AT_COMMIT)
def test_what_a_deferred_trigger_leaves_does_not_reach_the_next(db, role, kind):
    leftovers(db, kind, LEFTOVERS[kind][0], role())
    act = LEFTOVERS[kind][0].replace("{role}", role()).replace("'", "''")
    db.sql(f"""
        CREATE TABLE written (n int);
        CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN EXECUTE '{act}'; RETURN NULL; END$$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION at_commit();
        CREATE OR REPLACE FUNCTION work(args jsonb) RETURNS text LANGUAGE plpgsql AS $$
        DECLARE seen text;
        BEGIN
            EXECUTE '{LEFTOVERS[kind][1].replace("'", "''")}' INTO seen;
            INSERT INTO public.written VALUES (1);
            RETURN seen;
        END $$""")
    enqueue(db, 60)
    db.jobs_wait("q")
    seen = db.rows("SELECT state, result::text, count(*) FROM pushy.jobs GROUP BY 1, 2")
    assert len(seen) == 1 and seen[0][0] == "completed" and seen[0][2] == 60, \
        (seen, db.rows("SELECT DISTINCT message FROM pushy.failures"))


def test_a_temporary_table_made_at_commit_does_not_reach_the_next(db):
    db.sql("""
        CREATE TABLE written (n int);
        CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN CREATE TEMP TABLE left_over (n int); RETURN NULL; END$$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION at_commit();
        CREATE FUNCTION work() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.written VALUES (1);
            RETURN to_regclass('pg_temp.left_over') IS NOT NULL;
        END $$;
        SELECT pushy.queue_register('q', 'work()', concurrency => 1, max_attempts => 1, batch => false)""")
    enqueue(db, 20)
    db.jobs_wait("q")
    assert db.rows("SELECT state, result, count(*) FROM pushy.jobs GROUP BY 1, 2") == [("completed", False, 20)], \
        db.rows("SELECT DISTINCT message FROM pushy.failures")


def test_currval_is_not_known_before_nextval_of_the_same_job(db):
    db.sql("""
        CREATE SEQUENCE counter CACHE 10;
        CREATE FUNCTION work() RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            BEGIN
                PERFORM currval('public.counter');
                RETURN 'currval is known';
            EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL;
            END;
            BEGIN
                PERFORM lastval();
                RETURN 'lastval is known';
            EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL;
            END;
            PERFORM nextval('public.counter');
            RETURN 'unknown';
        END $$;
        SELECT pushy.queue_register('q', 'work()', concurrency => 1)""")
    enqueue(db, 40)
    db.jobs_wait("q")
    assert db.rows("SELECT result, count(*) FROM pushy.jobs GROUP BY 1") == [("unknown", 40)]


def test_listen_is_refused_in_a_job(db):
    db.sql("""
        CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$BEGIN LISTEN news; END$$;
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1)""")
    assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["state"] == "discarded"


def test_notices_of_jobs_are_heard_at_their_commit(db):
    listener = db.listen("news")
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS $$SELECT pg_notify('news', args::text)$$;
        SELECT pushy.queue_register('q', 'work(jsonb)')""")
    enqueue(db, 50)
    for n in range(1, 51):
        listener.wait_for_json()
    assert sorted(int(n.payload[6:-1]) for n in listener.heard) == list(range(1, 51))


# -- what ALTER ROLE and ALTER DATABASE set -----------------------------------------------------------------------

ROLE_SETTINGS = {
    "default_transaction_isolation": ("'repeatable read'", "transaction_isolation", "read committed"),
    "default_transaction_read_only": ("on", "transaction_read_only", "off"),
    "default_transaction_deferrable": ("on", "transaction_deferrable", "off"),
    "lock_timeout": ("'1ms'", "lock_timeout", None),
    "statement_timeout": ("'1ms'", "statement_timeout", "0"),
    "idle_in_transaction_session_timeout": ("'1ms'", "idle_in_transaction_session_timeout", "0"),
    "row_security": ("off", "row_security", "on"),
    "search_path": ("elsewhere, public", "search_path", "elsewhere, public"),
    "work_mem": ("'7MB'", "work_mem", "7MB"),
}


@pytest.mark.parametrize("setting", ROLE_SETTINGS)
@pytest.mark.parametrize("of", ["ROLE", "DATABASE"])
def test_jobs_run_whatever_is_set_for_their_role_or_database(db, role, setting, of):
    value, shown, expected = ROLE_SETTINGS[setting]
    owner = role()
    name = owner if of == "ROLE" else db.name
    db.sql(f"""
        ALTER {of} {name} SET {setting} = {value};
        CREATE TABLE effects (n int);
        GRANT ALL ON effects TO {owner};
        GRANT CREATE ON SCHEMA public TO {owner};""")
    db.sql(f"""
        SET ROLE {owner};
        CREATE FUNCTION work(args jsonb) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.effects VALUES ((args->>'n')::int);
            RETURN current_setting('{shown}');
        END $$;
        SELECT pushy.queue_register('q', 'work(jsonb)', max_attempts => 1);
        RESET ROLE""")
    enqueue(db, 40)
    db.jobs_wait("q")
    assert db.value("SELECT count(DISTINCT n) FROM effects") == 40, db.rows("SELECT message FROM pushy.failures LIMIT 3")
    if expected is not None:
        assert db.rows("SELECT DISTINCT result FROM pushy.jobs") == [(expected,)]


def test_a_lock_is_waited_for_whatever_lock_timeout_the_role_has(db, role):
    owner = role()
    db.sql(f"""
        ALTER ROLE {owner} SET lock_timeout = '1ms';
        CREATE TABLE effects (n int);
        GRANT ALL ON effects TO {owner};
        GRANT CREATE ON SCHEMA public TO {owner};
        SET ROLE {owner};
        CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'INSERT INTO public.effects VALUES (1)';
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1);
        RESET ROLE""")
    with db.connect(autocommit=False) as session:
        session.execute("LOCK TABLE effects IN ACCESS EXCLUSIVE MODE")
        job = db.value("SELECT pushy.enqueue('q')")
        db.wait_until("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'effects'::regclass "
                      "AND waitstart < clock_timestamp() - interval '100 ms')")
        session.commit()
    assert db.job_wait(job)["state"] == "completed"


@pytest.mark.parametrize("keep", ["1 hour", "0"])
def test_a_handler_that_rewrites_the_table_of_jobs_ends_its_own_jobs_and_no_others(db, keep):
    """A superuser's handler may CLUSTER it: each row is elsewhere then."""
    db.sql("CREATE TABLE done (n int); CREATE FUNCTION work(n jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN "
           "INSERT INTO done VALUES (n::int); "
           "IF n::int = 3 THEN EXECUTE 'CLUSTER pushy_internal.live_job USING live_job_pkey'; END IF; END$$")
    db.sql("SELECT pushy.queue_register('q', 'work(jsonb)', keep_completed => %s, concurrency => 1)", keep)
    # Dead rows at the front of the table, and jobs that wait among those that run.
    db.sql("SELECT pushy.enqueue_many('q', array_agg(to_jsonb(n + 1000))) FROM generate_series(1, 50) n")
    db.jobs_wait("q")
    db.sql("SELECT pushy.queue_pause('q')")
    for n in range(20):
        db.sql("SELECT pushy.enqueue('q', %s, delay => '1 day'), pushy.enqueue('q', %s)", str(n + 100), str(n))
    db.sql("SELECT pushy.queue_resume('q')")
    db.jobs_wait("q")
    assert db.rows("SELECT n FROM done WHERE n < 1000 ORDER BY n") == [(n,) for n in range(20)]
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'scheduled'") == 20
