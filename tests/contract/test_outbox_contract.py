"""The outbox contract, over every implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.outbox.contract import (
    HIGH,
    LOW,
    NORMAL,
    Draft,
    Dropped,
    Encoded,
    Former,
    GroupDefinition,
    Held,
    Lane,
    Outbox,
)
from agent.outbox.former import OF_A_MACHINE
from agent.outbox.memory import MemoryOutbox
from tests.support.timed_outbox import TimedOutbox

Make = Callable[..., Outbox]
S = 1_000_000  # a second in microseconds


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
        outbox.close()


def draft(machine: str = "m", body: str = "x", priority: int = NORMAL, readings: int = 0) -> Draft:
    return Draft(
        machine, lambda epoch, seq: Encoded(f"{machine} {epoch} {seq} {body}".encode()), readings, priority=priority
    )


SIZE = len(f"m {'0' * 16} 1 x")


def defined(*refs: bytes, machine: str = "m") -> Draft:
    """A batch that refers to definitions; the first byte of each names its group."""
    definitions = tuple(GroupDefinition(ref, "plc", chr(ref[0]), b"message " + ref) for ref in refs)
    return Draft(machine, lambda epoch, seq: Encoded(b"x", definitions))


def lane(outbox: Outbox, machine: str = "m") -> Lane:
    """Of normal priority."""
    return Lane(machine, outbox.epoch)


def numbers(outbox: Outbox, machine: str = "m", first: int = 1, last: int = 1 << 40) -> list[int]:
    return [batch.seq for batch in outbox.pending(lane(outbox, machine), first, last, 1 << 20)]


def test_numbers_run_from_one_per_machine_and_the_payload_knows_them(make: Make) -> None:
    outbox = make()
    assert outbox.append([draft("a"), draft("b"), draft("a")], 5) == [1, 1, 2]
    assert outbox.append([draft("b")], 6) == [2]
    assert [(s.seq, s.payload, s.appended_us) for s in outbox.pending(lane(outbox, "b"), 1, 10, 10)] == [
        (1, f"b {outbox.epoch} 1 x".encode(), 5),
        (2, f"b {outbox.epoch} 2 x".encode(), 6),
    ]
    assert numbers(outbox, "a", first=2) == [2]
    assert numbers(outbox, "a", last=1) == [1]
    assert [s.seq for s in outbox.pending(lane(outbox, "a"), 1, 10, 1)] == [1]
    assert outbox.pending(lane(outbox, "nobody"), 1, 10, 10) == []
    assert outbox.pending(Lane("a", "0f" * 8), 1, 10, 10) == []


def test_each_priority_has_lanes_and_numbers_of_its_own(make: Make) -> None:
    outbox = make()
    drafts = [draft(), draft(priority=HIGH), draft(priority=LOW), draft(priority=HIGH)]
    assert outbox.append(drafts, 1) == [1, 1, 1, 2]
    held = outbox.held()
    assert {(name.machine, found.priority, found.last) for name, found in held.items()} == {
        ("m", NORMAL, 1),
        ("m", HIGH, 2),
        ("m", LOW, 1),
    }
    assert len({name.epoch for name in held}) == 3
    assert held[lane(outbox)].priority == NORMAL
    outbox.append([draft("n", priority=HIGH)], 2)
    epochs = {
        found.priority: {n.epoch for n, f in outbox.held().items() if f.priority == found.priority}
        for found in outbox.held().values()
    }
    assert all(len(found) == 1 for found in epochs.values()), "one epoch for each priority"


def test_what_is_confirmed_is_kept_for_the_grace_time_and_numbers_go_on(make: Make) -> None:
    outbox = make(grace_s=100)
    outbox.append([draft() for _ in range(5)], 1 * S)
    outbox.confirmed(lane(outbox), 3, (), 10 * S)
    outbox.confirmed(lane(outbox), 3, (), 10 * S)
    outbox.confirmed(lane(outbox, "nobody"), 3, (), 10 * S)
    assert outbox.held()[lane(outbox)] == Held(5, waiting=((4, 5),), kept=((1, 3),))
    assert numbers(outbox) == [1, 2, 3, 4, 5], "kept ones can still be read"
    outbox.tend(109 * S)
    assert outbox.held()[lane(outbox)].kept == ((1, 3),)
    outbox.confirmed(lane(outbox), 99, (), 110 * S)
    outbox.tend(116 * S)
    assert outbox.held()[lane(outbox)] == Held(5, kept=((4, 5),))
    assert numbers(outbox) == [4, 5]
    assert outbox.append([draft()], 120 * S) == [6]
    outbox.tend(300 * S)
    assert outbox.held()[lane(outbox)] == Held(6, waiting=((6, 6),))


def test_without_a_grace_time_the_confirmed_go_at_once(make: Make) -> None:
    outbox = make(grace_s=0)
    outbox.append([draft() for _ in range(5)], 1)
    outbox.confirmed(lane(outbox), 2, ((4, 4),), 2)
    assert outbox.held()[lane(outbox)] == Held(5, waiting=((3, 3), (5, 5)))
    assert numbers(outbox) == [3, 5]
    assert outbox.wanted(lane(outbox), ((1, 3),)) == ((1, 2),)


def test_confirmed_with_gaps_and_wanted_again(make: Make) -> None:
    outbox = make()
    outbox.append([draft() for _ in range(9)], 1)
    outbox.confirmed(lane(outbox), 2, ((5, 6), (8, 8), (20, 30)), 2)
    assert outbox.held()[lane(outbox)] == Held(9, waiting=((3, 4), (7, 7), (9, 9)), kept=((1, 2), (5, 6), (8, 8)))
    assert outbox.stats().batches == 4
    assert outbox.wanted(lane(outbox), ((2, 5), (9, 9))) == ()
    assert outbox.held()[lane(outbox)] == Held(9, waiting=((2, 5), (7, 7), (9, 9)), kept=((1, 1), (6, 6), (8, 8)))
    stats = outbox.stats()
    assert (stats.batches, stats.bytes, stats.kept_bytes) == (6, 6 * SIZE, 3 * SIZE)
    assert outbox.wanted(lane(outbox), ((1, 12),)) == ((10, 12),)
    assert outbox.stats().batches == 9
    assert outbox.stats().kept_bytes == 0
    assert outbox.wanted(Lane("m", "0f" * 8), ((1, 2),)) == ((1, 2),)


def test_sessions_only_rise(make: Make) -> None:
    outbox = make()
    sessions = [outbox.next_session() for _ in range(5)]
    assert sessions == sorted(set(sessions))


def test_stats(make: Make) -> None:
    outbox = make()
    empty = outbox.stats()
    assert (empty.batches, empty.bytes, empty.oldest_us, empty.dropped) == (0, 0, None, 0)
    outbox.append([draft("a")], 10)
    outbox.append([draft("b", "longer")], 20)
    outbox.append([draft("a")], 30)
    stats = outbox.stats()
    payloads = [s.payload for name in "ab" for s in outbox.pending(lane(outbox, name), 1, 9, 9)]
    assert (stats.batches, stats.bytes, stats.oldest_us) == (3, sum(map(len, payloads)), 10)
    outbox.confirmed(lane(outbox, "a"), 1, (), 40)
    assert outbox.stats().oldest_us == 20
    outbox.confirmed(lane(outbox, "b"), 1, (), 40)
    assert outbox.stats().oldest_us == 30


def test_the_oldest_go_when_the_limit_is_reached_and_that_is_recorded(make: Make) -> None:
    outbox = make(limit_bytes=3 * SIZE)
    for n in range(1, 6):
        outbox.append([draft(readings=7)], n)
    held = outbox.held()[lane(outbox)]
    assert (held.waiting, held.last) == (((3, 5),), 5)
    assert held.dropped == (Dropped(1, 2, "outbox full"),)
    stats = outbox.stats()
    assert (stats.dropped, stats.dropped_readings, stats.bytes, stats.oldest_us) == (2, 14, 3 * SIZE, 3)
    outbox.confirmed(lane(outbox), 1, (), 6)
    assert outbox.held()[lane(outbox)].dropped == (Dropped(2, 2, "outbox full"),)
    outbox.confirmed(lane(outbox), 2, (), 6)
    assert outbox.held()[lane(outbox)].dropped == ()
    assert outbox.stats().dropped == 2


def test_kept_batches_make_room_first_the_oldest_of_them_before_the_others(make: Make) -> None:
    outbox = make(limit_bytes=4 * SIZE, grace_s=2400)
    outbox.append([draft("a"), draft("a"), draft("b"), draft("b")], 1 * S)
    outbox.confirmed(lane(outbox, "b"), 1, (), 1000 * S)
    outbox.confirmed(lane(outbox, "a"), 1, (), 2000 * S)
    outbox.append([draft("c")], 2001 * S)
    assert outbox.held()[lane(outbox, "b")] == Held(2, waiting=((2, 2),))
    assert outbox.held()[lane(outbox, "a")] == Held(2, waiting=((2, 2),), kept=((1, 1),))
    outbox.append([draft("c")], 2002 * S)
    assert outbox.held()[lane(outbox, "a")] == Held(2, waiting=((2, 2),))
    outbox.append([draft("c")], 2003 * S)
    assert [outbox.held()[lane(outbox, name)].dropped for name in "abc"] == [(Dropped(2, 2, "outbox full"),), (), ()]


def test_the_lowest_priority_makes_room_first_even_where_it_is_newer(make: Make) -> None:
    outbox = make(limit_bytes=3 * SIZE)
    outbox.append([draft(priority=HIGH)], 1)
    outbox.append([draft(priority=NORMAL)], 2)
    outbox.append([draft(priority=LOW)], 3)
    outbox.append([draft(priority=HIGH)], 4)

    def state() -> dict[int, tuple[Any, Any]]:
        return {found.priority: (found.waiting, len(found.dropped)) for found in outbox.held().values()}

    assert state() == {HIGH: (((1, 2),), 0), NORMAL: (((1, 1),), 0), LOW: ((), 1)}
    outbox.append([draft(priority=HIGH)], 5)
    assert state() == {HIGH: (((1, 3),), 0), NORMAL: ((), 1), LOW: ((), 1)}
    assert outbox.append([draft(priority=LOW)], 6) == [2], "numbered, and given up at once"
    assert state() == {HIGH: (((1, 3),), 0), NORMAL: ((), 1), LOW: ((), 1)}
    outbox.append([draft(priority=HIGH)], 7)
    assert state() == {HIGH: (((2, 4),), 1), NORMAL: ((), 1), LOW: ((), 1)}


def test_making_room_takes_the_oldest_of_all_machines(make: Make) -> None:
    outbox = make(limit_bytes=2 * SIZE)
    outbox.append([draft("a")], 1)
    outbox.append([draft("b")], 2)
    outbox.append([draft("b")], 3)
    assert outbox.held()[lane(outbox, "a")].waiting == ()
    assert outbox.held()[lane(outbox, "b")].waiting == ((1, 2),)


def test_what_waits_too_long_is_dropped(make: Make) -> None:
    outbox = make(age_max_s=10)
    for second in range(1, 6):
        outbox.append([draft(readings=3), draft("n")], second * S)
    outbox.confirmed(lane(outbox, "n"), 1, (), 5 * S)
    outbox.tend(12 * S)
    assert outbox.held()[lane(outbox)] == Held(5, waiting=((2, 5),), dropped=(Dropped(1, 1, "too old"),))
    outbox.tend(14 * S)
    assert outbox.held()[lane(outbox)] == Held(5, waiting=((4, 5),), dropped=(Dropped(1, 3, "too old"),))
    assert outbox.held()[lane(outbox, "n")].kept == ((1, 1),), "kept ones have a time of their own"
    assert outbox.stats().dropped == 5
    assert outbox.stats().dropped_readings == 9
    outbox.tend(100 * S)
    assert outbox.stats().batches == 0
    assert outbox.append([draft()], 101 * S) == [6]


def test_numbers_that_are_long_gone_can_be_declared_dropped(make: Make) -> None:
    outbox = make(grace_s=0)
    outbox.append([draft() for _ in range(9)], 1)
    outbox.confirmed(lane(outbox), 9, (), 1)
    outbox.declare_dropped(lane(outbox), 2, 4, "gone")
    outbox.declare_dropped(lane(outbox), 1, 3, "gone again")
    outbox.declare_dropped(lane(outbox), 3, 6, "gone again")
    outbox.declare_dropped(lane(outbox), 2, 4, "told twice")
    assert outbox.held()[lane(outbox)].dropped == (
        Dropped(1, 1, "gone again"),
        Dropped(2, 4, "gone"),
        Dropped(5, 6, "gone again"),
    )
    assert outbox.wanted(lane(outbox), ((3, 8),)) == ((7, 8),)
    outbox.declare_dropped(lane(outbox), 1, 9, "all of it")
    assert {n for d in outbox.held()[lane(outbox)].dropped for n in range(d.first, d.last + 1)} == set(range(1, 10))
    outbox.confirmed(lane(outbox), 9, (), 2)
    assert outbox.held()[lane(outbox)].dropped == ()
    assert outbox.append([draft()], 2) == [10]


def test_what_is_here_is_never_declared_dropped(make: Make) -> None:
    outbox = make()
    outbox.append([draft() for _ in range(6)], 1)
    outbox.confirmed(lane(outbox), 1, ((4, 4),), 2)
    outbox.declare_dropped(lane(outbox), 1, 6, "not true")
    assert outbox.held()[lane(outbox)] == Held(6, waiting=((2, 3), (5, 6)), kept=((1, 1), (4, 4)))


def test_numbers_declared_ahead_are_not_given_any_more(make: Make) -> None:
    outbox = make()
    outbox.append([draft()], 1)
    outbox.declare_dropped(lane(outbox), 2, 5, "given before a snapshot was restored")
    assert outbox.append([draft()], 2) == [6]
    other = Lane("m", "0f" * 8)
    outbox.declare_dropped(other, 3, 4, "of an outbox long gone")
    assert outbox.held()[other] == Held(4, dropped=(Dropped(3, 4, "of an outbox long gone"),))
    outbox.confirmed(other, 4, (), 3)
    assert other not in outbox.held()


def test_an_empty_lane_of_an_earlier_epoch_is_remembered_and_may_be_declared(make: Make) -> None:
    outbox = make(grace_s=0)
    outbox.append([draft(), draft()], 1)
    old = lane(outbox)
    assert outbox.former(old) is None, "it is the present one"
    outbox.confirmed(old, 2, (), 2)
    outbox.fork("a test")
    outbox.tend(3)
    assert old not in outbox.held()
    assert outbox.former(old) == Former(2, is_damaged=False)
    assert outbox.former(Lane("m", "0f" * 8)) is None
    assert outbox.wanted(old, ((1, 2),)) == ((1, 2),)
    outbox.declare_dropped(old, 1, 2, "gone")
    assert outbox.held()[old] == Held(2, dropped=(Dropped(1, 2, "gone"),))
    outbox.confirmed(old, 2, (), 4)
    outbox.tend(5)
    assert old not in outbox.held()
    assert outbox.former(old) == Former(2, is_damaged=False)


def test_of_the_lanes_that_are_over_the_newest_are_remembered(make: Make) -> None:
    outbox, lanes = make(grace_s=0), []
    for at in range(OF_A_MACHINE + 3):
        outbox.append([draft()], at)
        lanes.append(lane(outbox))
        outbox.confirmed(lanes[-1], 1, (), at)
        outbox.fork("a test")
        outbox.tend(at)
    remembered = [one for one in lanes if outbox.former(one)]
    assert remembered == lanes[3:]
    assert list(outbox.formers().items()) == [(one, 1) for one in reversed(remembered)]


def test_former_lanes_that_hold_something_or_gave_nothing_are_not_among_those_to_ask_for(make: Make) -> None:
    outbox = make(grace_s=0)
    outbox.append([draft(), draft("idle")], 1)
    waiting, told = lane(outbox), lane(outbox, "idle")
    outbox.confirmed(told, 1, (), 2)
    assert outbox.formers() == {}
    outbox.fork("a test")
    assert outbox.formers() == {told: 1}
    outbox.confirmed(waiting, 1, (), 3)
    outbox.tend(4)
    assert outbox.formers() == {told: 1, waiting: 1}


def test_dropped_ranges_stay_few_and_never_cover_what_still_waits(make: Make) -> None:
    outbox = make(grace_s=0)
    outbox.append([draft() for _ in range(450)], 1)
    outbox.confirmed(lane(outbox), 199, ((201, 449),), 2)
    for number in range(2, 450, 2):
        outbox.declare_dropped(lane(outbox), number, number, "gone")
    held = outbox.held()[lane(outbox)]
    assert held.waiting == ((200, 200), (450, 450))
    assert len(held.dropped) <= 200
    covered = {n for one in held.dropped for n in range(one.first, one.last + 1)}
    assert covered >= set(range(2, 450, 2)) - {200}
    assert 200 not in covered


def test_a_definition_is_kept_while_anything_refers_to_it(make: Make) -> None:
    outbox = make(grace_s=0)
    outbox.append([defined(b"a00001", b"b00001")], 1)
    outbox.append([defined(b"a00001", b"b00001"), defined(b"a00002", b"b00001")], 2)
    outbox.append([defined(b"a00003", b"b00001")], 3)
    assert outbox.held()[lane(outbox)].refs == (b"a00001", b"b00001", b"a00002", b"a00003")
    kept = outbox.definition(lane(outbox), b"a00002")
    assert kept == GroupDefinition(b"a00002", "plc", "a", b"message a00002")
    assert outbox.definition(lane(outbox), b"a00009") is None
    assert outbox.definition(lane(outbox, "nobody"), b"a00001") is None
    outbox.confirmed(lane(outbox), 1, (), 4)
    assert outbox.held()[lane(outbox)].refs == (b"a00001", b"b00001", b"a00002", b"a00003")
    outbox.confirmed(lane(outbox), 2, (), 4)  # number 3 is the first that refers to a00002
    assert outbox.held()[lane(outbox)].refs == (b"b00001", b"a00002", b"a00003")
    outbox.confirmed(lane(outbox), 4, (), 4)
    assert outbox.held()[lane(outbox)].refs == (b"b00001", b"a00003"), "the newest of each group stays"
    outbox.append([defined(b"a00001", b"b00001")], 4)  # an old one comes back
    outbox.append([defined(b"a00003", b"b00001")], 5)
    outbox.confirmed(lane(outbox), 4, (), 4)
    assert set(outbox.held()[lane(outbox)].refs) == {b"a00001", b"b00001", b"a00003"}
    assert outbox.definition(lane(outbox), b"a00003") is not None


def test_a_definition_is_kept_for_kept_batches_too(make: Make) -> None:
    outbox = make(grace_s=100)
    outbox.append([defined(b"a00001"), defined(b"a00002")], 1)
    outbox.confirmed(lane(outbox), 2, (), 1 * S)
    assert outbox.wanted(lane(outbox), ((1, 1),)) == ()
    assert outbox.held()[lane(outbox)].refs == (b"a00001", b"a00002")
    outbox.confirmed(lane(outbox), 2, (), 1 * S)
    outbox.tend(200 * S)
    assert outbox.held()[lane(outbox)].refs == (b"a00002",)


class Refused(Exception):
    pass


def refusing(_epoch: str, _seq: int) -> Encoded:
    raise Refused


def test_a_draft_that_fails_leaves_nothing_of_its_group(make: Make) -> None:
    outbox = make()
    if isinstance(outbox, MemoryOutbox):
        return  # all or nothing is durability's business
    outbox.append([draft("a")], 1)
    with pytest.raises(Refused):
        outbox.append([draft("a"), draft("new"), draft("a", priority=LOW), Draft("a", refusing)], 2)
    assert outbox.held() == {lane(outbox, "a"): Held(1, waiting=((1, 1),))}
    assert outbox.append([draft("a"), draft("new")], 3) == [2, 1]
    assert numbers(outbox, "a") == [1, 2]


def test_what_was_offered_is_known(make: Make) -> None:
    outbox = make()
    outbox.append([draft() for _ in range(600)], 1)
    outbox.offer(lane(outbox), 3, 5)
    outbox.offer(lane(outbox), 500, 500)
    outbox.offer(lane(outbox), 6, 6)
    outbox.offer(lane(outbox, "nobody"), 1, 1)
    assert outbox.held()[lane(outbox)].offered == ((3, 6), (500, 500))


def test_numbers_can_be_offered_ahead(make: Make) -> None:
    outbox = make()
    outbox.append([draft()], 1)
    outbox.offer(lane(outbox), 1, 3)
    outbox.append([draft() for _ in range(4)], 2)
    assert outbox.held()[lane(outbox)].offered == ((1, 3),)


def test_a_batch_that_can_never_be_sent_is_given_up(make: Make) -> None:
    outbox = make()
    outbox.append([draft(readings=4) for _ in range(3)], 1)
    outbox.confirmed(lane(outbox), 1, (), 2)
    for number in (2, 2, 1, 9):
        outbox.give_up(lane(outbox), number, "too large")
    outbox.give_up(lane(outbox, "nobody"), 1, "too large")
    held = outbox.held()[lane(outbox)]
    assert held == Held(3, waiting=((3, 3),), kept=((1, 1),), dropped=(Dropped(2, 2, "too large"),))
    assert numbers(outbox) == [1, 3]
    stats = outbox.stats()
    assert (stats.batches, stats.bytes, stats.dropped, stats.dropped_readings) == (1, SIZE, 1, 4)
