"""Times by clocks that nobody vouched for, in the store in plain Python: cloud/store/contract.py, rule 9."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from cloud.clock import fits, times
from cloud.store.contract import ClockSpan, LatestValue, Telemetry
from cloud.store.memory_rows import Ranked
from cloud.store.packing import Kept
from protocols.uplink.status import Status
from protocols.uplink.topics import GatewayTopic, MachineTopic, Plant
from protocols.values import ValueType

Reading = tuple[MachineTopic, str, ValueType, int, Kept, int]
"""Machine, tag, type, time in µs, value as packing.py keeps it, quality."""


@dataclass(slots=True)
class _Held:
    """A batch that waits for its correction: where its readings stand, and what the clock said of the boot's start."""

    first: int
    end: int
    zero_us: int


@dataclass(slots=True)
class _Span:
    """A time during which nobody vouched for a gateway's clock.

    `latest`: by machine and tag, in the order of the boot's own time, with when the last was received live, or -1.
    """

    zero_us: int | None = None
    told_us: int | None = None
    first_us: int = 0
    last_us: int = 0
    batches: int = 0
    corrected: int = 0
    held: list[_Held] = field(default_factory=list)
    latest: dict[tuple[MachineTopic, str], tuple[Ranked, int]] = field(default_factory=dict)


class Spans:
    """Of all gateways. `readings`: those of the store, corrected in place."""

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings
        self._spans: dict[tuple[Plant, str, str], _Span] = {}

    def shift_us(self, item: Telemetry) -> int | None:
        """The correction of its times, 0 where there is nothing to correct; None where it is not known."""
        if item.clock is None:
            return 0
        zero_us = self._span(item).zero_us
        if zero_us is None or not fits(times(item.batch), zero_us - item.clock.zero_us):
            return None
        return zero_us - item.clock.zero_us

    def _span(self, item: Telemetry) -> _Span:
        span = b"" if item.clock is None else item.clock.span
        return self._spans.get((item.topic.plant, item.batch.gateway, span.hex()), _Span())

    def note(self, item: Telemetry, first: int, newest: Iterable[Ranked], *, is_corrected: bool) -> None:
        """A batch with a mark was stored. `first`: where its readings begin; `newest`: candidates for latest values."""
        if item.clock is None:
            return
        key = item.topic.plant, item.batch.gateway, item.clock.span.hex()
        span = self._spans.setdefault(key, _Span())
        span.first_us = span.first_us if span.batches else item.received_us
        span.last_us = item.received_us
        span.batches += 1
        span.corrected += is_corrected
        if is_corrected:
            return
        span.held.append(_Held(first, len(self._readings), item.clock.zero_us))
        for (time_us, *rest), value in newest:
            place, order = (item.topic, value.tag), (time_us - item.clock.zero_us, *rest)
            before, live_us = span.latest.get(place, (None, -1))
            if before is None or order >= before[0]:
                live_us = live_us if item.historical else item.received_us
                span.latest[place] = (((order[0], order[1], order[2]), replace(value, time_certain=False)), live_us)

    def tell(self, gateway: GatewayTopic, status: Status, received_us: int) -> list[tuple[MachineTopic, Ranked]]:
        """What a status says of zero hours. Returns candidates for the latest values."""
        found = []
        for name, zero_us in ({} if status.clock is None else status.clock.zeros).items():
            span = self._spans.setdefault((gateway.plant, gateway.thing, name), _Span())
            if span.zero_us is not None:
                continue
            span.zero_us, span.told_us = zero_us, received_us
            for held in span.held:
                span.corrected += self._correct(held, zero_us - held.zero_us)
            for (machine, _), (((since_us, *rest), value), _) in span.latest.items():
                time_us = zero_us + since_us
                ranked = (time_us, rest[0], rest[1]), replace(value, time_us=time_us, time_certain=True)
                found.append((machine, ranked))
            span.held, span.latest = [], {}
        return found

    def _correct(self, held: _Held, shift_us: int) -> bool:
        rows = self._readings[held.first : held.end]
        if not fits([row[3] for row in rows], shift_us):
            return False
        self._readings[held.first : held.end] = [(*row[:3], row[3] + shift_us, *row[4:]) for row in rows]
        return True

    def latest(self, machine: MachineTopic) -> list[Ranked]:
        """Uncertain values, by when they were received live."""
        return [
            ((live_us, *ranked[0][1:]), ranked[1])
            for span in self._spans.values()
            for (topic, _), (ranked, live_us) in span.latest.items()
            if topic == machine
        ]

    def of(self, gateway: GatewayTopic) -> Sequence[ClockSpan]:
        """The newest first."""
        return [
            ClockSpan(name, one.zero_us, one.told_us, one.first_us, one.last_us, one.batches, one.corrected)
            for (plant, thing, name), one in reversed(self._spans.items())
            if (plant, thing) == (gateway.plant, gateway.thing) and one.batches
        ]


def newest_of(certain: Iterable[Ranked], uncertain: Iterable[Ranked]) -> list[LatestValue]:
    """One per tag."""
    best: dict[str, Ranked] = {}
    for ranked in (*certain, *uncertain):
        before = best.get(ranked[1].tag)
        if before is None or ranked[0] >= before[0]:
            best[ranked[1].tag] = ranked
    return [value for _, value in best.values()]
