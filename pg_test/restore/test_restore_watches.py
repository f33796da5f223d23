"""What dumps leave when they are restored in part, into other databases, in place: triggers without their watch, or with the
number of another. Every combination of pg_dump's and pg_restore's options that people use, of targets and roles, and after
each: every write succeeds, nothing reaches a watch that is not the table's own, and declaring a watch again mends it."""

import itertools

import psycopg
import pytest

from harness.database import Database
from stage.life import LEDGER

ALTOGETHER = ([], ["-c", "--if-exists"], ["--no-owner", "-x"], ["-N", "pushy*"], ["-n", "public"], ["-t", "t"], ["-s"], ["-a"])
PLAIN = ALTOGETHER + (["-c"], ["-s", "-x", "-O"], ["-n", "public", "-c", "--if-exists"], ["-t", "t", "-c", "--if-exists"],
                      ["-a", "--disable-triggers"], ["-a", "-t", "t"], ["--section=pre-data"], ["--section=post-data"])
# Of a whole dump in the archive's form.
ARCHIVE = ALTOGETHER + (["-n", "public", "-c", "--if-exists"], ["-t", "t", "-c", "--if-exists"], ["-a", "--disable-triggers"],
                        ["--section=pre-data", "--section=post-data"], ["--section=data"], ["-1"])
# The source itself comes last: what is restored there changes it.
TARGETS = ("new", "standing", "own", "template", "same")
# What is brought to another server and to a copy by template too; elsewhere it is the same as here.
ABROAD = ([], ["-s"], ["-t", "t", "-c", "--if-exists"])

# Each job says of which watch it is.
SHOP = """
    CREATE TABLE t (id int PRIMARY KEY, v varchar(20)); CREATE TABLE u (id int PRIMARY KEY, v varchar(20));
    CREATE TABLE p (k int, id int, PRIMARY KEY (k, id)) PARTITION BY LIST (k);
    CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);"""
WATCHES = (
    ("t", "plain", {}), ("t", "columns", {"columns": ["v"]}), ("u", "condition", {"condition": "coalesce(NEW.id, OLD.id) > 0"}),
    ("u", "statement", {"level": "statement", "payload": "none", "args_expr": None}), ("p", "parts", {}))
WRITES = {
    "t": "INSERT INTO t VALUES (9, 'a'); UPDATE t SET v = 'b' WHERE id = 9; DELETE FROM t WHERE id = 9",
    "u": "INSERT INTO u VALUES (9, 'a'); UPDATE u SET v = 'b' WHERE id = 9; DELETE FROM u WHERE id = 9",
    "p": "INSERT INTO p VALUES (1, 9); UPDATE p SET k = 2 WHERE id = 9; DELETE FROM p WHERE id = 9",
    "mine": "INSERT INTO mine VALUES (9); DELETE FROM mine WHERE id = 9",
}


def declare(session, table: str, name: str, options: dict) -> None:
    options = {"queue": "q", "name": name, "args_expr": f"jsonb_build_object('watch', '{table}.{name}')"} | options
    named = "".join(f", {option} => %s" for option in options)
    session.execute(f"SELECT pushy.watch(%s{named})", (table, *options.values()))


def furnish(db, owner: str, tables: str, watches: tuple) -> None:
    db.sql(LEDGER)
    db.sql(f"GRANT ALL ON SCHEMA public TO {owner}; GRANT USAGE ON SCHEMA pushy TO {owner}; ALTER TABLE ledger OWNER TO {owner}")
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.queue_pause('q'), pushy.queue_grant('q', 'public', 'enqueue')")
    with db.connect(user=owner) as session:
        session.execute(tables)
        for watch in watches:
            declare(session, *watch)


@pytest.fixture(scope="module")
def servers(new_cluster):
    made = [new_cluster({"max_connections": 60}), new_cluster({"max_connections": 60}, fresh=True)]
    for cluster in made:
        with cluster.connect() as admin:
            admin.execute("CREATE ROLE boss LOGIN")
    yield made
    for cluster in made:
        cluster.remove()


names = (f"d{n}" for n in itertools.count(1))


@pytest.fixture
def shop(servers):
    """A database with watches of every kind, whose owner is no superuser."""
    made = []

    def make(cluster, extension=True, options="") -> Database:
        made.append(cluster.database(next(names), extension=extension, options=f"OWNER boss {options}"))
        return made[-1]
    db = make(servers[0])
    furnish(db, "boss", SHOP, WATCHES)
    db.sql("INSERT INTO t VALUES (1, 'x'); INSERT INTO p VALUES (1, 1)")
    db.make, db.servers = make, servers
    yield db
    for database in reversed(made):
        database.drop()


