"""What queue_explain says, case by case, and that its fix is one."""

import psycopg
import pytest

from harness.gate import Gate
from harness.refusal import refused
from harness.versions import skip_unless_workers_must_log_in
from stage.life import end_executors


NOTHING = "no unfinished job is in the queue; what an open transaction has enqueued is not seen before its commit"


@pytest.fixture
def fine(db):
    db.sql("CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'fine')")
    return db


def explained(db, queue="q"):
    return db.rows("SELECT reason, fix FROM pushy.queue_explain(%s)", queue)


def test_an_idle_queue_has_nothing_to_do(fine):
    assert explained(fine) == [(NOTHING, None)]


def test_a_pause_is_the_first_thing_said_and_its_fix_works(fine):
    fine.sql("SELECT pushy.queue_pause('q')")
    fine.sql("SELECT pushy.enqueue('q')")
    [(reason, fix)] = explained(fine)
    assert reason == "the queue is paused"
    fine.sql(fix)
    fine.jobs_wait("q")


def test_jobs_for_later_tell_when_the_first_is_due(fine):
    fine.sql("SET timezone = 'UTC'; SELECT pushy.enqueue('q', run_at => '2100-01-02 03:04:05+00'), pushy.enqueue('q', delay => '200 years')")
    assert explained(fine) == [("2 jobs are not due yet, the first at 2100-01-02 03:04:05+00", None)]


def test_jobs_between_attempts_are_told_with_the_call_that_runs_them_now(db):
    db.sql("CREATE FUNCTION bad() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
           "SELECT pushy.queue_register('q', 'bad()', retry_delay => '1 hour')")
    job = db.value("SELECT pushy.enqueue('q')")
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "retryable", params=(job,))
    [(reason, fix)] = explained(db)
    assert reason.startswith("1 job failed and wait")
    assert db.rows(fix) == [(True,)]


def gated(db, jobs: int, **options) -> Gate:
    gate = Gate(db)
    said = "".join(f", {name} => {value}" for name, value in options.items())
    db.sql(f"CREATE FUNCTION gated() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;"
           f"SELECT pushy.queue_register('q', 'gated()', batch => false{said})")
    db.sql("SELECT pushy.enqueue('q') FROM generate_series(1, %s)", jobs)
    return gate


@pytest.mark.parametrize("concurrency, fix", [(1, None), (2, "SELECT pushy.queue_alter('q', concurrency => 3)")])
def test_the_limit_of_concurrency_is_told_with_the_jobs_that_hold_it(make_cluster, concurrency, fix):
    """One after the other is what was asked for: nothing to mend."""
    db = make_cluster({"pushy.max_executors": 3}).database()
    gate = gated(db, 3, concurrency=concurrency)
    pids = gate.wait_for_arrival(concurrency)
    [(reason, how)] = explained(db)
    assert f"its concurrency of {concurrency}" in reason and "; the others wait for" in reason and how == fix
    assert all(f"in process {pid}" in reason for pid in pids)
    gate.open()
    db.jobs_wait("q")


def test_those_that_wait_behind_running_ones_are_told_what_for(make_cluster):
    db = make_cluster({"pushy.max_executors": 1}).database()
    gate = gated(db, 1)
    gate.wait_for_arrival()
    assert ["jobs are running" in reason for reason, _ in explained(db)] == [True]
    db.sql("SELECT pushy.enqueue('q')")
    [(running, _), (others, fix)] = explained(db)
    assert "jobs are running" in running and others.startswith("the only executor is busy (pushy.max_executors): it works for ") and "pushy.max_executors = 2" in fix
    gate.open()
    db.jobs_wait("q")


def test_a_parked_queue_whose_obstacle_is_gone_says_so(fine, role):
    name = role()
    fine.sql("SELECT pushy.queue_register('q', 'fine', run_as => %s)", name)
    fine.sql("REVOKE EXECUTE ON FUNCTION fine(jsonb) FROM PUBLIC; SELECT pushy.enqueue('q')")
    fine.wait_until("SELECT parked FROM pushy.queues", lambda parked: parked is not None)
    fine.sql(f"GRANT EXECUTE ON FUNCTION fine(jsonb) TO {name}")
    [(reason, fix)] = explained(fine)
    assert reason == f"the queue was parked, because role {name} may not execute handler public.fine(jsonb); that is mended"
    fine.sql(fix)
    fine.jobs_wait("q")


