"""The extension as an installed thing: documented, closed to the public, gone without a trace, dumped and restored."""

import re

import psycopg
import pytest

from harness.installation import REPOSITORY

SCHEMAS = ("pushy", "pushy_internal")
# Schema pushy. A function that is added has to be added here.
FUNCTIONS = {
    "channel_grant", "channel_ident", "channel_inspect", "channel_name", "channel_revoke", "current_job", "enqueue", "enqueue_many", "has_queue_privilege",
    "job_claim", "job_claim_wait", "job_complete", "job_extend", "job_fail", "job_release", "jobs_settle", "queue_channel",
    "job_cancel", "job_checkpoint", "job_discard", "job_log", "job_progress", "job_retry", "job_retry_in", "job_snooze", "job_trace", "job_wait", "jobs_wait", "log_position", "notify", "queue_alter", "queue_drop",
    "queue_explain", "queue_grant", "queue_pause", "queue_register", "queue_rename", "queue_resume", "queue_revoke", "queue_run",
    "notice", "resume_after_restore", "subscription_ack", "subscription_create", "subscription_drop",
    "subscription_read", "subscription_wait", "unwatch", "version", "watch", "watch_pause", "watch_resume",
    # Whoever declares a watch, or restores a dump of the table, must find and be allowed to execute what its triggers call.
    "watch_row", "watch_statement",
    "gateway_explain", "metrics", "presence", "ticket_create",
}
# For superusers, and whom they let.
CLOSED = {"gateway_grant", "gateway_key_drop", "gateway_key_register", "gateway_revoke", "socket_close"}
# What of schema pushy_internal runs as whoever asks. A function that is added has to be added here, or stays closed.
OPEN_INTERNALS = {
    # The condition of a trigger, asked as whoever applies a subscription.
    "is_apply_worker",
    # For a gateway, whose role has USAGE on the schema: they answer what the caller may read.
    "log_read", "log_wait",
    # Behind the views, which run them as whoever looks.
    "queue_obstacle", "queue_monitored", "queue_owned", "queue_running", "queue_visible", "queue_statistics", "running_jobs", "watch_counts", "watch_visible",
    "watch_state", "watch_mend", "job_last_error", "job_checkpoint_of",
    "is_home", "watch_elsewhere", "watch_is_whole", "watch_orphans", "worker_rows", "subscription_rows", "log_row", "log_bounds",
    "channel_grant_rows", "relay_obstacle", "socket_rows", "socket_counts", "queue_histograms", "queue_oldest_ready", "log_histogram",
}
VIEWS = {"queues", "jobs", "failures", "job_logs", "leases", "workers", "stats", "watches", "subscriptions", "log", "channel_grants", "queue_grants", "sockets"}

MEMBERS = """
    SELECT classid::regclass::text, objid, pg_describe_object(classid, objid, 0) AS what
      FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
       AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pushy')
"""


def test_every_object_has_a_comment(db):
    silent = db.rows(f"""
        SELECT what FROM ({MEMBERS}) member
         WHERE obj_description(objid, classid) IS NULL
           AND NOT (classid = 'pg_type' AND EXISTS (SELECT FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid
                                                     WHERE t.oid = objid AND c.relkind <> 'c'))
           AND NOT (classid = 'pg_type' AND EXISTS (SELECT FROM pg_type t WHERE t.oid = objid AND t.typelem <> 0))
         ORDER BY what""")
    assert silent == []


def test_every_column_of_a_view_has_a_comment(db):
    silent = db.rows("""
        SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND c.relkind = 'v' AND a.attnum > 0
           AND col_description(c.oid, a.attnum) IS NULL ORDER BY 1""")
    assert silent == []


def test_schema_pushy_holds_what_people_use_and_nothing_else(db):
    functions = db.rows("SELECT proname::text, has_function_privilege('public', oid, 'EXECUTE') FROM pg_proc WHERE pronamespace = 'pushy'::regnamespace")
    assert set(functions) == {(name, True) for name in FUNCTIONS} | {(name, False) for name in CLOSED}
    relations = db.rows("SELECT relkind::text, relname::text FROM pg_class WHERE relnamespace = 'pushy'::regnamespace")
    assert set(relations) == {("c", "job"), ("c", "claimed_job")} | {("v", view) for view in VIEWS}


def test_the_public_may_call_of_the_rest_what_the_views_call(db):
    assert {name for name, in db.rows("SELECT proname::text FROM pg_proc WHERE pronamespace = 'pushy_internal'::regnamespace "
                                      "AND has_function_privilege('public', oid, 'EXECUTE')")} == OPEN_INTERNALS


def test_the_public_may_read_the_views_and_touch_nothing_else(db):
    granted = set(db.rows("""
        SELECT c.relname::text, acl.privilege_type FROM pg_class c, aclexplode(c.relacl) acl
         WHERE c.relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND acl.grantee = 0"""))
    # metric_rows: what pushy.metrics reads for its caller.
    assert granted == {(view, "SELECT") for view in VIEWS | {"metric_rows"}}


