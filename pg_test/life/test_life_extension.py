"""The extension comes and goes while the server runs: created, dropped, both at once, rolled back."""

import contextlib
import re

import psycopg
import pytest

from harness.gate import Gate
from stage.life import LEDGER, SOON, run, wait_empty, workers


@pytest.fixture
def bare(shared_cluster):
    """A database without the extension."""
    database = shared_cluster.database(extension=False)
    yield database
    database.drop()


@pytest.fixture
def gated(db):
    """A database with a job that stands at `db.gate`, and an idle executor of another role."""
    return gate_in(db)


def gate_in(db):
    db.gate = Gate(db)
    db.sql(LEDGER)
    db.sql(f"""
        CREATE FUNCTION stops(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM {db.gate.stop};
            INSERT INTO public.ledger VALUES (args::int);
        END$$;
        SELECT pushy.queue_register('slow', 'stops(jsonb)'), pushy.queue_register('q', 'note(jsonb)')""")
    db.slow = db.value("SELECT pushy.enqueue('slow', '100')")
    db.gate.wait_for_arrival()
    return db


@pytest.fixture
def of_another_role(role, bare):
    """As `gated`, with an extension that can be dropped with all that its owner has; `db.owner`."""
    bare.owner = role("SUPERUSER")
    with bare.connect(user=bare.owner) as session:
        session.execute("CREATE EXTENSION pushy")
    yield gate_in(bare)


def create_again(db):
    db.sql("CREATE EXTENSION IF NOT EXISTS pushy")
    assert db.value("SELECT count(*) FROM pushy.queues") == 0
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
    run(db, count=3)
    assert db.value("SELECT enqueued FROM pushy.stats WHERE queue = 'q'") == 3


def no_crash(db, since):
    log = db.cluster.log.since(since)
    assert not re.search(r"PANIC|terminated by signal|panicked|TRAP", log), log


# -- CREATE ------------------------------------------------------------------------------------------------------

def test_workers_start_when_create_extension_commits(bare):
    with bare.connect(autocommit=False) as session:
        session.execute("CREATE EXTENSION pushy;" + LEDGER)
        session.execute("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.enqueue('q', '1')")
        assert workers(bare.cluster, bare.name) == []
        session.commit()
    bare.jobs_wait("q")
    assert bare.rows("SELECT n FROM ledger") == [(1,)]


def test_a_rolled_back_create_extension_leaves_nothing(bare):
    bare.sql(LEDGER)
    with bare.connect(autocommit=False) as session:
        session.execute("CREATE EXTENSION pushy")
        session.execute("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.enqueue('q', '1')")
        session.rollback()
    create_again(bare)
    assert bare.rows("SELECT n FROM ledger ORDER BY n") == [(1,), (2,), (3,)]


def test_a_create_extension_in_a_rolled_back_savepoint_leaves_nothing(bare):
    bare.sql(LEDGER)
    with bare.connect(autocommit=False) as session:
        session.execute("SAVEPOINT s; CREATE EXTENSION pushy")
        session.execute("ROLLBACK TO SAVEPOINT s")
        session.commit()
    create_again(bare)


# -- DROP --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("drop", ["DROP OWNED BY {owner} CASCADE", "SET ROLE {owner}; DROP OWNED BY current_user CASCADE"])
def test_what_takes_the_extension_along_ends_a_running_job_and_the_workers_too(of_another_role, drop):
    db, since = of_another_role, of_another_role.cluster.log.position()
    db.sql(f"SET statement_timeout = '{SOON}'; {drop.format(owner=db.owner)}; RESET ROLE")
    wait_empty(db.cluster, db.name)
    db.gate.open()
    assert db.value("SELECT count(*) FROM ledger") == 0, "the effects of an ended job are rolled back"
    create_again(db)
    no_crash(db, since)


@pytest.mark.parametrize("statement", ["DROP SCHEMA pushy", "DROP SCHEMA pushy CASCADE", "DROP OWNED BY {stranger}"])
def test_what_does_not_take_the_extension_along_leaves_the_workers_alone(of_another_role, role, statement):
    db = of_another_role
    (pid,) = db.gate.wait_for_arrival()
    with contextlib.suppress(psycopg.errors.DependentObjectsStillExist):
        db.sql(statement.format(stranger=role()))
    assert db.gate.wait_for_arrival() == [pid]
    db.gate.open()
    assert db.job_wait(db.slow)["state"] == "completed"


def test_drop_extension_ends_a_running_job_and_the_workers(gated):
    since = gated.cluster.log.position()
    gated.sql(f"SET statement_timeout = '{SOON}'; DROP EXTENSION pushy")
    wait_empty(gated.cluster, gated.name)
    gated.gate.open()
    assert gated.value("SELECT count(*) FROM ledger") == 0, "the effects of an ended job are rolled back"
    create_again(gated)
    no_crash(gated, since)


