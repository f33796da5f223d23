"""A session keeps what it has found out about a watch until something of that is another: what anybody makes and drops of his own
costs nobody else a look at the catalogs, counted by reads of Pushy's table of watches."""

import pytest

from harness.versions import major
from stage.watching import watch

WATCHES = {
    "row": {"payload": "row"},
    "diff": {"payload": "diff", "columns": ["v", "m"]},
    "statement": {"level": "statement"},
    "expressions": {"condition": "NEW.v > 0 AND lower(NEW.t) = 'a'", "payload_expr": "to_jsonb(NEW)::text", "topic_expr": "'t/' || NEW.t"},
    "function": {"payload_expr": "f(NEW.v) || g(NEW.t)"},
    "domain": {"payload_expr": "(NEW.v::d)::text"},
}
SETUP = """
CREATE TYPE mood AS ENUM ('bad', 'good');
CREATE DOMAIN d AS int;
CREATE FUNCTION f(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
CREATE FUNCTION g(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION as_json(mood) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT '1'::json $$;
CREATE TABLE t (id serial PRIMARY KEY, v int, t text, m mood);
"""
INSERT = "INSERT INTO t (v, t, m) VALUES (1, 'a', 'good')"

# What a tenant does in a schema of his own; {role} is his.
OF_STRANGERS = {
    "table": "CREATE TABLE x (a int PRIMARY KEY, b text UNIQUE CHECK (b > '')); CREATE INDEX ON x (b, a); ALTER TABLE x ADD COLUMN c int DEFAULT 1; "
             "ALTER TABLE x ADD CONSTRAINT more CHECK (a > 0); TRUNCATE x; ANALYZE x; DROP TABLE x",
    "temporary table": "CREATE TEMP TABLE x (a serial PRIMARY KEY); DROP TABLE x",
    "view": "CREATE VIEW x AS SELECT 1 AS a; CREATE OR REPLACE VIEW x AS SELECT 2 AS a; DROP VIEW x",
    "materialized view": "CREATE MATERIALIZED VIEW x AS SELECT 1 AS a; REFRESH MATERIALIZED VIEW x; DROP MATERIALIZED VIEW x",
    "sequence": "CREATE SEQUENCE x; ALTER SEQUENCE x INCREMENT 2; DROP SEQUENCE x",
    "partitions": "CREATE TABLE x (a int) PARTITION BY LIST (a); CREATE TABLE x1 PARTITION OF x FOR VALUES IN (1); ALTER TABLE x DETACH PARTITION x1; "
                  "DROP TABLE x, x1",
    "foreign key": "CREATE TABLE x (a int PRIMARY KEY); CREATE TABLE y (a int REFERENCES x); DROP TABLE y, x",
    "function": "CREATE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE OR REPLACE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 2'; "
                "ALTER FUNCTION x() SET work_mem = '1MB'; REVOKE ALL ON FUNCTION x() FROM PUBLIC; DROP FUNCTION x()",
    "procedure": "CREATE PROCEDURE x() LANGUAGE sql AS ''; DROP PROCEDURE x()",
    "aggregate": "CREATE AGGREGATE x (int) (SFUNC = int4pl, STYPE = int); DROP AGGREGATE x (int)",
    "trigger": "CREATE TABLE x (a int); CREATE FUNCTION y() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW;END'; "
               "CREATE TRIGGER z BEFORE INSERT ON x FOR EACH ROW EXECUTE FUNCTION y(); DROP TABLE x; DROP FUNCTION y()",
    "policy": "CREATE TABLE x (a int); ALTER TABLE x ENABLE ROW LEVEL SECURITY; CREATE POLICY y ON x USING (true); DROP TABLE x",
    "rule": "CREATE TABLE x (a int); CREATE RULE y AS ON INSERT TO x DO INSTEAD NOTHING; DROP TABLE x",
    "statistics": "CREATE TABLE x (a int, b int); CREATE STATISTICS y ON a, b FROM x; DROP TABLE x",
    "schema": "CREATE SCHEMA {role}_more; GRANT USAGE ON SCHEMA {role}_more TO PUBLIC; ALTER SCHEMA {role}_more RENAME TO {role}_most; DROP SCHEMA {role}_most",
    "composite": "CREATE TYPE x AS (a int); ALTER TYPE x ADD ATTRIBUTE b int; DROP TYPE x",
    "enum": "CREATE TYPE x AS ENUM ('a'); ALTER TYPE x RENAME VALUE 'a' TO 'b'; DROP TYPE x",
    "range": "CREATE TYPE x AS RANGE (SUBTYPE = int); DROP TYPE x",
    "domain": "CREATE DOMAIN x AS int CHECK (VALUE > 0); ALTER DOMAIN x ADD CONSTRAINT y CHECK (VALUE > 1); ALTER DOMAIN x DROP CONSTRAINT y; DROP DOMAIN x",
    "cast": "CREATE TYPE x AS ENUM ('a'); CREATE FUNCTION y(x) RETURNS json LANGUAGE sql AS 'SELECT NULL::json'; CREATE CAST (x AS json) WITH FUNCTION y(x); "
            "DROP CAST (x AS json); DROP FUNCTION y; DROP TYPE x",
    "operator": "CREATE FUNCTION y(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE OPERATOR |-| (FUNCTION = y, LEFTARG = int, RIGHTARG = text); "
                "DROP OPERATOR |-| (int, text); DROP FUNCTION y",
    "collation": "CREATE COLLATION x FROM \"C\"; DROP COLLATION x",
    "conversion and text search": "CREATE TEXT SEARCH CONFIGURATION x (COPY = simple); DROP TEXT SEARCH CONFIGURATION x",
    "his password": "ALTER ROLE {role} PASSWORD 'x'",
    "his settings": "ALTER ROLE {role} SET work_mem = '1MB'; ALTER ROLE {role} RESET ALL",
    "his privileges": "CREATE TABLE x (a int); GRANT SELECT ON x TO PUBLIC; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; "
                      "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM PUBLIC; DROP TABLE x",
    "comment": "CREATE TABLE x (a int); COMMENT ON TABLE x IS 'x'; DROP TABLE x",
    "large object": "SELECT lo_unlink(lo_create(0))",
    "publication": "CREATE TABLE x (a int); CREATE PUBLICATION {role}_p FOR TABLE x; DROP PUBLICATION {role}_p; DROP TABLE x",
    "a role and what it is in": "CREATE ROLE {role}_r; GRANT {role}_r TO {role}; ALTER ROLE {role}_r NOINHERIT; REVOKE {role}_r FROM {role}; DROP ROLE {role}_r",
    "rolled back": "BEGIN; CREATE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SCHEMA {role}_gone; ROLLBACK",
}

