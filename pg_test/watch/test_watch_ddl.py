"""Watches follow what happens to their tables, and say so where they cannot."""

import threading

import psycopg
import pytest
from harness.database import Database

from stage.watching import Watching, jobs, paused_queue, watch


@pytest.fixture
def heard(db):
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int, w text)")
    return Watching(db, "heard")


def states(db) -> dict:
    return dict(db.rows("SELECT name, state FROM pushy.watches"))


# -- renamed, altered -------------------------------------------------------------------------------------------

def test_renamed_tables_columns_and_schemas_are_followed(db, heard):
    watch(db, "t", columns=["v"], condition="coalesce(NEW.w, '') <> 'no' AND length(coalesce(NEW.w, '')) < 9", payload="row")
    with db.connect() as other:
        other.execute("INSERT INTO t VALUES (1, 1, 'a')")
        db.sql("CREATE SCHEMA away; ALTER TABLE t SET SCHEMA away; ALTER SCHEMA away RENAME TO there; ALTER TABLE there.t RENAME TO u; "
               "ALTER TABLE there.u RENAME v TO volume; ALTER TABLE there.u RENAME w TO word; ALTER TABLE there.u RENAME id TO number")
        other.execute("INSERT INTO there.u VALUES (2, 2, 'no'), (3, 3, 'yes'); UPDATE there.u SET word = 'b'; UPDATE there.u SET volume = 9 WHERE number = 3")
    first, second, third = heard.payloads()
    assert first["new"] == {"id": 1, "v": 1, "w": "a"}
    assert (second["schema"], second["table"], second["key"], second["new"]) == ("there", "u", {"number": 3}, {"number": 3, "volume": 3, "word": "yes"})
    assert third["new"]["volume"] == 9
    assert db.value("SELECT relation::text FROM pushy.watches") == "there.u"
    assert db.value("SELECT pushy.unwatch('there.u')") == 1


def test_a_watched_column_cannot_be_dropped_but_with_cascade_which_breaks_the_watch(db, heard):
    watch(db, "t", columns=["v"])
    watch(db, "t", name="condition", condition="length(NEW.w) > 0")
    watch(db, "t", name="plain", channel="other")
    for column in ("v", "w"):
        with pytest.raises(psycopg.errors.DependentObjectsStillExist):
            db.sql(f"ALTER TABLE t DROP COLUMN {column}")
    other = Watching(db, "other")
    with db.connect() as session:
        assert heard.after("INSERT INTO t VALUES (1, 1, 'x')", session=session) == [("insert", 1)], "two equal notices are one"
        db.sql("ALTER TABLE t DROP COLUMN v CASCADE; ALTER TABLE t DROP COLUMN w CASCADE")
        assert states(db) == {"heard": "broken", "condition": "broken", "plain": "active"}
        other.until_now(), heard.until_now()
        assert heard.after("INSERT INTO t VALUES (2)", "UPDATE t SET id = 3 WHERE id = 2", "DELETE FROM t", session=session) == []
    assert other.after() == [("insert", 2), ("update", 3), ("delete", 1), ("delete", 3)]
    with pytest.raises(psycopg.errors.UndefinedColumn):
        watch(db, "t", columns=["v"])
    watch(db, "t"), watch(db, "t", name="condition")
    assert set(states(db).values()) == {"active"}
    assert heard.after("INSERT INTO t VALUES (4)") == [("insert", 4)]


def test_keys_that_come_and_go_are_felt(db, heard):
    watch(db, "t")
    with db.connect() as session:
        def insert(id):
            return heard.after(f"INSERT INTO t VALUES ({id}, {id}, 'x')", session=session)
        assert insert(1) == [("insert", 1)]
        db.sql("ALTER TABLE t DROP CONSTRAINT t_pkey")
        assert insert(2) == [("insert", None)]
        db.sql("ALTER TABLE t ALTER v SET NOT NULL; CREATE UNIQUE INDEX k ON t (v); ALTER TABLE t REPLICA IDENTITY USING INDEX k")
        db.sql("INSERT INTO t VALUES (77, 77)")
        assert [payload["key"] for payload in heard.payloads()] == [{"v": 77}]
        db.sql("ALTER TABLE t ADD PRIMARY KEY (id)")
        assert insert(3) == [("insert", 3)]
        db.sql("ALTER TABLE t ADD COLUMN more int DEFAULT 5")
        watch(db, "t", payload="row")
        session.execute("INSERT INTO t VALUES (4, 4, 'x')")
        assert heard.payloads()[0]["new"] == {"id": 4, "v": 4, "w": "x", "more": 5}


