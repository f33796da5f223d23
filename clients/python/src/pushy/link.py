"""One connection of the worker, opened when it is first needed and again after it broke."""

import asyncio
from typing import Any

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

# Of one job's row, or of one statement: others may do. The rest of what passes is of the server.
OF_ONE = ("40", "55P03", "57014")

# The server may say otherwise when it is asked again: a conflict, a time-out, a lock, a limit, a restart.
PASSING = ("08", "25006", "40", "53", "55P03", "57", "58")


class Unreachable(Exception):
    """The server was not reached, or its answer was lost: it may have done what it was asked."""


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


class Link:
    def __init__(self, conninfo: str) -> None:
        given = conninfo_to_dict(conninfo)
        self._conninfo = make_conninfo("", **{**DEFAULTS, **given})
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self.is_utf8 = False  # as far as it is known: the database has every character

    async def fetch(self, statement: str, parameters: tuple[Any, ...], timeout: float = ANSWER_S) -> list[tuple[Any, ...]]:
        """Runs one statement; raises Unreachable, or psycopg.Error where the server refuses it."""
        try:
            async with asyncio.timeout(timeout):
                return await self._fetch(statement, parameters)
        except TimeoutError as error:
            await self.close()
            raise Unreachable(f"no answer in {timeout:.0f} s") from error

    async def _fetch(self, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            try:
                self._connection = await self._open()
            except psycopg.Error as error:
                raise Unreachable(str(error).strip()) from error
        try:
            cursor = await self._connection.execute(statement, parameters)
            return await cursor.fetchall()
        except psycopg.Error as error:
            if not self._connection.closed:
                raise
            self._connection = None
            raise Unreachable(str(error).strip()) from error

    async def _open(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
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
