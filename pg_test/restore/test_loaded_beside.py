"""A dump that is loaded beside what is here, whole or in part: nothing of it runs before somebody says so, nothing of it becomes part of a
queue that is not its own, what cannot be placed is said and can be dropped, and what was here goes on."""

import itertools

import psycopg
import pytest


DEPLOY = """
    CREATE TABLE ran (queue text, args jsonb); CREATE TABLE IF NOT EXISTS goods (id int PRIMARY KEY, v text);
    CREATE FUNCTION note(job pushy.job) RETURNS void LANGUAGE sql AS $$INSERT INTO public.ran VALUES (job.queue, job.args)$$;
    CREATE FUNCTION fails(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;
"""
QUEUES = ("a", "b", "bad")


def deploy(db, order=QUEUES):
    db.sql(DEPLOY)
    for queue in order:
        db.sql(f"SELECT pushy.queue_register('{queue}', '{'fails' if queue == 'bad' else 'note'}(pushy.job)', max_attempts => 1)")


def args(queue, n, origin):
    return f"""jsonb_build_object('queue', '{queue}', 'n', {n}, 'from', '{origin}')"""


def fill(db, origin):
    """Finished jobs of each kind, then unfinished ones in each state in queues that are paused; grants, a watch, a subscription, a channel."""
    for queue in QUEUES:
        db.sql(f"SELECT pushy.enqueue('{queue}', {args(queue, 0, origin)})")
        db.jobs_wait(queue)
        db.sql(f"SELECT pushy.queue_pause('{queue}')")
        db.sql(f"SELECT pushy.enqueue('{queue}', {args(queue, 1, origin)}), pushy.enqueue('{queue}', {args(queue, 2, origin)}, unique_key => 'k'), "
               f"pushy.enqueue('{queue}', {args(queue, 3, origin)}, delay => '1 day')")
    db.sql("""SELECT pushy.queue_grant('a', 'public', 'enqueue'), pushy.watch('goods', queue => 'a'), pushy.subscription_create('s'),
                     pushy.channel_grant('news', 'public')""")


TABLES = ("queue", "queue_acl", "live_job", "finished_job", "failure", "watch", "subscription", "channel", "channel_acl")
IN_PART = ("queue", "live_job", "finished_job", "failure")
# How it is dumped, how that is loaded (None: by psql), and which tables are left out.
FORMS = {
    "plain": ([], None, ()),
    "custom": (["-Fc"], [], ()),
    "data only": (["-Fc"], ["--data-only"], ()),
    "data only, without triggers": (["-Fc"], ["--data-only", "--disable-triggers"], ()),
    "rows, nothing on conflict": (["-Fc", "--inserts", "--on-conflict-do-nothing"], ["--data-only"], ()),
    "section": (["-Fc"], ["--section=data"], ()),
    **{f"only {table}": (["-Fc"], ["--data-only", "-t", table], ()) for table in IN_PART},
    **{f"all but {table}": (["-Fc"], ["--data-only"], (table,)) for table in IN_PART},
}


def dump(db, options):
    """A file for each way to dump."""
    file = db.cluster.folder / f"{db.name}.{len(options)}.dump"
    db.cluster.run("pg_dump", "-h", db.cluster.folder, "-p", db.cluster.port, "-U", "postgres", "-f", file, *options, db.name)
    return file


def load(db, file, options, without):
    where = ["-h", db.cluster.folder, "-p", db.cluster.port, "-U", "postgres", "-d", db.name]
    if options is None:
        return db.cluster.run("psql", *where, "-q", "-f", file, check=False)
    if without:
        entries = db.cluster.run("pg_restore", "-l", file).stdout.splitlines()
        chosen = file.with_suffix(".list")
        chosen.write_text("\n".join(entry for entry in entries if not any(f" TABLE DATA pushy_internal {table} " in entry for table in without)))
        options = [*options, "-L", chosen]
    return db.cluster.run("pg_restore", *where, *options, file, check=False)


HOME = "q.home_database = (SELECT oid FROM pg_database WHERE datname = current_database())"


def wrong_rows(db):
    """Rows that stand in a queue which is not theirs, or twice."""
    found = []
    for table in ("live_job", "finished_job"):
        found += db.rows(f"SELECT '{table}', q.queue, j.args FROM pushy_internal.{table} j JOIN pushy_internal.queue q USING (queue_id) "
                         "WHERE q.queue <> j.args ->> 'queue'")
    found += db.rows("SELECT 'twice', j.id, q.queue FROM pushy_internal.live_job j JOIN pushy_internal.queue q USING (queue_id) "
                     "JOIN pushy_internal.finished_job f ON f.id = j.id")
    found += db.rows("SELECT 'twice finished', f.id, count(*) FROM pushy_internal.finished_job f GROUP BY f.id HAVING count(*) > 1")
    found += db.rows("SELECT 'failure', f.job_id, q.queue FROM pushy_internal.failure f JOIN pushy_internal.queue q USING (queue_id) WHERE q.queue <> 'bad'")
    found += db.rows("SELECT 'ran', queue, args FROM ran WHERE queue <> args ->> 'queue'")
    return found


