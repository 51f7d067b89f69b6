"""One Modbus request and what the right answer to it looks like, whatever the transport.

A request is a PDU: the function code and its data (MODBUS Application Protocol V1.1b3, 6). The answer to each of the
functions used here is known but for its content: `reply_head` is what it must begin with, `reply_size` how many bytes
it has, `reply_head` counted. An exception is the function code with its top bit set and one byte, the exception's code.

Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from protocols.field.modbus_address import Table

READ_FUNCTION = {Table.COIL: 1, Table.DISCRETE: 2, Table.HOLDING: 3, Table.INPUT: 4}


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Built once and asked any number of times. Compared by identity, so that it can be a key."""

    unit_id: int
    pdu: bytes
    reply_head: bytes
    reply_size: int

    @property
    def function(self) -> int:
        return self.pdu[0]


def read_request(unit_id: int, table: Table, address: int, count: int) -> Request:
    """Asks for `count` registers or bits. Its answer holds big-endian registers, or bits, the first one lowest."""
    function = READ_FUNCTION[table]
    size = (count + 7) // 8 if table.holds_bits else 2 * count
    return Request(unit_id, struct.pack(">BHH", function, address, count), bytes([function, size]), size + 2)


def write_coil_request(unit_id: int, address: int, bit: bool) -> Request:
    """Function 5."""
    return _echoed(unit_id, struct.pack(">BHH", 5, address, 0xFF00 if bit else 0))


def write_register_request(unit_id: int, address: int, content: bytes) -> Request:
    """Function 6: two bytes."""
    return _echoed(unit_id, struct.pack(">BH", 6, address) + content)


def write_coils_request(unit_id: int, address: int, bits: Sequence[bool]) -> Request:
    """Function 15."""
    content = packed(bits)
    head = struct.pack(">BHH", 15, address, len(bits))
    return Request(unit_id, head + bytes([len(content)]) + content, head, len(head))


def write_registers_request(unit_id: int, address: int, content: bytes) -> Request:
    """Function 16: two bytes per register."""
    head = struct.pack(">BHH", 16, address, len(content) // 2)
    return Request(unit_id, head + bytes([len(content)]) + content, head, len(head))


def mask_write_request(unit_id: int, address: int, and_mask: int, or_mask: int) -> Request:
    """Function 22: the device itself sets the register to (content AND and_mask) OR (or_mask AND NOT and_mask)."""
    return _echoed(unit_id, struct.pack(">BHHH", 22, address, and_mask, or_mask))


def packed(bits: Sequence[int]) -> bytes:
    """Bits (0 or 1) as they travel: eight in a byte, the first one lowest."""
    return sum(bit << at for at, bit in enumerate(bits)).to_bytes((len(bits) + 7) // 8, "little")


def _echoed(unit_id: int, pdu: bytes) -> Request:
    """A request whose answer repeats it."""
    return Request(unit_id, pdu, pdu, len(pdu))


_TABLES = {function: table for table, function in READ_FUNCTION.items()}
_PDU_SIZES = {5: 5, 6: 5, 22: 7}


def request_of(unit_id: int, pdu: bytes) -> Request | None:
    """The request that a PDU is, with what its right answer looks like; None where it is none of those above."""
    function = pdu[0] if pdu else 0
    if function in _TABLES and len(pdu) == 5:
        address, count = struct.unpack_from(">HH", pdu, 1)
        is_possible = 1 <= count <= (2000 if _TABLES[function].holds_bits else 125)
        return read_request(unit_id, _TABLES[function], address, count) if is_possible else None
    if function in _PDU_SIZES and len(pdu) == _PDU_SIZES[function]:
        return _echoed(unit_id, pdu)
    if function in (15, 16) and len(pdu) > 6 and len(pdu) == 6 + pdu[5]:
        return Request(unit_id, pdu, pdu[:5], 5)
    return None


def place_of(pdu: bytes) -> tuple[Table, int, int] | None:
    """Table, address and count that a PDU is about; None where it is none of those above."""
    if request_of(0, pdu) is None:
        return None
    function = pdu[0]
    address, number = struct.unpack_from(">HH", pdu, 1)
    if function in _TABLES:
        return _TABLES[function], address, number
    table = Table.COIL if function in (5, 15) else Table.HOLDING
    return table, address, number if function in (15, 16) else 1
