"""The stream over httpx, for programs with threads and for those with an event loop."""

import asyncio
import contextlib
import inspect
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from typing import Any, Generic, Literal, Self, TypeVar

try:
    import httpx
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("pushy.stream needs httpx: pip install 'pushy-worker[stream]'") from missing

from ..backoff import MOST_S, Backoff
from .course import FIRST_PAUSE_S, Asked, Course, Lost, State
from .events import Notice, Resync

OPEN_S = 10.0
# The gateway says something every `keep_alive`.
LONGEST_SILENCE_S = 90.0
TIMEOUT = httpx.Timeout(OPEN_S, read=LONGEST_SILENCE_S)

Fetch = Callable[[Asked], str | None]
AsyncFetch = Callable[[Asked], str | None | Awaitable[str | None]]
Heard = Notice | Resync
Parameters = list[tuple[str, str]]
F = TypeVar("F", bound=Callable[[Asked], Any])
T = TypeVar("T")


class _Reader(Generic[F]):
    """What both have: `url` of the gateway, a channel, and a function that fetches a token, or one that fetches a ticket; it answers None when
    nobody is signed in any more. `after` is the cursor of the last notice that was had, or of `pushy.log_position()`; none: from now on."""

    def __init__(
        self,
        url: str,
        channel: str,
        *,
        topics: Sequence[str] = (),
        after: str | None = None,
        latest: bool = False,
        token: F | None = None,
        ticket: F | None = None,
        on_state: Callable[[State], object] | None = None,
        first_pause: float = FIRST_PAUSE_S,
        most_pause: float = MOST_S,
    ) -> None:
        fetch = token or ticket
        if fetch is None or (token and ticket):
            raise ValueError("say token or ticket: a function that answers one")
        kind: Literal["token", "ticket"] = "token" if token else "ticket"
        self._fetch: F = fetch
        self._url = url.rstrip("/") + "/events"
        self._course = Course(channel, topics, after, latest, kind, on_state, Backoff(first_pause, most_pause))
        self._begin()

    def _begin(self) -> None:
        raise NotImplementedError

    @property
    def cursor(self) -> str | None:
        """Of the last notice that was given: where another stream goes on from with `after`."""
        return self._course.cursor

    @property
    def state(self) -> State:
        return self._course.state

    @property
    def reason(self) -> str | None:
        """Why it waits."""
        return self._course.reason


class Stream(_Reader[Fetch]):
    """An iterator over what is said, which waits for more. Ends when it is closed, by whichever thread; raises StreamError where it is refused."""

    def _begin(self) -> None:
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        self._heard = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Heard]:
        return self._heard

    def close(self) -> None:
        self._closed.set()
        if self._socket is not None:
            # Wakes who reads from it.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(ValueError):
            # Where another thread iterates, that one ends it.
            self._heard.close()

    def _read(self) -> Generator[Heard, None, None]:
        course = self._course
        try:
            with httpx.Client(timeout=TIMEOUT) as client:
                while not self._closed.is_set():
                    try:
                        yield from self._connected(client)
                    except Lost as lost:
                        if not self._closed.is_set():
                            self._closed.wait(course.pause_s(lost))
        finally:
            course.set("closed")

    def _connected(self, client: httpx.Client) -> Iterator[Heard]:
        try:
            authority = self._fetch(self._course.asked())
        except Exception as error:
            raise Lost(text(error)) from error
        parameters, headers = self._course.request(authority)
        with contextlib.closing(self._pieces(client, parameters, headers)) as pieces:
            for piece in pieces:
                yield from self._course.feed(piece)
        raise Lost("the stream ended")

    def _pieces(self, client: httpx.Client, parameters: Parameters, headers: dict[str, str]) -> Generator[str, None, None]:
        try:
            with client.stream("GET", self._url, params=httpx.QueryParams(tuple(parameters)), headers=headers) as response:
                self._socket = response.extensions["network_stream"].get_extra_info("socket")
                body = None if response.status_code == httpx.codes.OK else response.read().decode(errors="replace")
                self._course.opened(response.status_code, response.headers, body)
                if not self._closed.is_set():
                    yield from response.iter_text()
        except (httpx.HTTPError, OSError) as error:
            raise Lost(text(error)) from error
        finally:
            self._socket = None


class AsyncStream(_Reader[AsyncFetch]):
    """The same for `async for`. Ends when it is closed; a task that iterates may be cancelled."""

    def _begin(self) -> None:
        self._closed = asyncio.Event()
        self._heard = self._read()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Heard]:
        return self._heard

    async def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(RuntimeError):
            # Where another task iterates, that one ends it.
            await self._heard.aclose()

    async def _read(self) -> AsyncGenerator[Heard, None]:
        course = self._course
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT) as client:
                while not self._closed.is_set():
                    try:
                        async with contextlib.aclosing(self._connected(client)) as connected:
                            async for heard in connected:
                                yield heard
                    except Lost as lost:
                        if not self._closed.is_set():
                            await self._unless_closed(asyncio.sleep(course.pause_s(lost)))
        finally:
            course.set("closed")

    async def _connected(self, client: httpx.AsyncClient) -> AsyncGenerator[Heard, None]:
        try:
            fetched = self._fetch(self._course.asked())
            authority = await fetched if inspect.isawaitable(fetched) else fetched
        except Exception as error:
            raise Lost(text(error)) from error
        parameters, headers = self._course.request(authority)
        async with contextlib.aclosing(self._pieces(client, parameters, headers)) as pieces:
            while (piece := await self._unless_closed(anext(pieces, None))) is not None:
                for heard in self._course.feed(piece):
                    yield heard
        raise Lost("the stream ended")

    async def _pieces(self, client: httpx.AsyncClient, parameters: Parameters, headers: dict[str, str]) -> AsyncGenerator[str, None]:
        try:
            async with client.stream("GET", self._url, params=httpx.QueryParams(tuple(parameters)), headers=headers) as response:
                body = None if response.status_code == httpx.codes.OK else (await response.aread()).decode(errors="replace")
                self._course.opened(response.status_code, response.headers, body)
                async for piece in response.aiter_text():
                    yield piece
        except (httpx.HTTPError, OSError) as error:
            raise Lost(text(error)) from error

    async def _unless_closed(self, work: Awaitable[T]) -> T | None:
        """What it answers, or None when the stream is closed before."""
        working = asyncio.ensure_future(work)
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait({working, closed}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            for task in (working, closed):
                task.cancel()
            # The work has ended when this does.
            await asyncio.gather(working, closed, return_exceptions=True)


def text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