def loaded_at_home(db, origin):
    """Rows of elsewhere in queues that are at home here."""
    return [row for table in ("live_job", "finished_job") for row in
            db.rows(f"SELECT '{table} at home', q.queue, j.args FROM pushy_internal.{table} j JOIN pushy_internal.queue q USING (queue_id) "
                    f"WHERE {HOME} AND j.args ->> 'from' = '{origin}'")]


def goes_on(db, n):
    """Each queue that is here runs a new job to its end."""
    problems = []
    for queue, in db.rows(f"SELECT q.queue FROM pushy_internal.queue q WHERE {HOME}"):
        db.sql(f"SELECT pushy.queue_resume('{queue}')")
        job = db.value(f"SELECT pushy.enqueue('{queue}', {args(queue, n, db.name)})")
        state = db.job_wait(job)["state"]
        if state != ("discarded" if queue == "bad" else "completed"):
            problems.append((queue, state))
    db.sql("INSERT INTO goods VALUES (%s)", n)
    return problems


def settle(db):
    """What can be placed is, the rest is said and dropped; every job that is due runs."""
    db.sql("DROP TRIGGER IF EXISTS pushy_goods_insert ON goods")
    said = db.rows("SELECT kind, name, resumed, reason FROM pushy.resume_after_restore() WHERE kind IN ('queue', 'jobs')")
    without_queue = db.value("SELECT count(*) FROM pushy_internal.live_job j WHERE NOT EXISTS (SELECT FROM pushy_internal.queue q WHERE q.queue_id = j.queue_id)")
    problems = []
    if any(kind == "jobs" for kind, *_ in said) != (without_queue > 0):
        problems.append(("rest", said, without_queue))
    db.sql("SELECT pushy.resume_after_restore(drop_rest => true)")
    for table in ("live_job", "finished_job", "failure", "queue_acl"):
        left = db.value(f"SELECT count(*) FROM pushy_internal.{table} j WHERE queue_id < 0 AND NOT EXISTS (SELECT FROM pushy_internal.queue q WHERE q.queue_id = j.queue_id)")
        if left:
            problems.append(("left", table, left))
    for queue, in db.rows("SELECT queue FROM pushy.queues"):
        db.sql(f"SELECT pushy.queue_resume('{queue}')")
        for job, in db.rows(f"SELECT id FROM pushy.jobs WHERE queue = '{queue}' AND state = 'scheduled'"):
            db.sql("SELECT pushy.job_retry(%s)", job)
        db.jobs_wait(queue)
    if db.value("SELECT count(*) FROM pushy_internal.live_job"):
        problems.append(("never ran", db.rows("SELECT * FROM pushy_internal.live_job")))
    return problems


@pytest.fixture(scope="module")
def server(new_cluster):
    cluster = new_cluster()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="module")
def shop(server):
    db = server.database("shop")
    deploy(db)
    fill(db, "dump")
    for table in TABLES:
        assert db.value(f"SELECT count(*) FROM pushy_internal.{table}") > 0, table
    return db