def test_a_changed_type_is_told_as_such(db, heard):
    watch(db, "t", payload="row")
    with db.connect() as session:
        session.execute("INSERT INTO t VALUES (1, 1, '5')")
        db.sql("ALTER TABLE t ALTER w TYPE int USING w::int, ALTER id TYPE bigint")
        session.execute("INSERT INTO t VALUES (9007199254740993, 1, 6)")
        assert [payload["new"] for payload in heard.payloads()] == [{"id": 1, "v": 1, "w": "5"}, {"id": "9007199254740993", "v": 1, "w": 6}]
    watch(db, "t", columns=["v"])
    db.sql("ALTER TABLE t ALTER v TYPE bigint")
    assert heard.after("UPDATE t SET v = 2 WHERE id = 1") == [("update", 1)]


def test_a_composite_type_and_an_enum_that_grow_are_felt(db, heard):
    db.sql("CREATE TYPE pair AS (a int, b int); CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE c (id int PRIMARY KEY, p pair, m mood)")
    watch(db, "c", payload="row")
    with db.connect() as session:
        session.execute("INSERT INTO c VALUES (1, '(1,2)', 'sad')")
        db.sql("ALTER TYPE pair ADD ATTRIBUTE z text; ALTER TYPE pair DROP ATTRIBUTE a; ALTER TYPE pair RENAME ATTRIBUTE b TO bb; ALTER TYPE mood ADD VALUE 'glad'")
        session.execute("INSERT INTO c VALUES (2, '(3,zz)', 'glad')")
    assert [(payload["new"]["p"], payload["new"]["m"]) for payload in heard.payloads()] == [({"a": 1, "b": 2}, "sad"), ({"bb": 3, "z": "zz"}, "glad")]


# -- partitions, inheritance --------------------------------------------------------------------------------------

def test_partitions_that_come_and_go_are_followed(db, heard):
    db.sql("CREATE TABLE p (k int, id int, PRIMARY KEY (k, id)) PARTITION BY LIST (k); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)")
    watch(db, "p", condition="coalesce(NEW.id, OLD.id)::text <> '99'")
    with db.connect() as session:
        assert heard.after("INSERT INTO p VALUES (1, 1), (1, 99)", session=session) == [("insert", (1, 1))]
        db.sql("CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2) PARTITION BY LIST (id); CREATE TABLE p2a PARTITION OF p2 DEFAULT;"
               "CREATE TABLE p3 (extra int, id int NOT NULL, k int NOT NULL); ALTER TABLE p3 DROP COLUMN extra; ALTER TABLE p ATTACH PARTITION p3 FOR VALUES IN (3)")
        assert heard.after("INSERT INTO p VALUES (2, 2), (3, 3), (3, 99)", "INSERT INTO p3 (k, id) VALUES (3, 4)", session=session) == [
            ("insert", (2, 2)), ("insert", (3, 3)), ("insert", (3, 4))]
        db.sql("ALTER TABLE p DETACH PARTITION p3")
        assert heard.after("INSERT INTO p3 (k, id) VALUES (3, 5)", "INSERT INTO p VALUES (1, 2)", session=session) == [("insert", (1, 2))]
        assert db.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'p3'::regclass") == 0
        db.sql("ALTER TABLE p ATTACH PARTITION p3 FOR VALUES IN (3)")
        assert heard.after("INSERT INTO p VALUES (3, 6)", session=session) == [("insert", (3, 6))]
    assert states(db) == {"heard": "active"}
    db.sql("SELECT pushy.unwatch('p')")
    assert db.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pushy%'") == 0


def test_a_partition_can_have_a_watch_of_its_own(db, heard):
    db.sql("CREATE TABLE p (k int, id int, PRIMARY KEY (k, id)) PARTITION BY LIST (k); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)")
    watch(db, "p"), watch(db, "p1", channel="other", name="own")
    other = Watching(db, "other")
    db.sql("INSERT INTO p VALUES (1, 1), (2, 2); UPDATE p SET k = 2 WHERE id = 1")
    assert heard.after() == [("insert", (1, 1)), ("insert", (2, 2)), ("update", (2, 1))]
    assert other.after() == [("insert", (1, 1)), ("delete", (1, 1))]


