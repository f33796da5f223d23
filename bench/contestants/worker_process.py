"""A peer whose worker is a program of its own, one process of it.

The program answers `install` and `work OPTIONS` (and `fill N HANDLER` where jobs are best made by it). While it works: it
says `ready`, hears `go`, says `began` when its first handler is called and `handled` when the last has returned, hears
`stop`. The clock runs from `began` (so that its start is not counted) until the database says that no job is left.
"""

import json
import subprocess
import os
import time

from harness.cluster import Cluster
from harness.database import Database

from .. import BUILT
from ..server import environment
from .contestant import Contestant, on_off, sql
from .program import DEADLINE, Program

# No peer tells when its last completion is in the database. So often, in seconds, it is asked for: no figure is off by more.
LOOK = 0.001


class WorkerProcess(Contestant):
    key: str           # of its databases
    source: str        # what of target/bench it needs
    nothing_left: str  # SQL
    fills = True       # whether the program makes the jobs

    def command(self) -> list:
        raise NotImplementedError

    def options(self, handler: str) -> dict:
        return {}

    def missing(self) -> str | None:
        reason = BUILT / f"{self.source}.missing"
        if reason.exists():
            return f"it could not be installed: {reason.read_text().strip()}"
        return None if (BUILT / f"{self.source}.done").exists() else "it is not installed; bench/setup.sh does that"

    # -- its database ----------------------------------------------------------------------------------------

    def prepare(self, cluster: Cluster) -> None:
        """A template with everything installed: each drain starts in a fresh copy."""
        self.cluster = cluster
        template = cluster.database(f"{self.key}_template", extension=False)
        template.sql(sql("schema.sql"))
        self.install(template)
        template.close()

    def install(self, db: Database) -> None:
        self.call(db, "install")

    def fill(self, db: Database, handler: str, jobs: int) -> None:
        self.call(db, "fill", str(jobs), handler)

    def call(self, db: Database, *arguments: str) -> None:
        done = subprocess.run([str(part) for part in [*self.command(), *arguments]], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env=os.environ | environment(self.cluster, db.name), timeout=DEADLINE)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {arguments[0]} failed:\n{done.stdout[-3000:]}")

    # -- a drain ---------------------------------------------------------------------------------------------

    def drain(self, handler: str, jobs: int, synchronous_commit: bool) -> float:
        db = self.database()
        try:
            db.sql(f"ALTER DATABASE {db.name} SET synchronous_commit = {on_off(synchronous_commit)}")
            took = self.filled(db, handler, jobs)()
            self.verify(db, handler, jobs)
        finally:
            db.drop()
        return jobs / took

    def database(self) -> Database:
        return self.cluster.database(f"{self.key}_run", extension=False, options=f"TEMPLATE {self.key}_template")

    def filled(self, db: Database, handler: str, jobs: int):
        self.fill(db, handler, jobs)
        db.sql("VACUUM ANALYZE")
        db.sql("CHECKPOINT")
        return lambda: self.run(db, handler, jobs)

    def done_with(self, db: Database) -> None:
        db.drop()

    def run(self, db: Database, handler: str, jobs: int) -> float:
        with self.program(db, handler, jobs) as program:
            program.expect("ready")
            program.tell("go")
            program.expect("began")
            began = time.perf_counter()
            program.expect("handled")
            while not db.value(f"SELECT {self.nothing_left}"):
                time.sleep(LOOK)
                if time.perf_counter() - began > DEADLINE:
                    raise RuntimeError(f"{self.name}: all jobs were handled, but some are left")
            took = time.perf_counter() - began
            program.tell("stop")
        return took

    def program(self, db: Database, handler: str, jobs: int, **more) -> Program:
        options = json.dumps({"jobs": jobs, "handler": handler} | self.options(handler) | more)
        return Program([*self.command(), "work", options], environment(self.cluster, db.name))