# What watches of which names depend on, besides the table itself.
ALL = frozenset(WATCHES)
DEPENDED_ON = {
    "column": ("ALTER TABLE t ADD COLUMN w int", ALL),
    "trigger": ("CREATE TRIGGER other BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()", ALL),
    "schema": ("ALTER SCHEMA {schema} RENAME TO {schema}_now", ALL),
    "who declared it": ("ALTER ROLE {owner} NOSUPERUSER", ALL),
    "cast of a column": ("CREATE CAST (mood AS json) WITH FUNCTION as_json(mood)", ALL),
    "function": ("CREATE OR REPLACE FUNCTION f(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN -$1; END'", {"function"}),
    "right to a function": ("REVOKE EXECUTE ON FUNCTION g(text) FROM PUBLIC", {"function"}),
    "function's setting": ("ALTER FUNCTION g(text) SET search_path = ''", {"function"}),
    "domain": ("ALTER DOMAIN d ADD CHECK (VALUE > -9)", {"domain"}),
}


class Watcher:
    """A session that has fired a watch, and how often it has read the table of watches for a row."""

    def __init__(self, db, name: str, schema: str):
        self.name, self.schema = name, schema
        db.sql(f"CREATE SCHEMA {schema}")
        self.session = db.connect(autocommit=False)
        self.session.execute(f"SET search_path = {schema}")
        self.session.execute(SETUP)
        watch(db, f"{schema}.t", self.session, name=schema, channel=schema, **WATCHES[name])
        self.session.commit()

    def counted(self) -> int:
        """Looks of this session that the server has not added to everybody's."""
        count = self.session.execute(
            "SELECT seq_scan + idx_scan FROM pg_stat_xact_all_tables WHERE relid = 'pushy_internal.watch'::regclass"
        ).fetchone()
        return count[0] if count else 0

    def reads(self) -> int:
        before = self.counted()
        self.session.execute(INSERT.replace("INTO t", f"INTO {self.schema}.t"))
        reads = self.counted() - before
        self.session.commit()
        return reads

    def settle(self) -> None:
        self.reads()
        assert self.reads() == 0, self.name


