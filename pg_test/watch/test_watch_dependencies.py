"""What a watch's expressions and rows are made of changes under a session that has fired the watch before: its next notice is the
one that a new session tells, whoever has made the change and however the transaction of the change has ended."""

import json
from dataclasses import dataclass, field

import psycopg
import pytest

from stage.watching import Watching, watch


@dataclass(frozen=True)
class Case:
    setup: str                   # table t, whose column id is its key
    change: str
    values: str                  # the columns of t after id
    options: dict = field(default_factory=dict)
    undo: str | None = None      # what makes it as it was before
    tells_another: bool = True   # whether the change shows in the notice
    in_transaction: bool = True


def expression(text: str) -> dict:
    return {"payload_expr": text}


def topic(text: str) -> dict:
    return {"topic_expr": text, "payload": "none"}


ROW = {"payload": "row"}
DOMAIN = "CREATE DOMAIN d AS int; CREATE TABLE t (id int PRIMARY KEY, v int);"
CHECKED = "CREATE DOMAIN d AS int CHECK (VALUE < 9); CREATE TABLE t (id int PRIMARY KEY, v int);"
BASED = "CREATE DOMAIN b AS int; CREATE DOMAIN d AS b {check}; CREATE TABLE t (id int PRIMARY KEY, v int);"
COMPOSITE = "CREATE TYPE inner_type AS (x int, y text); CREATE TYPE c AS (i inner_type, l inner_type[]); "
MOOD = "CREATE TYPE mood AS ENUM ('bad', 'good'); "
TO_JSON = "CREATE FUNCTION as_json(mood) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT '{\"mood\": 1}'::json $$; "

