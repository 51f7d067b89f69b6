"""The capture file, byte by byte: docs/capture.md. Pure.

A header, then blocks of BLOCK_BYTES each. The header is a line of JSON, padded with blanks to a whole number of blocks,
so that `head -1` shows what a file is. A block holds whole records and stands on its own: it has a checksum and a
number that grows. The file is a ring of blocks: number n lies in slot n modulo the number of slots, over the one that
was there. So the oldest records go first, a torn block costs its own records only, and the numbers give the order.

    block   magic "HFCB", CRC-32 of all that follows, number (64 bits), bytes used; records; zeros
    record  kind (8 bits, a `Happening`), microseconds since 1970 (64, signed), length (16), content

All numbers are big-endian. What a reader does not know it passes over.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from protocols.field.contract import Happening

VERSION = 1
BLOCK_BYTES = 4096
HEADER_BYTES_MAX = 16 << 20
CONTENT_BYTES_MAX = 2048
"""What is longer is divided among several records of the same time."""

_MAGIC = b"HFCB"
_BLOCK = struct.Struct(">4sIQH")
_RECORD = struct.Struct(">BqH")
_ROOM = BLOCK_BYTES - _BLOCK.size
_CRC_FROM = 8  # behind magic and checksum


class CaptureError(ValueError):
    """This is no capture file that can be read. The message is a phrase that begins with "it"."""


class Record(NamedTuple):
    """Something that happened on the line. `time_us`: microseconds since 1970."""

    happening: Happening
    time_us: int
    content: bytes

    @property
    def text(self) -> str:
        """The content where it is words."""
        return self.content.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Header:
    """What is recorded. `device`: its part of the configuration, without secrets."""

    transport: str
    endpoint: str
    program: str
    started: str
    device: Mapping[str, Any]

    def encode(self) -> bytes:
        """As it stands in the file."""
        plain = {
            "holdfast_capture": VERSION,
            "block_bytes": BLOCK_BYTES,
            "transport": self.transport,
            "endpoint": self.endpoint,
            "program": self.program,
            "started": self.started,
            "device": self.device,
        }
        line = json.dumps(plain, ensure_ascii=False).encode()
        return line.ljust(-(-(len(line) + 1) // BLOCK_BYTES) * BLOCK_BYTES - 1) + b"\n"


@dataclass(frozen=True, slots=True)
class Capture:
    """A whole file. `damaged`: blocks that cannot be read; `missing`: blocks that are absent between others."""

    header: Header
    records: list[Record]
    damaged: int
    missing: int


class Packer:
    """Puts records into blocks. `take` gives those that are new or have grown since it was last asked."""

    def __init__(self, number: int = 0) -> None:
        self._number = number
        self._content = bytearray()
        self._is_told = True
        self._full: list[tuple[int, bytes]] = []

    def add(self, happening: Happening, time_us: int, content: bytes) -> None:
        for start in range(0, max(1, len(content)), CONTENT_BYTES_MAX):
            part = content[start : start + CONTENT_BYTES_MAX]
            if len(self._content) + _RECORD.size + len(part) > _ROOM:
                self._full.append((self._number, block(self._number, self._content)))
                self._number += 1
                self._content.clear()
            self._content += _RECORD.pack(happening, time_us, len(part)) + part
            self._is_told = False

    @property
    def waiting(self) -> int:
        """How many full blocks nobody has taken yet."""
        return len(self._full)

    def forget_oldest(self) -> None:
        """Of the full blocks that wait."""
        del self._full[0]

    def take(self) -> list[tuple[int, bytes]]:
        """(number, block), in their order."""
        found, self._full = self._full, []
        if not self._is_told:
            found.append((self._number, block(self._number, self._content)))
            self._is_told = True
        return found


def block(number: int, content: bytes | bytearray) -> bytes:
    """A block of these records."""
    rest = _BLOCK.pack(_MAGIC, 0, number, len(content))[_CRC_FROM:] + content
    rest = rest.ljust(BLOCK_BYTES - _CRC_FROM, b"\0")
    return _MAGIC + zlib.crc32(rest).to_bytes(4, "big") + rest


def block_number(raw: bytes) -> int | None:
    """The block's number; None where it is damaged."""
    if len(raw) != BLOCK_BYTES:
        return None
    magic, checksum, number, used = _BLOCK.unpack_from(raw)
    if magic != _MAGIC or used > _ROOM or zlib.crc32(raw[_CRC_FROM:]) != checksum:
        return None
    return int(number)


def records(raw: bytes) -> Iterator[Record]:
    """Those of a block that is not damaged. Kinds of another version, and what is cut off, are passed over."""
    used = _BLOCK.unpack_from(raw)[3]
    at, end = _BLOCK.size, _BLOCK.size + used
    while at + _RECORD.size <= end:
        kind, time_us, length = _RECORD.unpack_from(raw, at)
        at += _RECORD.size
        if at + length > end:
            return
        if kind in _HAPPENINGS:
            yield Record(_HAPPENINGS[kind], time_us, raw[at : at + length])
        at += length


_HAPPENINGS = {int(one): one for one in Happening}


def read_header(raw: bytes) -> tuple[Header, int]:
    """The header at the beginning of these bytes, and how long it is. Raises CaptureError."""
    line, newline, _ = raw[:HEADER_BYTES_MAX].partition(b"\n")
    if not line.startswith(b'{"holdfast_capture"'):
        raise CaptureError('it does not begin with {"holdfast_capture"')
    try:
        plain = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CaptureError(f"its header cannot be read ({error})") from None
    if not newline or len(line) % BLOCK_BYTES != BLOCK_BYTES - 1:
        raise CaptureError("its header is cut off")
    if plain.get("holdfast_capture") != VERSION or plain.get("block_bytes") != BLOCK_BYTES:
        raise CaptureError(f"it is of version {plain.get('holdfast_capture')!r:.20}, and this program reads {VERSION}")
    transport, endpoint, program, started = (plain.get(key) for key in _TEXTS)
    device = plain.get("device")
    if not all(isinstance(plain.get(key), str) for key in _TEXTS) or not isinstance(device, dict):
        raise CaptureError("its header lacks what has to be there")
    return Header(transport, endpoint, program, started, device), len(line) + 1


_TEXTS = ("transport", "endpoint", "program", "started")


def read_capture(raw: bytes) -> Capture:
    """A whole file: everything that can be read of it, in order. Raises CaptureError."""
    header, start = read_header(raw)
    blocks: dict[int, bytes] = {}
    damaged = 0
    for at in range(start, len(raw), BLOCK_BYTES):
        one = raw[at : at + BLOCK_BYTES]
        number = block_number(one)
        if number is None:
            damaged += bool(one.strip(b"\0"))
        else:
            blocks[number] = one
    found = [record for number in sorted(blocks) for record in records(blocks[number])]
    missing = max(blocks) - min(blocks) + 1 - len(blocks) if blocks else 0
    return Capture(header, found, damaged, missing)


def joined(found: Iterable[Record]) -> list[Record]:
    """Records in one piece again: those that were divided, joined."""
    whole: list[Record] = []
    for record in found:
        last = whole[-1] if whole else None
        if (
            last is not None
            and last[:2] == record[:2]
            and len(last.content) >= CONTENT_BYTES_MAX
            and len(last.content) % CONTENT_BYTES_MAX == 0
        ):
            whole[-1] = Record(last.happening, last.time_us, last.content + record.content)
        else:
            whole.append(record)
    return whole
