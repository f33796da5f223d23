"""Where one thing stands for several (equal notices, a job that waits under a unique key, what the jobs of a batch have deferred),
nobody's change is swallowed for the depth of another's, and circles end."""

import itertools
import signal

import pytest

LIMIT = 4
# Causes: none, and that of a job of this depth.
DEPTHS = [None, 1, LIMIT]


@pytest.fixture
def db(db, role):
    """A queue whose handler does what its arguments say once it is so deep, and one for what comes of that."""
    db.worker = role()
    db.sql(f"""
        ALTER ROLE {db.worker} SET pushy.max_depth = {LIMIT};
        CREATE FUNCTION nothing(jsonb) RETURNS void LANGUAGE sql AS '';
        CREATE FUNCTION deep(j pushy.job) RETURNS void LANGUAGE plpgsql AS $$BEGIN
            IF j.depth < (j.args->>'depth')::int THEN PERFORM pushy.enqueue('deep', j.args); ELSE EXECUTE j.args->>'say'; END IF; END$$;
        SELECT pushy.queue_register('deep', 'deep(pushy.job)', run_as => '{db.worker}'),
               pushy.queue_register('next', 'nothing(jsonb)', run_as => '{db.worker}');
        SELECT pushy.queue_grant('deep', '{db.worker}'), pushy.queue_grant('next', '{db.worker}')""")
    return db


def say(db, depth: int | None, statement: str) -> None:
    if depth is None:
        db.sql(statement)
    else:
        db.sql("SELECT pushy.enqueue('deep', jsonb_build_object('depth', %s::int, 'say', %s::text))", depth, statement)
        db.jobs_wait("deep")


@pytest.mark.parametrize("between", [0, 1500])
@pytest.mark.parametrize("causes", [(a, b) for a, b in itertools.product(DEPTHS, DEPTHS) if None in (a, b)], ids=str)
def test_a_merged_notice_is_as_deep_as_the_least_deep(db, causes, between):
    """Also where the reader stops between the equal ones, because it makes so many jobs at a time."""
    db.sql(f"""CREATE TABLE t (i int); GRANT INSERT ON t TO {db.worker}; SELECT pushy.queue_pause('next');
               SELECT pushy.watch('t', channel => 'c', payload => 'none', merge => true);
               SELECT pushy.subscription_create('s', '{{c,d}}', queue => 'next')""")
    db.sql("SELECT pushy.notify('d', 'first')")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE queue = 'next'", 1)
    relay = db.value("SELECT pid FROM pushy.workers WHERE kind = 'relay' AND database = current_database()")
    db.cluster.kill(relay, signal.SIGSTOP)
    try:
        say(db, causes[0], "INSERT INTO public.t VALUES (1)")
        if between:
            db.sql("SELECT pushy.notify('d', n::text) FROM generate_series(1, %s) n", between)
        say(db, causes[1], "INSERT INTO public.t VALUES (2)")
    finally:
        db.cluster.kill(relay, signal.SIGCONT)
    merged = "SELECT depth FROM pushy.jobs WHERE queue = 'next' AND args->>'channel' = 'c'"
    db.wait_until(f"SELECT count(*) FROM ({merged}) j", 1)
    assert db.value(merged) == 0
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE queue = 'next'", between + 2)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "answered to another too"])
@pytest.mark.parametrize("waiting, asked", list(itertools.product([None, 1, LIMIT - 1], [None, 1, LIMIT - 1])))
def test_a_job_of_a_unique_key_is_as_deep_as_the_least_deep_that_it_is_answered_to(db, waiting, asked, shared):
    db.sql("SELECT pushy.queue_pause('next')")
    enqueue = "SELECT pushy.enqueue('next', unique_key => 'k')"
    # A job that a handler of depth d enqueues is one deeper.
    depth = lambda cause: 0 if cause is None else cause + 1  # noqa: E731
    say(db, waiting, enqueue)
    other = db.connect(autocommit=False)
    if shared:
        # As deep as the first, or deeper, it leaves that as it is.
        other.execute("SELECT 1")
        other.execute("SELECT id FROM pushy_internal.live_job WHERE unique_key = 'k' FOR SHARE")
    say(db, asked, enqueue)
    other.rollback()
    expected = [depth(waiting)]
    if depth(asked) < depth(waiting):
        expected = [depth(waiting), depth(asked)] if shared else [depth(asked)]
    assert [found for found, in db.rows("SELECT depth FROM pushy.jobs WHERE queue = 'next' ORDER BY id")] == expected
    # The next is answered the least deep, and nobody waits for anybody.
    say(db, None, enqueue)
    assert min(found for found, in db.rows("SELECT depth FROM pushy.jobs WHERE queue = 'next'")) == 0
    db.sql("SELECT pushy.queue_resume('next')")
    db.jobs_wait("next")
    assert db.rows("SELECT DISTINCT state FROM pushy.jobs WHERE queue = 'next'") == [("completed",)]


