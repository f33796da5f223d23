"""COMMIT PREPARED and ROLLBACK PREPARED: nobody is disturbed for a transaction that had nothing to do with Pushy, and workers that
were kept out for one come back."""

import pytest

from stage.life import LEDGER


@pytest.fixture
def db2(db):
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)'); CREATE TABLE foreign_matter (n int)")
    db.job_wait(db.value("SELECT pushy.enqueue('q', '1')"))
    return db


def prepare(db, name: str, *statements: str) -> None:
    with db.connect(autocommit=False) as session:
        for statement in statements:
            session.execute(statement)
        session.execute(f"PREPARE TRANSACTION '{name}'")


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("statement", ["ALTER EXTENSION pushy UPDATE", "DROP EXTENSION pushy CASCADE"])
def test_workers_kept_out_by_a_prepared_transaction_come_back_with_its_end(db2, end, statement):
    for turn in (1, 2):
        name = f"{end} {statement} {turn} {db2.name}"
        prepare(db2, name, statement)
        db2.sql(f"{end} PREPARED '{name}'")
        if end == "COMMIT" and not statement.startswith("ALTER"):
            db2.sql("CREATE EXTENSION pushy; SELECT pushy.queue_register('q', 'note(jsonb)')")
        assert db2.job_wait(db2.value("SELECT pushy.enqueue('q', '2')"))["state"] == "completed"


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_the_end_of_a_foreign_transaction_calls_no_scheduler(db2, end):
    # The one that the first job called has come, and goes.
    db2.job_wait(db2.value("SELECT pushy.enqueue('q', '1', delay => '100 ms')"))
    db2.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy scheduler' AND datname = current_database()", 0)
    since = db2.value("SELECT pg_current_wal_insert_lsn()")
    schedulers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy scheduler' AND datname = current_database()"
    for n in range(20):
        prepare(db2, f"{db2.name} {n}", f"INSERT INTO foreign_matter VALUES ({n})")
        db2.sql(f"{end} PREPARED '{db2.name} {n}'")
        assert db2.value(schedulers) == 0
    assert db2.value("SELECT pg_current_wal_insert_lsn() > %s", since)
    # One that has only enqueued is announced by who ends it, and nobody looks through the table.
    for n in range(5):
        prepare(db2, f"{db2.name} {n}", "SELECT pushy.enqueue('q', '7')")
        db2.sql(f"{end} PREPARED '{db2.name} {n}'")
        assert db2.value(schedulers) == 0
        if end == "COMMIT":
            db2.wait_until("SELECT count(*) FROM ledger WHERE n = 7", n + 1)
    assert db2.value(schedulers) == 0


MANY = 12


def test_what_a_prepared_transaction_makes_ready_waits_for_no_sweep(db2):
    """Though one has just been, and the next rests for as long."""
    for n in range(MANY):
        db2.sql(f"SELECT pushy.queue_register('many{n}', 'note(jsonb)')")
    with db2.connect(autocommit=False) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()")
        other = db2.connect(autocommit=False)
        other.execute("SELECT count(*) FROM pushy.enqueue_many('q', array_fill('{}'::jsonb, ARRAY[200000]))")
        other.rollback()
        other.close()
        job = db2.value("SELECT pushy.enqueue('q', '1', delay => '1 day')")
        for statement, n, count in [
            ("SELECT pushy.enqueue('q', '20')", 20, 1),
            ("SELECT pushy.enqueue('q', '21', priority => 3), pushy.enqueue('many1', '21')", 21, 2),
            ("SELECT pushy.enqueue('q', '22', delay => '1 ms')", 22, 1),
            # Of more queues than are noted.
            (f"SELECT pushy.enqueue('many' || n, '23') FROM generate_series(0, {MANY - 1}) n", 23, MANY),
            (f"SELECT pushy.job_retry({job}), pushy.enqueue('q', '24')", 24, 1),
        ]:
            db2.sql("SELECT * FROM pushy.resume_after_restore()")
            prepare(db2, db2.name, statement)
            db2.sql(f"COMMIT PREPARED '{db2.name}'")
            db2.wait_until("SELECT count(*) FROM ledger WHERE n = %s", count, params=(n,), deadline=5)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_job_that_a_prepared_transaction_held_runs_when_that_has_ended(db2, end):
    """A job that it was answered by its unique key, and one that it has cancelled: free, or gone."""
    db2.sql("SELECT pushy.queue_pause('q')")
    asked = db2.value("SELECT pushy.enqueue('q', '30', unique_key => 'k')")
    cancelled = db2.value("SELECT pushy.enqueue('q', '31')")
    prepare(db2, db2.name, "SELECT pushy.enqueue('q', '30', unique_key => 'k')", f"SELECT pushy.job_cancel({cancelled})")
    db2.sql("SELECT pushy.queue_resume('q')")
    assert db2.job_wait(db2.value("SELECT pushy.enqueue('q', '32')"))["state"] == "completed"
    assert db2.value("SELECT count(*) FROM ledger WHERE n IN (30, 31)") == 0
    db2.sql(f"{end} PREPARED '{db2.name}'")
    assert db2.job_wait(asked)["state"] == "completed"
    assert db2.job_wait(cancelled)["state"] == ("cancelled" if end == "COMMIT" else "completed")


