"""The sessions of workers are what Pushy needs, and its tables are heaps, whatever the server's defaults say."""

import pytest
from harness.versions import TRANSACTION_TIMEOUT, skip_before
from harness.waiting import wait_for
from psycopg import errors

HOSTILE = [
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "1"),
    ("lock_timeout", "1"),
    ("idle_in_transaction_session_timeout", "1"),
    ("row_security", "off"),
]


# What a test's own session says against them.
CALM = " ".join(f"-c {name}={value}" for name, value in [
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read\\ committed"),
    ("default_transaction_deferrable", "off"),
    ("statement_timeout", "60s"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("row_security", "on"),
])


def each_kind_of_worker_does_its_work(session):
    """A ready job, one due later, one that is retried, and a notice for a queue: executor, scheduler and relay."""
    enqueue = "SELECT pushy.enqueue('q', %s, delay => %s::interval)"
    ready = session.execute(enqueue, ['{"fail": false}', None]).fetchone()[0]
    later = session.execute(enqueue, ['{"fail": false}', "200 ms"]).fetchone()[0]
    failing = session.execute(enqueue, ['{"fail": true}', None]).fetchone()[0]
    session.execute("SELECT pushy.notify('news', '1', delivery => 'relay')")
    for job, state in ((ready, "completed"), (later, "completed"), (failing, "discarded")):
        assert session.execute("SELECT state FROM pushy.job_wait(%s)", [job]).fetchone()[0] == state
    wait_for(
        "the notice to be a job",
        lambda: session.execute("SELECT state FROM pushy.jobs WHERE queue = 'fed'").fetchall(),
        lambda seen: seen == [("completed",)],
    )


@pytest.mark.parametrize("by", ["ALTER DATABASE", "ALTER SYSTEM"])
def test_no_default_of_a_session_stops_a_worker(make_cluster, by):
    cluster = make_cluster()
    db = cluster.database()
    db.sql(
        "CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS"
        " 'BEGIN IF (args->>''fail'')::boolean THEN RAISE ''no''; END IF; END'"
    )
    db.sql("SELECT pushy.queue_register('q', 'work(jsonb)', max_attempts => 2, retry_delay => '100 ms')")
    db.sql("CREATE FUNCTION take(args jsonb) RETURNS void LANGUAGE sql AS ''")
    db.sql("SELECT pushy.queue_register('fed', 'take(jsonb)')")
    db.sql("SELECT pushy.subscription_create('feeding', '{news}', queue => 'fed')")
    target = f"ALTER DATABASE {db.name}" if by == "ALTER DATABASE" else by
    for name, value in HOSTILE:
        db.sql(f"{target} SET {name} = '{value}'")
    cluster.restart()
    with cluster.connect(db.name, options=CALM) as session:
        each_kind_of_worker_does_its_work(session)


def test_a_transaction_timeout_of_the_configuration_ends_no_worker(make_cluster):
    """Connecting is a transaction too: with one of 1 ms no client gets in, and workers do."""
    # The server's own launcher of subscriptions would be ended.
    cluster = make_cluster({"pushy.enabled": "off", "max_logical_replication_workers": 0})
    db = cluster.database()
    skip_before(db, TRANSACTION_TIMEOUT)
    db.sql("""CREATE FUNCTION work() RETURNS text LANGUAGE plpgsql AS $$
                  BEGIN PERFORM pg_sleep(0.1); RAISE LOG 'the job runs'; RETURN current_setting('transaction_timeout'); END$$;
              SELECT pushy.queue_register('q', 'work()')""")
    job = db.value("SELECT pushy.enqueue('q')")
    cluster.stop()
    cluster.configure(transaction_timeout="1ms", pushy__enabled=None).start()
    cluster.log.wait_for("the job runs")
    cluster.stop()
    cluster.configure(transaction_timeout=None).start()
    assert db.of(cluster).job_wait(job)["result"] == "0"
    assert "transaction timeout" not in cluster.log.since()


def test_every_table_is_a_heap_whatever_the_default(cluster):
    db = cluster.database(extension=False)
    db.sql("CREATE ACCESS METHOD foreign_heap TYPE TABLE HANDLER heap_tableam_handler")
    with db.connect() as session:
        session.execute("SET default_table_access_method = foreign_heap")
        session.execute("CREATE EXTENSION pushy")
        session.execute("CREATE TABLE theirs ()")
    kinds = (
        "SELECT c.relname FROM pg_class c JOIN pg_am a ON a.oid = c.relam"
        " WHERE c.relkind IN ('r', 'p', 'm', 't') AND a.amname = 'foreign_heap'"
    )
    assert db.rows(kinds) == [("theirs",)]


def test_a_table_of_another_access_method_is_refused_not_corrupted(db):
    db.sql("CREATE ACCESS METHOD foreign_heap TYPE TABLE HANDLER heap_tableam_handler")
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''")
    db.sql("SELECT pushy.queue_register('q', 'work()')")
    for table, statement in (
        ("live_job", "SELECT pushy.enqueue('q')"),
        ("log_0", "SELECT pushy.notify('news', '1', delivery => 'relay')"),
    ):
        db.sql(f"ALTER TABLE pushy_internal.{table} SET ACCESS METHOD foreign_heap")
        with pytest.raises(errors.ObjectNotInPrerequisiteState) as refusal:
            db.sql(statement)
        assert f"pushy_internal.{table} has another access method than heap" in str(refusal.value)
        assert "SET ACCESS METHOD heap" in refusal.value.diag.message_hint
        db.sql(f"ALTER TABLE pushy_internal.{table} SET ACCESS METHOD heap")
        db.sql(statement)
    db.jobs_wait("q")


def test_an_executor_that_is_idle_shows_no_job_of_before(make_cluster):
    db = make_cluster({"pushy.executor_linger": 600, "pushy.max_executors": 1}).database()
    db.sql("CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'nothing()')")
    assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["state"] == "completed"
    db.wait_until("SELECT array_agg(state || ':' || query) FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'pushy executor%'",
                  ["idle:"])
