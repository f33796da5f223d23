"""A queue of workers outside with a concurrency: how many are leased is known, and is not counted anew at each claim."""

import threading

import psycopg
import pytest

from harness.waiting import wait_for
from stage.leases import claim, enqueue, state

MANY = 100


@pytest.fixture
def mails(db):
    """Queue `mails`, of which four may be leased at a time."""
    db.sql("SELECT pushy.queue_register('mails', concurrency => 4, retry_delay => '0', max_attempts => 25)")
    return db


def entries_read(session, statement: str) -> int:
    """Entries of the index of what is leased of a queue that a statement reads."""
    def so_far() -> int:
        session.execute("SELECT pg_stat_force_next_flush()")
        return session.execute("SELECT idx_tup_read FROM pg_stat_all_indexes WHERE indexrelname = 'lease_worker'").fetchone()[0]

    before = so_far()
    session.execute(statement)
    return so_far() - before


def test_beside_an_open_transaction_a_claim_reads_none_of_what_was_settled(mails):
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => 1000)")
    with mails.connect(autocommit=False) as old, mails.connect() as session:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT pg_current_xact_id()")
        for _ in range(3):
            mails.sql("SELECT count(*) FROM pushy.enqueue_many('mails', array_fill('{}'::jsonb, ARRAY[1000]))")
            settled = mails.value(
                "SELECT pushy.jobs_settle(jsonb_agg(jsonb_build_object('job_id', job_id, 'token', token, 'outcome', 'complete'))) FROM pushy.job_claim('mails', 1000)")
            assert settled == 1000
        enqueue(mails, 3)
        assert entries_read(session, "SELECT pushy.job_claim('mails')") < MANY
        assert entries_read(session, "SELECT pushy.job_claim('mails', worker => 'w')") < MANY
        assert entries_read(session, "CALL pushy.job_claim_wait('mails', '0')") < MANY


def room(db) -> int:
    """How many may be leased now; what it asks is rolled back."""
    with db.connect(autocommit=False) as session:
        session.execute("SELECT count(*) FROM pushy.enqueue_many('mails', array_fill('{}'::jsonb, ARRAY[10]))")
        session.commit()
        found = len(session.execute("SELECT FROM pushy.job_claim('mails', 100)").fetchall())
        session.rollback()
    return found


def leased(db) -> int:
    return db.value("SELECT count(*) FROM pushy_internal.lease")


WAYS = {
    "complete": "SELECT pushy.job_complete(%(job)s, %(token)s)",
    "fail": "SELECT pushy.job_fail(%(job)s, %(token)s)",
    "discard": "SELECT pushy.job_fail(%(job)s, %(token)s, discard => true)",
    "release": "SELECT pushy.job_release(%(job)s, %(token)s)",
    "snooze": "SELECT pushy.job_release(%(job)s, %(token)s, '1 hour')",
    "cancel": "SELECT pushy.job_cancel(%(job)s), %(token)s::uuid",
    "extend": "SELECT pushy.job_extend(%(job)s, %(token)s)",
    "twice": "SELECT pushy.job_complete(%(job)s, %(token)s), pushy.job_complete(%(job)s, %(token)s)",
}


@pytest.mark.parametrize("way", WAYS)
def test_there_is_room_for_as_many_as_have_ended_whichever_way(mails, way):
    enqueue(mails, 4)
    assert room(mails) == 4
    held = claim(mails, 3)
    assert room(mails) == 1
    said = [{"job": job, "token": token} for job, token in held]
    with mails.connect(autocommit=False) as session:
        session.execute(WAYS[way], said[0])
        session.rollback()
        assert room(mails) == 1
        session.execute("SAVEPOINT s")
        session.execute(WAYS[way], said[0])
        session.execute("ROLLBACK TO s")
        session.execute("SAVEPOINT t")
        session.execute(WAYS[way], said[1])
        session.execute("RELEASE t")
        session.execute(WAYS[way], said[2])
        # In the same transaction there is room at once.
        here = len(session.execute("SELECT FROM pushy.job_claim('mails', 100)").fetchall())
        assert here == (1 if way == "extend" else 3)
        session.commit()
    assert leased(mails) == 4 and room(mails) == 0


def test_claims_that_are_rolled_back_were_never_counted(mails):
    enqueue(mails, 4)
    assert room(mails) == 4
    with mails.connect(autocommit=False) as session:
        session.execute("SAVEPOINT s")
        session.execute("SELECT pushy.job_claim('mails', 2)")
        session.execute("ROLLBACK TO s")
        assert len(session.execute("SELECT FROM pushy.job_claim('mails', 1)").fetchall()) == 1
        session.commit()
    assert leased(mails) == 1 and room(mails) == 3


def test_leases_that_end_by_themselves_make_room(mails):
    enqueue(mails, 4)
    assert room(mails) == 4
    claim(mails, 2, lease="0.3 s")
    with mails.connect() as session:
        session.execute("SELECT pushy.job_claim('mails', 2, '0')")
        assert room(mails) == 0
        mails.wait_until("SELECT count(*) FROM pushy_internal.lease", 2)
        assert room(mails) == 2
    mails.wait_until("SELECT count(*) FROM pushy_internal.lease", 0)
    assert room(mails) == 4


def test_a_limit_that_is_set_later_counts_what_was_leased_without(mails):
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => 0)")
    enqueue(mails, 4)
    claim(mails, 3)
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => 4)")
    assert room(mails) == 1


