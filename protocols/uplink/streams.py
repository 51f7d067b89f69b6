"""Streams of numbers ⇄ bytes: the innermost part of the binary telemetry form. Pure.

First values are variable-length integers; differences (or XORs) of neighbours go, by the width that holds them, into
four streams, whose bytes are sorted by significance so that zstd finds the repetition. See docs/wire.md.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from operator import xor
from typing import Any

MASK = (1 << 64) - 1
WIDTHS = (0, 1, 2, 4, 8)
XOR = 15
"""The mode that says patterns instead of a decimal exponent."""
_ARRAY = {1: "B", 2: "H", 4: "I", 8: "Q"}


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


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


_SHORT = tuple(map(_varint, range(1 << 12)))


def varints(numbers: Iterable[int]) -> bytes:
    """Unsigned LEB128, as in Protocol Buffers."""
    return b"".join([_SHORT[n] if n < 4096 else _varint(n) for n in numbers])


def read_varints(data: bytes) -> list[int]:
    numbers, n, shift = [], 0, 0
    for byte in data:
        n |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > 63:
                raise ColumnError("a variable-length integer is longer than 64 bits")
        else:
            numbers.append(n & MASK)
            n = shift = 0
    if shift:
        raise ColumnError("a variable-length integer is cut short")
    return numbers


class Writer:
    """Collects the streams of one block: first values, and differences by width."""

    def __init__(self) -> None:
        self.modes = bytearray()
        self.firsts: list[int] = []
        self.streams: dict[int, array[int]] = {width: array(_ARRAY[width]) for width in WIDTHS if width}

    def integers(self, numbers: Sequence[int], exponent: int = 0, base: int = 0) -> None:
        if not numbers:
            self.modes.append(0)
            return
        self.firsts.append(zigzag(signed(numbers[0] - base)))
        if numbers.count(numbers[0]) == len(numbers):
            self.modes.append(exponent)
            return
        deltas = [((d << 1) ^ (d >> 63)) & MASK for d in (signed(b - a) for a, b in pairwise(numbers))]
        self._stream(deltas, exponent)

    def patterns(self, bits: Sequence[int], width: int, base: int = 0) -> None:
        self.modes.append(XOR | WIDTHS.index(width) << 4)
        self.streams[width].extend(map(xor, bits, (base, *bits)))

    def _stream(self, numbers: list[int], exponent: int) -> None:
        top = max(numbers, default=0)
        code = next(code for code, width in enumerate(WIDTHS) if top < 1 << 8 * width)
        self.modes.append(exponent | code << 4)
        if code:
            self.streams[WIDTHS[code]].extend(numbers)

    def packed(self) -> list[bytes]:
        """[first values, differences of 1, 2, 4 and 8 bytes]."""
        return [varints(self.firsts), *(_shuffle(stream) for stream in self.streams.values())]


def pack_streams(width: int, columns: Sequence[Sequence[int]]) -> bytes:
    """The differences of these columns, one after another, as one stream of `width`-byte numbers."""
    stream = array(_ARRAY[width])
    for column in columns:
        stream.extend(column)
    return _shuffle(stream)


def _shuffle(stream: array[int]) -> bytes:
    """All least significant bytes first, then the next ones, and so on."""
    raw = _little_endian(stream).tobytes()
    return b"".join(raw[plane :: stream.itemsize] for plane in range(stream.itemsize))


def _unshuffle(data: bytes, width: int) -> array[int]:
    count, rest = divmod(len(data), width)
    if rest:
        raise ColumnError(f"a stream of {width}-byte numbers has {len(data)} bytes")
    raw = bytearray(len(data))
    for plane in range(width):
        raw[plane::width] = data[plane * count : (plane + 1) * count]
    return _little_endian(array(_ARRAY[width], bytes(raw)))


def _little_endian(stream: array[int]) -> array[int]:
    if _BIG_ENDIAN and stream.itemsize > 1:
        stream = stream[:]
        stream.byteswap()
    return stream


_BIG_ENDIAN = array("H", [1]).tobytes() == b"\x00\x01"


class Reader:
    """Hands out what Writer collected, in the same order, and never more than there is."""

    def __init__(self, modes: bytes, packed: Any) -> None:
        """`packed`: as of Writer.packed; Raises ColumnError."""
        if not isinstance(packed, list) or len(packed) != 5 or not all(isinstance(p, bytes) for p in packed):
            raise ColumnError("the block's streams are not six byte strings")
        self._modes = iter(modes)
        self._firsts = iter(read_varints(packed[0]))
        self._streams = {w: _unshuffle(packed[1 + i], w) for i, w in enumerate((1, 2, 4, 8))}
        self._at = dict.fromkeys(self._streams, 0)

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
        zigzagged = next(self._firsts, None)
        if zigzagged is None:
            raise ColumnError("a column's first value is missing")
        first = signed(unzigzag(zigzagged) + base)
        if not width:
            return [first] * count
        return [signed(n) for n in accumulate(map(unzigzag, self.take(count - 1, width)), initial=first)]

    def patterns(self, count: int, width: int, base: int = 0) -> list[int]:
        return list(accumulate(self.take(count, width), xor, initial=base))[1:]

    def take(self, count: int, width: int) -> Sequence[int]:
        start = self._at[width]
        found = self._streams[width][start : start + count]
        if len(found) < count:
            raise ColumnError(f"the stream of {width}-byte numbers ends too early")
        self._at[width] = start + count
        return found

    def end(self) -> None:
        left = any(at < len(self._streams[width]) for width, at in self._at.items())
        if left or next(self._modes, None) is not None or next(self._firsts, None) is not None:
            raise ColumnError("the block has more numbers than its columns name")
