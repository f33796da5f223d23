"""What strangers hold, have and declare is not felt: views wait for none of their locks, rights that were taken back end a wait, and their
declarations delay nobody's subscription."""

import threading
import time

import psycopg
import pytest

from harness.waiting import PATIENCE


@pytest.fixture
def two(db, role):
    db.mallory, db.victim = role(), role()
    for name in (db.mallory, db.victim):
        db.sql(f"CREATE SCHEMA {name} AUTHORIZATION {name}")
        with db.connect(user=name) as session:
            session.execute(f"CREATE FUNCTION {name}.f(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('{name}', '{name}.f(jsonb)')")
    return db


def test_no_view_waits_for_what_a_stranger_has_locked(two):
    tables = ("p", "p1", "p2", "n")
    with two.connect(user=two.mallory, autocommit=False) as mallory:
        m = two.mallory
        mallory.execute(f"""
            CREATE TABLE {m}.p (id int PRIMARY KEY, x text) PARTITION BY RANGE (id);
            CREATE TABLE {m}.p1 PARTITION OF {m}.p FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
            CREATE TABLE {m}.p2 PARTITION OF {m}.p1 FOR VALUES FROM (0) TO (5);
            CREATE TABLE {m}.n (id int PRIMARY KEY, x text);
            SELECT pushy.watch('{m}.p', channel => 'p', condition => 'NEW.x IS NOT NULL'), pushy.watch('{m}.n', channel => 'n', condition => 'NEW.x IS NOT NULL')""")
        mallory.commit()
        views = [name for name, in two.rows("SELECT viewname FROM pg_views WHERE schemaname = 'pushy' ORDER BY 1")]
        for table in tables:
            mallory.execute(f"LOCK TABLE {m}.{table} IN ACCESS EXCLUSIVE MODE")
            for user in ("postgres", two.victim):
                with two.connect(user=user) as session:
                    session.execute("SET lock_timeout = '1 s'")
                    for view in views:
                        session.execute(f"SELECT * FROM pushy.{view}")
                    session.execute("SELECT * FROM pushy.resume_after_restore()")
            mallory.rollback()


def test_the_view_of_watches_shows_partitions_of_partitions_that_fire_no_more(db):
    db.sql("""CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
        CREATE TABLE p2 PARTITION OF p1 FOR VALUES FROM (0) TO (5);
        SELECT pushy.watch('p')""")
    assert db.value("SELECT state FROM pushy.watches") == "active"
    db.sql("ALTER TABLE p2 DISABLE TRIGGER ALL")
    assert db.value("SELECT state FROM pushy.watches") == "disabled"


def test_job_wait_answers_nothing_to_whom_the_right_was_taken_meanwhile(two):
    with two.connect(user=two.victim) as victim, two.connect(user=two.mallory) as mallory:
        victim.execute(f"SELECT pushy.queue_pause('{two.victim}'); SELECT pushy.queue_grant('{two.victim}', '{two.mallory}', 'monitor')")
        job = victim.execute("SELECT pushy.enqueue(%s, '{\"secret\": 1}')", (two.victim,)).fetchone()[0]
        said = []

        def wait():
            try:
                said.append(mallory.execute("SELECT (pushy.job_wait(%s, '60 s')).args", (job,)).fetchone())
            except psycopg.Error as error:
                said.append(error.diag.message_primary)
        thread = threading.Thread(target=wait)
        thread.start()
        two.wait_until("SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND wait_event IS NOT NULL AND wait_event_type NOT IN ('Client', 'Lock', 'LWLock', 'IO')", 1, params=(mallory.info.backend_pid,))
        victim.execute(f"SELECT pushy.queue_revoke('{two.victim}', '{two.mallory}', 'monitor'); SELECT pushy.queue_resume('{two.victim}')")
        thread.join()
    assert said == [f"job {job} does not exist"]


