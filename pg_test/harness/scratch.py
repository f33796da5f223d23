"""A short-lived folder for servers. Its path stays short: a socket's path has at most 107 bytes."""

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

PREFIX = "pushy-"
OWNER = "owner"


class Scratch:
    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls) -> "Scratch":
        """A new folder; folders whose owner died without cleaning up go first."""
        base = Path(os.environ.get("TMPDIR") or "/tmp")
        if len(str(base)) > 60:
            base = Path("/tmp")
        sweep(base)
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        path.chmod(0o755)
        (path / OWNER).write_text(f"{os.getpid()} {started(os.getpid())}")
        return cls(path)

    def remove(self) -> None:
        stop_servers(self.path)
        shutil.rmtree(self.path, ignore_errors=True)


def sweep(base: Path) -> None:
    for path in base.glob(PREFIX + "*"):
        try:
            if path.stat().st_uid != os.geteuid():
                continue
            pid, when = (path / OWNER).read_text().split()
        except (OSError, ValueError):
            continue
        if started(int(pid)) != when:
            Scratch(path).remove()


def stop_servers(base: Path) -> None:
    """Ends every server below `base`, at once and without ceremony."""
    for pid_file in base.glob("**/postmaster.pid"):
        try:
            lines = pid_file.read_text().splitlines()
            pid, data = int(lines[0]), lines[1]
            running = os.readlink(f"/proc/{pid}/cwd")
        except (OSError, ValueError, IndexError):
            continue
        if running != data:
            continue
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + 10
        while started(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        if started(pid):
            os.kill(pid, signal.SIGKILL)


def started(pid: int) -> str:
    """When process `pid` started, in clock ticks; empty when it is gone (a zombie is gone)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
