"""What a recording holds, for people: a table of the questions with what they got, and record by record. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median

from agent.capture.conversation import Conversation, Exchange, verdict
from agent.capture.records import Record
from protocols.field.contract import Happening
from protocols.field.modbus_request import place_of

ANSWERED = "answered"

_WORDS = {
    Happening.OPENED: "connected",
    Happening.NOT_OPENED: "not connected",
    Happening.TIMED_OUT: "no answer in time",
    Happening.LOST: "lost",
    Happening.CLOSED: "closed by the gateway",
    Happening.READ: "read",
    Happening.AWAY: "away",
}
_ARROWS = {Happening.SENT: "→", Happening.RECEIVED: "←"}


@dataclass(slots=True)
class Served:
    """All questions of a unit with one function. `ranges`: first and last address; `replies`: word → how often."""

    unit_id: int
    function: int
    table: str
    ranges: list[tuple[int, int]] = field(default_factory=list)
    questions: int = 0
    replies: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return self.replies.total()

    @property
    def median_ms(self) -> float | None:
        return round(median(self.latencies_ms), 1) if self.latencies_ms else None

    @property
    def faults(self) -> Counter[str]:
        """The replies that are no plain answers."""
        return Counter({word: count for word, count in self.replies.items() if word != ANSWERED})


def served(found: Conversation) -> list[Served]:
    """By unit and function."""
    rows: dict[tuple[int, int], Served] = {}
    for (unit_id, pdu), several in sorted(found.exchanges.items()):
        place, function = place_of(pdu), pdu[0]
        row = rows.setdefault((unit_id, function), Served(unit_id, function, str(place[0]) if place else "-"))
        row.questions += 1
        if place is not None:
            row.ranges.append((place[1], place[1] + place[2] - 1))
        for exchange in several:
            row.replies[_word(exchange)] += 1
            if exchange.latency_us is not None:
                row.latencies_ms.append(exchange.latency_us / 1000)
    for row in rows.values():
        row.ranges = merged(row.ranges)
    return list(rows.values())


def _word(exchange: Exchange) -> str:
    word = verdict(exchange)
    if word == ANSWERED and len(exchange.pieces) > 1:
        word = "in pieces"
    if exchange.lost_us is not None and exchange.content and "hung up" not in word:
        word += ", then hung up"
    return f"{word}, then away" if exchange.away_us else word


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same addresses in as few ranges as possible, ascending."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def span_s(records: Sequence[Record]) -> float:
    """How long the recording is."""
    return (records[-1].time_us - records[0].time_us) / 1e6 if records else 0.0


def lines(records: Iterable[Record]) -> Iterator[str]:
    """A line for each record: the time, the way, and the bytes or what happened."""
    for record in records:
        arrow = _ARROWS.get(record.happening)
        if arrow is not None:
            yield f"{clock(record.time_us)} {arrow} {record.content.hex(' ')}"
        else:
            why = f": {record.text}" if record.content else ""
            yield f"{clock(record.time_us)} · {_WORDS[record.happening]}{why}"


def clock(time_us: int) -> str:
    """The local time of day to the millisecond; as a number where it is beyond every calendar."""
    try:
        return datetime.fromtimestamp(time_us / 1e6, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except (OverflowError, ValueError, OSError):
        return f"{time_us} µs"
