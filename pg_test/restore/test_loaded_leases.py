"""Leases, logs and checkpoints of jobs that a dump brings: they go with their jobs, hold nothing for ever, and end nothing of what is here."""

import pytest

from harness.gate import Gate
from stage.dumps import dump, restore
from stage.leases import claim, enqueue, state

OUTSIDE = "SELECT pushy.queue_register('mails', lease => '1 hour', max_attempts => 3, retry_delay => '0')"


@pytest.fixture(scope="module")
def server(new_cluster):
    cluster = new_cluster()
    yield cluster
    cluster.remove()


HANDLERS = """
    CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
    DECLARE done int := coalesce(((pushy.current_job()).checkpoint->>'done')::int, 0);
    BEGIN
        FOR n IN done + 1 .. 2 LOOP
            INSERT INTO public.chunks VALUES (n);
            PERFORM pushy.job_checkpoint(jsonb_build_object('done', n));
            COMMIT;
        END LOOP;
    END $$;
    CREATE FUNCTION later() RETURNS void LANGUAGE plpgsql AS
        $$BEGIN PERFORM pushy.job_log('not now'), pushy.job_checkpoint('[1]'), pushy.job_snooze('1 day'); END$$"""


class Shop:
    """A database with a job of each kind of lease, and its dump in one file."""

    def __init__(self, server):
        self.db = db = server.database()
        gate = Gate(db)
        db.sql(f"""
            {OUTSIDE};
            CREATE TABLE chunks (n int);
            {HANDLERS.replace("COMMIT;", f"COMMIT; IF n = 1 AND current_database() = '{db.name}' THEN PERFORM {gate.stop}; END IF;")};
            SELECT pushy.queue_register('inside', 'work()'), pushy.queue_register('later', 'later()')""")
        self.timed, self.over, self.bound, self.free = enqueue(db, 4)
        ((_, self.token), _), = [claim(db, 2)]
        self.session = db.connect()
        self.session.execute("SELECT pushy.job_claim('mails', lease => '0')")
        assert db.value("SELECT pushy.job_log('begun', 'info', %s, %s)", self.timed, self.token)
        self.inside = db.value("SELECT pushy.enqueue('inside')")
        self.put_off = db.value("SELECT pushy.enqueue('later')")
        gate.wait_for_arrival()
        db.wait_until("SELECT state::text FROM pushy.jobs WHERE id = %s", "scheduled", params=(self.put_off,))
        self.numbers = {table: {job for job, in db.rows(f"SELECT job_id FROM pushy_internal.{table}")} for table in ("lease", "job_log", "checkpoint")}
        self.file = server.folder / f"{db.name}.dump"
        server.run("pg_dump", "-h", server.folder, "-p", server.port, "-U", "postgres", "-Fc", "-f", self.file, db.name)
        gate.open()
        db.job_wait(self.inside)

    def load(self, db, *options, without=()):
        where = ["-h", db.cluster.folder, "-p", db.cluster.port, "-U", "postgres", "-d", db.name]
        if without:
            entries = db.cluster.run("pg_restore", "-l", self.file).stdout.splitlines()
            chosen = db.cluster.folder / f"{db.name}.list"
            chosen.write_text("\n".join(entry for entry in entries if not any(f" TABLE DATA pushy_internal {table} " in entry for table in without)))
            options = [*options, "-L", chosen]
        return db.cluster.run("pg_restore", *where, *options, self.file, check=False)


@pytest.fixture(scope="module")
def shop(server):
    shop = Shop(server)
    yield shop
    shop.session.close()


def states(db) -> dict:
    return dict(db.rows("SELECT id, state FROM pushy.jobs"))


def test_a_copy_keeps_what_holds_by_time_and_nothing_of_sessions_and_executors_that_are_not_there(shop, server):
    copy = server.database(extension=False)
    assert shop.load(copy).returncode == 0
    running = {shop.timed: "running", shop.over: "running", shop.bound: "running", shop.free: "available", shop.inside: "running", shop.put_off: "scheduled"}
    assert states(copy) == running, "as it was dumped, until somebody says that it is at home"
    assert copy.value("SELECT count(*) FROM pushy.leases") == 4
    assert copy.rows("SELECT job_id, message FROM pushy.job_logs ORDER BY job_id") == [(shop.timed, "begun"), (shop.put_off, "not now")]
    copy.sql("UPDATE pushy_internal.lease SET until = leased_at + '1 us' WHERE job_id = %s", shop.over)
    copy.sql("SELECT pushy.resume_after_restore()")
    # Over: charged, as anywhere. Of a session, which goes on and has claimed nothing here: free, and nobody is charged.
    copy.wait_until("SELECT array_agg(job_id) FROM pushy.leases", [shop.timed])
    assert copy.rows("SELECT job_id, attempt, sqlstate FROM pushy.failures") == [(shop.over, 1, "08006")]
    assert copy.rows("SELECT id, attempt FROM pushy.jobs WHERE queue = 'mails' AND state = 'available' ORDER BY id") == [(shop.over, 1), (shop.bound, 0), (shop.free, 0)]
    # The procedure goes on after its checkpoint.
    assert copy.job_wait(shop.inside)["state"] == "completed"
    assert copy.rows("SELECT n FROM chunks ORDER BY n") == [(1,), (2,)]
    assert copy.value("SELECT checkpoint FROM pushy.jobs WHERE id = %s", shop.put_off) == [1]
    # Who has the token has the job here too.
    assert copy.value("SELECT pushy.job_complete(%s, %s)", shop.timed, shop.token)
    assert {job for job, _ in claim(copy, 10)} == {shop.over, shop.bound, shop.free}
    assert state(shop.db, shop.timed) == "running", "the original is left alone"


