"""What is not yours you cannot lock, nor come to wait for: either would stop whose it is. Every function of Pushy is called by a
stranger with everything of another tenant's, and with tables that are nobody's."""

import itertools

import psycopg
import pytest

# What can be said for each argument; of an argument that is not here, nothing is said. {v}: what the victim has.
SAID = {
    "queue": ["{v}_q", "{v}_away", "mine"],
    "handler": ["pg_catalog.now()"],
    "role": ["public"],
    "privilege": ["work", "enqueue", "listen"],
    "relation": ["{v}.watched", "{v}.bare", "pg_catalog.pg_class", "pg_catalog.pg_authid"],
    "name": ["{v}_sub", "{v}_news", "mine"],
    "channel": ["{v}_own", "{v}_news", "mine"],
    "channels": ["{{{v}_own,{v}_news}}"],
    "subject": ["ann"], "valid": ["1 s"], "ticket": ["t_1"], "sockets": ["[]"], "rooms": ["[]"], "in_all": ['{{"open": {{}}, "rooms": 0}}'],
    "channel_name": ["{v}_own"],
    "cursor": ["1000000001-1-1"],
    "after": ["1000000001-1-1"],
    "topics": ["{{a/*}}"], "topic": ["a"],
    "force": ["true"],
    "paused": ["true"],
    "fraction": ["0.5"],
    "args": ["{{}}"],
    "timeout": ["1 ms"],
    "token": ["00000000-0000-0000-0000-000000000000"],
    "outcomes": ['[{{"job_id": 3, "token": "00000000-0000-0000-0000-000000000000", "outcome": "complete"}}]'],
    "message": ["x"], "state": ["1"], "delay": ["1 s"],
    "worker": ["w"], "lease": ["1 s"],
    "unique_key": ["taken"],
    "watch_id": ["1"],
    "new_name": ["renamed"], "triggers": ["{{1}}"], "fingerprint": ["x"], "queue_id": ["1", "2"],
    "owner": ["10"], "w": ["(1,,1259,x,x,x,,10,x,c,{{insert}},,,key,,row,,,,,,f,f,1,1,1,{{1}},,{{x}},x,2026-01-01,2026-01-01,)"], "has_lost": ["true", "false"],
    "queue_fix": ["x"], "no_relay": ["x"], "relay_fix": ["x"], "relay_can_come": ["true"],
    "home_system": ["1"], "home_database": ["1"], "home_extension": ["1"],
}


