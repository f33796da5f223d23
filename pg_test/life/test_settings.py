"""Settings: a reload is felt at once, by workers at rest too, and nothing falls over."""

import pytest

from harness.gate import Gate


@pytest.fixture
def db(cluster):
    """A database of a server of its own, whose queue `q` has run a job, so that an executor is at rest."""
    return database_at_rest(cluster)


def database_at_rest(cluster):
    database = cluster.database()
    database.sql("CREATE FUNCTION work() RETURNS int LANGUAGE sql AS 'SELECT pg_backend_pid()'; SELECT pushy.queue_register('q', 'work()')")
    run(database)
    return database


def run(db) -> int:
    """Runs a job; the executor's process id."""
    return db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"]


def reload(cluster, **settings) -> None:
    cluster.configure(**settings).reload()


def test_a_reload_leaves_an_executor_at_rest_alive(make_cluster):
    # Of two, either may run the second job: the first job of a queue, whose time is unknown, calls for a second executor.
    db = database_at_rest(make_cluster({"pushy.max_executors": 1}))
    executor = run(db)
    reload(db.cluster, work_mem="7MB")
    db.wait_until("SHOW work_mem", "7MB")
    assert run(db) == executor


def test_a_shorter_linger_ends_an_executor_at_rest(db):
    assert db.workers() != []
    reload(db.cluster, pushy__executor_linger="1s")
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy executor'", 0)
    run(db)


def test_no_linger_ends_an_executor_when_nothing_is_left(db):
    reload(db.cluster, pushy__executor_linger="0")
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy executor'", 0)
    run(db)
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy executor'", 0)


def test_switched_off_nothing_starts_and_switched_on_it_goes_on(db):
    reload(db.cluster, pushy__enabled=False)
    db.wait_until("SHOW pushy.enabled", "off")
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy executor'", 0)
    job = db.value("SELECT pushy.enqueue('q')")
    assert "pushy.enabled" in db.value("SELECT string_agg(reason || coalesce(fix, ''), ' ') FROM pushy.queue_explain('q')")
    assert db.job(job)["state"] == "available"
    reload(db.cluster, pushy__enabled=True)
    assert db.job_wait(job)["state"] == "completed"


def test_more_executors_are_used_at_once(make_cluster):
    cluster = make_cluster({"pushy.max_executors": 1})
    db = cluster.database()
    gate = Gate(db)
    db.sql(f"CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;"
           "SELECT pushy.queue_register('q', 'work()', batch => false)")
    db.sql("SELECT pushy.enqueue_many('q', array_fill('1'::jsonb, ARRAY[6]))")
    gate.wait_for_arrival(1)
    reload(cluster, pushy__max_executors=3)
    gate.wait_for_arrival(3)
    gate.open()
    db.jobs_wait("q")


def test_a_setting_that_does_not_exist_is_refused(db):
    with pytest.raises(Exception, match="invalid configuration parameter name"):
        db.sql("SET pushy.no_such_setting = 1")


def test_executors_that_come_and_go_are_never_held_back(make_cluster):
    """Starting again and again is no failure to start: the twentieth cold start is as quick as the first."""
    db = make_cluster({"pushy.executor_linger": "0"}).database()
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'work()')")
    waits = []
    for _ in range(20):
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy executor'", 0)
        job = db.job_wait(db.value("SELECT pushy.enqueue('q')"))
        waits.append(round((job["started_at"] - job["enqueued_at"]).total_seconds(), 3))
    assert max(waits) < 0.5, waits
