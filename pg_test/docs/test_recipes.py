"""docs/recipes.md: its SQL and its programs, run as they stand there."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest
from harness.gate import Gate
from harness.installation import REPOSITORY
from harness.waiting import DEADLINE

BLOCK = re.compile(r"^```(sql|python)\n(?:--|#) (\S+)\n(.*?)^```$", re.M | re.S)
BLOCKS = {name: text for _, name, text in BLOCK.findall((REPOSITORY / "docs" / "recipes.md").read_text())}


class Program:
    """A running program of the recipes, read line by line."""

    def __init__(self, path, db):
        environment = os.environ | {"PGHOST": str(db.cluster.folder), "PGPORT": str(db.cluster.port), "PGUSER": "postgres",
                                    "PGDATABASE": db.name, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(REPOSITORY / "clients" / "python" / "src")}
        self.process = subprocess.Popen([sys.executable, path], env=environment, stdout=subprocess.PIPE, text=True)
        # A program that says nothing more is ended, and its output with it.
        self.guard = threading.Timer(DEADLINE, self.process.kill)
        self.guard.start()

    def line(self) -> str:
        return self.process.stdout.readline().rstrip("\n")

    def stop(self) -> None:
        self.guard.cancel()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def run(db, tmp_path):
    """Runs a program of the recipes and waits until it listens."""
    running = []

    def start(name: str) -> Program:
        path = tmp_path / name
        path.write_text(BLOCKS[name])
        program = Program(path, db)
        running.append(program)
        assert program.line()
        return program

    yield start
    for program in running:
        program.stop()


def set_up(db, name: str) -> None:
    db.cluster.psql(db.name, BLOCKS[name], "-v", "ON_ERROR_STOP=1")


def test_every_block_is_run_by_a_test():
    assert set(BLOCKS) == {"subscribers.sql", "listener.py", "copies.sql", "copier.py", "monitoring.sql", "monitor.py", "cache.sql", "product_cache.py",
                           "services.sql", "figures.sql", "dashboard.py", "chunks.sql", "nightly.sql", "django_orders.py", "django_worker.py", "sqlalchemy_orders.py", "sqlalchemy_worker.py",
                           "dead_letters.sql", "dead_errors.sql", "dead_again.sql"}


def test_subscribers_hear_what_is_committed(db, run):
    set_up(db, "subscribers.sql")
    listener = run("listener.py")
    with db.connect() as writer:
        writer.execute("BEGIN; INSERT INTO news (title) VALUES ('never said'); ROLLBACK")
        writer.execute("INSERT INTO news (title) VALUES ('It works')")
        pid = writer.info.backend_pid
    line = listener.line()
    relay, said = line.split(" ", 1)
    assert said.startswith(f'news {{"v":1,"op":"insert","schema":"public","table":"news","key":{{"id":2}},"pid":{pid},'), line
    assert [int(relay)] == db.workers("relay")


def test_a_copy_misses_nothing_of_what_is_committed_while_its_reader_is_away(db, run):
    set_up(db, "copies.sql")
    equal = """SELECT (SELECT array_agg(m ORDER BY id)::text FROM member m) IS NOT DISTINCT FROM (SELECT array_agg(c ORDER BY id)::text FROM member_copy c)"""
    db.sql("INSERT INTO member VALUES (1, 'Ann'), (2, 'Bob')")
    first = run("copier.py")
    db.sql("UPDATE member SET id = 3, name = 'Cid' WHERE id = 2")
    db.wait_until(equal)
    first.process.kill()
    first.process.wait()
    db.sql("DELETE FROM member WHERE id = 1; INSERT INTO member VALUES (4, 'Dan')")
    second = run("copier.py")
    db.sql("INSERT INTO member VALUES (5, 'Eve')")
    db.wait_until(equal)
    # As references: one that the reader follows, and one that is kept no longer.
    db.sql("INSERT INTO member VALUES (6, repeat('long', 9000))")
    db.wait_until(equal)
    second.process.kill()
    second.process.wait()
    db.sql("UPDATE member SET name = repeat('longer', 9000) WHERE id = 6; DELETE FROM pushy_internal.oversize_notice; DELETE FROM member WHERE id = 3")
    third = run("copier.py")
    db.wait_until(equal)
    db.sql("TRUNCATE member")
    db.wait_until(equal)
    assert third.line().startswith("applied")
    assert second.line().startswith("applied")


def test_monitoring_tells_what_is_worth_it(db, run):
    set_up(db, "monitoring.sql")
    monitor = run("monitor.py")
    db.sql("INSERT INTO measurement (sensor, celsius) SELECT 'boiler', c FROM unnest('{20,95.5,30}'::float8[]) c")
    assert monitor.line() == "ALARM boiler is at 95.5 °C"


def test_the_cache_is_never_stale(db, monkeypatch):
    set_up(db, "cache.sql")
    db.sql("INSERT INTO product VALUES (1, 'nail', 1), (2, 'screw', 0)")
    for name, value in {"PGHOST": db.cluster.folder, "PGPORT": db.cluster.port, "PGUSER": "postgres", "PGDATABASE": db.name}.items():
        monkeypatch.setenv(name, str(value))
    module: dict = {}
    exec(BLOCKS["product_cache.py"], module)
    cache = module["ProductCache"]()
    try:
        assert [cache.get(1), cache.get(1)] == [("nail", 1)] * 2
        assert (cache.hits, cache.misses) == (1, 1)
        # Each answer is at least as new as what was committed before it was asked for, by several writers.
        stop = threading.Event()
        committed = [0]

        def write() -> None:
            with db.connect() as writer:
                while not stop.is_set():
                    writer.execute("UPDATE product SET price = price + 1 WHERE id = 2")
                    committed[0] = writer.execute("SELECT price FROM product WHERE id = 2").fetchone()[0]

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(300):
                known = committed[0]
                assert cache.get(2)[1] >= known
        finally:
            stop.set()
            writer.join()
        db.sql("UPDATE product SET id = 3 WHERE id = 1")
        assert (cache.get(1), cache.get(3)) == (None, ("nail", 1))
        db.sql("TRUNCATE product")
        assert cache.get(3) is None
    finally:
        cache.connection.close()


def test_services_react_to_each_other(make_cluster):
    db = make_cluster().database()
    set_up(db, "services.sql")
    with db.connect("sales") as sales:
        sales.execute("INSERT INTO sales.purchase VALUES (1, 5), (2, 500)")
    db.jobs_wait("invoice")
    db.jobs_wait("ship")
    assert db.rows("SELECT id, state FROM sales.purchase ORDER BY id") == [(1, "shipped"), (2, "new")]
    assert db.rows("SELECT purchase, paid FROM billing.invoice ORDER BY purchase") == [(1, True), (2, False)]
    shipped = db.value("SELECT id FROM pushy.jobs WHERE queue = 'ship'")
    tree = db.rows("SELECT tree, depth, state FROM pushy.job_trace(%s)", shipped)
    cause = db.value("SELECT caused_by FROM pushy.jobs WHERE id = %s", shipped)
    assert tree == [(f"invoice {cause}", 0, "completed"), (f"└─ ship {shipped}", 1, "completed")]


def test_figures_are_live(db, run):
    set_up(db, "figures.sql")
    dashboard = run("dashboard.py")
    db.sql("INSERT INTO sale (shop, amount) VALUES ('Ulm', 10.5)")
    assert dashboard.line() == "Ulm 1 10.5"
    db.sql("INSERT INTO sale (shop, amount) VALUES ('Ulm', 2)")
    assert dashboard.line() == "Ulm 2 12.5"


def test_a_table_is_worked_through_in_chunks_and_each_row_counts_once(db):
    """The first attempt is ended in the midst of it."""
    set_up(db, "chunks.sql")
    db.sql("INSERT INTO visit (page, at) SELECT 'p' || n % 3, now() - interval '2 days' FROM generate_series(1, 5000) n")
    db.sql("INSERT INTO visit (page) VALUES ('p1')")
    gate = Gate(db)
    db.sql(f"""
        CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN IF (SELECT count(*) FROM public.visit) < 2500 THEN PERFORM {gate.stop}; END IF; RETURN NULL; END$$;
        CREATE TRIGGER stop AFTER DELETE ON visit FOR EACH STATEMENT EXECUTE FUNCTION stop()""")
    set_up(db, "nightly.sql")
    (pid,) = gate.wait_for_arrival()
    job = db.value("SELECT id FROM pushy.jobs")
    assert db.value("SELECT checkpoint FROM pushy.jobs") == {"done": 2000}
    db.sql("SELECT pg_terminate_backend(%s)", pid)
    gate.open()
    assert db.job_wait(job)["state"] == "completed"
    assert db.rows("SELECT page, sum(visits)::int FROM page_visits GROUP BY page ORDER BY page") == [("p0", 1666), ("p1", 1667), ("p2", 1667)]
    assert db.value("SELECT count(*) FROM visit") == 1
    assert db.value("SELECT message FROM pushy.job_logs") == f"rolled up what was before {db.value('SELECT current_date')}"


DJANGO = """
import os, threading, django
from django.conf import settings
settings.configure(USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", INSTALLED_APPS=[], DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"], "USER": "postgres", "NAME": os.environ["PGDATABASE"]}})
django.setup()
"""
SQLALCHEMY = """
import os, threading
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
engine = create_engine("postgresql+psycopg://", connect_args={"dbname": os.environ["PGDATABASE"]})
"""
# An order, one that is rolled back, and the worker until it has mailed both of those that were placed.
PLAY = {"django": """
with connection.schema_editor() as editor:
    editor.create_model(Order)
