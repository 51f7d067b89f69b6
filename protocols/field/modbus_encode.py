"""From a value that a person wants to the request that writes it: the codec the other way round. Pure.

Whatever is written comes out the same when it is read, by the same encoding; what cannot is refused with a sentence and
never rounded silently.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Container, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

from protocols.field import modbus_times as times
from protocols.field.contract import Value
from protocols.field.modbus_address import Table
from protocols.field.modbus_codec import CODES, Encoding, swap_bytes
from protocols.field.modbus_request import (
    Request,
    mask_write_request,
    write_coil_request,
    write_coils_request,
    write_register_request,
    write_registers_request,
)

WRITE_REGISTERS_MAX = 123  # Application Protocol V1.1b3, 6.12


@dataclass(frozen=True, slots=True)
class Writable:
    """What may be written to a tag: numbers from `low` to `high`, as they are read (scaled). None: no number."""

    low: float | None
    high: float | None
    states: Mapping[int, str] | None = None


def write_request(
    unit_id: int,
    table: Table,
    address: int,
    encoding: Encoding,
    writable: Writable,
    value: Value,
    functions: Container[int],
) -> Request:
    """The request that writes `value`. Raises ValueError with a phrase where it cannot or must not be written.

    `functions`: the function codes that the device knows, those of `write_functions` for the tag among them.
    """
    if table is Table.COIL:
        bit = _truth(value)
        single = 5 in functions
        return write_coil_request(unit_id, address, bit) if single else write_coils_request(unit_id, address, [bit])
    if encoding.bit is not None and encoding.bit_count == 1:
        return mask_write_request(unit_id, address, *_masks(encoding, int(_truth(value)), 1))
    raw = _raw(encoding, writable, value)
    if encoding.bit is not None:
        if not isinstance(raw, int) or raw >= 1 << encoding.bit_count:
            raise ValueError(f"{value} does not fit into {encoding.bit_count} bits")
        return mask_write_request(unit_id, address, *_masks(encoding, raw, (1 << encoding.bit_count) - 1))
    content = to_registers(encoding, raw)
    if len(content) > 2 * WRITE_REGISTERS_MAX:
        raise ValueError(
            f"one request writes {WRITE_REGISTERS_MAX} registers at most, and this takes {len(content) // 2}"
        )
    if 6 in functions and len(content) == 2:
        return write_register_request(unit_id, address, content)
    return write_registers_request(unit_id, address, content)


def write_functions(table: Table, encoding: Encoding) -> tuple[int, ...]:
    """The function codes of which a device must know one, or nothing can be written to such a tag."""
    if table is Table.COIL:
        return (5, 15)
    if encoding.bit is not None:
        return (22,)
    return (6, 16) if encoding.registers == 1 else (16,)


def same(found: Value, wanted: Value, encoding: Encoding) -> bool:
    """Whether what was read back is what was written: to the last bit, but for a float's own rounding."""
    if encoding.is_float and isinstance(found, float) and isinstance(wanted, int | float):
        return math.isclose(found, wanted, rel_tol={"float16": 1e-3, "float32": 1e-6}.get(encoding.type, 1e-12))
    return isinstance(found, bool) == isinstance(wanted, bool) and found == wanted


def to_registers(encoding: Encoding, raw: Value) -> bytes:
    """The registers that hold this raw value. Raises ValueError with a phrase where they cannot."""
    source = _source(encoding, raw)
    return swap_bytes(source) if encoding.swaps_bytes else source


def _source(encoding: Encoding, raw: Value) -> bytes:
    """The bytes before those of each word are swapped, as `RegisterDecoder` unpacks them."""
    kind = encoding.type
    if kind == "string" and isinstance(raw, str):
        text = raw.encode()
        if len(text) > encoding.length:
            raise ValueError(f"the text has {len(text)} bytes, and there is room for {encoding.length}")
        return text.ljust(2 * encoding.registers, b"\0")
    if kind == "bool":
        return struct.pack(f"{encoding.direction}H", _truth(raw))
    if kind in times.REGISTERS and isinstance(raw, str):
        content = times.encoded(cast("times.Time", kind), raw)
        return content if encoding.direction == ">" else content[::-1]
    if kind == "string" or not isinstance(raw, int | float) or isinstance(raw, bool):
        raise ValueError(f"{raw!r} is not of type {kind}")  # a person's value, told like the others
    if kind in ("int48", "uint48"):
        return _whole(kind, int(raw)).to_bytes(6, "big" if encoding.direction == ">" else "little", signed=raw < 0)
    if kind in ("bcd16", "bcd32"):
        digits = 4 * encoding.registers
        if not 0 <= raw < 10**digits:
            raise ValueError(f"{raw:g} does not fit into {digits} decimal digits")
        raw = int(str(int(raw)), 16)
    try:
        return struct.pack(encoding.direction + CODES[kind], raw)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"{raw:g} does not fit into {kind}") from error


def _whole(kind: str, raw: int) -> int:
    low, high = (-(1 << 47), (1 << 47) - 1) if kind == "int48" else (0, (1 << 48) - 1)
    if not low <= raw <= high:
        raise ValueError(f"{raw} does not fit into {kind}")
    return raw


def _raw(encoding: Encoding, writable: Writable, value: Value) -> Value:
    """The value before it was scaled and named. Raises ValueError where it is none, or outside its limits."""
    if writable.states is not None:
        numbers = [number for number, name in writable.states.items() if name == value]
        if not numbers:
            raise ValueError(f"{value!r} is none of its states: {', '.join(writable.states.values())}")
        return numbers[0]
    if encoding.type in ("string", "bool"):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")  # a person's value, told like the others
    if writable.low is None or writable.high is None or not writable.low <= value <= writable.high:
        raise ValueError(f"{value:g} is outside what may be written, {writable.low:g} to {writable.high:g}")
    if encoding.is_float:
        return (value - encoding.offset) / encoding.scale if encoding.is_scaled else float(value)
    raw = (Fraction(str(value)) - Fraction(str(encoding.offset))) / Fraction(str(encoding.scale))
    if raw.denominator != 1:
        raise ValueError(f"{value:g} is between two values that it can hold, which are {abs(encoding.scale):g} apart")
    return int(raw)


def _truth(value: Value) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")  # noqa: TRY004  # a person's value
    return value


def _masks(encoding: Encoding, number: int, ones: int) -> tuple[int, int]:
    """AND mask and OR mask that set the field of bits to `number` and leave the others."""
    bit = encoding.bit or 0
    keep, put = 0xFFFF & ~(ones << bit), number << bit
    if encoding.order in ("BADC", "DCBA"):
        keep, put = (int.from_bytes(mask.to_bytes(2, "big"), "little") for mask in (keep, put))
    return keep, put
