"""No predefined role, and no combination of them, writes what workers believe; those that read still make a backup."""

import itertools
import re

import psycopg
import pytest

from harness.refusal import refused
from harness.versions import MEMBERSHIPS_HAVE_OPTIONS, major
from stage.life import LEDGER, run

# All that a server has that can be granted, but for those with which one is the server's own account anyway.
PREDEFINED = ("SELECT rolname FROM pg_roles WHERE rolname LIKE 'pg\\_%' AND rolname NOT IN "
              "('pg_database_owner', 'pg_read_server_files', 'pg_write_server_files') ORDER BY 1")
# What each of these may do to a table or a sequence, or to who does it.
COMBINED = ("pg_read_all_data", "pg_write_all_data", "pg_monitor", "pg_execute_server_program", "pg_signal_backend", "pg_maintain")
RELATIONS = """
    SELECT c.oid::regclass::text, c.relkind::text, (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = 1)
      FROM pg_class c WHERE c.relnamespace::regnamespace::text LIKE 'pushy%' AND c.relkind IN ('r', 'v') ORDER BY 1"""
WRITES = (
    "INSERT INTO {of} DEFAULT VALUES", "UPDATE {of} SET {column} = NULL", "DELETE FROM {of}", "TRUNCATE {of}",
    "INSERT INTO {of} SELECT * FROM {of} ON CONFLICT DO NOTHING", "COPY {of} FROM PROGRAM 'true'",
    "MERGE INTO {of} USING (SELECT 1) one (n) ON true WHEN MATCHED THEN DELETE",
    "WITH gone AS (DELETE FROM {of} RETURNING 1) SELECT 1", "EXPLAIN ANALYZE DELETE FROM {of}",
    "ALTER TABLE {of} DISABLE TRIGGER ALL", "DROP TRIGGER refuse_write ON {of}", "CREATE RULE r AS ON INSERT TO {of} DO INSTEAD NOTHING",
)
# Views that people read are no way round: some of them could be written.
REFUSALS = ("42501", "55000", "0A000", "42809")

# Tries each statement on each relation, and tells which was not refused. All in one call, for there are many.
TRY = """
    CREATE FUNCTION try_all(statements text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
    DECLARE
        statement text;
    BEGIN
        FOREACH statement IN ARRAY statements LOOP
            BEGIN
                EXECUTE statement;
                RETURN NEXT statement;
            EXCEPTION WHEN OTHERS THEN
                IF SQLSTATE <> ALL ({allowed}) THEN
                    RETURN NEXT format('%s: %s %s', statement, SQLSTATE, SQLERRM);
                END IF;
            END;
        END LOOP;
    END$$"""


@pytest.fixture
def shop(db, role):
    """A queue, a job done and one waiting, a watch, a subscription: no table that matters is empty."""
    db.sql(LEDGER)
    db.sql("""
        SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.queue_register('later', 'note(jsonb)');
        SELECT pushy.queue_grant('q', 'public', 'enqueue');
        CREATE TABLE watched (id int PRIMARY KEY); SELECT pushy.watch('watched', queue => 'later'), pushy.subscription_create('s');
        SELECT pushy.enqueue('later', delay => '1 day')""")
    run(db)
    db.sql(TRY.format(allowed=f"ARRAY{list(REFUSALS)}"))
    return db


def writes(db) -> list[str]:
    return [statement.format(of=name, column=column) for name, kind, column in db.rows(RELATIONS) for statement in WRITES
            if not (kind == "v" and ("TRIGGER" in statement or "TRUNCATE" in statement))]


def granted(db, role, roles) -> psycopg.Connection:
    """A session of a new role that has these."""
    name = role()
    for predefined in roles:
        db.sql(f"GRANT {predefined} TO {name}")
    return db.connect(user=name)


def state(db) -> list:
    """What is in the tables that decide something."""
    return [db.rows(f"SELECT * FROM pushy_internal.{table} ORDER BY 1, 2")
            for table in ("queue", "queue_acl", "live_job", "finished_job", "watch", "rotation", "log_part")]


