"""Columns of readings ⇄ compact bytes: the inner part of the binary telemetry form. Pure, lossless, bit for bit.

The layout is specified in docs/wire.md. In short: every number becomes an integer (floats that are decimal multiples
exactly, n ÷ 10^k; other floats as their bit patterns), neighbours in time are subtracted (or XORed), the differences of
all columns that fit the same width are put side by side and their bytes sorted by significance, so that zstd finds the
repetition. Nothing about a value is assumed that is not checked to be exactly reversible.

What is not the rule (missing rows, quality other than good, values that are absent) stands apart, per column.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby, pairwise
from operator import xor
from typing import Any

from protocols.uplink.batch import Block, Column
from protocols.values import Value, ValueType

READINGS_MAX = 2_000_000
ROWS_MAX = 100_000
COLUMNS_MAX = 20_000
TEXT_MAX = 4096
STATUS_MAX = 0xFFFFFFFF

_MASK = (1 << 64) - 1
_TYPES = tuple(ValueType)
_CODE = {value_type: code for code, value_type in enumerate(_TYPES)}
_WIDTHS = (0, 1, 2, 4, 8)
_ARRAY = {1: "B", 2: "H", 4: "I", 8: "Q"}
_EXPONENT_MAX = 9
_XOR = 15
_EXACT = 1 << 53
_FLOATS = {ValueType.FLOAT32: ("f", "I", 4), ValueType.FLOAT64: ("d", "Q", 8)}


class ColumnError(ValueError):
    """The bytes are no block. The text says why in one sentence."""


# --- integers -------------------------------------------------------------------------------------------------------


def _zigzag(n: int) -> int:
    return ((n << 1) ^ (n >> 63)) & _MASK


def _unzigzag(z: int) -> int:
    return (z >> 1) ^ -(z & 1)


def _signed(n: int) -> int:
    n &= _MASK
    return n - (1 << 64) if n >> 63 else n


def _varints(numbers: Iterable[int]) -> bytes:
    """Unsigned LEB128, as in Protocol Buffers."""
    out = bytearray()
    for n in numbers:
        while n > 0x7F:
            out.append(n & 0x7F | 0x80)
            n >>= 7
        out.append(n)
    return bytes(out)


def _read_varints(data: bytes) -> list[int]:
    numbers, n, shift = [], 0, 0
    for byte in data:
        n |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > 63:
                raise ColumnError("a variable-length integer is longer than 64 bits")
        else:
            numbers.append(n & _MASK)
            n = shift = 0
    if shift:
        raise ColumnError("a variable-length integer is cut short")
    return numbers


class _Writer:
    """Collects the streams of one block: first values, and differences by width."""

    def __init__(self) -> None:
        self.modes = bytearray()
        self.firsts: list[int] = []
        self.streams: dict[int, array[int]] = {width: array(_ARRAY[width]) for width in _WIDTHS if width}

    def integers(self, numbers: Sequence[int], exponent: int = 0) -> None:
        if not numbers:
            self.modes.append(0)
            return
        self.firsts.append(_zigzag(_signed(numbers[0])))
        deltas = [((d << 1) ^ (d >> 63)) & _MASK for d in (_signed(b - a) for a, b in pairwise(numbers))]
        self._stream(deltas, exponent)

    def patterns(self, bits: Sequence[int], width: int) -> None:
        self.modes.append(_XOR | _WIDTHS.index(width) << 4)
        self.streams[width].extend(map(xor, bits, (0, *bits)))

    def _stream(self, numbers: list[int], exponent: int) -> None:
        top = max(numbers, default=0)
        code = next(code for code, width in enumerate(_WIDTHS) if top < 1 << 8 * width)
        self.modes.append(exponent | code << 4)
        if code:
            self.streams[_WIDTHS[code]].extend(numbers)

    def packed(self) -> list[bytes]:
        return [bytes(self.modes), _varints(self.firsts), *(_shuffle(s) for s in self.streams.values())]


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


class _Reader:
    """Hands out what _Writer collected, in the same order, and never more than there is."""

    def __init__(self, packed: Any) -> None:
        if not isinstance(packed, list) or len(packed) != 6 or not all(isinstance(p, bytes) for p in packed):
            raise ColumnError("the block's streams are not six byte strings")
        self._modes = iter(packed[0])
        self._firsts = iter(_read_varints(packed[1]))
        self._streams = {w: _unshuffle(packed[2 + i], w) for i, w in enumerate((1, 2, 4, 8))}
        self._at = dict.fromkeys(self._streams, 0)

    def mode(self) -> tuple[int, int]:
        """(exponent or _XOR, width in bytes) of the next number column."""
        mode = next(self._modes, None)
        if mode is None or mode >> 4 >= len(_WIDTHS):
            raise ColumnError("a column's mode is missing or unknown")
        return mode & 0x0F, _WIDTHS[mode >> 4]

    def integers(self, count: int, width: int) -> list[int]:
        """`count` integers modulo 2^64, as signed."""
        if not count:
            return []
        first = next(self._firsts, None)
        if first is None:
            raise ColumnError("a column's first value is missing")
        deltas = self.take(count - 1, width) if width else [0] * (count - 1)
        return [_signed(n) for n in accumulate(map(_unzigzag, deltas), initial=_unzigzag(first))]

    def patterns(self, count: int, width: int) -> list[int]:
        return list(accumulate(self.take(count, width), xor))

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


# --- columns by type ------------------------------------------------------------------------------------------------


def _decimal(numbers: Sequence[float], code: str) -> tuple[int, list[int]] | None:
    """(k, integers) where every value is exactly n ÷ 10^k in the column's own width, with the least k; or None."""
    if not all(map(math.isfinite, numbers)):
        return None
    wanted = array(code, numbers).tobytes()
    probe, probe_bits = numbers[:1], wanted[: 4 if code == "f" else 8]
    top = max(map(abs, numbers))
    for exponent in range(_EXPONENT_MAX + 1):
        power = 10**exponent
        if top * power >= _EXACT:
            return None
        if array(code, [round(n * power) / power for n in probe]).tobytes() != probe_bits:
            continue  # one value tells most wrong exponents cheaply
        integers = [round(n * power) for n in numbers]
        if array(code, [n / power for n in integers]).tobytes() == wanted:
            return exponent, integers
    return None


