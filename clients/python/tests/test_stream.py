"""Streams of notices, for threads and for event loops, against a gateway that a server runs."""

import asyncio
import itertools
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gateways import Gateway, Wire, wire
from server import PATIENCE_S, Server, eventually

from pushy.stream import AsyncStream, Notice, Resync, Stream, StreamError
from pushy.stream.events import Event, EventParser


@pytest.fixture(scope="module")
def gateway(server: Server) -> Iterator[Gateway]:
    with server.database() as db:
        yield Gateway(db, "leeway=0s")
        db.rows(f"ALTER DATABASE {db.name} RESET pushy.gateway_listen")


@pytest.fixture
def cut(gateway: Gateway) -> Iterator[Wire]:
    with wire(gateway.port) as made:
        yield made


class Reader:
    """A stream that is read in a thread of its own, of either kind; what it hears waits here."""

    def __init__(self, kind: str, url: str, **options: Any) -> None:
        self.heard: queue.Queue[Notice | Resync] = queue.Queue()
        self.states: list[str] = []
        self.error: Exception | None = None
        options = {"first_pause": 0.02, "on_state": self.states.append} | options
        self.stream: Any = (Stream if kind == "sync" else AsyncStream)(url, options.pop("channel", "orders"), **options)
        self._loop = asyncio.new_event_loop() if kind == "async" else None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            if self._loop:
                self._loop.run_until_complete(self._read())
            else:
                for heard in self.stream:
                    self.heard.put(heard)
        except StreamError as error:
            self.error = error

    async def _read(self) -> None:
        async for heard in self.stream:
            self.heard.put(heard)

    def next(self) -> Notice | Resync:
        return self.heard.get(timeout=PATIENCE_S)

    def payload(self) -> str:
        heard = self.next()
        assert isinstance(heard, Notice), heard
        return heard.payload

    def live(self) -> None:
        eventually(lambda: self.stream.state == "live" or self.error, f"live, not {self.stream.state}: {self.stream.reason}")

    def ended(self) -> Exception | None:
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive(), "it goes on"
        return self.error

    def close(self) -> None:
        if self._loop and self.thread.is_alive():
            asyncio.run_coroutine_threadsafe(self.stream.close(), self._loop)
        elif not self._loop:
            self.stream.close()


Open = Callable[..., Reader]