def test_a_dropped_handler_is_told_and_can_be_created_again(fine):
    fine.sql("DROP FUNCTION fine(jsonb)")
    fine.sql("SELECT pushy.enqueue('q')")
    fine.wait_until("SELECT parked FROM pushy.queues", lambda parked: parked is not None)
    [(reason, fix), *_] = explained(fine)
    assert "handler public.fine(jsonb) does not exist" in reason
    assert "SELECT pushy.queue_resume('q')" in fix
    fine.sql("CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_resume('q')")
    fine.jobs_wait("q")


@pytest.mark.parametrize("take_away, reason, fix", [
    ("REVOKE EXECUTE ON FUNCTION fine(jsonb) FROM PUBLIC", "may not execute", "GRANT EXECUTE ON FUNCTION public.fine(jsonb) TO {}"),
    ("REVOKE USAGE ON SCHEMA public FROM PUBLIC", "no USAGE", "GRANT USAGE ON SCHEMA public TO {}"),
    ("ALTER ROLE {} NOLOGIN", "log in", "ALTER ROLE {} LOGIN"),
    ("REVOKE CONNECT ON DATABASE {db} FROM PUBLIC", "may not connect", "GRANT CONNECT ON DATABASE {db} TO {}"),
])
def test_a_right_that_was_taken_away_is_told_and_words_say_what_gives_it_back(fine, role, take_away, reason, fix):
    if "NOLOGIN" in take_away:
        skip_unless_workers_must_log_in(fine)
    name = role()
    fill = lambda text: text.replace("{db}", fine.name).replace("{}", name)  # noqa: E731
    fine.sql("SELECT pushy.queue_register('q', 'fine', run_as => %s)", name)
    fine.sql(fill(take_away))
    [(said, how), *_] = explained(fine)
    # An executor that looked meanwhile has parked the queue.
    assert reason in said and how.removesuffix("; then SELECT pushy.queue_resume('q')").endswith("; else: " + fill(fix))
    # No statement that undoes, pasted without a thought, what somebody did on purpose.
    assert how.startswith("Ask ")
    with pytest.raises(psycopg.errors.SyntaxError):
        fine.sql(how)
    fine.sql(fill(fix))
    fine.sql("SELECT pushy.queue_resume('q')")
    job = fine.value("SELECT pushy.enqueue('q')")
    assert fine.job_wait(job)["state"] == "completed"


@pytest.mark.parametrize("settings, reason, fix", [
    ({"pushy.enabled": "off"}, "pushy.enabled is off", "pushy.enabled = on"),
    ({"pushy.max_executors": 0}, "pushy.max_executors is 0", "pushy.max_executors"),
    ({"pushy.databases": "elsewhere"}, "pushy.databases", "elsewhere,shop"),
])
def test_a_setting_that_stops_everything_is_told_and_the_fix_starts_it(make_cluster, settings, reason, fix):
    cluster = make_cluster(settings)
    db = cluster.database("shop")
    db.sql("CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'fine')")
    db.sql("SELECT pushy.enqueue('q')")
    [(said, how), *_] = explained(db)
    assert reason in said and fix in how
    # Words: two statements in one message would be one transaction, in which ALTER SYSTEM does not run.
    for statement in how.removeprefix("Run ").removesuffix(" as a statement of its own").split(", then "):
        db.sql(statement)
    db.jobs_wait("q")


@pytest.mark.parametrize("slots, reason", [(1, "launcher is not running"), (2, "all 2 slots")])
def test_a_server_without_room_for_workers_is_told(make_cluster, slots, reason):
    """PostgreSQL's own launcher of logical replication takes the first slot."""
    db = make_cluster({"max_worker_processes": slots, "max_parallel_workers": 0}).database()
    db.sql("CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'fine')")
    db.sql("SELECT pushy.enqueue('q')")
    db.wait_until_told("q", reason)
    assert "max_worker_processes = " in explained(db)[0][1]