@pytest.mark.parametrize("how", ["restarts", "crashes"])
def test_a_server_that_starts_counts_anew(make_cluster, how):
    db = make_cluster({"pushy.synchronous_commit": "on"}).database()
    db.sql("SELECT pushy.queue_register('mails', concurrency => 4)")
    enqueue(db, 4)
    claim(db, 3, lease="1 hour")
    assert room(db) == 1
    db.cluster.restart() if how == "restarts" else db.cluster.crash()
    assert room(db) == 1


def test_a_prepared_completion_makes_room_with_its_end(make_cluster):
    db = make_cluster({"max_prepared_transactions": 5}).database()
    db.sql("SELECT pushy.queue_register('mails', concurrency => 4)")
    enqueue(db, 4)
    held = claim(db, 4, lease="1 hour")
    assert room(db) == 0
    with db.connect() as session:
        for number, (job, token) in enumerate(held[:2]):
            session.execute("BEGIN")
            session.execute("SELECT pushy.job_complete(%s, %s)", (job, token))
            session.execute(f"PREPARE TRANSACTION 'p{number}'")
        assert room(db) == 0
        session.execute("ROLLBACK PREPARED 'p0'")
        assert room(db) == 0
        session.execute("COMMIT PREPARED 'p1'")
        assert room(db) == 1
        db.cluster.restart()
    assert room(db) == 1


def test_a_claim_that_was_undone_keeps_nobody_from_preparing(make_cluster):
    db = make_cluster({"max_prepared_transactions": 5}).database()
    db.sql("SELECT pushy.queue_register('mails')")
    enqueue(db, 2)
    [(job, token)] = claim(db)
    with db.connect(autocommit=False) as session:
        for said in ("SELECT pushy.job_claim('mails')", f"SELECT pushy.job_extend({job}, '{token}')"):
            session.execute("SAVEPOINT s")
            session.execute(said)
            session.execute("ROLLBACK TO s")
        session.execute("SELECT pushy.job_complete(%s, %s)", (job, token))
        session.execute("PREPARE TRANSACTION 'p'")
        session.execute("SAVEPOINT s")
        session.execute("SELECT pushy.job_claim('mails')")
        session.execute("RELEASE s")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="claimed jobs or extended"):
            session.execute("PREPARE TRANSACTION 'q'")
    db.main.execute("COMMIT PREPARED 'p'")
    assert state(db, job) == "completed"


def test_those_who_come_and_go_keep_the_count_right(mails):
    """Six at once, each ending what it holds in another way: when all rest, there is room for as many as are not leased."""
    assert room(mails) == 4
    wrong = []

    def work(number: int) -> None:
        with mails.connect(autocommit=False) as session:
            for turn in range(60):
                held = session.execute("SELECT job_id, token FROM pushy.job_claim('mails', 2, '1 hour')").fetchall()
                if turn % 7 == number:
                    session.rollback()
                    continue
                session.commit()
                if session.execute("SELECT count(*) FROM pushy.leases").fetchone()[0] > 4:
                    wrong.append(turn)
                for job, token in held:
                    ways = [way for way in WAYS if way not in ("extend", "snooze")]
                    session.execute(WAYS[ways[(turn + number) % len(ways)]], {"job": job, "token": token})
                if turn % 5 == number:
                    session.rollback()
                session.commit()

    mails.sql("SELECT count(*) FROM pushy.enqueue_many('mails', array_fill('{}'::jsonb, ARRAY[2000]))")
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert room(mails) == 4 - leased(mails)


# -- a queue that had a handler ----------------------------------------------------------------------------------

HANDLERS = {
    "function": "CREATE FUNCTION work(jsonb) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(1), pg_advisory_unlock(1)'",
    "procedure": "CREATE PROCEDURE work(jsonb) LANGUAGE plpgsql AS 'BEGIN COMMIT; PERFORM pg_advisory_lock(1), pg_advisory_unlock(1); END'",
}


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_an_executor_has_begun_counts_until_it_ends(db, handler):
    """The jobs of a queue with concurrency 1 run one after the other, also where its handler is taken away meanwhile."""
    db.sql(HANDLERS[handler])
    with db.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(1)")
        db.sql("SELECT pushy.queue_register('mails', 'work(jsonb)', concurrency => 1)")
        first, second = enqueue(db, 2)
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'", 1)
        db.sql("SELECT pushy.queue_register('mails', concurrency => 1)")
        assert claim(db) == []
        if handler == "function":
            assert db.value("SELECT reason FROM pushy.queue_explain('mails')").startswith("executors are at work on jobs that they began when the queue had a handler")
        session, seen = db.connect(), []
        waiter = threading.Thread(target=lambda: seen.append(session.execute("CALL pushy.job_claim_wait('mails', '60 s')").fetchone()[0]))
        waiter.start()
        db.wait_until("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", "Extension", params=(session.info.backend_pid,))
        holder.execute("SELECT pg_advisory_unlock(1)")
        waiter.join(60)
    assert seen == [True]
    assert db.job_wait(first)["state"] == "completed"
    assert [job for job, _ in claim(db)] == [second]


def test_what_a_session_runs_by_hand_counts_until_it_ends(db, role):
    db.sql("CREATE FUNCTION work(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('mails', 'work(jsonb)', concurrency => 1); SELECT pushy.queue_pause('mails')")
    first, second = enqueue(db, 2)
    with db.connect(autocommit=False) as session:
        assert session.execute("SELECT pushy.queue_run('mails', 1)").fetchone() == (1,)
        db.sql("SELECT pushy.queue_register('mails', concurrency => 1); SELECT pushy.queue_resume('mails')")
        assert claim(db) == []
        session.commit()
    wait_for("room for the next", lambda: claim(db), lambda held: [job for job, _ in held] == [second])
    assert state(db, first) == "completed"
