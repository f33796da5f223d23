#!/usr/bin/env python3
"""Data flows one way: each room of src/ uses the rooms that are named here, and no others.

A room is a folder of src/, or a file there. A room below that needs something of a room above declares what it needs, and src/lib.rs fills it in
(`ON_QUEUES`, `ON_CHANNELS`, `JOBS_OF_QUEUES`, `ABOVE_PENDING`). Rooms that are named and not used are complaints too: the list is short by itself.

Folders of a room that are named in FOLDERS are rooms in the same way.

And no guard stands in another: the closure of `guarded` lies above a frame of C, where the unwinding of the one inside ends the process."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# From below to above. A room uses rooms that stand before it ...
USES = {
    "errors": "pg",
    "pg": "errors",
    "settings": "errors pg",
    "shared": "errors pg settings",
    "obstacle": "errors pg settings shared",
    "installation": "errors pg shared",
    "queue": "errors pg settings shared obstacle installation notice",
    "channel": "errors pg settings shared queue",
    "job": "errors pg settings shared obstacle queue notice",
    "log": "errors pg settings shared obstacle queue channel",
    "gateway": "errors pg settings shared obstacle queue channel log",
    "notice": "errors pg settings shared obstacle channel log job",
    "watch": "errors pg settings shared obstacle queue channel job notice",
    "queue_run": "errors pg shared queue job notice watch",
    "worker": "errors pg settings shared installation queue log job notice",
    "relay": "errors pg settings shared installation queue log job worker",
    "gateway_worker": "errors pg settings shared worker",
}
# ... but for these, because a notice may be a job that is owed, while what is done to queues and jobs is published on pushy_control;
# and an error writes lengths of time as the server does.
CIRCLES = {("queue", "notice"), ("job", "notice"), ("errors", "pg")}

# From below to above: a folder uses those that stand before it. What lies beside the folders uses none of them.
FOLDERS = {"worker": "recover run time supervise"}

USED = re.compile(r"\bcrate::(?:(\w+)|\{((?:[^{};]|\{[^{};]*\})*)\};)")


def used(code: str) -> set[str]:
    """The first names of all paths that begin at the crate."""
    names = set()
    for one, several in USED.findall(re.sub(r"//.*", "", code)):
        names |= {one} if one else set(re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\{[^{}]*\}", "", several)))
    return names


def rooms(root: Path) -> dict[str, dict[str, list[str]]]:
    """For each room, the rooms that it uses, and where."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted((root / "src").rglob("*.rs")):
        where = path.relative_to(root / "src")
        uses = found.setdefault(where.parts[0].removesuffix(".rs"), {})
        for name in used(path.read_text()):
            uses.setdefault(name, []).append(str(where))
    found.pop("lib", None)
    return {room: {name: files for name, files in names.items() if name in found and name != room} for room, names in found.items()}


def between_folders(root: Path) -> list[str]:
    """Files in a room's folders that use a folder above theirs."""
    complaints = []
    for room, folders in FOLDERS.items():
        order, top = folders.split(), root / "src" / room
        at = {path.stem if path.stem != "mod" else path.parent.name: path.relative_to(top).parts[0] for path in top.rglob("*.rs") if path.parent != top}
        for path in sorted(top.rglob("*.rs")):
            if path == top / "mod.rs":
                continue
            mine = path.relative_to(top).parts[0]
            if path.parent != top and mine not in order:
                complaints.append(f"src/{room}/{mine} is in no list of folders: say in tools/lint_rooms.py where it stands")
                continue
            below = order[: order.index(mine) + 1] if mine in order else []
            inner = re.sub(rf"\bcrate::{room}\b", "crate", path.read_text())
            complaints += [f"{path.relative_to(root)}: {mine} must not use {at[name]} ({name}), which stands above it"
                           for name in sorted(used(inner)) if name in at and at[name] not in below]
    return complaints


# A binding has a guard in it, and any method may have one or panic; but for these.
GUARDS = re.compile(r"\bguarded\(")
IN_GUARD = re.compile(r"\bpg_sys::(?!MemoryContextSwitchTo\b)\w+\(|\bself\.(?!raw\b)\w+\(|\bguarded\(")


def nested_guards(root: Path) -> list[str]:
    """Calls in closures of `guarded` that have a guard of their own, or may."""
    complaints = []
    for path in sorted((root / "src").rglob("*.rs")):
        code = re.sub(r"//.*", "", path.read_text())
        for begin in GUARDS.finditer(code):
            depth, end = 1, begin.end()
            while depth and end < len(code):
                depth += {"(": 1, ")": -1}.get(code[end], 0)
                end += 1
            complaints += [f"{path.relative_to(root)}: {call.group()}) in a closure of guarded(): call what the server has by a declaration of our own, "
                           "and what is ours outside" for call in IN_GUARD.finditer(code, begin.end(), end)]
    return complaints


def in_tree(root: Path = ROOT) -> list[str]:
    complaints = nested_guards(root) + between_folders(root)
    order = list(USES)
    for room, names in sorted(rooms(root).items()):
        if room not in USES:
            complaints.append(f"src/{room} is in no list of rooms: say in tools/lint_rooms.py what it may use")
            continue
        allowed = USES[room].split()
        complaints += [f"{room} may use {name}, which stands after it" for name in allowed
                       if order.index(name) > order.index(room) and (room, name) not in CIRCLES]
        complaints += [f"src/{files[0]}: {room} must not use {name}: declare there what it needs, and name it in src/lib.rs"
                       for name, files in sorted(names.items()) if name not in allowed]
        complaints += [f"{room} does not use {name} any more: take it off the list" for name in allowed if name not in names]
    return complaints


if __name__ == "__main__":
    all_complaints = in_tree()
    print("\n".join(all_complaints) or "lint_rooms: data flows one way")
    sys.exit(bool(all_complaints))
