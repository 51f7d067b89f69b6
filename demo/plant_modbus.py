"""Two PLCs that speak Modbus TCP: "solar" replays a real recording, "press" is a made-up deep-drawing press.

A PLC is a list of points. A point is a tag as the agent is configured with it, plus the signal behind it. All of a
table's registers are a pure function of the moment (`words`), computed when a client asks, at most once per tick:
values of one answer belong together, and a PLC that nobody reads costs nothing. Everything is read only; a write
is answered with exception 2.

Addresses without a point do not exist. On "solar" holding registers 40 to 44 are such a hole, between registers that
do exist, and one tag points into it: its reading must be bad, and its neighbours' must not.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demo.signals import TICK_S, Moment, Signal, Value, alternating, constant, counter, recorded, recorded_time, wave

if TYPE_CHECKING:  # pymodbus takes a third of a second to import: only a started PLC needs it
    from pymodbus.constants import ExcCodes
    from pymodbus.server import ModbusTcpServer

HOST = "127.0.0.1"
BIT_TABLES = ("coil", "discrete")
TABLES = (*BIT_TABLES, "holding", "input")  # in the order of pymodbus's SimDevice
TABLE_OF_FUNCTION = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
FORMATS = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "float32": "f", "float64": "d"}
CYCLE_TICKS = 40  # one stroke of the press: 4 s


@dataclass(frozen=True, slots=True)
class Point:
    """A tag of a Modbus device. Published value = raw × scale + offset. `signal` None: the register does not exist.

    `address` is the 0-based protocol address. `bit` counts from the least significant one. `length` is a string's
    number of characters, two in each register. `order` is how the bytes of one big-endian value ABCD lie in the
    registers; of eight bytes, CDAB stands for GHEFCDAB, and so on.
    """

    name: str
    table: str
    address: int
    type: str
    signal: Signal | None
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    order: str = "ABCD"
    bit: int | None = None
    length: int | None = None
    fast: bool = False

    @property
    def register_count(self) -> int:
        """How many registers (or coils) it takes."""
        if self.type == "string":
            return ((self.length or 0) + 1) // 2
        return struct.calcsize(FORMATS[self.type]) // 2 if self.type in FORMATS else 1

    def tag(self) -> dict[str, Any]:
        """The tag as the agent's configuration has it; what is at its default is left out."""
        tag: dict[str, Any] = {"name": self.name, "address": f"{self.table}:{self.address}", "type": self.type}
        if self.register_count > 1 and self.type != "string":
            tag["order"] = self.order
        optional = {"bit": self.bit, "length": self.length, "unit": self.unit or None}
        tag |= {key: value for key, value in optional.items() if value is not None}
        if self.scale != 1.0:
            tag["scale"] = self.scale
        if self.offset:
            tag["offset"] = self.offset
        return tag


def encode(point: Point, value: Value) -> list[int]:
    """The registers that hold a value. Integers too large for their type saturate, as in a PLC."""
    if point.type == "string":
        data = str(value).encode("ascii")[: point.length].ljust(point.register_count * 2, b"\0")
        return list(struct.unpack(f">{point.register_count}H", data))
    number = float(value) if point.type.startswith("float") else _integer(point, value)
    data = struct.pack(">" + FORMATS[point.type], number)
    registers = list(struct.unpack(f">{point.register_count}H", data))
    if point.order in ("CDAB", "DCBA"):
        registers.reverse()
    if point.order in ("BADC", "DCBA"):
        registers = [register >> 8 | (register & 0xFF) << 8 for register in registers]
    return registers


def _integer(point: Point, value: Value) -> int:
    unscaled = point.scale == 1.0 and not point.offset
    raw = int(value) if unscaled else round((float(value) - point.offset) / point.scale)
    bits = struct.calcsize(FORMATS[point.type]) * 8
    low = 0 if point.type.startswith("u") else -(1 << bits - 1)
    return min(max(raw, low), low + (1 << bits) - 1)


