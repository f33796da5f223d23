"""Handlers that are procedures: CALLed in transactions of their own, held by a lease of their executor."""

import psycopg
import pytest

from harness.gate import Gate

# Three chunks, each committed with its checkpoint; stops at the gate after the one that the job's arguments name.
CHUNKS = """
    CREATE TABLE chunks (n int, job bigint, attempt int);
    CREATE PROCEDURE work(args jsonb) LANGUAGE plpgsql AS $$
    DECLARE
        job pushy.job := pushy.current_job();
        done int := coalesce((job.checkpoint->>'done')::int, 0);
    BEGIN
        FOR n IN done + 1 .. 3 LOOP
            INSERT INTO public.chunks VALUES (n, job.id, job.attempt);
            PERFORM pushy.job_checkpoint(jsonb_build_object('done', n));
            COMMIT;
            IF n = (args->>'stop')::int THEN PERFORM {stop}; END IF;
            IF n = (args->>'fail')::int AND job.attempt = 1 THEN RAISE 'after chunk %', n; END IF;
        END LOOP;
    END $$;
    SELECT pushy.queue_register('q', 'work(jsonb)', retry_delay => '10 ms', max_attempts => 2)"""


@pytest.fixture
def chunks(db):
    """Queue `q`, whose procedure writes three chunks with a COMMIT each."""
    db.gate = Gate(db)
    db.sql(CHUNKS.replace("{stop}", db.gate.stop))
    return db


def enqueue(db, args: str = "{}", **named) -> int:
    said = "".join(f", {name} => %s" for name in named)
    return db.value(f"SELECT pushy.enqueue('q', %s::jsonb{said})", args, *named.values())


def written(db, job: int) -> list[tuple[int, int]]:
    return db.rows("SELECT n, attempt FROM chunks WHERE job = %s ORDER BY n, attempt", job)


def assert_nothing_is_left(db) -> None:
    assert db.value("SELECT count(*) FROM pushy_internal.lease") == 0
    assert db.value("SELECT count(*) FROM pushy_internal.live_job") == 0


def test_a_procedure_commits_as_it_goes_and_its_job_is_completed(chunks):
    job = enqueue(chunks, '{"stop": 2}')
    chunks.gate.wait_for_arrival()
    # What it has committed is seen while it runs, and so is the job, with its lease and its checkpoint.
    assert written(chunks, job) == [(1, 1), (2, 1)]
    assert chunks.row("SELECT state, attempt, checkpoint FROM pushy.jobs WHERE id = %s", job) == {
        "state": "running", "attempt": 1, "checkpoint": {"done": 2}}
    assert chunks.row("SELECT queue, worker, claimed_by = current_user AS mine, until = 'infinity' AS endless, over FROM pushy.leases") == {
        "queue": "q", "worker": None, "mine": True, "endless": True, "over": False}
    assert chunks.value("SELECT running FROM pushy.queues WHERE queue = 'q'") == 1
    chunks.gate.open()
    done = chunks.job_wait(job)
    assert (done["state"], done["attempt"], done["result"], done["checkpoint"]) == ("completed", 1, None, None)
    assert written(chunks, job) == [(1, 1), (2, 1), (3, 1)]
    assert_nothing_is_left(chunks)
    assert chunks.value("SELECT count(*) FROM pushy_internal.checkpoint") == 0


@pytest.mark.parametrize("signature, body", [
    ("work()", "NULL"),
    ("work(args jsonb)", "ASSERT args = '{\"n\": 1}'::jsonb"),
    ("work(job pushy.job)", "ASSERT job.args = '{\"n\": 1}'::jsonb AND job.attempt = 1 AND job.state = 'running' AND job.last_error IS NULL"),
])
def test_a_procedure_takes_what_a_function_takes(db, signature, body):
    db.sql(f"""
        CREATE PROCEDURE {signature} LANGUAGE plpgsql AS $$BEGIN {body}; COMMIT; {body}; END$$;
        SELECT pushy.queue_register('q', 'work', max_attempts => 1)""")
    done = db.job_wait(enqueue(db, '{"n": 1}'))
    assert done["state"] == "completed", done["last_error"]


