"""A queue comes to a name at the moment at which what means it is being declared, or is locked: who registers it waits for nobody, and its
watches and subscriptions feed it afterwards."""

import pytest

KINDS = {
    "subscription": ("SELECT pushy.subscription_create('s', '{c}', queue => 'q')", "SELECT pushy.notify('c', 'x')",
                     "SELECT FROM pushy_internal.subscription WHERE name = 's' FOR UPDATE"),
    "watch": ("SELECT pushy.watch('t', name => 'w', queue => 'q')", "INSERT INTO t DEFAULT VALUES", "SELECT pushy.watch_pause('t', 'w')"),
}


@pytest.fixture
def work(db):
    db.sql("CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS ''; CREATE TABLE t (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY);"
           "SELECT pushy.queue_register('q', 'work(jsonb)')")
    return db


def come_again(session) -> None:
    """As a deploy does, which waits for nobody's transaction."""
    session.execute("SET lock_timeout = '20s'")
    session.execute("SELECT pushy.queue_drop('q', force => true)")
    session.execute("SELECT pushy.queue_register('q', 'work(jsonb)')")


def feeds(db, kind: str) -> None:
    db.sql(KINDS[kind][1])
    db.wait_until("SELECT count(*) > 0 FROM pushy.jobs WHERE queue = 'q'", True)
    views = {"subscription": "subscriptions", "watch": "watches"}
    assert db.rows(f"SELECT state, fix, queue FROM pushy.{views[kind]}") == [("active", None, "q")]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_being_declared_while_its_queue_was_registered_again_feeds_it(work, kind):
    with work.connect(autocommit=False) as declaring:
        declaring.execute(KINDS[kind][0])
        with work.connect() as session:
            come_again(session)
        declaring.commit()
    feeds(work, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_who_registers_a_queue_again_waits_for_nobody_who_holds_what_feeds_it(work, kind):
    declare, _, hold = KINDS[kind]
    work.sql(declare)
    with work.connect(autocommit=False) as holding:
        holding.execute(hold)
        with work.connect() as session:
            come_again(session)
        holding.rollback()
    feeds(work, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_another_roles_queue_of_that_name_is_not_followed(work, role, kind):
    stranger = role()
    with work.connect(autocommit=False) as declaring:
        declaring.execute(KINDS[kind][0])
        work.sql("SELECT pushy.queue_drop('q', force => true); GRANT EXECUTE ON FUNCTION work TO PUBLIC")
        with work.connect(user=stranger) as session:
            session.execute("SELECT pushy.queue_register('q', 'work(jsonb)')")
            session.execute("SELECT pushy.queue_grant('q', 'public', 'enqueue')")
        declaring.commit()
    work.sql(KINDS[kind][1])
    views = {"subscription": "subscriptions", "watch": "watches"}
    work.wait_until(f"SELECT fix LIKE '%%is another role''s now%%' FROM pushy.{views[kind]}", True)
    assert work.value("SELECT count(*) FROM pushy.jobs") == 0
