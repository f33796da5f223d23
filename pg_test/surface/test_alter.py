"""Each form of ALTER that PostgreSQL's grammar has, on each object of Pushy's: refused to who owns the extension where it would change what
Pushy works with, and harmless where only storage changes; refused to everybody else."""

import re

import psycopg
import pytest

from stage.life import LEDGER

MEMBER = """EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pushy'
                     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.classid = '{}'::regclass AND d.objid = {})"""
RELATIONS = """SELECT c.oid::regclass::text, (SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1),
                      (SELECT quote_ident(conname) FROM pg_constraint WHERE conrelid = c.oid ORDER BY conname LIMIT 1),
                      (SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal ORDER BY tgname LIMIT 1),
                      (SELECT quote_ident(i.relname) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid ORDER BY 1 LIMIT 1)
                 FROM pg_class c WHERE c.relkind = '{}' AND """ + MEMBER.format("pg_class", "c.oid") + " ORDER BY 1"
# Each object as ALTER names it, with a column, a constraint, a trigger and an index of it.
OBJECTS = {
    "TABLE": RELATIONS.format("r"),
    "VIEW": RELATIONS.format("v"),
    "SEQUENCE": RELATIONS.format("S"),
    "INDEX": """SELECT x.indexrelid::regclass::text, NULL, NULL, NULL, NULL FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid
                 WHERE c.relnamespace::regnamespace::text IN ('pushy', 'pushy_internal') ORDER BY 1""",
    "FUNCTION": "SELECT p.oid::regprocedure::text, NULL, NULL, NULL, NULL FROM pg_proc p WHERE p.prokind = 'f' AND " + MEMBER.format("pg_proc", "p.oid"),
    "PROCEDURE": "SELECT p.oid::regprocedure::text, NULL, NULL, NULL, NULL FROM pg_proc p WHERE p.prokind = 'p' AND " + MEMBER.format("pg_proc", "p.oid"),
    "TYPE": "SELECT c.oid::regclass::text, (SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1), NULL, NULL, NULL "
            "FROM pg_class c WHERE c.relkind = 'c' AND c.relnamespace::regnamespace::text IN ('pushy', 'pushy_internal')",
    "SCHEMA": "SELECT unnest(ARRAY['pushy', 'pushy_internal']), NULL, NULL, NULL, NULL",
    "EXTENSION": "SELECT 'pushy', NULL, NULL, NULL, NULL",
}
# Kinds of objects of which Pushy has none, and what is no object of a database's schema.
NONE = {"AGGREGATE": ("pg_proc", "x.prokind = 'a'"), "DOMAIN": ("pg_type", "x.typtype = 'd'"), "MATERIALIZED VIEW": ("pg_class", "x.relkind = 'm'"),
        "FOREIGN TABLE": ("pg_class", "x.relkind = 'f'"), "COLLATION": ("pg_collation", "true"), "CONVERSION": ("pg_conversion", "true"),
        "EVENT TRIGGER": ("pg_event_trigger", "true"), "FOREIGN DATA WRAPPER": ("pg_foreign_data_wrapper", "true"), "LANGUAGE": ("pg_language", "true"),
        "OPERATOR": ("pg_operator", "true"), "OPERATOR CLASS": ("pg_opclass", "true"), "OPERATOR FAMILY": ("pg_opfamily", "true"),
        "POLICY": ("pg_policy", "true"), "SERVER": ("pg_foreign_server", "true"), "STATISTICS": ("pg_statistic_ext", "true"),
        "TEXT SEARCH CONFIGURATION": ("pg_ts_config", "true"), "TEXT SEARCH DICTIONARY": ("pg_ts_dict", "true"),
        "TEXT SEARCH PARSER": ("pg_ts_parser", "true"), "TEXT SEARCH TEMPLATE": ("pg_ts_template", "true"), "PUBLICATION": ("pg_publication", "true")}
ELSEWHERE = {"DATABASE", "DEFAULT PRIVILEGES", "GROUP", "LARGE OBJECT", "ROLE", "SUBSCRIPTION", "SYSTEM", "TABLESPACE", "USER", "USER MAPPING"}
# Said of the table that they hang on, or of either kind.
BESIDE = {"TRIGGER", "RULE", "ROUTINE"}