def test_no_combination_of_predefined_roles_writes_a_table_or_a_view(shop, role, record_property):
    there = [name for name, in shop.rows(PREDEFINED)]
    combined = [name for name in COMBINED if name in there]
    subsets = [set(subset) for size in range(len(combined) + 1) for subset in itertools.combinations(combined, size)]
    subsets += [{name} for name in there if name not in combined] + [set(there)]
    before = state(shop)
    statements = writes(shop)
    assert len(statements) > 300
    for subset in subsets:
        session = granted(shop, role, sorted(subset))
        assert session.execute("SELECT * FROM try_all(%s)", (statements,)).fetchall() == [], subset
        session.close()
    assert state(shop) == before
    record_property("counted", f"{len(subsets)} combinations of roles × {len(statements)} statements")


def test_the_owner_and_a_superuser_write_as_they_like(shop, role):
    """Also a role that is a member of the owner; the error is for the others only."""
    other = role("SUPERUSER")
    session = shop.connect(user=other)
    session.execute("UPDATE pushy_internal.queue SET priority = 4; TRUNCATE pushy_internal.rotation; DELETE FROM pushy_internal.queue_acl")
    member = role()
    shop.sql(f"GRANT postgres TO {member}")
    shop.connect(user=member).execute("UPDATE pushy_internal.queue SET priority = 3")
    assert shop.rows("SELECT DISTINCT priority FROM pushy_internal.queue") == [(3,)]
    shop.sql(f"REVOKE postgres FROM {member}")


def test_the_refusal_says_what_to_do_instead(shop, role):
    session = granted(shop, role, ["pg_write_all_data"])
    refused(session, "INSERT INTO pushy_internal.queue_acl VALUES (1, 0, 'public', 'enqueue')", "42501",
            "permission denied for table queue_acl", "workers act on what it says", "functions of schema pushy")


def test_session_replication_role_does_not_silence_the_guard(shop, role):
    """From 15 on the setting can be granted."""
    name = role()
    shop.sql(f"GRANT pg_write_all_data TO {name}; GRANT SET ON PARAMETER session_replication_role TO {name}")
    session = shop.connect(user=name)
    session.execute("SET session_replication_role = replica")
    refused(session, "DELETE FROM pushy_internal.queue", "42501")
    shop.sql(f"REVOKE SET ON PARAMETER session_replication_role FROM {name}")


def test_a_queue_cannot_be_written_into_being(shop, role):
    """One row in pushy_internal.queue and one in pushy_internal.queue_acl ran a function of the writer's as whomever the row named."""
    victim = role()
    shop.sql(f"CREATE TABLE loot (who name); GRANT INSERT ON loot TO PUBLIC; GRANT pg_execute_server_program TO {victim}; GRANT CREATE ON SCHEMA public TO PUBLIC")
    session = granted(shop, role, ["pg_write_all_data", "pg_read_all_data"])
    session.execute("CREATE FUNCTION steal(jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.loot VALUES (current_user)'")
    refused(session, f"""
        INSERT INTO pushy_internal.queue (queue_id, queue, owner, owner_name, run_as, run_as_name, handler_oid, handler, priority, max_attempts,
                                 backoff, retry_delay_us, max_retry_delay_us, timeout_us, keep_completed_us, keep_discarded_us, batch,
                                 home_system, home_database)
        SELECT 77, 'evil', '{victim}'::regrole, '{victim}', '{victim}'::regrole, '{victim}', 'steal(jsonb)'::regprocedure,
               'public.steal(jsonb)', 5, 1, 'fixed', 0, 0, 0, 0, 0, true, home_system, home_database FROM pushy_internal.queue LIMIT 1""", "42501")
    refused(session, f"UPDATE pushy_internal.queue SET run_as = '{victim}'::regrole, run_as_name = '{victim}', handler = 'public.steal(jsonb)'", "42501")
    run(shop)
    assert shop.rows("SELECT * FROM loot") == []
    shop.sql(f"REVOKE pg_execute_server_program FROM {victim}")


