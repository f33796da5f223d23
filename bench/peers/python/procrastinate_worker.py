"""procrastinate: `install`, `fill N HANDLER`, or `work OPTIONS`. Several jobs at once, finished ones deleted, async tasks."""

import asyncio
import json
import sys

import psycopg_pool
import uvloop
from procrastinate import App, PsycopgConnector

from protocol import Count, say, told

CONCURRENCY = 20


async def main(verb: str, *rest: str) -> None:
    app = App(connector=PsycopgConnector(min_size=CONCURRENCY, max_size=CONCURRENCY + 2))
    count = Count(0)
    pool = psycopg_pool.AsyncConnectionPool(min_size=10, max_size=10, open=False, kwargs={"autocommit": True})

    @app.task(name="noop", queue="bench")
    async def noop(n: int) -> None:
        count.begin()
        count.end()

    @app.task(name="one_row", queue="bench")
    async def one_row(n: int) -> None:
        count.begin()
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO written (n) VALUES (%s)", (n,), prepare=True)
        count.end()

    async with app.open_async():
        if verb == "install":
            await app.schema_manager.apply_schema_async()
        elif verb == "fill":
            jobs, task = int(rest[0]), app.tasks[rest[1]]
            for first in range(1, jobs + 1, 1000):
                await task.batch_defer_async(*({"n": n} for n in range(first, min(first + 1000, jobs + 1))))
        else:
            count.jobs = json.loads(rest[0])["jobs"]
            await pool.open()
            say("ready")
            await told("go")
            worker = asyncio.create_task(app.run_worker_async(
                queues=["bench"], concurrency=CONCURRENCY, delete_jobs="always", install_signal_handlers=False))
            say("running")
            await told("stop")
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
            await pool.close()


uvloop.run(main(*sys.argv[1:]))
