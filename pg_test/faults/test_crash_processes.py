"""A killed process: the server comes back, only the job that crashed is charged, every effect counts once."""

import signal

import psycopg
import pytest

from harness.gate import Gate
from harness.scratch import started
from harness.waiting import wait_for
from stage.ledger import Ledger, python


@pytest.fixture(scope="module")
def cluster(new_cluster):
    """A server for all tests here: each crash leaves it fit for the next."""
    cluster = new_cluster()
    yield cluster
    cluster.remove()


@pytest.fixture
def db(cluster):
    if not cluster.running:
        cluster.start()
    database = cluster.database()
    yield database
    database.drop()


def gated(db, options: str = "") -> tuple[Ledger, Gate]:
    gate = Gate(db)
    return Ledger(db, after=f"IF job.args ? 'gate' THEN PERFORM {gate.stop}; END IF;", options=options), gate


def stop_dead(cluster, *pids: int) -> None:
    """Kills processes at one moment: none of them sees what becomes of the others."""
    for pid in pids:
        cluster.kill(pid, signal.SIGSTOP)
    before = cluster.log.position()
    for pid in pids:
        cluster.kill(pid)
    cluster.wait_recovered(before)


# -- executors ---------------------------------------------------------------------------------------------------

def test_a_job_whose_executor_is_killed_is_charged_one_attempt_and_done_once(cluster, db):
    ledger, gate = gated(db)
    others = ledger.enqueue_many(50)
    db.jobs_wait("q")
    job = ledger.enqueue('{"gate": 1}')
    (pid,) = gate.wait_for_arrival()
    cluster.crash(pid)  # the gate is open afterwards: its keeper died with the server
    ledger.assert_balanced()
    assert ledger.charges() == [(job, 1, "57P02")]
    assert db.value("SELECT started_at < failed_at FROM pushy.failures") is True
    assert db.job(job)["attempt"] == 2
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE attempt = 1") == len(others)


def test_a_killed_bystander_charges_nobody(cluster, db):
    ledger, gate = gated(db)
    for _ in range(4):
        ledger.enqueue('{"gate": 1}')
    gate.wait_for_arrival(4)
    cluster.crash()
    ledger.assert_balanced()
    assert ledger.charges() == []
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE attempt <> 1") == 0


@pytest.mark.parametrize("kind", ["launcher", "scheduler"])
def test_a_killed_database_worker_charges_nobody_and_comes_back(cluster, db, kind):
    ledger, gate = gated(db)
    ledger.enqueue(delay="3 s")
    for _ in range(4):
        ledger.enqueue('{"gate": 1}')
    gate.wait_for_arrival(4)
    # A scheduler is there for as long as something is due soon; the launcher has no database.
    pid = db.wait_until("SELECT min(pid) FROM pg_stat_activity WHERE backend_type = %s", lambda pid: pid is not None,
                        params=(f"pushy {kind}",))
    cluster.crash(pid)
    ledger.assert_balanced()
    assert ledger.charges() == []


def test_several_executors_killed_at_once_run_their_jobs_alone_and_charge_nobody(cluster, db):
    ledger, gate = gated(db)
    for _ in range(3):
        ledger.enqueue('{"gate": 1}')
    pids = gate.wait_for_arrival(3)
    stop_dead(cluster, *pids)
    ledger.assert_balanced()
    assert ledger.charges() == []


def test_a_suspect_runs_with_no_other_job_in_the_server(cluster, db):
    """Two suspects after a crash: each finds nobody beside it; the next crash tells who it was."""
    gate = Gate(db)
    python(db)
    ledger = Ledger(db, options=", max_attempts => 3", before=f"""
        IF job.args ? 'gate' THEN PERFORM {gate.stop}; END IF;
        IF job.args ? 'kill' THEN PERFORM public.die(); END IF;""")
    guilty = ledger.enqueue('{"gate": 1, "kill": 1}')
    innocent = ledger.enqueue('{"gate": 1}')
    pids = gate.wait_for_arrival(2)
    stop_dead(cluster, *pids)
    wait_for("the guilty job to be discarded", lambda: _state(db, guilty), lambda state: state == "discarded", 60,
             cluster.log.tail)
    ledger.assert_balanced(discarded=(guilty,))
    assert ledger.charges() == [(guilty, attempt, "57P02") for attempt in (1, 2, 3)]
    assert db.job(innocent)["attempt"] == 1


