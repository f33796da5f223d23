"""Partitioned tables tell of their root: rows that move are updates, whatever the partitions look like."""

import psycopg
import pytest

from stage.watching import Watching, watch


@pytest.fixture
def heard(db):
    """Partition 2 has its columns in another order and a dropped one, 3 refuses rows, 4 is partitioned itself."""
    db.sql("""
        CREATE TABLE p (k int, id int, v text, PRIMARY KEY (k, id)) PARTITION BY LIST (k);
        CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
        CREATE TABLE p2 (v text, junk int, id int NOT NULL, k int NOT NULL);
        ALTER TABLE p2 DROP COLUMN junk;
        ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
        CREATE TABLE p3 PARTITION OF p FOR VALUES IN (3);
        CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER stop BEFORE INSERT ON p3 FOR EACH ROW EXECUTE FUNCTION stop();
        CREATE TABLE p4 PARTITION OF p FOR VALUES IN (4, 5) PARTITION BY LIST (k);
        CREATE TABLE p4a PARTITION OF p4 FOR VALUES IN (4);
        CREATE TABLE p4b PARTITION OF p4 FOR VALUES IN (5)""")
    return Watching(db, "heard")


def test_rows_of_every_partition_are_told_as_the_roots(db, heard):
    watch(db, "p", payload="row")
    db.sql("INSERT INTO p VALUES (1, 1, 'a'), (2, 2, 'b'), (4, 4, 'd'); INSERT INTO p2 VALUES ('c', 3, 2)")
    payloads = heard.payloads()
    assert {(payload["schema"], payload["table"]) for payload in payloads} == {("public", "p")}
    assert [payload["new"] for payload in payloads] == [
        {"k": 1, "id": 1, "v": "a"}, {"k": 2, "id": 2, "v": "b"}, {"k": 4, "id": 4, "v": "d"}, {"k": 2, "id": 3, "v": "c"}]


@pytest.mark.parametrize("there", [2, 4, 5])
def test_a_row_that_moves_is_an_update_with_both_rows(db, heard, there):
    watch(db, "p", payload="row")
    heard.after("INSERT INTO p VALUES (1, 1, 'a')")
    db.sql(f"UPDATE p SET k = {there}, v = 'z'; UPDATE p SET k = 1")
    went, came = heard.payloads()
    assert (went["op"], went["key"], went["old_key"]) == ("update", {"k": there, "id": 1}, {"k": 1, "id": 1})
    assert (went["old"], went["new"]) == ({"k": 1, "id": 1, "v": "a"}, {"k": there, "id": 1, "v": "z"})
    assert (came["op"], came["old"]["v"], came["new"]) == ("update", "z", {"k": 1, "id": 1, "v": "z"})


@pytest.mark.parametrize("event, expected", [("insert", [("insert", (1, 1))]), ("delete", [("delete", (2, 1))]), ("update", [("update", (2, 1))])])
def test_a_move_is_no_insert_and_no_delete(db, heard, event, expected):
    watch(db, "p", events=f"{{{event}}}")
    assert heard.after("INSERT INTO p VALUES (1, 1)", "UPDATE p SET k = 2", "DELETE FROM p") == expected


def test_columns_and_conditions_see_a_move_as_an_update(db, heard):
    watch(db, "p", columns=["v"], condition="NEW.v IS DISTINCT FROM 'secret' AND OLD.v IS DISTINCT FROM 'secret'")
    heard.after("INSERT INTO p VALUES (1, 1, 'a'), (1, 2, 'secret')")
    assert heard.after("UPDATE p SET k = 2") == [], "v is the same"
    assert heard.after("UPDATE p SET k = 1, v = v || '!'") == [("update", (1, 1))]
    watch(db, "p", condition="NEW.k > OLD.k")
    assert heard.after("UPDATE p SET k = 2") == [("update", (2, 1)), ("update", (2, 2))]
    assert heard.after("UPDATE p SET k = 1") == []


def test_a_move_whose_second_half_a_trigger_stops_is_a_delete(db, heard):
    watch(db, "p", payload="row")
    heard.after("INSERT INTO p VALUES (1, 1, 'a'), (1, 2, 'b'), (1, 3, 'c')")
    assert heard.after("UPDATE p SET k = 3 WHERE id = 1") == [("delete", (1, 1))]
    assert heard.after("UPDATE p SET k = CASE id WHEN 2 THEN 3 ELSE 2 END") == [("delete", (1, 2)), ("update", (2, 3))]
    assert db.rows("SELECT k, id FROM p") == [(2, 3)]


