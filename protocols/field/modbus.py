"""Modbus TCP: reads coils, discrete inputs, input and holding registers of one device over one connection.

One read of a group, in order: the planned blocks (`modbus_plan`) are asked for one after another
(`modbus_line`), each answer is decoded as a whole (`modbus_codec`), and the values take their tags' places. A block
that the device refuses makes its own tags bad and no others. A time-out or a lost line ends the read, and the
connection with it. Modbus carries no time: a scan's `time_us` is the moment of its last answer, to the millisecond.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from protocols.field.contract import (
    DeviceAway,
    DeviceTimeout,
    Group,
    Quality,
    Scan,
    StrictModel,
    Tag,
    TagSettingsBase,
    Value,
    ValueType,
)
from protocols.field.modbus_address import LAST_ADDRESS, NOTATIONS, Table, parse, place
from protocols.field.modbus_codec import BitDecoder, Encoding, Order, RegisterDecoder, Type, run_of
from protocols.field.modbus_plan import Block, Branch, Limits, Round, Span, plan

if TYPE_CHECKING:
    from protocols.field.modbus_line import Line


class Settings(StrictModel):
    """The keys of a device with `protocol: modbus`."""

    host: str = Field(
        pattern=r"^[^\s/\x00]{1,253}$", description="IP address or name of the PLC, or of the gateway in front of it."
    )
    port: int = Field(502, ge=1, le=65535, description="TCP port.")
    unit_id: int = Field(
        1,
        ge=0,
        le=255,
        description="Unit id (slave address). A PLC with its own Ethernet port mostly takes 1, 0 or 255; behind a "
        "gateway it selects the device on the serial line.",
    )
    timeout_s: float = Field(
        1.0, gt=0, le=60, description="Seconds to wait for the connection, and for each answer, before reconnecting."
    )
    max_registers: int = Field(
        125, ge=1, le=125, description="Most registers in one request. The standard allows 125; some devices fewer."
    )
    max_bits: int = Field(
        2000, ge=1, le=2000, description="Most coils or discrete inputs in one request. The standard allows 2000."
    )
    max_gap: int = Field(
        16,
        ge=0,
        le=125,
        description="Registers between two tags that no tag needs are read through, to save a request, when they are "
        "no more than this (sixteen times as many for coils and discrete inputs). 0 reads only what is configured.",
    )
    order: Order = Field(
        "ABCD",
        description="Byte and word order of the device's values, A being the most significant byte: ABCD (the "
        "standard), CDAB (words swapped), BADC (bytes swapped), DCBA (both). A tag can have its own.",
    )


class TagSettings(TagSettingsBase):
    """The keys of a tag of such a device."""

    address: int | str = Field(
        description="Where the value begins: the classic reference, from 1, as 40001 or 400001 (the first digit is the "
        'table: 4 holding, 3 input, 1 discrete, "0…" coil, in quotes), or the table and the address from 0, as '
        "holding:0, input:0, discrete:0, coil:0.",
        examples=[40001, 300001, "holding:0", "coil:0"],
    )
    type: Type | None = Field(
        None,
        description="Type of the value in the device. Without it: bool for coils, discrete inputs and with `bit`, "
        "otherwise uint16. bool of a whole register is true unless the register is 0.",
    )
    bit: int | None = Field(
        None, ge=0, le=15, description="One bit of a register as a bool; 0 is the least significant."
    )
    length: int | None = Field(None, ge=1, le=250, description="Length of a string in characters, two per register.")
    order: Order | None = Field(None, description="Byte and word order of this tag, where it is not the device's.")
    scale: float = Field(
        1.0, ge=-1e100, le=1e100, allow_inf_nan=False, description="value = raw × scale + offset, as a float64."
    )
    offset: float = Field(0.0, ge=-1e100, le=1e100, allow_inf_nan=False, description="See scale.")
    unit_id: int | None = Field(
        None,
        ge=0,
        le=255,
        description="Unit id of this tag, where it is not the device's. When one unit falls silent the whole device "
        "counts as away: give a unit that may be switched off a device of its own.",
    )

    @field_validator("address")
    @classmethod
    def _is_address(cls, address: int | str) -> int | str:
        parse(address)
        return address


GroupSettings = StrictModel


@dataclass(frozen=True, slots=True)
class Point:
    """Where a tag lives and how it is written. Without unit id or order of its own it has the device's."""

    table: Table
    address: int  # from 0
    encoding: Encoding
    unit_id: int | None
    has_order: bool

    @property
    def size(self) -> int:
        """In registers, or bits."""
        return 1 if self.table.holds_bits else self.encoding.registers