connection.cursor().execute("SELECT pushy.queue_register('mails', max_attempts => 8)")
try:
    with transaction.atomic():
        place_order("never@example.org")
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
for address in ("ann@example.org", "bob@example.org"):
    order = place_order(address)
    # Who repeats it is answered the same job.
    assert enqueue("mails", {"order": order.pk}, unique_key=f"order/{order.pk}") == enqueue("mails", {"order": order.pk}, unique_key=f"order/{order.pk}")
""", "sqlalchemy": """
Base.metadata.create_all(engine)
with Session(engine) as session:
    session.execute(text("SELECT pushy.queue_register('mails', max_attempts => 8)"))
    session.commit()
    place_order(session, "never@example.org")
    session.rollback()
    for address in ("ann@example.org", "bob@example.org"):
        place_order(session, address)
        session.commit()
"""}


@pytest.mark.parametrize("framework", ["django", "sqlalchemy"])
def test_frameworks_enqueue_in_their_transactions_and_complete_in_those_of_their_handlers(db, tmp_path, framework):
    table = {"django": "shop_order", "sqlalchemy": "orders"}[framework]
    path = tmp_path / "play.py"
    path.write_text({"django": DJANGO, "sqlalchemy": SQLALCHEMY}[framework] + BLOCKS[f"{framework}_orders.py"] + PLAY[framework]
                    + BLOCKS[f"{framework}_worker.py"] + 'print("working", flush=True)\nworker.run()\n')
    program = Program(path, db)
    try:
        assert program.line() == "working"
        db.wait_until("SELECT array_agg(state::text) FROM pushy.jobs", ["completed", "completed"])
        assert db.rows(f"SELECT address, mails FROM {table} ORDER BY id") == [("ann@example.org", 1), ("bob@example.org", 1)]
        # A handler whose job is cancelled meanwhile writes nothing.
        db.sql(f"INSERT INTO {table} (address, mails) VALUES ('cid@example.org', 0)")
        with db.connect(autocommit=False) as holder:
            holder.execute(f"SELECT FROM {table} WHERE address LIKE 'cid%' FOR UPDATE")
            job = db.value(f"SELECT pushy.enqueue('mails', jsonb_build_object('order', id)) FROM {table} WHERE address LIKE 'cid%'")
            db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()", 1)
            db.sql("SELECT pushy.job_cancel(%s)", job)
            holder.rollback()
        program.process.send_signal(signal.SIGTERM)
        program.process.wait(DEADLINE)
        assert db.value("SELECT state FROM pushy.jobs WHERE id = %s", job) == "cancelled"
        assert db.value(f"SELECT mails FROM {table} WHERE address LIKE 'cid%'") == 0
    finally:
        program.stop()


def test_jobs_that_failed_for_good_are_found_and_run_again_in_bulk(db):
    set_up(db, "dead_letters.sql")
    db.jobs_wait("bookings")
    errors, jobs = BLOCKS["dead_errors.sql"].strip().split(";\n")
    assert sorted(row[:2] for row in db.rows(errors)) == [(f"account {n} does not exist", 2) for n in (1, 2, 3)]
    assert [args["cents"] for _, args, *_ in db.rows(jobs)] == [20, 50]
    db.sql("INSERT INTO account VALUES (3, 0)")
    assert db.rows(BLOCKS["dead_again.sql"]) == [(2,)]
    db.jobs_wait("bookings")
    assert db.value("SELECT cents FROM account") == 70
    assert db.rows("SELECT state, count(*) FROM pushy.jobs GROUP BY state ORDER BY state") == [("completed", 2), ("discarded", 4)]
