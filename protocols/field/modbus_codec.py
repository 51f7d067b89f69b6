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

Pure: bytes in, values out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from math import isfinite
from typing import Literal

from protocols.field.contract import Value

Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]
Type = Literal["int16", "int32", "int64", "uint16", "uint32", "uint64", "float32", "float64", "bool", "string"]

_CODES = {
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
_REGISTERS = {"int32": 2, "uint32": 2, "float32": 2, "int64": 4, "uint64": 4, "float64": 4}

NonFinite = Mapping[int, float]
"""Position of a tag in its block → the NaN or infinity that the device sent for it."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How one tag is written in registers.

    `bit` makes a bool of one bit (0: least significant) of a register; `bool` without it is true unless the
    register is 0. `length` is that of a string, in bytes.
    """

    type: Type = "uint16"
    order: Order = "ABCD"
    bit: int | None = None
    length: int = 0
    scale: float = 1.0
    offset: float = 0.0

    @property
    def registers(self) -> int:
        """How many registers it takes."""
        return (self.length + 1) // 2 if self.type == "string" else _REGISTERS.get(self.type, 1)

    @property
    def is_float(self) -> bool:
        return self.type in ("float32", "float64")

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
        self._swaps = any(layer.swapped for layer in self._layers)
        self._bits: list[tuple[int, int, int]] = []  # position, byte, mask
        self._booleans: list[int] = []
        self._texts: list[int] = []
        self._scaled_integers: list[tuple[int, int, int, int]] = []  # position, a, b, c
        self._scaled_floats: list[tuple[int, float, float]] = []  # position, scale, offset
        for position, (start, encoding) in enumerate(items):
            if encoding.bit is not None:
                byte = 2 * start + ((encoding.bit < 8) ^ (encoding.order in ("BADC", "DCBA")))
                self._bits.append((position, byte, 1 << encoding.bit % 8))
            elif encoding.type == "bool":
                self._booleans.append(position)
            elif encoding.type == "string":
                self._texts.append(position)
            elif encoding.is_scaled and encoding.is_float:
                self._scaled_floats.append((position, encoding.scale, encoding.offset))
            elif encoding.is_scaled:
                self._scaled_integers.append((position, *exact(encoding.scale, encoding.offset)))

    def decode(self, raw: bytes) -> tuple[list[Value], NonFinite]:
        """The values in order of the items, from 2 × count bytes; None for what is not a finite number."""
        values: list[Value] = [None] * self._size
        nonfinite: dict[int, float] = {}
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
                _clear_nonfinite(values, layer.floats, nonfinite)
        for position, a, b, c in self._scaled_integers:
            values[position] = (values[position] * a + b) / c  # type: ignore[operator]  # an integer, by construction
        if self._scaled_floats:
            self._scale_floats(values, nonfinite)
        for position in self._booleans:
            values[position] = values[position] != 0
        for position in self._texts:
            values[position] = text(values[position])  # type: ignore[arg-type]  # bytes until here, by construction
        for position, byte, mask in self._bits:
            values[position] = raw[byte] & mask != 0
        return values, nonfinite

    def _scale_floats(self, values: list[Value], nonfinite: dict[int, float]) -> None:
        for position, scale, offset in self._scaled_floats:
            if position not in nonfinite:
                values[position] = values[position] * scale + offset  # type: ignore[operator]  # a float
        _clear_nonfinite(values, [step[0] for step in self._scaled_floats], nonfinite)


def _clear_nonfinite(values: list[Value], positions: Sequence[int], nonfinite: dict[int, float]) -> None:
    """Moves what is no finite number from `values` to `nonfinite`."""
    for position in positions:
        value = values[position]
        if isinstance(value, float) and not isfinite(value):
            values[position] = None
            nonfinite[position] = value


def _layers(count: int, items: Sequence[tuple[int, Encoding]]) -> list[_Layer]:
    """As few structs as possible: one for each source and direction, more only where tags overlap."""
    stacks: dict[tuple[bool, str, bool], list[list[int]]] = {}
    for position in sorted(range(len(items)), key=lambda position: items[position][0]):
        start, encoding = items[position]
        if encoding.bit is not None:
            continue  # tested in the bytes as they came
        key = (encoding.swaps_bytes, encoding.direction, encoding.type == "string")
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
        if encoding.type == "string":
            parts.append(f"{encoding.length}s{size - encoding.length}x")
        else:
            parts.append(_CODES.get(encoding.type, "H"))
        end = 2 * start + size
    return "".join([*parts, f"{2 * count - end}x"])


_BITS_OF_BYTE = tuple(tuple(bool(byte >> bit & 1) for bit in range(8)) for byte in range(256))


class BitDecoder:
    """Decodes a block of coils or discrete inputs: `offsets` (not empty) are the wanted ones, from its first on."""

    def __init__(self, offsets: Sequence[int]) -> None:
        self._offsets = offsets
        self._run = run_of(offsets)

    def decode(self, raw: bytes) -> tuple[list[Value], NonFinite]:
        """The values in order of the offsets. The first coil is the least significant bit of the first byte."""
        bits: list[Value] = list(chain.from_iterable(map(_BITS_OF_BYTE.__getitem__, raw)))
        return bits[self._run] if self._run is not None else [bits[offset] for offset in self._offsets], {}
