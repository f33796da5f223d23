"""A job has the rights of its queue's role and no way to more: every test is an attack that fails."""

import psycopg
import pytest

from stage.life import LEDGER, run

# What a handler may try to be more than its role.
ESCAPES = [
    "RESET ROLE", "RESET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION DEFAULT", "SET SESSION AUTHORIZATION postgres",
    "SET ROLE postgres", "SET ROLE NONE", "SET LOCAL ROLE NONE", "SELECT set_config('role', 'postgres', false)",
    "SELECT set_config('session_authorization', 'postgres', false)", "SELECT set_config('is_superuser', 'on', false)",
    "UPDATE pushy_internal.queue SET run_as = 10", "INSERT INTO pushy_internal.queue_acl VALUES (1, 0, 'public', 'work')",
    "SELECT pushy.queue_alter(queue => 'admin', handler => 'steal()')", "SELECT pushy.queue_run('admin')",
    "COPY (SELECT 1) TO PROGRAM 'true'", "ALTER SYSTEM SET pushy.enabled = off", "LOAD 'pushy'",
]


@pytest.fixture
def tenant(db, role):
    """A role with a schema of its own, a queue of a superuser beside it, and a ledger of who ran what."""
    name = role()
    db.sql(LEDGER)
    db.sql(f"""
        CREATE TABLE secret (n int); INSERT INTO secret VALUES (42);
        CREATE TABLE seen (who name, session name, super text, what text); GRANT INSERT, SELECT ON seen TO {name};
        CREATE SCHEMA mine AUTHORIZATION {name};
        CREATE FUNCTION harmless() RETURNS void LANGUAGE sql AS 'SELECT';
        REVOKE EXECUTE ON FUNCTION harmless() FROM PUBLIC;
        SELECT pushy.queue_register('admin', 'harmless()')""")
    db.tenant = name
    db.as_tenant = db.connect(user=name)
    return db


def look(what):
    return f"INSERT INTO public.seen VALUES (current_user, session_user, current_setting('is_superuser'), '{what}')"


def only_the_tenant_was_seen(db, *whats):
    rows = db.rows("SELECT who, session, super, what FROM seen ORDER BY what")
    assert rows == [(db.tenant, db.tenant, "off", what) for what in sorted(whats)], rows


@pytest.mark.parametrize("attempt", ESCAPES)
def test_a_handler_stays_its_role(tenant, attempt):
    tenant.as_tenant.execute(f"""
        CREATE FUNCTION mine.attack() RETURNS void LANGUAGE plpgsql AS $body$
        BEGIN
            BEGIN EXECUTE $try${attempt}$try$; EXCEPTION WHEN OTHERS THEN NULL; END;
            {look('after')};
            BEGIN PERFORM n FROM public.secret; {look('SECRET READ')}; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
        END$body$;
        SELECT pushy.queue_register('q', 'mine.attack()')""")
    run(tenant)
    only_the_tenant_was_seen(tenant, "after")
    assert tenant.value("SELECT rolsuper FROM pg_roles WHERE rolname = %s", tenant.tenant) is False
    assert tenant.value("SELECT handler FROM pushy_internal.queue WHERE queue = 'admin'") == "public.harmless()"


def test_a_deferred_trigger_at_commit_runs_as_the_role(tenant):
    """It fires after the bookkeeping, which has the rights of the extension's owner."""
    tenant.as_tenant.execute(f"""
        CREATE TABLE mine.t (n int);
        CREATE FUNCTION mine.late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {look('deferred')}; RETURN NULL; END$$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON mine.t DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION mine.late();
        CREATE FUNCTION mine.attack() RETURNS void LANGUAGE sql AS 'INSERT INTO mine.t VALUES (1)';
        SELECT pushy.queue_register('q', 'mine.attack()')""")
    run(tenant)
    only_the_tenant_was_seen(tenant, "deferred")


def test_a_cursor_with_hold_does_not_run_with_more_rights_at_commit(tenant):
    tenant.as_tenant.execute(f"""
        CREATE FUNCTION mine.volatile_one() RETURNS int LANGUAGE plpgsql AS $$BEGIN {look('held')}; RETURN 1; END$$;
        CREATE FUNCTION mine.attack() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT mine.volatile_one() FROM generate_series(1, 3)';
            {look('body')};
        END$$;
        SELECT pushy.queue_register('q', 'mine.attack()')""")
    run(tenant)
    assert {row[:3] for row in tenant.rows("SELECT who, session, super FROM seen")} == {(tenant.tenant, tenant.tenant, "off")}


