"""What a test asks pytest for.

The session (its first process) makes one scratch folder, one private PostgreSQL and one template; each
pytest-xdist worker starts one server of its own from it, and each test gets a database of its own there.
"""

import itertools
import os
import signal
from pathlib import Path
from typing import Callable, Iterator

import pytest

from .cluster import Cluster
from .database import Database
from .installation import Installation
from .scratch import Scratch

SCRATCH = "PUSHY_TEST_SCRATCH"


# -- the session -------------------------------------------------------------------------------------------------

def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    signal.signal(signal.SIGTERM, _interrupt)
    scratch = Scratch.create()
    config.stash[_scratch_key] = scratch
    os.environ[SCRATCH] = str(scratch.path)
    try:
        installation = Installation.of_build(scratch.path / "pg", "dev")
        Cluster(scratch.path / "t", installation).create()
    except BaseException:
        scratch.remove()
        raise


def pytest_unconfigure(config: pytest.Config) -> None:
    scratch = config.stash.get(_scratch_key, None)
    if scratch is not None:
        scratch.remove()


_scratch_key = pytest.StashKey[Scratch]()


def _interrupt(_signal, _frame) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def scratch() -> Path:
    return Path(os.environ[SCRATCH])


@pytest.fixture(scope="session")
def installation(scratch: Path) -> Installation:
    """PostgreSQL with the extension as it was built."""
    return Installation.found(scratch / "pg")


@pytest.fixture(scope="session")
def new_cluster(scratch: Path, installation: Installation) -> Iterator[Callable[..., Cluster]]:
    """Makes and starts servers that live until the session ends; most tests want `cluster` or `make_cluster`."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw").removeprefix("gw")
    numbers = itertools.count(1)

    def make(settings: dict | None = None, *, fresh: bool = False, start: bool = True) -> Cluster:
        cluster = Cluster(scratch / f"c{worker}.{next(numbers)}", installation, settings)
        cluster.create(None if fresh else scratch / "t" / "data")
        return cluster.start() if start else cluster
    yield make


@pytest.fixture(scope="session")
def shared_cluster(new_cluster: Callable[..., Cluster]) -> Iterator[Cluster]:
    """The server of this pytest worker. A test must leave it as it was: no restart, no crash."""
    cluster = new_cluster()
    yield cluster
    log = cluster.log.since()
    cluster.remove()
    crashes = [line for line in log.splitlines() if "was terminated by signal" in line or "PANIC" in line or "TRAP" in line]
    assert crashes == [], f"the shared server crashed:\n{log[-20_000:]}"


# -- a test ------------------------------------------------------------------------------------------------------

@pytest.fixture
def db(shared_cluster: Cluster, role: Callable[..., str]) -> Iterator[Database]:
    """A database of this test's own, with the extension, in the shared server."""
    database = shared_cluster.database()
    yield database
    database.drop()


@pytest.fixture
def role(shared_cluster: Cluster) -> Iterator[Callable[..., str]]:
    """Makes roles with names of their own: `role()`, `role("NOLOGIN")`, `role("IN ROLE " + other)`."""
    made: list[str] = []

    def make(options: str = "") -> str:
        name = f"role_{next(_role_numbers)}"
        with shared_cluster.connect() as admin:
            admin.execute(f"CREATE ROLE {name} LOGIN {options}")
        made.append(name)
        return name
    yield make
    with shared_cluster.connect() as admin:
        for name in reversed(made):
            admin.execute(f"DROP ROLE IF EXISTS {name}")


_role_numbers = itertools.count(1)


@pytest.fixture
def make_cluster(new_cluster: Callable[..., Cluster]) -> Iterator[Callable[..., Cluster]]:
    """Makes servers of this test's own: `make_cluster({"pushy.max_executors": 1})`; `fresh=True` runs initdb."""
    made: list[Cluster] = []

    def make(settings: dict | None = None, **options) -> Cluster:
        made.append(new_cluster(settings, **options))
        return made[-1]
    yield make
    for cluster in made:
        cluster.remove()


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A server of this test's own, to be crashed, stopped and promoted at will."""
    return make_cluster()
