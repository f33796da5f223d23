"""PgQ (Debian's postgresql-15-pgq3) with its own consumer (python3-pgq). Events in ticks of 10,000, all there before the
clock runs; a batch is one transaction, and an event that fails stops it or is put off one by one."""

from harness.database import Database

from .. import BENCH, BUILT
from .worker_process import WorkerProcess

TICK = 10_000


class PgQ(WorkerProcess):
    key = "pgq"
    source = "debian"
    name = "PgQ"
    path = f"ticks of {TICK:,} events, its Python consumer, one transaction per tick, pgq_lazy_fetch 1,000"
    jobs = {"noop": 200_000, "one_row": 30_000}
    nothing_left = ("(SELECT sub_batch IS NULL AND sub_last_tick = (SELECT max(tick_id) FROM pgq.tick) FROM pgq.subscription)")

    def command(self) -> list:
        # The packages are unpacked beside the driver that they import.
        return ["env", f"PYTHONPATH={BUILT / 'debian' / 'usr' / 'lib' / 'python3' / 'dist-packages'}",
                BUILT / "python" / "bin" / "python", BENCH / "peers" / "python" / "pgq_worker.py"]

    def options(self, handler: str) -> dict:
        return {"fetch": 1000}

    def missing(self) -> str | None:
        return super().missing() or (None if (BUILT / "python.done").exists() else "its driver, psycopg2, is not installed")

    def install(self, db: Database) -> None:
        db.sql("CREATE EXTENSION pgq")

    def fill(self, db: Database, handler: str, jobs: int) -> None:
        db.sql("SELECT pgq.create_queue('bench'), pgq.register_consumer('bench', 'bench')")
        for first in range(1, jobs + 1, TICK):
            db.value("SELECT count(pgq.insert_event('bench', %s, n::text)) FROM generate_series(%s::int, %s::int) n",
                     handler, first, min(first + TICK - 1, jobs))
            db.sql("SELECT pgq.force_tick('bench'); SELECT pgq.ticker('bench')")