def test_a_table_with_children_is_watched_with_a_warning(db, heard):
    db.sql("CREATE TABLE child () INHERITS (t)")
    with db.connect() as session:
        warnings = []
        session.add_notice_handler(lambda diagnostic: warnings.append(diagnostic.message_primary))
        session.execute("SELECT pushy.watch('t', channel => 'heard')")
        assert warnings == ["tables that inherit from public.t are not watched: public.child"]
    assert heard.after("INSERT INTO child VALUES (1)", "INSERT INTO t VALUES (2)", "UPDATE t SET v = 1") == [("insert", 2), ("update", 2)]


def test_only_tables_that_inherit_and_have_no_watch_are_warned_of(db, heard):
    db.sql('CREATE TABLE "Odd" () INHERITS (t); CREATE TABLE below () INHERITS ("Odd"); CREATE TABLE seen () INHERITS (t)')
    with db.connect() as session:
        warnings = []
        session.add_notice_handler(lambda diagnostic: warnings.append(diagnostic.message_primary))
        inherit = lambda: [said for said in warnings if "inherit" in said]  # noqa: E731
        session.execute("SELECT pushy.watch('seen', channel => 'heard')")
        session.execute("SELECT pushy.watch('t', channel => 'heard')")
        assert inherit() == ['tables that inherit from public.t are not watched: public."Odd", public.below']
        for child in ('"Odd"', "below"):
            session.execute("SELECT pushy.watch(%s, channel => 'heard')", (child,))
        warnings.clear()
        session.execute("SELECT pushy.watch('t', channel => 'heard', payload => 'row')")
        assert inherit() == []


# -- functions ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("language, body", [("sql", "SELECT $1 > {}"), ("plpgsql", "BEGIN RETURN $1 > {}; END")])
def test_a_replaced_function_is_felt_by_the_next_write_of_every_session(db, heard, language, body):
    def replace(limit):
        db.sql(f"CREATE OR REPLACE FUNCTION big(int) RETURNS bool IMMUTABLE LANGUAGE {language} AS $$ {body.format(limit)} $$")
    replace(10)
    watch(db, "t", condition="big(NEW.v)")
    with db.connect() as session:
        assert heard.after("INSERT INTO t VALUES (1, 5), (2, 15)", session=session) == [("insert", 2)]
        replace(0)
        assert heard.after("INSERT INTO t VALUES (3, 5)", session=session) == [("insert", 3)]
        session.execute("BEGIN; INSERT INTO t VALUES (4, 5)")
        replace(100)
        session.execute("INSERT INTO t VALUES (5, 5); COMMIT")
        assert heard.after() == [("insert", 4)]


def test_a_function_in_use_cannot_be_dropped_but_with_cascade(db, heard):
    db.sql("CREATE FUNCTION big(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN $1 > 10; END'")
    watch(db, "t", condition="big(NEW.v)")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        db.sql("DROP FUNCTION big(int)")
    db.sql("ALTER FUNCTION big(int) RENAME TO large; CREATE SCHEMA away; ALTER FUNCTION large(int) SET SCHEMA away")
    assert heard.after("INSERT INTO t VALUES (1, 5), (2, 15)") == [("insert", 2)]
    db.sql("DROP FUNCTION away.large(int) CASCADE")
    assert states(db) == {"heard": "broken"}
    assert heard.after("INSERT INTO t VALUES (3, 15)") == []


# -- dropped, by hand, by whom it may --------------------------------------------------------------------------------

def test_a_dropped_table_takes_its_watches_along(db, heard):
    watch(db, "t")
    db.sql("DROP TABLE t")
    assert states(db) == {}
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    watch(db, "t")
    assert db.value("SELECT count(*) FROM pushy_internal.watch") == 1
    assert heard.after("INSERT INTO t VALUES (1)") == [("insert", 1)]


def test_watches_that_end_make_room_for_the_counts_of_others(db, heard):
    """More than are counted in the whole server at a time."""
    db.sql('''
        CREATE PROCEDURE come_and_go() LANGUAGE plpgsql AS $$
        BEGIN
            FOR n IN 1..2100 LOOP
                PERFORM pushy.watch('t', events => '{insert}', channel => 'many');
                INSERT INTO t VALUES (n);
                COMMIT;
                PERFORM pushy.unwatch('t');
                COMMIT;
            END LOOP;
        END $$''')
    db.sql("CALL come_and_go()")
    watch(db, "t")
    assert heard.after("INSERT INTO t VALUES (0)") == [("insert", 0)]
    assert db.row("SELECT notices FROM pushy.watches") == {"notices": 1}


