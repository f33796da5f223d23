"""Whoever passes millions of elements can be cancelled: every function of the interface that takes an array or JSON looks at interrupts at each."""

import json
import time
import uuid

import psycopg
import pytest

MANY = 300_000
# What the elements are, where most functions would refuse others at the first one.
ELEMENTS = {
    ("jobs_settle", "outcomes"): f"(SELECT jsonb_agg(jsonb_build_object('job_id', n, 'token', '{uuid.uuid4()}', 'outcome', 'complete')) FROM generate_series(1, {{many}}) n)",
    ("enqueue_many", "args"): "array_fill('{}'::jsonb, ARRAY[{many}])",
    ("watch", "events"): "array_fill('insert'::text, ARRAY[{many}])",
    ("watch", "columns"): "array_fill('id'::name, ARRAY[{many}])",
}
ARRAY = "array_fill('a'::text, ARRAY[{many}])"
DOCUMENT = "(SELECT jsonb_agg(n) FROM generate_series(1, {many}) n)"
# Stored as it is, and never walked through.
OPAQUE = {("enqueue", "args"), ("job_complete", "result"), ("job_checkpoint", "state"), ("notify", "payload")}
PLAIN = {"text": "'q'", "regclass": "'t'", "text[]": "'{q}'", "jsonb": "'{}'", "name[]": "NULL", "bigint": "1", "uuid": "gen_random_uuid()"}


def calls(db) -> dict:
    found = db.rows("""
        SELECT p.proname, p.pronargs - p.pronargdefaults, array_agg(a.name ORDER BY a.n), array_agg(format_type(a.type, NULL) ORDER BY a.n)
          FROM pg_proc p, unnest(p.proargtypes::oid[], p.proargnames[1:p.pronargs]) WITH ORDINALITY a(type, name, n)
         WHERE p.pronamespace = 'pushy'::regnamespace AND p.prokind = 'f' GROUP BY p.oid""")
    made = {}
    for name, required, names, types in found:
        for at, (argument, kind) in enumerate(zip(names, types)):
            if not kind.endswith("[]") and kind != "jsonb" or (name, argument) in OPAQUE:
                continue
            many = ELEMENTS.get((name, argument), DOCUMENT if kind == "jsonb" else ARRAY)
            others = "".join(f", {other} => {PLAIN[types[n]]}" for n, other in enumerate(names) if n != at and n < required)
            made[name, argument] = f"SELECT count(*) FROM pushy.{name}({argument} => (SELECT v FROM given){others})", many
    return made


def run(session, call: str) -> tuple[float, str | None]:
    began = time.monotonic()
    try:
        session.execute(call)
        said = None
    except psycopg.Error as error:
        said = error.sqlstate
    return time.monotonic() - began, said


def test_every_function_that_takes_many_elements_can_be_cancelled(db):
    db.sql("CREATE TABLE t (id int); SELECT pushy.queue_register('q')")
    session = db.connect()
    deaf, made = [], calls(db)
    assert set(ELEMENTS) <= set(made) and ("subscription_create", "channels") in made and ("ticket_create", "channels") in made
    for function, (call, many) in made.items():
        session.execute("DROP TABLE IF EXISTS given; CREATE TEMP TABLE given AS SELECT " + many.replace("{many}", str(MANY)) + " AS v")
        session.execute("BEGIN")
        whole, _ = run(session, call)
        session.execute("ROLLBACK")
        if whole < 0.5:
            continue  # refused, or read, at once
        session.execute(f"SET statement_timeout = {int(whole * 100)}")
        cut, said = run(session, call)
        session.execute("SET statement_timeout = 0")
        if said != "57014" or cut > whole / 2:
            deaf.append((function, whole, cut, said))
    assert deaf == []


@pytest.mark.parametrize("outcome", ["complete", "release", "extend"])
def test_a_settlement_that_is_cancelled_has_settled_nothing(db, outcome):
    db.sql("SELECT pushy.queue_register('q', lease => '1 hour'); SELECT count(*) FROM pushy.enqueue_many('q', array_fill('{}'::jsonb, ARRAY[1000]))")
    held = db.rows("SELECT job_id, token FROM pushy.job_claim('q', 1000)")
    said = json.dumps([{"job_id": job, "token": str(token), "outcome": outcome} for job, token in held])
    holder, session = db.connect(), db.connect()
    holder.execute("BEGIN")
    holder.execute("SELECT FROM pushy_internal.live_job WHERE id = %s FOR UPDATE", (held[-1][0],))
    session.execute("SET statement_timeout = '2 s'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        session.execute("SELECT pushy.jobs_settle(%s)", (said,))
    holder.execute("ROLLBACK")
    assert db.value("SELECT count(*) FROM pushy_internal.lease") == 1000
    session.execute("SET statement_timeout = 0")
    assert session.execute("SELECT pushy.jobs_settle(%s)", (said,)).fetchone() == (1000,)
