"""When code of users runs for a watch, and as whom: in the statement that writes, as the writer, with the settings there, and where its timeout
stops it; however late the change is told."""

import itertools

import psycopg
import pytest

from stage.watching import Watching, watch

PATH = "s, pg_temp"
COUNTS = "SELECT notices + jobs, errors FROM pushy.watches"

# A function per way to write, called by another role with another search_path.
WRITES = {
    "insert": "INSERT INTO s.p VALUES (2, 1, 'calm')",
    "insert into a partition": "INSERT INTO s.p1 VALUES (2, 1, 'calm')",
    "update": "UPDATE s.p SET v = 'x' WHERE id = 1",
    "delete": "DELETE FROM s.p WHERE id = 1",
    "move": "UPDATE s.p SET k = 2 WHERE id = 1",
    "stopped move": "UPDATE s.p SET k = 3 WHERE id = 1",
    "stopped move in a savepoint": "BEGIN UPDATE s.p SET k = 3 WHERE id = 1; EXCEPTION WHEN division_by_zero THEN END",
    "stopped move of a partition's partition": "UPDATE s.p SET k = 4 WHERE id = 1; UPDATE s.p4 SET k = 5 WHERE id = 1",
}
WATCHES = {
    "condition": "condition => 's.spot(''condition'') IS NOT NULL'",
    "payload_expr": "payload_expr => 's.spot(''payload_expr'')'",
    "topic_expr": "topic_expr => 's.spot(''topic_expr'')'",
    "args_expr": "queue => 'q', args_expr => 'to_jsonb(s.spot(''args_expr''))'",
    "a value's cast": "payload => 'row'",
    "a value's cast in a job": "payload => 'row', queue => 'q'",
    "a condition, and a key's cast, of a statement": "level => 'statement', condition => 's.spot(''condition'') IS NOT NULL'",
}
ENDS = {
    "commit": ["COMMIT"],
    "a released savepoint": ["RELEASE a", "COMMIT"],
    "another statement": ["INSERT INTO s.p VALUES (7, 1)", "COMMIT"],
    "queue_run": ["SELECT pushy.queue_run('q')", "COMMIT"],
    "two-phase commit": ["PREPARE TRANSACTION 'two'", "COMMIT PREPARED 'two'"],
}


@pytest.fixture
def planted(db, role):
    """A partitioned table of which every value, and every expression about it, notes as whom and where it runs."""
    definer, caller = role(), role()
    db.sql(f"""
        CREATE SCHEMA s; CREATE SCHEMA mine; GRANT USAGE ON SCHEMA s, mine TO PUBLIC; GRANT USAGE ON SCHEMA pushy TO {caller};
        CREATE TABLE s.seen (what text, who name, path text, inside text); GRANT INSERT ON s.seen TO PUBLIC;
        CREATE FUNCTION s.spot(what text) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO s.seen VALUES (what, current_user, current_setting('search_path'), current_setting('test.inside', true));
            RETURN what;
        END$$;
        CREATE TYPE s.mood AS ENUM ('calm', 'x');
        CREATE FUNCTION s.told(s.mood) RETURNS json LANGUAGE plpgsql AS $$BEGIN RETURN to_json(s.spot('cast')); END$$;
        CREATE CAST (s.mood AS json) WITH FUNCTION s.told(s.mood);
        CREATE TABLE s.p (id int, k int, v s.mood DEFAULT 'calm', PRIMARY KEY (k, id, v)) PARTITION BY LIST (k);
        CREATE TABLE s.p1 PARTITION OF s.p FOR VALUES IN (1); CREATE TABLE s.p2 PARTITION OF s.p FOR VALUES IN (2);
        CREATE TABLE s.p3 PARTITION OF s.p FOR VALUES IN (3);
        CREATE TABLE s.p4 PARTITION OF s.p FOR VALUES IN (4, 5) PARTITION BY LIST (k);
        CREATE TABLE s.p4a PARTITION OF s.p4 FOR VALUES IN (4); CREATE TABLE s.p4b PARTITION OF s.p4 FOR VALUES IN (5);
        CREATE FUNCTION s.stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER stop BEFORE INSERT ON s.p3 FOR EACH ROW EXECUTE FUNCTION s.stop();
        CREATE TRIGGER stop BEFORE INSERT ON s.p4b FOR EACH ROW EXECUTE FUNCTION s.stop();
        GRANT ALL ON ALL TABLES IN SCHEMA s TO {definer}; GRANT INSERT ON s.p TO {caller};
        CREATE FUNCTION s.nothing() RETURNS void LANGUAGE sql AS ''""")
    for number, write in enumerate(WRITES.values()):
        db.sql(f"""
            CREATE FUNCTION s.write_{number}() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = {PATH} SET test.inside = 'yes'
                AS $f$BEGIN {write}; END$f$;
            ALTER FUNCTION s.write_{number} OWNER TO {definer}""")
    db.definer = definer
    db.caller = db.connect(user=caller)
    db.caller.execute("SELECT pushy.queue_register('q', 's.nothing()')")
    return db


