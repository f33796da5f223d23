"""A database of an earlier version that holds something of everything is updated, and goes on: what was there is as it was.

What 0.1.0 would have written is written by this version, where that can hold it too, and put into the tables of the archived script."""

import json
import os

import psycopg
import pytest

from harness.cluster import Cluster
from stage import versions
from stage.loads import promise

OLD = "0.1.0"


@pytest.fixture
def server(scratch):
    installed = versions.installation(scratch / f"u{os.getpid()}")
    cluster = Cluster(installed.root.with_name(f"{installed.root.name}.c"), installed, {"pushy.max_executors": 4})
    yield cluster.create(scratch / "t" / "data").start()
    cluster.remove()


DEPLOY = """
    CREATE ROLE tenant LOGIN; CREATE ROLE clerk LOGIN; GRANT USAGE ON SCHEMA pushy TO tenant, clerk;
    CREATE TABLE ran (n int); CREATE TABLE goods (id int PRIMARY KEY, v text); GRANT ALL ON ran TO tenant;
    CREATE FUNCTION note(args jsonb) RETURNS jsonb LANGUAGE sql AS $$INSERT INTO public.ran VALUES ((args ->> 'n')::int) RETURNING to_jsonb(n)$$;
    CREATE FUNCTION fails(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no %', args; END$$;
    CREATE FUNCTION later() RETURNS void LANGUAGE sql AS '';
    SELECT pushy.queue_register('plain', 'note(jsonb)'), pushy.queue_register('fails', 'fails(jsonb)', retry_delay => '1 day'),
           pushy.queue_register('once', 'fails(jsonb)', max_attempts => 1), pushy.queue_register('lost', 'later()'), pushy.queue_register('held', 'note(jsonb)'),
           pushy.queue_register('opted', 'note(jsonb)', run_as => 'tenant', concurrency => 2, priority => 3, max_attempts => 3, backoff => 'linear', retry_delay => '2 s',
                                max_retry_delay => '1 minute', timeout => '10 s', keep_completed => '2 hours', keep_discarded => '5 days', batch => false);
    SELECT pushy.queue_pause('held'), pushy.queue_grant('plain', 'clerk', 'enqueue'), pushy.queue_grant('held', 'clerk', 'monitor'), pushy.channel_grant('secret', 'clerk');
    SELECT pushy.watch('goods', 'c', name => 'told', payload => 'row'), pushy.watch('goods', queue => 'plain', args_expr => 'jsonb_build_object(''n'', NEW.id)', name => 'done'),
           pushy.watch('goods', 'never', name => 'paused');
    SELECT pushy.watch_pause('goods', 'paused');
    SELECT pushy.subscription_create('reader', '{c}'), pushy.subscription_create('idle', '{c}'), pushy.subscription_create('feeder', '{fed}', queue => 'plain')"""


def enqueue(db, queue: str, n: int, **options) -> int:
    said = "".join(f", {name} => '{value}'" for name, value in options.items())
    return db.value(f"SELECT pushy.enqueue(%s, %s{said})", queue, json.dumps({"n": n}))


def fill(db) -> dict[str, int]:
    db.sql(DEPLOY)
    jobs = {}
    for n, queue in enumerate(("plain", "opted", "fails", "once")):
        jobs[queue] = enqueue(db, queue, n)
    db.wait_until("SELECT array_agg(state ORDER BY id) FROM pushy.jobs", ["completed", "completed", "retryable", "discarded"])
    db.sql("INSERT INTO goods VALUES (100, 'a'), (101, 'b')")
    db.jobs_wait("plain")
    db.wait_until("SELECT count(*) FROM pushy.subscription_read('reader')", 2)
    db.sql("SELECT pushy.subscription_ack('reader', (SELECT cursor FROM pushy.subscription_read('reader', 1)))")
    jobs["free"] = enqueue(db, "held", 10)
    jobs["keyed"] = enqueue(db, "held", 11, unique_key="k", priority=1)
    jobs["promised"] = enqueue(db, "held", 12)
    promise(db, jobs["promised"])
    jobs["scheduled"] = enqueue(db, "held", 13, delay="1 day", timeout="1 s", max_attempts=7)
    jobs["cancelled"] = enqueue(db, "held", 14)
    db.sql("SELECT pushy.job_cancel(%s)", jobs["cancelled"])
    # Its queue is parked.
    db.sql("DROP FUNCTION later()")
    jobs["lost"] = enqueue(db, "lost", 15)
    db.wait_until("SELECT parked IS NOT NULL FROM pushy.queues WHERE queue = 'lost'")
    return jobs


