"""Times by clocks that nobody vouched for: kept apart until the true time is told, then corrected, each batch once.

A batch with a clock's mark is stored like any other, but the rows of its readings are noted, and its newest values go
to a state of their own (`uncertain_state`), in the order of the boot's own time: its times compare with no others. When
a status tells the true zero hour of the span, that state joins the latest values at once, and the batches are
corrected a few at a time, each in one transaction with the end of its note. What arrives later is corrected as it is
stored. The first zero hour that is told of a span stays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from cloud.clock import fits, times
from cloud.store.contract import Beat, ClockSpan, Telemetry
from cloud.store.sqlite_catalog import plant_id
from cloud.store.sqlite_readings import Newest, write_state
from protocols.uplink.mark import ClockMark
from protocols.uplink.topics import GatewayTopic

STEP_ROWS = 5_000
SPANS_KEPT = 32
"""Of one gateway: of earlier ones no zero hour can be told any more (protocols/uplink/status.py: ZEROS_MAX)."""


class Timing(NamedTuple):
    """`shift_us`: the correction, which is made as the batch is stored; None: it waits for one, or there is none."""

    mark: ClockMark | None = None
    shift_us: int | None = None

    @property
    def is_uncertain(self) -> bool:
        """Nobody vouches for its times, yet."""
        return self.mark is not None and self.shift_us is None


def timing(connection: sqlite3.Connection, item: Telemetry, plant: int) -> Timing:
    """What is known by now of the clock that stamped this batch."""
    if item.clock is None:
        return Timing()
    told = connection.execute(
        "SELECT zero_us FROM clock_spans WHERE plant_id = ? AND gateway = ? AND span = ?",
        (plant, item.batch.gateway, item.clock.span),
    ).fetchone()
    if told is None or told[0] is None:
        return Timing(item.clock)
    shift_us = told[0] - item.clock.zero_us
    return Timing(item.clock, shift_us if fits(times(item.batch), shift_us) else None)


def note(connection: sqlite3.Connection, item: Telemetry, timing: Timing, plant: int) -> int | None:
    """Count a batch in its span, which is made where it is new. Returns the span's id."""
    if timing.mark is None:
        return None
    ((span_id, made),) = connection.execute(
        "INSERT INTO clock_spans (plant_id, gateway, span, first_us, last_us) VALUES (?1, ?2, ?3, ?4, ?4)"
        " ON CONFLICT (plant_id, gateway, span) DO UPDATE SET first_us = coalesce(first_us, ?4), last_us = ?4"
        " RETURNING id, batches = 0",
        (plant, item.batch.gateway, timing.mark.span, item.received_us),
    ).fetchall()
    connection.execute(
        "UPDATE clock_spans SET batches = batches + 1, corrected = corrected + ? WHERE id = ?",
        (0 if timing.is_uncertain else 1, span_id),
    )
    if made:
        _forget(connection, plant, item.batch.gateway)
    return int(span_id)


def _forget(connection: sqlite3.Connection, plant: int, gateway: str) -> None:
    """What belongs to spans that are too old to be told of."""
    old = connection.execute(
        "SELECT id FROM clock_spans WHERE plant_id = ? AND gateway = ? ORDER BY id DESC LIMIT -1 OFFSET ?",
        (plant, gateway, SPANS_KEPT),
    ).fetchall()
    connection.executemany("DELETE FROM uncertain_state WHERE span_id = ?", old)
    connection.executemany("DELETE FROM uncertain_batches WHERE span_id = ?", old)


def hold(
    connection: sqlite3.Connection,
    span_id: int,
    item: Telemetry,
    mark: ClockMark,
    epoch_id: int,
    rows: tuple[int, int],
    newest: Iterable[Newest],
) -> None:
    """A batch that waits for its correction: its readings' rows, and its newest values."""
    connection.execute(
        "INSERT INTO uncertain_batches (span_id, epoch_id, seq, zero_us, first_rowid, last_rowid)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (span_id, epoch_id, item.batch.seq, mark.zero_us, *rows),
    )
    live_us = None if item.historical else item.received_us
    connection.executemany(
        "INSERT INTO uncertain_state (span_id, series_id, since_us, time, epoch_id, seq, value, quality, reason,"
        " live_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (span_id, series_id) DO UPDATE SET"
        " since_us = excluded.since_us, time = excluded.time, epoch_id = excluded.epoch_id, seq = excluded.seq,"
        " value = excluded.value, quality = excluded.quality, reason = excluded.reason,"
        " live_us = coalesce(excluded.live_us, live_us)"
        " WHERE (excluded.since_us, excluded.epoch_id, excluded.seq) >= (since_us, epoch_id, seq)",
        [
            (span_id, series_id, time_us - mark.zero_us, time_us, *rest, live_us)
            for one in newest
            for series_id, time_us, *rest in one.rows()
        ],
    )


