"""The batcher: every reading in exactly once, in order, within the size that brokers take, whatever a driver gives."""

from __future__ import annotations

import math
import random
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.batcher import BATCH_BYTES_MAX, Batcher, Filled, Made
from agent.blocks import REASON_MAX, block
from agent.definitions import SelfContained
from agent.outbox.contract import HIGH, LOW, Lane
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink.batch import SEQ_MAX, Batch
from protocols.uplink.columns import TEXT_MAX
from protocols.uplink.envelope import decode, encode
from protocols.uplink.mark import ClockMark, read
from protocols.values import Quality, ValueType

EPOCH = "0011223344556677"
TIME = 1_496_275_200_000_000
Reading = tuple[str, str, int, Any, int]
"""Device, tag, time, value (floats as their bits), quality."""


def group(device: str = "plc-1", name: str = "main", **tags: ValueType) -> Group:
    return Group(device, name, 1.0, tuple(Tag(tag, value_type) for tag, value_type in tags.items()))


def batcher(bytes_max: int = BATCH_BYTES_MAX) -> Batcher:
    return Batcher(SelfContained("gw-1"), {"plc-1": "press", "plc-2": "press", "plc-3": "oven"}, bytes_max)


def payload(filled: Filled) -> bytes:
    """The batch as it would be sent, with the largest number there is."""
    return filled.draft.encode(EPOCH, SEQ_MAX).payload


def sent(filled: Sequence[Filled]) -> list[tuple[str, Batch]]:
    """(machine, batch) as they come out at the receiver."""
    return [(f.draft.machine, decode(payload(f))) for f in filled]


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else value


def readings_of(batch: Batch) -> list[Reading]:
    found = []
    for part in batch.blocks:
        for column in part.columns:
            rows = range(len(part.times_us)) if column.rows is None else column.rows
            quality = column.quality or [0] * len(column.values)
            for row, value, code in zip(rows, column.values, quality, strict=True):
                found.append((part.device, column.name, part.times_us[row], bits(value), code))
    return found


def readings_in(scan: Scan) -> list[Reading]:
    indexes = range(len(scan.group.tags)) if scan.indexes is None else scan.indexes
    quality = scan.quality or [0] * len(scan.values)
    return [
        (scan.group.device, scan.group.tags[at].name, scan.time_us, bits(value), code)
        for at, value, code in zip(indexes, scan.values, quality, strict=True)
    ]


AB = group(a=ValueType.FLOAT64, b=ValueType.INT)

# --- marks of the clock ---


def test_what_is_stamped_by_different_clocks_goes_in_different_batches() -> None:
    collected, marks = batcher(), [ClockMark(bytes(16), zero_us).encode() for zero_us in (0, 1)]
    for second, mark in enumerate((marks[0], marks[0], marks[1], b"", marks[0])):
        collected.add(Scan(AB, TIME + second, [1.0, second]), mark)
    drained = collected.drain()
    assert [filled.mark for filled in drained] == [marks[0], marks[1], b""]
    found = [read(payload(filled)) for filled in drained]
    assert [one.clock for one in found] == [ClockMark(bytes(16), 0), ClockMark(bytes(16), 1), None]
    times_us = [[at - TIME for at in decode(one.message).blocks[0].times_us] for one in found]
    assert times_us == [[0, 1, 4], [2], [3]]
    assert drained[0].made is not None and drained[0].made.encoded.payload == payload(drained[0])


def test_the_pieces_of_a_wide_scan_have_its_mark() -> None:
    collected, mark = batcher(bytes_max=2000), ClockMark(bytes(16), 5).encode()
    wide = group(**{f"tag_{at}": ValueType.FLOAT64 for at in range(400)})
    collected.add(Scan(wide, TIME, [math.pi] * 400), mark)
    drained = collected.drain()
    assert len(drained) > 1
    assert all(payload(filled).startswith(mark) for filled in drained)


# --- one after the other ---------------------------------------------------------------------------------------------