def _write_values(writer: _Writer, value_type: ValueType, values: Sequence[Any]) -> Any:
    """Put numbers into the writer's streams; return what does not go there (bits, texts), or None."""
    if value_type is ValueType.BOOL:
        bits = sum(1 << at for at, value in enumerate(values) if value)
        return bits.to_bytes((len(values) + 7) // 8, "little")
    if value_type is ValueType.STRING:
        return [part for text, run in groupby(values) for part in (len(list(run)), text)]
    if value_type in _FLOATS:
        code, bits_code, width = _FLOATS[value_type]
        found = _decimal(values, code) if values else (0, [])
        if found is None:
            writer.patterns(array(bits_code, array(code, values).tobytes()).tolist(), width)
        else:
            writer.integers(found[1], found[0])
        return None
    writer.integers(values)
    return None


def _read_values(reader: _Reader, value_type: ValueType, count: int, extra: Any) -> list[Any]:
    if value_type is ValueType.BOOL:
        return _read_bits(extra, count)
    if value_type is ValueType.STRING:
        return list(_read_runs(extra, count, str))
    if not count:
        reader.mode()
        return []
    exponent, width = reader.mode()
    if value_type in _FLOATS:
        code, bits_code, pattern_width = _FLOATS[value_type]
        if exponent == _XOR:
            if width != pattern_width:
                raise ColumnError(f"a {value_type} column has patterns of {width} bytes")
            return array(code, array(bits_code, reader.patterns(count, width)).tobytes()).tolist()
        power = 10**exponent
        return array(code, [n / power for n in reader.integers(count, width)]).tolist()
    if exponent:
        raise ColumnError(f"a {value_type} column has a decimal exponent")
    numbers = reader.integers(count, width)
    return [n & _MASK for n in numbers] if value_type is ValueType.UINT else numbers


def _read_bits(extra: Any, count: int) -> list[bool]:
    if not isinstance(extra, bytes) or len(extra) != (count + 7) // 8:
        raise ColumnError(f"a bool column of {count} values has no {(count + 7) // 8} bytes")
    bits = int.from_bytes(extra, "little")
    return [bool(bits >> at & 1) for at in range(count)]


def _read_runs(extra: Any, count: int, kind: type) -> Iterator[Any]:
    """Run-length pairs [count, value, count, value, …] that must add up to `count`."""
    if not isinstance(extra, list) or len(extra) % 2:
        raise ColumnError("runs are not pairs of count and value")
    left = count
    for run, value in zip(extra[::2], extra[1::2], strict=True):
        if type(run) is not int or not 0 < run <= left or type(value) is not kind:
            raise ColumnError("a run's count or value does not fit its column")
        if isinstance(value, str) and len(value) > TEXT_MAX:
            raise ColumnError(f"a text of {len(value)} characters is over the limit of {TEXT_MAX}")
        left -= run
        for _ in range(run):
            yield value
    if left:
        raise ColumnError("runs end before their column does")


# --- blocks ---------------------------------------------------------------------------------------------------------


def pack_block(block: Block) -> list[Any]:
    """[device, rows, names, types, units, streams, extras, exceptions], see docs/wire.md."""
    writer = _Writer()
    writer.integers(block.times_us)
    extras: list[Any] = []
    exceptions: dict[int, list[Any]] = {}
    for at, column in enumerate(block.columns):
        present = [value for value in column.values if value is not None]
        extra = _write_values(writer, column.type, present)
        if column.type in (ValueType.BOOL, ValueType.STRING):
            extras.append(extra)
        exception = _pack_exception(column, len(present))
        if exception is not None:
            exceptions[at] = exception
    return [
        block.device,
        len(block.times_us),
        [column.name for column in block.columns],
        bytes(_CODE[column.type] for column in block.columns),
        _runs([column.unit for column in block.columns]),
        writer.packed(),
        extras,
        exceptions,
    ]


def _runs(values: Iterable[Any]) -> list[Any]:
    return [part for value, run in groupby(values) for part in (len(list(run)), value)]


def _pack_exception(column: Column, present: int) -> list[Any] | None:
    """[row steps or nil, quality runs or nil, absent runs or nil, reasons], or None for a wholly regular column."""
    rows = None if column.rows is None else [b - a for a, b in pairwise((0, *column.rows))]
    quality = None if column.quality is None or not any(column.quality) else _runs(column.quality)
    absent = None if present == len(column.values) else _runs(int(value is None) for value in column.values)
    if rows is None and quality is None and absent is None and not column.reasons:
        return None
    return [rows, quality, absent, dict(column.reasons)]


def unpack_block(packed: Any, readings_left: int) -> Block:
    """The block in `packed`, of at most `readings_left` readings. Raises ColumnError."""
    if not isinstance(packed, list) or len(packed) != 8:
        raise ColumnError("a block is not an array of eight")
    device, rows, names, types, units, streams, extras, exceptions = packed
    if not isinstance(device, str) or len(device) > 64 or type(rows) is not int or not 0 <= rows <= ROWS_MAX:
        raise ColumnError("a block's device or number of rows is missing or out of bounds")
    if not isinstance(names, list) or len(names) > COLUMNS_MAX or not all(_is_name(name) for name in names):
        raise ColumnError("a block's tag names are missing, too many or not texts")
    if len(set(names)) != len(names):
        raise ColumnError("a tag stands twice in one block")
    if not isinstance(types, bytes) or len(types) != len(names) or any(code >= len(_TYPES) for code in types):
        raise ColumnError("a block's types do not match its tags")
    if not isinstance(extras, list) or not isinstance(exceptions, dict):
        raise ColumnError("a block's extras or exceptions are missing")
    unit_list = list(_read_runs(units, len(names), str))
    reader, more = _Reader(streams), iter(extras)
    _, width = reader.mode()
    times_us = reader.integers(rows, width)
    columns = []
    for at, name in enumerate(names):
        column = _unpack_column(name, _TYPES[types[at]], unit_list[at], rows, reader, more, exceptions.get(at))
        readings_left -= len(column.values)
        if readings_left < 0:
            raise ColumnError(f"more than {READINGS_MAX} readings")
        columns.append(column)
    reader.end()
    if next(more, None) is not None or not all(type(key) is int and 0 <= key < len(names) for key in exceptions):
        raise ColumnError("a block's extras or exceptions do not match its tags")
    return Block(device, times_us, columns)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 128 and name.isprintable()


def _unpack_column(
    name: str, value_type: ValueType, unit: str, block_rows: int, reader: _Reader, more: Iterator[Any], exception: Any
) -> Column:
    rows: list[int] | None = None
    quality: list[int] | None = None
    absent: list[int] | None = None
    reasons: Mapping[int, str] = {}
    count = block_rows
    if exception is not None:
        if not isinstance(exception, list) or len(exception) != 4:
            raise ColumnError("a column's exceptions are not an array of four")
        if exception[0] is not None:
            rows = _read_rows(exception[0], block_rows)
            count = len(rows)
        if exception[1] is not None:
            quality = list(_read_runs(exception[1], count, int))
            if not all(0 <= code <= STATUS_MAX for code in quality):
                raise ColumnError("a quality is not a 32-bit status code")
        if exception[2] is not None:
            absent = list(_read_runs(exception[2], count, int))
            if not set(absent) <= {0, 1}:
                raise ColumnError("a column's absent values are not marked by 0 and 1")
        reasons = _read_reasons(exception[3], count)
    is_extra = value_type in (ValueType.BOOL, ValueType.STRING)
    present = count if absent is None else absent.count(0)
    found = _read_values(reader, value_type, present, next(more, None) if is_extra else None)
    values: list[Value] = found
    if absent is not None:
        each = iter(found)
        values = [None if gone else next(each) for gone in absent]
    return Column(name, value_type, values, unit, rows, quality, reasons)


def _read_rows(steps: Any, block_rows: int) -> list[int]:
    if not isinstance(steps, list) or not all(type(step) is int and step >= 0 for step in steps):
        raise ColumnError("a column's rows are not an array of steps")
    rows = list(accumulate(steps))
    if (rows and rows[-1] >= block_rows) or any(b <= a for a, b in pairwise(rows)):
        raise ColumnError("a column's rows are not ascending within the block")
    return rows


def _read_reasons(reasons: Any, count: int) -> Mapping[int, str]:
    if not isinstance(reasons, dict) or not all(
        type(at) is int and 0 <= at < count and isinstance(text, str) and len(text) <= TEXT_MAX
        for at, text in reasons.items()
    ):
        raise ColumnError("a column's reasons do not match its values")
    return reasons