def test_leases_that_nobody_ends_for_want_of_room_are_told(make_cluster):
    """Their jobs come back with a server that has room; until then no limit is to blame, and a claim says why it finds nothing."""
    db = make_cluster({"max_worker_processes": 8, "max_parallel_workers": 0}).database()
    for name, options in (("limited", ", concurrency => 2"), ("free", "")):
        db.sql(f"SELECT pushy.queue_register('{name}', retry_delay => '0'{options})")
        db.sql(f"SELECT pushy.enqueue_many('{name}', array_fill('{{}}'::jsonb, ARRAY[2 + ('{name}' = 'limited')::int]))")
        assert len(db.rows(f"SELECT * FROM pushy.job_claim('{name}', 2, '1 day')")) == 2
    # As if they had been over while the server was down.
    db.cluster.configure(max_worker_processes=2)
    db.cluster.restart()
    db.sql("UPDATE pushy_internal.lease SET until = now() - interval '1 s', said_at = now() - interval '1 day', leased_at = now() - interval '1 day'")
    for name in ("limited", "free"):
        (reason, fix) = db.wait_until_told(name, "all 2 slots")
        assert "max_worker_processes = " in fix
        [(first, _), (reason, fix)] = explained(db, name)
        assert "all 2 slots" in first and fix is None
        assert reason.startswith("the leases of 2 jobs are over, the first since 2") and reason.endswith("and a scheduler would take back what was leased")
    with db.connect() as session:
        said = []
        session.add_notice_handler(lambda diag: said.append((diag.severity, diag.message_primary, diag.message_hint)))
        for _ in range(2):
            assert session.execute("SELECT * FROM pushy.job_claim('limited')").fetchall() == []
    [(severity, message, hint)] = said
    assert severity == "WARNING" and message.startswith('no job of queue "limited" can be claimed: leases are over, and nobody takes back what was leased, because no background')
    assert "max_worker_processes = " in hint
    db.cluster.configure(max_worker_processes=8)
    db.cluster.restart()
    db.wait_until("SELECT count(*) FROM pushy.leases", 0)


def test_executors_that_do_not_come_up_are_told_with_the_next_try(make_cluster):
    db = make_cluster({"pushy.max_executors": 1}).database()
    db.sql("CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'fine')")
    # The first executor comes unasked, to look whether the new queue has jobs: it has been there when this one is done.
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    end_executors(db)
    place = db.cluster.data / "pg_stat_tmp"
    place.rename(place.with_name("away"))
    db.sql("SELECT pushy.enqueue('q')")
    db.wait_until_told("q", "did not come up; the next is tried in")
    place.with_name("away").rename(place)
    db.jobs_wait("q")
    assert explained(db) == [(NOTHING, None)]


def test_a_queue_that_waits_for_the_server_is_told_with_the_next_try(fine):
    # In the catalog, because ALTER TABLE is refused.
    rename = "UPDATE pg_attribute SET attname = %s WHERE attrelid = 'pushy_internal.live_job'::regclass AND attname = %s"
    fine.sql("SELECT pushy.queue_pause('q'); SELECT pushy.enqueue('q')")
    fine.sql(rename, "something", "give_backs")
    end_executors(fine)
    fine.sql("SELECT pushy.queue_resume('q')")
    fine.wait_until_told("q", "they are tried again in")
    fine.sql(rename, "give_backs", "something")
    fine.jobs_wait("q")


def test_a_role_that_may_not_connect_is_told_by_a_restore_as_by_a_resume(db, role):
    name = role()
    db.sql(f"CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'fine', run_as => '{name}');"
           f"UPDATE pushy_internal.queue SET home_system = 1; REVOKE CONNECT ON DATABASE \"{db.name}\" FROM PUBLIC")
    [(queue, resumed, obstacle)] = db.rows("SELECT name, resumed, reason FROM pushy.resume_after_restore()")
    assert (queue, resumed) == ("q", False) and name in obstacle
    with pytest.raises(psycopg.Error, match=name):
        db.sql("SELECT pushy.queue_resume('q')")
    [(reason, fix), *_] = explained(db)
    assert "is parked" in reason and "GRANT CONNECT" in fix and "queue_resume" in fix
    db.sql(f"GRANT CONNECT ON DATABASE \"{db.name}\" TO {name}; SELECT pushy.queue_resume('q')")
    assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["state"] == "completed"


def test_jobs_of_a_prepared_transaction_are_told(make_cluster):
    db = make_cluster({"max_prepared_transactions": 2}).database()
    db.sql("CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'fine')")
    with db.connect(autocommit=False) as session:
        session.execute("SELECT pushy.enqueue('q')")
        session.execute("PREPARE TRANSACTION 'half done'")
    assert "half done" in str(explained(db))
    db.sql("COMMIT PREPARED 'half done'")


