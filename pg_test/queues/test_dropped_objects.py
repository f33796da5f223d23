"""What was dropped is in nobody's way: no table, partition, schema, type, role or handler that is gone keeps a queue, a subscription or a
channel, neither where it was dropped nor in a restored copy, and each statement that a refusal names runs as it stands."""

import re
from dataclasses import dataclass

import psycopg
import pytest

TABLE = "CREATE TABLE s.t (id int PRIMARY KEY); GRANT TRIGGER ON s.t TO public; "
WATCH = "SELECT pushy.watch('s.t', 'c', queue => 'q')"
PARTED = "CREATE TABLE s.p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE s.t PARTITION OF s.p FOR VALUES FROM (0) TO (9); "


@dataclass
class State:
    made: str
    dropped: str
    # Whether nothing is left then that makes jobs, or publishes on the channel or reads it.
    queue_is_free: bool
    channel_is_free: bool
    # By a role that is dropped.
    by_maker: str | None = None


STATES = {
    "table": State(TABLE + WATCH, "DROP TABLE s.t", True, True),
    "partition that is watched": State(PARTED + WATCH, "DROP TABLE s.t", True, True),
    "partition of what is watched": State(PARTED + WATCH.replace("s.t", "s.p"), "DROP TABLE s.t", False, False),
    "schema": State(TABLE + WATCH, "DROP SCHEMA s CASCADE", True, True),
    "type of the table": State("CREATE TYPE s.pair AS (id int, v text); CREATE TABLE s.t OF s.pair (PRIMARY KEY (id)); " + WATCH, "DROP TYPE s.pair CASCADE", True, True),
    "type of a column": State("CREATE TYPE s.mood AS ENUM ('fine'); CREATE TABLE s.t (id int PRIMARY KEY, v s.mood); "
                              "SELECT pushy.watch('s.t', 'c', queue => 'q', columns => '{v}')", "DROP TYPE s.mood CASCADE", False, False),
    "role of a watch": State(TABLE, "", True, False, by_maker=WATCH),
    "role of a subscription": State("", "", True, True, by_maker="SELECT pushy.subscription_create('sub', '{c}', queue => 'q')"),
    "handler": State(TABLE + WATCH, "DROP FUNCTION work", False, False),
}


def run_into(db, state: State, maker: str) -> None:
    db.sql("CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO public; CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; "
           "SELECT pushy.queue_register('q', 'work()'), pushy.queue_grant('q', 'public', 'enqueue')")
    for statement in filter(None, state.made.split("; ")):
        db.sql(statement)
    if state.by_maker:
        with db.connect(maker) as session:
            session.execute(state.by_maker)
        db.sql(f"DROP OWNED BY {maker}; DROP ROLE {maker}")
    if state.dropped:
        db.sql(state.dropped)


def restored(db):
    cluster = db.cluster
    account = ["-h", cluster.folder, "-p", cluster.port, "-U", "postgres"]
    file = cluster.folder / f"{db.name}.sql"
    cluster.run("pg_dump", *account, "-f", file, db.name)
    copy = cluster.database()
    cluster.run("psql", "-X", "-q", *account, "-d", copy.name, "-f", file)
    return copy


def named_statements(words: str | None) -> list[str]:
    """Statements that end or mend something, as a hint or a fix has them."""
    return re.findall(r"SELECT (?:\* FROM )?pushy\.(?:unwatch|subscription_drop|resume_after_restore|queue_drop)\([^)]*\)", words or "")


def runs(db, statement: str) -> None:
    with db.main.transaction(force_rollback=True):
        db.sql(statement)


@pytest.mark.parametrize("where", ["here", "in a copy"])
@pytest.mark.parametrize("name", STATES)
def test_what_was_dropped_is_in_nobodys_way(db, role, request, name, where):
    state = STATES[name]
    run_into(db, state, role())
    if where == "in a copy":
        db = restored(db)
        request.addfinalizer(db.drop)
    fixes = [fix for view in ("watches", "subscriptions", "queue_explain('q')") for fix, in db.rows(f"SELECT fix FROM pushy.{view}")]
    for statement in [statement for fix in fixes for statement in named_statements(fix)]:
        runs(db, statement)
    # The channel is closed by somebody who owns nothing here.
    stranger = role()
    with db.connect(stranger) as closer:
        try:
            with closer.transaction(force_rollback=True):
                closer.execute(f"SELECT pushy.channel_grant('c', '{stranger}')")
            is_free = True
        except psycopg.errors.InsufficientPrivilege as error:
            is_free = False
            assert "a superuser can grant it" in error.diag.message_hint.lower()
    assert is_free == state.channel_is_free
    runs(db, "SELECT pushy.channel_grant('c', 'public')")
    # The queue.
    try:
        runs(db, "SELECT pushy.queue_drop('q')")
        is_free = True
    except psycopg.errors.DependentObjectsStillExist as error:
        is_free = False
        statement, = named_statements(error.diag.message_hint)
        with db.main.transaction(force_rollback=True):
            db.sql(statement)
            db.sql("SELECT pushy.queue_drop('q')")
    assert is_free == state.queue_is_free
    # Subscriptions are dropped whoever made them.
    for subscription, in db.rows("SELECT name FROM pushy.subscriptions"):
        runs(db, f"SELECT pushy.subscription_drop('{subscription}')")
    # And a restore, where there was one, comes to an end: each reason that a watch waits for says how not to wait for it.
    lost = "watches that have no table", "SELECT count(*) FROM pushy_internal.watch w WHERE to_regclass(w.relation_name) IS NULL"
    for reason, in db.rows("SELECT reason FROM pushy.resume_after_restore()"):
        for statement in named_statements(reason):
            db.sql(statement)
    assert (lost[0], db.value(lost[1])) == (lost[0], 0)
    assert [row for row in db.rows("SELECT name, reason FROM pushy.resume_after_restore() WHERE kind = 'watch'") if "does not exist" in row[1]] == []


def test_who_forgets_watches_in_an_open_transaction_keeps_nobody_waiting(db):
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'work()');"
           "CREATE TABLE gone (id int PRIMARY KEY); CREATE TABLE stays (id int PRIMARY KEY); SELECT pushy.watch('gone', queue => 'q')")
    db.sql("DROP TABLE gone")
    with db.connect(autocommit=False) as session:
        session.execute("SELECT pushy.watch('stays')")
        assert session.execute("SELECT count(*) FROM pushy_internal.watch").fetchone() == (1,)
        db.sql("SET lock_timeout = '1ms'")
        db.sql("SELECT pushy.queue_drop('q')")
        session.rollback()
    db.sql("RESET lock_timeout")
    db.sql("SELECT * FROM pushy.resume_after_restore()")
    assert db.value("SELECT count(*) FROM pushy_internal.watch") == 0
