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
            range(len(scan)) if scan.indexes is None else scan.indexes,
            scan.values,
            scan.quality or [0] * len(scan),
            strict=True,
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


# Declared bad by another clock than the source's


def state(taken: list[Scan]) -> dict[int, tuple[int, Value, int]]:
    """Position → (time, value, quality) of the newest reading by time, of equal ones the last: last write wins."""
    newest: dict[int, tuple[int, Value, int]] = {}
    for position, time_us, value, quality in flat(taken):
        if position not in newest or time_us >= newest[position][0]:
            newest[position] = (time_us, value, quality)
    return newest


def reported(*readings: Reading) -> Inbox:
    """An inbox whose readings were taken."""
    inbox = Inbox()
    for each in readings:
        inbox.report(each)
    inbox.take(GROUP)
    return inbox


def test_without_an_outage_nothing_is_stated_twice() -> None:
    inbox = Inbox()
    inbox.report_first(good(0, 10, 1))
    inbox.report_poll(good(1, 20, 2))
    inbox.report_poll(good(1, 20, 2))
    assert flat(inbox.take(GROUP)) == [(0, 10, 1, 0), (1, 20, 2, 0)]


def test_after_a_reconnect_what_is_older_is_stated_once_as_of_then() -> None:
    inbox = reported(good(0, 10, 1), good(1, 10, 2))
    for reconnected_us in (100, 200):
        inbox.reconnected(reconnected_us)
        for _ in range(3):
            inbox.report_first(good(0, 10, 1))
            inbox.report_poll(good(1, 10, 2))
        assert flat(inbox.take(GROUP)) == [(0, reconnected_us, 1, 0), (1, reconnected_us, 2, 0)]
        inbox.report_first(good(0, 10, 1))
        inbox.report_poll(good(1, 10, 2))
        assert len(inbox) == 0


def test_after_a_reconnect_only_the_tags_that_were_heard_of_are_stated() -> None:
    inbox = reported(good(0, 10, 1), good(1, 10, 2))
    inbox.reconnected(100)
    inbox.report_first(good(0, 10, 1))
    assert flat(inbox.take(GROUP)) == [(0, 100, 1, 0)]
    inbox.report_first(good(1, 10, 2))  # late
    assert flat(inbox.take(GROUP)) == [(1, 100, 2, 0)]


def test_what_changed_while_away_is_stated_at_its_own_time_and_as_of_the_reconnect() -> None:
    inbox = reported(good(0, 10, 1), good(1, 10, 2))
    inbox.reconnected(100)
    inbox.report_first(good(0, 50, 3))
    inbox.report_first(good(1, 150, 4))  # newer than the reconnect: as it is
    assert flat(inbox.take(GROUP)) == [(0, 50, 3, 0), (1, 150, 4, 0), (0, 100, 3, 0)]
    inbox.report_first(good(0, 50, 3))
    assert len(inbox) == 0
    inbox.report(good(0, 160, 5))
    assert flat(inbox.take(GROUP)) == [(0, 160, 5, 0)]


def test_a_source_time_ahead_of_ours_needs_no_statement() -> None:
    inbox = reported(good(0, 500, 1))
    inbox.reconnected(100)
    inbox.report_first(good(0, 500, 1))
    assert len(inbox) == 0


def test_while_the_sources_clock_is_late_the_last_change_prevails() -> None:
    inbox = reported(good(0, 10, 1))
    inbox.reconnected(100)
    inbox.report_first(good(0, 10, 1))
    inbox.report(good(0, 20, 2))
    inbox.report(good(0, 30, 3))
    assert flat(inbox.take(GROUP)) == [(0, 20, 2, 0), (0, 30, 3, 0), (0, 100, 3, 0)]
    inbox.report(good(0, 40, 4))
    assert flat(inbox.take(GROUP)) == [(0, 40, 4, 0), (0, 100, 4, 0)]
    inbox.report(good(0, 101, 5))
    assert flat(inbox.take(GROUP)) == [(0, 101, 5, 0)]


def test_a_fault_of_ours_is_overcome_by_an_older_value() -> None:
    inbox = Inbox()
    inbox.report(bad(0, 100, Quality.BAD_WAITING_FOR_INITIAL_DATA))
    inbox.report_first(good(0, 10, 1))
    taken = inbox.take(GROUP)
    assert flat(taken) == [(0, 100, None, Quality.BAD_WAITING_FOR_INITIAL_DATA), (0, 10, 1, 0), (0, 100, 1, 0)]
    assert state(taken)[0] == (100, 1, 0)


