"""The server around the queues: settings read again, restarts, standbys, few worker slots, many databases, two-phase
commit, replication, and nothing at all to do."""

import re

import psycopg
import pytest

from harness.database import Database
from harness.gate import Gate
from harness.waiting import wait_for
from stage.life import LEDGER, end_executors, run, settled, wait_empty, wakeups, workers

NO_SLOT = "no background worker slot is free"


@pytest.fixture
def db_of(make_cluster):
    """A database in a server of its own with these settings."""
    def make(settings=None, **options) -> Database:
        db = make_cluster(settings, **options).database()
        db.sql(LEDGER)
        db.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
        return db
    return make


def gated(db):
    gate = Gate(db)
    db.sql(f"CREATE FUNCTION stops() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;"
           "SELECT pushy.queue_register('slow', 'stops()')")
    return gate


def reloaded(db, **settings):
    db.cluster.configure(**settings)
    db.cluster.reload()


def reasons(db, queue="q"):
    return str(db.rows("SELECT reason, fix FROM pushy.queue_explain(%s)", queue))


# -- settings read again -----------------------------------------------------------------------------------------

def test_pushy_enabled_off_stops_after_the_running_job_and_on_goes_on(db_of):
    db = db_of()
    gate = gated(db)
    running = db.value("SELECT pushy.enqueue('slow')")
    gate.wait_for_arrival()
    reloaded(db, pushy__enabled="off")
    db.wait_until("SHOW pushy.enabled", "off")
    gate.open()
    assert db.job_wait(running)["state"] == "completed", "the running job ends in peace"
    waiting = db.value("SELECT pushy.enqueue('q', '1')")
    wait_empty(db.cluster, db.name)
    assert "pushy.enabled is off" in reasons(db)
    assert db.job(waiting)["state"] == "available"
    reloaded(db, pushy__enabled="on")
    assert db.job_wait(waiting)["state"] == "completed"


def test_pushy_databases_is_followed(db_of):
    db = db_of()
    other = db.cluster.database("other")
    other.sql(LEDGER)
    other.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
    run(db)
    end_executors(db)
    reloaded(db, pushy__databases="other, somewhere")
    db.wait_until("SHOW pushy.databases", "other, somewhere")
    since = db.value("SELECT pushy.enqueue('q', '2')")
    run(other, count=3)
    assert db.job(since)["state"] == "available"
    assert db.name in reasons(db), "the fix is the list with this database"
    reloaded(db, pushy__databases="*")
    assert db.job_wait(since)["state"] == "completed"


def test_a_database_renamed_into_pushy_databases_runs_its_jobs(db_of):
    db = db_of({"pushy.databases": "wanted"})
    job = db.value("SELECT pushy.enqueue('q', '1')")
    assert "pushy.databases" in reasons(db)
    db.close()
    with db.cluster.connect() as admin:
        admin.execute(f"ALTER DATABASE {db.name} RENAME TO wanted")
    db.name = "wanted"
    assert db.job_wait(job)["state"] == "completed"


def test_a_database_left_out_of_pushy_databases_does_not_wake_the_launcher(db_of):
    db = db_of({"pushy.databases": "elsewhere"})
    [launcher] = db.workers("launcher")

    def count_jobs(jobs):
        """Wake-ups of the launcher by commits that enqueue, some for later."""
        wait_for("the launcher to sleep", lambda: wakeups(launcher), settled())
        before = wakeups(launcher)
        for n in range(jobs):
            db.sql("SELECT pushy.enqueue('q', to_jsonb(%s)), pushy.enqueue('q', '0', delay => '%s s')", n, 1000 - n)
        return wakeups(launcher) - before
    count_jobs(3)
    assert count_jobs(100) == 0
    reloaded(db, pushy__databases=db.name)
    db.wait_until("SELECT count(*) FROM ledger", 103)


