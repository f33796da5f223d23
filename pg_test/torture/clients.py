"""Clients and their habits: each a loop of transactions of one kind after another, whatever happens to the server."""

import contextlib
import random
import threading

import psycopg
from psycopg import IsolationLevel

from .world import World

LEVELS = [IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]
OWE = "INSERT INTO owed SELECT unnest(%s::bigint[])"


class Client(threading.Thread):
    def __init__(self, world: World, seed: str):
        super().__init__(daemon=True)
        self.world, self.random, self.error, self.is_unsure = world, random.Random(seed), None, False
        self.habits = [self.plain, self.plain, self.savepoints, self.two_phases, self.serializable, self.keys, self.keys, self.watched,
                       self.watched, self.cancels, self.retries, self.waits, self.declares, self.holds, self.reads, self.rolls_back, self.forgets]

    def run(self) -> None:
        while not self.world.stopping.is_set():
            try:
                with contextlib.closing(self.world.session(autocommit=False, options="-c lock_timeout=2s")) as session:
                    session.add_notice_handler(self.notice)
                    for _ in range(self.random.randint(1, 20)):
                        if self.world.stopping.is_set():
                            return
                        habit = self.random.choice(self.habits)
                        self.attempt(session, habit)
            # A standby that is about to be promoted takes reads only.
            except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
                self.world.count("connections lost")
                self.world.stopping.wait(0.05)
            except Exception as error:  # shown at the end
                self.error = error
                return

    def notice(self, diagnostic) -> None:
        # A cancel while it waited for the standby: committed here, and maybe nowhere else.
        self.is_unsure |= "synchronous replication" in (diagnostic.message_primary or "")

    def attempt(self, session: psycopg.Connection, habit) -> None:
        self.is_unsure = False
        try:
            session.isolation_level = IsolationLevel.READ_COMMITTED
            habit(session)
            self.world.count(habit.__name__)
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected, psycopg.errors.QueryCanceled,
                psycopg.errors.LockNotAvailable):
            self.world.count(f"{habit.__name__}: put off")
        finally:
            if not session.closed:
                session.rollback()
                session.autocommit = False

    def enqueue(self, session, **options) -> list[int]:
        """Jobs, and that they are owed, in the session's transaction."""
        queue = self.random.choice(["q", "q", "ordered"])
        count = self.random.choice([1, 1, 5, 50])
        delay = self.random.choice([None, None, None, "30 ms", "500 ms"])
        if count == 1:
            jobs = [session.execute("SELECT pushy.enqueue(%s, delay => %s::interval)", (queue, delay)).fetchone()[0]]
        else:
            jobs = [job for job, in session.execute(
                "SELECT pushy.enqueue_many(%s, array_fill('{}'::jsonb, ARRAY[%s]), delay => %s::interval)", (queue, count, delay))]
        session.execute(OWE, (jobs,))
        return jobs

    def acknowledge(self, jobs: list[int]) -> None:
        if not self.is_unsure:
            with self.world.guard:
                self.world.acknowledged += jobs

    # -- habits ----------------------------------------------------------------------------------------------

    def plain(self, session) -> None:
        jobs = self.enqueue(session)
        session.commit()
        self.acknowledge(jobs)

    def rolls_back(self, session) -> None:
        self.enqueue(session)
        session.rollback()

    def savepoints(self, session) -> None:
        kept = []
        for _ in range(self.random.randint(1, 5)):
            session.execute("SAVEPOINT s")
            jobs = self.enqueue(session)
            if self.random.random() < 0.4:
                session.execute("ROLLBACK TO s")
            else:
                kept += jobs
        session.commit()
        self.acknowledge(kept)

    def two_phases(self, session) -> None:
        jobs = self.enqueue(session)
        if self.random.random() < 0.5:
            self.change_item(session)
        gid = f"torture {jobs[0]}"
        session.execute(f"PREPARE TRANSACTION '{gid}'")
        session.autocommit = True
        end = self.random.choice(["COMMIT", "COMMIT", "ROLLBACK"])
        session.execute(f"{end} PREPARED '{gid}'")
        if end == "COMMIT":
            self.acknowledge(jobs)

    def forgets(self, session) -> None:
        """A prepared transaction that nobody ends, but for somebody who ends one of those later."""
        forgotten = session.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE 'forgotten%'").fetchall()
        if len(forgotten) < 3:
            jobs = self.enqueue(session)
            session.execute(f"PREPARE TRANSACTION 'forgotten {jobs[0]}'")
            return
        session.commit()
        session.autocommit = True
        # Somebody else may be at it.
        with contextlib.suppress(psycopg.errors.UndefinedObject, psycopg.errors.ObjectNotInPrerequisiteState):
            session.execute(f"COMMIT PREPARED '{self.random.choice(forgotten)[0]}'")

    def serializable(self, session) -> None:
        session.isolation_level = self.random.choice(LEVELS)
        session.execute("SELECT count(*) FROM item")
        jobs = self.enqueue(session)
        if self.random.random() < 0.5:
            self.change_item(session)
        session.commit()
        self.acknowledge(jobs)

    def change_item(self, session) -> None:
        item = self.random.randint(1, 10)
        session.execute("UPDATE item SET v = v + 1 WHERE id = %s", (item,))
        session.execute("SELECT pushy.enqueue('copies', jsonb_build_object('id', %s::int), unique_key => %s)", (item, str(item)))

    def keys(self, session) -> None:
        session.isolation_level = self.random.choice(LEVELS)
        self.change_item(session)
        if self.random.random() < 0.2:
            session.rollback()
        else:
            session.commit()

    def watched(self, session) -> None:
        session.isolation_level = self.random.choice(LEVELS)
        for _ in range(self.random.choice([1, 1, 3])):
            session.execute("SAVEPOINT s")
            session.execute("UPDATE watched SET v = v + 1 WHERE id = %s", (self.random.randint(1, 10),))
            if self.random.random() < 0.2:
                session.execute("ROLLBACK TO s")
        session.commit()

    def cancels(self, session) -> None:
        """What job_cancel answers true for, in a transaction that commits, ends as cancelled."""
        jobs = session.execute("""
            SELECT id FROM pushy.jobs WHERE queue IN ('q', 'ordered') AND finished_at IS NULL ORDER BY random() LIMIT 3""").fetchall()
        session.commit()
        for job, in jobs:
            if session.execute("SELECT pushy.job_cancel(%s)", (job,)).fetchone()[0]:
                session.execute("INSERT INTO cancelled VALUES (%s)", (job,))
            session.commit()

    def retries(self, session) -> None:
        found = session.execute("SELECT id FROM pushy.jobs WHERE state IN ('retryable', 'scheduled') AND queue = 'q' LIMIT 2").fetchall()
        session.commit()
        for job, in found:
            # One that has finished meanwhile runs once more.
            session.execute("INSERT INTO retried SELECT %s WHERE pushy.job_retry(%s)", (job, job))
            session.commit()

    def waits(self, session) -> None:
        jobs = self.enqueue(session)
        session.commit()
        self.acknowledge(jobs)
        session.execute("SELECT state FROM pushy.job_wait(%s, '500 ms')", (jobs[0],))
        session.commit()

    def declares(self, session) -> None:
        what = self.random.choice([
            "SELECT pushy.queue_alter('q', priority => 4 + (random() * 2)::int)",
            "SELECT pushy.queue_pause('ordered')", "SELECT pushy.queue_resume('ordered')", "SELECT pushy.queue_resume('q')",
            "SELECT pushy.queue_alter('ordered', concurrency => 1 + (random() * 2)::int)",
            "SELECT pushy.watch('watched', channel => 'watched', queue => 'seen', payload => 'row', delivery => 'relay')"])
        session.execute("SET LOCAL lock_timeout = '2 s'")
        session.execute(what)
        session.commit()

    def holds(self, session) -> None:
        """Rows of Pushy's own and a snapshot, held for a moment, as anybody may."""
        session.isolation_level = self.random.choice(LEVELS)
        session.execute("SELECT count(*) FROM pushy.jobs")
        session.execute("SET LOCAL lock_timeout = '1 s'")
        session.execute(self.random.choice([
            "SELECT pushy.queue_alter('q', priority => 5)",
            "SELECT pushy.subscription_create('reader', '{watched}')",
            "SELECT 1"]))
        session.execute("SELECT pg_sleep(%s)", (self.random.random(),))
        session.commit()

    def reads(self, session) -> None:
        session.execute("SELECT read_some()")
        session.commit()
