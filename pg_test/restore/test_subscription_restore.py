"""Subscriptions that came by a restore or a copy: the cursor is of another log, so the reader is told to read the tables
anew, whoever takes the subscription in."""

import itertools

import psycopg
import pytest

from stage.dumps import dump, restore

WATCH = "SELECT pushy.watch('orders', channel => 'orders', delivery => 'relay', name => 'w')"
QUEUE = "SELECT pushy.queue_register('q', 'take(jsonb)', concurrency => 1)"
SUBSCRIBE = "SELECT pushy.subscription_create('s', '{orders}'), pushy.subscription_create('f', '{orders}', queue => 'q')"


@pytest.fixture
def original(make_cluster):
    db = make_cluster().database("original")
    db.sql(f"""
        CREATE TABLE orders (id int PRIMARY KEY);
        CREATE TABLE taken (n serial, args jsonb);
        CREATE FUNCTION take(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.taken (args) VALUES (args)';
        {QUEUE}; {WATCH}; {SUBSCRIBE}""")
    db.sql("INSERT INTO orders VALUES (1)")
    db.wait_until("SELECT count(*) FROM taken", 1)
    db.wait_until("SELECT count(*) FROM pushy.subscription_read('s')", 1)
    # What was acknowledged here is ahead of all that the log of a copy will have.
    db.sql("SELECT pushy.subscription_ack('s', cursor) FROM pushy.subscription_read('s')")
    return db


def by_template(db, make_cluster):
    db.close()
    with db.cluster.connect() as admin:
        admin.execute("CREATE DATABASE copy TEMPLATE original")
    return type(db)(db.cluster, "copy")


def by_dump(db, make_cluster):
    return restore(db.cluster, dump(db), "copy")[0]


def in_place(db, make_cluster):
    said = db.cluster.psql(db.name, dump(db, "--clean", "--if-exists"))
    assert "ERROR" not in said, said
    return db


def in_another_cluster(db, make_cluster):
    return restore(make_cluster(fresh=True), dump(db), "copy")[0]


WAYS = {way.__name__: way for way in (by_template, by_dump, in_place, in_another_cluster)}
RESUME = "SELECT * FROM pushy.resume_after_restore()"
TAKEN_IN = {
    "resumed": [RESUME],
    "declared again": [QUEUE, WATCH, SUBSCRIBE],
    "resumed and declared again": [RESUME, QUEUE, WATCH, SUBSCRIBE],
    "declared again and from the oldest": [QUEUE, WATCH, SUBSCRIBE.replace("'{orders}'", "'{orders}', from_oldest => true")],
}


@pytest.mark.parametrize(("way", "how"), list(itertools.product(WAYS, TAKEN_IN)))
def test_the_reader_of_a_subscription_that_came_from_elsewhere_is_told_to_resync(original, make_cluster, way, how):
    db = WAYS[way](original, make_cluster)
    db.sql("TRUNCATE taken")
    assert db.rows("SELECT name, state, resync FROM pushy.subscriptions ORDER BY name") == [("f", "elsewhere", True), ("s", "elsewhere", True)]
    db.sql("INSERT INTO orders VALUES (10)")
    for statement in TAKEN_IN[how]:
        found = db.rows(statement)
        if statement == RESUME:
            assert {row for row in found if row[0] == "subscription"} == {("subscription", "f", True, None), ("subscription", "s", True, None)}
            assert db.rows(RESUME) == [], "all is at home"
    db.sql("INSERT INTO orders VALUES (11)")
    db.wait_until("SELECT count(*) > 1 FROM taken")
    assert db.rows("SELECT args->'resync' FROM taken ORDER BY n LIMIT 1") == [(True,)]
    db.wait_until("SELECT state FROM pushy.subscriptions WHERE name = 'f'", "active")
    db.wait_until("SELECT bool_or(payload::jsonb->'key'->>'id' = '11') FROM pushy.subscription_read('s')")
    rows = db.rows("SELECT resync, payload::jsonb->'key'->'id', cursor FROM pushy.subscription_read('s')")
    assert [row[:2] for row in rows][0] == (True, None) and [row[:2] for row in rows][-1] == (False, 11), rows
    assert [resync for resync, _, _ in rows[1:]] == [False] * (len(rows) - 1), "told once"
    assert db.rows("SELECT name, state, resync FROM pushy.subscriptions WHERE name = 's'") == [("s", "resync", True)], "until it is acknowledged"
    assert db.value("SELECT pushy.subscription_ack('s', %s)", rows[-1][2])
    assert db.rows("SELECT state FROM pushy.subscriptions") == [("active",)] * 2
    assert db.rows("SELECT * FROM pushy.subscription_read('s')") == []


def test_resume_after_restore_says_what_a_subscription_lacks_and_takes_in_the_callers_own(original, make_cluster):
    original.sql("CREATE ROLE reader LOGIN; CREATE ROLE gone LOGIN")
    for role in ("reader", "gone"):
        with original.connect(user=role) as session:
            session.execute(f"SELECT pushy.subscription_create('{role}_s', '{{orders}}')")
    copy = by_dump(original, make_cluster)
    copy.sql("DROP ROLE gone")
    with copy.connect(user="reader") as session:
        assert session.execute(RESUME).fetchall() == [("subscription", "reader_s", True, None)]
    copy.sql("SELECT pushy.queue_drop('q', force => true)")
    found = {row[1:] for row in copy.rows(RESUME) if row[0] == "subscription"}
    assert found == {("s", True, None), ("gone_s", False, 'role "gone" does not exist'),
                     ("f", False, 'queue "q" does not exist')}
    assert dict(copy.rows("SELECT name, state FROM pushy.subscriptions")) == {
        "s": "resync", "reader_s": "resync", "gone_s": "elsewhere", "f": "elsewhere"}


def test_a_channel_that_is_named_twice_counts_once(db):
    db.sql("SELECT pushy.subscription_create('x', ARRAY['a', 'a', 'A', '\"B\"', '\"a\"'])")
    assert db.rows("SELECT channels, channel_names FROM pushy.subscriptions") == [(["a", '"B"'], ["a", "B"])]


def test_a_cursor_of_the_log_before_is_refused_and_its_reader_told_to_resync(db):
    """A restore in place begins another log: none of its cursors is one of those that were given out before."""
    def tell(payload: str) -> str:
        db.sql("SELECT pushy.notify('c', %s, delivery => 'relay')", payload)
        db.wait_until("SELECT count(*) FROM pushy.subscription_read('s') WHERE payload = %s", 1, params=(payload,))
        return db.value("SELECT cursor FROM pushy.subscription_read('s') WHERE payload = %s", payload)

    db.sql("SELECT pushy.subscription_create('s', '{c}')")
    old = tell("before")
    second = db.value("SELECT date_part('epoch', clock_timestamp())::bigint")
    db.sql("DROP EXTENSION pushy CASCADE")
    db.wait_until("SELECT date_part('epoch', clock_timestamp())::bigint", lambda now: now > second)
    db.sql("CREATE EXTENSION pushy; SELECT pushy.subscription_create('s', '{c}')")
    new = tell("after")
    assert new > old
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=old):
        db.sql("SELECT pushy.subscription_ack('s', %s)", old)
    assert db.rows("SELECT resync, payload FROM pushy.subscription_read('s', after => %s)", old) == [(True, None), (False, "after")]
    assert db.value("SELECT pushy.subscription_ack('s', %s)", new)
