"""A network that goes silent or slow, between a worker and the server's socket."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

PIECE = 8_192


class Network:
    """silent    nothing passes, either way, and nobody is told
    pause     seconds for each 8 kB that the server says
    """

    def __init__(self, folder: Path) -> None:
        self.silent = False
        self.pause = 0.0
        self._socket = str(folder / ".s.PGSQL.5432")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port: int = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)

    async def _end(self) -> None:
        self._server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _serve(self) -> int:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._not_silent()
        there_reader, there_writer = await asyncio.open_unix_connection(self._socket)
        ways = [self._pass(reader, there_writer, 0.0), self._pass(there_reader, writer, None)]
        await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause: float | None) -> None:
        try:
            while piece := await reader.read(PIECE):
                await self._not_silent()
                await asyncio.sleep(self.pause if pause is None else pause)
                writer.write(piece)
                await writer.drain()
        finally:
            writer.transport.abort()

    async def _not_silent(self) -> None:
        while self.silent:
            await asyncio.sleep(0.02)

    def close(self) -> None:
        self.silent = False
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    this = Network(folder)
    try:
        yield this
    finally:
        this.close()
