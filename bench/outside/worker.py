"""Pushy's worker in Python, as the bench asks peers: `work OPTIONS` (bench/peers/python/protocol.py)."""

import asyncio
import json
import sys
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "clients" / "python" / "src"), str(ROOT / "bench" / "peers" / "python")]

import pushy  # noqa: E402
from protocol import Count, say, told  # noqa: E402

# As procrastinate's; and as many more in its hands as pgqueuer and graphile-worker fetch at once.
CONCURRENCY, PREFETCH = 20, 480


async def main(_: str, options: str) -> None:
    count = Count(json.loads(options)["jobs"])
    worker = pushy.Worker()

    @worker.handler("noop", concurrency=CONCURRENCY, prefetch=PREFETCH)
    async def noop(job: pushy.Job) -> None:
        count.begin()
        count.end()

    say("ready")
    await told("go")
    running = asyncio.create_task(worker.run_async())
    say("running")
    await told("stop")
    worker.stop()
    await running


uvloop.run(main(*sys.argv[1:]))
