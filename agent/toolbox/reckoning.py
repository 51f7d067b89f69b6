"""What reading a Modbus device costs: requests, bytes and time, before anything is sent. Pure.

Sizes are those of the application protocol: over TCP a header of 7 bytes before each PDU (Messaging on TCP/IP V1.0b,
3.1.3), on a serial line the unit id before and two bytes of checksum behind it (Serial Line V1.02, 2.5.1).

Times on a serial line: a character takes 11 bits (2.5.1), and 3.5 characters of silence stand between frames, at more
than 19,200 bit/s a fixed 1.75 ms (2.5.1.1). How long a device takes to answer no protocol says: it is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.field.contract import Group
from protocols.field.modbus_plan import Block, Limits, Span, plan

MBAP_BYTES = 7
RTU_BYTES = 3
PDU_REQUEST_BYTES = 5
PDU_ANSWER_BYTES = 2
BITS_PER_CHARACTER = 11
SILENT_CHARACTERS = 3.5
SILENCE_S_MIN = 0.00175
GAPS_COMPARED = (0, 4, 16, 40, 125)


@dataclass(frozen=True, slots=True)
class Way:
    """How requests travel. `baud`: bits per second of the serial line, None over a network without one.

    `answer_s`: what a device is assumed to take from a question to its answer. `is_framed_rtu`: no TCP header.
    """

    answer_s: float
    baud: int | None = None
    is_framed_rtu: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a plan, and what it costs. `wasted`: registers or bits in it that no tag wants."""

    block: Block
    wasted: int
    request_bytes: int
    answer_bytes: int
    duration_s: float

    @property
    def size(self) -> int:
        """Bytes both ways."""
        return self.request_bytes + self.answer_bytes


@dataclass(frozen=True, slots=True)
class Cycle:
    """One poll of a group."""

    group: Group
    asks: tuple[Ask, ...]

    @property
    def size(self) -> int:
        """Bytes both ways."""
        return sum(ask.size for ask in self.asks)

    @property
    def duration_s(self) -> float:
        """From the first question to the last answer; one is asked after another."""
        return sum(ask.duration_s for ask in self.asks)

    @property
    def load(self) -> float:
        """The share of the time that the connection is busy with it; more than 1 cannot be kept."""
        return self.duration_s / self.group.period_s


def spans(group: Group, unit_id: int) -> list[Span]:
    """Where the group's tags live. `unit_id`: the device's, for tags without one of their own."""
    points = [tag.address for tag in group.tags]
    return [
        Span(unit_id if point.unit_id is None else point.unit_id, point.table, point.address, point.size)
        for point in points
    ]


def cycle(group: Group, unit_id: int, limits: Limits, way: Way) -> Cycle:
    """The group's plan, as the driver makes it too. Raises ValueError where a tag does not fit into one request."""
    return Cycle(group, tuple(_ask(block, way) for block in plan(spans(group, unit_id), limits)))


def _ask(block: Block, way: Way) -> Ask:
    wanted = {address for span in block.spans for address in range(span.address, span.end)}
    content = (block.count + 7) // 8 if block.table.holds_bits else 2 * block.count
    frame = RTU_BYTES if way.is_framed_rtu else MBAP_BYTES
    request, answer = frame + PDU_REQUEST_BYTES, frame + PDU_ANSWER_BYTES + content
    duration_s = way.answer_s
    if way.baud is not None:
        character_s = BITS_PER_CHARACTER / way.baud
        on_line = 2 * RTU_BYTES + PDU_REQUEST_BYTES + PDU_ANSWER_BYTES + content
        silence_s = SILENCE_S_MIN if way.baud > 19_200 else SILENT_CHARACTERS * character_s
        duration_s += on_line * character_s + 2 * silence_s
    return Ask(block, block.count - len(wanted), request, answer, duration_s)


def by_gap(groups: Sequence[Group], unit_id: int, limits: Limits, way: Way) -> dict[int, tuple[int, int]]:
    """max_gap → requests and bytes of one cycle of every group, for gaps worth comparing and the one that is set."""
    found = {}
    for gap in sorted({*GAPS_COMPARED, limits.gap}):
        cycles = [cycle(group, unit_id, limits._replace(gap=gap), way) for group in groups]
        found[gap] = (sum(len(one.asks) for one in cycles), sum(one.size for one in cycles))
    return found
