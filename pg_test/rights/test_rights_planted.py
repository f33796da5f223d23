"""Everything that Pushy's statements name is planted before pg_catalog, for callers, executors, scheduler and relay: none of it
runs as anybody but who planted it."""

import re

import psycopg
import pytest

from harness.waiting import wait_for
from stage.planted import plant

# Arguments with which a function gets far; the others get each type's own.
ARGUMENTS = {
    "enqueue": "'q'", "enqueue_many": "'q', ARRAY['1', '2']::pg_catalog.jsonb[]", "queue_explain": "'q'", "queue_run": "'mine'", "job_wait": "{job}",
    "job_cancel": "{later}", "job_retry": "{failed}", "job_trace": "{job}", "has_queue_privilege": "'q', 'enqueue'", "queue_pause": "'paused'",
    "queue_resume": "'paused'", "queue_alter": "'q', max_attempts => 2", "queue_grant": "'q', 'public', 'monitor'",
    "queue_revoke": "'q', 'public', 'work'", "queue_drop": "'dropped'", "watch": "'public.t'::pg_catalog.regclass, queue => 'q', name => 'again'",
    "unwatch": "'public.t'::pg_catalog.regclass, 'again'", "watch_pause": "'public.t'::pg_catalog.regclass, 'first'",
    "watch_resume": "'public.t'::pg_catalog.regclass, 'first'", "watch_counts": "1", "notify": "'news', 'x', 'relay'", "channel_name": "'a'",
    "queue_register": "'dropped', 'public.work(pg_catalog.jsonb)', retry_delay => '10 ms'", "subscription_create": "'sub', ARRAY['news']::pg_catalog.text[]",
    "subscription_read": "'sub'", "subscription_ack": "'sub', '0-0-0'", "subscription_drop": "'sub'", "subscription_wait": "'sub', '10 ms'",
    "jobs_wait": "'q', '30 s'", "job_progress": "0.5", "watch_elsewhere": "1, 'public.t', 'postgres'",
    "is_home": "1, 1::pg_catalog.oid", "notice": "{notice}",
}
GENERIC = {"text": "'q'", "name": "'q'", "int4": "1", "int8": "1", "bool": "true", "jsonb": "'1'", "interval": "'1 s'", "oid": "1::pg_catalog.oid",
           "regclass": "'public.t'::pg_catalog.regclass", "regrole": "'postgres'::pg_catalog.regrole", "float8": "0.5", "timestamptz": "'2026-01-01'"}
# Before and after which the rest is called.
FIRST, LAST = ["queue_register", "subscription_create", "watch", "enqueue"], ["unwatch", "subscription_drop", "queue_drop"]


@pytest.fixture
def planted(make_cluster):
    """A server where the planter's schema comes first for everybody: by ALTER DATABASE, by ALTER ROLE, and by SET."""
    cluster = make_cluster({"pushy.max_executors": 4, "max_worker_processes": 20})
    db = cluster.database()
    db.sql("""
        CREATE ROLE planter LOGIN; CREATE ROLE victim LOGIN; GRANT USAGE ON SCHEMA pushy_internal TO planter, victim; CREATE SCHEMA mine AUTHORIZATION planter;
        CREATE TABLE t (id int PRIMARY KEY, v text); GRANT ALL ON t TO PUBLIC; GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC;
        CREATE FUNCTION work(args jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
        BEGIN
            IF args OPERATOR(pg_catalog.=) '"fail"'::pg_catalog.jsonb THEN
                RAISE EXCEPTION 'failed';
            END IF;
            RETURN args;
        END$$""")
    planter = cluster.connect(db.name, "planter")
    planter.execute("GRANT USAGE ON SCHEMA mine TO PUBLIC")
    db.main
    db.count = plant(db, planter, "mine", "planter")
    planter.close()
    db.since = cluster.log.position()
    for target in (f"DATABASE {db.name}", "ROLE victim", "ROLE planter", "ROLE postgres"):
        db.sql(f"ALTER {target} SET search_path = mine, pg_catalog, public")
    # Those that are here connected before.
    db.sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'pushy%'")
    return db


def ran(db) -> set[str]:
    return set(re.findall(r"PLANTED: .* ran as \S+", db.cluster.log.since(db.since)))


def settle(db) -> None:
    """All jobs done, those that wait for tomorrow apart, and the relay's work too."""
    wait_for("the jobs to be done", lambda: db.rows("SELECT id, queue, state, parked FROM pushy.jobs JOIN pushy.queues USING (queue) "
             "WHERE finished_at IS NULL AND NOT paused AND run_at < now() + interval '1 hour'"), lambda left: left == [], evidence=db.cluster.log.tail)


