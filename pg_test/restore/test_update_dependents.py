"""What others have made on Pushy's functions and types stops no update: functions that get other arguments stay the functions they were, and
what a type's new attribute cannot go past is named, all of it, with the statement that clears the way. Generated: each kind of object on
each function and type that the script changes."""

import datetime
import os
import re

import psycopg
import pytest

from harness.cluster import Cluster
from harness.database import Database
from stage import dumps, versions
from stage.versions import OWN

UPDATE = (versions.REPOSITORY / "sql" / f"pushy--0.1.0--{OWN}.sql").read_text()
# Each function that the script gives other arguments or answers: a call of what it was.
CALLS = {
    "queue_register": "pushy.queue_register('q'::text || 1, 'pg_catalog.now()')",
    "queue_alter": "pushy.queue_alter('q1', priority => 3)",
    "watch": "pushy.watch('eve.watched')",
    "notify": "pushy.notify('news', 'x')",
    "subscription_create": "pushy.subscription_create('s')",
    "subscription_read": "pushy.subscription_read('s')",
    "queue_statistics": None,
    "subscription_rows": None,
}
SETS = {"subscription_read"}
# {c}: the call, as a condition; {n}: a name.
KINDS = {
    "view": "CREATE VIEW eve.{n} AS SELECT {c} AS x",
    "materialized view": "CREATE MATERIALIZED VIEW eve.{n} AS SELECT {c} AS x WITH NO DATA",
    "rule": "CREATE TABLE eve.{n} (x int); CREATE RULE r AS ON INSERT TO eve.{n} DO ALSO SELECT {c}",
    "default": "CREATE TABLE eve.{n} (x int, y boolean DEFAULT {c})",
    "check": "CREATE TABLE eve.{n} (x int CHECK ({c}))",
    "policy": "CREATE TABLE eve.{n} (x int); CREATE POLICY p ON eve.{n} USING ({c})",
    "trigger": "CREATE TABLE eve.{n} (x int); CREATE TRIGGER t BEFORE INSERT ON eve.{n} FOR EACH ROW WHEN ({c}) EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "domain": "CREATE DOMAIN eve.{n} AS boolean DEFAULT {c} CHECK ({c})",
    "body": "CREATE FUNCTION eve.{n}() RETURNS boolean BEGIN ATOMIC SELECT {c}; END",
    "procedure": "CREATE PROCEDURE eve.{n}() BEGIN ATOMIC SELECT {c}; END",
    "argument": "CREATE FUNCTION eve.{n}(x boolean DEFAULT {c}) RETURNS boolean LANGUAGE sql RETURN x",
}
# What has no place for a query.
NO_SETS = {"default", "check", "trigger", "domain", "argument"}
# By its number anybody names any function.
BY_NUMBER = {
    "number in a view": "CREATE VIEW eve.{n} AS SELECT '{o}'::regprocedure AS x",
    "number in a default": "CREATE TABLE eve.{n} (x regprocedure DEFAULT '{o}')",
    "number in a body": "CREATE FUNCTION eve.{n}() RETURNS regprocedure BEGIN ATOMIC SELECT '{o}'::regprocedure; END",
}
# Whose first argument is of the type that they answer: its state.
AGGREGATES = {
    "queue_register": "text, regrole, int, int, int, text, interval, interval, interval, interval, interval, boolean",
    "subscription_create": "text[], text, boolean",
}


@pytest.fixture(scope="module")
def server(scratch):
    """A server whose library is of the present version, and that has the script of the one before."""
    installed = versions.installation(scratch / f"dependents{os.getpid()}")
    versions.put_script(installed, "0.1.0", versions.script("0.1.0"))
    cluster = Cluster(installed.root.with_name(f"{installed.root.name}.c"), installed, {"pushy.max_executors": 2})
    cluster.create().start()
    with cluster.connect() as admin:
        admin.execute("CREATE ROLE eve LOGIN")
    yield cluster
    cluster.remove()


@pytest.fixture
def fresh(server) -> Database:
    db = server.database(extension=False)
    yield db
    db.drop()


@pytest.fixture
def old(server) -> Database:
    db = server.database(extension=False)
    db.sql("CREATE EXTENSION pushy VERSION '0.1.0'; CREATE SCHEMA eve AUTHORIZATION eve; GRANT USAGE ON SCHEMA pushy TO eve")
    yield db
    db.drop()


def changed() -> set[str]:
    """Functions of which the script makes another."""
    return set(re.findall(r"RENAME TO (\w+)_before;", UPDATE))


