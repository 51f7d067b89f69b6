"""What the tags of one group reported and the agent has not taken yet. Pure: no sockets, no clock.

An inbox outlives the connections that fill it, so that a cut line loses nothing that had arrived, and a new
connection's first notifications do not double what was reported before the cut.

- It holds at most `limit` readings. When it is full the oldest goes, and its tag gets a reading BadDataLost in
  its place: what was lost is said, with how many and when.
- Readings come out in the order in which they came in, tag by tag; those of one moment share a scan.
- A tag's state is its newest reading by time, and the source's clock is not ours. While a device is away others
  declare its tags bad by ours, and so does this driver where a node fails or is waited for. What the server says
  afterwards with an older time would never show. So it is stated once more, as of the moment of that declaration:
  the value is what it was, and that is known again. A start counts as a reconnect: the agent before this one may have
  declared its tags bad. For a value that does not change this happens once after a
  reconnect; for one that does, at most once per `take`, until the source's clock has passed that moment. At most one
  such statement per tag waits, beside the readings and not counted by `limit`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from protocols.field.contract import Group, Quality, Scan, Value
from protocols.field.opcua_values import Reading

BAD_DATA_LOST = 0x809D0000  # OPC 10000-8: data is missing because collecting it failed in between
LIMIT = 100_000
_DROPPED = "readings were dropped, because too many waited unread; watch fewer tags, or less often"

_Seen = tuple[int | None, int, Value]  # source time, quality, value


class Inbox:
    """A bounded queue of readings with a memory of each tag's last one."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._queue: deque[Reading] = deque()
        self._dropped: dict[int, tuple[int, int]] = {}  # position → number, time of the last
        self._last: dict[int, Reading] = {}
        self._restated: dict[int, Reading] = {}  # position → the last one, as of when the tag was declared bad
        self._reconnected_us = 0
        self._bad_us: dict[int, int] = {}  # position → when it was declared bad by another clock than the source's

    def reconnected(self, now_us: int) -> None:
        """The device was away, and until now others may have declared its tags bad."""
        self._reconnected_us = now_us
        self._bad_us.clear()

    def source_us(self, position: int) -> int | None:
        """The source time of the tag's last reading, where there was one."""
        last = self._last.get(position)
        return None if last is None else last.source_us

    def __len__(self) -> int:
        """How many readings wait."""
        return len(self._queue) + len(self._dropped) + len(self._restated)

    def report(self, reading: Reading) -> None:
        """A change that the server reported, or a fault of ours: always taken."""
        if reading.source_us is None and Quality.word(reading.quality) == "bad":
            self._bad_us[reading.position] = max(reading.time_us, self._declared_bad_us(reading.position))
        self._last[reading.position] = reading
        if len(self._queue) >= self._limit:
            oldest = self._queue.popleft()
            number, _ = self._dropped.get(oldest.position, (0, 0))
            self._dropped[oldest.position] = (number + 1, oldest.time_us)
        self._queue.append(reading)
        self._restated.pop(reading.position, None)  # this is newer
        self._restate(reading)

    def report_first(self, reading: Reading) -> None:
        """A monitored item's first notification: what the value is, not that it changed. Taken when it is new."""
        if reading.source_us is None or self._is_new(reading):
            self.report(reading)
        else:
            self._restate(self._last[reading.position])

    def report_poll(self, reading: Reading) -> None:
        """The answer to a question. Taken when it is new. Good values without a source time are always new:
        nothing tells whether they were measured again."""
        if self._is_new(reading) or (reading.source_us is None and Quality.word(reading.quality) != "bad"):
            self.report(reading)
        else:
            self._restate(self._last[reading.position])

    def _restate(self, reading: Reading) -> None:
        """State the tag's last reading once more, if the tag was declared bad later than that."""
        bad_us = self._declared_bad_us(reading.position)
        if reading.time_us < bad_us:
            stated = reading._replace(time_us=bad_us)
            self._last[reading.position] = self._restated[reading.position] = stated

    def _declared_bad_us(self, position: int) -> int:
        return self._bad_us.get(position, self._reconnected_us)

    def report_lost(self, positions: Iterable[int], now_us: int, reason: str) -> None:
        """Notifications of these tags never arrived.

        The reading carries the time of the tag's last one, the moment from which on nothing is known, so that every
        later value supersedes it; and the value's next first notification is taken, even if it is that last one.
        """
        for position in positions:
            last = self._last.get(position)
            self.report(Reading(position, last.time_us if last else now_us, None, BAD_DATA_LOST, reason))

    def take(self, group: Group) -> list[Scan]:
        """Everything that waits, as scans; afterwards the inbox is empty."""
        lost = [
            Reading(position, time_us, None, BAD_DATA_LOST, f"{number} {_DROPPED}")
            for position, (number, time_us) in self._dropped.items()
        ]
        readings = [*lost, *self._queue, *self._restated.values()]
        self._dropped.clear()
        self._queue.clear()
        self._restated.clear()
        return scans(group, readings)

    def _is_new(self, reading: Reading) -> bool:
        last = self._last.get(reading.position)
        return last is None or _seen(last) != _seen(reading)


def _seen(reading: Reading) -> _Seen:
    return reading.source_us, reading.quality, reading.value


def scans(group: Group, readings: Iterable[Reading]) -> list[Scan]:
    """The readings as scans of one moment each. A tag's readings keep their order: a reading joins the scan of its
    moment only if that scan does not hold the tag yet and no later scan does."""
    drafts: list[tuple[int, list[Reading]]] = []
    of_moment: dict[int, int] = {}
    of_tag: dict[int, int] = {}
    for reading in readings:
        place = of_moment.get(reading.time_us, -1)
        if place <= of_tag.get(reading.position, -1):
            place = of_moment[reading.time_us] = len(drafts)
            drafts.append((reading.time_us, []))
        drafts[place][1].append(reading)
        of_tag[reading.position] = place
    return [_scan(group, time_us, sorted(held)) for time_us, held in drafts]


def _scan(group: Group, time_us: int, held: list[Reading]) -> Scan:
    """One scan of the readings, which are in the order of their positions."""
    return Scan(
        group,
        time_us,
        [reading.value for reading in held],
        [reading.position for reading in held],
        [reading.quality for reading in held] if any(reading.quality for reading in held) else None,
        {reading.position: reading.reason for reading in held if reading.reason},
    )
