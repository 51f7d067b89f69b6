"""Wide groups: however many and however long the names, every definition fits any broker, and no reading is lost."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.batcher import BATCH_BYTES_MAX, Batcher
from agent.definitions import Book, references
from agent.outbox.contract import Encoded
from agent.parts import PART_BYTES_MAX, Part, cut, parts
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink import definition
from protocols.uplink.envelope import decode
from protocols.uplink.topics import is_name
from protocols.values import Quality, ValueType

EPOCH = "0011223344556677"
BROKER_BYTES = 100_000
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"


def wide(count: int, length: int, name: str = "main") -> Group:
    """Names that no compressor makes much smaller."""
    rng = random.Random(count)
    tags = (Tag("".join(rng.choices(LETTERS, k=length - 6)) + f"-{at:05}", ValueType.INT) for at in range(count))
    return Group("plc-1", name, 1.0, tuple(tags))


Reading = tuple[str, int, object, int]
"""Tag, time, value, quality."""


class Receiver:
    """Decodes what a book makes, with the definitions that came with it."""

    def __init__(self) -> None:
        self.known: dict[bytes, definition.Definition] = {}
        self.topics: dict[str, set[bytes]] = {}
        self.sizes: list[int] = []

    def take(self, encoded: Encoded) -> list[Reading]:
        for one in encoded.definitions:
            if one.ref in self.known:
                continue
            assert definition.ref(one.message) == one.ref
            self.known[one.ref] = definition.decode(one.message)
            assert (self.known[one.ref].device, self.known[one.ref].group) == (one.device, one.group)
            self.topics.setdefault(one.group, set()).add(one.ref)
            self.sizes.append(len(one.message))
        assert set(references(encoded.payload)) == {one.ref for one in encoded.definitions}
        found: list[Reading] = []
        for block in decode(encoded.payload, self.known.get).blocks:
            for column in block.columns:
                rows = range(len(block.times_us)) if column.rows is None else column.rows
                quality = column.quality or [0] * len(column.values)
                found += [
                    (column.name, block.times_us[row], value, code)
                    for row, value, code in zip(rows, column.values, quality, strict=True)
                ]
        return found


def test_a_group_that_fits_is_left_whole() -> None:
    group = wide(500, 40)
    [part] = parts(group, set())
    assert part.group is group


@pytest.mark.parametrize(("count", "length"), [(20_000, 128), (5_000, 12), (700, 128)])
def test_twenty_thousand_long_names_make_definitions_that_every_broker_takes(count: int, length: int) -> None:
    group = wide(count, length)
    batcher, receiver = Batcher(Book("gw-1", [group]), {"plc-1": "press"}), Receiver()
    values = list(range(count))
    batcher.add(Scan(group, 10**6, values))
    drained = batcher.drain()
    found: list[Reading] = []
    for seq, filled in enumerate(drained, 1):
        encoded = filled.draft.encode(EPOCH, seq)
        assert len(encoded.payload) <= BATCH_BYTES_MAX
        found += receiver.take(encoded)
    assert max(receiver.sizes) < BROKER_BYTES
    assert found == [(tag.name, 10**6, value, 0) for tag, value in zip(group.tags, values, strict=True)]
    assert all(len(refs) == 1 for refs in receiver.topics.values()), "the broker keeps one for each topic"
    assert all(map(is_name, receiver.topics))


def test_parts_never_take_another_groups_name() -> None:
    big, other = wide(3_000, 60), Group("plc-1", "main-2", 1.0, (Tag("t", ValueType.INT),))
    made = parts(big, {"main", "main-2"})
    assert len(made) > 2
    names = [part.group.name for part in made]
    assert names[0] == "main"
    assert other.name not in names
    assert len(set(names)) == len(names)
    long = parts(wide(3_000, 60, "a" * 64), {"a" * 64})
    assert all(is_name(part.group.name) for part in long)


def test_parts_are_of_about_one_size_and_hold_every_tag_once() -> None:
    group = wide(5_000, 60)
    made = parts(group, set())
    assert [part.first for part in made[1:]] == [part.end for part in made[:-1]]
    assert [tag for part in made for tag in part.group.tags] == list(group.tags)
    sizes = [part.end - part.first for part in made]
    assert max(sizes) - min(sizes) < 20


SMALL = 40


@st.composite
def scans(draw: st.DrawFn, group: Group) -> Scan:
    indexes = draw(st.none() | st.lists(st.integers(0, SMALL - 1), unique=True).map(sorted))
    held: Sequence[int] = range(SMALL) if indexes is None else indexes
    quality = draw(st.none() | st.lists(st.sampled_from([0, Quality.BAD]), min_size=len(held), max_size=len(held)))
    values = [None if quality and quality[at] else number for at, number in enumerate(held)]
    reasons = {index: f"why {index}" for at, index in enumerate(held) if quality and quality[at]}
    return Scan(group, draw(st.integers(1, 10)) * 10**6, values, indexes, quality, reasons)


GROUP = wide(SMALL, 100)


def readings(scan: Scan, first: int = 0) -> list[tuple[int, int, object, int, str]]:
    """(position in the whole group, time, value, quality, reason) of each; `first`: the position of its first tag."""
    indexes = range(len(scan.values)) if scan.indexes is None else scan.indexes
    quality = [0] * len(scan.values) if scan.quality is None else scan.quality
    return [
        (first + index, scan.time_us, value, code, scan.reasons.get(index, ""))
        for index, value, code in zip(indexes, scan.values, quality, strict=True)
    ]


@given(st.lists(scans(GROUP), min_size=1, max_size=4))
@settings(max_examples=50)
def test_what_is_cut_is_all_there(given_scans: list[Scan]) -> None:
    made = [Part(GROUP, 0, 13), Part(GROUP, 13, 14), Part(GROUP, 14, SMALL)]
    found = [one for part in made for scan in cut(part, given_scans) for one in readings(scan, part.first)]
    expected = [one for scan in given_scans for one in readings(scan)]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_the_bound_leaves_room_for_what_the_estimate_does_not_know() -> None:
    assert PART_BYTES_MAX <= 0.9 * BROKER_BYTES
