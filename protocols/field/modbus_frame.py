"""How requests and answers travel: Modbus TCP's header, or the RTU frame of the serial line. Pure.

- MBAP: transaction, protocol 0, length (big-endian, 16 bits each), unit id, PDU (MODBUS Messaging on TCP/IP
  Implementation Guide V1.0b, 3.1).
- RTU: unit id, PDU, CRC-16 with polynomial 0xA001 (reflected), the low byte first (MODBUS over Serial Line V1.02, 2.5).

`Framed` is one request in a framing, with everything prepared that does not change from one asking to the next. Its
`match` holds what was received against all that is known of the right answer: the transaction, protocol, length, unit,
function and byte count, or the checksum. One comparison accepts a right answer; only a wrong one is looked at in parts,
to say in words what does not fit.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Protocol

from protocols.field.modbus_request import Request

MAX_TRANSACTION = 65_000  # then from 1 again, as pymodbus does, so that both clients send the same bytes

_MBAP = struct.Struct(">HHHBB")  # transaction, protocol, length, unit, function
_TRANSACTION = struct.Struct(">H")


class FrameError(ValueError):
    """What was received is no answer to this request. The message is a phrase that begins with "it" or "what it"."""


class Match(NamedTuple):
    """A whole answer: its content, or an exception's code; and how many bytes it took."""

    answer: bytes | int
    size: int


class Framed(Protocol):
    """A request in its framing."""

    request: Request

    def encode(self, transaction: int) -> bytes:
        """The bytes to send."""

    def match(self, transaction: int, received: bytes) -> Match | None:
        """The answer that `received` begins with; None: not whole yet. Raises FrameError."""


def wrong_function(request: Request, function: int) -> str:
    return f"it answered function {function} instead of {request.function}"


class Mbap:
    """Modbus TCP, also over UDP."""

    has_transactions = True

    def __init__(self, request: Request) -> None:
        self.request = request
        self._tail = struct.pack(">HHB", 0, len(request.pdu) + 1, request.unit_id) + request.pdu
        self._head = struct.pack(">HHB", 0, request.reply_size + 1, request.unit_id) + request.reply_head
        self._content = 2 + len(self._head)
        self._size = 7 + request.reply_size

    def encode(self, transaction: int) -> bytes:
        return _TRANSACTION.pack(transaction) + self._tail

    def match(self, transaction: int, received: bytes) -> Match | None:
        size = self._size
        if len(received) >= size and received.startswith(_TRANSACTION.pack(transaction) + self._head):
            return Match(received[self._content : size], size)
        return self._exception(transaction, received)

    def _exception(self, transaction: int, received: bytes) -> Match | None:
        """An exception, something incomplete, or something wrong."""
        if len(received) < _MBAP.size + 1:
            return None
        got_transaction, protocol, length, unit_id, function = _MBAP.unpack_from(received)
        request = self.request
        if protocol != 0:
            raise FrameError(f"what it sent is not Modbus TCP (protocol id {protocol} instead of 0)")
        if got_transaction != transaction:
            raise FrameError(f"it answered transaction {got_transaction} instead of {transaction}")
        if unit_id != request.unit_id:
            raise FrameError(f"it answered as unit {unit_id}")
        if function == request.function | 0x80:
            # Some devices forget to count the unit id in the length of an exception; no value depends on it.
            if length not in (2, 3):
                raise FrameError("its exception answer has a wrong length")
            return Match(received[8], 9)
        if function != request.function:
            raise FrameError(wrong_function(request, function))
        start = received[2 : self._content]
        if not self._head.startswith(start):
            raise FrameError(wrong_content(request))
        return None


def wrong_content(request: Request) -> str:
    if request.function <= 4:
        wanted = request.reply_size - len(request.reply_head)
        return f"it sent an answer of another length than the {wanted} bytes asked for"
    return "its answer to a write repeats something else than what was written"


class Rtu:
    """The frame of a serial line, also sent over TCP by simple serial servers. It numbers nothing."""

    has_transactions = False

    def __init__(self, request: Request) -> None:
        self.request = request
        body = bytes([request.unit_id]) + request.pdu
        self._frame = body + crc(body)
        self._head = bytes([request.unit_id]) + request.reply_head
        self._size = 1 + request.reply_size

    def encode(self, transaction: int) -> bytes:
        del transaction
        return self._frame

    def match(self, transaction: int, received: bytes) -> Match | None:
        del transaction
        request = self.request
        if received and received[0] != request.unit_id:
            raise FrameError(f"it answered as unit {received[0]}")
        if len(received) < 2:
            return None
        is_exception = received[1] == request.function | 0x80
        if not is_exception and received[1] != request.function:
            raise FrameError(wrong_function(request, received[1]))
        if not is_exception and not self._head.startswith(received[: len(self._head)]):
            raise FrameError(wrong_content(request))
        size = 3 if is_exception else self._size
        if len(received) < size + 2:
            return None
        if crc(received[:size]) != received[size : size + 2]:
            raise FrameError("the checksum of its answer is wrong")
        return Match(received[2] if is_exception else received[len(self._head) : size], size + 2)


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def crc(data: bytes) -> bytes:
    """CRC-16 of the serial line, as it travels: the low byte first."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _CRC_TABLE[(value ^ byte) & 0xFF]
    return value.to_bytes(2, "little")
