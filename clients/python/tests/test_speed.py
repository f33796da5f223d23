"""That it is quick, within wide bounds: what tells a statement for each job from batches."""

import time

import pytest
from server import Database, eventually

import pushy


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("prefetch", [0, 200])
def test_2000_jobs_in_few_statements(db: Database, start, kind: str, prefetch: int) -> None:
    db.queue()
    db.enqueue_many(2000)
    statements = {"claimed": 0, "settled": 0}

    def count(event: str, queue: str, seconds: float) -> None:
        if event in statements:
            statements[event] += 1

    worker = pushy.Worker(db.conninfo, metrics=count)
    if kind == "async":

        @worker.handler("q", concurrency=20, prefetch=prefetch)
        async def handle(job: pushy.Job) -> None:
            pass

    else:

        @worker.handler("q", concurrency=20, prefetch=prefetch)
        def handle_sync(job: pushy.Job) -> None:
            pass

    began = time.monotonic()
    start(worker)
    eventually(lambda: db.count("completed") == 2000, "2,000 jobs")
    took = time.monotonic() - began
    print(f"{kind}, prefetch {prefetch}: {2000 / took:,.0f} jobs/s, {statements}")
    assert statements["claimed"] <= 700
    assert statements["settled"] <= 700


def test_through_pgbouncer_in_transaction_mode(db: Database, start) -> None:
    db.queue()
    db.enqueue_many(500)
    with db.server.pgbouncer(db.name) as conninfo:
        workers = [pushy.Worker(conninfo) for _ in range(3)]
        for worker in workers:

            @worker.handler("q", concurrency=10)
            async def handle(job: pushy.Job) -> None:
                job.log("seen")

        threads = [start(worker) for worker in workers]
        eventually(lambda: db.count("completed") == 500, "500 jobs")
        db.reaches(db.enqueue(), "completed")
        assert db.value("SELECT count(*) FROM pushy.job_logs") == 501
        began = time.monotonic()
        for worker, thread in zip(workers, threads, strict=True):
            worker.stop()
            thread.join()
        # Those that waited in the server were woken there.
        assert time.monotonic() - began < 3
