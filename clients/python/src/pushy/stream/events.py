"""Server-Sent Events, as they come in pieces, and what the gateway says by them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice that was committed. `payload` is a text: of a watch its JSON."""

    cursor: str
    channel: str
    topic: str | None
    at: str
    payload: str


@dataclass(frozen=True, slots=True)
class Resync:
    """Something before `cursor` is missing: look at the tables anew. The stream goes on from here."""

    cursor: str


@dataclass(frozen=True, slots=True)
class Event:
    # What the last event with one said.
    id: str
    name: str
    data: str


# A \r at the end may be half of \r\n.
LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)")


class EventParser:
    """The lines of https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream."""

    def __init__(self) -> None:
        self.retry_ms: int | None = None
        self._rest = self._id = self._name = ""
        self._data: list[str] = []

    def feed(self, text: str) -> Iterator[Event]:
        """The events that are complete; one without data moves the id alone."""
        *lines, self._rest = LINE_END.split(self._rest + text)
        for line in lines:
            if line == "":
                event = Event(self._id, self._name or "message", "\n".join(self._data))
                self._name, self._data = "", []
                yield event
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match field:
                case "id" if "\0" not in value:
                    self._id = value
                case "event":
                    self._name = value
                case "data":
                    self._data.append(value)
                case "retry" if re.fullmatch("[0-9]+", value):
                    self.retry_ms = int(value)
