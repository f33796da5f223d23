"""The lint over Pushy's SQL: silent about this tree, loud about each kind of name without its schema."""

import re
import sys

import psycopg
import pytest

from harness.installation import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tools"))
import lint_sql  # noqa: E402

EQ = "OPERATOR(pg_catalog.=)"
BAD = [  # a statement, and what the complaint names
    ("SELECT now()", "function now"),
    ("SELECT pg_catalog.count(*) FILTER (WHERE 1 = 1)", "operator ="),
    ("SELECT - q.priority FROM pushy_internal.queue q", "operator -"),
    ("SELECT 1 FROM queue", "relation queue"),
    ("SELECT 1::text", "type text"),
    ("SELECT CAST(1 AS \"char\")", "type char"),
    ("SELECT '{}'::text[]", "type text"),
    ("SELECT CASE 'a' WHEN 'b' THEN 1 END", "CASE x WHEN"),
    ("SELECT NULLIF(1, 2)", "NULLIF"),
    ("SELECT 1 IN (1, 2)", "IN"),
    ("SELECT 1 NOT IN (1, 2)", "IN"),
    ("SELECT 1 IN (SELECT q.queue_id FROM pushy_internal.queue q)", "IN (SELECT"),
    ("SELECT 1 = ANY (SELECT q.queue_id FROM pushy_internal.queue q)", "operator ="),
    ("SELECT 1 = ANY (ARRAY[1])", "operator ="),
    ("SELECT 1 > ALL (ARRAY[1])", "operator >"),
    ("SELECT (1, 2) = (1, 2)", "operator ="),
    ("SELECT (1, 2) < (SELECT 1, 2)", "operator <"),
    ("SELECT 1 BETWEEN 1 AND 2", "BETWEEN"),
    ("SELECT 1 NOT BETWEEN SYMMETRIC 1 AND 2", "BETWEEN"),
    ("SELECT 1 IS DISTINCT FROM 2", "IS DISTINCT FROM"),
    ("SELECT 1 IS NOT DISTINCT FROM 2", "IS NOT DISTINCT FROM"),
    ("SELECT 'a' LIKE 'b'", "LIKE"),
    ("SELECT 'a' NOT ILIKE 'b'", "ILIKE"),
    ("SELECT 'a' SIMILAR TO 'b'", "SIMILAR TO"),
    ("SELECT q.queue FROM pushy_internal.queue q ORDER BY q.queue USING <", "operator <"),
    ("SELECT 1 FROM pushy_internal.queue q JOIN pushy_internal.queue_acl a USING (queue_id)", "USING"),
    ("SELECT 1 FROM pushy_internal.queue q NATURAL JOIN pushy_internal.queue_acl a", "USING"),
    ('SELECT q.queue COLLATE "C" FROM pushy_internal.queue q', "collname C"),
    ("SELECT 'queue'::pg_catalog.regclass", "'queue'"),
    ("SELECT pg_catalog.nextval('queue_id_seq')", "'queue_id_seq'"),
    (r"SELECT '\x00'::pg_catalog.bytea", "backslash"),
    ("INSERT INTO queue (queue) VALUES ('a')", "relation queue"),
    ("UPDATE pushy_internal.queue q SET priority = q.priority + 1", "operator +"),
    ("DELETE FROM pushy_internal.queue q WHERE q.queue = $1", "operator ="),
    ("WITH gone AS (DELETE FROM live_job j RETURNING j.id) SELECT g.id FROM gone g", "relation live_job"),
    ("TRUNCATE live_job", "relation live_job"),
    ("SELECT 1 FROM pushy_internal.live_job j FOR UPDATE OF j; SELECT now()", "function now"),
    ("CREATE TABLE pushy.t (n int DEFAULT nextval('pushy.s'))", "function nextval"),
    ("CREATE TABLE pushy.t (n int CHECK (n > 0))", "operator >"),
    ("CREATE INDEX i ON pushy.t ((lower(a)))", "function lower"),
    ("CREATE INDEX i ON pushy.t (a text_pattern_ops)", "opclass text_pattern_ops"),
    ("CREATE INDEX i ON t (a)", "relation t"),
    ("CREATE VIEW pushy.v AS SELECT 1 FROM t", "relation t"),
    ("CREATE VIEW v AS SELECT 1", "relation v"),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'x', 'y'", "funcname f"),
    ("CREATE FUNCTION pushy.f(a text DEFAULT now()) RETURNS int LANGUAGE c AS 'x', 'y'", "function now"),
    ("CREATE FUNCTION pushy.f() RETURNS int LANGUAGE sql AS 'SELECT 1 + 1'", "operator +"),
    ("CREATE FUNCTION pushy.f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1 + 1; END'", "operator +"),
    ("COMMENT ON FUNCTION f() IS 'x'", "objname f"),
    ("DO $$BEGIN IF 1 = 2 THEN NULL; END IF; END$$", "operator ="),
    ("DO $$DECLARE t text; BEGIN t := 'a'; END$$", "type text"),
    ("DO $$DECLARE t pg_catalog.text; BEGIN t := lower('A'); END$$", "function lower"),
    ("DO $$BEGIN PERFORM now(); END$$", "function now"),
    ("DO $$DECLARE r record; BEGIN FOR r IN SELECT 1 FROM t LOOP NULL; END LOOP; END$$", "relation t"),
    ("DO $$BEGIN EXECUTE 'CREATE TABLE t (n int)'; END$$", "relation t"),
    ("DO $$BEGIN EXECUTE pg_catalog.format('CREATE TABLE pushy.t_%s (n int CHECK (n > 0))', 1); END$$", "operator >"),
    ("SELECT 1 FROM", "cannot be parsed"),
]
GOOD = [
    f"SELECT q.queue, COALESCE(q.parked, 'x'), q.paused IS TRUE, q.parked IS NULL FROM pushy_internal.queue q WHERE q.queue {EQ} ANY ($1)",
    f"WITH gone AS (DELETE FROM pushy_internal.live_job j WHERE j.id {EQ} $1 RETURNING j.*) INSERT INTO pushy_internal.finished_job (id) SELECT g.id FROM gone g",
    "SELECT pg_catalog.count(*), CURRENT_USER, EXISTS (SELECT FROM pushy_internal.queue q), ARRAY[1, 2], 1::int, '1 s'::interval",
    f"SELECT CASE WHEN q.queue_id {EQ} 1 THEN 'a' ELSE 'b' END FROM pushy_internal.queue q ORDER BY q.queue DESC LIMIT 1 FOR UPDATE OF q SKIP LOCKED",
    "SELECT 'pushy_internal.queue'::pg_catalog.regclass, pg_catalog.nextval('pushy_internal.queue_id_seq'::pg_catalog.regclass)",
    "CREATE TABLE pushy.t (a text NOT NULL, b jsonb, c \"char\" DEFAULT 'a', PRIMARY KEY (a)); COMMENT ON TABLE pushy.t IS 'x'",
    "CREATE FUNCTION pushy.f(a text, b regrole DEFAULT NULL) RETURNS SETOF bigint LANGUAGE c AS 'x', 'y'",
    f"DO $$DECLARE n pg_catalog.int4 := 1; BEGIN IF n OPERATOR(pg_catalog.>) 1 THEN RAISE EXCEPTION 'x'; END IF; END$$",
]


