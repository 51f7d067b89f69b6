"""The window: example by example, then against a model of outbox, broker and receiver under every order of events."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.outbox.contract import HIGH, LOW, NORMAL, Dropped, Held, Lane
from agent.uplink.load import BACKLOG_SHARE, SHARE_MIN
from agent.uplink.window import (
    ASIDE_MAX,
    ASIDE_REST_S,
    LIVE_S,
    RESEND_S,
    RESEND_S_MAX,
    Run,
    Window,
)
from protocols.uplink import ranges

M = Lane("m", "aa")
OLD = Lane("m", "00")
FAR = 10 * RESEND_S_MAX


def send_live(window: Window, count: int = 999, *, size: int = 10, now_s: float = 0.0) -> list[int]:
    """Publish up to so many of what goes first; their numbers, whatever their lanes."""
    sent: list[int] = []
    while len(sent) < count and (following := window.next_live(now_s)) is not None:
        window.published(*following, size, now_s, history=False)
        sent.append(following[1])
    return sent


def send_backlog(window: Window, count: int = 999, *, size: int = 10, now_s: float = 0.0) -> list[int]:
    """Publish up to so many of the backlog, as the sender does; their numbers."""
    sent: list[int] = []
    while len(sent) < count and (run := window.next_run(count - len(sent), now_s)) is not None:
        for seq in range(run.first, run.last + 1):
            if not (window.takes_backlog() and window.may_go(run.lane, seq, now_s)):
                break
            window.published(run.lane, seq, size, now_s, history=True)
            sent.append(seq)
    return sent


def held(last: int, first: int = 1, priority: int = NORMAL) -> Held:
    return Held(last, ((first, last),) if first <= last else (), priority=priority)


def test_what_the_outbox_gave_by_itself_is_found_when_looked_for_twice() -> None:
    """Thinned-out batches get numbers that no append tells of; those of the newest look one may still tell of."""
    window = Window()
    window.connected(session_present=True, now_s=0.0)
    append(window, 1, 2)
    assert send_live(window) == [1, 2]
    thinned = {M: Held(3, ((3, 3),), dropped=(Dropped(1, 2, "thinned out"),))}
    window.look(thinned)
    assert send_backlog(window) == []
    window.look(thinned)
    assert send_backlog(window) == [3]
    assert window.sent(M).through == 2


def test_what_was_declared_once_and_is_missed_again_is_unknown() -> None:
    """The receiver was told, and then its database was put back: somebody has to tell it again."""
    window = Window()
    window.hold({M: Held(4, ((3, 4),), dropped=(Dropped(1, 2, "too old"),))})
    window.connected(session_present=True, now_s=0.0)
    assert window.confirmed(M, 0, 0, [(1, 2)], 1.0).unknown == (), "it is about to be told"
    window.look({M: held(4, 3)})
    assert window.confirmed(M, 0, 0, [(1, 2)], 2.0).unknown == ((1, 2),)


def test_what_is_appended_between_two_looks_stays_live() -> None:
    window = Window()
    window.connected(session_present=True, now_s=0.0)
    window.look({M: held(1), OLD: held(4)})
    append(window, 1)
    window.look({M: held(2), OLD: held(4)})
    append(window, 2)
    assert send_live(window) == [1, 2]
    assert send_backlog(window) == [1, 2, 3, 4], "of a lane that nobody told of"


def append(window: Window, *seqs: int, lane: Lane = M, priority: int = NORMAL, now_s: float = 0.0) -> None:
    for seq in seqs:
        assert window.appended(lane, seq, priority, now_s)


def connected(count_max: int = 500, bytes_max: int = 1 << 20, backlog: int = 0) -> Window:
    """Lane M holds 1 to `backlog` from before the connection."""
    window = Window(count_max, bytes_max)
    window.hold({M: held(backlog)})
    window.connected(session_present=True, now_s=0.0)
    return window


def accept(window: Window, *seqs: int, lane: Lane = M) -> None:
    for seq in seqs:
        window.accepted(lane, seq)


def confirm(window: Window, through: int, *missing: tuple[int, int], highest: int = 0, now_s: float = 0.0) -> int:
    """Bytes of backlog freed."""
    return window.confirmed(M, through, highest, list(missing), now_s).freed


# --- live first ---


def test_what_is_appended_goes_at_once_in_order_and_once() -> None:
    window = connected()
    append(window, 1, 2, 3)
    assert send_live(window) == [1, 2, 3]
    assert window.next_live(0.0) is None
    assert window.next_run(99, 0.0) is None
    append(window, 4)
    assert send_live(window) == [4]


def test_what_was_there_before_the_connection_is_backlog_beside_what_is_live() -> None:
    window = connected(backlog=5)
    append(window, 6, 7)
    assert window.next_live(0.0) == (M, 6)
    assert window.next_run(3, 0.0) == Run(M, 1, 3)
    assert window.next_live(0.0) == (M, 6), "asking changes nothing"
    assert send_live(window) == [6, 7]
    assert send_backlog(window) == [1, 2, 3, 4, 5]


def test_what_comes_while_there_is_no_connection_is_backlog() -> None:
    window = connected()
    window.disconnected()
    append(window, 1, 2)
    window.connected(session_present=True, now_s=1.0)
    append(window, 3, now_s=1.0)
    assert send_live(window, now_s=1.0) == [3]
    assert send_backlog(window, now_s=1.0) == [1, 2]


def test_what_could_not_be_sent_for_a_while_is_backlog() -> None:
    window = connected(count_max=4)
    append(window, 1, 2, 3, 4, 5, 6)
    assert send_live(window) == [1, 2, 3, 4]
    assert window.next_live(LIVE_S * 0.9) is None, "the window is full"
    append(window, 7, now_s=LIVE_S * 0.9)
    confirm(window, 4)
    assert send_live(window, now_s=LIVE_S * 1.2) == [7]
    assert send_backlog(window, now_s=LIVE_S * 1.2) == [5, 6]


def test_the_backlog_leaves_room_for_what_is_live() -> None:
    window = connected(count_max=40, backlog=100)
    assert len(send_backlog(window)) == 40 * BACKLOG_SHARE
    append(window, 101, 102)
    assert send_live(window) == [101, 102]
    window = connected(bytes_max=1000, backlog=100)
    assert len(send_backlog(window, size=10)) == 1000 * BACKLOG_SHARE / 10
    append(window, 101)
    assert send_live(window) == [101]


def test_numbers_that_the_outbox_gave_by_itself_are_looked_for() -> None:
    window = connected(backlog=2)
    append(window, 5)
    assert send_live(window) == [5]
    assert send_backlog(window) == [1, 2, 3, 4]


# --- whose turn it is ---


def test_lanes_take_turns() -> None:
    window = Window()
    lanes = [Lane(name, "aa") for name in "abc"]
    window.hold({lane: held(100) for lane in lanes})
    window.connected(session_present=True, now_s=0.0)
    runs = [window.next_run(2, 0.0) for _ in range(4)]
    assert runs == [Run(lane, 1, 2) for lane in (*lanes, lanes[0])]
    for lane in lanes:
        append(window, 101, 102, lane=lane)
    turns = []
    for _ in range(6):
        following = window.next_live(0.0)
        assert following is not None
        turns.append(following)
        window.published(*following, 1, 0.0, history=False)
    assert turns == [(lane, seq) for seq in (101, 102) for lane in lanes]


def test_high_priority_goes_first_and_low_last_live_and_backlog() -> None:
    low, normal, high = (Lane("m", name) for name in ("low", "normal", "high"))
    order = {low: LOW, normal: NORMAL, high: HIGH}
    window = Window()
    window.hold({lane: held(2, priority=priority) for lane, priority in order.items()})
    window.connected(session_present=True, now_s=0.0)
    for lane, priority in order.items():
        append(window, 3, lane=lane, priority=priority)
    live = []
    while (following := window.next_live(0.0)) is not None:
        live.append(following[0])
        window.published(*following, 1, 0.0, history=False)
    assert live == [high, normal, low]
    behind = []
    while (run := window.next_run(9, 0.0)) is not None:
        behind.append(run)
        for seq in range(run.first, run.last + 1):
            window.published(run.lane, seq, 1, 0.0, history=True)
    assert behind == [Run(high, 1, 2), Run(normal, 1, 2), Run(low, 1, 2)]


def test_a_lane_that_is_stuck_does_not_hold_up_the_others() -> None:
    window = Window(count_max=2 * SHARE_MIN)
    stuck, well = Lane("stuck", "aa"), Lane("well", "aa")
    window.connected(session_present=True, now_s=0.0)
    append(window, *range(1, 99), lane=stuck)
    append(window, 1, lane=well)
    sent = []
    while (following := window.next_live(0.0)) is not None:
        sent.append(following[0])
        window.published(*following, 1, 0.0, history=False)
    assert sent.count(stuck) == SHARE_MIN
    assert sent.count(well) == 1


def test_the_window_is_bounded_in_count_and_bytes() -> None:
    window = connected(count_max=20)
    append(window, *range(1, 100))
    assert len(send_live(window)) == 20
    confirm(window, 5)
    assert send_live(window) == [21, 22, 23, 24, 25]
    window = connected(bytes_max=100)
    append(window, *range(1, 100))
    assert len(send_live(window, size=30)) == 4, "it ends with the one that passes the bound"


# --- again ---


def test_time_alone_resends_nothing() -> None:
    window = connected(backlog=3)
    append(window, 4, 5)
    accept(window, *send_live(window), *send_backlog(window))
    confirm(window, 0, now_s=FAR)
    assert window.next_live(FAR) is None
    assert window.next_run(9, FAR) is None


def test_what_is_missing_goes_again_but_not_before_its_time() -> None:
    window = connected()
    append(window, *range(1, 7))
    accept(window, *send_live(window))
    for now_s in (RESEND_S - 0.01, RESEND_S):
        confirm(window, 1, (3, 4), highest=6, now_s=now_s)
        again = send_backlog(window, now_s=now_s)
        assert again == ([] if now_s < RESEND_S else [3, 4])


def test_it_goes_again_with_growing_patience() -> None:
    window = connected()
    append(window, 1, 2)
    accept(window, *send_live(window))
    sent_s, waits_s = 0.0, []
    for now_s in range(1000):
        confirm(window, 0, (1, 1), highest=2, now_s=now_s)
        if send_backlog(window, now_s=now_s):
            accept(window, 1)
            waits_s.append(round(now_s - sent_s))
            sent_s = now_s
    assert waits_s[:3] == [RESEND_S, 2 * RESEND_S, 4 * RESEND_S]
    assert set(waits_s[3:]) == {RESEND_S_MAX}
    window.try_anew()  # another run of the receiver speaks
    confirm(window, 0, (1, 1), highest=2, now_s=sent_s + RESEND_S - 0.1)
    assert not send_backlog(window, now_s=sent_s + RESEND_S - 0.1)
    confirm(window, 0, (1, 1), highest=2, now_s=sent_s + RESEND_S)
    assert send_backlog(window, now_s=sent_s + RESEND_S) == [1]


def test_what_may_still_stand_in_the_brokers_queue_is_not_resent() -> None:
    """The receiver was away; live and backlog lie there interleaved, and it has read the first half."""
    window = connected(backlog=4)
    append(window, 5)
    accept(window, *send_live(window))  # 5
    accept(window, *send_backlog(window, 2))  # 1, 2
    append(window, 6, now_s=1.0)
    accept(window, *send_live(window, now_s=1.0))  # 6
    accept(window, *send_backlog(window, now_s=1.0))  # 3, 4
    confirm(window, 2, (3, 4), highest=6, now_s=60.0)
    assert window.next_run(9, 60.0) is None, "3 and 4 were published after 6, and are next"
    confirm(window, 2, (3, 4), highest=6, now_s=60.0 + RESEND_S)
    assert send_backlog(window, now_s=60.0 + RESEND_S) == [3, 4], "they would have come by now"


def test_what_is_no_longer_on_its_way_makes_room() -> None:
    window = connected(count_max=16, backlog=40)
    sent = send_backlog(window)
    accept(window, *sent)
    append(window, 41)
    accept(window, *send_live(window))
    assert window.next_run(9, 1.0) is None
    confirm(window, 0, (1, 40), highest=41, now_s=1.0)
    assert window.next_run(9, 1.0) == Run(M, 13, 21), "whatever was published before 41 is lost"


def test_what_is_in_flight_or_not_yet_sent_is_not_resent_however_missing() -> None:
    window = connected()
    append(window, *range(1, 10))
    send_live(window, 3)
    confirm(window, 0, (1, 9), now_s=FAR)
    assert send_live(window, now_s=FAR) == []
    assert send_backlog(window, now_s=FAR) == [4, 5, 6, 7, 8, 9]


def test_a_lost_connection_puts_back_what_was_in_flight() -> None:
    window = connected()
    append(window, *range(1, 10))
    accept(window, *send_live(window, 2))
    send_live(window, 4)  # 3 to 6
    accept(window, 5)
    window.disconnected()
    window.connected(session_present=True, now_s=1.0)
    append(window, 10, now_s=1.0)
    assert send_live(window, now_s=1.0) == [10]
    assert send_backlog(window, now_s=1.0) == [3, 4, 6, 7, 8, 9]


def test_a_lost_session_puts_back_all_that_is_unconfirmed() -> None:
    window = connected(backlog=9)
    accept(window, *send_backlog(window, 6))
    confirm(window, 2)
    window.connected(session_present=False, now_s=1.0)
    assert send_backlog(window, now_s=1.0) == [3, 4, 5, 6, 7, 8, 9]
    assert window.next_run(9, 1.0) is None


def test_a_refused_number_goes_again_unless_it_is_confirmed_by_now() -> None:
    window = connected()
    append(window, 1, 2, 3)
    send_live(window)
    accept(window, 1)
    window.refused(M, 2, 0.1)
    assert send_live(window, now_s=0.1) == [2]
    confirm(window, 3)
    window.refused(M, 3, 0.2)
    assert window.next_live(0.2) is None
    assert window.idle()


def test_a_lane_that_is_refused_rests_and_the_others_go_on() -> None:
    window, other = connected(), Lane("other", "aa")
    append(window, 1, 2)
    send_live(window, 1)
    window.refused(M, 1, 0.0, rest_s=5.0)
    append(window, 1, lane=other)
    assert window.next_live(1.0) == (other, 1)
    window.published(other, 1, 1, 1.0, history=False)
    assert window.next_live(1.0) is None
    assert window.rests_until_s() == 5.0
    now_s = LIVE_S + 1
    append(window, 3, now_s=now_s)
    assert send_live(window, now_s=now_s) == [3]
    assert send_backlog(window, now_s=now_s) == [1, 2]


@pytest.mark.parametrize("session_present", [True, False])
def test_endless_trouble_uses_no_window_up(session_present: bool) -> None:
    window = connected(count_max=4, bytes_max=200, backlog=9)
    for at in range(50):
        assert send_backlog(window, 2, size=30, now_s=at) == [1, 2]
        window.refused(M, 1, at)
        window.connected(session_present, now_s=at)
    assert send_backlog(window, size=30, now_s=99) == [1, 2, 3]
    assert window.backlog_bytes == 90


# --- what the broker finds too large ---


def test_what_is_too_large_steps_aside_for_the_others() -> None:
    window = connected()
    append(window, 1, 2)
    send_live(window)
    window.too_large(M, 1, 0.0)
    assert window.aside(M) == (1,)
    assert window.next_live(0.0) is None
    accept(window, 2)
    assert window.aside(M) == (1,), "whoever asks may give it up now"
    window.gone(M, ((1, 1),))
    confirm(window, 2)
    assert window.idle()


def test_where_everything_is_too_large_the_lane_rests_and_nothing_is_lost() -> None:
    window = connected(backlog=9)
    for seq in range(1, ASIDE_MAX + 1):
        assert send_backlog(window, 1) == [seq]
        window.too_large(M, seq, 0.0)
    assert window.next_run(9, ASIDE_REST_S - 0.1) is None
    assert window.rests_until_s() == ASIDE_REST_S
    assert send_backlog(window, now_s=ASIDE_REST_S) == list(range(1, 10))


def test_what_stepped_aside_alone_is_tried_again() -> None:
    window = connected(backlog=1)
    send_backlog(window)
    window.too_large(M, 1, 0.0)
    assert window.rests_until_s() == ASIDE_REST_S
    assert window.next_run(9, ASIDE_REST_S - 0.1) is None
    assert send_backlog(window, now_s=ASIDE_REST_S) == [1]


# --- the receiver's word ---


def test_what_is_stored_above_a_gap_is_done_with() -> None:
    window = connected(backlog=4)
    append(window, 5, 6)
    accept(window, *send_live(window))
    confirm(window, 0, (1, 4), highest=6)
    assert window.stored(M) == (0, ((5, 6),))
    assert window.settled_through(M) == 0
    accept(window, *send_backlog(window))
    assert confirm(window, 6, highest=6) == 40
    assert window.idle()
    assert window.settled_through(M) == 6


def test_what_the_receiver_has_lost_is_asked_for_and_goes_again() -> None:
    window = connected(backlog=6)
    accept(window, *send_backlog(window))
    confirm(window, 6)
    word = window.confirmed(M, 2, 2, [(3, 6)], 1.0)
    assert word.unknown == ((3, 6),)
    window.hold({M: Held(6, waiting=((5, 6),), dropped=(Dropped(3, 4, "gone"),))})
    assert send_backlog(window, now_s=1.0) == [5, 6]
    assert window.confirmed(M, 2, 2, [(3, 6)], 2.0).unknown == (), "the receiver will be told of 3 and 4"


def test_numbers_that_were_never_given_or_sent_here_are_noticed() -> None:
    window = connected(backlog=6)
    assert not window.confirmed(M, 6, 6, [], 0.0).is_beyond
    assert window.confirmed(M, 6, 9, [], 0.0).is_beyond
    assert window.confirmed(M, 6, 0, [(7, 8)], 0.0).is_beyond
    assert not window.appended(M, 7, NORMAL, 0.0), "somebody else gave it"
    assert window.appended(M, 10, NORMAL, 0.0)


def test_nothing_counts_as_stored_that_was_never_published() -> None:
    """A copy has given the same numbers to other batches."""
    window = connected(backlog=2)
    append(window, *range(3, 12))
    assert send_live(window, 1) == [3]
    assert window.confirmed(M, 4, 9, [(5, 5)], 0.0).strange == ((4, 9),)
    assert window.settled_through(M) == 3
    assert send_live(window) == list(range(4, 12))
    assert window.confirmed(M, 9, 9, [], 0.0).strange == ()


def test_what_the_receiver_misses_below_what_was_published_is_nothing_strange() -> None:
    """Live numbers pass those that wait."""
    window = connected()
    append(window, 1, 2, 3)
    append(window, 4, now_s=2 * LIVE_S)
    assert send_live(window, now_s=2 * LIVE_S) == [4]
    word = window.confirmed(M, 0, 4, [(1, 3)], 2 * LIVE_S)
    assert (word.strange, word.is_beyond) == ((), False)


def test_a_receiver_that_confirms_more_than_there_is_hides_nothing_that_comes_later() -> None:
    window = connected(backlog=3)
    send_backlog(window)
    confirm(window, 99)
    window.appended(M, 4, NORMAL, 0.0)
    window.appended(M, 5, NORMAL, 0.0)
    assert send_live(window) == [4, 5]


def test_new_numbers_wait_for_the_receivers_first_word() -> None:
    window, other, late = Window(), Lane("other", "aa"), Lane("late", "aa")
    window.hold({M: held(3), other: held(0)})
    window.hold_back()
    append(window, 4)
    append(window, 1, lane=other)
    window.connected(session_present=True, now_s=0.0)
    append(window, 5)
    append(window, 1, lane=late)
    assert window.next_live(0.0) is None
    assert send_backlog(window) == [1, 2, 3]
    window.let_go(M)
    assert send_live(window) == [5]
    assert send_backlog(window) == [4]
    window.let_go()
    assert window.next_live(0.0) == (late, 1)
    assert window.next_run(9, 0.0) == Run(other, 1, 1)


# --- what the outbox lets go of ---


def test_what_the_outbox_lets_go_of_is_not_waited_for() -> None:
    window = connected(backlog=9)
    accept(window, *send_backlog(window, 3))
    append(window, 10)
    window.hold({M: Held(10, waiting=((8, 10),), dropped=(Dropped(1, 7, "outbox full"),))})
    assert window.backlog_bytes == 0
    assert window.settled_through(M) == 7
    assert send_live(window) == [10]
    assert send_backlog(window) == [8, 9]
    window.gone(M, ((8, 8),))
    confirm(window, 10)
    assert window.idle()


def test_what_was_given_a_number_since_the_outbox_was_asked_stays() -> None:
    window = connected()
    append(window, 1, 2, 3)
    window.hold({M: held(2)})
    assert send_live(window) == [1, 2, 3]
    assert window.next_run(9, 0.0) is None


def test_what_the_outbox_does_not_know_to_be_confirmed_does_not_go_again() -> None:
    window = connected(backlog=5)
    accept(window, *send_backlog(window))
    confirm(window, 3)
    window.hold({M: held(5)})
    assert window.next_run(9, 0.0) is None
    assert window.settled_through(M) == 3


def test_numbers_that_moved_to_another_lane_go_there() -> None:
    window = connected(backlog=3)
    accept(window, *send_backlog(window, 1))
    append(window, 4, 5)
    window.reset()
    window.hold({M: Held(3, waiting=((1, 3),)), OLD: held(2)})
    assert window.next_live(0.0) is None
    assert send_backlog(window) == [2, 3, 1, 2]


def test_what_went_before_the_backlog_and_was_lost_does_not_fill_the_window_for_ever() -> None:
    """A broker whose queue ran over took the live numbers, and threw them away: the receiver must be told of them."""
    window = Window(count_max=20)
    window.hold({M: held(50)})
    window.connected(session_present=True, now_s=0.0)
    append(window, *range(51, 91))
    accept(window, *send_live(window))
    assert send_backlog(window) == [], "the window is full"
    assert window.sent(M) == (0, 70)
    confirm(window, 0, (1, 70), highest=0, now_s=RESEND_S)
    assert send_backlog(window, now_s=RESEND_S), "they count as lost, and go again"


def test_sent_seq_is_what_the_broker_took_without_a_gap() -> None:
    window = connected()
    append(window, *range(1, 10))
    assert window.sent(M).through == 0
    send_live(window, 4)
    accept(window, 2)
    assert window.sent(M).through == 0
    accept(window, 1)
    assert window.sent(M).through == 2
    window.refused(M, 3, 0.0)
    accept(window, 4)
    assert window.sent(M).through == 2
    confirm(window, 3)  # an earlier copy has arrived
    assert window.sent(M).through == 4
    send_live(window, 2)
    confirm(window, 5)  # before the broker's acknowledgement
    assert window.sent(M).through == 5
    assert window.sent(Lane("stranger", "aa")) == (0, 0)


def test_the_oldest_that_nobody_confirms_is_told_from_the_first_time_it_was_sent() -> None:
    window = connected(backlog=2)
    assert window.oldest_unconfirmed() is None
    send_backlog(window, 1, now_s=1.0)
    assert window.oldest_unconfirmed() is None, "the broker has not taken it"
    accept(window, 1, *send_backlog(window, now_s=2.0))
    assert window.oldest_unconfirmed() == (M, 1, 1.0)
    window.confirmed(M, 0, 2, [(1, 1)], 20.0)
    assert send_backlog(window, now_s=20.0) == [1]
    accept(window, 1)
    assert window.oldest_unconfirmed() == (M, 1, 1.0)
    confirm(window, 2)
    assert window.oldest_unconfirmed() is None


@pytest.mark.parametrize("session_present", [True, False])
def test_a_new_window_has_nothing_to_do(session_present: bool) -> None:
    window = Window()
    window.connected(session_present, 0.0)
    assert window.next_live(0.0) is None
    assert window.next_run(99, 0.0) is None
    assert window.idle()


# --- against a model -------------------------------------------------------------------------------------------------

LANES = (Lane("a", "aa"), Lane("b", "aa"), Lane("b", "high"))
PRIORITY = {LANES[0]: NORMAL, LANES[1]: NORMAL, LANES[2]: HIGH}
COUNT_MAX = 12
BYTES_MAX = 200
SIZE_MAX = 40
IN_FLIGHT_MAX = 6
Key = tuple[Lane, int]


def size_of(seq: int) -> int:
    return 1 + seq * 7 % SIZE_MAX


@dataclass
class Machine:
    """What outbox and receiver have of one lane."""

    last: int = 0
    waiting: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    stored: set[int] = field(default_factory=set)  # by the receiver
    told: int = 0  # known to the receiver to exist
    told_dropped: set[int] = field(default_factory=set)

    def held(self) -> Held:
        dropped = [Dropped(first, last, "gone") for first, last in ranges.of(self.dropped)]
        return Held(self.last, ranges.of(self.waiting), ranges.of(self.kept), dropped)

    def through(self) -> int:
        return ranges.through(ranges.of(self.stored | self.told_dropped))

    def missing(self) -> ranges.Ranges:
        known = max([self.told, *self.stored, *self.told_dropped])
        return ranges.missing(ranges.of(self.stored | self.told_dropped), known)


@dataclass(frozen=True)
class Said:
    """A confirm of one lane."""

    lane: Lane
    through: int
    highest: int
    missing: ranges.Ranges


class World(RuleBasedStateMachine):
    """Whatever happens in whatever order: what waits is offered until it is confirmed, and nothing else goes."""

    @initialize()
    def begin(self) -> None:
        self.window = Window(COUNT_MAX, BYTES_MAX)
        self.machines = {lane: Machine() for lane in LANES}
        self.now_s = 1000.0
        self.in_flight: list[Key] = []
        self.broker: list[Key] = []  # what the broker has and the receiver has not
        self.taken: set[Key] = set()  # ever, by the broker
        self.sent_s: dict[Key, float] = {}  # of what the session's broker was given and may still have
        self.named: set[Key] = set()  # named as missing since it was last published
        self.live: dict[Lane, list[int]] = {lane: [] for lane in LANES}  # appended since, not yet published
        self.live_last: dict[Lane, int] = dict.fromkeys(LANES, 0)  # published live last, on this connection
        self.is_connected = False
        self.hold()
        self.reconnect(session_present=False, arrived=False)

    def hold(self) -> None:
        self.window.hold({lane: machine.held() for lane, machine in self.machines.items()})

    # --- the outbox ---

    @rule(lane=st.sampled_from(LANES), count=st.integers(1, 8))
    def append(self, lane: Lane, count: int) -> None:
        machine = self.machines[lane]
        for _ in range(count):
            machine.last += 1
            machine.waiting.add(machine.last)
            assert self.window.appended(lane, machine.last, PRIORITY[lane], self.now_s)
            if self.is_connected:
                self.live[lane].append(machine.last)

    @rule(lane=st.sampled_from(LANES), count=st.integers(1, 3))
    def make_room(self, lane: Lane, count: int) -> None:
        machine = self.machines[lane]
        for seq in sorted(machine.waiting)[:count]:
            machine.waiting.discard(seq)
            machine.dropped.add(seq)

    @rule(lane=st.sampled_from(LANES))
    def the_grace_time_is_over(self, lane: Lane) -> None:
        self.machines[lane].kept.clear()

    @rule()
    def ask_the_outbox(self) -> None:
        self.hold()

    @rule()
    def look_into_the_outbox(self) -> None:
        self.window.look({lane: machine.held() for lane, machine in self.machines.items()})

    @rule(lane=st.sampled_from(LANES))
    def thin_out(self, lane: Lane) -> None:
        """The oldest that waits gets a number of its own, of which no append tells, but two looks do."""
        machine = self.machines[lane]
        if oldest := min(machine.waiting, default=0):
            machine.waiting.discard(oldest)
            machine.dropped.add(oldest)
            machine.last += 1
            machine.waiting.add(machine.last)
            self.look_into_the_outbox()
            self.look_into_the_outbox()

    # --- the forwarder ---

    @rule(confirm_between=st.booleans())
    def send_live(self, confirm_between: bool) -> None:
        while self.is_connected and len(self.in_flight) < IN_FLIGHT_MAX:
            following = self.window.next_live(self.now_s)
            if following is None:
                return
            lane, seq = following
            if confirm_between:
                self.confirm(lane)
            if seq in self.machines[lane].waiting and self.window.waits(lane, seq):
                again = (lane, seq) in self.taken or seq <= self.live_last[lane]
                assert again or seq > self.live_last[lane], "live numbers ascend"
                self.live_last[lane] = max(seq, self.live_last[lane])
                self._publish(lane, seq, history=False)
            elif seq not in self.machines[lane].waiting:
                self.window.gone(lane, ((seq, seq),))

    @rule(runs=st.integers(1, 4), count=st.integers(1, 5), drop_between=st.integers(0, 2))
    def send_backlog(self, runs: int, count: int, drop_between: int) -> None:
        for _ in range(runs):
            run = self.window.next_run(count, self.now_s) if self.is_connected else None
            if run is None:
                return
            assert 1 <= run.last - run.first + 1 <= count
            machine, wanted = self.machines[run.lane], range(run.first, run.last + 1)
            found = [seq for seq in wanted if seq in machine.waiting | machine.kept]
            gone = ranges.of(seq for seq in wanted if seq not in found)
            if gone:
                self.window.gone(run.lane, gone)
            if drop_between:
                self.make_room(run.lane, drop_between)
            for seq in found:
                if len(self.in_flight) >= IN_FLIGHT_MAX:
                    return
                if self.window.takes_backlog() and self.window.may_go(run.lane, seq, self.now_s):
                    self._publish(run.lane, seq, history=True)

    def _publish(self, lane: Lane, seq: int, *, history: bool) -> None:
        key = (lane, seq)
        assert key not in self.in_flight, f"{key} is offered while in flight"
        if key in self.sent_s:  # the broker has it, for all that we know
            assert key in self.named, f"{key} is offered again and nobody misses it"
            assert self.now_s - self.sent_s[key] >= RESEND_S, f"{key} is offered again too soon"
        self.named.discard(key)
        self.sent_s[key] = self.now_s
        self.in_flight.append(key)
        if seq in self.live[lane]:
            self.live[lane].remove(seq)
        self.window.published(lane, seq, size_of(seq), self.now_s, history=history)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def accepted(self, data: st.DataObject) -> None:
        key = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.broker.append(key)
        self.taken.add(key)
        self.window.accepted(*key)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), rest_s=st.sampled_from([0.0, 5.0]), is_too_large=st.booleans())
    def refused(self, data: st.DataObject, rest_s: float, is_too_large: bool) -> None:
        key = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.sent_s.pop(key, None)
        if is_too_large:
            self.window.too_large(*key, self.now_s)
        else:
            self.window.refused(*key, self.now_s, rest_s)

    @rule(session_present=st.booleans(), arrived=st.booleans())
    def reconnect(self, session_present: bool, arrived: bool) -> None:
        if arrived:  # the acknowledgements were lost, not the messages
            self.broker += self.in_flight
            self.taken.update(self.in_flight)
        for key in self.in_flight:
            self.sent_s.pop(key, None)
        self.in_flight.clear()
        if not session_present:
            self.sent_s.clear()
            self.broker.clear()
        self.window.disconnected()
        self.window.connected(session_present, self.now_s)
        self.is_connected = True
        for lane in LANES:
            self.live[lane].clear()
            self.live_last[lane] = 0

    @rule()
    def disconnect(self) -> None:
        self.window.disconnected()
        self.is_connected = False

    # --- the broker and the receiver ---

    @precondition(lambda self: self.broker)
    @rule(data=st.data())
    def delivered(self, data: st.DataObject) -> None:
        lane, seq = self.broker.pop(data.draw(st.integers(0, len(self.broker) - 1)))
        self.machines[lane].stored.add(seq)

    @precondition(lambda self: self.broker)
    @rule()
    def broker_drops_the_newest(self) -> None:
        self.broker.pop()

    @rule(lane=st.sampled_from(LANES), count=st.integers(1, 4))
    def the_database_is_set_back(self, lane: Lane, count: int) -> None:
        machine = self.machines[lane]
        machine.told = max([machine.told, *machine.stored])
        for seq in sorted(machine.stored)[-count:]:
            machine.stored.discard(seq)

    @rule(lane=st.sampled_from(LANES))
    def confirm(self, lane: Lane) -> None:
        machine = self.machines[lane]
        said = Said(lane, machine.through(), max(machine.stored, default=0), machine.missing())
        word = self.window.confirmed(lane, said.through, said.highest, list(said.missing), self.now_s)
        assert not word.is_beyond
        assert all(seq in machine.told_dropped for first, last in word.strange for seq in range(first, last + 1))
        for first, last in said.missing:
            keys = {(lane, seq) for seq in range(first, last + 1)}
            self.named |= {key for key in keys if self.now_s - self.sent_s.get(key, -1e9) >= RESEND_S}
        there = {seq for seq in range(1, said.highest + 1) if not ranges.contains(said.missing, seq)}
        there |= set(range(1, said.through + 1))
        machine.kept |= machine.waiting & there
        machine.waiting -= there
        machine.dropped = {seq for seq in machine.dropped if seq > said.through}
        if word.unknown:
            self._ask_back(lane, word.unknown)

    def _ask_back(self, lane: Lane, unknown: ranges.Ranges) -> None:
        machine = self.machines[lane]
        for seq in [seq for first, last in unknown for seq in range(first, last + 1)]:
            if seq in machine.kept:
                machine.kept.discard(seq)
                machine.waiting.add(seq)
                self.sent_s.pop((lane, seq), None)  # it had arrived: whatever the broker has of it does not matter
            elif seq not in machine.waiting:
                machine.dropped.add(seq)
        self.hold()

    @rule()
    def another_run_of_the_receiver_speaks(self) -> None:
        self.window.try_anew()

    @rule(lane=st.sampled_from(LANES))
    def heartbeat(self, lane: Lane) -> None:
        machine, (sent, highest) = self.machines[lane], self.window.sent(lane)
        for seq in machine.waiting:
            assert seq > sent or (lane, seq) in self.taken, f"{(lane, seq)} is said to be sent, and never was"
        assert highest == 0 or (lane, highest) in self.taken or highest not in machine.waiting
        machine.told = max(machine.told, sent, highest)
        machine.told_dropped |= machine.dropped

    @rule(seconds=st.sampled_from([0.5, LIVE_S, RESEND_S, 70.0, RESEND_S_MAX]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    # --- what always holds ---

    @invariant()
    def bounds_hold(self) -> None:
        if not hasattr(self, "machines"):
            return
        outstanding = [
            (lane, seq)
            for lane, seq in self.sent_s
            if seq in self.machines[lane].waiting and (lane, seq) not in self.named
        ]
        assert len(outstanding) <= COUNT_MAX
        assert sum(size_of(seq) for _, seq in outstanding) < BYTES_MAX + SIZE_MAX
        assert self.window.backlog_bytes < BACKLOG_SHARE * BYTES_MAX + SIZE_MAX
        assert len(self.in_flight) <= IN_FLIGHT_MAX

    @rule()
    def idle_means_that_nothing_waits(self) -> None:
        self.hold()
        waiting = sum(len(machine.waiting) for machine in self.machines.values())
        assert self.window.idle() == (waiting == 0)

    def teardown(self) -> None:
        """From wherever we are: once faults end, everything that waits is confirmed in the end."""
        if not hasattr(self, "machines"):
            return
        self.reconnect(session_present=True, arrived=False)
        waiting = sum(len(machine.waiting) + len(machine.stored) for machine in self.machines.values())
        for _ in range(2 * waiting + 20):
            self.hold()
            self.send_live(confirm_between=False)
            self.send_backlog(runs=9, count=9, drop_between=0)
            for key in self.in_flight:
                self.taken.add(key)
                self.machines[key[0]].stored.add(key[1])
                self.window.accepted(*key)
            self.in_flight.clear()
            for lane, seq in self.broker:
                self.machines[lane].stored.add(seq)
            self.broker.clear()
            self.time_passes(RESEND_S_MAX)
            for lane in LANES:
                self.heartbeat(lane)
                self.confirm(lane)
        assert self.window.idle(), "something that waits is never confirmed"


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=80, stateful_step_count=40)