def test_a_trigger_dropped_by_hand_breaks_the_watch_and_declaring_it_again_mends_it(db, heard):
    watch(db, "t")
    db.sql("DROP TRIGGER pushy_heard_update ON t")
    assert states(db) == {"heard": "broken"}
    assert heard.after("INSERT INTO t VALUES (1)", "UPDATE t SET v = 1") == []
    watch(db, "t")
    assert states(db) == {"heard": "active"}
    assert heard.after("UPDATE t SET v = 2") == [("update", 1)]


def test_declared_again_as_it_is_it_takes_no_lock(db, heard):
    watch(db, "t", columns=["v"])
    with db.connect(autocommit=False) as writer:
        writer.execute("INSERT INTO t VALUES (1)")
        db.sql("SET lock_timeout = '1s'")
        assert watch(db, "t", columns=["v"]) == "heard"
        with pytest.raises(psycopg.errors.LockNotAvailable):
            watch(db, "t", columns=["w"])
        writer.commit()


# -- at the same time -------------------------------------------------------------------------------------------------

def waits(db, session) -> bool:
    return db.wait_until("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", True, params=(session.info.backend_pid,))


def in_background(session, statement):
    outcome = []

    def run():
        try:
            outcome.append(session.execute(statement).fetchone()[0])
        except psycopg.Error as error:
            outcome.append(error)
    thread = threading.Thread(target=run)
    thread.start()

    def result():
        thread.join(60)
        return outcome[0]
    return result


@pytest.mark.parametrize("second, state, options", [
    ("SELECT pushy.watch('t', channel => 'heard', payload => 'diff')", "active", ("diff",)),
    ("SELECT pushy.unwatch('t')", None, None),
    ("SELECT pushy.watch_pause('t')", "paused", ("row",)),
])
def test_declaring_pausing_and_ending_at_the_same_time_leave_a_whole_watch_or_none(db, heard, second, state, options):
    """The second one has to see what the first has committed, not what was there when it began."""
    watch(db, "t")
    with db.connect(autocommit=False) as one, db.connect() as two:
        one.execute("SELECT pushy.watch('t', channel => 'heard', payload => 'row')")
        result = in_background(two, second)
        waits(db, two)
        one.commit()
        assert not isinstance(result(), psycopg.Error), result()
    assert states(db) == ({"heard": state} if state else {})
    assert db.rows("SELECT payload FROM pushy.watches") == ([options] if options else [])
    assert db.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass") == (3 if state else 0)
    if state == "paused":
        db.sql("SELECT pushy.watch_resume('t')")
    assert heard.after("INSERT INTO t VALUES (1)") == ([("insert", 1)] if state else [])


def test_two_first_declarations_at_the_same_time_are_one_watch(db, heard):
    with db.connect(autocommit=False) as one, db.connect() as two:
        one.execute("SELECT pushy.watch('t', channel => 'heard')")
        result = in_background(two, "SELECT pushy.watch('t', channel => 'heard', payload => 'row')")
        waits(db, two)
        one.commit()
        assert result() == "heard"
    assert heard.after("INSERT INTO t VALUES (1)") == [("insert", 1)]


def test_a_table_renamed_while_a_declaration_waits_is_the_one_that_is_watched(db, heard):
    with db.connect(autocommit=False) as one, db.connect() as two:
        one.execute("ALTER TABLE t RENAME TO old; CREATE TABLE t (id int PRIMARY KEY)")
        result = in_background(two, "SELECT pushy.watch(%d::regclass, channel => 'heard')" % db.value("SELECT 't'::regclass::oid::int"))
        waits(db, two)
        one.commit()
        assert not isinstance(result(), psycopg.Error), result()
    assert db.value("SELECT relation::text FROM pushy.watches") == "old"
    assert heard.after("INSERT INTO t VALUES (1)", "INSERT INTO old VALUES (2)") == [("insert", 2)]


