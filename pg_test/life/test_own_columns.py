"""Pushy reads and writes its tables by the places of their columns: nobody changes these but a script of the extension, and where
somebody has done so while the library was not there to refuse it, each use says which table it is and what to do."""

import psycopg
import pytest

from harness.refusal import refused
from stage.watching import watch

TABLES = """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('pushy', 'pushy_internal') AND c.relkind IN ('r', 'v') ORDER BY 1"""


def test_no_column_of_any_table_or_view_is_added_dropped_changed_or_renamed(db):
    relations = [name for name, in db.rows(TABLES)]
    assert len(relations) > 30
    for relation in relations:
        column = db.value("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum = 1", relation)
        for change in ("ADD COLUMN mine int", "ADD COLUMN IF NOT EXISTS mine int DEFAULT 1", f"DROP COLUMN {column}", f"DROP COLUMN {column} CASCADE",
                       f"ALTER COLUMN {column} TYPE text", f'RENAME COLUMN {column} TO "mine"', f"ADD mine int, DROP {column}"):
            refused(db.main, f"ALTER TABLE {relation} {change}", "55000", f"columns of {relation} cannot be changed", "table of your own")


def test_what_changes_no_column_is_the_owners_business(db):
    db.sql("ALTER TABLE pushy_internal.live_job SET (fillfactor = 80); ALTER TABLE pushy_internal.live_job ALTER COLUMN args SET STORAGE EXTERNAL; "
           "CREATE INDEX mine ON pushy_internal.finished_job (finished_at); DROP INDEX pushy_internal.mine")


def test_who_does_not_own_them_gets_the_servers_own_error(db, role):
    with db.connect(user=role()) as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("ALTER TABLE pushy_internal.live_job ADD COLUMN mine int")


# Tables that are written and read without the server's parser, and what uses them. Without the preload there is no hook that refuses,
# and no worker.
USES = {
    "live_job": "SELECT pushy.enqueue('q')",
    "finished_job": "SELECT pushy.queue_run('q')",
    "oversize_notice": "INSERT INTO t VALUES (2, repeat('x', 20000))",
    "log_0": "SELECT pushy.notify('c', 'x', delivery => 'relay')",
}


# A column that a view shows is dropped with the extension only.
@pytest.mark.parametrize("table, change", [
    (table, change) for table in USES for change in ("ADD COLUMN mine int", "DROP COLUMN {last}", "RENAME COLUMN {last} TO mine")
    if not (change.startswith("DROP") and table.endswith("_job"))])
def test_a_table_that_was_altered_before_the_library_was_preloaded_is_named(make_cluster, table, change):
    db = make_cluster({"shared_preload_libraries": ""}).database()
    db.sql("CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY, v text)")
    db.sql("SELECT pushy.queue_register('q', 'nothing()', keep_completed => '1 day')")
    watch(db, "t", channel="c", payload="row", delivery="notify")
    with db.connect() as session:
        # A session that has used the table before, and one that has not.
        session.execute("SELECT pushy.enqueue('q'), pushy.queue_run('q')"), session.execute("INSERT INTO t VALUES (1, repeat('x', 20000))")
        session.execute("SELECT pushy.notify('c', 'x', delivery => 'relay')")
        last = db.value("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND attname NOT IN ('state', 'priority') "
                        "ORDER BY attnum DESC LIMIT 1", f"pushy_internal.{table}")
        if table == "finished_job":
            db.sql("SELECT pushy.enqueue('q')")
        db.sql(f"ALTER TABLE pushy_internal.{table} {change.format(last=last)}")
        for user in (session, db.main):
            refused(user, USES[table], "55000", f"table pushy_internal.{table} does not fit the loaded library", "ALTER EXTENSION pushy UPDATE")
            assert user.execute("SELECT 1").fetchone() == (1,)
