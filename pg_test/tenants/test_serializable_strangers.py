"""What a stranger who may use Pushy can do to transactions by what PostgreSQL keeps track of for SERIALIZABLE: docs/security.md says
how far that goes, and this how far it does not: what the server remembers of a transaction is what it reads, so nothing of Pushy's
tables is remembered of what applications call all day."""

import json
import string
import threading

import psycopg
import pytest

STRANGERS = ["serializable", "repeatable read"]


@pytest.fixture
def theirs(db, role):
    db.victim, db.stranger = role(), role()
    db.sql(f"CREATE SCHEMA mine AUTHORIZATION {db.stranger}; GRANT CREATE ON SCHEMA public TO PUBLIC")
    with db.connect(user=db.stranger) as session:
        session.execute("CREATE FUNCTION mine.h(jsonb) RETURNS void LANGUAGE sql AS ''")
    with db.connect(user=db.victim) as session:
        session.execute("CREATE TABLE o (id int PRIMARY KEY); CREATE FUNCTION h(jsonb) RETURNS void LANGUAGE sql AS ''")
        session.execute("SELECT pushy.queue_register('o', 'h(jsonb)')")
        session.execute("SELECT pushy.watch('o', queue => 'o')")
    return db


# The victim's isolation level, and that of the stranger, who registers queues all the while.
CASES = [(level, strangers) for level in ("read committed", "repeatable read", "serializable") for strangers in STRANGERS]


@pytest.mark.parametrize("level, strangers", CASES)
def test_a_stranger_who_registers_queues_all_the_while_fails_nobody(theirs, level, strangers):
    db = theirs
    stop = threading.Event()

    def register() -> None:
        with db.connect(user=db.stranger, autocommit=False) as session:
            session.isolation_level = psycopg.IsolationLevel[strangers.upper().replace(" ", "_")]
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    session.execute(f"SELECT pushy.queue_register('m{number}', 'mine.h(jsonb)')")
                    session.commit()
                    session.execute(f"SELECT pushy.queue_drop('m{number}')")
                    session.commit()
                except psycopg.errors.SerializationFailure:
                    session.rollback()

    with db.connect(user=db.stranger) as reader:
        reader.execute(f"BEGIN ISOLATION LEVEL {strangers}")
        reader.execute("SELECT count(*) FROM pushy.jobs")
        thread = threading.Thread(target=register)
        thread.start()
        try:
            with db.connect(user=db.victim) as victim:
                for number in range(20):
                    victim.execute(f"BEGIN ISOLATION LEVEL {level}")
                    victim.execute("INSERT INTO o VALUES (%s)", (number,))
                    victim.execute("SELECT pushy.enqueue('o')")
                    victim.execute("SELECT pg_sleep(0.02)")
                    victim.execute("COMMIT")
        finally:
            stop.set()
            thread.join()
    db.jobs_wait("o")
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'o' AND state = 'completed'") == 40


