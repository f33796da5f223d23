"""A watch that has lost a trigger, by hand or with what it used, does nothing at all, and says so."""

import itertools

import pytest

from stage.watching import paused_queue

# What a watch uses, and what takes it away with CASCADE.
USES = {
    "a column of the condition": ({"condition": "coalesce(NEW.vip, OLD.vip)"}, "ALTER TABLE {t} DROP COLUMN vip CASCADE"),
    "a column of the condition of an insert": ({"condition": "NEW.amount > 100 AND NEW.vip"}, "ALTER TABLE {t} DROP COLUMN vip CASCADE"),
    "one of the columns": ({"columns": ["note", "vip"]}, "ALTER TABLE {t} DROP COLUMN vip CASCADE"),
    "the only column": ({"columns": ["vip"]}, "ALTER TABLE {t} DROP COLUMN vip CASCADE"),
    "a column of the payload": ({"payload_expr": "coalesce(NEW.note, 'x')"}, "ALTER TABLE {t} DROP COLUMN note CASCADE"),
    "a column of the arguments": ({"args_expr": "jsonb_build_object('n', NEW.note)"}, "ALTER TABLE {t} DROP COLUMN note CASCADE"),
    "a function": ({"condition": "fits(coalesce(NEW.amount, OLD.amount))"}, "DROP FUNCTION fits CASCADE"),
    "a type": ({"condition": "(NEW.id)::text::small > 0"}, "DROP DOMAIN small CASCADE"),
    "an operator": ({"condition": "NEW.id ==== NEW.id"}, "DROP OPERATOR ==== (int, int) CASCADE"),
}

OBJECTS = """
    CREATE OR REPLACE FUNCTION fits(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 > 0';
    DROP DOMAIN IF EXISTS small CASCADE; CREATE DOMAIN small AS int;
    DROP OPERATOR IF EXISTS ==== (int, int); CREATE OPERATOR ==== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)"""

EVENTS = [["insert"], ["update"], ["delete"], ["insert", "update", "delete"], ["insert", "update", "delete", "truncate"]]


def shapes():
    """Every declaration that watch() takes of these."""
    for use, level, events, target, partitioned in itertools.product(
            USES, ["row", "statement"], EVENTS, [("c", None), (None, "q"), ("c", "q")], [False, True]):
        options = dict(USES[use][0])
        channel, queue = target
        if level == "statement" and ("payload_expr" in options or "args_expr" in options):
            continue
        if "columns" in options and "update" not in events:
            continue
        if ("payload_expr" in options and channel is None) or ("args_expr" in options and queue is None):
            continue
        yield use, options | {"level": level, "events": events, "channel": channel, "queue": queue}, partitioned


def create(db, table: str, partitioned: bool) -> None:
    db.sql(f"CREATE TABLE {table} (id int, amount int, vip boolean DEFAULT false, note text, PRIMARY KEY (id))"
           + (" PARTITION BY RANGE (id)" if partitioned else ""))
    if partitioned:
        db.sql(f"CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM (0) TO (2); CREATE TABLE {table}_2 PARTITION OF {table} FOR VALUES FROM (2) TO (9)")


def declare(db, table: str, options: dict) -> None:
    db.value("SELECT pushy.watch(%s" + "".join(f", {name} => %s" for name in options) + ", delivery => 'notify')", table, *options.values())


def told(db, table: str) -> tuple:
    seen = db.row("SELECT state, fix IS NOT NULL AS fix, notices, jobs, errors FROM pushy.watches WHERE relation = %s::regclass", table)
    return seen["state"], seen["fix"], seen["notices"] + seen["jobs"] + seen["errors"]


def write(db, table: str) -> None:
    """Each kind of change, as far as the columns are there."""
    names = {name for name, in db.rows("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped", table)}
    db.sql(f"INSERT INTO {table} (id, amount) VALUES (1, 500), (2, 1); UPDATE {table} SET amount = amount + 500; UPDATE {table} SET amount = -amount")
    if "note" in names:
        db.sql(f"UPDATE {table} SET note = 'y'")
    db.sql(f"UPDATE {table} SET id = id + 2; DELETE FROM {table}; TRUNCATE {table}")