def test_max_executors_lowered_and_raised(db_of):
    db = db_of({"pushy.max_executors": 3})
    gate = gated(db)
    db.sql("SELECT pushy.enqueue('slow') FROM generate_series(1, 6)")
    assert len(gate.wait_for_arrival(3)) == 3
    reloaded(db, pushy__max_executors=1)
    db.wait_until("SHOW pushy.max_executors", "1")
    gate.open()
    wait_for("one executor", lambda: workers(db.cluster, db.name).count("pushy executor"), lambda seen: seen <= 1)
    db.jobs_wait("slow")
    gate.close()
    db.sql("SELECT pushy.enqueue('slow') FROM generate_series(1, 6)")
    gate.wait_for_arrival(1)
    reloaded(db, pushy__max_executors=4)
    assert len(gate.wait_for_arrival(4)) == 4
    gate.open()
    db.jobs_wait("slow")


def test_executors_idle_in_one_database_make_room_for_another_that_has_more_than_one_job(db_of):
    db = db_of({"pushy.max_executors": 2, "pushy.executor_linger": "10min"})
    first = gated(db)
    db.sql("SELECT pushy.enqueue('slow') FROM generate_series(1, 2)")
    first.wait_for_arrival(2)
    first.open()
    db.jobs_wait("slow")
    other = db.cluster.database("other")
    gate = gated(other)
    other.sql("SELECT pushy.enqueue('slow') FROM generate_series(1, 2)")
    gate.wait_for_arrival(2)
    gate.open()
    other.jobs_wait("slow")


def idle_in_each(*databases) -> None:
    """An executor is idle in each of them. One that comes up late may find that another, idle for a second, has left for it."""
    idle = "SELECT count(*) FROM pushy.workers WHERE kind = 'executor' AND state = 'idle' AND database = current_database()"

    def look() -> list[int]:
        for each in databases:
            if not each.value(idle):
                each.job_wait(each.value("SELECT pushy.enqueue((SELECT min(queue) FROM pushy.queues), '1')"))
        return [each.value(idle) for each in databases]
    wait_for("an idle executor in each database", look, lambda seen: seen == [1] * len(databases))


def test_an_executor_idle_elsewhere_makes_room_when_the_one_that_is_there_is_busy(db_of):
    """Nobody but the busy one can say that it left something."""
    db = db_of({"pushy.max_executors": 2, "pushy.executor_linger": "10min"})
    run(db)
    other = db.cluster.database("other")
    gate = Gate(other)
    other.sql(f"CREATE FUNCTION stops() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;"
              "SELECT pushy.queue_register('slow', 'stops()', batch => false)")
    gate.open()
    idle_in_each(db, other)
    [launcher] = db.workers("launcher")
    wait_for("the launcher to sleep", lambda: wakeups(launcher), settled())
    gate.close()
    other.sql("SELECT pushy.enqueue('slow') FROM generate_series(1, 2)")
    gate.wait_for_arrival(2)
    gate.open()
    other.jobs_wait("slow")


def test_a_need_that_was_over_when_the_launcher_looked_again_does_not_keep_it_from_being_called(db_of):
    """While an executor elsewhere has been idle for less than a second, the launcher says when it will look again, so that commits
    need not call it before. Then the need is over, and it sleeps for a minute."""
    db = db_of({"pushy.max_executors": 2, "pushy.executor_linger": "10min"})
    other = db.cluster.database("other")
    gate = Gate(other)
    other.sql(f"CREATE FUNCTION stops() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;"
              "SELECT pushy.queue_register('slow', 'stops()', batch => false)")
    [launcher] = db.workers("launcher")

    def looks_at(happens) -> None:
        before = wakeups(launcher)
        happens()
        wait_for("the launcher to look", lambda: wakeups(launcher), lambda now: now > before)
    gate.open()
    idle_in_each(other, db)
    run(db)
    gate.close()
    looks_at(lambda: other.sql("SELECT pushy.enqueue('slow') FROM generate_series(1, 2)"))
    gate.open()
    other.jobs_wait("slow")
    looks_at(db.cluster.reload)
    gate.close()
    other.sql("SELECT pushy.enqueue('slow') FROM generate_series(1, 2)")
    gate.wait_for_arrival(2)
    gate.open()
    other.jobs_wait("slow")


