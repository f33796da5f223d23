"""What somebody can make long, or asks for again and again, is done by turns: the workers of all have others to serve."""

import threading

NOTHING = "CREATE FUNCTION nothing(args jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'nothing(jsonb)')"
READY = "SELECT idx_scan FROM pg_stat_all_indexes WHERE indexrelid = 'pushy_internal.live_job_ready'::regclass"


def old_snapshot(db):
    """Nothing that was there is vacuumed while this session lasts."""
    session = db.connect(autocommit=False)
    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()")
    return session


def test_a_subscription_of_which_nothing_matches_is_read_by_turns_and_misses_nothing(db):
    db.sql(NOTHING)
    declare = "SELECT pushy.subscription_create('s', (SELECT array_agg('unused' || n) FROM generate_series(1, 200) n) || '{hit}'::text[], queue => 'q')"
    db.sql(declare)
    db.sql("SELECT pushy.subscription_create('reader', '{hit}')")
    written = "SELECT n_tup_upd FROM pg_stat_all_tables WHERE relid = 'pushy_internal.subscription'::regclass"
    with db.connect(autocommit=False) as holder:
        holder.execute(declare)
        for _ in range(2):
            db.sql("SELECT count(pushy.notify('other', n::text, delivery => 'relay')) FROM generate_series(1, 20000) n")
            db.sql("SELECT pushy.notify('hit', 'here', delivery => 'relay')")
        holder.rollback()
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'", 2)
    # 40,000 events at 5,000 a turn; one more, or two, were written by who held it.
    db.wait_until(f"SELECT ({written}) >= 8")
    with db.connect() as session:
        assert session.execute("CALL pushy.subscription_wait('reader')").fetchone()[0] is True
    read = "SELECT string_agg(payload, ' ') FROM pushy.subscription_read('reader')"
    assert db.value(read) == "here here"


def test_what_a_look_among_patterns_costs_is_counted(db):
    """One tenant's patterns lengthen no turn: what she pays is more turns, between which others have theirs."""
    db.sql(NOTHING)
    patterns = [f"{'a/' * 14}*/{n}" for n in range(100)]
    db.sql("SELECT pushy.subscription_create('s', '{hit}', queue => 'q', topics => %s)", patterns)
    written = "SELECT n_tup_upd FROM pg_stat_all_tables WHERE relid = 'pushy_internal.subscription'::regclass"
    db.sql("SELECT count(pushy.notify('hit', n::text, topic => repeat('a/', 14) || 'b/none')) FROM generate_series(1, 20000) n")
    db.sql("SELECT pushy.notify('hit', 'here', topic => repeat('a/', 14) || 'b/7')")
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'", 1)
    # An event takes as many steps as five more, and a turn has 5,000: 24 turns, of which one or two may find a part only.
    db.wait_until(f"SELECT ({written}) >= 22")


def leave_dead(db, rows: int) -> None:
    """Rows of `q` that were ready and are not there, as those of jobs that are done; nobody else looks for any."""
    with db.connect(autocommit=False) as session:
        session.execute("SELECT count(*) FROM pushy.enqueue_many('q', array_fill('{}'::jsonb, ARRAY[%s]))", (rows // 5,))
        for _ in range(4):
            session.execute("SELECT count(*) FROM pushy.enqueue_many('q', array_fill('{}'::jsonb, ARRAY[%s]))", (rows // 5,))
        session.rollback()


def test_a_sweep_meets_rows_that_were_done_before_by_turns(db):
    db.sql(NOTHING)
    db.jobs_wait("q")
    with old_snapshot(db):
        leave_dead(db, 250_000)
        looks = db.value(READY)
        db.sql("SELECT * FROM pushy.resume_after_restore()")
        # One for each priority, and one more after each 10,000 rows; some more of an executor that came to look.
        db.wait_until(f"SELECT ({READY}) >= %s", params=(looks + 10 + 24,))


def test_sweeps_that_are_asked_for_again_and_again_rest(db):
    db.sql(NOTHING)
    db.jobs_wait("q")
    with old_snapshot(db):
        leave_dead(db, 250_000)
        looks = db.value(READY)
        asked = 200
        for _ in range(asked):
            db.sql("SELECT * FROM pushy.resume_after_restore()")
        job = db.value("SELECT pushy.enqueue('q', delay => '0.1 s')")
        assert db.job_wait(job)["state"] == "completed"
        # Each looks once for each priority, and once more after each 10,000 rows. Rests are a second at most: a loaded machine, where 200 requests take
        # a while, has more of them.
        assert db.value(READY) - looks < (10 + 24) * asked / 4


def test_who_changes_queues_of_his_own_all_the_time_stops_no_delayed_job_of_others(db):
    db.sql(NOTHING)
    db.sql("SELECT pushy.queue_register('his' || n, 'nothing(jsonb)') FROM generate_series(1, 300) n")
    changed = [0, 0]
    is_over = threading.Event()

    def change(number: int) -> None:
        with db.connect() as session:
            while not is_over.is_set() and changed[number] < 20_000:
                session.execute(f"SELECT pushy.queue_grant('his{number + 1}', 'public', 'monitor'), pushy.queue_revoke('his{number + 1}', 'public', 'monitor')")
                changed[number] += 1

    with old_snapshot(db):
        # Each reading of the queues walks over what they were before.
        for _ in range(300):
            db.sql("UPDATE pushy_internal.queue SET changed_at = now()")
        stormers = [threading.Thread(target=change, args=(number,)) for number in range(2)]
        for stormer in stormers:
            stormer.start()
        try:
            for _ in range(3):
                job = db.value("SELECT pushy.enqueue('q', delay => '0.1 s')")
                assert db.job_wait(job)["state"] == "completed"
                assert max(changed) < 20_000
        finally:
            is_over.set()
            for stormer in stormers:
                stormer.join()


def test_a_queue_that_is_paused_while_all_are_read_stays_paused(db):
    db.sql(NOTHING)
    db.sql("SELECT pushy.queue_register('his' || n, 'nothing(jsonb)') FROM generate_series(1, 50) n")
    for _ in range(20):
        db.sql("SELECT pushy.queue_resume('q')")
        # Has the queues read.
        db.sql("SELECT pushy.queue_grant('his1', 'public', 'monitor'), pushy.enqueue('his2', delay => '1 us')")
        db.sql("SELECT pushy.queue_pause('q')")
        job = db.value("SELECT pushy.enqueue('q')")
        assert db.job_wait(db.value("SELECT pushy.enqueue('his3', delay => '10 ms')"))["state"] == "completed"
        assert db.job(job)["state"] == "available"
