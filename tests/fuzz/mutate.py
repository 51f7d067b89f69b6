"""Damage by chance: to bytes, and to what lies inside a compressed message, where a checksum stops plain damage."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import zstandard

NUMBERS = (0, 1, -1, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, -(1 << 63),
           1 << 63, (1 << 64) - 1)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *(*NUMBERS, None, True, False, 0.0, -0.0, float("nan"), float("inf"), 1e308),
    *("", "a" * 200, "\u0000", "\U0001f600", "../..", b"", b"\xff" * 9, b"\x80" * 20, [], {}, [[]], {"a": {}}),
)
DEEP = 12
INSIDE_MAX = 1 << 20


def damaged(sample: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """One message of this corpus with one to four wounds."""
    for _ in range(chance.randint(1, 4)):
        sample = chance.choice(_WAYS)(sample, others, chance)
    return sample


def _bytes(sample: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    found = bytearray(sample or b"\0")
    at = chance.randrange(len(found))
    match chance.randrange(7):
        case 0:
            found[at] ^= 1 << chance.randrange(8)
        case 1:
            found[at] = chance.choice((0, 1, 0x7F, 0x80, 0xC1, 0xDC, 0xDF, 0xFF))
        case 2:
            del found[at : at + chance.randint(1, 9)]
        case 3:
            found[at:at] = chance.randbytes(chance.randint(1, 9))
        case 4:
            found[at:at] = found[at : at + chance.randint(1, 60)] * chance.randint(1, 3)
        case 5:
            del found[at:]
        case 6:
            other = chance.choice(others)
            found[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(found)


def _inner_bytes(sample: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    raw = _inside(sample)
    return sample if raw is None else _frame(_bytes(raw, others, chance))


def _inner_value(sample: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    raw = _inside(sample)
    if raw is None:
        return sample
    try:
        value = msgpack.unpackb(raw, strict_map_key=False)
        return _frame(msgpack.packb(_changed(value, chance, DEEP)))
    except (ValueError, TypeError):  # damaged already, or JSON
        return sample


def _changed(value: Any, chance: random.Random, depth: int) -> Any:
    """The value with one of its parts, at whatever depth, replaced, repeated or taken out."""
    if depth and isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        match chance.randrange(8):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[:at] + [value[at]] * 2 + value[at + 1 :]
        return [*value[:at], _changed(value[at], chance, depth - 1), *value[at + 1 :]]
    if depth and isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        return value | {key: _changed(value[key], chance, depth - 1)}
    if isinstance(value, bytes) and value and chance.random() < 0.7:
        return _bytes(value, [value], chance)
    if type(value) is int and chance.random() < 0.3:
        return min(max(value + chance.choice((-1, 1)), -(1 << 63)), (1 << 64) - 1)
    return chance.choice(VALUES)


def _inside(sample: bytes) -> bytes | None:
    try:
        if zstandard.frame_content_size(sample) > INSIDE_MAX:
            return None
        return zstandard.ZstdDecompressor(max_window_size=1 << 23).decompress(sample, max_output_size=INSIDE_MAX)
    except zstandard.ZstdError:
        return None


def _frame(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(raw)


_WAYS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (_bytes, _inner_bytes, _inner_value)
