"""Memory of one executor (RSS minus shared) while 5,000,000 jobs go through it."""

from ..bars import Bar
from ..progress import progress
from .processes import workers
from .ugly import pushy_in

TITLE = "Memory of an executor"


def measure(servers, sizes) -> dict:
    step = sizes.millions(500_000)
    seen = []
    with servers.server(**{"pushy.max_executors": 1, "pushy.executor_linger": "1h"}) as cluster:
        pushy = pushy_in(cluster, "memory")
        pids = set()
        for number in range(1, 11):
            pushy.drain("noop", step)
            executor = next(worker for worker in workers(cluster) if "executor" in worker.kind)
            pids.add(executor.pid)
            seen.append([number * step, executor.own_kilobytes()])
            progress(f"  {seen[-1][0]:,} jobs: {seen[-1][1]:,} kB")
    if len(pids) != 1:
        raise RuntimeError("not one executor ran all jobs")
    return {"seen": seen}


def tables(data: dict) -> list[str]:
    return ["RSS minus shared, of the one executor that ran them all.", "", "| jobs | kB |", "| ---: | ---: |",
            *(f"| {jobs:,} | {kilobytes:,} |" for jobs, kilobytes in data["seen"])]


def bars(data: dict) -> list[Bar]:
    (_, before), (first, _), (last, after) = data["seen"][1], data["seen"][1], data["seen"][-1]
    return [Bar(f"memory of an executor, from {first:,} to {last:,} jobs", "grows under 1 MB", f"{after - before:+,} kB", after - before < 1024)]