def test_a_fault_after_the_reconnect_is_overcome_too() -> None:
    inbox = reported(good(0, 10, 1))
    inbox.reconnected(100)
    inbox.report(bad(0, 120, Quality.BAD_WAITING_FOR_INITIAL_DATA))
    inbox.report_first(good(0, 10, 1))
    assert state(inbox.take(GROUP)) == {0: (120, 1, 0)}


def test_a_fault_supersedes_what_waits_to_be_stated() -> None:
    inbox = reported(good(0, 10, 1))
    inbox.reconnected(100)
    inbox.report_first(good(0, 10, 1))
    inbox.report(bad(0, 120))
    assert flat(inbox.take(GROUP)) == [(0, 120, None, Quality.BAD)]


def test_a_fault_that_outlasts_the_outage_is_said_again() -> None:
    inbox = reported(bad(0, 10, Quality.BAD_NODE_ID_UNKNOWN))
    inbox.reconnected(100)
    inbox.report_poll(bad(0, 130, Quality.BAD_NODE_ID_UNKNOWN))
    inbox.report_poll(bad(0, 140, Quality.BAD_NODE_ID_UNKNOWN))
    [scan] = inbox.take(GROUP)
    assert flat([scan]) == [(0, 100, None, Quality.BAD_NODE_ID_UNKNOWN)]
    assert scan.reasons == {0: "a reason"}


def test_a_fault_with_the_servers_own_late_time_does_not_forget_the_reconnect() -> None:
    inbox = reported(good(0, 10, 1))
    inbox.reconnected(100)
    inbox.report_first(bad(0, 50))
    assert state(inbox.take(GROUP)) == {0: (100, None, Quality.BAD)}
    inbox.report(good(0, 60, 2))
    assert flat(inbox.take(GROUP)) == [(0, 60, 2, 0), (0, 100, 2, 0)]


def test_a_loss_after_a_reconnect_is_said_and_healed() -> None:
    inbox = reported(good(0, 10, 1))
    inbox.reconnected(100)
    inbox.report_first(good(0, 10, 1))
    inbox.report_lost([0, 1], 150, "notification 2 of the server was lost.")
    taken = inbox.take(GROUP)
    assert state(taken) == {0: (100, None, BAD_DATA_LOST), 1: (150, None, BAD_DATA_LOST)}
    inbox.reconnected(200)
    inbox.report_first(good(0, 10, 1))
    inbox.report_first(good(1, 20, 2))
    assert flat(inbox.take(GROUP)) == [(0, 10, 1, 0), (1, 20, 2, 0), (0, 200, 1, 0), (1, 200, 2, 0)]


def test_reconnecting_unread_lets_at_most_one_statement_per_tag_wait() -> None:
    inbox = Inbox(limit=2)
    for time_us in (10, 20):
        inbox.report(good(0, time_us, time_us))
    for reconnected_us in range(100, 200):
        inbox.reconnected(reconnected_us)
        inbox.report_first(good(0, 20, 20))
    assert flat(inbox.take(GROUP)) == [(0, 10, 10, 0), (0, 20, 20, 0), (0, 199, 20, 0)]


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["change", "first", "poll"]), st.integers(-30, 10), st.integers(0, 2)),
        st.tuples(st.sampled_from(["away", "fault", "take"]), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(EVENTS)
def test_the_newest_reading_by_time_is_what_was_said_last(events: list[tuple[str, int, int]]) -> None:
    """However late the source's clock is. Its times never go back here, and the poller's part is played by the test."""
    inbox, taken, now_us, source_us, is_first = Inbox(), list[Scan](), 100, 0, True
    expected: tuple[Value, int] | None = None
    for event, lag_us, value in events:
        now_us += 10
        if event == "take":
            taken += inbox.take(GROUP)
        elif event == "away":
            taken += [*inbox.take(GROUP), Scan.all_bad(GROUP, now_us, Quality.BAD_NOT_CONNECTED, "away")]
            now_us += 10
            inbox.reconnected(now_us)
            expected, is_first = (None, Quality.BAD_NOT_CONNECTED), True
        elif event == "fault":
            inbox.report(bad(0, now_us))
            expected = (None, Quality.BAD)
        else:
            source_us = max(source_us + 1, now_us + lag_us)
            now_us = max(now_us, source_us)  # of a clock that is ahead, no fault of ours could be the newest
            take = {"first": inbox.report_first, "change": inbox.report, "poll": inbox.report_poll}[event]
            (inbox.report_first if is_first else take)(good(0, source_us, value))
            expected, is_first = (value, 0), False
    newest = state([*taken, *inbox.take(GROUP)]).get(0)
    assert expected == (newest and newest[1:])