def target_of(shop, kind: str, cluster) -> Database:
    if kind == "same":
        return shop
    if kind == "template":
        shop.close()
        with cluster.connect() as admin:
            admin.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s AND backend_type NOT LIKE 'pushy%%'", (shop.name,))
        return shop.make(cluster, extension=False, options=f"TEMPLATE {shop.name}")
    target = shop.make(cluster, extension=kind != "new")
    if kind == "own":
        # Its watches have the numbers of others, and one table has another's name.
        furnish(target, "boss", "CREATE TABLE mine (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY, v varchar(20))",
                (("mine", "first", {}), ("mine", "second", {}), ("u", "condition", {}), ("mine", "third", {})))
    return target


def check(target: Database, what: str) -> None:
    """Nothing that a dump may leave fails a write, or goes where it does not belong; a declaration mends it."""
    target.close()
    if not target.value("SELECT count(*) FROM pg_extension WHERE extname = 'pushy'"):
        return
    tables = [table for table, in target.rows("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
                                              "AND relname = ANY (%s)", list(WRITES))]

    def watches() -> dict:
        return {(table, name): state for table, name, state in target.rows("SELECT relation::text, name, state FROM pushy.watches")}

    def write(wanted: set) -> None:
        for table in tables:
            before = target.value("SELECT coalesce(max(id), 0) FROM pushy_internal.live_job")
            try:
                target.sql(WRITES[table])
            except psycopg.Error as error:
                raise AssertionError(f"{what}: a write of {table} failed: {error}") from error
            told = {args.get("watch", "u.statement") for args, in target.rows("SELECT args FROM pushy_internal.live_job WHERE id > %s", before)}
            assert told == {f"{of}.{name}" for of, name in wanted if of == table}, f"{what}: {table} told {told}, {watches()}"

    def active() -> set:
        return {watch for watch, state in watches().items() if state == "active"}
    write(active() if target.value("SELECT count(*) FROM pushy_internal.queue") else set())
    for name, resumed, reason in target.rows("SELECT name, resumed, reason FROM pushy.resume_after_restore()"):
        if " on " in name and resumed:
            watch, table = name.split(" on public.")
            assert (table, watch) in active(), f"{what}: {name} is said to be resumed, and is not: {watches()}"
        else:
            assert resumed or reason, (what, name)
    if not target.value("SELECT count(*) FROM pushy_internal.queue"):
        target.sql("DROP FUNCTION IF EXISTS note; DROP TABLE IF EXISTS ledger"), target.sql(LEDGER)
        target.sql("SELECT pushy.queue_register('q', 'note(jsonb)'), pushy.queue_pause('q'), pushy.queue_grant('q', 'public', 'enqueue')")
    write(active())
    declared = set()
    for table, name, options in WATCHES:
        if table in tables:
            declare(target.main, table, name, options)
            declared.add((table, name))
    assert declared <= active(), f"{what}: {watches()}"
    write(active())
    for table in tables:
        target.sql("SELECT pushy.unwatch(%s)", table)
        assert target.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname LIKE 'pushy%%'", table) == 0, what
    assert {watch for watch in watches() if watch[0] in tables} == set(), what
    write(set())


def restore(shop, target: Database, role: str, plain: list | None, archive: list | None, where: str, dumped: list = []) -> None:
    """By psql or pg_restore, whatever it complains of."""
    source, there = shop.servers[0], target.cluster
    path = source.folder / f"{shop.name}.dump"
    account = ["-h", source.folder, "-p", source.port, "-U", role]
    if plain is not None:
        source.run("pg_dump", *account, *plain, "-f", path, shop.name)
        there.run("psql", "-X", "-q", "-h", there.folder, "-p", there.port, "-U", role, "-d", target.name, "-f", path)
    else:
        source.run("pg_dump", *account, *dumped, "-Fc", "-f", path, shop.name)
        target.restored = there.run("pg_restore", "-h", there.folder, "-p", there.port, "-U", role, "-d", target.name, *archive, path, check=False)


@pytest.mark.parametrize("role", ["postgres", "boss"])
@pytest.mark.parametrize("form, options", [("plain", options) for options in PLAIN] + [("archive", options) for options in ARCHIVE],
                         ids=lambda value: value if isinstance(value, str) else "_".join(value) or "all")