def test_a_queue_that_is_dropped_while_jobs_of_it_are_prepared_leaves_none(db2):
    db2.sql("SELECT pushy.queue_register('gone', 'note(jsonb)')")
    prepare(db2, db2.name, "SELECT pushy.enqueue('gone', '40'), pushy.enqueue('q', '41')")
    db2.sql("SELECT pushy.queue_drop('gone')")
    db2.sql(f"COMMIT PREPARED '{db2.name}'")
    db2.wait_until("SELECT count(*) FROM ledger WHERE n = 41", 1)
    db2.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0)


def test_a_name_that_is_used_twice_at_a_time_and_again(db2):
    name = db2.name
    prepare(db2, name, "ALTER EXTENSION pushy UPDATE")
    with db2.connect(autocommit=False) as session:
        session.execute("INSERT INTO foreign_matter VALUES (1)")
        with pytest.raises(Exception, match="already in use"):
            session.execute(f"PREPARE TRANSACTION '{name}'")
        session.rollback()
    db2.sql(f"ROLLBACK PREPARED '{name}'")
    assert db2.job_wait(db2.value("SELECT pushy.enqueue('q', '3')"))["state"] == "completed"
    prepare(db2, name, "INSERT INTO foreign_matter VALUES (1)")
    db2.sql(f"COMMIT PREPARED '{name}'")


def test_attempts_to_prepare_that_are_refused_take_nothing_from_one_that_succeeded(db2):
    """Hundreds of them, and workers come back all the same."""
    prepare(db2, f"keep {db2.name}", "DROP EXTENSION pushy CASCADE")
    with db2.connect(autocommit=False) as session:
        for n in range(300):
            session.execute("CREATE TEMP TABLE of_this_session (n int)")
            with pytest.raises(Exception, match="temporary"):
                session.execute(f"PREPARE TRANSACTION '{db2.name} {n}'")
            session.rollback()
    db2.sql(f"ROLLBACK PREPARED 'keep {db2.name}'")
    assert db2.job_wait(db2.value("SELECT pushy.enqueue('q', '3')"))["state"] == "completed"


def test_more_transactions_are_prepared_at_a_time_than_a_server_takes(make_cluster):
    """Each is known by its name until its end, also while others are refused for want of room."""
    cluster = make_cluster({"max_prepared_transactions": 3})
    db = cluster.database()
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)'); CREATE TABLE foreign_matter (n int)")
    for turn in range(5):
        prepare(db, "quiet", "ALTER EXTENSION pushy UPDATE")
        for n in (1, 2):
            prepare(db, f"n{n}", f"INSERT INTO foreign_matter VALUES ({n})")
        for n in range(100):
            with pytest.raises(Exception, match="maximum number"):
                prepare(db, f"m{n}", "INSERT INTO foreign_matter VALUES (3)")
        for name in ("n1", "quiet", "n2"):
            db.sql(f"ROLLBACK PREPARED '{name}'")
        assert db.job_wait(db.value("SELECT pushy.enqueue('q', %s)", str(turn)))["state"] == "completed"