def calls(db, victim: str, jobs: list[int]) -> list[str]:
    """With each combination of what must be said, then with each thing more that can be."""
    tables = [name for name, in db.rows(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND relkind = 'r' ORDER BY relname")]
    found = []
    for oid, name, kind, names, types, defaults in db.rows("""
            SELECT oid, format('%%I.%%I', pronamespace::regnamespace, proname), prokind, coalesce(proargnames, '{}')::text[], proargtypes::regtype[]::text[], pronargdefaults FROM pg_proc
             WHERE pronamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND prorettype <> 'trigger'::regtype ORDER BY oid::regprocedure::text"""):
        names = names[:len(types)]

        def said(argument: str, type_: str) -> list[str]:
            if argument in ("id", "job_id"):
                values = [str(job) for job in jobs]
            elif argument == "relation" and type_ == "oid":
                values = ["1259"]
            else:
                values = [value.format(v=victim) for value in SAID.get(argument, [])]
            if argument == "relation" and type_ == "regclass":
                values += tables
            return [f"{argument} => '{value}'::{type_}" for value in values]

        must = [said(*pair) for pair in list(zip(names, types))[:len(types) - defaults]]
        assert all(must), f"what to say to {name}? add its arguments {names} to SAID"
        ways = [list(way) for way in itertools.product(*must)]
        for argument, type_ in list(zip(names, types))[len(types) - defaults:]:
            ways += [[*way, more] for way in itertools.product(*must) for more in said(argument, type_)]
        found += [f"{'CALL' if kind == 'p' else 'SELECT'} {name}({', '.join(way)})" for way in ways]
    return found


@pytest.fixture
def two(db, role):
    """A stranger's session, and every call of hers; the victim has something of each kind."""
    victim, stranger = role(), role()
    v = "v"
    db.sql(f"CREATE SCHEMA v AUTHORIZATION {victim}; GRANT USAGE ON SCHEMA v, pushy_internal TO PUBLIC; CREATE EXTENSION pgrowlocks")
    with db.connect(user=victim) as session:
        for statement in (
            "CREATE FUNCTION v.f() RETURNS void LANGUAGE sql AS ''",
            *(f"SELECT pushy.queue_register('v_{q}', 'v.f()'), pushy.queue_pause('v_{q}')" for q in ("q", "away")),
            "SELECT pushy.enqueue('v_away')",
            "CREATE TABLE v.watched (n int PRIMARY KEY); CREATE TABLE v.bare (n int)",
            "SELECT pushy.watch('v.watched', channel => 'v_news')",
            "SELECT pushy.channel_grant('v_own', 'public'), pushy.subscription_create('v_sub', '{v_own,v_news}')",
        ):
            session.execute(statement)
        ids = [session.execute(statement).fetchone()[0] for statement in (
            "SELECT pushy.enqueue('v_q', unique_key => 'taken')", "SELECT pushy.enqueue('v_q', delay => '1 hour')",
            "SELECT pushy.enqueue('v_q')")]
        session.execute("SELECT pushy.job_cancel(%s)", [ids[-1]])
    # As a restore leaves them.
    db.sql("UPDATE pushy_internal.queue SET home_database = 1 WHERE queue = 'v_away'")
    return db.connect(user=stranger), calls(db, v, [*ids, 999_999])


def test_a_stranger_waits_for_nothing_that_its_owner_uses(db, two):
    """Each row is locked and each table is written meanwhile: whoever waits in line stops all who come later."""
    stranger, all_calls = two
    holder = db.connect(autocommit=False)
    for table, in holder.execute("SELECT oid::regclass FROM pg_class WHERE relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND relkind = 'r'").fetchall():
        holder.execute(f"SELECT FROM ONLY {table} FOR UPDATE")
    holder.execute("LOCK TABLE v.watched, v.bare IN ROW EXCLUSIVE MODE")
    holder.execute("SELECT * FROM pushy.subscription_read('v_sub')")
    stranger.execute("SET lock_timeout = '50 ms'; SET statement_timeout = '30 s'")
    waited = []
    for call in all_calls:
        try:
            stranger.execute(call)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
            waited.append(f"{call}: {error}")
        except psycopg.Error:
            pass
    assert waited == []


HARMLESS = ("AccessShareLock", "RowShareLock", "RowExclusiveLock")


def test_a_stranger_comes_to_hold_nothing(db, two):
    """Also where the call fails and the transaction goes on."""
    stranger, all_calls = two
    stranger.autocommit = False
    pid = stranger.info.backend_pid
    tables = [name for name, in db.rows(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND relkind = 'r'")]
    rows = " UNION ALL ".join(f"SELECT '{table}', modes::text FROM pgrowlocks('{table}') WHERE {pid} = ANY (pids)" for table in tables)
    # What is counted per role is counted under a lock of the caller's own.
    own = f"(classid = 'pg_authid'::regclass AND objid = '{stranger.info.user}'::regrole) IS TRUE"
    held_tables = f"""SELECT coalesce(relation::regclass::text, classid::regclass::text), mode FROM pg_locks
                       WHERE pid = {pid} AND locktype IN ('relation', 'object') AND mode <> ALL (%s) AND NOT {own}"""
    held = []
    for call in all_calls:
        stranger.execute("SAVEPOINT s")
        try:
            stranger.execute(call)
        except psycopg.Error:
            stranger.execute("ROLLBACK TO s")
        found = db.rows(rows) + db.rows(held_tables, list(HARMLESS))
        if found:
            held.append((call, found))
        stranger.rollback()
    assert held == []
