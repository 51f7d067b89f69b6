"""Rows of figures: each beside its peers, the machine's own limit and the aim, as a table and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

Comparison = Literal[">=", "<="]


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured.

    `ours`: None where it could not be measured; `note` then says why. `peers`: name → figure in the same unit, None
    where that peer could not be measured (`note` says why). `limit`: (name, figure) of the least that this machine can
    do it with, where there is one. `aim`: (">=" or "<=", figure). `better`: which way is good. `detail`: the single
    figures behind the medians or whatever else a reader of the JSON may want; not printed.
    """

    section: str
    what: str
    unit: str
    ours: float | None
    peers: Mapping[str, float | None] = field(default_factory=dict)
    limit: tuple[str, float] | None = None
    aim: tuple[Comparison, float] | None = None
    note: str = ""
    better: Literal["higher", "lower"] = "higher"
    detail: Mapping[str, object] = field(default_factory=dict)

    def met(self) -> bool | None:
        """Whether the aim is met; None without an aim or a figure."""
        if self.aim is None or self.ours is None:
            return None
        comparison, value = self.aim
        return self.ours >= value if comparison == ">=" else self.ours <= value

    def times_better(self, other: float | None) -> float | None:
        """How many times better ours is than `other`: above 1 is better, whichever way is good."""
        if self.ours is None or other is None:
            return None
        above, below = (self.ours, other) if self.better == "higher" else (other, self.ours)
        if below == 0:
            return 1.0 if above == 0 else math.inf
        return above / below

    def of_limit(self) -> float | None:
        """Which part of the limit ours reaches: 1.0 is as good as the machine can."""
        return None if self.limit is None else self.times_better(self.limit[1])

    def as_json(self) -> dict[str, object]:
        return {
            "section": self.section,
            "what": self.what,
            "unit": self.unit,
            "better": self.better,
            "ours": self.ours,
            "peers": dict(self.peers),
            "times_better_than_peers": {name: _finite(self.times_better(value)) for name, value in self.peers.items()},
            "limit": None if self.limit is None else {"name": self.limit[0], "value": self.limit[1]},
            "of_limit": _finite(self.of_limit()),
            "aim": None if self.aim is None else {"comparison": self.aim[0], "value": self.aim[1]},
            "met": self.met(),
            "note": self.note,
            "detail": dict(self.detail),
        }


HEAD = ("what", "unit", "Holdfast", "peers (× better than)", "limit (part reached)", "aim", "met")


def render(rows: Iterable[Row]) -> str:
    """One table per section, with the notes of its rows below it."""
    return "\n\n".join(_section(name, list(found)) for name, found in groupby(rows, key=lambda row: row.section))


def figure(value: float | None) -> str:
    """Three significant digits, or whole from 100 on; a dash for none."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞"
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _section(name: str, rows: Sequence[Row]) -> str:
    cells = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    notes = [f"  {row.what}: {row.note}" for row in rows if row.note]
    return "\n".join([name, *(f"  {line}" for line in lines), *notes])


def _cells(row: Row) -> tuple[str, ...]:
    peers = "; ".join(f"{name} {figure(value)}{_times(row.times_better(value))}" for name, value in row.peers.items())
    limit = "" if row.limit is None else f"{row.limit[0]} {figure(row.limit[1])}{_percent(row.of_limit())}"
    aim = "" if row.aim is None else f"{'≥' if row.aim[0] == '>=' else '≤'} {figure(row.aim[1])}"
    met = {True: "yes", False: "NO", None: ""}[row.met()]
    return row.what, row.unit, figure(row.ours), peers, limit, aim, met


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f" (×{figure(ratio)})"


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else f" ({100 * ratio:.0f} %)"


def _finite(ratio: float | None) -> float | None:
    """JSON knows no infinity."""
    return None if ratio is None or math.isinf(ratio) else ratio
