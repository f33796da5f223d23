"""pg-boss (npm): batches, fetched in bursts while they come full."""

from .. import BUILT
from .worker_process import WorkerProcess

BATCH_SIZE = 1000


class PgBoss(WorkerProcess):
    key = "pg_boss"
    source = "node"
    name = "pg-boss"
    path = f"batchSize {BATCH_SIZE:,}, burstWhenBatchFull, localConcurrency 2"
    jobs = {"noop": 20_000, "one_row": 10_000}
    nothing_left = "NOT EXISTS (SELECT FROM pgboss.job WHERE state < 'completed')"

    def command(self) -> list:
        return [BUILT / "node" / "node", BUILT / "node" / "pg_boss.mjs"]

    def options(self, handler: str) -> dict:
        return {"batchSize": BATCH_SIZE}
