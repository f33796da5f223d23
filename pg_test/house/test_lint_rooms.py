"""Rooms of src/ use those below them, and the lint that says so finds what does not."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import lint_rooms  # noqa: E402


def test_no_room_uses_one_above_it():
    assert lint_rooms.in_tree(ROOT) == []


@pytest.mark.parametrize("line", [
    "use crate::watch;",
    "use crate::watch::definition::Payload;",
    "use crate::{params, watch};",
    "use crate::{params, watch::definition};",
    "    let watches = crate::watch::all();",
])
def test_a_queue_that_uses_watches_is_found(tmp_path, line):
    for room in lint_rooms.USES:
        (tmp_path / "src" / room).mkdir(parents=True)
        uses = "".join(f"use crate::{name}::x;\n" for name in lint_rooms.USES[room].split())
        (tmp_path / "src" / room / "mod.rs").write_text(uses)
    assert lint_rooms.in_tree(tmp_path) == []
    (tmp_path / "src" / "queue" / "a.rs").write_text(line)
    assert [complaint.split(":")[0] for complaint in lint_rooms.in_tree(tmp_path)] == ["src/queue/a.rs"]
    (tmp_path / "src" / "queue" / "a.rs").write_text(f"// {line}")
    assert lint_rooms.in_tree(tmp_path) == []


def test_what_is_allowed_and_not_used_is_taken_off_the_list(tmp_path):
    (tmp_path / "src" / "pg").mkdir(parents=True)
    (tmp_path / "src" / "pg" / "mod.rs").write_text("")
    assert lint_rooms.in_tree(tmp_path) == ["pg does not use errors any more: take it off the list"]


def test_a_room_that_nobody_has_listed_is_found(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "attic.rs").write_text("")
    assert lint_rooms.in_tree(tmp_path) == ["src/attic is in no list of rooms: say in tools/lint_rooms.py what it may use"]


@pytest.mark.parametrize("file, line, is_found", [
    ("time/a.rs", "use crate::worker::executors;", True),
    ("time/a.rs", "use crate::worker::{recorder, executors};", True),
    ("time/a.rs", "use crate::worker::supervise::launcher;", True),
    ("time/a.rs", "use crate::worker::recorder;", False),
    ("start.rs", "use crate::worker::recorder;", True),
    ("supervise/a.rs", "use crate::worker::start;", False),
])
def test_a_folder_that_uses_one_above_it_is_found(tmp_path, file, line, is_found):
    for path in ("mod.rs", "start.rs", "recover/recorder.rs", "run/a.rs", "time/a.rs", "supervise/mod.rs", "supervise/launcher/executors.rs"):
        (tmp_path / "src/worker" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src/worker" / path).write_text("")
    assert lint_rooms.between_folders(tmp_path) == []
    (tmp_path / "src/worker" / file).write_text(line)
    assert [complaint.split(":")[0] for complaint in lint_rooms.between_folders(tmp_path)] == [f"src/worker/{file}"] * is_found


@pytest.mark.parametrize("call, is_found", [
    ("next(scan)", False),
    ("heap_insert(self.raw(), pg_sys::Datum::from(1))", False),
    ("pg_sys::MemoryContextSwitchTo(context)", False),
    ("pg_sys::table_open(oid, lock)", True),
    ("self.is_seen(slot)", True),
    ("guarded(|| next(scan))", True),
])
def test_a_guard_in_a_guard_is_found(tmp_path, call, is_found):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.rs").write_text(f"unsafe {{ guarded(|| {{ {call} }}); pg_sys::table_close(table) }}")
    assert bool(lint_rooms.nested_guards(tmp_path)) == is_found


def test_a_queue_comes_home_in_one_way():
    """Its jobs, grants and promises come with it there, and what is loaded later does not. Elsewhere a home is read, or is that of the row."""
    writes = re.compile(r"home_(?:system|database)(?: = (?!existing\.)|: database::)")
    found = {path.name: len(writes.findall(path.read_text().split("static UPDATE")[0])) for path in (ROOT / "src" / "queue").rglob("*.rs")}
    # The other one asks only whether it could run with other roles.
    assert {name: count for name, count in found.items() if count} == {"restore.rs": 2, "role_gone.rs": 2}
