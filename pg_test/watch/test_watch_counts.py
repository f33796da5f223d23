"""What counts as a change: whichever way rows are written, each is told as what it is to the table, once."""

import psycopg
import pytest

from stage.watching import Watching, watch

ALL = "{insert,update,delete,truncate}"


@pytest.fixture
def heard(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int, w text)")
    return Watching(db, "heard")


def test_every_kind_of_change_is_told(db, heard):
    watch(db, "t", events=ALL)
    assert heard.after("INSERT INTO t VALUES (1), (2)", "UPDATE t SET v = 1 WHERE id = 1", "UPDATE t SET id = 3 WHERE id = 2",
                       "DELETE FROM t WHERE id = 1", "TRUNCATE t") == [
        ("insert", 1), ("insert", 2), ("update", 1), ("update", 3), ("delete", 1), ("truncate", None)]


@pytest.mark.parametrize("event, expected", [("insert", 1), ("update", 2), ("delete", 3), ("truncate", 4)])
def test_only_the_events_asked_for_are_told(db, heard, event, expected):
    watch(db, "t", events=f"{{{event}}}")
    told = heard.after("INSERT INTO t VALUES (1)", "UPDATE t SET v = 1", "DELETE FROM t", "TRUNCATE t")
    assert told == [(event, None if event == "truncate" else 1)]


def test_an_update_counts_when_a_named_column_is_distinct(db, heard):
    watch(db, "t", columns=["v"])
    assert heard.after("INSERT INTO t VALUES (1, 2), (2, NULL)") == [("insert", 1), ("insert", 2)]
    assert heard.after("UPDATE t SET v = v", "UPDATE t SET v = 2 WHERE id = 1", "UPDATE t SET w = 'x'", "UPDATE t SET v = NULL WHERE id = 2") == []
    assert heard.after("UPDATE t SET v = 3 WHERE id = 1", "UPDATE t SET v = 3 WHERE id = 2", "UPDATE t SET v = NULL") == [
        ("update", 1), ("update", 2), ("update", 1), ("update", 2)]


def test_what_a_before_trigger_changes_counts(db, heard):
    db.sql("CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := CASE WHEN NEW.w = 'keep' THEN OLD.v ELSE OLD.v + 1 END; "
           "RETURN NEW; END $$; CREATE TRIGGER bump BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION bump()")
    watch(db, "t", columns=["v"])
    heard.after("INSERT INTO t VALUES (1, 1)")
    assert heard.after("UPDATE t SET w = 'x'") == [("update", 1)], "UPDATE OF v would miss it"
    assert heard.after("UPDATE t SET v = 99, w = 'keep'") == [], "UPDATE OF v would tell it"


def test_columns_of_types_without_equality_are_compared_as_text(db, heard):
    db.sql("CREATE TYPE pair AS (a int, j json); CREATE TABLE odd (id int PRIMARY KEY, j json, p point, x xml, c pair, a json[])")
    watch(db, "odd", columns=["j", "p", "x", "c", "a"])
    heard.after("""INSERT INTO odd VALUES (1, '{"a":1}', '(1,2)', '<a/>', '(1,"{}")', ARRAY['1'::json])""")
    assert heard.after("UPDATE odd SET j = j, p = '(1,2)', x = '<a/>', c = '(1,\"{}\")', a = ARRAY['1'::json]") == []
    for change in ("""j = '{"a":2}'""", "p = '(1,3)'", "x = '<b/>'", "c = '(2,\"{}\")'", "a = '{}'"):
        assert heard.after(f"UPDATE odd SET {change}") == [("update", 1)], change


