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
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise, repeat
from typing import Any

from protocols.uplink.batch import Block, Column
from protocols.uplink.streams import MASK, WIDTHS, XOR, ColumnError, Reader, Writer, signed
from protocols.values import Value, ValueType

READINGS_MAX = 2_000_000
ROWS_MAX = 100_000
COLUMNS_MAX = 20_000
TEXT_MAX = 4096
STATUS_MAX = 0xFFFFFFFF

_TYPES = tuple(ValueType)
_CODE = {value_type: code for code, value_type in enumerate(_TYPES)}
_EXPONENT_MAX = 9
_EXACT = 1 << 53
_TIME_SCALES = {0: 1, 3: 1000, 6: 1_000_000}
_FLOATS = {ValueType.FLOAT32: ("f", "I", 4), ValueType.FLOAT64: ("d", "Q", 8)}


# --- columns by type ------------------------------------------------------------------------------------------------


def _decimal(numbers: Sequence[float], code: str, least: int = 0) -> tuple[int, list[int]] | None:
    """(k, integers) where every value is exactly n ÷ 10^k in the column's own width, with the least k ≥ `least`."""
    if not all(map(math.isfinite, numbers)):
        return None
    wanted = array(code, numbers).tobytes()
    probe, probe_bits = numbers[:1], wanted[: 4 if code == "f" else 8]
    top = max(map(abs, numbers))
    for exponent in range(least, _EXPONENT_MAX + 1):
        power = 10**exponent
        if top * power >= _EXACT:
            return None
        if array(code, [round(n * power) / power for n in probe]).tobytes() != probe_bits:
            continue  # one value tells most wrong exponents cheaply
        integers = [round(n * power) for n in numbers]
        if array(code, [n / power for n in integers]).tobytes() == wanted:
            return exponent, integers
    return None


def pattern_mode(value_type: ValueType) -> int:
    """The mode of a float column whose values are kept as bit patterns."""
    return XOR | WIDTHS.index(_FLOATS[value_type][2]) << 4


@dataclass(frozen=True, slots=True)
class Base:
    """What a column is expected to be near: its decimal exponent (or XOR) and a value as an integer or pattern."""

    exponent: int = 0
    first: int = 0


NO_BASE = Base()


def base_of(value_type: ValueType, values: Sequence[Any], least: int = 0) -> Base:
    """The base that suits these values (any of which may be None), with at least so many decimals; XOR: as patterns."""
    present = [value for value in values if value is not None]
    if not present or value_type in (ValueType.BOOL, ValueType.STRING):
        return NO_BASE
    if value_type not in _FLOATS:
        return Base(0, signed(present[-1]))
    code, bits_code, _ = _FLOATS[value_type]
    found = None if least == XOR else _decimal(present, code, least)
    if found is None:
        return Base(XOR, array(bits_code, array(code, present[-1:]).tobytes())[0])
    return Base(found[0], found[1][-1])


