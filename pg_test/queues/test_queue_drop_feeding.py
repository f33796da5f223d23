"""queue_drop refuses a queue for what feeds it, and for nothing that feeds another, whoever owns which."""

import json

import psycopg
import pytest

from harness.refusal import refused


@pytest.fixture(params=["one owner", "superuser"])
def queues(db, role, request):
    """Queues a, b, c of one owner, or of a superuser; a is fed by a watch, b by a watch and two subscriptions, c by nothing."""
    owner = role() if request.param == "one owner" else "postgres"
    db.sql(f"CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO {owner}")
    session = db.connect(owner)
    session.execute("SELECT pushy.queue_register(q, 'work(jsonb)') FROM unnest('{a,b,c}'::text[]) q")
    session.execute("SELECT pushy.watch('t', queue => 'a'), pushy.watch('t', queue => 'b'),"
                    "       pushy.subscription_create('s1', '{news}', queue => 'b'), pushy.subscription_create('s2', '{news}', queue => 'b')")
    yield session
    session.close()


def fed(session, queue: str) -> str | None:
    """By what queue_drop says that it is fed; None: it would be dropped."""
    try:
        with session.transaction(force_rollback=True):
            session.execute("SELECT pushy.queue_drop(%s)", (queue,))
    except psycopg.errors.DependentObjectsStillExist as error:
        return str(error.diag.message_primary).partition("is fed by ")[2]
    return None


def feeding(session) -> dict:
    names = [name for name, in session.execute("SELECT queue FROM pushy.queues ORDER BY queue").fetchall()]
    return {name: fed(session, name) for name in names}


def test_each_queue_is_held_by_what_feeds_it_alone(queues):
    assert feeding(queues) == {"a": "1 watch", "b": "1 watch and 2 subscriptions", "c": None}
    refused(queues, "SELECT pushy.queue_drop('b')", "2BP01", "SELECT pushy.unwatch('public.t', 'b') and so on for the others", "force => true")
    queues.execute("SELECT pushy.unwatch('public.t', 'b')")
    refused(queues, "SELECT pushy.queue_drop('b')", "2BP01", "SELECT pushy.subscription_drop('s1') and so on for the others")
    queues.execute("SELECT pushy.subscription_drop('s1')")
    refused(queues, "SELECT pushy.queue_drop('b')", "2BP01", 'It is subscription "s2".', "SELECT pushy.subscription_drop('s2'), or pass force => true")
    queues.execute("SELECT pushy.subscription_drop('s2')")
    queues.execute("SELECT pushy.queue_drop('b'), pushy.queue_drop('c')")


def test_names_that_move_on_change_nothing_of_it(queues):
    queues.execute("SELECT pushy.queue_rename('b', 'b2'); SELECT pushy.queue_register('b', 'work(jsonb)')")
    assert feeding(queues) == {"a": "1 watch", "b": None, "b2": "1 watch and 2 subscriptions", "c": None}
    # Names that have changed places.
    queues.execute("SELECT pushy.queue_drop('b'); SELECT pushy.queue_rename('a', 'b'); SELECT pushy.queue_rename('b2', 'a')")
    assert feeding(queues) == {"a": "1 watch and 2 subscriptions", "b": "1 watch", "c": None}


def test_a_queue_dropped_by_force_and_registered_again_is_fed_as_before(queues):
    queues.execute("SELECT pushy.queue_drop('b', force => true)")
    assert feeding(queues) == {"a": "1 watch", "c": None}
    queues.execute("SELECT pushy.queue_rename('c', 'b')")
    assert feeding(queues)["b"] == "1 watch and 2 subscriptions", "its namesake of the same owner, as they would be fed"
    # From here on that is the queue which they hold, whatever it is called.
    queues.execute("SELECT pushy.queue_rename('b', 'c'); SELECT pushy.queue_register('b', 'work(jsonb)')")
    assert feeding(queues) == {"a": "1 watch", "b": None, "c": "1 watch and 2 subscriptions"}
    queues.execute("SELECT pushy.queue_drop('c', force => true); SELECT pushy.queue_register('c', 'work(jsonb)')")
    assert feeding(queues) == {"a": "1 watch", "b": None, "c": "1 watch and 2 subscriptions"}


def test_a_subscription_whose_queue_is_gone_says_so_at_once(queues, db):
    queues.execute("SELECT pushy.queue_drop('b', force => true)")
    state, stopped, fix = queues.execute("SELECT state, stopped, fix FROM pushy.subscriptions WHERE name = 's1'").fetchone()
    assert (state, stopped) == ("stopped", 'queue "b" does not exist') and "Register queue 'b' again" in fix
    queues.execute("SELECT pushy.queue_register('b', 'work(jsonb)')")
    # The relay may have met it meanwhile, and takes its word back when it has looked again.
    db.wait_until("SELECT ROW(state, stopped, fix)::text FROM pushy.subscriptions WHERE name = 's1'", "(active,,)")


def test_a_pause_that_changes_nothing_tells_nobody(queues, db):
    ear = db.listen("pushy_control")
    queues.execute("SELECT pushy.queue_pause('a')")
    queues.execute("SELECT pushy.queue_pause('a')")
    queues.execute("SELECT pushy.queue_resume('a')")
    told = []
    ear.wait_for(lambda notice: told.append(json.loads(notice.payload)["event"]) or told[-1] == "resume")
    assert told == ["pause", "resume"]


def test_merge_that_can_merge_nothing_is_said(queues):
    said = []
    queues.add_notice_handler(lambda diagnostic: said.append(diagnostic.message_primary))
    queues.execute("SELECT pushy.watch('t', channel => 'm', merge => true)")
    queues.execute("SELECT pushy.watch('t', channel => 'n', merge => true, payload => 'none'),"
                   "       pushy.watch('t', channel => 'o', merge => true, payload_expr => 'NEW.id')")
    assert [line for line in said if "never merged" in line] == [
        """notices of watch "m" are never merged: those with payload => 'key' have the transaction in them, so no two are equal"""]