def test_a_row_of_nulls_is_distinct_from_null(db, heard):
    db.sql("CREATE TYPE pair AS (a int, b int); CREATE DOMAIN two AS pair; CREATE TABLE odd (id int PRIMARY KEY, c pair, d two)")
    watch(db, "odd", columns=["c", "d"])
    heard.after("INSERT INTO odd VALUES (1, NULL, NULL)")
    for column in "cd":
        assert heard.after(f"UPDATE odd SET {column} = NULL", f"UPDATE odd SET {column} = '(,)'", f"UPDATE odd SET {column} = '(,)'",
                           f"UPDATE odd SET {column} = '(1,)'", f"UPDATE odd SET {column} = '(1,)'", f"UPDATE odd SET {column} = NULL") == [
            ("update", 1)] * 3


def test_types_are_compared_by_their_own_equality_whatever_the_path(db, heard):
    """As declared, and in a copy by pg_dump, whose path is empty: there IS DISTINCT FROM itself would be lost."""
    db.sql("""
        CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE TYPE mood AS ENUM ('a', 'b'); CREATE DOMAIN name2 AS citext;
        CREATE TABLE odd (id int PRIMARY KEY, c citext, h hstore, d name2, e mood, b char(3), v varchar(9), a int[], r int4range, f float8, n numeric);
        SET search_path = ''""")
    db.sql("SELECT pushy.watch('public.odd', channel => 'heard', columns => '{c,h,d,e,b,v,a,r,f,n}')")
    db.sql("RESET search_path")
    dump = db.cluster.run("pg_dump", "-h", db.cluster.folder, "-p", db.cluster.port, "-U", "postgres", db.name).stdout
    copy = db.cluster.database(f"{db.name}_copy", extension=False)
    said = db.cluster.psql(copy.name, dump)
    assert "ERROR" not in said, said
    assert copy.rows("SELECT resumed FROM pushy.resume_after_restore()") == [(True,)]
    for here, heard in ((db, heard), (copy, Watching(copy, "heard"))):
        heard.after("""INSERT INTO odd VALUES (1, 'a', 'x=>1, y=>2', 'a', 'a', 'a', 'a', '{1}', '[1,2]', 'NaN', 1.0)""")
        assert heard.after("""UPDATE odd SET c = 'A', h = 'y=>2, x=>1', d = 'A', b = 'a ', r = '[1,3)', f = 'NaN', n = 1.00""") == []
        for change in ("c = 'b'", "h = 'x=>1'", "d = 'b'", "e = 'b'", "b = 'b'", "v = 'A'", "a = '{2}'", "r = '[1,4]'", "f = 0", "n = 2"):
            assert heard.after(f"UPDATE odd SET {change}") == [("update", 1)], (here.name, change)
    copy.drop()


def test_an_equality_planted_in_the_path_is_not_taken_for_that_of_columns(db, heard):
    db.sql("""
        CREATE FUNCTION public.liar(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
        CREATE OPERATOR public.= (LEFTARG = int, RIGHTARG = int, FUNCTION = public.liar);
        SET search_path = public, pg_catalog""")
    watch(db, "t", columns=["v"])
    watch(db, "t", columns=["v"], condition="OLD.id IS NOT NULL AND NEW.v = OLD.v", name="own", payload_expr="'{\"op\":\"own\"}'")
    assert heard.after("INSERT INTO t VALUES (1, 1)", "UPDATE t SET v = 2") == [
        ("insert", 1), ("update", 1), ("own", None)], "what a user's condition says is for the user's path to say"


def test_a_comparison_that_fails_is_told_and_the_write_goes_on(db, heard):
    """A composite type gets an attribute that cannot be compared; a type of a user's has an = that raises."""
    db.sql("CREATE TYPE pair AS (a int, b int); CREATE TABLE odd (id int PRIMARY KEY, c pair)")
    watch(db, "odd", columns=["c"])
    heard.after("INSERT INTO odd VALUES (1, '(1,2)')", "ALTER TYPE pair ADD ATTRIBUTE j json")
    assert heard.after("UPDATE odd SET c = '(1,2,3)'") == [("update", 1, "42883")]
    assert db.value("SELECT c::text FROM odd") == "(1,2,3)"
    db.sql("""
        CREATE EXTENSION citext; CREATE TABLE other (id int PRIMARY KEY, c citext);
        CREATE OR REPLACE FUNCTION citext_eq(citext, citext) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RAISE SQLSTATE ''UEQ01''; END'""")
    watch(db, "other", columns=["c"])
    assert heard.after("INSERT INTO other VALUES (1, 'a')", "UPDATE other SET c = 'A'") == [("insert", 1), ("update", 1, "UEQ01")]