def test_a_failed_attempt_keeps_what_was_committed_and_the_next_begins_at_the_checkpoint(chunks):
    job = enqueue(chunks, '{"fail": 2}')
    done = chunks.job_wait(job)
    assert (done["state"], done["attempt"]) == ("completed", 2)
    assert written(chunks, job) == [(1, 1), (2, 1), (3, 2)]
    assert chunks.rows("SELECT attempt, sqlstate, message, context ~ 'work' FROM pushy.failures WHERE job_id = %s", job) == [
        (1, "P0001", "after chunk 2", True)]


def test_a_checkpoint_that_was_rolled_back_is_not_kept(db):
    db.sql("""
        CREATE PROCEDURE work(job pushy.job) LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pushy.job_checkpoint('1');
            COMMIT;
            PERFORM pushy.job_checkpoint('2');
            ROLLBACK;
            IF job.attempt = 1 THEN
                PERFORM pushy.job_checkpoint('3');
                RAISE 'not kept';
            END IF;
            ASSERT job.checkpoint = '1' AND job.last_error = 'not kept', job.checkpoint;
        END $$;
        SELECT pushy.queue_register('q', 'work', retry_delay => '0', max_attempts => 2)""")
    done = db.job_wait(enqueue(db))
    assert (done["state"], done["attempt"]) == ("completed", 2), done["last_error"]


def test_a_discarded_job_that_is_retried_begins_at_its_checkpoint(chunks):
    chunks.sql("SELECT pushy.queue_alter('q', max_attempts => 1)")
    job = enqueue(chunks, '{"fail": 2}')
    assert chunks.job_wait(job)["state"] == "discarded"
    assert chunks.value("SELECT checkpoint FROM pushy.jobs WHERE id = %s", job) == {"done": 2}
    chunks.sql("SELECT pushy.job_retry(%s)", job)
    assert chunks.job_wait(job)["state"] == "completed"
    assert written(chunks, job) == [(1, 1), (2, 1), (3, 2)]


def test_job_retry_and_a_second_claim_leave_a_running_procedure_alone(chunks):
    job = enqueue(chunks, '{"stop": 1}', unique_key="k")
    chunks.gate.wait_for_arrival()
    assert chunks.value("SELECT pushy.job_retry(%s)", job) is False
    # It has started, so one more job of its key comes beside it.
    beside = enqueue(chunks, unique_key="k")
    assert beside != job
    chunks.gate.open()
    assert chunks.job_wait(job)["state"] == "completed" and chunks.job_wait(beside)["state"] == "completed"


# -- told to stop ------------------------------------------------------------------------------------------------

STATEMENTS = {
    "before its first COMMIT": "PERFORM {stop}; COMMIT;",
    "after a COMMIT": "COMMIT; PERFORM {stop};",
    "after a ROLLBACK": "ROLLBACK; PERFORM {stop};",
    "in a loop over a query": "FOR r IN SELECT generate_series(1, 3) LOOP COMMIT; PERFORM {stop}; END LOOP;",
    "in a block with an exception": "COMMIT; BEGIN PERFORM {stop}; EXCEPTION WHEN division_by_zero THEN END;",
    "in a procedure that it calls": "CALL inner_work();",
    "in a deferred trigger": "INSERT INTO public.late VALUES (1); COMMIT;",
}


@pytest.fixture(params=STATEMENTS)
def stopped(db, request):
    """Queue `q`: its procedure stops at the gate in the midst of a statement; each run leaves a committed effect."""
    db.gate = Gate(db)
    db.sql(f"""
        CREATE TABLE effects (job bigint);
        CREATE TABLE late (n int);
        CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM {db.gate.stop}; RETURN NULL; END$$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
        CREATE PROCEDURE inner_work() LANGUAGE plpgsql AS $$BEGIN COMMIT; PERFORM {db.gate.stop}; END$$;
        CREATE PROCEDURE work(job pushy.job) LANGUAGE plpgsql AS $$
        DECLARE r record;
        BEGIN
            INSERT INTO public.effects VALUES (job.id);
            COMMIT;
            {STATEMENTS[request.param].replace("{stop}", db.gate.stop)}
        END $$;
        SELECT pushy.queue_register('q', 'work(pushy.job)', retry_delay => '10 ms', max_attempts => 2)""")
    return db


