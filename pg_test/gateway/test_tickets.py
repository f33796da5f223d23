"""Tickets: for one connection, for a while, for what their maker may hear."""

import threading

import psycopg
import pytest


@pytest.fixture
def web(db, role):
    web = role()
    db.sql(f"GRANT USAGE ON SCHEMA pushy TO {web}")
    db.sql("SELECT pushy.channel_grant('orders', %s)", web)
    return web


def redeem(db, ticket):
    return db.rows("SELECT role, subject, channels, topics FROM pushy_internal.gateway_redeem(%s)", ticket)


def refused(session, statement, *params):
    with pytest.raises(psycopg.Error) as caught:
        session.execute(statement, params)
    return caught.value.sqlstate, caught.value.diag.message_primary


def test_a_ticket_works_once(db, web):
    with db.connect(user=web) as session:
        ticket, = session.execute("SELECT pushy.ticket_create('{orders}', 'post/*, user/{sub}', 'ann')").fetchone()
    assert redeem(db, ticket) == [(web, "ann", ["orders"], "post/*, user/{sub}")]
    assert redeem(db, ticket) == [] and redeem(db, "t_" + "0" * 64) == [] and redeem(db, "") == []


def test_of_many_who_redeem_one_ticket_at_once_one_is_let_in(db, web):
    tickets = [db.value("SELECT pushy.ticket_create('{orders}')") for _ in range(20)]
    found, barrier = [], threading.Barrier(4)

    def work():
        with db.connect() as session:
            for ticket in tickets:
                barrier.wait()
                found.extend(session.execute("SELECT role FROM pushy_internal.gateway_redeem(%s)", (ticket,)).fetchall())
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(tickets)


def test_a_ticket_of_a_transaction_that_is_open_or_rolled_back_is_none(db, web):
    with db.connect(autocommit=False) as session:
        ticket, = session.execute("SELECT pushy.ticket_create('{orders}')").fetchone()
        assert redeem(db, ticket) == []
        session.rollback()
    assert redeem(db, ticket) == []


def test_a_ticket_whose_time_is_over_is_none_and_goes(db, web):
    tickets = [db.value("SELECT pushy.ticket_create('{orders}', valid => '1 microsecond')") for _ in range(3)]
    assert redeem(db, tickets[0]) == []
    db.sql("SELECT pushy.ticket_create('{orders}')")
    assert db.value("SELECT count(*) FROM pushy_internal.ticket") == 1


def test_after_a_crash_no_ticket_works_that_was_redeemed_before(cluster):
    db = cluster.database()
    db.sql("CREATE ROLE web; SELECT pushy.channel_grant('orders', 'web')")
    ticket, other = (db.value("SELECT pushy.ticket_create('{orders}')") for _ in range(2))
    with db.connect() as session:
        # Its commit may be lost.
        session.execute("SET synchronous_commit = off")
        assert session.execute("SELECT role FROM pushy_internal.gateway_redeem(%s)", (ticket,)).fetchall()
        cluster.crash()
    assert redeem(db, ticket) == [] and redeem(db, other) == []


def test_a_ticket_is_kept_over_a_restart_and_not_as_it_is_written(cluster):
    db = cluster.database()
    db.sql("CREATE ROLE web; SELECT pushy.channel_grant('orders', 'web')")
    ticket = db.value("SELECT pushy.ticket_create('{orders}')")
    assert ticket not in str(db.rows("SELECT t::text FROM pushy_internal.ticket t"))
    cluster.restart()
    assert len(redeem(db, ticket)) == 1


def test_what_cannot_be_heard_has_no_ticket(db, web, role):
    stranger = role()
    db.sql(f"GRANT USAGE ON SCHEMA pushy TO {stranger}")
    create = "SELECT pushy.ticket_create(%s::text[])"
    with db.connect(user=stranger) as session:
        assert refused(session, create, ["orders"]) == ("42501", f'channel "orders" was not granted to role {stranger}')
        assert refused(session, create, ["open"]) == ("42501", f'channel "open" was not granted to role {stranger}')
        assert refused(session, create, ["pushy_control"])[0] == "42501"
    with db.connect(user=web) as session:
        assert refused(session, create, [])[0] == "22023"
        assert refused(session, create, ["1x"])[0] == "42601"
        assert refused(session, "SELECT pushy.ticket_create('{orders}', 'a**')")[0] == "22023"
        assert refused(session, "SELECT pushy.ticket_create('{orders}', valid => '0')")[0] == "22023"
        assert refused(session, "SELECT pushy.ticket_create('{orders}', valid => '25 hours')")[0] == "22023"
        assert refused(session, "SELECT pushy.ticket_create('{orders}', subject => '')")[0] == "22023"


def test_a_role_has_as_many_tickets_as_the_setting_says(db, web):
    db.sql(f"ALTER ROLE {web} SET pushy.max_tickets_per_role = 2")
    with db.connect(user=web) as session:
        for _ in range(2):
            session.execute("SELECT pushy.ticket_create('{orders}')")
        assert refused(session, "SELECT pushy.ticket_create('{orders}')")[0] == "53400"
    assert redeem(db, db.value("SELECT pushy.ticket_create('{orders}')"))
