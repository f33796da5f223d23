"""A Python program on psycopg: transactions of every kind, pipelines, prepared statements, many sessions at once."""

import threading

import psycopg
import pytest
from psycopg.types.json import Jsonb

SESSIONS = 16
JOBS_PER_SESSION = 60


@pytest.fixture
def ledger(db):
    db.sql("""
        CREATE TABLE ledger (job bigint, n int);
        CREATE FUNCTION note(job pushy.job) RETURNS jsonb LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO public.ledger VALUES (job.id, (job.args->>'n')::int); RETURN job.args; END$$;
        SELECT pushy.queue_register('ledger', 'note(pushy.job)')""")
    return db


def noted(db) -> list[int]:
    return [n for n, in db.rows("SELECT n FROM ledger ORDER BY n")]


def enqueue(session: psycopg.Connection, n: int) -> int:
    return session.execute("SELECT pushy.enqueue('ledger', %s)", (Jsonb({"n": n}),)).fetchone()[0]


def test_a_transaction_block_enqueues_at_its_end(ledger):
    with ledger.connect() as session:
        with session.transaction():
            job = enqueue(session, 1)
    assert ledger.job_wait(job)["result"] == {"n": 1}


def test_an_exception_in_the_client_takes_the_job_back(ledger):
    with ledger.connect() as session:
        with pytest.raises(ZeroDivisionError), session.transaction():
            enqueue(session, 1)
            1 / 0
    assert ledger.rows("SELECT FROM pushy.jobs") == []


def test_a_nested_transaction_takes_back_only_its_own(ledger):
    with ledger.connect() as session, session.transaction():
        enqueue(session, 1)
        with session.transaction() as inner:
            enqueue(session, 2)
            raise psycopg.Rollback(inner)
        enqueue(session, 3)
    ledger.jobs_wait("ledger")
    assert noted(ledger) == [1, 3]


def test_a_session_that_dies_takes_its_open_transaction_along(ledger):
    session = ledger.connect(autocommit=False)
    enqueue(session, 1)
    pid = session.info.backend_pid
    ledger.sql("SELECT pg_terminate_backend(%s)", pid)
    ledger.wait_until("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", 0, params=(pid,))
    assert ledger.rows("SELECT FROM pushy.jobs") == []


def test_a_prepared_transaction_owes_its_jobs_from_its_commit_on(ledger):
    for outcome in ("commit", "rollback"):
        session = ledger.connect(autocommit=False)
        xid = session.xid(1, f"{ledger.name}-{outcome}", "")
        session.tpc_begin(xid)
        job = enqueue(session, 1)
        session.tpc_prepare()
        session.close()
        assert ledger.rows("SELECT FROM pushy.jobs WHERE id = %s", job) == [], "seen before its commit"
        with ledger.connect() as other:
            getattr(other, f"tpc_{outcome}")(xid)
    ledger.jobs_wait("ledger", deadline=90)
    assert noted(ledger) == [1]


def test_a_pipeline_enqueues(ledger):
    with ledger.connect() as session, session.pipeline():
        cursors = [session.execute("SELECT pushy.enqueue('ledger', %s)", (Jsonb({"n": n}),)) for n in range(100)]
    assert len({cursor.fetchone()[0] for cursor in cursors}) == 100
    ledger.jobs_wait("ledger")
    assert noted(ledger) == list(range(100))


def test_a_prepared_statement_enqueues_again_and_again(ledger):
    with ledger.connect() as session:
        for n in range(20):
            session.execute("SELECT pushy.enqueue('ledger', %s)", (Jsonb({"n": n}),), prepare=True)
    ledger.jobs_wait("ledger")
    assert noted(ledger) == list(range(20))


def test_a_prepared_statement_survives_a_queue_that_is_dropped_and_registered_again(ledger):
    with ledger.connect() as session:
        session.execute("SELECT pushy.enqueue('ledger', '{\"n\": 1}')", prepare=True)
        ledger.jobs_wait("ledger")
        ledger.sql("SELECT pushy.queue_drop('ledger', force => true)")
        with pytest.raises(psycopg.errors.UndefinedObject):
            session.execute("SELECT pushy.enqueue('ledger', '{\"n\": 1}')", prepare=True)
        ledger.sql("SELECT pushy.queue_register('ledger', 'note(pushy.job)')")
        job = session.execute("SELECT pushy.enqueue('ledger', '{\"n\": 1}')", prepare=True).fetchone()[0]
    assert ledger.job_wait(job)["state"] == "completed"


def test_sixteen_sessions_lose_no_job_and_run_none_twice(ledger):
    committed: list[int] = []
    errors: list[BaseException] = []

    def share(number: int) -> None:
        try:
            with ledger.cluster.connect(ledger.name, autocommit=False) as session:
                for n in range(JOBS_PER_SESSION):
                    job = enqueue(session, number * JOBS_PER_SESSION + n)
                    if n % 3 == 0:
                        session.rollback()
                    else:
                        session.commit()
                        committed.append(job)
        except BaseException as error:  # shown by the test, not swallowed by the thread
            errors.append(error)
    threads = [threading.Thread(target=share, args=(number,)) for number in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    ledger.jobs_wait("ledger")
    assert sorted(job for job, in ledger.rows("SELECT job FROM ledger")) == sorted(committed)


def test_a_repeatable_read_session_enqueues_too(ledger):
    with ledger.connect(autocommit=False) as session:
        session.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        job = enqueue(session, 1)
        session.commit()
    assert ledger.job_wait(job)["state"] == "completed"


def test_a_read_only_transaction_cannot_enqueue(ledger):
    with ledger.connect(autocommit=False) as session:
        session.read_only = True
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            enqueue(session, 1)


def test_job_wait_can_be_cancelled_by_its_client(ledger):
    job = ledger.value("SELECT pushy.enqueue('ledger', delay => '1 hour')")
    session = ledger.connect()
    refused: list[BaseException] = []

    def wait() -> None:
        try:
            session.execute("SELECT pushy.job_wait(%s, '1 minute')", (job,))
        except psycopg.Error as error:
            refused.append(error)
    thread = threading.Thread(target=wait)
    thread.start()
    ledger.wait_until("SELECT state = 'active' AND wait_event IS NOT NULL FROM pg_stat_activity WHERE pid = %s",
                      params=(session.info.backend_pid,))
    session.cancel_safe()
    thread.join(20)
    assert [type(error) for error in refused] == [psycopg.errors.QueryCanceled]


def test_jobs_wait_holds_no_snapshot_while_it_waits(ledger):
    ledger.sql("SELECT pushy.queue_pause('ledger')")
    ledger.sql("SELECT pushy.enqueue('ledger', '{\"n\": 1}')")
    session = ledger.connect()
    thread = threading.Thread(target=session.execute, args=("CALL pushy.jobs_wait('ledger', '1 minute')",))
    thread.start()
    ledger.wait_until("SELECT state = 'active' AND wait_event IS NOT NULL AND backend_xmin IS NULL FROM pg_stat_activity "
                      "WHERE pid = %s", params=(session.info.backend_pid,))
    ledger.sql("SELECT pushy.queue_resume('ledger')")
    thread.join(30)
    assert not thread.is_alive() and noted(ledger) == [1]