def test_what_is_told_of_a_stopped_move_at_commit_is_evaluated_as_who_has_moved_the_row(db, role):
    """Else a function of a tenant's that somebody else calls, ANALYZE of an index included, has its code run as that one."""
    tenant = role()
    db.sql(f"CREATE SCHEMA s AUTHORIZATION {tenant}")
    with db.connect(user=tenant) as session:
        session.execute("""
            CREATE TABLE s.p (id int, k int) PARTITION BY LIST (k);
            CREATE TABLE s.p1 PARTITION OF s.p FOR VALUES IN (1); CREATE TABLE s.p2 PARTITION OF s.p FOR VALUES IN (2);
            CREATE FUNCTION s.stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
            CREATE TRIGGER stop BEFORE INSERT ON s.p2 FOR EACH ROW EXECUTE FUNCTION s.stop();
            CREATE FUNCTION s.who() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN current_user; END$$;
            CREATE FUNCTION s.move() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'UPDATE s.p SET k = 2';
            CREATE FUNCTION s.indexed(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
            BEGIN
                IF session_user <> 'TENANT' THEN PERFORM s.move(); END IF;
                RETURN $1;
            END$$;
            CREATE TABLE s.bait AS SELECT 1 AS a; CREATE INDEX ON s.bait (s.indexed(a))""".replace("TENANT", tenant))
        session.execute("SELECT pushy.watch('s.p', channel => 'c', payload_expr => 's.who()', events => '{delete}')")
        session.execute("SELECT pushy.subscription_create('r', '{c}')")
        for act in ("SELECT s.move()", "ANALYZE s.bait"):
            session.execute("INSERT INTO s.p VALUES (1, 1)")
            db.sql(act)
            session.execute("CALL pushy.subscription_wait('r', '10 s')")
            told = session.execute("SELECT payload FROM pushy.subscription_read('r')").fetchall()
            assert told == [(tenant,)], act
            session.execute("SELECT pushy.subscription_ack('r', (SELECT cursor FROM pushy.subscription_read('r')))")


def test_a_stopped_move_is_told_once_whatever_savepoints_end_around_it(db, heard):
    watch(db, "p")
    heard.after("INSERT INTO p SELECT 1, n FROM generate_series(1, 4) n")
    with db.connect(autocommit=False) as session:
        session.execute("SAVEPOINT a; UPDATE p SET k = 3 WHERE id = 1; RELEASE a; SAVEPOINT b; UPDATE p SET v = 'x'; ROLLBACK TO b")
        session.execute("UPDATE p SET k = 3 WHERE id = 2; SAVEPOINT c; UPDATE p SET k = 3 WHERE id = 3; ROLLBACK TO c; UPDATE p SET k = 2 WHERE id = 4")
        session.commit()
    assert sorted(heard.after()) == [("delete", (1, 1)), ("delete", (1, 2)), ("update", (2, 4))]
    assert db.rows("SELECT k, id FROM p ORDER BY 2") == [(1, 3), (2, 4)]


def test_a_stopped_move_is_told_by_an_expression_that_is_first_evaluated_at_commit(db, heard):
    db.sql("CREATE FUNCTION told(text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN EXISTS (SELECT FROM p3) IS NOT NULL; END'")
    watch(db, "p", condition="told('x') AND told(OLD.v)")
    db.sql("SELECT pushy.watch_pause('p'); INSERT INTO p VALUES (1, 1, 'a'); SELECT pushy.watch_resume('p')")
    with db.connect() as session:
        assert heard.after("UPDATE p SET k = 3", session=session) == [("delete", (1, 1))]


def test_statements_with_moves_count_each_row_once(db, heard):
    watch(db, "p", level="statement")
    assert heard.after("INSERT INTO p VALUES (1, 1), (1, 2), (2, 3)") == [("insert", 3, [(1, 1), (1, 2), (2, 3)])]
    assert heard.after("UPDATE p SET k = 2") == [("update", 3, [(2, 1), (2, 2), (2, 3)])]
    # No statement deletes: the row that was stopped is told at commit.
    assert heard.after("UPDATE p SET k = CASE id WHEN 1 THEN 3 ELSE 4 END") == [
        ("update", 2, [(4, 2), (4, 3)]), ("delete", 1, [(2, 1)])]


def test_statements_that_name_a_partition_are_told_at_commit(db, heard):
    watch(db, "p", level="statement")
    assert heard.after("BEGIN; INSERT INTO p1 VALUES (1, 1); INSERT INTO p2 (k, id) VALUES (2, 2); DELETE FROM p1; COMMIT") == [
        ("insert", 2, [(1, 1), (2, 2)]), ("delete", 1, [(1, 1)])]


