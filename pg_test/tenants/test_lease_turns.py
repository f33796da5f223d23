"""Leases that are over are ended by turns: one tenant's flood of them, or some that somebody holds, delays nobody else's."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

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


OUT = "SELECT count(*) FROM pushy_internal.lease l JOIN pushy_internal.queue q USING (queue_id) WHERE q.queue = %s"
LATER = "SELECT count(*) FROM pushy.failures WHERE queue = 'mallory' AND failed_at > (SELECT max(failed_at) FROM pushy.failures WHERE queue = 'victim')"


@pytest.mark.parametrize("lease", ["1 s", "0"])
def test_a_strangers_flood_of_leases_that_end_delays_no_leases(tenants, lease):
    """What ended later, or whose session ended later, comes back before many of the flood that ended before have."""
    db = tenants
    db.connect("victim").execute("SELECT pushy.enqueue('victim')")
    mallory, victim = db.connect("mallory", autocommit=False), db.connect("victim")
    claim(mallory, "mallory", MANY, lease)
    mallory.commit()
    mallory.close()
    if lease == "0":
        db.wait_until("SELECT count(*) < %s FROM pushy_internal.lease", params=(MANY,))
    victim.execute("SELECT FROM pushy.job_claim('victim', 1, %s)", (lease,))
    victim.close()
    db.wait_until("SELECT count(*) FROM pushy_internal.lease", 0, deadline=60)
    assert db.value("SELECT count(*) FROM pushy.failures WHERE queue = 'victim'") == 1
    assert db.value(LATER) > MANY // 8


def test_a_stranger_who_goes_on_claiming_for_a_moment_delays_no_leases(tenants):
    """Nor those of somebody who has more than a share of them."""
    db = tenants
    db.connect("mallory").execute("SELECT pushy.queue_alter('mallory', retry_delay => '0', max_attempts => 10000)")
    mallory, victim = db.connect("mallory"), db.connect("victim")
    mallory.execute("SELECT count(*) FROM pushy.enqueue_many('mallory', array_fill('{}'::jsonb, ARRAY[20000]))")
    is_over = Event()

    def flood() -> None:
        while not is_over.is_set():
            mallory.execute("SELECT count(*) FROM pushy.job_claim('mallory', 1000, '1 ms')")

    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(flood)
        try:
            db.wait_until("SELECT count(*) > 0 FROM pushy.failures WHERE queue = 'mallory'")
            for count in (1, 700):
                victim.execute("SELECT count(*) FROM pushy.enqueue_many('victim', array_fill('{}'::jsonb, ARRAY[%s]))", (count,))
                assert victim.execute("SELECT count(*) FROM pushy.job_claim('victim', %s, '10 ms')", (count,)).fetchone() == (count,)
                db.wait_until(OUT, 0, params=("victim",), deadline=20)
        finally:
            is_over.set()
        flooding.result()