@pytest.mark.parametrize("statement, says", BAD, ids=[statement for statement, _ in BAD])
def test_a_name_without_its_schema_is_found(statement, says):
    found = lint_sql.complaints(statement)
    assert any(says in complaint for complaint in found), found


@pytest.mark.parametrize("statement", GOOD)
def test_what_is_written_in_full_is_not_complained_about(statement):
    assert lint_sql.complaints(statement) == []


RUST = r'''
macro_rules! columns { () => { "q.queue, \
    q.owner" }; }
macro_rules! select { ($which:literal) => { concat!("SELECT ", columns!(), " FROM pushy_internal.queue q ", $which) }; }
/* "SELECT commented()" */
// static OLD: Plan = Plan::new("SELECT commented()", &[]);
static ONE: Plan = Plan::new(select!("WHERE q.queue = $1"), &[TEXTOID]);
static TWO: [Plan; 2] = [Plan::new("SELECT \"char\"('a')", &[]), Plan::new(r#"SELECT 'b'"#, &[])];
fn passed(sql: &'static str) -> Plan { Plan::new(sql, &[]) }
fn once(part: u32) { spi::command(&format!("TRUNCATE log_{part}")); let c = '"'; passed("DELETE FROM t"); }
fn shown() -> String {
    // for people to run
    "SELECT shown()".to_owned()
}
'''


