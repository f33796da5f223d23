"""CREATE OR REPLACE TRIGGER needs no more than TRIGGER on the table, and keeps the trigger's number: what somebody has put in the
place of a watch's trigger has not the watch's rights, and the watch says that it is broken."""

import itertools

import psycopg
import pytest

from stage.watching import jobs, paused_queue

EVENTS = ["insert", "update", "delete", "truncate"]

# Every kind of watch whose triggers differ: how many and what they hold.
WATCHES = {
    "rows": {"args_expr": "jsonb_build_object('id', coalesce(NEW.id, OLD.id))", "columns": ["v"], "condition": "coalesce(NEW.v, OLD.v) IS NOT NULL"},
    "plain rows": {"payload": "key"},
    "statements": {"level": "statement", "condition": "coalesce(NEW.v, OLD.v) IS NOT NULL"},
}

# What stands in the place of a trigger: it tells more than was declared, less, something else, or nothing.
EVIL = """WHEN (false AND ROW(NULL, NULL, NULL, pg_catalog.to_jsonb('{{"evil": 1}}'::jsonb)) IS NULL)"""
REPLACEMENTS = {
    "other expressions": "AFTER UPDATE ON {t} FOR EACH ROW " + EVIL + " EXECUTE FUNCTION {same}",
    "other expressions that call another function": "AFTER UPDATE ON {t} FOR EACH ROW " + EVIL + " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "a condition that always holds": "AFTER UPDATE ON {t} FOR EACH ROW WHEN (true) EXECUTE FUNCTION {same}",
    "no condition": "AFTER INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW EXECUTE FUNCTION {same}",
    "another level": "AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {t} FOR EACH STATEMENT EXECUTE FUNCTION {same}",
    "columns": "AFTER UPDATE OF v ON {t} FOR EACH ROW EXECUTE FUNCTION {same}",
    "other arguments": "AFTER UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION pushy.watch_row('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'y')",
    "before": "BEFORE UPDATE ON {t} FOR EACH STATEMENT EXECUTE FUNCTION {same}",
}


@pytest.fixture
def mallory(db, role):
    name = role()
    db.sql(f"CREATE SCHEMA {name} AUTHORIZATION {name}")
    return db.connect(user=name)


def create(db, table: str, partitioned: bool, mallory) -> None:
    db.sql(f"CREATE TABLE {table} (id int PRIMARY KEY, v int)" + (" PARTITION BY RANGE (id)" if partitioned else ""))
    if partitioned:
        db.sql(f"CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM (0) TO (2); CREATE TABLE {table}_2 PARTITION OF {table} FOR VALUES FROM (2) TO (9)")
    tables = [table, f"{table}_1", f"{table}_2"] if partitioned else [table]
    db.sql(f"GRANT TRIGGER ON {', '.join(tables)} TO {mallory.info.user}")


def declare(db, table: str, options: dict, events=("insert", "update", "delete", "truncate")) -> None:
    db.value("SELECT pushy.watch(%s, queue => 'q', events => %s" + "".join(f", {name} => %s" for name in options) + ")", table, list(events), *options.values())


def triggers(db, table: str) -> list[tuple]:
    return db.rows("""
        SELECT t.oid::int8, t.tgname, substring(pg_get_triggerdef(t.oid) FROM 'EXECUTE FUNCTION (.*)') FROM pg_trigger t
         WHERE t.tgrelid = %s::regclass AND t.tgparentid = 0 ORDER BY t.tgname""", table)


def write(session, table: str) -> None:
    session.execute(f"INSERT INTO {table} VALUES (1, 1), (2, 2)")
    session.execute(f"UPDATE {table} SET v = v")
    session.execute(f"UPDATE {table} SET v = v + 1, id = id + 2")
    session.execute(f"DELETE FROM {table}")
    session.execute(f"TRUNCATE {table}")


def state_of(db, table: str) -> tuple:
    return next(iter(db.rows("SELECT state, fix FROM pushy.watches WHERE relation = %s::regclass", table)))