def write_values(writer: Writer, value_type: ValueType, values: Sequence[Any], base: Base = NO_BASE) -> Any:
    """Put numbers into the writer's streams; return what does not go there (bits, texts), or None."""
    if value_type is ValueType.BOOL:
        bits = sum(1 << at for at, value in enumerate(values) if value)
        return bits.to_bytes((len(values) + 7) // 8, "little")
    if value_type is ValueType.STRING:
        return pack_runs(values)
    if value_type in _FLOATS:
        _write_floats(writer, *_FLOATS[value_type], values, base)
    else:
        writer.integers(values, 0, base.first)
    return None


def _write_floats(writer: Writer, code: str, bits_code: str, width: int, values: Sequence[float], base: Base) -> None:
    """As decimals if that is exact, with the base's exponent if that will do; otherwise as patterns."""
    found: tuple[int, list[int]] | None = (0, [])
    if values:
        found = None if base.exponent == XOR else _decimal(values, code, base.exponent)
        if found is None and 0 < base.exponent < XOR:
            found = _decimal(values, code)
    if found is None:
        bits = array(bits_code, array(code, values).tobytes()).tolist()
        writer.patterns(bits, width, base.first if base.exponent == XOR else 0)
    else:
        writer.integers(found[1], found[0], base.first if base.exponent == found[0] else 0)


def _read_values(reader: Reader, value_type: ValueType, count: int, extra: Any, base: Base = NO_BASE) -> list[Any]:
    if value_type is ValueType.BOOL:
        return _read_bits(extra, count)
    if value_type is ValueType.STRING:
        return unpack_runs(extra, count, str)
    if not count:
        reader.mode()
        return []
    exponent, width = reader.mode()
    first = base.first if base.exponent == exponent else 0
    if value_type in _FLOATS:
        code, bits_code, pattern_width = _FLOATS[value_type]
        if exponent == XOR:
            if width != pattern_width:
                raise ColumnError(f"a {value_type} column has patterns of {width} bytes")
            return array(code, array(bits_code, reader.patterns(count, width, first)).tobytes()).tolist()
        power = 10**exponent
        return array(code, [n / power for n in reader.integers(count, width, first)]).tolist()
    if exponent:
        raise ColumnError(f"a {value_type} column has a decimal exponent")
    numbers = reader.integers(count, width, first)
    return [n & MASK for n in numbers] if value_type is ValueType.UINT else numbers


def _read_bits(extra: Any, count: int) -> list[bool]:
    if not isinstance(extra, bytes) or len(extra) != (count + 7) // 8:
        raise ColumnError(f"a bool column of {count} values has no {(count + 7) // 8} bytes")
    bits = int.from_bytes(extra, "little")
    return [bool(bits >> at & 1) for at in range(count)]


def unpack_runs(extra: Any, count: int, kind: type) -> list[Any]:
    """Run-length pairs [count, value, count, value, …] that must add up to `count`."""
    if not isinstance(extra, list) or len(extra) % 2:
        raise ColumnError("runs are not pairs of count and value")
    found: list[Any] = []
    for run, value in zip(extra[::2], extra[1::2], strict=True):
        if type(run) is not int or not 0 < run <= count - len(found) or type(value) is not kind:
            raise ColumnError("a run's count or value does not fit its column")
        if isinstance(value, str) and len(value) > TEXT_MAX:
            raise ColumnError(f"a text of {len(value)} characters is over the limit of {TEXT_MAX}")
        found.extend([value] * run)
    if len(found) < count:
        raise ColumnError("runs end before their column does")
    return found


# --- blocks ---------------------------------------------------------------------------------------------------------


def pack_block(block: Block) -> list[Any]:
    """[device, rows, names, types, units, streams, extras, exceptions], see docs/wire.md."""
    writer = Writer()
    writer.integers(block.times_us)
    extras, exceptions = pack_columns(writer, block.columns, repeat(NO_BASE))
    return [
        block.device,
        len(block.times_us),
        [column.name for column in block.columns],
        pack_types([column.type for column in block.columns]),
        pack_runs([column.unit for column in block.columns]),
        [bytes(writer.modes), *writer.packed()],
        extras,
        exceptions,
    ]


def pack_columns(
    writer: Writer, columns: Sequence[Column], bases: Iterable[Base]
) -> tuple[list[Any], dict[int, list[Any]]]:
    """Numbers into the writer; returns (bits and texts of the columns that have them, exceptions by position)."""
    extras: list[Any] = []
    exceptions: dict[int, list[Any]] = {}
    for at, (column, base) in enumerate(zip(columns, bases, strict=False)):
        present = [value for value in column.values if value is not None]
        extra = write_values(writer, column.type, present, base)
        if extra is not None:
            extras.append(extra)
        exception = _pack_exception(column, len(present))
        if exception is not None:
            exceptions[at] = exception
    return extras, exceptions


def pack_types(types: Iterable[ValueType]) -> bytes:
    """One byte per column."""
    return bytes(_CODE[value_type] for value_type in types)


def pack_runs(values: Iterable[Any]) -> list[Any]:
    """[count, value, count, value, …]."""
    return [part for value, run in groupby(values) for part in (len(list(run)), value)]


def _pack_exception(column: Column, present: int) -> list[Any] | None:
    """[row steps or nil, quality runs or nil, absent runs or nil, reasons], or None for a wholly regular column."""
    rows = None if column.rows is None else [b - a for a, b in pairwise((0, *column.rows))]
    quality = None if column.quality is None or not any(column.quality) else pack_runs(column.quality)
    absent = None if present == len(column.values) else pack_runs(int(value is None) for value in column.values)
    if rows is None and quality is None and absent is None and not column.reasons:
        return None
    return [rows, quality, absent, dict(column.reasons)]


def unpack_block(packed: Any, readings_left: int) -> Block:
    """The block in `packed`, of at most `readings_left` readings. Raises ColumnError."""
    if not isinstance(packed, list) or len(packed) != 8:
        raise ColumnError("a block is not an array of eight")
    device, rows, names, types, units, streams, extras, exceptions = packed
    if not isinstance(device, str) or len(device) > 64:
        raise ColumnError("a block's device is missing or too long")
    tags = unpack_tags(names, types, units)
    if not isinstance(streams, list) or len(streams) != 6 or not isinstance(streams[0], bytes):
        raise ColumnError("the block's streams are not six byte strings")
    reader = Reader(streams[0], streams[1:])
    times_us, columns = unpack_columns(reader, rows, tags, repeat(NO_BASE), extras, exceptions, readings_left)
    return Block(device, times_us, columns)


def unpack_tags(names: Any, types: Any, units: Any) -> list[tuple[str, ValueType, str]]:
    """(name, type, unit) of each column. Raises ColumnError."""
    if not isinstance(names, list) or len(names) > COLUMNS_MAX or not all(_is_name(name) for name in names):
        raise ColumnError("a block's tag names are missing, too many or not texts")
    if len(set(names)) != len(names):
        raise ColumnError("a tag stands twice in one block")
    if not isinstance(types, bytes) or len(types) != len(names) or any(code >= len(_TYPES) for code in types):
        raise ColumnError("a block's types do not match its tags")
    unit_list = unpack_runs(units, len(names), str)
    return [(name, _TYPES[code], unit) for name, code, unit in zip(names, types, unit_list, strict=True)]


def unpack_columns(
    reader: Reader,
    rows: Any,
    tags: Sequence[tuple[str, ValueType, str]],
    bases: Iterable[Base],
    extras: Any,
    exceptions: Any,
    readings_left: int,
    time_base: int = 0,
) -> tuple[list[int], list[Column]]:
    """(times in µs, columns) from a block's streams, to their very end. Raises ColumnError."""
    if type(rows) is not int or not 0 <= rows <= ROWS_MAX:
        raise ColumnError("a block's number of rows is missing or out of bounds")
    if not isinstance(extras, list) or not isinstance(exceptions, dict) or None in exceptions.values():
        raise ColumnError("a block's extras or exceptions are missing")
    exponent, width = reader.mode()
    scale = _TIME_SCALES.get(exponent)
    if scale is None:
        raise ColumnError("a block's times have an unknown scale")
    times_us = [time * scale for time in reader.integers(rows, width, time_base // scale)]
    more = iter(extras)
    columns = []
    for at, (tag, base) in enumerate(zip(tags, bases, strict=False)):
        column = _unpack_column(*tag, base, rows, reader, more, exceptions.get(at))
        readings_left -= len(column.values)
        if readings_left < 0:
            raise ColumnError(f"more than {READINGS_MAX} readings")
        columns.append(column)
    reader.end()
    if next(more, None) is not None or not all(type(key) is int and 0 <= key < len(tags) for key in exceptions):
        raise ColumnError("a block's extras or exceptions do not match its tags")
    return times_us, columns


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 128 and name.isprintable()


def _unpack_column(
    name: str,
    value_type: ValueType,
    unit: str,
    base: Base,
    block_rows: int,
    reader: Reader,
    more: Iterator[Any],
    exception: Any,
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
            quality = unpack_runs(exception[1], count, int)
            if not all(0 <= code <= STATUS_MAX for code in quality):
                raise ColumnError("a quality is not a 32-bit status code")
        if exception[2] is not None:
            absent = unpack_runs(exception[2], count, int)
            if not set(absent) <= {0, 1}:
                raise ColumnError("a column's absent values are not marked by 0 and 1")
        reasons = _read_reasons(exception[3], count)
    is_extra = value_type in (ValueType.BOOL, ValueType.STRING)
    present = count if absent is None else absent.count(0)
    found = _read_values(reader, value_type, present, next(more, None) if is_extra else None, base)
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
