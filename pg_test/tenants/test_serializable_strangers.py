"""What a stranger who may use Pushy can do to transactions by what PostgreSQL keeps track of for SERIALIZABLE: docs/security.md says
how far that goes, and this how far it does not."""

import threading

import psycopg
import pytest

STRANGERS = ["serializable", "repeatable read"]


@pytest.fixture
def theirs(db, role):
    db.victim, db.stranger = role(), role()
    db.sql(f"CREATE SCHEMA mine AUTHORIZATION {db.stranger}; GRANT CREATE ON SCHEMA public TO PUBLIC")
    with db.connect(user=db.stranger) as session:
        session.execute("CREATE FUNCTION mine.h(jsonb) RETURNS void LANGUAGE sql AS ''")
    with db.connect(user=db.victim) as session:
        session.execute("CREATE TABLE o (id int PRIMARY KEY); CREATE FUNCTION h(jsonb) RETURNS void LANGUAGE sql AS ''")
        session.execute("SELECT pushy.queue_register('o', 'h(jsonb)')")
        session.execute("SELECT pushy.watch('o', queue => 'o')")
    return db


# The victim's isolation level, the stranger's, and whether the stranger registers queues all the while.
CASES = [(level, strangers, True) for level in ("read committed", "repeatable read") for strangers in STRANGERS]
CASES += [("serializable", "repeatable read", True), ("serializable", "serializable", False)]


@pytest.mark.parametrize("level, strangers, registers", CASES)
def test_a_stranger_fails_nobody_who_is_not_serializable_or_with_what_is_not(theirs, level, strangers, registers):
    db = theirs
    stop = threading.Event()

    def register() -> None:
        with db.connect(user=db.stranger, autocommit=False) as session:
            session.isolation_level = psycopg.IsolationLevel[strangers.upper().replace(" ", "_")]
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    session.execute(f"SELECT pushy.queue_register('m{number}', 'mine.h(jsonb)')")
                    session.commit()
                    session.execute(f"SELECT pushy.queue_drop('m{number}')")
                    session.commit()
                except psycopg.errors.SerializationFailure:
                    session.rollback()

    with db.connect(user=db.stranger) as reader:
        reader.execute(f"BEGIN ISOLATION LEVEL {strangers}")
        reader.execute("SELECT count(*) FROM pushy.jobs")
        thread = threading.Thread(target=register)
        if registers:
            thread.start()
        try:
            with db.connect(user=db.victim) as victim:
                for number in range(20):
                    victim.execute(f"BEGIN ISOLATION LEVEL {level}")
                    victim.execute("INSERT INTO o VALUES (%s)", (number,))
                    victim.execute("SELECT pushy.enqueue('o')")
                    victim.execute("SELECT pg_sleep(0.02)")
                    victim.execute("COMMIT")
        finally:
            stop.set()
            if registers:
                thread.join()
    db.jobs_wait("o")
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'o' AND state = 'completed'") == 40
