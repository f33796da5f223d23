"""A backup of any length, and a standby that serves queries: what is locked is emptied in place, and nobody is disturbed."""

import os
import subprocess
import threading
import time

import pytest
from stage.flow import Flow
from harness import account
from harness.waiting import wait_for
from stage.windows import end, enqueue, fill_a_window, prepare, rows_in, wake_scheduler

MB = 1 << 20


def tables(db) -> str:
    return db.value("SELECT string_agg(format('pushy_internal.%I', relname), ', ') FROM pg_class"
                    " WHERE relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[]) AND relkind = 'r'")


class Writer:
    """1,000 notices a second of some 300 bytes, until it is told to end."""

    EACH = 20

    def __init__(self, db):
        self.db, self.written = db, 0
        self._end = threading.Event()
        self._session = db.connect()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        began = time.monotonic()
        while not self._end.wait(max(0, self.written / 1000 - (time.monotonic() - began))):
            self._session.execute(
                "SELECT pushy.notify('news', n || ':' || repeat('x', 250), delivery => 'relay') FROM generate_series(%s::int, %s::int) n",
                [self.written + 1, self.written + self.EACH])
            self.written += self.EACH

    def end(self) -> int:
        self._end.set()
        self._thread.join()
        return self.written


class Reader:
    """Reads subscription `news` and acknowledges, batch after batch."""

    def __init__(self, db):
        self.db = db
        self.session = db.connect()
        self.seen, self.resyncs = 0, 0

    def read(self) -> int:
        found = self.session.execute(
            "SELECT split_part(payload, ':', 1)::int, resync, cursor FROM pushy.subscription_read('news', 5000)").fetchall()
        for number, resync, _ in found:
            self.resyncs += resync
            if not resync:
                assert number == self.seen + 1, f"{number} after {self.seen}"
                self.seen = number
        if found:
            self.session.execute("SELECT pushy.subscription_ack('news', %s)", [found[-1][2]])
        return self.seen


def log_bytes(db) -> int:
    return db.value("SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c WHERE c.relnamespace = ANY (ARRAY['pushy', 'pushy_internal']::regnamespace[])"
                    " AND c.relkind = 'r' AND c.relname ~ '^(log|tick)_[0-9]'")


def test_all_tables_read_for_three_times_the_retention_cost_no_notice_and_the_log_stays_bounded(make_cluster):
    keep, most = 10, 4
    db = make_cluster({"pushy.log_keep": f"{keep}s", "pushy.log_max_size": f"{most}MB", "pushy.executor_linger": "2s"}).database()
    db.sql("SELECT pushy.subscription_create('news', '{news}')")
    ear = db.listen("news")
    reader = Reader(db)
    backup = db.connect(autocommit=False)
    # As pg_dump begins.
    backup.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    backup.execute(f"LOCK TABLE {tables(db)} IN ACCESS SHARE MODE")
    backup.execute("SELECT count(*) FROM pushy_internal.log_0")
    writer = Writer(db)
    began, largest = time.monotonic(), 0
    wait_for("three times the retention", lambda: (reader.read(), time.monotonic() - began)[1], lambda passed: passed > 3 * keep,
             deadline=10 * keep)
    largest = log_bytes(db)
    # What was used again holds as much as what was new: more than half of what may be kept.
    assert db.value("SELECT notices FROM pushy.log") * 330 > most * MB / 2
    written = writer.end()
    # What was written is several times the log.
    assert written * 330 > 2 * most * MB, written
    wait_for("all to be read", reader.read, lambda seen: seen == written)
    assert reader.resyncs == 0
    last = ear.wait_for(lambda notice: notice.payload.startswith(f"{written}:"))
    assert last and len(ear.heard) == written
    assert db.value("SELECT is_full FROM pushy.log") is False
    assert largest < 2.5 * most * MB, largest
    backup.rollback()
    # Given back to the disk by itself, once nobody reads and nobody writes.
    wait_for("the log to shrink", lambda: log_bytes(db), lambda size: size < MB, deadline=150)


