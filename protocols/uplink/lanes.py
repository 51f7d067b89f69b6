"""Arithmetic on many numbers at once without a library: each number is a lane of one very large integer. Pure.

Python's integers have any length, and their sums, shifts and XORs are loops in C: one operation on an integer that
holds a thousand 64-bit numbers side by side costs far less than a thousand operations. What must not happen is that a
carry or a shifted bit leaves its lane; each formula below says how that is kept. They are those of "SIMD within a
register", as in H. S. Warren, Hacker's Delight, 2nd ed., section 2-18.

Bytes are little-endian here, as on the wire.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

MASK = (1 << 64) - 1
CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""The array module's letters of unsigned numbers, by their bytes."""
_SIGNED = {1: "b", 2: "h", 4: "i", 8: "q"}
BIG_ENDIAN = sys.byteorder == "big"

_CHUNK_BYTES = 1 << 15  # so many at once that the first cache holds them and their intermediate results
_TOP = int.from_bytes((b"\0" * 7 + b"\x80") * (_CHUNK_BYTES // 8), "little")
_LOWEST = {width: int.from_bytes((b"\1" + b"\0" * (width - 1)) * (_CHUNK_BYTES // width), "little") for width in CODES}
_UNZIGZAG = bytes(((z >> 1) ^ -(z & 1)) & 0xFF for z in range(256))


def xored(now: bytes, before: bytes) -> bytes:
    """Each bit of `now` XOR the same of `before`; both of one length."""
    if len(now) <= _CHUNK_BYTES:
        return (int.from_bytes(now, "little") ^ int.from_bytes(before, "little")).to_bytes(len(now), "little")
    starts = range(0, len(now), _CHUNK_BYTES)
    return b"".join([xored(now[at : at + _CHUNK_BYTES], before[at : at + _CHUNK_BYTES]) for at in starts])


def zigzag_steps(now: bytes, before: bytes) -> bytes:
    """zigzag(now − before), modulo 2^64, of 64-bit numbers; both of one length."""
    if len(now) > _CHUNK_BYTES:
        starts = range(0, len(now), _CHUNK_BYTES)
        return b"".join([zigzag_steps(now[at : at + _CHUNK_BYTES], before[at : at + _CHUNK_BYTES]) for at in starts])
    top = _TOP >> 8 * (_CHUNK_BYTES - len(now))
    a, b = int.from_bytes(now, "little"), int.from_bytes(before, "little")
    # H set in a and clear in b: no borrow leaves a lane. The right top bit is put there afterwards.
    step = ((a | top) - (b & ~top)) ^ ((a ^ b ^ top) & top)
    sign = step & top
    one = sign >> 63
    # One bit of a negative lane, times 2^64 − 1, fills the lane: z = (n << 1) ^ (n >> 63).
    return (((step ^ sign) << 1) ^ ((one << 64) - one)).to_bytes(len(now), "little")


def unzigzag(data: bytes, width: int) -> array[int]:
    """The signed numbers of zigzagged ones of `width` bytes."""
    if width == 1:
        return array("b", data.translate(_UNZIGZAG))
    return _native(array(_SIGNED[width], _unzigzag(data, width)))


def _unzigzag(data: bytes, width: int) -> bytes:
    if len(data) > _CHUNK_BYTES:
        starts = range(0, len(data), _CHUNK_BYTES)
        return b"".join([_unzigzag(data[at : at + _CHUNK_BYTES], width) for at in starts])
    number = int.from_bytes(data, "little")
    one = number & (_LOWEST[width] >> 8 * (_CHUNK_BYTES - len(data)) if data else 0)
    # With its lowest bit cleared, a lane can be shifted to the right and nothing enters the one below.
    return (((number ^ one) >> 1) ^ ((one << 8 * width) - one)).to_bytes(len(data), "little")


def unsigned(data: bytes, width: int) -> array[int]:
    """The numbers in little-endian bytes."""
    return _native(array(CODES[width], data))


def little_endian(numbers: array[int] | array[float]) -> bytes:
    """Their bytes."""
    if BIG_ENDIAN and numbers.itemsize > 1:
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def shuffle(data: bytes, width: int) -> bytes:
    """All least significant bytes first, then the next ones, and so on."""
    return data if width == 1 else b"".join([data[plane::width] for plane in range(width)])


def unshuffle(data: bytes, width: int) -> bytes:
    """The inverse; the length is a multiple of `width`."""
    if width == 1:
        return data
    raw, count = bytearray(len(data)), len(data) // width
    for plane in range(width):
        raw[plane::width] = data[plane * count : (plane + 1) * count]
    return bytes(raw)


# --- variable-length integers (unsigned LEB128), each in a lane of 16 bytes -----------------------------------------

_VARINT_CHUNK = 2048


def _every_16_bytes(pattern: bytes) -> int:
    return int.from_bytes(pattern * (16 // len(pattern)) * _VARINT_CHUNK, "little")


_SEVEN = _every_16_bytes(b"\x7f")
_FOLDS = [
    (_every_16_bytes(b"\x7f\x00"), 1),
    (_every_16_bytes(b"\xff\x3f\x00\x00"), 2),
    (_every_16_bytes(b"\xff\xff\xff\x0f" + bytes(4)), 4),
    (_every_16_bytes(b"\xff" * 7 + bytes(9)), 8),
]
"""Neighbouring groups of 7, 14, 28 and 56 bits are brought together: which bits stay, how far the others move."""


def read_varints(parts: Sequence[bytes]) -> list[int]:
    """The lowest 64 bits of each; none is longer than 10 bytes."""
    numbers: list[int] = []
    for at in range(0, len(parts), _VARINT_CHUNK):
        chunk = b"".join([part.ljust(16, b"\0") for part in parts[at : at + _VARINT_CHUNK]])
        bits = int.from_bytes(chunk, "little") & _SEVEN
        for stay, shift in _FOLDS:
            low = bits & stay
            bits = low | (bits ^ low) >> shift
        numbers.extend(unsigned(bits.to_bytes(len(chunk), "little"), 8)[::2])
    return numbers


def varints(numbers: Sequence[int]) -> list[bytes]:
    """The inverse, of 1 to 2^64 − 1."""
    parts: list[bytes] = []
    for at in range(0, len(numbers), _VARINT_CHUNK):
        chunk = numbers[at : at + _VARINT_CHUNK]
        wide = array("Q", bytes(16 * len(chunk)))
        wide[::2] = array("Q", chunk)
        bits = int.from_bytes(little_endian(wide), "little")
        for stay, shift in reversed(_FOLDS):
            low = bits & stay
            bits = low | (bits ^ low) << shift
        lengths = [(n.bit_length() + 6) // 7 for n in chunk]
        bits |= int.from_bytes(b"".join([_MORE[length] for length in lengths]), "little")
        raw = bits.to_bytes(16 * len(chunk), "little")
        parts.extend([raw[16 * at : 16 * at + length] for at, length in enumerate(lengths)])
    return parts


_MORE = [(b"\x80" * (length - 1)).ljust(16, b"\0") for length in range(11)]
"""By length: the bits that say that a byte follows."""


def _native(numbers: array[int]) -> array[int]:
    if BIG_ENDIAN and numbers.itemsize > 1:
        numbers.byteswap()
    return numbers


def floats(data: bytes, width: int) -> list[float]:
    """The floats of 4 or 8 bytes whose little-endian bit patterns these are."""
    numbers = array("f" if width == 4 else "d", data)
    if BIG_ENDIAN:
        numbers.byteswap()
    return numbers.tolist()
