"""Finished jobs leave in windows: each has a table of its own, which is emptied as a whole and used again."""

import psycopg
import pytest

from stage.dumps import dump, restore
from stage.life import end_executors
from stage.windows import MANY, end, enqueue, fill_a_window, members, prepare, rows_in, wake_scheduler


@pytest.fixture
def db(db):
    return prepare(db)


def test_completed_jobs_go_to_the_table_of_their_window_and_are_seen_as_before(db):
    member = fill_a_window(db)
    job, at, expires = db.rows(f"SELECT id, finished_at, expires_at FROM ONLY pushy_internal.{member} ORDER BY id LIMIT 1")[0]
    assert db.job(job)["state"] == "completed" and db.job_wait(job)["finished_at"] == at
    assert db.value("SELECT count(*) FROM pushy.jobs WHERE state = 'completed'") == 2 * MANY
    late = db.value("SELECT removes_after - %s FROM pushy_internal.rotation WHERE member = %s", expires, member)
    assert 0 <= late.days < 10
    assert rows_in(db, member) + rows_in(db, "finished_job") == 2 * MANY


def test_a_window_that_is_over_is_emptied_as_a_whole_and_its_table_used_again(db):
    member = fill_a_window(db)
    file = db.value("SELECT pg_relation_filenode(%s::regclass)", f"pushy_internal.{member}")
    end(db, member)
    wake_scheduler(db)
    db.wait_until("SELECT count(*) FROM pushy_internal.rotation", 0)
    assert rows_in(db, member) == 0
    assert db.value("SELECT pg_relation_filenode(%s::regclass)", f"pushy_internal.{member}") != file, "truncated, not deleted from"
    # Executors have it in their caches as the one to write to: they notice. One job alone has no time to be given another table.
    enqueue(db, 1)
    assert rows_in(db, member) == 0
    assert fill_a_window(db, used=set()) == member


def test_a_table_that_somebody_reads_is_emptied_later_and_nobody_waits_for_it(db):
    member = fill_a_window(db)
    before = rows_in(db, member)
    with db.connect(autocommit=False) as reader:
        assert reader.execute("SELECT count(*) FROM pushy.jobs").fetchone()[0] == 2 * MANY
        end(db, member)
        wake_scheduler(db)
        db.wait_until("SELECT state FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'pushy scheduler' "
                      "UNION ALL SELECT 'idle' LIMIT 1", "idle")
        # Nobody stands in the queue for its lock: others read it meanwhile.
        assert rows_in(db, member) == before
        assert db.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass", f"pushy_internal.{member}") == 0
        reader.rollback()
    wake_scheduler(db)
    db.wait_until(f"SELECT count(*) FROM ONLY pushy_internal.{member}", 0)


def test_jobs_that_failed_before_are_removed_with_their_failures(db):
    member = fill_a_window(db)
    db.sql("""CREATE FUNCTION second_time(job pushy.job) RETURNS void LANGUAGE plpgsql AS
              $$BEGIN IF job.attempt < 2 THEN RAISE 'no'; END IF; END$$;
              SELECT pushy.queue_register('flaky', 'second_time', backoff => 'fixed', retry_delay => '0', keep_completed => '1 ms')""")
    job = db.value("SELECT pushy.enqueue('flaky')")
    assert db.job_wait(job)["attempt"] == 2
    wake_scheduler(db)
    db.wait_until("SELECT count(*) FROM pushy_internal.finished_job WHERE attempt > 1", 0)
    assert db.value("SELECT count(*) FROM pushy_internal.failure") == 0
    assert members(db) == [member]


def test_a_job_of_a_window_runs_again(db):
    member = fill_a_window(db)
    job = db.value(f"SELECT max(id) FROM ONLY pushy_internal.{member}")
    assert db.value("SELECT pushy.job_retry(%s)", job)
    seen = db.job_wait(job)
    assert (seen["state"], seen["attempt"]) == ("completed", 2)
    assert db.value("SELECT tableoid::regclass::text FROM pushy_internal.finished_job WHERE id = %s", job) == "pushy_internal.finished_job"


def test_a_dropped_queue_takes_its_jobs_out_of_windows(db):
    member = fill_a_window(db)
    db.sql("SELECT pushy.queue_register('stays', 'note(jsonb)', keep_completed => '80 days')")
    enqueue(db, 100, queue="stays")
    db.sql("SELECT pushy.queue_drop('q')")
    assert db.rows("SELECT DISTINCT queue FROM pushy.jobs WHERE queue <> 'wake'") == [("stays",)]
    later(db)
    assert rows_in(db, member) + rows_in(db, "finished_job") == 100


