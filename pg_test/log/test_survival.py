"""What readers have read and the server does not have any more: a promotion tells them to resync, a crash takes nothing of the kind back, and
an orderly restart tells nobody anything."""

import signal

import psycopg
import pytest

from harness.waiting import wait_for

ASYNCHRONOUS = {"synchronous_commit": "off", "wal_writer_delay": "10s", "bgwriter_lru_maxpages": 0, "wal_level": "replica", "hot_standby": "on"}


def prepare(db):
    db.sql("CREATE TABLE item (id int PRIMARY KEY)")
    db.sql("SELECT pushy.watch('item', payload => 'row')")
    db.sql("SELECT pushy.subscription_create('s', '{item}')")
    return db


def insert(db, *numbers: int) -> None:
    for number in numbers:
        db.sql("INSERT INTO item VALUES (%s)", number)


def read(db, after: str | None = None) -> list[tuple]:
    return db.rows("SELECT cursor, (payload::jsonb #>> '{new,id}')::int, resync FROM pushy.subscription_read('s', 100, %s)", after)


def read_all(db, *expected: int) -> str:
    """Waits until all are there; the cursor of the last."""
    found = wait_for("the notices", lambda: read(db), lambda found: [number for _, number, _ in found] == list(expected))
    assert not any(resync for *_, resync in found)
    return found[-1][0]


def goes_on(db, after: str, *expected: tuple) -> None:
    """Waits until this comes after the cursor, and no more."""
    wait_for("what comes next", lambda: [row[1:] for row in read(db, after)], lambda found: found == list(expected))


def replayed(db, there) -> None:
    there.wait_until("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", True, params=(db.value("SELECT pg_current_wal_flush_lsn()"),))


def promoted(make_cluster, lags: bool):
    """A database here and on a standby that has the first notice, and the others unless it lags; the reader has read three, and its cursor."""
    primary = make_cluster({"wal_level": "replica", "hot_standby": "on"})
    db = prepare(primary.database())
    standby = primary.standby()
    there = db.of(standby)
    insert(db, 1)
    read_all(db, 1)
    replayed(db, there)
    if lags:
        there.sql("ALTER SYSTEM SET primary_conninfo = ''")
        standby.reload()
        there.wait_until("SELECT count(*) FROM pg_stat_wal_receiver", 0)
    insert(db, 2, 3)
    cursor = read_all(db, 1, 2, 3)
    if not lags:
        replayed(db, there)
    primary.stop("immediate")
    standby.promote()
    return there, cursor


@pytest.mark.parametrize("lags", [True, False])
def test_a_reader_of_a_promoted_standby_is_told_to_resync(make_cluster, lags):
    db, cursor = promoted(make_cluster, lags)
    # Nothing is written here: what was lost is told of all the same.
    found = wait_for("a resync", lambda: read(db), lambda found: any(resync for *_, resync in found))
    assert [number for _, number, resync in found] == [1] + ([] if lags else [2, 3]) + [None]
    from_own = read(db, cursor)
    assert [resync for *_, resync in from_own] == [True], "a reader that keeps its own cursor"
    insert(db, 4)
    rest = wait_for("the notice", lambda: read(db, from_own[-1][0]), lambda found: len(found) == 1)
    assert rest[0][1:] == (4, False), "once"
    if lags:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=cursor):
            db.sql("SELECT pushy.subscription_ack('s', %s)", cursor)
    assert db.value("SELECT pushy.subscription_ack('s', %s)", rest[0][0]) is True
    assert read(db) == []
    db.cluster.restart()
    assert read(db) == [], "an orderly restart"
    insert(db, 5)
    read_all(db, 5)


def test_what_was_read_survives_a_crash_whatever_synchronous_commit_says(make_cluster):
    db = prepare(make_cluster(ASYNCHRONOUS).database())
    insert(db, 1, 2)
    cursor = read_all(db, 1, 2)
    db.cluster.restart("immediate")
    assert db.rows("SELECT id FROM item ORDER BY id") == [(1,), (2,)]
    assert read(db, cursor) == []
    assert read_all(db, 1, 2) == cursor
    insert(db, 3)
    goes_on(db, cursor, (3, False))


def test_a_cursor_that_a_crash_has_taken_back_is_no_place_to_go_on_from(make_cluster):
    db = prepare(make_cluster(ASYNCHRONOUS).database())
    insert(db, 1)
    before = read_all(db, 1)
    # It writes what no commit has waited for, at times of its own.
    walwriter = db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
    db.cluster.kill(walwriter, signal.SIGSTOP)
    # Nobody has read what comes next, but somebody has seen where it is.
    insert(db, 2)
    newest = db.wait_until("SELECT newest FROM pushy.log", lambda newest: newest != before)
    db.cluster.crash(walwriter)
    assert db.rows("SELECT id FROM item") == [(1,)], "lost"
    insert(db, 4)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=newest):
        db.sql("SELECT pushy.subscription_ack('s', %s)", newest)
    goes_on(db, newest, (None, True), (4, False))


@pytest.mark.parametrize("synchronous", ["on", "off"])
def test_an_orderly_restart_tells_nobody_anything(make_cluster, synchronous):
    db = prepare(make_cluster({"synchronous_commit": synchronous}).database())
    insert(db, 1)
    cursor = read_all(db, 1)
    db.cluster.restart()
    assert read(db, cursor) == []
    assert read_all(db, 1) == cursor
    insert(db, 2)
    goes_on(db, cursor, (2, False))
    assert db.value("SELECT count(*) FROM pushy.subscriptions WHERE resync") == 0


def test_a_cursor_beyond_the_newest_is_refused_by_all_who_take_one(db):
    prepare(db)
    insert(db, 1)
    epoch, tick, n = map(int, read_all(db, 1).split("-"))
    places = (epoch, tick, n + 9), (epoch, tick + 99, 1), (epoch + 1, 1, 1)
    for never in ("{:013}-{:012}-{:06}".format(*place) for place in places):
        for call in ("SELECT pushy.subscription_ack('s', %s)", "SELECT * FROM pushy.subscription_read('s', 100, %s)"):
            with pytest.raises(psycopg.errors.InvalidParameterValue, match=never):
                db.sql(call, never)
