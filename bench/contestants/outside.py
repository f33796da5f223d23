"""Pushy's queue without a handler, done by a worker outside: one process, as the peers have."""

from harness.cluster import Cluster
from harness.database import Database

from .. import BENCH, BUILT
from .contestant import sql
from .worker_process import WorkerProcess

FILL = "SELECT count(*) FROM pushy.enqueue_many(%s, (SELECT array_agg(jsonb_build_object('n', n)) FROM generate_series(1, %s) n))"


class Outside(WorkerProcess):
    nothing_left = "NOT EXISTS (SELECT FROM pushy_internal.live_job)"

    def prepare(self, cluster: Cluster) -> None:
        """Databases with the extension are made anew: a copy of one would wait to be resumed."""
        self.cluster = cluster

    def database(self) -> Database:
        db = self.cluster.database(f"{self.key}_run")
        db.sql(sql("schema.sql") + "SELECT pushy.queue_register('noop'), pushy.queue_register('latency')")
        return db

    def fill(self, db: Database, handler: str, jobs: int) -> None:
        db.value(FILL, handler, jobs)


class OutsidePython(Outside):
    key = "outside_python"
    source = "python"
    name = "Pushy, Python worker"
    path = "async handlers, concurrency 20, prefetch 480, uvloop"
    jobs = {"noop": 40_000}

    def command(self) -> list:
        return [BUILT / "python" / "bin" / "python", BENCH / "outside" / "worker.py"]


class OutsideNode(Outside):
    key = "outside_node"
    source = "typescript"
    name = "Pushy, Node.js worker"
    path = "concurrency 24, prefetch 476"
    jobs = {"noop": 60_000}

    def command(self) -> list:
        return [BUILT / "node" / "node", BENCH / "outside" / "worker.mjs"]