def test_a_stranger_who_declares_all_the_time_starves_no_subscription(two):
    """The relay began again at the first subscription with each change of any definition, so that those behind had no turn."""
    m, v = two.mallory, two.victim
    with two.connect(user=m) as mallory, two.connect(user=v) as victim, two.connect(user=m) as storm:
        mallory.execute(f"SELECT count(pushy.subscription_create('a' || g, '{{{{c}}}}', queue => '{m}')) FROM generate_series(1, 300) g".replace("{{", "{").replace("}}", "}"))
        victim.execute(f"SELECT pushy.subscription_create('z', '{{{v}}}', queue => '{v}')")
        ends = threading.Event()

        def declare():
            while not ends.is_set():
                storm.execute(f"SELECT pushy.queue_grant('{m}', 'public', 'monitor'); SELECT pushy.queue_revoke('{m}', 'public', 'monitor')")
        thread = threading.Thread(target=declare)
        thread.start()
        try:
            for n in range(3):
                began = time.monotonic()
                victim.execute("SELECT pushy.notify(%s, %s, delivery => 'relay')", (v, str(n)))
                two.wait_until("SELECT count(*) FROM pushy.jobs WHERE queue = %s AND args->>'payload' = %s", 1, params=(v, str(n)))
                assert time.monotonic() - began < 2 * PATIENCE
        finally:
            ends.set()
            thread.join()


def test_names_that_a_stranger_makes_unreadable_are_shown_to_all(shared_cluster):
    """SQL_ASCII takes any bytes for a name, so that a table or a handler can be renamed to what is no UTF-8."""
    db = shared_cluster.database(options="TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        db.sql("""CREATE SCHEMA m;
            CREATE FUNCTION m.f(jsonb) RETURNS void LANGUAGE sql AS '';
            CREATE TABLE m.t (id int PRIMARY KEY, x text);
            SELECT pushy.queue_register('q', 'm.f(jsonb)'), pushy.watch('m.t', queue => 'q', channel => 'c', condition => 'NEW.x IS NOT NULL')""")
        views = [name.decode() for name, in db.rows("SELECT viewname::text FROM pg_views WHERE schemaname = 'pushy'")]
        with db.connect() as session:
            session.execute("SET client_encoding = 'SQL_ASCII'")
            for renamed in (b'ALTER FUNCTION m.f(jsonb) RENAME TO "f\xff"', b'ALTER TABLE m.t RENAME x TO "x\xff"', b'ALTER TABLE m.t RENAME TO "t\xff"',
                            b'ALTER SCHEMA m RENAME TO "m\xff"', b'ALTER TABLE "m\xff"."t\xff" DROP COLUMN "x\xff" CASCADE'):
                session.execute(renamed)
                for what in (*(f"pushy.{view}" for view in views), "pushy.resume_after_restore()", "pushy.queue_explain('q')"):
                    session.execute(f"SELECT count(r::text) FROM {what} r")
    finally:
        db.drop()


@pytest.mark.parametrize("gone", [False, True], ids=["their tables are there", "their tables were dropped"])
@pytest.mark.parametrize("call", ["SELECT pushy.watch('{0}.t')", "SELECT pushy.queue_drop('{0}')"])
def test_a_declaration_does_not_look_for_the_tables_of_strangers_watches(two, call, gone):
    """Each look goes through the triggers of all watches; counted, as the server counts calls of functions."""
    m, v = two.mallory, two.victim
    with two.connect(user=m) as mallory:
        for number in range(20):
            mallory.execute(f"CREATE TABLE {m}.t{number} (id int PRIMARY KEY); SELECT pushy.watch('{m}.t{number}')")
        if gone:
            mallory.execute("; ".join(f"DROP TABLE {m}.t{number}" for number in range(20)))
    two.sql(f"CREATE TABLE {v}.t (id int PRIMARY KEY); ALTER TABLE {v}.t OWNER TO {v}")
    two.sql(f"ALTER DATABASE \"{two.name}\" SET track_functions = 'all'")
    with two.connect(user=v, autocommit=False) as victim:
        assert victim.execute("SHOW track_functions").fetchone() == ("all",)
        victim.execute(call.format(v))
        calls = dict(victim.execute("SELECT funcname, sum(calls) FROM pg_stat_xact_user_functions GROUP BY 1").fetchall())
        assert calls.get("watch") or calls.get("queue_drop"), "they are counted"
        assert "watch_elsewhere" not in calls
        victim.commit()
    assert two.value("SELECT count(*) FROM pushy_internal.watch WHERE relation_name LIKE %s", f"%{m}%") == (0 if gone else 20)
