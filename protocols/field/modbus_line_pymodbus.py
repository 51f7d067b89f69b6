"""The line through pymodbus: it frames requests, numbers them and matches answers. Three things are ours:

- *The deadline.* pymodbus keeps waiting when the line closes, and its own timer (asyncio.wait_for, Python 3.11) can
  swallow a cancellation, so it gets none; ours covers the whole exchange and is cut short when the line is lost.
- *The check.* pymodbus accepts a wrong function code, too few registers and transaction id 0. Every byte received is
  held against the request it answers (`modbus_frame`) before pymodbus sees it.
- *Mistrust.* See `modbus_line`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from struct import unpack_from
from typing import Any

from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient, AsyncModbusUdpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from protocols.field.contract import Happening, Tap
from protocols.field.modbus_frame import MAX_TRANSACTION, Framed, FrameError, Match, Mbap, Rtu
from protocols.field.modbus_line import GATEWAY_AWAY, Link
from protocols.field.modbus_request import Request

# It logs every lost connection, and more. Telling people once is the caller's work, which has all of it as exceptions.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


class _Unread(ModbusPDU):
    """An answer that pymodbus need not decode: its content was taken from the bytes as they came."""

    rtu_byte_count_pos = 2


_UNREAD = [type(f"_Unread{code}", (_Unread,), {"function_code": code}) for code in (1, 2, 3, 4)]


class _Heard:
    """pymodbus's protocol, as the event loop calls it. `hear` gets what comes first: pymodbus drops what is long."""

    def __init__(self, protocol: Any, hear: Callable[[bytes], None]) -> None:
        self._protocol = protocol
        self._hear = hear

    def data_received(self, data: bytes) -> None:
        self._hear(data)
        self._protocol.data_received(data)

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._hear(data)
        self._protocol.datagram_received(data, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)