# What an application calls all day. In each {key} is new.
CALLS = {
    "enqueue": "SELECT pushy.enqueue('o')",
    "enqueue of a key": "SELECT pushy.enqueue('paused', unique_key => 'k{key}')",
    "enqueue of a key that waits": "SELECT pushy.enqueue('paused', unique_key => 'waits')",
    "enqueue_many": "SELECT pushy.enqueue_many('o', ARRAY['{{}}', '{{}}']::jsonb[])",
    "notify": "SELECT pushy.notify('c', 'x')",
    "notify by NOTIFY": "SELECT pushy.notify('c', 'x', delivery => 'notify')",
    "a watch with a queue": "INSERT INTO o VALUES ({key})",
    "a watch with a channel": "INSERT INTO told VALUES ({key})",
    "a watch that says NOTIFY": "INSERT INTO told_at_once VALUES ({key})",
    "a watch with a key": "INSERT INTO merged VALUES ({key})",
    "job_cancel": "SELECT pushy.job_cancel({waiting})",
    "job_cancel of a finished job": "SELECT pushy.job_cancel({finished})",
    "job_retry of a job that waits": "SELECT pushy.job_retry({later})",
    "job_retry of a finished job": "SELECT pushy.job_retry({finished})",
    "job_claim": "SELECT job_id FROM pushy.job_claim('{to_claim}')",
    "job_claim by name": "SELECT job_id FROM pushy.job_claim('{to_claim}', 10, worker => 'w{key}')",
    "job_extend": "SELECT pushy.job_extend({claimed}, fraction => 0.5)",
    "job_log": "SELECT pushy.job_log('said', 'info', {claimed})",
    "job_log beyond what is kept": "SELECT pushy.job_log('said', 'info', {said_much})",
    "job_complete": "SELECT pushy.job_complete({claimed})",
    "job_complete with lines": "SELECT pushy.job_complete({said_much})",
    "job_complete after a failure": "SELECT pushy.job_complete({tried})",
    "job_complete after a failure where nothing is kept": "SELECT pushy.job_complete({tried_and_forgotten})",
    "job_fail": "SELECT pushy.job_fail({claimed}, 'no')",
    "job_fail for good": "SELECT pushy.job_fail({claimed}, 'no', discard => true)",
    "job_fail with lines": "SELECT pushy.job_fail({said_much}, 'no', discard => true)",
    "job_cancel with lines": "SELECT pushy.job_cancel({said_much_by_number})",
    "jobs_settle": "SELECT pushy.jobs_settle('{settled}')",
    "job_release": "SELECT pushy.job_release({claimed})",
    "job_release for later": "SELECT pushy.job_release({claimed}, '1 hour')",
}

# What a stranger declares and does with its own things.
OF_STRANGERS = [
    "SELECT pushy.queue_register('m{key}', 'mine.h(jsonb)')",
    "SELECT pushy.queue_register('m', 'mine.h(jsonb)', concurrency => 1 + {key} % 5)",
    "SELECT pushy.queue_grant('m', 'public')",
    "SELECT pushy.queue_pause('m')",
    "SELECT pushy.queue_resume('m')",
    "SELECT pushy.queue_revoke('m', 'public')",
    "SELECT pushy.watch('mine.t', queue => 'm')",
    "SELECT pushy.watch_pause('mine.t')",
    "SELECT pushy.watch_resume('mine.t')",
    "INSERT INTO mine.t VALUES ({key})",
    "SELECT pushy.unwatch('mine.t')",
    "SELECT pushy.channel_grant('mine{key}', 'public')",
    "SELECT pushy.subscription_create('s{key}', '{{mine}}')",
    "SELECT pushy.subscription_drop('s{before}')",
    "SELECT pushy.enqueue('m')",
    "SELECT pushy.job_cancel(pushy.enqueue('m', delay => '1 hour'))",
    "SELECT pushy.queue_rename('m', 'n')",
    "SELECT pushy.queue_drop('n', force => true)",
]


@pytest.fixture
def more_of_theirs(theirs):
    db = theirs
    with db.connect(user=db.stranger) as session:
        session.execute("CREATE TABLE mine.t (id int PRIMARY KEY)")
    with db.connect(user=db.victim) as session:
        session.execute("SELECT pushy.queue_register('paused', 'h(jsonb)'); SELECT pushy.queue_pause('paused')")
        session.execute("SELECT pushy.enqueue('paused', unique_key => 'waits'), pushy.queue_register('outside', concurrency => 100, retry_delay => '0')")
        session.execute("SELECT pushy.queue_register('forgetful', keep_completed => '0', retry_delay => '0')")
        for table, options in {
            "told": "channel => 'c'",
            "told_at_once": "channel => 'c', delivery => 'notify'",
            "merged": "queue => 'paused', merge => true",
        }.items():
            session.execute(f"CREATE TABLE {table} (id int PRIMARY KEY); SELECT pushy.watch('{table}', {options})")
    return db