@pytest.mark.parametrize("after", ["nothing", "a crash"])
def test_a_vacuum_by_somebody_else_keeps_no_part_from_being_used_again(make_cluster, after):
    """VACUUM by hand, by autovacuum, or against wraparound marks pages as seen by everybody. What is emptied there is gone all the
    same, the marks are right at each moment, also after a crash, and the log stays as big as it may be."""
    most = 1
    db = make_cluster({"pushy.log_max_size": f"{most}MB"}).database()
    db.sql("CREATE EXTENSION pg_visibility; SELECT pushy.subscription_create('news', '{news}')")
    reader = Reader(db)
    backup = db.connect(autocommit=False)
    backup.execute(f"LOCK TABLE {tables(db)} IN ACCESS SHARE MODE")
    parts = [f"pushy_internal.{kind}_{part}" for kind in ("log", "tick") for part in range(6)]
    marked = 0

    def assert_marks_are_right():
        # Of a part that is being emptied this moment, too.
        wrong = " UNION ALL ".join(f"SELECT '{part}' FROM pg_check_visible('{part}')" for part in parts)
        assert db.rows(wrong) == []

    for round in range(24):
        db.sql("SELECT pushy.notify('news', n || ':' || repeat('x', 2000), delivery => 'relay') FROM generate_series(%s::int, %s::int) n",
               round * 100 + 1, round * 100 + 100)
        wait_for("what was told", reader.read, lambda seen: seen == round * 100 + 100)
        db.sql(f"VACUUM {'(FREEZE)' if round % 2 else ''} {', '.join(parts)}")
        assert_marks_are_right()
        marked += db.value("SELECT " + " + ".join(f"(pg_visibility_map_summary('{part}')).all_visible" for part in parts))
        assert log_bytes(db) < 4 * most * MB, f"{log_bytes(db)} in round {round}"
        if after == "a crash" and round == 16:
            backup.close()
            db.cluster.crash()
            reader.session = db.connect()
            assert_marks_are_right()
            backup = db.connect(autocommit=False)
            backup.execute(f"LOCK TABLE {tables(db)} IN ACCESS SHARE MODE")
    assert reader.resyncs == 0
    assert marked > 100, "VACUUM has found nothing to mark"
    backup.rollback()


def test_who_reads_slowly_while_its_part_is_emptied_in_place_is_told(make_cluster):
    """A cursor that was left behind gets a resync first, and then all there is."""
    db = make_cluster({"pushy.log_max_size": "1MB"}).database()
    flow = Flow(db)
    backup = db.connect(autocommit=False)
    backup.execute(f"LOCK TABLE {tables(db)} IN ACCESS SHARE MODE")
    held = db.connect(autocommit=False)
    held.execute("SELECT bump(20)")
    ear = db.listen("row")
    for written in range(30, 930, 30):
        db.sql("SELECT bump(1 + n % 18, repeat('x', 3000)) FROM generate_series(1, 30) n")
        # The relay keeps up (it has room for some 330), because a part that grows past the size of the whole log is lost as a whole.
        ear.wait_for(lambda _: len(ear.heard) == written)
        db.wait_until("SELECT notices <= 400 FROM pushy.log", True)
    # It wrote into the first part, which has been emptied around its row several times since.
    held.commit()
    flow.consume_all()
    wait_for("its notice to be read", lambda: (flow.consume_all(), db.value("SELECT count(*) FROM effects WHERE id = 20"))[1],
             lambda count: count == 1)
    assert flow.resyncs() >= 1
    assert db.value("SELECT count(*) FROM effects e JOIN counter c USING (id) WHERE e.v = c.v") >= 18
    found = db.rows("SELECT id, array_agg(v ORDER BY seq) FROM effects WHERE v IS NOT NULL GROUP BY id")
    for _, numbers in found:
        assert numbers == sorted(set(numbers))
    assert log_bytes(db) < 4 * MB
    backup.rollback()


