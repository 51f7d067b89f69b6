"""From the bytes of one answer to the values of its tags: a whole block at a time.

Everything that can be known beforehand is compiled when a block is planned; decoding is then a few `struct` calls
for all scalars of the block together, and short lists of steps for what a struct cannot do.

Byte orders. A value of one, two or four registers arrives as bytes; the letters say which place each byte takes,
A being the most significant (AB of a 16-bit value, ABCD, ABCDEFGH):

| order | 16 bits | 32 bits | 64 bits  | meaning                              | decoded as                           |
|-------|---------|---------|----------|--------------------------------------|--------------------------------------|
| ABCD  | AB      | ABCD    | ABCDEFGH | words and bytes big-endian (default) | big-endian                           |
| CDAB  | AB      | CDAB    | GHEFCDAB | words swapped                        | little-endian, bytes of words swapped|
| BADC  | BA      | BADC    | BADCFEHG | bytes of each word swapped           | big-endian, bytes of words swapped   |
| DCBA  | BA      | DCBA    | HGFEDCBA | both                                 | little-endian                        |

So two sources (the bytes as they came, and with the bytes of each word swapped) and two directions cover the four
orders, and a block needs at most one pass of swapping. Text is never reversed and its words never change places:
BADC and DCBA swap the two characters of each register.

Scaling. `value = raw × scale + offset`. With integer raw values scale and offset count as the decimal numbers that
were written (0.1 is one tenth, not the nearest binary fraction): both are brought to a common denominator, and the
value is (raw × a + b) / c in integers, rounded once. 187 × 0.1 is 18.7 and not 18.700000000000003.

Not available. Many devices send a certain number where they have no value (`unavailable`). It is looked for in the raw
value, before scaling; for float32 and float16 as the nearest number of that type.

Pure: bytes in, values out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from math import isfinite
from typing import Literal, cast

from protocols.field import modbus_times as times
from protocols.field.contract import Value
from protocols.field.modbus_times import Time

Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]
Type = Literal["int16", "int32", "int64", "uint16", "uint32", "uint64", "float32", "float64", "bool", "string"]

Special = Literal["int48", "uint48", "float16", "bcd16", "bcd32", Time]
"""Types that are rarer. bcd: four or eight decimal digits, one in four bits. 48 bits: three registers, as in meters."""

AnyType = Literal[Type, Special]

CODES = {  # of `struct`
    "float16": "e",
    "bcd16": "H",
    "bcd32": "I",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
_REGISTERS: dict[str, int] = {
    **times.REGISTERS,
    "bcd32": 2,
    "int48": 3,
    "uint48": 3,
    "int32": 2,
    "uint32": 2,
    "float32": 2,
    "int64": 4,
    "uint64": 4,
    "float64": 4,
}

Absent = Mapping[int, float | str]
"""Position of a tag in its block → the NaN or infinity that the device sent for it, or a phrase on what it sent."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How one tag is written in registers.

    `bit` makes a bool of one bit (0: least significant) of a register; `bool` without it is true unless the
    register is 0. `bit_count` above 1: so many bits from `bit` on, as a number. `length` is that of a string, in bytes.
    `unavailable`: the raw values that mean that there is none.
    """

    type: AnyType = "uint16"
    order: Order = "ABCD"
    bit: int | None = None
    length: int = 0
    scale: float = 1.0
    offset: float = 0.0
    bit_count: int = 1
    unavailable: tuple[float, ...] = ()

    @property
    def registers(self) -> int:
        """How many registers it takes."""
        return (self.length + 1) // 2 if self.type == "string" else _REGISTERS.get(self.type, 1)

    @property
    def capacity(self) -> int:
        """How many numbers a counter of this type goes through before it begins again."""
        if self.bit is not None:
            return 1 << self.bit_count
        return {"bcd16": 10**4, "bcd32": 10**8}.get(self.type) or 1 << 16 * self.registers

    @property
    def is_float(self) -> bool:
        return self.type in ("float16", "float32", "float64")

    @property
    def is_bytes(self) -> bool:
        """Whether a struct can only cut it out, and its bytes are turned into the value afterwards."""
        return self.type in ("string", "int48", "uint48", *times.REGISTERS)

    @property
    def marks(self) -> frozenset[float]:
        """`unavailable` as they come out of the type's own rounding."""
        code = {"float16": "e", "float32": "f"}.get(self.type)
        if self.type in ("int16", "int32", "int48", "int64"):  # 0x8000 is how people write the int16 -32,768
            top = 1 << 16 * self.registers
            return frozenset(mark - top if mark >= top // 2 else mark for mark in self.unavailable)
        if code is None:
            return frozenset(self.unavailable)
        return frozenset(struct.unpack(code, struct.pack(code, mark))[0] for mark in self.unavailable)

    @property
    def is_scaled(self) -> bool:
        return self.scale != 1.0 or self.offset != 0.0

    @property
    def swaps_bytes(self) -> bool:
        """Whether it is read from the source whose words have their bytes swapped."""
        if self.type == "string":
            return self.order in ("BADC", "DCBA")
        return self.order in ("CDAB", "BADC")

    @property
    def direction(self) -> str:
        """The first character of its struct format."""
        return "<" if self.order in ("CDAB", "DCBA") else ">"


_RARE = frozenset({"int48", "uint48", "bcd16", "bcd32", *times.REGISTERS})


def exact(scale: float, offset: float) -> tuple[int, int, int]:
    """Integers a, b, c such that (raw × a + b) / c is raw × scale + offset of the decimal numbers as written."""
    a, b = Fraction(str(scale)), Fraction(str(offset))
    c = a.denominator * b.denominator
    return a.numerator * b.denominator, b.numerator * a.denominator, c


def swap_bytes(raw: bytes) -> bytes:
    """The two bytes of each register swapped."""
    swapped = bytearray(len(raw))
    swapped[0::2] = raw[1::2]
    swapped[1::2] = raw[0::2]
    return bytes(swapped)


def text(raw: bytes) -> str:
    """A fixed-length text field: up to the first NUL, without trailing spaces; UTF-8, or Latin-1 where it is not."""
    content = raw.split(b"\0", 1)[0].rstrip(b" ")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def run_of(indexes: Sequence[int]) -> slice | None:
    """The slice that `indexes` (not empty) are, where they follow one another: assigned at once instead of singly."""
    first = indexes[0]
    return slice(first, first + len(indexes)) if all(b - a == 1 for a, b in pairwise(indexes)) else None


@dataclass(frozen=True, slots=True)
class _Layer:
    """Tags that do not overlap, taken from one source by one struct."""

    swapped: bool
    unpack: Callable[[bytes], tuple[Value, ...]]
    positions: Sequence[int]  # in the block, in order of the struct's results
    run: slice | None  # the same, where they follow one another
    floats: Sequence[int]  # those of them that can be NaN or infinite


class RegisterDecoder:
    """Decodes a block of `count` registers that holds `items`: (first register within the block, encoding)."""

    def __init__(self, count: int, items: Sequence[tuple[int, Encoding]]) -> None:
        self._size = len(items)
        self._layers = _layers(count, items)
        kinds = {one.type for _, one in items}
        self._has_rare = bool(kinds & _RARE) or any(one.unavailable or one.bit_count > 1 for _, one in items)
        self._swaps = any(layer.swapped for layer in self._layers)
        self._bits: list[tuple[int, int, int]] = []  # position, byte, mask
        self._fields: list[tuple[int, Encoding, int]] = []  # position, encoding, first byte
        self._wide: list[tuple[int, Encoding]] = []  # of bytes, but for texts
        self._bcd: list[int] = []
        self._marks = [(position, one.marks) for position, (_, one) in enumerate(items) if one.unavailable]
        self._booleans: list[int] = []
        self._texts: list[int] = []
        self._scaled_integers: list[tuple[int, int, int, int]] = []  # position, a, b, c
        self._scaled_floats: list[tuple[int, float, float]] = []  # position, scale, offset
        for position, (start, encoding) in enumerate(items):
            if encoding.bit is not None and encoding.bit_count > 1:
                self._fields.append((position, encoding, 2 * start))
            elif encoding.bit is not None:
                byte = 2 * start + ((encoding.bit < 8) ^ (encoding.order in ("BADC", "DCBA")))
                self._bits.append((position, byte, 1 << encoding.bit % 8))
            elif encoding.type == "bool":
                self._booleans.append(position)
            elif encoding.type == "string":
                self._texts.append(position)
            elif encoding.is_bytes:
                self._wide.append((position, encoding))
            elif encoding.type in ("bcd16", "bcd32"):
                self._bcd.append(position)
            if encoding.bit is None and encoding.is_scaled and encoding.is_float:
                self._scaled_floats.append((position, encoding.scale, encoding.offset))
            elif encoding.bit is None and encoding.is_scaled:
                self._scaled_integers.append((position, *exact(encoding.scale, encoding.offset)))

    def decode(self, raw: bytes) -> tuple[list[Value], Absent]:
        """The values in order of the items, from 2 × count bytes; None for those that are in `Absent`."""
        values: list[Value] = [None] * self._size
        absent: dict[int, float | str] = {}
        swapped = swap_bytes(raw) if self._swaps else raw
        for layer in self._layers:
            unpacked = layer.unpack(swapped if layer.swapped else raw)
            if layer.run is not None:
                values[layer.run] = unpacked
            else:
                for position, value in zip(layer.positions, unpacked, strict=True):
                    values[position] = value
            # One NaN or infinity makes the sum one: a single test clears the whole layer.
            if layer.floats and not isfinite(sum(unpacked)):  # type: ignore[arg-type]  # such a layer has numbers only
                _clear_nonfinite(values, layer.floats, absent)
        if self._has_rare:
            self._decode_rare(values, absent, raw)
        for position, a, b, c in self._scaled_integers:
            if position not in absent:
                values[position] = (values[position] * a + b) / c  # type: ignore[operator]  # an integer
        if self._scaled_floats:
            self._scale_floats(values, absent)
        for position in self._booleans:
            values[position] = values[position] != 0
        for position in self._texts:
            values[position] = text(values[position])  # type: ignore[arg-type]  # bytes until here, by construction
        for position, byte, mask in self._bits:
            values[position] = raw[byte] & mask != 0
        return values, absent

    def _decode_rare(self, values: list[Value], absent: dict[int, float | str], raw: bytes) -> None:
        """What few tags need: wide numbers, times, BCD, bit fields, and what means that there is no value."""
        for position, encoding in self._wide:
            content: bytes = values[position]  # type: ignore[assignment]  # bytes until here, by construction
            values[position] = _wide(encoding, content, position, absent)
        for position in self._bcd:
            digits = f"{values[position]:x}"
            values[position] = int(digits) if digits.isdecimal() else None
            if not digits.isdecimal():
                absent[position] = f"0x{digits.upper()}, which is no BCD number"
        for position, encoding, byte in self._fields:
            register = int.from_bytes(raw[byte : byte + 2], "little" if encoding.order in ("BADC", "DCBA") else "big")
            values[position] = register >> (encoding.bit or 0) & (1 << encoding.bit_count) - 1
        for position, marks in self._marks:
            if values[position] in marks:
                absent[position] = f"{values[position]:g}, which means that it has no value"
                values[position] = None

    def _scale_floats(self, values: list[Value], absent: dict[int, float | str]) -> None:
        for position, scale, offset in self._scaled_floats:
            if position not in absent:
                values[position] = values[position] * scale + offset  # type: ignore[operator]  # a float
        _clear_nonfinite(values, [step[0] for step in self._scaled_floats], absent)


def _wide(encoding: Encoding, content: bytes, position: int, absent: dict[int, float | str]) -> Value:
    """The value of bytes that were cut out of the source that fits its order, first byte first as in `direction`."""
    if encoding.direction == "<":
        content = content[::-1]
    if encoding.type in ("int48", "uint48"):
        return int.from_bytes(content, "big", signed=encoding.type == "int48")
    try:
        return times.iso(cast("Time", encoding.type), content)
    except ValueError as error:
        absent[position] = f"0x{content.hex().upper()}, which is no {encoding.type} ({error})"
        return None


def _clear_nonfinite(values: list[Value], positions: Sequence[int], absent: dict[int, float | str]) -> None:
    """Moves what is no finite number from `values` to `absent`."""
    for position in positions:
        value = values[position]
        if isinstance(value, float) and not isfinite(value):
            values[position] = None
            absent[position] = value


def _layers(count: int, items: Sequence[tuple[int, Encoding]]) -> list[_Layer]:
    """As few structs as possible: one for each source and direction, more only where tags overlap."""
    stacks: dict[tuple[bool, str, bool], list[list[int]]] = {}
    for position in sorted(range(len(items)), key=lambda position: items[position][0]):
        start, encoding = items[position]
        if encoding.bit is not None:
            continue  # tested in the bytes as they came
        key = (encoding.swaps_bytes, encoding.direction, encoding.is_bytes)
        stack = stacks.setdefault(key, [])
        for layer in stack:
            last_start, last = items[layer[-1]]
            if last_start + last.registers <= start:
                layer.append(position)
                break
        else:
            stack.append([position])
    return [
        _Layer(
            swapped,
            struct.Struct(_format(direction, count, [items[position] for position in layer])).unpack,
            layer,
            run_of(layer),
            [position for position in layer if items[position][1].is_float],
        )
        for (swapped, direction, _), stack in stacks.items()
        for layer in stack
    ]


def _format(direction: str, count: int, items: Sequence[tuple[int, Encoding]]) -> str:
    """The struct format of `count` registers with `items` in ascending order, the rest skipped as pad bytes."""
    parts = [direction]
    end = 0  # bytes
    for start, encoding in items:
        if 2 * start > end:
            parts.append(f"{2 * start - end}x")
        size = 2 * encoding.registers
        if encoding.is_bytes:
            length = encoding.length if encoding.type == "string" else size
            parts.append(f"{length}s{size - length}x")
        else:
            parts.append(CODES.get(encoding.type, "H"))
        end = 2 * start + size
    return "".join([*parts, f"{2 * count - end}x"])


_BITS_OF_BYTE = tuple(tuple(bool(byte >> bit & 1) for bit in range(8)) for byte in range(256))


class BitDecoder:
    """Decodes a block of coils or discrete inputs: `offsets` (not empty) are the wanted ones, from its first on."""

    def __init__(self, offsets: Sequence[int]) -> None:
        self._offsets = offsets
        self._run = run_of(offsets)

    def decode(self, raw: bytes) -> tuple[list[Value], Absent]:
        """The values in order of the offsets. The first coil is the least significant bit of the first byte."""
        bits: list[Value] = list(chain.from_iterable(map(_BITS_OF_BYTE.__getitem__, raw)))
        return bits[self._run] if self._run is not None else [bits[offset] for offset in self._offsets], {}
