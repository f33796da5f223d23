"""Who holds what every new session of a database needs keeps that database's jobs waiting, and no other's."""

import contextlib
import time

import pytest

from harness.waiting import DEADLINE, PATIENCE

# As capacity::START_US: a start that takes longer is ended.
START = 10

WORKERS = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE %s AND datname = %s"


@contextlib.contextmanager
def closed(db):
    """Nobody connects to the database any more: there is no file of the relation cache, and pg_class cannot be read. The
    database's owner can do as much with VACUUM FULL pg_class while somebody else's transaction has read it."""
    with db.connect() as session:
        session.execute("VACUUM FULL pg_attribute")
        session.execute("BEGIN")
        session.execute("LOCK pg_class IN ACCESS EXCLUSIVE MODE")
        yield
        session.execute("ROLLBACK")


def enabled(db, value: str) -> None:
    db.sql(f"ALTER SYSTEM SET pushy.enabled = {value}")
    db.sql("SELECT pg_reload_conf()")
    db.wait_until("SELECT current_setting('pushy.enabled')", value)
    if value == "off":
        # From then on the launcher starts nobody; those whom it has started before leave.
        db.wait_until("SELECT state FROM pushy.workers WHERE kind = 'launcher'", "off")
        db.wait_until("SELECT count(*) FROM pushy.workers WHERE kind <> 'launcher'", 0)
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^pushy (executor|scheduler|relay)'", 0)


def tenants(make_cluster, settings: dict):
    cluster = make_cluster(settings)
    db, other = cluster.database(), cluster.database()
    for each in (db, other):
        each.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''")
    for role in ("one", "two", "three"):
        db.sql(f"CREATE ROLE {role} LOGIN")
        db.sql("SELECT pushy.queue_register(%s, 'work()', run_as => %s)", role, role)
    other.sql("SELECT pushy.queue_register('q', 'work()')")
    # An executor has looked into the new queue: none comes for it later, and takes the place of one that a test waits for.
    assert other.job_wait(other.value("SELECT pushy.enqueue('q')"))["state"] == "completed"
    return db, other


def test_starts_that_hang_in_one_database_keep_no_other_waiting_and_are_ended(make_cluster):
    db, other = tenants(make_cluster, {"pushy.max_executors": 2, "pushy.reserved_executors": 1})
    enabled(other, "off")
    jobs = [db.value("SELECT pushy.enqueue(%s)", role) for role in ("one", "two", "three")]
    with closed(db):
        enabled(other, "on")
        other.wait_until("SELECT count(*) FROM pushy.workers WHERE kind = 'executor' AND state = 'starting' AND database = %s" % literal(db), 2)
        job = other.value("SELECT pushy.enqueue('q')")
        done = other.job_wait(job)
        assert done["state"] == "completed"
        assert (done["started_at"] - done["enqueued_at"]).total_seconds() < 1.5 * PATIENCE
        # Executors and the scheduler: each is ended, and tried again less and less often.
        hung = hanging(other, db)
        assert len(hung) >= 2
        other.wait_until("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", 0, deadline=START + DEADLINE, params=(hung,))
        db.cluster.log.wait_for("did not come up within 10 s")
        other.wait_until("SELECT count(*) < 2 FROM pushy.workers WHERE kind = 'executor' AND database = %s" % literal(db))
        assert other.job_wait(other.value("SELECT pushy.enqueue('q')"))["state"] == "completed"
    for job in jobs:
        assert db.job_wait(job, deadline=60 + DEADLINE)["state"] == "completed"


def hanging(other, db) -> list[int]:
    """What comes to the database and has not connected: pg_stat_activity does not say where it goes."""
    return [pid for pid, in other.rows("SELECT pid FROM pushy.workers WHERE database = %s AND pid IS NOT NULL", db.name)]


def literal(db) -> str:
    return "'" + db.name + "'"


def test_a_start_that_hangs_outlives_the_launcher_and_shares_its_slot_with_nobody(make_cluster):
    db, other = tenants(make_cluster, {"pushy.max_executors": 2, "pushy.reserved_executors": 1})
    enabled(other, "off")
    job = db.value("SELECT pushy.enqueue('one')")
    with closed(db):
        enabled(other, "on")
        other.wait_until("SELECT count(*) > 0 FROM pushy.workers WHERE kind = 'executor' AND state = 'starting' AND pid IS NOT NULL AND database = %s" % literal(db))
        hung = other.value("SELECT min(pid) FROM pushy.workers WHERE kind = 'executor' AND database = %s", db.name)
        launcher = other.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pushy launcher'")
        other.sql("SELECT pg_terminate_backend(%s)", launcher)
        other.wait_until(f"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy launcher' AND pid <> {launcher}", 1)
        # Nobody has a handle of it, and it is ended all the same.
        other.wait_until(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {hung}", 0, deadline=START + DEADLINE)
        assert other.job_wait(other.value("SELECT pushy.enqueue('q')"))["state"] == "completed"
    assert db.job_wait(job, deadline=60 + DEADLINE)["state"] == "completed"
    for pid, in db.rows(WORKERS, "pushy executor", db.name):
        db.sql("SELECT pg_terminate_backend(%s)", pid)
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy executor' AND datname = current_database()", 0)
    db.drop()


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_prepared_rename_keeps_workers_out_of_the_other_database_until_it_ends(make_cluster, end):
    db, other = tenants(make_cluster, {"pushy.max_executors": 1, "pushy.reserved_executors": 0})
    enabled(other, "off")
    jobs = [db.value("SELECT pushy.enqueue(%s)", role) for role in ("one", "two")]
    name, new = db.name, db.name + "_new"
    db.close()
    with other.connect(autocommit=False) as session:
        session.execute(f'ALTER DATABASE "{name}" RENAME TO "{new}"')
        session.execute("PREPARE TRANSACTION 'renamed'")
    enabled(other, "on")
    for _ in range(3):
        assert other.job_wait(other.value("SELECT pushy.enqueue('q')"))["state"] == "completed"
    assert other.rows(WORKERS, "pushy%", name) == []
    other.sql(f"{end} PREPARED 'renamed'")
    with db.cluster.connect(new if end == "COMMIT" else name) as session:
        until = time.monotonic() + DEADLINE
        while session.execute("SELECT count(*) FROM pushy.jobs WHERE id = ANY(%s) AND state = 'completed'", (jobs,)).fetchone() != (2,):
            assert time.monotonic() < until
            time.sleep(0.05)