def addresses(points: Iterable[Point], table: str) -> set[int]:
    """The addresses that exist in a table."""
    here = (point for point in points if point.table == table and point.signal)
    return {point.address + i for point in here for i in range(point.register_count)}


def words(points: Iterable[Point], table: str, moment: Moment) -> list[int]:
    """A whole table from address 0 on, holes as 0; of a table of bits, 16 in each word, the first one lowest."""
    bits = table in BIT_TABLES
    image = [0] * (max(addresses(points, table)) // (16 if bits else 1) + 1)
    for point in points:
        if point.table != table or point.signal is None:
            continue
        value = point.signal(moment)
        if bits:
            image[point.address // 16] |= bool(value) << point.address % 16
        elif point.bit is not None:
            image[point.address] |= bool(value) << point.bit
        else:
            image[point.address : point.address + point.register_count] = encode(point, value)
    return image


class ModbusPlc:
    """One PLC on a real socket of 127.0.0.1. `now` gives the moment that its registers show."""

    def __init__(self, unit_id: int, points: Sequence[Point], now: Callable[[], Moment]) -> None:
        self._unit_id = unit_id
        self._points = points
        self._now = now
        self._shown: dict[str, int] = {}  # table → tick of what its registers hold
        self._server: ModbusTcpServer | None = None

    async def start(self, port: int) -> int:
        """Listen, and return the port (a free one for 0). Raises OSError when the port cannot be had."""
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import SimDevice

        coils, discretes, holdings, inputs = (self._blocks(table) for table in TABLES)
        device = SimDevice(self._unit_id, (coils, discretes, holdings, inputs), action=self._refresh)
        self._server = ModbusTcpServer(device, address=(HOST, port))
        if not await self._server.listen():  # it has swallowed the reason
            raise OSError(f"port {port} of {HOST} cannot be listened on")
        listener = self._server.transport
        return int(listener.sockets[0].getsockname()[1])  # type: ignore[attr-defined]  # pymodbus calls the asyncio server a transport

    async def stop(self) -> None:
        """Close the listener and all connections."""
        if self._server:
            await self._server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus left it unannotated

    def _blocks(self, table: str) -> list[Any]:
        """pymodbus's description of a table: one block for each run of addresses that exist, values to be filled in."""
        from pymodbus.simulator import DataType, SimData

        there = addresses(self._points, table)
        starts = sorted(address for address in there if address - 1 not in there)
        blocks = []
        for start in starts:
            count = next(n for n in range(1, len(there) + 1) if start + n not in there)
            if table in BIT_TABLES:
                blocks.append(SimData(start, values=[False] * count, datatype=DataType.BITS, readonly=True))
            else:
                blocks.append(SimData(start, values=[0] * count, datatype=DataType.REGISTERS, readonly=True))
        return blocks

    async def _refresh(
        self,
        function: int,
        _start: int,
        _address: int,
        _count: int,
        registers: list[int],
        _written: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Called by pymodbus before it answers; `registers` is the whole table, to be changed in place."""
        table = TABLE_OF_FUNCTION[function]
        moment = self._now()
        if self._shown.get(table) != moment.tick:
            image = words(self._points, table, moment)
            registers[: len(image)] = image
            self._shown[table] = moment.tick
        return None


def _is_on(column: str) -> Signal:
    level = recorded(column)
    return lambda moment: level(moment) > 0


def _is_there(column: str) -> Signal:
    """Whether the recorded sensor is connected: the controller reports these numbers for one that is not."""
    level = recorded(column)
    return lambda moment: level(moment) not in (888.8, -88.8, -999.9, -9999)


def _collector_gain(moment: Moment) -> float:
    return moment.row.numbers["temp_1_c"] - moment.row.numbers["temp_2_c"]


def _row_number(moment: Moment) -> int:
    return moment.row_number


SOLAR_UNIT_ID = 1
HOLE = range(40, 45)  # holding registers of "solar" that do not exist
SOLAR: tuple[Point, ...] = (
    Point("temp_1", "holding", 0, "float32", recorded("temp_1_c"), "°C"),
    Point("temp_2", "holding", 2, "float32", recorded("temp_2_c"), "°C"),
    Point("temp_3", "holding", 4, "float32", recorded("temp_3_c"), "°C"),
    Point("temp_5", "holding", 6, "float32", recorded("temp_5_c"), "°C"),
    Point("temp_4", "holding", 8, "int16", recorded("temp_4_c"), "°C", scale=0.1),
    Point("temp_6", "holding", 9, "int16", recorded("temp_6_c"), "°C", scale=0.1),
    Point("temp_8", "holding", 10, "int16", recorded("temp_8_c"), "°C", scale=0.1),
    Point("flow_9", "holding", 11, "int16", recorded("flow_9_lph"), "l/h"),
    Point("flow_v40", "holding", 12, "uint16", recorded("flow_v40_lph"), "l/h"),
    Point("pwm_1", "holding", 13, "uint16", recorded("pwm_1_pct"), "%"),
    Point("pwm_2", "holding", 14, "uint16", recorded("pwm_2_pct"), "%"),
    Point("relay_1_level", "holding", 15, "uint16", recorded("relay_1_pct"), "%"),
    Point("relay_3_level", "holding", 16, "uint16", recorded("relay_3_pct"), "%"),
    Point("unit_code", "holding", 17, "uint16", recorded("unit")),
    Point("relay_1_seconds", "holding", 18, "uint32", recorded("relay_1_seconds"), "s", order="CDAB"),
    Point("relay_2_seconds", "holding", 20, "uint32", recorded("relay_2_seconds"), "s", order="CDAB"),
    Point("relay_3_seconds", "holding", 22, "uint32", recorded("relay_3_seconds"), "s", order="CDAB"),
    Point("relay_4_seconds", "holding", 24, "uint32", recorded("relay_4_seconds"), "s", order="CDAB"),
    Point("heat_energy", "holding", 26, "uint32", recorded("heat_wh"), "Wh", order="CDAB"),
    Point("relay_1_on", "holding", 28, "bool", _is_on("relay_1_pct"), bit=0),
    Point("relay_2_on", "holding", 28, "bool", _is_on("relay_2_pct"), bit=1),
    Point("relay_3_on", "holding", 28, "bool", _is_on("relay_3_pct"), bit=2),
    Point("relay_4_on", "holding", 28, "bool", _is_on("relay_4_pct"), bit=3),
    Point("status_present", "holding", 28, "bool", _is_on("status_mask"), bit=8),
    Point("fault_present", "holding", 28, "bool", _is_on("fault_mask"), bit=15),
    Point("fault_mask", "holding", 29, "uint16", recorded("fault_mask")),
    Point("recorded_row", "holding", 30, "uint16", _row_number),
    Point("tank_setpoint", "holding", 31, "int16", constant(65.0), "°C", scale=0.1),
    Point("recorded_time", "holding", 32, "string", recorded_time, length=16),
    Point("missing_temp", "holding", 42, "float32", None, "°C"),  # in the hole
    Point("ambient_temp", "holding", 45, "float32", wave(19.5, 6.0, 600, 0.05, seed=1), "°C"),
    Point("collector_gain", "holding", 47, "float32", _collector_gain, "K"),
    Point("pressure_7", "input", 0, "int16", recorded("pressure_7_bar"), "bar", scale=0.1),
    Point("pump_pressure", "input", 1, "uint16", wave(2.4, 0.3, 20, 0.02, seed=2), "bar", scale=0.001),
    Point("loop_pressure", "input", 2, "float32", wave(1.8, 0.05, 90, 0.005, seed=3), "bar"),
    Point("gauge_pressure", "input", 4, "uint16", wave(0.2, 0.6, 45), "bar", scale=0.01, offset=-1.0),
    Point("filter_pressure", "input", 5, "int16", wave(0.0, 40.0, 30, 1.0, seed=4), "mbar", scale=0.1),
    Point("pump_enabled", "coil", 0, "bool", _is_on("relay_1_pct")),
    Point("sensor_5_there", "discrete", 0, "bool", _is_there("temp_5_c")),
    Point("sensor_1_there", "discrete", 1, "bool", _is_there("temp_1_c")),
)


def _phase(moment: Moment) -> float:
    """Where the stroke is: 0 open, 0.5 closed, 1 open again."""
    return moment.tick % CYCLE_TICKS / CYCLE_TICKS


def _within(low: float, high: float) -> Signal:
    return lambda moment: low <= _phase(moment) < high


def _cycles(start: int) -> Signal:
    return lambda moment: start + moment.tick // CYCLE_TICKS


def _ram_position(moment: Moment) -> float:
    """Opening of the tool in mm: 250 at the top, 0 at the bottom."""
    return 125.0 * (1 + math.cos(math.tau * _phase(moment)))


def _ram_speed(moment: Moment) -> float:
    """The derivative of the position, in mm/s."""
    return -125.0 * math.tau / (CYCLE_TICKS * TICK_S) * math.sin(math.tau * _phase(moment))


def _force(moment: Moment) -> float:
    """In kN: a half wave while the tool is nearly closed, otherwise nothing."""
    return 1800.0 * math.cos(math.pi * (_phase(moment) - 0.5) / 0.2) if _within(0.4, 0.6)(moment) else 0.0


PRESS_UNIT_ID = 2
PRESS: tuple[Point, ...] = (
    Point("force", "holding", 0, "uint16", _force, "kN", scale=0.1, fast=True),
    Point("speed_setpoint", "holding", 1, "uint16", constant(200), "mm/s"),
    Point("ram_position", "holding", 2, "int32", _ram_position, "mm", scale=0.001, order="DCBA", fast=True),
    Point("position_error", "holding", 4, "int32", wave(-4, 9, 7, 2, seed=5), "µm", order="BADC", fast=True),
    Point("energy_total", "holding", 6, "int64", counter(81_402_775, 12.5), "Wh", order="DCBA"),
    # Odd and beyond 2**53: whoever passes it through a double gets another number.
    Point("part_serial", "holding", 10, "int64", _cycles(9_007_199_254_740_993), order="BADC"),
    Point("oil_temp", "holding", 14, "float64", wave(48.0, 2.5, 300, 0.02, seed=6), "°C", order="DCBA"),
    Point("ram_speed", "holding", 18, "float64", _ram_speed, "mm/s", order="BADC", fast=True),
    Point("cycle_counter", "holding", 22, "uint32", _cycles(4_018_200)),
    Point("vibration", "holding", 24, "uint16", wave(1.2, 0.4, 3, 0.3, seed=7), "mm/s", scale=0.01, fast=True),
    Point("program", "holding", 25, "string", alternating(("DEEPDRAW-0417", "BLANKING-0093"), 40), length=16),
    Point("hydraulic_pressure", "input", 0, "uint16", wave(210, 12, 4, 1, seed=8), "bar", scale=0.1, fast=True),
    Point("oil_level", "input", 1, "int16", wave(82, 0.4, 120), "%", scale=0.1),
    Point("hydraulics_on", "coil", 0, "bool", constant(True)),
    Point("clamp_closed", "coil", 1, "bool", _within(0.1, 0.9)),
    Point("cooling_on", "coil", 2, "bool", alternating((False, True), 15)),
    Point("lamp_green", "coil", 3, "bool", constant(True)),
    Point("guard_closed", "discrete", 0, "bool", _within(0.05, 0.95)),
    Point("part_present", "discrete", 1, "bool", _within(0.0, 0.7)),
    Point("top_dead_centre", "discrete", 2, "bool", _within(0.0, 0.05)),
    Point("bottom_dead_centre", "discrete", 3, "bool", _within(0.475, 0.525)),
    Point("emergency_stop_ok", "discrete", 4, "bool", constant(True)),
)
