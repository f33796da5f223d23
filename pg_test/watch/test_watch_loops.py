"""A job that changes the table whose watch feeds its queue: every change knows its cause, and the chain ends."""

import pytest

from stage.watching import watch

LIMIT = 4

# The handler writes the watched table again, in one way or another.
WRITES = {
    "row": ("row", "INSERT INTO public.t (k, n) VALUES (1, (args->>'n')::int + 1)"),
    "statement": ("statement", "INSERT INTO public.t (k, n) VALUES (1, 1), (2, 1)"),
    "statement of a partition, told before the commit": ("statement", "INSERT INTO public.t1 (k, n) VALUES (1, 1)"),
    "deferred to the commit": ("row", "INSERT INTO public.later VALUES (1)"),
}


@pytest.fixture
def db(db):
    db.sql("""
        CREATE TABLE t (k int, n int) PARTITION BY LIST (k);
        CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
        CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
        CREATE TABLE later (x int);
        CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.t (k, n) VALUES (1, 1); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER again AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION again()""")
    return db


@pytest.mark.parametrize("way", WRITES)
def test_a_loop_is_stopped_at_the_depth_with_an_error_that_shows_it(db, role, way):
    level, write = WRITES[way]
    # Handlers run as a role whose pushy.max_depth is another than the server's.
    worker = role()
    db.sql(f"ALTER ROLE {worker} SET pushy.max_depth = {LIMIT}; GRANT ALL ON t, t1, later TO {worker}")
    db.sql(f"CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN {write}; END $$")
    db.sql("SELECT pushy.queue_register('q', 'work(jsonb)', run_as => %s)", worker)
    watch(db, "t", channel=None, queue="q", level=level, args_expr="jsonb_build_object('n', NEW.n)" if level == "row" else None)
    db.sql("INSERT INTO t (k, n) VALUES (1, 0)")
    db.jobs_wait("q")
    jobs = db.rows("SELECT id, caused_by, depth, state::text FROM pushy.jobs ORDER BY depth")
    assert [depth for _, _, depth, _ in jobs] == list(range(LIMIT + 2))
    assert [cause for _, cause, _, _ in jobs] == [None, *(id for id, _, _, _ in jobs[:-1])]
    assert [state for _, _, _, state in jobs] == ["completed"] * (LIMIT + 1) + ["discarded"]
    failure = db.row("SELECT job_id, sqlstate, message, detail FROM pushy.failures")
    assert (failure["job_id"], failure["sqlstate"]) == (jobs[-1][0], "54001")
    assert f"it is {LIMIT + 1} causes deep" in failure["message"] and f"the last is job {jobs[-2][0]}" in failure["detail"]
    # The server is fine, and so is the queue.
    db.sql(f"ALTER TABLE {'later' if 'deferred' in way else 't'} DISABLE TRIGGER USER")
    job = db.value("SELECT pushy.enqueue('q', '{\"n\": 1}')")
    assert db.job_wait(job)["state"] == "completed"


def test_two_watches_that_feed_each_other_are_a_loop_too(db, role):
    worker = role()
    db.sql(f"""
        ALTER ROLE {worker} SET pushy.max_depth = {LIMIT};
        CREATE TABLE ping (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY); CREATE TABLE pong (LIKE ping INCLUDING ALL);
        GRANT ALL ON ping, pong TO {worker};
        CREATE FUNCTION to_ping() RETURNS void LANGUAGE sql AS 'INSERT INTO public.ping DEFAULT VALUES';
        CREATE FUNCTION to_pong() RETURNS void LANGUAGE sql AS 'INSERT INTO public.pong DEFAULT VALUES';
        SELECT pushy.queue_register('pings', 'to_pong()', run_as => '{worker}'), pushy.queue_register('pongs', 'to_ping()', run_as => '{worker}')""")
    watch(db, "ping", queue="pings"), watch(db, "pong", queue="pongs")
    db.sql("INSERT INTO ping DEFAULT VALUES")
    db.jobs_wait("pings"), db.jobs_wait("pongs"), db.jobs_wait("pings")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'discarded'", 1)
    assert [depth for depth, in db.rows("SELECT depth FROM pushy.jobs ORDER BY id")] == list(range(LIMIT + 2))
    assert db.rows("SELECT (SELECT count(*) FROM ping), (SELECT count(*) FROM pong)") == [(3, 3)]


def test_jobs_of_one_batch_cause_their_own_changes(db):
    """Several jobs of one transaction, each with changes of its own: causes are not mixed up."""
    db.sql("""
        CREATE TABLE made (by bigint, n int);
        CREATE FUNCTION first(job pushy.job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.made SELECT job.id, n FROM generate_series(1, 2) n';
        CREATE FUNCTION second() RETURNS void LANGUAGE sql AS '';
        SELECT pushy.queue_register('first', 'first(pushy.job)'), pushy.queue_register('second', 'second()'), pushy.queue_pause('first')""")
    watch(db, "made", channel=None, queue="second", args_expr="NEW.by")
    watch(db, "made", channel=None, queue="second", level="statement", name="statements")
    db.sql("SELECT pushy.enqueue_many('first', array_fill('{}'::jsonb, ARRAY[20])); SELECT pushy.queue_resume('first')")
    db.jobs_wait("first"), db.jobs_wait("second")
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'second' AND depth = 1") == 60
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'second' AND jsonb_typeof(args) = 'number' AND args <> to_jsonb(caused_by)") == 0
    assert db.value("SELECT max(n) FROM (SELECT count(*) n FROM pushy.jobs WHERE queue = 'second' GROUP BY caused_by) c") == 3
