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
from cloud.store.sqlite_catalog import Catalog, Layout, Machine, Series

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
class _Newest:
    """The group's newest readings of some series: one of each, at one moment."""

    order: Order
    series: Sequence[Series]
    tags: Sequence[tuple[str, str, str]]  # as in a sheet
    device: str
    values: Sequence[Kept]
    quality: int
    reason: str


class Readings:
    """`add` batch by batch, in the order of receipt; `write` at the end of the group."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog) -> None:
        self._connection = connection
        self._catalog = catalog
        self._rows: list[tuple[int, int, Kept, int]] = []
        self._sheet_rows: list[tuple[int, tuple[int, ...], Sequence[Kept]]] = []  # time, series, values
        self._waiting = 0
        self._newest: dict[tuple[int, ...] | int, _Newest] = {}

    def add(self, machine: Machine, parts: Iterable[Sheet | Packed], epoch_id: int, seq: int) -> None:
        """One batch's readings."""
        for part in parts:
            if isinstance(part, Sheet):
                self._add_sheet(self._catalog.layout(self._connection, machine, part), part, epoch_id, seq)
            else:
                tag = (part.tag, part.type, part.unit)
                self._add_column(self._catalog.series(self._connection, machine, part.device, tag), part, epoch_id, seq)
        if self._waiting >= _ROWS_WAITING_MAX:
            self._write_rows()

    def write(self) -> None:
        """Everything that waits."""
        self._write_rows()
        self._write_state()

    def _add_sheet(self, layout: Layout, sheet: Sheet, epoch_id: int, seq: int) -> None:
        self._sheet_rows.extend(zip(sheet.times_us, repeat(layout.ids), sheet.rows, strict=False))
        self._waiting += len(layout.ids) * len(sheet.rows)
        if sheet.newest is None:
            return
        order = (sheet.times_us[sheet.newest], epoch_id, seq)
        before = self._newest.get(layout.ids)
        if before is None or order >= before.order:
            values = sheet.rows[sheet.newest]
            self._note(layout.ids, _Newest(order, layout.series, sheet.tags, sheet.device, values, 0, ""))

    def _add_column(self, series: Series, packed: Packed, epoch_id: int, seq: int) -> None:
        self._rows.extend(zip(repeat(series.id), packed.times_us, packed.values, packed.quality))
        self._waiting += len(packed.values)
        if packed.newest is None:
            return
        at = packed.newest
        order = (packed.times_us[at], epoch_id, seq)
        before = self._newest.get(series.id)
        if before is None or order >= before.order:
            tags, values = [(packed.tag, packed.type, packed.unit)], [packed.values[at]]
            new = _Newest(order, [series], tags, packed.device, values, packed.quality[at], packed.reason)
            self._note(series.id, new)

    def _note(self, key: tuple[int, ...] | int, newest: _Newest) -> None:
        self._newest.pop(key, None)  # it goes to the end: of one batch's equals the last is the newest
        self._newest[key] = newest

    def _write_rows(self) -> None:
        self._sheet_rows.sort(key=_place)
        for time_us, series_ids, values in self._sheet_rows:
            self._rows.extend(zip(series_ids, repeat(time_us), values, repeat(0)))
        _insert(self._connection, _INSERT, "", 4, self._rows)
        self._rows.clear()
        self._sheet_rows.clear()
        self._waiting = 0

    def _write_state(self) -> None:
        _insert(self._connection, _STATE, _STATE_WINS, 7, list(chain.from_iterable(map(_state, self._newest.values()))))
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


def _state(new: _Newest) -> Iterator[tuple[Any, ...]]:
    time_us, epoch_id, seq = new.order
    for series, value in zip(new.series, new.values, strict=True):
        yield (series.id, time_us, epoch_id, seq, value, new.quality, new.reason)


def _insert(connection: sqlite3.Connection, head: str, tail: str, width: int, rows: Sequence[tuple[Any, ...]]) -> None:
    """All rows, as many to a statement as can be; the rest one by one."""
    row, step = f"({', '.join('?' * width)})", _ROWS_PER_STATEMENT
    whole = len(rows) // step * step
    if whole:
        many = head + ", ".join([row] * step) + tail
        connection.executemany(many, (tuple(chain.from_iterable(rows[at : at + step])) for at in range(0, whole, step)))
    if whole < len(rows):
        connection.executemany(head + row + tail, rows[whole:])
