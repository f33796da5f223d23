"""How an attempt ended, as the server is told."""

import json
import re
import traceback
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from .metrics import Event

MOST_ERROR = 1_000  # characters
MOST_DETAIL = 8_000
MOST_LINES = 1_000  # of a job, as the server keeps

Seconds: TypeAlias = float | timedelta


@dataclass(slots=True, frozen=True)
class Outcome:
    event: Event
    kind: str
    fields: dict[str, Any]

    def encode(self, job_id: int, token: str) -> str:
        """One element of the array that pushy.jobs_settle takes; raises TypeError or ValueError for a result that is no JSON."""
        said = {"job_id": job_id, "token": token, "outcome": self.kind, **self.fields}
        # Without escapes, because a server with another encoding than UTF-8 takes the characters that it has, and few escapes.
        encoded = json.dumps(said, allow_nan=False, ensure_ascii=False)
        encoded.encode()  # halves of surrogate pairs are no text
        return encoded


def completed(result: Any) -> Outcome:
    return Outcome("completed", "complete", {} if result is None else {"result": result})


def failed(error: BaseException) -> Outcome:
    return Outcome("failed", "fail", describe(error))


def retried(delay: Seconds, reason: str) -> Outcome:
    return Outcome("failed", "fail", {"error": storable(reason, MOST_ERROR), "retry_in": seconds(delay)})


def snoozed(delay: Seconds, reason: str | None) -> Outcome:
    said = {} if reason is None else {"error": storable(reason, MOST_ERROR)}
    return Outcome("snoozed", "snooze", {"delay": seconds(delay), **said})


def discarded(reason: str) -> Outcome:
    return Outcome("discarded", "discard", {"error": storable(reason, MOST_ERROR)})


RELEASED = Outcome("released", "release", {})


def seconds(delay: Seconds) -> float:
    if isinstance(delay, (str, bytes)):
        raise TypeError(f"a length of time is a number of seconds or a timedelta, not {delay!r}")
    number = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    if not 0 <= number < float("inf"):
        raise ValueError(f"a delay is a number of seconds from 0 on, not {delay!r}")
    return number


def storable(text: str, most: int) -> str:
    """PostgreSQL stores neither U+0000 nor halves of surrogate pairs."""
    return text.replace("\0", "\\0").encode("utf-8", "replace").decode()[:most]


def plain(encoded: str) -> str:
    """The same outcome with nothing but ASCII in its texts."""

    def ascii_only(value: Any) -> Any:
        return value.encode("ascii", "replace").decode() if isinstance(value, str) else value

    return json.dumps({name: ascii_only(value) for name, value in json.loads(encoded).items()})


def describe(error: BaseException) -> dict[str, str]:
    """error, sqlstate where the database was the cause, and as detail the end of the traceback, which has the innermost call."""
    name = type(error).__name__
    try:
        said = str(error)
        detail = "".join(traceback.format_exception(error)).rstrip()
        code = sqlstate_of(error)
    except Exception as worse:  # an error's own methods: its job is to be failed all the same
        return {"error": storable(f"{name}, which raises {type(worse).__name__} when it is asked what it is", MOST_ERROR)}
    described = {
        "error": storable(f"{name}: {said}" if said else name, MOST_ERROR),
        "detail": storable(detail[-MOST_DETAIL:], MOST_DETAIL),
    }
    return described if code is None else {**described, "sqlstate": code}


def sqlstate_of(error: BaseException) -> str | None:
    """Of the driver's error, or of one that Django (__cause__) or SQLAlchemy (orig) has wrapped."""
    for candidate in (error, getattr(error, "orig", None), error.__cause__):
        code = getattr(candidate, "sqlstate", None)
        if isinstance(code, str) and re.fullmatch("[0-9A-Z]{5}", code):
            return code
    return None
