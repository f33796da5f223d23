"""Notices that are in no log, because it was full or no relay could come: their readers are told to read the tables anew when they
can see what was done, however long its transaction takes and whatever becomes of the server, and the word for it stays short."""

import threading

import pytest

from harness.waiting import wait_for

RELAYS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pushy relay' AND datname = current_database()"
FILL = "SELECT count(pushy.notify('fill', n || repeat('y', 600), delivery => 'relay')) FROM generate_series(1, 2500) n"
MARKERS = " UNION ALL ".join(f"SELECT channel FROM pushy_internal.log_{part}" for part in range(6))


def serve(db, yes: bool) -> None:
    """Lets relays come, or keeps them out."""
    db.cluster.configure(pushy__enabled="on" if yes else "off").reload()
    if not yes:
        db.wait_until(RELAYS, 0)


def declare(db, delivery: str | None = "relay") -> None:
    db.sql("CREATE TABLE w (id int PRIMARY KEY); CREATE TABLE seen (rows bigint);"
           "CREATE FUNCTION see(args jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.seen SELECT count(*) FROM public.w WHERE args ? 'resync' HAVING args ? 'resync' $$;"
           "SELECT pushy.subscription_create('s', '{w}'), pushy.queue_register('q', 'see(jsonb)'), pushy.subscription_create('sq', '{w}', queue => 'q')")
    db.sql("SELECT pushy.watch('w', delivery => %s)", delivery)


def resync(db) -> None:
    """Waits for the word, and acknowledges it and what comes with it."""
    def read():
        found = db.rows("SELECT resync, cursor FROM pushy.subscription_read('s', 1000)")
        for _, cursor in found:
            db.sql("SELECT pushy.subscription_ack('s', %s)", cursor)
        return any(word for word, _ in found)
    wait_for("a resync", read, bool, evidence=db.cluster.log.tail)


class Waiting:
    """A commit that waits for a standby that never comes, until it may go on alone."""

    def __init__(self, db):
        self.db = db
        self.session = db.connect(autocommit=False)
        self.session.execute("SET LOCAL synchronous_commit = on; INSERT INTO w VALUES (1)")
        self.thread = threading.Thread(target=self.session.commit)

    def begin(self) -> None:
        self.thread.start()
        self.db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", 1)

    def end(self) -> None:
        self.db.cluster.configure(synchronous_standby_names="").reload()
        self.thread.join()
        self.session.close()


class Open:
    def __init__(self, db):
        self.db = db
        self.session = db.connect(autocommit=False)
        # Of so many notices some are dropped before the commit.
        self.session.execute("INSERT INTO w VALUES (1)")
        self.session.execute(FILL)

    def begin(self) -> None:
        pass

    def end(self) -> None:
        self.session.commit()
        self.session.close()


class Prepared(Open):
    def begin(self) -> None:
        self.session.execute("PREPARE TRANSACTION 'late'")

    def end(self) -> None:
        self.db.sql("COMMIT PREPARED 'late'")
        self.session.close()


@pytest.mark.parametrize("late", [Open, Prepared, Waiting])
def test_a_resync_follows_the_end_of_whoever_found_the_log_full(make_cluster, late):
    db = make_cluster({"pushy.log_max_size": "1MB", "max_prepared_transactions": "5", "synchronous_commit": "local", "synchronous_standby_names": "nobody"}).database()
    declare(db)
    serve(db, False)
    db.sql(FILL)
    db.sql(FILL)
    transaction = late(db)
    transaction.begin()
    serve(db, True)
    resync(db)
    assert db.value("SELECT count(*) FROM w") == 0
    db.wait_until("SELECT is_full FROM pushy.log", False)
    transaction.end()
    resync(db)
    assert db.value("SELECT count(*) FROM w") == 1
    db.wait_until("SELECT max(rows) FROM seen", 1)


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_what_found_no_room_is_told_after_a_restart_with_more(make_cluster, how):
    db = make_cluster({"pushy.log_max_size": "1MB", "max_prepared_transactions": "5"}).database()
    declare(db)
    serve(db, False)
    db.sql(FILL)
    db.sql("INSERT INTO w VALUES (1)")
    db.sql("BEGIN; INSERT INTO w VALUES (2); PREPARE TRANSACTION 'late'")
    db.close()
    db.cluster.stop(how)
    db.cluster.configure(pushy__enabled="on", pushy__log_max_size="64MB").start()
    resync(db)
    assert db.value("SELECT count(*) FROM w") == 1
    db.sql("COMMIT PREPARED 'late'")
    resync(db)
    db.wait_until("SELECT max(rows) FROM seen", 2)


def test_what_went_by_notify_because_no_relay_could_come_is_told_when_one_does(make_cluster):
    db = make_cluster().database()
    declare(db, None)
    db.cluster.configure(pushy__databases="other").reload()
    db.wait_until("SELECT state FROM pushy.subscriptions WHERE name = 's'", "no_relay")
    ear = db.listen("w")
    late = db.connect(autocommit=False)
    late.execute("INSERT INTO w VALUES (1)")
    db.sql("INSERT INTO w VALUES (2)")
    assert ear.wait_for_json(key={"id": 2}), "by NOTIFY"
    db.cluster.configure(pushy__databases="*").reload()
    resync(db)
    assert db.value("SELECT count(*) FROM w") == 1
    late.commit()
    resync(db)
    db.wait_until("SELECT max(rows) FROM seen", 2)
    db.wait_until("SELECT state FROM pushy.subscriptions WHERE name = 's'", "active")
    late.close()


def test_what_was_told_before_the_library_was_preloaded_is_told_when_it_is(make_cluster):
    db = make_cluster({"shared_preload_libraries": ""}).database()
    declare(db, None)
    for n in range(50):
        with db.connect() as session:
            session.execute(f"INSERT INTO w VALUES ({n})")
    assert db.value(f"SELECT count(*) FROM ({MARKERS}) l WHERE channel = ''") == 1, "one stands for all"
    db.close()
    db.cluster.stop()
    db.cluster.configure(shared_preload_libraries="pushy").start()
    resync(db)
    db.wait_until("SELECT max(rows) FROM seen", 50)


def test_however_many_find_no_room_they_leave_little(make_cluster):
    db = make_cluster({"pushy.log_max_size": "1MB"}).database()
    declare(db)
    serve(db, False)
    db.sql(FILL)
    before = db.value("SELECT bytes FROM pushy.log")
    for n in range(300):
        db.sql(f"INSERT INTO w VALUES ({n})")
        db.sql(f"BEGIN; SAVEPOINT a; UPDATE w SET id = -id - 1 WHERE id = {n}; ROLLBACK TO a; COMMIT")
    assert db.value(f"SELECT count(*) FROM ({MARKERS}) l WHERE channel = ''") <= 2
    assert db.value("SELECT bytes FROM pushy.log") - before <= 16384
    serve(db, True)
    resync(db)
    db.wait_until("SELECT max(rows) FROM seen", 300)
    db.wait_until("SELECT lost_until FROM pushy_internal.log_state", 0)