@pytest.mark.parametrize("partitioned", [False, True])
@pytest.mark.parametrize("kind", WATCHES)
def test_nothing_of_a_replaced_trigger_is_told(db, mallory, kind, partitioned):
    """Each trigger of each kind of watch, replaced by each of these."""
    paused_queue(db)
    create(db, "whole", partitioned, mallory)
    declare(db, "whole", WATCHES[kind])
    write(db.main, "whole")
    expected = len(jobs(db))
    assert expected > 0
    names = triggers(db, "whole")
    replaced = 0
    # Another session that has the watch in its cache.
    with db.connect() as writer:
        for number, (at, replacement) in enumerate(itertools.product(range(len(names)), REPLACEMENTS)):
            table = f"t{number}"
            create(db, table, partitioned, mallory)
            declare(db, table, WATCHES[kind])
            write(writer, table)
            oid, name, same = triggers(db, table)[at]
            before = len(jobs(db))
            try:
                mallory.execute(f'CREATE OR REPLACE TRIGGER "{name}" ' + REPLACEMENTS[replacement].format(t=f"public.{table}", same=same))
            except psycopg.Error as error:
                # The server's own rules: a partitioned table has no such triggers.
                assert error.sqlstate in {"42809", "0A000", "42P17", "42601"}, (name, replacement, error)
                db.sql(f"DROP TABLE {table}")
                continue
            replaced += 1
            assert triggers(db, table)[at][0] == oid
            try:
                write(writer, table)
            except psycopg.Error as error:
                # The function refuses what it is no trigger for, as any trigger of mallory's may.
                assert error.sqlstate in {"39P01", "42501"}, (name, replacement, error)
            assert len(jobs(db)) == before, (name, replacement)
            state, fix = state_of(db, table)
            assert (state, fix[:13]) == ("broken", "SELECT pushy."), (name, replacement)
            db.sql(fix)
            db.sql(f"DELETE FROM {table}")
            before = len(jobs(db))
            write(writer, table)
            assert state_of(db, table) == ("active", None), (name, replacement)
            assert len(jobs(db)) == before + expected, (name, replacement)
            db.sql(f"DROP TABLE {table}")
    assert replaced >= 2 * len(names)
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE args::text ~ 'evil'") == 0


def test_copies_on_partitions_are_nobodys_to_replace(db, mallory):
    paused_queue(db)
    create(db, "t", True, mallory)
    declare(db, "t", WATCHES["rows"])
    copies = db.rows("SELECT tgname FROM pg_trigger WHERE tgrelid = 't_1'::regclass AND tgparentid <> 0")
    assert copies
    for name, in copies:
        with pytest.raises(psycopg.Error, match="internal or a child trigger"):
            mallory.execute(f'CREATE OR REPLACE TRIGGER "{name}" ' + REPLACEMENTS["no condition"].format(t="public.t_1", same="pushy.watch_row()"))
    assert state_of(db, "t") == ("active", None)


@pytest.mark.parametrize("statement, kept", [
    ("ALTER TABLE t ALTER v TYPE bigint", False),
    ("ALTER TABLE t RENAME v TO w", True),
])
def test_a_replaced_triggers_words_are_not_taken_for_declared_ones(db, mallory, statement, kept):
    paused_queue(db)
    create(db, "t", False, mallory)
    declare(db, "t", {"args_expr": "jsonb_build_object('id', NEW.v)", "condition": "NEW.v > 0"}, ["insert", "update"])
    declared = db.row("SELECT condition, args_expr FROM pushy.watches")
    name = next(name for _, name, _ in triggers(db, "t") if name.endswith("_expressions"))
    same = "pushy.watch_row('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'y')"
    mallory.execute(f"""
        CREATE OR REPLACE TRIGGER "{name}" AFTER UPDATE ON public.t FOR EACH ROW
          WHEN (false AND ROW(NULL, (NEW.v > 0) IS TRUE, NULL, pg_catalog.to_jsonb(jsonb_build_object('evil', NEW.v))) IS NULL) EXECUTE FUNCTION {same}""")
    if kept:
        db.sql(statement)
    else:
        with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="dropped or replaced") as raised:
            db.sql(statement)
        assert "pushy.unwatch" in raised.value.diag.message_hint
    assert db.row("SELECT condition, args_expr FROM pushy.watches") == declared
    assert state_of(db, "t")[0] == "broken"
    db.sql("INSERT INTO t VALUES (1, 1)")
    assert jobs(db) == []


def test_what_the_owner_may_do_to_triggers_breaks_nothing(db, mallory):
    """Renames, of the trigger, of the table and of what it is in; ALTER TABLE around them; VACUUM of the catalog."""
    paused_queue(db)
    create(db, "t", False, mallory)
    declare(db, "t", WATCHES["rows"])
    number = 0
    for statement in [
            'ALTER TRIGGER "{name}" ON t RENAME TO mine', "ALTER TABLE t RENAME v TO w", "ALTER TABLE t ALTER w TYPE bigint",
            "ALTER TABLE t ADD x int DEFAULT 1", "ALTER TABLE t DROP x", "ALTER TABLE t DISABLE TRIGGER ALL; ALTER TABLE t ENABLE TRIGGER ALL",
            "VACUUM FREEZE pg_trigger", "VACUUM FULL pg_trigger", "CREATE SCHEMA other; ALTER TABLE t SET SCHEMA other", "ALTER TABLE other.t RENAME TO u",
            "ALTER TABLE other.u SET SCHEMA public", "ALTER TABLE u RENAME TO t"]:
        oid, name, _ = triggers(db, "t")[0] if number == 0 else (0, "", "")
        number += 1
        db.sql(statement.format(name=name))
        relation = "other.u" if statement.endswith("TO u") else "other.t" if statement.endswith("other") else "u" if statement.endswith("SCHEMA public") else "t"
        assert state_of(db, relation) == ("active", None), statement
        db.sql(f"INSERT INTO {relation} VALUES ({number}, 1)")
        assert len(jobs(db)) == number, statement