def later(db):
    """The time comes when what dropped queues have left is removed."""
    # At once, because a scheduler that comes between them finds rows from after the drop, which are not its business.
    db.sql("""UPDATE pushy_internal.dropped_queue SET dropped_at = dropped_at - interval '10 minutes';
              UPDATE pushy_internal.finished_job SET finished_at = finished_at - interval '10 minutes';
              UPDATE pushy_internal.failure SET failed_at = failed_at - interval '10 minutes'""")
    wake_scheduler(db)
    db.wait_until("SELECT count(*) FROM pushy_internal.dropped_queue", 0)


def test_a_drop_does_not_read_what_others_have_done(db):
    fill_a_window(db)
    db.sql("SELECT pushy.queue_register('small', 'note(jsonb)')")
    with db.connect(autocommit=False) as session:
        session.execute("SELECT pushy.queue_drop('small')")
        read = session.execute(
            "SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_stat_xact_user_tables "
            "WHERE schemaname = 'pushy_internal' AND (relname LIKE 'finished_job%' OR relname = 'failure')").fetchone()
        assert read == (0,)


def test_failures_of_a_dropped_queue_are_removed_those_of_unfinished_jobs_too(db):
    db.sql("""CREATE FUNCTION fails(jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;
              SELECT pushy.queue_register('bad', 'fails(jsonb)', max_attempts => 1);
              SELECT pushy.queue_register('again', 'fails(jsonb)', retry_delay => '1 day')""")
    bad = db.value("SELECT pushy.enqueue('bad')")
    db.value("SELECT pushy.enqueue('again')")
    db.job_wait(bad)
    db.wait_until("SELECT count(*) FROM pushy.failures", 2)
    db.sql("SELECT pushy.queue_drop('bad'); SELECT pushy.queue_drop('again', force => true)")
    assert db.value("SELECT count(*) FROM pushy.failures") == 0
    later(db)
    assert rows_in(db, "failure") == 0
    assert db.value("SELECT count(*) FROM pushy_internal.finished_job WHERE state = 'd'") == 0


def number_of(db, queue):
    return db.value("SELECT queue_id FROM pushy_internal.queue WHERE queue = %s", queue)


def long_ago(db):
    """What is done was done before what is dropped from now on, even if that becomes due at once."""
    db.sql("UPDATE pushy_internal.finished_job SET finished_at = finished_at - interval '20 minutes'")
    db.sql("UPDATE pushy_internal.failure SET failed_at = failed_at - interval '20 minutes'")


DUE = "UPDATE pushy_internal.dropped_queue SET dropped_at = dropped_at - interval '%s minutes'"
OF_QUEUE = "SELECT count(*) FROM pushy_internal.finished_job WHERE queue_id = %s"


def test_a_queue_whose_drop_commits_while_others_are_purged_is_purged_itself(db):
    """It was forgotten with them, because it was dropped before them, and its history stayed."""
    db.sql("""CREATE FUNCTION fails(jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;
              SELECT pushy.queue_register('bad', 'fails(jsonb)', max_attempts => 1);
              CREATE TABLE go ();
              CREATE FUNCTION wait_for_go() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN WHILE NOT EXISTS (SELECT FROM public.go) LOOP PERFORM pg_catalog.pg_sleep(0.01); END LOOP; RETURN OLD; END$$;
              CREATE TRIGGER wait_for_go BEFORE DELETE ON pushy_internal.failure FOR EACH ROW EXECUTE FUNCTION wait_for_go()""")
    db.job_wait(db.value("SELECT pushy.enqueue('bad')"))
    enqueue(db, 1)
    late, bad = number_of(db, "q"), number_of(db, "bad")
    long_ago(db)
    with db.connect(autocommit=False) as dropper:
        dropper.execute("SELECT pushy.queue_drop('q')")
        dropper.execute(DUE % 15)
        db.sql("SELECT pushy.queue_drop('bad')")
        db.sql(DUE % 12)
        wake_scheduler(db)
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'pushy scheduler' "
                      "AND wait_event = 'PgSleep'", 1)
        dropper.commit()
    db.sql("INSERT INTO go DEFAULT VALUES")
    db.wait_until("SELECT count(*) FROM pushy_internal.dropped_queue WHERE queue_id = %s", 0, params=(bad,))
    wake_scheduler(db)
    db.wait_until("SELECT count(*) FROM pushy_internal.dropped_queue", 0)
    assert db.value(OF_QUEUE, late) == 0


def test_a_dropped_queue_is_remembered_while_somebody_holds_a_row_of_its_history(db):
    enqueue(db, 10)
    queue = number_of(db, "q")
    long_ago(db)
    with db.connect(autocommit=False) as holder:
        holder.execute("SELECT FROM pushy_internal.finished_job WHERE queue_id = %s LIMIT 1 FOR UPDATE", (queue,))
        db.sql("SELECT pushy.queue_drop('q')")
        db.sql(DUE % 15)
        wake_scheduler(db)
        db.wait_until(OF_QUEUE, 1, params=(queue,))
    wake_scheduler(db)
    db.wait_until("SELECT count(*) FROM pushy_internal.dropped_queue", 0)
    assert db.value(OF_QUEUE, queue) == 0


