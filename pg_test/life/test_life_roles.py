"""Roles, handlers and privileges that go away under a queue: its jobs wait with a plain reason, nothing restarts for
ever, and they run on after the repair."""

import re
import time

import psycopg
import pytest

from harness.gate import Gate
from harness.versions import skip_unless_workers_must_log_in
from harness.waiting import wait_for
from stage.life import LEDGER, end_executors, run


@pytest.fixture
def tenant(db, role):
    """A queue of a role of its own, with an executor that has been seen to work and is gone again."""
    name = role()
    db.sql(LEDGER)
    db.sql(f"GRANT INSERT ON ledger TO {name}; SELECT pushy.queue_register('q', 'note(jsonb)', run_as => '{name}')")
    run(db)
    db.tenant = name
    end_executors(db)
    return db


def reasons(db, queue="q"):
    return str(db.rows("SELECT reason, fix FROM pushy.queue_explain(%s)", queue))


def others_run(db):
    """The rest of the server works meanwhile: the launcher has been around several times."""
    db.sql("SELECT pushy.queue_register('other', 'note(jsonb)')")
    for _ in range(3):
        run(db, "other")
        end_executors(db)


SESSION = [  # what happens, the reason, what repairs it
    ("ALTER ROLE {role} NOLOGIN", "not permitted to log in", "ALTER ROLE {role} LOGIN"),
    ("REVOKE CONNECT ON DATABASE {db} FROM PUBLIC", "may not connect", "GRANT CONNECT ON DATABASE {db} TO {role}"),
]


@pytest.mark.parametrize("damage, reason, repair", SESSION, ids=["NOLOGIN", "no CONNECT"])
def test_a_role_without_a_session_waits_without_a_worker_dying_of_it(tenant, damage, reason, repair):
    if "NOLOGIN" in damage:
        skip_unless_workers_must_log_in(tenant)
    names = {"role": tenant.tenant, "db": tenant.name}
    # Before: where an executor has just ended, the launcher may look for another one at once.
    since = tenant.cluster.log.position()
    tenant.sql(damage.format(**names))
    job = tenant.value("SELECT pushy.enqueue('q', '2')")
    tenant.cluster.log.wait_for(f'jobs in database "{tenant.name}" wait: .*{reason}', since)
    others_run(tenant)
    assert reason in reasons(tenant)
    assert repair.format(**names) in reasons(tenant), "the fix is the statement that helps"
    assert tenant.job(job)["state"] == "available"
    log = tenant.cluster.log.since(since)
    assert log.count(reason) == 1, log
    tenant.sql(repair.format(**names))
    assert tenant.job_wait(job, deadline=10)["state"] == "completed"


def test_what_repairs_it_may_be_prepared(tenant):
    """The next start is tried at once, long before its time."""
    began = time.monotonic()
    tenant.sql(f"REVOKE CONNECT ON DATABASE {tenant.name} FROM PUBLIC")
    job = tenant.value("SELECT pushy.enqueue('q', '2')")
    with tenant.connect(autocommit=False) as session:
        session.execute(f"GRANT CONNECT ON DATABASE {tenant.name} TO {tenant.tenant}")
        session.execute(f"PREPARE TRANSACTION '{tenant.name}'")
    # Starts are refused after 0, 0.5, 1.5, 3.5, 7.5 and 15.5 seconds, and the next would be after 31.5.
    wait_for("six refusals", lambda: time.monotonic() - began, lambda passed: passed > 17)
    tenant.sql(f"COMMIT PREPARED '{tenant.name}'")
    assert tenant.job_wait(job)["state"] == "completed"
    assert time.monotonic() - began < 29


