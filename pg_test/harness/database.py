"""One database of a temporary server: queries, waiting, listening."""

import json
import re
import time
from collections import deque
from typing import Any, Callable

import psycopg
from psycopg.rows import dict_row

from .waiting import DEADLINE, PATIENCE, wait_for


FINISHED = ("completed", "discarded", "cancelled")


class NoRow:
    """What is seen of one value while there is no row."""

    def __repr__(self) -> str:
        return "no row"


NO_ROW = NoRow()


class Database:
    """Queries run as a superuser in a session of their own, each committed at once.

    Parameters are psycopg's (`%s`); without parameters a `%` is just a `%`.
    """

    def __init__(self, cluster, name: str):
        self.cluster, self.name = cluster, name
        self._connections: list[psycopg.Connection] = []
        self._main: psycopg.Connection | None = None
        self._epoch = -1

    # -- sessions --------------------------------------------------------------------------------------------

    def connect(self, user: str = "postgres", **options) -> psycopg.Connection:
        """Another session (autocommit unless told otherwise); closed when the test ends."""
        connection = self.cluster.connect(self.name, user, **options)
        self._connections.append(connection)
        return connection

    @property
    def main(self) -> psycopg.Connection:
        """The session that queries run in; a new one after a restart or a crash."""
        if self._main is None or self._main.closed or self._epoch != self.cluster.epoch:
            self._main, self._epoch = self.connect(), self.cluster.epoch
        return self._main

    def dsn(self, user: str = "postgres") -> str:
        return self.cluster.dsn(self.name, user)

    def of(self, cluster) -> "Database":
        """The database of the same name in another server (a standby, a restored copy)."""
        return Database(cluster, self.name)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._main = None

    def drop(self) -> None:
        for gid, in self.rows("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
            self.sql(f"ROLLBACK PREPARED '{gid}'")
        self.close()
        with self.cluster.connect() as admin:
            admin.execute("SET statement_timeout = '60s'")
            admin.execute(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')

    # -- queries ---------------------------------------------------------------------------------------------

    def sql(self, statements: str, *params) -> None:
        """Runs statements and forgets what they return."""
        self.main.execute(statements, params or None)

    def rows(self, query: str, *params) -> list[tuple]:
        return self.main.execute(query, params or None).fetchall()

    def row(self, query: str, *params) -> dict[str, Any]:
        """The one row of a query, by column name."""
        rows = self.main.cursor(row_factory=dict_row).execute(query, params or None).fetchall()
        assert len(rows) == 1, f"{len(rows)} rows, not one: {query}\n{rows[:5]}"
        return rows[0]

    def value(self, query: str, *params) -> Any:
        """The one value of a query."""
        rows = self.rows(query, *params)
        assert len(rows) == 1 and len(rows[0]) == 1, f"not one value: {query}\n{rows[:5]}"
        return rows[0][0]

    # -- waiting ---------------------------------------------------------------------------------------------

    def wait_until(self, query: str, expected: Any | Callable[[Any], bool] = True, deadline: float = DEADLINE,
                   params: tuple = ()) -> Any:
        """Asks `query` for one value until it is `expected` (a value, or a test of one). It may have no row yet, or none for a
        moment: what is waited for, say a worker that starts, is then not there."""
        accept = expected if callable(expected) else lambda seen: seen == expected
        wish = "to be accepted" if callable(expected) else f"= {expected!r}"

        def look() -> Any:
            rows = self.rows(query, *params)
            assert len(rows) <= 1 and all(len(row) == 1 for row in rows), f"more than one value: {query}\n{rows[:5]}"
            return rows[0][0] if rows else NO_ROW
        return wait_for(f"{query} {wish}", look, lambda seen: seen is not NO_ROW and accept(seen), deadline,
                        evidence=self.cluster.log.tail)

    def wait_until_told(self, queue: str, words: str, deadline: float = DEADLINE) -> tuple[str, str | None]:
        """Waits until a line of `queue_explain` has these words (a regular expression), and returns its reason and fix. There may
        be other lines before it: of what runs, of what is being started."""
        def look() -> tuple[str, str | None] | None:
            lines = self.rows("SELECT reason, fix FROM pushy.queue_explain(%s)", queue)
            return next((line for line in lines if re.search(words, line[0])), None)
        return wait_for(f"queue {queue} to be explained by {words!r}", look, bool, deadline, evidence=lambda: self.why(queue))

    def job_wait(self, job: int, deadline: float = DEADLINE) -> dict[str, Any]:
        """Waits until the job is finished and returns it, as `pushy.job_wait` does."""
        try:
            seen = self.row("SELECT * FROM pushy.job_wait(%s, make_interval(secs => %s))", job,
                            min(deadline * PATIENCE, 60))
        except psycopg.Error as error:
            raise AssertionError(f"job {job}: {error}\n{self.cluster.log.tail()}") from error
        assert seen["state"] in FINISHED, f"job {job} is not finished: {seen}\n{self.why(seen['queue'])}"
        return seen

    def why(self, queue: str) -> str:
        """What a failed wait shows: the queue's jobs by state, why they do not run, the server's log."""
        states = self.rows("SELECT state::text, count(*) FROM pushy.jobs WHERE queue = %s GROUP BY state", queue)
        return f"jobs: {states}\n{self.rows('SELECT reason, fix FROM pushy.queue_explain(%s)', queue)}\n{self.cluster.log.tail()}"

    def jobs_wait(self, queue: str, deadline: float = DEADLINE) -> None:
        """Waits until nothing of the queue is left to run."""
        try:
            is_empty = self.value("CALL pushy.jobs_wait(%s, make_interval(secs => %s))", queue, deadline * PATIENCE)
        except psycopg.Error as error:
            raise AssertionError(f"queue {queue}: {error}\n{self.why(queue)}") from error
        assert is_empty, f"queue {queue} has jobs left after {deadline * PATIENCE:g} s\n{self.why(queue)}"

    def listen(self, *channels: str) -> "Listener":
        """A session that listens from now on; names as one would write them after LISTEN."""
        return Listener(self, channels)

    # -- Pushy -----------------------------------------------------------------------------------------------

    def job(self, job: int) -> dict[str, Any]:
        return self.row("SELECT * FROM pushy.jobs WHERE id = %s", job)

    def workers(self, kind: str = "executor") -> list[int]:
        """Process ids of this server's Pushy workers of a kind (of this database, if they have one)."""
        return [pid for pid, in self.rows(
            "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE %s AND coalesce(datname, %s) = %s ORDER BY pid",
            f"pushy {kind}%", self.name, self.name)]


class Listener:
    def __init__(self, database: Database, channels: tuple[str, ...]):
        self.database = database
        self.connection = database.connect()
        for channel in channels:
            self.connection.execute(f"LISTEN {channel}")
        self.heard: list[psycopg.Notify] = []
        self._pending: deque[psycopg.Notify] = deque()

    def wait_for(self, accept: Callable[[psycopg.Notify], bool] = lambda notice: True,
                 deadline: float = DEADLINE) -> psycopg.Notify:
        """The next notice that `accept` likes."""
        end = time.monotonic() + deadline * PATIENCE
        while self._pending or self._receive(end - time.monotonic()):
            notice = self._pending.popleft()
            self.heard.append(notice)
            if accept(notice):
                return notice
        raise AssertionError(f"heard no such notice; heard {self.heard}\n{self.database.cluster.log.tail()}")

    def _receive(self, timeout: float) -> bool:
        """Several may come at once: each is kept until it is asked for."""
        self._pending.extend(self.connection.notifies(timeout=max(timeout, 0), stop_after=1))
        return bool(self._pending)

    def wait_for_json(self, deadline: float = DEADLINE, **fields) -> dict[str, Any]:
        """The next notice whose JSON payload has these fields."""
        def matches(notice: psycopg.Notify) -> bool:
            payload = json.loads(notice.payload)
            return all(payload.get(name) == value for name, value in fields.items())
        return json.loads(self.wait_for(matches, deadline).payload)
