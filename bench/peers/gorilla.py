"""Gorilla: the compression of times and values of Facebook's in-memory time series database.

Source: T. Pelkonen et al., "Gorilla: A Fast, Scalable, In-Memory Time Series Database", VLDB 2015, section 4.1. For its
size, not for its speed: bits are kept as a text of 0 and 1. Two departures, both in its favour or at no cost to it: the
first time stands in full (64 bits) without the 14 bits of the first difference; a difference of differences beyond 32
bits is written as the lowest 32-bit number and then in 64 bits, because times here are microseconds if need be.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

_CLASSES = (("10", 7), ("110", 9), ("1110", 12))
_LAST, _LAST_BITS = "1111", 32
_ESCAPE = -(1 << 31)
_LEADING_MAX = 31
_MASK = (1 << 64) - 1


def encode_times(times: Sequence[int]) -> str:
    """Whole numbers within ±2^60 → bits: the first in full, then differences of differences (4.1.1)."""
    if not times:
        return ""
    parts = [_bits(times[0], 64)]
    before = 0
    for a, b in pairwise(times):
        parts.append(_difference(b - a - before))
        before = b - a
    return "".join(parts)


def _difference(n: int) -> str:
    if n == 0:
        return "0"
    for head, width in _CLASSES:
        if -(1 << width - 1) < n <= 1 << width - 1:  # [-63, 64] and so on: the paper's ranges
            return head + _bits(n - 1, width)
    if -(1 << 31) < n < 1 << 31:
        return _LAST + _bits(n, _LAST_BITS)
    return _LAST + _bits(_ESCAPE, _LAST_BITS) + _bits(n, 64)


def decode_times(bits: str, count: int) -> list[int]:
    """What `encode_times` got."""
    if not count:
        return []
    times, at, step = [_signed(bits[:64])], 64, 0
    while len(times) < count:
        n, at = _read_difference(bits, at)
        step += n
        times.append(times[-1] + step)
    return times


def _read_difference(bits: str, at: int) -> tuple[int, int]:
    if bits[at] == "0":
        return 0, at + 1
    for head, width in _CLASSES:
        if bits.startswith(head, at):
            at += len(head)
            return _signed(bits[at : at + width]) + 1, at + width
    at += len(_LAST)
    n, at = _signed(bits[at : at + _LAST_BITS]), at + _LAST_BITS
    return (_signed(bits[at : at + 64]), at + 64) if n == _ESCAPE else (n, at)


def encode_values(values: Sequence[float]) -> str:
    """Float64 → bits: the first in full, then each XORed with the one before it (4.1.2)."""
    patterns = struct.unpack(f">{len(values)}Q", struct.pack(f">{len(values)}d", *values))
    parts = [f"{pattern:064b}" for pattern in patterns[:1]]
    leading, meaningful = 0, 0  # of the last block that was described; none yet
    for a, b in pairwise(patterns):
        bits = f"{a ^ b:064b}"
        if a == b:
            parts.append("0")
            continue
        zeros = min(bits.index("1"), _LEADING_MAX)
        end = bits.rindex("1") + 1
        if meaningful and zeros >= leading and end <= leading + meaningful:
            parts.append("10" + bits[leading : leading + meaningful])
            continue
        leading, meaningful = zeros, end - zeros
        parts.append(f"11{leading:05b}{meaningful & 63:06b}{bits[leading:end]}")  # 64 is written as 0
    return "".join(parts)


def decode_values(bits: str, count: int) -> list[float]:
    """What `encode_values` got."""
    if not count:
        return []
    patterns, at = [int(bits[:64], 2)], 64
    leading = meaningful = 0
    while len(patterns) < count:
        if bits[at] == "0":
            patterns.append(patterns[-1])
            at += 1
            continue
        described, at = bits[at + 1] == "1", at + 2
        if described:
            leading, meaningful = int(bits[at : at + 5], 2), int(bits[at + 5 : at + 11], 2) or 64
            at += 11
        xored = int(bits[at : at + meaningful], 2) << (64 - leading - meaningful)
        at += meaningful
        patterns.append(patterns[-1] ^ xored)
    return list(struct.unpack(f">{count}d", struct.pack(f">{count}Q", *patterns)))


def _bits(n: int, width: int) -> str:
    """Two's complement."""
    return f"{n & (1 << width) - 1:0{width}b}"


def _signed(bits: str) -> int:
    n = int(bits, 2)
    return n - (1 << len(bits)) if bits[0] == "1" else n
