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
    """Processor time of a server's processes that live, in clock ticks."""
    postmaster, used = str(cluster.postmaster_pid), 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if fields[1] == postmaster:
            used += int(fields[11]) + int(fields[12])
    return used


def workers(cluster: Cluster) -> list[Worker]:
    with cluster.connect() as session:
        rows = session.execute("SELECT pid, backend_type FROM pg_stat_activity WHERE backend_type LIKE 'pushy%' ORDER BY backend_type, pid").fetchall()
    return [Worker(pid, kind) for pid, kind in rows]
