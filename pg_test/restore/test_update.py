"""Versions that meet: archived scripts stay as they are, each is updated to the present one, and a library and a script that do not
belong together say so. What comes after this version is made up (versions.py)."""

import os
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from stage import versions
from harness.cluster import Cluster
from harness.database import Database
from harness.gate import Gate
from harness.installation import REPOSITORY, built
from harness.waiting import wait_for
from stage.life import LEDGER, workers
from stage.versions import NEXT, OWN

REFUSED = "55000"


@pytest.fixture
def installed(scratch, request):
    return versions.installation(scratch / f"v{os.getpid()}.{abs(hash(request.node.name))}")


@pytest.fixture
def server(installed, scratch):
    """A server of an installation of its own."""
    cluster = Cluster(installed.root.with_name(f"{installed.root.name}.c"), installed, {"pushy.max_executors": 4})
    yield cluster.create(scratch / "t" / "data").start()
    cluster.remove()


# -- the archive --------------------------------------------------------------------------------------------------

def test_an_archived_script_never_changes():
    said = versions.checksums()
    assert set(said) >= {f"pushy--{version}.sql" for version in versions.archived()}
    for name, checksum in said.items():
        # An update script lies where the build finds it.
        folder = versions.ARCHIVE if name.count("--") == 1 else REPOSITORY / "sql"
        assert versions.checksum(folder / name) == checksum, f"{name} was shipped as it was: another version has another number"


def test_archive_keeps_the_script_as_it_was_built_and_takes_no_other_of_that_version(tmp_path):
    def archive(version=OWN, **environment):
        return subprocess.run([REPOSITORY / "tools" / "archive.sh", version, tmp_path], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=os.environ | {"PUSHY_PACKAGE": str(built("dev"))} | environment)
    assert "another" not in (done := archive()).stdout and done.returncode == 0, done.stdout
    kept = tmp_path / f"pushy--{OWN}.sql"
    assert statements(kept.read_text()) == statements(versions.script())
    updates = (REPOSITORY / "sql").glob(f"pushy--*--{OWN}.sql")
    assert versions.checksums(tmp_path) == {path.name: versions.checksum(path) for path in (kept, *updates)}
    assert "is there already" in archive().stdout
    kept.write_text(kept.read_text().replace("pushy.enqueue", "pushy.put"))
    done = archive()
    assert done.returncode == 1 and "an archived one is never changed" in done.stdout
    assert archive("0.0.9").returncode == 1


def statements(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("-- src/") and line]


def test_the_present_script_is_the_archived_one_of_its_version():
    if (versions.ARCHIVE / f"pushy--{OWN}.sql").exists():
        kept = (versions.ARCHIVE / f"pushy--{OWN}.sql").read_text()
        assert statements(versions.script()) == statements(kept), "it was shipped: the change is another version's"


def test_every_symbol_of_an_archived_script_is_in_the_library():
    """pg_upgrade makes the functions of the old script with the new library."""
    library = next(built("dev").rglob("pushy.so"))
    there = set(re.findall(rb"pg_finfo_(pushy_\w+_v\d+)", library.read_bytes()))
    for version in {*versions.archived(), OWN}:
        named = set(re.findall(r"'MODULE_PATHNAME', '(\w+)'", versions.script(version)))
        assert named and {name.encode() for name in named} - there == set(), version


def test_every_c_function_has_a_symbol_with_a_version():
    symbols = re.findall(r"'MODULE_PATHNAME', '(\w+)'", versions.script())
    assert len(symbols) == len(set(symbols)) > 50
    assert [symbol for symbol in symbols if not re.fullmatch(r"pushy_[a-z_]+_v\d+", symbol)] == []


def test_every_update_script_begins_as_each_must():
    for path in (REPOSITORY / "sql").glob("pushy--*--*.sql"):
        assert re.sub(r"--.*", "", path.read_text()).split(";")[0].strip() == versions.BEGIN.strip(" ;\n"), path.name


# -- from each version to the present one ---------------------------------------------------------------------------

