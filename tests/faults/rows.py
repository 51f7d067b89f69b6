"""All rows, in the order of the table."""

from __future__ import annotations

from tests.faults import clock_rows, disk_rows, kill_rows, long_rows, network_rows, outbox_rows, store_rows
from tests.faults.stage import Row

ROWS: tuple[Row, ...] = (
    *kill_rows.ROWS,
    *disk_rows.ROWS,
    *outbox_rows.ROWS,
    *network_rows.ROWS,
    *store_rows.ROWS,
    *clock_rows.ROWS,
    *long_rows.ROWS,
)
BY_NAME = {row.name: row for row in ROWS}
