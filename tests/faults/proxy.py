"""A TCP line to one port of 127.0.0.1 that can be cut, go dead, or get slow, each direction by itself."""

from __future__ import annotations

import asyncio
import contextlib

HOST = "127.0.0.1"


class Direction:
    """One way of the line. `bytes_per_s` None: as fast as it goes."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.bytes_per_s: float | None = None

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until either end is gone; then so is the other."""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._pass(data, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        while data:
            await self.open.wait()
            count = len(data) if self.bytes_per_s is None else 1
            writer.write(data[:count])
            await writer.drain()
            data = data[count:]
            if self.bytes_per_s is not None:
                await asyncio.sleep(1 / self.bytes_per_s)


class Proxy:
    """`port`: where to connect to instead. `up` carries what clients say, `down` what the target says."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.up, self.down = Direction(), Direction()
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Reset every connection and listen no more."""
        if self._server is not None:
            self._server.close()
        self.cut()
        self.heal()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection at both ends. New ones are taken as before."""
        for writer in self._writers:
            writer.transport.abort()

    def blackhole(self) -> None:
        """Carry nothing, close nothing, refuse nothing."""
        self.up.open.clear()
        self.down.open.clear()

    def throttle(self, bytes_per_s: float) -> None:
        """Byte by byte, in both directions."""
        self.up.bytes_per_s = self.down.bytes_per_s = bytes_per_s

    def heal(self) -> None:
        """Carry everything again, what was held up first."""
        for direction in (self.up, self.down):
            direction.bytes_per_s = None
            direction.open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self.up.carry(reader, far_writer), self.down.carry(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}