def rows_read(db, turns):
    """Rows of the history that schedulers read one after the other in so many of their turns."""
    rows = "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname LIKE 'finished_job%'"
    schedulers = "FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'pushy scheduler'"
    before = db.value(rows)
    for _ in range(turns):
        wake_scheduler(db)
    # At its end it says what it has counted.
    db.sql(f"SELECT pg_terminate_backend(pid) {schedulers}")
    db.wait_until(f"SELECT count(*) {schedulers}", 0)
    return db.value(rows) - before


def test_a_held_row_of_a_dropped_queue_does_not_have_the_history_read_at_each_turn(db):
    """It was read whole whenever anything was due, as long as somebody held one row of it."""
    turns, others = 12, 5000
    db.sql("SELECT pushy.queue_register('stays', 'note(jsonb)', keep_completed => '80 days')")
    enqueue(db, others, queue="stays")
    enqueue(db, 2)
    queue = number_of(db, "q")
    long_ago(db)
    # So that what removes single rows goes by the index.
    db.sql("ANALYZE pushy_internal.finished_job")
    with db.connect(autocommit=False) as holder:
        holder.execute("SELECT FROM pushy_internal.finished_job WHERE queue_id = %s LIMIT 1 FOR UPDATE", (queue,))
        db.sql("SELECT pushy.queue_drop('q')")
        db.sql(DUE % 15)
        read = rows_read(db, turns)
        assert db.value(OF_QUEUE, queue) == 1
        assert others <= read <= turns / 2 * others, read
    db.wait_until("SELECT count(*) FROM pushy_internal.dropped_queue", lambda left: wake_scheduler(db) or left == 0)
    assert db.value(OF_QUEUE, queue) == 0


def test_no_queue_gets_the_number_of_one_whose_history_is_still_there(db):
    enqueue(db, 1)
    number = db.value("SELECT queue_id FROM pushy_internal.queue WHERE queue = 'q'")
    db.sql("SELECT pushy.queue_drop('q')")
    db.sql("SELECT setval('pushy_internal.queue_id_seq', %s, false)", number)
    db.sql("SELECT pushy.queue_register('new', 'note(jsonb)')")
    assert db.value("SELECT queue_id FROM pushy_internal.queue WHERE queue = 'new'") != number
    assert db.value("SELECT count(*) FROM pushy.jobs") == 0


def test_another_length_of_keeping_has_windows_of_its_own(db):
    db.sql("SELECT pushy.queue_register('long', 'note(jsonb)', keep_completed => '800 days')")
    short, long = fill_a_window(db), fill_a_window(db, "long")
    assert members(db) == [short, long]
    ends = db.value("SELECT removes_after - now() FROM pushy_internal.rotation WHERE member = %s", long)
    assert 800 <= ends.days <= 900
    db.sql("SELECT pushy.queue_alter('q', keep_completed => '800 days')")
    before = rows_in(db, long)
    enqueue(db)
    assert rows_in(db, long) == before + MANY, "the same length, the same table"


def test_when_all_tables_are_taken_jobs_are_kept_in_the_parent(db):
    db.sql("INSERT INTO pushy_internal.rotation SELECT 'pushy_internal.finished_job', c.relname, 'infinity' "
           "FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE inhparent = 'pushy_internal.finished_job'::regclass")
    end_executors(db)
    for _ in range(3):
        enqueue(db)
    assert rows_in(db, "finished_job") == 3 * MANY


def test_windows_go_on_after_a_restart(make_cluster):
    db = prepare(make_cluster().database())
    member = fill_a_window(db)
    db.cluster.restart()
    before = rows_in(db, member)
    enqueue(db)
    assert rows_in(db, member) == before + MANY
    end(db, member)
    db.cluster.restart()
    db.wait_until("SELECT count(*) FROM pushy_internal.rotation", 0)
    assert rows_in(db, member) == 0


def test_what_a_restore_brings_into_a_window_expires_with_its_newest_row(db):
    member = fill_a_window(db)
    newest = db.value(f"SELECT max(expires_at) FROM ONLY pushy_internal.{member}")
    copy, _ = restore(db.cluster, dump(db), f"{db.name}_copy")
    assert copy.value("SELECT count(*) FROM pushy.jobs") == 2 * MANY
    # A scheduler of the copy takes the window over, now or when it is told to look.
    copy.sql("SELECT pushy.resume_after_restore()")
    copy.wait_until("SELECT max(removes_after) FROM pushy_internal.rotation", newest)
    end(copy, member)
    wake_scheduler(copy)
    copy.wait_until("SELECT count(*) FROM pushy_internal.rotation", 0)
    copy.drop()


def test_no_role_but_the_owner_may_read_a_window(db, role):
    with db.connect(user=role()) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT * FROM pushy_internal.finished_job_00")