# What a role that was granted nothing in Pushy may not do, whatever else it has.
DENIED = (
    "SELECT pushy.enqueue('q')", "SELECT pushy.queue_register('mine', 'note(jsonb)', run_as => 'victim')", "SELECT pushy.queue_pause('q')",
    "SELECT pushy.queue_alter('q', run_as => CURRENT_USER::regrole)", "SELECT pushy.queue_drop('q', force => true)", "SELECT pushy.queue_run('q')",
    "SELECT pushy.queue_grant('q', 'public', 'work')", "SELECT pushy.job_cancel({job})", "SELECT pushy.job_retry({job})", "SELECT pushy.job_wait({job})",
    "SELECT pushy.watch('watched', channel => 'theirs')", "SELECT pushy.unwatch('watched')",
    "SELECT pushy.subscription_read('s')", "SELECT pushy.subscription_drop('s')", "SELECT pushy.subscription_create('s')",
    "SELECT * FROM pushy.queue_explain('q')",
)


def test_no_combination_of_predefined_roles_acts_for_others_or_sees_their_jobs(db, role):
    """Who reads all data reads the tables, as every backup does; nobody reads more by the functions and the views."""
    db.sql(LEDGER)
    victim = role()
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)'); CREATE TABLE watched (id int PRIMARY KEY); "
           "SELECT pushy.watch('watched', channel => 'told'), pushy.subscription_create('s')")
    # Of a foreign job it is said that there is none.
    db.sql(TRY.format(allowed="CASE WHEN statement LIKE 'SELECT pushy.job\\_%' THEN ARRAY['42704'] ELSE ARRAY['42501'] END"))
    run(db)
    job = db.value("SELECT pushy.enqueue('q', delay => '1 day')")
    there = [name for name, in db.rows(PREDEFINED)]
    tables = [name for name, kind, _ in db.rows(RELATIONS) if kind == "r"]
    subsets = [{name} for name in there] + [set(there), set(there) - {"pg_read_all_data"}, {"pg_read_all_data", "pg_write_all_data"}]
    denied = [statement.format(job=job).replace("victim", victim) for statement in DENIED]
    for subset in subsets:
        session = granted(db, role, sorted(subset))
        assert session.execute("SELECT * FROM try_all(%s)", (denied,)).fetchall() == [], subset
        assert session.execute("SELECT (SELECT count(*) FROM pushy.jobs), (SELECT count(*) FROM pushy.failures), (SELECT count(*) FROM pushy.queues)"
                               ).fetchone() == (0, 0, 0), subset
        read = session.execute("SELECT count(*) FROM try_all(%s)", ([f"SELECT FROM {table}" for table in tables],)).fetchone()[0]
        assert read == (len(tables) if "pg_read_all_data" in subset else 0), subset
        session.close()
    assert db.rows("SELECT queue FROM pushy_internal.queue") == [("q",)]
    assert db.job(job)["state"] == "scheduled"


# -- sequences, which have no triggers --------------------------------------------------------------------------------

END = 9223372036854775807


def test_setting_the_sequence_of_positions_harms_no_job(make_cluster):
    """Set back, jobs had numbers of jobs that are kept, could not complete and were charged for it; set to its end, none could be enqueued."""
    cluster = make_cluster()
    db = cluster.database()
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)', max_attempts => 2); CREATE ROLE etl LOGIN IN ROLE pg_write_all_data")
    run(db, count=5)
    enqueued = 5
    for value in (1, 3, END, END - 2, 2 ** 62, 1):
        with db.connect(user="etl") as etl:
            etl.execute("SELECT setval('pushy_internal.position_seq', %s)", (value,))
        run(db, count=4)
        later = db.value("SELECT pushy.enqueue('q', '99', delay => '20 ms')")
        assert db.job_wait(later)["state"] == "completed"
        enqueued += 5
    # Numbers are in memory; in its next life the server finds what the sequence was set to.
    for value in (1, END):
        with db.connect(user="etl") as etl:
            etl.execute("SELECT setval('pushy_internal.position_seq', %s)", (value,))
        since = cluster.log.position()
        cluster.restart()
        run(db, count=4)
        enqueued += 4
        cluster.log.wait_for("position_seq is at .*, where numbers do not go on", since)
    assert db.rows("SELECT count(*), count(DISTINCT id) FROM pushy.jobs") == [(enqueued, enqueued)]
    assert db.rows("SELECT * FROM pushy.failures") == []
    assert db.value("SELECT count(*) FROM ledger") == enqueued


