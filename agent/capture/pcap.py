"""A capture as a pcap file, which Wireshark and tcpdump open. Pure.

What was recorded are bytes and moments, not packets: the IPv4 and TCP (or UDP) headers around them are made up, between
10.0.0.1 (the gateway) and 10.0.0.2 (the device), at the device's real port where there is one, so that Wireshark sees
Modbus at once. A serial line is shown as TCP, too: there choose Decode As → Modbus RTU.

Format: https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/ with link type 101 (raw IP).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from agent.capture.records import Record
from protocols.field.contract import Happening

MODBUS_PORT = 502
_MAGIC, _RAW_IP, _SNAP_BYTES = 0xA1B2C3D4, 101, 262_144
_GATEWAY, _DEVICE = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
_GATEWAY_PORT = 49_152
_SYN, _ACK, _PUSH, _FIN = 0x02, 0x10, 0x08, 0x01
_TCP, _UDP = 6, 17


def pcap(records: Iterable[Record], transport: str, port: int) -> Iterator[bytes]:
    """The file in pieces. The records are as they stand in the file: none is larger than a packet."""
    yield struct.pack(">IHHiIII", _MAGIC, 2, 4, 0, 0, _SNAP_BYTES, _RAW_IP)
    port = port if 0 < port < 65_536 else MODBUS_PORT
    line = _Datagrams(port) if transport == "udp" else _Stream(port)
    for record in records:
        for packet in line.packets(record):
            time_us = max(0, record.time_us)
            yield struct.pack(">IIII", time_us // 1_000_000 & 0xFFFFFFFF, time_us % 1_000_000, len(packet), len(packet))
            yield packet


class _Datagrams:
    def __init__(self, port: int) -> None:
        self._port = port

    def packets(self, record: Record) -> Iterator[bytes]:
        if record.happening in (Happening.SENT, Happening.RECEIVED):
            is_ours = record.happening is Happening.SENT
            ports = (_GATEWAY_PORT, self._port) if is_ours else (self._port, _GATEWAY_PORT)
            segment = struct.pack(">HHHH", *ports, 8 + len(record.content), 0) + record.content
            yield _ip(is_ours, _UDP, segment)


class _Stream:
    """Connections, each from a port of its own, with sequence numbers that fit: pieces are put together again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections = -1
        self._is_open = False
        self._next = {True: 0, False: 0}  # ours, theirs

    def packets(self, record: Record) -> Iterator[bytes]:
        match record.happening:
            case Happening.OPENED:
                yield from self._open()
            case Happening.SENT | Happening.RECEIVED:
                if not self._is_open:
                    yield from self._open()
                is_ours = record.happening is Happening.SENT
                yield self._segment(is_ours, _PUSH | _ACK, record.content)
                self._next[is_ours] = (self._next[is_ours] + len(record.content)) & 0xFFFFFFFF
            case Happening.LOST | Happening.CLOSED if self._is_open:
                yield self._segment(record.happening is Happening.CLOSED, _FIN | _ACK, b"")
                self._is_open = False

    def _open(self) -> Iterator[bytes]:
        self._connections += 1
        self._is_open = True
        self._next = {True: 0, False: 0}
        yield self._segment(True, _SYN, b"")
        self._next[True] = 1
        yield self._segment(False, _SYN | _ACK, b"")
        self._next[False] = 1
        yield self._segment(True, _ACK, b"")

    def _segment(self, is_ours: bool, flags: int, content: bytes) -> bytes:
        ours = _GATEWAY_PORT + self._connections % 16_000
        ports = (ours, self._port) if is_ours else (self._port, ours)
        acknowledged = self._next[not is_ours] if flags & _ACK else 0
        head = struct.pack(">HHIIBBHHH", *ports, self._next[is_ours], acknowledged, 5 << 4, flags, 65_535, 0, 0)
        source, target = (_GATEWAY, _DEVICE) if is_ours else (_DEVICE, _GATEWAY)
        pseudo = source + target + struct.pack(">BBH", 0, _TCP, len(head) + len(content))
        total = _sum(pseudo + head + content)
        return _ip(is_ours, _TCP, head[:16] + struct.pack(">H", total) + head[18:] + content)


def _ip(is_ours: bool, protocol: int, segment: bytes) -> bytes:
    source, target = (_GATEWAY, _DEVICE) if is_ours else (_DEVICE, _GATEWAY)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, protocol, 0) + source + target
    return head[:10] + struct.pack(">H", _sum(head)) + head[12:] + segment


def _sum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
