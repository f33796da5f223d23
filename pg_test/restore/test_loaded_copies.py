"""Two copies of a database that have gone on, each its own way, dumped and loaded into one before anybody resumes: the same numbers are of different
jobs, and the same jobs are in different states. Nothing fails, each job is there once, and what hangs on a job is its own."""

import itertools
import json

import pytest

from harness.database import Database
from stage.loads import BESIDE, JOBS, dump, load, promise

DEPLOY = """
    CREATE TABLE ran (queue text, n int, copy text);
    CREATE FUNCTION work(job pushy.job) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE label text := (job.args ->> 'copy') || ' ' || (job.args ->> 'n');
    BEGIN
        INSERT INTO public.ran VALUES (job.queue, (job.args ->> 'n')::int, job.args ->> 'copy');
        CASE job.queue
            WHEN 'put off' THEN PERFORM pushy.job_log(label), pushy.job_checkpoint(to_jsonb(label)), pushy.job_snooze('1 day');
            WHEN 'retried', 'discarded' THEN RAISE '%', label;
            ELSE NULL;
        END CASE;
    END$$;
    SELECT pushy.queue_register(q, lease => '1 day', retry_delay => '1 day') FROM unnest('{waits,later,leased,keyed}'::text[]) q;
    SELECT pushy.queue_register(q, 'work(pushy.job)', retry_delay => '1 day', max_attempts => CASE q WHEN 'discarded' THEN 1 END)
      FROM unnest('{put off,retried,discarded,completed,promised}'::text[]) q;
    SELECT pushy.queue_pause(q) FROM unnest('{put off,retried,discarded,completed,promised}'::text[]) q"""
RUN = ("put off", "retried", "discarded", "completed")
KINDS = ("waits", "later", "leased", "keyed", "promised", *RUN)
# What becomes of a job that both copies have.
ENDS = ("free", "leased", "failed", "completed", "discarded")
COMMON = 1000


@pytest.fixture(scope="module")
def server(new_cluster):
    cluster = new_cluster()
    yield cluster
    cluster.remove()


def go_on(db, name: str, kinds: list[str], ends: list[str]) -> None:
    """A job of each kind, in this order, so that their numbers are the same in each copy; and the common jobs."""
    db.sql("SELECT pushy.resume_after_restore()")
    for job, token, args in db.rows("SELECT job_id, token, args FROM pushy.job_claim('leased', 1000, worker => %s)", name):
        end = ends[args["n"] - COMMON]
        if end != "free":
            db.sql("SELECT pushy.job_log(%s, 'info', %s, %s)", f"{name} {args['n']}", job, token)
        db.sql({"free": "SELECT pushy.job_release(%s, %s)", "leased": "SELECT %s, %s", "failed": f"SELECT pushy.job_fail(%s, %s, '{name}', retry_in => '1 day')",
                "completed": "SELECT pushy.job_complete(%s, %s)", "discarded": f"SELECT pushy.job_fail(%s, %s, '{name}', discard => true)"}[end], job, token)
    for n, kind in enumerate(kinds):
        options = {"later": ", delay => '1 day'", "keyed": f", unique_key => 'k{n}'"}.get(kind, "")
        job = db.value(f"SELECT pushy.enqueue(%s, %s{options})", kind, json.dumps({"n": n, "copy": name}))
        if kind == "promised":
            promise(db, job)
    leased = kinds.count("leased")
    # Behind those of before that are free.
    for job, token, args in db.rows("SELECT job_id, token, args FROM pushy.job_claim('leased', 1000, worker => %s)", name):
        if args["n"] >= COMMON:
            db.sql("SELECT pushy.job_release(%s, %s)", job, token)
        else:
            leased -= 1
            db.sql("SELECT pushy.job_log(%s, 'info', %s, %s)", f"{name} {args['n']}", job, token)
    assert leased == 0
    for queue in RUN:
        db.sql("SELECT pushy.queue_resume(%s)", queue)
    for queue in RUN:
        db.wait_until("SELECT count(*) FROM pushy.jobs WHERE queue = %s AND state IN ('available', 'running')", 0, params=(queue,))


SEEN = """
    SELECT j.args ->> 'copy', (j.args ->> 'n')::int, j.queue, j.state, j.attempt,
           (SELECT array_agg(l.message ORDER BY l.line) FROM pushy.job_logs l WHERE l.job_id = j.id),
           (SELECT array_agg(f.message ORDER BY f.attempt) FROM pushy.failures f WHERE f.job_id = j.id AND f.queue = j.queue),
           (SELECT l.worker FROM pushy.leases l WHERE l.job_id = j.id), j.checkpoint, j.unique_key
      FROM pushy.jobs j"""


