"""Errors carry no backtrace and no path of the machine that built the library, whatever the server's environment says."""

import psycopg
import pytest

TRACES = ("RUST_BACKTRACE", "stack backtrace", "rustc", "/registry/", "/src/index", "pgrx", "  at ", "core::", "std::")


@pytest.fixture
def traced(make_cluster, monkeypatch):
    """A database of a server that was started from a shell of a Rust developer's."""
    monkeypatch.setenv("RUST_BACKTRACE", "full")
    monkeypatch.setenv("RUST_LIB_BACKTRACE", "1")
    db = make_cluster().database()
    db.sql("""
        CREATE FUNCTION fail(jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1 / 0';
        SELECT pushy.queue_register('q', 'fail(jsonb)', max_attempts => 1);
        CREATE FUNCTION misdeclared(OUT a bigint, OUT b bigint) RETURNS record LANGUAGE c AS '$libdir/pushy', 'pushy_log_row_v1'""")
    return db


def error_of(db, *statements: str) -> psycopg.errors.Diagnostic:
    with db.connect(autocommit=False) as session:
        with pytest.raises(psycopg.Error) as error:
            for statement in statements:
                session.execute(statement)
        session.rollback()
    diag = error.value.diag
    for part in (diag.message_primary, diag.message_detail, diag.message_hint, diag.context):
        assert not any(trace in (part or "") for trace in TRACES), part
    return diag


def test_an_error_of_the_server_that_crosses_ours_is_as_it_was(traced):
    holder = traced.connect(autocommit=False)
    holder.execute("SELECT pushy.queue_pause('q')")
    since = traced.cluster.log.position()
    for sqlstate, *statements in [
            ("25006", "SET TRANSACTION READ ONLY", "SELECT pushy.enqueue('q')"),
            ("25006", "SET TRANSACTION READ ONLY", "SELECT pushy.queue_pause('q')"),
            ("55P03", "SET LOCAL lock_timeout = 1", "SELECT pushy.queue_pause('q')"),
            ("57014", "SET LOCAL statement_timeout = 100", "SELECT pushy.queue_pause('q')")]:
        diag = error_of(traced, *statements)
        assert (diag.sqlstate, diag.message_detail) == (sqlstate, None), statements
    holder.rollback()
    traced.job_wait(traced.value("SELECT pushy.enqueue('q')"))
    failure = traced.row("SELECT * FROM pushy.failures")
    assert failure["message"] == "division by zero" and failure["detail"] is None
    log = traced.cluster.log.since(since)
    assert not any(trace in log for trace in TRACES), log


def test_a_panic_of_ours_is_an_internal_error_that_says_where_it_began(traced):
    since = traced.cluster.log.position()
    diag = error_of(traced, "SELECT misdeclared()")
    assert diag.sqlstate == "XX000" and diag.message_primary.startswith("internal error: assertion")
    assert diag.message_detail.startswith("It began at src/pg/call/function.rs:") and "report it" in diag.message_hint
    log = traced.cluster.log.since(since)
    assert not any(trace in log for trace in TRACES), log
    assert traced.value("SELECT 1") == 1
