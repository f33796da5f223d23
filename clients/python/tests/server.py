"""A PostgreSQL server of the tests' own, with the extension as tools/build.sh dev has built it, and its databases."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.types.json import Jsonb

DEV = Path(__file__).parents[2] / "dev"
sys.path.append(str(DEV))
import real_server  # noqa: E402

T = TypeVar("T")
PATIENCE_S = float(os.environ.get("PUSHY_TEST_PATIENCE", "1")) * 15


def eventually(look: Callable[[], T], what: str) -> T:
    """The first true answer; fails with the last one."""
    give_up = time.monotonic() + PATIENCE_S
    while not (answer := look()):
        if time.monotonic() > give_up:
            raise AssertionError(f"{what} did not come about: {answer!r}")
        time.sleep(0.01)
    return answer


class Server:
    def __init__(self) -> None:
        self._real = real_server.Server.create()
        self.folder = self._real.cluster.folder

    def start(self) -> None:
        self._real.cluster.start()

    def stop(self, mode: str = "fast") -> None:
        self._real.cluster.stop(mode)

    def remove(self) -> None:
        self._real.remove()

    def conninfo(self, database: str) -> str:
        return f"host={self.folder} user=postgres dbname={database}"

    def connect(self, database: str) -> psycopg.Connection[Any]:
        # Who looks at the jobs of all, serializable, may be refused: the database may say so of its workers.
        options = r"-c default_transaction_isolation=read\ committed"
        return psycopg.connect(self.conninfo(database), autocommit=True, options=options)

    @contextlib.contextmanager
    def database(self, options: str = "") -> Iterator["Database"]:
        name = f"t{time.monotonic_ns()}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} {options}")  # type: ignore[arg-type]
        with self.connect(name) as connection:
            connection.execute((DEV / "prepare.sql").read_bytes())
        yield Database(self, name)
        with self.connect("postgres") as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]

    @contextlib.contextmanager
    def pgbouncer(self, database: str) -> Iterator[str]:
        """A conninfo through PgBouncer in transaction mode, with fewer connections to the server than clients have."""
        folder = self.folder / "bouncer"
        folder.mkdir()
        (folder / "users.txt").write_text('"postgres" ""\n')
        (folder / "bouncer.ini").write_text(
            f"[databases]\n* = host={self.folder}\n[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = 6432\n"
            f"auth_type = trust\nauth_file = {folder}/users.txt\npool_mode = transaction\ndefault_pool_size = 4\n"
        )
        if os.getuid() == 0:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "postgres", "postgres")
        command = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") or "pgbouncer"
        process = subprocess.Popen([*command, program, "-q", str(folder / "bouncer.ini")], stderr=subprocess.DEVNULL)
        try:
            eventually((folder / ".s.PGSQL.6432").exists, "PgBouncer's socket")
            yield f"host={folder} port=6432 user=postgres dbname={database}"
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(folder)


class Database:
    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.conninfo = server.conninfo(name)

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.server.connect(self.name) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *parameters: Any) -> Any:
        return self.rows(statement, *parameters)[0][0]

    def queue(self, name: str = "q", **options: Any) -> None:
        named = "".join(f", {option} => %s" for option in options)
        self.rows(f"SELECT pushy.queue_register(%s{named})", name, *options.values())

    def enqueue(self, args: Any = None, queue: str = "q") -> int:
        return int(self.value("SELECT pushy.enqueue(%s, %s)", queue, Jsonb(args or {})))

    def enqueue_many(self, jobs: int, queue: str = "q") -> None:
        statement = "SELECT count(pushy.enqueue_many(%s, ARRAY(SELECT pg_catalog.to_jsonb(n) FROM generate_series(1, %s) n)))"
        self.rows(statement.replace("count(pushy", "(pushy"), queue, jobs)

    def job(self, job_id: int) -> dict[str, Any]:
        columns = "state, attempt, result, last_error, last_sqlstate, last_detail, fraction, message, worker"
        return dict(zip(columns.split(", "), self.rows(f"SELECT {columns} FROM seen WHERE id = %s", job_id)[0], strict=True))

    def state(self, job_id: int) -> str:
        return str(self.job(job_id)["state"])

    def count(self, state: str) -> int:
        return int(self.value("SELECT count(*) FROM pushy.jobs WHERE state = %s", state))

    def logged(self, job_id: int) -> list[tuple[str, str]]:
        return self.rows("SELECT level, message FROM pushy.job_logs WHERE job_id = %s ORDER BY line", job_id)  # type: ignore[return-value]

    def reaches(self, job_id: int, state: str) -> dict[str, Any]:
        eventually(lambda: self.state(job_id) == state or None, f"state {state} of job {job_id}, {self.job(job_id)}")
        return self.job(job_id)