@pytest.fixture(params=["sync", "async"])
def read(request: pytest.FixtureRequest, gateway: Gateway, cut: Wire) -> Iterator[Open]:
    opened: list[Reader] = []

    def open_one(**options: Any) -> Reader:
        authority = {} if "ticket" in options or "token" in options else {"token": lambda asked: gateway.token()}
        opened.append(Reader(request.param, cut.url, **authority, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()
        one.ended()


def test_what_was_committed_is_heard_in_order_from_the_cursor_on(gateway: Gateway, read: Open) -> None:
    after = gateway.db.value("SELECT pushy.log_position()")
    gateway.notify("a", "b")
    reader = read(after=after)
    assert [reader.payload(), reader.payload()] == ["a", "b"]
    reader.live()
    gateway.notify("c")
    heard = reader.next()
    assert isinstance(heard, Notice) and (heard.channel, heard.topic, heard.payload) == ("orders", "order/c", "c")
    assert reader.stream.cursor == heard.cursor


def test_topics_are_chosen(gateway: Gateway, read: Open) -> None:
    reader = read(topics=["order/b", "order/d"])
    reader.live()
    gateway.notify("a", "b", "c", "d")
    assert [reader.payload(), reader.payload()] == ["b", "d"]


def test_it_goes_on_after_cuts_and_a_restart_of_the_server(gateway: Gateway, cut: Wire, read: Open) -> None:
    reader = read()
    reader.live()

    def restart() -> None:
        gateway.db.server.stop()
        gateway.db.server.start()
        gateway.ready()

    for number, event in enumerate((cut.cut, restart)):
        gateway.notify(f"{number}.before")
        assert reader.payload() == f"{number}.before"
        event()
        gateway.notify(f"{number}.after")
        assert reader.payload() == f"{number}.after"
    reader.live()
    assert "waiting" in reader.states


def test_tickets_are_fetched_one_for_each_connection(gateway: Gateway, cut: Wire, read: Open) -> None:
    asked = []
    reader = read(ticket=lambda what: (asked.append(what.channel), gateway.ticket())[1])
    reader.live()
    cut.cut()
    gateway.notify("a")
    assert (reader.payload(), asked) == ("a", ["orders", "orders"])


def test_a_token_is_renewed_before_it_ends(gateway: Gateway, read: Open) -> None:
    given = []

    def fetch(_: object) -> str:
        given.append(1)
        return gateway.token(sub="ann", exp=int(time.time()) + 4)

    reader = read(token=fetch)
    reader.live()
    eventually(lambda: len(given) >= 3, "a third token")
    gateway.notify("a", "b")
    assert [reader.payload(), reader.payload()] == ["a", "b"]


def test_what_is_refused_says_why(gateway: Gateway, read: Open) -> None:
    for options, code in (({"channel": "secrets"}, "denied"), ({"after": "none"}, "bad_cursor"), ({"topics": ["a/**/b"]}, "bad_topic")):
        error = read(**options).ended()
        assert isinstance(error, StreamError) and error.code == code


def test_a_revoked_grant_ends_it(gateway: Gateway, read: Open) -> None:
    gateway.db.rows("SELECT pushy.channel_grant('mails', 'web')")
    reader = read(channel="mails")
    reader.live()
    gateway.db.rows("SELECT pushy.channel_revoke('mails', 'web')")
    error = reader.ended()
    assert isinstance(error, StreamError) and error.code == "denied"


def test_who_is_signed_out_or_not_let_in_is_not_tried_for_ever(gateway: Gateway, cut: Wire, read: Open) -> None:
    tokens = iter([gateway.token(), None])
    reader = read(token=lambda asked: next(tokens))
    reader.live()
    cut.cut()
    error = reader.ended()
    assert isinstance(error, StreamError) and error.code == "unauthenticated"
    refused = []
    error = read(token=lambda asked: (refused.append(asked.was_refused), "x.y.z")[1]).ended()
    assert isinstance(error, StreamError) and error.code == "unauthenticated"
    assert refused == [False, True, True, True, True]


def test_a_token_that_is_always_the_same_is_no_reason_to_come_back_ever_faster(gateway: Gateway, cut: Wire, read: Open) -> None:
    always = gateway.token(exp=int(time.time()) + 2)
    error = read(token=lambda asked: always, most_pause=0.2).ended()
    assert isinstance(error, StreamError) and error.code == "unauthenticated"
    assert cut.connections < 40


def test_a_function_that_fails_is_asked_again(gateway: Gateway, read: Open) -> None:
    tries = itertools.count()

    def fetch(_: object) -> str:
        if next(tries) < 2:
            raise OSError("nobody there")
        return gateway.token()

    reader = read(token=fetch)
    reader.live()
    assert reader.states[:2] == ["waiting", "connecting"]


def test_what_is_out_of_reach_is_told(gateway: Gateway, read: Open) -> None:
    after = gateway.db.value("SELECT pushy.log_position()")
    gateway.notify("a")
    gateway.db.rows("SELECT pushy.channel_revoke('orders', 'web')")
    gateway.db.rows("SELECT pushy.channel_grant('orders', 'web')")
    reader = read(after=after)
    assert isinstance(reader.next(), Resync)
    reader.live()
    gateway.notify("b")
    assert reader.payload() == "b"


def test_a_function_of_an_event_loop_may_be_asynchronous(gateway: Gateway) -> None:
    async def fetch(_: object) -> str:
        await asyncio.sleep(0)
        return gateway.token()

    async def first() -> Notice | Resync:
        after = gateway.db.value("SELECT pushy.log_position()")
        gateway.notify("a")
        async with AsyncStream(f"http://127.0.0.1:{gateway.port}", "orders", token=fetch, after=after) as stream:
            async for heard in stream:
                return heard
        raise AssertionError

    heard = asyncio.run(first())
    assert isinstance(heard, Notice) and heard.payload == "a"


SAID = [": a comment\n\n", 'id: 1\nevent: live\ndata: {"a":1}\n\n', "id: 2\r\ndata: first\r\ndata:second\r\n\r\n", "data\n\n", "id: 3\n\n",
        "retry: 1500\nretry: no number\nevent: close\ndata: ü\n\n", "id: with\0zero\rdata: x\r\r"]
HEARD = [Event("", "message", ""), Event("1", "live", json.dumps({"a": 1}, separators=(",", ":"))), Event("2", "message", "first\nsecond"),
         Event("2", "message", ""), Event("3", "message", ""), Event("3", "close", "ü"), Event("3", "message", "x")]


def test_a_stream_of_events_means_the_same_wherever_it_is_torn() -> None:
    text = "".join(SAID) + ": the end\n"
    for first in range(len(text) + 1):
        for second in (first + 1, first + 2, first + 7):
            parser = EventParser()
            heard = [event for piece in (text[:first], text[first:second], text[second:]) for event in parser.feed(piece)]
            assert (heard, parser.retry_ms) == (HEARD, 1500), (first, second)
