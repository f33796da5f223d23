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
    "paused without a trigger": ("SELECT pushy.watch_pause('t', 'w'); DROP TRIGGER {trigger} ON t", "broken", "active"),
    "came from elsewhere": ("UPDATE pushy_internal.watch SET home_system = 1", "elsewhere", "active"),
    "may not enqueue": ("ALTER TABLE t OWNER TO tenant; UPDATE pushy_internal.watch SET owner = 'tenant'::regrole, owner_name = 'tenant'", "broken", "active"),
}
OPTIONS = {
    "plain": "payload => 'key'",
    "all": "channel => '\"Über all\"', events => '{insert,update}', columns => '{v}', condition => 'NEW.v <> ''it''''s''', payload => 'diff', queue => 'q', "
           "args_expr => 'to_jsonb(NEW.v)'",
    "topic": "channel => 'c', topic_expr => 'NEW.v'",
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
                if case == "paused without a trigger":
                    # What is declared again keeps its pause.
                    assert [now for now, _ in left] == ["paused"], left
                    run_fix(db, left[0][1])
                    left = state(db)
            except (psycopg.Error, AssertionError) as error:
                wrong.append((case, kind, fix, str(error)))
                continue
            if case == "may not enqueue":
                db.sql("SELECT pushy.queue_revoke('q', 'tenant', 'enqueue')")
            if left != ([(after, None)] if after else []):
                wrong.append((case, kind, fix, left))
            if "trigger" in case:
                same = db.row("SELECT * FROM pushy.watches")
                wrong += [(case, kind, key, same[key]) for key in declared if key not in ("fix", "state") and same[key] != declared[key]]
    assert wrong == []


def test_every_fix_of_a_subscription_is_a_statement_that_mends_it(table):
    db = table
    happens = {
        "elsewhere": ("UPDATE pushy_internal.subscription SET home_system = 1", "elsewhere", ["resync"]),
        "ownerless": ("UPDATE pushy_internal.subscription SET owner = 4000000000", "ownerless", ["active"]),
        "resync": ("UPDATE pushy_internal.log_state SET lost_epoch = 1", "resync", None),
    }
    for options in ("", ", channels => ARRAY['a', '\"B c\"']", ", topics => ARRAY['a/*', 'it''s/**']", ", queue => 'q'"):
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
    ("topic_expr => 'coalesce(NEW.v, OLD.v)'", "v"),
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


@pytest.mark.parametrize("make, use, drop, gone", [
    ("CREATE FUNCTION fits(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true'", "NEW.v <> ''gone(1) ::none'' AND public.fits (NEW.id)", "FUNCTION fits", "function fits"),
    ("CREATE DOMAIN small AS int", "NEW.id::small > 0 AND coalesce(NEW.v, OLD.v) <> $x$ gone(1) $x$", "DOMAIN small", "type small"),
    ("CREATE OPERATOR ==== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)", "NEW.id ==== NEW.id", "OPERATOR ==== (int, int)", "operator ===="),
])
def test_a_watch_that_lost_a_function_a_type_or_an_operator_says_which(table, make, use, drop, gone):
    table.sql(f"{make}; SELECT pushy.watch('t', condition => '{use}', name => 'w'); DROP {drop} CASCADE")
    [(now, fix)] = state(table)
    assert now == "broken" and f"what its expressions use and is gone, {gone}, and declare it again" in fix and not STATEMENT.match(fix)
    table.sql(make)
    [(now, fix)] = state(table)
    run_fix(table, fix)
    assert state(table) == [("active", None)]


# What happens to a queue of {owner} whose jobs run as {worker}, with a handler in {author}'s schema and of that role.
GONE = "DROP OWNED BY {%s}; DROP ROLE {%s}"
HANDLER = "CREATE FUNCTION {author}.work() RETURNS void LANGUAGE sql AS ''; ALTER FUNCTION {author}.work() OWNER TO {author}"
QUEUES = {
    "worker dropped": GONE.replace("%s", "worker"),
    "worker made again": GONE.replace("%s", "worker") + "; CREATE ROLE {worker} LOGIN",
    "owner dropped": GONE.replace("%s", "owner"),
    "owner made again": GONE.replace("%s", "owner") + "; CREATE ROLE {owner} LOGIN",
    "worker renamed": "ALTER ROLE {worker} RENAME TO {worker}_new",
    "owner renamed": "ALTER ROLE {owner} RENAME TO {owner}_new",
    "worker may not log in": "ALTER ROLE {worker} NOLOGIN",
    "worker has no sessions left": "ALTER ROLE {worker} CONNECTION LIMIT 0",
    "worker may not connect": "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC",
    "owner no member": "REVOKE {worker} FROM {owner}",
    "handler made again": "DROP FUNCTION {author}.work(); " + HANDLER,
    "handler renamed": "ALTER FUNCTION {author}.work() RENAME TO worked",
    "no EXECUTE": "REVOKE EXECUTE ON FUNCTION {author}.work() FROM PUBLIC",
    "no USAGE": "REVOKE USAGE ON SCHEMA {author} FROM PUBLIC",
    "paused": "SELECT pushy.queue_pause('{queue}')",
    "dropped, renamed and paused": GONE.replace("%s", "worker") + "; ALTER ROLE {owner} RENAME TO {owner}_new; SELECT pushy.queue_pause('{queue}')",
    "both dropped": GONE.replace("%s", "worker") + "; " + GONE.replace("%s", "owner"),
    "both dropped, handler made again": GONE.replace("%s", "worker") + "; " + GONE.replace("%s", "owner") + "; DROP FUNCTION {author}.work(); " + HANDLER,
}
# Those in which an executor comes so far as to park the queue.
PARKED = {"owner dropped", "owner made again", "owner renamed", "owner no member", "handler made again", "handler renamed", "no EXECUTE", "no USAGE"}
# Who runs what a fix says, and what: words before it say why to ask first.
SAID = re.compile(r"(?:^|; else(?P<superuser>, as a superuser)?: |, (?:or )?run )(?P<statement>(?:SELECT|GRANT|ALTER|CREATE) .*)$")


def follow(db, queue: str, said: str) -> str:
    """Runs the statement of a fix or a hint, as it stands, as whoever it is for."""
    found = SAID.search(said.removesuffix("."))
    assert found, f"no statement in {said}"
    owner = db.value("SELECT owner::text FROM pushy.queues WHERE queue = %s", queue)
    for statement in found["statement"].split("; "):
        ours = statement.startswith("SELECT pushy.") and not found["superuser"] and owner
        with db.connect(user=owner if ours else "postgres") as session:
            session.execute(statement)
    return found["statement"]


def mended(db, queue: str, by: str) -> list[str]:
    """Follows what the queue says until it says no more."""
    followed = []
    while True:
        said = db.rows("SELECT fix FROM pushy.queue_explain(%s) WHERE fix IS NOT NULL LIMIT 1", queue)
        if by == "hint" and said and not db.value("SELECT paused FROM pushy.queues WHERE queue = %s", queue):
            try:
                db.sql("SELECT pushy.queue_resume(%s)", queue)
                continue
            except psycopg.Error as error:
                said = [(error.diag.message_hint,)]
        if not said:
            return followed
        assert len(followed) < 5, followed
        followed.append(follow(db, queue, said[0][0]))


@pytest.fixture
def renamed(shared_cluster):
    """Roles that are called so in the end: dropped after the database."""
    names = []
    yield names
    with shared_cluster.connect() as admin:
        for name in names:
            admin.execute(f"DROP ROLE IF EXISTS {name}")


@pytest.mark.parametrize("by", ["fix", "hint"])
@pytest.mark.parametrize("parked", [False, True], ids=["at once", "parked"])
@pytest.mark.parametrize("case", QUEUES)
def test_every_fix_of_a_queue_mends_it(renamed, role, db, case, parked, by):
    """As it stands, text for text, by whoever it is for; and no fix leads in a circle."""
    names = {"owner": role(), "worker": role(), "author": role(), "queue": "q", "database": db.name}
    renamed += [f"{names[who]}_new" for who in ("owner", "worker")]
    fill = lambda text: text.format(**names)  # noqa: E731
    db.sql(fill("CREATE SCHEMA {author} AUTHORIZATION {author}; GRANT USAGE ON SCHEMA {author} TO PUBLIC; GRANT {worker} TO {owner};" + HANDLER))
    with db.connect(user=names["owner"]) as session:
        session.execute(fill("SELECT pushy.queue_register('q', '{author}.work()', run_as => '{worker}', keep_completed => '1 hour')"))
    # The executor that the registration has called would park the queue, perhaps when the fix was followed already.
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    db.wait_until("SELECT bool_and(state = 'idle') FROM pushy.workers WHERE kind = 'executor' AND database = current_database()", lambda idle: idle is not False)
    db.sql(fill(QUEUES[case]))
    job = None
    if parked:
        job = db.value("SELECT pushy.enqueue('q')")
        if case in PARKED:
            db.wait_until("SELECT parked IS NOT NULL FROM pushy_internal.queue", True)
    followed = mended(db, "q", by)
    done = db.job_wait(job or db.value("SELECT pushy.enqueue('q')"))
    assert (done["state"], done["attempt"]) == ("completed", 1), followed