def test_max_executors_0_runs_nothing_and_says_so(db_of):
    db = db_of({"pushy.max_executors": 0})
    job = db.value("SELECT pushy.enqueue('q', '1')")
    assert "pushy.max_executors is 0" in reasons(db)
    assert workers(db.cluster, db.name).count("pushy executor") == 0
    reloaded(db, pushy__max_executors=1)
    assert db.job_wait(job)["state"] == "completed"


def test_without_linger_an_executor_leaves_when_nothing_is_left(db_of):
    db = db_of({"pushy.executor_linger": 0})
    for _ in range(3):
        run(db, count=5)
        wait_for("no executor", lambda: workers(db.cluster, db.name), lambda seen: "pushy executor" not in seen)
    assert db.value("SELECT count(*) FROM ledger") == 15


# -- restarts ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_scheduled_and_waiting_jobs_survive_a_restart(db_of, mode):
    db = db_of()
    later = db.value("SELECT pushy.enqueue('q', '1', delay => '2 s')")
    db.sql("CHECKPOINT; SELECT pushy.queue_pause('q')")
    now = db.value("SELECT pushy.enqueue('q', '2')")
    db.cluster.restart(mode)
    db.sql("SELECT pushy.queue_resume('q')")
    assert db.job_wait(now)["state"] == "completed"
    assert db.job_wait(later)["state"] == "completed"
    assert db.value("SELECT min(started_at - run_at) >= '0' FROM pushy.jobs WHERE id = %s", later)


def test_a_standby_does_nothing_until_it_is_promoted_and_then_runs_what_is_there(db_of):
    db = db_of({"pushy.enabled": "off"})
    job = db.value("SELECT pushy.enqueue('q', '1')")
    standby = db.cluster.standby({"pushy.enabled": "on"})
    there = db.of(standby)
    there.wait_until("SELECT count(*) FROM pushy.jobs", 1)
    assert "standby" in reasons(there)
    with pytest.raises(psycopg.Error) as error:
        there.sql("SELECT pushy.enqueue('q')")
    assert error.value.sqlstate == "25006"
    with pytest.raises(psycopg.Error, match="standby") as error:
        there.sql("SELECT pushy.queue_run('q')")
    assert error.value.sqlstate == "25006"
    # The primary's changes are replayed meanwhile.
    second = db.value("SELECT pushy.enqueue('q', '2')")
    there.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'available'", 2)
    assert there.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pushy%'") == 0
    db.close()
    db.cluster.stop()
    standby.promote()
    assert there.job_wait(job)["state"] == "completed"
    assert there.job_wait(second)["state"] == "completed"
    there.close()


# -- worker slots ------------------------------------------------------------------------------------------------

def test_fifty_databases_share_eight_worker_slots(make_cluster):
    cluster = make_cluster({"max_worker_processes": 8, "pushy.max_executors": 2})
    databases = [cluster.database(f"many_{n}") for n in range(50)]
    jobs = []
    for db in databases:
        db.sql(LEDGER)
        db.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
        jobs.append(db.value("SELECT pushy.enqueue('q', '1', delay => '1 ms')"))
        db.close()
    for db, job in zip(databases, jobs):
        assert db.job_wait(job, deadline=60)["state"] == "completed"
        db.close()
    with cluster.connect() as session:
        kinds = "SELECT backend_type, count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pushy%' GROUP BY 1"
        seen = wait_for("idle databases to hold no slot", lambda: dict(session.execute(kinds).fetchall()),
                        lambda kinds: "pushy scheduler" not in kinds)
    assert seen["pushy launcher"] == 1 and seen.get("pushy executor", 0) <= 2
    assert NO_SLOT not in cluster.log.since()