@pytest.mark.parametrize("level", ["row", "statement"])
def test_conditions_are_over_new_and_old_with_nulls_for_the_row_that_there_is_not(db, heard, level):
    def told(condition, *statements):
        watch(db, "t", condition=condition, level=level)
        db.sql("TRUNCATE t; INSERT INTO t VALUES (1, 1), (2, 20)")
        heard.until_now()
        return [seen[0] for seen in heard.after(*statements)]

    writes = ("INSERT INTO t VALUES (3, 30)", "UPDATE t SET v = v + 1 WHERE id = 2", "DELETE FROM t WHERE id = 2")
    assert told("NEW.v > 10", *writes) == ["insert", "update"]
    assert told("OLD.v > 10", *writes) == ["update", "delete"]
    assert told("OLD IS NULL", *writes) == ["insert"]
    assert told("NEW IS NULL", *writes) == ["delete"]
    assert told("NEW.v > OLD.v", *writes) == ["update"]
    assert told("OLD.id IS NOT DISTINCT FROM NEW.id", *writes) == ["update"]
    assert told("coalesce(NEW.v, OLD.v)::text LIKE '2%'", *writes) == ["update", "delete"]
    assert told("NULL", *writes) == []


def test_a_statement_is_one_notice_however_many_rows(db, heard):
    watch(db, "t", level="statement", events=ALL, columns=["v"], condition="coalesce(NEW.id, OLD.id) > 1")
    assert heard.after("INSERT INTO t SELECT n, n FROM generate_series(1, 4) n") == [("insert", 3, [2, 3, 4])]
    assert heard.after("UPDATE t SET v = CASE WHEN id > 2 THEN v + 1 ELSE v END") == [("update", 2, [3, 4])]
    assert heard.after("UPDATE t SET v = v", "DELETE FROM t WHERE false", "DELETE FROM t WHERE id = 1") == []
    assert heard.after("DELETE FROM t", "TRUNCATE t") == [("delete", 3, [2, 3, 4]), ("truncate", None, [])]


def test_a_statement_of_a_trigger_is_told_apart_from_the_one_that_fired_it(db, heard):
    watch(db, "t", level="statement", events="{update}")
    db.sql("CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS "
           "'BEGIN UPDATE t SET v = v + 1 WHERE id = NEW.id + 10; RETURN NULL; END'; "
           "CREATE TRIGGER zz AFTER UPDATE ON t FOR EACH ROW WHEN (NEW.id < 10) EXECUTE FUNCTION again()")
    db.sql("INSERT INTO t VALUES (1, 0), (2, 0), (11, 0), (12, 0)")
    assert heard.after("UPDATE t SET v = 5 WHERE id < 10") == [("update", 1, [11]), ("update", 1, [12]), ("update", 2, [1, 2])]


@pytest.mark.parametrize("level", ["row", "statement"])
def test_an_insert_on_conflict_is_told_as_what_it_did(db, heard, level):
    watch(db, "t", level=level)
    heard.after("INSERT INTO t VALUES (1, 1)")
    told = heard.after("INSERT INTO t VALUES (1, 9), (2, 2) ON CONFLICT (id) DO UPDATE SET v = excluded.v")
    assert sorted(told) == ([("insert", 2), ("update", 1)] if level == "row" else [("insert", 1, [2]), ("update", 1, [1])])
    assert heard.after("INSERT INTO t VALUES (1, 5) ON CONFLICT DO NOTHING",
                       "INSERT INTO t VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET v = 5 WHERE t.v > 100") == []


