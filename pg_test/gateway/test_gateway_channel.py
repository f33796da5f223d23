"""What gateways are told: on a channel of their own, which nobody else hears, and only where a gateway has come."""

import json

import psycopg
import pytest

from stage.watching import settled

ASKS = "SELECT * FROM pushy_internal.gateway_keys()"


@pytest.fixture
def web(role):
    return role()


def told(db, after: str) -> list[dict]:
    """What a gateway reads behind a cursor, once all is in the log."""
    settled(db)
    rows = db.rows("SELECT channel, payload FROM pushy_internal.log_read(%s) WHERE channel = 'pushy_gateway'", after)
    return [json.loads(payload) for _, payload in rows]


def position(db) -> str:
    return db.value("SELECT pushy.log_position()")


def change_all(db, web) -> None:
    db.sql("SELECT pushy.channel_grant('orders', %s)", web)
    db.sql("SELECT pushy.gateway_key_register('k', role => %s)", web)
    assert db.value("SELECT pushy.socket_close('ann', 'orders', 'post/1', 'gone')") == 0
    db.sql("SELECT pushy.channel_revoke('orders', %s), pushy.gateway_key_drop('k')", web)


def test_where_no_gateway_has_come_nothing_is_published_and_no_relay_is_started(db, web):
    change_all(db, web)
    db.sql("SELECT pushy.channel_grant('c' || n, 'public') FROM generate_series(1, 100) n")
    assert db.value("SELECT notices FROM pushy.log") == 0
    # A queue's executor comes, so the launcher has looked at this database since, and a relay has not.
    db.sql("CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'work()')")
    db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    assert db.rows("SELECT kind FROM pushy.workers WHERE kind = 'relay' AND database = current_database()") == []
    assert db.value("SELECT notices FROM pushy.log") == 0


def test_a_gateway_that_has_come_reads_what_concerns_it_and_nobody_else_hears_it(db, web, role):
    other = role()
    db.sql(f"GRANT USAGE ON SCHEMA pushy_internal TO {other}")
    db.sql(ASKS)
    db.sql("CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'work(jsonb)'), pushy.queue_pause('q'),"
           "pushy.subscription_create('all'), pushy.subscription_create('fed', queue => 'q')")
    ear = db.listen("pushy_gateway", "pushy_control", "fence")
    after = position(db)
    change_all(db, web)
    assert told(db, after) == [
        {"v": 1, "event": "gateway_grants", "channel": "orders", "by": "postgres"},
        {"v": 1, "event": "gateway_keys", "by": "postgres"},
        {"v": 1, "event": "socket_close", "subject": "ann", "channel": "orders", "topic": "post/1", "reason": "gone", "by": "postgres"},
        {"v": 1, "event": "gateway_grants", "channel": "orders", "by": "postgres"},
        {"v": 1, "event": "gateway_keys", "by": "postgres"}]
    db.sql("SELECT pushy.notify('fence', 'x')")
    ear.wait_for(lambda notice: notice.channel == "fence")
    assert [notice.channel for notice in ear.heard] == ["fence"]
    rows = db.rows("SELECT channel FROM pushy.subscription_read('all')")
    assert {channel for channel, in rows} == {"settled", "fence"}
    db.wait_until("SELECT count(*) > 0 FROM pushy.jobs WHERE args ->> 'channel' = 'fence'", True)
    assert db.rows("SELECT args ->> 'channel' FROM pushy.jobs WHERE args ->> 'channel' LIKE 'pushy%'") == []
    # What waits for a subscription is not counted with it, either.
    assert db.value("SELECT lag_notices FROM pushy.subscriptions WHERE name = 'all'") == len(rows)
    with db.connect(user=other) as session:
        read = session.execute("SELECT channel FROM pushy_internal.log_read(%s) WHERE channel IS NOT NULL", (after,)).fetchall()
        assert {channel for channel, in read} == {"settled", "fence"}


@pytest.mark.parametrize("user", ["other", "postgres"])
def test_nobody_names_the_channel_of_gateways(db, role, user):
    user = role() if user == "other" else user
    if user != "postgres":
        db.sql(f"GRANT USAGE ON SCHEMA pushy_internal TO {user}")
    statements = ["SELECT pushy.subscription_create('s', '{pushy_gateway}')", "SELECT pushy.subscription_create('s', '{c,Pushy_Gateway}', queue => NULL)",
                  "SELECT pushy.notify('pushy_gateway', 'x')", "SELECT pushy.channel_grant('pushy_gateway', 'public')"]
    if user != "postgres":
        # A superuser may be a gateway.
        statements.append("SELECT * FROM pushy_internal.log_read('1-1-1', '{pushy_gateway}')")
    with db.connect(user=user) as session:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="pushy_gateway"):
                session.execute(statement)


@pytest.mark.parametrize("end", ["commits", "savepoint", "rolls back", "is prepared"])
def test_what_had_begun_before_the_first_gateway_came_has_it_ask_again(make_cluster, end):
    """A grant that is taken back in a transaction that was open when the gateway was answered."""
    db = make_cluster({"max_prepared_transactions": 4}).database()
    db.sql("CREATE ROLE web; SELECT pushy.channel_grant('orders', 'web')")
    after = position(db)
    allowed = "SELECT allowed FROM pushy_internal.gateway_authorize('web', NULL, 'orders', NULL)"
    with db.connect(autocommit=False) as session:
        if end == "savepoint":
            session.execute("SAVEPOINT s")
        session.execute("SELECT pushy.channel_revoke('orders', 'web'), pushy.gateway_key_register('k', role => 'web')")
        if end == "savepoint":
            session.execute("RELEASE s")
        if end == "is prepared":
            session.execute("PREPARE TRANSACTION 'p'")
        assert db.value(allowed)
        session.execute("ROLLBACK" if end == "rolls back" else "COMMIT")
    if end == "is prepared":
        db.sql("COMMIT PREPARED 'p'")
    events = [{"v": 1, "event": "gateway_keys", "by": "postgres"}, {"v": 1, "event": "gateway_grants", "channel": None, "by": "postgres"}]
    if end == "rolls back":
        assert told(db, after) == []
        return
    db.wait_until("SELECT count(*) FROM pushy_internal.log_read(%s) WHERE channel = 'pushy_gateway'", 2, params=(after,))
    assert told(db, after) == events
    assert not db.value(allowed)


def test_a_standby_answers_no_gateway(make_cluster):
    """Its primary would not know that somebody is to be told."""
    primary = make_cluster()
    primary.database("here")
    standby = primary.standby()
    with standby.connect("here") as session, pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="recovery"):
        session.execute(ASKS)


def test_what_is_said_of_sockets_fits_into_the_log(db):
    db.sql(ASKS)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="too long"):
        db.sql("SELECT pushy.socket_close(repeat(chr(1), 1000), 'c', repeat(chr(1), 1000), 'x')")