@pytest.fixture
def stranger(db, role):
    name = role("CREATEROLE")
    db.sql(f'GRANT CREATE ON DATABASE "{db.name}" TO {name}')
    session = db.connect(user=name)
    session.execute(f"CREATE SCHEMA {name}")
    session.execute(f"SET search_path = {name}")
    # The first temporary table of a session makes a schema, which others hear of.
    session.execute("CREATE TEMP TABLE first_one (a int)")
    yield session, name
    session.close()


def test_what_a_stranger_makes_of_his_own_costs_no_watch_a_look(db, stranger, record_property):
    session, role = stranger
    watchers = [Watcher(db, name, f"w_{name}") for name in WATCHES]
    for watcher in watchers:
        watcher.settle()
    looked = []
    for what, statements in OF_STRANGERS.items():
        for statement in statements.format(role=role).split("; "):
            session.execute(statement)
            looked += [(what, statement, watcher.name) for watcher in watchers if watcher.reads()]
    assert looked == []
    record_property("counted", f"{len(OF_STRANGERS)} kinds of objects of a stranger, {len(WATCHES)} kinds of watches: no look at the catalogs")


@pytest.mark.parametrize("what", DEPENDED_ON)
@pytest.mark.parametrize("name", WATCHES)
def test_a_watch_is_looked_at_again_when_what_it_depends_on_is_another(db, role, name, what):
    change, concerned = DEPENDED_ON[what]
    watcher = Watcher(db, name, "mine")
    owner = role("SUPERUSER")
    db.sql("GRANT ALL ON SCHEMA mine TO PUBLIC")
    if what == "who declared it":
        db.sql("SELECT pushy.unwatch('mine.t', 'mine')")
        with db.connect(user=owner) as session:
            session.execute("SET search_path = mine")
            watch(db, "mine.t", session, name="mine", channel="mine", **WATCHES[name])
    watcher.settle()
    with db.connect() as session:
        session.execute("SET search_path = mine")
        session.execute(change.format(schema="mine", owner=owner))
    if what == "schema":
        watcher.schema = "mine_now"
    reads = watcher.reads()
    assert (reads > 0) == (name in concerned), reads
    assert watcher.reads() == 0


def test_a_membership_decides_anew_who_may_execute_a_function(db, role):
    """Where a right is not everybody's, roles and memberships count."""
    writer, group = role(), role()
    watcher = Watcher(db, "function", "mine")
    db.sql("REVOKE EXECUTE ON FUNCTION mine.g(text) FROM PUBLIC")
    db.sql(f"GRANT EXECUTE ON FUNCTION mine.g(text) TO {group}; GRANT {group} TO {writer}")
    db.sql(f"GRANT ALL ON SCHEMA mine TO {writer}; GRANT ALL ON mine.t, mine.t_id_seq TO {writer}")
    listener = db.listen("mine")
    with db.connect(user=writer) as session:
        def is_refused() -> bool:
            session.execute(INSERT.replace("INTO t", "INTO mine.t"))
            return "42501" in listener.wait_for(lambda _: True).payload

        assert not is_refused()
        db.sql(f"REVOKE {group} FROM {writer}")
        assert is_refused()
        db.sql(f"GRANT {group} TO {writer}")
        assert not is_refused()
        db.sql(f"ALTER ROLE {writer} NOINHERIT" if major(db) < 16 else f"GRANT {group} TO {writer} WITH INHERIT FALSE")
        assert is_refused()
    watcher.session.close()