def test_full_scans_become_one_block_of_full_columns() -> None:
    collected = batcher()
    collected.add(Scan(AB, TIME, [1.5, 1]))
    collected.add(Scan(AB, TIME + 5, [2.5, 2]))
    [filled] = collected.drain()
    assert filled.readings == 4
    [(machine, batch)] = sent([filled])
    assert (machine, batch.gateway, batch.epoch, batch.seq) == ("press", "gw-1", EPOCH, SEQ_MAX)
    [part] = batch.blocks
    assert (part.device, list(part.times_us)) == ("plc-1", [TIME, TIME + 5])
    assert [(c.name, list(c.values), c.rows, c.quality) for c in part.columns] == [
        ("a", [1.5, 2.5], None, None),
        ("b", [1, 2], None, None),
    ]
    assert collected.drain() == []


def test_machines_have_batches_and_groups_have_blocks_of_their_own() -> None:
    collected = batcher()
    twice = group("plc-1", "fast", c=ValueType.BOOL), group("plc-2", x=ValueType.BOOL)
    oven = group("plc-3", y=ValueType.BOOL)
    for one in (AB, *twice, oven, AB):
        collected.add(Scan(one, TIME, [0] * 2 if one is AB else [True]))
    out = sent(collected.drain())
    assert [(machine, [part.device for part in batch.blocks]) for machine, batch in out] == [
        ("press", ["plc-1", "plc-1", "plc-2"]),
        ("oven", ["plc-3"]),
    ]
    assert [len(part.times_us) for part in out[0][1].blocks] == [2, 1, 1]


def test_sparse_scans_have_rows_only_where_something_is() -> None:
    collected = batcher()
    collected.add(Scan(AB, TIME, [1], indexes=[1]))
    collected.add(Scan(AB, TIME + 1, [], indexes=[]))  # nothing changed: no row
    collected.add(Scan(AB, TIME + 2, [2.5, 2], indexes=[0, 1]))
    collected.add(Scan(AB, TIME + 3, [3.5, 3]))
    [(_, batch)] = sent(collected.drain())
    [part] = batch.blocks
    assert list(part.times_us) == [TIME, TIME + 2, TIME + 3]
    assert [(c.name, list(c.values), c.rows) for c in part.columns] == [
        ("a", [2.5, 3.5], [1, 2]),
        ("b", [1, 2, 3], None),
    ]


def test_a_reason_stands_at_its_value_not_at_its_row() -> None:
    scans = [
        Scan(AB, TIME, [1], indexes=[1]),
        Scan(AB, TIME + 1, [2.5], indexes=[0]),
        Scan(AB, TIME + 2, [None], [0], [Quality.BAD_TIMEOUT], {0: "no answer"}),
    ]
    [a, b] = block(AB, scans).columns
    assert (a.rows, a.values, a.quality, a.reasons) == ([1, 2], [2.5, None], [0, Quality.BAD_TIMEOUT], {1: "no answer"})
    assert (b.rows, b.values, b.quality, b.reasons) == ([0], [1], None, {})


def test_a_tag_that_no_scan_holds_has_no_column() -> None:
    assert [c.name for c in block(AB, [Scan(AB, TIME, [1], indexes=[1])]).columns] == ["b"]


def test_priorities_have_batches_of_their_own() -> None:
    collected = batcher()
    for name, priority in (("slow", LOW), ("fast", HIGH), ("slower", LOW)):
        one = replace(group("plc-1", name, **{name: ValueType.BOOL}), priority=priority)
        collected.add(Scan(one, TIME, [True]))
    drained = collected.drain()
    assert [(f.draft.machine, f.draft.priority, f.draft.readings) for f in drained] == [
        ("press", LOW, 2),
        ("press", HIGH, 1),
    ]
    assert [len(batch.blocks) for _, batch in sent(drained)] == [2, 1]