def made_by_update(server: Cluster, old: str, new: str) -> set[tuple]:
    db = server.database(extension=False)
    db.sql(f"CREATE EXTENSION pushy VERSION '{old}'")
    db.sql(f"ALTER EXTENSION pushy UPDATE TO '{new}'")
    assert db.value("SELECT extversion FROM pg_extension WHERE extname = 'pushy'") == new
    return versions.shape(db)


def made_at_once(server: Cluster, version: str) -> set[tuple]:
    db = server.database(extension=False)
    db.sql(f"CREATE EXTENSION pushy VERSION '{version}'")
    return versions.shape(db)


def test_every_archived_version_is_updated_to_what_the_present_script_makes(installed, server):
    for version in versions.archived():
        if version != OWN:
            versions.put_script(installed, version, versions.script(version))
            assert made_by_update(server, version, OWN) == made_at_once(server, OWN), version


def test_an_update_takes_tables_of_the_type_views_and_functions_with_it(installed, server):
    versions.put_script(installed, "0.1.0", versions.script("0.1.0"))
    db = server.database(extension=False)
    db.sql("""
        CREATE EXTENSION pushy VERSION '0.1.0';
        CREATE TABLE typed OF pushy.job;
        INSERT INTO typed (id) VALUES (7);
        CREATE VIEW seen AS SELECT NULL::pushy.job AS j;
        CREATE FUNCTION of_job(job pushy.job) RETURNS bigint LANGUAGE sql AS 'SELECT job.id'""")
    db.sql(f"ALTER EXTENSION pushy UPDATE TO '{OWN}'")
    assert db.rows("SELECT id, checkpoint, of_job(typed) FROM typed") == [(7, None, 7)]
    assert db.value("SELECT j IS NULL FROM seen") is True


COLUMNS = """
    SELECT config::regclass::text, a.attname::text, a.attnotnull AND NOT a.atthasdef
      FROM pg_extension, unnest(extconfig) config JOIN pg_class c ON c.oid = config AND c.relkind = 'r'
      JOIN pg_attribute a ON a.attrelid = config AND a.attnum > 0 AND NOT a.attisdropped
     WHERE extname = 'pushy'"""


def test_a_dump_of_each_archived_version_finds_its_columns_and_no_other_must_be_said(installed, server):
    """CREATE EXTENSION in a dump makes the present version, and COPY names the columns that the dumped one had."""
    for version in versions.archived():
        versions.put_script(installed, version, versions.script(version))
        old, new = (server.database(extension=False) for _ in range(2))
        old.sql(f"CREATE EXTENSION pushy VERSION '{version}'")
        new.sql("CREATE EXTENSION pushy")
        had, has = ({(table, column): must for table, column, must in db.rows(COLUMNS)} for db in (old, new))
        assert had.keys() - has.keys() == set(), version
        assert [column for column, must in has.items() if must and column[0] in {table for table, _ in had} and column not in had] == [], version


def test_whoever_updates_makes_nothing_of_his_own_and_gives_others_nothing(installed, server):
    """One superuser has installed it; another, whose default privileges give all that he makes to somebody, updates it."""
    for version in versions.archived():
        if version == OWN:
            continue
        versions.put_script(installed, version, versions.script(version))
        db = server.database(extension=False)
        db.sql("""CREATE ROLE installer SUPERUSER; CREATE ROLE updater SUPERUSER; CREATE ROLE somebody;
                  ALTER DEFAULT PRIVILEGES FOR ROLE updater GRANT ALL ON TABLES TO somebody, PUBLIC; ALTER DEFAULT PRIVILEGES FOR ROLE updater GRANT ALL ON ROUTINES TO somebody;
                  ALTER DEFAULT PRIVILEGES FOR ROLE updater GRANT ALL ON TYPES TO somebody, PUBLIC; ALTER DEFAULT PRIVILEGES FOR ROLE updater GRANT ALL ON SEQUENCES TO somebody""")
        db.sql(f"SET ROLE installer; CREATE EXTENSION pushy VERSION '{version}'")
        db.sql("SET ROLE updater; ALTER EXTENSION pushy UPDATE; RESET ROLE")
        of_others = db.rows("""
            SELECT d.classid::regclass::text, pg_describe_object(d.classid, d.objid, 0), o.owner::regrole::text, o.acl::text
              FROM pg_depend d
              JOIN LATERAL (SELECT relowner, relacl FROM pg_class WHERE d.classid = 'pg_class'::regclass AND oid = d.objid
                            UNION ALL SELECT proowner, proacl FROM pg_proc WHERE d.classid = 'pg_proc'::regclass AND oid = d.objid
                            UNION ALL SELECT typowner, typacl FROM pg_type WHERE d.classid = 'pg_type'::regclass AND oid = d.objid) o (owner, acl) ON true
             WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pushy')
               AND (o.owner <> 'installer'::regrole OR o.acl::text ~ 'somebody|updater')""")
        assert of_others == []
        # The row type of a table has no privileges, and PUBLIC what was given by name.
        assert {(kind, name, rest.replace("installer", "postgres")) for kind, name, rest in versions.shape(db)} == made_at_once(server, OWN)


