"""What a contestant is: it can be asked to drain a queue filled with jobs, and says how fast it was."""

from pathlib import Path
from typing import Callable

from harness.cluster import Cluster
from harness.database import Database

from .. import BENCH
from ..progress import check

HANDLERS = {"noop": "a no-op", "one_row": "one row written"}


class Contestant:
    name: str                  # in tables
    path: str                  # which way of working it was measured
    jobs: dict[str, int]       # by handler: enough for a second or two

    def missing(self) -> str | None:
        """Why it could not be installed."""
        return None

    def prepare(self, cluster: Cluster) -> None:
        """Once for a server."""
        raise NotImplementedError

    def drain(self, handler: str, jobs: int, synchronous_commit: bool) -> float:
        """Fills, drains, and answers the jobs per second."""
        raise NotImplementedError

    # -- a drain in its parts, for sections that do something meanwhile --

    def database(self) -> Database:
        """A database to drain in."""
        raise NotImplementedError

    def filled(self, db: Database, handler: str, jobs: int) -> Callable[[], float]:
        """Fills it; what comes back drains it, and answers the seconds."""
        raise NotImplementedError

    def done_with(self, db: Database) -> None:
        """Cleans up after it."""

    @staticmethod
    def verify(db: Database, handler: str, jobs: int) -> None:
        if handler == "one_row":
            check(db.value("SELECT count(*) = %s AND count(DISTINCT n) = %s FROM written WHERE n > 0", jobs, jobs),
                  f"a job was lost or ran twice in {db.name}")


def sql(name: str) -> str:
    return Path(BENCH / "contestants" / name).read_text()


def on_off(value: bool) -> str:
    return "on" if value else "off"
