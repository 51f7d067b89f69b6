"""Batches written anew: at a fork, and thinned out. No reading is ever stored twice, and none is lost untold."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.definitions import Book
from agent.outbox.contract import HIGH, NORMAL, Draft, Encoded, Lane, Outbox
from agent.outbox.memory import MemoryOutbox
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink import definition as definitions
from protocols.uplink import ranges
from protocols.uplink.definition import Definition
from protocols.uplink.envelope import decode
from protocols.uplink.mark import ClockMark, read
from protocols.values import ValueType
from tests.support.timed_outbox import TimedOutbox

Make = Callable[..., Outbox]
S = 1_000_000
GROUP = Group("plc", "main", 1.0, tuple(Tag(f"tag_{n}", ValueType.INT) for n in range(20)))


class Plant:
    """Readings that can be told apart: the scan of second n holds n in every tag."""

    def __init__(self) -> None:
        self.book = Book("gw-1")
        self.seconds = 0

    def draft(self, scans: int = 1, priority: int = NORMAL, mark: bytes = b"") -> Draft:
        taken = []
        for _ in range(scans):
            self.seconds += 1
            taken.append(Scan(GROUP, self.seconds * S, [self.seconds] * 20))

        def encode(epoch: str, seq: int) -> Encoded:
            made = self.book.encode(epoch, seq, [taken])
            return replace(made, payload=mark + made.payload)

        return Draft("press", encode, 20 * scans, priority=priority)


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    made: list[Outbox] = []

    def build(**options: Any) -> Outbox:
        if request.param == "memory":
            made.append(MemoryOutbox(**options))
        else:
            made.append(TimedOutbox(tmp_path / f"outbox-{len(made)}", reserve_bytes=0, **options))
        return made[-1]

    yield build
    for outbox in made:
        outbox.close()


def scans(outbox: Outbox, lane: Lane, first: int = 1, last: int = 1 << 40) -> list[int]:
    """The seconds of the scans that the lane's batches hold, in their order; each must be whole and say its number."""

    def lookup(ref: bytes) -> Definition | None:
        found = outbox.definition(lane, ref)
        return None if found is None else definitions.decode(found.message)

    seconds: list[int] = []
    for stored in outbox.pending(lane, first, last, 1 << 20):
        batch = decode(read(stored.payload).message, lookup)
        assert (batch.seq, batch.epoch, batch.gateway) == (stored.seq, lane.epoch, "gw-1")
        for block in batch.blocks:
            taken = [time_us // S for time_us in block.times_us]
            assert [(c.name, list(c.values)) for c in block.columns] == [(f"tag_{n}", taken) for n in range(20)]
            seconds += taken
    return seconds


# --- a fork -----------------------------------------------------------------------------------------------------------


def test_a_fork_moves_what_was_never_offered_and_leaves_the_rest(make: Make) -> None:
    outbox, plant = make(), Plant()
    old = Lane("press", outbox.epoch)
    outbox.append([plant.draft() for _ in range(10)], 1)
    outbox.offer(old, 1, 3)
    outbox.offer(old, 6, 6)
    outbox.confirmed(old, 1, (), 2)
    outbox.append([plant.draft(2, HIGH)], 3)
    [high] = [name for name, held in outbox.held().items() if held.priority == HIGH]
    outbox.fork("the receiver knows numbers that were never given here")
    assert outbox.epoch != old.epoch
    assert "never given here" in outbox.news[-1]
    new = Lane("press", outbox.epoch)
    held = outbox.held()
    assert held[old].waiting == ((2, 3), (6, 6))
    assert held[old].kept == ((1, 1),)
    moved = f"numbered anew in epoch {outbox.epoch}"
    assert [(d.first, d.last, d.reason) for d in held[old].dropped] == [(4, 5, moved), (7, 10, moved)]
    assert (held[new].waiting, held[new].last) == (((1, 6),), 6)
    assert scans(outbox, old) == [1, 2, 3, 6]
    assert scans(outbox, new) == [4, 5, 7, 8, 9, 10]
    [new_high] = [name for name, found in held.items() if found.priority == HIGH and name != high]
    assert scans(outbox, new_high) == [11, 12]
    assert new_high.epoch != new.epoch
    stats = outbox.stats()
    assert (stats.batches, stats.dropped, stats.dropped_readings) == (10, 0, 0), "moved is not lost"
    assert outbox.append([plant.draft()], 4) == [7]
    outbox.confirmed(old, 10, (), 5)
    outbox.tend(200_000 * S)
    assert old not in outbox.held()


MARKS = [ClockMark(bytes(16), zero_us) for zero_us in (0, 1)]


def marks(outbox: Outbox, lane: Lane) -> list[tuple[ClockMark | None, list[int]]]:
    """Of each batch the clock's mark, and the seconds that it holds."""
    return [
        (read(one.payload).clock, scans(outbox, lane, one.seq, one.seq)) for one in outbox.pending(lane, 1, 999, 999)
    ]


def test_the_marks_of_clocks_move_with_their_batches_at_a_fork(make: Make) -> None:
    outbox, plant = make(), Plant()
    outbox.append([plant.draft(mark=MARKS[0].encode()), plant.draft(), plant.draft(mark=MARKS[1].encode())], 1)
    outbox.fork("told to")
    assert marks(outbox, Lane("press", outbox.epoch)) == [(MARKS[0], [1]), (None, [2]), (MARKS[1], [3])]


def test_batches_by_different_clocks_are_never_thinned_into_one(make: Make) -> None:
    outbox, plant = make(limit_bytes=12_000, thin_out=True), Plant()
    by_clock: dict[int, ClockMark | None] = {}
    for at in range(300):
        mark = (MARKS[0], MARKS[1], None)[at // 30 % 3]
        outbox.append([plant.draft(10, mark=b"" if mark is None else mark.encode())], at)
        by_clock |= dict.fromkeys(range(plant.seconds - 9, plant.seconds + 1), mark)
    found = marks(outbox, Lane("press", outbox.epoch))
    assert any(len(seconds) > 1 and seconds[1] - seconds[0] > 1 for _, seconds in found), "something was thinned out"
    for mark, seconds in found:
        assert {by_clock[second] for second in seconds} == {mark}


def test_what_was_appended_before_the_opening_keeps_its_number_at_a_fork(tmp_path: Path) -> None:
    plant = Plant()
    outbox = TimedOutbox(tmp_path, reserve_bytes=0)
    old = Lane("press", outbox.epoch)
    outbox.append([plant.draft() for _ in range(3)], 1)
    outbox.close()
    outbox = TimedOutbox(tmp_path, reserve_bytes=0)
    outbox.append([plant.draft() for _ in range(3)], 2)
    outbox.offer(old, 4, 4)
    outbox.fork("told to")
    assert scans(outbox, old) == [1, 2, 3, 4]
    assert scans(outbox, Lane("press", outbox.epoch)) == [5, 6]
    epoch = outbox.epoch
    outbox.close()
    outbox = TimedOutbox(tmp_path, reserve_bytes=0)
    assert outbox.epoch == epoch
    assert scans(outbox, old) == [1, 2, 3, 4]
    assert scans(outbox, Lane("press", outbox.epoch)) == [5, 6]
    outbox.close()


def test_a_virtual_machine_put_back_to_a_snapshot_stores_everything_once(tmp_path: Path) -> None:
    """The receiver has numbers of a future that did not happen; what is new gets numbers that it does not know."""
    plant = Plant()
    outbox = TimedOutbox(tmp_path / "vm", reserve_bytes=0)
    old = Lane("press", outbox.epoch)
    outbox.append([plant.draft() for _ in range(4)], 1)
    outbox.close()
    marker = tmp_path / "vm" / "life"
    marker.with_name("kept").hardlink_to(marker)
    snapshot = {path: path.read_bytes() for path in (tmp_path / "vm").rglob("*") if path.is_file()}
    stored: dict[tuple[Lane, int], list[int]] = {}

    def deliver(lane: Lane, first: int, last: int) -> None:
        outbox.offer(lane, first, last)
        for number in range(first, last + 1):
            stored.setdefault((lane, number), scans(outbox, lane, number, number))

    outbox = TimedOutbox(tmp_path / "vm", reserve_bytes=0)
    outbox.append([plant.draft() for _ in range(4)], 2)  # the future that did not happen for the gateway
    deliver(old, 1, 7)
    outbox.close()
    for path, content in snapshot.items():
        with path.open("r+b") as file:  # in place, as a snapshot does: the same inodes
            file.truncate()
            file.write(content)
    marker.with_name("kept").replace(marker)
    outbox = TimedOutbox(tmp_path / "vm", reserve_bytes=0)
    assert outbox.news == (), "nothing here shows what happened"
    outbox.append([plant.draft() for _ in range(5)], 3)
    for number in range(1, 5):
        deliver(old, number, number)  # of before the snapshot: known already
    assert outbox.held()[old].last == 9
    outbox.fork("the receiver knows number 7")  # it was told 7 before 5 was offered
    new = Lane("press", outbox.epoch)
    for lane in (old, new):
        for first, last in outbox.held()[lane].waiting:
            deliver(lane, first, last)
    everything = Counter(second for taken in stored.values() for second in taken)
    assert everything == Counter(dict.fromkeys([*range(1, 8), *range(9, 14)], 1))
    outbox.close()


# --- thinning out -----------------------------------------------------------------------------------------------------


def test_when_full_every_second_scan_of_the_oldest_never_offered_is_kept(make: Make) -> None:
    outbox, plant = make(limit_bytes=6_000, thin_out=True), Plant()
    lane = Lane("press", outbox.epoch)
    outbox.append([plant.draft() for _ in range(50)], 1)
    outbox.offer(lane, 1, 10)
    while not outbox.held()[lane].dropped:
        outbox.append([plant.draft()], 100)
    held = outbox.held()[lane]
    [dropped] = held.dropped
    assert dropped.reason == "thinned out: every second scan kept"
    assert dropped.first == 11, "what was offered is left alone"
    assert held.last == plant.seconds + 1, "one new batch holds what is left of them"
    assert scans(outbox, lane, held.last, held.last) == list(range(11, dropped.last + 1, 2))
    assert scans(outbox, lane, 1, held.last - 1) == [*range(1, 11), *range(dropped.last + 1, plant.seconds + 1)]
    stats = outbox.stats()
    gone = dropped.last - 10
    assert (stats.dropped, stats.dropped_readings) == (gone, 20 * (gone // 2))
    assert stats.oldest_us == 1
    assert stats.bytes <= 6_000


def test_a_long_outage_is_thinned_out_evenly_and_again_and_nothing_is_there_twice(make: Make) -> None:
    outbox, plant = make(limit_bytes=30_000, thin_out=True), Plant()
    lane = Lane("press", outbox.epoch)
    for _ in range(100):
        outbox.append([plant.draft() for _ in range(20)], plant.seconds)
    found = scans(outbox, lane)
    assert len(set(found)) == len(found)
    assert min(found) <= 16, "the beginning is there still"
    assert plant.seconds in found
    gaps = [b - a for a, b in zip(sorted(found), sorted(found)[1:], strict=False)]
    assert max(gaps) <= 16, "no part of the outage is missing"
    held = outbox.held()[lane]
    assert len(held.dropped) <= 5
    gone = ranges.of(n for d in held.dropped for n in range(d.first, d.last + 1))
    assert ranges.union(gone, held.waiting) == ((1, held.last),), "each number waits or is declared"
    assert outbox.stats().bytes <= 30_000
    assert outbox.stats().dropped_readings == 20 * (2000 - len(found))


def test_what_cannot_be_thinned_out_is_dropped(make: Make) -> None:
    outbox, plant = make(limit_bytes=3_000, thin_out=True), Plant()
    lane = Lane("press", outbox.epoch)
    for _ in range(100):
        outbox.append([plant.draft()], plant.seconds)
        outbox.offer(lane, outbox.held()[lane].last, outbox.held()[lane].last)
    held = outbox.held()[lane]
    [dropped] = held.dropped
    assert dropped.reason == "outbox full"
    assert scans(outbox, lane) == list(range(dropped.last + 1, 101))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 30), st.integers(1, 3)),
        st.tuples(st.just("send"), st.integers(1, 40), st.booleans()),
        st.tuples(st.just("reopen"), st.booleans(), st.booleans()),
        st.tuples(st.just("fork"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@given(steps, st.booleans())
@settings(max_examples=15)
def test_no_reading_is_stored_twice_whatever_happens(steps: list[tuple[str, Any, Any]], newest_first: bool) -> None:
    """`stored`: what a receiver has by lane and number; it stores each number once."""
    directory = Path(tempfile.mkdtemp(prefix="holdfast-thin-"))
    outbox, plant = TimedOutbox(directory, limit_bytes=6_000, thin_out=True, reserve_bytes=0), Plant()
    stored: dict[tuple[Lane, int], list[int]] = {}
    declared: dict[Lane, ranges.Ranges] = {}

    def send(count: int) -> None:
        for lane, held in outbox.held().items():
            numbers = [n for first, last in held.waiting for n in range(first, last + 1)]
            for number in numbers[-count:] if newest_first else numbers[:count]:
                outbox.offer(lane, number, number)
                stored.setdefault((lane, number), scans(outbox, lane, number, number))

    def hear() -> None:
        for lane, held in outbox.held().items():
            told = ranges.of(n for d in held.dropped for n in range(d.first, d.last + 1))
            declared[lane] = ranges.union(declared.get(lane, ()), told)

    for what, one, other in steps:
        if what == "append":
            outbox.append([plant.draft(other) for _ in range(one)], plant.seconds)
        elif what == "send":
            send(one)
            hear()
            if other:
                for lane in outbox.held():
                    got = ranges.of(number for name, number in stored if name == lane)
                    known = ranges.union(got, declared.get(lane, ()))
                    outbox.confirmed(lane, ranges.through(known), got, plant.seconds * S)
        elif what == "fork":
            outbox.fork("told to")
        else:
            outbox.close()
            outbox = TimedOutbox(directory, limit_bytes=6_000, thin_out=True, reserve_bytes=0)
    send(1 << 20)
    hear()
    everything = Counter(second for taken in stored.values() for second in taken)
    assert max(everything.values(), default=1) == 1
    for lane, held in outbox.held().items():
        got = ranges.of(number for name, number in stored if name == lane)
        assert ranges.missing(ranges.union(got, declared.get(lane, ())), held.last) == (), (
            "no number is unaccounted for"
        )
    outbox.close()
    shutil.rmtree(directory)