NAMED = ["RENAME TO x", "SET SCHEMA public", "OWNER TO heir"]
FUNCTION = [*NAMED, "STRICT", "RETURNS NULL ON NULL INPUT", "CALLED ON NULL INPUT", "IMMUTABLE", "STABLE", "VOLATILE", "LEAKPROOF", "NOT LEAKPROOF", "SECURITY INVOKER",
            "EXTERNAL SECURITY DEFINER", "PARALLEL SAFE", "COST 7", "ROWS 7", "SUPPORT none", "SET work_mem = '1MB'", "SET work_mem FROM CURRENT", "RESET work_mem", "RESET ALL",
            "DEPENDS ON EXTENSION plpgsql", "NO DEPENDS ON EXTENSION plpgsql"]
REFUSED = {
    "TABLE": [*NAMED, "RENAME COLUMN {column} TO x", "RENAME CONSTRAINT {constraint} TO x", "ADD COLUMN x int", "DROP COLUMN {column}", "DROP COLUMN {column} CASCADE",
              "ALTER COLUMN {column} TYPE text", "ALTER COLUMN {column} SET DATA TYPE text", "ALTER COLUMN {column} SET DEFAULT NULL", "ALTER COLUMN {column} DROP DEFAULT",
              "ALTER COLUMN {column} SET NOT NULL", "ALTER COLUMN {column} DROP NOT NULL", "ALTER COLUMN {column} DROP EXPRESSION IF EXISTS",
              "ALTER COLUMN {column} SET EXPRESSION AS (1)", "ALTER COLUMN {column} ADD GENERATED ALWAYS AS IDENTITY", "ALTER COLUMN {column} SET GENERATED ALWAYS", "ALTER COLUMN {column} RESTART",
              "ALTER COLUMN {column} DROP IDENTITY IF EXISTS", "ADD CONSTRAINT x CHECK (true)", "ADD UNIQUE ({column})", "ALTER CONSTRAINT {constraint} DEFERRABLE", "DROP CONSTRAINT {constraint}",
              "DROP CONSTRAINT {constraint} CASCADE",
              "DISABLE RULE x", "ENABLE RULE x", "ENABLE REPLICA RULE x", "ENABLE ALWAYS RULE x", "DISABLE ROW LEVEL SECURITY", "ENABLE ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY",
              "NO FORCE ROW LEVEL SECURITY", "SET LOGGED", "SET UNLOGGED", "INHERIT mine", "NO INHERIT mine", "OF mine", "NOT OF", "ATTACH PARTITION mine DEFAULT",
              "DETACH PARTITION mine", "OWNER TO CURRENT_USER"],
    "VIEW": [*NAMED, "RENAME COLUMN {column} TO x", "ALTER COLUMN {column} SET DEFAULT NULL", "ALTER COLUMN {column} DROP DEFAULT", "SET (security_barrier = false)", "RESET (security_barrier)"],
    "SEQUENCE": [*NAMED, "SET UNLOGGED", "SET LOGGED"],
    "INDEX": ["RENAME TO x", "ATTACH PARTITION mine", "DEPENDS ON EXTENSION plpgsql", "NO DEPENDS ON EXTENSION plpgsql"],
    "FUNCTION": FUNCTION, "PROCEDURE": FUNCTION,
    "TYPE": [*NAMED, "RENAME ATTRIBUTE {column} TO x", "ADD ATTRIBUTE x int", "DROP ATTRIBUTE {column}", "ALTER ATTRIBUTE {column} TYPE text", "RENAME VALUE 'a' TO 'b'", "ADD VALUE 'x'",
             "SET (STORAGE = plain)"],
    "SCHEMA": ["RENAME TO x"],
    "EXTENSION": ["SET SCHEMA public", "DROP TABLE pushy_internal.live_job", "DROP FUNCTION pushy.version()", "DROP VIEW pushy.jobs"],
}
HARMLESS = {
    "TABLE": ["ALTER COLUMN {column} SET STATISTICS 10", "ALTER COLUMN {column} SET (n_distinct = 5)", "ALTER COLUMN {column} RESET (n_distinct)", "ALTER COLUMN {column} SET STORAGE PLAIN",
              "ALTER COLUMN {column} SET COMPRESSION DEFAULT", "VALIDATE CONSTRAINT {constraint}", "DISABLE TRIGGER {trigger}", "ENABLE TRIGGER {trigger}", "ENABLE REPLICA TRIGGER {trigger}", "ENABLE ALWAYS TRIGGER {trigger}", "DISABLE TRIGGER ALL", "ENABLE TRIGGER USER", "CLUSTER ON {index}", "SET WITHOUT CLUSTER", "SET WITHOUT OIDS",
              "SET ACCESS METHOD heap", "SET TABLESPACE pg_default", "SET (fillfactor = 70)", "RESET (fillfactor)", "REPLICA IDENTITY FULL"],
    "SEQUENCE": ["RESTART", "START 5", "INCREMENT 2", "NO MINVALUE", "NO MAXVALUE", "CACHE 5", "CYCLE", "AS bigint", "OWNED BY NONE"],
    "INDEX": ["SET TABLESPACE pg_default", "SET (fillfactor = 70)", "RESET (fillfactor)"],
    "SCHEMA": ["OWNER TO heir", "OWNER TO CURRENT_USER"],
    "EXTENSION": ["ADD TABLE mine", "UPDATE"],
}
# Clauses of the synopses in psql that are not of one object, or are said otherwise here.
BY_THE_WAY = {"ALL IN TABLESPACE"}
# Pushy has no index on an expression, of which alone there are statistics.
NOT_OF_INDEXES = {"ALTER", "ALTER SET STATISTICS", "SET STATISTICS"}


