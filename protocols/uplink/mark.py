"""The mark of a historical message: what a gateway sends of its backlog, beside the live flow. Pure.

The mark stands before the message, so that the bytes made once, before the disk, stay as they are: a skippable frame
as RFC 8878, section 3.1.2, has it (magic number 0x184D2A50, content of one byte, little-endian). A decoder of zstd
passes over it. It is no part of the message: keys and digests are of what follows it.
"""

from __future__ import annotations

HISTORICAL = bytes.fromhex("502a4d18 01000000 01")


def mark(payload: bytes) -> bytes:
    """The message, marked as historical."""
    return HISTORICAL + payload


def unmark(payload: bytes) -> tuple[bytes, bool]:
    """(the message itself, whether it was marked as historical)."""
    return (payload[len(HISTORICAL) :], True) if payload.startswith(HISTORICAL) else (payload, False)
