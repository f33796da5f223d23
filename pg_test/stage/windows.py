"""Windows of finished jobs: a table each, filled by jobs that run, and ended before its time."""

from stage.life import LEDGER

MANY = 200  # more than the rows that are not worth a table


def prepare(db):
    """Kept so long that no test sees the turn from one window to the next."""
    db.sql(LEDGER)
    db.sql("SELECT pushy.queue_register('q', 'note(jsonb)', keep_completed => '80 days')")
    return db


def enqueue(db, count=MANY, queue="q"):
    db.value("SELECT count(*) FROM pushy.enqueue_many(%s, (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, %s) n))", queue, count)
    db.jobs_wait(queue)


def fill_a_window(db, queue="q", used=None):
    """Runs jobs until some are in a table of a window, which the scheduler assigns meanwhile; its name. `used` are the tables that do
    not count: those that are assigned now, unless a job has run since, for which the scheduler may assign one at any moment."""
    used = set(members(db)) if used is None else used
    enqueue(db, queue=queue)
    db.wait_until("SELECT count(*) FROM pushy_internal.rotation", lambda count: count > len(used))
    [member] = set(members(db)) - used
    enqueue(db, queue=queue)
    assert rows_in(db, member) >= MANY
    return member


def members(db):
    return [member for member, in db.rows("SELECT member::text FROM pushy_internal.rotation ORDER BY removes_after")]


def rows_in(db, table):
    return db.value(f"SELECT count(*) FROM ONLY pushy_internal.{table}")


def end(db, *tables):
    """Lets the time of windows be over."""
    db.sql("UPDATE pushy_internal.rotation SET removes_after = now() WHERE member::text = ANY (%s)", list(tables))


def wake_scheduler(db):
    """A job that becomes due makes the scheduler look at all its times. This one leaves nothing."""
    db.sql("SELECT pushy.queue_register('wake', 'note(jsonb)', keep_completed => '0'); "
           "SELECT pushy.enqueue('wake', '0', delay => '10 ms')")
    db.wait_until("SELECT count(*) FROM pushy_internal.live_job", 0)