def test_a_declaration_that_is_rolled_back_was_none(db, heard):
    with db.connect(autocommit=False) as session:
        session.execute("SELECT pushy.watch('t', channel => 'heard'); INSERT INTO t VALUES (1)")
        session.rollback()
        session.execute("INSERT INTO t VALUES (1)")
        session.execute("SAVEPOINT a; SELECT pushy.watch('t', channel => 'heard'); INSERT INTO t VALUES (2); ROLLBACK TO a; INSERT INTO t VALUES (3)")
        session.execute("SELECT pushy.watch('t', channel => 'heard'); INSERT INTO t VALUES (4)")
        session.commit()
    assert heard.after() == [("insert", 4)]
    with db.connect(autocommit=False) as session:
        session.execute("SELECT pushy.unwatch('t'); INSERT INTO t VALUES (5)")
        session.rollback()
    assert heard.after("INSERT INTO t VALUES (6)") == [("insert", 6)]


# -- the extension, copies --------------------------------------------------------------------------------------------

def test_dropping_the_extension_ends_watches_and_creating_it_again_begins_anew(db, heard):
    heard.say = "SELECT pg_notify(%s, '')"  # there without the extension, too
    watch(db, "t", condition="NEW.v::text <> 'x'", delivery="notify")
    with db.connect() as session:
        assert heard.after("INSERT INTO t VALUES (1, 1)", session=session) == [("insert", 1)]
        with pytest.raises(psycopg.errors.DependentObjectsStillExist):
            db.sql("DROP EXTENSION pushy")
        db.sql("DROP EXTENSION pushy CASCADE")
        assert heard.after("INSERT INTO t VALUES (2, 1)", session=session) == []
        db.sql("CREATE EXTENSION pushy")
        assert states(db) == {}
        watch(db, "t", payload="row", delivery="notify")
        assert heard.after("INSERT INTO t VALUES (3, 1)", session=session) == [("insert", 3)]
    assert db.row("SELECT notices FROM pushy.watches") == {"notices": 1}


def declare_three(db):
    db.sql("CREATE SCHEMA \"Ünder\"; CREATE TABLE \"Ünder\".\"T t\" (id int PRIMARY KEY, v int); CREATE TABLE t (id int PRIMARY KEY, v int); "
           "CREATE TABLE p (k int, id int, PRIMARY KEY (k, id)) PARTITION BY LIST (k); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)")
    paused_queue(db)
    watch(db, "t", columns=["v"], condition="coalesce(NEW.id, OLD.id)::text <> '9'", level="statement")
    watch(db, '"Ünder"."T t"', payload="row", queue="q")
    watch(db, "p")


def silent_until_resumed(copy):
    heard = Watching(copy, "heard")
    write = ["INSERT INTO t VALUES (%d), (9)", "INSERT INTO \"Ünder\".\"T t\" VALUES (%d)", "INSERT INTO p VALUES (1, %d)", "DELETE FROM t"]
    assert set(states(copy).values()) == {"elsewhere"}
    assert sorted(copy.rows("SELECT relation::text, state FROM pushy.watches")) == [(table, "elsewhere") for table in ('"Ünder"."T t"', "p", "t")]
    assert heard.after(*[statement % 1 if "%" in statement else statement for statement in write]) == []
    before = copy.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pushy%'")
    # One is declared again, one ended, the third resumed with all.
    watch(copy, "t", columns=["v"], condition="coalesce(NEW.id, OLD.id)::text <> '9'", level="statement")
    assert copy.value("SELECT pushy.unwatch('p')") == 1
    resumed = copy.rows("SELECT name, resumed, reason FROM pushy.resume_after_restore()")
    assert [reason for _, _, reason in resumed if reason and "queue is paused" not in reason] == []
    assert states(copy) == {"heard": "active"} and copy.value("SELECT count(*) FROM pushy.watches") == 2
    assert copy.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pushy%'") == before - 6, "of p and its partition"
    assert heard.after(*[statement % 2 if "%" in statement else statement for statement in write]) == [
        ("insert", 1, [2]), ("insert", 2), ("delete", 1, [2])]
    assert [args["key"]["id"] for args in jobs(copy)] == [2]
    assert copy.value("SELECT pushy.watch('t', channel => 'new')") == "new", "numbers go on where they were"


