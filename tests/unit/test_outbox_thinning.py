"""Keeping every second scan, and the small reckonings of the outbox."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.outbox.bookkeeping import DROPPED_RANGES_MAX, bounded, declared, note_dropped, told
from agent.outbox.contract import Dropped
from agent.outbox.lane import blocks
from agent.outbox.thinning import every_second
from protocols.uplink import ranges
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.envelope import decode, encode
from protocols.values import ValueType

Reading = tuple[str, str, int, object, int, str]  # device, tag, time, value, quality, reason


def readings(blocks: list[Block]) -> list[Reading]:
    found: list[Reading] = []
    for block in blocks:
        for column in block.columns:
            rows = range(len(block.times_us)) if column.rows is None else column.rows
            for at, row in enumerate(rows):
                quality = column.quality[at] if column.quality else 0
                found.append(
                    (
                        block.device,
                        column.name,
                        block.times_us[row],
                        column.values[at],
                        quality,
                        column.reasons.get(at, ""),
                    )
                )
    return found


@st.composite
def batch_lists(draw: st.DrawFn) -> list[Batch]:
    """Scans of two devices, each at a time of its own, with tags and readings missing here and there."""
    batches = []
    clock = 0
    for seq in range(1, draw(st.integers(1, 6)) + 1):
        blocks = []
        for device in draw(st.sampled_from((["a"], ["b"], ["a", "b"]))):
            count = draw(st.integers(1, 4))
            times = [clock + n for n in range(1, count + 1)]
            clock += count
            columns = []
            for name in draw(st.lists(st.sampled_from("xyz"), unique=True, min_size=1)):
                rows = draw(st.one_of(st.none(), st.sets(st.integers(0, count - 1), min_size=1).map(sorted)))
                values = [clock * 10 + n for n in range(count if rows is None else len(rows))]
                quality = draw(st.one_of(st.none(), st.just([0x80000000] * len(values))))
                reasons = {0: "why"} if quality else {}
                columns.append(Column(name, ValueType.INT, values, "", rows, quality, reasons))
            blocks.append(Block(device, times, columns))
        batches.append(Batch("gw", "00", seq, blocks))
    return batches


@given(batch_lists())
@settings(max_examples=40)
def test_exactly_every_second_scan_of_each_device_is_kept_whole(batches: list[Batch]) -> None:
    before = readings([block for batch in batches for block in batch.blocks])
    after = readings(every_second(batches))
    kept_times = set()
    for device in "ab":
        times = [
            time for batch in batches for block in batch.blocks if block.device == device for time in block.times_us
        ]
        kept_times |= {(device, time) for time in times[::2]}
    assert sorted(map(str, after)) == sorted(str(one) for one in before if (one[0], one[2]) in kept_times)


@given(batch_lists())
@settings(max_examples=40)
def test_what_is_left_is_a_batch_that_can_be_sent(batches: list[Batch]) -> None:
    halved = every_second(batches)
    if halved:
        sent = decode(encode(Batch("gw", "00", 9, halved)))
        assert readings(list(sent.blocks)) == readings(halved)


def test_a_tag_that_changes_its_type_begins_a_new_block() -> None:
    batches = [
        Batch("gw", "00", 1, [Block("a", [1], [Column("x", ValueType.INT, [1])])]),
        Batch("gw", "00", 2, [Block("a", [2, 3], [Column("x", ValueType.FLOAT64, [2.0, 3.0])])]),
    ]
    assert [(block.times_us, block.columns[0].type) for block in every_second(batches)] == [
        ([1], ValueType.INT),
        ([3], ValueType.FLOAT64),
    ]


def covered(found: tuple[Dropped, ...]) -> list[int]:
    return [n for one in found for n in range(one.first, one.last + 1)]


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 8), st.sampled_from("ab"))))
def test_dropped_ranges_are_disjoint_ascending_and_complete(steps: list[tuple[int, int, str]]) -> None:
    found: tuple[Dropped, ...] = ()
    wanted: set[int] = set()
    for first, more, reason in steps:
        found = declared(found, first, first + more, reason)
        wanted |= set(range(first, first + more + 1))
        assert covered(found) == sorted(wanted)
    for through in (0, 10, 30, 100):
        assert covered(told(found, through)) == sorted(n for n in wanted if n > through)


def test_dropped_ranges_that_touch_are_one_where_the_reason_is_the_same() -> None:
    found: tuple[Dropped, ...] = ()
    for number in range(1, 1000):
        found = note_dropped(found, number, number, "full" if number < 500 else "old")
    assert found == (Dropped(1, 499, "full"), Dropped(500, 999, "old"))


@given(st.sets(st.integers(1, 900).map(lambda n: 2 * n), max_size=400), st.sets(st.integers(1, 2000), max_size=30))
def test_too_many_dropped_ranges_are_joined_but_not_over_what_waits(gone: set[int], waits: set[int]) -> None:
    waiting = ranges.of(waits - gone)
    found: tuple[Dropped, ...] = tuple(Dropped(n, n, "gone") for n in sorted(gone))
    joined = bounded(found, waiting)
    assert set(covered(joined)) >= gone
    assert not set(covered(joined)) & (waits - gone)
    assert len(joined) <= max(DROPPED_RANGES_MAX, len(waits) + 1)


@given(st.integers(1, 10**6), st.integers(0, 2000))
def test_blocks_cover_what_is_offered(first: int, more: int) -> None:
    low, high = blocks(first, first + more)
    assert 1 <= low <= first <= first + more <= high
    assert first - low < 256 > high - (first + more)