def tag(settings: TagSettings) -> Tag:
    """The tag of these settings. Raises ValueError with a sentence when they contradict each other."""
    table, address = parse(settings.address)
    if problem := _contradiction(settings, table):
        raise ValueError(f"tag {settings.name}: {problem}")
    is_bool = table.holds_bits or settings.bit is not None
    encoding = Encoding(
        type=settings.type or ("bool" if is_bool else "uint16"),
        order=settings.order or "ABCD",
        bit=settings.bit,
        length=settings.length or 0,
        scale=float(settings.scale),
        offset=float(settings.offset),
    )
    point = Point(table, address, encoding, settings.unit_id, settings.order is not None)
    if address + point.size - 1 > LAST_ADDRESS:
        raise ValueError(
            f"tag {settings.name}: its {point.size} registers from {place(table, address, 1)} on would end behind the "
            f"last one, {place(table, LAST_ADDRESS, 1)}; {NOTATIONS}"
        )
    return Tag(settings.name, _value_type(encoding), settings.unit, point)


def _contradiction(settings: TagSettings, table: Table) -> str:
    """What cannot be meant, and what to do; "" where all is well."""
    scaled = settings.scale != 1 or settings.offset != 0
    if settings.scale == 0:
        return "scale 0 would make every value the offset; leave scale out, or give the factor"
    if table.holds_bits and (settings.type not in (None, "bool") or scaled or settings.order):
        return f"a {table} holds one bit, so its type is bool, without scale, offset or order; was a register meant?"
    if table.holds_bits and settings.bit is not None:
        return f"`bit` is for registers, and {settings.address} is a {table}, which is one bit; leave `bit` out"
    if settings.bit is not None and settings.type not in (None, "bool"):
        return f"`bit` makes a bool, not {settings.type}; leave `type` or `bit` out"
    if settings.type == "string" and settings.length is None:
        return "a string needs its `length` in characters"
    if settings.type != "string" and settings.length is not None:
        return "`length` is for strings; leave it out, or set `type: string`"
    if scaled and (settings.type in ("bool", "string") or settings.bit is not None):
        return "scale and offset are for numbers; leave them out"
    return ""


def _value_type(encoding: Encoding) -> ValueType:
    if encoding.is_scaled:
        return ValueType.FLOAT64
    return {
        "bool": ValueType.BOOL,
        "string": ValueType.STRING,
        "float32": ValueType.FLOAT32,
        "float64": ValueType.FLOAT64,
    }.get(encoding.type) or (ValueType.UINT if encoding.type.startswith("u") else ValueType.INT)


def driver(name: str, settings: Settings, groups: Sequence[Group]) -> ModbusDriver:
    """The driver of one device. Raises ValueError with a sentence when a tag does not fit into one request."""
    return ModbusDriver(name, settings, groups)


@dataclass(frozen=True, slots=True)
class _Reader:
    """What is compiled once for each block: its decoder, and where its values go in the group."""

    decoder: BitDecoder | RegisterDecoder
    indexes: Sequence[int]
    run: slice | None  # the same, where they follow one another


