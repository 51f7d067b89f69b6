"""Which batches are on their way. Pure: no socket, no disk, no clock; takes events and the time, returns numbers.

For each machine the outbox holds one unbroken range of numbers. `through` is the highest that the receiver confirmed,
`next` the next one to publish for the first time in this session; what lies between is published and not yet confirmed:
the window. It is bounded over all machines in count and bytes, so that the broker never has to hold more than that.

A number is published again only when
- the connection broke before the broker acknowledged it,
- the session was lost (the broker has forgotten us, and with us perhaps everything) and no confirm covers it, or
- the receiver says that it is missing, and RESEND_S have passed since it was last published, because the first copy may
  still be on its way.
Publishing twice does no harm (the receiver stores once); publishing never would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

WINDOW_COUNT = 500
WINDOW_BYTES = 16 << 20
RESEND_S = 10.0
RUN_MAX = 16


@dataclass(frozen=True, slots=True)
class Run:
    """Publish `count` numbers of a machine from `first` on."""

    machine: str
    first: int
    count: int


@dataclass(slots=True)
class _Lane:
    """One machine. `sizes`: bytes of each number published and unconfirmed; `sent_s`: when it was last published."""

    through: int
    next: int
    last: int
    in_flight: set[int] = field(default_factory=set)
    again: list[int] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    sent_s: dict[int, float] = field(default_factory=dict)

    def sent_seq(self) -> int:
        """Everything up to here was taken by the broker at least once."""
        return min(min(self.in_flight, default=self.next), min(self.again, default=self.next), self.next) - 1


class Window:
    """Events in, runs out."""

    def __init__(self, count_max: int = WINDOW_COUNT, bytes_max: int = WINDOW_BYTES) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._lanes: dict[str, _Lane] = {}
        self._turn = 0

    # --- what is there ---

    def appended(self, machine: str, first: int, last: int) -> None:
        """The outbox holds `first` to `last` of this machine now."""
        lane = self._lanes.get(machine)
        if lane is None:
            lane = self._lanes[machine] = _Lane(first - 1, first, last)
        lane.last = max(lane.last, last)
        if first - 1 > lane.through:  # the outbox let go of its oldest
            self._settle(lane, first - 1)

    def sent_seq(self, machine: str) -> int:
        """Everything up to here was taken by the broker at least once; 0 for an unknown machine."""
        lane = self._lanes.get(machine)
        return 0 if lane is None else lane.sent_seq()

    def idle(self) -> bool:
        """Everything held is confirmed."""
        return all(lane.through >= lane.last for lane in self._lanes.values())

    # --- what to do ---

    def take(self, room: int) -> Run | None:
        """The next run to publish, at most `room` long; None while there is nothing, or the window is full.

        Machines take turns; what the receiver misses goes before what it has not seen.
        """
        if room <= 0:
            return None
        for lane_again in self._rotated():
            run = self._again(*lane_again, room)
            if run is not None:
                return run
        free = self._count_max - sum(len(lane.sizes) for lane in self._lanes.values())
        if free <= 0 or self._bytes >= self._bytes_max:
            return None
        share = max(
            RUN_MAX, self._count_max // max(1, len(self._lanes))
        )  # a machine that is stuck must not hold up the others
        for machine, lane in self._rotated():
            count = min(lane.last - lane.next + 1, room, free, RUN_MAX, share - len(lane.sizes))
            if count > 0:
                self._turn += 1
                return Run(machine, lane.next, count)
        return None

    def _rotated(self) -> Sequence[tuple[str, _Lane]]:
        lanes = list(self._lanes.items())
        turn = self._turn % max(1, len(lanes))
        return lanes[turn:] + lanes[:turn]

    @staticmethod
    def _again(machine: str, lane: _Lane, room: int) -> Run | None:
        if not lane.again:
            return None
        first = lane.again[0]
        count = 1
        while count < min(room, len(lane.again), RUN_MAX) and lane.again[count] == first + count:
            count += 1
        return Run(machine, first, count)

    # --- what happened ---

    def published(self, machine: str, seq: int, size: int, now_s: float) -> None:
        """Handed to the link."""
        lane = self._lanes[machine]
        if seq <= lane.through:  # confirmed, or let go of, while it was read from disk
            return
        lane.in_flight.add(seq)
        lane.sent_s[seq] = now_s
        self._bytes += size - lane.sizes.get(seq, 0)
        lane.sizes[seq] = size
        if seq in lane.again:
            lane.again.remove(seq)
        lane.next = max(lane.next, seq + 1)

    def accepted(self, machine: str, seq: int) -> None:
        """The broker has it."""
        self._lanes[machine].in_flight.discard(seq)

    def refused(self, machine: str, seq: int) -> None:
        """The broker, or nobody at all, has it: it is to be published again."""
        self._put_back(self._lanes[machine], [seq])

    def connected(self, session_present: bool) -> None:
        """A new connection: what was in flight goes again; with the session lost, all that is unconfirmed."""
        for lane in self._lanes.values():
            if session_present:
                self._put_back(lane, sorted(lane.in_flight))
            else:
                self._bytes -= sum(lane.sizes.values())
                lane.in_flight.clear()
                lane.again.clear()
                lane.sizes.clear()
                lane.sent_s.clear()
                lane.next = lane.through + 1

    def _put_back(self, lane: _Lane, seqs: Sequence[int]) -> None:
        for seq in seqs:
            lane.in_flight.discard(seq)
            self._bytes -= lane.sizes.pop(seq, 0)
            lane.sent_s.pop(seq, None)
        lane.again = sorted({*lane.again, *(seq for seq in seqs if seq > lane.through)})

    def confirmed(self, machine: str, through: int, missing: Sequence[tuple[int, int]], now_s: float) -> int:
        """The receiver's word. Returns up to where it covers what the outbox holds, so that this may be let go.

        What the outbox has dropped is not among it before the receiver has been told and says so.
        """
        lane = self._lanes.get(machine)
        if lane is None:
            return 0
        self._settle(lane, min(through, lane.last))
        wanted = [
            seq
            for seq in _numbers(missing, lane.through + 1, lane.next - 1)
            if seq not in lane.in_flight and now_s - lane.sent_s.get(seq, -RESEND_S) >= RESEND_S
        ]
        if wanted:
            self._put_back(lane, wanted)
        return min(through, lane.last)

    def _settle(self, lane: _Lane, through: int) -> None:
        if through <= lane.through:
            return
        lane.through = through
        lane.next = max(lane.next, through + 1)
        for seq in [seq for seq in lane.sizes if seq <= through]:
            self._bytes -= lane.sizes.pop(seq)
        lane.sent_s = {seq: at_s for seq, at_s in lane.sent_s.items() if seq > through}
        lane.in_flight = {seq for seq in lane.in_flight if seq > through}
        lane.again = [seq for seq in lane.again if seq > through]


def _numbers(ranges: Sequence[tuple[int, int]], low: int, high: int) -> Iterator[int]:
    for first, last in ranges:
        yield from range(max(first, low), min(last, high) + 1)
