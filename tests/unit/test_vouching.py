"""Whether anybody vouches for the clock, over boots, restarts, steps and kills: no mark is ever corrected wrongly."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.vouching import LATE_US, SET_US, Moment, Record, Vouching
from protocols.uplink.mark import ClockMark, read
from protocols.uplink.status import ZEROS_MAX

S = 1_000_000
TRUE = 1_796_025_600 * S
"""When the boot really began."""
Y2000 = 946_684_800 * S


def moment(since_s: float, zero_us: int) -> Moment:
    return Moment(int(since_s * S), zero_us + int(since_s * S))


def told(vouching: Vouching, since_s: float, zero_us: int) -> ClockMark | None:
    """The mark of what is stamped just now."""
    at = moment(since_s, zero_us)
    return read(vouching.mark(at.wall_us, at) + b"message").clock


def test_until_it_is_synchronised_everything_is_marked_and_then_the_true_zero_hour_is_known() -> None:
    vouching = Vouching("boot", Record())
    assert not vouching.look(moment(5, Y2000), False)
    mark = told(vouching, 6, Y2000)
    assert mark is not None and mark.zero_us == Y2000 and mark.span.hex() == vouching.span
    assert vouching.look(moment(60, TRUE), True), "to be written down"
    assert vouching.record.zeros == {mark.span.hex(): TRUE}
    assert told(vouching, 60, TRUE) is None and vouching.span == ""


def test_what_was_read_before_the_clock_was_set_and_comes_after_it_is_marked_all_the_same() -> None:
    vouching = Vouching("boot", Record())
    vouching.look(moment(5, Y2000), False)
    vouching.look(moment(60, TRUE), True)
    late = moment(60.2, TRUE)
    mark = read(vouching.mark(Y2000 + 59 * S, late) + b"message").clock
    assert mark is not None and mark.zero_us == Y2000
    assert vouching.mark(TRUE + 59 * S, late) == b"", "also right by the new setting"
    assert vouching.mark(Y2000 + 59 * S, moment(60 + LATE_US / S + 1, TRUE)) == b"", "a source's own time, perhaps"


def test_a_clock_that_was_synchronised_is_vouched_for_until_it_is_set() -> None:
    vouching = Vouching("boot", Record())
    vouching.look(moment(1, TRUE), True)
    assert not vouching.look(moment(50_000, TRUE + SET_US // 2), False), "NTP has been away for hours"
    assert told(vouching, 50_000, TRUE) is None
    assert vouching.look(moment(50_001, TRUE - 3600 * S), False), "set by hand"
    mark = told(vouching, 50_001, TRUE - 3600 * S)
    assert mark is not None and mark.span.hex() not in vouching.record.zeros, "only the next synchronisation proves it"
    vouching.look(moment(50_009, TRUE + 2 * S), True)
    assert vouching.record.zeros[mark.span.hex()] == TRUE + 2 * S


def test_a_step_of_a_synchronised_clock_is_no_correction() -> None:
    vouching = Vouching("boot", Record())
    vouching.look(moment(1, TRUE), True)
    zeros = dict(vouching.record.zeros)
    assert vouching.look(moment(9, TRUE + 3600 * S), True), "what it is vouched for at"
    assert vouching.record.zeros == zeros and told(vouching, 9, TRUE + 3600 * S) is None


def test_a_system_that_does_not_say_is_taken_at_its_word() -> None:
    vouching = Vouching("boot", Record())
    assert not vouching.look(moment(1, Y2000), None)
    assert told(vouching, 1, Y2000) is None and vouching.record.zeros == {}


def test_a_restart_in_the_same_boot_goes_on_with_the_span_without_anything_written() -> None:
    first, again = Vouching("boot", Record()), Vouching("boot", Record())
    first.look(moment(1, Y2000), False)
    again.look(moment(9, Y2000), False)
    assert first.span == again.span != ""
    other = Vouching("another boot", Record())
    other.look(moment(1, Y2000), False)
    assert other.span not in ("", first.span)


def test_a_bounded_number_of_zero_hours_is_told() -> None:
    record = Record()
    for boot in range(ZEROS_MAX + 5):
        vouching = Vouching(f"boot {boot}", record)
        vouching.look(moment(1, TRUE + boot), True)
        record = vouching.record
    assert list(record.zeros.values()) == [TRUE + boot for boot in range(5, ZEROS_MAX + 5)]


@dataclass(frozen=True)
class Step:
    """What happens next: time passes, and then the clock is synchronised, unsynchronised, set by hand, or both."""

    what: str
    after_s: int
    by_s: int = 0


STEPS = st.lists(
    st.builds(
        Step, st.sampled_from(["stamp", "set", "sync", "lose", "restart", "boot"]), st.integers(1, 5000),
        st.integers(-(10**9), 10**9),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=300)
@given(steps=STEPS)
def test_whatever_is_told_is_the_truth(steps: list[Step]) -> None:
    """Every mark that gets a zero hour is corrected to the true time; what nobody vouched for is never unmarked.

    The outbox and the file may be set back to what was written down last, by a kill, at any step.
    """
    boot, began_us, since_s, zero_us, is_synchronised = 0, TRUE, 0, Y2000, False
    written = Record()
    vouching = Vouching("0", deepcopy(written))
    marks: list[tuple[ClockMark, int, int]] = []  # mark, time stamped, true time
    zeros: dict[str, int] = {}
    true_since_us = began_us
    for step in steps:
        since_s += step.after_s
        match step.what:
            case "set":
                zero_us, is_synchronised = began_us + step.by_s * S, False
            case "sync":
                zero_us, is_synchronised = began_us, True
            case "lose":
                is_synchronised = False
            case "boot":
                boot, began_us = boot + 1, began_us + since_s * S
                since_s, zero_us, is_synchronised = 1, Y2000, False
        if step.what in ("restart", "boot"):
            vouching = Vouching(str(boot), deepcopy(written))
        at = moment(since_s, zero_us)
        if vouching.look(at, is_synchronised):
            written = deepcopy(vouching.record)
        zeros |= vouching.record.zeros
        true_since_us = began_us + since_s * S
        mark = read(vouching.mark(at.wall_us, at) + b"message").clock
        if mark is None:
            assert abs(at.wall_us - true_since_us) <= SET_US
        else:
            marks.append((mark, at.wall_us, true_since_us))
    for mark, stamped_us, true_us in marks:
        zero = zeros.get(mark.span.hex())
        assert zero is None or abs(stamped_us + zero - mark.zero_us - true_us) <= SET_US
