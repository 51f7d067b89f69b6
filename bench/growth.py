"""Growth at the agent: what a sample costs must not rise with tags, devices, the size of messages or of the backlog.

Each table goes from ×1 over ×10 to ×100. Where little is read, what the agent does anyway (heartbeats, its clock, one
message and one fsync a second) weighs on each sample; what counts is that nothing rises.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.scenario import Load
from bench.scenario_outage import Drain, backlog
from bench.scenario_steady import Steady, steady
from bench.table import Row

if TYPE_CHECKING:
    from bench.edge import Edge

TOLERANCE = 1.25  # such runs differ by as much on a machine that does nothing else
TAGS = (Load(tags_each=100), Load(), Load(groups=10))
DEVICES = (Load(tags_each=100), Load(devices=10, tags_each=100), Load(devices=100, tags_each=100))
SIZES = (Load(period_s=0.1, batch_s=0.0), Load(period_s=0.1, batch_s=1.0), Load(period_s=0.1, batch_s=10.0))
BACKLOG = Load(devices=4, period_s=0.1, batch_s=0.1)
BACKLOG_S = (0.25, 2.5, 25.0)


@dataclass(frozen=True, slots=True)
class _Table:
    what: str
    loads: tuple[Load, ...]

    def says(self, load: Load) -> str:
        match self.what:
            case "tags":
                return f"{load.groups * load.tags_each:,} tags every 1 s"
            case "devices":
                return f"{load.devices} devices × 100 tags every 1 s"
        return f"{max(1, round(load.batch_s / load.period_s))} scans of 1,000 tags per message"


TABLES = (_Table("tags", TAGS), _Table("devices", DEVICES), _Table("message size", SIZES))


def rows(edge: Edge) -> Iterator[Row]:
    """The quick run leaves out the largest of each."""
    for table in TABLES:
        first: float | None = None
        for factor, load in zip((1, 10, 100), table.loads[: 2 if edge.quick else 3], strict=False):
            row = _cost(edge, f"{table.what} ×{factor}: {table.says(load)}", load, first)
            first = first or row.ours
            yield row
    yield from _backlogs(edge)


def _cost(edge: Edge, what: str, load: Load, first: float | None) -> Row:
    seconds = max(edge.effort.growth_s, 1.5 * load.batch_s)

    def measure(at: Path) -> Steady:
        return steady(at, edge.ours, load, seconds=seconds, windows=1, receiver=True)

    found, why = edge.run(f"growth, {what}", measure)
    return Row(
        section="Growth at the agent: CPU per sample must not rise; all stored once",
        what=what,
        unit="CPU µs/sample",
        ours=1e6 / found.samples_per_cpu_s if found else None,
        aim=None if first is None else ("<=", first * TOLERANCE),
        better="lower",
        note=why,
        detail={"rss_mb": found.rss_mb, "cpu_percent": found.cpu_percent} if found else {},
    )


def _backlogs(edge: Edge) -> Iterator[Row]:
    first: float | None = None
    for factor, build_s in zip((1, 10, 100), BACKLOG_S[: 2 if edge.quick else 3], strict=False):

        def measure(at: Path, build_s: float = build_s) -> Drain:
            return backlog(at, edge.ours, build_s=build_s, load=BACKLOG)

        found, why = edge.run(f"growth, backlog ×{factor}", measure)
        size = f" {found.samples:,} samples" if found else ""
        yield Row(
            section="Growth with the backlog: what a sample costs until it has arrived, and on disk",
            what=f"backlog ×{factor}:{size}",
            unit="µs/sample",
            ours=1e6 / found.arrived_per_s if found else None,
            aim=None if first is None else ("<=", first * TOLERANCE),
            better="lower",
            note=why or f"{found.disk_bytes_per_sample:.2f} bytes per sample on disk" if found else why,
        )
        first = first or (1e6 / found.arrived_per_s if found else None)
