"""The lean line: an asyncio Protocol that walks through a series of requests inside the event loop's callbacks.

What a request costs is one write, one turn of the loop and one read; the task that asked is woken once, when the last
answer is there. There is one timer for the whole series: when it fires before the oldest request's deadline it sets
itself to that. With `in_flight_max` above 1 so many requests are sent before their answers are there, and answers may
come in any order, told apart by their transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from protocols.field.contract import Happening, Tap
from protocols.field.modbus_frame import MAX_TRANSACTION, Framed, FrameError, Mbap, Rtu
from protocols.field.modbus_line import GATEWAY_AWAY, Link
from protocols.field.modbus_request import Request


class LeanLine(asyncio.Protocol, asyncio.DatagramProtocol):
    """See `Line`. For bytes of any origin: `data_received` takes them, the transport's `write` sends them."""

    def __init__(self, link: Link, transaction: int, tap: Tap | None = None) -> None:
        self.fault = ""
        self.sent = 0
        self.tap = tap
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._framing: type[Mbap] | type[Rtu] = Mbap if link.transport in ("tcp", "udp") else Rtu
        self._framed: dict[Request, Framed] = {}
        self._transaction = transaction % MAX_TRANSACTION
        self._transport: Any = None  # of the stream, datagram or serial kind
        self._requests: Sequence[Request] = ()
        self._next = 0  # position of what is sent next
        self._answers: list[bytes | int] = []
        self._waiting: dict[int, tuple[int, Framed, float]] = {}  # transaction → position, request, when it was sent
        self._done: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._buffer = b""
        self._free_s = 0.0  # when the next request may be sent
        self._resting: asyncio.TimerHandle | None = None  # until then

    @classmethod
    async def open(cls, link: Link, transaction: int, tap: Tap | None = None) -> LeanLine:
        """See `open_line`."""
        line = cls(link, transaction, tap)
        loop = line._loop
        async with asyncio.timeout(link.timeout_s):
            if link.transport == "udp":
                await loop.create_datagram_endpoint(lambda: line, remote_addr=(link.host, link.port))
            else:
                await loop.create_connection(lambda: line, link.host, link.port)
        return line

    async def ask(self, requests: Sequence[Request]) -> list[bytes | int]:
        """See `Line`."""
        if self.fault:
            raise ConnectionError(self.fault)
        if not requests:
            return []
        self._requests, self._next = requests, 0
        self._answers = [0] * len(requests)
        self._done = self._loop.create_future()
        answered = False
        try:
            self._send_on()
            self._timer = self._loop.call_later(self._link.timeout_s, self._check_deadline)
            await self._done
            answered = True
        finally:
            self._done = None
            for timer in (self._timer, self._resting):
                if timer is not None:
                    timer.cancel()
            self._timer = self._resting = None
            if not answered:
                self.close()
        return self._answers

    def close(self) -> None:
        """See `Line`."""
        self._give_up("the connection was given up")

    def _send_on(self) -> None:
        """Sends what may be sent now, or as soon as the pause is over."""
        if self._link.pause_s and self._loop.time() < self._free_s:
            self._resting = self._loop.call_at(self._free_s, self._send)
        else:
            self._send()

    def _send(self) -> None:
        """Sends the next request, or as many as may be in flight."""
        now_s, frames = self._loop.time(), []
        end = min(len(self._requests), self._next + self._link.in_flight_max - len(self._waiting))
        for position in range(self._next, end):
            request = self._requests[position]
            framed = self._framed.get(request)
            if framed is None:
                framed = self._framed[request] = self._framing(request)
            self._transaction = self._transaction % MAX_TRANSACTION + 1
            self._waiting[self._transaction] = (position, framed, now_s)
            frames.append(framed.encode(self._transaction))
        self._next = end
        self.sent += len(frames)
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self.tap is not None:
            self.tap(Happening.SENT, data)
        if self._link.transport == "udp":
            self._transport.sendto(data)
        else:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Takes the answers that are whole, and asks on."""
        if self.tap is not None:
            self.tap(Happening.RECEIVED, data)
        received = self._buffer + data if self._buffer else data
        while received:
            if not self._waiting:
                return self._give_up("it sent an answer that nobody asked for")
            transaction = self._answered(received)
            position, framed, _ = self._waiting[transaction]
            try:
                match = framed.match(transaction, received)
            except FrameError as error:
                return self._give_up(str(error))
            if match is None:
                break
            del self._waiting[transaction]
            self._answers[position] = match.answer
            if match.answer in GATEWAY_AWAY and self._next < len(self._requests):
                self._answers[self._next :] = [match.answer] * (len(self._requests) - self._next)
                self._next = len(self._requests)
            received = received[match.size :]
            if self._link.pause_s:
                self._free_s = self._loop.time() + self._link.pause_s
        self._buffer = received
        if received or self._done is None or self._done.done():
            return None
        if self._next < len(self._requests):
            self._send_on()
        elif not self._waiting:
            self._done.set_result(None)
        return None

    def _answered(self, received: bytes) -> int:
        """The transaction that these bytes answer; the oldest one where they answer none."""
        if len(self._waiting) > 1 and len(received) >= 2:
            transaction = int.from_bytes(received[:2], "big")
            if transaction in self._waiting:
                return transaction
        return next(iter(self._waiting))

    def _check_deadline(self) -> None:
        """The oldest request's time is up, or the timer goes on to when it will be."""
        if self._done is None or self._done.done():
            return
        now_s = self._loop.time()
        sent_s = next(iter(self._waiting.values()))[2] if self._waiting else now_s  # nothing waits during a pause
        deadline_s = sent_s + self._link.timeout_s
        if now_s < deadline_s:
            self._timer = self._loop.call_at(deadline_s, self._check_deadline)
        else:
            if self.tap is not None:
                self.tap(Happening.TIMED_OUT, b"")
            self._done.set_exception(TimeoutError())

    def _give_up(self, why: str, happening: Happening = Happening.CLOSED) -> None:
        """Ends the exchange and the connection."""
        if not self.fault and self.tap is not None:
            self.tap(happening, why.encode())
        self.fault = self.fault or why
        self._buffer = b""
        self._waiting.clear()
        if self._transport is not None:
            self._transport.abort()
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(self.fault))

    # --- what the event loop calls beside data_received ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self.tap is not None:
            self.tap(Happening.OPENED, b"")

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._give_up("it closed the connection", Happening.LOST)

    def datagram_received(self, data: bytes, address: object) -> None:
        del address
        self.data_received(data)

    def error_received(self, error: Exception) -> None:
        """Of a datagram, when nothing listens at the other end."""
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else type(error).__name__
        self._give_up(f"no answer ({reason})", Happening.LOST)
