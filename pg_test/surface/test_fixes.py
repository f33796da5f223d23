"""What column fix says: a statement that runs as it is and makes things active, or words. No statement with words at its end."""

import re

import psycopg
import pytest

STATEMENT = re.compile(r"(?:SELECT|ALTER|GRANT|CREATE|REVOKE|CALL)\b")

# Of a watch w of table t: what happens to it, in which state it is then, and in which after its fix (None: its row is gone).
WATCHES = {
    "paused": ("SELECT pushy.watch_pause('t', 'w')", "paused", "active"),
    "a trigger is dropped": ("DROP TRIGGER {trigger} ON t", "broken", "active"),
    "disabled": ("ALTER TABLE t DISABLE TRIGGER ALL", "disabled", "active"),
    "of a replica": ("ALTER TABLE t ENABLE REPLICA TRIGGER {trigger}", "replica", "active"),
    "its row is lost": ("DELETE FROM pushy_internal.watch", "orphaned", None),
    "came from elsewhere": ("UPDATE pushy_internal.watch SET home_system = 1", "elsewhere", "active"),
    "may not enqueue": ("ALTER TABLE t OWNER TO tenant; UPDATE pushy_internal.watch SET owner = 'tenant'::regrole, owner_name = 'tenant'", "broken", "active"),
}
OPTIONS = {
    "plain": "payload => 'key'",
    "all": "channel => '\"Über all\"', events => '{insert,update}', columns => '{v}', condition => 'NEW.v <> ''it''''s''', payload => 'diff', queue => 'q', "
           "args_expr => 'to_jsonb(NEW.v)'",
    "expression": "channel => 'c', payload_expr => 'NEW.v', events => '{insert}', delivery => 'notify'",
    "statement": "level => 'statement', payload => 'none', merge => true",
    "jobs": "queue => 'q', payload => 'row'",
}


def state(db):
    return db.rows("SELECT state, fix FROM pushy.watches")


def run_fix(db, fix: str) -> None:
    assert STATEMENT.match(fix), fix
    for statement in fix.split("; "):
        db.sql(statement)


@pytest.fixture
def table(make_cluster):
    db = make_cluster().database()
    db.sql("CREATE ROLE tenant LOGIN; CREATE TABLE t (id int PRIMARY KEY, v text); CREATE FUNCTION work(jsonb) RETURNS void LANGUAGE sql AS '';"
           "SELECT pushy.queue_register('q', 'work(jsonb)')")
    return db


def test_every_fix_of_a_watch_is_a_statement_that_mends_it(table):
    db = table
    wrong = []
    for case, (happens, then, after) in WATCHES.items():
        for kind, options in OPTIONS.items():
            if case == "may not enqueue" and "queue" not in options:
                continue
            db.sql("SELECT pushy.unwatch('t'); ALTER TABLE t OWNER TO postgres")
            db.sql(f"SELECT pushy.watch('t', {options}, name => 'w')")
            declared = db.row("SELECT * FROM pushy.watches")
            trigger = db.value("SELECT tgname FROM pg_trigger t, pushy_internal.watch w WHERE t.oid = ANY (w.triggers) AND t.oid IS DISTINCT FROM w.expression_trigger LIMIT 1")
            db.sql(happens.format(trigger=psycopg.sql.Identifier(trigger).as_string(db.main)))
            [(now, fix)] = state(db)
            if now != then:
                wrong.append((case, kind, now, fix))
                continue
            if case == "may not enqueue":
                # Words: somebody may have meant it.
                assert fix.startswith("Ask ") and not STATEMENT.match(fix)
                fix = fix.partition("; else: ")[2]
            try:
                run_fix(db, fix)
                left = state(db)
            except (psycopg.Error, AssertionError) as error:
                wrong.append((case, kind, fix, str(error)))
                continue
            if case == "may not enqueue":
                db.sql("SELECT pushy.queue_revoke('q', 'tenant', 'enqueue')")
            if left != ([(after, None)] if after else []):
                wrong.append((case, kind, fix, left))
            if case == "a trigger is dropped":
                same = db.row("SELECT * FROM pushy.watches")
                wrong += [(case, kind, key, same[key]) for key in declared if key not in ("fix", "state") and same[key] != declared[key]]
    assert wrong == []


def test_every_fix_of_a_subscription_is_a_statement_that_mends_it(table):
    db = table
    happens = {
        "elsewhere": ("UPDATE pushy_internal.subscription SET home_system = 1", "elsewhere", ["resync"]),
        "ownerless": ("UPDATE pushy_internal.subscription SET owner = 4000000000", "ownerless", []),
        "resync": ("UPDATE pushy_internal.log_state SET lost_epoch = 1", "resync", None),
    }
    for options in ("", ", channels => ARRAY['a', '\"B c\"']", ", queue => 'q'"):
        for what, then, after in happens.values():
            db.sql(f"SELECT pushy.subscription_create('it''s'{options})")
            with db.connect(autocommit=False) as keeper:
                # The relay, which is on its way, passes over it.
                keeper.execute("SELECT FROM pushy_internal.subscription FOR UPDATE")
                if "log_state" in what:
                    db.sql(what)
                else:
                    keeper.execute(what)
                    keeper.commit()
                [(now, fix)] = db.rows("SELECT state, fix FROM pushy.subscriptions")
            assert now == then, (what, fix)
            if after is None:
                # A reader's own work: no statement to paste.
                assert not STATEMENT.match(fix) and "anew" in fix
            else:
                run_fix(db, fix)
            if "queue" in options and after == ["resync"]:
                # The relay does as a reader does.
                db.wait_until("SELECT state FROM pushy.subscriptions", "active")
                assert db.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'q' AND args = '{\"resync\": true}'") == 1
            elif after is not None:
                assert [now for now, in db.rows("SELECT state FROM pushy.subscriptions")] == after
            db.sql("UPDATE pushy_internal.log_state SET lost_epoch = 0; DELETE FROM pushy_internal.subscription")


@pytest.mark.parametrize("options, dropped", [
    ("columns => '{v}'", "v"),
    ("condition => 'NEW.v <> ''it''''s''', payload => 'row'", "v"),
    ("payload_expr => '(new).\"B c\"'", '"B c"'),
    ("queue => 'q', args_expr => 'to_jsonb(OLD.V)'", "v"),
])
def test_a_watch_that_lost_a_column_says_which_in_words_and_no_statement_that_fails(table, options, dropped):
    table.sql('ALTER TABLE t ADD "B c" text')
    table.sql(f"SELECT pushy.watch('t', {options}, name => 'w')")
    table.sql(f"ALTER TABLE t DROP COLUMN {dropped} CASCADE")
    [(now, fix)] = state(table)
    assert now == "broken" and f"is no column of t any more: {dropped};" in fix and not STATEMENT.match(fix)
    end = re.search(r"SELECT pushy\.unwatch\(.*\)$", fix)
    table.sql(end[0])
    assert state(table) == []
