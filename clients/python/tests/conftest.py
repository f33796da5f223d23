import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from programs import Program
from server import Database, Server

import pushy
from pushy.link import Link


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.remove()


@pytest.fixture
def db(server: Server) -> Iterator[Database]:
    with server.database() as database:
        yield database


@pytest.fixture
def start() -> Iterator[Callable[[pushy.Worker], threading.Thread]]:
    """Runs workers in threads, and stops them at the end."""
    started: list[tuple[pushy.Worker, threading.Thread]] = []

    def start(worker: pushy.Worker) -> threading.Thread:
        thread = threading.Thread(target=worker_thread, args=(worker,), daemon=True)
        thread.start()
        started.append((worker, thread))
        return thread

    yield start
    for worker, thread in started:
        worker.stop()
        thread.join(15)
        assert not thread.is_alive(), "a worker did not stop"


def worker_thread(worker: pushy.Worker) -> None:
    import asyncio

    asyncio.run(worker.run_async())


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """The jobs that each call has claimed, by the name that it gave."""
    real, claimed = Link.fetch, {}

    async def fetch(self: Link, statement: str, parameters: tuple[Any, ...], *rest: Any) -> list[tuple[Any, ...]]:
        rows = await real(self, statement, parameters, *rest)
        if "job_claim(" in statement and rows:
            claimed.setdefault(parameters[-1], []).extend(row[0] for row in rows)
        return rows

    monkeypatch.setattr(Link, "fetch", fetch)
    return claimed


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    """Starts a worker as a process of its own, from tests/programs.py; killed at the end."""
    started: list[Program] = []

    def start(name: str, conninfo: str, *arguments: str) -> Program:
        started.append(Program(name, conninfo, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.kill()