NUMBERED = {"queue": "queue_id", "watch": "watch_id", "subscription": "subscription_id"}


@pytest.mark.parametrize("at", ["min_value", "max_value"])
def test_a_sequence_that_was_set_stops_nobody_and_meets_nobody(shop, role, at):
    """Set to its end, nobody could declare anything any more; set back, what was declared next met somebody else's row."""
    etl = granted(shop, role, ["pg_write_all_data"])
    sequences = shop.rows(f"SELECT schemaname || '.' || sequencename, {at}, cycle FROM pg_sequences WHERE schemaname LIKE 'pushy%' ORDER BY 1")
    assert {f"pushy_internal.{number}_seq" for number in NUMBERED.values()} < {name for name, _, _ in sequences}
    rows = {table: f"SELECT t::text FROM pushy_internal.{table} t" for table in (*NUMBERED, "queue_acl")}
    for n, (name, value, cycles) in enumerate(sequences):
        assert cycles, name
        # The second comes behind the first: of the end, at the beginning.
        etl.execute("SELECT setval(%s, %s, false)", (name, value))
        for new in (f"x{n}", f"y{n}"):
            before = {table: set(shop.rows(query)) for table, query in rows.items()}
            shop.sql(f"CREATE TABLE {new} (id int PRIMARY KEY)")
            shop.sql(f"SELECT pushy.queue_register('{new}', 'note(jsonb)'), pushy.watch('{new}', queue => 'later'), pushy.subscription_create('{new}')")
            for table, query in rows.items():
                after = set(shop.rows(query))
                assert before[table] <= after and len(after) == len(before[table]) + (table in NUMBERED), (name, table)
            for table, number in NUMBERED.items():
                assert shop.value(f"SELECT count(*) = count(DISTINCT {number}) FROM pushy_internal.{table}"), (name, table)
        run(shop, count=2)


def test_two_who_draw_at_the_same_time_have_two_numbers(shop, role):
    """Also where the sequence is set between the two, and neither sees the other's row."""
    etl = granted(shop, role, ["pg_write_all_data"])
    shop.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    calls = {"queue": "SELECT pushy.queue_register('{}', 'note(jsonb)')", "watch": "SELECT pushy.watch('{}')"}
    for table, call in calls.items():
        with shop.connect(autocommit=False) as first, shop.connect() as second:
            first.execute(call.format("a"))
            number = first.execute(f"SELECT max({NUMBERED[table]}) FROM pushy_internal.{table}").fetchone()[0]
            etl.execute("SELECT setval(%s, %s, false)", (f"pushy_internal.{NUMBERED[table]}_seq", number))
            second.execute(call.format("b"))
            first.commit()
        names = f"SELECT {'queue' if table == 'queue' else 'name'} FROM pushy_internal.{table} WHERE {NUMBERED[table]} = %s"
        assert shop.rows(names, number) == [("a",)]


def test_the_predefined_roles_for_all_data_call_functions_without_usage(make_cluster):
    """They have USAGE on every schema: what a role may do is asked for all the same."""
    db = make_cluster().database(usage="")
    db.sql("CREATE FUNCTION h() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'h()'); CREATE ROLE plain LOGIN")
    for predefined in ("pg_read_all_data", "pg_write_all_data"):
        db.sql(f"CREATE ROLE of_{predefined[3:]} LOGIN IN ROLE {predefined}")
        with db.connect(user=f"of_{predefined[3:]}") as session:
            session.execute(f"SELECT pushy.queue_register('{predefined}', 'h()')")
            refused(session, "SELECT pushy.enqueue('q')", "42501", "permission denied for queue")
    with db.connect(user="plain") as session:
        refused(session, "SELECT pushy.queue_register('mine', 'h()')", "42501", "permission denied for schema pushy")


