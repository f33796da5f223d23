"""What others declare of a watch while ALTER TABLE changes the type of a column that it uses: the end of the statement writes what
is new of the triggers, and takes back nothing."""

import threading

import pytest

SEEN = "SELECT w.paused, w.queue, (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = w.relation AND NOT t.tgisinternal) FROM pushy_internal.watch w"

MEANWHILE = {
    "watch_pause": ("", "SELECT pushy.watch_pause('t'::regclass)", [(True, "q", 3)]),
    "watch_resume": ("SELECT pushy.watch_pause('t')", "SELECT pushy.watch_resume('t'::regclass)", [(False, "q", 3)]),
    "queue_rename": ("", "SELECT pushy.queue_rename('q', 'r')", [(False, "r", 3)]),
    "nothing": ("", "SELECT 1", [(False, "q", 3)]),
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_what_is_declared_meanwhile_stays(db, what):
    before, meanwhile, expected = MEANWHILE[what]
    db.sql("CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'f(jsonb)')")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t VALUES (1, 1)")
    db.sql("SELECT pushy.watch('t', queue => 'q', condition => 'NEW.x > 0', events => '{insert,update}')")
    if before:
        db.sql(before)
    with db.connect() as gate, db.connect() as alter:
        gate.execute("SELECT pg_advisory_lock(1)")
        statement = "ALTER TABLE t ALTER COLUMN x TYPE bigint USING x + (pg_advisory_xact_lock(1) IS NULL)::int"
        thread = threading.Thread(target=alter.execute, args=(statement,))
        thread.start()
        db.wait_until("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", "advisory", params=(alter.info.backend_pid,))
        db.sql(meanwhile)
        gate.execute("SELECT pg_advisory_unlock(1)")
        thread.join()
    assert db.rows(SEEN) == expected
    assert db.value("SELECT state FROM pushy.watches") == ("paused" if expected[0][0] else "active")

