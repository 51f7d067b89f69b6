"""One column of readings ⇄ its parts in the binary telemetry form: the general way, which takes any column. Pure.

Numbers go to the block's streams, bits and texts stand apart; so does what is not the rule (missing rows, quality other
than good, values that are absent). See docs/wire.md.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, groupby, pairwise
from math import isfinite
from struct import Struct
from typing import Any

from protocols.uplink.batch import Column
from protocols.uplink.flat import FLOATS, Tag
from protocols.uplink.lanes import MASK
from protocols.uplink.streams import XOR, ColumnError, Reader, Writer, signed
from protocols.values import Value, ValueType

TEXT_MAX = 4096
STATUS_MAX = 0xFFFFFFFF
EXPONENT_MAX = 9
EXACT = 1 << 53
"""Whole numbers below this are exact as float64."""
TELLING = 1 << 22
"""A float32 has 24 bits. Whole numbers of about as many say no more than the float's own pattern, and noise looks like
decimals by chance: as patterns it takes a tenth fewer bytes."""

_PACK = {code: Struct(code).pack for code in "fd"}
_DIGITS = b"0" + b"1" * 255
_EIGHT = [tuple(bool(byte >> at & 1) for at in range(8)) for byte in range(256)]
_PROBE_ABOVE = 8


@dataclass(frozen=True, slots=True)
class Base:
    """What a column is expected to be near: its decimal exponent (or XOR) and a value as an integer or pattern."""

    exponent: int = 0
    first: int = 0


NO_BASE = Base()


def bound_of(code: str, exponent: int) -> int:
    """Below what the whole numbers of a column with this decimal exponent have to stay. `code`: of its values."""
    return TELLING if code == "f" and exponent else EXACT


def _decimal(numbers: Sequence[float], code: str, least: int = 0) -> tuple[int, list[int]] | None:
    """(k, integers) where every value is exactly n ÷ 10^k in the column's own width, with the least k ≥ `least`."""
    if len(numbers) == 1:
        return _decimal_alone(numbers[0], code, least)
    wanted = array(code, numbers).tobytes()
    is_long = len(numbers) > _PROBE_ABOVE
    try:
        for exponent in range(least, EXPONENT_MAX + 1):
            power = 10**exponent
            if is_long:  # one value tells most wrong exponents cheaply
                probe = array(code, [round(numbers[0] * power) / power]).tobytes()
                if not wanted.startswith(probe):
                    continue
            integers = [round(n * power) for n in numbers]
            bound = bound_of(code, exponent)
            if max(integers) >= bound or min(integers) <= -bound:
                return None
            if array(code, [n / power for n in integers]).tobytes() == wanted:
                return exponent, integers
    except (ValueError, OverflowError):  # a NaN or an infinity is among them
        pass
    return None


def _decimal_alone(number: float, code: str, least: int) -> tuple[int, list[int]] | None:
    """The same for one value."""
    pack = _PACK[code]
    if not isfinite(number):
        return None
    wanted = pack(number)
    for exponent in range(least, EXPONENT_MAX + 1):
        power = 10**exponent
        scaled = number * power
        if not -EXACT < scaled < EXACT:
            return None
        integer = round(scaled)
        if abs(integer) >= bound_of(code, exponent):
            return None
        if pack(integer / power) == wanted:
            return exponent, [integer]
    return None


def base_of(kind: ValueType, values: Sequence[Any], exponent: int) -> Base:
    """The base that suits a number column next time: the last of its values, with the exponent that they took."""
    last = next((value for value in reversed(values) if value is not None), None)
    if last is None:
        return NO_BASE
    if kind not in FLOATS:
        return Base(0, signed(last))
    if exponent == XOR:
        code, bits_code, _ = FLOATS[kind]
        return Base(XOR, array(bits_code, array(code, [last]).tobytes())[0])
    return Base(exponent, round(last * 10**exponent))


def write_values(writer: Writer, value_type: ValueType, values: Sequence[Any], base: Base = NO_BASE) -> Any:
    """Put numbers into the writer's streams; return what does not go there (bits, texts), or None."""
    if value_type is ValueType.BOOL:
        return pack_bits(values)
    if value_type is ValueType.STRING:
        return pack_runs(values)
    if value_type in FLOATS:
        _write_floats(writer, *FLOATS[value_type], values, base)
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


def read_values(reader: Reader, kind: ValueType, count: int, extra: Any, base_exponent: int, base: int) -> list[Any]:
    """`count` values of a column. `extra`: its bits or texts. Raises ColumnError."""
    if kind is ValueType.BOOL:
        return read_bits(extra, count)
    if kind is ValueType.STRING:
        return unpack_runs(extra, count, str)
    exponent, width = reader.mode()
    if not count:
        return []
    first = base if base_exponent == exponent else 0
    if kind in FLOATS:
        code, bits_code, pattern_width = FLOATS[kind]
        if exponent == XOR:
            if width != pattern_width:
                raise ColumnError(f"a {kind} column has patterns of {width} bytes")
            return array(code, array(bits_code, reader.patterns(count, width, first)).tobytes()).tolist()
        power = 10**exponent
        values = [n / power for n in reader.integers(count, width, first)]
        return values if code == "d" else array(code, values).tolist()
    if exponent:
        raise ColumnError(f"a {kind} column has a decimal exponent")
    numbers = reader.integers(count, width, first)
    return [n & MASK for n in numbers] if kind is ValueType.UINT else numbers


