"""One connection of the worker, opened when it is first needed and again after it broke."""

import asyncio
import contextlib
import socket
from typing import Any, TypeAlias

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo

# A dead network is noticed within a minute or so, because a worker that only waits would not notice it by itself.
DEFAULTS = {
    "application_name": "pushy worker",
    "client_encoding": "UTF8",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

ANSWER_S = 30.0
CANCEL_S = 1.0  # for the server to end a statement that is given up; then the connection is shut

# Of one job's row, or of one statement: others may do. The rest of what passes is of the server.
OF_ONE = ("40", "55P03", "57014")

# The server may say otherwise when it is asked again: a conflict, a time-out, a lock, a limit, a restart.
PASSING = ("08", "25006", "40", "53", "55P03", "57", "58")


class Unreachable(Exception):
    """The server was not reached, or its answer was lost: where it was asked, it may have done so."""

    def __init__(self, why: str, *, is_late: bool = False) -> None:
        super().__init__(why)
        self.is_late = is_late  # there was no answer in time


def may_pass(error: psycopg.Error) -> bool:
    """Whether the same statement may succeed later."""
    return (error.sqlstate or "").startswith(PASSING)


def is_of_one(error: psycopg.Error) -> bool:
    """Whether, of what may pass, it is one job that is in the way: the server takes others meanwhile."""
    return (error.sqlstate or "").startswith(OF_ONE)


# In a database with this encoding any bytes are text.
ANY = "SQL_ASCII"


class Text(Loader):
    """What is no UTF-8 is kept as os.fsdecode keeps it."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", "surrogateescape")


Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]


class Link:
    def __init__(self, conninfo: str) -> None:
        given = conninfo_to_dict(conninfo)
        self._conninfo = make_conninfo("", **{**DEFAULTS, **given})
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._shutting: asyncio.TimerHandle | None = None
        self._cancels: set[asyncio.Task[None]] = set()
        self._is_free = asyncio.Event()
        self._is_free.set()
        self._has_ended = False
        self.asked = 0  # how many statements were sent
        self.is_asking = False  # a statement is with the server, as far as it is known
        self.is_utf8 = False  # as far as it is known: the database has every character

    async def fetch(self, statement: str, parameters: tuple[Any, ...], timeout: float = ANSWER_S) -> list[tuple[Any, ...]]:
        """Runs one statement; raises Unreachable, or psycopg.Error where the server refuses it."""
        if self._has_ended:
            raise Unreachable("the worker ends")
        is_late = False

        def give_up() -> None:
            nonlocal is_late
            is_late = True
            self.give_up()

        # Not asyncio.timeout, because psycopg takes ten seconds to heed that where the network is silent.
        limit = asyncio.get_running_loop().call_later(timeout, give_up)
        self._is_free.clear()
        try:
            return await self._fetch(statement, parameters)
        except (Unreachable, psycopg.Error) as error:
            if not is_late:
                raise
            raise Unreachable(f"no answer in {timeout:.0f} s", is_late=True) from error
        finally:
            limit.cancel()
            if self._shutting is not None:
                self._shutting.cancel()
                self._shutting = None
                await self.close()
            self._is_free.set()

    async def _fetch(self, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        connection = self._connection or await self._opened()
        try:
            self.asked += 1
            self.is_asking = True
            cursor = await connection.execute(statement, parameters)
            return await cursor.fetchall()
        except psycopg.Error as error:
            if not connection.closed:
                raise
            self._connection = None
            raise Unreachable(str(error).strip()) from error
        finally:
            self.is_asking = False

    async def _opened(self) -> Connection:
        self._opening = asyncio.create_task(self._open())
        try:
            self._connection = await self._opening
        except psycopg.Error as error:
            raise Unreachable(str(error).strip()) from error
        except asyncio.CancelledError as error:
            this = asyncio.current_task()
            if this is None or this.cancelling() > 0:
                raise
            raise Unreachable("the server was not reached") from error  # given up
        finally:
            self._opening = None
        return self._connection

    async def _open(self) -> Connection:
        # No statement stays prepared, because the next one may go to another session of a pooler.
        connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        given = conninfo_to_dict(self._conninfo)
        encoding = connection.info.parameter_status("server_encoding")
        self.is_utf8 = encoding == "UTF8"
        if encoding == ANY and given["client_encoding"] != ANY:
            # Else the server would refuse a whole claim for one job that is no UTF-8, again and again.
            await connection.close()
            self._conninfo = make_conninfo("", **{**given, "client_encoding": ANY})
            return await self._open()
        connection.adapters.register_loader("text", Text)
        return connection

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def give_up(self) -> None:
        """Whoever waits for an answer has waited enough: the server is to end the statement, and has a moment to say so."""
        if self._opening is not None:
            self._opening.cancel()
        connection = self._connection
        if connection is None or not self.is_asking or self._shutting is not None:
            return
        self._shutting = asyncio.get_running_loop().call_later(CANCEL_S, shut, connection)
        cancel = asyncio.create_task(request_cancel(connection))
        self._cancels.add(cancel)
        cancel.add_done_callback(self._cancels.discard)

    async def end(self) -> None:
        """No statement is sent any more, and none is waited for."""
        self._has_ended = True
        if self._opening is not None:
            self._opening.cancel()
        if self._connection is not None and self.is_asking:
            shut(self._connection)
        await self._is_free.wait()
        await self.close()
        for cancel in self._cancels:
            cancel.cancel()


def shut(connection: Connection) -> None:
    """Whoever waits for it sees its end at once, even where the network is silent. libpq closes the socket then."""
    with contextlib.suppress(OSError, psycopg.Error), socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
        same.shutdown(socket.SHUT_RDWR)


async def request_cancel(connection: Connection) -> None:
    # Where it does not arrive, the connection is shut.
    with contextlib.suppress(psycopg.Error, OSError):
        await connection.cancel_safe(timeout=CANCEL_S)
