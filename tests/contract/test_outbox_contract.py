"""The outbox contract, over every implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.outbox.contract import Draft, Encoded, GroupDefinition, Held, Outbox
from agent.outbox.disk import DiskOutbox
from agent.outbox.memory import MemoryOutbox

Make = Callable[..., Outbox]


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    made: list[Outbox] = []

    def build(limit_bytes: int = 1 << 30) -> Outbox:
        if request.param == "memory":
            made.append(MemoryOutbox(limit_bytes=limit_bytes))
        else:
            directory = tmp_path / f"outbox-{len(made)}"
            made.append(DiskOutbox(directory, limit_bytes=limit_bytes, reserve_bytes=0))
        return made[-1]

    yield build
    for outbox in made:
        outbox.close()
        outbox.close()


def draft(machine: str = "m", body: str = "x") -> Draft:
    return Draft(machine, lambda epoch, seq: Encoded(f"{machine} {epoch} {seq} {body}".encode()))


def defined(*refs: bytes, machine: str = "m") -> Draft:
    """A batch that refers to definitions; the first byte of each names its group."""
    definitions = tuple(GroupDefinition(ref, "plc", chr(ref[0]), b"message " + ref) for ref in refs)
    return Draft(machine, lambda epoch, seq: Encoded(b"x", definitions))


def test_numbers_run_from_one_per_machine_and_the_payload_knows_them(make: Make) -> None:
    outbox = make()
    assert outbox.append([draft("a"), draft("b"), draft("a")], 5) == [1, 1, 2]
    assert outbox.append([draft("b")], 6) == [2]
    assert [(s.seq, s.payload, s.appended_us) for s in outbox.pending("b", 0, 10)] == [
        (1, f"b {outbox.epoch} 1 x".encode(), 5),
        (2, f"b {outbox.epoch} 2 x".encode(), 6),
    ]
    assert [s.seq for s in outbox.pending("a", 1, 10)] == [2]
    assert [s.seq for s in outbox.pending("a", 0, 1)] == [1]
    assert outbox.pending("nobody", 0, 10) == []


def test_release_takes_from_the_low_end_and_numbers_go_on(make: Make) -> None:
    outbox = make()
    outbox.append([draft() for _ in range(5)], 1)
    assert outbox.release("m", 3) == 3
    assert outbox.release("m", 3) == 0
    assert outbox.release("nobody", 3) == 0
    assert outbox.held()["m"] == Held(4, 5)
    assert outbox.release("m", 99) == 2
    assert outbox.held()["m"] == Held(6, 5)
    assert outbox.append([draft()], 1) == [6]


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
    stats = outbox.stats()
    expected = sum(len(s.payload) for name in "ab" for s in outbox.pending(name, 0, 9))
    assert (stats.batches, stats.bytes, stats.oldest_us) == (2, expected, 10)
    outbox.release("a", 1)
    assert outbox.stats().oldest_us == 20


def test_the_oldest_go_when_the_limit_is_reached_and_that_is_recorded(make: Make) -> None:
    size = len(f"m {'0' * 16} 1 x")
    outbox = make(limit_bytes=3 * size)
    for n in range(1, 6):
        outbox.append([draft()], n)
    held = outbox.held()["m"]
    assert (held.first, held.last) == (3, 5)
    assert [(d.first, d.last, d.reason) for d in held.dropped] == [(1, 2, "outbox full")]
    assert outbox.stats().dropped == 2
    assert outbox.stats().bytes <= 3 * size
    outbox.release("m", 1)
    assert outbox.held()["m"].dropped
    outbox.release("m", 2)
    assert not outbox.held()["m"].dropped
    assert outbox.stats().dropped == 2


def test_numbers_that_are_long_gone_can_be_declared_dropped(make: Make) -> None:
    outbox = make()
    outbox.append([draft() for _ in range(9)], 1)
    outbox.release("m", 9)
    outbox.declare_dropped("m", 2, 4, "gone")
    outbox.declare_dropped("m", 1, 3, "gone again")
    outbox.declare_dropped("m", 3, 6, "gone again")
    outbox.declare_dropped("m", 2, 4, "told twice")
    assert [(d.first, d.last, d.reason) for d in outbox.held()["m"].dropped] == [
        (1, 1, "gone again"),
        (2, 4, "gone"),
        (5, 6, "gone again"),
    ]
    outbox.declare_dropped("m", 1, 9, "all of it")
    assert {n for d in outbox.held()["m"].dropped for n in range(d.first, d.last + 1)} == set(range(1, 10))
    outbox.release("m", 9)
    assert outbox.held()["m"].dropped == ()
    assert outbox.append([draft()], 2) == [10]


def test_making_room_takes_the_oldest_of_all_machines(make: Make) -> None:
    size = len(f"a {'0' * 16} 1 x")
    outbox = make(limit_bytes=2 * size)
    outbox.append([draft("a")], 1)
    outbox.append([draft("b")], 2)
    outbox.append([draft("b")], 3)
    assert outbox.held()["a"].first == 2
    assert (outbox.held()["b"].first, outbox.held()["b"].last) == (1, 2)


def test_a_definition_is_kept_while_anything_refers_to_it(make: Make) -> None:
    outbox = make()
    outbox.append([defined(b"a00001", b"b00001")], 1)
    outbox.append([defined(b"a00001", b"b00001"), defined(b"a00002", b"b00001")], 2)
    outbox.append([defined(b"a00003", b"b00001")], 3)
    assert outbox.held()["m"].refs == (b"a00001", b"b00001", b"a00002", b"a00003")
    kept = outbox.definition("m", b"a00002")
    assert kept == GroupDefinition(b"a00002", "plc", "a", b"message a00002")
    assert outbox.definition("m", b"a00009") is None
    assert outbox.definition("nobody", b"a00001") is None
    outbox.release("m", 1)
    assert outbox.held()["m"].refs == (b"a00001", b"b00001", b"a00002", b"a00003")
    outbox.release("m", 2)  # number 3 is the first that refers to a00002
    assert outbox.held()["m"].refs == (b"b00001", b"a00002", b"a00003")
    outbox.release("m", 4)
    assert outbox.held()["m"].refs == (b"b00001", b"a00003"), "the newest of each group stays"
    outbox.append([defined(b"a00001", b"b00001")], 4)  # an old one comes back
    outbox.append([defined(b"a00003", b"b00001")], 5)
    outbox.release("m", 4)
    assert set(outbox.held()["m"].refs) == {b"a00001", b"b00001", b"a00003"}
    assert outbox.definition("m", b"a00003") is not None


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
        outbox.append([draft("a"), draft("new"), Draft("a", refusing)], 2)
    assert outbox.held() == {"a": Held(1, 1)}
    assert outbox.append([draft("a"), draft("new")], 3) == [2, 1]


operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.sampled_from("ab"), min_size=1, max_size=4)),
        st.tuples(st.just("define"), st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(1, 3))),
        st.tuples(st.just("release"), st.tuples(st.sampled_from("ab"), st.integers(0, 20))),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=25,
)


@given(operations)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_disk_does_what_the_simple_model_does(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]]
) -> None:
    directory = tmp_path_factory.mktemp("model")
    limit = 8 * len(f"a {'0' * 16} 1 x")
    disk = DiskOutbox(directory, limit_bytes=limit, reserve_bytes=0)
    model = MemoryOutbox(disk.epoch, limit_bytes=limit)
    for now, (name, what) in enumerate(steps):
        match name, what:
            case "append", list(machines):
                drafts = [draft(machine) for machine in machines]
                assert disk.append(drafts, now) == model.append(drafts, now)
            case "define", (str(machine), str(group), int(number)):
                drafts = [defined(f"{group}0000{number}".encode(), machine=machine)]
                assert disk.append(drafts, now) == model.append(drafts, now)
            case "release", (str(machine), int(through)):
                assert disk.release(machine, through) == model.release(machine, through)
            case "reopen", _:
                disk.close()
                disk = DiskOutbox(directory, limit_bytes=limit, reserve_bytes=0)
        assert disk.held() == model.held()
        assert disk.stats() == model.stats()
        for machine in "ab":
            assert disk.pending(machine, 0, 100) == model.pending(machine, 0, 100)
            for ref in disk.held()[machine].refs if machine in disk.held() else ():
                assert disk.definition(machine, ref) == model.definition(machine, ref)
    disk.close()
