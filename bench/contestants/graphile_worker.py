"""graphile-worker (npm), with the settings of its performance page, with and without its local queue."""

from harness.database import Database

from .. import BUILT
from .worker_process import WorkerProcess

ADD_JOBS = """
SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
    SELECT (%s, json_build_object('n', n), NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec
      FROM generate_series(1, %s) n))
"""


class GraphileWorker(WorkerProcess):
    source = "node"
    nothing_left = "NOT EXISTS (SELECT FROM graphile_worker._private_jobs)"

    def __init__(self, local_queue: bool):
        self.local_queue = local_queue
        self.key = f"graphile_{'local' if local_queue else 'plain'}"
        self.name = f"graphile-worker, {'local queue' if local_queue else 'no local queue'}"
        self.path = ("localQueue 500, completeJobBatchDelay 0" if local_queue else "a fetch and a completion per job") + ", concurrentJobs 24"
        self.jobs = {"noop": 25_000, "one_row": 15_000} if local_queue else {"noop": 4_000, "one_row": 3_000}

    def command(self) -> list:
        return [BUILT / "node" / "node", BUILT / "node" / "graphile_worker.mjs"]

    def options(self, handler: str) -> dict:
        return {"localQueue": self.local_queue}

    def fill(self, db: Database, handler: str, jobs: int) -> None:
        db.value(ADD_JOBS, handler, jobs)