class PymodbusLine:
    """See `Line`."""

    def __init__(self, link: Link, tap: Tap | None = None) -> None:
        self.fault = ""
        self.sent = 0
        self.tap = tap
        self._link = link
        self._framing: type[Mbap] | type[Rtu] = Mbap if link.transport in ("tcp", "udp") else Rtu
        self._framed: Framed | None = None  # the request that waits for its answer
        self._transaction = 0  # its number
        self._match: Match | None = None
        self._free_s = 0.0  # when the next request may be sent
        self._deadline: asyncio.Timeout | None = None
        kind = AsyncModbusUdpClient if link.transport == "udp" else AsyncModbusTcpClient
        self._client = kind(
            link.host,
            framer=FramerType.SOCKET if self._framing is Mbap else FramerType.RTU,
            port=link.port,
            retries=0,
            reconnect_delay=0,
            timeout=None,  # type: ignore[arg-type]  # asyncio takes None as "no timer", and ours is the deadline
            trace_packet=self._trace,
            trace_connect=self._note_connection,
        )
        for answer in _UNREAD:
            self._client.register(answer)

    @classmethod
    async def open(cls, link: Link, transaction: int, tap: Tap | None = None) -> PymodbusLine:
        """See `open_line`."""
        line = cls(link, tap)
        loop, context = asyncio.get_running_loop(), line._client.ctx
        async with asyncio.timeout(link.timeout_s):
            # pymodbus's own connect() hides why it failed.

            def factory() -> Any:
                return _Heard(context.handle_new_connection(), line._hear)

            if link.transport == "udp":
                await loop.create_datagram_endpoint(factory, remote_addr=(link.host, link.port))
            else:
                await loop.create_connection(factory, link.host, link.port)
        context.next_tid = transaction % MAX_TRANSACTION
        return line

    async def ask(self, requests: Sequence[Request]) -> list[bytes | int]:
        """See `Line`."""
        answers: list[bytes | int] = []
        for request in requests:
            if answers and answers[-1] in GATEWAY_AWAY:
                answers.append(answers[-1])
            else:
                await self._rest()
                answers.append(await self._ask(request))
                self._free_s = asyncio.get_running_loop().time() + self._link.pause_s
        return answers

    async def _rest(self) -> None:
        """Until the pause after the last answer is over."""
        if self._link.pause_s:
            await asyncio.sleep(max(0.0, self._free_s - asyncio.get_running_loop().time()))

    async def _ask(self, request: Request) -> bytes | int:
        if self.fault:
            raise ConnectionError(self.fault)
        answered = False
        self._begin(request)
        try:
            async with asyncio.timeout(self._link.timeout_s) as self._deadline:
                self.sent += 1
                await self._send(request)
            answered = True
        except TimeoutError:
            if self.fault:
                raise ConnectionError(self.fault) from None
            self._tell(Happening.TIMED_OUT, "")
            raise
        except ModbusException as error:
            raise ConnectionError(error.string) from error
        finally:
            self._deadline = None
            if not answered:
                self.close()
        if self._match is None:
            self.close()
            raise ConnectionError("pymodbus took something for an answer that was none")
        return self._match.answer

    def _begin(self, request: Request) -> None:
        self._framed, self._match = self._framing(request), None

    def _send(self, request: Request) -> Awaitable[ModbusPDU]:
        client, unit_id = self._client, request.unit_id
        address, count = unpack_from(">HH", request.pdu, 1)
        if request.function > 4:
            return self._write(request, address, count)
        match request.function:
            case 1:
                return client.read_coils(address, count=count, device_id=unit_id)
            case 2:
                return client.read_discrete_inputs(address, count=count, device_id=unit_id)
            case 3:
                return client.read_holding_registers(address, count=count, device_id=unit_id)
            case _:
                return client.read_input_registers(address, count=count, device_id=unit_id)

    def _write(self, request: Request, address: int, count: int) -> Awaitable[ModbusPDU]:
        """`count` is the value where only one is written."""
        client, unit_id, content = self._client, request.unit_id, request.pdu[6:]
        match request.function:
            case 5:
                return client.write_coil(address, count != 0, device_id=unit_id)
            case 6:
                return client.write_register(address, count, device_id=unit_id)
            case 15:
                bits = [bool(content[at // 8] >> at % 8 & 1) for at in range(count)]
                return client.write_coils(address, bits, device_id=unit_id)
            case 16:
                return client.write_registers(address, list(unpack_from(f">{count}H", content)), device_id=unit_id)
            case _:
                (or_mask,) = unpack_from(">H", request.pdu, 5)
                return client.mask_write_register(address=address, and_mask=count, or_mask=or_mask, device_id=unit_id)

    def close(self) -> None:
        """See `Line`."""
        if not self.fault:
            self.fault = "the connection was given up"
            self._tell(Happening.CLOSED, self.fault)
        self._client.close()

    def _tell(self, happening: Happening, why: str) -> None:
        if self.tap is not None:
            self.tap(happening, why.encode())

    def _hear(self, data: bytes) -> None:
        if self.tap is not None:
            self.tap(Happening.RECEIVED, data)

    def _trace(self, sending: bool, data: bytes) -> bytes:
        """pymodbus's view of the bytes: all that are sent; of those received only whole answers that fit."""
        if sending:
            if self.tap is not None:
                self.tap(Happening.SENT, data)
            self._transaction = int.from_bytes(data[:2], "big")
            return data
        if self._framed is None:
            return self._give_up("it sent an answer that nobody asked for")
        try:
            match = self._framed.match(self._transaction, data)
        except FrameError as error:
            return self._give_up(str(error))
        if match is None:
            return b""
        if match.size < len(data):
            return self._give_up("it sent more than the answer")
        self._framed, self._match = None, match
        return data

    def _note_connection(self, connected: bool) -> None:
        if connected:
            self._tell(Happening.OPENED, "")
        else:
            self._give_up("it closed the connection", Happening.LOST)

    def _give_up(self, why: str, happening: Happening = Happening.CLOSED) -> bytes:
        """Ends the exchange now, by its deadline."""
        if not self.fault:
            self.fault = why
            self._tell(happening, why)
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())
        return b""
