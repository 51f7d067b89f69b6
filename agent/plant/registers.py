"""The registers of simulated Modbus units, computed from their tags when somebody asks. Pure, but for what was written.

A register exists where a tag has one; a read that also touches others gets zeros for them, as long as it touches a tag,
because the driver reads through gaps. What is written to a tag's coil or register stays.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from agent.plant import plausible
from agent.plant.plausible import Bounds
from protocols.field.contract import Group, Tag
from protocols.field.modbus_address import Table
from protocols.field.modbus_codec import Encoding, swap_bytes
from protocols.field.modbus_encode import to_registers
from protocols.field.modbus_request import READ_FUNCTION, packed
from protocols.field.modbus_server import Asked
from protocols.field.modbus_settings import Point, Settings
from protocols.field.modbus_times import REGISTERS, now_iso

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, NO_SUCH_UNIT = 1, 2, 3, 11

_TABLES = {function: table for table, function in READ_FUNCTION.items()}
_RAW_LIMIT = 1e15  # whole numbers beyond are not exact as floats

Make = Callable[[int], bytes]
"""Microseconds since 1970 → the registers, two bytes each; of a bit table one byte, 0 or 1."""


@dataclass(frozen=True, slots=True)
class Item:
    """A tag's part of a table. `mask`: which bits of its register it is; None: all of its registers."""

    address: int
    size: int
    make: Make
    mask: int | None = None


class Units:
    """`devices`: the settings and groups of each device behind one endpoint."""

    def __init__(self, devices: Iterable[tuple[Settings, Sequence[Group]]], now_us: Callable[[], int]) -> None:
        self.asked = 0
        self._now_us = now_us
        self._items: dict[tuple[int, Table], dict[int, list[Item]]] = {}
        self._written: dict[tuple[int, Table], dict[int, bytes]] = {}
        for settings, groups in devices:
            for group in groups:
                for tag in group.tags:
                    self._add(settings, group, tag)
        self.unit_ids = sorted({unit_id for unit_id, _ in self._items})

    def _add(self, settings: Settings, group: Group, tag: Tag) -> None:
        point: Point = tag.address
        unit_id = settings.unit_id if point.unit_id is None else point.unit_id
        encoding = point.encoding if point.has_order else replace(point.encoding, order=settings.order)
        item = _item(tag, point, encoding, group.period_s)
        at = self._items.setdefault((unit_id, point.table), {})
        for address in range(item.address, item.address + item.size):
            at.setdefault(address, []).append(item)

    def answer(self, asked: Asked) -> bytes:
        """The PDU of the reply."""
        self.asked += 1
        function = asked.pdu[0] if asked.pdu else 0
        if asked.unit_id not in self.unit_ids:
            return _refusal(function, NO_SUCH_UNIT)
        if function in _TABLES and len(asked.pdu) == 5:
            address, count = struct.unpack_from(">HH", asked.pdu, 1)
            return self._read(asked.unit_id, function, address, count)
        if function in (5, 6, 15, 16, 22) and len(asked.pdu) >= 5:
            return self._write(asked.unit_id, asked.pdu)
        return _refusal(function, ILLEGAL_FUNCTION)

    def _read(self, unit_id: int, function: int, address: int, count: int) -> bytes:
        table = _TABLES[function]
        if not 1 <= count <= (2000 if table.holds_bits else 125):
            return _refusal(function, ILLEGAL_VALUE)
        cells = self._cells(unit_id, table, address, count)
        if cells is None:
            return _refusal(function, ILLEGAL_ADDRESS)
        content = packed([cell[0] for cell in cells]) if table.holds_bits else b"".join(cells)
        return bytes([function, len(content)]) + content

    def _cells(self, unit_id: int, table: Table, address: int, count: int) -> list[bytes] | None:
        """Each register or bit from `address` on; None where no tag has one of them."""
        there, end = self._items.get((unit_id, table), {}), address + count
        items = {id(item): item for at in range(address, end) for item in there.get(at, ())}
        if not items or end > 65_536:
            return None
        now_us, empty = self._now_us(), b"\0" if table.holds_bits else b"\0\0"
        cells = dict.fromkeys(range(address, end), empty)
        for item in sorted(items.values(), key=lambda one: one.mask is None):  # bits first: whole values are right
            made, width = item.make(now_us), len(empty)
            for offset in range(item.size):
                cell = made[offset * width : (offset + 1) * width]
                at = item.address + offset
                if at in cells:
                    cells[at] = cell if item.mask is None else _merged(cells[at], cell, item.mask)
        cells |= {at: cell for at, cell in self._written.get((unit_id, table), {}).items() if at in cells}
        return [cells[at] for at in range(address, end)]

    def _write(self, unit_id: int, pdu: bytes) -> bytes:
        """Functions 5, 6, 15, 16 and 22; what is written stays."""
        function, address, number = struct.unpack_from(">BHH", pdu)
        table = Table.COIL if function in (5, 15) else Table.HOLDING
        count = number if function in (15, 16) else 1
        before = self._cells(unit_id, table, address, count) if 1 <= count <= 2000 else None
        there = self._items.get((unit_id, table), {})
        if before is None or any(at not in there for at in range(address, address + count)):
            return _refusal(function, ILLEGAL_ADDRESS)
        cells = _wanted(pdu, before)
        if cells is None:
            return _refusal(function, ILLEGAL_VALUE)
        self._written.setdefault((unit_id, table), {}).update(enumerate(cells, address))
        return pdu[:5] if function in (15, 16) else pdu