def test_an_event_trigger_of_a_superuser_sees_the_role_and_nobody_else(tenant):
    tenant.sql(f"""
        CREATE FUNCTION watches() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN {look('event')}; END$$;
        CREATE EVENT TRIGGER watches ON ddl_command_end EXECUTE FUNCTION watches()""")
    tenant.as_tenant.execute("CREATE FUNCTION mine.attack() RETURNS void LANGUAGE sql AS 'CREATE TEMP TABLE x ()'")
    tenant.sql("TRUNCATE seen")
    tenant.as_tenant.execute("SELECT pushy.queue_register('q', 'mine.attack()')")
    run(tenant)
    assert {row[:3] for row in tenant.rows("SELECT who, session, super FROM seen")} == {(tenant.tenant, tenant.tenant, "off")}


def test_a_result_type_of_the_tenant_is_converted_with_the_tenants_rights(tenant):
    """to_jsonb calls a cast to json if there is one; an enum, a domain and a composite go through their output functions."""
    tenant.as_tenant.execute(f"""
        CREATE TYPE mine.pair AS (a int, b int);
        CREATE FUNCTION mine.to_json(mine.pair) RETURNS json LANGUAGE plpgsql AS $$BEGIN {look('cast')}; RETURN '1'; END$$;
        CREATE CAST (mine.pair AS json) WITH FUNCTION mine.to_json(mine.pair);
        CREATE FUNCTION mine.is_fine(int) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN {look('domain')}; RETURN true; END$$;
        CREATE DOMAIN mine.checked AS int CHECK (mine.is_fine(VALUE));
        CREATE FUNCTION mine.pairs() RETURNS mine.pair LANGUAGE sql AS 'SELECT ROW(1, 2)::mine.pair';
        CREATE FUNCTION mine.checks() RETURNS mine.checked LANGUAGE sql AS 'SELECT 1::mine.checked';
        SELECT pushy.queue_register('pairs', 'mine.pairs()'), pushy.queue_register('checks', 'mine.checks()')""")
    run(tenant, "pairs")
    run(tenant, "checks")
    assert {row[:3] for row in tenant.rows("SELECT who, session, super FROM seen")} == {(tenant.tenant, tenant.tenant, "off")}


# -- names planted in a search_path ------------------------------------------------------------------------------

PLANT = """
    CREATE FUNCTION {schema}.spy(what text) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        IF current_user <> '{tenant}' OR current_setting('is_superuser') = 'on' THEN
            INSERT INTO public.seen VALUES (current_user, session_user, current_setting('is_superuser'), what);
        END IF;
        RETURN true;
    END$$;
    CREATE FUNCTION {schema}.count(bigint) RETURNS bigint LANGUAGE sql AS $$SELECT 1 WHERE {schema}.spy('count')$$;
    CREATE FUNCTION {schema}.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT pg_catalog.now() WHERE {schema}.spy('now')$$;
    CREATE FUNCTION {schema}.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$SELECT pg_catalog.now() WHERE {schema}.spy('clock')$$;
    CREATE FUNCTION {schema}.unnest(bigint[]) RETURNS SETOF bigint LANGUAGE sql AS $$SELECT 1::bigint WHERE {schema}.spy('unnest')$$;
    CREATE FUNCTION {schema}.nextval(regclass) RETURNS bigint LANGUAGE sql AS $$SELECT 1::bigint WHERE {schema}.spy('nextval')$$;
    CREATE FUNCTION {schema}.quote_ident(name) RETURNS text LANGUAGE sql AS $$SELECT 'postgres' WHERE {schema}.spy('quote_ident')$$;
    CREATE FUNCTION {schema}.same(int, int) RETURNS boolean LANGUAGE sql AS $$SELECT {schema}.spy('=')$$;
    CREATE FUNCTION {schema}.same8(bigint, bigint) RETURNS boolean LANGUAGE sql AS $$SELECT {schema}.spy('=')$$;
    CREATE FUNCTION {schema}.samet(text, text) RETURNS boolean LANGUAGE sql AS $$SELECT {schema}.spy('=')$$;
    CREATE OPERATOR {schema}.= (LEFTARG = int, RIGHTARG = int, FUNCTION = {schema}.same);
    CREATE OPERATOR {schema}.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = {schema}.same8);
    CREATE OPERATOR {schema}.>= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = {schema}.same8);
    CREATE OPERATOR {schema}.<= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = {schema}.same8);
    CREATE OPERATOR {schema}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = {schema}.samet);
    CREATE TABLE {schema}.live_job (id bigint); CREATE TABLE {schema}.queue (queue text);
    CREATE DOMAIN {schema}.jsonb AS text; CREATE DOMAIN {schema}.int8 AS text; CREATE DOMAIN {schema}.regrole AS text
"""