@pytest.mark.parametrize("level", ["row", "statement"])
def test_a_merge_is_told_as_what_it_did(db, heard, level):
    watch(db, "t", level=level)
    heard.after("INSERT INTO t VALUES (1, 1), (2, 2)")
    told = heard.after("""
        MERGE INTO t USING (VALUES (1, 10), (2, NULL), (3, 30)) s (id, v) ON t.id = s.id
         WHEN MATCHED AND s.v IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v
         WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v)""")
    if level == "statement":
        assert sorted(told) == [("delete", 1, [2]), ("insert", 1, [3]), ("update", 1, [1])]
    else:
        assert sorted(told) == [("delete", 2), ("insert", 3), ("update", 1)]


def test_copy_is_told(db, heard):
    watch(db, "t")
    with db.main.cursor().copy("COPY t (id, v) FROM STDIN") as copy:
        copy.write("1\t1\n2\t2\n")
    assert heard.after() == [("insert", 1), ("insert", 2)]
    watch(db, "t", level="statement")
    with db.main.cursor().copy("COPY t (id, v) FROM STDIN") as copy:
        copy.write("3\t3\n4\t4\n")
    assert heard.after() == [("insert", 2, [3, 4])]


def test_generated_columns_are_told_and_count(db, heard):
    db.sql("CREATE TABLE g (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, half int GENERATED ALWAYS AS (v / 2) STORED)")
    watch(db, "g", columns=["half"], payload="row", condition="coalesce(NEW.half, OLD.half) < 100")
    db.sql("INSERT INTO g (v) VALUES (2)")
    assert [payload["new"] for payload in heard.payloads()] == [{"id": 1, "v": 2, "half": 1}]
    assert heard.after("UPDATE g SET v = 3") == []
    assert heard.after("UPDATE g SET v = 4") == [("update", 1)]
    assert heard.after("INSERT INTO g (v) VALUES (1000)") == []


@pytest.mark.parametrize("level", ["row", "statement"])
def test_foreign_key_cascades_are_told(db, heard, level):
    db.sql("CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE ON UPDATE CASCADE);"
           "CREATE TABLE loose (id int PRIMARY KEY, t int REFERENCES t ON DELETE SET NULL)")
    watch(db, "child", level=level), watch(db, "loose", level=level)
    heard.after("INSERT INTO t VALUES (1), (2)", "INSERT INTO child VALUES (10, 1), (11, 1), (20, 2)", "INSERT INTO loose VALUES (5, 1), (6, 1)")
    if level == "row":
        assert heard.after("DELETE FROM t WHERE id = 1") == [("delete", 10), ("delete", 11), ("update", 5), ("update", 6)]
        assert heard.after("UPDATE t SET id = 3 WHERE id = 2") == [("update", 20)]
    else:
        assert heard.after("DELETE FROM t WHERE id = 1") == [("delete", 2, [10, 11]), ("update", 2, [5, 6])]
        assert heard.after("UPDATE t SET id = 3 WHERE id = 2") == [("update", 1, [20])]


def test_a_cascade_of_many_rows_is_one_statement(db, heard):
    db.sql("CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE)")
    db.sql("INSERT INTO t SELECT generate_series(1, 50); INSERT INTO child SELECT n, n FROM generate_series(1, 50) n")
    watch(db, "child", level="statement")
    told = heard.after("DELETE FROM t")
    assert sum(count for _, count, _ in told) == 50 and len(told) == 1, told


def test_a_replica_session_tells_nothing_unless_the_trigger_is_always(db, heard):
    watch(db, "t")
    assert heard.after("SET session_replication_role = replica", "INSERT INTO t VALUES (1)") == []
    db.sql("RESET session_replication_role; ALTER TABLE t ENABLE ALWAYS TRIGGER pushy_heard_insert")
    assert heard.after("SET session_replication_role = replica", "INSERT INTO t VALUES (2)", "UPDATE t SET v = 1",
                       "RESET session_replication_role") == [("insert", 2)]


