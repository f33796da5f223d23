"""A private copy of PostgreSQL that finds the freshly built extension.

PostgreSQL before 18 looks for extensions in one place only, but it computes that place from where its own
program file lies. So the programs are copied, everything else is linked, and the extension's files are laid
over it: no root is needed, the machine's installation is not touched, two checkouts do not meet.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class Installation:
    def __init__(self, root: Path, bindir: Path, prefix: Path):
        self.root, self.bindir = root, bindir
        # PL/Python of a tree that lies elsewhere (tools/majors.sh) looks for Python's own modules in it, not in /usr.
        moved = prefix != Path("/usr") and any(prefix.glob("lib/python3.*/os.py"))
        self.environment = {"PYTHONHOME": str(prefix)} if moved else {}

    def program(self, name: str) -> Path:
        return self.bindir / name

    @property
    def sharedir(self) -> Path:
        return _ask(str(self.program("pg_config")), "--sharedir")

    @property
    def version(self) -> str:
        return subprocess.check_output([self.program("postgres"), "--version"], text=True).strip()

    @classmethod
    def of_build(cls, root: Path, kind: str) -> "Installation":
        """With what tools/build.sh has built, `dev` or `release`, for the PostgreSQL that tools/postgres.sh names."""
        return cls.create(root, built(kind), chosen_pg_config())

    @classmethod
    def create(cls, root: Path, package: Path | None, pg_config: str) -> "Installation":
        """`package`: what `cargo pgrx package` wrote, or None for a PostgreSQL without Pushy."""
        bindir, pkglibdir, sharedir = (_ask(pg_config, o) for o in ("--bindir", "--pkglibdir", "--sharedir"))
        prefix = _prefix(pg_config)
        private = lambda path: root / path.relative_to(prefix)  # noqa: E731

        shutil.copytree(bindir, private(bindir))
        _link_files(pkglibdir, private(pkglibdir), without="pushy")
        _link_files(sharedir, private(sharedir), without="extension")
        _link_files(sharedir / "extension", private(sharedir) / "extension", without="pushy")
        if package is not None:
            _copy_beside(package, "pushy.so", private(pkglibdir))
            _copy_beside(package, "pushy.control", private(sharedir) / "extension")

        installation = cls(root, private(bindir), prefix)
        found = _ask(str(installation.program("pg_config")), "--sharedir")
        if found != private(sharedir):
            raise RuntimeError(f"the copy of PostgreSQL in {root} looks for its files in {found}: cannot be moved")
        return installation


    @classmethod
    def found(cls, root: Path) -> "Installation":
        """What another process has created in `root`."""
        return cls(root, next(root.glob("**/bin/postgres")).parent, _prefix(chosen_pg_config()))


def chosen_pg_config() -> str:
    return os.environ.get("PG_CONFIG") or subprocess.check_output([REPOSITORY / "tools" / "postgres.sh"], text=True).strip()


def built(kind: str) -> Path:
    """The tree of tools/build.sh, `dev` or `release`."""
    return Path(os.environ.get("PUSHY_PACKAGE") or REPOSITORY / "target" / f"package-{kind}-{major_of(chosen_pg_config())}")


def major_of(pg_config: str) -> int:
    return int(re.search(r"\d+", subprocess.check_output([pg_config, "--version"], text=True))[0])


def _prefix(pg_config: str) -> Path:
    return Path(os.path.commonpath([_ask(pg_config, option) for option in ("--bindir", "--pkglibdir", "--sharedir")]))


def _ask(pg_config: str, option: str) -> Path:
    return Path(subprocess.check_output([pg_config, option], text=True).strip())


def _link_files(source: Path, target: Path, without: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if not entry.name.startswith(without):
            (target / entry.name).symlink_to(entry)


def _copy_beside(package: Path, name: str, target: Path) -> None:
    """All that lies beside the file `name` in a package. It may have been built for a PostgreSQL that lies elsewhere."""
    found = list(package.rglob(name))
    if len(found) != 1:
        raise RuntimeError(f"no extension in {package}: build it with 'make build'")
    shutil.copytree(found[0].parent, target, dirs_exist_ok=True)
