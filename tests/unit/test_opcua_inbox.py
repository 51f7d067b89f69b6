"""Order, doubles and losses of what a server reports."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from protocols.field.contract import Group, Quality, Scan, Tag, Value, ValueType
from protocols.field.opcua_inbox import BAD_DATA_LOST, Inbox, scans
from protocols.field.opcua_values import Reading

GROUP = Group("press", "fast", 1.0, tuple(Tag(f"t{n}", ValueType.INT) for n in range(4)))


def good(position: int, time_us: int, value: Value = 0, *, timed: bool = True) -> Reading:
    return Reading(position, time_us, value, 0, "", time_us if timed else None)


def bad(position: int, time_us: int, code: int = Quality.BAD, *, timed: bool = False) -> Reading:
    return Reading(position, time_us, None, code, "a reason", time_us if timed else None)


def flat(taken: list[Scan]) -> list[tuple[int, int, Value, int]]:
    """(position, time, value, quality) of every reading, in order."""
    return [
        (index, scan.time_us, value, quality)
        for scan in taken
        for index, value, quality in zip(
            scan.indexes or (), scan.values, scan.quality or [0] * len(scan.values), strict=True
        )
    ]


def test_readings_of_one_moment_share_a_scan() -> None:
    [first, second] = scans(GROUP, [good(2, 10, 1), good(1, 20, 2), good(0, 10, 3)])
    assert (first.time_us, first.indexes, first.values, first.quality) == (10, [0, 2], [3, 1], None)
    assert (second.time_us, second.indexes, second.values) == (20, [1], [2])
    assert first.group is GROUP and first.reasons == {}


def test_quality_and_reasons_go_with_their_readings() -> None:
    [scan] = scans(GROUP, [good(1, 10, 5), bad(0, 10, Quality.BAD_TIMEOUT), good(2, 10, 6)])
    assert (scan.indexes, scan.values, scan.quality) == ([0, 1, 2], [None, 5, 6], [Quality.BAD_TIMEOUT, 0, 0])
    assert scan.reasons == {0: "a reason"}


def test_a_clock_that_goes_back_does_not_reorder_a_tag() -> None:
    taken = scans(GROUP, [good(0, 20, 1), good(0, 10, 2), good(0, 20, 3), good(1, 10, 4)])
    assert [(scan.time_us, scan.indexes, scan.values) for scan in taken] == [
        (20, [0], [1]),
        (10, [0, 1], [2, 4]),
        (20, [0], [3]),
    ]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers())))
def test_every_reading_comes_out_once_and_in_its_tags_order(arrived: list[tuple[int, int, int]]) -> None:
    inbox = Inbox()
    expected: defaultdict[int, list[tuple[int, Value]]] = defaultdict(list)
    for position, time_us, value in arrived:
        inbox.report(good(position, time_us, value))
        expected[position].append((time_us, value))
    found: defaultdict[int, list[tuple[int, Value]]] = defaultdict(list)
    taken = inbox.take(GROUP)
    for scan in taken:
        assert scan.indexes is not None
        assert list(scan.indexes) == sorted(set(scan.indexes))
    for position, time_us, taken_value, _ in flat(taken):
        found[position].append((time_us, taken_value))
    assert found == expected
    assert len(inbox) == 0 and inbox.take(GROUP) == []


def test_a_first_notification_is_taken_when_it_is_new() -> None:
    inbox = Inbox()
    inbox.report_first(good(0, 10, 1))
    inbox.report(good(0, 20, 2))
    inbox.take(GROUP)
    inbox.report_first(good(0, 20, 2))
    assert inbox.take(GROUP) == []
    inbox.report_first(good(0, 20, 3))  # the same time, another value
    inbox.report_first(good(0, 30, 3))
    inbox.report_first(Reading(0, 30, 3, 0x40000000, "uncertain now", 30))
    assert [time for _, time, _, _ in flat(inbox.take(GROUP))] == [20, 30, 30]


def test_a_first_notification_without_a_source_time_is_taken() -> None:
    inbox = Inbox()
    inbox.report_first(good(0, 10, 1, timed=False))
    inbox.report_first(good(0, 10, 1, timed=False))
    assert len(inbox) == 2


def test_what_waits_unread_is_known_too() -> None:
    inbox = Inbox()
    inbox.report(good(0, 10, 1))
    inbox.report_first(good(0, 10, 1))
    assert len(inbox) == 1


def test_a_poll_takes_what_changed() -> None:
    inbox = Inbox()
    for answer in [good(0, 10, 1), good(0, 10, 1), good(0, 20, 1), good(0, 20, 1)]:
        inbox.report_poll(answer)
    assert [time for _, time, _, _ in flat(inbox.take(GROUP))] == [10, 20]


def test_a_poll_without_source_times_takes_every_good_answer_and_a_bad_one_once() -> None:
    inbox = Inbox()
    answers = [
        good(0, 1, 5, timed=False),
        good(0, 2, 5, timed=False),
        bad(0, 3),
        bad(0, 4),
        bad(0, 5, Quality.BAD_TIMEOUT),
    ]
    for answer in [*answers, good(0, 6, 5, timed=False)]:
        inbox.report_poll(answer)
    assert [time for _, time, _, _ in flat(inbox.take(GROUP))] == [1, 2, 3, 5, 6]


def test_too_many_unread_drop_the_oldest_and_say_so() -> None:
    inbox = Inbox(limit=3)
    for time_us in (10, 20, 30, 40, 50):
        inbox.report(good(0, time_us, time_us))
    inbox.report(good(1, 60, 7))
    taken = inbox.take(GROUP)
    assert flat(taken) == [(0, 30, None, BAD_DATA_LOST), (0, 40, 40, 0), (0, 50, 50, 0), (1, 60, 7, 0)]
    assert taken[0].reasons[0].startswith("3 readings were dropped")
    inbox.report(good(0, 70, 1))
    assert flat(inbox.take(GROUP)) == [(0, 70, 1, 0)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60), st.integers(1, 10))
def test_no_loss_is_silent(arrived: list[tuple[int, int]], limit: int) -> None:
    inbox = Inbox(limit)
    for position, time_us in arrived:
        inbox.report(good(position, time_us))
    dropped: defaultdict[int, int] = defaultdict(int)
    kept = 0
    for scan in inbox.take(GROUP):
        for index, reason in scan.reasons.items():
            dropped[index] += int(reason.split()[0])
        kept += sum(1 for quality in scan.quality or [0] * len(scan.values) if quality == 0)
    assert kept == min(limit, len(arrived))
    assert sum(dropped.values()) == len(arrived) - kept


def test_lost_notifications_are_said_at_the_last_known_moment_and_healed_by_the_next_first_one() -> None:
    inbox = Inbox()
    inbox.report(good(0, 10, 1))
    inbox.report_lost([0, 1], 99, "notifications 3 to 4 of the server were lost.")
    inbox.report_first(good(0, 10, 1))
    assert flat(inbox.take(GROUP)) == [
        (0, 10, 1, 0),
        (0, 10, None, BAD_DATA_LOST),
        (1, 99, None, BAD_DATA_LOST),
        (0, 10, 1, 0),
    ]