def effects(db, job: int) -> int:
    return db.value("SELECT count(*) FROM effects WHERE job = %s", job)


def test_a_cancelled_procedure_stops_at_any_statement(stopped):
    job = enqueue(stopped)
    stopped.gate.wait_for_arrival()
    assert stopped.value("SELECT pushy.job_cancel(%s)", job) is True
    assert stopped.job_wait(job)["state"] == "cancelled"
    assert effects(stopped, job) == 1 and stopped.value("SELECT count(*) FROM pushy.failures") == 0
    assert_nothing_is_left(stopped)


def test_a_procedure_that_is_out_of_time_stops_at_any_statement_and_is_charged(stopped):
    job = enqueue(stopped, timeout="100 ms", max_attempts=1)
    done = stopped.job_wait(job)
    assert (done["state"], done["attempt"]) == ("discarded", 1)
    assert stopped.value("SELECT sqlstate FROM pushy.failures WHERE job_id = %s", job) == "57014"
    assert_nothing_is_left(stopped)


def test_a_terminated_procedure_comes_back_at_any_statement_uncharged(stopped):
    job = enqueue(stopped)
    (pid,) = stopped.gate.wait_for_arrival()
    stopped.sql("SELECT pg_terminate_backend(%s)", pid)
    (again,) = stopped.wait_until("SELECT array_agg(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid <> %s"
                                  " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                                  lambda pids: pids is not None, params=(pid,))
    assert again != pid
    stopped.gate.open()
    done = stopped.job_wait(job)
    assert (done["state"], done["attempt"]) == ("completed", 1)
    assert effects(stopped, job) == 2 and stopped.value("SELECT given_back FROM pushy.stats WHERE queue = 'q'") == 1
    assert_nothing_is_left(stopped)


def test_a_dropped_queue_takes_its_running_procedure_with_it(stopped):
    job = enqueue(stopped)
    stopped.gate.wait_for_arrival()
    with pytest.raises(psycopg.Error, match="unfinished job"):
        stopped.sql("SELECT pushy.queue_drop('q')")
    stopped.sql("SELECT pushy.queue_drop('q', force => true)")
    stopped.wait_until("SELECT count(*) FROM pushy.workers WHERE job_id IS NOT NULL AND database = current_database()", 0)
    assert effects(stopped, job) == 1
    assert_nothing_is_left(stopped)


def test_a_procedure_that_is_dropped_and_a_queue_that_is_renamed_let_it_end(stopped):
    job = enqueue(stopped)
    stopped.gate.wait_for_arrival()
    stopped.sql("SELECT pushy.queue_rename('q', 'r')")
    stopped.sql("ALTER PROCEDURE work(pushy.job) RENAME TO worked")
    stopped.sql("SELECT pushy.queue_alter('r', timeout => '1 hour')")
    stopped.gate.open()
    assert stopped.job_wait(job)["state"] == "completed"
    assert stopped.value("SELECT queue FROM pushy.jobs WHERE id = %s", job) == "r"
    assert_nothing_is_left(stopped)


def test_a_procedure_that_swallows_its_cancel_is_ended_with_its_executor(db):
    gate = Gate(db)
    db.sql(f"""
        CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
        BEGIN
            COMMIT;
            LOOP BEGIN PERFORM {gate.stop}; EXCEPTION WHEN query_canceled THEN END; END LOOP;
        END $$;
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1)""")
    job = enqueue(db, timeout="100 ms")
    done = db.job_wait(job)
    assert done["state"] == "discarded"
    assert db.value("SELECT message FROM pushy.failures WHERE job_id = %s", job) == \
        "the job did not stop when told, and its executor was ended"
    assert_nothing_is_left(db)


def test_a_procedure_that_catches_its_timeout_and_returns_is_out_of_time(db):
    gate = Gate(db)
    db.sql(f"""
        CREATE TABLE effects (n int);
        CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
        BEGIN
            BEGIN PERFORM {gate.stop}; EXCEPTION WHEN query_canceled THEN END;
            INSERT INTO public.effects VALUES (1);
        END $$;
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1)""")
    job = enqueue(db, timeout="100 ms")
    assert db.job_wait(job)["state"] == "discarded"
    assert db.value("SELECT count(*) FROM effects") == 0


def test_a_cancel_that_is_rolled_back_lets_the_procedure_go_on(chunks):
    job = enqueue(chunks, '{"stop": 1}')
    chunks.gate.wait_for_arrival()
    with chunks.connect(autocommit=False) as session:
        assert session.execute("SELECT pushy.job_cancel(%s)", (job,)).fetchone()[0] is True
        session.rollback()
    chunks.gate.open()
    assert chunks.job_wait(job)["state"] == "completed"
    assert written(chunks, job) == [(1, 1), (2, 1), (3, 1)]


@pytest.mark.parametrize("end, state", [("COMMIT PREPARED", "cancelled"), ("ROLLBACK PREPARED", "completed")])
def test_a_prepared_cancel_interrupts_a_procedure_whose_executor_waits_for_nobody(chunks, end, state):
    """The row is the prepared transaction's: the executor leaves the job to whoever finds it free."""
    since = chunks.cluster.log.position()
    job = enqueue(chunks, '{"stop": 1}')
    chunks.gate.wait_for_arrival()
    gid = f"cancel {chunks.name}"
    with chunks.connect(autocommit=False) as session:
        session.execute("SELECT pushy.job_cancel(%s)", (job,))
        session.execute(f"PREPARE TRANSACTION '{gid}'")
        session.commit()
    chunks.cluster.log.wait_for(f"how job {job} ended could not be written, because somebody holds its row", since=since)
    # Others go on meanwhile.
    assert chunks.job_wait(enqueue(chunks))["state"] == "completed"
    chunks.gate.open()
    chunks.sql(f"{end} '{gid}'")
    assert chunks.job_wait(job)["state"] == state
    assert_nothing_is_left(chunks)


def test_a_procedure_does_not_cancel_itself(db):
    db.sql("""
        CREATE TABLE answers (answer boolean);
        CREATE PROCEDURE work(job pushy.job) LANGUAGE plpgsql AS $$
        BEGIN COMMIT; INSERT INTO public.answers VALUES (pushy.job_cancel(job.id)); END $$;
        SELECT pushy.queue_register('q', 'work', max_attempts => 1)""")
    assert db.job_wait(enqueue(db))["state"] == "completed"
    assert db.rows("SELECT answer FROM answers") == [(False,)]


def test_a_commit_that_fails_is_the_procedures_failure(db):
    db.sql("""
        CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
        CREATE PROCEDURE work(args jsonb) LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.child VALUES (1);
            IF args ? 'commits' THEN COMMIT; END IF;
        END $$;
        SELECT pushy.queue_register('q', 'work', max_attempts => 1)""")
    for args in ("{}", '{"commits": true}'):
        job = enqueue(db, args)
        assert db.job_wait(job)["state"] == "discarded"
        assert db.value("SELECT sqlstate FROM pushy.failures WHERE job_id = %s", job) == "23503"
    assert_nothing_is_left(db)


# -- the server and the executor end -----------------------------------------------------------------------------

@pytest.fixture
def own(make_cluster):
    """The same in a server of its own."""
    cluster = make_cluster({"pushy.max_executors": "2"}, fresh=True)
    db = cluster.database()
    db.gate = Gate(db)
    db.sql(CHUNKS.replace("{stop}", db.gate.stop))
    return db


def test_a_procedure_that_crashes_the_server_is_charged(own):
    job = enqueue(own, '{"stop": 1}', max_attempts=1)
    (pid,) = own.gate.wait_for_arrival()
    own.cluster.crash(pid)
    done = own.job_wait(job)
    assert (done["state"], done["attempt"]) == ("discarded", 1)
    assert own.rows("SELECT attempt, sqlstate FROM pushy.failures WHERE job_id = %s", job) == [(1, "57P02")]
    assert_nothing_is_left(own)


def test_a_crash_of_another_process_gives_a_procedure_back_uncharged(own):
    job = enqueue(own, '{"stop": 2}')
    own.gate.wait_for_arrival()
    own.cluster.crash(own.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))
    done = own.job_wait(job)
    assert done["state"] == "completed" and own.value("SELECT count(*) FROM pushy.failures") == 0
    assert written(own, job) == [(1, 1), (2, 1), (3, 1)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_procedure_that_runs_at_a_stop_comes_back_uncharged(own, mode):
    own.sql("SELECT pushy.queue_alter('q', concurrency => 1)")
    job = enqueue(own, '{"stop": 2}')
    behind = enqueue(own)
    own.gate.wait_for_arrival()
    own.cluster.stop(mode)
    own.cluster.start()
    done, then = own.job_wait(job), own.job_wait(behind)
    assert (done["state"], then["state"]) == ("completed", "completed")
    assert own.value("SELECT count(*) FROM pushy.failures") == 0
    assert written(own, job) == [(1, 1), (2, 1), (3, 1)]
    assert done["started_at"] < then["started_at"], "none behind it starts first"


def test_a_procedure_whose_executor_ends_keeps_its_place(chunks):
    chunks.sql("SELECT pushy.queue_alter('q', concurrency => 1)")
    job = enqueue(chunks, '{"stop": 1}')
    behind = enqueue(chunks)
    (pid,) = chunks.gate.wait_for_arrival()
    chunks.gate.open()
    chunks.sql("SELECT pg_terminate_backend(%s)", pid)
    done, then = chunks.job_wait(job), chunks.job_wait(behind)
    assert done["started_at"] < then["started_at"]


def test_a_database_is_dropped_while_a_procedure_runs(own):
    enqueue(own, '{"stop": 1}')
    own.gate.wait_for_arrival()
    name = own.name
    own.gate._keeper.close()
    own.close()
    with own.cluster.connect() as session:
        session.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_the_extension_is_dropped_while_a_procedure_runs(chunks):
    enqueue(chunks, '{"stop": 1}')
    chunks.gate.wait_for_arrival()
    chunks.sql("DROP EXTENSION pushy")
    chunks.wait_until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'pushy executor'", 0)


# -- declared ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("clause, what", [
    ("SECURITY DEFINER", "is SECURITY DEFINER"),
    ("SET search_path = public", "has SET clauses"),
])
def test_a_procedure_that_cannot_commit_is_refused(db, clause, what):
    db.sql(f"CREATE PROCEDURE work() LANGUAGE plpgsql {clause} AS 'BEGIN COMMIT; END'")
    with pytest.raises(psycopg.Error, match=what) as refused:
        db.sql("SELECT pushy.queue_register('q', 'work()')")
    assert refused.value.sqlstate == "42P13" and "ALTER PROCEDURE public.work()" in refused.value.diag.message_hint


