"""queue_channel: LISTENers hear that an empty queue for workers outside has work."""

import threading
import time

import psycopg
import pytest

from stage.leases import claim, enqueue


@pytest.fixture
def mails(db):
    db.sql("SELECT pushy.queue_register('mails', retry_delay => '0'), pushy.queue_register('end')")
    return db


def heard_until_now(mails, listener) -> int:
    """How many notices of the queue were on their way: those of another queue, told twice, come after them. (Once would not do,
    because what is told together has no order.)"""
    before = len(listener.heard)
    for _ in range(2):
        mails.sql("SELECT pushy.enqueue('end')")
        listener.wait_for(lambda notice: notice.channel == "pushy_queue_end")
        mails.sql("SELECT pushy.job_claim('end', 10)")
    return sum(notice.channel == "pushy_queue_mails" for notice in listener.heard[before:])


def test_a_listener_hears_once_until_somebody_has_claimed(mails):
    channel = mails.value("SELECT pushy.queue_channel('mails')")
    assert channel == "pushy_queue_mails"
    listener = mails.listen(channel, "pushy_queue_end")
    enqueue(mails)
    assert listener.wait_for().payload == ""
    # Of these it is not told: the queue was not empty.
    enqueue(mails, 3)
    assert heard_until_now(mails, listener) == 0
    # Somebody has claimed, and left some: of these it is told, and of those that come no more.
    assert len(claim(mails, 2)) == 2
    enqueue(mails, 2)
    assert heard_until_now(mails, listener) == 1
    assert len(claim(mails, 10)) == 4 and claim(mails) == []
    assert heard_until_now(mails, listener) == 0
    enqueue(mails)
    assert heard_until_now(mails, listener) == 1


def test_a_thousand_jobs_that_are_claimed_at_once_are_few_notices(mails):
    listener = mails.listen("pushy_queue_mails", "pushy_queue_end")
    began = time.monotonic()
    for _ in range(1_000):
        enqueue(mails)
        claim(mails, 10)
    seconds = time.monotonic() - began
    # At most one in 50 ms.
    assert 1 <= heard_until_now(mails, listener) <= 20 * seconds + 2


def test_whoever_enqueues_takes_no_lock_of_notify(make_cluster):
    """Somebody holds it: whose NOTIFY commits, and waits for a standby that never comes."""
    db = make_cluster({"synchronous_commit": "local", "synchronous_standby_names": "nobody"}).database()
    db.sql("SELECT pushy.queue_register('mails')")
    listener = db.listen("pushy_queue_mails")
    holder = db.connect()
    held = threading.Thread(target=holder.execute, args=("SET synchronous_commit = on; CREATE TABLE t (); NOTIFY x",), daemon=True)
    held.start()
    db.wait_until("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", "SyncRep", params=(holder.info.backend_pid,))
    with db.connect() as session:
        session.execute("SET statement_timeout = '20 s'")
        for _ in range(10):
            session.execute("SELECT pushy.enqueue('mails')")
    db.cluster.configure(synchronous_standby_names="").reload()
    held.join(30)
    listener.wait_for()


@pytest.mark.parametrize("then", ["a lease is over", "a job is due", "the queue is resumed", "a job is released", "room for another"])
def test_it_hears_of_whatever_makes_a_job_ready(mails, then):
    listener = mails.listen("pushy_queue_mails")
    if then == "room for another":
        mails.sql("SELECT pushy.queue_alter('mails', concurrency => 1)")
    if then == "the queue is resumed":
        mails.sql("SELECT pushy.queue_pause('mails')")
    if then == "a job is due":
        mails.sql("SELECT pushy.enqueue('mails', delay => '0.3 s')")
    else:
        enqueue(mails, 2 if then == "room for another" else 1)
    if then in ("a lease is over", "a job is released", "room for another"):
        listener.wait_for()
        [(job, token)] = claim(mails, lease="0.3 s" if then == "a lease is over" else None)
        assert claim(mails) == []
    if then == "a job is released":
        mails.sql("SELECT pushy.job_release(%s, %s)", job, token)
    elif then == "room for another":
        mails.sql("SELECT pushy.job_complete(%s, %s)", job, token)
    elif then == "the queue is resumed":
        mails.sql("SELECT pushy.queue_resume('mails')")
    listener.wait_for()


def test_a_channel_follows_the_name_of_its_queue_whatever_that_is(mails):
    for name in ("Weird \"Name\"", "é" * 31, "x" * 63):
        mails.sql("SELECT pushy.queue_register(%s)", name)
        channel = mails.value("SELECT pushy.queue_channel(%s)", name)
        listener = mails.listen(channel)
        mails.sql("SELECT pushy.enqueue(%s)", name)
        listener.wait_for()
    mails.sql("SELECT pushy.queue_rename('mails', 'letters')")
    listener = mails.listen(mails.value("SELECT pushy.queue_channel('letters')"))
    mails.sql("SELECT pushy.enqueue('letters')")
    listener.wait_for()


def test_a_queue_with_a_handler_has_none(mails):
    mails.sql("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('inside', 'f()')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has a handler"):
        mails.value("SELECT pushy.queue_channel('inside')")
