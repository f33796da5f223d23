"""A time in shared memory is compared with a clock that somebody may set back: src/shared/set_back.rs moves each, or this says why not."""

import re

from harness.installation import REPOSITORY

SOURCE = REPOSITORY / "src"
NO_TIMES = {
    "highest": "a number or position", "drawn_from": "a number", "reserved": "a number or position", "position": "a place in the WAL", "job": "a number", "cancelled": "a number",
    "batch": "numbers", "emitted_epoch": "an epoch", "begun_epoch": "an epoch", "bytes": "a size", "emitted_tick": "a tick", "request": "a number", "last": "a number",
}
FROM_TABLES = {"waiting_from": "for when jobs were enqueued", "lease_ends": "until when jobs are leased", "window_wanted": "the end of a table's window"}
SHOWN_ONLY = {"dirty_since": "what began later than now took no time", "last_fired_at": "no later than now when it is shown", "last_error_at": "as the one before"}


def test_every_time_in_shared_memory_is_moved_when_the_clock_is_set_back():
    fields = set()
    for path in (SOURCE / "shared").rglob("*.rs"):
        fields |= set(re.findall(r"^\s+(?:pub(?:\([a-z]+\))? )?(\w+): (?:\[)?AtomicI64", path.read_text(), re.M))
    moved = set(re.findall(r"&self\.(?:log\.)?(\w+)", (SOURCE / "shared" / "set_back.rs").read_text()))
    explained = set(NO_TIMES) | set(FROM_TABLES) | set(SHOWN_ONLY)
    assert fields - moved - explained == set()
    assert explained - fields == set(), "listed here, and not there any more"
    assert moved & explained == set()
