"""What a view shows to a snapshot, or a cursor, of long ago: rights are those of now, and go with the object, not with its name."""

import psycopg
import pytest

SECRET = "s3cret"
# Each view with what of a row says that it is the victim's.
VIEWS = ("queues", "jobs", "failures", "stats", "queue_grants", "watches", "subscriptions", "channel_grants", "workers")
FUNCTIONS = ("(SELECT * FROM pushy.job_trace({job}))",)

# What is done after the snapshot, as the victim and then as the stranger; the stranger had rights before where it says so.
QUEUE = "SELECT pushy.queue_register('q', 'mine.h(jsonb)'), pushy.queue_register('free', 'mine.h(jsonb)')"
CHANGES = {
    "nothing": ((), ()),
    "rename": (("SELECT pushy.queue_rename('q', 'away')",), (QUEUE,)),
    "names exchanged": (("SELECT pushy.queue_rename('q', 'away')", "SELECT pushy.queue_register('q', 'h(jsonb)')"), ()),
    "drop": (("SELECT pushy.queue_drop('q', force => true)",), ()),
    "drop, created by another": (("SELECT pushy.queue_drop('q', force => true)",), (QUEUE,)),
    "all dropped, created by another": (
        ("SELECT pushy.queue_drop('q', force => true)", "SELECT pushy.unwatch('t')", "SELECT pushy.subscription_drop('s')",
         "SELECT pushy.channel_revoke('c', '{stranger}')", "DROP TABLE t"),
        (QUEUE, "SELECT pushy.subscription_create('s', '{{d}}')", "SELECT pushy.channel_grant('d', current_user::text)")),
    "revoke": (("SELECT pushy.queue_revoke('q', '{stranger}', 'monitor')", "SELECT pushy.queue_revoke('q', '{stranger}', 'enqueue')",
                "SELECT pushy.channel_revoke('c', '{stranger}')", "REVOKE ALL ON t FROM {stranger}"), ()),
    "revoke from all": (("SELECT pushy.queue_revoke('q', 'public', 'monitor')",), ()),
    "owner": (("SELECT pushy.queue_alter('q', owner => '{other}', run_as => '{other}')",), ()),
    "membership": (("REVOKE {other} FROM {stranger}",), ()),
}
GRANTED = {
    "revoke": ("SELECT pushy.queue_grant('q', '{stranger}', 'monitor'), pushy.queue_grant('q', '{stranger}', 'enqueue')",
               "SELECT pushy.channel_grant('c', '{stranger}')", "GRANT TRIGGER ON t TO {stranger}"),
    "revoke from all": ("SELECT pushy.queue_grant('q', 'public', 'monitor')",),
    "membership": ("GRANT {other} TO {stranger}", "SELECT pushy.queue_grant('q', '{other}', 'monitor')"),
}


@pytest.fixture
def theirs(db, role):
    db.victim, db.stranger, db.other = role(), role(), role()
    db.sql(f"GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT {db.other} TO {db.victim} WITH ADMIN OPTION;"
           f"CREATE SCHEMA mine AUTHORIZATION {db.stranger}")
    with db.connect(user=db.victim) as session:
        for statement in (
                "CREATE TABLE t (i int PRIMARY KEY)",
                "CREATE FUNCTION h(args jsonb) RETURNS text LANGUAGE plpgsql AS $$BEGIN"
                f" IF args->>'fail' IS NOT NULL THEN RAISE EXCEPTION '{SECRET}'; END IF; RETURN '{SECRET}'; END$$",
                f"GRANT EXECUTE ON FUNCTION h TO {db.other}",
                "SELECT pushy.queue_register('q', 'h(jsonb)', max_attempts => 1)",
                "SELECT pushy.channel_grant('c', current_user::text)",
                "SELECT pushy.subscription_create('s', '{c}')",
                f"SELECT pushy.watch('t', channel => 'c', queue => 'q', condition => 'NEW.i > 0 OR ''{SECRET}'' = ''''')",
                "INSERT INTO t VALUES (1)",
                "SELECT pushy.enqueue('q', '{\"fail\": 1}')",
                "CALL pushy.jobs_wait('q', '60 s')",
                "SELECT pushy.queue_pause('q')"):
            session.execute(statement)
        db.job = session.execute(f"SELECT pushy.enqueue('q', '\"{SECRET}\"')").fetchone()[0]
    with db.connect(user=db.stranger) as session:
        session.execute("CREATE FUNCTION mine.h(jsonb) RETURNS void LANGUAGE sql AS ''")
    return db


@pytest.mark.parametrize("how", ["repeatable read", "serializable", "cursor"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_old_snapshot_shows_nothing_of_others(theirs, change, how):
    db = theirs
    names = {"stranger": db.stranger, "other": db.other}
    victims, strangers = CHANGES[change]
    looks = {view: f"pushy.{view}" for view in VIEWS} | {look: look.format(job=db.job) + " trace" for look in FUNCTIONS}

    def run(session: psycopg.Connection, statements) -> None:
        for statement in statements:
            session.execute(statement.format(**names))

    with db.connect(user=db.victim) as victim, db.connect(user=db.stranger) as stranger, db.connect(user=db.stranger) as old:
        run(victim, GRANTED.get(change, ()))
        if how == "cursor":
            old.execute("BEGIN")
            for number, look in enumerate(looks.values()):
                old.execute(f"DECLARE c{number} CURSOR FOR SELECT * FROM {look}")
        else:
            old.execute(f"BEGIN ISOLATION LEVEL {how}")
            old.execute("SELECT FROM pg_class LIMIT 1")
        run(victim, victims)
        run(stranger, strangers)
        if change == "drop, created by another" and how != "cursor":
            # Nor where the stranger's own transaction has changed queues, so that the session's cache says nothing.
            old.execute("SELECT pushy.queue_register('third', 'mine.h(jsonb)')")
        for number, (view, look) in enumerate(looks.items()):
            old.execute("SAVEPOINT s")
            try:
                rows = old.execute(f"FETCH ALL FROM c{number}" if how == "cursor" else f"SELECT * FROM {look}").fetchall()
            except psycopg.errors.UndefinedObject:
                old.execute("ROLLBACK TO s")
                continue
            told = [row for row in rows if not (view == "stats" and row[0] is None or view == "workers" and row[0] != "executor"
                                                # What is the stranger's own by now.
                                                or db.stranger in row or row[0] == 'third')]
            assert told == [], (view, told)
            assert SECRET not in str(rows) and db.victim not in str(rows), (view, rows)
        old.execute("ROLLBACK")
