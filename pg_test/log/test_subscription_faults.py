"""A subscription's reader under faults: nothing lost, nothing twice, each row's changes in order."""

import random
import signal
import threading

import psycopg
import pytest

from stage.flow import Flow
from harness.waiting import wait_for

SETTINGS = {"max_connections": 260, "max_prepared_transactions": 50, "shared_buffers": "64MB"}


def relay(db) -> int | None:
    found = db.workers("relay")
    return found[0] if found else None


def pgbench(flow, script: str, *options, clients: int = 8, seconds: int | None = None, transactions: int | None = None,
            check: bool = True) -> str:
    path = flow.db.cluster.folder / f"script{random.randrange(10**9)}.sql"
    path.write_text(script)
    path.chmod(0o644)
    much = ["-T", seconds] if seconds else ["-t", transactions]
    return flow.db.cluster.run("pgbench", "-n", "-h", flow.db.cluster.folder, "-p", flow.db.cluster.port, "-U", "postgres",
                               "-c", clients, "-j", 2, *much, "-f", path, *options, flow.db.name, check=check).stdout


BUMP = "\\set id random(1, 20)\nSELECT bump(:id);\n"


def test_many_writers_that_commit_when_they_like(make_cluster):
    db = make_cluster(SETTINGS).database()
    flow = Flow(db, rows=400)
    script = ("\\set id random(1, 400)\n\\set ms random(0, 30)\nBEGIN;\nSELECT bump(:id);\n"
              "SELECT pg_sleep(:ms / 1000.0);\nSELECT bump(:id);\nEND;\n")
    with flow.reader():
        pgbench(flow, script, clients=200, transactions=12)
        flow.assert_balanced()
    assert db.value("SELECT sum(v) FROM counter") == 200 * 12 * 2


def test_savepoints_and_transactions_rolled_back(db):
    flow = Flow(db, rows=4)
    writer = db.connect(autocommit=False)
    dice = random.Random(3)
    for _ in range(60):
        for _ in range(dice.randrange(4)):
            writer.execute("SAVEPOINT s")
            writer.execute("SELECT bump(%s)", (dice.randrange(1, 5),))
            writer.execute(dice.choice(["ROLLBACK TO s", "RELEASE s"]))
        writer.execute("SELECT bump(%s)", (dice.randrange(1, 5),))
        dice.choice([writer.commit, writer.commit, writer.rollback])()
    flow.assert_balanced()


def test_two_phase_commits_are_read_when_they_are_committed(make_cluster):
    db = make_cluster(SETTINGS).database()
    flow = Flow(db, rows=20)
    for n in range(1, 11):
        with db.connect(autocommit=False) as writer:
            writer.execute("SELECT bump(%s)", (n,))
            writer.execute(f"PREPARE TRANSACTION 'p{n}'")
            writer.rollback()
    db.sql("SELECT bump(20)")
    db.sql("CALL pushy.subscription_wait('s', '20 s')")
    assert flow.consume_all() == 1, "what is prepared is not committed"
    db.sql("COMMIT PREPARED 'p1'")
    db.sql("CALL pushy.subscription_wait('s', '20 s')")
    assert flow.consume_all() == 1
    db.sql("ROLLBACK PREPARED 'p2'")
    db.cluster.crash()
    db.sql("COMMIT PREPARED 'p3'")
    flow.assert_balanced()
    db.cluster.restart()
    for n in range(4, 11):
        db.sql(f"COMMIT PREPARED 'p{n}'")
    flow.assert_balanced()
    assert db.value("SELECT count(*) FROM effects") == 10


def test_a_long_transaction_delays_nobody_and_loses_nothing(db):
    flow = Flow(db, rows=4)
    idle = db.connect(autocommit=False, options="-c default_transaction_isolation=repeatable\\ read")
    idle.execute("SELECT count(*) FROM counter; SELECT pg_current_xact_id()")
    long = db.connect(autocommit=False)
    long.execute("SELECT bump(1)")
    for n in range(5):
        db.sql("SELECT bump(2)")
        db.sql("CALL pushy.subscription_wait('s', '20 s')")
        assert flow.consume_all() == 1, n
    long.execute("SELECT bump(1)")
    long.commit()
    flow.assert_balanced()
    idle.rollback()
    flow.assert_balanced()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_relay_that_is_ended_again_and_again(db, how):
    flow = Flow(db)
    with flow.reader():
        for _ in range(8):
            pgbench(flow, BUMP, clients=4, transactions=25)
            pid = relay(db)
            if pid:
                db.cluster.kill(pid, how)
        flow.assert_balanced()