@pytest.mark.parametrize("without", [("lease",), ("lease", "job_log", "checkpoint"), ("checkpoint",), ("job_log",)], ids="-".join)
def test_jobs_whose_leases_were_not_loaded_are_free(shop, server, without):
    copy = server.database(extension=False)
    shop.load(copy, without=without)
    copy.sql("SELECT pushy.resume_after_restore()")
    assert copy.job_wait(shop.inside)["state"] == "completed"
    copy.wait_until("SELECT count(*) FROM pushy.leases", 0 if "lease" in without else 2)
    expected = {shop.bound, shop.free} | ({shop.timed, shop.over} if "lease" in without else set())
    assert {job for job, _ in claim(copy, 10)} == expected
    assert copy.value("SELECT count(*) FROM pushy_internal.lease WHERE job_id = %s", shop.inside) == 0


@pytest.mark.parametrize("table", ["lease", "job_log", "checkpoint"])
def test_what_comes_without_its_jobs_holds_nobody_and_is_dropped(shop, server, table):
    db = server.database()
    db.sql(OUTSIDE)
    shop.load(db, "--data-only", "-t", table)
    assert db.value(f"SELECT count(*) FROM pushy_internal.{table}") > 0
    # Numbers that the dump has are not given out again.
    assert set(enqueue(db, 8)).isdisjoint(shop.numbers[table])
    claimed = claim(db, 8)
    assert len(claimed) == 8
    db.sql("SELECT pushy.resume_after_restore(drop_rest => true)")
    assert db.value(f"SELECT count(*) FROM pushy_internal.{table} WHERE queue_id < 0") == 0
    assert all(db.value("SELECT pushy.job_complete(%s, %s)", job, token) for job, token in claimed)


def test_what_is_of_a_job_here_is_not_the_dumps(shop, server):
    """Numbers of jobs are others' elsewhere."""
    db = server.database()
    db.sql(OUTSIDE)
    mine = enqueue(db, 8)
    assert set(mine) >= {shop.timed, shop.over, shop.bound}
    claimed = claim(db, 8)
    before = db.rows("SELECT * FROM pushy_internal.lease ORDER BY job_id")
    shop.load(db, "--data-only")
    assert db.rows("SELECT * FROM pushy_internal.lease WHERE queue_id > 0 ORDER BY job_id") == before
    assert db.rows("SELECT * FROM pushy.job_logs WHERE job_id = ANY (%s)", mine) == []
    assert not db.value("SELECT pushy.job_complete(%s, %s)", shop.timed, shop.token)
    db.sql("SELECT pushy.queue_drop('inside', true), pushy.queue_drop('later', true)")
    db.sql("SELECT pushy.resume_after_restore(drop_rest => true)")
    assert all(db.value("SELECT pushy.job_complete(%s, %s)", job, token) for job, token in claimed)
    assert db.value("SELECT count(*) FROM pushy_internal.lease") == 0


BESIDE = ["lease", "job_log", "checkpoint"]
ORDERS = {"at once": [()], "jobs first": [("live_job",), BESIDE, ("queue",)], "leases first": [BESIDE, ("queue",), ("live_job",)]}


