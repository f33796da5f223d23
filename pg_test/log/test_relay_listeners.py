"""What nobody listens to the relay does not tell: NOTIFY would hand it to every session that listens to anything. It knows from
the LISTENs and UNLISTENs of all sessions, which take effect as the server has it: with the commit, in their order, and not when
they are rolled back."""

import pytest


@pytest.fixture
def is_told(db):
    """Whether what is logged for a channel gets into the queue of NOTIFY, where a session that sleeps keeps everything."""
    sleeper = db.connect()
    sleeper.execute("LISTEN anything")
    sleeper.execute("BEGIN")

    def look(channel):
        before, notices = db.rows("SELECT pg_notification_queue_usage(), notices FROM pushy.log")[0]
        db.sql("SELECT pushy.notify(%s, repeat('x', 7000) || n, delivery => 'relay') FROM generate_series(1, 10) n", channel)
        db.wait_until(f"SELECT notices = {notices + 10} AND emitted = newest FROM pushy.log", True)
        return db.value("SELECT pg_notification_queue_usage()") > before
    return look


IN_A_FUNCTION = """CREATE FUNCTION listen(channel text) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE format('LISTEN %I', channel); END $$"""


def run(session, statements):
    for statement in statements.split(";"):
        session.execute(statement)


def test_without_listeners_nothing_is_told(db, is_told):
    assert not is_told("news")
    db.main.execute("LISTEN news")
    assert is_told("news")
    assert not is_told('"News"')
    other = db.cluster.database("other").connect()
    other.execute('LISTEN "News"')
    assert not is_told('"News"'), "another database has other channels"


@pytest.mark.parametrize("statements", [
    "LISTEN news",
    "BEGIN; LISTEN news; COMMIT",
    "BEGIN; SAVEPOINT s; LISTEN news; RELEASE s; COMMIT",
    "BEGIN; SAVEPOINT s; LISTEN news; ROLLBACK TO s; LISTEN news; COMMIT",
    "BEGIN; LISTEN news; SAVEPOINT s; UNLISTEN news; ROLLBACK TO s; COMMIT",
    "LISTEN news; BEGIN; UNLISTEN news; ROLLBACK",
    "LISTEN news; BEGIN; UNLISTEN *; LISTEN news; COMMIT",
    "LISTEN news; LISTEN news; LISTEN other; UNLISTEN other",
    "LISTEN news; BEGIN; LISTEN news; ROLLBACK",
    "SELECT listen('news')",
])
def test_who_listens_hears(db, is_told, statements):
    db.sql(IN_A_FUNCTION)
    session = db.connect()
    run(session, statements)
    assert is_told("news")
    db.sql("SELECT pushy.notify('news', 'the end', delivery => 'relay')")
    assert any(notice.payload == "the end" for notice in session.notifies(timeout=20, stop_after=11))


@pytest.mark.parametrize("statements", [
    "BEGIN; LISTEN news; ROLLBACK",
    "BEGIN; SAVEPOINT s; LISTEN news; ROLLBACK TO s; COMMIT",
    "BEGIN; LISTEN news; UNLISTEN news; COMMIT",
    "LISTEN news; UNLISTEN news",
    "LISTEN news; LISTEN news; UNLISTEN news",
    "LISTEN news; UNLISTEN *",
    "LISTEN news; DISCARD ALL",
])
def test_who_does_not_listen_any_more_is_not_told(db, is_told, statements):
    session = db.connect()
    run(session, statements)
    assert session.execute("SELECT pg_listening_channels()").fetchall() == []
    assert not is_told("news")


def test_a_session_that_ends_listens_no_more(db, is_told):
    stays, goes, killed = (db.connect() for _ in range(3))
    for session in (stays, goes, killed):
        session.execute("LISTEN news")
    goes.close()
    db.sql("SELECT pg_terminate_backend(%s, 20000)", killed.info.backend_pid)
    assert is_told("news")
    stays.close()
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'", 2)
    assert not is_told("news")


def test_listening_survives_a_transaction_that_fails(db, is_told):
    session = db.connect()
    session.execute("LISTEN news")
    with pytest.raises(Exception, match="division by zero"):
        run(session, "BEGIN; UNLISTEN news; SELECT 1/0")
    session.execute("ROLLBACK")
    assert is_told("news")


def test_the_first_notice_after_a_listen_is_heard(db):
    """The relay is busy meanwhile: it looks who listens when what it tells is committed, and so is the LISTEN."""
    session = db.connect()
    for n in range(200):
        db.sql("SELECT pushy.notify('noise', n::text, delivery => 'relay') FROM generate_series(1, 20) n")
        session.execute(f"LISTEN c{n}")
        db.sql("SELECT pushy.notify(%s, 'first', delivery => 'relay')", f"c{n}")
    heard = [notice.channel for notice in session.notifies(timeout=20, stop_after=200)]
    assert heard == [f"c{n}" for n in range(200)]