def everything_of(db, run_as: str) -> dict[str, int]:
    """Queues, jobs in each state, a watch of each delivery, a subscription: made by a superuser whose path is as it should be."""
    db.sql("SET search_path = pg_catalog, public")
    for queue in ("q", "mine", "paused", "fed"):
        db.sql(f"SELECT pushy.queue_register('{queue}', 'public.work(jsonb)', run_as => '{run_as}', max_attempts => 2, retry_delay => '10 ms'), "
               f"pushy.queue_grant('{queue}', 'planter', 'monitor'), pushy.queue_grant('{queue}', 'planter', 'enqueue'), "
               f"pushy.queue_grant('{queue}', 'planter', 'work')")
    db.sql("SELECT pushy.queue_pause('paused'), pushy.queue_pause('mine'), pushy.subscription_create('feeding', '{news}', queue => 'fed'), "
           "pushy.watch('public.t', channel => 'relayed', queue => 'q', delivery => 'relay', name => 'first', condition => 'NEW.id IS NOT NULL'), "
           "pushy.watch('public.t', channel => 'notified', delivery => 'notify', columns => '{v}', payload => 'row', name => 'second'), "
           "pushy.watch('public.t', channel => 'statement', level => 'statement', name => 'third')")
    db.sql("INSERT INTO public.t SELECT n, repeat('x', 9000) FROM generate_series(1, 3) n; UPDATE public.t SET v = 'y'; DELETE FROM public.t WHERE id = 1")
    db.sql("SELECT pushy.notify('news', 'fed', delivery => 'relay')")
    ids = {name: db.value(f"SELECT pushy.enqueue('q', {rest})") for name, rest in {
        "job": "'1'", "soon": "'2', delay => '100 ms'", "later": "'3', delay => '1 day'", "failed": "'\"fail\"'", "keyed": "'4', unique_key => 'k'"}.items()}
    db.sql("SELECT pushy.enqueue('mine', '1'), pushy.enqueue('paused', '1')")
    ids["notice"] = db.value("SELECT coalesce(min(id), 0) FROM pushy_internal.oversize_notice")
    settle(db)
    return ids


def calls(db, ids: dict[str, int]) -> list[str]:
    """A call of every function and procedure, and a look into every view."""
    rows = db.rows("""
        SELECT p.pronamespace::regnamespace::text, p.proname, p.prokind::text, ARRAY(SELECT t.typname::text FROM unnest(p.proargtypes) WITH ORDINALITY a (oid, n) JOIN pg_type t USING (oid) ORDER BY n)
          FROM pg_proc p WHERE p.pronamespace::regnamespace::text LIKE 'pushy%' AND p.prorettype <> 'trigger'::regtype ORDER BY p.oid""")
    made = []
    for schema, name, kind, types in rows:
        arguments = ARGUMENTS.get(name, ", ".join(GENERIC.get(type_, "NULL") for type_ in types)).format(**ids)
        call = f"{schema}.{name}({arguments})"
        made.append((name, f"CALL {call}" if kind == "p" else f"SELECT {call}", f"SELECT * FROM {call}" if kind != "p" else None))
    order = {name: rank for rank, name in enumerate(FIRST, -len(FIRST))} | {name: rank for rank, name in enumerate(LAST, 1)}
    made.sort(key=lambda one: order.get(one[0], 0))
    views = [f"SELECT * FROM {view}" for view, in db.rows(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace::regnamespace::text LIKE 'pushy%' AND c.relkind = 'v'")]
    return [call for _, *both in made for call in both if call] + views


def test_what_is_planted_is_called_by_who_is_careless(planted):
    """The trap works: there is enough of it, and a statement without schemas falls into it."""
    assert planted.count > 1500
    with planted.cluster.connect(planted.name) as careless:
        for statement in ("SELECT 1 = 1", "SELECT 'a' = ANY ('{a}'::text[])", "SELECT NULLIF('a'::pg_catalog.text, 'b')", "SELECT 'a'::text",
                          "SELECT count(*) FROM pg_catalog.pg_class", "SELECT * FROM pg_roles", "SELECT CASE 'a'::pg_catalog.\"char\" WHEN 'b' THEN 1 END",
                          "SELECT quote_ident('a'::pg_catalog.text)", "SELECT 1 IN (SELECT 1)", "SELECT 2 BETWEEN 1 AND 3", "SELECT 1 IS DISTINCT FROM 2"):
            before = planted.cluster.log.position()
            try:
                careless.execute(statement)
            except psycopg.Error:
                pass
            assert "ran as postgres" in planted.cluster.log.since(before), statement


@pytest.mark.parametrize("run_as", ["victim", "postgres"])
def test_nothing_planted_runs_as_anybody_else(planted, run_as, record_property):
    db = planted
    ids = everything_of(db, run_as)
    assert ran(db) == set(), "executors, scheduler or relay"
    done = []
    for who in ("planter", "victim", "postgres"):
        session = db.cluster.connect(db.name, who)
        assert session.execute("SHOW search_path").fetchone() == ("mine, pg_catalog, public",)
        session.execute("SET statement_timeout = '20s'")
        for call in calls(db, ids):
            try:
                session.execute(call)
                done.append((who, call))
            except psycopg.Error:
                # What is refused is refused by rights or by state; before that it was looked up.
                pass
            assert ran(db) == set(), f"{who}: {call}"
        # By way of a watch's triggers: a writer's session.
        session.execute("INSERT INTO public.t VALUES (100, 'x'); UPDATE public.t SET v = 'z'; DELETE FROM public.t WHERE id OPERATOR(pg_catalog.=) 100")
        assert ran(db) == set(), f"{who}: watched writes"
        session.close()
    settle(db)
    assert ran(db) == set(), "executors, scheduler or relay, afterwards"
    for who, names in (("postgres", ["resume_after_restore", "watch", "unwatch", "queue_alter", "watches", "stats"]), ("planter", [])):
        reached = {re.search(r"pushy(?:_internal)?\.(\w+)", call)[1] for by, call in done if by == who}
        for name in names + ["enqueue", "enqueue_many", "job_wait", "job_trace", "queue_explain", "jobs", "failures", "queues"]:
            assert name in reached, (who, name, sorted(reached))
    record_property("counted", f"{db.count:,} things planted, {len(done):,} calls")
