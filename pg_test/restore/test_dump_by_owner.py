"""A database's owner who is no superuser dumps it, and loads a dump where the extension stands: every format, whoever dumped, whoever
loads, the extension there or not. What is Pushy's own comes in with the extension's owner and is passed over for anybody else, however it is written."""

import itertools
import subprocess

import psycopg
import pytest

from harness.refusal import refused
from stage.life import LEDGER, run

FORMATS = {
    "plain": [], "inserts": ["--inserts"], "column inserts": ["--column-inserts", "--rows-per-insert=3", "--on-conflict-do-nothing"],
    "custom": ["-Fc"], "directory": ["-Fd"], "tar": ["-Ft"],
}
DUMPS = ("postgres", "boss", "backup")
LOADS = ("postgres", "boss")
# What pg_restore is told beside; it says nothing of it to a script.
RESTORED = ([], ["-1"], ["-j", "2"], ["--no-owner", "-x"])
PUSHYS = ("queue", "queue_acl", "live_job", "watch", "subscription", "channel", "channel_acl")


@pytest.fixture(scope="module")
def server(new_cluster):
    cluster = new_cluster()
    with cluster.connect() as admin:
        admin.execute("CREATE ROLE boss LOGIN; CREATE ROLE clerk LOGIN; CREATE ROLE backup LOGIN IN ROLE pg_read_all_data")
    yield cluster
    cluster.remove()


@pytest.fixture(scope="module")
def shop(server):
    """A row in each table of a dump that may have one without a failure, and what belongs to who owns the database."""
    db = server.database("shop", options="OWNER boss")
    db.sql("CREATE SCHEMA mine AUTHORIZATION boss; GRANT ALL ON SCHEMA public TO boss")
    with db.connect(user="boss") as boss:
        boss.execute(LEDGER)
        boss.execute("""
            CREATE TABLE mine.goods (id int PRIMARY KEY, v text); COMMENT ON TABLE mine.goods IS 'what is sold'; INSERT INTO mine.goods VALUES (1, 'x');
            SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.queue_grant('q', 'clerk', 'enqueue'), pushy.enqueue('q', '9', delay => '1 day');
            SELECT pushy.watch('mine.goods', queue => 'q'), pushy.subscription_create('s'), pushy.channel_grant('news', 'clerk')""")
    run(db)
    for table in PUSHYS:
        assert db.value(f"SELECT count(*) FROM pushy_internal.{table}") > 0, table
    return db


@pytest.fixture(scope="module")
def dumps(shop):
    """One per format and role that dumps."""
    made = {}
    for (form, options), who in itertools.product(FORMATS.items(), DUMPS):
        file = shop.cluster.folder / f"{len(made)}.dump"
        shop.cluster.run("pg_dump", "-h", shop.cluster.folder, "-p", shop.cluster.port, "-U", who, "-f", file, *options, shop.name)
        made[form, who] = file
    return made


def load(db, who: str, file, options=()) -> subprocess.CompletedProcess:
    where = ["-h", db.cluster.folder, "-p", db.cluster.port, "-U", who, "-d", db.name]
    if file.is_file() and file.read_bytes()[:2] == b"--":
        return db.cluster.run("psql", *where, "-q", "-v", "ON_ERROR_STOP=1", "-f", file, check=False)
    return db.cluster.run("pg_restore", *where, "--exit-on-error", "--verbose", *options, file, check=False)