def test_an_update_to_the_next_version_makes_what_its_install_script_makes_and_a_forgotten_line_is_seen(installed, server):
    server.stop()
    versions.put_next(installed)
    versions.put_library(installed, NEXT)
    server.start()
    fresh = made_at_once(server, NEXT)
    assert len(fresh) > 500 and made_by_update(server, OWN, NEXT) == fresh
    for forgotten in ("GRANT EXECUTE ON FUNCTION pushy.parcel_count() TO PUBLIC;", "ALTER TABLE pushy_internal.parcel ENABLE ALWAYS TRIGGER refuse_write;",
                      "ALTER TABLE pushy_internal.subscription ALTER COLUMN stamp TYPE varchar;", "COMMENT ON VIEW pushy.parcels IS 'Parcels.';",
                      "SELECT pg_catalog.pg_extension_config_dump('pushy_internal.parcel', '');", " COST 2"):
        versions.put(installed, f"pushy--{OWN}--{NEXT}.sql", versions.BEGIN + versions.CHANGE.replace(forgotten, ""))
        assert made_by_update(server, OWN, NEXT) != fresh, forgotten


# -- a library and a script that do not belong together -------------------------------------------------------------

def shop(server: Cluster) -> Database:
    db = server.database("shop")
    db.sql(LEDGER)
    db.sql("""SELECT pushy.queue_register('q', 'note(jsonb)', max_attempts => 1);
              CREATE TABLE orders (id int PRIMARY KEY, v int);
              SELECT pushy.watch('orders', queue => 'q', args_expr => 'to_jsonb(NEW.id)', events => '{insert}')""")
    return db


def refusal(session: psycopg.Connection, statement: str) -> tuple[str, str]:
    with pytest.raises(psycopg.Error) as error:
        session.execute(statement)
    assert error.value.sqlstate == REFUSED, error.value
    return error.value.diag.message_primary, error.value.diag.message_hint


# A call of each kind: it reads, it writes, it is a view's, a trigger's, a procedure.
CALLS = ("SELECT pushy.enqueue('q', '1')", "SELECT * FROM pushy.queue_explain('q')", "SELECT pushy.queue_pause('q')", "SELECT * FROM pushy.queues",
         "SELECT * FROM pushy.jobs", "INSERT INTO orders VALUES (1)", "CALL pushy.jobs_wait('q')", "SELECT pushy.watch('ledger', channel => 'c')",
         "SELECT * FROM pushy.resume_after_restore()", "SELECT pushy.notify('news', 'x', delivery => 'relay')")


