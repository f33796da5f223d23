"""Where no relay can come, watches and subscriptions say so, and what to do about it."""

import pytest

from harness.waiting import wait_for

OBSTACLES = {
    "no preload": ({"shared_preload_libraries": ""}, "shared_preload_libraries"),
    "off": ({"pushy.enabled": "off"}, "pushy.enabled = on"),
    "another database": ({"pushy.databases": "other"}, "pushy.databases = "),
    "no slot": ({"max_worker_processes": "1"}, "max_worker_processes = "),
}


def states(db) -> dict[str, tuple]:
    watches = db.rows("SELECT name, state, fix FROM pushy.watches")
    return {name: (state, fix) for name, state, fix in watches + db.rows("SELECT name, state, fix FROM pushy.subscriptions")}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_hinders_the_relay_is_said(make_cluster, obstacle):
    settings, fix = OBSTACLES[obstacle]
    db = make_cluster(settings).database()
    db.sql("CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY);"
           "SELECT pushy.queue_register('q', 'nothing()'), pushy.subscription_create('s'),"
           "       pushy.watch('t', name => 'relay', channel => 'c', delivery => 'relay'), pushy.watch('t', name => 'notify', channel => 'c', delivery => 'notify'),"
           "       pushy.watch('t', name => 'jobs', queue => 'q'), pushy.watch('t', name => 'paused', channel => 'c', delivery => 'relay');"
           "SELECT pushy.watch_pause('t', 'paused'); INSERT INTO t VALUES (1)")
    db.wait_until("SELECT state FROM pushy.watches WHERE name = 'relay'", "no_relay")
    seen = states(db)
    assert {name: state for name, (state, _) in seen.items()} == {"relay": "no_relay", "s": "no_relay", "notify": "active", "jobs": "active", "paused": "paused"}
    assert fix in seen["relay"][1] and seen["relay"][1] == seen["s"][1]
    if fix.startswith("pushy."):
        db.sql("ALTER SYSTEM RESET ALL")
        for statement in seen["relay"][1].removeprefix("Run ").removesuffix(" as a statement of its own").split(", then "):
            db.sql(statement)
        db.wait_until("SELECT count(*) FROM pushy.watches WHERE state = 'no_relay'", 0)
        assert states(db)["relay"] == ("active", None)
        # What has gone by NOTIFY was asked for, and what says no delivery has a queue and no channel: nothing is missing.
        assert states(db)["s"] == ("active", None)
        db.sql("CALL pushy.subscription_wait('s', '30 s')")


def test_with_a_relay_all_is_active(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY); SELECT pushy.watch('t', channel => 'c'), pushy.subscription_create('s'); INSERT INTO t VALUES (1)")
    db.sql("CALL pushy.subscription_wait('s', '30 s')")
    assert states(db) == {"c": ("active", None), "s": ("active", None)}


def heard_by(db, *statements: str) -> list[list[str]]:
    """What each statement of one session says beside its answer."""
    said = []
    with db.connect() as session:
        session.add_notice_handler(lambda diag: said[-1].append(f"{diag.severity} {diag.message_primary}; {diag.message_hint}"))
        for statement in statements:
            said.append([])
            session.execute(statement)
    return said


def test_without_the_preload_who_wants_the_relay_is_told_that_none_comes(make_cluster):
    db = make_cluster({"shared_preload_libraries": ""}).database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    watched, again, by_relay, by_notify, *notified = heard_by(
        db, "SELECT pushy.watch('t')", "SELECT pushy.watch('t')", "SELECT pushy.watch('t', channel => 'r', delivery => 'relay')",
        "SELECT pushy.watch('t', channel => 'n', delivery => 'notify')", "SELECT pushy.notify('c', 'x', 'relay')",
        "SELECT pushy.notify('c', 'x', 'relay')", "SELECT pushy.notify('c', 'x')")
    assert [line.partition(":")[0] for line in watched] == ["NOTICE notices of table public.t go by NOTIFY, and are not kept in the event log"]
    assert [line.partition(":")[0] for line in by_relay] == ["NOTICE notices of table public.t wait in the event log"]
    assert all("shared_preload_libraries" in line for line in watched + by_relay + notified[0])
    assert again == by_notify == notified[1] == notified[2] == []
    assert [line.partition(":")[0] for line in notified[0]] == ["WARNING what is delivered by relay waits in the event log"]