@pytest.mark.parametrize("told", WATCHES)
def test_code_of_users_runs_in_the_statement_that_writes_as_the_writer(planted, told):
    """Every way to write, and everything that may end what was put off."""
    db, caller = planted, planted.caller
    db.sql(f"SELECT pushy.queue_pause('q'), pushy.watch('s.p', delivery => 'relay', {WATCHES[told]})")
    for (number, write), (end, statements) in itertools.product(enumerate(WRITES), ENDS.items()):
        db.sql("""
            SET session_replication_role = replica; DELETE FROM s.p; INSERT INTO s.p VALUES (1, 1); RESET session_replication_role;
            TRUNCATE s.seen""")
        counted, _ = db.rows(COUNTS)[0]
        caller.execute("SET search_path = mine, pg_catalog; SET test.inside = 'no'")
        caller.execute("BEGIN; SAVEPOINT a")
        caller.execute(f"SELECT s.write_{number}()")
        if end == "another statement":
            # What that evaluates is noted there.
            caller.execute("SET LOCAL test.inside = 'the other'")
        for statement in statements:
            caller.execute(statement)
        seen = db.rows("SELECT who::text, path, inside FROM s.seen WHERE inside <> 'the other'")
        assert seen and set(seen) == {(db.definer, PATH, "yes")}, (write, end)
        now, errors = db.rows(COUNTS)[0]
        # A prepared transaction is not counted.
        assert errors == 0 and (now > counted or end == "two-phase commit"), (write, end)


@pytest.fixture
def stopped(db):
    """Table `p`: a row that moves to partition 2 does not arrive there."""
    db.sql("""
        CREATE TABLE p (id int, k int, name text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
        CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
        CREATE TABLE p3 PARTITION OF p FOR VALUES IN (3);
        CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER stop BEFORE INSERT ON p2 FOR EACH ROW EXECUTE FUNCTION stop();
        INSERT INTO p VALUES (1, 1, 'X')""")
    return db


def test_who_calls_a_definers_function_cannot_plant_what_a_stopped_move_calls(stopped, role):
    db, tenant = stopped, role()
    heard = Watching(db, "heard")
    db.sql(f"""
        CREATE FUNCTION label(t text) RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN lower(t); END';
        CREATE FUNCTION archive() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
            AS 'BEGIN UPDATE public.p SET k = 2; END';
        CREATE SCHEMA mine AUTHORIZATION {tenant}""")
    watch(db, "p", payload_expr="public.label(OLD.name)")
    session = db.connect(user=tenant)
    session.execute(f"""
        CREATE FUNCTION mine.lower(text) RETURNS text LANGUAGE plpgsql AS
            $$BEGIN EXECUTE 'ALTER ROLE {tenant} SUPERUSER'; RETURN 'planted'; END$$;
        SET search_path = mine, pg_catalog""")
    session.execute("SELECT public.archive()")
    assert [notice.payload for notice in heard.until_now()] == ["x"]
    assert db.value("SELECT rolsuper FROM pg_roles WHERE rolname = %s", tenant) is False