# In which order a deploy script has declared the queues, or none has; and how far the sequence is.
TARGETS = {"deployed alike": QUEUES, "deployed in another order": QUEUES[::-1], "with one queue of them": ("b",), "without queues": ()}


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_loaded_beside_other_queues_waits_for_its_own(shop, target):
    wrong = []
    for form, (dumped, options, without) in FORMS.items():
        db = shop.cluster.database()
        deploy(db, TARGETS[target])
        # Numbers of jobs as in the dump.
        here = [goes_on(db, n) for n in (100, 101)]
        done = load(db, dump(shop, dumped), options, without)
        said = done.stdout + (done.stderr or "")
        problems = [*here[0], *here[1], *loaded_at_home(db, "dump"), *wrong_rows(db)]
        for n in (102, 103, 104):
            problems += goes_on(db, n)
        problems += loaded_at_home(db, "dump")
        problems += db.rows("SELECT 'ran before it was resumed', args FROM ran WHERE args ->> 'from' = 'dump' AND args ->> 'n' <> '0'")
        problems += settle(db) + wrong_rows(db)
        # A second load comes to queues that are at home by now.
        load(db, dump(shop, dumped), options, without)
        problems += db.rows(f"SELECT 'at home again', q.queue, j.args FROM pushy_internal.live_job j JOIN pushy_internal.queue q USING (queue_id) WHERE {HOME}")
        problems += wrong_rows(db) + goes_on(db, 105) + settle(db) + wrong_rows(db)
        if problems:
            wrong.append((form, problems, said[-500:]))
        db.drop()
    assert wrong == []


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_what_is_loaded_into_an_empty_database_is_all_there_and_runs_when_it_is_resumed(shop, form):
    dumped, options, without = FORMS[form]
    db = shop.cluster.database(extension=False)
    done = load(db, dump(shop, dumped), options, without)
    assert done.returncode == 0 and "ERROR" not in done.stdout, done.stdout
    assert loaded_at_home(db, "dump") == wrong_rows(db) == []
    count = "SELECT q.queue, j.state, count(*) FROM pushy.jobs j JOIN pushy.queues q USING (queue) GROUP BY 1, 2 ORDER BY 1, 2"
    assert db.rows(count) == shop.rows(count)
    assert settle(db) == wrong_rows(db) == []
    ran = db.rows("SELECT queue, args ->> 'n', count(*) FROM ran GROUP BY 1, 2 ORDER BY 1, 2")
    assert ran == [(queue, n, 1) for queue, n in itertools.product("ab", "0123")]
    assert db.rows("SELECT q.queue, a.privilege FROM pushy_internal.queue_acl a JOIN pushy_internal.queue q USING (queue_id)") == [("a", "enqueue")]
    db.drop()


@pytest.mark.parametrize("since", ["nothing", "all ran", "the history went", "a queue was dropped"])
def test_a_database_that_its_own_dump_is_loaded_over_runs_no_job_twice(server, since):
    wrong = []
    for form, (dumped, options, without) in FORMS.items():
        db = server.database()
        deploy(db)
        fill(db, "own")
        file = dump(db, dumped)
        if since in ("all ran", "the history went"):
            for queue in QUEUES:
                db.sql(f"SELECT pushy.queue_resume('{queue}')")
                for job, in db.rows(f"SELECT id FROM pushy.jobs WHERE queue = '{queue}' AND state = 'scheduled'"):
                    db.sql("SELECT pushy.job_retry(%s)", job)
                db.jobs_wait(queue)
        if since == "the history went":
            db.sql("DELETE FROM pushy_internal.finished_job; DELETE FROM pushy_internal.failure")
        if since == "a queue was dropped":
            db.sql("SELECT pushy.unwatch('goods'), pushy.queue_drop('a', true)")
        load(db, file, options, without)
        ran = db.value("SELECT count(*) FROM ran")
        problems = [*wrong_rows(db)]
        for n in (100, 101):
            problems += goes_on(db, n)
        if since != "nothing":
            problems += db.rows("SELECT 'ran again', * FROM ran WHERE args ->> 'from' = 'own' OFFSET %s", ran) if since != "a queue was dropped" else []
        problems += settle(db) + wrong_rows(db)
        if since != "a queue was dropped":
            problems += db.rows("SELECT 'twice', queue, args FROM ran WHERE args ->> 'n' <> '0' GROUP BY 2, 3 HAVING count(*) > 1")
        if problems:
            wrong.append((form, problems))
        db.drop()
    assert wrong == []


def test_a_job_whose_end_meets_a_finished_one_of_its_number_ends_alone_and_says_so(db):
    """However the row came there: triggers keep out what is loaded, and a superuser may still change rows that are there."""
    db.sql("CREATE FUNCTION note() RETURNS void LANGUAGE sql AS ''; CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
           "SELECT pushy.queue_register('q', 'note()'), pushy.queue_register('bad', 'fails()', max_attempts => 1)")
    for queue in ("q", "bad"):
        db.sql(f"SELECT pushy.queue_pause('{queue}')")
        jobs = db.rows(f"SELECT pushy.enqueue('{queue}') FROM generate_series(1, 5)")
        (twin,), (other,) = jobs[1], jobs[3]
        for job in (twin, other):
            end = db.value("SELECT pushy.enqueue(%s)", queue)
            db.sql("SELECT pushy.job_cancel(%s)", end)
            db.sql("UPDATE pushy_internal.finished_job SET id = %s WHERE id = %s", job, end)
        control = db.listen("pushy_control")
        db.sql("SELECT pushy.job_cancel(%s)", other)
        db.sql(f"SELECT pushy.queue_resume('{queue}')")
        db.jobs_wait(queue)
        assert control.wait_for_json(event="discard", job_id=twin)["queue"] == queue
        states = dict(db.rows("SELECT id, state FROM pushy.jobs WHERE queue = %s", queue))
        expected = "discarded" if queue == "bad" else "completed"
        assert states == {job: "cancelled" if job in (twin, other) else expected for job, in jobs}
    assert "a finished job of its number is kept" in db.value("SELECT string_agg(message, ' ') FROM pushy.failures WHERE queue = 'q'")
    assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["state"] == "completed"


