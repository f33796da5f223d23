"""Names of watches that nobody gave: a renamed table's watch is the same, and none takes the place of one that tells somewhere else."""

import itertools

import pytest

from stage.watching import Watching


def declared(db, *arguments: str) -> list:
    said = []
    with db.connect() as session:
        session.add_notice_handler(lambda diagnostic: said.append((diagnostic.severity, diagnostic.message_primary)))
        session.execute(f"SELECT pushy.watch({', '.join(arguments)})")
    return said


def test_a_watch_declared_under_the_new_name_of_its_table_is_the_old_one(db):
    db.sql("CREATE TABLE a (id int PRIMARY KEY); SELECT pushy.watch('a'); ALTER TABLE a RENAME TO b")
    assert declared(db, "'b'") == [("NOTICE", 'watch "a" of table public.b is called "b" now, as its channel is')]
    assert db.rows("SELECT name, channel, state FROM pushy.watches") == [("b", "b", "active")]
    assert db.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'b'::regclass") == 3
    heard = Watching(db, "a", "b")
    assert heard.after("INSERT INTO b VALUES (1)") == [("insert", 1)]
    assert declared(db, "'b'") == []


def test_a_watch_that_was_given_a_name_or_a_channel_is_another(db):
    db.sql("CREATE TABLE a (id int PRIMARY KEY); SELECT pushy.watch('a', channel => 'a'), pushy.watch('a', name => 'n'); ALTER TABLE a RENAME TO b")
    assert declared(db, "'b'") == []
    assert db.rows("SELECT name, channel FROM pushy.watches ORDER BY 1") == [("a", "a"), ("b", "b"), ("n", "a")]


MAKE = """CREATE TABLE orders (id int PRIMARY KEY); CREATE FUNCTION work(jsonb) RETURNS void LANGUAGE sql AS '';
          SELECT pushy.queue_register('orders', 'work(jsonb)'), pushy.queue_register('other', 'work(jsonb)')"""
CHANNEL, QUEUE, BOTH, OTHER = "'orders'", "'orders', queue => 'orders'", "'orders', channel => 'x', queue => 'orders'", "'orders', channel => 'other'"
NAMED = {"'orders'": ("orders", None), QUEUE: (None, "orders"), BOTH: ("x", "orders"), OTHER: ("other", None),
         "'orders', queue => 'other'": (None, "other")}


def test_declarations_that_tell_somewhere_else_are_watches_of_their_own_in_any_order(db):
    db.sql(MAKE)
    for order in itertools.permutations(NAMED, 3):
        for _ in range(2):  # a deploy script says the same again
            for arguments in order:
                assert all("no longer" not in said for _, said in declared(db, arguments)), order
            tells = db.rows("SELECT channel, queue FROM pushy.watches")
            assert set(tells) == {NAMED[one] for one in order} and len(tells) == len(order), order
        # Each finds its own again, whatever has gone.
        db.sql("SELECT pushy.unwatch('orders', name) FROM (SELECT name FROM pushy.watches ORDER BY name LIMIT 1) first")
        for arguments in order:
            declared(db, arguments)
        assert db.value("SELECT count(*) FROM pushy.watches") == len(order), order
        db.sql("SELECT pushy.unwatch('orders')")


def test_a_queue_and_a_table_of_one_name_are_two_watches(db):
    db.sql(MAKE)
    assert declared(db, QUEUE) == declared(db, CHANNEL) == []
    assert db.rows("SELECT name, channel, queue FROM pushy.watches ORDER BY name") == [("orders", None, "orders"), ("orders (channel)", "orders", None)]
    heard = Watching(db, "orders")
    assert heard.after("INSERT INTO orders VALUES (1)") == [("insert", 1)]
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE queue = 'orders'") == 1
    db.sql("SELECT pushy.unwatch('orders')")
    declared(db, CHANNEL), declared(db, QUEUE)
    assert db.rows("SELECT name, channel, queue FROM pushy.watches ORDER BY name") == [("orders", "orders", None), ("orders (queue)", None, "orders")]


@pytest.mark.parametrize("first, second, told", [
    ("channel => 'a', queue => 'orders'", "channel => 'a'", ['watch "n" of table public.orders no longer feeds queue "orders"']),
    ("channel => 'a', queue => 'orders'", "queue => 'orders'", ['watch "n" of table public.orders no longer publishes on channel a']),
    ("channel => '\"A b\"'", "channel => 'c'", ['watch "n" of table public.orders publishes on channel c now, and no longer on "A b"']),
    ("queue => 'orders'", "queue => 'other'", ['watch "n" of table public.orders feeds queue "other" now, and no longer "orders"']),
    ("channel => 'a'", "channel => 'a', queue => 'orders'", []),
])
def test_what_a_declaration_takes_away_is_told(db, first, second, told):
    db.sql(MAKE)
    assert declared(db, "'orders'", "name => 'n'", first) == []
    assert declared(db, "'orders'", "name => 'n'", second) == [("NOTICE", line) for line in told]
    assert declared(db, "'orders'", "name => 'n'", second) == []


def test_a_second_watch_that_feeds_the_same_queue_is_told(db):
    db.sql(MAKE)
    assert declared(db, "'orders', channel => 'a', queue => 'orders'") == []
    assert declared(db, "'orders', channel => 'b', queue => 'orders'") == [
        ("NOTICE", 'watches "a" and "b" of table public.orders both feed queue "orders": a change can be two jobs')]
    assert declared(db, "'orders', channel => 'b', queue => 'orders'") == []
    assert declared(db, "'orders', channel => 'c', queue => 'orders', events => '{truncate}'") == []


def test_a_second_watch_that_publishes_on_the_same_channel_is_told(db):
    db.sql(MAKE)
    assert declared(db, "'orders', name => 'a', channel => 'C'") == []
    assert declared(db, "'orders', name => 'b', channel => 'C'") == [
        ("NOTICE", 'watches "a" and "b" of table public.orders both publish on channel c: a change can be two notices')]
    assert declared(db, "'orders', name => 'b', channel => 'C'") == []
    assert declared(db, "'orders', name => 'd', channel => 'C', events => '{truncate}'") == []
