"""NOTIFY's queue is full, because somebody listens and sleeps in a transaction: what fails, what waits, and what goes on after.

The queue holds 8 GB, half of the pages that it can number. Here all of its files but the first are one file: each page has one
notice that looks like any other, so whoever reads it later finds what the server expects.
"""

import os

import psycopg
import pytest

from harness import account
from harness.versions import notify_segment_digits
from harness.waiting import wait_for

SEGMENTS = 0x8000
# Two of them do not fit on a page.
FILLER = "SELECT count(pg_notify('filler', repeat('x', 4200) || %s + n)) FROM generate_series(1, 20000) n"


def fill_the_queue(cluster):
    """Answers the session that sleeps."""
    folder = cluster.data / "pg_notify"
    digits = notify_segment_digits(cluster)
    shared = folder / f"{1:0{digits}X}"
    shared.touch(mode=0o600)
    account.give(shared)
    for number in range(2, SEGMENTS):
        os.symlink(shared.name, folder / f"{number:0{digits}X}")
    sleeper = cluster.connect("postgres")
    sleeper.execute("LISTEN anything")
    sleeper.execute("BEGIN")
    with cluster.connect("postgres") as writer, pytest.raises(psycopg.errors.ProgramLimitExceeded):
        for start in range(0, 1_200_000, 20_000):
            writer.execute(FILLER, (start,))
    return sleeper


def test_a_full_queue_fails_plain_notices_and_delays_relayed_ones_which_are_never_lost(make_cluster):
    db = make_cluster().database()
    db.sql("CREATE TABLE plain (id int); CREATE TABLE relayed (id int)")
    db.sql("SELECT pushy.watch('plain', channel => 'heard', payload_expr => 'NEW.id', delivery => 'notify')")
    db.sql("SELECT pushy.watch('relayed', channel => 'heard', payload_expr => 'NEW.id', delivery => 'relay')")
    db.sql("SELECT pushy.subscription_create('s', '{heard}')")
    sleeper = fill_the_queue(db.cluster)
    ear = db.listen("heard")

    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="too many notifications"):
        db.sql("INSERT INTO plain VALUES (0)")
    assert db.rows("SELECT * FROM plain") == [], "it fails the write"

    since = db.cluster.log.position()
    for n in range(1, 6):
        db.sql("INSERT INTO relayed VALUES (%s)", n)
    db.cluster.log.wait_for("LISTENers hear nothing: too many notifications", since)
    assert db.value("CALL pushy.subscription_wait('s', '20 s')") is True
    wait_for("all to be read", lambda: db.rows("SELECT payload FROM pushy.subscription_read('s')"),
             lambda read: read == [(str(n),) for n in range(1, 6)])
    assert db.value("SELECT emitted FROM pushy.log") is None
    [relay] = db.workers("relay")

    # The server itself does not look again whether there is room: without the relay every NOTIFY would go on failing.
    sleeper.close()
    for n in range(1, 6):
        assert ear.wait_for().payload == str(n)
    db.sql("INSERT INTO plain VALUES (6)")
    assert ear.wait_for().payload == "6"
    assert db.workers("relay") == [relay]
    assert db.cluster.log.since(since).count("LISTENers hear nothing") == 1


def test_a_job_that_notifies_fails_alone_at_its_commit_and_is_discarded_in_the_end(make_cluster):
    db = make_cluster({"pushy.max_executors": 1}).database()
    db.sql("""
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN IF args ? 'tell' THEN PERFORM pg_notify('heard', 'x'); END IF; END$$;
        SELECT pushy.queue_register('q', 'work(jsonb)', max_attempts => 2, retry_delay => '10 ms')""")
    sleeper = fill_the_queue(db.cluster)
    jobs = [job for job, in db.rows(
        "SELECT pushy.enqueue_many('q', array_fill('{}'::jsonb, ARRAY[10]) || '{\"tell\": 1}'::jsonb || array_fill('{}'::jsonb, ARRAY[10]))")]
    telling = jobs[10]
    assert db.job_wait(telling)["state"] == "discarded"
    for job in jobs:
        if job != telling:
            assert (db.job_wait(job)["state"], db.job(job)["attempt"]) == ("completed", 1)
    assert db.rows("SELECT job_id, attempt, sqlstate FROM pushy.failures ORDER BY attempt") == [(telling, 1, "54000"), (telling, 2, "54000")]
    sleeper.close()


def test_a_queue_of_workers_outside_that_cannot_be_told_of_delays_nothing_else(make_cluster):
    db = make_cluster().database()
    db.sql("""
        CREATE TABLE done (payload text);
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS $$INSERT INTO done VALUES (args->>'payload')$$;
        SELECT pushy.queue_register('inside', 'work(jsonb)');
        SELECT pushy.queue_register('outside');
        SELECT pushy.subscription_create('s', '{heard}', queue => 'inside')""")
    sleeper = fill_the_queue(db.cluster)
    ear = db.listen(db.value("SELECT pushy.queue_channel('outside')"))
    since = db.cluster.log.position()
    db.sql("SELECT pushy.enqueue('outside')")
    db.cluster.log.wait_for("LISTENers hear nothing: too many notifications", since)
    for n in range(5):
        db.sql("SELECT pushy.notify('heard', %s)", str(n))
        wait_for(f"notice {n} to be a job that is done", lambda: db.value("SELECT count(*) FROM done"), lambda done: done == n + 1)
    sleeper.close()
    assert ear.wait_for().channel == "pushy_queue_outside"
    assert db.cluster.log.since(since).count("LISTENers hear nothing") == 1
