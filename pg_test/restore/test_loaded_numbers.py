"""Jobs of a dump that is loaded where others have their numbers, in whatever order its tables come and whatever happens meanwhile: nothing fails,
each unfinished job of the dump runs once when its queue comes home, or it is said, each job's failures are its own, and nobody waits for a stranger."""

import psycopg
import pytest

from stage import loads
from stage.loads import JOBS, dump, promise

DEPLOY = """
    CREATE TABLE ran (args jsonb); CREATE TABLE goods (id int PRIMARY KEY);
    CREATE FUNCTION note(job pushy.job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.ran VALUES (job.args)';
    CREATE FUNCTION fails(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE '%', job.args; END$$;
"""
UNFINISHED = [("a", n) for n in range(1, 7)]
CANCELLED = 5


def declare(db, suffix=""):
    db.sql(f"SELECT pushy.queue_register('a{suffix}', 'note(pushy.job)'), pushy.queue_register('bad{suffix}', 'fails(pushy.job)', max_attempts => 1)")


def enqueue(db, queue, n, origin, **options):
    said = "".join(f", {name} => '{value}'" for name, value in options.items())
    return db.value(f"SELECT pushy.enqueue('{queue}', jsonb_build_object('n', {n}, 'from', '{origin}'){said})")


def furnish(db, origin, promises=True):
    """Failed and finished jobs, then some that wait: one for its time, one of which the cancel was promised."""
    db.sql(DEPLOY)
    declare(db)
    for n in (101, 102):
        enqueue(db, "bad", n, origin)
        enqueue(db, "a", n, origin)
    db.jobs_wait("bad"), db.jobs_wait("a")
    db.sql("SELECT pushy.queue_pause('a')")
    for queue, n in UNFINISHED:
        job = enqueue(db, queue, n, origin, **({"delay": "1 day"} if n == 6 else {"unique_key": "k"} if n == 4 else {}))
        if n == CANCELLED and promises:
            promise(db, job)


@pytest.fixture(scope="module")
def server(new_cluster):
    cluster = new_cluster()
    with cluster.connect() as admin:
        admin.execute("CREATE ROLE stranger LOGIN")
    yield cluster
    cluster.remove()


@pytest.fixture(scope="module")
def source(server):
    db = server.database("source")
    furnish(db, "dump")
    # A stranger's, who resumes it when he likes.
    db.sql("GRANT USAGE ON SCHEMA pushy TO stranger; GRANT ALL ON SCHEMA public TO stranger")
    with db.connect(user="stranger") as stranger:
        stranger.execute("CREATE FUNCTION again(jsonb) RETURNS void LANGUAGE sql AS $$SELECT pushy.enqueue('his', delay => '1 day')$$")
        stranger.execute("SELECT pushy.queue_register('his', 'again(jsonb)'), pushy.queue_pause('his'), pushy.enqueue('his')")
    yield dump(db)
    db.drop()


REST = ["failure", "promised_cancel", "queue_acl", "dropped_queue"]
# Tables, as they come: each list a call of pg_restore; None: all at once.
TWO = object()
ORDERS = {
    "at once": [None], "by two": [TWO],
    "jobs first": [JOBS, REST, ["queue"]], "queue first": [["queue"], JOBS, REST], "failures first": [REST, ["queue"], JOBS],
}


def load(db, file, step):
    return loads.load(db, file, None, jobs=2) if step is TWO else loads.load(db, file, step)


def nothing(db):
    pass


def own(db, **options):
    declare(db, "_here")
    if "paused" in options:
        db.sql("SELECT pushy.queue_pause('a_here'), pushy.queue_pause('bad_here')")
    for n in range(20):
        enqueue(db, "bad_here" if n % 2 else "a_here", n, "here")
    if "paused" not in options:
        db.jobs_wait("a_here"), db.jobs_wait("bad_here")


# What the database has done before.
TARGETS = {
    "fresh": nothing, "declared": lambda db: declare(db, "_here"), "ran": own, "waiting": lambda db: own(db, paused=True),
    "drawn": lambda db: (declare(db, "_here"), db.sql("SELECT pushy.watch('goods', queue => 'a_here', name => 'w')")),
}


def stranger_resumes(db):
    """His queue is here or not yet; its job draws a number."""
    with db.connect(user="stranger") as stranger:
        try:
            stranger.execute("SELECT pushy.queue_resume('his')")
        except psycopg.errors.UndefinedObject:
            return
    db.jobs_wait("his")


def somebody_enqueues(db):
    db.sql("CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('mine', 'nothing()', keep_completed => '0')")
    for _ in range(3):
        db.value("SELECT pushy.enqueue('mine')")
    db.jobs_wait("mine")