@pytest.mark.parametrize("order", ORDERS)
def test_they_go_with_their_jobs_to_other_numbers(shop, server, order):
    """Where a database has given out numbers of its own, jobs of a dump have others."""
    db = server.database()
    db.sql(f"CREATE TABLE chunks (n int); {HANDLERS}; {OUTSIDE.replace('mails', 'here')}")
    db.sql("SELECT count(pushy.enqueue('here', to_jsonb(n))) FROM generate_series(1, 8) n")
    mine = db.rows("SELECT job_id, token FROM pushy.job_claim('here', 8)")
    for again in range(2):
        for tables in ORDERS[order]:
            said = shop.load(db, "--data-only", "-n", "pushy_internal", *(option for table in tables for option in ("-t", table))).stderr or ""
            assert "ERROR" not in said and (again or "WARNING" not in said), said
    assert db.value("SELECT count(*) FROM pushy_internal.lease WHERE queue_id < 0") == 4
    db.sql("SELECT pushy.resume_after_restore()")
    numbers = dict(db.rows("SELECT (args ->> 'n')::int, id FROM pushy.jobs WHERE queue = 'mails'"))
    timed, over, bound, free = (numbers[n] for n in range(4))
    assert not {timed, over, bound, free} & {shop.timed, shop.over, shop.bound, shop.free}
    db.wait_until("SELECT array_agg(job_id ORDER BY job_id) FROM pushy.leases WHERE queue = 'mails'", sorted([timed, over]))
    assert db.rows("SELECT job_id, message FROM pushy.job_logs WHERE queue = 'mails'") == [(timed, "begun")]
    assert db.value("SELECT pushy.job_complete(%s, %s)", timed, shop.token)
    inside, put_off = (db.value("SELECT id FROM pushy.jobs WHERE queue = %s", queue) for queue in ("inside", "later"))
    assert db.job_wait(inside)["state"] == "completed"
    assert db.rows("SELECT n FROM chunks ORDER BY n") == [(2,)], "after its checkpoint"
    assert db.rows("SELECT job_id, message FROM pushy.job_logs WHERE queue = 'later'") == [(put_off, "not now")]
    assert db.value("SELECT checkpoint FROM pushy.jobs WHERE id = %s", put_off) == [1]
    # Behind nobody who came later.
    later = enqueue(db, 2)
    assert [job for job, _ in claim(db, 10)] == [bound, free, *later]
    assert all(db.value("SELECT pushy.job_complete(%s, %s)", job, token) for job, token in mine)


def test_a_job_whose_lease_did_not_come_stands_where_it_stood_first_under_its_other_number(shop, server):
    db = server.database()
    db.sql(f"CREATE TABLE chunks (n int); {HANDLERS}; {OUTSIDE.replace('mails', 'here')}")
    db.sql("SELECT pushy.enqueue('here')")
    shop.load(db, "--data-only", "-n", "pushy_internal", without=("lease",))
    db.sql("SELECT pushy.resume_after_restore()")
    loaded = [job for job, in db.rows("SELECT id FROM pushy.jobs WHERE queue = 'mails' ORDER BY args ->> 'n'")]
    later = enqueue(db, 2)
    assert [job for job, _ in claim(db, 10)] == [*loaded, *later]


def test_what_is_loaded_under_the_number_of_anothers_job_is_not_that_ones(shop, server):
    """As where two databases had it, of which both are loaded, and one's job had to have another number."""
    copy = server.database(extension=False)
    assert shop.load(copy).returncode == 0
    for table in BESIDE:
        copy.sql(f"UPDATE pushy_internal.{table} SET queue_id = -1, job_id = %s WHERE job_id = (SELECT min(job_id) FROM pushy_internal.{table})", shop.free)
    copy.sql("SELECT pushy.resume_after_restore()")
    for table in BESIDE:
        assert copy.value(f"SELECT count(*) FROM pushy_internal.{table} WHERE job_id = %s", shop.free) == 0, table
    assert shop.free in {job for job, _ in claim(copy, 10)}


def test_a_copy_in_the_same_server_holds_nothing_for_those_at_work_in_its_origin(server):
    db = server.database()
    gate = Gate(db)
    stop = f"COMMIT; IF n = 1 AND current_database() = '{db.name}' THEN PERFORM {gate.stop}; END IF;"
    db.sql(f"{OUTSIDE}; CREATE TABLE chunks (n int); {HANDLERS.replace('COMMIT;', stop)}; SELECT pushy.queue_register('inside', 'work()')")
    [bound] = enqueue(db)
    session = db.connect()
    session.execute("SELECT job_id FROM pushy.job_claim('mails', lease => '0')")
    inside = db.value("SELECT pushy.enqueue('inside')")
    gate.wait_for_arrival()
    copy, _ = restore(server, dump(db), f"{db.name}_copy")
    copy.rows("SELECT * FROM pushy.resume_after_restore()")
    copy.wait_until("SELECT string_agg(queue || ' ' || state::text, ', ' ORDER BY queue) FROM pushy.jobs", "inside completed, mails available")
    assert copy.value("SELECT count(*) FROM pushy_internal.lease") == 0
    assert not any("leased" in reason for reason, in copy.rows("SELECT reason FROM pushy.queue_explain('inside')"))
    assert [state(db, job) for job in (bound, inside)] == ["running", "running"]
    gate.open()
    assert db.job_wait(inside)["attempt"] == 1
