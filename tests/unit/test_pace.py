"""The pace of the backlog: each bound by itself, then on lines and with receivers of every kind, in simulated time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.uplink.pace import BURST_S, CREDIT_MIN, CREDIT_UNCAPPED, QUEUE_S, Pace

STEP_S = 0.01


def pace(bytes_per_s: float = 0, count_max: int = 37) -> Pace:
    made = Pace(bytes_per_s)
    made.connected(0.0, count_max)
    return made


def send(one: Pace, size: int, now_s: float, took_s: float = 0.0, unconfirmed: int = 0) -> bool:
    """Publish one message if it may go, and have it acknowledged at once."""
    if not one.may(size, unconfirmed, now_s):
        return False
    one.published(size)
    one.answered(size, took_s, now_s + took_s, history=True)
    return True


def test_the_rate_is_kept_over_any_time() -> None:
    one, sent = pace(bytes_per_s=1000), 0
    for millisecond in range(10_000):
        while send(one, 50, millisecond / 1000):
            sent += 50
    assert 10_000 <= sent <= 10_000 + 1000 * BURST_S + 50


def test_a_message_larger_than_the_burst_goes_and_is_waited_for_after() -> None:
    one = pace(bytes_per_s=1000)
    assert send(one, 5000, 0.0)
    assert not send(one, 1, 4.7)
    assert one.wait_s(4.7) == pytest.approx(0.05, abs=0.002)
    assert send(one, 1, 4.7 + one.wait_s(4.7))


def test_without_a_rate_nothing_is_waited_for() -> None:
    one = pace()
    assert all(send(one, 100_000, 0.0) for _ in range(1000))
    assert one.wait_s(0.0) == 0.0


def test_of_a_new_line_one_message_is_asked_first() -> None:
    one = pace()
    assert one.may(100_000, 0, 0.0)
    one.published(100_000)
    assert not one.may(1, 100_000, 0.0)
    one.answered(100_000, 0.6, 0.6, history=True)
    for _ in range(2):  # as much as it took, and one message
        assert one.may(100_000, 0, 0.6)
        one.published(100_000)
    assert not one.may(1, 0, 0.6)


def test_what_the_line_took_long_ago_says_nothing() -> None:
    one = pace()
    send(one, 100_000, 0.0, took_s=0.1)
    one.published(1)
    assert one.may(1, 0, 0.1 + QUEUE_S + 0.1)
    assert not one.may(1, 0, 0.1 + QUEUE_S + 0.11)


def test_live_messages_tell_of_the_line_too() -> None:
    one = pace()
    one.published(10)
    one.answered(500, 0.01, 0.01, history=False)
    assert one.may(10, 0, 0.02)


def test_never_more_messages_in_flight_than_allowed() -> None:
    one = pace(count_max=3)
    send(one, 1_000_000, 0.0)
    for _ in range(3):
        assert one.may(1, 0, 0.0)
        one.published(1)
    assert not one.may(1, 0, 0.0)


@pytest.mark.parametrize(("rate", "credit"), [(1e9, CREDIT_MIN), (0, CREDIT_UNCAPPED)])
def test_before_the_first_confirm_only_so_much_is_sent(rate: float, credit: int) -> None:
    one = pace(rate)
    assert one.may(1000, credit - 1000, 0.0)
    assert not one.may(1000, credit - 999, 0.0)
    assert one.may(2 * credit, 0, 0.0), "but always one message"


def test_confirms_that_come_together_count_as_one() -> None:
    one = pace(1e9)
    for at in range(10):
        one.confirmed(50_000, 1, at / 1000)
    assert one.may(1000, 740_000, 1.0)
    assert not one.may(1000, 750_000, 1.0)


def test_a_new_connection_begins_anew() -> None:
    one = pace(1e9)
    one.confirmed(10 << 20, 1, 0.0)
    one.published(100_000)
    one.connected(1.0, 37)
    assert not one.may(1, CREDIT_MIN, 1.0)
    assert one.may(1, 0, 1.0)


# --- in simulated time -----------------------------------------------------------------------------------------------


@dataclass
class Line:
    """A gateway with endless backlog, a line of `rate` bytes/s and round trip `trip_s`, a receiver that stores
    `stores` bytes/s and confirms every `confirm_s`."""

    rate: float
    trip_s: float
    size: int
    stores: float
    confirm_s: float
    cap: float = 0.0
    queue: deque[int] = field(default_factory=deque)  # bytes left of each message before the line
    on_way: deque[tuple[float, float]] = field(default_factory=deque)  # (acknowledged when, sent when)
    sent_s: deque[float] = field(default_factory=deque)
    broker: float = 0.0  # bytes that the receiver has not stored
    stored: float = 0.0
    unconfirmed: int = 0
    confirmed: int = 0
    worst_flight: int = 0
    worst_broker: float = 0.0

    def run(self, seconds: float, from_s: float) -> float:
        """Bytes per second confirmed, and the most that was in flight and before the receiver, from then on."""
        one = pace(self.cap)
        next_confirm_s, before = self.confirm_s, 0
        for step in range(round(seconds / STEP_S)):
            now_s = step * STEP_S
            self._move(one, now_s)
            if now_s >= next_confirm_s:
                next_confirm_s += self.confirm_s
                freed = min(self.unconfirmed, int(self.stored) - self.confirmed)
                self.unconfirmed -= freed
                self.confirmed += freed
                one.confirmed(freed, self.unconfirmed, now_s)
            while one.may(self.size, self.unconfirmed, now_s):
                one.published(self.size)
                self.queue.append(self.size)
                self.sent_s.append(now_s)
                self.unconfirmed += self.size
            if now_s >= from_s:
                before = before or self.confirmed
                self.worst_flight = max(self.worst_flight, self.size * (len(self.queue) + len(self.on_way)))
                self.worst_broker = max(self.worst_broker, self.broker)
        return (self.confirmed - before) / (seconds - from_s)

    def _move(self, one: Pace, now_s: float) -> None:
        budget = self.rate * STEP_S
        while self.queue and budget > 0:
            took = min(budget, self.queue[0])
            budget -= took
            self.queue[0] -= int(took) or 1
            if self.queue[0] <= 0:
                self.queue.popleft()
                self.on_way.append((now_s + self.trip_s, self.sent_s.popleft()))
        while self.on_way and self.on_way[0][0] <= now_s:
            _, sent_s = self.on_way.popleft()
            one.answered(self.size, now_s - sent_s, now_s, history=True)
            self.broker += self.size
        stored = min(self.broker, self.stores * STEP_S)
        self.broker -= stored
        self.stored += stored


rates = st.sampled_from([20e3, 125e3, 1e6, 8e6])
sizes = st.sampled_from([3_000, 20_000, 100_000])


@given(rates, st.sampled_from([0.001, 0.05, 0.3, 0.7]), sizes)
@example(125e3, 0.6, 100_000)
@settings(max_examples=10)
def test_only_a_quarter_of_a_second_stands_before_the_line_and_the_line_is_full(
    rate: float, trip_s: float, size: int
) -> None:
    line = Line(rate, trip_s, size, stores=1e9, confirm_s=0.2)
    reached = line.run(24, from_s=16)
    assert line.worst_flight <= rate * (QUEUE_S + trip_s + 3 * STEP_S) + 3 * size
    in_flight_max = 37 * size / (trip_s + STEP_S + size / rate)
    assert reached >= 0.5 * min(rate, in_flight_max)


@given(st.sampled_from([50e3, 500e3, 3e6]), st.sampled_from([0.2, 1.0]), sizes)
@settings(max_examples=8)
def test_a_live_message_finds_little_backlog_before_the_receiver_and_the_receiver_busy(
    stores: float, confirm_s: float, size: int
) -> None:
    line = Line(20e6, 0.02, size, stores, confirm_s, cap=50e6)
    reached = line.run(20, from_s=10)
    assert line.worst_broker <= max(CREDIT_MIN, 1.6 * stores * confirm_s) + 2 * size
    assert reached >= 0.6 * min(stores, 37 * size / 0.03)


def test_a_receiver_that_grows_slow_is_given_less_soon() -> None:
    line = Line(20e6, 0.02, 20_000, stores=4e6, confirm_s=1.0, cap=50e6)
    line.run(20, from_s=10)
    assert line.worst_broker > 2e6
    line.stores = 100e3
    line.worst_broker = 0.0
    one = Line(20e6, 0.02, 20_000, stores=100e3, confirm_s=1.0, cap=50e6)
    one.run(20, from_s=10)
    assert one.worst_broker <= CREDIT_MIN + 2 * 20_000


def test_a_fast_receiver_is_found_out_within_seconds() -> None:
    line = Line(20e6, 0.005, 50_000, stores=10e6, confirm_s=1.0, cap=50e6)
    assert line.run(8, from_s=6) >= 3e6