@pytest.mark.parametrize("fresh", [False, True], ids=["the same cluster", "another cluster"])
def test_a_restored_watch_is_silent_until_somebody_says_so(make_cluster, fresh):
    db = make_cluster().database("shop")
    declare_three(db)
    dump = db.cluster.run("pg_dump", "-h", db.cluster.folder, "-p", db.cluster.port, "-U", "postgres", "shop").stdout
    there = make_cluster(fresh=True) if fresh else db.cluster
    copy = there.database("copy", extension=False)
    said = there.psql("copy", dump)
    assert "ERROR" not in said, said
    silent_until_resumed(copy)
    assert Watching(db, "heard").after("INSERT INTO p VALUES (1, 5)") == [("insert", (1, 5))], "the original is left alone"


def test_a_copy_by_template_is_silent_until_somebody_says_so(make_cluster):
    db = make_cluster().database("shop")
    declare_three(db)
    db.close()
    with db.cluster.connect() as admin:
        admin.execute("CREATE DATABASE copy TEMPLATE shop")
    silent_until_resumed(Database(db.cluster, "copy"))
    assert Watching(db, "heard").after("INSERT INTO p VALUES (1, 5)") == [("insert", (1, 5))]


def restored(db, name: str = "copy") -> Database:
    dump = db.cluster.run("pg_dump", "-h", db.cluster.folder, "-p", db.cluster.port, "-U", "postgres", db.name).stdout
    copy = db.cluster.database(name, extension=False)
    said = db.cluster.psql(name, dump)
    assert "ERROR" not in said, said
    return copy


@pytest.mark.parametrize("declared", [False, True], ids=["resumed", "declared again"])
@pytest.mark.parametrize("successor", ["", "CREATE TABLE t (id int)"], ids=["", "with a new table of the old name"])
def test_a_restored_watch_follows_a_table_that_was_renamed_before(make_cluster, declared, successor):
    db = make_cluster().database("shop")
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    watch(db, "t")
    db.sql(f"CREATE SCHEMA s; ALTER TABLE t RENAME TO \"U\"; ALTER TABLE \"U\" SET SCHEMA s; {successor}")
    copy = restored(db)
    assert copy.rows("SELECT relation::text, state FROM pushy.watches") == [('s."U"', "elsewhere")]
    if declared:
        watch(copy, 's."U"')
    else:
        assert copy.rows("SELECT name, resumed, reason FROM pushy.resume_after_restore()") == [('heard on s."U"', True, None)]
    heard = Watching(copy, "heard")
    assert states(copy) == {"heard": "active"}
    assert heard.after('INSERT INTO s."U" VALUES (1)') == [("insert", 1)]
    assert copy.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pushy%'") == 3


def test_a_restored_watch_does_not_go_to_a_table_of_somebody_else_who_has_made_such_triggers(make_cluster):
    db = make_cluster().database("shop")
    db.sql("CREATE ROLE mallory; CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE trap (id int PRIMARY KEY); ALTER TABLE trap OWNER TO mallory")
    watch(db, "t")
    arguments = ", ".join(f"'{argument}'" for argument in db.rows("SELECT token, name FROM pushy_internal.watch")[0])
    for event in ["insert", "update", "delete"]:
        db.sql(f"""SET ROLE mallory; CREATE TRIGGER pushy_heard_{event} AFTER {event} ON trap FOR EACH ROW
                   EXECUTE FUNCTION pushy.watch_row({arguments}); RESET ROLE""")
    db.sql("ALTER TABLE t RENAME TO u")
    copy = restored(db)
    resume = "SELECT name, resumed, left(reason, 42) FROM pushy.resume_after_restore()"
    trap = ("heard on public.trap", False, "its triggers are here without it; declare ")
    assert copy.rows(resume) == [("heard on public.u", True, None), trap]
    lost = ("heard on public.t", False, "table public.t does not exist, or has anot")
    for what in ("UPDATE pushy_internal.watch SET home_system = 1; DROP TABLE u", "ALTER TABLE trap RENAME TO t"):
        db.sql(what)
        found = db.rows(resume)
        assert found[0] == lost and found[1][0].startswith("heard on public.t"), (what, found)
        db.sql("SET ROLE mallory")
        assert db.rows("SELECT state, condition, owner FROM pushy.watches") == [("orphaned", None, None)]
        db.sql("RESET ROLE")


def test_a_watch_is_called_by_the_name_its_table_has_now(db):
    paused_queue(db)
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    watch(db, "t", queue="q")
    db.sql("ALTER TABLE t RENAME TO u")
    with pytest.raises(psycopg.Error, match="public.u"):
        db.sql("SELECT pushy.queue_drop('q')")


