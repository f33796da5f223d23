"""Who the server runs as: PostgreSQL refuses root, so root steps down to an unprivileged account."""

import os
import pwd
import subprocess
from pathlib import Path


def unprivileged() -> pwd.struct_passwd:
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("run as a plain user, or create the account 'postgres': PostgreSQL refuses to run as root")


def give(path: Path) -> None:
    """Makes the server's account the owner of `path` (nothing to do for a plain user)."""
    if os.geteuid() == 0:
        account = unprivileged()
        os.chown(path, account.pw_uid, account.pw_gid)


def run(command: list, *, cwd: Path, input: str | None = None, check: bool = True,
        timeout: float = 120, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Runs one of PostgreSQL's programs as the server's account; on failure the error shows its output."""
    account = unprivileged()
    step_down = {}
    if os.geteuid() == 0:
        step_down = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    clean |= {"LC_ALL": "C.UTF-8", "HOME": str(cwd)} | (env or {})
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=clean, input=input, text=True, errors="replace",
        stdin=subprocess.DEVNULL if input is None else None,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, **step_down)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stdout}")
    return done


def start(command: list, *, cwd: Path, log: Path, env: dict[str, str] | None = None) -> subprocess.Popen:
    """Starts a program that stays, as the server's account; what it says goes to `log`."""
    account = unprivileged()
    step_down = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with open(log, "ab") as said:
        return subprocess.Popen([str(word) for word in command], cwd=cwd, env={"PATH": "/usr/bin:/bin"} | (env or {}), stdin=subprocess.DEVNULL,
                                stdout=said, stderr=said, **step_down)