# -- what must go on working ------------------------------------------------------------------------------------------

def dumped(db, user, *options) -> str:
    file = db.cluster.folder / f"{db.name}.{user}.dump"
    db.cluster.run("pg_dump", "-h", db.cluster.folder, "-p", db.cluster.port, "-U", user, "-f", file, *options, db.name)
    return file


@pytest.mark.parametrize("who", ["postgres", "pg_read_all_data"])
def test_a_dump_by_a_superuser_or_a_backup_role_has_everything_and_is_restored(shop, role, who):
    user = who
    if who != "postgres":
        user = role()
        shop.sql(f"GRANT pg_read_all_data TO {user}")
    file = dumped(shop, user, "-Fc")
    copy = shop.cluster.database(f"{shop.name}_copy", extension=False)
    shop.cluster.run("pg_restore", "-h", shop.cluster.folder, "-U", "postgres", "--exit-on-error", "-j", "2", "-d", copy.name, file)
    columns = "SELECT queue, handler, owner_name, run_as_name, priority FROM pushy_internal.queue ORDER BY 1"
    assert copy.rows(columns) == shop.rows(columns)
    for table in ("live_job", "queue_acl", "subscription", "watch"):
        count = f"SELECT count(*) FROM pushy_internal.{table}"
        assert copy.value(count) == shop.value(count) > 0, table
    copy.sql("SELECT pushy.resume_after_restore()")
    run(copy, count=3)
    copy.drop()


def test_data_alone_is_restored_with_triggers_disabled(shop):
    """pg_restore does that with --disable-triggers; the guard stands afterwards."""
    file = dumped(shop, "postgres", "-Fc")
    before = shop.value("SELECT count(*) FROM pushy_internal.live_job")
    shop.sql("DELETE FROM pushy_internal.live_job")
    shop.cluster.run("pg_restore", "-h", shop.cluster.folder, "-U", "postgres", "--exit-on-error", "--data-only", "--disable-triggers",
                     "-n", "pushy_internal", "-t", "live_job", "-d", shop.name, file)
    assert shop.value("SELECT count(*) FROM pushy_internal.live_job") == before
    assert shop.value("SELECT tgenabled <> 'D' FROM pg_trigger WHERE tgrelid = 'pushy_internal.live_job'::regclass AND tgname = 'refuse_write'")


def test_pg_upgrade_keeps_the_guard_and_what_it_guards(make_cluster):
    old, new = make_cluster(), make_cluster(fresh=True, start=False)
    db = old.database("shop")
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)'); CREATE ROLE etl LOGIN IN ROLE pg_write_all_data")
    run(db, count=2)
    later = db.value("SELECT pushy.enqueue('q', '9', delay => '1 day')")
    guards = "SELECT tgrelid::regclass::text, tgenabled::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'refuse_write' ORDER BY 1"
    before = db.rows(guards)
    old.stop()
    bin_ = new.installation.bindir
    new.run("pg_upgrade", "-b", bin_, "-B", bin_, "-d", old.data, "-D", new.data, "-U", "postgres", "-s", new.folder)
    new.start()
    db = db.of(new)
    assert db.rows(guards) == before and len(before) > 30
    refused(db.connect(user="etl"), "UPDATE pushy_internal.queue SET priority = 1", "42501")
    run(db, count=2)
    assert db.job(later)["state"] == "scheduled"


APPLIED = {
    "INSERT": "INSERT INTO pushy_internal.queue_acl VALUES (7, 0, 'public', 'work')",
    "UPDATE": "UPDATE pushy_internal.queue_acl SET privilege = 'monitor'",
    "UPDATE of what is no key": "UPDATE pushy_internal.queue_acl SET grantee_name = 'x'",
    "DELETE": "DELETE FROM pushy_internal.queue_acl",
    "TRUNCATE": "TRUNCATE pushy_internal.queue_acl",
    "its first copy": "SELECT",
}


