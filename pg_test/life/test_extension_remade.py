"""A call that meets DROP EXTENSION, or an extension that was made again: it says what has happened, and what it says to do works."""

import psycopg
import pytest

from harness.waiting import wait_for

CALLS = [
    "SELECT pushy.enqueue('q')", "SELECT pushy.job_claim('o')", "SELECT pushy.subscription_read('s')", "SELECT * FROM pushy.queue_explain('q')",
    "SELECT pushy.job_cancel(1)", "SELECT pushy.queue_pause('q')", "SELECT pushy.watch('t')", "SELECT * FROM pushy.job_wait(1, '1 s')",
    "SELECT * FROM pushy.jobs", "SELECT * FROM pushy.stats", "INSERT INTO t SELECT coalesce(max(id), 0) + 1 FROM t", "SELECT pushy.notify('t', 'x')",
    "SELECT pushy.jobs_settle('[]')", "SELECT pushy.log_position()", "SELECT pushy.subscription_create('s2', '{t}')", "SELECT pushy.queue_register('q2')",
    "CALL pushy.jobs_wait('q', '1 s')", "CALL pushy.job_claim_wait('o', '1 s')", "CALL pushy.subscription_wait('s', '1 s')",
]
MAKE = "CREATE EXTENSION pushy"
FILL = ("CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY); CREATE OR REPLACE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';"
        "SELECT pushy.queue_register('q', 'nothing()', concurrency => 1), pushy.queue_register('o'), pushy.watch('t'), pushy.subscription_create('s', '{t}'), pushy.enqueue('q')")
# What a client may do with it is in its SQLSTATE: again, or nothing before the extension is there. The server's own words are for what was
# looked up by name and is not there any more.
EXPECTED = {"55000", "40001", "42P01", "42883", "42704", "3F000"}
# The server itself looks the row type of their answers up by its number, before they are called.
OF_A_ROW_TYPE = ("SELECT pushy.job_claim(", "SELECT * FROM pushy.job_wait(", "SELECT pushy.subscription_read(")


def remade(db) -> None:
    db.sql("DROP EXTENSION IF EXISTS pushy CASCADE; DROP TABLE IF EXISTS t")
    db.sql(MAKE)
    db.sql(FILL)


def assert_said(call: str, failure: psycopg.Error) -> None:
    assert failure.sqlstate in EXPECTED, f"{call}: {failure.sqlstate} {failure}"
    assert "lost its row" not in str(failure), call
    if failure.sqlstate in ("55000", "40001"):
        assert failure.diag.message_hint, call


@pytest.mark.parametrize("again", [False, True])
def test_a_call_that_waited_for_a_drop_says_so(make_cluster, again):
    db = make_cluster().database()
    for call in CALLS:
        remade(db)
        with db.connect() as session, db.connect(autocommit=False) as dropping:
            session.execute("SELECT pushy.enqueue('q')")
            session.execute("SELECT * FROM pushy.queue_explain('q')").fetchall()
            dropping.execute("DROP EXTENSION pushy CASCADE")
            if again:
                dropping.execute(MAKE)
            session.pgconn.send_query(call.encode())
            # It waits for the drop, or has been answered.
            wait_for(f"{call} to wait", lambda: (session.pgconn.consume_input(), session.pgconn.is_busy(), waits(db, session)),
                     lambda seen: seen[2] or not seen[1])
            dropping.commit()
            result = session.pgconn.get_result()
            if result.error_message:
                state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE).decode()
                text, hint = result.error_message.decode(), result.error_field(psycopg.pq.DiagnosticField.MESSAGE_HINT)
                expected = EXPECTED | ({"XX000"} if call.startswith(OF_A_ROW_TYPE) else set())
                assert state in expected and "lost its row" not in text, f"{call}: {state} {text}"
                assert hint or state not in ("55000", "40001"), f"{call}: {text}"
            while result:
                result = session.pgconn.get_result()


def waits(db, session) -> bool:
    return db.value("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", session.info.backend_pid)


def test_a_transaction_that_is_older_than_the_extension_is_told_to_begin_again(make_cluster):
    db = make_cluster().database()
    for call in CALLS:
        if call.startswith("CALL"):
            continue
        remade(db)
        with db.connect(autocommit=False) as session:
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")
            remade(db)
            try:
                session.execute(call)
                session.commit()
            except psycopg.Error as failure:
                assert_said(call, failure)
                session.rollback()
            # As it was told. Job 1 has another number now.
            if call != "SELECT pushy.job_cancel(1)" and "job_wait(1" not in call:
                session.execute(call)
