"""The readings of one group of messages, and the newest of each series, on their way into the database.

Rows go in many to a statement: SQLite takes a hundred of them in half the time of a hundred statements. Whole rows of
all messages are put in the order of the index first, so that it grows at its end, however many gateways send at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from cloud.store.packing import Kept, Packed, Sheet
from cloud.store.sqlite_catalog import Catalog, Machine, Series

_ROWS_PER_STATEMENT = 100
_ROWS_WAITING_MAX = 50_000
Order = tuple[int, int, int]
"""Time, epoch by first appearance, seq: what makes a reading the newest."""

_INSERT = "INSERT INTO readings (series_id, time, value, quality) VALUES "
_STATE = "INSERT INTO machine_state (series_id, time, epoch_id, seq, value, quality, reason) VALUES "
_STATE_WINS = (
    " ON CONFLICT (series_id) DO UPDATE SET time = excluded.time, epoch_id = excluded.epoch_id, seq = excluded.seq,"
    " value = excluded.value, quality = excluded.quality, reason = excluded.reason"
    " WHERE (excluded.time, excluded.epoch_id, excluded.seq)"
    " >= (machine_state.time, machine_state.epoch_id, machine_state.seq)"
)


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest readings of some series: one of each, at one moment. `key`: names the series."""

    key: tuple[int, ...] | int
    order: Order
    series: Sequence[Series]
    tags: Sequence[tuple[str, str, str]]  # as in a sheet
    device: str
    values: Sequence[Kept]
    quality: int
    reason: str

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """As `machine_state` has them."""
        time_us, epoch_id, seq = self.order
        for series, value in zip(self.series, self.values, strict=True):
            yield (series.id, time_us, epoch_id, seq, value, self.quality, self.reason)


class Readings:
    """`add` batch by batch, in the order of receipt; `write` at the end of the group."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog) -> None:
        self._connection = connection
        self._catalog = catalog
        self._rows: list[tuple[int, int, Kept, int]] = []
        self._sheet_rows: list[tuple[int, tuple[int, ...], Sequence[Kept]]] = []  # time, series, values
        self._waiting = 0
        self._newest: dict[tuple[int, ...] | int, Newest] = {}

    def add(self, machine: Machine, parts: Iterable[Sheet | Packed], epoch_id: int, seq: int) -> None:
        """One batch's readings."""
        for part in parts:
            newest = self._take(machine, part, epoch_id, seq)
            if newest is not None:
                self._note(newest)
        if self._waiting >= _ROWS_WAITING_MAX:
            self._write_rows()

    def add_apart(
        self, machine: Machine, parts: Iterable[Sheet | Packed], epoch_id: int, seq: int
    ) -> tuple[tuple[int, int], list[Newest]]:
        """One batch's readings, whose times compare with no others: ((first, last row), its newest values).

        The rows are written at once, so that they follow each other; where there are none, the first is above the last.
        """
        self._write_rows()
        before = self._last_row()
        newest = [self._take(machine, part, epoch_id, seq) for part in parts]
        self._write_rows()
        return (before + 1, self._last_row()), [one for one in newest if one is not None]

    def _last_row(self) -> int:
        ((last,),) = self._connection.execute("SELECT coalesce(max(rowid), 0) FROM readings")
        return int(last)

    def write(self) -> None:
        """Everything that waits."""
        self._write_rows()
        self._write_state()

    def _take(self, machine: Machine, part: Sheet | Packed, epoch_id: int, seq: int) -> Newest | None:
        """Its rows; and what may be the newest of it."""
        if isinstance(part, Sheet):
            layout = self._catalog.layout(self._connection, machine, part)
            self._sheet_rows.extend(zip(part.times_us, repeat(layout.ids), part.rows, strict=False))
            self._waiting += len(layout.ids) * len(part.rows)
            if part.newest is None:
                return None
            order, values = (part.times_us[part.newest], epoch_id, seq), part.rows[part.newest]
            return Newest(layout.ids, order, layout.series, part.tags, part.device, values, 0, "")
        tag = (part.tag, part.type, part.unit)
        series = self._catalog.series(self._connection, machine, part.device, tag)
        self._rows.extend(zip(repeat(series.id), part.times_us, part.values, part.quality))
        self._waiting += len(part.values)
        if part.newest is None:
            return None
        at = part.newest
        order = (part.times_us[at], epoch_id, seq)
        return Newest(series.id, order, [series], [tag], part.device, [part.values[at]], part.quality[at], part.reason)

    def _note(self, newest: Newest) -> None:
        before = self._newest.get(newest.key)
        if before is None or newest.order >= before.order:
            self._newest.pop(newest.key, None)  # it goes to the end: of one batch's equals the last is the newest
            self._newest[newest.key] = newest

    def _write_rows(self) -> None:
        self._sheet_rows.sort(key=_place)
        for time_us, series_ids, values in self._sheet_rows:
            self._rows.extend(zip(series_ids, repeat(time_us), values, repeat(0)))
        _insert(self._connection, _INSERT, "", 4, self._rows)
        self._rows.clear()
        self._sheet_rows.clear()
        self._waiting = 0

    def _write_state(self) -> None:
        write_state(self._connection, [row for new in self._newest.values() for row in new.rows()])
        for new in self._newest.values():
            for series, (_, _, unit) in zip(new.series, new.tags, strict=True):
                if series.unit != unit or series.device != new.device:
                    self._rename(series, new.device, unit, new.order)

    def _rename(self, series: Series, device: str, unit: str, order: Order) -> None:
        """Device and unit follow the newest reading, so that a late backlog does not bring an old unit back."""
        changed = self._connection.execute(
            "UPDATE series SET device = ?, unit = ? WHERE id = ? AND EXISTS (SELECT 1 FROM machine_state"
            " WHERE series_id = series.id AND time = ? AND epoch_id = ? AND seq = ?)",
            (device, unit, series.id, *order),
        )
        if changed.rowcount:
            series.device, series.unit = device, unit


def _place(row: tuple[int, tuple[int, ...], Sequence[Kept]]) -> tuple[int, int]:
    return row[0], row[1][0]


def write_state(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Candidates for the latest values."""
    _insert(connection, _STATE, _STATE_WINS, 7, rows)


def _insert(connection: sqlite3.Connection, head: str, tail: str, width: int, rows: Sequence[tuple[Any, ...]]) -> None:
    """All rows, as many to a statement as can be; the rest one by one."""
    row, step = f"({', '.join('?' * width)})", _ROWS_PER_STATEMENT
    whole = len(rows) // step * step
    if whole:
        many = head + ", ".join([row] * step) + tail
        connection.executemany(many, (tuple(chain.from_iterable(rows[at : at + step])) for at in range(0, whole, step)))
    if whole < len(rows):
        connection.executemany(head + row + tail, rows[whole:])