@pytest.mark.parametrize("synchronous", ["on", "off"])
def test_a_server_that_crashes_under_load(make_cluster, synchronous):
    db = make_cluster(SETTINGS | {"synchronous_commit": synchronous, "fsync": "on"}).database()
    flow = Flow(db)
    with flow.reader():
        for _ in range(3):
            pgbench(flow, BUMP, clients=4, transactions=60)
            db.cluster.crash(relay(db))
            flow.assert_in_order()
        flow.assert_balanced()


def test_a_crash_in_the_midst_of_writing_with_asynchronous_commit(make_cluster):
    """What the crash takes back was never acknowledged; what stays is read once."""
    db = make_cluster(SETTINGS | {"synchronous_commit": "off", "wal_writer_delay": "200ms"}).database()
    flow = Flow(db)
    with flow.reader():
        for _ in range(3):
            before = db.cluster.log.position()
            seen = db.value("SELECT sum(v) FROM counter")
            load = threading.Thread(target=pgbench, args=(flow, BUMP), kwargs={"clients": 6, "seconds": 60, "check": False})
            load.start()
            db.wait_until("SELECT sum(v) FROM counter", lambda now: now > seen + 100)
            victim = db.value("SELECT min(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'")
            db.cluster.kill(victim)
            db.cluster.wait_recovered(before)
            load.join()
        flow.assert_balanced()


def test_immediate_stops(make_cluster):
    db = make_cluster(SETTINGS).database()
    flow = Flow(db)
    with flow.reader():
        for _ in range(3):
            pgbench(flow, BUMP, clients=4, transactions=40)
            db.cluster.restart("immediate")
        flow.assert_balanced()


def test_cursors_are_never_given_out_twice(make_cluster):
    db = make_cluster(SETTINGS | {"synchronous_commit": "off"}).database()
    flow = Flow(db)
    seen: dict[str, str] = {}
    for _ in range(4):
        for n in range(5):
            db.sql("SELECT bump(%s)", n + 1)
        db.sql("CALL pushy.subscription_wait('s', '20 s')")
        found = db.rows("SELECT cursor, payload FROM pushy.subscription_read('s', 1000)")
        assert found
        for cursor, payload in found:
            assert seen.setdefault(cursor, payload) == payload
        db.cluster.crash(relay(db))
    flow.assert_balanced()


def test_the_log_turns_while_it_is_read(make_cluster):
    db = make_cluster(SETTINGS | {"pushy.log_max_size": "8MB"}).database()
    flow = Flow(db)
    script = "\\set id random(1, 20)\nSELECT bump(:id, repeat('x', 2000));\n"
    with flow.reader():
        for _ in range(8):
            pgbench(flow, script, clients=4, transactions=250)
            flow.assert_balanced()
    assert db.value("SELECT count(*) FROM pushy_internal.log_part WHERE part <> 0 AND opened_at IS NOT NULL") >= 1
    assert db.value("SELECT lost_epoch FROM pushy_internal.log_state") > 0, "16 MB went through a log of 8"
    assert db.value("SELECT bytes FROM pushy.log") < 12 << 20


def test_promotion_of_a_standby_goes_on_with_new_cursors(make_cluster):
    primary = make_cluster(SETTINGS | {"wal_level": "replica", "hot_standby": "on"})
    db = primary.database()
    flow = Flow(db)
    standby = primary.standby()
    pgbench(flow, BUMP, clients=4, transactions=50)
    db.sql("CALL pushy.subscription_wait('s', '20 s')")
    db.sql("SELECT consume()")
    target = db.value("SELECT pg_current_wal_lsn()")
    epoch = db.value("SELECT epoch FROM pushy_internal.log_state")
    there = db.of(standby)
    there.wait_until("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", True, params=(target,))
    primary.stop("immediate")
    standby.promote()
    flow.db = there
    there.sql("SELECT bump(1)")
    flow.assert_balanced(resyncs=1)
    assert there.value("SELECT epoch FROM pushy_internal.log_state") > epoch + 900_000_000, "a new timeline"
    wait_for("the standby's relay", lambda: there.workers("relay"), lambda found: len(found) == 1)
