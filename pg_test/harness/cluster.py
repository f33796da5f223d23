"""One temporary server: made from a template, reached by its own Unix socket, never by the network."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Callable

import psycopg

from . import account
from .database import Database
from .installation import Installation
from .scratch import started
from .waiting import DEADLINE, wait_for

SETTINGS = {
    "shared_preload_libraries": "pushy",
    "listen_addresses": "",
    # Everyone is trusted, so only the account that made the server may come in.
    "unix_socket_permissions": "0700",
    "max_connections": 100,
    "max_worker_processes": 16,
    "max_prepared_transactions": 10,
    "max_wal_senders": 4,
    "shared_buffers": "32MB",
    "fsync": "off",
    "full_page_writes": "off",
    "deadlock_timeout": "200ms",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] %b ",
    "pushy.max_executors": 4,
}


class Cluster:
    """A server in `folder`: its data, its socket and its log lie there."""

    def __init__(self, folder: Path, installation: Installation, settings: dict | None = None, port: int = 5432):
        self.folder, self.installation, self.port = folder, installation, port
        self.data = folder / "data"
        self.log = ServerLog(folder / "log")
        self.settings = SETTINGS | {"port": port, "unix_socket_directories": folder} | (settings or {})
        self.epoch = 0  # counts starts and recoveries: sessions of an earlier one are dead
        self._databases = 0
        self._standbys: list[Cluster] = []

    # -- life ------------------------------------------------------------------------------------------------

    def create(self, template: Path | None = None) -> "Cluster":
        """Makes the data folder: a copy of `template` (same system identifier), or by initdb."""
        self.folder.mkdir(parents=True, exist_ok=True)
        account.give(self.folder)
        if template is None:
            self.run("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-E", "UTF8",
                     "--locale=C.UTF-8", "--no-sync", "--wal-segsize=4")
            with open(self.data / "postgresql.conf", "a") as conf:
                conf.write("include 'harness.conf'\n")
        else:
            subprocess.run(["cp", "-a", "--reflink=auto", template, self.data], check=True)
        self.configure()
        return self

    def configure(self, **settings) -> "Cluster":
        """Changes settings in the file (`pushy__max_executors` is `pushy.max_executors`; None removes one).
        The server reads them at `reload()` or `restart()`."""
        self.settings |= {name.replace("__", "."): value for name, value in settings.items()}
        lines = [f"{name} = '{_setting(value)}'\n" for name, value in self.settings.items() if value is not None]
        (self.data / "harness.conf").write_text("".join(lines))
        account.give(self.data / "harness.conf")
        return self

    def start(self, wait: Callable[[], None] | None = None) -> "Cluster":
        """`wait`: another way to wait than pg_ctl's."""
        done = self.run("pg_ctl", "start", "-W" if wait else "-w", "-s", "-t", "60", "-D", self.data, "-l", self.log.path, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the server did not start: {done.stdout}\n{self.log.tail()}")
        if wait:
            wait()
        self.epoch += 1
        return self

    def stop(self, mode: str = "fast", timeout: int = 60) -> None:
        done = self.run("pg_ctl", "stop", "-w", "-s", "-m", mode, "-t", timeout, "-D", self.data, check=False)
        if done.returncode != 0:
            raise AssertionError(f"the server did not stop ({mode}) in {timeout} s: {done.stdout}\n{self.log.tail()}")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def reload(self) -> None:
        """Tells the server to read its settings again; when each process has done so is theirs to say."""
        os.kill(self.postmaster_pid, signal.SIGHUP)

    def remove(self) -> None:
        """Stops the server if it runs, and its standbys, and deletes their folders."""
        for standby in self._standbys:
            standby.remove()
        if self.running:
            try:
                self.stop("immediate", timeout=20)
            except AssertionError:
                os.kill(self.postmaster_pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        try:
            return started(self.postmaster_pid) != ""
        except (OSError, ValueError):
            return False

    @property
    def postmaster_pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])

    # -- faults ----------------------------------------------------------------------------------------------

    def kill(self, pid: int, how: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to one process of this server."""
        os.kill(pid, how)

    def crash(self, pid: int | None = None, how: signal.Signals = signal.SIGKILL) -> None:
        """Kills one process of the server (a new session's, unless told) and waits until it has recovered."""
        before = self.log.position()
        session = self.connect() if pid is None else None
        self.kill(session.info.backend_pid if session else pid, how)
        self.wait_recovered(before)

    def kill_server(self) -> None:
        """Kills the postmaster alone, and waits until its processes have noticed and are gone."""
        with self.connect() as session:
            pids = [pid for pid, in session.execute("SELECT pid FROM pg_stat_activity")] + [self.postmaster_pid]
        self.kill(self.postmaster_pid)
        wait_for("the server's processes to be gone", lambda: [pid for pid in pids if Path(f"/proc/{pid}").exists()],
                 lambda left: left == [], evidence=self.log.tail)

    def wait_recovered(self, since: int, deadline: float = DEADLINE) -> None:
        """Waits until the server has gone through a crash after log position `since` and takes connections."""
        self.log.wait_for("all server processes terminated; reinitializing", since, deadline)
        self.wait_ready(deadline)

    def wait_ready(self, deadline: float = DEADLINE) -> None:
        wait_for("the server to take connections", self._refusal, lambda refusal: refusal is None,
                 deadline, evidence=self.log.tail)
        self.epoch += 1

    def _refusal(self) -> str | None:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError as error:
            return str(error)
        return None

    # -- replication -----------------------------------------------------------------------------------------

    def standby(self, settings: dict | None = None) -> "Cluster":
        """A streaming standby of this server, started; removed with it."""
        folder = self.folder.with_name(f"{self.folder.name}s{len(self._standbys) + 1}")
        copy = Cluster(folder, self.installation, self.settings | {"unix_socket_directories": folder}
                       | (settings or {}), self.port)
        self._standbys.append(copy)
        copy.folder.mkdir(parents=True)
        account.give(copy.folder)
        self.run("pg_basebackup", "-D", copy.data, "-R", "-X", "stream", "-c", "fast", "--no-sync", *self._where())
        return copy.configure().start()

    def promote(self) -> None:
        self.run("pg_ctl", "promote", "-w", "-s", "-D", self.data)

    def replaced_by(self, standby: "Cluster") -> "Cluster":
        """Leaves everything to a standby that was promoted, and deletes this server."""
        self._standbys.remove(standby)
        self.remove()
        return standby

    # -- use -------------------------------------------------------------------------------------------------

    def run(self, program: str, *arguments, **options) -> subprocess.CompletedProcess:
        """Runs one of PostgreSQL's programs as the server's account."""
        environment = self.installation.environment | options.pop("env", {})
        return account.run([self.installation.program(program), *arguments], cwd=self.folder, env=environment, **options)

    def psql(self, dbname: str, sql: str, *options, **more) -> str:
        return self.run("psql", "-X", "-v", "ON_ERROR_STOP=1", *self._where(), "-d", dbname, *options, input=sql, **more).stdout

    def dsn(self, dbname: str, user: str = "postgres") -> str:
        return f"host={self.folder} port={self.port} dbname={dbname} user={user}"

    def connect(self, dbname: str = "postgres", user: str = "postgres", **options) -> psycopg.Connection:
        return psycopg.connect(self.dsn(dbname, user), **({"autocommit": True} | options))

    def database(self, name: str | None = None, *, extension: bool = True, usage: str = "PUBLIC", options: str = "") -> Database:
        """A new database, in which `usage` may use Pushy; `options` go to CREATE DATABASE (ENCODING, TEMPLATE, …)."""
        if name is None:
            self._databases += 1
            name = f"db_{self._databases}"
        with self.connect() as admin:
            admin.execute(f'CREATE DATABASE "{name}" {options}')
        database = Database(self, name)
        if extension:
            database.sql("CREATE EXTENSION pushy" + (f"; GRANT USAGE ON SCHEMA pushy TO {usage}" if usage else ""))
        return database

    def _where(self) -> list:
        return ["-h", self.folder, "-p", self.port, "-U", "postgres"]


class ServerLog:
    """The server's log. Remember `position()` before an act, ask for what came `since` it."""

    def __init__(self, path: Path):
        self.path = path

    def position(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def since(self, position: int = 0) -> str:
        if not self.path.exists():
            return ""
        with open(self.path, errors="replace") as log:
            log.seek(position)
            return log.read()

    def tail(self, lines: int = 40) -> str:
        return "end of the server's log:\n" + "\n".join(self.since().splitlines()[-lines:])

    def wait_for(self, pattern: str, since: int = 0, deadline: float = DEADLINE) -> re.Match:
        """Waits for a line that the regular expression finds."""
        return wait_for(f"{pattern!r} in the server's log", lambda: re.search(pattern, self.since(since), re.M),
                        lambda match: match is not None, deadline, evidence=self.tail)


def _setting(value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace("'", "''")