def mend(db) -> None:
    for fix, in db.rows("SELECT fix FROM pushy.watches WHERE fix IS NOT NULL"):
        db.sql(fix)


@pytest.mark.parametrize("level", ["row", "statement"])
@pytest.mark.parametrize("alter, state", [
    ("DISABLE TRIGGER ALL", "disabled"), ("DISABLE TRIGGER pushy_heard_insert", "disabled"),
    ("ENABLE REPLICA TRIGGER pushy_heard_insert", "replica"), ("ENABLE ALWAYS TRIGGER pushy_heard_insert", "active"),
    ("DISABLE TRIGGER pushy_heard_expressions", "active"),
])
def test_triggers_that_alter_table_keeps_from_firing_show_in_the_state_and_how_to_mend_it(db, level, alter, state):
    db.sql('CREATE TABLE "T t" (id int PRIMARY KEY)')
    watch(db, '"T t"', condition="NEW.id > 0 OR OLD.id > 0", level=level)
    heard = Watching(db, "heard")
    db.sql(f'ALTER TABLE "T t" {alter}')
    assert states(db) == {"heard": state}
    told = heard.after('INSERT INTO "T t" VALUES (1)')
    assert bool(told) == (state == "active")
    db.sql("SELECT pushy.watch_pause('\"T t\"')")
    assert states(db) == {"heard": "paused"}
    mend(db)
    mend(db)
    assert states(db) == {"heard": "active"}
    assert db.value("SELECT fix FROM pushy.watches") is None
    assert len(heard.after('INSERT INTO "T t" VALUES (2)')) == 1


def test_a_trigger_disabled_on_one_partition_shows_in_the_state(db, heard):
    db.sql("CREATE TABLE p (k int, PRIMARY KEY (k)) PARTITION BY LIST (k); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);"
           "CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2, 3) PARTITION BY LIST (k); CREATE TABLE p22 PARTITION OF p2 FOR VALUES IN (2)")
    watch(db, "p", condition="NEW.k > 0")
    db.sql("ALTER TABLE p22 DISABLE TRIGGER ALL")
    assert states(db) == {"heard": "disabled"}
    assert heard.after("INSERT INTO p VALUES (1), (2)") == [("insert", 1)]
    mend(db)
    assert states(db) == {"heard": "active"}
    assert heard.after("DELETE FROM p", "INSERT INTO p VALUES (1), (2)")[-2:] == [("insert", 1), ("insert", 2)]


def test_a_foreign_table_is_refused_with_the_reason(db):
    db.sql("CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere; CREATE FOREIGN TABLE away (id int) SERVER far")
    with pytest.raises(psycopg.errors.WrongObjectType, match="away") as raised:
        db.sql("SELECT pushy.watch('away')")
    assert "foreign table" in f"{raised.value.diag.message_primary} {raised.value.diag.message_detail}" and raised.value.diag.message_hint


def test_the_schema_is_not_renamed_because_watches_say_its_name(db, heard, role):
    watch(db, "t")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match='schema "pushy" cannot be renamed'):
        db.sql("ALTER SCHEMA pushy RENAME TO other")
    with db.connect(user=role()) as session, pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of schema"):
        session.execute("ALTER SCHEMA pushy RENAME TO other")
    db.sql("CREATE SCHEMA one; ALTER SCHEMA one RENAME TO two")
    assert heard.after("INSERT INTO t VALUES (1)") == [("insert", 1)]
    # Where the extension is not, the name is free.
    db.sql("DROP EXTENSION pushy CASCADE")
    db.sql("CREATE SCHEMA IF NOT EXISTS pushy")
    db.sql("ALTER SCHEMA pushy RENAME TO other")


def test_many_watches_of_one_table_are_declared_without_reading_all_triggers_for_each(db, heard):
    """The server reads a table's triggers whenever one is made; Pushy adds little to that."""
    with db.connect(autocommit=False) as session:
        session.execute("DO $$ BEGIN FOR n IN 1..50 LOOP PERFORM pushy.watch('t', channel => 'c' || n); END LOOP; END $$")
        read = session.execute("SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_all_tables WHERE relname = 'pg_trigger'").fetchone()[0]
    assert read < 60_000, "355,000 when each declaration asked for every watch where its triggers are"