def seen(db) -> tuple[dict, dict]:
    """Jobs of one copy, and those of both, with what hangs on them; those that are there twice fail."""
    rows = db.rows(SEEN)
    jobs = {row[:2]: row[2:] for row in rows}
    assert len(jobs) == len(rows), "a job is there twice"
    return ({who: what for who, what in jobs.items() if who[0] != "both"}, {who[1]: what for who, what in jobs.items() if who[0] == "both"})


@pytest.fixture(scope="module")
def copies(server):
    base = server.database()
    base.sql(DEPLOY)
    pairs = list(itertools.product(KINDS, KINDS))
    ends = list(itertools.product(ENDS, ENDS))
    for n in range(len(ends)):
        base.sql("SELECT pushy.enqueue('leased', %s)", json.dumps({"n": COMMON + n, "copy": "both"}))
    base.close()
    files, all_jobs, both = [], {}, []
    for at, name in enumerate(("one", "two")):
        with server.connect() as admin:
            admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{base.name}"')
        db = Database(server, name)
        go_on(db, name, [pair[at] for pair in pairs], [pair[at] for pair in ends])
        mine, common = seen(db)
        all_jobs |= mine
        both.append(common)
        files.append(dump(db))
        numbers = dict(db.rows("SELECT (args ->> 'n')::int, id FROM pushy.jobs WHERE args ->> 'copy' <> 'both'"))
        assert at == 0 or numbers == first, "the same numbers in each copy"
        first = numbers
        db.drop()
    base.drop()
    return files, all_jobs, both


QUEUE = ["queue"]
ONE, TWO = 0, 1
ORDERS = {
    "one after the other": [(ONE, None), (TWO, None)],
    "table by table": [(ONE, JOBS), (TWO, JOBS), (ONE, BESIDE), (TWO, BESIDE), (ONE, QUEUE), (TWO, QUEUE)],
    "what hangs on jobs first": [(ONE, BESIDE), (TWO, BESIDE), (ONE, JOBS), (TWO, JOBS), (TWO, QUEUE)],
    "crossed": [(ONE, JOBS), (TWO, BESIDE), (TWO, JOBS), (ONE, BESIDE), (ONE, QUEUE)],
    "crossed, what hangs on jobs first": [(ONE, BESIDE), (TWO, JOBS), (ONE, JOBS), (TWO, BESIDE), (ONE, QUEUE)],
    "each twice": [(ONE, None), (TWO, None), (ONE, None), (TWO, None)],
}


@pytest.mark.parametrize("is_fresh", [True, False], ids=["fresh", "with jobs"])
@pytest.mark.parametrize("order", ORDERS)
def test_each_job_of_two_copies_is_there_once_with_what_is_its_own(copies, server, order, is_fresh):
    files, expected, both = copies
    db = server.database()
    db.sql(DEPLOY.split(";\n    SELECT pushy.queue_register")[0])
    mine = []
    if not is_fresh:
        db.sql("SELECT pushy.queue_register('mine')")
        mine = db.rows("SELECT pushy.enqueue('mine', '{\"copy\": \"mine\"}') FROM generate_series(1, 200)")
    for copy, tables in ORDERS[order]:
        said = load(db, files[copy], tables)
        assert "ERROR" not in said, said
    told = db.rows("SELECT name, reason FROM pushy.resume_after_restore() WHERE kind = 'jobs'")
    db.sql("SELECT pushy.queue_resume('promised')")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE queue = 'promised' AND state <> 'cancelled'", 0)
    db.sql("DELETE FROM pushy_internal.live_job WHERE args ->> 'copy' = 'mine'") if mine else None
    here, common = seen(db)
    wanted = {who: ("promised", "cancelled", *what[2:]) if what[0] == "promised" else what for who, what in expected.items()}
    assert {who: (what, wanted.get(who)) for who, what in here.items() if what != wanted.get(who)} == {} and here.keys() == wanted.keys()
    assert told == [] and db.rows("SELECT * FROM ran") == []
    wrong = {}
    for n, what in common.items():
        states = {one[n][1] for one in both}
        # It is as one of them says; where it has ended in one, it has ended.
        ended = states & {"completed", "discarded"}
        if what[1] not in (ended or states) or (what[1] == "running") != (what[5] is not None) or len(what[4] or []) != what[2] - (what[1] == "running" or what[1] == "completed"):
            wrong[n] = (what, states)
    assert wrong == {} and common.keys() == both[0].keys()
    # Who enqueues a key that two wait for is answered one of them.
    keys = db.rows("SELECT unique_key, array_agg(id) FROM pushy.jobs WHERE queue = 'keyed' GROUP BY 1")
    assert {len(jobs) for _, jobs in keys} == {1, 2}
    assert all(db.value("SELECT pushy.enqueue('keyed', unique_key => %s)", key) in jobs for key, jobs in keys)
    db.drop()


INSERT = ("INSERT INTO pushy_internal.live_job (id, position, run_at, enqueued_at, queue_id, enqueued_by, priority, depth, state, args) "
          "VALUES ({0}, {0}, now(), now(), {1}, 10, 5, 0, 'a', '{{}}')")