CASES = {
    # Domains are compiled into an expression with their checks.
    "domain, ADD CONSTRAINT": Case(DOMAIN, "ALTER DOMAIN d ADD CHECK (VALUE < 5)", "7", expression("(NEW.v::d)::text")),
    "domain, second ADD CONSTRAINT": Case(CHECKED, "ALTER DOMAIN d ADD CONSTRAINT five CHECK (VALUE < 5)", "7", expression("(NEW.v::d)::text"),
                                          "ALTER DOMAIN d DROP CONSTRAINT five"),
    "domain, DROP CONSTRAINT": Case(CHECKED, "ALTER DOMAIN d DROP CONSTRAINT d_check", "9", expression("(NEW.v::d)::text"),
                                    "ALTER DOMAIN d ADD CONSTRAINT d_check CHECK (VALUE < 9)"),
    "domain, SET NOT NULL": Case(DOMAIN, "ALTER DOMAIN d SET NOT NULL", "NULL", expression("coalesce((NEW.v::d)::text, 'none')"),
                                 "ALTER DOMAIN d DROP NOT NULL"),
    "domain of a domain, ADD CONSTRAINT": Case(BASED.format(check=""), "ALTER DOMAIN b ADD CONSTRAINT five CHECK (VALUE < 5)", "7",
                                               expression("(NEW.v::d)::text"), "ALTER DOMAIN b DROP CONSTRAINT five"),
    "checked domain of a domain, ADD CONSTRAINT": Case(BASED.format(check="CHECK (VALUE < 9)"), "ALTER DOMAIN b ADD CONSTRAINT five CHECK (VALUE < 5)",
                                                       "7", expression("(NEW.v::d)::text"), "ALTER DOMAIN b DROP CONSTRAINT five"),
    "domain in an array": Case(DOMAIN, "ALTER DOMAIN d ADD CHECK (VALUE < 5)", "7", expression("(ARRAY[NEW.v]::d[])::text")),
    "domain in a condition": Case(DOMAIN, "ALTER DOMAIN d ADD CHECK (VALUE < 5)", "7", {"condition": "(NEW.v::d) > 0"}),
    "domain in an inlined function": Case(
        DOMAIN + "CREATE FUNCTION f(int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ($1::d)::text';",
        "ALTER DOMAIN d ADD CHECK (VALUE < 5)", "7", expression("f(NEW.v)")),
    "domain of a domain in an inlined function": Case(
        BASED.format(check="") + "CREATE FUNCTION f(int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ($1::d)::text';",
        "ALTER DOMAIN b ADD CONSTRAINT five CHECK (VALUE < 5)", "7", expression("f(NEW.v)"), "ALTER DOMAIN b DROP CONSTRAINT five"),
    "domain in PL/pgSQL": Case(
        DOMAIN + "CREATE FUNCTION f(int) RETURNS text LANGUAGE plpgsql AS 'DECLARE x d := $1; BEGIN RETURN x; END';",
        "ALTER DOMAIN d ADD CHECK (VALUE < 5)", "7", expression("f(NEW.v)")),
    "domain, SET DEFAULT": Case(DOMAIN, "ALTER DOMAIN d SET DEFAULT 3", "7", expression("(NEW.v::d)::text"), tells_another=False),
    "domain, RENAME": Case(DOMAIN, "ALTER DOMAIN d RENAME TO e", "7", expression("pg_typeof(NEW.v::d)::text")),
    "domain, SET SCHEMA": Case("DROP SCHEMA IF EXISTS away CASCADE; CREATE SCHEMA away; " + DOMAIN, "ALTER DOMAIN d SET SCHEMA away", "7", expression("(NEW.v::d)::text"),
                               tells_another=False),
    # Rows within rows.
    "composite, ADD ATTRIBUTE": Case(COMPOSITE + "CREATE TABLE t (id int PRIMARY KEY, v c);", "ALTER TYPE inner_type ADD ATTRIBUTE z int",
                                     "jsonb_populate_record(NULL::c, '{\"i\": {\"x\": 1}, \"l\": [{\"y\": \"a\"}]}')", ROW),
    "composite, RENAME ATTRIBUTE": Case(COMPOSITE + "CREATE TABLE t (id int PRIMARY KEY, v c);", "ALTER TYPE inner_type RENAME ATTRIBUTE x TO z",
                                        "ROW(ROW(1, 'a'), ARRAY[ROW(2, 'b')::inner_type])", ROW),
    "composite, DROP ATTRIBUTE": Case(COMPOSITE + "CREATE TABLE t (id int PRIMARY KEY, v inner_type);", "ALTER TYPE inner_type DROP ATTRIBUTE x",
                                      "jsonb_populate_record(NULL::inner_type, '{\"x\": 1, \"y\": \"a\"}')", ROW),
    "composite of an expression, ADD ATTRIBUTE": Case(
        "CREATE TYPE c AS (x int); CREATE TABLE t (id int PRIMARY KEY, v int);", "ALTER TYPE c ADD ATTRIBUTE y text", "7",
        expression("to_jsonb(ROW(NEW.v)::c)::text")),
    "composite of an expression, RENAME ATTRIBUTE": Case(
        "CREATE TYPE c AS (x int); CREATE TABLE t (id int PRIMARY KEY, v int);", "ALTER TYPE c RENAME ATTRIBUTE x TO y", "7",
        expression("to_jsonb(ROW(NEW.v)::c)::text")),
    "field of a composite, RENAME ATTRIBUTE": Case(
        COMPOSITE + "CREATE TABLE t (id int PRIMARY KEY, v inner_type);", "ALTER TYPE inner_type RENAME ATTRIBUTE x TO z", "ROW(1, 'a')",
        expression("((NEW.v).x)::text"), tells_another=False),
    "row of another table, ADD COLUMN": Case("CREATE TABLE o (x int); CREATE TABLE t (id int PRIMARY KEY, v o);", "ALTER TABLE o ADD COLUMN y int",
                                             "jsonb_populate_record(NULL::o, '{\"x\": 1}')", ROW),
    "row of another table, RENAME COLUMN": Case("CREATE TABLE o (x int); CREATE TABLE t (id int PRIMARY KEY, v o);",
                                                "ALTER TABLE o RENAME COLUMN x TO y", "ROW(1)", ROW),
    "row of another table in an expression, ADD COLUMN": Case(
        "CREATE TABLE o (x int); CREATE TABLE t (id int PRIMARY KEY, v o);", "ALTER TABLE o ADD COLUMN y int", "jsonb_populate_record(NULL::o, '{\"x\": 1}')",
        expression("to_jsonb(NEW.v)::text")),
    # The watched table itself.
    "ADD COLUMN": Case("CREATE TABLE t (id int PRIMARY KEY, v int);", "ALTER TABLE t ADD COLUMN w int DEFAULT 3", "7", ROW),
    "ADD COLUMN, whole row": Case("CREATE TABLE t (id int PRIMARY KEY, v int);", "ALTER TABLE t ADD COLUMN w int DEFAULT 3", "7",
                                  expression("(to_jsonb(NEW) - 'id')::text")),
    "RENAME COLUMN": Case("CREATE TABLE t (id int PRIMARY KEY, v int);", "ALTER TABLE t RENAME COLUMN v TO w", "7", ROW),
    "ALTER COLUMN TYPE": Case("CREATE TABLE t (id int PRIMARY KEY, v int);", "ALTER TABLE t ALTER COLUMN v TYPE text", "7", ROW),
    "column of a domain, ADD CONSTRAINT": Case("CREATE DOMAIN d AS int; CREATE TABLE t (id int PRIMARY KEY, v d);",
                                               "ALTER DOMAIN d ADD CHECK (VALUE < 99)", "7", ROW, tells_another=False),
    # Enums.
    "enum, RENAME VALUE": Case(MOOD + "CREATE TABLE t (id int PRIMARY KEY, v mood);", "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'",
                               "(SELECT max(e) FROM unnest(enum_range(NULL::mood)) e)", ROW),
    "enum in an expression, RENAME VALUE": Case(MOOD + "CREATE TABLE t (id int PRIMARY KEY, v int);", "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'",
                                                "7", expression("'good'::mood::text || NEW.v")),
    "enum, ADD VALUE": Case(MOOD + "CREATE TABLE t (id int PRIMARY KEY, v mood);", "ALTER TYPE mood ADD VALUE 'best'",
                            "(SELECT max(e) FROM unnest(enum_range(NULL::mood)) e)", ROW, in_transaction=False),
    "enum compared, ADD VALUE": Case(MOOD + "CREATE TABLE t (id int PRIMARY KEY, v int);", "ALTER TYPE mood ADD VALUE 'worst' BEFORE 'bad'", "7",
                                     expression("(enum_range(NULL::mood))::text || NEW.v"), in_transaction=False),
    # Casts to json.
    "CREATE CAST": Case(MOOD + TO_JSON + "CREATE TABLE t (id int PRIMARY KEY, v mood);",
                        "CREATE CAST (mood AS json) WITH FUNCTION as_json(mood)", "'good'", ROW, "DROP CAST (mood AS json)"),
    "CREATE CAST, in an array": Case(MOOD + TO_JSON + "CREATE TABLE t (id int PRIMARY KEY, v mood[]);",
                                     "CREATE CAST (mood AS json) WITH FUNCTION as_json(mood)", "'{good}'", ROW, "DROP CAST (mood AS json)"),
    "CREATE CAST, in a composite": Case(MOOD + TO_JSON + "CREATE TYPE c AS (m mood); CREATE TABLE t (id int PRIMARY KEY, v c);",
                                        "CREATE CAST (mood AS json) WITH FUNCTION as_json(mood)", "ROW('good')", ROW, "DROP CAST (mood AS json)"),
    "CREATE CAST, in an expression": Case(MOOD + TO_JSON + "CREATE TABLE t (id int PRIMARY KEY, v mood);",
                                          "CREATE CAST (mood AS json) WITH FUNCTION as_json(mood)", "'good'", expression("to_jsonb(NEW.v)::text"),
                                          "DROP CAST (mood AS json)"),
    "DROP CAST": Case(MOOD + TO_JSON + "CREATE CAST (mood AS json) WITH FUNCTION as_json(mood); CREATE TABLE t (id int PRIMARY KEY, v mood);",
                      "DROP CAST (mood AS json)", "'good'", ROW, "CREATE CAST (mood AS json) WITH FUNCTION as_json(mood)"),
    "function of a cast, REPLACE": Case(
        MOOD + TO_JSON + "CREATE CAST (mood AS json) WITH FUNCTION as_json(mood); CREATE TABLE t (id int PRIMARY KEY, v mood);",
        "CREATE OR REPLACE FUNCTION as_json(mood) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT '2'::json $$", "'good'", ROW),
    "function of a cast in use, REPLACE": Case(
        MOOD + "CREATE FUNCTION as_int(mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'; CREATE CAST (mood AS int) WITH FUNCTION as_int(mood); "
        "CREATE TABLE t (id int PRIMARY KEY, v mood);",
        "CREATE OR REPLACE FUNCTION as_int(mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2'", "'good'", expression("(NEW.v::int)::text")),
    # Functions.
    **{f"{volatility} function in {language}, REPLACE": Case(
        f"CREATE FUNCTION f(int) RETURNS text LANGUAGE {language} {volatility} AS {body.format(1)}; CREATE TABLE t (id int PRIMARY KEY, v int);",
        f"CREATE OR REPLACE FUNCTION f(int) RETURNS text LANGUAGE {language} {volatility} AS {body.format(2)}", "7",
        expression("f(3) || NEW.v"))
       for volatility in ("IMMUTABLE", "STABLE", "VOLATILE")
       for language, body in (("sql", "$$ SELECT '{}' $$"), ("plpgsql", "$$ BEGIN RETURN '{}'; END $$"))},
    "function called by a function, REPLACE": Case(
        "CREATE FUNCTION g(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'a' $$; "
        "CREATE FUNCTION f(int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT g($1)'; CREATE TABLE t (id int PRIMARY KEY, v int);",
        "CREATE OR REPLACE FUNCTION g(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'b' $$", "7", expression("f(3) || NEW.v")),
    "function, SET search_path": Case(
        "CREATE SCHEMA IF NOT EXISTS one; CREATE SCHEMA IF NOT EXISTS two; CREATE OR REPLACE FUNCTION one.g() RETURNS text LANGUAGE sql AS $$ SELECT '1' $$; "
        "CREATE OR REPLACE FUNCTION two.g() RETURNS text LANGUAGE sql AS $$ SELECT '2' $$; "
        "CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql SET search_path = one AS 'BEGIN RETURN g(); END'; CREATE TABLE t (id int PRIMARY KEY, v int);",
        "ALTER FUNCTION f() SET search_path = two", "7", expression("f() || NEW.v")),
    "function, RENAME": Case(
        "CREATE FUNCTION f(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'a' $$; CREATE TABLE t (id int PRIMARY KEY, v int);",
        "ALTER FUNCTION f(int) RENAME TO g; CREATE FUNCTION f(int) RETURNS text LANGUAGE sql AS $$ SELECT 'b' $$", "7",
        expression("f(3) || NEW.v"), tells_another=False),
    "domain in a default of a function": Case(
        DOMAIN + "CREATE FUNCTION f(int, text DEFAULT 'a') RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $2';",
        "CREATE OR REPLACE FUNCTION f(int, text DEFAULT 'b') RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $2'", "7", expression("f(NEW.v)")),
    # Topics, which are compiled with the other expressions.
    "domain in a topic": Case(DOMAIN, "ALTER DOMAIN d ADD CHECK (VALUE < 5)", "7", topic("(NEW.v::d)::text")),
    "enum in a topic, RENAME VALUE": Case(MOOD + "CREATE TABLE t (id int PRIMARY KEY, v int);", "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'",
                                          "7", topic("'good'::mood::text || NEW.v")),
    "function of a topic, REPLACE": Case(
        "CREATE FUNCTION f(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'a' $$; CREATE TABLE t (id int PRIMARY KEY, v int);",
        "CREATE OR REPLACE FUNCTION f(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'b' $$", "7", topic("f(NEW.v)")),
    # Operators, their classes, collations.
    "function of an operator, REPLACE": Case(
        "CREATE FUNCTION plus(int, text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'a' $$; "
        "CREATE OPERATOR |+| (FUNCTION = plus, LEFTARG = int, RIGHTARG = text); CREATE TABLE t (id int PRIMARY KEY, v int);",
        "CREATE OR REPLACE FUNCTION plus(int, text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'b' $$", "7", expression("NEW.v |+| 'x'")),
    "CREATE OPERATOR CLASS": Case(
        "CREATE TYPE c AS (x int); CREATE TABLE t (id int PRIMARY KEY, v c); "
        + "".join(f"CREATE FUNCTION {name}(c, c) RETURNS {returns} LANGUAGE sql IMMUTABLE AS 'SELECT {body}';"
                  f"" for name, returns, body in (
                      ("lt", "bool", "($1).x > ($2).x"), ("le", "bool", "($1).x >= ($2).x"), ("eq", "bool", "($1).x = ($2).x"),
                      ("ge", "bool", "($1).x <= ($2).x"), ("gt", "bool", "($1).x < ($2).x"), ("cmp", "int", "($2).x - ($1).x")))
        + "".join(f"CREATE OPERATOR {name} (FUNCTION = {function}, LEFTARG = c, RIGHTARG = c);"
                  for name, function in (("<<<", "lt"), ("<<=", "le"), ("===", "eq"), (">>=", "ge"), (">>>", "gt"))),
        "CREATE OPERATOR CLASS c_ops DEFAULT FOR TYPE c USING btree AS OPERATOR 1 <<<, OPERATOR 2 <<=, OPERATOR 3 ===, OPERATOR 4 >>=, OPERATOR 5 >>>, "
        "FUNCTION 1 cmp(c, c)", "ROW(7)", expression("(greatest(NEW.v, ROW(5)::c))::text"), "DROP OPERATOR CLASS c_ops USING btree"),
    "collation, RENAME": Case(
        "CREATE COLLATION k FROM \"C\"; CREATE TABLE t (id int PRIMARY KEY, v text COLLATE k);", "ALTER COLLATION k RENAME TO l", "'a'",
        {"payload_expr": "(NEW.v < 'B')::text"}, tells_another=False),
}