class ModbusDriver:
    """See the contract. Errors name the device, the protocol, the endpoint and the unit id."""

    def __init__(self, name: str, settings: Settings, groups: Sequence[Group]) -> None:
        self.requests = 0
        self._name = name
        self._settings = settings
        self._line: Line | None = None
        self._first_transaction = random.randrange(65_536)
        try:
            self._branches = {group.name: self._plan(group) for group in groups}
        except ValueError as error:
            raise ValueError(f"{self._where(settings.unit_id)}: {error}; raise max_registers or shorten it") from error

    def _plan(self, group: Group) -> list[Branch[_Reader]]:
        settings = self._settings
        spans = [
            Span(settings.unit_id if point.unit_id is None else point.unit_id, point.table, point.address, point.size)
            for point in (tag.address for tag in group.tags)
        ]
        blocks = plan(spans, Limits(settings.max_registers, settings.max_bits, settings.max_gap))
        return [Branch(block) for block in blocks]

    def _where(self, unit_id: int) -> str:
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        return f"{self._name} (modbus {host}:{self._settings.port}, unit {unit_id})"

    async def connect(self) -> None:
        """A new connection in place of any earlier one. Raises DeviceAway."""
        # pymodbus takes 150 ms to import: `holdfast check` and `--help` need none of it.
        from protocols.field.modbus_line import Line

        await self.close()
        settings = self._settings
        try:
            transaction = self._first_transaction + self.requests
            self._line = await Line.open(settings.host, settings.port, settings.timeout_s, transaction)
        except (OSError, UnicodeError) as error:  # UnicodeError: no host can have such a name
            raise DeviceAway(f"{self._where(settings.unit_id)}: {self._why_no_connection(error)}") from error
        for branches in self._branches.values():
            for branch in branches:
                branch.wake()

    def _why_no_connection(self, error: OSError | UnicodeError) -> str:
        match error:
            case TimeoutError():
                waited = f"{self._settings.timeout_s:g} s"
                return f"no connection within {waited}; check that it is switched on, its address and the cabling."
            case ConnectionRefusedError():
                return "the connection was refused; check the address and the port, and that Modbus TCP is enabled."
            case socket.gaierror() | UnicodeError():
                return "this host name is not known; check `host`, or write the IP address."
        # Without a number the name had several addresses, each with an error of its own.
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        return f"no connection ({reason}); check the address and the network."

    async def read(self, group: Group) -> Sequence[Scan]:
        """One full scan. Raises DeviceTimeout or DeviceAway when an answer is missing or wrong."""
        line = self._line
        if line is None:
            raise DeviceAway(f"{self._where(self._settings.unit_id)}: not connected; connect first.")
        if line.fault:
            await self.close()
            raise self._lost(self._settings.unit_id, line.fault)
        values: list[Value] = [None] * len(group.tags)
        bad: dict[int, tuple[int, str]] = {}  # index → quality and reason
        time_us = _now_us()
        round_ = Round(self._branches[group.name])
        while (branch := round_.next()) is not None:
            answer = await self._ask(line, branch.block)
            time_us = _now_us()
            if isinstance(answer, bytes):
                branch.answered()
                self._take(group, branch, answer, values, bad)
            else:
                round_.refuse(branch, answer)
        for branch in round_.refused:
            verdict = _verdict(branch.block, branch.code, self._settings.unit_id)
            bad.update(dict.fromkeys(branch.block.members, verdict))
        quality = [bad[index][0] if index in bad else Quality.GOOD for index in range(len(values))] if bad else None
        return [Scan(group, time_us, values, None, quality, {index: bad[index][1] for index in sorted(bad)})]

    async def _ask(self, line: Line, block: Block) -> bytes | int:
        """What Line.ask returns; its errors in the contract's words, after closing the connection."""
        self.requests += 1
        try:
            return await line.ask(block)
        except TimeoutError as error:
            await self.close()
            where, waited = self._where(block.unit_id), f"{self._settings.timeout_s:g} s"
            raise DeviceTimeout(
                f"{where}: no answer within {waited}; check the unit id, and that the PLC is in RUN."
            ) from error
        except OSError as error:
            await self.close()
            raise self._lost(block.unit_id, str(error)) from error

    def _lost(self, unit_id: int, why: str) -> DeviceAway:
        return DeviceAway(f"{self._where(unit_id)}: {why}; check the unit id, and how many clients the PLC allows.")

    def _take(
        self,
        group: Group,
        branch: Branch[_Reader],
        answer: bytes,
        values: list[Value],
        bad: dict[int, tuple[int, str]],
    ) -> None:
        """Decodes the answer of a block into the group's values."""
        reader = branch.tool
        if reader is None:
            reader = branch.tool = self._reader(group, branch.block)
        decoded, nonfinite = reader.decoder.decode(answer)
        if reader.run is not None:
            values[reader.run] = decoded
        else:
            for index, value in zip(reader.indexes, decoded, strict=True):
                values[index] = value
        for position, number in nonfinite.items():
            tag = group.tags[reader.indexes[position]]
            bad[reader.indexes[position]] = (Quality.BAD_OUT_OF_RANGE, self._no_number(tag.address, number))

    def _reader(self, group: Group, block: Block) -> _Reader:
        if block.table.holds_bits:
            bits = BitDecoder([span.address - block.address for span in block.spans])
            return _Reader(bits, block.members, run_of(block.members))
        items = [
            (span.address - block.address, self._encoding(group.tags[index].address))
            for index, span in zip(block.members, block.spans, strict=True)
        ]
        return _Reader(RegisterDecoder(block.count, items), block.members, run_of(block.members))

    def _encoding(self, point: Point) -> Encoding:
        return point.encoding if point.has_order else replace(point.encoding, order=self._settings.order)

    def _no_number(self, point: Point, number: float) -> str:
        what = "NaN (not a number)" if math.isnan(number) else "infinity"
        encoding = self._encoding(point)
        return (
            f"{place(point.table, point.address, point.size)}: the device sent {what} as {encoding.type} "
            f"{encoding.order}; it has no value now, or the type or the byte order is another"
        )

    async def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()
            await asyncio.sleep(0)  # the loop closes the socket in its next turn


