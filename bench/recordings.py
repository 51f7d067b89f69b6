"""Recordings of real plants as batches: the excerpt that the demo carries, or any CSV given.

A CSV has a first column of ISO times and numeric columns after it; each column is one float64 tag.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from protocols.uplink.batch import Batch, Block, Column
from protocols.values import ValueType

EXCERPT = Path(__file__).parent.parent / "demo" / "data" / "solar-plant-excerpt.csv.gz"


@dataclass(frozen=True, slots=True)
class Recording:
    """`times_us`: one per row. `columns`: one list of values per tag."""

    name: str
    tags: list[str]
    times_us: list[int]
    columns: list[list[float]]

    def batches(self, scans: int, rows_max: int) -> Iterator[Batch]:
        """As the agent would send them, `scans` rows each."""
        for seq, start in enumerate(range(0, min(len(self.times_us), rows_max), scans), 1):
            cut = slice(start, start + scans)
            columns = [
                Column(tag, ValueType.FLOAT64, values[cut]) for tag, values in zip(self.tags, self.columns, strict=True)
            ]
            yield Batch("gateway-1", "0f1e2d3c4b5a6978", seq, [Block("solar-plc", self.times_us[cut], columns)])


def load(path: Path = EXCERPT) -> Recording:
    """Plain or gzipped CSV."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    head, *rows = csv.reader(text.splitlines())
    times_us = [int(datetime.fromisoformat(row[0]).replace(tzinfo=UTC).timestamp() * 1e6) for row in rows]
    columns = [[float(value) for value in column] for column in zip(*(row[1:] for row in rows), strict=True)]
    return Recording(path.name, head[1:], times_us, columns)
