"""Many numbers in one large integer: every result is what the same arithmetic gives number by number."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocols.uplink import lanes
from protocols.uplink.lanes import MASK
from protocols.uplink.streams import ColumnError, read_varints, unzigzag, varints, zigzag

EDGES = [0, 1, 2, 127, 128, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**63 + 1, MASK - 1, MASK]
UNSIGNED = st.one_of(st.integers(0, MASK), st.integers(0, 300), st.sampled_from(EDGES))
MANY = 2 * lanes._CHUNK_BYTES // 8 + 3
"""More than one chunk, and not a whole number of them."""


def as_bytes(numbers: list[int], width: int = 8) -> bytes:
    return b"".join(number.to_bytes(width, "little") for number in numbers)


def from_bytes(data: bytes, width: int = 8) -> list[int]:
    return [int.from_bytes(data[at : at + width], "little") for at in range(0, len(data), width)]


def signed(number: int, bits: int = 64) -> int:
    number %= 1 << bits
    return number - (1 << bits) if number >> (bits - 1) else number


@given(st.lists(st.tuples(UNSIGNED, UNSIGNED), max_size=30), st.booleans())
def test_steps_are_differences_modulo_two_to_the_64(pairs: list[tuple[int, int]], is_long: bool) -> None:
    pairs = (pairs * (MANY // len(pairs) + 1))[:MANY] if is_long and pairs else pairs
    now, before = [a for a, _ in pairs], [b for _, b in pairs]
    expected = [zigzag(signed(a - b)) for a, b in pairs]
    assert from_bytes(lanes.zigzag_steps(as_bytes(now), as_bytes(before))) == expected


@given(st.lists(st.tuples(UNSIGNED, UNSIGNED), max_size=30))
def test_xor_is_xor(pairs: list[tuple[int, int]]) -> None:
    now, before = as_bytes([a for a, _ in pairs]), as_bytes([b for _, b in pairs])
    assert lanes.xored(now, before) == bytes(a ^ b for a, b in zip(now, before, strict=True))


def test_xor_of_many() -> None:
    now, before = bytes(range(256)) * 500, bytes(reversed(range(256))) * 500
    assert lanes.xored(now, before) == bytes(a ^ b for a, b in zip(now, before, strict=True))


@given(st.sampled_from([1, 2, 4, 8]), st.lists(UNSIGNED, max_size=30), st.booleans())
def test_zigzag_back_in_every_width(width: int, numbers: list[int], is_long: bool) -> None:
    numbers = [number % (1 << 8 * width) for number in numbers]
    numbers = (numbers * (8 * MANY // len(numbers) + 1))[: 8 * MANY // width] if is_long and numbers else numbers
    found = lanes.unzigzag(as_bytes(numbers, width), width)
    assert found.tolist() == [unzigzag(number) for number in numbers]


@given(st.sampled_from([1, 2, 4, 8]), st.binary(max_size=200))
def test_shuffled_bytes_come_back_and_lie_by_significance(width: int, data: bytes) -> None:
    data = data[: len(data) // width * width]
    shuffled = lanes.shuffle(data, width)
    assert shuffled == b"".join(data[plane::width] for plane in range(width))
    assert lanes.unshuffle(shuffled, width) == data


# --- variable-length integers -----------------------------------------------------------------------------------------


def leb128(number: int) -> bytes:
    """As the standard has it (DWARF 5, section 7.6)."""
    out = bytearray()
    while True:
        byte, number = number & 0x7F, number >> 7
        out.append(byte | (0x80 if number else 0))
        if not number:
            return bytes(out)


NUMBERS = st.lists(st.integers(0, 64).flatmap(lambda bits: st.integers(0, (1 << bits) - 1)), max_size=60)


@given(NUMBERS)
@example([2**63, 1, 4095, 4096, MASK])
@example([MASK] * 5000)
def test_variable_length_integers_are_leb128(numbers: list[int]) -> None:
    assert varints(numbers) == b"".join(map(leb128, numbers))
    assert read_varints(varints(numbers)) == numbers


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_the_document_says_or_refused(data: bytes) -> None:
    numbers, number, length = [], 0, 0
    is_sound = True
    for byte in data:
        number |= (byte & 0x7F) << 7 * length
        length += 1
        is_sound &= length < 10 or byte < 0x80
        if byte < 0x80:
            numbers.append(number & MASK)
            number = length = 0
    if is_sound and not length:
        assert read_varints(data) == numbers
    else:
        with pytest.raises(ColumnError, match="variable-length"):
            read_varints(data)


def test_a_longer_way_to_write_a_small_number_is_read() -> None:
    assert read_varints(b"\x80\x00\xff\x80\x00\x05") == [0, 127, 5]


def test_floats_are_read_from_their_patterns() -> None:
    assert lanes.floats(bytes.fromhex("0000803f000000c0"), 4) == [1.0, -2.0]
    assert lanes.floats(bytes.fromhex("000000000000f03f"), 8) == [1.0]
    assert lanes.unsigned(bytes.fromhex("01000200"), 2) == array("H", [1, 2])