PATHS = ["mine, pg_catalog, public", "pg_temp, mine, pg_catalog, public"]


@pytest.mark.parametrize("path", PATHS)
def test_names_planted_before_pg_catalog_never_run_with_more_rights(tenant, path):
    """Set for the queue's role by ALTER ROLE, so for its executor, and for a superuser's own session."""
    tenant.as_tenant.execute(PLANT.format(schema="mine", tenant=tenant.tenant))
    tenant.sql(f"GRANT INSERT ON seen TO PUBLIC; ALTER ROLE {tenant.tenant} SET search_path = {path}")
    with tenant.connect(user=tenant.tenant) as session:
        session.execute("CREATE FUNCTION mine.work(pg_catalog.jsonb) RETURNS pg_catalog.jsonb LANGUAGE sql AS 'SELECT $1'")
        session.execute("SELECT pushy.queue_register('q', 'mine.work(pg_catalog.jsonb)'), pushy.queue_grant('q', 'public', 'monitor')")
    with tenant.connect() as victim:
        victim.execute(f"SET search_path = {path}")
        job, later = victim.execute("SELECT pushy.enqueue('q', '1'), pushy.enqueue('q', '2', delay => '10 ms')").fetchone()
        victim.execute("SELECT pushy.enqueue_many('q', '{1,2}'::pg_catalog.jsonb[])")
        victim.execute(f"SELECT pushy.job_wait({job}), pushy.job_wait({later})")
        victim.execute("CALL pushy.jobs_wait('q')")
        for view in ("queues", "jobs", "failures", "workers", "stats"):
            victim.execute(f"SELECT * FROM pushy.{view}")
        victim.execute("SELECT * FROM pushy.queue_explain('q')")
        cancelled = victim.execute("SELECT pushy.enqueue('q', delay => '1 hour')").fetchone()[0]
        victim.execute(f"SELECT pushy.job_cancel({cancelled}), pushy.job_retry({cancelled})")
        victim.execute("SELECT pushy.queue_pause('q'), pushy.queue_alter('q', max_attempts => 3), pushy.queue_resume('q'), "
                       "pushy.has_queue_privilege('q', 'enqueue'), pushy.channel_name('x')")
        victim.execute("CALL pushy.jobs_wait('q')")
        victim.execute("SELECT name, resumed, reason FROM pushy.resume_after_restore()")
        victim.execute("SELECT pushy.queue_drop('q')")
    assert tenant.rows("SELECT * FROM seen") == []


def test_a_planted_schema_of_the_same_name_is_not_the_extensions(tenant, role):
    """Before CREATE EXTENSION: objects of others in a schema pushy would be found by its functions."""
    planter = role()
    tenant.sql(f"DROP EXTENSION pushy; CREATE SCHEMA pushy AUTHORIZATION {planter}")
    with tenant.connect(user=planter) as session:
        session.execute("CREATE TABLE pushy.queue (queue text); CREATE FUNCTION pushy.enqueue(text) RETURNS bigint LANGUAGE sql AS 'SELECT 1'")
    with pytest.raises(psycopg.Error):
        tenant.sql("CREATE EXTENSION pushy")
    assert tenant.value("SELECT count(*) FROM pg_extension WHERE extname = 'pushy'") == 0


# -- two who must not reach each other ---------------------------------------------------------------------------

@pytest.mark.parametrize("privilege", ["TRIGGER", "REFERENCES", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "SELECT"])
def test_no_table_of_pushys_can_be_touched(tenant, privilege):
    assert tenant.rows("SELECT oid::regclass::text FROM pg_class WHERE relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND relkind = 'r' "
                       "AND has_table_privilege(%s, oid, %s)", tenant.tenant, privilege) == []


