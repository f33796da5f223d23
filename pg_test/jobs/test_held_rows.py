"""A ready or due job whose row somebody holds is passed over, and done within moments of the end of that: however it came to be ready, whoever
holds it, and however that ends."""

import threading
import time

import psycopg
import pytest

from harness.gate import Gate

HOLD = {
    "for update": "SELECT FROM pushy_internal.live_job WHERE id = {} FOR UPDATE",
    "for key share": "SELECT FROM pushy_internal.live_job WHERE id = {} FOR KEY SHARE",
    "an update": "UPDATE pushy_internal.live_job SET max_attempts = 7 WHERE id = {}",
}
ENDS = ["COMMIT", "ROLLBACK", "the session's end", "COMMIT PREPARED", "ROLLBACK PREPARED"]
# Seconds. A row that nobody announces waits for the sweep of the minute.
SOON = 8


def resumed(db, hold) -> tuple[int, psycopg.Connection]:
    db.sql("SELECT pushy.queue_pause('q')")
    job = db.value("SELECT pushy.enqueue('q')")
    holder = hold(job)
    db.sql("SELECT pushy.queue_resume('q')")
    return job, holder


def due(db, hold) -> tuple[int, psycopg.Connection]:
    job = db.value("SELECT pushy.enqueue('q', delay => '0.4 s')")
    holder = hold(job)
    time.sleep(0.5)  # not waiting for an event: until it is due
    return job, holder


def given_back(db, hold) -> tuple[int, psycopg.Connection]:
    db.sql("INSERT INTO gate VALUES (1)")
    job = db.value("SELECT pushy.enqueue('q')")
    executor = db.wait_until("SELECT min(w.pid) FROM pushy.workers w JOIN pg_stat_activity a USING (pid) WHERE w.job_id = %s AND a.wait_event = 'PgSleep'",
                             lambda pid: pid is not None, params=(job,))
    db.sql("DELETE FROM gate")
    found = []
    waiting = threading.Thread(target=lambda: found.append(hold(job)))
    waiting.start()
    db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'", 1)
    # Paused: else another executor may be there before who waits.
    db.sql("SELECT pushy.queue_pause('q')")
    db.sql("SELECT pg_terminate_backend(%s)", executor)
    waiting.join()
    db.sql("SELECT pushy.queue_resume('q')")
    return job, found[0]


@pytest.mark.parametrize("how", HOLD)
@pytest.mark.parametrize("became_ready", [resumed, due, given_back], ids=lambda step: step.__name__)
def test_a_job_whose_row_was_held_is_done_soon_after(db, became_ready, how):
    db.sql("""
        CREATE TABLE gate (id int);
        CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS
          $$BEGIN IF EXISTS (SELECT FROM public.gate) THEN PERFORM pg_catalog.pg_sleep(600); END IF; END$$;
        SELECT pushy.queue_register('q', 'work()', batch => false)""")

    def hold(job: int) -> psycopg.Connection:
        holder = db.connect(autocommit=False)
        holder.execute(HOLD[how].format(job))
        return holder

    late = {}
    for end in ENDS:
        job, holder = became_ready(db, hold)
        # One behind it in the order: whoever has done it has passed over the other.
        after = db.value("SELECT pushy.enqueue('q')")
        db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "completed", params=(after,))
        assert db.value("SELECT state FROM pushy.jobs WHERE id = %s", job) != "completed", "it is held"
        if end.endswith("PREPARED"):
            holder.execute(f"PREPARE TRANSACTION '{db.name}'")
            holder.commit()
            holder.close()
            db.sql(f"{end} '{db.name}'")
        elif end == "the session's end":
            holder.close()
        else:
            holder.execute(end)
        ended = time.monotonic()
        db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "completed", params=(job,), deadline=120)
        late[end] = time.monotonic() - ended
    assert max(late.values()) < SOON, late


LOOKS = "SELECT idx_scan FROM pg_stat_all_indexes WHERE indexrelid = 'pushy_internal.live_job_ready'::regclass"


def looks(db, hold: str) -> int:
    """How often executors look for ready jobs in three seconds, while a job is held that somebody has passed over."""
    gate = Gate(db)
    db.sql(f"CREATE OR REPLACE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN IF args ? 'waits' THEN PERFORM {gate.stop}; END IF; END$$;"
           "SELECT pushy.queue_register('q', 'work(jsonb)', batch => false)")
    with db.connect(autocommit=False) as holder:
        if hold == "an executor":
            job = db.value("SELECT pushy.enqueue('q', '{\"waits\": true}')")
            gate.wait_for_arrival()
        else:
            db.sql("SELECT pushy.queue_pause('q')")
            job = db.value("SELECT pushy.enqueue('q')")
            holder.execute(HOLD["for update"].format(job))
            db.sql("SELECT pushy.queue_resume('q')")
        db.job_wait(db.value("SELECT pushy.enqueue('q')"))
        # Not waiting for an event: in it nothing is to happen, or the same again and again. Who falls asleep says what it has counted, this
        # session behind its next statement, and what the registration has asked for is over by then.
        time.sleep(3)
        db.sql("SELECT")
        before = db.value(LOOKS)
        time.sleep(3)
        after = db.value(LOOKS)
        gate.open()
    db.job_wait(job)
    return after - before


@pytest.mark.parametrize("hold, again", [("an executor", False), ("somebody else", True)])
def test_only_rows_that_no_executor_holds_are_tried_again(make_cluster, hold, again):
    # Half a second after each look comes the next.
    seen = looks(make_cluster().database(), hold)
    assert seen >= 4 if again else seen == 0, seen