FAILURE = "INSERT INTO pushy_internal.failure (job_id, attempt, queue_id, failed_at, sqlstate, message) VALUES ({0}, 1, {1}, now(), 'P0001', 'no')"
NOTHING = "CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('mine', 'nothing()', keep_completed => '0')"
LOADED = "SELECT id FROM pushy_internal.live_job WHERE queue_id < 0"


def test_what_a_savepoint_has_loaded_is_forgotten_with_it(db):
    db.sql(NOTHING)
    db.sql(f"DO $$BEGIN BEGIN {INSERT.format(7, 3)}; RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END; {INSERT.format(7, 3)}; END$$")
    # From here on only what has kept its number goes on to do so.
    db.sql("SELECT pushy.enqueue('mine')")
    db.sql(FAILURE.format(7, 3))
    assert db.rows("SELECT job_id FROM pushy_internal.failure") == db.rows(LOADED) == [(7,)]


def test_what_a_transaction_of_a_statement_has_loaded_is_forgotten_with_it(db):
    db.sql(NOTHING)
    db.sql(f"DO $$BEGIN {INSERT.format(7, 3)}; ROLLBACK; {INSERT.format(7, 3)}; END$$")
    db.sql("SELECT pushy.enqueue('mine')")
    db.sql(FAILURE.format(7, 3))
    assert db.rows("SELECT job_id FROM pushy_internal.failure") == db.rows(LOADED) == [(7,)]


def test_of_two_loads_at_once_one_keeps_its_numbers_and_nobody_waits(db):
    db.sql(NOTHING)
    there, elsewhere = 1_000, 5_000_000
    with db.connect(autocommit=False) as first, db.connect(autocommit=False) as second, db.connect(autocommit=False) as same:
        for session in (first, second, same):
            session.execute("SET LOCAL lock_timeout = '1s'")
        first.execute(INSERT.format(5, there))
        second.execute(INSERT.format(5, elsewhere))
        same.execute(FAILURE.format(6, there))
        same.execute(INSERT.format(7, there + 1))
        for session in (second, same, first):
            session.commit()
    ids = sorted(job for job, in db.rows(LOADED))
    assert ids[:2] == [5, 7] and ids[2] > 2 ** 42 and ids[2] % 2 ** 42 == 5
    assert db.value("SELECT job_id FROM pushy_internal.failure") == 6


def test_a_restart_in_the_midst_of_a_load_changes_no_number(make_cluster):
    db = make_cluster().database()
    db.sql(NOTHING)
    db.sql(INSERT.format(5, 3))
    job = db.value("SELECT pushy.enqueue('mine')")
    db.jobs_wait("mine")
    # The dump's own job of that number.
    db.sql(FAILURE.format(job, 3))
    db.cluster.restart()
    db.sql(INSERT.format(job, 3))
    db.sql(INSERT.format(4, 3))
    failed = db.value("SELECT job_id FROM pushy_internal.failure")
    assert failed > 2 ** 42 and sorted(job for job, in db.rows(LOADED)) == [4, 5, failed]
    assert db.value("SELECT pushy.enqueue('mine')") > job


def test_whatever_a_dump_says_ours_go_on_below_the_numbers_of_loaded_jobs(make_cluster):
    db = make_cluster().database()
    db.sql(NOTHING)
    for number in (2 ** 41 - 1, 2 ** 41, 2 ** 42 - 1):
        db.sql(INSERT.format(number, 3))
    for _ in range(2):
        assert db.value("SELECT pushy.enqueue('mine')") < 2 ** 41 + 1_000_000
        db.cluster.restart()
    assert db.value("SELECT count(*) FROM pushy_internal.live_job WHERE queue_id < 0 AND position >= 2 ^ 41") == 0
    db.sql("SELECT pushy.enqueue('mine')")


def test_two_dumps_of_one_database_at_different_times_bring_both_jobs_of_a_key(server):
    source = server.database()
    source.sql("SELECT pushy.queue_register('keyed', keep_completed => '0')")
    source.sql("SELECT pushy.enqueue('keyed', '1', unique_key => 'k')")
    files = [dump(source)]
    (job, token), = source.rows("SELECT job_id, token FROM pushy.job_claim('keyed')")
    source.sql("SELECT pushy.job_complete(%s, %s)", job, token)
    source.sql("SELECT pushy.enqueue('keyed', '2', unique_key => 'k')")
    files.append(dump(source))
    for order in (files, files[::-1]):
        db = server.database(extension=False)
        db.sql("CREATE EXTENSION pushy")
        for file in order:
            said = load(db, file, None)
            assert "ERROR" not in said, said
        db.sql("SELECT pushy.resume_after_restore()")
        assert db.rows("SELECT args FROM pushy.job_claim('keyed', 5) ORDER BY 1") == [(1,), (2,)]
        db.drop()
    source.drop()
