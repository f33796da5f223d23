"""What /proc tells of the server's processes."""

import time
from dataclasses import dataclass
from pathlib import Path

from harness.cluster import Cluster


@dataclass
class Worker:
    pid: int
    kind: str  # 'pushy launcher', 'pushy executor', …

    def status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
        raise KeyError(name)

    def own_kilobytes(self) -> int:
        """RSS minus shared."""
        return self.status("RssAnon")

    def wakeups(self) -> int:
        return self.status("voluntary_ctxt_switches")


def wait_calm(cluster: Cluster) -> None:
    """Until the processes of a server have nothing left to do."""
    before = -1
    while (now := ticks(cluster)) != before:
        before = now
        time.sleep(0.2)  # how long nobody may have worked


def ticks(cluster: Cluster) -> int:
    """Processor time of a server's processes, those that have ended too, in clock ticks."""
    postmaster = cluster.postmaster_pid
    used = sum(times(postmaster))
    for process in Path("/proc").glob("[0-9]*"):
        try:
            used += sum(times(int(process.name))) if parent(int(process.name)) == postmaster else 0
        except OSError:
            continue  # it has ended, and the postmaster has its time
    return used


def times(pid: int) -> list[int]:
    """User and system time of a process, then those of its children that have ended, in clock ticks."""
    return [int(field) for field in stat(pid)[11:15]]


def parent(pid: int) -> int:
    return int(stat(pid)[1])


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def workers(cluster: Cluster) -> list[Worker]:
    with cluster.connect() as session:
        rows = session.execute("SELECT pid, backend_type FROM pg_stat_activity WHERE backend_type LIKE 'pushy%' ORDER BY backend_type, pid").fetchall()
    return [Worker(pid, kind) for pid, kind in rows]
