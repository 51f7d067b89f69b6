"""One TCP connection to a Modbus device: ask, and trust nothing in the answer that was not checked.

pymodbus is the transport: it frames requests, numbers them and matches answers. Three things are ours:

- *The deadline.* pymodbus keeps waiting when the line closes, and its own timer (asyncio.wait_for, Python 3.11) can
  swallow a cancellation, so it gets none; ours covers the whole exchange and is cut short when the line is lost.
- *The check.* pymodbus accepts a wrong function code, too few registers and transaction id 0. Every byte received is
  held against the request it answers, before pymodbus sees it: transaction, protocol, length, unit, function and
  byte count must all fit (MODBUS Messaging on TCP/IP Implementation Guide V1.0b, 3.1; Application Protocol V1.1b3, 6).
- *Mistrust.* After anything unexpected, a time-out or a cancelled question, the connection is closed and stays so: an
  answer that comes late must not answer the next question. Nor may one that a gateway passes on to the next
  connection: transactions are numbered on from a random beginning, over all connections of a driver.
"""

from __future__ import annotations

import asyncio
import logging
import struct

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from protocols.field.modbus_address import Table
from protocols.field.modbus_plan import Block

# It logs every lost connection, and more. Telling people once is the caller's work, which has all of it as exceptions.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

_HEADER = struct.Struct(">HHHBBB")  # transaction, protocol, length, unit, function; byte count or exception code
_MAX_TRANSACTION = 65_000  # where pymodbus begins again at 1


class _RawAnswer(ModbusPDU):
    """Keeps the answer's bytes as they came: our decoder takes a whole block at a time."""

    raw = b""

    def decode(self, data: bytes) -> None:
        self.raw = data[1:]


_FUNCTION = {Table.COIL: 1, Table.DISCRETE: 2, Table.HOLDING: 3, Table.INPUT: 4}
_RAW_ANSWERS = [type(f"_RawAnswer{code}", (_RawAnswer,), {"function_code": code}) for code in _FUNCTION.values()]


def wrong(request: bytes, received: bytes) -> str:
    """What does not fit in what was received so far in answer to a read request: a phrase, or "" when all does."""
    if len(received) < _HEADER.size:
        return ""
    asked_transaction, _, _, asked_unit, asked_function, _ = _HEADER.unpack_from(request)
    transaction, protocol, length, unit, function, count = _HEADER.unpack_from(received)
    if protocol != 0:
        return f"what it sent is not Modbus TCP (protocol id {protocol} instead of 0)"
    if transaction != asked_transaction:
        return f"it answered transaction {transaction} instead of {asked_transaction}"
    if unit != asked_unit:
        return f"it answered as unit {unit}"
    if function == asked_function | 0x80:
        # Some devices forget to count the unit id in the length of an exception; no value depends on it.
        return "" if length in (2, 3) and len(received) == _HEADER.size else "its exception answer has a wrong length"
    if function != asked_function:
        return f"it answered function {function} instead of {asked_function}"
    wanted = _content_size(request)
    if count != wanted or length != wanted + 3 or len(received) > wanted + _HEADER.size:
        return f"it sent an answer of another length than the {wanted} bytes asked for"
    return ""


def _content_size(request: bytes) -> int:
    """How many bytes of content answer a read request."""
    count = int.from_bytes(request[10:12], "big")
    return (count + 7) // 8 if request[7] in (1, 2) else 2 * count


def _is_complete(request: bytes, received: bytes) -> bool:
    """Whether an answer in which nothing is wrong has arrived to its end."""
    if len(received) < _HEADER.size:
        return False
    return bool(received[7] & 0x80) or len(received) == _HEADER.size + _content_size(request)


class Line:
    """A connection. Opened once, never reopened."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.fault = ""  # why the connection is not to be used any more
        self._request = b""  # the request that waits for its answer
        self._deadline: asyncio.Timeout | None = None
        self._client = AsyncModbusTcpClient(
            host,
            port=port,
            retries=0,
            reconnect_delay=0,
            timeout=None,  # type: ignore[arg-type]  # asyncio takes None as "no timer", and ours is the deadline
            trace_packet=self._check,
            trace_connect=self._note_connection,
        )
        for answer in _RAW_ANSWERS:
            self._client.register(answer)

    @classmethod
    async def open(cls, host: str, port: int, timeout_s: float, transaction: int) -> Line:
        """A new connection, whose requests are numbered from `transaction` + 1.

        Raises OSError, and after `timeout_s` TimeoutError, which is one.
        """
        line = cls(host, port, timeout_s)
        async with asyncio.timeout(timeout_s):
            # pymodbus's own connect() hides why it failed.
            factory = line._client.ctx.handle_new_connection
            await asyncio.get_running_loop().create_connection(factory, host, port)
        line._client.ctx.next_tid = transaction % _MAX_TRANSACTION
        return line

    async def ask(self, block: Block) -> bytes | int:
        """The content of the block (registers big-endian, or packed bits), or the code of the device's exception.

        Raises TimeoutError when no answer came in time, ConnectionError when the line was lost or the answer does not
        fit the question. The connection is closed then, as it is when the question is cancelled.
        """
        if self.fault:
            raise ConnectionError(self.fault)
        answered = False
        try:
            async with asyncio.timeout(self._timeout_s) as self._deadline:
                answer = await self._send(block)
            answered = True
        except TimeoutError:
            if self.fault:
                raise ConnectionError(self.fault) from None
            raise
        except ModbusException as error:
            raise ConnectionError(error.string) from error
        finally:
            self._deadline = None
            if not answered:
                self.close()
        if answer.isError():
            return answer.exception_code
        if not isinstance(answer, _RawAnswer):
            self.close()
            raise ConnectionError(f"pymodbus made a {type(answer).__name__} of the answer")
        return answer.raw

    async def _send(self, block: Block) -> ModbusPDU:
        read = {
            Table.COIL: self._client.read_coils,
            Table.DISCRETE: self._client.read_discrete_inputs,
            Table.HOLDING: self._client.read_holding_registers,
            Table.INPUT: self._client.read_input_registers,
        }[block.table]
        return await read(block.address, count=block.count, device_id=block.unit_id)

    def close(self) -> None:
        """Closes the connection. The socket is gone one turn of the loop later."""
        self.fault = self.fault or "the connection was given up"
        self._client.close()

    def _check(self, sending: bool, data: bytes) -> bytes:
        """pymodbus's view of the bytes: all that are sent; of those received only whole answers that fit."""
        if sending:
            self._request = data
            return data
        if not self._request:
            self._give_up("it sent an answer that nobody asked for")
            return b""
        if problem := wrong(self._request, data):
            self._give_up(problem)
            return b""
        if not _is_complete(self._request, data):
            return b""
        self._request = b""
        return data

    def _note_connection(self, connected: bool) -> None:
        if not connected:
            self._give_up("it closed the connection")

    def _give_up(self, why: str) -> None:
        """Ends the exchange now, by its deadline."""
        self.fault = self.fault or why
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())