def test_a_promised_cancel_that_is_loaded_is_of_the_loaded_job(shop):
    """Numbers of jobs are others' elsewhere."""
    source = shop.cluster.database()
    deploy(source)
    source.sql("SELECT pushy.queue_pause('a')")
    job = source.value(f"SELECT pushy.enqueue('a', {args('a', 1, 'dump')})")
    source.sql("INSERT INTO pushy_internal.promised_cancel (job_id, queue_id) VALUES (%s, 1)", job)
    # One that is inserted is taken for that of a dump.
    source.sql("UPDATE pushy_internal.promised_cancel SET job_id = %s, queue_id = (SELECT queue_id FROM pushy_internal.queue WHERE queue = 'a')", job)
    file = dump(source, ["-Fc"])
    target = shop.cluster.database()
    deploy(target, ("b",))
    target.sql("SELECT pushy.queue_pause('b')")
    mine = [target.value(f"SELECT pushy.enqueue('b', {args('b', n, 'here')})") for n in range(3)]
    target.sql("DELETE FROM pushy_internal.live_job WHERE id = %s", job) if job not in mine else None
    load(target, file, ["--data-only", "-t", "promised_cancel"], ())
    target.sql("SELECT pushy.resume_after_restore(drop_rest => true), pushy.queue_resume('b')")
    target.jobs_wait("b")
    assert target.value("SELECT count(*) FROM ran") == 3
    fresh = shop.cluster.database(extension=False)
    load(fresh, file, [], ())
    fresh.sql("SELECT pushy.resume_after_restore(), pushy.queue_resume('a')")
    fresh.jobs_wait("a")
    assert fresh.value("SELECT count(*) FROM ran") == 0, "it was cancelled"
    for db in (source, target, fresh):
        db.drop()


def test_triggers_of_pushys_tables_are_not_switched(db):
    state = "SELECT array_agg(tgenabled::text ORDER BY t.oid) FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid WHERE pronamespace = 'pushy_internal'::regnamespace"
    before = db.value(state)
    for statement in ("DISABLE TRIGGER ALL", "ENABLE TRIGGER ALL", "DISABLE TRIGGER USER", "DISABLE TRIGGER pass_over_row", "ENABLE REPLICA TRIGGER pass_over_row"):
        db.sql(f"ALTER TABLE pushy_internal.live_job {statement}")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="triggers of pushy_internal.live_job stay as they are"):
            db.sql(f"ALTER TABLE pushy_internal.live_job {statement}, SET (fillfactor = 80)")
    assert db.value(state) == before and set(before) == {"A"}
    db.sql("CREATE TABLE mine (); ALTER TABLE mine DISABLE TRIGGER ALL")


def test_numbers_of_loaded_jobs_are_not_given_out_again(db, shop):
    """Where the sequence was not loaded with them."""
    db.sql("CREATE FUNCTION note() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'note()')")
    ahead = db.value("SELECT max(pushy.enqueue('q')) + 3 FROM generate_series(1, 3)")
    db.sql("INSERT INTO pushy_internal.live_job (id, position, run_at, enqueued_at, queue_id, enqueued_by, priority, depth, state, args) "
           "VALUES (%s, 1, now(), now(), 1, 10, 3, 0, 'a', '{}')", ahead)
    numbers = [number for number, in db.rows("SELECT pushy.enqueue('q') FROM generate_series(1, 10)")]
    loaded = db.value("SELECT id FROM pushy_internal.live_job WHERE queue_id < 0")
    assert ahead in numbers and loaded % 2 ** 42 == ahead and 2 ** 42 < loaded < 2 ** 53


def test_watches_of_a_dump_that_is_loaded_beside_others_arrive(shop):
    """Theirs and ours had the same numbers, so that none of them came."""
    db = shop.cluster.database()
    deploy(db, ("b",))
    db.sql("SELECT pushy.watch('goods', queue => 'b', name => 'ours')")
    watches = "SELECT name, queue, home_database <> 0 FROM pushy_internal.watch ORDER BY 1"
    file = dump(shop, ["-Fc"])
    for _ in range(2):
        # The second time they are here.
        done = load(db, file, ["--data-only", "-t", "watch"], ())
        assert done.returncode == 0, done.stderr
        assert db.rows(watches) == [("a", "a", False), ("ours", "b", True)]
    assert db.value("SELECT count(DISTINCT watch_id) FROM pushy_internal.watch") == 2
    said = db.value("SELECT string_agg(reason, ' ') FROM pushy.resume_after_restore() WHERE kind = 'rows'")
    assert "these watches are here" in said
    db.drop()