def test_without_a_free_slot_jobs_wait_it_is_said_once_and_they_go_on_when_one_is_free(make_cluster):
    """Two slots are the launchers' (ours and that of logical replication), one is left for all."""
    cluster = make_cluster({"max_worker_processes": 3})
    first, second = cluster.database(), cluster.database()
    for db in (first, second):
        db.sql(LEDGER)
    gate = gated(first)
    slow = first.value("SELECT pushy.enqueue('slow')")
    gate.wait_for_arrival()
    second.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
    job = second.value("SELECT pushy.enqueue('q', '1')")
    cluster.log.wait_for(NO_SLOT)
    assert "max_worker_processes" in reasons(second)
    assert "max_worker_processes" in cluster.log.wait_for("HINT:.*").group()
    gate.open()
    assert second.job_wait(job)["state"] == "completed", "an idle executor does not keep the only slot"
    assert first.job_wait(slow)["state"] == "completed"
    assert len(re.findall(NO_SLOT, cluster.log.since())) == 1


def test_a_server_without_any_slot_for_us_says_so_and_works(make_cluster):
    cluster = make_cluster({"max_worker_processes": 2})
    db = cluster.database()
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.enqueue('q', '1')")
    cluster.log.wait_for(NO_SLOT)
    assert "max_worker_processes" in reasons(db)
    assert db.value("SELECT pushy.queue_run('q')") == 1


def test_a_launcher_that_cannot_map_its_recorder_says_so_once_and_goes_on_when_it_can(db_of):
    db = db_of()
    job = db.value("SELECT pushy.enqueue('q', '1', delay => '1 s')")
    db.cluster.stop()
    file = db.cluster.data / "pg_stat_tmp" / "pushy.recorder"
    file.unlink(missing_ok=True)
    file.mkdir()
    since = db.cluster.log.position()
    db.cluster.start()
    db.cluster.log.wait_for("could not map", since)
    # Long enough for the server to start a launcher again that has ended.
    started = db.value("SELECT clock_timestamp()")
    db.wait_until("SELECT clock_timestamp() > %s + interval '4 s'", True, params=(started,))
    file.rmdir()
    # Nobody can be waited for while no launcher has looked at the databases.
    db.wait_until("SELECT count(*) FROM ledger", 1)
    assert db.job(job)["state"] == "completed"
    assert len(re.findall("could not map", db.cluster.log.since(since))) == 1


# -- two-phase commit --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("end, runs", [("COMMIT", 2), ("ROLLBACK", 1)])
def test_rows_that_a_prepared_transaction_holds_are_skipped_until_its_end_and_forgotten_by_nobody(db, end, runs):
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.queue_pause('q')")
    held = db.value("SELECT pushy.enqueue('q', '1')")
    with db.connect() as session:
        # Locked as by whoever claims it; what has run jobs itself cannot be prepared.
        session.execute("BEGIN; SELECT id FROM pushy_internal.live_job FOR UPDATE; SELECT pushy.enqueue('q', '2'); PREPARE TRANSACTION 'held'")
    db.sql("SELECT pushy.queue_resume('q')")
    run(db)
    assert db.job(held)["state"] == "available"
    db.sql(f"{end} PREPARED 'held'")
    db.jobs_wait("q")
    assert db.job(held)["state"] == "completed"
    assert db.value("SELECT count(*) FROM ledger") == runs + 1


def test_an_extension_created_in_a_prepared_transaction_works_once_committed(shared_cluster):
    db = shared_cluster.database(extension=False)
    db.sql(LEDGER)
    with db.connect() as session:
        session.execute("BEGIN; CREATE EXTENSION pushy; PREPARE TRANSACTION 'created'")
    db.sql("COMMIT PREPARED 'created'")
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
    run(db)
    db.drop()


# -- retention ---------------------------------------------------------------------------------------------------