def call(db, what: str, key: int) -> str:
    def job(queue: str, **options) -> int:
        with db.connect(user=db.victim) as session:
            given = "".join(f", {name} => '{value}'" for name, value in options.items())
            return session.execute(f"SELECT pushy.enqueue('{queue}'{given})").fetchone()[0]

    def claim(queue: str, before: str | None = None) -> tuple[int, str]:
        """A job that is claimed, by its number and token; `before` is done with it first."""
        with db.connect(user=db.victim) as session:
            def claimed():
                return session.execute("SELECT job_id, token FROM pushy.job_claim(%s)", (queue,)).fetchone()

            job(queue)
            got = claimed()
            if before == "say much":
                session.execute("SELECT count(pushy.job_log('said', 'info', %s, %s)) FROM generate_series(1, 1000)", got)
            if before == "fail":
                session.execute("SELECT pushy.job_fail(%s, %s, 'no')", got)
                got = claimed()
            return got

    made = {
        "waiting": lambda: job("paused"),
        "later": lambda: job("paused", delay="1 hour"),
        "finished": lambda: (job("o"), db.jobs_wait("o"))[0],
        "to_claim": lambda: (job("outside"), "outside")[1],
        "claimed": lambda: "{}, '{}'".format(*claim("outside")),
        "said_much": lambda: "{}, '{}'".format(*claim("outside", "say much")),
        "said_much_by_number": lambda: claim("outside", "say much")[0],
        "tried": lambda: "{}, '{}'".format(*claim("outside", "fail")),
        "tried_and_forgotten": lambda: "{}, '{}'".format(*claim("forgetful", "fail")),
        "settled": lambda: json.dumps([
            {"job_id": job_id, "token": str(token), "outcome": outcome, **options}
            for outcome, options in {"complete": {}, "fail": {}, "discard": {}, "release": {}, "snooze": {"delay": 60, "error": "busy"}, "extend": {"lease": 60}}.items()
            for job_id, token in [claim("outside", "say much" if outcome == "complete" else None)]]),
    }
    wanted = {name for _, name, _, _ in string.Formatter().parse(CALLS[what]) if name and name != "key"}
    return CALLS[what].format(key=key, **{name: made[name]() for name in wanted})


@pytest.mark.parametrize("what", CALLS)
def test_nothing_that_a_call_reads_of_our_tables_is_remembered(more_of_theirs, what):
    db = more_of_theirs
    statement = call(db, what, 1)
    with db.connect(user=db.victim, autocommit=False) as victim, db.connect() as other:
        victim.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        victim.execute(statement)
        pid = victim.info.backend_pid
        found = other.execute(
            "SELECT array_agg(DISTINCT c.relname || ' ' || l.locktype) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation "
            "WHERE l.mode = 'SIReadLock' AND l.pid = %s AND c.relnamespace = 'pushy_internal'::regnamespace",
            (pid,),
        ).fetchone()[0]
        assert found is None


@pytest.mark.parametrize("what", CALLS)
def test_nothing_that_a_stranger_does_with_its_own_things_fails_a_call(more_of_theirs, what):
    db = more_of_theirs
    with db.connect(user=db.victim, autocommit=False) as victim, db.connect(user=db.stranger, autocommit=False) as stranger:
        victim.isolation_level = stranger.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        for key, declaration in enumerate(OF_STRANGERS):
            statement = call(db, what, key)
            with db.connect(user=db.stranger, autocommit=False) as reader:
                # What the victim writes is behind what a stranger has read, and what the stranger writes would be behind what
                # the victim has read: the victim could be between two that no order explains.
                reader.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
                for view in ("jobs", "queues", "watches", "failures"):
                    reader.execute(f"SELECT count(*) FROM pushy.{view}")
                victim.execute("SELECT 1")
                stranger.execute(declaration.format(key=key, before=key - 1))
                victim.execute(statement)
                stranger.commit()
                victim.commit()
                reader.rollback()
