"""Streams of numbers ⇄ bytes: the innermost part of the binary telemetry form. Pure.

First values are variable-length integers; differences (or XORs) of neighbours go, by the width that holds them, into
four streams, whose bytes are sorted by significance so that zstd finds the repetition. See docs/wire.md.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, islice
from operator import sub, xor
from typing import Any

from protocols.uplink import lanes
from protocols.uplink.lanes import CODES, MASK

WIDTHS = (0, 1, 2, 4, 8)
XOR = 15
"""The mode that says patterns instead of a decimal exponent."""
TIME_SCALES = {0: 1, 3: 1000, 6: 1_000_000}
"""Mode of the times → µs."""
_STEP_MAX = (1 << 63) - 1
FAR = 1 << 62
"""Nothing that begins below this leaves 64 bits by steps of up to 4 bytes, of which a column has fewer than 2^30."""
_MULTIPLE = re.compile(rb"[\x80-\xff]*[\x00-\x7f]")


class ColumnError(ValueError):
    """The bytes are no block. The text says why in one sentence."""


def zigzag(n: int) -> int:
    """Signed → unsigned, small stays small, as in Protocol Buffers."""
    return ((n << 1) ^ (n >> 63)) & MASK


def unzigzag(z: int) -> int:
    """The inverse."""
    return (z >> 1) ^ -(z & 1)


def signed(n: int) -> int:
    n &= MASK
    return n - (1 << 64) if n >> 63 else n


def width_code(top: int) -> int:
    """Which of WIDTHS holds every number up to `top`."""
    return 0 if not top else 1 if top < 1 << 8 else 2 if top < 1 << 16 else 3 if top < 1 << 32 else 4


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


_SHORT = tuple(map(_varint, range(1 << 12)))


def varints(numbers: Sequence[int]) -> bytes:
    """Unsigned LEB128, as in Protocol Buffers."""
    long = [n for n in numbers if n >= 4096]
    if not long:
        return b"".join([_SHORT[n] for n in numbers])
    parts = iter(lanes.varints(long))
    return b"".join([_SHORT[n] if n < 4096 else next(parts) for n in numbers])


def read_varints(data: bytes) -> list[int]:
    """The inverse. Raises ColumnError."""
    if data.isascii():
        return list(data)
    parts = _MULTIPLE.findall(data)
    if data[-1] & 0x80:
        raise ColumnError("a variable-length integer is longer than 64 bits or cut short")
    numbers = list(map(_known().get, parts))
    if None not in numbers:
        return numbers  # type: ignore[return-value]  # that was just made sure of
    long = [part for part, n in zip(parts, numbers, strict=True) if n is None]
    if max(map(len, long)) > 10:
        raise ColumnError("a variable-length integer is longer than 64 bits")
    others = iter(lanes.read_varints(long))
    return [next(others) if n is None else n for n in numbers]


@cache
def _known() -> dict[bytes, int]:
    return {text: n for n, text in enumerate(_SHORT)}


class Writer:
    """Collects the streams of one block: first values, and differences by width."""

    def __init__(self) -> None:
        self.modes = bytearray()
        self.firsts: list[int] = []
        self.streams: dict[int, array[int]] = {width: array(CODES[width]) for width in WIDTHS if width}

    def integers(self, numbers: Sequence[int], exponent: int = 0, base: int = 0) -> None:
        if not numbers:
            self.modes.append(0)
            return
        self.firsts.append(zigzag(signed(numbers[0] - base)))
        if numbers.count(numbers[0]) == len(numbers):
            self.modes.append(exponent)
            return
        steps = list(map(sub, islice(numbers, 1, None), numbers))
        if max(steps) > _STEP_MAX or min(steps) < -_STEP_MAX:
            steps = list(map(signed, steps))
        zigzagged = [step << 1 if step >= 0 else ~(step << 1) for step in steps]
        code = width_code(max(zigzagged))
        self.modes.append(exponent | code << 4)
        self.streams[WIDTHS[code]].extend(zigzagged)

    def patterns(self, bits: Sequence[int], width: int, base: int = 0) -> None:
        self.modes.append(XOR | WIDTHS.index(width) << 4)
        self.streams[width].extend(map(xor, bits, (base, *bits)))

    def packed(self) -> list[bytes]:
        """[first values, differences of 1, 2, 4 and 8 bytes]."""
        streams = [lanes.shuffle(lanes.little_endian(stream), width) for width, stream in self.streams.items()]
        return [varints(self.firsts), *streams]


class Reader:
    """Hands out what Writer collected, in the same order, and never more than there is."""

    def __init__(self, modes: bytes, packed: Any) -> None:
        """`packed`: as of Writer.packed; Raises ColumnError."""
        if not isinstance(packed, list) or len(packed) != 5 or not all(isinstance(p, bytes) for p in packed):
            raise ColumnError("the block's streams are not six byte strings")
        self._modes = iter(modes)
        self._firsts = iter(map(unzigzag, read_varints(packed[0])))
        self._raw = {width: _unshuffled(data, width) for width, data in zip(CODES, packed[1:], strict=True)}
        self._steps: dict[int, array[int]] = {}
        self._bits: dict[int, array[int]] = {}
        self._at = dict.fromkeys(CODES, 0)

    def mode(self) -> tuple[int, int]:
        """(exponent or XOR, width in bytes) of the next number column."""
        mode = next(self._modes, None)
        if mode is None or mode >> 4 >= len(WIDTHS):
            raise ColumnError("a column's mode is missing or unknown")
        return mode & 0x0F, WIDTHS[mode >> 4]

    def integers(self, count: int, width: int, base: int = 0) -> list[int]:
        """`count` integers modulo 2^64, as signed."""
        if not count:
            return []
        first = next(self._firsts, None)
        if first is None:
            raise ColumnError("a column's first value is missing")
        first += base
        is_near = -FAR < first < FAR
        if not is_near:
            first = signed(first)
        if not width:
            return [first] * count
        steps = self._steps.get(width)
        if steps is None:
            steps = self._steps[width] = lanes.unzigzag(self._raw[width], width)
        found = accumulate(self._cut(steps, count - 1, width), initial=first)
        return list(found) if is_near and width < 8 else list(map(signed, found))

    def patterns(self, count: int, width: int, base: int = 0) -> list[int]:
        bits = self._bits.get(width)
        if bits is None:
            bits = self._bits[width] = lanes.unsigned(self._raw[width], width)
        return list(accumulate(self._cut(bits, count, width), xor, initial=base))[1:]

    def _cut(self, numbers: array[int], count: int, width: int) -> array[int]:
        start = self._at[width]
        found = numbers[start : start + count]
        if len(found) < count:
            raise ColumnError(f"the stream of {width}-byte numbers ends too early")
        self._at[width] = start + count
        return found

    def end(self) -> None:
        left = any(at * width < len(self._raw[width]) for width, at in self._at.items())
        if left or next(self._modes, None) is not None or next(self._firsts, None) is not None:
            raise ColumnError("the block has more numbers than its columns name")


def _unshuffled(data: bytes, width: int) -> bytes:
    if len(data) % width:
        raise ColumnError(f"a stream of {width}-byte numbers has {len(data)} bytes")
    return lanes.unshuffle(data, width)
