"""Numbers of jobs, queues, watches and subscriptions never come twice, whatever somebody does to a sequence; and drawing one leaves
the session's own sequences as they were."""

import psycopg
import pytest

SEQUENCES = {"position_seq", "queue_id_seq", "watch_id_seq", "subscription_id_seq"}


def sequences(db) -> set[str]:
    return {name for name, in db.rows("SELECT sequencename FROM pg_sequences WHERE schemaname LIKE 'pushy%'")}


def declared(db) -> set[tuple[str, int]]:
    return set(db.rows("SELECT 'queue', queue_id FROM pushy_internal.queue UNION ALL SELECT 'watch', watch_id FROM pushy_internal.watch"
                       " UNION ALL SELECT 'subscription', subscription_id FROM pushy_internal.subscription"))


def declare(db, names):
    for name in names:
        db.sql(f"SELECT pushy.queue_register('{name}', 'f(jsonb)'), pushy.watch('t', queue => '{name}'), pushy.subscription_create('{name}')")


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_no_number_comes_again_where_a_sequence_was_set_back(make_cluster, restarted):
    cluster = make_cluster({"max_prepared_transactions": 5})
    db = cluster.database()
    assert sequences(db) == SEQUENCES
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY)")
    declare(db, "abc")
    before = declared(db)
    if restarted:
        # What a table holds keeps its number.
        jobs = {number for number, in db.rows("SELECT pushy.enqueue('a') FROM generate_series(1, 5)")}
        db.jobs_wait("a")
        for name in SEQUENCES:
            db.sql(f"SELECT setval('pushy_internal.{name}', 1, false)")
        cluster.restart()
        db.close()
        assert db.value("SELECT pushy.enqueue('a')") > max(jobs)
        db.jobs_wait("a")
    else:
        # Nothing holds them any more, and transactions that have not ended may know them.
        for name in "abc":
            db.sql(f"SELECT pushy.unwatch('t', '{name}'), pushy.subscription_drop('{name}'), pushy.queue_drop('{name}')")
        for name in SEQUENCES:
            db.sql(f"SELECT setval('pushy_internal.{name}', 1, false)")
    declare(db, "xyz")
    after = declared(db)
    assert len(after - before) == 9, (before, after)


LAST = 2 ** 31 - 1


def test_numbers_of_what_is_declared_begin_again_after_the_last_one(make_cluster):
    cluster = make_cluster()
    db = cluster.database()
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY)")
    # The first few are held, and so is the last: by a row, because nothing is drawn to there.
    for column in ("queue_id", "watch_id", "subscription_id"):
        db.sql(f"SELECT setval('pushy_internal.{column}_seq', 1, false)")
    declare(db, "abc")
    for column in ("queue_id", "watch_id", "subscription_id"):
        table = column.removesuffix("_id")
        db.sql(f"UPDATE pushy_internal.{table} SET {column} = {LAST} WHERE {column} = (SELECT max({column}) FROM pushy_internal.{table})")
        db.sql(f"SELECT setval('pushy_internal.{column}_seq', {LAST - 1})")
    before = declared(db)
    cluster.restart()
    db.close()
    declare(db, "vwxyz")
    after = declared(db)
    assert before <= after and len(after - before) == 15, (before, after)
    assert all(0 < number <= LAST for _, number in after)
    # The next life goes on behind them.
    cluster.restart()
    db.close()
    declare(db, "m")
    assert len(declared(db) - after) == 3


@pytest.mark.parametrize("rolled_back", ["ROLLBACK", "ROLLBACK TO s"])
def test_a_script_that_is_rolled_back_leaves_the_sequence_ahead_of_what_was_drawn(make_cluster, rolled_back):
    db = make_cluster().database()
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('a', 'f(jsonb)'), pushy.enqueue('a')")
    db.jobs_wait("a")
    with db.connect(autocommit=False) as session:
        session.execute("SAVEPOINT s")
        session.execute("DROP EXTENSION pushy CASCADE")
        session.execute("CREATE EXTENSION pushy")
        session.execute("SELECT pushy.queue_register('a', 'f(jsonb)')")
        session.execute("SELECT pushy.enqueue('a') FROM generate_series(1, 1000)")
        session.execute(rolled_back)
        session.commit()
    drawn = db.value("SELECT pushy.enqueue('a')")
    assert db.value("SELECT last_value FROM pushy_internal.position_seq") >= drawn


