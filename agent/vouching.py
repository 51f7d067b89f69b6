"""Whether anybody vouches for the time that is stamped, and with which mark it is stamped where nobody does. Pure.

The difference between the clock and the time since the boot is the boot's *zero hour*. It stays the same while a boot
lasts, however NTP speeds the clock up or slows it down, and moves only when the clock is set. So the zero hour at the
moment of a synchronisation corrects whatever was stamped before it in the same boot.

A *span* is a time in one boot during which nobody vouches: from the boot, or from a step while the clock is not
synchronised, until it is. A clock that was synchronised in this boot and has not been set since is vouched for, even if
the kernel has given it up because NTP has been away for hours. A system that does not say is taken at its word.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from protocols.uplink.mark import SPAN_BYTES, ClockMark
from protocols.uplink.status import TIMESTAMP_MS_MAX, ZEROS_MAX

SET_US = 100_000
"""The clock was set if its zero hour moved by more."""

LATE_US = 60_000_000
"""What was being read when the clock was set is taken at most so much later."""


class Moment(NamedTuple):
    """The same moment by two clocks: microseconds since the boot, sleep included, and since 1970."""

    boot_us: int
    wall_us: int

    @property
    def zero_us(self) -> int:
        """What the wall clock would have said when the boot began."""
        return self.wall_us - self.boot_us


@dataclass(slots=True)
class Record:
    """What must be known after a restart. `boot`: which boot it is of, as the kernel names it.

    `count`: how many of its spans have ended; `is_open`: another goes on. `vouched_us`: the zero hour when the clock
    was last synchronised in this boot. `zeros`: span (hexadecimal) → true zero hour, also of earlier boots, the oldest
    first.
    """

    boot: str = ""
    count: int = 0
    is_open: bool = True
    vouched_us: int | None = None
    zeros: dict[str, int] = field(default_factory=dict)

    @property
    def span(self) -> bytes:
        """The name of the span that goes on, or of the next one."""
        return hashlib.blake2b(f"{self.boot} {self.count}".encode(), digest_size=SPAN_BYTES).digest()


class _Setting(NamedTuple):
    """How the clock was set for a while. `until_us`: since the boot."""

    zero_us: int
    mark: bytes
    until_us: int = 0


class Vouching:
    """`record`: as it was written down last; of another boot only its zero hours count. `boot`: the present one."""

    def __init__(self, boot: str, record: Record) -> None:
        self.record = record if record.boot == boot else Record(boot, zeros=record.zeros)
        self._now: _Setting | None = None
        self._before: _Setting | None = None

    def look(self, at: Moment, synchronised: bool | None) -> bool:
        """How the clock is at this moment. Whether the record has changed, which is to be written down at once."""
        changed = self._note(at.zero_us, synchronised)
        now = self._now
        mark = self._mark(at.zero_us) if synchronised is False and self.record.is_open else b""
        if now is None:
            self._now = _Setting(at.zero_us, mark)
        elif abs(at.zero_us - now.zero_us) > SET_US or bool(mark) != bool(now.mark):
            self._before, self._now = now._replace(until_us=at.boot_us), _Setting(at.zero_us, mark)
        return changed

    def _note(self, zero_us: int, synchronised: bool | None) -> bool:
        record = self.record
        if synchronised:
            changed = record.is_open or record.vouched_us is None or abs(zero_us - record.vouched_us) > SET_US
            if record.is_open:
                self._end_span(zero_us)
            if changed:
                record.vouched_us = zero_us
            return changed
        was_set = record.vouched_us is not None and abs(zero_us - record.vouched_us) > SET_US
        if synchronised is False and was_set and not record.is_open:
            record.is_open = True
            return True
        return False

    def _end_span(self, zero_us: int) -> None:
        record = self.record
        if 0 <= zero_us <= TIMESTAMP_MS_MAX * 1000:
            record.zeros[record.span.hex()] = zero_us
        for oldest in list(record.zeros)[:-ZEROS_MAX]:
            del record.zeros[oldest]
        record.count += 1
        record.is_open = False

    def _mark(self, zero_us: int) -> bytes:
        return ClockMark(self.record.span, zero_us).encode()

    @property
    def span(self) -> str:
        """The span that goes on, hexadecimal; empty while the clock is vouched for."""
        return self.record.span.hex() if self._now is not None and self._now.mark else ""

    def mark(self, time_us: int, at: Moment) -> bytes:
        """The mark for what was stamped with this time and comes at this moment; empty: vouched for.

        What was stamped just before the clock was set may come after it: it goes by the setting that explains its time
        better.
        """
        now, before = self._now, self._before
        if now is None:
            return b""
        if before is not None and at.boot_us - before.until_us <= LATE_US:
            away_us = abs(now.zero_us + at.boot_us - time_us)
            if abs(before.zero_us + at.boot_us - time_us) < away_us:
                return before.mark
        return now.mark
