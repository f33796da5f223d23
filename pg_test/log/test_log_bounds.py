"""The event log is bounded: by age, by size, and by a rule for when neither helps."""

import pytest

from stage.flow import Flow
from harness.waiting import wait_for

BIG = "SELECT bump(1 + n %% 20, repeat('x', 4000)) FROM generate_series(1, %s) n"


def log(db) -> dict:
    return db.row("SELECT * FROM pushy.log")


def test_what_is_too_old_is_emptied_and_its_readers_are_told_once(make_cluster):
    db = make_cluster({"pushy.log_keep": "10s", "pushy.executor_linger": "1s"}).database()
    flow = Flow(db)
    db.sql("SELECT pushy.subscription_create('late', '{row}')")
    db.sql("SELECT bump(1)")
    db.sql("CALL pushy.subscription_wait('late', '20 s')")
    flow.consume_all()
    assert log(db)["notices"] == 1
    # Nobody writes: the relay comes back by itself.
    db.wait_until("SELECT notices FROM pushy.log", 0, deadline=100)
    assert db.row("SELECT lag_notices, resync FROM pushy.subscriptions WHERE name = 'late'") == {"lag_notices": 0, "resync": True}
    assert db.value("SELECT resync FROM pushy.subscriptions WHERE name = 's'") is False, "it had read all"
    db.sql("SELECT bump(1)")
    db.sql("CALL pushy.subscription_wait('s', '20 s')")
    found = db.rows("SELECT resync, payload IS NULL, cursor FROM pushy.subscription_read('late')")
    assert [row[:2] for row in found] == [(True, True), (False, False)]
    db.sql("SELECT pushy.subscription_ack('late', %s)", found[0][2])
    assert db.rows("SELECT resync FROM pushy.subscription_read('late')") == [(False,)]
    flow.assert_balanced()


def test_what_is_too_old_is_emptied_though_the_relay_could_not_see_when(make_cluster):
    """It wants to leave, somebody holds what it has to look at first, and nothing is written any more."""
    db = make_cluster({"pushy.log_keep": "20s", "pushy.executor_linger": "8s"}).database()
    db.sql("SELECT pushy.subscription_create('s', '{row}'); SELECT pushy.notify('row', 'x', delivery => 'relay')")
    # After a rest the relay writes down how far it is; then it looks at this table no more until it wants to leave.
    before = db.value("SELECT last_tick FROM pushy_internal.log_state")
    db.wait_until("SELECT last_tick FROM pushy_internal.log_state", lambda tick: tick > before)
    assert log(db)["notices"] == 1

    def waits() -> bool | None:
        """Whether the relay waits for a lock; None: it is gone."""
        relays = db.rows("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE backend_type = 'pushy relay' AND datname = current_database()")
        return bool(relays[0][0]) if relays else None
    with db.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE pushy_internal.log_part IN ACCESS EXCLUSIVE MODE")
        # Two looks before it leaves, of which the second is the one that counts, and it looks again.
        for _ in range(4):
            wait_for("a look before the relay leaves", waits, lambda waits: waits is not False)
            wait_for("that look to fail", waits, lambda waits: waits is not True)
    db.wait_until("SELECT notices FROM pushy.log", 0, deadline=100)


def test_what_is_too_much_is_emptied_unread(make_cluster):
    db = make_cluster({"pushy.log_max_size": "4MB"}).database()
    Flow(db)
    for _ in range(40):
        db.sql(BIG, 100)
        db.sql("CALL pushy.subscription_wait('s', '20 s')")
    db.wait_until("SELECT bytes < 6 << 20 FROM pushy.log", True)
    first = db.rows("SELECT resync FROM pushy.subscription_read('s', 10)")[0]
    assert first == (True,)
    assert log(db)["is_full"] is False


def test_a_transaction_held_open_changes_nothing_but_one_part(make_cluster):
    """One that has written to the log keeps that part; the others are emptied as ever."""
    db = make_cluster({"pushy.log_max_size": "4MB"}).database()
    flow = Flow(db)
    held = db.connect(autocommit=False)
    held.execute("SELECT bump(19)")
    with flow.reader():
        for round in range(1, 31):
            db.sql("SELECT bump(1 + n % 18, repeat('x', 4000)) FROM generate_series(1, 90) n")
            db.wait_until("SELECT count(*) FROM effects", round * 90)
        assert log(db)["bytes"] < 8 << 20
        held.commit()
        flow.assert_balanced()