def _wanted(pdu: bytes, before: Sequence[bytes]) -> list[bytes] | None:
    """The cells that a write asks for; None where its content does not fit."""
    function, count, content = pdu[0], len(before), pdu[6:]
    match function:
        case 5:
            return [b"\1" if pdu[3] else b"\0"]
        case 6:
            return [pdu[3:5]]
        case 15 if len(content) == (count + 7) // 8:
            return [bytes([content[at // 8] >> at % 8 & 1]) for at in range(count)]
        case 16 if len(content) == 2 * count:
            return [content[at : at + 2] for at in range(0, 2 * count, 2)]
        case 22 if len(pdu) == 7:
            keep, put = struct.unpack_from(">HH", pdu, 3)
            return [(int.from_bytes(before[0], "big") & keep | put & ~keep & 0xFFFF).to_bytes(2, "big")]
    return None


def _item(tag: Tag, point: Point, encoding: Encoding, period_s: float) -> Item:
    name = tag.name
    if point.table.holds_bits:
        return Item(point.address, 1, lambda us: bytes([plausible.truth(name, us)]))
    number = _whole(tag, point, encoding, period_s)
    if encoding.bit is not None:
        return _field(point, encoding, number)
    make = _raw(tag, point, encoding, number)
    return Item(point.address, point.size, lambda us: to_registers(encoding, make(us)))


def _field(point: Point, encoding: Encoding, number: Callable[[int], int]) -> Item:
    """Bits of one register."""
    bit, ones = encoding.bit or 0, (1 << encoding.bit_count) - 1
    is_swapped = encoding.order in ("BADC", "DCBA")

    def register(value: int) -> bytes:
        raw = (value << bit).to_bytes(2, "big")
        return swap_bytes(raw) if is_swapped else raw

    mask = int.from_bytes(register(ones), "big")
    return Item(point.address, 1, lambda us: register(number(us) & ones), mask)


def _raw(
    tag: Tag, point: Point, encoding: Encoding, number: Callable[[int], int]
) -> Callable[[int], bool | float | str]:
    """What the registers hold, before it is encoded."""
    name = tag.name
    if encoding.type == "bool":
        return lambda us: plausible.truth(name, us)
    if encoding.type == "string":
        return lambda us: plausible.text(name, encoding.length, us)
    if encoding.type in REGISTERS:
        return lambda us: now_iso(encoding.type, us)
    if encoding.is_float:
        bounds = _bounds(point, encoding)
        return lambda us: (plausible.number(name, tag.unit, bounds, us) - encoding.offset) / encoding.scale
    return number


def _whole(tag: Tag, point: Point, encoding: Encoding, period_s: float) -> Callable[[int], int]:
    """The raw number of a tag that is a whole one in the device."""
    meaning, name = point.meaning, tag.name
    if meaning is not None and meaning.states:
        numbers = sorted(meaning.states)
        return lambda us: numbers[plausible.turn(len(numbers), plausible.SQUARE_S, us)]
    if meaning is not None and meaning.flags:
        bits = sorted(meaning.flags)
        return lambda us: sum(1 << bit for bit in bits if plausible.truth(f"{name}/{bit}", us))
    if point.counter_step_max:
        step = max(1, point.counter_step_max // 10)  # so that a missed read is no reset either
        return lambda us: int(us / 1e6 / period_s) * step % encoding.capacity
    if encoding.bit is not None and encoding.bit_count == 1:
        return lambda us: int(plausible.truth(name, us))
    if encoding.bit is not None:
        return lambda us: plausible.turn(1 << encoding.bit_count, plausible.SQUARE_S, us)
    bounds, marks = _bounds(point, encoding), encoding.marks

    def number(us: int) -> int:
        raw = round((plausible.number(name, tag.unit, bounds, us) - encoding.offset) / encoding.scale)
        low, high = _raw_range(encoding)
        raw = min(max(raw, low), high)
        near = (raw + way * far for far in range(len(marks) + 1) for way in (1, -1))
        return next((one for one in near if one not in marks and low <= one <= high), raw)

    return number


def _bounds(point: Point, encoding: Encoding) -> Bounds:
    """What the tag may show: by its type and scaling, and its clamp."""
    low, high = sorted(raw * encoding.scale + encoding.offset for raw in _raw_range(encoding))
    meaning = point.meaning
    if meaning is not None:
        low = low if meaning.low is None else max(low, meaning.low)
        high = high if meaning.high is None else min(high, meaning.high)
    return Bounds(low, high)


def _raw_range(encoding: Encoding) -> tuple[int, int]:
    if encoding.is_float:
        limit = 60_000 if encoding.type == "float16" else int(_RAW_LIMIT)
        return -limit, limit
    if encoding.type.startswith("int"):
        high = (1 << 16 * encoding.registers - 1) - 1
        return max(-high - 1, -int(_RAW_LIMIT)), min(high, int(_RAW_LIMIT))
    return 0, min(encoding.capacity - 1, int(_RAW_LIMIT))


def _merged(cell: bytes, bits: bytes, mask: int) -> bytes:
    return (int.from_bytes(cell, "big") & ~mask | int.from_bytes(bits, "big") & mask).to_bytes(2, "big")


def _refusal(function: int, code: int) -> bytes:
    return bytes([function & 0x7F | 0x80, code])
