"""A page and its stream: what is read by one snapshot, and what comes behind the cursor that belongs to it."""

import threading

import psycopg
import pytest
from psycopg.rows import dict_row

from stage.watching import settled

COUNTERS = """CREATE TABLE counter (id int PRIMARY KEY, v int NOT NULL DEFAULT 0) WITH (fillfactor = 10); INSERT INTO counter SELECT generate_series(1, 20);
    SELECT pushy.watch('counter', channel => 'counted', payload_expr => 'NEW.id || '':'' || NEW.v', topic_expr => '''counter/'' || NEW.id')"""


def read_on(session, cursor, channels="{counted}", topics=None, most=1000):
    """What comes after a cursor by now, and where that ends."""
    found = []
    while True:
        rows = session.cursor(row_factory=dict_row).execute(
            "SELECT * FROM pushy_internal.log_read(%s, %s, %s, %s)", (cursor, channels, topics, most)).fetchall()
        *notices, last = rows
        assert last["channel"] is None and last["resync"] is False and all(row["more"] is None for row in notices)
        found += notices
        cursor = last["cursor"]
        if not last["more"]:
            return found, cursor


@pytest.fixture
def counters(db):
    db.sql(COUNTERS)
    return db


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE", "one statement", "cursor first"])
def test_a_page_and_its_stream_have_no_gap_while_writers_write(counters, isolation):
    """Each page: the numbers of all counters, and a cursor. Behind it the next number of each counter is at most one more than the
    page has, each comes in order, and the last is what the table has in the end; numbers that the page has may come again."""
    db, stopping, pages, errors = counters, threading.Event(), [], []

    def work(number):
        try:
            with db.connect(autocommit=False) as session:
                step = 0
                while not stopping.is_set():
                    step += 1
                    session.execute("UPDATE counter SET v = v + 1 WHERE id = %s", (number * 5 + step % 5 + 1,))
                    (session.rollback if step % 7 == 0 else session.commit)()
        except Exception as error:  # shown below
            errors.append(error)
    writers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for writer in writers:
        writer.start()
    with db.connect(autocommit=False) as session:
        # As many pages as it takes for the writers to have written something beside them.
        while len(pages) < 60 or sum(pages[-1][0].values()) < 300:
            if isolation == "one statement":
                rows = session.execute("SELECT id, v, pushy.log_position() FROM counter").fetchall()
                page, (cursor,) = {id: v for id, v, _ in rows}, {cursor for *_, cursor in rows}
            elif isolation == "cursor first":
                (cursor,) = session.execute("SELECT pushy.log_position()").fetchone()
                page = dict(session.execute("SELECT id, v FROM counter").fetchall())
            else:
                session.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
                page = dict(session.execute("SELECT id, v FROM counter").fetchall())
                # As late as can be: the relay has gone on meanwhile.
                newest = db.value("SELECT newest FROM pushy.log")
                db.wait_until("SELECT newest IS DISTINCT FROM %s FROM pushy.log", True, params=(newest,))
                (cursor,) = session.execute("SELECT pushy.log_position()").fetchone()
            session.commit()
            pages.append((page, cursor))
    stopping.set()
    for writer in writers:
        writer.join(60)
    assert not errors
    settled(db)
    final = dict(db.rows("SELECT id, v FROM counter"))
    doubles = 0
    for page, cursor in pages:
        found, _ = read_on(db.main, cursor)
        assert not any(row["resync"] for row in found)
        reached = dict(page)
        for row in found:
            counter, v = map(int, row["payload"].split(":"))
            assert row["topic"] == f"counter/{counter}"
            doubles += v <= page[counter]
            assert v <= reached[counter] + 1, f"{counter}: {v} behind {reached[counter]}, of a page that has {page[counter]} and goes on at {cursor}"
            reached[counter] = max(reached[counter], v)
        assert reached == final
    if isolation in ("REPEATABLE READ", "SERIALIZABLE", "one statement"):
        # What comes twice had committed since the last tick: not all of it.
        assert doubles < sum(final.values()) * len(pages) / 2


def test_an_old_snapshot_has_an_old_position(counters):
    db = counters
    with db.connect(autocommit=False) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT 1 FROM counter")
        for number in (1, 2, 3):
            db.sql("UPDATE counter SET v = v + 1 WHERE id = %s", number)
        db.wait_until("SELECT count(*) FROM pushy_internal.log_read('0-0-0', '{counted}') WHERE channel IS NOT NULL", 3)
        (cursor,) = session.execute("SELECT pushy.log_position()").fetchone()
    assert [row["payload"] for row in read_on(db.main, cursor)[0]] == ["1:1", "2:1", "3:1"]
    assert read_on(db.main, db.value("SELECT pushy.log_position()"))[0] == []


