"""Watches whose notices go through the event log."""

import json

import psycopg
import pytest


def test_a_watch_by_relay_tells_listeners_and_subscriptions(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int); SELECT pushy.watch('t', delivery => 'relay')")
    db.sql("SELECT pushy.subscription_create('s', '{t}')")
    ear = db.listen("t")
    db.sql("INSERT INTO t VALUES (1, 1), (2, 2); UPDATE t SET v = 3 WHERE id = 1; DELETE FROM t WHERE id = 2")
    heard = [json.loads(ear.wait_for().payload) for _ in range(4)]
    assert [(notice["op"], notice["key"]["id"]) for notice in heard] == \
        [("insert", 1), ("insert", 2), ("update", 1), ("delete", 2)]
    db.sql("CALL pushy.subscription_wait('s', '20 s')")
    db.wait_until("SELECT count(*) FROM pushy.subscription_read('s')", 4)


def test_a_watched_table_can_be_written_in_a_prepared_transaction(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY); SELECT pushy.watch('t', delivery => 'relay')")
    ear = db.listen("t")
    with db.connect(autocommit=False) as writer:
        writer.execute("INSERT INTO t VALUES (1)")
        writer.execute("PREPARE TRANSACTION 'p'")
        writer.rollback()
    db.sql("COMMIT PREPARED 'p'")
    assert json.loads(ear.wait_for().payload)["key"] == {"id": 1}


def test_equal_notices_of_several_transactions_are_one_with_merge_and_several_without(make_cluster):
    db = make_cluster().database()
    for table, merge in (("merging", "true"), ("counting", "false")):
        db.sql(f"CREATE TABLE {table} (id int); SELECT pushy.watch('{table}', payload => 'none', delivery => 'relay', merge => {merge})")
    db.sql("SELECT pushy.subscription_create('s')")
    ear = db.listen("merging", "counting", "last")
    # The relay meets all of them at once.
    db.cluster.configure(pushy__enabled="off")
    db.cluster.reload()
    db.wait_until("SHOW pushy.enabled", "off")
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy relay'", 0)
    for n in range(5):
        db.sql("INSERT INTO merging VALUES (%s)", n)
        db.sql("INSERT INTO counting VALUES (%s)", n)
    db.sql("SELECT pushy.notify('last', delivery => 'relay')")
    db.cluster.configure(pushy__enabled="on")
    db.cluster.reload()
    ear.wait_for(lambda notice: notice.channel == "last")
    channels = [notice.channel for notice in ear.heard]
    assert (channels.count("merging"), channels.count("counting")) == (1, 5)
    assert db.rows("SELECT channel, count(*) FROM pushy.subscription_read('s') GROUP BY channel ORDER BY channel") == \
        [("counting", 5), ("last", 1), ("merging", 1)]


def test_what_equal_jobs_of_a_batch_tell_is_told_for_each(db):
    db.sql("""
        CREATE FUNCTION tell() RETURNS void LANGUAGE sql AS $$SELECT pushy.notify('told', 'same', delivery => 'relay')$$;
        SELECT pushy.queue_register('q', 'tell()')""")
    ear = db.listen("told", "last")
    db.sql("SELECT pushy.enqueue_many('q', array_fill('{}'::jsonb, ARRAY[50]))")
    db.jobs_wait("q")
    db.sql("SELECT pushy.notify('last', delivery => 'relay')")
    ear.wait_for(lambda notice: notice.channel == "last")
    assert len(ear.heard) == 51


def test_a_notice_for_the_log_is_refused_in_a_parallel_worker_whose_transaction_has_no_commit(db):
    db.sql("""CREATE FUNCTION tells(i int) RETURNS int LANGUAGE plpgsql PARALLEL SAFE AS
                  $$BEGIN PERFORM pushy.notify('c', 'x', delivery => 'relay'); RETURN i; END$$""")
    force = "debug_parallel_query" if db.value("SELECT current_setting('server_version_num')::int") >= 160000 else "force_parallel_mode"
    with db.connect() as session, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="parallel worker"):
        session.execute(f"SET {force} = on")
        session.execute("SELECT tells(1)")