def test_drop_and_create_in_one_transaction_start_afresh(gated):
    since = gated.cluster.log.position()
    with gated.connect(autocommit=False) as session:
        session.execute(f"SET statement_timeout = '{SOON}'; DROP EXTENSION pushy; CREATE EXTENSION pushy")
        session.execute("SELECT pushy.queue_register('new', 'note(jsonb)'), pushy.enqueue('new', '7')")
        session.commit()
    gated.jobs_wait("new")
    assert gated.rows("SELECT n FROM ledger") == [(7,)]
    gated.sql("SELECT pushy.queue_drop('new')")
    gated.gate.open()
    create_again(gated)
    no_crash(gated, since)


@pytest.mark.parametrize("statements", ["DROP EXTENSION pushy", "DROP EXTENSION pushy; CREATE EXTENSION pushy",
                                        "SAVEPOINT s; DROP EXTENSION pushy; ROLLBACK TO SAVEPOINT s"],
                         ids=["drop", "drop and create", "in a savepoint"])
def test_a_drop_that_is_rolled_back_takes_no_job_and_charges_none(gated, statements):
    since = gated.cluster.log.position()
    with gated.connect(autocommit=False) as session:
        session.execute(f"SET statement_timeout = '{SOON}'; {statements}")
        session.rollback()
    gated.gate.wait_for_arrival()
    gated.gate.open()
    done = gated.job_wait(gated.slow)
    assert (done["state"], done["attempt"]) == ("completed", 1)
    assert gated.value("SELECT count(*) FROM pushy.failures") == 0
    run(gated)
    no_crash(gated, since)


def test_while_a_drop_is_open_queue_explain_cannot_lie_and_nothing_runs(gated):
    with gated.connect(autocommit=False) as session:
        session.execute(f"SET statement_timeout = '{SOON}'; SAVEPOINT s; DROP EXTENSION pushy; ROLLBACK TO SAVEPOINT s")
        assert "kept out" in str(session.execute("SELECT reason FROM pushy.queue_explain('q')").fetchall())
        session.commit()
    gated.gate.open()
    gated.job_wait(gated.slow)


def test_who_does_not_own_the_extension_disturbs_nobody(gated, role):
    before = gated.gate.wait_for_arrival()
    with gated.connect(user=role()) as session:
        for statement in ("DROP EXTENSION pushy", "ALTER EXTENSION pushy UPDATE", "DROP SCHEMA pushy CASCADE",
                          "ALTER EXTENSION pushy ADD TABLE ledger"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)
    assert gated.gate.wait_for_arrival() == before, "the same process still runs the same job"
    gated.gate.open()
    assert gated.job_wait(gated.slow)["attempt"] == 1


def test_a_drop_that_is_refused_lets_the_jobs_run_on(gated):
    gated.sql("CREATE VIEW mine AS SELECT * FROM pushy.queues")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        gated.sql("DROP EXTENSION pushy")
    gated.gate.open()
    assert gated.job_wait(gated.slow)["attempt"] == 1


def test_alter_extension_lets_the_jobs_run_on(gated):
    gated.sql(f"SET statement_timeout = '{SOON}'; ALTER EXTENSION pushy UPDATE")
    gated.gate.open()
    assert gated.job_wait(gated.slow)["attempt"] == 1


# -- other ways to lose it ---------------------------------------------------------------------------------------

def test_drop_owned_of_the_extensions_owner_leaves_no_crash(bare, role):
    since = bare.cluster.log.position()
    owner = role("SUPERUSER")
    bare.sql(LEDGER)
    with bare.connect(user=owner) as session:
        session.execute("CREATE EXTENSION pushy")
        session.execute("SELECT pushy.queue_register('q', 'note(jsonb)', run_as => 'postgres')")
    run(bare, count=3)
    bare.sql(f"DROP OWNED BY {owner} CASCADE")
    bare.sql("TRUNCATE ledger")
    create_again(bare)
    no_crash(bare, since)


def test_a_table_taken_away_stops_its_own_database_only_until_it_is_back(gated):
    """A superuser can break the extension, in the catalog; the others must not suffer, and nothing is lost."""
    rename = "UPDATE pg_class SET relname = '{}' WHERE relnamespace = 'pushy_internal'::regnamespace AND relname = '{}'"
    since = gated.cluster.log.position()
    gated.gate.open()
    gated.job_wait(gated.slow)
    gated.sql("SELECT pushy.queue_alter('q', max_attempts => 1)")
    gated.sql(rename.format("elsewhere", "failure"))
    job = gated.value("SELECT pushy.enqueue('q', '\"no number\"')")
    gated.cluster.log.wait_for("jobs wait: relation \"pushy_internal.failure\" does not exist", since)
    other = gated.cluster.database()
    other.sql(LEDGER)
    other.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
    run(other)
    other.drop()
    gated.sql(rename.format("failure", "elsewhere"))
    assert gated.job_wait(job)["state"] == "discarded"
