"""The capture file: what was recorded is read again, the oldest go first, and no file harms its reader."""

from __future__ import annotations

import json
import re
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.capture.records import (
    BLOCK_BYTES,
    CaptureError,
    Header,
    Packer,
    Record,
    joined,
    read_capture,
)
from agent.capture.ring import Ring, read_file
from protocols.field.contract import Happening

HEADER = Header("tcp", "10.0.0.5:502", "holdfast 1", "2026-11-28T04:00:00+00:00", {"name": "prässe", "port": 502})
RECORDS = st.lists(
    st.builds(
        Record,
        st.sampled_from(list(Happening)),
        st.integers(-(2**63), 2**63 - 1),
        st.builds(
            lambda size, byte: bytes([byte]) * size, st.integers(0, 300) | st.integers(1500, 9000), st.integers(0, 255)
        ),
    ),
    max_size=30,
    unique_by=lambda record: record.time_us,  # what happens at one moment and is divided is joined by it
)


def whole(records: list[Record]) -> bytes:
    packer = Packer()
    for record in records:
        packer.add(*record)
    return HEADER.encode() + b"".join(one for _, one in packer.take())


def readable(raw: bytes) -> list[Record]:
    """What can be read of it; nothing where it is refused, which is the only error that there may be."""
    with suppress(CaptureError):
        return read_capture(raw).records
    return []


@given(RECORDS)
def test_what_was_recorded_is_read_again(records: list[Record]) -> None:
    capture = read_capture(whole(records))
    assert (joined(capture.records), capture.header) == (records, HEADER)
    assert (capture.damaged, capture.missing) == (0, 0)


@given(RECORDS, st.data())
def test_damage_costs_blocks_and_never_gives_a_wrong_record(records: list[Record], data: st.DataObject) -> None:
    intact = whole(records)
    raw = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    left = iter(read_capture(intact).records)
    for record in readable(bytes(raw[: data.draw(st.integers(0, len(raw)))])):
        assert record in left, "in their order, and none that was not there"


@given(st.binary(max_size=3 * BLOCK_BYTES), st.booleans())
def test_a_strangers_file_is_refused_or_read(content: bytes, has_header: bool) -> None:
    readable((HEADER.encode() if has_header else b"") + content)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "does not begin with"),
        (b'{"holdfast_capture": 1', "cannot be read"),
        (b'{"holdfast_capture": 1, "x": ' + b"[" * 100_000, "cannot be read"),
        (b'{"holdfast_capture": 2, "block_bytes": 4096}', "is of version 2"),
        (b'{"holdfast_capture": 1, "block_bytes": 1}', "is of version 1"),
        (b'{"holdfast_capture": 1, "block_bytes": 4096, "transport": []}', "lacks"),
        (json.dumps({"holdfast_capture": 1}).encode() + b"\xff", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_header_is_said(line: bytes, why: str) -> None:
    size = -(-(len(line) + 1) // BLOCK_BYTES) * BLOCK_BYTES
    with pytest.raises(CaptureError, match=f"^it.*{why}"):
        read_capture(line.ljust(size - 1) + b"\n")


def test_a_header_that_is_cut_off_is_said() -> None:
    with pytest.raises(CaptureError, match="cut off"):
        read_capture(HEADER.encode()[:-1])


def test_the_ring_keeps_the_newest_within_its_limit(tmp_path: Path) -> None:
    path, limit_bytes = tmp_path / "a.hfcap", 64 << 10
    ring, packer = Ring.create(path, HEADER, limit_bytes), Packer()
    records = [Record(Happening.SENT, at, at.to_bytes(4, "big") * 20) for at in range(3000)]
    for at, record in enumerate(records):
        packer.add(*record)
        if at % 7 == 0:  # a block that is not full yet is written again and again
            ring.write(packer.take())
            assert path.stat().st_size <= limit_bytes
            assert read_file(path).records[-1] == record
    ring.write(packer.take())
    ring.close()
    capture = read_file(path)
    assert capture.records == records[-len(capture.records) :]
    assert 500 < len(capture.records) < 1000
    assert path.stat().st_size > limit_bytes - 2 * BLOCK_BYTES
    assert (capture.damaged, capture.missing) == (0, 0)


def test_a_recording_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "a.hfcap"
    records = [Record(Happening.RECEIVED, at, b"x" * 200) for at in range(400)]
    for part in (records[:150], records[150:]):
        ring = Ring.resume(path, 1 << 20) if path.exists() else Ring.create(path, HEADER, 1 << 20)
        packer = Packer(ring.number)
        for record in part:
            packer.add(*record)
        ring.write(packer.take())
        ring.close()
    assert read_file(path).records == records


def test_a_torn_block_costs_its_own_records(tmp_path: Path) -> None:
    raw = bytearray(whole([Record(Happening.SENT, at, bytes(1000)) for at in range(30)]))
    start = len(HEADER.encode())
    raw[start + 3 * BLOCK_BYTES + 2000 : start + 4 * BLOCK_BYTES] = bytes(BLOCK_BYTES - 2000)
    raw[start + 3 * BLOCK_BYTES + 2000] = 1
    capture = read_capture(bytes(raw))
    assert [record.time_us for record in capture.records] == [at for at in range(30) if at // 4 != 3]
    assert (capture.damaged, capture.missing) == (1, 1)


def test_what_nobody_takes_is_bounded() -> None:
    packer = Packer()
    for at in range(2000):
        packer.add(Happening.SENT, at, bytes(1000))
        if packer.waiting > 10:
            packer.forget_oldest()
    raw = HEADER.encode() + b"".join(one for _, one in packer.take())
    assert len(raw) <= 12 * BLOCK_BYTES + len(HEADER.encode())
    assert read_capture(raw).records[-1].time_us == 1999


def test_the_file_is_as_its_document_says() -> None:
    """A reader written from docs/capture.md alone."""
    text = (Path(__file__).parents[2] / "docs" / "capture.md").read_text(encoding="utf-8")
    (kinds,) = re.findall(r"^\| kind \| 1 \| (.*) \|$", text, re.MULTILINE)
    assert [int(word.split()[0]) for word in kinds.split(", ")] == [int(one) for one in Happening]
    records = [Record(Happening.SENT, 1_796_040_000_000_000 + at, bytes([at]) * 900) for at in range(20)]
    raw = whole(records)
    line, _, _ = raw.partition(b"\n")
    assert set(json.loads(line)) == set(re.findall("`([a-z_]+)`", text[text.index("`holdfast_capture`") :])[:7])
    assert (len(line) + 1) % 4096 == 0
    found, numbers = [], []
    for start in range(len(line) + 1, len(raw), 4096):
        block = raw[start : start + 4096]
        magic, checksum, number, used = struct.unpack_from(">4sIQH", block)
        assert (magic, checksum) == (b"HFCB", zlib.crc32(block[8:]))
        numbers.append(number)
        at = 18
        while at < 18 + used:
            kind, time_us, length = struct.unpack_from(">BqH", block, at)
            found.append((kind, time_us, block[at + 11 : at + 11 + length]))
            at += 11 + length
        assert not any(block[18 + used :])
    assert found == [(3, record.time_us, record.content) for record in records]
    assert numbers == [*range(len(numbers))]