def test_a_procedure_that_answers_is_refused(db):
    db.sql("CREATE PROCEDURE work(INOUT args jsonb) LANGUAGE plpgsql AS 'BEGIN COMMIT; END'")
    with pytest.raises(psycopg.Error, match="OUT or INOUT parameters"):
        db.sql("SELECT pushy.queue_register('q', 'work(jsonb)')")


@pytest.mark.parametrize("clause", ["SECURITY DEFINER", "SET search_path = public"])
def test_a_procedure_that_can_commit_no_more_parks_its_queue(db, clause):
    db.sql("""
        CREATE PROCEDURE work() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
        SELECT pushy.queue_register('q', 'work()')""")
    assert db.job_wait(enqueue(db))["state"] == "completed"
    db.sql(f"ALTER PROCEDURE work() {clause}")
    enqueue(db)
    assert "no transaction" in db.wait_until("SELECT parked FROM pushy.queues", lambda parked: parked is not None)


def test_queue_run_calls_no_procedures(db):
    db.sql("""
        CREATE PROCEDURE work() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
        SELECT pushy.queue_register('q', 'work()'), pushy.queue_pause('q')""")
    enqueue(db)
    with pytest.raises(psycopg.Error, match="is a procedure") as refused:
        db.sql("SELECT pushy.queue_run('q')")
    assert refused.value.sqlstate == "0A000"