def test_a_trigger_or_a_foreign_key_on_a_table_of_pushys_is_refused(tenant):
    tenant.as_tenant.execute("CREATE FUNCTION mine.spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    for statement in ("CREATE TRIGGER spy BEFORE INSERT ON pushy_internal.live_job FOR EACH ROW EXECUTE FUNCTION mine.spy()",
                      "CREATE TABLE mine.child (id bigint REFERENCES pushy_internal.live_job)",
                      "CREATE RULE spy AS ON INSERT TO pushy_internal.queue DO NOTHING",
                      "CREATE POLICY spy ON pushy_internal.queue USING (true)",
                      "CREATE INDEX ON pushy_internal.live_job ((mine.spy()))",
                      "ALTER TABLE pushy_internal.live_job ADD COLUMN x int",
                      "CREATE TABLE mine.heir () INHERITS (pushy_internal.live_job)",
                      "DO 'BEGIN LOCK TABLE pushy_internal.live_job; END'", "CREATE FUNCTION pushy.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            tenant.as_tenant.execute(statement)


def test_the_log_and_the_activity_show_no_arguments_and_no_errors_of_jobs(make_cluster):
    cluster = make_cluster({"log_statement": "all", "log_min_messages": "info", "log_min_error_statement": "info",
                            "log_min_duration_statement": 0, "log_parameter_max_length_on_error": -1})
    db = cluster.database()
    db.sql("""
        CREATE FUNCTION fails(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'failed: %', args; END$$;
        CREATE FUNCTION tells(args jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT args';
        SELECT pushy.queue_register('f', 'fails(jsonb)', max_attempts => 2, retry_delay => '1 ms'), pushy.queue_register('t', 'tells(jsonb)');
        CREATE TABLE args AS SELECT to_jsonb('pass' || 'word_of_' || queue) a, queue FROM unnest('{f,t}'::text[]) queue""")
    db.sql("SELECT pushy.enqueue(queue, a) FROM args")
    db.jobs_wait("f")
    db.jobs_wait("t")
    log = cluster.log.since()
    assert db.value("SELECT count(*) FROM pushy.failures WHERE message LIKE '%password_of_f%'") == 2
    assert db.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%' || 'password_' || 'of%'") == 0
    assert "password_of_" not in log


# -- one's flood, another's job ----------------------------------------------------------------------------------

@pytest.mark.parametrize("executors", [1, 2])
def test_a_flood_does_not_starve_another_role(make_cluster, executors):
    cluster = make_cluster({"pushy.max_executors": executors})
    db = cluster.database()
    db.sql("CREATE ROLE flooder LOGIN; CREATE ROLE other LOGIN; CREATE FUNCTION spin() RETURNS void LANGUAGE sql AS "
           "'SELECT count(*) FROM generate_series(1, 20000)'; CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT'")
    with db.connect(user="flooder") as flood, db.connect(user="other") as other:
        flood.execute("SELECT pushy.queue_register('flood', 'spin()')")
        other.execute("SELECT pushy.queue_register('q', 'work()')")
        flood.execute("SELECT count(*) FROM pushy.enqueue_many('flood', array_fill('1'::jsonb, '{20000}'))")
        db.wait_until("SELECT completed > 0 FROM pushy.stats WHERE queue = 'flood'")
        for _ in range(3):
            job = other.execute("SELECT pushy.enqueue('q')").fetchone()[0]
            done = db.job_wait(job)
            assert (done["started_at"] - done["run_at"]).total_seconds() < 3, done
        assert db.value("SELECT count(*) FROM pushy_internal.live_job") > 0, "the flood is still there"
        flood.execute("SELECT pushy.queue_drop('flood', force => true)")


def test_default_privileges_of_the_installer_give_nobody_anything_of_pushys(db, role):
    tenant = role()
    db.sql(f"""
        DROP EXTENSION pushy;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {tenant};
        ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO {tenant};
        ALTER DEFAULT PRIVILEGES GRANT ALL ON ROUTINES TO {tenant};
        ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO {tenant};
        CREATE EXTENSION pushy""")
    given = db.rows("""
        SELECT o.name, a.privilege_type
          FROM (SELECT c.relname::text AS name, c.relacl AS acl FROM pg_class c WHERE c.relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[])
                UNION ALL SELECT p.proname, p.proacl FROM pg_proc p WHERE p.pronamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[])
                UNION ALL SELECT 'job', t.typacl FROM pg_type t WHERE t.oid = 'pushy.job'::regtype) o, aclexplode(o.acl) a
         WHERE a.grantee = %s::regrole""", tenant)
    assert given == []
    db.sql(f"DROP OWNED BY {tenant}")


def test_nobody_puts_a_trigger_on_a_table_of_pushys_whatever_was_granted(db, role):
    """It would run with the rights of the tables' owner."""
    tenant = role()
    db.sql(f"CREATE SCHEMA s AUTHORIZATION {tenant}; GRANT ALL ON ALL TABLES IN SCHEMA pushy, pushy_internal TO {tenant}")
    with db.connect(user=tenant) as session:
        session.execute("CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        tables = [name for name, in db.rows("SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[])")]
        for table in tables:
            for kind in ("TRIGGER a AFTER INSERT", "CONSTRAINT TRIGGER b AFTER UPDATE"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(f"CREATE {kind} ON {table} FOR EACH ROW EXECUTE FUNCTION s.f()")
    db.sql(f"DROP OWNED BY {tenant} CASCADE")