def _now_us() -> int:
    return time.time_ns() // 1_000_000 * 1000


_EXCEPTIONS = {
    1: (Quality.BAD_NOT_SUPPORTED, "illegal function", "this PLC does not serve this table; use another one"),
    2: (
        Quality.BAD_OUT_OF_RANGE,
        "illegal data address",
        "check the address and whether this PLC counts from 0 or 1",
    ),
    3: (Quality.BAD_OUT_OF_RANGE, "illegal data value", "check the address, and try a smaller max_registers"),
    4: (Quality.BAD_DEVICE_FAILURE, "server device failure", "look at the PLC's own diagnostics"),
    5: (Quality.BAD_COMMUNICATION, "acknowledge", "it is still busy with this request; read less often"),
    6: (Quality.BAD_COMMUNICATION, "server device busy", "it had no time to answer; read less often"),
    8: (Quality.BAD_DEVICE_FAILURE, "memory parity error", "look at the PLC's own diagnostics"),
    10: (Quality.BAD_COMMUNICATION, "gateway path unavailable", "check how the gateway is set up for this unit id"),
    11: (
        Quality.BAD_TIMEOUT,
        "gateway target device failed to respond",
        "check the unit id, and that the device behind the gateway is switched on",
    ),
}
"""Exception code → quality, the standard's name (Application Protocol V1.1b3, 7), what to do."""


def _verdict(block: Block, code: int, unit_id: int) -> tuple[int, str]:
    """Quality and reason of the tags of a block that the device refused with an exception."""
    quality, name, advice = _EXCEPTIONS.get(
        code, (Quality.BAD_COMMUNICATION, "which the standard does not know", "look it up in the PLC's manual")
    )
    where = place(block.table, block.address, block.count)
    if block.unit_id != unit_id:
        where = f"unit {block.unit_id}, {where}"
    return quality, f"{where}: the PLC answered exception {code}, {name}; {advice}"