def test_who_may_not_enter_takes_no_executor_from_others(make_cluster):
    """With one executor for all, which is idle: nobody who could use its place asks for it."""
    cluster = make_cluster({"pushy.max_executors": 1, "pushy.reserved_executors": 0, "pushy.executor_linger": "5min"})
    db = cluster.database()
    skip_unless_workers_must_log_in(db)
    db.sql(LEDGER)
    db.sql("CREATE ROLE tenant LOGIN; GRANT INSERT ON ledger TO tenant; SELECT pushy.queue_register('q', 'note(jsonb)');"
           "SELECT pushy.queue_register('theirs', 'note(jsonb)', run_as => 'tenant')")
    db.sql("ALTER ROLE tenant NOLOGIN")
    run(db)
    [executor] = db.workers()
    job = db.value("SELECT pushy.enqueue('theirs', '2')")
    # It may have been said of the queue alone.
    cluster.log.wait_for(f'jobs in database "{db.name}" wait: .*not permitted to log in')
    for _ in range(10):
        run(db)
        assert db.workers() == [executor]
    db.sql("ALTER ROLE tenant LOGIN")
    assert db.job_wait(job)["state"] == "completed"


@pytest.mark.parametrize("damage, reason, repair", SESSION, ids=["NOLOGIN", "no CONNECT"])
def test_an_executor_that_is_there_leaves_when_its_role_may_not_enter_any_more(tenant, damage, reason, repair):
    """As long as it had work it would stay for ever; the job that it runs ends as usual."""
    if "NOLOGIN" in damage:
        skip_unless_workers_must_log_in(tenant)
    names = {"role": tenant.tenant, "db": tenant.name}
    gate = Gate(tenant)
    tenant.sql(f"CREATE FUNCTION stops() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;"
               f"SELECT pushy.queue_register('stopped', 'stops()', run_as => '{tenant.tenant}')")
    running = tenant.value("SELECT pushy.enqueue('stopped')")
    gate.wait_for_arrival()
    since = tenant.cluster.log.position()
    tenant.sql(damage.format(**names))
    waiting = tenant.value("SELECT pushy.enqueue('stopped')")
    gate.open()
    assert tenant.job_wait(running)["state"] == "completed"
    tenant.cluster.log.wait_for(f'jobs in database "{tenant.name}" wait: .*{reason}', since)
    assert reason in reasons(tenant, "stopped")
    assert tenant.job(waiting)["state"] == "available"
    assert reason in tenant.value("SELECT parked FROM pushy.queues WHERE queue = 'stopped'")
    others_run(tenant)
    tenant.sql(f"GRANT pg_monitor TO {tenant.tenant}; ALTER ROLE {tenant.tenant} CONNECTION LIMIT 9; SELECT pushy.enqueue('stopped')")
    run(tenant, "other")
    assert len(re.findall(f"wait: .*{reason}", tenant.cluster.log.since(since))) == 1, "said once"
    tenant.sql(repair.format(**names))
    assert tenant.job_wait(waiting, deadline=10)["state"] == "completed"


def test_a_role_over_its_connection_limit_waits_until_a_session_ends(tenant):
    session = tenant.connect(user=tenant.tenant)
    tenant.sql(f"ALTER ROLE {tenant.tenant} CONNECTION LIMIT 0")
    since = tenant.cluster.log.position()
    job = tenant.value("SELECT pushy.enqueue('q', '2')")
    tenant.cluster.log.wait_for("wait: .*connection limit of 0", since)
    assert "connection limit of 0" in reasons(tenant)
    session.close()
    assert tenant.job_wait(job)["state"] == "completed"
    assert "FATAL:  too many connections" not in tenant.cluster.log.since(since)


def test_a_database_over_its_connection_limit_waits_until_it_is_raised(tenant):
    tenant.sql(f"ALTER DATABASE {tenant.name} CONNECTION LIMIT 0")
    since = tenant.cluster.log.position()
    job = tenant.value("SELECT pushy.enqueue('q', '2')")
    tenant.cluster.log.wait_for("wait: database .* connection limit of 0", since)
    assert "connection limit of 0" in reasons(tenant)
    others_run(tenant)
    tenant.sql(f"ALTER DATABASE {tenant.name} CONNECTION LIMIT -1")
    assert tenant.job_wait(job, deadline=10)["state"] == "completed"
    assert "FATAL:  too many connections" not in tenant.cluster.log.since(since)


