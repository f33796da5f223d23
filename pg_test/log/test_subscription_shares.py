"""What one role's subscriptions cost the others: nothing that can be chosen, and little that is much."""

import time

import psycopg
import pytest
from harness.waiting import PATIENCE


def test_readers_take_turns_by_the_number_of_their_subscription_not_by_a_hash_of_its_name(db):
    """These two names have one and the same 32-bit FNV-1a hash."""
    db.sql("SELECT pushy.subscription_create('orders'), pushy.subscription_create('m5e1e9403')")
    stranger = db.connect(autocommit=False)
    stranger.execute("SELECT * FROM pushy.subscription_read('m5e1e9403')")
    with db.connect() as owner:
        owner.execute("SET statement_timeout = '10 s'")
        owner.execute("SELECT * FROM pushy.subscription_read('orders')")
        # Its own readers take turns.
        owner.execute("SET lock_timeout = '100 ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            owner.execute("SELECT * FROM pushy.subscription_read('m5e1e9403')")
    stranger.rollback()


def test_a_subscription_declared_anew_keeps_its_number_and_a_new_one_never_has_an_old_one(db):
    number = "SELECT subscription_id FROM pushy_internal.subscription WHERE name = 's'"
    db.sql("SELECT pushy.subscription_create('s')")
    first = db.value(number)
    db.sql("SELECT pushy.subscription_create('s', '{a}')")
    assert db.value(number) == first
    db.sql("SELECT pushy.subscription_drop('s')")
    db.sql("SELECT pushy.subscription_create('s')")
    assert db.value(number) > first
    dumped = "SELECT 'pushy_internal.subscription_id_seq'::regclass = ANY (extconfig) FROM pg_extension WHERE extname = 'pushy'"
    assert db.value(dumped) is True


def test_a_subscription_has_a_thousand_channels_at_most(db):
    create = "SELECT pushy.subscription_create('s', (SELECT array_agg('c' || n) FROM generate_series(1, %s) n))"
    db.sql(create, 1000)
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refusal:
        db.sql(create, 1001)
    assert "channels" in str(refusal.value) and "1001" in str(refusal.value)
    assert "1000 channels at most" in refusal.value.diag.message_hint
    assert db.value("SELECT cardinality(channels) FROM pushy.subscriptions") == 1000


def private_memory(pid: int) -> int:
    """Bytes that a process has for itself."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def test_many_channels_cost_the_relay_neither_memory_nor_its_listeners_time(db):
    db.sql("CREATE FUNCTION take(args jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'take(jsonb)')")
    ear = db.listen("heard")
    notify = "SELECT pushy.notify('heard', %s, delivery => 'relay')"
    db.sql(notify, "0")
    ear.wait_for()
    [relay] = db.workers("relay")
    before = private_memory(relay)
    db.sql("SELECT pushy.subscription_create('s' || s, (SELECT array_agg('channel_' || s || '_' || n) FROM generate_series(1, 1000) n),"
           " queue => 'q') FROM generate_series(1, 64) s")
    slowest = 0.0
    for n in range(1, 30):
        began = time.monotonic()
        db.sql(notify, str(n))
        ear.wait_for(lambda notice: notice.payload == str(n))
        slowest = max(slowest, time.monotonic() - began)
    assert db.workers("relay") == [relay]
    grown = private_memory(relay) - before
    assert grown < 24 << 20, f"{grown >> 20} MB more"
    assert slowest < 0.5 * PATIENCE, slowest


def test_subscriptions_that_are_far_behind_keep_no_listener_waiting(db):
    db.sql("CREATE FUNCTION take(args jsonb) RETURNS void LANGUAGE sql AS '';"
           "SELECT pushy.queue_register('q', 'take(jsonb)', keep_completed => '0'); SELECT pushy.queue_pause('q')")
    ear = db.listen("heard")
    db.sql("SELECT pushy.notify('much', n::text, delivery => 'relay') FROM generate_series(1, 3000) n")
    db.wait_until("SELECT notices FROM pushy.log", 3000)
    db.sql("SELECT pushy.subscription_create('s' || s, '{much}', queue => 'q', from_oldest => true) FROM generate_series(1, 40) s")
    slowest = 0.0
    for n in range(20):
        began = time.monotonic()
        db.sql("SELECT pushy.notify('heard', %s, delivery => 'relay')", str(n))
        ear.wait_for(lambda notice: notice.payload == str(n))
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 0.5 * PATIENCE, slowest
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 120_000, deadline=60)
