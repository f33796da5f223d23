"""pgqueuer: `install`, `fill N HANDLER`, or `work OPTIONS`. asyncpg, uvloop, large batches."""

import asyncio
import json
import sys

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from protocol import INSERT, Count, say, told

BATCH_SIZE = 500


async def main(verb: str, *rest: str) -> None:
    async with asyncpg.create_pool(min_size=2, max_size=12) as pool:
        if verb == "install":
            await Queries.from_asyncpg_pool(pool).install()
        elif verb == "fill":
            jobs, handler = int(rest[0]), rest[1]
            queries = Queries.from_asyncpg_pool(pool)
            for first in range(1, jobs + 1, 5000):
                numbers = range(first, min(first + 5000, jobs + 1))
                await queries.enqueue([handler] * len(numbers), [json.dumps({"n": n}).encode() for n in numbers],
                                      [0] * len(numbers))
        else:
            await work(pool, json.loads(rest[0])["jobs"])


async def work(pool: asyncpg.Pool, jobs: int) -> None:
    count = Count(jobs)
    queuer = PgQueuer.from_asyncpg_pool(pool)

    @queuer.entrypoint("noop")
    async def noop(job: Job) -> None:
        count.begin()
        count.end()

    @queuer.entrypoint("one_row")
    async def one_row(job: Job) -> None:
        count.begin()
        await pool.execute(INSERT, json.loads(job.payload)["n"])
        count.end()

    say("ready")
    await told("go")
    worker = asyncio.create_task(queuer.run(batch_size=BATCH_SIZE))
    say("running")
    await told("stop")
    queuer.shutdown.set()
    await asyncio.wait_for(worker, 10)


uvloop.run(main(*sys.argv[1:]))