def test_every_function_that_the_script_changes_is_tried_and_none_is_dropped():
    assert changed() == set(CALLS)
    statements = re.sub(r"--[^\n]*", "", UPDATE)
    assert re.findall(r"\bDROP (?:FUNCTION|PROCEDURE|VIEW|TYPE|TABLE|SEQUENCE) (?!%)\S+", statements) == []
    # What pushy_internal is built of: src/installation/in_the_way.rs looks for what names it.
    assert re.findall(r"\bDROP INDEX (\S+);", statements) == ["pushy_internal.live_job_due"]
    assert re.findall(r"\bALTER TYPE (\S+) (\w+ \w+)", statements) == [("pushy.job", "ADD ATTRIBUTE")]


def test_nothing_that_stands_on_a_function_stops_the_update_and_all_of_it_goes_on(old, fresh):
    fresh.sql("CREATE EXTENSION pushy; GRANT USAGE ON SCHEMA pushy TO eve")
    made = []
    with old.connect(user="eve") as eve:
        eve.execute("CREATE TABLE eve.watched (i int PRIMARY KEY)")
        for function, call in CALLS.items():
            number = old.value("SELECT oid FROM pg_proc WHERE proname = %s AND pronamespace = ANY ('{pushy,pushy_internal}'::regnamespace[])", function)
            kinds = dict(BY_NUMBER)
            condition = ""
            if call:
                condition = f"(SELECT count(*) FROM {call}) >= 0" if function in SETS else f"({call} IS NULL)"
                kinds |= {kind: statement for kind, statement in KINDS.items() if function not in SETS or kind not in NO_SETS}
            for kind, statement in kinds.items():
                name = re.sub(r"\W", "_", f"{function}_{kind}")
                eve.execute(statement.format(c=condition, n=name, o=number))
                made.append((function, kind, name))
            if function in AGGREGATES:
                eve.execute(f"CREATE AGGREGATE eve.{function}_aggregate ({AGGREGATES[function]}) (sfunc = pushy.{function}, stype = text, initcond = 'aggregated')")
    old.sql(f"ALTER EXTENSION pushy UPDATE TO '{OWN}'")
    assert versions.shape(old) == versions.shape(fresh)
    with old.connect(user="eve") as eve:
        # Each is evaluated, with what it was read with.
        for function, kind, name in made:
            if kind in ("view", "number in a view"):
                eve.execute(f"SELECT * FROM eve.{name}")
            elif kind in ("body", "number in a body"):
                eve.execute(f"SELECT eve.{name}()")
            elif kind in ("default", "number in a default"):
                eve.execute(f"INSERT INTO eve.{name} DEFAULT VALUES")
            elif kind == "argument":
                eve.execute(f"SELECT eve.{name}()")
        # An aggregate passes as many arguments as the function had.
        eve.execute("SELECT eve.queue_register_aggregate('pg_catalog.now()', 'eve', 2, 5, 25, 'linear', '1 s', '1 h', '1 min', '1 h', '1 h', true)")
        assert eve.execute("SELECT concurrency, backoff, lease FROM pushy.queues WHERE queue = 'aggregated'").fetchone() == (2, "linear", datetime.timedelta(minutes=1))
        assert eve.execute("SELECT eve.subscription_create_aggregate('{news}', NULL, true)").fetchone() is not None
        assert eve.execute("SELECT count(*) FROM pushy.subscriptions WHERE name = 'aggregated'").fetchone() == (1,)
        eve.execute("SELECT pushy.notify('news', 'x', delivery => 'relay')")
    # What is read later is read as the new one, under the old name; a dump of it comes into the present version.
    assert old.value("SELECT pg_get_viewdef('eve.notify_view')") == " SELECT (pushy.notify('news'::text, 'x'::text) IS NULL) AS x;"
    # But for aggregates, which name the arguments of their function.
    for function, arguments in AGGREGATES.items():
        old.sql(f"DROP AGGREGATE eve.{function}_aggregate ({arguments})")
    copy, _ = dumps.restore(old.cluster, dumps.dump(old), "copied")
    assert {row for row in copy.rows("SELECT relname, relkind FROM pg_class WHERE relnamespace = 'eve'::regnamespace")} == {
        row for row in old.rows("SELECT relname, relkind FROM pg_class WHERE relnamespace = 'eve'::regnamespace")}
    copy.drop()