def test_an_open_enqueue_does_not_come_into_the_next_queue(db, role):
    victim, mallory = role(), role("IN ROLE pg_write_all_data")
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''")
    db.sql(f"GRANT CREATE ON SCHEMA public TO {victim}, {mallory}")
    hers, his = db.connect(user=victim), db.connect(user=mallory)
    hers.execute("CREATE TABLE t (id int PRIMARY KEY)")
    hers.execute("SELECT pushy.queue_register('cards', 'f(jsonb)')")
    with db.connect(user=victim, autocommit=False) as opened:
        opened.execute("SELECT pushy.watch('t', queue => 'cards', payload => 'row')")
        opened.execute("SELECT pushy.subscription_create('s', '{c}', queue => 'cards')")
        hers.execute("SELECT pushy.queue_drop('cards', force => true)")
        his.execute("SELECT setval('pushy_internal.queue_id_seq', 1, false)")
        his.execute("SELECT pushy.queue_register('loot', 'f(jsonb)')")
        his.execute("SELECT pushy.queue_grant('loot', 'public')")
        opened.commit()
    hers.execute("INSERT INTO t VALUES (1)")
    assert his.execute("SELECT count(*) FROM pushy.jobs").fetchone() == (0,)
    hers.close(), his.close()


# Each function that draws a number, and each firing of a watch that feeds a queue.
DRAWS = {
    "enqueue": "SELECT pushy.enqueue('q')",
    "enqueue, unique": "SELECT pushy.enqueue('q', unique_key => 'k')",
    "enqueue, later": "SELECT pushy.enqueue('q', delay => '1 hour')",
    "enqueue_many": "SELECT pushy.enqueue_many('q', ARRAY['{}', '{}']::jsonb[])",
    "job_retry": "SELECT pushy.job_retry((SELECT id FROM pushy.jobs WHERE state = 'cancelled' LIMIT 1))",
    "queue_run": "SELECT pushy.queue_run('q')",
    "queue_register": "SELECT pushy.queue_register('other', 'f(jsonb)')",
    "watch": "SELECT pushy.watch('t', channel => 'other')",
    "subscription_create": "SELECT pushy.subscription_create('other')",
    "a row inserted": "INSERT INTO t VALUES (10)",
    "a row updated": "UPDATE t SET id = 11 WHERE id = 10",
    "a row deleted": "DELETE FROM t WHERE id = 11",
    "a statement": "INSERT INTO s VALUES (10)",
    "rows truncated": "TRUNCATE s",
}


@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
@pytest.mark.parametrize("user", ["owner", "superuser"])
def test_drawing_a_number_is_not_felt_by_lastval_and_currval(db, role, user, used):
    """lastval() after an INSERT failed for want of a privilege, or was a job's number."""
    name = role()
    db.sql(f"GRANT CREATE ON SCHEMA public TO {name}")
    with db.connect(user=name) as owner:
        for statement in ("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''", "CREATE SEQUENCE own",
                          "CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE s (id int PRIMARY KEY)",
                          "SELECT pushy.queue_register('q', 'f(jsonb)', keep_discarded => '1 day')", "SELECT pushy.queue_pause('q')",
                          "SELECT pushy.watch('t', queue => 'q')", "SELECT pushy.watch('s', queue => 'q', level => 'statement', events => '{insert,truncate}')",
                          "SELECT pushy.job_cancel(pushy.enqueue('q'))"):
            owner.execute(statement)
    with db.connect(user=name if user == "owner" else "postgres") as session:
        for what, statement in DRAWS.items():
            if user == "superuser" and what in ("queue_run", "queue_register"):
                continue  # Code of others is run by their role only.
            session.execute("DISCARD SEQUENCES")
            if used:
                session.execute("SELECT nextval('own')")
            session.execute(statement)
            seen = []
            for ask in ("SELECT lastval()", "SELECT currval('own')"):
                try:
                    seen += session.execute(ask).fetchone()
                except psycopg.errors.ObjectNotInPrerequisiteState:
                    seen.append(None)
            expected = db.value("SELECT last_value FROM own") if used else None
            assert seen == [expected, expected], what
