"""Pushy itself. The queue is paused and filled; the clock runs from resume until `CALL pushy.jobs_wait` returns."""

import time

from harness.cluster import Cluster
from harness.database import Database

from ..progress import check
from .contestant import Contestant, sql

HANDLERS = """
CREATE FUNCTION noop(args jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN END$$;
CREATE FUNCTION one_row(args jsonb) RETURNS void LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO written (n) VALUES ((args->>'n')::int); END$$;
"""


class Pushy(Contestant):
    def __init__(self, batch: bool, kept: bool = True):
        self.batch = batch
        self.kept = kept
        self.name = ("Pushy, batched" if batch else "Pushy, a commit per job") + ("" if kept else ", done jobs not kept")
        self.path = f"2 executors, batch => {str(batch).lower()}" + ("" if kept else ", keep_completed => '0'")
        self.jobs = {"noop": 400_000 if kept else 800_000, "one_row": 400_000}

    def prepare(self, cluster: Cluster, database: str = "pushy_drain") -> "Pushy":
        self.cluster = cluster
        with cluster.connect() as session:
            there = session.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone()
        if there:
            self.db = Database(cluster, database)
        else:
            self.db = cluster.database(database)
            self.db.sql(sql("schema.sql") + HANDLERS)
        for handler in ("noop", "one_row"):
            self.db.sql("SELECT pushy.queue_register(%s, %s, batch => %s, keep_completed => %s::interval)",
                        self.queue(handler), f"{handler}(jsonb)", self.batch, "1 hour" if self.kept else "0")
        return self

    def queue(self, handler: str) -> str:
        return f"{handler}_{'batched' if self.batch else 'single'}{'' if self.kept else '_unkept'}"

    def drain(self, handler: str, jobs: int, synchronous_commit: bool = False) -> float:
        check(self.db.value("SELECT current_setting('pushy.synchronous_commit')::bool = %s", synchronous_commit),
              "pushy.synchronous_commit is not as this round wants it")
        self.db.sql("TRUNCATE written")
        took = self.filled(self.db, handler, jobs)()
        self.verify(self.db, handler, jobs)
        return jobs / took

    def database(self) -> Database:
        return self.db

    def filled(self, db: Database, handler: str, jobs: int):
        self.fill(handler, jobs)
        return lambda: self.run(handler)

    def fill(self, handler: str, jobs: int) -> None:
        self.db.sql("SELECT pushy.queue_pause(%s)", self.queue(handler))
        for first in range(1, jobs + 1, 100_000):
            self.db.value("SELECT count(*) FROM pushy.enqueue_many(%s, (SELECT array_agg(jsonb_build_object('n', n)) "
                          "FROM generate_series(%s::int, %s::int) n))", self.queue(handler), first, min(first + 99_999, jobs))
        self.db.sql("CHECKPOINT")

    def run(self, handler: str) -> float:
        """Seconds."""
        queue = self.queue(handler)
        began = time.perf_counter()
        self.db.sql("SELECT pushy.queue_resume(%s)", queue)
        is_empty = self.db.value("CALL pushy.jobs_wait(%s, '10 minutes')", queue)
        took = time.perf_counter() - began
        check(is_empty, "jobs are left")
        check(self.db.value("SELECT count(*) = 0 FROM pushy.failures WHERE queue = %s", queue), "jobs failed")
        return took
