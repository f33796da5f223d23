"""Who waits on a standby sees what comes by replication soon after it has come, and goes on waiting through a promotion."""

import threading
import time

import pytest

WAITS = {
    "subscription_wait": ("CALL pushy.subscription_wait('s', '5 min')", "INSERT INTO item VALUES (1)"),
    "jobs_wait": ("CALL pushy.jobs_wait('q', '5 min')", "SELECT open_gate()"),
    "job_wait": ("SELECT state = 'completed' FROM pushy.job_wait({job}, '1 min')", "SELECT open_gate()"),
}
# Seconds: much less than the timeouts above.
SOON = 20


class Wait(threading.Thread):
    """A call in a session of its own."""

    def __init__(self, db, call: str):
        super().__init__()
        self.session = db.connect()
        self.call = call
        self.answer = None
        self.start()
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Extension'", 1,
                      params=(self.session.info.backend_pid,))

    def run(self) -> None:
        self.answer = self.session.execute(self.call).fetchone()

    def assert_soon(self) -> None:
        self.join(SOON)
        assert self.answer == (True,), f"{self.call}: {self.answer}"


@pytest.mark.parametrize("promoted", [False, True], ids=["the primary goes on", "the standby is promoted"])
def test_a_wait_on_a_standby_ends_soon_after_what_it_waits_for(make_cluster, promoted):
    primary = make_cluster({"wal_level": "replica", "hot_standby": "on"})
    db = primary.database()
    db.sql("""
        CREATE TABLE item (id int PRIMARY KEY);
        SELECT pushy.watch('item');
        SELECT pushy.subscription_create('s', '{item}');
        CREATE TABLE gate (id int);
        CREATE FUNCTION open_gate() RETURNS void LANGUAGE sql AS 'INSERT INTO public.gate VALUES (1)';
        CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS
          $$BEGIN WHILE NOT EXISTS (SELECT FROM public.gate) LOOP PERFORM pg_catalog.pg_sleep(0.05); END LOOP; END$$;
        SELECT pushy.queue_register('q', 'work()')""")
    job = db.value("SELECT pushy.enqueue('q')")
    there = db.of(primary.standby())
    there.wait_until("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", True, params=(db.value("SELECT pg_current_wal_flush_lsn()"),))
    waits = [Wait(there, call.format(job=job)) for call, _ in WAITS.values()]
    if promoted:
        primary.stop("immediate")
        there.cluster.promote()
        db = there
    for done in {done for _, done in WAITS.values()}:
        db.sql(done)
    for wait in waits:
        wait.assert_soon()