def test_after_a_restore_writes_succeed_and_a_declaration_mends_the_watches(shop, role, form, options):
    here, there = shop.servers
    targets = [(here, kind) for kind in TARGETS]
    if options in ABROAD:
        targets = [(there, "own"), (there, "new")] + targets
    for cluster, kind in targets:
        if role == "boss" and kind == "new":
            continue  # Only a superuser can make the extension.
        if kind == "template" and options not in ABROAD:
            continue
        target = target_of(shop, kind, cluster)
        restore(shop, target, role, options if form == "plain" else None, options if form == "archive" else None, kind)
        check(target, f"{kind}, {'same' if cluster is shop.servers[0] else 'other'} server")


def test_the_owner_of_a_database_dumps_it_and_loads_what_is_his_without_an_error(shop):
    """Rows of queues, jobs and watches decide who runs: a superuser restores them, or they are declared again."""
    target = shop.make(shop.servers[0])
    restore(shop, target, "boss", None, ["--no-owner"], "standing", dumped=["-N", "pushy*", "--no-comments"])
    assert target.restored.returncode == 0, target.restored.stdout
    assert target.rows("SELECT state, count(*)::int FROM pushy.watches GROUP BY 1") == [("orphaned", len(WATCHES))]
    check(target, "the owner's own")


def test_a_trigger_without_its_watch_warns_once_a_session_and_table(shop):
    target = shop.make(shop.servers[0])
    restore(shop, target, "postgres", ["-n", "public"], None, "standing")
    said = []
    with target.connect() as session:
        session.add_notice_handler(lambda diagnostic: said.append((diagnostic.severity, diagnostic.message_primary, diagnostic.message_hint)))
        for _ in range(2):
            session.execute("INSERT INTO u VALUES (5), (6); DELETE FROM u")
    (severity, message, hint), = said
    assert (severity, message) == ("WARNING", 'changes of table public.u make no notices and no jobs: its triggers of watch "condition" are here without the watch')
    orphaned = target.rows("SELECT state, fix FROM pushy.watches WHERE relation = 'u'::regclass")
    assert orphaned
    for state, fix in orphaned:
        assert (state, fix.split("pushy.unwatch")[0]) == ("orphaned", "SELECT ")
        target.sql("SELECT" + fix.split("SELECT")[1])
    assert "SELECT pushy.unwatch('public.u', 'condition')" in hint
    assert target.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'u'::regclass") == 0


def test_numbers_of_watches_that_a_restore_has_set_back_are_passed_over(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    for name in ("a", "b", "c"):
        db.sql("SELECT pushy.watch('t', name => %s)", name)
    db.sql("SELECT setval('pushy_internal.watch_id_seq', 1)")
    db.sql("SELECT pushy.watch('t', name => 'd')")
    assert db.rows("SELECT name, state FROM pushy.watches ORDER BY 1") == [(name, "active") for name in "abcd"]


def test_a_table_restored_in_place_warns_that_its_watch_waits_and_how_it_goes_on(make_cluster):
    db = make_cluster().database("shop")
    db.sql("CREATE TABLE orders (id int PRIMARY KEY); SELECT pushy.watch('orders', name => 'w')")
    account = ["-h", db.cluster.folder, "-p", db.cluster.port, "-U", "postgres"]
    path = db.cluster.folder / "orders.sql"
    db.cluster.run("pg_dump", *account, "--clean", "-t", "orders", "-f", path, db.name)
    db.cluster.run("psql", "-X", "-q", *account, "-d", db.name, "-f", path)
    assert db.rows("SELECT name, state FROM pushy.watches") == [("w", "elsewhere")]
    said = []
    with db.connect() as session:
        session.add_notice_handler(lambda diagnostic: said.append((diagnostic.message_primary, diagnostic.message_hint)))
        session.execute("INSERT INTO orders VALUES (1)")
    (message, hint), = said
    assert message == 'changes of table public.orders make no notices and no jobs: watch "w" waits, because it or its table came here by a restore'
    assert "SELECT * FROM pushy.resume_after_restore()" in hint
    assert db.rows("SELECT name, resumed FROM pushy.resume_after_restore()") == [("w on public.orders", True)]
    said.clear()
    with db.connect() as session:
        session.add_notice_handler(lambda diagnostic: said.append(diagnostic.message_primary))
        session.execute("INSERT INTO orders VALUES (2)")
    assert said == []
