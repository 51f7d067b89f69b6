"""The last values of the tags on the screen, as small charts of one line. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from protocols.values import Value

POINTS_MAX = 240
TAGS_MAX = 2000
_BARS = "▁▂▃▄▅▆▇█"
_NOTHING = " "


class Sparks:
    """What was seen of each tag since the view was opened; the tags that were not seen for longest go first."""

    def __init__(self) -> None:
        self._points: dict[tuple[str, str], deque[float | None]] = {}

    def take(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Note the value of each row."""
        for row in rows:
            key = row["device"], row["tag"]
            points = self._points.pop(key, None)
            if points is None:
                points = deque(maxlen=POINTS_MAX)
            self._points[key] = points
            points.append(number(row["value"]))
        while len(self._points) > TAGS_MAX:
            del self._points[next(iter(self._points))]

    def of(self, device: str, tag: str) -> Sequence[float | None]:
        """Oldest first; None where there was no number."""
        return tuple(self._points.get((device, tag), ()))


def number(value: Value) -> float | None:
    """A value's height in a chart; None where it has none."""
    return None if value is None or isinstance(value, str) else float(value)


def bars(points: Sequence[float | None], cells: int) -> str:
    """The last of the points, one in each cell; the lowest and the highest of them fill the height."""
    shown = points[-cells:] if cells > 0 else ()
    known = [point for point in shown if point is not None]
    if not known:
        return _NOTHING * cells
    low, high = min(known), max(known)
    step = (high - low) / (len(_BARS) - 1)
    drawn = "".join(_NOTHING if point is None else _BARS[_height(point, low, step)] for point in shown)
    return drawn.rjust(cells)


def _height(point: float, low: float, step: float) -> int:
    return round((point - low) / step) if step > 0 else 0