# -- where a timeout stops it ------------------------------------------------------------------------------------------

SLEEPS = "CREATE FUNCTION sleeps() RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(3600); RETURN 'x'; END$$"


@pytest.mark.parametrize("expression", ["condition => 'sleeps() = ''x'''", "payload_expr => 'sleeps()'", "topic_expr => 'sleeps()'"])
def test_the_statement_that_moves_is_stopped_by_its_timeout(stopped, expression):
    db = stopped
    db.sql(f"{SLEEPS}; SELECT pushy.watch('p', channel => 'heard', {expression})")
    with db.connect(autocommit=False) as session:
        session.execute("SET LOCAL statement_timeout = '200 ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("UPDATE p SET k = 2")
        session.rollback()


def handler_that_moves(db, **options):
    named = "".join(f", {name} => '{value}'" for name, value in options.items())
    db.sql(f"""
        {SLEEPS}; SELECT pushy.watch('p', channel => 'heard', payload_expr => 'sleeps()');
        CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'UPDATE public.p SET k = 2';
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1{named})""")
    return db.value("SELECT pushy.enqueue('q')")


def test_a_job_that_moves_is_stopped_by_its_timeout(stopped):
    job = handler_that_moves(stopped, timeout="200 ms")
    assert stopped.job_wait(job)["state"] == "discarded"
    assert stopped.rows("SELECT job_id, sqlstate FROM pushy.failures") == [(job, "57014")]
    assert stopped.rows("SELECT k FROM p") == [(1,)]


def test_a_job_that_moves_is_cancelled(stopped):
    job = handler_that_moves(stopped, timeout="0")
    stopped.wait_until("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()", 1)
    assert stopped.value("SELECT pushy.job_cancel(%s)", job)
    assert stopped.job_wait(job)["state"] == "cancelled"


# -- what was said for nothing is not told -----------------------------------------------------------------------------

def test_an_expression_that_fails_for_the_delete_of_a_move_counts_only_where_the_row_does_not_arrive(stopped):
    db = stopped
    heard = Watching(db, "heard")
    watch(db, "p", condition="1 / coalesce(NEW.k, 0) IS NOT NULL")
    assert heard.after("UPDATE p SET k = 3") == [("update", (1, 3))]
    assert db.value("SELECT errors FROM pushy.watches") == 0
    assert heard.after("UPDATE p SET k = 2") == [("delete", (1, 3), "22012")]
    assert db.value("SELECT errors FROM pushy.watches") == 1


def test_nothing_is_evaluated_for_the_delete_of_a_move_where_deletes_are_not_told(stopped):
    db = stopped
    heard = Watching(db, "heard")
    watch(db, "p", events="{update}", condition="1 / coalesce(NEW.k, 0) IS NOT NULL")
    assert heard.after("UPDATE p SET k = 3", "UPDATE p SET k = 2") == [("update", (1, 3))]
    assert db.row("SELECT notices, errors FROM pushy.watches") == {"notices": 1, "errors": 0}


@pytest.mark.parametrize("delivery", ["notify", "relay"])
def test_a_long_payload_of_a_stopped_move_is_a_reference_with_its_key(stopped, delivery):
    db = stopped
    heard = Watching(db, "heard")
    watch(db, "p", payload="row", delivery=delivery)
    db.sql("UPDATE p SET name = repeat('x', 9000)")
    heard.until_now()
    db.sql("UPDATE p SET k = 2")
    (notice,) = heard.until_now()
    assert '"key":{"id":1,"k":1},"notice":' in notice.payload
    assert db.value("SELECT length(pushy.notice((%s::json ->> 'notice')::bigint)::json #>> '{old,name}')", notice.payload) == 9000