def test_what_was_encoded_last_is_at_hand() -> None:
    collected = batcher()
    collected.add(Scan(AB, TIME, [1.5, 1]))
    [filled] = collected.drain()
    assert filled.made is None
    filled.draft.encode(EPOCH, 6)
    encoded = filled.draft.encode(EPOCH, 7)
    assert filled.made == Made(Lane("press", EPOCH), 7, encoded)


def test_nothing_in_nothing_out() -> None:
    collected = batcher()
    assert collected.drain() == []
    collected.add(Scan(AB, TIME, [], indexes=[]))
    assert collected.drain() == []


@pytest.mark.parametrize("indexes", [None, [0, 1]], ids=["full", "sparse"])
def test_qualities_and_reasons_stay_with_their_readings(indexes: list[int] | None) -> None:
    scans = [
        Scan(AB, TIME, [1.5, 1]),
        Scan(AB, TIME + 1, [None, 2], indexes, [Quality.BAD_TIMEOUT, 0], {0: "no answer"}),
        Scan(AB, TIME + 2, [None, 3], indexes, [Quality.BAD_TIMEOUT, Quality.UNCERTAIN], {0: "no answer", 1: "old"}),
        Scan(AB, TIME + 3, [2.5, 4]),
        Scan(AB, TIME + 4, [None, 5], indexes, [Quality.BAD_TIMEOUT, 0], {0: "no answer"}),
    ]
    a, b = block(AB, scans).columns
    assert list(a.quality or ()) == [0, Quality.BAD_TIMEOUT, Quality.BAD_TIMEOUT, 0, Quality.BAD_TIMEOUT]
    assert a.reasons == {1: "no answer", 4: "no answer"}  # said once for two in a row
    assert list(b.quality or ()) == [0, 0, Quality.UNCERTAIN, 0, 0]
    assert b.reasons == {2: "old"}


def test_a_device_that_is_away_costs_one_row_and_each_reason_once() -> None:
    scan = Scan.all_bad(AB, TIME, Quality.BAD_NOT_CONNECTED, "plc-1 is away")
    for column in block(AB, [scan, replace(scan, time_us=TIME + 1)]).columns:
        assert list(column.values) == [None, None]
        assert column.reasons == {0: "plc-1 is away"}


# --- in size ---------------------------------------------------------------------------------------------------------


def noise(count: int, seed: int = 1) -> list[float]:
    """Floats that no compressor makes smaller."""
    rng = random.Random(seed)
    return [struct.unpack("<d", rng.randbytes(7) + b"\x3f")[0] for _ in range(count)]


def wide(count: int) -> Group:
    """Tags whose names and units no compressor makes much smaller."""
    rng = random.Random(2)

    def text(low: int, high: int, length: int) -> str:
        return "".join(chr(rng.randrange(low, high)) for _ in range(length))

    tags = (Tag(f"{text(0x21, 0x7F, 40)}.{at}", ValueType.FLOAT64, text(0x4E00, 0x9FFF, 4)) for at in range(count))
    return Group("plc-1", "wide", 1.0, tuple(tags))


def test_a_batch_is_closed_before_it_passes_the_bound() -> None:
    collected, one = batcher(), wide(500)
    for at in range(60):
        collected.add(Scan(one, TIME + at, noise(500, at)))
        assert not collected.full or at > 9
    assert collected.full
    drained = collected.drain()
    sizes = [len(payload(f)) for f in drained]
    assert max(sizes) <= BATCH_BYTES_MAX
    assert min(sizes[:-1]) > BATCH_BYTES_MAX * 0.6
    assert sum(f.readings for f in drained) == 60 * 500
    assert not collected.full


