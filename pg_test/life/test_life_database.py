"""Statements that need a database empty go through while jobs run in it, and workers come back if it stays."""

import psycopg
import pytest

from harness import account
from harness.database import Database
from stage.life import LEDGER, SOON, ClusterGate, run, wait_empty, workers


@pytest.fixture
def busy(shared_cluster, role):
    """A database with a job that stands at `busy.gate`, an idle executor of another role, and nobody else in it."""
    with ClusterGate(shared_cluster) as gate:
        db = database_at_a_gate(shared_cluster, role(), gate)
        yield db
    with shared_cluster.connect() as session:
        if session.execute("SELECT 1 FROM pg_database WHERE datname = %s", (db.name,)).fetchone():
            db.drop()


def at_work(db: Database) -> list[str]:
    """The workers of the database, but for a scheduler, which leaves when nothing is due."""
    return [kind for kind in workers(db.cluster, db.name) if kind != "pushy scheduler"]


def database_at_a_gate(cluster, other: str, gate: ClusterGate) -> Database:
    db = cluster.database()
    db.sql(LEDGER)
    db.sql(f"""
        GRANT INSERT ON ledger TO {other};
        CREATE FUNCTION stops(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            {gate.stop};
            INSERT INTO public.ledger VALUES (args::int);
        END$$;
        SELECT pushy.queue_register('slow', 'stops(jsonb)'), pushy.queue_register('q', 'note(jsonb)', run_as => '{other}')""")
    run(db, count=3)
    db.slow = db.value("SELECT pushy.enqueue('slow', '100')")
    gate.wait_for_arrival()
    db.close()
    db.gate = gate
    return db


@pytest.fixture
def admin(shared_cluster):
    with shared_cluster.connect() as session:
        session.execute(f"SET statement_timeout = '{SOON}'")
        yield session


def goes_on(db):
    """The job that was cut short runs again and is done once, charged once."""
    db.gate.wait_for_arrival()
    db.gate.open()
    done = db.job_wait(db.slow)
    assert (done["state"], done["attempt"]) == ("completed", 1)
    assert db.value("SELECT count(*) FROM pushy.failures") == 0
    assert db.value("SELECT count(*) FROM ledger WHERE n = 100") == 1
    run(db, count=3)


def a_neighbour_works(cluster):
    neighbour = cluster.database()
    neighbour.sql(LEDGER)
    neighbour.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
    run(neighbour)
    neighbour.drop()


# -- by who may ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", ["", "WITH (FORCE)"])
def test_drop_database_while_jobs_run(busy, admin, options):
    name, since = busy.name, busy.cluster.log.position()
    admin.execute(f'DROP DATABASE "{name}" {options}')
    assert workers(busy.cluster, name) == []
    busy.gate.open()
    again = busy.cluster.database(name)
    again.sql(LEDGER)
    again.sql("SELECT pushy.queue_register('slow', 'note(jsonb)')")
    run(again, "slow", count=3)
    assert again.rows("SELECT n FROM ledger ORDER BY n") == [(1,), (2,), (3,)]
    again.close()
    assert "PANIC" not in busy.cluster.log.since(since)


def test_a_dropped_database_is_forgotten(busy, admin):
    """No worker is ever started for it again, and its places in shared memory are free."""
    since = busy.cluster.log.position()
    admin.execute(f'DROP DATABASE "{busy.name}"')
    busy.gate.open()
    a_neighbour_works(busy.cluster)
    assert "FATAL:  database" not in busy.cluster.log.since(since)


def test_rename_database_while_jobs_run(busy, admin):
    admin.execute(f'ALTER DATABASE "{busy.name}" RENAME TO "{busy.name}_new"')
    busy.name += "_new"
    goes_on(busy)


def test_a_renamed_database_is_rid_of_its_workers_until_the_commit(busy, admin):
    admin.execute("BEGIN")
    admin.execute(f'ALTER DATABASE "{busy.name}" RENAME TO "{busy.name}_new"')
    assert workers(busy.cluster, busy.name) == []
    admin.execute("COMMIT")
    busy.name += "_new"
    goes_on(busy)


def test_a_rename_that_is_rolled_back(busy, admin):
    admin.execute("BEGIN")
    admin.execute(f'ALTER DATABASE "{busy.name}" RENAME TO "{busy.name}_new"')
    admin.execute("ROLLBACK")
    goes_on(busy)


def test_a_rename_to_a_name_that_is_taken(busy, admin):
    with pytest.raises(psycopg.errors.DuplicateDatabase):
        admin.execute(f'ALTER DATABASE "{busy.name}" RENAME TO postgres')
    goes_on(busy)


def test_set_tablespace_while_jobs_run(busy, admin):
    folder = busy.cluster.folder / f"ts_{busy.name}"
    folder.mkdir()
    account.give(folder)
    admin.execute(f"CREATE TABLESPACE \"ts_{busy.name}\" LOCATION '{folder}'")
    admin.execute(f'ALTER DATABASE "{busy.name}" SET TABLESPACE "ts_{busy.name}"')
    goes_on(busy)
    busy.close()
    admin.execute(f'ALTER DATABASE "{busy.name}" SET TABLESPACE pg_default')
    admin.execute(f'DROP TABLESPACE "ts_{busy.name}"')


