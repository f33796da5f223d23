"""Durable subscriptions: read, acknowledge, wait."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest


def read(db, name, max=100):
    return [(row["channel"], row["payload"]) for row in rows(db, name, max)]


def rows(db, name, max=100):
    from psycopg.rows import dict_row
    return db.main.cursor(row_factory=dict_row).execute("SELECT * FROM pushy.subscription_read(%s, %s)", (name, max)).fetchall()


def wait(db, name):
    return db.value("CALL pushy.subscription_wait(%s, '20 s')", name)


def test_a_subscription_reads_what_was_notified_until_it_acknowledges(db):
    db.value("SELECT pushy.subscription_create('s', '{orders}')")
    for n in range(3):
        db.sql("SELECT pushy.notify('orders', %s, delivery => 'relay')", f"n{n}")
    db.sql("SELECT pushy.notify('other', 'x', delivery => 'relay')")
    assert wait(db, "s") is True
    db.wait_until("SELECT count(*) FROM pushy.subscription_read('s')", 3)
    found = rows(db, "s")
    assert [row["payload"] for row in found] == ["n0", "n1", "n2"]
    assert found[1]["resync"] is False
    assert db.value("SELECT pushy.subscription_ack('s', %s)", found[1]["cursor"]) is True
    assert read(db, "s") == [("orders", "n2")]
    assert db.value("SELECT pushy.subscription_ack('s', %s)", found[0]["cursor"]) is False
    assert db.value("SELECT pushy.subscription_ack('s', %s)", found[2]["cursor"]) is True
    assert read(db, "s") == []
    assert db.value("CALL pushy.subscription_wait('s', '0')") is False


def test_a_cursor_that_was_never_given_out_is_refused(db):
    db.value("SELECT pushy.subscription_create('s', '{orders}')")
    db.sql("SELECT pushy.notify('orders', n::text, delivery => 'relay') FROM generate_series(1, 3) n")
    wait(db, "s")
    db.sql("SELECT pushy.notify('orders', 'later', delivery => 'relay')")
    db.wait_until("SELECT count(*) FROM pushy.subscription_read('s')", 4)
    found = rows(db, "s")
    epoch, tick, n = map(int, found[2]["cursor"].split("-"))
    places = (epoch, tick, n + 9), (epoch, tick + 99, 1), (epoch + 1, 1, 1)
    for never in ("{:013}-{:012}-{:06}".format(*place) for place in places):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=never):
            db.sql("SELECT pushy.subscription_ack('s', %s)", never)
    assert len(read(db, "s")) == 4
    assert [db.value("SELECT pushy.subscription_ack('s', %s)", row["cursor"]) for row in found] == [True] * 4


@pytest.mark.parametrize("collation", ["C", "C.utf8", "en-x-icu"])
def test_cursors_sort_as_notices_come(db, collation):
    """So that max(cursor) acknowledges the last of those that were read."""
    if not db.value("SELECT count(*) FROM pg_collation WHERE collname = %s", collation):
        pytest.skip("this server was built without ICU")
    db.value("SELECT pushy.subscription_create('s', '{orders}')")
    for n in range(1, 13):
        db.sql("SELECT pushy.notify('orders', %s, delivery => 'relay')", str(n))
        db.wait_until("SELECT count(*) FROM pushy.subscription_read('s')", n)
    assert db.value("SELECT count(DISTINCT split_part(cursor, '-', 2)) FROM pushy.subscription_read('s')") == 12, "ticks"
    assert db.value(f"""SELECT array_agg(payload ORDER BY cursor COLLATE "{collation}") FROM pushy.subscription_read('s')""") == [str(n) for n in range(1, 13)]
    assert db.value("SELECT pushy.subscription_ack('s', max(cursor)) FROM pushy.subscription_read('s')")
    assert read(db, "s") == []


@pytest.mark.parametrize("statement", ["SELECT pushy.subscription_ack('s', %s)", "SELECT count(*) FROM pushy.subscription_read('s', 100, %s)"])
def test_a_cursor_is_good_while_its_part_is_truncated(db, statement):
    """As the relay does it, which holds the part for as long as its transaction takes: who waits for that with a cursor in hand
    knows what was lost as of before."""
    db.value("SELECT pushy.subscription_create('s', '{orders}')")
    db.sql("SELECT pushy.notify('orders', n::text, delivery => 'relay') FROM generate_series(1, 3) n")
    db.wait_until("SELECT count(*) FROM pushy.subscription_read('s')", 3)
    cursor = rows(db, "s")[0]["cursor"]
    epoch, tick, _ = map(int, cursor.split("-"))
    part = db.value("SELECT part FROM pushy_internal.log_state")
    with db.connect(autocommit=False) as relay, db.connect() as reader, ThreadPoolExecutor(1) as threads:
        relay.execute(f"LOCK TABLE pushy_internal.log_{part}, pushy_internal.tick_{part} IN ACCESS EXCLUSIVE MODE")
        answer = threads.submit(lambda: reader.execute(statement, (cursor,)).fetchone())
        db.wait_until("SELECT cardinality(pg_blocking_pids(%s))", 1, params=(reader.info.backend_pid,))
        relay.execute("UPDATE pushy_internal.log_state SET lost_epoch = %s, lost_tick = %s, lost_n = 3", (epoch, tick))
        relay.execute(f"TRUNCATE ONLY pushy_internal.log_{part}, ONLY pushy_internal.tick_{part}")
        relay.commit()
        # True: it was acknowledged. 1: the resync that says what was lost.
        assert answer.result() == (1,)


def test_a_notice_job_is_run_once_for_each_notice(db):
    db.sql("""
        CREATE TABLE done (channel text, payload text);
        CREATE FUNCTION note(args jsonb) RETURNS void LANGUAGE sql AS
          $$INSERT INTO public.done VALUES (args->>'channel', args->>'payload')$$;
        SELECT pushy.queue_register('notes', 'note(jsonb)', concurrency => 1);
        SELECT pushy.subscription_create('jobs', '{orders, "\\"Ünï\\""}', queue => 'notes')""")
    db.sql("SELECT pushy.notify('orders', n::text, delivery => 'relay') FROM generate_series(1, 2500) n")
    db.sql("""SELECT pushy.notify('"Ünï"', E'a "quoted" \\\\ line\\n', delivery => 'relay')""")
    db.sql("SELECT pushy.notify('others', 'x', delivery => 'relay')")
    db.wait_until("SELECT count(*) FROM done", 2501)
    db.jobs_wait("notes")
    assert db.value("SELECT count(DISTINCT payload) FROM done WHERE channel = 'orders'") == 2500
    assert db.rows("SELECT payload FROM done WHERE channel <> 'orders'") == [('a "quoted" \\ line\n',)]
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'notes'") == 2501


def test_a_queue_that_cannot_be_fed_says_why_and_goes_on_where_it_stopped(db, role):
    owner, tenant = role(), role()
    db.sql("CREATE TABLE done (payload text); GRANT INSERT ON done TO PUBLIC;"
           "CREATE FUNCTION note(args jsonb) RETURNS void LANGUAGE sql AS $$INSERT INTO public.done VALUES (args->>'payload')$$")
    with db.connect(owner) as session:
        session.execute("SELECT pushy.queue_register('notes', 'note(jsonb)')")
        session.execute("SELECT pushy.queue_grant('notes', %s, 'enqueue')", (tenant,))
    with db.connect(tenant) as session:
        session.execute("SELECT pushy.subscription_create('jobs', '{orders}', queue => 'notes')")
    db.sql("SELECT pushy.notify('orders', 'one', delivery => 'relay')")
    db.wait_until("SELECT count(*) FROM done", 1)
    with db.connect(owner) as session:
        session.execute("SELECT pushy.queue_revoke('notes', %s, 'enqueue')", (tenant,))
    db.sql("SELECT pushy.notify('orders', 'two', delivery => 'relay')")
    db.wait_until("SELECT stopped FROM pushy.subscriptions", 'permission denied for queue "notes"')
    assert db.value("SELECT count(*) FROM done") == 1
    with db.connect(owner) as session:
        session.execute("SELECT pushy.queue_grant('notes', %s, 'enqueue')", (tenant,))
    db.sql("SELECT pushy.notify('orders', 'three', delivery => 'relay')")
    db.wait_until("SELECT count(*) FROM done", 3)
    db.wait_until("SELECT stopped FROM pushy.subscriptions", None)


def test_a_chain_of_causes_through_the_log_is_bounded(make_cluster):
    """A handler that notifies, a subscription that makes a job of it: it would go on for ever."""
    db = make_cluster({"pushy.max_depth": 4}).database()
    db.sql("""
        CREATE FUNCTION again() RETURNS void LANGUAGE sql AS $$SELECT pushy.notify('loop', '', delivery => 'relay')$$;
        SELECT pushy.queue_register('loops', 'again()');
        SELECT pushy.subscription_create('loop', '{loop}', queue => 'loops')""")
    db.sql("SELECT pushy.notify('loop', '', delivery => 'relay')")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'discarded'", 1)
    assert db.rows("SELECT depth, state FROM pushy.jobs ORDER BY depth") == \
        [(n, "completed") for n in range(5)] + [(5, "discarded")]
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE depth > 0 AND caused_by IS NULL") == 0


def test_only_the_owner_may_use_a_subscription(db, role):
    owner, stranger, member = role(), role(), None
    member = role(f"IN ROLE {owner}")
    with db.connect(owner) as session:
        session.execute("SELECT pushy.subscription_create('mine', '{orders}')")
    for statement in ("SELECT * FROM pushy.subscription_read('mine')", "SELECT pushy.subscription_ack('mine', '0-0-0')",
                      "CALL pushy.subscription_wait('mine', '0')", "SELECT pushy.subscription_drop('mine')",
                      "SELECT pushy.subscription_create('mine', '{others}')"):
        with db.connect(stranger) as session, pytest.raises(psycopg.errors.InsufficientPrivilege, match="owner"):
            session.execute(statement)
    with db.connect(stranger) as session:
        assert session.execute("SELECT * FROM pushy.subscriptions").fetchall() == []
    with db.connect(member) as session:
        assert session.execute("SELECT name FROM pushy.subscriptions").fetchall() == [("mine",)]
        session.execute("SELECT pushy.subscription_drop('mine')")
    with db.connect(stranger) as session, pytest.raises(psycopg.errors.UndefinedObject, match="mine"):
        session.execute("SELECT pushy.subscription_read('mine')")


def test_a_subscription_of_a_queue_needs_the_privilege_to_enqueue(db, role):
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'work()')")
    with db.connect(role()) as session, pytest.raises(psycopg.errors.InsufficientPrivilege, match="queue"):
        session.execute("SELECT pushy.subscription_create('s', '{c}', queue => 'q')")


def test_bad_arguments_name_the_value(db):
    db.sql("SELECT pushy.subscription_create('s')")
    for statement, error in [
        ("SELECT pushy.subscription_create(NULL)", psycopg.errors.NullValueNotAllowed),
        ("SELECT pushy.subscription_create('')", psycopg.errors.InvalidParameterValue),
        ("SELECT pushy.subscription_create(repeat('x', 64))", psycopg.errors.InvalidParameterValue),
        ("SELECT pushy.subscription_create('t', '{}')", psycopg.errors.InvalidParameterValue),
        ("SELECT pushy.subscription_create('t', '{NULL}')", psycopg.errors.NullValueNotAllowed),
        ("SELECT pushy.subscription_create('t', '{user}')", psycopg.errors.SyntaxError),
        ("SELECT pushy.subscription_create('t', queue => 'none')", psycopg.errors.UndefinedObject),
        ("SELECT pushy.subscription_read('s', -1)", psycopg.errors.InvalidParameterValue),
        ("SELECT pushy.subscription_read('s', 100001)", psycopg.errors.InvalidParameterValue),
        ("SELECT pushy.subscription_read('s', 1, 'x')", psycopg.errors.InvalidParameterValue),
        ("SELECT pushy.subscription_read(NULL)", psycopg.errors.NullValueNotAllowed),
        ("SELECT pushy.subscription_ack('s', NULL)", psycopg.errors.NullValueNotAllowed),
        ("SELECT pushy.subscription_ack('s', '99999999999-1-1')", psycopg.errors.InvalidParameterValue),
        ("CALL pushy.subscription_wait('s', '-1 s')", psycopg.errors.InvalidParameterValue),
        ("SELECT pushy.subscription_drop('none')", psycopg.errors.UndefinedObject),
    ]:
        with pytest.raises(error) as raised:
            db.sql(statement)
        assert raised.value.diag.message_hint, statement


def test_waiting_holds_no_snapshot_and_wakes_at_the_commit(db):
    db.sql("SELECT pushy.subscription_create('s', '{orders}')")
    waiting = db.connect()
    waiting.pgconn.send_query(b"CALL pushy.subscription_wait('s', '20 s')")
    pid = waiting.info.backend_pid
    db.wait_until("SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %s", True, params=(pid,))
    assert db.row("SELECT backend_xmin, backend_xid FROM pg_stat_activity WHERE pid = %s", pid) == \
        {"backend_xmin": None, "backend_xid": None}
    db.sql("SELECT pushy.notify('others', 'x', delivery => 'relay')")
    db.sql("SELECT pushy.notify('orders', 'x', delivery => 'relay')")
    assert waiting.pgconn.get_result().get_value(0, 0) == b"t"


def test_what_is_of_other_channels_is_passed_over(db):
    db.sql("SELECT pushy.subscription_create('s', '{orders}')")
    before = db.value("SELECT cursor FROM pushy.subscriptions")
    db.sql("SELECT pushy.notify('others', 'x', delivery => 'relay')")
    assert db.value("CALL pushy.subscription_wait('s', '300 ms')") is False
    assert db.value("SELECT lag_notices FROM pushy.subscriptions") == 0
    assert db.value("SELECT cursor FROM pushy.subscriptions") != before


def test_a_new_subscription_begins_now_or_with_the_oldest(db):
    db.sql("SELECT pushy.subscription_create('first', '{orders}')")
    db.sql("SELECT pushy.notify('orders', 'old', delivery => 'relay')")
    assert wait(db, "first")
    db.sql("SELECT pushy.subscription_create('now', '{orders}')")
    db.sql("SELECT pushy.subscription_create('oldest', '{orders}', from_oldest => true)")
    db.sql("SELECT pushy.notify('orders', 'new', delivery => 'relay')")
    assert wait(db, "now")
    assert [payload for _, payload in read(db, "now")] == ["new"]
    assert [payload for _, payload in read(db, "oldest")] == ["old", "new"]
    assert [payload for _, payload in read(db, "oldest", 1)] == ["old"]
    cursor = rows(db, "oldest", 1)[0]["cursor"]
    assert db.rows("SELECT payload FROM pushy.subscription_read('oldest', 5, %s)", cursor) == [("new",)]


def test_declaring_it_again_keeps_its_cursor_and_takes_new_channels(db):
    db.sql("SELECT pushy.subscription_create('s', '{a}')")
    for channel in "abab":
        db.sql("SELECT pushy.notify(%s, %s, delivery => 'relay')", channel, channel)
    assert wait(db, "s")
    db.wait_until("SELECT lag_notices FROM pushy.subscriptions", 2)
    db.sql("SELECT pushy.subscription_create('s', '{b}')")
    assert read(db, "s") == [("b", "b"), ("b", "b")]
    db.sql("SELECT pushy.subscription_create('s')")
    assert len(read(db, "s")) == 4


def test_a_reader_who_has_read_all_of_its_quiet_channel_is_not_late(db):
    """While others are busy: lag counts what the subscription is to read, whatever is behind its cursor."""
    db.sql("SELECT pushy.subscription_create('quiet', '{orders}'), pushy.subscription_create('busy')")
    db.sql("SELECT pushy.notify('orders', 'one', delivery => 'relay')")
    assert wait(db, "quiet")
    db.sql("SELECT pushy.subscription_ack('quiet', (SELECT cursor FROM pushy.subscription_read('quiet')))")
    db.sql("SELECT pushy.notify('other' || n % 100, n::text, delivery => 'relay') FROM generate_series(1, 1000) n")
    db.wait_until("SELECT lag_notices FROM pushy.subscriptions WHERE name = 'busy'", 1001)
    assert db.row("SELECT lag, lag_notices, lag_bytes, state FROM pushy.subscriptions WHERE name = 'quiet'") == \
        {"lag": None, "lag_notices": 0, "lag_bytes": 0, "state": "active"}
    db.sql("SELECT pushy.notify('orders', 'two', delivery => 'relay')")
    db.wait_until("SELECT lag_notices FROM pushy.subscriptions WHERE name = 'quiet'", 1)
    assert db.row("SELECT lag < '1 minute' AS near, lag_bytes FROM pushy.subscriptions WHERE name = 'quiet'") == {"near": True, "lag_bytes": len("orderstwo")}


def test_the_notices_of_a_transaction_that_leaves_no_wal_are_in_order(make_cluster):
    """With wal_level = minimal nothing of tables that the transaction itself has created goes into the WAL."""
    db = make_cluster({"wal_level": "minimal", "max_wal_senders": 0}).database(extension=False)
    with db.connect(autocommit=False) as session:
        session.execute("CREATE EXTENSION pushy; SELECT pushy.subscription_create('s', '{x}')")
        for call in range(3):
            # More than are kept in memory: written in several strokes.
            session.execute("SELECT count(pushy.notify('x', (%s + n)::text, delivery => 'relay')) FROM generate_series(0, 9999) n", (call * 10000,))
        session.commit()
    assert db.value("CALL pushy.subscription_wait('s', '30 s')") is True
    found = [n for n, in db.rows("SELECT payload::int FROM pushy.subscription_read('s', 100000)")]
    assert found == list(range(30000))
