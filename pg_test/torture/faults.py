"""Every fault that a server meets: processes killed, stopped, told to end; restarts; the primary gone and its standby promoted."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import psycopg

from harness.waiting import wait_for

from .world import World

WORKERS = ["pushy launcher", "pushy scheduler", "pushy executor", "pushy relay"]  # a gateway is struck in gateway/


class Faults:
    def __init__(self, world: World, seed: str):
        self.world, self.random = world, random.Random(seed)
        self.kinds = [self.kill_worker, self.kill_worker, self.kill_backend, self.terminate_worker, self.terminate_worker,
                      self.terminate_clients, self.cancel, self.freeze_worker, self.restart, self.switch_off, self.reload,
                      self.checkpoint_and_vacuum]
        self.rare = [self.switch_over, self.fail_over]

    def strike(self) -> str:
        fault = self.random.choice(self.rare if self.random.random() < 0.06 else self.kinds)
        try:
            fault()
        except psycopg.OperationalError:
            pass
        self.world.count(f"fault: {fault.__name__}")
        return fault.__name__

    def pids(self, kind: str) -> list[int]:
        with contextlib.closing(self.world.primary.connect()) as session:
            return [pid for pid, in session.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE %s AND pid <> pg_backend_pid()", (kind,))]

    def some(self, kind: str) -> list[int]:
        pids = self.pids(kind)
        return self.random.sample(pids, self.random.randint(1, len(pids))) if pids else []

    def crash(self, pids: list[int]) -> None:
        since = self.world.primary.log.position()
        # Held first, because one that has ended and that the postmaster has not met yet takes a kill without a crash.
        held = [pid for pid in pids if hold(pid)]
        for pid in held:
            os.kill(pid, signal.SIGKILL)
        if held:
            self.world.primary.wait_recovered(since)

    def kill_worker(self) -> None:
        self.crash(self.some(self.random.choice(WORKERS)))

    def kill_backend(self) -> None:
        self.crash(self.some("client backend")[:1])

    def terminate_worker(self) -> None:
        self.tell("pg_terminate_backend", self.random.choice([*WORKERS, "pushy %"]))

    def terminate_clients(self) -> None:
        self.tell("pg_terminate_backend", "client backend")

    def cancel(self) -> None:
        self.tell("pg_cancel_backend", self.random.choice(["pushy %", "client backend"]))

    def tell(self, call: str, kind: str) -> None:
        with contextlib.closing(self.world.primary.connect()) as session:
            session.execute(f"SELECT {call}(pid) FROM pg_stat_activity WHERE backend_type LIKE %s AND pid <> pg_backend_pid()", (kind,))

    def freeze_worker(self) -> None:
        """A process that gets no time, as on an overloaded machine."""
        pids = self.some(self.random.choice(WORKERS))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        time.sleep(self.random.random())
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def restart(self) -> None:
        with self.world.replacing:
            self.world.primary.restart(self.random.choice(["fast", "immediate"]))

    def switch_off(self) -> None:
        """pushy.enabled, off and on."""
        primary = self.world.primary
        primary.configure(pushy__enabled="off").reload()
        time.sleep(self.random.random())
        primary.configure(pushy__enabled="on").reload()

    def reload(self) -> None:
        self.world.primary.configure(pushy__max_executors=self.random.choice([1, 2, 4, 6])).reload()

    def checkpoint_and_vacuum(self) -> None:
        with contextlib.closing(self.world.session()) as session:
            session.execute("CHECKPOINT")
            session.execute("VACUUM pushy_internal.live_job")
            session.execute("ANALYZE")

    def switch_over(self) -> None:
        """In good order: the primary is stopped, its standby promoted."""
        with self.world.replacing:
            self.world.primary.stop("fast")
            self.replace()

    def fail_over(self) -> None:
        """The primary is gone between two of its instructions; what was acknowledged is on the standby."""
        with self.world.replacing:
            self.world.primary.kill_server()
            self.replace()

    def replace(self) -> None:
        world = self.world
        world.standby.configure(synchronous_standby_names="", pushy__enabled="on").reload()
        world.standby.promote()
        world.promotions += 1
        world.primary = world.primary.replaced_by(world.standby)
        world.primary.wait_ready()
        world.follow()


def hold(pid: int) -> bool:
    """Stops a process between two of its instructions; false when it has ended."""
    try:
        os.kill(pid, signal.SIGSTOP)
        return wait_for(f"process {pid} to stop", lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0],
                        lambda state: state in "TZX") == "T"
    except (ProcessLookupError, FileNotFoundError):
        return False