def test_an_old_script_is_refused_by_a_new_library_until_it_is_updated_and_nothing_is_lost(installed, server):
    db = shop(server)
    db.sql("SELECT pushy.queue_pause('q'); INSERT INTO orders VALUES (7); SELECT pushy.enqueue('q', '8', delay => '1 s')")
    server.stop()
    versions.put_next(installed)
    versions.put_library(installed, NEXT)
    server.start()

    assert db.rows("SELECT * FROM pushy.version()") == [(NEXT, OWN, False, "ALTER EXTENSION pushy UPDATE")]
    session = db.connect()
    for call in CALLS:
        message, hint = refusal(session, call)
        assert message == f"library {NEXT} of pushy does not work with script {OWN} of this database", call
        assert hint == "The extension's owner runs: ALTER EXTENSION pushy UPDATE.", call
    server.log.wait_for(f"library {NEXT} of pushy does not work with script {OWN}")
    wait_for("the workers to have left", lambda: workers(server, "shop"), lambda seen: seen == [])
    assert db.rows("SELECT count(*) FROM ledger") == [(0,)]

    db.sql("ALTER EXTENSION pushy UPDATE")
    assert db.rows("SELECT * FROM pushy.version()") == [(NEXT, NEXT, True, None)]
    # The same session, which has been refused.
    session.execute("SELECT pushy.queue_resume('q')")
    session.execute("INSERT INTO orders VALUES (9)")
    db.wait_until("SELECT array_agg(n ORDER BY n) FROM ledger", [7, 8, 9])


def test_jobs_that_waited_for_the_update_run_when_it_commits_and_nobody_calls(installed, server):
    db = shop(server)
    server.configure(pushy__enabled=False).restart()
    db.sql("SELECT pushy.enqueue('q', '1'), pushy.enqueue('q', '2', delay => '10 ms'); INSERT INTO orders VALUES (3)")
    server.stop()
    versions.put_next(installed)
    versions.put_library(installed, NEXT)
    server.configure(pushy__enabled=True).start()
    server.log.wait_for(f"library {NEXT} of pushy does not work with script {OWN}")
    db.sql("ALTER EXTENSION pushy UPDATE")
    db.wait_until("SELECT array_agg(n ORDER BY n) FROM ledger", [1, 2, 3])


def test_a_new_script_is_refused_by_the_old_library_and_all_goes_on_as_before(installed, server):
    db = shop(server)
    versions.put_next(installed)
    versions.put_library(installed, NEXT)
    # The server goes on with the library that it was started with.
    message, hint = refusal(db.main, "ALTER EXTENSION pushy UPDATE")
    assert message == f"library {OWN} of pushy does not work with script {NEXT} of this database"
    assert hint.startswith("Restart the server")
    assert db.rows("SELECT * FROM pushy.version()") == [(OWN, OWN, True, None)]
    other = server.database(extension=False)
    assert refusal(other.main, "CREATE EXTENSION pushy")[1].startswith("Restart the server")
    assert other.rows("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pushy%'") == []
    db.sql("INSERT INTO orders VALUES (1)")
    db.jobs_wait("q")
    server.restart()
    db.sql("ALTER EXTENSION pushy UPDATE; INSERT INTO orders VALUES (2)")
    db.jobs_wait("q")
    assert db.rows("SELECT n FROM ledger ORDER BY n") == [(1,), (2,)]


def test_a_library_that_finds_a_newer_script_calls_nothing_of_it(installed, server):
    """A standby whose library is old, or a script that was updated by hand."""
    db = shop(server)
    session = db.connect()
    session.execute("INSERT INTO orders VALUES (5)")
    db.jobs_wait("q")
    # As an update script that begins otherwise than it must would leave it, for sessions that come.
    db.sql(f"UPDATE pg_extension SET extversion = '{NEXT}' WHERE extname = 'pushy'")
    late = db.connect()
    for call in CALLS:
        message, hint = refusal(late, call)
        assert message == f"library {OWN} of pushy does not work with script {NEXT} of this database" and hint.startswith("Restart the server"), call
    assert late.execute("SELECT * FROM pushy.version()").fetchone() == (OWN, NEXT, False, "restart the server")
    db.sql(f"UPDATE pg_extension SET extversion = '{OWN}' WHERE extname = 'pushy'")
    db.connect().execute("INSERT INTO orders VALUES (2)")


def test_a_script_that_names_a_symbol_which_the_library_has_not_changes_nothing(installed, server):
    db = shop(server)
    before = versions.shape(db)
    change = versions.CHANGE + "CREATE FUNCTION pushy.job_retry(id bigint, at timestamptz) RETURNS boolean LANGUAGE c AS 'MODULE_PATHNAME', 'pushy_job_retry_v2';"
    versions.put_next(installed, change)
    server.stop()
    versions.put_library(installed, NEXT, OWN)
    server.start()
    with pytest.raises(psycopg.errors.UndefinedFunction, match="pushy_job_retry_v2"):
        db.sql("ALTER EXTENSION pushy UPDATE")
    assert versions.shape(db) == before
    db.sql("INSERT INTO orders VALUES (1)")
    db.jobs_wait("q")


