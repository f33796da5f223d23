"""Notices and jobs belong to the transaction that changed the rows: all of it, in order, or none."""

import json

import psycopg
import pytest

from stage.watching import Watching, jobs, paused_queue, watch


@pytest.fixture
def heard(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    return Watching(db, "heard")


@pytest.fixture
def session(db):
    with db.connect(autocommit=False) as session:
        yield session


def insert(session, *ids):
    for id in ids:
        session.execute(f"INSERT INTO t VALUES ({id})")


def test_a_rollback_tells_nothing(db, heard, session):
    paused_queue(db)
    watch(db, "t", queue="q")
    insert(session, 1)
    session.rollback()
    assert heard.after() == [] and jobs(db) == []
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.sql("INSERT INTO t VALUES (1), (1)")
    assert heard.after() == []
    assert db.row("SELECT notices, jobs FROM pushy.watches") == {"notices": 0, "jobs": 0}


@pytest.mark.parametrize("level", ["row", "statement"])
def test_what_a_savepoint_undoes_is_never_told(db, heard, session, level):
    paused_queue(db)
    watch(db, "t", queue="q", level=level)
    insert(session, 1)
    session.execute("SAVEPOINT a")
    insert(session, 2)
    session.execute("SAVEPOINT b")
    insert(session, 3)
    session.execute("RELEASE b; SAVEPOINT c")
    insert(session, 4)
    session.execute("ROLLBACK TO c")
    insert(session, 5)
    session.execute("RELEASE c; SAVEPOINT d")
    insert(session, 6)
    session.execute("SAVEPOINT e")
    insert(session, 7)
    session.execute("RELEASE e; ROLLBACK TO d; RELEASE a")
    insert(session, 8)
    session.commit()
    kept = [1, 2, 3, 5, 8]
    assert [row for row, in db.rows("SELECT id FROM t ORDER BY id")] == kept
    if level == "row":
        assert heard.after() == [("insert", id) for id in kept]
        assert [args["key"]["id"] for args in jobs(db)] == kept
    else:
        assert heard.after() == [("insert", 1, [id]) for id in kept]
        assert [args["keys"] for args in jobs(db)] == [[{"id": id}] for id in kept]
    assert db.row("SELECT notices, jobs FROM pushy.watches") == {"notices": 5, "jobs": 5}


def test_a_savepoint_that_is_rolled_back_to_twice(db, heard, session):
    watch(db, "t")
    session.execute("SAVEPOINT a")
    for id in (1, 2, 3):
        insert(session, id)
        session.execute("ROLLBACK TO a")
    insert(session, 4)
    session.execute("SAVEPOINT a")
    insert(session, 5)
    session.execute("ROLLBACK TO a; RELEASE a; ROLLBACK TO a")
    insert(session, 6)
    session.commit()
    assert heard.after() == [("insert", 6)]


def test_exception_blocks_of_plpgsql_are_savepoints(db, heard):
    watch(db, "t")
    watch(db, "t", level="statement", name="s")
    told = heard.after("""
        DO $$
        BEGIN
            FOR n IN 1..6 LOOP
                BEGIN
                    INSERT INTO t VALUES (n);
                    IF n % 2 = 0 THEN
                        BEGIN
                            INSERT INTO t VALUES (n * 10), (n * 10 + 1);
                            IF n = 4 THEN RAISE 'inner'; END IF;
                        EXCEPTION WHEN raise_exception THEN NULL;
                        END;
                    END IF;
                    IF n = 6 THEN PERFORM 1 / 0; END IF;
                EXCEPTION WHEN division_by_zero THEN NULL;
                END;
            END LOOP;
        END $$""")
    assert [seen for seen in told if len(seen) == 2] == [("insert", id) for id in (1, 2, 20, 21, 3, 4, 5)]
    assert [keys for _, _, keys in (seen for seen in told if len(seen) == 3)] == [[1], [2], [20, 21], [3], [4], [5]]


def test_a_trigger_that_catches_its_own_error_leaves_the_rest(db, heard):
    """The inner statement's rows go, those of the statement around it stay."""
    db.sql("""
        CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO t VALUES (NEW.id + 100);
            IF NEW.id = 2 THEN RAISE 'no'; END IF;
            RETURN NULL;
        EXCEPTION WHEN raise_exception THEN RETURN NULL;
        END $$;
        CREATE TRIGGER zz AFTER INSERT ON t FOR EACH ROW WHEN (NEW.id < 100) EXECUTE FUNCTION again()""")
    watch(db, "t", level="statement")
    assert heard.after("INSERT INTO t VALUES (1), (2), (3)") == [
        ("insert", 1, [101]), ("insert", 1, [103]), ("insert", 3, [1, 2, 3])]


def test_equal_notices_of_a_transaction_are_told_once(db, heard, session):
    watch(db, "t", payload="none")
    watch(db, "t", payload_expr="NEW.v", events="{insert}", name="v")
    session.execute("INSERT INTO t SELECT n, n % 3 FROM generate_series(1, 1000) n")
    session.execute("SAVEPOINT a; INSERT INTO t VALUES (2000, 1); RELEASE a")
    session.commit()
    assert [notice.payload for notice in heard.until_now()] == ["2", "0", "", "1"], "each in the place of the last"


def test_equal_notices_do_not_use_up_the_limit(db, heard):
    watch(db, "t", payload="none", delivery="notify")
    db.sql("SET pushy.max_notices = 2; INSERT INTO t SELECT generate_series(1, 100000)")
    assert [notice.payload for notice in heard.until_now()] == [""]


def test_notices_come_in_the_order_of_the_changes(db, heard, session):
    """Also of several watches and tables, and before the last the transaction said by itself."""
    db.sql("CREATE TABLE u (id int PRIMARY KEY)")
    watch(db, "t"), watch(db, "u")
    for n in range(20):
        session.execute(f"INSERT INTO t VALUES ({n}); SAVEPOINT a; INSERT INTO u VALUES ({n}); RELEASE a; UPDATE t SET v = 1 WHERE id = {n}")
    session.commit()
    assert [(payload["op"], payload["table"], payload["key"]["id"]) for payload in heard.payloads()] == [
        told for n in range(20) for told in (("insert", "t", n), ("insert", "u", n), ("update", "t", n))]


def test_two_phase_commit_is_refused_with_notify_and_works_with_jobs(db, heard, session):
    watch(db, "t", delivery="notify")
    insert(session, 1)
    with pytest.raises(psycopg.errors.FeatureNotSupported) as raised:
        session.execute("PREPARE TRANSACTION 'one'")
    assert "delivery notify" in raised.value.diag.message_primary and "queue only" in raised.value.diag.message_hint
    session.rollback()
    # Also when they went out early, or were too many, and not when they were undone.
    session.execute("SET pushy.max_notices = 9000; INSERT INTO t SELECT generate_series(1, 20000)")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        session.execute("PREPARE TRANSACTION 'one'")
    session.rollback()
    db.sql("SELECT pushy.unwatch('t'); CREATE FUNCTION work(args jsonb) RETURNS int LANGUAGE sql AS 'SELECT (args->''key''->>''id'')::int'")
    db.sql("SELECT pushy.queue_register('q', 'work(jsonb)'), pushy.watch('t', queue => 'q')")
    insert(session, 1)
    session.execute("PREPARE TRANSACTION 'one'")
    session.commit()
    assert jobs(db) == []
    db.sql("COMMIT PREPARED 'one'")
    db.jobs_wait("q")
    assert db.rows("SELECT state::text, result FROM pushy.jobs") == [("completed", 1)]
    insert(session, 2)
    session.execute("PREPARE TRANSACTION 'two'")
    session.commit()
    db.sql("ROLLBACK PREPARED 'two'")
    assert len(jobs(db)) == 1


def test_notices_undone_with_a_savepoint_do_not_hinder_two_phase_commit(db, heard, session):
    watch(db, "t")
    session.execute("CREATE TABLE other (x int); SAVEPOINT a; INSERT INTO t VALUES (1); ROLLBACK TO a; PREPARE TRANSACTION 'one'")
    session.commit()
    db.sql("ROLLBACK PREPARED 'one'")
    assert heard.after() == []


def test_a_procedure_that_commits_tells_with_each_commit(db, heard):
    watch(db, "t")
    db.sql("""
        CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$
        BEGIN
            FOR n IN 1..6 LOOP
                INSERT INTO t VALUES (n);
                IF n % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
            END LOOP;
        END $$""")
    db.sql("CALL fill()")
    payloads = heard.payloads()
    assert [payload["key"]["id"] for payload in payloads] == [1, 2, 4, 5]
    assert len({payload["xid"] for payload in payloads}) == 4


def test_what_deferred_triggers_write_at_commit_is_told(db, heard, session):
    db.sql("""
        CREATE TABLE late (id int PRIMARY KEY);
        CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO late VALUES (NEW.id), (NEW.id + 100); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER later AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION later()""")
    paused_queue(db)
    watch(db, "t"), watch(db, "late", level="statement", queue="q")
    insert(session, 1, 2)
    session.commit()
    assert heard.after() == [("insert", 1), ("insert", 2), ("insert", 2, [1, 101]), ("insert", 2, [2, 102])]
    assert len(jobs(db)) == 2
    insert(session, 3)
    session.execute("INSERT INTO late VALUES (103)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        session.commit()
    assert heard.after() == [] and len(jobs(db)) == 2


def test_cursors_tell_what_they_change(db, heard, session):
    watch(db, "t")
    heard.after("INSERT INTO t SELECT generate_series(1, 4)")
    session.execute("DECLARE c CURSOR FOR SELECT * FROM t ORDER BY id FOR UPDATE; MOVE 2 IN c; UPDATE t SET v = 1 WHERE CURRENT OF c; "
                    "SAVEPOINT a; MOVE 1 IN c; DELETE FROM t WHERE CURRENT OF c; ROLLBACK TO a; MOVE 1 IN c; DELETE FROM t WHERE CURRENT OF c")
    session.commit()
    assert heard.after() == [("update", 2), ("delete", 4)]


def test_data_modifying_ctes_tell_each_part(db, heard):
    watch(db, "t", level="statement")
    db.sql("INSERT INTO t SELECT generate_series(1, 4)")
    heard.until_now()
    told = heard.after("WITH gone AS (DELETE FROM t WHERE id < 3 RETURNING id), more AS (UPDATE t SET v = 1 RETURNING id) INSERT INTO t SELECT id + 100 FROM gone")
    assert sorted(told) == [("delete", 2, [1, 2]), ("insert", 2, [101, 102]), ("update", 2, [3, 4])]


def test_past_the_limit_one_notice_says_how_many_were_left_out(db, heard, session):
    watch(db, "t", delivery="notify")
    session.execute("SET pushy.max_notices = 5; INSERT INTO t SELECT generate_series(1, 8)")
    session.commit()
    assert heard.after() == [("insert", n) for n in range(1, 6)] + [("resync", 3)]
    session.execute("SAVEPOINT a; INSERT INTO t VALUES (11), (12), (13); ROLLBACK TO a; INSERT INTO t VALUES (11), (12), (13), (14), (15)")
    session.commit()
    assert heard.after() == [("insert", n) for n in range(11, 16)], "what was rolled back does not count"


@pytest.mark.parametrize("delivery", ["notify", "queue", "statement", "empty"])
def test_a_million_rows_in_one_transaction_take_bounded_memory(make_cluster, delivery):
    """The backend's own memory is looked at while the transaction is still open."""
    db = make_cluster({"max_wal_size": "4GB"}).database()
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    paused_queue(db)
    options = {"notify": {"delivery": "notify"}, "queue": {"channel": None, "queue": "q"}, "statement": {"level": "statement"}, "empty": {"payload": "none"}}
    watch(db, "t", **options[delivery])
    heard = Watching(db, "heard")
    rows = 1_000_000 if delivery != "queue" else 300_000
    with db.connect(autocommit=False) as session:
        pid = session.info.backend_pid
        session.execute("INSERT INTO t VALUES (0)")
        before = private_memory(pid)
        session.execute(f"INSERT INTO t SELECT generate_series(1, {rows})")
        grown = private_memory(pid) - before
        session.commit()
    payloads = [json.loads(notice.payload) for notice in heard.until_now() if notice.payload]
    most = db.value("SHOW pushy.max_notices")
    if delivery == "notify":
        assert len(payloads) == int(most) + 1 and payloads[-1]["left_out"] == rows + 1 - int(most)
    if delivery == "statement":
        assert payloads[1]["count"] == rows and payloads[1]["keys_complete"] is False
    if delivery == "queue":
        assert db.value("SELECT count(*) FROM pushy_internal.live_job") == rows + 1
    # What the server itself keeps: each row's AFTER events, and NOTIFY its list.
    assert grown < (90 << 20), f"{grown >> 20} MB"


def private_memory(pid: int) -> int:
    """Bytes of memory that only this process has: its anonymous pages."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


def test_what_went_out_early_in_a_savepoint_is_undone_with_it(db, heard, session):
    paused_queue(db)
    watch(db, "t", queue="q")
    session.execute("INSERT INTO t VALUES (-1); SAVEPOINT a; INSERT INTO t SELECT generate_series(1, 20000); ROLLBACK TO a; "
                    "SAVEPOINT b; INSERT INTO t SELECT generate_series(1, 20000); SAVEPOINT c; INSERT INTO t SELECT generate_series(20001, 40000); "
                    "RELEASE c; ROLLBACK TO b; INSERT INTO t VALUES (-2)")
    session.commit()
    assert heard.after() == [("insert", -1), ("insert", -2)]
    assert [args["key"]["id"] for args in jobs(db)] == [-1, -2]
    assert db.row("SELECT notices, jobs FROM pushy.watches") == {"notices": 2, "jobs": 2}


def test_a_released_savepoint_with_many_rows_tells_them_all(db, heard, session):
    watch(db, "t")
    session.execute("SAVEPOINT a; INSERT INTO t SELECT generate_series(1, 10000); SAVEPOINT b; INSERT INTO t SELECT generate_series(10001, 20000); "
                    "RELEASE b; RELEASE a; INSERT INTO t VALUES (0)")
    session.commit()
    assert [key for _, key in heard.after()] == [*range(1, 20001), 0]


@pytest.mark.parametrize("delivery", ["relay", "notify"])
def test_notices_come_in_the_order_of_the_changes_however_many_savepoints_say_how_much(db, heard, session, delivery):
    """More than is kept in memory, said inside savepoints that are released, rolled back, nested."""
    watch(db, "t", delivery=delivery)
    many = "INSERT INTO t SELECT generate_series(%s::int, %s::int)"
    expected = []

    def say(first, last, kept=True):
        session.execute(many, (first, last))
        expected.extend(range(first, last + 1) if kept else [])

    def run(command):
        session.execute(command)

    say(1, 10)
    run("SAVEPOINT a")
    say(11, 20_000, kept=False)
    run("ROLLBACK TO a")
    say(21, 30)
    run("SAVEPOINT b")
    say(31, 32)
    run("SAVEPOINT c")
    say(33, 9_000)
    run("SAVEPOINT d")
    say(50_000, 60_000, kept=False)
    run("ROLLBACK TO d; RELEASE d")
    say(9_001, 9_010)
    run("RELEASE c")
    say(9_011, 9_020)
    run("RELEASE b")
    say(9_021, 9_030)
    run("SAVEPOINT e; SAVEPOINT f; SAVEPOINT g")
    say(9_031, 20_000)
    run("RELEASE f")
    say(20_001, 20_010)
    run("RELEASE e; RELEASE a")
    say(20_011, 20_020)
    run("SAVEPOINT h")
    say(60_000, 80_000, kept=False)
    run("SAVEPOINT i")
    say(80_001, 90_000, kept=False)
    run("RELEASE i; ROLLBACK TO h")
    say(20_021, 20_030)
    session.commit()
    if delivery == "relay":
        heard.listener.wait_for(lambda notice: json.loads(notice.payload)["key"]["id"] == 20_030)
        told = [json.loads(notice.payload)["key"]["id"] for notice in heard.listener.heard]
    else:
        told = [key for _, key in heard.after()]
    assert len(told) == len(expected) == len(set(told)) and told == expected


def test_a_savepoint_behind_much_that_was_said_goes_out_in_large_pieces(db, heard, session):
    """Not one by one, because what is ahead fills the room already."""
    watch(db, "t", delivery="relay")
    session.execute("INSERT INTO t SELECT generate_series(1, 8000); SAVEPOINT a; INSERT INTO t SELECT generate_series(8001, 30000); RELEASE a")
    session.commit()
    last = heard.listener.wait_for(lambda notice: json.loads(notice.payload)["key"]["id"] == 30000)
    assert [json.loads(notice.payload)["key"]["id"] for notice in heard.listener.heard] == list(range(1, 30001)), last
    pieces = db.value("SELECT count(*) FROM (SELECT lsn - lag(lsn) OVER (ORDER BY lsn) AS step FROM pushy_internal.log_0) s WHERE step > 1")
    assert pieces < 100, pieces


def test_a_read_only_transaction_and_an_empty_commit_say_nothing(db, heard, session):
    watch(db, "t")
    session.execute("SET TRANSACTION READ ONLY; SELECT count(*) FROM t")
    session.commit()
    session.execute("UPDATE t SET v = 1 WHERE false")
    session.commit()
    assert heard.after() == []


def test_a_repeatable_read_transaction_tells_and_a_failed_one_does_not(db, heard):
    watch(db, "t", condition="coalesce(NEW.v, 0) >= 0 AND length(NEW.id::text) > 0")
    db.sql("INSERT INTO t VALUES (1, 1)")
    heard.until_now()
    with db.connect(autocommit=False) as one:
        one.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        one.execute("SELECT count(*) FROM t")
        one.execute("INSERT INTO t VALUES (2, 2)")
        db.sql("UPDATE t SET v = 5 WHERE id = 1")
        with pytest.raises(psycopg.errors.SerializationFailure):
            one.execute("UPDATE t SET v = 6 WHERE id = 1")
        one.rollback()
        one.execute("INSERT INTO t VALUES (3, 3)")
        one.commit()
    assert heard.after() == [("update", 1), ("insert", 3)]
