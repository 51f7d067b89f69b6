"""How fast a counter rises, from when it was looked at. Pure."""

from __future__ import annotations

from collections import deque

WINDOW_S = 10.0
APART_S = 0.5


class Rate:
    """Over the last WINDOW_S; None until it was looked at twice."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, now_s: float, count: int) -> float | None:
        """`count` is what the counter says now, `now_s` a steady clock."""
        while self._seen and now_s - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        if not self._seen or now_s - self._seen[-1][0] >= APART_S:
            self._seen.append((now_s, count))
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return None if last_s == first_s else max(0.0, (last - first) / (last_s - first_s))