def test_a_foreign_key_on_the_root_does_not_make_moves_tell_twice(db, heard):
    db.sql("CREATE TABLE child (k int, id int, FOREIGN KEY (k, id) REFERENCES p ON UPDATE CASCADE ON DELETE CASCADE)")
    watch(db, "p")
    watch(db, "child", channel="heard", payload="row")
    db.sql("INSERT INTO p VALUES (1, 1); INSERT INTO child VALUES (1, 1)")
    heard.until_now()
    db.sql("UPDATE p SET k = 2")
    assert [(p["table"], p["op"]) for p in heard.payloads()] == [("p", "update"), ("child", "update")]


def test_an_expression_sees_which_partition_a_row_is_in(db, heard):
    watch(db, "p", payload_expr="to_json(NEW.tableoid::regclass::text || (NEW.ctid IS NOT NULL)::text)")
    db.sql("INSERT INTO p VALUES (1, 1); INSERT INTO p VALUES (2, 2); UPDATE p SET k = 4 WHERE id = 2")
    assert [notice.payload for notice in heard.until_now()] == ['"p1true"', '"p2true"', '"p4atrue"']


def test_truncate_is_told_of_the_root_only(db, heard):
    watch(db, "p", events="{truncate}")
    assert heard.after("TRUNCATE p") == [("truncate", None)]
    assert heard.after("TRUNCATE p1") == [], "a TRUNCATE of a partition fires nothing of its root"


def test_a_write_of_another_sessions_partition_and_then_of_the_root_is_the_same_table(db, heard):
    watch(db, "p", payload="row")
    with db.connect() as session:
        assert heard.after("INSERT INTO p2 VALUES ('x', 1, 2)", session=session) == [("insert", (2, 1))]
        db.sql("ALTER TABLE p ADD COLUMN more int DEFAULT 7")
        session.execute("INSERT INTO p2 (k, id) VALUES (2, 2)")
        assert heard.payloads()[0]["new"] == {"k": 2, "id": 2, "v": None, "more": 7}


# -- a watch of the partition and one of the whole, of one name ---------------------------------------------------

WHOLE = "CREATE TABLE whole (id int PRIMARY KEY) PARTITION BY RANGE (id)"
ATTACH = "ALTER TABLE whole ATTACH PARTITION piece FOR VALUES FROM (0) TO (9)"
PIECES = {
    "a table": ("CREATE TABLE piece (id int PRIMARY KEY)", "piece"),
    "a partitioned table": ("CREATE TABLE piece (id int PRIMARY KEY) PARTITION BY RANGE (id); "
                            "CREATE TABLE leaf PARTITION OF piece FOR VALUES FROM (0) TO (5)", "leaf"),
}


@pytest.mark.parametrize("form", PIECES)
@pytest.mark.parametrize("level", ["row", "statement"])
def test_a_partition_with_a_watch_of_the_same_name_is_refused_by_the_watchs_name_with_a_way_out(db, form, level):
    make, watched = PIECES[form]
    db.sql(f"{WHOLE}; {make}; SELECT pushy.watch('whole', name => 'w', level => '{level}'), pushy.watch('{watched}', name => 'w', level => '{level}')")
    with pytest.raises(psycopg.errors.DuplicateObject) as refused:
        db.sql(ATTACH)
    said = refused.value.diag
    assert said.message_primary == f'tables public.whole and public.{watched} both have a watch "w"'
    db.sql("SELECT " + said.message_hint.split("SELECT ")[1].split(". Or ")[0])
    db.sql(ATTACH)
    assert db.rows("SELECT relation::text, state FROM pushy.watches") == [("whole", "active")]


def test_a_watch_of_the_whole_is_refused_with_a_hint_where_a_partition_has_one_of_the_name(db):
    db.sql(f"{WHOLE}; CREATE TABLE piece PARTITION OF whole FOR VALUES FROM (0) TO (9); SELECT pushy.watch('piece', name => 'w')")
    with pytest.raises(psycopg.errors.DuplicateObject) as refused:
        db.sql("SELECT pushy.watch('whole', name => 'w')")
    assert "A partition has a watch of this name" in refused.value.diag.message_hint


def test_partitions_with_watches_of_other_names_are_attached(db):
    db.sql(f"{WHOLE}; CREATE TABLE piece (id int PRIMARY KEY); SELECT pushy.watch('whole', name => 'w'), pushy.watch('piece', name => 'v')")
    db.sql(ATTACH)
    assert db.rows("SELECT name, state FROM pushy.watches ORDER BY 1") == [("v", "active"), ("w", "active")]