def pack_bits(values: Iterable[Any]) -> bytes:
    """Bit i mod 8 of byte i div 8, the least significant first."""
    flags = bytes(map(bool, values))
    if not flags:
        return b""
    return int(flags[::-1].translate(_DIGITS), 2).to_bytes((len(flags) + 7) // 8, "little")


def read_bits(extra: Any, count: int) -> list[bool]:
    """The inverse. Raises ColumnError."""
    if not isinstance(extra, bytes) or len(extra) != (count + 7) // 8:
        raise ColumnError(f"a bool column of {count} values has no {(count + 7) // 8} bytes")
    return list(chain.from_iterable([_EIGHT[byte] for byte in extra]))[:count]


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
        if run == count and len(extra) == 2:
            return [value] * run
        found.extend([value] * run)
    if len(found) < count:
        raise ColumnError("runs end before their column does")
    return found


def pack_runs(values: Iterable[Any]) -> list[Any]:
    """[count, value, count, value, …]."""
    if isinstance(values, list | tuple) and values and values.count(values[0]) == len(values):
        return [len(values), values[0]]
    return [part for value, run in groupby(values) for part in (len(list(run)), value)]


def pack_exception(column: Column, present: int) -> list[Any] | None:
    """[row steps or nil, quality runs or nil, absent runs or nil, reasons], or None for a wholly regular column."""
    rows = None if column.rows is None else [b - a for a, b in pairwise((0, *column.rows))]
    quality = None if column.quality is None or not any(column.quality) else pack_runs(column.quality)
    absent = None if present == len(column.values) else pack_runs(int(value is None) for value in column.values)
    if rows is None and quality is None and absent is None and not column.reasons:
        return None
    return [rows, quality, absent, dict(column.reasons)]


def read_column(
    tag: Tag, base_exponent: int, base: int, block_rows: int, reader: Reader, extra: Any, exception: Any
) -> Column:
    """The column of a tag, with what is not the rule in it: `exception`, or None. Raises ColumnError."""
    name, kind, unit = tag
    if exception is None:
        return Column(name, kind, read_values(reader, kind, block_rows, extra, base_exponent, base), unit)
    rows, quality, absent, reasons = _read_exception(exception, block_rows)
    count = block_rows if rows is None else len(rows)
    if absent is None:
        values: list[Value] = read_values(reader, kind, count, extra, base_exponent, base)
    else:
        each = iter(read_values(reader, kind, absent.count(0), extra, base_exponent, base))
        values = [None if gone else next(each) for gone in absent]
    return Column(name, kind, values, unit, rows, quality, reasons)


_Exception = tuple[list[int] | None, list[int] | None, list[int] | None, Mapping[int, str]]


def _read_exception(exception: Any, block_rows: int) -> _Exception:
    """(rows, quality, absent, reasons)."""
    if not isinstance(exception, list) or len(exception) != 4:
        raise ColumnError("a column's exceptions are not an array of four")
    rows: list[int] | None = None
    quality: list[int] | None = None
    absent: list[int] | None = None
    count = block_rows
    if exception[0] is not None:
        rows = _read_rows(exception[0], block_rows)
        count = len(rows)
    if exception[1] is not None:
        quality = unpack_runs(exception[1], count, int)
        if quality and (min(quality) < 0 or max(quality) > STATUS_MAX):
            raise ColumnError("a quality is not a 32-bit status code")
    if exception[2] is not None:
        absent = unpack_runs(exception[2], count, int)
        if not set(absent) <= {0, 1}:
            raise ColumnError("a column's absent values are not marked by 0 and 1")
    return rows, quality, absent, _read_reasons(exception[3], count)


def _read_rows(steps: Any, block_rows: int) -> list[int]:
    if not isinstance(steps, list) or not set(map(type, steps)) <= {int}:
        raise ColumnError("a column's rows are not an array of steps")
    rows = list(accumulate(steps))
    if rows and (steps[0] < 0 or min(steps[1:], default=1) < 1 or rows[-1] >= block_rows):
        raise ColumnError("a column's rows are not ascending within the block")
    return rows


def _read_reasons(reasons: Any, count: int) -> Mapping[int, str]:
    if reasons == {}:
        return {}
    if not isinstance(reasons, dict) or not all(
        type(at) is int and 0 <= at < count and isinstance(text, str) and len(text) <= TEXT_MAX
        for at, text in reasons.items()
    ):
        raise ColumnError("a column's reasons do not match its values")
    return reasons
