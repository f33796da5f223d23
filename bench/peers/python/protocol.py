"""What the bench says to a worker program on stdin, and hears on stdout: see bench/contestants/worker_process.py."""

import asyncio
import sys


def say(text: str) -> None:
    print(text, flush=True)


async def told(word: str) -> None:
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    if line.strip() not in (word, ""):
        raise RuntimeError(f"expected {word}, got {line!r}")


class Count:
    """Counts the jobs handled; tells the first and the last."""

    def __init__(self, jobs: int):
        self.jobs, self.handled, self.began = jobs, 0, False

    def begin(self) -> None:
        if not self.began:
            self.began = True
            say("began")

    def end(self) -> None:
        self.handled += 1
        if self.handled == self.jobs:
            say("handled")


INSERT = "INSERT INTO written (n) VALUES ($1)"
