"""The limit: the same claim, call and delete in one hand-written loop inside the server, 2 sessions. See prototype.sql."""

import threading
import time

from harness.cluster import Cluster
from harness.database import Database

from ..progress import check
from .contestant import Contestant, on_off, sql
from .pushy import HANDLERS

SESSIONS = 2


class Prototype(Contestant):
    def __init__(self, batch: int):
        self.batch = batch
        self.name = f"hand-written loop in the server, {batch} a commit" if batch > 1 else "hand-written loop in the server, a commit per job"
        self.path = f"plpgsql, {SESSIONS} sessions, a subtransaction per job; no wake-up, retries, history or statistics"
        self.jobs = {"noop": 200_000, "one_row": 150_000} if batch > 1 else {"noop": 20_000, "one_row": 15_000}

    def prepare(self, cluster: Cluster) -> None:
        self.db = cluster.database(f"prototype_{self.batch}", extension=False)
        self.db.sql(sql("schema.sql") + HANDLERS)
        self.db.sql(sql("prototype.sql"))

    def drain(self, handler: str, jobs: int, synchronous_commit: bool = False) -> float:
        self.db.sql("TRUNCATE written")
        took = self.filled(self.db, handler, jobs, synchronous_commit)()
        self.verify(self.db, handler, jobs)
        return jobs / took

    def database(self) -> Database:
        return self.db

    def filled(self, db: Database, handler: str, jobs: int, synchronous_commit: bool = False):
        db.sql("TRUNCATE prototype_job")
        db.sql("INSERT INTO prototype_job SELECT n, jsonb_build_object('n', n) FROM generate_series(1, %s) n", jobs)
        db.sql("CHECKPOINT")
        return lambda: self.run(handler, synchronous_commit)

    def run(self, handler: str, synchronous_commit: bool) -> float:
        sessions = [self.db.connect() for _ in range(SESSIONS)]
        for session in sessions:
            session.execute(f"SET synchronous_commit = {on_off(synchronous_commit)}")
        threads = [threading.Thread(target=session.execute, args=("CALL prototype_drain(%s::regproc, %s)", (handler, self.batch)))
                   for session in sessions]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        for session in sessions:
            session.close()
        check(self.db.value("SELECT NOT EXISTS (SELECT FROM prototype_job)"), "the prototype left jobs")
        return took
