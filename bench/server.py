"""The temporary servers: the harness's, with the settings that stand here and the files of the peers that need some."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from harness.cluster import Cluster
from harness.installation import Installation, major_of
from harness.scratch import Scratch

from . import BUILT, REPOSITORY, page_cache

EXECUTORS = 2

# Stock, but for these. None: the harness's own choice is taken back.
CHANGED = {
    "fsync": (None, None),
    "full_page_writes": (None, None),
    "deadlock_timeout": (None, None),
    "max_prepared_transactions": (None, None),
    "max_connections": (None, None),
    "shared_buffers": ("256MB", "the stock 128MB holds less than a run's tables"),
    "max_wal_size": ("4GB", "no checkpoint in the middle of a drain"),
    "max_worker_processes": ("16", "the stock 8 are for all that needs workers"),
    "pushy.max_executors": (str(EXECUTORS), "as stock: one for each core here"),
}
SETTINGS = {name: value for name, (value, _) in CHANGED.items()}
PGQ = BUILT / "debian" / "usr"


class Servers:
    """Makes servers, one after the other, and leaves nothing behind."""

    def __enter__(self) -> "Servers":
        self._scratch = Scratch.create()
        self.folder = self._scratch.path
        self._count = 0
        self.installation = Installation.of_build(self._scratch.path / "pg", "release")
        if PGQ.exists():
            lay_over(PGQ / "lib", self.installation, "--pkglibdir")
            lay_over(PGQ / "share", self.installation, "--sharedir")
        return self

    def __exit__(self, *exception) -> None:
        self._scratch.remove()

    @contextlib.contextmanager
    def server(self, **settings):
        """A running server; `pushy__max_executors` is pushy.max_executors."""
        self._count += 1
        page_cache.fill()
        named = {name.replace("__", "."): value for name, value in settings.items()}
        cluster = Cluster(self._scratch.path / f"s{self._count}", self.installation, SETTINGS | named).create().start()
        try:
            yield cluster
        finally:
            cluster.remove()


def lay_over(package: Path, installation: Installation, folder: str) -> None:
    """Debian's files for this PostgreSQL, below `package`, into its private copy."""
    major = major_of(str(installation.program("pg_config")))
    target = Path(subprocess.check_output([installation.program("pg_config"), folder], text=True).strip())
    for kind in ("extension", "lib"):
        for source in package.glob(f"postgresql/{major}/{kind}"):
            into = target / kind if kind == "extension" else target
            for file in source.iterdir():
                if file.is_file() and not (into / file.name).exists():
                    shutil.copy(file, into / file.name)


def environment(cluster: Cluster, database: str) -> dict[str, str]:
    """What a client program needs to reach a database."""
    return {"PGHOST": str(cluster.folder), "PGPORT": str(cluster.port), "PGDATABASE": database, "PGUSER": "postgres"}