@pytest.mark.parametrize("use", USES)
def test_what_it_used_is_dropped(db, use):
    """For every declaration: silent afterwards, with the state and a way out, and as before when it is declared again."""
    paused_queue(db)
    for number, (_, options, partitioned) in enumerate(shape for shape in shapes() if shape[0] == use):
        table = f"t{number}"
        db.sql(OBJECTS)
        create(db, table, partitioned)
        declare(db, table, options)
        assert told(db, table) == ("active", False, 0)
        write(db, table)
        state, fix, before = told(db, table)
        assert (state, fix) == ("active", False), (table, options)
        db.sql(USES[use][1].format(t=table))
        write(db, table)
        assert told(db, table) == ("broken", True, before), (options, partitioned)
        # Also in a session that has not written before, and in the transaction that breaks it.
        with db.connect() as session:
            session.execute(f"INSERT INTO {table} (id) VALUES (1); DELETE FROM {table}")
        assert told(db, table) == ("broken", True, before), (options, partitioned)
        db.sql(f"DROP TABLE {table}")


@pytest.mark.parametrize("level", ["row", "statement"])
@pytest.mark.parametrize("partitioned", [False, True])
def test_any_one_trigger_is_dropped_by_hand(db, level, partitioned):
    paused_queue(db)
    number = 0
    for events, (channel, queue), condition in itertools.product(EVENTS, [("c", None), (None, "q")], [None, "coalesce(NEW.amount, OLD.amount) <> 7"]):
        names = None
        at = 0
        while names is None or at < len(names):
            table, number = f"t{number}", number + 1
            create(db, table, partitioned)
            declare(db, table, {"level": level, "events": events, "channel": channel, "queue": queue, "condition": condition})
            names = [name for name, in db.rows("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal ORDER BY tgname", table)]
            db.sql(f'DROP TRIGGER "{names[at]}" ON {table}')
            write(db, table)
            assert told(db, table) == ("broken", True, 0), (names[at], events)
            declare(db, table, {"level": level, "events": events, "channel": channel, "queue": queue, "condition": condition})
            write(db, table)
            state, fix, count = told(db, table)
            assert (state, fix) == ("active", False) and count > 0, (names[at], events)
            db.sql(f"DROP TABLE {table}")
            at += 1


@pytest.mark.parametrize("level", ["row", "statement"])
def test_a_disabled_trigger_tells_less_and_never_more(db, level):
    """As ALTER TABLE says: what it tells of is not told, the rest is."""
    paused_queue(db)
    events = ["insert", "update", "delete"]
    condition = "coalesce(NEW.amount, OLD.amount) > 100"
    create(db, "whole", False)
    declare(db, "whole", {"level": level, "events": events, "channel": "c", "queue": "q", "condition": condition})
    write(db, "whole")
    most = told(db, "whole")[2]
    names = [name for name, in db.rows("SELECT tgname FROM pg_trigger WHERE tgrelid = 'whole'::regclass AND NOT tgisinternal")]
    for number, name in enumerate(names):
        table = f"t{number}"
        create(db, table, False)
        declare(db, table, {"level": level, "events": events, "channel": "c", "queue": "q", "condition": condition})
        db.sql(f'ALTER TABLE {table} DISABLE TRIGGER "{name}"')
        write(db, table)
        state, fix, count = told(db, table)
        if name.endswith("_expressions"):
            assert (state, fix, count) == ("active", False, most), name
        else:
            assert (state, fix) == ("disabled", True) and count <= most, name


def test_broken_in_the_transaction_that_writes(db):
    paused_queue(db)
    create(db, "t", False)
    declare(db, "t", {"channel": "c", "queue": "q", "condition": "NEW.vip"})
    db.sql("BEGIN; INSERT INTO t VALUES (1, 1, true); ALTER TABLE t DROP COLUMN vip CASCADE; INSERT INTO t VALUES (2, 1); DELETE FROM t; COMMIT")
    assert told(db, "t") == ("broken", True, 2), "the first row was told as a notice and a job, before"
    assert "is broken and makes no notices and no jobs" in db.cluster.log.since()