def test_workers_do_not_count_against_a_connection_limit(tenant):
    tenant.sql(f"ALTER ROLE {tenant.tenant} CONNECTION LIMIT 0")
    run(tenant)


@pytest.mark.parametrize("setting", ["default_transaction_read_only = on", "default_transaction_isolation = 'repeatable read'",
                                     "statement_timeout = 1", "lock_timeout = 1", "search_path = ''", "role = 'none'",
                                     "session_replication_role = 'replica'", "idle_in_transaction_session_timeout = 1"])
def test_a_setting_of_the_role_does_not_stop_its_executor(tenant, setting):
    tenant.sql(f"ALTER ROLE {tenant.tenant} SET {setting}")
    run(tenant, count=3)


def test_a_dropped_role_parks_its_jobs_until_the_queue_has_another(tenant):
    tenant.sql(f"DROP OWNED BY {tenant.tenant}; DROP ROLE {tenant.tenant}")
    since = tenant.cluster.log.position()
    job = tenant.value("SELECT pushy.enqueue('q', '2')")
    tenant.cluster.log.wait_for("wait: role .* does not exist", since)
    others_run(tenant)
    assert f"role {tenant.tenant} does not exist" in reasons(tenant)
    assert "FATAL:  role" not in tenant.cluster.log.since(since)
    tenant.sql("SELECT pushy.queue_alter('q', run_as => 'postgres')")
    assert tenant.job_wait(job)["state"] == "completed"


def test_a_renamed_role_parks_its_jobs_until_the_owner_says_it_is_the_same(tenant):
    tenant.sql(f"ALTER ROLE {tenant.tenant} RENAME TO {tenant.tenant}_new")
    job = tenant.value("SELECT pushy.enqueue('q', '2')")
    tenant.wait_until("SELECT parked FROM pushy_internal.queue", lambda parked: parked is not None)
    assert f"{tenant.tenant}_new" in reasons(tenant)
    assert tenant.job(job)["attempt"] == 0
    tenant.sql("SELECT pushy.queue_resume('q')")
    assert tenant.job_wait(job)["state"] == "completed"
    tenant.sql(f"ALTER ROLE {tenant.tenant}_new RENAME TO {tenant.tenant}")


def test_an_owner_who_may_no_longer_become_the_role_parks_the_queue(db, role):
    boss, worker = role(), role()
    db.sql(LEDGER)
    db.sql(f"GRANT INSERT ON ledger TO {worker}; GRANT {worker} TO {boss}")
    with db.connect(user=boss) as session:
        session.execute(f"SELECT pushy.queue_register('q', 'note(jsonb)', run_as => '{worker}')")
    run(db)
    db.sql(f"REVOKE {worker} FROM {boss}")
    job = db.value("SELECT pushy.enqueue('q', '2')")
    db.wait_until("SELECT parked FROM pushy_internal.queue", lambda parked: parked is not None)
    assert f"GRANT {worker} TO {boss}" in reasons(db)
    db.sql(f"GRANT {worker} TO {boss}; SELECT pushy.queue_resume('q')")
    assert db.job_wait(job)["state"] == "completed"


HANDLER = [  # what happens to the handler, the reason, what repairs it before queue_resume
    ("DROP FUNCTION note(jsonb)", "does not exist",
     "CREATE FUNCTION note(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.ledger VALUES (args::int)'"),
    ("ALTER FUNCTION note(jsonb) RENAME TO write", "is now public.write(jsonb)", "SELECT"),
    ("CREATE SCHEMA s; ALTER FUNCTION note(jsonb) SET SCHEMA s; GRANT USAGE ON SCHEMA s TO {role}", "is now s.note(jsonb)", "SELECT"),
    ("REVOKE EXECUTE ON FUNCTION note(jsonb) FROM PUBLIC", "may not execute", "GRANT EXECUTE ON FUNCTION note(jsonb) TO {role}"),
    ("REVOKE USAGE ON SCHEMA public FROM PUBLIC", "no USAGE on schema public", "GRANT USAGE ON SCHEMA public TO PUBLIC"),
]


