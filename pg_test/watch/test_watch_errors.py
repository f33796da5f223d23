"""Never in the way: whatever an expression, a conversion or a queue does, the write goes on and somebody is told."""

import json

import psycopg
import pytest

from stage.watching import Watching, jobs, paused_queue, watch

PRELUDE = """
    CREATE TABLE t (id int PRIMARY KEY, v int, w text);
    CREATE FUNCTION fail(state text) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        IF state IS NOT NULL THEN RAISE 'failed with %', state USING ERRCODE = state; END IF;
        RETURN 'fine';
    END $$;
"""


@pytest.fixture
def heard(db):
    db.sql(PRELUDE)
    return Watching(db, "heard")


def errors(db) -> int:
    return db.value("SELECT sum(errors)::int FROM pushy.watches")


@pytest.mark.parametrize("level", ["row", "statement"])
@pytest.mark.parametrize("condition, state", [("1 / NEW.v > 0", "22012"), ("fail(NEW.w) = 'fine'", "UE000"), ("NEW.w::int > 0", "22P02")])
def test_a_condition_that_fails_is_told(db, heard, level, condition, state):
    watch(db, "t", condition=condition, level=level)
    assert heard.after("INSERT INTO t VALUES (1, 0, 'UE000')") == [("insert", 1, state)]
    assert db.value("SELECT count(*) FROM t") == 1 and errors(db) == 1
    assert db.row("SELECT last_error_at IS NOT NULL AS told FROM pushy.watches")["told"]


@pytest.mark.parametrize("condition", ["current_setting('my.flag') = 'on'", "fail('UE001') = 'fine'", "open_now()", "current_setting('my.flag')::bool AND NEW.v > 0"])
def test_a_condition_that_looks_at_no_row_may_fail_too(db, heard, condition):
    """The server could check it before it queues the trigger, and would fail the write there."""
    db.sql("CREATE FUNCTION open_now() RETURNS bool STABLE LANGUAGE plpgsql AS 'BEGIN RAISE SQLSTATE ''UE001''; END'")
    watch(db, "t", condition=condition)
    told = heard.after("INSERT INTO t VALUES (1, 1)", "UPDATE t SET v = 2", "DELETE FROM t")
    assert [seen[0] for seen in told] == ["insert", "update", "delete"]
    assert {seen[2] for seen in told} <= {"42704", "UE001"} and errors(db) == 3


def test_an_immutable_function_that_fails_when_planned_is_told_until_it_is_mended(db, heard):
    mended = "CREATE OR REPLACE FUNCTION constant() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'"
    db.sql(mended)
    watch(db, "t", condition="constant() = 1 AND length(NEW.w) > 0")
    with db.connect() as session:
        insert = "INSERT INTO t VALUES (%d, 1, 'x')"
        assert heard.after(insert % 1, session=session) == [("insert", 1)]
        db.sql("CREATE OR REPLACE FUNCTION constant() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RAISE SQLSTATE ''UE002''; END'")
        assert heard.after(insert % 2, insert % 3, session=session) == [("insert", 2, "UE002"), ("insert", 3, "UE002")]
        db.sql(mended)
        assert heard.after(insert % 4, session=session) == [("insert", 4)]


def test_a_payload_and_arguments_that_fail_are_told_in_the_notice_and_in_the_job(db, heard):
    paused_queue(db)
    watch(db, "t", payload_expr="fail(NEW.w)")
    db.sql("INSERT INTO t VALUES (1, 0, 'UE003'), (2, 0, NULL)")
    first, second = heard.until_now()
    assert json.loads(first.payload)["error"] == {"sqlstate": "UE003", "message": "failed with UE003"} and second.payload == "fine"
    db.sql("SELECT pushy.unwatch('t')")
    watch(db, "t", channel=None, queue="q", args_expr="jsonb_build_object('x', fail(NEW.w))")
    db.sql("INSERT INTO t VALUES (3, 0, 'UE004'), (4, 0, NULL)")
    failed, fine = jobs(db)
    assert failed["error"]["sqlstate"] == "UE004" and failed["key"] == {"id": 3} and fine == {"x": "fine"}
    assert errors(db) == 1