def test_no_role_but_the_owner_has_rights_on_a_table(db):
    """But for who owns the database: pg_dump reads for him what it dumps, and the dump can be loaded, which inserts nothing."""
    dumped = db.rows("SELECT c::regclass::text, relkind::text FROM pg_extension, unnest(extconfig) c JOIN pg_class p ON p.oid = c WHERE extname = 'pushy'")
    granted = db.rows("""
        SELECT c.oid::regclass::text, acl.grantee::regrole::text, acl.privilege_type FROM pg_class c, aclexplode(c.relacl) acl
         WHERE c.relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND c.relkind IN ('r', 'S') AND acl.grantee <> c.relowner""")
    assert sorted(granted) == sorted((relation, "pg_database_owner", privilege) for relation, kind in dumped
                                     for privilege in ("SELECT", "UPDATE" if kind == "S" else "INSERT"))


def test_every_view_is_a_security_barrier(db):
    assert db.rows("SELECT relname FROM pg_class WHERE relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND relkind = 'v' "
                   "AND NOT 'security_barrier=true' = ANY (coalesce(reloptions, '{}'))") == []


def test_every_table_has_a_primary_key_and_nothing_that_runs_or_locks(db):
    """But for the parts of the event log, where no row is ever changed or deleted."""
    assert db.rows("""
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND c.relkind = 'r'
           AND (NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AND c.relname !~ '^log_[0-9]$'
                OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f')
                OR c.relrowsecurity OR c.relhasrules)""") == []


def test_every_table_keeps_writers_out_by_triggers_and_has_no_other(db):
    """Whoever writes what workers believe runs code as anybody. A table that is added has them by the install script's loop."""
    refuses = ("refuse_write", "A", "BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE", "STATEMENT EXECUTE FUNCTION pushy_internal.refuse_write({})")
    applied = ("refuse_applied", "A", "AFTER INSERT OR DELETE OR UPDATE", "ROW WHEN (pushy_internal.is_apply_worker()) EXECUTE FUNCTION pushy_internal.refuse_write()")
    passes_over = ("pass_over_row", "A", "BEFORE INSERT", "ROW EXECUTE FUNCTION pushy_internal.pass_over_row()")
    tables = {table for table, in db.rows(f"""
        SELECT c.oid::regclass::text FROM ({MEMBERS}) member JOIN pg_class c ON c.oid = objid
         WHERE classid = 'pg_class' AND c.relkind NOT IN ('S', 'v', 'c', 'i')""")}
    assert len(tables) > 30
    dumped = tables & {table for table, in db.rows("SELECT c::regclass::text FROM pg_extension, unnest(extconfig) c WHERE extname = 'pushy'")}
    triggers = db.rows("""
        SELECT tgrelid::regclass::text, tgname, tgenabled::text,
               substring(pg_get_triggerdef(oid) FROM '(BEFORE .*|AFTER .*) ON .* FOR EACH'), substring(pg_get_triggerdef(oid) FROM 'FOR EACH (.*)')
          FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'pushy%' AND NOT tgisinternal""")
    wanted = {(table, *refuses[:3], refuses[3].format("'dumped'" if table in dumped else "")) for table in tables}
    assert wanted | {(table, *applied) for table in tables} | {(table, *passes_over) for table in dumped} == set(triggers)


def test_a_queue_can_be_named_by_named_arguments_everywhere(db):
    """No parameter is a reserved word, and none is a smallint, which would make `priority => 5` fail."""
    assert db.rows("""
        SELECT p.oid::regprocedure::text, name, type::regtype FROM pg_proc p,
               unnest(p.proargnames, p.proallargtypes, p.proargmodes) AS a (name, type, mode)
         WHERE p.pronamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND coalesce(mode, 'i') <> 't' AND type = 'smallint'::regtype""") == []
    reserved = {word for word, in db.rows("SELECT word FROM pg_get_keywords() WHERE catcode IN ('R')")}
    names = {name for name, in db.rows("SELECT DISTINCT unnest(proargnames) FROM pg_proc WHERE pronamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[])")}
    assert names & reserved == set()


def test_the_install_script_replaces_nothing_and_skips_nothing():
    for path in {*(REPOSITORY / "sql").glob("*.sql")} - {*(REPOSITORY / "sql").glob("pushy--*.sql")}:
        text = re.sub(r"--.*", "", path.read_text())
        assert not re.search(r"\bOR\s+REPLACE\b|\bIF\s+NOT\s+EXISTS\b", text, re.I), path.name


def test_the_schema_is_fixed(db):
    db.sql("DROP EXTENSION pushy")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        db.sql("CREATE EXTENSION pushy SCHEMA public")