def test_statements_are_found_in_a_source_however_they_are_put_together():
    assert list(lint_sql.statements(RUST)) == [
        "SELECT q.queue, q.owner FROM pushy_internal.queue q WHERE q.queue = $1", "SELECT \"char\"('a')", "SELECT 'b'",
        "TRUNCATE log_x", "DELETE FROM t"]


def test_a_statement_that_cannot_be_put_together_is_an_error():
    with pytest.raises(lint_sql.Unread):
        list(lint_sql.statements("static A: Plan = Plan::new(made_elsewhere!(1 + 2), &[]);"))


def test_a_bad_file_of_each_kind_is_found_in_a_tree(tmp_path):
    (tmp_path / "sql").mkdir()
    (tmp_path / "src" / "job").mkdir(parents=True)
    (tmp_path / "sql" / "a.sql").write_text("-- As src/job/a.rs has it.\nSELECT now();\nCREATE TABLE pushy_internal.queue (n int);\nCREATE FUNCTION pushy.enqueue() RETURNS void LANGUAGE c AS 'a', 'b';")
    (tmp_path / "src" / "job" / "a.rs").write_text('static A: Plan = Plan::new("SELECT 1 = 2", &[]); unsafe { pg_sys::SPI_execute(x) }')
    (tmp_path / "src" / "job" / "b.rs").write_text("let tree = pg_sys::stringToNode(text);")
    (tmp_path / "src" / "job" / "c.rs").write_text('"SELECT pushy.enqueue() FROM pushy_internal.queue, pushy.queue"')
    found = lint_sql.in_tree(tmp_path)
    assert any("src/job/b.rs: stringToNode( reads words" in complaint for complaint in found), found
    assert any(complaint.startswith("sql/a.sql: function now") for complaint in found), found
    assert any(complaint.startswith("sql/a.sql: src/job/a may have moved") for complaint in found), found
    assert any(complaint.startswith("src/job/a.rs: operator =") for complaint in found), found
    assert any("SPI is entered by" in complaint for complaint in found), found
    assert [complaint.split(" in: ")[0] for complaint in found if "c.rs" in complaint] == ["src/job/c.rs: pushy.queue, which is not made there"]


@pytest.mark.parametrize("writes", [
    'static A: Plan = Plan::new("DELETE FROM pushy.live_job j", &[]);',
    'static A: Plan = Plan::new("WITH a AS (UPDATE ONLY pushy.finished_job_07 f SET id = 1 RETURNING id) SELECT id FROM a", &[]);',
    'static A: Plan = Plan::new("INSERT INTO pushy_internal.failure (job_id) VALUES ($1)", &[]);',
    'fn once(table: &str) { spi::command(&format!("TRUNCATE ONLY pushy.{table}")); }',
    'let table = heap::open("live_job")?; table.append(rows);',
    'history::open_parent(time)?.append(rows);'])
def test_a_job_that_is_moved_past_the_state_machine_is_found(tmp_path, writes):
    for folder in ("sql", "src/job/moves"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "src/job/moves/a.rs").write_text(writes)
    assert not any("src/job/moves/ only" in complaint for complaint in lint_sql.in_tree(tmp_path))
    (tmp_path / "src/job/a.rs").write_text(writes)
    assert any(complaint.startswith("src/job/a.rs: ") and "src/job/moves/ only" in complaint for complaint in lint_sql.in_tree(tmp_path))


def test_this_tree_names_everything_with_its_schema():
    assert lint_sql.in_tree() == []


def test_every_statement_of_the_library_finds_its_tables_and_columns(db):
    """A name in the text of a statement is compiled as any text: only the server says that the column was renamed."""
    prepared, lost = 0, []
    with db.connect() as session:
        for where, text in lint_sql.read_tree(REPOSITORY):
            if where.suffix != ".rs" or isinstance(text, lint_sql.Unread):
                continue
            try:
                session.execute(f"PREPARE looked_at AS {text}")
                session.execute("DEALLOCATE looked_at")
                prepared += 1
            except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable) as error:
                # What format! fills in stands as x.
                if not re.search(r"\bx\b", text):
                    lost.append((str(where), error.diag.message_primary, text[:80]))
            except psycopg.Error:
                pass
    assert lost == []
    assert prepared > 100