def test_what_logical_replication_applies_is_told_by_triggers_that_are_always_or_replica(make_cluster):
    publisher = make_cluster({"wal_level": "logical"}).database("source")
    subscriber = make_cluster().database("target")
    for db in (publisher, subscriber):
        db.sql("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE s (id int PRIMARY KEY)")
        watch(db, "t"), watch(db, "s", channel="statements", level="statement")
    there = Watching(subscriber, "heard", "statements")
    publisher.sql("CREATE PUBLICATION p FOR TABLE t, s")
    subscriber.sql(f"CREATE SUBSCRIPTION s CONNECTION '{publisher.dsn()}' PUBLICATION p")
    try:
        subscriber.wait_until("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
        publisher.sql("INSERT INTO t VALUES (1)")
        subscriber.wait_until("SELECT count(*) FROM t", 1)
        assert there.after() == [], "ordinary triggers do not fire where changes are applied"
        for trigger in ("insert", "update", "delete"):
            subscriber.sql(f"ALTER TABLE t ENABLE {'ALWAYS' if trigger != 'update' else 'REPLICA'} TRIGGER pushy_heard_{trigger}")
        subscriber.sql("ALTER TABLE s ENABLE ALWAYS TRIGGER pushy_statements_insert")
        publisher.sql("INSERT INTO t VALUES (2); UPDATE t SET v = 1 WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO s VALUES (7), (8)")
        subscriber.wait_until("SELECT count(*) FROM s", 2)
        assert there.after() == [("insert", 2), ("update", 1), ("delete", 2), ("insert", 2, [7, 8])]
    finally:
        subscriber.sql("DROP SUBSCRIPTION s")


def test_a_paused_watch_tells_nothing_until_it_is_resumed(db, heard):
    watch(db, "t"), watch(db, "t", channel="other")
    both = Watching(db, "heard", "other")
    assert db.value("SELECT pushy.watch_pause('t', 'heard')") == 1
    assert heard.after("INSERT INTO t VALUES (1)") == []
    assert both.after() == [("insert", 1)]
    assert dict(db.rows("SELECT name, state FROM pushy.watches")) == {"heard": "paused", "other": "active"}
    assert db.value("SELECT pushy.watch_pause('t')") == 2
    assert both.after("INSERT INTO t VALUES (2)") == []
    assert db.value("SELECT pushy.watch_resume('t')") == 2
    assert both.after("INSERT INTO t VALUES (3)") == [("insert", 3), ("insert", 3)]


def test_a_pause_from_another_session_is_felt_by_the_next_statement_of_an_open_transaction(db, heard):
    watch(db, "t")
    with db.connect(autocommit=False) as writer:
        writer.execute("INSERT INTO t VALUES (1)")
        db.sql("SELECT pushy.watch_pause('t')")
        writer.execute("INSERT INTO t VALUES (2)")
        db.sql("SELECT pushy.watch_resume('t')")
        writer.execute("INSERT INTO t VALUES (3)")
        writer.commit()
    assert heard.after() == [("insert", 1), ("insert", 3)]


def test_a_pause_that_is_rolled_back_was_none(db, heard):
    watch(db, "t")
    with db.connect(autocommit=False) as session:
        session.execute("SELECT pushy.watch_pause('t')")
        session.execute("INSERT INTO t VALUES (1)")
        session.rollback()
        session.execute("INSERT INTO t VALUES (2)")
        session.execute("SAVEPOINT a; SELECT pushy.watch_pause('t'); INSERT INTO t VALUES (3); ROLLBACK TO a; INSERT INTO t VALUES (4)")
        session.commit()
    assert heard.after() == [("insert", 2), ("insert", 4)]