def test_a_template_copy_waits_until_it_is_told_to_run(db):
    db.sql("CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'fine');"
           "SELECT pushy.queue_register('gone', 'fine'), pushy.queue_grant('q', 'public', 'enqueue'), pushy.queue_pause('q')")
    job = db.value("SELECT pushy.enqueue('q')")
    db.sql("DROP FUNCTION fine(jsonb); CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'")
    db.close()
    copy = type(db)(db.cluster, db.name + "_copy")
    with db.cluster.connect() as admin:
        admin.execute(f"CREATE DATABASE {copy.name} TEMPLATE {db.name}")
    try:
        assert "pushy.resume_after_restore()" in explained(copy)[0][0] and explained(copy)[0][1] == "SELECT pushy.queue_resume('q')"
        refused(copy.main, "CALL pushy.jobs_wait('q', '10 s')", "55000", "by a restore or a copy", "SELECT pushy.queue_resume('q')")
        assert copy.main.execute("CALL pushy.jobs_wait('gone', '10 s')").fetchone() == (True,), "nothing is left to wait for"
        assert copy.rows("SELECT name, resumed, reason FROM pushy.resume_after_restore() ORDER BY name") == [
            ("gone", True, None), ("q", False, "the queue is paused; SELECT pushy.queue_resume('q')")]
        copy.sql("SELECT pushy.queue_resume('q')")
        assert copy.job_wait(job)["state"] == "completed"
        assert copy.value("SELECT pushy.has_queue_privilege('q', 'pg_monitor', 'enqueue')")
    finally:
        copy.drop()


def test_a_handler_that_another_role_has_created_again_is_told_with_fixes_that_work(db, role):
    """Where the handler could not run, to resume would be refused: so that comes first."""
    mine, other = role(), role()
    db.sql(f"GRANT CREATE ON SCHEMA public TO {mine}, {other}")
    create = "CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT'"
    db.sql(f"SET ROLE {mine}; {create}; SELECT pushy.queue_register('q', 'work()'), pushy.enqueue('q'); RESET ROLE")
    db.jobs_wait("q")
    db.sql(f"DROP FUNCTION work(); SET ROLE {other}; {create}; RESET ROLE; SELECT pushy.enqueue('q')")
    db.wait_until("SELECT parked FROM pushy.queues", lambda parked: parked is not None)
    [(reason, fix), *_] = explained(db)
    assert f"belongs to role {other} now, and belonged to {mine}" in reason
    # In words: whoever pastes a statement lets the code of another run.
    assert fix.startswith("Read public.work() first")
    db.sql(f"ALTER FUNCTION public.work() OWNER TO {mine}")
    [(reason, fix), *_] = explained(db)
    assert "was dropped and created again" in reason and fix == "SELECT pushy.queue_resume('q')"
    db.sql(fix)
    db.jobs_wait("q")


def test_idle_executors_of_another_database_are_not_called_busy(make_cluster):
    cluster = make_cluster({"pushy.max_executors": 1, "pushy.reserved_executors": 0, "pushy.executor_linger": "60 s"})
    here, there = cluster.database("here"), cluster.database("there")
    for db in (here, there):
        db.sql("CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'fine')")
    here.sql("SELECT pushy.queue_pause('q')")
    there.job_wait(there.value("SELECT pushy.enqueue('q')"))
    job = here.value("SELECT pushy.enqueue('q')")
    assert explained(here) == [("the queue is paused", "SELECT pushy.queue_resume('q')")]
    here.sql("SELECT pushy.queue_resume('q')")
    # Whatever it says at this moment, it does not call the idle one busy.
    for reason, _ in explained(here):
        assert "are busy" not in reason, reason
    assert here.job_wait(job)["state"] == "completed"


def test_nobody_is_about_to_take_up_the_due_jobs_of_a_queue_that_stands_still(db):
    db.sql("CREATE FUNCTION fine(args jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'fine')")
    db.sql("SELECT pushy.enqueue('q', run_at => clock_timestamp() + '100 ms')")
    db.close()
    copy = type(db)(db.cluster, db.name + "_due")
    with db.cluster.connect() as admin:
        admin.execute(f"CREATE DATABASE {copy.name} TEMPLATE {db.name}")
    try:
        copy.sql("UPDATE pushy_internal.live_job SET state = 's', position = NULL, run_at = clock_timestamp() - interval '1 s'")
        said = str(copy.rows("SELECT reason FROM pushy.queue_explain('q')"))
        assert "resume_after_restore" in str(explained(copy)) and "about to take them up" not in said
        copy.sql("SELECT pushy.resume_after_restore()")
        copy.jobs_wait("q")
    finally:
        copy.drop()