def test_procedures_share_no_batch_and_take_one_job_at_a_time(db):
    db.sql("""
        CREATE TABLE seen (transaction text);
        CREATE PROCEDURE work() LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.seen VALUES (pg_current_xact_id()::text); END$$;
        SELECT pushy.queue_register('q', 'work()')""")
    db.sql("SELECT pushy.enqueue_many('q', ARRAY(SELECT jsonb_build_object('n', n) FROM generate_series(1, 50) n))")
    db.jobs_wait("q")
    assert db.value("SELECT count(DISTINCT transaction) FROM seen") == 50
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed' AND attempt = 1") == 50


def test_a_procedure_runs_as_its_queues_role_in_a_session_of_that_role(db, role):
    tenant = role()
    db.sql(f"""
        CREATE TABLE who (n int, current text, session text);
        GRANT ALL ON who TO {tenant};
        CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.who VALUES (1, current_user, session_user);
            COMMIT;
            RESET ROLE;
            INSERT INTO public.who VALUES (2, current_user, session_user);
        END $$;
        GRANT CREATE ON SCHEMA public TO {tenant};
        SELECT pushy.queue_register('q', 'work()', run_as => '{tenant}')""")
    assert db.job_wait(enqueue(db))["state"] == "completed"
    assert db.rows("SELECT * FROM who ORDER BY n") == [(1, tenant, tenant), (2, tenant, tenant)]
    with db.connect(user=tenant) as session:
        with pytest.raises(psycopg.Error, match="permission denied"):
            session.execute("UPDATE pushy_internal.lease SET inside = false")


