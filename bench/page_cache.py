"""Memory that was in use before the clock runs.

A virtual machine whose balloon reports free pages (VIRTIO_BALLOON_F_REPORTING, the kernel's free_page_reporting.rst) gives what is
free back to its host, and who first touches such a page waits for the host: 13 µs a page here, of which 100,000 jobs need 13,000 for
their WAL alone. A run is fast then for as long as there happen to be pages that somebody has just left, and a third slower after. A
database's machine has no such memory after a day, for its page cache has filled it. So here it is filled too, with the holes of a
sparse file, which are what the kernel gives up first when somebody wants a page. Nothing is done on a machine that keeps its memory."""

import os
import tempfile
from pathlib import Path

from .progress import progress

BALLOON, REPORTING = "0x0005", 5  # the device and its feature bit (Virtual I/O Device 1.2, 5.5)
CHUNK = 64 << 20
READ_AHEAD = 128 << 10  # what one posix_fadvise() reads
WORTH_TELLING = 4 << 30


class Holes:
    """A file that takes no place on the disk; it is gone, from the cache too, when the bench ends."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)
        self._at = 0

    def read_ahead(self, size: int) -> None:
        """The next zeros, into the page cache."""
        end = self._at + size
        self._file.truncate(end)
        for at in range(self._at, end, READ_AHEAD):
            os.posix_fadvise(self._file.fileno(), at, READ_AHEAD, os.POSIX_FADV_WILLNEED)
        self._at = end


holes: Holes | None = None


def keep_full() -> None:
    """From here on `fill` fills."""
    global holes
    holes = Holes() if gives_memory_back() else None


def gives_memory_back() -> bool:
    return any((device / "device").read_text().strip() == BALLOON and (device / "features").read_text()[REPORTING] == "1"
               for device in Path("/sys/bus/virtio/devices").glob("*"))


def fill() -> None:
    """As much as is free: from then on who wants a page gets one that the kernel takes back from the cache. What were left free would be
    handed out first, and is what the host has."""
    if holes is None:
        return
    free = unused()
    if free > WORTH_TELLING:
        progress(f"  the page cache is filled: {free >> 30} GB are free, and this machine gives such memory back to its host")
    for _ in range(free // CHUNK):
        holes.read_ahead(CHUNK)


def unused() -> int:
    """MemFree, in bytes."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemFree:"))
    return int(line.split()[1]) << 10