def test_the_log_says_so_once_a_session_and_declaration(db):
    """Each change of a definition has the watch read anew, and a table may be written all day."""
    create(db, "t", False)
    since = db.cluster.log.position()
    with db.connect() as session:
        for times, column in enumerate(["vip", "note"], start=1):
            declare(db, "t", {"channel": "c", "columns": [column]})
            session.execute("INSERT INTO t (id, amount) VALUES (1, 1)")
            db.sql(f"ALTER TABLE t DROP COLUMN {column} CASCADE")
            for _ in range(3):
                db.sql("ALTER TABLE t ALTER COLUMN amount SET STATISTICS 10")
                session.execute("UPDATE t SET amount = amount + 1; DELETE FROM t; INSERT INTO t (id, amount) VALUES (1, 1)")
            session.execute("DELETE FROM t")
            assert db.cluster.log.since(since).count("is broken and makes no notices and no jobs") == times


@pytest.mark.parametrize("use, level", [(use, level) for use, level in itertools.product(USES, ["row", "statement"])
                                        if level == "row" or not USES[use][0].keys() & {"payload_expr", "args_expr"}])
def test_in_a_copy_its_fix_can_be_done_as_in_the_original(db, shared_cluster, use, level):
    """A watch that came without some of its triggers is not resumed: fix is words that say what to do."""
    paused_queue(db)
    db.sql(OBJECTS)
    for table in ("t", "whole"):
        create(db, table, False)
        declare(db, table, USES[use][0] | {"name": "w", "level": level, "channel": "c", "queue": "q"})
    db.sql(USES[use][1].format(t="t"))
    before = dict(db.rows("SELECT relation::text, fix FROM pushy.watches WHERE state = 'broken'"))
    assert "t" in before
    db.close()
    copy = shared_cluster.database(f"{db.name}_copy", extension=False, options=f"TEMPLATE {db.name}")
    try:
        for table, state, fix in copy.rows("SELECT relation::text, state, fix FROM pushy.watches"):
            assert state == "elsewhere"
            if table not in before:
                copy.sql(fix)
                assert copy.value("SELECT state FROM pushy.watches WHERE relation = %s::regclass", table) == "active"
            elif "no column" in before[table]:
                assert fix == before[table]
            else:
                assert fix.startswith("Declare it again with pushy.watch; or end it: ")
                copy.sql(fix.split(": ")[1])
    finally:
        copy.drop()


@pytest.mark.parametrize("fate", ["gone", "another's", "the same", "none"])
@pytest.mark.parametrize("channel", [None, "c"])
def test_resume_after_restore_says_of_a_watch_what_its_state_says(db, role, shared_cluster, fate, channel):
    owner, stranger = role(), role()
    db.sql("CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY)")
    register = "SET ROLE {}; SELECT pushy.queue_register('q', 'nothing()'); RESET ROLE"
    db.sql(register.format(owner))
    db.sql("SELECT pushy.watch('t', channel => %s, queue => 'q')", channel)
    if fate != "none":
        db.sql("SELECT pushy.queue_drop('q', force => true)")
    if fate in ("another's", "the same"):
        db.sql(register.format(stranger if fate == "another's" else owner))
    db.close()
    copy = shared_cluster.database(f"{db.name}_copy", extension=False, options=f"TEMPLATE {db.name}")
    try:
        resumed, reason = copy.main.execute("SELECT resumed, reason FROM pushy.resume_after_restore() WHERE kind = 'watch'").fetchone()
        assert (resumed, copy.value("SELECT state FROM pushy.watches")) == ((True, "active") if fate in ("the same", "none") else (False, "broken"))
        assert (reason is None) == resumed and (resumed or "it adds no jobs" in reason)
    finally:
        copy.drop()
