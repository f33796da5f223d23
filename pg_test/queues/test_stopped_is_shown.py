"""Whatever stops a queue until somebody mends it is shown wherever people look: in pushy.queues, pushy.stats and queue_explain, on channel
pushy_control, and by the query of docs/operations.md."""

import re
from pathlib import Path

import pytest

from harness.versions import skip_unless_workers_must_log_in
from stage.life import end_executors

ROOT = Path(__file__).resolve().parents[2]

# What a superuser does, by the reason of src/queue/eligibility/ineligible.rs that it brings about.
DAMAGE = {
    "HandlerGone": "DROP FUNCTION code.work(jsonb)",
    "HandlerRecreated": "DROP FUNCTION code.work(jsonb); SET ROLE {worker}; CREATE FUNCTION code.work(jsonb) RETURNS void LANGUAGE sql AS ''; RESET ROLE",
    "HandlerRenamed": "ALTER FUNCTION code.work(jsonb) RENAME TO again",
    "HandlerRenamed: moved": "CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO PUBLIC; ALTER FUNCTION code.work(jsonb) SET SCHEMA other",
    "HandlerOfAnother": "ALTER FUNCTION code.work(jsonb) OWNER TO {stranger}",
    "HandlerRecreated: a procedure": "DROP FUNCTION code.work(jsonb); SET ROLE {worker}; CREATE PROCEDURE code.work(jsonb) LANGUAGE sql AS ''; RESET ROLE",
    "ProcedureOfDefiner": "DROP FUNCTION code.work(jsonb); SET ROLE {worker}; CREATE PROCEDURE code.work(jsonb) LANGUAGE sql SECURITY DEFINER AS ''; RESET ROLE",
    "ProcedureWithSettings": "DROP FUNCTION code.work(jsonb); SET ROLE {worker}; CREATE PROCEDURE code.work(jsonb) LANGUAGE sql SET search_path = pg_catalog AS ''; RESET ROLE",
    "ProcedureAnswers": "DROP FUNCTION code.work(jsonb); SET ROLE {worker}; CREATE PROCEDURE code.work(jsonb, OUT n int) LANGUAGE sql AS 'SELECT 1'; RESET ROLE",
    "NotAFunction": "DROP FUNCTION code.work(jsonb); CREATE AGGREGATE code.work(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb)",
    "ReturnsSet": "DROP FUNCTION code.work(jsonb); SET ROLE {worker}; CREATE FUNCTION code.work(jsonb) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1'; RESET ROLE",
    "ReturnsPseudoType": "DROP FUNCTION code.work(jsonb); CREATE FUNCTION code.work(jsonb) RETURNS cstring STRICT LANGUAGE internal AS 'jsonb_out'; ALTER FUNCTION code.work(jsonb) OWNER TO {worker}",
    "RoleGone": "ALTER FUNCTION code.work(jsonb) OWNER TO {owner}; REVOKE ALL ON SCHEMA code FROM {worker}; DROP OWNED BY {worker}; DROP ROLE {worker}",
    "RoleRenamed": "ALTER ROLE {worker} RENAME TO {worker}_x",
    "OwnerGone": "DROP OWNED BY {owner}; DROP ROLE {owner}",
    "OwnerRenamed": "ALTER ROLE {owner} RENAME TO {owner}_x",
    "OwnerMayNotBecome": "REVOKE {worker} FROM {owner}",
    "NoSchemaUsage": "REVOKE ALL ON SCHEMA code FROM {worker}",
    "NoExecute": "REVOKE EXECUTE ON FUNCTION code.work(jsonb) FROM PUBLIC, {worker}",
    "SuperuserRunsForeignHandler": "ALTER ROLE {owner} SUPERUSER; ALTER ROLE {worker} SUPERUSER; ALTER FUNCTION code.work(jsonb) OWNER TO {stranger}",
    "NoLogin": "ALTER ROLE {worker} NOLOGIN",
    "NoConnect": "REVOKE CONNECT ON DATABASE \"{db}\" FROM PUBLIC; GRANT CONNECT ON DATABASE \"{db}\" TO {owner}",
    "TooManySessions": "ALTER ROLE {worker} CONNECTION LIMIT 0",
    "DatabaseFull": "ALTER DATABASE \"{db}\" CONNECTION LIMIT 0",
}
NOT_TRIED = {
    "Outside": "a queue without a handler is not stopped: workers outside do its jobs",
    "Temporary": "a handler is refused that is, and none becomes temporary",
    "WrongArguments": "another function has other arguments: the handler is gone",
    "SessionOutdated": "the executor leaves, and another one comes: there is nothing to mend",
    "DatabaseClosed": "nobody can look into the database: the server's log says it",
}


def test_every_reason_is_tried():
    source = (ROOT / "src/queue/eligibility/ineligible.rs").read_text()
    variants = set(re.findall(r"^    (\w+) \{$", source.split("pub enum Ineligible {")[1].split("\n}")[0], re.M))
    assert variants == {name.split(":")[0] for name in DAMAGE} | set(NOT_TRIED)


def queries():
    """Those of the page that ask what was stopped."""
    page = (ROOT / "docs/operations.md").read_text()
    return [next(sql for sql in re.findall(r"```sql\n(.*?)```", page, re.S) if start in sql).split(";")[0] for start in ("q.paused OR q.parked IS NOT NULL", "SELECT queue, parked FROM")]


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_stops_a_queue_is_shown_wherever_people_look(db, role, damage):
    if damage == "NoLogin":
        skip_unless_workers_must_log_in(db)
    names = {"worker": role(), "stranger": role(), "db": db.name}
    names["owner"] = role(f"IN ROLE {names['worker']}")
    fill = lambda text: text.format(**names)  # noqa: E731
    db.sql(fill("""CREATE SCHEMA code; GRANT ALL ON SCHEMA code TO {worker}, {owner}, {stranger}; GRANT USAGE ON SCHEMA pushy TO {owner}, {worker};
                   SET ROLE {worker}; CREATE FUNCTION code.work(jsonb) RETURNS void LANGUAGE sql AS ''; RESET ROLE"""))
    with db.connect(user=names["owner"]) as owner:
        owner.execute("SELECT pushy.queue_register('q', 'code.work(jsonb)', run_as => %s::regrole)", (names["worker"],))
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    with db.connect(user=names["worker"]):
        control = db.listen("pushy_control")
        db.sql(fill(DAMAGE[damage]))
        if damage in ("RoleGone", "TooManySessions", "DatabaseFull"):
            # One that is there goes on in its session.
            end_executors(db)
        db.sql("SELECT pushy.enqueue('q')")
        said = control.wait_for_json(event="park")
        assert said["queue"] == "q" and "job_id" not in said
        parked = db.value("SELECT parked FROM pushy.queues WHERE queue = 'q'")
        [(reason, fix), *_] = db.rows("SELECT reason, fix FROM pushy.queue_explain('q')")
        assert parked and parked in reason and fix, (parked, reason, fix)
        assert db.value("SELECT parked FROM pushy.stats WHERE queue = 'q'") >= 1
        for query in queries():
            assert db.rows(query) and db.rows(query)[0][0] == "q", query
