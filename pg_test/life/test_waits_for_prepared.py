"""A prepared transaction may stay for ever, and no process shows it: each call that waits for one says for which."""

import itertools

import psycopg
import pytest

SCENE = """
    CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY);
    SELECT pushy.queue_register('q', 'work()'), pushy.queue_pause('q'), pushy.queue_grant('q', 'pg_monitor');
    SELECT pushy.watch('t', 'c', name => 'w'), pushy.subscription_create('s', '{c}');
    SELECT pushy.channel_grant('d', 'pg_monitor');
    SELECT pushy.enqueue('q', delay => '1 day'), pushy.job_cancel(pushy.enqueue('q', priority => 9));
    SELECT pushy.job_cancel(pushy.enqueue('q', unique_key => 'again'))"""
LATER = "(SELECT id FROM pushy.jobs WHERE state = 'scheduled')"
CANCELLED = "(SELECT id FROM pushy.jobs WHERE state = 'cancelled' AND unique_key IS NULL)"
KEYED = "(SELECT id FROM pushy.jobs WHERE state = 'cancelled' AND unique_key = 'again')"

# What stays prepared, and what waits for it: each of the first with each of the second.
KINDS = {
    "queue": (["queue_pause('q')", "queue_resume('q')", "queue_alter('q', max_attempts => 7)", "queue_grant('q', 'pg_monitor', 'work')", "queue_rename('q', 'r')"],
              ["queue_pause('q')", "queue_resume('q')", "queue_alter('q', max_attempts => 8)", "queue_grant('q', 'pg_monitor', 'work')", "queue_revoke('q', 'pg_monitor')",
               "queue_rename('q', 'x')", "queue_drop('q', force => true)", "queue_register('q', 'work()')"]),
    "watch": (["watch_pause('t', 'w')", "watch('t', 'c', name => 'w', payload => 'none')", "unwatch('t', 'w')"],
              ["watch_pause('t', 'w')", "watch_resume('t', 'w')", "watch('t', 'c', name => 'w', payload => 'row')", "unwatch('t', 'w')"]),
    "job": ([f"job_cancel({LATER})", f"job_retry({LATER})"], [f"job_cancel({LATER})", f"job_retry({LATER})"]),
    "finished job": ([f"job_retry({CANCELLED})"], [f"job_retry({CANCELLED})"]),
    "key": (["enqueue('q', unique_key => 'k')"], ["enqueue('q', unique_key => 'k')", "enqueue('q', '1', unique_key => 'k', delay => '1 day')"]),
    "key of a finished job": (["enqueue('q', unique_key => 'again')", f"job_retry({KEYED})"], ["enqueue('q', unique_key => 'again')", f"job_retry({KEYED})"]),
    "subscription": (["subscription_create('s', '{c,e}')", "subscription_drop('s')"],
                     ["subscription_create('s', '{c,f}')", "subscription_drop('s')", "subscription_ack('s', (SELECT cursor FROM pushy.subscriptions))"]),
    "channel": (["channel_grant('d', 'public')", "channel_revoke('d', 'pg_monitor')"], ["channel_grant('d', 'public')", "channel_revoke('d', 'pg_monitor')"]),
    "new": (["queue_register('n', 'work()')", "channel_grant('n', 'public')", "subscription_create('n', '{c}')"],) * 2,
}


def waits(db, call: str) -> list[str]:
    """The NOTICEs of a call that waits, which is ended by lock_timeout."""
    said = []
    with db.connect() as session:
        session.add_notice_handler(lambda diag: said.append(f"{diag.message_primary} {diag.message_hint}"))
        session.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            session.execute(f"SELECT pushy.{call}")
    return said


@pytest.mark.parametrize("kind", KINDS)
def test_each_wait_names_the_prepared_transaction(db, kind):
    db.sql(SCENE)
    gid = f"prepared in {db.name}"
    prepared, waiting = KINDS[kind]
    silent = []
    for first in prepared:
        with db.connect(autocommit=False) as session:
            session.execute(f"SELECT pushy.{first}")
            session.execute(f"PREPARE TRANSACTION '{gid}'")
        for call in waiting:
            if kind == "new" and call != first:
                continue
            named = [line for line in waits(db, call) if f"waits for prepared transaction '{gid}', which " in line and f"ROLLBACK PREPARED '{gid}'" in line]
            if len(named) != 1:
                silent.append((first, call, named))
        db.sql(f"ROLLBACK PREPARED '{gid}'")
    assert silent == []


def test_another_queue_of_a_role_waits_for_the_prepared_one_and_says_so(db, role):
    owner = role()
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''")
    for call, other in itertools.permutations(["queue_register('a', 'work()', run_as => '{}')", "queue_register('b', 'work()', run_as => '{}')"]):
        with db.connect(owner, autocommit=False) as session:
            session.execute(f"SELECT pushy.{call.format(owner)}")
            session.execute(f"PREPARE TRANSACTION 'of {db.name}'")
        said = []
        with db.connect(owner) as session:
            session.add_notice_handler(lambda diag: said.append(diag.message_primary))
            session.execute("SET lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                session.execute(f"SELECT pushy.{other.format(owner)}")
        assert said == [f"role {owner} waits for prepared transaction 'of {db.name}', which has declared something that is counted for the role"]
        db.sql(f"ROLLBACK PREPARED 'of {db.name}'")
