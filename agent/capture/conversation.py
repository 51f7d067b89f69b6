"""From what was recorded of a Modbus line to questions with their replies. Pure.

Everything that came after a request and before the next one is its reply, with the time that each piece took, be it
right, nonsense, nothing, or the end of the connection. What came before the first request of a connection is its
greeting. Where several requests were under way at once, replies go to theirs by the transaction.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.capture.records import Record
from protocols.field.contract import Happening
from protocols.field.modbus_frame import FrameError, Mbap, Rtu
from protocols.field.modbus_request import request_of
from protocols.field.modbus_server import Asked, mbap_frames, rtu_frames

IN_FLIGHT_MAX = 16
HEADER_BYTES = 6  # of Modbus TCP, up to and with the length

Key = tuple[int, bytes]
"""Unit id and PDU: what is the same question."""


@dataclass(slots=True)
class Exchange:
    """A request with its reply, or a connection with its greeting (`asked` is None then). Times in microseconds.

    `pieces`: what came, and how long after the request. `lost_us`: how long after it the other end closed the line,
    None where it did not; `away_us`: for how long it refused every connection then.
    """

    asked: Asked | None
    time_us: int
    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    lost_us: int | None = None
    away_us: int = 0
    timed_out: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether it is known what came of it: not so where the asking ended before an answer could come."""
        return bool(self.pieces) or self.lost_us is not None or self.timed_out

    @property
    def content(self) -> bytes:
        return b"".join(content for _, content in self.pieces)

    @property
    def latency_us(self) -> int | None:
        """Until the first piece; None where none came."""
        return self.pieces[0][0] if self.pieces else None


@dataclass(slots=True)
class Conversation:
    """`exchanges`: each question → what it got, in the order of the recording. `is_rtu`: whether frames have no header.

    `unread`: bytes that were sent and are no request of Modbus.
    """

    is_rtu: bool
    exchanges: dict[Key, list[Exchange]] = field(default_factory=dict)
    greetings: list[Exchange] = field(default_factory=list)
    unread: int = 0

    @property
    def count(self) -> int:
        return sum(len(several) for several in self.exchanges.values())


def conversation(records: Iterable[Record], transport: str) -> Conversation:
    """What these records, in order, tell. Those before the first request or connection tell nothing."""
    reader = _Reader(Conversation(transport in ("rtu", "rtu_over_tcp")))
    for record in records:
        reader.take(record)
    found = reader.found
    settled = {key: [one for one in several if one.is_settled] for key, several in found.exchanges.items()}
    found.exchanges = {key: several for key, several in settled.items() if several}
    return found


