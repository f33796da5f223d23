"""Anybody may have made the triggers that a copy or a restore brings: their values are of the types that are read, or are not
read, and their expressions are those that were declared, or tell nothing."""

import psycopg
import pytest

from stage.watching import jobs, paused_queue, watch

# What the trigger holds, by what the watch below says; and what else a value could be, by value and by reference.
HELD = {"boolean": "(OLD.t <> NEW.t)", "bool": "(NEW.id > 0) IS TRUE", "text": "NEW.id::text", "jsonb": "pg_catalog.to_jsonb(NEW.id)", "topic": "NEW.t"}
VALUES = {"bigint": "NEW.n", "uuid": "NEW.u", "jsonb": "NEW.j", "text": "NEW.t", "boolean": "NEW.b", "bytea": "NEW.t::bytea", "name": "NEW.t::name",
          "double precision": "NEW.n::float8", "bigint[]": "ARRAY[NEW.n]", "record": "ROW(NEW.n, NEW.t)", "cstring": "textout(NEW.t)", "varchar": "NEW.t::varchar"}


@pytest.fixture
def shop(db, role):
    """A watch with an expression of every kind, and its maker, who owns the table."""
    paused_queue(db)
    db.maker = role()
    db.sql(f"CREATE SCHEMA s AUTHORIZATION {db.maker}; SELECT pushy.queue_grant('q', 'public', 'enqueue')")
    with db.connect(user=db.maker) as session:
        session.execute("CREATE TABLE s.x (id int PRIMARY KEY, n bigint, u uuid, j jsonb, t text, b bool)")
        watch(db, "s.x", session, name="w", channel="c", columns=["t"], condition="NEW.id > 0", payload_expr="NEW.id::text", queue="q",
              args_expr="to_jsonb(NEW.id)", topic_expr="NEW.t")
    return db


def forge(db, held: list[str], condition: str = "false AND ROW({}) IS NULL") -> None:
    """As the maker, who may do that: its own trigger in the place of the one that holds the expressions."""
    with db.connect(user=db.maker) as session:
        made = session.execute("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'pushy_w_expressions'").fetchone()[0]
        call = made[made.index("EXECUTE FUNCTION"):]
        session.execute("DROP TRIGGER pushy_w_expressions ON s.x")
        when = condition.format(", ".join(held))
        session.execute(f"CREATE TRIGGER pushy_w_expressions AFTER UPDATE ON s.x FOR EACH ROW WHEN ({when}) {call}")


def write(db) -> None:
    """A write is never failed; a new session has nothing in its memory. 4774451407313060418 is an address of nothing."""
    with db.connect() as session:
        session.execute("INSERT INTO s.x VALUES (1, 4774451407313060418, 'c0d40100-0000-0000-0000-000000000000', '{}', 'x', true)")
        session.execute("UPDATE s.x SET t = 'y'")
        session.execute("DELETE FROM s.x")


def test_a_value_is_read_as_what_it_is_or_not_at_all(shop):
    """Whatever a row of pushy_internal.watch points at: here a superuser has written it, whom nothing stops."""
    forms = [(f"{type_} for {due}", [value if at == place else expression for place, expression in enumerate(HELD.values())])
             for at, due in enumerate(HELD) for type_, value in VALUES.items() if not (due == type_ or {due, type_} in ({"bool", "boolean"}, {"topic", "text"}))]
    forms += [("nothing", []), ("four", list(HELD.values())[:4]), ("six", [*HELD.values(), "NEW.n"])]
    assert len(forms) > 40
    for what, held in forms:
        forge(shop, held) if held else forge(shop, ["NULL"], "false AND NEW.n IS NULL")
        shop.sql("UPDATE pushy_internal.watch SET expression_trigger = (SELECT oid FROM pg_trigger WHERE tgname = 'pushy_w_expressions'),"
                 " triggers = ARRAY(SELECT oid FROM pg_trigger WHERE tgrelid = 's.x'::regclass AND tgname LIKE 'pushy\\_w\\_%')")
        try:
            write(shop)
        except psycopg.OperationalError as error:
            raise AssertionError(f"{what}: {error}\n{shop.cluster.log.tail()}") from error
        assert [args for args in jobs(shop) if "error" not in str(args)] == [], what


def copy_of(db, cluster):
    db.close()
    with cluster.connect() as admin:
        admin.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s AND backend_type NOT LIKE 'pushy%%'", [db.name])
    copy = cluster.database(f"{db.name}_copy", extension=False, options=f"TEMPLATE {db.name}")
    copy.maker = db.maker
    return copy


RESUME = "SELECT resumed, reason FROM pushy.resume_after_restore() WHERE name LIKE '%w on %'"
FORGED = {
    "another type": [*list(HELD.values())[:3], "NEW.j", "NEW.t"], "another value": [*list(HELD.values())[:3], "pg_catalog.to_jsonb(NEW.n)", "NEW.t"],
    "another topic": [*list(HELD.values())[:4], "NEW.n::text"], "no topic": list(HELD.values())[:4],
    "a condition left out": [list(HELD.values())[0], "NULL", *list(HELD.values())[2:]], "six": [*HELD.values(), "NEW.n"],
}


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("who", ["maker", "postgres"])
def test_expressions_that_were_not_declared_do_not_come_home(shop, shared_cluster, what, who):
    copy = copy_of(shop, shared_cluster)
    try:
        forge(copy, FORGED[what])
        with copy.connect(user=copy.maker if who == "maker" else who) as session:
            (resumed, reason), = session.execute(RESUME).fetchall()
        assert not resumed and "its triggers on table s.x are not those that were declared" in reason
        write(copy)
        assert copy.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'q'") == 0
    finally:
        copy.drop()


@pytest.mark.parametrize("change", ["SELECT", "ALTER TABLE s.x RENAME t TO \"T t\"", "ALTER TABLE s.x RENAME TO y; ALTER TABLE s.y RENAME TO x",
                                    "ALTER TABLE s.x ALTER t TYPE varchar(30)", "ALTER TABLE s.x ADD COLUMN more int"])
def test_expressions_that_were_declared_come_home_whatever_became_of_their_table(shop, shared_cluster, change):
    shop.sql(change)
    copy = copy_of(shop, shared_cluster)
    try:
        assert copy.rows(RESUME) == [(True, None)]
        copy.sql("INSERT INTO s.x (id) VALUES (1)")
        assert copy.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'q'") == 1
    finally:
        copy.drop()
