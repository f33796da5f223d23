"""What handlers have logged and the server has not heard yet: said in any thread, told by the settler or with a completion."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .job import Job

# waiting    the settler tells it next
# sending    it does so now
# entrusted  it went with the job's completion, or was said behind it, in a transaction of the handler that may roll back
# over       the server has it, or it is given up
State = Literal["waiting", "sending", "entrusted", "over"]

_lock = threading.Lock()  # held for moments, and never while anything is waited for


@dataclass(slots=True, eq=False)
class Line:
    job: Job
    message: str
    level: str
    state: State = "waiting"
    is_repeated: bool = False  # it may have been heard already, so that being too late is no news


def say(job: Job, message: str, level: str) -> Line:
    line = Line(job, message, level)
    with _lock:
        job.lines.append(line)
    return line


def begin(lines: Iterable[Line]) -> list[Line]:
    """Those that still wait, each once, which are the settler's now: others went with a completion meanwhile."""
    with _lock:
        mine: list[Line] = []
        for line in lines:
            if line.state == "waiting" and line.job.completing:
                line.state = "entrusted"  # those before it may come back, and lines are kept in their order
            elif line.state == "waiting":
                line.state = "sending"  # what went with a completion and came back is there twice
                mine.append(line)
        return mine


def end(lines: list[Line], state: Literal["waiting", "over"]) -> None:
    with _lock:
        for line in lines:
            line.state = state
        if state == "over":
            for job in {line.job for line in lines}:
                job.lines = [line for line in job.lines if line.state != "over"]


def is_sending(job: Job) -> bool:
    with _lock:
        return any(line.state == "sending" for line in job.lines)


def entrust(job: Job, most: int) -> list[Line]:
    """What goes with a completion; what went with one before does so again, because that one may have been rolled back."""
    with _lock:
        lines = [line for line in job.lines if line.state != "sending"][-most:]
        for line in lines:
            line.state = "entrusted"
            line.is_repeated = True
        return lines


def take_back(job: Job) -> list[Line]:
    """What went with a completion or was said behind it, and what came after that: kept if that was rolled back, or refused."""
    with _lock:
        if not any(line.state == "entrusted" for line in job.lines):
            return []
        lines = [line for line in job.lines if line.state in ("entrusted", "waiting")]
        for line in lines:
            line.state = "waiting"
        return lines
