"""The worker's log and metrics: what is wrong is said once, and once more when it is well again."""

import logging
import sys
from typing import Any

from .metrics import Event, Metrics


class Report:
    def __init__(self, logger: logging.Logger, metrics: Metrics | None) -> None:
        self._logger = logger
        self._metrics = metrics
        self._troubles: dict[str, str] = {}

    def count(self, event: Event, queue: str, seconds: float) -> None:
        if self._metrics is None:
            return
        try:
            self._metrics(event, queue, seconds)
        except Exception as error:
            self.trouble("metrics", error)

    def log(self, level: int, message: str, /, **fields: Any) -> None:
        """fields become attributes of the record: event, queue, job_id, attempt, and what else the message names."""
        try:
            if self._logger.isEnabledFor(level):
                self._logger.log(level, message, extra=fields)
        except Exception as error:
            # A job must not be lost by what the program's logger makes of it.
            print(f"pushy: the logger raised {type(error).__name__} at: {message}", file=sys.stderr)

    def trouble(self, what: str, error: BaseException, **fields: Any) -> None:
        """Says that `what` does not work; the same thing is not said again before `well`."""
        said = f"{type(error).__name__}: {error}".strip() + _way_out(error)
        if self._troubles.get(what) != said:
            self._troubles[what] = said
            self.log(logging.ERROR, f"{what}: {said}", event="trouble", sqlstate=getattr(error, "sqlstate", None), **fields)

    def well(self, what: str) -> None:
        if self._troubles and self._troubles.pop(what, None) is not None:
            self.log(logging.INFO, f"{what}: works again", event="well")


def _way_out(error: BaseException) -> str:
    """The server's own words about a schema that is not there, or closed, do not say what a worker lacks."""
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate == "3F000":
        return "\nHINT:  This database has no extension pushy: connect to the one that has it, or run CREATE EXTENSION pushy."
    if sqlstate == "42501" and "schema pushy" in str(error):
        return "\nHINT:  Run GRANT USAGE ON SCHEMA pushy for the worker's role."
    return ""
