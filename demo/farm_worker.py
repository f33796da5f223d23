"""A worker of the demo's farm: farm_worker.py NAME, the database as libpq's environment says."""

import asyncio
import random
import sys

import psycopg
import pushy

name = sys.argv[1]
worker = pushy.Worker()


@worker.handler("pictures", concurrency=4)
async def make(job: pushy.Job) -> None:
    async with await psycopg.AsyncConnection.connect() as connection:  # its transaction commits at the end of the block
        await asyncio.sleep(random.uniform(0.02, 0.08))  # where a program would draw
        await connection.execute("INSERT INTO made (job, worker, attempt) VALUES (%s, %s, %s)", (job.id, name, job.attempt))
        await job.complete(connection)


worker.run()
