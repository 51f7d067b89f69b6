"""A Modbus endpoint on a port of this computer, for rehearsals: whoever makes it gives the answers, byte by byte.

It frames requests and sends replies when they are due, and knows nothing of registers. A reply may be no reply, come in
pieces and late, be nonsense, end the connection, or take the endpoint away for a while, as devices do.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from protocols.field.modbus_frame import crc

ServedTransport = Literal["tcp", "udp", "rtu_over_tcp"]

CONNECTIONS_MAX = 64
DUE_MAX = 1000
"""So many pieces may wait to be sent on a connection; who asks for more without waiting is cut off."""

_RETRY_S = 0.2
_MBAP = struct.Struct(">HHHB")
_LENGTH_MAX = 254
_RTU_FRAME_MAX = 256


class Asked(NamedTuple):
    """A request. `transaction` is 0 where the transport has none."""

    unit_id: int
    pdu: bytes
    transaction: int


class Piece(NamedTuple):
    """Bytes that go out so long after the request."""

    delay_s: float
    content: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """`hangs_up_s`: so long after the request the connection ends. `away_s`: and nobody listens for so long then."""

    pieces: Sequence[Piece] = ()
    hangs_up_s: float | None = None
    away_s: float = 0.0


Answer = Callable[[Asked], Reply]


def mbap_frames(received: bytes) -> tuple[list[Asked], bytes]:
    """The whole requests, and what is left. Raises ValueError where it is no Modbus TCP."""
    found = []
    while len(received) >= _MBAP.size + 1:
        transaction, protocol, length, unit_id = _MBAP.unpack_from(received)
        if protocol != 0 or not 2 <= length <= _LENGTH_MAX:
            raise ValueError("this is no Modbus TCP")
        if len(received) < 6 + length:
            break
        found.append(Asked(unit_id, received[7 : 6 + length], transaction))
        received = received[6 + length :]
    return found, received


def rtu_frames(received: bytes) -> tuple[list[Asked], bytes]:
    """The whole requests, and what is left. What has a wrong checksum is passed over, as a device does."""
    found: list[Asked] = []
    while len(received) >= 4:
        size = _rtu_size(received)
        if len(received) < size:
            break
        frame, received = received[:size], received[size:]
        if crc(frame[:-2]) != frame[-2:]:
            return found, b""
        found.append(Asked(frame[0], frame[1:-2], 0))
    return found, received[-_RTU_FRAME_MAX:]


def _rtu_size(received: bytes) -> int:
    """Of the frame that begins here, by its function; all there is where that is not known."""
    function = received[1]
    if function in (15, 16):
        return 9 + received[6] if len(received) > 6 else 9
    return {22: 10}.get(function, 8) if function in (*range(1, 7), 22) else len(received)


def framed(transport: ServedTransport, asked: Asked, pdu: bytes) -> bytes:
    """A reply in the frame of its request."""
    if transport == "rtu_over_tcp":
        body = bytes([asked.unit_id]) + pdu
        return body + crc(body)
    return _MBAP.pack(asked.transaction, 0, len(pdu) + 1, asked.unit_id) + pdu


class ModbusServer:
    """`greet` gives what a new connection gets unasked. Both are called in the event loop and never raise."""

    def __init__(self, transport: ServedTransport, answer: Answer, greet: Callable[[], Reply] = Reply) -> None:
        self.transport: ServedTransport = transport
        self.answer = answer
        self.greet = greet
        self.host = ""
        self.port = 0
        self.lines: set[ServedLine] = set()
        self._listener: asyncio.Server | None = None
        self._datagrams: asyncio.DatagramTransport | None = None
        self._absence: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> None:
        """Listens; `port` 0 takes any that is free. Raises OSError."""
        self.host = host
        loop = asyncio.get_running_loop()
        if self.transport == "udp":
            self._datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(host, port))
            self.port = self._datagrams.get_extra_info("sockname")[1]
            return
        self._listener = await loop.create_server(lambda: ServedLine(self), host, port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Ends every connection."""
        if self._absence is not None:
            self._absence.cancel()
            await asyncio.wait([self._absence])
        self._close()
        await asyncio.sleep(0)  # the loop closes the sockets in its next turn

    def go_away(self, seconds: float) -> None:
        """Nobody is there for so long: connections end, and new ones are refused."""
        if self._absence is None or self._absence.done():
            self._close()
            self._absence = asyncio.create_task(self._come_back(seconds), name=f"absence of port {self.port}")

    async def _come_back(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        while self._listener is None:
            try:
                await self.start(self.host, self.port)
            except OSError:  # somebody has the port now: it stays away until that one has gone
                await asyncio.sleep(_RETRY_S)

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None
        for line in list(self.lines):
            line.hang_up()


class ServedLine(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: ModbusServer) -> None:
        self._server = server
        self._frames = rtu_frames if server.transport == "rtu_over_tcp" else mbap_frames
        self._transport: Any = None
        self._buffer = b""
        self._due: set[asyncio.TimerHandle] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if len(self._server.lines) >= CONNECTIONS_MAX:
            self._transport.abort()
            return
        self._server.lines.add(self)
        self._plan(self._server.greet())

    def data_received(self, data: bytes) -> None:
        try:
            asked, self._buffer = self._frames(self._buffer + data)
        except ValueError:
            self.hang_up()
            return
        for one in asked:
            self._plan(self._server.answer(one))
        if len(self._due) > DUE_MAX:
            self.hang_up()

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._server.lines.discard(self)
        for handle in self._due:
            handle.cancel()
        self._due.clear()

    def hang_up(self) -> None:
        """At once; what was not sent yet is lost."""
        self._transport.abort()

    def _plan(self, reply: Reply) -> None:
        for piece in reply.pieces:
            self._later(piece.delay_s, self._send, piece.content)
        if reply.hangs_up_s is not None:
            self._later(reply.hangs_up_s, self._leave, reply.away_s)

    def _later(self, delay_s: float, call: Callable[..., None], value: Any) -> None:
        def due() -> None:
            self._due.discard(handle)
            call(value)

        handle = asyncio.get_running_loop().call_later(delay_s, due)
        self._due.add(handle)

    def _send(self, content: bytes) -> None:
        self._transport.write(content)

    def _leave(self, away_s: float) -> None:
        self._transport.close()  # what was sent before arrives
        if away_s > 0:
            self._server.go_away(away_s)


class _Datagrams(asyncio.DatagramProtocol):
    """Requests in datagrams, from anybody."""

    def __init__(self, server: ModbusServer) -> None:
        self._server = server
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        try:
            asked, _ = mbap_frames(data)
        except ValueError:
            return
        loop = asyncio.get_running_loop()
        for one in asked:
            for piece in self._server.answer(one).pieces:
                loop.call_later(piece.delay_s, self._send, piece.content, address)

    def _send(self, content: bytes, address: Any) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(content, address)