class Bench:
    """A watched table of a schema of its own, and what its notices say."""

    def __init__(self, db, case: Case, schema: str):
        self.db, self.case, self.schema, self.next = db, case, schema, 0
        db.sql(f"CREATE SCHEMA {schema}")
        with self.session() as session:
            session.execute(case.setup)
            watch(db, "t", session, **case.options)
        self.heard = Watching(db, "heard")
        self.cursor = db.value("SELECT pushy.log_position()")

    def session(self, autocommit: bool = True) -> psycopg.Connection:
        session = self.db.connect(autocommit=autocommit)
        session.execute(f"SET search_path = {self.schema}, public")
        return session

    def insert(self, session: psycopg.Connection) -> None:
        self.next += 1
        session.execute(f"INSERT INTO t VALUES ({self.next}, {self.case.values})")

    def write(self, session: psycopg.Connection) -> object:
        self.insert(session)
        if not session.autocommit:
            session.commit()
        return self.told()

    def write_newly(self) -> object:
        with self.session() as session:
            return self.write(session)

    def told(self) -> object:
        """What one write has told, without what says which row and whose."""
        (notice,) = self.heard.until_now()
        if "topic_expr" in self.case.options:
            rows = self.db.rows("SELECT cursor, channel, topic FROM pushy_internal.log_read(%s, '{heard}')", self.cursor)
            self.cursor = rows[-1][0]
            (topic,) = [topic for _, channel, topic in rows if channel]
            return topic
        try:
            payload = json.loads(notice.payload)
        except json.JSONDecodeError:
            return notice.payload
        if isinstance(payload, dict) and "op" in payload:
            (payload.get("new") or {}).pop("id", None)
            for member in ("key", "pid", "xid"):
                payload.pop(member)
        return payload


