"""procrastinate (PyPI)."""

from .. import BENCH, BUILT
from .worker_process import WorkerProcess


class Procrastinate(WorkerProcess):
    key = "procrastinate"
    source = "python"
    name = "procrastinate"
    path = "async tasks, concurrency 20, delete_jobs always, uvloop"
    jobs = {"noop": 600, "one_row": 400}
    nothing_left = "NOT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))"

    def command(self) -> list:
        return [BUILT / "python" / "bin" / "python", BENCH / "peers" / "python" / "procrastinate_worker.py"]
