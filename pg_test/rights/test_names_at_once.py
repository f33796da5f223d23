"""Two roles declare something of one name at the same time: whoever commits first, the second gets what it would have got after
the first had ended."""

import itertools
import threading

import psycopg
import pytest

from harness.waiting import wait_for

# {r}: the role's schema, {n}: the name.
KINDS = {
    "channel": {
        "channel_grant": "SELECT pushy.channel_grant('{n}', current_user)",
        "watch": "SELECT pushy.watch('{r}.t', channel => '{n}')",
        "subscription": "SELECT pushy.subscription_create('{r}_{n}', '{{{n}}}')",
    },
    "queue": {
        "queue_register": "SELECT pushy.queue_register('{n}', '{r}.f()')",
        "queue_rename": "SELECT pushy.queue_rename('{r}_{n}', '{n}')",
    },
    "subscription": {"subscription_create": "SELECT pushy.subscription_create('{n}')"},
}
PAIRS = [(kind, *pair) for kind, calls in KINDS.items() for pair in itertools.product(calls, repeat=2)]

STATE = """
    SELECT 'channel', owner FROM pushy_internal.channel WHERE channel = %(n)s
    UNION ALL SELECT 'grant to ' || grantee_name, NULL FROM pushy_internal.channel_acl WHERE channel = %(n)s
    UNION ALL SELECT 'watch', owner FROM pushy_internal.watch WHERE channel = %(n)s
    UNION ALL SELECT 'reads it', owner FROM pushy_internal.subscription WHERE %(n)s = ANY (channels)
    UNION ALL SELECT 'queue', owner FROM pushy_internal.queue WHERE queue = %(n)s
    UNION ALL SELECT 'subscription', owner FROM pushy_internal.subscription WHERE name = %(n)s
    ORDER BY 1, 2"""


class Two:
    def __init__(self, db, role):
        self.db, self.roles = db, [role(), role()]
        for name in self.roles:
            db.sql(f"CREATE SCHEMA {name} AUTHORIZATION {name}")
            with db.connect(user=name) as session:
                session.execute(f"CREATE TABLE {name}.t (id int PRIMARY KEY); CREATE FUNCTION {name}.f() RETURNS void LANGUAGE sql AS ''")

    def prepare(self, name: str) -> None:
        for role in self.roles:
            with self.db.connect(user=role) as session:
                session.execute(f"SELECT pushy.queue_register('{role}_{name}', '{role}.f()')")

    def state(self, name: str) -> list:
        return self.db.main.execute(STATE, {"n": name}).fetchall()


def attempt(session, statement: str) -> str:
    try:
        session.execute(statement)
        session.commit()
        return "done"
    except psycopg.Error as error:
        session.rollback()
        return error.sqlstate


def in_turn(two: Two, calls: list[str], ends: str, name: str) -> tuple:
    first, second = (two.db.connect(user=role, autocommit=False) for role in two.roles)
    first.execute(calls[0].format(r=two.roles[0], n=name))
    getattr(first, ends)()
    said = attempt(second, calls[1].format(r=two.roles[1], n=name))
    first.close(), second.close()
    return said, two.state(name)


def at_once(two: Two, calls: list[str], ends: str, name: str, level) -> tuple:
    first, second = (two.db.connect(user=role, autocommit=False) for role in two.roles)
    second.isolation_level = level
    second.execute("SELECT FROM pg_class LIMIT 1")
    first.execute(calls[0].format(r=two.roles[0], n=name))
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(attempt(second, calls[1].format(r=two.roles[1], n=name))))
    thread.start()
    waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
    wait_for("the second to wait or to be done", lambda: bool(said) or two.db.value(waits, second.info.backend_pid), bool)
    getattr(first, ends)()
    thread.join()
    first.close(), second.close()
    return said[0], two.state(name)


