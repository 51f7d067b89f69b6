"""The outbox on disk where both clocks go together: time passes as far as the next call says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.outbox.contract import Draft, Lane
from agent.outbox.disk import DiskOutbox
from protocols.uplink.ranges import Ranges


class TimedOutbox(DiskOutbox):
    """For tests that say what time it is and not how much has passed."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self._passed_s = 0.0
        super().__init__(directory, monotonic_s=lambda: self._passed_s, **options)

    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        self._passed_s = now_us / 1e6
        return super().append(drafts, now_us)

    def confirmed(self, lane: Lane, through: int, above: Ranges, now_us: int) -> None:
        self._passed_s = now_us / 1e6
        super().confirmed(lane, through, above, now_us)

    def tend(self, now_us: int) -> None:
        self._passed_s = now_us / 1e6
        super().tend(now_us)
