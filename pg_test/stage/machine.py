"""A machine whose clock jumps and whose disk fills: machine.c, preloaded into a server's processes, obeys a file that is written here."""

import mmap
import os
import struct
import subprocess
from pathlib import Path

ORDERS = struct.Struct("<qq64s")


class Machine:
    """Made before the server that shall run on it, in `folder`, where the server's account can read."""

    def __init__(self, folder: Path, monkeypatch):
        folder.mkdir(mode=0o755)
        library, orders = folder / "machine.so", folder / "orders"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", Path(__file__).with_suffix(".c"), "-o", library, "-ldl"], check=True)
        orders.write_bytes(bytes(ORDERS.size))
        orders.chmod(0o644)
        with open(orders, "r+b") as file:
            self._orders = mmap.mmap(file.fileno(), ORDERS.size)
        self._ahead_s, self._full = 0, ""
        monkeypatch.setenv("PUSHY_TEST_MACHINE", str(orders))
        preloaded = os.environ.get("LD_PRELOAD")
        monkeypatch.setenv("LD_PRELOAD", f"{library}:{preloaded}" if preloaded else str(library))

    def set_clock_ahead(self, seconds: int) -> None:
        """Of what it really is; negative: behind."""
        self._ahead_s = seconds
        self._tell()

    def fill_disk(self, folder: str) -> None:
        """No file grows whose path has `folder` in it, until `empty_disk`."""
        self._full = folder
        self._tell()

    def empty_disk(self) -> None:
        self._full = ""
        self._tell()

    def _tell(self) -> None:
        self._orders[:] = ORDERS.pack(self._ahead_s, int(bool(self._full)), self._full.encode())
