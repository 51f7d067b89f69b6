"""Recordings of plants as batches: the excerpt that the demo carries, or any CSV.

A CSV has a first column of times (ISO 8601, or a number of seconds, ms, µs or ns since 1970) and one column per tag. A
column of numbers is a float64 tag, of true/false a boolean one, of anything else a text; an empty cell is no reading.
"""

from __future__ import annotations

import csv
import gzip
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from protocols.uplink.batch import Batch, Block, Column
from protocols.values import Value, ValueType

EXCERPT = Path(__file__).parent.parent / "demo" / "data" / "solar-plant-excerpt.csv.gz"
GATEWAY = "gateway-1"
EPOCH = "0f1e2d3c4b5a6978"
WINDOWS = 4

_ABSENT = {"", "nan", "null", "none", "n/a"}
_TRUTHS = {"true": True, "false": False}


class RecordingError(ValueError):
    """The file is no recording; the text says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag's readings. `rows`: positions in the recording's times, ascending; None: all. `quality` None: good."""

    name: str
    type: ValueType
    values: Sequence[Value]
    unit: str = ""
    rows: Sequence[int] | None = None
    quality: Sequence[int] | None = None

    def readings(self, start: int, stop: int) -> Column | None:
        """Those of the recording's rows from `start` to before `stop`; None where there are none."""
        if self.rows is None:
            first, last, rows = start, stop, None
        else:
            first, last = bisect_left(self.rows, start), bisect_left(self.rows, stop)
            rows = [row - start for row in self.rows[first:last]]
            rows = None if len(rows) == stop - start else rows
        if first == last:
            return None
        quality = None if self.quality is None else self.quality[first:last]
        return Column(
            self.name,
            self.type,
            self.values[first:last],
            self.unit,
            rows,
            quality if quality and any(quality) else None,
        )


@dataclass(frozen=True, slots=True)
class Recording:
    """`times_us`: one per row."""

    name: str
    device: str
    times_us: Sequence[int]
    tags: Sequence[Tag]

    def named(self) -> list[tuple[str, ValueType, str]]:
        """Name, type and unit of all tags."""
        return [(tag.name, tag.type, tag.unit) for tag in self.tags]

    def batches(self, scans: int, readings_max: int) -> Iterator[Batch]:
        """As the agent sends them, `scans` rows each. Of a long recording WINDOWS pieces, `readings_max` in all."""
        rows = len(self.times_us)
        readings = sum(len(tag.values) for tag in self.tags)
        for seq, start in enumerate(_starts(rows, scans, min(1.0, readings_max / readings)), 1):
            stop = start + scans
            columns = [column for tag in self.tags if (column := tag.readings(start, stop)) is not None]
            yield Batch(GATEWAY, EPOCH, seq, [Block(self.device, self.times_us[start:stop], columns)])


def _starts(rows: int, scans: int, part: float) -> list[int]:
    """First rows of full batches: that part of them, in pieces that follow each other without a gap."""
    count = rows // scans
    if not count:
        raise RecordingError(f"a recording of {rows} rows gives no batch of {scans} scans")
    if part == 1.0:
        return [at * scans for at in range(count)]
    length = max(1, int(count * part / WINDOWS))
    firsts = [int(window * (count - length) / max(1, WINDOWS - 1)) for window in range(WINDOWS)]
    return [at * scans for at in sorted({first + step for first in firsts for step in range(length)})]


def load(path: Path = EXCERPT) -> Recording:
    """Plain or gzipped CSV, separated by comma, semicolon or tab. Raises RecordingError."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    lines = text.splitlines()
    separator = max(",;\t", key=lines[0].count) if lines else ","
    head, *rows = csv.reader(lines, delimiter=separator) if lines else [[]]
    width = len(head)
    if width < 2 or not rows or any(len(row) != width for row in rows):
        raise RecordingError(f"{path}: not a table of times and tags; every line needs as many cells as the first one")
    if len(set(head)) != width:
        raise RecordingError(f"{path}: two columns have the same name; give each tag its own")
    times_us = [_time_us(row[0], path) for row in rows]
    decimal_comma = separator != ","
    tags = [_tag(head[at], [row[at] for row in rows], decimal_comma) for at in range(1, width)]
    return Recording(path.name.removesuffix(".gz").removesuffix(".csv"), "plc-1", times_us, tags)


def _tag(name: str, cells: list[str], decimal_comma: bool) -> Tag:
    rows = [at for at, cell in enumerate(cells) if cell.strip().lower() not in _ABSENT]
    kind, values = _values([cells[at].strip() for at in rows], decimal_comma)
    return Tag(name, kind, values, rows=None if len(rows) == len(cells) else rows)


def _values(cells: list[str], decimal_comma: bool) -> tuple[ValueType, list[Value]]:
    if all(cell.lower() in _TRUTHS for cell in cells):
        return ValueType.BOOL, [_TRUTHS[cell.lower()] for cell in cells]
    try:
        return ValueType.FLOAT64, [float(cell.replace(",", ".") if decimal_comma else cell) for cell in cells]
    except ValueError:
        return ValueType.STRING, list(cells)


def _time_us(cell: str, path: Path) -> int:
    try:
        number = float(cell)
    except ValueError:
        try:
            moment = datetime.fromisoformat(cell)
        except ValueError:
            raise RecordingError(
                f"{path}: {cell!r:.40} is no time; write ISO 8601, as in 2017-06-01T00:00:00"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1_000_000)
    for unit_us in (1_000_000.0, 1000.0, 1.0, 0.001):  # s, ms, µs, ns: the one that gives a year before 2286
        if number * unit_us < 1e16:
            return round(number * unit_us)
    raise RecordingError(f"{path}: {cell!r:.40} is no time since 1970")
