"""Workers that run as processes of their own: python programs.py NAME CONNINFO. Each prints a line for each job that it starts."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import Any

import psycopg

import pushy

PATIENCE = float(os.environ.get("PUSHY_TEST_PATIENCE", "1"))


def worker(conninfo: str, **options: Any) -> pushy.Worker:
    return pushy.Worker(conninfo, **options)


def say(*words: object) -> None:
    # In one piece, because several threads say something.
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def noop(conninfo: str, concurrency: str = "10", prefetch: str = "0") -> pushy.Worker:
    this = worker(conninfo)

    @this.handler("q", concurrency=int(concurrency), prefetch=int(prefetch))
    async def handle(job: pushy.Job) -> None:
        pass

    return this


def sleeper(conninfo: str, seconds: str = "60", grace: str = "25") -> pushy.Worker:
    this = worker(conninfo, grace=float(grace))

    @this.handler("q", concurrency=5)
    async def handle(job: pushy.Job) -> None:
        say("started", job.id)
        try:
            await asyncio.sleep(float(seconds))
        except asyncio.CancelledError:
            say("cancelled", job.id, job.cancel_reason)
            raise

    return this


def stubborn(conninfo: str, grace: str) -> pushy.Worker:
    """A sync handler that heeds nothing."""
    this = worker(conninfo, grace=float(grace))

    @this.handler("q", concurrency=5)
    def handle(job: pushy.Job) -> None:
        say("started", job.id)
        time.sleep(60)

    return this


def effect(conninfo: str, concurrency: str = "1") -> pushy.Worker:
    """Writes to a table and completes in the same transaction."""
    this = worker(conninfo)

    @this.handler("q", concurrency=int(concurrency))
    def handle(job: pushy.Job) -> None:
        with psycopg.connect(conninfo) as connection:
            say("started", job.id, job.attempt)
            if job.attempt == 1 and job.args.get("slow"):
                os.kill(os.getpid(), signal.SIGSTOP)
            connection.execute("INSERT INTO effects VALUES (%s)", (job.id,))
            job.complete(connection, {"attempt": job.attempt})
        say("ended", job.id)

    return this


class Program:
    """A process that runs one of the above."""

    def __init__(self, name: str, conninfo: str, *arguments: str) -> None:
        command = [sys.executable, __file__, name, conninfo, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, within: float) -> int:
        return self.process.wait(within * PATIENCE)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:]).run()
