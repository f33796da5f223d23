"""How a stream goes on, without its network: what is asked for, where it has come to, what follows when it ends."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..backoff import Backoff
from .events import Event, EventParser, Notice, Resync

State = Literal["connecting", "resyncing", "live", "waiting", "closed"]

FIRST_PAUSE_S = 0.25
# A connection that was good for so long starts its pauses anew.
GOOD_S = 10.0
# A token that was good for so long was another one.
RENEWAL_S = 1.0
# Nobody is let in with what is refused so often.
REFUSALS = 5
LATER_S = 2.0


class StreamError(Exception):
    """It was refused, and does not come back. `code` is a word of the protocol: `denied`, `bad_topic`, `unauthenticated`, …"""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Asked:
    """What a function is told that fetches a token or a ticket."""

    channel: str
    topics: Sequence[str]
    # The one before was refused: another is needed, and none that was kept.
    was_refused: bool


class Lost(Exception):
    """The connection has ended; `code` is of closing or of HTTP, 0 where the network says nothing."""

    def __init__(self, reason: str, code: int = 0, retry_s: float = 0.0) -> None:
        super().__init__(reason)
        self.code = code
        self.retry_s = retry_s


class Course:
    def __init__(
        self,
        channel: str,
        topics: Sequence[str],
        after: str | None,
        latest: bool,
        kind: Literal["token", "ticket"],
        on_state: Callable[[State], object] | None,
        backoff: Backoff,
    ) -> None:
        self.channel, self.topics, self.latest, self.kind = channel, topics, latest, kind
        self.cursor = after
        self.state: State = "connecting"
        self.reason: str | None = None
        self._on_state = on_state
        self._backoff = backoff
        self._refusals = 0
        self._opened_at: float | None = None
        self._parser = EventParser()

    def asked(self) -> Asked:
        return Asked(self.channel, self.topics, self._refusals > 0)

    def set(self, state: State, reason: str | None = None) -> None:
        self.reason = reason
        if state != self.state:
            self.state = state
            if self._on_state:
                self._on_state(state)

    def request(self, authority: str | None) -> tuple[list[tuple[str, str]], dict[str, str]]:
        """The parameters and the headers of the next request."""
        if authority is None:
            raise StreamError("unauthenticated", "nobody is signed in")
        self._opened_at = None
        self._parser = EventParser()
        self.set("connecting")
        parameters = [("channel", self.channel), *(("topic", topic) for topic in self.topics)]
        if self.cursor is not None:
            parameters.append(("after", self.cursor))
        if self.latest:
            parameters.append(("latest", "1"))
        if self.kind == "ticket":
            return [*parameters, ("ticket", authority)], {}
        return parameters, {"Authorization": f"Bearer {authority}"}

    def opened(self, status: int, headers: Mapping[str, str], body: str | None) -> None:
        """The answer's head, with its body where it is a refusal."""
        if body is None:
            if not headers.get("content-type", "").startswith("text/event-stream"):
                raise Lost("the answer is no stream of events")
            self._opened_at = time.monotonic()
            self._refusals = 0
            self.set("resyncing")
            return
        try:
            said: dict[str, Any] = json.loads(body)
        except ValueError:
            said = {}
        code, message = str(said.get("code", "")), str(said.get("message", f"HTTP status {status}"))
        if code in ("bad_message", "bad_channel", "bad_topic", "bad_cursor", "denied"):
            raise StreamError(code, message)
        retry = headers.get("retry-after", "")
        raise Lost(message, status, float(retry) if retry.isdigit() else 0.0)

    def feed(self, text: str) -> Iterator[Notice | Resync]:
        """What is to be handed out of a piece of the stream. Raises Lost where it ends, StreamError where it is over."""
        for event in self._parser.feed(text):
            if event.data:
                yield from self._hear(event)
            elif event.id:
                # Nothing was missed up to here.
                self.cursor = event.id

    def _hear(self, event: Event) -> Iterator[Notice | Resync]:
        said: dict[str, Any] = json.loads(event.data)
        match event.name:
            case "message":
                self.cursor = said["cursor"]
                yield Notice(said["cursor"], said["channel"], said.get("topic"), said["at"], said["payload"])
            case "resync":
                self.cursor = said["cursor"]
                yield Resync(said["cursor"])
            case "subscribed":
                # One that came with a cursor has still to hear what is between.
                self.cursor = self.cursor or said["cursor"]
                self.set("live" if said["live"] else "resyncing")
            case "live":
                self.set("live")
            case "expiring":
                # A stream cannot be told of another token: it comes back with it, from its cursor.
                raise Lost("expired", 4101)
            case "error" if said["code"] not in ("unavailable", "too_fast"):
                raise StreamError(said["code"], said["message"])
            case "close":
                reason = said["said"]["reason"]
                if said["code"] == 4102:
                    raise StreamError("denied", reason)
                raise Lost(reason, said["code"], (self._parser.retry_ms or 0) / 1000)

    def pause_s(self, lost: Lost) -> float:
        """How long to wait before it comes back. Raises StreamError where it is not to."""
        was_open = self._opened_at is not None
        open_s = time.monotonic() - self._opened_at if self._opened_at is not None else 0.0
        if open_s >= GOOD_S:
            self._backoff.reset()
        code = lost.code
        if 4200 <= code < 4300:
            raise StreamError(str(lost), f"the gateway closed the stream: {lost}")
        is_renewal = code == 401 or 4100 <= code < 4200
        if is_renewal and not was_open:
            self._refusals += 1
            if self._refusals >= REFUSALS:
                raise StreamError("unauthenticated", f"refused {REFUSALS} times: {lost}")
        self.set("waiting", str(lost))
        if is_renewal and open_s >= RENEWAL_S:
            # No failure, and at once; but for one that is due again and again, because the token is always the same.
            return 0.0
        later = LATER_S * random.uniform(1, 2) if code in (429, 503) or 4300 <= code < 4400 else 0.0
        return max(self._backoff.next(), lost.retry_s, later)