def changed_and_changed_back(db, case: Case) -> None:
    bench = Bench(db, case, "changed")
    with bench.session() as old, bench.session() as maker:
        before = bench.write(old)
        assert bench.write(maker) == before
        changes = [case.change]
        if case.undo:
            changes += [case.undo, case.change]
        for change in changes:
            maker.execute(change)
            expected = bench.write_newly()
            assert (bench.write(old), bench.write(maker)) == (expected, expected), change
            assert (expected != before) == (case.tells_another and change == case.change), change


def changed_within(db, case: Case, number: int, *words: str) -> None:
    """A transaction of these words, beside a session and another that have written before; a write is what it tells."""
    bench = Bench(db, case, f"within_{number}")
    with bench.session() as old, bench.session(autocommit=False) as maker:
        maker.commit()
        before = bench.write(old)
        assert bench.write(maker) == before
        gid = f"{db.name}_{number}"
        is_told, is_changed = False, False
        for word in words:
            if word == "change":
                maker.execute(case.change)
            elif word == "write":
                bench.insert(maker)
                is_told = True
            elif word == "PREPARE TRANSACTION":
                maker.execute(f"PREPARE TRANSACTION '{gid}'")
                maker.commit()
            elif word.endswith("PREPARED"):
                db.sql(f"{word} '{gid}'")
            else:
                maker.execute(word)
        maker.commit()
        if words[-1].startswith("ROLLBACK") and words[-1] != "ROLLBACK TO s":
            is_told = False
        is_changed = words[-1] in ("COMMIT", "COMMIT PREPARED")
        inside = bench.told() if is_told else None
        expected = bench.write_newly()
        assert (expected != before) == (is_changed and case.tells_another), words
        if is_told:
            assert inside == expected, words
        assert (bench.write(old), bench.write(maker)) == (expected, expected), words


@pytest.mark.parametrize("case", list(CASES.values()), ids=list(CASES))
def test_the_next_write_of_an_old_session_tells_what_a_new_session_tells(db, case):
    changed_and_changed_back(db, case)
    if case.in_transaction:
        changed_within(db, case, 1, "change", "write", "COMMIT")
        changed_within(db, case, 2, "change", "write", "ROLLBACK")
        changed_within(db, case, 3, "SAVEPOINT s", "change", "write", "ROLLBACK TO s", "write", "ROLLBACK TO s", "write", "SAVEPOINT s", "ROLLBACK TO s")
        changed_within(db, case, 4, "change", "PREPARE TRANSACTION", "COMMIT PREPARED")
        changed_within(db, case, 5, "change", "PREPARE TRANSACTION", "ROLLBACK PREPARED")
