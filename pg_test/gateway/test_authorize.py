"""Who hears what through a gateway: deny by default, and by patterns that cover what is asked."""

import pytest

from stage.watching import settled


def ask(db, role, channel="orders", topics=(), subject=None):
    row = db.row("SELECT allowed, reason, channel, since FROM pushy_internal.gateway_authorize(%s, %s, %s, %s::text[])", role, subject, channel, list(topics))
    return row["allowed"] or row["reason"]


@pytest.fixture
def web(role):
    return role()


def test_what_was_granted_to_nobody_is_heard_by_nobody(db, web):
    assert ask(db, web) == 'channel "orders" was granted to nobody'
    assert ask(db, "postgres") == 'channel "orders" was granted to nobody'
    assert ask(db, "nobody here") == 'role "nobody here" does not exist'
    assert ask(db, web, "1x").startswith('invalid channel identifier "1x"')
    assert ask(db, web, "pushy_control") == 'channel "pushy_control" was granted to nobody'
    assert ask(db, web, "pushy_gateway") == ask(db, "postgres", "pushy_gateway") == 'channel "pushy_gateway" is for gateways alone'


def test_a_grant_is_for_its_role_and_channel(db, web, role):
    member, stranger = role(f"IN ROLE {web}"), role()
    db.sql("SELECT pushy.channel_grant('orders', %s)", web)
    assert ask(db, web) is True and ask(db, member) is True and ask(db, web, "ORDERS") is True
    assert ask(db, web, topics=["post/*", "**"]) is True
    assert ask(db, stranger) == 'channel "orders" was not granted to this role'
    assert ask(db, web, '"Orders"') == 'channel "Orders" was granted to nobody'
    db.sql("SELECT pushy.channel_revoke('orders', %s)", web)
    assert ask(db, web) == 'channel "orders" was not granted to this role'
    db.sql("SELECT pushy.channel_grant('orders', 'public')")
    assert ask(db, stranger) is True


@pytest.mark.parametrize("granted, asked, subject, allowed", [
    ("post/*", ["post/1"], None, True), ("post/*", ["post/*"], None, True), ("post/*", ["post/**"], None, False), ("post/*", ["post/1/x"], None, False),
    ("post/*, user/7/**", ["post/1", "user/7/a/b"], None, True), ("post/*, user/7/**", ["post/1", "user/8"], None, False), ("post/*", [], None, False),
    ("user/{sub}/**", ["user/7/a"], "7", True), ("user/{sub}/**", ["user/7/a"], "8", False), ("user/{sub}/**", ["user/7/a"], None, False),
    ("user/{sub}/**", ["user/*/a"], "*", False), ("user/{sub}/**", ["user/7/../8"], "7", True), ("user/{sub}/**", ["user/7/a"], "7/../8", False),
    ("user/{sub}/**", ["user//a"], "", False), ("**", ["post/**"], None, True), ("a\\*", ["a\\*"], None, True), ("a\\*", ["a*"], None, False)])
def test_topics_are_covered_by_what_was_granted(db, web, granted, asked, subject, allowed):
    db.sql("SELECT pushy.channel_grant('orders', %s, topics => %s)", web, granted)
    assert (ask(db, web, topics=asked, subject=subject) is True) == allowed


def test_nothing_is_heard_of_what_was_said_before_the_grant(db, web):
    db.sql("SELECT pushy.channel_grant('orders', 'postgres')")
    db.sql("SELECT pushy.subscription_create('s', '{orders}'); SELECT pushy.notify('orders', 'before')")
    settled(db)
    before = db.value("SELECT pushy.log_position()")
    db.sql("SELECT pushy.channel_grant('orders', %s, topics => 'a/*')", web)
    since = "SELECT since FROM pushy_internal.gateway_authorize(%s, NULL, 'orders', '{a/1}')"
    assert db.value(since, web) == before
    db.sql("SELECT pushy.notify('orders', 'after')")
    settled(db)
    db.sql("SELECT pushy.channel_grant('orders', %s, topics => 'a/*')", web)
    assert db.value(since, web) == before
    db.sql("SELECT pushy.channel_grant('orders', %s, topics => '**')", web)
    assert db.value(since, web) > before
    assert db.value(since, "postgres") is None


def test_a_gateways_role_may_do_what_a_gateway_does_and_nothing_else(db, role):
    gateway = role()
    db.sql("SELECT pushy.gateway_grant(%s)", gateway)
    # As it is where nobody has given it to all.
    db.sql("REVOKE USAGE ON SCHEMA pushy FROM PUBLIC")
    db.sql("SELECT pushy.channel_grant('orders', 'postgres'); SELECT pushy.subscription_create('s', '{orders}')")
    after = db.value("SELECT pushy.log_position()")
    db.sql("SELECT pushy.notify('orders', 'for others')")
    settled(db)
    with db.connect(user=gateway) as session:
        for allowed in ["gateway_keys()", "gateway_position()", "gateway_metrics()", "gateway_redeem('x')", "gateway_authorize('x', NULL, 'y', NULL)",
                        "gateway_report('[]', '[]', '{\"open\": {}, \"rooms\": 0}')"]:
            session.execute(f"SELECT * FROM pushy_internal.{allowed}")
        found = session.execute("SELECT payload FROM pushy_internal.log_read(%s) WHERE channel = 'orders'", (after,)).fetchall()
        assert found == [("for others",)]
        names = session.execute("""SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'pushy'::regnamespace
            AND has_schema_privilege('pushy', 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')""").fetchall()
        assert names == []
    db.sql("SELECT pushy.gateway_revoke(%s)", gateway)
    assert not db.value("SELECT has_function_privilege(%s, 'pushy_internal.gateway_keys()', 'EXECUTE')", gateway)


def test_gateway_explain_says_what_is_missing(db, web):
    reasons = lambda: [reason for reason, in db.rows("SELECT reason FROM pushy.gateway_explain()")]  # noqa: E731
    missing = reasons()
    assert [words in reason for words, reason in zip(["no gateway has reported", "no channel was granted", "no key of tokens is registered"], missing)] == [True] * 3
    db.sql("SELECT pushy.channel_grant('orders', %s)", web)
    db.sql("SELECT pushy.gateway_key_register('k', role => %s)", web)
    assert len(reasons()) == 1
    db.sql("""SELECT pushy_internal.gateway_report('[]', '[]', '{"open": {}, "rooms": 0}')""")
    assert reasons() == ["nothing is in the way: who brings a good token or ticket is let in, and hears what was granted to its role"]
