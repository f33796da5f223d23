"""Leases that are over are ended by turns: one tenant's flood of them, or some that somebody holds, delays nobody else's."""

import pytest

from harness.waiting import PATIENCE

MANY = 40_000


@pytest.fixture
def tenants(make_cluster):
    """A server of its own, because the flood is everybody's; two tenants, each with a queue of workers outside, and one with a handler too."""
    cluster = make_cluster({"pushy.max_executors": 2, "max_worker_processes": 16})
    db = cluster.database()
    db.sql("CREATE ROLE mallory LOGIN; CREATE ROLE victim LOGIN; GRANT USAGE ON SCHEMA pushy TO mallory, victim; CREATE SCHEMA victim AUTHORIZATION victim")
    for name in ("mallory", "victim"):
        db.connect(name).execute(f"SELECT pushy.queue_register('{name}', retry_delay => '1 h')")
    db.connect("victim").execute("CREATE FUNCTION victim.f(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('inside', 'victim.f(jsonb)')")
    return db


def claim(session, queue: str, count: int, lease: str) -> None:
    session.execute("SELECT count(*) FROM pushy.enqueue_many(%s, array_fill('{}'::jsonb, ARRAY[%s]))", (queue, count))
    session.commit()
    for _ in range(count // 1000):
        assert session.execute("SELECT count(*) FROM pushy.job_claim(%s, 1000, %s)", (queue, lease)).fetchone() == (1000,)


def late(victim) -> float:
    job = victim.execute("SELECT pushy.enqueue('inside', delay => '20 ms')").fetchone()[0]
    assert victim.execute("SELECT (pushy.job_wait(%s, '60 s')).state", (job,)).fetchone() == ("completed",)
    return victim.execute("SELECT extract(epoch FROM started_at - run_at)::float FROM pushy.jobs WHERE id = %s", (job,)).fetchone()[0]


@pytest.mark.parametrize("lease", ["1 s", "0"])
def test_a_strangers_flood_of_leases_that_end_delays_no_jobs(tenants, lease):
    db = tenants
    victim = db.connect("victim")
    # In one transaction, so that all end at once.
    mallory = db.connect("mallory", autocommit=False)
    claim(mallory, "mallory", MANY, lease)
    mallory.commit()
    mallory.close()
    held = "SELECT count(*) FROM pushy_internal.lease"
    db.wait_until(f"SELECT ({held}) < %s", params=(MANY,))
    delays = []
    while db.value(held) > 0:
        delays.append(late(victim))
    assert len(delays) > 2 and max(delays) < 3 * PATIENCE, delays
    assert db.value("SELECT count(*) FROM pushy.failures WHERE queue = 'mallory'") == MANY


@pytest.mark.parametrize("lease", ["5 s", "0"])
def test_leases_of_which_somebody_holds_the_jobs_keep_no_others(tenants, lease):
    db = tenants
    mallory = db.connect("mallory", autocommit=False)
    claim(mallory, "mallory", 3000, lease)
    with db.connect(autocommit=False) as holder:
        mallory.commit()
        taken = holder.execute("SELECT count(*) FROM (SELECT FROM pushy_internal.live_job FOR UPDATE) j").fetchone()[0]
        mallory.close()
        assert taken == 3000
        victim = db.connect("victim", autocommit=False)
        claim(victim, "victim", 1000, lease)
        victim.commit()
        victim.close()
        db.wait_until("SELECT count(*) FROM pushy_internal.lease", 3000, deadline=20)
        holder.rollback()
    db.wait_until("SELECT count(*) FROM pushy_internal.lease", 0, deadline=20)
