"""The plain loop that people write: FOR UPDATE SKIP LOCKED, do, delete, commit; a Rust client over the local socket."""

from harness.database import Database

from .. import BUILT
from ..server import environment
from .program import Program
from .worker_process import WorkerProcess


class HandLoop(WorkerProcess):
    source = "client"
    nothing_left = "NOT EXISTS (SELECT FROM plain_job)"

    def __init__(self, batch: int):
        self.batch, self.sessions = batch, 4
        self.key = f"plain_loop_{batch}"
        self.name = f"plain SKIP LOCKED loop, {batch} a commit" if batch > 1 else "plain SKIP LOCKED loop, a commit per job"
        self.path = f"Rust client, {self.sessions} sessions, prepared, rows written pipelined"
        self.jobs = {"noop": 100_000, "one_row": 50_000} if batch > 1 else {"noop": 8_000, "one_row": 6_000}

    def install(self, db: Database) -> None:
        db.sql("CREATE TABLE plain_job (id bigint PRIMARY KEY, args jsonb NOT NULL)")

    def fill(self, db: Database, handler: str, jobs: int) -> None:
        db.sql("INSERT INTO plain_job SELECT n, jsonb_build_object('n', n) FROM generate_series(1, %s) n", jobs)

    def program(self, db: Database, handler: str, jobs: int) -> Program:
        return Program([BUILT / "client" / "release" / "pushy-bench-client", "drain", self.sessions, self.batch, handler],
                       environment(self.cluster, db.name))
