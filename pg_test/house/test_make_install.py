"""`make install` and `make uninstall`: over a running server, below DESTDIR, through sudo, and gone without a trace."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from harness import account
from harness.cluster import Cluster
from harness.installation import REPOSITORY, Installation, built

TREE = built("dev")


@pytest.fixture
def house(scratch: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder of this test's own that every account can read."""
    folder = scratch / tmp_path.name
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def empty(house: Path, installation: Installation) -> Installation:
    """A PostgreSQL of this test's own, without Pushy."""
    return Installation.create(house / "pg", None, str(installation.program("pg_config")))


@pytest.fixture
def new_build(house: Path) -> Path:
    """Another build of the same version: without debug information the library has other bytes, and fewer."""
    shutil.copytree(TREE, house / "tree")
    library, = (house / "tree").glob("**/pushy.so")
    subprocess.run(["strip", "--strip-debug", library], check=True)
    return house / "tree"


def install(installation: Installation, *arguments, **environment) -> str:
    """tools/install.sh, as this account; what it said."""
    done = subprocess.run([REPOSITORY / "tools" / "install.sh", *arguments], env=settings(installation) | environment,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    return done.stdout


def refusal(installation: Installation, *arguments, script: Path = REPOSITORY / "tools" / "install.sh", **environment) -> str:
    done = subprocess.run([script, *arguments], env=settings(installation) | environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 1
    return done.stdout.strip()


def settings(installation: Installation) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PG_CONFIG": str(installation.program("pg_config"))}


def a_copy_of_the_script(house: Path) -> Path:
    (house / "tools").mkdir()
    for name in ("install.sh", "postgres.sh"):
        shutil.copy(REPOSITORY / "tools" / name, house / "tools")
    return house / "tools" / "install.sh"


def files(folder: Path) -> dict[str, tuple]:
    """Every file below `folder`, and which one it is: a file that was written or replaced is another."""
    return {str(path.relative_to(folder)): (path.lstat().st_ino, path.lstat().st_mtime_ns)
            for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def test_a_running_server_goes_on_when_a_new_build_is_installed_over_its_library(house, empty, new_build, scratch):
    """Bytes that are copied over a mapped library are code that changes under its processes: the server died at the next connection."""
    install(empty, TREE)
    library = next(empty.root.rglob("pushy.so"))
    old = library.stat()
    cluster = Cluster(house / "c", empty).create(scratch / "t" / "data").start()
    try:
        db = cluster.database()
        db.sql("CREATE FUNCTION work() RETURNS int LANGUAGE sql AS 'SELECT 7'; SELECT pushy.queue_register('q', 'work()')")
        assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"] == 7

        install(empty, new_build)
        assert library.stat().st_ino != old.st_ino and library.stat().st_size < old.st_size
        mapped = Path(f"/proc/{cluster.postmaster_pid}/maps").read_text()
        assert f"{library} (deleted)" in mapped, "the server does not run the library that it was started with"

        # A new session, a new worker, another database with the new script, and a crash, after which all processes are new.
        with db.connect() as session:
            assert session.execute("SELECT count(*) FROM pushy.jobs").fetchone() == (1,)
        for pid in db.workers():
            db.sql(f"SELECT pg_terminate_backend({pid}, 60000)")
        assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"] == 7
        assert cluster.database().value("SELECT count(*) FROM pushy.jobs") == 0
        assert "terminated by signal" not in cluster.log.since()
        cluster.crash()
        assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"] == 7

        cluster.restart()
        assert f"{library} (deleted)" not in Path(f"/proc/{cluster.postmaster_pid}/maps").read_text()
        assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"] == 7
    finally:
        cluster.remove()


def test_destdir_takes_everything_and_the_live_server_nothing(house, empty):
    before = files(empty.root)
    install(empty, TREE, DESTDIR=str(house / "stage"))
    assert files(empty.root) == before
    staged = house / "stage" / empty.root.relative_to("/")
    assert {Path(name).name for name in files(staged)} == {path.name for path in TREE.rglob("pushy*") if path.is_file()}
    install(empty, "--remove", DESTDIR=str(house / "stage"))
    assert files(house / "stage") == {} and files(empty.root) == before


def test_uninstall_leaves_nothing_of_any_version(empty):
    before = files(empty.root)
    install(empty, TREE)
    scripts = len(list((REPOSITORY / "sql").glob("pushy--*--*.sql")))
    assert len(files(empty.root)) == len(before) + 3 + scripts, "library, control, script, and an update from each version"
    (empty.sharedir / "extension" / "pushy--0.0.8--0.0.9.sql").write_text("")
    install(empty, "--remove")
    assert files(empty.root) == before


def test_a_plain_user_installs_through_sudo_file_by_file(house, empty):
    """The folders are closed to the account; the `sudo` that it finds opens them for the one command that it is given."""
    folders = [next(empty.root.rglob("plpgsql.so")).parent, empty.sharedir / "extension"]
    for folder in folders:
        account.give(folder)
        folder.chmod(0o555)
    sudo = house / "bin" / "sudo"
    sudo.parent.mkdir()
    sudo.write_text(f'#!/bin/sh\nchmod u+w {folders[0]} {folders[1]}\n"$@"\nended=$?\nchmod u-w {folders[0]} {folders[1]}\nexit $ended\n')
    sudo.chmod(0o755)
    script = a_copy_of_the_script(house)
    shutil.copytree(TREE, house / "tree")

    where = {"PG_CONFIG": str(empty.program("pg_config"))}
    without = account.run([script, house / "tree"], cwd=house, check=False, env=where | {"PATH": "/usr/bin:/bin"})
    if not Path("/usr/bin/sudo").exists():
        assert without.returncode == 1 and "call it as root" in without.stdout
        assert not list(empty.root.rglob("*pushy*"))
    account.run([script, house / "tree"], cwd=house, env=where | {"PATH": f"{sudo.parent}:/usr/bin:/bin"})
    assert {path.name for path in empty.root.rglob("*pushy*")} == {path.name for path in TREE.rglob("pushy*") if path.is_file()}
    account.run([script, "--remove"], cwd=house, env=where | {"PATH": f"{sudo.parent}:/usr/bin:/bin"})
    assert not list(empty.root.rglob("*pushy*"))


def test_what_was_built_for_another_major_is_refused_and_nothing_is_written(empty, new_build):
    before = files(empty.root)
    (new_build / "built-for").write_text("PostgreSQL 99\n")
    assert "was built for PostgreSQL 99, not for PostgreSQL" in refusal(empty, new_build)
    assert files(empty.root) == before


def test_a_file_that_cannot_be_written_leaves_the_old_ones(empty, new_build):
    """The place of the library is taken by a folder: a rename onto it fails."""
    library = next(empty.root.rglob("plpgsql.so")).with_name("pushy.so")
    (library / "in the way").mkdir(parents=True)
    before = files(empty.root)
    assert f"{library} is as it was" in refusal(empty, new_build)
    assert files(empty.root) == before


@pytest.mark.parametrize("environment, said", [
    ({"PG_CONFIG": "/nowhere/pg_config"}, "(/nowhere/pg_config) is not one of 15 16 17 18: say which with PG_CONFIG="),
    ({"SUDO_UID": "1000"}, "all' without sudo first"),
])
def test_what_is_missing_is_said_in_one_line(house, empty, environment, said):
    script = a_copy_of_the_script(house)
    for name in ("Cargo.toml", "Cargo.lock", "pushy.control"):
        (house / name).touch()
    for name in ("sql", "src", "core/src"):
        (house / name).mkdir(parents=True)
    (house / "core" / "Cargo.toml").touch()
    answer = refusal(empty, script=script, **environment)
    assert said in answer and answer.count("\n") == 0
