"""Jobs that run many to a transaction, and what they leave behind to be counted."""

import random
from threading import Thread


def enqueue(db, count: int, queue: str = "q") -> list[int]:
    """Enqueues `count` jobs with the arguments {"n": 1}, {"n": 2} … at once; their numbers in that order."""
    return [job for job, in db.rows(
        "SELECT pushy.enqueue_many(%s, ARRAY(SELECT jsonb_build_object('n', n) FROM generate_series(1, %s) n))", queue, count)]


def count_runs_of(db, *numbers: int) -> None:
    """Counts runs of these jobs in sequences, which no rollback undoes; their handler calls ran(n)."""
    for n in numbers:
        db.sql(f"CREATE SEQUENCE runs_{n}")
    db.sql("""
        CREATE FUNCTION ran(n int) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM nextval(s) FROM to_regclass('public.runs_' || n) s WHERE s IS NOT NULL;
        END $$""")


def runs_of(db, n: int) -> int:
    return db.value(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM runs_{n}")


def states(db, queue: str = "q") -> dict[str, int]:
    return dict(db.rows("SELECT state::text, count(*) FROM pushy.jobs WHERE queue = %s GROUP BY state", queue))


def sizes(db, queue: str = "q") -> list[int]:
    """How many completed jobs each transaction had, their handlers having answered pg_current_xact_id()."""
    return [size for size, in db.rows(
        "SELECT count(*) FROM pushy.jobs WHERE queue = %s AND state = 'completed' GROUP BY result ORDER BY 1", queue)]


def run_while_executors_are(struck: bool, db, threads: list[Thread]) -> None:
    """Runs these threads to their end; meanwhile executors that have a job are cancelled or terminated at random, if they are to be struck."""
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if struck:
            call = random.choice(["pg_cancel_backend", "pg_terminate_backend"])
            db.sql(f"SELECT {call}(pid) FROM pushy.workers WHERE kind = 'executor' AND job_id IS NOT NULL ORDER BY random() LIMIT 1")
        threads[0].join(0.1)
    for thread in threads:
        thread.join()