def test_history_is_kept_as_long_as_said_and_then_deleted_with_its_failures(db):
    db.sql(LEDGER)
    db.sql("""
        CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$;
        SELECT pushy.queue_register('short', 'note(jsonb)', keep_completed => '1 ms', keep_discarded => '1 ms'),
               pushy.queue_register('long', 'note(jsonb)'),
               pushy.queue_register('failing', 'fails()', max_attempts => 1, keep_discarded => '1 ms'),
               pushy.queue_register('kept', 'fails()', max_attempts => 1)""")
    for queue in ("short", "long"):
        # Not by job_wait: a scheduler that looks just now removes a short one at once.
        db.sql(f"SELECT pushy.enqueue('{queue}', '1')")
        db.jobs_wait(queue)
    for queue in ("failing", "kept"):
        db.sql(f"SELECT pushy.enqueue('{queue}')")
        db.jobs_wait(queue)
    # Retention is due a minute later, many at once; the scheduler does it too when it is up for another reason.
    db.job_wait(db.value("SELECT pushy.enqueue('long', '2', delay => '10 ms')"))
    db.wait_until("SELECT array_agg(DISTINCT queue ORDER BY queue) FROM pushy.jobs", ["kept", "long"])
    assert db.value("SELECT count(*) FROM pushy_internal.failure") == 1


def test_a_queue_that_keeps_nothing_leaves_nothing(db):
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)', keep_completed => '0')")
    db.sql("SELECT pushy.enqueue('q', '1')")
    db.jobs_wait("q")
    assert db.value("SELECT count(*) FROM ledger") == 1
    assert db.value("SELECT count(*) FROM pushy.jobs") == 0


def test_a_job_does_not_wait_until_other_databases_have_been_looked_into(db_of):
    db = db_of()
    others = [db.cluster.database() for _ in range(4)]
    db.cluster.configure(pushy__enabled="off").restart()
    for other in others:
        other.sql(f"BEGIN; ALTER DATABASE {other.name} SET client_encoding = 'latin1'; COMMIT")
        # A scheduler stops here before it has come up.
        other.sql("BEGIN; LOCK TABLE pg_catalog.pg_conversion")
    job = db.value("SELECT pushy.enqueue('q', '1')")
    reloaded(db, pushy__enabled="on")
    assert db.job_wait(job)["state"] == "completed"
    for other in others:
        other.sql("ROLLBACK")


# -- replication -------------------------------------------------------------------------------------------------

def test_a_publication_of_all_tables_does_not_get_in_the_way(db_of):
    db = db_of({"wal_level": "logical"})
    db.sql("CREATE PUBLICATION everything FOR ALL TABLES")
    db.sql("SELECT pg_create_logical_replication_slot('s', 'test_decoding')")
    run(db, count=5)
    db.sql("SELECT pushy.queue_alter('q', max_attempts => 2, retry_delay => '1 ms')")
    failing = db.value("SELECT pushy.enqueue('q', '\"no number\"')")
    assert db.job_wait(failing)["state"] == "discarded"
    cancelled = db.value("SELECT pushy.enqueue('q', delay => '1 hour')")
    db.sql("SELECT pushy.job_cancel(%s)", cancelled)
    changes = [data for data, in db.rows("SELECT data FROM pg_logical_slot_get_changes('s', NULL, NULL)")]
    deleted = [change for change in changes if change.startswith("table pushy_internal.live_job: DELETE")]
    assert len(deleted) == 7 and not any("no-tuple-data" in change for change in deleted), deleted
    db.sql("SELECT pg_drop_replication_slot('s')")


# -- nothing to do -----------------------------------------------------------------------------------------------

