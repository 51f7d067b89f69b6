"""The capture file on disk: written block by block, never larger than its limit. Blocking calls, for a thread."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from agent.capture.records import (
    BLOCK_BYTES,
    HEADER_BYTES_MAX,
    Capture,
    CaptureError,
    Header,
    block_number,
    read_capture,
    read_header,
)

LIMIT_BYTES = 16 << 20
LIMIT_BYTES_MIN = 64 << 10
LIMIT_BYTES_MAX = 256 << 20
_SLOTS_MIN = 8


class Ring:
    """A file that is open for recording. What it holds is not synced: a power cut may cost the last seconds."""

    def __init__(self, descriptor: int, start: int, slots: int, number: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._slots = slots
        self.number = number
        """Of the next block."""

    @classmethod
    def create(cls, path: Path, header: Header, limit_bytes: int) -> Ring:
        """A new file, that only its owner may read. Raises OSError, also where there is one already."""
        encoded = header.encode()
        slots = max(_SLOTS_MIN, (limit_bytes - len(encoded)) // BLOCK_BYTES)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, encoded, 0)
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor, len(encoded), slots, 0)

    @classmethod
    def resume(cls, path: Path, limit_bytes: int) -> Ring:
        """A file that an earlier run began, to be continued. Raises OSError, and CaptureError where it is none."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _, start = read_header(os.pread(descriptor, HEADER_BYTES_MAX, 0))
            slots = max(_SLOTS_MIN, (limit_bytes - start) // BLOCK_BYTES)
            numbers = [
                found
                for slot in range(slots)
                if (found := block_number(os.pread(descriptor, BLOCK_BYTES, start + slot * BLOCK_BYTES))) is not None
            ]
        except (OSError, CaptureError):
            os.close(descriptor)
            raise
        return cls(descriptor, start, slots, max(numbers, default=-1) + 1)

    def write(self, blocks: Iterable[tuple[int, bytes]]) -> None:
        """Each (number, block) into its slot. Raises OSError."""
        for number, one in blocks:
            offset = self._start + number % self._slots * BLOCK_BYTES
            if os.pwrite(self._descriptor, one, offset) < len(one):
                raise OSError("it was written in part only; the disk is full")

    def close(self) -> None:
        os.close(self._descriptor)


def read_file(path: Path) -> Capture:
    """A capture file. Raises OSError, and CaptureError where it is none or too large to be one."""
    with path.open("rb") as file:
        raw = file.read(LIMIT_BYTES_MAX + HEADER_BYTES_MAX + 1)
    if len(raw) > LIMIT_BYTES_MAX + HEADER_BYTES_MAX:
        raise CaptureError("it is larger than any capture")
    return read_capture(raw)