def statements(db, forms):
    for kind, query in OBJECTS.items():
        objects = db.rows(query)
        assert objects, kind
        for name, column, constraint, trigger, index in objects:
            found = {"column": column, "constraint": constraint, "trigger": trigger, "index": index}
            for form in forms.get(kind, []):
                if all(found[part] for part in re.findall(r"\{(\w+)\}", form)):
                    yield kind, form, f"ALTER {kind} {name} {form.format(**found)}"
    if forms is REFUSED:
        for table, _, _, trigger, _ in db.rows(OBJECTS["TABLE"]):
            if trigger:
                yield "TRIGGER", "RENAME TO x", f"ALTER TRIGGER {trigger} ON {table} RENAME TO x"
                yield "TRIGGER", "DEPENDS ON EXTENSION plpgsql", f"ALTER TRIGGER {trigger} ON {table} DEPENDS ON EXTENSION plpgsql"
        for view, *_ in db.rows(OBJECTS["VIEW"]):
            yield "RULE", "RENAME TO x", f'ALTER RULE "_RETURN" ON {view} RENAME TO x'


def what_becomes(session, statement: str) -> str:
    """done, pushy (refused by it), or what the server says."""
    try:
        with session.transaction(force_rollback=True):
            session.execute(statement)
        return "done"
    except psycopg.Error as error:
        is_ours = error.sqlstate in ("55000", "0A000") and re.search(r"extension pushy|Pushy", str(error))
        return "pushy" if is_ours else error.sqlstate


@pytest.fixture
def altered(make_cluster):
    db = make_cluster().database()
    db.sql("CREATE ROLE heir; CREATE TABLE mine (n int)")
    return db


def test_the_owner_of_the_extension_changes_nothing_that_pushy_works_with(altered):
    seen = [(kind, form, statement, what_becomes(altered.main, statement)) for kind, form, statement in statements(altered, REFUSED)]
    assert [one for one in seen if one[3] == "done"] == []
    # Where the server does not refuse a form by itself (it has not the column, is of another kind, or is not the grammar of this major), Pushy does.
    by_pushy = {(kind, form) for kind, form, _, became in seen if became == "pushy"}
    assert {("INDEX", "RENAME TO x"), ("TABLE", "SET UNLOGGED"), ("TABLE", "OWNER TO heir"), ("VIEW", "SET (security_barrier = false)"), ("FUNCTION", "RESET ALL"),
            ("FUNCTION", "OWNER TO heir"), ("TRIGGER", "RENAME TO x"), ("EXTENSION", "DROP VIEW pushy.jobs"), ("TYPE", "OWNER TO heir")} <= by_pushy