def test_what_a_failed_expression_did_is_undone(db, heard):
    db.sql("""
        CREATE TABLE trace (x int);
        CREATE FUNCTION note(ok bool) RETURNS bool LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO trace VALUES (1); IF NOT ok THEN RAISE 'no'; END IF; RETURN true; END $$""")
    watch(db, "t", condition="note(NEW.v > 0)")
    assert heard.after("INSERT INTO t VALUES (1, 0), (2, 1)") == [("insert", 1, "P0001"), ("insert", 2)]
    assert db.value("SELECT count(*) FROM trace") == 1


@pytest.mark.parametrize("payload, level", [("row", "row"), ("diff", "row"), ("key", "row"), ("key", "statement")])
def test_a_conversion_that_fails_is_told(db, heard, payload, level):
    db.sql("""
        CREATE EXTENSION citext;
        CREATE FUNCTION to_json(citext) RETURNS json LANGUAGE plpgsql AS
          'BEGIN IF $1 = ''bad'' THEN RAISE SQLSTATE ''22023'' USING MESSAGE = ''cannot be said''; END IF; RETURN to_json($1::text); END';
        CREATE CAST (citext AS json) WITH FUNCTION to_json(citext);
        CREATE TABLE c (id citext PRIMARY KEY, v citext)""")
    watch(db, "c", payload=payload, level=level)
    db.sql("INSERT INTO c VALUES ('good', 'x'), ('bad', 'bad'), ('better', 'y')")
    payloads = heard.payloads()
    failed = [payload for payload in payloads if "error" in payload]
    assert db.value("SELECT count(*) FROM c") == 3 and len(failed) == 1 and errors(db) == 1
    assert failed[0]["error"]["message"] == "cannot be said" and failed[0]["key"] is None
    assert failed[0]["error"]["sqlstate"] == "22023"
    if level == "statement":
        assert payloads[-1]["count"] == 3 and payloads[-1]["keys_complete"] is False
        assert payloads[-1]["keys"] == [{"id": "good"}], "of all before the one that could not be said"


@pytest.mark.parametrize("type_, value", [("outer_type", "x"), ("outer_type[]", "{x}"), ("pair", "(1,x)"), ("said", "x")])
def test_a_conversion_that_fails_is_told_with_a_users_own_sqlstate(db, heard, type_, value):
    db.sql("""
        CREATE TYPE outer_type; CREATE FUNCTION outer_in(cstring) RETURNS outer_type LANGUAGE internal IMMUTABLE STRICT AS 'textin';
        CREATE FUNCTION fails() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE 'UPUSH' USING MESSAGE = 'not said', HINT = 'Ask.'; END $$;
        CREATE FUNCTION outer_out(outer_type) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
        CREATE TYPE outer_type (INPUT = outer_in, OUTPUT = outer_out, LIKE = text);
        CREATE TYPE pair AS (a int, b outer_type);
        CREATE TYPE said AS ENUM ('x');
        CREATE FUNCTION to_json(outer_type) RETURNS json LANGUAGE sql AS 'SELECT to_json(fails())';
        CREATE FUNCTION to_json(said) RETURNS json LANGUAGE sql AS 'SELECT to_json(fails())';
        CREATE CAST (outer_type AS json) WITH FUNCTION to_json(outer_type);
        CREATE CAST (said AS json) WITH FUNCTION to_json(said)""")
    db.sql(f"CREATE TABLE c (id int PRIMARY KEY, v {type_})")
    watch(db, "c", payload="row")
    db.sql(f"INSERT INTO c VALUES (1, '{value}')")
    [payload] = heard.payloads()
    assert payload["error"] == {"sqlstate": "UPUSH", "message": "not said"}, payload
    assert db.rows("SELECT id FROM c") == [(1,)]


@pytest.mark.parametrize("column, value", [
    ("json", """'{"a": "\\u0000"}'"""),
    ("json[]", """ARRAY['{"a": "\\u0000"}'::json]"""),
    ("pair", """ROW(1, '["\\u0000"]')"""),
    ("shout", "'loud'"),
])
def test_json_that_jsonb_refuses_is_told_in_the_job(db, heard, column, value):
    """A job's arguments are jsonb; what a type json holds, or a user's cast to json says, need not be."""
    paused_queue(db)
    db.sql("CREATE TYPE pair AS (n int, j json); CREATE TYPE shout AS ENUM ('loud', 'low');"
           """CREATE FUNCTION shouted(shout) RETURNS json LANGUAGE sql AS $$SELECT format('["%s\\u0000"]', $1)::json$$;"""
           "CREATE CAST (shout AS json) WITH FUNCTION shouted(shout);"
           f"CREATE TABLE odd (id int PRIMARY KEY, j {column})")
    watch(db, "odd", channel=None, queue="q", payload="row")
    db.sql(f"INSERT INTO odd VALUES (1, NULL), (2, {value}), (3, NULL)")
    assert [(args["key"], args.get("error", {}).get("sqlstate")) for args in jobs(db)] == [
        ({"id": 1}, None), ({"id": 2}, "22P05"), ({"id": 3}, None)]
    assert db.value("SELECT count(*) FROM odd") == 3 and errors(db) == 1


