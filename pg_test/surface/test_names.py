"""Names that no view shows, and what is called by another name than the caller's."""

import psycopg
import pytest

from harness.refusal import refused

SETUP = "CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY); SELECT pushy.queue_register('q', 'work()')"
# Calls that give a name, by the argument that has it.
NAMING = {
    "queue": "SELECT pushy.queue_register({}, 'work()')",
    "new_name": "SELECT pushy.queue_rename('q', {})",
    "watch": "SELECT pushy.watch('t', name => {})",
    "subscription": "SELECT pushy.subscription_create({}, '{{c}}')",
}


@pytest.mark.parametrize("name", ["", " ", "\t", " a", "a ", "\u00a0a", "a\u200b", "\u3000"])
@pytest.mark.parametrize("named", NAMING)
def test_a_name_that_looks_like_another_or_like_none_is_refused(db, named, name):
    db.sql(SETUP)
    argument = {"watch": "name", "subscription": "name"}.get(named, named)
    refused(db.main, NAMING[named].format(f"'{name}'"), "22023", f'invalid value for "{argument}"')
    db.sql(NAMING[named].format("'a b'"))


def test_a_watch_says_of_which_argument_a_name_is(db):
    db.sql(SETUP)
    refused(db.main, "SELECT pushy.watch('t', queue => '')", "22023", 'invalid value for "queue": a name of 0 bytes')


def test_a_channel_that_two_tables_of_one_name_have_is_said(db):
    said = []
    db.main.add_notice_handler(lambda diag: said.append(diag.message_primary))
    for schema in ("a", "b"):
        db.sql(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.orders (id int PRIMARY KEY)")
    db.sql("SELECT pushy.watch('a.orders')")
    assert said == []
    db.sql("SELECT pushy.watch('b.orders')")
    assert said == ['watch "orders" of table b.orders publishes on channel orders, as a watch of table a.orders does']
    db.sql("SELECT pushy.watch('b.orders')")
    db.sql("SELECT pushy.watch('b.orders', 'b_orders', name => 'orders'); DROP TABLE a.orders; SELECT pushy.watch('b.orders', name => 'orders')")
    assert not [line for line in said[1:] if "as a watch" in line], said


@pytest.mark.parametrize("change", ["RENAME TO post", "SET SCHEMA app"])
def test_a_handler_under_a_new_name_is_the_same(db, change):
    db.sql("CREATE SCHEMA app; CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'work()'); "
           f"ALTER FUNCTION work() {change}")
    said = []
    db.main.add_notice_handler(lambda diag: said.append(diag.message_primary))
    db.sql(f"SELECT pushy.queue_register('q', '{'post()' if 'TO post' in change else 'app.work()'}')")
    assert said == []
    db.sql("CREATE FUNCTION other() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'other()')")
    assert len(said) == 1 and "and no longer" in said[0]


def test_a_handler_with_other_arguments_is_shown_as_it_is(db):
    db.sql("CREATE FUNCTION work(a jsonb, b int DEFAULT 3) RETURNS void LANGUAGE sql AS ''")
    refused(db.main, "SELECT pushy.queue_register('q', 'work')", "42P13", "There is public.work(jsonb,integer).", "DEFAULT")


MEMBERS = """
    SELECT CASE d.classid
             WHEN 'pg_proc'::regclass THEN format('%s %s', CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, d.objid::regprocedure)
             WHEN 'pg_type'::regclass THEN format('TYPE %s', d.objid::regtype)
             WHEN 'pg_class'::regclass THEN format('%s %s', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, d.objid::regclass)
           END
      FROM pg_depend d LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
      LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
     WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pushy') AND d.deptype = 'e'
       AND d.classid IN ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_class'::regclass)
       AND NOT EXISTS (SELECT FROM pg_type y WHERE d.classid = 'pg_type'::regclass AND y.oid = d.objid AND (y.typrelid <> 0 AND y.typname <> 'job' OR y.typelem <> 0))"""


def test_nothing_that_the_extension_has_made_is_renamed_or_moved(db):
    members = [member for member, in db.rows(MEMBERS)]
    assert len(members) > 100 and "TYPE pushy.job" in members
    moved = []
    for member in members:
        for change in ("RENAME TO x", "SET SCHEMA public"):
            try:
                with db.main.transaction(force_rollback=True):
                    db.sql(f"ALTER {member} {change}")
                moved.append((member, change))
            except psycopg.Error as error:
                if "keeps its name" not in str(error):
                    moved.append((member, change, str(error)))
    assert moved == []
    db.sql("CREATE FUNCTION mine() RETURNS void LANGUAGE sql AS ''; ALTER FUNCTION mine() RENAME TO ours; CREATE TABLE t (); ALTER TABLE t RENAME TO u; CREATE SCHEMA s; ALTER TABLE u SET SCHEMA s")
    db.sql("DROP EXTENSION pushy; CREATE EXTENSION pushy")
