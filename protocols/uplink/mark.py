"""The marks of a telemetry message: that it is historical, and that its times are by a clock nobody vouches for. Pure.

Marks stand before the message, so that the bytes made once, before the disk, stay as they are: skippable frames as RFC
8878, section 3.1.2, has them. A decoder of zstd passes over them. They are no part of the message: keys and digests are
of what follows them.

Historical is what a gateway sends of its backlog, beside the live flow; that mark is put on when it is sent, and comes
first. The clock's mark is put on before the disk, and stays: it says in which *span* the times were stamped, and what
the clock said of the moment when the gateway booted, the boot's *zero hour*. When a clock is synchronised, the status
tells the true zero hour of the span that this ended (protocols/uplink/status.py), and the difference is the correction.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from protocols.uplink.status import TIMESTAMP_MS_MAX

HISTORICAL = bytes.fromhex("502a4d18 01000000 01")
SPAN_BYTES = 16
_CLOCK = bytes.fromhex("512a4d18 18000000")
_CLOCK_BYTES = len(_CLOCK) + SPAN_BYTES + 8
_ZERO_US_MAX = TIMESTAMP_MS_MAX * 1000


class ClockMark(NamedTuple):
    """`span`: SPAN_BYTES that name a time without synchronisation, within one boot of one gateway.

    `zero_us`: what the clock would have said at the boot's start, in microseconds since 1970; may be before.
    """

    span: bytes
    zero_us: int

    def encode(self) -> bytes:
        """The mark, to be put before a message."""
        return _CLOCK + self.span + struct.pack("<q", self.zero_us)


class Marked(NamedTuple):
    """A message without its marks, and what they say. `clock`: None where the sender vouches for its times."""

    message: bytes
    historical: bool
    clock: ClockMark | None


def mark(payload: bytes) -> bytes:
    """The message, marked as historical."""
    return HISTORICAL + payload


def read(payload: bytes) -> Marked:
    """The message and its marks. What is no proper mark is left standing; then the message cannot be decoded."""
    historical = payload.startswith(HISTORICAL)
    message = payload[len(HISTORICAL) :] if historical else payload
    if not message.startswith(_CLOCK) or len(message) < _CLOCK_BYTES:
        return Marked(message, historical, None)
    span, zero_us = message[len(_CLOCK) :][:SPAN_BYTES], struct.unpack_from("<q", message, _CLOCK_BYTES - 8)[0]
    if abs(zero_us) > _ZERO_US_MAX:
        return Marked(message, historical, None)
    return Marked(message[_CLOCK_BYTES:], historical, ClockMark(span, zero_us))


def unmark(payload: bytes) -> tuple[bytes, bool]:
    """(the message itself, whether it was marked as historical)."""
    found = read(payload)
    return found.message, found.historical
