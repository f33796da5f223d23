"""Numbers of jobs, queues, watches and subscriptions never come twice, whatever somebody does to a sequence; and drawing one leaves
the session's own sequences as they were."""

import psycopg
import pytest

SEQUENCES = {"position_seq", "queue_id_seq", "watch_id_seq", "subscription_id_seq"}


def sequences(db) -> set[str]:
    return {name for name, in db.rows("SELECT sequencename FROM pg_sequences WHERE schemaname LIKE 'pushy%'")}


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_no_number_comes_again_where_a_sequence_was_set_back(make_cluster, restarted):
    cluster = make_cluster({"max_prepared_transactions": 5})
    db = cluster.database()
    assert sequences(db) == SEQUENCES
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY)")
    for name in "abc":
        db.sql(f"SELECT pushy.queue_register('{name}', 'f(jsonb)'), pushy.watch('t', queue => '{name}'), pushy.subscription_create('{name}')")
    numbers = ("SELECT queue_id FROM pushy_internal.queue UNION ALL SELECT 1000 + watch_id FROM pushy_internal.watch"
               " UNION ALL SELECT 2000 + subscription_id FROM pushy_internal.subscription")
    before = {number for number, in db.rows(numbers)}
    if restarted:
        # What a table holds keeps its number.
        for name in SEQUENCES:
            db.sql(f"SELECT setval('pushy_internal.{name}', 1, false)")
        cluster.restart()
        db.close()
    else:
        # Nothing holds them any more, and transactions that have not ended may know them.
        for name in "abc":
            db.sql(f"SELECT pushy.unwatch('t', '{name}'), pushy.subscription_drop('{name}'), pushy.queue_drop('{name}')")
        for name in SEQUENCES:
            db.sql(f"SELECT setval('pushy_internal.{name}', 1, false)")
    for name in "xyz":
        db.sql(f"SELECT pushy.queue_register('{name}', 'f(jsonb)'), pushy.watch('t', queue => '{name}'), pushy.subscription_create('{name}')")
    after = {number for number, in db.rows(numbers)}
    assert len(after - before) == 9, (before, after)


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
