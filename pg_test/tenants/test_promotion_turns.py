"""Due jobs are made ready by turns of the queues' owners: one tenant's hundred thousands, due or expired, delay nobody else's."""

import pytest

from harness.waiting import PATIENCE

MANY = 150_000


@pytest.fixture
def tenants(make_cluster):
    """A server of its own, because the flood is everybody's; two tenants with a queue each."""
    cluster = make_cluster({"pushy.max_executors": 2, "max_worker_processes": 16})
    db = cluster.database()
    db.sql("CREATE ROLE mallory LOGIN; CREATE ROLE victim LOGIN; GRANT USAGE ON SCHEMA pushy TO mallory, victim;"
           "CREATE SCHEMA mallory AUTHORIZATION mallory; CREATE SCHEMA victim AUTHORIZATION victim")
    db.sessions = {name: cluster.connect(db.name, name) for name in ("mallory", "victim")}
    for name, session in db.sessions.items():
        session.execute(f"CREATE FUNCTION {name}.f(jsonb) RETURNS void LANGUAGE sql AS ''")
        session.execute(f"SELECT pushy.queue_register('{name}', '{name}.f(jsonb)', keep_discarded => '2 s')")
    return db


def late(db, run_at: str) -> float:
    victim = db.sessions["victim"]
    job = victim.execute(f"SELECT pushy.enqueue('victim', run_at => {run_at})").fetchone()[0]
    assert victim.execute("SELECT (pushy.job_wait(%s, '60 s')).state", (job,)).fetchone() == ("completed",)
    return victim.execute("SELECT extract(epoch FROM started_at - run_at)::float FROM pushy.jobs WHERE id = %s", (job,)).fetchone()[0]


@pytest.mark.parametrize("state", ["paused", "running"])
def test_a_strangers_flood_of_due_jobs_delays_nobody(tenants, state):
    db = tenants
    mallory = db.sessions["mallory"]
    if state == "paused":
        mallory.execute("SELECT pushy.queue_pause('mallory')")
    due = mallory.execute("SELECT clock_timestamp() + '10 s'").fetchone()[0]
    mallory.execute(f"SELECT count(*) FROM pushy.enqueue_many('mallory', array_fill('{{}}'::jsonb, ARRAY[{MANY}]), run_at => %s)", (due,))
    waiting = "SELECT count(*) FROM pushy_internal.live_job WHERE position IS NULL"
    assert db.value(waiting) == MANY
    delays = [late(db, f"'{due}'::timestamptz + '50 ms'")]
    # And while the flood is being made ready.
    while db.value(waiting) > 0:
        delays.append(late(db, "clock_timestamp() + '20 ms'"))
    assert len(delays) > 2 and max(delays) < 3 * PATIENCE, delays
    # In the order of their times and numbers, none forgotten.
    assert db.value("SELECT count(*) FROM (SELECT position < lag(position) OVER (ORDER BY run_at, id) AS wrong FROM pushy_internal.live_job) j WHERE wrong") == 0
    if state == "running":
        db.jobs_wait("mallory")


def test_a_strangers_flood_of_expired_jobs_delays_nobody(tenants):
    db = tenants
    mallory = db.sessions["mallory"]
    mallory.execute("SELECT pushy.queue_pause('mallory')")
    # As if so many had been cancelled.
    db.sql("""INSERT INTO pushy_internal.finished_job (id, expires_at, run_at, enqueued_at, finished_at, queue_id, enqueued_by, attempt, priority, depth, state, args)
              SELECT 1000000000 + n, clock_timestamp() + '2 s', now(), now(), now(), q.queue_id, q.owner, 0, 5, 0, 'k', '{}'
                FROM generate_series(1, %s) n, pushy_internal.queue q WHERE q.queue = 'mallory'""", MANY)
    mallory.execute("SELECT pushy.job_cancel(pushy.enqueue('mallory'))")
    kept = "SELECT count(*) FROM pushy_internal.finished_job WHERE state = 'k'"
    assert db.value(kept) >= MANY
    delays = []
    while db.value(kept) > 0:
        delays.append(late(db, "clock_timestamp() + '20 ms'"))
    assert len(delays) > 2 and max(delays) < 3 * PATIENCE, delays


def test_what_somebody_holds_waits_and_nothing_else(tenants):
    """A job that is held when its owner's turn comes is made ready when it is let go."""
    db = tenants
    mallory = db.sessions["mallory"]
    mallory.execute("SELECT pushy.queue_pause('mallory')")
    held = mallory.execute("SELECT pushy.enqueue('mallory', delay => '3 s')").fetchone()[0]
    mallory.execute("SELECT count(*) FROM pushy.enqueue_many('mallory', array_fill('{}'::jsonb, ARRAY[5000]), delay => '2 s')")
    with db.connect(autocommit=False) as session:
        session.execute("SELECT id FROM pushy_internal.live_job WHERE id = %s FOR UPDATE", (held,))
        db.wait_until("SELECT array_agg(id) FROM pushy_internal.live_job WHERE position IS NULL", [held])
        explained = mallory.execute("SELECT pushy.queue_resume('mallory')") and db.wait_until_told(
            "mallory", f"1 due job is locked by the transaction of process {session.info.backend_pid}")
        assert explained
        session.rollback()
    db.jobs_wait("mallory")
