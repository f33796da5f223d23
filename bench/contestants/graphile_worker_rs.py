"""graphile_worker (crates.io), with the settings of its own benchmark."""

from harness.database import Database

from .. import BUILT
from .graphile_worker import ADD_JOBS
from .worker_process import WorkerProcess


class GraphileWorkerRs(WorkerProcess):
    key = "graphile_rs"
    source = "rust"
    name = "graphile_worker (Rust)"
    path = "local queue 5,000, completions batched for 5 ms, concurrency 500"
    jobs = {"noop": 50_000, "one_row": 20_000}
    nothing_left = "NOT EXISTS (SELECT FROM graphile_worker._private_jobs)"

    def command(self) -> list:
        return [BUILT / "rust" / "release" / "pushy-bench-graphile-worker-rs"]

    def fill(self, db: Database, handler: str, jobs: int) -> None:
        db.value(ADD_JOBS, handler, jobs)