# Of the triggers of a watch, as src/watch/declare/trigger_words.rs has it.
FINGERPRINT = """
    SELECT encode(sha256(convert_to(coalesce(string_agg(ROW(t.oid, t.tgfoid, t.tgtype, t.tgisinternal, t.tgparentid, t.tgconstraint, t.tgdeferrable, t.tginitdeferred,
                  t.tgattr, encode(t.tgargs, 'hex'), t.tgqual::text, t.tgoldtable, t.tgnewtable)::text, ' ' ORDER BY t.oid), ''), getdatabaseencoding())), 'hex')
      FROM pg_catalog.pg_trigger t WHERE t.tgrelid = w.relation AND t.oid = ANY (w.triggers)"""


def become(db, server: Cluster) -> None:
    """The database is one of the old version, with all that it holds."""
    old = server.database(extension=False)
    versions.put_script(server.installation, OLD, versions.script(OLD))
    old.sql(f"CREATE EXTENSION pushy VERSION '{OLD}'")
    columns = old.rows("""SELECT c.relname, string_agg(quote_ident(a.attname), ', ') FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0
                          WHERE relnamespace = 'pushy_internal'::regnamespace AND relkind = 'r' AND relname NOT IN ('home', 'passed_over') GROUP BY 1 ORDER BY 1""")
    sequences = [name for name, in old.rows("SELECT relname FROM pg_class WHERE relnamespace = 'pushy_internal'::regnamespace AND relkind = 'S'")]
    old.drop()
    script = versions.script(OLD)
    for table, names in columns:
        script += f"DELETE FROM ONLY pushy_internal.{table};\n"
        rows = db.value(f"SELECT jsonb_agg(t) FROM ONLY pushy_internal.{table} t")
        if rows:
            said = db.value("SELECT quote_literal(%s::jsonb::text)", json.dumps(rows))
            script += f"INSERT INTO pushy_internal.{table} ({names}) SELECT {names} FROM pg_catalog.jsonb_populate_recordset(NULL::pushy_internal.{table}, {said});\n"
    for table in ("watch", "subscription"):
        script += f"UPDATE pushy_internal.{table} SET home_extension = (SELECT oid FROM pg_catalog.pg_extension WHERE extname = 'pushy');\n"
        # As a queue is held there that was dropped and registered again.
        script += f"UPDATE pushy_internal.{table} SET queue_id = (SELECT max(q.queue_id) + 7 FROM pushy_internal.queue q) WHERE queue IS NOT NULL;\n"
    for name in sequences:
        value, is_called = db.rows(f"SELECT last_value, is_called FROM pushy_internal.{name}")[0]
        script += f"SELECT pg_catalog.setval('pushy_internal.{name}', {value}, {is_called});\n"
    for trigger, in db.rows("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'goods'::regclass AND NOT tgisinternal ORDER BY 1"):
        script += f"{trigger};\n"
    # Watches know their triggers by number.
    number = "(SELECT t.oid FROM pg_catalog.pg_trigger t WHERE t.tgrelid = 'public.goods'::pg_catalog.regclass AND t.tgname = {})"
    for watch, names, expression in db.rows("""
            SELECT w.token::text, ARRAY(SELECT tgname::text FROM pg_trigger t JOIN unnest(w.triggers) WITH ORDINALITY u (id, at) ON t.oid = id ORDER BY at),
                   (SELECT tgname::text FROM pg_trigger t WHERE t.oid = w.expression_trigger) FROM pushy_internal.watch w"""):
        numbers = ", ".join(number.format(f"'{name}'") for name in names)
        script += (f"UPDATE pushy_internal.watch SET triggers = ARRAY[{numbers}], "
                   f"expression_trigger = {number.format(repr(expression)) if expression else 'NULL'} WHERE token = '{watch}';\n")
    script += f"UPDATE pushy_internal.watch w SET fingerprint = ({FINGERPRINT});\n"
    db.sql("DROP EXTENSION pushy CASCADE")
    # Nothing in memory knows of what was there.
    server.restart()
    versions.put_script(server.installation, OLD, script)
    db.sql(f"CREATE EXTENSION pushy VERSION '{OLD}'; GRANT USAGE ON SCHEMA pushy TO tenant, clerk")


VIEWS = ("queues", "jobs", "failures", "watches", "subscriptions", "queue_grants", "channel_grants", "log")


def shown(db) -> dict[str, list]:
    return {view: db.rows(f"SELECT to_jsonb(v) - 'lag' FROM pushy.{view} v ORDER BY 1") for view in VIEWS}


