"""A queue is dropped while others enqueue: a committed job has its queue, or was deleted with it by force."""

import psycopg
import pytest

from harness.refusal import refused
from stage.watching import paused_queue, watch


@pytest.fixture
def two(db):
    """Two sessions in transactions: one enqueues, the other drops."""
    paused_queue(db)
    return db, db.connect(autocommit=False), db.connect(autocommit=False)


def refuses_commit(session, sqlstate: str, *says: str) -> None:
    refused(session, "COMMIT", sqlstate, *says)
    session.rollback()


def left(db) -> int:
    return db.value("SELECT count(*) FROM pushy_internal.live_job")


@pytest.mark.parametrize("enqueue", ["SELECT pushy.enqueue('q')", "SELECT pushy.enqueue('q', delay => '1 hour')",
                                     "SELECT pushy.enqueue('q', unique_key => 'k')", "SELECT pushy.enqueue_many('q', '{1,2}')"])
@pytest.mark.parametrize("force", [False, True])
def test_jobs_whose_queue_is_dropped_before_they_commit_fail_their_transaction(two, enqueue, force):
    db, adder, dropper = two
    adder.execute(enqueue)
    dropper.execute(f"SELECT pushy.queue_drop('q', force => {force})")
    dropper.commit()
    refuses_commit(adder, "42704", 'queue "q" does not exist', "dropped after")
    assert left(db) == 0


def test_jobs_that_commit_while_their_queue_is_being_dropped_fail_and_may_try_again(two):
    db, adder, dropper = two
    dropper.execute("SELECT pushy.queue_drop('q')")
    adder.execute("SELECT pushy.enqueue('q')")
    refuses_commit(adder, "55006", 'queue "q" is being dropped', "Try again")
    dropper.rollback()
    adder.execute("SELECT pushy.enqueue('q')")
    adder.commit()
    assert left(db) == 1


@pytest.mark.parametrize("end", ["ROLLBACK TO a", "ROLLBACK TO a; RELEASE a", "ROLLBACK"])
def test_a_drop_that_is_undone_lets_jobs_in_again(two, end):
    db, adder, dropper = two
    dropper.execute("SAVEPOINT a; SELECT pushy.queue_drop('q'); " + end)
    adder.execute("SELECT pushy.enqueue('q')")
    adder.commit()
    assert left(db) == 1
    dropper.rollback()


def test_a_drop_that_is_refused_lets_jobs_in_again(two):
    db, adder, dropper = two
    for expected in (1, 2):
        adder.execute("SELECT pushy.enqueue('q')")
        adder.commit()
        assert left(db) == expected
        refused(dropper, "SELECT pushy.queue_drop('q')", "55006", "unfinished")
        dropper.rollback()


def test_a_drop_by_an_old_snapshot_sees_the_jobs_of_others(db):
    paused_queue(db)
    with db.connect(autocommit=False, options="-c default_transaction_isolation=serializable") as dropper:
        dropper.execute("SELECT pg_current_snapshot()")
        db.sql("SELECT pushy.enqueue('q')")
        refused(dropper, "SELECT pushy.queue_drop('q')", "55006", "1 unfinished")
        dropper.rollback()


def test_a_transaction_that_enqueues_and_drops_by_force_keeps_nothing(two):
    db, adder, _ = two
    adder.execute("SELECT pushy.enqueue('q'); SELECT pushy.queue_drop('q', force => true)")
    adder.commit()
    assert left(db) == 0


def test_a_watched_write_never_fails_for_its_queue(two):
    db, writer, dropper = two
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    watch(db, "t", queue="q")
    writer.execute("INSERT INTO t VALUES (1)")
    since = db.cluster.log.position()
    dropper.execute("SELECT pushy.queue_drop('q', force => true)")
    dropper.commit()
    writer.commit()
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0)
    db.cluster.log.wait_for("jobs were discarded because their queue was dropped: 1", since)


def test_one_statement_that_drops_and_registers_a_watched_queue_feeds_the_new_one(db):
    paused_queue(db)
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    watch(db, "t", queue="q")
    db.sql("""
        DO $$ BEGIN
          INSERT INTO t VALUES (1);
          PERFORM pushy.queue_drop('q', force => true);
          PERFORM pushy.queue_register('q', 'nothing()'), pushy.queue_pause('q');
          INSERT INTO t VALUES (2);
        END $$""")
    assert db.rows("SELECT args #> '{key,id}' FROM pushy.jobs WHERE queue = 'q'") == [(2,)]


def test_what_a_prepared_transaction_adds_to_a_dropped_queue_is_discarded_and_said(db):
    paused_queue(db)
    db.sql("BEGIN; SELECT pushy.enqueue('q'); PREPARE TRANSACTION 'p'")
    db.sql("SELECT pushy.queue_drop('q', force => true)")
    since = db.cluster.log.position()
    db.sql("COMMIT PREPARED 'p'")
    db.cluster.log.wait_for("jobs were discarded because their queue was dropped: 1", since)
    # It is said in the transaction that discards them, which commits next.
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0)


def test_orphans_on_more_pages_than_are_looked_at_in_a_round_are_all_found_while_due_jobs_go_on(db):
    db.sql("CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('gone', 'work(jsonb)'), pushy.queue_register('q', 'work(jsonb)')")
    with db.connect(autocommit=False) as session:
        # Three to a page, of which a round looks at 512.
        session.execute("SELECT count(*) FROM pushy.enqueue_many('gone', ARRAY(SELECT jsonb_build_object('x', string_agg(md5(random()::text), '')) "
                        "FROM generate_series(1, 4000) n, generate_series(1, 55) GROUP BY n))")
        session.execute(f"PREPARE TRANSACTION '{db.name}'")
    db.sql("ALTER TABLE pushy_internal.live_job SET (autovacuum_enabled = false)")
    assert db.value("SELECT pg_relation_size('pushy_internal.live_job') / 8192") > 2 * 512
    db.sql("SELECT pushy.queue_drop('gone')")
    db.sql(f"COMMIT PREPARED '{db.name}'")
    left = "SELECT count(*) FROM pushy_internal.live_job l WHERE NOT EXISTS (SELECT FROM pushy_internal.queue q WHERE q.queue_id = l.queue_id)"
    beside = 0
    while beside < 2000 and db.value(left) > 0:
        assert db.job_wait(db.value("SELECT pushy.enqueue('q', delay => '1 ms')"))["state"] == "completed"
        beside += 1
    assert db.value(left) == 0 and beside > 0
    assert db.value("SELECT count(*) FROM pushy_internal.failure WHERE message = 'the job''s queue was dropped'") == 4000
