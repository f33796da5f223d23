"""One run: clients and faults for so long, then the account."""

import random
import sys
import time
from typing import Callable

from harness.cluster import Cluster

from .clients import Client
from .faults import Faults
from .world import SETTINGS, World

CLIENTS = 6
PAUSE = 1.5  # seconds between faults, at most


def torture(make: Callable[..., Cluster], seed: int, seconds: float, show: Callable[[str], None] = lambda line: None) -> list[str]:
    """What is wrong in the end; empty where all ledgers balance. `make` makes a server with settings."""
    world = World(make(SETTINGS))
    try:
        clients = [Client(world, f"{seed} client {number}") for number in range(CLIENTS)]
        faults, pauses = Faults(world, f"{seed} faults"), random.Random(f"{seed} pauses")
        for client in clients:
            client.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and all(client.is_alive() for client in clients):
            time.sleep(pauses.random() * PAUSE)
            show(f"{end - time.monotonic():.0f} s left, {len(world.acknowledged):,} jobs acknowledged, last fault: {faults.strike()}")
        world.stopping.set()
        for client in clients:
            client.join(60)
        wrong = [f"a client met {client.error!r}" for client in clients if client.error is not None]
        world.settle(deadline=300)
        wrong += world.imbalances()
        show(f"seed {seed}: {world.value('SELECT count(*) FROM owed'):,} jobs owed, {world.value('SELECT count(*) FROM effect'):,} effects, "
             f"{world.value('SELECT count(*) FROM cancelled'):,} cancelled, {world.value('SELECT sum(v) FROM watched'):,} watched changes, "
             f"{world.value('SELECT count(*) FROM seen_by_reader'):,} read, {world.value('SELECT sum(v) FROM item'):,} changes with a key; "
             + ", ".join(f"{name} {count}" for name, count in sorted(world.counts.items())))
        return wrong
    finally:
        world.stopping.set()
        world.primary.remove()


def complain(wrong: list[str], seed: int) -> None:
    for line in wrong:
        print(f"WRONG (seed {seed}): {line}", file=sys.stderr)