def test_what_the_owner_of_the_extension_may_change_is_harmless(altered):
    db = altered
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)', keep_completed => '1 day'), pushy.subscription_create('s', '{c}')")
    done = set()
    for kind, form, statement in statements(db, HARMLESS):
        if form == "ADD TABLE mine":
            continue
        try:
            db.sql(statement)
            done.add((kind, form))
        except psycopg.Error as error:
            # A column that takes no other storage, an index without an expression.
            assert not re.search(r"extension pushy|Pushy", str(error)), (statement, str(error))
    assert done == {(kind, form) for kind, forms in HARMLESS.items() for form in forms} - {("EXTENSION", "ADD TABLE mine")}
    db.sql("ALTER TABLE ALL IN TABLESPACE pg_default SET TABLESPACE pg_default; ALTER SCHEMA pushy OWNER TO CURRENT_USER; ALTER SCHEMA pushy_internal OWNER TO CURRENT_USER")
    jobs = [db.value("SELECT pushy.enqueue('q', %s, delay => %s)", str(n), "1 ms" if n % 2 else None) for n in range(10)]
    jobs.append(db.value("SELECT pushy.enqueue('q', '\"no number\"', max_attempts => 1)"))
    states = [db.job_wait(job)["state"] for job in jobs]
    assert states == ["completed"] * 10 + ["discarded"]
    db.sql("CREATE TABLE t (id int PRIMARY KEY); SELECT pushy.watch('t', 'c'); INSERT INTO t VALUES (1)")
    db.wait_until("SELECT count(*) FROM pushy.subscription_read('s')", 1)
    db.cluster.restart()
    assert db.job_wait(db.value("SELECT pushy.enqueue('q', '7')"))["state"] == "completed"


def test_who_does_not_own_the_extension_changes_nothing(altered):
    db = altered
    db.sql("CREATE ROLE plain LOGIN; GRANT USAGE ON SCHEMA pushy, pushy_internal TO plain")
    with db.connect(user="plain") as session:
        for forms in (REFUSED, HARMLESS):
            done = [statement for _, _, statement in statements(db, forms) if what_becomes(session, statement) in ("done", "pushy")]
            assert done == []


def help_of(db, command: str) -> str:
    return db.cluster.psql(db.name, f"\\h {command}\n")


def test_the_forms_are_those_that_the_server_knows(altered):
    db = altered
    commands = {line.strip() for line in re.findall(r"ALTER [A-Z ]+", help_of(db, "ALTER")) if line.strip() != "ALTER"}
    kinds = {re.match(r"ALTER ([A-Z ]+?)\s*$", command)[1] for command in re.findall(r"^Command:\s+(ALTER [A-Z ]+)$", help_of(db, "ALTER"), re.M)}
    assert commands and kinds
    assert kinds <= {*OBJECTS, *NONE, *ELSEWHERE, *BESIDE}, kinds - {*OBJECTS, *NONE, *ELSEWHERE, *BESIDE}
    for kind, (catalog, which) in NONE.items():
        members = f"SELECT count(*) FROM {catalog} x WHERE {which} AND " + MEMBER.format(catalog, "x.oid")
        assert (kind, db.value(members)) == (kind, 0)
    for kind in ("TABLE", "INDEX", "VIEW"):
        said = {*REFUSED[kind], *HARMLESS.get(kind, [])}
        for clause in actions(help_of(db, f"ALTER {kind}")):
            if clause not in BY_THE_WAY and (kind, clause) not in {("INDEX", other) for other in NOT_OF_INDEXES}:
                assert any(normal(form).startswith(clause) for form in said), (kind, clause)


def normal(form: str) -> str:
    return " ".join(re.sub(r"\{\w+\}|\bCOLUMN\b", " ", form).split())


def actions(synopsis: str) -> set[str]:
    """The leading words of each action."""
    lines = synopsis.split("where action is one of:", 1)[-1].split("and partition_bound_spec", 1)[0].splitlines()
    found = set()
    for line in lines:
        text = re.sub(r"^\s*(ALTER (TABLE|INDEX|VIEW) )?", "", line)
        text = re.sub(r"\[ (IF EXISTS|IF NOT EXISTS|ONLY|COLUMN|\*|NO) \]|\bname\b|column_name|\[ \* \]", " ", text)
        words = re.match(r"\s*((?:[A-Z]+\s+)+)", text + " ")
        if words:
            found.add(" ".join(re.sub(r"\bCOLUMN\b", " ", words[1]).split()))
    return {clause for clause in found if clause not in ("IF EXISTS",)}