# What tables OF the type and columns of it are the server takes along.
TAKEN = {
    "column": "CREATE TABLE eve.{n} (j pushy.job); INSERT INTO eve.{n} (j.id) VALUES (7)",
    "indexed column": "CREATE TABLE eve.{n} (j pushy.job); CREATE INDEX ON eve.{n} (j); INSERT INTO eve.{n} (j.id) VALUES (7)",
    "array": "CREATE TABLE eve.{n} (j pushy.job[]); INSERT INTO eve.{n} (j[1].id) VALUES (7)",
    "domain": "CREATE DOMAIN eve.{n}_d AS pushy.job CHECK ((value).id > 0); CREATE TABLE eve.{n} (j eve.{n}_d)",
    "domain of arrays": "CREATE DOMAIN eve.{n}_d AS pushy.job[]; CREATE TABLE eve.{n} (j eve.{n}_d)",
    "composite": "CREATE TYPE eve.{n}_c AS (j pushy.job); CREATE TABLE eve.{n} (c eve.{n}_c)",
    "range": "CREATE TYPE eve.{n}_r AS RANGE (SUBTYPE = pushy.job); CREATE TABLE eve.{n} (r eve.{n}_r)",
    "partitioned": "CREATE TABLE eve.{n} (n int, j pushy.job) PARTITION BY LIST (n); CREATE TABLE eve.{n}_1 PARTITION OF eve.{n} DEFAULT",
    "materialized view": "CREATE MATERIALIZED VIEW eve.{n} AS SELECT NULL::pushy.job AS j",
    "foreign table": "CREATE FOREIGN TABLE eve.{n} (j pushy.job) SERVER away",
    "view": "CREATE VIEW eve.{n} AS SELECT NULL::pushy.job AS j",
    "function": "CREATE FUNCTION eve.{n}(j pushy.job) RETURNS bigint BEGIN ATOMIC SELECT j.id; END",
    "typed table": "CREATE TABLE eve.{n} OF pushy.job (PRIMARY KEY (id)); INSERT INTO eve.{n} (id) VALUES (7)",
    "typed and partitioned": "CREATE TABLE eve.{n} OF pushy.job PARTITION BY LIST (id); CREATE TABLE eve.{n}_1 PARTITION OF eve.{n} DEFAULT",
    "row of a typed table": "CREATE TABLE eve.{n}_t OF pushy.job; CREATE TABLE eve.{n} (j eve.{n}_t)",
    "child": "CREATE TABLE eve.{n} OF pushy.job; CREATE TABLE eve.{n}_k (more int) INHERITS (eve.{n})",
    "child with that column": "CREATE TABLE eve.{n} OF pushy.job; CREATE TABLE eve.{n}_k (checkpoint jsonb) INHERITS (eve.{n})",
    "row of a view": "CREATE TABLE eve.{n} (j pushy.jobs, w pushy.watches, q pushy.queues, s pushy.stats, u pushy.subscriptions)",
}
# What it cannot go past: the object, why, and what to run.
REFUSED = {
    "child with another": ("CREATE TABLE eve.a OF pushy.job; CREATE TABLE eve.a_k (checkpoint int) INHERITS (eve.a)",
                           "table eve.a_k of eve: its column checkpoint has type integer, and table eve.a OF pushy.job gets one of type jsonb", "ALTER TABLE eve.a NOT OF"),
    "grandchild": ("CREATE TABLE eve.b OF pushy.job; CREATE TABLE eve.b_k () INHERITS (eve.b); CREATE TABLE eve.b_g (checkpoint json) INHERITS (eve.b_k)",
                   "table eve.b_g of eve: its column checkpoint has type json, and table eve.b OF pushy.job gets one of type jsonb", "ALTER TABLE eve.b NOT OF"),
    "foreign child": ("CREATE TABLE eve.c OF pushy.job; CREATE FOREIGN TABLE eve.c_k (checkpoint text) INHERITS (eve.c) SERVER away",
                      "table eve.c_k of eve: its column checkpoint has type text, and table eve.c OF pushy.job gets one of type jsonb", "ALTER TABLE eve.c NOT OF"),
    "full child": ("CREATE TABLE eve.d OF pushy.job; DO $$BEGIN EXECUTE format('CREATE TABLE eve.d_k (%s) INHERITS (eve.d)', (SELECT string_agg('c' || i || ' bool', ', ') "
                   "FROM generate_series(1, 1600 - (SELECT relnatts FROM pg_class WHERE oid = 'pushy.job'::regclass)) i)); END$$",
                   "table eve.d_k of eve: it has no room for column checkpoint, which table eve.d OF pushy.job gets", "ALTER TABLE eve.d NOT OF"),
    "temporary": ("CREATE TEMPORARY TABLE t OF pushy.job", "table pg_temp_N.t of eve: it is a temporary one of another session, and table pg_temp_N.t OF pushy.job gets column checkpoint",
                  "DROP TABLE pg_temp_N.t"),
    "temporary child": ("CREATE TABLE eve.f OF pushy.job; CREATE TEMPORARY TABLE f_k () INHERITS (eve.f)",
                        "table pg_temp_N.f_k of eve: it is a temporary one of another session, and table eve.f OF pushy.job gets column checkpoint", "DROP TABLE pg_temp_N.f_k"),
    "number of an index": ("CREATE VIEW eve.named AS SELECT '{index}'::regclass AS x", "rule _RETURN on view eve.named: it names index pushy_internal.live_job_due, which the update makes anew", None),
}


