"""More databases than worker slots: whoever rests leaves for one that lacks a slot, so every job and every notice gets its turn. Who leaves is
core/tests/slots_model's, for every mixture; here the processes do so."""

import pytest

SLOTS = 8
# Two are the launchers', ours and that of logical replication.
DATABASES = SLOTS - 2 + 1

# What takes the slots, in each database, and does not leave by itself within the test.
HABITS = {
    "relays that have caught up": "INSERT INTO w VALUES (1)",
    "schedulers that wait": "SELECT count(pushy.enqueue('later', delay => g * interval '3 s')) FROM generate_series(1, 200) g",
    "executors that are idle": "SELECT pushy.enqueue('q')",
    "all of them": "INSERT INTO w VALUES (1); SELECT pushy.enqueue('q'), count(pushy.enqueue('later', delay => g * interval '3 s')) FROM generate_series(1, 200) g",
}


@pytest.fixture
def databases(make_cluster):
    cluster = make_cluster({"max_worker_processes": SLOTS, "pushy.executor_linger": "10min"})
    made = [cluster.database() for _ in range(DATABASES)]
    for db in made:
        db.sql("CREATE TABLE w (n int); CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; SELECT pushy.watch('w', 'w', payload => 'none'),"
               " pushy.queue_register('q', 'work()'), pushy.queue_register('later', 'work()'), pushy.queue_pause('later'), pushy.subscription_create('s', '{w}')")
    return made


def hear(db):
    assert db.value("CALL pushy.subscription_wait('s', '60 s')"), db.cluster.log.tail()
    db.sql("SELECT pushy.subscription_ack('s', (SELECT cursor FROM pushy.subscription_read('s') ORDER BY cursor DESC LIMIT 1))")


@pytest.mark.parametrize("habit", HABITS)
def test_who_rests_leaves_for_who_lacks_a_slot(databases, habit):
    for db in databases:
        db.sql(HABITS[habit])
    if "INSERT" in HABITS[habit]:
        for db in databases:
            hear(db)
    for _ in range(2):
        for db in databases:
            assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["state"] == "completed"
        for db in databases:
            db.sql("INSERT INTO w VALUES (2)")
        for db in databases:
            hear(db)
    for db in databases:
        reasons = str(db.rows("SELECT reason FROM pushy.queue_explain('q')"))
        assert "parallel" not in reasons, "none holds a slot"
        db.close()


def test_an_executor_that_was_asked_to_leave_and_cannot_keeps_no_other_from_leaving(make_cluster):
    """Somebody holds the table that it is about to read: it works, and in no job."""
    cluster = make_cluster({"pushy.max_executors": 2, "pushy.reserved_executors": 0, "pushy.executor_linger": "10min"})
    stuck, busy, third = (cluster.database() for _ in range(3))
    for db in (stuck, busy, third):
        db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(0.005)'; SELECT pushy.queue_register('q', 'work()', concurrency => 1)")
    stuck.job_wait(stuck.value("SELECT pushy.enqueue('q')"))
    stuck.sql("SELECT pushy.queue_pause('q'), pushy.enqueue('q')")
    with stuck.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE pushy_internal.live_job")
        stuck.sql("SELECT pushy.queue_resume('q')")
        stuck.wait_until("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pushy_internal.live_job'::regclass", lambda waiting: waiting > 0)
        busy.sql("SELECT count(pushy.enqueue('q')) FROM generate_series(1, 20000)")
        busy.wait_until("SELECT count(*) > 0 FROM pushy.jobs WHERE state = 'completed'")
        assert third.job_wait(third.value("SELECT pushy.enqueue('q')"))["state"] == "completed"
    stuck.jobs_wait("q")
    busy.sql("SELECT pushy.queue_drop('q', true)")