MEANWHILE = {"nothing": nothing, "a stranger resumes": stranger_resumes, "somebody enqueues": somebody_enqueues}
WAYS = {
    "resume": "SELECT pushy.queue_resume('{0}')", "restore": "SELECT pushy.resume_after_restore(), pushy.queue_resume('{0}')",
    "register": "SELECT pushy.queue_register('{0}', '{1}(pushy.job)'), pushy.queue_resume('{0}')",
}


def come_home(db, way):
    for queue, handler in (("a", "note"), ("bad", "fails")):
        db.sql(WAYS[way].format(queue, handler))
    for job, in db.rows("SELECT id FROM pushy.jobs WHERE queue = 'a' AND state = 'scheduled'"):
        db.sql("SELECT pushy.job_retry(%s)", job)
    db.jobs_wait("a"), db.jobs_wait("bad")


def wrong(db, expected):
    """What ran more or less often than it should, and errors of others."""
    ran = {n: times for n, times in db.rows("SELECT (args ->> 'n')::int, count(*) FROM ran WHERE args ->> 'from' = 'dump' GROUP BY 1")}
    problems = [("ran", ran, expected)] if ran != expected else []
    problems += db.rows("SELECT 'another''s error', id, args, last_error FROM pushy.jobs WHERE last_error IS DISTINCT FROM CASE WHEN state = 'discarded' THEN args::text END")
    problems += db.rows("SELECT 'another''s error for who waits', j.id, w.last_error FROM pushy.jobs j, LATERAL pushy.job_wait(j.id, '0') w "
                        "WHERE j.state = 'discarded' AND w.last_error <> j.args::text")
    problems += db.rows("SELECT 'failures', j.id, count(f) FROM pushy.jobs j LEFT JOIN pushy.failures f ON f.job_id = j.id AND f.queue = j.queue "
                        "WHERE j.state = 'discarded' GROUP BY 2 HAVING count(f) <> 1")
    problems += db.rows("SELECT 'two of a number', id FROM (SELECT id FROM pushy_internal.live_job UNION ALL SELECT id FROM pushy_internal.finished_job) j GROUP BY 2 HAVING count(*) > 1")
    return problems


ONCE = {n: 1 for _, n in UNFINISHED if n != CANCELLED}


@pytest.mark.parametrize("target", TARGETS)
def test_each_job_of_a_dump_runs_once_and_nothing_fails(source, server, target):
    found = []
    for number, (order, meanwhile) in enumerate((order, meanwhile) for order in ORDERS for meanwhile in MEANWHILE):
        steps = ORDERS[order]
        if len(steps) == 1 and meanwhile != "nothing":
            continue
        way = list(WAYS)[number % len(WAYS)]
        db = server.database()
        db.sql(DEPLOY + "GRANT USAGE ON SCHEMA pushy TO stranger; CREATE FUNCTION again(jsonb) RETURNS void LANGUAGE sql AS $$SELECT pushy.enqueue('his', delay => '1 day')$$;"
                        "ALTER FUNCTION again OWNER TO stranger")
        TARGETS[target](db)
        open_one = db.connect(autocommit=False)
        if target == "drawn":
            open_one.execute("INSERT INTO goods VALUES (1)")
        said = load(db, source, steps[0])
        for step in steps[1:]:
            MEANWHILE[meanwhile](db)
            said += load(db, source, step)
            if meanwhile == "somebody enqueues":
                db.sql("DROP FUNCTION nothing() CASCADE; SELECT pushy.queue_drop('mine', true)")
        open_one.commit()
        open_one.close()
        problems = [("said", said)] if "ERROR" in said or "WARNING" in said else []
        # His own queue is what he has to do with.
        problems += db.rows("SELECT 'rest', name, reason FROM pushy.resume_after_restore() WHERE kind = 'jobs'") if meanwhile != "a stranger resumes" else []
        if target == "fresh" and meanwhile == "nothing":
            problems += db.rows("SELECT 'another number', id FROM pushy_internal.live_job WHERE id > 1000")
        come_home(db, way)
        problems += wrong(db, ONCE)
        if target in ("ran", "waiting", "drawn"):
            db.sql("SELECT pushy.queue_resume('a_here'), pushy.queue_resume('bad_here')")
            db.jobs_wait("a_here"), db.jobs_wait("bad_here")
            here = db.value("SELECT count(*) FROM ran WHERE args ->> 'from' IS DISTINCT FROM 'dump'")
            problems += [("here", here)] if here != (1 if target == "drawn" else 10) else []
        # The same dump once more brings nothing to a queue that runs here, and fails nothing.
        said = load(db, source, None)
        problems += [("said again", said)] if "ERROR" in said else []
        db.sql("SELECT pushy.resume_after_restore(drop_rest => true)")
        db.jobs_wait("a"), db.jobs_wait("bad")
        problems += wrong(db, ONCE)
        if problems:
            found.append((order, meanwhile, way, problems))
        db.drop()
    assert found == []