def test_a_log_that_cannot_be_emptied_takes_no_more_and_tells_everybody(make_cluster):
    db = make_cluster({"pushy.log_max_size": "1MB"}).database()
    flow = Flow(db)
    ear = db.listen("row", "pushy_control")
    db.sql("SELECT bump(1)")
    ear.wait_for()
    db.cluster.configure(pushy__enabled="off")
    db.cluster.reload()
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy relay'", 0)
    for _ in range(10):
        db.sql(BIG, 100)
    assert log(db)["bytes"] < 3 << 20, "writers go on, the log does not"
    db.cluster.configure(pushy__enabled="on")
    db.cluster.reload()
    ear.wait_for(lambda notice: notice.channel == "pushy_control" and '"resync"' in notice.payload)
    wait_for("a resync", lambda: (flow.consume_all(), flow.resyncs())[1], lambda count: count == 1)
    db.wait_until("SELECT is_full FROM pushy.log", False)
    db.sql("SELECT pushy.notify('row', '1:0:', delivery => 'relay')")
    ear.wait_for(lambda notice: notice.payload == "1:0:")
    flow.consume_all()
    assert flow.resyncs() == 1, "told once"


def test_nothing_of_the_log_is_dumped_but_its_subscriptions_are(make_cluster):
    db = make_cluster().database()
    Flow(db)
    db.sql("SELECT bump(1)")
    db.sql("CALL pushy.subscription_wait('s', '20 s')")
    dump = db.cluster.run("pg_dump", *db.cluster._where(), "-d", db.name, "-f", db.cluster.folder / "dump.sql")
    text = (db.cluster.folder / "dump.sql").read_text()
    assert "COPY pushy_internal.subscription " in text
    assert "COPY pushy_internal.log_" not in text and "COPY pushy_internal.tick_" not in text, dump
    other = db.cluster.database("restored", extension=False)
    db.cluster.psql("restored", text)
    assert other.rows("SELECT name, resync FROM pushy.subscriptions") == [("s", True)]
    other.sql("SELECT bump(1)")
    assert other.value("CALL pushy.subscription_wait('s', '20 s')") is True
    other.wait_until("SELECT array_agg(resync) FROM pushy.subscription_read('s')", [True, False])


@pytest.mark.parametrize("rows", [100_000])
def test_a_transaction_of_many_events_is_read_whole(make_cluster, rows):
    db = make_cluster({"shared_buffers": "128MB"}).database()
    db.sql("SELECT pushy.subscription_create('s')")
    ear = db.listen("many")
    db.sql("SELECT pushy.notify('many', n::text, delivery => 'relay') FROM generate_series(1, %s) n", rows)
    assert db.value("CALL pushy.subscription_wait('s', '60 s')") is True
    after, seen = None, 0
    while found := db.rows("SELECT payload::int, cursor FROM pushy.subscription_read('s', 5000, %s)", after):
        assert [n for n, _ in found] == list(range(seen + 1, seen + len(found) + 1))
        seen, after = found[-1][0], found[-1][1]
    assert seen == rows
    last = ear.wait_for(lambda notice: notice.payload == str(rows), deadline=60)
    assert last and len(ear.heard) == rows


def test_tables_that_were_rewritten_are_noticed(make_cluster):
    """VACUUM FULL moves what the ticks point at: its readers are told, and nobody is given another event for it."""
    db = make_cluster().database()
    flow = Flow(db)
    db.sql("BEGIN; SELECT bump(2), bump(3, repeat('x', 3000)); PREPARE TRANSACTION 'p'")
    for n in range(1, 6):
        db.sql("SELECT bump(1, %s)", str(n))
    db.sql("CALL pushy.subscription_wait('s', '20 s')")
    db.wait_until("SELECT notices FROM pushy.log", 5)
    db.sql("ROLLBACK PREPARED 'p'")
    db.sql("VACUUM FULL")
    db.sql("SELECT bump(1)")
    db.sql("CALL pushy.subscription_wait('s', '20 s')")
    wait_for("the newest to be read", lambda: (flow.consume_all(), db.value("SELECT max(v) FROM effects"))[1], lambda v: v == 6)
    assert flow.resyncs() >= 1
    found = [v for v, in db.rows("SELECT v FROM effects WHERE v IS NOT NULL ORDER BY seq")]
    assert found == sorted(set(found))
