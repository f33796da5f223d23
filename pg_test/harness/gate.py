"""A gate that handlers stop at, so that a test decides when a running job goes on."""

from .database import Database
from .waiting import DEADLINE


class Gate:
    """Closed from the start. A handler stops at `PERFORM {gate.stop}`; `open()` lets everyone through."""

    def __init__(self, database: Database, key: int = 1):
        self.database, self.key = database, key
        self.stop = f"pg_catalog.pg_advisory_xact_lock_shared({key})"
        self._keeper = database.connect()
        self.close()

    def close(self) -> None:
        self._keeper.execute("SELECT pg_advisory_lock(%s)", (self.key,))

    def open(self) -> None:
        self._keeper.execute("SELECT pg_advisory_unlock(%s)", (self.key,))

    def wait_for_arrival(self, count: int = 1, deadline: float = DEADLINE) -> list[int]:
        """Waits until `count` processes stand at the gate; their process ids."""
        return self.database.wait_until(
            "SELECT array_agg(pid ORDER BY pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            lambda pids: pids is not None and len(pids) >= count, deadline, params=(self.key,))
