"""Blocks ⇄ what the binary telemetry form has of them. Pure, lossless, bit for bit.

The layout is specified in docs/wire.md. In short: every number becomes an integer (floats that are decimal multiples
exactly, n ÷ 10^k; other floats as their bit patterns), neighbours in time are subtracted (or XORed), the differences of
all columns that fit the same width are put side by side and their bytes sorted by significance, so that zstd finds the
repetition. Nothing about a value is assumed that is not checked to be exactly reversible.

What is not the rule (missing rows, quality other than good, values that are absent) stands apart, per column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from protocols.uplink import arrays
from protocols.uplink.batch import Block, Column
from protocols.uplink.bulk import Assembly, Lot, Unsound
from protocols.uplink.columns import (
    NO_BASE,
    Base,
    pack_bits,
    pack_exception,
    pack_runs,
    read_column,
    read_values,
    unpack_runs,
)
from protocols.uplink.flat import TEXTS, Layout, RowBlock, Tag
from protocols.uplink.one_row import one_row
from protocols.uplink.streams import TIME_SCALES, XOR, ColumnError, Reader
from protocols.values import ValueType

READINGS_MAX = 2_000_000
ROWS_MAX = 100_000
COLUMNS_MAX = 20_000

_TYPES = tuple(ValueType)
_CODE = {value_type: code for code, value_type in enumerate(_TYPES)}


def pack_block(block: Block) -> list[Any]:
    """[device, rows, names, types, units, streams, extras, exceptions], see docs/wire.md."""
    columns = block.columns
    assembly, extras, exceptions = pack_columns(columns, [NO_BASE] * len(columns), is_guess=True)
    assembly.add_times(block.times_us, 0, 0)
    return [
        block.device,
        len(block.times_us),
        [column.name for column in columns],
        pack_types([column.type for column in columns]),
        pack_runs([column.unit for column in columns]),
        [bytes(assembly.modes), *assembly.packed()],
        extras,
        exceptions,
    ]


def pack_columns(
    columns: Sequence[Column], bases: Sequence[Base], *, is_guess: bool = False
) -> tuple[Assembly, list[Any], dict[int, list[Any]]]:
    """Numbers (without the times), bits and texts of the columns that have them, exceptions by position."""
    extras: list[Any] = []
    exceptions: dict[int, list[Any]] = {}
    lots: dict[tuple[ValueType, int], tuple[Lot, list[Sequence[Any]]]] = {}
    place = 1
    for at, (column, base) in enumerate(zip(columns, bases, strict=True)):
        kind, values = column.type, column.values
        if None in values:
            values = [value for value in values if value is not None]
        if kind in TEXTS:
            extras.append(pack_bits(values) if kind is ValueType.BOOL else pack_runs(values))
        else:
            if values:
                lot, of_lot = lots.setdefault((kind, base.exponent), (Lot(kind, base.exponent, is_guess=is_guess), []))
                lot.places.append(place)
                lot.bases.append(base.first)
                of_lot.append(values)
            place += 1
        if column.rows is not None or column.quality is not None or column.reasons or len(values) < len(column.values):
            exception = pack_exception(column, len(values))
            if exception is not None:
                exceptions[at] = exception
    assembly = Assembly(place)
    for lot, of_lot in lots.values():
        _add(assembly, lot, of_lot)
    return assembly, extras, exceptions


def _add(assembly: Assembly, lot: Lot, of_lot: Sequence[Sequence[Any]]) -> None:
    try:
        assembly.add(lot, list(chain.from_iterable(of_lot)), list(map(len, of_lot)))
    except Unsound:  # a whole number among floats, say
        for place, base, values in zip(lot.places, lot.bases, of_lot, strict=True):
            assembly.add_alone(place, lot.kind, values, Base(lot.exponent, base))


def pack_types(types: Iterable[ValueType]) -> bytes:
    """One byte per column."""
    return bytes([_CODE[value_type] for value_type in types])


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
    none = [0] * len(tags)
    layout = Layout(b"", device, tags, none, none)
    return unpack_rows(layout, rows, streams[0], streams[1:], extras, exceptions, readings_left)


def unpack_tags(names: Any, types: Any, units: Any) -> list[Tag]:
    """(name, type, unit) of each column. Raises ColumnError."""
    if not isinstance(names, list) or len(names) > COLUMNS_MAX or not all(map(_is_name, names)):
        raise ColumnError("a block's tag names are missing, too many or not texts")
    if len(set(names)) != len(names):
        raise ColumnError("a tag stands twice in one block")
    if not isinstance(types, bytes) or len(types) != len(names) or max(types, default=0) >= len(_TYPES):
        raise ColumnError("a block's types do not match its tags")
    return list(zip(names, [_TYPES[code] for code in types], unpack_runs(units, len(names), str), strict=True))


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 128 and name.isprintable()


def unpack_rows(
    layout: Layout, rows: Any, modes: bytes, streams: Any, extras: Any, exceptions: Any, readings_left: int
) -> Block:
    """The block of a layout, from `streams` as of Writer.packed, to their very end. Raises ColumnError."""
    if type(rows) is not int or not 0 <= rows <= ROWS_MAX:
        raise ColumnError("a block's number of rows is missing or out of bounds")
    if not isinstance(extras, list) or not isinstance(exceptions, dict) or None in exceptions.values():
        raise ColumnError("a block's extras or exceptions are missing")
    if not isinstance(streams, list) or len(streams) != 5 or not all(isinstance(part, bytes) for part in streams):
        raise ColumnError("a block's streams are not byte strings, or not as many as there should be")
    if not exceptions and rows * len(layout.tags) > readings_left:
        raise ColumnError(f"more than {READINGS_MAX} readings")
    if rows == 1 and not exceptions:
        plan = one_row(layout, modes)
        time_us, row = plan.read(streams, extras)
        return RowBlock(layout, [time_us], plan.patterns, rows=[row])
    if rows and not exceptions and arrays.pays(rows * len(layout.tags)):
        from protocols.uplink.array_reader import unpack_arrays  # numpy is imported where it pays, not before

        return unpack_arrays(layout, rows, modes, streams, extras)
    reader, more = Reader(modes, streams), iter(extras)
    times_us = _read_times(reader, rows, layout.time_us)
    if exceptions:
        block = Block(layout.device, times_us, _read_columns(layout, reader, rows, more, exceptions, readings_left))
    else:
        by_tag = [
            read_values(reader, tag[1], rows, next(more, None) if tag[1] in TEXTS else None, exponent, first)
            for tag, exponent, first in zip(layout.tags, layout.exponents, layout.firsts, strict=True)
        ]
        patterns = [at for at, mode in zip(layout.numbers, modes[1:], strict=False) if mode & 0x0F == XOR]
        block = RowBlock(layout, times_us, patterns, by_tag=by_tag)
    reader.end()
    if next(more, None) is not None:
        raise ColumnError("a block has more extras than columns of bits and texts")
    return block


def _read_times(reader: Reader, rows: int, base_us: int) -> list[int]:
    exponent, width = reader.mode()
    scale = TIME_SCALES.get(exponent)
    if scale is None:
        raise ColumnError("a block's times have an unknown scale")
    times = reader.integers(rows, width, base_us // scale)
    return times if scale == 1 else [time * scale for time in times]


def _read_columns(
    layout: Layout, reader: Reader, rows: int, more: Iterator[Any], exceptions: dict[Any, Any], readings_left: int
) -> list[Column]:
    """The general way: column by column, each with its own rows."""
    columns = []
    for at, (tag, exponent, first) in enumerate(zip(layout.tags, layout.exponents, layout.firsts, strict=True)):
        extra = next(more, None) if tag[1] in TEXTS else None
        column = read_column(tag, exponent, first, rows, reader, extra, exceptions.get(at))
        readings_left -= len(column.values)
        if readings_left < 0:
            raise ColumnError(f"more than {READINGS_MAX} readings")
        columns.append(column)
    if not all(type(key) is int and 0 <= key < len(layout.tags) for key in exceptions):
        raise ColumnError("a block's exceptions do not match its tags")
    return columns