def test_a_database_with_everything_in_it_is_updated_and_goes_on(server):
    db = server.database("shop")
    jobs = fill(db)
    server.configure(pushy__enabled=False).restart()
    before = shown(db)
    assert {row["state"] for row, in before["jobs"]} == {"available", "scheduled", "retryable", "completed", "discarded", "cancelled"}
    assert all(before.values())
    become(db, server)
    server.configure(pushy__enabled=True).restart()
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="does not work with script 0.1.0"):
        db.sql("SELECT pushy.enqueue('plain')")

    # What is prepared holds the tables, and the update says so while it waits.
    with db.connect(autocommit=False) as session:
        session.execute("LOCK TABLE pushy_internal.live_job IN ROW EXCLUSIVE MODE")
        session.execute("PREPARE TRANSACTION 'over the update'")
    said = []
    with db.connect() as session:
        session.add_notice_handler(lambda diag: said.append(diag.message_primary))
        session.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            session.execute("ALTER EXTENSION pushy UPDATE")
    assert said == ["the script of extension pushy waits for prepared transaction 'over the update', which has used table pushy_internal.live_job"]
    db.sql("COMMIT PREPARED 'over the update'")

    server.configure(pushy__enabled=False).restart()
    db.sql("ALTER EXTENSION pushy UPDATE")
    after = shown(db)
    changed = [(view, key, was.get(key), row.get(key)) for view in VIEWS for (was,), (row,) in zip(before[view], after[view]) for key in was.keys() | row.keys()
               if was.get(key) != row.get(key)]
    assert changed == [] and {view: len(rows) for view, rows in before.items()} == {view: len(rows) for view, rows in after.items()}
    server.configure(pushy__enabled=True).restart()

    # What waited.
    assert db.value("SELECT pushy.enqueue('held', unique_key => 'k')") == jobs["keyed"]
    db.sql("SELECT pushy.queue_resume('held'), pushy.job_retry(%s)", jobs["fails"])
    assert db.job_wait(jobs["free"])["state"] == db.job_wait(jobs["keyed"])["state"] == "completed"
    assert db.job_wait(jobs["promised"])["state"] == "cancelled"
    db.wait_until("SELECT array_agg(attempt ORDER BY attempt) FROM pushy.failures WHERE job_id = %s", [1, 2], params=(jobs["fails"],))
    scheduled = db.job(jobs["scheduled"])
    assert (scheduled["state"], scheduled["max_attempts"]) == ("scheduled", 7)
    db.sql("SELECT pushy.job_retry(%s)", jobs["scheduled"])
    assert db.job_wait(jobs["scheduled"])["state"] == "completed"
    db.sql("CREATE FUNCTION later() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_resume('lost')")
    assert db.job_wait(jobs["lost"])["state"] == "completed"
    assert db.job_wait(enqueue(db, "opted", 20))["state"] == "completed"
    # The watches and the log.
    db.sql("INSERT INTO goods VALUES (102, 'c')")
    db.wait_until("SELECT count(*) FROM ran WHERE n = 102", 1)
    for name, ids in {"reader": [101, 102], "idle": [100, 101, 102]}.items():
        db.wait_until("SELECT array_agg((payload::jsonb -> 'new' ->> 'id')::int ORDER BY cursor) FROM pushy.subscription_read(%s)", ids, params=(name,))
    db.sql("SELECT pushy.notify('fed', 'x', delivery => 'relay')")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE queue = 'plain' AND args ->> 'payload' = 'x'", 1)
    # Rights.
    with db.connect("clerk") as clerk:
        assert clerk.execute("SELECT pushy.enqueue('plain', '{\"n\": 21}') > %s", (max(jobs.values()),)).fetchone() == (True,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            clerk.execute("SELECT pushy.enqueue('held')")
        assert clerk.execute("SELECT count(*) FROM pushy.jobs WHERE queue = 'held'").fetchone()[0] >= 4
    # What is new.
    db.sql("SELECT pushy.queue_register('outside'), pushy.queue_grant('outside', 'clerk', 'claim'), pushy.enqueue('outside', '1')")
    with db.connect("clerk") as clerk:
        job, token = clerk.execute("SELECT job_id, token FROM pushy.job_claim('outside')").fetchone()
        assert clerk.execute("SELECT pushy.job_log('begun', 'info', %s, %s), pushy.job_complete(%s, %s)", (job, token, job, token)).fetchone() == (True, True)
    db.sql("""CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$BEGIN PERFORM pushy.job_checkpoint('1'); COMMIT; END$$; SELECT pushy.queue_alter('plain', handler => 'steps()')""")
    assert db.job_wait(enqueue(db, "plain", 22))["state"] == "completed"