class _Reader:
    def __init__(self, found: Conversation) -> None:
        self.found = found
        self._frames = rtu_frames if found.is_rtu else mbap_frames
        self._last: Exchange | None = None  # who gets what comes
        self._waiting: dict[int, Exchange] = {}  # those sent together, by transaction
        self._ended: tuple[Exchange, int] | None = None  # the last before the line ended, and when it did
        self._is_away = False
        self._rest = 0  # bytes of the last frame that are yet to come
        self._held = b""  # the beginning of a header: too short to say whose it is

    def take(self, record: Record) -> None:
        if self._held and record.happening is not Happening.RECEIVED and self._last is not None:
            self._last.pieces.append((max(0, record.time_us - self._last.time_us), self._held))
            self._held = b""
        match record.happening:
            case Happening.OPENED:
                self._opened(record)
            case Happening.SENT:
                self._sent(record)
            case Happening.RECEIVED:
                self._received(record, self._held + record.content)
            case Happening.LOST | Happening.CLOSED:
                if self._last is not None:
                    self._ended = self._last, record.time_us
                    if record.happening is Happening.LOST:
                        self._last.lost_us = max(0, record.time_us - self._last.time_us)
            case Happening.NOT_OPENED:
                self._is_away = True
            case Happening.READ | Happening.AWAY:
                pass  # of a driver whose line is not recorded
            case Happening.TIMED_OUT:
                for exchange in self._waiting.values():
                    exchange.timed_out = True

    def _opened(self, record: Record) -> None:
        if self._ended is not None and self._is_away:
            exchange, ended_us = self._ended
            exchange.lost_us = max(0, ended_us - exchange.time_us) if exchange.lost_us is None else exchange.lost_us
            exchange.away_us = max(0, record.time_us - ended_us)
        self._ended, self._is_away = None, False
        self._last = Exchange(None, record.time_us)
        self.found.greetings.append(self._last)
        self._waiting.clear()

    def _sent(self, record: Record) -> None:
        try:
            asked, rest = self._frames(record.content)
        except ValueError:
            asked, rest = [], record.content
        self.found.unread += len(rest)
        self._rest = 0
        for one in asked:
            self._last = Exchange(one, record.time_us)
            self.found.exchanges.setdefault((one.unit_id, one.pdu), []).append(self._last)
            self._waiting.pop(one.transaction, None)
            self._waiting[one.transaction] = self._last
        while len(self._waiting) > IN_FLIGHT_MAX:
            del self._waiting[next(iter(self._waiting))]

    def _received(self, record: Record, content: bytes) -> None:
        self._held = b""
        for exchange, part in self._divided(content):
            exchange.pieces.append((max(0, record.time_us - exchange.time_us), part))

    @property
    def _is_one_of_several(self) -> bool:
        """Whether more than one question waits for its answer."""
        return sum(not one.pieces for one in self._waiting.values()) > 1

    def _divided(self, content: bytes) -> Iterable[tuple[Exchange, bytes]]:
        """Who gets which part. A frame that answers one that still waits goes there, all else to the last."""
        while content:
            if self._rest == 0 and not self.found.is_rtu:
                if len(content) < HEADER_BYTES and self._is_one_of_several:
                    self._held = content
                    return
                size = frame_size(content)
                target = self._waiting.get(int.from_bytes(content[:2], "big")) if size else None
                self._last = target or self._last
                self._rest = size or len(content)
            part = content[: self._rest or len(content)]
            self._rest = max(0, self._rest - len(part))
            content = content[len(part) :]
            if self._last is not None:
                yield self._last, part


def frame_size(received: bytes) -> int:
    """How long the Modbus TCP frame that begins here says it is; 0 where none does."""
    if len(received) < HEADER_BYTES:
        return 0
    _, protocol, length = struct.unpack_from(">HHH", received)
    return HEADER_BYTES + length if protocol == 0 else 0


def verdict(exchange: Exchange) -> str:
    """What the reply was, in words: `answered`, or what is wrong with it."""
    asked, content = exchange.asked, exchange.content
    if asked is None:
        return "greeting" if content else ""
    if not content:
        return "hung up" if exchange.lost_us is not None else "silent"
    request = request_of(asked.unit_id, asked.pdu)
    if request is None:
        return "answered"
    framing: type[Mbap] | type[Rtu] = Mbap if asked.transaction else Rtu
    try:
        found = framing(request).match(asked.transaction, content)
    except FrameError as error:
        return str(error)
    if found is None:
        return "cut short, then hung up" if exchange.lost_us is not None else "cut short"
    if isinstance(found.answer, int):
        return f"exception {found.answer}"
    return "answered" if found.size == len(content) else "answered, and more behind it"


def good_content(exchange: Exchange) -> bytes | None:
    """The registers or bits of a right answer to a read; None where it was none."""
    asked = exchange.asked
    request = None if asked is None else request_of(asked.unit_id, asked.pdu)
    if asked is None or request is None or request.function > 4:
        return None
    framing: type[Mbap] | type[Rtu] = Mbap if asked.transaction else Rtu
    try:
        found = framing(request).match(asked.transaction, exchange.content)
    except FrameError:
        return None
    return found.answer if found is not None and isinstance(found.answer, bytes) else None