def test_a_crash_after_a_part_was_emptied_in_place_brings_nothing_back(make_cluster):
    db = make_cluster({"pushy.log_max_size": "1MB", "pushy.synchronous_commit": "on"}).database()
    flow = Flow(db)
    backup = db.connect(autocommit=False)
    backup.execute(f"LOCK TABLE {tables(db)} IN ACCESS SHARE MODE")
    with flow.reader():
        for _ in range(20):
            db.sql("SELECT bump(1 + n % 18, repeat('x', 3000)) FROM generate_series(1, 30) n")
            db.wait_until("SELECT count(*) FROM effects", db.value("SELECT sum(v) FROM counter"))
    backup.close()
    db.cluster.crash()
    db.sql("SELECT bump(1)")
    flow.consume_all()
    with flow.reader():
        flow.assert_balanced()
    assert flow.resyncs() == 0
    oldest = db.value("SELECT count(*) FROM (SELECT epoch, tick FROM pushy_internal.tick_0 UNION ALL SELECT epoch, tick FROM pushy_internal.tick_1"
                      " UNION ALL SELECT epoch, tick FROM pushy_internal.tick_2 UNION ALL SELECT epoch, tick FROM pushy_internal.tick_3"
                      " UNION ALL SELECT epoch, tick FROM pushy_internal.tick_4 UNION ALL SELECT epoch, tick FROM pushy_internal.tick_5) t"
                      " GROUP BY epoch, tick HAVING count(*) > 1 UNION ALL SELECT 0 LIMIT 1")
    assert oldest == 0


def test_a_pg_dump_from_a_standby_is_not_cancelled_by_the_emptying_of_the_log_and_of_history(make_cluster):
    cluster = make_cluster({"pushy.log_max_size": "4MB", "full_page_writes": "on"})
    db = prepare(cluster.database())
    db.sql("SELECT pushy.subscription_create('news', '{news}')")
    # More than the pipe that the dump goes into takes, and behind Pushy's tables, which it keeps locked when it has read them.
    db.sql("CREATE SCHEMA zzz; CREATE TABLE zzz.big AS SELECT n, repeat(md5(n::text), 100) AS t FROM generate_series(1, 2000) n")
    window = fill_a_window(db)
    standby = cluster.standby({"hot_standby_feedback": "on", "max_standby_streaming_delay": "200ms",
                               "max_standby_archive_delay": "200ms", "wal_receiver_status_interval": "1s"})
    there = db.of(standby)
    there.wait_until("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", True, params=(db.value("SELECT pg_current_wal_lsn()"),))

    sleeper = there.connect(autocommit=False)
    sleeper.execute(f"LOCK TABLE {tables(there)} IN ACCESS SHARE MODE")
    pipe = standby.folder / "pipe"
    os.mkfifo(pipe)
    account.give(pipe)
    dump = threading.Thread(target=lambda: results.append(standby.run(
        "pg_dump", *standby._where(), "-d", db.name, "-f", pipe, check=False)))
    results: list[subprocess.CompletedProcess] = []
    dump.start()
    with open(pipe) as end_of_pipe:
        text = ""
        while "COPY zzz.big" not in text:
            text += end_of_pipe.readline()
        locked = ("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'pg_dump'"
                  f" AND l.relation = 'pushy_internal.{window}'::regclass AND l.mode = 'AccessShareLock'")
        there.wait_until(locked, 1)
        files = f"SELECT array_agg(pg_relation_filenode(c.oid) ORDER BY c.oid) FROM pg_class c WHERE c.relname = '{window}' OR c.relname ~ '^log_[0-9]'"
        before = db.value(files)
        reader = Reader(db)
        for round in range(60):
            db.sql("SELECT pushy.notify('news', n || ':' || repeat('x', 3000), delivery => 'relay') FROM generate_series(%s::int, %s::int) n",
                   round * 40 + 1, round * 40 + 40)
            wait_for("what was told", reader.read, lambda seen: seen == round * 40 + 40)
        assert reader.resyncs == 0
        end(db, window)
        wake_scheduler(db)
        db.wait_until(f"SELECT count(*) FROM ONLY pushy_internal.{window}", 0)
        db.wait_until("SELECT is_free FROM pushy_internal.rotation WHERE member = %s", True, params=(window,))
        assert db.value(files) == before, "nothing was truncated"
        assert log_bytes(db) < 8 * MB
        there.wait_until("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", True, params=(db.value("SELECT pg_current_wal_lsn()"),))
        while end_of_pipe.read(65536):
            pass
    dump.join()
    assert results[0].returncode == 0, results[0].stdout
    # Its transaction is still there.
    sleeper.execute("SELECT count(*) FROM pushy_internal.log_0")
    sleeper.rollback()
    assert there.value("SELECT confl_lock FROM pg_stat_database_conflicts WHERE datname = current_database()") == 0
    # The table is used again.
    enqueue(db)
    db.wait_until("SELECT is_free FROM pushy_internal.rotation WHERE member = %s", False, params=(window,))
    enqueue(db)
    assert rows_in(db, window) > 0