def test_suspects_that_do_not_end_hold_the_others_for_a_while_only(cluster, db):
    """The quarantine of each is over before it is, and neither waits for the end of the other. (A lock would not outlive the crash.)"""
    db.sql("""
        CREATE TABLE door (is_open boolean);
        INSERT INTO door VALUES (false);
        CREATE FUNCTION waits() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN WHILE NOT (SELECT is_open FROM public.door) LOOP PERFORM pg_sleep(0.05); END LOOP; END $$;
        CREATE FUNCTION quick() RETURNS void LANGUAGE sql AS '';
        SELECT pushy.queue_register('waits', 'waits()', timeout => '0', batch => false), pushy.queue_register('quick', 'quick()')""")
    running = "SELECT array_agg(pid) FROM pushy.workers WHERE job_id IS NOT NULL AND queue = 'waits'"
    db.sql("SELECT pushy.enqueue('waits'), pushy.enqueue('waits')")
    stop_dead(cluster, *db.wait_until(running, lambda pids: pids is not None and len(pids) == 2))
    db.wait_until(running, lambda pids: pids is not None)
    quick = db.value("SELECT pushy.enqueue('quick')")
    # Until the first suspect's time alone is over.
    db.wait_until("SELECT string_agg(reason, '; ') FROM pushy.queue_explain('quick')", lambda said: "runs alone; the others wait" in said, 20)
    assert db.job_wait(quick, 60)["state"] == "completed"
    assert db.job_wait(db.value("SELECT pushy.enqueue('quick')"), 60)["state"] == "completed"
    db.wait_until(running, lambda pids: pids is not None and len(pids) == 2, 60)
    assert db.job_wait(db.value("SELECT pushy.enqueue('quick')"), 60)["state"] == "completed"
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'waits' AND state = 'running'") == 2
    db.sql("UPDATE door SET is_open = true")
    db.jobs_wait("waits")
    assert db.rows("SELECT state::text, attempt FROM pushy.jobs WHERE queue = 'waits'") == [("completed", 1)] * 2
    assert db.rows("SELECT * FROM pushy.failures") == []


def _state(db, job: int) -> str | None:
    """The state of a job in a server that may crash at any moment."""
    try:
        with db.cluster.connect(db.name) as session:
            row = session.execute("SELECT state::text FROM pushy.jobs WHERE id = %s", (job,)).fetchone()
    except psycopg.OperationalError:
        return None
    db.cluster.epoch += 1  # what sessions there were may be of an earlier life
    return row and row[0]


@pytest.mark.parametrize("end", ["die", "leave"])
def test_a_handler_that_kills_its_process_every_time_is_discarded_and_the_others_are_done(cluster, db, end):
    python(db)
    ledger = Ledger(db, options=", max_attempts => 3", before=f"IF job.args ? 'kill' THEN PERFORM public.{end}(); END IF;")
    ledger.enqueue_many(100)
    job = ledger.enqueue('{"kill": 1}')
    # More jobs in the same commit would be there with it; these come from a queue beside it.
    wait_for("the job to be discarded", lambda: _state(db, job), lambda state: state == "discarded", 60, cluster.log.tail)
    ledger.enqueue_many(100)
    ledger.assert_balanced(discarded=(job,))
    assert ledger.charges() == [(job, attempt, "57P02") for attempt in (1, 2, 3)]
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed' AND attempt <> 1") == 0


def test_a_crash_that_takes_back_that_a_job_became_ready_is_charged_all_the_same(make_cluster):
    """A scheduler's commits are not flushed: after the crash the job waits as before, and its note says that it ran."""
    cluster = make_cluster({"wal_writer_delay": "10s"})
    db = cluster.database()
    python(db)
    ledger = Ledger(db, options=", max_attempts => 2", before="IF job.args ? 'kill' THEN PERFORM public.die(); END IF;")
    job = db.value("SELECT pushy.enqueue('q', '{\"kill\": 1}', delay => '0.3 s')")
    wait_for("the job to be discarded", lambda: _state(db, job), lambda state: state == "discarded", 30, cluster.log.tail)
    assert ledger.charges() == [(job, 1, "57P02"), (job, 2, "57P02")]