@pytest.mark.parametrize("stands", [True, False])
@pytest.mark.parametrize("loads", LOADS)
def test_every_dump_is_loaded_without_an_error(shop, dumps, loads, stands):
    counts = {table: shop.value(f"SELECT count(*) FROM pushy_internal.{table}") for table in PUSHYS}
    wrong = []
    for (form, dumped), file in dumps.items():
        if not stands and form not in ("plain", "custom"):
            continue
        for options in RESTORED if (form, dumped) == ("custom", "boss") and stands else [()]:
            db = shop.cluster.database(extension=stands, usage="", options="OWNER boss")
            db.sql("GRANT ALL ON SCHEMA public TO boss")
            case = (form, dumped, *options)
            done = load(db, loads, file, options)
            said = done.stdout + (done.stderr or "")
            if loads == "boss" and not stands:
                # PostgreSQL's own: an extension that is not trusted takes a superuser.
                if done.returncode == 0 or 'permission denied to create extension "pushy"' not in said:
                    wrong.append((case, said[-300:]))
                db.drop()
                continue
            arrived = {table: db.value(f"SELECT count(*) FROM pushy_internal.{table}") for table in PUSHYS}
            expected = counts if loads == "postgres" else dict.fromkeys(PUSHYS, 0)
            told = [table for table in PUSHYS if f"rows of pushy_internal.{table} are passed over" in said]
            state = db.rows("SELECT DISTINCT state FROM pushy.watches")
            if loads != "postgres":
                reasons = dict(db.rows("SELECT name, reason FROM pushy.resume_after_restore() WHERE kind = 'rows'"))
                assert {table for table, reason in reasons.items() if "stand open" in reason} == {"channel", "channel_acl"} & set(PUSHYS), reasons
            right = (done.returncode == 0 and "ERROR" not in said and arrived == expected
                     and told == ([] if loads == "postgres" else list(PUSHYS))
                     and db.rows("SELECT v FROM mine.goods") == [("x",)]
                     and state == [("elsewhere" if loads == "postgres" else "orphaned",)]
                     and db.value("SELECT obj_description('mine.goods'::regclass)") == "what is sold")
            if not right:
                wrong.append((case, arrived, told, state, said[-600:]))
            db.drop()
    assert wrong == []


def test_what_the_extensions_owner_loads_waits_and_then_runs(shop, dumps):
    db = shop.cluster.database(usage="", options="OWNER boss")
    assert load(db, "postgres", dumps["custom", "boss"]).returncode == 0
    assert "resume_after_restore" in str(db.rows("SELECT parked FROM pushy.queues"))
    with db.connect(user="boss") as boss:
        assert {name: resumed for name, resumed, _ in boss.execute("SELECT name, resumed, reason FROM pushy.resume_after_restore()")}["q"] is True
    run(db)
    db.drop()


def test_what_the_databases_owner_has_loaded_is_declared_again_and_runs(shop, dumps):
    """A deploy script says everything anew; the watch that came without its row is mended by its declaration, and every write succeeds before."""
    db = shop.cluster.database(usage="boss", options="OWNER boss")
    assert load(db, "boss", dumps["plain", "boss"]).returncode == 0
    with db.connect(user="boss") as boss:
        # pg_restore keeps warnings to itself: it is told to who asks, and once.
        told = boss.execute("SELECT kind, name, resumed, reason FROM pushy.resume_after_restore()").fetchall()
        assert {name for kind, name, resumed, _ in told if kind == "rows" and resumed is False} >= set(PUSHYS)
        assert all("passed over when role boss loaded a dump" in reason for _, _, _, reason in told)
        assert boss.execute("SELECT count(*) FROM pushy.resume_after_restore() WHERE kind = 'rows'").fetchone() == (0,)
        boss.execute("INSERT INTO mine.goods VALUES (2)")
        boss.execute("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.watch('mine.goods', queue => 'q')")
        assert boss.execute("SELECT state FROM pushy.watches").fetchall() == [("active",)]
        job = boss.execute("SELECT pushy.enqueue('q', '3')").fetchone()[0]
    assert db.job_wait(job)["state"] == "completed"
    db.drop()


