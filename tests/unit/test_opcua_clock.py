"""Which time stamps of a server are believed."""

from __future__ import annotations

import pytest

from protocols.field.opcua_clock import Clock

S = 1_000_000
NOW = 1_800_000_000 * S
CLOCK = Clock(30 * S)


@pytest.mark.parametrize("stated", [NOW, NOW - 86_400 * S, NOW + 30 * S])
def test_a_clock_in_line_is_believed_however_old_the_value(stated: int) -> None:
    assert CLOCK.judge(stated, NOW, None) == (stated, "")


@pytest.mark.parametrize(
    ("ahead_s", "says"),
    [
        (31, "about 31 seconds ahead"),
        (-119, "about 119 seconds behind"),
        (-3 * 3600, "about 3 hours behind"),
        (9000 * 86_400, "about 9000 days ahead"),
    ],
)
def test_a_clock_out_of_line_gives_our_time(ahead_s: int, says: str) -> None:
    clock = Clock(30 * S, ahead_s * S)
    time_us, doubt = clock.judge(NOW - 5 * S + ahead_s * S, NOW, None)
    assert time_us == NOW - 5 * S
    assert says in doubt
    assert clock.judge(NOW + ahead_s * S + 99 * S, NOW, None)[0] == NOW  # never later than it arrived


def test_the_future_and_the_way_back_are_doubted() -> None:
    assert CLOCK.judge(NOW + 31 * S, NOW, None) == (
        NOW,
        "its time stamp lies in the future; check the clocks of the server and of what feeds it",
    )
    time_us, doubt = CLOCK.judge(NOW - 100 * S, NOW, NOW - 60 * S)
    assert (time_us, "went back" in doubt) == (NOW, True)
    assert CLOCK.judge(NOW - 80 * S, NOW, NOW - 60 * S) == (NOW - 80 * S, "")