@pytest.mark.parametrize("level", list(psycopg.IsolationLevel)[1:], ids=lambda level: level.name.lower())
def test_the_second_finds_what_the_first_has_left(db, role, level):
    """A channel that an open transaction had closed became a stranger's, who looked, found nothing, and wrote."""
    two = Two(db, role)
    for number, ((kind, *pair), ends) in enumerate(itertools.product(PAIRS, ("commit", "rollback"))):
        calls = [KINDS[kind][call] for call in pair]
        names = f"n{number}", f"m{number}"
        if kind == "queue":
            for name in names:
                two.prepare(name)
        expected = in_turn(two, calls, ends, names[0])
        seen = at_once(two, calls, ends, names[1], level)
        if level == psycopg.IsolationLevel.READ_COMMITTED or seen[0] != "40001":
            assert seen == expected, (pair, ends)
        else:
            # Refused, and nothing is left of it.
            assert ends == "commit" and len(seen[1]) <= len(expected[1]), (pair, ends)


def test_who_waits_for_a_prepared_transaction_is_told_its_name(make_cluster):
    cluster = make_cluster({"max_prepared_transactions": 10})
    db = cluster.database()
    db.sql("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS ''")
    for number, statement in enumerate(("queue_register('q', 'f()')", "channel_grant('c', 'postgres')", "subscription_create('s')")):
        with db.connect(autocommit=False) as first:
            first.execute(f"SELECT pushy.{statement}")
            first.execute(f"PREPARE TRANSACTION 'held {number}'")
        said = []
        with db.connect() as second:
            second.add_notice_handler(lambda diagnostic, said=said: said.append((diagnostic.message_primary, diagnostic.message_hint)))
            second.execute("SET lock_timeout = '300 ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                second.execute(f"SELECT pushy.{statement}")
        (message, hint), = said
        assert f"waits for prepared transaction 'held {number}'" in message and f"ROLLBACK PREPARED 'held {number}'" in hint
        db.sql(f"ROLLBACK PREPARED 'held {number}'")


DECLARED = {
    "queue": "SELECT pushy.queue_register('{}', 'f()')",
    "channel": "SELECT pushy.channel_grant('{}', 'postgres')",
    "subscription": "SELECT pushy.subscription_create('{}')",
}


@pytest.mark.parametrize("kind", DECLARED)
def test_who_waits_for_an_open_transaction_is_told_so_and_who_declares_another_name_waits_for_nobody(db, kind):
    """These two have one 32-bit hash that anybody can compute, which kept everybody from the one who may declare the other."""
    db.sql("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS ''")
    said = []
    with db.connect(autocommit=False) as first, db.connect() as second:
        first.execute(DECLARED[kind].format("c128898"))
        second.add_notice_handler(lambda diagnostic: said.append(diagnostic.message_primary))
        second.execute("SET lock_timeout = '300 ms'")
        second.execute(DECLARED[kind].format("c153422"))
        assert said == []
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute(DECLARED[kind].format("c128898"))
        assert said == [f'{kind} "c128898" waits for an open transaction, which has declared it or something on it']


def test_who_reads_a_channel_and_who_closes_it_do_not_wait_for_each_other(db, role):
    name = role()
    sessions = [db.connect(user=name) for _ in range(3)]
    counted, reader, closer = sessions
    reader.execute("SELECT pushy.subscription_create('s', '{a}')")
    counted.execute("BEGIN; SELECT pushy.subscription_create('other', '{b}')")
    said: list[str] = []

    def waiting(session, statement: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: said.append(attempt(session, statement)))
        thread.start()
        waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
        wait_for("it to wait", lambda: db.value(waits, session.info.backend_pid), bool)
        return thread

    # Both count the role's channels, which it does in another transaction.
    threads = [waiting(reader, "SELECT pushy.subscription_create('s', '{a,c}')"), waiting(closer, "SELECT pushy.channel_grant('c', current_user)")]
    counted.execute("COMMIT")
    for thread in threads:
        thread.join()
    for session in sessions:
        session.close()
    assert said == ["done", "done"]
