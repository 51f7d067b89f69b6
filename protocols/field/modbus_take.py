"""One read of a group as it fills; and the same looked at closely, for people who want to see what was sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from protocols.field.contract import Evidence, Group, Quality, Scan, Value
from protocols.field.modbus_address import place
from protocols.field.modbus_codec import Encoding
from protocols.field.modbus_line import GATEWAY_AWAY, Link
from protocols.field.modbus_plan import Block
from protocols.field.modbus_request import Request
from protocols.field.modbus_settings import Point, Settings

Ask = Callable[[Sequence[Request]], Awaitable[list[bytes | int]]]
"""Requests of one unit → their answers, as `Line.ask` gives them."""


def now_us() -> int:
    """Modbus carries no time: ours, to the millisecond."""
    return time.time_ns() // 1_000_000 * 1000


class Take:
    """One read of one group, as it fills."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.values: list[Value] = [None] * len(group.tags)
        self.bad: dict[int, tuple[int, str]] = {}  # index → quality and reason
        self.time_us = now_us()

    async def ask(self, ask: Ask, requests: Sequence[Request]) -> list[bytes | int]:
        """The answers to the requests of one wave."""
        return await ask(requests)

    def keep(self, block: Block, answer: bytes) -> None:
        """The device's answer for a block, before it is decoded."""

    def fail(self, members: Iterable[int], quality: int, reason: str) -> None:
        """Those of these tags that have not been read get this."""
        for index in members:
            if self.values[index] is None:
                self.bad.setdefault(index, (quality, reason))

    def scan(self) -> Scan:
        bad = self.bad
        if not bad:
            return Scan(self.group, self.time_us, self.values)
        quality = [bad[index][0] if index in bad else Quality.GOOD for index in range(len(self.values))]
        reasons = {index: bad[index][1] for index in sorted(bad)}
        return Scan(self.group, self.time_us, self.values, None, quality, reasons)


class CloseTake(Take):
    """Asks one request after another, so that each has a latency of its own, and keeps each tag's part of the answer.

    `raw`: index → registers as they came, or for a coil one byte, 0 or 1.
    """

    def __init__(self, group: Group, link: Link) -> None:
        super().__init__(group)
        self.raw: dict[int, bytes] = {}
        self.latencies_s: list[float] = []
        self._pause_s = max(link.pause_s, link.serial.frame_gap_s if link.serial else 0.0)

    async def ask(self, ask: Ask, requests: Sequence[Request]) -> list[bytes | int]:
        answers: list[bytes | int] = []
        for request in requests:
            begun_s = time.monotonic()
            answers += await ask([request])
            self.latencies_s.append(time.monotonic() - begun_s)
            if answers[-1] in GATEWAY_AWAY:
                return answers + answers[-1:] * (len(requests) - len(answers))
            await asyncio.sleep(self._pause_s)  # here, so that the line has none left to make before the next one
        return answers

    def keep(self, block: Block, answer: bytes) -> None:
        for index, span in zip(block.members, block.spans, strict=True):
            first = span.address - block.address
            if block.table.holds_bits:
                self.raw[index] = bytes([answer[first // 8] >> first % 8 & 1])
            else:
                self.raw[index] = answer[2 * first : 2 * (first + span.size)]


def evidence(point: Point, encoding: Encoding, raw: bytes) -> Evidence:
    """Of one tag. `encoding`: with the device's order, where the tag has none of its own."""
    where = place(point.table, point.address, point.size)
    if point.unit_id is not None:
        where = f"unit {point.unit_id}, {where}"
    if encoding.bit is not None and encoding.bit_count > 1:
        return Evidence(where, f"bits {encoding.bit}–{encoding.bit + encoding.bit_count - 1}", encoding.order, raw)
    if encoding.bit is not None:
        return Evidence(where, f"bit {encoding.bit}", encoding.order, raw)
    if point.table.holds_bits:
        return Evidence(where, "bit", "", raw)
    kind = f"string of {encoding.length}" if encoding.type == "string" else encoding.type
    return Evidence(where, kind, encoding.order, raw)


def facts(settings: Settings, unit_ids: Sequence[int]) -> Mapping[str, str]:
    """What to know of the connection, for people."""
    link, serial = settings.link, settings.link.serial
    known = {
        "unit" if len(unit_ids) == 1 else "units": ", ".join(map(str, unit_ids)),
        "transport": {
            "tcp": "Modbus TCP",
            "udp": "Modbus UDP",
            "rtu": "Modbus RTU",
            "rtu_over_tcp": "Modbus RTU over TCP",
        }[link.transport],
    }
    if serial is not None:
        known["line"] = f"{serial.baudrate} bit/s, parity {serial.parity}, {serial.stop_bits} stop bit(s)"
    return {**known, "security": "none: Modbus has neither encryption nor login"}
