"""The same drains with synchronous_commit on: everybody waits for the disk."""

from . import drain

TITLE = "Draining a full queue, synchronous_commit on"


def measure(servers, sizes) -> dict:
    return drain.measure(servers, sizes, synchronous_commit=True)


def tables(data: dict) -> list[str]:
    return drain.rate_table(data, "on")


def bars(data: dict) -> list:
    return []