# -- under load -----------------------------------------------------------------------------------------------------

CLIENTS = 4


class Load:
    """Clients that enqueue, and write a watched table, as fast as they can; each number once. Who is refused tries that number again."""

    def __init__(self, db: Database):
        self.db, self.ends, self.lock = db, threading.Event(), threading.Lock()
        self.done: list[int] = []
        self.refused = 0
        self.pool = ThreadPoolExecutor(CLIENTS)
        # They live through it all.
        self.sessions = [db.connect() for _ in range(CLIENTS)]
        self.clients = [self.pool.submit(self.work, client, session) for client, session in enumerate(self.sessions)]

    def work(self, client: int, session: psycopg.Connection) -> None:
        number = 1_000_000 * (client + 1)
        while not self.ends.is_set():
            try:
                session.execute("SELECT pushy.enqueue('q', to_jsonb(%s::int))" if number % 2 else "INSERT INTO orders VALUES (%s)", (number,))
            except psycopg.errors.ObjectNotInPrerequisiteState as error:
                assert error.diag.message_hint == "The extension's owner runs: ALTER EXTENSION pushy UPDATE.", error
                with self.lock:
                    self.refused += 1
                continue
            with self.lock:
                self.done.append(number)
            number += 1

    def wait_for_more(self, count: int = 100) -> None:
        goal = len(self.done) + count
        wait_for(f"{count} more", lambda: (len(self.done), [client.exception() for client in self.clients if client.done()]),
                 lambda seen: seen[0] >= goal or seen[1], evidence=self.db.cluster.log.tail)

    def end(self) -> list[int]:
        self.ends.set()
        for client in self.clients:
            client.result(timeout=60)
        self.pool.shutdown()
        return self.done


def updated_under_load(db: Database, works_before: bool) -> None:
    server = db.cluster
    load = Load(db)
    gate = None
    if works_before:
        load.wait_for_more()
        # One whose job runs, and one whose changes are prepared, over the update.
        gate = Gate(db)
        db.sql(f"CREATE FUNCTION held(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM {gate.stop}; INSERT INTO public.ledger VALUES (args::int); END$$;"
               "SELECT pushy.queue_register('held', 'held(jsonb)', max_attempts => 1); SELECT pushy.enqueue('held', '1')")
        gate.wait_for_arrival()
        preparing = db.connect()
        preparing.execute("BEGIN; SELECT pushy.enqueue('q', '2'); INSERT INTO orders VALUES (3); PREPARE TRANSACTION 'over the update'")
    reader = db.connect(autocommit=False)
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    db.sql("ALTER EXTENSION pushy UPDATE")
    load.wait_for_more()
    # Whose snapshot is from before.
    reader.execute("SELECT pushy.enqueue('q', '4')")
    reader.commit()
    expected = [4]
    if gate:
        db.sql("COMMIT PREPARED 'over the update'")
        gate.open()
        expected += [1, 2, 3]
    expected += load.end()
    if works_before:
        assert load.refused == 0
        db.jobs_wait("held")
    db.jobs_wait("q")
    assert sorted(n for n, in db.rows("SELECT n FROM ledger")) == sorted(expected), "each once"
    assert db.rows("SELECT * FROM pushy.failures") == []
    assert db.rows("SELECT * FROM pushy.version()") == [(NEXT, NEXT, True, None)]
    assert "PANIC" not in server.log.since() and "was terminated by signal" not in server.log.since()


@pytest.mark.parametrize("works_before", [True, False], ids=["the library works with both", "the library works with the new one"])
def test_an_update_under_load_loses_nothing_and_runs_nothing_twice(installed, server, works_before):
    db = shop(server)
    server.configure(max_prepared_transactions=10).stop()
    versions.put_next(installed)
    versions.put_library(installed, NEXT, *([OWN] if works_before else []))
    server.start()
    updated_under_load(db, works_before)