def test_a_database_is_copied_while_jobs_run_and_the_copy_waits_to_be_told(busy, admin):
    admin.execute(f'CREATE DATABASE "{busy.name}_copy" TEMPLATE "{busy.name}"')
    copy = Database(busy.cluster, f"{busy.name}_copy")
    goes_on(busy)
    # The job was in the template when it was copied: it must not run in both.
    assert copy.job(busy.slow)["state"] == "available"
    new = copy.value("SELECT pushy.enqueue('q', '7')")
    assert "resume_after_restore" in str(copy.rows("SELECT reason, fix FROM pushy.queue_explain('q')"))
    run(busy)
    assert copy.job(new)["state"] == "available"
    assert {resumed for resumed, in copy.rows("SELECT resumed FROM pushy.resume_after_restore()")} == {True}
    assert copy.job_wait(new)["state"] == "completed"
    assert copy.job_wait(busy.slow)["state"] == "completed"
    assert copy.value("SELECT count(*) FROM ledger WHERE n = 100") == 1
    copy.drop()


def test_a_copy_that_fails_lets_the_jobs_run_on(busy, admin):
    with pytest.raises(psycopg.errors.DuplicateDatabase):
        admin.execute(f'CREATE DATABASE postgres TEMPLATE "{busy.name}"')
    goes_on(busy)


def test_template1_with_the_extension_is_copied_without_a_word(make_cluster):
    """CREATE DATABASE without TEMPLATE copies template1."""
    cluster = make_cluster()
    template = Database(cluster, "template1")
    template.sql("CREATE EXTENSION pushy;" + LEDGER)
    template.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
    run(template)
    template.close()
    with cluster.connect() as session:
        session.execute(f"SET statement_timeout = '{SOON}'")
        session.execute("CREATE DATABASE child")
    child = Database(cluster, "child")
    assert child.value("SELECT count(*) FROM ledger") == 1
    child.sql("SELECT pushy.resume_after_restore()")
    run(child)


def test_a_database_closed_to_connections_waits_and_goes_on_when_opened(busy, admin):
    since = busy.cluster.log.position()
    admin.execute(f'ALTER DATABASE "{busy.name}" ALLOW_CONNECTIONS false')
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (busy.name,))
    wait_empty(busy.cluster, busy.name)
    busy.gate.open()
    a_neighbour_works(busy.cluster)
    assert busy.cluster.log.since(since).count("not currently accepting connections") <= 1
    admin.execute(f'ALTER DATABASE "{busy.name}" ALLOW_CONNECTIONS true')
    assert busy.job_wait(busy.slow)["state"] == "completed"


# -- by who may not -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("statement", [
    'DROP DATABASE "{db}"', 'DROP DATABASE "{db}" WITH (FORCE)', 'ALTER DATABASE "{db}" RENAME TO "{db}_mine"',
    'ALTER DATABASE "{db}" SET TABLESPACE pg_default', 'CREATE DATABASE "{db}_mine" TEMPLATE "{db}"'],
    ids=["drop", "force", "rename", "move", "copy"])
@pytest.mark.parametrize("options", ["", "CREATEDB"], ids=["plain", "CREATEDB"])
def test_who_may_not_do_it_disturbs_nobody(busy, role, statement, options):
    before = busy.gate.wait_for_arrival()
    executors = at_work(busy)
    with busy.cluster.connect(user=role(options)) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(statement.format(db=busy.name))
    assert busy.gate.wait_for_arrival() == before, "the same process still runs the same job"
    assert at_work(busy) == executors
    busy.gate.open()
    assert busy.job_wait(busy.slow)["attempt"] == 1


def test_inside_a_transaction_block_it_fails_and_the_jobs_run_on(busy, admin):
    for statement in (f'DROP DATABASE "{busy.name}"', f'CREATE DATABASE other TEMPLATE "{busy.name}"'):
        admin.execute("BEGIN")
        with pytest.raises(psycopg.errors.ActiveSqlTransaction):
            admin.execute(statement)
        admin.execute("ROLLBACK")
    goes_on(busy)


# -- statements that are not ours ---------------------------------------------------------------------------------

def test_an_error_of_a_utility_statement_keeps_all_that_the_server_says_of_it(db):
    """The library sees every utility statement of the server; clients must not notice."""
    db.sql("CREATE TABLE t (n int CONSTRAINT positive CHECK (n > 0))")
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        db.sql("DO $$BEGIN INSERT INTO t VALUES (-1); END$$")
    diag = error.value.diag
    assert (diag.constraint_name, diag.table_name, diag.schema_name) == ("positive", "t", "public")
    assert diag.message_detail == "Failing row contains (-1)."
    assert "PL/pgSQL function inline_code_block line 1" in diag.context
    with pytest.raises(psycopg.errors.DuplicateDatabase) as error:
        db.sql(f'ALTER DATABASE "{db.name}" RENAME TO postgres')
    assert (error.value.diag.message_detail, error.value.diag.source_function) == (None, "RenameDatabase")


def test_nobody_but_a_superuser_chooses_the_number_of_a_copy(make_cluster):
    """Else whoever owns a database drops it, and copies an older copy under its number: jobs of others would run again."""
    cluster = make_cluster(fresh=True)
    maker = cluster.database("maker")
    maker.sql("CREATE ROLE makes LOGIN CREATEDB")
    with maker.connect(user="makes") as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied to choose the OID of a database"):
            session.execute("CREATE DATABASE mine OID = 99999")
        session.execute("CREATE DATABASE mine")
    maker.sql("CREATE DATABASE numbered OID = 99998")