@pytest.mark.parametrize("since", ["waits", "ran"])
def test_a_dump_of_the_same_database_passes_over_what_is_here_and_says_so(server, since):
    db = server.database()
    furnish(db, "dump", promises=False)
    file = dump(db)
    if since == "ran":
        come_home(db, "resume")
    before = db.rows("SELECT id, state FROM pushy.jobs ORDER BY 1")
    for order in ORDERS.values():
        said = "".join(load(db, file, step) for step in order)
        assert "ERROR" not in said
        assert db.value("SELECT count(*) FROM pushy_internal.live_job WHERE queue_id < 0") == 0
        assert db.value("SELECT count(*) FROM pushy_internal.failure WHERE queue_id < 0") == 0
        told = db.value("SELECT string_agg(name || ': ' || reason, ' ') FROM pushy.resume_after_restore() WHERE kind = 'rows'")
        for table, what in {"live_job": "have finished here" if since == "ran" else "they are here already", "queue": "others of their names are here",
                            "failure": "they are here already"}.items():
            assert table in told and what in told, told
        assert db.rows("SELECT id, state FROM pushy.jobs ORDER BY 1") == before
    come_home(db, "resume")
    assert wrong(db, dict.fromkeys([101, 102, *(n for _, n in UNFINISHED)], 1)) == []
    db.drop()


def test_a_dump_that_is_loaded_again_before_anybody_resumes_brings_nothing_twice(source, server):
    db = server.database()
    db.sql(DEPLOY)
    for order in ORDERS.values():
        for step in order:
            assert "ERROR" not in load(db, source, step)
    come_home(db, "resume")
    assert wrong(db, ONCE) == []
    db.drop()


def test_who_resumes_a_loaded_queue_and_does_not_end_keeps_nobody_waiting(source, server):
    db = server.database()
    db.sql(DEPLOY + "GRANT USAGE ON SCHEMA pushy TO stranger; CREATE FUNCTION again(jsonb) RETURNS void LANGUAGE sql AS ''; ALTER FUNCTION again OWNER TO stranger")
    load(db, source, None)
    with db.connect(user="stranger", autocommit=False) as stranger, db.connect() as other:
        stranger.execute("SELECT pushy.queue_resume('his')")
        other.execute("SET lock_timeout = '1 s'")
        other.execute("SELECT pushy.queue_resume('a')")
        stranger.rollback()
    db.jobs_wait("a")
    db.drop()


def test_who_writes_while_a_dump_comes_in_is_not_failed_by_it_nor_fails_it(server):
    """Numbers of the dump that have not come yet are drawn here meanwhile."""
    source = server.database()
    source.sql(DEPLOY)
    declare(source)
    source.sql("SELECT pushy.queue_pause('a'); SELECT count(pushy.enqueue('a', jsonb_build_object('n', n, 'from', 'dump', 'long', repeat('x', 50000)))) FROM generate_series(1, 30) n")
    rows = source.rows("SELECT id, position, queue_id, args::text, enqueued_at::text FROM pushy_internal.live_job ORDER BY 1")
    db = server.database()
    db.sql(DEPLOY)
    declare(db, "_here")
    db.sql("SELECT pushy.queue_pause('a_here')")
    drawn = []
    with db.connect(autocommit=False) as loader:
        with loader.cursor().copy("COPY pushy_internal.live_job (id, position, run_at, enqueued_at, queue_id, enqueued_by, priority, depth, state, args) FROM STDIN") as copy:
            for number, position, queue, args, at in rows:
                copy.write_row((number, position, at, at, queue, 10, 5, 0, "a", args))
                if number % 10 == 0:
                    drawn.append(enqueue(db, "a_here", number, "here"))
        loader.commit()
    assert db.value("SELECT count(*) FROM pushy_internal.live_job WHERE queue_id < 0") == 30
    assert db.value("SELECT count(*) FROM pushy_internal.live_job WHERE id = ANY (%s) AND queue_id > 0", drawn) == 3
    file = dump(source)
    load(db, file, ["queue"])
    come_home_of = db.rows("SELECT queue FROM pushy.queues WHERE queue = 'a'")
    assert come_home_of == [("a",)]
    db.sql("SELECT pushy.queue_resume('a')")
    db.jobs_wait("a")
    assert db.rows("SELECT args ->> 'n', count(*) FROM ran GROUP BY 1 HAVING count(*) > 1") == [] and db.value("SELECT count(*) FROM ran") == 30
    source.drop()
    db.drop()
