"""A subscription of PostgreSQL's that commits in two phases: no statement here tells of the end, and jobs and notices come with it all the same."""

import os
import signal

import pytest


@pytest.fixture
def pair(make_cluster):
    """What is written in the first is applied in the second, whose watch fires for it."""
    cluster = make_cluster({"wal_level": "logical", "max_prepared_transactions": 10})
    here, there = cluster.database(extension=False), cluster.database()
    for db in (here, there):
        db.sql("CREATE TABLE w (n int PRIMARY KEY)")
    here.sql("CREATE PUBLICATION p FOR TABLE w")
    here.sql("SELECT pg_create_logical_replication_slot('two_phase', 'pgoutput', false, true)")
    there.sql("CREATE TABLE ran (n int); CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE sql AS $$INSERT INTO public.ran VALUES ((args -> 'key' ->> 'n')::int)$$;"
              "SELECT pushy.queue_register('q', 'work(jsonb)'), pushy.watch('w', 'w', payload => 'key'), pushy.watch('w', name => 'j', queue => 'q'), pushy.subscription_create('s', '{w}')")
    for name, in there.rows("SELECT tgname FROM pg_trigger WHERE tgrelid = 'w'::regclass AND NOT tgisinternal"):
        there.sql(f'ALTER TABLE w ENABLE ALWAYS TRIGGER "{name}"')
    there.sql(f"CREATE SUBSCRIPTION s CONNECTION '{here.dsn()}' PUBLICATION p WITH (create_slot = false, slot_name = 'two_phase', two_phase = true, copy_data = false)")
    there.wait_until("SELECT subtwophasestate::text FROM pg_subscription", "e")
    yield here, there
    there.sql("ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s")


PREPARED = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"


def begin(here, there, n):
    here.sql(f"BEGIN; INSERT INTO w VALUES ({n}); PREPARE TRANSACTION 'x'")
    there.wait_until(PREPARED, 1)


@pytest.mark.parametrize("between", ["nothing", "the server's restart"])
def test_what_is_committed_in_two_phases_is_announced(pair, between):
    here, there = pair
    here.sql("INSERT INTO w VALUES (1)")
    there.wait_until("SELECT count(*) FROM ran", 1)
    begin(here, there, 2)
    if between != "nothing":
        here.cluster.restart()
        there.wait_until("SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL", 1)
        # An executor has looked for all that is ready, whether or not a scheduler has looked what was prepared before.
        there.sql("SELECT pushy.enqueue('q', '{\"key\": {\"n\": 0}}')")
        there.wait_until("SELECT count(*) FROM ran", 2)
    here.sql("COMMIT PREPARED 'x'")
    there.wait_until("SELECT count(*) FROM w WHERE n = 2", 1)
    there.jobs_wait("q")
    assert there.value("SELECT count(*) FROM ran WHERE n = 2") == 1, "jobs_wait has said that nothing is left"
    # Far sooner than the minute's look of the launcher.
    there.wait_until("""SELECT count(*) FROM pushy.subscription_read('s') WHERE payload LIKE '%"n":2%'""", 1, deadline=5)


def test_what_is_rolled_back_in_two_phases_is_forgotten(pair):
    here, there = pair
    begin(here, there, 2)
    here.sql("ROLLBACK PREPARED 'x'")
    there.wait_until(PREPARED, 0)
    begin(here, there, 3)
    here.sql("COMMIT PREPARED 'x'")
    there.wait_until("SELECT count(*) FROM ran WHERE n = 3", 1, deadline=5)
    assert there.rows("SELECT n FROM w") == [(3,)]


def test_more_that_end_between_two_looks_than_there_are_places_are_all_found(pair):
    """The launcher stands still meanwhile; of those without a place a scheduler finds what they have brought."""
    here, there = pair
    launcher = there.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pushy launcher'")
    places = 10 + 64
    os.kill(launcher, signal.SIGSTOP)
    try:
        for n in range(places + 20):
            here.sql(f"BEGIN; INSERT INTO w VALUES ({n}); PREPARE TRANSACTION 'x'")
            here.sql("COMMIT PREPARED 'x'")
        there.wait_until("SELECT count(*) FROM w", places + 20)
        # One that is open when the launcher goes on, and has no place either.
        begin(here, there, 1000)
    finally:
        os.kill(launcher, signal.SIGCONT)
    there.wait_until("SELECT count(*) FROM ran", places + 20, deadline=10)
    here.sql("COMMIT PREPARED 'x'")
    there.wait_until("SELECT count(*) FROM ran WHERE n = 1000", 1, deadline=5)
    there.jobs_wait("q")