@pytest.fixture
def deferring(db):
    """A queue whose jobs defer to the commit what they enqueue: args->>'to', so many times."""
    db.sql(f"""
        CREATE TABLE later (wanted jsonb); GRANT INSERT ON later TO {db.worker};
        CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
            PERFORM pushy.enqueue(new.wanted->>'to', new.wanted) FROM generate_series(1, (new.wanted->>'times')::int); RETURN NULL; END$$;
        CREATE CONSTRAINT TRIGGER told AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION told();
        CREATE FUNCTION step(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.later VALUES (args)';
        SELECT pushy.queue_register('step', 'step(jsonb)', run_as => '{db.worker}'), pushy.queue_grant('step', '{db.worker}')""")
    return db


def test_what_jobs_of_a_batch_defer_is_one_deeper_than_themselves(deferring):
    db = deferring
    db.sql("SELECT pushy.queue_pause('step')")
    to_next = '{"to": "next", "times": 1, "depth": %s}'
    for turn in range(3):
        for depth in DEPTHS:
            # A mean, and a batch that grows, take some jobs of each.
            args = to_next % (0 if depth is None else depth + 1)
            say(db, depth, f"SELECT pushy.enqueue_many('step', array_fill('{args}'::jsonb, ARRAY[{40 * (turn + 1)}]))")
    db.sql("SELECT pushy.queue_resume('step')")
    db.jobs_wait("step"), db.jobs_wait("next")
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'step' AND state = 'completed'") == 480, db.rows(
        "SELECT state, depth, count(*) FROM pushy.jobs WHERE queue = 'step' GROUP BY 1, 2")
    wrong = "SELECT depth, args, state, last_error FROM pushy.jobs WHERE queue = 'next' AND depth <> (args->>'depth')::int + 1"
    assert db.rows(wrong + " LIMIT 5") == []
    assert db.value("SELECT batches FROM pushy.stats WHERE queue = 'step'") < 200


def test_circles_through_what_is_deferred_end_beside_a_stream_of_others(deferring):
    """Each job of the circle makes two: whatever it shares a batch with, there are so many and no more."""
    db = deferring
    db.sql("SELECT pushy.enqueue_many('step', array_fill('{\"to\": \"next\", \"times\": 1}'::jsonb, ARRAY[100]))")
    db.jobs_wait("step")
    db.sql("SELECT pushy.queue_pause('step')")
    db.sql("SELECT pushy.enqueue_many('step', ARRAY['{\"to\": \"step\", \"times\": 2}'::jsonb, '{\"to\": \"next\", \"times\": 1}'::jsonb]) FROM generate_series(1, 20)")
    db.sql("SELECT pushy.queue_resume('step')")
    for _ in range(30):
        db.sql("SELECT pushy.enqueue_many('step', array_fill('{\"to\": \"next\", \"times\": 1}'::jsonb, ARRAY[20]))")
    db.jobs_wait("step")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE queue = 'step' AND args->>'to' = 'step' AND state = 'discarded'", 20 * 2 ** (LIMIT + 1))
    assert db.rows("SELECT depth, count(*) FROM pushy.jobs WHERE queue = 'step' AND args->>'to' = 'step' GROUP BY 1 ORDER BY 1") == [
        (depth, 20 * 2 ** depth) for depth in range(LIMIT + 2)]
