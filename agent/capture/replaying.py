"""A recorded device's answers: to the same question what it got, in the recorded order, with the recorded delays. Pure.

After the last recorded answer to a question the first one comes again. A reply is the recorded bytes, but for the
transaction's number: it differs from the request's by as much as it did. A read that was never asked just so gets the
values last served of its registers, where all of them are known; everything else that was never asked gets exception 2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from agent.capture.conversation import Conversation, Exchange, Key, frame_size, good_content
from protocols.field.modbus_request import packed, request_of
from protocols.field.modbus_server import Asked, Piece, Reply, ServedTransport, framed

ILLEGAL_ADDRESS = 2


class Replay:
    """`speed`: how many times faster than it was; 0: without any delay. `served` and `unknown` count requests."""

    def __init__(self, found: Conversation, transport: ServedTransport, speed: float) -> None:
        self.served = 0
        self.composed = 0
        self.unknown = 0
        self._found = found
        self._transport: ServedTransport = transport
        self._speed = speed
        self._next: dict[Key, int] = {}
        self._greeting = 0
        self._known: dict[tuple[int, int], dict[int, bytes]] = {}  # unit and function → address → a register, or a bit
        for several in found.exchanges.values():
            good = next((one for one in several if good_content(one) is not None), None)
            if good is not None:
                self._learn(good)

    def answer(self, asked: Asked) -> Reply:
        """See `Answer`."""
        self.served += 1
        key = (asked.unit_id, asked.pdu)
        several = self._found.exchanges.get(key)
        if several is None:
            return self._composed(asked)
        at = self._next.get(key, 0)
        self._next[key] = (at + 1) % len(several)
        self._learn(several[at])
        return self._reply(several[at], asked.transaction)

    def greet(self) -> Reply:
        """What the next connection gets unasked."""
        greetings = self._found.greetings
        if not greetings:
            return Reply()
        at, self._greeting = self._greeting, (self._greeting + 1) % len(greetings)
        return self._reply(greetings[at], 0)

    def _reply(self, exchange: Exchange, transaction: int) -> Reply:
        contents = [content for _, content in exchange.pieces]
        if exchange.asked is not None and exchange.asked.transaction:
            contents = renumbered(contents, exchange.asked.transaction, transaction)
        pieces = [Piece(self._s(us), content) for (us, _), content in zip(exchange.pieces, contents, strict=True)]
        hangs_up_s = None if exchange.lost_us is None else self._s(exchange.lost_us)
        return Reply(pieces, hangs_up_s, self._s(exchange.away_us))

    def _s(self, us: int) -> float:
        return us / 1e6 / self._speed if self._speed else 0.0

    def _learn(self, exchange: Exchange) -> None:
        content = good_content(exchange)
        if content is None or exchange.asked is None:
            return
        function, address, count = struct.unpack(">BHH", exchange.asked.pdu)
        known = self._known.setdefault((exchange.asked.unit_id, function), {})
        for at in range(count):
            known[address + at] = (
                content[2 * at : 2 * at + 2] if function > 2 else bytes([content[at // 8] >> at % 8 & 1])
            )

    def _composed(self, asked: Asked) -> Reply:
        request = request_of(asked.unit_id, asked.pdu)
        if request is not None and request.function <= 4:
            function, address, count = struct.unpack(">BHH", asked.pdu)
            known = self._known.get((asked.unit_id, function), {})
            found = [known[at] for at in range(address, address + count) if at in known]
            if len(found) == count:
                self.composed += 1
                content = b"".join(found) if function > 2 else packed([bit[0] for bit in found])
                pdu = bytes([function, len(content)]) + content
                return Reply([Piece(0.0, framed(self._transport, asked, pdu))])
        self.unknown += 1
        refused = bytes([asked.pdu[0] | 0x80 if asked.pdu else 0x80, ILLEGAL_ADDRESS])
        return Reply([Piece(0.0, framed(self._transport, asked, refused))])


def renumbered(contents: Sequence[bytes], recorded: int, transaction: int) -> list[bytes]:
    """The same pieces with another transaction in each Modbus TCP header: as far from the request's as it was."""
    whole, at = bytearray(b"".join(contents)), 0
    while at + 2 <= len(whole) and not any(whole[at + 2 : at + 4]):  # what has another protocol is no such header
        number = int.from_bytes(whole[at : at + 2], "big") - recorded + transaction
        whole[at : at + 2] = (number & 0xFFFF).to_bytes(2, "big")
        at += frame_size(bytes(whole[at : at + 6])) or len(whole)
    found, start = [], 0
    for content in contents:
        found.append(bytes(whole[start : start + len(content)]))
        start += len(content)
    return found
