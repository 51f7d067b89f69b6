"""What can be written about a Modbus device and its tags, and what it means. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Annotated, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from protocols.field.contract import StrictModel, Tag, TagSettingsBase, ValueType
from protocols.field.modbus_address import LAST_ADDRESS, NOTATIONS, Table, parse, place
from protocols.field.modbus_codec import AnyType, Encoding, Order
from protocols.field.modbus_encode import Writable
from protocols.field.modbus_line import Client, Link, Serial, Transport
from protocols.field.modbus_meaning import Meaning
from protocols.field.modbus_plan import Span
from protocols.field.modbus_times import REGISTERS


class Settings(StrictModel):
    """The keys of a device with `protocol: modbus`."""

    preset: str | None = Field(
        None,
        description="Name of a family of devices in modbus_presets.yaml, such as schneider-modicon or generic-slow: "
        "its values hold for every key that is not given here.",
    )
    transport: Transport = Field(
        "tcp",
        description="tcp (Modbus TCP), udp (the same in datagrams), rtu (a serial port), or rtu_over_tcp (serial "
        "frames over TCP, as simple serial servers pass them on).",
    )
    host: str | None = Field(
        None,
        validate_default=True,
        # A bounded repetition, as in {1,253}, takes pydantic milliseconds and megabytes to compile.
        pattern=r"^[^\s/\x00]+$",
        max_length=253,
        description="IP address or name of the PLC, or of the gateway in front of it.",
    )
    port: int = Field(502, ge=1, le=65535, description="TCP or UDP port.")
    serial_port: str | None = Field(
        None,
        validate_default=True,
        pattern=r"^/[^\x00]+$",
        max_length=4096,
        description="Path of the serial port for `transport: rtu`.",
    )
    baudrate: Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200] = Field(
        19200, description="Speed of the serial port."
    )
    parity: Literal["none", "even", "odd"] = Field("even", description="Parity of the serial port.")
    stop_bits: Literal[1, 2] = Field(1, description="Stop bits of the serial port; 2 go with parity none.")
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
    client: Client | None = Field(
        None,
        description="What speaks Modbus: pymodbus, the library that the field knows, or lean, which sends the same "
        "bytes and checks answers as strictly at half the CPU time. Without it pymodbus; lean for a serial port.",
    )
    pause_s: float = Field(
        0.0, ge=0, le=10, description="Seconds to wait between an answer and the next request, for slow devices."
    )
    connect_pause_s: float = Field(
        0.0, ge=0, le=10, description="Seconds to wait between connecting and the first request."
    )
    in_flight_max: int = Field(
        1,
        ge=1,
        le=16,
        description="Requests sent before their answers are there, with `client: lean`. Above 1 only for devices whose "
        "manual allows several transactions at a time: many PLCs then answer wrongly or not at all.",
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
    functions: list[Literal[1, 2, 3, 4, 5, 6, 15, 16, 22]] = Field(
        [1, 2, 3, 4, 5, 6, 15, 16, 22],
        min_length=1,
        description="Function codes that the device knows; no other is sent. Reads need that of their table: 1 coils, "
        "2 discrete inputs, 3 holding registers, 4 input registers. One coil or register is written with 5 or 6 where "
        "they are here, otherwise with 15 or 16; bits of a register with 22.",
    )
    order: Order = Field(
        "ABCD",
        description="Byte and word order of the device's values, A being the most significant byte: ABCD (the "
        "standard), CDAB (words swapped), BADC (bytes swapped), DCBA (both). A tag can have its own.",
    )

    @field_validator("host", "serial_port")
    @classmethod
    def _is_there(cls, value: str | None, info: ValidationInfo) -> str | None:
        """The one that the transport needs is as good as required."""
        needed = "serial_port" if info.data.get("transport") == "rtu" else "host"
        if value is None and info.field_name == needed:
            raise PydanticCustomError("missing", "Field required")
        return value

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: object) -> object:
        if isinstance(given, dict) and isinstance(name := given.get("preset"), str):
            known = presets()
            if name not in known:
                raise ValueError(f"there is no preset {name!r}; known are {', '.join(sorted(known))}")
            return {**known[name], **given}
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if self.transport == "rtu" and self.host is not None:
            raise ValueError("`transport: rtu` is a serial port, which `serial_port` names; leave `host` out")
        if self.transport != "rtu" and self.serial_port is not None:
            raise ValueError(f"`transport: {self.transport}` has no serial_port; leave it out, or set `transport: rtu`")
        if self.transport == "rtu" and self.client == "pymodbus":
            raise ValueError("pymodbus would need another package for a serial port; leave `client` out")
        if self.in_flight_max > 1 and (self.client != "lean" or self.transport != "tcp"):
            raise ValueError("in_flight_max above 1 needs `client: lean` and `transport: tcp`")
        return self

    @property
    def link(self) -> Link:
        """Where the endpoint is, and how to speak with it."""
        is_serial = self.transport == "rtu"
        return Link(
            transport=self.transport,
            client=self.client or ("lean" if is_serial else "pymodbus"),
            host=(self.serial_port if is_serial else self.host) or "",
            port=0 if is_serial else self.port,
            timeout_s=self.timeout_s,
            in_flight_max=self.in_flight_max,
            pause_s=self.pause_s,
            connect_pause_s=self.connect_pause_s,
            serial=Serial(self.baudrate, self.parity, self.stop_bits) if is_serial else None,
        )


@cache
def presets() -> dict[str, dict[str, object]]:
    """Name of a family of devices → the settings that it takes."""
    text = files("protocols.field").joinpath("modbus_presets.yaml").read_text(encoding="utf-8")
    return {name: preset["settings"] for name, preset in yaml.safe_load(text).items()}


_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+")


def _numbered(names: object) -> object:
    """Keys that are numbers as numbers: in YAML and JSON every key is a text. What is no number stays as it is."""
    if not isinstance(names, dict):
        return names
    found: dict[object, object] = {}
    for key, name in names.items():
        number = int(key, 0) if isinstance(key, str) and _NUMBER.fullmatch(key) else key
        if number in found:
            raise PydanticCustomError("named_twice", "{number} has two names; keep one", {"number": number})
        found[number] = name
    return found


class TagSettings(TagSettingsBase):
    """The keys of a tag of such a device."""

    address: int | str = Field(
        description="Where the value begins: the classic reference, from 1, as 40001 or 400001 (the first digit is the "
        'table: 4 holding, 3 input, 1 discrete, "0…" coil, in quotes), or the table and the address from 0, as '
        "holding:0, input:0, discrete:0, coil:0.",
        examples=[40001, 300001, "holding:0", "coil:0"],
    )
    type: AnyType | None = Field(
        None,
        description="Type of the value in the device. Without it: bool for coils, discrete inputs and with `bit`, "
        "otherwise uint16. bool of a whole register is true unless the register is 0. The time types become ISO 8601 "
        "text; bcd holds one decimal digit in four bits.",
    )
    bit: int | None = Field(
        None, ge=0, le=15, description="One bit of a register as a bool; 0 is the least significant."
    )
    bit_count: int = Field(
        1, ge=1, le=16, description="With `bit`: so many bits from there on, as a number instead of a bool."
    )
    states: Annotated[dict[int, str] | None, BeforeValidator(_numbered)] = Field(
        None, min_length=1, description="Names of the numbers that a status register can hold; the value is the name."
    )
    flags: Annotated[dict[Annotated[int, Field(ge=0, le=63)], str] | None, BeforeValidator(_numbered)] = Field(
        None,
        min_length=1,
        description="Names of single bits, from 0; the value is the names of those that are set, with commas between.",
    )
    unavailable: list[float] = Field(
        [],
        max_length=16,
        description="Raw numbers with which the device says that it has no value, such as 0x8000 or -999.9: the tag is "
        "bad then. NaN and infinity always are.",
    )
    clamp_min: float | None = Field(
        None, allow_inf_nan=False, description="A value below is taken for this, with uncertain quality."
    )
    clamp_max: float | None = Field(
        None, allow_inf_nan=False, description="A value above is taken for this, with uncertain quality."
    )
    counter_step_max: int | None = Field(
        None,
        ge=1,
        description="Makes a total, which only grows, of a counter that goes round: the most that it can count between "
        "two reads. A fall that this explains is a roll-over; any other is a reset to 0.",
    )
    writable: bool = Field(
        False,
        description="Whether `holdfast` may ever write this tag, when a person tells it to. Never without asking.",
    )
    write_min: float | None = Field(
        None, allow_inf_nan=False, description="The least number that may be written, as it is read (scaled)."
    )
    write_max: float | None = Field(None, allow_inf_nan=False, description="The greatest number that may be written.")
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
        description="Unit id of this tag, where it is not the device's. A unit that falls silent is asked in growing "
        "pauses, and its neighbours keep their period.",
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
    meaning: Meaning | None = None
    counter_step_max: int = 0  # 0: it is none
    writable: Writable | None = None  # None: it is not

    @property
    def size(self) -> int:
        """In registers, or bits."""
        return 1 if self.table.holds_bits else self.encoding.registers

    def span(self, unit_id: int) -> Span:
        """Where it lives, for the plan."""
        return Span(unit_id, self.table, self.address, self.size)


_encoding = lru_cache(maxsize=1000)(Encoding)  # thousands of tags share a few
_PLAIN = Meaning()


def tag(settings: TagSettings) -> Tag:
    """The tag of these settings. Raises ValueError with a sentence when they contradict each other."""
    table, address = parse(settings.address)
    if problem := _contradiction(settings, table):
        raise ValueError(f"tag {settings.name}: {problem}")
    is_bool = table.holds_bits or (settings.bit is not None and settings.bit_count == 1)
    encoding = _encoding(
        type=settings.type or ("bool" if is_bool else "uint16"),
        order=settings.order or "ABCD",
        bit=settings.bit,
        length=settings.length or 0,
        scale=float(settings.scale),
        offset=float(settings.offset),
        bit_count=settings.bit_count,
        unavailable=tuple(settings.unavailable),
    )
    point = Point(
        table,
        address,
        encoding,
        settings.unit_id,
        settings.order is not None,
        _meaning(settings),
        settings.counter_step_max or 0,
        Writable(settings.write_min, settings.write_max, settings.states) if settings.writable else None,
    )
    if address + point.size - 1 > LAST_ADDRESS:
        raise ValueError(
            f"tag {settings.name}: its {point.size} registers from {place(table, address, 1)} on would end behind the "
            f"last one, {place(table, LAST_ADDRESS, 1)}; {NOTATIONS}"
        )
    is_named = settings.states is not None or settings.flags is not None
    return Tag(settings.name, ValueType.STRING if is_named else _value_type(encoding), settings.unit, point)


def _meaning(settings: TagSettings) -> Meaning | None:
    meaning = Meaning(settings.states, settings.flags, settings.clamp_min, settings.clamp_max)
    return None if meaning == _PLAIN else meaning


def _contradiction(settings: TagSettings, table: Table) -> str:
    """What cannot be meant, and what to do; "" where all is well."""
    scaled = settings.scale != 1 or settings.offset != 0
    if settings.scale == 0:
        return "scale 0 would make every value the offset; leave scale out, or give the factor"
    if table.holds_bits and (settings.type not in (None, "bool") or scaled or settings.order):
        return f"a {table} holds one bit, so its type is bool, without scale, offset or order; was a register meant?"
    if table.holds_bits and settings.bit is not None:
        return f"`bit` is for registers, and {settings.address} is a {table}, which is one bit; leave `bit` out"
    if settings.bit is not None and settings.type not in (None, "bool") and settings.bit_count == 1:
        return f"`bit` makes a bool, not {settings.type}; leave `type` or `bit` out"
    if settings.type == "string" and settings.length is None:
        return "a string needs its `length` in characters"
    if settings.type != "string" and settings.length is not None:
        return "`length` is for strings; leave it out, or set `type: string`"
    if scaled and (not _is_number(settings) or settings.bit is not None):
        return "scale and offset are for numbers; leave them out"
    return _contradiction_of_meaning(settings, table, scaled)


def _is_number(settings: TagSettings) -> bool:
    kind = settings.type or ""
    return kind not in ("bool", "string") and not kind.startswith("time_")


def _contradiction_of_meaning(settings: TagSettings, table: Table, scaled: bool) -> str:
    is_bool = table.holds_bits or (settings.bit is not None and settings.bit_count == 1)
    is_integer = not is_bool and not scaled and _is_number(settings) and not (settings.type or "").startswith("float")
    clamps = settings.clamp_min is not None or settings.clamp_max is not None
    if settings.bit_count > 1 and (settings.bit is None or settings.bit + settings.bit_count > 16):
        return "`bit_count` counts from `bit` on and ends within the register, at bit 15"
    if (settings.states or settings.flags or settings.counter_step_max) and not is_integer:
        return "states, flags and counter_step_max are for whole numbers without scale and offset"
    if settings.counter_step_max and (settings.type or "").startswith("int"):
        return "a counter that goes round is an unsigned type, such as uint16 or uint32"
    if sum(bool(one) for one in (settings.states, settings.flags, settings.counter_step_max, clamps)) > 1:
        return "a value can have states, flags, a clamp or be a counter, only one of these"
    if (clamps or settings.unavailable) and (is_bool or not _is_number(settings)):
        return "unavailable and clamp are for numbers; leave them out"
    if settings.unavailable and settings.bit is not None:
        return "`unavailable` is for whole registers; leave it out"
    if is_integer and any(one is not None and one % 1 for one in (settings.clamp_min, settings.clamp_max)):
        return "the value is a whole number: clamp it at whole numbers"
    if None not in (low := settings.clamp_min, high := settings.clamp_max) and low > high:  # type: ignore[operator]  # both are numbers
        return f"clamp_min {low:g} is above clamp_max {high:g}"
    is_named = settings.states is not None or settings.type == "string"
    return _contradiction_of_writing(settings, table, needs_limits=not (is_bool or is_named or settings.type == "bool"))


def _contradiction_of_writing(settings: TagSettings, table: Table, *, needs_limits: bool) -> str:
    limits = (settings.write_min, settings.write_max)
    if not settings.writable:
        return "" if limits == (None, None) else "write_min and write_max need `writable: true`"
    if table not in (Table.COIL, Table.HOLDING):
        return f"a {table} cannot be written; only coils and holding registers can"
    if settings.flags or settings.counter_step_max or (settings.type or "").startswith("time_"):
        return "flags, counters and times cannot be written; make a tag without them for that"
    if not needs_limits:
        return "" if limits == (None, None) else "write_min and write_max are for numbers; leave them out"
    if settings.write_min is None or settings.write_max is None:
        return "a number that can be written needs write_min and write_max"
    if settings.write_min > settings.write_max:
        return f"write_min {settings.write_min:g} is above write_max {settings.write_max:g}"
    return ""


def _value_type(encoding: Encoding) -> ValueType:
    if encoding.is_scaled:
        return ValueType.FLOAT64
    whole = ValueType.UINT if encoding.type.startswith(("u", "bcd")) else ValueType.INT
    return _VALUE_TYPES.get(encoding.type, whole)


_VALUE_TYPES = {
    "bool": ValueType.BOOL,
    "string": ValueType.STRING,
    "float32": ValueType.FLOAT32,
    "float16": ValueType.FLOAT32,
    "float64": ValueType.FLOAT64,
    **dict.fromkeys(REGISTERS, ValueType.STRING),
}
"""Of all types but whole numbers."""