@pytest.mark.parametrize("sparse", [False, True])
def test_a_scan_that_is_larger_than_a_batch_is_split(sparse: bool) -> None:
    """8,000 tags with names of their own: half a megabyte at once."""
    one = wide(8_000)
    values = noise(8_000)
    quality = [0] * 8_000
    quality[7] = quality[7_999] = Quality.BAD
    reasons = {7: "seven", 7_999: "last"}
    collected = batcher()
    collected.add(Scan(one, TIME, values, range(8_000) if sparse else None, quality, reasons))
    drained = collected.drain()
    assert max(len(payload(f)) for f in drained) <= BATCH_BYTES_MAX
    columns = [column for _, batch in sent(drained) for part in batch.blocks for column in part.columns]
    assert [c.name for c in columns] == [tag.name for tag in one.tags]
    assert [bits(v) for c in columns for v in c.values] == list(map(bits, values))
    assert [c.name for c in columns if c.quality] == [one.tags[7].name, one.tags[7_999].name]
    assert {c.name: dict(c.reasons) for c in columns if c.reasons} == {
        one.tags[7].name: {0: "seven"},
        one.tags[7_999].name: {0: "last"},
    }


def test_texts_and_reasons_count_in_full() -> None:
    rng = random.Random(3)
    one = Group("plc-1", "texts", 1.0, tuple(Tag(f"t{at}", ValueType.STRING) for at in range(200)))
    texts = ["".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(TEXT_MAX // 4)) for _ in one.tags]
    collected = batcher()
    collected.add(Scan(one, TIME, texts))
    bad: list[str | None] = [None] * 200
    collected.add(Scan(one, TIME + 1, bad, None, [Quality.BAD] * 200, dict(enumerate(texts))))
    drained = collected.drain()
    assert max(len(payload(f)) for f in drained) <= BATCH_BYTES_MAX
    assert sum(f.readings for f in drained) == 400


def test_one_reading_is_never_split_however_small_the_bound() -> None:
    collected = batcher(bytes_max=10)
    collected.add(Scan(AB, TIME, [1.5, 1]))
    assert [f.readings for f in collected.drain()] == [1, 1]


@pytest.mark.parametrize("sparse", [False, True])
def test_faults_that_do_not_compress_fit_too(sparse: bool) -> None:
    """Every second reading bad, each with another code: the dearest that a column can be."""
    rng = random.Random(4)
    one = Group("plc-1", "f", 1.0, tuple(Tag(f"{at}", ValueType.FLOAT64) for at in range(300)))
    collected = batcher()
    for at in range(100):
        indexes = sorted(rng.sample(range(300), 100)) if sparse else None
        count = 100 if sparse else 300
        codes = [rng.choice([0, 0x80000000 | rng.getrandbits(31)]) for _ in range(count)]
        values = [None if code else value for code, value in zip(codes, noise(count, at), strict=True)]
        collected.add(Scan(one, TIME + rng.getrandbits(40), values, indexes, codes, {}))
    for filled in collected.drain():
        size = len(payload(filled))
        assert size <= filled.bytes <= BATCH_BYTES_MAX


def test_names_are_paid_for_once_per_batch() -> None:
    collected, one = batcher(), wide(1000)
    for at in range(400):
        collected.add(Scan(one, TIME + at, [1.5], indexes=[at % 10]))
    [filled] = collected.drain()
    assert filled.bytes < 30_000


# --- whatever comes --------------------------------------------------------------------------------------------------

MANY = Group(
    "plc-1",
    "many",
    1.0,
    tuple(Tag(f"{value_type}-{at}", value_type, "°C") for at in range(3) for value_type in ValueType),
)
FITTING: dict[ValueType, st.SearchStrategy[Any]] = {
    ValueType.BOOL: st.booleans(),
    ValueType.INT: st.integers(-(2**63), 2**63 - 1),
    ValueType.UINT: st.integers(0, 2**64 - 1),
    ValueType.FLOAT32: st.floats(width=32),
    ValueType.FLOAT64: st.floats(),
    ValueType.STRING: st.text(max_size=30),
}


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    one = draw(st.sampled_from([AB, MANY, group("plc-2", s=ValueType.STRING), group("plc-3", o=ValueType.BOOL)]))
    positions = range(len(one.tags))
    indexes = draw(st.one_of(st.none(), st.lists(st.sampled_from(positions), unique=True).map(sorted)))
    held = positions if indexes is None else indexes
    codes = draw(
        st.one_of(st.none(), st.lists(st.sampled_from([0, 0, Quality.BAD]), min_size=len(held), max_size=len(held)))
    )
    values = [
        None if codes is not None and codes[n] else draw(FITTING[one.tags[at].value_type]) for n, at in enumerate(held)
    ]
    reasons = {at: draw(st.text(max_size=5)) for n, at in enumerate(held) if codes is not None and codes[n]}
    return Scan(one, draw(st.integers(0, 10**15)), values, indexes, codes, reasons)


@given(st.lists(st.one_of(scans(), st.none()), max_size=12), st.sampled_from([10, 700, 1500, BATCH_BYTES_MAX]))
@settings(max_examples=80)
def test_every_reading_exactly_once_and_in_order_per_tag(given_scans: list[Scan | None], bytes_max: int) -> None:
    """None stands for a drain."""
    collected, drained = batcher(bytes_max), []
    for scan in given_scans:
        if scan is None:
            drained += collected.drain()
        else:
            collected.add(scan)
    drained += collected.drain()
    machines = {"plc-1": "press", "plc-2": "press", "plc-3": "oven"}
    expected, found = defaultdict(list), defaultdict(list)
    for scan in given_scans:
        for reading in [] if scan is None else readings_in(scan):
            expected[reading[:2]].append(reading)
    for machine, batch in sent(drained):
        for reading in readings_of(batch):
            assert machines[reading[0]] == machine
            found[reading[:2]].append(reading)
    assert found == expected
    assert sum(f.readings for f in drained) == sum(map(len, expected.values()))
    for filled in drained:
        assert filled.readings == 1 or len(payload(filled)) <= filled.bytes <= bytes_max


class Code(IntEnum):
    """Some libraries' status codes are such."""

    TIMEOUT = Quality.BAD_TIMEOUT


class Odd:
    """What a third party's driver might give; it cannot even be written."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


MISFITS: list[tuple[ValueType, Any]] = [
    (ValueType.BOOL, 1),
    (ValueType.BOOL, "true"),
    (ValueType.INT, 1.0),
    (ValueType.INT, True),
    (ValueType.INT, 2**63),
    (ValueType.INT, 10**5000),
    (ValueType.UINT, -1),
    (ValueType.UINT, 2**64),
    (ValueType.FLOAT32, "1.5"),
    (ValueType.FLOAT32, 1e39),
    (ValueType.FLOAT32, 10**400),
    (ValueType.FLOAT64, 10**400),
    (ValueType.FLOAT64, True),
    (ValueType.FLOAT64, 1j),
    (ValueType.STRING, b"bytes"),
    (ValueType.STRING, "x" * (TEXT_MAX + 1)),
    (ValueType.STRING, "half \ud800"),
    (ValueType.STRING, Odd()),
    (ValueType.INT, [1]),
]
GOOD_ONE: dict[ValueType, Any] = {
    ValueType.BOOL: True,
    ValueType.INT: -5,
    ValueType.UINT: 5,
    ValueType.FLOAT32: 1.5,
    ValueType.FLOAT64: 2.5,
    ValueType.STRING: "ok",
}


@pytest.mark.parametrize(
    ("value_type", "value"), MISFITS, ids=lambda v: type(v).__name__ if not isinstance(v, str) else v[:9]
)
def test_what_does_not_fit_the_tags_type_becomes_bad_with_a_reason_and_spoils_nothing_else(
    value_type: ValueType, value: Any
) -> None:
    one = group(t=value_type)
    good = GOOD_ONE[value_type]
    collected = batcher()
    for at, given_value in enumerate([good, value, good]):
        collected.add(Scan(one, TIME + at, [given_value]))
    [(_, batch)] = sent(collected.drain())
    [column] = batch.blocks[0].columns
    assert list(column.values) == [good, None, good]
    assert list(column.quality or ()) == [0, Quality.BAD_TYPE_MISMATCH, 0]
    assert column.reasons == {
        1: f"the driver gave a value of type {type(value).__name__} that does not fit {value_type}",
    }


def test_whole_numbers_fit_a_float_and_odd_floats_are_floats() -> None:
    one = group(t=ValueType.FLOAT64, f=ValueType.FLOAT32)
    values = [3, math.nan, math.inf, -0.0]
    collected = batcher()
    for at, value in enumerate(values):
        collected.add(Scan(one, TIME + at, [value, value]))
    [(_, batch)] = sent(collected.drain())
    for column in batch.blocks[0].columns:
        assert column.quality is None
        assert list(map(bits, column.values)) == [bits(float(value)) for value in values]


def test_no_value_is_never_good() -> None:
    [a, b] = block(AB, [Scan(AB, TIME, [None, 1])]).columns
    assert (a.values, a.quality) == ([None], [Quality.BAD])
    assert b.quality is None
    collected = batcher()
    collected.add(Scan(AB, TIME, [None, 1]))
    collected.add(Scan(AB, TIME + 1, [None, None], None, [Quality.UNCERTAIN, Quality.BAD], {0: "old"}))
    [(_, batch)] = sent(collected.drain())
    a, b = batch.blocks[0].columns
    assert list(a.quality or ()) == [Quality.BAD, Quality.BAD]
    assert a.reasons == {0: "the driver gave no value", 1: "old"}
    assert list(b.quality or ()) == [0, Quality.BAD]


@pytest.mark.parametrize("code", [-1, 2**32, True, 1.0, None, "bad"], ids=str)
def test_what_is_no_status_code_is_bad(code: Any) -> None:
    collected = batcher()
    collected.add(Scan(AB, TIME, [1.5, 1], None, [code, Quality.UNCERTAIN], {}))
    [(_, batch)] = sent(collected.drain())
    a, b = batch.blocks[0].columns
    assert (list(a.values), list(a.quality or ())) == ([1.5], [Quality.BAD])
    assert a.reasons == {0: "the driver gave no status code"}
    assert list(b.quality or ()) == [Quality.UNCERTAIN]


def test_a_librarys_own_status_code_type_is_a_status_code() -> None:
    collected = batcher()
    collected.add(Scan(AB, TIME, [None, 1], None, [Code.TIMEOUT, 0], {0: "no answer"}))
    [(_, batch)] = sent(collected.drain())
    assert list(batch.blocks[0].columns[0].quality or ()) == [Quality.BAD_TIMEOUT]


def test_a_reason_is_cut_to_what_the_receiver_takes() -> None:
    collected = batcher()
    reasons = {0: "x" * 10_000, 1: "half \ud800 of it"}
    collected.add(Scan(AB, TIME, [None, None], None, [Quality.BAD] * 2, reasons))
    [(_, batch)] = sent(collected.drain())
    a, b = batch.blocks[0].columns
    assert a.reasons == {0: "x" * REASON_MAX}
    assert b.reasons == {0: "half ? of it"}


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=20),
    st.binary(),
    st.complex_numbers(),
)


@given(
    st.lists(
        st.tuples(st.lists(anything, min_size=2, max_size=2), st.lists(anything, min_size=2, max_size=2)), max_size=5
    )
)
@settings(max_examples=100)
def test_whatever_a_driver_gives_the_receiver_can_read_the_batch(rows: list[tuple[list[Any], list[Any]]]) -> None:
    """One that it cannot read would be sent again for ever, and hold up everything behind it."""
    collected = batcher()
    for at, (values, codes) in enumerate(rows):
        collected.add(Scan(AB, TIME + at, values, None, codes, {}))
    for _, batch in sent(collected.drain()):
        assert batch.readings() == 2 * len(rows)
        assert readings_of(decode(encode(batch))) == readings_of(batch)