def test_a_cancel_in_an_expression_cancels_the_statement(db, heard):
    db.sql("CREATE FUNCTION slow(id int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(77); RETURN true; END'")
    watch(db, "t", condition="slow(NEW.id)")
    db.sql("SELECT pg_advisory_lock(77)")
    with db.connect() as session:
        session.execute("SET statement_timeout = '100ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("INSERT INTO t VALUES (1)")
        session.execute("SET statement_timeout = 0; SET lock_timeout = '50ms'")
        session.execute("INSERT INTO t VALUES (2)")
    assert heard.after() == [("insert", 2, "55P03")], "a lock that is not to be had is an error like any other"
    assert db.rows("SELECT id FROM t") == [(2,)]


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_what_ends_the_transaction_goes_on(db, heard, state):
    watch(db, "t", condition="fail(NEW.w) = 'fine'")
    with pytest.raises(psycopg.Error) as raised:
        db.sql("INSERT INTO t VALUES (1, 1, %s)", state)
    assert raised.value.sqlstate == state
    assert heard.after() == [] and db.value("SELECT count(*) FROM t") == 0


def test_a_long_payload_is_kept_and_referred_to(db, heard):
    watch(db, "t", payload="row")
    db.sql("INSERT INTO t VALUES (1, 1, repeat('x', 7000)), (2, 1, repeat('é', 40000))")
    short, long = (json.loads(notice.payload) for notice in heard.until_now())
    assert "notice" not in short and short["new"]["w"] == "x" * 7000
    assert "new" not in long and long["key"] == {"id": 2}
    whole = db.value("SELECT pushy.notice(%s)", long["notice"])
    assert len(whole.encode()) == long["bytes"] and json.loads(whole)["new"]["w"] == "é" * 40000
    watch(db, "t", payload_expr="repeat('y', 8000)")
    db.sql("INSERT INTO t VALUES (3)")
    reference = json.loads(heard.until_now()[0].payload)
    assert db.value("SELECT pushy.notice(%s)", reference["notice"]) == "y" * 8000


def test_a_kept_payload_is_anybodys_goes_with_a_rollback_and_expires(db, heard, role):
    watch(db, "t", payload="row")
    with db.connect(autocommit=False) as session:
        session.execute("INSERT INTO t VALUES (1, 1, repeat('x', 9000))")
        session.rollback()
        session.execute("SET pushy.notice_keep = '1h'; INSERT INTO t VALUES (2, 1, repeat('x', 9000))")
        session.commit()
    reference = json.loads(heard.until_now()[0].payload)["notice"]
    with db.connect(user=role()) as reader:
        assert len(reader.execute("SELECT pushy.notice(%s)", (reference,)).fetchone()[0]) > 9000
    assert db.value("SELECT count(*) FROM pushy_internal.oversize_notice") == 1
    db.sql("SET pushy.notice_keep = '1s'; INSERT INTO t VALUES (3, 1, repeat('x', 9000))")
    expired = json.loads(heard.until_now()[0].payload)["notice"]
    # They are removed together, a minute after the first is due.
    db.wait_until("SELECT count(*) FROM pushy_internal.oversize_notice", 1, deadline=90)
    with pytest.raises(psycopg.errors.UndefinedObject, match=f"notice {expired} does not exist"):
        db.value("SELECT pushy.notice(%s)", expired)
    assert db.value("SELECT pushy.notice(%s) IS NOT NULL", reference)


def test_a_queue_that_is_dropped_takes_no_writes_with_it(db, heard):
    paused_queue(db)
    watch(db, "t", queue="q")
    with pytest.raises(psycopg.Error) as raised:
        db.sql("SELECT pushy.queue_drop('q')")
    assert raised.value.sqlstate == "2BP01", raised.value
    with db.connect(autocommit=False) as session:
        session.execute("INSERT INTO t VALUES (1)")
        db.sql("SELECT pushy.queue_drop('q', force => true)")
        session.execute("INSERT INTO t VALUES (2)")
        session.commit()
    assert heard.after("INSERT INTO t VALUES (3)") == [("insert", 1), ("insert", 2), ("insert", 3)]
    assert errors(db) >= 1
    db.sql("SELECT pushy.queue_register('q', 'nothing()')")
    assert heard.after("INSERT INTO t VALUES (4)") == [("insert", 4)]
    db.jobs_wait("q")
    assert [args["key"]["id"] for args in jobs(db)][-1] == 4


def test_the_log_has_one_line_a_minute_with_what_failed(make_cluster):
    db = make_cluster().database()
    db.sql(PRELUDE)
    watch(db, "t", condition="fail(NEW.w) = 'fine'")
    since = db.cluster.log.position()
    db.sql("INSERT INTO t SELECT n, 0, 'UE006' FROM generate_series(1, 500) n")
    db.sql("INSERT INTO t VALUES (501, 0, 'UE006')")
    assert db.cluster.log.since(since).count('watch "heard" on public.t: failed with UE006') == 1
    assert errors(db) == 501


def test_without_the_preload_watches_work_as_far_as_no_worker_is_needed(make_cluster):
    db = make_cluster({"shared_preload_libraries": ""}).database()
    db.sql(PRELUDE)
    paused_queue(db)
    heard = Watching(db, "heard", relayed=False)
    watch(db, "t", queue="q", payload="row", columns=["v"], condition="coalesce(NEW.w, '') <> fail(NEW.w)")
    watch(db, "t", level="statement", name="s", events="{insert,truncate}")
    assert heard.after("INSERT INTO t VALUES (1, 1)", "UPDATE t SET v = 1", "UPDATE t SET v = 2", "INSERT INTO t VALUES (2, 2, 'UE007')", "TRUNCATE t") == [
        ("insert", 1), ("insert", 1, [1]), ("update", 1), ("insert", 2, "UE007"), ("insert", 1, [2]), ("truncate", None, [])]
    assert len(jobs(db)) == 3
    assert db.rows("SELECT DISTINCT delivery FROM pushy.watches") == [("relay",)], "NOTIFY tells as long as no relay can come"
    db.sql("INSERT INTO t VALUES (3, 3, NULL)")
    assert db.value("SELECT pushy.watch_pause('t')") == 2
    heard.until_now()
    assert heard.after("INSERT INTO t VALUES (4)") == []
    assert [state for state, in db.rows("SELECT state FROM pushy.watches")] == ["paused", "paused"]
    assert db.value("SELECT pushy.watch_resume('t')") == 2
    db.sql("INSERT INTO t VALUES (5, 5, repeat(' ', 9000))")
    assert db.value("SELECT pushy.unwatch('t')") == 2
    assert db.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass") == 0


@pytest.mark.parametrize("options", ["payload => 'key'", "payload => 'diff'", "payload => 'key', queue => 'q'", "payload => 'diff', channel => 'c', queue => 'q'"])
def test_whatever_says_which_row_by_its_key_warns_where_there_is_none(db, options):
    db.sql("CREATE TABLE keyless (v text); CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'nothing()')")
    told = []
    db.main.add_notice_handler(lambda diag: told.append(diag.message_primary))
    db.sql(f"SELECT pushy.watch('keyless', {options})")
    assert any("has no key" in message for message in told), told
    told.clear()
    db.sql("SELECT pushy.unwatch('keyless'); SELECT pushy.watch('keyless', payload => 'row'); SELECT pushy.watch('keyless', queue => 'q', args_expr => 'to_jsonb(1)')")
    assert told == []


@pytest.mark.parametrize("argument", ["condition", "payload_expr", "args_expr", "topic_expr"])
def test_an_expression_has_a_bound_because_it_is_kept(db, heard, argument):
    queue = {"queue": paused_queue(db)} if argument == "args_expr" else {}
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refusal:
        watch(db, "t", **queue, **{argument: "NEW.v > 0 /*" + "x" * 16_384 + "*/"})
    assert argument in refusal.value.diag.message_primary and "16384 bytes at most" in refusal.value.diag.message_hint
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="1601 names"):
        db.sql("SELECT pushy.watch('t', channel => 'c', columns => array_fill('v'::name, ARRAY[1601]))")
