"""Faults by chance, from a recorded seed, against a ledger: every committed job is terminal in the end, every effect
counted once, and no charge is ever taken back.

PUSHY_TEST_SEED repeats a run, PUSHY_TEST_FAULTS makes it longer."""

import contextlib
import os
import random
import signal

from stage.ledger import Ledger

FAULTS = int(os.environ.get("PUSHY_TEST_FAULTS", "60"))

# What jobs do, by the last digits of their number: most write, some fail at first, some only at COMMIT, some enqueue.
KINDS = """
    IF job.id % 17 = 0 AND job.attempt = 1 THEN RAISE EXCEPTION 'at first'; END IF;
    IF job.id % 19 = 0 AND job.attempt <= 2 THEN RAISE EXCEPTION 'at first' USING ERRCODE = '40001'; END IF;
    IF job.id % 23 = 0 AND job.attempt = 1 THEN INSERT INTO public.late VALUES (-1); END IF;
    IF job.id % 29 = 0 THEN CREATE TEMP TABLE scratch (n int) ON COMMIT DROP; END IF;
"""


class Chaos:
    def __init__(self, cluster, seed: int):
        self.cluster, self.random = cluster, random.Random(seed)
        self.db = cluster.database()
        self.db.sql("""
            CREATE TABLE parent (id int PRIMARY KEY);
            CREATE TABLE late (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)""")
        self.ledger = Ledger(self.db, before=KINDS, options=", max_attempts => 1000")
        self.charged: dict[int, int] = {}

    def step(self) -> str:
        self.enqueue()
        fault = self.random.choice([self.kill_executor, self.kill_executor, self.kill_backend, self.kill_database_worker,
                                    self.terminate, self.cancel, self.stop, self.enqueue])
        fault()
        self.look()
        return fault.__name__

    def enqueue(self) -> None:
        """Jobs in a transaction that commits, prepares and commits, or rolls back."""
        with self.cluster.connect(self.db.name, autocommit=False) as session:
            count, way = self.random.randint(1, 400), self.random.choice(["commit", "commit", "two phases", "rollback"])
            delay = self.random.choice([None, None, "100 ms", "1 s"])
            jobs = [job for job, in session.execute(
                "SELECT pushy.enqueue_many('q', array_fill('{}'::jsonb, ARRAY[%s]), delay => %s::interval)", (count, delay))]
            if way == "two phases":
                name = f"'chaos {jobs[0]}'"
                session.execute(f"PREPARE TRANSACTION {name}")
                session.autocommit = True
                session.execute(f"COMMIT PREPARED {name}")
            elif way == "commit":
                session.commit()
            else:
                session.rollback()
        if way != "rollback":
            self.ledger.enqueued += jobs

    def look(self) -> None:
        """Reads what jobs have been charged so far; a charge is never taken back."""
        with self.cluster.connect(self.db.name) as session:
            seen = dict(session.execute("SELECT id, attempt FROM pushy_internal.live_job").fetchall())
            seen |= dict(session.execute("SELECT id, attempt FROM pushy_internal.finished_job").fetchall())
        fallen = {job: (attempt, seen[job]) for job, attempt in self.charged.items() if seen[job] < attempt}
        assert not fallen, f"attempts fell: {fallen}"
        self.charged = seen

    # -- faults ----------------------------------------------------------------------------------------------

    def pids(self, kind: str) -> list[int]:
        with self.cluster.connect() as session:
            return [pid for pid, in session.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE %s AND pid <> pg_backend_pid()", (kind,))]

    def crash(self, pids: list[int]) -> None:
        before, killed = self.cluster.log.position(), 0
        for pid in pids:
            # One may have left by itself; the first death takes the others down before we get to them.
            with contextlib.suppress(ProcessLookupError):
                self.cluster.kill(pid, signal.SIGKILL)
                killed += 1
        if killed:
            self.cluster.wait_recovered(before)

    def kill_executor(self) -> None:
        pids = self.pids("pushy executor")
        if pids:
            self.crash(self.random.sample(pids, self.random.randint(1, len(pids))))

    def kill_backend(self) -> None:
        self.cluster.crash()

    def kill_database_worker(self) -> None:
        pids = self.pids(self.random.choice(["pushy launcher", "pushy scheduler"]))
        if pids:
            self.crash(pids)

    def terminate(self) -> None:
        self.strike("pg_terminate_backend", self.random.choice(["pushy %", "pushy executor"]))

    def cancel(self) -> None:
        self.strike("pg_cancel_backend", "pushy %")

    def strike(self, call: str, kind: str) -> None:
        with self.cluster.connect() as session:
            session.execute(f"SELECT {call}(pid) FROM pg_stat_activity WHERE backend_type LIKE %s", (kind,))

    def stop(self) -> None:
        self.cluster.restart(self.random.choice(["fast", "immediate"]))


def test_random_faults_lose_no_job_and_repeat_no_effect(make_cluster, record_property):
    seed = int(os.environ.get("PUSHY_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"PUSHY_TEST_SEED={seed}")
    # A charge that was only in memory when the server crashed would be seen to fall.
    chaos = Chaos(make_cluster({"pushy.synchronous_commit": "on"}), seed)
    done = []
    for _ in range(FAULTS):
        done.append(chaos.step())
    print(*done)
    chaos.ledger.assert_balanced(deadline=120)
    chaos.look()
    record_property("counted", f"seed {seed}: {FAULTS} faults, {len(chaos.ledger.enqueued):,} jobs, {sum(chaos.charged.values()):,} attempts")