def test_a_subscription_writes_no_table_unless_its_owner_has_the_rights_of_theirs(make_cluster):
    """A worker that applies fires no trigger of a statement. From 16 on it becomes the table's owner first, which a role that may not is
    refused by the server itself; told not to, it is as before."""
    cluster = make_cluster({"wal_level": "logical"})
    here, there = cluster.database(), cluster.database()
    new = major(here) >= MEMBERSHIPS_HAVE_OPTIONS
    denied = "permission denied for table queue_acl"
    refusals = {"": f"cannot SET ROLE to|{denied}", ", run_as_owner = true": denied} if new else {"": denied}
    row = "INSERT INTO pushy_internal.queue_acl VALUES (5, 0, 'public', 'enqueue')"
    here.sql(row + "; CREATE PUBLICATION p FOR TABLE pushy_internal.queue_acl")
    here.sql("CREATE ROLE etl LOGIN IN ROLE pg_write_all_data")
    state = "SELECT * FROM pushy_internal.queue_acl"
    for (name, change), (option, refusal) in itertools.product(APPLIED.items(), refusals.items()):
        there.sql("DELETE FROM pushy_internal.queue_acl")
        if name != "its first copy":
            there.sql(row)
        before = there.rows(state)
        here.sql("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
        here.sql(change)
        # Who had made it as a superuser has the one role that lets it go on.
        there.sql("ALTER ROLE etl SUPERUSER")
        with there.connect(user="etl") as session:
            session.execute(f"CREATE SUBSCRIPTION s CONNECTION '{here.dsn()}' PUBLICATION p WITH (create_slot = false, slot_name = 's', "
                            f"enabled = false, disable_on_error = true, copy_data = {name == 'its first copy'}{option})")
        if new:
            there.sql("ALTER SUBSCRIPTION s SET (password_required = false)")
        said = cluster.log.position()
        there.sql("ALTER ROLE etl NOSUPERUSER; ALTER SUBSCRIPTION s ENABLE")
        there.wait_until("SELECT subenabled FROM pg_subscription", False)
        assert there.rows(state) == before, name
        assert re.search(refusal, cluster.log.since(said)), (name, option)
        there.sql("ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s")
        here.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('logical replication worker', 'walsender')", 0)
        here.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots; TRUNCATE pushy_internal.queue_acl; " + row)


def test_logical_replication_of_the_owners_writes_the_tables_as_before(make_cluster):
    cluster = make_cluster({"wal_level": "logical"})
    here, there = cluster.database(), cluster.database()
    for db in (here, there):
        db.sql(LEDGER)
        db.sql("SELECT pushy.queue_register('q', 'note(jsonb)')")
    here.sql("SELECT pushy.queue_pause('q')")
    here.sql("SELECT pushy.enqueue('q', '1', delay => '1 hour'); CREATE PUBLICATION jobs FOR TABLE pushy_internal.live_job")
    here.sql("SELECT pg_create_logical_replication_slot('jobs', 'pgoutput')")
    there.sql(f"CREATE SUBSCRIPTION jobs CONNECTION '{here.dsn()}' PUBLICATION jobs WITH (create_slot = false, slot_name = 'jobs')")
    count = "SELECT count(*) FROM pushy_internal.live_job WHERE run_at > now()"
    there.wait_until(count, 1)
    here.sql("SELECT pushy.enqueue('q', '2', delay => '1 hour')")
    there.wait_until(count, 2)
    here.sql("TRUNCATE pushy_internal.live_job")
    there.wait_until(count, 0)
    there.sql("ALTER SUBSCRIPTION jobs DISABLE; ALTER SUBSCRIPTION jobs SET (slot_name = NONE); DROP SUBSCRIPTION jobs")


def test_a_copy_by_template_runs_and_is_guarded(shop, role):
    name = f"{shop.name}_clone"
    with shop.cluster.connect() as admin:
        shop.close()
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{shop.name}"')
    copy = type(shop)(shop.cluster, name)
    copy.sql("SELECT pushy.resume_after_restore()")
    run(copy)
    user = role()
    copy.sql(f"GRANT pg_write_all_data TO {user}")
    refused(copy.connect(user=user), "UPDATE pushy_internal.queue SET priority = 1", "42501")
    copy.drop()