@pytest.mark.parametrize("damage, reason, repair", HANDLER, ids=["dropped", "renamed", "moved", "no EXECUTE", "no USAGE"])
def test_a_handler_taken_away_parks_the_queue_and_loses_no_job(tenant, damage, reason, repair):
    since = tenant.cluster.log.position()
    tenant.sql(damage.format(role=tenant.tenant))
    jobs = [job for job, in tenant.rows("SELECT pushy.enqueue_many('q', '{1,2,3}')")]
    tenant.wait_until("SELECT parked FROM pushy_internal.queue", lambda parked: parked is not None)
    assert reason in reasons(tenant)
    assert {(tenant.job(job)["state"], tenant.job(job)["attempt"]) for job in jobs} == {("available", 0)}
    assert tenant.cluster.log.since(since).count("is parked") == 1
    tenant.sql(repair.format(role=tenant.tenant))
    tenant.sql("SELECT pushy.queue_resume('q')")
    assert {tenant.job_wait(job)["state"] for job in jobs} == {"completed"}


def test_a_handler_replaced_by_a_procedure_parks_the_queue_until_it_is_said_to_be_meant(tenant):
    tenant.sql("DROP FUNCTION note(jsonb); CREATE PROCEDURE note(args jsonb) LANGUAGE sql AS ''")
    tenant.sql("SELECT pushy.enqueue('q', '2')")
    tenant.wait_until("SELECT parked FROM pushy_internal.queue", lambda parked: parked is not None)
    tenant.sql("ALTER PROCEDURE note(jsonb) SECURITY DEFINER")
    with pytest.raises(psycopg.Error, match="lets such a one end no transaction"):
        tenant.sql("SELECT pushy.queue_resume('q')")
    tenant.sql(f"ALTER PROCEDURE note(jsonb) SECURITY INVOKER; GRANT EXECUTE ON PROCEDURE note(jsonb) TO {tenant.tenant}")
    tenant.sql("SELECT pushy.queue_resume('q')")
    tenant.jobs_wait("q")
    assert tenant.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed' AND args = '2'") == 1


def test_a_superusers_queue_parks_when_its_handler_changes_hands(db, role):
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
    run(db)
    stranger = role()
    db.sql(f"GRANT CREATE ON SCHEMA public TO {stranger}; ALTER FUNCTION note(jsonb) OWNER TO {stranger}")
    with db.connect(user=stranger) as session:
        session.execute("CREATE OR REPLACE FUNCTION note(args jsonb) RETURNS void LANGUAGE sql AS "
                        f"'ALTER ROLE {stranger} SUPERUSER'")
    job = db.value("SELECT pushy.enqueue('q', '2')")
    db.wait_until("SELECT parked FROM pushy_internal.queue", lambda parked: parked is not None)
    assert stranger in reasons(db)
    assert db.job(job)["attempt"] == 0
    assert db.value("SELECT rolsuper FROM pg_roles WHERE rolname = %s", stranger) is False
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.sql("SELECT pushy.queue_resume('q')")


# -- orphans -----------------------------------------------------------------------------------------------------

def test_a_running_job_of_a_queue_dropped_by_force_leaves_no_orphan(db):
    gate = Gate(db)
    db.sql(f"CREATE FUNCTION stops() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; END$$;"
           "SELECT pushy.queue_register('q', 'stops()')")
    db.sql("SELECT pushy.enqueue('q'), pushy.enqueue('q')")
    gate.wait_for_arrival(2)
    db.sql("SELECT pushy.queue_drop('q', force => true)")
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0)