def test_an_idle_server_does_nothing_for_pushy_however_much_others_do(db_of):
    """No worker is scheduled while others commit: counted by the kernel, which cannot be fooled."""
    db = db_of()
    run(db, count=5)
    quiet = db.cluster.database("quiet", extension=False)
    quiet.sql("CREATE TABLE t (n int)")
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy scheduler'", 0)
    db.wait_until("SELECT bool_and(state = 'idle') FROM pg_stat_activity WHERE backend_type = 'pushy executor'")
    pids = [pid for pid, in db.rows("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pushy%'")]
    assert len(pids) >= 2, "the launcher and an executor"
    wait_for("the workers to sleep", lambda: [wakeups(pid) for pid in pids], settled())
    query = ("SELECT pid, query_start, state_change, xact_start FROM pg_stat_activity WHERE backend_type LIKE 'pushy%' ORDER BY pid")
    before, woken = db.rows(query), [wakeups(pid) for pid in pids]
    for n in range(500):
        quiet.sql("INSERT INTO t VALUES (1)")
        db.sql("UPDATE ledger SET n = n WHERE false")
    assert [wakeups(pid) for pid in pids] == woken
    assert db.rows(query) == before


def test_jobs_of_many_queues_from_before_a_restart_all_run(make_cluster):
    """Nobody announces them: executors find them by the bits of queues that the scheduler makes known, a new job's before them."""
    db = make_cluster({"pushy.enabled": "off"}).database()
    db.sql("CREATE TABLE done (queue text)")
    db.sql("CREATE FUNCTION mark(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO done SELECT (pushy.current_job()).queue'")
    db.value("SELECT count(pushy.queue_register('q' || n, 'mark(jsonb)')) FROM generate_series(1, 300) n")
    db.value("SELECT count(pushy.enqueue('q' || n)) FROM generate_series(1, 300) n")
    db.cluster.configure(pushy__enabled="on")
    db.cluster.restart()
    db.job_wait(db.value("SELECT pushy.enqueue('q300')"))
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0)
    assert db.value("SELECT count(*) FROM pushy.failures") == 0
    assert db.value("SELECT count(DISTINCT queue) FROM done") == 300
    assert db.value("SELECT count(*) FROM done") == 301


def test_a_look_into_a_database_that_meets_a_lock_does_not_keep_others_from_their_jobs(make_cluster):
    """After a start the launcher looks into one database after another: who holds a lock in one holds up that one."""
    cluster = make_cluster({"pushy.enabled": "off", "max_prepared_transactions": 8})
    for number in range(6):
        with cluster.database(f"held_{number}").connect(autocommit=False) as holder:
            holder.execute("LOCK pushy_internal.queue")
            holder.execute(f"PREPARE TRANSACTION 'held_{number}'")
    free = cluster.database("free")
    free.sql(LEDGER)
    free.sql("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.enqueue('q', '1')")
    cluster.configure(pushy__enabled="on").restart()
    # Its own table only: no session of this database says that there is work.
    free.wait_until("SELECT count(*) FROM ledger", 1)


def test_executors_that_are_never_idle_do_not_keep_scheduler_and_relay_from_a_slot(make_cluster):
    """Two slots are the launchers', and two executors of another role's queue take what is left, each anew when one gives way."""
    db = make_cluster({"max_worker_processes": 4, "pushy.max_executors": 2}).database()
    db.sql("CREATE FUNCTION slow() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(0.3)'; CREATE FUNCTION quick() RETURNS void LANGUAGE sql AS '';"
           "CREATE TABLE w (id int PRIMARY KEY); SELECT pushy.queue_register('q', 'slow()', batch => false, concurrency => 2), pushy.queue_register('d', 'quick()'),"
           "       pushy.watch('w', delivery => 'relay'), pushy.subscription_create('s', '{w}'); SELECT count(pushy.enqueue('q')) FROM generate_series(1, 400)")
    db.wait_until("SELECT count(*) FROM pushy.workers WHERE kind = 'executor'", 2)
    db.sql("INSERT INTO w VALUES (1)")
    later = db.value("SELECT pushy.enqueue('d', delay => '200 ms')")
    assert db.value("CALL pushy.subscription_wait('s', '30 s')") is True
    assert db.job_wait(later)["state"] == "completed"
    assert db.value("SELECT count(*) > 0 FROM pushy.jobs WHERE queue = 'q' AND state = 'available'"), "all the while there was work"