def test_a_crash_without_delay_between_attempts_is_charged_each_time(cluster, db):
    """The charge is on disk before the job runs again, or the next crash would take it along."""
    python(db)
    ledger = Ledger(db, before="PERFORM public.die();")
    db.sql("SELECT pushy.queue_alter('q', retry_delay => '0', max_attempts => 4)")
    job = ledger.enqueue()
    wait_for("the job to be discarded", lambda: _state(db, job), lambda state: state == "discarded", 60, cluster.log.tail)
    ledger.assert_balanced(discarded=(job,))
    assert ledger.charges() == [(job, attempt, "57P02") for attempt in (1, 2, 3, 4)]


def test_a_crash_during_the_commit_of_a_batch_charges_nobody(cluster, db):
    """Jobs 1 to 100 commit in batches; a deferred trigger stops the first of several jobs after the 30th in the midst of its end."""
    gate = Gate(db)
    ledger = Ledger(db, options=", concurrency => 1")
    db.sql(f"""
        CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.job > 30 AND (SELECT count(*) FROM public.effects WHERE batch = NEW.batch) > 1 THEN PERFORM {gate.stop}; END IF;
            RETURN NULL;
        END $$;
        ALTER TABLE effects ADD COLUMN batch text DEFAULT pg_current_xact_id()::text;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION late()""")
    ledger.enqueue_many(100)
    (pid,) = gate.wait_for_arrival()
    done = db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'")
    assert 0 < done < 99, "it is no batch that commits"
    cluster.crash(pid)
    ledger.assert_balanced()
    assert ledger.charges() == []


# -- signals from outside ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("call", ["pg_terminate_backend", "pg_cancel_backend"])
@pytest.mark.parametrize("kind", ["launcher", "scheduler", "executor"])
def test_a_worker_struck_from_outside_loses_nothing(cluster, db, kind, call):
    ledger, gate = gated(db)
    ledger.enqueue(delay="2 s")
    ledger.enqueue('{"gate": 1}')
    gate.wait_for_arrival()
    pid = db.wait_until("SELECT min(pid) FROM pg_stat_activity WHERE backend_type = %s", lambda pid: pid is not None,
                        params=(f"pushy {kind}",))
    db.sql(f"SELECT {call}(%s)", pid)
    if call == "pg_terminate_backend":
        wait_for(f"the {kind} to be gone", lambda: started(pid), lambda ticks: ticks == "")
    ledger.enqueue(delay="1 s")
    ledger.enqueue_many(100)
    gate.open()
    ledger.assert_balanced()
    assert ledger.charges() == []
    assert db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy launcher'") == 1


def test_a_scheduler_terminated_in_the_midst_of_its_round_forgets_no_time(cluster, db):
    """A lock on the history holds it up when it has taken the due time; the next one must find it again."""
    ledger, _ = gated(db)
    first, second = ledger.enqueue(delay="1 s"), ledger.enqueue(delay="3 s")
    with db.connect(autocommit=False) as session:
        session.execute("LOCK TABLE pushy_internal.finished_job IN ACCESS EXCLUSIVE MODE")
        pid = db.wait_until("SELECT min(a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND NOT l.granted "
                            "WHERE backend_type = 'pushy scheduler'", lambda pid: pid is not None)
        db.sql("SELECT pg_terminate_backend(%s)", pid)
        wait_for("the scheduler to be gone", lambda: started(pid), lambda ticks: ticks == "")
        session.rollback()
    assert db.job_wait(second)["state"] == "completed"
    assert db.job_wait(first)["state"] == "completed"


# -- stops -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["fast", "smart", "immediate"])
def test_a_stop_under_load_loses_nothing_and_charges_nobody(cluster, db, mode):
    ledger, gate = gated(db)
    ledger.enqueue_many(3000)
    for _ in range(3):
        ledger.enqueue('{"gate": 1}')
    ledger.enqueue(delay="1 s")
    if mode == "smart":
        # It waits for the sessions, so for those that wait for the gate's keeper too.
        db.wait_until("SELECT count(*) > 100 FROM pushy.jobs WHERE state = 'completed'")
        db.close()
    else:
        gate.wait_for_arrival(3)
    cluster.restart(mode)
    ledger.assert_balanced()
    assert ledger.charges() == []
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE attempt <> 1") == 0


def test_a_killed_postmaster_loses_nothing_and_charges_nobody(cluster, db):
    ledger, gate = gated(db)
    ledger.enqueue_many(100)
    ledger.enqueue('{"gate": 1}')
    gate.wait_for_arrival()
    cluster.kill_server()
    cluster.start()
    ledger.assert_balanced()
    assert ledger.charges() == []