def test_dropping_the_extension_leaves_nothing(db):
    count = "SELECT count(*) FROM pg_proc UNION ALL SELECT count(*) FROM pg_class WHERE relname NOT LIKE 'pg_toast%' UNION ALL SELECT count(*) FROM pg_namespace"
    db.sql("DROP EXTENSION pushy")
    before = db.rows(count)
    db.sql("CREATE EXTENSION pushy")
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'work()')")
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    db.sql("DROP FUNCTION work(); DROP EXTENSION pushy")
    assert db.rows(count) == before


def test_the_schema_is_the_extensions_and_goes_with_it_alone(db):
    for schema in SCHEMAS:
        for way in ("", "CASCADE"):
            with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="extension pushy requires it"):
                db.sql(f"DROP SCHEMA {schema} {way}")


def test_dropped_and_created_again_it_works(db):
    for _ in range(3):
        db.sql("CREATE OR REPLACE FUNCTION work() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT pushy.queue_register('q', 'work()')")
        assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"] == 1
        db.sql("DROP EXTENSION pushy; CREATE EXTENSION pushy")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_schema_that_is_there_is_not_moved_into(db, role, schema):
    """Its owner could plant `pushy.enqueue(text, json)` beside ours."""
    db.sql("DROP EXTENSION pushy")
    for whose in ("", f"AUTHORIZATION {role()}"):
        db.sql(f"CREATE SCHEMA {schema} {whose}")
        with pytest.raises(psycopg.errors.DuplicateSchema, match=f'"{schema}"') as refusal:
            db.sql("CREATE EXTENSION pushy")
        db.sql(refusal.value.diag.message_hint.rpartition(": ")[2])


def test_a_plain_role_may_not_create_it(db, role):
    db.sql("DROP EXTENSION pushy")
    with db.connect(user=role()) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("CREATE EXTENSION pushy")


def test_without_the_preload_all_but_running_works_and_says_what_to_add(make_cluster):
    cluster = make_cluster({"shared_preload_libraries": ""})
    db = cluster.database(extension=False)
    notices: list[str] = []
    db.main.add_notice_handler(lambda diag: notices.append(f"{diag.severity} {diag.message_primary} {diag.message_hint}"))
    db.sql("CREATE EXTENSION pushy")
    assert any("WARNING" in notice and "shared_preload_libraries = 'pushy'" in notice for notice in notices), notices
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS 'SELECT'; SELECT pushy.queue_register('q', 'work()')")
    job = db.value("SELECT pushy.enqueue('q')")
    assert db.job(job)["state"] == "available"
    assert db.value("SELECT pushy.channel_name('NewUser')") == "newuser"
    assert "shared_preload_libraries" in str(db.rows("SELECT reason, fix FROM pushy.queue_explain('q')"))


def test_a_dump_restores_its_queues_which_stay_paused_elsewhere_until_told(make_cluster):
    here, there = make_cluster(), make_cluster(fresh=True)
    db = here.database("shop")
    db.sql("CREATE TABLE ledger (n int);"
           "CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS $$INSERT INTO public.ledger VALUES (args::int)$$;"
           "SELECT pushy.queue_register('q', 'work(jsonb)', max_attempts => 7)")
    db.sql("SELECT pushy.queue_register('r', 'work(jsonb)')")
    said = here.run("pg_dump", "-h", here.folder, "-U", "postgres", "-f", here.folder / "dump", "shop").stdout
    assert said == "", "a dump warns"

    copy = there.database("shop", extension=False)
    there.psql("shop", (here.folder / "dump").read_text())
    assert copy.rows("SELECT queue, max_attempts FROM pushy.queues ORDER BY queue") == [("q", 7), ("r", 25)]
    assert "resume_after_restore" in str(copy.rows("SELECT reason, fix FROM pushy.queue_explain('r')"))
    copy.sql("SELECT pushy.resume_after_restore()")
    assert copy.job_wait(copy.value("SELECT pushy.enqueue('r', '2')"))["state"] == "completed"


@pytest.mark.parametrize("encoding", ["EUC_JP", "EUC_CN", "EUC_KR", "EUC_TW", "EUC_JIS_2004", "SQL_ASCII",
                                      "LATIN1", "LATIN10", "ISO_8859_5", "WIN1251", "WIN866", "KOI8R", "UTF8"])
def test_a_database_of_any_encoding_takes_it(shared_cluster, encoding):
    db = shared_cluster.database(extension=False, options=f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        # Not every encoding of the server's is one of Python's.
        said = shared_cluster.psql(db.name, """
            CREATE EXTENSION pushy;
            CREATE FUNCTION work() RETURNS int LANGUAGE sql AS 'SELECT 7';
            SELECT pushy.queue_register('q', 'work()');
            SELECT pushy.enqueue('q') AS id \\gset
            SELECT 'ended as ' || state || result FROM pushy.job_wait(:id)""")
        assert "ended as completed7" in said
    finally:
        with shared_cluster.connect() as admin:
            admin.execute(f'DROP DATABASE "{db.name}" WITH (FORCE)')