def test_whoever_holds_the_row_of_a_ready_job_is_named(fine):
    """Another request for the key of a job that waits keeps it from starting: in a session, and prepared."""
    fine.sql("SELECT pushy.queue_pause('q')")
    job = fine.value("SELECT pushy.enqueue('q', unique_key => 'k')")
    with fine.connect(autocommit=False) as session:
        assert session.execute("SELECT pushy.enqueue('q', unique_key => 'k')").fetchone() == (job,)
        fine.sql("SELECT pushy.queue_resume('q')")
        held = f"1 ready job is locked by the transaction of process {session.info.backend_pid}, and runs when it has ended"
        fine.wait_until_told("q", held)
        name = f"holds {fine.name}"
        session.execute(f"PREPARE TRANSACTION '{name}'")
    reason, fix = fine.wait_until_told("q", "locked by prepared transaction")
    assert name in reason
    fine.sql(fix.split(", or ")[1])
    assert fine.job_wait(job)["state"] == "completed"


def test_one_running_job_and_none_that_waits_is_said_to_run_and_no_more(make_cluster):
    db = make_cluster({"pushy.max_executors": 3}).database()
    gate = gated(db, 1, concurrency=1)
    [pid] = gate.wait_for_arrival(1)
    [(reason, fix)] = explained(db)
    assert reason.startswith("jobs are running: job ") and f"in process {pid}" in reason and "wait for their turn" not in reason and fix is None
    gate.open()
    db.jobs_wait("q")


def test_whoever_holds_the_lock_that_a_handler_waits_for_is_named(db):
    db.sql("CREATE TABLE t (id int); INSERT INTO t VALUES (1); CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'UPDATE public.t SET id = id';"
           "SELECT pushy.queue_register('q', 'work()', batch => false)")
    with db.connect(autocommit=False) as session:
        session.execute("UPDATE t SET id = 2")
        db.sql("SELECT pushy.enqueue('q')")
        db.wait_until_told("q", f"in process [0-9]+, which waits for a lock that process {session.info.backend_pid} holds")
    db.jobs_wait("q")


def test_what_has_failed_last_is_told_and_what_was_discarded_with_the_way_to_run_it_again(db):
    db.sql("CREATE FUNCTION bad() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no % today', 'luck'; END$$;"
           "SELECT pushy.queue_register('q', 'bad()', retry_delay => '1 hour')")
    job = db.value("SELECT pushy.enqueue('q')")
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "retryable", params=(job,))
    [(reason, _)] = explained(db)
    assert f"; the last to fail was job {job} at " in reason and reason.endswith(": no luck today")
    db.sql("SELECT pushy.queue_alter('q', max_attempts => 1), pushy.job_cancel(%s)", job)
    job = db.value("SELECT pushy.enqueue('q')")
    assert db.job_wait(job)["state"] == "discarded"
    db.sql("CREATE OR REPLACE FUNCTION bad() RETURNS void LANGUAGE sql AS ''")
    reason, fix = db.wait_until_told("q", "discarded in the last day")
    assert reason.startswith(f"1 job was discarded in the last day, the last was job {job} at ")
    look, again = fix.removeprefix("Look at ").split("; to run them again: ")
    assert (job, "no luck today") in [(row[0], row[6]) for row in db.rows(look)] and db.rows(again) == [(True,)]
    assert db.job_wait(job)["state"] == "completed"
    assert "discarded" not in str(explained(db))


def test_a_due_job_whose_row_is_held_is_told_once(fine):
    fine.sql("SELECT pushy.enqueue('q', delay => '200 ms', unique_key => 'k')")
    with fine.connect(autocommit=False) as session:
        session.execute("SELECT pushy.enqueue('q', unique_key => 'k')")
        fine.wait_until_told("q", "due job is locked by the transaction of process")
        assert [reason for reason, _ in explained(fine) if "due since" in reason] == []
    fine.jobs_wait("q")


def test_a_parked_queue_whose_handler_has_another_form_is_told_to_be_resumed(fine):
    fine.sql("DROP FUNCTION fine(jsonb); CREATE FUNCTION fine(args jsonb) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1'; SELECT pushy.enqueue('q')")
    fine.wait_until("SELECT parked FROM pushy.queues", lambda parked: parked is not None)
    [(_, fix), *_] = explained(fine)
    assert fix.endswith("; then run SELECT pushy.queue_resume('q')"), fix
