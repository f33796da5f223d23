"""pgqueuer (PyPI)."""

from .. import BENCH, BUILT
from .worker_process import WorkerProcess


class PgQueuer(WorkerProcess):
    key = "pgqueuer"
    source = "python"
    name = "pgqueuer"
    path = "asyncpg pool, batch_size 500, uvloop"
    jobs = {"noop": 10_000, "one_row": 5_000}
    nothing_left = "NOT EXISTS (SELECT FROM pgqueuer)"

    def command(self) -> list:
        return [BUILT / "python" / "bin" / "python", BENCH / "peers" / "python" / "pgqueuer_worker.py"]
