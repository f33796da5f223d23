"""What others call their things is said so that it forges no line of a log or a terminal."""

import psycopg
import pytest

# It clears a line, begins another, and turns what follows.
GID = "his\x1b[2K\n'LOG:  all is fine\u202e"
FORGING = ("\x1b", "\u202e")


@pytest.fixture
def prepared(db):
    """A prepared transaction of that name, which has declared queue `mine`, and has a job."""
    db.sql("CREATE FUNCTION h() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'h()'); SELECT pushy.queue_pause('q')")
    literal = "'" + GID.replace("'", "''") + "'"
    with db.connect() as session:
        session.execute("BEGIN; SELECT pushy.queue_register('mine', 'h()'), pushy.enqueue('q')")
        session.execute(f"PREPARE TRANSACTION {literal}")
    yield
    db.sql(f"ROLLBACK PREPARED {literal}")


def test_the_name_of_a_prepared_transaction_is_written_out_wherever_it_is_said(db, prepared):
    said: list[str] = []
    with db.connect() as session:
        session.add_notice_handler(lambda notice: said.append(f"{notice.message_primary} {notice.message_hint}"))
        session.execute("SET lock_timeout = '100 ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            session.execute("SELECT pushy.queue_register('mine', 'h()')")
        session.execute("SET lock_timeout = 0")
        rows = session.execute("SELECT q::text FROM pushy.queue_explain('q') q").fetchall()
        session.execute("SELECT pushy.queue_register('gone', 'h()'); SELECT pushy.queue_drop('gone')")
    views = " ".join(row[0] for row in rows)
    for text in (*said, views):
        assert not any(character in text for character in FORGING), text
    assert sum("his\\u001B" in text for text in said) >= 2, said
    assert "his" in views


def test_the_way_out_that_is_said_ends_it(db, prepared):
    hints: list[str] = []
    with db.connect() as session:
        session.add_notice_handler(lambda notice: hints.append(notice.message_hint or ""))
        session.execute("SET lock_timeout = '100 ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            session.execute("SELECT pushy.queue_register('mine', 'h()')")
    [hint] = [hint for hint in hints if hint.startswith("COMMIT PREPARED")]
    literal = hint.removeprefix("COMMIT PREPARED ").split(", or ROLLBACK PREPARED")[0]
    assert db.value(f"SELECT {literal}") == GID


def test_a_message_writes_out_what_hides_in_the_name_of_a_column(db):
    db.sql("CREATE TABLE t (i int PRIMARY KEY)")
    with pytest.raises(psycopg.Error) as refusal:
        db.sql("SELECT pushy.watch('t', columns => ARRAY['no\x1b[2K']::name[])")
    diag = refusal.value.diag
    said = " ".join(filter(None, (diag.message_primary, diag.message_detail, diag.message_hint)))
    assert "\x1b" not in said and "\\u001B" in said, said
