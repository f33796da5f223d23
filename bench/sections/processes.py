"""What /proc tells of the server's processes."""

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


def workers(cluster: Cluster) -> list[Worker]:
    with cluster.connect() as session:
        rows = session.execute("SELECT pid, backend_type FROM pg_stat_activity WHERE backend_type LIKE 'pushy%' ORDER BY backend_type, pid").fetchall()
    return [Worker(pid, kind) for pid, kind in rows]
