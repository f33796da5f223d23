"""The relay tells LISTENers what was committed to the event log."""

import pytest


def notify(db, channel, payload, session=None):
    (session or db.main).execute("SELECT pushy.notify(%s, %s, delivery => 'relay')", (channel, payload))


def test_a_listener_hears_a_notice_after_its_commit(db):
    ear = db.listen("orders")
    writer = db.connect(autocommit=False)
    notify(db, "orders", "one", writer)
    notify(db, "orders", "before")
    assert ear.wait_for().payload == "before"
    writer.commit()
    heard = ear.wait_for()
    assert (heard.channel, heard.payload) == ("orders", "one")


def test_what_is_rolled_back_is_never_told(db):
    ear = db.listen("orders")
    writer = db.connect(autocommit=False)
    notify(db, "orders", "gone", writer)
    writer.rollback()
    notify(db, "orders", "kept 1", writer)
    writer.execute("SAVEPOINT s")
    notify(db, "orders", "gone too", writer)
    writer.execute("ROLLBACK TO s")
    writer.execute("SAVEPOINT t")
    notify(db, "orders", "kept 2", writer)
    writer.execute("RELEASE t")
    writer.commit()
    notify(db, "orders", "last", writer)
    writer.commit()
    ear.wait_for(lambda notice: notice.payload == "last")
    assert [notice.payload for notice in ear.heard] == ["kept 1", "kept 2", "last"]


def payloads(ear, count):
    """The next `count` notices."""
    found = []
    while len(found) < count:
        found.append(ear.wait_for().payload)
    return found


def test_notices_of_a_transaction_come_in_its_order_and_each_once_per_call(db):
    """Unlike NOTIFY's own: equal ones of two transactions are two, also when the relay meets them together."""
    ear = db.listen("orders", '"Quoted"')
    for _ in range(3):
        notify(db, "orders", "same")
    db.sql("""SELECT pushy.notify('"Quoted"', n::text, delivery => 'relay') FROM generate_series(1, 5) n""")
    notify(db, "orders", "end")
    ear.wait_for(lambda notice: notice.payload == "end")
    assert [notice.payload for notice in ear.heard] == ["same"] * 3 + list("12345") + ["end"]
    assert {notice.channel for notice in ear.heard} == {"orders", "Quoted"}


def test_many_notices_at_once_all_arrive_in_order(db):
    ear = db.listen("orders")
    db.sql("SELECT pushy.notify('orders', n::text, delivery => 'relay') FROM generate_series(1, 10000) n")
    assert payloads(ear, 10_000) == [str(n) for n in range(1, 10_001)]


def test_a_relay_that_is_ended_is_followed_by_one_that_goes_on(db):
    ear = db.listen("orders")
    told = 0
    for round in range(5):
        for n in range(50):
            notify(db, "orders", str(told))
            told += 1
            if n == 25:
                for pid in db.workers("relay"):
                    db.sql("SELECT pg_terminate_backend(%s)", pid)
    assert payloads(ear, told) == [str(n) for n in range(told)]


def test_while_pushy_is_off_notices_wait(make_cluster):
    db = make_cluster().database()
    ear = db.listen("orders")
    notify(db, "orders", "1")
    assert payloads(ear, 1) == ["1"]
    db.cluster.configure(pushy__enabled="off")
    db.cluster.reload()
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy relay'", 0)
    notify(db, "orders", "2")
    notify(db, "orders", "3")
    db.cluster.configure(pushy__enabled="on")
    db.cluster.reload()
    assert payloads(ear, 2) == ["2", "3"]


def test_what_was_committed_before_the_server_stopped_is_told_when_it_is_up(make_cluster):
    """Whoever listens before the relay gets to it hears it."""
    db = make_cluster({"pushy.enabled": "off"}).database()
    notify(db, "orders", "1")
    db.cluster.restart()
    ear = db.listen("orders")
    db.cluster.configure(pushy__enabled="on")
    db.cluster.reload()
    assert payloads(ear, 1) == ["1"]


@pytest.mark.parametrize("mode", ["smart", "fast"])
def test_an_orderly_restart_tells_nothing_again(make_cluster, mode):
    db = make_cluster().database()
    ear = db.listen("orders")
    notify(db, "orders", "1")
    assert payloads(ear, 1) == ["1"]
    # It has told, and sleeps; what sleeps for long has written that down anyway.
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy relay' AND state = 'idle'", 1)
    db.close()
    db.cluster.restart(mode)
    ear = db.listen("orders")
    notify(db, "orders", "2")
    assert payloads(ear, 1) == ["2"]


def test_a_prepared_notice_is_told_when_it_is_committed(db):
    """NOTIFY itself is refused there."""
    ear = db.listen("orders")
    with db.connect(autocommit=False) as writer:
        notify(db, "orders", "prepared", writer)
        writer.execute("PREPARE TRANSACTION 'p'")
        writer.rollback()
    notify(db, "orders", "meanwhile")
    assert payloads(ear, 1) == ["meanwhile"]
    db.sql("COMMIT PREPARED 'p'")
    assert payloads(ear, 1) == ["prepared"]


def test_a_relay_leaves_when_nothing_comes_and_comes_back(make_cluster):
    db = make_cluster({"pushy.executor_linger": "0"}).database()
    ear = db.listen("orders")
    for n in range(3):
        notify(db, "orders", str(n))
        assert payloads(ear, 1) == [str(n)]
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy relay'", 0)


def test_where_nothing_was_logged_no_relay_comes(make_cluster):
    db = make_cluster().database()
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'work()')")
    since = db.cluster.log.position()
    db.cluster.configure(log_min_messages="debug1")
    db.cluster.restart()
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    assert "pushy relay" not in db.cluster.log.since(since)


@pytest.mark.parametrize("delivery", ["queue", "", "Relay"])
def test_an_unknown_delivery_is_refused(db, delivery):
    import psycopg
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="delivery"):
        db.sql("SELECT pushy.notify('c', 'p', delivery => %s)", delivery)


def test_the_largest_payload_and_the_longest_channel_go_through(db):
    channel = "c" * 63
    ear = db.listen(channel)
    notify(db, channel, "x" * 7999)
    assert payloads(ear, 1) == ["x" * 7999]
    import psycopg
    with pytest.raises(psycopg.Error, match="7999|8000|payload"):
        notify(db, channel, "x" * 8000)


def test_drop_extension_and_database_while_the_relay_runs(make_cluster):
    db = make_cluster().database()
    ear = db.listen("orders")
    notify(db, "orders", "1")
    assert payloads(ear, 1) == ["1"]
    db.sql("DROP EXTENSION pushy; CREATE EXTENSION pushy")
    notify(db, "orders", "2")
    assert payloads(ear, 1) == ["2"]
    db.sql("BEGIN; DROP EXTENSION pushy; ROLLBACK")
    notify(db, "orders", "3")
    assert payloads(ear, 1) == ["3"]
    with db.cluster.connect() as admin:
        db.close()
        admin.execute("SET statement_timeout = '20s'")
        admin.execute(f'ALTER DATABASE "{db.name}" RENAME TO renamed')
        admin.execute("DROP DATABASE renamed")