def test_a_subscription_begins_behind_a_position(counters):
    db = counters
    cursor = db.value("SELECT pushy.log_position()")
    db.sql("UPDATE counter SET v = 1 WHERE id <= 3")
    settled(db)
    assert db.value("SELECT pushy.subscription_create('s', '{counted}', after => %s)", cursor) == cursor
    assert db.rows("SELECT topic, payload FROM pushy.subscription_read('s')") == [(f"counter/{n}", f"{n}:1") for n in (1, 2, 3)]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="both given"):
        db.sql("SELECT pushy.subscription_create('t', from_oldest => true, after => %s)", cursor)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="9-9"):
        db.sql("SELECT pushy.subscription_create('t', after => '9-9')")
    epoch, tick, n = map(int, db.value("SELECT newest FROM pushy.log").split("-"))
    beyond = f"{epoch:013}-{tick + 99:012}-{1:06}"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=beyond):
        db.sql("SELECT pushy.subscription_create('t', after => %s)", beyond)


def test_a_position_of_another_log_is_told_to_resync(counters):
    db = counters
    db.sql("UPDATE counter SET v = 1 WHERE id = 1")
    settled(db)
    for another in ("1-1-1", "0-0-0"):
        db.sql("SELECT pushy.subscription_create('s', '{counted}', after => %s)", another)
        rows = db.rows("SELECT resync FROM pushy.subscription_read('s')")
        assert rows[0] == (another == "1-1-1",)
        db.sql("SELECT pushy.subscription_drop('s')")
        found, _ = read_on(db.main, another)
        assert [row["resync"] for row in found] == ([True, False] if another == "1-1-1" else [False])


def test_who_reads_by_a_cursor_gets_what_it_may_read(counters, role):
    db, owner, friend, stranger = counters, role(), role(), role()
    db.sql(f"GRANT USAGE ON SCHEMA pushy_internal TO {owner}, {friend}, {stranger}")
    with db.connect(user=owner) as session:
        # A superuser's watch publishes there.
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT pushy.channel_grant('counted', %s)", (owner,))
    db.sql("SELECT pushy.channel_grant('counted', %s, topics => 'counter/1, counter/2')", friend)
    cursor = db.value("SELECT pushy.log_position()")
    db.sql("UPDATE counter SET v = 1 WHERE id <= 3; SELECT pushy.notify('open', 'all')")
    settled(db)
    with db.connect(user=friend) as session:
        assert [row["topic"] for row in read_on(session, cursor)[0]] == ["counter/1", "counter/2"]
        assert [row["topic"] for row in read_on(session, cursor, None, ["counter/2", "counter/3"])[0]] == ["counter/2"]
        assert [row["payload"] for row in read_on(session, cursor, None)[0] if row["channel"] != "settled"] == ["1:1", "2:1", "all"]
    with db.connect(user=stranger) as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="counted"):
            read_on(session, cursor)
        found, passed = read_on(session, cursor, None)
        assert [row["payload"] for row in found if row["channel"] != "settled"] == ["all"] and passed != cursor
    # Without a schema of Pushy's own nobody finds it.
    db.sql(f"REVOKE USAGE ON SCHEMA pushy_internal FROM {stranger}")
    with db.connect(user=stranger) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        read_on(session, cursor)


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_a_long_way_is_gone_in_steps(counters, most):
    db = counters
    cursor = db.value("SELECT pushy.log_position()")
    db.sql("SELECT pushy.notify('other', n::text) FROM generate_series(1, 7000) n")
    db.sql("UPDATE counter SET v = 1")
    settled(db)
    found, passed = read_on(db.main, cursor, most=most)
    assert sorted(row["payload"] for row in found) == sorted(f"{n}:1" for n in range(1, 21))
    assert read_on(db.main, passed)[0] == []


def test_a_wait_ends_with_the_first_notice_for_its_reader(counters):
    db = counters
    cursor = db.value("SELECT pushy.log_position()")
    db.sql("SELECT pushy.notify('other', 'x')")
    settled(db)
    ((passed, ready),) = db.rows("CALL pushy_internal.log_wait(%s, '{counted}', timeout => '0')", cursor)
    assert ready is False and passed != cursor
    answers = []
    with db.connect() as session:
        waiter = threading.Thread(target=lambda: answers.append(
            session.execute("CALL pushy_internal.log_wait(%s, '{counted}', '{counter/7}', '60 s')", (passed,)).fetchone()), daemon=True)
        waiter.start()
        db.sql("UPDATE counter SET v = 1 WHERE id = 6")
        db.sql("UPDATE counter SET v = 1 WHERE id = 7")
        waiter.join(60)
    ((passed, ready),) = answers
    assert ready is True
    assert [row["payload"] for row in read_on(db.main, passed, topics=["counter/7"])[0]] == ["7:1"]