def tell(connection: sqlite3.Connection, beat: Beat, plant: int, tolerance_us: int) -> None:
    """What a status says of zero hours. The state of their spans joins the latest values."""
    clock = beat.status.clock
    for span, zero_us in ({} if clock is None else clock.zeros).items():
        told = connection.execute(
            "INSERT INTO clock_spans (plant_id, gateway, span, zero_us, told_us) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (plant_id, gateway, span) DO UPDATE SET zero_us = excluded.zero_us,"
            " told_us = excluded.told_us WHERE zero_us IS NULL RETURNING id",
            (plant, beat.topic.thing, bytes.fromhex(span), zero_us, beat.received_us),
        ).fetchall()
        for (span_id,) in told:
            _join(connection, span_id, zero_us, beat.received_us + tolerance_us)


def _join(connection: sqlite3.Connection, span_id: int, zero_us: int, latest_us: int) -> None:
    rows = connection.execute(
        "DELETE FROM uncertain_state WHERE span_id = ? RETURNING series_id, since_us + ?, epoch_id, seq, value,"
        " quality, reason",
        (span_id, zero_us),
    ).fetchall()
    write_state(connection, [row for row in rows if 0 <= row[1] <= latest_us])


def correct(connection: sqlite3.Connection) -> bool:
    """A few of the batches whose zero hour has been told. Whether there are more."""
    left = STEP_ROWS
    for span_id, epoch_id, seq, zero_us, first, last, true_us in _waiting(connection):
        if left <= 0:
            return True
        _correct(connection, (span_id, epoch_id, seq), (first, last), true_us - zero_us)
        left -= last - first + 1
    return False


def _waiting(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """One at a time: each is gone when the next is asked for."""
    while True:
        row = connection.execute(
            # CROSS JOIN: the few spans first, however many batches wait for zero hours that nobody has told
            "SELECT span_id, epoch_id, seq, uncertain_batches.zero_us, first_rowid, last_rowid, clock_spans.zero_us"
            " FROM clock_spans CROSS JOIN uncertain_batches ON clock_spans.id = span_id"
            " WHERE clock_spans.zero_us IS NOT NULL AND batches > corrected LIMIT 1"
        ).fetchone()
        if row is None:
            return
        yield row


def _correct(connection: sqlite3.Connection, key: tuple[int, int, int], rows: tuple[int, int], shift_us: int) -> None:
    connection.execute("DELETE FROM uncertain_batches WHERE span_id = ? AND epoch_id = ? AND seq = ?", key)
    ends = connection.execute("SELECT min(time), max(time) FROM readings WHERE rowid BETWEEN ? AND ?", rows).fetchone()
    if ends[0] is not None and not fits(ends, shift_us):
        return
    connection.execute("UPDATE readings SET time = time + ? WHERE rowid BETWEEN ? AND ?", (shift_us, *rows))
    connection.execute("UPDATE telemetry_events SET shift_us = ? WHERE epoch_id = ? AND seq = ?", (shift_us, *key[1:]))
    connection.execute("UPDATE clock_spans SET corrected = corrected + 1 WHERE id = ?", key[:1])


def spans(connection: sqlite3.Connection, gateway: GatewayTopic) -> Sequence[ClockSpan]:
    """The newest first."""
    rows = connection.execute(
        "SELECT span, zero_us, told_us, first_us, last_us, batches, corrected FROM clock_spans"
        " WHERE plant_id = ? AND gateway = ? AND batches > 0 ORDER BY id DESC",
        (plant_id(connection, gateway.plant), gateway.thing),
    )
    return [ClockSpan(span.hex(), *rest) for span, *rest in rows]