def away(db: Database) -> None:
    db.sql("CREATE EXTENSION postgres_fdw; CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw; GRANT USAGE ON FOREIGN SERVER away TO eve")


def test_columns_of_the_type_and_tables_of_it_get_the_new_attribute(old):
    away(old)
    with old.connect(user="eve") as eve:
        for kind, statement in TAKEN.items():
            eve.execute(statement.format(n=re.sub(r"\W", "_", kind)))
    old.sql(f"ALTER EXTENSION pushy UPDATE TO '{OWN}'")
    with old.connect(user="eve") as eve:
        assert eve.execute("SELECT (j).id, (j).checkpoint FROM eve.indexed_column WHERE j = j").fetchall() == [(7, None)]
        assert eve.execute("SELECT (j[1]).id, (j[1]).checkpoint FROM eve.array").fetchall() == [(7, None)]
        assert eve.execute("SELECT id, checkpoint FROM eve.typed_table").fetchall() == [(7, None)]
        eve.execute("UPDATE eve.\"column\" SET j.checkpoint = '1'; INSERT INTO eve.range SELECT")
        assert eve.execute('SELECT (j).id, (j).checkpoint FROM eve."column"').fetchall() == [(7, 1)]
        for kind in TAKEN:
            if kind not in ("function", "foreign table"):
                eve.execute(f'SELECT * FROM eve."{re.sub(chr(92) + "W", "_", kind)}"')


def known(text: str) -> str:
    return re.sub(r"pg_temp_\d+", "pg_temp_N", text)


def test_an_update_names_all_that_it_cannot_go_past_and_what_to_run(old):
    away(old)
    index = old.value("SELECT 'pushy_internal.live_job_due'::regclass::oid")
    eve = old.connect(user="eve")
    for statement, _, _ in REFUSED.values():
        eve.execute(statement.replace("{index}", str(index)))

    def refused() -> psycopg.errors.Diagnostic:
        with pytest.raises(psycopg.Error) as error:
            old.sql(f"ALTER EXTENSION pushy UPDATE TO '{OWN}'")
        assert error.value.sqlstate == "55000", error.value
        return error.value.diag
    said = refused()
    assert said.message_primary == f"the update cannot go past {len(REFUSED)} objects of others"
    assert sorted(known(said.message_detail).splitlines()) == sorted(why for _, why, _ in REFUSED.values())
    run = re.search(r"Run, and the update again: (.*;)", said.message_hint)[1]
    assert sorted(known(run).rstrip(";").split("; ")) == sorted(fix for _, _, fix in REFUSED.values() if fix)
    # The query of docs/operations.md, for those who look before, finds the same tables.
    page = (versions.REPOSITORY / "docs" / "operations.md").read_text()
    query = re.search(r"```sql\n(WITH RECURSIVE taker.*?)```", page, re.S)[1]
    assert sorted(known(f"{table}: {fix}") for table, _, fix in old.rows(query)) == sorted(
        f"{why.split(' ')[1]}: {fix}" for _, why, fix in REFUSED.values() if fix)
    # With the new library and the old script, as one meets it.
    old.sql(run)
    assert refused().message_primary == f"the update cannot go past {REFUSED['number of an index'][1]}"
    old.sql("DROP VIEW eve.named")
    old.sql(f"ALTER EXTENSION pushy UPDATE TO '{OWN}'")
    assert old.value("SELECT agree FROM pushy.version()") is True


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind != "number of an index"])
def test_what_is_in_the_way_is_what_the_server_refuses(old, kind):
    """Met by its own statement, on a type of the same columns."""
    away(old)
    old.sql("CREATE TYPE public.job AS (id bigint, queue text, args jsonb, attempt int, max_attempts int, enqueued_at timestamptz)")
    columns = old.value("SELECT relnatts FROM pg_class WHERE oid = 'pushy.job'::regclass")
    old.sql("".join(f"ALTER TYPE public.job ADD ATTRIBUTE a{at} int;" for at in range(columns - 6)))
    eve = old.connect(user="eve")
    eve.execute(REFUSED[kind][0].replace("pushy.job", "public.job"))
    with pytest.raises(psycopg.Error, match="different type|1600 columns|temporary tables of other sessions"):
        old.sql("ALTER TYPE public.job ADD ATTRIBUTE checkpoint jsonb CASCADE")
