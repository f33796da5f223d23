"""Handlers: functions in SQL, plpgsql and plpython3u; what they get, what becomes of what they return."""

import psycopg
import pytest

RETURNS = [  # SQL function's type, body, the job's result
    ("jsonb", "SELECT args", {"a": [1, 2]}),
    ("json", "SELECT args::json", {"a": [1, 2]}),
    ("text", "SELECT 'done'::text", "done"),
    ("int", "SELECT 42", 42),
    ("boolean", "SELECT true", True),
    ("numeric", "SELECT 1.50", 1.5),
    ("date", "SELECT date '2026-01-31'", "2026-01-31"),
    ("int[]", "SELECT ARRAY[1, 2]", [1, 2]),
    ("pair", "SELECT ROW(1, 'x')::pair", {"a": 1, "b": "x"}),
    ("text", "SELECT NULL::text", None),
    ("void", "SELECT", None),
]


@pytest.mark.parametrize("returns, body, result", RETURNS, ids=[f"{r}-{n}" for n, (r, _, _) in enumerate(RETURNS)])
def test_what_a_handler_returns_is_the_result(db, returns, body, result):
    db.sql(f"""
        CREATE TYPE pair AS (a int, b text);
        CREATE FUNCTION work(args jsonb) RETURNS {returns} LANGUAGE sql AS $$ {body} $$;
        SELECT pushy.queue_register('q', 'work(jsonb)')""")
    done = db.job_wait(db.value("SELECT pushy.enqueue('q', '{\"a\": [1, 2]}')"))
    assert (done["state"], done["result"]) == ("completed", result), done


def test_a_plpgsql_handler_runs(db):
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS int LANGUAGE plpgsql AS
            $$BEGIN RETURN (args->>'n')::int * 2; END$$;
        SELECT pushy.queue_register('q', 'work(jsonb)')""")
    assert db.job_wait(db.value("SELECT pushy.enqueue('q', '{\"n\": 21}')"))["result"] == 42


def test_what_a_handler_wrote_is_in_the_statistics_while_its_executor_sleeps(make_cluster):
    """Not only once that ends: autovacuum looks there."""
    db = make_cluster({"pushy.executor_linger": "1h"}).database()
    db.sql("""CREATE TABLE written (n int);
              CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'INSERT INTO public.written SELECT generate_series(1, 100)';
              SELECT pushy.queue_register('q', 'work()')""")
    for times in (1, 2, 3):
        db.job_wait(db.value("SELECT pushy.enqueue('q')"))
        db.wait_until("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'written'", 100 * times)


def test_a_plpython_handler_runs_and_its_exceptions_are_failures(db):
    db.sql("""
        CREATE EXTENSION plpython3u;
        CREATE FUNCTION work(order_line jsonb) RETURNS int LANGUAGE plpython3u AS $$
import json
return 10 // json.loads(order_line)["n"]  # a parameter called args would be hidden by PL/Python's own list args
$$;
        SELECT pushy.queue_register('q', 'work(jsonb)', max_attempts => 1)""")
    assert db.job_wait(db.value("SELECT pushy.enqueue('q', '{\"n\": 5}')"))["result"] == 2
    failed = db.job_wait(db.value("SELECT pushy.enqueue('q', '{\"n\": 0}')"))
    assert failed["state"] == "discarded" and "ZeroDivisionError" in failed["last_error"], failed


def test_a_handler_may_take_the_whole_job(db):
    db.sql("""
        CREATE FUNCTION work(job pushy.job) RETURNS jsonb LANGUAGE plpgsql AS
            $$BEGIN RETURN jsonb_build_array(job.id, job.queue, job.args, job.attempt); END$$;
        SELECT pushy.queue_register('q', 'work(pushy.job)')""")
    job = db.value("SELECT pushy.enqueue('q', '{\"n\": 1}')")
    assert db.job_wait(job)["result"] == [job, "q", {"n": 1}, 1]


def test_a_handler_may_take_nothing(db):
    db.sql("""
        CREATE FUNCTION work() RETURNS text LANGUAGE sql AS $$SELECT 'ran'$$;
        SELECT pushy.queue_register('q', 'work()')""")
    assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"] == "ran"


def test_a_handler_in_a_schema_with_a_quoted_name_runs(db):
    db.sql("""
        CREATE SCHEMA "My Schema";
        CREATE FUNCTION "My Schema"."Do It"(jsonb) RETURNS text LANGUAGE sql AS $$SELECT 'did it'$$;
        SELECT pushy.queue_register('a "queue" with ''quotes''', '"My Schema"."Do It"(jsonb)')""")
    assert db.job_wait(db.value("SELECT pushy.enqueue('a \"queue\" with ''quotes''')"))["result"] == "did it"


def test_a_replaced_handler_is_used_from_then_on(db):
    for answer in (1, 2):
        db.sql(f"""
            CREATE OR REPLACE FUNCTION work() RETURNS int LANGUAGE sql AS 'SELECT {answer}';
            SELECT pushy.queue_register('q', 'work()')""")
        assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"] == answer


def test_a_handler_knows_its_job(db):
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS jsonb LANGUAGE sql AS
            $$SELECT to_jsonb(c) FROM pushy.current_job() c$$;
        SELECT pushy.queue_register('q', 'work(jsonb)')""")
    job = db.value("SELECT pushy.enqueue('q', '{\"n\": 1}')")
    seen = db.job_wait(job)["result"]
    assert (seen["id"], seen["queue"], seen["args"], seen["attempt"]) == (job, "q", {"n": 1}, 1)


def test_outside_a_job_there_is_no_current_job(db):
    assert db.value("SELECT (pushy.current_job()).id IS NULL")


def test_a_handler_runs_as_the_role_of_its_queue(db, role):
    owner = role()
    db.sql(f"""
        GRANT CREATE ON SCHEMA public TO {owner};
        SET ROLE {owner};
        CREATE FUNCTION work() RETURNS text LANGUAGE sql AS $$SELECT current_user || ' ' || session_user$$;
        SELECT pushy.queue_register('q', 'work()');
        RESET ROLE""")
    assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"] == f"{owner} {owner}"


def test_statement_timestamp_is_the_jobs_and_now_is_the_transactions(db):
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS boolean LANGUAGE sql AS
            $$SELECT now() <= statement_timestamp() AND statement_timestamp() <= clock_timestamp()$$;
        SELECT pushy.queue_register('q', 'work(jsonb)')""")
    assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"] is True


def test_a_handler_that_is_half_a_signature_is_told_as_it_was_written(db):
    """Not with the arguments that were tried behind it."""
    for text in ("h(jsonb", "h(", "nowhere.h(jsonb", "h)(", '"h'):
        with pytest.raises(psycopg.Error) as error:
            db.sql("SELECT pushy.queue_register('q', %s)", text)
        said = str(error.value).replace("'public.send_mail(jsonb)'", "")
        assert text in said and "pg_catalog.jsonb" not in said and "pushy.job)" not in said.split("HINT")[0], said