def test_a_watched_write_of_each_transaction_is_told_with_its_commit(db):
    db.sql("""
        CREATE TABLE rows (n int);
        CREATE TABLE told (cause bigint, depth int);
        CREATE FUNCTION tell(job pushy.job) RETURNS void LANGUAGE sql AS
            'INSERT INTO public.told VALUES (job.caused_by, job.depth)';
        SELECT pushy.queue_register('tell', 'tell');
        CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.rows VALUES (1);
            PERFORM pushy.enqueue('tell');
            COMMIT;
            PERFORM pushy.enqueue('tell');
            ROLLBACK;
            PERFORM pushy.enqueue('tell');
        END $$;
        SELECT pushy.queue_register('q', 'work()')""")
    job = enqueue(db)
    db.jobs_wait("q")
    db.jobs_wait("tell")
    assert db.rows("SELECT * FROM told") == [(job, 1), (job, 1)]


def test_a_procedure_whose_queue_is_gone_leaves_no_checkpoint(db):
    """It has caught the cancel that the drop brings, and goes on for a while: what dropped queues leave may be removed by then."""
    gate = Gate(db)
    db.sql(f"""
        CREATE TABLE effects (n int);
        CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
        BEGIN
            BEGIN PERFORM {gate.stop}; EXCEPTION WHEN query_canceled THEN END;
            PERFORM pushy.job_checkpoint('1');
            INSERT INTO public.effects VALUES (1);
            COMMIT;
        END $$;
        SELECT pushy.queue_register('q', 'work()')""")
    enqueue(db)
    gate.wait_for_arrival()
    db.sql("SELECT pushy.queue_drop('q', force => true)")
    db.wait_until("SELECT count(*) FROM effects", 1)
    db.wait_until("SELECT count(*) FROM pushy.workers WHERE job_id IS NOT NULL AND database = current_database()", 0)
    db.wait_until("SELECT count(*) FROM pushy_internal.checkpoint", 0)
    assert_nothing_is_left(db)


def test_a_lease_that_is_left_of_a_ready_job_stops_no_procedure(db):
    gate = Gate(db)
    db.sql(f"""
        CREATE PROCEDURE work() LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; COMMIT; END$$;
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1)""")
    job = enqueue(db)
    gate.wait_for_arrival()
    db.sql("""
        UPDATE pushy_internal.live_job SET state = 'a', position = l.position, leased = NULL FROM pushy_internal.lease l WHERE l.job_id = id;
        SELECT pushy.queue_pause('q'), pushy.queue_resume('q')""")
    gate.open()
    assert db.job_wait(job)["state"] == "completed"
    assert_nothing_is_left(db)