# Each column of each table has its own value here, so that no constraint speaks first.
FORGED = {
    "INSERT": "INSERT INTO pushy_internal.{table} SELECT t.* FROM aside.{table} t",
    "nothing on conflict": "INSERT INTO pushy_internal.{table} SELECT t.* FROM aside.{table} t ON CONFLICT DO NOTHING",
    "returning": "WITH new AS (INSERT INTO pushy_internal.{table} SELECT t.* FROM aside.{table} t RETURNING *) SELECT * FROM new",
    "MERGE": "MERGE INTO pushy_internal.{table} USING aside.{table} a ON false WHEN NOT MATCHED THEN INSERT VALUES (a.*)",
    "COPY": "COPY pushy_internal.{table} FROM PROGRAM 'true'",
    "updates on conflict": "INSERT INTO pushy_internal.{table} SELECT t.* FROM aside.{table} t ON CONFLICT ({key}) DO UPDATE SET {key} = excluded.{key}",
    "UPDATE": "UPDATE pushy_internal.{table} SET {key} = {key}",
    "DELETE": "DELETE FROM pushy_internal.{table}",
    "TRUNCATE": "TRUNCATE pushy_internal.{table}",
    "DISABLE": "ALTER TABLE pushy_internal.{table} DISABLE TRIGGER ALL",
    "DROP": "DROP TRIGGER pass_over_row ON pushy_internal.{table}",
    "TRIGGER": "CREATE TRIGGER again BEFORE INSERT ON pushy_internal.{table} FOR EACH ROW EXECUTE FUNCTION aside.again()",
}


@pytest.mark.parametrize("more", [(), ("pg_write_all_data",), ("pg_write_all_data", "pg_read_all_data")], ids=str)
def test_a_forged_dump_brings_no_row_into_any_table(shop, more):
    """Of rows that the database's owner has chosen freely, in the role of a replica too, none is there afterwards."""
    db = shop.cluster.database(usage="boss", options="OWNER boss")
    db.sql("GRANT CREATE ON DATABASE \"{0}\" TO boss; GRANT SET ON PARAMETER session_replication_role TO boss".format(db.name))
    for role in more:
        db.sql(f"GRANT {role} TO boss")
    tables = db.rows("""
        SELECT c.relname::text, c.oid = ANY (e.extconfig), a.attname::text
          FROM pg_extension e, pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
         WHERE e.extname = 'pushy' AND c.relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND c.relkind = 'r' ORDER BY 1""")
    everything = " UNION ALL ".join(f"SELECT '{table}', to_jsonb(t) FROM pushy_internal.{table} t" for table, _, _ in tables)
    with shop.cluster.connect(shop.name) as theirs, db.connect() as admin:
        admin.execute("CREATE SCHEMA aside; CREATE FUNCTION aside.again() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
        for table, _, _ in tables:
            admin.execute(f"CREATE TABLE aside.{table} (LIKE pushy_internal.{table})")
            with theirs.cursor().copy(f"COPY pushy_internal.{table} TO STDOUT") as out, admin.cursor().copy(f"COPY aside.{table} FROM STDIN") as into:
                for data in out:
                    into.write(data)
        admin.execute("GRANT USAGE ON SCHEMA aside TO boss; GRANT ALL ON ALL TABLES IN SCHEMA aside TO boss")
    before = sorted(map(str, db.rows(everything)))
    let = set()
    for replica in ("origin", "replica"):
        with db.connect(user="boss") as boss:
            boss.execute(f"SET session_replication_role = {replica}")
            for (table, dumped, key), (how, statement) in itertools.product(tables, FORGED.items()):
                try:
                    boss.execute(statement.format(table=table, key=key))
                    let.add((how, dumped))
                except psycopg.Error as error:
                    assert error.sqlstate in ("42501", "42P10", "42704"), (statement, table, error)
    # But for the note of that.
    assert {table for table, in db.rows("SELECT table_name::text FROM pushy_internal.passed_over")} >= set(PUSHYS)
    db.sql("DELETE FROM pushy_internal.passed_over")
    assert sorted(map(str, db.rows(everything))) == before
    passed_over = {"INSERT", "nothing on conflict", "returning", "MERGE"}
    assert let == {(how, True) for how in passed_over}
    for role in more:
        db.sql(f"REVOKE {role} FROM boss")
    db.sql("REVOKE SET ON PARAMETER session_replication_role FROM boss")
    db.drop()


def test_who_does_not_own_the_database_is_refused_as_before(shop):
    db = shop.cluster.database(usage="clerk", options="OWNER boss")
    with db.connect(user="clerk") as clerk:
        refused(clerk, "INSERT INTO pushy_internal.queue DEFAULT VALUES", "42501")
    db.drop()