def test_what_says_no_delivery_goes_by_notify_until_a_relay_can_come_and_by_relay_from_then_on(make_cluster):
    """Asked when it is told, in the sessions that are there: not when the watch was declared."""
    db = make_cluster({"pushy.databases": "other"}).database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); SELECT pushy.watch('t', channel => 'c'), pushy.subscription_create('s', '{c}')")
    ear = db.listen("c")
    with db.connect() as writer:
        def told(number: int) -> list[str]:
            """Of LISTENers; each change and each call is told once."""
            writer.execute("INSERT INTO t VALUES (%s)", (number,))
            writer.execute("SELECT pushy.notify('c', %s)", (f"n{number}",))
            ear.wait_for(lambda notice: notice.payload == f"n{number}")
            heard, ear.heard[:] = [notice.payload for notice in ear.heard], []
            return heard
        assert [len(told(number)) for number in (1, 2)] == [2, 2]
        assert db.value("SELECT notices FROM pushy.log") == 0
        assert db.rows("SELECT delivery, state, fix FROM pushy.watches") == [("relay", "active", None)]
        db.sql("ALTER SYSTEM SET pushy.databases = '*'")
        db.sql("SELECT pg_reload_conf()")
        wait_for("the writer to read its configuration", lambda: writer.execute("SHOW pushy.databases").fetchone(), lambda seen: seen == ("*",))
        assert len(told(3)) == 2
        db.wait_until("SELECT array_agg(resync) FROM pushy.subscription_read('s')", [True, False, False])


@pytest.mark.parametrize("delivery", ["NULL", "'relay'"])
def test_what_is_said_while_pushy_is_off_waits_is_said_to_wait_and_is_told_when_it_is_on(make_cluster, delivery):
    """Alike for a watch and a call, with delivery said or not: off is a pause, so nothing goes past subscriptions by NOTIFY."""
    db = make_cluster({"pushy.enabled": "off"}).database()
    db.sql(f"CREATE TABLE t (id int PRIMARY KEY); SELECT pushy.watch('t', channel => 'c', delivery => {delivery}), pushy.subscription_create('s', '{{c}}')")
    ear = db.listen("c")
    written, again, called = heard_by(db, "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)", f"SELECT pushy.notify('c', 'n', {delivery})")
    assert [line.partition(":")[0] for line in written] == ["WARNING what is delivered by relay waits in the event log"]
    assert "pushy.enabled is off" in written[0] and "ALTER SYSTEM SET pushy.enabled = on" in written[0]
    assert again == called == [], "once in a session"
    assert states(db)["c"][0] == states(db)["s"][0] == "no_relay"
    [[declared]] = heard_by(db, f"SELECT pushy.watch('t', channel => 'other', delivery => {delivery})")
    assert declared.startswith("NOTICE notices of table public.t wait in the event log")
    db.sql("ALTER SYSTEM SET pushy.enabled = on")
    db.sql("SELECT pg_reload_conf()")
    ear.wait_for(lambda notice: notice.payload == "n")
    assert len(ear.heard) == 3
    db.wait_until("SELECT count(*) FROM pushy.subscription_read('s')", 3)
    assert states(db)["c"] == states(db)["s"] == ("active", None)


def test_outside_the_databases_that_are_served_what_asks_for_the_relay_is_told_that_it_waits(make_cluster):
    db = make_cluster({"pushy.databases": "other"}).database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); SELECT pushy.watch('t', channel => 'c'), pushy.watch('t', channel => 'r', delivery => 'relay')")
    written, plain, called, asked = heard_by(db, "INSERT INTO t VALUES (1)", "SELECT 1", "SELECT pushy.notify('c', 'n')", "SELECT pushy.notify('c', 'n', 'relay')")
    assert [line.partition(":")[0] for line in written] == ["WARNING what is delivered by relay waits in the event log"] and "pushy.databases" in written[0]
    assert plain == called == asked == []
    assert {name: state for name, (state, _) in states(db).items()} == {"c": "active", "r": "no_relay"}
